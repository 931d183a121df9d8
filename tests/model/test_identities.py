"""Identities that the likelihood of every family satisfies: random effects in every predictor, under every link.

Nothing is fitted: the engine is asked at a point near where a search begins.
"""

from __future__ import annotations

import math
from itertools import chain, product

import numpy as np
import pytest
from numpy.testing import assert_allclose

from model import zoo
from ranef.families import link_of, names
from ranef.families.table import entries

CASES = list(chain(zoo.of_means(), zoo.of_other_predictors(), zoo.of_several_effects(), zoo.of_modifiers()))


#: The outermost of many nodes are no legal values: the integral is over half a line there.
OUTSIDE = {
    "nbinom2-dispersion_1/mu^2-dispersion:(1|g)",
    "student_t-shape_1/mu^2-shape:(1|g)",
    "ordered_beta-lower_identity-lower:(1|g)",
    "ordered_beta-upper_identity-upper:(1|g)",
}


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def ready(case):
    return zoo.ready(case)


def test_gradient_is_a_difference_quotient(ready):
    point, p = np.r_[ready.beta, ready.theta], len(ready.beta)
    exact = np.asarray(ready.at(ready.beta, ready.theta)["gradient"])

    def value(j, step):
        moved = point + step * (np.arange(len(point)) == j)
        return ready.at(moved[:p], moved[p:])["loglik"]

    h = 2e-4 if ready.wide else 2e-5
    quotient = [
        (8 * (value(j, h) - value(j, -h)) - value(j, 2 * h) + value(j, -2 * h)) / (12 * h) for j in range(len(point))
    ]
    # Differences of fourth order; the log-likelihood has an error of 1e-12 or so, which the step magnifies.
    scale = np.maximum(np.abs(exact), 1.0)
    assert (np.abs(exact - quotient) / scale).max() < (1e-6 if ready.wide else 1e-5)


def test_one_node_is_laplaces_approximation(ready):
    ready.core.adopt(ready.beta.tolist(), ready.theta.tolist())
    found = ready.core.with_nodes(1)
    # The same modes, found once: sums in another order.
    assert found["loglik"] == pytest.approx(ready.at(ready.beta, ready.theta)["loglik"], abs=1e-8)
    assert sum(found["groups"]) == pytest.approx(found["loglik"], abs=1e-9)


def brute_force(ready):
    """Return the integral over one or two spherical effects of every group, on a grid that nothing adapts."""
    loadings, eta = ready.loadings(), ready.predictors()
    # The trapezoidal rule converges geometrically for analytic functions that vanish; two effects are small ones.
    reach, step = (8, 0.04) if len(loadings) == 1 else (6, 0.25)
    axis = np.arange(-reach, reach + step / 2, step)
    values = []
    for u in np.array_split(np.array(list(product(axis, repeat=len(loadings)))), 4):
        rows = ready.density(eta + np.einsum("mq,qnk->mnk", u, loadings))
        rows = np.clip(np.nan_to_num(rows, nan=-np.inf), -1e6, None)  # impossible, whatever the number
        values.append(rows.reshape(len(u), zoo.GROUPS, zoo.SIZE).sum(axis=2) - 0.5 * (u**2).sum(axis=1)[:, None])
    found = np.concatenate(values)
    top = found.max(axis=0)
    share = (step / np.sqrt(2 * np.pi)) ** len(loadings)
    return float(np.sum(top + np.log(np.exp(found - top).sum(axis=0) * share)))


@pytest.mark.parametrize("case", [c for c in CASES if str(c) not in OUTSIDE], ids=str)
def test_many_nodes_are_the_integral(case):
    ready = zoo.ready(case)
    brute, q = brute_force(ready), len(ready.loadings())
    ready.core.adopt(ready.beta.tolist(), ready.theta.tolist())
    gaps = [abs(ready.core.with_nodes(k)["loglik"] - brute) for k in (1, 5, 41 if q == 1 else 25)]
    # Heavy tails converge slowly; the trapezoidal rule errs by less.
    assert gaps[2] < 1e-5
    assert gaps[2] <= gaps[1] + 1e-7
    assert gaps[1] <= gaps[0] + 1e-6


def test_no_variance_is_the_model_without_random_effects(case):
    ready = zoo.ready(case)
    zero = np.zeros(len(ready.theta))
    found, plain = ready.at(ready.beta, zero), ready.plain.evaluate(ready.beta.tolist(), [])
    assert found["loglik"] == pytest.approx(plain["loglik"], abs=1e-8)
    # Derivatives are taken at a floor.
    assert_allclose(np.asarray(found["gradient"])[: len(ready.beta)], plain["gradient"], rtol=1e-6, atol=1e-6)
    assert found["loglik"] == pytest.approx(ready.density(ready.predictors()).sum(), abs=1e-8)


def test_standard_errors_without_variance_are_those_of_the_plain_model(ready):
    ready.core.adopt(ready.beta.tolist(), [0.0] * len(ready.theta))
    ready.plain.adopt(ready.beta.tolist(), [])
    p = len(ready.beta)
    ours, plain = np.asarray(ready.core.vcov())[:p, :p], np.asarray(ready.plain.vcov())
    assert (np.isnan(ours) == np.isnan(plain)).all()
    # Both are central differences of exact gradients; in the former the variance is a parameter of its own.
    assert_allclose(ours, plain, rtol=1e-4, atol=1e-6 * np.nanmax(np.abs(plain), initial=1.0))


def test_every_family_predictor_and_link_is_here():
    known = {(c.family, p, link) for c in CASES for p, link in c.links.items()}
    assert known >= {(n, p.name, link) for n in names() for p in entries()[n].parameters for link in p.links}
    assert {c.family for c in CASES if "zero_inflation" in c.effects} >= {n for n in names() if entries()[n].inflatable}


@pytest.mark.parametrize("link", entries()["binomial"].parameters[0].links)
def test_trials_are_rows_of_their_own(link):
    """A proportion of n trials is n rows of 0 and 1 but for the number of orders; gradients are the same."""
    rng = np.random.default_rng(4)
    n, g, x = rng.integers(1, 7, 40), np.arange(40) % 8, rng.uniform(-1, 1, 40)
    hits = rng.binomial(n, 0.5)
    one = np.concatenate([np.r_[np.ones(h), np.zeros(m - h)] for h, m in zip(hits, n, strict=True)])
    rows = {"y": one, "x": np.repeat(x, n), "g": np.repeat(g, n)}
    shares = {"y": hits / n, "x": x, "g": g, "n": n}
    whole, *_ = zoo.core_of("y ~ x + (1 | g)", shares, family="binomial", link=link, trials="n")
    split, *_ = zoo.core_of("y ~ x + (1 | g)", rows, family="binomial", link=link)
    beta = [float(link_of(link).forward(0.45)), 0.05]
    a, b = (core.evaluate(beta, [0.05]) for core in (whole, split))
    orders = sum(math.log(math.comb(m, h)) for m, h in zip(n.tolist(), hits.tolist(), strict=True))
    # Sums of 40 rows and of their 140 trials.
    assert a["loglik"] == pytest.approx(b["loglik"] + orders, abs=1e-8)
    assert_allclose(a["gradient"], b["gradient"], rtol=1e-8, atol=1e-8)
