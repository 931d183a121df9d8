"""Tests of fixed effects beside lmerTest's, pbkrtest's, nlme's, glmmTMB's and car's."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from golden import reference

# reference -> (key of a second model inside the file or None, formula)
LINEAR = {
    "machines": ("post_machines_tests", None, "score ~ Machine + (Machine | Worker)"),
    "machines_nested": ("post_machines_tests", "nested", "score ~ Machine + (1 | Worker) + (1 | Worker:Machine)"),
    "oats": ("post_oats_tests", None, "yield ~ nf * Variety + (1 | Block/Variety)"),
    "orthodont": ("post_orthodont_tests", None, "distance ~ age * Sex + (1 | Subject)"),
    "orthodont_slope": ("post_orthodont_tests", "random_slope", "distance ~ age * Sex + (age | Subject)"),
    "pbib": ("post_pbib_kr", None, "response ~ Treatment + (1 | Block)"),
    "singular": ("post_dyestuff2_singular", None, "Yield ~ 1 + (1 | Batch)"),
}
# lmerTest differentiates numerically and lme4 stops at about 1e-8 of the criterion: 1e-6 in standard errors and df.
DIGITS = 1e-6


def data_of(name: str) -> pd.DataFrame:
    frame = pd.DataFrame(rf.datasets.load(reference.load(name).raw["data"]))
    return frame.assign(nf=frame["nitro"].astype(str)) if name == "post_oats_tests" else frame


@pytest.fixture(scope="module", params=LINEAR.values(), ids=LINEAR)
def linear(request) -> tuple[rf.Fit, dict[str, Any]]:
    name, section, formula = request.param
    raw = reference.load(name).raw
    return rf.fit(formula, data_of(name)), raw[section] if section else raw


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
def test_coefficients(linear, ddf):
    m, raw = linear
    theirs = pd.DataFrame(raw[ddf.replace("-", "_")]).set_index("term").loc[list(m.layout.fixed)]
    ours = m.tidy(ddf=ddf)
    np.testing.assert_allclose(ours["std_error"], theirs["se"], rtol=DIGITS)
    np.testing.assert_allclose(ours["df"], theirs["df"], rtol=DIGITS)
    np.testing.assert_allclose(ours["p_value"], theirs["p"], rtol=2e-5)  # in the tail d log p = -t dt


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
@pytest.mark.parametrize("kind", ["I", "II", "III"])
def test_terms(linear, kind, ddf):
    m, raw = linear
    theirs = [row for row in raw[f"anova_type{kind}_{ddf.replace('-', '_')}"] if row]
    ours = rf.anova(m, type=kind, ddf=ddf)
    assert list(ours["term"]) == [row["term"] for row in theirs]
    columns = {
        "sumsq": "sumsq",
        "meansq": "meansq",
        "numdf": "numdf",
        "dendf": "dendf",
        "F": "statistic",
        "p": "p_value",
    }
    for column, own in columns.items():
        np.testing.assert_allclose(ours[own], [row[column] for row in theirs], rtol=DIGITS, err_msg=column)


@pytest.mark.parametrize("name", ["post_pbib_kr", "post_oats_tests", "post_machines_tests", "post_orthodont_tests"])
def test_adjusted_covariance(name):
    theirs = reference.load(name).raw["vcov_adj_KR"]
    formula = next(f for n, section, f in LINEAR.values() if n == name and not section)
    ours = rf.fit(formula, data_of(name)).vcov(kind="kenward-roger")
    matrix = pd.DataFrame(theirs["matrix"], theirs["terms"], theirs["terms"]).loc[ours.index, ours.columns]
    np.testing.assert_allclose(ours, matrix, atol=DIGITS * np.abs(matrix).max().max())


def test_scaled_f():
    theirs = reference.load("post_pbib_kr").raw["KRmodcomp"]
    m = rf.fit("response ~ Treatment + (1 | Block)", data_of("post_pbib_kr"))
    ours = rf.contrast(m, np.eye(15)[1:], ddf="KR", joint=True)
    assert ours["statistic"][0] == pytest.approx(theirs["stat_F"], rel=DIGITS)
    assert ours["dendf"][0] == pytest.approx(theirs["ddf"], rel=DIGITS)
    assert ours["p_value"][0] == pytest.approx(theirs["p"], rel=DIGITS)


GLMMTMB = {
    "tmbpost_sleep_ddf": "Reaction ~ Days + (Days | Subject)",
    "tmbpost_visits_ddf": "y ~ trt * factor(visit) + base + (1 | id)",
}


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
@pytest.mark.parametrize("name", GLMMTMB)
def test_as_glmmtmb(name, ddf):
    raw = reference.load(name).raw
    theirs = pd.DataFrame(raw[ddf.replace("-", "_")])
    ours = rf.fit(GLMMTMB[name], rf.datasets.load(raw["data"])).tidy(ddf=ddf)
    np.testing.assert_allclose(ours["df"], theirs["ddf"], rtol=DIGITS)
    np.testing.assert_allclose(ours["std_error"], theirs["Std. Error"], rtol=DIGITS)


@pytest.mark.filterwarnings("ignore:contrast. 3 comparisons")
def test_means_and_differences_of_recipes():
    """emmeans' table of cake: contrasts over the coefficients, with each of its methods."""
    raw = reference.load("post_cake_emmeans").raw
    data = rf.datasets.load("cake")
    m = rf.fit("angle ~ recipe * temperature + (1 | recipe:replicate)", data, contrasts={"temperature": "sum"})
    means = ["(Intercept)", "(Intercept) + recipeB", "(Intercept) + recipeC"]  # sum contrasts vanish on average
    for ddf, key in [("KR", "recipe_kr"), ("satterthwaite", "recipe_satterthwaite")]:
        theirs, ours = pd.DataFrame(raw[key]), rf.contrast(m, means, ddf=ddf)
        for own, column in [("estimate", "emmean"), ("std_error", "SE"), ("df", "df"), ("conf_low", "lower.CL")]:
            np.testing.assert_allclose(ours[own], theirs[column], rtol=DIGITS)
    theirs = pd.DataFrame(raw["pairs_none"])
    ours = rf.contrast(m, ["0 - recipeB", "0 - recipeC", "recipeB - recipeC"], ddf="KR")
    np.testing.assert_allclose(ours["df"], theirs["df"], rtol=DIGITS)
    np.testing.assert_allclose(ours["p_value"], theirs["p.value"], rtol=DIGITS)
    table = rf.anova(m, ddf="KR")
    joint = pd.DataFrame(raw["joint_tests"])
    np.testing.assert_allclose(table["dendf"], joint["df2"], rtol=DIGITS)
    np.testing.assert_allclose(table["p_value"], joint["p.value"], rtol=1e-4)  # powers of a far tail


