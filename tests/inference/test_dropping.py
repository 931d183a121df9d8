"""Single terms left out and added, random terms reduced."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest

import ranef as rf
from engines import zoo
from ranef.errors import ArgumentError, NotAvailableError, OptionError, UnknownParameterError


@pytest.fixture(scope="module")
def fit():
    return rf.fit("y ~ x * f + z + (x | g)", zoo.data())


def test_drop1_respects_marginality(fit):
    table = rf.drop1(fit)
    assert list(table["term"]) == ["<none>", "z", "x:f"]
    base = fit.update(method="ml")
    for i, change in ((1, ". ~ . - z"), (2, ". ~ . - x:f")):
        smaller = base.update(change)
        assert table["chisq"][i] == pytest.approx(2 * (base.loglik - smaller.loglik), abs=1e-6)
        assert table["aic"][i] == pytest.approx(smaller.aic, abs=1e-6)
    np.testing.assert_array_equal(table["df"][1:], [1, 2])


def test_drop1_of_named_terms(fit):
    assert list(rf.drop1(fit, "z")["term"]) == ["<none>", "z"]
    assert np.isnan(rf.drop1(fit, "z", test="none")["chisq"]).all()
    with pytest.raises(OptionError, match=r"'x' cannot be dropped alone; terms that can, by marginality: z, x:f"):
        rf.drop1(fit, ["x"])
    with pytest.raises(OptionError, match="known: 'lrt', 'none'"):
        rf.add1(fit, "h", test="F")


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
def test_drop1_by_f_tests(ddf):
    fit = rf.fit("y ~ x + f + z + (x | g)", zoo.data())
    table, anova = rf.drop1(fit, test="F", ddf=ddf), rf.anova(fit, type=3, ddf=ddf)
    assert list(table["term"]) == list(anova["term"])
    # Without interactions the marginal hypotheses are those of type III, on another basis.
    np.testing.assert_allclose(table["statistic"], anova["statistic"], rtol=1e-6)
    np.testing.assert_allclose(table["p_value"], anova["p_value"], rtol=0.02)  # Satterthwaite's df depend on the basis


def test_drop1_keeps_the_rows():
    """A dropped variable with missing values does not bring its rows back."""
    data = zoo.data().copy()
    data.loc[[2, 9], "z"] = np.nan
    weights = np.linspace(1, 2, 60)
    fit = rf.fit("y ~ x + z + (1 | g)", data, method="ml", precision_weights=weights)
    table = rf.drop1(fit)
    kept = data.dropna()
    smaller = rf.fit("y ~ x + (1 | g)", kept, method="ml", precision_weights=np.delete(weights, [2, 9]))
    assert table["aic"][list(table["term"]).index("z")] == pytest.approx(smaller.aic, abs=1e-6)


def test_contrasts_go_with_their_factor():
    fit = rf.fit("y ~ x + f + (1 | g)", zoo.data(), contrasts={"f": "sum"}, control={"start": (1.0,)})
    assert list(rf.drop1(fit)["df"][1:]) == [1, 2]
    assert list(rf.ranova(fit)["df"][1:]) == [1]


@pytest.mark.parametrize("scope", ["~ . + z + f:x", "z + f:x", ["z", "f:x"], "~ x + f + z + x:f"])
def test_add1(scope):
    fit = rf.fit("y ~ x + f + (1 | g)", zoo.data())
    table = rf.add1(fit, scope)
    assert [set(t.split(":")) for t in table["term"][1:]] == [{"z"}, {"x", "f"}]
    larger = fit.update(". ~ . + z", method="ml")
    assert table["loglik"][1] == pytest.approx(larger.loglik, abs=1e-6)


def test_add1_respects_marginality_and_rows():
    data = zoo.data().copy()
    data.loc[[2, 9], "z"] = np.nan
    fit = rf.fit("y ~ x + (1 | g)", pl.from_pandas(data))
    table = rf.add1(fit, "~ . + z * f")
    assert list(table["term"]) == ["<none>", "z", "f"]
    assert "2 of 60 rows left out" in repr(table)
    assert isinstance(table.to_frame(), pl.DataFrame)
    with pytest.raises(OptionError, match="no term that the model lacks"):
        rf.add1(fit, "~ x")


def test_terms_of_other_components():
    data = rf.datasets.load("Salamanders")
    fit = rf.fit("count ~ mined + (1 | site)", data, family="nbinom2", zero_inflation="~ mined")
    table = rf.drop1(fit, component="zero_inflation")
    smaller = fit.update(zero_inflation="~ 1")
    assert table["chisq"][1] == pytest.approx(2 * (fit.loglik - smaller.loglik), abs=1e-4)
    with pytest.raises(OptionError, match="component='shape' has no formula"):
        rf.drop1(fit, component="shape")


def test_ranova_takes_slopes_before_intercepts():
    fit = rf.fit("y ~ x + (x + z | g) + (1 | h)", zoo.data())
    table = rf.ranova(fit)
    assert list(table["term"]) == ["<none>", "x in (x + z | g)", "z in (x + z | g)", "(1 | h)"]
    np.testing.assert_array_equal(table["df"][1:], [3, 3, 1])
    whole = rf.ranova(fit, reduce=False)
    assert list(whole["term"])[1:] == ["(x + z | g)", "(1 | h)"]
    assert "pseudoreplication" in repr(whole)


def test_ranova_of_a_frame_of_dicts_and_a_generalised_model():
    data = {name: np.asarray(column) for name, column in rf.datasets.load("cbpp").items()}
    fit = rf.fit("cbind(incidence, size - incidence) ~ period + (1 | herd)", data, family="binomial")
    table = rf.ranova(fit)
    glm = rf.fit("cbind(incidence, size - incidence) ~ period", data, family="binomial")
    assert table["loglik"][1] == pytest.approx(glm.loglik)
    with pytest.raises(NotAvailableError, match="no random effects"):
        rf.ranova(glm)
    assert isinstance(table.to_frame(), pd.DataFrame)


def test_f_tests_with_a_robust_covariance():
    m = rf.fit("distance ~ age * Sex + (age | Subject)", rf.datasets.load("Orthodont"))
    table = rf.drop1(m, test="F", vcov="CR2")
    one = rf.contrast(m, {"age:SexFemale": 1}, vcov="CR2").iloc[0]
    np.testing.assert_allclose([table["statistic"][0], table["p_value"][0]], [one["statistic"] ** 2, one["p_value"]])
    with pytest.raises(ArgumentError, match="Wald tests"):
        rf.drop1(m, vcov="CR2")


# ---- what is held ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(3)
    g, x, z = np.arange(200) % 20, rng.normal(size=200), rng.normal(size=200)
    mu = np.exp(0.5 + 0.3 * x + 0.4 * rng.normal(size=20)[g])
    return {"y": rng.poisson(mu).astype(float), "x": x, "z": z, "g": g, "h": np.arange(200) // 25}


@pytest.mark.parametrize(
    ("arguments", "kept", "says"),
    [
        ({"fixed": {"x": 0.3}}, ["<none>", "z"], "x is not in the table: fixed= names 'x'"),
        ({"fixed": {"sd(g)": 0.5}}, ["<none>", "x", "z"], None),
    ],
)
def test_terms_whose_coefficients_are_held_are_left_out(counts, arguments, kept, says):
    m = rf.fit("y ~ x + z + (1 | g)", counts, family="poisson", **arguments)
    table = rf.drop1(m)
    assert list(table["term"]) == kept
    assert [n.text for n in table.notes if n.code == "held"] == ([says] if says else [])
    if says:
        with pytest.raises(UnknownParameterError, match="goes with the term that is left out"):
            rf.drop1(m, "x")


def test_variances_that_are_held_are_not_tested(counts):
    m = rf.fit("y ~ x + (1 | g) + (0 + z | h)", counts, family="poisson", fixed={"sd(h)": 0.3})
    table = rf.ranova(m)
    assert len(table) == 2
    assert any("sd(h)" in n.text for n in table.notes)
    one = rf.fit("y ~ x + (1 | g)", counts, family="poisson", fixed={"sd(g)": 0.3})
    with pytest.raises(UnknownParameterError, match=r"rf\.anova"):
        rf.ranova(one)


def test_tied_terms(counts):
    m = rf.fit("y ~ x + z + (1 | g)", counts, family="poisson", equal=[("x", "z")])
    with pytest.raises(UnknownParameterError, match="equal= names"):
        rf.drop1(m)


def test_submodels_keep_the_criterion_of_the_fit():
    """A dispersion formula makes maximum likelihood the default, its absence REML: ratios need one of them."""
    m = rf.fit("y ~ x + (1 | g)", zoo.data(), dispersion="~ x")
    plain = rf.fit("y ~ x + (1 | g)", zoo.data(), method="ml")
    expected = 2 * (m.loglik - plain.loglik)
    assert rf.drop1(m, component="dispersion")["chisq"][1] == pytest.approx(expected, abs=1e-6)
    m = rf.fit("y ~ x + (1 | g)", zoo.data(), dispersion="~ 1 + (1 | h)")
    table = rf.ranova(m)
    assert table["term"][2] == "dispersion: (1 | h)"
    assert table["loglik"][2] == pytest.approx(plain.loglik, abs=1e-6)


@pytest.mark.parametrize("quadrature", [0, 7])
def test_the_last_random_term_of_a_fit_by_quadrature(quadrature):
    bacteria = rf.datasets.load("bacteria")
    m = rf.fit("y ~ trt + (1 | ID)", bacteria, family="binomial", quadrature=quadrature)
    plain = rf.fit("y ~ trt", bacteria, family="binomial")
    assert rf.ranova(m)["chisq"][1] == pytest.approx(2 * (m.loglik - plain.loglik), abs=1e-6)


def test_tests_do_not_depend_on_the_units_of_a_predictor():
    """A Unix time: its coefficient's variance is 1e-18 of the intercept's, which says nothing about it."""
    sleep = rf.datasets.load("sleepstudy")
    sleep["time"] = sleep["Days"] * 86_400 + 1.6e9
    a, b = (rf.fit(f"Reaction ~ {x} + (1 | Subject)", sleep) for x in ("Days", "time"))
    for arguments in ({"type": 1}, {"type": 2}, {"type": 3}, {"ddf": "kenward-roger"}, {"vcov": "CR2"}):
        first, second = (rf.anova(m, **arguments) for m in (a, b))
        assert list(second["numdf"]) == [1]
        # Rows of X at 1.6e9 that differ by 86,400 cost five of sixteen digits, their squares ten.
        np.testing.assert_allclose(second["statistic"], first["statistic"], rtol=1e-6)
        np.testing.assert_allclose(second["dendf"], first["dendf"], rtol=1e-4)
    assert rf.drop1(b, test="F")["statistic"][0] == pytest.approx(rf.drop1(a, test="F")["statistic"][0], rel=1e-6)
    joint = [rf.contrast(m, ["(Intercept)", x], joint=True) for m, x in ((a, "Days"), (b, "time"))]
    assert joint[1]["numdf"][0] == 2
    assert joint[1]["statistic"][0] == pytest.approx(joint[0]["statistic"][0], rel=1e-6)


@pytest.mark.parametrize("family", ["gaussian", "poisson"])
def test_one_answer_for_a_term_that_is_a_combination_of_others(family):
    data = {**zoo.data(), "twice": 2 * np.asarray(zoo.data()["x"])}
    data["y"] = np.abs(np.asarray(data["y"])).round() if family == "poisson" else data["y"]
    m = rf.fit("y ~ x + twice + z + (1 | g)", data, family=family)
    tables = [rf.drop1(m, test="F").columns, {"df": rf.drop1(m)["df"][1:]}, rf.partial_r2(m).columns]
    tables[2] = {name: v[1:] for name, v in tables[2].items()}
    tables += [rf.anova(m, type=t) for t in (2, 3)]
    for table in tables:
        df = next(table[name] for name in ("numdf", "df") if name in table)
        np.testing.assert_array_equal(df, [0, 0, 1])
    assert np.isnan(tables[0]["p_value"][:2]).all()
    note = next(n for n in rf.drop1(m).notes if n.code == "same_model")
    assert "is a combination of its other terms" in note.text
    # In order x comes first, and has what both stand for.
    first = rf.anova(m, type=1)
    np.testing.assert_array_equal(first["numdf"] if family == "gaussian" else first["df"], [1, 0, 1])


def test_a_term_that_shares_some_columns_with_others_is_tested_by_the_rest():
    """f is coded twice: what is left of the product is its other columns, and the drop loses as many parameters."""
    data = zoo.data()
    levels = sorted(set(data["f"]))
    data = {**data, "last": (np.asarray(data["f"]) == levels[-1]) * 1.0}
    m = rf.fit("y ~ last + f + (1 | g)", data)
    wald, ratio = rf.drop1(m, test="F"), rf.drop1(m)
    np.testing.assert_array_equal(wald["numdf"], ratio["df"][1:])
    assert list(wald["term"]) == ["last", "f"]
    plain = rf.fit("y ~ f + (1 | g)", data)
    other = next(n for n in plain.layout.fixed if n.startswith("f") and not n.endswith(str(levels[-1])))
    assert len(levels) == 3
    assert wald["statistic"][1] == pytest.approx(rf.contrast(plain, other, joint=True)["statistic"][0], rel=1e-6)


def test_what_is_held_has_no_test():
    table = rf.anova(rf.fit("y ~ x + (1 | g)", zoo.data(), fixed={"x": 0.5}))
    assert list(table["numdf"]) == [0]
    assert np.isnan(table["p_value"]).all()


def test_effects_that_differ_by_threshold():
    wine = rf.datasets.load("wine")
    large = rf.fit("rating ~ temp", wine, family="cumulative", nominal="~ contact")
    middle = rf.fit("rating ~ temp + contact", wine, family="cumulative")
    small = rf.fit("rating ~ temp", wine, family="cumulative")
    assert rf.anova(large, middle)["chisq"][1] == pytest.approx(2 * (large.loglik - middle.loglik))
    table = rf.drop1(large, component="nominal")
    assert table["chisq"][1] == pytest.approx(2 * (large.loglik - small.loglik), abs=1e-6)
    assert "nominal" in table.title
    scaled = rf.fit("rating ~ temp", wine, family="cumulative", scale="~ contact")
    assert rf.drop1(scaled, component="scale")["loglik"][1] == pytest.approx(small.loglik)


def test_a_dispersion_may_be_added_where_none_was_given():
    table = rf.add1(rf.fit("y ~ x + (1 | g)", zoo.data()), "x", component="dispersion")
    larger = rf.fit("y ~ x + (1 | g)", zoo.data(), dispersion="~ x")
    assert table["loglik"][1] == pytest.approx(larger.loglik)
    assert list(rf.drop1(rf.fit("y ~ x + (1 | g)", zoo.data()), component="dispersion")["term"]) == ["<none>"]
