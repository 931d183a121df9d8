"""Blocks of V, as small as they can be, for many clusters at a time.

Rows of a cluster that have one residual variance d are rotated so that the columns of X and Z are 0 beyond the first
r + k of them: there V is diagonal, d, A_i of CR2 is the identity and X_i is 0, so nothing is lost without those. A
block has at most as many rows as the cluster, and at most r + k for each distinct variance. Rows in which X and Z are 0
do no harm either: blocks of clusters of nearly one size are padded with such, and go through the factorisations as one
array.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ranef.engines.estimate import Array
from ranef.errors import NotAvailableError
from ranef.inference.robust.clusters import Clusters
from ranef.inference.robust.working import Working, residual_variances, summed

if TYPE_CHECKING:
    from ranef.model import Fit

Integers = NDArray[np.int64]
MOST = 4_000  # rows of a dense block
ENTRIES = 1_000_000  # of an array of blocks


@dataclass(frozen=True, slots=True)
class Batch:
    """Some clusters in rotated rows.

    Attributes
    ----------
    clusters : (m,) int64 array
    x : (m, s, r) array
    residual : (m, s) array
    v : (m, s, s) array
        The working covariance of the rows.
    """

    clusters: Integers
    x: Array
    residual: Array
    v: Array


@dataclass(frozen=True, slots=True)
class Effects:
    """Z R by rows, its columns numbered within their clusters.

    Attributes
    ----------
    at : (n, d) int64 array
        Columns that are not 0 in a row.
    values : (n, d) array
    counts : (clusters,) int64 array
        How many columns a cluster has.
    """

    at: Integers
    values: Array
    counts: Integers


@dataclass(frozen=True, slots=True)
class Runs:
    """Rows of one cluster and one variance stand together in `order`; a run is where they do.

    Attributes
    ----------
    order : (n,) int64 array
    starts, sizes : (runs,) int64 arrays
    first, counts : (clusters,) int64 arrays
        The first run of a cluster, and how many it has.
    longest : (clusters,) int64 array
    """

    order: Integers
    starts: Integers
    sizes: Integers
    first: Integers
    counts: Integers
    longest: Integers


def blocks(m: Fit, w: Working, by: Clusters) -> Iterator[Batch]:
    """Yield the blocks of all clusters of a gaussian model, those alike together; as `blocks_of`."""
    return blocks_of(w, by, summed(m), residual_variances(m))


def blocks_of(w: Working, by: Clusters, z: Any, noise: Array) -> Iterator[Batch]:
    """Yield the blocks of all clusters, those alike together, where V = diag(noise) + Z R R'Z' and `z` is Z R or None.

    Raises
    ------
    NotAvailableError
        If a block has more than 4,000 rows; when it is its turn.
    """
    effects, p = effects_of(z, by), w.x.shape[1]
    runs = runs_of(by, noise, p + effects.counts)
    shapes = np.column_stack([rounded(runs.counts), rounded(runs.longest), rounded(effects.counts)])
    kinds, kind = np.unique(shapes, axis=0, return_inverse=True)
    for j, (count, longest, columns) in enumerate(kinds.tolist()):
        members = np.flatnonzero(kind.ravel() == j)
        size = count * min(longest, p + columns)
        if size > MOST:
            raise _too_large(by, int(members[0]), size)
        room = max(1, ENTRIES // (count * longest * (p + columns + 1) + size**2))
        for part in np.split(members, np.arange(room, len(members), room)):
            chosen, here = _rows(runs, part, count, longest)
            table = _rotated(_tables(w, effects, chosen, here, columns))
            own = np.repeat(noise[chosen[..., 0]], table.shape[2], axis=1)
            yield _batch(part, table.reshape(len(part), -1, table.shape[3]), own, p)


def rounded(sizes: Integers) -> Integers:
    """Round up to one of four steps an octave."""
    step = 2 ** np.maximum(np.log2(np.maximum(sizes, 1)).astype(np.int64) - 2, 0)
    return -(-sizes // step) * step


def effects_of(z: Any, by: Clusters) -> Effects:
    """Return Z R (sparse, or None), of which every row has as many entries and every column belongs to one cluster."""
    n = len(by.codes)
    if z is None:
        return Effects(np.zeros((n, 0), dtype=np.int64), np.zeros((n, 0)), np.zeros(by.count, np.int64))
    columns = z.indices.reshape(n, -1).astype(np.int64)
    owner = np.full(z.shape[1], by.count)
    owner[columns] = by.codes[:, None]
    counts = np.bincount(owner, minlength=by.count + 1)
    order = np.argsort(owner, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return Effects(place[columns], z.data.reshape(columns.shape), counts[:-1])


def runs_of(by: Clusters, noise: Array, widths: Integers) -> Runs:
    """Return the runs; in clusters that rotation to `widths` rows a run does not make smaller, every row is one."""
    order = np.lexsort((noise, by.codes))
    codes, own = by.codes[order], noise[order]
    new = np.r_[True, (codes[1:] != codes[:-1]) | (own[1:] != own[:-1])]
    found = _runs(order, codes, new, by.count)
    idle = found.counts * np.minimum(found.longest, widths) >= np.bincount(codes, minlength=by.count)
    return _runs(order, codes, new | idle[codes], by.count)


def _runs(order: Integers, codes: Integers, new: NDArray[np.bool_], clusters: int) -> Runs:
    starts = np.flatnonzero(new)
    sizes = np.diff(np.r_[starts, len(order)])
    counts = np.bincount(codes[starts], minlength=clusters)
    first = np.cumsum(counts) - counts
    return Runs(order, starts, sizes, first, counts, np.maximum.reduceat(sizes, first))


def _rows(runs: Runs, clusters: Integers, count: int, longest: int) -> tuple[Integers, NDArray[np.bool_]]:
    """Return the rows of clusters by run, (m, count, longest), and which of them there are; others repeat one."""
    known = np.arange(count) < runs.counts[clusters][:, None]
    run = runs.first[clusters][:, None] + np.where(known, np.arange(count), 0)
    here = known[..., None] & (np.arange(longest) < runs.sizes[run][..., None])
    return runs.order[runs.starts[run][..., None] + np.where(here, np.arange(longest), 0)], here


def _tables(w: Working, effects: Effects, rows: Integers, here: NDArray[np.bool_], columns: int) -> Array:
    """Return X, Z R and the residual of clusters by run, (m, count, longest, r + k + 1); 0 where there is no row."""
    p = w.x.shape[1]
    table = np.zeros((*rows.shape, p + columns + 1))
    table[..., :p] = w.x[rows]
    np.put_along_axis(table[..., p:-1], effects.at[rows], effects.values[rows], axis=-1)
    table[..., -1] = w.residual[rows]
    table[~here] = 0.0
    return table


def _rotated(table: Array) -> Array:
    """Return the rows of each run rotated.

    The residual comes last, so that the row of its own direction, in which X and Z are 0, is the last one.
    """
    return np.asarray(np.linalg.qr(table, mode="r"))[..., :-1, :] if table.shape[2] >= table.shape[3] else table


def _batch(clusters: Integers, table: Array, own: Array, p: int) -> Batch:
    effects = table[..., p:-1]
    v = effects @ effects.mT
    at = np.arange(v.shape[1])
    v[:, at, at] += own
    return Batch(clusters, table[..., :p], table[..., -1], v)


def _too_large(by: Clusters, i: int, size: int) -> NotAvailableError:
    return NotAvailableError(
        f"kind='CR2': {by.name} = {by.labels[i]!r} needs a dense block of about {size} rows, more than {MOST}: use "
        f"kind='CR1' or 'CR3', which need none"
    )
