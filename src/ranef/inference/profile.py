"""Profiles of the likelihood: the least deviance at every value of a parameter, and the intervals that follow.

zeta(v) = sign(v - v_hat) sqrt(d(v) - d_hat), where d(v) is the deviance (-2 log-likelihood) minimised over all other
parameters with the parameter held at v, is approximately standard normal at the true value (Bates & Watts 1988, sec.
6.1; Bates, Maechler, Bolker & Walker 2015, sec. 5.1). The core follows the curves; here they get names and scales.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines.estimate import Array
from ranef.errors import NotAvailableError, OptionError
from ranef.inference.dummies import written_out
from ranef.inference.frames import to_frame
from ranef.inference.named import position
from ranef.inference.parameters import IDENTITY, LEVEL, SCALES, Parameter, levels_of, parameters, select, table
from ranef.inference.profile_reduced import reduced_model
from ranef.inference.profile_refits import curves_by_refits, lags_are_given, runs_away
from ranef.inference.wald import quantile
from ranef.model import check_fit, design_of
from ranef.progress import Progress

if TYPE_CHECKING:
    from ranef.model import Fit

#: Levels whose interval ends are nodes of every curve: intervals at these are not interpolated.
LEVELS = (0.9, 0.95, 0.99)
MOST_FAILED = 10
LONG = 0.1  # seconds for the start of profiles from which parameters are done one by one, with progress
CLOSE = 0.15  # zeta: nodes nearer than this to an exact one are left out
ROUNDED = 1e-6  # zeta: beside a bound the core's searches end this near to what was wanted
HALVINGS = 52  # of a bracket: to the last digit
LOWER = 1e-3  # a deviance this much below that of the fit is worth saying


@dataclass(frozen=True, eq=False)
class Curve:
    """The profile of one parameter.

    Attributes
    ----------
    parameter : Parameter
        Whose curve it is.
    estimate : float
        Maximum likelihood estimate, on the scale asked for.
    value : (n,) array
        Values held, ascending, on the scale asked for.
    zeta : (n,) array
        Signed roots of the change of the deviance; 0 at the estimate.
    slope : (n,) array
        d zeta / d (the core's coordinate), exact.
    along : dict of (n,) arrays
        Label -> that parameter's value at the constrained optimum of each point, on the scale asked for.
    ends : (str, str)
        How each side ended: "reached" the level asked for, "bound" of the parameter, "flat" deviance, "failed".
    decrease : (n,) array
        Certificate of each point: decrease of the deviance that one more step of the search promised.
    failures, evaluations : int
        Searches that did not converge at once; evaluations of the deviance.
    """

    parameter: Parameter
    estimate: float
    value: Array
    zeta: Array
    slope: Array
    along: Mapping[str, Array]
    ends: tuple[str, str]
    decrease: Array
    failures: int
    evaluations: int
    scale: str
    raw: Array

    def at(self, zeta: Any) -> Any:
        """Value at which zeta is reached, by cubic Hermite interpolation; NaN outside the curve."""
        return scaled(self.parameter, self.scale).forward(self._raw_at(np.asarray(zeta, dtype=float)))

    def zeta_at(self, value: Any) -> Any:
        """Return zeta at values, by cubic Hermite interpolation; NaN outside the curve."""
        raw = np.asarray(scaled(self.parameter, self.scale).inverse(np.asarray(value, dtype=float)))
        inside = (raw >= self.raw[0]) & (raw <= self.raw[-1])
        return np.where(inside, self._hermite(np.where(inside, raw, self.raw[0])), np.nan)

    def interval(self, level: float) -> tuple[float, float]:
        """Lower and upper end: bounds of the parameter where the deviance never reaches the cut-off (see `confint`)."""
        cut = float(quantile(level))
        return self._end(-cut, 0), self._end(cut, -1)

    def _end(self, zeta: float, side: int) -> float:
        last = self.zeta[side]
        if abs(zeta) <= abs(last) + ROUNDED and len(self.zeta) > 1 and last != 0:
            near = np.flatnonzero(np.abs(self.zeta - zeta) <= ROUNDED)
            return float(self.value[near[side]]) if len(near) else float(self.at(zeta))
        kind = self.ends[side]
        if kind == "reached":
            raise OptionError(
                f"this profile of {self.parameter.label!r} reaches zeta = {abs(last):.3g}, level needs "
                f"{abs(zeta):.3g}: make it with a higher level="
            )
        if kind == "bound":
            return float(self.value[side])
        if kind == "failed":
            return math.nan
        limit = self.parameter.low if side == 0 else self.parameter.high  # levels off: a standard deviation towards 0
        with np.errstate(over="ignore", divide="ignore"):
            return float(scaled(self.parameter, self.scale).forward(limit))

    def _hermite(self, raw: Array) -> Array:
        i = np.clip(np.searchsorted(self.raw, raw, side="right") - 1, 0, max(len(self.raw) - 2, 0))
        if len(self.raw) == 1:
            return np.zeros_like(raw)
        h = self.raw[i + 1] - self.raw[i]
        t = (raw - self.raw[i]) / h
        a, b = self.zeta[i], self.zeta[i + 1]
        da, db = self.slope[i] * h, self.slope[i + 1] * h
        return a + t * (da + t * (3 * (b - a) - 2 * da - db + t * (2 * (a - b) + da + db)))

    def _raw_at(self, zeta: Array) -> Array:
        """Bisection: between nodes the interpolant need not have a closed inverse."""
        inside = (zeta >= self.zeta[0]) & (zeta <= self.zeta[-1])
        wanted = np.where(inside, zeta, self.zeta[0])
        i = np.clip(np.searchsorted(self.zeta, wanted, side="right") - 1, 0, max(len(self.zeta) - 2, 0))
        low, high = self.raw[i], self.raw[np.minimum(i + 1, len(self.raw) - 1)]
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            below = self._hermite(middle) < wanted
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return np.where(inside, 0.5 * (low + high), np.nan)


@dataclass(frozen=True, eq=False, repr=False)
class Profile(Mapping[str, Curve]):
    """Profiles of parameters: `p["sd(Days | Subject)"]` is a `Curve`, `p.confint()` the table of intervals.

    Attributes
    ----------
    curves : tuple of Curve
        In the fit's order.
    failed : dict
        Label -> why there is no curve; the curves of other parameters do not depend on that.
    messages : tuple of str
        What a reader should know: which deviance, sides that failed, a lower deviance than the fit's.
    level : float
        The highest level of `confint` (several parameters: of joint regions of two).
    """

    curves: tuple[Curve, ...]
    failed: Mapping[str, str]
    messages: tuple[str, ...]
    level: float
    kind: str

    def __getitem__(self, label: str) -> Curve:
        found = [c for c in self.curves if c.parameter.answers_to(label)]
        if label in self.failed:
            raise NotAvailableError(f"profile: {label} has no curve: {self.failed[label]}")
        return found[0] if len(found) == 1 else self.curves[position(label, self.names)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.curves)

    @property
    def names(self) -> tuple[str, ...]:
        """Labels of the parameters."""
        return tuple(c.parameter.label for c in self.curves)

    def confint(self, level: float = 0.95) -> Any:
        """Intervals as a frame: `parameter, effect, component, group, term, estimate, conf_low, conf_high`.

        The interval holds the values at which |zeta| is at most the normal quantile. An end is the parameter's bound (a
        standard deviation of 0, a correlation of -1 or 1) where the deviance never reaches the cut-off on that side, or
        its limit (0, infinity) where the deviance levels off, NaN where the search failed (named in `messages`).

        Parameters
        ----------
        level : float
            At most that for which the profile was made.

        Examples
        --------
        >>> import ranef as rf
        >>> m = rf.fit("Reaction ~ Days + (1 | Subject)", rf.datasets.load("sleepstudy"))
        >>> rf.profile(m).confint(0.9)[["parameter", "conf_low", "conf_high"]].round(2)
                           parameter  conf_low  conf_high
        0                (Intercept)    235.32     267.49
        1                       Days      9.14      11.79
        2  sd((Intercept) | Subject)     27.32      49.50
        3                      sigma     28.27      33.95
        """
        return to_frame(interval_columns(self.curves, level), self.kind)

    def frame(self) -> Any:
        """Return all curves as one frame: `parameter, zeta, value`, and every parameter along the curve.

        Examples
        --------
        >>> import ranef as rf
        >>> m = rf.fit("Reaction ~ Days + (1 | Subject)", rf.datasets.load("sleepstudy"))
        >>> list(rf.profile(m, "Days").frame().columns)
        ['parameter', 'zeta', 'value', '(Intercept)', 'Days', 'sd((Intercept) | Subject)', 'sigma']
        """
        columns: dict[str, Any] = {
            "parameter": [c.parameter.label for c in self.curves for _ in c.value],
            "zeta": np.concatenate([np.empty(0), *(c.zeta for c in self.curves)]),
            "value": np.concatenate([np.empty(0), *(c.value for c in self.curves)]),
        }
        others = self.curves[0].along if self.curves else {}
        columns |= {name: np.concatenate([c.along[name] for c in self.curves]) for name in others}
        return to_frame(columns, self.kind)

    def __repr__(self) -> str:
        level = min(0.95, self.level)
        width = max((len(n) for n in self.names), default=9)
        head = f"{'parameter':<{width}}  {'estimate':>12}{f'{(1 - level) / 2:.1%}':>12}{f'{(1 + level) / 2:.1%}':>12}"
        rows = [
            f"{c.parameter.label:<{width}}  {c.estimate:>12.6g}{low:>12.6g}{high:>12.6g}"
            for c in self.curves
            for low, high in (c.interval(level),)
        ]
        failed = [f"{name}: {why}" for name, why in islice(self.failed.items(), MOST_FAILED)]
        more = [f"… and {len(self.failed) - MOST_FAILED:,} more"] if len(self.failed) > MOST_FAILED else []
        return "\n".join([head, *rows, *failed, *more, *self.messages])


def interval_columns(curves: Sequence[Curve], level: float) -> dict[str, Any]:
    """Return the columns of `Profile.confint`."""
    ends = [c.interval(level) for c in curves]
    of = [c.parameter for c in curves]
    return {
        "parameter": [p.label for p in of],
        "effect": [p.effect for p in of],
        "component": [p.component for p in of],
        "group": [p.group for p in of],
        "term": [p.term for p in of],
        "estimate": np.array([c.estimate for c in curves]),
        "conf_low": np.array([low for low, _ in ends]),
        "conf_high": np.array([high for _, high in ends]),
    }


# ---- scales ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scaled:
    """The core's coordinate to the value on the scale asked for, and back."""

    forward: Callable[[Any], Any]
    inverse: Callable[[Any], Any]


