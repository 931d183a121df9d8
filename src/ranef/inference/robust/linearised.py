"""The working linear model of a generalised mixed model at its optimum, by which CR2 and CR3 adjust the scores.

With g_i and w_i the slope and the information of the log density of row i in the mean's predictor eta at the modes b,
and t_i = d mu_i / d eta_i, rows of the model linearised around the modes are, on the scale of the response,

    e = t (Z b + g / w),    t X,    V = t (Z Sigma Z') t + diag(t^2 / w),    M = (X't V^-1 t X)^-1:

e is what is left of the working response without X beta (Breslow & Clayton 1993, section 2.1; McCullagh & Nelder 1989,
section 2.5), and t^2 / w is Var(y). At the modes Z'g = Sigma^-1 b, so t V^-1 e = g whatever the w_i are, and X_j'g_j
are the scores of the clusters: those of a generalised linear model where there are no random effects, and with them
those of the marginal log-likelihood but for the slope of Laplace's determinant (or what quadrature makes of it). The
scale of the rows matters, for a root of V does: Pustejovsky's clubSandwich has this one.

A row of frequency c is c equal rows: as one row it is their sum over sqrt(c), an orthogonal change of scale.

w_i is the expected information: t^2 / Var(y) in exponential families, `INFORMATION` in some others, whose log density
need not be concave; else the observed -d^2 log f / d eta^2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef import _core
from ranef.engines.estimate import Array
from ranef.engines.laplace import response_data
from ranef.errors import NotAvailableError
from ranef.families.law import Data, law_of
from ranef.families.links import link_of
from ranef.frame.design import matrix
from ranef.inference.ddf.method import kept
from ranef.inference.memory import remembered
from ranef.inference.robust.working import Working, loaded, solved_by, times
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.frame import Design
    from ranef.model import Fit

#: Given their other parameters exponential families: the information of eta is (d mu / d eta)^2 / Var(y).
EXPONENTIAL = (
    "gaussian", "binomial", "poisson", "nbinom2", "gamma", "exponential", "inverse_gaussian", "tweedie", "compois",
    "bell",
)  # fmt: skip
#: Share of the greatest variance of a row below which rows count as having that: squares of V are rounded.
LIGHTEST = 1e-5


def _of_lognormal(mu: Array, sigma: Array) -> Array:
    """I(eta) of log y ~ N(log mu - s^2 / 2, s^2), s^2 = log(1 + r), r = (sigma / mu)^2, mu = exp(eta).

    Of a normal it is (dm)^2 / s^2 + (ds^2)^2 / (2 s^4); ds^2 / d eta = -2 r / (1 + r), dm / d eta = 1 + r / (1 + r).
    """
    r = (sigma / mu) ** 2
    share, s2 = r / (1 + r), np.log1p(r)
    return (1 + share) ** 2 / s2 + 2 * share**2 / s2**2


#: Family with a log link -> information of eta by (mean, dispersion).
INFORMATION = {"lognormal": _of_lognormal}
LEAST = 1e-150  # slope of a mean that has reached its limit


@dataclass(frozen=True, slots=True)
class Linearised:
    """The working model: by rows; Z R (sparse, or None) and the working variances of the rows, which make V."""

    working: Working
    z: Any
    noise: Array


def unlinearised(m: Fit) -> str:
    """Return why a model has no working response; "" if it has one."""
    family = m.distribution
    if family.categorical:
        return "the category of a row depends on several linear predictors, of which none has a working response"
    if family.zero_inflation:
        return "extra zeros leave no working response of the mean: a zero may be of either kind"
    if family.custom is not None:
        return f"nothing is known of the information of the family {family.name!r}"
    if m.call.survey.values:
        return "sampling weights are no model of the variances of the rows"
    if any(t.owners for t in design_of(m, "robust covariance").terms):
        return "random effects are shared between linear predictors"
    return ""


@remembered
def linearised(m: Fit) -> Linearised:
    """Return the working model of the mean.

    Raises
    ------
    NotAvailableError
        If the log density is not concave at some row, which has then no working variance.
    """
    design = design_of(m, "robust covariance")
    eta = np.ascontiguousarray(m.core.eta(), dtype=np.float64)
    slope, w = _slopes(m, design, eta)
    change = np.asarray(link_of(m.link).slope(eta[:, 0]), dtype=np.float64)
    change = np.where(np.abs(change) > LEAST, change, LEAST)
    if design.frequencies is not None:
        change = change * np.sqrt(np.asarray(design.frequencies, dtype=np.float64))
    noise = change**2 / w
    noise = np.maximum(noise, LIGHTEST * float(noise.max()))
    here = kept(m)
    here[m.layout.component("mean").at.stop :] = False
    x = matrix(design.fixed, design.n)[:, here[m.layout.component("mean").at]]
    random = eta[:, 0] - x @ m.estimate.beta[here] - (0.0 if design.offset is None else design.offset)
    x, z = x * change[:, None], loaded(m)
    z = None if z is None else times(z, change)
    white = slope / change
    solved = solved_by(z, noise, x)
    bread = np.linalg.inv(x.T @ solved)
    return Linearised(Working(x, solved, change * random + noise * white, white, (bread + bread.T) / 2, here), z, noise)


def _slopes(m: Fit, design: Design, eta: Array) -> tuple[Array, Array]:
    """Return g and w of the rows."""
    data = response_data(design)
    table = np.asarray(_core.family_eval(m.distribution.spec, data, eta, 2))
    slope, w = table[:, 1], -table[:, 1 + eta.shape[1]]
    plain = {"censor", "randomised", "bounds"}.isdisjoint(data)
    if m.distribution.entry.name in EXPONENTIAL and plain and not m.distribution.truncated:
        law = Data(np.asarray(design.y, dtype=np.float64), design.trials)
        change = np.asarray(link_of(m.link).slope(eta[:, 0]), dtype=np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            w = change**2 / law_of(m.distribution).variance(eta, law)
    elif m.distribution.entry.name in INFORMATION and m.link == "log" and plain:
        spread = np.asarray(m.distribution.link_of("dispersion").inverse(eta[:, 1]), dtype=np.float64)
        w = INFORMATION[m.distribution.entry.name](np.exp(eta[:, 0]), spread)
    bad = np.flatnonzero(~np.isfinite(w) | (w <= 0))
    if len(bad):
        raise NotAvailableError(
            f"row {bad[0]} (the first of {len(bad)}) has no working variance: its log density has no curvature "
            f"downwards in the mean's predictor; use kind='CR1'"
        )
    counts = 1.0 if design.frequencies is None else np.asarray(design.frequencies, dtype=np.float64)
    return counts * slope, counts * w
