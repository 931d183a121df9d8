"""Parameters held, tied or with priors: the Laplace engine on a reduced model, reported as the whole one.

Coefficients are held and tied in the columns: a held one becomes an offset, tied ones add their columns (between
components they share a coefficient). Terms whose standard deviations or correlations are held, tied or have a prior go
to the core with a parameter for each of these, on which constraints and priors are exact. Priors enter the core's
objective as -2 log p. What comes back is expanded to all coefficients and to the entries of Lambda that every fit has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines import laplace
from ranef.engines.covariance import Array, Deferred, frozen
from ranef.engines.estimate import LaplaceEstimate
from ranef.engines.lags import TOEPLITZ, bound_slopes, toeplitz_coordinates
from ranef.engines.linear import cells
from ranef.engines.parameters import EXPLICIT, Place
from ranef.engines.plan import PROBE, Columns, Plan, make_plan, rows_of
from ranef.engines.task import Engine, Look, Point, Task, one_by_one
from ranef.engines.thresholds import in_order, nominal_names, threshold_matrix
from ranef.engines.turns import Rebuilt
from ranef.errors import NotAvailableError, OptionError
from ranef.frame.outcomes import check_seen

if TYPE_CHECKING:
    from ranef.frame import Design

Source = tuple[Any, Any, Any, int]
Parts = list[tuple[list[Source], Array | None]]


# ---- the reduced model -----------------------------------------------------------------------------------------------


def reduced(parts: Parts, columns: Columns, n: int) -> Parts:
    """Return the components with held coefficients as offsets and tied ones added up."""
    return parts if columns.trivial else [_reduced(blocks, offset, columns, n) for blocks, offset in parts]


def _reduced(
    blocks: Sequence[Source], offset: Array | None, columns: Columns, n: int
) -> tuple[list[Source], Array | None]:
    mine = [j for b in blocks for j in range(b[3], b[3] + _width(b))]
    targets = [int(columns.to[j]) for j in mine]
    shared = {r for r in targets if r >= 0 and targets.count(r) > 1}
    kept: list[Source] = []
    sums = {r: np.zeros(n) for r in sorted(shared)}
    for block in blocks:
        wanted = []
        for c in range(_width(block)):
            r = int(columns.to[block[3] + c])
            if r < 0:
                value = columns.values[block[3] + c]
                if value:
                    offset = value * _values(block, c, n) + (0.0 if offset is None else offset)
            elif r in shared:
                sums[r] += _values(block, c, n)
            else:
                wanted.append((c, r))
        kept += _runs(block, wanted)
    return [*kept, *((None, None, np.ascontiguousarray(v), r) for r, v in sums.items())], offset


def _width(block: Source) -> int:
    return 1 if block[1] is None else block[1].shape[1]


def _values(block: Source, c: int, n: int) -> Array:
    codes, contrast, x, _ = block
    values = np.ones(n) if x is None else np.asarray(x, dtype=np.float64)
    return values if codes is None else values * contrast[codes, c]


def _runs(block: Source, wanted: Sequence[tuple[int, int]]) -> list[Source]:
    """Return the block's wanted columns as blocks whose coefficients follow each other."""
    codes, contrast, x, _ = block
    if codes is None:
        return [(None, None, x, r) for _, r in wanted]
    if not wanted:
        return []
    cuts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(wanted)) if b[1] != a[1] + 1), len(wanted)]
    pieces = [wanted[i:j] for i, j in pairwise(cuts)]
    return [(codes, np.ascontiguousarray(contrast[:, [c for c, _ in piece]]), x, piece[0][1]) for piece in pieces]


def build(design: Design, task: Task, plan: Plan) -> Any:
    """Make the core of the reduced model, constrained and penalised."""
    parts, _ = laplace.core_components(design, task.family)
    wishes = task.wishes
    assert wishes is not None
    terms = [
        (*source[:2], structure, *source[3:])
        for source, structure in zip(laplace.term_sources(design.terms), plan.structures, strict=True)
    ]
    core = laplace.core_of(design, task, reduced(parts, plan.columns, design.n), plan.columns.size, terms)
    at = {key: i for i, key in enumerate(core.parameters)}
    held = [(at[p.at, p.kind, p.index], v) for p, v in plan.held]
    tied = [[at[p.at, p.kind, p.index] for p in group] for group in plan.tied]
    _check_tied(core, plan, tied)
    _constrain(core, plan, held, tied)
    core.penalise(rows_of(plan, core, design, task), wishes.firth)
    return core


