"""Standard errors of standard deviations and correlations of the random effects, by the delta method.

With psi = (theta, sigma) and A = 2 H^-1 its asymptotic covariance (H the Hessian of the deviance), a parameter f(psi)
has the standard error sqrt(g' A g), g = df/dpsi. Rows l_i of a term's relative factor Lambda give

    sd_i     = sigma |l_i|,                   d sd_i    = |l_i| dsigma + sigma l_i . dl_i / |l_i|
    cor_ij   = n_i . n_j, n_i = l_i / |l_i|,  d cor_ij = (n_j - cor n_i) . dl_i / |l_i| + (n_i - cor n_j) . dl_j / |l_j|
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ranef.engines.estimate import Array, Estimate, LaplaceEstimate
from ranef.engines.lags import lag_slopes
from ranef.errors import NotAvailableError
from ranef.inference.ddf import default_method
from ranef.inference.ddf.satterthwaite import covariance, reason_against
from ranef.inference.dummies import written_out
from ranef.inference.parameters import Parameter as Named
from ranef.inference.parameters import is_toeplitz, parameters
from ranef.inference.varcorr import Covariance, Parameter, has_residual

if TYPE_CHECKING:
    from ranef.model import Fit


def std_errors(m: Fit) -> Array:
    """Return standard errors in the order of `tidy("ran_pars")`: sds, then correlations, of each term; then sigma.

    NaN for what is held, and for every parameter of a term whose covariance is singular: on the boundary the likelihood
    has no quadratic top in them, so there is no standard error. The others hold with that term kept where it is.
    Parameters of structures have theirs too; at the limit of a structure only what is at the limit has none.
    """
    slopes = jacobian(m)
    spread = parameter_covariance(m)
    free = np.isfinite(np.diag(spread))
    inner = np.where(np.isfinite(spread), spread, 0.0)
    found = np.sqrt(np.maximum(np.einsum("ri,ij,rj->r", slopes, inner, slopes), 0.0))
    found[(slopes[:, ~free] != 0).any(axis=1)] = np.nan
    if isinstance(m.estimate, Estimate):
        found[-1] = np.nan if m.estimate.known_sigma else found[-1]
        return found
    if isinstance(m.estimate, LaplaceEstimate) and m.estimate.held_spread:
        found[[i for i, key in enumerate(row_keys(m)) if key in m.estimate.held_spread]] = np.nan
    return np.append(found[:-1], [_sigma_error(m)] * has_residual(m.varcorr()))


def _sigma_error(m: Fit) -> float:
    """Return the standard error of sigma where its logarithm is a coefficient; NaN where it is held."""
    place = next((q for q in reversed(parameters(m)) if q.label == "sigma"), None)
    if place is None or place.refused or not isinstance(m.estimate, LaplaceEstimate):
        return float("nan")
    at = place.hold[1][0]
    return float(m.sigma * np.sqrt(m.estimate.vcov[at, at]))


def full_covariance(m: Fit) -> tuple[tuple[str, ...], Array]:
    """Return names and joint covariance of coefficients, standard deviations, correlations and structures' parameters.

    The names are those of profiles and intervals. Coefficients have the covariance of `Fit.vcov`. In models with a
    normal response the coefficients of the mean are independent of all others, as in the expected information
    (McCulloch & Searle 2001, section 6.11); in others the observed information of all decides. A residual standard
    deviation takes the place of the coefficient that is its logarithm. NaN where there is no standard error.
    """
    m = written_out(m)
    known, e = parameters(m), m.estimate
    p, inner = len(e.beta), jacobian(m)
    base = base_covariance(m)
    if isinstance(e, Estimate):
        slopes = _independent(np.eye(p), inner)
    else:
        assert isinstance(e, LaplaceEstimate)
        slopes = _independent(np.eye(p), inner[:-1, :-1])
        held = [i for i, key in enumerate(row_keys(m)) if key in (e.held_spread or ())]
        slopes[[p + i for i in held]] = np.nan
        slopes, known = _with_sigma(m, slopes, known)
    free = np.isfinite(np.diag(base))
    lost = ~np.isfinite(slopes).all(axis=1) | (slopes[:, ~free] != 0).any(axis=1)
    moved = np.nan_to_num(slopes)
    out = moved @ np.where(np.outer(free, free), base, 0.0) @ moved.T
    out[lost] = out[:, lost] = np.nan
    return tuple(q.label for q in known), (out + out.T) / 2


def base_covariance(m: Fit) -> Array:
    """Return the joint covariance of (beta, theta), of linear models (beta, theta, sigma); NaN where there is none."""
    e = m.estimate
    if isinstance(e, Estimate):
        return _independent(np.asarray(e.vcov), parameter_covariance(m))
    if not isinstance(e, LaplaceEstimate):
        raise NotAvailableError("quasi-likelihood gives variance parameters no standard errors; fit by method='ml'")
    base, own = np.array(e.joint()), np.asarray(default_method(m).vcov(m))
    if not reason_against(m):
        mean = slice(0, len(m.layout.fixed))
        base[mean] = base[:, mean] = 0.0
        base[mean, mean] = own[mean, mean]
    return base


def _independent(a: Array, b: Array) -> Array:
    """Return two matrices as diagonal blocks of one."""
    out = np.zeros((len(a) + len(b), a.shape[1] + b.shape[1]))
    out[: len(a), : a.shape[1]], out[len(a) :, a.shape[1] :] = a, b
    return out


def _with_sigma(m: Fit, slopes: Array, known: Sequence[Named]) -> tuple[Array, Sequence[Named]]:
    """Return slopes and parameters with the residual standard deviation, the last, in the place of its logarithm."""
    if not has_residual(m.varcorr()):
        return slopes, known
    last = known[-1]
    if last.refused:  # its coefficients stand for it
        return slopes, known[:-1]
    at = last.hold[1][0]
    rest = [i for i in range(len(slopes)) if i != at]
    return np.vstack([slopes[rest], m.sigma * slopes[at]]), [*(known[i] for i in rest), last]


def row_keys(m: Fit) -> list[tuple[int, str, int | None]]:
    """Return (term, name, which) of the rows of `tidy("ran_pars")`, sigma apart, as the core numbers parameters."""
    out: list[tuple[int, str, int | None]] = []
    for t, term in enumerate(m.varcorr().values()):
        k = len(term.names)
        if term.structured:
            out += [(t, name, at) for owner, name, at, _ in m.estimate.natural if owner == t]
            continue
        out += [(t, "sd", i if k > 1 else None) for i in range(k)]
        out += [(t, "cor", i + j * k) for i, j in term.pairs]
    return out


def parameter_covariance(m: Fit) -> Array:
    """Asymptotic covariance of (theta, sigma), (m + 1, m + 1); sigma is 1 where Lambda is absolute."""
    e = m.estimate
    if isinstance(e, LaplaceEstimate):
        count = len(e.theta)
        return np.pad(np.asarray(e.joint())[len(e.beta) :, len(e.beta) :], (0, 1)) if count else np.zeros((1, 1))
    assert isinstance(e, Estimate)
    if not len(e.theta):
        return np.array([[e.sigma**2 / (2 * (m.nobs - e.rank * e.reml))]])
    hessian = np.asarray(m.core.hessian(np.ascontiguousarray(e.theta), e.sigma, e.reml))
    return np.pad(covariance(hessian[:-1, :-1]), (0, 1)) if e.known_sigma else covariance(hessian)


def jacobian(m: Fit) -> Array:
    """Return d (sds, correlations by term; sigma) / d (theta, sigma), a row each; NaN for terms on the boundary."""
    e, columns = m.estimate, len(m.estimate.theta) + 1
    assert isinstance(e, Estimate | LaplaceEstimate)
    sigma = e.sigma if isinstance(e, Estimate) else 1.0
    terms = list(m.varcorr().values())
    singular, at, rows = {term for term, *_ in e.boundary}, 0, []
    own_at = sum(len(free_entries(term)) for term in terms)  # parameters of structures follow the entries of Lambda
    for i, (factor, term) in enumerate(zip(e.factors, terms, strict=True)):
        if term.structured:
            count = len(term.parameters)
            part = np.zeros((count, columns))
            none = i in singular and term.loadings is not None
            slopes = [np.nan if none else natural_slope(p, term) for p in term.parameters]
            part[np.arange(count), own_at + np.arange(count)] = slopes
            if is_toeplitz(term):
                lags = [j for j, p in enumerate(term.parameters) if p.name == "cor"]
                inner = lag_slopes(np.array([e.theta[own_at + j] for j in lags]))
                part[np.ix_(lags, [own_at + j for j in lags])] = np.nan if i in singular else inner
            rows.append(part)
            own_at += count
            continue
        entries = free_entries(term)
        own = term_slopes(factor, sigma, term)
        part = np.zeros((len(own), columns))
        part[:, -1] = [np.nan if i in singular else s for _, s in own]
        for c, (row, column) in enumerate(entries):
            part[:, at + c] = [d[row, column] for d, _ in own]
        rows.append(part)
        at += len(entries)
    return np.vstack([*rows, np.eye(columns)[-1:]])


def natural_slope(parameter: Parameter, term: Covariance) -> float:
    """D natural / d unconstrained value of a structure's parameter; NaN at a limit, or where it is one of several."""
    value = parameter.value
    if (
        not np.isfinite(value)
        or (parameter.name == "cor" and abs(value) == 1)
        or (value == 0 and parameter.name != "cor")
    ):
        return float("nan")
    if parameter.name == "loading":
        return 1.0  # entries of Lambda themselves
    if parameter.name != "cor":
        return value  # logarithms
    if term.structure in ("ar1", "hetar1"):
        return (1 - value**2) ** 1.5
    if term.structure in ("cs", "homcs"):
        low = -1 / (len(term.names) - 1)
        return (value - low) * (1 - value) / (1 - low)
    return float("nan")


