"""Penalised quasi-likelihood: its fixed point, what it claims, what it refuses."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose

import ranef as rf
from ranef.engines.pql import predictor, working
from ranef.errors import NotAvailableError, OptionError


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
    "frequencies": ("count ~ x + (1 | g)", {"family": "poisson", "frequency_weights": "w"}),
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
        ("count ~ x + (1 | g)", {"family": "poisson", "dispersion": 1}, OptionError, "cannot hold it"),
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
