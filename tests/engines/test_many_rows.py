"""Standard errors of more than 50,000 rows, some from one-sided differences, beside those of counted rows."""

import numpy as np
import pytest

import ranef as rf

TIMES = 20  # 100 rows a level of g: few enough for one-sided differences, those of h are not
FAMILIES = {
    "binomial": lambda rng, eta: rng.binomial(1, 1 / (1 + np.exp(-eta))),
    "poisson": lambda rng, eta: rng.poisson(np.exp(eta)),
    "nbinom2": lambda rng, eta: rng.negative_binomial(2, 2 / (2 + np.exp(eta))),
}


@pytest.mark.parametrize("random", ["(1 | g)", "(1 + x | g)", "(1 | g) + (1 | h)"])
@pytest.mark.parametrize("family", FAMILIES)
def test_errors_are_those_of_counted_rows(family, random):
    rng = np.random.default_rng(7)
    g, h, x = np.repeat(np.arange(600), 5), np.tile(np.arange(20), 150), rng.normal(size=3000)
    own, slope, other = rng.normal(size=600), rng.normal(size=600), rng.normal(size=20)
    eta = 0.3 + 0.5 * x + 0.4 * own[g] + 0.3 * slope[g] * x + 0.4 * other[h]
    data = {"y": FAMILIES[family](rng, eta), "x": x, "g": g, "h": h}
    counted = rf.fit(f"y ~ x + {random}", {**data, "w": np.full(3000, TIMES)}, family=family, frequency_weights="w")
    repeated = rf.fit(f"y ~ x + {random}", {k: np.repeat(v, TIMES) for k, v in data.items()}, family=family)
    assert repeated.nobs > 50_000
    a, b = (np.asarray(m.vcov(full=True), dtype=float) for m in (counted, repeated))
    unit = np.sqrt(np.diag(a))
    # One-sided differences are good to about 1e-6 in units of standard errors, where a level has 100 rows.
    np.testing.assert_allclose(b / np.outer(unit, unit), a / np.outer(unit, unit), rtol=0, atol=5e-6)
