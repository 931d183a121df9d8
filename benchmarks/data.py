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


# ---- generalised models ----------------------------------------------------------------------------------------------


def logistic(eta: Array) -> Array:
    """Return the inverse logit."""
    return 1 / (1 + np.exp(-eta))


def coins(rng: np.random.Generator, eta: Array) -> Array:
    """Draw 0 and 1."""
    return (rng.random(len(eta)) < logistic(eta)).astype(int)


def one_factor(rng: np.random.Generator, n: int, groups: int) -> tuple[Array, Array]:
    """Draw a factor and a covariate."""
    return rng.integers(0, groups, n), rng.normal(size=n)


def binary(rng: np.random.Generator, n: int, first: int, second: int, sd: tuple[float, float]) -> pd.DataFrame:
    """Binary responses, two crossed intercepts."""
    a, b, x, z = rng.integers(0, first, n), rng.integers(0, second, n), rng.normal(size=n), rng.integers(0, 2, n)
    eta = -0.3 + 0.6 * x - 0.4 * z + sd[0] * rng.normal(size=first)[a] + sd[1] * rng.normal(size=second)[b]
    return pd.DataFrame({"y": coins(rng, eta), "x": x, "z": z, "a": a, "b": b})


def binary_one(rng: np.random.Generator) -> pd.DataFrame:
    """10^6 binary responses, 10^4 groups."""
    g, x = one_factor(rng, 1_000_000, 10_000)
    return pd.DataFrame({"y": coins(rng, -0.5 + 0.6 * x + 0.8 * rng.normal(size=10_000)[g]), "x": x, "g": g})


def binary_levels(rng: np.random.Generator) -> pd.DataFrame:
    """Binary responses with a fixed factor of 40 levels."""
    (g, x), f = one_factor(rng, 20_000, 500), rng.integers(0, 40, 20_000)
    eta = 0.5 * x + 0.5 * rng.normal(size=40)[f] + 0.8 * rng.normal(size=500)[g]
    return pd.DataFrame({"y": coins(rng, eta), "x": x, "f": f, "g": g})


def binary_slopes(rng: np.random.Generator) -> pd.DataFrame:
    """Binary responses, crossed slopes."""
    n = 10_000
    s, i, x = rng.integers(0, 200, n), rng.integers(0, 50, n), rng.normal(size=n)
    b = wild_effects(rng, 200, 2, 0.7)[s] + wild_effects(rng, 50, 2, 0.5)[i]
    return pd.DataFrame({"y": coins(rng, -0.2 + 0.5 * x + b[:, 0] + b[:, 1] * x), "x": x, "s": s, "i": i})


def counts(rng: np.random.Generator, n: int, groups: int) -> pd.DataFrame:
    """Poisson counts, one slope."""
    g, x = one_factor(rng, n, groups)
    b = effects(rng, groups, [[0.6, 0.1], [0.1, 0.2]])[g]
    return pd.DataFrame({"y": rng.poisson(np.exp(0.3 + 0.3 * x + b[:, 0] + b[:, 1] * x)), "x": x, "g": g})


def counts_one(rng: np.random.Generator) -> pd.DataFrame:
    """10^6 Poisson counts, 10^4 groups."""
    g, x = one_factor(rng, 1_000_000, 10_000)
    return pd.DataFrame({"y": rng.poisson(np.exp(0.3 + 0.3 * x + 0.6 * rng.normal(size=10_000)[g])), "x": x, "g": g})


def counts_rows(rng: np.random.Generator) -> pd.DataFrame:
    """Poisson counts with an effect for every row."""
    n = 50_000
    g, x = one_factor(rng, n, 1000)
    eta = 0.5 + 0.3 * x + 0.5 * rng.normal(size=1000)[g] + 0.5 * rng.normal(size=n)
    return pd.DataFrame({"y": rng.poisson(np.exp(eta)), "x": x, "g": g, "o": np.arange(n)})


def negative_binomial(rng: np.random.Generator, mu: Array, size: float) -> Array:
    """Draw counts of variance mu (1 + mu / size)."""
    return rng.poisson(rng.gamma(size, mu / size))


