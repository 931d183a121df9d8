"""Separation: a direction of the coefficients along which the likelihood rises for ever, found by linear programming.

For a binomial response a direction d separates if x'd >= 0 wherever every trial succeeded, <= 0 wherever none did, 0
elsewhere, and not 0 everywhere (Albert & Anderson 1984; Konis 2007). For counts with a log link: x'd = 0 where y > 0
and <= 0 where y = 0; for counts above 0 the same with y = 1 in place of 0, and for a hurdle its zeros left out. The
probability of extra zeros goes to its limit along z'd >= 0 where y = 0 and <= 0 where y > 0. A family that a user wrote
says by its density which way each row's predictor would go; its columns are named only where the standard error says
the same. For categories d makes no observed category less likely: a row for each comparison of it with another one.
Coefficients that are held or have a prior stay where they are. A randomised response of probability c + d mu rises with
mu where d > 0 and falls where d < 0, so that the same directions separate it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ranef import _core
from ranef.engines.estimate import Array
from ranef.engines.laplace import absorbed
from ranef.engines.linear import sources
from ranef.engines.plan import anchored
from ranef.engines.thresholds import threshold_matrix
from ranef.families import ZERO as INFLATION
from ranef.families.links import Link, link_of
from ranef.frame.design import matrix

# Every fit asks whether it went far: what few of them need is imported when they do.
if TYPE_CHECKING:
    from ranef.model import Fit
    from ranef.predict.rows import Rows

FAR = 9.0  # a logit or log beyond this makes an outcome of less than 1 in 8,000 certain: worth a look
UNLIKELY = 1 / (1 + np.exp(FAR))  # that chance
ALIKE = 4  # rows of a kind, on average, from which on kinds are looked for
LARGEST = 4_000_000  # entries of the program's matrix; beyond, looking would cost more than fitting did
ZERO = 1e-7
REACH = 15.0  # a predictor's range within which a density shows where it goes
STEPS = 12  # Newton steps within which an overlap shows
CERTAIN = 1e-4  # a weight above this is none of rounding
NULL = 1e-12  # squared singular values below this share of the largest belong to the null space
FLAT = 1e-12  # log densities that differ by less do not fall
COUNTED = ("count", "nonnegative")


def separated(m: Fit) -> tuple[str, ...]:
    """Names of the columns whose estimates are infinite; empty for most. Looks only where the fit went far.

    Columns of components other than the mean are "zero_inflation.x".
    """
    if m.task.linear or m.design is None or m.call.penalty:
        return ()
    if m.distribution.categorical:
        return _among_categories(m) if _categories_went_far(m) else ()
    return tuple(name for component, sign in _components(m) for name in _separated(m, component, sign))


def _categories_went_far(m: Fit) -> bool:
    largest = float(np.fmax.reduce(np.abs(m.estimate.beta), initial=0.0))  # NaN where dropped
    low, high = _certain(m, 0)
    if m.layout.n * len(m.spec.categories) * len(m.estimate.beta) > LARGEST or largest <= min(-low, high):
        return False
    return largest > FAR or bool(np.min(np.asarray(m.predict(type="probs"))) < UNLIKELY)


def _certain(m: Fit, component: int) -> tuple[float, float]:
    """Return the predictors of a component beyond which outcomes are certain: of a probit nearer than of a logit."""
    return _ends(link_of(m.link) if component == 0 else m.distribution.link_of(m.layout.components[component].name))


@cache
def _ends(link: Link) -> tuple[float, float]:
    if link.legal != "unit":
        return -FAR, FAR
    return max(-FAR, float(link.forward(UNLIKELY))), min(FAR, float(link.forward(1 - UNLIKELY)))


def _among_categories(m: Fit) -> tuple[str, ...]:
    from ranef.inference.named import names_of

    assert m.design is not None
    rows, names = comparisons(m), names_of(m, "all")[0]
    still = {*anchored(m.design, m.task), *m.estimate.dropped}
    free = [j for j in range(rows.shape[1]) if j not in still]
    found = direction(rows[:, free], np.ones(len(rows)))
    cuts = m.layout.component("threshold").at if m.distribution.entry.ordinal else slice(0)
    thresholds = range(cuts.start or 0, cuts.stop)
    columns = [free[j] for j in found]
    # Thresholds go along with a coefficient that has no bound; alone they are a category without rows.
    named = [j for j in columns if j not in thresholds] or columns
    return tuple(names[j] for j in named)


def _components(m: Fit) -> Iterator[tuple[int, Array]]:
    """Yield the components that went far, with the signs of their rows."""
    design = m.design
    if design is None:
        return
    for component in range(len(m.layout.components)):
        if _can_be(m, component) and _went_far(m, component):
            yield component, _of_custom(m, component) if _is_own(m, component) else signs(m, component)


def _can_be(m: Fit, component: int) -> bool:
    """Whether the likelihood of some rows may rise for ever with a component's predictor."""
    family, name = m.distribution, m.layout.components[component].name
    if not m.layout.components[component].names:
        return False
    if component == 0 and family.custom is None:
        counts = family.entry.support in COUNTED and m.link == "log"
        return counts or family.entry.support == "binomial" or family.entry.name == "ordered_beta"
    return family.custom is not None or name in (INFLATION, *ENDS)


