"""Standard errors of functions of several linear predictors: (1 - p) mu of zero-inflated models, probabilities.

With eta = (eta_1 .. eta_K) of a row and its joint covariance C over the predictors, g(eta) has the variance a'Ca,
a = dg/deta, exact: the mean of the untouched family is the link's inverse, what truncation and extra zeros do to it
takes the log density at 0 and its gradient, and probabilities of categories have those of their log density. The
thresholds of an ordinal family are predictors too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from ranef import _core
from ranef.engines.estimate import Array
from ranef.engines.task import Point
from ranef.engines.thresholds import threshold_matrix
from ranef.families import Data, Distribution, link_of
from ranef.families.law import check_bounds
from ranef.frame.design import Block, GroupTerm, matrix, part_of
from ranef.predict.rows import Rows, coefficient_spread, scale_of, terms_of

if TYPE_CHECKING:
    from ranef.model import Fit


@dataclass(frozen=True, slots=True)
class Predictor:
    """One linear predictor: its columns, the position of its first coefficient, the component that has its effects."""

    fixed: tuple[Block, ...]
    first: int
    component: int = 0
    mixed: bool = True


def predictors_of(m: Fit, rows: Rows) -> list[Predictor]:
    """Return every linear predictor that has coefficients, in the order of `rows.predictors`."""
    parts = m.layout.components
    found = [Predictor(c.fixed, parts[k].first, k) for k, c in enumerate(rows.components)]
    return [*found, *_cuts(m, rows)] if m.distribution.entry.ordinal else found


def _cuts(m: Fit, rows: Rows) -> list[Predictor]:
    """Return the thresholds of an ordinal family."""
    family, codes = m.distribution, np.zeros(rows.n, np.int8)
    arrangement = threshold_matrix(family.categories, family.threshold)
    names, first = ("",) * arrangement.shape[1], m.layout.component("threshold").first
    factors = [None, *np.ascontiguousarray(rows.nominal.T)]
    return [
        Predictor(tuple(Block(names, codes, np.ascontiguousarray(row[None, :]), x) for x in factors), first, 0, False)
        for row in arrangement
    ]


# ---- slopes ----------------------------------------------------------------------------------------------------------


def has_slopes(family: Distribution) -> bool:
    """Tell whether the expected response has exact derivatives here."""
    ends = family.custom is None and family.entry.support == "closed_unit"
    return family.entry.ordinal or ends or family.bounded or untouched(family).plain_mean


def untouched(family: Distribution) -> Distribution:
    """Return the family without truncation and extra zeros."""
    return replace(family, truncated=False, zero_inflation=False, bounded=False)


def mean_slopes(family: Distribution, eta: Array, data: Data) -> Array:
    """Return d E[y] / d eta, (n, K); of an ordinal family those of the expected number of the category."""
    if family.entry.ordinal:
        slopes = probability_slopes(family, eta)
        return np.arange(float(slopes.shape[1])) @ slopes
    if family.bounded:
        check_bounds(family, data)
        return np.asarray(_core.family_mean_slopes(family.spec, data.arguments, np.ascontiguousarray(eta)))
    if family.entry.support == "closed_unit" and family.custom is None:
        return _closed_slopes(family, eta, data)
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
        of_zeros = link_of(family.zero_link)
        out *= (1 - np.asarray(of_zeros.inverse(eta[:, -1]), dtype=float))[:, None]
        out[:, -1] = -np.asarray(of_zeros.slope(eta[:, -1]), dtype=float) * mu
    return out


def _closed_slopes(family: Distribution, eta: Array, data: Data) -> Array:
    """Return the slopes of P(1) + (1 - P(0) - P(1)) mu, where numbers from 0 to 1 have lumps at both ends."""
    link, own = link_of(family.link), np.ascontiguousarray(eta)
    at_end = [replace(data, y=np.full(len(eta), end)).arguments for end in (0.0, 1.0)]
    log_zero, log_one = (np.asarray(_core.family_eval(family.spec, rows, own, 2)) for rows in at_end)
    zero, one = np.exp(log_zero[:, 0]), np.exp(log_one[:, 0])
    k, mu = eta.shape[1], np.asarray(link.inverse(eta[:, 0]), dtype=float)
    d_zero, d_one = zero[:, None] * log_zero[:, 1 : 1 + k], one[:, None] * log_one[:, 1 : 1 + k]
    out = d_one - (d_zero + d_one) * mu[:, None]
    out[:, 0] += (1 - zero - one) * link.slope(eta[:, 0])
    return out


def probability_slopes(family: Distribution, eta: Array) -> Array:
    """Return d P(Y = j) / d eta, (n, J, K)."""
    if family.entry.ordinal:
        return _ordinal_slopes(family, eta)
    z = np.column_stack([np.zeros(len(eta)), eta])
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p = p / p.sum(axis=1, keepdims=True)
    return p[:, :, None] * (np.eye(p.shape[1])[:, 1:] - p[:, None, 1:])


def _ordinal_slopes(family: Distribution, eta: Array) -> Array:
    lead = 1 + family.scaled
    count = eta.shape[1] - lead
    spec = replace(family, categories=count + 1).spec
    out = np.zeros((len(eta), count + 1, eta.shape[1]))
    for j in range(count + 1):
        at = list(range(eta.shape[1]))
        if family.entry.name == "cumulative":  # which asks for the thresholds around j only
            at = [*range(lead), lead + min(j, count - 1), lead + max(j - 1, 0)]
        y, own = np.full(len(eta), float(j)), np.ascontiguousarray(eta[:, at])
        log = np.asarray(_core.family_eval(spec, {"y": y}, own, 2))
        for k, column in enumerate(at):
            out[:, j, column] += np.exp(log[:, 0]) * log[:, 1 + k]
    return out


# ---- the joint covariance --------------------------------------------------------------------------------------------


def covariance(m: Fit, rows: Rows, terms: Sequence[GroupTerm], which: Sequence[bool]) -> Array:
    """Return the covariance over a row's predictors of x'beta_hat + z'(b_hat - b), (n, K, K).

    Levels that were not seen add z' Sigma z.
    """
    every = predictors_of(m, rows)
    if not any(which):
        return _fixed(m, rows, every)
    owners = [set(terms_of(m, p.component)) if p.mixed else set[int]() for p in every]
    single = [_variance(m, rows, terms, which, owners[k], (p,)) for k, p in enumerate(every)]
    out = np.zeros((rows.n, len(every), len(every)))
    for k, p in enumerate(every):
        out[:, k, k] = np.maximum(single[k], 0.0)
        for j in range(k):
            both = _variance(m, rows, terms, which, owners[j] | owners[k], (every[j], p))
            out[:, j, k] = out[:, k, j] = (both - single[j] - single[k]) / 2
    count = len(rows.components)
    for t in (t for t, on in enumerate(which) if on):
        new = np.asarray(terms[t].codes) < 0
        if new.any():
            out[new, :count, :count] += before_data(m, replace(rows, terms={t: terms[t]}), t)[new]
        if t in rows.left:
            _add_left(m, rows, t, out)
    return out


def _fixed(m: Fit, rows: Rows, every: Sequence[Predictor]) -> Array:
    """Return X_j Var(beta_hat) X_k' of every row."""
    cov = coefficient_spread(m)
    x = [matrix(p.fixed, rows.n) for p in every]
    at = [slice(p.first, p.first + part.shape[1]) for p, part in zip(every, x, strict=True)]
    out = np.zeros((rows.n, len(every), len(every)))
    for k in range(len(every)):
        for j in range(len(every)):
            out[:, j, k] = np.einsum("ij,jk,ik->i", x[j], cov[at[j], at[k]], x[k])
    return out


