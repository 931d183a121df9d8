"""Hypotheses about the terms of a model, of types I, II and III, as matrices over the coefficients.

Type I asks what a term adds to the terms before it, type II what it adds to all terms that do not contain it: rows of
the triangular factor of the model matrix, its columns in that order. Type III is Goodnight's (1978, SAS Technical
Report R-101): estimable functions that involve no other effect than those containing the term, orthogonal to those that
involve only the containing ones. It does not depend on how factors are coded nor, without empty cells, on numbers of
rows: it compares unweighted means of cells.

All start from the model with a column for every cell of every term (its matrix is called full below); the model matrix
X is `full @ coding`. As no row of it is needed but its row space and R of its QR, it is formed a chunk at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from ranef.errors import NotAvailableError, OptionError
from ranef.frame.design import Array, Block, matrix
from ranef.inference.ddf.method import kept, partial_of, unit_rows
from ranef.inference.dummies import written_out
from ranef.inference.sweeping import Sequential, given_levels, of_levels, one_a_cell, wide_terms
from ranef.inference.terms import FixedTerm, fixed_terms, is_linear_model
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.model import Fit

CHUNK = 32_768  # rows of a matrix that are formed at a time
ROUNDING = 1e-12  # weights of a hypothesis below this share of its largest are zero
ALONE = 1e-6  # length of a unit column beside others below which it depends on them
DEPENDENT = 1e-9  # singular values below this share of the largest are zero
TYPES = {"1": 1, "i": 1, "2": 2, "ii": 2, "3": 3, "iii": 3}


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A term and what is said to be zero of it.

    Attributes
    ----------
    label : str
    rows : (q, p) array, or None
        Over all coefficients; None for a fixed factor of so many levels that they are no matrix.
    about : (k, p) array
        A row for each of its own coefficients; of a fixed factor of many levels for its first.
    term : FixedTerm
    behind : tuple of FixedTerm
        The terms that are left out when this one is added.
    """

    label: str
    rows: Array | None
    about: Array
    term: FixedTerm
    behind: tuple[FixedTerm, ...] = ()


def read_type(kind: object) -> int:
    """Return 1, 2 or 3.

    Raises
    ------
    OptionError
        If it is none of 1, 2, 3, "I", "II", "III".
    """
    found = TYPES.get(str(kind).strip().lower())
    if found is None:
        raise OptionError(f"anova: type={kind!r} is unknown; known: 1, 2, 3, 'I', 'II', 'III'")
    return found


def hypotheses(
    m: Fit, kind: int, component: str, is_whole: Callable[[FixedTerm], bool] = lambda _: False
) -> list[Hypothesis]:
    """Return the hypotheses of all terms but the intercept; a term without estimated columns has no rows.

    Terms of which `is_whole` is true have no matrix of rows where they are tested beside all others.

    The rows of types I and II are scaled to a unit diagonal, those of type III are each about one cell beside the first
    levels; a term that no other contains has, of type II, one row a coefficient. Fai and Cornelius' degrees of freedom
    depend on that (a little), F does not. All of it is as in lmerTest; with one term all types are type I there too.
    """
    terms = [t for t in fixed_terms(m, component) if t.columns.start < t.columns.stop]
    tested = [t for t in terms if t.factors]
    if not tested:
        return []
    if partial_of(m) is not None and _mixes(m, terms):
        return hypotheses(written_out(m), kind, component)
    found: list[Array | None] = [None] * len(tested)
    behind = [() if kind == 3 else tuple(_behind(m, terms, t, kind == 2)) for t in tested]
    rest = [i for i, (t, last) in enumerate(zip(tested, behind, strict=True)) if last or not is_whole(t)]
    some = [tested[i] for i in rest]
    if kind == 3 and (len(tested) > 1 or _is_bound(m)):
        rows = _marginal(m, component, terms, some)
    else:
        behind = [tuple(_behind(m, terms, t, kind == 2)) for t in tested]
        rows = _sequential(m, component, terms, some, [behind[i] for i in rest], kind == 2)
    for i, own in zip(rest, rows, strict=True):
        found[i] = own
    about = [_about(m, t) for t in tested]
    return [
        Hypothesis(t.label, rows, own, t, last) for t, rows, own, last in zip(tested, found, about, behind, strict=True)
    ]


