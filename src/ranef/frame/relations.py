"""Known relationships between the levels of a grouping factor: kinship, phylogeny, adjacency.

A term with a relationship has b ~ N(0, K (x) Sigma), K over its levels. The engine works with the precision Q = K^-1,
which is sparse for pedigrees (Henderson 1976) and Markov random fields: a covariance is restricted to the levels that
have data (its other levels integrate out) and inverted, a precision keeps all its levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ranef.errors import ArgumentError, DataError, NotAvailableError
from ranef.frame.coding import level_name
from ranef.frame.design import Array, Levels
from ranef.frame.structures import ASYMMETRIC, SINGULAR, check_labels, read_matrix
from ranef.frame.table import shorten

MOST = 5000  # related levels whose covariance is dense: 200 MB for the factor and its inverse
BLOCK = 256  # unit vectors solved for at once
NEGLIGIBLE = 1e-14  # an entry of a precision below this share of its diagonal is rounding


@dataclass(frozen=True, slots=True)
class Factor:
    """Q = L U without row exchanges, U = D L'.

    Attributes
    ----------
    lu : SuperLU
    upper : sparse array
        U by rows.
    root : (L,) array
        Roots of D.
    """

    lu: Any
    upper: Any
    root: Array


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Relation:
    """Precision matrix of the L levels of a term, its upper triangle by rows.

    Parameters
    ----------
    diag : ndarray of float64, shape (L,)
    start : ndarray of uint32, shape (L + 1,)
        Where every row begins in `level` and `value`.
    level : ndarray of uint32
        Columns, after that of the row and ascending.
    value : ndarray of float64
    """

    diag: Array
    start: Array
    level: Array
    value: Array

    @property
    def arrays(self) -> tuple[Array, Array, Array, Array]:
        """What the core takes."""
        return self.diag, self.start, self.level, self.value

    def correlate(self, z: Array) -> Array:
        """Turn independent standard normal rows (L, k) into rows with covariance K = Q^-1 between them."""
        from scipy.sparse import linalg as sparse_linalg

        own = self._factor()  # x = P' L^-T D^-1/2 z has covariance Q^-1
        x = sparse_linalg.spsolve_triangular(own.upper, own.root[:, None] * z, lower=False)
        return np.asarray(x)[own.lu.perm_c]

    def whiten(self, b: Array) -> Array:
        """Undo `correlate`: rows (L, k) with covariance K between them into independent ones."""
        own = self._factor()
        x = np.empty_like(b)
        x[own.lu.perm_c] = b
        return np.asarray(own.upper @ x) / own.root[:, None]

    def variances(self) -> Array:
        """Return K_ll of every level, the diagonal of Q^-1: 1 + inbreeding in a pedigree."""
        lu, size = self._factor().lu, len(self.diag)
        out = np.empty(size)
        for first in range(0, size, BLOCK):
            unit = np.zeros((size, min(BLOCK, size - first)))
            at = np.arange(unit.shape[1])
            unit[first + at, at] = 1.0
            out[first + at] = np.asarray(lu.solve(unit))[first + at, at]
        return out

    def covariance(self) -> Array:
        """Return K = Q^-1, dense."""
        return self.covariance_of(np.arange(len(self.diag)))

    def covariance_of(self, levels: Array) -> Array:
        """Return K between some levels, dense; what others are related to them is in it."""
        lu, size, out = self._factor().lu, len(self.diag), np.empty((len(levels), len(levels)))
        for first in range(0, len(levels), BLOCK):
            at = levels[first : first + BLOCK]
            unit = np.zeros((size, len(at)))
            unit[at, np.arange(len(at))] = 1.0
            out[:, first : first + BLOCK] = np.asarray(lu.solve(unit))[levels]
        return out

    def precision(self) -> Any:
        """Return Q, sparse."""
        from scipy import sparse

        size = len(self.diag)
        upper = sparse.csr_matrix((self.value, self.level.astype(np.int64), self.start.astype(np.int64)), (size, size))
        return (upper + upper.T + sparse.diags(self.diag)).tocsc()

    def _factor(self) -> Factor:
        """Return the factor, which is made once."""
        if self not in FACTORS:
            FACTORS[self] = self._factorised()
        return FACTORS[self]

    def _factorised(self) -> Factor:
        from scipy.sparse import linalg as sparse_linalg

        options = {"SymmetricMode": True}
        lu = sparse_linalg.splu(self.precision(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
        return Factor(lu, lu.U.tocsr(), np.sqrt(lu.U.diagonal()))


FACTORS: WeakKeyDictionary[Relation, Factor] = WeakKeyDictionary()


def _is_sparse(value: Any) -> bool:
    from scipy import sparse

    return bool(sparse.issparse(value))


def related(
    label: str, levels: Levels, cov: Mapping[str, Any], precision: Mapping[str, Any], grows: bool
) -> tuple[Relation, Levels] | None:
    """Return the relationship between the levels of a grouping factor, and its levels: those of a precision are all.

    Parameters
    ----------
    label : str
        The grouping, as the dictionaries may name it.
    levels : Levels
        Those that have data.
    cov, precision : mapping
        Grouping -> matrix with names, see `read_relation`.
    grows : bool
        Whether the term may have levels without data.

    Raises
    ------
    ArgumentError, DataError, NotAvailableError
    """
    if label in precision:
        if label in cov:
            raise ArgumentError(f"{label!r} has both cov= and precision=: give one of them")
        return _of_precision(label, levels, precision[label], grows)
    if label in cov:
        return _of_covariance(label, levels, cov[label]), levels
    return None


def read_relation(what: str, value: Any) -> tuple[Any, tuple[str, ...]]:
    """Return a matrix, dense or sparse, and the names of its rows.

    Parameters
    ----------
    what : str
        What it is called, for messages.
    value : data frame, (matrix, labels) or (sparse matrix, labels)

    Raises
    ------
    ArgumentError, DataError
    """
    if _is_sparse(value):
        raise ArgumentError(f"{what}: a sparse matrix has no names: give (matrix, labels)")
    if not (isinstance(value, tuple) and len(value) == 2 and _is_sparse(value[0])):
        known = read_matrix(what, value)
        return known.matrix, known.names
    matrix, names = value[0].tocsc().astype(np.float64), tuple(map(level_name, value[1]))
    if matrix.shape != (len(names), len(names)):
        raise DataError(f"{what}: the matrix is {' x '.join(map(str, matrix.shape))}, with {len(names)} labels")
    check_labels(what, names)
    if not np.isfinite(matrix.data).all():
        raise DataError(f"{what}: the matrix has entries that are not finite")
    gap = abs(matrix - matrix.T)
    if gap.nnz and gap.max() > ASYMMETRIC * abs(matrix).max():
        raise DataError(f"{what}: the matrix is not symmetric")
    return (matrix + matrix.T) / 2, names


def _positions(what: str, levels: Sequence[Any], names: Sequence[str]) -> Array:
    index = {name: i for i, name in enumerate(names)}
    wanted = [level_name(level) for level in levels]
    lost = [name for name in wanted if name not in index]
    if lost:
        raise DataError(
            f"{what} has no row for {len(lost)} of {len(wanted)} levels: {shorten(lost)}; its labels are "
            f"{shorten(list(names), 6)}"
        )
    return np.array([index[name] for name in wanted], np.int64)


def _of_precision(label: str, levels: Levels, value: Any, grows: bool) -> tuple[Relation, Levels]:
    from scipy import sparse

    what = f"precision={{{label!r}: Q}}"
    matrix, names = read_relation(what, value)
    at = _positions(what, levels, names)
    rest = np.setdiff1d(np.arange(len(names)), at)
    if len(rest) and not grows:
        raise NotAvailableError(
            f"{what}: {label} has levels without data ({shorten([names[i] for i in rest])}), which a grouping by "
            f"several factors cannot have: make it one column, or give cov="
        )
    order = np.concatenate([at, rest])
    # Labels of the kind that the data have: text where they are text, as they came otherwise.
    given = list(value[1]) if isinstance(value, tuple) else list(names)
    text = len(levels) > 0 and isinstance(levels[0], str)
    extra = [names[i] if text else given[i] for i in rest]
    whole = Levels.of([*levels.tolist(), *extra]) if len(rest) else levels
    return _relation(what, sparse.csc_matrix(matrix)[order][:, order]), whole


def _of_covariance(label: str, levels: Levels, value: Any) -> Relation:
    from scipy import sparse
    from scipy.sparse import csgraph

    what = f"cov={{{label!r}: K}}"
    matrix, names = read_relation(what, value)
    at = _positions(what, levels, names)
    inner: Any = sparse.csc_matrix(matrix)[at][:, at] if _is_sparse(matrix) else matrix[np.ix_(at, at)]
    pattern: Any = inner if _is_sparse(inner) else sparse.csr_matrix(np.not_equal(inner, 0))
    count, group = csgraph.connected_components(pattern, directed=False)
    order = np.argsort(group, kind="stable")
    blocks = np.split(order, np.flatnonzero(np.diff(group[order])) + 1) if count > 1 else [order]
    rows, columns, values = [], [], []
    for block in blocks:
        piece = _filled(inner[block][:, block]) if _is_sparse(inner) else inner[np.ix_(block, block)]
        inverse = _inverse(what, piece, [level_name(levels[int(i)]) for i in block[:5]])
        i, j = np.nonzero(inverse)
        rows.append(block[i])
        columns.append(block[j])
        values.append(inverse[i, j])
    shape = (len(at), len(at))
    cells = (np.concatenate(rows), np.concatenate(columns))
    return _relation(what, sparse.csc_matrix((np.concatenate(values), cells), shape))


def _filled(block: Any) -> Array:
    """Return one block of related levels as a dense matrix."""
    cells, out = block.tocoo(), np.zeros(block.shape)
    out[cells.row, cells.col] = cells.data
    return out


def _inverse(what: str, k: Array, names: Sequence[str]) -> Array:
    """Return the inverse of one block of a covariance, entries that are rounding errors set to zero."""
    if len(k) > MOST:
        raise NotAvailableError(
            f"{what}: {len(k)} levels are related to each other; a dense covariance goes up to {MOST}: give its sparse "
            f"inverse, precision={{…: (Q, labels)}} (rf.pedigree makes that of a pedigree)"
        )
    values, vectors = np.linalg.eigh(k)
    if values[0] <= SINGULAR * np.abs(k).max():
        raise DataError(
            f"{what} is not positive definite among the levels {shorten(list(names))} … (smallest eigenvalue "
            f"{values[0]:.3g}); remove duplicated levels, or add a little to its diagonal"
        )
    out = (vectors / values) @ vectors.T
    scale = np.sqrt(np.diag(out))
    out[np.abs(out) < NEGLIGIBLE * np.outer(scale, scale)] = 0.0
    return (out + out.T) / 2


def _relation(what: str, q: Any) -> Relation:
    from scipy import sparse

    diag = q.diagonal()
    if not (diag > 0).all():
        raise DataError(
            f"{what}: a precision has a positive diagonal; an intrinsic (singular) one needs a little added"
        )
    upper = sparse.triu(q, k=1).tocsr()
    upper.eliminate_zeros()
    upper.sort_indices()
    return Relation(
        np.ascontiguousarray(diag, np.float64),
        upper.indptr.astype(np.uint32),
        upper.indices.astype(np.uint32),
        np.ascontiguousarray(upper.data, np.float64),
    )
