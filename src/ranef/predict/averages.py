"""Averages of a response over the random effects, E[g(eta)] over b ~ N(0, Sigma), and their standard errors.

A row's predictors are normal with means mu = X beta + offset and covariance C = z' Sigma z, so that the average is a
Gauss-Hermite sum over the predictors that vary. By the delta method with V the covariance of (beta, theta),

    d E[g] / d beta = E[dg/deta] X,    d E[g] / d theta = tr(E[d2g/deta2] dC/dtheta) / 2,

the latter by Price's theorem (Price 1958). With C = R R' and eta = mu + R z, E[(dg/deta) z'] = E[d2g/deta2] R (Stein's
lemma): first derivatives are enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines.estimate import Array, LaplaceEstimate
from ranef.engines.linear import cells
from ranef.errors import NotAvailableError
from ranef.families import Data
from ranef.formula.functions import PLAIN
from ranef.frame.design import matrix, part_of
from ranef.predict.joint import before_data, components_of, predictors_of
from ranef.predict.rows import Rows, predictors, scale_of

if TYPE_CHECKING:
    from ranef.model import Fit

NODES = 41  # of Gauss-Hermite quadrature in one predictor
POINTS = 2_000  # about so many in all, where several predictors have random effects
MOST_VARYING = 6
FLAT = 1e-12  # a variance this small beside a row's largest is rounding

Function = Callable[[Array, Data], Array]


def average(m: Fit, rows: Rows, of: Function) -> Array:
    """Return E[of(eta)] over b ~ N(0, Sigma)."""
    eta, varying, _, root = _normal(m, rows)
    data = replace(rows.data, randomised=None)  # prevalences, as everywhere in predictions
    total: Any = 0.0
    for at, _, weight in _nodes(eta, varying, root):
        total = total + weight * of(at, data)
    return total


def average_errors(m: Fit, rows: Rows, slopes: Function) -> Array:
    """Return standard errors of the averages of a function with these derivatives, (n,) or (n, J).

    `slopes` gives (n, K), or (n, J, K) for functions of several values.

    Raises
    ------
    NotAvailableError
        Where the covariance of coefficients and covariance parameters is not known.
    """
    joint = _joint(m, rows)
    eta, varying, spread, root = _normal(m, rows)
    data = replace(rows.data, randomised=None)
    first: Any = 0.0
    moved: Any = 0.0  # E[(dg/deta) z']
    for at, z, weight in _nodes(eta, varying, root):
        found = weight * slopes(at, data)
        first = first + found
        moved = moved + found[..., varying, None] * z
    several = first.ndim == 3
    first, moved = (first, moved) if several else (first[:, None], moved[:, None])
    out = np.empty((rows.n, first.shape[1]))
    turn = _theta_slopes(m, rows, varying)
    for j in range(out.shape[1]):
        gradient = np.zeros((rows.n, len(joint)))
        for k, p in enumerate(predictors_of(m, rows)):
            x = matrix(p.fixed, rows.n)
            gradient[:, p.first : p.first + x.shape[1]] += first[:, j, k, None] * x
        if varying:
            curvature = _curvature(moved[:, j], *spread)
            for at, change in turn:
                gradient[:, len(m.estimate.beta) + at] = 0.5 * np.einsum("iab,iab->i", curvature, change)
        out[:, j] = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", gradient, joint, gradient), 0.0))
    return out if several else out[:, 0]


def _joint(m: Fit, rows: Rows) -> Array:
    """Return the covariance of (beta, theta), 0 for what is dropped, held or on the boundary."""
    if not isinstance(m.estimate, LaplaceEstimate):
        raise NotAvailableError(
            f"predict: standard errors with re='integrate' take the joint covariance of coefficients and variances, "
            f"which method={m.method!r} does not give; use method='ml'"
        )
    if rows.left:
        raise NotAvailableError(
            "predict: standard errors with re='integrate' are available at fitted positions of a process only"
        )
    return np.nan_to_num(m.estimate.joint())


def _normal(m: Fit, rows: Rows) -> tuple[Array, list[int], tuple[Array, Array], Array]:
    """Return means of the predictors, which of them vary, eigenvalues and -vectors of their covariance, its root."""
    eta = predictors(m, rows, [False] * len(m.layout.terms))
    spread = np.nan_to_num(joint_variance(m, rows))  # of rows that miss a value, which are left blank
    varying = [k for k in range(spread.shape[1]) if spread[:, k, k].any()]
    if len(varying) > MOST_VARYING:
        raise NotAvailableError(
            f"predict: re='integrate' over random effects in {len(varying)} linear predictors is not available; "
            f"average m.simulate() instead"
        )
    values, vectors = np.linalg.eigh(spread[:, varying][:, :, varying])
    values = np.maximum(values, 0.0)
    return eta, varying, (values, vectors), vectors * np.sqrt(values)[:, None, :]


def _nodes(eta: Array, varying: list[int], root: Array) -> Iterator[tuple[Array, Array, float]]:
    """Yield predictors, standard normal nodes and weights, which add up to 1."""
    count = NODES if len(varying) < 2 else min(NODES // 2, int(POINTS ** (1 / len(varying))))
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    weights = weights / weights.sum()
    for chosen in product(range(count), repeat=len(varying)):
        z, at = nodes[list(chosen)], eta.copy()
        at[:, varying] += root @ z
        yield at, z, float(np.prod(weights[list(chosen)]))


def joint_variance(m: Fit, rows: Rows) -> Array:
    """Covariance of the linear predictors of each row over b ~ N(0, Sigma), (n, K, K)."""
    out = np.zeros((rows.n, len(rows.components), len(rows.components)))
    for t in range(len(m.layout.terms)):
        out += before_data(m, rows, t)
        if t in rows.left:
            for a, b in product(components_of(m, t), repeat=2):
                out[:, a, b] += rows.left[t]
    return out


def _curvature(moved: Array, values: Array, vectors: Array) -> Array:
    """Return S with tr(S dC) = tr(E[d2g] dC) for every change dC that leaves C non-negative, (n, V, V).

    E[(dg/deta) z'] = H R gives H on the range of C. Where C has no variance, neither has the change of C at first
    order, and what H is between the range and the rest follows from its symmetry.
    """
    real = values > FLAT * np.maximum(values.max(axis=1, keepdims=True), np.finfo(float).tiny)
    scale = np.where(real, 1 / np.sqrt(np.where(real, values, 1.0)), 0.0)
    turned = np.swapaxes(vectors, 1, 2) @ moved * scale[:, None, :]  # V'HV, columns outside the range 0
    both = real[:, :, None] & real[:, None, :]
    whole = np.where(both, (turned + np.swapaxes(turned, 1, 2)) / 2, turned + np.swapaxes(turned, 1, 2))
    return vectors @ whole @ np.swapaxes(vectors, 1, 2)


def _theta_slopes(m: Fit, rows: Rows, varying: list[int]) -> list[tuple[int, Array]]:
    """Return (position in theta, d C / d theta of the predictors that vary, (n, V, V))."""
    out: list[tuple[int, Array]] = []
    for t, changes in _covariance_slopes(m):
        mine = [k for k in components_of(m, t) if k in varying]
        parts = {k: part_of(rows.terms[t], k) for k in mine}
        z = {k: matrix(part.blocks, rows.n) for k, (part, _) in parts.items()}
        for at, change in changes:
            found = np.zeros((rows.n, len(varying), len(varying)))
            for a, b in product(mine, mine):
                part = change[np.ix_(parts[a][1], parts[b][1])]
                value = scale_of(rows.terms[t]) * np.einsum("ij,jk,ik->i", z[a], part, z[b])
                found[:, varying.index(a), varying.index(b)] = value
            out.append((at, found))
    return out


def _covariance_slopes(m: Fit) -> Iterator[tuple[int, list[tuple[int, Array]]]]:
    """Yield each term and (position in theta, d Sigma / d theta)."""
    plain = [t.structure in PLAIN for t in m.layout.terms]
    at = 0
    for t, info in enumerate(m.layout.terms):
        if plain[t]:
            k = len(info.names)
            own = [_unit(k, cell) for cell in cells(k, info.structure)]
            yield t, [(at + i, _product(m.estimate.roots[t], d)) for i, d in enumerate(own)]
            at += len(own)
    if all(plain):
        return
    if not hasattr(m.core, "factor_jacobians"):
        raise NotAvailableError(
            "predict: standard errors with re='integrate' of a model with covariance structures need the rows: ask "
            "the fit before slim()"
        )
    found = dict(m.core.factor_jacobians())
    for t, info in enumerate(m.layout.terms):
        if not plain[t]:
            k = len(info.names)
            slopes = np.asarray(found[t]).reshape(-1, k * (k + 1) // 2)
            yield t, [(at + i, _product(m.estimate.roots[t], _lower(k, row))) for i, row in enumerate(slopes)]
            at += len(slopes)


def _unit(k: int, cell: tuple[int, int]) -> Array:
    out = np.zeros((k, k))
    out[cell] = 1.0
    return out


def _lower(k: int, entries: Array) -> Array:
    """Return the lower triangle with these entries, column by column."""
    out = np.zeros((k, k))
    for (i, j), value in zip(cells(k, "us"), entries, strict=True):
        out[i, j] = value
    return out


def _product(factor: Array, change: Array) -> Array:
    """Return d (Lambda Lambda')."""
    half = change @ factor.T
    return half + half.T
