"""Residual degrees of freedom divided between and within subjects (Schluchter & Elashoff 1990; SAS's DDFM=BETWITHIN).

A subject is a group of the coarsest grouping. A term that varies within a subject has the within-subject degrees of
freedom, every other one, the intercept too, those between subjects:

    between = subjects - rank of the terms between,      within = (n - rank X) - between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ranef.frame.design import Array
from ranef.inference.ddf.method import Method, least, model_vcov, rows_counted
from ranef.inference.ddf.residual import rank_of_mean
from ranef.inference.ddf.strata import by_term, rank_of, strata

if TYPE_CHECKING:
    from ranef.model import Fit


def check(m: Fit) -> None:
    """Refuse crossed groupings."""
    strata(m)


def between_within(m: Fit, hypotheses: Array) -> Array:
    """Degrees of freedom by the rule; for a hypothesis about several terms the least."""
    found = strata(m)
    total = rows_counted(m) - rank_of_mean(m)
    if not found.labels:
        return by_term(m, found, [total] * len(found.terms), hypotheses)
    outer = [at == 0 for at in found.at]
    used = sum(rank_of(m, term) for term, is_outer in zip(found.terms, outer, strict=True) if is_outer)
    between = float(found.sizes[0] - used)
    return by_term(m, found, [between if o else total - between for o in outer], hypotheses)


METHOD = Method(
    "between-within",
    "between-within degrees of freedom",
    check,
    between_within,
    least(between_within),
    model_vcov,
)
