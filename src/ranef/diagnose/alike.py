"""Groups of one outcome each: random effects whose standard deviation the likelihood takes to infinity.

Where all rows of a level have one outcome, effects that are infinitely far apart explain every row, and what is left is
the share of the levels with each outcome: the likelihood is below that for every finite standard deviation, and rises
to it. Approximations of the integral err there, and a search ends at any large number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ranef.diagnose.messages import Message
from ranef.diagnose.separation import certain
from ranef.engines.plan import anchored_terms
from ranef.families.links import link_of
from ranef.inference.outcomes import of_outcomes

if TYPE_CHECKING:
    from ranef.frame import GroupTerm
    from ranef.layout import GroupInfo
    from ranef.model import Fit

CONSTANT = "(Intercept)"


def one_outcome_each(m: Fit) -> Iterator[Message]:
    """P6: a variance that has no estimate, as every level of its factor has one outcome only."""
    m = of_outcomes(m)
    design = m.design
    if design is None or not _has_ends(m):
        return
    known = anchored_terms(design, m.task)
    for at, (term, info) in enumerate(zip(design.terms, m.layout.terms, strict=True)):
        sd = _deviation(m, at, info)
        if at in known or not sd > certain(m, 0)[1] or not _alike(m, term):
            continue
        name = f"sd({info.key})" if len(info.names) == 1 else f"sd({CONSTANT} | {info.key})"
        text = (
            f"every level of {info.label!r} has one outcome only in all its rows: the likelihood rises for ever with "
            f"the standard deviation of its effects, which ran to {sd:.3g} and has no estimate, nor have the "
            f"coefficients beside it; the log-likelihood is an error of its approximation. A prior keeps them finite, "
            f"prior={{{name!r}: rf.prior.half_normal(2.5)}}; or take one row a level, without effects of {info.label!r}"
        )
        yield Message("one_outcome_each", text, {"group": info.label, "levels": len(info.levels), "sd": sd})
        return


def _has_ends(m: Fit) -> bool:
    """Whether an infinite predictor makes an outcome certain."""
    family, design = m.distribution, m.design
    if m.task.linear or m.method == "pql" or family.custom is not None or family.zero_inflation or design is None:
        return False
    binary = family.entry.support == "binomial" and link_of(m.link).one != 0 and design.randomised is None
    return binary or family.categorical


def _deviation(m: Fit, at: int, info: GroupInfo) -> float:
    """Return the standard deviation of a term's intercepts; 0 where there are none, or none of the mean."""
    nominal = m.distribution.entry.nominal
    found = [i for i, (name, owner) in enumerate(zip(info.names, info.components, strict=True))
             if name == CONSTANT and (nominal or owner == "mean")]  # fmt: skip
    return float(np.linalg.norm(m.estimate.roots[at][found[0]])) if found else 0.0


def _alike(m: Fit, term: GroupTerm) -> bool:
    """Whether the outcomes of a level are the same, and some level has several."""
    assert m.design is not None
    y, trials = np.asarray(m.design.y, dtype=float), m.design.trials
    weight = np.ones(len(y)) if trials is None else np.asarray(trials, dtype=float)
    weight = weight if m.design.frequencies is None else weight * m.design.frequencies
    levels = len(term.levels)
    low, high = np.full(levels, np.inf), np.full(levels, -np.inf)
    np.minimum.at(low, term.codes, y)
    np.maximum.at(high, term.codes, y)
    several = np.bincount(term.codes, weights=weight, minlength=levels).max(initial=0.0) > 1
    one = bool((low >= high).all()) and (m.distribution.categorical or bool(np.isin(y, (0.0, 1.0)).all()))
    return several and one


CHECKS = (one_outcome_each,)