# ---- counting rules --------------------------------------------------------------------------------------------------

NLME = [
    "nlme_bodyweight", "nlme_machines_nested", "nlme_machines_us", "nlme_oats_nested", "nlme_orthodont_int",
    "nlme_orthodont_slope_ml", "nlme_ovary_diag", "nlme_pixel", "nlme_wafer_diag",
]  # fmt: skip


@pytest.mark.parametrize("name", NLME)
def test_inner_outer_as_nlme(name):
    found = reference.load(name)
    m = rf.fit(found.formula, rf.datasets.load(found.raw["data"]), method=found.method)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rf.RanefWarning)  # nlme counts the same with random slopes; we say it is wrong
        df, terms = m.tidy(ddf="inner-outer")["df"], rf.anova(m, type=1, ddf="inner-outer")["dendf"]
    assert list(df) == [row["df"] for row in found.raw["fixef"]]  # counts: exact
    assert list(terms) == [row["denDF"] for row in found.raw["anova_sequential"][1:]]


def test_inner_outer_as_the_faq():
    theirs = reference.load("post_orthodont_tests").raw["inner_outer"]
    data = rf.datasets.load("Orthodont")
    intercept = rf.fit("distance ~ age + (1 | Subject)", data)
    slope = rf.fit("distance ~ age + (age | Subject)", data)
    for m, key, ddf in [
        (intercept, "lme_intercept", "inner-outer"),
        (intercept, "faq_calcDenDF_intercept", "inner-outer-slopes"),
        (slope, "faq_calcDenDF_slope", "inner-outer-slopes"),
    ]:
        assert list(m.tidy(ddf=ddf)["df"]) == list(theirs[key].values())
    with pytest.warns(rf.RanefWarning, match="wrong for coefficients that vary between groups.*age"):
        assert list(slope.tidy(ddf="inner-outer")["df"]) == list(theirs["lme_slope"].values())
    np.testing.assert_allclose(slope.tidy(ddf="KR")["df"], 26, rtol=1e-9)  # what both rules miss


# ---- generalised models ----------------------------------------------------------------------------------------------


def test_wald_tests_as_car():
    theirs = pd.DataFrame(reference.load("post_contraception_tests").raw["car_Anova_II"])
    m = rf.fit(
        "use ~ age + I(age^2) + urban + livch + (1 | district)", rf.datasets.load("Contraception"), family="binomial"
    )
    ours = rf.anova(m, type=2)
    assert list(ours["term"]) == list(theirs["term"])
    np.testing.assert_allclose(ours["statistic"], theirs["Chisq"], rtol=1e-4)  # lme4 differentiates twice numerically
    np.testing.assert_array_equal(ours["df"], theirs["Df"])


def test_wald_tests_of_components_as_car():
    raw = reference.load("tmbpost_sal_tests").raw
    m = rf.fit(
        "count ~ spp + mined + (1 | site)",
        rf.datasets.load("Salamanders"),
        family="nbinom2",
        zero_inflation="~ mined",
    )
    for component, key, digits in [("mean", "car_Anova_II", 1e-5), ("zero_inflation", "car_Anova_zi", 2e-4)]:
        theirs, ours = pd.DataFrame(raw[key]), rf.anova(m, type=2, component=component)
        assert list(ours["term"]) == list(theirs["term"])
        # glmmTMB stops where the gradient is 1e-3; the zero inflation is the flatter part.
        np.testing.assert_allclose(ours["statistic"], theirs["Chisq"], rtol=digits)


def test_marginal_kenward_roger_tests_as_car():
    """car's type III of Oats: it tests the coefficients as they are coded, here by treatment contrasts."""
    m = rf.fit("yield ~ nitro * Variety + (1 | Block/Variety)", rf.datasets.load("Oats"))
    for names, f, df in [(["nitro"], 40.356, 51), (["VarietyMarvellous", "VarietyVictory"], 1.942, 21.575)]:
        test = rf.contrast(m, names, ddf="KR", joint=True)
        assert test["statistic"][0] == pytest.approx(f, abs=5e-4)  # as many digits as are printed
        assert test["dendf"][0] == pytest.approx(df, abs=5e-4)
