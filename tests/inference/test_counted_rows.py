"""A row of frequency w stands for w equal rows, in every function of a fit that counts rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ranef as rf

MODELS = {
    "gaussian": ("y ~ x * f + (1 | g)", {"method": "ml"}),
    "poisson": ("c ~ x + f + (1 | g)", {"family": "poisson"}),
    "binomial": ("b ~ x + (1 | g)", {"family": "binomial"}),
}
# Optima of two codings of one likelihood agree to about the square root of the search's tolerance.
CLOSE = {"rtol": 2e-4, "atol": 1e-6}


@pytest.fixture(scope="module")
def data():
    noise = np.random.default_rng(3)
    g = np.repeat(np.arange(12), 6)
    x, u = noise.normal(size=72), noise.normal(size=12)[g]
    out = pd.DataFrame({"g": g.astype(str), "x": x, "f": noise.choice(list("abc"), 72)})
    return out.assign(
        y=1 + 0.5 * x + u + noise.normal(size=72),
        c=noise.poisson(np.exp(0.3 + 0.3 * x + 0.5 * u)),
        b=(noise.random(72) < 1 / (1 + np.exp(-0.6 * x - u))).astype(float),
        w=noise.integers(1, 4, 72),
    )


@pytest.fixture(scope="module")
def pairs(data):
    rows = data.loc[np.repeat(data.index, data["w"])].reset_index(drop=True)
    return {
        name: (rf.fit(formula, data, frequency_weights="w", **more), rf.fit(formula, rows, **more))
        for name, (formula, more) in MODELS.items()
    }


@pytest.mark.parametrize("name", ["poisson", "binomial"])
def test_conditional_aic(pairs, name):
    counted, repeated = (rf.caic(m) for m in pairs[name])
    np.testing.assert_allclose([counted.caic, counted.df], [repeated.caic, repeated.df], **CLOSE)


@pytest.mark.parametrize("name", MODELS)
def test_partial_r2(pairs, name):
    counted, repeated = (rf.partial_r2(m)["r2"] for m in pairs[name])
    np.testing.assert_allclose(counted, repeated, **CLOSE)


@pytest.mark.parametrize("name", ["poisson", "binomial"])
@pytest.mark.parametrize("kind", ["CR0", "CR1S", "CR2", "CR3"])
def test_robust_covariances(pairs, name, kind):
    counted, repeated = (rf.robust(m, kind) for m in pairs[name])
    for column in ("std_error", "df"):
        np.testing.assert_allclose(counted[column], repeated[column], **CLOSE)


@pytest.mark.parametrize("ddf", ["between-within", "residual", "inner-outer"])
@pytest.mark.parametrize("name", MODELS)
def test_degrees_of_freedom_by_rules(pairs, name, ddf):
    counted, repeated = (m.tidy(ddf=ddf)["df"].to_numpy() for m in pairs[name])
    np.testing.assert_array_equal(counted[: len(repeated)], repeated)


@pytest.mark.parametrize("type_", [1, 2, 3])
def test_hypotheses_of_every_type(pairs, type_):
    counted, repeated = (rf.anova(m, type=type_) for m in pairs["gaussian"])
    np.testing.assert_allclose(counted["sumsq"], repeated["sumsq"], **CLOSE)
    np.testing.assert_allclose(counted["statistic"], repeated["statistic"], **CLOSE)


@pytest.mark.parametrize("name", ["poisson", "binomial"])
def test_marginal_coefficients(pairs, name):
    counted, repeated = (rf.marginal_coefficients(m)["marginal"] for m in pairs[name])
    np.testing.assert_allclose(counted, repeated, **CLOSE)
