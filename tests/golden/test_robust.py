"""Cluster-robust covariances and full information beside clubSandwich, merDeriv and glmmTMB."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from golden import reference

MACHINES = ("post_machines_tests", "score ~ Machine + (Machine | Worker)")
EXAM = ("post_exam_r2", "normexam ~ standLRT + sex + schgend + (standLRT | school)")
SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.mark.parametrize(("name", "formula", "kind"), [(*MACHINES, "CR2"), (*EXAM, "CR2"), (*EXAM, "CR0")])
def test_clubsandwich(name, formula, kind):
    raw = reference.load(name).raw
    theirs = pd.DataFrame(raw[kind])
    m = rf.fit(formula, rf.datasets.load(raw["data"]))
    ours = rf.robust(m, kind)
    assert ours["term"].tolist() == theirs["Coef"].tolist()
    # Both stand at optima that agree to 1e-10 in the criterion, so to about 1e-6 in what depends on theta.
    np.testing.assert_allclose(ours["estimate"], theirs["beta"], rtol=1e-6)
    np.testing.assert_allclose(ours["std_error"], theirs["SE"], rtol=1e-6)
    np.testing.assert_allclose(ours["df"], theirs["df"], rtol=1e-6)
    np.testing.assert_allclose(ours["p_value"], theirs["p"], rtol=1e-4)  # in the tail d log p = -t dt
    np.testing.assert_allclose(np.sqrt(np.diag(m.vcov(kind=kind))), ours["std_error"], rtol=1e-14)


@pytest.mark.parametrize(
    ("method", "kind", "key"),
    [
        ("ml", "observed", "vcov_full_observed"),
        ("ml", "expected", "vcov_full_expected"),
        ("reml", "expected", "vcov_full_reml"),
    ],
)
def test_full_covariance_by_merderiv(method, kind, key):
    theirs = np.array(reference.load("post_sleepstudy_vcov_theta").raw[key]["matrix"])
    m = rf.fit(SLEEP, rf.datasets.load("sleepstudy"), method=method)
    ours = np.linalg.inv(rf.information(m, kind))
    unit = np.sqrt(np.diag(theirs))
    # As correlations: 1e-6 of theta's agreement, as above.
    np.testing.assert_allclose(ours / np.outer(unit, unit), theirs / np.outer(unit, unit), atol=1e-6)


def test_scores_by_merderiv():
    raw = reference.load("post_sleepstudy_vcov_theta").raw
    theirs = pd.DataFrame(raw["estfun_subject"])[raw["vcov_full_observed"]["terms"]].to_numpy()
    m = rf.fit(SLEEP, rf.datasets.load("sleepstudy"), method="ml")
    ours = rf.estfun(m)
    assert ours["cluster"].tolist() == [row["Subject"] for row in raw["estfun_subject"]]
    scale = np.abs(theirs).max(axis=0)
    np.testing.assert_allclose(ours.iloc[:, 1:] / scale, theirs / scale, atol=1e-6)


def test_sandwich_by_glmmtmb():
    raw = reference.load("tmbpost_cbpp_sandwich").raw
    theirs = np.array(raw["vcovHC"]["full"]["matrix"])
    m = rf.fit(raw["formula"], rf.datasets.load("cbpp"), family="binomial")
    ours = m.vcov(kind="CR0")
    # glmmTMB stops where its gradient is about 1e-5 (the sums of its scores), of which the others take a share.
    unit = np.sqrt(np.diag(theirs))
    np.testing.assert_allclose(ours / np.outer(unit, unit), theirs / np.outer(unit, unit), atol=5e-6)
    scores = pd.DataFrame(raw["estfun"])[raw["vcovHC"]["full"]["terms"]]
    np.testing.assert_allclose(rf.estfun(m)[scores.columns.tolist()], scores, atol=5e-5)


@pytest.mark.parametrize("name", ["robust_sleepstudy", "robust_oats", "robust_orthodont", "robust_lme_varident"])
def test_joint_tests_by_clubsandwich(name):
    raw = reference.load(name).raw
    m = rf.fit(raw["formula"], rf.datasets.load(raw["data"]), method="reml", dispersion=raw.get("dispersion"))
    weights = np.eye(len(raw["tests"]["CR2"]["terms"]))
    for kind, theirs in raw["tests"].items():
        ours = m.tidy(vcov=kind, cluster=raw["by"])[: len(weights)]
        # nlme's optimum is good to about 1e-7 in theta, lme4's was polished.
        np.testing.assert_allclose(ours["std_error"], theirs["SE"], rtol=1e-6)
        np.testing.assert_allclose(ours["df"], np.array(theirs["df"], dtype=float), rtol=1e-6)
        for test in theirs["joint"]:
            rows = weights[np.array(test["at"]) - 1]
            found = rf.contrast(m, rows, joint=True, vcov=kind, cluster=raw["by"]).iloc[0]
            np.testing.assert_allclose(
                found[["statistic", "numdf", "dendf"]].astype(float),
                [test[k] for k in ("F", "numdf", "dendf")],
                rtol=1e-6,
            )
            np.testing.assert_allclose(found["p_value"], test["p"], rtol=1e-5)  # in the tail d log p = -t dt


@pytest.mark.parametrize("name", ["robust_glm_binomial", "robust_glm_poisson", "robust_glm_probit"])
def test_generalised_linear_models_by_clubsandwich(name):
    raw = reference.load(name).raw
    m = rf.fit(raw["formula"], rf.datasets.load(raw["data"]), family=raw["family"], link=raw["link"])
    # Theirs has the expected information in the middle, ours the observed one, equal with the canonical link; else they
    # differ by terms of mean 0, here by a percent.
    near = 2e-6 if name != "robust_glm_probit" else 0.02
    for kind, theirs in raw["tests"].items():
        ours = rf.robust(m, kind, raw["by"])
        np.testing.assert_allclose(ours["std_error"], theirs["SE"], rtol=near)
        if kind not in ("CR2", "CR3"):  # without an adjustment tests are normal
            assert np.isinf(ours["df"]).all()
            continue
        np.testing.assert_allclose(ours["df"], np.array(theirs["df"], dtype=float), rtol=1e-6)
        for test in theirs["joint"]:
            rows = np.eye(len(ours))[np.array(test["at"]) - 1]
            found = rf.contrast(m, rows, joint=True, vcov=kind, cluster=raw["by"]).iloc[0]
            assert found["dendf"] == pytest.approx(test["dendf"], rel=1e-6)
            assert found["statistic"] == pytest.approx(test["F"], rel=3 * near)  # a quotient of two squares
