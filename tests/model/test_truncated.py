"""Truncated responses, `trunc(y, lb, ub)`: likelihoods written out with SciPy, predictions, and what is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.special import gamma

import ranef as rf
from ranef.errors import DataError, FormulaError, NotAvailableError, OptionError


def drawn(draw, low, high, n=3_000, seed=1):
    """Rows of a population, of which those within the bounds are kept."""
    rng = np.random.default_rng(seed)
    x, g = rng.normal(size=n), rng.integers(0, 30, n)
    y = draw(rng, x, rng.normal(size=30)[g])
    keep = (y >= low) & (y <= high)
    return {
        "y": y[keep],
        "x": x[keep],
        "g": g[keep],
        "low": np.full(keep.sum(), low),
        "high": np.full(keep.sum(), high),
    }


@pytest.fixture(scope="module")
def normal():
    return drawn(lambda rng, x, _: 1 + 0.5 * x + rng.normal(size=len(x)), 1.0, 3.0)


@pytest.fixture(scope="module")
def counts():
    return drawn(lambda rng, x, u: rng.poisson(np.exp(0.5 + 0.4 * x + 0.5 * u)).astype(float), 1.0, 6.0)


def laws(x):
    """Family -> log density and distribution function of (y, parameters), start, draw, bounds; all with a log link."""

    def mean(p):
        return np.exp(p[0] + p[1] * x)

    def gammas(p):
        return stats.gamma(np.exp(p[2]), scale=mean(p) / np.exp(p[2]))

    def weibull(p):
        return stats.weibull_min(np.exp(p[2]), scale=mean(p) / gamma(1 + np.exp(-p[2])))

    def nbinom2(p):
        size = np.exp(p[2])
        return stats.nbinom(size, size / (size + mean(p)))

    return {"gamma": gammas, "weibull": weibull, "nbinom2": nbinom2, "poisson": lambda p: stats.poisson(mean(p))}


@pytest.mark.parametrize(
    ("family", "low", "high", "start"),
    [
        ("gamma", 0.5, 6.0, [0.5, 0.3, 0.5]),
        ("weibull", 1.0, np.inf, [0.5, 0.3, 0.5]),
        ("nbinom2", 1, 9, [0.5, 0.3, 0.5]),
        ("poisson", 2, np.inf, [0.5, 0.3]),
    ],
)
def test_estimates_are_those_of_the_likelihood_written_out(family, low, high, start):
    """Maximised by SciPy: its simplex search ends within some 1e-4 of the optimum, the value within 1e-6."""

    def draw(rng, x, _):
        return laws(x)[family](np.array(start)).rvs(random_state=rng)

    data = drawn(draw, low, high)
    m = rf.fit(
        "trunc(y, lb=low, ub=1e9) ~ x" if high == np.inf else "trunc(y, low, high) ~ x", data, family=family, link="log"
    )
    discrete = family in ("poisson", "nbinom2")

    def loss(p):
        law = laws(data["x"])[family](p)
        mass = law.cdf(high) - law.cdf(low - 1 if discrete else low)
        return -np.sum((law.logpmf if discrete else law.logpdf)(data["y"]) - np.log(mass))

    best = minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9, "maxiter": 4_000})
    assert m.loglik == pytest.approx(-best.fun, abs=1e-6)
    np.testing.assert_allclose(np.asarray(m.params), best.x[:2], atol=1e-4)


def test_normal_and_the_ways_to_say_it(normal):
    fits = [
        rf.fit(f"trunc({rest}) ~ x", normal)
        for rest in ("y, 1, 3", "y, lb = 1, ub = 3", "y, lower=low, upper=high", "y, low, 3")
    ]
    assert np.ptp([m.loglik for m in fits]) < 1e-9
    m = fits[0]
    assert (m.task.linear, m.method) == (False, "ml")
    mu, sd = np.asarray(m.params) @ [np.ones(len(normal["x"])), normal["x"]], m.sigma
    mass = stats.norm.cdf((3 - mu) / sd) - stats.norm.cdf((1 - mu) / sd)
    assert m.loglik == pytest.approx(np.sum(stats.norm.logpdf(normal["y"], mu, sd) - np.log(mass)), abs=1e-8)
    exact = stats.truncnorm((1 - mu) / sd, (3 - mu) / sd, mu, sd)
    np.testing.assert_allclose(m.fitted(), exact.mean(), rtol=1e-9)
    np.testing.assert_allclose(m.residuals("pearson"), (normal["y"] - exact.mean()) / exact.std(), rtol=1e-6)
    np.testing.assert_allclose(m.residuals("quantile"), stats.norm.ppf(exact.cdf(normal["y"])), atol=1e-8)
    assert abs(m.params["x"] - 0.5) < 4 * float(np.sqrt(np.diag(m.vcov())[1]))


def test_most_of_the_population_is_outside():
    """Some 7 in 100 000 are within; SciPy's maximum from a start at the truth."""
    data = drawn(lambda rng, x, _: -3 + 0.5 * x + rng.normal(size=len(x)), 0.0, np.inf, n=400_000)
    m = rf.fit("trunc(y, 0) ~ x", data)

    def loss(p):
        mu, sd = p[0] + p[1] * data["x"], np.exp(p[2])
        return -np.sum(stats.norm.logpdf(data["y"], mu, sd) - stats.norm.logsf(0, mu, sd))

    best = minimize(
        loss, [-3, 0.5, 0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10, "maxiter": 4_000}
    )
    assert m.converged
    assert m.loglik == pytest.approx(-best.fun, abs=1e-6)


