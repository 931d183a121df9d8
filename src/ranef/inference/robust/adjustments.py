"""Adjusted scores of clusters: s_i = X_i' V_i^-1 A_i e_i, and what degrees of freedom need to know of A_i.

With M = (X'V^-1X)^-1 and the model's V as working covariance, residuals e_i = y_i - X_i beta_hat have the covariance
V_i - X_i M X_i'. The adjustment matrices (Bell & McCaffrey 2002; Pustejovsky & Tipton 2018, equations 6-9) are

    CR0   A_i = I
    CR2   A_i = D_i' [D_i (V_i - X_i M X_i') D_i']^(+1/2) D_i,   D_i'D_i = V_i,   so that E(sum s_i s_i') = M^-1
    CR3   A_i = (I - X_i M X_i' V_i^-1)^-1, the jackknife.

CR1 = m / (m - 1) CR0 and CR1S = m (n - 1) / ((m - 1) (n - r)) CR0 for m clusters, n rows, rank r.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranef.engines.estimate import Array
from ranef.errors import NotAvailableError
from ranef.inference.robust.blocks import Batch
from ranef.inference.robust.clusters import Clusters
from ranef.inference.robust.working import Working, by_cluster, grams

EXHAUSTED = 1e-8  # share of a direction's information that lies outside a cluster, below which it has none


@dataclass(frozen=True, slots=True)
class Adjusted:
    """The clusters of one adjustment.

    Attributes
    ----------
    scores : (m, r) array
        s_i.
    spread : (m, r, r) array
        X_i'V_i^-1 A_i V_i A_i' V_i^-1 X_i.
    cross : (m, r, r) array
        X_i' A_i' V_i^-1 X_i.
    """

    scores: Array
    spread: Array
    cross: Array


Adjustment = Callable[[Working, Clusters, Iterable[Batch]], Adjusted]


def none(w: Working, by: Clusters, _blocks: Iterable[Batch]) -> Adjusted:
    """CR0."""
    gram = grams(w.solved, w.x, by.codes, by.count)
    return Adjusted(by_cluster(w.solved * w.residual[:, None], by.codes, by.count), gram, gram)


def jackknife(w: Working, by: Clusters, blocks: Iterable[Batch]) -> Adjusted:
    """CR3: X_i'V_i^-1 (I - X_i M X_i'V_i^-1)^-1 = (I - Q_i M)^-1 X_i'V_i^-1, Q_i = X_i'V_i^-1 X_i.

    Raises
    ------
    NotAvailableError
        If a coefficient cannot be estimated without some cluster.
    """
    plain = none(w, by, blocks)
    alone = np.flatnonzero(exhausted(plain.cross, w.bread))
    if len(alone):
        raise NotAvailableError(
            f"kind='CR3' leaves out one cluster after the other, but without {by.name} = {by.labels[int(alone[0])]!r} "
            f"a coefficient cannot be estimated: use kind='CR2'"
        )
    lift = np.linalg.inv(np.eye(len(w.bread)) - plain.cross @ w.bread)
    scores = np.einsum("mij,mj->mi", lift, plain.scores)
    return Adjusted(scores, lift @ plain.cross @ lift.mT, plain.cross @ lift.mT)


def exhausted(q: Array, bread: Array) -> NDArray[np.int64]:
    """Return in how many directions all information lies in clusters with X_i'V_i^-1X_i = q, (m, r, r) -> (m,).

    All eigenvalues are at most their sum, so that most clusters need none.
    """
    out = np.zeros(len(q), dtype=np.int64)
    some = np.flatnonzero(np.einsum("mij,ij->m", q, bread) > 1 - EXHAUSTED)
    root = np.linalg.cholesky(bread)
    out[some] = np.sum(np.linalg.eigvalsh(root.T @ q[some] @ root) > 1 - EXHAUSTED, axis=1)
    return out


def bias_reduced(w: Working, by: Clusters, blocks: Iterable[Batch]) -> Adjusted:
    """CR2, many clusters at a time; A_i does not depend on which root D_i is taken, here that of Cholesky.

    The inverse is Moore & Penrose's: where a cluster alone determines a coefficient, residuals do not vary.
    """
    r = len(w.bread)
    out = Adjusted(np.empty((by.count, r)), np.empty((by.count, r, r)), np.empty((by.count, r, r)))
    for b in blocks:
        lower = np.linalg.cholesky(b.v)  # D'
        unit = np.linalg.solve(lower, b.x)
        values, vectors = np.linalg.eigh(lower.mT @ (b.v - b.x @ w.bread @ b.x.mT) @ lower)
        flat = exhausted(unit.mT @ unit, w.bread)  # as many eigenvalues are 0, the smallest
        kept = np.arange(values.shape[1]) >= flat[:, None]
        root = np.where(kept, 1 / np.sqrt(np.where(kept, values, 1.0)), 0.0)
        left = (unit.mT @ vectors * root[:, None]) @ (lower @ vectors).mT  # X'V^-1 A
        out.scores[b.clusters] = (left @ b.residual[..., None])[..., 0]
        out.spread[b.clusters] = left @ b.v @ left.mT
        out.cross[b.clusters] = b.x.mT @ left.mT
    return out


def degrees(a: Adjusted, bread: Array, rows: Array) -> Array:
    """Satterthwaite's degrees of freedom of each contrast (Pustejovsky & Tipton 2018, equation 10).

    l'V_CR l = sum (p_i'y)^2 is a quadratic form in normal variables; with the working covariance the p_i'y have the
    covariance Omega = diag(g_i'V_i g_i) - H M H', g_i = A_i'V_i^-1 X_i M l, H the rows X_i'g_i; df = (tr Omega)^2 /
    tr(Omega^2). It is a matrix over clusters, of which only the factors are formed.
    """
    out = np.empty(len(rows))
    for r, row in enumerate(np.atleast_2d(rows) @ bread):
        diagonal = np.einsum("i,mij,j->m", row, a.spread, row)
        h = a.cross @ row
        inner = np.einsum("mi,ij,mj->m", h, bread, h)
        low = bread @ h.T @ h
        square = np.sum(diagonal**2) - 2 * np.sum(diagonal * inner) + np.trace(low @ low)
        out[r] = np.sum(diagonal - inner) ** 2 / square if square > 0 else np.nan
    return out


def hotelling(a: Adjusted, bread: Array, rows: Array) -> float:
    """Degrees of freedom eta of the Wishart matrix that C V_CR C' is like (Pustejovsky & Tipton 2018, section 3.2).

    With E the expectation of C V_CR C' under the working model, Omega = E^-1/2 C V_CR C' E^-1/2 has the expectation I;
    the total variance of its entries is that of a Wishart matrix with eta = q (q + 1) / sum_st Var(Omega_st). One row
    gives `degrees`.

    The entries are sums over clusters of products of normal variables p_si'y, of which
    Cov(p_si'y, p_tj'y) = P_st,ij = (i = j) g_si'V_i g_ti - h_si'M h_tj: Var(Omega_st) = sum_ij (P_ss,ij P_tt,ij +
    P_st,ij P_ts,ij), of which only factors over clusters are formed.
    """
    lines = rows @ bread
    own = np.einsum("sa,mab,tb->mst", lines, a.spread, lines, optimize=True)
    reach = np.einsum("mab,sb->msa", a.cross, lines)  # h_si
    inner = np.einsum("msa,ab,mtb->mst", reach, bread, reach, optimize=True)
    values, vectors = np.linalg.eigh((own - inner).sum(axis=0))
    turn = (vectors / np.sqrt(values)).T  # its rows instead of those of the symmetric root: eta does not change
    own, inner = (np.einsum("us,mst,vt->muv", turn, x, turn, optimize=True) for x in (own, inner))
    grams_ = np.einsum("us,msa,vt,mtb->uvab", turn, reach, turn, reach, optimize=True)  # sum of h_ui h_vi'
    low = np.einsum("ab,uvbc->uvac", bread, grams_)
    diagonal, beside = np.einsum("mss->ms", own), np.einsum("mss->ms", inner)
    crossed = diagonal.T @ beside
    variance = diagonal.T @ diagonal - crossed - crossed.T + np.einsum("stab,tsba->st", low, low)
    variance += np.einsum("mst,mst->st", own, own) - 2 * np.einsum("mst,mst->st", own, inner)
    variance += np.einsum("stab,stba->st", low, low)
    q = len(rows)
    return float(q * (q + 1) / variance.sum())


ADJUSTMENTS: dict[str, Adjustment] = {
    "CR0": none,
    "CR1": none,
    "CR1S": none,
    "CR2": bias_reduced,
    "CR3": jackknife,
}


def factor(kind: str, clusters: int, rows: float, rank: int) -> float:
    """Return what the sandwich of a kind is multiplied by."""
    if kind == "CR1":
        return clusters / (clusters - 1)
    return clusters * (rows - 1) / ((clusters - 1) * (rows - rank)) if kind == "CR1S" else 1.0
