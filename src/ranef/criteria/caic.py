"""The conditional Akaike criterion: for predictions of the groups at hand, not of new ones.

cAIC = -2 log f(y | beta_hat, b_hat) + 2 df (Vaida & Blanchard 2005). In linear models df = tr(d y_hat / d y) + 1 with
the covariance parameters estimated (Greven & Kneib 2010): with H the hat matrix at theta, d the profiled criterion,

    tr(d y_hat / d y) = tr H - sum_jk (B^-1)_jk (d2 d / d theta_k d y)' (d y_hat / d theta_j),   B = d2 d / d theta2,
    d y_hat / d theta_j = W^-1 P V_j P y,   V_j = dV / d theta_j,
    d2 d / d theta_k d y = m (-2 P V_k P y / s + 2 (y'P V_k P y) P y / s^2),   s = y'Py,  m = n or n - p,

P v being the weighted residual of v fitted as a response at theta. (cAIC4 1.0 takes half of the last term, which makes
its df differ by some hundredths; this one is the derivative.) Poisson and binary models take a fit for every row
(Saefken, Kneib, van Waveren & Greven 2014).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ranef.engines import linear
from ranef.engines.estimate import Array, Estimate
from ranef.engines.task import Point
from ranef.errors import NotAvailableError
from ranef.inference.comparable import check_likelihoods
from ranef.inference.noted import Note
from ranef.inference.resampling import drawable, repeated
from ranef.model import check_fit, design_of
from ranef.predict.rows import fitted_design, fitted_predictors, law, linear_predictor

if TYPE_CHECKING:
    from ranef.frame import Design
    from ranef.model import Fit


Held = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ConditionalAIC:
    """A conditional Akaike criterion.

    Attributes
    ----------
    caic : float
        -2 loglik + 2 df.
    loglik : float
        Log density of the response given the conditional modes.
    df : float
        Effective degrees of freedom, with the estimation of the covariance parameters.
    hat_trace : float
        Trace of the hat matrix with the covariance parameters known; NaN where there is none.
    notes : tuple of Note
    """

    caic: float
    loglik: float
    df: float
    hat_trace: float
    notes: tuple[Note, ...] = ()

    def __repr__(self) -> str:
        lines = [f"cAIC {self.caic:.4f}: conditional loglik {self.loglik:.4f}, effective df {self.df:.4f}"]
        return "\n".join([*lines, *(f"* {note.text}" for note in self.notes)])


def caic(m: Fit) -> ConditionalAIC:
    """Return the conditional Akaike criterion of a fit: which random effects help to predict the groups at hand.

    A row of frequency w counts as w rows.

    Parameters
    ----------
    m : Fit
        With its rows. Linear mixed models (REML or ML); Poisson models (a fit for every positive count) and binary ones
        (a fit for every row).

    Returns
    -------
    ConditionalAIC

    Raises
    ------
    NotAvailableError
        For other families: the bias of their conditional likelihood has no unbiased estimate.

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
    >>> found = rf.caic(m)
    >>> round(found.caic, 2), round(found.df, 2)
    (1711.52, 31.25)
    """
    check_fit(m, "caic")
    design_of(m, "caic")
    check_likelihoods([m], "caic")
    if m.task.linear:
        return _linear(m)
    if m.distribution.is_gaussian_identity and (own := repeated(m, "caic")).task.linear:
        return _linear(own)
    if m.distribution.zero_inflation or m.distribution.truncated or m.distribution.bounded:
        raise NotAvailableError("caic: zero inflation and truncation are not covered; use rf.compare")
    if m.family == "poisson" and m.link == "log":
        return _by_refits(drawable(m, "caic"), _poisson_df)
    design = design_of(m, "caic")
    single = design.trials is None or bool((np.asarray(design.trials) == 1).all())
    if m.family == "binomial" and m.link == "logit" and single:
        return _by_refits(drawable(m, "caic"), _binary_df)
    raise NotAvailableError(
        f"caic: family={m.family!r}, link={m.link!r}: an unbiased correction is known for linear mixed models (without "
        f"patterned covariance structures), Poisson models with a log link and binary ones with a logit link"
    )


# ---- linear ----------------------------------------------------------------------------------------------------------


def _linear(m: Fit) -> ConditionalAIC:
    design = design_of(m, "caic")
    rows = fitted_design(m, "caic")
    w = np.ones(m.nobs) if design.weights is None else np.asarray(design.weights)
    rest = np.asarray(design.y) - linear_predictor(m, rows, [True] * len(rows.terms))
    variance = m.sigma**2 / w
    loglik = float(-0.5 * np.sum(np.log(2 * np.pi * variance) + rest**2 / variance))
    trace = hat_trace(m)
    free = free_parameters(m)
    extra = correction(m, w * rest, free) if free.any() else 0.0
    df = trace + extra + 1
    notes = () if free.all() else (Note("boundary", "parameters on the boundary are held there (Greven & Kneib 2010)"),)
    return ConditionalAIC(-2 * loglik + 2 * df, loglik, df, trace, notes)


def hat_trace(m: Fit) -> float:
    """Return the trace of the hat matrix at theta: the sum of w Var(x'beta + z'b | y) / sigma^2."""
    rows = fitted_design(m, "hat_trace")
    point = Point(rows.fixed, [rows.terms[t] for t in range(len(rows.terms))], rows.n, 0, 0)
    variance = m.engine.variance(m.core, point, [True] * len(rows.terms))
    return float(np.sum(variance if rows.weights is None else variance * rows.weights)) / m.sigma**2


def free_parameters(m: Fit) -> Held:
    """Return which entries of theta are not held: those of columns of Lambda that are not 0."""
    assert isinstance(m.estimate, Estimate)
    out: list[bool] = []
    for info, factor in zip(m.layout.terms, m.estimate.factors, strict=True):
        alive = np.abs(np.diag(factor)) > 0
        column = [bool(alive[j]) for _, j in linear.cells(len(info.names), info.structure)]
        out += column
    return np.array(out, dtype=bool)


def correction(m: Fit, py: Array, free: Held) -> float:
    """Return what the estimation of theta adds to the trace; `py` is P y."""
    design = design_of(m, "caic")
    estimate = m.estimate
    assert isinstance(estimate, Estimate)
    moved = np.array([residual(m, design, v) for v in slopes(m, py, free)])  # P V_j P y
    s = estimate.pwrss  # y'Py
    count = m.nobs - (estimate.rank if estimate.reml else 0)
    y = np.asarray(design.y) - (0.0 if design.offset is None else np.asarray(design.offset))
    mixed = count * (-2 * moved / s + 2 * np.outer(moved @ y, py) / s**2)
    fitted = moved if design.weights is None else moved / np.asarray(design.weights)
    kept = np.flatnonzero(free)
    b = profiled_hessian(m)[np.ix_(kept, kept)]
    return -float(np.trace(np.linalg.solve(b, mixed @ fitted.T)))


def slopes(m: Fit, py: Array, free: Held) -> list[Array]:
    """Return V_j P y for every free theta_j: Z (E_j Lambda' + Lambda E_j') Z'Py."""
    from ranef.inference.crossproducts import columns

    design = design_of(m, "caic")
    assert isinstance(m.estimate, Estimate)
    out, at = [], 0
    for info, term, factor in zip(m.layout.terms, design.terms, m.estimate.factors, strict=True):
        z = columns(term, None, design.n)
        u = np.column_stack([np.bincount(term.codes, z[:, c] * py, len(term.levels)) for c in range(z.shape[1])])
        for i, j in linear.cells(len(info.names), info.structure):
            if free[at]:
                unit = np.zeros_like(factor)
                unit[i, j] = 1.0
                b = u @ (unit @ factor.T + factor @ unit.T)
                out.append(np.einsum("nk,nk->n", z, b[term.codes]))
            at += 1
    return out


