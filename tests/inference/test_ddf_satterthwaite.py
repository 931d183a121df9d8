"""Satterthwaite's degrees of freedom: lmerTest's figures, the dense oracle's, and where theory knows them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import oracle
import ranef as rf
from engines import zoo
from ranef.inference.ddf import satterthwaite


def fit(name, formula, **arguments):
    return rf.fit(formula, rf.datasets.load(name), **arguments)


# lmerTest 3.1-3 on lme4 1.1-31 (numerical derivatives: good to about 1e-4).
PUBLISHED = {
    "oats": ("Oats", "yield ~ factor(nitro) * Variety + (1 | Block/Variety)", [16.0820510, 45, 45, 45, 30.2307803]),
    "machines": ("Machines", "score ~ Machine + (Machine | Worker)", [5, 5, 5]),
    "orthodont": ("Orthodont", "distance ~ age * Sex + (1 | Subject)", [103.98636, 79, 103.98636, 79]),
    "singular": ("Dyestuff2", "Yield ~ 1 + (1 | Batch)", [29]),
}


@pytest.mark.parametrize(("name", "formula", "df"), PUBLISHED.values(), ids=PUBLISHED)
def test_as_lmertest(name, formula, df):
    np.testing.assert_allclose(fit(name, formula).ddf[: len(df)], df, rtol=1e-4)


def test_as_glmmtmb():
    m = fit("sleepstudy", "Reaction ~ Days + (Days | Subject)")
    np.testing.assert_allclose(m.ddf, [17, 17], rtol=1e-6)


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("name", ["intercept", "slope", "crossed", "nested", "rank_deficient"])
def test_as_the_oracle(name, method):
    m = rf.fit(zoo.FORMULAS[name], zoo.data(), method=method)
    dense = oracle.DenseLmm(*zoo.arguments(zoo.design(name, False)))
    at = (m.theta, m.sigma, method == "reml")
    spread = satterthwaite.covariance(dense.hessian(*at))
    slopes = np.diagonal(dense.vcov_jacobian(*at), axis1=1, axis2=2)
    df = satterthwaite.matched(np.diag(m.estimate.vcov), slopes, spread)
    np.testing.assert_allclose(m.ddf, df, rtol=1e-4)


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_the_hessian_of_a_large_crossed_design_is_exact_and_its_factor_comes_back(method):
    """All of the inverse takes the place of the factor there; conditional variances ask for it afterwards."""
    rng, n = np.random.default_rng(5), 3600
    a, b, x = rng.integers(0, 300, n), rng.integers(0, 260, n), rng.normal(size=n)
    y = 1 + x / 2 + 0.8 * rng.normal(size=300)[a] + 0.6 * rng.normal(size=260)[b] + rng.normal(size=n)
    m = rf.fit("y ~ x + (1 | a) + (1 | b)", {"y": y, "x": x, "a": a, "b": b}, method=method)
    before = m.core.cond_cov(0)
    h = m.core.hessian(np.ascontiguousarray(m.theta), m.sigma, method == "reml")
    (ta, tb), s = m.theta, m.sigma
    za, zb = s * np.eye(300)[a], s * np.eye(260)[b]
    v = s**2 * np.eye(n) + ta**2 * za @ za.T + tb**2 * zb @ zb.T
    first = [2 * ta * za @ za.T, 2 * tb * zb @ zb.T, 2 * v / s]
    second = {(0, 0): first[0] / ta, (1, 1): first[1] / tb}
    second |= {(i, 2): 2 * first[i] / s for i in (0, 1)} | {(2, 2): 2 * v / s**2}
    inverse = np.linalg.inv(v)
    left = inverse @ np.column_stack([np.ones(n), x])
    p = inverse - left @ np.linalg.solve(left.T @ v @ left, left.T)
    q, e = (p if method == "reml" else inverse), p @ y
    moved = [q @ d for d in first]
    want = np.zeros((3, 3))
    for i in range(3):
        for j in range(i + 1):
            value = 2 * e @ first[i] @ p @ first[j] @ e - np.sum(moved[i] * moved[j].T)
            if (j, i) in second:
                value += np.sum(q * second[j, i]) - e @ second[j, i] @ e
            want[i, j] = want[j, i] = value
    np.testing.assert_allclose(h, want, rtol=1e-11)  # differences of the gradient are good to 1e-9
    np.testing.assert_array_equal(m.core.cond_cov(0), before)


def test_contrasts():
    m = fit("Machines", "score ~ Machine + (1 | Worker)")
    np.testing.assert_allclose(satterthwaite.contrast_df(m, np.eye(3)), m.ddf)
    between = satterthwaite.contrast_df(m, np.array([0.0, 1, -1]))
    assert between[0] == pytest.approx(m.ddf[1], rel=1e-4)  # balanced: every difference of machines has the same df


def test_contrasts_ignore_dropped_columns_and_know_plain_models():
    m = rf.fit(zoo.FORMULAS["rank_deficient"], zoo.data())
    kept = ~np.isnan(m.ddf)
    np.testing.assert_allclose(satterthwaite.contrast_df(m, np.eye(len(kept))[kept]), m.ddf[kept])
    plain = rf.fit("y ~ x", zoo.data())
    np.testing.assert_array_equal(satterthwaite.contrast_df(plain, np.eye(2)), 58)


def test_flat_directions_are_left_out():
    h = np.diag([4.0, 0.0, 2.0])
    np.testing.assert_allclose(satterthwaite.covariance(h), np.diag([0.5, 0, 1]))


def test_several_threads_may_ask_at_once():
    m = fit("sleepstudy", "Reaction ~ Days + (Days | Subject)")
    with ThreadPoolExecutor(4) as pool:
        for df in pool.map(lambda _: satterthwaite.coefficient_df(m), range(40)):
            np.testing.assert_allclose(df, 17, rtol=1e-6)


def test_computed_once_and_late():
    m = fit("sleepstudy", "Reaction ~ Days + (Days | Subject)")
    assert "ddf" not in m.__dict__
    assert m.ddf is m.ddf
