"""From variables to `Block`s: numeric columns, contrasts of factors, and their products in R's column order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from ranef.errors import DataError, NotAvailableError
from ranef.formula import Factor
from ranef.frame.coding import Coding, contrast, indicators, level_name
from ranef.frame.design import Array, Block, Indicators, Levels
from ranef.frame.kernels import small_int

MOST_WHOLE = 50_000_000  # entries of a matrix that is written out: 400 MB
WIDE = 500  # a fixed factor of more levels is a block of the sparse system, where the engine has one
MOST_WIDE = 2


@dataclass(frozen=True)
class Number:
    """A numeric variable of one or more columns and the endings of their names."""

    columns: tuple[Array, ...]
    endings: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class Coded:
    """A categorical variable whose every code lies in 0..L-1."""

    codes: Array
    levels: Levels
    coding: Coding


Variable = Number | Coded
Variables = Mapping[str, Variable]


@dataclass(frozen=True)
class TermPlan:
    """A term with the coding of its factors: `full` is True where a factor has a column for every level.

    `columns` and `blocks` are how many it has; 0 as long as nobody has counted. `wide`: its contrast matrix is not
    written out.
    """

    factors: tuple[Factor, ...]
    full: tuple[bool, ...]
    columns: int = 0
    blocks: int = 0
    wide: bool = False


@dataclass
class Columns:
    """Variables, and the blocks of terms of them: made once, in however many predictors a term stands.

    Parameters
    ----------
    variables : dict
        Label of a factor -> its values.
    """

    variables: dict[str, Variable] = field(default_factory=dict)
    _made: dict[tuple[object, ...], tuple[TermPlan, tuple[Block, ...]]] = field(default_factory=dict)
    _parts: dict[tuple[str, bool], tuple[list[str], Array | None]] = field(default_factory=dict)

    def of(self, plan: TermPlan) -> tuple[TermPlan, tuple[Block, ...]]:
        """Return a term counted, and its blocks; its variables are there and do not change any more."""
        key = plan.factors, plan.full, plan.wide
        found = self._made.get(key)
        if found is None:
            blocks = tuple(_term_blocks(plan, self))
            columns = sum([len(block.names) for block in blocks])
            found = self._made[key] = TermPlan(*key[:2], columns, len(blocks), plan.wide), blocks
        return found

    def part(self, label: str, full: bool) -> tuple[list[str], Array | None]:
        """Return the column names of one factor of a term, and its contrast matrix if it is categorical."""
        found = self._parts.get((label, full))
        if found is None:
            found = self._parts[label, full] = _columns(self.variables[label], label, full)
        return found


def blocks_of(plans: Sequence[TermPlan], columns: Columns) -> tuple[Block, ...]:
    """Return the blocks of some terms, in order."""
    return tuple([block for plan in plans for block in columns.of(plan)[1]])


def counted(plans: Sequence[TermPlan], columns: Columns) -> tuple[tuple[TermPlan, ...], tuple[Block, ...]]:
    """Return the plans with their numbers of columns and blocks, and the blocks."""
    made = [columns.of(plan) for plan in plans]
    blocks = tuple([block for _, blocks in made for block in blocks])
    check_names(blocks)
    return tuple([plan for plan, _ in made]), blocks


def check_names(blocks: Sequence[Block]) -> None:
    """Refuse two columns of one name, which no question could tell apart: level "b" of f, and a column "fb".

    Raises
    ------
    DataError
    """
    if len(blocks) < 2 or all(block.codes is None for block in blocks):
        return
    names = [name for block in blocks for name in block.names]
    if len(set(names)) < len(names):
        name, count = Counter(names).most_common(1)[0]
        raise DataError(
            f"{count} coefficients would be named {name!r}, as a factor and its level are written together: rename a "
            f"column or a level"
        )


def widened(plans: Sequence[TermPlan], variables: Variables) -> tuple[TermPlan, ...]:
    """Mark the main effects of the largest factors, of more than `WIDE` levels, as wide."""
    if not any(isinstance(v, Coded) and len(v.levels) > WIDE for v in variables.values()):
        return tuple(plans)
    sizes = {at: len(v.levels) for at, plan in enumerate(plans) if (v := _plain_factor(plan, variables)) is not None}
    largest = {at for at, size in Counter(sizes).most_common(MOST_WIDE) if size > WIDE}
    return tuple(replace(plan, wide=at in largest) for at, plan in enumerate(plans))


def _plain_factor(plan: TermPlan, variables: Variables) -> Coded | None:
    """Return the factor of a main effect in treatment contrasts with its first level as reference, or coded in full."""
    value = variables[plan.factors[0].label] if len(plan.factors) == 1 else None
    if not isinstance(value, Coded):
        return None
    coding = value.coding
    usual = isinstance(coding, str) and coding == "treatment"
    if isinstance(coding, tuple) and coding[0] == "treatment":
        usual = coding[1] is None or value.levels[0] == coding[1]
    return value if usual or plan.full[0] else None


def _wide_block(plan: TermPlan, variables: Variables) -> Block:
    label, value = plan.factors[0].label, variables[plan.factors[0].label]
    assert isinstance(value, Coded)
    shown = value.levels.tolist()[0 if plan.full[0] else 1 :]
    names = tuple(label + level_name(level) for level in shown)
    return Block(names, value.codes, Indicators(len(value.levels), len(names)))


def _term_blocks(plan: TermPlan, columns: Columns) -> list[Block]:
    if not plan.factors:
        return [Block(("(Intercept)",))]
    if plan.wide:
        return [_wide_block(plan, columns.variables)]
    labels = [f.label for f in plan.factors]
    values = [columns.variables[label] for label in labels]
    if len(values) == 1:
        return _main_effect(values[0], labels[0], columns, plan.full[0])
    pieces = [columns.part(label, full) for label, full in zip(labels, plan.full, strict=True)]
    codes, matrix = _combined(values, pieces, labels)
    products = _products([v for v in values if isinstance(v, Number)])
    return _arranged(values, [names for names, _ in pieces], codes, matrix, products)


def _main_effect(value: Variable, label: str, columns: Columns, full: bool) -> list[Block]:
    if isinstance(value, Number):
        return [Block((label + end,), x=x) for end, x in zip(value.endings, value.columns, strict=True)]
    names, matrix = columns.part(label, full)
    return [Block(tuple(names), value.codes, matrix)]


def _columns(value: Variable, label: str, full: bool) -> tuple[list[str], Array | None]:
    """Return the column names of one factor of a term, and its contrast matrix if it is categorical."""
    if isinstance(value, Number):
        return [label + end for end in value.endings], None
    size = len(value.levels)
    if size * size > MOST_WHOLE:
        raise NotAvailableError(
            f"fixed factor {label!r} has {size} levels, which takes a linear mixed model, treatment contrasts with the "
            f"first level as reference, no interaction, and at most {MOST_WIDE} factors of that kind; make it a random "
            f"effect: (1 | {label})"
        )
    matrix, endings = indicators(value.levels) if full else contrast(value.coding, value.levels, label)
    return [label + end for end in endings], matrix


def _combined(
    values: Sequence[Variable], pieces: Sequence[tuple[list[str], Array | None]], labels: Sequence[str]
) -> tuple[Array | None, Array | None]:
    """Return the codes of the cells of all categorical parts, the first fastest, and the product of their contrasts."""
    parts = [(v, m) for v, (_, m) in zip(values, pieces, strict=True) if isinstance(v, Coded) and m is not None]
    if not parts:
        return None, None
    cells, columns = prod(len(m) for _, m in parts), prod(m.shape[1] for _, m in parts)
    if cells * columns > MOST_WHOLE:
        raise NotAvailableError(
            f"term {':'.join(labels)} has {cells} cells and {columns} columns, more than fit in memory"
        )
    value, matrix = parts[0]
    codes, size = value.codes, len(matrix)
    for other, more in parts[1:]:
        codes = codes.astype(small_int(cells)) + other.codes.astype(small_int(cells)) * small_int(cells)(size)
        size *= len(more)
        cells_first = more[:, None, :, None] * matrix[None, :, None, :]  # np.kron, without its preparations
        matrix = cells_first.reshape(size, -1)
    return codes, np.ascontiguousarray(matrix)


def _products(numbers: Sequence[Number]) -> list[Array | None]:
    """Products of the numeric parts, one for every choice of their columns, the first varying fastest."""
    if not numbers:
        return [None]
    out: list[Array | None] = list(numbers[0].columns)
    for number in numbers[1:]:
        out = [np.multiply(a, b, dtype=np.float64) for b in number.columns for a in out]
    return out


def _arranged(
    values: Sequence[Variable],
    names: Sequence[list[str]],
    codes: Array | None,
    matrix: Array | None,
    products: Sequence[Array | None],
) -> list[Block]:
    """Put the columns in R's order (the first factor varies fastest); a run over one numeric part is one block."""
    joined = _joined(names)
    if len(products) == 1:
        return [Block(tuple(joined), codes, matrix, products[0])]
    cell, number = _positions(values, [len(n) for n in names])
    starts = np.flatnonzero(np.r_[True, (np.diff(number) != 0) | (np.diff(cell) != 1)])
    out = []
    for start, stop in zip(starts, [*starts[1:], len(cell)], strict=True):
        part = None if matrix is None else np.ascontiguousarray(matrix[:, cell[start] : cell[stop - 1] + 1])
        out.extend(_run(tuple(joined[start:stop]), codes, part, products[number[start]]))
    return out


def _run(names: tuple[str, ...], codes: Array | None, matrix: Array | None, x: Array | None) -> list[Block]:
    return [Block(names, codes, matrix, x)]


def _joined(names: Sequence[list[str]]) -> list[str]:
    out = names[0]
    for more in names[1:]:
        out = [f"{a}:{b}" for b in more for a in out]
    return out


def _positions(values: Sequence[Variable], sizes: Sequence[int]) -> tuple[Array, Array]:
    """For every column of a term: its column among the categorical parts, and its product among the numeric ones."""
    cell, number = np.zeros(1, np.int64), np.zeros(1, np.int64)
    cells = numbers = 1
    for value, size in zip(values, sizes, strict=True):
        step = np.repeat(np.arange(size), len(cell))
        categorical = isinstance(value, Coded)
        cell = np.tile(cell, size) + step * cells * categorical
        number = np.tile(number, size) + step * numbers * (not categorical)
        cells, numbers = cells * (size if categorical else 1), numbers * (1 if categorical else size)
    return cell, number
