"""Cluster-robust covariances: what dense matrices say, what must hold exactly, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest

import ranef as rf
from engines import zoo
from ranef.errors import ArgumentError, DataError, NotAvailableError, OptionError, UnknownColumnError
from ranef.frame.design import matrix
from ranef.inference.robust.adjustments import bias_reduced, degrees
from ranef.inference.robust.blocks import blocks
from ranef.inference.robust.clusters import clusters_of
from ranef.inference.robust.generalised import adjusted_scores
from ranef.inference.robust.linearised import INFORMATION, linearised
from ranef.inference.robust.working import by_cluster, working

KINDS = ("CR0", "CR1", "CR1S", "CR2", "CR3")
NESTED = ("intercept", "slope", "two_terms_one_group", "nested", "rank_deficient", "offset", "no_random")
CASES = [(name, False) for name in NESTED] + [(n, True) for n in ("intercept", "slope", "rank_deficient", "no_random")]
ROUNDING = 1e-9  # relative: dense and blockwise arithmetic differ by the condition of V, about 1e4 here


def fit(name, weighted=False, method="reml", data=None):
    data = zoo.data() if data is None else data
    return rf.fit(zoo.FORMULAS[name], data, method=method, precision_weights="w" if weighted else None)


def cluster_of(name):
    return {"nested": "a"}.get(name, "g")


def dense_v(m):
    """V as a full matrix."""
    d = m.design
    v = np.diag(m.sigma**2 / (np.ones(d.n) if d.weights is None else d.weights))
    for term, sigma in zip(d.terms, m.estimate.covariances, strict=True):
        z = matrix(term.blocks, d.n)
        v += (z @ sigma @ z.T) * np.equal.outer(term.codes, term.codes)
    return v


def power(a, exponent, tol=1e-10):
    values, vectors = np.linalg.eigh(a)
    keep = values > tol * values.max()
    return (vectors[:, keep] * values[keep] ** exponent) @ vectors[:, keep].T


def dense(m, kind, codes):
    """The sandwich and degrees of freedom of every coefficient, from n x n matrices."""
    d = m.design
    here = ~np.isnan(m.estimate.beta[m.layout.component("mean").at])
    x = matrix(d.fixed, d.n)[:, here]
    v = dense_v(m)
    w = np.linalg.inv(v)
    bread = np.linalg.inv(x.T @ w @ x)
    keep = np.eye(d.n) - x @ bread @ x.T @ w
    e = keep @ (d.y - (0 if d.offset is None else d.offset))
    rows, p = [], []
    for c in np.unique(codes):
        at = codes == c
        inner = np.ix_(at, at)
        adjust = np.eye(at.sum())
        if kind == "CR2":
            root = np.linalg.cholesky(v[inner]).T
            adjust = root.T @ power(root @ (keep @ v @ keep.T)[inner] @ root.T, -0.5) @ root
        if kind == "CR3":
            adjust = np.linalg.inv(keep[inner])
        g = x[at].T @ np.linalg.inv(v[inner]) @ adjust
        rows.append(g @ e[at])
        p.append(bread @ g @ keep[at])
    count, n, r = len(rows), d.n, x.shape[1]
    scale = {"CR1": count / (count - 1), "CR1S": count * (n - 1) / ((count - 1) * (n - r))}.get(kind, 1.0)
    df = []
    for j in range(r):
        q = np.array([one[j] for one in p])
        omega = q @ v @ q.T
        df.append(np.trace(omega) ** 2 / np.sum(omega**2))
    half = np.array(rows) @ bread
    return scale * half.T @ half, np.array(df), here


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


# ---- generalised models ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cbpp():
    return rf.fit(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)", rf.datasets.load("cbpp"), family="binomial"
    )


def test_generalised_models(cbpp):
    np.testing.assert_allclose(cbpp.vcov(kind="CR1"), cbpp.vcov(kind="CR0") * 15 / 14)
    table = rf.robust(cbpp)
    assert np.isinf(table["df"]).all()
    np.testing.assert_allclose(table["std_error"], np.sqrt(np.diag(cbpp.vcov(kind="CR1"))))
    scores = rf.estfun(cbpp)
    assert list(scores.columns)[-1] == "theta1"
    unit = np.sqrt(np.diag(rf.information(cbpp)))
    np.testing.assert_allclose(scores.iloc[:, 1:].sum() / unit, 0, atol=1e-4)  # the gradient at the optimum
    joint = np.linalg.inv(rf.information(cbpp))
    np.testing.assert_allclose(joint[:4, :4], cbpp.vcov(), rtol=1e-8)


def linearised_densely(m, codes):
    """The linear model on the scale of the response, from n x n matrices: CR2 of it, and its degrees of freedom."""
    d, eta = m.design, np.asarray(m.core.eta())[:, 0]
    mu = m.fitted()
    trials = np.ones(d.n) if d.trials is None else d.trials
    binomial = m.family == "binomial"
    t, noise = (mu * (1 - mu), mu * (1 - mu) / trials) if binomial else (mu, mu)
    x = matrix(d.fixed, d.n) * t[:, None]
    v = np.diag(noise)
    for term, sigma in zip(d.terms, m.estimate.covariances, strict=True):
        z = matrix(term.blocks, d.n) * t[:, None]
        v += (z @ sigma @ z.T) * np.equal.outer(term.codes, term.codes)
    offset = 0 if d.offset is None else d.offset
    e = t * (eta - offset) - x @ m.estimate.beta + d.y - mu
    w = np.linalg.inv(v)
    bread = np.linalg.inv(x.T @ w @ x)
    keep = np.eye(d.n) - x @ bread @ x.T @ w
    scores, p = [], []
    for c in np.unique(codes):
        at = codes == c
        inner = np.ix_(at, at)
        root = np.linalg.cholesky(v[inner]).T
        adjust = root.T @ power(root @ (v - x @ bread @ x.T)[inner] @ root.T, -0.5) @ root
        g = x[at].T @ np.linalg.inv(v[inner])
        scores.append(g @ (adjust - np.eye(at.sum())) @ e[at])
        p.append(bread @ g @ adjust @ keep[at])
    omega = [q @ v @ q.T for q in np.array(p).transpose(1, 0, 2)]
    return np.array(scores), np.array([np.trace(o) ** 2 / np.sum(o**2) for o in omega])


@pytest.mark.parametrize("family", ["binomial", "poisson"])
def test_generalised_models_as_dense_matrices_say(cbpp, family):
    m = cbpp
    if family == "poisson":
        data = cbpp.data.assign(e=np.log(cbpp.data["size"]), x=np.arange(56) % 5, f=1.0 + np.arange(56) % 3)
        data.loc[[3, 20], "x"] = np.nan
        m = rf.fit("incidence ~ period + x + offset(e) + (x || herd)", data, family="poisson")
    change, df = linearised_densely(m, np.asarray(m.design.terms[0].codes))
    bread = np.linalg.inv(rf.information(m))
    scores = rf.estfun(m).iloc[:, 1:].to_numpy(copy=True)
    scores[:, : change.shape[1]] += change
    half = scores @ bread
    expected = (half.T @ half)[: change.shape[1], : change.shape[1]]
    np.testing.assert_allclose(m.vcov(kind="CR2"), expected, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(rf.robust(m, "CR2")["df"], df, rtol=1e-7)


def test_the_linearised_gaussian_model_is_the_model():
    # The residual standard deviations have a formula, so the Laplace engine fits it, and V is known both ways.
    m = rf.fit("y ~ x + (1 | g)", zoo.data(), dispersion="~ f", method="ml")
    by, w = clusters_of(m, m.design, None)[0], working(m)
    found = linearised(m)
    here = found.working.here[w.here]
    assert here.all()
    np.testing.assert_allclose(found.working.bread, w.bread, rtol=1e-8)
    # Both have the modes of the engine, whose inner search ends at about 1e-8.
    np.testing.assert_allclose(found.working.residual, w.residual, atol=1e-6 * np.abs(w.residual).max())
    zero = np.zeros((by.count, len(m.estimate.beta)))
    change, a = adjusted_scores(found, by, zero, bias_reduced)
    b = bias_reduced(w, by, blocks(m, w, by))
    plain = by_cluster(w.solved * w.residual[:, None], by.codes, by.count)
    np.testing.assert_allclose(change[:, found.working.here], b.scores - plain, atol=1e-6 * np.abs(plain).max())
    np.testing.assert_allclose(change[:, ~found.working.here], 0)
    np.testing.assert_allclose(a.spread, b.spread, rtol=1e-7)
    np.testing.assert_allclose(degrees(a, w.bread, np.eye(2)), degrees(b, w.bread, np.eye(2)), rtol=1e-7)


def test_cr2_is_unbiased_under_the_linearised_model(cbpp):
    found, by = linearised(cbpp), clusters_of(cbpp, cbpp.design, None)[0]
    _, a = adjusted_scores(found, by, np.zeros((15, 4)), bias_reduced)
    bread = found.working.bread
    mean = (a.spread - a.cross.mT @ bread @ a.cross).sum(axis=0)
    np.testing.assert_allclose(bread @ mean @ bread, bread, rtol=1e-8, atol=1e-10)


def test_few_clusters_of_a_generalised_model():
    """Twelve clusters, four of them treated: CR0 is a fifth too small on average (0.77 of 1000 draws), CR2 0.96."""
    rng = np.random.default_rng(1)
    g, z = np.repeat(np.arange(12), 8), np.tile(np.linspace(-1, 1, 8), 12)
    x = (g < 4).astype(float)
    beta, found = [], {"CR0": [], "CR2": []}
    for _ in range(250):
        y = rng.poisson(3 * np.exp(-0.3 + 0.5 * x + 0.3 * z + 0.7 * rng.normal(size=12)[g])).astype(float)
        m = rf.fit("y ~ x + z + (1 | g)", {"y": y, "x": x, "g": g, "z": z}, family="poisson")
        beta.append(m.params["x"])
        for kind, values in found.items():
            values.append(m.vcov(kind=kind)["x", "x"])
    bias = {kind: np.mean(values) / np.var(beta) - 1 for kind, values in found.items()}
    # The standard error of a ratio is about 9 %, most of it common to both kinds.
    assert bias["CR2"] - bias["CR0"] > 0.15
    assert abs(bias["CR2"]) < abs(bias["CR0"])


def test_kinds_of_generalised_models(cbpp):
    np.testing.assert_allclose(cbpp.vcov(kind="CR1S"), cbpp.vcov(kind="CR0") * 15 * 55 / (14 * 52))
    size = [np.diag(cbpp.vcov(kind=kind)) for kind in ("CR0", "CR2", "CR3")]
    assert (np.diff(size, axis=0) > 0).all()
    table = rf.robust(cbpp, "CR2")
    assert (table["df"] < 14).all()
    assert np.isinf(cbpp.tidy(vcov="CR2", ddf="inf")["df"]).all()
    assert "15 clusters of herd" in cbpp.summary(vcov="CR2")
    joint = rf.contrast(cbpp, np.eye(4)[1:], vcov="CR2", joint=True).iloc[0]
    assert 0 < joint["dendf"] < 12


def test_other_components_keep_their_scores():
    data = rf.datasets.load("Salamanders").assign(w=lambda d: 1.0 + d["sample"] % 2)
    m = rf.fit("count ~ mined + (1 | site)", data, family="nbinom2", dispersion="~ mined", frequency_weights="w")
    plain, table = rf.robust(m, "CR0"), rf.robust(m, "CR2")
    of_mean = table["component"] == "mean"
    assert np.isfinite(table["df"][of_mean]).all()
    assert np.isinf(table["df"][~of_mean]).all()
    assert (table["std_error"][of_mean] > plain["std_error"][of_mean]).all()
    # Through the information that they share with those of the mean, which is little.
    np.testing.assert_allclose(table["std_error"][~of_mean], plain["std_error"][~of_mean], rtol=0.05)


def test_rows_that_weigh_nothing():
    """Means of 1e-7 beside 10: the blocks keep their digits."""
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(10), 6)
    e = np.where(np.arange(60) % 6 == 0, -16.0, 0.0)
    data = {"y": rng.poisson(10 * np.exp(e)).astype(float), "g": g, "e": e, "x": rng.normal(size=60)}
    m = rf.fit("y ~ x + offset(e)", data, family="poisson")
    kept = {name: values[e == 0] for name, values in data.items()}
    less = rf.fit("y ~ x + offset(e)", kept, family="poisson")
    np.testing.assert_allclose(
        rf.robust(m, "CR2", "g")["std_error"], rf.robust(less, "CR2", "g")["std_error"], rtol=1e-5
    )
    np.testing.assert_allclose(rf.robust(m, "CR2", "g")["df"], rf.robust(less, "CR2", "g")["df"], rtol=1e-4)


def test_a_density_that_is_not_concave_has_no_working_variance():
    data = zoo.data().assign(y=lambda d: d["y"] + 30.0 * (np.arange(60) == 7))
    m = rf.fit("y ~ x + (1 | g)", data, family="student_t", nu=3)
    with pytest.raises(NotAvailableError, match=r"row \d+ .*no curvature"):
        m.vcov(kind="CR2")
    assert np.isfinite(np.diag(m.vcov(kind="CR1"))).all()


def test_lognormal_rows_have_their_expected_information():
    # Its log density is not concave in the mean's predictor: a row far below its mean had no working variance.
    mu, sigma, h = 3.0, 2.0, 1e-4
    s2 = np.log1p((sigma / mu) ** 2)
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    y = np.exp(np.log(mu) - s2 / 2 + np.sqrt(s2) * nodes)

    def density(eta):
        s2 = np.log1p((sigma / np.exp(eta)) ** 2)
        return -np.log(s2) / 2 - (np.log(y) - eta + s2 / 2) ** 2 / (2 * s2)

    slope = (density(np.log(mu) + h) - density(np.log(mu) - h)) / (2 * h)
    # Difference quotients, exact to h squared.
    assert weights @ slope**2 / weights.sum() == pytest.approx(INFORMATION["lognormal"](mu, sigma), rel=1e-6)

    data = rf.datasets.load("sleepstudy")
    m = rf.fit("Reaction ~ Days + (Days | Subject)", data, family="lognormal")
    plain, reduced, jackknife = (rf.robust(m, kind) for kind in ("CR0", "CR2", "CR3"))
    assert (plain["std_error"][:2] < reduced["std_error"][:2]).all()
    assert (reduced["std_error"][:2] < jackknife["std_error"][:2]).all()
    # The logarithm of a response of so little spread is normal, with nearly the same relative slopes.
    logs = rf.robust(rf.fit("y ~ Days + (Days | Subject)", data.assign(y=np.log(data["Reaction"])), method="ml"), "CR2")
    np.testing.assert_allclose(reduced["std_error"][:2], logs["std_error"], rtol=0.05)
    np.testing.assert_allclose(reduced["df"][:2], logs["df"], rtol=0.01)


def test_sampling_weights_have_cr1_as_their_own_covariance():
    data = rf.datasets.load("cbpp").assign(w=lambda d: 1.0 + (d["period"] == "2"))
    m = rf.fit("incidence ~ period + (1 | herd)", data, family="poisson", sampling_weights="w")
    np.testing.assert_allclose(m.vcov(kind="CR1"), m.vcov(), rtol=1e-8)


def test_several_components():
    data = rf.datasets.load("Salamanders")
    m = rf.fit("count ~ mined + (1 | site)", data, family="nbinom2", zero_inflation="~ mined")
    table = rf.robust(m)
    assert set(table["component"]) == {"mean", "dispersion", "zero_inflation"}
    found = m.vcov("zero_inflation", kind="CR1")
    assert list(found.columns) == ["(Intercept)", "minedno"]
    errors = table["std_error"][table["component"] == "zero_inflation"]
    np.testing.assert_allclose(np.sqrt(np.diag(found)), errors)


# ---- several ways of clustering of generalised models ----------------------------------------------------------------


def weeks():
    """Counts of sites in weeks, sites within regions; some rows missing."""
    rng = np.random.default_rng(11)
    site, week = np.repeat(np.arange(12), 9), np.tile(np.arange(9), 12)
    x, e = rng.normal(size=108), rng.uniform(0.5, 2, size=108)
    y = rng.poisson(e * np.exp(0.5 + 0.3 * x + 0.5 * rng.normal(size=12)[site] + 0.3 * rng.normal(size=9)[week]))
    x[[5, 50]] = np.nan
    own = {"region": site // 2, "half": week % 3, "third": week // 3}
    return pd.DataFrame({"y": y, "x": x, "e": np.log(e), "site": site, "week": week, **own})


def signed(halves, codes, kind, n, rank):
    """The sum over two ways less their meet, of functions from codes to rows of M s_i."""
    total = 0.0
    for sign, by in ((1, codes[0]), (1, codes[1]), (-1, codes[0] * 100 + codes[1])):
        half, count = halves(by), len(np.unique(by))
        scale = {"CR1": count / (count - 1), "CR1S": count * (n - 1) / ((count - 1) * (n - rank))}.get(kind, 1.0)
        total = total + sign * scale * half.T @ half
    return total


def codes_of(m, *names):
    return [np.asarray(m.data[name])[m.design.rows] for name in names]


@pytest.mark.parametrize("kind", ["CR0", "CR1", "CR1S"])
def test_two_ways_of_a_generalised_linear_model(kind):
    m = rf.fit("y ~ x + offset(e)", weeks(), family="poisson")
    rows = matrix(m.design.fixed, m.nobs) * (m.design.y - m.fitted())[:, None]
    expected = signed(lambda by: pd.DataFrame(rows).groupby(by).sum().to_numpy() @ np.asarray(m.vcov()),
                      codes_of(m, "site", "week"), kind, m.nobs, 2)  # fmt: skip
    np.testing.assert_allclose(m.vcov(kind=kind, cluster=["site", "week"]), expected, rtol=1e-7)
    assert np.isinf(rf.robust(m, kind, ["site", "week"])["df"]).all()


def test_two_ways_that_random_effects_are_nested_in_have_exact_scores():
    data = weeks().assign(side=lambda d: d["site"] % 4)
    m = rf.fit("y ~ x + offset(e) + (1 | site)", data, family="nbinom2")
    bread = np.linalg.inv(rf.information(m))
    expected = signed(lambda by: rf.estfun(m, by).iloc[:, 1:].to_numpy() @ bread,
                      codes_of(m, "region", "side"), "CR1", m.nobs, 3)  # fmt: skip
    with pytest.warns(rf.RanefWarning, match="eigenvalues were set to 0"):  # six regions and four sides
        found = m.vcov("all", kind="CR1", cluster=["region", "side"])
    values, vectors = np.linalg.eigh(expected[:3, :3])
    np.testing.assert_allclose(found, (vectors * np.maximum(values, 0)) @ vectors.T, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(m.vcov(kind="CR1", cluster=["site", "site"]), m.vcov(kind="CR1"), rtol=1e-9)


@pytest.mark.parametrize("formula", ["(1 | site) + (1 | week)", "(x | site)"])
def test_two_ways_that_random_effects_cross_as_dense_matrices_say(formula):
    m = rf.fit(f"y ~ x + offset(e) + {formula}", weeks(), family="poisson")
    mu = m.fitted()
    x = matrix(m.design.fixed, m.nobs) * mu[:, None]
    v = np.diag(mu)
    for term, sigma in zip(m.design.terms, m.estimate.covariances, strict=True):
        z = matrix(term.blocks, m.nobs) * mu[:, None]
        v += (z @ sigma @ z.T) * np.equal.outer(term.codes, term.codes)
    e = mu * (np.log(mu) - m.design.offset) - x @ m.estimate.beta + m.design.y - mu
    solved = np.linalg.solve(v, x)
    rows = solved * e[:, None] @ np.linalg.inv(x.T @ solved)
    expected = signed(lambda by: pd.DataFrame(rows).groupby(by).sum().to_numpy(),
                      codes_of(m, "site", "week"), "CR1", m.nobs, 2)  # fmt: skip
    found = m.vcov(kind="CR1", cluster=["site", "week"])
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-12)
    table = rf.robust(m, "CR1", ["site", "week"])
    np.testing.assert_allclose(table["std_error"], np.sqrt(np.diag(found)))


def test_two_ways_without_a_working_model_are_refused():
    m = rf.fit("y ~ x + (1 | site) + (1 | week)", weeks(), family="poisson", zero_inflation="~ 1")
    with pytest.raises(NotAvailableError, match=r"'site' reach across clusters.*extra zeros.*each way"):
        m.vcov(kind="CR1", cluster=["site", "week"])
    nested = m.update(". ~ . - (1 | week)")
    assert np.isfinite(np.diag(nested.vcov("all", kind="CR1", cluster=["site", "region"]))).all()
    without = nested.update(zero_inflation=None)
    with pytest.raises(NotAvailableError, match="several ways"):
        without.vcov(kind="CR2", cluster=["site", "region"])


def test_two_ways_of_few_generalised_clusters_are_made_a_covariance():
    m = rf.fit("y ~ x + offset(e)", weeks(), family="poisson")
    with pytest.warns(rf.RanefWarning, match="eigenvalues were set to 0"):
        found = m.vcov(kind="CR0", cluster=["half", "third"])
    assert np.linalg.eigvalsh(found)[0] > -1e-15


# ---- scores and information ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "weighted"), [c for c in CASES if c[0] not in ("nested", "no_random")])
def test_scores_are_slopes_of_the_loglikelihood(name, weighted):
    m = fit(name, weighted, "ml")
    scores = rf.estfun(m, cluster_of(name)).iloc[:, 1:]
    by = np.asarray(pd.factorize(zoo.data()["g"], sort=True)[0])
    w = working(m)
    slopes = derivatives(m)
    for column, dv in zip(list(scores)[w.x.shape[1] :], slopes, strict=True):
        inverse = np.linalg.inv(dense_v(m))
        u = inverse @ w.residual
        whole = [(u[by == c] @ dv[np.ix_(by == c, by == c)] @ u[by == c]
                  - np.trace((inverse @ dv)[np.ix_(by == c, by == c)])) / 2 for c in range(8)]  # fmt: skip
        np.testing.assert_allclose(scores[column], whole, rtol=1e-7, atol=1e-9)
    # The gradient at the optimum, in standard errors: half its square is the decrease that is left, about 1e-9.
    if not m.boundary:
        np.testing.assert_allclose(scores.sum() / np.sqrt(np.diag(rf.information(m))), 0, atol=1e-4)


def derivatives(m):
    """DV / d (entries of Sigma, sigma^2) as full matrices."""
    d, out = m.design, []
    for term in d.terms:
        z, same = matrix(term.blocks, d.n), np.equal.outer(term.codes, term.codes)
        k = z.shape[1]
        for j in range(k):
            for i in range(j, k):
                part = np.outer(z[:, i], z[:, j])
                out.append((part if i == j else part + part.T) * same)
    return [*out, np.diag(1 / (np.ones(d.n) if d.weights is None else d.weights))]


@pytest.mark.parametrize("method", ["ml", "reml"])
@pytest.mark.parametrize(
    ("name", "weighted"), [("slope", True), ("crossed", True), ("crossed", False), ("nested", False)]
)
def test_information_as_dense_matrices_say(name, weighted, method):
    m = fit(name, weighted, method)
    w, v, dv = working(m), dense_v(m), derivatives(m)
    inverse = np.linalg.inv(v)
    p = inverse - inverse @ w.x @ w.bread @ w.x.T @ inverse
    core = p if method == "reml" else inverse
    u = p @ (m.design.y)
    expected = np.array([[np.trace(core @ a @ core @ b) / 2 for b in dv] for a in dv])
    observed = np.array([[u @ a @ p @ b @ u - np.trace(core @ a @ core @ b) / 2 for b in dv] for a in dv])
    mixed = np.array([w.x.T @ inverse @ a @ u for a in dv]).T
    r = w.x.shape[1]
    for kind, low in (("expected", expected), ("observed", observed + mixed.T @ w.bread @ mixed)):
        if m.boundary and kind == "observed":
            continue
        found = np.asarray(rf.information(m, kind))
        unit = np.sqrt(np.diag(expected))
        # At the optimum only: the gradient, up to 1e-5, times the curvature of sd -> variance is what differs.
        np.testing.assert_allclose(found[r:, r:] / np.outer(unit, unit), low / np.outer(unit, unit), atol=1e-5)
        np.testing.assert_allclose(found[:r, :r], np.linalg.inv(w.bread), rtol=1e-8)
        np.testing.assert_allclose(found[:r, r:], mixed if kind == "observed" else 0 * mixed, rtol=1e-7, atol=1e-8)


def test_information_of_a_plain_model_and_on_the_boundary():
    m = fit("no_random", method="ml")
    found = np.asarray(rf.information(m))
    assert found[-1, -1] == pytest.approx(60 / (2 * m.sigma**4))
    assert np.asarray(rf.information(m, "expected"))[-1, -1] == pytest.approx(found[-1, -1])
    flat = rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.load("Dyestuff2"))
    with pytest.raises(NotAvailableError, match="singular"):
        rf.information(flat)
    assert np.isfinite(rf.information(flat, "expected")).all(axis=None)
    scores = rf.estfun(flat)
    assert scores.iloc[:, 2].isna().all()
    assert scores["sigma2"].notna().all()


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


def test_refusals_of_models(cbpp):
    wine = rf.fit("rating ~ temp + (1 | judge)", rf.datasets.load("wine"), family="cumulative")
    zeros = rf.fit("incidence ~ period + (1 | herd)", cbpp.data, family="poisson", zero_inflation="~ 1")
    weighted = rf.fit("incidence ~ period + (1 | herd)", cbpp.data, family="poisson", sampling_weights="size")
    for m, why in ((wine, "several linear predictors"), (zeros, "extra zeros"), (weighted, "sampling weights")):
        assert np.isfinite(np.diag(m.vcov(kind="CR1"))).all()
        for kind in ("CR2", "CR3"):
            with pytest.raises(NotAvailableError, match=f"adjusts residuals.*{why}.*'CR1'"):
                m.vcov(kind=kind)
    with pytest.raises(NotAvailableError, match="slim"):
        rf.robust(fit("slope").slim())
    with pytest.raises(NotAvailableError, match="slim"):
        rf.estfun(fit("slope").slim())
    with pytest.raises(NotAvailableError, match="not gaussian with the identity link"):
        rf.information(cbpp, "expected")
    with pytest.raises(OptionError, match="'expected'"):
        rf.information(cbpp, "expectd")
    with pytest.raises(OptionError, match="CR1S, CR2"):
        cbpp.vcov(kind="boot")
    with pytest.raises(OptionError, match="level"):
        rf.robust(fit("slope"), conf_level=2)
    with pytest.raises(NotAvailableError, match="no fixed effects"):
        fit("no_fixed").vcov(kind="CR2")
    penalised = rf.fit(
        "incidence ~ period + (1 | herd)", rf.datasets.load("cbpp"), family="poisson", prior={"fixed": "normal(0, 3)"}
    )
    with pytest.raises(NotAvailableError, match="prior"):
        rf.robust(penalised)


def test_degrees_of_contrasts():
    m = fit("slope")
    w = working(m)
    by = clusters_of(m, m.design, None)[0]
    a = bias_reduced(w, by, blocks(m, w, by))
    one, ten = degrees(a, w.bread, np.array([[1.0, 2.0], [10.0, 20.0]]))
    assert one == pytest.approx(ten)  # a contrast's scale does not matter


# ---- tests with a robust covariance ----------------------------------------------------------------------------------


def dense_hotelling(m, codes, rows):
    """Eta of CR2 from n x n matrices: the covariances of all p_si'y."""
    d, w = m.design, working(m)
    v, x, bread = dense_v(m), w.x, w.bread
    keep = np.eye(d.n) - x @ bread @ x.T @ np.linalg.inv(v)
    pieces = []
    for c in np.unique(codes):
        at = codes == c
        inner = np.ix_(at, at)
        root = np.linalg.cholesky(v[inner]).T
        adjust = root.T @ power(root @ (keep @ v @ keep.T)[inner] @ root.T, -0.5) @ root
        pieces.append(rows @ bread @ x[at].T @ np.linalg.inv(v[inner]) @ adjust @ keep[at])
    p = np.array(pieces)  # clusters, q, n
    cov = np.einsum("isn,nk,jtk->stij", p, v, p)
    turn = np.linalg.inv(np.linalg.cholesky(np.einsum("stii->st", cov)))
    cov = np.einsum("us,stij,vt->uvij", turn, cov, turn)
    q = len(rows)
    total = sum(np.sum(cov[s, s] * cov[t, t] + cov[s, t] * cov[t, s]) for s in range(q) for t in range(q))
    return q * (q + 1) / total


