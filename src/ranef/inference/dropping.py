"""`drop1` and `add1`: every model with one fixed term less, or more, that marginality allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.errors import ArgumentError, OptionError
from ranef.formula import Formula, parse
from ranef.inference.comparable import by_ml, check_likelihoods, check_maximised
from ranef.inference.ddf.method import Joint, partial_of, unit_rows
from ranef.inference.dummies import written_out
from ranef.inference.hypotheses import rows_alone
from ranef.inference.likelihood_tests import Ratio, ratio, tests
from ranef.inference.noted import Note, NotedTable, distinct, numbers
from ranef.inference.submodels import (
    addable,
    droppable,
    fitted_without,
    formula_of,
    on_own_rows,
    on_rows,
    rows_with,
    terms_named,
    with_formula,
    with_term,
    without,
)
from ranef.inference.terms import FixedTerm, fixed_terms
from ranef.inference.testing import wald_method
from ranef.inference.wald import f_p_value
from ranef.inference.whole_factor import is_whole, left_out
from ranef.model import check_fit

if TYPE_CHECKING:
    from ranef.formula import Term
    from ranef.inference.ddf import Method
    from ranef.model import Fit

SELECTION = (
    "each test stands for itself: p-values in a model that was reached by dropping or adding terms step by step are "
    "not valid"
)


def drop1(
    m: Fit,
    scope: Any = None,
    *,
    test: str = "lrt",
    ddf: Any = None,
    component: str = "mean",
    vcov: Any = None,
    cluster: Any = None,
) -> NotedTable:
    """Leave out each fixed term in turn, as far as no other term contains it, and test what is lost.

    Parameters
    ----------
    m : Fit
        A fit with its rows. For likelihood ratios a REML fit is fitted again by maximum likelihood, since the fixed
        effects change.
    scope : str or sequence of str, optional
        Labels of the terms to leave out; default: all that marginality allows (Nelder 1977).
    test : "lrt" | "F" | "none"
        Likelihood ratios; Wald F tests of the terms in the model as it is, nothing fitted again; or criteria only.
    ddf : str, optional
        Of F tests: "satterthwaite" (the default of linear models), "kenward-roger" … as in `rf.anova`.
    component : str
        Whose terms: "mean", "dispersion", "zero_inflation" ….
    vcov, cluster : optional
        Of F tests, as in `rf.anova`.

    Returns
    -------
    NotedTable
        Rows "<none>" and the terms: `term, npar, aic, bic, loglik`, and of the test `chisq, df, p_value`, with
        `p_mixture, mixture` as in `rf.anova` of several models; NaN for a term that is a combination of others, whose
        absence changes nothing. With F tests `term, numdf, dendf, statistic, p_value`.

    Raises
    ------
    OptionError
        If `test` or a term of `scope` is not known.
    ArgumentError
        If what belongs to F tests is given without them.
    NotAvailableError
        If likelihoods are asked for and the fit has none, or its rows are gone (`slim`).

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
    >>> round(float(rf.drop1(m)["chisq"][1]), 3)
    23.537
    """
    check_fit(m, "drop1")
    if test not in ("F", "f"):
        _check_test(test, "'lrt', 'F', 'none'")
    formula = formula_of(m, component)
    terms = droppable(formula) if scope is None else terms_named(formula, scope, "drop1")
    if test in ("F", "f"):
        return _wald(m, terms, wald_method(m, ddf, vcov, cluster), component)
    if vcov is not None or cluster is not None or ddf is not None:
        raise ArgumentError("drop1: ddf=, vcov= and cluster= are about Wald tests: give test='F' with them")
    base, notes = _base(m, test, "drop1")
    found, held = fitted_without(
        terms, lambda t: with_formula(base, component, without(formula_of(base, component), t))
    )
    notes += [] if terms else [Note("nothing", "the model has no term that could be left out")]
    terms, smaller, notes = [t for t, _ in found], [x for _, x in found], [*notes, *held]
    ratios = [ratio(s, base) for s in smaller] if test == "lrt" else [None] * len(smaller)
    return _table(_title("left out of", m, component), base, terms, smaller, ratios, notes)


def add1(m: Fit, scope: Any, *, test: str = "lrt", component: str = "mean") -> NotedTable:
    """Add each term of a scope in turn, as far as the model has its margins, and test what is gained.

    Parameters
    ----------
    m : Fit
        A fit with its rows. A REML fit is fitted again by maximum likelihood.
    scope : str, Formula or sequence of str
        A formula, in which `.` stands for the terms of the model (". ~ . + x * z", "~ x + z"), or labels of terms.
    test : "lrt" | "none"
    component : str
        Where they are added: "mean", "dispersion", "zero_inflation" ….

    Returns
    -------
    NotedTable
        As of `drop1`. All models are fitted to the rows that are complete in every variable of the scope.

    Raises
    ------
    OptionError
        If the scope has no term that the model lacks.

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Reaction ~ 1 + (1 | Subject)", rf.datasets.load("sleepstudy"))
    >>> rf.add1(m, "~ Days")["chisq"].round(2)
    array([   nan, 116.46])
    """
    check_fit(m, "add1")
    _check_test(test, "'lrt', 'none'")
    formula = formula_of(m, component)
    upper = _scope(formula, scope)
    terms = addable(formula, upper.fixed)
    if not terms:
        raise OptionError(f"add1: the scope {upper} has no term that the model lacks and whose margins it has")
    base, notes = _base(m, test, "add1")
    base, more = _on_complete_rows(base, terms, component)
    larger = [with_formula(base, component, with_term(formula_of(base, component), t)) for t in terms]
    ratios = [ratio(base, x) for x in larger] if test == "lrt" else [None] * len(larger)
    return _table(_title("added to", m, component), base, terms, larger, ratios, [*notes, *more])


def _check_test(test: str, known: str) -> None:
    if test not in ("lrt", "none"):
        raise OptionError(f"test={test!r} is unknown; known: {known}")


def _title(what: str, m: Fit, component: str) -> str:
    return f"Single terms {what} {m.formula}" if component == "mean" else f"{_title(what, m, 'mean')}: {component}"


def _wald(m: Fit, terms: Sequence[Term], way: Method, component: str) -> NotedTable:
    """Test the coefficients of each term: no other term contains it, so they are its marginal ones."""
    known = {t.key: t for t in fixed_terms(m, component)}
    found = [_of_term(m, way, component, known[t.key]) for t in terms]
    f, q, dendf = (np.array([getattr(x, name) for x in found], float) for name in ("statistic", "numdf", "dendf"))
    table = {"term": [t.label for t in terms], "numdf": q, "dendf": dendf, "statistic": f}
    title = f"{_title('of', m, component)}: F tests ({way.name})"
    notes = (Note("selection", SELECTION),)
    return NotedTable(title, {**table, "p_value": f_p_value(f, q, dendf)}, notes, m.layout.kind)


def _of_term(m: Fit, way: Method, component: str, term: FixedTerm) -> Joint:
    partial = partial_of(m)
    if is_whole(m, way, term):
        return left_out(m, way, term, unit_rows(m, slice(term.columns.start, term.columns.start + 1)))
    lost = partial is not None and partial.fits and m.estimate.dropped
    rows = rows_alone(written_out(m) if lost else m, component, term)
    return way.joint(m, rows, np.zeros(len(rows)), rows)


def _base(m: Fit, test: str, what: str) -> tuple[Fit, list[Note]]:
    """Return the model by maximum likelihood with only the rows that it uses."""
    (check_maximised if test == "lrt" else check_likelihoods)([m], what)
    refitted = [Note("refitted", "refitted by maximum likelihood, because fixed effects change")]
    return on_own_rows(by_ml(m)), refitted if m.method == "reml" else []


def _scope(formula: Formula, scope: Any) -> Formula:
    if isinstance(scope, Formula):
        return scope
    if isinstance(scope, str):
        text = scope if "~" in scope else f"~ . + {scope}"
    elif isinstance(scope, Sequence) and all(isinstance(s, str) for s in scope):
        text = f"~ . + {' + '.join(scope)}"
    else:
        raise ArgumentError(f"add1: scope= takes a formula or labels of terms, not {type(scope).__name__}")
    return formula.update(text) if "." in text else parse(text)


def _on_complete_rows(base: Fit, terms: Sequence[Term], component: str) -> tuple[Fit, list[Note]]:
    """Return the model fitted to the rows that have every added variable."""
    formula = base.formula
    for t in terms if component == "mean" else ():
        formula = with_term(formula, t)
    rows = rows_with(base, formula)
    if len(rows) == base.nobs:
        return base, []
    gone = base.nobs - len(rows)
    text = f"{gone} of {base.nobs} rows left out of every model: they miss a value in a variable of the scope"
    return on_rows(base, rows), [Note("rows_dropped", text)]


def _table(
    title: str,
    base: Fit,
    terms: Sequence[Term],
    others: Sequence[Fit],
    ratios: Sequence[Ratio | None],
    notes: Sequence[Note],
) -> NotedTable:
    fits = [base, *others]
    columns = {
        "term": ["<none>", *(t.label for t in terms)],
        "npar": np.array([x.npar for x in fits]),
        "aic": numbers(x.aic for x in fits),
        "bic": numbers(x.bic for x in fits),
        "loglik": numbers(x.loglik for x in fits),
        **tests([None, *ratios]),
    }
    selection = [Note("selection", SELECTION)] if others else []
    remarks = distinct([*notes, *(n for r in ratios if r is not None for n in r.notes), *selection])
    return NotedTable(title, columns, remarks, base.layout.kind)
