"""The relationship of a pedigree: the sparse inverse of the additive relationship matrix A."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from ranef.errors import DataError
from ranef.frame.coding import level_name
from ranef.frame.design import Array
from ranef.frame.table import shorten

UNKNOWN = ("", "0", "NA", "<NA>", "None", "nan", "NaN")  # "<NA>": how pandas prints what is missing


def pedigree(ids: Sequence[Any], sire: Sequence[Any], dam: Sequence[Any]) -> tuple[Any, list[str]]:
    """Return the inverse of the additive relationship matrix of a pedigree, inbreeding included, with its labels.

    Parameters
    ----------
    ids, sire, dam : sequences of n labels
        Every individual and its parents, in any order; None, NaN, "", "0" and "NA" are unknown parents. Parents that
        are no individuals of the list are founders.

    Returns
    -------
    (precision, labels) : (scipy sparse matrix (m, m), list of str)
        What `rf.fit(..., precision={"animal": ...})` takes.

    Raises
    ------
    DataError
        If an individual occurs twice or descends from itself.

    Notes
    -----
    A^-1 = T^-T D^-1 T^-1, T^-1 = I - (half for every parent), D the Mendelian sampling variances (Henderson 1976), with
    inbreeding coefficients as in Meuwissen & Luo (1992), algorithm 4.

    Examples
    --------
    >>> import ranef as rf
    >>> precision, labels = rf.pedigree(["a", "b", "c"], [None, None, "a"], [None, None, "b"])
    >>> precision.diagonal().round(2).tolist()
    [1.5, 1.5, 2.0]
    """
    labels, parents = _ordered(list(map(_name, ids)), list(map(_name, sire)), list(map(_name, dam)))
    _, variance = inbreeding(parents)
    size = len(labels)
    child = np.repeat(np.arange(size), 2)
    parent = parents.ravel()
    known = parent >= 0
    half = sparse.csr_matrix((np.full(int(known.sum()), 0.5), (child[known], parent[known])), (size, size))
    inverse = sparse.eye(size, format="csr") - half
    return (inverse.T @ sparse.diags(1 / variance) @ inverse).tocsc(), labels


def _name(label: Any) -> str:
    if label is None or (isinstance(label, float) and np.isnan(label)):
        return ""
    name = level_name(int(label) if isinstance(label, float) and label.is_integer() else label)
    return "" if name in UNKNOWN else name


def _ordered(ids: list[str], sire: list[str], dam: list[str]) -> tuple[list[str], Array]:
    """Return the individuals with parents before their children, and the positions of the parents (-1: unknown)."""
    if not len(ids) == len(sire) == len(dam):
        raise DataError(f"pedigree: {len(ids)} individuals, {len(sire)} sires, {len(dam)} dams")
    if "" in ids:
        raise DataError(f"pedigree: individual {ids.index('')} has no label")
    of = dict(zip(ids, zip(sire, dam, strict=True), strict=True))
    if len(of) < len(ids):
        raise DataError(f"pedigree: individuals occur twice: {shorten([i for i in of if ids.count(i) > 1])}")
    out: dict[str, int] = {}
    for start in [*ids]:
        stack = [(start, False)]
        open_: set[str] = set()
        while stack:
            label, done = stack.pop()
            if label in out:
                continue
            if done:
                out[label] = len(out)
                continue
            if label in open_:
                raise DataError(f"pedigree: {label!r} descends from itself")
            open_.add(label)
            stack.append((label, True))
            stack += [(parent, False) for parent in of.get(label, ()) if parent and parent not in out]
    labels = list(out)
    pairs = [of.get(label, ("", "")) for label in labels]
    return labels, np.array([[out.get(s, -1), out.get(d, -1)] for s, d in pairs], np.int64)


def inbreeding(parents: Array) -> tuple[Array, Array]:
    """Inbreeding coefficients and Mendelian sampling variances; parents (n, 2) come before their children."""
    size = len(parents)
    coefficient, variance = np.zeros(size + 1), np.empty(size)
    coefficient[-1] = -1.0  # an unknown parent contributes half a unit of variance
    pairs = parents.tolist()
    known: dict[tuple[int, int], float] = {}
    for i, (sire, dam) in enumerate(pairs):
        variance[i] = 0.5 - 0.25 * (coefficient[sire] + coefficient[dam])
        if sire < 0 or dam < 0:
            continue
        key = (min(sire, dam), max(sire, dam))
        if key not in known:
            known[key] = _own(i, pairs, variance) - 1.0
        coefficient[i] = known[key]
    return coefficient[:-1], variance


def _own(i: int, pairs: list[list[int]], variance: Array) -> float:
    """A_ii, the sum of the squared contributions of all ancestors times their Mendelian variances."""
    share, heap, total = {i: 1.0}, [-i], 0.0
    while heap:
        j = -heapq.heappop(heap)
        part = share.pop(j)
        total += part * part * variance[j]
        for parent in pairs[j]:
            if parent >= 0:
                if parent not in share:
                    heapq.heappush(heap, -parent)
                share[parent] = share.get(parent, 0.0) + 0.5 * part
    return float(total)