def _is_own(m: Fit, component: int) -> bool:
    return m.distribution.custom is not None and m.layout.components[component].name != INFLATION


def _separated(m: Fit, component: int, sign: Array) -> list[str]:
    design, part = m.design, m.layout.components[component]
    assert design is not None
    blocks, telling = design.components[component].fixed, ~np.isnan(sign)
    if _core.signs_are_mixed(sources(blocks), np.ascontiguousarray(sign), m.layout.n // ALIKE):
        return []  # with less work than it takes to write the columns out
    x = matrix(blocks, m.layout.n)
    apart = {*anchored(design, m.task), *m.estimate.dropped}
    free = [j for j in range(x.shape[1]) if j + part.first not in apart]
    x = x if len(free) == x.shape[1] else x[:, free]
    if not telling.all():
        x, sign = x[telling], sign[telling]
    if not x.size:
        return []
    found = direction(x, sign)
    if _is_own(m, component):
        found = [j for j in found if _vague(m, part.first + free[j], x[:, j])]
    names = [part.names[free[j]] for j in found]
    return names if component == 0 else [f"{part.name}.{name}" for name in names]


def _vague(m: Fit, j: int, column: Array) -> bool:
    """Whether a standard error leaves a predictor open over a range within which everything is certain."""
    error = float(np.sqrt(m.estimate.vcov[j, j])) * float(np.abs(column).max())
    return not error < FAR


def _went_far(m: Fit, component: int) -> bool:
    beta = m.estimate.beta[m.layout.components[component].at]
    if np.fmax.reduce(np.abs(beta), initial=0.0) > FAR:  # NaN where dropped
        return True
    (least, most), (low, high) = _reach(m, component), _certain(m, component)
    counts = m.distribution.entry.support in COUNTED and component == 0 and m.distribution.custom is None
    return least < low or (not counts and most > high)


def _reach(m: Fit, component: int) -> tuple[float, float]:
    """Return the smallest and the largest value of a component's predictor, without the random effects."""
    if m.estimate.reach:
        return m.estimate.reach[component]
    assert m.design is not None
    part = absorbed(m.design).components[component]
    beta = np.ascontiguousarray(m.estimate.beta[m.layout.components[component].at])
    eta = np.asarray(_core.linear_predictor(sources(part.fixed), beta, [], [], part.offset, m.layout.n))
    return float(eta.min(initial=0.0)), float(eta.max(initial=0.0))


def comparisons(m: Fit) -> Array:
    """Return rows r with r'beta >= 0 where a category is favoured over one that it is compared with, for all data."""
    from ranef.predict.rows import fitted_design

    rows, family = fitted_design(m, "separation"), m.distribution
    y, width = np.asarray(rows.y, np.int64), len(m.estimate.beta)
    parts = [_placed(matrix(c.fixed, rows.n), info.first, width)
             for c, info in zip(rows.components, m.layout.components, strict=False)]  # fmt: skip
    if family.entry.nominal:
        return _preferred([np.zeros((rows.n, width)), *parts], y)
    above = [parts[0] - cut for cut in _cuts(m, rows, width)]  # location minus threshold: towards higher categories
    if family.entry.name == "acat":
        sums = np.cumsum(above, axis=0)
        return _preferred([np.zeros((rows.n, width)), *sums], y)
    first = (lambda j: y == j + 1) if family.entry.name == "cumulative" else (lambda j: y > j)
    return np.vstack([part for j, step in enumerate(above) for part in (-step[y == j], step[first(j)])])


def _cuts(m: Fit, rows: Rows, width: int) -> list[Array]:
    """Return what the coefficients contribute to each threshold, (n, coefficients) each."""
    arrangement = threshold_matrix(m.distribution.categories, m.distribution.threshold)
    columns = np.column_stack([np.ones(rows.n), rows.nominal])
    first = m.layout.component("threshold").first
    return [_placed(np.einsum("ik,q->ikq", columns, t).reshape(rows.n, -1), first, width) for t in arrangement]


def _placed(x: Array, first: int, width: int) -> Array:
    out = np.zeros((len(x), width))
    out[:, first : first + x.shape[1]] = x
    return out


def _preferred(scores: Sequence[Array], y: Any) -> Array:
    own = np.stack(scores)[y, np.arange(len(y))]
    return np.vstack([(own - score)[y != k] for k, score in enumerate(scores)])


def signs(m: Fit, component: int = 0) -> Array:
    """Return +1 where x'd may only be positive, -1 where only negative, 0 where it must vanish, NaN where neither."""
    design, name = m.design, m.layout.components[component].name
    assert design is not None
    y = np.asarray(design.y)
    if name == INFLATION:
        return np.where(y != 0, -1.0, 1.0)
    if name in ENDS:
        return ENDS[name](y)
    if m.distribution.entry.support not in COUNTED:
        found = np.where(y <= 0, -1.0, np.where(y >= 1, 1.0, 0.0))
        return found if design.randomised is None else _behind(design.randomised[1], found)
    # What is likeliest as the mean goes to 0: no count, or of counts above 0 one; a hurdle's zeros tell nothing of it.
    least = 1.0 if m.distribution.truncated else 0.0
    found = np.where(y > least, 0.0, np.where(y < least, np.nan, -1.0))
    if design.censor is None:
        return found
    return np.where(design.censor == 0, found, np.where(design.censor == 2, 0.0, design.censor))


def _behind(slope: Array, found: Array) -> Array:
    """Return the signs behind randomised responses, of probability c + d mu: an answer rises with mu, or falls."""
    turned = np.sign(slope) * found
    return np.where(slope == 0, np.nan, turned)


def _of_custom(m: Fit, component: int) -> Array:
    """Return the signs of a family that a user wrote, from how its density goes along a wide range of the predictor."""
    from ranef.predict.rows import fitted_predictors, law

    rows, eta = fitted_predictors(m, "separation")
    own = eta[:, component]
    known = np.isfinite(own)
    low, high = (float(f(own[known])) if known.any() else 0.0 for f in (np.min, np.max))
    grid = np.linspace(max(low, -REACH) - REACH, min(high, REACH) + REACH, 33)
    values: list[Array] = []
    for step in grid:
        eta[:, component] = step
        with np.errstate(all="ignore"):
            values.append(law(m).density(eta, rows.data))
    found = np.column_stack(values)
    steps: Array = found[:, 1:] - found[:, :-1]
    usable = np.isfinite(steps)
    up = (~usable | (steps >= -FLAT)).all(axis=1) & usable.any(axis=1)
    down = (~usable | (steps <= FLAT)).all(axis=1) & usable.any(axis=1)
    return np.where(up & down, np.nan, np.where(up, 1.0, np.where(down, -1.0, 0.0)))


#: Signs of components other than the mean: a value at either end, and which end.
ENDS: dict[str, Callable[[Array], Array]] = {
    "zoi": lambda y: np.where((y == 0) | (y == 1), 1.0, -1.0),
    "coi": lambda y: np.where(y == 1, 1.0, np.where(y == 0, -1.0, np.nan)),
}


def direction(x: Array, sign: Array) -> list[int]:
    """Return the columns that take part in a separating direction of X, or none."""
    inward, level = _constraints(x, sign)
    if not len(inward) or inward.size + level.size > LARGEST or is_overlapped(inward, level):
        return []
    found = _program(inward, level)
    columns = np.flatnonzero(np.abs(found) > ZERO)
    moving = [int(j) for j in columns if np.ptp(x[:, j]) > 0]
    return moving or [int(j) for j in columns]


def _constraints(x: Array, sign: Array) -> tuple[Array, Array]:
    """Return rows r with r'd >= 0 and rows with r'd = 0, each once; a row of both signs is one of these."""
    first, which = _core.distinct_rows(np.ascontiguousarray(x))
    seen = np.zeros((3, len(first)), dtype=bool)
    seen[sign.astype(np.intp), which] = True
    flat, up, down = seen  # of signs 0, 1 and -1, the last
    level = flat | (up & down)
    rows = x[first] / np.maximum(np.abs(x[first]).max(axis=0), np.finfo(float).tiny)
    return np.where(up, 1.0, -1.0)[~level, None] * rows[~level], rows[level]


def is_overlapped(inward: Array, level: Array) -> bool:
    """Whether no direction of the level rows' null space goes inwards: a certificate that spares the linear program.

    By Stiemke's theorem there is none if and only if positive weights balance the inward rows. Those of a logistic
    regression of successes on them are positive at any d and balance them at its optimum, which Newton steps find
    quickly where it exists; weights that balance nearly are projected on those that do. Where that fails, nothing is
    said.
    """
    rows = inward @ _null_space(level) if len(level) else inward
    rows = rows[np.abs(rows).max(axis=1, initial=0.0) > ZERO]
    if not rows.size:
        return not len(rows)
    axes = _axes(rows)
    d = np.zeros(axes.shape[1])
    for _ in range(STEPS):
        eta = axes @ d
        if not np.abs(eta).max() < REACH:
            return False
        weight = 1 / (1 + np.exp(eta))
        own = _beside(_beside(weight, axes), axes)  # twice, as axes are orthogonal but for rounding errors
        if own.min() > CERTAIN and np.abs(rows.T @ own).max() < CERTAIN * ZERO:
            return True
        information = axes.T @ (axes * (weight * (1 - weight))[:, None])
        d = d + np.linalg.solve(information, axes.T @ weight)
    return False


def _beside(weight: Array, axes: Array) -> Array:
    """Return what is left of weights beside the space of some orthonormal columns."""
    return weight - axes @ (axes.T @ weight)


def _axes(rows: Array) -> Array:
    """Return orthonormal columns that span the same space."""
    spread, axes = np.linalg.eigh(rows.T @ rows)
    there = spread > len(spread) * np.finfo(float).eps * spread[-1]
    return rows @ (axes[:, there] / np.sqrt(spread[there]))


def _null_space(level: Array) -> Array:
    _, spread, axes = np.linalg.svd(level.T @ level)
    return np.ascontiguousarray(axes[spread <= NULL * max(float(spread[0]), 1.0)].T)


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
