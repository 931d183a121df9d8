"""What small-sample theory needs of a linear mixed model in some directions V_a of V: a record; and one way to get it.

With Phi = (X'V^-1X)^-1 and P = V^-1 - V^-1X Phi X'V^-1 (V^-1 in the traces for maximum likelihood), y the response.

`Entries` asks the linear engine with unstructured terms, evaluated (not fitted) at the estimate. Its V is linear in the
entries of the covariance matrices and in its own scale, and all forms are linear or bilinear in directions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ranef.engines.linear import make_core
from ranef.frame.design import Array
from ranef.inference.ddf.directions import RESIDUAL, Direction, largest_variance

if TYPE_CHECKING:
    from ranef.frame import Design, GroupTerm
    from ranef.model import Fit

#: A residual standard deviation of less than this share of the largest effect's is taken for that share: V is the same
#: to 1e-8, and less would cost more digits than that.
LEAST = 1e-4


@dataclass(frozen=True, slots=True)
class Forms:
    """Forms in m directions; p coefficients of the mean, NaN where dropped.

    Attributes
    ----------
    slopes : (m, p, p) array
        Phi X'V^-1 V_a V^-1X Phi, the change of Phi.
    bends : (m, m, p, p) array
        Phi X'V^-1 V_a P V_b V^-1X Phi, symmetrised.
    expected : (m, m) array
        tr(P V_a P V_b).
    average : (m, m) array
        y'P V_a P V_b P y.
    gradient : (m,) array
        tr(P V_a) - y'P V_a P y, the change of the deviance.
    exact : bool
        False: `expected` is out of reach, the average stands in its place, and `gradient` is NaN.
    """

    slopes: Array
    bends: Array
    expected: Array
    average: Array
    gradient: Array
    exact: bool


class Space(Protocol):
    """What answers for a fit."""

    @property
    def phi(self) -> Array:
        """(X'V^-1X)^-1, (p, p); NaN where dropped."""
        ...

    def forms(self, directions: Sequence[Direction]) -> Forms:
        """Return the forms in some directions."""
        ...

    def gradient(self, directions: Sequence[Direction]) -> Array:
        """Return the change of the deviance alone, (m,)."""
        ...


def of_linear(m: Fit) -> Forms:
    """Return the forms of a linear model in the entries of its relative covariances and the scale of V.

    Of quasi-likelihood they are those of the last working model, restricted, at its estimates.
    """
    theta = np.ascontiguousarray(m.theta)
    found = _forms(m.core.kenward_roger(theta, True))
    if m.method == "reml":
        return found
    # The core's sigma is that of REML; Phi and its slopes go with sigma^2.
    ratio = (m.sigma / m.core.evaluate(theta, True)["sigma"]) ** 2
    return replace(found, slopes=ratio * found.slopes, bends=ratio * found.bends)


def _forms(raw: Any) -> Forms:
    slopes, exact = np.asarray(raw["slopes"]), bool(raw["exact"])
    size = len(slopes)
    i, j = np.tril_indices(size - 1)
    bends = np.zeros((size, size, *slopes.shape[1:]))  # none of the scale: P V V^-1X = 0
    bends[i, j] = bends[j, i] = raw["bends"]
    gradient = np.asarray(raw["traces"]) - np.asarray(raw["squares"]) if exact else np.full(size, np.nan)
    return Forms(slopes, bends, np.asarray(raw["information"]), np.asarray(raw["average"]), gradient, exact)


class Entries:
    """The linear engine with unstructured terms at the estimate of a model with one residual variance."""

    def __init__(self, m: Fit, design: Design) -> None:
        plain = [t if t.structure == "diag" else replace(t, structure="us") for t in design.terms]
        self.core = make_core(replace(design, terms=tuple(plain), others=()))
        self.sigma = max(m.sigma, LEAST * math.sqrt(largest_variance(m)))
        self.relative = tuple(c / self.sigma**2 for c in m.estimate.covariances)
        theta = np.concatenate([_theta(c, t) for c, t in zip(self.relative, plain, strict=True)])
        reml = m.method == "reml"
        raw = self.core.kenward_roger(theta, reml)
        own = _forms(raw)
        # The core's sigma is at its optimum, ours may be held; squares of y go by 1 / sigma^2.
        with np.errstate(over="ignore"):  # standard deviations beyond 1e150 have no degrees of freedom
            ratio = np.square(self.sigma / self.core.evaluate(theta, reml)["sigma"])
        gradient = np.asarray(raw["traces"]) - np.asarray(raw["squares"]) / ratio if own.exact else own.gradient
        self.own = Forms(ratio * own.slopes, ratio * own.bends, own.expected, own.average / ratio, gradient, own.exact)

    @property
    def phi(self) -> Array:
        """(X'V^-1X)^-1."""
        return self.own.slopes[-1]

    def forms(self, directions: Sequence[Direction]) -> Forms:
        """Return the forms in some directions."""
        c, own = self._vectors(directions), self.own
        return Forms(
            np.tensordot(c, own.slopes, axes=1),
            np.einsum("ai,bj,ij...->ab...", c, c, own.bends, optimize=True),
            c @ own.expected @ c.T,
            c @ own.average @ c.T,
            c @ own.gradient,
            own.exact,
        )

    def gradient(self, directions: Sequence[Direction]) -> Array:
        """Return the change of the deviance alone, (m,)."""
        return self._vectors(directions) @ self.own.gradient

    def _vectors(self, directions: Sequence[Direction]) -> Array:
        return in_entries(self.core, self.relative, self.sigma, directions)


def in_entries(core: Any, relative: Sequence[Array], sigma: float, directions: Sequence[Direction]) -> Array:
    """Return directions as combinations of the linear engine's entries and the scale of V, (m, c + 1).

    Parameters
    ----------
    core : the linear engine's core
    relative : sequence of (k, k) arrays
        Covariances of the terms relative to sigma^2.
    sigma : float
    directions : sequence of m Direction
    """
    shifts = [core.shift(t) for t in range(len(relative))]
    turns = [shear(at, by, len(cov)) for (at, by), cov in zip(shifts, relative, strict=True)]
    places = list(core.entries)

    def of_term(term: int, change: Array) -> Array:
        own = turns[term] @ change @ turns[term].T
        return np.array([*(own[r, c] if t == term else 0.0 for t, r, c in places), 0.0])

    residual = np.append(np.zeros(len(places)), 1.0)  # the scale less all random effects
    for t, cov in enumerate(relative):
        residual -= of_term(t, cov)
    found = [
        float(d.change) * residual if d.term == RESIDUAL else of_term(d.term, d.change / sigma**2) for d in directions
    ]
    return np.array(found).reshape(len(found), len(residual))  # none where every covariance is given


def _theta(sigma: Array, term: GroupTerm) -> Array:
    """Entries of a relative factor, as the linear engine orders them."""
    if term.structure == "diag":
        return np.sqrt(np.diag(sigma))
    values, vectors = np.linalg.eigh(sigma)
    lower = np.linalg.qr((vectors * np.sqrt(np.maximum(values, 0))).T)[1].T
    return np.concatenate([lower[c:, c] for c in range(len(lower))])


def shear(carrier: int | None, shift: list[float], k: int) -> Array:
    """M with b_own = M b: the core takes means off columns and books them on a constant one."""
    out = np.eye(k)
    if carrier is not None:
        out[carrier] += [s if j != carrier else 0.0 for j, s in enumerate(shift)]
    return out
