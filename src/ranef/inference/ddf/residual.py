"""Rows less fixed effects, as in a model without random effects; too many for whatever varies between groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ranef.frame.design import Array
from ranef.inference.ddf.method import Method, anything, least, model_vcov, rows_counted

if TYPE_CHECKING:
    from ranef.model import Fit


def rank_of_mean(m: Fit) -> int:
    """Coefficients of the mean that were estimated."""
    return int((~np.isnan(m.estimate.beta[m.layout.components[0].at])).sum())


def of_mean(m: Fit, hypotheses: Array) -> Array:
    """Tell which hypotheses are about the mean alone; other components have no degrees of freedom."""
    others = np.atleast_2d(hypotheses)[:, len(m.layout.fixed) :]
    return ~(others != 0).any(axis=1)


def residual(m: Fit, hypotheses: Array) -> Array:
    """Return n - rank X for hypotheses about the mean."""
    return np.where(of_mean(m, hypotheses), rows_counted(m) - rank_of_mean(m), np.inf)


METHOD = Method("residual", "residual degrees of freedom", anything, residual, least(residual), model_vcov)
