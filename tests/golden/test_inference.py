"""Satterthwaite's degrees of freedom and predictions, beside lmerTest's and lme4's."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from golden import reference

# reference -> (key of a second model inside the file or None, formula)
TESTS = {
    "dyestuff2": ("post_dyestuff2_singular", None, "Yield ~ 1 + (1 | Batch)"),
    "exam": ("post_exam_r2", None, "normexam ~ standLRT + sex + schgend + (standLRT | school)"),
    "machines": ("post_machines_tests", None, "score ~ Machine + (Machine | Worker)"),
    "machines_nested": ("post_machines_tests", "nested", "score ~ Machine + (1 | Worker) + (1 | Worker:Machine)"),
    "oats": ("post_oats_tests", None, "yield ~ factor(nitro) * Variety + (1 | Block/Variety)"),
    "orthodont": ("post_orthodont_tests", None, "distance ~ age * Sex + (1 | Subject)"),
    "orthodont_slope": ("post_orthodont_tests", "random_slope", "distance ~ age * Sex + (age | Subject)"),
    "pbib": ("post_pbib_kr", None, "response ~ Treatment + (1 | Block)"),
    "penicillin": ("post_penicillin_intervals", None, "diameter ~ 1 + (1 | plate) + (1 | sample)"),
}


def satterthwaite(name: str, section: str | None) -> pd.DataFrame:
    raw = reference.load(name).raw
    return pd.DataFrame((raw[section] if section else raw)["satterthwaite"])


@pytest.mark.parametrize(("name", "section", "formula"), TESTS.values(), ids=TESTS)
def test_satterthwaite(name, section, formula):
    theirs = satterthwaite(name, section)
    fit = rf.fit(formula, rf.datasets.load(reference.load(name).raw["data"]))
    ours = fit.tidy(effects="fixed")
    assert len(ours) == len(theirs)
    # lmerTest differentiates numerically (Richardson) and its fit stops at about 1e-8 of the criterion: 1e-4 in df, of
    # which p-values take a like share.
    np.testing.assert_allclose(ours["df"], theirs["df"], rtol=1e-4)
    np.testing.assert_allclose(ours["statistic"], theirs["t"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ours["p_value"], theirs["p"], rtol=5e-3)  # in the tail d log p = -t dt


def test_satterthwaite_by_glmmtmb():
    theirs = pd.DataFrame(reference.load("tmbpost_sleep_ddf").raw["satterthwaite"])
    ours = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy")).tidy(effects="fixed")
    np.testing.assert_allclose(ours["df"], theirs["ddf"], rtol=1e-4)  # numerical derivatives, as above


@pytest.fixture(scope="module")
def crossed():
    return rf.fit("y ~ x1 + f + offset(off) + (1 | a) + (1 | b)", rf.datasets.load("sim_crossed"))


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("re_form_NA", {"re": "none"}),
        ("re_form_NULL", {"re": "all", "new_levels": "population"}),
        ("re_form_a", {"re": ["a"], "new_levels": "population"}),
    ],
)
def test_predictions_with_new_levels(crossed, key, options):
    raw = reference.load("post_predict_crossed").raw
    new = pd.DataFrame(raw["newdata"])
    # Predictions are sums of fixed effects and modes: tolerances as for those.
    np.testing.assert_allclose(crossed.predict(new, **options), raw[key], rtol=1e-5)


def test_prediction_of_a_row_with_a_missing_value_is_missing(crossed):
    raw = reference.load("post_predict_crossed").raw
    new = pd.DataFrame(raw["newdata"])
    new.loc[0, "x1"] = np.nan
    theirs = np.array(raw["na_row"], dtype=float)
    np.testing.assert_allclose(crossed.predict(new, re="none"), theirs, rtol=1e-5)
    assert np.isnan(theirs[0])


@pytest.mark.parametrize(("method", "key"), [("ml", "vcov_full_observed"), ("reml", "vcov_full_reml")])
def test_standard_errors_of_the_variance_parameters(method, key):
    theirs = np.array(reference.load("post_sleepstudy_vcov_theta").raw[key]["matrix"])[2:, 2:]
    fit = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"), method=method)
    term = fit.varcorr()["Subject"]
    (a, b), cor = term.sd, term.corr[1, 0]
    # merDeriv's parameters are variances and covariances: d (sd, sd, cor, sigma) / d (var, cov, var, sigma^2).
    slopes = np.array(
        [
            [1 / (2 * a), 0, 0, 0],
            [0, 0, 1 / (2 * b), 0],
            [-cor / (2 * a**2), 1 / (a * b), -cor / (2 * b**2), 0],
            [0, 0, 0, 1 / (2 * fit.sigma)],
        ]
    )
    expected = np.sqrt(np.diag(slopes @ theirs @ slopes.T))
    # lme4's optimum is off by about 1e-7 of a parameter, our Hessian differences exact gradients.
    np.testing.assert_allclose(fit.tidy("ran_pars")["std_error"], expected, rtol=1e-6)
