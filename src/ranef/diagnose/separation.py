"""Separation: a direction of the coefficients along which the likelihood rises for ever, found by linear programming.

For a binomial response a direction d separates if x'd >= 0 wherever every trial succeeded, <= 0 wherever none did, 0
elsewhere, and not 0 everywhere (Albert & Anderson 1984; Konis 2007). For counts with a link that takes a mean to 0 at
minus infinity only (log, softplus): x'd = 0 where y > 0 and <= 0 where y = 0, and >= 0 there if it is at plus infinity
(inverse); for counts above 0 the same with y = 1 in place of 0, and for a hurdle its zeros left out. Where a finite
predictor has a mean of 0 or 1 (identity, sqrt, the log of a probability of 1) nothing is infinite at that end. The
probability of extra zeros goes to its limit along z'd >= 0 where y = 0 and <= 0 where y > 0. The mean of a censored row
may go beyond the bound without end, and that of an observed one stays where the response is a density's. A family that
a user wrote says by its density which way each row's predictor would go; its columns are named only where the standard
error says the same. For categories d makes no observed category less likely: a row for each comparison of it with
another one.
Where the program of all columns is too large, it is that of those whose standard errors ran off too, as those of a
separating direction do: a level of one outcome is found in data of any size. If even that is too large, columns are
looked at block by block, and what was not looked at together is said to be so.
Coefficients that are held or have a prior stay where they are. A randomised response of probability c + d mu rises with
mu where d > 0 and falls where d < 0, so that the same directions separate it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ranef import _core
from ranef.diagnose.directions import LARGEST, direction
from ranef.engines.estimate import Array, Lost
from ranef.engines.laplace import absorbed
from ranef.engines.linear import sources
from ranef.engines.overlap import COUNTED, Separated, Signs, applied, of_bounds
from ranef.engines.overlap import signs as signs_of
from ranef.engines.plan import anchored, make_plan
from ranef.engines.thresholds import threshold_matrix
from ranef.families import ZERO as INFLATION
from ranef.families.links import Link, link_of
from ranef.frame.design import matrix
from ranef.inference.outcomes import of_outcomes

# Every fit asks whether it went far: what few of them need is imported when they do.
if TYPE_CHECKING:
    from ranef.engines.task import Task
    from ranef.frame import Design
    from ranef.model import Fit

FAR = 9.0  # a logit or log beyond this makes an outcome of less than 1 in 8,000 certain: worth a look
UNLIKELY = 1 / (1 + np.exp(FAR))  # that chance
ALIKE = 4  # rows of a kind, on average, from which on kinds are looked for
QUICK = 1_000_000  # entries of X in which separation is looked for without the search having gone far
REACH = 15.0  # a predictor's range within which a density shows where it goes
FLAT = 1e-12  # log densities that differ by less do not fall
SCALE = "scale"  # the component of an ordinal model's log scale


def separated(m: Fit) -> Separated:
    """Return the columns with infinite estimates: those that the data tell, found before the search, and others."""
    known = m.estimate.separated
    if m.task.linear or m.design is None or m.call.penalty:
        return known or Separated()
    family = m.distribution
    if known is not None and family.custom is None and not family.categorical:
        return known
    found = [by_data(m) if known is None else known]
    if family.categorical:
        found.append(Separated(_of_scale(of_outcomes(m))))
    found += [_separated(m, k, _of_custom(m, k)) for k in _own_components(m) if _went_far(m, k)]
    return _together(found)


def before(m: Fit) -> Separated | None:
    """Return what the data tell before a search; None where they are too large to look at them without a cause."""
    return None if _is_large(m) else by_data(m)


def by_data(m: Fit) -> Separated:
    """Search the predictors of whose rows the responses tell which way they may go; large data where a fit went far."""
    unless = _is_large(m)
    if m.distribution.categorical:
        m = of_outcomes(m)
        return Separated() if unless and not _categories_went_far(m) else _among_categories(m)
    if m.design is None or (m.distribution.custom is not None and not m.distribution.zero_inflation):
        return Separated()
    parts = [k for k, part in enumerate(m.layout.components) if part.names and not _is_own(m, k)]
    told = [k for k in parts if _told(m, k) is not None]
    return _together([_separated(m, k, signs(m, k)) for k in told if not unless or _went_far(m, k)])


def _told(m: Fit, component: int) -> Signs | None:
    censored = m.design is not None and m.design.censor is not None
    return signs_of(m.distribution, m.layout.components[component].name, component, censored)


def _together(found: Sequence[Separated]) -> Separated:
    return Separated(tuple(n for one in found for n in one.names), tuple(n for one in found for n in one.unsearched))


def _is_large(m: Fit) -> bool:
    return m.layout.n * len(m.estimate.beta) * max(1, len(m.spec.categories)) > LARGEST


def unsearched(m: Fit) -> tuple[str, ...]:
    """Names of columns that ran off, in data too large to look at them together; empty for most."""
    return separated(m).unsearched if _is_large(m) else ()


def _is_stuck(m: Fit) -> bool:
    """Whether a search ended at no optimum, in data that are quickly looked at, so that it need not have gone far."""
    return not m.converged and m.layout.n * len(m.estimate.beta) <= QUICK


def _categories_went_far(m: Fit) -> bool:
    if _is_stuck(m):
        return True
    largest = float(np.fmax.reduce(np.abs(m.estimate.beta), initial=0.0))  # NaN where dropped
    low, high = certain(m, 0)
    if largest <= min(-low, high):
        return False
    return largest > FAR or bool(np.min(np.asarray(m.predict(type="probs"))) < UNLIKELY)


def certain(m: Fit, component: int) -> tuple[float, float]:
    """Return the predictors of a component beyond which outcomes are certain: of a probit nearer than of a logit."""
    return _ends(_link(m, component))


def _link(m: Fit, component: int) -> Link:
    return link_of(m.link) if component == 0 else m.distribution.link_of(m.layout.components[component].name)


@cache
def _ends(link: Link) -> tuple[float, float]:
    if link.legal != "unit":
        return -FAR, FAR
    return max(-FAR, float(link.forward(UNLIKELY))), min(FAR, float(link.forward(1 - UNLIKELY)))


def _tied(design: Design, task: Task) -> NDArray[np.int64] | None:
    """Return a number for each coefficient, the same for those that are equal; None where all are their own."""
    if task.wishes is None or not task.wishes.equal:
        return None
    return make_plan(design, task).columns.to


def _direction(x: Array, sign: Array, tied: NDArray[np.int64] | None) -> list[int] | None:
    """Return the columns of a separating direction, of which those that are tied go the same way."""
    if tied is None:
        return direction(x, sign)
    kinds = np.unique(tied)
    found = direction(np.column_stack([x[:, tied == k].sum(axis=1) for k in kinds]), sign)
    return None if found is None else np.flatnonzero(np.isin(tied, kinds[found])).tolist()


def _among_categories(m: Fit) -> Separated:
    from ranef.inference.named import names_of

    design = m.design
    assert design is not None
    still = {*anchored(design, m.task), *m.estimate.dropped}
    free = [j for j in range(len(m.estimate.beta)) if j not in still]
    cuts = m.layout.component("threshold").at if m.distribution.entry.ordinal else slice(0)
    thresholds = range(cuts.start or 0, cuts.stop)

    def blocks() -> Iterator[list[int]]:
        for component, part in enumerate(design.components):
            yield from ([*_columns(m, component, k), *thresholds] for k in range(len(part.fixed)))

    tied = _tied(design, m.task)

    def among(columns: Sequence[int]) -> list[int] | None:
        if m.layout.n * len(m.spec.categories) * len(columns) > LARGEST and len(columns) == len(free):
            return None
        rows = comparisons(m, columns)[:, columns]
        return _direction(rows, np.ones(len(rows)), tied if tied is None else tied[list(columns)])

    columns, left = _looked(among, free, lambda: _vague(m, free), blocks)
    # Thresholds go along with a coefficient that has no bound; alone they are a category without rows.
    named = [j for j in columns if j not in thresholds] or columns
    names = names_of(m, "all")[0]
    return Separated(tuple(names[j] for j in named), tuple(names[j] for j in left if j not in thresholds))


def _of_scale(m: Fit) -> tuple[str, ...]:
    """Return the columns of an ordinal model's log scale that ran off.

    A scale goes to 0 along z'd <= 0 where the category is certain, as its predictor lies between its thresholds, and 0
    elsewhere. It grows for ever along z'd >= 0 where the category is the first or the last, and 0 elsewhere.
    """
    at = next((k for k, part in enumerate(m.layout.components) if part.name == SCALE and part.names), None)
    if at is None or m.design is None or isinstance(m.estimate, Lost) or not _went_far(m, at):
        return ()
    part, x = m.layout.components[at], matrix(m.design.components[at].fixed, m.layout.n)
    still = {*anchored(m.design, m.task), *m.estimate.dropped}
    moved = np.abs(m.estimate.beta[part.at]) * np.abs(x).max(axis=0)
    far = [j for j in range(x.shape[1])
           if j + part.first not in still and (moved[j] > FAR or _is_vague(m, j + part.first, x[:, j]))]  # fmt: skip
    y = np.asarray(m.design.y, np.int64)
    own = np.asarray(m.predict(type="probs"))[np.arange(len(y)), y]
    signs = (np.where(own > 1 - UNLIKELY, -1.0, 0.0), np.where((y == 0) | (y == y.max()), 1.0, 0.0))
    found = {far[k] for sign in signs if far for k in direction(x[:, far], sign) or ()}
    return tuple(f"{part.name}.{part.names[j]}" for j in sorted(found))


def _looked(
    among: Callable[[Sequence[int]], list[int] | None],
    free: Sequence[int],
    vague: Callable[[], list[int]],
    blocks: Callable[[], Iterable[Sequence[int]]],
) -> tuple[list[int], list[int]]:
    """Return the columns of a separating direction, and those that could not be looked at together.

    Parameters
    ----------
    among : function
        Some columns to the positions among them that a direction of theirs has; None where there are too many rows.
    free : list of int
        The columns that may move.
    vague : function
        Those of them whose standard errors ran off.
    blocks : function
        Columns that are looked at together if it cannot be all.
    """
    if (found := among(free)) is not None:
        return [free[j] for j in found], []
    far = vague()
    if (found := among(far) if far else []) is not None:
        return [far[j] for j in found], []
    alone: set[int] = set()
    for block in blocks():
        columns = [j for j in far if j in block]
        alone.update(columns[j] for j in (among(columns) if columns else None) or ())
    return sorted(alone), [j for j in far if j not in alone]


def _own_components(m: Fit) -> list[int]:
    """Return the predictors whose rows only a user's density tells about, which is asked beside the estimate."""
    if isinstance(m.estimate, Lost):
        return []
    return [k for k, part in enumerate(m.layout.components) if part.names and _is_own(m, k)]


