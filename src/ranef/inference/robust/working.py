"""The linear model's own V as working covariance: V^-1 X and V^-1 residuals by rows, without V.

V = sigma^2 (W^-1 + Z Lambda Lambda' Z'), so with the sparse A = Lambda'Z'WZ Lambda + I (Woodbury's identity)

    V^-1 = (W - W Z Lambda A^-1 Lambda'Z'W) / sigma^2,

which holds on the boundary too, where Lambda has no inverse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ranef.engines.estimate import Array, Estimate
from ranef.frame.design import matrix
from ranef.inference.ddf.method import kept
from ranef.inference.memory import remembered
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.model import Fit


@dataclass(frozen=True, slots=True)
class Working:
    """A linear mixed model by rows.

    Attributes
    ----------
    x, solved : (n, r) arrays
        Columns of X that were kept, and V^-1 X.
    residual, white : (n,) arrays
        y - offset - X beta, and V^-1 of it.
    bread : (r, r) array
        M = (X'V^-1X)^-1.
    """

    x: Array
    solved: Array
    residual: Array
    white: Array
    bread: Array


@remembered
def working(m: Fit) -> Working:
    """Return the ingredients of sandwiches of a linear model."""
    design, here = design_of(m, "robust covariance"), kept(m)
    x = matrix(design.fixed, design.n)[:, here]
    y = np.asarray(design.y, dtype=np.float64) - (0.0 if design.offset is None else design.offset)
    residual = y - x @ m.estimate.beta[here]
    solved = inverse_times(m, np.column_stack([x, residual]))
    return Working(x, solved[:, :-1], residual, solved[:, -1], m.estimate.vcov[np.ix_(here, here)])


def inverse_times(m: Fit, right: Array) -> Array:
    """Return V^-1 of some columns, (n, c)."""
    design, variance = design_of(m, "robust covariance"), m.sigma**2
    w = np.ones(design.n) if design.weights is None else np.asarray(design.weights, dtype=np.float64)
    out = right * w[:, None]
    if design.terms:
        from scipy.sparse import eye_array
        from scipy.sparse.linalg import splu

        z = relative(m)
        weighted = z.multiply(w[:, None]).tocsr()
        inner = (z.T @ weighted + eye_array(z.shape[1])).tocsc()
        factor = splu(inner, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        out = out - weighted @ factor.solve(np.asarray(weighted.T @ right))
    return np.asarray(out / variance)


def relative(m: Fit) -> Any:
    """Return Z Lambda as a sparse (n, q) array, terms one after the other, levels in order."""
    from scipy.sparse import csr_array

    design = design_of(m, "robust covariance")
    assert isinstance(m.estimate, Estimate)
    n, first = design.n, 0
    rows, columns, values = [], [], []
    for term, factor in zip(design.terms, m.estimate.factors, strict=True):
        z = matrix(term.blocks, n) @ factor
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
    return np.stack([by_cluster(left[:, [j]] * right, codes, count) for j in range(left.shape[1])], axis=1)
