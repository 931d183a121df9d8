"""A user's own density: it reproduces the families that come with the package, and answers what it can."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import special, stats

import ranef as rf
from ranef.errors import ArgumentError, DataError, NotAvailableError, OptionError

N, GROUPS = 500, 25


def poisson(y, mu):
    return special.xlogy(y, mu) - mu - special.gammaln(y + 1)


def nbinom2(y, mu, k):
    log = special.gammaln(y + k) - special.gammaln(k) - special.gammaln(y + 1)
    return log + k * np.log(k / (mu + k)) + special.xlogy(y, mu / (mu + k))


def gamma(y, mu, a):
    return a * np.log(a / mu) + (a - 1) * np.log(y) - a * y / mu - special.gammaln(a)


def student(y, mu, sigma, nu):
    z = (y - mu) / sigma
    head = special.gammaln((nu + 1) / 2) - special.gammaln(nu / 2) - 0.5 * np.log(np.pi * nu) - np.log(sigma)
    return head - (nu + 1) / 2 * np.log1p(z**2 / nu)


def nb_variance(mu, k):
    return mu + mu**2 / k


def nb_draw(rng, mu, k):
    return rng.negative_binomial(k, k / (k + mu))


def nb_cdf(y, mu, k):
    return stats.nbinom.cdf(y, k, k / (k + mu))


NB = rf.custom_family(
    nbinom2,
    ["mu", "k"],
    ["log", "log"],
    support="count",
    variance=nb_variance,
    simulate=nb_draw,
    cdf=nb_cdf,
    name="own",
)
SAME = {
    "poisson": (rf.custom_family(poisson, ["mu"], ["log"], support="count"), "counts"),
    "nbinom2": (NB, "counts"),
    "gamma": (rf.custom_family(gamma, ["mu", "a"], {"mu": "log", "a": "log"}, support="positive"), "sizes"),
    "student_t": (rf.custom_family(student, ["mu", "sigma", "nu"], ["identity", "log", "log"]), "reals"),
}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(4)
    g, x = rng.integers(0, GROUPS, N), rng.normal(size=N)
    eta = 0.6 + 0.4 * x + rng.normal(scale=0.5, size=GROUPS)[g]
    return {
        "counts": nb_draw(rng, np.exp(eta), 2.0).astype(float),
        "zeros": nb_draw(rng, np.exp(eta), 2.0) * (rng.uniform(size=N) < 0.7) * 1.0,
        "sizes": rng.gamma(3.0, np.exp(eta) / 3.0),
        "reals": eta + 0.7 * rng.standard_t(5, size=N),
        "x": x,
        "w": rng.integers(1, 4, N).astype(float),
        "g": g,
    }


@pytest.mark.parametrize("name", SAME)
def test_it_is_the_family_that_it_writes_out(data, name):
    own, y = SAME[name]
    a, b = (rf.fit(f"{y} ~ x + (1 | g) + offset(x / 9)", data, family=f, frequency_weights="w") for f in (name, own))
    assert b.converged
    assert b.loglik == pytest.approx(a.loglik, abs=1e-8)
    assert_allclose(b.coefficients(), a.coefficients(), atol=1e-5)  # where each search ends
    assert_allclose(np.asarray(b.vcov("all")), np.asarray(a.vcov("all")), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    "arguments",
    [{"quadrature": 5}, {"quadrature": 0}, {"method": "reml"}, {"zero_inflation": "~ x"}, {"k": "~ x + (1 | g)"}],
)
def test_it_composes(data, arguments):
    builtin = {("dispersion" if name == "k" else name): v for name, v in arguments.items()}
    a = rf.fit("zeros ~ x + (1 | g)", data, family="nbinom2", **builtin)
    b = rf.fit("zeros ~ x + (1 | g)", data, family=NB, **arguments)
    assert b.loglik == pytest.approx(a.loglik, abs=1e-7)
    assert_allclose(b.predict(), a.predict(), rtol=1e-4)


def test_zeros_beside_a_continuous_response(data):
    rows = {**data, "amount": np.where(np.arange(N) % 3 == 0, 0.0, data["sizes"])}
    a, b = (rf.fit("amount ~ x + (1 | g)", rows, family=f, zero_inflation="~ x") for f in ("gamma", SAME["gamma"][0]))
    assert b.loglik == pytest.approx(a.loglik, abs=1e-7)


def test_it_answers_as_the_built_in_one_does(data):
    a, b = (rf.fit("counts ~ x + (1 | g)", data, family=f) for f in ("nbinom2", NB))
    for what in ("response", "pearson", "scaled"):
        assert_allclose(b.residuals(what), a.residuals(what), atol=1e-5)
    assert_allclose(b.residuals("quantile", seed=1), a.residuals("quantile", seed=1), atol=1e-4)
    assert_allclose(b.predict(re="integrate"), a.predict(re="integrate"), rtol=1e-5)
    assert_allclose(b.predict(type="k"), a.predict(type="dispersion"), rtol=1e-4)
    assert_allclose(
        b.predict(re="none", std_error=True)["std_error"], a.predict(re="none", std_error=True)["std_error"], rtol=1e-3
    )
    assert b.refit(b.simulate(1, seed=3)[:, 0]).converged
    assert "Family: own (log link)" in b.summary()
    again = pickle.loads(pickle.dumps(b))
    assert_allclose(again.predict(), b.predict(), rtol=1e-12)
    assert_allclose(again.refit(data["counts"]).loglik, b.loglik, rtol=1e-10)
    assert b.update("counts ~ x").npar == 3
    zero = rf.fit("zeros ~ x", data, family=NB, zero_inflation="~ 1")
    builtin = rf.fit("zeros ~ x", data, family="nbinom2", zero_inflation="~ 1")
    assert_allclose(zero.residuals("pearson"), builtin.residuals("pearson"), atol=1e-4)
    assert_allclose(zero.residuals("quantile"), builtin.residuals("quantile"), atol=1e-3)
    assert 0 < (zero.simulate(1, seed=1) == 0).mean() < 0.9


@pytest.mark.parametrize("link", ["probit", "cloglog", "loglog", "cauchit"])
def test_extra_zeros_have_any_link_of_a_probability(data, link):
    own, asked = SAME["poisson"][0], {"zero_inflation": "~ x", "link": {"zero_inflation": link}}
    zeros = {**data, "counts": np.where(np.arange(N) % 4 == 0, 0, data["counts"])}
    a, b = (rf.fit("counts ~ x + (1 | g)", zeros, family=f, **asked) for f in ("poisson", own))
    assert b.loglik == pytest.approx(a.loglik, abs=1e-7)
    assert_allclose(b.fitted(), a.fitted(), rtol=1e-4)  # where each search ends


def test_what_was_not_given_is_refused(data):
    m = rf.fit("counts ~ x + (1 | g)", data, family=SAME["poisson"][0])
    assert "Scaled residuals" not in m.summary()
    for ask, name in ((m.simulate, "simulate"), (lambda: m.residuals("pearson"), "variance"),
                      (lambda: m.residuals("quantile"), "cdf")):  # fmt: skip
        with pytest.raises(NotAvailableError, match=f"without {name}="):
            ask()
    own_mean = rf.custom_family(poisson, ["mu"], ["log"], mean=lambda mu: 2 * mu, support="count")
    assert_allclose(rf.fit("counts ~ x", data, family=own_mean).fitted(), 2 * rf.fit(
        "counts ~ x", data, family="poisson").fitted(), rtol=1e-5)  # fmt: skip


def test_many_rows_and_threads(data):
    """More rows than a panel, several chunks in the core's threads, and fits side by side: nothing waits for ever."""
    big = {name: np.tile(v, 40) for name, v in data.items()}
    a = rf.fit("counts ~ x + (1 | g)", big, family="poisson")
    fits = lambda f: rf.fit("counts ~ x + (1 | g)", big, family=f)  # noqa: E731
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(fits, [SAME["poisson"][0]] * 3))
    for m in found:
        assert m.loglik == pytest.approx(a.loglik, rel=1e-11)


