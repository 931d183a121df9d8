"""Separation: a direction of the coefficients along which the likelihood rises for ever, found by linear programming.

For a binomial response a direction d separates if x'd >= 0 wherever every trial succeeded, <= 0 wherever none did, 0
elsewhere, and not 0 everywhere (Albert & Anderson 1984; Konis 2007). For counts with a log link: x'd = 0 where y > 0
and <= 0 where y = 0. For cumulative models, with thresholds alpha: P(y = j) = F(alpha_j - x'b) - F(alpha_(j-1) - x'b)
rises along (a, b) if a_j >= x'b >= a_(j-1) in every row, and not both are equalities in all of them. The probability
of extra zeros goes to its limit along z'd >= 0 where y = 0 and <= 0 where y > 0. Coefficients that are held or have a
prior stay where they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ranef.engines.constrained import anchored
from ranef.engines.estimate import Array
from ranef.engines.laplace import threshold_matrix
from ranef.families import ZERO as INFLATION
from ranef.frame.design import matrix
from ranef.predict.rows import fitted_design, linear_predictor

if TYPE_CHECKING:
    from ranef.frame import Design
    from ranef.model import Fit

FAR = 9.0  # a predictor beyond this makes an outcome of less than 1 in 8,000 certain: worth a look
LARGEST = 4_000_000  # entries of the program's matrix; beyond, looking would cost more than fitting did
ZERO = 1e-7


def separated(m: Fit) -> tuple[str, ...]:
    """Names of the columns whose estimates are infinite; empty for most. Looks only where the fit went far.

    Columns of components other than the mean are "zero_inflation.x".
    """
    if m.task.linear or m.design is None or m.call.penalty:
        return ()
    return tuple(name for component in _components(m) for name in _separated(m, component))


def _components(m: Fit) -> Iterator[int]:
    """Yield the components that can be separated and went far."""
    support = m.distribution.entry.support
    counts = support == "count" and m.link == "log" and not m.distribution.truncated
    if (support in ("binomial", "ordinal") or counts) and _went_far(m, 0):
        yield 0
    names = [c.name for c in m.layout.components]
    if INFLATION in names and support == "count" and _went_far(m, names.index(INFLATION)):
        yield names.index(INFLATION)


def _separated(m: Fit, component: int) -> list[str]:
    design, part = m.design, m.layout.components[component]
    assert design is not None
    x = matrix(design.components[component].fixed, m.layout.n)
    still = [j - part.first for j in anchored(design, m.task)]
    free = [j for j in range(x.shape[1]) if j not in still]
    x = x[:, free]
    if not x.size:
        return []
    if m.distribution.entry.ordinal:
        found = _ordinal_direction(m, x)
    else:
        found = direction(x, _inflation_signs(design) if component else signs(m))
    names = [part.names[free[j]] for j in found]
    return names if component == 0 else [f"{part.name}.{name}" for name in names]


def _went_far(m: Fit, component: int) -> bool:
    rows = fitted_design(m, "separation")
    eta = linear_predictor(m, rows, [False] * len(rows.terms), component)
    counts = m.distribution.entry.support == "count" and component == 0
    far = -eta if counts else np.abs(eta)
    beta = m.estimate.beta[m.layout.components[component].at]
    return bool(far.max(initial=0.0) > FAR or np.nanmax(np.abs(beta), initial=0.0) > FAR)


def signs(m: Fit) -> Array:
    """Return +1 where x'd may only be positive, -1 where only negative, 0 where it must vanish."""
    design: Design | None = m.design
    assert design is not None
    y = np.asarray(design.y)
    if m.distribution.entry.support == "count":
        return np.where(y > 0, 0.0, -1.0)
    return np.where(y <= 0, -1.0, np.where(y >= 1, 1.0, 0.0))


def _inflation_signs(design: Design) -> Array:
    return np.where(np.asarray(design.y) > 0, -1.0, 1.0)


def _ordinal_direction(m: Fit, x: Array) -> list[int]:
    """Return the columns of X that take part in a separating direction of thresholds and coefficients, or none."""
    assert m.design is not None
    cuts = threshold_matrix(len(m.design.categories), m.distribution.threshold)
    y, q = np.asarray(m.design.y, dtype=np.int64), cuts.shape[1]
    above, below = y < len(cuts), y > 0
    upper = np.column_stack([cuts[y[above]], -x[above]])
    lower = np.column_stack([-cuts[y[below] - 1], x[below]])
    found = direction(np.vstack([upper, lower]), np.ones(len(upper) + len(lower)))
    return [j - q for j in found if j >= q]


def direction(x: Array, sign: Array) -> list[int]:
    """Return the columns that take part in a separating direction of X, or none."""
    scale = np.maximum(np.abs(x).max(axis=0), np.finfo(float).tiny)
    rows = np.unique(np.column_stack([sign, x / scale]), axis=0)
    if rows.size > LARGEST:
        return []
    free, fixed = rows[rows[:, 0] != 0], rows[rows[:, 0] == 0]
    found = _program(free[:, 1:] * free[:, :1], fixed[:, 1:])
    columns = np.flatnonzero(np.abs(found) > ZERO)
    moving = [int(j) for j in columns if np.ptp(x[:, j]) > 0]
    return moving or [int(j) for j in columns]


def _program(inward: Array, level: Array) -> NDArray[np.float64]:
    """Return the direction that goes furthest inwards, in no row that must stay level; zeros if there is none."""
    from scipy.optimize import linprog

    none = np.zeros(inward.shape[1])
    if not len(inward):
        return none
    found = linprog(
        -inward.sum(axis=0),
        A_ub=-inward,
        b_ub=np.zeros(len(inward)),
        A_eq=level if len(level) else None,
        b_eq=np.zeros(len(level)) if len(level) else None,
        bounds=(-1, 1),
        method="highs",
    )
    gained = found.x is not None and float(inward.sum(axis=0) @ found.x) >= ZERO * len(inward)
    return np.asarray(found.x) if gained else none
