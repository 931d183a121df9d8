"""New data by the memory of a fit: the same columns, every row kept, new and missing levels marked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ranef.errors import DataError, OptionError, UnseenLevelError
from ranef.formula import Factor, Formula
from ranef.frame.blocks import Coded, Columns, Number, TermPlan, blocks_of
from ranef.frame.coding import level_name
from ranef.frame.design import Array, Component, GroupTerm, Levels, NewDesign, Unseen
from ranef.frame.evaluate import Categories, Evaluator
from ranef.frame.kernels import small_int
from ranef.frame.levels import keys_of, translate
from ranef.frame.response import Given, Response, read_response
from ranef.frame.spec import BarPlan, FactorState, Part, Spec
from ranef.frame.table import Column, Table, rows_of, shorten
from ranef.frame.values import categories_of, number_of, side_column, total_of


def new_design(
    spec: Spec,
    table: Table,
    response: bool,
    groups: str | Iterable[str],
    offset: Any,
    wanted: frozenset[str] | None = None,
) -> NewDesign:
    """See `Spec.new`."""
    which = _wanted(spec, groups)
    new = _New(spec, Evaluator(table, spec.states, spec.env, spec.columns))
    bars = [spec.bars[i] for i in which]
    parts = [part if wanted is None or part.name in wanted else Part(part.name) for part in spec.parts]
    plans = (*spec.fixed, *(p for part in parts for p in part.fixed), *(p for bar in bars for p in bar.columns))
    new.open = _open(bars, [*spec.fixed, *(p for part in parts for p in part.fixed)])
    for factor in dict.fromkeys(factor for plan in plans for factor in plan.factors):
        new.variable(factor)
    total = new.offset(offset)
    others = tuple(new.component(part) for part in parts)
    grouped = [new.group(bar) for bar in bars]
    terms = tuple(_new_term(b, codes, new) for b, (codes, _) in zip(bars, grouped, strict=True))
    found = new.response() if response else None
    return NewDesign(
        table.n,
        blocks_of(spec.fixed, new.columns),
        terms,
        which,
        tuple(unseen for _, unseen in grouped),
        new.missing(),
        None if found is None else found.y,
        total,
        table.kind,
        others,
        None if found is None else found.trials,
    )


def _open(bars: Sequence[BarPlan], fixed: Sequence[TermPlan]) -> frozenset[str]:
    """Labels of factors that may have new levels: positions of processes, and nothing else in the model."""
    processes = [plan for bar in bars for plan in bar.columns if bar.points is not None]
    others = [*fixed, *(plan for bar in bars for plan in bar.columns if bar.points is None)]
    closed = {factor.label for plan in others for factor in plan.factors}
    return frozenset(f.label for plan in processes for f in plan.factors) - closed


def _new_term(bar: BarPlan, codes: Array, new: _New) -> GroupTerm:
    b = bar.bar
    pieces = [new.columns.of(plan)[1] for plan in bar.columns]
    blocks = tuple(block for piece in pieces for block in piece)
    at = bar.columns[0].factors if bar.points is not None else ()  # of positions: a constant has none
    fresh = new.fresh.get(at[0].label, ()) if at else ()
    if fresh and blocks[0].contrast is not None:  # a row for every position, a column for every fitted one
        blocks = (replace(blocks[0], names=bar.names, contrast=blocks[0].contrast[:, : len(bar.names)]),)
    owners = tuple(owner for piece, owner in zip(pieces, bar.owners, strict=False) for _ in piece)
    return GroupTerm(
        b.label, bar.names, b.structure, codes, bar.levels, blocks, b.args, bar.component, owners=owners, fresh=fresh
    )


def _wanted(spec: Spec, groups: str | Iterable[str]) -> tuple[int, ...]:
    labels = [bar.bar.label for bar in spec.bars]
    if groups == "all":
        return tuple(range(len(labels)))
    if groups == "none":
        return ()
    wanted = {groups} if isinstance(groups, str) else set(groups)
    unknown = sorted(wanted - set(labels))
    if unknown:
        raise OptionError(f"there is no random-effects term with grouping {unknown[0]!r}; there are {shorten(labels)}")
    return tuple(i for i, label in enumerate(labels) if label in wanted)


@dataclass
class _New:
    """The work of `Spec.new`."""

    spec: Spec
    evaluator: Evaluator
    columns: Columns = field(default_factory=Columns)
    masks: list[Array] = field(default_factory=list)
    open: frozenset[str] = frozenset()
    fresh: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    def missing(self) -> Array | None:
        gone = np.logical_or.reduce(self.masks) if self.masks else None
        return gone if gone is not None and gone.any() else None

    def variable(self, factor: Factor) -> None:
        if factor.label in self.columns.variables:
            return
        value = self.evaluator(factor)
        self.note(self.evaluator.needs(factor))
        state = self.spec.factors.get(factor.label)
        found = self.number(value, factor) if state is None else self.coded(value, factor, state)
        self.columns.variables[factor.label] = found

    def note(self, columns: Iterable[Column]) -> None:
        self.masks.extend(c.missing for c in columns if c.missing is not None)

    def number(self, value: Any, factor: Factor) -> Number:
        number = number_of(value, factor.label, lambda x: x)
        self.masks.extend(np.isnan(x) for x in number.columns if x.dtype.kind == "f")
        return number

    def coded(self, value: Any, factor: Factor, state: FactorState) -> Coded:
        found = categories_of(value, factor.label)
        codes = translate(found.codes, found.levels, state.levels)
        fresh = (codes < 0) & (found.codes >= 0)
        levels = state.levels
        if fresh.any() and factor.label in self.open:
            codes, added = _extended(codes, found, fresh, len(levels))
            self.fresh[factor.label] = added
            levels = Levels.of([*levels, *added])
        elif fresh.any():
            raise _unseen(factor.label, found.levels[int(found.codes[fresh][0])], state, fresh)
        if (codes < 0).any():
            self.masks.append(codes < 0)
            codes = np.where(codes < 0, 0, codes).astype(codes.dtype)
        return Coded(codes, levels, state.coding)

    def group(self, plan: BarPlan) -> tuple[Array, Unseen | None]:
        """Codes of a grouping, -1 where new or missing, and what is new."""
        found = [categories_of(self.evaluator(f), f.label) for f in plan.bar.factors]
        codes = _group_codes(found, plan)
        if not (codes < 0).any():
            return codes, None
        gone = np.logical_or.reduce([value.codes < 0 for value in found])
        return codes, _fresh(found, (codes < 0) & ~gone, gone if gone.any() else None)

    def offset(self, given: Any) -> Array | None:
        """Return the offset of the formula plus that of the argument."""
        given = self.spec.offset if given is None else given
        if isinstance(given, str) and given == "":
            raise DataError(
                "the model was fitted with an array of offsets: give offset= for the new data too, or fit with a column"
            )
        side = side_column("offset", given, self.evaluator.table)
        return self.total(self.spec.formula, side)

    def total(self, formula: Formula, side: Column | None = None) -> Array | None:
        """Return the sum of a formula's offsets."""
        factors = formula.offset_factors
        values = [self.evaluator(f) for f in factors]
        for factor in factors:
            self.note(self.evaluator.needs(factor))
        total = total_of([number_of(v, "offset", lambda x: x) for v in (*values, *([] if side is None else [side]))])
        if total is not None:
            self.masks.append(np.isnan(total))
        return total

    def component(self, part: Part) -> Component:
        """Return a linear predictor beside the mean's."""
        if part.formula is None and part.constant is None:
            return Component(part.name, ())
        if part.formula is None:
            return Component(part.name, (), np.full(self.evaluator.table.n, part.constant, np.float64))
        return Component(part.name, blocks_of(part.fixed, self.columns), self.total(part.formula))

    def response(self) -> Response | None:
        """Return the response; rows without one hold NaN."""
        spec, table = self.spec, self.evaluator.table
        lhs = spec.formula.lhs
        if lhs is None:
            return None
        if spec.trials == "":
            raise DataError(
                "the model was fitted with an array of trials: fit with trials='column' to use new responses"
            )
        side = side_column("trials", spec.trials, table)
        trials = None if side is None else side.x
        given = Given(self.evaluator(lhs), lhs.bare, spec.outcome, lambda x: x, None, trials, spec.categories)
        return read_response(given)


