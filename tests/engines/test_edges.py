"""Fits that end at an edge: huge responses, parameters at limits of their range, shared effects at poles."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import ranef as rf

quiet = pytest.mark.filterwarnings("ignore::ranef.errors.ConvergenceWarning")


def errors(m):
    return np.sqrt(np.diag(np.asarray(m.vcov())))


@pytest.mark.parametrize("seed", [4, 8])
def test_huge_counts_beside_a_variance_of_zero_have_their_errors(seed):
    """Rounding errors of counts of 10^7 hide what a step to the mode gains: there were no errors."""
    rng = np.random.default_rng(seed)
    g, x = np.repeat(np.arange(30), 10), rng.normal(size=300)
    m = rf.fit("y ~ x + (1 | g)", {"y": rng.poisson(np.exp(16 + 0.3 * x)), "x": x, "g": g}, family="poisson")
    assert m.converged
    assert m.boundary
    design = np.column_stack([np.ones(300), x])
    weights = np.exp(design @ m.estimate.beta)
    exact = np.linalg.inv(design.T @ (weights[:, None] * design))
    # Differences of the gradient: their error is of the order of the step, 3e-4 standard errors, squared.
    assert_allclose(errors(m), np.sqrt(np.diag(exact)), rtol=1e-4)


@pytest.mark.parametrize("seed", [14, 21, 44])
def test_a_dispersion_at_its_limit_does_not_shorten_the_way_of_the_others(seed):
    """The most dispersed Conway-Maxwell-Poisson counts are geometric ones: negative binomial of size 1."""
    rng = np.random.default_rng(seed)
    groups, times = [5, 8, 12, 20][seed % 4], [3, 5, 8][seed % 3]
    g, x = np.repeat(np.arange(groups), times), rng.normal(size=groups * times)
    mu, size = np.exp([0, 1, 2][seed // 4 % 3] + 0.3 * x), [0.3, 0.6, 1.0][seed // 7 % 3]
    data = {"y": rng.negative_binomial(size, size / (size + mu)), "x": x, "g": g}
    m = rf.fit("y ~ x + (1 | g)", data, family="compois")
    limit = rf.fit("y ~ x + (1 | g)", data, family="nbinom2", fixed={"dispersion": 1.0})
    assert m.converged
    # The dispersion stops within exp(-15) of its limit, which moves the log-likelihood in proportion.
    assert_allclose(m.loglik, limit.loglik, atol=1e-5)
    assert_allclose(m.estimate.beta[:2], limit.estimate.beta[:2], atol=1e-4)
    assert_allclose(errors(m), errors(limit), rtol=1e-3)


def shared(seed, zeros=0.0, size=None):
    """Counts of 20 groups of ten."""
    rng = np.random.default_rng(1000 + seed)
    g, x = np.repeat(np.arange(20), 10), rng.normal(size=200)
    mu = np.exp(1 + 0.3 * x + 0.4 * rng.normal(size=20)[g])
    y = rng.poisson(mu) if size is None else rng.negative_binomial(size, size / (size + mu))
    return {"y": y if zeros == 0 else y * (rng.uniform(size=200) > zeros), "x": x, "g": g}


POLES = {
    "zero inflation of none": (shared(7), "poisson", {"zero_inflation": "(1 |id| g)"}),
    "dispersion at its limit": (shared(14), "nbinom2", {"dispersion": "(1 |id| g)"}),
    "no place to begin": (shared(8), "nbinom2", {"dispersion": "(1 |id| g)"}),
    "both": (shared(2, 0.2, 2), "nbinom2", {"dispersion": "(1 |id| g)", "zero_inflation": "(1 |id| g)"}),
}


@quiet
@pytest.mark.parametrize("case", POLES)
def test_effects_that_components_share_leave_a_pole_for_the_mean_alone(case):
    """What the data say of the mean, they say without the effects that have no estimate."""
    data, family, others = POLES[case]
    m = rf.fit("y ~ x + (1 |id| g)", data, family=family, **{k: f"~ 1 + {v}" for k, v in others.items()})
    without = rf.fit("y ~ x + (1 | g)", data, family=family, **dict.fromkeys(others, "~ 1"))
    assert m.converged or m.certificate.outcome.name == "flat_mode"
    assert m.loglik == pytest.approx(without.loglik, abs=1e-6)  # the tolerance of two searches
    # The same Hessian by differences, or at two optima 1e-6 apart in log-likelihood.
    assert_allclose(errors(m), errors(without), rtol=1e-3)
    pole = next((n.text for n in m.messages if n.code == "pole"), "")
    assert m.converged or all(name in pole for name in others)


def test_short_steps_are_no_certificate():
    """Beside a pole every step is rejected until it promises nothing: that was once taken for an optimum."""
    data = shared(1, 0.2, 2)
    with pytest.warns(rf.errors.ConvergenceWarning):
        m = rf.fit("y ~ x + (1 | g)", data, family="nbinom2", zero_inflation="~ 1 + (1 | g)")
    assert not m.converged
    assert np.isfinite(errors(m)).all()


@quiet
def test_a_power_at_its_limit_leaves_the_errors_of_the_poisson():
    """A row of zeros in the Hessian, of a power that went to 1, spread to all standard errors."""
    rng = np.random.default_rng(9)
    data = {"g": np.repeat(np.arange(20), 5), "x": rng.normal(size=100), "y": rng.poisson(2, 100).astype(float)}
    m = rf.fit("y ~ x + (1 | g)", data, family="tweedie")
    poisson = rf.fit("y ~ x + (1 | g)", data, family="poisson")
    notes = {n.code for n in m.messages}
    assert "power_at_1" in notes
    assert "without_information" not in notes
    # The Tweedie of a power of 1 + 1e-6 and a dispersion of 1.
    assert_allclose(errors(m)[:2], errors(poisson), rtol=1e-3)


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("beside", ["", " + (1 | id)"])
def test_a_given_covariance_that_is_more_than_there_is(method, beside):
    """Nothing is left of the residual, and a structure without parameters has none to begin with."""
    rng = np.random.default_rng(0)
    at = np.repeat(np.arange(20), 4)
    y = 0.5 * rng.normal(size=20)[at] + 0.3 * rng.normal(size=80)
    data = {"id": at.astype(str), "f": np.tile(list("abcd"), 20), "y": y}
    formula = f"y ~ 1 + equalto(0 + f | id){beside}"
    m = rf.fit(formula, data, cov={"f": (np.eye(4), list("abcd"))}, method=method)
    assert m.sigma < 1e-4
    if method == "ml":
        assert m.loglik == pytest.approx(stats.norm.logpdf(y, y.mean()).sum(), abs=1e-6)
    # Of independent effects of variance 1.
    assert m.tidy()["std_error"].iloc[0] == pytest.approx(80**-0.5, rel=1e-4)
