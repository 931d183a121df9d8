"""What is simulated is found again: every parameter of every family, extra zeros, and of every structure.

Responses are drawn with numpy's generator from laws that are tested against scipy, under fixed seeds: what these tests
say does not change from run to run. Distances are in standard errors of the fit, on scales on which estimates are
nearly normal (logarithms of what is positive, Fisher's z of correlations), so that sizes of samples do not count.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import expit, gamma, kv

import ranef as rf
from model.zoo import TRUTH
from ranef.engines import laplace
from ranef.families import Data, law_of, names, read_family
from ranef.families.table import entries

GROUPS, EACH, SD = 80, 12, 0.5
MEAN = [1.0, 0.4]
EXTRA, SD_ZEROS = -1.0, 0.8  # logit of the share of extra zeros
#: Less dispersion than elsewhere: much of it leaves effects with two modes, or shares that are rounded to 1.
LESS = {"inverse_gaussian": [-1.0], "beta": [2.0]}
#: A normal variable is as far from its mean once in 16,000 times; there are some 700 here.
FAR = 4.0
#: Share of the chi-square distribution at either end.
RARE = 1e-4


@dataclass(frozen=True)
class Distance:
    """Of estimates from the truth: each in its standard errors, and of the coefficients by their covariance matrix."""

    each: np.ndarray
    square: float
    count: int


def distance(m: rf.Fit, known: list[float], pars: list[tuple[str, float]]) -> Distance:
    """Return the distance of the coefficients of all predictors, and of standard deviations and correlations."""
    off, cov = np.asarray(m.estimate.beta) - known, np.asarray(m.vcov("all"))
    table = m.tidy("ran_pars")
    found = table[~table["term"].astype(str).str.endswith("Observation")]
    assert list(found["term"]) == [name for name, _ in pars]
    rows = zip(pars, found["estimate"], found["std_error"], strict=True)
    spread = [z_of(name, true, estimate, error) for (name, true), estimate, error in rows]
    cov = cov[: len(off), : len(off)]
    return Distance(np.r_[off / np.sqrt(np.diag(cov)), spread], float(off @ np.linalg.solve(cov, off)), len(off))


def generator(*case: str) -> np.random.Generator:
    """Return a stream of the case's own, which other cases do not move."""
    return np.random.default_rng([8, zlib.crc32(" ".join(case).encode())])


def z_of(name: str, true: float, estimate: float, error: float) -> float:
    """Return the distance in standard errors, on the scale on which the estimate is nearly normal."""
    if name.startswith("cor"):
        return (np.arctanh(estimate) - np.arctanh(true)) * (1 - estimate**2) / error
    if name.startswith("loading"):
        return (estimate - true) / error
    return np.log(estimate / true) * estimate / error


# ---- families --------------------------------------------------------------------------------------------------------

#: What is beside a random intercept of the mean, and which rows of the table have it.
KINDS = {
    "plain": lambda _: True,
    "zeros": lambda e: e.inflatable,
    "effects of dispersion": lambda e: any(p.name == "dispersion" for p in e.parameters),
    "effects of zeros": lambda e: e.inflatable,
}
CASES = [
    (f"{before}{name}", kind)
    for name in names()
    for before in (("", "truncated_") if entries()[name].truncated else ("",))
    for kind, has in KINDS.items()
    if has(entries()[name]) and not entries()[name].nominal
]


def truth(name: str) -> list[float]:
    """Return the predictors of what is beside the mean; of ordinal families the thresholds."""
    family = read_family(name)
    if family.entry.ordinal:
        return [-1.0, 0.5]
    return (TRUTH | LESS).get(family.entry.name, [1.0] * (len(family.parameters) - 1))


def drawn(name: str, kind: str) -> dict[str, np.ndarray]:
    """Return responses with a random intercept of the mean, and what their kind adds."""
    rng = generator(name, kind)
    family, each = read_family(name), EACH
    if "compois" in name and kind != "effects of dispersion":
        each //= 2  # densities are sums
    if "nbinom12" in name:
        each *= 5  # two parameters of overdispersion are told apart by many rows
    n = GROUPS * each
    g, x = np.repeat(np.arange(GROUPS), each), rng.normal(size=n)
    mean = MEAN[0] * (not family.entry.ordinal) + MEAN[1] * x + SD * rng.normal(size=GROUPS)[g]
    eta = np.column_stack([mean, *(np.full(n, v) for v in truth(name))])
    if kind == "effects of dispersion":
        eta[:, 1] += SD * rng.normal(size=GROUPS)[g]
    trials = rng.integers(2, 9, n).astype(float) if family.entry.support == "binomial" else None
    y = np.asarray(law_of(family).draw(eta, Data(np.zeros(n), trials), rng), float)
    if kind in ("zeros", "effects of zeros"):
        effect = 0.0 if kind == "zeros" else SD_ZEROS * rng.normal(size=GROUPS)[g]
        y = np.where(rng.uniform(size=n) < expit(EXTRA + effect), 0.0, y)
    return {"y": y, "x": x, "g": g.astype(str), **({} if trials is None else {"n": trials})}


