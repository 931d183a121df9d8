"""Covariances on the boundary of their space, as data: a variance of 0, a correlation of +-1, a structure's limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ranef.engines.estimate import Array, Result
from ranef.formula.functions import PLAIN

if TYPE_CHECKING:
    from ranef.layout import GroupInfo
    from ranef.model import Fit


#: What a structure's columns are, and what its limit is where all of them share one effect.
LIMITED = {
    **dict.fromkeys(("cs", "homcs"), ("columns", "correlation", "1")),
    **dict.fromkeys(("ar1", "hetar1", "toep", "homtoep"), ("times", "correlation", "1")),
    "ou": ("times", "rate", "0"),
    **dict.fromkeys(("exp", "gau", "mat"), ("places", "range", "infinite")),
}
#: Structures of positions or times whose columns are all alike.
ALIKE = ("ar1", "homtoep", "ou", "exp", "gau", "mat")
MANY = 3  # columns of a structure that are named one by one
SHOWN = 8  # variances that are


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


def advice(m: Fit, b: Boundary) -> str:
    """Return what to make of a singular covariance, to follow its text; of a fit that is no optimum nothing."""
    if not m.converged:
        return ""
    plain = any(t.label == b.group and t.structure in PLAIN for t in m.layout.terms)
    if b.kind == "variance" and (plain or len(b.names) == b.size):
        found, ways = "; a valid optimum. Without it no estimate changes, only AIC: ", ["drop it", "accept it"]
    else:
        found, ways = "; a valid optimum, whose covariance is not of full rank: ", ["simplify it", "accept it"]
    if plain and m.task.wishes is None and m.method != "pql":
        ways.append("give it a prior (prior='blme')")
    return f"{found}{', '.join(ways[:-1])} or {ways[-1]}"


def _describe(term: GroupInfo, factor: Array, rank: int) -> Boundary:
    sd = np.linalg.norm(factor, axis=1)
    zero = tuple(n for n, s in zip(term.names, sd, strict=True) if s == 0)
    if zero:
        shown = zero if len(zero) <= SHOWN else (*zero[:2], "…", zero[-1])
        text = f"variance of {', '.join(shown)} | {term.key} estimated 0"
        if rank < len(term.names) - len(zero):
            text += f", and the covariance of the others has rank {rank}"
        return Boundary(term.label, "variance", zero, rank, len(term.names), text)
    text = (_limit_text if term.structure in LIMITED else _correlation_text)(term, factor, rank)
    return Boundary(term.label, "correlation", term.names, rank, len(term.names), text)


def _correlation_text(term: GroupInfo, factor: Array, rank: int) -> str:
    k = len(term.names)
    if k == 2:
        sign = "+" if factor[0] @ factor[1] > 0 else "-"
        return f"correlation of {term.names[0]} and {term.names[1]} | {term.key} estimated {sign}1"
    return f"covariance of {', '.join(term.names)} | {term.key} has rank {rank} of {k}"


def _limit_text(term: GroupInfo, factor: Array, rank: int) -> str:
    """Say which limit of a structure the estimate is."""
    columns, what, value = LIMITED[term.structure]
    listed = term.names if len(term.names) <= MANY else (term.names[0], "…", term.names[-1])
    name = f"{term.structure}({', '.join(listed)} | {term.key})"
    corr = _correlations(factor)
    if rank == 1 and (corr > 0).all():
        alike = f"; (1 | {term.label}) is the same model" if term.structure in ALIKE else ""
        shared = "share one effect" if len(set(_deviations(factor))) == 1 else "are multiples of one effect"
        return f"{what} of {name} estimated {value}: all {columns} {shared}{alike}"
    if rank == 1:
        return f"correlation of {name} estimated -1: one effect that changes its sign with every time"
    if what == "correlation" and columns == "columns":
        own = "" if len(set(_deviations(factor))) == 1 else ", each divided by its standard deviation,"
        return (
            f"correlation of {name} estimated {corr[1, 0]:.4g}, the least it can be: the effects of a group{own} "
            f"add up to 0"
        )
    return (
        f"correlations of {name} are on the edge of what they can be: their matrix has rank {rank} of {len(term.names)}"
    )


def _correlations(factor: Array) -> Array:
    unit = factor / np.linalg.norm(factor, axis=1)[:, None]
    return unit @ unit.T


def _deviations(factor: Array) -> list[float]:
    return [float(f"{sd:.8g}") for sd in np.linalg.norm(factor, axis=1)]
