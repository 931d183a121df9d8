"""A mean that lacks a column that its random effects have leaves them a narrow curved valley to follow."""

from __future__ import annotations

import pytest

import ranef as rf

WAFER = "current ~ I(voltage^2) + (voltage | Wafer/Site)"
# Where scipy's BFGS ends on the same criterion, from the same start.
OPTIMA = {"ml": -264.793005174, "reml": -253.145949042}


@pytest.mark.parametrize("method", OPTIMA)
def test_the_search_follows_a_curved_valley_to_its_end(method):
    m = rf.fit(WAFER, rf.datasets.load("Wafer"), method=method)
    assert m.converged
    assert m.criterion <= OPTIMA[method] + 1e-7  # BFGS stops within some 1e-8 of the optimum
    assert m.certificate.evaluations <= 100  # 61 and 38; without steps along the valley 200 did not reach it
