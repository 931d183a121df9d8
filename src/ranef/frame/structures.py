"""What covariance structures must know of their columns: positions, equal steps, or a known matrix.

A structure that needs something is one row of `NEEDS`: a function from the bar, the levels of its factor and the known
matrices to a `Place`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from ranef.errors import ArgumentError, DataError, FormulaError
from ranef.formula import Bar, Factor, Term
from ranef.formula.expression import read_expression
from ranef.frame.coding import level_name
from ranef.frame.design import Array, Levels
from ranef.frame.levels import numbers_in
from ranef.frame.table import read_table, shorten

POSITIONED = ("ou", "exp", "gau", "mat")
SERIAL = ("ar1", "hetar1", "toep", "homtoep")
LAID_OUT = frozenset((*POSITIONED, *SERIAL))  # columns lie at times or places
KNOWN = ("propto", "equalto")
POINT = re.compile(r"^\((.*)\)$")
EQUAL = 1e-8  # steps that differ by less than this share of the first are equal
ASYMMETRIC = 1e-8  # two entries of a symmetric matrix differ by less than this share of the largest
SINGULAR = 1e-12  # smallest eigenvalue of a covariance, as a share of its largest entry


@dataclass(frozen=True, slots=True)
class Place:
    """What a term's structure knows of its k columns: points (k, d), a matrix (k, k), its rank, its smoothness."""

    points: Array | None = None
    matrix: Array | None = None
    rank: int | None = None
    nu: float | None = None


NOWHERE = Place()


def by_level(bar: Bar, is_number: Callable[[Factor], bool], is_shuffled: Callable[[Factor], bool]) -> Bar:
    """Return the bar with numeric times or coordinates turned into factors: one column for every distinct point.

    `ar1(t + 0 | g)` becomes `ar1(factor(t) + 0 | g)`, `exp(x + y + 0 | g)` becomes `exp(numFactor(x, y) + 0 | g)`.
    Text times in the order of the alphabet, t1, t10, t2, are put in that of their numbers, `ar1(byNumber(t) + 0 | g)`.
    """
    if bar.structure not in LAID_OUT:
        return bar
    if bar.structure in SERIAL and len(bar.terms) == 1 and bar.terms[0].degree == 1:
        only = bar.terms[0].factors[0]
        if is_shuffled(only):
            return _wrapped(bar, "byNumber", [only])
    factors = [term.factors[0] for term in bar.terms if term.degree == 1]
    if not factors or not all(map(is_number, factors)):
        return bar
    if len(factors) > 1 and bar.structure in SERIAL:
        return bar
    if len(factors) < len(bar.terms):
        raise FormulaError(_one_factor(bar))
    name = "factor" if len(factors) == 1 else "numFactor"
    return _wrapped(bar, name, factors)


def _wrapped(bar: Bar, name: str, factors: Sequence[Factor]) -> Bar:
    """Return the bar with one factor, a function of those it had."""
    text = f"{name}({', '.join(f.label for f in factors)})"
    functions = frozenset(name for f in factors for name in f.functions)
    return replace(bar, terms=(Term((read_expression(text, text, 0, functions),)),))


def place_of(bar: Bar, levels: Mapping[str, Levels], known: Mapping[str, Any], columns: int) -> Place:
    """Return what the structure of a bar knows of its columns.

    Parameters
    ----------
    bar : Bar
        After `by_level`.
    levels : mapping
        Label of a factor -> its levels in use.
    known : mapping
        Name -> matrix: what the formula calls `K` in `propto(0 + f | g, K)`, or a factor.
    columns : int
        How many columns the bar has.

    Raises
    ------
    FormulaError
        If the bar has other columns than the levels of one factor.
    DataError
        If a level is no position, or a matrix lacks a level or is no covariance.
    """
    if bar.structure == "rr":
        return Place(rank=_rank(bar, columns))
    if bar.structure == "mat":
        return replace(_positions(bar, levels, known), nu=_smoothness(bar))
    _no_arguments(bar)
    need = NEEDS.get(bar.structure)
    return NOWHERE if need is None else need(bar, levels, known)


def open_points(bar: Bar, place: Place, levels: Sequence[Any]) -> Array | None:
    """Return the positions (k, d) of a process that can be continued to others; None for other structures."""
    if bar.structure in POSITIONED:
        return place.points
    numeric = bar.structure == "ar1" and not any(isinstance(v, (str, bool)) for v in levels)
    return np.array(levels, np.float64)[:, None] if numeric else None


