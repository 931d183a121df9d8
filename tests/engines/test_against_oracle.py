"""The sparse engine beside the dense oracle, which works from the marginal distribution and shares nothing with it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import oracle
from engines import zoo
from ranef import _core
from ranef.engines import linear

IDS = [f"{name}{'_weighted' if weighted else ''}" for name, weighted in zoo.CASES]


@pytest.fixture(scope="module", params=zoo.CASES, ids=IDS)
def engines(request):
    design = zoo.design(*request.param)
    return design, _core.Lmm(*zoo.arguments(design)), oracle.DenseLmm(*zoo.arguments(design))


@pytest.fixture(scope="module", params=[True, False], ids=["reml", "ml"])
def fits(request, engines):
    design, sparse, dense = engines
    return design, sparse, dense, sparse.fit(request.param, None, {}), dense.fit(request.param), request.param


def interior_theta(design, seed):
    rng = np.random.default_rng(seed)
    lower = linear.theta_lower(design.terms)
    return np.where(np.isfinite(lower), rng.uniform(0.3, 1.5, len(lower)), rng.normal(size=len(lower)) / 2)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("seed", [1, 2])
def test_criterion_and_gradient_anywhere(engines, seed, reml):
    design, sparse, dense = engines
    theta = interior_theta(design, seed)
    ours, theirs = sparse.evaluate(theta, reml), dense.evaluate(theta, reml)
    # Both sum 60 rows exactly up to rounding: 1e-9 of a criterion of some hundreds leaves four digits to conditioning.
    for key in ("criterion", "sigma", "pwrss", "beta"):
        assert_allclose(ours[key], theirs[key], rtol=1e-9, atol=1e-10, err_msg=key)
    assert_allclose(ours["gradient"], theirs["gradient"], rtol=1e-7, atol=1e-7)


def test_reaches_the_same_optimum(fits):
    *_, ours, theirs, _ = fits
    assert ours["outcome"] == "converged"
    # The criterion is flat at its minimum: 1e-7 in it is the square root in theta, hence 1e-4 below.
    assert ours["criterion"] <= theirs["criterion"] + 1e-7
    assert_allclose(ours["criterion"], theirs["criterion"], atol=1e-6)


def test_estimates(fits):
    *_, ours, theirs, _ = fits
    for key in ("beta", "vcov", "sigma", "pwrss"):
        assert_allclose(ours[key], theirs[key], rtol=1e-4, atol=1e-5, err_msg=key)
    for a, b in zip(ours["lambda"], theirs["lambda"], strict=True):
        assert_allclose(a @ a.T, b @ b.T, rtol=1e-3, atol=1e-4)
    for a, b in zip(ours["b"], theirs["b"], strict=True):
        assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_dropped_columns(engines):
    _, sparse, dense = engines
    assert (sparse.n, sparse.p, sparse.rank) == (dense.n, dense.p, dense.rank)
    assert list(sparse.dropped) == dense.dropped


@pytest.fixture(scope="module", params=[True, False], ids=["reml", "ml"])
def at_one_theta(request, engines):
    """Both engines at one interior theta, so that what follows is compared without an optimiser in between."""
    design, sparse, dense = engines
    theta, reml = interior_theta(design, 3), request.param
    sigma = sparse.evaluate(theta, reml)["sigma"]
    dense.fit(reml, theta, {"max_evaluations": 1})
    return design, sparse, dense, theta, sigma, reml


def test_conditional_covariance(at_one_theta):
    design, sparse, dense, *_ = at_one_theta
    for t in range(len(design.terms)):
        assert_allclose(sparse.cond_cov(t), dense.cond_cov(t), rtol=1e-8, atol=1e-10)


def test_variance_of_predictions(at_one_theta):
    design, sparse, dense, *_ = at_one_theta
    fixed, terms, *_ = zoo.arguments(design)
    rng = np.random.default_rng(4)
    unseen = [(np.where(rng.random(design.n) < 0.3, -1, c).astype(c.dtype), *rest) for c, *rest in terms]
    for which in ([True] * len(terms), [False] * len(terms), [t == 0 for t in range(len(terms))]):
        ours = sparse.predict_var(fixed, unseen, design.n, which)
        assert_allclose(ours, dense.predict_var(fixed, unseen, design.n, which), rtol=1e-8, atol=1e-10)


def test_hessian(at_one_theta):
    *_, sparse, dense, theta, sigma, reml = at_one_theta
    ours, theirs = sparse.hessian(theta, sigma, reml), dense.hessian(theta, sigma, reml)
    # Central differences of exact gradients, relative error about 1e-7 of the largest entry.
    assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6 * np.abs(theirs).max())


def test_derivative_of_the_covariance_of_beta(at_one_theta):
    *_, sparse, dense, theta, sigma, reml = at_one_theta
    slopes, *_ = sparse.satterthwaite(theta, sigma, reml, 0.0)
    assert_allclose(slopes, dense.vcov_jacobian(theta, sigma, reml), rtol=1e-7, atol=1e-9)


def test_gradient_is_a_difference_quotient(engines):
    design, sparse, _ = engines
    theta, h = interior_theta(design, 5), 1e-5
    gradient = sparse.evaluate(theta, True)["gradient"]
    for i, e in enumerate(np.eye(len(theta))):
        up, down = (sparse.evaluate(theta + s * h * e, True)["criterion"] for s in (1, -1))
        assert gradient[i] == pytest.approx((up - down) / (2 * h), rel=1e-6, abs=1e-6)


def test_saved_moments_give_the_same_answers(fits):
    _, sparse, _, ours, _, reml = fits
    again = _core.Lmm.from_state(sparse.moments_state())
    at = again.evaluate(ours["theta"], reml)
    assert at["criterion"] == pytest.approx(ours["criterion"], abs=1e-9)
    assert_allclose(at["beta"], ours["beta"], rtol=1e-10, atol=1e-12)


def test_many_responses_equal_one_at_a_time(engines):
    design, sparse, _ = engines
    fixed, terms, y, weights, offset, _ = zoo.arguments(design)
    responses = np.asfortranarray(np.column_stack([y, y[::-1], y**2]))
    found = sparse.refit(responses, fixed, terms, weights, offset, True, {})
    for record, column in zip(found, responses.T, strict=True):
        alone = _core.Lmm(fixed, terms, column.copy(), weights, offset, 0).fit(True, None, {})
        # Both stop where one more step would change the criterion by less than 1e-9; near a boundary by some more.
        assert record["criterion"] == pytest.approx(alone["criterion"], abs=1e-6)
        assert_allclose(record["beta"], alone["beta"], rtol=1e-4, atol=1e-6)
