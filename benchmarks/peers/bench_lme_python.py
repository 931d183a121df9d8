"""Adapter of lme-python. METHOD: REML or ML."""

from __future__ import annotations

from typing import Any

import lme_python

import harness


def results(fit: Any) -> dict[str, Any]:
    criterion = fit.reml_criterion if fit.reml_criterion is not None else -2 * fit.log_likelihood
    evaluations = (fit.diagnostics or {}).get("outer_iterations")
    return {"criterion": criterion, "converged": bool(fit.converged), "evaluations": evaluations}


def make(model: harness.Model, method: str) -> harness.Fit:
    frame, formula = harness.load(model), harness.formula(model)

    def fit() -> Any:
        fitted = lme_python.lmer(formula, frame, reml=method == "REML")
        return lambda: results(fitted)

    return fit


if __name__ == "__main__":
    harness.main(make)