def overdispersed(rng: np.random.Generator) -> pd.DataFrame:
    """NB2 counts, crossed 300 x 80."""
    g, x = one_factor(rng, 20_000, 300)
    h = rng.integers(0, 80, 20_000)
    mu = np.exp(0.5 + 0.4 * x + 0.5 * rng.normal(size=300)[g] + 0.3 * rng.normal(size=80)[h])
    return pd.DataFrame({"y": negative_binomial(rng, mu, 1.5), "x": x, "g": g, "h": h})


def inflated(rng: np.random.Generator) -> pd.DataFrame:
    """10^6 zero-inflated NB2 counts, 10^4 groups."""
    g, x = one_factor(rng, 1_000_000, 10_000)
    mu = np.exp(0.8 + 0.4 * x + 0.5 * rng.normal(size=10_000)[g])
    return pd.DataFrame({"y": negative_binomial(rng, mu, 2.0) * (1 - coins(rng, -1 + 0.5 * x)), "x": x, "g": g})


def gamma(rng: np.random.Generator) -> pd.DataFrame:
    """Gamma responses."""
    g, x = one_factor(rng, 5000, 200)
    return pd.DataFrame(
        {"y": rng.gamma(2.5, np.exp(0.4 + 0.4 * x + 0.5 * rng.normal(size=200)[g]) / 2.5), "x": x, "g": g}
    )


def beta(rng: np.random.Generator) -> pd.DataFrame:
    """Beta responses."""
    g, x = one_factor(rng, 5000, 200)
    mu = logistic(-0.3 + 0.5 * x + 0.6 * rng.normal(size=200)[g])
    return pd.DataFrame({"y": rng.beta(8 * mu, 8 * (1 - mu)).clip(1e-6, 1 - 1e-6), "x": x, "g": g})


def tweedie(rng: np.random.Generator, power: float = 1.5, phi: float = 1.2) -> pd.DataFrame:
    """Tweedie responses: a Poisson number of Gamma variables."""
    g, x = one_factor(rng, 5000, 200)
    mu = np.exp(0.4 + 0.4 * x + 0.5 * rng.normal(size=200)[g])
    number = rng.poisson(mu ** (2 - power) / (phi * (2 - power)))
    y = rng.gamma(np.maximum(number, 1) * (2 - power) / (power - 1), phi * (power - 1) * mu ** (power - 1))
    return pd.DataFrame({"y": np.where(number > 0, y, 0.0), "x": x, "g": g})


def ordinal(rng: np.random.Generator) -> pd.DataFrame:
    """Five ordered categories."""
    g, x = one_factor(rng, 20_000, 500)
    latent = 0.8 * x + 0.9 * rng.normal(size=500)[g] + rng.logistic(size=len(x))
    return pd.DataFrame({"y": 1 + np.searchsorted([-1.5, -0.3, 0.6, 2.0], latent), "x": x, "g": g})


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
    "simbin1e5": lambda rng: binary(rng, 100_000, 1000, 500, (0.8, 0.5)),
    "simpois_slope": lambda rng: counts(rng, 100_000, 2000),
    "simnb2": overdispersed,
    "simgamma": gamma,
    "simbeta": beta,
    "simtweedie": tweedie,
    "simord": ordinal,
    "binfix40": binary_levels,
    "bincrossslope": binary_slopes,
    "binrandcross": lambda rng: binary(rng, 20_000, 2000, 2000, (0.8, 0.6)),
    "olre5e4": counts_rows,
    "bin1e6": binary_one,
    "pois1e6": counts_one,
    "zinb1e6": inflated,
}
CLASSIC = [
    "sleepstudy", "Pastes", "Penicillin", "InstEval", "Chem97", "cbpp", "VerbAgg", "grouseticks", "Contraception",
    "Salamanders", "wine",
]  # fmt: skip


def simulated(name: str) -> pd.DataFrame:
    """Simulate a data set; its seed is its place in the table."""
    return SIMULATED[name](np.random.default_rng([20, list(SIMULATED).index(name)])).round(6)


def classic(name: str) -> pd.DataFrame:
    """Load a classic data set, with the columns that the models want beside its own."""
    from ranef import datasets

    frame = datasets.load(name)
    if name == "InstEval":  # the department-by-service cells
        return frame.assign(ds=frame["dept"].astype(str) + "." + frame["service"].astype(str))
    if name == "Contraception":
        return frame.assign(age2=frame["age"] ** 2 / 100, use01=(frame["use"] == "Y").astype(int))
    if name == "VerbAgg":
        return frame.assign(r01=(frame["r2"] == "Y").astype(int))
    return frame


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
