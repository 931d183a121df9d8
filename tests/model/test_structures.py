"""Covariance structures from the formula to the fit, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

import ranef as rf


@pytest.fixture(scope="module")
def sleep():
    return rf.datasets.load("sleepstudy")


def test_no_residual_variance(sleep):
    """`dispersion=0` is glmmTMB's `dispformula = ~ 0`: a residual SD of eps^(1/4), about 1.22e-4."""
    formula = "Reaction ~ Days + ar1(factor(Days) + 0 | Subject)"
    m = rf.fit(formula, sleep, dispersion=0, method="ml")
    assert m.sigma == pytest.approx(np.finfo(float).eps ** 0.25)
    assert rf.fit(formula, sleep, dispersion="~ 0", method="ml").loglik == m.loglik
    assert rf.fit(formula, sleep, dispersion=3, method="ml").sigma == pytest.approx(3)


def test_known_sampling_errors(sleep):
    """Known standard deviations a row are an offset of the dispersion; equal ones are the same as one number."""
    formula = "Reaction ~ Days + ar1(factor(Days) + 0 | Subject)"
    m = rf.fit(formula, sleep.assign(se=3.0), dispersion="~ 0 + offset(log(se))", method="ml")
    assert m.loglik == pytest.approx(rf.fit(formula, sleep, dispersion=3, method="ml").loglik, abs=1e-9)