class OddError(Exception):
    """Something that only a user's function raises."""


def raising(y, mu):
    raise OddError("from inside")


def later(y, mu):
    if np.ptp(mu.v if hasattr(mu, "v") else mu) > 0:
        raise OddError("from inside, later")
    return poisson(y, mu)


@pytest.mark.parametrize(
    ("density", "error", "says"),
    [
        (raising, OddError, "from inside"),
        (later, OddError, "later"),
        (lambda y, mu: np.log(y + 1), DataError, "does not depend"),
        (lambda y, mu: (y - mu)[np.arange(N) > 0], DataError, r"shape \(499,\); it needs one number a row, \(500,\)"),
        (lambda y, mu: np.log(-mu) + y, DataError, r"not finite in 500 of 500 rows at mu = "),
        (lambda y, mu: np.where(y > 3, np.nan, poisson(y, mu)), DataError, r"not finite in \d+ of 500 rows at mu = "),
        (lambda y, mu: poisson(y, mu) * 1j, DataError, "complex"),
        (
            lambda y, mu: special.struve(0, mu) + y,
            NotAvailableError,
            "log_density of family 'custom': derivatives of struve",
        ),
        (lambda y, mu: -np.sum((y - mu) ** 2), NotAvailableError, "sum are not known"),
        (lambda y, mu, phi: y - mu - phi, TypeError, "phi"),
    ],
)
def test_errors_of_the_density_surface(data, density, error, says):
    with pytest.raises(error, match=says):
        rf.fit("counts ~ x + (1 | g)", data, family=rf.custom_family(density, ["mu"], ["log"], support="count"))


