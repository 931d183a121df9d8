"""Likelihood-ratio tests of nested fits, with the limit law that belongs to them.

T = 2 (l_large - l_small) is chi-square with as many degrees of freedom as parameters were added only if none of them
lies on the boundary of its space under the null. Variances, zero inflation and overdispersion do: then T is a mixture
of chi-squares (`ranef.inference.chibar`) and the plain p-value is too large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.errors import DataError, OptionError
from ranef.inference.chibar import Mixture, bound, half_and_half, mixture, tail
from ranef.inference.comparable import (
    check_maximised,
    check_same_data,
    fits_of,
    names_of_models,
    same,
    same_criterion,
)
from ranef.inference.information import cone_information
from ranef.inference.nested import SAME_SIZE, Extension, extension
from ranef.inference.noted import Note, NotedTable, distinct, numbers
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.model import Fit

FEW_GROUPS = 42  # from here on a t distribution with as many degrees of freedom is nearly normal
BELOW = 1e-6  # a larger model this much worse than a smaller one has not reached its optimum


@dataclass(frozen=True, slots=True)
class Ratio:
    """A likelihood-ratio test of one model against a larger one.

    Attributes
    ----------
    statistic : float
        2 (l_large - l_small); NaN where the models are not nested.
    df : int
        Parameters added.
    p_value : float
        As if no parameter lay on a boundary.
    p_mixture : float
        With the law `mixture`; NaN where none is known.
    mixture : str
        The law, "" where none is known.
    notes : tuple of Note
    """

    statistic: float
    df: int
    p_value: float
    p_mixture: float
    mixture: str
    notes: tuple[Note, ...]


def compare_models(*fits: Any, refit: bool = True, nested: bool = False, test: str = "lrt") -> NotedTable:
    """Compare nested fits by likelihood ratios.

    Parameters
    ----------
    *fits : Fit
        Two fits or more to the same rows of the same response, in any order; without random effects too.
    refit : bool
        Fit REML fits again by maximum likelihood where their fixed effects differ (the default), rather than refuse.
    nested : bool
        You know that every model is a special case of the next larger one, where that cannot be seen (a compound
        symmetry written as two random intercepts is one of an unstructured covariance): test it by a plain chi-square.
    test : "lrt"
        The only one.

    Returns
    -------
    NotedTable
        One row a model, by number of parameters: `model, npar, aic, bic, loglik, deviance` (-2 loglik), and of the test
        against the row before: `chisq, df, p_value` (plain chi-square), `p_mixture` and `mixture` (the law that holds
        where variances, zero inflation or overdispersion are 0 under the null). `notes` say what was refitted, which
        models are not nested, and where the p-values are doubtful; `to_frame()` gives a data frame.

    Raises
    ------
    DataError
        If the fits are not comparable: other rows, another response or scale, offsets that no column explains.
    NotAvailableError
        If a fit is slim, or likelihoods are approximated differently.

    Examples
    --------
    >>> import ranef as rf
    >>> sleep = rf.datasets.load("sleepstudy")
    >>> m0 = rf.fit("Reaction ~ Days", sleep, method="ml")
    >>> m1 = rf.fit("Reaction ~ Days + (1 | Subject)", sleep, method="ml")
    >>> round(float(rf.anova(m0, m1)["chisq"][1]), 3)
    106.214
    """
    if test != "lrt":
        raise OptionError(f"anova: test={test!r} is unknown for several fits; known: 'lrt'")
    found = fits_of(fits, "anova")
    check_same_data(found, "anova")
    check_maximised(found, "anova")
    found, notes = same_criterion(found, refit, "anova")
    found = sorted(found, key=lambda m: m.npar)
    ratios = [ratio(a, b, nested) for a, b in pairwise(found)]
    remarks = distinct([*notes, *(n for r in ratios for n in r.notes), *_remarks(found)])
    columns = {"model": names_of_models(found), **figures(found), **tests([None, *ratios])}
    return NotedTable(_title(found), columns, remarks, found[0].layout.kind)


def _title(fits: Sequence[Fit]) -> str:
    method = {"reml": "restricted maximum likelihood", "ml": "maximum likelihood"}[fits[0].method]
    return f"Likelihood-ratio tests of {fits[0].layout.response}, models fitted by {method}"


def figures(fits: Sequence[Fit]) -> dict[str, Any]:
    """Return the columns `npar, aic, bic, loglik, deviance`."""
    return {
        "npar": np.array([m.npar for m in fits]),
        "aic": numbers(m.aic for m in fits),
        "bic": numbers(m.bic for m in fits),
        "loglik": numbers(m.loglik for m in fits),
        "deviance": numbers(m.criterion for m in fits),
    }


def tests(ratios: Sequence[Ratio | None]) -> dict[str, Any]:
    """Return the columns `chisq, df, p_value, p_mixture, mixture`, blank for None."""
    return {
        "chisq": numbers(r and r.statistic for r in ratios),
        "df": numbers(None if r is None else r.df for r in ratios),
        "p_value": numbers(r and r.p_value for r in ratios),
        "p_mixture": numbers(r and r.p_mixture for r in ratios),
        "mixture": ["" if r is None else r.mixture for r in ratios],
    }


# ---- one test --------------------------------------------------------------------------------------------------------


def ratio(small: Fit, large: Fit, nested: bool = False) -> Ratio:
    """Test one fit against a larger one; their likelihoods are comparable. `nested`: the caller knows that they are."""
    step = extension(small, large)
    if nested and step.obstacles and step.df > 0:
        step = replace(step, obstacles=(), irregular=("whether the null lies on a boundary cannot be seen",))
    if step.obstacles == (SAME_SIZE,) and abs(small.criterion - large.criterion) < BELOW * max(1.0, small.nobs):
        text = (
            "not tested where the models are the same one, with as many parameters and the same likelihood: what one "
            "has more than the other is a combination of its other terms"
        )
        return Ratio(np.nan, step.df, np.nan, np.nan, "", (Note("same_model", text),))
    if step.obstacles:
        check_offsets(small, large)
        text = (
            f"not tested, since the smaller model is not seen to be nested in the larger: {'; '.join(step.obstacles)}; "
            f"compare such models by rf.vuong or by information criteria"
        )
        return Ratio(np.nan, step.df, np.nan, np.nan, "", (Note("not_nested", text),))
    statistic = small.criterion - large.criterion
    law = law_of(small, large, step)
    notes = tuple(_notes(small, large, step, statistic, law))
    statistic = max(statistic, 0.0)
    p_mixture = np.nan if law is None else law.p_value(statistic)
    return Ratio(statistic, step.df, tail(statistic, step.df), p_mixture, "" if law is None else str(law), notes)


def law_of(small: Fit, large: Fit, step: Extension) -> Mixture | None:
    """Return the limit law of the statistic; None where none is known."""
    count = step.on_boundary
    if step.irregular or step.free < 0:
        return None
    if not count:
        return Mixture(step.df, (1.0,))
    if count == 1:
        return half_and_half(step.free)
    found = None if step.scalars else cone_information(small, large, step.cones)
    if found is None:
        return bound(step.free, count)
    return mixture(found, [(len(c.at), c.kind) for c in step.cones], step.free)


def check_offsets(small: Fit, large: Fit) -> None:
    """Raise where models have different offsets of the mean, which are no part of what is tested."""
    a, b = design_of(small, "anova").offset, design_of(large, "anova").offset
    if not same(a, b):
        names = [" + ".join(m.formula.offsets) or ("an offset" if o is not None else "none") for m, o in
                 ((small, a), (large, b))]  # fmt: skip
        raise DataError(f"anova: the offsets differ ({names[0]}; {names[1]}): give both models the same")


def _notes(small: Fit, large: Fit, step: Extension, statistic: float, law: Mixture | None) -> list[Note]:
    notes = []
    if statistic < -BELOW:
        text = (
            f"{large.formula} has a smaller likelihood (by {-statistic / 2:.3g}) than {small.formula}, which it "
            f"contains: its optimum was not found; see its certificate"
        )
        notes.append(Note("negative", text))
    if step.irregular:
        why = "; ".join(step.irregular)
        notes.append(Note("irregular", f"no limit law is known: {why}; rf.pb_test simulates the null"))
    elif step.on_boundary:
        notes.append(_boundary_note(step, law))
    if small.boundary:
        text = (
            f"{small.formula} is itself on the boundary ({small.boundary[0].text}), which the limit law does not "
            f"foresee; rf.pb_test simulates the null"
        )
        notes.append(Note("null_singular", text))
    few = _few_groups(large)
    if step.coefficients and few:
        other = "F tests with Kenward-Roger or Satterthwaite degrees of freedom, or " if large.task.linear else ""
        text = (
            f"likelihood-ratio tests of fixed effects are anti-conservative with few groups ({few} here): prefer "
            f"{other}rf.pb_test"
        )
        notes.append(Note("few_groups", text))
    return notes


def _boundary_note(step: Extension, law: Mixture | None) -> Note:
    what = [*(["a variance"] if len(step.cones) == 1 and step.cones[0].size == 1 else []), *step.scalars]
    what = what or ["variances"]
    text = (
        f"null on the boundary ({' and '.join(what)} of 0): p_value is conservative, p_mixture has the limit law"
        if law is None or not law.bound
        else f"null on the boundary ({' and '.join(what)} of 0): p_value is conservative; the weights of the limit law "
        f"are not known, p_mixture is an upper bound; rf.pb_test simulates the null"
    )
    return Note("boundary", text)


def _few_groups(m: Fit) -> int:
    counts = [len(t.levels) for t in m.layout.terms if t.component == "mean"]
    smallest = min(counts, default=0)
    return smallest if 0 < smallest < FEW_GROUPS else 0


def _remarks(fits: Sequence[Fit]) -> list[Note]:
    out = []
    for m in fits:
        if not m.converged:
            out.append(Note("not_converged", f"{m.formula}: {m.certificate.outcome.value}"))
        if m.task.quadrature == 0 and m.layout.terms:
            text = f"{m.formula}: quadrature=0 does not maximise the likelihood over the coefficients: ratios are rough"
            out.append(Note("not_maximal", text))
        if m.boundary:
            what = "; ".join(b.text for b in m.boundary)
            text = f"{m.formula}: {what}; its AIC and BIC count what is 0 as parameters"
            out.append(Note("counted_zero", text))
    return out
