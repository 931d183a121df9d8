"""Tests and intervals of coefficients and combinations of them by another method than Wald's: one switch, `method=`.

    "profile"   likelihood ratios by maximum likelihood: the statistic is the signed root of the ratio against the model
                in which the value is held, normal under the null (the profile's zeta there); intervals hold the values
                that the ratio does not reject.
    "boot"      the p-value inverts the interval asked for: it is the least 1 - level at which the bootstrap interval
                leaves the value out, with one count added to the tail (Davison & Hinkley 1997, eq. 4.11), so that it is
                never 0. For "basic" that is the tail of the replicates centred at the estimate.

Standard deviations have no p-value here: 0 is the end of their range (`rf.ranova`, `rf.exact_rlrt`, `rf.pb_test`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines.estimate import Array
from ranef.errors import ArgumentError, NotAvailableError, OptionError, RanefError
from ranef.frame.design import Block, Component, Design, matrix
from ranef.inference.bootstrap import METHODS as INTERVALS
from ranef.inference.bootstrap import Bootstrap, bootstrap
from ranef.inference.confint import POINTS, check_method, intervals, refuse_modes
from ranef.inference.memory import remembered
from ranef.inference.parameters import Parameter, parameters
from ranef.inference.profile import Curve, targets, tracing, unprofiled
from ranef.inference.profile_refits import runs_away
from ranef.inference.wald import p_value, quantile
from ranef.layout import ComponentInfo
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.model import Fit

Columns = dict[str, Any]
RATIO = "likelihood ratio (ML)"
BOUNDARY = "none: 0 is the end of the range, see rf.ranova"
POSITIVE = "none: 0 is the end of the range"
FAR = 1e6  # a root that no likelihood reaches: the curve goes on to the value held
DOUBLINGS = 10  # of a distance from the estimate, before a likelihood ratio is taken never to reach its quantile
BELOW = 1e-3  # a constrained fit better than the free one by more than this missed an optimum


def check_alone(method: str, what: str, **wald: Any) -> None:
    """Raise if options of Wald tests stand beside another method.

    Raises
    ------
    OptionError, ArgumentError
    """
    check_method(method, {}, what)
    given = [name for name, value in wald.items() if value is not None]
    if method != "wald" and given:
        raise ArgumentError(
            f"{what}: {given[0]}= is about Wald tests of the fixed effects; leave it out, or use method='wald'"
        )


# ---- parameters of a fit ---------------------------------------------------------------------------------------------


def tested_parameters(
    m: Fit, effects: Sequence[str], level: float | None, method: str, options: Mapping[str, Any]
) -> list[Columns]:
    """Return `statistic, df, p_value, p_method`, and with a level the interval and `conf_method`, of kinds of effects.

    Parameters
    ----------
    m : Fit
    effects : sequence of "fixed" and "ran_pars"
    level : float or None
        None: no intervals.
    method : "profile" | "boot"
    options : mapping
        Of `confint`.
    """
    for effect in effects:
        refuse_modes(effect, f"tidy: method={method!r}")
    asked = [p for effect in effects for p in parameters(m) if p.effect == effect]
    check_method(method, options, "tidy")
    made = _profiled if method == "profile" else _bootstrapped
    columns = made(m, asked, level, dict(options))
    mine = [[i for i, p in enumerate(asked) if p.effect == effect] for effect in effects]
    return [{name: _taken(values, at) for name, values in columns.items()} for at in mine]


def _taken(values: Any, at: list[int]) -> Any:
    return [values[i] for i in at] if isinstance(values, list) else values[at]


def _profiled(m: Fit, asked: Sequence[Parameter], level: float | None, options: Columns) -> Columns:
    found = [_root_of(m, p) for p in asked]
    roots = np.array([root for root, _ in found], dtype=float)
    infinite = np.where(np.isnan(roots), np.nan, np.inf)
    columns = {
        "statistic": roots,
        "df": infinite,
        "p_value": p_value(roots, infinite),
        "p_method": [how for _, how in found],
    }
    if level is None:
        return columns
    low, high, _ = intervals(m, asked, level, "profile", options)
    return {**columns, "conf_low": low, "conf_high": high, "conf_method": ["profile"] * len(asked)}


def _root_of(m: Fit, p: Parameter) -> tuple[float, str]:
    """Return the signed root of the likelihood ratio against 0, and which test that is or why there is none."""
    if p.kind == "coefficient":
        if p.refused:
            return math.nan, f"none: {p.refused}"
        at = p.hold[1][0]
        if at in m.estimate.held:
            return math.nan, "none: it is held"
        row = np.zeros((1, len(m.estimate.beta)))
        row[0, at] = 1.0
        try:
            return _root(m, row, np.zeros(1), float(m.estimate.beta[at]))
        except NotAvailableError:  # thresholds and the like, whose columns no formula has
            return _root_along(m, p)
    return _root_along(m, p) if p.kind == "cor" else (math.nan, _no_null(p))


def _no_null(p: Parameter) -> str:
    if p.residual or p.kind == "other":
        return POSITIVE if p.bounds[0] == 0 else "none: its sign is arbitrary"
    return BOUNDARY


def _root_along(m: Fit, p: Parameter) -> tuple[float, str]:
    """Return the signed root at 0, to which the parameter's curve is followed."""
    zero, found = float(p.transform.inverse(np.array(0.0))), []
    with tracing(m) as tracer:
        p = tracer.of(p)
        if p.refused:
            return math.nan, f"none: {p.refused}"
        for bounds in ({"low": zero}, {"high": zero}):  # 0 is below or above the estimate: the other side ends at once
            found += tracer.curves([replace(p, **bounds)], [(FAR, True)])
    for record, side in zip(found, (0, -1), strict=True):
        if not isinstance(record, str) and record["ends"][side] == "bound" and record["value"][side] == zero:
            root = -float(record["zeta"][side])
            if root != 0:
                return root, RATIO
    return math.nan, "none: the search failed"


