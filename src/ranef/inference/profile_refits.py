"""Profiles by fits with the parameter held: where parts of a model run away to a limit.

The core follows a curve by quasi-Newton steps from point to point, in coordinates that have no end where a structure
or a family has a limit (a residual standard deviation of 0 beside an autoregression, a negative binomial that becomes
Poisson, a separated outcome). There each point is a fit of its own instead, `fixed={parameter: value}`, whose search
knows those limits. The number of fits is bounded, so that a curve ends.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines.lags import TOEPLITZ
from ranef.engines.plan import make_plan
from ranef.errors import RanefError
from ranef.inference.named import names_of
from ranef.inference.parameters import EXP, RATIO, SINE, Parameter, residual
from ranef.inference.profile_lags import Lags
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.model import Fit

FITS = 60  # of one side
GROWTH = 4.0  # of a step that was too short
EXACT = 1e-5  # zeta: error of a value that is wanted exactly
LEVEL = 1e-3  # zeta: a rise that is none
FAR = 24.0  # first steps: where nothing has risen this far out, nothing will
STRIDE = 3.0  # of a logarithm, at most
PLATEAU = 30.0  # of a logarithm: an estimate at a limit may lie this far from where the deviance begins to rise
FLOOR = 10.0  # a residual standard deviation exp(-10) times that of the response is 0
SAME = 0.05  # zeta: of the estimate itself, held
STRAIGHT = 1e3  # zeta: a target that only the bound ends


def runs_away(m: Fit) -> bool:
    """Whether parameters of the fit, or of fits near it, lie at a limit at which their coordinates do not end."""
    if m.task.linear:
        return False
    e = m.estimate
    unknown = np.isnan(np.diag(e.vcov))
    unknown[[*e.dropped, *e.held]] = False
    structured = any(t.structured for t in m.varcorr().values())
    beside = structured and any(not p.refused for p in residual(m))
    return bool(unknown.any() or m.separation or beside)


def lags_are_given(m: Fit) -> bool:
    """Whether correlations at later lags of a Toeplitz structure are held or tied: others are no coordinates then."""
    if m.task.wishes is None:
        return False
    plan = make_plan(design_of(m, "profile"), m.task)
    asked = [*(p for p, _ in plan.held), *(p for group in plan.tied for p in group)]
    return any(p.kind == "cor" and (p.index or 0) > 1 and plan.structures[p.at] in TOEPLITZ for p in asked)


@dataclass
class Walk:
    """Fits with one parameter of a maximum likelihood fit held: points (raw value, zeta) with what was estimated.

    `missing` is what their criterion lacks at a value, as a coefficient that is held has no prior there.
    """

    m: Fit
    parameter: Parameter
    missing: Callable[[float], float] = lambda _: 0.0
    lowest: float = 0.0
    fits: int = 0
    failures: int = 0
    found: dict[float, tuple[float, Any]] = field(default_factory=dict)

    def at(self, raw: float) -> float:
        """Return |zeta| at a value; NaN where the fit failed."""
        if raw in self.found:
            return self.found[raw][0]
        self.fits += 1
        alone = self.parameter.hold[0] == "lag" and self.m.task.wishes is None
        found = self._of_lag(raw) if alone else self._of_fit(raw)
        rise = math.nan if found is None else found[0] + self.missing(raw) - self.m.criterion
        if found is None or not math.isfinite(rise):
            self.failures += 1
            return math.nan
        self.lowest = min(self.lowest, rise)
        self.found[raw] = (math.sqrt(max(rise, 0.0)), found[1])
        return self.found[raw][0]

    def _of_fit(self, raw: float) -> tuple[float, Any] | None:
        """Return the criterion and the estimate of a fit with the parameter held; None where it failed."""
        p = self.parameter
        label, value = p.label, float(p.transform.forward(np.array(raw)))
        if p.residual:  # the coefficient of the dispersion, whose coordinate is the logarithm
            label, value = names_of(self.m, "all")[0][p.hold[1][0]], raw
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                q = self.m.update(fixed={**(self.m.call.fixed or {}), label: value})
        except (RanefError, ValueError, ArithmeticError):
            return None
        return (float(q.criterion), q.estimate) if q.estimate.outcome == "converged" else None

    def _of_lag(self, raw: float) -> tuple[float, Any] | None:
        """Return the same of a later lag, searched for from the nearest point, else from the estimate."""
        value, lags = float(self.parameter.transform.forward(np.array(raw))), Lags(self.m, self.parameter)
        near = min(self.found, key=lambda v: abs(v - raw))
        return lags.held(value, self.found[near][1]) or lags.held(value, self.m.estimate)


def missing_of(m: Fit, p: Parameter) -> Callable[[float], float]:
    """Return -2 log p of the priors that a coefficient has by itself, as a function of its value; 0 of others."""
    if m.task.wishes is None or p.hold[0] != "beta":
        return lambda _: 0.0
    own = [
        prior
        for prior, places, _ in make_plan(design_of(m, "profile"), m.task).priors
        if prior.of == "real" and not prior.common_scale and [x.at for x in places] == list(p.hold[1])
    ]
    return lambda raw: -2 * sum(float(prior.log_density(raw)) for prior in own)


def _is_same_criterion(m: Fit, parameter: Parameter, start: float) -> bool:
    """Whether fits with the parameter held maximise what the fit does: at its estimate they come to the same.

    They do not where Firth's penalty, or a prior of several, is also of the parameter.
    """
    if m.task.wishes is None or not (m.task.wishes.priors or m.task.wishes.firth):
        return True
    walk = Walk(m, parameter, missing_of(m, parameter), lowest=-math.inf)
    rise = walk.at(start)
    return math.isfinite(rise) and rise < SAME


def walked(m: Fit, parameter: Parameter, start: float, step: float, targets: Sequence[tuple[float, bool]]) -> Any:
    """Return the curve of a parameter as the core does; a text says why there is none.

    Parameters
    ----------
    m : Fit
        A maximum likelihood fit, which `fixed=` can be added to.
    parameter : Parameter
    start, step : float
        The estimate in the core's coordinate, and the length of the first step there.
    targets : sequence of (|zeta|, whether exactly)
    """
    walk = Walk(m, parameter, missing_of(m, parameter))
    walk.found[start] = (0.0, m.estimate)
    ends = tuple(_side(walk, start, sign * step, bound, targets)
                 for sign, bound in ((-1.0, parameter.low), (1.0, parameter.high)))  # fmt: skip
    points = sorted(walk.found.items())
    raw = np.array([v for v, _ in points])
    zeta = np.array([math.copysign(z, v - start) if v != start else 0.0 for v, (z, _) in points])
    keep = _rising(raw, zeta, start)
    raw, zeta, estimates = raw[keep], zeta[keep], [points[i][1][1] for i in keep]
    slope = _slopes(walk, raw, zeta, estimates)
    return {
        "value": raw,
        "zeta": zeta,
        "slope": slope,
        "x": np.array([e.theta for e in estimates]).reshape(len(raw), -1),
        "beta": np.array([e.beta for e in estimates]),
        "ends": ends,
        "decrease": np.array([e.decrease if hasattr(e, "decrease") else np.nan for e in estimates]),
        "failures": walk.failures,
        "lowest": walk.lowest,
        "evaluations": walk.fits,
    }


def _slopes(walk: Walk, raw: Any, zeta: Any, estimates: Sequence[Any]) -> Any:
    """Return d zeta / d raw at each point.

    Along a curve the deviance changes as it does in the held parameter alone, the others being at their optimum: that
    is the core's exact gradient, and d zeta = d deviance / (2 zeta). At the estimate, where that is 0 / 0, the slope is
    that of the parabola through the estimate and the next point's value and slope. A point at a limit, where the core
    cannot stand, and those of a model with parameters held or tied, have that of the parabola through its neighbours.
    """
    quotient = np.gradient(zeta, raw) if len(raw) > 2 else np.full(len(raw), _secant(raw, zeta))
    own = walk.m
    if own.task.wishes is not None:  # the core of a reduced model has other coordinates
        return quotient
    with own.core.turn:
        try:
            exact = np.array([_rise(own, walk.parameter, v, e) for v, e in zip(raw, estimates, strict=True)])
        finally:
            e = own.estimate
            own.core.adopt(np.nan_to_num(e.beta).tolist(), list(e.theta), own.task.quadrature, "ml")
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = exact / (2 * zeta)
    at = int(np.flatnonzero(zeta == 0)[0])
    beside = [2 * zeta[j] / (raw[j] - raw[at]) - slope[j] for j in (at - 1, at + 1) if 0 <= j < len(raw)]
    good = [s for s in beside if math.isfinite(s) and s > 0]
    slope[at] = sum(good) / len(good) if good else quotient[at]
    return np.where(np.isfinite(slope) & (slope > 0), slope, quotient)


def _rise(m: Fit, p: Parameter, raw: float, estimate: Any) -> float:
    """Return d deviance / d raw at a constrained optimum; NaN where the core cannot stand there."""
    beta, theta = np.nan_to_num(np.array(estimate.beta)), np.array(estimate.theta)
    kind, first, _ = p.hold
    try:
        gradient = -2 * np.asarray(m.core.evaluate(beta.tolist(), theta.tolist())["gradient"])
    except (ValueError, ArithmeticError):
        return math.nan
    if kind == "beta":
        return float(gradient[first[0]])
    inner = gradient[len(beta) :]
    if kind == "coordinate":
        return float(inner[first[0]])
    if kind == "row" and raw > 0:
        return float(inner[list(first)] @ theta[list(first)] / raw)
    return math.nan


def _secant(raw: Any, zeta: Any) -> float:
    return float((zeta[-1] - zeta[0]) / (raw[-1] - raw[0])) if len(raw) == 2 else 1.0


def _rising(raw: Any, zeta: Any, start: float) -> list[int]:
    """Positions of the points at which the curve rises, outwards from the estimate."""
    centre = int(np.flatnonzero(raw == start)[0])
    keep = [centre]
    for order, sign in ((range(centre - 1, -1, -1), -1), (range(centre + 1, len(raw)), 1)):
        last = 0.0
        for i in order:
            if sign * zeta[i] > last:
                keep.append(i)
                last = sign * zeta[i]
    return sorted(keep)


def _side(walk: Walk, start: float, step: float, bound: float, targets: Sequence[tuple[float, bool]]) -> str:
    """Walk to the last target and find those that are wanted exactly; return how the side ended."""
    if is_spread(walk.m, walk.parameter) and step < 0:
        bound = max(bound, math.log(float(np.std(np.asarray(design_of(walk.m, "profile").y)))) - FLOOR)
    if (bound - start) * math.copysign(1.0, step) <= 1e-9 * max(abs(start), 1.0):
        return "bound" if bound in (walk.parameter.low, walk.parameter.high) else "flat"
    reach = max(z for z, _ in targets)
    before = walk.fits
    last, known = start, 0.0
    end, first, logarithm = "", abs(step), is_logarithm(walk.parameter)
    while not end:
        ahead = last + step
        beyond = (ahead - bound) * math.copysign(1.0, step) >= 0
        ahead = bound if beyond or (reach > STRAIGHT and math.isfinite(bound)) else ahead
        z = walk.at(ahead)
        if math.isnan(z):
            step *= 0.25
            if abs(step) < 0.05 * first or walk.fits - before > FITS // 2:
                end = "flat" if _level(walk, start, last) else "failed"
        elif z >= reach:
            end = "reached"
        elif ahead == bound:
            end = "bound" if bound in (walk.parameter.low, walk.parameter.high) else "flat"
        else:
            rise, moved = z - known, abs(ahead - last)
            last, known = ahead, z
            out = abs(last - start)
            if logarithm:
                # What grew by half is at the foot of a rise, however small.
                settled = known > LEVEL and rise < 0.5 * known and moved > 0.8 * STRIDE
                level = rise < LEVEL and (out > PLATEAU or settled)
            else:
                level = rise < LEVEL * max(1.0, moved / (8 * first)) and out > FAR * first
            if level:
                end = "flat"
            elif walk.fits - before > FITS // 2:
                end = "failed"
            else:  # as far as the last slope says, and not much farther than before
                wanted = (reach - z) * moved / rise if rise > 0 else math.inf
                most = min(GROWTH * moved, STRIDE) if logarithm else GROWTH * moved
                step = math.copysign(min(max(1.05 * wanted, 0.25 * moved), most), step)
    highest = max((z for v, (z, _) in walk.found.items() if (v - start) * step > 0), default=0.0)
    for target in sorted(z for z, exact in targets if exact and z <= highest):
        _refine(walk, start, math.copysign(1.0, step), target)
    return end


def is_logarithm(p: Parameter) -> bool:
    """Whether the coordinate is a logarithm, or a logit, of what it stands for."""
    return (
        p.transform is EXP
        or (p.kind == "coefficient" and p.component != "mean")
        or (p.kind == "cor" and p.transform not in (SINE, RATIO))
    )


def is_spread(m: Fit, p: Parameter) -> bool:
    """Whether it is the logarithm of a residual standard deviation."""
    return m.distribution.is_gaussian_identity and (
        p.residual or (p.component, p.term) == ("dispersion", "(Intercept)")
    )


def _level(walk: Walk, start: float, last: float) -> bool:
    """Whether the curve was level where fits began to fail: its last two points far apart and of one height."""
    side = sorted((abs(v - start), z) for v, (z, _) in walk.found.items() if (v - start) * (last - start) >= 0)
    if len(side) < 3:
        return False
    (a, za), (b, zb) = side[-2:]
    return zb - za < 0.02 * (b - a) and (zb - za) * (b - a) < 0.02 * max(zb, 1.0)


def _refine(walk: Walk, start: float, sign: float, target: float) -> None:
    """Find the value at which zeta is the target: inverse interpolation through the nearest points, or a halving."""
    for turn in range(12):
        side = sorted((sign * (v - start), z) for v, (z, _) in walk.found.items() if sign * (v - start) >= 0)
        above = next(i for i, (_, z) in enumerate(side) if z >= target)
        (a, za), (b, zb) = side[above - 1], side[above]
        if min(abs(za - target), abs(zb - target)) < EXACT:
            return
        t = _inverse(side[max(above - 2, 0) : above + 2], target)
        if not a < t < b or turn % 4 == 3:
            t = 0.5 * (a + b)
        if math.isnan(walk.at(start + sign * t)):
            return


def _inverse(points: Sequence[tuple[float, float]], target: float) -> float:
    """Return the value at the target by Lagrange's polynomial in zeta; NaN where points coincide."""
    out = 0.0
    for i, (v, z) in enumerate(points):
        weight = v
        for j, (_, other) in enumerate(points):
            if i != j:
                if z == other:
                    return math.nan
                weight *= (target - other) / (z - other)
        out += weight
    return out


