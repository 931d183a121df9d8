"""Adapter of statsmodels' MixedLM; crossed terms as variance components of one big group. METHOD: REML or ML."""

from __future__ import annotations

from typing import Any

import statsmodels.formula.api as smf

import harness


def options(model: harness.Model, frame: Any) -> dict[str, Any]:
    """Return the random part as MixedLM takes it."""
    if len(model["random"]) == 1:
        ((terms, group),) = model["random"]
        return {"groups": group, "re_formula": None if terms == "1" else f"~{terms}"}
    frame["one_group"] = 1
    components: dict[str, str] = {}
    for terms, group in model["random"]:
        components[group] = f"0 + C({group})"
        for term in [t.strip() for t in terms.split("+")][1:]:
            components[f"{group}_{term}"] = f"0 + C({group}):{term}"
    return {"groups": "one_group", "vc_formula": components, "re_formula": "0"}


def make(model: harness.Model, method: str) -> harness.Fit:
    frame, fixed = harness.load(model), f"{model['y']} ~ {model['fixed']}"
    random = options(model, frame)

    def fit() -> Any:
        fitted = smf.mixedlm(fixed, frame, **random).fit(reml=method == "REML")
        return lambda: {"criterion": -2 * fitted.llf, "converged": bool(fitted.converged)}

    return fit


if __name__ == "__main__":
    harness.main(make)
