"""The integral over the random effects by importance sampling, where it is no product of small ones.

Laplace's Gaussian N(u_hat, H^-1) is the proposal: the likelihood is Laplace's times the mean of the ratios w of the
integrand to it. The largest ratios are smoothed by a generalised Pareto distribution, whose shape k says whether the
mean can be trusted (Vehtari, Simpson, Gelman, Yao & Gabry 2024; k <= 0.7). Where it cannot, or few draws rule it
because many groups multiply their errors, log w is a sum of many small contributions and its first cumulants do:
log E[w] = E[log w] + Var[log w] / 2 + ..., the second-order Laplace approximation (Shun & McCullagh 1995).

Draws come in pairs z, -z, and the same pairs serve at every parameter value, so that differences have little noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines.estimate import Array

if TYPE_CHECKING:
    from ranef.model import Fit

TRUSTED = 0.7  # shape of the tail up to which smoothed importance sampling has a usable error
STEP = 0.25  # standard errors either side of the estimate over which the gap's slope is taken
ALIKE = 1e-8  # ratios that differ by less are one number, to the accuracy of the mode
EFFECTIVE = 0.25  # effective draws of each draw below which few of them rule the mean
ENOUGH = 5  # exceedances from which a tail can be fitted


@dataclass(frozen=True, slots=True)
class Gap:
    """A log mean of ratios, and the influence of every pair of draws on it (mean 0).

    `k` is the shape of the ratios' tail, `effective` the share of draws that count (Kish's).
    """

    value: float
    influence: Array
    k: float = float("nan")
    effective: float = float("nan")

    @property
    def error(self) -> float:
        """Standard error of the value over draws."""
        return float(np.std(self.influence) / np.sqrt(len(self.influence)))


@dataclass(frozen=True, slots=True)
class Sampled:
    """What importance sampling finds: the gap, its slope in (beta, theta), and how it was got."""

    gap: Gap
    slope: Array
    influence: Array
    how: str


def sampled(m: Fit, core: Any, spread: Array, pairs: int, seed: int) -> Sampled:
    """Return the gap between the integral and Laplace's approximation and its slope in (beta, theta).

    `core` has all parameters of the fit; `spread` are the standard errors of (beta, theta), of which those without one
    have no slope. Slopes are differences over a quarter of a standard error to both sides, on the same draws: the
    change that an estimate would feel.
    """
    at = np.concatenate([np.nan_to_num(np.asarray(m.estimate.beta)), m.estimate.theta])
    p = len(m.estimate.beta)

    def ratios(point: Array) -> Array:
        return np.asarray(core.log_ratios(point[:p].tolist(), point[p:].tolist(), seed, pairs))

    here = ratios(at)
    mean = by_mean(here)
    trusted = mean.k <= TRUSTED and mean.effective >= EFFECTIVE
    rule = by_mean if trusted else by_cumulants
    gap = replace(rule(here), k=mean.k, effective=mean.effective)
    slope, influence = np.zeros(len(at)), np.zeros((len(at), pairs))
    for j in np.flatnonzero(spread > 0):
        slope[j], influence[j] = _slope(lambda x: rule(ratios(x)), at, int(j), STEP * float(spread[j]))
    return Sampled(gap, slope, influence, "importance sampling" if trusted else "second-order expansion")


def _slope(gap: Callable[[Array], Gap], at: Array, j: int, h: float) -> tuple[float, Array]:
    up, down = at.copy(), at.copy()
    up[j] += h
    down[j] -= h
    a, b = gap(up), gap(down)
    return (a.value - b.value) / (2 * h), (a.influence - b.influence) / (2 * h)


def by_mean(log_ratios: Array) -> Gap:
    """Return the log mean of ratios whose tail is smoothed, (pairs, 2) log ratios."""
    smooth, k = smoothed(log_ratios.ravel())
    top = smooth.max()
    each = np.exp(smooth - top)
    w = each.reshape(log_ratios.shape).mean(axis=1)
    mean = float(w.mean())
    effective = float(each.sum() ** 2 / (each**2).sum()) / len(each)
    return Gap(float(top + np.log(mean)), w / mean - 1.0, k, effective)


def by_cumulants(log_ratios: Array) -> Gap:
    """Return E[log w] + Var[log w] / 2; pairs cancel the odd part of log w in the former."""
    even, odd = log_ratios.mean(axis=1), (log_ratios[:, 0] - log_ratios[:, 1]) / 2
    centred = even - even.mean()
    each = even + (odd**2 + centred**2) / 2
    return Gap(float(each.mean()), each - each.mean())


# ---- the tail --------------------------------------------------------------------------------------------------------


def smoothed(log_ratios: Array) -> tuple[Array, float]:
    """Return log ratios with the largest ones replaced by Pareto quantiles, and the Pareto shape.

    The tail are the largest min(S / 5, 3 sqrt(S)) of S ratios; none of its quantiles exceeds the largest ratio.
    """
    count = len(log_ratios)
    tail = min(count // 5, int(3 * np.sqrt(count)))
    order = np.argsort(log_ratios)
    top = log_ratios[order[-1]]
    if tail < ENOUGH or not np.isfinite(top):
        return log_ratios, float("inf")
    at = order[-tail:]
    cut = float(np.exp(log_ratios[order[-tail - 1]] - top))
    beyond = np.exp(log_ratios[at] - top) - cut
    if beyond[-1] < ALIKE:  # nothing to smooth
        return log_ratios, 0.0
    k, sigma = pareto(np.maximum(beyond, np.finfo(float).tiny))
    p = (np.arange(tail) + 0.5) / tail
    quantiles = -sigma * np.log1p(-p) if abs(k) < 1e-9 else sigma * np.expm1(-k * np.log1p(-p)) / k
    out = log_ratios.copy()
    out[at] = np.minimum(np.log(quantiles + cut), 0.0) + top
    return out, k


def pareto(x: Array) -> tuple[float, float]:
    """Return shape k and scale of a generalised Pareto distribution fitted to sorted exceedances.

    Zhang & Stephens (2009), Technometrics 51, 316-325: a posterior mean over a grid of -k / sigma; k is drawn towards
    1/2 with the weight of ten observations (Vehtari et al. 2024).
    """
    n = len(x)
    grid = 30 + int(np.sqrt(n))
    quartile = x[int(n / 4 + 0.5) - 1]
    b = 1 / x[-1] + (1 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))) / (3 * quartile)
    with np.errstate(all="ignore"):
        shape = np.log1p(-b[:, None] * x).mean(axis=1)
        loglik = n * (np.log(-b / shape) - shape - 1)
        weight = 1 / np.exp(loglik[None, :] - loglik[:, None]).sum(axis=1)
    weight = np.nan_to_num(weight)
    best = float((b * weight).sum() / weight.sum())
    k = float(np.log1p(-best * x).mean())
    return (n * k + 10 * 0.5) / (n + 10), -k / best