def scaled(parameter: Parameter, scale: str) -> Scaled:
    """Return the map of a parameter; standard deviations and correlations have scales, other parameters one only."""
    forward, inverse = parameter.transform.forward, parameter.transform.inverse
    if parameter.kind == "cor" and scale == "fisher":
        return Scaled(lambda v: _fisher(forward(v)), lambda v: inverse(np.tanh(v)))
    if scale == "natural" and parameter.natural is not IDENTITY:
        return Scaled(parameter.natural.forward, parameter.natural.inverse)
    if scale in ("fisher", "natural"):
        return Scaled(forward, inverse)
    if parameter.kind != "sd" or scale == "sd":
        return Scaled(forward, inverse)
    if scale == "variance":
        return Scaled(lambda v: forward(v) ** 2, lambda v: inverse(np.sqrt(v)))
    return Scaled(lambda v: _log(forward(v)), lambda v: inverse(np.exp(v)))


def _fisher(value: Any) -> Any:
    with np.errstate(divide="ignore"):
        return np.arctanh(value)


def _log(value: Any) -> Any:
    with np.errstate(divide="ignore"):
        return np.log(value)


# ---- making them -----------------------------------------------------------------------------------------------------


def profile(
    m: Fit,
    which: str | Sequence[str] | None = None,
    *,
    level: float = 0.99,
    scale: str = "sd",
    points: int = 8,
    progress: bool | None = None,
) -> Profile:
    """Profile the likelihood in each parameter.

    Parameters
    ----------
    m : Fit
        A fit. One by REML is profiled by maximum likelihood, from its own maximum (as lme4 does): restricted
        likelihoods with different fixed effects cannot be compared. Parameters held or tied stay so along the curves.
        With priors, or Firth's penalty, -2 log(likelihood x prior) is profiled, from its mode: `messages` say so.
    which : None, "fixed", "random", or names
        Labels ("sd(Days | Subject)") or terms as in `tidy` ("sd__Days"); default all parameters.
    level : float
        The curves reach the ends of intervals of this level; of several parameters, the joint regions of two.
    scale : "sd" | "variance" | "log" | "fisher" | "natural"
        Of standard deviations: themselves, variances, or log standard deviations; "fisher": correlations on Fisher's z;
        "natural": a dispersion, zero inflation or shape that is one number as that number, not as the coefficient
        under its link. What has no such scale keeps its own.
    points : int
        Points of each side of a curve, besides the ends of 90 %, 95 % and 99 % intervals, which are found exactly.
    progress : bool, optional
        Show how far long work has come; default: where stderr is a terminal.

    Returns
    -------
    Profile

    Raises
    ------
    OptionError
        Unknown parameter, scale, level.
    NotAvailableError
        For `quadrature=0` (its criterion is no function of the coefficients) and slim fits of generalised models.

    Notes
    -----
    Profile intervals do not assume a quadratic likelihood: for variances and for small samples they are better than
    Wald intervals, and cheaper than a bootstrap (Bolker's GLMM FAQ ranks Wald < profile < parametric bootstrap).

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
    >>> rf.profile(m, "Days")["Days"].interval(0.95)  # doctest: +SKIP
    (7.358652, 13.575920)
    """
    check_fit(m, "profile")
    if scale not in SCALES:
        raise OptionError(f"profile: scale={scale!r} is unknown; use {', '.join(map(repr, SCALES))}")
    if not isinstance(points, (int, np.integer)) or points < 2:
        raise OptionError(f"profile: points={points!r} must be a whole number of at least 2")
    m, asked = with_levels(m, select(parameters(m), which, "profile"), which)
    if scale != "sd" and which is not None and not any(_has_scale(p, scale) for p in asked):
        named = {"fisher": "correlations (Fisher's z)", "natural": "parameters that are one number under a link"}
        what = named.get(scale, "standard deviations")
        raise OptionError(f"profile: scale={scale!r} is one of {what}, and {asked[0].label!r} is none")
    cut = float(quantile(level))
    reach = cut if len(asked) == 1 else math.sqrt(-2 * math.log(1 - level))
    exact = {float(quantile(one)) for one in (*LEVELS, level)}
    return traced(m, asked, targets(reach, exact, points), level, scale, progress)


