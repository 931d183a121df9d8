"""Adapter of gpboost, whose random effects are uncorrelated.

METHOD: ML, laplace (its default: an iterative, stochastic log-determinant when there is more than one term), or either
with _chol (exact).
"""

from __future__ import annotations

from typing import Any

import gpboost
import numpy as np
import patsy

import harness

LIKELIHOODS = {
    "binomial": "bernoulli_logit", "poisson": "poisson", "gamma": "gamma", "nbinom2": "negative_binomial",
    "beta": "beta", "tweedie": "tweedie",
}  # fmt: skip
INFLATED = {"poisson": "zero_inflated_regression_poisson", "nbinom2": "zero_inflated_regression_negative_binomial"}


def likelihood(model: harness.Model) -> str:
    """Return gpboost's name of a model's likelihood; its zero part has the predictors of the mean."""
    if "family" not in model:
        return "gaussian"
    if "trials" in model:
        return "binomial_logit"
    if "zero_inflation" in model and model["zero_inflation"] != model["fixed"]:
        harness.unsupported("other predictors for zeros")
    found = (INFLATED if "zero_inflation" in model else LIKELIHOODS).get(model["family"])
    return found or harness.unsupported(model["family"]) or ""


def slopes(model: harness.Model, frame: Any) -> dict[str, Any]:
    """Return the varying slopes as gpboost takes them."""
    columns, groups = [], []
    for index, (terms, _) in enumerate(model["random"], 1):
        for term in [t.strip() for t in terms.split("+")][1:]:
            matrix = patsy.dmatrix(term, frame, return_type="dataframe").iloc[:, 1:]
            columns += [matrix[c].to_numpy() for c in matrix]
            groups += [index] * matrix.shape[1]
    return {"group_rand_coef_data": np.column_stack(columns), "ind_effect_group_rand_coef": groups} if columns else {}


def make(model: harness.Model, method: str) -> harness.Fit:
    if method == "REML" or harness.nodes(method) not in (None, 1):
        harness.unsupported(method)
    frame, name = harness.load(model), likelihood(model)
    if "trials" in model:
        y = (frame[model["successes"]] / frame[model["trials"]]).to_numpy(float)
    else:
        y = frame[model["y"]].to_numpy(float)
    options: dict[str, Any] = {"matrix_inversion_method": "cholesky"} if method.endswith("_chol") else {}
    if "trials" in model:
        options["weights"] = frame[model["trials"]].to_numpy(float)

    def fit() -> Any:
        x = patsy.dmatrix(model["fixed"], frame, return_type="dataframe")
        groups = np.column_stack([frame[group].cat.codes for _, group in model["random"]])
        fitted = gpboost.GPModel(group_data=groups, likelihood=name, **slopes(model, frame), **options)
        fitted.fit(y=y, X=x)
        return lambda: {"criterion": 2 * fitted.get_current_neg_log_likelihood(), "converged": None}

    return fit


if __name__ == "__main__":
    harness.main(make)
