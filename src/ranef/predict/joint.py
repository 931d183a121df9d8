"""Standard errors of functions of several linear predictors: (1 - p) mu of zero-inflated models, truncated means.

With eta = (eta_1 .. eta_K) of a row and its joint covariance C over the predictors, g(eta) has the variance a'Ca,
a = dg/deta, exact: the mean of the untouched family is the link's inverse, and what truncation and extra zeros do to it
takes the log density at 0 and its gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ranef import _core
from ranef.engines.estimate import Array
from ranef.engines.task import Point
from ranef.errors import NotAvailableError
from ranef.families import Data, Distribution, link_of
from ranef.frame.design import GroupTerm, matrix
from ranef.predict.rows import Rows, prior_variance, terms_of

if TYPE_CHECKING:
    from ranef.model import Fit


def has_slopes(family: Distribution) -> bool:
    """Tell whether the expected response has exact derivatives here."""
    return untouched(family).plain_mean


def untouched(family: Distribution) -> Distribution:
    """Return the family without truncation and extra zeros."""
    return replace(family, truncated=False, zero_inflation=False)


def mean_slopes(family: Distribution, eta: Array, data: Data) -> Array:
    """Return d E[y] / d eta, (n, K)."""
    base, link = untouched(family), link_of(family.link)
    own = eta[:, : len(base.parameters)]
    mu, out = np.asarray(link.inverse(eta[:, 0]), dtype=float), np.zeros_like(eta)
    out[:, 0] = link.slope(eta[:, 0])
    if family.truncated:
        nothing = replace(data, y=np.zeros(len(eta)))
        log = np.asarray(_core.family_eval(base.spec, nothing.arguments, np.ascontiguousarray(own), 2))
        zero, slope = np.exp(log[:, :1]), log[:, 1 : 1 + own.shape[1]]
        out[:, : own.shape[1]] = out[:, : own.shape[1]] / (1 - zero) + mu[:, None] * zero * slope / (1 - zero) ** 2
        mu = mu / (1 - zero[:, 0])
    if family.zero_inflation:
        extra = np.asarray(link_of("logit").inverse(eta[:, -1]), dtype=float)
        out *= (1 - extra)[:, None]
        out[:, -1] = -extra * (1 - extra) * mu
    return out


def covariance(m: Fit, rows: Rows, terms: Sequence[GroupTerm], which: Sequence[bool]) -> Array:
    """Return the covariance over a row's predictors of x'beta_hat + z'(b_hat - b), (n, K, K).

    Where random effects are included it is that given theta, plus z' Sigma z at levels that were not seen.
    """
    count = len(rows.components)
    owners = [set(terms_of(m, k)) for k in range(count)]
    if not any(which):
        return _fixed(m, rows, count)
    single = [
        _variance(m, rows, terms, [w and t in owners[k] for t, w in enumerate(which)], (k,)) for k in range(count)
    ]
    out = np.zeros((rows.n, count, count))
    for k in range(count):
        out[:, k, k] = np.maximum(single[k], 0.0)
        for j in range(k):
            on = [w and t in owners[k] | owners[j] for t, w in enumerate(which)]
            both = _variance(m, rows, terms, on, (j, k))
            out[:, j, k] = out[:, k, j] = (both - single[j] - single[k]) / 2
    for t, sigma in enumerate(m.estimate.covariances):
        new = np.asarray(terms[t].codes) < 0
        if which[t] and new.any():
            if terms[t].owners:
                raise NotAvailableError(
                    f"predict: standard errors at new levels of {terms[t].label!r}, whose effects correlate across "
                    f"several linear predictors, are not available; ask for type='link'"
                )
            k = next(k for k in range(count) if t in owners[k])
            out[:, k, k] += np.where(new, prior_variance(terms[t], sigma, rows.n), 0.0)
    return out


def _fixed(m: Fit, rows: Rows, count: int) -> Array:
    """Return X_j Var(beta_hat) X_k' of every row."""
    cov = np.nan_to_num(m.estimate.vcov)
    x = [matrix(rows.components[k].fixed, rows.n) for k in range(count)]
    at = [m.layout.components[k].at for k in range(count)]
    out = np.zeros((rows.n, count, count))
    for k in range(count):
        for j in range(count):
            out[:, j, k] = np.einsum("ij,jk,ik->i", x[j], cov[at[j], at[k]], x[k])
    return out


def _variance(m: Fit, rows: Rows, terms: Sequence[GroupTerm], on: Sequence[bool], components: tuple[int, ...]) -> Array:
    """Return the variance of the sum of some predictors."""
    first, *rest = [(rows.components[k].fixed, m.layout.components[k].first) for k in components]
    point = Point(first[0], terms, rows.n, components[0], first[1], tuple(rest), components[1:])
    return np.asarray(m.engine.variance(m.core, point, on))
