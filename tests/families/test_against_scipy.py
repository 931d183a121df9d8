"""Log densities, distribution functions and moments against scipy.stats, written from each family's definition."""

import numpy as np
import pytest
from scipy import special, stats

from ranef import _core

COUNTS = np.array([0.0, 1.0, 2.0, 5.0, 17.0, 80.0])
POSITIVE = np.array([0.01, 0.4, 1.3, 3.0, 12.0])
REAL = np.array([-4.0, -0.3, 0.0, 0.8, 6.0])
UNIT = np.array([0.001, 0.2, 0.55, 0.98])


def evaluate(name, y, *eta, order=0, data=None, **spec):
    y = np.ascontiguousarray(y, dtype=float)
    rows = np.tile(np.array(eta, dtype=float), (len(y), 1))
    return _core.family_eval({"name": name, **spec}, {"y": y, **(data or {})}, rows, order)


def per_row(what, name, y, *eta, data=None, **spec):
    y = np.ascontiguousarray(y, dtype=float)
    rows = np.tile(np.array(eta, dtype=float), (len(y), 1))
    return getattr(_core, f"family_{what}")({"name": name, **spec}, {"y": y, **(data or {})}, rows)


def lognormal(mean, sd):
    v = np.log1p((sd / mean) ** 2)
    return stats.lognorm(np.sqrt(v), scale=mean * np.exp(-v / 2))


def skew_normal(mean, sd, alpha):
    delta = alpha / np.sqrt(1 + alpha**2)
    scale = sd / np.sqrt(1 - 2 * delta**2 / np.pi)
    return stats.skewnorm(alpha, loc=mean - scale * delta * np.sqrt(2 / np.pi), scale=scale)


def logit(p):
    return special.logit(p)


# family, responses, linear predictors, the same distribution in scipy
CASES = [
    ("gaussian", REAL, (0.7, np.log(1.4)), stats.norm(0.7, 1.4)),
    ("lognormal", POSITIVE, (np.log(1.7), np.log(0.9)), lognormal(1.7, 0.9)),
    ("lognormal", POSITIVE, (np.log(2.0), np.log(15.0)), lognormal(2.0, 15.0)),
    ("skew_normal", REAL, (0.4, np.log(1.2), 2.5), skew_normal(0.4, 1.2, 2.5)),
    ("skew_normal", REAL, (0.4, np.log(1.2), -0.7), skew_normal(0.4, 1.2, -0.7)),
    ("student_t", REAL, (0.3, np.log(0.8), np.log(4.0)), stats.t(4.0, 0.3, 0.8)),
    ("student_t", REAL, (0.3, np.log(0.8), np.log(1e7)), stats.t(1e7, 0.3, 0.8)),
    ("poisson", COUNTS, (np.log(3.3),), stats.poisson(3.3)),
    ("poisson", COUNTS, (np.log(55.0),), stats.poisson(55.0)),
    ("nbinom2", COUNTS, (np.log(3.3), np.log(0.7)), stats.nbinom(0.7, 0.7 / 4.0)),
    ("nbinom1", COUNTS, (np.log(3.3), np.log(0.7)), stats.nbinom(3.3 / 0.7, 1 / 1.7)),
    (
        "nbinom12",
        COUNTS,
        (np.log(3.3), np.log(0.7), np.log(2.0)),
        stats.nbinom(3.3 / (0.7 + 3.3 / 2), 1 / (1.7 + 3.3 / 2)),
    ),
    ("gamma", POSITIVE, (np.log(1.7), np.log(2.2)), stats.gamma(2.2, scale=1.7 / 2.2)),
    ("gamma", POSITIVE, (np.log(1.7), np.log(0.2)), stats.gamma(0.2, scale=1.7 / 0.2)),
    ("exponential", POSITIVE, (np.log(1.7),), stats.expon(scale=1.7)),
    ("inverse_gaussian", POSITIVE, (np.log(1.7), np.log(0.6)), stats.invgauss(1.7 * 0.36, scale=1 / 0.36)),
    ("weibull", POSITIVE, (np.log(1.7), np.log(2.2)), stats.weibull_min(2.2, scale=1.7 / special.gamma(1 + 1 / 2.2))),
    ("beta", UNIT, (logit(0.3), np.log(4.0)), stats.beta(1.2, 2.8)),
    ("beta", UNIT, (logit(0.3), np.log(0.5)), stats.beta(0.15, 0.35)),
]
IDS = [f"{i}-{c[0]}" for i, c in enumerate(CASES)]


