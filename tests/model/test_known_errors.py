"""Responses with known standard errors, `se(y, sd)`: meta-analysis."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import ranef as rf
from ranef.errors import DataError, NotAvailableError, OptionError

# Estimates and log-likelihoods of metafor 3.8-1, rma() and rma.mv(), of data sets that it ships.
BCG_YI = [
    -0.88931133, -1.58538866, -1.34807315, -1.44155119, -0.21754732, -0.78611559, -1.62089822, 0.01195233, -0.46941765,
    -1.37134480, -0.33935883, 0.44591340, -0.01731395,
]  # fmt: skip
BCG_VI = [
    0.325584765, 0.194581121, 0.415367965, 0.020010032, 0.051210172, 0.006905618, 0.223017248, 0.003961579, 0.056434210,
    0.073024794, 0.012412214, 0.532505845, 0.071404660,
]  # fmt: skip


@pytest.fixture(scope="module")
def bcg():
    sd = np.sqrt(BCG_VI)
    return {"trial": np.arange(13), "yi": np.array(BCG_YI), "sei": sd, "vi": np.array(BCG_VI)}


def test_metafor(bcg):
    m = rf.fit("se(yi, sei) ~ 1 + (1 | trial)", bcg)
    # the data are rounded to eight digits; metafor's restricted likelihood has half the log-determinant of X'X more
    assert m.method == "reml"
    assert m.converged
    assert not m.messages
    assert m.params["(Intercept)"] == pytest.approx(-0.71453234, abs=1e-6)
    assert m.tidy()["std_error"][0] == pytest.approx(0.17978152, abs=1e-6)
    assert m.estimate.roots[0][0, 0] ** 2 == pytest.approx(0.31324326, abs=1e-6)
    assert m.loglik + 0.5 * np.log(13) == pytest.approx(-12.20237142, abs=1e-6)


def test_marginal_density(bcg):
    """Against the normal densities of the sums of both variances."""
    m = rf.fit("se(yi, sqrt(vi)) ~ 1 + (1 | trial)", bcg, method="ml")
    total = bcg["vi"] + m.estimate.roots[0][0, 0] ** 2
    z2 = (bcg["yi"] - m.params["(Intercept)"]) ** 2 / total
    assert m.loglik == pytest.approx(-0.5 * (np.log(2 * np.pi * total) + z2).sum(), abs=1e-10)


def test_fixed_effect_model(bcg):
    """Without random effects: inverse-variance weights, and their sum for the precision."""
    m = rf.fit("se(yi, sei) ~ 1", bcg, method="ml")
    w = 1 / bcg["vi"]
    assert m.params["(Intercept)"] == pytest.approx((w * bcg["yi"]).sum() / w.sum(), rel=1e-12)
    assert m.tidy()["std_error"][0] == pytest.approx(w.sum() ** -0.5, rel=1e-7)


def test_what_follows(bcg):
    frame = pl.DataFrame(bcg).with_columns(pl.when(pl.col("trial") == 3).then(None).otherwise("sei").alias("sei"))
    m = rf.fit("se(yi, sei) ~ 1 + (1 | trial)", frame)
    assert m.layout.n == 12  # a missing standard error drops the row
    assert "known sampling variances" in str(m)
    assert m.update(method="ml").method == "ml"
    sims = m.simulate(400, seed=1)
    expected = np.sqrt(frame.drop_nulls()["vi"].to_numpy() + m.estimate.roots[0][0, 0] ** 2)
    assert sims.std(axis=1) == pytest.approx(expected, rel=0.15)  # 400 draws: 3.5 % standard error, four of them
    assert m.refit(sims[:, 0]).converged
    assert len(m.predict(interval="prediction")) == 12
    assert m.predict({"trial": np.array([99])}, re="none") == pytest.approx([m.params["(Intercept)"]])
    for asked in ({"interval": "prediction"}, {"type": "dispersion"}):
        with pytest.raises(NotAvailableError, match=r"lack the columns of se\(yi, sei\)"):
            m.predict({"trial": np.array([99])}, re="none", **asked)


def test_new_rows_bring_their_standard_errors(bcg):
    m = rf.fit("se(yi, sqrt(vi)) ~ 1 + (1 | trial)", bcg)
    table = {"trial": bcg["trial"], "vi": bcg["vi"]}
    np.testing.assert_allclose(m.predict(table, type="dispersion"), np.sqrt(bcg["vi"]), rtol=1e-12)
    for column in ("estimate", "conf_low", "conf_high"):
        inside, new = m.predict(interval="prediction")[column], m.predict(table, interval="prediction")[column]
        np.testing.assert_allclose(new, inside, rtol=1e-12)
    with pytest.raises(DataError, match="standard error is positive"):
        m.predict({**table, "vi": 0 * np.asarray(bcg["vi"])}, type="dispersion")


@pytest.mark.parametrize(
    ("response", "arguments", "error", "says"),
    [
        ("se(yi, -sei)", {}, DataError, "standard error is positive.*row"),
        ("se(yi, sei)", {"dispersion": 1.0}, OptionError, "leave dispersion= out"),
        ("se(yi, sei)", {"dispersion": "~ vi"}, OptionError, "leave dispersion= out"),
        ("se(yi, sei)", {"precision_weights": "vi"}, OptionError, "leave precision_weights= out"),
        ("se(yi, sei)", {"family": "student_t"}, OptionError, "gaussian"),
    ],
)
def test_refused(bcg, response, arguments, error, says):
    with pytest.raises(error, match=says):
        rf.fit(f"{response} ~ 1 + (1 | trial)", bcg, **arguments)
