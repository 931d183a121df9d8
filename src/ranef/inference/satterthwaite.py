"""Satterthwaite's degrees of freedom of linear combinations of the fixed effects.

For a contrast l, with v(psi) = l' Var(beta_hat) l and psi = (theta, sigma), the variance estimate v is matched to a
scaled chi-square: df = 2 v^2 / (g' A g), g = dv/dpsi, A = 2 H^-1 the asymptotic covariance of psi, H the Hessian of
the deviance (Giesbrecht & Burns 1985; Fai & Cornelius 1996; Kuznetsova, Brockhoff & Christensen 2017).
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from ranef.engines.estimate import Array, Estimate

if TYPE_CHECKING:
    from ranef.model import Fit

LOCK = Lock()  # the core differentiates by moving its theta and back: one thread at a time
FLAT = 1e-8  # eigenvalues of the unit-diagonal Hessian below this are flat directions and are left out


def coefficient_df(m: Fit) -> Array:
    """Degrees of freedom of each fixed effect, (p,); NaN for dropped columns."""
    estimate = m.estimate
    if estimate.tests == "z":
        return np.where(np.isnan(estimate.beta), np.nan, np.inf)
    if not m.layout.terms:
        return np.where(np.isnan(estimate.beta), np.nan, float(m.df_residual))
    slopes, spread = ingredients(m)
    return matched(np.diag(estimate.vcov), np.diagonal(slopes, axis1=1, axis2=2), spread)


def contrast_df(m: Fit, contrasts: Array) -> Array:
    """Degrees of freedom of each row of `contrasts`, (r, p); entries at dropped columns are not looked at."""
    estimate, rows = m.estimate, np.atleast_2d(contrasts)
    if estimate.tests == "z":
        return np.full(len(rows), np.inf)
    if not m.layout.terms:
        return np.full(len(rows), float(m.df_residual))
    kept = ~np.isnan(estimate.beta)
    rows = rows[:, kept]
    slopes, spread = ingredients(m)
    g = np.einsum("ri,mij,rj->mr", rows, slopes[:, kept][:, :, kept], rows)
    v = np.einsum("ri,ij,rj->r", rows, estimate.vcov[np.ix_(kept, kept)], rows)
    return matched(v, g, spread)


def matched(v: Array, g: Array, spread: Array) -> Array:
    """2 v^2 / (g' A g) for several contrasts; g is (m, r)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return 2 * v**2 / np.einsum("ir,ij,jr->r", g, spread, g)


def ingredients(m: Fit) -> tuple[Array, Array]:
    """(d vcov / d psi (m, p, p), A (m, m)) at the estimate."""
    estimate = m.estimate
    assert isinstance(estimate, Estimate)
    at = (np.ascontiguousarray(estimate.theta), estimate.sigma, estimate.reml)
    with LOCK:
        slopes, hessian = m.core.vcov_jacobian(*at), m.core.hessian(*at)
    return np.asarray(slopes), covariance(np.asarray(hessian))


def covariance(hessian: Array) -> Array:
    """2 H^-1 on the directions in which the deviance curves upwards, in units that make H's diagonal 1."""
    unit = np.sqrt(np.maximum(np.diag(hessian), np.finfo(float).tiny))
    unit = np.where(np.diag(hessian) > 0, unit, 1.0)
    values, vectors = np.linalg.eigh(hessian / np.outer(unit, unit))
    up = values > FLAT
    half = vectors[:, up] / np.sqrt(values[up]) / unit[:, None]
    return 2 * half @ half.T
