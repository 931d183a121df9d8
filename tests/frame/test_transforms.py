"""Transforms: their values, and that one row of new data gives the in-sample row to the last bit."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
from scipy.interpolate import CubicSpline, LSQUnivariateSpline, make_interp_spline

from frame.frames import columns
from ranef.errors import DataError, FormulaError, RanefError, UnknownColumnError
from ranef.formula import functions
from ranef.frame import build, matrix
from ranef.frame.evaluate import CALLS
from ranef.frame.transforms import ELEMENTWISE, STATEFUL

DATA = columns(50)
x, z, pos = (np.array(DATA[k]) for k in ("x", "z", "pos"))


def column(rhs, data=None, **options):
    _, design = build(f"y ~ 0 + {rhs}", DATA if data is None else data, **options)
    return matrix(design.fixed, design.n)


def test_the_two_tables_of_functions_agree():
    assert set(ELEMENTWISE) == functions.ELEMENTWISE
    assert set(STATEFUL) == functions.STATEFUL
    assert set(CALLS) == functions.SHAPE | functions.CATEGORICAL | functions.CODING_CALLS


EVERY = [
    "x",
    "I(x^2)",
    "I(x**3)",
    "I(x/2 + z*3 - 1)",
    "log(pos)",
    "log(pos, 10)",
    "log(pos, base = 2)",
    "log1p(pos)",
    "log10(pos)",
    "log2(pos)",
    "exp(x)",
    "expm1(x)",
    "sqrt(pos)",
    "abs(x)",
    "sin(2 * pi * x)",
    "cos(x)",
    "tan(x)",
    "np.exp(x)",
    "np.arctan(x)",
    "round(x, 1)",
    "floor(x)",
    "ceiling(x)",
    "sign(x)",
    "ifelse(x > 0, x, z)",
    "pmax(x, 0)",
    "pmin(x, z)",
    "I(x %% 2)",
    "I(x %/% 2)",
    "I(-x)",
    "I(+x)",
    "scale(x)",
    "scale(x, center = FALSE)",
    "scale(x, scale = FALSE)",
    "center(x)",
    "standardize(x)",
    "poly(x, 3)",
    "poly(x, 2, raw = TRUE)",
    "poly(x, degree = 4)",
    "bs(x)",
    "bs(x, df = 6)",
    "bs(x, knots = c(-0.5, 0.5), degree = 2)",
    "bs(x, df = 5, intercept = TRUE)",
    "ns(x, df = 3)",
    "ns(x, knots = c(0))",
    "ns(x, df = 4, intercept = TRUE)",
    "cr(x, df = 4)",
    "cc(x, df = 4)",
    "cr(x, knots = [0])",
    "poly(log(pos), 2)",
    "scale(poly(x, 1))",
    "x:z",
    "x:f",
    "poly(x, 2):f",
    "f:h",
    "b",
    "k",
    "factor(k)",
    "ordered(k)",
    "as.factor(i)",
    "cut(x, 3)",
    "cut(x, c(-9, 0, 9))",
    "I(x > 0)",
    "I(f == 'lo')",
    "I(f %in% c('lo', 'hi'))",
    "I(x > 0 & !b | z < 2)",
    "I(f != 'lo')",
    "interaction(f, h)",
    "droplevels(f)",
    "relevel(f, ref = 'mid')",
    "C(f, sum)",
    "C(f, contr.helmert)",
    "as.numeric(b)",
    "as.numeric(factor(f))",
    "as.integer(ordered(h))",
    "as.numeric(as.character(k))",
    "as.character(f)",
    "as.logical(k - 1)",
    "as.integer(x)",
    "dummy(f, 'lo')",
    "dummy(f)",
    "dummy(f, c('lo', 'hi'))",
    "I(x - mean(x))",
    "I((x - median(x)) / sd(x))",
    "I((x - min(x)) / (max(x) - min(x)))",
    "I(x / sum(pos))",
    "poly(x, 2, raw = T)",
    "factor(k, levels = 4:1)",
    "cut(x, c(-9, seq(-1, 1, 0.5), 9))",
    "cut(x, c(-Inf, 0, Inf))",
    "cut(x, 3, labels = FALSE)",
    "ifelse(x > 0, 'up', ifelse(z > 3, f, 'down'))",
    "C(f, contr.treatment(3, base = 2))",
    "C(ordered(k), poly, 2)",
    "interaction(f, x > 0, drop = TRUE, sep = '_')",
    "asinh(x)",
    "atan2(x, z)",
    "plogis(x)",
    "qnorm(plogis(x))",
    "sinpi(x)",
    "factor(f, labels = c('A', 'B', 'C'))",
    "ordered(f)",
    "f",
    "factor(f, levels = c('lo', 'mid', 'hi'), labels = c('1', '2', '3'))",
]


@pytest.mark.parametrize("rhs", EVERY)
def test_a_row_of_new_data_is_the_row_of_the_fit(rhs):
    data = {k: np.array(v) for k, v in DATA.items()}
    spec, design = build(f"y ~ 1 + {rhs} + (0 + {rhs} | g)", data)
    X = matrix(design.fixed, design.n)
    Z = matrix(design.terms[0].blocks, design.n)
    assert np.isfinite(X).all()
    for row in (0, 17, 49):
        one = spec.new({k: v[row : row + 1] for k, v in data.items()})
        np.testing.assert_array_equal(matrix(one.fixed, 1)[0], X[row])
        np.testing.assert_array_equal(matrix(one.terms[0].blocks, 1)[0], Z[row])
        assert one.terms[0].codes[0] == design.terms[0].codes[row]
    some = spec.new(pd.DataFrame(data).iloc[10:20])
    np.testing.assert_array_equal(matrix(some.fixed, 10), X[10:20])
    assert some.fixed[-1].names == design.fixed[-1].names


def test_elementwise_values():
    np.testing.assert_array_equal(column("log(pos)")[:, 0], np.log(pos))
    np.testing.assert_allclose(column("log(pos, 3)")[:, 0], np.log(pos) / np.log(3))
    np.testing.assert_array_equal(column("I(x^2 - 1/pos)")[:, 0], x**2 - 1 / pos)
    np.testing.assert_array_equal(column("sin(2*pi*x)")[:, 0], np.sin(2 * np.pi * x))
    np.testing.assert_array_equal(column("pmax(x, z, 3)")[:, 0], np.maximum(np.maximum(x, z), 3))
    np.testing.assert_array_equal(column("pmin(x, 0)")[:, 0], np.minimum(x, 0))
    np.testing.assert_array_equal(column("ifelse(b, x, -1)")[:, 0], np.where(DATA["b"], x, -1))
    np.testing.assert_array_equal(column("I(x > 0 & z < 3)")[:, 1], (x > 0) & (z < 3))
    np.testing.assert_array_equal(column("I(!(x > 0) | z < 3)")[:, 1], ~(x > 0) | (z < 3))


@pytest.mark.parametrize(("name", "env"), [("pi", {}), ("T", {}), ("own", {"own": 3.0})])
def test_columns_go_before_constants_and_stay_columns(name, env):
    data = {**DATA, name: x}
    np.testing.assert_array_equal(column(f"I(2 * {name})", data, env=env)[:, 0], 2 * x)
    spec, _ = build(f"y ~ I(2 * {name})", data, env=env)
    with pytest.raises(UnknownColumnError, match=f"'{name}'"):
        spec.new(DATA)


def test_numbers_of_levels_and_numbers_written_as_text():
    """R: as.numeric(factor) is the number of the level, whatever its label; as.numeric(as.character(f)) the label."""
    labels = pd.Categorical(["40", "5", "40", "300"] * 5, categories=["300", "40", "5", "7"])
    data = {"y": np.arange(20.0), "f": labels, "t": ["40", "5", "40", "300"] * 5}
    for rhs, wanted in [
        ("as.numeric(f)", [2, 3, 2, 1]),
        ("as.numeric(as.character(f))", [40, 5, 40, 300]),
        ("as.integer(t)", [40, 5, 40, 300]),
        ("as.numeric(factor(t, levels = c(5, 40, 300)))", [2, 1, 2, 3]),
    ]:
        np.testing.assert_array_equal(column(rhs, data)[:4, 0], wanted)
        spec, _ = build(f"y ~ {rhs}", data)
        for kind in (list, pd.Categorical):  # new data may hold text where there was a factor, and the other way about
            one = spec.new({"f": kind(["300"]), "t": kind(["300"])})
            assert matrix(one.fixed, 1)[0, 1] == wanted[3]
    with pytest.raises(DataError, match="level '9' has no number"):
        build("y ~ as.numeric(f)", data)[0].new({"f": ["9"]})


def test_factor_keeps_or_loses_its_order_as_in_r():
    """R: factor(x, levels, ordered = is.ordered(x))."""
    data = {"y": np.arange(6.0), "o": pd.Categorical(["a", "b", "c"] * 2, ordered=True), "t": ["a", "b", "c"] * 2}
    for rhs, ordered in [
        ("factor(o)", True),
        ("factor(o, levels = c('c', 'b', 'a'))", True),
        ("factor(o, ordered = FALSE)", False),
        ("factor(t, ordered = TRUE)", True),
        ("factor(t, levels = c('c', 'b', 'a'))", False),
    ]:
        names = build(f"y ~ {rhs}", data)[1].fixed_names
        assert names[1].endswith(".L") == ordered, rhs


def test_contrasts_of_a_formula_as_in_r():
    """The first argument of contr.treatment is the number of levels, base the place of the reference."""
    data = {"y": np.arange(8.0), "k": [1, 2, 3, 4] * 2}
    for coding, kept in [
        ("contr.treatment(4)", [2, 3, 4]),
        ("contr.treatment(4, base = 3)", [1, 2, 4]),
        ("contr.treatment, base = 2", [1, 3, 4]),
        ("Treatment(2)", [1, 3, 4]),
    ]:
        made = column(f"1 + C(k, {coding})", data)[:4, 1:]
        np.testing.assert_array_equal(made, np.eye(4)[:, np.array(kept) - 1])
    all_of, two = (column(f"1 + C(k, poly{n})", data) for n in ("", ", 2"))
    np.testing.assert_array_equal(two, all_of[:, :3])


def test_dummy_is_lme4s():
    data = {"y": np.arange(6.0), "f": ["a", "b", "c"] * 2, "g": list("uuvvww")}
    _, design = build("y ~ (0 + dummy(f, 'b') | g) + (0 + dummy(f) | g)", data)
    b, c = np.array([0.0, 1, 0] * 2), np.array([0.0, 0, 1] * 2)
    np.testing.assert_array_equal(matrix(design.terms[0].blocks, 6), b[:, None])
    np.testing.assert_array_equal(matrix(design.terms[1].blocks, 6), np.column_stack([b, c]))
    assert design.terms[1].names == ("dummy(f)b", "dummy(f)c")
    assert np.isnan(build("y ~ dummy(f)", data)[0].new({"f": [None]}).fixed[1].x).all()
    with pytest.raises(DataError, match="'z' is a level that was not among those fitted"):
        build("y ~ dummy(f)", data)[0].new({"f": ["z"]})


def test_scale_and_mean_of_the_fitted_data_stay():
    spec, _ = build("y ~ I(x - mean(x)) + I(x / max(x))", DATA)
    new = matrix(spec.new({"x": [1.0, 2.0]}).fixed, 2)
    np.testing.assert_allclose(new[:, 1], [1 - x.mean(), 2 - x.mean()], rtol=1e-14)
    np.testing.assert_allclose(new[:, 2], [1 / x.max(), 2 / x.max()], rtol=1e-14)


def test_scale_is_rs():
    np.testing.assert_allclose(column("scale(x)")[:, 0], (x - x.mean()) / x.std(ddof=1), rtol=1e-13)
    rms = np.sqrt((x**2).sum() / (len(x) - 1))
    np.testing.assert_allclose(column("scale(x, center = FALSE)")[:, 0], x / rms, rtol=1e-13)
    np.testing.assert_allclose(column("scale(x, scale = FALSE)")[:, 0], x - x.mean(), rtol=1e-13)


@pytest.mark.parametrize("shift", [0.0, 2000.0])
def test_poly_is_orthonormal_with_positive_leading_coefficients(shift):
    data = {**DATA, "x": x + shift}
    made = column("poly(x, 4)", data)
    np.testing.assert_allclose(made.T @ made, np.eye(4), atol=1e-10)
    np.testing.assert_allclose(made.sum(0), 0, atol=1e-10)
    for degree in range(1, 5):
        fit = np.polynomial.Polynomial.fit(x, made[:, degree - 1], degree)
        assert fit.coef[-1] > 0
        np.testing.assert_allclose(fit(x), made[:, degree - 1], atol=1e-9)


def test_poly_as_r_prints_it():
    # R> poly(1:5, 2)
    data = {"y": np.arange(5.0) ** 2, "x": [1, 2, 3, 4, 5]}
    root = np.sqrt([10, 14])
    np.testing.assert_allclose(
        column("poly(x, 2)", data), np.array([[-2, 2], [-1, -1], [0, -2], [1, -1], [2, 2]]) / root, atol=1e-15
    )


def test_bs_spans_the_cubic_splines():
    knots = np.quantile(x, [0.25, 0.5, 0.75])
    made = column("bs(x, df = 6)")
    assert made.shape == (50, 6)
    order = np.argsort(x)
    y = np.sin(3 * x)
    spline = LSQUnivariateSpline(x[order], y[order], knots)
    X = np.column_stack([np.ones(50), made])
    fitted = X @ np.linalg.lstsq(X, y, rcond=None)[0]
    np.testing.assert_allclose(fitted, spline(x), atol=1e-9)
    full = column("bs(x, df = 7, intercept = TRUE)")
    np.testing.assert_allclose(full.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(full[:, 1:], made, atol=1e-14)


def test_bs_as_r_prints_it():
    # R> bs(c(0, 1, 2, 3, 4)): Bernstein polynomials on [0, 4] without the first
    data = {"y": np.arange(5.0) ** 2, "x": np.arange(5.0)}
    u = np.arange(5) / 4
    expected = np.column_stack([3 * u * (1 - u) ** 2, 3 * u**2 * (1 - u), u**3])
    np.testing.assert_allclose(column("bs(x)", data), expected, atol=1e-15)


def test_ns_is_a_natural_spline():
    made = column("ns(x, df = 4)")
    knots = np.quantile(x, [0, 0.25, 0.5, 0.75, 1])
    values = np.random.default_rng(1).normal(size=5)
    y = CubicSpline(knots, values, bc_type="natural")(x)
    X = np.column_stack([np.ones(50), made])
    beta = np.linalg.lstsq(X, y, rcond=None)[0]
    np.testing.assert_allclose(X @ beta, y, atol=1e-9)
    spec, _ = build("y ~ ns(x, df = 4)", DATA)
    far = matrix(spec.new({"x": [5.0, 6.0, 7.0]}).fixed, 3)
    np.testing.assert_allclose(np.diff(far, 2, axis=0), 0, atol=1e-9)


def test_cr_and_cc_interpolate_at_their_knots():
    made = column("cr(x, df = 5)")
    knots = np.quantile(np.unique(x), np.linspace(0, 1, 5))
    values = np.random.default_rng(2).normal(size=5)
    np.testing.assert_allclose(made @ values, CubicSpline(knots, values, bc_type="natural")(x), atol=1e-12)
    made = column("cc(x, df = 4)")
    values = np.r_[values[:4], values[0]]
    np.testing.assert_allclose(made @ values[:4], CubicSpline(knots, values, bc_type="periodic")(x), atol=1e-12)
    assert make_interp_spline is not None


def test_cut_as_r_labels_it():
    data = {"y": np.arange(5.0), "x": [0.0, 2, 4, 6, 10]}
    _, design = build("y ~ 0 + cut(x, 2) + (1 | cut(x, c(-1, 3, 10)))", data)
    assert design.fixed_names == ("cut(x, 2)(-0.01,5]", "cut(x, 2)(5,10]")
    assert list(design.terms[0].levels) == ["(-1,3]", "(3,10]"]


def test_expressions_can_group():
    _, design = build("y ~ 1 + (1 | factor(k)) + (1 | I(x > 0)) + (1 | interaction(f, h)) + (1 | k:b)", DATA)
    assert [t.label for t in design.terms] == ["factor(k)", "I(x > 0)", "interaction(f, h)", "k:b"]
    assert list(design.terms[0].levels) == sorted(set(DATA["k"]))
    assert list(design.terms[1].levels) == [False, True]
    assert design.terms[3].levels[0] == "1:FALSE"


@pytest.mark.parametrize("call", ["se(x, pos)", "cens(x, b)", "poly(x, 2)"])
def test_what_is_no_column_cannot_group(call):
    with pytest.raises(DataError, match="cannot group rows"):
        build(f"y ~ (1 | {call})", DATA)


def test_values_that_a_function_does_not_give_are_missing():
    _, design = build("y ~ log(x)", DATA)
    assert design.dropped == {"log(x)": int((x <= 0).sum())}
    assert design.n == (x > 0).sum()
    _, design = build("log(x) ~ 1", DATA)
    assert design.n == (x > 0).sum()


def test_infinite_results_are_errors():
    with pytest.raises(DataError, match=r"'log\(k0\)' is infinite in row 3"):
        build("y ~ log(k0)", {**DATA, "k0": [1, 2, 3, 0] + [1] * 46})
    with pytest.raises(DataError, match=r"'x' is infinite in rows 1, 2 \(counted from 0\)"):
        build("y ~ x", {"y": [1.0, 2, 3], "x": [1.0, np.inf, -np.inf]})
    with pytest.raises(DataError, match="'y' is infinite"):
        build("y ~ 1", {"y": [1.0, np.inf, 3]})


@pytest.mark.parametrize(
    ("rhs", "words"),
    [
        ("log(f)", "column 'f' is a factor"),
        ("I(f + 1)", "factor"),
        ("I(f > 'a')", "== and !="),
        ("I(x == 'a')", "numbers are compared with text"),
        ("I(f == x)", "compared with a label"),
        ("I(x & z)", "truth value"),
        ("poly(x, 60)", "distinct values"),
        ("poly(x, 101)", "between 1 and 100"),
        ("poly(x, 1.5)", "whole number"),
        ("poly(x, 'a')", "whole number"),
        ("poly(x, degree = 2, foo = 1)", "does not take these arguments"),
        ("poly()", "does not take"),
        ("exp(x, z)", r"too many positional.*it is exp\(x\)"),
        ("exp(x, out = z)", r"unexpected keyword argument 'out'.*it is exp\(x\)"),
        ("cut(x)", r"missing a required argument: 'breaks'.*it is cut\(x, breaks,"),
        ("poly(3, 2)", "the first argument is a column"),
        ("bs(x, df = 2)", "between 3 and 100"),
        ("bs(x, knots = c(99))", "strictly between"),
        ("cr(x)", "takes df or knots"),
        ("log()", "does not take"),
        ("log(x, 2, 3, 4)", "does not take"),
        ("scale(const)", "constant"),
        ("ns(const, df = 3)", "constant"),
        ("I(1)", "one number for each of the 50 rows"),
        ("I(2 * pi)", "one number for each"),
        ("c(x, z)", "one number for each"),
        ("c(x, 1)", "one number for each"),
        ("Treatment(x)", "one number for each"),
        ("cut(x, 1)", "does not take"),
        ("cut(x, c(1, 1))", "distinct"),
        ("relevel(f, ref = 'zzz')", "not a level"),
        ("factor(f, labels = c('a'))", "labels are 3 texts"),
        ("C(f, 'zzz')", "unknown contrasts"),
        ("I(x %in% c())", "needs values"),
        ("I('a')", "one number"),
        ("exp('a')", "numbers are needed"),
        (
            "as.numeric(as.character(f))",
            r"'mid' are no numbers; as.numeric\(factor\(x\)\) numbers the lev",
        ),
        ("dummy(f, 'zzz')", "'zzz' is no level; the levels are"),
        ("dummy(const)", "1 to 100 columns, not 0"),
        ("mean(x)", "one number for each of the 50 rows"),
        ("max(1, 2)", "first argument is a column"),
        ("I(x:2)", "a range such as 1:3"),
        ("I(1:1e9)", "up to 1000 numbers"),
        ("seq(1, 2, 0)", "up to 1000 numbers"),
        ("C(f, contr.treatment(4))", "is for 4 levels; these are 3"),
        ("C(f, contr.treatment, base = 4)", "place of a reference level, 1 to 3"),
        ("C(f, poly, 3)", "1 to 2, not 3"),
        ("ifelse(x > 0, factor(f), 'a')", "takes text, not factors"),
        ("contr.sum()", "one number"),
    ],
)
def test_errors_name_the_call(rhs, words):
    with pytest.raises(RanefError, match=words):
        build(f"y ~ {rhs}", {**DATA, "const": [1.0] * 50})


def test_responses_of_two_columns_belong_to_binomial_families():
    with pytest.raises(DataError, match="not one column"):
        build("cbind(x, z) ~ 1", DATA)


def test_the_callers_functions():
    def double(v):
        return 2 * v

    def both(v):
        return np.column_stack([v, v**2])

    with pytest.raises(FormulaError, match="env="):
        build("y ~ double(x)", DATA)
    env = {"double": double, "both": both, "shift": 3.0, "outside": np.arange(50.0)}
    np.testing.assert_array_equal(column("double(x)", env=env)[:, 0], 2 * x)
    np.testing.assert_array_equal(column("both(x)", env=env), np.column_stack([x, x**2]))
    np.testing.assert_array_equal(column("I(x + shift)", env=env)[:, 0], x + 3)
    np.testing.assert_array_equal(column("outside", env=env)[:, 0], np.arange(50.0))
    spec, _ = build("y ~ double(x)", DATA, env=env)
    np.testing.assert_array_equal(matrix(spec.new({"x": [4.0]}).fixed, 1), [[1, 8]])


def test_state_is_taken_from_all_rows_of_the_column_as_in_r():
    data = {**DATA, "w": [None] * 10 + [1.0] * 39 + [2.0]}
    made = column("scale(x) + w", data)[:, 0]
    np.testing.assert_allclose(made, ((x - x.mean()) / x.std(ddof=1))[10:], rtol=1e-12)


def test_labels_that_are_numbers_are_compared_as_numbers():
    text = {**DATA, "t": [str(v) for v in DATA["k"]]}
    whole = np.array(DATA["k"])
    np.testing.assert_array_equal(column("as.numeric(I(t == 2))", text)[:, 0], whole == 2)
    np.testing.assert_array_equal(column("as.numeric(I(t %in% c(1, 2)))", text)[:, 0], whole <= 2)
    np.testing.assert_array_equal(column("as.numeric(I(factor(k) != 2.0))")[:, 0], whole != 2)


def test_no_call_of_a_formula_writes_into_the_data():
    """NumPy's functions take a second array to write their result to."""
    data = {"x": np.linspace(-1, 1, 9), "y": np.linspace(2, 3, 9)}
    for name in sorted(functions.ELEMENTWISE):
        before = data["y"].copy()
        with suppress(DataError):
            build(f"y ~ {name}(x, y)", data)
        np.testing.assert_array_equal(data["y"], before)


@pytest.mark.parametrize(
    ("response", "error", "says"),
    [
        ("y | trunc(lb = 0)", FormulaError, r"stands around it: trunc\(y, …\)"),
        ("trunc()", DataError, r"it is trunc\(y, lb, ub, lower, upper\)"),
        ("se(y, x, sigma = TRUE)", DataError, r"a random effect of every row: \+ \(1 \| row\)"),
        ("se(y)", DataError, r"\(missing a required argument: 'sd'\); it is se\(y, sd"),
        ("cens(y)", DataError, r"\(missing a required argument: 'status'\); it is cens\(y, status, upper\)"),
    ],
)
def test_spellings_of_a_response_of_other_packages(response, error, says):
    with pytest.raises(error, match=says):
        build(f"{response} ~ x", DATA)
