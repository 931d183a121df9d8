"""The engine's covariance of (beta, theta): against difference quotients, and at the limits of what a model can be."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import ranef as rf

GROUPS, TIMES = 25, 5


def process(seed: int) -> pd.DataFrame:
    """Autoregressive effects with x correlated with them, beside a residual."""
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(0.5 ** np.abs(np.subtract.outer(range(TIMES), range(TIMES))))
    b = (0.8 * rng.normal(size=(GROUPS, TIMES)) @ root.T).ravel()
    x = rng.normal(size=len(b)) + 0.5 * b
    y = 0.2 * x + b + 0.6 * rng.normal(size=len(b))
    labels = {"t": [f"t{i}" for i in range(TIMES)] * GROUPS, "id": np.repeat([f"s{i}" for i in range(GROUPS)], TIMES)}
    return pd.DataFrame({"y": y, "x": x, **labels})


def numbered(seed: int) -> pd.DataFrame:
    """The same with the times as numbers."""
    data = process(seed)
    return data.assign(time=data["t"].str[1:].astype(float))


def differences(m, step=1e-2):
    """Minus the Hessian of the log-likelihood by differences of its gradient (of fourth order, in standard errors)."""
    at, p = np.concatenate([m.estimate.beta, m.theta]), len(m.estimate.beta)
    error = np.sqrt(np.diag(m.estimate.joint()))

    def slope(change):
        up, down = (np.asarray(m.core.evaluate((at + d)[:p], (at + d)[p:])["gradient"]) for d in (change, -change))
        return (down - up) / (2 * change.sum())

    changes = np.diag(np.minimum(step * error, step))
    out = np.array([(4 * slope(change / 2) - slope(change)) / 3 for change in changes])
    return (out + out.T) / 2


def agree(m, rtol):
    assert_allclose(np.sqrt(np.diag(m.estimate.joint())), np.sqrt(np.diag(np.linalg.inv(differences(m)))), rtol=rtol)


@pytest.mark.parametrize("seed", [5, 8, 10])
def test_the_covariance_is_the_inverse_hessian_beside_a_residual(seed):
    # The working curvature of these models is not positive definite, and must not be mended in the exact Hessian.
    m = rf.fit("y ~ x + ar1(t + 0 | id)", process(seed), method="ml")
    agree(m, 1e-5)  # what trades has eigenvalues of 1e-2, so that differences lose as much


def test_the_covariance_beside_a_residual_that_is_next_to_nothing():
    # Rows know 1e8 times as much as effects leave of it: rounding errors grow with it, and so do the steps.
    agree(rf.fit("y ~ x + mat(numFactor(time) + 0 | id)", numbered(3), method="ml", dispersion=0), 2e-5)


def test_the_covariance_of_loadings_of_different_sizes():
    # Columns of 100, 1 and 0.01 have loadings as 0.01, 1 and 100: what is far for one is next to nothing for another.
    rng = np.random.default_rng(2)
    g, x = np.repeat(np.arange(40), 12), rng.normal(size=(480, 2))
    size = rng.normal(size=40)
    y = rng.poisson(np.exp(0.5 + 0.5 * size[g] * (1 + 0.5 * x[:, 0] - 0.4 * x[:, 1])))
    data = pd.DataFrame({"y": y, "a": 100 * x[:, 0], "b": 0.01 * x[:, 1], "g": g})
    m = rf.fit("y ~ a + b + rr(1 + a + b | g, 1)", data, family="poisson")
    agree(m, 1e-5)  # a step of 3e-4 of a parameter's size, squared, times what a fourth derivative may be


def restricted(m, data, scale) -> float:
    """The restricted log-likelihood of y = X beta + b, b of the covariance of a fit, by dense matrices."""
    times, ids = (np.unique(data[c], return_inverse=True)[1] for c in ("t", "id"))
    cov = m.estimate.covariances[0][np.ix_(times, times)] * (ids[:, None] == ids) + m.sigma**2 * np.eye(len(data))
    root = np.linalg.cholesky(cov)
    both = np.linalg.solve(root, np.column_stack([np.ones(len(data)), data["x"], scale * data["y"]]))
    x, y = both[:, :2], both[:, 2]
    rest = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    logdet = 2 * np.log(np.diag(root)).sum() + np.linalg.slogdet(x.T @ x)[1]
    return -0.5 * (logdet + rest @ rest + (len(y) - 2) * np.log(2 * np.pi))


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
def test_restricted_likelihood_without_residual(scale):
    # X'V^-1X is what is left of numbers 1e8 to 1e14 times as large, which a difference does not give.
    data = process(3)
    m = rf.fit("y ~ x + ar1(t + 0 | id)", data.assign(y=scale * data["y"]), method="reml", dispersion=0)
    assert_allclose(m.loglik, restricted(m, data, scale), rtol=1e-11)


def test_restricted_likelihood_beside_a_variance_that_is_aliased():
    rng = np.random.default_rng(2)
    data = {"g": np.repeat(list("ab"), 30), "x": rng.normal(size=60), "k": np.tile(list("uv"), 30)}
    data["y"] = data["x"] + (data["g"] == "b") + rng.normal(size=60) * np.where(data["k"] == "u", 1.0, 2.0)
    m = rf.fit("y ~ x + g + (1 | g)", data, dispersion="~ k", method="reml")
    plain = rf.fit("y ~ x + g", data, dispersion="~ k", method="reml")
    assert m.varcorr()["g"].sd[0] == 0
    # The variance of g is not identified; at 0 the model is the one without it, to the search's tolerance.
    assert_allclose(np.diag(m.estimate.vcov), np.diag(plain.estimate.vcov), rtol=1e-4)
    assert_allclose(m.tidy()["std_error"], plain.tidy()["std_error"], rtol=1e-4)


def test_a_dispersion_at_its_limit_leaves_the_others_their_errors():
    # A random effect for every row takes all of the dispersion of proportions: beta's precision runs to infinity.
    rng = np.random.default_rng(4)
    rows = np.arange(180)
    x = rng.normal(size=180)
    eta = 0.4 * x + rng.normal(size=60)[rows % 60] * 0.7 + 0.9 * rng.normal(size=180)
    data = {"y": 1 / (1 + np.exp(-eta)), "x": x, "row": rows, "g": rows % 60}
    m = rf.fit("y ~ x + (1 | g) + (1 | row)", data, family="beta")
    assert m.converged
    normal = rf.fit("z ~ x + (1 | g)", {**data, "z": eta}, method="ml")
    # In the limit logit(y) is normal: its linear model has the same coefficients, errors up to those of the search.
    assert_allclose(m.params, normal.params, rtol=1e-3)
    assert_allclose(m.tidy()["std_error"][:2], normal.tidy()["std_error"][:2], rtol=5e-3)
    # And its likelihood, that of y itself: rounding errors decide where the precision ends, at 1e-5 at most.
    y = np.asarray(data["y"])
    assert m.loglik == pytest.approx(normal.loglik - np.log(y * (1 - y)).sum(), abs=1e-5)


@pytest.mark.parametrize("method", ["ml", "reml"])
def test_coefficients_keep_their_errors_where_the_residual_is_absorbed(method):
    """Homogeneous Toeplitz correlations and a residual have one parameter too many, which no coefficient follows."""
    data = rf.datasets.load("Orthodont")
    m = rf.fit("distance ~ age + homtoep(age + 0 | Subject)", data, method=method)
    without = rf.fit("distance ~ age + homtoep(age + 0 | Subject)", data, method=method, dispersion=0)
    assert_allclose(m.loglik, without.loglik, atol=1e-5)  # its residual variance is next to nothing, not nothing
    assert_allclose(m.tidy()["std_error"][:2], without.tidy()["std_error"][:2], rtol=1e-4)
