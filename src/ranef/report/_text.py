"""Tables and summaries as plain text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from ranef.report._facts import Section, Summary
from ranef.report._table import Table

WIDTH = 88
MAX_LABEL = 40
GAP = "  "


def render(summary: Summary) -> str:
    """Return the summary as text."""
    lines = [summary.title, *_pairs(summary.head), ""]
    for section in summary.sections:
        lines += [*_section(section), ""]
    return "\n".join(lines + [line for note in summary.notes for line in wrap(note)]).rstrip() + "\n"


def table_lines(table: Table, indent: str = "") -> list[str]:
    """Return the lines of a table; a label longer than `MAX_LABEL` stands on a line of its own."""
    widths = [_width(column, i < table.left) for i, column in enumerate(zip(table.header, *table.rows, strict=True))]
    lines = [_row(table.header, widths, table.left)]
    for row in table.rows:
        lines += _split(row, widths, table.left)
    return [(indent + line).rstrip() for line in lines]


def wrap(text: str, indent: str = "") -> list[str]:
    """Return `text` broken at `WIDTH`, later lines indented by two."""
    return _broken(text, indent, indent + "  ")


def _broken(text: str, first: str, later: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=later, break_long_words=False, break_on_hyphens=False
    )


def _width(cells: Sequence[str], label: bool) -> int:
    fitting = [len(c) for c in cells if not label or len(c) <= MAX_LABEL]
    return max(fitting, default=0)


def _row(cells: Sequence[str], widths: Sequence[int], left: int) -> str:
    padded = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
    return GAP.join(padded)


def _split(row: tuple[str, ...], widths: Sequence[int], left: int) -> list[str]:
    long = [c for c in row[:left] if len(c) > MAX_LABEL]
    kept = [*("" if len(c) > MAX_LABEL else c for c in row[:left]), *row[left:]]
    return [*long, _row(kept, widths, left)]


def _pairs(pairs: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(label) for label, _ in pairs) + 1
    lines: list[str] = []
    for label, text in pairs:
        lines += _broken(text, f"{label + ':':>{width + 1}} ", " " * (width + 2))
    return lines


def _section(section: Section) -> list[str]:
    head = [f"{section.title}:"] if section.title else []
    if not section.table.rows:
        return [line for note in section.notes for line in wrap(note)]
    return head + table_lines(section.table, " ") + [line for note in section.notes for line in wrap(note)]