def test_hotelling_as_dense_matrices_say():
    m = fit("interaction", weighted=True)
    rows = np.array([[0.0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0.5], [0.5, 0, -1, 1, 0, 0]])
    table = rf.contrast(m, rows, vcov="CR2", joint=True)
    eta = dense_hotelling(m, np.asarray(m.design.terms[0].codes), rows)
    np.testing.assert_allclose(table["dendf"], eta - len(rows) + 1, rtol=ROUNDING)
    v = rows @ np.asarray(m.vcov(kind="CR2")) @ rows.T
    wald = rows @ m.estimate.beta @ np.linalg.solve(v, rows @ m.estimate.beta)
    np.testing.assert_allclose(table["statistic"], (eta - len(rows) + 1) / (eta * len(rows)) * wald, rtol=ROUNDING)


def test_one_row_jointly_is_one_row():
    m = fit("slope")
    one = rf.contrast(m, {"x": 1}, vcov="CR2").iloc[0]
    joint = rf.contrast(m, {"x": 1}, vcov="CR2", joint=True).iloc[0]
    np.testing.assert_allclose(
        [joint["statistic"], joint["dendf"], joint["p_value"]], [one["statistic"] ** 2, one["df"], one["p_value"]]
    )
    twice = rf.contrast(m, ["x", "2*x"], vcov="CR2", joint=True).iloc[0]  # the same twice is once
    assert twice["numdf"] == 1
    np.testing.assert_allclose(twice["statistic"], joint["statistic"])
    turned = rf.contrast(m, ["x + (Intercept)", "x - 3*(Intercept)"], vcov="CR2", joint=True)
    plain = rf.contrast(m, ["x", "(Intercept)"], vcov="CR2", joint=True)
    np.testing.assert_allclose(turned, plain, rtol=ROUNDING)


