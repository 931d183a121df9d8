"""Identities of the likelihood under every covariance structure, in every predictor."""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.special import gammaln
from scipy.stats import multivariate_normal

import ranef as rf
from model import zoo
from ranef.engines import laplace

GROUPS, TIMES = 12, 3
N = GROUPS * TIMES
LABELS = list("abc")
KNOWN = pd.DataFrame(0.18 * np.eye(3) + np.diag([0.12, 0.21, 0.15]), index=LABELS, columns=LABELS) + 0.1
#: Structure -> its term where it is not "structure(0 + f | g)".
TERMS = {
    **{s: f"{s}(0 + numFactor(t) | g)" for s in ("ou", "exp", "gau", "mat")},
    "us": "(0 + f | g)",
    "rr": "rr(0 + f | g, 2)",
}
#: Those with logarithms of standard deviations, and how many; of the others zeros of theta are zero variances.
LOGS = {"cs": 3, "hetar1": 3, "toep": 3} | dict.fromkeys(
    ("homdiag", "homcs", "homtoep", "ar1", "ou", "exp", "gau", "mat", "propto"), 1
)
#: Where the effects are -> family, what is beside them.
PREDICTORS = {
    "mean": ("y ~ x + {}", {"family": "poisson"}),
    "dispersion": ("z ~ x", {"family": "gaussian", "dispersion": "~ x + {}"}),
    "zero_inflation": ("y ~ x", {"family": "nbinom2", "zero_inflation": "~ x + {}"}),
}
every_structure = pytest.mark.parametrize("structure", sorted(laplace.STRUCTURES))
every_predictor = pytest.mark.parametrize("predictor", PREDICTORS)


@cache
def data(each: int = 1) -> dict[str, np.ndarray]:
    """Return counts and numbers of groups seen at three times, with effects of both that no structure has at zero."""
    rng = np.random.default_rng(4)
    g, t = np.repeat(np.arange(GROUPS), TIMES * each), np.tile(np.repeat(np.arange(TIMES), each), GROUPS)
    root = np.linalg.cholesky([[0.5, 0.3, 0.2], [0.3, 0.5, 0.3], [0.2, 0.3, 0.5]])
    effect = (rng.normal(size=(GROUPS, 3)) @ root.T)[g, t]
    x = rng.normal(size=len(g))
    y = rng.poisson(np.exp(1.0 + effect)).astype(float)
    z = 1 + 0.3 * x + effect + 0.5 * rng.normal(size=len(g))
    return {"y": y, "z": z, "x": x, "g": g, "t": t.astype(float), "f": np.array(LABELS)[t]}


def term(structure: str) -> str:
    return TERMS.get(structure, f"{structure}(0 + f | g)")


def call(structure: str, predictor: str) -> tuple[str, dict]:
    formula, options = PREDICTORS[predictor]
    own = {k: v.format(term(structure)) for k, v in options.items()}
    return formula.format(term(structure)), own | cov_of(structure)


def cov_of(structure: str) -> dict:
    return {"cov": {"f": KNOWN}} if structure in ("propto", "equalto") else {}


def core_at(structure: str, predictor: str):
    """Return the core, coefficients near the start, and a theta with correlations."""
    formula, options = call(structure, predictor)
    core, design, task = zoo.core_of(formula, data(), **options)
    theta = np.array([0.4 - 0.07 * i for i in range(core.ntheta)])
    if structure in LOGS:
        theta[: LOGS[structure]] -= 1.0
    return core, zoo.start(design, task), theta


def slopes(core, beta, theta, h=2e-4):
    """Return the gradient, and its difference quotients of fourth order."""
    point, p = np.r_[beta, theta], len(beta)

    def value(j, step):
        moved = (point + step * (np.arange(len(point)) == j)).tolist()
        return core.evaluate(moved[:p], moved[p:])["loglik"]

    exact = np.asarray(core.evaluate(beta.tolist(), theta.tolist())["gradient"])
    return exact, [
        (8 * (value(j, h) - value(j, -h)) - value(j, 2 * h) + value(j, -2 * h)) / (12 * h) for j in range(len(point))
    ]