def _has_scale(p: Parameter, scale: str) -> bool:
    """Whether values of the parameter differ on that scale from those on its own."""
    if scale == "natural":
        return p.natural is not IDENTITY
    return p.kind == ("cor" if scale == "fisher" else "sd")


def with_levels(m: Fit, asked: list[Parameter], which: Any) -> tuple[Fit, list[Parameter]]:
    """Return the fit with dummies where levels of a fixed factor of many levels are asked for by name."""
    if which in (None, "fixed", "random", "ran_pars") or all(p.refused != LEVEL for p in asked):
        return m, asked
    m = written_out(m)
    return m, select(parameters(m), which, "profile")


def targets(reach: float, exact: set[float], points: int) -> list[tuple[float, bool]]:
    """Values of |zeta| to visit: evenly spaced ones, and those that are wanted exactly."""
    wanted = sorted(z for z in exact if z <= reach + 1e-9)
    even = np.linspace(0, reach, points + 1)[1:].tolist()
    free = [z for z in even if all(abs(z - w) > CLOSE for w in wanted)]
    return sorted([(z, True) for z in wanted] + [(z, False) for z in free])


def traced(
    m: Fit, asked: list[Parameter], visits: list[tuple[float, bool]], level: float, scale: str, progress: bool | None
) -> Profile:
    """Follow the curves of the parameters asked for."""
    with tracing(m) as tracer:
        asked = [tracer.of(p) for p in asked]
        failed = {p.label: p.refused for p in asked if p.refused}
        good = [p for p in asked if not p.refused]
        found: list[Any] = []
        with Progress("profile", len(good), progress) as shown:
            step = 1 if tracer.long else max(len(good), 1)
            for i in range(0, len(good), step):
                found += tracer.curves(good[i : i + step], visits)
                shown.advance(step)
    failed |= {p.label: record for p, record in zip(good, found, strict=True) if isinstance(record, str)}
    records = {p.label: record for p, record in zip(good, found, strict=True) if not isinstance(record, str)}
    curves = tuple(_curve(m, r.get("parameter", p), r, scale, tracer) for p in good for r in _of(records, p))
    ordered = {p.label: failed[p.label] for p in asked if p.label in failed}
    messages = (*criterion_notes(m), *notes(curves, list(records.values())))
    return Profile(curves, ordered, messages, level, m.layout.kind)


