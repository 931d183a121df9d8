"""A gaussian model's own V as working covariance: V^-1 X and V^-1 residuals by rows, without V.

With D the residual variances of the rows (sigma^2 / weight, or what a dispersion formula says) and roots R of the
covariances of the random effects, V = D + Z R R' Z', so with the sparse A = R'Z'D^-1 Z R + I (Woodbury's identity)

    V^-1 = D^-1 - D^-1 Z R A^-1 R'Z'D^-1,

which holds on the boundary too, where R has no inverse, and for every covariance structure.

A row of frequency c is c equal rows: as one row it is their sum over sqrt(c), an orthogonal change of scale that leaves
c - 1 rows of zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ranef.engines.estimate import Array
from ranef.frame.design import matrix
from ranef.inference.ddf.method import kept
from ranef.inference.dummies import written_out
from ranef.inference.memory import remembered
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.model import Fit

MANY_COLUMNS = 40


@dataclass(frozen=True, slots=True)
class Working:
    """A gaussian mixed model by rows.

    Attributes
    ----------
    x, solved : (n, r) arrays
        Columns of X that were kept, and V^-1 X.
    residual, white : (n,) arrays
        y - offset - X beta, and V^-1 of it.
    bread : (r, r) array
        M = (X'V^-1X)^-1.
    here : (p,) bool array
        Which of the coefficients of all components the r are.
    """

    x: Array
    solved: Array
    residual: Array
    white: Array
    bread: Array
    here: NDArray[np.bool_]


def objection(m: Fit) -> str:
    """Return why a model has no working covariance of the responses; "" if it has one.

    It must be gaussian with the identity link, so that the variance parameters alone determine V and the coefficients
    are those of generalised least squares.
    """
    if m.task.linear:
        return ""
    if not m.distribution.is_gaussian_identity:
        return f"family {m.family!r} with link {m.link!r} has no covariance matrix of the responses"
    if any(set(t.components) != {"mean"} for t in m.layout.terms):
        return "the dispersion has random effects"
    if m.formula.censored or m.call.survey.values:
        return "rows are censored or sampled with weights"
    wishes = m.task.wishes
    if wishes is not None and (wishes.priors or wishes.firth):
        return "the estimates are penalised"
    return "coefficients are held at values or tied" if m.estimate.held or (wishes is not None and wishes.equal) else ""


def estimated(m: Fit) -> NDArray[np.bool_]:
    """Which coefficients of all components are estimated ones of the mean, (p,)."""
    here = kept(m)
    if not m.task.linear:
        mean = np.zeros_like(here)
        mean[m.layout.component("mean").at] = True
        here = here & mean
    return here


@remembered
def working(m: Fit) -> Working:
    """Return the ingredients of sandwiches of a gaussian model."""
    m = written_out(m)
    design, here = design_of(m, "robust covariance"), estimated(m)
    x = matrix(design.fixed, design.n)[:, here[m.layout.component("mean").at]]
    y = np.asarray(design.y, dtype=np.float64) - (0.0 if design.offset is None else design.offset)
    residual = y - x @ m.estimate.beta[here]
    if design.frequencies is not None:
        root = np.sqrt(np.asarray(design.frequencies, dtype=np.float64))
        x, residual = x * root[:, None], residual * root
    solved = inverse_times(m, np.column_stack([x, residual]))
    if m.task.linear:
        bread = m.estimate.vcov[np.ix_(here, here)]
    else:  # the engine's own covariance is that of (beta, theta) jointly
        bread = np.linalg.inv(x.T @ solved[:, :-1])
        bread = (bread + bread.T) / 2
    return Working(x, solved[:, :-1], residual, solved[:, -1], bread, here)


@remembered
def residual_variances(m: Fit) -> Array:
    """Return D, the variance of the residual of each row, (n,)."""
    design = design_of(m, "robust covariance")
    weights = np.ones(design.n) if design.weights is None else np.asarray(design.weights, dtype=np.float64)
    if np.isfinite(m.sigma):
        return m.sigma**2 / weights
    part = next(c for c in design.others if c.name == "dispersion")
    eta = matrix(part.fixed, design.n) @ np.nan_to_num(m.estimate.beta[m.layout.component("dispersion").at])
    eta = eta if part.offset is None else eta + part.offset
    return np.asarray(m.distribution.link_of("dispersion").inverse(eta), dtype=np.float64) ** 2 / weights


def inverse_times(m: Fit, right: Array) -> Array:
    """Return V^-1 of some columns, (n, c)."""
    return solved_by(summed(m), residual_variances(m), right)


def solved_by(z: Any, noise: Array, right: Array) -> Array:
    """Return V^-1 of some columns, (n, c), where V = diag(noise) + Z R R'Z' and `z` is Z R or None."""
    w = 1 / noise
    out = right * w[:, None]
    if z is not None:
        from scipy.sparse import eye_array
        from scipy.sparse.linalg import splu

        weighted = z.multiply(w[:, None]).tocsr()
        inner = (z.T @ weighted + eye_array(z.shape[1])).tocsc()
        factor = splu(inner, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        out = out - weighted @ factor.solve(np.asarray(weighted.T @ right))
    return np.asarray(out)


def summed(m: Fit) -> Any:
    """Return Z R with the rows that one stands for as their sum over the root of their number; None without."""
    z, counts = loaded(m), design_of(m, "robust covariance").frequencies
    return z if z is None or counts is None else times(z, np.sqrt(np.asarray(counts, dtype=np.float64)))


def times(z: Any, by_row: Array) -> Any:
    """Return the rows of a sparse array times numbers, all its entries kept."""
    out = z.copy()
    out.data = out.data * np.repeat(by_row, np.diff(out.indptr))
    return out


def loaded(m: Fit) -> Any:
    """Return Z R of the mean as a sparse (n, q) array, terms one after the other, levels in order; None without."""
    from scipy.sparse import csr_array

    design = design_of(m, "robust covariance")
    n, first = design.n, 0
    rows, columns, values = [], [], []
    of_mean = [(t, root) for t, root in zip(design.terms, m.estimate.roots, strict=True) if t.component == 0]
    if not of_mean:
        return None
    for term, root in of_mean:
        z = matrix(term.blocks, n) @ root
        k = z.shape[1]
        rows.append(np.repeat(np.arange(n), k))
        columns.append((first + k * np.asarray(term.codes, dtype=np.int64)[:, None] + np.arange(k)).ravel())
        values.append(z.ravel())
        first += k * len(term.levels)
    return csr_array((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(n, first))


def by_cluster(rows: Array, codes: NDArray[np.int64], count: int) -> Array:
    """Sum the rows of each cluster, (count, c)."""
    out = np.empty((count, rows.shape[1]))
    for j, column in enumerate(rows.T):
        out[:, j] = np.bincount(codes, column, minlength=count)
    return out


def grams(left: Array, right: Array, codes: NDArray[np.int64], count: int) -> Array:
    """Return left'right of each cluster, (count, r, c)."""
    if left.shape[1] > MANY_COLUMNS:  # a product a cluster beats a pass over the rows for every pair of columns
        order = np.argsort(codes, kind="stable")
        left, right = left[order], right[order]
        ends = np.searchsorted(codes[order], np.arange(count + 1))
        return np.stack([left[a:b].T @ right[a:b] for a, b in pairwise(ends)])
    return np.stack([by_cluster(left[:, [j]] * right, codes, count) for j in range(left.shape[1])], axis=1)
