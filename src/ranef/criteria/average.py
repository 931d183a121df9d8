"""`average`: coefficients averaged over models by the weights of an information criterion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.criteria.compare import comparable, scores, weights
from ranef.engines.estimate import Array
from ranef.errors import DataError
from ranef.inference.comparable import names_of_models, same_block
from ranef.inference.named import names_of
from ranef.inference.noted import Note, NotedTable
from ranef.inference.terms import fixed_terms
from ranef.inference.wald import quantile
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.frame import Block
    from ranef.model import Fit


@dataclass(frozen=True, eq=False, repr=False)
class ModelAverage:
    """Coefficients averaged over models.

    Attributes
    ----------
    table : NotedTable
        `term`; the full average `estimate, std_error, conf_low, conf_high` (a model without the term counts as 0); the
        conditional one `conditional, conditional_std_error` (over the models that have it, biased away from 0);
        `importance`, the weight of those models.
    models : NotedTable
        `model, weight`.
    """

    table: NotedTable
    models: NotedTable

    def to_frame(self) -> Any:
        """Return `table` as a frame."""
        return self.table.to_frame()

    def __repr__(self) -> str:
        return f"{self.table!r}\n\n{self.models!r}"


def average(
    *fits: Any,
    criterion: str = "aicc",
    chat: float | None = None,
    component: str = "mean",
    conf_level: float = 0.95,
    refit: bool = True,
) -> ModelAverage:
    """Average the coefficients of several fits.

    Parameters
    ----------
    *fits : Fit
        Fits of the same response on the same rows, with the same link and coding of factors.
    criterion, chat, refit
        As for `compare`.
    component : str
        Whose coefficients: "mean", "dispersion" …, or "all".
    conf_level : float
        Of the intervals of the full average.

    Returns
    -------
    ModelAverage

    Raises
    ------
    DataError
        If the fits are not comparable: other rows, links, or codings of a term.

    Notes
    -----
    Standard errors are unconditional: sqrt(sum w (se^2 + (b - mean b)^2)) (Burnham & Anderson 2004), which
    includes that the model is not known. Coefficients of a term mean different things in models with and without its
    interactions: a note says so.

    Examples
    --------
    >>> import ranef as rf
    >>> sleep = rf.datasets.load("sleepstudy")
    >>> fits = [rf.fit(f, sleep) for f in ("Reaction ~ 1 + (1 | Subject)", "Reaction ~ Days + (1 | Subject)")]
    >>> round(float(rf.average(*fits).table["importance"][1]), 3)
    1.0
    """
    found, notes = comparable(fits, refit, "average")
    links = {m.distribution.links for m in found}
    if len(links) > 1:
        raise DataError(f"average: the models have different links ({links}): their coefficients are not comparable")
    _check_coding(found, component)
    w = weights(scores(found, criterion, chat)[criterion])
    parts = [_component(m, component) for m in found]
    terms = list(dict.fromkeys(name for names, _, _ in parts for name in names))
    beta = np.array([_aligned(terms, names, values) for names, values, _ in parts])
    variance = np.array([_aligned(terms, names, values) for names, _, values in parts])
    full, spread = averaged(beta, variance, w)
    held, held_spread = averaged(beta, variance, w, conditional=True)
    half = quantile(conf_level) * spread
    columns = {
        "term": terms,
        "estimate": full,
        "std_error": spread,
        "conf_low": full - half,
        "conf_high": full + half,
        "conditional": held,
        "conditional_std_error": held_spread,
        "importance": w @ ~np.isnan(beta),
    }
    kind = found[0].layout.kind
    title = f"Coefficients averaged over {len(found)} models by {criterion.upper().replace('AICC', 'AICc')}"
    table = NotedTable(title, columns, (*notes, *_interactions(terms, beta)), kind)
    return ModelAverage(table, NotedTable("", {"model": names_of_models(found), "weight": w}, (), kind))


def _check_coding(fits: Sequence[Fit], component: str) -> None:
    """Raise if a term has other columns in another model: its coefficients, of one name or not, are not the same."""
    first: dict[tuple[str, str], tuple[Fit, list[Block]]] = {}
    for m in fits:
        for key, blocks in _columns(m, component).items():
            other, known = first.setdefault(key, (m, blocks))
            names = [b.names for b in blocks], [b.names for b in known]
            if names[0] != names[1] or not all(same_block(a, b) for a, b in zip(blocks, known, strict=True)):
                texts = [", ".join(name for ns in group for name in ns) for group in names]
                raise DataError(
                    f"average: {key[1]!r} has other columns in {m.formula} ({texts[0]}) than in {other.formula} "
                    f"({texts[1]}), so that coefficients are not comparable; use the same data and contrasts=, and an "
                    f"intercept in all models or none"
                )


def _columns(m: Fit, component: str) -> dict[tuple[str, str], list[Block]]:
    """Return the columns of every term by component and label."""
    if m.distribution.entry.nominal:
        return {}
    asked = [c.name for c in m.layout.components] if component == "all" else [component]
    blocks = {c.name: c.fixed for c in design_of(m, "average").components}
    return {(c, t.label): t.pick(blocks[c]) for c in asked if c in blocks for t in fixed_terms(m, c) if t.factors}


def _component(m: Fit, component: str) -> tuple[tuple[str, ...], Array, Array]:
    names, at = names_of(m, component)
    return names, m.estimate.beta[at], m.estimate.vcov.diagonal()[at]


def _aligned(terms: Sequence[str], names: Sequence[str], values: Array) -> Array:
    found = dict(zip(names, values.tolist(), strict=True))
    return np.array([found.get(term, np.nan) for term in terms])


def averaged(beta: Array, variance: Array, w: Array, conditional: bool = False) -> tuple[Array, Array]:
    """Return averages of coefficients (models, terms) and their unconditional standard errors.

    NaN marks a term that a model lacks: 0 with variance 0 in the full average, left out of the conditional one. A term
    that all lack has no average.
    """
    held = ~np.isnan(beta)
    share = w[:, None] * (held if conditional else np.ones_like(beta))
    with np.errstate(invalid="ignore"):
        share = share / share.sum(axis=0)
    share[:, ~held.any(axis=0)] = np.nan  # no model has the term: it was dropped wherever it was asked for
    b, v = np.where(held, beta, 0.0), np.where(held, variance, 0.0)
    mean = (share * b).sum(axis=0)
    return mean, np.sqrt((share * (v + (b - mean) ** 2)).sum(axis=0))


def _interactions(terms: Sequence[str], beta: Array) -> list[Note]:
    lacking = [t for t, column in zip(terms, beta.T, strict=True) if ":" in t and np.isnan(column).any()]
    if not lacking:
        return []
    text = (
        f"some models lack {', '.join(lacking)}: coefficients of what it is made of mean different things in models "
        f"with and without it; average predictions instead, or centre the predictors"
    )
    return [Note("interactions", text)]