def test_every_table_takes_the_same_covariance():
    m = rf.fit("distance ~ age * Sex + (age | Subject)", rf.datasets.load("Orthodont"))
    table = rf.robust(m, "CR2")
    tidied = m.tidy(vcov="CR2", conf_int=True)
    for name in ("std_error", "df", "p_value", "conf_low", "conf_high"):
        np.testing.assert_allclose(tidied[name], table[name])
    ends = rf.confint(m, which="fixed", vcov="CR2")
    np.testing.assert_allclose(ends["conf_low"], table["conf_low"])
    rows = rf.contrast(m, np.eye(4), vcov="CR2")
    np.testing.assert_allclose(rows["p_value"], table["p_value"])
    tests = rf.anova(m, type=1, vcov="CR2")
    assert "sumsq" not in tests
    last = rf.contrast(m, {"age:SexFemale": 1}, vcov="CR2", joint=True)
    np.testing.assert_allclose(tests["dendf"].iloc[-1], last["dendf"])
    text = m.summary(vcov="CR2", cluster="Subject")
    assert "Robust: CR2 standard errors, 27 clusters of Subject." in text
    assert f"{table['std_error'][0]:.4f}" in text


def test_normal_tests_on_request():
    m = fit("slope")
    table = m.tidy(vcov="CR2", ddf="inf")
    assert np.isinf(table["df"]).all()
    joint = rf.contrast(m, ["x", "(Intercept)"], vcov="CR2", ddf="inf", joint=True)
    assert np.isinf(joint["dendf"]).all()
    tests = rf.anova(m, vcov="CR2", ddf="inf")
    assert "df" in tests or np.isinf(tests["dendf"]).all()


