"""Designs that make other packages crash, hang or end worse than a smaller model does."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import ranef as rf
from engines import zoo
from ranef.errors import DataError


def test_a_random_design_far_wider_than_its_rows():
    """MixedModels.jl#252: nine rows, dozens of random coefficients a group, out of memory there."""
    rng = np.random.default_rng(1)
    labels = {name: [f"{name}{i % 3}" for i in rng.permutation(9)] for name in "abc"}
    frame = pd.DataFrame({"y": rng.normal(size=9), "g": list("pqr") * 3, **labels})
    with pytest.raises(DataError, match="random coefficients"):
        rf.fit("y ~ 1 + (a * b * c | g)", frame)


# statsmodels#4655: the larger model ended below the smaller. Each line holds models that contain those before them.
NESTED = [
    ["y ~ x", "y ~ x + (1 | g)", "y ~ x + (x || g)", "y ~ x + (x | g)", "y ~ x + (x + z | g)"],
    ["y ~ x + (1 | g)", "y ~ x + (1 | g) + (1 | h)", "y ~ x + (x | g) + (1 | h)", "y ~ x + (x | g) + (1 + z | h)"],
    ["y ~ x + (1 | a)", "y ~ x + (1 | a/b)", "y ~ x + z + (1 | a/b)", "y ~ x + z + f + (x | a/b)"],
]


@pytest.mark.parametrize("formulas", NESTED, ids=["slopes", "crossed", "nested"])
@pytest.mark.parametrize("seed", range(6))
def test_a_parameter_more_never_lowers_the_likelihood(formulas, seed):
    frame = zoo.data().sample(frac=1, replace=True, random_state=seed, ignore_index=True)
    criteria = [rf.fit(formula, frame, method="ml").criterion for formula in formulas]
    # Each fit stops where one more step promises 1e-9.
    assert np.diff(criteria).max() < 1e-7


def test_uncorrelated_slopes_may_outnumber_the_rows():
    """Every column of || has a variance of its own, so that five in groups of three rows are identified (lme4 too)."""
    rng = np.random.default_rng(1)
    columns = {f"x{j}": rng.normal(size=120) for j in range(4)}
    g = np.repeat(np.arange(40), 3)
    x = np.column_stack([np.ones(120), *columns.values()])
    y = (x * (rng.normal(size=(40, 5)) * [0.8, 0.5, 0.3, 0.6, 0.2])[g]).sum(axis=1) + rng.normal(size=120)
    frame = pd.DataFrame({"y": y, "g": g, **columns})
    m = rf.fit("y ~ x0 + (x0 + x1 + x2 + x3 || g)", frame, method="ml")
    sds = np.r_[m.varcorr()["g"].sd, m.sigma]

    def deviance(sds):
        beta = m.params.to_numpy()
        v = (x * sds[:5] ** 2) @ x.T * (g[:, None] == g) + sds[5] ** 2 * np.eye(120)
        r = y - x[:, :2] @ beta
        return np.linalg.slogdet(v)[1] + r @ np.linalg.solve(v, r) + 120 * np.log(2 * np.pi)

    assert m.converged
    assert m.criterion == pytest.approx(deviance(sds), abs=1e-8)
    for j in np.flatnonzero(sds):  # a step of 1 % either way is uphill
        for factor in (0.99, 1.01):
            moved = sds.copy()
            moved[j] *= factor
            assert deviance(moved) > m.criterion
    with pytest.raises(DataError, match=r"write \|\|"):
        rf.fit("y ~ x0 + (x0 + x1 + x2 + x3 | g)", frame)


def test_uncorrelated_indicators_without_replicates_are_the_residual():
    frame = zoo.data().drop_duplicates(["g", "f"])
    with pytest.raises(DataError, match="no two rows of one level and column"):
        rf.fit("y ~ x + (0 + f || g)", frame)


def test_a_prior_of_effects_that_only_a_pole_would_have():
    """The first search is lost where the mode is flat; next to no effects is a place to begin, and zero the optimum."""
    data = {"y": np.random.default_rng(0).poisson(2, 100), "g": np.repeat(np.arange(20), 5)}
    prior = {"sd(zero_inflation:g)": rf.prior.half_normal(1)}
    m = rf.fit("y ~ 1 + (1 | g)", data, family="poisson", zero_inflation="~ 1 + (1 | g)", prior=prior)
    without = rf.fit("y ~ 1 + (1 | g)", data, family="poisson", zero_inflation="~ 1")
    assert m.converged
    assert_allclose(m.loglik, without.loglik, atol=1e-6)  # the density of a half-normal is highest at zero
