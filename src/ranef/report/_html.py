"""Summaries as one self-contained piece of HTML for a notebook; every text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ranef.report._facts import Section, Summary
from ranef.report._table import Table

#: Colours come from the page, so that the snippet suits light and dark notebooks.
STYLE = """<style>
.ranef-summary {line-height: 1.35; max-width: 60em}
.ranef-summary .ranef-title {font-weight: 600; margin: .2em 0}
.ranef-summary dl {display: grid; grid-template-columns: max-content auto; gap: 0 .8em; margin: .2em 0 .6em}
.ranef-summary dt {opacity: .65; margin: 0; font-weight: normal}
.ranef-summary dd {margin: 0}
.ranef-summary table {border-collapse: collapse; margin: .2em 0 .6em; font-variant-numeric: tabular-nums;
  border-top: 1.5px solid currentColor; border-bottom: 1.5px solid currentColor}
.ranef-summary caption {text-align: left; font-weight: 600; padding: .2em 0; caption-side: top; white-space: nowrap}
.ranef-summary th, .ranef-summary td {text-align: right; padding: .1em .7em; border: 0; background: none}
.ranef-summary thead th {border-bottom: 1px solid currentColor; font-weight: 600}
.ranef-summary .ranef-label {text-align: left; font-weight: normal}
.ranef-summary p {margin: .2em 0}
</style>"""


def render(summary: Summary) -> str:
    """Return the summary as an HTML snippet."""
    parts = [STYLE, '<div class="ranef-summary">', _paragraph(summary.title, "ranef-title"), _pairs(summary.head)]
    parts += [_section(section) for section in summary.sections]
    parts += [_paragraph(note) for note in summary.notes]
    return "\n".join([*parts, "</div>"])


def _paragraph(text: str, kind: str = "ranef-note") -> str:
    return f'<p class="{kind}">{escape(text)}</p>'


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(label)}</dt><dd>{escape(text)}</dd>" for label, text in pairs) + "</dl>"


def _section(section: Section) -> str:
    table = [_table(section.table, section.title)] if section.table.rows else []
    return "\n".join([*table, *map(_paragraph, section.notes)])


def _table(table: Table, caption: str) -> str:
    head = "".join(_cell("th", text, i < table.left, 'scope="col"') for i, text in enumerate(table.header))
    body = "\n".join(f"<tr>{_cells(row, table.left)}</tr>" for row in table.rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{title}\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"


def _cells(row: tuple[str, ...], left: int) -> str:
    return "".join(_cell("th" if i == 0 and left else "td", text, i < left) for i, text in enumerate(row))


def _cell(tag: str, text: str, label: bool, extra: str = "") -> str:
    attributes = " ".join(filter(None, ['class="ranef-label"' if label else "", extra]))
    return f"<{tag}{' ' + attributes if attributes else ''}>{escape(text)}</{tag}>"
