"""Adapter of mixedlm. METHOD: REML or ML."""

from __future__ import annotations

from typing import Any

import mixedlm

import harness


def results(fit: Any) -> dict[str, Any]:
    evaluations = getattr(fit, "function_evals", None)
    return {"criterion": float(fit.deviance), "converged": bool(fit.converged), "evaluations": evaluations}


def make(model: harness.Model, method: str) -> harness.Fit:
    frame, formula = harness.load(model), harness.formula(model)

    def fit() -> Any:
        fitted = mixedlm.lmer(formula, frame, REML=method == "REML")
        return lambda: results(fitted)

    return fit


if __name__ == "__main__":
    harness.main(make)