@pytest.mark.parametrize(
    ("functions", "ask", "says"),
    [
        ({"mean": lambda mu: mu[1:]}, lambda m: m.predict(), r"mean of family 'custom' .*shape \(499,\)"),
        ({"simulate": lambda rng, mu: rng.normal()}, lambda m: m.simulate(1), r"simulate .*shape \(\)"),
        ({"cdf": lambda y, mu: 0.5}, lambda m: m.residuals("quantile"), r"cdf .*shape \(\)"),
        ({"cdf": lambda y, mu: y[:3]}, lambda m: m.residuals("quantile"), r"cdf .*shape \(3,\)"),
        ({"simulate": lambda rng, mu: "a"}, lambda m: m.simulate(1, seed=1), "simulate .*no numbers"),
    ],
)
def test_errors_of_the_other_functions_name_them(data, functions, ask, says):
    family = rf.custom_family(poisson, ["mu"], ["log"], support="count", **functions)
    m = rf.fit("counts ~ x + (1 | g)", data, family=family)
    with pytest.raises(DataError, match=says):
        ask(m)


def in_place(y, mu):
    y -= 1
    return poisson(y + 1, mu)


@pytest.mark.parametrize(
    ("density", "says"),
    [
        (in_place, "may not write into its arguments"),
        (lambda y, mu: poisson(y, mu) if y > 0 else -mu, "np.where for cases"),
    ],
)
def test_errors_of_the_density_come_with_a_hint(data, density, says):
    before = data["counts"].copy()
    with pytest.raises(ValueError) as caught:
        rf.fit("counts ~ x + (1 | g)", data, family=rf.custom_family(density, ["mu"], ["log"], support="count"))
    assert says in caught.value.__notes__[0]
    assert (data["counts"] == before).all()


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (("x", ["mu"]), ArgumentError, "log_density is a function"),
        ((poisson, "mu"), ArgumentError, "list of names"),
        ((poisson, ["a", "a"]), OptionError, "different names"),
        ((poisson, list("abcde")), OptionError, "one to 4"),
        ((poisson, ["mu", "data"]), OptionError, "cannot be called 'data'"),
        ((poisson, ["mu"], ["logg"]), OptionError, "'log'"),
        ((poisson, ["mu"], "log"), ArgumentError, "links is a list"),
        ((poisson, ["mu"], ["log", "log"]), OptionError, "2 links for 1"),
        ((poisson, ["mu"], {"nu": "log"}), OptionError, "links names 'nu'"),
    ],
)
def test_families_that_make_no_sense(arguments, error, says):
    with pytest.raises(error, match=says):
        rf.custom_family(*arguments)
    with pytest.raises(OptionError, match="support"):
        rf.custom_family(poisson, ["mu"], support="counts")
    with pytest.raises(OptionError, match="start names"):
        rf.custom_family(poisson, ["mu"], start={"k": 1.0})
    for start in ({"mu": "a"}, {"mu": [1.0]}, [1.0]):
        with pytest.raises(ArgumentError, match=r"start.* number"):
            rf.custom_family(poisson, ["mu"], start=start)


def test_starts_and_responses(data):
    far = rf.custom_family(nbinom2, ["mu", "k"], ["log", "log"], support="count", start={"mu": 40.0, "k": 0.1})
    assert rf.fit("counts ~ x", data, family=far).loglik == pytest.approx(
        rf.fit("counts ~ x", data, family="nbinom2").loglik, abs=1e-7
    )
    bad = rf.custom_family(nbinom2, ["mu", "k"], ["log", "log"], support="count", start={"k": -1.0})
    with pytest.raises(OptionError, match=r"start k=-1\.0 is impossible"):
        rf.fit("counts ~ x", data, family=bad)
    with pytest.raises(DataError, match="not whole"):
        rf.fit("sizes ~ x", data, family=NB)
    with pytest.raises(NotAvailableError, match=r"^cdf of .*scipy\.stats"):
        rf.fit("cens(counts, x > 0) ~ 1", data, family=NB)
    with pytest.raises(ArgumentError, match="no argument 'kk'"):
        rf.fit("counts ~ x", data, family=NB, kk="~ x")
    four = rf.custom_family(lambda y, a, b, c, d: poisson(y, a) * b * c * d, list("abcd"), support="count")
    with pytest.raises(OptionError, match="at most 4 parameters"):
        rf.fit("counts ~ x", data, family=four, zero_inflation="~ 1")


