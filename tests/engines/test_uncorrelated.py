"""Uncorrelated effects of many columns, most without variance: the same fit as with a term for every column."""

import warnings

import numpy as np
import pandas as pd
import pytest

import ranef as rf

LEVELS = "abcde"


def mostly_zero(seed: int, family: str) -> pd.DataFrame:
    """Effects of the first and the last of five columns, none of the three between."""
    rng = np.random.default_rng([seed, 18])
    n = int(rng.integers(100, 260))
    h, f = rng.integers(0, 9, n), rng.integers(0, len(LEVELS), n)
    effects = rng.normal(size=(9, len(LEVELS))) * [0.4, 0.0, 0.0, 0.0, 0.4]
    frame = pd.DataFrame({"x": rng.normal(size=n), "h": h, "f": np.array(list(LEVELS))[f]})
    eta = 0.5 + 0.3 * frame["x"] + effects[h, f]
    y = rng.poisson(np.exp(eta)) if family == "poisson" else eta + rng.normal(size=n)
    return frame.assign(y=y, **{level: (frame["f"] == level) * 1.0 for level in LEVELS})


@pytest.mark.parametrize("family", ["gaussian", "poisson"])
@pytest.mark.parametrize("seed", range(8))
def test_zeros_among_variances_leave_the_others_alone(family, seed):
    data = mostly_zero(seed, family)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a search that gives up warns
        one = rf.fit("y ~ x + (0 + f || h)", data, family=family)
        apart = rf.fit("y ~ x + " + " + ".join(f"(0 + {v} | h)" for v in LEVELS), data, family=family)
    assert one.converged
    assert one.loglik == pytest.approx(apart.loglik, abs=1e-7)  # both certified to 1e-9 in the deviance
    np.testing.assert_allclose(one.theta, apart.theta, atol=1e-4)  # what 1e-9 leaves open
    # One search as the other takes a handful of steps; one that loses variances takes many times as many.
    assert one.estimate.evaluations <= apart.estimate.evaluations + 5
