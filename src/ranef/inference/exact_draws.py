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
from ranef.progress import Progress

LAW = 1e-2  # bound of the error of the ratio that few chi-squares cause; it is itself less than a tenth of that
AT_ONCE = 256 * 4096  # draws between two looks at the clock; a whole number of the core's blocks
PENALTY = 1e-9  # relative error of sum log(1 + lambda xi)


def restricted_draws(mu: Array, df: int, n: int, rng: np.random.Generator, progress: bool | None = None) -> Array:
    """Draw the restricted likelihood ratio under the null; df = n - p; mu decreasing."""
    return _draws(mu, mu, df, df, 0, n, rng, progress)


def plain_draws(
    mu: Array,
    xi: Array,
    rows: int,
    rank: int,
    left_out: int,
    n: int,
    rng: np.random.Generator,
    progress: bool | None = None,
) -> Array:
    """Draw the likelihood ratio under the null; mu and xi decreasing."""
    return _draws(mu, xi, rows - rank, rows, left_out, n, rng, progress)


def _draws(
    mu: Array, xi: Array, df: int, power: int, effects: int, n: int, rng: np.random.Generator, progress: bool | None
) -> Array:
    """Draw sup power log(1 + N / D) - sum log(1 + lambda xi) + power log(1 + chi-square(effects) / D(0))."""
    nodes, counts = rule(mu, LAW / max(len(mu), 1))
    own, weights = rule(xi, PENALTY)
    seed = int(rng.integers(2**63))
    law = (nodes, counts, df - len(mu), own, weights, power, effects)
    found: list[Array] = []
    with Progress("draws of the null distribution", n, progress) as shown:
        for before in range(0, n, AT_ONCE):
            count = min(AT_ONCE, n - before)
            found.append(np.asarray(_core.variance_ratios(*law, count, seed, before)))
            shown.advance(count)
    return found[0] if len(found) == 1 else np.concatenate(found)


def rule(mu: Array, error: float) -> tuple[Array, Array]:
    """Return nodes, decreasing, and weights of sums over the positive, decreasing mu of smooth functions.

    Functions like log(1 + lambda mu) and (1 + lambda mu)^-k, lambda >= 0. Where the rule would not be shorter it is
    the distinct eigenvalues with their multiplicities.
    """
    return _core.gauss_rule(np.ascontiguousarray(mu), error)