def _about(m: Fit, term: FixedTerm) -> Array:
    partial = partial_of(m)
    levels = partial is not None and partial.levels[term.columns.start]
    return unit_rows(m, slice(term.columns.start, term.columns.start + 1) if levels else term.columns)


def _mixes(m: Fit, terms: list[FixedTerm]) -> bool:
    """Whether a fixed factor of many levels is contained in another term."""
    wide = [w.term for w in wide_terms(m, terms) if w.term is not None]
    return any(contains(m, other, term) for term in wide for other in terms)


def _behind(m: Fit, terms: list[FixedTerm], term: FixedTerm, marginal: bool) -> list[FixedTerm]:
    """Return the terms that a term is not adjusted for."""
    return [t for t in terms if contains(m, t, term)] if marginal else terms[terms.index(term) + 1 :]


def contains(m: Fit, other: FixedTerm, term: FixedTerm) -> bool:
    """Whether `other` contains `term`.

    In linear models as in SAS and lmerTest: the same continuous variables, and all of its factors and more. In others
    as in car: all of its variables and more.
    """
    if not is_linear_model(m):
        return term.key < other.key
    factors = m.spec.factors.keys()
    return term.key - factors == other.key - factors and (term.key & factors) < (other.key & factors)


def _is_bound(m: Fit) -> bool:
    """Whether a parameter is held or tied."""
    return m.task.wishes is not None and bool(m.task.wishes.fixed or m.task.wishes.equal)


def rows_alone(m: Fit, component: str, term: FixedTerm) -> Array:
    """Return what a model loses with a term that no other contains, as hypotheses over all coefficients.

    That its coefficients are 0; of a term that shares columns with others, which were dropped, only what those cannot
    stand for: nothing, if it is a combination of them.
    """
    own = np.zeros(len(m.estimate.beta), dtype=bool)
    own[term.columns] = True
    others = np.zeros(len(own), dtype=bool)
    others[m.layout.component(component).at] = True
    others &= ~own
    rows = unit_rows(m, term.columns)[kept(m)[term.columns]]
    partial = partial_of(m)
    too_many = partial is not None and not partial.fits
    if not len(rows) or too_many or not (others & ~kept(m)).any():
        return rows
    found = _beside(m, component, own & kept(m), others)
    return rows if len(found) == len(rows) else found @ rows


def _beside(m: Fit, component: str, mine: Array, others: Array) -> Array:
    """Return combinations of some coefficients, one a row, that say what their columns add to the space of others."""
    part = m.layout.component(component).at
    design = design_of(written_out(m), "tests of dependent terms")
    blocks = next(c.fixed for c in design.components if c.name == component)
    triangle = _triangle_of(blocks, m.nobs)
    size = np.linalg.norm(triangle, axis=0)
    size = np.where(size > 0, size, 1.0)
    unit = triangle / size
    u, found, _ = np.linalg.svd(unit[:, others[part]], full_matrices=False)
    u = u[:, found > DEPENDENT * found.max(initial=0.0)]
    own = unit[:, mine[part]]
    _, found, right = np.linalg.svd(own - u @ (u.T @ own), full_matrices=False)
    return right[found > ALONE] * size[mine[part]]


def _triangle_of(blocks: Sequence[Block], n: int) -> Array:
    """R of X = QR, from a chunk of rows at a time."""
    factor = np.zeros((0, sum(len(b.names) for b in blocks)))
    for first in range(0, n, CHUNK):
        rows = slice(first, min(first + CHUNK, n))
        cut = [
            Block(b.names, None if b.codes is None else b.codes[rows], b.contrast, None if b.x is None else b.x[rows])
            for b in blocks
        ]
        factor = _r(np.vstack([factor, matrix(cut, rows.stop - rows.start)]))
    return factor


