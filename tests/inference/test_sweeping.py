"""Inference beside fixed factors of many levels: what holds for the fit with their dummies holds for the sparse one.

Every fit is made twice, with the threshold `WIDE` above and below the sizes here, both to a search tolerance that
rounding sets: all numbers agree to 1e-6 (the flattest direction of a likelihood turns a deviance of 1e-12 into that).
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from many_levels import TIGHT, islands, people
from ranef.errors import NotAvailableError, RanefWarning
from ranef.frame import blocks
from ranef.inference import whole_factor
from ranef.inference.dummies import written_out
from ranef.inference.terms import fixed_terms

FORMULA = "y ~ firm + year + x + g + (1 | worker)"


def two(monkeypatch: pytest.MonkeyPatch, formula: str, data: Any, **arguments: Any) -> tuple[rf.Fit, rf.Fit]:
    """The fit with dummies and the sparse one."""
    monkeypatch.setattr(blocks, "WIDE", 10**9)
    dense = rf.fit(formula, data, control=TIGHT, **arguments)
    monkeypatch.setattr(blocks, "WIDE", 8)
    return dense, rf.fit(formula, data, control=TIGHT, **arguments)


def numbers(value: Any) -> np.ndarray:
    """All numbers of whatever a function returns, in one row."""
    if isinstance(value, dict):
        return numbers(list(value.values()))
    if isinstance(value, (list, tuple)):
        return np.concatenate([np.empty(0), *(numbers(v) for v in value)])
    if isinstance(value, pd.DataFrame):
        return value.select_dtypes("number").to_numpy(float).ravel()
    if isinstance(getattr(value, "columns", None), dict):
        return numbers([v for v in value.columns.values() if np.asarray(v).dtype.kind in "fi"])
    if hasattr(value, "__dataclass_fields__"):
        parts = [getattr(value, name) for name in value.__dataclass_fields__]
        return numbers([v for v in parts if isinstance(v, (int, float, np.ndarray, tuple)) and not isinstance(v, bool)])
    found = np.asarray(value)
    return found.astype(float).ravel() if found.dtype.kind in "fiub" else np.empty(0)


def same(found: Any, known: Any, rtol: float = 1e-6) -> None:
    a, b = numbers(known), numbers(found)
    assert len(a) > 0
    np.testing.assert_allclose(b, a, rtol=rtol, atol=rtol * 1e-3 * max(1.0, np.abs(a[np.isfinite(a)]).max(initial=0.0)))


# ---- terms -----------------------------------------------------------------------------------------------------------

MODELS = {
    "first": ("y ~ firm + year + x + (1 | worker)", {}),
    "between": ("y ~ x + firm + g + year + (1 | worker)", {}),
    "last, slopes": ("y ~ x + g + firm + (1 + x | worker)", {}),
    "weights, offset": ("y ~ g * x + firm + (1 | worker)", {"precision_weights": "w", "offset": "o"}),
    "all levels": ("y ~ 0 + firm + x + (1 | worker)", {}),
    "beside another coded in full": ("y ~ 0 + g + firm + x + (1 | worker)", {}),
    "two": ("y ~ x + firm + worker + (1 | g)", {}),
    "two alone": ("y ~ 0 + worker + firm + x", {}),
    "inside an interaction": ("y ~ firm + g:x + g + (1 | worker)", {}),
    "contained": ("y ~ third * firm + x + (1 | worker)", {}),
    "a column that depends on it": ("y ~ firm + size + x + (1 | worker)", {}),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_terms(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    formula, arguments = MODELS[name]
    data = people(n=400, firms=12).assign(third=[f"t{i % 3}" for i in range(400)])
    a, b = two(monkeypatch, formula, data, **arguments)
    for ddf in ("satterthwaite", "kenward-roger", "residual"):
        for kind in (1, 2, 3):
            same(rf.anova(b, type=kind, ddf=ddf), rf.anova(a, type=kind, ddf=ddf))
        same(rf.drop1(b, test="F", ddf=ddf), rf.drop1(a, test="F", ddf=ddf))
        same(b.tidy(ddf=ddf), a.tidy(ddf=ddf))


def test_terms_of_an_estimate_on_the_boundary(monkeypatch: pytest.MonkeyPatch) -> None:
    data = people()
    data["y"] = np.random.default_rng(4).normal(size=len(data)) + data["x"]
    a, b = two(monkeypatch, "y ~ x + firm + (1 | g)", data)
    assert len(b.boundary) == len(a.boundary) == 1
    same(rf.anova(b), rf.anova(a))
    same(rf.anova(b, ddf="kenward-roger"), rf.anova(a, ddf="kenward-roger"))


def test_a_column_before_the_factor_that_spans_it_is_tested_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """With dummies the last level is dropped, here the column is: sequential tests are the same spaces of columns."""
    a, b = two(monkeypatch, "y ~ size + firm + x + (1 | worker)", people())
    assert a.estimate.dropped != b.estimate.dropped
    found, known = rf.anova(b, type=1, ddf="kenward-roger"), rf.anova(a, type=1, ddf="kenward-roger")
    assert found["numdf"].tolist() == [1, 38, 1]
    same(found, known)


def test_levels_that_alias_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = two(monkeypatch, "y ~ x + worker + firm + (1 | g)", islands())
    for kind in (1, 2, 3):
        same(rf.anova(b, type=kind, ddf="kenward-roger"), rf.anova(a, type=kind, ddf="kenward-roger"))


def test_rows_with_missing_values(monkeypatch: pytest.MonkeyPatch) -> None:
    data = people()
    data.loc[[3, 7], "x"] = np.nan
    data.loc[11, "firm"] = None
    a, b = two(monkeypatch, FORMULA, data)
    same(rf.anova(b), rf.anova(a))
    same(rf.robust(b, kind="CR1"), rf.robust(a, kind="CR1"))


# ---- every function --------------------------------------------------------------------------------------------------

NEW = people(seed=9).head(20)
Y = np.random.default_rng(8).normal(size=(500, 3))
QUESTIONS: dict[str, Callable[[rf.Fit], Any]] = {
    "glance": lambda m: m.glance(),
    "tidy": lambda m: m.tidy(["fixed", "ran_pars", "ran_vals"], conf_int=True),
    "tidy, kenward-roger": lambda m: m.tidy(ddf="kenward-roger"),
    "tidy, inner-outer": lambda m: m.tidy(ddf="inner-outer"),
    "tidy, between-within": lambda m: m.tidy(ddf="between-within"),
    "tidy, robust": lambda m: m.tidy(vcov="CR2"),
    "levels": lambda m: rf.contrast(m, ["firmf003 - firmf007", "firmf003 - x", "year"]),
    "levels, kenward-roger": lambda m: rf.contrast(m, ["firmf003 - firmf007", "x"], ddf="kenward-roger"),
    "levels jointly": lambda m: rf.contrast(m, ["firmf003 - firmf007", "firmf003 - x", "x"], joint=True),
    "levels jointly, kr": lambda m: rf.contrast(m, ["firmf003 - firmf007", "x"], joint=True, ddf="kenward-roger"),
    "levels jointly, robust": lambda m: rf.contrast(m, ["firmf003 - firmf007", "x"], joint=True, vcov="CR2"),
    "anova, robust": lambda m: rf.anova(m, vcov="CR1"),
    "anova, models": lambda m: rf.anova(m.update(". ~ . - x"), m),
    "anova, other columns": lambda m: rf.anova(m.update(". ~ . - x + I(x * 2)"), m.update(". ~ . + I(x^2)")),
    "drop1": rf.drop1,
    "add1": lambda m: rf.add1(m, "x:year"),
    "confint": rf.confint,
    "confint, profile": lambda m: rf.confint(m, method="profile", which=["x", "firmf003", "sd((Intercept) | worker)"]),
    "confint, boot": lambda m: rf.confint(m, method="boot", n=12, seed=1),
    "bootstrap of residuals": lambda m: rf.bootstrap(m, n=4, kind="residual", seed=1).values,
    "bootstrap of cases": lambda m: rf.bootstrap(m, n=4, kind="cases", seed=1).values,
    "wild bootstrap": lambda m: rf.bootstrap(m, n=4, kind="wild", seed=1).values,
    "robust": rf.robust,
    "vcov": lambda m: m.vcov(),
    "vcov, kenward-roger": lambda m: m.vcov(kind="kenward-roger"),
    "vcov, CR3": lambda m: m.vcov(kind="CR3"),
    "estfun": rf.estfun,
    "information": rf.information,
    "expected information": lambda m: rf.information(m, kind="expected"),
    "predict": lambda m: m.predict(NEW, interval="prediction", std_error=True),
    "augment": lambda m: m.augment(),
    "simulate": lambda m: m.simulate(2, seed=3),
    "refit": lambda m: m.refit(Y[:, 0]).tidy(),
    "update": lambda m: m.update(". ~ . - x").tidy(),
    "pickle": lambda m: rf.anova(pickle.loads(pickle.dumps(m)), ddf="kenward-roger"),
    "slim": lambda m: [m.slim().vcov(), rf.contrast(m.slim(), ["firmf003 - firmf007", "x"])],
    "slim, kenward-roger": lambda m: rf.contrast(m.slim(), "x", ddf="kenward-roger"),
    "kenward-roger of maximum likelihood": lambda m: [
        rf.anova(m.update(method="ml"), ddf="kenward-roger"),
        m.update(method="ml").tidy(ddf="kenward-roger"),
    ],
    "r2": rf.r2,
    "icc": rf.icc,
    "caic": rf.caic,
    "repeatability": rf.repeatability,
    "variances": rf.variance_decomposition,
    "partial r2": rf.partial_r2,
    "partial r2, F": lambda m: rf.partial_r2(m, ddf="kenward-roger"),
    "ranova": rf.ranova,
    "exact_rlrt": lambda m: rf.exact_rlrt(m, n=50, seed=1),
    "exact_lrt": lambda m: rf.exact_lrt(m, n=50, seed=1),
    "pb_test": lambda m: rf.pb_test(m.update(". ~ . - x", method="ml"), m.update(method="ml"), n=5, seed=1),
    "permutation of a column": lambda m: rf.permutation_test(m, "x", n=5, seed=1),
    "permutation of a factor": lambda m: rf.permutation_test(m, "g", n=5, seed=1),
    "permutation of groups": lambda m: rf.permutation_test(m, "(1 | worker)", n=5, seed=1),
    "compare": lambda m: rf.compare(m.update(method="ml"), m.update(". ~ . - x", method="ml")),
    "average": lambda m: rf.average(m.update(method="ml"), m.update(". ~ . - x", method="ml")).table,
    "vuong": lambda m: rf.vuong(m.update(". ~ . - x", method="ml"), m.update(". ~ . - year", method="ml")),
    "marginal": rf.marginal_coefficients,
    "ranef": lambda m: list(m.ranef(std_error=True).values()),
    "coef": lambda m: list(m.coef().values()),
    "residuals": lambda m: m.residuals("scaled"),
    "fit_many": lambda m: rf.fit_many(m.formula, m.data, Y, control=TIGHT).tidy(),
    "clusters in time": lambda m: rf.cluster_permutation_test(
        "~" + str(m.formula).split("~")[1], m.data, Y, "x", n=5, seed=1).statistic,
}  # fmt: skip


@pytest.fixture(scope="module")
def both() -> tuple[rf.Fit, rf.Fit]:
    with pytest.MonkeyPatch.context() as patch:
        return two(patch, FORMULA, people())


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_function_answers_as_with_dummies(
    monkeypatch: pytest.MonkeyPatch, both: tuple[rf.Fit, rf.Fit], question: str
) -> None:
    ask, answers = QUESTIONS[question], []
    for m, threshold in zip(both, (10**9, 8), strict=True):
        monkeypatch.setattr(blocks, "WIDE", threshold)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RanefWarning)
            answers.append(ask(m))
    # Refits of drawn data end where the search's usual tolerance lets them.
    same(answers[1], answers[0], 1e-5 if "bootstrap" in question or "boot" in question else 1e-6)


def test_summary_by_other_methods(both: tuple[rf.Fit, rf.Fit]) -> None:
    for arguments in ({"ddf": "kenward-roger"}, {"vcov": "CR2"}):
        text, known = (m.summary(**arguments) for m in (both[1], both[0]))
        row = next(line for line in known.splitlines() if line.startswith(" year "))
        assert row.split() in [line.split() for line in text.splitlines()]
        assert "residual ones" not in text


def test_the_fit_with_dummies_is_the_same_model(both: tuple[rf.Fit, rf.Fit]) -> None:
    a, b = both
    twin = written_out(b)
    assert twin is written_out(b)
    assert written_out(a) is a
    assert twin.core.evaluate(np.array(b.theta), True)["criterion"] == pytest.approx(b.criterion, abs=1e-8)
    np.testing.assert_allclose(twin.estimate.vcov, np.asarray(b.estimate.vcov), rtol=1e-8, atol=1e-10)


# ---- more levels than a matrix has -----------------------------------------------------------------------------------


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch, both: tuple[rf.Fit, rf.Fit]) -> tuple[rf.Fit, rf.Fit]:
    """The same fits where matrices of all coefficients count as too large."""
    dense, wide = both
    monkeypatch.setattr("ranef.engines.covariance.MOST_WHOLE", 300)
    return dense, pickle.loads(pickle.dumps(wide))


@pytest.mark.parametrize("ddf", ["satterthwaite", "residual", "inner-outer", "between-within"])
def test_terms_beside_very_many_levels(large: tuple[rf.Fit, rf.Fit], ddf: str) -> None:
    a, b = large
    for kind in (2, 3):
        found, known = rf.anova(b, type=kind, ddf=ddf), rf.anova(a, type=kind, ddf=ddf)
        same(found.iloc[1:], known.iloc[1:])
        # The factor itself, from what the penalised residual sum of squares loses without it.
        same(found[["sumsq", "numdf", "statistic"]].iloc[0], known[["sumsq", "numdf", "statistic"]].iloc[0])
        if ddf != "satterthwaite":
            assert found["dendf"][0] == known["dendf"][0]
    found, known = (rf.drop1(m, test="F", ddf=ddf) for m in (b, a))
    np.testing.assert_allclose(found["statistic"], known["statistic"], rtol=1e-6)


WHOLE = ["between", "last, slopes", "weights, offset", "all levels", "two", "a column that depends on it"]


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("name", WHOLE)
def test_whole_factors_have_fai_and_cornelius_degrees(monkeypatch: pytest.MonkeyPatch, name: str, method: str) -> None:
    formula, arguments = MODELS[name]
    _, b = two(monkeypatch, formula, people(n=400, firms=12), method=method, **arguments)
    by_type, drops = [rf.anova(b, type=kind).set_index("term") for kind in (2, 3)], rf.drop1(b, test="F")
    monkeypatch.setattr(whole_factor, "WIDE", 8)
    for kind, by_rows in zip((2, 3), by_type, strict=True):
        found = rf.anova(b, type=kind).set_index("term")
        same(found[["sumsq", "numdf", "statistic"]], by_rows[["sumsq", "numdf", "statistic"]])
        same(found.drop(["firm", "worker"], errors="ignore"), by_rows.drop(["firm", "worker"], errors="ignore"))
        # All eigenvectors are found; those of the rows of types I and II are of combinations scaled otherwise.
        assert found["dendf"]["firm"] == pytest.approx(by_rows["dendf"]["firm"], rel=0.03)
    same(rf.drop1(b, test="F")["statistic"], drops["statistic"])


def uneven(levels: int, groups: int, rows: int, few: int, seed: int = 0) -> pd.DataFrame:
    """Levels of two rows or more, the first of which rest on three groups alone."""
    rng = np.random.default_rng(seed)
    f = np.concatenate([np.repeat(np.arange(levels), 2), rng.integers(0, levels, rows)])
    n = len(f)
    g = np.where(f < few, rng.integers(0, 3, n), rng.integers(0, groups, n))
    y = rng.normal(size=groups)[g] + rng.normal(size=n) + 0.3 * rng.normal(size=levels)[f]
    return pd.DataFrame({"y": y, "x": rng.normal(size=n), "f": [f"f{i}" for i in f], "g": [f"g{i}" for i in g]})


@pytest.mark.parametrize("design", [(400, 40, 3000, 20), (400, 150, 300, 100)])
@pytest.mark.parametrize("formula", ["y ~ f + x + (1 | g)", "y ~ 0 + f + x + (1 | g)", "y ~ 0 + f + x + (x | g)"])
def test_windows_of_the_spectrum_stand_for_all_eigenvectors(
    monkeypatch: pytest.MonkeyPatch, formula: str, design: tuple[int, int, int, int]
) -> None:
    monkeypatch.setattr(blocks, "WIDE", 8)
    m = rf.fit(formula, uneven(*design))
    known = rf.anova(m)["dendf"][0]
    monkeypatch.setattr(whole_factor, "WIDE", 8)
    assert rf.anova(m)["dendf"][0] == pytest.approx(known, rel=5e-3)  # 160 vectors for 400
    factor = next(t for t in fixed_terms(m, "mean") if t.label == "f")
    assert whole_factor.fai_cornelius(m, factor)[1] < 5e-3 * known


def test_equal_eigenvalues_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    # Blocks of levels twice in each of two groups: the matrix has few eigenvalues, each many times.
    monkeypatch.setattr(blocks, "WIDE", 8)
    rng = np.random.default_rng(4)
    f = np.repeat(np.arange(60), 4)
    g = f // 6 * 2 + np.tile([0, 0, 1, 1], 60)
    y = rng.normal(size=20)[g] + rng.normal(size=240)
    m = rf.fit("y ~ 0 + f + (1 | g)", {"f": [f"f{i:02d}" for i in f], "g": g, "y": y})
    known = float(rf.anova(m)["dendf"][0])
    monkeypatch.setattr(whole_factor, "WIDE", 8)
    assert float(rf.anova(m)["dendf"][0]) == pytest.approx(known, rel=5e-3)


@pytest.mark.parametrize("name", WHOLE)
def test_covariances_of_combinations_with_all_coefficients(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    formula, arguments = MODELS[name]
    _, b = two(monkeypatch, formula, people(n=400, firms=12), **arguments)
    rows = np.random.default_rng(0).normal(size=(3, len(b.estimate.beta)))
    rows[:, np.isnan(b.estimate.beta)] = 0
    whole = np.nan_to_num(np.asarray(b.estimate.vcov))
    np.testing.assert_allclose(b.core.covariance_with_rows(rows), rows @ whole, rtol=1e-8, atol=1e-10)


def test_whole_factors_by_rules_and_by_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    _, b = two(monkeypatch, FORMULA, people())
    ways = [{"ddf": "residual"}, {"ddf": "between-within"}, {"ddf": "kenward-roger"}, {"vcov": "CR1"}]
    known = [rf.anova(b, **way) for way in ways]
    alone = rf.fit("y ~ firm + x", people())
    plain = rf.anova(alone)
    first = rf.anova(b, type=1)
    monkeypatch.setattr(whole_factor, "WIDE", 8)
    for way, expected in zip(ways, known, strict=True):
        same(rf.anova(b, **way), expected)
    same(rf.anova(alone), plain)
    same(rf.anova(b, type=1), first)  # before others: their rows


def test_sequential_tests_before_very_many_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = two(monkeypatch, "y ~ x + g + firm + (1 | worker)", people())
    monkeypatch.setattr("ranef.engines.covariance.MOST_WHOLE", 300)
    found, known = rf.anova(b, type=1), rf.anova(a, type=1)
    same(found.iloc[:2], known.iloc[:2])
    assert found["statistic"][2] == pytest.approx(known["statistic"][2], rel=1e-6)


def test_kenward_roger_beside_very_many_levels(large: tuple[rf.Fit, rf.Fit]) -> None:
    a, b = large
    with pytest.warns(RanefWarning, match="39 coefficients, Kenward-Roger's .* likelihood ratio"):
        found = rf.anova(b, ddf="kenward-roger")
    same(found.iloc[1:], rf.anova(a, ddf="kenward-roger").iloc[1:])
    assert np.isnan(found["p_value"][0])
    for joint in (False, True):
        rows = ["x", "year - 0.1", "gg1 - gg2"]
        same(*(rf.contrast(m, rows, joint=joint, ddf="kenward-roger") for m in (b, a)))


@pytest.mark.parametrize(
    "question",
    [
        lambda m: m.tidy(ddf="kenward-roger"),
        lambda m: rf.contrast(m, "firmf003", ddf="kenward-roger"),
        lambda m: m.vcov(),
        lambda m: m.vcov(kind="CR1"),
        lambda m: rf.anova(m, vcov="CR1"),
        rf.robust,
        rf.estfun,
        rf.information,
        rf.partial_r2,
        lambda m: rf.profile(m, "firmf003"),
        lambda m: rf.permutation_test(m, "x", n=5, seed=1),
        lambda m: rf.bootstrap(m, n=2, kind="wild", seed=1),
        lambda m: rf.exact_rlrt(m, n=5, seed=1),
    ],
)
def test_what_takes_all_coefficients_says_so(large: tuple[rf.Fit, rf.Fit], question: Any) -> None:
    with pytest.raises(NotAvailableError, match=r"random effect|tidy\(\) has all standard errors"):
        question(large[1])


def test_slim_fits_have_no_dummies(both: tuple[rf.Fit, rf.Fit]) -> None:
    with pytest.raises(NotAvailableError, match="slim fit keeps no rows"):
        both[1].slim().tidy(ddf="kenward-roger")


def test_few_rows_tie_two_factors() -> None:
    """Conjugate gradients on a chain of levels, the slowest of graphs, against least squares."""
    from ranef.frame.design import Block, Indicators
    from ranef.inference.sweeping import Sweep, wide_of

    levels = 60
    a, b = np.repeat(np.arange(levels), 2), np.roll(np.repeat(np.arange(levels), 2), 1)
    factors = [Block(("f",), c, Indicators(levels, levels)) for c in (a, b)]
    x = np.random.default_rng(0).normal(size=(len(a), 2))
    rows, norms = Sweep([wide_of(f) for f in factors], whole=True).out_of(lambda at: x[at], len(a))
    dummies = np.hstack([np.eye(levels)[a], np.eye(levels)[b]])
    left = x - dummies @ np.linalg.lstsq(dummies, x, rcond=None)[0]
    np.testing.assert_allclose(rows(slice(0, len(a))), left, atol=1e-10)
    np.testing.assert_allclose(norms, np.linalg.norm(x, axis=0))