def _argument(bar: Bar, name: str, example: str) -> float | None:
    """Return the number that stands behind the group, `name = 2` or `2`; None if there is none."""
    if not bar.args:
        return None
    found = re.fullmatch(rf"(?:{name} = )?(\S+)", bar.args[0])
    try:
        value = float(found.group(1)) if found and len(bar.args) == 1 else float("nan")
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise FormulaError(f"{bar}: {bar.structure}() takes one number behind the group: {example}")
    return value


def _rank(bar: Bar, columns: int) -> int:
    """Return the rank of a reduced-rank covariance; 2 if nothing is said, as in glmmTMB."""
    found = _argument(bar, "d", "rr(0 + f | g, d = 2)")
    rank = min(2, columns) if found is None else int(found)
    if rank != (found or rank) or not 1 <= rank <= columns:
        raise FormulaError(f"{bar}: the rank d is a whole number from 1 to {columns}, the number of columns")
    return rank


def _smoothness(bar: Bar) -> float | None:
    """Return the smoothness of a Matern correlation where it is given."""
    found = _argument(bar, "nu", "mat(pos + 0 | g, nu = 1.5)")
    if found is not None and not 0.02 <= found <= 60:
        raise FormulaError(f"{bar}: the smoothness nu lies between 0.02 and 60 (0.5: exp; beyond 60 as good as gau)")
    return found


def _no_arguments(bar: Bar) -> None:
    if bar.args and bar.structure not in KNOWN:
        raise FormulaError(f"{bar}: {bar.structure}() takes nothing behind the group; got {', '.join(bar.args)}")


def _the_levels(bar: Bar, levels: Mapping[str, Levels]) -> list[Any]:
    """Return the levels that are the columns of a bar."""
    if len(bar.terms) != 1 or bar.terms[0].degree != 1 or bar.terms[0].factors[0].label not in levels:
        raise FormulaError(_one_factor(bar))
    return list(levels[bar.terms[0].factors[0].label])


def _one_factor(bar: Bar) -> str:
    example = "times" if bar.structure in ("ou", *SERIAL) else "numFactor(x, y)" if bar.structure in POSITIONED else "f"
    return f"{bar}: the columns of {bar.structure}() are the levels of one factor: {bar.structure}({example} + 0 | g)"


# ---- positions -------------------------------------------------------------------------------------------------------


def _positions(bar: Bar, levels: Mapping[str, Levels], _known: Mapping[str, Any]) -> Place:
    found = _the_levels(bar, levels)
    points = [point_of(label) for label in found]
    bad = [label for label, point in zip(found, points, strict=True) if point is None]
    if bad:
        raise DataError(
            f"{bar}: {shorten(bad)} {'is no position' if len(bad) == 1 else 'are no positions'}; give a numeric "
            f"column, or numFactor(x, y) for points, whose levels are such as '(1.5,2)'"
        )
    known = [point for point in points if point is not None]
    if len({len(point) for point in known}) > 1:
        raise DataError(f"{bar}: the positions have different numbers of coordinates: {shorten(found)}")
    return Place(points=np.array(known))


def point_of(label: Any) -> list[float] | None:
    """Return the coordinates that a level stands for: 1.5, "1.5", "(1.5,2)"; None if it is no point."""
    if isinstance(label, str):
        inside = POINT.match(label.strip())
        pieces = (inside.group(1) if inside else label).split(",")
    else:
        pieces = [label]
    try:
        point = [float(piece) for piece in pieces]
    except (TypeError, ValueError):
        return None
    return point if np.isfinite(point).all() else None


def check_steps(bar: Bar, declared: Levels, unused: Sequence[Any], *, ordered: bool) -> None:
    """Refuse times that are not equally spaced.

    Numbers go by what they are, as do labels that ascend or descend by the number in them, t0, t1, t4. An ordered
    factor of labels goes by its levels, and so do labels whose order somebody chose or that have no number: of these,
    none between others may lack rows.

    Raises
    ------
    DataError
    """
    apart = set(unused)
    there = [i for i, label in enumerate(declared) if label not in apart]
    found = [declared[i] for i in there]
    times = _times(found, ordered=ordered)
    if times is not None:
        _check_equal(bar, found, times)
        return
    empty = [declared[i] for i in range(there[0], there[-1]) if declared[i] in apart] if there else []
    if empty:
        raise DataError(
            f"{bar}: no row has {shorten(empty)}, {'a level' if len(empty) == 1 else 'levels'} between others of "
            f"{'an ordered' if ordered else 'a'} factor, so that the times are not equally spaced; use ou(times + 0 | "
            f"{bar.label}) of numbers, or remove the levels without rows if the order counts"
        )


