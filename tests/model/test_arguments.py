"""What `fit` refuses, and what it says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.call import asked, make_call
from ranef.errors import (
    ArgumentError,
    DataError,
    FormulaError,
    OptionError,
    UnknownColumnError,
    UnseenLevelError,
)

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleepstudy():
    return rf.datasets.load("sleepstudy")


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"weights": "w"}, ArgumentError, "precision_weights=.*frequency_weights=.*sampling_weights=.*trials="),
        ({"REML": False}, ArgumentError, "method='ml'"),
        ({"metod": "ml"}, ArgumentError, "did you mean 'method'"),
        ({"groups": "Subject"}, ArgumentError, "groups"),
        ({"method": "mle"}, OptionError, "'ml'"),
        ({"method": 3}, OptionError, "reml"),
        ({"family": "poison"}, OptionError, "did you mean 'poisson'"),
        ({"family": "poisson"}, DataError, "not whole.*poisson.*rows 0, 1"),
        ({"family": 3}, ArgumentError, "int"),
        ({"link": "lgo"}, OptionError, "did you mean 'log'"),
        ({"dispersion": "Days"}, FormulaError, "one-sided"),
        ({"dispersion": "y ~ Days"}, FormulaError, "without y"),
        ({"family": "lognormal", "dispersion": "~ 0"}, FormulaError, "nothing to estimate"),
        ({"dispersion": -1.0}, OptionError, "between 0 and inf"),
        ({"zero_inflation": "~ 1"}, OptionError, "no zeros"),
        ({"frequency_weights": [-1.0] * 180}, DataError, "must be positive"),
        ({"sampling_weights": "Days"}, DataError, "must be positive"),
        ({"trials": "Days"}, OptionError, "trials"),
        ({"nu": 4}, ArgumentError, "nu"),
        ({"ziformula": "~ 1"}, ArgumentError, "zero_inflation="),
        ({"zi": "~ 1"}, ArgumentError, "zero_inflation="),
        ({"hu": "~ 1"}, ArgumentError, "zero_inflation="),
        ({"sigma": "~ Days"}, ArgumentError, "dispersion='~"),
        ({"phi": "~ Days"}, ArgumentError, "dispersion='~"),
        ({"map": {}}, ArgumentError, "fixed="),
        ({"chains": 4}, ArgumentError, "nothing is drawn"),
        ({"autocor": "ar1"}, ArgumentError, "a structure such as"),
        ({"fixef_prior": "normal"}, ArgumentError, "prior="),
        ({"nAGQ": 3}, ArgumentError, "quadrature="),
        ({"cov.prior": "wishart"}, ArgumentError, "prior="),
        ({"na.action": "na.omit"}, ArgumentError, "missing="),
        ({"dist": "weibull"}, ArgumentError, "family="),
        ({"vi": "v"}, ArgumentError, "known sampling errors"),
        ({"reml": False}, ArgumentError, "method='ml'"),
        ({"groups": "Subject"}, ArgumentError, "random effects stand in the formula"),
        ({"subset": "Days > 2"}, ArgumentError, "select rows"),
        ({"start": [1]}, ArgumentError, "control="),
        ({"quadrature": 9}, OptionError, "exact"),
        ({"quadrature": 1000}, OptionError, "at most 500"),
        ({"missing": "ignore"}, OptionError, "drop"),
        ({"precision_weights": "weight"}, UnknownColumnError, "weight"),
        ({"threads": -2}, OptionError, "threads"),
    ],
)
def test_refused(sleepstudy, arguments, error, says):
    with pytest.raises(error, match=says):
        rf.fit(SLEEP, sleepstudy, **arguments)


@pytest.mark.parametrize(
    ("family", "arguments", "says"),
    [
        ("student_t", {"nu": "~ x", "shape": 4}, r"nu= and shape= .*'student_t', 'shape': give one"),
        ("student_t", {"nu": 4, "shape": "~ x"}, "nu= and shape="),
        ("student_t", {"nu": 4, "df": 5}, "nu= and df="),
        ("nbinom12", {"psi": 2, "shape": 5}, "psi= and shape="),
        ("tweedie", {"p": 1.5, "power": "~ x"}, "p= and power="),
        ("skew_normal", {"alpha": 2, "shape": "~ x"}, "alpha= and shape="),
        ("student_t", {"fixed": {"nu": 4, "shape": 5}}, "'nu'.*'shape'"),
        ("gaussian", {"fixed": {"sigma": 1, "dispersion": 2}}, "'sigma'.*'dispersion'"),
        ("student_t", {"fixed": {"shape": 4}, "prior": {"nu": "point(9)"}}, "fixed=.*prior="),
        ("student_t", {"prior": {"nu": "normal(0, 1)", "shape": "normal(0, 2)"}}, "'nu'.*'shape'"),
        ("student_t", {"link": {"nu": "log", "shape": "log"}}, "'nu'.*'shape'"),
    ],
)
def test_two_names_of_one_parameter(family, arguments, says):
    with pytest.raises(ArgumentError, match=says):
        make_call("y ~ 1", family=family, **arguments)


def test_a_parameter_is_updated_by_any_of_its_names():
    rng = np.random.default_rng(3)
    data = {"x": rng.normal(size=60), "y": rng.standard_t(4, size=60)}
    m = rf.fit("y ~ x", data, family="student_t", shape="~ x")
    assert m.update(nu=4).loglik == rf.fit("y ~ x", data, family="student_t", shape=4).loglik
    assert rf.fit("y ~ x", data, family="student_t", shape="~ x", nu=None).loglik == m.loglik  # None says nothing


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("sleep.csv", "read the file first"),
        ([{"Reaction": 1.0}], "pandas.DataFrame"),
        (np.zeros((3, 2)), "name its columns"),
        ("Reaction ~ Days", "a formula comes first"),
    ],
)
def test_what_is_no_data_is_told_how_to_become_some(data, says):
    with pytest.raises(DataError, match=says):
        rf.fit(SLEEP, data)


def test_names_of_other_packages_are_answered_with_ours(sleepstudy):
    m = rf.fit(SLEEP, sleepstudy)
    for name, says in [("pvalues", r"write m.tidy\(\)"), ("conf_int", r"rf.confint\(m\)"), ("anova", r"rf.anova\(m\)")]:
        with pytest.raises(AttributeError, match=says):
            getattr(m, name)
    with pytest.raises(AttributeError, match=r"'nothing'$"):
        _ = m.nothing
    with pytest.raises(AttributeError, match=r"rf.fit\(formula, data\)"):
        _ = rf.lmer
    assert not hasattr(rf, "emmeans")


@pytest.mark.parametrize(
    ("dotted", "written"),
    [("~ .", "~ x + f + (1 | g)"), ("~ . - f", "~ x + (1 | g)"), ("~ . - (1 | g) + z.1", "~ x + f + z.1")],
)
@pytest.mark.parametrize("component", ["zero_inflation", "dispersion"])
def test_a_dot_in_another_predictor_stands_for_the_terms_of_the_mean(dotted, written, component):
    """As in glmmTMB: random effects come along, the offset does not; other columns were taken, the response too."""
    rng = np.random.default_rng(3)
    n = 120
    data = pd.DataFrame({"x": rng.normal(size=n), "z.1": rng.normal(size=n), "f": np.resize(list("abc"), n)})
    data = data.assign(g=np.arange(n) // 10, y=rng.poisson(2, n) * (rng.random(n) < 0.7))
    formula = "y ~ x + f + offset(z.1) + (1 | g)"
    m, expected = (rf.fit(formula, data, family="nbinom2", **{component: text}) for text in (dotted, written))
    assert list(m.coefficients().index) == list(expected.coefficients().index)
    assert m.loglik == expected.loglik
    fewer = m.update(". ~ . - x")  # what the dot meant stays
    assert f"{component}.x" in fewer.coefficients().index


def test_components_by_their_names_in_glmmtmb():
    data = rf.datasets.load("Salamanders")
    m = rf.fit("count ~ mined", data, family="nbinom2", zero_inflation="~ mined")
    for ours, theirs in (("mean", "cond"), ("zero_inflation", "zi"), ("dispersion", "disp")):
        assert m.vcov(component=theirs).equals(m.vcov(component=ours))
        assert m.coefficients(theirs).equals(m.coefficients(ours))
        assert (m.predict(type=theirs) == m.predict(type=ours)).all()


def test_a_dot_beside_one_in_the_mean_is_all_columns_but_the_response():
    data = pd.DataFrame(
        {"y": np.resize([0, 0, 1, 3, 2], 60), "x": np.sin(np.arange(60.0)), "z": np.cos(np.arange(60.0))}
    )
    m = rf.fit("y ~ .", data, family="poisson", zero_inflation="~ .")
    assert [name for name in m.coefficients().index if name.startswith("zero")] == [
        "zero_inflation.(Intercept)", "zero_inflation.x", "zero_inflation.z",
    ]  # fmt: skip


def test_unknown_arguments_are_type_errors_and_unavailable_ones_not_implemented(sleepstudy):
    with pytest.raises(TypeError):
        rf.fit(SLEEP, sleepstudy, famly="gaussian")
    with pytest.raises(NotImplementedError):
        rf.fit(SLEEP, sleepstudy, family="nbinom2", method="pql")


@pytest.mark.parametrize("arguments", [{"family": "Gaussian"}, {"family": "normal"}, {"method": "REML"}, {"seed": 1}])
def test_accepted(sleepstudy, arguments):
    assert rf.fit(SLEEP, sleepstudy, **arguments).criterion == pytest.approx(1743.62827, abs=1e-5)


def rows(**columns):
    return pd.DataFrame({"y": [1.0, 2, 4, 3, 7, 5], "g": list("aabbcc"), "x": [1.0, 2, 3, 5, 4, 6], **columns})


@pytest.mark.parametrize(
    ("formula", "data", "says"),
    [
        ("y ~ 1 + (1 | g)", rows(y=[3.0] * 6), "'y' is constant"),
        ("y ~ 1 + (1 | g)", rows(g=["a"] * 6), "'g' has one level"),
        ("y ~ 1 + (1 | g)", rows(g=["a", None, "a", None, "a", "a"]), "dropped for missing values; 'g': 2"),
        ("y ~ 1 + (1 | g)", rows(g=list("abcdef")), "'g' has 6 levels for 6 observations"),
        ("y ~ 1 + (x | g)", rows(), "6 random coefficients, 6 observations"),
        ("y ~ factor(x)", rows(), "6 independent fixed effects, 6 observations"),
    ],
)
def test_data_that_cannot_carry_the_model(formula, data, says):
    with pytest.raises(DataError, match=says):
        rf.fit(formula, data)


@pytest.mark.parametrize("formula", ["y ~ x", "y ~ x + (1 | g)", "z ~ x + (1 | g)", "z ~ x + (x | g)"])
def test_a_response_without_noise_is_refused(formula):
    rng = np.random.default_rng(1)
    g, x = np.repeat(np.arange(10), 5), rng.normal(size=50)
    with pytest.raises(DataError, match="exactly: no residual variance"):
        rf.fit(formula, {"g": g, "x": x, "y": 1 + 2 * x, "z": 1 + 2 * x + rng.normal(size=10)[g]})


def test_a_formula_without_response_is_refused(sleepstudy):
    with pytest.raises(FormulaError, match="no response"):
        rf.fit("~ Days + (1 | Subject)", sleepstudy)


def test_a_response_whose_squares_overflow_is_told():
    huge = np.random.default_rng(1).normal(size=6) * 1e300
    with pytest.raises(DataError, match=r"response 'y' has values of .* give it in other units"):
        rf.fit("y ~ x + (1 | g)", rows(y=huge))


def test_unseen_fixed_level_at_prediction():
    m = rf.fit("y ~ g", rows())
    with pytest.raises(UnseenLevelError, match=r"level 'z'.*known"):
        m.predict(rows(g=list("abczab")))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_units_of_the_response_do_not_matter(sleepstudy, scale):
    base = rf.fit(SLEEP, sleepstudy)
    scaled = rf.fit(SLEEP, sleepstudy.assign(Reaction=sleepstudy["Reaction"] * scale))
    np.testing.assert_allclose(scaled.theta, base.theta, rtol=1e-5)
    np.testing.assert_allclose(scaled.params, base.params * scale, rtol=1e-8)
    np.testing.assert_allclose(scaled.ddf, base.ddf, rtol=1e-4)


@pytest.mark.parametrize(("shift", "scale"), [(0, 1e6), (0, 1e-6), (2000, 1)])
def test_units_of_a_predictor_do_not_matter(sleepstudy, shift, scale):
    base = rf.fit(SLEEP, sleepstudy)
    moved = rf.fit(SLEEP, sleepstudy.assign(Days=sleepstudy["Days"] * scale + shift))
    assert moved.loglik == pytest.approx(base.loglik - np.log(scale), abs=1e-6)  # REML's log|X'V^-1X| has units of x
    assert moved.params["Days"] == pytest.approx(base.params["Days"] / scale, rel=1e-6)
    np.testing.assert_allclose(moved.fitted(), base.fitted(), rtol=1e-6)


def test_a_call_of_texts_and_numbers_is_read_once():
    given = {"formula": "y ~ x + (1 | g)", "family": "gaussian", "method": "ml"}
    assert asked(**given) is asked(**given)
    assert asked(**given) == make_call(**given)
    assert asked(**{**given, "method": "reml"}).method == "reml"
    assert asked(**given, offset=[1.0]) is not asked(**given, offset=[1.0])


def test_numbers_that_are_equal_but_of_another_type_are_other_arguments():
    assert asked(formula="y ~ x + (1 | g)", quadrature=1).quadrature == 1
    for other in (True, 1.0):
        with pytest.raises(OptionError, match="number of nodes"):
            asked(formula="y ~ x + (1 | g)", quadrature=other)


@pytest.mark.parametrize(
    "use",
    [
        lambda d, s: rf.fit(SLEEP, d, precision_weights=s),
        lambda d, s: rf.fit(SLEEP, d, offset=s),
        lambda d, s: rf.fit(SLEEP, d).refit(s),
        lambda d, s: rf.robust(rf.fit("Reaction ~ Days", d), cluster=s.astype(int) % 7),
        lambda d, s: rf.fit_many("~ Days + (1 | Subject)", d, s.to_frame()),
    ],
    ids=["weights", "offset", "refit", "cluster", "fit_many"],
)
def test_a_series_in_another_order_than_the_rows_is_refused(sleepstudy, use):
    """By label or by place: the two readings differ, and a silent choice would be wrong for somebody."""
    series = sleepstudy["Reaction"] / 100
    with pytest.raises(DataError, match="in another order"):
        use(sleepstudy.sample(frac=1, random_state=1), series)
    use(sleepstudy, series)
    use(sleepstudy.set_index(sleepstudy.index + 1000), series)  # labels that have nothing in common: by place
