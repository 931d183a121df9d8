"""Values as what they are used for: numbers, categories, a response, weights and offsets; and what cannot be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ranef.errors import ArgumentError, DataError, FormulaError
from ranef.formula import parse
from ranef.frame.blocks import Number
from ranef.frame.coding import Coding
from ranef.frame.design import Array, Levels
from ranef.frame.evaluate import Categories, Evaluator
from ranef.frame.table import (
    AS_MISSING,
    Column,
    Table,
    any_column,
    as_factor,
    check_order,
    shorten,
    strays,
    unknown_column,
    where_found,
    written_numbers,
)
from ranef.frame.transforms import Matrix


def side_column(what: str, value: Any, table: Table) -> Column | None:
    """Read the `weights=`, `offset=` or `trials=` argument as a column of numbers: its name, or an expression."""
    if value is None:
        return None
    if isinstance(value, str):
        column = table.column(value) if value in table.names else _written(what, value, table)
    else:
        column = side_array(what, value, table.n)
        check_order(what, value, table.index)
    if column.x is None or column.x.dtype.kind == "b":
        hint = "" if column.codes is None else written_numbers(column)
        raise DataError(f"{what}: {column.name!r} does not hold numbers{hint and '; '}{hint}")
    return column


def _written(what: str, text: str, table: Table) -> Column:
    """Evaluate an expression of columns, as in a formula's offset: "dead + alive"."""
    try:
        factors = parse(f"~ offset({text})").offset_factors if not text.isidentifier() else ()
    except FormulaError:
        factors = ()
    if len(factors) != 1:
        raise unknown_column(text, table.names, f"{what} column")
    evaluator = Evaluator(table, {})
    value = evaluator(factors[0])
    if evaluator.states:
        raise ArgumentError(
            f"{what}={text!r}: {next(iter(evaluator.states))[0]} depends on the other rows; add a column"
        )
    if isinstance(value, Column):
        return value
    if not isinstance(value, np.ndarray):
        raise DataError(f"{what}: {text!r} does not hold numbers")
    x = np.asarray(value, np.float64)
    missing = np.isnan(x)
    return Column(text, x, missing=missing if missing.any() else None)


def side_array(what: str, value: Any, n: int) -> Column:
    """Read an array given as weights or offset."""
    if not hasattr(value, "__len__"):
        raise ArgumentError(f"{what}= is the name of a column or an array of {n} numbers, not {type(value).__name__}")
    column = any_column(what, value)
    size = len(column)
    if size != n:
        raise DataError(f"{what} has {size} values; the data have {n} rows")
    return column


def not_a_time(value: Any, label: str) -> None:
    """Refuse dates and times as columns of X."""
    if isinstance(value, Column) and value.time:
        raise DataError(
            f"{label!r} holds dates or times (no numbers): make it a number (days since …), or write factor({label})"
        )


def default_coding(value: Any) -> Coding:
    """Return the coding of a factor for which the caller gave none."""
    if isinstance(value, Categories) and value.coding is not None:
        return value.coding
    return "poly" if getattr(value, "ordered", False) else "treatment"


def categories_of(value: Any, label: str) -> Categories:
    """Return a value as categories."""
    if isinstance(value, Categories):
        return value
    if isinstance(value, Matrix):
        raise DataError(f"{label} has several columns and cannot group rows")
    if not isinstance(value, (Column, np.ndarray)):
        raise DataError(f"{label} makes a response and cannot group rows")
    if not isinstance(value, Column):
        missing = np.isnan(value) if value.dtype.kind == "f" else None
        value = Column(label, value, missing=missing if missing is not None and missing.any() else None)
    return Categories.of(as_factor(value))


def number_of(value: Any, label: str, keep: Callable[[Array], Array]) -> Number:
    """Return a value as numbers on the rows kept."""
    if isinstance(value, Matrix):
        return Number(tuple(keep(x) for x in value.columns), value.endings)
    if isinstance(value, Column):
        value = _column_numbers(value, label)
    if not isinstance(value, np.ndarray) or value.dtype.kind == "b":
        raise DataError(f"{label!r} must be numeric")
    return Number((keep(value),))


def _column_numbers(column: Column, label: str) -> Any:
    """Return the numbers of a column; one without any value has NaN everywhere."""
    if column.x is not None:
        return column.x
    if column.codes is not None and not len(column.levels or ()):
        return np.full(len(column.codes), np.nan)
    what = "dates or times" if column.time else "text or categories"
    needed = "numbers are needed" + (f" for {label}" if label == "offset" else "")
    hint = written_numbers(column)
    raise DataError(f"column {column.name!r} holds {what}; {needed}{hint and '; '}{hint}")


def not_spoilt(value: Any, levels: Levels, n: int) -> None:
    """Refuse a column of text that some texts keep from being numbers, and that would be a factor of half the rows."""
    if isinstance(value, Column) and value.text and 2 * len(levels) > n and (odd := strays(levels.tolist())):
        raise DataError(
            f"column {value.name!r} holds numbers written as text because of {where_found(value, odd)}, and as a "
            f"factor it would have {len(levels)} levels in {n} rows: convert the column{AS_MISSING}, or write "
            f"factor({value.name}) for a factor"
        )


def response_of(value: Any, name: str, keep: Callable[[Array], Array]) -> Array:
    """Return the response as float64 on the rows kept."""
    truth = isinstance(value, np.ndarray) and value.dtype.kind == "b"
    if isinstance(value, Column):
        truth = value.x is not None and value.x.dtype.kind == "b"
        if value.x is None:
            what = "dates or times" if value.time else f"categories ({shorten(value.levels or [], 4)})"
            hint = written_numbers(value)
            raise DataError(f"response {name!r} holds {what}, not numbers{hint and '; '}{hint}")
        value = value.x
    if truth:
        raise DataError(f"response {name!r} holds truth values, not numbers; a gaussian model needs numbers")
    if isinstance(value, Categories) or (isinstance(value, Matrix) and len(value.columns) != 1):
        raise DataError(f"response {name!r} is not one column of numbers")
    return np.ascontiguousarray(keep(value.columns[0] if isinstance(value, Matrix) else value), np.float64)


def total_of(parts: Sequence[Number]) -> Array | None:
    """Add up offsets."""
    if not parts:
        return None
    total = np.array(parts[0].columns[0], np.float64)
    for part in parts[1:]:
        total += part.columns[0]
    return total