@every_structure
@every_predictor
def test_gradient_is_a_difference_quotient(structure, predictor):
    # Differences of fourth order; the log-likelihood has an error of 1e-12 or so, which the step magnifies.
    assert_allclose(*slopes(*core_at(structure, predictor)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("structure", sorted(laplace.STRUCTURES - {"rr"}))  # whose groups are integrated otherwise
@every_predictor
def test_one_node_is_laplaces_approximation(structure, predictor):
    core, beta, theta = (v if i == 0 else v.tolist() for i, v in enumerate(core_at(structure, predictor)))
    exact = core.evaluate(beta, theta)
    core.adopt(beta, theta)
    found = core.with_nodes(1)
    # The same modes, found once: sums in another order.
    assert found["loglik"] == pytest.approx(exact["loglik"], abs=1e-8)
    assert_allclose(found["gradient"], exact["gradient"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("structure", sorted(laplace.STRUCTURES - {"rr"}))
def test_gradient_of_quadrature_is_a_difference_quotient(structure):
    core, beta, theta = core_at(structure, "mean")
    core.adopt(beta.tolist(), theta.tolist(), 3, "ml")
    assert_allclose(*slopes(core, beta, theta), rtol=1e-6, atol=1e-6)


@every_predictor
@pytest.mark.parametrize("structure", sorted(laplace.STRUCTURES - {"equalto"}))  # whose variances are known
def test_no_variance_is_the_model_without_random_effects(structure, predictor):
    core, beta, theta = core_at(structure, predictor)
    formula, options = call(structure, predictor)
    bare = {k: v.replace(f" + {term(structure)}", "") if isinstance(v, str) else v for k, v in options.items()}
    plain, *_ = zoo.core_of(formula.replace(f" + {term(structure)}", ""), data(), **{**bare, "cov": None})
    none = theta.copy()
    none[: LOGS.get(structure, len(theta))] = -20.0 if structure in LOGS else 0.0
    ours, theirs = core.evaluate(beta.tolist(), none.tolist()), plain.evaluate(beta.tolist(), [])
    p = len(beta)
    # A standard deviation of exp(-20) counts 1e-17; those at zero have derivatives at a floor.
    assert ours["loglik"] == pytest.approx(theirs["loglik"], abs=1e-8)
    assert_allclose(np.asarray(ours["gradient"])[:p], theirs["gradient"], rtol=1e-6, atol=1e-6)
    core.adopt(beta.tolist(), none.tolist())
    plain.adopt(beta.tolist(), [])
    ours, theirs = np.asarray(core.vcov())[:p, :p], np.asarray(plain.vcov())
    assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6 * np.abs(theirs).max())  # differences of gradients


# ---- fits ------------------------------------------------------------------------------------------------------------


@every_structure
def test_gaussian_models_have_the_density_of_the_responses(structure):
    """Effects that are normal, errors that are normal: nothing is approximated."""
    rows = data(4)
    m = rf.fit(f"z ~ x + {term(structure)}", rows, method="ml", **cov_of(structure))
    total, at = np.asarray(m.varcorr()["g"].cov), rows["t"].astype(int)
    assert total.shape == (3, 3)
    mean = m.params["(Intercept)"] + m.params["x"] * rows["x"]
    value = 0.0
    for level in range(GROUPS):
        on = rows["g"] == level
        cov = total[np.ix_(at[on], at[on])] + m.sigma**2 * np.eye(on.sum())
        value += multivariate_normal.logpdf(rows["z"][on], mean[on], cov)
    assert m.loglik == pytest.approx(value, abs=1e-7)  # of 144 rows, from digits of what is reported
    assert m.converged


def brute_force(eta: np.ndarray, total: np.ndarray, groups: np.ndarray, rows: dict, step: float = 0.5) -> float:
    """Return the Poisson likelihood of three effects a group by a product of trapezoidal rules: nothing adapts."""
    values, vectors = np.linalg.eigh(total)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    axis = np.arange(-6.5, 6.6, step)  # a few counts leave sd > 0.5 of an effect: errors of exp(-2 (pi sd / step)^2)
    u = np.array(list(product(axis, repeat=3)))
    b, weight = u @ root.T, -0.5 * (u**2).sum(axis=1) + 3 * np.log(step / np.sqrt(2 * np.pi))
    out = 0.0
    for level in np.unique(groups):
        on = groups == level
        at, y = eta[on][:, None] + b[:, rows["t"][on].astype(int)].T, rows["y"][on][:, None]
        out += np.log(np.exp((y * at - np.exp(at) - gammaln(y + 1)).sum(axis=0) + weight).sum())
    return float(out)


def gaps(core, beta, theta, brute, nodes=(1, 3, 9)):
    """Return how far quadrature is from the integral."""
    core.adopt([float(b) for b in beta], [float(t) for t in theta])
    return [abs(core.with_nodes(k)["loglik"] - brute) for k in nodes]


def mean_of(m, rows):
    return m.params["(Intercept)"] + m.params["x"] * rows["x"]


@pytest.mark.parametrize("structure", sorted(laplace.STRUCTURES - {"rr"}))
def test_many_nodes_are_the_integral(structure):
    """With the covariance matrix that the fit reports."""
    formula, options = call(structure, "mean")
    m = rf.fit(formula, data(), quadrature=9, **options)
    brute = brute_force(mean_of(m, data()), np.asarray(m.varcorr()["g"].cov), data()["g"], data())
    found = gaps(m.core, m.estimate.beta, m.theta, brute)
    assert found[2] < 5e-5  # 9 nodes in each of three dimensions
    assert found[2] < found[1] / 100
    assert m.loglik == pytest.approx(brute, abs=5e-5)


@pytest.mark.parametrize("rank", [1, 2])
def test_reduced_ranks_are_slopes_of_their_loadings(rank):
    """Scores are independent and have variance 1, so that their integrals can be taken one group at a time."""
    rows = data()
    m = rf.fit(f"y ~ x + rr(0 + f | g, {rank})", rows, family="poisson")
    at = [LABELS.index(v[1:]) for v in rf.loadings(m)["term"]]
    loadings = np.column_stack([rf.loadings(m)[f"factor{i + 1}"] for i in range(rank)])[np.argsort(at)]
    columns = {f"l{i}": loadings[rows["t"].astype(int), i] for i in range(rank)}
    slopes = f"y ~ x + diag(0 + {' + '.join(columns)} | g)"
    core, *_ = zoo.core_of(slopes, {**rows, **columns}, family="poisson")
    beta, ones = np.asarray(m.estimate.beta).tolist(), [1.0] * rank
    assert core.evaluate(beta, ones)["loglik"] == pytest.approx(m.loglik, abs=1e-8)
    brute = brute_force(mean_of(m, rows), np.asarray(m.varcorr()["g"].cov), rows["g"], rows, 0.25)
    found = gaps(core, beta, ones, brute, (1, 3, 15))
    assert core.with_nodes(1)["loglik"] == pytest.approx(m.loglik, abs=1e-8)
    assert found[2] < 1e-6  # 15 nodes in each dimension
    assert found[2] < found[0] / 1000


def test_related_levels_are_one_group_of_a_known_covariance():
    """`cov=` of a grouping factor, and the same matrix as that of effects of its levels in one group."""
    rows = {k: v[:12] for k, v in data().items()} | {"one": np.zeros(12)}
    call = {"data": rows, "family": "poisson", "cov": {"f": KNOWN}}
    core, *_ = zoo.core_of("y ~ x + (1 | f)", **call)
    joint, *_ = zoo.core_of("y ~ x + propto(0 + f | one)", **call)
    beta, sd = [0.8, 0.1], 0.7
    a, b = core.evaluate(beta, [sd]), joint.evaluate(beta, [float(np.log(sd))])
    assert a["loglik"] == pytest.approx(b["loglik"], abs=1e-9)
    assert_allclose(a["gradient"][:2], b["gradient"][:2], rtol=1e-8, atol=1e-9)
    assert a["gradient"][2] * sd == pytest.approx(b["gradient"][2], rel=1e-8)
    brute = brute_force(beta[0] + beta[1] * rows["x"], sd**2 * KNOWN.to_numpy(), rows["one"], rows)
    found = gaps(joint, beta, [np.log(sd)], brute, (1, 3, 15))
    assert joint.with_nodes(1)["loglik"] == pytest.approx(a["loglik"], abs=1e-9)
    assert found[2] < 1e-7  # one group
