"""Models a step away: with a term less or more, fitted to the same rows by the same criterion."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ranef.call import NOMINAL, build_call, make_call
from ranef.errors import ArgumentError, NotAvailableError, OptionError, UnknownParameterError
from ranef.formula import INTERCEPT, Formula, Term, parse
from ranef.formula.groups import group_named
from ranef.formula.terms import retext
from ranef.frame.structures import between_levels
from ranef.frame.table import narwhals_frame
from ranef.inference.comparable import rows_of
from ranef.inference.noted import Note
from ranef.inference.resampling import whole_counts
from ranef.model import Fit, fit

if TYPE_CHECKING:
    from ranef.formula import Bar

T = TypeVar("T")
BY_ROW = (
    "offset", "precision_weights", "frequency_weights", "trials", "sampling_weights", "randomised_response",
)  # fmt: skip


def formula_of(m: Fit, component: str) -> Formula:
    """Return the formula of a component.

    Raises
    ------
    OptionError
        If the model has no such component, or it is held at a constant.
    """
    if component == "mean":
        return m.formula
    found = {p.name: p.formula for p in m.spec.parts if p.formula is not None}
    if component not in found and component == "dispersion" and m.task.linear:
        return parse("~ 1")
    if component not in found:
        known = ", ".join(map(repr, ("mean", *found)))
        raise OptionError(f"component={component!r} has no formula in this model; known: {known}")
    return found[component]


def with_formula(m: Fit, component: str, formula: Formula) -> Fit:
    """Fit the model again with another formula of a component, to the data and rows as they are.

    By the criterion of the fit, whatever would be the default of the other model.
    """
    control = replace(m.call.control, start=None)  # start values are of another number of parameters
    arguments: dict[str, Any] = {**m.call.arguments, "control": control, "method": m.method}
    main = retext(formula) if component == "mean" else m.formula
    if not main.bars:
        arguments["quadrature"] = 1  # nothing of the mean is left to integrate over
    arguments["contrasts"] = used_contrasts(m, main)
    arguments |= _matrices(m, component, formula)
    if component != "mean":
        arguments[component] = retext(formula) if _says_something(m, component, formula) else None
    try:
        return fit(main, data_of(m), **arguments)
    except UnknownParameterError as error:
        raise UnknownParameterError(
            f"{error.argument}= names {error.name!r}, which goes with the term that is left out: what is held, tied or "
            f"has a prior cannot be tested against its absence; compare fits in which {error.argument}= says what you "
            f"mean, rf.anova(m0, m1)",
            error.argument,
            error.name,
        ) from error


def _says_something(m: Fit, component: str, formula: Formula) -> bool:
    """Whether a formula may be given: components of an ordinal model have no constant, and without columns are none."""
    constant = component not in (NOMINAL, "scale") or not m.distribution.entry.ordinal
    return constant or bool(formula.bars) or any(t.factors for t in formula.fixed)


def used_contrasts(m: Fit, formula: Formula) -> Any:
    """Return the contrasts of factors that are still in the model when the mean has another formula."""
    contrasts = m.call.contrasts
    if not isinstance(contrasts, Mapping) or formula.dot:
        return contrasts
    formulas = [formula, *(part.formula for part in m.call.parts if part.formula is not None)]
    known = {name for each in formulas for f in each.factors for name in (f.label, f.bare, *f.names)}
    return {name: value for name, value in contrasts.items() if name in known}


def check_matrices(m: Fit, formula: Formula) -> None:
    """Refuse to relate the levels of groups by a matrix that belonged to a propto() which is in the mean no more.

    Raises
    ------
    ArgumentError
    """
    bars = [bar for one in (formula, *_other_formulas(m, "mean")) for bar in one.bars]
    labels = {bar.label for bar in bars}
    for name in between_levels(m.call.cov, m.call.env, bars):
        if name not in m.call.between_levels and (group := group_named(name, labels)) is not None:
            raise ArgumentError(
                f"update: the matrix {name!r} of cov= belonged to a propto() or equalto() that is gone; give "
                f"cov={{{name!r}: K}} again to relate the levels of {group!r} by it, or cov=None"
            )


def _other_formulas(m: Fit, component: str) -> list[Formula]:
    names = ("mean", *(part.name for part in m.spec.parts if part.formula is not None))
    return [formula_of(m, name) for name in names if name != component]


def _matrices(m: Fit, component: str, formula: Formula) -> dict[str, Any]:
    """Return `cov` and `precision` of the terms that are left where a component has another formula.

    The matrix of a propto() that left the model goes with it: it does not pass to the groups of the same name.
    """
    bars = [bar for one in (formula, *_other_formulas(m, component)) for bar in one.bars]
    labels = {bar.label for bar in bars}
    before, now = m.call.between_levels, between_levels(m.call.cov, m.call.env, bars)
    gone = {name for name in now if name not in before or group_named(name, labels) is None}
    cov = {name: k for name, k in (m.call.cov or {}).items() if name not in gone}
    precision = {name: q for name, q in (m.call.precision or {}).items() if group_named(name, labels) is not None}
    return {"cov": cov or None, "precision": precision or None}


def without(formula: Formula, term: Term) -> Formula:
    """Return a formula without one of its fixed terms."""
    return replace(formula, fixed=tuple(t for t in formula.fixed if t != term))


def with_term(formula: Formula, term: Term) -> Formula:
    """Return a formula with one more fixed term."""
    return replace(formula, fixed=tuple(sorted((*formula.fixed, term), key=lambda t: t.degree)))


def with_bars(formula: Formula, old: Bar, new: Bar | None) -> Formula:
    """Return a formula with a random-effects term replaced, or taken out."""
    bars = tuple(x for b in formula.bars if (x := new if b is old else b) is not None)
    return replace(formula, bars=tuple(dict.fromkeys(bars)))


def fitted_without(steps: Sequence[T], smaller: Callable[[T], Fit]) -> tuple[list[tuple[T, Fit]], list[Note]]:
    """Return the smaller models that there are, and a note on each whose parameters `fixed=` or `equal=` names.

    Raises
    ------
    UnknownParameterError
        If there is none.
    """
    out: list[tuple[T, Fit]] = []
    notes: list[Note] = []
    for step in steps:
        try:
            out.append((step, smaller(step)))
        except UnknownParameterError as error:
            if not out and len(notes) == len(steps) - 1:
                raise
            text = f"{getattr(step, 'label', step)} is not in the table: {error.argument}= names {error.name!r}"
            notes.append(Note("held", text))
    return out, notes


# ---- marginality -----------------------------------------------------------------------------------------------------


def droppable(formula: Formula) -> list[Term]:
    """Terms that no other term contains (Nelder 1977): those that may go without changing what others mean."""
    return [t for t in formula.fixed if t != INTERCEPT and not any(t.key < other.key for other in formula.fixed)]


def addable(formula: Formula, scope: Iterable[Term]) -> list[Term]:
    """Terms of the scope that are not in the formula, and whose margins (as far as the scope has them) are."""
    wanted = [t for t in scope if t not in formula.fixed]
    known = [*formula.fixed, *wanted]
    return [t for t in wanted if not any(o.factors and o.key < t.key and o not in formula.fixed for o in known)]


def terms_named(formula: Formula, names: Any, what: str) -> list[Term]:
    """Return the fixed terms of those labels.

    Raises
    ------
    OptionError
        If a label names no term that may be dropped.
    """
    possible = {t.label: t for t in droppable(formula)}
    if not isinstance(names, str) and not (isinstance(names, Sequence) and all(isinstance(x, str) for x in names)):
        raise ArgumentError(f"{what}: scope={names!r} must be a label of a term or a list of labels")
    asked = [names] if isinstance(names, str) else list(names)
    for name in asked:
        if name not in possible:
            raise OptionError(
                f"{what}: {name!r} cannot be dropped alone; terms that can, by marginality: {', '.join(possible)}"
            )
    return [possible[name] for name in asked]


# ---- rows ------------------------------------------------------------------------------------------------------------


def data_of(m: Fit) -> Any:
    """Return the data of a fit.

    Raises
    ------
    NotAvailableError
        If the fit is slim.
    """
    if m.data is None:
        raise NotAvailableError("a slim fit keeps no data, so other models cannot be fitted to them")
    return m.data


def on_own_rows(m: Fit) -> Fit:
    """Return the fit with the rows that it does not use taken out of its data: submodels then use the same rows."""
    return m if m.layout.n == m.layout.n_input else on_rows(m, rows_of(m))


def on_rows(m: Fit, rows: Any) -> Fit:
    """Fit the model to some of the rows given."""
    arguments = {name: _taken(value, rows, m.layout.n_input, name) for name, value in m.call.arguments.items()}
    return fit(m.formula, taken(data_of(m), rows), **arguments)


def on_repeated_rows(m: Fit, what: str) -> Fit:
    """Fit the model to data with a row for each that frequency weights count; the fit where they count nothing.

    Beside `resampling.repeated`, which needs no data, a fit that can be updated.
    """
    counts = whole_counts(m, what)
    if counts is None:
        return m
    rows, n = np.repeat(rows_of(m), counts), m.layout.n_input
    given = {**m.call.arguments, "frequency_weights": None, "method": m.method}
    return fit(m.formula, taken(data_of(m), rows), **{k: _taken(v, rows, n, k) for k, v in given.items()})


def taken(data: Any, rows: Any) -> Any:
    """Return some rows of a frame or of a dict of columns."""
    if isinstance(data, Mapping):
        return {name: _cut(value, rows) for name, value in data.items()}
    frame = narwhals_frame(data)
    return frame[np.asarray(rows).tolist()].to_native()


def _taken(value: Any, rows: Any, n: int, name: str) -> Any:
    if name in BY_ROW and isinstance(value, Mapping):
        return {key: _taken(v, rows, n, name) for key, v in value.items()}
    if name not in BY_ROW or value is None or isinstance(value, str) or np.ndim(value) == 0 or len(value) != n:
        return value
    return _cut(value, rows)


def _cut(value: Any, rows: Any) -> Any:
    if np.ndim(value) == 0:
        return value
    if hasattr(value, "iloc"):
        return value.iloc[rows]
    return value[rows] if isinstance(value, np.ndarray) else np.asarray(value)[rows]


def rows_with(m: Fit, formula: Formula) -> Any:
    """Return the rows that are complete for another formula of the mean, without fitting it."""
    call = make_call(retext(formula), **m.call.arguments)
    _, design = build_call(call, data_of(m))
    return np.arange(design.n) if design.rows is None else np.asarray(design.rows)
