"""Gaussian models with dense V(psi), differentiated numerically: what small-sample theory is, as the articles write it.

For designs with n up to some hundreds; shares nothing with the package. Not part of the package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
STEP = 1e-4  # of parameters of order 1: first differences are good to 1e-8, second ones to 1e-6 of V


@dataclass(frozen=True)
class Small:
    """At one psi: Phi, its slopes, the Hessian of the deviance, W from the expected information, Phi_A."""

    phi: Array
    slopes: Array
    hessian: Array
    w: Array
    adjusted: Array

    @property
    def df(self) -> Array:
        """Satterthwaite's degrees of freedom of the coefficients."""
        return self.matched(2 * np.linalg.inv(self.hessian))

    def matched(self, spread: Array) -> Array:
        """2 v^2 / g'Ag."""
        g = np.diagonal(self.slopes, axis1=1, axis2=2)
        return 2 * np.diag(self.phi) ** 2 / np.einsum("ir,ij,jr->r", g, spread, g)


def small(x: Array, y: Array, v_of: Callable[[Array], Array], psi: Array, reml: bool = True) -> Small:
    """Everything by the articles' formulae: Kenward & Roger (1997) eq. 3, the term of the bias of 2009 included."""
    psi = np.asarray(psi, dtype=float)
    m, unit = len(psi), STEP * np.eye(len(psi))
    first = [(v_of(psi + h) - v_of(psi - h)) / (2 * STEP) for h in unit]
    second = [
        [
            (v_of(psi + a + b) - v_of(psi + a - b) - v_of(psi - a + b) + v_of(psi - a - b)) / (4 * STEP**2)
            for b in unit
        ]
        for a in unit
    ]  # fmt: skip
    inverse = np.linalg.inv(v_of(psi))
    phi = np.linalg.inv(x.T @ inverse @ x)
    projection = inverse - inverse @ x @ phi @ x.T @ inverse
    inside = projection if reml else inverse
    e = projection @ y
    turned, projected = [inside @ a for a in first], [projection @ a for a in first]
    moved = [a @ e for a in first]
    hessian = np.empty((m, m))
    information = np.empty((m, m))
    for i in range(m):
        for j in range(m):
            traces = (inside * second[i][j]).sum() - (turned[i] * turned[j].T).sum()
            squares = 2 * moved[i] @ projection @ moved[j] - e @ second[i][j] @ e
            hessian[i, j] = traces + squares
            information[i, j] = (projected[i] * projected[j].T).sum() / 2
    w = np.linalg.inv(information)
    weighted = inverse @ x
    p = [-weighted.T @ a @ weighted for a in first]
    inner = np.zeros_like(phi)
    for i in range(m):
        for j in range(m):
            q = weighted.T @ first[i] @ inverse @ first[j] @ weighted
            r = weighted.T @ second[i][j] @ weighted
            inner += w[i, j] * (q - p[i] @ phi @ p[j] - r / 4)
    bent = sum(w[i, j] * second[i][j] for i in range(m) for j in range(m))
    bias = -w @ [(projection @ bent * a.T).sum() for a in projected] / 4
    slopes = np.array([-phi @ a @ phi for a in p])
    adjusted = phi + 2 * phi @ inner @ phi - np.tensordot(bias, slopes, axes=1)
    return Small(phi, slopes, hessian, w, adjusted)