@cache
def of_family(name: str, kind: str) -> tuple[rf.Fit, Distance]:
    """Return a fit, and how far it is from the truth."""
    data = drawn(name, kind)
    options = {
        "plain": {}, "zeros": {"zero_inflation": "~ 1"}, "effects of dispersion": {"dispersion": "~ 1 + (1 | g)"},
        "effects of zeros": {"zero_inflation": "~ 1 + (1 | g)"},
    }[kind] | ({"trials": "n"} if "n" in data else {})  # fmt: skip
    if name == "gaussian":
        options["frequency_weights"] = np.ones(GROUPS * EACH)  # the engine that has a predictor of the dispersion
    m = rf.fit("y ~ x + (1 | g)", data, family=name, method="ml", **options)
    mean = MEAN[1:] if m.distribution.entry.ordinal else MEAN
    known = [*mean, *truth(name), *([EXTRA] if "zero_inflation" in options else [])]
    sds = [SD] + [SD] * (kind == "effects of dispersion") + [SD_ZEROS] * (kind == "effects of zeros")
    return m, distance(m, known, [("sd__(Intercept)", sd) for sd in sds])


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_parameters_of_families_are_recovered(name, kind):
    m, found = of_family(name, kind)
    assert m.converged
    assert np.abs(found.each).max() < FAR
    assert stats.chi2.sf(found.square, found.count) > RARE


def test_standard_errors_are_those_of_all_estimates_together():
    """Errors that are too large are found here, and those that are a little too small."""
    found = [of_family(*case)[1] for case in CASES]
    square, count = sum(d.square for d in found), sum(d.count for d in found)
    assert count > 300
    assert RARE < stats.chi2.sf(square, count) < 1 - RARE


def test_parameters_of_categories_are_recovered():
    """Three categories with effects that correlate across the predictors of two of them."""
    rng = np.random.default_rng(8)
    g, x = np.repeat(np.arange(GROUPS), EACH), rng.normal(size=GROUPS * EACH)
    true, sd, corr = [[0.5, 0.8], [-0.3, -0.5]], [0.9, 0.7], 0.5
    root = np.diag(sd) @ np.linalg.cholesky([[1, corr], [corr, 1]])
    b = (rng.normal(size=(GROUPS, 2)) @ root.T)[g]
    eta = np.column_stack([np.zeros(len(g)), *(a + s * x + b[:, i] for i, (a, s) in enumerate(true))])
    y = (eta + rng.gumbel(size=eta.shape)).argmax(axis=1)
    m = rf.fit("y ~ x + (1 |p| g)", {"y": np.array(list("abc"))[y], "x": x, "g": g}, family="multinomial")
    names = [str(v) for v in m.tidy("ran_pars")["term"]]
    found = distance(m, np.ravel(true).tolist(), list(zip(names, [*sd, corr], strict=True)))
    assert np.abs(found.each).max() < FAR
    assert stats.chi2.sf(found.square, found.count) > RARE


# ---- structures ------------------------------------------------------------------------------------------------------

PLACES = np.arange(4.0)
LEVELS = list("abcd")
APART = np.abs(np.subtract.outer(PLACES, PLACES))
SDS = {f"sd__f{v}": s for v, s in zip(LEVELS, (0.9, 0.6, 0.8, 0.7), strict=True)}
SPREAD = np.array(list(SDS.values()))
LAGS = {"cor__lag1": 0.6, "cor__lag2": 0.3, "cor__lag3": 0.2}
ONE = {"sd": 0.8}
KNOWN = 0.3 + 0.7 * np.eye(4)
LOADINGS = np.array([[0.9, 0.0], [0.6, 0.5], [0.3, 0.8], [-0.4, 0.5]])


def correlated(rho: float) -> np.ndarray:
    return (1 - rho) * np.eye(4) + rho


