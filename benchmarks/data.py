"""Write the benchmark data: `python data.py [names]`. Simulated sets have a seed each; classic ones come with ranef.

`star` is in the R package mlmRev: it is exported when Rscript has that package, and skipped otherwise.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pandas as pd

import harness

Array = np.ndarray
STAR = (
    'data(star, package = "mlmRev"); '
    'write.csv(as.data.frame(star), file.path(commandArgs(TRUE), "star.csv"), row.names = FALSE)'
)


def effects(rng: np.random.Generator, groups: int, covariance: object) -> Array:
    """Draw (groups, k) random effects with a covariance."""
    root = np.linalg.cholesky(np.asarray(covariance, dtype=float))
    return rng.normal(size=(groups, len(root))) @ root.T


def wild_effects(rng: np.random.Generator, groups: int, k: int, scale: float) -> Array:
    """Draw (groups, k) random effects with a random covariance."""
    root = np.tril(rng.normal(size=(k, k))) * scale
    root[np.diag_indices(k)] = np.abs(np.diag(root)) + 0.3 * scale
    return rng.normal(size=(groups, k)) @ root.T


def with_intercept(x: Array) -> Array:
    """Put a column of ones before columns."""
    return np.column_stack([np.ones(len(x)), x])


def slope(rng: np.random.Generator, n: int = 1_000_000, groups: int = 10_000) -> pd.DataFrame:
    """One correlated slope."""
    g, x = rng.integers(0, groups, n), rng.normal(size=n)
    b = effects(rng, groups, [[1, 0.3], [0.3, 0.5]])[g]
    return pd.DataFrame({"y": 1 + 0.5 * x + b[:, 0] + b[:, 1] * x + rng.normal(size=n), "x": x, "g": g})


def crossed(rng: np.random.Generator, n: int, first: int, second: int) -> pd.DataFrame:
    """Two crossed intercepts, levels met at random."""
    a, b, x = rng.integers(0, first, n), rng.integers(0, second, n), rng.normal(size=n)
    y = 1 + 0.5 * x + rng.normal(size=first)[a] + 0.7 * rng.normal(size=second)[b] + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "a": a, "b": b})


def nested3(rng: np.random.Generator) -> pd.DataFrame:
    """Three nested levels: 30 x 20 x 10 x 10 rows."""
    frame = pd.MultiIndex.from_product([range(30), range(20), range(10), range(10)], names=["a", "b", "c", "copy"])
    d = frame.to_frame(index=False).drop(columns="copy")
    d["bb"] = d["a"] * 20 + d["b"]
    d["cc"] = d["bb"] * 10 + d["c"]
    d["x"] = rng.normal(size=len(d))
    nested = (
        0.8 * rng.normal(size=30)[d["a"]] + 0.5 * rng.normal(size=600)[d["bb"]] + 0.4 * rng.normal(size=6000)[d["cc"]]
    )
    d["y"] = 2 - 0.3 * d["x"] + nested + rng.normal(size=len(d))
    return d


def slopes4(rng: np.random.Generator) -> pd.DataFrame:
    """A 4 x 4 covariance, 2,000 groups of 20."""
    g, x = np.repeat(np.arange(2000), 20), rng.normal(size=(40_000, 3))
    root = np.array([[1, 0, 0, 0], [0.3, 0.6, 0, 0], [-0.2, 0.2, 0.5, 0], [0.1, 0.1, -0.2, 0.3]])
    b = effects(rng, 2000, root @ root.T)[g]
    y = 1 + x @ [0.5, -0.3, 0.2] + (b * with_intercept(x)).sum(1) + rng.normal(size=len(g))
    return pd.DataFrame({"y": y, "x1": x[:, 0], "x2": x[:, 1], "x3": x[:, 2], "g": g})


def subjitem(rng: np.random.Generator) -> pd.DataFrame:
    """60 subjects x 40 items in two conditions, maximal random part."""
    d = pd.MultiIndex.from_product([range(60), range(40)], names=["subj", "item"]).to_frame(index=False)
    d["cond"] = np.where((d["subj"] + d["item"]) % 2 == 0, -0.5, 0.5)
    s = effects(rng, 60, [[1, 0.3], [0.3, 0.4]])[d["subj"]]
    i = effects(rng, 40, [[0.5, 0.1], [0.1, 0.2]])[d["item"]]
    d["y"] = 6 + 0.4 * d["cond"] + s[:, 0] + i[:, 0] + (s[:, 1] + i[:, 1]) * d["cond"] + rng.normal(size=len(d))
    return d


def crossed_slopes(rng: np.random.Generator) -> pd.DataFrame:
    """Crossed slopes, 2,000 x 200."""
    n = 100_000
    s, i, x = rng.integers(0, 2000, n), rng.integers(0, 200, n), rng.normal(size=n)
    bs = effects(rng, 2000, [[1, 0.3], [0.3, 0.4]])[s]
    bi = effects(rng, 200, [[0.5, 0.1], [0.1, 0.2]])[i]
    y = 1 + 0.4 * x + bs[:, 0] + bi[:, 0] + (bs[:, 1] + bi[:, 1]) * x + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "s": s, "i": i})


def maxcross(rng: np.random.Generator) -> pd.DataFrame:
    """Crossed 4 x 4 + 4 x 4 covariances: 20 parameters."""
    n = 20_000
    s, i, x = rng.integers(0, 200, n), rng.integers(0, 100, n), rng.normal(size=(n, 3))
    b = wild_effects(rng, 200, 4, 0.5)[s] + wild_effects(rng, 100, 4, 0.4)[i]
    y = 1 + x @ [0.5, -0.3, 0.2] + (b * with_intercept(x)).sum(1) + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x1": x[:, 0], "x2": x[:, 1], "x3": x[:, 2], "s": s, "i": i})


def school(rng: np.random.Generator) -> pd.DataFrame:
    """Students meet teachers of their own school: 10^5 students, 10^4 teachers, 500 schools, 5 rows a student."""
    students, teachers, schools = 100_000, 10_000, 500
    st = np.repeat(np.arange(students), 5)
    sc = rng.integers(0, schools, students)[st]
    t = sc * (teachers // schools) + rng.integers(0, teachers // schools, len(st))
    x = rng.normal(size=len(st))
    random = (
        0.8 * rng.normal(size=students)[st] + 0.4 * rng.normal(size=teachers)[t] + 0.3 * rng.normal(size=schools)[sc]
    )
    return pd.DataFrame({"y": 1 + 0.3 * x + random + rng.normal(size=len(st)), "x": x, "st": st, "t": t, "sc": sc})


def manyfix(rng: np.random.Generator) -> pd.DataFrame:
    """A fixed factor of 200 levels."""
    n = 100_000
    f, g, x = rng.integers(0, 200, n), rng.integers(0, 5000, n), rng.normal(size=n)
    y = 0.5 * x + rng.normal(size=200)[f] + rng.normal(size=5000)[g] + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "f": f, "g": g})


def wide8(rng: np.random.Generator) -> pd.DataFrame:
    """An 8 x 8 covariance: 36 parameters, 500 groups."""
    n = 20_000
    g, x = rng.integers(0, 500, n), rng.normal(size=(n, 7))
    y = 1 + 0.3 * x.sum(1) + (wild_effects(rng, 500, 8, 0.4)[g] * with_intercept(x)).sum(1) + rng.normal(size=n)
    return pd.DataFrame({"y": y, "g": g} | {f"x{j + 1}": x[:, j] for j in range(7)})


SIMULATED: dict[str, Callable[[np.random.Generator], pd.DataFrame]] = {
    "sim1e6_slope": slope,
    "sim1e6_crossed": lambda rng: crossed(rng, 1_000_000, 10_000, 1_000),
    "randcross3k": lambda rng: crossed(rng, 30_000, 3_000, 3_000),
    "randcross10k": lambda rng: crossed(rng, 100_000, 10_000, 10_000),
    "nested3": nested3,
    "slopes4": slopes4,
    "subjitem": subjitem,
    "crossslope1e5": crossed_slopes,
    "maxcross": maxcross,
    "school5e5": school,
    "manyfix": manyfix,
    "wide8": wide8,
}
CLASSIC = ["sleepstudy", "Pastes", "Penicillin", "InstEval", "Chem97"]


def simulated(name: str) -> pd.DataFrame:
    """Simulate a data set; its seed is its place in the table."""
    return SIMULATED[name](np.random.default_rng([20, list(SIMULATED).index(name)])).round(6)


def classic(name: str) -> pd.DataFrame:
    """Load a classic data set; InstEval gets its department-by-service cells."""
    from ranef import datasets

    frame = datasets.load(name)
    return (
        frame.assign(ds=frame["dept"].astype(str) + "." + frame["service"].astype(str)) if name == "InstEval" else frame
    )


def export_star() -> bool:
    """Let R write `star`; tell whether it could."""
    if not shutil.which("Rscript"):
        return False
    return subprocess.run(["Rscript", "-e", STAR, str(harness.DATA)], capture_output=True, check=False).returncode == 0


def write(name: str) -> bool:
    """Write one data set unless it is there; tell whether it is there now."""
    path = harness.DATA / f"{name}.csv"
    if path.exists():
        return True
    path.parent.mkdir(parents=True, exist_ok=True)
    if name == "star":
        return export_star()
    frame = classic(name) if name in CLASSIC else simulated(name)
    frame.to_csv(path, index=False)
    return True


if __name__ == "__main__":
    for name in sys.argv[1:] or [*CLASSIC, *SIMULATED, "star"]:
        print(f"{name:15s} {'ready' if write(name) else 'not available (needs R with mlmRev)'}")
