"""Penalised quasi-likelihood: its fixed point, what it claims, what it refuses."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose

import ranef as rf
from ranef.engines.pql import predictor, working
from ranef.errors import DataError, NotAvailableError, OptionError


def data(n=240, seed=4):
    rng = np.random.default_rng(seed)
    g, h, x = np.arange(n) % 20, np.arange(n) % 6, rng.normal(size=n)
    eta = 1.2 + 0.4 * x + 0.5 * rng.normal(size=20)[g] + 0.3 * rng.normal(size=6)[h]
    size = rng.integers(3, 12, n).astype(float)
    return {
        "g": g, "h": h, "x": x, "size": size, "w": rng.integers(1, 4, n).astype(float),
        "count": rng.poisson(np.exp(eta)).astype(float),
        "share": rng.binomial(size.astype(int), 1 / (1 + np.exp(-eta))) / size,
        "time": rng.gamma(3.0, np.exp(eta) / 3.0),
        "one": (rng.uniform(size=n) < 1 / (1 + np.exp(-eta))).astype(float),
    }  # fmt: skip


DATA = data()
CASES = {
    "poisson": ("count ~ x + (1 | g)", {"family": "poisson"}),
    "crossed slopes": ("count ~ x + (x | g) + (1 | h)", {"family": "poisson"}),
    "trials": ("share ~ x + (1 | g)", {"family": "binomial", "trials": "size"}),
    "probit": ("one ~ x + (1 | g)", {"family": "binomial", "link": "probit"}),
    "gamma": ("time ~ x + (1 | g)", {"family": "gamma", "link": "log"}),
    "offset": ("count ~ x + offset(log(size)) + (1 | g)", {"family": "poisson"}),
    "rank deficient": ("count ~ x + I(2 * x) + (1 | g)", {"family": "poisson"}),
    "log-link gaussian": ("time ~ x + (1 | g)", {"link": "log"}),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_the_fixed_point_of_the_working_model(case):
    formula, arguments = CASES[case]
    m = rf.fit(formula, DATA, method="pql", **arguments)
    assert m.converged
    z, w = working(m.design, m.distribution, predictor(m.design, m.estimate))
    columns = {**DATA, "z": z - (0 if m.design.offset is None else m.design.offset), "ww": w}
    again = rf.fit(
        formula.replace(formula.split(" ~")[0], "z").replace("offset(log(size)) + ", ""),
        columns, precision_weights="ww", method="ml",
    )  # fmt: skip
    assert_allclose(np.nan_to_num(m.params), np.nan_to_num(again.params), rtol=1e-5, atol=1e-6)
    assert_allclose(m.sigma, again.sigma, rtol=1e-5)
    assert_allclose(m.theta, again.theta, rtol=1e-4, atol=1e-4)


SMALL = data(60)


def dense_pql(m, y, z, v, slope, phi):
    """Coefficients, their standard errors and the standard deviation of (1 | g) by Breslow & Clayton's equations."""
    from scipy.optimize import minimize_scalar

    x, eta = np.column_stack([np.ones(len(y)), SMALL["x"]]), np.asarray(m.predict(type="link")) + 0.01 * SMALL["x"]
    for _ in range(15):
        mu, d = z(eta), slope(eta)
        work, noise = eta + (y - mu) / d, phi * v(mu) / d**2

        def fitted(log_sd, work=work, noise=noise):
            cov = np.exp(2 * log_sd) * np.equal.outer(SMALL["g"], SMALL["g"])
            total = np.linalg.inv(cov + np.diag(noise))
            inner = np.linalg.inv(x.T @ total @ x)
            beta = inner @ x.T @ total @ work
            rest = total @ (work - x @ beta)
            return (work - x @ beta) @ rest - np.linalg.slogdet(total)[1], beta, inner, x @ beta + cov @ rest

        found = minimize_scalar(lambda s: fitted(s)[0], bounds=(-4, 1), method="bounded", options={"xatol": 1e-9})
        _, beta, inner, eta = fitted(found.x)
    return beta, np.sqrt(np.diag(inner)), np.exp(found.x)


