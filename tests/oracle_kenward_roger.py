"""Kenward & Roger's method as their article writes it, with dense matrices of the size of the data.

For designs with n up to some hundreds; shares nothing with the package but `oracle.DenseLmm`'s V. Not part of the
package.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import oracle

Array = np.ndarray


@dataclass(frozen=True)
class Found:
    """Phi, Phi_A, the P_i and W, over the columns kept."""

    phi: Array
    adjusted: Array
    p: list[Array]
    w: Array


def directions(core: oracle.DenseLmm) -> list[Array]:
    """V_i = dV / d (variance or covariance) of every random effect, and of the residual variance: V is their sum."""
    out = []
    for z, shape in zip(core._z, core._shapes, strict=True):
        for unit in shape.unit:
            e = unit if np.array_equal(unit, unit.T) else unit + unit.T
            out.append(z @ np.kron(np.eye(shape.levels), e) @ z.T)
    return [*out, np.diag(1 / core._weights)]


def kenward_roger(core: oracle.DenseLmm, theta: Array, sigma: float) -> Found:
    """Eq. (3) of Kenward & Roger (1997), with the expected information of REML."""
    x, v_i = core._x, directions(core)
    inverse = np.linalg.inv(sigma**2 * core._v(theta))
    phi = np.linalg.inv(x.T @ inverse @ x)
    projection = inverse - inverse @ x @ phi @ x.T @ inverse
    w = np.linalg.inv(np.array([[np.trace(projection @ a @ projection @ b) / 2 for a in v_i] for b in v_i]))
    p = [-x.T @ inverse @ a @ inverse @ x for a in v_i]
    bent = np.zeros_like(phi)
    for i, a in enumerate(v_i):
        for j, b in enumerate(v_i):
            q = x.T @ inverse @ a @ inverse @ b @ inverse @ x
            bent += w[i, j] * (q - p[i] @ phi @ p[j])
    return Found(phi, phi + 2 * phi @ bent @ phi, p, w)


def f_test(found: Found, beta: Array, hypotheses: Array) -> tuple[float, float]:
    """Scaled F and its denominator degrees of freedom (sec. 3 of the article)."""
    size = len(hypotheses)
    middle = hypotheses.T @ np.linalg.inv(hypotheses @ found.phi @ hypotheses.T) @ hypotheses
    m = [middle @ found.phi @ p @ found.phi for p in found.p]
    pairs = [(found.w[i, j], m[i], m[j]) for i in range(len(m)) for j in range(len(m))]
    a1 = sum(w * np.trace(a) * np.trace(b) for w, a, b in pairs)
    a2 = sum(w * np.trace(a @ b) for w, a, b in pairs)
    b = (a1 + 6 * a2) / (2 * size)
    g = ((size + 1) * a1 - (size + 4) * a2) / ((size + 2) * a2)
    below = 3 * size + 2 * (1 - g)
    c = (g / below, (size - g) / below, (size + 2 - g) / below)
    mean = 1 / (1 - a2 / size)
    variance = 2 / size * (1 + c[0] * b) / ((1 - c[1] * b) ** 2 * (1 - c[2] * b))
    rho = variance / (2 * mean**2)
    df = 4 + (size + 2) / (size * rho - 1)
    value = hypotheses @ beta
    f = value @ np.linalg.solve(hypotheses @ found.adjusted @ hypotheses.T, value) / size
    return float(df / (mean * (df - 2)) * f), float(df)
