"""Simulated responses have the model's moments, and the seed decides everything."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import ranef as rf
from engines import zoo
from ranef.errors import OptionError
from ranef.frame import matrix

DRAWS = 4000


@pytest.fixture(scope="module")
def m():
    return rf.fit("y ~ x + (x | g) + (1 | h)", zoo.data(), precision_weights="w")


def test_shape_and_seed(m):
    out = m.simulate(3, seed=1)
    assert out.shape == (60, 3)
    assert_array_equal(out, m.simulate(3, seed=1))
    assert_array_equal(out[:, 0], m.simulate(1, seed=1)[:, 0])
    assert (out != m.simulate(3, seed=2)).all()
    assert m.simulate(seed=np.random.default_rng(1)).shape == (60, 1)


def test_conditional_moments(m):
    out = m.simulate(DRAWS, re="conditional", seed=1)
    sd = m.sigma / np.sqrt(zoo.data()["w"].to_numpy())
    assert_allclose(out.mean(axis=1), m.fitted(), atol=5 * (sd / np.sqrt(DRAWS)).max())
    assert_allclose(out.std(axis=1) / sd, 1, atol=5 / np.sqrt(2 * DRAWS))


def test_moments_with_new_random_effects(m):
    out = m.simulate(DRAWS, re="new", seed=2)
    z = [np.zeros((60, 0))]
    prior = np.zeros((60, 60))
    for term, cov in zip(m.design.terms, m.estimate.covariances, strict=True):
        z = matrix(term.blocks, 60)
        same = term.codes[:, None] == term.codes[None, :]
        prior += same * (z @ cov @ z.T)
    covariance = prior + np.diag(m.sigma**2 / zoo.data()["w"])
    assert_allclose(out.mean(axis=1), m.predict(re="none"), atol=5 * np.sqrt(covariance.max() / DRAWS))
    found = np.cov(out)
    error = np.sqrt((covariance**2 + np.outer(np.diag(covariance), np.diag(covariance))) / DRAWS)
    assert (np.abs(found - covariance) < 5 * error).all()


def test_plain_linear_model():
    m = rf.fit("y ~ x", zoo.data())
    out = m.simulate(500, seed=3)
    assert_allclose(out.mean(), m.fitted().mean(), atol=5 * m.sigma / np.sqrt(out.size))
    assert out.std() > m.sigma


def test_simulated_responses_refit():
    m = rf.fit("y ~ x + (1 | g)", zoo.data())
    many = rf.fit_many("~ x + (1 | g)", zoo.data(), m.simulate(200, seed=5))
    slopes = np.array([e.beta[1] for e in many.estimates])
    se = np.sqrt(m.vcov().loc["x", "x"])
    assert slopes.mean() == pytest.approx(m.params["x"], abs=5 * se / np.sqrt(200))
    assert slopes.std() == pytest.approx(se, rel=0.25)


@pytest.mark.parametrize(
    ("arguments", "says"), [({"re": "all"}, "conditional"), ({"n": 0}, "positive"), ({"n": 1.5}, "whole")]
)
def test_refuses(m, arguments, says):
    with pytest.raises(OptionError, match=says):
        m.simulate(**arguments)


@pytest.mark.parametrize("seed", ["a", -1, 1.5])
def test_seeds_are_whole_numbers_or_generators(seed):
    m = rf.fit("Reaction ~ Days + (1 | Subject)", rf.datasets.load("sleepstudy"))
    with pytest.raises(rf.errors.OptionError, match="simulate: seed="):
        m.simulate(seed=seed)
