"""Predictions for fitted or new rows, with intervals from the joint covariance of fixed and random effects."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import narwhals.stable.v2 as nw
import numpy as np

from ranef.engines.estimate import Array, LaplaceEstimate
from ranef.engines.task import Point
from ranef.errors import NotAvailableError, OptionError, RanefWarning, UnseenLevelError, nearest
from ranef.formula.groups import group_named
from ranef.frame.coding import level_name
from ranef.frame.design import Block, GroupTerm, Levels, matrix, part_of
from ranef.frame.table import collected, narwhals_frame, read_table, rows_of
from ranef.inference.frames import to_frame
from ranef.inference.relatives import knowing, lacking, relations
from ranef.inference.wald import quantile
from ranef.predict.averages import average, average_errors
from ranef.predict.illegal import tell_illegal_means
from ranef.predict.joint import covariance, predictors_of
from ranef.predict.observations import check_observation, new_trials, observed_interval
from ranef.predict.rows import (
    Rows,
    aligned,
    coefficient_spread,
    fitted_design,
    fitted_rows,
    generator,
    known_errors,
    law,
    linear_predictor,
    new_design,
    predictors,
    prior_variance,
    terms_of,
)
from ranef.predict.targets import Question, Target, own_type, target_of

if TYPE_CHECKING:
    from ranef.frame.design import Unseen
    from ranef.layout import GroupInfo
    from ranef.model import Fit

NEW_LEVELS = ("error", "population", "sample")
INTERVALS = ("confidence", "prediction")
FEW = 10  # levels below which t quantiles exceed the normal one by more than 15 %


def predict(m: Fit, newdata: Any, question: Question) -> Any:
    """Predict for the rows used (`newdata=None`) or for new rows, see `Fit.predict`."""
    question = replace(question, type=own_type(m.distribution, question.type))
    check(m, question, newdata)
    newdata = None if newdata is None else collected(newdata)
    likeliest = question.type == "class"
    question = replace(question, type="probs") if likeliest else question
    target = target_of(m, question)
    which = included(m, question.re)
    m = m if newdata is None else knowing(m, related_levels(m, newdata))
    rows = fitted_design(m, "predict") if newdata is None else new_rows(m, newdata, question, which, target)
    blank = unusable(rows, which, question)
    estimate = blanked(estimated(m, rows, which, question, target), blank)
    if question.interval == "prediction":
        _caution(m, rows, which)
    if m.distribution.entry.ordinal and rows.nominal.size:
        _tell_crossings(estimate, blank)
    if question.type in ("response", "mean") and not m.distribution.entry.ordinal:
        tell_illegal_means(m, estimate, blank)
    if likeliest:
        return _likeliest(m, estimate)
    if question.interval is None and not question.std_error:
        if estimate.ndim == 1:
            return estimate
        found = {"estimate": estimate}
    else:
        found = _with_errors(m, rows, which, question, target, estimate)
        found = {name: blanked(values, blank) for name, values in found.items()}
    return to_frame(columns_of(m, question, found), m.layout.kind, _row_labels(m, newdata))


def _likeliest(m: Fit, probabilities: Array) -> Any:
    """Return the likeliest category of every row, of equally likely ones the first; None where nothing is predicted."""
    labels = np.array([*m.spec.categories, None], dtype=object)
    lost = np.isnan(probabilities).any(axis=1)
    return labels[np.where(lost, len(labels) - 1, np.nan_to_num(probabilities).argmax(axis=1))]


def _row_labels(m: Fit, newdata: Any) -> Any:
    """Return the index of a pandas frame's rows, so that the table can stand beside it; None of other kinds."""
    data = m.data if newdata is None else newdata
    if not hasattr(data, "iloc"):
        return None
    rows = m.design.rows if newdata is None and m.design is not None else None
    return data.index if rows is None else data.index[rows]


