"""Firth's penalty: published estimates, the estimating equations, and separation."""

from __future__ import annotations

import numpy as np
import pytest

import ranef as rf
from ranef.errors import NotAvailableError, OptionError

# Endometrial cancer (Heinze & Schemper 2002): neovasculation NV, pulsatility index PI, endometrium height EH, grade HG.
# NV separates the grades.
NV = "0" * 21 + "1" * 5 + "0" * 21 + "1111" + "0" * 19 + "1" + "000" + "11" + "010"
PI = (
    "13 16 8 34 20 5 17 10 26 17 8 7 20 10 18 16 18 8 29 12 20 38 22 7 25 15 7 28 11 19 10 10 18 14 21 11 17 25 16 19 "
    "15 33 24 48 12 19 2 22 40 5 0 21 15 29 15 12 3 20 23 12 22 42 15 13 14 19 12 13 10 12 49 6 5 17 11 21 5 19 33"
)
EH = (
    "1.64 2.26 3.14 2.68 1.28 2.31 1.8 1.68 1.56 2.31 2.01 1.89 3.15 1.23 1.27 1.76 2 2.64 .88 1.27 1.37 .97 1.14 .88 "
    ".91 .58 .97 1.5 1.33 2.37 1.82 3.13 1.31 1.92 1.64 2.01 1.88 1.93 2.11 1.29 1.72 .75 1.92 1.84 1.11 1.61 1.18 "
    "1.44 1.18 .93 1.17 1.19 1.06 2.02 2.29 2.33 2.9 1.7 1.41 2.25 1.54 1.97 1.75 2.16 2.57 1.37 3.61 2.04 2.17 1.69 "
    ".27 1.84 1.3 .96 1.01 .98 .35 1.02 .85"
)
HG = "0" * 17 + "1" * 10 + "0" * 16 + "1" * 10 + "0" * 16 + "1" * 10


def endometrial():
    return {
        "NV": np.array([float(v) for v in NV]),
        "PI": np.array([float(v) for v in PI.split()]),
        "EH": np.array([float(v) for v in EH.split()]),
        "HG": np.array([float(v) for v in HG]),
    }


def test_published_estimates():
    # Kosmidis & Firth; brglm2's vignette prints four decimals.
    m = rf.fit("HG ~ NV + PI + EH", endometrial(), family="binomial", penalty="firth")
    assert np.asarray(m.params) == pytest.approx([3.7746, 2.9293, -0.03475, -2.6042], abs=6e-5)
    assert np.sqrt(np.diag(m.vcov())) == pytest.approx([1.4887, 1.5508, 0.0396, 0.7760], abs=6e-5)
    assert m.converged
    assert not m.separation
    assert "Jeffreys" in m.summary()


def penalised_score(x, y, trials, beta):
    """Return Firth's score U + X'(h (1/2 - mu)) and the information, of a logistic regression."""
    mu = 1 / (1 + np.exp(-x @ beta))
    w = trials * mu * (1 - mu)
    info = x.T @ (w[:, None] * x)
    h = w * np.einsum("ij,jk,ik->i", x, np.linalg.inv(info), x)
    return x.T @ (trials * (y - mu) + h * (0.5 - mu)), info


@pytest.mark.parametrize("weighted", [False, True])
def test_it_solves_firths_equations(weighted):
    rng = np.random.default_rng(5)
    x = rng.normal(10, 3, 40)
    trials = rng.integers(1, 6, 40).astype(float)
    y = rng.binomial(trials.astype(int), 1 / (1 + np.exp(2 - 0.2 * x))) / trials
    counts = {"frequency_weights": "w"} if weighted else {}
    data = {"y": y, "x": x, "n": trials, "w": np.arange(40) % 3 + 1.0}
    m = rf.fit("y ~ x", data, family="binomial", trials="n", penalty="firth", **counts)
    weight = trials * data["w"] if weighted else trials
    score, info = penalised_score(np.column_stack([np.ones(40), x]), y, weight, np.asarray(m.params))
    # In units of standard errors: the search ends with a decrease of the deviance below 1e-9.
    assert np.abs(np.linalg.solve(np.linalg.cholesky(info), score)).max() < 1e-4
    assert np.asarray(m.vcov()) == pytest.approx(np.linalg.inv(info), rel=1e-4)


def test_the_criterion_is_in_the_units_of_the_data():
    data = endometrial()
    m = rf.fit("HG ~ NV + PI + EH", data, family="binomial", penalty="firth")
    x = np.column_stack([np.ones(79), data["NV"], data["PI"], data["EH"]])
    info = penalised_score(x, data["HG"], np.ones(79), np.asarray(m.params))[1]
    assert m.criterion == pytest.approx(-2 * m.loglik - np.linalg.slogdet(info)[1], rel=1e-10)
    assert m.aic == pytest.approx(-2 * m.loglik + 8, rel=1e-12)


def test_poisson_with_an_empty_cell():
    y = np.array([0, 0, 0, 0, 2, 3, 1, 4], float)
    group = np.repeat(["a", "b"], 4)
    m = rf.fit("y ~ group", {"y": y, "group": group}, family="poisson", penalty="firth")
    # A saturated log-linear model: Firth's penalty adds 1/2 to each cell's count.
    assert np.exp(np.cumsum(np.asarray(m.params))) == pytest.approx([0.5 / 4, 10.5 / 4], rel=1e-5)


def test_separated_groups_stay_finite():
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(15), 6)
    x = rng.normal(size=90)
    z = (rng.random(90) < 0.25).astype(float)
    y = (rng.random(90) < 1 / (1 + np.exp(-x))).astype(float)
    y[z > 0] = 1.0
    data = {"y": y, "x": x, "z": z, "g": g}
    with pytest.warns(rf.SeparationWarning, match="penalty='firth'"):
        rf.fit("y ~ x + z + (1 | g)", data, family="binomial")
    m = rf.fit("y ~ x + z + (1 | g)", data, family="binomial", penalty="firth")
    assert 1 < m.params["z"] < 8
    assert m.converged
    assert m.criterion < rf.fit("y ~ x + z", data, family="binomial", penalty="firth").criterion + 1e-8


@pytest.mark.parametrize("family", ["nbinom2", "gaussian", "cumulative"])
def test_other_families_say_so(family):
    with pytest.raises(NotAvailableError, match=r"firth.*binomial"):
        rf.fit("y ~ x", {"y": np.arange(4.0), "x": np.ones(4)}, family=family, penalty="firth")


def test_other_criteria_say_so():
    data = endometrial()
    with pytest.raises(OptionError, match="penalty='lasso'"):
        rf.fit("HG ~ NV", data, family="binomial", penalty="lasso")
    with pytest.raises(OptionError, match="method='map'"):
        rf.fit("HG ~ NV", data, family="binomial", penalty="firth", method="reml")
    with pytest.raises(OptionError, match="quadrature=0"):
        rf.fit("HG ~ NV", data, family="binomial", penalty="firth", quadrature=0)


def test_not_with_randomised_responses():
    """Their observed information is not the expected one, which Jeffreys' prior is made of."""
    frame = {"y": np.array([0, 1, 1, 0, 1, 0]), "x": np.arange(6.0)}
    with pytest.raises(NotAvailableError, match="firth"):
        rf.fit("y ~ x", frame, family="binomial", penalty="firth", randomised_response={"design": "warner", "p1": 0.8})
