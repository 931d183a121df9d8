"""The inner-outer rule for nested groupings (Pinheiro & Bates 2000, sec. 2.4.2), as `nlme::lme` counts.

With m_i groups at level i (m_0 = 1 with an intercept, else 0; m_{Q+1} rows) and p_i coefficients of terms estimated at
level i - those that vary within the groups of level i - 1 but not of level i -

    denDF_i = m_i - (m_{i-1} + p_i);      the intercept has those of the last level.

It is exact for balanced designs with random intercepts. It knows nothing of random slopes: `inner-outer-slopes` counts
a term among those of the outermost level at which its coefficient is random.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from ranef.errors import RanefWarning
from ranef.formula import INTERCEPT
from ranef.frame.design import Array
from ranef.inference.ddf.method import Method, least, model_vcov
from ranef.inference.ddf.strata import Strata, by_term, rank_of, strata

if TYPE_CHECKING:
    from ranef.model import Fit


def check(m: Fit) -> None:
    """Refuse crossed groupings; say that random slopes are not counted."""
    found = strata(m)
    slopes = [t.label for t, at in zip(found.terms, _outermost(m, found), strict=True) if at is not None]
    if slopes:
        warnings.warn(
            f"ddf='inner-outer' is wrong for coefficients that vary between groups ({', '.join(slopes)}): it counts "
            f"rows where groups are what was sampled; use ddf='kenward-roger' or 'satterthwaite'",
            RanefWarning,
            stacklevel=5,
        )


def check_slopes(m: Fit) -> None:
    """Refuse crossed groupings."""
    strata(m)


def inner_outer(m: Fit, hypotheses: Array) -> Array:
    """Degrees of freedom by the rule; for a hypothesis about several terms the least."""
    found = strata(m)
    return by_term(m, found, counted(m, found, list(found.at)), hypotheses)


def inner_outer_slopes(m: Fit, hypotheses: Array) -> Array:
    """Return the same where random slopes count as strata."""
    found = strata(m)
    moved = zip(found.at, _outermost(m, found), strict=True)
    return by_term(m, found, counted(m, found, [a if b is None else min(a, b) for a, b in moved]), hypotheses)


def counted(m: Fit, found: Strata, at: list[int]) -> list[float]:
    """Return denDF of every term."""
    intercept = any(not t.factors for t in found.terms)
    outer = (int(intercept), *found.sizes[:-1])
    used = [
        sum(rank_of(m, t) for t, where in zip(found.terms, at, strict=True) if where == i and t.factors)
        for i in range(len(found.sizes))
    ]
    df = [float(size - (o + u)) for size, o, u in zip(found.sizes, outer, used, strict=True)]
    return [df[where] if t.factors else df[-1] for t, where in zip(found.terms, at, strict=True)]


def _outermost(m: Fit, found: Strata) -> list[int | None]:
    """Return for each term the outermost stratum at which its coefficient is random, if there is one."""
    random: dict[object, int] = {}
    for plan in m.spec.bars:
        label = plan.bar.label
        if plan.component == 0 and label in found.labels:
            for term in plan.bar.terms:
                at = found.labels.index(label)
                random[term.key] = min(at, random.get(term.key, at))
    random.pop(INTERCEPT.key, None)
    return [random.get(t.key) for t in found.terms]


TITLE = "degrees of freedom by the inner-outer rule"
METHOD = Method("inner-outer", TITLE, check, inner_outer, least(inner_outer), model_vcov)
SLOPES = Method("inner-outer-slopes", TITLE, check_slopes, inner_outer_slopes, least(inner_outer_slopes), model_vcov)
