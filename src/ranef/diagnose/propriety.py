"""Whether the probabilities of a family that a user wrote sum to 1: a constant left out, or digits lost on the way.

A density whose terms cancel far out (gammaln(y + phi) - gammaln(phi) at phi = 1e16) is noise there, and a search that
comes upon it finds a likelihood that is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ranef.engines.estimate import Array
from ranef.families import Distribution
from ranef.families.custom import DISCRETE, Seen, log_density_of

if TYPE_CHECKING:
    from ranef.model import Fit

ROWS = 5  # that are looked at, from the smallest to the largest mean
FIRST, LAST = 1_000, 1_000_000  # counts to begin with and at most
MUCH = 2.0  # a sum that needs no further terms to be wrong
TAIL = 1e-6  # of the last tenth of the counts: what lies beyond adds nothing to speak of


def worst_sum(m: Fit) -> float | None:
    """Return the sum of probabilities farthest from 1, at the fit's estimates; None where they cannot be summed."""
    from ranef.predict.rows import fitted_predictors

    family = m.distribution
    if family.custom is None or family.entry.support not in DISCRETE or m.design is None:
        return None
    rows, eta = fitted_predictors(m, "diagnose")
    order = np.argsort(eta[:, 0])
    chosen = order[np.linspace(0, len(order) - 1, ROWS).astype(int)]
    trials, largest = rows.data.trials, int(np.max(np.asarray(m.design.y), initial=0))
    sums = [_sum(family, eta[i], None if trials is None else float(trials[i]), largest) for i in chosen]
    known = [s for s in sums if s is not None]
    return max(known, key=lambda s: abs(s - 1)) if known else None


def _sum(family: Distribution, eta: Array, trials: float | None, largest: int) -> float | None:
    """Return the sum over all successes, or over counts until they no longer add; None where that is too many.

    None also where it is too large beyond the largest count only: a density may be meant for zeros and ones alone.
    """
    if family.entry.support == "binomial":
        size = 1.0 if trials is None else trials
        return float(np.sum(_probabilities(family, eta, np.arange(size + 1) / size, trials)))
    count = FIRST
    while count <= LAST:
        found = _probabilities(family, eta, np.arange(count, dtype=float), None)
        if not found[-count // 10 :].sum() > TAIL or found.sum() > MUCH:
            beyond = found.sum() > 1 + TAIL >= found[: largest + 1].sum()
            return None if beyond else float(found.sum())
        count *= 10
    return None


def _probabilities(family: Distribution, eta: Array, y: Array, trials: float | None) -> Array:
    seen = Seen(y, None if trials is None else np.full(len(y), trials))
    columns = [np.full(len(y), value) for value in eta]
    with np.errstate(all="ignore"):
        return np.exp(np.asarray(log_density_of(family, seen, columns), dtype=float))
