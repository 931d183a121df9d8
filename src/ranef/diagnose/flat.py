"""Quiet notes on directions in which the likelihood of a covariance structure is flat: parameters that say nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ranef.diagnose.messages import Message
from ranef.engines.estimate import LaplaceEstimate

if TYPE_CHECKING:
    from ranef.engines.estimate import Array
    from ranef.layout import GroupInfo
    from ranef.model import Fit

ROUGHEST, SMOOTHEST = 0.02, 60.0  # the smallest and the largest smoothness that are tried
NEAR = 0.01  # of an end of its range, relative to it: a smoothness that has come to it
UNRELATED = 1e-4  # a correlation below which the core takes effects for unrelated
BEYOND = {"range": "shorter", "rate": "larger"}
DISTANT = ("exp", "gau", "mat", "ou")  # structures of distances


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


CHECKS = (smoothness, unrelated, vague)
