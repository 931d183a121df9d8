"""Cluster-robust covariances of linear models: what dense matrices say, what must hold exactly, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest

import ranef as rf
from engines import zoo
from oracle_robust import CASES, KINDS, ROUNDING, cluster_of, dense, dense_v, fit
from ranef.errors import ArgumentError, DataError, NotAvailableError, OptionError, UnknownColumnError
from ranef.inference.robust.adjustments import bias_reduced, degrees
from ranef.inference.robust.blocks import blocks
from ranef.inference.robust.clusters import clusters_of
from ranef.inference.robust.working import working


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "weighted"), CASES)
def test_as_dense_matrices_say(name, weighted, kind):
    m = fit(name, weighted)
    cluster = cluster_of(name)
    expected, df, here = dense(m, kind, np.asarray(pd.factorize(zoo.data()[cluster])[0]))
    found = np.asarray(m.vcov(kind=kind, cluster=cluster))
    assert np.isnan(found[~here]).all()
    np.testing.assert_allclose(
        found[np.ix_(here, here)], expected, rtol=ROUNDING, atol=ROUNDING * np.abs(expected).max()
    )
    table = rf.robust(m, kind, cluster)
    np.testing.assert_allclose(table["df"][here], df, rtol=1e-7)
    assert table["p_value"][~here].isna().all()


def test_clusters_above_the_grouping_factor():
    data = zoo.data().assign(
        top=lambda d: d["g"].isin(["g0", "g1", "g2"]).astype(str) + d["g"].isin(["g3", "g4"]).astype(str)
    )
    m = fit("slope", True, data=data)
    for kind in KINDS:
        expected, df, _ = dense(m, kind, np.asarray(pd.factorize(data["top"])[0]))
        np.testing.assert_allclose(m.vcov(kind=kind, cluster="top"), expected, rtol=ROUNDING)
        np.testing.assert_allclose(rf.robust(m, kind, "top")["df"], df, rtol=1e-7)


def test_rotated_blocks_are_as_whole_ones():
    # 400 rows in 4 clusters with two weights: blocks have at most 2 (1 + 2 + 1 + …) rows, and CR2 is that of all rows.
    rng = np.random.default_rng(3)
    data = pd.DataFrame(
        {"g": np.repeat(list("abcd"), 100), "x": rng.normal(size=400), "w": rng.choice([1.0, 3.0], 400)}
    )
    data["y"] = data["x"] + np.repeat(rng.normal(size=4), 100) + rng.normal(size=400)
    m = rf.fit("y ~ x + (1 | g)", data, precision_weights="w")
    by = clusters_of(m, m.design, None)[0]
    assert max(batch.v.shape[1] for batch in blocks(m, working(m), by)) <= 8
    expected, df, _ = dense(m, "CR2", by.codes)
    np.testing.assert_allclose(m.vcov(kind="CR2"), expected, rtol=ROUNDING)
    np.testing.assert_allclose(rf.robust(m)["df"], df, rtol=1e-7)


@pytest.mark.parametrize("weights", ["none", "few", "all"])
def test_clusters_of_many_sizes_with_several_levels(weights):
    # 40 clusters of 1 to 24 rows and 1 to 4 levels of a nested factor: batches pad rows, levels and variances.
    rng = np.random.default_rng(8)
    top = np.repeat(np.arange(40), rng.integers(1, 25, 40))
    n = len(top)
    data = pd.DataFrame(
        {"top": top.astype(str), "h": [f"{t}.{k}" for t, k in zip(top, rng.integers(0, 4, n), strict=True)]}
    )
    data["x"] = rng.normal(size=n)
    data["w"] = {"none": np.ones(n), "few": rng.choice([1.0, 3.0], n), "all": rng.uniform(1, 3, n)}[weights]
    data["y"] = rng.normal(size=40)[top] + pd.Series(rng.normal(size=160)).iloc[pd.factorize(data["h"])[0]].to_numpy()
    data["y"] += data["x"] * rng.normal(size=40)[top] + rng.normal(size=n)
    m = rf.fit("y ~ x + (x | top) + (1 | h)", data, precision_weights="w")
    by = clusters_of(m, m.design, "top")[0]
    found = list(blocks(m, working(m), by))
    assert sorted(np.concatenate([b.clusters for b in found])) == list(range(40))
    expected, df, _ = dense(m, "CR2", by.codes)
    np.testing.assert_allclose(m.vcov(kind="CR2", cluster="top"), expected, rtol=ROUNDING)
    np.testing.assert_allclose(rf.robust(m, cluster="top")["df"], df, rtol=1e-7)


def test_large_blocks_are_refused(monkeypatch):
    monkeypatch.setattr("ranef.inference.robust.blocks.MOST", 2)
    with pytest.raises(NotAvailableError, match="dense block"):
        fit("slope").vcov(kind="CR2")


@pytest.mark.parametrize(("name", "weighted"), CASES)
def test_cr2_is_unbiased_under_the_working_model(name, weighted):
    # E(s_i s_i') = X_i'W_i A_i (V_i - X_i M X_i') A_i'W_i X_i; the sum is M^-1 where no cluster exhausts a direction.
    m = fit(name, weighted)
    w = working(m)
    by = clusters_of(m, m.design, cluster_of(name))[0]
    a = bias_reduced(w, by, blocks(m, w, by))
    mean = (a.spread - a.cross.mT @ w.bread @ a.cross).sum(axis=0)
    np.testing.assert_allclose(w.bread @ mean @ w.bread, w.bread, rtol=1e-8, atol=1e-8 * np.abs(w.bread).max())


def test_balanced_one_way_layout_in_closed_form():
    # Cell means of m groups of k: CR2 of the intercept is the variance of the group means over m, with m - 1 df.
    rng = np.random.default_rng(5)
    y = np.repeat(rng.normal(size=9), 4) + rng.normal(size=36)
    m = rf.fit("y ~ 1 + (1 | g)", {"y": y, "g": np.repeat(np.arange(9), 4)})
    means = y.reshape(9, 4).mean(axis=1)
    table = rf.robust(m)
    assert float(table["std_error"][0]) == pytest.approx(np.sqrt(means.var(ddof=1) / 9), rel=1e-10)
    assert float(table["df"][0]) == pytest.approx(8, rel=1e-10)


def test_a_cluster_that_alone_determines_a_coefficient():
    data = zoo.data().assign(only=lambda d: (d["g"] == "g1").astype(float))
    m = rf.fit("y ~ x + only + (1 | g)", data)
    expected, df, _ = dense(m, "CR2", np.asarray(pd.factorize(data["g"])[0]))
    np.testing.assert_allclose(m.vcov(kind="CR2"), expected, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(rf.robust(m)["df"][:2], df[:2], rtol=1e-5)
    with pytest.raises(NotAvailableError, match="'g1'"):
        m.vcov(kind="CR3")


def test_jackknife_is_the_sum_of_squared_changes():
    m = fit("slope")
    w, codes = working(m), np.asarray(m.design.terms[0].codes)
    v, x = dense_v(m), working(m).x
    total = np.zeros((2, 2))
    for c in range(8):
        at = codes != c
        inverse = np.linalg.inv(v[np.ix_(at, at)])
        beta = np.linalg.solve(x[at].T @ inverse @ x[at], x[at].T @ inverse @ m.design.y[at])
        total += np.outer(beta - m.estimate.beta, beta - m.estimate.beta)
    np.testing.assert_allclose(m.vcov(kind="CR3"), total, rtol=1e-8)
    assert np.isfinite(w.white).all()


# ---- invariance and data ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_order_of_rows_and_names_of_clusters_do_not_matter(kind):
    data = zoo.data()
    mixed = data.sample(frac=1, random_state=1).reset_index(drop=True)
    mixed["g"] = mixed["g"].map({f"g{i}": f"z{7 - i}" for i in range(8)})
    one, two = rf.robust(fit("slope", True), kind), rf.robust(fit("slope", True, data=mixed), kind)
    # The optima agree to 1e-8 in theta or so.
    np.testing.assert_allclose(one["std_error"], two["std_error"], rtol=1e-6)
    np.testing.assert_allclose(one["df"], two["df"], rtol=1e-6)


def test_missing_rows_and_ways_to_name_clusters():
    data = zoo.data().copy()
    data.loc[[3, 17], "x"] = np.nan
    data["c"] = data["g"].astype("category")
    data.loc[3, "c"] = np.nan  # in a row that is not used
    m = fit("intercept", data=data)
    left = np.asarray(fit("intercept", data=data.dropna().reset_index(drop=True)).vcov(kind="CR2"))
    for cluster in (None, "g", "c", data["g"], data["g"].to_numpy(), data["g"].dropna()[data["x"].notna()].tolist()):
        np.testing.assert_allclose(m.vcov(kind="CR2", cluster=cluster), left, rtol=1e-12)
    data.loc[5, "c"] = np.nan
    with pytest.raises(DataError, match="missing in row"):
        fit("intercept", data=data).vcov(kind="CR2", cluster="c")


def test_polars_and_dicts():
    data = zoo.data()
    table = rf.robust(fit("slope", data=pl.from_pandas(data)))
    assert isinstance(table, pl.DataFrame)
    np.testing.assert_allclose(table["std_error"], rf.robust(fit("slope"))["std_error"], rtol=1e-12)
    m = fit("slope", data={name: data[name].to_numpy() for name in data})
    assert m.vcov(kind="CR2")["x", "x"] == pytest.approx(table["std_error"][1] ** 2)
    assert isinstance(rf.estfun(fit("slope", data=pl.from_pandas(data))), pl.DataFrame)


def test_singular_fits_have_robust_covariances():
    m = rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.load("Dyestuff2"))
    assert m.boundary
    expected, df, _ = dense(m, "CR2", np.asarray(m.design.terms[0].codes))
    np.testing.assert_allclose(m.vcov(kind="CR2"), expected, rtol=ROUNDING)
    np.testing.assert_allclose(rf.robust(m)["df"], df, rtol=1e-8)


# ---- several ways of clustering --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["CR0", "CR1"])
def test_two_ways_are_two_less_their_intersection(kind):
    m = fit("crossed")
    v, x = dense_v(m), working(m).x
    solved = np.linalg.solve(v, x)
    bread = np.linalg.inv(x.T @ solved)
    e = m.design.y - x @ m.estimate.beta
    g, h = (np.asarray(t.codes) for t in m.design.terms)
    total = np.zeros_like(bread)
    for sign, codes in ((1, g), (1, h), (-1, g * 100 + h)):
        scores = pd.DataFrame(solved * e[:, None]).groupby(codes).sum().to_numpy() @ bread
        count = len(np.unique(codes))
        total += sign * (count / (count - 1) if kind == "CR1" else 1.0) * scores.T @ scores
    assert np.linalg.eigvalsh(total)[0] > 0
    np.testing.assert_allclose(m.vcov(kind=kind, cluster=["g", "h"]), total, rtol=ROUNDING)
    assert (rf.robust(m, kind, ["g", "h"])["df"] == 5).all()


def test_one_way_twice_is_one_way():
    m = fit("slope")
    np.testing.assert_allclose(m.vcov(kind="CR1", cluster=["g", "g"]), m.vcov(kind="CR1"), rtol=1e-12)


def test_a_sum_that_is_no_covariance_is_made_one():
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"a": np.tile([0, 1, 2], 8), "b": np.repeat([0, 1], 12), "x": rng.normal(size=24)})
    data["y"] = rng.normal(size=24)
    m = rf.fit("y ~ x", data)
    with pytest.warns(rf.RanefWarning, match="eigenvalues were set to 0"):
        found = m.vcov(kind="CR0", cluster=["a", "b"])
    assert np.linalg.eigvalsh(found)[0] > -1e-15


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_refusals_of_clusters():
    m = fit("crossed")
    with pytest.raises(NotAvailableError, match="'g' are not nested in the clusters 'h'"):
        m.vcov(kind="CR2")
    with pytest.raises(NotAvailableError, match="several ways"):
        m.vcov(kind="CR2", cluster=["g", "h"])
    with pytest.raises(NotAvailableError, match="one way"):
        rf.estfun(fit("slope"), cluster=["g", "h"])
    one = fit("slope")
    with pytest.raises(DataError, match="one level only"):
        one.vcov(kind="CR0", cluster=np.zeros(60))
    with pytest.raises(UnknownColumnError, match="nope"):
        one.vcov(kind="CR0", cluster="nope")
    with pytest.raises(DataError, match="3 values"):
        one.vcov(kind="CR0", cluster=[1, 2, 3])
    with pytest.raises(ArgumentError, match="name of a column"):
        one.vcov(kind="CR0", cluster=3)
    with pytest.raises(OptionError, match="knows no clusters"):
        one.vcov(cluster="g")
    with pytest.raises(OptionError, match="no grouping factor"):
        fit("no_random").vcov(kind="CR0")


def test_degrees_of_contrasts():
    m = fit("slope")
    w = working(m)
    by = clusters_of(m, m.design, None)[0]
    a = bias_reduced(w, by, blocks(m, w, by))
    one, ten = degrees(a, w.bread, np.array([[1.0, 2.0], [10.0, 20.0]]))
    assert one == pytest.approx(ten)  # a contrast's scale does not matter