def _caution(m: Fit, rows: Rows, which: list[bool]) -> None:
    """Say that intervals for new groups are too short where few groups tell their variance."""
    held = {t for t, *_ in getattr(m.estimate, "held_spread", ())}
    fresh = [t for t in terms_of(m, 0) if t not in held and (not which[t] or _has_new(rows, t))]
    few = {m.layout.terms[t].label: len(m.layout.terms[t].levels) for t in fresh if len(m.layout.terms[t].levels) < FEW}
    if few:
        listed = ", ".join(f"{label!r} ({count} levels)" for label, count in few.items())
        warnings.warn(
            f"predict: interval='prediction' takes the variances of the random effects as known, and those of {listed} "
            f"are not: for new groups it is too short; refits to simulated responses (rf.bootstrap) show by how much",
            RanefWarning,
            stacklevel=4,
        )


def _tell_crossings(estimate: Array, blank: Any) -> None:
    """Warn of rows whose thresholds stand in another order, so that they have no probabilities."""
    lost = np.isnan(estimate if estimate.ndim == 1 else estimate[:, 0])
    lost = lost if blank is None else lost & ~blank
    if lost.any():
        warnings.warn(
            f"predict: thresholds cross in {rows_of(lost)}: the effects of nominal= reach too far from the fitted data "
            f"there, categories have no probabilities, and predictions are NaN",
            RanefWarning,
            stacklevel=4,
        )


def _has_new(rows: Rows, t: int) -> bool:
    unseen = rows.unseen.get(t)
    return unseen is not None and bool((np.asarray(unseen.codes) >= 0).any() or unseen.missing is not None)


def columns_of(m: Fit, question: Question, found: dict[str, Array]) -> dict[str, Array]:
    """Return the columns of the frame: those of categories bear their names, "std_error__low" ."""
    if found["estimate"].ndim == 1:
        return found
    names = list(m.distribution.levels if question.type == "link" else map(str, m.spec.categories))
    titles = [(what, name if what == "estimate" else f"{what}__{name}") for what in found for name in names]
    return {title: found[what][:, i % len(names)].copy() for i, (what, title) in enumerate(titles)}


def estimated(m: Fit, rows: Rows, which: list[bool], q: Question, target: Target) -> Array:
    """Return what is asked for, on its scale."""
    if target.component is not None:
        eta = linear_predictor(m, rows, which, target.component)
        if q.new_levels == "sample":
            eta = eta + sampled_effects(m, rows, which, q.seed, target.component)
        return target.value(eta)
    if q.re == "integrate" and m.layout.terms:
        return average(m, rows, target.of)
    eta = predictors(m, rows, which)
    if q.new_levels == "sample":
        eta = eta + np.column_stack([sampled_effects(m, rows, which, q.seed, k) for k in range(eta.shape[1])])
    return target.of(eta, replace(rows.data, randomised=None))


def fitted(m: Fit, align: str = "rows") -> Array:
    """Fitted values, random effects included."""
    return aligned(m, fitted_rows(m), align)


# ---- the question ----------------------------------------------------------------------------------------------------


def check(m: Fit, q: Question, newdata: Any) -> None:
    """Raise `OptionError` for values that are not legal."""
    if q.new_levels not in NEW_LEVELS:
        raise OptionError(f"predict: new_levels={q.new_levels!r} is unknown; {nearest(q.new_levels, NEW_LEVELS)}")
    if q.interval is not None and q.interval not in INTERVALS:
        raise OptionError(f"predict: interval={q.interval!r} is unknown; {nearest(q.interval, INTERVALS)}")
    if q.new_levels == "sample" and (q.interval or q.std_error):
        raise OptionError("predict: an interval around a sampled effect has no meaning; use new_levels='population'")
    _check_interval(m, q)
    _check_new_errors(m, q, newdata)


