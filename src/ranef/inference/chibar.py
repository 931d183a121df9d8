"""Chi-bar-square distributions: mixtures of chi-squares, the limit of likelihood ratios with nulls on a boundary.

The limit of a likelihood ratio is the squared length, in the metric of the information, of the projection of
z ~ N(0, I^-1) on the cone of what the alternative adds; it is chi-square with j degrees of freedom with probability
w_j (Self & Liang 1987; Shapiro 1988; Silvapulle & Sen 2005, chapter 3; Baey, Cournede & Kuhn 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ranef.engines.estimate import Array

DRAWS, SEED = 20_000, 20190  # of the projections; a fixed seed: the same fits give the same p-value
CURVED = 10_000  # draws where the cone holds semidefinite matrices: each projection takes eigenvalues
LARGEST = 4  # size of a semidefinite block beyond which the bound is taken
STEPS, SETTLED = 400, 1e-7
TOUCH = 1e-6  # a coordinate below this, in standard errors, lies on the boundary
ROUNDS = 500  # of the fit of the weights to the projections


@dataclass(frozen=True, slots=True)
class Mixture:
    """Weights of chi-squares with `first`, `first + 1`, … degrees of freedom.

    Attributes
    ----------
    first : int
    weights : tuple of float
    bound : bool
        Whether p-values are upper bounds, because the weights need an information that is not at hand.
    """

    first: int
    weights: tuple[float, ...]
    bound: bool = False

    def p_value(self, statistic: float) -> float:
        """Return P(T >= statistic)."""
        return sum(w * tail(statistic, self.first + j) for j, w in enumerate(self.weights))

    def __str__(self) -> str:
        parts = [(w, self.first + j) for j, w in enumerate(self.weights) if w > 0]
        if len(parts) == 1:
            return f"chi2({parts[0][1]})"
        text = " + ".join(f"{w:.3g} chi2({df})" for w, df in parts)
        return f"at most {text}" if self.bound else text


def tail(statistic: float, df: int) -> float:
    """Return P(chi-square with df degrees of freedom >= statistic); with 0 a point at 0."""
    from scipy.special import chdtrc

    if not np.isfinite(statistic):
        return float("nan")
    if df == 0:
        return float(statistic <= 0)
    return float(chdtrc(df, max(statistic, 0.0)))


def half_and_half(free: int) -> Mixture:
    """One parameter on the boundary, `free` others: 1/2 chi2(free) + 1/2 chi2(free + 1) (Stram & Lee 1994)."""
    return Mixture(free, (0.5, 0.5))


def bound(free: int, count: int) -> Mixture:
    """Least favourable of all cones of `count` parameters: half of each of the two largest chi-squares."""
    return Mixture(free + count - 1, (0.5, 0.5), True)


def mixture(information: Array, blocks: Sequence[tuple[int, str]], free: int) -> Mixture:
    """Return the distribution for a cone that is a product of orthants and cones of semidefinite matrices.

    Parameters
    ----------
    information : (d, d) array
        Of the parameters in the cone, those outside profiled out. A semidefinite block of size r has r (r + 1) / 2
        parameters: the lower triangle of the matrix by columns.
    blocks : sequence of (size, "orthant" | "psd")
    free : int
        Number of unrestricted parameters tested with them.
    """
    if len(information) == 1:
        return half_and_half(free)
    if any(kind == "psd" and size > LARGEST for size, kind in blocks):
        return bound(free, len(information))
    metric = scaled(information, blocks)
    if len(metric) == 2:
        return Mixture(free, two(metric))
    return Mixture(free, simulated(metric, blocks))


def two(metric: Array) -> tuple[float, float, float]:
    """Weights for two non-negative parameters: the angle of the cone."""
    spread = np.linalg.inv(metric)
    both = 0.25 + np.arcsin(spread[0, 1] / np.sqrt(spread[0, 0] * spread[1, 1])) / (2 * np.pi)
    return 0.5 - both, 0.5, both


def scaled(information: Array, blocks: Sequence[tuple[int, str]]) -> Array:
    """Return the information in coordinates in which it is nearly the identity and the cone is the same.

    A variance is divided by a unit; a semidefinite matrix G becomes R'GR, which keeps it semidefinite, with
    R R' proportional to the W of the information 1/2 tr(WGWG) that one level would have. Off-diagonal entries get the
    factor sqrt(2), which makes the Euclidean distance of parameters that of matrices.
    """
    change, at = np.zeros_like(information), 0
    for size, kind in blocks:
        width = size * (size + 1) // 2 if kind == "psd" else size
        rows = slice(at, at + width)
        part = information[rows, rows]
        change[rows, rows] = congruence(part, size) if kind == "psd" else np.diag(np.diag(part) ** -0.5)
        at += width
    return change.T @ information @ change


def congruence(information: Array, size: int) -> Array:
    """Return d (old parameters) / d (new ones) of a semidefinite block."""
    cells = triangle(size)
    place = {cell: i for i, cell in enumerate(cells)}
    w = np.zeros((size, size))
    for i, j in cells:
        own = information[place[j, j], place[j, j]]
        w[i, j] = w[j, i] = np.sqrt(2 * own) if i == j else information[place[j, j], place[i, j]] / np.sqrt(2 * own)
    values, vectors = np.linalg.eigh(w)
    back = vectors / np.sqrt(np.maximum(values, 1e-3 * values[-1]))  # G = back G' back'
    out = np.empty((len(cells), len(cells)))
    for c, (i, j) in enumerate(cells):
        unit = np.zeros((size, size))
        unit[i, j] = unit[j, i] = 1.0 if i == j else np.sqrt(0.5)
        old = back @ unit @ back.T
        out[:, c] = [old[k, m] for k, m in cells]
    return out


def triangle(size: int) -> list[tuple[int, int]]:
    """Entries of the lower triangle by columns."""
    return [(i, j) for j in range(size) for i in range(j, size)]


def simulated(metric: Array, blocks: Sequence[tuple[int, str]]) -> tuple[float, ...]:
    """Weights by projecting draws on the cone: counted where its faces are flat, else fitted to the lengths."""
    d, rng = len(metric), np.random.default_rng(SEED)
    flat = all(kind == "orthant" or size == 1 for size, kind in blocks)
    z = np.linalg.solve(np.linalg.cholesky(metric).T, rng.standard_normal((d, DRAWS if flat else CURVED))).T
    nearest = project(np.asarray(z, dtype=np.float64), metric, blocks)
    if flat:
        dimension = (nearest > TOUCH).sum(axis=1)
        return tuple((np.bincount(dimension, minlength=d + 1) / DRAWS).tolist())
    inside = np.einsum("ni,ij,nj->n", nearest, metric, nearest)
    outside = np.einsum("ni,ij,nj->n", z - nearest, metric, z - nearest)
    return fitted(inside, outside, d)


def project(z: Array, metric: Array, blocks: Sequence[tuple[int, str]]) -> Array:
    """Return the points of the cone nearest to the rows of z in the metric: accelerated projected gradients.

    Beck & Teboulle (2009), with a restart where the step turns (O'Donoghue & Candes 2015).
    """
    step = 1 / np.linalg.eigvalsh(metric)[-1]
    x = ahead = onto(z, blocks)
    momentum = np.ones((len(z), 1))
    for _ in range(STEPS):
        new = onto(ahead - step * (ahead - z) @ metric, blocks)
        turned = np.einsum("ni,ni->n", ahead - new, new - x)[:, None] > 0
        later = np.where(turned, 1.0, (1 + np.sqrt(1 + 4 * momentum**2)) / 2)
        ahead = new + np.where(turned, 0.0, (momentum - 1) / later) * (new - x)
        moved = float(np.abs(new - x).max())
        x, momentum = new, later
        if moved < SETTLED:
            break
    return x


def onto(z: Array, blocks: Sequence[tuple[int, str]]) -> Array:
    """Euclidean projection of rows on the cone."""
    out, at = np.maximum(z, 0.0), 0
    for size, kind in blocks:
        width = size * (size + 1) // 2 if kind == "psd" else size
        if kind == "psd" and size > 1:
            project_block = _two_by_two if size == 2 else _semidefinite
            out[:, at : at + width] = project_block(z[:, at : at + width], size)
        at += width
    return out


def _two_by_two(z: Array, size: int) -> Array:  # noqa: ARG001 (the same call as for larger blocks)
    """Project (a, sqrt(2) c, b): with eigenvalues l1 > 0 > l2 the nearest is l1 (M - l2 I) / (l1 - l2)."""
    a, c, b = z[:, 0], z[:, 1] * np.sqrt(0.5), z[:, 2]
    middle, radius = (a + b) / 2, np.hypot((a - b) / 2, c)
    high, low = middle + radius, middle - radius
    share = np.where(high > 0, high, 0.0) / np.maximum(2 * radius, np.finfo(float).tiny)
    share = np.where(low >= 0, 0.0, share)  # as it is
    rank_one = share[:, None] * np.column_stack([a - low, z[:, 1], b - low])
    return np.where((low >= 0)[:, None], z, rank_one)


def _semidefinite(z: Array, size: int) -> Array:
    cells = triangle(size)
    matrices = np.zeros((len(z), size, size))
    for c, (i, j) in enumerate(cells):
        matrices[:, i, j] = matrices[:, j, i] = z[:, c] * (1.0 if i == j else np.sqrt(0.5))
    values, vectors = np.linalg.eigh(matrices)
    nearest = np.einsum("nik,nk,njk->nij", vectors, np.maximum(values, 0.0), vectors)
    return np.column_stack([nearest[:, i, j] * (1.0 if i == j else np.sqrt(2.0)) for i, j in cells])


def fitted(inside: Array, outside: Array, d: int) -> tuple[float, ...]:
    """Weights of a curved cone from squared lengths of the parts of draws in it and outside it.

    Given j, they are independent chi-squares with j and d - j degrees of freedom: a mixture, fitted by maximum
    likelihood. j = 0 and j = d are seen: one of the parts is 0.
    """
    from scipy.special import gammaln

    small = TOUCH * d
    none, all_of_it = inside < small, outside < small
    a, b = inside[~none & ~all_of_it], outside[~none & ~all_of_it]
    j = np.arange(1, d)
    log_density = (j / 2 - 1) * np.log(a)[:, None] + ((d - j) / 2 - 1) * np.log(b)[:, None]
    log_density -= gammaln(j / 2) + gammaln((d - j) / 2)
    density = np.exp(log_density - log_density.max(axis=1, keepdims=True))
    w = np.full(d - 1, 1 / (d - 1))
    for _ in range(ROUNDS):
        share = density * w
        w = (share / share.sum(axis=1, keepdims=True)).mean(axis=0)
    middle = w * len(a) / len(inside)
    return (float(none.mean()), *middle.tolist(), float(all_of_it.mean()))