@pytest.mark.parametrize(("name", "y", "eta", "reference"), CASES, ids=IDS)
def test_log_density(name, y, eta, reference):
    density = reference.logpmf if hasattr(reference, "logpmf") and name in DISCRETE else reference.logpdf
    np.testing.assert_allclose(evaluate(name, y, *eta)[:, 0], density(y), rtol=1e-11, atol=1e-12)


DISCRETE = {f["name"] for f in _core.families() if f["discrete"]}


# scipy's skew-normal distribution function is the least accurate: 1e-10
@pytest.mark.parametrize(("name", "y", "eta", "reference"), CASES, ids=IDS)
def test_distribution_function(name, y, eta, reference):
    np.testing.assert_allclose(per_row("cdf", name, y, *eta), reference.cdf(y), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("name", "y", "eta", "reference"), CASES, ids=IDS)
def test_mean_and_variance(name, y, eta, reference):
    np.testing.assert_allclose(per_row("mean", name, y, *eta), reference.mean(), rtol=1e-11)
    np.testing.assert_allclose(per_row("variance", name, y, *eta), reference.var(), rtol=1e-10)


@pytest.mark.parametrize(("name", "y", "eta", "reference"), CASES, ids=IDS)
def test_censored_rows(name, y, eta, reference):
    n = len(y)
    y = np.abs(y) + 1.0 if name in DISCRETE else y
    y = np.where(y > 50, 9.0, y)
    upper = np.minimum(y + 2.0, 0.9995) if name == "beta" else y + 2.0
    with np.errstate(divide="ignore"):
        between = np.log(reference.cdf(upper) - reference.cdf(y))
    for code, expect in ((-1, reference.logcdf(y)), (1, reference.logsf(y)), (2, between)):
        data = {"censor": np.full(n, code, dtype=np.int8), "upper": upper}
        got = evaluate(name, y, *eta, data=data)[:, 0]
        keep = np.isfinite(expect) & (expect > -20)
        np.testing.assert_allclose(got[keep], expect[keep], rtol=1e-8, atol=1e-9)


TRIALS = np.array([1.0, 5.0, 12.0, 30.0])
SUCCESSES = np.array([1.0, 0.0, 7.0, 29.0])


def test_binomial_with_every_link():
    inverse = {
        "logit": special.expit,
        "probit": stats.norm.cdf,
        "cloglog": lambda x: -np.expm1(-np.exp(x)),
        "loglog": lambda x: np.exp(-np.exp(-x)),
        "cauchit": stats.cauchy.cdf,
    }
    for link, mean in inverse.items():
        for eta in (-2.5, -0.3, 0.4, 1.1):
            p = mean(eta)
            got = evaluate("binomial", SUCCESSES / TRIALS, eta, data={"trials": TRIALS}, links=[link])[:, 0]
            np.testing.assert_allclose(got, stats.binom.logpmf(SUCCESSES, TRIALS, p), rtol=1e-11, atol=1e-12)
    cdf = per_row("cdf", "binomial", SUCCESSES / TRIALS, 0.4, data={"trials": TRIALS})
    np.testing.assert_allclose(cdf, stats.binom.cdf(SUCCESSES, TRIALS, special.expit(0.4)), rtol=1e-12)


def test_betabinomial():
    mu, phi = 0.3, 6.0
    reference = stats.betabinom(TRIALS, mu * phi, (1 - mu) * phi)
    args = ("betabinomial", SUCCESSES / TRIALS, logit(mu), np.log(phi))
    np.testing.assert_allclose(
        evaluate(*args, data={"trials": TRIALS})[:, 0], reference.logpmf(SUCCESSES), rtol=1e-11, atol=1e-12
    )
    np.testing.assert_allclose(per_row("cdf", *args, data={"trials": TRIALS}), reference.cdf(SUCCESSES), rtol=1e-11)
    variance = per_row("variance", *args, data={"trials": TRIALS})
    np.testing.assert_allclose(variance, reference.var() / TRIALS**2, rtol=1e-11)


def test_betabinomial_of_a_huge_precision_is_binomial():
    got = evaluate("betabinomial", SUCCESSES / TRIALS, 0.4, 30.0, data={"trials": TRIALS})[:, 0]
    np.testing.assert_allclose(got, stats.binom.logpmf(SUCCESSES, TRIALS, special.expit(0.4)), rtol=1e-10, atol=1e-11)


def test_nbinom2_of_a_huge_size_is_poisson():
    for ln_k in (20.0, 30.0, 60.0):
        got = evaluate("nbinom2", COUNTS, np.log(3.3), ln_k)[:, 0]
        np.testing.assert_allclose(got, stats.poisson.logpmf(COUNTS, 3.3), rtol=1e-6)


