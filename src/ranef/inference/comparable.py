"""Which fits may be compared: those of one response on the same rows, by the same criterion.

A likelihood is a density of the data: two are comparable only if the data are the same (rows, values, scale). REML
criteria are densities of residual contrasts: they are comparable only if the fixed effects are the same, column by
column (Verbeke & Molenberghs 2000).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines.plan import make_plan
from ranef.errors import ArgumentError, DataError, NotAvailableError
from ranef.frame import Indicators
from ranef.inference.noted import Note
from ranef.model import Fit, design_of

if TYPE_CHECKING:
    from ranef.frame import Block, Design


def fits_of(given: Sequence[Any], what: str) -> list[Fit]:
    """Return the fits among positional arguments; one sequence of fits counts as several.

    Raises
    ------
    ArgumentError
        If something else than fits was given, or none.
    """
    found = list(given[0]) if len(given) == 1 and isinstance(given[0], (list, tuple)) else list(given)
    wrong = next((x for x in found if not isinstance(x, Fit)), None)
    if wrong is not None:
        raise ArgumentError(f"{what} takes fits, got {type(wrong).__name__}")
    if not found:
        raise ArgumentError(f"{what} takes one fit or more, got none")
    return found


def text_of(m: Fit) -> str:
    """Return a model in one line: its formula, those of other components where they say something, values and ties."""
    said = [f"{p.name} {p.formula}" for p in m.spec.parts if p.formula is not None and not p.formula.is_constant]
    zeros = [f"{p.name} {p.formula}" for p in m.spec.parts if p.name == "zero_inflation" and p.formula is not None]
    held = [f"{name} = {value:g}" for name, value in m.call.wanted.items()]
    tied = [" = ".join(group) for group in m.call.equal or ()]
    return "; ".join([str(m.formula), *dict.fromkeys([*said, *zeros]), *held, *tied])


def names_of_models(fits: Sequence[Fit]) -> list[str]:
    """Return a line for each model, with its family, link and arrangement of thresholds where they differ."""
    texts = [text_of(m) for m in fits]
    for of in (lambda m: m.family, lambda m: f"link {m.link}", lambda m: f"threshold {m.distribution.threshold}"):
        values = [of(m) for m in fits]
        if len(set(values)) > 1:
            texts = [f"{text}; {value}" for text, value in zip(texts, values, strict=True)]
    return texts


def check_likelihoods(fits: Sequence[Fit], what: str) -> None:
    """Raise if a fit has no likelihood that could be compared: quasi-likelihood, or the pseudo-likelihood of a survey.

    Raises
    ------
    NotAvailableError
    """
    if any(m.method == "pql" for m in fits):
        raise NotAvailableError(
            f"{what}: a fit with method='pql' has no likelihood to compare; use Wald tests, rf.anova(m) of one fit, or "
            f"fit with method='ml'"
        )
    if any(m.call.sampling_weights is not None for m in fits):
        raise NotAvailableError(
            f"{what}: a fit with sampling_weights= maximises a pseudo-likelihood, whose ratios and criteria have not "
            f"the laws of a likelihood's; use Wald tests, rf.anova(m) of one fit, whose standard errors are robust"
        )


def check_maximised(fits: Sequence[Fit], what: str) -> None:
    """Raise if ratios of the likelihoods of some fits are no test: there is none, or it is not at its maximum.

    Raises
    ------
    NotAvailableError
    """
    check_likelihoods(fits, what)
    check_no_priors(fits, what)


def check_no_priors(fits: Sequence[Fit], what: str) -> None:
    """Raise if a fit has priors or a penalty: its estimates do not maximise the likelihood that is compared.

    Raises
    ------
    NotAvailableError
    """
    if any(m.call.has_priors or m.call.penalty for m in fits):
        raise NotAvailableError(
            f"{what}: a fit with prior= or penalty= does not maximise its likelihood, so the likelihood ratio is no "
            f"test; compare m.update(prior=None, penalty=None), or information criteria"
        )


# ---- the data --------------------------------------------------------------------------------------------------------


def check_fits(fits: Sequence[object], what: str) -> None:
    """Raise unless all are fits.

    Raises
    ------
    ArgumentError
    """
    for m in fits:
        if not isinstance(m, Fit):
            raise ArgumentError(f"{what}: it compares fits, what rf.fit(...) returns, and one is a {type(m).__name__}")


def check_same_data(fits: Sequence[Fit], what: str) -> None:
    """Raise unless every fit models the same values of the same response.

    Raises
    ------
    DataError
        The rows, the response, trials, frequency weights or censoring differ; says which.
    NotAvailableError
        A fit is slim: it keeps no rows to compare.
    """
    check_fits(fits, what)
    designs = [design_of(m, what) for m in fits]
    for m, design in zip(fits[1:], designs[1:], strict=True):
        _check_rows(fits[0], m, what)
        _check_response(designs[0], design, what)
        for name in ("trials", "frequencies", "censor", "upper", "bounds"):
            if not same(getattr(designs[0], name), getattr(design, name)):
                raise DataError(f"{what}: the models have different {name}: their likelihoods are not comparable")


def _check_rows(a: Fit, b: Fit, what: str) -> None:
    first, second = rows_of(a), rows_of(b)
    other_frame = a.layout.n_input != b.layout.n_input
    if other_frame and same(design_of(a, "rows").y, design_of(b, "rows").y):
        return  # rows that miss a value were left out of one of the frames: what is modelled is compared elsewhere
    if other_frame or a.nobs != b.nobs:
        gone = {**dict(a.layout.dropped), **dict(b.layout.dropped)}
        why = f"; values are missing in {', '.join(gone)}" if gone else ""
        raise DataError(
            f"{what}: the models are not fitted to the same rows: {a.nobs} of {a.layout.n_input} and {b.nobs} of "
            f"{b.layout.n_input}{why}; fit all of them to the rows that are complete in every variable"
        )
    if not np.array_equal(first, second):
        other = np.setxor1d(first, second)
        raise DataError(
            f"{what}: the models are not fitted to the same rows: {len(other)} rows are used by one and not by the "
            f"other (the first: {other[:5].tolist()}); fit all of them to the rows complete in every variable"
        )


def rows_of(m: Fit) -> Any:
    """Return the positions of the rows used."""
    rows = design_of(m, "rows").rows
    return np.arange(m.nobs) if rows is None else np.asarray(rows)


def _check_response(a: Design, b: Design, what: str) -> None:
    if same(a.y, b.y) and a.categories == b.categories:
        return
    if a.response_name != b.response_name:
        raise DataError(
            f"{what}: the responses differ: {a.response_name!r} and {b.response_name!r}; likelihoods of a response and "
            f"of its transform are densities of different variables"
        )
    apart = np.flatnonzero(np.asarray(a.y) != np.asarray(b.y))
    raise DataError(
        f"{what}: the values of {a.response_name!r} differ in {len(apart)} rows (the first: {apart[:5].tolist()})"
    )


def same(a: Any, b: Any) -> bool:
    """Whether two arrays, or their absences, are equal."""
    if a is None or b is None:
        return a is None and b is None
    if isinstance(a, Indicators) or isinstance(b, Indicators):
        return bool(a == b)
    return np.array_equal(a, b)


# ---- the criterion ---------------------------------------------------------------------------------------------------


def same_criterion(fits: Sequence[Fit], refit: bool, what: str) -> tuple[list[Fit], list[Note]]:
    """Return the fits with comparable likelihoods, and what was done for it.

    REML fits stay as they are where all fixed effects are the same, else all are fitted again by maximum likelihood.

    Raises
    ------
    DataError
        If they would have to be fitted again and `refit` is False.
    NotAvailableError
        If they integrate over the random effects by different approximations.
    """
    check_quadrature(fits, what)
    methods = {m.method for m in fits}
    if methods == {"ml"}:
        return list(fits), []
    if methods == {"reml"} and all(same_columns(fits[0], m) for m in fits[1:]):
        text = "REML criteria compared: the fixed effects are the same"
        return list(fits), [Note("reml", text)] if len(fits) > 1 else []
    why = "their fixed effects differ" if methods == {"reml"} else "others are"
    if not refit:
        raise DataError(
            f"{what}: REML likelihoods are not comparable, since {why if methods == {'reml'} else 'some are ML ones'}; "
            f"leave refit=True, or fit with method='ml'"
        )
    count = sum(m.method == "reml" for m in fits)
    text = f"refitted by maximum likelihood: {count} of {len(fits)} models, fitted by REML, because {why}"
    return [by_ml(m) for m in fits], [Note("refitted", text)]


def by_ml(m: Fit) -> Fit:
    """Return the fit by maximum likelihood."""
    return m if m.method == "ml" else m.update(method="ml")


def check_quadrature(fits: Sequence[Fit], what: str) -> None:
    """Raise where likelihoods are approximated differently."""
    nodes = {m.task.quadrature for m in fits if not m.task.linear and m.layout.terms and not _exact(m)}
    if len(nodes) > 1:
        raise NotAvailableError(
            f"{what}: the models integrate with different numbers of nodes (quadrature = "
            f"{', '.join(map(str, sorted(nodes)))}): their likelihoods differ by the approximation; fit with the same"
        )


def _exact(m: Fit) -> bool:
    """Whether the integral over the random effects is exact: gaussian responses that depend on them linearly."""
    return m.distribution.is_gaussian_identity and all(t.component == "mean" for t in m.layout.terms)


def same_columns(a: Fit, b: Fit) -> bool:
    """Whether two models have the same columns among the fixed effects of the mean, held and tied alike."""
    first, second = design_of(a, "fixed effects").fixed, design_of(b, "fixed effects").fixed
    if len(first) != len(second) or bound(a) != bound(b):
        return False
    return all(same_block(x, y) for x, y in zip(first, second, strict=True))


def bound(m: Fit) -> tuple[tuple[int, int], ...]:
    """Return the coefficients of the mean that are held (-1) or tied (to which), by position; empty if all are free."""
    if m.task.wishes is None:
        return ()
    to = make_plan(design_of(m, "fixed effects"), m.task).columns.to[: len(m.layout.fixed)].tolist()
    leader = [j if r < 0 else to.index(r) for j, r in enumerate(to)]
    return tuple((j, -1 if to[j] < 0 else k) for j, k in enumerate(leader) if to[j] < 0 or k != j)


def same_block(a: Block, b: Block) -> bool:
    """Whether two blocks hold the same columns."""
    return len(a.names) == len(b.names) and same(a.x, b.x) and same(a.codes, b.codes) and same(a.contrast, b.contrast)