# ---- censored responses, successes among trials ----------------------------------------------------------------------


def normal(y, mu, sigma):
    return -0.5 * ((y - mu) / sigma) ** 2 - np.log(sigma) - 0.5 * np.log(2 * np.pi)


def normal_cdf(y, mu, sigma):
    return special.ndtr((y - mu) / sigma)


def normal_survival(y, mu, sigma):
    return special.ndtr((mu - y) / sigma)


def exponential(y, mu):
    return -np.log(mu) - y / mu


def exponential_cdf(y, mu):
    return -np.expm1(-y / mu)


def exponential_survival(y, mu):
    return np.exp(-y / mu)


def betabinomial(y, p, phi, trials):
    a, b = p * phi, (1 - p) * phi
    choose = special.gammaln(trials + 1) - special.gammaln(y + 1) - special.gammaln(trials - y + 1)
    return choose + special.betaln(y + a, trials - y + b) - special.betaln(a, b)


def betabinomial_variance(p, phi, trials):
    return trials * p * (1 - p) * (phi + trials) / (phi + 1)


def betabinomial_cdf(y, p, phi, trials):
    return stats.betabinom.cdf(y, trials, p * phi, (1 - p) * phi)


def betabinomial_draw(rng, p, phi, trials):
    return rng.binomial(trials.astype(int), rng.beta(p * phi, (1 - p) * phi))


NORMAL = rf.custom_family(normal, ["mu", "sigma"], ["identity", "log"], cdf=normal_cdf, survival=normal_survival)
TRIALS = rf.custom_family(
    betabinomial,
    ["p", "phi"],
    ["logit", "log"],
    support="binomial",
    variance=betabinomial_variance,
    cdf=betabinomial_cdf,
    simulate=betabinomial_draw,
    name="own successes",
)


@pytest.fixture(scope="module")
def cut(data):
    """Left, right and interval censored rows beside observed ones."""
    status = np.arange(N) % 4
    y = np.where(status == 3, data["reals"] - 0.4, data["reals"])
    code = np.array([0, -1, 1, 2])[status]
    size = np.where(status == 3, 0.7 * data["sizes"], data["sizes"])
    return {**data, "y": y, "code": code, "upper": y + 1, "size": size, "top": 2 * data["sizes"]}


def test_censored_rows_are_those_of_the_family_that_it_writes_out(cut):
    formula = "cens(y, code, upper) ~ x + (1 | g)"
    a, b = (rf.fit(formula, cut, family=f, frequency_weights="w") for f in ("gaussian", NORMAL))
    assert b.converged
    assert b.loglik == pytest.approx(a.loglik, abs=1e-8)
    assert_allclose(b.coefficients(), a.coefficients(), atol=1e-5)  # where each search ends
    assert_allclose(np.asarray(b.vcov("all")), np.asarray(a.vcov("all")), rtol=1e-3, atol=1e-7)
    plain = rf.custom_family(normal, ["mu", "sigma"], ["identity", "log"], cdf=normal_cdf)  # 1 - cdf
    assert rf.fit(formula, cut, family=plain, frequency_weights="w").loglik == pytest.approx(a.loglik, abs=1e-7)
    assert pickle.loads(pickle.dumps(b)).loglik == b.loglik


def test_censored_rows_beside_extra_zeros(cut):
    own = rf.custom_family(
        exponential, ["mu"], ["log"], support="positive", cdf=exponential_cdf, survival=exponential_survival
    )
    rows = {**cut, "size": np.where(np.arange(N) % 8 == 0, 0.0, cut["size"]), "code": cut["code"] * (cut["code"] > 0)}
    a, b = (
        rf.fit("cens(size, code, top) ~ x + (1 | g)", rows, family=f, zero_inflation="~ x")
        for f in ("exponential", own)
    )
    assert b.loglik == pytest.approx(a.loglik, abs=1e-7)


