"""Variance partition at given values of the covariates: closed forms."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import ranef as rf
from ranef.errors import DataError, NotAvailableError, OptionError, UnknownColumnError

DAYS = np.array([0.0, 4.0, 9.0])


@pytest.fixture(scope="module")
def sleep():
    return rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))


def around(m, x, group):
    c = m.varcorr()[group].cov
    return c[0, 0] + 2 * x * c[0, 1] + x**2 * c[1, 1]


def test_a_random_slope_in_closed_form(sleep):
    v = around(sleep, DAYS, "Subject")
    table = rf.icc(sleep, at={"Days": DAYS})
    np.testing.assert_allclose(table["icc"], v / (v + sleep.sigma**2), rtol=1e-12)
    np.testing.assert_allclose(table["variance"], v, rtol=1e-12)
    np.testing.assert_array_equal(table["Days"], DAYS)
    whole = rf.icc(sleep, at={"Days": np.arange(10)})  # every subject was seen on these days
    assert rf.icc(sleep) == pytest.approx(whole["variance"].mean() / (whole["variance"].mean() + sleep.sigma**2))


def test_a_random_intercept_has_one_value():
    m = rf.fit("Reaction ~ Days + (1 | Subject)", rf.datasets.load("sleepstudy"))
    np.testing.assert_allclose(rf.icc(m, at={"Days": DAYS})["icc"], rf.icc(m), rtol=1e-12)


def test_residual_variances_by_a_formula():
    m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"), dispersion="~ Days")
    a, b = m.coefficients("dispersion")
    v = around(m, DAYS, "Subject")
    np.testing.assert_allclose(rf.icc(m, at={"Days": DAYS})["icc"], v / (v + np.exp(2 * (a + b * DAYS))), rtol=1e-10)


def test_counts_in_closed_form():
    rng = np.random.default_rng(5)
    g, x = np.repeat(np.arange(30), 12), rng.normal(size=360)
    effects = rng.normal(size=(30, 2)) * (0.5, 0.4)
    y = rng.poisson(np.exp(0.7 + effects[g, 0] + (0.4 + effects[g, 1]) * x + 0.4 * rng.normal(size=360)))
    data = pl.DataFrame({"y": y, "x": x, "g": g, "row": np.arange(360)})
    m = rf.fit("y ~ x + (x | g) + (1 | row)", data, family="poisson")
    at = pl.DataFrame({"x": [-1.0, 0.0, 2.0]})
    table, by_group = rf.icc(m, at=at), rf.icc(m, at=at, by_group=True)
    v, own = around(m, at["x"].to_numpy(), "g"), m.varcorr()["row"].cov[0, 0]
    a, b = m.estimate.beta
    mu = np.exp(a + b * at["x"].to_numpy() + (v + own) / 2)
    np.testing.assert_allclose(table["icc"], v / (v + own + np.log1p(1 / mu)), rtol=1e-10)
    np.testing.assert_allclose(table["icc"], by_group["icc"])
    assert by_group["group"] == ["g"] * 3  # the effect of every row is residual
    delta = rf.icc(m, at=at, method="delta")
    np.testing.assert_allclose(delta["icc"], v / (v + own + 1 / mu), rtol=1e-6)  # a link's slope by differences
    assert isinstance(table.to_frame(), pl.DataFrame)


def test_proportions_and_groups():
    data = rf.datasets.load("cbpp").assign(dry=lambda d: (d["period"] == "2").astype(float), farm=lambda d: d.index % 4)
    m = rf.fit("incidence / size ~ dry + (dry || herd) + (1 | farm)", data, family="binomial", trials="size")
    table = rf.icc(m, at={"dry": [0.0, 1.0]}, by_group=True)
    herd, farm = m.varcorr()["herd"].cov[0, 0], m.varcorr()["farm"].cov[0, 0]
    slope = m.varcorr()["herd"].cov[1, 1]
    expected = np.array([herd, herd + slope, farm, farm])
    np.testing.assert_allclose(table["variance"], expected, atol=1e-12)
    total = np.tile([herd + farm, herd + slope + farm], 2) + np.pi**2 / 3
    np.testing.assert_allclose(table["icc"], expected / total, atol=1e-12)


def test_refusals(sleep):
    with pytest.raises(OptionError, match="do not vary"):
        rf.icc(sleep, "conditional", at={"Days": [0]})
    with pytest.raises(UnknownColumnError, match="Days"):
        rf.icc(sleep, at={"days": [0.0]})
    with pytest.raises(DataError, match="misses a value in row 1"):
        rf.icc(sleep, at={"Days": [0.0, np.nan]})
    with pytest.raises(OptionError, match="lognormal"):
        rf.icc(sleep, at={"Days": [0.0]}, method="lognormaal")
    with pytest.raises(NotAvailableError, match="slim"):
        rf.icc(sleep.slim(), at={"Days": [0.0]})
    with pytest.raises(NotAvailableError, match="no random effects"):
        rf.icc(rf.fit("Reaction ~ Days", rf.datasets.load("sleepstudy")), at={"Days": [0.0]})