@pytest.mark.parametrize("ln_k", [20.0, 32.0, 44.0, 60.0])
def test_the_distribution_function_of_nbinom2_of_a_huge_size_is_the_poissons(ln_k):
    for mu in (0.3, 3.3, 40.0):
        got = per_row("cdf", "nbinom2", COUNTS, np.log(mu), ln_k)
        # The two differ by the order of (mu + y)^2 / k; the size itself is known to 60 roundings of its logarithm.
        atol = 1e-13 + (mu + np.max(COUNTS)) ** 2 * np.exp(-ln_k)
        np.testing.assert_allclose(got, stats.poisson.cdf(COUNTS, mu), rtol=0, atol=atol)


@pytest.mark.parametrize("shape", [1e6, 1e8, 1e10, 1e12])
def test_the_distribution_function_of_a_gamma_with_next_to_no_spread(shape):
    """Its series was cut off at 100,000 terms."""
    y = 3.3 * (1 + np.array([-8.0, -3.0, -0.5, 0.0, 0.4, 2.0, 7.0]) / np.sqrt(shape))
    got = per_row("cdf", "gamma", y, np.log(3.3), np.log(shape))
    # Roundings of log(y), in standard deviations of the gamma.
    np.testing.assert_allclose(got, stats.gamma.cdf(y, shape, scale=3.3 / shape), rtol=0, atol=1e-14 * np.sqrt(shape))


@pytest.mark.parametrize("sd", [1e-3, 1e-6, 1e-9])
def test_the_distribution_function_of_an_inverse_gaussian_with_next_to_no_spread(sd):
    """Its two parts were the product and the difference of huge numbers."""
    z = np.array([-5.0, -1.0, 0.0, 0.5, 3.0])
    got = per_row("cdf", "inverse_gaussian", 1 + sd * z, 0.0, np.log(sd))
    # Normal but for a skewness of 3 sd; and the rounding of y.
    edgeworth = stats.norm.cdf(z) - 3 * sd / 6 * (z**2 - 1) * stats.norm.pdf(z)
    np.testing.assert_allclose(got, edgeworth, rtol=0, atol=10 * sd**2 + 1e-15 / sd)


def test_bell_is_its_definition():
    mu = 2.3
    theta = special.lambertw(mu).real
    bell = np.array([1, 1, 2, 5, 15, 52, 203, 877, 4140])
    y = np.arange(9)
    expect = y * np.log(theta) + 1 - np.exp(theta) + np.log(bell) - special.gammaln(y + 1)
    np.testing.assert_allclose(evaluate("bell", y, np.log(mu))[:, 0], expect, rtol=1e-12)


def test_genpois_is_its_definition():
    mu, phi, y = 2.3, 1.9, np.arange(12)
    theta, lam = mu / np.sqrt(phi), 1 - 1 / np.sqrt(phi)
    expect = np.log(theta) + (y - 1) * np.log(theta + lam * y) - theta - lam * y - special.gammaln(y + 1)
    np.testing.assert_allclose(evaluate("genpois", y, np.log(mu), np.log(phi))[:, 0], expect, rtol=1e-12)


@pytest.mark.parametrize(("mu", "phi", "p"), [(1.3, 0.7, 1.5), (4.0, 2.5, 1.2), (0.2, 0.9, 1.9), (30.0, 0.01, 1.6)])
def test_tweedie_is_a_poisson_sum_of_gammas(mu, phi, p):
    rate, shape, scale = mu ** (2 - p) / (phi * (2 - p)), (2 - p) / (p - 1), phi * (p - 1) * mu ** (p - 1)
    y = mu * np.array([0.05, 0.3, 1.0, 1.1, 3.0])
    n = np.arange(1, 6000)[:, None]
    terms = stats.poisson.logpmf(n, rate) + stats.gamma.logpdf(y, n * shape, scale=scale)
    eta = (np.log(mu), np.log(phi), logit(p - 1))
    np.testing.assert_allclose(evaluate("tweedie", y, *eta)[:, 0], special.logsumexp(terms, axis=0), rtol=1e-9)
    np.testing.assert_allclose(evaluate("tweedie", [0.0], *eta)[0, 0], -rate, rtol=1e-12)
    cdf = np.exp(-rate) + (stats.poisson.pmf(n, rate) * stats.gamma.cdf(y, n * shape, scale=scale)).sum(axis=0)
    np.testing.assert_allclose(per_row("cdf", "tweedie", y, *eta), cdf, rtol=1e-10, atol=1e-30)