def _extended(codes: Array, found: Categories, fresh: Array, known: int) -> tuple[Array, tuple[Any, ...]]:
    """Return codes in which new levels follow the known ones, and those levels."""
    added, place = np.unique(found.codes[fresh], return_inverse=True)
    out = codes.astype(small_int(known + len(added)))
    out[fresh] = known + place
    return out, tuple(found.levels[int(code)] for code in added)


def _group_codes(found: Sequence[Categories], plan: BarPlan) -> Array:
    parts = [translate(v.codes, v.levels, levels) for v, levels in zip(found, plan.parts, strict=True)]
    if plan.keys is None:
        return parts[0]
    known = np.logical_and.reduce([part >= 0 for part in parts])
    keys = keys_of([np.where(known, part, 0) for part in parts], plan.parts)
    at = np.minimum(np.searchsorted(plan.keys, keys), len(plan.keys) - 1)
    return np.where(known & (plan.keys[at] == keys), at, -1).astype(small_int(len(plan.keys)))


def _fresh(found: Sequence[Categories], fresh: Array, gone: Array | None) -> Unseen:
    names = [value.levels for value in found]
    index: dict[Any, int] = {}
    codes = np.full(len(fresh), -1, np.int32)
    for row in np.flatnonzero(fresh).tolist():
        labels = [levels[int(value.codes[row])] for value, levels in zip(found, names, strict=True)]
        label = labels[0] if len(labels) == 1 else ":".join(map(level_name, labels))
        codes[row] = index.setdefault(label, len(index))
    return Unseen(codes, tuple(index), gone)


def _unseen(name: str, label: Any, state: FactorState, fresh: Array) -> UnseenLevelError:
    why = " (declared in the fitted data, but without rows there)" if label in state.unused else ""
    known = shorten(state.levels.tolist(), 12)
    return UnseenLevelError(f"column {name}, level {label!r}{why}, known: {known}; in {rows_of(fresh)}")
