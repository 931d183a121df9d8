"""`build`: formula and data to arrays, with one mask over everything that the model uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

import numpy as np

from ranef.errors import ArgumentError, DataError, NotAvailableError, OptionError
from ranef.formula import INTERCEPT, Bar, Factor, Formula, Term, parse
from ranef.formula.functions import PLAIN
from ranef.formula.groups import group_named
from ranef.frame.blocks import Coded, Columns, TermPlan, blocks_of, check_names, counted, widened
from ranef.frame.coding import Coding, by_levels, full_codings, read_coding
from ranef.frame.design import NO_WEIGHT, Array, Block, Component, Design, GroupTerm, Levels, Sampling, why_dropped
from ranef.frame.evaluate import Categories, Censored, Evaluator, Measured, Truncated
from ranef.frame.joint import by_name, joined
from ranef.frame.kernels import any_nonfinite
from ranef.frame.levels import combine, drop_unused, number_order
from ranef.frame.little import with_little
from ranef.frame.randomised import DEFAULT, PROBABILITIES, chances_by_row, chances_of, design_named, unknown_design
from ranef.frame.response import Given, Response, read_response
from ranef.frame.spec import BarPlan, FactorState, Outcome, Part, Spec
from ranef.frame.structures import SERIAL, between_levels, by_level, check_steps, open_points, place_of
from ranef.frame.table import Column, Table, check_infinite, read_table, rows_of, unknown_column
from ranef.frame.transforms import Matrix
from ranef.frame.values import (
    categories_of,
    default_coding,
    not_a_time,
    not_spoilt,
    number_of,
    side_array,
    side_column,
    total_of,
)

GAUSSIAN = Outcome()


def build(
    formula: str | Formula,
    data: Any,
    *,
    weights: Any = None,
    offset: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    missing: str = "drop",
    env: Mapping[str, Any] | None = None,
    parts: Sequence[Part] = (),
    outcome: Outcome = GAUSSIAN,
    trials: Any = None,
    frequencies: Any = None,
    cov: Mapping[str, Any] | None = None,
    precision: Mapping[str, Any] | None = None,
    sampling: Mapping[str, Any] | None = None,
    scaling: str | None = None,
    randomised: Mapping[str, Any] | None = None,
    wide: bool = False,
    also: Array | None = None,
) -> tuple[Spec, Design]:
    """Turn formula and data into arrays.

    Parameters
    ----------
    formula : str or Formula
    data : pandas, polars, pyarrow or any frame narwhals knows, or a dict of arrays
        Columns are not copied where their type allows it and no row is dropped: do not change them while a fit is in
        use.
    weights, offset : str or array of n numbers, optional
        A column or an array. Precision weights are positive. Offsets add to those of the formula.
    contrasts : dict, optional
        Factor -> ``"treatment" | "sum" | "helmert" | "poly" | "SAS" | "sdif"`` (also ``"contr.sum"`` …),
        ``("treatment", base level)``, or a matrix with a row for every level (in their order; a pandas one by its
        labels). Default: treatment; polynomial for ordered factors.
    missing : "drop" or "raise"
        One mask over response, terms, groups, weights and offset.
    env : dict, optional
        Further functions and constants that the formula may use. Without it only columns and the functions of
        `ranef.formula.functions` are known.
    parts : sequence of Part
        The linear predictors beside the mean's: their formulas share the data and the mask.
    outcome : Outcome
        Which responses are legal; an ordinal one takes the mean's intercept away (its thresholds are the intercepts).
    trials, frequencies : str or array of n numbers, optional
        Trials of a binomial proportion; frequency weights.
    cov : dict, optional
        Factor -> known matrix of `propto` and `equalto`, see `ranef.frame.structures.read_matrix`; grouping factor ->
        covariance between its levels.
    precision : dict, optional
        Grouping factor -> precision between its levels, see `ranef.frame.relations`.
    sampling, scaling : dict and str, optional
        Weights of a survey by what they belong to ("row" or a grouping factor), and how they are scaled.
    randomised : dict, optional
        The design of randomised responses, see `ranef.frame.randomised`.
    wide : bool
        Whether the engine takes fixed factors of many levels without their contrast matrix (`Indicators`).
    also : array of n numbers, optional
        A response that the formula does not name: rows in which it is missing are left out.

    Returns
    -------
    spec : Spec
    design : Design

    Raises
    ------
    FormulaError, UnknownColumnError, DataError, OptionError, ArgumentError
    """
    if missing not in ("drop", "raise"):
        raise OptionError(f"missing is 'drop' or 'raise', not {missing!r}")
    table = read_table(data)
    formula = _resolved(formula, table, env or {})
    parts = [_resolved_part(part, formula, table, env or {}) for part in parts]
    formulas = (formula, *(part.formula for part in parts if part.formula is not None))
    frame = _Frame(Evaluator(table, {}, env or {}), formulas, {**(env or {}), **_mapping(cov)})
    frame.design_name, chances = _chances(randomised, table)
    sides = _sides(table, weights=weights, offset=offset, trials=trials, frequencies=frequencies, also=also, **chances)
    frame.related = _related(cov, precision, formulas, env)
    drawn = _sides(table, **(sampling or {}))
    given = [column for column in (*sides.values(), *drawn.values()) if column is not None]
    frame.mask(given, missing, sides["frequencies"])
    frame.contrasts(contrasts or {})
    plans = frame.without_intercept(formula.fixed) if outcome.support == "ordinal" else frame.plans(formula.fixed)
    fixed, blocks = counted(widened(plans, frame.columns.variables) if wide else plans, frame.columns)
    plans_of = [frame.planned(part) for part in parts]
    bars = frame.bars(formula, parts)
    asked = _Asked(formula, blocks, tuple(term for _, term in bars), sides, outcome, _offset_name(formula, offset))
    labels = [term.label for _, term in bars]
    parts, others = frame.components(parts, plans_of, asked)
    design = frame.design(asked, others, frame.sampling(drawn, scaling, labels) if drawn else None)
    spec = Spec(
        formula,
        fixed,
        tuple(plan for plan, _ in bars),
        frame.factors,
        frame.evaluator.states,
        tuple(name for block in blocks for name in block.names),
        _named(offset),
        table.kind,
        dict(env or {}),
        tuple(parts),
        outcome,
        _named(trials),
        design.categories,
        frozenset(frame.evaluator.columns),
    )
    return spec, design


def _mapping(given: Any, argument: str = "cov", example: str = "'species': K") -> Mapping[str, Any]:
    if given is not None and not isinstance(given, Mapping):
        raise ArgumentError(f"{argument}= is a dict: {{{example}}}")
    return given or {}


def _related(
    cov: Any, precision: Any, formulas: Sequence[Formula], env: Mapping[str, Any] | None
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return what was given for grouping factors, covariances and precisions between their levels.

    Raises
    ------
    OptionError
        If a matrix belongs to no term.
    """
    inverses = _mapping(precision, "precision", "'animal': Q")
    if not cov and not inverses:
        return {}, {}
    bars = [bar for formula in formulas for bar in formula.bars]
    labels = {bar.label for bar in bars}
    covariances = {name: (group_named(name, labels), k) for name, k in between_levels(cov, env, bars).items()}
    precisions = {name: (group_named(name, labels), q) for name, q in inverses.items()}
    for name, (group, _) in covariances.items():
        if group is None:
            raise OptionError(
                f"cov=: no term takes the matrix {name!r}; write propto(0 + {name} | one, K) for a covariance "
                f"proportional to it, where `one` is a column of one level, or (1 | {name}) for levels that are "
                f"related by it"
            )
    for name, (group, _) in precisions.items():
        if group is None:
            raise OptionError(f"precision=: no term groups by {name!r}; it belongs to terms such as (1 | {name})")
    return _by_group(covariances), _by_group(precisions)


