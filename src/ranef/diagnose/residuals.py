"""Residuals of a fit. A type is one function of `Observed` and one row of `TYPES`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.diagnose.unit_deviance import UNIT_DEVIANCES
from ranef.engines.estimate import Array
from ranef.errors import NotAvailableError, OptionError, nearest
from ranef.families import Data, Distribution, Law
from ranef.model import design_of
from ranef.predict.rows import aligned, fitted_predictors, law

if TYPE_CHECKING:
    from ranef.model import Fit

#: Families with variance sigma^2 V(mu): R's V, and so its Pearson residuals, are without sigma.
SIGMA_APART = ("gaussian", "gamma", "inverse_gaussian")
TINY = 1e-12  # probabilities are kept so far from 0 and 1 before they become normal quantiles


@dataclass(frozen=True, slots=True)
class Observed:
    """What residuals are made of: the law of the responses, its predictors, the data, the means.

    `unit` is sigma where it is one number that the variance function leaves out, else 1: Pearson residuals keep it.
    `censor` says how rows are censored (-1 below y, 1 above, 2 in (y, upper], 0 not at all), None where none is.
    """

    family: Distribution
    law: Law
    eta: Array
    data: Data
    mu: Array
    unit: float
    seed: int
    censor: Any = None
    upper: Array | None = None

    @property
    def y(self) -> Array:
        """The response, on the scale of the mean."""
        return self.data.y

    @property
    def sd(self) -> Array:
        """Standard deviation of each response."""
        return np.sqrt(np.maximum(self.law.variance(self.eta, self.data), 0.0))  # a variance of none may round below


def response(o: Observed) -> Array:
    """Return y - mu."""
    return o.y - o.mu


def pearson(o: Observed) -> Array:
    """Return (y - mu) / SD(y); sigma, where it is one number, is left in, as in lme4 and glmmTMB."""
    return o.unit * scaled(o)


def scaled(o: Observed) -> Array:
    """Return (y - mu) / SD(y); where separation made a row certain and right, its limit 0."""
    sd = o.sd
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((o.y == o.mu) & (sd == 0), 0.0, (o.y - o.mu) / sd)


def _called(family: Distribution) -> str:
    return f"zero-inflated {family.name}" if family.zero_inflation else family.name


def working(o: Observed) -> Array:
    """Return (y - mu) / (d mu / d eta), those of the last step of iterated least squares."""
    if not o.family.plain_mean:
        raise NotAvailableError(
            f"residuals: the mean of {_called(o.family)} has no single predictor, so that it has no working residuals; "
            f"use 'quantile' or 'pearson' ones"
        )
    slope = np.asarray(o.family.link_of(o.family.parameters[0]).slope(o.eta[:, 0]))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(o.y == o.mu, 0.0, (o.y - o.mu) / slope)  # separation makes slopes 0, and rows right


def deviance_residuals(o: Observed) -> Array:
    """Return signed roots of the unit deviances 2 (log f(y; mean y) - log f(y; mean mu))."""
    if o.family.is_gaussian_identity and o.unit != 1.0:
        return pearson(o)
    unit = UNIT_DEVIANCES.get(o.family.entry.name)
    if unit is None or not o.family.plain_mean:
        raise NotAvailableError(
            f"residuals: {_called(o.family)} has no deviance residuals here; use 'quantile' or 'pearson' ones"
        )
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 of rows that separation made certain
        squares = np.where(o.y == o.mu, 0.0, unit(o.y, o.mu, o.eta, o.data, o.family))
    return np.sign(o.y - o.mu) * np.sqrt(np.maximum(squares, 0.0))


def _ends(o: Observed, low: Array, high: Array) -> tuple[Array, Array]:
    """Return F at the ends of where censored responses lie, of the others F(y-) and F(y) as they are."""
    interval = o.censor == 2
    upper = high if o.upper is None else o.law.cdf(o.eta, replace(o.data, y=np.where(interval, o.upper, o.y)))[1]
    return (
        np.select([o.censor == -1, o.censor > 0], [0.0, high], low),
        np.select([o.censor == 1, interval], [1.0, upper], high),
    )


def quantile(o: Observed) -> Array:
    """Return normal quantiles of F(y), uniform between F(y-) and F(y) where they differ (Dunn & Smyth 1996).

    Of a censored response all that F may be is between its values at the ends of where the response lies.
    """
    from scipy.special import ndtri

    if o.family.is_gaussian_identity and o.censor is None:
        return scaled(o)
    low, high = o.law.cdf(o.eta, o.data)
    if o.censor is not None:
        low, high = _ends(o, low, high)
    u = low + (high - low) * np.random.default_rng(o.seed).uniform(size=len(o.y))
    return np.asarray(ndtri(np.clip(u, TINY, 1 - TINY)))


TYPES: dict[str, Callable[[Observed], Array]] = {
    "response": response,
    "pearson": pearson,
    "deviance": deviance_residuals,
    "scaled": scaled,
    "working": working,
    "quantile": quantile,
}


def residuals(m: Fit, type: str = "response", align: str = "rows", seed: int = 0) -> Array:  # noqa: A002
    """Residuals given the conditional modes.

    Raises
    ------
    OptionError
        If the type or the alignment is unknown.
    NotAvailableError
        If the fit keeps no rows (after `slim()`), or the family has no residuals of that type.
    """
    if type not in TYPES:
        raise OptionError(f"residuals: type={type!r} is unknown; {nearest(type, TYPES)}")
    if m.distribution.counts:
        return aligned(m, of_counts(observed(m, seed), type), align)
    if m.distribution.entry.nominal:
        raise NotAvailableError(
            "residuals: categories without order have none: no category lies above or below its expectation; compare "
            "predict(type='probs') with the categories, or fit one category against the rest (family='binomial')"
        )
    if type == "deviance" and m.formula.censored:
        raise NotAvailableError(f"residuals: {type} ones of censored responses are not available; 'quantile' ones are")
    return aligned(m, TYPES[type](observed(m, seed)), align)


def observed(m: Fit, seed: int = 0) -> Observed:
    """Gather what residuals are made of."""
    design = design_of(m, "residuals")
    rows, eta = fitted_predictors(m, "residuals")
    answers = law(m)
    mu = answers.mean(eta, rows.data)
    return Observed(m.distribution, answers, eta, rows.data, mu, _unit(m), seed, design.censor, design.upper)


# ---- counts of categories --------------------------------------------------------------------------------------------


def _shares(o: Observed) -> Array:
    """Return the shares of the categories less the expected ones; NaN in rows without outcomes."""
    with np.errstate(invalid="ignore"):
        return o.y / o.y.sum(axis=1, keepdims=True) - o.mu


def _standardised(o: Observed) -> Array:
    """Return them divided by sqrt(mu (1 - mu) / n), the standard deviation of one share; NaN likewise."""
    with np.errstate(invalid="ignore"):
        return _shares(o) * np.sqrt(o.y.sum(axis=1, keepdims=True) / (o.mu * (1 - o.mu)))


def _deviances(o: Observed) -> Array:
    """Return signed roots of 2 (y log(y / mu) - (y - mu)), mu the expected counts; 0 in rows without outcomes.

    As the counts of a row have the sum of their expectations, their squares add up to its multinomial deviance.
    """
    size = o.y.sum(axis=1, keepdims=True)
    expected = np.where(size > 0, size * o.mu, 1.0)
    unit = UNIT_DEVIANCES["poisson"](o.y, expected, o.eta, o.data, o.family)
    return np.where(size > 0, np.sign(o.y - expected) * np.sqrt(np.maximum(unit, 0.0)), 0.0)


OF_COUNTS: dict[str, Callable[[Observed], Array]] = {
    "response": _shares,
    "pearson": _standardised,
    "scaled": _standardised,
    "deviance": _deviances,
}


def of_counts(o: Observed, kind: str) -> Array:
    """Return residuals of counts of categories, (n, J).

    Raises
    ------
    NotAvailableError
        For types that need one response a row.
    """
    if kind not in OF_COUNTS:
        raise NotAvailableError(
            f"residuals: counts of categories have no {kind} ones; "
            f"{', '.join(map(repr, OF_COUNTS))} have a column for every category"
        )
    return OF_COUNTS[kind](o)


def _unit(m: Fit) -> float:
    varies = np.isnan(m.sigma) or any("dispersion" in t.components for t in m.layout.terms)
    altered = m.distribution.zero_inflation or m.distribution.bounded
    apart = m.distribution.entry.name in SIGMA_APART and not altered
    return m.sigma if apart and not varies else 1.0


def deviance(m: Fit) -> float:
    """Sum of the squared deviance residuals; of linear models -2 log-likelihood or the REML criterion, as in lme4.

    A category that is certain has a log-likelihood of 0: -2 log P(Y = y) is what a row of categories has more.
    """
    if m.task.linear:
        return m.criterion
    counts = design_of(m, "deviance").frequencies
    if m.distribution.categorical and not m.distribution.counts:
        rows, eta = fitted_predictors(m, "deviance")
        squares = -2 * law(m).density(eta, rows.data)
    else:
        squares = residuals(m, "deviance") ** 2
    return float(np.sum(squares if counts is None else (squares.T * counts).T))


def residual_quantiles(m: Fit) -> Array:
    """Minimum, quartiles and maximum of the scaled residuals."""
    if m.digest:
        return m.digest.residual_quantiles
    custom = m.distribution.custom
    if m.distribution.entry.nominal or (custom is not None and custom.variance is None):
        return np.empty(0)
    found = residuals(m, "scaled")
    finite = found[np.isfinite(found)]
    if not finite.size:  # a response without a variance, as Student's t with fewer than two degrees of freedom
        return np.full(5, np.nan)
    return np.quantile(finite, [0, 0.25, 0.5, 0.75, 1])
