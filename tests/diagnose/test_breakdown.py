"""Fits on which Laplace's approximation has broken down: said, and no exception on the way."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import ranef as rf
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
    str(broken)


def test_no_integral(monkeypatch):
    m = rf.fit("y ~ trt + (1 | ID)", rf.datasets.load("bacteria"), family="binomial")

    class Core:
        def with_nodes(self, _nodes):
            raise ValueError("the mode of the random effects was not reached")

    object.__setattr__(m, "core", Core())
    with pytest.raises(NotAvailableError, match="no integral at this estimate: the mode"):
        rf.laplace_check(m, 3)


@pytest.mark.parametrize(("n", "improper"), [((1, 2), True), ((0, 1, 2, 3, 4, 5), False)])
def test_a_density_that_does_not_sum_to_one_is_named(n, improper):
    """Generalised Poisson below dispersion 1: the likelihood of (1, 2) exceeds that of a fair coin by e^65."""
    rng = np.random.default_rng(3)
    data = {"y": rng.choice(n, 200), "x": rng.normal(size=200), "g": np.arange(200) % 20}
    m = rf.fit("y ~ x + (1 | g)", data, family="genpois")
    assert ("improper_density" in [message.code for message in m.messages]) == improper
