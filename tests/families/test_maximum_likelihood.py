"""Fits without predictors against maxima that scipy finds or that have a closed form, in each family's parameters."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import optimize, special, stats

import ranef as rf

N = 400
RNG = np.random.default_rng(12)
UNIT = np.where(RNG.uniform(size=N) < 0.25, (RNG.uniform(size=N) < 0.3) * 1.0, RNG.beta(2.0, 3.0, N))
CLOSE = 2e-4  # scipy's simplex stops at 1e-4 in the parameters, ours where a step would gain 1e-9


def natural(m):
    """Estimates on their own scales: a mean first, the others by name."""
    family, beta = m.distribution, np.asarray(m.estimate.beta)
    return [float(family.link_of(c.name).inverse(beta[c.first])) for c in m.layout.components]


def ours(y, family):
    m = rf.fit("y ~ 1", {"y": y}, family=family)
    assert m.converged
    return m, natural(m)


def test_gamma_has_a_shape():
    y = RNG.gamma(2.5, 1.6, N)
    m, (mean, shape) = ours(y, "gamma")
    assert_allclose(mean, y.mean(), rtol=1e-6)
    s = np.log(y.mean()) - np.log(y).mean()
    assert_allclose(np.log(shape) - special.digamma(shape), s, rtol=1e-5)  # the score of the shape
    assert m.loglik == pytest.approx(stats.gamma.logpdf(y, shape, scale=mean / shape).sum(), abs=1e-8)


def test_inverse_gaussian_has_a_closed_form():
    y = stats.invgauss.rvs(0.8, scale=2.0, size=N, random_state=RNG)
    m, (mean, sigma) = ours(y, "inverse_gaussian")
    assert_allclose([mean, sigma**2], [y.mean(), np.mean(1 / y - 1 / y.mean())], rtol=1e-5)
    assert m.loglik == pytest.approx(stats.invgauss.logpdf(y, mean * sigma**2, scale=1 / sigma**2).sum(), abs=1e-7)


def test_weibull_by_its_mean():
    y = 1.7 * RNG.weibull(1.4, N)
    m, (mean, shape) = ours(y, "weibull")
    k, _, scale = stats.weibull_min.fit(y, floc=0)
    assert_allclose([shape, mean], [k, scale * special.gamma(1 + 1 / k)], rtol=CLOSE)
    assert m.loglik == pytest.approx(stats.weibull_min.logpdf(y, k, scale=scale).sum(), abs=1e-5)


def test_lognormal_by_its_mean_and_deviation():
    y = np.exp(RNG.normal(0.4, 0.6, N))
    m, (mean, sd) = ours(y, "lognormal")
    mu, s2 = np.log(y).mean(), np.log(y).var()
    assert_allclose([mean, sd], [np.exp(mu + s2 / 2), np.exp(mu + s2 / 2) * np.sqrt(np.expm1(s2))], rtol=1e-5)
    assert m.loglik == pytest.approx(stats.lognorm.logpdf(y, np.sqrt(s2), scale=np.exp(mu)).sum(), abs=1e-7)


def test_student_t_has_a_scale_and_degrees_of_freedom():
    y = 0.5 + 0.8 * RNG.standard_t(4, N)
    m, (mean, scale, nu) = ours(y, "student_t")
    found = stats.t.fit(y)
    assert m.loglik == pytest.approx(stats.t.logpdf(y, *found).sum(), abs=1e-4)
    assert_allclose([nu, mean, scale], found, rtol=5e-3, atol=1e-3)  # the simplex is rough in the degrees of freedom


def test_zero_one_inflated_beta_splits_into_three():
    """The shares of 0 and 1 and the beta inside are estimated apart: brms's zoi and coi."""
    m, (mean, phi, zoi, coi) = ours(UNIT, "zero_one_inflated_beta")
    ends, inside = (UNIT == 0) | (UNIT == 1), UNIT[(UNIT > 0) & (UNIT < 1)]
    assert_allclose([zoi, coi], [ends.mean(), (UNIT[ends] == 1).mean()], rtol=1e-5)
    b, _ = ours(inside, "beta")
    assert_allclose([mean, phi], natural(b), rtol=1e-4)
    shares = ends.sum() * np.log(zoi) + (~ends).sum() * np.log1p(-zoi)
    shares += (UNIT == 1).sum() * np.log(coi) + (UNIT == 0).sum() * np.log1p(-coi)
    assert m.loglik == pytest.approx(b.loglik + shares, abs=1e-6)
    assert_allclose(m.fitted()[0], zoi * coi + (1 - zoi) * mean, rtol=1e-10)


def test_ordered_beta_without_predictors_is_the_same_model():
    """One location and two cutpoints are as many parameters: the likelihoods agree (Kubinec 2023)."""
    z, _ = ours(UNIT, "zero_one_inflated_beta")
    m, (mean, phi, low, high) = ours(UNIT, "ordered_beta")
    assert m.loglik == pytest.approx(z.loglik, abs=1e-6)
    eta = special.logit(mean)
    assert_allclose(special.expit(low - eta), (UNIT == 0).mean(), rtol=1e-4)
    assert_allclose(special.expit(eta - high), (UNIT == 1).mean(), rtol=1e-4)
    assert_allclose(phi, natural(z)[1], rtol=1e-3)


def test_skew_normal_by_its_mean_and_deviation():
    y = stats.skewnorm.rvs(4.0, size=N, random_state=RNG)
    m, (mean, sd, alpha) = ours(y, "skew_normal")
    delta = alpha / np.sqrt(1 + alpha**2)
    scale = sd / np.sqrt(1 - 2 * delta**2 / np.pi)
    start = [alpha, mean - scale * delta * np.sqrt(2 / np.pi), scale]
    objective = lambda p: -stats.skewnorm.logpdf(y, p[0], p[1], p[2]).sum()  # noqa: E731
    assert m.loglik == pytest.approx(-objective(start), abs=1e-8)
    assert m.loglik == pytest.approx(-optimize.minimize(objective, start, method="Nelder-Mead").fun, abs=1e-5)