HELD = {
    "poisson": ("count", {"family": "poisson", "dispersion": 1}, np.exp, lambda mu: mu, np.exp, 1.0),
    "more than poisson": ("count", {"family": "poisson", "dispersion": 1.7}, np.exp, lambda mu: mu, np.exp, 1.7),
    "gamma": ("time", {"family": "gamma", "link": "log", "dispersion": 3}, np.exp, np.square, np.exp, 1 / 3),
    "gaussian": ("time", {"link": "log", "dispersion": 2}, np.exp, np.ones_like, np.exp, 4.0),
    "bernoulli": (
        "one", {"family": "binomial", "dispersion": 1}, lambda e: 1 / (1 + np.exp(-e)), lambda mu: mu * (1 - mu),
        lambda e: np.exp(-e) / (1 + np.exp(-e)) ** 2, 1.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HELD)
def test_a_dispersion_that_is_held(case):
    response, arguments, inverse, variance, slope, phi = HELD[case]
    m = rf.fit(f"{response} ~ x + (1 | g)", SMALL, method="pql", **arguments)
    beta, errors, sd = dense_pql(m, np.asarray(SMALL[response]), inverse, variance, slope, phi)
    assert_allclose(m.sigma**2, phi, rtol=1e-12)
    assert m.npar == 3
    # One search ends at 1e-8 of a standard deviation's logarithm, the other at 1e-7 of the predictor.
    assert_allclose(m.params, beta, rtol=1e-5)
    assert_allclose(m.tidy("fixed")["std_error"], errors, rtol=1e-5)
    assert_allclose(m.varcorr()["g"].sd, sd, rtol=1e-5)
    assert np.isnan(m.tidy("ran_pars")["std_error"].iloc[-1])
    assert "held at" in str(m.summary())
    again = pickle.loads(pickle.dumps(m))
    assert_allclose(again.tidy()["std_error"], m.tidy()["std_error"], rtol=1e-12)


def test_a_held_dispersion_has_no_part_in_degrees_of_freedom():
    """With sigma known a balanced mean has those of the groups: its variance is a multiple of chi-square with 19."""
    balanced = {"g": np.repeat(np.arange(20), 12), "y": 40 + np.random.default_rng(1).poisson(60, 240)}
    m = rf.fit("y ~ 1 + (1 | g)", balanced, family="poisson", method="pql", dispersion=1e-4)
    assert_allclose(m.tidy("fixed")["df"], 20, rtol=0.02)  # ML: 2 v^2 / Var(v) with 20 groups, noise nearly none


def test_a_held_dispersion_of_one_draws_responses():
    m = rf.fit("count ~ x + (1 | g)", DATA, family="poisson", method="pql", dispersion=1)
    assert m.simulate(2, seed=1).shape == (240, 2)


@pytest.mark.parametrize("dispersion", [None, 1])
def test_a_frequency_is_that_many_rows(dispersion):
    rows = np.repeat(np.arange(240), DATA["w"].astype(int))
    written = {name: values[rows] for name, values in DATA.items()}
    arguments = {"family": "poisson", "method": "pql", "dispersion": dispersion}
    m = rf.fit("count ~ x + (1 | g)", DATA, frequency_weights="w", **arguments)
    n = rf.fit("count ~ x + (1 | g)", written, **arguments)
    assert_allclose(m.params, n.params, rtol=1e-10)  # the same sums in another order
    assert_allclose(m.sigma, n.sigma, rtol=1e-10)
    assert m.df_residual == n.df_residual
    for effects in ("fixed", "ran_pars"):
        assert_allclose(m.tidy(effects)["std_error"], n.tidy(effects)["std_error"], rtol=1e-8)


def test_there_is_no_likelihood():
    m = rf.fit("count ~ x + (1 | g)", DATA, family="poisson", method="pql")
    assert np.isnan([m.loglik, m.aic, m.bic, m.criterion]).all()
    assert "no_likelihood" in [n.code for n in m.messages]
    assert "quasi-likelihood" in str(m.summary())
    assert "logLik" not in str(m.summary())


def test_small_outcomes_draw_the_warning_of_bias():
    binary = rf.fit("one ~ x + (1 | g)", DATA, family="binomial", method="pql")
    assert "pql_bias" in [n.code for n in binary.messages]
    large = rf.fit("I(count + 40) ~ x + (1 | g)", DATA, family="poisson", method="pql")
    assert "pql_bias" not in [n.code for n in large.messages]


def test_everything_a_fit_answers():
    m = rf.fit("count ~ x + (x | g)", DATA, family="poisson", method="pql")
    again = pickle.loads(pickle.dumps(m))
    assert_allclose(again.predict(), m.fitted(), rtol=1e-12)
    found = m.predict(interval="confidence")
    assert (np.asarray(found["conf_low"]) < m.fitted()).all()
    simple = rf.fit("count ~ x + (1 | g)", DATA, family="poisson", method="pql")
    assert np.isfinite(simple.tidy("ran_pars")["std_error"]).all()
    assert np.isfinite(m.tidy("fixed")["df"]).all()
    assert_allclose(m.slim().predict(DATA, re="none"), m.predict(re="none"), rtol=1e-12)
    assert_allclose(m.refit(DATA["count"]).params, m.params, rtol=1e-12)
    assert_allclose(m.update(".~.").params, m.params, rtol=1e-12)
    assert np.isfinite(m.residuals("pearson")).all()


def test_a_dispersion_near_one_gives_what_laplace_gives():
    rng = np.random.default_rng(0)
    g = np.arange(2000) % 40
    y = rng.poisson(np.exp(3 + 0.4 * rng.normal(size=40)[g])).astype(float)
    d = {"y": y, "g": g}
    pql = rf.fit("y ~ 1 + (1 | g)", d, family="poisson", method="pql")
    laplace = rf.fit("y ~ 1 + (1 | g)", d, family="poisson")
    # Counts of 20: the working response is nearly normal, so that the bias is far below a standard error (0.06).
    assert_allclose(pql.params, laplace.params, atol=2e-3)
    assert abs(pql.sigma - 1) < 0.05


@pytest.mark.parametrize(
    ("formula", "arguments", "error", "words"),
    [
        ("count ~ x + (1 | g)", {"family": "nbinom2"}, NotAvailableError, "variance"),
        ("count ~ x + (1 | g)", {"family": "poisson", "zero_inflation": "~ 1"}, NotAvailableError, "variance"),
        ("count ~ x", {"family": "poisson"}, OptionError, "random effects"),
        ("time ~ x + (1 | g)", {}, OptionError, "linear model"),
        ("time ~ x + (1 | g)", {"family": "gamma", "dispersion": "~ x"}, OptionError, "dispersion"),
        ("count ~ x + (1 | g)", {"family": "poisson", "dispersion": 0}, OptionError, "positive number"),
        ("count ~ x + (1 | g)", {"family": "poisson", "quadrature": 5}, OptionError, "quadrature"),
        ("count ~ x + cs(0 + factor(h) | g)", {"family": "poisson"}, NotAvailableError, "cs"),
    ],
)
def test_refusals(formula, arguments, error, words):
    with pytest.raises(error, match=words):
        rf.fit(formula, DATA, method="pql", **arguments)


def test_no_distribution_has_that_dispersion():
    m = rf.fit("count ~ x + (1 | g)", DATA, family="poisson", method="pql")
    with pytest.raises(NotAvailableError, match="sigma"):
        m.simulate()


def test_the_dispersion_is_predicted():
    size = {**DATA, "size": np.exp(0.3 * DATA["x"]) * np.random.default_rng(2).gamma(4, 0.25, len(DATA["x"]))}
    m = rf.fit("size ~ x + (1 | g)", size, family="gamma", method="pql")
    assert_allclose(m.predict(type="dispersion"), 1 / m.sigma**2)


def test_separation_is_named_where_it_ends_the_iteration():
    rng = np.random.default_rng(0)
    f, g = np.arange(200) % 4, np.repeat(np.arange(20), 10)
    data = {"b": np.where(f == 2, 1.0, rng.integers(0, 2, 200)), "f": f.astype(str), "g": g}
    says = r"separated by f2 \('2' of 'f': 1 in all 50 rows\); with method='ml' a prior .* or penalty='firth'"
    with pytest.raises(DataError, match=says):
        rf.fit("b ~ f + (1 | g)", data, family="binomial", method="pql")
    level = {**data, "k": np.where(f == 2, 0, rng.poisson(3, 200))}
    with pytest.warns(rf.SeparationWarning, match="with method='ml' a prior"), pytest.warns(rf.ConvergenceWarning):
        rf.fit("k ~ f + (1 | g)", level, family="poisson", method="pql")


def test_means_out_of_range_are_told():
    """Their rows have next to no weight: half of them here have no say in the slope."""
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=100), np.arange(100) % 10
    y = (rng.random(100) < np.clip(0.5 + 0.3 * x, 0.02, 0.98)).astype(int)
    with pytest.warns(rf.RanefWarning, match=r"means left the range of binomial \(0 to 1\) .*next to no weight"):
        m = rf.fit("y ~ x + (1 | g)", {"y": y, "x": x, "g": g}, family="binomial", link="identity", method="pql")
    note = next(n for n in m.messages if n.code == "illegal_means")
    eta = np.asarray(m.predict(type="link"))
    assert note.evidence["rows"] == np.count_nonzero((eta <= 0) | (eta >= 1))
    plain = rf.fit("y ~ x + (1 | g)", {"y": y, "x": x, "g": g}, family="binomial", method="pql")
    assert not any(n.code == "illegal_means" for n in plain.messages)
