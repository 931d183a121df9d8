"""Cross-products of random-effects columns, O(n) each: the dense matrices that small-sample theory needs.

Z is never formed. A `Unit` is a part of the data that is independent of the rest given the fixed effects; where all
terms share one grouping, a unit is a level and its matrix has as many rows as there are columns; else everything is
one unit of size q, the number of random effects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ranef.engines.estimate import Array
from ranef.frame.design import matrix

if TYPE_CHECKING:
    from ranef.frame import GroupTerm


@dataclass(frozen=True, slots=True)
class Cross:
    """Z'WZ by units, and where the columns of the terms stand.

    Attributes
    ----------
    gram : (U, K, K) array
    at : tuple of (k, L or 1) int arrays
        Column c and level l of each term -> its place in 0..K-1; one level where units are levels.
    """

    gram: Array
    at: tuple[NDArray[np.int64], ...]


def one_grouping(terms: Sequence[GroupTerm]) -> bool:
    """Whether all terms group the rows alike."""
    return len({t.label for t in terms}) == 1


def columns(term: GroupTerm, weights: Array | None, n: int) -> Array:
    """Return the columns of a term, (n, k), times the roots of the weights."""
    z = matrix(term.blocks, n)
    return z if weights is None else z * np.sqrt(weights)[:, None]


def cross(terms: Sequence[GroupTerm], weights: Array | None, n: int) -> Cross:
    """Return Z'WZ of some terms."""
    return _by_level(terms, weights, n) if one_grouping(terms) else whole(terms, weights, n)


def _by_level(terms: Sequence[GroupTerm], weights: Array | None, n: int) -> Cross:
    z = np.column_stack([columns(t, weights, n) for t in terms])
    levels, codes, k = len(terms[0].levels), terms[0].codes, z.shape[1]
    gram = np.empty((levels, k, k))
    for i in range(k):
        for j in range(i + 1):
            gram[:, i, j] = gram[:, j, i] = np.bincount(codes, z[:, i] * z[:, j], levels)
    ends = np.cumsum([0, *(len(t.names) for t in terms)])
    return Cross(gram, tuple(np.arange(a, b)[:, None] for a, b in pairwise(ends)))


def whole(terms: Sequence[GroupTerm], weights: Array | None, n: int) -> Cross:
    """Return Z'WZ of some terms as one unit."""
    z = [columns(t, weights, n) for t in terms]
    places, q = [], 0
    for t in terms:
        k, levels = len(t.names), len(t.levels)
        places.append(q + np.arange(k)[:, None] + k * np.arange(levels)[None, :])
        q += k * levels
    gram = np.empty((q, q))
    for a, (s, x, at) in enumerate(zip(terms, z, places, strict=True)):
        for t, y, here in zip(terms[: a + 1], z, places, strict=False):
            part = _between(s, x, t, y)
            for i in range(len(at)):
                for j in range(len(here)):
                    gram[np.ix_(at[i], here[j])] = part[i][j]
                    gram[np.ix_(here[j], at[i])] = part[i][j].T
    return Cross(gram[None], tuple(places))


def _between(s: GroupTerm, x: Array, t: GroupTerm, y: Array) -> list[list[NDArray[Any]]]:
    """Z_s'Z_t for every pair of columns, (L_s, L_t) each."""
    rows, cols = len(s.levels), len(t.levels)
    cell = s.codes.astype(np.int64) * cols + t.codes
    return [
        [np.bincount(cell, x[:, i] * y[:, j], rows * cols).reshape(rows, cols) for j in range(y.shape[1])]
        for i in range(x.shape[1])
    ]


def against(term: GroupTerm, z: Array, x: Array) -> Array:
    """Z'X of one term, (L, k, p)."""
    levels = len(term.levels)
    out = np.empty((levels, z.shape[1], x.shape[1]))
    for i in range(z.shape[1]):
        for j in range(x.shape[1]):
            out[:, i, j] = np.bincount(term.codes, z[:, i] * x[:, j], levels)
    return out


def sizes(terms: Sequence[GroupTerm]) -> int:
    """Return the number of random effects."""
    return sum(len(t.levels) * len(t.names) for t in terms)
