"""Randomised responses: P(1) = c + d mu, everything reported about the prevalence mu."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.special import expit

import ranef as rf
from ranef.errors import ArgumentError, DataError, OptionError

N = 3_000


@pytest.fixture(scope="module")
def data():
    """Half of the rows by Warner's design, half by forced answers."""
    rng = np.random.default_rng(8)
    g, x, warner = rng.integers(0, 40, N), rng.normal(size=N), np.arange(N) % 2 == 0
    mu = expit(-0.5 + 0.8 * x + rng.normal(scale=0.7, size=40)[g])
    c, d = np.where(warner, 0.2, 0.05), np.where(warner, 0.6, 0.9)
    y = (rng.uniform(size=N) < c + d * mu) * 1.0
    return pd.DataFrame({"y": y, "x": x, "g": g.astype(str), "c": c, "d": d, "warner": warner})


DIRECT = {"c": "c", "d": "d"}


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_a_design_without_chance_is_the_ordinary_model(data, link):
    plain = rf.fit("y ~ x + (1 | g)", data, family="binomial", link=link)
    for design in ({"p1": 1, "p2": 0}, {"design": "kuk", "p1": 1, "p2": 0}, {"design": "warner", "p1": 1.0}):
        m = rf.fit("y ~ x + (1 | g)", data, family="binomial", link=link, randomised_response=design)
        assert m.loglik == pytest.approx(plain.loglik, abs=1e-9)
        assert_allclose(m.params, plain.params, atol=1e-7)


@pytest.mark.parametrize(
    ("design", "c", "d"),
    [
        ({"design": "warner", "p1": 0.8}, 0.2, 0.6),
        ({"design": "crosswise", "p1": 0.25}, 0.75, -0.5),
        ({"design": "UQM", "p1": 0.7, "p2": 0.5}, 0.15, 0.7),
        ({"p1": 0.9, "p2": 0.5}, 0.05, 0.9),
        ({"design": "kuk", "p1": 0.8, "p2": 0.2}, 0.2, 0.6),
        ({"design": "triangular", "p1": 0.25}, 0.25, 0.75),
        ({"c": 0.1, "d": 0.85}, 0.1, 0.85),
    ],
)
def test_prevalence_of_one_group_is_the_moment_estimator(design, c, d):
    """Maximum likelihood: mu = (mean - c) / d, variance p (1 - p) / (n d^2) (Warner 1965)."""
    n, ones = 400, 180
    y = np.repeat([1.0, 0.0], [ones, n - ones])
    m = rf.fit("y ~ 1", {"y": y}, family="binomial", link="identity", randomised_response=design)
    p = ones / n
    # the search ends where a step would gain less than 1e-9: some 1e-5 standard errors from the top
    assert m.params["(Intercept)"] == pytest.approx((p - c) / d, abs=1e-5)
    assert np.asarray(m.vcov())[0, 0] == pytest.approx(p * (1 - p) / (n * d**2), rel=1e-4)
    assert m.loglik == pytest.approx(ones * np.log(p) + (n - ones) * np.log(1 - p), abs=1e-9)
    logit = rf.fit("y ~ 1", {"y": y}, family="binomial", randomised_response=design)
    assert_allclose(logit.fitted(), (p - c) / d, rtol=1e-4)


def test_designs_by_row_recover_the_truth(data):
    m = rf.fit("y ~ x + (1 | g)", data, family="binomial", randomised_response=DIRECT)
    error = m.tidy().set_index("term")["std_error"]
    assert m.converged
    assert abs(m.params["x"] - 0.8) < 4 * error["x"]  # one draw: four standard errors
    assert abs(m.params["(Intercept)"] + 0.5) < 4 * error["(Intercept)"]
    naive = rf.fit("y ~ x + (1 | g)", data, family="binomial")
    assert naive.params["x"] < m.params["x"] - 0.1


def test_predictions_are_prevalences_and_residuals_are_of_answers(data):
    m = rf.fit("y ~ x + (1 | g)", data, family="binomial", randomised_response=DIRECT)
    mu = expit(m.predict(type="link"))
    assert_allclose(m.predict(), mu, rtol=1e-12)
    assert_allclose(m.fitted(), mu, rtol=1e-12)
    assert_allclose(m.predict(data[["x", "g"]]), mu, rtol=1e-12)
    assert m.predict(re="integrate").shape == (N,)
    chance = data["c"].to_numpy() + data["d"].to_numpy() * mu
    assert_allclose(m.residuals(), data["y"] - chance, rtol=1e-10)
    assert_allclose(m.residuals("pearson"), (data["y"] - chance) / np.sqrt(chance * (1 - chance)), rtol=1e-10)
    q = m.residuals("quantile", seed=2)
    assert abs(q.mean()) < 0.1
    assert 0.9 < q.std() < 1.1
    drawn = m.simulate(200, re="conditional", seed=1).mean(axis=1)
    assert np.abs(drawn - chance).max() < 5 * 0.5 / np.sqrt(200)
    assert m.refit(m.simulate(1, seed=1)[:, 0]).converged
    again = pickle.loads(pickle.dumps(m))
    assert_allclose(again.residuals(), m.residuals(), rtol=1e-12)
    assert "Randomised response: direct" in m.summary().replace("\n", " ")


