"""R2, intraclass correlations, the variance's sources, repeatability."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import ranef as rf
from engines import zoo
from golden import reference
from ranef.criteria.variances import variances
from ranef.errors import NotAvailableError, OptionError

GOLDENS = [
    ("post_sleepstudy_diagnostics", "Reaction ~ Days + (Days | Subject)"),
    ("post_exam_r2", "normexam ~ standLRT + sex + schgend + (standLRT | school)"),
]


@pytest.mark.parametrize(("name", "formula"), GOLDENS)
def test_beside_performance_and_mumin(name, formula):
    raw = reference.load(name).raw
    m = rf.fit(formula, rf.datasets.load(raw["data"]))
    found = rf.r2(m)
    # Ratios of variances at R's optimum, which is good to about 1e-6 of a variance.
    assert found.marginal == pytest.approx(raw["r2_marginal"], rel=1e-5)
    assert found.conditional == pytest.approx(raw["r2_conditional"], rel=1e-5)
    assert found.marginal == pytest.approx(raw["mumin_r2"]["marginal"], rel=1e-5)
    assert rf.icc(m) == pytest.approx(raw["icc_adjusted"], rel=1e-5)
    assert rf.icc(m, "conditional") == pytest.approx(raw["icc_unadjusted"], rel=1e-5)


def test_binomial_beside_performance():
    raw = reference.load("post_contraception_tests").raw
    formula = "use ~ age + I(age^2) + urban + livch + (1 | district)"
    found = rf.r2(rf.fit(formula, rf.datasets.load("Contraception"), family="binomial"))
    assert found.marginal == pytest.approx(raw["r2"]["marginal"], rel=1e-4)  # lme4's optimum of a GLMM
    assert found.conditional == pytest.approx(raw["r2"]["conditional"], rel=1e-4)


def test_icc_by_group_beside_performance():
    raw = reference.load("post_penicillin_intervals").raw["icc"]
    m = rf.fit("diameter ~ 1 + (1 | plate) + (1 | sample)", rf.datasets.load("Penicillin"))
    table = rf.icc(m, by_group=True)
    assert list(table["group"]) == [r["Group"] for r in raw]
    np.testing.assert_allclose(table["icc"], [r["ICC"] for r in raw], rtol=1e-5)
    assert table["icc"].sum() == pytest.approx(rf.icc(m))


def test_a_singular_fit_explains_nothing():
    m = rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.load("Dyestuff2"))
    # The variance of a constant is rounding.
    assert (rf.r2(m).marginal, rf.r2(m).conditional, rf.icc(m)) == pytest.approx((0, 0, 0), abs=1e-20)


def test_a_linear_model_has_the_plain_r2():
    m = rf.fit("y ~ x + f", zoo.data())
    found, y = rf.r2(m), zoo.data()["y"]
    plain = 1 - m.sigma**2 * m.df_residual / np.sum((y - y.mean()) ** 2)
    assert found.marginal == found.conditional
    # sigma^2 divides by n - p, the variance of the fit by n - 1: the two differ by that.
    assert found.marginal == pytest.approx(plain, abs=0.05)


def test_random_slopes_do_not_depend_on_the_origin_of_the_slope():
    data = zoo.data().assign(moved=zoo.data()["x"] + 10)
    a, b = rf.fit("y ~ x + (x | g)", data), rf.fit("y ~ moved + (moved | g)", data)
    # The same model in other coordinates: two searches, each good to 1e-9 of the criterion.
    assert rf.icc(a) == pytest.approx(rf.icc(b), rel=1e-4)
    assert rf.r2(a).conditional == pytest.approx(rf.r2(b).conditional, rel=1e-4)


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(30), 12)
    x = rng.normal(size=360)
    mu = np.exp(0.7 + 0.4 * x + rng.normal(0, 0.5, 30)[g])
    return {"y": rng.poisson(mu).astype(float), "x": x, "g": g, "row": np.arange(360)}


def test_count_models_in_closed_form(counts):
    m = rf.fit("y ~ x + (1 | g)", counts, family="poisson")
    around = m.varcorr()["g"].cov[0, 0]
    mu = np.mean(np.exp(m.predict(re="none", type="link") + around / 2))
    for method, expected in (("lognormal", np.log1p(1 / mu)), ("delta", 1 / mu)):
        assert variances(m, method).distribution == pytest.approx(expected, rel=1e-6)
    from scipy.special import polygamma

    assert variances(m, "trigamma").distribution == pytest.approx(float(polygamma(1, mu)))
    assert variances(m).method == "lognormal"
    negative = rf.fit("y ~ x + (1 | g)", counts, family="nbinom1")
    assert variances(negative).distribution >= np.log1p(1 / mu) - 1e-3


def test_a_random_effect_for_every_row_is_residual(counts):
    m = rf.fit("y ~ x + (1 | g) + (1 | row)", counts, family="poisson")
    v = variances(m)
    assert v.random == pytest.approx(m.varcorr()["g"].cov[0, 0])
    assert v.residual == pytest.approx(v.distribution + m.varcorr()["row"].cov[0, 0])


FAMILIES = [
    ("count ~ spp + mined + (1 | site)", "Salamanders", {"family": "nbinom2", "zero_inflation": "~ mined"}),
    ("rating ~ temp + contact + (1 | judge)", "wine", {"family": "cumulative"}),
    ("Reaction ~ Days + (1 | Subject)", "sleepstudy", {"family": "gamma", "link": "log"}),
    ("cbind(incidence, size - incidence) ~ period + (1 | herd)", "cbpp", {"family": "binomial", "link": "cloglog"}),
    ("Reaction ~ Days + (Days | Subject)", "sleepstudy", {"dispersion": "~ Days"}),
]


@pytest.mark.parametrize(("formula", "data", "arguments"), FAMILIES)
def test_shares_lie_between_0_and_1(formula, data, arguments):
    m = rf.fit(formula, rf.datasets.load(data), **arguments)
    found = rf.r2(m)
    assert 0 <= found.marginal <= found.conditional <= 1
    assert 0 <= rf.icc(m, "conditional") <= rf.icc(m) <= 1
    table = rf.variance_decomposition(m)
    assert table["share"].sum() == pytest.approx(1)


def test_options():
    m = rf.fit("y ~ x + (1 | g)", zoo.data())
    with pytest.raises(OptionError, match="did you mean 'conditional'"):
        rf.icc(m, "condtional")
    with pytest.raises(NotAvailableError, match="no random effects"):
        rf.icc(rf.fit("y ~ x", zoo.data()))
    binary = rf.fit(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)", rf.datasets.load("cbpp"), family="binomial"
    )
    with pytest.raises(OptionError, match="is for log links"):
        rf.r2(binary, method="lognormal")
    with pytest.raises(OptionError, match="unknown"):
        rf.r2(binary, method="exact")
    assert rf.r2(binary, method="delta").marginal < rf.r2(binary).marginal
    table = rf.variance_decomposition(rf.fit("y ~ x + (1 | g)", pl.from_pandas(zoo.data())))
    assert isinstance(table.to_frame(), pl.DataFrame)


# ---- repeatability ---------------------------------------------------------------------------------------------------


def test_repeatability_of_a_gaussian_is_the_icc():
    m = rf.fit("y ~ x + (1 | g) + (1 | h)", zoo.data())
    table = rf.repeatability(m)
    np.testing.assert_allclose(table["repeatability"], rf.icc(m, by_group=True)["icc"])
    assert list(table["scale"]) == ["response", "response"]


def test_repeatability_of_counts_in_closed_form(counts):
    """Carrasco & Jover (2005): EY (e^s - 1) / (EY (e^t - 1) + 1)."""
    m = rf.fit("y ~ x + (1 | g) + (1 | row)", counts, family="poisson")
    own, rest = m.varcorr()["g"].cov[0, 0], m.varcorr()["row"].cov[0, 0]
    mean = np.exp(np.mean(m.predict(re="none", type="link")) + (own + rest) / 2)
    table = rf.repeatability(m)
    at = list(table["scale"]).index("response")
    expected = mean * np.expm1(own) / (mean * np.expm1(own + rest) + 1)
    assert table["repeatability"][at] == pytest.approx(expected, rel=1e-8)  # quadrature of an exponential


def test_bootstrap_of_the_repeatability():
    m = rf.fit("y ~ x + (1 | g)", zoo.data())
    a, b = (rf.repeatability(m, 200, seed=4) for _ in range(2))
    np.testing.assert_array_equal(a["conf_low"], b["conf_low"])
    assert 0 <= a["conf_low"][0] <= a["repeatability"][0] <= a["conf_high"][0] <= 1
    assert "200 parametric bootstrap refits, 0 failed" in repr(a)
    with pytest.raises(OptionError, match="n_boot=1"):
        rf.repeatability(m, 1)
