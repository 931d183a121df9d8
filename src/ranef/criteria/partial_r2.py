"""Semi-partial R2: what each fixed term explains beyond all others, beside what groups and residuals vary.

With S the covariance matrix of the columns of X over the rows, b_k the coefficients of a term and S^kk the block of
S^-1, the variance that only it explains is w = b_k' (S^kk)^-1 b_k, and R2 = w / (w + r + e) with the variances of
random effects and residuals of Nakagawa & Schielzeth (Jaeger, Edwards, Das & Sen 2017). For all terms together it is
the marginal R2.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ranef.criteria.variances import variances
from ranef.engines.estimate import Array
from ranef.errors import NotAvailableError
from ranef.formula import Term
from ranef.frame.design import Block, matrix
from ranef.inference.noted import NotedTable
from ranef.inference.submodels import data_of, taken
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.model import Fit

CHUNK = 20_000
CONSTANT = 1e-20  # variance of a column, relative to its mean square, below which it is constant


def partial_r2(m: Fit, method: str = "auto") -> NotedTable:
    """Return the semi-partial R2 of every fixed term of the mean.

    Parameters
    ----------
    m : Fit
        With its rows.
    method : str
        For the residual variance of other than gaussian models, see `ranef.criteria.variances`.

    Returns
    -------
    NotedTable
        Rows "model" (the marginal R2) and the terms: `term, df, r2`. Correlated terms share what they explain: their
        shares need not sum to that of the model.

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
    >>> [round(float(v), 3) for v in partial_r2(m)["r2"]]
    [0.279, 0.279]
    """
    v = variances(m, method)
    rest = v.random + v.residual
    beta = m.estimate.beta[m.layout.components[0].at]
    spread = column_covariance(m)
    varying = (np.diag(spread) > 0) & ~np.isnan(beta)
    if not varying.any():
        raise NotAvailableError("partial_r2: the fixed part has no predictors that vary")
    at = np.flatnonzero(varying)
    inverse = np.asarray(np.linalg.inv(spread[np.ix_(at, at)]), dtype=np.float64)
    terms = [(label, [i for i, j in enumerate(at) if j in columns]) for label, columns in columns_of_terms(m)]
    terms = [(label, held) for label, held in terms if held]
    own = [explained(beta[at][held], inverse[np.ix_(held, held)]) for _, held in terms]
    columns = {
        "term": ["model", *(label for label, _ in terms)],
        "df": np.array([len(at), *(len(held) for _, held in terms)]),
        "r2": np.array([v.fixed / (v.fixed + rest), *(w / (w + rest) for w in own)]),
    }
    return NotedTable("Semi-partial R2 of fixed terms", columns, (), m.layout.kind)


def explained(beta: Array, block: Array) -> float:
    """Return b' (S^kk)^-1 b."""
    return float(beta @ np.linalg.solve(block, beta))


def column_covariance(m: Fit) -> Array:
    """Return the covariance matrix of the columns of X over the rows, from cross-products; 0 for constant ones."""
    blocks, n = design_of(m, "partial_r2").fixed, m.nobs
    p = sum(len(b.names) for b in blocks)
    first = matrix([_rows(b, slice(0, 1)) for b in blocks], 1)[0] if n else np.zeros(p)
    total, gram = np.zeros(p), np.zeros((p, p))
    for start in range(0, n, CHUNK):
        rows = slice(start, min(start + CHUNK, n))
        x = matrix([_rows(b, rows) for b in blocks], rows.stop - rows.start) - first  # a shift against cancellation
        total += x.sum(axis=0)
        gram += x.T @ x
    out = (gram - np.outer(total, total) / n) / max(n - 1, 1)
    scale = np.diag(gram) / n + first**2
    constant = np.diag(out) <= CONSTANT * np.maximum(scale, np.finfo(float).tiny)
    out[constant] = out[:, constant] = 0.0
    return out


def _rows(block: Block, rows: slice) -> Block:
    codes = None if block.codes is None else block.codes[rows]
    return Block(block.names, codes, block.contrast, None if block.x is None else block.x[rows])


def columns_of_terms(m: Fit) -> list[tuple[str, range]]:
    """Return the label and the positions of the columns of each fixed term of the mean but the intercept."""
    row = taken(data_of(m), [0 if m.design is None or m.design.rows is None else int(m.design.rows[0])])
    out, first = [], 0
    for plan in m.spec.fixed:
        alone = replace(m.spec, fixed=(plan,), offset=None).new(row, groups="none", offset=None, parts=())
        count = sum(len(b.names) for b in alone.fixed)
        if plan.factors:
            out.append((Term(plan.factors).label, range(first, first + count)))
        first += count
    return out
