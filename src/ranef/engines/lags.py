"""Correlations at the lags of Toeplitz structures and the coordinates that stand for them, both ways.

The coordinates x are those of partial correlations x / sqrt(1 + x^2), from which Durbin and Levinson's recursion makes
correlations (Barndorff-Nielsen & Schou 1973): rho_k = pi_k e_k-1 + sum_j phi_k-1,j rho_k-j.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ranef.engines.covariance import Array

TOEPLITZ = ("toep", "homtoep")
STEP = 1e-20  # imaginary
MOST = 1 - 5e-13  # a partial correlation, whose coordinate is 1e6
FOLLOWS = 1e-12  # where the lags before leave no more of a variance, what is left of a lag is rounding (to 1e-4)


def toeplitz_correlations(x: Array) -> Array:
    """Correlations at lags 1, 2, … from the coordinates of a Toeplitz structure, (r, lags) both."""
    partial = x / np.sqrt(1 + x * x)
    out, left = np.zeros_like(partial), np.ones(len(partial), partial.dtype)
    phi: list[Array] = []
    for k in range(partial.shape[1]):
        one = partial[:, k]
        out[:, k] = one * left + _said(phi, out, k)
        phi = _next(phi, one)
        left = left * (1 - one * one)
    return out


def toeplitz_coordinates(correlations: Array) -> Array:
    """Undo `toeplitz_correlations`: (lags,) of one structure.

    A partial correlation that rounding took beyond 1 has the largest coordinate; the lags after one of 1 follow from
    those before, whatever their coordinates: these are 0.
    """
    rho: Array = np.asarray(correlations, dtype=float)[None]
    partial, left = np.zeros_like(rho), np.ones(1)
    phi: list[Array] = []
    for k in range(rho.shape[1]):
        more = rho[:, k] - _said(phi, rho, k)
        partial[:, k] = np.clip(more / left, -MOST, MOST) if left[0] > FOLLOWS else 0.0
        phi = _next(phi, partial[:, k])
        left = left * (1 - partial[:, k] ** 2)
    return (partial / np.sqrt(1 - partial * partial))[0]


def _said(phi: Sequence[Array], rho: Array, k: int) -> Array:
    """Return what the correlations before lag k + 1 say of it."""
    return sum((phi[j] * rho[:, k - 1 - j] for j in range(k)), np.zeros_like(rho[:, 0]))


def _next(phi: Sequence[Array], partial: Array) -> list[Array]:
    k = len(phi)
    return [*(phi[j] - partial * phi[k - 1 - j] for j in range(k)), partial]


def lag_slopes(x: Array) -> Array:
    """D correlations / d coordinates of a Toeplitz structure, (lags, lags), by complex steps: exact to rounding."""
    moved: Any = x[None, :] + 1j * STEP * np.eye(len(x))
    return np.asarray(toeplitz_correlations(moved).imag.T / STEP, dtype=np.float64)


def bound_slopes(x: Array, held: Sequence[int], tied: Sequence[tuple[int, int]]) -> Array:
    """D coordinates / d free coordinates, (lags, lags), where some correlations are held or equal to earlier ones.

    The coordinates of those follow from the others: C dx = 0 with a row of d rho for each (and a difference of two for
    a tie), so that dx_bound = -C_bound^-1 C_free dx_free. Columns of bound coordinates are zero.
    """
    slopes, bound = lag_slopes(x), [*held, *(late for _, late in tied)]
    rows = np.array([*(slopes[j] for j in held), *(slopes[late] - slopes[early] for early, late in tied)])
    free = [j for j in range(len(x)) if j not in bound]
    out = np.zeros((len(x), len(x)))
    out[free, free] = 1.0
    out[np.ix_(bound, free)] = -np.linalg.solve(rows[:, bound], rows[:, free])
    return out