def _constrain(core: Any, plan: Plan, held: list[tuple[int, float]], tied: list[list[int]]) -> None:
    for (place, value), one in zip(plan.held, held, strict=True):
        try:
            core.constrain([one], [])
        except ValueError:
            hint = f"; write mat(…, nu = {value:g}) in the formula" if place.kind == "nu" else ""
            raise NotAvailableError(
                f"fixed: {place.name!r} cannot be held at {value:g}: outside its range, or a function of several "
                f"parameters{hint}"
            ) from None
    try:
        core.constrain(held, tied)
    except ValueError:
        lags = ", ".join(f"{place.name} = {value:g}" for place, value in plan.held if _lag(place) >= 0)
        raise OptionError(f"fixed: no covariance has {lags} together; move them towards what nearer lags say") from None


def _check_tied(core: Any, plan: Plan, tied: list[list[int]]) -> None:
    """Refuse ties of correlations that are no parameters of their own: what could not be held cannot be tied."""
    for group, places in zip(tied, plan.tied, strict=True):
        for one, place in zip(group, places, strict=True):
            if place.kind != "cor":
                continue
            try:
                core.constrain([(one, PROBE)], [])
            except ValueError:
                raise NotAvailableError(
                    f"equal: {place.name!r} is a function of several parameters and cannot be tied; for "
                    f"equal correlations write cs() or homcs()"
                ) from None
    for places in plan.tied:
        if len({p.at for p in places}) > 1 and max(map(_lag, places)) > 0:
            raise NotAvailableError(
                f"equal: {', '.join(repr(p.name) for p in places)} are lags of several terms, of which only the first "
                f"can be tied; hold them with fixed="
            )


# ---- as an engine ----------------------------------------------------------------------------------------------------


class Reduced:
    """The core of a reduced model, which answers questions about the whole one."""

    def __init__(self, core: Any, columns: Columns, at: tuple[list[float], list[float]]) -> None:
        self.core, self.columns, self.at = core, columns, at
        self.turn = core.turn

    def cond_cov(self, term: int) -> Array:
        """Conditional covariance of the modes of a term."""
        return self.core.cond_cov(term)

    def predict_var(self, component: int, blocks: Sequence[Source], terms: Any, n: int) -> Array:
        """Variance of a linear predictor; held coefficients have none."""
        parts = reduced([(list(blocks), None)], self.columns, n)
        return self.core.predict_var(component, parts[0][0], terms, n)


def estimate(design: Design, task: Task, look: Look | None = None) -> tuple[Any, LaplaceEstimate]:
    """Return the core and the estimate of one design; errors and `look` as those of the Laplace engine."""
    if look is not None:
        check_seen(design)
    design = laplace.prepared(design)
    laplace.check(design, _is_informed(task))
    laplace.check_method(design, task)
    plan = make_plan(design, task)
    if task.control.start is not None and any(plan.converted):
        raise NotAvailableError("control: start values go with fixed=, equal= and prior= of coefficients only")
    core, record = optimum(design, task, plan, look)
    found = expanded(record, core, design, task, plan)
    return Reduced(core, plan.columns, (list(record["beta"]), list(record["theta"]))), found


def _is_informed(task: Task) -> bool:
    """Tell whether priors or a penalty keep estimates finite where all outcomes are one."""
    wishes = task.wishes
    some = wishes is not None and bool(wishes.priors or wishes.firth)
    return some and task.family.entry.support in ("binomial", "count")


def optimum(design: Design, task: Task, plan: Plan, look: Look | None = None) -> tuple[Any, Any]:
    """Return the core of a plan's reduced model and its record of the optimum, with what `look` says of the response.

    Raises
    ------
    DataError
        If the search fails.
    """
    options = (task.quadrature, task.control.options, task.method)
    try:
        core = build(design, task, plan)
        asked = look is not None and not (task.wishes is not None and task.wishes.firth)
        apart = look(_dropped(core, plan)) if look is not None and asked else None
        start = _start(laplace.start_of(task, design), plan.columns, design, task)
        try:
            return core, {**core.fit(start, *options), "separated": apart}
        except ValueError as error:
            if not laplace.lost_mode(error) or task.control.start is not None:
                raise
            try:
                return core, {**core.fit({"theta": _hardly_any(core, design)}, *options), "separated": apart}
            except ValueError:
                raise error from None
    except ValueError as error:
        raise laplace.explained(error, design, task) from error