def test_counts_and_missing_probabilities(data):
    rows = data[:200].copy()
    rows.loc[rows.index[:3], "c"] = np.nan
    m = rf.fit("y ~ x + (1 | g)", rows, family="binomial", randomised_response=DIRECT)
    assert m.nobs == 197
    assert m.layout.dropped["c"] == 3
    pairs = data.assign(one=1.0)
    a = rf.fit("cbind(y, one - y) ~ x + (1 | g)", pairs, family="binomial", randomised_response={"p1": 0.9, "p2": 0.5})
    b = rf.fit("y ~ x + (1 | g)", data, family="binomial", randomised_response={"p1": 0.9, "p2": 0.5})
    assert a.loglik == pytest.approx(b.loglik, abs=1e-8)


@pytest.mark.parametrize(
    ("design", "family", "error", "says"),
    [
        (0.8, "binomial", ArgumentError, "is a dict"),
        ({"design": "warnr", "p1": 0.8}, "binomial", OptionError, "did you mean 'warner'"),
        ({"design": "warner"}, "binomial", OptionError, "p1 is missing"),
        ({"design": "warner", "p1": 0.8, "p2": 0.1}, "binomial", OptionError, "p2 has no meaning"),
        ({"design": "warner", "p1": 0.5}, "binomial", DataError, "d = 0"),
        ({"p1": 1.5, "p2": 0.5}, "binomial", DataError, "no probability"),
        ({"c": 0.5, "d": 0.7}, "binomial", DataError, "c . d is no probability"),
        ({"p1": 0.8, "p2": 0.5}, "poisson", OptionError, "family='binomial'"),
    ],
)
def test_errors(data, design, family, error, says):
    with pytest.raises(error, match=says):
        rf.fit("y ~ x", data, family=family, randomised_response=design)


@pytest.mark.parametrize("way", ["column", "array", "factor"])
def test_every_row_has_its_design(data, way):
    rows = data.assign(
        how=np.where(data["warner"], "warner", "Forced_Response"),
        p1=np.where(data["warner"], 0.8, 0.9),
        p2=np.where(data["warner"], np.nan, 0.5),  # Warner's design has no second probability
    )
    if way == "factor":
        rows = rows.astype({"how": "category"})
    design = {"design": rows["how"].to_numpy() if way == "array" else "how", "p1": "p1", "p2": "p2"}
    m = rf.fit("y ~ x + (1 | g)", rows, family="binomial", randomised_response=design)
    direct = rf.fit("y ~ x + (1 | g)", data, family="binomial", randomised_response=DIRECT)
    assert m.nobs == N
    assert m.loglik == pytest.approx(direct.loglik, abs=1e-9)
    assert_allclose(m.residuals("quantile", seed=1), direct.residuals("quantile", seed=1), atol=1e-5)
    assert m.update("y ~ 1 + (1 | g)").nobs == N
    assert rf.drop1(m)["df"][1] == 1
    some = rows.assign(how=rows["how"].astype(object).where(np.arange(N) > 9, None))
    assert rf.fit("y ~ x", some, family="binomial", randomised_response={**design, "design": "how"}).nobs == N - 10


def test_designs_of_rows_that_make_no_sense(data):
    rows = data.assign(how=np.where(data["warner"], "warner", "forced"), odd="warnr", half=0.5)
    for design, error, says in (
        ({"design": "how", "p1": 0.8}, OptionError, "p2 is missing"),
        ({"design": "odd", "p1": 0.8}, OptionError, "did you mean 'warner'"),
        ({"design": "how", "p1": 0.8, "p2": 0.5, "c": 0.1}, OptionError, "c has no meaning"),
        ({"design": "how", "p1": "half", "p2": 0.5}, DataError, "d = 0"),
        ({"design": "hoow", "p1": 0.8}, OptionError, "'hoow' is unknown"),
        ({"design": np.array(["warner"]), "p1": 0.8}, DataError, "1 values"),
    ):
        with pytest.raises(error, match=says):
            rf.fit("y ~ x", rows, family="binomial", randomised_response=design)


@pytest.mark.parametrize("p1", [0.8, 0.2])
def test_separation_behind_randomised_answers_is_named(p1):
    """P(1) = c + d mu rises with mu or falls: what separates the answers separates mu, either way."""
    rng = np.random.default_rng(2)
    s = np.repeat([0.0, 1.0], 40)
    data = pd.DataFrame({"y": s, "s": s, "x": rng.normal(size=80)})
    with pytest.warns(rf.SeparationWarning, match="separated by s"):
        m = rf.fit("y ~ s + x", data, family="binomial", randomised_response={"design": "warner", "p1": p1})
    assert "separation" in {note.code for note in m.messages}
