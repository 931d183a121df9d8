"""How factors become columns: contrast matrices, and R's rule for when contrasts or all levels are used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ranef.errors import ArgumentError, DataError, OptionError
from ranef.formula import INTERCEPT, Term
from ranef.formula.functions import CODINGS
from ranef.frame.design import Array


@dataclass(frozen=True, eq=False)
class Matrix:
    """A user's contrasts: (L, m), with the endings of the columns' names."""

    values: Array
    names: tuple[str, ...]


Coding = str | tuple[str, Any] | Matrix  # "treatment", ("treatment", base level), or a matrix of L rows


def level_name(label: Any) -> str:
    """Return a level as R pastes it into a column name."""
    if type(label) is str:
        return label
    if isinstance(label, (bool, np.bool_)):
        return "TRUE" if label else "FALSE"
    return f"{label:.15g}" if isinstance(label, (float, np.floating)) else str(label)


def contrast(coding: Coding, levels: Sequence[Any], name: str) -> tuple[Array, list[str]]:
    """Return the (L, m) contrast matrix of a factor and the endings of its column names.

    Raises
    ------
    DataError
        If the factor has one level only, or a user's matrix does not have L rows.
    """
    size = len(levels)
    if size < 2:
        only = f"one level, {levels[0]!r}," if size else "no level"
        raise DataError(
            f"factor {name!r} has {only} in the rows used; a contrast needs two: remove it from the formula"
        )
    if isinstance(coding, Matrix):
        return _user(coding, size, name)
    kind, base = (coding, None) if isinstance(coding, str) else coding
    if kind in ("treatment", "sas"):
        return _treatment(levels, base if kind == "treatment" else levels[-1], name)
    matrix = _by_size(_MATRICES[kind], size)
    if kind == "sdif":
        return matrix, [f"{k + 1}-{k}" for k in range(1, size)]
    powers = [".L", ".Q", ".C", *(f"^{k}" for k in range(4, size))] if kind == "poly" else _numbers(size - 1)
    return matrix, powers[: matrix.shape[1]]


def indicators(levels: Sequence[Any]) -> tuple[Array, list[str]]:
    """One column a level."""
    return _by_size(np.eye, len(levels)), [level_name(label) for label in levels]


def _treatment(levels: Sequence[Any], base: Any, name: str) -> tuple[Array, list[str]]:
    labels = list(levels)
    if base is not None and base not in labels:
        raise DataError(
            f"the base level {base!r} is not a level of {name!r} in the rows used, which are {labels[:8]!r}"
        )
    at = 0 if base is None else labels.index(base)
    matrix = _by_size(_against, len(labels), at)
    return matrix, [level_name(label) for i, label in enumerate(labels) if i != at]


# ---- matrices, which depend on how many levels there are and on nothing else ----------------------------------------

MOST_KEPT = 30  # levels up to which they are


def _by_size(make: Callable[..., Array], size: int, *more: int) -> Array:
    """Return `make(size, *more)`; of few levels it is made once for all fits, and read-only."""
    return _kept(make, size, *more) if size <= MOST_KEPT else make(size, *more)


@lru_cache(maxsize=256)
def _kept(make: Callable[..., Array], *sizes: int) -> Array:
    matrix = make(*sizes)
    matrix.flags.writeable = False
    return matrix


def _against(size: int, base: int) -> Array:
    return np.eye(size, size - 1, -1) if base == 0 else np.ascontiguousarray(np.delete(np.eye(size), base, axis=1))


def _sum(size: int) -> Array:
    return np.vstack([np.eye(size - 1), -np.ones(size - 1)])


def _helmert(size: int) -> Array:
    matrix = np.triu(-np.ones((size, size - 1)))
    matrix[np.arange(1, size), np.arange(size - 1)] = np.arange(1, size)
    return matrix


def _successive(size: int) -> Array:
    """Coefficients are differences of a level from the one before, the constant the mean of all (Venables & Ripley)."""
    share = np.arange(1, size) / size
    return np.tril(np.ones((size, size - 1)), -1) - (1 - share)


def _poly(size: int) -> Array:
    """Orthonormal polynomials in 1..L (`contr.poly`), leading coefficients positive."""
    basis = np.polynomial.chebyshev.chebvander(np.linspace(-1, 1, size), min(size, 96) - 1)
    q, r = np.linalg.qr(basis)
    matrix = np.ascontiguousarray((q * np.sign(np.diag(r)))[:, 1:])
    matrix[np.abs(matrix) < 1e-15] = 0.0
    return matrix


def _numbers(count: int) -> list[str]:
    return [str(i + 1) for i in range(count)]


_MATRICES = {"sum": _sum, "helmert": _helmert, "poly": _poly, "sdif": _successive}


def _user(matrix: Matrix, size: int, name: str) -> tuple[Array, list[str]]:
    rows = matrix.values.shape[0]
    if rows != size:
        message = f"the contrast matrix of {name!r} has {rows} rows; the factor has {size} levels in the rows used"
        raise DataError(message)
    return matrix.values, list(matrix.names)


def _column_names(value: Any, count: int) -> list[str]:
    """Return the endings of column names: those of a frame's columns where all are text, as R takes `colnames`."""
    columns = [c for c in getattr(value, "columns", ()) if isinstance(c, str)]
    return columns if len(columns) == count else _numbers(count)


