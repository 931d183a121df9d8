"""Notes on groups that say little each: where Laplace's approximation of their integrals may not be good enough."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ranef.diagnose.accuracy import laplace_check, not_nested, quick, unavailable
from ranef.diagnose.alike import one_outcome_each
from ranef.diagnose.messages import Message
from ranef.engines.estimate import Array
from ranef.errors import NotAvailableError

if TYPE_CHECKING:
    from ranef.frame import GroupTerm
    from ranef.model import Fit

SMALL = 10  # pieces of information a level up to which the approximation is checked …
TINY = 4  # … or doubted where that would take long
CHECK_NODES = 3  # enough to tell whether Laplace's approximation is in doubt
FEW_ROWS = 20_000  # for which a note may take some milliseconds


@dataclass(frozen=True, slots=True)
class Information:
    """What the levels of a grouping factor are told by.

    Attributes
    ----------
    size : float
        Its median over the levels.
    what : str
        The words that follow "'g' has", with the number.
    doubted : float
        The size up to which the approximation is doubted where it is not measured.
    """

    size: float
    what: str
    doubted: float


def small_clusters(m: Fit) -> Iterator[Message]:
    """P37: Laplace's approximation with little information a group; measured where a few nodes can tell quickly."""
    design = m.design
    if design is None or not design.terms or not _approximated(m):
        return
    found = [(t, info) for t in design.terms if (info := information(m, t)) is not None and info.size <= SMALL]
    if not found or any(one_outcome_each(m)):  # of which no approximation is good
        return
    available = unavailable(m) is None
    if available and not_nested(m) is None and m.nobs <= FEW_ROWS and quick(m, CHECK_NODES):
        yield from _measured(m, *found[0])
        return
    for term, info in found:
        if info.size <= info.doubted:
            text = f"{term.label!r} {info.what}: Laplace's approximation of its variance may be biased"
            text = f"{text}; rf.laplace_check(m) measures it" if available else text
            yield Message("small_clusters", text, _evidence(term, info))
            return


def _approximated(m: Fit) -> bool:
    """Whether the likelihood is Laplace's, and not exact: effects of a normal response's mean are."""
    if m.task.linear or m.task.quadrature != 1 or m.method == "pql" or m.design is None:
        return False
    if m.distribution.custom is not None and m.distribution.entry.support != "binomial":
        return False  # whose density may take long
    return not m.distribution.is_gaussian_identity or any(any(t.owner_of) for t in m.design.terms)


def _measured(m: Fit, term: GroupTerm, info: Information) -> Iterator[Message]:
    with suppress(NotAvailableError):  # as after a search that failed, of which there is more to be said
        # A few nodes tell whether to look closer, but not how many are enough.
        if laplace_check(m, CHECK_NODES).matters and (check := laplace_check(m)).matters:
            shift = {"gap": check.gap, "shift": float(np.nanmax(np.abs(check.relative)))}
            text = f"{term.label!r} {info.what}: {check.text}"
            yield Message("small_clusters", text, {**_evidence(term, info), **shift})


def _evidence(term: GroupTerm, info: Information) -> dict[str, object]:
    return {"group": term.label, "median": info.size}


def information(m: Fit, term: GroupTerm) -> Information | None:
    """Return what tells the effects of a term; None where every row is a level and alone says next to nothing."""
    design, family = m.design, m.distribution
    assert design is not None
    if family.counts:
        outcomes = _median_of(term, np.asarray(design.y).sum(axis=1))
        return Information(outcomes, f"has {outcomes:g} outcomes a level (median)", TINY)
    rows, y = np.ones(design.n), np.asarray(design.y, dtype=float)
    mean = not family.categorical and not any(term.owner_of)
    if mean and family.entry.support == "binomial" and design.trials is not None:
        rarer = np.minimum(_median_of(term, design.trials * y), _median_of(term, design.trials * (1 - y)))
        return Information(rarer, f"has {rarer:g} trials of the rarer outcome a level (median)", TINY / 2)
    if mean and family.entry.support == "count":
        counted = _median_of(term, np.maximum(y - family.truncated, 0.0))
        above = " above 1" if family.truncated else ""
        return Information(counted, f"has counts{above} that add up to {counted:g} a level (median)", TINY / 2)
    if len(term.levels) >= design.n:
        return None
    size = _median_of(term, rows)
    if mean and family.entry.support == "binomial":
        return Information(size, f"has {size:g} binary rows a level (median)", TINY)
    return Information(size, f"has {size:g} rows a level (median)", TINY if family.categorical else 0)


def _median_of(term: GroupTerm, values: Array) -> float:
    """Return the median over the levels of the sum of a row's values."""
    return float(np.median(np.bincount(term.codes, weights=values, minlength=len(term.levels))))


CHECKS = (small_clusters,)
