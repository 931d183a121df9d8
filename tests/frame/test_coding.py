"""Columns, names and order are those of R's `model.matrix`."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from frame.frames import columns
from ranef.errors import ArgumentError, DataError, NotAvailableError, OptionError, UnknownColumnError
from ranef.formula import parse
from ranef.frame import Part, build, matrix

# Two factors a (p, q), c (u, v, w), one number x: every cell occurs, twice.
CELLS = [(a, c) for a in "pq" for c in "uvw"] * 2
DATA = {
    "y": np.arange(12.0) ** 1.5,
    "a": [a for a, _ in CELLS],
    "c": [c for _, c in CELLS],
    "x": np.linspace(-1, 2, 12),
    "z": np.linspace(3, 9, 12) ** 2,
    "t": [True, False, True] * 4,
}


def names(formula, data=None, **options):
    return list(build(formula, DATA if data is None else data, **options)[1].fixed_names)


def X(formula, data=None, **options):
    design = build(formula, DATA if data is None else data, **options)[1]
    return matrix(design.fixed, design.n)


# Right-hand sides and the column names that model.matrix(~ ..., data) has in R 4.
EXPECTED = {
    "1": ["(Intercept)"],
    "0": [],
    "a": ["(Intercept)", "aq"],
    "0 + a": ["ap", "aq"],
    "0 + a + c": ["ap", "aq", "cv", "cw"],
    "0 + x + a": ["x", "ap", "aq"],
    "a + c": ["(Intercept)", "aq", "cv", "cw"],
    "a * c": ["(Intercept)", "aq", "cv", "cw", "aq:cv", "aq:cw"],
    "0 + a * c": ["ap", "aq", "cv", "cw", "aq:cv", "aq:cw"],
    "0 + a:c": ["ap:cu", "aq:cu", "ap:cv", "aq:cv", "ap:cw", "aq:cw"],
    "a:c": ["(Intercept)", "ap:cu", "aq:cu", "ap:cv", "aq:cv", "ap:cw", "aq:cw"],
    "a + a:c": ["(Intercept)", "aq", "ap:cv", "aq:cv", "ap:cw", "aq:cw"],
    "a/c": ["(Intercept)", "aq", "ap:cv", "aq:cv", "ap:cw", "aq:cw"],
    "c + a:c": ["(Intercept)", "cv", "cw", "cu:aq", "cv:aq", "cw:aq"],
    "a:x": ["(Intercept)", "ap:x", "aq:x"],
    "x:a": ["(Intercept)", "x:ap", "x:aq"],
    "x + x:a": ["(Intercept)", "x", "x:aq"],
    "a + a:x": ["(Intercept)", "aq", "ap:x", "aq:x"],
    "a * x": ["(Intercept)", "aq", "x", "aq:x"],
    "0 + a + a:x": ["ap", "aq", "ap:x", "aq:x"],
    "0 + a + x:a": ["ap", "aq", "ap:x", "aq:x"],
    "0 + x:a": ["x:ap", "x:aq"],
    "0 + x + x:a": ["x", "x:ap", "x:aq"],
    "x:z": ["(Intercept)", "x:z"],
    "a:c:x": ["(Intercept)", *(f"a{i}:c{j}:x" for j in "uvw" for i in "pq")],
    "a*c*x - a:c:x": ["(Intercept)", "aq", "cv", "cw", "x", "aq:cv", "aq:cw", "aq:x", "cv:x", "cw:x"],
    "a*c + a:c:x": ["(Intercept)", "aq", "cv", "cw", "aq:cv", "aq:cw", *(f"a{i}:c{j}:x" for j in "uvw" for i in "pq")],
    "x*a + x:c": ["(Intercept)", "x", "aq", "x:aq", "x:cv", "x:cw"],
    "poly(x, 2)": ["(Intercept)", "poly(x, 2)1", "poly(x, 2)2"],
    "poly(x, 2):a": ["(Intercept)", "poly(x, 2)1:ap", "poly(x, 2)2:ap", "poly(x, 2)1:aq", "poly(x, 2)2:aq"],
    "a:poly(x, 2)": ["(Intercept)", "ap:poly(x, 2)1", "aq:poly(x, 2)1", "ap:poly(x, 2)2", "aq:poly(x, 2)2"],
    "poly(x, 1) + scale(z)": ["(Intercept)", "poly(x, 1)", "scale(z)"],
    "t": ["(Intercept)", "tTRUE"],
    "0 + t": ["tFALSE", "tTRUE"],
    "I(x > 0)": ["(Intercept)", "I(x > 0)TRUE"],
    "I(x^2) + log(z)": ["(Intercept)", "I(x^2)", "log(z)"],
    "t:a + factor(t)": ["(Intercept)", "factor(t)TRUE", "tFALSE:ap", "tTRUE:ap", "tFALSE:aq", "tTRUE:aq"],
}


@pytest.mark.parametrize("rhs", EXPECTED)
def test_names(rhs):
    assert names(f"y ~ {rhs}") == EXPECTED[rhs]


@pytest.mark.parametrize("rhs", EXPECTED)
def test_columns_have_the_values_their_names_say(rhs):
    """A column named `aq:x` is the indicator of a == q times x, and so on for every name above."""
    made = X(f"y ~ {rhs}")
    for name, column in zip(EXPECTED[rhs], made.T, strict=True):
        np.testing.assert_allclose(column, by_name(name), atol=1e-12)


def by_name(name):
    out = np.ones(12)
    parts = [] if name == "(Intercept)" else name.split(":")
    for part in parts:
        out = out * values(part)
    return out


def values(part):
    x, z, a, c, t = (np.array(DATA[k]) for k in "xzact")
    known = {"x": x, "z": z, "I(x^2)": x**2, "log(z)": np.log(z), "scale(z)": (z - z.mean()) / z.std(ddof=1)}
    if part in known:
        return known[part]
    if part.startswith("poly"):
        degree = int(part[-1]) if part[-1] in "12" else 1
        raw = np.linalg.qr(np.vander(x, degree + 1, increasing=True))[0][:, degree]
        return raw * np.sign(raw[-1])
    if part.endswith(("TRUE", "FALSE")):
        truth = x > 0 if part.startswith("I(") else t
        return truth == part.endswith("TRUE")
    return {"a": a, "c": c}[part[0]] == part[1]


def test_reference_example_of_a_slope_per_level():
    data = columns()
    assert names("y ~ 0 + f + x:f + (1 | g)", data) == ["fhi", "flo", "fmid", "fhi:x", "flo:x", "fmid:x"]


CODINGS = {
    "treatment": ([[0, 0], [1, 0], [0, 1]], ["cv", "cw"]),
    "contr.treatment": ([[0, 0], [1, 0], [0, 1]], ["cv", "cw"]),
    "SAS": ([[1, 0], [0, 1], [0, 0]], ["cu", "cv"]),
    "sum": ([[1, 0], [0, 1], [-1, -1]], ["c1", "c2"]),
    "contr.sum": ([[1, 0], [0, 1], [-1, -1]], ["c1", "c2"]),
    "helmert": ([[-1, -1], [1, -1], [0, 2]], ["c1", "c2"]),
    "contr.helmert": ([[-1, -1], [1, -1], [0, 2]], ["c1", "c2"]),
    "poly": ([[-(0.5**0.5), 6**-0.5], [0, -2 * 6**-0.5], [0.5**0.5, 6**-0.5]], ["c.L", "c.Q"]),
    "contr.sdif": ([[-2 / 3, -1 / 3], [1 / 3, -1 / 3], [1 / 3, 2 / 3]], ["c2-1", "c3-2"]),  # MASS 7.3-58.2
    ("treatment", "w"): ([[1, 0], [0, 1], [0, 0]], ["cu", "cv"]),
    ("treatment", "v"): ([[1, 0], [0, 0], [0, 1]], ["cu", "cw"]),
}


@pytest.mark.parametrize("coding", CODINGS, ids=str)
def test_contrasts(coding):
    table, expected = CODINGS[coding]
    made = X("y ~ c", contrasts={"c": coding})
    np.testing.assert_allclose(made[:3, 1:], table, atol=1e-14)
    assert names("y ~ c", contrasts={"c": coding})[1:] == expected


def test_a_matrix_of_contrasts():
    table = [[1, 0], [0, 2], [3, 3]]
    np.testing.assert_array_equal(X("y ~ c", contrasts={"c": table})[:3, 1:], table)
    assert names("y ~ c", contrasts={"c": np.array(table)}) == ["(Intercept)", "c1", "c2"]
    assert names("y ~ c", contrasts={"c": [1, 0, -1]}) == ["(Intercept)", "c1"]


def test_a_matrix_with_labels_is_matched_by_them():
    levels = list(build("y ~ c", DATA)[0].factors["c"].levels)
    table = np.array([[1.0, 0], [0, 1], [-1, -1]])
    labelled = pd.DataFrame(table, index=levels)
    expected = X("y ~ c", contrasts={"c": table})
    np.testing.assert_array_equal(X("y ~ c", contrasts={"c": labelled.iloc[[2, 0, 1]]}), expected)
    more = pd.concat([labelled, pd.DataFrame([[5.0, 5.0]], index=["unused"])]).iloc[::-1]
    np.testing.assert_array_equal(X("y ~ c", contrasts={"c": more}), expected)
    np.testing.assert_array_equal(X("y ~ c", contrasts={"c": pd.DataFrame(table)}), expected)
    with pytest.raises(DataError, match="no row for level"):
        X("y ~ c", contrasts={"c": labelled.set_axis(["a", "b", "?"])})


def test_contrasts_inside_the_formula():
    assert names("y ~ C(c, sum)") == ["(Intercept)", "C(c, sum)1", "C(c, sum)2"]
    assert names("y ~ C(c, contr.helmert)") == ["(Intercept)", "C(c, contr.helmert)1", "C(c, contr.helmert)2"]
    assert names("y ~ C(c, contr.sdif)") == ["(Intercept)", "C(c, contr.sdif)2-1", "C(c, contr.sdif)3-2"]
    assert names('y ~ C(c, Treatment("w"))') == ["(Intercept)", 'C(c, Treatment("w"))u', 'C(c, Treatment("w"))v']
    np.testing.assert_array_equal(X("y ~ C(c, sum)"), X("y ~ c", contrasts={"c": "sum"}))
    np.testing.assert_array_equal(X('y ~ relevel(c, ref = "w")')[:3, 1:], [[1, 0], [0, 1], [0, 0]])
    np.testing.assert_array_equal(X('y ~ factor(c, levels = c("w", "v", "u"))')[:3, 1:], [[0, 1], [1, 0], [0, 0]])


def test_contrasts_reach_calls_interactions_and_bars():
    assert names("y ~ factor(c)", contrasts={"c": "sum"}) == ["(Intercept)", "factor(c)1", "factor(c)2"]
    assert names("y ~ a*c", contrasts={"a": "sum", "c": "helmert"}) == [
        "(Intercept)",
        "a1",
        "c1",
        "c2",
        "a1:c1",
        "a1:c2",
    ]
    _, design = build("y ~ 1 + (c | a)", DATA, contrasts={"c": "sum"})
    assert design.terms[0].names == ("(Intercept)", "c1", "c2")


def test_ordered_factors_are_polynomials():
    ordered = pd.Categorical(DATA["c"], ["w", "v", "u"], ordered=True)
    assert names("y ~ c", {**DATA, "c": ordered}) == ["(Intercept)", "c.L", "c.Q"]
    assert names("y ~ ordered(c)") == ["(Intercept)", "ordered(c).L", "ordered(c).Q"]
    assert names("y ~ c", {**DATA, "c": ordered}, contrasts={"c": "treatment"}) == ["(Intercept)", "cv", "cu"]


def test_orthogonal_polynomials_of_many_levels():
    for size in (2, 5, 12, 30):
        data = {"y": np.arange(2.0 * size) ** 2, "o": list(range(size)) * 2}
        made = X("y ~ ordered(o)", data)[:size, 1:]
        np.testing.assert_allclose(made.T @ made, np.eye(size - 1), atol=1e-12)
        np.testing.assert_allclose(made.sum(0), 0, atol=1e-12)
        assert (made[-1] > 0).all()
    assert names("y ~ ordered(o)", data)[1:5] == ["ordered(o).L", "ordered(o).Q", "ordered(o).C", "ordered(o)^4"]


@pytest.mark.parametrize(
    ("contrasts", "error", "words"),
    [
        ({"c": "summ"}, OptionError, "unknown contrasts 'summ'"),
        ({"cc": "sum"}, UnknownColumnError, "factor 'cc'"),
        ({"x": "sum"}, DataError, "numeric"),
        ({"c": [[1], [2]]}, DataError, "3 levels"),
        ({"c": ("treatment", "zz")}, DataError, "base level 'zz'"),
        ({"c": {"u": 1}}, ArgumentError, "matrix"),
        ({"c": "sum", "x": None}, DataError, "numeric"),
        ({"c": None}, ArgumentError, "matrix"),
        ([("c", "sum")], ArgumentError, "dict"),
    ],
)
def test_bad_contrasts(contrasts, error, words):
    with pytest.raises(error, match=words):
        build("y ~ c + x", DATA, contrasts=contrasts)


def test_a_factor_of_one_level():
    with pytest.raises(DataError, match="factor 'c' has one level, 'u'"):
        build("y ~ c", {"y": [1, 2, 3], "c": ["u", "u", "u"]})
    with pytest.raises(DataError, match="one level, 'u'"):
        build("y ~ c", {"y": [1, 2, None], "c": ["u", "u", "v"]})
    assert names("y ~ 0 + c", {"y": [1, 2, 3], "c": ["u", "u", "u"]}) == ["cu"]


def test_levels_without_rows_vanish():
    f = pd.Categorical(["b", "c", "b", "c"], ["a", "b", "c"])
    _, design = build("y ~ f + (1 | f)", {"y": [1.0, 2, 4, 3], "f": f})
    assert design.fixed_names == ("(Intercept)", "fc")
    assert list(design.terms[0].levels) == ["b", "c"]
    _, design = build("y ~ f", {"y": [1.0, 2, None, 3, 2], "f": ["a", "b", "c", "a", "b"]})
    assert design.fixed_names == ("(Intercept)", "fb")


def test_factor_blocks_are_codes_not_dummies():
    _, design = build("y ~ a*x + a:c", DATA)
    factor, product, cells = design.fixed[1], design.fixed[3], design.fixed[4]
    assert factor.x is None
    assert factor.contrast.shape == (2, 1)
    assert product.x is not None
    assert product.codes is factor.codes
    assert cells.contrast.shape == (6, 4)
    for block in design.fixed[1:]:
        assert block.contrast is None or (block.contrast.flags.c_contiguous and block.contrast.dtype == np.float64)
        assert block.codes is None or block.codes.dtype in (np.int8, np.int16, np.int32)


def test_empty_cells_keep_their_columns():
    data = {"y": [1.0, 2, 3, 5], "a": ["p", "p", "q", "q"], "c": ["u", "v", "u", "u"]}
    made = X("y ~ a*c", data)
    np.testing.assert_array_equal(made[:, 3], [0, 0, 0, 0])
    _, design = build("y ~ 1 + (1 | a:c)", data)
    assert list(design.terms[0].levels) == ["p:u", "p:v", "q:u"]


def test_a_factor_with_very_many_levels_is_refused_as_fixed_but_not_as_group():
    many = np.arange(20_000)
    data = {"y": np.sin(np.r_[many, many]), "g": np.r_[many, many]}
    with pytest.raises(NotAvailableError, match="random effect"):
        build("y ~ factor(g)", data)
    assert len(build("y ~ 1 + (1 | g)", data)[1].terms[0].levels) == 20_000


def test_nested_and_crossed_groups():
    data = {
        "y": np.arange(6.0),
        "a": [2, 2, 10, 10, 2, 10],
        "b": ["x", "y", "x", "y", "x", "x"],
        "k": [1, 1, 1, 2, 2, 1],
    }
    a, ab, abk = build("y ~ 1 + (1 | a/b) + (1 | a:b:k)", data)[1].terms
    (ba,) = build("y ~ 1 + (1 | b:a)", data)[1].terms
    assert (a.label, ab.label, abk.label, ba.label) == ("a", "a:b", "a:b:k", "b:a")
    assert list(a.levels) == [2, 10]
    assert list(ab.levels) == ["2:x", "2:y", "10:x", "10:y"]
    np.testing.assert_array_equal(ab.codes, [0, 1, 2, 3, 0, 2])
    assert list(abk.levels) == ["2:x:1", "2:x:2", "2:y:1", "10:x:1", "10:y:2"]
    np.testing.assert_array_equal(abk.codes, [0, 2, 3, 4, 1, 3])
    assert list(ba.levels) == ["x:2", "x:10", "y:2", "y:10"]


def test_columns_inside_bars_follow_the_same_rules():
    _, design = build("y ~ 1 + (c | a) + (0 + c | a) + (x:c | a) + (0 + x + c || a) + (x*z | a)", DATA)
    assert [t.names for t in design.terms] == [
        ("(Intercept)", "cv", "cw"),
        ("cu", "cv", "cw"),
        ("(Intercept)", "x:cu", "x:cv", "x:cw"),
        ("x", "cu", "cv", "cw"),
        ("(Intercept)", "x", "z", "x:z"),
    ]
    assert [t.structure for t in design.terms] == ["us", "us", "us", "diag", "us"]


def test_dot_is_every_column_not_used_elsewhere():
    assert names("y ~ .") == ["(Intercept)", "aq", "cv", "cw", "x", "z", "tTRUE"]
    assert names("log(y + 1) ~ . - z - t + (1 | c)") == ["(Intercept)", "aq", "x"]
    few = {k: DATA[k] for k in ("y", "a", "x", "c")}
    assert names("y ~ .^2 - c", few) == [
        "(Intercept)",
        "aq",
        "x",
        "aq:x",
        "ap:cv",
        "aq:cv",
        "ap:cw",
        "aq:cw",
        "x:cv",
        "x:cw",
    ]
    spec, _ = build("y ~ .", DATA)
    assert str(spec.formula) == "y ~ a + c + x + z + t"


def test_columns_with_odd_names():
    data = {"total.fruits": [1.0, 2, 4], "a b": [1, 2, 5], "in": ["u", "v", "v"], "größe": [1.0, 0, 0]}
    assert names("total.fruits ~ `a b` + `in` + größe + log(`a b`)", data) == [
        "(Intercept)", "`a b`", "`in`v", "größe", "log(`a b`)",
    ]  # fmt: skip


def test_columns_of_a_matrix_keep_their_names():
    matrix = pd.DataFrame({"_up": [-1.0, 1.0, 0.0], "_last": [-1.0, -1.0, 2.0]}, index=["u", "v", "w"])
    assert names("y ~ c", contrasts={"c": matrix}) == ["(Intercept)", "c_up", "c_last"]
    assert names("y ~ c", contrasts={"c": matrix.to_numpy()}) == ["(Intercept)", "c1", "c2"]
    matrix.columns = ["_up", "_up"]
    with pytest.raises(ArgumentError, match="have one name"):
        names("y ~ c", contrasts={"c": matrix})


def test_a_term_of_several_predictors_is_made_once():
    """In whatever order its factors are written: `a:c` and `c:a` have columns of their own."""
    parts = [Part(name, parse(text)) for name, text in (("same", "~ a * c"), ("other", "~ c * a"))]
    design = build("y ~ a * c + (1 + a | c)", DATA, parts=parts)[1]
    same, other = (component.fixed for component in design.others)
    assert all(block is twin for block, twin in zip(design.fixed, same, strict=True))
    assert design.terms[0].blocks[1] is design.fixed[1]
    assert [block.names for block in other] == [("(Intercept)",), ("cv", "cw"), ("aq",), ("cv:aq", "cw:aq")]


def test_matrices_of_codings_are_not_to_be_changed():
    """They are those of every fit with as many levels."""
    contrasts = [build("y ~ c", DATA, contrasts={"c": kind})[1].fixed[1].contrast for kind in ("treatment", "poly")]
    assert not any(contrast.flags.writeable for contrast in contrasts)
    assert contrasts[0] is build("y ~ c", DATA)[1].fixed[1].contrast
