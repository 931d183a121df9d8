"""Hypotheses about terms beside fixed factors of many levels, without the dummies of these.

What `hypotheses` reads off the triangular factor of the model matrix is here read off that of the other columns, from
which the levels were swept out (Frisch & Waugh 1933; Lovell 1963): X_2 less its projection on the dummies has the rows
of the factor that follow them. The rows of a factor of many levels itself come from what the other columns leave of its
dummies, E'ME, a matrix of order of its levels; those of a term before it have entries at its levels, Q'E.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ranef.engines.covariance import most_written
from ranef.errors import NotAvailableError
from ranef.frame.design import Array, Block, Indicators, matrix
from ranef.inference.ddf.method import kept
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.inference.terms import FixedTerm
    from ranef.model import Fit

CHUNK = 32_768  # rows of a matrix that are formed at a time
TOLERANCE = 1e-13  # relative residual of the equations of two factors
MOST_STEPS = 5_000  # of conjugate gradients
DEPENDENT = 1e-9  # of a column that others leave less than this share of, nothing is left
NULL = 1e-10  # eigenvalues of E'ME below this share of the largest are zero
INDEPENDENT = 1e-6  # weight of a level in what is left of a row, beside the largest, below which it is none

#: Rows of a matrix, a chunk at a time.
Rows = Callable[[slice], Array]


@dataclass(frozen=True, eq=False)
class Wide:
    """A factor of many levels: its term (if known), codes, and which levels have a coefficient, at `columns`."""

    term: FixedTerm | None
    codes: NDArray[Any]
    levels: int
    kept: NDArray[np.int64]
    columns: NDArray[np.int64]

    @cached_property
    def indicator(self) -> Any:
        """E', (levels, n) sparse."""
        from scipy.sparse import csr_array

        n = len(self.codes)
        return csr_array((np.ones(n), (self.codes.astype(np.int64), np.arange(n))), shape=(self.levels, n))

    @cached_property
    def counts(self) -> Array:
        """Rows of each level."""
        return np.bincount(self.codes, minlength=self.levels).astype(np.float64)


def wide_terms(m: Fit, terms: Sequence[FixedTerm]) -> list[Wide]:
    """Return the factors of many levels among the terms of the mean."""
    design, here, out = design_of(m, "anova: the hypotheses of this type"), kept(m), []
    for term in terms:
        block = design.fixed[term.blocks.start]
        if isinstance(block.contrast, Indicators):
            columns = np.arange(term.columns.start, term.columns.stop)
            found, mine = wide_of(block), here[columns]
            out.append(replace(found, term=term, kept=found.kept[mine], columns=columns[mine]))
    return out


def wide_of(block: Block) -> Wide:
    """Return the factor of a block, its columns counted from 0."""
    c = block.contrast
    assert isinstance(c, Indicators)
    columns = np.arange(c.columns)
    return Wide(None, np.asarray(block.codes), c.levels, c.levels - c.columns + columns, columns)


# ---- taking levels out -----------------------------------------------------------------------------------------------


class Sweep:
    """The projection on what the indicators of at most two factors leave; `whole`: of all their levels."""

    def __init__(self, factors: Sequence[Wide], whole: bool) -> None:
        self.factors = tuple(factors)
        self.inverse = []
        for f in self.factors:
            inverse = 1 / f.counts
            if not whole:
                inverse[np.setdiff1d(np.arange(f.levels), f.kept)] = 0.0
            self.inverse.append(inverse)

    @cached_property
    def cross(self) -> Any:
        """E_1'E_2 of the levels that are swept."""
        a, b = self.factors
        found = (a.indicator @ b.indicator.T).tocsr()
        return found.multiply((self.inverse[0] > 0)[:, None]).multiply(self.inverse[1] > 0).tocsr()

    def coefficients(self, sums: Sequence[Array]) -> list[Array]:
        """Return the coefficients of the levels from E'x, (levels, c) for each factor."""
        sums = [s * (i > 0)[:, None] for s, i in zip(sums, self.inverse, strict=True)]
        if len(sums) < 2:
            return [s * i[:, None] for s, i in zip(sums, self.inverse, strict=True)]
        first, second = self.inverse
        right = sums[0] - self.cross @ (second[:, None] * sums[1])
        diagonal = np.where(first > 0, self.factors[0].counts, 1.0)

        def times(a: Array) -> Array:
            return diagonal[:, None] * a - self.cross @ (second[:, None] * (self.cross.T @ a))

        a = _solved(times, right, diagonal)
        return [a, second[:, None] * (sums[1] - self.cross.T @ a)]

    def out_of(self, rows: Rows, n: int) -> tuple[Rows, Array]:
        """Return the rows with the levels swept out, and the root sums of squares of the columns before."""
        squares: Array | float = 0.0
        sums: list[Any] = [0.0] * len(self.factors)
        for at in chunks(n):
            part = rows(at)
            squares = squares + (part**2).sum(axis=0)
            sums = [s + f.indicator[:, at] @ part for s, f in zip(sums, self.factors, strict=True)]
        found = self.coefficients(sums)

        def swept(at: slice) -> Array:
            out = np.array(rows(at))
            for f, a in zip(self.factors, found, strict=True):
                out -= a[f.codes[at]]
            return out

        return swept, np.sqrt(np.asarray(squares))


