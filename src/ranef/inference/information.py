"""Fisher information of variances and covariances of a linear mixed model, where some of them are 0.

With V = sigma^2 (W^-1 + sum_p gamma_p Z E_p Z'), the information of (gamma, sigma^2) has entries
1/2 tr(V^-1 dV_i V^-1 dV_j) (Searle, Casella & McCulloch 1992), all of them from Z'V^-1 Z.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ranef.engines.estimate import Array
from ranef.inference.chibar import triangle
from ranef.inference.crossproducts import Cross, cross, one_grouping, sizes
from ranef.inference.nested import Cone
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.frame import GroupTerm
    from ranef.model import Fit

LARGEST = 1_000  # random effects of a design with several groupings, whose Z'V^-1 Z is dense
SINGULAR = 1e-10


@dataclass(frozen=True, slots=True)
class Entry:
    """A variance or covariance: the entry (i, j) of the covariance matrix of a term."""

    term: int
    i: int
    j: int


def cone_information(small: Fit, large: Fit, cones: Sequence[Cone]) -> Array | None:
    """Return the information about the parameters of some cones at the null, all others profiled out.

    Parameters
    ----------
    small, large : Fit
        Linear mixed models; the null is the smaller one's estimate.
    cones : sequence of Cone
        Of the larger one.

    Returns
    -------
    (d, d) array or None
        None where it is not at hand: other than linear models, patterned structures, several groupings with more than
        1,000 random effects, parameters that the data do not identify.
    """
    design = design_of(large, "information")
    terms = design.terms
    if not (small.task.linear and large.task.linear) or not all(c.aligned for c in cones):
        return None
    if not one_grouping(terms) and sizes(terms) > LARGEST:
        return None
    entries = [Entry(t, i, j) for t, term in enumerate(terms) for i, j in cells(term)]
    tested = [entries.index(Entry(c.term, c.at[i], c.at[j])) for c in cones for i, j in _cells(c)]
    found = information(cross(terms, design.weights, design.n), entries, null(small, terms), small.sigma, design.n)
    return profiled(found, tested)


def cells(term: GroupTerm) -> list[tuple[int, int]]:
    """Entries of the covariance matrix that a term has parameters for."""
    k = len(term.names)
    return triangle(k) if term.structure == "us" else [(j, j) for j in range(k)]


def _cells(cone: Cone) -> list[tuple[int, int]]:
    r = len(cone.at)
    return triangle(r) if cone.kind == "psd" else [(j, j) for j in range(r)]


def null(small: Fit, terms: Sequence[GroupTerm]) -> list[Array]:
    """Covariance matrices of the larger model's terms under the smaller one, 0 where it has none."""
    out = [np.zeros((len(t.names), len(t.names))) for t in terms]
    for info, cov in zip(small.layout.terms, small.estimate.covariances, strict=True):
        home = next(i for i, t in enumerate(terms) if t.label == info.label and set(info.names) <= set(t.names))
        at = [terms[home].names.index(name) for name in info.names]
        out[home][np.ix_(at, at)] += cov
    return out


def information(z: Cross, entries: Sequence[Entry], covariances: Sequence[Array], sigma: float, n: int) -> Array:
    """Return the information of the entries and of sigma^2, the last, (P + 1, P + 1)."""
    b, inner = woodbury(z, covariances, sigma)
    selectors = [selector(e, z) for e in entries]
    moved = [np.einsum("ij,ujk->uik", s, inner) for s in selectors]
    out = np.empty((len(entries) + 1, len(entries) + 1))
    for p, x in enumerate(moved):
        for r, y in enumerate(moved[: p + 1]):
            out[p, r] = out[r, p] = np.einsum("uij,uji->", x, y) / 2
    gb = z.gram @ b
    second = (z.gram - 2 * gb @ z.gram + gb @ gb @ z.gram) / sigma**4
    out[-1, :-1] = out[:-1, -1] = [np.einsum("ij,uji->", s, second) / 2 for s in selectors]
    total = n - 2 * np.einsum("uii->", gb) + np.einsum("uij,uji->", gb, gb)
    out[-1, -1] = total / (2 * sigma**4)
    return out


def woodbury(z: Cross, covariances: Sequence[Array], sigma: float) -> tuple[Array, Array]:
    """Return B and Z'V^-1 Z by units, where V^-1 = (W - W Z B Z' W) / sigma^2."""
    root = np.zeros(z.gram.shape[1:])
    for at, cov in zip(z.at, covariances, strict=True):
        values, vectors = np.linalg.eigh(cov)
        half = vectors * np.sqrt(np.maximum(values, 0.0))
        for level in at.T:
            root[np.ix_(level, level)] = half
    inside = sigma**2 * np.eye(len(root)) + root.T @ z.gram @ root
    b = root @ np.linalg.solve(inside, np.broadcast_to(root.T, inside.shape))
    return b, (z.gram - z.gram @ b @ z.gram) / sigma**2


def selector(entry: Entry, z: Cross) -> Array:
    """E with dV / d gamma = Z E Z' for one unit."""
    out, at = np.zeros(z.gram.shape[1:]), z.at[entry.term]
    out[at[entry.i], at[entry.j]] = out[at[entry.j], at[entry.i]] = 1.0
    return out


def profiled(found: Array, tested: Sequence[int]) -> Array | None:
    """Information about some parameters when the others are estimated: the Schur complement; None if singular."""
    unit = np.sqrt(np.maximum(np.diag(found), np.finfo(float).tiny))
    values = np.linalg.eigvalsh(found / np.outer(unit, unit))
    if values[0] < SINGULAR:
        return None
    spread = np.linalg.inv(found / np.outer(unit, unit))[np.ix_(tested, tested)]
    return np.asarray(np.linalg.inv(spread) * np.outer(unit[tested], unit[tested]), dtype=np.float64)
