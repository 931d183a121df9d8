"""Where to search again where extra zeros are none, or gain little: the likelihood may have another optimum with some.

It is flat where no row has extra zeros, and what leads away from there may be zeros of a few rows alone (those with
small x), which the usual start, equal for all rows, does not show. Where the zeros of the response lie shows it, or a
start where rows at one end of a column have extra zeros and the others have none: a step. Such an optimum is little
above that of the model without extra zeros, so that there is none to look for where the first one is far above it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef import _core
from ranef.engines.covariance import Array
from ranef.engines.runaways import LIMIT, NO_IDEA
from ranef.families.links import link_of
from ranef.frame.design import matrix, part_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ranef.families import Distribution
    from ranef.frame.design import Component, Design, GroupTerm

NAME = "zero_inflation"
STEPS = 8  # of Newton's method: a start needs no more digits
LITTLE = 1e-3  # information that keeps coefficients finite where the zeros are separated
STEEPEST = 30.0  # predictor beyond which a probability is 0 or 1
MODERATE = -1.0  # predictor of a probability that is neither small nor large
LOW, STEEP = -8.0, 5.0  # predictor of a usual row where a column steps, and its slope: next to none, but at one end
SETTLED = ("converged", "flat_mode")  # how a search ends that others may surpass
GAINED = 6.0  # log-likelihood that extra zeros gain; of 41 lower ends in 1,782 simulated sets 37 gained less
OF_SIZE = 2.0  # standard errors that are of the size of a coefficient, in its units
MANY = 20_000  # rows from which no other optimum is looked for but where a search ended at none
#: Dispersions by which counts are hardly more spread than a Poisson's.
NEAR_POISSON = {"nbinom1": 0.4, "nbinom2": 7.0, "genpois": 1.2, "compois": 1.2}
AT_ONCE = (30.0, 100.0)  # and that is lost without them, all else unchanged: never less; without a dispersion, with one


def none(record: Any, parts: Sequence[Component]) -> bool:
    """Tell whether a search ended without extra zeros in any row."""
    at, _ = place(parts)
    return at is not None and record["reach"][at][1] < -LIMIT


def most_lost(record: Any, parts: Sequence[Component], design: Design, family: Distribution) -> float:
    """Return the log-likelihood that may be lost without extra zeros where there may be another optimum with some.

    None of it where there is none: a probability that is the same for all rows has no other to show, as nothing
    distinguishes the rows, nor has one of factors alone, but where a search ended at none, or where groups and a
    dispersion may explain the zeros; there less is asked of what takes longer.
    """
    at, own = place(parts)
    if at is None or record["outcome"] not in SETTLED or not (np.asarray(design.y) == 0).any():
        return 0.0
    effects = any(at in t.owner_of for t in design.terms)
    traded = bool(design.terms) and family.entry.name in NEAR_POISSON
    if none(record, parts):
        return np.inf if own.stop - own.start > 1 or effects or traded else 0.0
    if design.n > MANY:
        return 0.0
    if effects or any(block.x is not None for block in parts[at].fixed):
        return AT_ONCE["dispersion" in family.parameters]
    return AT_ONCE[False] if traded else 0.0


def starts(record: Any, parts: Sequence[Component], design: Design, family: Distribution) -> Iterator[dict[str, Any]]:
    """Return starts for other searches: the zeros of the response, as many in all rows, steps of numeric columns.

    The first are exact where there are random effects: without these a dispersion explains the zeros as well, and to
    better the coefficients first would lead back to where there are few extra ones. Once the dispersion is left nearly
    none of them.
    """
    at, own = place(parts)
    beta = np.array(record["beta"])
    if at is None:
        return
    theta, usual = np.asarray(record["theta"]), of_zeros(parts[at], design)
    if none(record, parts):
        beta[own] = usual
        yield {"beta": beta.copy(), "theta": theta}
    begin, little = np.clip(beta, -STEEPEST, STEEPEST), nearly_poisson(parts, family)
    exact = [(begin, usual), (begin, of_all(parts[at], design))] if len(theta) else []
    if len(theta) and little is not None:
        exact.append((np.where(np.isnan(little), begin, little), usual))
    for others, extra in exact:
        yield {"beta": np.concatenate([others[: own.start], extra, others[own.stop :]]), "theta": theta, "exact": True}
    for step in steps(parts[at], design):
        beta[own] = step
        yield {"beta": beta.copy()}


def steps(part: Component, design: Design) -> Iterator[Array]:
    """Return coefficients by which one end of a numeric column has extra zeros, and the rest of the rows has none."""
    x = matrix(part.fixed, design.n)
    offset = 0.0 if part.offset is None else part.offset
    numeric = [block.x is not None for block in part.fixed for _ in block.names]
    for column in x.T[numeric]:
        spread = column.std()
        for slope in (STEEP, -STEEP) if spread > 0 else ():
            yield np.linalg.lstsq(x, LOW + slope * (column - column.mean()) / spread - offset, rcond=None)[0]


def lost_at_once(eta: Array, family: Distribution, data: dict[str, Any], rows: Array | None) -> float:
    """Return the log-likelihood lost where extra zeros, the last predictor, are taken away and nothing else changes.

    Infinite or NaN where the family has no zeros of its own.
    """
    without = replace(family, zero_inflation=False)
    both = ((family, eta), (without, eta[:, :-1]))
    log = [np.asarray(_core.family_eval(f.spec, data, np.ascontiguousarray(e), 0))[:, 0] for f, e in both]
    with np.errstate(invalid="ignore"):
        lost = log[0] - log[1]
        return float(np.sum(lost if rows is None else rows * lost))


def without_any(design: Design) -> Design:
    """Return the design of the model without extra zeros."""
    at = len(design.others)
    terms = [_without(term, at) for term in design.terms]
    return replace(design, others=design.others[:-1], terms=tuple(t for t in terms if t is not None))


def _without(term: GroupTerm, component: int) -> GroupTerm | None:
    """Return the part of a term that enters other predictors than this; the first of them, where it must be cut."""
    others = [owner for owner in term.owner_of if owner != component]
    return term if len(others) == len(term.names) else part_of(term, others[0])[0] if others else None


def place(parts: Sequence[Component]) -> tuple[int | None, slice]:
    """Return which predictor is that of the extra zeros, if any, and where its coefficients are."""
    at = next((k for k, part in enumerate(parts) if part.name == NAME), None)
    first = sum(len(part.names) for part in parts[:at])
    return at, slice(first, first + (0 if at is None else len(parts[at].names)))


def known(beta: Array, vcov: Array, parts: Sequence[Component]) -> bool:
    """Tell whether an optimum is one inside: to be certain of zeros at one end of a covariate always gains a bit.

    There standard errors are many times the coefficients; where it is steep and no more, they are of their size.
    """
    own = place(parts)[1]
    return bool(np.all(np.sqrt(np.diag(vcov)[own]) < np.maximum(NO_IDEA, OF_SIZE * np.abs(beta[own]))))


def nearly_poisson(parts: Sequence[Component], family: Distribution) -> Array | None:
    """Return the dispersion's coefficients next to a Poisson's, NaN for the others; None for families without one."""
    value = NEAR_POISSON.get(family.entry.name)
    if value is None or not parts[1].names:
        return None
    found = [np.full(len(part.names), np.nan) for part in parts]
    found[1] = np.where(np.asarray(parts[1].names) == "(Intercept)", link_of(family.links[1]).forward(value), 0.0)
    return np.concatenate(found)


def of_all(part: Component, design: Design) -> Array:
    """Return the coefficients of a moderate probability of extra zeros that is the same in all rows."""
    offset = np.zeros(design.n) if part.offset is None else part.offset
    return np.asarray(np.linalg.lstsq(matrix(part.fixed, design.n), MODERATE - offset, rcond=None)[0], np.float64)


def of_zeros(part: Component, design: Design) -> Array:
    """Return the coefficients of a logistic regression of whether the response is 0."""
    x = matrix(part.fixed, design.n)
    zero = np.asarray(design.y) == 0
    rows = np.ones(design.n) if design.frequencies is None else np.asarray(design.frequencies)
    offset = np.zeros(design.n) if part.offset is None else part.offset
    beta = np.zeros(x.shape[1])
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ beta + offset, -STEEPEST, STEEPEST)))
        information = x.T @ (x * (rows * p * (1 - p))[:, None])
        information[np.diag_indices_from(information)] *= 1 + LITTLE
        beta += np.linalg.lstsq(information, x.T @ (rows * (zero - p)), rcond=None)[0]
    return beta
