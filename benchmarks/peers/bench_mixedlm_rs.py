"""Adapter of mixedlm-rs, which has one grouping factor. METHOD: REML or ML."""

from __future__ import annotations

from typing import Any

import mixedlm_rs

import harness


def results(fit: Any) -> dict[str, Any]:
    evaluations = fit.diagnostics.get("n_objective_evaluations")
    return {"criterion": -2 * fit.llf, "converged": bool(fit.converged), "evaluations": evaluations}


def make(model: harness.Model, method: str) -> harness.Fit:
    if len(model["random"]) != 1:
        harness.unsupported("one grouping factor only")
    frame, fixed = harness.load(model), f"{model['y']} ~ {model['fixed']}"
    ((terms, group),) = model["random"]
    random = None if terms == "1" else f"~{terms}"

    def fit() -> Any:
        fitted = mixedlm_rs.mixedlm(fixed, frame, groups=group, re_formula=random).fit(reml=method == "REML")
        return lambda: results(fitted)

    return fit


if __name__ == "__main__":
    harness.main(make)
