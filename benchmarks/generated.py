"""Small models drawn at random, for `optima.py` and `robustness.py`: a name gives the same model everywhere."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

import ranef as rf
from ranef.families import Data, Distribution, law_of, read_family

Array = np.ndarray

# Linear predictors of what is not the mean: dispersion, then the family's further parameters.
OTHERS = {
    "gaussian": [0.0], "lognormal": [-0.5], "skew_normal": [0.0, 2.0], "betabinomial": [1.0], "nbinom1": [0.3],
    "nbinom2": [0.4], "nbinom12": [0.3, 0.8], "gamma": [-0.4], "inverse_gaussian": [-0.7], "weibull": [0.4],
    "student_t": [0.0, 1.6], "beta": [1.8], "ordered_beta": [1.5, -1.5, 1.5],
    "zero_one_inflated_beta": [1.8, -1.5, 0.0], "genpois": [0.4], "compois": [0.3], "tweedie": [0.2, 0.0],
}  # fmt: skip
THRESHOLDS = np.array([-1.2, 0.0, 1.1])
INTERCEPT = {"log": 0.6, "logit": -0.3, "identity": 1.0}
ZERO_SHARE = -0.8  # logit of the probability of an extra zero


@dataclass(frozen=True)
class Generated:
    """A data frame and what to fit to it."""

    name: str
    family: str
    frame: pd.DataFrame
    formula: str
    truth: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)

    def fit(self, **more: Any) -> Any:
        """Fit it with ranef."""
        return rf.fit(self.formula, self.frame, family=self.family, **self.options, **more)


@dataclass(frozen=True)
class Plan:
    """What to draw: rows, levels of the two factors, random terms with their standard deviations, the mean."""

    family: str
    n: int
    levels: tuple[int, int]
    terms: tuple[tuple[str, str, tuple[float, ...]], ...]  # (columns, factor, standard deviations)
    intercept: float | None = None
    slope: float = 0.4
    zero_inflation: bool = False
    trials: bool = False
    change: Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame] | None = None


def seeded(name: str) -> np.random.Generator:
    """Return the random numbers of a name."""
    return np.random.default_rng([2024, zlib.crc32(name.encode())])


def predictors(plan: Plan, family: Distribution, frame: pd.DataFrame, rng: np.random.Generator) -> Array:
    """Return the linear predictors, (n, K)."""
    start = INTERCEPT[family.link] if plan.intercept is None else plan.intercept
    eta = start + plan.slope * frame["x"].to_numpy()
    for columns, factor, deviations in plan.terms:
        z = np.column_stack([np.ones(plan.n), frame["x"]])[:, : len(deviations)]
        b = rng.normal(size=(plan.n, len(deviations))) * deviations  # more than there are levels: indices suffice
        assert columns in ("1", "1 + x")
        eta = eta + (z * b[frame[factor].to_numpy(int)]).sum(1)
    others = [*OTHERS.get(plan.family, []), *([ZERO_SHARE] if plan.zero_inflation else [])]
    if family.entry.ordinal:
        others = list(THRESHOLDS)
    if family.entry.nominal:  # the other categories' log odds, the last one's without x
        return np.column_stack([eta, 0.3 - 0.5 * eta, np.full(plan.n, -0.2)])
    return np.column_stack([eta, *(np.full(plan.n, v) for v in others)])


def generate(name: str, plan: Plan) -> Generated:
    """Draw the model of a name."""
    rng = seeded(name)
    g, h = (
        np.sort(rng.integers(0, k, plan.n)) if j == 0 else rng.integers(0, k, plan.n) for j, k in enumerate(plan.levels)
    )
    frame = pd.DataFrame({"x": rng.normal(size=plan.n).round(4), "g": g, "h": h})
    family = replace(read_family(plan.family), zero_inflation=plan.zero_inflation)
    trials = rng.integers(1, 12, plan.n).astype(float) if plan.trials else None
    eta = predictors(plan, family, frame, rng)
    if family.categorical:
        family = replace(family, categories=len(THRESHOLDS) + 1)
    y = law_of(family).draw(np.asfortranarray(eta), Data(np.zeros(plan.n), trials), rng)
    if trials is not None:
        y = np.round(y * trials)
        frame = frame.assign(fail=trials - y)
    if plan.family == "beta":
        y = np.clip(y, 1e-6, 1 - 1e-6)
    frame = frame.assign(y=ordered(y) if family.categorical else y)
    if plan.change is not None:
        frame = plan.change(frame, rng)
    frame = frame.assign(g="g" + frame["g"].astype(str), h="h" + frame["h"].astype(str))
    left = "cbind(y, fail)" if plan.trials else "y"
    formula = f"{left} ~ x + " + " + ".join(f"({c} | {f})" for c, f, _ in plan.terms)
    options = {"zero_inflation": "~ 1"} if plan.zero_inflation else {}
    truth = {"n": plan.n, "levels": plan.levels, "sd": [t[2] for t in plan.terms]}
    return Generated(name, plan.family, frame, formula, truth, options)


def ordered(y: Array) -> pd.Categorical:
    """Make an ordered factor of category numbers."""
    return pd.Categorical(
        y.astype(int).astype(str), categories=[str(k) for k in range(len(THRESHOLDS) + 1)], ordered=True
    )
