"""Blocks of V, a cluster at a time, as small as they can be.

Rows of a cluster that have one residual variance d are rotated so that the columns of X and Z are 0 beyond the first
k + r of them: there V is diagonal, d, A_i of CR2 is the identity and X_i is 0, so nothing is lost without those. A
block has at most as many rows as the cluster, and at most k + r for each distinct variance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ranef.engines.estimate import Array
from ranef.errors import NotAvailableError
from ranef.inference.robust.clusters import Clusters
from ranef.inference.robust.working import Working, loaded, residual_variances
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.model import Fit

MOST = 4_000  # rows of a dense block

#: Cluster -> X_i, residuals, V_i in rotated rows.
Blocks = Callable[[int], tuple[Array, Array, Array]]


def blocks(m: Fit, w: Working, by: Clusters) -> Blocks:
    """Return a function that makes the block of a cluster."""
    design = design_of(m, "robust covariance")
    z = loaded(m) if design.terms else None
    noise = residual_variances(m)
    order = np.lexsort((noise, by.codes))
    bounds = np.searchsorted(by.codes[order], np.arange(by.count + 1))

    def make(i: int) -> tuple[Array, Array, Array]:
        rows = order[bounds[i] : bounds[i + 1]]
        table = np.column_stack([w.x[rows], w.residual[rows]])
        if z is not None:
            part = z[rows]
            used = np.unique(part.indices)
            if min(len(rows), len(used)) > MOST:
                raise _too_large(by, i, len(rows))
            own_effects = np.zeros((len(rows), len(used)))
            at = np.repeat(np.arange(len(rows)), np.diff(part.indptr))
            own_effects[at, np.searchsorted(used, part.indices)] = part.data
            table = np.column_stack([table, own_effects])
        table, own = compressed(table, noise[rows])
        if len(table) > MOST:
            raise _too_large(by, i, len(table))
        p = w.x.shape[1]
        effects = table[:, p + 1 :]
        return table[:, :p], table[:, p], effects @ effects.T + np.diag(own)

    return make


def _too_large(by: Clusters, i: int, size: int) -> NotAvailableError:
    return NotAvailableError(
        f"kind='CR2': {by.name} = {by.labels[i]!r} needs a dense block of {size} rows, more than {MOST}: use "
        f"kind='CR1' or 'CR3', which need none"
    )


def compressed(table: Array, noise: Array) -> tuple[Array, Array]:
    """Return the rotated rows and their residual variances; column `p` (residuals) is rotated with the others.

    Rows come sorted by variance. The residual is a column of the factorised matrix, too: its own direction is one more
    row, in which X and Z are 0.
    """
    found = np.unique(noise, return_index=True, return_counts=True)
    if found[2].max() <= table.shape[1]:
        return table, noise
    parts, own = [], []
    for value, first, count in zip(*found, strict=True):
        part = table[first : first + count]
        if count > table.shape[1]:
            part = np.linalg.qr(part, mode="r")
        parts.append(part)
        own.append(np.full(len(part), value))
    return np.vstack(parts), np.concatenate(own)