def test_survival_keeps_its_digits_far_out():
    """Where 1 - cdf is 0 in double precision the survival function still has a logarithm."""
    rng = np.random.default_rng(2)
    d = {"y": np.r_[rng.normal(size=60), 11.0], "code": np.r_[np.zeros(60, int), 1]}
    assert rf.fit("cens(y, code) ~ 1", d, family=NORMAL, sigma=1.0).converged


@pytest.mark.parametrize("form", ["proportion", "pairs", "single"])
def test_successes_are_those_of_the_family_that_it_writes_out(data, form):
    rng = np.random.default_rng(8)
    n = np.ones(N) if form == "single" else rng.integers(1, 12, N).astype(float)
    p = special.expit(-0.3 + 0.5 * data["x"] + rng.normal(scale=0.6, size=GROUPS)[data["g"]])
    hits = betabinomial_draw(rng, p, 4.0, n).astype(float)
    d = {**data, "n": n, "hits": hits, "misses": n - hits, "share": hits / n}
    left, more = {
        "proportion": ("share", {"trials": "n"}), "pairs": ("cbind(hits, misses)", {}), "single": ("hits", {"phi": 4}),
    }[form]  # fmt: skip
    builtin = {("dispersion" if k == "phi" else k): v for k, v in more.items()}
    a = rf.fit(f"{left} ~ x + (1 | g)", d, family="betabinomial", **builtin)
    b = rf.fit(f"{left} ~ x + (1 | g)", d, family=TRIALS, **more)
    assert b.loglik == pytest.approx(a.loglik, abs=1e-7)
    assert_allclose(b.coefficients(), a.coefficients(), atol=1e-5)
    for what in ("response", "pearson", "scaled"):
        assert_allclose(b.residuals(what), a.residuals(what), atol=1e-5)
    assert_allclose(b.residuals("quantile", seed=1), a.residuals("quantile", seed=1), atol=1e-4)
    assert_allclose(b.predict(re="none"), a.predict(re="none"), rtol=1e-5)
    draws = b.simulate(200, seed=3)
    assert_allclose(draws * n[:, None], np.rint(draws * n[:, None]), atol=1e-9)
    # 200 draws of 500 proportions: their mean has a standard error of about 0.003.
    assert draws.mean() == pytest.approx(a.simulate(200, seed=4).mean(), abs=0.015)
    if form != "single":
        assert b.refit(draws[:, 0]).converged


def test_distribution_functions_that_cannot_serve(cut):
    none = rf.custom_family(normal, ["mu", "sigma"], ["identity", "log"])
    with pytest.raises(NotAvailableError, match="without cdf="):
        rf.fit("cens(y, code, upper) ~ x", cut, family=none)
    plain = rf.custom_family(normal, ["mu", "sigma"], ["identity", "log"], cdf=stats.norm.cdf)
    with pytest.raises(NotAvailableError, match="derivatives"):
        rf.fit("cens(y, code, upper) ~ x", cut, family=plain)
    with pytest.raises(OptionError, match="binomial"):
        rf.fit("counts ~ x", cut, family=NB, trials="w")
    with pytest.raises(OptionError, match="cens"):
        rf.fit("cens(y, code, upper) ~ x", cut, family=TRIALS)


def test_probabilities_that_do_not_sum_to_one_are_told():
    """A constant left out; terms of 1e80 whose difference is noise, as a dispersion that nothing holds runs away."""
    rng = np.random.default_rng(9)
    table = {"g": np.arange(240) % 12, "k": rng.poisson(3, 240), "n": rng.integers(3, 9, 240)}
    table["s"] = rng.binomial(table["n"], 0.5) / table["n"]
    own = rf.custom_family(lambda y, mu: y * np.log(mu) - mu, ["mu"], ["log"], support="count")
    with pytest.warns(rf.RanefWarning, match="lacks a constant"):
        m = rf.fit("k ~ 1 + (1 | g)", table, family=own)
    assert [n.code for n in m.messages].count("improper_density") == 1

    def lossy(y, p, phi, trials):
        choose = special.gammaln(trials + 1) - special.gammaln(y + 1) - special.gammaln(trials - y + 1)
        return choose + special.betaln(y + p * phi, trials - y + (1 - p) * phi) - special.betaln(p * phi, (1 - p) * phi)

    own = rf.custom_family(lossy, ["p", "phi"], ["logit", "log"], support="binomial")
    with pytest.warns(rf.RanefWarning, match="loses its digits"):
        rf.fit("s ~ 1 + (1 | g)", table, family=own, trials="n", phi=1e20)
    assert "improper_density" not in [
        n.code for n in rf.fit("s ~ 1 + (1 | g)", table, family=own, trials="n", phi=10.0).messages
    ]
