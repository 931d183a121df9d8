"""Gaussian models with covariance structures: variance parameters as directions in the entries of unstructured ones.

A structure is a path through the covariance matrices: dV / d psi_i = sum over entries of (dSigma / d psi_i) V_entry. So
whatever is linear in the V_i - the slopes of Phi, the information - follows by the chain rule from the linear engine
with unstructured terms, evaluated (not fitted) at the estimate. Satterthwaite's degrees of freedom need no more and do
not depend on how a structure is parametrised. Kenward and Roger's adjustment needs second derivatives of V too, unless
the structure is a linear space.

Phi is (X'V^-1X)^-1 here as in linear models; the Laplace engine's own covariance of the coefficients, of (beta, theta)
jointly, adds what beta_hat moves with theta_hat (nothing where data are balanced).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines.linear import make_core
from ranef.frame.design import Array
from ranef.inference.memory import remembered
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.frame import GroupTerm
    from ranef.model import Fit

MOST_ENTRIES = 250  # entries of unstructured covariances whose derivatives are formed
NO_RESIDUAL = 1e-4  # a residual variance below this share of the largest effect's is taken as known
LINEAR = ("us", "diag", "homdiag", "homcs", "homtoep", "propto", "equalto")


@dataclass(frozen=True, slots=True)
class Raw:
    """What the core knows: Phi, d Phi / d parameter (m, p, p), bends of pairs (c, c, p, p), tr(P V_i P V_j) (m, m).

    The parameters of the linear engine end with the scale of V, which has no bends: c = m - 1.
    """

    phi: Array
    slopes: Array
    bends: Array
    information: Array
    exact: bool


def of_linear(m: Fit) -> Raw:
    """Return what the core of a linear model knows."""
    return _unpacked(m.core.kenward_roger(np.ascontiguousarray(m.theta)))


def _unpacked(found: tuple[Any, Any, Any, bool]) -> Raw:
    slopes, packed, information, exact = found
    c = len(slopes) - 1
    i, j = np.tril_indices(c)
    bends = np.zeros((c, c, *np.shape(slopes)[1:]))
    bends[i, j] = bends[j, i] = packed
    return Raw(np.asarray(slopes[-1]), np.asarray(slopes), bends, np.asarray(information), exact)


# ---- which models ----------------------------------------------------------------------------------------------------


def objection(m: Fit) -> str:
    """Return what keeps a model that the linear engine did not fit from having degrees of freedom; "" if nothing."""
    if not m.distribution.is_gaussian_identity:
        return f"a model of family {m.family!r} is not gaussian with the identity link"
    if m.method != "reml":
        return "this fit is by maximum likelihood, and such degrees of freedom go with method='reml'"
    if not np.isfinite(m.sigma) or any(t.component != "mean" for t in m.layout.terms):
        return "the residual variance differs between rows"
    if m.design is None:
        return "a slim fit keeps no rows"
    if m.task.wishes is not None and (m.task.wishes.fixed or m.task.wishes.equal):
        return "some parameters are held or tied, which its variances of variances do not know"
    if (related := next((t.label for t in m.design.terms if t.relation is not None), None)) is not None:
        return f"levels of {related!r} are related to each other"
    if (unknown := next((t.structure for t in m.design.terms if t.structure not in TANGENTS), None)) is not None:
        return f"the derivatives of covariance structure {unknown!r} are not there"
    if m.design.frequencies is not None or m.design.censor is not None:
        return "the rows are counted or censored"
    entries = sum(len(t.names) * (len(t.names) + 1) // 2 for t in m.layout.terms if t.structure != "diag")
    return f"its covariance matrices have {entries} entries, too many" if entries > MOST_ENTRIES else ""


def is_linear(m: Fit) -> bool:
    """Whether every covariance structure is a linear space of matrices."""
    return all(t.structure in LINEAR for t in m.layout.terms)


# ---- the chain rule --------------------------------------------------------------------------------------------------


@remembered
def of_structured(m: Fit) -> Raw:
    """Return the same in the parameters of the structures and the residual variance, over all coefficients.

    Raises
    ------
    NotAvailableError
        If the fit is slim.
    """
    design = design_of(m, "degrees of freedom")
    plain = [t if t.structure == "diag" else replace(t, structure="us") for t in design.terms]
    core = make_core(replace(design, terms=tuple(plain), others=()))
    theta = np.concatenate([_entries(c / m.sigma**2, t) for c, t in zip(m.estimate.covariances, plain, strict=True)])
    # The core's sigma is at its optimum, ours may be held.
    ratio = (m.sigma / core.evaluate(theta, True)["sigma"]) ** 2
    raw = _unpacked(core.kenward_roger(theta))
    chain = directions(m, design.terms, core)
    inner, mean = chain[:, :-1], slice(0, raw.phi.shape[0])
    phi = np.array(m.estimate.vcov)
    phi[mean, mean] = ratio * raw.phi
    return Raw(
        phi,
        _padded(m, ratio * np.tensordot(chain, raw.slopes, axes=1)),
        _padded(m, ratio * np.einsum("ai,bj,ij...->ab...", inner, inner, raw.bends, optimize=True)),
        chain @ raw.information @ chain.T,
        raw.exact,
    )


def _padded(m: Fit, a: Array) -> Array:
    """Matrices over the coefficients of the mean as matrices over all."""
    more = len(m.estimate.beta) - a.shape[-1]
    return np.pad(a, [(0, 0)] * (a.ndim - 2) + [(0, more), (0, more)])


def _entries(sigma: Array, term: GroupTerm) -> Array:
    """Entries of a relative factor, as the linear engine orders them."""
    if term.structure == "diag":
        return np.sqrt(np.diag(sigma))
    values, vectors = np.linalg.eigh(sigma)
    lower = np.linalg.qr((vectors * np.sqrt(np.maximum(values, 0))).T)[1].T
    return np.concatenate([lower[c:, c] for c in range(len(lower))])


def directions(m: Fit, terms: tuple[GroupTerm, ...], core: Any) -> Array:
    """Return the parameters as combinations of the core's entries and the scale of V, (m, c + 1).

    The residual variance is the scale less all random effects. It is left out where it is held, and where next to
    nothing of it was found: its derivative is lost to rounding there, and on the scale of standard deviations, which
    Satterthwaite's method takes, it is 0.
    """
    entries = list(core.entries)
    rows: list[Array] = []
    residual = np.zeros(len(entries) + 1)
    residual[-1] = 1.0
    for t, (term, cov) in enumerate(zip(terms, m.estimate.covariances, strict=True)):
        relative = cov / m.sigma**2
        carrier, shift = core.shift(t)
        turn = shear(carrier, shift, len(term.names))
        rows += [in_entries(turn @ d @ turn.T, t, entries) for d in tangents(term, relative)]
        residual -= in_entries(turn @ relative @ turn.T, t, entries)
    largest = max((float(np.diag(c).max()) for c in m.estimate.covariances), default=0.0)
    estimated = bool(m.layout.component("dispersion").names) and m.sigma**2 > NO_RESIDUAL * largest
    return np.array([*rows, *([residual] if estimated else [])])


def in_entries(d: Array, term: int, entries: list[tuple[int, int, int]]) -> Array:
    """Return a change of the covariance of a term as a combination of the core's entries and the scale of V."""
    return np.array([*(d[r, c] if t == term else 0.0 for t, r, c in entries), 0.0])


