"""What covariance structures must know of their columns: positions, equal steps, or a known matrix.

A structure that needs something is one row of `NEEDS`: a function from the bar, the levels of its factor and the known
matrices to a `Place`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from ranef.errors import DataError, FormulaError
from ranef.formula import Bar, Factor, Term
from ranef.formula.expression import read_expression
from ranef.frame.coding import level_name
from ranef.frame.design import Array, Levels
from ranef.frame.table import shorten

POSITIONED = ("ou", "exp", "gau")
SERIAL = ("ar1", "hetar1", "toep", "homtoep")
POINT = re.compile(r"^\((.*)\)$")
EQUAL = 1e-8  # steps that differ by less than this share of the first are equal


@dataclass(frozen=True, slots=True)
class Place:
    """What a term's structure knows of its k columns: points (k, d), or a matrix (k, k)."""

    points: Array | None = None
    matrix: Array | None = None


NOWHERE = Place()


def by_level(bar: Bar, is_number: Callable[[Factor], bool]) -> Bar:
    """Return the bar with numeric times or coordinates turned into factors: one column for every distinct point.

    `ar1(t + 0 | g)` becomes `ar1(factor(t) + 0 | g)`, `exp(x + y + 0 | g)` becomes `exp(numFactor(x, y) + 0 | g)`.
    """
    factors = [term.factors[0] for term in bar.terms if term.degree == 1]
    if bar.structure not in (*POSITIONED, *SERIAL) or not factors or not all(map(is_number, factors)):
        return bar
    if len(factors) > 1 and bar.structure in SERIAL:
        return bar
    if len(factors) < len(bar.terms):
        raise FormulaError(_one_factor(bar))
    name = "factor" if len(factors) == 1 else "numFactor"
    text = f"{name}({', '.join(f.label for f in factors)})"
    functions = frozenset(name for f in factors for name in f.functions)
    return replace(bar, terms=(Term((read_expression(text, text, 0, functions),)),))


def place_of(bar: Bar, levels: Mapping[str, Levels]) -> Place:
    """Return what the structure of a bar knows of its columns.

    Parameters
    ----------
    bar : Bar
        After `by_level`.
    levels : mapping
        Label of a factor -> its levels in use.

    Raises
    ------
    FormulaError
        If the bar has other columns than the levels of one factor.
    DataError
        If a level is no position, or steps are unequal.
    """
    need = NEEDS.get(bar.structure)
    return NOWHERE if need is None else need(bar, levels)


def _the_levels(bar: Bar, levels: Mapping[str, Levels]) -> list[Any]:
    """Return the levels that are the columns of a bar."""
    if len(bar.terms) != 1 or bar.terms[0].degree != 1 or bar.terms[0].factors[0].label not in levels:
        raise FormulaError(_one_factor(bar))
    return list(levels[bar.terms[0].factors[0].label])


def _one_factor(bar: Bar) -> str:
    example = "times" if bar.structure in ("ou", *SERIAL) else "numFactor(x, y)" if bar.structure in POSITIONED else "f"
    return f"{bar}: the columns of {bar.structure}() are the levels of one factor: {bar.structure}({example} + 0 | g)"


# ---- positions -------------------------------------------------------------------------------------------------------


def _positions(bar: Bar, levels: Mapping[str, Levels]) -> Place:
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


def _steps(bar: Bar, levels: Mapping[str, Levels]) -> Place:
    """Refuse numeric times that are not equally spaced; the order of other levels is the caller's."""
    label = bar.terms[0].factors[0].label if len(bar.terms) == 1 and bar.terms[0].degree == 1 else ""
    found: Sequence[Any] = list(levels.get(label, ()))
    if len(found) > 2 and not any(isinstance(v, (str, bool)) for v in found):
        steps = [b - a for a, b in pairwise(found)]
        bad = next((i for i, step in enumerate(steps) if abs(step - steps[0]) > EQUAL * abs(steps[0])), None)
        if bad is not None:
            raise DataError(
                f"{bar}: the times are not equally spaced ({level_name(found[0])}, {level_name(found[1])}, but "
                f"{level_name(found[bad])}, {level_name(found[bad + 1])}); use ou(times + 0 | {bar.label}), whose "
                f"correlation exp(-rate * distance) is that of ar1 at equal steps, or text labels if the order counts"
            )
    return NOWHERE


NEEDS: dict[str, Callable[[Bar, Mapping[str, Levels]], Place]] = {
    **dict.fromkeys(POSITIONED, _positions),
    **dict.fromkeys(SERIAL, _steps),
}
