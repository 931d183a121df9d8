"""Predictions for fitted or new rows, with intervals from the joint covariance of fixed and random effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import narwhals.stable.v2 as nw
import numpy as np

from ranef.engines.estimate import Array
from ranef.engines.linear import sources, term_sources
from ranef.errors import OptionError, UnseenLevelError, nearest
from ranef.frame.design import Block, GroupTerm, Levels, matrix
from ranef.inference.frames import to_frame
from ranef.inference.wald import quantile
from ranef.predict.rows import (
    Rows,
    aligned,
    fitted_design,
    fitted_rows,
    linear_predictor,
    new_design,
    prior_variance,
)

if TYPE_CHECKING:
    from ranef.frame.design import Unseen
    from ranef.model import Fit, GroupInfo

NEW_LEVELS = ("error", "population", "sample")
INTERVALS = ("confidence", "prediction")
TYPES = ("response", "link")


@dataclass(frozen=True, slots=True)
class Question:
    """What to predict.

    Parameters
    ----------
    re : "all" | "none" | list of grouping factors | "integrate"
        Random effects to include: the conditional modes of all terms, of none (population), of the named groups.
        "integrate" averages over the random effects; with an identity link that is the population.
    type : "response" | "link"
        The same for gaussian.
    new_levels : "error" | "population" | "sample"
        For a level that was not in the data: raise, effect 0, or an effect drawn from N(0, Sigma) (one per level).
        A missing group counts as an unknown level: NaN under "error".
    interval : None | "confidence" | "prediction"
        For the linear predictor given the included random effects, or for a new observation (adds sigma^2 / w and the
        variance of the random effects not included).
    level : float
        Coverage.
    std_error : bool
        Return standard errors also where no interval is asked for.
    seed : int, optional
        For new_levels="sample".
    """

    re: str | Sequence[str] = "all"
    type: str = "response"
    new_levels: str = "error"
    interval: str | None = None
    level: float = 0.95
    std_error: bool = False
    seed: int | None = None


def predict(m: Fit, newdata: Any, question: Question) -> Any:
    """Predict for the rows used (`newdata=None`) or for new rows.

    Returns
    -------
    (n,) array, or, with `interval` or `std_error`, a frame `estimate, std_error[, conf_low, conf_high]`. Rows of
    `newdata` with missing values give NaN.

    Raises
    ------
    UnseenLevelError, UnknownColumnError, OptionError
    """
    check(question)
    which = included(m, question.re)
    rows = fitted_design(m, "predict") if newdata is None else new_rows(m, newdata, question, which)
    estimate = linear_predictor(m, rows, which)
    if question.new_levels == "sample":
        estimate = estimate + sampled_effects(m, rows, which, question.seed)
    blank = unusable(rows, which, question)
    estimate = blanked(estimate, blank)
    if question.interval is None and not question.std_error:
        return estimate
    return _with_errors(m, rows, which, question, estimate, blank)


def fitted(m: Fit, align: str = "rows") -> Array:
    """Fitted values, random effects included."""
    return aligned(m, fitted_rows(m), align)


# ---- the question ----------------------------------------------------------------------------------------------------


def check(q: Question) -> None:
    """Raise `OptionError` for values that are not legal."""
    if q.type not in TYPES:
        raise OptionError(f"predict: type={q.type!r} is unknown for gaussian; {nearest(q.type, TYPES)}")
    if q.new_levels not in NEW_LEVELS:
        raise OptionError(f"predict: new_levels={q.new_levels!r} is unknown; {nearest(q.new_levels, NEW_LEVELS)}")
    if q.interval is not None and q.interval not in INTERVALS:
        raise OptionError(f"predict: interval={q.interval!r} is unknown; {nearest(q.interval, INTERVALS)}")
    if q.new_levels == "sample" and (q.interval or q.std_error):
        raise OptionError("predict: an interval around a sampled effect has no meaning; use new_levels='population'")


def included(m: Fit, re: Any) -> list[bool]:
    """For each term, whether its random effects are included."""
    labels = [t.label for t in m.layout.terms]
    if re is None or (isinstance(re, str) and re in ("none", "integrate")):
        return [False] * len(labels)
    if isinstance(re, str) and re == "all":
        return [True] * len(labels)
    asked = [re] if isinstance(re, str) else list(re)
    for label in asked:
        if label not in labels:
            known = ["all", "none", "integrate", *labels]
            raise OptionError(f"predict: re={label!r} is not a grouping factor of this model; {nearest(label, known)}")
    return [label in asked for label in labels]


# ---- new rows --------------------------------------------------------------------------------------------------------


def new_rows(m: Fit, newdata: Any, q: Question, which: list[bool]) -> Rows:
    """Return the design of new rows; groups that play no part need no column."""
    labels = {t.label for t, on in zip(m.layout.terms, which, strict=True) if on}
    if q.interval == "prediction":
        rows = new_design(m, with_blank_groups(m, newdata, which), "all")
    else:
        rows = new_design(m, newdata, labels)
    if q.new_levels == "error":
        for t, unseen in rows.unseen.items():
            if which[t] and unseen.levels:
                raise unseen_error(m.layout.terms[t], unseen)
    return rows


def with_blank_groups(m: Fit, newdata: Any, which: list[bool]) -> Any:
    """Return new data in which the grouping columns of terms left out exist, if need be without values."""
    bars = [bar for bar, on in zip(m.formula.bars, which, strict=True) if not on]
    wanted = dict.fromkeys(name for bar in bars for factor in bar.factors for name in factor.names)
    if isinstance(newdata, dict):
        n = max((np.size(v) for v in newdata.values()), default=0)
        return {**{name: np.full(n, None) for name in wanted}, **newdata}
    frame = nw.from_native(newdata, eager_only=True)
    blank = [nw.lit(None, dtype=nw.String).alias(name) for name in wanted if name not in frame.columns]
    return frame.with_columns(*blank).to_native() if blank else newdata


def unseen_error(term: GroupInfo, unseen: Unseen) -> UnseenLevelError:
    """Says which levels of which factor, and where."""
    shown = ", ".join(repr(v) for v in unseen.levels[:5]) + (", …" if len(unseen.levels) > 5 else "")
    known = ", ".join(repr(v) for v in term.levels[:5]) + (", …" if len(term.levels) > 5 else "")
    first = np.flatnonzero(unseen.codes >= 0)[:5].tolist()
    return UnseenLevelError(
        f"{term.label!r} has levels that were not in the fitted data: {shown} (first rows {first}); known: {known}. "
        f"new_levels='population' predicts with effect 0, new_levels='sample' draws an effect"
    )


def unusable(rows: Rows, which: list[bool], q: Question) -> Any:
    """Rows that cannot be predicted: a value is missing, or, under new_levels="error", a group is."""
    masks = [u.missing for t, u in rows.unseen.items() if which[t] and u.missing is not None]
    masks = [rows.missing, *(masks if q.new_levels == "error" else [])]
    found = [mask for mask in masks if mask is not None]
    return np.logical_or.reduce(found) if found else None


def blanked(values: Array, blank: Any) -> Array:
    """Values with NaN where `blank`."""
    return values if blank is None else np.where(blank, np.nan, values)


def sampled_effects(m: Fit, rows: Rows, which: list[bool], seed: int | None) -> Array:
    """Z' b of levels that were not seen, with one b ~ N(0, Sigma) per new level and one per missing level."""
    rng, out = np.random.default_rng(seed), np.zeros(rows.n)
    for t, unseen in rows.unseen.items():
        if which[t]:
            codes = _draw_codes(unseen)
            factor = m.sigma * m.estimate.factors[t]
            b = rng.standard_normal((int(codes.max()) + 1, len(factor))) @ factor.T
            at = np.flatnonzero(codes >= 0)
            out[at] += np.einsum("ij,ij->i", matrix(rows.terms[t].blocks, rows.n)[at], b[codes[at]])
    return out


