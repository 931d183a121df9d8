"""Scores by cluster and information: slopes of the log-likelihood, and what dense matrices say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from engines import zoo
from oracle_robust import CASES, cluster_of, dense_v, fit
from ranef.errors import NotAvailableError
from ranef.frame.design import matrix
from ranef.inference.robust.working import working


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