def _check_interval(m: Fit, q: Question) -> None:
    if not (q.interval or q.std_error):
        return
    if q.type == "class":
        raise OptionError("predict: a category has neither a standard error nor an interval; take type='probs'")
    target = target_of(m, q)
    if target.slopes is None and q.parameter in ("dispersion", "disp"):
        raise NotAvailableError(
            "predict: a residual standard deviation that all rows share has no standard error here; "
            "rf.confint(m, method='profile') gives its interval"
        )
    if target.component is None and target.slopes is None:
        raise NotAvailableError(
            f"predict: the expected response of {m.family} joins several linear predictors in a way whose standard "
            f"errors are not available; ask for {' or '.join(map(repr, ('link', *m.distribution.parameters)))}"
        )
    if _is_drawn(m, q) or (q.interval == "prediction" and target.component != 0):
        check_observation(m, q.type)


def _is_drawn(m: Fit, q: Question) -> bool:
    """Tell whether the interval is of draws of a response that is not normal."""
    return q.interval == "prediction" and not m.distribution.is_gaussian_identity


def _check_new_errors(m: Fit, q: Question, newdata: Any) -> None:
    """Refuse what needs the errors of observations where nobody knows them."""
    asked = "interval='prediction'" if q.interval == "prediction" else f"type={q.type!r}"
    needed = q.interval == "prediction" or q.parameter == "dispersion"
    if m.formula.measured and needed and newdata is not None and known_errors(m, newdata) is None:
        raise NotAvailableError(
            f"predict: {asked} needs the standard errors of the new rows, and these lack the columns of "
            f"{m.formula.response}: add them, or take interval='confidence', which is that of the expected response"
        )


def included(m: Fit, re: Any) -> list[bool]:
    """For each term, whether its random effects are included."""
    labels = [t.label for t in m.layout.terms]
    if re is None or (isinstance(re, str) and re in ("none", "integrate")):
        return [False] * len(labels)
    if isinstance(re, str) and re == "all":
        return [True] * len(labels)
    asked = [re] if isinstance(re, str) else list(re) if isinstance(re, Iterable) else [re]
    found = [group_named(label, labels) for label in asked]
    for label in (label for label, own in zip(asked, found, strict=True) if own is None):
        known = ["all", "none", "integrate", *labels]
        near = nearest(label, known) if isinstance(label, str) else f"known: {', '.join(known)}"
        raise OptionError(f"predict: re={label!r} is not a grouping factor of this model; {near}")
    return [label in found for label in labels]


# ---- new rows --------------------------------------------------------------------------------------------------------


def new_rows(m: Fit, newdata: Any, q: Question, which: list[bool], target: Target) -> Rows:
    """Return the design of new rows; groups and components that play no part need no column."""
    whole = target.component is None or q.interval == "prediction"  # which the dispersion of the new rows decides, too
    parts = None if whole or target.component is None else [m.layout.components[target.component].name]
    everywhere = q.re == "integrate" and target.component is None
    labels = {t.label for t, on in zip(m.layout.terms, which, strict=True) if on and _plays(t, parts)}
    if q.interval == "prediction" or everywhere:
        rows = new_design(m, with_blank_groups(m, newdata, which), "all", parts)
    else:
        rows = new_design(m, newdata, labels, parts)
    if _is_drawn(m, q):
        rows = replace(rows, trials=new_trials(m, newdata))
    if q.new_levels == "error":
        for t, unseen in rows.unseen.items():
            if which[t] and unseen.levels:
                raise unseen_error(m.layout.terms[t], unseen)
    return rows


def related_levels(m: Fit, newdata: Any) -> dict[int, list[str]]:
    """Return the names of levels of new rows that have no data, and that `cov=` relates to some that have."""
    at = relations(m)
    if not at:  # as of most fits: their new data are read once
        return {}
    columns = set(read_table(newdata).names)
    at = [t for t in at if all(columns.issuperset(f.names) for f in m.spec.bars[t].bar.factors)]
    d = m.spec.new(newdata, groups={m.layout.terms[t].label for t in at}, parts=())
    fresh = {t: set(map(level_name, u.levels)) for t, u in zip(d.which, d.unseen, strict=True) if u is not None}
    more = lacking(m) if any(t in fresh for t in at) else {}
    return {t: [name for name in more[t] if name in fresh[t]] for t in at if t in fresh}