def _draw_codes(unseen: Unseen) -> Any:
    """Which draw each row takes: rows of one new level share one, every row with a missing level has its own."""
    codes = np.array(unseen.codes, dtype=np.int64)
    if unseen.missing is not None:
        at = np.flatnonzero(unseen.missing)
        codes[at] = len(unseen.levels) + np.arange(len(at))
    return codes


# ---- uncertainty -----------------------------------------------------------------------------------------------------


def _with_errors(m: Fit, rows: Rows, which: list[bool], q: Question, estimate: Array, blank: Any) -> Any:
    error = np.sqrt(variance(m, rows, which))
    columns = {"estimate": estimate, "std_error": blanked(error, blank)}
    if q.interval is not None:
        spread = error if q.interval == "confidence" else np.sqrt(error**2 + observation_variance(m, rows, which))
        half = blanked(quantile(q.level, m.df_residual if not m.layout.terms else np.inf) * spread, blank)
        columns |= {"conf_low": estimate - half, "conf_high": estimate + half}
    return to_frame(columns, m.layout.kind)


def variance(m: Fit, rows: Rows, which: list[bool]) -> Array:
    """Variance of x'beta_hat + z'(b_hat - b): joint covariance, plus z' Sigma z at levels that were not seen."""
    terms = [rows.terms.get(t, _absent(info, rows.n)) for t, info in enumerate(m.layout.terms)]
    seen = m.core.predict_var(sources(rows.fixed), term_sources(terms), rows.n, list(which))
    out = np.maximum(np.asarray(seen), 0.0)
    for term, on, sigma in zip(terms, which, m.estimate.covariances, strict=True):
        if on and (new := np.asarray(term.codes) < 0).any():
            out = out + np.where(new, prior_variance(term, sigma, rows.n), 0.0)
    return out


def _absent(info: GroupInfo, n: int) -> GroupTerm:
    """Stands in for a term that plays no part: level unknown in every row."""
    blocks = tuple(Block((name,)) for name in info.names)
    return GroupTerm(info.label, info.names, info.structure, np.full(n, -1, np.int8), Levels.of(info.levels), blocks)


def observation_variance(m: Fit, rows: Rows, which: list[bool]) -> Array:
    """Return what a new observation adds: sigma^2 / w, and the random effects of the terms left out."""
    out = np.full(rows.n, m.sigma**2) / (1.0 if rows.weights is None else rows.weights)
    for t, on in enumerate(which):
        if not on:
            out = out + prior_variance(rows.terms[t], m.estimate.covariances[t], rows.n)
    return out