def _by_group(named: Mapping[str, tuple[str | None, Any]]) -> dict[str, Any]:
    return {group: matrix for group, matrix in named.values() if group is not None}


def _offset_name(formula: Formula, given: Any) -> str:
    """Return the columns of the offsets of the mean."""
    return " + ".join((*formula.offsets, *filter(None, [_named(given)])))


def _named(value: Any) -> str | None:
    return value if isinstance(value, str) else None if value is None else ""


#: What `fit` calls them.
ARGUMENTS = {"weights": "precision_weights", "frequencies": "frequency_weights", "also": "response"}


def _sides(table: Table, **given: Any) -> dict[str, Column | None]:
    return {what: side_column(ARGUMENTS.get(what, what), value, table) for what, value in given.items()}


def _chances(randomised: Mapping[str, Any] | None, table: Table) -> tuple[str, dict[str, Any]]:
    """Return the design of a randomised response and its probabilities as columns or arrays.

    A number stands for every row. Where rows have designs of their own they become c and d of the design "direct".
    """
    if randomised is None:
        return "", {}
    given = {name: v for name, v in randomised.items() if name in PROBABILITIES}
    given = {name: np.full(table.n, float(v)) if isinstance(v, Real) else v for name, v in given.items()}
    design = randomised.get("design", DEFAULT)
    if isinstance(design, str) and design_named(design) is not None:
        return design, given
    if isinstance(design, str) and design not in table.names:
        raise unknown_design(design)
    column = table.column(design) if isinstance(design, str) else side_array("randomised_response", design, table.n)
    found = categories_of(column, "randomised_response: design")
    labels = [*map(str, found.levels), None]
    numbers = {what: c for what, c in _sides(table, **given).items() if c is not None and c.x is not None}
    values = {what: np.asarray(c.x, np.float64) for what, c in numbers.items()}
    c, d = chances_by_row([labels[code] for code in found.codes.tolist()], values)
    return "direct", {"c": c, "d": d}


