"""Kenward & Roger's method: the dense formulae, closed forms, invariances, singular fits, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import oracle
import ranef as rf
from engines import zoo
from oracle_kenward_roger import f_test, kenward_roger
from ranef.inference.ddf.kenward_roger import ingredients, moments

RANDOM = [name for name, formula in zoo.FORMULAS.items() if "|" in formula and name != "no_fixed"]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", RANDOM)
def test_as_the_articles_formulae(name, weighted):
    data = zoo.data()
    m = rf.fit(zoo.FORMULAS[name], data, precision_weights="w" if weighted else None)
    kept = ~np.isnan(m.estimate.beta)
    if not kept.any():
        pytest.skip("no fixed effect to test")
    found = kenward_roger(oracle.DenseLmm(*zoo.arguments(m.design)), m.theta, m.sigma)
    ours = m.tidy(ddf="kenward-roger")
    # Both are exact; the dense inverses lose about 1e-12 to the condition of V.
    np.testing.assert_allclose(ours["std_error"][kept], np.sqrt(np.diag(found.adjusted)), rtol=1e-9)
    each = [f_test(found, m.estimate.beta[kept], row[None])[1] for row in np.eye(kept.sum())]
    np.testing.assert_allclose(ours["df"][kept], each, rtol=1e-7)  # q rho - 1 loses digits where df are many
    if kept.sum() > 2:
        rows = np.random.default_rng(1).normal(size=(2, len(kept))) * kept
        test = rf.contrast(m, rows, ddf="kenward-roger", joint=True)
        f, df = f_test(found, m.estimate.beta[kept], rows[:, kept])
        assert test["statistic"][0] == pytest.approx(f, rel=1e-7)
        assert test["dendf"][0] == pytest.approx(df, rel=1e-7)


def balanced(groups=7, rows=4, treatments=3, seed=0):
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups * treatments), rows)
    t = np.repeat(np.repeat(np.arange(treatments), groups), rows)
    y = rng.normal(size=groups * treatments)[g] + rng.normal(size=len(g)) + 0.3 * t
    return {"y": y, "g": [f"g{v}" for v in g], "t": [f"t{v}" for v in t]}


def test_exact_where_the_analysis_of_variance_is():
    """Balanced nested groups: the F test of group means, on treatments - 1 and treatments (groups - 1) df."""
    data = balanced()
    m = rf.fit("y ~ t + (1 | g)", data)
    assert m.sigma > 0
    assert not m.boundary
    means = np.array(data["y"]).reshape(3, 7, 4).mean(axis=2)
    between = 7 * ((means.mean(axis=1) - means.mean()) ** 2).sum() / 2
    within = ((means - means.mean(axis=1, keepdims=True)) ** 2).sum() / 18
    test = rf.anova(m, ddf="kenward-roger")
    assert test["dendf"][0] == pytest.approx(18, rel=1e-9)
    assert test["statistic"][0] == pytest.approx(between / within, rel=1e-7)  # the optimum is good to 1e-8
    np.testing.assert_allclose(m.tidy(ddf="KR")["df"], 18, rtol=1e-9)
    np.testing.assert_allclose(m.vcov(kind="KR"), m.vcov(), rtol=1e-9)


def test_hotelling():
    """A saturated covariance of repeated measures: T^2 = q (n - 1) / (n - q) F(q, n - q)."""
    rng = np.random.default_rng(3)
    y = rng.normal(size=(9, 3)) @ rng.normal(size=(3, 3)) + 2 * rng.normal(size=(9, 1)) + np.array([0, 0.5, 1])
    long = {
        "y": np.repeat(y.ravel(), 2) + np.tile([0.3, -0.3], 27),
        "v": list("aabbcc") * 9,
        "id": np.repeat(range(9), 6),
    }
    m = rf.fit("y ~ v + (0 + v | id)", long)
    assert not m.boundary
    differences = y[:, 1:] - y[:, :1]
    mean, cov = differences.mean(axis=0), np.cov(differences.T)
    t2 = 9 * mean @ np.linalg.solve(cov, mean)
    test = rf.anova(m, ddf="kenward-roger")
    assert test["dendf"][0] == pytest.approx(7, rel=1e-6)
    assert test["statistic"][0] == pytest.approx(
        7 * t2 / (8 * 2), rel=1e-5
    )  # T^2 moves by the root of the optimum's 1e-8


def test_moments_of_one_hypothesis():
    assert moments(0.1, 0.1, 1) == (1.0, 20.0)
    assert moments(0.0, 0.0, 3) == (1.0, np.inf)


def test_coding_and_units_do_not_matter():
    data = zoo.data()
    m = rf.fit("y ~ x * f + (x | g) + (1 | h)", data)
    moved = {**{k: data[k] for k in data}, "x": 3 * np.asarray(data["x"]) + 50, "y": 1000 * np.asarray(data["y"])}
    other = rf.fit("y ~ x * f + (x | g) + (1 | h)", moved, contrasts={"f": "sum"})
    for ddf in ("kenward-roger", "satterthwaite"):
        a, b = (rf.anova(fit, type=3, ddf=ddf) for fit in (m, other))
        last = [2]  # the interaction; main effects are at x = 0, which has moved
        np.testing.assert_allclose(a["statistic"].iloc[last], b["statistic"].iloc[last], rtol=1e-5)
        np.testing.assert_allclose(a["dendf"].iloc[last], b["dendf"].iloc[last], rtol=1e-5)


def test_singular_fits():
    m = rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.load("Dyestuff2"))
    assert m.boundary
    found = m.tidy(ddf="KR")
    assert found["df"][0] == pytest.approx(5, rel=1e-9)  # balanced: groups - 1, zero variance or not
    dense = oracle.DenseLmm(*zoo.arguments(m.design))
    assert found["std_error"][0] == pytest.approx(
        kenward_roger(dense, m.theta, m.sigma).adjusted[0, 0] ** 0.5, rel=1e-9
    )


@pytest.mark.parametrize(
    ("formula", "rest"),
    [
        ("log(breaks) ~ wool * tension + (1 | wool:tension)", "log(breaks) ~ wool * tension"),
        ("breaks ~ wool * x + (x | wool)", "breaks ~ wool * x"),
        ("breaks ~ wool * x + (x | wool) + (1 | h)", "breaks ~ wool * x + (1 | h)"),
    ],
)
def test_variances_that_fixed_effects_take_all_of_have_no_part(formula, rest):
    """REML knows nothing of them: what rounding leaves of their information is not to be inverted."""
    data = rf.datasets.load("warpbreaks")
    data["x"], data["h"] = np.arange(54.0) % 9 * 7, np.arange(54) % 8
    m, other = rf.fit(formula, data), rf.fit(rest, data)
    a, b = (fit.tidy(ddf="kenward-roger") for fit in (m, other))
    # Two optima of one criterion, good to 1e-8 of it.
    np.testing.assert_allclose(a["std_error"], b["std_error"], rtol=1e-6)
    np.testing.assert_allclose(a["df"], b["df"], rtol=1e-6)
    for kind in (1, 2, 3):
        a, b = (rf.anova(fit, type=kind, ddf="kenward-roger") for fit in (m, other))
        np.testing.assert_allclose(a["statistic"], b["statistic"], rtol=1e-6)
        np.testing.assert_allclose(a["dendf"], b["dendf"], rtol=1e-6)


def test_without_random_effects():
    data = zoo.data()
    m = rf.fit("y ~ x", data)
    np.testing.assert_allclose(m.tidy(ddf="KR")["df"], m.df_residual)
    np.testing.assert_allclose(m.vcov(kind="KR"), m.vcov())


def test_slim_and_pickled_fits_agree():
    m = rf.fit("y ~ x + (x | g)", zoo.data())
    np.testing.assert_allclose(m.slim().tidy(ddf="KR")["df"], m.tidy(ddf="KR")["df"], rtol=1e-9)


def test_computed_once():
    m = rf.fit("y ~ x + (x | g)", zoo.data())
    assert ingredients(m) is ingredients(m)


def test_refusals():
    data = zoo.data()
    with pytest.raises(rf.errors.NotAvailableError, match="keeps no rows"):
        rf.fit("y ~ x + (1 | g)", data, method="ml").slim().tidy(ddf="KR")
    with pytest.raises(rf.errors.NotAvailableError, match="held, tied or have priors"):
        rf.fit("y ~ x + (1 | g)", data, fixed={"sd(g)": 0.5}).tidy(ddf="KR")
    m = rf.fit("incidence / size ~ period + (1 | herd)", rf.datasets.load("cbpp"), family="binomial", trials="size")
    with pytest.raises(rf.errors.NotAvailableError, match="pseudo-data"):
        m.tidy(ddf="kenward-roger")
    with pytest.raises(rf.errors.OptionError, match="kind='boot'"):
        m.vcov(kind="boot")


@pytest.mark.parametrize("formula", ["y ~ x * f + (x | g)", "y ~ x + (1 | g) + (1 | h)", "y ~ x + cs(0 + f | g)"])
def test_fits_by_maximum_likelihood(formula):
    """As pbkrtest, which fits again by REML; said once, and in the title."""
    ml, reml = (rf.fit(formula, zoo.data(), method=method) for method in ("ml", "reml"))
    with pytest.warns(rf.RanefWarning, match="REML estimates of the variances"):
        ours = ml.tidy(ddf="kr")
    theirs = reml.tidy(ddf="kr")
    mean = ours["component"] == "mean"
    # The optima agree to about 1e-5 of theta where one search goes another way, exactly where it is the same.
    for column in ("std_error", "df"):
        np.testing.assert_allclose(ours[column][mean], theirs[column][mean], rtol=1e-5)
    np.testing.assert_allclose(ours["estimate"], ml.tidy()["estimate"])
    np.testing.assert_allclose(ml.vcov(kind="kr"), reml.vcov(kind="kr"), rtol=1e-5, atol=1e-10)
    f = rf.anova(ml, type=3, ddf="kr")
    np.testing.assert_allclose(f["dendf"], rf.anova(reml, type=3, ddf="kr")["dendf"], rtol=1e-5)
    assert "at REML estimates of the variances" in ml.summary(ddf="kr")
    assert "at REML" not in reml.summary(ddf="kr")
    assert ml.method == "ml"


def test_coefficients_held_or_tied_are_columns():
    data = zoo.data().assign(both=lambda d: d["x"] + d["w"], off=lambda d: 0.5 * d["x"])
    held = rf.fit("y ~ x + w + (1 | g)", data, fixed={"x": 0.5}).tidy(ddf="kr").iloc[[0, 2]]
    offset = rf.fit("y ~ w + offset(off) + (1 | g)", data).tidy(ddf="kr")
    tied = rf.fit("y ~ x + w + (1 | g)", data, equal=[("x", "w")]).tidy(ddf="kr").iloc[:2]
    summed = rf.fit("y ~ both + (1 | g)", data).tidy(ddf="kr")
    for ours, theirs in ((held, offset), (tied, summed)):
        for column in ("estimate", "std_error", "df"):
            # Two engines: their optima agree to 1e-5 in theta.
            np.testing.assert_allclose(ours[column].astype(float), theirs[column], rtol=1e-5)


class Approximate:
    """A core that could not afford the expected information."""

    def __init__(self, core):
        self.core = core

    def kenward_roger(self, theta, reml):
        return {**self.core.kenward_roger(theta, reml), "exact": False}


def test_says_so_where_the_expected_information_is_out_of_reach():
    m = rf.fit("y ~ x + (x | g)", zoo.data())
    with pytest.warns(rf.RanefWarning, match="average information stands in"):
        replace(m, core=Approximate(m.core)).tidy(ddf="KR")