def chunks(n: int) -> list[slice]:
    """Return slices that cover n rows."""
    return [slice(a, min(a + CHUNK, n)) for a in range(0, n, CHUNK)]


def _solved(times: Callable[[Array], Array], right: Array, diagonal: Array) -> Array:
    """Solve A a = b, A positive semidefinite, b in its range, by conjugate gradients; columns on their own."""
    a, r = np.zeros_like(right), right.copy()
    z = r / diagonal[:, None]
    p, rho = z.copy(), (r * z).sum(axis=0)
    goal = TOLERANCE**2 * rho
    for _ in range(MOST_STEPS):
        going = rho > goal
        if not going.any():
            return a
        ap = times(p)
        step = np.where(going, rho / np.where(going, (p * ap).sum(axis=0), 1.0), 0.0)
        a, r = a + step * p, r - step * ap
        z = r / diagonal[:, None]
        rho, before = np.where(going, (r * z).sum(axis=0), 0.0), rho
        p = z + np.where(going, rho / np.where(going, before, 1.0), 0.0) * p
    raise NotAvailableError(
        "anova: the equations of two fixed factors of many levels, which few rows connect, were not solved: test terms "
        "by likelihood ratios, rf.drop1(m)"
    )


def triangle(rows: Rows, n: int, columns: int) -> Array:
    """R of the QR factorisation of a matrix."""
    if not columns:
        return np.zeros((0, 0))
    factor = np.zeros((0, columns))
    for at in chunks(n):
        factor = np.asarray(np.linalg.qr(np.vstack([factor, rows(at)]), mode="r"))
    return np.vstack([factor, np.zeros((max(columns - len(factor), 0), columns))])


# ---- types I and II --------------------------------------------------------------------------------------------------


