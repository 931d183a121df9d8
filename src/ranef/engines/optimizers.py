"""Other people's optimisers on the same criterion, for comparison with the engine's own."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ranef.engines.control import Control
from ranef.engines.estimate import Array
from ranef.errors import NotAvailableError, OptionError, nearest
from ranef.progress import onlooker

SCIPY = ("Nelder-Mead", "Powell", "CG", "BFGS", "L-BFGS-B", "TNC", "SLSQP", "COBYLA", "trust-constr")
WITHOUT_GRADIENT = ("Nelder-Mead", "Powell", "COBYLA")
WITHOUT_BOUNDS = ("CG", "BFGS")
MAX_EVALUATIONS = 20_000
LONGEST = 1e3  # unit of a parameter that the first point hardly identifies
WORST = 1e12  # -2 log-likelihood where there is none


@dataclass(frozen=True, slots=True)
class Found:
    """Where an optimiser stopped, and how."""

    theta: Array
    outcome: str
    evaluations: int
    iterations: int


def minimise(core: Any, reml: bool, control: Control, lower: Array) -> Found:
    """Minimise the profiled criterion over theta >= lower bounds with the optimiser that `control` names."""
    start = np.where(np.isfinite(lower), 1.0, 0.0) if control.start is None else np.array(control.start)

    def criterion(theta: Array) -> tuple[float, Array]:
        at = core.evaluate(np.ascontiguousarray(theta), reml)
        return float(at["criterion"]), np.asarray(at["gradient"])

    return _run(criterion, start, lower, control)


@dataclass(frozen=True, slots=True)
class JointFound:
    """Where an optimiser over (beta, theta) stopped, and how."""

    beta: Array
    theta: Array
    outcome: str
    evaluations: int
    iterations: int


def minimise_joint(core: Any, first: Any, lower: Array, control: Control, method: tuple[int, str]) -> JointFound:
    """Minimise -2 log-likelihood over (beta, theta), theta >= lower bounds, in standard errors from a first point.

    Parameters
    ----------
    core : Glmm
    first : record
        Of the core, where to begin.
    method : (int, str)
        Quadrature and criterion.
    """
    beta, theta = np.asarray(first["beta"]), np.asarray(first["theta"])
    kept: Any = np.flatnonzero(~np.isnan(beta))
    core.adopt(np.nan_to_num(beta).tolist(), theta.tolist(), *method)
    spread = np.sqrt(np.maximum(np.nan_to_num(np.diag(core.vcov())), 0.0))[
        [*kept, *range(len(beta), len(beta) + len(theta))]
    ]
    unit = np.where(spread > 0, np.minimum(spread, LONGEST), 1.0)
    objective = _JointObjective(core, beta, kept, unit)
    bounds = np.concatenate([np.full(len(kept), -np.inf), lower]) / unit
    found = _run(objective, np.concatenate([beta[kept], theta]) / unit, bounds, control)
    at = objective.point(found.theta)
    return JointFound(*at, found.outcome, found.evaluations, found.iterations)


def _run(objective: Any, start: Array, lower: Array, control: Control) -> Found:
    package, method = control.optimizer.split(":", 1)
    return (_scipy if package == "scipy" else _nlopt)(method, _Watched(objective), start, lower, control)


class _JointObjective:
    """-2 log-likelihood and its gradient in scaled (beta, theta); infinite where undefined."""

    def __init__(self, core: Any, beta: Array, kept: Any, unit: Array) -> None:
        self.core, self.kept, self.unit = core, kept, unit
        self.beta = np.nan_to_num(beta)

    def point(self, par: Array) -> tuple[Array, Array]:
        beta, values = self.beta.copy(), par * self.unit
        beta[self.kept] = values[: len(self.kept)]
        return beta, values[len(self.kept) :]

    def __call__(self, par: Array) -> tuple[float, Array]:
        beta, theta = self.point(par)
        try:
            at = self.core.evaluate(beta.tolist(), theta.tolist())
        except ValueError:
            return WORST, np.zeros_like(par)
        slope = np.asarray(at["gradient"])
        own = np.concatenate([slope[self.kept], slope[len(beta) :]])
        return -2 * float(at["loglik"]), -2 * own * self.unit


class _Watched:
    """An objective, value and gradient, whose evaluations are counted and told to whoever looks on."""

    def __init__(self, objective: Callable[[Array], tuple[float, Array]]) -> None:
        self.objective, self.count, self.least = objective, 0, float("inf")
        self.told = onlooker()

    def __call__(self, par: Array) -> tuple[float, Array]:
        value, slope = self.objective(par)
        self.count, self.least = self.count + 1, min(self.least, value)
        if self.told is not None:
            self.told(self.count, self.least)
        return value, slope

    def value(self, par: Array) -> float:
        return self(par)[0]


def _scipy(method: str, objective: Any, start: Array, lower: Array, control: Control) -> Found:
    from scipy import optimize

    if method not in SCIPY:
        raise OptionError(f"control: scipy has no method {method!r} for this; {nearest(method, SCIPY)}")
    smooth = method not in WITHOUT_GRADIENT
    tolerance, limit = _scipy_options(method, control)
    minimize: Any = optimize.minimize  # its stubs cannot follow a method chosen at run time
    found = minimize(
        objective if smooth else objective.value,
        start,
        jac=smooth or None,
        method=method,
        bounds=None if method in WITHOUT_BOUNDS else optimize.Bounds(lower, np.inf),
        options={**tolerance, **limit},
    )
    theta = np.asarray(found.x, dtype=float)
    return Found(
        theta, "stalled" if found.success else "max_evaluations", objective.count, int(getattr(found, "nit", 0))
    )


def _scipy_options(method: str, control: Control) -> tuple[dict[str, float], dict[str, int]]:
    """Tight stopping rules and the limit, under the names each method has for them."""
    limit = control.max_evaluations or MAX_EVALUATIONS
    tolerances: dict[str, dict[str, float]] = {
        "Nelder-Mead": {"xatol": 1e-8, "fatol": 1e-10},
        "Powell": {"xtol": 1e-8, "ftol": 1e-14},
        "CG": {"gtol": 1e-6},
        "BFGS": {"gtol": 1e-6},
        "L-BFGS-B": {"gtol": 1e-7, "ftol": 1e-14},
        "TNC": {"gtol": 1e-9, "ftol": 1e-14},
        "SLSQP": {"ftol": 1e-12},
        "COBYLA": {"tol": 1e-9},
        "trust-constr": {"gtol": 1e-8, "xtol": 1e-10},
    }
    names = {"Nelder-Mead": "maxfev", "Powell": "maxfev", "L-BFGS-B": "maxfun", "TNC": "maxfun"}
    return tolerances[method], {names.get(method, "maxiter"): limit}


def _nlopt(method: str, objective: Any, start: Array, lower: Array, control: Control) -> Found:
    nlopt = _import_nlopt()
    if not hasattr(nlopt, method):
        raise OptionError(f"control: nlopt has no algorithm {method!r}; for example 'nlopt:LN_BOBYQA'")
    problem = nlopt.opt(getattr(nlopt, method), len(start))
    problem.set_min_objective(_nlopt_objective(objective))
    problem.set_lower_bounds(lower)
    problem.set_xtol_abs(1e-9)
    problem.set_ftol_abs(1e-10)
    problem.set_maxeval(control.max_evaluations or MAX_EVALUATIONS)
    theta = np.asarray(problem.optimize(start), dtype=float)
    stopped = problem.last_optimize_result() == nlopt.MAXEVAL_REACHED
    return Found(theta, "max_evaluations" if stopped else "stalled", objective.count, objective.count)


def _nlopt_objective(objective: Any) -> Callable[[Array, Array], float]:
    def call(theta: Array, gradient: Array) -> float:
        value, slope = objective(theta)
        if gradient.size:
            gradient[:] = slope
        return value

    return call


def _import_nlopt() -> Any:
    try:
        return importlib.import_module("nlopt")
    except ImportError as error:
        raise NotAvailableError("optimizer 'nlopt:…' needs the package nlopt (pip install nlopt)") from error
