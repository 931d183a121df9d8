"""Fits with a later correlation of a Toeplitz structure held: an equation between the coordinates of several lags.

The correlation at lag k is a function of the partial correlations at lags 1 to k (Durbin and Levinson's recursion). The
core's own curve solves it for the last of these, which has no solution where others reach 1 on the way. Here all of
them move, as angles between -pi/2 and pi/2, under the equation: sequential quadratic programming (Kraft 1988) with the
core's exact gradient, and the recursion's by a complex step, which is exact to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines.estimate import LaplaceEstimate
from ranef.engines.lags import toeplitz_correlations
from ranef.frame.design import Array
from ranef.inference.parameters import Parameter

if TYPE_CHECKING:
    from ranef.model import Fit

END = math.pi / 2 - 1e-4  # of angles: partial correlations of 1 - 5e-9
STEP = 1e-30  # imaginary
TIGHT = 1e-9  # change of the deviance at which the search ends
OFF = 1e-7  # of the correlation from the value it is held at
WIDEST = 12.0  # from a coordinate's estimate, in its standard errors: what lies farther tells nothing


@dataclass(frozen=True, slots=True)
class Held:
    """An optimum under the equation, in the coordinates of the fit."""

    beta: Array
    theta: Array
    outcome: str = "converged"


class Lags:
    """The likelihood of a fit as a function of free coordinates.

    Parameters
    ----------
    m : Fit
        By maximum likelihood, without priors or parameters held.
    p : Parameter
        The correlation; its `hold` has the positions of its own and all earlier lags in theta.
    """

    def __init__(self, m: Fit, p: Parameter) -> None:
        assert isinstance(m.estimate, LaplaceEstimate)
        self.m, self.beta = m, np.array(m.estimate.beta)
        self.free = np.flatnonzero(~np.isnan(self.beta))
        self.lags = len(self.free) + np.array(p.hold[1])
        spread = np.sqrt(np.maximum(np.nan_to_num(np.diag(np.asarray(m.estimate.joint()))), 0.0))
        spread = spread[np.r_[self.free, np.arange(len(self.beta), len(spread))]]
        self.unit = np.where((spread > 0) & (spread < 2), spread, 1.0)
        self.centre = self.coordinates(m.estimate)
        self.unit[self.lags] = 1.0

    def coordinates(self, e: Any) -> Array:
        """Return the coordinates of an estimate: coefficients, entries of theta, angles of lags."""
        out = np.concatenate([np.asarray(e.beta)[self.free], np.asarray(e.theta)])
        out[self.lags] = np.arctan(out[self.lags])
        return out

    def point(self, z: Array) -> Held:
        """Undo `coordinates`."""
        beta, theta = self.beta.copy(), z[len(self.free) :].copy()
        beta[self.free] = z[: len(self.free)]
        theta[self.lags - len(self.free)] = np.tan(z[self.lags])
        return Held(beta, theta)

    def deviance(self, z: Array) -> tuple[float, Array]:
        """Return -2 log-likelihood and its gradient; a wall where the core cannot stand."""
        at = self.point(z)
        try:
            found: Mapping[str, Any] = self.m.core.evaluate(np.nan_to_num(at.beta).tolist(), at.theta.tolist())
        except (ValueError, ArithmeticError):
            return 1e10, np.zeros(len(z))
        gradient = -2 * np.asarray(found["gradient"])
        gradient = gradient[np.r_[self.free, np.arange(len(self.beta), len(gradient))]]
        gradient[self.lags] /= np.cos(z[self.lags]) ** 2
        return -2 * float(found["loglik"]), gradient

    def correlation(self, z: Array) -> Array:
        """Return the correlation at the last of the lags, of (r, all) coordinates."""
        return toeplitz_correlations(np.tan(z[:, self.lags]))[:, -1]

    def slope(self, z: Array) -> Array:
        """Return the gradient of `correlation`."""
        moved = np.tile(z.astype(complex), (len(self.lags), 1))
        moved[np.arange(len(self.lags)), self.lags] += STEP * 1j
        out = np.zeros(len(z))
        out[self.lags] = self.correlation(moved).imag / STEP
        return out

    def held(self, value: float, near: Any) -> tuple[float, Held] | None:
        """Return -2 log-likelihood and the optimum where the correlation has a value, searched from near it."""
        from scipy.optimize import minimize

        start, unit = self.coordinates(near), self.unit
        bounds = np.column_stack([(self.centre - WIDEST * unit) / unit, (self.centre + WIDEST * unit) / unit])
        bounds[self.lags] = (-END, END)

        def equation(s: Array) -> float:
            return float(self.correlation((s * unit)[None])[0] - value)

        def normal(s: Array) -> Array:
            return self.slope(s * unit) * unit

        def objective(s: Array) -> tuple[float, Array]:
            found, gradient = self.deviance(s * unit)
            return found, gradient * unit

        search: Any = minimize
        law = {"type": "eq", "fun": equation, "jac": normal}
        at = np.clip(start / unit, bounds[:, 0], bounds[:, 1])
        with self.m.core.turn:
            try:
                options = {"ftol": TIGHT, "maxiter": 300}
                r = search(objective, at, jac=True, method="SLSQP", bounds=bounds, constraints=law, options=options)
            finally:
                e = self.m.estimate
                self.m.core.adopt(np.nan_to_num(self.beta).tolist(), list(e.theta), self.m.task.quadrature, "ml")
        if not math.isfinite(r.fun) or r.fun >= 1e10 or r.status not in (0, 8) or abs(equation(r.x)) > OFF:
            return None
        return float(r.fun), self.point(r.x * unit)
