"""Adaptive quadrature over nested grouping factors beside brute-force integration, and what it refuses."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import logsumexp
from scipy.stats import norm

import ranef as rf
from ranef.engines.laplace import make_core
from ranef.errors import OptionError

GRID = np.linspace(-8, 8, 161)  # step 0.1: the trapezoidal rule on a smooth, decaying integrand errs by less than 1e-12
LOG_WEIGHT = norm.logpdf(GRID) + np.log(GRID[1] - GRID[0])


def data(seed=3, schools=6, classes=3, pupils=4):
    rng = np.random.default_rng(seed)
    n = schools * classes * pupils
    school, room = np.repeat(np.arange(schools), classes * pupils), np.repeat(np.arange(schools * classes), pupils)
    x = rng.normal(size=n)
    eta = -0.2 + 0.6 * x + rng.normal(size=schools)[school] + 0.9 * rng.normal(size=schools * classes)[room]
    return {
        "y": (rng.uniform(size=n) < 1 / (1 + np.exp(-eta))).astype(float), "x": x,
        "school": np.char.add("s", school.astype(str)), "room": np.char.add("r", (room % classes).astype(str)),
        "own": room,
        "count": rng.poisson(np.exp(0.4 * eta) * (rng.uniform(size=n) > 0.3)).astype(float),
    }  # fmt: skip


DATA = data()


def log_bernoulli(y, eta):
    return -np.logaddexp(0, np.where(y == 1, -eta, eta))


def brute_force(beta, sd_school, sd_room, d=DATA):
    """Log-likelihood of y ~ x + (1 | school/room) on a fixed grid in both dimensions: nothing adaptive in it."""
    eta, total = beta[0] + beta[1] * d["x"], 0.0
    for school in np.unique(d["school"]):
        log_school = LOG_WEIGHT.copy()
        for room in np.unique(d["own"][d["school"] == school]):
            at = d["own"] == room
            both = sd_school * GRID[:, None] + sd_room * GRID[None, :]
            inner = sum(log_bernoulli(y, e + both) for y, e in zip(d["y"][at], eta[at], strict=True))
            log_school += logsumexp(inner + LOG_WEIGHT, axis=1)
        total += logsumexp(log_school)
    return total


def core_at(formula, nodes, beta, theta, **arguments):
    m = rf.fit(formula, DATA, family=arguments.pop("family", "binomial"), **arguments)
    core = make_core(m.design, m.task)
    core.adopt(list(beta), list(theta), nodes, "ml")
    return m, core


def test_nested_quadrature_converges_to_brute_force():
    beta, by_label = [-0.3, 0.5], {"school": 1.1, "school:room": 0.8}
    m = rf.fit("y ~ x + (1 | school/room)", DATA, family="binomial")
    theta = [by_label[t.label] for t in m.layout.terms]
    exact = brute_force(beta, 1.1, 0.8)
    errors = []
    for nodes in (1, 3, 7, 15, 25):
        core = make_core(m.design, m.task)
        core.adopt(beta, theta, nodes, "ml")
        errors.append(abs(core.evaluate(beta, theta)["loglik"] - exact))
    assert errors[0] > 1e-2  # Laplace's approximation is not good enough here
    assert all(later < 0.5 * earlier for earlier, later in pairwise(errors))
    assert errors[-1] < 1e-7  # of 72 binary rows in 18 groups of 4


@pytest.mark.parametrize("nodes", [1, 2, 5])
@pytest.mark.parametrize(
    ("formula", "arguments"),
    [
        ("y ~ x + (1 | school/room)", {}),
        ("y ~ x + (x | school) + (1 | school:room)", {}),
        ("count ~ x + (1 | school/room)", {"family": "poisson", "zero_inflation": "~ 1 + (1 | school)"}),
    ],
    ids=["intercepts", "slopes", "two components"],
)
def test_gradient_is_that_of_the_sum(formula, arguments, nodes):
    m = rf.fit(formula, DATA, **{"family": "binomial", **arguments})
    rng = np.random.default_rng(5)
    beta = 0.2 * rng.normal(size=len(m.estimate.beta))
    theta = 0.4 + 0.3 * rng.uniform(size=len(m.theta))
    core = make_core(m.design, m.task)
    core.adopt(list(beta), list(theta), nodes, "ml")
    found, par, p = core.evaluate(list(beta), list(theta)), np.r_[beta, theta], len(beta)
    numeric = []
    for j in range(len(par)):
        at = [par + s * 1e-4 * (np.arange(len(par)) == j) for s in (-2, -1, 1, 2)]
        f = [core.evaluate(list(v[:p]), list(v[p:]))["loglik"] for v in at]
        numeric.append((f[0] - 8 * f[1] + 8 * f[2] - f[3]) / 12e-4)
    # Fourth-order quotients: 1e-16 of truncation, 1e-10 of rounding over the step.
    assert_allclose(found["gradient"], numeric, rtol=1e-6, atol=1e-6)
    if nodes == 1:
        laplace = make_core(m.design, m.task)
        assert_allclose(found["loglik"], laplace.evaluate(list(beta), list(theta))["loglik"], atol=1e-9)


def test_a_fit_by_nested_quadrature():
    m = rf.fit("y ~ x + (1 | school/room)", DATA, family="binomial", quadrature=15)
    sds = dict(zip([t.label for t in m.layout.terms], m.theta, strict=True))
    beta, school, room = np.array(m.params), sds["school"], sds["school:room"]
    best = brute_force(beta, school, room)
    assert_allclose(m.loglik, best, atol=1e-5)
    # The maximum is where the brute-force likelihood has its own: moving away by a hundredth loses.
    assert m.converged
    for step in (0.05, -0.05):
        assert brute_force((beta[0] + step, beta[1]), school, room) < best
        assert brute_force(beta, school + step, room) < best
        assert brute_force(beta, school, room + step) < best
    assert np.isfinite(m.vcov()).all()
    assert "quadrature" in str(m.summary()).lower() or "gauss" in str(m.summary()).lower()


def test_three_levels():
    rng = np.random.default_rng(9)
    n = 144
    d = {"a": np.arange(n) // 36, "b": np.arange(n) // 12, "c": np.arange(n) // 4, "x": rng.normal(size=n)}
    eta = 0.3 * d["x"] + rng.normal(size=4)[d["a"]] + 0.5 * rng.normal(size=12)[d["b"]]
    d["y"] = rng.poisson(np.exp(eta + 0.4 * rng.normal(size=36)[d["c"]])).astype(float)
    fits = [rf.fit("y ~ x + (1 | a) + (1 | b) + (1 | c)", d, family="poisson", quadrature=k) for k in (1, 3, 5, 7)]
    gaps = np.abs(np.diff([m.loglik for m in fits]))
    assert gaps[2] < gaps[0] / 10
    assert all(m.converged for m in fits)


def test_one_group_in_two_components_is_vector_valued():
    m = rf.fit("count ~ x + (1 | own)", DATA, family="poisson", zero_inflation="~ 1 + (1 | own)", quadrature=5)
    finer = rf.fit("count ~ x + (1 | own)", DATA, family="poisson", zero_inflation="~ 1 + (1 | own)", quadrature=9)
    assert_allclose(m.loglik, finer.loglik, atol=2e-2)


def test_crossed_factors_are_named():
    d = {**DATA, "day": np.arange(72) % 5}
    with pytest.raises(OptionError, match=r"'day' and 'school'|'school' and 'day'"):
        rf.fit("y ~ x + (1 | school) + (1 | day)", d, family="binomial", quadrature=5)


def test_cost_is_refused_with_figures():
    d = {**DATA, "f": np.array(list("abcdef"))[np.arange(72) % 6]}
    with pytest.raises(OptionError, match=r"9\^6 .*quadrature=5") as error:
        rf.fit("y ~ 1 + (0 + f | own)", d, family="binomial", quadrature=9)
    assert "20000" in str(error.value)