class Sequential:
    """Rows of the triangular factor of the model matrix, term by term."""

    def __init__(self, m: Fit, terms: Sequence[FixedTerm]) -> None:
        self.m, self.design = m, design_of(m, "anova: the hypotheses of this type")
        self.wide = wide_terms(m, terms)
        self.terms = [t for t in terms if all(t is not w.term for w in self.wide)]
        blocks = [(b, t) for t in self.terms for b in t.pick(self.design.fixed)]
        self.blocks = [b for b, _ in blocks]
        self.columns = np.concatenate([np.arange(t.columns.start, t.columns.stop) for t in self.terms] or [[]])
        self.columns = self.columns.astype(np.int64)
        self.known: dict[tuple[int, ...], tuple[Rows, Array, Array]] = {}

    def swept(self, ahead: Sequence[Wide]) -> tuple[Rows, Array, Array]:
        """Return the other columns with factors swept out, their triangle, and their norms before."""
        key = tuple(id(w) for w in ahead)
        if key not in self.known:
            n, size = self.design.n, len(self.columns)
            rows, norms = Sweep(ahead, whole=False).out_of(lambda at: rows_of(self.blocks, at), n)
            self.known[key] = rows, triangle(rows, n, size), norms
        return self.known[key]

    def of(self, term: FixedTerm, behind: Sequence[FixedTerm]) -> Array | None:
        """Return the rows of a term; None for a factor of so many levels that they are no matrix."""
        ahead = [w for w in self.wide if w.term is not term and all(w.term is not b for b in behind)]
        after = [w for w in self.wide if any(w.term is b for b in behind)]
        rows, factor, norms = self.swept(ahead)
        before = [j for j, t in self.owners if t is not term and all(t is not b for b in behind)]
        own = [j for j, t in self.owners if t is term]
        me = next((w for w in self.wide if w.term is term), None)
        if me is not None:
            return self._of_wide(me, rows, independent(factor, norms, before), ahead, after)
        chosen = independent(factor, norms, [*before, *own])
        mine = [i for i, j in enumerate(chosen) if j in own]
        r, basis = upper(factor, chosen)
        out = np.zeros((len(mine), len(self.m.estimate.beta)))
        out[:, self.columns] = r[mine]
        out[:, self.columns[chosen]] = np.triu(basis)[mine]
        for w in after:
            out[:, w.columns] = (self._times(w, rows, chosen) @ inverse_of(basis))[w.kept][:, mine].T
        out[:, ~kept(self.m)] = 0.0
        return out / np.diag(basis)[mine][:, None]

    @cached_property
    def owners(self) -> list[tuple[int, FixedTerm]]:
        """Columns that count and their terms.

        Of columns that depend on each other the dummies would lose the last: a column that was dropped, but comes
        before the factor that it depends on, counts.
        """
        each = [t for t in self.terms for _ in range(t.columns.start, t.columns.stop)]
        here, first = kept(self.m)[self.columns], min(w.columns[0] for w in self.wide)
        return [(j, t) for j, t in enumerate(each) if here[j] or t.columns.start < first]

    def _times(self, w: Wide, rows: Rows, chosen: Sequence[int]) -> Array:
        """E'X of some columns, (levels, c)."""
        parts = (w.indicator[:, at] @ rows(at)[:, list(chosen)] for at in chunks(self.design.n))
        return np.asarray(sum(parts, np.zeros((w.levels, len(chosen)))))

    def _of_wide(
        self, w: Wide, rows: Rows, before: list[int], ahead: Sequence[Wide], after: Sequence[Wide]
    ) -> Array | None:
        if len(self.m.estimate.beta) > most_written():
            return None
        _, factor, _ = self.swept(ahead)
        everything = self._times(w, rows, range(len(self.columns)))[w.kept]
        whole, basis = upper(factor, before)
        c = everything[:, before] @ inverse_of(basis)
        s = left_of(w, ahead, w.kept, whole=False) - c @ c.T
        turn = half_inverse(s)
        out = np.zeros((len(turn), len(self.m.estimate.beta)))
        last = [j for j in range(len(self.columns)) if j not in before]
        out[:, self.columns[last]] = turn @ (everything - c @ whole)[:, last]
        for other in after:
            q = (self._times(other, rows, before) @ inverse_of(basis))[other.kept]
            shared = (other.indicator @ w.indicator.T).tocsr()[other.kept][:, w.kept]
            out[:, other.columns] = (shared @ turn.T).T - (turn @ c) @ q.T
        out[:, w.columns] = own = turn @ s
        out[:, ~kept(self.m)] = 0.0
        return out / np.abs(np.diag(own) if len(own) == len(s) else np.linalg.norm(own, axis=1))[:, None]


def rows_of(blocks: Sequence[Block], at: slice) -> Array:
    """Return some rows of the columns of blocks."""
    cut = [
        Block(b.names, None if b.codes is None else b.codes[at], b.contrast, None if b.x is None else b.x[at])
        for b in blocks
    ]
    return matrix(cut, at.stop - at.start)


def independent(factor: Array, norms: Array, columns: Sequence[int]) -> list[int]:
    """Return those columns of which the ones before leave something; `factor` is the triangle of all."""
    out: list[int] = []
    basis = np.zeros((len(factor), 0))
    for j in columns:
        left = factor[:, j] - basis @ (basis.T @ factor[:, j])
        left -= basis @ (basis.T @ left)
        size = float(np.linalg.norm(left))
        if size > DEPENDENT * norms[j]:
            out.append(j)
            basis = np.column_stack([basis, left / size])
    return out


def upper(factor: Array, chosen: Sequence[int]) -> tuple[Array, Array]:
    """Return Q'X of all columns and R of the chosen ones, X_chosen = Q R."""
    if not len(chosen):
        return np.zeros((0, factor.shape[1])), np.zeros((0, 0))
    q, r = np.linalg.qr(factor[:, list(chosen)])
    return q.T @ factor, np.asarray(r)


