"""Averages over the random effects, predict(re="integrate"), for every kind of family."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import ranef as rf
from ranef.families import Data
from ranef.predict.rows import law

N = 200
CASES = {
    "nbinom1": ("count", {"family": "nbinom1"}),
    "gamma": ("time", {"family": "gamma", "link": "log"}),
    "beta": ("unit", {"family": "beta"}),
    "tweedie": ("mass", {"family": "tweedie"}),
    "gaussian log": ("time", {"link": "log"}),
    "cumulative": ("grade", {"family": "cumulative"}),
}


def data():
    rng = np.random.default_rng(5)
    g, x = np.arange(N) % 20, rng.normal(size=N)
    eta = 0.5 + 0.4 * x + 0.7 * rng.normal(size=20)[g]
    p = 1 / (1 + np.exp(-eta))
    return {
        "x": x, "g": g, "count": rng.poisson(np.exp(eta) * rng.gamma(2.0, 0.5, size=N)).astype(float),
        "time": rng.gamma(3.0, np.exp(eta) / 3), "mass": rng.gamma(2.0, np.exp(eta) / 2) * (rng.uniform(size=N) > 0.2),
        "unit": rng.beta(5 * p, 5 * (1 - p)),
        "grade": np.digitize(eta + rng.logistic(size=N), [-0.5, 1.0]).astype(float),
    }  # fmt: skip


DATA = data()


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_mean_of_what_is_predicted_for_drawn_effects(name):
    y, arguments = CASES[name]
    m = rf.fit(f"{y} ~ x + (1 | g)", DATA, **arguments)
    new = {"x": DATA["x"][:3]}
    eta = np.asarray(m.predict(new, re="none", type="link"))
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    sd = float(next(iter(m.varcorr().values())).sd[0])
    others = [m.estimate.beta[c.first] for c in m.layout.components[1:] if c.name != "threshold"]
    if name == "cumulative":
        others += m.estimate.beta[m.layout.component("threshold").at].tolist()
    expected = 0.0
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        rows = np.column_stack([eta + sd * node, *(np.full(3, v) for v in others)])
        expected = expected + weight * law(m).mean(rows, Data(np.zeros(3)))
    # Two Gauss-Hermite rules, 41 and 60 nodes, on smooth functions.
    assert_allclose(m.predict(new, re="integrate"), expected, rtol=1e-8)
    if name == "cumulative":
        shares = np.column_stack(list(dict(m.predict(new, re="integrate", type="probs")).values()))
        assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-12)
