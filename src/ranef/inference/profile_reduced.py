"""Profiles of fits with parameters held or tied, or with priors: curves of the reduced model, told as the whole one's.

The core follows curves in the coordinates of the model it was given (`engines.constrained`): coefficients held are
offsets there, tied ones one column, and terms that are touched have a coordinate for every standard deviation (its
logarithm) and correlation (its arc sine). Here parameters of the whole model find their coordinates, and points of
curves their way back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines import constrained, laplace
from ranef.engines.estimate import Array
from ranef.engines.linear import cells
from ranef.engines.parameters import EXPLICIT, Place
from ranef.engines.plan import Columns, Plan, make_plan
from ranef.inference.parameters import EXP, SINE, Parameter, parameters, values
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.frame import Design
    from ranef.model import Fit

EDGE = 1.0 - 1e-8  # the core's largest correlation


@dataclass(frozen=True)
class ReducedModel:
    """A reduced model at its optimum by maximum likelihood (with priors: its mode).

    Attributes
    ----------
    core : the core, of the reduced model
    plan : Plan
        Its structures are those of the core.
    at : (list of float, list of float)
        Coefficients and theta of the core.
    design : Design
    known : dict
        Label -> the parameter with the core's coordinate, or why it has no profile.
    """

    core: Any
    plan: Plan
    at: tuple[list[float], list[float]]
    design: Design
    known: Mapping[str, Parameter]

    def coordinate_of(self, p: Parameter) -> Parameter:
        """Return the parameter as the core takes it."""
        return self.known[p.label]

    def whole(self, beta: Array, theta: Array) -> tuple[Array, Array]:
        """Return all coefficients and theta of the whole model at points of the core, one a row."""
        return expanded(self.plan.columns, beta), whole_theta(self.core, self.design, self.plan, theta)


def reduced_model(m: Fit) -> ReducedModel:
    """Return the reduced model of a fit; fits by REML, or with angles of partial correlations, are fitted again."""
    design = laplace.prepared(design_of(m, "profile"))
    given = make_plan(design, m.task)
    plan = with_plain_correlations(given)
    core, at = m.core.core, m.core.at
    if m.method != "ml" or plan is not given:
        task = replace(m.task, method="ml", control=replace(m.task.control, start=None))
        core, record = constrained.optimum(design, task, plan)
        at = (list(record["beta"]), list(record["theta"]))
    return ReducedModel(core, plan, (np.nan_to_num(at[0]).tolist(), at[1]), design, coordinates(m, plan, core))


def with_plain_correlations(plan: Plan) -> Plan:
    """Return the plan with a coordinate for each correlation of its terms of more than two columns."""
    pairs = [p.at for p in plan.names.of_kind("cor")]
    structures = tuple(
        "correlated" if s == "unstructured" and pairs.count(t) > 1 else s for t, s in enumerate(plan.structures)
    )
    return plan if structures == plan.structures else replace(plan, structures=structures)


# ---- from the whole model to the core --------------------------------------------------------------------------------


def coordinates(m: Fit, plan: Plan, core: Any) -> dict[str, Parameter]:
    """Return all parameters with their coordinates in the core."""
    found, shifts = dict(zip([p.label for p in parameters(m)], values(m), strict=True)), _shifts(m, plan)
    return {p.label: _coordinate(p, plan, core, shifts, found[p.label]) for p in parameters(m)}


def _shifts(m: Fit, plan: Plan) -> dict[int, int]:
    """Return how far the entries of Lambda of each term that keeps them move, as other terms have none."""
    out, moved = {}, 0
    for t, term in enumerate(m.layout.terms):
        if term.structure in EXPLICIT and plan.converted[t]:
            moved -= len(cells(len(term.names), term.structure))
        out[t] = moved
    return out


def _coordinate(p: Parameter, plan: Plan, core: Any, shifts: Mapping[int, int], value: float) -> Parameter:
    if p.refused:
        return p
    kind, first, second = p.hold
    if kind == "beta":
        to = int(plan.columns.to[first[0]])
        return replace(p, hold=(kind, (to,), ())) if to >= 0 else replace(p, refused=_held(value))
    place = plan.names.get(p.label)
    assert place is not None
    if any(place == held for held, _ in plan.held):
        return replace(p, refused=_held(value))
    if kind == "lag":
        assert place.index is not None
        before = [replace(place, index=i) for i in range(1, place.index + 1)]
        return replace(p, hold=(kind, tuple(_position(core, _leader(plan, lag)) for lag in before), ()))
    if plan.structures[place.at] in EXPLICIT:
        shift = shifts[place.at]
        return replace(p, hold=(kind, tuple(i + shift for i in first), tuple(i + shift for i in second)))
    hold = ("coordinate", (_position(core, _leader(plan, place)),), ())
    if not plan.converted[place.at]:
        return replace(p, hold=hold)
    if p.kind == "cor":
        return replace(p, hold=hold, transform=SINE)
    if value == 0:
        why = "its estimate is 0, and beside parameters held, tied or with priors its coordinate is the logarithm"
        return replace(p, refused=why)
    return replace(p, hold=hold, transform=EXP, low=-math.inf, high=math.inf)


def _leader(plan: Plan, place: Place) -> Place:
    """Return the parameter whose coordinate a tied one shares; names apart, as some places are made here."""
    own = (place.at, place.kind, place.index)
    return next((g[0] for g in plan.tied if any((p.at, p.kind, p.index) == own for p in g)), place)


def _held(value: float) -> str:
    return f"it is held at {value:.6g}"


def _position(core: Any, place: Place) -> int:
    """Return where a parameter of a structure stands in the core's theta."""
    return core.ntheta - len(core.parameters) + core.parameters.index((place.at, place.kind, place.index))


# ---- and back --------------------------------------------------------------------------------------------------------


def expanded(columns: Columns, beta: Array) -> Array:
    """Return all coefficients, (r, p), from those of the reduced model."""
    return np.array([columns.expand(row) for row in beta]).reshape(len(beta), len(columns.to))


def whole_theta(core: Any, design: Design, plan: Plan, theta: Array) -> Array:
    """Return theta of the whole model, (r, m): entries of Lambda of all terms that have them, then structures."""
    first, at = core.ntheta - len(core.parameters), 0
    parts: list[Array] = []
    for t, term in enumerate(design.terms):
        if term.structure not in EXPLICIT:
            continue
        entries = cells(len(term.names), term.structure)
        if plan.converted[t]:
            mine = [first + i for i, (owner, _, _) in enumerate(core.parameters) if owner == t]
            roots = _roots(theta[:, mine], len(term.names))
            parts.append(np.column_stack([roots[:, i, j] for i, j in entries]))
        else:
            parts.append(theta[:, at : at + len(entries)])
            at += len(entries)
    return np.column_stack([*parts, theta[:, constrained.structures_of(core, plan)]])


def _roots(own: Array, k: int) -> Array:
    """Return Lambda, (r, k, k), from log standard deviations and arc sines of correlations, column by column."""
    sd, angles = np.exp(own[:, :k]), own[:, k:]
    correlation = np.tile(np.eye(k), (len(own), 1, 1))
    below = [(i, j) for j in range(k) for i in range(j + 1, k)]
    for (i, j), angle in zip(below, angles.T, strict=False):  # a diagonal covariance has none
        correlation[:, i, j] = correlation[:, j, i] = EDGE * np.sin(angle)
    return np.asarray(np.linalg.cholesky(correlation) * sd[:, :, None], dtype=np.float64)
