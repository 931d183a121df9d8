"""Processes at new times and places: conditional means and variances from the joint covariance."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.errors import UnseenLevelError


@pytest.fixture(scope="module")
def series():
    rng = np.random.default_rng(4)
    times = np.arange(12.0)
    cov = 1.5 * 0.7 ** np.abs(times[:, None] - times)
    y = (np.linalg.cholesky(cov) @ rng.standard_normal((12, 8))).T.ravel() + 0.4 * rng.standard_normal(96)
    return pd.DataFrame({"y": 2 + y, "t": np.tile(times, 8), "g": np.repeat(list("abcdefgh"), 12)})


def dense(m, data, new, cov_of):
    """Mean and variance of X beta + b(s*) given y and the variances, by dense algebra."""
    groups, t = data["g"].to_numpy(), data["t"].to_numpy()
    same = groups[:, None] == groups
    v = same * cov_of(np.abs(t[:, None] - t)) + m.sigma**2 * np.eye(len(data))
    c = (new["g"].to_numpy()[:, None] == groups) * cov_of(np.abs(new["t"].to_numpy()[:, None] - t))
    vi, x = np.linalg.inv(v), np.ones((len(data), 1))
    info = np.linalg.inv(x.T @ vi @ x)
    beta = info @ x.T @ vi @ data["y"]
    mean = beta[0] + c @ vi @ (data["y"] - beta[0])
    gap = 1 - c @ vi @ x
    return mean, cov_of(0.0) - np.einsum("ij,jk,ik->i", c, vi, c) + (gap @ info @ gap.T).diagonal()


@pytest.mark.parametrize("structure", ["ou", "exp", "gau", "mat", "ar1"])
def test_between_and_beyond_the_fitted_times(series, structure):
    held = series[~((series["g"] == "c") & (series["t"] > 9))]
    m = (
        rf.fit(f"y ~ 1 + {structure}(t + 0 | g)", held[held["t"] != 5], method="ml")
        if structure != "ar1"
        else rf.fit("y ~ 1 + ar1(t + 0 | g)", held, method="ml")
    )
    used = held[held["t"] != 5] if structure != "ar1" else held
    new = pd.DataFrame({"t": [5.0, 5.5, 14.0, 14.0], "g": ["a", "c", "c", "h"]})
    numbers = {p.name: p.value for p in m.varcorr()["g"].parameters}
    variance = numbers["sd"] ** 2
    if structure in ("ou", "ar1"):
        rate = numbers["rate"] if structure == "ou" else -np.log(numbers["cor"])
        cov_of = lambda d: variance * np.exp(-rate * d)  # noqa: E731
    elif structure == "mat":
        from scipy.special import gamma, kv

        def cov_of(d):
            x, nu = np.maximum(d / numbers["range"], 1e-10), numbers["nu"]
            return variance * np.where(np.asarray(d) == 0, 1.0, 2 ** (1 - nu) / gamma(nu) * x**nu * kv(nu, x))
    else:
        power = {"exp": 1, "gau": 2}[structure]
        cov_of = lambda d: variance * np.exp(-((d / numbers["range"]) ** power))  # noqa: E731
    mean, var = dense(m, used, new, cov_of)
    found = m.predict(new, std_error=True)
    # The mode is good to 1e-6 of a standard error; gau's covariance is nearly singular.
    np.testing.assert_allclose(found["estimate"], mean, atol=1e-4)
    np.testing.assert_allclose(found["std_error"], np.sqrt(var), rtol=2e-3, atol=1e-6)


def test_new_groups_at_new_times(series):
    m = rf.fit("y ~ 1 + ou(t + 0 | g)", series, method="ml")
    new = pd.DataFrame({"t": [3.0, 3.3], "g": ["new", "new"]})
    with pytest.raises(UnseenLevelError):
        m.predict(new)
    found = m.predict(new, new_levels="population", std_error=True)
    np.testing.assert_allclose(found["estimate"], m.estimate.beta[0])
    assert found["std_error"][0] == pytest.approx(found["std_error"][1], rel=1e-8)  # the process is stationary
    assert found["std_error"][0] > m.varcorr()["g"].sd[0]


def test_a_fitted_time_is_itself(series):
    """Approaching a fitted time the prediction approaches that at it."""
    m = rf.fit("y ~ 1 + exp(t + 0 | g)", series, method="ml")
    near, at = (pd.DataFrame({"t": [t], "g": ["b"]}) for t in (4 + 1e-9, 4.0))
    assert m.predict(near)[0] == pytest.approx(m.predict(at)[0], abs=1e-6)


def test_places(request):
    data = rf.datasets.load("sim_spatial")
    m = rf.fit("y ~ x + exp(numFactor(xc, yc) + 0 | area)", data, method="ml")
    new = pd.DataFrame({"x": [0.0, 0.0], "xc": [data["xc"][0] + 0.01, 1e3], "yc": [data["yc"][0], 1e3], "area": [1, 1]})
    new["area"] = data["area"][0]
    found = m.predict(new, std_error=True)
    assert abs(found["estimate"][0] - m.predict(data.iloc[:1].assign(x=0.0))[0]) < 0.2
    assert found["estimate"][1] == pytest.approx(m.estimate.beta[0], abs=1e-8)  # far away nothing is known
    assert found["std_error"][1] > found["std_error"][0]


def test_positions_that_are_fixed_effects_too_stay_closed(series):
    m = rf.fit("y ~ factor(t) + ou(factor(t) + 0 | g)", series, method="ml")
    with pytest.raises(UnseenLevelError):
        m.predict(pd.DataFrame({"t": [3.3], "g": ["a"]}))
    named = series.assign(t="t" + series["t"].astype(int).astype(str).str.zfill(2))
    m = rf.fit("y ~ 1 + ar1(t + 0 | g)", named, method="ml")
    with pytest.raises(UnseenLevelError):
        m.predict(pd.DataFrame({"t": ["t99"], "g": ["a"]}))
