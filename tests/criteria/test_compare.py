"""Ranking and averaging of models."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from engines import zoo
from ranef.criteria.average import averaged
from ranef.errors import DataError, OptionError

FORMULAS = ("y ~ 1 + (1 | g)", "y ~ x + (1 | g)", "y ~ x + f + (1 | g)")


@pytest.fixture(scope="module")
def fits():
    return [rf.fit(f, zoo.data(), method="ml") for f in FORMULAS]


@pytest.mark.parametrize("criterion", ["aic", "aicc", "bic"])
def test_weights_and_order(fits, criterion):
    table = rf.compare(*fits, criterion=criterion)
    values = np.sort([getattr(m, criterion) for m in fits])
    np.testing.assert_allclose(table[criterion], values)
    np.testing.assert_allclose(table["delta"], values - values[0])
    relative = np.exp(-(values - values[0]) / 2)
    np.testing.assert_allclose(table["weight"], relative / relative.sum())
    assert isinstance(table.to_frame(), pd.DataFrame)


def test_quasi_criteria(fits):
    table = rf.compare(*fits, criterion="qaic", chat=1.7)
    by_model = dict(zip(table["model"], table["qaic"], strict=True))
    for m in fits:
        assert by_model[str(m.formula)] == pytest.approx(-2 * m.loglik / 1.7 + 2 * (m.npar + 1))
    k = np.sort([m.npar + 1 for m in fits])
    np.testing.assert_allclose(np.sort(table["qaicc"] - table["qaic"]), 2 * k * (k + 1) / (60 - k - 1))
    with pytest.raises(OptionError, match="needs the overdispersion"):
        rf.compare(*fits, criterion="qaic")
    with pytest.raises(OptionError, match="positive number"):
        rf.compare(*fits, criterion="qaic", chat=-1)
    with pytest.raises(OptionError, match="did you mean 'aicc'"):
        rf.compare(*fits, criterion="aiccc")


def test_reml_fits_and_other_responses(fits):
    reml = [rf.fit(f, zoo.data()) for f in FORMULAS]
    table = rf.compare(*reml)
    np.testing.assert_allclose(table["aicc"], rf.compare(*fits)["aicc"], atol=1e-6)
    assert "refitted by maximum likelihood: 3 of 3" in repr(table)
    with pytest.raises(DataError, match="REML likelihoods are not comparable"):
        rf.compare(*reml, refit=False)
    with pytest.raises(DataError, match=r"responses differ: 'y' and 'exp\(y\)'"):
        rf.compare(fits[0], rf.fit("exp(y) ~ x + (1 | g)", zoo.data(), method="ml"))


def test_what_criteria_cannot_tell_is_noted():
    data = zoo.data().assign(y=np.tile([0.0, 1.0, 2.0], 20) + 0.1 * zoo.data()["x"], h=np.arange(60) // 15)
    singular = rf.compare(rf.fit("y ~ x", data), rf.fit("y ~ x + (1 | h)", data))
    assert "rf.caic" in repr(singular)
    frogs = rf.datasets.load("Salamanders")
    counts = [rf.fit("count ~ mined", frogs, family="poisson", zero_inflation=z) for z in (None, "~ 1")]
    assert "conservative" in repr(rf.compare(*counts))


def test_average_by_hand(fits):
    found = rf.average(*fits, criterion="aic")
    a = np.array([m.aic for m in fits])
    w = np.exp(-(a - a.min()) / 2)
    w = w / w.sum()
    b = np.array([0.0, fits[1].params["x"], fits[2].params["x"]])
    v = np.array([0.0, fits[1].vcov().loc["x", "x"], fits[2].vcov().loc["x", "x"]])
    row = list(found.table["term"]).index("x")
    mean = w @ b
    assert found.table["estimate"][row] == pytest.approx(mean)
    assert found.table["std_error"][row] == pytest.approx(np.sqrt(w @ (v + (b - mean) ** 2)))
    share = w[1:] / w[1:].sum()
    held = share @ b[1:]
    assert found.table["conditional"][row] == pytest.approx(held)
    assert found.table["conditional_std_error"][row] == pytest.approx(np.sqrt(share @ (v[1:] + (b[1:] - held) ** 2)))
    assert found.table["importance"][row] == pytest.approx(w[1:].sum())
    assert "weight" in repr(found)


def test_average_of_one_model_is_that_model(fits):
    found = rf.average(fits[1])
    np.testing.assert_allclose(found.table["estimate"], fits[1].params)
    np.testing.assert_allclose(found.table["std_error"], np.sqrt(np.diag(fits[1].vcov())))


def test_a_dropped_coefficient_counts_as_absent():
    beta = np.array([[1.0, np.nan], [3.0, 4.0]])
    mean, error = averaged(beta, np.ones((2, 2)), np.array([0.5, 0.5]))
    np.testing.assert_allclose(mean, [2, 2])
    np.testing.assert_allclose(error, [np.sqrt(2), np.sqrt(0.5 * 4 + 0.5 * (1 + 4))])
    held, _ = averaged(beta, np.ones((2, 2)), np.array([0.5, 0.5]), conditional=True)
    np.testing.assert_allclose(held, [2, 4])


def test_averages_that_mean_little_are_noted_or_refused():
    a, b = rf.fit("y ~ x + f + (1 | g)", zoo.data()), rf.fit("y ~ x * f + (1 | g)", zoo.data())
    assert "mean different things" in repr(rf.average(a, b))
    data = rf.datasets.load("cbpp")
    links = [
        rf.fit("cbind(incidence, size - incidence) ~ period + (1 | herd)", data, family="binomial", link=link)
        for link in ("logit", "probit")
    ]
    with pytest.raises(DataError, match="different links"):
        rf.average(*links)


def test_averages_need_one_coding():
    machines = rf.datasets.load("Machines")
    m = rf.fit("score ~ Machine + (1 | Worker)", machines)
    for other in (
        rf.fit("score ~ Machine + (1 | Worker)", machines, contrasts={"Machine": "sum"}),
        rf.fit("score ~ 0 + Machine + (1 | Worker)", machines),
    ):
        with pytest.raises(DataError, match="'Machine' has other columns in"):
            rf.average(m, other)
    data = zoo.data()
    with pytest.raises(DataError, match="'x' has other columns in"):
        rf.average(rf.fit(FORMULAS[1], data), rf.fit(FORMULAS[1], {**data, "x": 2 * np.asarray(data["x"])}))


def test_what_no_model_estimates_has_no_average():
    data = {**zoo.data(), "twice": 2 * np.asarray(zoo.data()["x"])}
    table = rf.average(rf.fit("y ~ x + twice + (1 | g)", data), rf.fit("y ~ x + (1 | g)", data)).table
    row = table["term"].index("twice")
    assert np.isnan([table[name][row] for name in ("estimate", "std_error", "conf_low", "conditional")]).all()
