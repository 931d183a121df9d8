"""`ranova`: every random-effects term reduced in turn and tested."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ranef.errors import NotAvailableError, OptionError
from ranef.formula import INTERCEPT, Formula
from ranef.inference.comparable import check_maximised
from ranef.inference.likelihood_tests import ratio, tests
from ranef.inference.noted import Note, NotedTable, distinct, numbers
from ranef.inference.submodels import fitted_without, formula_of, on_own_rows, with_bars, with_formula
from ranef.model import check_fit

if TYPE_CHECKING:
    from ranef.formula import Bar
    from ranef.model import Fit

DESIGN = (
    "a grouping that the design of the study made (blocks, plots, subjects) belongs in the model whatever its p-value: "
    "without it its rows count as independent (sacrificial pseudoreplication)"
)


@dataclass(frozen=True, slots=True)
class Reduction:
    """A smaller model: what is taken out, of which component, and its formula."""

    label: str
    component: str
    formula: Formula


def ranova(m: Fit, reduce: bool = True) -> NotedTable:
    """Test each random-effects term: by taking columns out, or the whole of it.

    Parameters
    ----------
    m : Fit
        A fit with its rows; REML fits stay REML fits, since the fixed effects are the same.
    reduce : bool
        Take the columns of a term out one at a time, slopes before the intercept: (x | g) becomes (1 | g), (1 | g)
        nothing (the default). If False every term goes as a whole.

    Returns
    -------
    NotedTable
        Rows "<none>" and the reductions: `term, npar, loglik, aic, chisq, df, p_value` (plain chi-square, as lmerTest
        prints it), `p_mixture, mixture` (the law that holds on the boundary; see `rf.anova`).

    Raises
    ------
    OptionError
        If `reduce` is no truth value.
    NotAvailableError
        If the model has no random effects, or the fit no likelihood.

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("diameter ~ 1 + (1 | plate) + (1 | sample)", rf.datasets.load("Penicillin"))
    >>> [round(float(x), 3) for x in rf.ranova(m)["chisq"][1:]]
    [105.057, 282.395]
    """
    check_fit(m, "ranova")
    if not isinstance(reduce, (bool, np.bool_)):
        raise OptionError(f"ranova: reduce={reduce!r} must be True or False")
    steps = list(reductions(m, reduce))
    if not steps:
        raise NotAvailableError("ranova: the model has no random effects to test")
    check_maximised([m], "ranova")
    base = on_own_rows(m)
    found, held = fitted_without(steps, lambda s: with_formula(base, s.component, s.formula))
    steps, smaller = [s for s, _ in found], [x for _, x in found]
    ratios = [ratio(s, base) for s in smaller]
    fits = [base, *smaller]
    columns = {
        "term": ["<none>", *(s.label for s in steps)],
        "npar": np.array([x.npar for x in fits]),
        "loglik": numbers(x.loglik for x in fits),
        "aic": numbers(x.aic for x in fits),
        **tests([None, *ratios]),
    }
    notes = distinct([*held, *(n for r in ratios for n in r.notes), Note("design", DESIGN)])
    return NotedTable(f"Random-effects terms of {m.formula} reduced one at a time", columns, notes, m.layout.kind)


def reductions(m: Fit, reduce: bool) -> Iterator[Reduction]:
    """Yield the smaller models."""
    for component in ("mean", *(p.name for p in m.spec.parts if p.formula is not None)):
        formula = formula_of(m, component)
        ahead = "" if component == "mean" else f"{component}: "
        for bar in formula.bars:
            for label, smaller in _smaller(bar, reduce):
                changed = with_bars(formula, bar, smaller)
                if component == "mean" or changed.fixed or changed.bars:
                    yield Reduction(ahead + label, component, changed)


def _smaller(bar: Bar, reduce: bool) -> Iterator[tuple[str, Bar | None]]:
    slopes = [t for t in bar.terms if t != INTERCEPT and not any(t.key < other.key for other in bar.terms)]
    if not reduce or not slopes or len(bar.terms) == 1:
        yield str(bar), None
        return
    for slope in slopes:
        yield f"{slope.label} in {bar}", replace(bar, terms=tuple(t for t in bar.terms if t != slope))