def read_coding(value: Any, name: str) -> Coding:
    """Check what a user gave as the contrasts of one factor.

    Raises
    ------
    OptionError
        If the name of the coding is unknown.
    ArgumentError
        If it is neither a name, a (name, base) pair nor a matrix.
    """
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        return str(read_coding(value[0], name)), value[1]
    if isinstance(value, str):
        if value not in CODINGS:
            known = "'treatment', 'sum', 'helmert', 'poly', 'SAS', 'sdif'"
            raise OptionError(f"unknown contrasts {value!r} for {name!r}; known are {known}, or a matrix")
        return CODINGS[value]
    if isinstance(value, Mapping):
        raise ArgumentError(f"contrasts of {name!r} are a name, a (name, base level) pair or a matrix, not a dict")
    try:
        matrix: Array = np.array(value, np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.ndim == 1 and matrix.size:
        matrix = matrix[:, None]
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise ArgumentError(
            f"contrasts of {name!r} are a name, a (name, base level) pair or a matrix of finite numbers"
        )
    names = _column_names(value, matrix.shape[1])
    if len(set(names)) < len(names):
        raise ArgumentError(f"two columns of the contrast matrix of {name!r} have one name: {names!r}")
    return Matrix(np.ascontiguousarray(matrix), tuple(names))


def by_levels(value: Any, levels: Sequence[Any], name: str) -> Any:
    """Return a pandas matrix of contrasts with its rows in the order of the levels that label them; others as given.

    Raises
    ------
    DataError
        If a level has no row. Rows of levels that do not occur are left out.
    """
    if not hasattr(value, "iloc") or type(value.index).__name__ == "RangeIndex":
        return value
    rows = {level_name(label): at for at, label in enumerate(value.index.tolist())}
    lacking = [label for label in levels if level_name(label) not in rows]
    if lacking:
        raise DataError(
            f"the contrast matrix of {name!r} has no row for level {lacking[0]!r}; its rows are labelled "
            f"{value.index.tolist()[:8]!r}"
        )
    return value.iloc[[rows[level_name(label)] for label in levels]]


def full_codings(terms: Sequence[Term], factors: set[str]) -> Sequence[tuple[bool, ...]]:
    """For every factor of every term: True if coded by all its levels, False if by contrasts (or numeric).

    R's rule (Chambers and Hastie, Statistical Models in S, p. 38, as `model.matrix` applies it): a factor is coded by
    contrasts if the term without it is empty or contained in an earlier term. Without intercept, the first factor met
    is coded by all levels.
    """
    return _full_codings(tuple([t.labels for t in terms]), frozenset(factors))


@lru_cache(maxsize=1024)
def _full_codings(terms: tuple[tuple[str, ...], ...], factors: frozenset[str]) -> Sequence[tuple[bool, ...]]:
    """Return that of terms given by the labels of their factors: most fits of a session have the same few."""
    full = [
        [label in factors and _full(labels, label, terms[:j]) for label in labels] for j, labels in enumerate(terms)
    ]
    if INTERCEPT.labels not in terms:
        first = next(((j, i) for j, t in enumerate(terms) for i, label in enumerate(t) if label in factors), None)
        if first is not None:
            full[first[0]][first[1]] = True
    return tuple(map(tuple, full))


def _full(term: tuple[str, ...], label: str, before: Sequence[tuple[str, ...]]) -> bool:
    rest = set(term) - {label}
    return bool(rest) and not any(rest <= set(t) for t in before)
