"""Contributions of independent units add up to the log-likelihood for every kind of response."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import gammaln, xlogy

import ranef as rf
from ranef.criteria.contributions import contributions, units


def poisson(y, mu):
    return xlogy(y, mu) - mu - gammaln(y + 1)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    g, x = rng.integers(0, 15, 300), rng.normal(size=300)
    y = rng.poisson(np.exp(0.3 * x)).astype(float)
    return {"y": y, "c": np.minimum(y, 3), "b": (rng.uniform(size=300) < 0.3) * 1.0, "x": x, "z": x**2, "g": g}


@pytest.mark.parametrize(
    ("response", "arguments"),
    [
        ("c", {"family": "cumulative", "nominal": "~ z", "scale": "~ z"}),
        ("c", {"family": "sratio", "nominal": "~ z"}),
        ("c", {"family": "acat", "threshold": "equidistant", "nominal": "~ z", "scale": "~ z"}),
        ("c", {"family": "multinomial"}),
        ("b", {"family": "binomial", "randomised_response": {"p1": 0.9, "p2": 0.2}}),
        ("y", {"family": rf.custom_family(poisson, ["mu"], ["log"], support="count")}),
    ],
)
def test_contributions_add_up(data, response, arguments):
    m = rf.fit(f"{response} ~ x + (1 | g)", data, **arguments)
    assert contributions(m, units([m])).sum() == pytest.approx(m.loglik, abs=1e-6)