def _plays(term: GroupInfo, parts: list[str] | None) -> bool:
    return parts is None or not set(parts).isdisjoint(term.components)


def with_blank_groups(m: Fit, newdata: Any, which: list[bool]) -> Any:
    """Return new data in which the grouping columns of terms left out exist, if need be without values."""
    bars = [plan.bar for plan, on in zip(m.spec.bars, which, strict=True) if not on]
    wanted = dict.fromkeys(name for bar in bars for factor in bar.factors for name in factor.names)
    if isinstance(newdata, dict):
        n = max((np.size(v) for v in newdata.values()), default=0)
        return {**{name: np.full(n, None) for name in wanted}, **newdata}
    frame = narwhals_frame(newdata)
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
    return values if blank is None else np.where(blank if values.ndim == 1 else blank[:, None], np.nan, values)


def sampled_effects(m: Fit, rows: Rows, which: list[bool], seed: int | None, component: int = 0) -> Array:
    """Z' b of levels that were not seen, with one b ~ N(0, Sigma) per new level and one per missing level."""
    owners = terms_of(m, component) if component < len(m.layout.components) else []
    rng, out = generator(seed, "predict"), np.zeros(rows.n)
    for t, unseen in rows.unseen.items():
        if which[t]:
            if t in rows.left:
                raise NotAvailableError(
                    f"predict: new_levels='sample' draws effects of {m.layout.terms[t].label!r} at fitted positions "
                    f"only; use new_levels='population'"
                )
            codes = _draw_codes(unseen)
            root = m.estimate.roots[t]
            b = rng.standard_normal((int(codes.max()) + 1, len(root))) @ root.T
            if t not in owners:
                continue
            at = np.flatnonzero(codes >= 0)
            part, own = part_of(rows.terms[t], component)
            out[at] += np.einsum("ij,ij->i", matrix(part.blocks, rows.n)[at], b[codes[at]][:, own])
    return out


def _draw_codes(unseen: Unseen) -> Any:
    """Which draw each row takes: rows of one new level share one, every row with a missing level has its own."""
    codes = np.array(unseen.codes, dtype=np.int64)
    if unseen.missing is not None:
        at = np.flatnonzero(unseen.missing)
        codes[at] = len(unseen.levels) + np.arange(len(at))
    return codes


# ---- uncertainty -----------------------------------------------------------------------------------------------------


def _with_errors(
    m: Fit, rows: Rows, which: list[bool], q: Question, target: Target, estimate: Array
) -> dict[str, Array]:
    if _is_drawn(m, q):
        found = _with_errors(m, rows, which, replace(q, interval=None), target, estimate)
        terms = [rows.terms.get(t, _absent(info, rows.n)) for t, info in enumerate(m.layout.terms)]
        low, high = observed_interval(m, rows, terms, which, q.level, q.seed)
        return {**found, "conf_low": low, "conf_high": high}
    if target.component is None:
        return _with_joint_errors(m, rows, which, q, target, estimate)
    component = target.component
    eta, error = linear_predictor(m, rows, which, component), np.sqrt(variance(m, rows, which, component))
    columns = {"estimate": estimate, "std_error": np.abs(target.slope(eta)) * error}
    if q.interval is not None:
        spread = error if q.interval == "confidence" else np.sqrt(error**2 + observation_variance(m, rows, which))
        df = m.df_residual if not m.layout.terms and m.estimate.tests == "t" else np.inf
        half = quantile(q.level, df) * spread
        low, high = np.sort([target.value(eta - half), target.value(eta + half)], axis=0)
        columns |= {"conf_low": low, "conf_high": high}
    return columns