def test_two_ways_have_clusters_less_one():
    m = fit("no_random")
    data = m.data
    a, b = "g", next(c for c in data if c not in ("g", "y") and 2 < data[c].nunique() < 20)
    table = rf.contrast(m, np.eye(len(m.layout.fixed)), vcov="CR1", cluster=[a, b], joint=True)
    assert table["dendf"][0] == min(data[a].nunique(), data[b].nunique()) - 1
    with pytest.raises(NotAvailableError, match="independent clusters"):
        rf.anova(m, vcov="CR2", cluster=[a, b])


def test_too_few_clusters_for_so_many_coefficients():
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"g": np.repeat(list("abcd"), 30), "f": np.tile(list("vwxyz"), 24), "y": rng.normal(size=120)})
    m = rf.fit("y ~ f + (1 | g)", data)
    found = rf.anova(m, vcov="CR2")
    assert found["numdf"][0] == 4  # redundancy is read off the model, not off a sandwich of rank 3
    assert np.isnan(found["p_value"][0])


@pytest.mark.parametrize("structure", ["homdiag", "cs", "hetar1", "homtoep"])
def test_structured_covariances(structure):
    rng = np.random.default_rng(4)
    g, t = np.repeat(np.arange(25), 9), np.tile(np.repeat(np.arange(3), 3), 25)
    effects = rng.normal(size=(25, 1)) + rng.normal(size=(25, 3)) * [0.6, 0.8, 1.0]
    x = t + rng.normal(size=225)
    data = pd.DataFrame({"g": g, "t": pd.Categorical(t), "x": x, "y": x + effects[g, t] + rng.normal(size=225)})
    data = data.drop(index=[3, 4, 40, 41, 42, 90])
    g = data["g"].to_numpy()
    m = rf.fit(f"y ~ x + {structure}(0 + t | g)", data, method="reml")
    assert not m.task.linear
    for kind in ("CR0", "CR2", "CR3"):
        table = rf.robust(m, kind)
        v, df, _ = dense(m, kind, g)
        np.testing.assert_allclose(table["std_error"], np.sqrt(np.diag(v)), rtol=1e-7)  # V's condition is larger
        np.testing.assert_allclose(table["df"], df, rtol=1e-7)


