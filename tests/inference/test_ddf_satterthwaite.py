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