def residual(m: Fit, design: Design, v: Array) -> Array:
    """Return P v: the weighted residuals of v fitted as a response at the estimated theta."""
    assert isinstance(m.estimate, Estimate)
    plain = replace(design, y=np.ascontiguousarray(v), offset=None)
    core = linear.make_core(plain, threads=m.call.control.threads)
    found = core.fit(m.estimate.reml, np.array(m.estimate.theta), {"max_evaluations": 1})
    beta, modes = np.asarray(found["beta"]), [np.asarray(b) for b in found["b"]]
    from ranef import _core

    eta = _core.linear_predictor(
        linear.sources(plain.fixed), np.ascontiguousarray(beta), linear.term_sources(plain.terms), modes, None, plain.n
    )
    rest = v - np.asarray(eta)
    return rest if design.weights is None else rest * np.asarray(design.weights)


def profiled_hessian(m: Fit) -> Array:
    """Return the Hessian of the criterion profiled over sigma."""
    e = m.estimate
    assert isinstance(e, Estimate)
    h = np.asarray(m.core.hessian(np.ascontiguousarray(e.theta), e.sigma, e.reml))
    return h[:-1, :-1] - np.outer(h[:-1, -1], h[-1, :-1]) / h[-1, -1]


# ---- Poisson and binary ----------------------------------------------------------------------------------------------


def _by_refits(m: Fit, effective: Callable[[Fit, Array], float]) -> ConditionalAIC:
    rows, eta = fitted_predictors(m, "caic")
    loglik = float(np.sum(law(m).density(eta, rows.data)))
    df = effective(m, eta[:, 0])
    return ConditionalAIC(-2 * loglik + 2 * df, loglik, df, float("nan"))


def _poisson_df(m: Fit, eta: Array) -> float:
    """Sum of y_i (eta_i(y) - eta_i(y with y_i - 1)) (Saefken et al. 2014)."""
    y = np.asarray(design_of(m, "caic").y)
    return float(sum(y[i] * (eta[i] - _eta_with(m, i, y[i] - 1)) for i in np.flatnonzero(y > 0).tolist()))


def _binary_df(m: Fit, eta: Array) -> float:
    """Sum of mu_i (1 - mu_i) (eta_i(y_i = 1) - eta_i(y_i = 0)) (Efron 2004; Saefken et al. 2014)."""
    y = np.asarray(design_of(m, "caic").y)
    mu = 1 / (1 + np.exp(-eta))
    total = 0.0
    for i in range(len(y)):
        other = _eta_with(m, i, 1 - y[i])
        total += mu[i] * (1 - mu[i]) * (eta[i] - other if y[i] > 0 else other - eta[i])
    return float(total)


def _eta_with(m: Fit, i: int, value: float) -> float:
    y = np.array(design_of(m, "caic").y)
    y[i] = value
    return float(fitted_predictors(m.refit(y))[1][i, 0])
