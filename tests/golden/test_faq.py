"""Figures printed in the GLMM FAQ."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import ranef as rf
from golden import reference

FORMULAS = {
    "m0": "Reaction ~ Days",
    "m1": "Reaction ~ Days + (1 | Subject)",
    "m2": "Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)",
}


@pytest.fixture(scope="module")
def sleepstudy_fits():
    data = rf.datasets.load("sleepstudy")
    return {name: rf.fit(formula, data, method="ml") for name, formula in FORMULAS.items()}


def test_likelihood_ratio_ladder(sleepstudy_fits):
    """anova(m2, m1, m0): a plain linear model, one variance, two variances."""
    rows = {row["model"]: row for row in reference.load("faq_sleepstudy_lrt").raw["computed"]}
    for name, fit in sleepstudy_fits.items():
        assert fit.npar == rows[name]["npar"]
        # R's fits were polished; the criterion is good to 1e-8, and to rounding for the linear model.
        assert fit.aic == pytest.approx(rows[name]["AIC"], abs=2e-6)
        assert fit.bic == pytest.approx(rows[name]["BIC"], abs=2e-6)
        assert fit.loglik == pytest.approx(rows[name]["logLik"], abs=1e-6)


def test_likelihood_ratio_as_printed(sleepstudy_fits):
    """The digits on the page."""
    fits = sleepstudy_fits
    assert [round(fits[m].aic, 1) for m in ("m0", "m1", "m2")] == [1906.3, 1802.1, 1762.0]
    # R prints 1814.85047 as 1814.8: half a digit of grace beyond the half that rounding takes.
    assert [fits[m].bic for m in ("m0", "m1", "m2")] == pytest.approx([1915.9, 1814.8, 1778.0], rel=0, abs=0.051)
    assert [round(fits[m].loglik, 2) for m in ("m0", "m1", "m2")] == [-950.15, -897.04, -876.00]
    assert round(fits["m0"].criterion - fits["m1"].criterion, 3) == 106.214
    chisq = fits["m1"].criterion - fits["m2"].criterion
    assert round(chisq, 3) == 42.075
    assert f"{stats.chi2.sf(chisq, 1):.3e}" == "8.782e-11"


@pytest.mark.parametrize(("levels", "parameters"), [(4, 10), (5, 15), (12, 78), (16, 136)])
def test_number_of_covariance_parameters(levels, parameters):
    """n varying effects of one grouping factor have n (n + 1) / 2 variances and covariances."""
    rng = np.random.default_rng(levels)
    frame = pd.MultiIndex.from_product([range(40), range(levels), range(2)], names=["g", "f", "copy"]).to_frame(
        index=False
    )
    frame["y"] = rng.normal(size=40)[frame["g"]] + rng.normal(size=len(frame))
    fit = rf.fit("y ~ 1 + (0 + factor(f) | g)", frame, method="ml")
    assert fit.npar == parameters + 2  # the intercept and the residual SD