def _times(labels: Sequence[Any], *, ordered: bool) -> Sequence[float] | None:
    """Return the numbers that labels stand for as times; None where their order is what counts."""
    if not any(isinstance(label, (str, bool)) for label in labels):
        return labels
    numbers = None if ordered else numbers_in(labels)
    return numbers if numbers in (sorted(numbers or ()), sorted(numbers or (), reverse=True)) else None


def _check_equal(bar: Bar, labels: Sequence[Any], times: Sequence[float]) -> None:
    steps = [b - a for a, b in pairwise(times)]
    bad = next((i for i, step in enumerate(steps) if abs(step - steps[0]) > EQUAL * abs(steps[0])), None)
    if bad is not None:
        first, second, here, after = (level_name(labels[i]) for i in (0, 1, bad, bad + 1))
        raise DataError(
            f"{bar}: the times are not equally spaced ({first}, {second}, but {here}, {after}); use ou(times + 0 | "
            f"{bar.label}) of numbers, whose correlation exp(-rate * distance) is that of ar1 at equal steps, or an "
            f"ordered factor of text labels if the order counts"
        )


# ---- known matrices --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Known:
    """A known matrix with the name of every row."""

    matrix: Array
    names: tuple[str, ...]


def read_matrix(name: str, value: Any) -> Known:
    """Return a matrix with its labels.

    Parameters
    ----------
    name : str
        What it is called, for messages.
    value : data frame, or (matrix, labels)
        A pandas frame with the labels in its index and columns (or in one of them, where the other only counts), any
        frame with the labels in its first column, or a dense array and the labels of its rows. Rows in another order
        than the columns are put in that of the columns.

    Raises
    ------
    ArgumentError, DataError
    """
    found = _labelled(name, value)
    size = len(found.names)
    if found.matrix.shape != (size, size):
        raise DataError(f"{name}: the matrix is {' x '.join(map(str, found.matrix.shape))}, with {size} labels")
    check_labels(name, found.names)
    if not np.isfinite(found.matrix).all():
        raise DataError(f"{name}: the matrix has entries that are not finite")
    return _symmetric(name, found)


def check_labels(name: str, labels: Sequence[str]) -> None:
    """Refuse a matrix that has two rows or columns of one name."""
    twice = [label for label, count in Counter(labels).items() if count > 1]
    if twice:
        raise DataError(f"{name}: labels of the matrix occur twice, give each level one row: {shorten(twice)}")


def _labelled(name: str, value: Any) -> Known:
    if isinstance(value, tuple) and len(value) == 2:
        try:
            return Known(np.asarray(value[0], np.float64), tuple(map(level_name, value[1])))
        except (TypeError, ValueError):
            raise ArgumentError(f"{name}: in (matrix, labels) the matrix is a dense array of numbers") from None
    if not hasattr(value, "columns"):
        raise ArgumentError(
            f"{name}: levels are matched by name: give a pandas frame with labels, or (matrix, labels); got "
            f"{type(value).__name__}"
        )
    check_labels(name, [level_name(label) for label in getattr(value, "columns", ())])
    table = read_table(value)
    columns = [table.column(column) for column in table.names]
    first, rows = columns[0], list(getattr(value, "index", ()))
    listed = first.levels is not None and first.codes is not None
    if first.levels is not None and first.codes is not None:
        rows, columns = [first.levels[code] for code in first.codes], columns[1:]
    if any(column.x is None for column in columns):
        raise DataError(f"{name}: the matrix holds something else than numbers")
    matrix = np.column_stack([np.asarray(column.x, np.float64) for column in columns])
    return _by_both_names(name, matrix, [*map(level_name, rows)], [level_name(c.name) for c in columns], listed)


