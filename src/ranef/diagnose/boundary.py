"""Covariances on the boundary of their space, as data: a variance of 0, a correlation of +-1, a lost rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ranef.engines.estimate import Array, Result

if TYPE_CHECKING:
    from ranef.model import GroupInfo


@dataclass(frozen=True, slots=True)
class Boundary:
    """One singular covariance. The fit is valid; the estimate lies where a variance or an eigenvalue is 0.

    Attributes
    ----------
    group : str
        Grouping factor.
    kind : "variance" | "correlation"
        Whether a variance is 0, or the covariance is singular with all variances positive.
    names : tuple of str
        The columns concerned.
    rank, size : int
        Rank and size of the term's covariance matrix.
    text : str
        The sentence.
    """

    group: str
    kind: str
    names: tuple[str, ...]
    rank: int
    size: int
    text: str

    def __str__(self) -> str:
        return self.text


def boundary(terms: Sequence[GroupInfo], estimate: Result) -> tuple[Boundary, ...]:
    """Describe every term of a fit whose covariance is singular."""
    return tuple(_describe(terms[t], estimate.roots[t], rank) for t, _, rank in estimate.boundary)


def _describe(term: GroupInfo, factor: Array, rank: int) -> Boundary:
    sd = np.linalg.norm(factor, axis=1)
    zero = tuple(n for n, s in zip(term.names, sd, strict=True) if s == 0)
    if zero:
        text = f"variance of {', '.join(zero)} | {term.label} estimated 0"
        return Boundary(term.label, "variance", zero, rank, len(term.names), text)
    text = _correlation_text(term, factor, rank)
    return Boundary(term.label, "correlation", term.names, rank, len(term.names), text)


def _correlation_text(term: GroupInfo, factor: Array, rank: int) -> str:
    k = len(term.names)
    if k == 2:
        sign = "+" if factor[0] @ factor[1] > 0 else "-"
        return f"correlation of {term.names[0]} and {term.names[1]} | {term.label} estimated {sign}1"
    return f"covariance of {', '.join(term.names)} | {term.label} has rank {rank} of {k}"