def free_entries(term: Covariance) -> list[tuple[int, int]]:
    """(row, column) of the entries of Lambda in theta's order: the lower triangle by columns, or the diagonal."""
    k = len(term.names)
    if term.structured:
        return []
    return [(r, c) for c in range(k) for r in (range(c, k) if term.structure == "us" else (c,))]


def term_slopes(factor: Array, sigma: float, term: Covariance) -> list[tuple[Array, float]]:
    """(d / d Lambda (k, k), d / d sigma) of each sd and correlation of a term."""
    with np.errstate(invalid="ignore", divide="ignore"):
        length = np.linalg.norm(factor, axis=1)
        unit = factor / length[:, None]
        sds = [(sigma * _row(i, unit[i], factor), float(length[i])) for i in range(len(factor))]
        return sds + [(_correlation_slope(i, j, unit, length), 0.0) for i, j in term.pairs]


def _row(i: int, values: Array, like: Array) -> Array:
    out = np.zeros_like(like)
    out[i] = values
    return out


def _correlation_slope(i: int, j: int, unit: Array, length: Array) -> Array:
    cor = unit[i] @ unit[j]
    ahead = _row(i, (unit[j] - cor * unit[i]) / length[i], unit)
    return ahead + _row(j, (unit[i] - cor * unit[j]) / length[j], unit)
