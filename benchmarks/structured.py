"""Small models with a covariance structure drawn at random, for `optima.py --kind structures`.

A structure, a response (gaussian beside a residual variance, gaussian without one, counts) and a truth (a covariance of
the structure's own kind, one effect shared by all times, nearly nothing) are drawn in turn. Half of the designs have
one row a time, so that structure and residual share what only the diagonal says; the others have some times twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice, product
from typing import Any

import numpy as np
import pandas as pd

from generated import Array, Generated, seeded

KINDS = ("cs", "homcs", "ar1", "hetar1", "toep", "homtoep", "ou", "exp", "gau", "mat", "homdiag", "rr")
RESPONSES = ("residual", "alone", "poisson")
TRUTHS = ("own", "shared", "weak", "own")
PLACED = ("ou", "exp", "gau", "mat")
SCALED = ("cs", "hetar1", "toep")  # a standard deviation for every column
#: What glmmTMB 1.1.5 calls them; it has none of those left out.
OF_R = {
    "cs": "cs(t + 0 | id)", "ar1": "ar1(t + 0 | id)", "toep": "toep(t + 0 | id)", "ou": "ou(pos + 0 | id)",
    "exp": "exp(pos + 0 | id)", "gau": "gau(pos + 0 | id)", "mat": "mat(pos + 0 | id)",
    "homdiag": "(1 | id:t)", "rr": "rr(t + 0 | id, d = 1)",
}  # fmt: skip
STARTS = ((0.2, 0.1), (0.7, 0.5), (1.5, 0.9))  # standard deviation and correlation of neighbours
POISSON = 0.5  # intercept
NOISE = 0.7  # residual standard deviation


def designs() -> Iterator[tuple[str, str, str]]:
    """Return (structure, response, truth) of all models in turn."""
    left_out = {("rr", "alone")}  # a singular covariance and nothing else
    return (c for c in ((k, r, t) for t, r, k in product(TRUTHS, RESPONSES, KINDS)) if c[:2] not in left_out)


def drawn(count: int, first: int = 0) -> list[Generated]:
    """Draw the models from number `first` on."""
    cases = list(designs())
    named = ((f"{k}-{r}-{t}-{i}", k, r, t) for i, (k, r, t) in enumerate(cycle(cases)))
    return [generate(*case) for case in islice(named, first, first + count)]


def covariance(kind: str, truth: str, times: Array, rng: np.random.Generator) -> Array:
    """Return the covariance of the effects at the times."""
    k = len(times)
    if truth == "weak":
        return 0.02 * np.eye(k)
    if truth == "shared":
        return np.full((k, k), 0.6)
    lags = np.abs(np.subtract.outer(times, times)) / np.diff(times).mean()
    share, sign = rng.uniform(0.3, 0.9), rng.choice([1.0, 1.0, -1.0])
    sd = np.exp(rng.normal(scale=0.3, size=k)) if kind in SCALED else np.ones(k)
    equal = share if sign > 0 else -0.8 * share / (k - 1)
    of_kind = {
        "cs": lambda: np.where(lags == 0, 1.0, equal), "homcs": lambda: np.where(lags == 0, 1.0, equal),
        "toep": lambda: np.clip(1 - lags / rng.uniform(1.2, k), 0, None), "gau": lambda: share ** lags**2,
        "homtoep": lambda: np.clip(1 - lags / rng.uniform(1.2, k), 0, None), "homdiag": lambda: np.eye(k),
        "rr": lambda: np.outer(*2 * [rng.normal(size=k)]),
        "ar1": lambda: share**lags * np.cos(np.pi * lags) ** (sign < 0),
        "hetar1": lambda: share**lags * np.cos(np.pi * lags) ** (sign < 0),
    }  # fmt: skip
    return of_kind.get(kind, lambda: share**lags)() * np.outer(sd, sd) * rng.uniform(0.3, 1.5)


def generate(name: str, kind: str, response: str, truth: str) -> Generated:
    """Draw the model of a name."""
    rng = seeded(name)
    k, groups = int(rng.integers(3, 7)), int(rng.integers(12, 41))
    times = np.cumsum(rng.uniform(0.4, 1.6, k)).round(3) if kind in PLACED else np.arange(float(k))
    sigma = covariance(kind, truth, times, rng)
    if response == "alone" and truth == "shared":
        sigma = sigma + 0.2 * np.eye(k)
    effects = rng.multivariate_normal(np.zeros(k), sigma, groups, method="eigh").ravel()
    ids, t = np.repeat(np.arange(groups), k), np.tile(np.arange(k), groups)
    rows = np.flatnonzero(rng.random(groups * k) < (0.8 if rng.random() < 0.5 else 1.1))
    # Without repetitions homdiag is a residual; where there is no residual, two rows would be equal.
    if response != "alone" and (kind == "homdiag" or rng.random() < 0.5):
        rows = np.sort(np.concatenate([rows, rng.choice(rows, len(rows) // 3)]))
    x = rng.normal(size=len(rows)).round(4)
    eta = 0.3 * x + effects[rows]
    if response == "poisson":
        y = rng.poisson(np.exp(POISSON + np.clip(eta, None, 5)))
    else:
        y = (eta + (NOISE * rng.normal(size=len(rows)) if response == "residual" else 0.0)).round(8)
    frame = pd.DataFrame({"y": y, "x": x, "t": t[rows], "time": times[t[rows]], "id": ids[rows]})
    frame = frame.assign(t="t" + frame["t"].astype(str), id="g" + frame["id"].astype(str))
    columns = "numFactor(time) + 0" if kind in PLACED else "t + 0"
    formula = f"y ~ x + {kind}({columns} | id{', 1' if kind == 'rr' else ''})"
    gaussian: dict[str, Any] = {"method": "ml", **({"dispersion": 0} if response == "alone" else {})}
    said = {"kind": kind, "truth": truth, "k": k, "groups": groups, "n": len(rows)}
    family = "poisson" if response == "poisson" else "gaussian"
    return Generated(name, family, frame, formula, said, {} if response == "poisson" else gaussian)


# ---- parameters ------------------------------------------------------------------------------------------------------


def correlated(kind: str, r: float, k: int, distance: float) -> list[float]:
    """Return the parameters of a correlation of about r between neighbours."""
    low = -1.0 / (k - 1)
    partial = r / np.sqrt(1 - r * r)
    return {
        "cs": [np.log((r - low) / (1 - r))], "homcs": [np.log((r - low) / (1 - r))],
        "ar1": [partial], "hetar1": [partial],
        "toep": [partial, *[0.0] * (k - 2)], "homtoep": [partial, *[0.0] * (k - 2)],
        "ou": [np.log(-np.log(r) / distance)], "exp": [np.log(-distance / np.log(r))],
        "gau": [np.log(distance / np.sqrt(-np.log(r)))], "mat": [np.log(-distance / np.log(r)), np.log(0.5)],
    }.get(kind, [])  # fmt: skip


def start(model: Generated, sd: float, r: float) -> list[float]:
    """Return theta of a start."""
    kind, k = model.truth["kind"], model.truth["k"]
    if kind == "rr":
        return [sd] * k
    if kind in ("us", "diag"):
        return [sd * (i == j) for j in range(k) for i in range(j, k) if kind == "us" or i == j]
    times = np.unique(model.frame["time"])
    return [*[float(np.log(sd))] * (k if kind in SCALED else 1), *correlated(kind, r, k, float(np.diff(times).mean()))]


def partials(lags: Array) -> list[float]:
    """Return the partial autocorrelations of autocorrelations 0 .. m (Durbin-Levinson)."""
    out: list[float] = []
    phi, left = np.zeros(0), 1.0
    for m in range(1, len(lags)):
        new = (lags[m] - phi @ lags[m - 1 : 0 : -1]) / left
        phi, left = np.append(phi - new * phi[::-1], new), left * (1 - new * new)
        out.append(float(new))
    return out


def translated(model: Generated, row: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Return glmmTMB's parameters as ours; NaN where its covariance is none."""
    kind = model.truth["kind"]
    per = 0.5 if model.family == "gaussian" else 1.0  # glmmTMB's predictor is that of the variance there
    none = model.family in ("poisson", "binomial") or model.options.get("dispersion") == 0
    dispersion = [] if none else [per * v for v in row["disp"]]
    theta = structure_parameters(kind, row["par"], np.array(row["vc"][0]["cov"], float))
    return [*row["beta"], *dispersion, *row.get("power", []), *row.get("zi", [])], theta


def structure_parameters(kind: str, par: list[float], sigma: Array) -> list[float]:
    """Return theta of a structure: most parameters are the same in both packages."""
    sigma = np.atleast_2d(sigma)
    if kind in ("us", "diag"):
        root = np.linalg.cholesky(sigma + 1e-14 * np.diag(np.diag(sigma)))
        return [float(root[i, j]) for j in range(len(root)) for i in range(j, len(root)) if kind == "us" or i == j]
    if kind not in ("cs", "toep"):
        return list(par)
    sd = np.sqrt(np.diag(sigma))
    corr = sigma / np.outer(sd, sd)
    k = len(sd)
    with np.errstate(all="ignore"):
        if kind == "cs":
            rest = [np.log((corr[0, 1] + 1 / (k - 1)) / (1 - corr[0, 1]))]
        else:
            rest = [v / np.sqrt(1 - v * v) for v in partials(corr[0])]
    return [float(v) for v in (*np.log(sd), *rest)]