def toeplitz() -> np.ndarray:
    return np.r_[1.0, list(LAGS.values())][APART.astype(int)]


def matern(nu: float, length: float) -> np.ndarray:
    """Stein (1999), sec. 2.7, with scaled distances d / length."""
    d = np.where(APART > 0, APART, 1.0) / length
    return np.where(APART > 0, 2 ** (1 - nu) / gamma(nu) * d**nu * kv(nu, d), 1.0)


def pairs(corr: np.ndarray) -> dict[str, float]:
    """Return the correlations of every two columns."""
    return {f"cor__f{LEVELS[i]}.f{LEVELS[j]}": corr[i, j] for i in range(4) for j in range(i + 1, 4)}


def of_loadings() -> dict[str, float]:
    return {f"loading__f{LEVELS[i]}.{j + 1}": LOADINGS[i, j] for j in range(2) for i in range(j, 4)}


#: Structure -> the parameters that its tables name, and the correlations that they stand for by its definition.
STRUCTURES = {
    "us": (SDS | pairs(toeplitz()), toeplitz()),
    "diag": (SDS, np.eye(4)),
    "homdiag": (ONE, np.eye(4)),
    "cs": (SDS | {"cor": 0.4}, correlated(0.4)),
    "homcs": (ONE | {"cor": 0.4}, correlated(0.4)),
    "ar1": (ONE | {"cor": 0.6}, 0.6**APART),
    "hetar1": (SDS | {"cor": 0.6}, 0.6**APART),
    "toep": (SDS | LAGS, toeplitz()),
    "homtoep": (ONE | LAGS, toeplitz()),
    "ou": (ONE | {"rate": 0.5}, np.exp(-0.5 * APART)),
    "exp": (ONE | {"range": 2.0}, np.exp(-APART / 2)),
    "gau": (ONE | {"range": 1.5}, np.exp(-((APART / 1.5) ** 2))),
    "mat": (ONE | {"range": 1.0, "nu": 1.5}, matern(1.5, 1.0)),
    "propto": (ONE, KNOWN),
    "equalto": ({}, KNOWN),
    "rr": (of_loadings(), None),
}


def covariance(structure: str) -> np.ndarray:
    pars, corr = STRUCTURES[structure]
    if structure == "rr":
        return LOADINGS @ LOADINGS.T
    sd = SPREAD if "sd__fa" in pars else np.full(4, pars.get("sd", 1.0))
    return sd[:, None] * corr * sd


def of_structure(structure: str, family: str) -> Distance:
    """Return how far a fit to 200 groups is from the truth: four columns, each seen three times in every group."""
    rng = generator(structure, family)
    groups, each = 200, 3
    g, t = np.repeat(np.arange(groups), 4 * each), np.tile(np.repeat(np.arange(4), each), groups)
    values, vectors = np.linalg.eigh(covariance(structure))
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    x = rng.normal(size=len(g))
    eta = MEAN[0] + MEAN[1] * x + (rng.normal(size=(groups, 4)) @ root.T)[g, t]
    y = rng.poisson(np.exp(eta)) if family == "poisson" else eta + 0.5 * rng.normal(size=len(g))
    column = "numFactor(t)" if structure in ("ou", "exp", "gau", "mat") else "f"
    rank = ", 2" if structure == "rr" else ""
    known = pd.DataFrame(KNOWN, index=LEVELS, columns=LEVELS)
    m = rf.fit(
        f"y ~ x + {structure}(0 + {column} | g{rank})", {"y": y, "x": x, "g": g, "t": t, "f": np.array(LEVELS)[t]},
        family=family, method="ml", cov={"f": known} if structure in ("propto", "equalto") else None,
        frequency_weights=np.ones(len(g)) if family == "gaussian" else None,
    )  # fmt: skip
    assert m.converged
    residual = [np.log(0.5)] if family == "gaussian" else []
    return distance(m, [*MEAN, *residual], list(STRUCTURES[structure][0].items()))


@pytest.mark.parametrize("family", ["gaussian", "poisson"])
@pytest.mark.parametrize("structure", sorted(STRUCTURES))
def test_parameters_of_structures_are_recovered(structure, family):
    found = of_structure(structure, family)
    assert np.abs(found.each).max() < FAR
    assert stats.chi2.sf(found.square, found.count) > RARE


def test_every_structure_is_here():
    assert set(STRUCTURES) == laplace.STRUCTURES