def _by_both_names(name: str, matrix: Array, rows: list[str], columns: list[str], listed: bool) -> Known:
    """Return a matrix whose rows and columns have names; rows in another order are put in that of the columns.

    A side that only counts, 0, 1, 2, … as in a pandas frame made without names, has none. Columns beside a first one of
    labels (`listed`) may be called anything else.
    """
    if set(rows) == set(columns) and len(rows) == len(columns):
        return Known(matrix[[rows.index(label) for label in columns]], tuple(columns))
    here, there = set(columns).difference(rows), set(rows).difference(columns)
    if not rows or (_counts(rows) and not listed):
        return Known(matrix, tuple(columns))
    if _counts(columns) or (listed and here == set(columns)):
        return Known(matrix, tuple(rows))
    sides = [(there, "rows"), (here, "columns")]
    said = "; ".join(f"only {side} have {shorten(sorted(names))}" for names, side in sides if names)
    raise DataError(f"{name}: rows and columns have different labels: {said or 'some occur twice'}")


def _counts(names: Sequence[str]) -> bool:
    return list(names) == [str(i) for i in range(len(names))]


def _symmetric(name: str, found: Known) -> Known:
    matrix = found.matrix
    gap = np.abs(matrix - matrix.T)
    if gap.max(initial=0.0) > ASYMMETRIC * np.abs(matrix).max(initial=0.0):
        i, j = np.unravel_index(int(gap.argmax()), gap.shape)
        raise DataError(f"{name}: the matrix is not symmetric, at ({found.names[int(i)]}, {found.names[int(j)]})")
    return Known((matrix + matrix.T) / 2, found.names)


def _known(bar: Bar, levels: Mapping[str, Levels], known: Mapping[str, Any]) -> Place:
    found = _the_levels(bar, levels)
    name, value = _matrix_of(bar, known)
    read = read_matrix(name, value)
    index = {label: i for i, label in enumerate(read.names)}
    names = [level_name(label) for label in found]
    lost = [label for label in names if label not in index]
    if lost:
        raise DataError(
            f"{bar}: {name} has no row for {len(lost)} of {len(names)} levels: {shorten(lost)}; its labels are "
            f"{shorten(list(read.names), 6)}"
        )
    at = [index[label] for label in names]
    matrix = np.ascontiguousarray(read.matrix[np.ix_(at, at)])
    least = float(np.linalg.eigvalsh(matrix)[0])
    if least <= SINGULAR * float(np.abs(matrix).max()):
        raise DataError(
            f"{bar}: {name} is not positive definite (smallest eigenvalue {least:.3g}); remove duplicated levels, or "
            f"add a little to its diagonal"
        )
    return Place(matrix=matrix)


def _matrix_of(bar: Bar, known: Mapping[str, Any]) -> tuple[str, Any]:
    """Return the matrix that the bar's argument names, or that was given for its factor."""
    if len(bar.args) > 1:
        raise FormulaError(f"{bar}: {bar.structure}() takes one matrix")
    name = _name_of(bar, known)
    if name is not None:
        return name, known[name]
    have = f"; there are {shorten(list(known))}" if known else ""
    factor, wanted = bar.terms[0].factors[0].bare, _possible_names(bar)[0]
    raise DataError(
        f"{bar}: the matrix {wanted!r} is not known{have}; give cov={{{factor!r}: K}}, or env={{{wanted!r}: K}}"
    )


def _possible_names(bar: Bar) -> tuple[str, ...]:
    """Return what the matrix of a bar may be called: the name in its argument goes first."""
    return (*bar.args, *(name for term in bar.terms for f in term.factors for name in (f.bare, f.label)))


def _name_of(bar: Bar, known: Collection[str]) -> str | None:
    return next((name for name in _possible_names(bar) if name in known), None)


def between_levels(cov: Mapping[str, Any] | None, env: Mapping[str, Any] | None, bars: Iterable[Bar]) -> dict[str, Any]:
    """Return what `cov=` says of the levels of groups: all matrices but those that propto() and equalto() take.

    A matrix under the name of the factor of a propto() is that term's alone: in the phylogenetic model `propto(0 + sp |
    one) + (1 | sp)` the levels of the second term are independent. Who wants both related names the matrix of the first
    otherwise, `propto(0 + sp | one, K)`, and gives it under both names.
    """
    given = cov or {}
    known = {*given, *(env or {})}
    taken = {_name_of(bar, known) for bar in bars if bar.structure in KNOWN}
    return {name: matrix for name, matrix in given.items() if name not in taken}


NEEDS: dict[str, Callable[[Bar, Mapping[str, Levels], Mapping[str, Any]], Place]] = {
    **dict.fromkeys(POSITIONED, _positions),
    **dict.fromkeys(KNOWN, _known),
}
