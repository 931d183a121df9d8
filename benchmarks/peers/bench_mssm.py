"""Adapter of mssm: uncorrelated random effects as penalised terms, REML by extended Fellner-Schall. METHOD: REML."""

from __future__ import annotations

from typing import Any

from mssm.models import GAMM, Formula, Gaussian, i, l, lhs, ri, rs

import harness


def terms(model: harness.Model) -> list[Any]:
    """Return the model in mssm's terms."""
    fixed = [] if model["fixed"] == "1" else [t.strip() for t in model["fixed"].split("+")]
    parts = [i()] + [l([t]) for t in fixed]
    for columns, group in model["random"]:
        parts.append(ri(group))
        parts += [rs([group, t.strip()]) for t in columns.split("+")[1:]]
    return parts


def make(model: harness.Model, method: str) -> harness.Fit:
    if method != "REML":
        harness.unsupported("REML only")
    frame = harness.load(model, categorical=False)
    frame[model["y"]] = frame[model["y"]].astype(float)

    def fit() -> Any:
        fitted = GAMM(Formula(lhs(model["y"]), terms(model), data=frame), Gaussian())
        fitted.fit(progress_bar=False)
        return lambda: {"criterion": None, "converged": None}

    return fit


if __name__ == "__main__":
    harness.main(make)
