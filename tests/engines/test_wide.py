"""Fixed factors of many levels as nodes of the sparse system: the same model as with their dummies written out.

Every fit is made twice, with the threshold `WIDE` above and below the sizes here; the dense path is the reference (it
is compared with other packages elsewhere). Both take the same formulas through different eliminations, so they differ
by rounding only: criterion 1e-8 absolute, and where the search ends they agree as far as its tolerance makes them.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import ranef as rf
from many_levels import TIGHT, islands, people
from ranef.errors import DataError, NotAvailableError, RanefWarning, UnseenLevelError
from ranef.frame import Indicators, blocks


@dataclass
class Pair:
    """The same model both ways."""

    dense: rf.Fit
    wide: rf.Fit


def pair(monkeypatch: pytest.MonkeyPatch, formula: str, data: Any, **arguments: Any) -> Pair:
    monkeypatch.setattr(blocks, "WIDE", 10**9)
    dense = rf.fit(formula, data, control=TIGHT, **arguments)
    monkeypatch.setattr(blocks, "WIDE", 8)
    wide = rf.fit(formula, data, control=TIGHT, **arguments)
    assert any(isinstance(b.contrast, Indicators) for b in wide.design.fixed)
    return Pair(dense, wide)


MODELS = {
    "intercepts": ("y ~ firm + year + x + (1 | worker)", {}),
    "slopes": ("y ~ x + g + firm + (1 + x | worker)", {}),
    "uncorrelated": ("y ~ firm + x + (1 + x || worker)", {}),
    "crossed, weights, offset": (
        "y ~ firm + year + x + (1 | worker) + (1 | g)", {"precision_weights": "w", "offset": "o"}
    ),
    "all levels": ("y ~ 0 + firm + x + (1 | worker)", {}),
    "interaction of others": ("y ~ g * x + firm + (1 | worker)", {}),
    "no random effects": ("y ~ firm + year + x", {"precision_weights": "w"}),
    "two factors": ("y ~ x + firm + worker + (1 | g)", {}),
    "two factors alone": ("y ~ 0 + worker + firm + x", {}),
    "nothing else": ("y ~ firm + (1 | worker)", {}),
    "levels alone": ("y ~ 0 + firm + (1 | worker)", {}),
    "nothing else at all": ("y ~ 0 + firm", {}),
}  # fmt: skip


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("name", MODELS)
def test_both_ways_give_one_model(monkeypatch: pytest.MonkeyPatch, name: str, method: str) -> None:
    formula, arguments = MODELS[name]
    both = pair(monkeypatch, formula, people(), method=method, **arguments)
    a, b = both.dense, both.wide
    assert b.criterion == pytest.approx(a.criterion, abs=1e-8)
    assert (b.npar, b.df_residual, b.nobs) == (a.npar, a.df_residual, a.nobs)
    assert b.layout.fixed == a.layout.fixed
    # The flattest direction of these likelihoods turns a deviance of 1e-11 into a relative step of about 1e-6.
    np.testing.assert_allclose(b.theta, a.theta, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(b.estimate.beta, a.estimate.beta, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(b.tidy()["std_error"], a.tidy()["std_error"], rtol=1e-6)
    columns = b.core.columns
    np.testing.assert_allclose(b.ddf[columns], a.ddf[columns], rtol=1e-4)  # second derivatives
    for re in ("all", "none"):
        found, known = (m.predict(re=re, std_error=True) for m in (b, a))
        np.testing.assert_allclose(found, known, rtol=1e-5, atol=1e-6)
    for group, modes in a.ranef(std_error=True).items():
        numbers = modes.select_dtypes("number")
        np.testing.assert_allclose(b.ranef(std_error=True)[group][numbers.columns], numbers, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("name", [n for n, (f, _) in MODELS.items() if "|" in f])
def test_criterion_and_gradient_anywhere(monkeypatch: pytest.MonkeyPatch, name: str, reml: bool) -> None:
    """At one theta nothing depends on a search: rounding only (1e-10 of sums of squares about 1e4)."""
    formula, arguments = MODELS[name]
    both = pair(monkeypatch, formula, people(), **arguments)
    theta = np.array(both.dense.theta) * 1.7 + 0.1
    a, b = (m.core.evaluate(theta, reml) for m in (both.dense, both.wide))
    assert b["criterion"] == pytest.approx(a["criterion"], abs=1e-8)
    np.testing.assert_allclose(b["gradient"], a["gradient"], rtol=1e-7, atol=1e-7)
    h = [m.core.hessian(theta, 1.3, reml) for m in (both.dense, both.wide)]
    np.testing.assert_allclose(h[1], h[0], rtol=1e-5, atol=1e-5 * np.abs(h[0]).max())  # differences where two are wide


def test_rows_with_missing_values_go_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    data = people()
    data.loc[[3, 7], "x"] = np.nan
    data.loc[11, "firm"] = None
    both = pair(monkeypatch, "y ~ firm + x + (1 | worker)", data)
    assert both.wide.nobs == len(data) - 3
    assert both.wide.criterion == pytest.approx(both.dense.criterion, abs=1e-8)


# ---- what cannot be estimated ----------------------------------------------------------------------------------------


def test_a_column_constant_within_the_factor_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    both = pair(monkeypatch, "y ~ firm + size + x + (1 | worker)", people())
    names = both.wide.layout.fixed
    assert [names[j] for j in both.wide.estimate.dropped] == ["size"]
    assert both.wide.estimate.dropped == both.dense.estimate.dropped
    assert both.wide.criterion == pytest.approx(both.dense.criterion, abs=1e-8)
    assert "size is a linear combination of other columns" in str(both.wide)


@pytest.mark.parametrize("formula", ["y ~ x + worker + firm", "y ~ 0 + firm + worker + x + (1 | g)"])
def test_one_level_too_many_a_set_of_levels_that_hang_together(monkeypatch: pytest.MonkeyPatch, formula: str) -> None:
    both = pair(monkeypatch, formula, islands())
    assert len(both.wide.estimate.dropped) == 3
    assert both.wide.estimate.dropped == both.dense.estimate.dropped
    assert both.wide.npar == both.dense.npar
    assert both.wide.criterion == pytest.approx(both.dense.criterion, abs=1e-8)
    np.testing.assert_allclose(both.wide.estimate.beta, both.dense.estimate.beta, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(both.wide.tidy()["std_error"], both.dense.tidy()["std_error"], rtol=1e-6)
    np.testing.assert_allclose(both.wide.fitted(), both.dense.fitted(), atol=1e-7)


def test_as_many_coefficients_as_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "WIDE", 8)
    data = pd.DataFrame({"y": np.arange(20.0), "firm": [f"f{i}" for i in range(20)], "g": np.arange(20) % 5})
    with pytest.raises(DataError, match="20 independent fixed effects, 20 observations"):
        rf.fit("y ~ firm + (1 | g)", data)


# ---- closed form, at size --------------------------------------------------------------------------------------------


def test_large_linear_model_is_the_within_estimator() -> None:
    """Without random effects: least squares on deviations from the means of firms (Frisch, Waugh & Lovell)."""
    rng = np.random.default_rng(5)
    n, firms = 40_000, 8_000  # more than a contrast matrix could have
    firm = np.concatenate([np.arange(firms), rng.integers(0, firms, n - firms)])
    x = rng.normal(size=n) + 0.001 * firm
    y = rng.normal(size=firms)[firm] + 0.7 * x + rng.normal(size=n)
    m = rf.fit("y ~ firm + x", {"y": y, "x": x, "firm": np.array([f"f{i:05d}" for i in firm])})
    count = np.bincount(firm)
    xm, ym = np.bincount(firm, x) / count, np.bincount(firm, y) / count
    dx, dy = x - xm[firm], y - ym[firm]
    slope = dx @ dy / (dx @ dx)
    s2 = ((dy - slope * dx) ** 2).sum() / (n - firms - 1)
    level = (ym - slope * xm)[1:] - (ym - slope * xm)[0]
    table = {name: np.asarray(column) for name, column in m.tidy().items()}
    assert m.df_residual == n - firms - 1
    assert m.sigma == pytest.approx(np.sqrt(s2), rel=1e-10)
    np.testing.assert_allclose(table["estimate"][-1], slope, rtol=1e-9)
    np.testing.assert_allclose(table["std_error"][-1], np.sqrt(s2 / (dx @ dx)), rtol=1e-9)
    np.testing.assert_allclose(table["estimate"][1:-1], level, rtol=1e-8, atol=1e-8)
    error = np.sqrt(s2 * (1 / count[1:] + 1 / count[0] + (xm[1:] - xm[0]) ** 2 / (dx @ dx)))
    np.testing.assert_allclose(table["std_error"][1:-1], error, rtol=1e-8)
    assert set(table["df"]) == {float(n - firms - 1)}


# ---- what a fit answers ----------------------------------------------------------------------------------------------


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Pair:
    return pair(monkeypatch, "y ~ firm + year + x + (1 | worker)", people())


def test_small_parts_of_the_covariance_are_there_and_the_whole_is_not(
    both: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, p = both.wide.layout.fixed, len(both.wide.layout.fixed)
    known, found = both.dense.estimate.vcov, both.wide.estimate.vcov
    at = np.array([0, 3, 7, p - 2, p - 1])
    np.testing.assert_allclose(found[np.ix_(at, at)], known[np.ix_(at, at)], rtol=1e-6)
    np.testing.assert_allclose(found[p - 2 :, p - 2 :], known[p - 2 :, p - 2 :], rtol=1e-6)
    np.testing.assert_allclose(found[5, 0], known[5, 0], rtol=1e-6)
    np.testing.assert_allclose(both.wide.vcov(), known, rtol=1e-6, atol=1e-9)
    combinations = np.random.default_rng(0).normal(size=(3, p))
    np.testing.assert_allclose(found.between(combinations), combinations @ known @ combinations.T, rtol=1e-6)
    monkeypatch.setattr("ranef.engines.covariance.MOST_WHOLE", 300)
    with pytest.raises(NotAvailableError, match="covariance matrix of all 42 coefficients"):
        both.wide.vcov()
    with pytest.raises(NotAvailableError):
        np.linalg.inv(found)
    for hypothesis in (f"{names[3]} - {names[7]}", "x - 0.5", f"year - {names[2]}"):
        a, b = (rf.contrast(m, hypothesis, ddf="residual") for m in (both.dense, both.wide))
        np.testing.assert_allclose(b.select_dtypes("number"), a.select_dtypes("number"), rtol=1e-6)
    a, b = (rf.contrast(m, ["x", "year"], joint=True) for m in (both.dense, both.wide))
    np.testing.assert_allclose(b.select_dtypes("number"), a.select_dtypes("number"), rtol=1e-4)


def test_tables(both: Pair) -> None:
    a, b = both.dense.tidy(ddf="residual"), both.wide.tidy(ddf="residual")
    pd.testing.assert_frame_equal(b, a, rtol=1e-5)
    with pytest.warns(RanefWarning, match="too small"):
        pd.testing.assert_frame_equal(both.wide.tidy(ddf="inf"), both.dense.tidy(ddf="inf"), rtol=1e-5)
    pd.testing.assert_frame_equal(both.wide.tidy(), both.dense.tidy(), rtol=1e-5)
    assert "are residual ones" not in str(both.wide)
    pd.testing.assert_frame_equal(both.wide.glance(), both.dense.glance(), rtol=1e-6)


def test_degrees_of_freedom_of_very_many_levels_are_residual_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    m = pair(monkeypatch, "y ~ firm + year + x + (1 | worker)", people()).wide
    monkeypatch.setattr("ranef.inference.ddf.satterthwaite.QUICK", 1)
    assert set(m.tidy().iloc[1:40]["df"]) == {float(500 - 42)}  # rows less coefficients
    assert "Degrees of freedom of levels of firm are residual ones." in " ".join(str(m).split())
    exact = rf.contrast(m, "firmf001")["df"][0]  # a solve
    assert exact == pytest.approx(rf.contrast(m, {"firmf001": 1.0})["df"][0])
    assert exact < 500 - 42


def test_summary_shows_the_first_levels(both: Pair) -> None:
    text = str(both.wide)
    assert "firmf005" in text
    assert "firmf006" not in text
    assert "… and 34 more levels of firm: tidy() has all." in text
    assert "levels of firm" in both.wide._repr_html_()


def test_new_rows(both: Pair) -> None:
    new = people(seed=9).head(50)
    for arguments in ({}, {"re": "none"}, {"interval": "prediction"}):
        a, b = (m.predict(new, std_error=True, **arguments) for m in (both.dense, both.wide))
        pd.testing.assert_frame_equal(b, a, rtol=1e-5)
    with pytest.raises(UnseenLevelError, match="firm"):
        both.wide.predict(new.assign(firm="elsewhere"))
    a, b = (
        m.predict(new.assign(worker="new"), new_levels="population", std_error=True) for m in (both.dense, both.wide)
    )
    pd.testing.assert_frame_equal(b, a, rtol=1e-5)


def test_other_fits(both: Pair) -> None:
    y = both.dense.simulate(3, seed=1)
    np.testing.assert_allclose(both.wide.simulate(3, seed=1), y, rtol=1e-6)
    again = [m.refit(y[:, 0]) for m in (both.dense, both.wide)]
    assert again[1].criterion == pytest.approx(again[0].criterion, abs=1e-8)
    np.testing.assert_allclose(again[1].tidy()["std_error"], again[0].tidy()["std_error"], rtol=1e-5)
    lrt = [rf.anova(m.update(". ~ . - firm"), m) for m in (both.dense, both.wide)]
    for column in ("chisq", "df", "p_value"):
        np.testing.assert_allclose(lrt[1][column][1], lrt[0][column][1], rtol=1e-7)
    smaller = [m.update(". ~ . - (1 | worker) + (1 | g)") for m in (both.dense, both.wide)]
    reml = [rf.anova(s, m.update(". ~ . + (1 | g)")) for s, m in zip(smaller, (both.dense, both.wide), strict=True)]
    np.testing.assert_allclose(reml[1]["chisq"][1], reml[0]["chisq"][1], rtol=1e-7)
    assert not any("refitted" in str(note) for note in reml[1].notes)


def test_fits_to_many_responses_share_the_factor(both: Pair) -> None:
    y = both.dense.simulate(3, seed=1)
    many = rf.fit_many("~ firm + year + x + (1 | worker)", people(), y)
    one = both.wide.refit(y[:, 1])
    assert many.estimates[1].criterion == pytest.approx(one.criterion, abs=1e-7)
    np.testing.assert_allclose(many.estimates[1].beta, one.estimate.beta, rtol=1e-5)
    found = many.tidy()
    mine = found[found["response"] == "y2"].reset_index(drop=True)
    np.testing.assert_allclose(mine["std_error"], one.tidy()["std_error"], rtol=1e-5)  # where two searches ended
    again = pickle.loads(pickle.dumps(many)).tidy()
    np.testing.assert_allclose(again["std_error"], found["std_error"], rtol=1e-10)


@pytest.mark.parametrize("way", ["pickle", "slim", "slim pickled"])
def test_copies(both: Pair, way: str) -> None:
    m = both.wide.slim() if "slim" in way else both.wide
    m = pickle.loads(pickle.dumps(m)) if "pickle" in way else m
    pd.testing.assert_frame_equal(m.tidy(), both.wide.tidy(), rtol=1e-8)
    row = people().head(3)
    pd.testing.assert_frame_equal(m.predict(row, std_error=True), both.wide.predict(row, std_error=True), rtol=1e-8)
    one, other = (rf.contrast(x, "firmf001 - firmf002")["std_error"][0] for x in (m, both.wide))
    assert one == pytest.approx(other, rel=1e-8)


def test_frames_of_other_kinds(both: Pair) -> None:
    m = rf.fit("y ~ firm + year + x + (1 | worker)", pl.from_pandas(people()), control=TIGHT)
    assert isinstance(m.estimate.vcov, type(both.wide.estimate.vcov))
    assert m.criterion == pytest.approx(both.wide.criterion, abs=1e-8)
    assert isinstance(m.tidy(), pl.DataFrame)


def test_profiles_are_of_the_other_parameters(both: Pair) -> None:
    wanted = ["x", "sd((Intercept) | worker)"]
    a, b = (rf.profile(m, wanted).confint() for m in (both.dense, both.wide))
    pd.testing.assert_frame_equal(b, a, rtol=1e-5)
    named = [rf.profile(m, ["firmf003", "x"]).confint() for m in (both.dense, both.wide)]
    pd.testing.assert_frame_equal(named[1], named[0], rtol=1e-6)
    assert "profiled where it is named" in rf.profile(both.wide, "fixed").failed["firmf003"]


# ---- where dummies are still written out -----------------------------------------------------------------------------


def test_other_engines_and_contrasts_keep_their_dummies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "WIDE", 8)
    data = people()
    data["count"] = np.arange(len(data)) % 3
    for formula, arguments in (
        ("count ~ firm + (1 | worker)", {"family": "poisson"}),
        ("y ~ firm + (1 | worker)", {"contrasts": {"firm": "sum"}}),
        ("y ~ firm + (1 | worker)", {"contrasts": {"firm": ("treatment", "f010")}}),
    ):
        m = rf.fit(formula, data, **arguments)
        assert not any(isinstance(b.contrast, Indicators) for b in m.design.fixed)
    m = rf.fit("y ~ firm + (1 | worker)", data, contrasts={"firm": ("treatment", "f000")})
    assert isinstance(m.design.fixed[1].contrast, Indicators)


@pytest.mark.parametrize(
    ("formula", "arguments"),
    [
        ("y ~ firm + (1 | g)", {"contrasts": {"firm": "sum"}}),
        ("y ~ firm * x + (1 | g)", {}),
        ("z ~ firm + (1 | g)", {"family": "poisson"}),
    ],
)
def test_too_many_dummies_are_refused(formula: str, arguments: dict[str, Any]) -> None:
    rng = np.random.default_rng(3)
    n = 16_000
    data = {
        "y": rng.normal(size=n), "z": rng.integers(0, 3, n), "x": rng.normal(size=n),
        "firm": np.array([f"f{i:05d}" for i in np.arange(n) // 2]), "g": rng.integers(0, 9, n),
    }  # fmt: skip
    with pytest.raises(NotAvailableError, match=r"fixed factor 'firm' has 8000 levels|8000 cells"):
        rf.fit(formula, data, **arguments)


def test_a_third_factor_keeps_its_dummies(monkeypatch: pytest.MonkeyPatch) -> None:
    both = pair(monkeypatch, "y ~ firm + worker + third + x", people().assign(third=[f"t{i % 11}" for i in range(500)]))
    kinds = [type(b.contrast) for b in both.wide.design.fixed if b.codes is not None]
    assert kinds == [Indicators, Indicators, np.ndarray]
    assert both.wide.criterion == pytest.approx(both.dense.criterion, abs=1e-8)
