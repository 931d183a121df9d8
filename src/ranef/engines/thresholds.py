"""Thresholds of ordinal families: predictors that share their coefficients, and effects that differ between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ranef.engines.estimate import Array
from ranef.errors import DataError, OptionError
from ranef.families import Distribution
from ranef.frame.design import Block, matrix

if TYPE_CHECKING:
    from ranef.frame import Design

NOMINAL = "nominal"
SPREAD = 100.0  # what the full gaps between thresholds are worth, in distance from where they would start
ALIASED = 1e-9  # a column left over after projection by less than this, relative to itself, is a combination of others


@dataclass(frozen=True, slots=True)
class Thresholds:
    """One predictor of the core that is a threshold: its columns, and where their coefficients stand."""

    fixed: tuple[Block, ...]
    at: tuple[int, ...]


def thresholds(design: Design, family: Distribution) -> list[Thresholds]:
    """Return the threshold predictors: those above and below each row's category, or all of them.

    Threshold j of row i is T[j] alpha, plus T[j] gamma_x for every column x of `nominal=`: alpha comes first, then
    gamma column by column, each as long as T is wide.
    """
    if not family.entry.ordinal or design.y is None:
        return []
    matrix = threshold_matrix(len(design.categories), family.threshold)
    width = matrix.shape[1]
    factors = [None, *nominal_columns(design)]
    at = tuple(width * k for k in range(len(factors)))
    if family.entry.name == "cumulative":
        codes, names = design.y.astype(np.int32), ("",) * width
        sides = _above_and_below(len(design.categories), family.threshold)
        return [Thresholds(tuple(Block(names, codes, side, x) for x in factors), at) for side in sides]
    if family.threshold == "flexible":
        return [
            Thresholds(tuple(Block(("",), None, None, x) for x in factors), tuple(k + j for k in at))
            for j in range(width)
        ]
    codes, names = np.zeros(design.n, np.int8), ("",) * width
    rows = [np.ascontiguousarray(row[None, :]) for row in matrix]
    return [Thresholds(tuple(Block(names, codes, row, x) for x in factors), at) for row in rows]


@cache
def _above_and_below(categories: int, arrangement: str) -> tuple[Array, Array]:
    """Return the rows of T above and below each category, zeros where there is no threshold."""
    matrix = threshold_matrix(categories, arrangement)
    empty = np.zeros((1, matrix.shape[1]))
    sides = np.vstack([matrix, empty]), np.vstack([empty, matrix])
    for side in sides:
        side.flags.writeable = False
    return sides


def values_of(thresholds: Thresholds, beta: Array, n: int) -> Array:
    """Return the thresholds of the rows, where `beta` are the coefficients of the component of thresholds."""
    out = np.zeros(n)
    for block, at in zip(thresholds.fixed, thresholds.at, strict=True):
        alpha = beta[at : at + len(block.names)]
        inner = alpha[0] if block.contrast is None or block.codes is None else (block.contrast @ alpha)[block.codes]
        out = out + (inner if block.x is None else inner * block.x)
    return out


def nominal_names(design: Design) -> tuple[str, ...]:
    """Return the names of the columns whose effects differ from threshold to threshold."""
    return next((c.names for c in design.others if c.name == NOMINAL), ())


def nominal_columns(design: Design) -> list[Array]:
    """Return those columns."""
    found = next((c.fixed for c in design.others if c.name == NOMINAL), ())
    return list(np.ascontiguousarray(matrix(found, design.n).T)) if found else []


def check_nominal(design: Design) -> None:
    """Refuse columns of the mean that the thresholds of `nominal=` hold already.

    Raises
    ------
    DataError
        If there are any; they are named.
    """
    columns = nominal_columns(design)
    if not columns:
        return
    inner = np.column_stack([np.ones(design.n), *columns])
    if np.linalg.matrix_rank(inner) < inner.shape[1]:
        raise DataError(
            f"nominal=: its columns ({', '.join(nominal_names(design))}) depend on each other; leave some out"
        )
    x = matrix(design.fixed, design.n)
    if not x.size:
        return
    left = x - inner @ np.linalg.lstsq(inner, x, rcond=None)[0]
    twice = np.abs(left).max(axis=0) < ALIASED * np.maximum(np.abs(x).max(axis=0), 1e-300)
    if twice.any():
        names = ", ".join(name for name, bad in zip(design.fixed_names, twice, strict=True) if bad)
        raise DataError(
            f"{names}: in the formula and in nominal=, which gives it an effect on every threshold; keep one"
        )


@cache
def threshold_matrix(categories: int, arrangement: str) -> Array:
    """Return T with thresholds = T alpha, (categories - 1, coefficients), read-only.

    "flexible": each its own; "equidistant": the first and a spacing; "symmetric": the centre and distances from it;
    "symmetric2": distances from a centre of 0.
    """
    made = ARRANGEMENTS.get(arrangement, np.eye)(categories - 1)
    made.flags.writeable = False
    return made


def _equidistant(count: int) -> Array:
    return np.column_stack([np.ones(count), np.arange(count, dtype=np.float64)])[:, :count]  # one has no spacing


def _symmetric(count: int) -> Array:
    """Ordinal's arrangement: the central threshold or two, then distances from the centre, the same on both sides."""
    half, centres = (count - 1) // 2, 2 - count % 2
    out = np.zeros((count, centres + half))
    for j in range(count):
        centre = min(max(j, half), half + centres - 1)
        out[j, centre - half] = 1.0
        if j != centre:
            out[j, centres + abs(j - centre) - 1] = float(np.sign(j - centre))
    return out


