"""Tables of terms: hypotheses of types I to III from first principles, methods, bad input."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from engines import zoo
from ranef.inference.ddf.kenward_roger import moments
from ranef.inference.hypotheses import hypotheses


@pytest.fixture(scope="module")
def cells() -> pd.DataFrame:
    """Two crossed factors with very unequal cells, a covariate, groups."""
    rng = np.random.default_rng(11)
    n = 140
    a, b, g = rng.choice(3, n, p=[0.6, 0.3, 0.1]), rng.choice(2, n, p=[0.7, 0.3]), rng.integers(0, 10, n)
    x = rng.normal(size=n) + a
    y = a * (1 + b) + 0.5 * x + rng.normal(size=10)[g] + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "a": [f"a{v}" for v in a], "b": [f"b{v}" for v in b], "g": g.astype(str)})


def same_space(ours, theirs):
    """Rows that span the same hypotheses: each is a combination of the others."""
    ours, theirs = np.atleast_2d(ours), np.atleast_2d(theirs)
    assert len(ours) == len(theirs)
    fit = np.linalg.lstsq(ours.T, theirs.T, rcond=None)[0]
    np.testing.assert_allclose(ours.T @ fit, theirs.T, atol=1e-9)


def test_type_three_compares_unweighted_means(cells):
    """With all cells filled: type III of sum-coded columns, whatever the coding that was fitted (Searle 1987)."""
    summed = rf.fit("y ~ a * b + x + (1 | g)", cells, contrasts={"a": "sum", "b": "sum"})
    assert list(summed.layout.fixed)[1:] == ["a1", "a2", "b1", "x", "a1:b1", "a2:b1"]
    for coding in ("sum", "treatment", "helmert"):
        m = rf.fit("y ~ a * b + x + (1 | g)", cells, contrasts={"a": coding, "b": coding})
        table = rf.anova(m, type=3)
        assert list(table["term"]) == ["a", "b", "x", "a:b"]
        assert list(table["numdf"]) == [2, 1, 1, 2]
        for i, own in enumerate(([1, 2], [3], [4], [5, 6])):
            theirs = rf.contrast(summed, np.eye(7)[own], joint=True)
            # The same model in other coordinates: the optima agree to 1e-8 of the criterion.
            assert table["statistic"][i] == pytest.approx(theirs["statistic"][0], rel=1e-6)
            assert table["dendf"][i] == pytest.approx(rf.anova(summed)["dendf"][i], rel=1e-5)


def test_type_three_of_slopes_is_at_the_mean_of_the_factor(cells):
    m = rf.fit("y ~ a * x + (1 | g)", cells)
    found = {h.label: h.rows for h in hypotheses(m, 3, "mean")}
    same_space(found["x"], [[0, 0, 0, 1, 1 / 3, 1 / 3]])
    same_space(found["a"], np.eye(6)[1:3])  # at x = 0: the term with the covariate does not contain it
    same_space(found["a:x"], np.eye(6)[4:])


def test_types_one_and_two_are_differences_of_sums_of_squares(cells):
    """In a linear model without random effects the F of type I and II is that of nested least-squares fits."""
    m = rf.fit("y ~ a * b + x", cells)
    rss = {f: rf.fit(f"y ~ {f}", cells).estimate.pwrss for f in ("1", "a", "b", "a + b", "a + x", "b + x", "a + b + x")}
    full = m.estimate.pwrss
    sequential = [
        rss["1"] - rss["a"],
        rss["a"] - rss["a + b"],
        rss["a + b"] - rss["a + b + x"],
        rss["a + b + x"] - full,
    ]
    np.testing.assert_allclose(rf.anova(m, type=1)["sumsq"], sequential, rtol=1e-9)
    found = rf.anova(m, type="II").set_index("term")["sumsq"]
    assert found["a"] == pytest.approx(rss["b + x"] - rss["a + b + x"], rel=1e-9)
    assert found["b"] == pytest.approx(rss["a + x"] - rss["a + b + x"], rel=1e-9)
    assert found["x"] == pytest.approx(rf.fit("y ~ a * b", cells).estimate.pwrss - full, rel=1e-9)
    assert found["a:b"] == pytest.approx(sequential[-1], rel=1e-9)


def test_empty_cells(cells):
    """Type III of Goodnight's report: estimable functions only; the interaction has the cells that are there."""
    holes = cells[~((cells.a == "a2") & (cells.b == "b1"))]
    m = rf.fit("y ~ a * b + (1 | g)", holes)
    assert m.estimate.dropped
    found = {h.label: h.rows for h in hypotheses(m, 3, "mean")}
    assert {k: len(v) for k, v in found.items()} == {"a": 2, "b": 1, "a:b": 1}
    # Orthogonal to the interaction that is left: b is compared where both of its levels occur, in a0 and a1.
    mean = np.zeros(6)
    names = list(m.layout.fixed)
    mean[names.index("bb1")] = 1
    mean[names.index("aa1:bb1")] = 0.5
    same_space(found["b"], mean)
    table = rf.anova(m)
    assert np.isfinite(table["p_value"]).all()
    assert list(table["numdf"]) == [2, 1, 1]


