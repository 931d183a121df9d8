"""Directions along which no row of a matrix goes the wrong way, by linear programming: arrays only, no fit.

Rows that may only rise, only fall, or must stay level make a cone of directions. Separation is that it holds more than
directions along which nothing moves (Albert & Anderson 1984; Konis 2007).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ranef import _core
from ranef.engines.estimate import Array

LARGEST = 4_000_000  # entries of the program's matrix; beyond, looking would cost more than fitting did
ZERO = 1e-7
SHIFTED = 1e3  # means that are larger, in standard deviations, take digits away
MANY = 60  # columns up to which all that take part are looked for
REACH = 15.0  # a logit within which weights are no rounding errors
STEPS = 12  # Newton steps within which an overlap shows
CERTAIN = 1e-4  # a weight above this is none of rounding
NULL = 1e-12  # squared singular values below this share of the largest belong to the null space


def direction(x: Array, sign: Array) -> list[int] | None:
    """Return the columns that take part in a separating direction of X, or none; None if the program is too large."""
    inward, level = _constraints(_centred(x), sign)
    if inward.size + level.size > LARGEST:
        return None
    if not len(inward) or is_overlapped(inward, level):
        return []
    found = _program(inward, level)
    columns = np.flatnonzero(np.abs(found) > ZERO)
    if columns.size and x.shape[1] <= MANY:
        columns = np.flatnonzero(_all_moving(inward, level, np.abs(found) > ZERO))
    moving = [int(j) for j in columns if np.ptp(x[:, j]) > 0]
    return moving or [int(j) for j in columns]


def _centred(x: Array) -> Array:
    """Return columns less their means where these are large and a constant makes up for them: their digits are few."""
    mean, spread = x.mean(axis=0), x.std(axis=0)
    far = (spread > 0) & (np.abs(mean) > SHIFTED * spread)
    constant = (spread == 0) & (mean != 0)
    return x - np.where(far, mean, 0.0) if far.any() and constant.any() else x


def _all_moving(inward: Array, level: Array, known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which columns take part in any separating direction: one alone need not go along with all of them."""
    moving = known.copy()
    for j in np.flatnonzero(~known):
        for towards in (1.0, -1.0):
            aim = np.zeros(inward.shape[1])
            aim[j] = towards
            moving |= np.abs(_furthest(aim, inward, level)) > ZERO if not moving[j] else False
    return moving


def _constraints(x: Array, sign: Array) -> tuple[Array, Array]:
    """Return rows r with r'd >= 0 and rows with r'd = 0, each once; a row of both signs is one of these."""
    first, which = _core.distinct_rows(np.ascontiguousarray(x))
    seen = np.zeros((3, len(first)), dtype=bool)
    seen[sign.astype(np.intp), which] = True
    flat, up, down = seen  # of signs 0, 1 and -1, the last
    level = flat | (up & down)
    rows = x[first] / np.maximum(np.abs(x[first]).max(axis=0), np.finfo(float).tiny)
    return np.where(up, 1.0, -1.0)[~level, None] * rows[~level], rows[level]


def is_overlapped(inward: Array, level: Array) -> bool:
    """Whether no direction of the level rows' null space goes inwards: a certificate that spares the linear program.

    By Stiemke's theorem there is none if and only if positive weights balance the inward rows. Those of a logistic
    regression of successes on them are positive at any d and balance them at its optimum, which Newton steps find
    quickly where it exists; weights that balance nearly are projected on those that do. Where that fails, nothing is
    said.
    """
    rows = inward @ _null_space(level) if len(level) else inward
    rows = rows[np.abs(rows).max(axis=1, initial=0.0) > ZERO]
    if not rows.size:
        return not len(rows)
    axes = _axes(rows)
    d = np.zeros(axes.shape[1])
    for _ in range(STEPS):
        eta = axes @ d
        if not np.abs(eta).max() < REACH:
            return False
        weight = 1 / (1 + np.exp(eta))
        own = _beside(_beside(weight, axes), axes)  # twice, as axes are orthogonal but for rounding errors
        if own.min() > CERTAIN and np.abs(rows.T @ own).max() < CERTAIN * ZERO:
            return True
        information = axes.T @ (axes * (weight * (1 - weight))[:, None])
        d = d + np.linalg.solve(information, axes.T @ weight)
    return False


def _beside(weight: Array, axes: Array) -> Array:
    """Return what is left of weights beside the space of some orthonormal columns."""
    return weight - axes @ (axes.T @ weight)


def _axes(rows: Array) -> Array:
    """Return orthonormal columns that span the same space."""
    spread, axes = np.linalg.eigh(rows.T @ rows)
    there = spread > len(spread) * np.finfo(float).eps * spread[-1]
    return rows @ (axes[:, there] / np.sqrt(spread[there]))


def _null_space(level: Array) -> Array:
    _, spread, axes = np.linalg.svd(level.T @ level)
    return np.ascontiguousarray(axes[spread <= NULL * max(float(spread[0]), 1.0)].T)


def _program(inward: Array, level: Array) -> NDArray[np.float64]:
    """Return the direction that goes furthest inwards, in no row that must stay level; zeros if there is none."""
    none = np.zeros(inward.shape[1])
    if not len(inward):
        return none
    found = _furthest(inward.sum(axis=0), inward, level)
    return found if float(inward.sum(axis=0) @ found) >= ZERO * len(inward) else none


def _furthest(aim: Array, inward: Array, level: Array) -> NDArray[np.float64]:
    """Return the direction that goes furthest towards an aim and goes outwards in no row; zeros if none is found."""
    from scipy.optimize import linprog

    found = linprog(
        -aim,
        A_ub=-inward,
        b_ub=np.zeros(len(inward)),
        A_eq=level if len(level) else None,
        b_eq=np.zeros(len(level)) if len(level) else None,
        bounds=(-1, 1),
        method="highs",
    )
    return np.zeros(len(aim)) if found.x is None else np.asarray(found.x)