# ---- types I and II --------------------------------------------------------------------------------------------------


def _sequential(
    m: Fit,
    component: str,
    terms: list[FixedTerm],
    tested: list[FixedTerm],
    behind: list[tuple[FixedTerm, ...]],
    marginal: bool,
) -> list[Array | None]:
    """Return the rows of the triangular factor that belong to each term, after those that it is adjusted for.

    Linear models take the factor of X, as lmerTest; others that of the information of the coefficients, as car.
    """
    several = len([t for t in terms if t.factors]) > 1
    alone = [marginal and several and not last for last in behind]
    if partial_of(m) is not None:
        beside = Sequential(m, terms)
        found = [beside.of(t, last) for t, last in zip(tested, behind, strict=True)]
        return [
            _each_alone(m, t, rows) if unit and rows is not None else rows
            for t, rows, unit in zip(tested, found, alone, strict=True)
        ]
    part = m.layout.component(component).at
    here = np.flatnonzero(kept(m)[part]) + part.start
    plain = is_linear_model(m) and component == "mean" and not _is_bound(m)
    factor = _model_factor(m, component, terms)[:, here - part.start] if plain else _information_factor(m, here)
    p = len(m.estimate.beta)
    out: list[Array | None] = []
    for term, last, unit in zip(tested, behind, alone, strict=True):
        rows = _rows_of(factor, here, term, last, p)
        rows = _each_alone(m, term, rows) if unit else rows
        out.append(rows[:0] if marginal and _is_combination(m, component, term, last) else rows)
    return out


def _each_alone(m: Fit, term: FixedTerm, rows: Array) -> Array:
    """Return the hypothesis of `rows` with one row a coefficient, as lmerTest has it of a term that no other contains.

    Rows that are fewer than the coefficients, of columns that depend on others, stay.
    """
    own = kept(m)[term.columns]
    return unit_rows(m, term.columns)[own] if len(rows) == np.count_nonzero(own) else rows


def _is_combination(m: Fit, component: str, term: FixedTerm, behind: Sequence[FixedTerm]) -> bool:
    """Whether the terms that one is adjusted for, columns dropped included, can stand for all of it."""
    mine, others = np.zeros((2, len(m.estimate.beta)), dtype=bool)
    mine[term.columns] = True
    others[m.layout.component(component).at] = True
    for t in (term, *behind):
        others[t.columns] = False
    mine &= kept(m)
    dependent = mine.any() and (others & ~kept(m)).any()
    return bool(dependent) and not len(_beside(m, component, mine, others))


def _rows_of(factor: Array, here: Array, term: FixedTerm, behind: Iterable[FixedTerm], p: int) -> Array:
    own = _positions(here, [term])
    last = _positions(here, behind)
    ahead = [j for j in range(len(here)) if j not in {*own, *last}]
    order = [*ahead, *own, *last]
    triangle = _r(factor[:, order])
    rows = np.zeros((len(own), p))
    own_rows = triangle[len(ahead) : len(ahead) + len(own)]
    rows[:, here[order]] = own_rows / np.diag(own_rows[:, len(ahead) :])[:, None]
    return rows


def _positions(here: Array, terms: Iterable[FixedTerm]) -> list[int]:
    return [j for j, c in enumerate(here) if any(t.columns.start <= c < t.columns.stop for t in terms)]


def _model_factor(m: Fit, component: str, terms: list[FixedTerm]) -> Array:
    """R of X = QR, a row of frequency w standing for w rows."""
    sources = _sources(m, component, terms)
    counts = design_of(m, "anova: the hypotheses of this type").frequencies
    return _r(_triangle(m.nobs, sources, counts) @ _coding(m, component, sources))


def _information_factor(m: Fit, here: Array) -> Array:
    """R with R'R = Var(beta_hat)^-1."""
    vcov = m.estimate.vcov[np.ix_(here, here)]
    if not np.isfinite(vcov).all():
        raise NotAvailableError("anova: some coefficients have no standard error; see m.messages")
    unit = np.sqrt(np.diag(vcov))
    if not unit.all() or np.linalg.eigvalsh(vcov / np.outer(unit, unit))[0] < DEPENDENT:
        raise NotAvailableError(
            "anova: types 1 and 2 adjust each term for those before it by the information of all coefficients, which "
            "is singular where some are held or tied; use type=3"
        )
    return np.linalg.cholesky(np.linalg.inv(vcov)).T


