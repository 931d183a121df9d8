"""Means that a link does not keep in their range: the fit stays inside, new rows and drawn effects need not."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from ranef.engines.estimate import Array
from ranef.errors import RanefWarning
from ranef.families.links import Loose, loose
from ranef.frame.table import rows_of

if TYPE_CHECKING:
    from ranef.model import Fit


def tell_illegal_means(m: Fit, means: Array, blank: Array | None) -> None:
    """Warn of predicted means out of the range of the family; nothing is predicted for `blank` rows anyway."""
    found = _loose(m)
    if found is None or means.ndim != 1:
        return
    low, high = found.ends
    bad = np.asarray(np.isnan(means) | (means < low) | (means > high))
    bad = bad if blank is None else np.asarray(bad & np.logical_not(blank))
    if bad.any():
        warnings.warn(
            f"predict: {rows_of(bad)}: under link={m.link!r} the predictor leads to no mean that family={m.family!r} "
            f"can have (between {low:g} and {high:g}); link={found.safe!r} keeps means in their range",
            RanefWarning,
            stacklevel=4,
        )


def tell_illegal_draws(m: Fit, draws: Array) -> None:
    """Warn of rows whose drawn effects led to no legal mean: they have no response."""
    found = _loose(m)
    lost = np.isnan(draws)
    if found is not None and lost.any():
        where = rows_of(np.asarray(lost.any(axis=1)))
        warnings.warn(
            f"simulate: {lost.mean():.2g} of the draws are NaN, in {where}: under link={m.link!r} random effects take "
            f"means out of their range; link={found.safe!r} keeps them there",
            RanefWarning,
            stacklevel=4,
        )


def _loose(m: Fit) -> Loose | None:
    return loose(m.distribution.entry.parameters[0].range, m.link)
