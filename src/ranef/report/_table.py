"""A table of strings and the rules by which numbers become strings; rendering lives elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ranef.inference.noted import p_text

#: Widest plain decimal number; a column that would need more falls back to general format cell by cell.
MAX_CHARS = 12


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text, by row.

    Attributes
    ----------
    header : tuple of str
        Column heads.
    rows : tuple of tuple of str
        Cells; every row as long as the header.
    left : int
        How many leading columns are labels (aligned left); the others are numbers (aligned right).
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1


def columns(header: Sequence[str], cells: Sequence[Sequence[str]], left: int = 1) -> Table:
    """Return the table whose columns are `cells`."""
    return Table(tuple(header), tuple(zip(*cells, strict=True)), left)


def decimals(values: ArrayLike, digits: int) -> int:
    """Return the number of decimals at which the smallest non-zero finite value shows `digits` significant digits."""
    x = np.abs(np.asarray(values, dtype=float))
    x = x[np.isfinite(x) & (x > 0)]
    if not x.size:
        return 1
    return max(0, digits - 1 - math.floor(math.log10(float(x.min()))))


def aligned(values: ArrayLike, digits: int = 4, places: int | None = None) -> list[str]:
    """Format a column with one number of decimals, or cell by cell where that would need too many characters.

    Parameters
    ----------
    values : array_like of float
        The column; NaN becomes `"NaN"`.
    digits : int
        Significant digits of the smallest value.
    places : int, optional
        Number of decimals, in place of what `digits` would give.
    """
    x = np.asarray(values, dtype=float).ravel()
    d = decimals(x, digits) if places is None else places
    cells = [fixed(v, d) for v in x]
    return cells if max(map(len, cells), default=0) <= MAX_CHARS else [general(v, digits + 1) for v in x]


def fixed(value: float, places: int) -> str:
    """Format with `places` decimals; a rounded zero carries no minus sign."""
    if not math.isfinite(value):
        return nonfinite(value)
    text = f"{value:.{places}f}"
    return text.lstrip("-") if float(text) == 0 else text


def general(value: float, digits: int = 5) -> str:
    """Format with `digits` significant digits, with an exponent where the number is very large or small."""
    return f"{value:.{digits}g}" if math.isfinite(value) else nonfinite(value)


def nonfinite(value: float) -> str:
    """Format NaN and the infinities as R prints them."""
    return "NaN" if math.isnan(value) else "Inf" if value > 0 else "-Inf"


def p_values(values: ArrayLike) -> list[str]:
    """Format p-values."""
    return [p_text(float(p)) for p in np.asarray(values, dtype=float).ravel()]


def degrees(values: ArrayLike) -> list[str]:
    """Format degrees of freedom: two decimals, fewer for large numbers."""
    x = np.asarray(values, dtype=float)
    top = float(np.max(x[np.isfinite(x)], initial=0.0))
    return aligned(x, places=2 if top < 100 else 1 if top < 1e5 else 0)


def count(n: int, noun: str) -> str:
    """Return `"1 row"`, `"2 rows"`, with thousands separated."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def listing(items: Iterable[str], limit: int = 8) -> str:
    """Join with commas and a final "and"; beyond `limit` items the number of the others."""
    names = list(items)
    if len(names) > limit:
        names = [*names[:limit], f"{len(names) - limit} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""