# ---- type III --------------------------------------------------------------------------------------------------------


def _marginal(m: Fit, component: str, terms: list[FixedTerm], tested: list[FixedTerm]) -> list[Array | None]:
    wide = [] if partial_of(m) is None else wide_terms(m, terms)
    beside = [t for t in terms if all(t is not w.term for w in wide)]
    sources = _sources(m, component, beside)
    if wide:
        triangle, norms = given_levels(lambda at: _full(sources, at), m.nobs, _cells(sources), wide)
    else:
        triangle = _triangle(m.nobs, sources)
        norms = np.linalg.norm(triangle, axis=0)
    scale = _scales(norms, sources)
    _, found, rows = np.linalg.svd(triangle / scale, full_matrices=False)
    space = rows[found > DEPENDENT * found.max(initial=0.0)]
    back = scale[:, None] * _coding(m, component, sources)
    unit = np.sqrt((back**2).sum(axis=0))
    part, out = m.layout.component(component).at, []
    for term in tested:
        own = next((w for w in wide if w.term is term), None)
        if own is not None:
            others = [w for w in wide if w is not own]
            p, cells = len(m.estimate.beta), _cells(sources)
            out.append(of_levels(own, others, lambda at: _full(sources, at), m.nobs, cells, p))
            continue
        inside = {term.label, *(t.label for t in beside if contains(m, t, term))}
        functions = _estimable(space, _columns_of(sources, {term.label}), _columns_of(sources, inside))
        rows = np.zeros((len(functions), len(m.estimate.beta)))
        rows[:, part] = _without_rounding(functions @ back, np.where(unit > 0, unit, 1.0))
        out.append(rows)
    return out


def _without_rounding(rows: Array, unit: Array) -> Array:
    """Set weights to 0 that are rounding beside the largest of their row, in the units of the coefficients."""
    size = np.abs(rows) / unit
    return np.where(size > ROUNDING * size.max(axis=1, initial=0.0, keepdims=True), rows, 0.0)


def _estimable(space: Array, own: Array, inside: Array) -> Array:
    """Functions of `space` (orthonormal rows) that are 0 outside `inside`, and orthogonal to those 0 on `own` too."""
    outside = np.ones(space.shape[1], dtype=bool)
    outside[inside] = False
    functions = _left_null(space[:, outside]).T @ space
    u, found, _ = np.linalg.svd(functions[:, own], full_matrices=False)
    functions = u[:, found > DEPENDENT].T @ functions
    return one_a_cell(functions[:, own]) @ functions


def _left_null(a: Array) -> Array:
    """Orthonormal columns u with u'a = 0."""
    u, found, _ = np.linalg.svd(a, full_matrices=True)
    return u[:, int((found > DEPENDENT).sum()) :]


# ---- the full model matrix -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Source:
    """Columns of the full matrix: an indicator of every cell times x; and how columns of X are made of them.

    Attributes
    ----------
    term : str
        Label of the term they belong to.
    codes, x : (n,) arrays or None
    cells : int
    parts : list of ((cells, m) array, slice)
        Codings, and the columns of X (in its component) that they make.
    """

    term: str
    codes: Array | None
    x: Array | None
    cells: int
    parts: list[tuple[Array, slice]]

    def columns(self, rows: slice) -> Array:
        """Return its columns at some rows, at least a row of ones for broadcasting."""
        x = np.ones(1) if self.x is None else np.asarray(self.x[rows], dtype=np.float64)
        if self.codes is None:
            return x[:, None]
        return np.eye(self.cells)[self.codes[rows]] * x[:, None]