def _with_joint_errors(
    m: Fit, rows: Rows, which: list[bool], q: Question, target: Target, estimate: Array
) -> dict[str, Array]:
    """Delta method over all predictors; intervals are made on a scale without bounds."""
    error = _joint_errors(m, rows, which, q, target)
    columns = {"estimate": estimate, "std_error": error}
    if q.interval is not None:
        link = target.scale or m.distribution.link_of("mean")
        with np.errstate(divide="ignore", invalid="ignore"):
            eta = np.asarray(link.forward(estimate), dtype=float)
            half = quantile(q.level) * error / np.abs(link.slope(eta))
            ends = np.sort([link.inverse(eta - half), link.inverse(eta + half)], axis=0)
        low, high = np.where(error > 0, ends, estimate)
        columns |= {"conf_low": low, "conf_high": high}
    return columns


def _joint_errors(m: Fit, rows: Rows, which: list[bool], q: Question, target: Target) -> Array:
    assert target.slopes is not None
    if q.re == "integrate" and m.layout.terms:
        return average_errors(m, rows, target.slopes)
    terms = [rows.terms.get(t, _absent(info, rows.n)) for t, info in enumerate(m.layout.terms)]
    slopes = target.slopes(predictors(m, rows, which), rows.data)[..., : len(predictors_of(m, rows))]
    spread = covariance(m, rows, terms, which)
    left = slopes @ spread if slopes.ndim == 3 else np.einsum("ij,ijk->ik", slopes, spread)
    return np.sqrt(np.maximum(np.sum(left * slopes, axis=-1), 0.0))


def variance(m: Fit, rows: Rows, which: list[bool], component: int = 0) -> Array:
    """Variance of x'beta_hat + z'(b_hat - b), plus z' Sigma z at levels that were not seen."""
    terms = [rows.terms.get(t, _absent(info, rows.n)) for t, info in enumerate(m.layout.terms)]
    owners = terms_of(m, component)
    on = [flag and t in owners for t, flag in enumerate(which)]
    fixed = rows.components[component].fixed
    if any(on) or m.task.linear:
        point = Point(fixed, terms, rows.n, component, m.layout.components[component].first)
        seen = m.engine.variance(m.core, point, on)
    else:
        seen = fixed_variance(m, fixed, rows.n, component)
    out = np.where(_unknown(m, fixed, rows.n, component), np.nan, np.maximum(np.asarray(seen), 0.0))
    for t, sigma in enumerate(m.estimate.covariances):
        if on[t] and (new := np.asarray(terms[t].codes) < 0).any():
            out = out + np.where(new, prior_variance(terms[t], sigma, rows.n, component), 0.0)
        if on[t] and t in rows.left:
            out = out + rows.left[t]
    return out


def _unknown(m: Fit, fixed: Sequence[Block], n: int, component: int) -> Array:
    """Return which rows have a coefficient without a covariance: separated, or in a flat direction."""
    e, at = m.estimate, m.layout.components[component].at
    if not isinstance(e, LaplaceEstimate) or m.distribution.is_gaussian_identity:
        return np.zeros(n, bool)
    known = np.isfinite(np.diag(e.joint())[at]) | np.isnan(e.beta[at])
    return np.zeros(n, bool) if known.all() else (matrix(fixed, n)[:, ~known] != 0).any(axis=1)


def fixed_variance(m: Fit, fixed: Sequence[Block], n: int, component: int) -> Array:
    """Return x' Var(beta_hat) x."""
    at = m.layout.components[component].at
    x, cov = matrix(fixed, n), coefficient_spread(m)[at, at]
    return np.einsum("ij,jk,ik->i", x, cov, x)


def _absent(info: GroupInfo, n: int) -> GroupTerm:
    """Stands in for a term that plays no part: level unknown in every row."""
    blocks = tuple(Block((name,)) for name in info.names)
    return GroupTerm(info.label, info.names, info.structure, np.full(n, -1, np.int8), Levels.of(info.levels), blocks)


def observation_variance(m: Fit, rows: Rows, which: list[bool]) -> Array:
    """Return what a new observation adds: sigma^2 / w, and the random effects of the terms left out."""
    out = law(m).variance(predictors(m, rows, which), rows.data)
    for t in terms_of(m, 0):
        if not which[t]:
            out = out + prior_variance(rows.terms[t], m.estimate.covariances[t], rows.n) + rows.left.get(t, 0.0)
    return out