def _is_own(m: Fit, component: int) -> bool:
    return m.distribution.custom is not None and m.layout.components[component].name != INFLATION


def _separated(m: Fit, component: int, sign: Array) -> Separated:
    design, part = m.design, m.layout.components[component]
    assert design is not None
    blocks, telling = design.components[component].fixed, ~np.isnan(sign)
    if _core.signs_are_mixed(sources(blocks), np.ascontiguousarray(sign), m.layout.n // ALIKE):
        return Separated()  # with less work than it takes to write the columns out
    x = matrix(blocks, m.layout.n)
    apart = {*anchored(design, m.task), *m.estimate.dropped}
    free = [j for j in range(x.shape[1]) if j + part.first not in apart]
    if not telling.all():
        x, sign = x[telling], sign[telling]
    if not free or not x.size:
        return Separated()
    vague = cache(lambda: [j for j in free if _is_vague(m, j + part.first, x[:, j])])

    tied = _tied(design, m.task)

    def among(columns: Sequence[int]) -> list[int] | None:
        own = tied if tied is None else tied[[j + part.first for j in columns]]
        return _direction(x if len(columns) == x.shape[1] else x[:, columns], sign, own)

    def together() -> Iterator[list[int]]:
        constant = [j for j in free if np.ptp(x[:, j]) == 0]
        yield from ([*(j - part.first for j in _columns(m, component, k)), *constant] for k in range(len(blocks)))

    found, left = _looked(among, free, vague, together)
    if _is_own(m, component):
        found = [j for j in found if j in vague()]
    before = "" if component == 0 else f"{part.name}."
    return Separated(*(tuple(before + part.names[j] for j in columns) for columns in (found, left)))


def _columns(m: Fit, component: int, block: int) -> range:
    """Return the positions of a block's columns among all coefficients."""
    assert m.design is not None
    blocks = m.design.components[component].fixed
    first = m.layout.components[component].first + sum(len(b.names) for b in blocks[:block])
    return range(first, first + len(blocks[block].names))


def _vague(m: Fit, free: Sequence[int]) -> list[int]:
    design, columns = m.design, dict[int, Array]()
    assert design is not None
    for component, part in zip(design.components, m.layout.components, strict=False):
        columns.update(enumerate(matrix(component.fixed, m.layout.n).T, part.first))
    return [j for j in free if _is_vague(m, j, columns.get(j, np.ones(1)))]


def _is_vague(m: Fit, j: int, column: Array) -> bool:
    """Whether a standard error leaves a predictor open over a range within which everything is certain."""
    error = float(np.sqrt(m.estimate.vcov[j, j])) * float(np.abs(column).max())
    return not error < FAR


def _went_far(m: Fit, component: int) -> bool:
    if _is_stuck(m) or _is_censored_mean(m, component):
        return True
    beta = m.estimate.beta[m.layout.components[component].at]
    if np.fmax.reduce(np.abs(beta), initial=0.0) > FAR:  # NaN where dropped
        return True
    (least, most), (low, high) = _reach(m, component), certain(m, component)
    below, above = least < low, most > high
    if m.distribution.entry.support in COUNTED and component == 0 and m.distribution.custom is None:
        return above if link_of(m.link).zero > 0 else below  # towards large counts nothing is certain
    return below or above


def _is_censored_mean(m: Fit, component: int) -> bool:
    """Whether it depends on the dispersion how far from its bound a row is certain to lie beyond it."""
    return component == 0 and m.design is not None and m.design.censor is not None


def _reach(m: Fit, component: int) -> tuple[float, float]:
    """Return the smallest and the largest value of a component's predictor, without the random effects."""
    if m.estimate.reach:
        return m.estimate.reach[component]
    assert m.design is not None
    part = absorbed(m.design).components[component]
    beta = np.ascontiguousarray(m.estimate.beta[m.layout.components[component].at])
    eta = np.asarray(_core.linear_predictor(sources(part.fixed), beta, [], [], part.offset, m.layout.n))
    return float(eta.min(initial=0.0)), float(eta.max(initial=0.0))


def comparisons(m: Fit, columns: Sequence[int]) -> Array:
    """Return rows r with r'beta >= 0 where a category is favoured over one that it is compared with, for all data.

    Rows that are alike in `columns` and in the response come once; other columns hold nothing to go by.
    """
    from ranef.predict.rows import fitted_design

    rows, family = fitted_design(m, "separation"), m.distribution
    moves = np.isin(np.arange(len(m.estimate.beta)), columns)
    parts = [np.where(moves[info.at], matrix(c.fixed, rows.n), 0.0)
             for c, info in zip(rows.components, m.layout.components, strict=False)]  # fmt: skip
    by_cut = np.column_stack([np.ones(rows.n), rows.nominal])
    if family.entry.ordinal:
        cuts = moves[m.layout.component("threshold").at].reshape(by_cut.shape[1], -1)
        by_cut = np.where(cuts.any(axis=1), by_cut, 0.0)
    kinds = np.column_stack([*parts, by_cut, np.asarray(rows.y, float)])
    first = _core.distinct_rows(np.ascontiguousarray(kinds))[0]
    placed = [_placed(part[first], info.first, len(moves))
              for part, info in zip(parts, m.layout.components, strict=False)]  # fmt: skip
    y = np.asarray(rows.y, np.int64)[first]
    if family.entry.nominal:
        return _preferred([np.zeros((len(y), len(moves))), *placed], y)
    # Location minus threshold: towards higher categories.
    above = [placed[0] - cut for cut in _cuts(m, by_cut[first], len(moves))]
    if family.entry.name == "acat":
        sums = np.cumsum(above, axis=0)
        return _preferred([np.zeros((len(y), len(moves))), *sums], y)
    higher = (lambda j: y == j + 1) if family.entry.name == "cumulative" else (lambda j: y > j)
    return np.vstack([part for j, step in enumerate(above) for part in (-step[y == j], step[higher(j)])])


def _cuts(m: Fit, by_cut: Array, width: int) -> list[Array]:
    """Return what the coefficients contribute to each threshold, (n, coefficients) each."""
    arrangement = threshold_matrix(m.distribution.categories, m.distribution.threshold)
    first, n = m.layout.component("threshold").first, len(by_cut)
    return [_placed(np.einsum("ik,q->ikq", by_cut, t).reshape(n, -1), first, width) for t in arrangement]


def _placed(x: Array, first: int, width: int) -> Array:
    out = np.zeros((len(x), width))
    out[:, first : first + x.shape[1]] = x
    return out


def _preferred(scores: Sequence[Array], y: Any) -> Array:
    own = np.stack(scores)[y, np.arange(len(y))]
    return np.vstack([(own - score)[y != k] for k, score in enumerate(scores)])


def signs(m: Fit, component: int = 0) -> Array:
    """Return +1 where x'd may only be positive, -1 where only negative, 0 where it must vanish, NaN where neither."""
    design, found = m.design, _told(m, component)
    assert design is not None
    if found is None:  # no row may go anywhere without end
        return np.zeros(m.layout.n)
    counted = m.distribution.entry.support in COUNTED
    sign = _within(m, component) if counted and design.bounds is not None else applied(found, np.asarray(design.y))
    if design.trials is not None and not component:
        sign[np.asarray(design.trials) == 0] = np.nan
    if design.randomised is not None and not component:
        return _behind(design.randomised[1], sign)
    if design.censor is None:
        return sign
    low, high = of_bounds(m.distribution, m.layout.components[component].name, component)
    return np.select([design.censor == 0, design.censor == -1, design.censor == 1], [sign, low, high], 0.0)


def _within(m: Fit, component: int) -> Array:
    """Return the signs of counts truncated to bounds of their own: each is the least or the most that there may be."""
    assert m.design is not None
    assert m.design.bounds is not None
    y, (least, most) = np.asarray(m.design.y), m.design.bounds.T
    low, high = of_bounds(m.distribution, m.layout.components[component].name, component)
    return np.where(y > np.maximum(least, 0.0), np.where(y >= most, high, 0.0), np.where(y < least, np.nan, low))


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
    grid = np.linspace(*_span(low, high, _link(m, component)), 33)
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


def _span(low: float, high: float, link: Link) -> tuple[float, float]:
    """Return a range of the predictor within which every row's density shows its maximum, if it has one.

    Under a logit or a log all is decided near 0, and far out nothing can be computed; an identity has the scale of the
    response.
    """
    if link.legal == "unit" or link.name == "log":
        low, high = np.clip([low, high], -REACH, REACH)
        return low - REACH, high + REACH
    wide = max(REACH, abs(low), abs(high))
    return low - wide, high + wide
