"""Which way a predictor may go without end, and whether the rows keep every direction of the coefficients from it.

A predictor that goes towards its limit makes some outcomes likelier for ever (no success towards minus infinity under a
logit) and others impossible. Where a direction of the coefficients goes the right way in every row the outcome is
separated, and there is no finite estimate (Albert & Anderson 1984). `diagnose.separation` looks for such directions by
linear programming, unless the core found the solution of the dual program in the slopes where its search begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines.covariance import Array
from ranef.families import ZERO as INFLATION
from ranef.families.links import link_of

if TYPE_CHECKING:
    from ranef.engines.task import Task
    from ranef.families import Distribution
    from ranef.frame.design import Component, Design

Signs = tuple[tuple[float, float], ...]

COUNTED = ("count", "nonnegative")
BOUNDED = ("binomial", "unit", "closed_unit")
BELOW_ONE = float(np.nextafter(1.0, 0.0))
ALL = np.inf
UNKNOWN: Signs = ()  # of predictors about which responses alone do not tell

#: Of predictors other than the mean's: extra zeros; a value at either end, and which end.
OTHERS: dict[str, Signs] = {
    INFLATION: ((0.0, 1.0), (ALL, -1.0)),
    "zoi": ((0.0, 1.0), (BELOW_ONE, -1.0), (ALL, 1.0)),
    "coi": ((0.0, -1.0), (BELOW_ONE, np.nan), (ALL, 1.0)),
}


@dataclass(frozen=True, slots=True)
class Separated:
    """What a search for separation found.

    Attributes
    ----------
    names : tuple of str
        Columns whose estimates are infinite; those of components other than the mean are "zero_inflation.x".
    unsearched : tuple of str
        Columns that ran off, in data too large to look at them together.
    """

    names: tuple[str, ...] = ()
    unsearched: tuple[str, ...] = ()


def signs(family: Distribution, name: str, position: int, censored: bool = False) -> Signs | None:
    """Return which way the predictor of a row may go without end, by its response; None if none of the rows may.

    Parameters
    ----------
    family : Distribution
        Neither of categories nor made by a user.
    name : str
        Of the component.
    position : int
        Of the component; 0: the mean.
    censored : bool
        Whether some rows are: a density holds the mean of observed ones, which a bound need not.

    Returns
    -------
    tuple of (float, float), or None
        Response up to which a sign holds, and the sign: +1 where the predictor may only rise, -1 where only fall, 0
        where it must stay, NaN where the row says nothing of it. The first that fits a response is meant.
    """
    found = OTHERS.get(name) if position else _of_mean(family)
    return ((ALL, 0.0),) if found is None and censored and any(of_bounds(family, name, position)) else found


def _of_mean(family: Distribution) -> Signs | None:
    link, support = link_of(family.link), family.entry.support
    zero, one = float(link.zero), float(link.one)
    if support in COUNTED:
        # What is likeliest as the mean goes to 0: no count, or of counts above 0 one; a hurdle's zeros do not matter.
        before: Signs = ((0.0, np.nan), (1.0, zero)) if family.truncated else ((0.0, zero),)
        return (*before, (ALL, 0.0)) if zero else None
    known = support == "binomial" or family.entry.name == "ordered_beta"
    return ((0.0, zero), (BELOW_ONE, 0.0), (ALL, one)) if known and zero else None


def of_bounds(family: Distribution, name: str, position: int) -> tuple[float, float]:
    """Return the signs of rows known to lie below a bound, and above one; below it there may be an extra zero."""
    if position:
        return (1.0, -1.0) if name == INFLATION else (0.0, 0.0)
    link, support = link_of(family.link), family.entry.support
    if link.legal == "any":
        # A mean without a sign has no end below; those from 0 to 1 end at finite predictors.
        return (-1.0 if support == "real" else 0.0), (0.0 if support in BOUNDED else 1.0)
    zero = float(link.zero)
    return zero, max(-zero, 0.0)  # at an infinite predictor, too, unless that is where the mean is 0


def applied(found: Signs, y: Array) -> Array:
    """Return the sign of every response."""
    out = np.full(len(y), found[-1][1])
    for upto, sign in reversed(found[:-1]):
        out[y <= upto] = sign
    return out


def of_predictors(design: Design, family: Distribution, parts: Sequence[Component]) -> list[Signs | None]:
    """Return the signs of each predictor."""
    censored = design.censor is not None
    found = [signs(family, part.name, k, censored) if part.names else None for k, part in enumerate(parts)]
    if censored:
        return [s and UNKNOWN for s in found]
    if design.randomised is not None or design.bounds is not None:
        found[0] = found[0] and UNKNOWN
    return found


def begun(core: Any, start: Any, task: Task, found: Sequence[Signs | None] | None) -> bool:
    """Let the core find where its search begins; tell whether separation is ruled out there.

    Parameters
    ----------
    core : Glmm
    start : dict or None
        As for its search.
    task : Task
    found : list or None
        The signs of each predictor; None for categories, which the core knows.
    """
    if found is None:
        return all(core.begin([], start, task.quadrature, task.method))
    if all(s is None for s in found):
        return True
    balanced = core.begin(found, start, task.quadrature, task.method)
    return all(b or s is None for s, b in zip(found, balanced, strict=True))
