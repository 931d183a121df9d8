"""`compare`: models ranked by an information criterion, with the weight of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines.estimate import Array
from ranef.errors import OptionError, nearest
from ranef.inference.comparable import check_likelihoods, check_same_data, fits_of, names_of_models, same_criterion
from ranef.inference.noted import Note, NotedTable, distinct, numbers

if TYPE_CHECKING:
    from ranef.model import Fit

CRITERIA = ("aic", "aicc", "bic", "qaic", "qaicc")


def compare(*fits: Any, criterion: str = "aicc", chat: float | None = None, refit: bool = True) -> NotedTable:
    """Rank fits by an information criterion; they need not be nested.

    Parameters
    ----------
    *fits : Fit
        Fits of the same values of one response.
    criterion : "aic" | "aicc" | "bic" | "qaic" | "qaicc"
        What ranks them.
    chat : float, optional
        Overdispersion (of the largest model: Pearson's chi-square over its degrees of freedom), for the quasi criteria
        -2 loglik / chat + 2 (npar + 1) (Lebreton et al. 1992).
    refit : bool
        Fit REML fits again by maximum likelihood where their fixed effects differ (the default), rather than refuse.

    Returns
    -------
    NotedTable
        One row a model, the best first: `model, npar, loglik`, the criteria, `delta` to the best, `weight`
        (exp(-delta / 2) over their sum; Akaike's for AIC: Burnham & Anderson 2002, section 2.9).

    Raises
    ------
    DataError
        If the likelihoods are not comparable: other rows, or another response or scale.

    Examples
    --------
    >>> import ranef as rf
    >>> sleep = rf.datasets.load("sleepstudy")
    >>> fits = [rf.fit(f, sleep) for f in ("Reaction ~ Days + (1 | Subject)", "Reaction ~ Days + (Days | Subject)")]
    >>> rf.compare(*fits, criterion="aic")["model"][0]
    'Reaction ~ Days + (Days | Subject)'
    """
    found, notes = comparable(fits, refit, "compare")
    table = scores(found, criterion, chat)
    order = np.argsort(table[criterion], kind="stable")
    delta = table[criterion] - np.min(table[criterion])
    columns = {
        "model": names_of_models(found),
        "npar": np.array([m.npar for m in found]),
        "loglik": numbers(m.loglik for m in found),
        **table,
        "delta": delta,
        "weight": weights(table[criterion]),
    }
    ordered = {name: [v[i] for i in order] if isinstance(v, list) else v[order] for name, v in columns.items()}
    remarks = distinct([*notes, *_remarks(found, criterion)])
    title = f"Models of {found[0].layout.response} by {criterion.upper().replace('AICC', 'AICc')}"
    return NotedTable(title, ordered, remarks, found[0].layout.kind)


def comparable(fits: Sequence[Any], refit: bool, what: str) -> tuple[list[Fit], list[Note]]:
    """Return fits with comparable likelihoods and what was done for it."""
    found = fits_of(fits, what)
    check_same_data(found, what)
    check_likelihoods(found, what)
    return same_criterion(found, refit, what)


def scores(fits: Sequence[Fit], criterion: str, chat: float | None) -> dict[str, Array]:
    """Return the columns of criteria: AIC, AICc, BIC, and the quasi ones if overdispersion is given.

    Raises
    ------
    OptionError
        If the criterion is unknown, or the quasi criteria are asked for without `chat`.
    """
    if criterion not in CRITERIA:
        raise OptionError(f"criterion={criterion!r} is unknown; {nearest(criterion, CRITERIA)}")
    plain = {name: numbers(getattr(m, name) for m in fits) for name in ("aic", "aicc", "bic")}
    if chat is None:
        if criterion.startswith("q"):
            raise OptionError(f"criterion={criterion!r} needs the overdispersion, chat=, of the largest model")
        return plain
    if not isinstance(chat, (int, float, np.number)) or not np.isfinite(chat) or chat <= 0:
        raise OptionError(f"chat={chat!r} must be a positive number")
    count = np.array([m.npar + 1.0 for m in fits])  # the overdispersion is estimated too
    quasi = numbers(-2 * m.loglik for m in fits) / max(chat, 1.0) + 2 * count
    left = np.array([m.layout.counted for m in fits]) - count - 1
    with np.errstate(divide="ignore"):
        small = np.where(left > 0, 2 * count * (count + 1) / np.where(left > 0, left, 1.0), np.inf)
    return {**plain, "qaic": quasi, "qaicc": quasi + small}


def weights(values: Array) -> Array:
    """Return exp(-delta / 2) over their sum."""
    likelihood = np.exp(-(values - values.min()) / 2)
    return likelihood / likelihood.sum()


def _remarks(fits: Sequence[Fit], criterion: str) -> list[Note]:
    out = []
    zeros = [m.formula for m in fits if m.boundary]
    if zeros:
        listed = "; ".join(map(str, zeros))
        text = (
            f"a variance is estimated 0 in {listed}: every criterion counts it as a parameter, which is too severe "
            f"(Greven & Kneib 2010); rf.caic judges random effects"
        )
        out.append(Note("counted_zero", text))
    inflated = {m.distribution.zero_inflation for m in fits}
    if len(inflated) > 1:
        text = "zero inflation is null on a boundary: criteria are conservative about it"
        out.append(Note("zero_inflation", text))
    if criterion == "aicc" and any(not np.isfinite(m.aicc) for m in fits):
        out.append(Note("too_few_rows", "AICc is infinite where there are as many parameters as rows, nearly"))
    out += [Note("not_converged", f"{m.formula}: {m.certificate.outcome.value}") for m in fits if not m.converged]
    return out
