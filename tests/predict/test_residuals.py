"""Residual types."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import ranef as rf
from engines import zoo
from ranef.diagnose.residuals import TYPES
from ranef.errors import NotAvailableError, OptionError


@pytest.fixture(scope="module")
def m():
    return rf.fit("y ~ x + (1 | g)", zoo.data(), precision_weights="w")


def test_types(m):
    raw = m.residuals()
    root = np.sqrt(zoo.data()["w"].to_numpy())
    assert_allclose(raw, zoo.data()["y"] - m.fitted())
    assert_allclose(m.residuals("pearson"), root * raw)
    assert_array_equal(m.residuals("deviance"), m.residuals("pearson"))
    assert_allclose(m.residuals("scaled"), root * raw / m.sigma)
    assert_array_equal(m.residuals("quantile"), m.residuals("scaled"))
    assert_allclose(m.residual_quantiles, np.quantile(m.residuals("scaled"), [0, 0.25, 0.5, 0.75, 1]))


@pytest.mark.parametrize("name", TYPES)
def test_every_type_is_aligned(m, name):
    assert m.residuals(name).shape == (60,)
    assert_array_equal(m.residuals(name, align="input"), m.residuals(name))


def test_pearson_as_lme4():
    m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"), method="ml")
    theirs = [-4.66078814060157, -15.0589080599684, -42.5058279793352, 8.59055210129799]  # lme4 1.1-31
    assert_allclose(m.residuals("pearson")[:4], theirs, rtol=1e-4)


def test_pearson_of_a_gamma_as_glmmtmb():
    m = rf.fit("Reaction ~ poly(Days, 2) + (1 | Subject)", rf.datasets.load("sleepstudy"), family="gamma")
    theirs = [-0.139573540904145, -0.133186550504009, -0.18442863149813, 0.0131521293808365]  # glmmTMB 1.1.5
    assert_allclose(m.residuals("pearson")[:4], theirs, atol=1e-6)  # its gradient there was 6e-4
    assert_allclose(m.residuals("scaled"), m.residuals("pearson") / m.sigma, rtol=1e-12)


@pytest.mark.parametrize(("family", "power"), [("gamma", 1), ("inverse.gaussian", 1.5), ("exponential", 1)])
def test_pearson_leaves_sigma_in(family, power):
    m = rf.fit("Reaction ~ Days + (1 | Subject)", rf.datasets.load("sleepstudy"), family=family)
    assert_allclose(m.residuals("pearson"), m.residuals() / m.fitted() ** power, rtol=1e-10)


@pytest.mark.parametrize(
    ("response", "arguments", "slope"),
    [
        ("incidence", {"family": "poisson"}, lambda mu: mu),
        ("incidence", {"family": "poisson", "link": "sqrt"}, lambda mu: 2 * np.sqrt(mu)),
        ("cbind(incidence, size - incidence)", {"family": "binomial"}, lambda mu: mu * (1 - mu)),
        ("size", {"family": "gaussian"}, np.ones_like),
    ],
)
def test_working_residuals_are_those_of_the_predictor(response, arguments, slope):
    m = rf.fit(f"{response} ~ period + (1 | herd)", rf.datasets.load("cbpp"), **arguments)
    assert_allclose(m.residuals("working"), m.residuals() / slope(m.fitted()), rtol=1e-12)


def test_working_residuals_take_one_predictor():
    m = rf.fit("count ~ mined", rf.datasets.load("Salamanders"), family="poisson", zero_inflation="~ 1")
    for kind in ("working", "deviance"):
        with pytest.raises(NotAvailableError, match=r"zero-inflated poisson has no .*'quantile' or 'pearson'"):
            m.residuals(kind)


def test_refuses(m):
    with pytest.raises(OptionError, match="did you mean 'pearson'"):
        m.residuals("pearsons")


@pytest.mark.parametrize("family", ["binomial", "poisson"])
@pytest.mark.parametrize("name", ["pearson", "deviance", "scaled"])
def test_rows_that_are_certain_are_no_surprise(name, family):
    """A mean that is the response to the last digit, as under separation, leaves 0 / 0, whose limit is 0."""
    rng = np.random.default_rng(1)
    sure = np.arange(60) % 6 == 0
    data = {"y": np.where(sure, 0, rng.integers(0, 2, 60)), "g": np.repeat(np.arange(10), 6), "o": -1000.0 * sure}
    m = rf.fit("y ~ 1 + offset(o) + (1 | g)", data, family=family)
    assert_array_equal(m.fitted() == 0, sure)
    assert_array_equal(m.residuals(name)[sure], 0)
    assert np.isfinite(m.residuals(name)).all()
