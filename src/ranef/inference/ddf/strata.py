"""Which fixed effects vary within the groups of which level, for the rules that count degrees of freedom."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ranef.errors import NotAvailableError
from ranef.frame.design import Array, Indicators
from ranef.inference.ddf.method import kept, rows_counted
from ranef.inference.memory import remembered
from ranef.inference.terms import FixedTerm, fixed_terms
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.frame import Block, GroupTerm
    from ranef.model import Fit

ROUNDING = 1e-10  # weights below this share of a hypothesis' largest are zero


@dataclass(frozen=True, slots=True)
class Strata:
    """Nested groupings, the coarsest first, and where the terms of the mean stand.

    Attributes
    ----------
    labels : tuple of str
        Grouping factors; residual rows are the stratum after the last.
    sizes : tuple of float
        Numbers of groups, then of the rows that the rows stand for.
    terms : tuple of FixedTerm
    at : tuple of int
        For each term the first stratum within whose groups it does not vary: 0 for the coarsest grouping,
        `len(labels)` where it varies within all; the intercept's is 0.
    """

    labels: tuple[str, ...]
    sizes: tuple[float, ...]
    terms: tuple[FixedTerm, ...]
    at: tuple[int, ...]


@remembered
def strata(m: Fit) -> Strata:
    """Return the strata of a fit.

    Raises
    ------
    NotAvailableError
        If the groupings are not nested in each other, or the fit is slim.
    """
    design = design_of(m, "degrees of freedom by strata")
    groups = nested([t for t in design.terms if t.component == 0 and len(t.levels) > 1])
    terms = fixed_terms(m, "mean")
    at = tuple(_stratum(term.pick(design.fixed), groups) for term in terms)
    sizes = (*(float(len(g.levels)) for g in groups), rows_counted(m))
    return Strata(tuple(g.label for g in groups), sizes, terms, at)


def nested(terms: list[GroupTerm]) -> list[GroupTerm]:
    """Return one term per grouping, the coarsest first.

    Raises
    ------
    NotAvailableError
        If two groupings are crossed.
    """
    groups = sorted({t.label: t for t in terms}.values(), key=lambda t: len(t.levels))
    for outer, inner in pairwise(groups):
        if not constant_within(inner, np.asarray(outer.codes)):
            raise NotAvailableError(
                f"rules that count degrees of freedom by strata need nested groupings, and {outer.label!r} and "
                f"{inner.label!r} are crossed: use ddf='kenward-roger' or 'satterthwaite'"
            )
    return [g for i, g in enumerate(groups) if not i or len(g.levels) > len(groups[i - 1].levels)]


def constant_within(group: GroupTerm, x: Array) -> bool:
    """Whether x has one value in every group."""
    first = np.zeros(len(group.levels), dtype=x.dtype)
    first[group.codes] = x
    return bool((first[group.codes] == x).all())


def _stratum(blocks: list[Block], groups: list[GroupTerm]) -> int:
    return next((i for i, g in enumerate(groups) if all(is_constant(b, g) for b in blocks)), len(groups))


def is_constant(block: Block, group: GroupTerm) -> bool:
    """Whether every column of a block is constant within the groups."""
    if block.codes is None or block.contrast is None:
        return block.x is None or constant_within(group, np.asarray(block.x))
    if block.x is None and constant_within(group, np.asarray(block.codes)):
        return True
    if isinstance(block.contrast, Indicators):
        return False
    x = 1.0 if block.x is None else np.asarray(block.x)
    return all(constant_within(group, column[block.codes] * x) for column in block.contrast.T)


def resting_on(m: Fit, fewest: int) -> list[tuple[FixedTerm, GroupTerm]]:
    """Return the terms of the mean, but the intercept, that fewer than so many groups tell about, with the fewest.

    Such a term does not vary within the groups, or its coefficient is random between them, or it is the product of such
    terms, an interaction across levels. Groupings may be crossed.
    """
    design = design_of(m, "numbers of groups")
    groups = [t for t in design.terms if t.component == 0 and 1 < len(t.levels) < fewest]
    if not groups or m.distribution.entry.nominal:
        return []
    terms, few = fixed_terms(m, "mean"), sorted(groups, key=lambda g: len(g.levels))
    known = {g.label: _known_by(m, terms, g) for g in few}
    found = ((t, next((g for g in few if t.key in known[g.label]), None)) for t in terms if t.factors)
    return [(term, group) for term, group in found if group is not None]


def _known_by(m: Fit, terms: tuple[FixedTerm, ...], group: GroupTerm) -> set[frozenset[str]]:
    """Return the keys of the terms that groups tell about."""
    blocks = design_of(m, "numbers of groups").fixed
    constant = {t.key for t in terms if all(is_constant(b, group) for b in t.pick(blocks))} | {frozenset[str]()}
    bars = (plan.bar for plan in m.spec.bars if plan.component == 0 and plan.bar.label == group.label)
    random = {term.key for bar in bars for term in bar.terms}
    return constant | {slope | other for slope in random for other in constant}


def by_term(m: Fit, found: Strata, df: list[float], hypotheses: Array) -> Array:
    """Return for each hypothesis the least of the degrees of freedom of the terms it has coefficients of."""
    each = np.full(len(m.estimate.beta), np.inf)
    for term, value in zip(found.terms, df, strict=True):
        each[term.columns] = value
    size = np.abs(np.atleast_2d(hypotheses)) * kept(m)
    involved = size > ROUNDING * size.max(axis=1, initial=0.0, keepdims=True)
    return np.where(involved, each, np.inf).min(axis=1, initial=np.inf)


def rank_of(m: Fit, term: FixedTerm) -> int:
    """Columns of a term that were estimated."""
    return int(kept(m)[term.columns].sum())