def _variance(
    m: Fit, rows: Rows, terms: Sequence[GroupTerm], which: Sequence[bool], owned: set[int], parts: tuple[Predictor, ...]
) -> Array:
    """Return the variance of the sum of some predictors."""
    on = [w and t in owned for t, w in enumerate(which)]
    one, *rest = parts
    added, others = tuple((p.fixed, p.first) for p in rest), tuple(p.component for p in rest if p.mixed)
    point = Point(one.fixed, terms, rows.n, one.component, one.first, added, others)
    return np.asarray(m.engine.variance(m.core, point, on))


def before_data(m: Fit, rows: Rows, t: int) -> Array:
    """Return the covariance over a row's components of the effects of one term, b ~ N(0, K_ll Sigma), (n, K, K)."""
    mine = components_of(m, t)
    parts = {k: part_of(rows.terms[t], k) for k in mine}
    z = {k: matrix(part.blocks, rows.n) for k, (part, _) in parts.items()}
    out = np.zeros((rows.n, len(rows.components), len(rows.components)))
    for a, b in product(mine, mine):
        cov = m.estimate.covariances[t][np.ix_(parts[a][1], parts[b][1])]
        out[:, a, b] = scale_of(rows.terms[t]) * np.einsum("ij,jk,ik->i", z[a], cov, z[b])
    return out


def components_of(m: Fit, t: int) -> list[int]:
    """Return the components that a term enters."""
    return [k for k, part in enumerate(m.layout.components) if part.name in m.layout.terms[t].components]


def _add_left(m: Fit, rows: Rows, t: int, out: Array) -> None:
    for k in components_of(m, t):
        out[:, k, k] += rows.left[t]
