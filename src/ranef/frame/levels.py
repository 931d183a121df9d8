"""Levels: those in use, those of combined groupings, and their codes in new data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ranef.frame.coding import level_name
from ranef.frame.design import Array, Levels
from ranef.frame.kernels import combine_codes, level_counts, small_int

NUMBERED = re.compile(r"(\D*?)((?:(?<!.)-)?\d+(?:\.\d+)?)(\D*)")


def number_order(labels: Sequence[Any]) -> list[int] | None:
    """Return the order of text labels by the number in them; None unless they differ in one number alone.

    >>> from ranef.frame.levels import number_order
    >>> number_order(["t1", "t10", "t2"])
    [0, 2, 1]
    """
    numbers = numbers_in(labels)
    return None if numbers is None else sorted(range(len(numbers)), key=numbers.__getitem__)


def numbers_in(labels: Sequence[Any]) -> list[float] | None:
    """Return the number in each of some text labels; None unless they differ in one number alone."""
    found = [NUMBERED.fullmatch(label) if isinstance(label, str) else None for label in labels]
    parts = [match.groups() for match in found if match is not None]
    numbers = [float(part[1]) for part in parts]
    if len(parts) < len(labels) or len({(a, b) for a, _, b in parts}) != 1 or len(set(numbers)) < len(numbers):
        return None
    return numbers


def drop_unused(codes: Array, levels: Levels) -> tuple[Array, Levels, tuple[Any, ...]]:
    """Codes and levels without those that no row has, and the latter's labels."""
    counts = level_counts(codes, len(levels))
    if counts.all():
        return codes, levels, ()
    keep = np.flatnonzero(counts)
    lut = np.full(len(levels), -1, small_int(len(keep)))
    lut[keep] = np.arange(len(keep))
    empty = np.flatnonzero(counts == 0)
    unused = tuple(levels[i] for i in empty) if len(empty) <= 10_000 else ()
    return lut[codes], levels.take(keep), unused


def combine(codes: Sequence[Array], parts: Sequence[Levels]) -> tuple[Array, Levels, Array]:
    """Return the grouping a:b:…: codes of the combinations that occur, sorted by a, then b; labels; keys."""
    joint, size, rows = codes[0], len(parts[0]), np.arange(len(parts[0]))[:, None]
    for other, levels in zip(codes[1:], parts[1:], strict=True):
        joint, pairs = combine_codes(joint, size, other, len(levels))
        rows = np.column_stack([rows[pairs[:, 0]], pairs[:, 1]])
        size = len(pairs)
    joint = joint.astype(small_int(size)) if size <= 32767 else joint
    return joint, Levels(size, lambda: _pair_labels(rows, parts)), keys_of(rows.T, parts)


def _pair_labels(rows: Array, parts: Sequence[Levels]) -> list[str]:
    names = [[level_name(label) for label in levels] for levels in parts]
    return [":".join(part[i] for part, i in zip(names, row, strict=True)) for row in rows.tolist()]


def keys_of(columns: Sequence[Array] | Array, parts: Sequence[Levels]) -> Array:
    """Return the mixed-radix number of every row of part codes."""
    key = np.asarray(columns[0], np.int64)
    for column, levels in zip(columns[1:], parts[1:], strict=True):
        key = key * len(levels) + column
    return key


def translate(codes: Array, old: Levels, new: Levels) -> Array:
    """Codes by one list of levels as codes by another; -1 where the label is not in it, or missing.

    Where one list is text and the other is not, labels are compared as text: 1 is '1', as in R.
    """
    index = new.index_of()
    if old and new and isinstance(old[0], str) != isinstance(new[0], str):
        names = {level_name(label): code for label, code in index.items()}
        found = [names.get(level_name(label), -1) for label in old]
    else:
        found = [index.get(label, -1) for label in old]
    return np.array([*found, -1], small_int(len(new)))[codes]