def shear(carrier: int | None, shift: list[float], k: int) -> Array:
    """M with b_own = M b: the core takes means off columns and books them on a constant one."""
    out = np.eye(k)
    if carrier is not None:
        out[carrier] += [s if j != carrier else 0.0 for j, s in enumerate(shift)]
    return out


# ---- tangents of the structures --------------------------------------------------------------------------------------


def tangents(term: GroupTerm, sigma: Array) -> list[Array]:
    """Return a basis of d Sigma over the parameters of a term's structure, at Sigma."""
    return TANGENTS[term.structure](term, sigma)


def _each_entry(_term: GroupTerm, sigma: Array) -> list[Array]:
    k = len(sigma)
    return [_symmetric(k, i, j) for j in range(k) for i in range(j, k)]


def _each_variance(_term: GroupTerm, sigma: Array) -> list[Array]:
    return [_symmetric(len(sigma), i, i) for i in range(len(sigma))]


def _symmetric(k: int, i: int, j: int) -> Array:
    out = np.zeros((k, k))
    out[i, j] = out[j, i] = 1.0
    return out


def _lags(k: int) -> Array:
    return np.abs(np.subtract.outer(np.arange(k), np.arange(k)))


def _each_lag(_term: GroupTerm, sigma: Array) -> list[Array]:
    lags = _lags(len(sigma))
    return [(lags == lag).astype(float) for lag in range(len(sigma))]


