"""Cluster-robust covariances of generalised models: the linear model at the optimum, scores, several ways, refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from engines import zoo
from oracle_robust import fit, power
from ranef.errors import NotAvailableError, OptionError
from ranef.frame.design import matrix
from ranef.inference.robust.adjustments import bias_reduced, degrees
from ranef.inference.robust.blocks import blocks
from ranef.inference.robust.clusters import clusters_of
from ranef.inference.robust.generalised import adjusted_scores
from ranef.inference.robust.linearised import INFORMATION, linearised
from ranef.inference.robust.working import by_cluster, working


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
