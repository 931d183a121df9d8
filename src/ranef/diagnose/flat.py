"""Quiet notes on directions in which the likelihood of covariances is flat: parameters that say nothing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from ranef.diagnose.messages import CONSTANT, Message
from ranef.engines.estimate import LaplaceEstimate
from ranef.formula.functions import PLAIN

if TYPE_CHECKING:
    from ranef.engines.estimate import Array
    from ranef.frame import GroupTerm
    from ranef.layout import GroupInfo
    from ranef.model import Fit

ROUGHEST, SMOOTHEST = 0.02, 60.0  # the smallest and the largest smoothness that are tried
NEAR = 0.01  # of an end of its range, relative to it: a smoothness that has come to it
UNRELATED = 1e-4  # a correlation below which the core takes effects for unrelated
BEYOND = {"range": "shorter", "rate": "larger"}
DISTANT = ("exp", "gau", "mat", "ou")  # structures of distances
EQUAL = 1e-10  # what rounding leaves of two relationships that are one, relative to the largest entry


def smoothness(m: Fit) -> Iterator[Message]:
    """P41: a Matern correlation as smooth, or as rough, as can be: the likelihood is flat in the smoothness."""
    for term, name, value in _of_structures(m):
        if name == "nu" and value > (1 - NEAR) * SMOOTHEST:
            text = (
                f"flat direction: the smoothness nu of mat(… | {term.label}) came to {value:.0f}, the end of its "
                f"range, beyond which next to nothing changes; gau(… | {term.label}) is what it goes to, with a "
                f"parameter less"
            )
            yield Message("smoothest", text, {"group": term.label, "nu": value})
        if name == "nu" and value < (1 + NEAR) * ROUGHEST:
            text = (
                f"flat direction: the smoothness nu of mat(… | {term.label}) came to {value:.2f}, the least it can be: "
                f"the correlation falls at once and then hardly changes with the distance, so that the range can be "
                f"almost anything; nu has no standard error. mat(…, nu=0.5 | {term.label}), which is exp, has a "
                f"parameter less"
            )
            yield Message("roughest", text, {"group": term.label, "nu": value})


def unrelated(m: Fit) -> Iterator[Message]:
    """P41: a range so short that effects are not related, where the likelihood is flat in it."""
    for term, name, value in _of_structures(m):
        if name in BEYOND and term.structure in DISTANT and _largest_correlation(m, term) < UNRELATED:
            text = (
                f"flat direction: the {name} of {term.structure}(… | {term.label}) came to {value:.3g}, where no two "
                f"effects of a group are related, and any {BEYOND[name]} one says the same: it has no standard error; "
                f"homdiag(… | {term.label}) is the same model without it"
            )
            yield Message("unrelated", text, {"group": term.label, name: value})


def vague(m: Fit) -> Iterator[Message]:
    """P41: a range that may be anything, and has no standard error."""
    if not isinstance(m.estimate, LaplaceEstimate) or not np.isfinite(np.diag(m.estimate.vcov)).any():
        return
    ends = {number for number, *_ in m.estimate.boundary}
    for at, (term, name, value) in enumerate(_of_structures(m)):
        known = name not in BEYOND or m.layout.terms.index(term) in ends or not m.converged
        if known or not np.isnan(_variance(m.estimate, at)) or not _largest_correlation(m, term) >= UNRELATED:
            continue
        text = (
            f"flat direction: the {name} of {term.structure}(… | {term.label}) came to {value:.3g} and may be "
            f"anything: the standard error of its logarithm is more than 10, and none is given; hold it, or take a "
            f"structure without it"
        )
        yield Message("vague", text, {"group": term.label, name: value})


def _variance(e: LaplaceEstimate, at: int) -> float:
    """Return the variance of a structure's parameter, the `at`-th of all, on the scale of the search."""
    at += len(e.beta) + len(e.theta) - len(e.natural)
    return float(e.joint()[at, at])


def one_partition(m: Fit) -> Iterator[Message]:
    """P41: two terms that part the rows alike, whose effects have one covariance: only its sum is identified."""
    if m.design is None or m.task.wishes is not None:
        return
    for (one, a), (other, b) in combinations(zip(m.design.terms, m.layout.terms, strict=True), 2):
        if shared := _shared(one, other):
            columns = ", ".join("1" if name == CONSTANT else name for name in shared)
            alike = a.label == b.label
            why = f"both group by {a.label!r}" if alike else f"every level of {a.label!r} is one level of {b.label!r}"
            text = (
                f"flat direction: only the sum of the {'variances' if len(shared) == 1 else 'covariances'} of "
                f"({columns} | {a.key}) and ({columns} | {b.key}) is identified: {why}. The share of each is arbitrary "
                f"and has no meaningful standard error; leave one out"
            )
            yield Message("one_partition", text, {"groups": [a.label, b.label], "columns": list(shared)})


def _shared(one: GroupTerm, other: GroupTerm) -> tuple[str, ...]:
    """Return the columns whose effects two terms both give to the same sets of rows, with one covariance.

    Two intercepts that a formula gives to one factor are told by another note.
    """
    if len(one.levels) != len(other.levels) or one.structure not in PLAIN or other.structure not in PLAIN:
        return ()
    theirs = set(zip(other.names, other.owner_of, strict=True))
    shared = tuple(column[0] for column in zip(one.names, one.owner_of, strict=True) if column in theirs)
    if one.label == other.label:
        shared = tuple(name for name in shared if name != CONSTANT)
    return shared if shared and _alike(one, other) else ()


def _alike(one: GroupTerm, other: GroupTerm) -> bool:
    """Whether terms of as many levels tell the same rows apart, and relate their levels in the same way."""
    partner = np.arange(len(one.levels))  # levels without rows, which come last, are compared in their order
    partner[one.codes] = other.codes
    if not np.array_equal(partner[one.codes], other.codes) or np.bincount(partner).max(initial=1) > 1:
        return False
    a, b = one.relation, other.relation
    if a is None or b is None:
        return a is b
    gap = a.precision() - b.precision()[partner][:, partner]
    return bool(abs(gap).max() <= EQUAL * a.diag.max())


def _of_structures(m: Fit) -> Iterator[tuple[GroupInfo, str, float]]:
    """Yield (term, name, value) of the parameters of structures that were all estimated freely."""
    if not m.task.linear and m.task.wishes is None:
        for number, name, _, value in m.estimate.natural:
            yield m.layout.terms[number], name, value


def _largest_correlation(m: Fit, term: GroupInfo) -> float:
    """Return the largest correlation of two columns of a term; that of a variance of 0 is not known."""
    sigma: Array = np.asarray(m.estimate.covariances[m.layout.terms.index(term)])
    sd = np.sqrt(np.diag(sigma))
    if len(sd) < 2 or not (sd > 0).all():
        return float("nan")
    return float(np.max(np.abs(sigma / np.outer(sd, sd) - np.eye(len(sd)))))


CHECKS = (smoothness, unrelated, vague, one_partition)
