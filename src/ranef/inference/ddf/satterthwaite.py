"""Satterthwaite's degrees of freedom of linear combinations of the fixed effects.

For a contrast l, with v(psi) = l' Var(beta_hat) l and psi = (theta, sigma), the variance estimate v is matched to a
scaled chi-square: df = 2 v^2 / (g' A g), g = dv/dpsi, A = 2 H^-1 the asymptotic covariance of psi, H the Hessian of
the deviance (Giesbrecht & Burns 1985; Fai & Cornelius 1996; Kuznetsova, Brockhoff & Christensen 2017). Gaussian models
of the Laplace engine are linear mixed models too: `gaussian` has the pieces.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ranef import _core
from ranef.engines.covariance import PartialCovariance, frozen
from ranef.engines.estimate import Estimate, LaplaceEstimate, Result, SmallSample
from ranef.engines.linear import cells
from ranef.errors import NotAvailableError
from ranef.frame.design import Array
from ranef.inference.ddf.gaussian import engines_covariance, gaussian, hessian, instead, objection, padded
from ranef.inference.ddf.gaussian import phi as phi_of
from ranef.inference.ddf.method import Joint, Method, basis_of, kept, partial_of, quadratic, spread, unit_rows
from ranef.inference.memory import remembered

if TYPE_CHECKING:
    from ranef.model import Fit

FLAT = 1e-8  # eigenvalues of the unit-diagonal Hessian below this are flat directions and are left out
ALIKE = 1e-8  # relative differences of degrees of freedom below this are rounding
QUICK = 250_000_000  # entries of the factor times levels: about a second
AT_ONCE = 20_000_000  # numbers of the right-hand sides that are solved together


def check(m: Fit) -> None:
    """Refuse where the covariance of the coefficients is not a function of variance parameters alone."""
    if reason := reason_against(m):
        raise NotAvailableError(f"ddf='satterthwaite' is not available: {reason}; {instead(m)}")


def reason_against(m: Fit) -> str:
    """Return why a fit has no such degrees of freedom; "" if it has."""
    if isinstance(m.estimate, Estimate):
        return ""
    known = _known(m)
    return objection(m) if known is None else known.reason


def with_small_sample(m: Fit) -> Result:
    """Return the estimate with what degrees of freedom need, for a fit whose rows go."""
    e = m.estimate
    if not isinstance(e, LaplaceEstimate) or e.small_sample is not None or not m.distribution.is_gaussian_identity:
        return e
    if reason := objection(m):
        none = np.zeros((0, 0))
        return replace(e, small_sample=SmallSample(reason, none, none[None], none))
    slopes, spread_of_psi = ingredients(m)
    return replace(e, small_sample=SmallSample("", frozen(phi(m)), frozen(slopes), frozen(spread_of_psi)))


def _known(m: Fit) -> SmallSample | None:
    return m.estimate.small_sample if isinstance(m.estimate, LaplaceEstimate) else None


def coefficient_df(m: Fit) -> Array:
    """Degrees of freedom of each fixed effect, (p,): NaN for dropped columns, infinite where there are none.

    In linear models without random effects they are the residual ones. Levels of a fixed factor of many levels have
    theirs where they take no time to speak of (`knows_levels`), else residual ones.
    """
    estimate = m.estimate
    if not isinstance(estimate, Estimate):
        if not m.distribution.is_gaussian_identity or reason_against(m):
            return abs(estimate.beta) + np.inf  # NaN stays NaN
        return np.where(np.isnan(estimate.beta), np.nan, contrast_df(m, np.eye(len(estimate.beta))))
    if not m.layout.terms:
        return np.where(np.isnan(estimate.beta), np.nan, float(m.df_residual))
    found, partial = of_core(m)[2], partial_of(m)
    if partial is None:
        return found
    out = np.where(np.isnan(estimate.beta), np.nan, float(m.nobs - estimate.rank))
    if knows_levels(m):
        for first, count in partial.wide:
            at = slice(first, first + count)
            out[at] = np.where(kept(m)[at], contrast_df(m, unit_rows(m, at)), np.nan)
    out[partial.columns] = found
    return out


def knows_levels(m: Fit) -> bool:
    """Whether `coefficient_df` has degrees of freedom of every level: a solve each, `QUICK` multiplications or less."""
    partial = partial_of(m)
    return partial is None or (partial.fits and int(partial.levels.sum()) * m.core.structure[2] <= QUICK)


def contrast_df(m: Fit, contrasts: Array) -> Array:
    """Degrees of freedom of each row of `contrasts`, (r, p); entries at dropped columns are not looked at."""
    rows = np.atleast_2d(contrasts)
    if isinstance(m.estimate, Estimate) and not m.layout.terms:
        return np.full(len(rows), float(m.df_residual))
    here, partial = kept(m), partial_of(m)
    if partial is not None:
        return _partial_df(m, partial, rows)
    return _matched_rows(m, phi(m), rows, here)


def _matched_rows(m: Fit, cov: Array, rows: Array, here: Array) -> Array:
    """Degrees of freedom of rows over the coefficients that `cov` is of; those not `here` were dropped."""
    rows = rows[:, here]
    slopes, spread_of_psi = ingredients(m)
    g = np.einsum("ri,mij,rj->mr", rows, slopes[:, here][:, :, here], rows, optimize=True)
    v = quadratic(rows, cov[np.ix_(here, here)])
    return matched(v, g, spread_of_psi)


def _partial_df(m: Fit, partial: PartialCovariance, rows: Array) -> Array:
    """Degrees of freedom of rows where some coefficients are levels of a fixed factor of many levels."""
    out = _matched_rows(m, partial.dense, rows[:, partial.columns], kept(m)[partial.columns])
    with_levels = np.flatnonzero((rows[:, partial.levels & kept(m)] != 0).any(axis=1))
    step = max(1, AT_ONCE // (m.core.structure[0] + partial.size))
    for first in range(0, len(with_levels), step):
        at = with_levels[first : first + step]
        out[at] = _solved_df(m, partial, np.where(kept(m), rows[at], 0.0))
    return out


def _solved_df(m: Fit, partial: PartialCovariance, rows: Array) -> Array:
    """Degrees of freedom of rows from d l'Phi l = g' dSigma g, g = Z'V^-1 X Phi l: a solve each."""
    e = m.estimate
    assert isinstance(e, Estimate)
    v = np.diag(partial.between(rows))
    theta = np.ascontiguousarray(e.theta)
    found = m.core.sensitivity_of_rows(np.ascontiguousarray(rows), theta, e.reml)
    slopes = []
    for term, factor, g in zip(m.layout.terms, e.factors, found, strict=True):
        squares = np.einsum("lar,lbr->abr", g, g)
        # dSigma / dLambda_ij = E_ij Lambda' + Lambda E_ji
        slopes += [2 * e.sigma**2 * factor[:, j] @ squares[i] for i, j in cells(len(term.names), term.structure)]
    return matched(v, np.array([*slopes, 2 * v / e.sigma]), ingredients(m)[1])


