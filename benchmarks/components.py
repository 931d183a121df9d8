"""Small models of many families with a covariance structure in the mean, for `optima.py --kind components`.

Structure, family, truth (a covariance of the structure's own kind, one effect shared by all columns, nearly nothing, or
some columns without any) and what is beside the mean (nothing, zero inflation, a dispersion formula) are drawn.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from generated import INTERCEPT, OTHERS, ZERO_SHARE, Array, Generated, seeded
from ranef.families import Data, law_of, read_family
from structured import PLACED
from structured import covariance as of_structure

KINDS = ("us", "diag", "cs", "homcs", "ar1", "hetar1", "toep", "homtoep", "ou", "exp", "gau", "rr", "propto")
FAMILIES = ("gaussian", "poisson", "nbinom1", "nbinom2", "binomial", "trials", "beta", "gamma", "tweedie")
TRUTHS = ("own", "shared", "weak", "some")
BESIDE = ("", "", "zero_inflation", "dispersion")
INFLATED = ("poisson", "nbinom1", "nbinom2")
DISPERSED = ("gaussian", "nbinom1", "nbinom2", "beta", "gamma", "tweedie")
#: What glmmTMB 1.1.5 calls them; it has none of those left out.
OF_R = {
    "us": "us(t + 0 | id)", "diag": "diag(t + 0 | id)", "cs": "cs(t + 0 | id)", "ar1": "ar1(t + 0 | id)",
    "toep": "toep(t + 0 | id)", "ou": "ou(pos + 0 | id)", "exp": "exp(pos + 0 | id)", "gau": "gau(pos + 0 | id)",
    "rr": "rr(t + 0 | id, d = 1)",
}  # fmt: skip
TRIALS = 6


def drawn(count: int, first: int = 0) -> list[Generated]:
    """Draw the models from number `first` on."""
    return [generate(f"component-{i}") for i in range(first, first + count)]


def covariance(kind: str, truth: str, times: Array, rng: np.random.Generator) -> Array:
    """Return the covariance of the effects at the times."""
    k = len(times)
    alike = {"us": "cs", "diag": "homdiag", "propto": "ar1"}.get(kind, kind)
    sigma = of_structure(alike, "own" if truth == "some" else truth, times, rng)
    if kind in ("us", "diag"):
        sd = np.exp(rng.normal(scale=0.4, size=k))
        sigma = sigma * np.outer(sd, sd)
    if truth == "some":
        on = rng.random(k) < 0.6
        sigma = sigma * np.outer(on, on)
    return sigma


def generate(name: str) -> Generated:
    """Draw the model of a name."""
    rng = seeded(name)
    kind, family, truth = (str(rng.choice(v)) for v in (KINDS, FAMILIES, TRUTHS))
    beside = str(rng.choice(BESIDE))
    if family not in {"zero_inflation": INFLATED, "dispersion": DISPERSED}.get(beside, FAMILIES):
        beside = ""
    if family == "gaussian" and kind in ("us", "diag"):
        beside = "dispersion"  # else it is a linear mixed model
    k, groups, each = int(rng.integers(3, 7)), int(rng.integers(12, 41)), int(rng.integers(1, 4))
    times = np.cumsum(rng.uniform(0.4, 1.6, k)).round(3) if kind in PLACED else np.arange(float(k))
    effects = rng.multivariate_normal(
        np.zeros(k), covariance(kind, truth, times, rng), groups, method="eigh", check_valid="ignore"
    ).ravel()
    rows = np.repeat(np.arange(groups * k), each)
    rows = rows[rng.random(len(rows)) < (0.8 if rng.random() < 0.5 else 1.1)]
    ids, t = rows // k, rows % k
    x = rng.normal(size=len(rows)).round(4)
    law = replace(read_family({"trials": "binomial"}.get(family, family)), zero_inflation=beside == "zero_inflation")
    others = [*OTHERS.get(law.name, []), *([ZERO_SHARE] if law.zero_inflation else [])]
    eta = np.column_stack(
        [INTERCEPT[law.link] + 0.3 * x + np.clip(effects[rows], -6, 4), *(np.full(len(rows), v) for v in others)]
    )
    if beside == "dispersion":
        eta[:, 1] += 0.3 * x
    trials = np.full(len(rows), float(TRIALS)) if family == "trials" else None
    y = law_of(law).draw(np.asfortranarray(eta), Data(np.zeros(len(rows)), trials), rng)
    if family == "beta":
        y = np.clip(y, 1e-6, 1 - 1e-6)
    frame = pd.DataFrame({"y": y, "x": x, "t": t, "time": times[t], "id": ids})
    if trials is not None:
        frame = frame.assign(y=np.round(y * trials), fail=trials - np.round(y * trials))
    frame = frame.assign(t="t" + frame["t"].astype(str), id="g" + frame["id"].astype(str))
    options: dict[str, Any] = {"zero_inflation": "~ 1"} if beside == "zero_inflation" else {}
    if beside == "dispersion":
        options = {"dispersion": "~ x"}
    if kind == "propto":
        lags = np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
        options["cov"] = {"t": pd.DataFrame(0.5**lags, [f"t{j}" for j in range(k)], [f"t{j}" for j in range(k)])}
    if family == "gaussian":
        options["method"] = "ml"
    columns = "numFactor(time) + 0" if kind in PLACED else "t + 0"
    left = "cbind(y, fail)" if trials is not None else "y"
    formula = f"{left} ~ x + {kind}({columns} | id{', 1' if kind == 'rr' else ''})"
    said = {"kind": kind, "truth": truth, "beside": beside, "k": k, "groups": groups, "n": len(rows)}
    return Generated(name, law.name, frame, formula, said, options)
