"""Intervals for new observations that are not normal."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import ranef as rf
from ranef.errors import NotAvailableError, OptionError

N, GROUPS = 600, 30


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(7)
    g, x = np.arange(N) % GROUPS, rng.normal(size=N)
    eta = 0.8 + 0.4 * x + 0.6 * rng.normal(size=GROUPS)[g]
    trials = rng.integers(3, 9, N)
    success = rng.binomial(trials, 1 / (1 + np.exp(-eta)))
    return pd.DataFrame(
        {
            "g": g, "x": x, "n": rng.poisson(np.exp(eta)), "y": eta + rng.normal(size=N), "trials": trials,
            "success": success, "failure": trials - success, "share": success / trials,
            "grade": pd.Categorical(np.digitize(eta + rng.logistic(size=N), [0, 1, 2]), ordered=True),
            "kind": np.array(list("abc"))[rng.integers(0, 3, N)],
        }
    )  # fmt: skip


def test_without_random_effects_they_are_quantiles_of_the_family(data):
    big = pd.concat([data] * 50, ignore_index=True)  # coefficients are all but known
    m = rf.fit("n ~ x", big, family="poisson")
    new = data.head(40)
    table = m.predict(new, interval="prediction", level=0.8)
    mu = table["estimate"].to_numpy()
    # 1,000 draws tell the 0.1 and 0.9 quantiles to 0.01 of probability: three of those.
    for end, at in (("conf_low", 0.1), ("conf_high", 0.9)):
        assert (stats.poisson.ppf(at - 0.03, mu) <= table[end]).all()
        assert (table[end] <= stats.poisson.ppf(at + 0.03, mu)).all()


@pytest.mark.parametrize("re", ["all", "none", ["g"]])
def test_they_tend_to_the_normal_ones(data, re):
    # Student's t with 10^7 degrees of freedom is normal; both are fits with uncertain variances.
    drawn = rf.fit("y ~ x + (x | g)", data, family="student_t", nu=1e7)
    exact = rf.fit("y ~ x + (x | g)", data, method="ml", prior={"fixed": rf.prior.flat()})
    a, b = (m.predict(data.head(30), re=re, interval="prediction") for m in (drawn, exact))
    # How coefficients went with the variances in these data counts for one of them only.
    assert_allclose(a["std_error"], b["std_error"], rtol=2e-2)
    width = (b["conf_high"] - b["conf_low"]).to_numpy()
    # A 2.5 % quantile of 1,000 draws has a standard error of 0.085 standard deviations, 2.2 % of the width.
    for end in ("conf_low", "conf_high"):
        assert np.max(np.abs(a[end] - b[end]) / width) < 0.09
        assert abs(np.mean((a[end] - b[end]) / width)) < 0.02


def test_they_cover_new_groups(data):
    rng, size = np.random.default_rng(1), 40_000
    m = rf.fit("n ~ x + (1 | g)", data, family="poisson")
    table = m.predict({"x": np.zeros(1)}, re="none", interval="prediction", level=0.8)
    fresh = rng.poisson(np.exp(m.params["(Intercept)"] + m.varcorr()["g"].sd[0] * rng.normal(size=size)))
    inside = np.mean((fresh >= table["conf_low"][0]) & (fresh <= table["conf_high"][0]))
    assert 0.78 < inside < 0.95  # counts jump: at least the level, less a Monte Carlo error


def test_trials_come_with_the_new_rows(data):
    m = rf.fit("cbind(success, failure) ~ x + (1 | g)", data, family="binomial")
    by_column = rf.fit("share ~ x + (1 | g)", data, family="binomial", trials="trials")
    table = m.predict(data, interval="prediction")
    assert_array_equal(table["conf_low"], m.predict(interval="prediction")["conf_low"])
    counts = table["conf_high"] * data["trials"]
    assert_allclose(counts, np.round(counts), atol=1e-9)
    assert_array_equal(by_column.predict(data.drop(columns="share"), interval="prediction"), table)
    for fit in (m, by_column):
        with pytest.raises(NotAvailableError, match="do not tell how many"):
            fit.predict(data[["x", "g"]], interval="prediction")


@pytest.mark.parametrize(
    ("formula", "how"),
    [
        ("n ~ x + (1 |i| g)", {"family": "nbinom2", "zero_inflation": "~ x + (1 |i| g)"}),
        ("success/trials ~ x + (1 | g)", {"family": "betabinomial", "trials": "trials"}),  # no dispersion left: a limit
        ("grade ~ x + (1 | g)", {"family": "cumulative", "scale": "~ x"}),
        ("grade ~ x + (1 | g)", {"family": "acat"}),
    ],
)
def test_ends_are_responses(data, formula, how):
    m = rf.fit(formula, data, **how)
    table = m.predict(data.head(20), interval="prediction", seed=3)
    assert np.isfinite(table).all().all()
    assert (table["conf_low"] <= table["conf_high"]).all()
    assert_array_equal(table, m.predict(data.head(20), interval="prediction", seed=3))
    gone = m.predict(data.head(3).assign(x=[np.nan, 0, 1]), interval="prediction")
    assert gone["conf_low"].isna().tolist() == [True, False, False]


def test_what_has_no_such_interval(data):
    with pytest.raises(OptionError, match="type='response'"):
        rf.fit("n ~ x + (1 | g)", data, family="poisson").predict(type="link", interval="prediction")
    with pytest.raises(NotAvailableError, match="without order"):
        rf.fit("kind ~ x + (1 | g)", data, family="multinomial").predict(interval="prediction")
    with pytest.raises(NotAvailableError, match="quasi-likelihood"):
        rf.fit("n ~ x + (1 | g)", data, family="poisson", method="pql").predict(interval="prediction")
