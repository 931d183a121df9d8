"""Random responses follow their family: moments and distribution functions of many draws with a fixed seed."""

import numpy as np
import pytest

from ranef import _core

N = 20_000

CASES = [
    ("gaussian", (0.7, 0.3), {}),
    ("lognormal", (0.5, -0.4), {}),
    ("skew_normal", (0.4, 0.2, 2.5), {}),
    ("student_t", (0.3, -0.2, np.log(12.0)), {}),
    ("poisson", (1.2,), {}),
    ("poisson", (4.5,), {}),
    ("nbinom1", (1.2, 0.5), {}),
    ("nbinom2", (1.2, -0.3), {}),
    ("nbinom12", (1.2, 0.5, 0.2), {}),
    ("genpois", (1.2, 0.4), {}),
    ("compois", (1.2, -0.5), {}),
    ("bell", (1.2,), {}),
    ("gamma", (0.5, -0.6), {}),
    ("exponential", (0.5,), {}),
    ("inverse_gaussian", (0.5, -0.5), {}),
    ("weibull", (0.5, 0.7), {}),
    ("tweedie", (0.5, 0.1, 0.3), {}),
    ("beta", (-0.8, 1.0), {}),
    ("ordered_beta", (0.4, 1.2, -1.0, 1.5), {}),
    ("zero_one_inflated_beta", (0.4, 1.2, -1.0, 0.5), {}),
    ("poisson", (1.2, -0.4), {"zero_inflation": True}),
    ("nbinom2", (0.4, 0.1, -0.4), {"hurdle": True}),
    ("truncated_poisson", (-4.0,), {}),
    ("gamma", (0.5, 0.6, -1.0), {"zero_inflation": True}),
]


@pytest.mark.parametrize(("name", "eta", "extra"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)])
def test_moments_and_distribution_of_draws(name, eta, extra):
    spec, data = {"name": name, **extra}, {"y": np.ones(N)}
    rows = np.tile(np.array(eta), (N, 1))
    y = _core.family_draw(spec, data, rows, 11)
    assert np.isfinite(y).all()
    mean, variance = _core.family_mean(spec, data, rows)[0], _core.family_variance(spec, data, rows)[0]
    # five standard errors; the variance has at most a kurtosis of some 50 here
    assert abs(y.mean() - mean) < 5 * np.sqrt(variance / N)
    assert abs(y.var() / variance - 1) < 0.25
    # a tenth, a half and nine tenths of the draws lie below their quantiles
    at = np.quantile(y, [0.1, 0.5, 0.9])
    cdf = _core.family_cdf(spec, {"y": at}, rows[:3])
    below = np.array([(y <= q).mean() for q in at])
    np.testing.assert_allclose(cdf, below, atol=5 * 0.5 / np.sqrt(N))


def test_binomial_draws():
    trials = np.full(N, 50.0)
    data, rows = {"y": np.zeros(N), "trials": trials}, np.full((N, 1), -0.7)
    y = _core.family_draw({"name": "binomial"}, data, rows, 5)
    mean = _core.family_mean({"name": "binomial"}, data, rows)[0]
    assert abs(y.mean() - mean) < 5 * np.sqrt(mean * (1 - mean) / 50 / N)
    assert np.allclose(y * 50, np.round(y * 50))


def test_draws_are_reproducible():
    args = ({"name": "poisson"}, {"y": np.zeros(100)}, np.zeros((100, 1)))
    assert (_core.family_draw(*args, 3) == _core.family_draw(*args, 3)).all()
    assert (_core.family_draw(*args, 3) != _core.family_draw(*args, 4)).any()
