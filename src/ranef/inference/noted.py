"""A table with what is worth knowing about it: what tests and comparisons of fits return."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ranef.engines.estimate import Array
from ranef.errors import UnknownColumnError, nearest
from ranef.inference.frames import to_frame

SMALLEST = 2.2e-16  # the spacing of doubles around one: p-values below are printed as a bound
P_VALUES = ("p_value", "p_mixture")


@dataclass(frozen=True, slots=True)
class Note:
    """A remark on a table: a stable name to select by, and the sentence."""

    code: str
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, eq=False, repr=False)
class NotedTable:
    """A table and remarks on it.

    Attributes
    ----------
    title : str
        What it is.
    columns : mapping
        Name -> list of text or array of numbers, one entry a row.
    notes : tuple of Note
        What was done on the way (refits by maximum likelihood) and what limits the conclusions.
    kind : str
        The kind of frame that `to_frame` gives.
    """

    title: str
    columns: Mapping[str, Any]
    notes: tuple[Note, ...]
    kind: str

    def to_frame(self) -> Any:
        """Return the table as a frame of the kind that was fitted."""
        return to_frame(self.columns, self.kind)

    def __getitem__(self, name: str) -> Any:
        if name not in self.columns:
            raise UnknownColumnError(f"there is no column {name!r}; {nearest(name, self.columns)}")
        return self.columns[name]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __repr__(self) -> str:
        head = [self.title] if self.title else []
        return "\n".join([*head, *text_lines(self.columns), *(f"* {note.text}" for note in self.notes)])

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(repr(self))}</pre>"


def distinct(notes: Iterable[Note]) -> tuple[Note, ...]:
    """Return every note once, in order."""
    return tuple(dict.fromkeys(notes))


def text_lines(columns: Mapping[str, Any]) -> list[str]:
    """Return a table as lines: text to the left, numbers to the right, what is missing blank."""
    cells = {name: [cell(name, v) for v in values] for name, values in columns.items()}
    width = {name: max([len(name), *map(len, shown)]) for name, shown in cells.items()}
    left = {name for name, values in columns.items() if any(isinstance(v, str) for v in values)}

    def line(row: Sequence[str]) -> str:
        parts = (v.ljust(width[n]) if n in left else v.rjust(width[n]) for n, v in zip(columns, row, strict=True))
        return "  ".join(parts).rstrip()

    return [line(list(columns)), *(line(row) for row in zip(*cells.values(), strict=True))]


def cell(name: str, value: Any) -> str:
    """Return one entry as text."""
    if value is None or isinstance(value, (str, bool, np.bool_)):
        return "" if value is None else str(value)
    if np.isnan(value):
        return ""
    if name in P_VALUES:
        return p_text(float(value))
    if float(value).is_integer() and abs(value) < 1e9:
        return f"{value:.0f}"
    return f"{value:.3f}" if 1e-3 <= abs(value) < 1e9 else f"{value:.4g}"


def p_text(p: float) -> str:
    """Return a p-value as text: four decimals, an exponent below 0.0001, a bound where doubles end."""
    if np.isnan(p):
        return "NaN"
    if p < SMALLEST:
        return "<2e-16"
    return f"{p:.4f}" if p >= 1e-4 else f"{p:.2e}"


def numbers(values: Iterable[float | None]) -> Array:
    """Return numbers as an array, NaN for None."""
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)
