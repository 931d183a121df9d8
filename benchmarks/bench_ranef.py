"""Adapter of ranef: the whole call with its formula, and the core alone on arrays that are ready."""

from __future__ import annotations

import os
import time
from typing import Any

import harness
import ranef as rf
from ranef.engines import Control, linear
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


def results(fit: Any) -> dict[str, Any]:
    """Read the optimum off a fit."""
    return {
        "criterion": fit.criterion,
        "converged": bool(fit.converged),
        "sigma": fit.sigma,
        "boundary": str(fit.boundary),
    }


def make(model: harness.Model, method: str) -> harness.Fit:
    """Prepare the fit of one model."""
    frame, formula = harness.load(model), harness.formula(model)

    def fit() -> Any:
        fitted = rf.fit(formula, frame, method=method.lower(), threads=THREADS or None)
        return lambda: results(fitted) | core_times(formula, frame, method == "REML")

    return fit


if __name__ == "__main__":
    harness.main(make)