@pytest.mark.parametrize("family", ["poisson", "nbinom1", "nbinom2", "genpois"])
def test_counts_without_zero_are_the_truncated_family(counts, family):
    a = rf.fit("trunc(y, lb = 1) ~ x + (1 | g)", counts, family=family)
    b = rf.fit("y ~ x + (1 | g)", counts, family=f"truncated_{family}")
    # One likelihood by two formulas, and searches that end within 1e-6 of its top.
    assert a.loglik == pytest.approx(b.loglik, abs=1e-7)
    new = {"x": [0.0, 1.0], "g": [1, 2]}
    for one, other in (
        (a.params, b.params),
        (a.vcov(), b.vcov()),
        (a.fitted(), b.fitted()),
        (a.predict(new, std_error=True), b.predict(new, std_error=True)),
        (a.residuals("pearson"), b.residuals("pearson")),
        (a.residuals("quantile"), b.residuals("quantile")),
    ):
        np.testing.assert_allclose(np.asarray(one, float), np.asarray(other, float), rtol=1e-4, atol=1e-5)


def test_random_effects_against_brute_force(counts):
    data = {name: values[counts["g"] < 8] for name, values in counts.items()}
    m = rf.fit("trunc(y, 1, 6) ~ x + (1 | g)", data, family="poisson", quadrature=25)
    beta, sd = np.asarray(m.params), m.estimate.theta[0]
    total = 0.0
    for level in np.unique(data["g"]):
        at = data["g"] == level

        def joint(u, at=at):
            mu = np.exp(beta[0] + beta[1] * data["x"][at] + sd * u)
            law = stats.poisson(mu)
            return np.exp(np.sum(law.logpmf(data["y"][at]) - np.log(law.cdf(6) - law.cdf(0)))) * stats.norm.pdf(u)

        value = quad(joint, -8, 8, epsabs=0, epsrel=1e-10, points=[-2, 0, 2], limit=200)[0]
        total += np.log(value)
    assert m.loglik == pytest.approx(total, abs=1e-6)  # 25 nodes


def test_recovery_of_every_component():
    def draw(rng, x, u):
        return 1 + 0.5 * x + 0.6 * u + np.exp(0.2 * x) * rng.normal(size=len(x))

    data = drawn(draw, 0.0, 3.0, n=8_000)
    m = rf.fit("trunc(y, 0, 3) ~ x + (1 | g)", data, dispersion="~ x")
    table = m.tidy()
    slopes = table[table["term"] == "x"]
    assert (abs(slopes["estimate"] - [0.5, 0.2]) < 4 * slopes["std_error"]).all()


def test_left_truncation_of_censored_times():
    """Survival with delayed entry: log f(t) or log S(t), less log S(entry)."""
    rng = np.random.default_rng(2)
    time, entry = 2 * rng.weibull(1.3, 2_000), rng.uniform(0, 1, 2_000)
    stop, keep = entry + rng.exponential(2, 2_000), time > entry
    data = {"t": np.minimum(time, stop)[keep], "dead": (time <= stop)[keep], "entry": entry[keep]}
    m = rf.fit("trunc(Surv(t, dead), lb = entry) ~ 1", data, family="weibull")
    other = rf.fit("trunc(cens(t, !dead), entry) ~ 1", data, family="weibull")
    assert m.loglik == pytest.approx(other.loglik, abs=1e-9)
    shape = np.exp(m.estimate.beta[1])
    law = stats.weibull_min(shape, scale=np.exp(m.params["(Intercept)"]) / gamma(1 + 1 / shape))
    expected = np.where(data["dead"], law.logpdf(data["t"]), law.logsf(data["t"])) - law.logsf(data["entry"])
    assert m.loglik == pytest.approx(expected.sum(), abs=1e-8)
    assert stats.kstest(m.residuals("quantile", seed=3), "norm").pvalue > 0.001


def test_predictions_know_the_bounds(normal):
    m = rf.fit("trunc(y, low, high) ~ x", normal)
    new = {"x": [0.0, 1.0]}
    with pytest.raises(DataError, match="type='mean'"):
        m.predict(new)
    plain = np.asarray(m.params) @ [[1, 1], [0, 1]]
    np.testing.assert_allclose(m.predict(new, type="mean"), plain)
    told = new | {"low": [1.0, -1e9], "high": [3.0, 1e9]}
    found = m.predict(told)
    assert found[1] == pytest.approx(plain[1], rel=1e-12)
    assert 1 < found[0] < 3
    interval = m.predict(told, interval="prediction")
    assert 1 < interval["conf_low"][0] < interval["conf_high"][0] < 3
    with pytest.raises(DataError, match=r"nothing .* lies between the bounds of new row 1"):
        m.predict(told | {"low": [1.0, 4.0]} | {"high": [3.0, 2.0]})
    assert np.isnan(m.predict(told | {"low": [1.0, np.nan]})).tolist() == [False, True]
    same = pickle.loads(pickle.dumps(m))
    np.testing.assert_array_equal(same.predict(told), found)


