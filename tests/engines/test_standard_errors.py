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


def differences(m, step=1e-3):
    """Minus the Hessian of the log-likelihood by central differences of its gradient, steps in standard errors."""
    at, p = np.concatenate([m.estimate.beta, m.theta]), len(m.estimate.beta)
    error = np.sqrt(np.diag(m.estimate.joint()))
    out = []
    for change in np.diag(np.minimum(step * error, step)):
        up, down = (np.asarray(m.core.evaluate((at + d)[:p], (at + d)[p:])["gradient"]) for d in (change, -change))
        out.append((down - up) / (2 * change.sum()))
    return (np.array(out) + np.array(out).T) / 2


@pytest.mark.parametrize("seed", [5, 8, 10])
def test_the_covariance_is_the_inverse_hessian_beside_a_residual(seed):
    # The working curvature of these models is not positive definite, and must not be mended in the exact Hessian.
    m = rf.fit("y ~ x + ar1(t + 0 | id)", process(seed), method="ml")
    # Central differences with steps of 1e-3 standard errors; what trades has eigenvalues of 1e-2.
    assert_allclose(np.sqrt(np.diag(m.estimate.joint())), np.sqrt(np.diag(np.linalg.inv(differences(m)))), rtol=2e-4)


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
