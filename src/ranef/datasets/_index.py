"""What is known about each data set: one table, `index.json`, read once."""

from __future__ import annotations

import difflib
import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from ranef.errors import OptionError

WIDTH = 88


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a data set.

    Attributes
    ----------
    name : str
        Name in the frame.
    type : str
        `"number"` (float64), `"integer"` (int64), `"factor"`, `"ordered"` or `"string"`.
    meaning : str
        What was recorded, with its unit; empty where the source does not say.
    levels : tuple of str or str or None
        Level labels in order; for long lists the rule that gives the order (`"appearance"`, `"numeric"`, `"sorted"`);
        None for columns that are not factors.
    n_levels : int
        Number of levels, 0 for columns that are not factors.
    """

    name: str
    type: str
    meaning: str = ""
    levels: tuple[str, ...] | str | None = None
    n_levels: int = 0

    @property
    def is_factor(self) -> bool:
        """Whether the column is a factor, ordered or not."""
        return self.levels is not None

    @property
    def kind_text(self) -> str:
        """Type with the number of levels and, where they are few, the levels themselves."""
        if self.levels is None:
            return self.type
        text = f"{self.type}, {self.n_levels} level{'' if self.n_levels == 1 else 's'}"
        if isinstance(self.levels, str) or self.n_levels > 6:
            return text
        return f"{text}: {(' < ' if self.type == 'ordered' else ', ').join(self.levels)}"


@dataclass(frozen=True, slots=True, repr=False)
class Dataset:
    """Description of one data set; printing it shows a short page.

    Attributes
    ----------
    name, title, about : str
        Name, one line, and a short paragraph.
    rows : int
        Number of rows.
    columns : tuple of Column
        The columns in order.
    source, licence : str
        Where the numbers were taken from and the licence stated there.
    reference : str
        The publication that the data come from; empty where it is not known for certain.
    example : str
        A mixed-model formula that suits the data; may be empty.
    file : str
        File inside the package.
    """

    name: str
    title: str
    rows: int
    columns: tuple[Column, ...]
    source: str
    licence: str
    file: str
    about: str = ""
    reference: str = ""
    example: str = ""

    def __str__(self) -> str:
        parts = [f"{self.name}: {self.title}", f"{self.rows} rows, {len(self.columns)} columns", ""]
        parts += [*_paragraph(self.about), *_column_lines(self.columns), ""]
        parts += _field("Source", self.source) + _field("Licence", self.licence)
        parts += _field("Reference", self.reference) + _field("Example", self.example)
        return "\n".join(parts)

    __repr__ = __str__


def _paragraph(text: str) -> list[str]:
    return [*textwrap.wrap(text, WIDTH), ""] if text else []


def _field(label: str, text: str) -> list[str]:
    return textwrap.wrap(f"{label + ':':<11}{text}", WIDTH, subsequent_indent=" " * 11) if text else []


def _column_lines(columns: tuple[Column, ...]) -> list[str]:
    width = max(len(c.name) for c in columns)
    lines: list[str] = []
    for c in columns:
        text = f"{c.meaning} ({c.kind_text})" if c.meaning else f"({c.kind_text})"
        label = f"  {c.name:<{width}}  "
        lines += textwrap.wrap(text, WIDTH, initial_indent=label, subsequent_indent=" " * len(label))
    return lines


@cache
def table() -> MappingProxyType[str, Dataset]:
    """Return every description by name, in alphabetical order without regard to case."""
    raw: dict[str, Any] = json.loads(files("ranef.datasets").joinpath("index.json").read_text("utf-8"))
    return MappingProxyType({name: _dataset(name, raw[name]) for name in sorted(raw, key=lambda s: (s.lower(), s))})


def find(name: str) -> Dataset:
    """Return the description of `name`; an unknown name is an `OptionError` that names the nearest."""
    try:
        return table()[name]
    except KeyError:
        raise OptionError(unknown(name)) from None


def unknown(name: str) -> str:
    """Return the sentence that says a data set does not exist, naming the nearest ones."""
    lower = {n.lower(): n for n in table()}
    near = [lower[n] for n in difflib.get_close_matches(str(name).lower(), lower, n=3, cutoff=0.6)]
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "rf.datasets.names() lists them."
    return f"there is no data set {name!r}; {hint}"


def order(rule: tuple[str, ...] | str, seen: Sequence[str]) -> list[str]:
    """Return the level labels in order, from a list or from a rule applied to the labels in order of appearance."""
    if isinstance(rule, tuple):
        return list(rule)
    if rule == "appearance":
        return list(seen)
    return sorted(seen, key=float) if rule == "numeric" else sorted(seen)


def _dataset(name: str, raw: dict[str, Any]) -> Dataset:
    columns = tuple(_column(c, spec) for c, spec in raw.pop("columns").items())
    return Dataset(name=name, columns=columns, **raw)


def _column(name: str, raw: dict[str, Any]) -> Column:
    levels = raw.get("levels")
    if isinstance(levels, list):
        levels = tuple(levels)
    return Column(name, raw["type"], raw.get("meaning", ""), levels, raw.get("n_levels", len(levels or ())))
