"""Adapter of gpboost, whose random effects are uncorrelated.

METHOD: ML (its default: an iterative, stochastic log-determinant when there is more than one term) or ML_chol (exact).
"""

from __future__ import annotations

from typing import Any

import gpboost
import numpy as np
import patsy

import harness


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
    if method == "REML":
        harness.unsupported("ML only")
    frame = harness.load(model)
    y = frame[model["y"]].to_numpy(float)
    exact = {"matrix_inversion_method": "cholesky"} if method == "ML_chol" else {}

    def fit() -> Any:
        x = patsy.dmatrix(model["fixed"], frame, return_type="dataframe")
        groups = np.column_stack([frame[group].cat.codes for _, group in model["random"]])
        fitted = gpboost.GPModel(group_data=groups, likelihood="gaussian", **slopes(model, frame), **exact)
        fitted.fit(y=y, X=x)
        return lambda: {"criterion": 2 * fitted.get_current_neg_log_likelihood(), "converged": None}

    return fit


if __name__ == "__main__":
    harness.main(make)