def _sources(m: Fit, component: str, terms: list[FixedTerm]) -> list[Source]:
    """Return the sources of a component; the thresholds of an ordinal model stand for its intercept."""
    design = design_of(m, "anova: the hypotheses of this type")
    blocks = next(c.fixed for c in design.components if c.name == component)
    first = m.layout.component(component).first
    out = [Source("", None, None, 1, [])] if component == "mean" and m.distribution.entry.ordinal else []
    for term in terms:
        out += _sources_of(term, term.pick(blocks), term.columns.start - first)
    return out


def _sources_of(term: FixedTerm, blocks: list[Block], column: int) -> list[Source]:
    """Blocks over the same cells and numbers are one source."""
    found: dict[tuple[int, int], Source] = {}
    for block in blocks:
        contrast = np.ones((1, 1)) if block.contrast is None else np.asarray(block.contrast)
        key = (id(block.codes), id(block.x))
        source = found.setdefault(key, Source(term.label, block.codes, block.x, len(contrast), []))
        source.parts.append((contrast, slice(column, column + len(block.names))))
        column += len(block.names)
    return list(found.values())


def _cells(sources: list[Source]) -> int:
    return sum(s.cells for s in sources)


def _full(sources: list[Source], rows: slice) -> Array:
    """Return some rows of the full matrix."""
    size = rows.stop - rows.start
    return np.hstack([np.zeros((size, 0)), *(np.broadcast_to(s.columns(rows), (size, s.cells)) for s in sources)])


def _coding(m: Fit, component: str, sources: list[Source]) -> Array:
    """Return B with X = full @ B."""
    out = np.zeros((_cells(sources), len(m.layout.component(component).names)))
    at = 0
    for source in sources:
        for contrast, columns in source.parts:
            out[at : at + source.cells, columns] = contrast
        at += source.cells
    return out


def _columns_of(sources: list[Source], labels: set[str]) -> Array:
    ends = np.cumsum([s.cells for s in sources])
    parts = [np.arange(e - s.cells, e) for s, e in zip(sources, ends, strict=True) if s.term in labels]
    return np.concatenate(parts)


def _triangle(n: int, sources: list[Source], counts: Array | None = None) -> Array:
    """R of the QR factorisation of the full matrix; equal rows are taken once, with the root of their number.

    `counts` says how many rows each one stands for.
    """
    sources, count = _distinct(n, sources, counts)
    n = n if count is None else len(count)
    factor = np.zeros((0, _cells(sources)))
    for first in range(0, n, CHUNK):
        rows = slice(first, min(first + CHUNK, n))
        part = _full(sources, rows)
        part = part if count is None else part * np.sqrt(count[rows, None])
        factor = _r(np.vstack([factor, part]))
    return factor


def _r(a: Array) -> Array:
    """R of a = QR."""
    return np.asarray(np.linalg.qr(a, mode="r"))


def _distinct(n: int, sources: list[Source], counts: Array | None) -> tuple[list[Source], Array | None]:
    """Return the sources at the distinct rows and how often these occur; at all rows where a number takes part."""
    coded = [s for s in sources if s.codes is not None]
    size = reduce(lambda a, s: a * s.cells, coded, 1)
    if any(s.x is not None for s in sources) or size >= 2**62:
        return sources, counts
    key = np.zeros(n, dtype=np.int64)
    for s in coded:
        key = key * s.cells + np.asarray(s.codes)
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    count = np.bincount(inverse, counts)
    at = [s if s.codes is None else Source(s.term, s.codes[first], None, s.cells, s.parts) for s in sources]
    return at, count


def _scales(norms: Array, sources: list[Source]) -> Array:
    """Return a scale for every column: the largest root sum of squares of the numbers of its term."""
    ends = np.cumsum([s.cells for s in sources])
    sizes = [float(np.linalg.norm(norms[e - s.cells : e])) for s, e in zip(sources, ends, strict=True)]
    largest = {s.term: max(z for t, z in zip(sources, sizes, strict=True) if t.term == s.term) for s in sources}
    return np.concatenate([np.empty(0), *(np.full(s.cells, largest[s.term] or 1.0) for s in sources)])
