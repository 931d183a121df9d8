"""tidy, glance, ranef, coef and varcorr of linear mixed models."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import ranef as rf
from ranef.errors import ArgumentError, NotAvailableError, OptionError, RanefWarning, UnknownColumnError
from ranef.inference.varcorr import _has_meaning

COLUMNS = ["effect", "component", "group", "level", "term", "estimate", "std_error", "statistic", "df", "p_value"]


@pytest.fixture(scope="module")
def m():
    return rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))


@pytest.fixture(scope="module")
def crossed():
    return rf.fit("diameter ~ 1 + (1 | plate) + (1 | sample)", rf.datasets.load("Penicillin"))


def test_tidy_columns(m):
    assert list(m.tidy().columns) == COLUMNS
    assert list(m.tidy(conf_int=True).columns) == [*COLUMNS, "conf_low", "conf_high"]
    stacked = m.tidy(["fixed", "ran_pars", "ran_vals"])
    assert list(stacked.columns) == COLUMNS
    assert list(stacked["effect"].value_counts().items()) == [("ran_vals", 36), ("ran_pars", 4), ("fixed", 2)]
    assert set(stacked["component"]) == {"mean"}


def test_fixed_effects_and_their_tests(m):
    row = m.tidy(conf_int=True, conf_level=0.9).set_index("term").loc["Days"]
    # lmerTest: 10.467286, se 1.545790, df 17, t 6.771481, p 3.26e-06.
    assert row["statistic"] == pytest.approx(row["estimate"] / row["std_error"])
    assert row["df"] == pytest.approx(17, rel=1e-6)
    assert row["p_value"] == pytest.approx(3.26378830716727e-06, rel=1e-4)
    half = stats.t.ppf(0.95, row["df"]) * row["std_error"]
    assert row["conf_low"] == pytest.approx(row["estimate"] - half)
    assert row["conf_high"] == pytest.approx(row["estimate"] + half)


def test_variance_parameters_have_the_names_of_broom_mixed(m):
    table = m.tidy("ran_pars")
    assert list(zip(table["group"], table["term"], strict=True)) == [
        ("Subject", "sd__(Intercept)"),
        ("Subject", "sd__Days"),
        ("Subject", "cor__(Intercept).Days"),
        ("Residual", "sd__Observation"),
    ]
    # lme4 REML: 24.741, 5.922, 0.066, 25.592.
    np.testing.assert_allclose(table["estimate"], [24.7405, 5.92213, 0.06555, 25.5918], rtol=1e-4)


def test_standard_errors_of_a_balanced_one_way_layout():
    # The ANOVA's mean squares are independent scaled chi-squares: Var(MS) = 2 E(MS)^2 / df (Searle et al. 1992, 3.8).
    data = rf.datasets.load("Dyestuff")
    m = rf.fit("Yield ~ 1 + (1 | Batch)", data)
    inside, between = m.sigma**2, m.sigma**2 + 5 * m.varcorr()["Batch"].cov[0, 0]
    variance = (2 * between**2 / 5 + 2 * inside**2 / 24) / 25
    expected = [np.sqrt(variance) / (2 * m.varcorr()["Batch"].sd[0]), m.sigma / np.sqrt(48)]
    np.testing.assert_allclose(m.tidy("ran_pars")["std_error"], expected, rtol=1e-6)  # differences of gradients


def test_parameters_on_the_boundary_have_no_standard_error():
    alone = rf.fit("Yield ~ 1", rf.datasets.load("Dyestuff2")).tidy("ran_pars")["std_error"]
    found = rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.load("Dyestuff2")).tidy("ran_pars")["std_error"]
    assert np.isnan(found[0])
    # With the variance held at 0 sigma is that of the plain linear model.
    np.testing.assert_allclose([found[1], alone[0]], 3.716 / np.sqrt(2 * 29), rtol=1e-4)


def test_independent_terms_have_no_correlation():
    m = rf.fit("Reaction ~ Days + (Days || Subject)", rf.datasets.load("sleepstudy"))
    assert [t for t in m.tidy("ran_pars")["term"] if t.startswith("cor")] == []
    assert m.varcorr()["Subject"].pairs == []


def test_two_terms_of_one_group_are_told_apart():
    m = rf.fit("Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)", rf.datasets.load("sleepstudy"))
    assert list(m.varcorr()) == ["Subject", "Subject.1"]
    assert list(m.ranef()["Subject"].columns) == ["level", "(Intercept)", "Days"]
    together = rf.fit("Reaction ~ Days + (Days || Subject)", rf.datasets.load("sleepstudy"))
    assert m.criterion == pytest.approx(together.criterion, abs=1e-7)
    np.testing.assert_allclose(m.coef()["Subject"]["Days"], together.coef()["Subject"]["Days"], rtol=1e-5)


def test_a_factor_called_residual_is_told_apart_from_the_residual():
    data = rf.datasets.load("sleepstudy").rename(columns={"Subject": "Residual"})
    m = rf.fit("Reaction ~ Days + (1 | Residual)", data)
    assert list(m.tidy("ran_pars")["group"]) == ["Residual", "Residual (sigma)"]
    assert list(m.varcorr().to_frame()["group"]) == ["Residual", "Residual (sigma)"]
    assert "Residual (sigma)  " in repr(m.varcorr())
    assert " Residual (sigma)  " in m.summary()
    plain = rf.fit("Reaction ~ Days + (1 | Subject)", rf.datasets.load("sleepstudy"))
    np.testing.assert_array_equal(m.tidy("ran_pars")["estimate"], plain.tidy("ran_pars")["estimate"])


@pytest.mark.parametrize(("structure", "parameter"), [("ou", "rate"), ("exp", "range")])
def test_parameters_beside_a_standard_deviation_of_zero_are_missing(structure, parameter):
    """Rows of a group that add up to nearly 0: no positive correlation is left to explain."""
    y, g, t = np.random.default_rng(4).normal(size=(50, 4)), np.repeat(np.arange(50), 4), np.tile(np.arange(4.0), 50)
    data = {"y": (y - 0.99 * y.mean(axis=1, keepdims=True)).ravel(), "t": t, "g": g}
    m = rf.fit(f"y ~ {structure}(0 + numFactor(t) | g)", data)
    found = {p.name: p.value for p in m.varcorr()["g"].parameters}
    assert found["sd"] == 0
    assert np.isnan([found[parameter], m.tidy("ran_pars")["estimate"][1]]).all()
    assert "NaN" in m.summary()
    with pytest.warns(RanefWarning, match="rate|range"):
        assert rf.confint(m, method="wald", which="random")["conf_low"].isna().tolist() == [True, True, False]
    assert np.isfinite(m.predict({"t": [1.5], "g": [3]})).all()


def test_a_lag_is_missing_only_where_no_pair_of_effects_varies():
    sd = np.array([0.5, 0.7, 0.0, 0.6])
    assert [_has_meaning("cor", lag, sd) for lag in (1, 2, 3)] == [True, True, True]
    assert [_has_meaning("cor", lag, np.array([0.5, 0.0, 0.4])) for lag in (1, 2, None)] == [False, True, True]
    assert not _has_meaning("cor", None, np.array([0.5, 0.0, 0.0]))
    assert _has_meaning("sd", 2, np.zeros(3))


def test_modes_as_lme4():
    m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"), method="ml")
    table = m.ranef(std_error=True)["Subject"]
    assert list(table["level"].astype(str))[:3] == ["308", "309", "310"]
    # lme4 1.1-31: ranef(m, condVar = TRUE), ML.
    np.testing.assert_allclose(table["(Intercept)"][:3], [2.81568329, -40.04848729, -38.43315311], rtol=1e-5)
    np.testing.assert_allclose(table["Days"][:3], [9.07553396, -8.6440675, -5.51337896], rtol=1e-5)
    np.testing.assert_allclose(table["std_error__(Intercept)"], 11.8729537168405, rtol=1e-5)
    np.testing.assert_allclose(table["std_error__Days"], 2.27107446484218, rtol=1e-5)


def test_full_conditional_covariance(m):
    table, cov = m.ranef(covariance=True)["Subject"], np.asarray(m.core.cond_cov(0))
    assert cov.shape == (18, 2, 2)
    np.testing.assert_array_equal(table["cov__(Intercept).Days"], cov[:, 1, 0])
    np.testing.assert_array_equal(table["cov__Days.Days"], cov[:, 1, 1])
    np.testing.assert_allclose(cov, np.swapaxes(cov, 1, 2))
    ran_vals = m.tidy("ran_vals", conf_int=True)
    days = ran_vals[ran_vals["term"] == "Days"]
    np.testing.assert_allclose(days["std_error"], np.sqrt(cov[:, 1, 1]))
    np.testing.assert_allclose(days["conf_high"], days["estimate"] + stats.norm.ppf(0.975) * days["std_error"])


def test_coef_is_fixed_plus_mode(m, crossed):
    table, modes = m.coef()["Subject"], m.ranef()["Subject"]
    np.testing.assert_allclose(table["Days"], m.params["Days"] + modes["Days"])
    assert list(crossed.coef()) == list(crossed.ranef()) == ["plate", "sample"]
    assert len(crossed.coef()["plate"]) == 24


def test_coef_of_a_slope_without_fixed_effect():
    m = rf.fit("Reaction ~ 1 + (Days | Subject)", rf.datasets.load("sleepstudy"))
    np.testing.assert_allclose(m.coef()["Subject"]["Days"], m.ranef()["Subject"]["Days"])


def test_varcorr(m):
    v = m.varcorr()
    s = v["Subject"]
    np.testing.assert_allclose(s.cov, s.corr * np.outer(s.sd, s.sd))
    np.testing.assert_allclose(s.cov, m.sigma**2 * m.estimate.factors[0] @ m.estimate.factors[0].T)
    assert v.sigma == m.sigma
    assert list(v.to_frame()["sd"])[-1] == m.sigma
    assert "Subject" in repr(v)
    with pytest.raises(UnknownColumnError, match="did you mean 'Subject'"):
        v["subject"]


def test_glance(m):
    table = m.glance()
    assert list(table.columns) == [
        "nobs", "npar", "df_residual", "sigma", "loglik", "criterion", "aic", "bic", "method", "family", "converged",
        "boundary",
    ]  # fmt: skip
    row = table.iloc[0]
    assert len(table) == 1
    assert (row["nobs"], row["npar"], row["method"], row["converged"], row["boundary"]) == (180, 6, "reml", True, False)
    assert row["criterion"] == m.criterion


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"effects": "random"}, OptionError, "ran_"),
        ({"method": "profile", "effects": "ran_vals", "conf_int": True}, NotAvailableError, "no p-value"),
        ({"n": 5}, ArgumentError, "'n'"),
        ({"method": "exact"}, OptionError, "'wald'"),
        ({"conf_int": True, "conf_level": 95}, OptionError, "0.95"),
    ],
)
def test_tidy_refuses(m, arguments, error, says):
    with pytest.raises(error, match=says):
        m.tidy(**arguments)


def test_sigma_has_its_standard_error_in_either_engine():
    data = rf.datasets.load("sleepstudy")
    plain = rf.fit("Reaction ~ Days + (1 | Subject)", data).tidy("ran_pars").set_index("term")["std_error"]
    general = rf.fit("Reaction ~ Days + homdiag(1 | Subject)", data).tidy("ran_pars").set_index("term")["std_error"]
    # Exact second derivatives there, difference quotients of exact gradients here.
    assert general["sd__Observation"] == pytest.approx(plain["sd__Observation"], rel=1e-5)
    held = rf.fit("Reaction ~ Days + (1 | Subject)", data, fixed={"sigma": 30.0}).tidy("ran_pars")
    assert np.isnan(held.set_index("term")["std_error"]["sd__Observation"])