# ---- likelihood ratios of combinations -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rewritten:
    """The fixed part of one linear predictor with combinations of its coefficients in place of some of them.

    X beta = X_1 gamma + D L beta: `blocks` are the columns X_1 of the coefficients that stay free, `combined` is D.
    """

    component: str
    blocks: tuple[Block, ...]
    combined: Array


def rewritten(m: Fit, rows: Array, what: str) -> tuple[Design, Rewritten]:
    """Return the design of a fit with the combinations L = `rows` (r, p) split off.

    Raises
    ------
    NotAvailableError
        For coefficients of two components, thresholds, and fits with held, tied or penalised parameters.
    ArgumentError
        If the combinations depend on each other.
    """
    reason = unprofiled(m)
    if not reason and m.task.wishes is not None:
        reason = "combinations of coefficients of which some are held, tied or have priors; use method='wald' or 'boot'"
    if reason:
        raise NotAvailableError(f"{what}: {reason}")
    info, part = _component_of(m, rows, what)
    design = design_of(m, what)
    inner = rows[:, info.at]
    if np.linalg.matrix_rank(inner) < len(inner):
        raise ArgumentError(f"{what}: the combinations depend linearly on each other; leave out those that follow")
    from scipy.linalg import qr

    pivots = np.sort(qr(inner, mode="r", pivoting=True)[1][: len(inner)])
    inverse = np.linalg.inv(inner[:, pivots])
    touched = np.flatnonzero((inner != 0).any(axis=0))
    dropped = {j - info.first for j in m.estimate.dropped}
    blocks: list[Block] = []
    first = 0
    known = _columns(part.fixed, design.n, {*touched.tolist()})
    combined = np.column_stack([known[j] for j in pivots]) @ inverse
    for block in part.fixed:
        at = range(first, first + len(block.names))
        first = at.stop
        if not any(j in dropped or j in known for j in at):
            blocks.append(block)
            continue
        own = known if all(j in known or j in dropped for j in at) else _columns((block,), design.n, None, at.start)
        for j, name in zip(at, block.names, strict=True):
            if j not in dropped and j not in pivots:
                column = own[j] - combined @ inner[:, j]
                blocks.append(Block((name,), x=np.ascontiguousarray(column)))
    return design, Rewritten(info.name, tuple(blocks), combined)


def _columns(blocks: Sequence[Block], n: int, wanted: set[int] | None, start: int = 0) -> dict[int, Array]:
    """Position -> column, of the blocks that have a column wanted."""
    out: dict[int, Array] = {}
    for block in blocks:
        at = range(start, start + len(block.names))
        start = at.stop
        if wanted is None or not wanted.isdisjoint(at):
            dense = matrix((block,), n)
            out |= {j: dense[:, j - at.start] for j in at if wanted is None or j in wanted}
    return out