def held_from(m: Fit, parameter: Parameter) -> tuple[Fit, float, float]:
    """Return the maximum likelihood fit, the parameter's estimate in the core's coordinate, and a first step."""
    from ranef.inference.parameters import parameters, values

    own = m if m.method == "ml" else m.update(method="ml")
    at = [p.label for p in parameters(own)].index(parameter.label)
    value = float(values(own)[at])
    with np.errstate(divide="ignore"):
        raw = float(parameter.transform.inverse(np.array(value)))
    raw = 0.0 if math.isnan(raw) else raw  # a parameter without meaning may start anywhere
    step = 0.3
    if parameter.kind == "coefficient":
        error = math.sqrt(max(float(own.estimate.vcov[parameter.hold[1][0], parameter.hold[1][0]]), 0.0))
        step = error if math.isfinite(error) and 0 < error < 100 else 1.0
    elif parameter.hold[0] in ("row", "coordinate") and math.isfinite(parameter.low):
        step = 0.3 * abs(raw) or 0.1
    limit = 30.0  # of coordinates without end: the values of exp beyond are 0 for every purpose
    ends = parameter.transform.forward(np.array([-limit, limit])) if parameter.kind != "coefficient" else None
    raw = float(np.clip(raw, -limit, limit)) if ends is not None else raw
    return own, raw, step


def curves_by_refits(m: Fit, chosen: Sequence[Parameter], targets: Sequence[tuple[float, bool]]) -> list[Any]:
    """Return the curves of several parameters, see `walked`; None of one that the criterion cannot do without."""
    out: list[Any] = []
    for p in chosen:
        own, start, step = held_from(m, p)
        out.append(walked(own, p, start, step, targets) if _is_same_criterion(own, p, start) else None)
    return out