def test_draws_and_refits(normal):
    m = rf.fit("trunc(y, 1, 3) ~ x", normal)
    drawn_again = m.simulate(1, seed=1)[:, 0]
    assert ((drawn_again >= 1) & (drawn_again <= 3)).all()
    assert m.refit(drawn_again).params["x"] == pytest.approx(m.params["x"], abs=0.3)
    with pytest.raises(DataError, match="within the bounds"):
        m.refit(normal["y"] + 2)
    with pytest.raises(DataError, match="different bounds"):
        rf.compare(m, rf.fit("y ~ x", normal, method="ml"))
    assert m.update(". ~ 1").formula.truncated
    assert "Truncated: to [1, 3]" in str(m.summary())
    assert "Truncated: to [low, Inf)" in str(rf.fit("trunc(y, lb = low) ~ x", normal).summary())


def test_missing_bounds_leave_rows_out(normal):
    low = normal["low"].copy()
    low[:5] = np.nan
    assert rf.fit("trunc(y, low) ~ x", normal | {"low": low}).nobs == len(low) - 5


def test_r2_and_icc_are_of_the_population(counts):
    """Bounds are of the sample: the variance of the normal law is sigma^2, not that of what was left of it."""
    m = rf.fit("trunc(y, 0, 7) ~ x + (1 | g)", counts)
    own = m.estimate.covariances[0][0, 0]
    assert rf.icc(m) == pytest.approx(own / (own + m.sigma**2), rel=1e-9)
    assert rf.r2(m).conditional > rf.icc(m)


@pytest.mark.parametrize(
    ("response", "arguments", "error", "says"),
    [
        ("trunc(y, 2)", {}, DataError, "outside the bounds of the row; row"),
        ("trunc(y, 3, 1)", {}, DataError, "lb lies below ub; not so in row"),
        ("trunc(y, 1.2, 1.8)", {"family": "poisson"}, DataError, "nothing lies between"),
        ("trunc(y, -3, -1)", {"family": "gamma"}, DataError, "nothing lies between"),
        ("trunc(y, 1, lower = 0)", {}, DataError, "give one of them"),
        ("trunc(y, 1)", {"family": "binomial"}, NotAvailableError, "families of numbers and counts"),
        ("trunc(y, 1)", {"family": "cumulative"}, NotAvailableError, "families of numbers and counts"),
        ("trunc(y, 1)", {"family": "truncated_poisson"}, OptionError, "family='poisson'"),
        ("trunc(y, 1)", {"family": "poisson", "zero_inflation": "~ 1"}, NotAvailableError, "extra zeros"),
        ("trunc(y, 1)", {"family": "poisson", "method": "pql"}, NotAvailableError, "pql"),
        ("trunc(se(y, low), 1)", {}, NotAvailableError, "standard errors"),
        ("y | trunc(lb = 1)", {}, FormulaError, r"stands around it: trunc\(y"),
    ],
)
def test_refused(counts, response, arguments, error, says):
    with pytest.raises(error, match=says):
        rf.fit(f"{response} ~ x", counts, **arguments)


def test_one_argument_is_the_number_without_its_fraction(counts):
    a = rf.fit("trunc(y) ~ x", counts, family="poisson")
    assert a.loglik == rf.fit("y ~ x", counts, family="poisson").loglik
    assert not a.formula.truncated


def test_a_spread_that_bounds_do_not_show_is_told():
    """Responses that are no rarer at their bounds: -1 / (2 sigma^2) of the natural parameters would be above 0."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=200)
    y = 0.4 + 0.4 * x + 1.3 * rng.normal(size=200)
    inside = (y > -0.5) & (y < 2)
    with pytest.warns(rf.ConvergenceWarning, match="no rarer at the ends"):
        m = rf.fit("trunc(y, -0.5, 2) ~ x", {"y": y[inside], "x": x[inside]}, family="gaussian")
    assert any(note.code == "wide_within_bounds" for note in m.messages)


@pytest.mark.parametrize("family", ["compois", "poisson"])
@pytest.mark.filterwarnings("ignore::ranef.RanefWarning")
def test_means_of_rare_counts_above_zero(family):
    """A level of ones alone, whose mean before truncation goes to 0: the mean of the counts above 0 is at least 1."""
    rng = np.random.default_rng(1)
    s = (np.arange(120) % 5 == 0) * 1
    data = {"y": np.where(s, 1, np.clip(rng.poisson(3, 120), 1, 9)), "s": s}
    m = rf.fit("y ~ s", data, family=f"truncated_{family}")
    assert np.asarray(m.predict()).min() >= 1 - 1e-9  # a sum of some hundred terms
    assert np.isfinite(m.residuals("pearson")).all()