def test_a_term_that_is_dropped_has_no_test():
    data = zoo.data()
    m = rf.fit("y ~ x + I(2 * x) + f + (1 | g)", data)
    for kind in (1, 2):
        table = rf.anova(m, type=kind).set_index("term")
        assert table.loc["I(2 * x)", "numdf"] == 0
        assert np.isnan(table.loc["I(2 * x)", "p_value"])
        assert np.isfinite(table.loc["f", "p_value"])


def test_without_an_intercept_and_without_terms():
    data = zoo.data()
    assert list(rf.anova(rf.fit("y ~ 0 + f + (1 | g)", data))["numdf"]) == [3]
    assert len(rf.anova(rf.fit("y ~ 1 + (1 | g)", data))) == 0
    assert list(rf.anova(rf.fit("y ~ 1 + (1 | g)", data)).columns)[:2] == ["term", "sumsq"]


def test_one_hypothesis_is_its_t_test(cells):
    m = rf.fit("y ~ x + b + (x | g)", cells)
    for ddf in ("satterthwaite", "kenward-roger", "residual", "between-within"):
        table, rows = rf.anova(m, type=2, ddf=ddf), m.tidy(ddf=ddf)
        np.testing.assert_allclose(table["statistic"], rows["statistic"][1:] ** 2, rtol=1e-9)
        np.testing.assert_allclose(table["dendf"], rows["df"][1:], rtol=1e-9)
        np.testing.assert_allclose(table["p_value"], rows["p_value"][1:], rtol=1e-7)


def test_poly_and_numeric_products(cells):
    m = rf.fit("y ~ poly(x, 2) * a + (1 | g)", cells)
    table = rf.anova(m)
    assert list(table["numdf"]) == [2, 2, 4]
    summed = rf.anova(rf.fit("y ~ poly(x, 2) * a + (1 | g)", cells, contrasts={"a": "sum"}))
    np.testing.assert_allclose(table["statistic"], summed["statistic"], rtol=1e-6)
    np.testing.assert_allclose(table["dendf"], summed["dendf"], rtol=1e-5)


def test_many_rows_come_in_pieces(cells, monkeypatch):
    m = rf.fit("y ~ a * b + x + (1 | g)", cells)
    whole = [rf.anova(m, type=k)["statistic"] for k in (1, 2, 3)]
    monkeypatch.setattr("ranef.inference.hypotheses.CHUNK", 17)
    for k, expected in zip((1, 2, 3), whole, strict=True):
        np.testing.assert_allclose(rf.anova(m, type=k)["statistic"], expected, rtol=1e-9)


def test_generalised_models_without_interaction_have_marginal_tests(cells):
    m = rf.fit("I(y > 1) ~ a + x + (1 | g)", cells, family="binomial")
    for kind in (2, 3):
        table = rf.anova(m, type=kind)
        assert list(table.columns) == ["term", "statistic", "df", "p_value"]
        beta, vcov = np.asarray(m.params), np.asarray(m.vcov())
        for i, own in enumerate(([1, 2], [3])):
            wald = beta[own] @ np.linalg.solve(vcov[np.ix_(own, own)], beta[own])
            assert table["statistic"][i] == pytest.approx(wald, rel=1e-8)


def test_generalised_type_two_as_car(cells):
    """Wald(term and those with it) - Wald(those with it) in the covariance of the estimates (Fox & Weisberg 2019)."""
    m = rf.fit("I(y > 1) ~ a * x + (1 | g)", cells, family="binomial")
    beta, vcov = np.asarray(m.params), np.asarray(m.vcov())

    def wald(own):
        return beta[own] @ np.linalg.solve(vcov[np.ix_(own, own)], beta[own])

    table = rf.anova(m, type=2)
    expected = [wald([1, 2, 4, 5]) - wald([4, 5]), wald([3, 4, 5]) - wald([4, 5]), wald([4, 5])]
    np.testing.assert_allclose(table["statistic"], expected, rtol=1e-8)


def test_ordinal_models_test_their_terms():
    m = rf.fit("rating ~ temp * contact + (1 | judge)", rf.datasets.load("wine"), family="ordinal")
    table = rf.anova(m)
    assert list(table["term"]) == ["temp", "contact", "temp:contact"]
    beta, vcov = np.asarray(m.params), np.asarray(m.vcov())
    weights = np.array([1, 0, 0.5])  # temp at the mean of both contacts
    assert table["statistic"][0] == pytest.approx((weights @ beta) ** 2 / (weights @ vcov @ weights), rel=1e-8)


def test_structured_gaussian_models_have_f_tests():
    m = rf.fit("Reaction ~ Days + ar1(0 + factor(Days) | Subject)", rf.datasets.load("sleepstudy"))
    table = rf.anova(m)
    assert list(table.columns) == ["term", "sumsq", "meansq", "numdf", "dendf", "statistic", "p_value"]
    assert 0 < table["dendf"][0] < 180
    assert 0 < rf.anova(m, ddf="KR")["dendf"][0] < 180
    assert rf.anova(m, ddf="between-within")["dendf"][0] == 161  # 180 - 2 - (18 - 1)


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow"])
def test_frames_of_the_kind_that_came(cells, kind):
    pl = pytest.importorskip("polars")
    data = {"pandas": cells, "polars": pl.from_pandas(cells), "pyarrow": pl.from_pandas(cells).to_arrow()}[kind]
    assert type(rf.anova(rf.fit("y ~ a + (1 | g)", data))) is type(data)


