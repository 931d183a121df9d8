"""Bars of one label, `(1 |id| g)`: one term whose columns may belong to several linear predictors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ranef.errors import FormulaError
from ranef.formula import Bar
from ranef.frame.design import GroupTerm
from ranef.frame.spec import BarPlan


def by_name(bars: Sequence[tuple[Bar, int]]) -> list[list[tuple[Bar, int]]]:
    """Bars with their components, those of one label together, at the place of the first."""
    out: dict[object, list[tuple[Bar, int]]] = {}
    for i, (bar, component) in enumerate(bars):
        out.setdefault(bar.name or i, []).append((bar, component))
    for same in out.values():
        if len(same) > 1 and len({frozenset(bar.group) for bar, _ in same}) > 1:
            shown = ", ".join(str(bar) for bar, _ in same)
            raise FormulaError(f"bars of one label have one grouping factor: {shown}")
    return list(out.values())


def joined(parts: Sequence[tuple[BarPlan, GroupTerm]], components: Sequence[str]) -> tuple[BarPlan, GroupTerm]:
    """Return one term of the bars of one label.

    Columns of other components than the mean are called "dispersion.(Intercept)".
    """
    if len(parts) == 1:
        return parts[0]
    columns = tuple(column for plan, _ in parts for column in plan.columns)
    blocks = tuple(block for _, term in parts for block in term.blocks)
    names = tuple(_called(name, components[term.component]) for _, term in parts for name in term.names)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        shown = ", ".join(str(plan.bar) for plan, _ in parts)
        raise FormulaError(f"bars of one label have the column {twice!r} twice: {shown}")
    plan, term = parts[0]
    of_columns = tuple(part.component for part, _ in parts for _ in part.columns)
    of_blocks = tuple(part.component for _, part in parts for _ in part.blocks)
    if len(set(of_blocks)) == 1:
        of_columns, of_blocks = (), ()
    return (
        replace(plan, names=names, columns=columns, owners=of_columns),
        replace(term, names=names, blocks=blocks, owners=of_blocks),
    )


def _called(name: str, component: str) -> str:
    return name if component == "mean" else f"{component}.{name}"
