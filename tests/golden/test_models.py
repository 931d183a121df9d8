"""Every linear mixed model of the established R packages: our numbers beside theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from golden import reference

MODELS = reference.fitted_models()

# R's optima were polished with Newton steps on the exact gradient, so the criterion is good to about 1e-8; 1e-6 leaves
# room for the rounding of sums over 3 10^4 rows (Chem97: criterion 1.4e5, 1e-6 is 7e-12 relative).
CRITERION = 1e-6
# Two optima whose criteria agree to 1e-8 differ by up to 1e-5 in theta (curvature about 100); fixed effects move with
# theta by a fraction of their standard error, and not at all in balanced designs.
ESTIMATE = 1e-5
# Standard errors, SDs and correlations move in first order with theta, and flat criteria have curvatures below 1.
SPREAD = 1e-4
# Where an SD is zero the criterion is flat in the SD (it depends on its square): a gap of 1e-8 is an SD of about
# 1e-3 sigma. nlme, which moves log SDs, cannot reach zero at all and stops at about that size.
SD_FLOOR = 1e-3
# AIC and BIC are the criterion plus a constant.
PENALISED = 2e-6


# glmmTMB's ML standard errors are those of the joint Hessian, and its conditional SDs have the uncertainty of the
# parameters in them: other definitions.
SAME_ERRORS = [n for n in MODELS if reference.load(n).raw["package"] != "glmmTMB" or reference.load(n).method == "reml"]
SAME_SPREAD = [n for n in MODELS if reference.load(n).raw["package"] != "glmmTMB"]


@pytest.fixture(params=MODELS)
def pair(request: pytest.FixtureRequest) -> tuple[reference.Reference, reference.Ours]:
    return reference.load(request.param), reference.fit(request.param)


def assert_each(ours: Mapping[Any, float], theirs: Mapping[Any, float], rtol: float, atol: Mapping[Any, float]) -> None:
    """Every entry of theirs is in ours and close; the message names all that are not."""
    missing = sorted(str(key) for key in theirs if key not in ours)
    assert not missing, f"not in our table: {missing}; it has {sorted(map(str, ours))[:12]}"
    far = {
        key: (ours[key], value)
        for key, value in theirs.items()
        if not abs(ours[key] - value) <= rtol * abs(value) + atol[key]
    }
    assert not far, f"(ours, R's): {far}"


def test_reaches_the_optimum(pair):
    ref, ours = pair
    gap = ours.fit.criterion - ref.criterion
    assert gap <= CRITERION, "R has a better optimum"
    # Much better than a polished optimum means another criterion, not another optimum.
    assert gap >= -CRITERION - ref.slack, "not the same criterion"
    assert ours.fit.converged


def test_fixed_effects(pair):
    ref, ours = pair
    # An estimate near zero has no relative accuracy: its scale is its standard error.
    assert_each(ours.fixef, ref.fixef, ESTIMATE, {term: ESTIMATE * se for term, se in ref.se.items()})


@pytest.mark.parametrize("pair", SAME_ERRORS, indirect=True)
def test_standard_errors(pair):
    ref, ours = pair
    assert_each(ours.se, ref.se, SPREAD, dict.fromkeys(ref.se, 0.0))


def test_order_of_fixed_effects(pair):
    ref, ours = pair
    names = [term for term in ours.fixef if term not in ref.dropped]
    assert names == list(ref.fixef)


def test_dropped_columns_are_named(pair):
    ref, ours = pair
    assert [term for term, value in ours.fixef.items() if np.isnan(value)] == ref.dropped


def test_standard_deviations(pair):
    ref, ours = pair
    sigma = ref.raw["sigma"]
    # An SD on the boundary is judged by its floor alone; elsewhere the floor is the tolerance of sigma itself.
    floor = {key: SD_FLOOR * sigma if sd < SD_FLOOR * sigma else SPREAD * SPREAD * sigma for key, sd in ref.sds.items()}
    assert_each(ours.sds, ref.sds, SPREAD, floor)
    assert ours.fit.sigma == pytest.approx(sigma, rel=SPREAD)


def test_correlations(pair):
    ref, ours = pair
    # A correlation with an effect of SD zero is not defined.
    solid = {key for key, sd in ref.sds.items() if sd > SD_FLOOR * ref.raw["sigma"]}
    theirs = {
        (group, f"{first}.{second}"): value
        for (group, first, second), value in ref.correlations.items()
        if (group, first) in solid and (group, second) in solid
    }
    assert_each(ours.correlations, theirs, 0.0, dict.fromkeys(theirs, SPREAD))


@pytest.mark.parametrize(
    ("pair", "column", "field"),
    [(n, "estimate", "estimate") for n in MODELS] + [(n, "std_error", "condsd") for n in SAME_SPREAD],
    indirect=["pair"],
)
def test_random_effects(pair, column, field):
    ref, ours = pair
    theirs = ref.random_effects(field)
    # Modes scale with the SD of their effect (and are zero with it).
    scale = {key: SPREAD * ref.sds[key[0], key[2]] + SPREAD * SD_FLOOR * ref.raw["sigma"] for key in theirs}
    singular = any(sd < SD_FLOOR * ref.raw["sigma"] for sd in ref.sds.values())
    floor = dict.fromkeys(theirs, SD_FLOOR * ref.raw["sigma"]) if singular else scale
    assert_each(ours.random_effects(column), theirs, SPREAD, floor)


def test_fitted_and_residuals(pair):
    ref, ours = pair
    # Fitted values carry the error of the modes: SPREAD of a residual SD.
    scale = SPREAD * ref.raw["sigma"]
    np.testing.assert_allclose(np.asarray(ours.fit.predict())[:6], ref.raw["fitted"], rtol=1e-7, atol=scale)
    residuals = ref.raw["residuals"]["response"]
    np.testing.assert_allclose(np.asarray(ours.fit.residuals())[:6], residuals, rtol=1e-7, atol=scale)


def test_counts_and_criteria(pair):
    ref, ours = pair
    fit = ours.fit
    assert fit.nobs == ref.raw["nobs"]
    assert fit.npar == ref.raw["npar"]
    assert fit.loglik == pytest.approx(ref.raw["logLik"], abs=CRITERION + ref.slack)
    assert fit.aic == pytest.approx(ref.raw["AIC"], abs=PENALISED + ref.slack)
    if ref.raw["package"] != "nlme":  # whose BIC of a REML fit counts n - p observations
        assert fit.bic == pytest.approx(ref.raw["BIC"], abs=PENALISED + ref.slack)


def test_boundary_is_reported(pair):
    ref, ours = pair
    if "singular" in ref.raw:
        assert bool(ours.fit.boundary) == ref.raw["singular"]


def test_every_reference_is_used():
    assert len(MODELS) >= 54
