"""Adapter of ranef: the whole call with its formula, and the core alone on arrays that are ready."""

from __future__ import annotations

import os
import time
from typing import Any

import harness
import ranef as rf
import ranef.formula.grammar  # otherwise read with the first formula: R's library() loads all of a package, too
from ranef.call import build_call, make_call
from ranef.engines import Control, laplace, linear
from ranef.frame import build

THREADS = int(os.environ.get("BENCH_THREADS", "0"))


def core_times(formula: str, frame: Any, reml: bool) -> dict[str, float]:
    """Time the core alone: the pass over the rows, the optimisation, and one factorisation with its gradient."""
    _, design = build(formula, frame)
    options = Control().options
    clock = time.perf_counter
    start = clock()
    core = linear.make_core(design, threads=THREADS)
    passed = clock()
    result = core.fit(reml, None, options)
    done = clock()
    core.evaluate(result["theta"], reml)
    once = clock() - done
    return {"t_core": done - start, "t_pass": passed - start, "t_once": once, "evaluations": result["evaluations"]}


def generalised_core_times(formula: str, frame: Any, options: dict[str, Any]) -> dict[str, float]:
    """Time the core of a generalised model alone: the set-up, all of it, and one more evaluation of the criterion.

    `evaluations` counts those of the criterion (outer), `inner` the Newton steps that searched modes inside them.
    """
    call = make_call(formula, **options)
    _, design = build_call(call, frame)
    task = call.task(design)
    clock = time.perf_counter
    start = clock()
    core = laplace.make_core(design, task)
    passed = clock()
    record = core.fit(laplace.start_of(task, design), task.quadrature, task.control.options)
    done = clock()
    core.evaluate(record["beta"], record["theta"])
    once = clock() - done
    times = {"t_core": done - start, "t_pass": passed - start, "t_once": once}
    return times | {name: record[name] for name in ("evaluations", "inner", "iterations")}


def results(fit: Any) -> dict[str, Any]:
    """Read the optimum off a fit, and time what it computes only when asked: covariance and degrees of freedom."""
    start = time.perf_counter()
    _ = fit.estimate.vcov, fit.ddf
    return {
        "t_errors": time.perf_counter() - start,
        "criterion": fit.criterion,
        "loglik": fit.loglik,
        "converged": bool(fit.converged),
        "sigma": fit.sigma,
        "boundary": str(fit.boundary),
    }


def linear_model(model: harness.Model, method: str) -> harness.Fit:
    """Prepare the fit of a linear model."""
    frame, formula = harness.load(model), harness.formula(model)

    def fit() -> Any:
        fitted = rf.fit(formula, frame, method=method.lower(), threads=THREADS or None)
        return lambda: results(fitted) | core_times(formula, frame, method == "REML")

    return fit


def generalised_model(model: harness.Model, method: str) -> harness.Fit:
    """Prepare the fit of a generalised model."""
    frame = harness.load(model)
    formula = harness.formula(model, harness.counted(model, frame))
    options = {"family": model["family"], "quadrature": harness.nodes(method), "threads": THREADS or None}
    if "zero_inflation" in model:
        options["zero_inflation"] = f"~ {model['zero_inflation']}"

    def fit() -> Any:
        fitted = rf.fit(formula, frame, **options)
        return lambda: results(fitted) | generalised_core_times(formula, frame, options)

    return fit


def make(model: harness.Model, method: str) -> harness.Fit:
    """Prepare the fit of one model."""
    return (generalised_model if "family" in model else linear_model)(model, method)


if __name__ == "__main__":
    harness.main(make)
