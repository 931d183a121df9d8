"""Figures as they are printed: a number holds if it rounds to the printed digits."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

import ranef as rf

DATA = Path(__file__).parent / "data"


@cache
def data(name: str) -> Any:
    """Return a data set of the package, or one that lies beside these tests."""
    path = DATA / f"{name}.csv"
    return pd.read_csv(path) if path.exists() else rf.datasets.load(name)


@cache
def _fitted(formula: str, name: str, options: tuple[tuple[str, Any], ...]) -> rf.Fit:
    return rf.fit(formula, data(name), **dict(options))


def fitted(formula: str, name: str, **options: Any) -> rf.Fit:
    """Fit once a session."""
    return _fitted(formula, name, tuple(sorted(options.items())))


def value(m: rf.Fit, name: str) -> float:
    """Return a figure of a fit by name: "loglik", "sigma", "sd(g)", "var(g)", "power", or a coefficient."""
    if name.startswith(("sd(", "var(")):
        kind, group = name.rstrip(")").split("(", 1)
        sd = float(m.varcorr()[group].sd[0])
        return sd if kind == "sd" else sd**2
    if hasattr(m, name):
        return float(getattr(m, name))
    if name in m.distribution.parameters:
        return float(m.predict(type=name)[0])
    found = m.coefficients()
    return float(found[name])


def unit(printed: str) -> float:
    """Return the unit of the last printed digit."""
    decimals = printed.partition(".")[2]
    return 10.0 ** -len(decimals)


def far(m: rf.Fit, printed: dict[str, str], units: float = 0.5001) -> dict[str, tuple[float, str]]:
    """Return the figures that are further from what is printed than so many units of the last digit."""
    ours = {name: value(m, name) for name in printed}
    return {
        name: (ours[name], text) for name, text in printed.items() if abs(ours[name] - float(text)) > units * unit(text)
    }
