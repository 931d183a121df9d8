"""Attributes of a fit beside lme4's and lm's."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.errors import OptionError, UnknownColumnError

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleepstudy():
    return rf.datasets.load("sleepstudy")


@pytest.fixture(scope="module")
def reml(sleepstudy):
    return rf.fit(SLEEP, sleepstudy)


@pytest.fixture(scope="module")
def ml(sleepstudy):
    return rf.fit(SLEEP, sleepstudy, method="ml")


def test_maximum_likelihood_as_lme4(ml):
    # lme4 1.1-31, optimum tightened: sleepstudy, correlated slope, ML.
    assert ml.loglik == pytest.approx(-875.969672231599, abs=1e-6)
    assert ml.criterion == pytest.approx(1751.9393444632, abs=1e-6)
    assert ml.aic == pytest.approx(1763.9393444632, abs=1e-6)
    assert ml.bic == pytest.approx(1783.09708556854, abs=1e-6)
    assert (ml.nobs, ml.npar, ml.df_residual) == (180, 6, 174)
    assert ml.sigma == pytest.approx(25.5918156273299, rel=1e-6)
    np.testing.assert_allclose(ml.theta, [0.929225473385104, 0.018165707035043, 0.222645422498272], rtol=1e-4)
    np.testing.assert_allclose(np.sqrt(np.diag(ml.vcov())), [6.63227680545511, 1.50223678214036], rtol=1e-6)


def test_reml_as_lme4(reml):
    assert reml.criterion == pytest.approx(1743.62827195849, abs=1e-6)
    assert reml.loglik == pytest.approx(-reml.criterion / 2)
    assert reml.aic == pytest.approx(reml.criterion + 12)  # REML criterion, p + theta + 1 parameters
    assert reml.aicc == pytest.approx(reml.aic + 2 * 6 * 7 / (180 - 6 - 1))
    assert (reml.method, reml.family, str(reml.formula)) == ("reml", "gaussian", SLEEP)


def test_certificate(reml):
    c = reml.certificate
    assert reml.converged
    assert c.holds
    assert c.outcome.value.startswith("converged")
    assert c.decrease < 1e-9
    assert c.gradient < 1e-3
    assert c.curvature > 0
    assert c.evaluations <= 10


def test_without_random_effects_it_is_lm():
    rng = np.random.default_rng(3)
    x = rng.normal(size=40)
    data = pd.DataFrame({"x": x, "y": 1 + 2 * x + rng.normal(size=40)})
    m = rf.fit("y ~ x", data)
    design = np.column_stack([np.ones(40), x])
    beta, rss, *_ = np.linalg.lstsq(design, data["y"], rcond=None)
    variance = rss[0] / 38
    np.testing.assert_allclose(m.params, beta, rtol=1e-10)
    np.testing.assert_allclose(m.vcov(), variance * np.linalg.inv(design.T @ design), rtol=1e-9)
    assert m.sigma == pytest.approx(np.sqrt(variance))
    assert m.df_residual == 38
    np.testing.assert_array_equal(m.ddf, [38, 38])
    assert (m.theta.size, m.boundary, m.npar, m.ranef(), m.coef()) == (0, (), 3, {}, {})
    ml = rf.fit("y ~ x", data, method="ml")
    assert ml.loglik == pytest.approx(-20 * (1 + np.log(2 * np.pi * rss[0] / 40)))


def test_params_and_vcov_are_named(reml):
    assert list(reml.params.index) == ["(Intercept)", "Days"]
    assert reml.params["Days"] == pytest.approx(10.4672859596, rel=1e-8)
    assert reml.vcov().loc["Days", "(Intercept)"] == pytest.approx(-1.45109568749176, rel=1e-4)
    with pytest.raises(OptionError, match="mean"):
        reml.vcov(component="dispersion")
    with pytest.raises(OptionError, match="CR1S, CR2"):
        reml.vcov(kind="CRR2")


def test_named_values_without_pandas(sleepstudy):
    m = rf.fit(SLEEP, {name: sleepstudy[name].to_numpy() for name in sleepstudy})
    assert dict(m.params) == pytest.approx({"(Intercept)": 251.405104848, "Days": 10.4672859596})
    assert m.vcov()["Days"]["(Intercept)"] == m.vcov()["Days", "(Intercept)"]
    np.testing.assert_allclose(np.asarray(m.vcov()), m.estimate.vcov)
    assert "Days" in repr(m.params)
    assert "Days" in repr(m.vcov())
    with pytest.raises(UnknownColumnError, match="did you mean 'Days'"):
        m.params["days"]


def test_what_one_holds_cannot_be_changed(reml):
    with pytest.raises(AttributeError):
        reml.estimate.sigma = 1.0
    with pytest.raises(AttributeError):
        reml.spec = None
    with pytest.raises(ValueError, match="read-only"):
        reml.theta[0] = 0
    params, vcov = reml.params, reml.vcov()
    params["Days"], vcov.iloc[0, 0] = 0.0, 0.0  # copies
    assert reml.params["Days"] != 0
    assert reml.vcov().iloc[0, 0] != 0


def test_rank_deficient_columns_are_nan_and_everything_else_works(sleepstudy):
    data = sleepstudy.assign(Twice=2 * sleepstudy["Days"])
    m, full = rf.fit("Reaction ~ Days + Twice + (1 | Subject)", data), rf.fit("Reaction ~ Days + (1 | Subject)", data)
    assert np.isnan(m.params["Twice"])
    table = m.tidy(conf_int=True)
    assert table[table["term"] == "Twice"][["estimate", "std_error", "df", "p_value", "conf_low"]].isna().all(axis=None)
    assert m.criterion == pytest.approx(full.criterion, abs=1e-8)
    np.testing.assert_allclose(m.predict(data.head(5)), full.predict(data.head(5)), rtol=1e-8)
    np.testing.assert_allclose(
        m.predict(data.head(5), std_error=True)["std_error"], full.predict(data.head(5), std_error=True)["std_error"]
    )
    np.testing.assert_allclose(m.simulate(2, seed=1), full.simulate(2, seed=1), rtol=1e-6)
    assert [(n.code, n.evidence["columns"]) for n in m.messages] == [("columns_dropped", ["Twice"])]


def test_representations(reml):
    assert "Days" in repr(reml)
    assert repr(reml) == str(reml.summary())
    assert "<table" in reml._repr_html_()


def test_sigma_of_a_gamma_is_its_coefficient_of_variation():
    """glmmTMB 1.1.5: sigma() of this model is 0.09664165, its dispersion parameter 4.673491 the log shape."""
    m = rf.fit("Reaction ~ Days + (1 | Subject)", rf.datasets.load("sleepstudy"), family="gamma", link="log")
    assert m.sigma == pytest.approx(0.09664165, rel=1e-5)
    assert m.coefficients("dispersion")["(Intercept)"] == pytest.approx(4.673491, rel=1e-5)
