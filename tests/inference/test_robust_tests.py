"""Tests with a robust covariance: Hotelling's T^2, degrees of freedom, and the tables that take one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from oracle_robust import KINDS, ROUNDING, dense, dense_v, fit, power
from ranef.errors import ArgumentError, NotAvailableError, OptionError
from ranef.inference.robust.working import working


@pytest.fixture(scope="module")
def cbpp():
    return rf.fit(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)", rf.datasets.load("cbpp"), family="binomial"
    )


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