@pytest.mark.parametrize(
    ("name", "eta", "extra"),
    [
        ("poisson", (1.2,), {}),
        ("nbinom2", (1.2, -0.3), {}),
        ("nbinom1", (1.2, 0.5), {}),
        ("nbinom12", (1.2, 0.5, 0.2), {}),
        ("genpois", (1.2, 0.4), {}),
        ("compois", (1.2, 0.7), {}),
        ("compois", (1.2, -0.9), {}),
        ("compois", (-3.0, 0.4), {}),
        ("bell", (1.2,), {}),
        ("truncated_poisson", (-1.0,), {}),
        ("truncated_nbinom2", (0.3, -0.3), {}),
        ("truncated_compois", (0.3, -0.3), {}),
        ("poisson", (1.2, -0.4), {"zero_inflation": True}),
        ("nbinom2", (1.2, 0.1, -0.4), {"zero_inflation": True}),
        ("nbinom2", (1.2, 0.1, -0.4), {"hurdle": True}),
    ],
)
def test_counts_sum_to_one_with_the_stated_moments(name, eta, extra):
    y = np.arange(600.0)
    keep = slice(1, None) if name.startswith("truncated") else slice(None)
    f = np.exp(evaluate(name, y[keep], *eta, **extra)[:, 0])
    y = y[keep]
    np.testing.assert_allclose(f.sum(), 1.0, rtol=1e-9)
    mean = per_row("mean", name, y[:1], *eta, **extra)[0]
    variance = per_row("variance", name, y[:1], *eta, **extra)[0]
    np.testing.assert_allclose((f * y).sum(), mean, rtol=1e-8)
    np.testing.assert_allclose((f * (y - mean) ** 2).sum(), variance, rtol=1e-6)
    np.testing.assert_allclose(per_row("cdf", name, y[:60], *eta, **extra), f.cumsum()[:60], rtol=1e-9)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog", "loglog", "cauchit"])
def test_cumulative_probabilities_sum_to_one(link):
    thresholds, location = np.array([-1.0, 0.3, 1.4]), 0.6
    upper, lower = np.append(thresholds, 0.0), np.insert(thresholds, 0, 0.0)
    for scale in (None, np.log(1.7)):
        columns = [np.full(4, location), *([] if scale is None else [np.full(4, scale)]), upper, lower]
        spec = {"name": "cumulative", "links": [link], "categories": 4, "scaled": scale is not None}
        f = _core.family_eval(spec, {"y": np.arange(4.0)}, np.column_stack(columns), 0)[:, 0]
        np.testing.assert_allclose(np.exp(f).sum(), 1.0, rtol=1e-12)
        assert (np.diff(_core.family_cdf(spec, {"y": np.arange(4.0)}, np.column_stack(columns))) > 0).all()


@pytest.mark.parametrize(
    ("name", "eta"),
    [("ordered_beta", (0.4, 1.2, -1.0, 1.5)), ("zero_one_inflated_beta", (0.4, 1.2, -1.0, 0.5))],
)
def test_unit_interval_with_ends_integrates_to_one(name, eta):
    x, w = special.roots_legendre(200)
    inside = np.exp(evaluate(name, (x + 1) / 2, *eta)[:, 0])
    ends = np.exp(evaluate(name, [0.0, 1.0], *eta)[:, 0])
    np.testing.assert_allclose((inside * w / 2).sum() + ends.sum(), 1.0, rtol=1e-5)
    mean = (inside * (x + 1) / 2 * w / 2).sum() + ends[1]
    np.testing.assert_allclose(per_row("mean", name, [0.5], *eta)[0], mean, rtol=1e-5)
    assert per_row("cdf", name, [1.0], *eta)[0] == 1.0


def test_known_sampling_errors_add_to_the_variance():
    se = np.array([0.0, 0.3, 1.0, 2.0, 0.1])
    got = evaluate("gaussian", REAL, 0.4, np.log(0.5), data={"se": se})[:, 0]
    np.testing.assert_allclose(got, stats.norm.logpdf(REAL, 0.4, np.hypot(0.5, se)), rtol=1e-12)
    fixed = evaluate("gaussian", REAL[1:], 0.4, data={"se": se[1:]}, constants={"dispersion": 0.0})[:, 0]
    np.testing.assert_allclose(fixed, stats.norm.logpdf(REAL[1:], 0.4, se[1:]), rtol=1e-12)


def test_constants_take_the_place_of_predictors():
    full = evaluate("student_t", REAL, 0.4, 0.1, np.log(4.0))
    fixed = evaluate("student_t", REAL, 0.4, 0.1, constants={"shape": 4.0})
    np.testing.assert_allclose(fixed, full, rtol=1e-13)
    power = evaluate("tweedie", POSITIVE, 0.4, 0.1, constants={"power": 1.5})
    np.testing.assert_allclose(power, evaluate("tweedie", POSITIVE, 0.4, 0.1, 0.0), rtol=1e-13)
