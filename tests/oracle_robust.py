"""Cluster-robust covariances from n x n matrices, and the linear fits that they are asked for."""

from __future__ import annotations

import numpy as np

import ranef as rf
from engines import zoo
from ranef.frame.design import matrix

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
