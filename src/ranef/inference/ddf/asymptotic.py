"""No degrees of freedom: normal and chi-square tests, right in large samples."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from ranef.errors import RanefWarning
from ranef.frame.design import Array
from ranef.inference.ddf.method import Method, least, model_vcov
from ranef.inference.terms import is_linear_model

if TYPE_CHECKING:
    from ranef.model import Fit

FEW = 45  # groups below which t and normal quantiles differ by more than 2 per cent


def infinite(_m: Fit, hypotheses: Array) -> Array:
    """Return infinity for every hypothesis."""
    return np.full(len(np.atleast_2d(hypotheses)), np.inf)


def caution(m: Fit) -> None:
    """Say that normal tests of a linear model with few groups are too bold."""
    groups = min((len(t.levels) for t in m.layout.terms), default=FEW)
    if is_linear_model(m) and groups < FEW:
        warnings.warn(
            f"ddf='inf': p-values from a normal distribution are too small with {groups} groups; prefer "
            f"ddf='kenward-roger' or 'satterthwaite'",
            RanefWarning,
            stacklevel=5,
        )


METHOD = Method("inf", "", caution, infinite, least(infinite), model_vcov)
