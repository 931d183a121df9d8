"""Adapter of glmm.

METHOD: REML, ML, or either with _nosat (without Satterthwaite's degrees of freedom); laplace, agq9 for generalised
models, laplace_rx with the faster of its two kinds of standard errors.
"""

from __future__ import annotations

from typing import Any

import glmm

import harness

FAMILIES = {"binomial": "binomial", "poisson": "poisson", "gamma": "gamma", "nbinom2": "negativebinomial"}


def results(fit: Any) -> dict[str, Any]:
    return {"criterion": -2 * fit.loglik, "converged": bool(fit.converged), "evaluations": fit.n_eval}


def generalised_model(model: harness.Model, method: str) -> harness.Fit:
    count = harness.nodes(method)
    if "zero_inflation" in model or model["family"] not in FAMILIES or count == 0:
        harness.unsupported(f"{method}, {model['family']}")
    frame = harness.load(model)
    formula = harness.formula(model, harness.counted(model, frame))
    options: dict[str, Any] = {"nagq": count} if count != 1 else {}
    if method.endswith("_rx"):
        options |= {"wald_se": "rx", "anova_test": "Wald"}

    def fit() -> Any:
        fitted = glmm.fit(frame, formula, FAMILIES[model["family"]], **options)
        return lambda: results(fitted)

    return fit


def make(model: harness.Model, method: str) -> harness.Fit:
    if "family" in model:
        return generalised_model(model, method)
    frame, formula = harness.load(model), harness.formula(model)
    options = {"satterthwaite": False} if method.endswith("_nosat") else {}

    def fit() -> Any:
        fitted = glmm.fit(frame, formula, reml=method.startswith("REML"), **options)
        return lambda: results(fitted)

    return fit


if __name__ == "__main__":
    harness.main(make)