def _dropped(core: Any, plan: Plan) -> tuple[int, ...]:
    """Return the user's coefficients that the core dropped."""
    gone = set(core.dropped)
    return tuple(j for j, r in enumerate(plan.columns.to.tolist()) if r in gone)


def _hardly_any(core: Any, design: Design) -> Array:
    """Return theta of next to no random effects: away from poles, where modes are flat; what is held stays."""
    own, structured = core.ntheta - len(core.parameters), {t for t, *_ in core.parameters}
    plain = [t for i, t in enumerate(design.terms) if i not in structured]
    theta = np.zeros(core.ntheta)
    theta[:own] = [laplace.NEARLY_NONE * (i == j) for t in plain for i, j in cells(len(t.names), t.structure)]
    for at, (_, name, _) in enumerate(core.parameters, own):
        theta[at] = {"sd": np.log(laplace.NEARLY_NONE), "loading": laplace.NEARLY_NONE}.get(name, 0.0)
    return theta


def _start(start: dict[str, Any] | None, columns: Columns, design: Design, task: Task) -> dict[str, Any] | None:
    if start is None or "beta" not in start or columns.trivial:
        return start
    beta = np.array(start["beta"])
    if task.family.entry.name == "cumulative":
        matrix = threshold_matrix(len(design.categories), task.family.threshold)
        first = len(beta) - matrix.shape[1] * (1 + len(nominal_names(design)))
        at = slice(first, first + matrix.shape[1])
        to = columns.to[at]
        if (to < 0).any() or len(np.unique(to)) < len(to):
            beta[at] = in_order(matrix, beta[at], to, columns.values[at])
    return {**start, "beta": np.array([beta[columns.to == r].mean() for r in range(columns.size)])}


def expanded(record: Any, core: Any, design: Design, task: Task, plan: Plan) -> LaplaceEstimate:
    """Turn the record of the reduced model into an estimate of the whole one."""
    columns, p = plan.columns, len(record["beta"])
    beta = frozen(columns.expand(np.asarray(record["beta"])))
    found = laplace.from_core({**record, "beta": beta}, core, design, task, separated=record["separated"])
    turn = _theta_map(core, design, plan, found.natural)
    whole = np.zeros((len(beta) + len(turn), p + turn.shape[1]))
    whole[: len(beta), :p] = columns.matrix()
    whole[len(beta) :, p:] = turn
    gone = _dropped(core, plan)
    plain = [(f, t) for f, t in zip(found.factors, design.terms, strict=True) if t.structure in EXPLICIT]
    own = [f[i, j] for f, t in plain for i, j in cells(len(f), t.structure)]
    rest = _with_lags(np.asarray(record["theta"]), core, plan, found.natural)[structures_of(core, plan)]
    held = len(plan.held) + sum(len(g) - 1 for g in plan.tied)
    joint = Deferred(lambda: _spread(whole, np.asarray(core.vcov())))
    return replace(
        found,
        theta=frozen(np.concatenate([own, rest])),
        beta=beta,
        joint=joint,
        told=laplace.told(joint, beta, design, task),
        rank=columns.size - len(core.dropped),
        dropped=gone,
        natural=tuple(n for n in found.natural if not plan.converted[n[0]]),
        penalty=float(record["criterion"]) + 2 * (found.loglik - design.constant),
        parameters=columns.size - len(core.dropped) + len(record["theta"]) - held,
        held=tuple(np.flatnonzero(columns.to < 0).tolist()),
        held_spread=tuple((p.at, p.kind, p.index) for p, _ in plan.held),
    )


def _spread(whole: Array, v: Array) -> Array:
    """Return A V A'; NaN where an unidentified parameter takes part."""
    lost = np.isnan(np.diag(v))
    touched = (whole[:, lost] != 0).any(axis=1)
    out = whole @ np.where(np.isnan(v), 0.0, v) @ whole.T
    out[touched, :] = np.nan
    out[:, touched] = np.nan
    return out


def structures_of(core: Any, plan: Plan) -> list[int]:
    """Return the positions in the core's theta of the parameters of structures that the formula names."""
    own = core.ntheta - len(core.parameters)
    return [
        own + i
        for i, (t, _, _) in enumerate(core.parameters)
        if plan.structures[t] not in (*EXPLICIT.values(), "correlated")
    ]


