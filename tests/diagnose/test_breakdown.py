"""Fits on which Laplace's approximation has broken down: said, and no exception on the way."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import ranef as rf
from ranef.diagnose import accuracy
from ranef.errors import NotAvailableError


@pytest.fixture(scope="module")
def broken():
    """Zero inflation of single trials with an effect of every row: nothing tells the two variances apart."""
    rng = np.random.default_rng(4)
    n = 40
    data = {"y": (rng.random(n) < 0.5).astype(float), "x": rng.normal(size=n), "g": np.arange(n)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return rf.fit("y ~ x + (1 | g)", data, family="binomial", zero_inflation="~ 1")


def test_an_impossible_likelihood_is_named(broken):
    codes = [message.code for message in broken.messages]
    assert (broken.loglik > 0) == ("above_one" in codes)
    assert "row_effect_of_single_trials" in codes
    assert "zero_inflation_of_single_trials" in codes
    str(broken)


def test_no_integral(monkeypatch):
    m = rf.fit("y ~ trt + (1 | ID)", rf.datasets.load("bacteria"), family="binomial")

    class Core:
        def with_nodes(self, _nodes):
            raise ValueError("the mode of the random effects was not reached")

    monkeypatch.setattr(accuracy, "rebuilt", lambda *_: Core())
    with pytest.raises(NotAvailableError, match="no integral at this estimate: the mode"):
        rf.laplace_check(m, 3)


@pytest.mark.parametrize(("n", "improper"), [((1, 2), True), ((0, 1, 2, 3, 4, 5), False)])
def test_a_density_that_does_not_sum_to_one_is_named(n, improper):
    """Generalised Poisson below dispersion 1: the likelihood of (1, 2) exceeds that of a fair coin by e^65."""
    rng = np.random.default_rng(3)
    data = {"y": rng.choice(n, 200), "x": rng.normal(size=200), "g": np.arange(200) % 20}
    m = rf.fit("y ~ x + (1 | g)", data, family="genpois")
    assert ("improper_density" in [message.code for message in m.messages]) == improper


def heavy():
    """Positive responses under a t distribution with a log link: nu goes below 2, where Laplace breaks down."""
    rng = np.random.default_rng(3)
    g, x = np.repeat(np.arange(20), 10), rng.normal(size=200)
    eta = 0.4 + 0.5 * x + 0.6 * rng.normal(size=20)[g]
    return {"g": g, "x": x, "y": np.exp(eta + 0.5 * rng.normal(size=200))}


def test_a_flat_mode_is_named_with_what_works():
    data = heavy()
    with pytest.warns(rf.errors.ConvergenceWarning, match="quadrature=9 integrates beyond the mode"):
        m = rf.fit("y ~ x + (1 | g)", data, family="student_t", link="log")
    assert m.certificate.outcome.name == "flat_mode"
    assert "flat" in str(m)
    assert not any(n.code == "without_information" for n in m.messages)
    assert rf.fit("y ~ x + (1 | g)", data, family="student_t", link="log", quadrature=9).converged


def test_a_pole_of_the_mean_is_left():
    """Zero inflation of single trials: the density of a zero is not concave in the mean, and its mode may be flat."""
    rng = np.random.default_rng(2)
    found = []
    for _ in range(12):
        x, g = rng.normal(size=60), rng.integers(0, 8, 60)
        y = (rng.random(60) < 0.5 / (1 + np.exp(-1 - x - rng.normal(size=8)[g]))).astype(float)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            m = rf.fit("y ~ x + (1 | g)", {"y": y, "x": x, "g": g}, family="binomial", zero_inflation="~ 1")
        assert m.converged or m.certificate.outcome.name in ("flat_mode", "max_evaluations")
        if m.estimate.pole is not None:
            found.append(m)
    assert found
    assert all(any(n.code == "pole" for n in m.messages) and m.converged for m in found)


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_effects_that_ran_off_are_named(seed):
    """A Wishart prior, which grows with the variance, of extra zeros of which there are none."""
    rng = np.random.default_rng(seed)
    frame = {"y": rng.poisson(2, 100), "g": np.repeat(np.arange(20), 5)}
    prior = {"cov(zero_inflation:g)": rf.prior.wishart()}
    with pytest.warns(rf.ConvergenceWarning, match="the effects of 'g' in zero_inflation"):
        rf.fit("y ~ 1 + (1 | g)", frame, family="poisson", zero_inflation="~ 1 + (1 | g)", prior=prior)
