"""Adapter of glmm. METHOD: REML, ML, or either with _nosat (without Satterthwaite's degrees of freedom)."""

from __future__ import annotations

from typing import Any

import glmm

import harness


def results(fit: Any) -> dict[str, Any]:
    return {"criterion": -2 * fit.loglik, "converged": bool(fit.converged), "evaluations": fit.n_eval}


def make(model: harness.Model, method: str) -> harness.Fit:
    frame, formula = harness.load(model), harness.formula(model)
    options = {"satterthwaite": False} if method.endswith("_nosat") else {}

    def fit() -> Any:
        fitted = glmm.fit(frame, formula, reml=method.startswith("REML"), **options)
        return lambda: results(fitted)

    return fit


if __name__ == "__main__":
    harness.main(make)