@dataclass(frozen=True, slots=True)
class Lags:
    """Correlations of a Toeplitz term of which some beyond the first lag are held or tied; lags count from 0.

    The core leaves the coordinates of these where they are: what they are follows from the correlations.
    """

    at: tuple[int, ...]
    correlations: Array
    held: tuple[int, ...]
    tied: tuple[tuple[int, int], ...]


Naturals = Sequence[tuple[int, str, int | None, float]]


def _lags(core: Any, plan: Plan, natural: Naturals) -> list[Lags]:
    """Return the terms with such correlations, with positions in the core's theta."""
    first, places = core.ntheta - len(core.parameters), list(core.parameters)
    out: list[Lags] = []
    for t, structure in enumerate(plan.structures):
        held = tuple(_lag(p) for p, _ in plan.held if p.at == t and _lag(p) > 0)
        groups = [sorted(map(_lag, g)) for g in plan.tied if g[0].at == t and max(map(_lag, g)) > 0]
        if structure not in TOEPLITZ or not (held or groups):
            continue
        at = tuple(first + i for i, (owner, kind, _) in enumerate(places) if owner == t and kind == "cor")
        values = np.array([v for owner, kind, _, v in natural if owner == t and kind == "cor"])
        out.append(Lags(at, values, held, tuple((g[0], late) for g in groups for late in g[1:])))
    return out


def _lag(place: Place) -> int:
    return place.index - 1 if place.kind == "cor" and place.index is not None else -1


def _with_lags(theta: Array, core: Any, plan: Plan, natural: Naturals) -> Array:
    out = theta.copy()
    for lags in _lags(core, plan, natural):
        out[list(lags.at)] = toeplitz_coordinates(lags.correlations)
    return out


def _theta_map(core: Any, design: Design, plan: Plan, natural: Naturals) -> Array:
    """Return d theta / d (the core's theta): entries of Lambda of the converted terms by their parameters."""
    jacobians = dict(core.factor_jacobians())
    first = core.ntheta - len(core.parameters)
    rows: list[Array] = []
    at = 0
    for t, term in enumerate(design.terms):
        k = len(term.names)
        if term.structure not in EXPLICIT:
            continue
        entries = cells(k, term.structure)
        part = np.zeros((len(entries), core.ntheta))
        if plan.converted[t]:
            lower = cells(k, "us")
            mine = [first + i for i, (owner, _, _) in enumerate(core.parameters) if owner == t]
            slope = np.asarray(jacobians[t]).reshape(len(mine), len(lower)).T
            part[:, mine] = slope[[lower.index(e) for e in entries]]
        else:
            part[:, at : at + len(entries)] = np.eye(len(entries))
            at += len(entries)
        rows.append(part)
    own = np.eye(core.ntheta)
    for lags in _lags(core, plan, natural):
        x = toeplitz_coordinates(lags.correlations)
        own[np.ix_(lags.at, lags.at)] = bound_slopes(x, lags.held, lags.tied)
    rows.append(own[structures_of(core, plan)])
    return np.vstack(rows)


def variance(core: Any, point: Point, which: Sequence[bool]) -> Array:
    """Variance of a linear predictor from the joint covariance of coefficients and random effects."""
    return laplace.variance(core, point, which)


@dataclass(frozen=True, slots=True)
class Remains:
    """What is left of a core without its rows, and where it stood."""

    conditional: tuple[Array, ...]
    at: tuple[list[float], list[float]]


def _rebuilt(design: Design, task: Task, at: tuple[list[float], list[float]]) -> Reduced:
    """Return the core of a fit, where the fit stands."""
    design = laplace.prepared(design)
    plan = make_plan(design, task)
    core = build(design, task, plan)
    core.adopt(np.nan_to_num(at[0]).tolist(), at[1], task.quadrature, task.method)
    return Reduced(core, plan.columns, at)


def save(core: Any, found: LaplaceEstimate) -> Remains:
    """Return what a fit without rows keeps of its core."""
    at = getattr(core, "at", ([], []))  # a slim fit has no rows that could stand anywhere
    return Remains(tuple(frozen(core.cond_cov(t)) for t in range(len(found.modes))), at)


def restore(saved: Remains, _found: LaplaceEstimate, design: Any, task: Task) -> Any:
    """Return a core that answers as the fit's did."""
    return laplace.Remains(saved.conditional) if design is None else Rebuilt(partial(_rebuilt, design, task, saved.at))


ENGINE = Engine("constrained", estimate, estimate, one_by_one(estimate), variance, save, restore)