def inverse_of(r: Array) -> Array:
    """Return the inverse of a triangular matrix."""
    return np.linalg.solve(r, np.eye(len(r))) if len(r) else r


def half_inverse(s: Array) -> Array:
    """Return rows H with H S H' = I: the inverse of the Cholesky factor, or of a root where S is singular."""
    root = _root(s)
    if root is not None:
        return np.linalg.inv(root)
    values, vectors = np.linalg.eigh(s)
    solid = values > NULL * values.max(initial=0.0)
    return (vectors[:, solid] / np.sqrt(values[solid])).T


def _root(s: Array) -> Array | None:
    """Return the Cholesky factor; None where the matrix is singular."""
    try:
        root = np.linalg.cholesky(s)
    except np.linalg.LinAlgError:
        return None
    return root if (np.diag(root) ** 2 > NULL * np.diag(s)).all() else None


def left_of(w: Wide, others: Sequence[Wide], levels: NDArray[np.int64], whole: bool) -> Array:
    """Return E'ME of some levels, M the projection on what another factor leaves."""
    out = np.diag(w.counts[levels])
    for other in others:
        inverse = Sweep([other], whole).inverse[0]
        shared = (w.indicator @ other.indicator.T).tocsr()[levels]
        taken = (shared.multiply(inverse) @ shared.T).tocoo()
        np.subtract.at(out, (taken.row, taken.col), taken.data)
    return out


# ---- type III --------------------------------------------------------------------------------------------------------


def given_levels(rows: Rows, n: int, columns: int, wide: Sequence[Wide]) -> tuple[Array, Array]:
    """Return R of a matrix with all levels of some factors swept out, and the norms of its columns before."""
    swept, norms = Sweep(wide, whole=True).out_of(rows, n)
    return triangle(swept, n, columns), norms


def of_levels(w: Wide, others: Sequence[Wide], rows: Rows, n: int, columns: int, p: int) -> Array | None:
    """Return the estimable functions of the levels of a factor that involve nothing else, (q, p).

    They span, over the levels, what the other columns leave of the dummies, and each is about one level beside the
    first; None where the levels are too many for a matrix.
    """
    if p > most_written():
        return None
    swept, norms = Sweep(others, whole=True).out_of(rows, n)
    factor = triangle(swept, n, columns)
    chosen = independent(factor, norms, range(columns))
    basis = upper(factor, chosen)[1]
    e = sum((w.indicator[:, at] @ swept(at)[:, chosen] for at in chunks(n)), np.zeros((w.levels, len(chosen))))
    c = np.asarray(e) @ inverse_of(basis)
    functions = range_of(left_of(w, others, np.arange(w.levels), whole=True) - c @ c.T)
    out = np.zeros((len(functions), p))
    out[:, w.columns] = functions[:, w.kept]
    return out


def range_of(s: Array) -> Array:
    """Return rows that span the range of a positive semidefinite matrix, as `one_a_cell` has them.

    Mostly everything but the constant: then they are the differences from the first level.
    """
    size = len(s)
    constant = np.full(size, size**-0.5)
    unit = np.trace(s) / size
    if np.abs(s @ constant).max() < NULL * unit and _root(s + unit * np.outer(constant, constant)) is not None:
        return np.eye(size)[1:] - np.eye(size)[:1]
    values, vectors = np.linalg.eigh(s)
    rows = vectors[:, values > NULL * values[-1]].T
    return one_a_cell(rows) @ rows


def one_a_cell(a: Array) -> Array:
    """Return B, such that every row of BA is 1 at a cell of its own and 0 at those of the other rows.

    Cells are taken from the last on, as far as they are independent: those without a first level, if all are filled.
    """
    q = len(a)
    work = np.hstack([a, np.eye(q)])
    size = np.abs(a).max(initial=0.0)
    done = 0
    for j in range(a.shape[1] - 1, -1, -1):
        i = done + int(np.argmax(np.abs(work[done:, j]))) if done < q else q
        if i == q or abs(work[i, j]) <= INDEPENDENT * size:
            continue
        work[[done, i]] = work[[i, done]]
        work[done] /= work[done, j]
        others = np.arange(q) != done
        work[others] -= np.outer(work[others, j], work[done])
        done += 1
    return work[::-1, a.shape[1] :]