def _same_covariance(_term: GroupTerm, sigma: Array) -> list[Array]:
    return [np.eye(len(sigma)), 1 - np.eye(len(sigma))][: len(sigma)]


def _deviations(sigma: Array) -> list[Array]:
    """D Sigma / d log sd_i."""
    units = np.eye(len(sigma))
    return [np.outer(e, e @ sigma) + np.outer(sigma @ e, e) for e in units]


def _sds(sigma: Array) -> Array:
    sd = np.sqrt(np.diag(sigma))
    return np.outer(sd, sd)


def _compound(_term: GroupTerm, sigma: Array) -> list[Array]:
    return [*_deviations(sigma), *([_sds(sigma) * (1 - np.eye(len(sigma)))] if len(sigma) > 1 else [])]


def _toeplitz(_term: GroupTerm, sigma: Array) -> list[Array]:
    lags = _lags(len(sigma))
    return [*_deviations(sigma), *(_sds(sigma) * (lags == lag) for lag in range(1, len(sigma)))]


def _powers(sigma: Array) -> list[Array]:
    """D of rho^lag."""
    if len(sigma) == 1:
        return []
    lags, sds = _lags(len(sigma)), _sds(sigma)
    rho = sigma[1, 0] / sds[1, 0] if sds[1, 0] else 0.0
    return [sds * lags * np.where(lags > 1, rho ** np.maximum(lags - 1, 0), 1.0)]


def _ar1(_term: GroupTerm, sigma: Array) -> list[Array]:
    return [sigma, *_powers(sigma)]


def _hetar1(_term: GroupTerm, sigma: Array) -> list[Array]:
    return [*_deviations(sigma), *_powers(sigma)]


def _decay(power: int) -> Callable[[GroupTerm, Array], list[Array]]:
    """Sigma = s^2 exp(-c d^power): d Sigma / d c = -d^power Sigma, whatever stands for c."""

    def make(term: GroupTerm, sigma: Array) -> list[Array]:
        points = np.asarray(term.points)
        distance = np.linalg.norm(points[:, None] - points[None], axis=2) ** power
        return [sigma, distance / (distance.max() or 1.0) * sigma][: len(sigma)]

    return make


TANGENTS: dict[str, Callable[[GroupTerm, Array], list[Array]]] = {
    "us": _each_entry,
    "diag": _each_variance,
    "homdiag": lambda _term, sigma: [np.eye(len(sigma))],
    "homcs": _same_covariance,
    "homtoep": _each_lag,
    "cs": _compound,
    "toep": _toeplitz,
    "ar1": _ar1,
    "hetar1": _hetar1,
    "ou": _decay(1),
    "exp": _decay(1),
    "gau": _decay(2),
    "propto": lambda _term, sigma: [sigma],
    "equalto": lambda _term, _sigma: [],
}
