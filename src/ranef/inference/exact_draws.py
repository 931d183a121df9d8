"""Draws from the laws of `exact`: few chi-squares for many eigenvalues; the suprema are found in the core.

Of the eigenvalues mu_k the law depends on their measure alone: sums over k of w_k^2 f(mu_k), w_k standard normal, have
joint cumulants that are integrals of products of the f. For f = 1 / (1 + lambda mu) these are smooth in mu, so that
Gauss's rule for the measure, nodes nu_j with weights c_j, has the same cumulants to any accuracy with few nodes (Golub
& Welsch 1969; the error falls as rho^-2r, rho = (sqrt(b) + sqrt(a)) / (sqrt(b) - sqrt(a)) on [a, b]: Trefethen 2008,
theorem 4.5). The sums are then distributed as those over j of chi-squares with c_j degrees of freedom: three or four
draws instead of two hundred.
"""

from __future__ import annotations

import numpy as np

from ranef import _core
from ranef.engines.estimate import Array

EQUAL = 1e-9  # eigenvalues this close, relative to the largest, are one
WIDEST = 4.0  # ratio of the eigenvalues that share a rule
LAW = 1e-2  # bound of the error of the ratio that few chi-squares cause; it is itself less than a tenth of that
PENALTY = 1e-9  # relative error of sum log(1 + lambda xi)


def restricted_draws(mu: Array, df: int, n: int, rng: np.random.Generator) -> Array:
    """Draw the restricted likelihood ratio under the null; df = n - p; mu decreasing."""
    return _draws(mu, mu, df, df, 0, n, rng)


def plain_draws(mu: Array, xi: Array, rows: int, rank: int, left_out: int, n: int, rng: np.random.Generator) -> Array:
    """Draw the likelihood ratio under the null; mu and xi decreasing."""
    return _draws(mu, xi, rows - rank, rows, left_out, n, rng)


def _draws(mu: Array, xi: Array, df: int, power: int, effects: int, n: int, rng: np.random.Generator) -> Array:
    """Draw sup power log(1 + N / D) - sum log(1 + lambda xi) + power log(1 + chi-square(effects) / D(0))."""
    nodes, counts = rule(mu, LAW / max(len(mu), 1))
    own, weights = rule(xi, PENALTY)
    seed = int(rng.integers(2**63))
    return np.asarray(_core.variance_ratios(nodes, counts, df - len(mu), own, weights, power, effects, n, seed))


def rule(mu: Array, error: float) -> tuple[Array, Array]:
    """Return nodes, decreasing, and weights of sums over the positive, decreasing mu of smooth functions.

    Functions like log(1 + lambda mu) and (1 + lambda mu)^-k, lambda >= 0. Where the rule would not be shorter it is
    the distinct eigenvalues with their multiplicities.
    """
    if not len(mu):
        return mu, mu
    wide = np.log(mu[0] / mu)
    pieces = int(np.ceil(max(wide[-1], 1e-300) / np.log(WIDEST)))
    at = np.minimum((wide / max(wide[-1], 1e-300) * pieces).astype(np.int64), pieces - 1)
    found = [_gauss(mu[at == i], error) for i in range(pieces)]
    return np.concatenate([x for x, _ in found]), np.concatenate([c for _, c in found])


def _gauss(mu: Array, error: float) -> tuple[Array, Array]:
    if not len(mu):
        return mu, mu
    start = np.flatnonzero(np.r_[True, -np.diff(mu) > EQUAL * mu[0]])
    counts = np.diff(np.r_[start, len(mu)]).astype(np.float64)
    values = np.add.reduceat(mu, start) / counts
    root = np.sqrt(values[-1] / values[0])
    size = 1 if root == 1 else int(np.ceil(-np.log(error) / (2 * np.log((1 + root) / (1 - root)))))
    return (values, counts) if size >= len(values) else _lanczos(values, counts, size)


def _lanczos(values: Array, counts: Array, size: int) -> tuple[Array, Array]:
    """Gauss's rule of a discrete measure: eigenvalues of its Jacobi matrix (Golub & Welsch 1969)."""
    total, shift, scale = counts.sum(), values.mean(), values[0] - values[-1]
    x = (values - shift) / scale
    basis, jacobi = np.zeros((size, len(x))), np.zeros((size, size))
    basis[0] = np.sqrt(counts / total)
    j, length = 0, 1.0
    while length > EQUAL:
        step = x * basis[j]
        for _ in range(2):  # orthogonal to all before, not to the last two alone
            along = basis[: j + 1] @ step
            jacobi[: j + 1, j] += along
            step = step - along @ basis[: j + 1]
        length = float(np.linalg.norm(step))
        j += 1
        if j == size:
            break
        basis[j] = step / max(length, EQUAL)
    nodes, vectors = np.linalg.eigh(jacobi[:j, :j], UPLO="U")
    return (shift + scale * nodes)[::-1], (total * vectors[0] ** 2)[::-1]