def test_bad_input(cells):
    m = rf.fit("y ~ a + (1 | g)", cells)
    with pytest.raises(rf.errors.OptionError, match="known: 1, 2, 3"):
        rf.anova(m, type=4)
    with pytest.raises(rf.errors.OptionError, match="kenward-roger"):
        rf.anova(m, ddf="kenward-rogers")
    with pytest.raises(rf.errors.OptionError, match="not the name of a method"):
        rf.anova(m, ddf=12)
    with pytest.raises(rf.errors.ArgumentError, match="'kind'"):
        rf.anova(m, kind=3)
    with pytest.raises(rf.errors.OptionError, match="zero_inflation"):
        rf.anova(m, component="zero_inflation")
    with pytest.raises(rf.errors.NotAvailableError, match="slim"):
        rf.anova(m.slim())


def test_type_two_of_what_no_term_contains_has_the_rows_of_lmertest():
    """Of several coefficients Fai and Cornelius' degrees of freedom depend on the rows: lmerTest's are unit vectors."""
    data = rf.datasets.load("Hsb82")
    data = data[data["school"].cat.codes < 30]
    m = rf.fit("mAch ~ ses * sector + minrty + meanses:sector + (ses | school)", data)
    table = rf.anova(m, type=2)
    # lmerTest 3.1-3: anova(m, type = 2); its optimum is good to 1e-6 of the degrees of freedom.
    np.testing.assert_allclose(table["dendf"][-1:], 25.3659692803778, rtol=1e-5)
    np.testing.assert_allclose(table["statistic"][-1:], 8.57205172745164, rtol=1e-5)
    rows = np.eye(m.params.size)[[list(m.params.index).index(name) for name in m.params.index if "meanses" in name]]
    joint = rf.contrast(m, rows, joint=True)
    np.testing.assert_allclose(table["dendf"][-1:], joint["dendf"], rtol=1e-10)


def test_type_three_has_the_rows_of_lmertest():
    """One row a level but the first, however the factor is coded: degrees of freedom depend on that, F does not."""
    formula = "normexam ~ standLRT * schgend + sex + (standLRT + sex | school)"
    data = rf.datasets.load("Exam")
    # lmerTest 3.1-3: anova(m, type = 3).
    dendf = [54.9200661715972, 56.6067971309547, 436.501455427077, 54.4487222724183]
    statistic = [564.158549344478, 2.10399351161391, 24.5407326624477, 0.130979065099193]
    for coding in ("treatment", "sum", "helmert"):
        table = rf.anova(rf.fit(formula, data, contrasts={"schgend": coding}), type=3)
        # Its Hessian is a difference quotient, and its optimum good to 1e-5 of the degrees of freedom.
        np.testing.assert_allclose(table["dendf"], dendf, rtol=5e-5)
        np.testing.assert_allclose(table["statistic"], statistic, rtol=1e-5)


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_an_exact_f_test_on_two_degrees_of_freedom(kind):
    """Kenward and Roger's formulas are 0 / 0 there: F of three blocks beside two whole plots each is MS / MS."""
    rng = np.random.default_rng(4)
    plots = pd.DataFrame({"block": np.repeat(list("abc"), 10), "part": np.tile(np.repeat(list("xy"), 5), 3)})
    plots = plots.assign(kind=np.tile(list("12345"), 6), plot=plots["block"] + plots["part"])
    plot_effect = plots["plot"].map(dict(zip(plots["plot"].unique(), 3 * rng.normal(size=6), strict=True)))
    plots["y"] = plot_effect + rng.normal(size=30)
    mean = plots.groupby(["block", "part"])["y"].mean().unstack()
    blocks = 10 * ((mean.mean(axis=1) - mean.to_numpy().mean()) ** 2).sum() / 2
    left = mean.sub(mean.mean(axis=1), axis=0).sub(mean.mean(axis=0), axis=1) + mean.to_numpy().mean()
    table = rf.anova(rf.fit("y ~ block + kind + part + (1 | plot)", plots), type=kind, ddf="kenward-roger")
    np.testing.assert_allclose(table["dendf"], [2, 20, 2], rtol=1e-6)
    np.testing.assert_allclose(table["statistic"][0], blocks / (5 * (left**2).to_numpy().sum() / 2), rtol=1e-6)


def test_moments_of_an_exact_f_test_survive_rounding():
    for a1, a2 in [(4.000000000000003, 2.000000000000001), (4.0, 2.0), (3.9999999999999996, 2.0000000000000004)]:
        assert moments(a1, a2, 2) == pytest.approx((1.0, 2.0), rel=1e-12)
    near = moments(1.6, 0.4 * (1 + 1e-7), 4)  # beside it the formulas hold, and go over into it
    assert near == pytest.approx((1.0, 20.0), rel=1e-5)
