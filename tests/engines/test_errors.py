"""Standard errors of generalised models beside differences of higher order, and the same for any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import ranef as rf

STEP = 5e-3  # standard errors: the sixth-order rule leaves 1e-16 of the seventh derivative, rounding about 1e-8


def data(seed=11, n=240, groups=24):
    rng = np.random.default_rng(seed)
    g, x, far = rng.integers(0, groups, n), rng.normal(size=n), 50 + rng.normal(size=n)
    b = rng.multivariate_normal([0, 0], [[0.5, 0.15], [0.15, 0.3]], size=groups)[g]
    eta = 0.3 + 0.5 * x + b[:, 0] + b[:, 1] * (far - 50) + 0.4 * np.sin(np.arange(n) % 11)
    size = rng.integers(1, 8, n).astype(float)
    p = 1 / (1 + np.exp(-eta))
    return {
        "g": g.astype(str), "h": (np.arange(n) % 7).astype(str),
        "side": np.where(np.arange(n) % 2, "l", "r"), "room": (np.arange(n) % 11).astype(str),
        "x": x, "far": far, "size": size,
        "half": np.char.add(g.astype(str), np.where(x > 0, "a", "b")),
        "count": rng.poisson(np.exp(eta)).astype(float),
        "over": rng.poisson(np.exp(eta) * rng.gamma(2.0, 0.5, size=n) * (rng.uniform(size=n) > 0.2)).astype(float),
        "share": rng.binomial(size.astype(int), p) / size,
        "time": rng.gamma(3.0, np.exp(eta) / 3.0),
        "grade": np.digitize(eta + rng.logistic(size=n), [-0.5, 0.5, 1.5]).astype(float),
    }  # fmt: skip


DATA = data()
CASES = {
    "slopes of a column far from zero": ("count ~ x + far + (far | g)", {"family": "poisson"}),
    "crossed": ("count ~ x + (1 | g) + (1 | room)", {"family": "poisson"}),
    "dispersion": ("over ~ x + (1 | g)", {"family": "nbinom2", "dispersion": "~ x"}),
    "zero-inflated": ("over ~ x + (1 | g)", {"family": "poisson", "zero_inflation": "~ 1"}),
    "structure": ("count ~ x + cs(h + 0 | g)", {"family": "poisson"}),
    "ordinal": ("grade ~ x + (1 | g)", {"family": "cumulative"}),
    "quadrature": ("share ~ x + (1 | g)", {"family": "binomial", "trials": "size", "quadrature": 7}),
    "quadrature of two effects": ("over ~ x + (side + 0 | g)", {"family": "poisson", "quadrature": 5}),
    "nested quadrature": ("over ~ x + (1 | g/half)", {"family": "poisson", "quadrature": 5}),
    "quadrature, many columns": ("share ~ h * x + (1 | g)", {"family": "binomial", "trials": "size", "quadrature": 5}),
}


def hessian(m):
    """Second derivatives of -loglik in (beta, theta) from a rule of the sixth order on the exact gradient."""
    at = np.concatenate([m.estimate.beta, m.estimate.theta])
    p = len(m.estimate.beta)
    steps = STEP * np.sqrt(np.diagonal(m.estimate.joint()))
    out = np.zeros((len(at), len(at)))
    for j, step in enumerate(steps):
        for k, weight in ((1, 3 / 4), (2, -3 / 20), (3, 1 / 60)):
            for sign in (1, -1):
                there = at.copy()
                there[j] += sign * k * step
                gradient = m.core.evaluate(there[:p].tolist(), there[p:].tolist())["gradient"]
                out[:, j] -= sign * weight * np.asarray(gradient) / step
    return (out + out.T) / 2


@pytest.mark.parametrize("case", CASES, ids=list(CASES))
def test_covariance_is_the_inverse_of_the_hessian(case):
    formula, arguments = CASES[case]
    m = rf.fit(formula, DATA, **arguments)
    assert not m.boundary
    found = np.sqrt(np.diagonal(m.estimate.joint()))
    # Central differences with steps of 3e-4 leave 1e-7 of the third derivative of the gradient, up to 12 here.
    assert_allclose(found, np.sqrt(np.diagonal(np.linalg.inv(hessian(m)))), rtol=2e-6)


def test_asking_leaves_the_core_at_the_fit():
    m = rf.fit("count ~ x + (1 | g) + (1 | room)", DATA, family="poisson")
    before = [m.core.cond_cov(t) for t in range(2)]
    _ = m.estimate.vcov
    for t in range(2):
        assert_array_equal(m.core.cond_cov(t), before[t])


@pytest.mark.parametrize("quadrature", [1, 5])
def test_threads_change_nothing(quadrature):
    many = {name: np.concatenate([column] * 30) for name, column in DATA.items()}
    call = {"family": "binomial", "trials": "size", "quadrature": quadrature}
    one, three = (rf.fit("share ~ x + far + (1 | g)", many, threads=k, **call) for k in (1, 3))
    assert_array_equal(one.estimate.vcov, three.estimate.vcov)