def _of(records: Mapping[str, Any], p: Parameter) -> list[Mapping[str, Any]]:
    return [records[p.label]] if p.label in records else []


def criterion_notes(m: Fit) -> list[str]:
    """Say which criterion was profiled where it is not the fit's likelihood."""
    wishes = m.task.wishes
    out = ["the ML deviance was profiled; the fit itself is by REML"] if m.method == "reml" else []
    if wishes is not None and wishes.priors:
        out.append(
            "-2 log(likelihood x prior) was profiled: the intervals are cuts of the posterior's profile at the level's "
            "chi-square quantile, no likelihood intervals and no quantiles of the posterior"
        )
    if wishes is not None and wishes.firth:
        out.append("the likelihood penalised by Jeffreys' prior was profiled (Heinze & Schemper 2002)")
    if wishes is not None and (wishes.fixed or wishes.equal):
        out.append("parameters that are held or tied stay so along the curves")
    return out


def _said(c: Curve, end: str) -> str:
    """Return what to say of the end of a curve."""
    if end == "failed" and c.parameter.hold[0] == "lag":
        return "the search failed, as other correlations reached a limit; use method='boot'"
    return {"failed": "the search failed", "flat": "the deviance levels off"}.get(end, "")


def notes(curves: Sequence[Curve], found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say which sides failed or are flat, and whether a lower deviance than the fit's was met."""
    out = [
        f"{c.parameter.label}: {text}, {side} side"
        for c in curves
        for end, side in zip(c.ends, ("lower", "upper"), strict=True)
        for text in (_said(c, end),)
        if text
    ]
    lowest = min((record["lowest"] for record in found), default=0.0)
    if lowest < -LOWER:
        out.append(f"a deviance {-lowest:.3g} below that of the fit was met: the fit is not the optimum, see all_fit")
    return out


@dataclass(frozen=True)
class Tracer:
    """What follows curves for an engine; a text says why there is none.

    `of` gives a parameter the engine's coordinate, `whole` takes coefficients and theta of the engine's model to those
    of the fit; `theta` is how many it has, None: as many as the fit.
    """

    curves: Callable[[list[Parameter], list[tuple[float, bool]]], list[Any | str]]
    close: Callable[[], None]
    long: bool
    of: Callable[[Parameter], Parameter] = lambda p: p
    whole: Callable[[Array, Array], tuple[Array, Array]] = lambda beta, theta: (beta, theta)
    theta: int | None = None


@contextmanager
def tracing(m: Fit) -> Generator[Tracer, None, None]:
    """Follow curves of a fit, whose core is elsewhere meanwhile: other threads wait until it is back."""
    turn = getattr(m.core, "turn", nullcontext())  # a slim fit has none, and may have no curves
    with turn:
        tracer = _tracer_of(m)
        try:
            yield tracer
        finally:
            tracer.close()


def _tracer_of(m: Fit) -> Tracer:
    """Return what follows the curves of a fit; curves that failed are walked by fits with the parameter held."""
    if m.task.linear:
        return _linear(m)
    if reason := unprofiled(m):
        raise NotAvailableError(f"profile: {reason}")
    if runs_away(m) and m.task.wishes is None:
        return Tracer(lambda chosen, visits: _walked_or_followed(m, _laplace, chosen, visits), lambda: None, True)
    core = _laplace(m)
    if runs_away(m) or lags_are_given(m):
        return replace(
            core,
            curves=lambda chosen, visits: _walked_or_followed(m, lambda _: core, chosen, visits),
            long=True,
            of=lambda p: reduced if (reduced := core.of(p)).refused else p,
        )
    named = {p.label: p for p in parameters(m)}

    def curves(chosen: list[Parameter], visits: list[tuple[float, bool]]) -> list[Any | str]:
        found = core.curves(chosen, visits)
        return [_repaired(m, named.get(p.label), record, visits) for p, record in zip(chosen, found, strict=True)]

    return replace(core, curves=curves)


def _walked_or_followed(
    m: Fit, by_core: Callable[[Fit], Tracer], chosen: list[Parameter], visits: list[tuple[float, bool]]
) -> list[Any | str]:
    """Return curves by refits; those of what no fit can hold, later lags, loadings and penalties, by the core."""
    can = [p for p in chosen if _can_be_held(m, p)]
    refits = zip(can, curves_by_refits(m, can, visits), strict=True)
    walked = {p.label: {**found, "parameter": p} for p, found in refits if found}
    rest = [p for p in chosen if p.label not in walked]
    if not rest:
        return list(walked.values())
    core = by_core(m)
    followed = dict(zip([p.label for p in rest], core.curves([core.of(p) for p in rest], visits), strict=True))
    core.close()
    return [{**walked, **followed}[p.label] for p in chosen]


def _can_be_held(m: Fit, p: Parameter) -> bool:
    """Whether a fit can hold it: loadings, and later lags beside priors, are the core's alone."""
    wishes = m.task.wishes
    later = p.hold[0] == "lag" and wishes is not None and bool(wishes.priors or wishes.firth)
    return not later and not p.label.startswith("loading(")


def _repaired(m: Fit, p: Parameter | None, record: Any, visits: list[tuple[float, bool]]) -> Any:
    """Return a curve, by refits where the core could not follow it; as it is if no `fixed=` names the parameter."""
    if p is None or not _can_be_held(m, p) or (not isinstance(record, str) and "failed" not in record["ends"]):
        return record
    (other,) = curves_by_refits(m, [p], visits)
    if other is None:
        return record
    if "failed" in other["ends"] and not isinstance(record, str):
        return record
    return {**other, "parameter": p}


def _asked(chosen: list[Parameter]) -> list[tuple[str, list[int], list[int], float, float]]:
    return [(p.hold[0], list(p.hold[1]), list(p.hold[2]), p.low, p.high) for p in chosen]


def _linear(m: Fit) -> Tracer:
    started = time.monotonic()
    centre = m.core.profile_centre(np.array(m.theta), m.task.control.options)
    at = (centre["x"], centre["deviance"], centre["hessian"])

    def curves(chosen: list[Parameter], visits: list[tuple[float, bool]]) -> list[Any]:
        return list(m.core.profile(*at, _asked(chosen), visits))

    return Tracer(apart(curves, lambda: None), lambda: None, time.monotonic() - started > LONG)


def apart(curves: Callable[..., list[Any]], reset: Callable[[], None]) -> Callable[..., list[Any | str]]:
    """Return the function that follows curves one by one where one of several fails, and says why it did.

    Parameters
    ----------
    curves : (parameters, visits) -> records
        All or none of them.
    reset : () -> None
        Puts the core back to the estimate, after a failure or an interrupt.
    """

    def each(chosen: list[Parameter], visits: list[tuple[float, bool]]) -> list[Any | str]:
        try:
            return curves(chosen, visits)
        except ValueError as error:
            reset()
            if len(chosen) == 1:
                return [f"{str(error).splitlines()[0]} somewhere on the curve; use method='boot'"]
            return [record for p in chosen for record in each([p], visits)]
        except BaseException:
            reset()
            raise

    return each


def unprofiled(m: Fit) -> str:
    """Return why a fit by the Laplace engine has no profiles; "" if it has."""
    if m.method == "pql":
        return "quasi-likelihood (method='pql') is no likelihood; use method='wald', or fit with method='ml'"
    if m.call.sampling_weights is not None:
        return (
            "with sampling_weights= differences of the pseudo-log-likelihood are not chi-square, so its profile has no "
            "level; use method='wald', whose standard errors are robust"
        )
    if m.task.quadrature == 0:
        return (
            "quadrature=0 maximises over coefficients and random effects jointly, which gives no likelihood of the "
            "coefficients; fit with quadrature=1"
        )
    if m.design is None:
        return "a slim fit of a generalised model keeps no rows; use the fit before slim()"
    return ""


def _laplace(m: Fit) -> Tracer:
    reason = unprofiled(m)
    if reason:
        raise NotAvailableError(f"profile: {reason}")
    started = time.monotonic()
    if m.task.wishes is not None:
        model = reduced_model(m)
        beta, theta = model.at
        core = model.core
    else:
        model = None
        core, estimate = m.core, m.estimate
        if m.method != "ml":
            core, estimate = m.engine.estimate(design_of(m, "profile"), replace(m.task, method="ml"))
        beta, theta = np.nan_to_num(np.array(estimate.beta)).tolist(), list(estimate.theta)

    def close() -> None:
        core.adopt(beta, theta, m.task.quadrature, "ml")

    centre = core.profile_centre(beta, theta, m.task.quadrature)
    at = (centre["x"], centre["deviance"], centre["hessian"], centre["frozen"])

    def curves(chosen: list[Parameter], visits: list[tuple[float, bool]]) -> list[Any]:
        return list(core.profile(*at, _asked(chosen), visits, m.task.quadrature))

    found = Tracer(apart(curves, close), close, time.monotonic() - started > LONG)
    return found if model is None else replace(found, of=model.coordinate_of, whole=model.whole, theta=len(theta))


# ---- what comes back -------------------------------------------------------------------------------------------------


def _curve(m: Fit, parameter: Parameter, record: Mapping[str, Any], scale: str, tracer: Tracer) -> Curve:
    raw, zeta = np.asarray(record["value"]), np.asarray(record["zeta"])
    value = np.asarray(scaled(parameter, scale).forward(raw), dtype=float)
    return Curve(
        parameter=parameter,
        estimate=float(value[np.flatnonzero(zeta == 0)[0]]),
        value=value,
        zeta=zeta,
        slope=np.asarray(record["slope"]),
        along=_along(m, record, scale, tracer),
        ends=tuple(record["ends"]),
        decrease=np.asarray(record["decrease"]),
        failures=int(record["failures"]),
        evaluations=int(record["evaluations"]),
        scale=scale,
        raw=raw,
    )


def _along(m: Fit, record: Mapping[str, Any], scale: str, tracer: Tracer) -> dict[str, Array]:
    """Return every parameter at each point of a curve."""
    x, levels = np.asarray(record["x"]), levels_of(m)
    walked = "parameter" in record  # by fits of the whole model
    linear, count = m.task.linear, len(m.theta) if walked or tracer.theta is None else tracer.theta
    beta_theta = np.asarray(record["beta"]), x[:, :-1] if linear else x[:, x.shape[1] - count :]
    own, theta = beta_theta if walked else tracer.whole(*beta_theta)
    beta = np.full((len(x), len(levels)), np.nan)
    beta[:, ~levels] = own
    columns = table(m, beta, theta, np.exp(x[:, -1]) if linear else np.ones(len(x)))
    known = zip(parameters(m), columns.T, strict=True)
    return {p.label: _rescaled(p, c, scale) for p, c in known if p.refused != LEVEL}


def _rescaled(p: Parameter, column: Array, scale: str) -> Array:
    if p.kind == "cor" and scale == "fisher":
        return _fisher(column)
    if scale == "natural" and p.natural is not IDENTITY:
        return np.asarray(p.natural.forward(column))
    if p.kind != "sd" or scale in ("sd", "fisher", "natural"):
        return np.array(column)
    return column**2 if scale == "variance" else _log(column)
