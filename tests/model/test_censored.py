"""Censored responses: every way of writing them, the likelihood, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtr
from scipy.stats import kstest, norm

import ranef as rf
from ranef.errors import DataError, NotAvailableError, OptionError


@pytest.fixture(scope="module")
def data():
    return rf.datasets.load("sim_cont")


def test_ways_to_say_it(data):
    words = np.where(data["cens"] == 1, "right", "none")
    more = data.assign(words=words, truth=data["cens"] == 1, far=1e6, lower=-data["y_cens"], left=-data["cens"])
    fits = [
        rf.fit(f"cens({status}) ~ x + (1 | g)", more)
        for status in ("y_cens, cens", "y_cens, words", "y_cens, truth", "y_cens, 2 * cens, far", "lower, left")
    ]
    assert [m.method for m in fits] == ["ml"] * 5
    assert np.ptp([m.loglik for m in fits]) < 1e-7
    assert fits[-1].params["x"] == pytest.approx(-fits[0].params["x"], rel=1e-5)


def test_only_intervals_need_an_upper_end(data):
    """The usual layout: the end is missing where it means nothing; an interval without an end is a missing value."""
    ends = np.where(data["cens"] == 1, data["y_cens"] + 3, np.nan)
    frame = data.assign(status=2 * data["cens"], end=ends)
    m = rf.fit("cens(y_cens, status, end) ~ x + (1 | g)", frame)
    assert (m.nobs, m.messages) == (len(data), ())
    filled = rf.fit("cens(y_cens, status, end) ~ x + (1 | g)", frame.assign(end=frame["end"].fillna(1e6)))
    assert m.loglik == filled.loglik
    first = frame.index[frame["status"] == 2][0]
    frame.loc[first, "end"] = np.nan
    assert rf.fit("cens(y_cens, status, upper=end) ~ x + (1 | g)", frame).nobs == len(data) - 1


def test_likelihood_without_random_effects(data):
    """Against the densities and tail probabilities written out."""
    m = rf.fit("cens(y_cens, cens) ~ x", data)
    beta, sd = np.asarray(m.params), m.sigma
    z = (data["y_cens"].to_numpy() - beta[0] - beta[1] * data["x"].to_numpy()) / sd
    expected = np.where(data["cens"] == 1, np.log(ndtr(-z)), norm.logpdf(z) - np.log(sd)).sum()
    assert m.loglik == pytest.approx(expected, abs=1e-9)


def test_uncensored_is_the_plain_model(data):
    a = rf.fit("cens(y_t, 0 * cens) ~ x + (1 | g)", data)
    assert a.loglik == pytest.approx(rf.fit("y_t ~ x + (1 | g)", data, method="ml").loglik, abs=1e-7)


@pytest.mark.parametrize(
    ("response", "arguments", "error", "says"),
    [
        ("cens(y_cens, 3 * cens)", {}, DataError, "-1 .left.*2 .interval.*not so in rows"),
        ("cens(y_cens, g)", {}, DataError, "'k01'.*unknown"),
        ("cens(y_cens, 2 * cens)", {}, DataError, "upper end"),
        ("cens(y_cens, 2 * cens, y_cens - 1)", {}, DataError, r"lies above y; not so in rows 18, 20"),
        ("cens(bin, cens)", {"family": "binomial"}, OptionError, "binomial"),
    ],
)
def test_refused(data, response, arguments, error, says):
    with pytest.raises(error, match=says):
        rf.fit(f"{response} ~ x + (1 | g)", data, **arguments)


def test_not_available(data):
    m = rf.fit("cens(y_cens, cens) ~ x + (1 | g)", data)
    with pytest.raises(NotAvailableError, match="censored"):
        m.refit(data["y_t"])
    with pytest.raises(NotAvailableError, match="censored"):
        m.residuals("deviance")
    assert np.isfinite(m.residuals()).all()
    assert m.summary()


def test_intervals_from_where_nothing_lies_below():
    """(0, u] of a time is left-censored at u, (l, 1] of a share right-censored at l."""
    rng = np.random.default_rng(2)
    g, y = np.arange(80) % 8, rng.weibull(1.4, 80)
    data = {"g": g, "low": np.floor(y), "high": np.floor(y) + 1, "first": np.where(y < 1, 1.0, np.floor(y))}
    data |= {"two": np.full(80, 2), "status": np.where(y < 1, -1, 2)}
    m = rf.fit("cens(low, two, high) ~ 1 + (1 | g)", data, family="weibull")
    assert m.loglik == rf.fit("cens(first, status, high) ~ 1 + (1 | g)", data, family="weibull").loglik
    share = rng.uniform(0.05, 0.95, 80)
    data |= {"from": np.where(share > 0.8, 0.8, share), "end": np.where(share > 0.8, 1.0, np.nan)}
    data |= {"within": np.where(share > 0.8, 2, 0), "above": np.where(share > 0.8, 1, 0)}
    m = rf.fit("cens(from, within, end) ~ 1 + (1 | g)", data, family="beta")
    assert m.loglik == rf.fit("cens(from, above) ~ 1 + (1 | g)", data, family="beta").loglik


@pytest.mark.parametrize(
    ("family", "low", "same"),
    [
        ("poisson", -1.0, -1), ("poisson", -0.5, -1), ("tweedie", -1.0, -1), ("truncated_poisson", 0.0, -1),
        ("truncated_poisson", -1.0, -1), ("hurdle_poisson", -1.0, -1), ("poisson", 0.4, 2), ("poisson", 0.0, 2),
    ],
)  # fmt: skip
def test_the_lower_end_of_an_interval_is_no_response(family, low, same):
    """(-1, 2] of a count is left-censored at 2, and (0.4, 2] is (0, 2], the same rows to the last bit."""
    rng = np.random.default_rng(4)
    y, g = rng.poisson(3, 80) + 1.0, np.arange(80) % 8
    y[:9] = 0.0 if family == "hurdle_poisson" else 3.0
    status = np.where((y <= 2) & (y > 0), 2, 0)
    data = {"g": g, "y": np.where(status == 2, low, y), "status": status, "end": np.where(status == 2, 2.0, np.nan)}
    other = {
        **data,
        "y": np.where(status == 2, 2.0 if same == -1 else 0.0, y),
        "status": np.where(status == 2, same, 0),
    }
    one, two = (rf.fit("cens(y, status, end) ~ 1 + (1 | g)", d, family=family) for d in (data, other))
    assert one.loglik == two.loglik


@pytest.mark.parametrize("family", ["gaussian", "weibull", "nbinom2"])
def test_quantile_residuals_of_censored_responses_are_normal(family):
    """Drawn over where a response may lie, they have the law of those that were seen: uncensored rows are the same."""
    rng = np.random.default_rng(11)
    n, x, g = 2000, rng.normal(size=2000), np.arange(2000) % 40
    eta = 0.6 + 0.4 * x + 0.4 * rng.normal(size=40)[g]
    draws = {"gaussian": eta + rng.normal(size=n), "weibull": np.exp(eta) * rng.weibull(1.5, n),
             "nbinom2": rng.negative_binomial(2, 2 / (2 + np.exp(eta))).astype(float)}  # fmt: skip
    y = draws[family]
    low, high = np.quantile(y, [0.4, 0.8])
    status = np.where(y > high, 1, np.where(y < low, -1, np.where(rng.random(n) < 0.2, 2, 0)))
    ends = [high, low - (family == "nbinom2"), np.floor(y) - 1]
    seen = np.select([status == 1, status == -1, status == 2], ends, y)
    data = {"x": x, "g": g, "y": np.maximum(seen, 0) if family == "weibull" else seen, "status": status}
    data["upper"] = np.where(status == 2, np.floor(y) + 1, np.nan)
    q = rf.fit("cens(y, status, upper) ~ x + (1 | g)", data, family=family).residuals("quantile", seed=2)
    assert (np.bincount(status + 1) > 100).all()
    assert kstest(q, "norm").pvalue > 0.01  # the seed is fixed


@pytest.mark.parametrize(("y", "status", "family", "says"), [
    ([0.2, 0.5, 1.0, 0.7], ["none", "none", "right", "none"], "ordered_beta", "right-censored at 1.* row 2"),
    ([0.0, 0.5, 1.0, 0.7], ["left", "none", "right", "none"], "gamma", "left-censored at 0.* row 0"),
    ([0.0, 5.0, 1.0, 7.0], ["left", "none", "right", "none"], "truncated_poisson", "left-censored at 0.* row 0"),
])  # fmt: skip
def test_rows_that_nothing_can_satisfy_are_named(y, status, family, says):
    with pytest.raises(DataError, match=says):
        rf.fit("cens(y, s) ~ 1", {"y": np.array(y), "s": np.array(status)}, family=family)


@pytest.mark.parametrize(("family", "dispersion"), [("nbinom1", 1e-12), ("nbinom1", 1e-14), ("nbinom2", 1e14)])
def test_inflated_counts_censored_below_are_the_poissons_at_the_limit(family, dispersion):
    """The distribution function of a negative binomial of a huge size lost its digits."""
    rng = np.random.default_rng(1)
    y = rng.poisson(3, 300) * (rng.random(300) > 0.3)
    data = {"y": np.maximum(y, 1.0), "s": np.where(y <= 1, "left", "none")}
    poisson = rf.fit("cens(y, s) ~ 1", data, family="poisson", zero_inflation="~ 1")
    m = rf.fit("cens(y, s) ~ 1", data, family=family, zero_inflation="~ 1", dispersion=dispersion)
    # Both are optima to 1e-9 in the deviance; the two likelihoods differ by less than 300 times 3^2 times 1e-12.
    assert m.loglik == pytest.approx(poisson.loglik, abs=1e-8)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_quantile_residuals_at_limits_of_a_family():
    """Sizes and powers that ran to their limits: the distribution function is that of the limit."""
    rng = np.random.default_rng(13)
    data = {"y": rng.poisson(1e5, 100) * 1.0, "g": np.arange(100) % 10}
    expected = rf.fit("y ~ 1 + (1 | g)", data, family="poisson").residuals("quantile", seed=1)
    for family in ("nbinom1", "nbinom2", "nbinom12"):
        got = rf.fit("y ~ 1 + (1 | g)", data, family=family).residuals("quantile", seed=1)
        np.testing.assert_allclose(got, expected, atol=1e-4)  # sizes of 1e10 are not infinite
    data = {"y": np.random.default_rng(2).gamma(3, 1, 300)}
    got = rf.fit("y ~ 1", data, family="tweedie").residuals("quantile", seed=1)
    np.testing.assert_allclose(got, rf.fit("y ~ 1", data, family="gamma").residuals("quantile", seed=1), atol=1e-4)


def test_surv_is_the_other_way_round():
    """In R's survival an event of 1 was observed; here a status of 1 is right-censored."""
    rng = np.random.default_rng(1)
    time = 3 * rng.weibull(1.5, 200)
    data = pd.DataFrame({"t": np.minimum(time, 4.0), "ev": (time < 4).astype(int), "x": rng.normal(size=200)})
    data["two"], data["true"], data["upper"] = data["ev"] + 1, data["ev"] == 1, data["t"] + 1
    data["kind"] = np.where(data["ev"] == 1, np.tile([1, 3], 100), 0)
    data["status"] = np.select([data["kind"] == 3, data["kind"] == 1], [2, 0], 1)

    def loglik(formula):
        return rf.fit(formula, data, family="weibull").loglik

    plain = loglik("cens(t, 1 - ev) ~ x")
    assert [loglik(f"Surv(t, {event}) ~ x") for event in ("ev", "two", "true")] == [plain] * 3
    assert loglik("Surv(t, ev, type = 'left') ~ x") == loglik("cens(t, ev - 1) ~ x")
    assert loglik("Surv(t, upper, kind, type = 'interval') ~ x") == loglik("cens(t, status, upper) ~ x")
    data.loc[data["kind"] != 3, "upper"] = np.nan  # other rows need no end
    m = rf.fit("Surv(t, upper, kind, type = 'interval') ~ x", data, family="weibull")
    assert (m.nobs, m.loglik) == (200, loglik("cens(t, status, upper) ~ x"))
    for wrong, what in (
        ("Surv(t, upper, ev)", "counting"),
        ("Surv(t, t)", "0 or 1"),
        ("Surv(t, upper, t, type='interval')", "3"),
    ):
        with pytest.raises(rf.errors.RanefError, match=what):
            loglik(f"{wrong} ~ x")
