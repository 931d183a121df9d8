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

SCIPY = ("Nelder-Mead", "Powell", "CG", "BFGS", "L-BFGS-B", "TNC", "SLSQP", "COBYLA", "trust-constr")
WITHOUT_GRADIENT = ("Nelder-Mead", "Powell", "COBYLA")
WITHOUT_BOUNDS = ("CG", "BFGS")
MAX_EVALUATIONS = 20_000


@dataclass(frozen=True, slots=True)
class Found:
    """Where an optimiser stopped, and how."""

    theta: Array
    outcome: str
    evaluations: int
    iterations: int


def minimise(core: Any, reml: bool, control: Control, lower: Array) -> Found:
    """Minimise the profiled criterion over theta >= lower bounds with the optimiser that `control` names."""
    package, method = control.optimizer.split(":", 1)
    start = np.where(np.isfinite(lower), 1.0, 0.0) if control.start is None else np.array(control.start)
    objective = _Objective(core, reml)
    run = _scipy if package == "scipy" else _nlopt
    return run(method, objective, start, lower, control)


class _Objective:
    """Criterion and gradient, counting evaluations."""

    def __init__(self, core: Any, reml: bool) -> None:
        self.core, self.reml, self.count = core, reml, 0

    def __call__(self, theta: Array) -> tuple[float, Array]:
        self.count += 1
        at = self.core.evaluate(np.ascontiguousarray(theta), self.reml)
        return float(at["criterion"]), np.asarray(at["gradient"])

    def value(self, theta: Array) -> float:
        return self(theta)[0]


def _scipy(method: str, objective: _Objective, start: Array, lower: Array, control: Control) -> Found:
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


def _nlopt(method: str, objective: _Objective, start: Array, lower: Array, control: Control) -> Found:
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


def _nlopt_objective(objective: _Objective) -> Callable[[Array, Array], float]:
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