def _about_zero(count: int) -> Array:
    """Distances from 0, the same on both sides; the middle one of an odd number of thresholds is 0."""
    out = np.zeros((count, count // 2))
    for k in range(count // 2):
        below = count // 2 - 1 - k
        out[below, k], out[count - 1 - below, k] = -1.0, 1.0
    return out


#: How thresholds are arranged -> T of so many thresholds; each is its own in others.
ARRANGEMENTS = {"equidistant": _equidistant, "symmetric": _symmetric, "symmetric2": _about_zero}


def check_thresholds(design: Design, family: Distribution) -> None:
    """Refuse an arrangement that leaves nothing to estimate.

    Raises
    ------
    OptionError
        For "symmetric2" of two categories, whose only threshold would be 0.
    """
    if family.entry.ordinal and family.threshold == "symmetric2" and len(design.categories) == 2:
        raise OptionError(
            "threshold='symmetric2' holds the one threshold between two categories at 0; leave it out (the threshold "
            "is then estimated), or give fixed= a value for it"
        )


def in_order(matrix: Array, start: Array, to: NDArray[np.int64], values: Array) -> Array:
    """Return coefficients near `start` whose thresholds rise, some of them held or tied.

    The thresholds are those nearest to where they would start whose gaps are as large a share (at most all) of the gaps
    there as can be: a linear program.

    Parameters
    ----------
    matrix : (thresholds, width) array
    start : (width,) array
        Without regard to what is held.
    to, values : (width,) arrays
        Coefficients of one number are one; those of -1 are held at their value.

    Raises
    ------
    OptionError
        If there are none.
    """
    from scipy.optimize import linprog

    kinds = np.unique(to[to >= 0])
    own = matrix @ (to[:, None] == kinds).astype(np.float64)
    known, cuts = matrix @ np.where(to < 0, values, 0.0), matrix @ start
    count, free = own.shape
    gaps, one, none = np.diff(cuts), np.eye(count), np.zeros((count, 1))
    found = linprog(
        np.concatenate([np.zeros(free), [-SPREAD], np.ones(count)]),
        A_ub=np.vstack([
            np.hstack([-np.diff(own, axis=0), gaps[:, None], np.zeros((count - 1, count))]),
            np.hstack([own, none, -one]),
            np.hstack([-own, none, -one]),
        ]),
        b_ub=np.concatenate([np.diff(known), cuts - known, known - cuts]),
        bounds=[(None, None)] * free + [(0, 1)] + [(0, None)] * count,
        method="highs",
    )  # fmt: skip
    if found.x is None or not found.x[free] > ALIASED:
        raise OptionError(
            "fixed=, equal=: thresholds rise from category to category, and as these are held or tied they cannot"
        )
    return np.where(to < 0, values, np.append(found.x[:free], 0.0)[np.searchsorted(kinds, to)])


def threshold_names(categories: Sequence[Any], family: Distribution) -> tuple[str, ...]:
    """Return the names of the threshold coefficients, such as "low|middle"."""
    if family.threshold == "equidistant":
        return ("threshold.1", "spacing")[: len(categories) - 1]
    if family.threshold == "symmetric2":
        return tuple(f"spacing.{j + 1}" for j in range((len(categories) - 1) // 2))
    if family.threshold == "symmetric":
        half = (len(categories) - 2) // 2
        centres = ("central",) if len(categories) % 2 == 0 else ("central.1", "central.2")
        return (*centres, *(f"spacing.{j + 1}" for j in range(half)))
    return tuple(f"{a}|{b}" for a, b in pairwise(categories))
