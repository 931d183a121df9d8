"""Likelihood-ratio tests beside lme4's, lmerTest's, glmmTMB's and RLRsim's."""

from __future__ import annotations

import numpy as np
import pytest

import ranef as rf
from golden import reference

# Log-likelihoods of R's polished fits are good to 1e-8, ours to 1e-9 of the criterion; p-values take the same share.
TIGHT = {"rtol": 1e-5, "atol": 1e-6}


def rows(name: str, *keys: str) -> list[dict]:
    raw = reference.load(name).raw
    for key in keys:
        raw = raw[key]
    return raw


@pytest.fixture(scope="module")
def sleep():
    data = rf.datasets.load("sleepstudy")
    formulas = {
        "m0": "Reaction ~ Days",
        "m1": "Reaction ~ Days + (1 | Subject)",
        "ms": "Reaction ~ Days + (0 + Days | Subject)",
        "m2": "Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)",
        "m3": "Reaction ~ Days + (Days | Subject)",
    }
    return {name: rf.fit(formula, data) for name, formula in formulas.items()}


def test_ladder_from_a_linear_model(sleep):
    """The FAQ's anova(m2, m1, m0), in any order."""
    table = rf.anova(*(sleep[m].update(method="ml") for m in ("m2", "m0", "m1")))
    theirs = rows("faq_sleepstudy_lrt", "computed")
    for ours, column in (("npar", "npar"), ("aic", "AIC"), ("bic", "BIC"), ("loglik", "logLik")):
        np.testing.assert_allclose(table[ours], [r[column] for r in theirs], **TIGHT)
    np.testing.assert_allclose(table["chisq"][1:], [r["Chisq"] for r in theirs[1:]], **TIGHT)
    np.testing.assert_allclose(table["p_value"][1:], [r["Pr(>Chisq)"] for r in theirs[1:]], rtol=1e-4)
    # The FAQ: on the boundary p is twice too large.
    np.testing.assert_allclose(table["p_mixture"][1:], table["p_value"][1:] / 2)


def test_slope_with_a_correlation(sleep):
    """varTestnlme: LRT 42.139, p 3.961e-10 of 1/2 chi2(1) + 1/2 chi2(2), against 7.072e-10."""
    table = rf.anova(*(sleep[m].update(method="ml") for m in ("m1", "m3")))
    assert round(float(table["chisq"][1]), 3) == 42.139
    assert f"{table['p_value'][1]:.3e}" == "7.072e-10"
    assert f"{table['p_mixture'][1]:.3e}" == "3.961e-10"
    assert table["mixture"][1] == "0.5 chi2(1) + 0.5 chi2(2)"


def test_drop1_of_the_faq(sleep):
    table = rf.drop1(sleep["m3"])
    assert list(table["term"]) == ["<none>", "Days"]
    assert round(float(table["chisq"][1]), 3) == 23.537


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("post_penicillin_intervals", "diameter ~ 1 + (1 | plate) + (1 | sample)"),
        ("post_machines_tests", "score ~ Machine + (1 | Worker) + (1 | Worker:Machine)"),
        ("post_oats_tests", "yield ~ factor(nitro) * Variety + (1 | Block/Variety)"),
    ],
)
def test_ranova(name, formula):
    theirs = {key(r["term"]): r for r in rows(name, "ranova")}
    table = rf.ranova(rf.fit(formula, rf.datasets.load(reference.load(name).raw["data"])))
    assert {key(t) for t in table["term"]} == set(theirs)
    for i, term in enumerate(table["term"]):
        row = theirs[key(term)]
        assert table["npar"][i] == row["npar"]
        np.testing.assert_allclose(table["loglik"][i], row["logLik"], **TIGHT)
        if term != "<none>":
            # lmerTest's own optimum of the smaller model is good to about 1e-6.
            np.testing.assert_allclose(table["chisq"][i], row["LRT"], rtol=1e-5)
            np.testing.assert_allclose(table["p_value"][i], row["Pr(>Chisq)"], rtol=1e-3)


def key(term: str) -> str:
    """`(1 | Variety:Block)` and `(1 | Block:Variety)` are one term."""
    return reference.canonical_group(term.removeprefix("(1 | ").removesuffix(")"))


@pytest.mark.parametrize(
    ("name", "key", "small", "large", "data", "arguments"),
    [
        (
            "post_contraception_tests", "lrt_slope", "use ~ age + I(age^2) + urban + livch + (1 | district)",
            "use ~ age + I(age^2) + urban + livch + (urban | district)", "Contraception", {"family": "binomial"},
        ),
        (
            "tmbpost_sal_tests", "lrt", "count ~ spp + (1 | site)", "count ~ spp + mined + (1 | site)", "Salamanders",
            {"family": "nbinom2", "zero_inflation": "~ mined"},
        ),
    ],
)  # fmt: skip
def test_generalised(name, key, small, large, data, arguments):
    theirs, frame = rows(name, key), rf.datasets.load(data)
    table = rf.anova(*(rf.fit(f, frame, **arguments) for f in (small, large)))
    np.testing.assert_allclose(table["loglik"], [r["logLik"] for r in theirs], rtol=1e-6)  # two Laplace optima
    np.testing.assert_allclose(table["chisq"][1], theirs[1]["Chisq"], rtol=1e-4)
    np.testing.assert_allclose(table["p_value"][1], theirs[1]["Pr(>Chisq)"], rtol=1e-3)


def test_dispersion_formula():
    theirs, data = rows("tmbpost_beta_disp", "lrt"), rf.datasets.load(reference.load("tmbpost_beta_disp").raw["data"])
    fits = [rf.fit("y ~ x + (1 | g)", data, family="beta", dispersion=d) for d in ("~ 1", "~ z")]
    table = rf.anova(*fits)
    np.testing.assert_allclose(table["chisq"][1], theirs[1]["Chisq"], rtol=1e-4)  # two Laplace optima
    assert table["mixture"][1] == "chi2(1)"


def test_exact_tests_of_the_faq(sleep):
    theirs = rows("faq_rlrsim", "computed")
    lrt = rf.exact_lrt(sleep["m1"], sleep["m0"], seed=101)
    rlrt = rf.exact_rlrt(sleep["ms"], sleep["m2"], sleep["m1"], seed=101)
    np.testing.assert_allclose([lrt.statistic, rlrt.statistic], [theirs["LRT"], theirs["RLRT"]], rtol=1e-6)
    assert lrt.p_value == rlrt.p_value == 1 / 10_001  # no draw comes near
    assert (lrt.exact, rlrt.exact) == (True, False)


def test_exact_test_of_dyestuff():
    theirs = rows("post_dyestuff_profile", "exactRLRT")
    ours = rf.exact_rlrt(rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.load("Dyestuff")), n=100_000, seed=1)
    assert ours.statistic == pytest.approx(theirs["statistic"], rel=1e-6)
    # Their p is the share of 10,000 draws: four standard errors.
    assert abs(ours.p_value - theirs["p"]) < 4 * np.sqrt(theirs["p"] / 10_000)


def test_parametric_bootstrap_of_the_faq(sleep):
    test = rf.pb_test(sleep["m2"].update(method="ml"), sleep["m1"].update(method="ml"), n=500, seed=101)
    assert round(test.statistic, 3) == 42.075
    assert test.p_value == 1 / (test.used + 1)  # (extreme + 1) / (used + 1): no draw is as extreme
    assert test.used == 500
    # pbkrtest used 501 of 1000: the others had a ratio of 0, which here count.
    assert 0.4 < test.at_zero / test.used < 0.7
