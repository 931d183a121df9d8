"""Adapter of interlace-lme. METHOD: REML or ML."""

from __future__ import annotations

from typing import Any

import interlace

import harness


def make(model: harness.Model, method: str) -> harness.Fit:
    frame, fixed = harness.load(model), f"{model['y']} ~ {model['fixed']}"
    random = [f"({terms} | {group})" for terms, group in model["random"]]

    def fit() -> Any:
        fitted = interlace.fit(fixed, frame, random=random, method=method)
        return lambda: {"criterion": -2 * fitted.llf, "converged": bool(fitted.converged)}

    return fit


if __name__ == "__main__":
    harness.main(make)
