"""Semi-partial R2: what each fixed term explains beyond all others, beside what groups and residuals vary.

With S the covariance matrix of the columns of X over the rows, b_k the coefficients of a term and S^kk the block of
S^-1, the variance that only it explains is w = b_k' (S^kk)^-1 b_k, and R2 = w / (w + r + e) with the variances of
random effects and residuals of Nakagawa & Schielzeth (Jaeger, Edwards, Das & Sen 2017). For all terms together it is
the marginal R2.

With the standardised generalised variance of the independent clusters, log sgv = mean log|V_i| / n_i (SenGupta 1987),
in the place of V it is W / (W + nu), W = (n - 1) w / sgv, the proportion of the generalised variance explained;
nu = n - k (k + 1) / 2 - (k - 1) takes off the entries of an unstructured covariance of k rows, the average size of a
cluster, and k - 1 (Jaeger, Edwards, Das & Sen 2017). This nu was deduced from the figures of the authors' package
r2glmm, which it gives to all printed digits in the models compared, and not from the text of the article.

With denominator degrees of freedom nu of a joint Wald test of the term's coefficients, F, it is R2 = (q / nu) F /
(1 + (q / nu) F) (Edwards, Muller, Wolfinger, Qaqish & Schabenberger 2008).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.criteria.contributions import logdets
from ranef.criteria.contributions import units as independent
from ranef.criteria.variances import counts_of, variances
from ranef.engines.estimate import Array
from ranef.errors import NotAvailableError, OptionError
from ranef.frame.design import Block, matrix
from ranef.inference.ddf import method_of
from ranef.inference.ddf.method import units
from ranef.inference.dummies import written_out
from ranef.inference.hypotheses import rows_alone
from ranef.inference.noted import NotedTable
from ranef.inference.terms import fixed_terms
from ranef.model import check_fit, design_of

if TYPE_CHECKING:
    from ranef.model import Fit

CHUNK = 20_000
DEPENDENT = 1e-10  # variance of a column given others, relative to its own, below which it depends on them
CONSTANT = 1e-20  # variance of a column, relative to its mean square, below which it is constant


def partial_r2(m: Fit, method: str = "auto", ddf: Any = None) -> NotedTable:
    """Return the semi-partial R2 of every fixed term of the mean.

    Parameters
    ----------
    m : Fit
        With its rows.
    method : str
        For the residual variance of other than gaussian models, see `ranef.criteria.variances`; or "sgv", the share of
        the standardised generalised variance (linear models).
    ddf : str, optional
        "kenward-roger", "satterthwaite" …: the R2 of Edwards et al. (2008) from F tests with these denominator degrees
        of freedom, in place of that from variances.

    Returns
    -------
    NotedTable
        Rows "model" (all coefficients but the intercept: the marginal R2) and the terms: `term, df, r2`. Correlated
        terms share what they explain: their shares need not sum to that of the model.

    Raises
    ------
    OptionError
        If `ddf` and `method` exclude each other, or one is not known.
    NotAvailableError
        If no predictor varies, or the family has no residual variance to set beside.

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
    >>> [round(float(v), 3) for v in rf.partial_r2(m)["r2"]]
    [0.279, 0.279]
    """
    check_fit(m, "partial_r2")
    m = written_out(m)
    if ddf is not None and method != "auto":
        raise OptionError(f"partial_r2: ddf={ddf!r} asks for F tests, method={method!r} for variances; leave one out")
    if ddf is not None:
        return _from_tests(m, ddf)
    if method == "sgv":
        rest, whole = _generalised(m), None
    else:
        v = variances(m, method)
        rest, whole = v.random + v.residual, v.fixed
    beta = np.nan_to_num(m.estimate.beta[m.layout.components[0].at])
    spread = column_covariance(m)
    varying = np.diag(spread) > 0
    if not varying.any():
        raise NotAvailableError("partial_r2: the fixed part has no predictors that vary")
    at = np.flatnonzero(varying)
    beta, spread = beta[at], spread[np.ix_(at, at)]
    terms = [(label, [i for i, j in enumerate(at) if j in columns]) for label, columns in columns_of_terms(m)]
    terms = [(label, held) for label, held in terms if held]
    every, own = explained(beta, spread, range(len(at))), [explained(beta, spread, held) for _, held in terms]
    whole = every[0] if whole is None else whole
    columns = {
        "term": ["model", *(label for label, _ in terms)],
        "df": np.array([every[1], *(df for _, df in own)]),
        "r2": np.array([whole / (whole + rest), *(w / (w + rest) if df else np.nan for w, df in own)]),
    }
    return NotedTable("Semi-partial R2 of fixed terms", columns, (), m.layout.kind)


def _generalised(m: Fit) -> float:
    """Return nu sgv / (n - 1): what stands for the unexplained variance.

    Raises
    ------
    NotAvailableError
        If the model is no linear one with random effects, or clusters are so large that nu is not positive.
    """
    design = design_of(m, "partial_r2")
    if not m.task.linear or not design.terms:
        raise NotAvailableError("partial_r2: method='sgv' is about the covariance matrix of a linear mixed model")
    unit = independent([m])
    sizes = np.bincount(unit)
    logs = logdets(m, design, unit, len(sizes)) + sizes * 2 * np.log(m.sigma)
    logs -= 0.0 if design.weights is None else np.bincount(unit, np.log(design.weights))
    k = float(sizes.mean())
    nu = m.nobs - k * (k + 1) / 2 - (k - 1)
    if nu <= 0:
        raise NotAvailableError(
            f"partial_r2: method='sgv' counts the entries of an unstructured covariance of {k:.0f} rows, the average "
            f"of {len(sizes)} independent clusters, which is more than there are rows: leave method= out"
        )
    return nu * float(np.exp(np.mean(logs / sizes))) / (m.nobs - 1)


def explained(beta: Array, spread: Array, held: Sequence[int]) -> tuple[float, int]:
    """Return b_k' (S^kk)^-1 b_k and the rank of (S^kk)^-1, the covariance of some columns given all others.

    As a Schur complement, which is there for columns that depend on each other too: those of a factor without an
    intercept, and those that were dropped (their coefficients are 0). What others can stand for is nobody's own.
    """
    unit = np.sqrt(np.diag(spread))
    r = spread / np.outer(unit, unit)
    rest = np.ones(len(r), dtype=bool)
    rest[list(held)] = False
    beside = r[np.ix_(~rest, rest)]
    given = r[np.ix_(~rest, ~rest)] - beside @ np.linalg.pinv(r[np.ix_(rest, rest)], DEPENDENT, True) @ beside.T
    own, vectors = np.linalg.eigh(given)
    solid = own > DEPENDENT
    b = vectors.T @ (beta * unit)[~rest]
    return float(own[solid] @ b[solid] ** 2), int(solid.sum())


def column_covariance(m: Fit) -> Array:
    """Return the covariance matrix of the columns of X over the rows, from cross-products; 0 for constant ones.

    A row of frequency w counts w times.
    """
    blocks, n = design_of(m, "partial_r2").fixed, m.nobs
    counts = counts_of(m)
    p = sum(len(b.names) for b in blocks)
    first = matrix([_rows(b, slice(0, 1)) for b in blocks], 1)[0] if n else np.zeros(p)
    total, gram = np.zeros(p), np.zeros((p, p))
    for start in range(0, n, CHUNK):
        rows = slice(start, min(start + CHUNK, n))
        x = matrix([_rows(b, rows) for b in blocks], rows.stop - rows.start) - first  # a shift against cancellation
        total += counts[rows] @ x
        gram += x.T @ (x * counts[rows, None])
    size = float(counts.sum())
    out = (gram - np.outer(total, total) / size) / max(size - 1, 1)
    scale = np.diag(gram) / size + first**2
    constant = np.diag(out) <= CONSTANT * np.maximum(scale, np.finfo(float).tiny)
    out[constant] = out[:, constant] = 0.0
    return out


def _rows(block: Block, rows: slice) -> Block:
    codes = None if block.codes is None else block.codes[rows]
    return Block(block.names, codes, block.contrast, None if block.x is None else block.x[rows])


def columns_of_terms(m: Fit) -> list[tuple[str, range]]:
    """Return the label and the positions of the columns of each fixed term of the mean but the intercept."""
    terms = fixed_terms(m, "mean")
    return [(t.label, range(t.columns.start, t.columns.stop)) for t in terms if t.factors]


def _from_tests(m: Fit, ddf: Any) -> NotedTable:
    """Return the R2 of Edwards et al. (2008): of all terms together, then of each."""
    way = method_of(m, ddf)
    if way.letter == "z":
        raise NotAvailableError(f"partial_r2: ddf={way.name!r} has no denominator degrees of freedom; leave ddf= out")
    terms = columns_of_terms(m)
    unit = units(m)
    every = unit[[j for _, columns in terms for j in columns]]
    named = [("model", every), *((t.label, rows_alone(m, "mean", t)) for t in fixed_terms(m, "mean") if t.factors)]
    tests = [way.joint(m, rows, np.zeros(len(rows)), rows) for _, rows in named]
    odds = np.array([t.statistic * t.numdf / t.dendf for t in tests])
    columns = {
        "term": [label for label, _ in named],
        "df": np.array([t.numdf for t in tests]),
        "r2": odds / (1 + odds),
    }
    return NotedTable(f"Semi-partial R2 of fixed terms, from F tests ({way.name})", columns, (), m.layout.kind)
