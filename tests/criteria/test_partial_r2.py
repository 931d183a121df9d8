"""Semi-partial R2 of fixed terms."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

import ranef as rf
from engines import zoo
from golden import reference
from ranef.errors import NotAvailableError, OptionError, RanefWarning


def test_beside_r2glmm():
    raw = {r["Effect"]: r["Rsq"] for r in reference.load("post_exam_r2").raw["r2glmm_nsj"]}
    m = rf.fit("normexam ~ standLRT + sex + schgend + (standLRT | school)", rf.datasets.load("Exam"))
    table = rf.partial_r2(m)
    assert list(table["term"]) == ["model", "standLRT", "sex", "schgend"]
    assert list(table["df"]) == [4, 1, 1, 2]
    ours = dict(zip(table["term"], table["r2"], strict=True))
    for name, value in raw.items():
        # Ratios of variances at R's optimum, which is good to about 1e-6 of a variance.
        assert ours["model" if name == "Model" else name] == pytest.approx(value, rel=1e-5)


def test_the_faq_of_orthodont():
    """r2glmm prints .410 for the model, .261, .021 and .002 for age, Sex and their interaction."""
    m = rf.fit("distance ~ age * Sex + (1 | Subject)", rf.datasets.load("Orthodont"))
    np.testing.assert_allclose(sorted(rf.partial_r2(m)["r2"], reverse=True), [0.410, 0.261, 0.021, 0.002], atol=6e-4)


def test_generalised_variance_beside_r2glmm():
    raw = {r["Effect"]: r["Rsq"] for r in reference.load("post_exam_r2").raw["r2glmm_sgv"]}
    m = rf.fit("normexam ~ standLRT + sex + schgend + (standLRT | school)", rf.datasets.load("Exam"))
    table = rf.partial_r2(m, method="sgv")
    ours = dict(zip(table["term"], table["r2"], strict=True))
    for name, value in raw.items():
        assert ours["model" if name == "Model" else name] == pytest.approx(value, rel=1e-5)  # R's optimum, as above
    dental = rf.fit("distance ~ age * Sex + (1 | Subject)", rf.datasets.load("Orthodont"))
    assert rf.partial_r2(dental, method="sgv")["r2"][0] == pytest.approx(0.559, abs=5e-4)


def test_generalised_variance_of_dense_matrices():
    data = zoo.data()
    m = rf.fit("y ~ x + (x | g)", data, precision_weights="w", method="ml")
    table, blocks = rf.partial_r2(m, method="sgv"), []
    for _, rows in data.groupby("g"):
        z = np.column_stack([np.ones(len(rows)), rows["x"]])
        v = z @ m.varcorr()["g"].cov @ z.T + np.diag(m.sigma**2 / rows["w"])
        blocks.append(np.linalg.det(v) ** (1 / len(rows)))
    k = 60 / len(blocks)
    w = m.estimate.beta[1] ** 2 * np.sum((data["x"] - data["x"].mean()) ** 2) / stats.gmean(blocks)
    expected = w / (w + 60 - k * (k + 1) / 2 - (k - 1))
    np.testing.assert_allclose(table["r2"], expected, rtol=1e-9)
    with pytest.raises(NotAvailableError, match="more than there are rows"):
        rf.partial_r2(rf.fit("y ~ x + (1 | g) + (1 | h)", data), method="sgv")
    with pytest.raises(OptionError, match="leave one out"):
        rf.partial_r2(m, method="sgv", ddf="satterthwaite")
    for other in (rf.fit("y ~ x", data), rf.fit("y ~ x + (1 | g)", data, dispersion="~ x")):
        with pytest.raises(NotAvailableError, match="linear mixed model"):
            rf.partial_r2(other, method="sgv")


def test_uncorrelated_terms_share_the_model():
    x, z = np.meshgrid([-1.0, 1.0], [-1.0, 0.0, 1.0])
    data = {"x": np.tile(x.ravel(), 10), "z": np.tile(z.ravel(), 10), "g": np.repeat(np.arange(10), 6)}
    rng = np.random.default_rng(1)
    data["y"] = data["x"] + 0.5 * data["z"] + rng.normal(size=60) + rng.normal(size=10)[data["g"]]
    table = rf.partial_r2(rf.fit("y ~ x + z + (1 | g)", data))
    odds = table["r2"] / (1 - table["r2"])
    assert odds[1:].sum() == pytest.approx(odds[0])


@pytest.mark.parametrize(
    "formula", ["y ~ poly(x, 2) + f + (1 | g)", "y ~ x + I(2 * x) + f:z + (1 | g)", "y ~ 0 + f + x"]
)
def test_columns_belong_to_their_terms(formula):
    data = zoo.data().copy()
    data.loc[0, "x"] = np.nan
    m = rf.fit(formula, pl.from_pandas(data), offset=np.zeros(60))
    table = rf.partial_r2(m)
    own = table["df"] > 0  # a term that is a combination of others explains nothing of its own
    assert ((table["r2"] >= 0) & (table["r2"] <= 1))[own].all()
    assert np.isnan(table["r2"][~own]).all()
    assert isinstance(table.to_frame(), pl.DataFrame)


def test_r2_from_f_tests():
    """r2glmm prints .671 for the model, .074 for the interaction and .004 for Sex, by Kenward-Roger."""
    m = rf.fit("distance ~ age * Sex + (1 | Subject)", rf.datasets.load("Orthodont"))
    table = rf.partial_r2(m, ddf="kenward-roger")
    found = dict(zip(table["term"], table["r2"], strict=True))
    assert found["model"] == pytest.approx(0.671, abs=6e-4)
    assert found["age:Sex"] == pytest.approx(0.074, abs=6e-4)
    assert found["Sex"] == pytest.approx(0.004, abs=6e-4)
    last = rf.drop1(m, test="F", ddf="kenward-roger")
    f, nu = last["statistic"][0], last["dendf"][0]
    assert found["age:Sex"] == pytest.approx(f / (f + nu))
    with (
        pytest.warns(RanefWarning, match="27 groups"),
        pytest.raises(NotAvailableError, match="no denominator degrees of freedom"),
    ):
        rf.partial_r2(m, ddf="inf")


def test_a_factor_without_an_intercept_explains_what_it_does_with_one():
    machines = rf.datasets.load("Machines")
    tables = [rf.partial_r2(rf.fit(f"score ~ {x}Machine + (1 | Worker)", machines)) for x in ("", "0 + ")]
    np.testing.assert_array_equal(tables[0]["df"], tables[1]["df"])
    np.testing.assert_allclose(tables[0]["r2"], tables[1]["r2"], rtol=1e-6)  # of two searches for one optimum


def test_nothing_to_explain():
    with pytest.raises(NotAvailableError, match="no predictors that vary"):
        rf.partial_r2(rf.fit("y ~ 1 + (1 | g)", zoo.data()))