def _resolved_part(part: Part, mean: Formula, table: Table, env: Mapping[str, Any]) -> Part:
    if part.formula is None:
        return part
    found = _resolved(part.formula, table, env, () if mean.lhs is None else mean.lhs.names)
    return part if found is part.formula else replace(part, formula=found)


def _resolved(formula: str | Formula, table: Table, env: Mapping[str, Any], response: tuple[str, ...] = ()) -> Formula:
    if isinstance(formula, str):
        formula = parse(formula, env)
    elif not isinstance(formula, Formula):
        raise ArgumentError(f"a formula is text such as 'y ~ x + (1 | g)', not {type(formula).__name__}")
    if formula.dot:
        from ranef.formula.grammar import read

        formula = read(formula.text, frozenset(env), tuple(name for name in table.names if name not in response))
    return formula


@dataclass(frozen=True, slots=True)
class _Asked:
    """What of a design is known before the other linear predictors are: the mean's columns, the terms of all."""

    formula: Formula
    fixed: tuple[Block, ...]
    terms: tuple[GroupTerm, ...]
    sides: Mapping[str, Column | None]
    outcome: Outcome
    offsets: str


@dataclass
class _Frame:
    """The work of `build`: values of all factors, one mask, then variables on the rows used."""

    evaluator: Evaluator
    formulas: tuple[Formula, ...]
    known: Mapping[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    rows: Array | None = None
    dropped: dict[str, int] = field(default_factory=dict)
    given: dict[str, Coding] = field(default_factory=dict)
    columns: Columns = field(default_factory=Columns)
    factors: dict[str, FactorState] = field(default_factory=dict)
    used: dict[str, tuple[Array, Levels, tuple[Any, ...]]] = field(default_factory=dict)
    design_name: str = ""
    related: tuple[Mapping[str, Any], Mapping[str, Any]] = field(default_factory=lambda: ({}, {}))

    @property
    def all_factors(self) -> list[Factor]:
        """Every factor of every formula."""
        return [factor for formula in self.formulas for factor in formula.factors]

    @property
    def n(self) -> int:
        """Rows used."""
        return self.evaluator.table.n if self.rows is None else len(self.rows)

    # ------------------------------------------------------------ the mask

    def mask(self, side: Sequence[Column], missing: str, counts: Column | None = None) -> None:
        """Evaluate every factor, and find the rows where nothing is missing; rows that stand for none go with them."""
        table = self.evaluator.table
        if table.n == 0:
            raise DataError("the data have no rows")
        masks: dict[str, Array] = {}
        for factor in self.all_factors:
            if factor.label not in self.values:
                self.values[factor.label] = value = self.evaluator(factor)
                if isinstance(value, Column) and value.name == factor.column:
                    _collect(masks, (value,))
                    continue
                _collect(masks, self.evaluator.needs(factor))
                if not isinstance(value, Column):
                    _collect_value(masks, factor.label, value)
        _collect(masks, side)
        if masks and missing == "raise":
            gone = np.logical_or.reduce(list(masks.values()))
            counted = {name: int(mask.sum()) for name, mask in masks.items()}
            raise DataError(f"missing values in {_dropped_text(counted)}; first in {rows_of(gone)}")
        if counts is not None and counts.x is not None and (none := counts.x == 0).any():
            masks[counts.name + NO_WEIGHT] = none
        if not masks:
            return
        gone = np.logical_or.reduce(list(masks.values()))
        self.dropped = {name: int(mask.sum()) for name, mask in masks.items()}
        self.rows = np.flatnonzero(~gone)
        if not len(self.rows):
            raise DataError(f"no row is left: all have {why_dropped(self.dropped)}, {_dropped_text(self.dropped)}")

    def keep(self, x: Array) -> Array:
        return x if self.rows is None else x[self.rows]

    # ------------------------------------------------------------ variables

    def contrasts(self, contrasts: Mapping[str, Any]) -> None:
        """Check the names of `contrasts=` and read their values."""
        if not isinstance(contrasts, Mapping):
            raise ArgumentError("contrasts is a dict: {'recipe': 'sum'}")
        for key, value in contrasts.items():
            hits = [
                f for f in self.all_factors if key in (f.label, f.column) or (f.column is None and f.names == (key,))
            ]
            categorical = [f for f in hits if self.is_factor(f.label)]
            if not hits:
                raise unknown_column(str(key), [f.bare for f in self.all_factors], "factor")
            if not categorical:
                raise DataError(
                    f"contrasts are given for {key!r}, which is numeric; write factor({key}) in the formula"
                )
            for f in categorical:
                self.given[f.label] = read_coding(by_levels(value, self.level_use(f.label)[1], str(key)), str(key))

    def is_factor(self, label: str) -> bool:
        value = self.values[label]
        if isinstance(value, Column):
            return value.codes is not None or (value.x is not None and value.x.dtype.kind == "b")
        return isinstance(value, Categories) or (isinstance(value, np.ndarray) and value.dtype.kind == "b")

    def level_use(self, label: str) -> tuple[Array, Levels, tuple[Any, ...]]:
        """Codes on the rows used, the levels that occur there, and those that do not."""
        if label not in self.used:
            value = self.values[label]
            complete = self.rows is None and getattr(value, "complete", False)
            value = value if complete else categories_of(value, label)
            unchanged = value.codes, value.levels, ()
            self.used[label] = unchanged if complete else drop_unused(self.keep(value.codes), value.levels)
        return self.used[label]

    def variable(self, factor: Factor) -> None:
        label = factor.label
        if label in self.columns.variables:
            return
        if label not in self.values:  # a factor that a structure made of numbers, which the mask has seen
            self.values[label] = self.evaluator(factor)
        value = self.values[label]
        if self.is_factor(label):
            not_a_time(value, label)
            codes, levels, unused = self.level_use(label)
            not_spoilt(value, levels, len(codes))
            coding = self.given.get(label, default_coding(value))
            self.factors[label] = FactorState(levels, unused, coding)
            self.columns.variables[label] = Coded(codes, levels, coding)
        else:
            self.columns.variables[label] = number_of(value, label, self.keep)

    def plans(self, terms: Sequence[Any]) -> tuple[TermPlan, ...]:
        for term in terms:
            for factor in term.factors:
                self.variable(factor)
        codings = full_codings(terms, set(self.factors))
        return tuple(TermPlan(t.factors, full) for t, full in zip(terms, codings, strict=True))

    def without_intercept(self, terms: Sequence[Term]) -> tuple[TermPlan, ...]:
        """Thresholds are intercepts: the factors are coded as beside one, also where the formula says `0 + f`."""
        beside = terms if INTERCEPT in terms else (INTERCEPT, *terms)
        return tuple(plan for plan in self.plans(beside) if plan.factors)

    def bar_plan(self, bar: Bar, component: int = 0) -> tuple[BarPlan, GroupTerm]:
        columns = by_level(bar, self.is_number, self.is_shuffled)
        plans = self.plans(columns.terms)
        if bar.structure in SERIAL:
            self.check_times(columns)
        blocks = blocks_of(plans, self.columns)
        check_names(blocks)
        names = tuple(name for block in blocks for name in block.names)
        levels_of = {label: state.levels for label, state in self.factors.items()}
        place = place_of(columns, levels_of, self.known, len(names))
        uses = [self.level_use(f.label) for f in bar.factors]
        parts = tuple(levels for _, levels, _ in uses)
        codes, levels, keys = uses[0][0], parts[0], None
        if len(uses) > 1:
            codes, levels, keys = combine([codes for codes, _, _ in uses], parts)
        relation = self.relation(bar, levels, keys is None)
        if relation is not None:
            if bar.structure not in PLAIN:
                raise NotAvailableError(
                    f"{bar}: levels that are related (cov= or precision= for {bar.label!r}) go with plain terms, "
                    f"(x | {bar.label}); {bar.structure}() needs independent ones"
                )
            levels = relation[1]
            parts = (levels,) if keys is None else parts
        columns_of = list(levels_of.get(columns.terms[0].factors[0].label, ())) if columns.terms[0].factors else []
        points = open_points(columns, place, columns_of)
        plan = BarPlan(bar, names, plans, levels, parts, keys, component, points=points, nu=place.nu)
        term = GroupTerm(
            bar.label,
            names,
            bar.structure,
            codes,
            levels,
            blocks,
            bar.args,
            component,
            place.points,
            place.matrix,
            place.rank,
            place.nu,
            relation=None if relation is None else relation[0],
        )
        return plan, term

    def bars(self, formula: Formula, parts: Sequence[Part]) -> tuple[tuple[BarPlan, GroupTerm], ...]:
        """Return the random-effects terms of all formulas; those with one label are one term."""
        owners = (formula, *(part.formula for part in parts))
        written = [(bar, at) for at, f in enumerate(owners) if f is not None for bar in f.bars]
        names = ("mean", *(part.name for part in parts))
        return tuple(joined([self.bar_plan(*one) for one in same], names) for same in by_name(written))

    def relation(self, bar: Bar, levels: Levels, grows: bool) -> tuple[Any, Levels] | None:
        """Return the known relationship of the levels of a term and all levels, or None."""
        if not any(self.related):
            return None
        from ranef.frame.relations import related

        return related(bar.label, levels, *self.related, grows=grows)

    def is_number(self, factor: Factor) -> bool:
        """Tell whether a factor of a bar is one column of numbers."""
        value = self.values[factor.label]
        return not self.is_factor(factor.label) and not (isinstance(value, Matrix) and len(value.columns) > 1)

    def is_shuffled(self, factor: Factor) -> bool:
        """Tell whether a factor has text labels in the order of the alphabet that is not that of their numbers."""
        if not self.is_factor(factor.label) or getattr(self.values[factor.label], "ordered", False):
            return False
        labels = self.level_use(factor.label)[1].tolist()
        order = number_order(labels)
        return order is not None and order != sorted(order) and labels == sorted(labels)

    def check_times(self, bar: Bar) -> None:
        """Refuse times that are not equally spaced: the one factor of a bar, and any ordered one."""
        alone = len(bar.terms) == 1 and bar.terms[0].degree == 1
        for factor in (f for term in bar.terms for f in term.factors if f.label in self.factors):
            value = self.values[factor.label]
            ordered = getattr(value, "ordered", False)
            if alone or ordered:
                declared, unused = categories_of(value, factor.label).levels, self.factors[factor.label].unused
                check_steps(bar, declared, unused, ordered=ordered)

    def planned(self, part: Part) -> tuple[TermPlan, ...]:
        """Return the terms of a part, not counted yet."""
        if part.formula is None:
            return ()
        terms = part.formula.fixed
        return self.plans(terms) if part.intercept else self.without_intercept(terms)

    def components(
        self, parts: Sequence[Part], plans_of: Sequence[Sequence[TermPlan]], asked: _Asked
    ) -> tuple[list[Part], tuple[Component, ...]]:
        """Return the parts with their terms counted, and their columns."""
        if any(part.nothing is not None for part in parts):
            parts = with_little(parts, self.design(asked))
        made = [self.component(part, plans) for part, plans in zip(parts, plans_of, strict=True)]
        return [part for part, _ in made], tuple(component for _, component in made)

    def component(self, part: Part, plans: Sequence[TermPlan]) -> tuple[Part, Component]:
        if part.formula is None:
            return part, Component(part.name, (), np.full(self.n, part.constant, np.float64))
        fixed, blocks = counted(plans, self.columns)
        return replace(part, fixed=fixed), Component(part.name, blocks, self.offsets(part.formula, None))

    # ------------------------------------------------------------ the result

    def design(self, asked: _Asked, others: tuple[Component, ...] = (), sampling: Sampling | None = None) -> Design:
        table, formula, sides = self.evaluator.table, asked.formula, asked.sides
        found = self.response(formula, sides["trials"], asked.outcome)
        return Design(
            self.n,
            formula.response,
            None if found is None else found.y,
            self.weights(sides["weights"]) if found is None or found.precision is None else found.precision,
            self.offsets(formula, sides["offset"]),
            asked.fixed,
            asked.terms,
            self.rows,
            table.n,
            self.dropped,
            table.kind,
            others,
            trials=self.sizes(sides["trials"]) if found is None else found.trials,
            categories=() if found is None else found.categories,
            absent=() if found is None else found.absent,
            frequencies=self.weights(sides["frequencies"], "frequencies"),
            censor=None if found is None else found.censor,
            upper=None if found is None else found.upper,
            sampling=sampling,
            randomised=self.randomised(sides),
            bounds=None if found is None else found.bounds,
            offset_name=asked.offsets,
        )

    def randomised(self, sides: Mapping[str, Column | None]) -> tuple[Array, Array] | None:
        """Return c and d of randomised responses on the rows used."""
        given = {name: c.x for name in PROBABILITIES if (c := sides.get(name)) is not None and c.x is not None}
        if not given:
            return None
        kept = {name: np.asarray(self.keep(x), np.float64) for name, x in given.items()}
        return chances_of(self.design_name, kept)

    def response(self, formula: Formula, trials: Column | None, outcome: Outcome) -> Response | None:
        if formula.lhs is None:
            return None
        sizes = self.sizes(trials)
        value = self.values[formula.lhs.label]
        return read_response(Given(value, formula.response or "", outcome, self.keep, self.rows, sizes))

    def sizes(self, trials: Column | None) -> Array | None:
        return None if trials is None or trials.x is None else np.ascontiguousarray(self.keep(trials.x), np.float64)

    def offsets(self, formula: Formula, given: Column | None) -> Array | None:
        values = [*(self.values[f.label] for f in formula.offset_factors), *([] if given is None else [given])]
        return total_of([number_of(value, "offset", self.keep) for value in values])

    def sampling(self, given: Mapping[str, Column | None], scaling: str | None, labels: Sequence[str]) -> Sampling:
        values = {name: self.weights(column) for name, column in given.items()}
        rows = values.pop("row", None)
        found = {group_named(name, labels) or name: value for name, value in values.items() if value is not None}
        return Sampling(rows, found, scaling)

    def weights(self, column: Column | None, what: str = "weights") -> Array | None:
        if column is None or column.x is None:
            return None
        bad = ~(column.x > 0) if column.missing is None else ~((column.x > 0) | column.missing)
        if column.name + NO_WEIGHT in self.dropped:
            bad &= column.x != 0
        if bad.any():
            given = ARGUMENTS.get(what, what)
            named = "" if column.name == given else f" {column.name!r}"
            raise DataError(
                f"{given}{named} must be positive; not so in {rows_of(bad)}. Leave such rows out of the data"
            )
        return np.ascontiguousarray(self.keep(column.x), np.float64)


def _collect(masks: dict[str, Array], columns: Iterable[Column]) -> None:
    for column in columns:
        if column.missing is not None and column.missing.any():
            masks.setdefault(column.name, column.missing)


def _collect_value(masks: dict[str, Array], label: str, value: Any) -> None:
    """Rows where a call gives no value although its columns have one; an infinity is an error."""
    known = np.logical_or.reduce(list(masks.values())) if masks else np.False_
    gone: Array | None = None
    if isinstance(value, Truncated):
        gone = np.isnan(value.least) | np.isnan(value.most)
        value = value.y
    if isinstance(value, Categories):
        gone = value.codes < 0
    if isinstance(value, Censored):
        value = value.y if value.upper is None else Matrix((value.y, np.where(np.isinf(value.upper), 0, value.upper)))
    if isinstance(value, Measured):
        value = Matrix((value.y, value.sd))
    for x in value.columns if isinstance(value, Matrix) else [value] if isinstance(value, np.ndarray) else []:
        if any_nonfinite(x):
            check_infinite(label, np.where(known, 0.0, x))
            gone = np.isnan(x) if gone is None else gone | np.isnan(x)
    if gone is not None and (gone & ~known).any():
        masks[label] = gone


def _dropped_text(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{name!r} ({count} row{'s' if count > 1 else ''})" for name, count in dropped.items())
