"""The variance of a response by where it comes from, on the scale of the mean's linear predictor.

Fixed effects: the variance of X beta over the rows. A random-effects term: the mean over the rows of z' Sigma z, which
is right for random slopes too (Johnson 2014). Residuals: a gaussian's residual variance; for other families the
variance that the response has on the scale of the link (Nakagawa & Schielzeth 2010; Nakagawa, Johnson & Schielzeth
2017): the latent one of a binary or ordinal response ("theoretical"), else from mean mu and variance V of the response

    "lognormal"  log(1 + V / mu^2), for log links,
    "trigamma"   trigamma(mu^2 / V), for log links,
    "delta"      V (d eta / d mu)^2.

mu is the response at the average of the mean's predictor over rows and random effects (for a log link, the marginal
mean). A random effect for every row is overdispersion, and counts as residual.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines.estimate import Array
from ranef.errors import NotAvailableError, OptionError, nearest
from ranef.families import Data, link_of
from ranef.inference.noted import NotedTable
from ranef.inference.varcorr import unique
from ranef.model import check_fit, design_of
from ranef.predict.rows import (
    Rows,
    fitted_design,
    law,
    law_before_bounds,
    linear_predictor,
    predictors,
    prior_variance,
    terms_of,
)

if TYPE_CHECKING:
    from ranef.model import Fit

LATENT = {"logit": np.pi**2 / 3, "probit": 1.0, "cloglog": np.pi**2 / 6}
METHODS = ("auto", "theoretical", "lognormal", "trigamma", "delta")


@dataclass(frozen=True, slots=True)
class Part:
    """The variance of one random-effects term: the mean of z' Sigma z, of intercepts and slopes."""

    key: str
    group: str
    variance: float
    by_row: bool


@dataclass(frozen=True, slots=True)
class Variances:
    """Variances on the scale of the linear predictor.

    Attributes
    ----------
    fixed : float
    parts : tuple of Part
        Random-effects terms of the mean.
    distribution : float
        Of the response given all effects.
    method : str
        How that was found.
    """

    fixed: float
    parts: tuple[Part, ...]
    distribution: float
    method: str

    @property
    def random(self) -> float:
        """Of all random effects of groups."""
        return sum(p.variance for p in self.parts if not p.by_row)

    @property
    def residual(self) -> float:
        """Of the response given groups: the distribution's and that of random effects for every row."""
        return self.distribution + sum(p.variance for p in self.parts if p.by_row)

    @property
    def total(self) -> float:
        """Of everything."""
        return self.fixed + self.random + self.residual

    def of_group(self, group: str) -> float:
        """Of the random effects of one grouping factor."""
        return sum(p.variance for p in self.parts if p.group == group and not p.by_row)


def variances(m: Fit, method: str = "auto") -> Variances:
    """Return the variances of a fit.

    Parameters
    ----------
    m : Fit
        With its rows.
    method : "auto" | "theoretical" | "lognormal" | "trigamma" | "delta"
        For the residual variance; "auto": a gaussian's own, "theoretical" for binary and ordinal responses,
        "lognormal" for log links, "delta" otherwise.

    Raises
    ------
    OptionError
        If the method does not go with the family and link.
    NotAvailableError
        If the fit is slim, or the family has no such variance.
    """
    rows = fitted_design(m, "variances")
    fixed = linear_predictor(m, rows, [False] * len(rows.terms))
    offset = rows.components[0].offset
    explained = fixed if offset is None else fixed - offset
    counts = counts_of(m)
    spread = float(counts @ (explained - mean_of(m, explained)) ** 2 / max(counts.sum() - 1, 1))
    keys = unique([t.key for t in m.layout.terms])
    parts = tuple(_part(m, rows, t, keys[t]) for t in terms_of(m, 0))
    used, value = residual_variance(m, rows, fixed, method)
    return Variances(spread, parts, value, used)


def counts_of(m: Fit) -> Array:
    """Return how many rows each row stands for, (n,): its frequency weight."""
    found = design_of(m, "variances").frequencies
    return np.ones(m.nobs) if found is None else np.asarray(found, dtype=np.float64)


def mean_of(m: Fit, values: Any) -> float:
    """Return the mean over all rows that the rows stand for."""
    values = np.asarray(values, dtype=np.float64)
    return float(np.average(np.broadcast_to(values, (m.nobs,)), weights=counts_of(m)))


def _part(m: Fit, rows: Rows, t: int, key: str) -> Part:
    info = m.layout.terms[t]
    average = mean_of(m, prior_variance(rows.terms[t], m.estimate.covariances[t], rows.n))
    return Part(key, info.label, average, is_by_row(m, t))


def is_by_row(m: Fit, t: int) -> bool:
    """Whether a term is a random effect for every row, which is overdispersion."""
    return len(m.layout.terms[t].levels) >= m.nobs and not m.task.linear


# ---- the residual variance -------------------------------------------------------------------------------------------


def residual_variance(m: Fit, rows: Rows, fixed: Array, method: str) -> tuple[str, float]:
    """Return the method used and the variance of the response on the scale of the link."""
    if method not in METHODS:
        raise OptionError(f"method={method!r} is unknown; {nearest(method, METHODS)}")
    if m.distribution.is_gaussian_identity:
        eta = predictors(m, rows, [False] * len(rows.terms))
        return "gaussian", mean_of(m, law(m).variance(eta, rows.data))
    used = _used(m, method)
    if used == "theoretical":
        return used, _latent(m)
    mu, variance = typical(m, rows, fixed)
    return used, APPROXIMATIONS[used](m, mu, variance)