def phi(m: Fit) -> Array:
    """Return (X'V^-1X)^-1."""
    if isinstance(m.estimate, Estimate):
        return m.estimate.vcov
    known = _known(m)
    return phi_of(m) if known is None else known.vcov


def matched(v: Array, g: Array, spread: Array) -> Array:
    """2 v^2 / (g' A g) for several contrasts; g is (m, r)."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        g = g / v  # of log v: squares of variances leave the range of numbers before standard errors do
        return 2 / np.sum(g * (spread @ g), axis=0)


@remembered
def ingredients(m: Fit) -> tuple[Array, Array]:
    """(d vcov / d psi (m, p, p), A (m, m)) at the estimate."""
    estimate = m.estimate
    if (done := _known(m)) is not None:
        return done.slopes, done.spread
    if not isinstance(estimate, Estimate):
        found = gaussian(m)
        known = m.task.wishes is None and found.forms.exact
        return padded(m, found.forms.slopes), covariance(hessian(found)) if known else engines_covariance(m)
    return of_core(m)[:2]


@remembered
def of_core(m: Fit) -> tuple[Array, Array, Array]:
    """`ingredients` of a fit of the linear engine, and the degrees of freedom of its coefficients (dense columns)."""
    e = m.estimate
    assert isinstance(e, Estimate)
    return m.core.satterthwaite(e.theta, e.sigma, e.reml, FLAT)


def covariance(curved: Array) -> Array:
    """2 H^-1 on the directions in which the deviance curves upwards, in units that make H's diagonal 1."""
    return 2 * _core.inverse_upwards(np.ascontiguousarray(curved, np.float64), FLAT)


# ---- several hypotheses ----------------------------------------------------------------------------------------------


def joint(m: Fit, hypotheses: Array, values: Array, _about: Array) -> Joint:
    """F is a mean of squared independent t; its df match the expectation (Fai & Cornelius 1996, eq. 8-10)."""
    basis = basis_of(m, hypotheses, values, phi(m))
    df = contrast_df(m, spread(basis, m)) if len(basis.values) else np.zeros(0)
    return Joint(basis.statistic, len(df), pooled(df), basis.statistic)


def pooled(df: Array) -> float:
    """2 E / (E - q), E = sum of df / (df - 2) the expectation of q F; 2, as lmerTest, where a df <= 2 has none."""
    if not len(df):
        return float("nan")
    if len(df) == 1 or np.ptp(df) <= ALIKE * df.max() or np.isinf(df).all():
        return float(df.mean())
    if df.min() <= 2:
        return 2.0
    excess = float(np.sum(2 / (df - 2)))  # E - q
    return 2 * (excess + len(df)) / excess


METHOD = Method("satterthwaite", "Satterthwaite's degrees of freedom", check, contrast_df, joint, phi)