def _component_of(m: Fit, rows: Array, what: str) -> tuple[ComponentInfo, Component]:
    used = np.flatnonzero((rows != 0).any(axis=0))
    parts = [c for c in m.layout.components if any(c.at.start <= j < c.at.stop for j in used)]
    if len(parts) != 1:
        raise NotAvailableError(
            f"{what}: likelihood ratios are of coefficients of one component, these are of "
            f"{', '.join(c.name for c in parts) or 'none'}; use method='wald' or 'boot'"
        )
    own = next((c for c in design_of(m, what).components if c.name == parts[0].name), None)
    if own is None or own.names != parts[0].names:
        raise NotAvailableError(
            f"{what}: coefficients of {parts[0].name!r} cannot be replaced by combinations; use method='wald' or 'boot'"
        )
    return parts[0], own


def placed(design: Design, at: Rewritten, values: Array | None) -> Design:
    """Return the design with the combinations held at `values`; None: as columns of their own, the last."""
    blocks, extra = at.blocks, None
    if values is None:
        names = [f".combination{i + 1}" for i in range(at.combined.shape[1])]
        blocks += tuple(Block((name,), x=np.ascontiguousarray(c)) for name, c in zip(names, at.combined.T, strict=True))
    elif np.any(values != 0):
        extra = at.combined @ values
    if at.component == "mean":
        return replace(design, fixed=blocks, offset=_shifted(design.offset, extra))
    others = tuple(
        replace(c, fixed=blocks, offset=_shifted(c.offset, extra)) if c.name == at.component else c
        for c in design.others
    )
    return replace(design, others=others)


def _shifted(offset: Array | None, extra: Array | None) -> Array | None:
    return offset if extra is None else extra if offset is None else offset + extra


def estimated(m: Fit, design: Design) -> Fit:
    """Return the maximum likelihood fit of another design; its layout is that of the fit it came from.

    Raises
    ------
    DataError
    """
    task = replace(m.task, method="ml", control=replace(m.task.control, start=None))
    core, estimate = m.engine.estimate(design, task)
    return replace(m, task=task, core=core, estimate=estimate, design=design)


@remembered
def free_criterion(m: Fit) -> float:
    """-2 log-likelihood of the maximum likelihood fit of the model."""
    return m.criterion if m.method == "ml" else float(estimated(m, design_of(m, "likelihood ratio")).criterion)


def likelihood_ratio(m: Fit, rows: Array, values: Array, what: str) -> tuple[float, str]:
    """Return the likelihood ratio against L beta = values, and which test that is or why there is none."""
    design, at = rewritten(m, rows, what)
    try:
        small = estimated(m, placed(design, at, values))
    except RanefError as error:
        return math.nan, f"none: the model with the value held cannot be fitted: {str(error).splitlines()[0]}"
    ratio = float(small.criterion) - free_criterion(m)
    if small.estimate.outcome != "converged" or not math.isfinite(ratio) or ratio < -BELOW:
        return math.nan, "none: the model with the value held did not converge"
    return max(ratio, 0.0), RATIO


def _root(m: Fit, row: Array, value: Array, estimate: float) -> tuple[float, str]:
    ratio, how = likelihood_ratio(m, row, value, "method='profile'")
    return math.copysign(math.sqrt(ratio), estimate - float(value[0])), how


def _combination_interval(m: Fit, row: Array, level: float, points: int) -> tuple[float, float]:
    """Return the ends of the profile interval of a combination: the curve of a column of its own."""
    design, at = rewritten(m, row[None, :], "method='profile'")
    own = estimated(m, placed(design, at, None))
    if own.task.wishes is None and runs_away(own):
        return _searched_interval(m, row, level)
    names = [c.names for c in own.design.components if c.name == at.component] if own.design else []
    before = next(c.first for c in _firsts(own) if c.name == at.component)
    position = before + len(names[0]) - 1
    cut = float(quantile(level))
    p = Parameter("combination", "fixed", at.component, None, "combination", "coefficient", ("beta", (position,), ()))
    with tracing(own) as tracer:
        (record,) = tracer.curves([p], targets(cut, {cut}, points))
    if isinstance(record, str):
        return math.nan, math.nan
    value, zeta = np.asarray(record["value"]), np.asarray(record["zeta"])
    curve = Curve(
        p, float(value[np.flatnonzero(zeta == 0)[0]]), value, zeta, np.asarray(record["slope"]), {},
        tuple(record["ends"]), np.asarray(record["decrease"]), int(record["failures"]), int(record["evaluations"]),
        "sd", value,
    )  # fmt: skip
    return curve.interval(level)