def test_structured_as_plain():
    data = rf.datasets.load("sleepstudy").assign(w=lambda d: 1.0 + d["Days"] % 3)
    plain = rf.fit("Reaction ~ Days + (1 | Subject)", data, precision_weights="w")
    same = rf.fit("Reaction ~ Days + homdiag(1 | Subject)", data, precision_weights="w", method="reml")
    for kind in KINDS:
        # The optima agree to 1e-7 in the standard deviations.
        ours = rf.robust(same, kind)
        assert len(ours) == 2
        np.testing.assert_allclose(ours.iloc[:, 1:], rf.robust(plain, kind).iloc[:, 1:], rtol=1e-6, atol=1e-20)
    with pytest.raises(NotAvailableError, match="dispersion"):
        rf.contrast(same, {"dispersion.(Intercept)": 1}, component="all", vcov="CR2")


def test_refusals_of_tests_with_robust_covariances(cbpp):
    m = fit("slope")
    for wrong, match in (
        ({"vcov": "CR2", "ddf": "kr"}, "model's own covariance"),
        ({"vcov": "CR2", "ddf": "nonsense"}, "unknown"),
        ({"vcov": "kr", "ddf": "residual"}, "degrees of freedom of its own"),
        ({"cluster": "g"}, "vcov='CR2'"),
        ({"vcov": "CR5"}, "CR1S, CR2"),
    ):
        with pytest.raises(OptionError, match=match):
            rf.anova(m, **wrong)
        with pytest.raises(OptionError, match=match):
            m.tidy(**wrong)
    with pytest.raises(ArgumentError, match="Wald tests of the fixed effects"):
        m.tidy("ran_pars", vcov="CR2")
    with pytest.raises(ArgumentError, match="Wald tests of the fixed effects"):
        m.tidy(vcov="CR2", conf_int=True, method="profile")
    assert "df" in rf.anova(cbpp, vcov="CR1")  # chi-square
    pd.testing.assert_frame_equal(rf.anova(m, vcov="kenward-roger"), rf.anova(m, ddf="kenward-roger"))