def residual_by_row(m: Fit, rows: Rows, method: str) -> Array:
    """Return the variance of the response on the scale of the link at each of some rows, (n,).

    Of other than gaussian models at the mean of the row's responses over the random effects, as `typical` has it.
    """
    eta = predictors(m, rows, [False] * len(rows.terms))
    if method not in METHODS:
        raise OptionError(f"method={method!r} is unknown; {nearest(method, METHODS)}")
    if m.distribution.is_gaussian_identity:
        return np.asarray(law(m).variance(eta, rows.data), dtype=np.float64)
    used = _used(m, method)
    if used == "theoretical":
        return np.full(rows.n, _latent(m))
    if m.link == "log":
        for t in terms_of(m, 0):
            eta[:, 0] += prior_variance(rows.terms[t], m.estimate.covariances[t], rows.n) / 2
    mu, variance = answers_of(m, eta)
    return np.array([APPROXIMATIONS[used](m, float(a), float(b)) for a, b in zip(mu, variance, strict=True)])


def _used(m: Fit, method: str) -> str:
    """Return the method used of another than a gaussian model."""
    used = _default(m) if method == "auto" else method
    if used in ("lognormal", "trigamma") and m.link != "log":
        raise OptionError(f"method={used!r} is for log links; this is {m.link}: use 'delta'")
    if used != "theoretical" and m.distribution.entry.ordinal:
        raise OptionError(f"method={used!r} has no meaning for ordered categories: use 'theoretical'")
    return used


def answers_of(m: Fit, eta: Array) -> tuple[Array, Array]:
    """Return means and variances of responses with these predictors, of one trial each.

    Those of truncated data are of the responses before some were left out: a row's bounds are no property of its mean.
    """
    trials = None if design_of(m, "variances").trials is None else np.ones(len(eta))
    data, answers, eta = Data(np.zeros(len(eta)), trials), law_before_bounds(m), np.asfortranarray(eta)
    return np.asarray(answers.mean(eta, data)), np.asarray(answers.variance(eta, data))


def _default(m: Fit) -> str:
    if m.distribution.entry.support in ("binomial", "ordinal") and m.link in LATENT:
        return "theoretical"
    return "lognormal" if m.link == "log" and m.distribution.entry.support != "binomial" else "delta"


def _latent(m: Fit) -> float:
    if m.family not in ("binomial", "cumulative") or m.link not in LATENT:
        raise NotAvailableError(
            f"family={m.family!r}, link={m.link!r} has no latent variance; binomial and cumulative models with links "
            f"{', '.join(LATENT)} have" + ("" if m.distribution.categorical else ": use method='delta'")
        )
    return float(LATENT[m.link])


def typical(m: Fit, rows: Rows, fixed: Array) -> tuple[float, float]:
    """Return mean and variance of a typical response: at the average predictor, one trial.

    Under a log link the average is that of the marginal means exp(x'beta + z' Sigma z / 2).
    """
    around = np.zeros(rows.n)
    for t in terms_of(m, 0):
        around += prior_variance(rows.terms[t], m.estimate.covariances[t], rows.n)
    if m.link == "log":
        center = float(np.log(mean_of(m, np.exp(fixed + around / 2))))
    else:
        center = mean_of(m, fixed)
    eta = predictors(m, rows, [False] * len(rows.terms))
    row = np.average(eta, axis=0, weights=counts_of(m), keepdims=True)
    row[0, 0] = center
    mu, variance = answers_of(m, row)
    return float(mu[0]), float(variance[0])


def _lognormal(m: Fit, mu: float, variance: float) -> float:  # noqa: ARG001
    return float(np.log1p(variance / mu**2))


def _trigamma(m: Fit, mu: float, variance: float) -> float:  # noqa: ARG001
    from scipy.special import polygamma

    return float(polygamma(1, mu**2 / variance))


def _delta(m: Fit, mu: float, variance: float) -> float:
    link, step = link_of(m.link), 1e-6 * max(abs(mu), 1e-3)
    slope = (float(link.forward(mu + step)) - float(link.forward(mu - step))) / (2 * step)
    return variance * slope**2


APPROXIMATIONS: dict[str, Callable[[Any, float, float], float]] = {
    "lognormal": _lognormal,
    "trigamma": _trigamma,
    "delta": _delta,
}


def variance_decomposition(m: Fit, method: str = "auto") -> NotedTable:
    """Split the variance of the response, on the scale of the link, by where it comes from.

    Parameters
    ----------
    m : Fit
        With its rows.
    method : str
        For the residual variance of other than gaussian models, see `ranef.criteria.variances`.

    Returns
    -------
    NotedTable
        Rows for the fixed effects, every random-effects term and the residuals: `source, variance, share`.

    Raises
    ------
    OptionError
        If the method is not known.
    NotAvailableError
        If the family has no residual variance to set beside, or the fit no rows (`slim`).

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
    >>> [round(float(s), 3) for s in rf.variance_decomposition(m)["share"]]
    [0.279, 0.521, 0.201]
    """
    check_fit(m, "variance_decomposition")
    v = variances(m, method)
    rows = [
        ("fixed effects", v.fixed),
        *((p.key, p.variance) for p in v.parts),
        (f"residual ({v.method})", v.distribution),
    ]
    values = np.array([value for _, value in rows])
    columns = {"source": [name for name, _ in rows], "variance": values, "share": values / values.sum()}
    title = f"Variance of {m.layout.response} on the scale of the {m.link} link"
    return NotedTable(title, columns, (), m.layout.kind)