def _searched_interval(m: Fit, row: Array, level: float) -> tuple[float, float]:
    """Return the ends of the profile interval of a combination by fits with it held: the roots of the likelihood ratio.

    For models with parts that run away to a limit, whose curves the core does not follow. An end is infinite where the
    ratio stays below its quantile, NaN where a fit failed before.
    """
    from scipy.optimize import brentq

    own = m if m.method == "ml" else estimated(m, design_of(m, "likelihood ratio"))
    centre = float(_combined(row[None, :], own.estimate.beta)[0])
    here = row != 0
    error = math.sqrt(float(row[here] @ np.asarray(own.estimate.vcov)[np.ix_(here, here)] @ row[here]))
    cut, step = float(quantile(level)), error if math.isfinite(error) and error > 0 else max(abs(centre), 1.0)

    def above(v: float) -> float:
        ratio, _ = likelihood_ratio(m, row[None, :], np.array([v]), "method='profile'")
        return math.sqrt(ratio) - cut if math.isfinite(ratio) else math.nan

    def end(sign: float) -> float:
        near, far = centre, centre + sign * cut * step
        for _ in range(DOUBLINGS):
            found = above(far)
            if math.isnan(found):
                return math.nan
            if found >= 0:
                try:
                    return float(brentq(lambda v: -cut if v == centre else above(v), near, far, xtol=1e-6 * step))
                except (RuntimeError, ValueError):  # a fit on the way failed
                    return math.nan
            near, far = far, centre + 2 * (far - centre)
        return sign * math.inf

    return end(-1.0), end(1.0)


def _firsts(m: Fit) -> list[ComponentInfo]:
    """Where the coefficients of each component of a rewritten design stand."""
    out, first = [], 0
    lengths = {c.name: len(c.names) for c in (m.design.components if m.design else ())}
    for c in m.layout.components:
        out.append(replace(c, first=first))
        first += lengths.get(c.name, len(c.names))
    return out


# ---- bootstraps ------------------------------------------------------------------------------------------------------


def _bootstrapped(m: Fit, asked: Sequence[Parameter], level: float | None, options: Columns) -> Columns:
    kind = _interval_kind(options)
    found = bootstrap(m, **{name: value for name, value in options.items() if name != "interval"}).all
    at = [found.names.index(p.label) for p in asked]
    p = inverted(found, np.zeros(len(found.names)), kind)[at]
    why = [_untested(m, q) for q in asked]
    columns = {
        "statistic": np.full(len(asked), np.nan),
        "df": np.full(len(asked), np.nan),
        "p_value": np.where([bool(w) for w in why], np.nan, p),
        "p_method": [w or f"bootstrap, {kind}" for w in why],
    }
    if level is None:
        return columns
    low, high = found.ends(level, kind)
    return {
        **columns,
        "conf_low": low[at],
        "conf_high": high[at],
        "conf_method": [f"bootstrap, {kind}"] * len(asked),
    }


def _untested(m: Fit, p: Parameter) -> str:
    beta = m.estimate.beta
    if p.kind == "coefficient":
        at = p.hold[1][0]
        return "none: it is held" if at in m.estimate.held else f"none: {p.refused}" if np.isnan(beta[at]) else ""
    return "" if p.kind == "cor" else _no_null(p)


def _interval_kind(options: Mapping[str, Any]) -> str:
    kind = options.get("interval", "percentile")
    if kind not in INTERVALS:
        raise OptionError(f"interval={kind!r} is unknown; known: {', '.join(map(repr, INTERVALS))}")
    return str(kind)


def inverted(b: Bootstrap, values: Array, kind: str) -> Array:
    """Two-sided p-values of values of the statistic: the least 1 - level at which the interval leaves them out.

    Percentile and basic: twice the smaller tail, (1 + count) / (1 + replicates), of the replicates at the value, or of
    those mirrored at the estimate. Normal: of (estimate - bias - value) / standard error. BCa: the percentile tail
    taken back through bias and acceleration (Davison & Hinkley 1997, eq. 5.21).
    """
    b.check()
    if kind == "normal":
        with np.errstate(invalid="ignore", divide="ignore"):
            z = (b.estimate - b.bias - values) / np.where(b.std_error > 0, b.std_error, np.nan)
        return np.asarray(p_value(z, np.full(len(z), np.inf)))
    mirrored = 2 * b.estimate - b.values if kind == "basic" else b.values
    tails = np.array([_tail(column, v) for column, v in zip(mirrored.T, values, strict=True)]).reshape(-1, 2)
    if kind != "bca":
        return np.minimum(2 * tails.min(axis=1), 1.0)
    from scipy.special import ndtr, ndtri

    share = np.where(tails[:, 0] <= tails[:, 1], tails[:, 0], 1 - tails[:, 1])
    with np.errstate(invalid="ignore", divide="ignore"):
        u = ndtri(share) - ndtri(b.below)
        z = u / (1 + b.acceleration * u) - ndtri(b.below)
    return np.asarray(2 * ndtr(-np.abs(z)))


def _tail(column: Array, value: float) -> tuple[float, float]:
    column = column[np.isfinite(column)]
    if not len(column):
        return math.nan, math.nan
    n = len(column) + 1
    return (1 + int((column <= value).sum())) / n, (1 + int((column >= value).sum())) / n


# ---- combinations ----------------------------------------------------------------------------------------------------


def tested_combinations(
    m: Fit, rows: Array, values: Array, level: float, method: str, options: Mapping[str, Any]
) -> Columns:
    """Return the columns of `contrast` from `statistic` on, by profile or bootstrap."""
    check_method(method, options, "contrast")
    if method == "boot":
        kind = _interval_kind(options)
        b = combined_bootstrap(m, rows, options)
        low, high = b.ends(level, kind)
        nothing = np.full(len(rows), np.nan)
        how = [f"bootstrap, {kind}"] * len(rows)
        p = np.where((rows != 0).any(axis=1), inverted(b, values, kind), np.nan)
        return _columns_of(nothing, p, how, low, high, how)
    estimate = _combined(rows, m.estimate.beta)
    found = [_root(m, row[None, :], np.array([v]), e) for row, v, e in zip(rows, values, estimate, strict=True)]
    roots = np.array([root for root, _ in found])
    ends = np.array([_combination_interval(m, row, level, options.get("points", POINTS)) for row in rows])
    p = p_value(roots, np.full(len(roots), np.inf))
    return _columns_of(roots, p, [how for _, how in found], ends[:, 0], ends[:, 1], ["profile"] * len(rows))


def _columns_of(statistic: Array, p: Array, how: list[str], low: Array, high: Array, between: list[str]) -> Columns:
    df = np.where(np.isnan(statistic), np.nan, np.inf)
    tests = {"statistic": statistic, "df": df, "p_value": p}
    return {**tests, "conf_low": low, "conf_high": high, "p_method": how, "conf_method": between}


def _combined(rows: Array, beta: Array) -> Array:
    """L beta; coefficients that were dropped have no weight."""
    here = (rows != 0).any(axis=0)
    return rows[:, here] @ beta[..., here].T


def combined_bootstrap(m: Fit, rows: Array, options: Mapping[str, Any]) -> Bootstrap:
    """Bootstrap a fit and return the replicates of combinations of its coefficients."""
    b = bootstrap(m, **{name: value for name, value in options.items() if name != "interval"}).all
    names = tuple(f"combination{i + 1}" for i in range(len(rows)))
    own = b.values[:, : rows.shape[1]]
    estimate, values = _combined(rows, m.estimate.beta), _combined(rows, own).T
    return replace(
        b, names=names, estimate=estimate, values=values, known=(),
        statistic=lambda fit: _combined(rows, fit.estimate.beta),
    )  # fmt: skip


def tested_jointly(m: Fit, rows: Array, values: Array, method: str, options: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the one row of a joint test by likelihood ratio or bootstrap.

    The bootstrap's statistic is the squared distance of L beta from the values in the metric of the replicates'
    covariance; its null law is that of the replicates' own distances from the estimate, with one count added.
    """
    check_method(method, options, "contrast")
    if method == "profile":
        from scipy.special import chdtrc

        ratio, how = likelihood_ratio(m, rows, values, "contrast")
        p = math.nan if math.isnan(ratio) else float(chdtrc(len(rows), ratio))
        return {"numdf": [len(rows)], "dendf": [math.inf], "statistic": [ratio], "p_value": [p], "p_method": [how]}
    b = combined_bootstrap(m, rows, options)
    b.check()
    draws = b.values[np.isfinite(b.values).all(axis=1)]
    inverse = np.linalg.pinv(np.atleast_2d(np.cov(draws, rowvar=False)))

    def distance(away: Array) -> Array:
        return np.einsum("ri,ij,rj->r", away, inverse, away)

    observed = float(distance((b.estimate - values)[None, :])[0])
    p = (1 + int((distance(draws - b.estimate) >= observed).sum())) / (1 + len(draws))
    how = "bootstrap, centred distance"
    return {"numdf": [len(rows)], "dendf": [math.nan], "statistic": [observed], "p_value": [p], "p_method": [how]}
