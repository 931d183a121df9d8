"""Generalised and distributional mixed models: a `Design` goes to the core, a `LaplaceEstimate` comes back.

Model: y_i ~ f(. | eta_i1 .. eta_iK), eta_k = X_k beta + Z_k b + offset_k, b_t ~ N(0, I (x) Lambda_t Lambda_t'). The
likelihood integrates over b by Laplace's approximation. The coefficients of all components stand in one vector, the
mean's first; the thresholds of an ordinal family are shared between its two threshold predictors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef import _core
from ranef.engines import extra_zeros, survey
from ranef.engines.covariance import Deferred, frozen
from ranef.engines.estimate import Array, LaplaceEstimate, Result, of_search
from ranef.engines.linear import LOOSE, canonical, cells, sources, structure_error, theta_lower
from ranef.engines.nesting import BEYOND, check_quadrature, few, most_nodes
from ranef.engines.overlap import Separated, begun, of_predictors
from ranef.engines.runaways import reported
from ranef.engines.task import Engine, Look, Point, Task
from ranef.engines.thresholds import (
    NOMINAL,
    check_nominal,
    check_thresholds,
    nominal_names,
    threshold_matrix,
    threshold_names,
    thresholds,
)
from ranef.engines.turns import Rebuilt, in_turn
from ranef.errors import DataError, NotAvailableError, OptionError, RanefError
from ranef.families import Distribution, legal_link, link_of
from ranef.families.custom import Seen, check_begin, core_spec, without_value
from ranef.formula.functions import PATTERNED, STRUCTURES
from ranef.frame.checks import (
    absorbed_residual,
    check_covariances,
    check_levels,
    check_response,
    check_units,
    too_few_inside,
    unlogged_offset,
)
from ranef.frame.design import Block, Component, part_of
from ranef.frame.little import little
from ranef.frame.outcomes import by_outcome, check_seen

if TYPE_CHECKING:
    from ranef.frame import Design, GroupTerm

Source = tuple[Any, Any, Any, int]
NEARLY_NONE = 1e-2  # standard deviation of random effects to begin with, in units of the predictor
NONE = 1e-30  # and to do without: below the floor of every search
FAILED = "failed"  # the outcome of a search that had no point to begin from
START_NODES, START_WORK = 5, 20_000  # of quadrature that leads to a start: evaluations of the density for one value …
START_STEPS = 60  # … and values
ROUNDING = 1e-9  # of a log-likelihood
MORE = 1e-4  # log-likelihood by which another optimum is better: less is the same one, not quite at infinity
ROUGH = 1e8  # precision of proportions above which the density loses the digits that a certificate needs
BREAKS = "breaks down"  # what the core says of Laplace's approximation at a flat mode
NO_MODE = "pivot of a level"  # and where its curvature at the mode is that of no maximum
NEARLY_HELD = 1e-3  # a residual standard deviation held at less than this share of the response's


# ---- components ------------------------------------------------------------------------------------------------------


def components(design: Design, family: Distribution) -> list[Component]:
    """Return the linear predictors in the core's order, thresholds included."""
    return [*named(design, family), *(Component("threshold", t.fixed) for t in thresholds(design, family))]


def named(design: Design, family: Distribution) -> list[Component]:
    """Return the linear predictors that have formulas; those of a multinomial model bear its categories' names."""
    found = [c for c in design.components if c.name != NOMINAL]
    if family.entry.nominal:
        found[0] = replace(found[0], name=family.levels[0])
    return found


def layout(design: Design, family: Distribution) -> list[tuple[str, tuple[str, ...]]]:
    """Return (component, names of its coefficients) in the order of beta; shared coefficients once."""
    found = [(c.name, c.names) for c in named(design, family)]
    if not family.entry.ordinal:
        return found
    cuts = threshold_names(design.categories, family)
    return [*found, ("threshold", (*cuts, *(f"{cut}.{x}" for x in nominal_names(design) for cut in cuts)))]


def core_components(design: Design, family: Distribution) -> tuple[list[tuple[list[Source], Array | None]], int]:
    """Return the components as the core takes them, and how many coefficients there are."""
    out: list[tuple[list[Source], Array | None]] = []
    first = 0
    for component in named(design, family):
        blocks, first = _numbered(component.fixed, first)
        out.append((blocks, component.offset))
    if family.entry.ordinal:
        cuts = thresholds(design, family)
        out += [
            ([(b.codes, b.contrast, b.x, first + at) for b, at in zip(t.fixed, t.at, strict=True)], None) for t in cuts
        ]
        first += threshold_matrix(len(design.categories), family.threshold).shape[1] * (1 + len(nominal_names(design)))
    return out, first


def _numbered(blocks: Sequence[Block], first: int) -> tuple[list[Source], int]:
    out: list[Source] = []
    for block in blocks:
        out.append((block.codes, block.contrast, block.x, first))
        first += len(block.names)
    return out, first


# ---- the core --------------------------------------------------------------------------------------------------------


def term_sources(terms: Sequence[GroupTerm]) -> list[tuple[Any, ...]]:
    """Random-effects terms as the core takes them, with what their structure knows of the columns."""
    return [(t.codes, len(t.levels), t.structure, sources(t.blocks), list(t.components), known_of(t)) for t in terms]


def known_of(term: GroupTerm) -> dict[str, Any]:
    """Positions of the columns of a term, its known matrix, its rank, its known smoothness, its related levels."""
    known = {"coordinates": term.points, "matrix": term.matrix}
    numbers = {"rank": term.rank, "nu": term.nu}
    return {
        **{name: value.tolist() for name, value in known.items() if value is not None},
        **{name: value for name, value in numbers.items() if value is not None},
        **({} if term.relation is None else {"relation": term.relation.arrays}),
    }


def make_core(design: Design, task: Task) -> Any:
    """Hand the arrays of a design to the core."""
    if not hasattr(_core, "Glmm"):
        raise NotAvailableError(f"family={task.family.name!r} is not available in this version; it fits 'gaussian'")
    return core_of(design, task, *core_components(design, task.family), term_sources(design.terms))


def core_of(design: Design, task: Task, parts: Sequence[Any], p: int, terms: Sequence[Any]) -> Any:
    """Hand the arrays of a design to the core, with these components of p coefficients and these terms."""
    data = response_data(design)
    y = data["y"]
    weights = survey.scaled(design) if design.sampling else survey.Scaled(design.frequencies, {})
    spec = task.family.spec if task.family.custom is None else core_spec(task.family, y)
    core = in_turn(_core.Glmm(spec, parts, p, terms, data, weights.rows, task.control.threads))
    for term, values in weights.levels.items():
        core.weigh(term, values.tolist())
    return core


def response_data(design: Design) -> dict[str, Any]:
    """Return the response and what belongs to it, as the core takes them."""
    given = {
        "trials": design.trials, "censor": design.censor, "upper": design.upper, "randomised": design.randomised,
        "bounds": design.bounds,
    }  # fmt: skip
    return {
        "y": np.ascontiguousarray(design.y),
        **{name: value for name, value in given.items() if value is not None},
    }


def estimate(design: Design, task: Task, look: Look | None = None) -> tuple[Any, LaplaceEstimate]:
    """Return the core and the estimate of one design; `look` is asked first what separates it, where something may.

    Raises
    ------
    DataError
        If the data cannot carry the model.
    NotAvailableError
        If a term has a covariance structure, or the task a method, that this engine does not know.
    """
    if look is not None:  # what is simulated from a fit may lack a category
        check_seen(design)
    design = prepared(design)
    check(design)
    check_nominal(design)
    check_thresholds(design, task.family)
    if task.family.custom is not None:
        check_begin(task.family, _seen(design))
    check_method(design, task)
    try:
        core = make_core(design, task)
        apart = looked(core, design, task, look)
        if task.control.optimizer == "newton":
            at = found(core, design, task)
        else:
            at = Found(search_with(core, design, task))
    except ValueError as error:
        raise explained(error, design, task) from error
    if task.wishes is None and too_few_inside(design, task.family.entry.name) and _runs_on(at, task):
        at = replace(at, record={**at.record, "outcome": "unbounded"})
    if at.outcome == "stalled" and (why := _too_little(design, task, little(design))):
        raise DataError(f"the search was lost in rounding errors{why}")
    return core, from_core(at.record, core, design, task, pole=at.pole, spread=at.spread, separated=apart)


def looked(core: Any, design: Design, task: Task, look: Look | None) -> Separated | None:
    """Return what separates a response, before the search; None where nobody asks, or it cannot be known."""
    if look is None:
        return None
    family = task.family
    if family.custom is not None:
        return look(core.dropped)
    found = None if family.categorical else of_predictors(design, family, named(design, family))
    return Separated() if begun(core, start_of(task, design), task, found) else look(core.dropped)


def _runs_on(at: Found, task: Task) -> bool:
    """Whether a search ended at no optimum inside, whatever rounding errors made of a likelihood without bound."""
    precision = link_of(task.family.links[1]).inverse(np.asarray(at.record["reach"][1][1]))
    return at.outcome != "converged" or not float(precision) < ROUGH


def searched(core: Any, design: Design, task: Task) -> Any:
    """Return the record of a search, from where all rows have one mean if the usual start is no legal place."""
    options = (task.quadrature, task.control.options, task.method)
    try:
        return core.fit(start_of(task, design), *options)
    except ValueError as error:
        start = flat_start(design, task)
        if isinstance(error, RanefError) or start is None:
            raise
        try:
            return core.fit(start, *options)
        except ValueError:
            raise error from None


def flat_start(design: Design, task: Task) -> dict[str, Any] | None:
    """Start without predictors and nearly without random effects; None where that is the usual one.

    Without random effects the optimum may lie at the edge of the means that a link lets be, where every random effect
    is too much.
    """
    family = task.family
    if task.control.start is not None or family.categorical or family.custom is not None or task.wishes is not None:
        return None
    if any(t.structure in PATTERNED or t.owners for t in design.terms):
        return None
    begin = _core.family_start(family.spec, response_data(design))
    parts = [[eta if name == "(Intercept)" else 0.0 for name in c.names]
             for c, eta in zip(named(design, family), begin, strict=False)]  # fmt: skip
    diagonal = [NEARLY_NONE * abs(begin[t.component]) * (i == j)
                for t in design.terms for i, j in cells(len(t.names), t.structure)]  # fmt: skip
    return {"beta": np.concatenate(parts), "theta": np.array(diagonal)}


@dataclass(frozen=True, slots=True)
class Found:
    """Where a search ended.

    Attributes
    ----------
    record : dict
        What the core says of the point.
    pole : float or None
        Log-likelihood beside a pole of Laplace's approximation that was left for the point; NaN where it has none.
    spread : callable or None
        Computes the covariance matrix of (beta, theta), where it is that of another model.
    """

    record: Any
    pole: float | None = None
    spread: Callable[[], Array] | None = None

    @property
    def outcome(self) -> str:
        """Name of an `Outcome`, or that the search failed."""
        return self.record["outcome"]


def found(core: Any, design: Design, task: Task) -> Found:
    """Return where the search ends: it may fail at once where Laplace's approximation breaks down."""
    try:
        record = searched(core, design, task)
    except ValueError as error:
        if not lost_mode(error):
            raise
        other = integrated(core, design, task, regular(core, design, task, {"outcome": FAILED}))
        if other.outcome == FAILED:
            raise
        return other
    return with_zeros(core, design, task, integrated(core, design, task, regular(core, design, task, record)))


def lost_mode(error: ValueError) -> bool:
    """Tell whether a search was lost where the mode of the random effects is flat, or none."""
    return not isinstance(error, RanefError) and (BREAKS in str(error) or NO_MODE in str(error))


def with_zeros(core: Any, design: Design, task: Task, at: Found) -> Found:
    """Return the best of several optima where extra zeros are none, or gain little; see `extra_zeros`."""
    free = task.control.start is None and task.control.max_evaluations is None and task.wishes is None
    parts = named(design, task.family)
    most = extra_zeros.most_lost(at.record, parts, design, task.family) if free else 0.0
    if not most or (most < np.inf and not _little_gained(core, design, task, (at.record["loglik"], most))):
        return at
    options, best, begin, searches = (task.quadrature, task.control.options, task.method), at.record, None, [at.record]
    for start in extra_zeros.starts(at.record, parts, design, task.family):
        spare = make_core(design, task)
        other = _tried(spare, start, *options)
        if other["outcome"] == FAILED:
            continue
        searches.append(other)
        better = other["outcome"] == "converged" and other["loglik"] > best["loglik"] + MORE
        if better and extra_zeros.known(np.asarray(other["beta"]), np.asarray(spare.vcov()), parts):
            best, begin = other, start
    if begin is not None:
        best = core.fit(begin, *options)  # the core must stand where the fit is reported
        searches.append(best)
    work = {name: sum(record[name] for record in searches) for name in ("evaluations", "inner", "iterations")}
    return replace(at, record={**best, **work}, spread=at.spread if begin is None else None)


def _little_gained(core: Any, design: Design, task: Task, here: tuple[float, float]) -> bool:
    """Tell whether extra zeros gain little over the model without any, as far as its start tells.

    `here` is the log-likelihood, and the most of it that may be lost at once.
    """
    if task.family.custom is not None:
        return False
    lost = extra_zeros.lost_at_once(np.asarray(core.eta()), task.family, response_data(design), design.frequencies)
    loglik, most = here
    if not extra_zeros.GAINED <= lost < most:
        return lost < extra_zeros.GAINED
    plain = replace(task, family=replace(task.family, zero_inflation=False))
    options = (task.quadrature, {**task.control.options, "max_evaluations": 1}, task.method)
    try:
        begun = make_core(extra_zeros.without_any(design), plain).fit(None, *options)
    except ValueError:
        return True
    return loglik < begun["loglik"] + extra_zeros.GAINED


def integrated(core: Any, design: Design, task: Task, at: Found) -> Found:
    """Return the optimum that the search comes to from that of quadrature, where it ended at none.

    Quadrature integrates beyond modes that are flat, and its likelihood is close to Laplace's where the latter has an
    optimum at all. At a pole a lower optimum is kept, as in `regular`; where the search merely ended, a better one.
    """
    limited = task.control.max_evaluations is not None and at.outcome == "max_evaluations"
    own = task.method == "ml" and task.quadrature == 1 and task.wishes is None and not design.sampling
    own = own and not task.family.categorical  # whose searches end so where outcomes are separated
    if at.outcome in ("converged", "unbounded") or limited or not own or task.control.start is not None:
        return at
    nodes = most_nodes(design, START_NODES)
    if nodes < START_NODES or not few(nodes, design, START_WORK):
        return at
    steps = min(START_STEPS, task.control.max_evaluations or START_STEPS)
    options, other = ({**task.control.options, "max_evaluations": steps}, task.method), make_core(design, task)
    first = _tried(other, start_of(task, design), nodes, *options)
    if first["outcome"] == FAILED:
        return at
    start = {name: np.asarray(first[name]) for name in ("beta", "theta")}
    record = _tried(other, start, 1, *options)
    ended, loglik = at.record.get("loglik", np.nan), record.get("loglik", np.nan)
    pole = at.outcome in ("flat_mode", FAILED)
    if record["outcome"] != "converged" or not (pole or loglik >= ended - ROUNDING):
        return at
    record = core.fit(start, 1, *options)  # the core must stand where the fit is reported
    work = {
        name: at.record.get(name, 0) + first[name] + record[name] for name in ("evaluations", "inner", "iterations")
    }
    return Found({**record, **work}, ended if pole else None)


def regular(core: Any, design: Design, task: Task, record: Any) -> Found:
    """Return a regular optimum where the search ended at a pole.

    With random effects outside the mean, or of a density whose logarithm is not concave, Laplace's approximation has
    poles: their mode becomes flat, and the likelihood so approximated rises to where it breaks down, which is no
    optimum. A second search begins at the optimum of the model without them, with variances of zero; if it converges,
    its optimum is kept although it may lie lower. Effects in the mean are left in it if there are others, those that
    terms share with other predictors too. Where the second search comes to a pole, or both get stuck as beside one, the
    optimum without the effects outside the mean is returned, uncertified if it is none with them, and then with the
    standard errors that it has without them: the place at the pole is any place, and says nothing about the others.
    """
    first = Found(record)
    if first.outcome not in ("stalled", "flat_mode", FAILED) or task.control.start is not None:
        return first
    some = any(owner != 0 for t in design.terms for owner in t.owner_of)
    stay = [[j for j, owner in enumerate(t.owner_of) if some and owner == 0] for t in design.terms]
    cut = [t for t, kept in zip(design.terms, stay, strict=True) if len(kept) < len(t.names)]
    if not cut or any(t.structure in PATTERNED and (t.owners or not some) for t in cut):
        return first  # a structure of the mean is not taken away, nor a part of one
    options = (task.quadrature, task.control.options, task.method)
    inside = replace(design, terms=tuple(part_of(t, 0)[0] for t, kept in zip(design.terms, stay, strict=True) if kept))
    inner = make_core(inside, task)
    without = _found_inside(inner, inside, task)
    if without["outcome"] == FAILED:
        return first
    places = _places(core, design, stay)
    theta = partial(_without, core, stay, places, without, record)
    start = {"beta": np.asarray(without["beta"]), "theta": theta(NEARLY_NONE)}
    second = _tried(core, start, *options)
    work = {name: record.get(name, 0) + second.get(name, 0) for name in ("evaluations", "inner", "iterations")}
    pole = float(record.get("loglik", np.nan))
    if second["outcome"] == "converged":
        return Found({**second, **work}, pole)
    if some and without["outcome"] == "converged":
        at = {**start, "theta": theta(NONE), "exact": True}
        third = {**_tried(core, at, task.quadrature, {"max_evaluations": 1}, task.method), **work}
        # Loadings of zero have no slope, whether that is an optimum or not.
        loadings = any(t.structure == "rr" for t in cut)
        if third["outcome"] != FAILED and third["decrease"] < LOOSE and not loadings:
            return Found({**third, "outcome": "converged"}, pole)
        ends = {first.outcome, second["outcome"]}
        if third["outcome"] != FAILED and (ends & {"flat_mode", FAILED} or ends == {"stalled"}):
            return Found({**third, "outcome": "flat_mode"}, pole, partial(_spread_of, inner, core, places))
    # The core must stand where the fit is reported.
    return first if first.outcome == FAILED else Found(searched(core, design, task))


def _found_inside(core: Any, design: Design, task: Task) -> dict[str, Any]:
    """Return the record of where the search of a model inside ends, or that it failed."""
    try:
        return found(core, design, task).record
    except ValueError:
        return {"outcome": FAILED}


def _tried(core: Any, start: Any, *options: Any) -> dict[str, Any]:
    """Return the record of a search, or that it failed."""
    try:
        return core.fit(start, *options)
    except ValueError:
        return {"outcome": FAILED}


def _places(core: Any, design: Design, stay: Sequence[Sequence[int]]) -> list[int]:
    """Return where theta holds the parameters of the model of the columns that stay, in their order."""
    own = core.ntheta - len(core.parameters)
    entries = [(i, cell) for i, t in enumerate(design.terms) if t.structure not in PATTERNED
               for cell in cells(len(t.names), t.structure)]  # fmt: skip
    plain = [at for at, (i, cell) in enumerate(entries) if set(cell) <= set(stay[i])]
    return plain + [at for at, (i, _, _) in enumerate(core.parameters, own) if stay[i]]


def _without(
    core: Any, stay: Sequence[Sequence[int]], places: list[int], without: Any, record: Any, size: float
) -> Array:
    """Return theta with the effects of the columns that stay, and others of this size, or none; see `_places`."""
    own, theta = core.ntheta - len(core.parameters), np.zeros(core.ntheta)
    theta[places] = without["theta"]
    for at, (i, name, _) in enumerate(core.parameters, own):
        if not stay[i] and name in ("sd", "loading"):
            theta[at] = np.log(size) if name == "sd" else size
        elif not stay[i] and name != "cor" and "theta" in record:
            theta[at] = record["theta"][at]
    return theta


def _spread_of(inner: Any, core: Any, places: list[int]) -> Array:
    """Return the covariance of (beta, theta) of the model without some effects; NaN for what it does not have."""
    at = np.concatenate([np.arange(core.p), core.p + np.array(places, dtype=int)])
    out = np.full((core.p + core.ntheta,) * 2, np.nan)
    out[np.ix_(at, at)] = inner.vcov()
    return out


def explained(error: ValueError, design: Design, task: Task) -> Exception:
    """Return an error of the core as one of ours, with what may have caused it."""
    if isinstance(error, RanefError):
        return error
    what = "the search was lost where random effects have no mode" if NO_MODE in str(error) else str(error)
    return DataError(f"{what}{_why_lost(design, task, str(error))}")


def _seen(design: Design) -> Seen:
    return Seen(np.asarray(design.y), design.trials, design.censor, design.upper)


def _why_lost(design: Design, task: Task, why: str) -> str:
    """Return what may have made a search fail: an offset, means out of range, a residual variance held or untold."""
    if task.family.custom is not None and (text := without_value(task.family, _seen(design))):
        return f": {text}"
    if (text := unlogged_offset(design, task.family.link)) is not None:
        return f": {text}"
    if BREAKS in why and task.quadrature == 1:
        nodes = most_nodes(design, BEYOND) if task.method == "ml" else 1
        wider = f"quadrature={nodes} integrates beyond the mode" if nodes > 1 else ""
        heavy = "hold its shape, nu=5" if task.family.entry.name == "student_t" else ""
        cures = [cure for cure in (wider, heavy) if cure]
        return f"; {'; or '.join(cures)}" if cures else ""
    if text := _out_of_range(task.family):
        return text
    if NO_MODE in why:
        return _no_mode(design, task.family)
    if task.family.is_gaussian_identity and (found := absorbed_residual(design)) is not None:
        return f": {found[1]}"
    return _too_little(design, task)


def _out_of_range(family: Distribution) -> str:
    """Return which parameter may leave its range under its link, the mean before others, and the link to try."""
    for row, link in zip(family.entry.parameters, family.links, strict=True):
        if (safe := legal_link(row.range, link)) is not None:
            said, what = (repr(link), "means") if row.name == "mean" else (f"{{{row.name!r}: {link!r}}}", "values")
            return f": under link={said} {what} may leave their range, and the search was lost there; try {safe!r}"
    return ""


def _no_mode(design: Design, family: Distribution) -> str:
    """Return which effects the density may be convex in: those of other parameters than the mean."""
    parts = named(design, family)
    others = [(t.label, parts[k].name) for t in design.terms for k in sorted({*t.owner_of} - {0})]
    if not others:
        return (
            f": the log density of {family.name} need not be concave in them; begin elsewhere by control={{'start': …}}"
        )
    where = ", ".join(f"{key} of {name}" for key, name in others)
    return (
        f" ({where}): the likelihood of {family.name} need not be concave in such effects; leave them "
        f"out of the formula of {' and '.join(dict.fromkeys(name for _, name in others))}, give each component a "
        f"term of its own instead of one that they share, (1 |id| g), or begin elsewhere, control={{'start': …}}"
    )


def _too_little(design: Design, task: Task, least: float = np.inf) -> str:
    """Return that a residual standard deviation is held at too little for the arithmetic, if so, and below `least`."""
    held = next((c.offset for c in design.others if c.name == "dispersion" and not c.fixed), None)
    if held is None or task.family.entry.name != "gaussian":
        return ""
    sd, spread = float(link_of(task.family.links[1]).inverse(np.min(held))), float(np.std(np.asarray(design.y)))
    if sd > NEARLY_HELD * spread or sd >= least * (1 - 1e-9):
        return ""
    return (
        f": the residual standard deviation is held at {sd:.3g}, too little beside the response's {spread:.3g} for the "
        f"arithmetic; hold a larger one and see whether the estimates change"
    )


def again(design: Design, task: Task) -> tuple[Any, LaplaceEstimate]:
    """Fit another response."""
    return estimate(design, task)


def many(design: Design, responses: Array, task: Task, covariance: bool = True) -> list[Result | str]:
    """Fit the columns of `responses` (n, m) in parallel; plan, pattern and symbolic work are shared.

    Without `covariance` the estimates have none, which saves a Hessian each.

    The rows of a cumulative model have the thresholds around their categories as columns: the core codes them anew.

    Raises
    ------
    NotAvailableError
        For ordinal models without known categories, and for weights of a survey.
    """
    if not together(design, task):
        what = "sampling_weights=" if design.sampling else f"family={task.family.name!r}"
        raise NotAvailableError(f"fit_many: {what} is not available for many responses; use m.refit(y) for each")
    design = absorbed(design)
    check(replace(design, y=None))
    check_method(design, task)
    out: list[Result | str] = [_lost(y, design, task) for y in responses.T]
    good = [j for j, why in enumerate(out) if not why]
    responses = np.asfortranarray(responses[:, good])
    core = _first_core(design, responses, task) if good else ""
    if isinstance(core, str):
        return [why or core for why in out]
    start, control = task.control.start, task.control
    found = core.refit(
        responses,
        None if start is None else list(start),
        task.quadrature,
        control.options,
        task.method,
        covariance,
        **_own_rows(design, responses, task),
    )
    for j, record in zip(good, found, strict=True):
        out[j] = record if isinstance(record, str) else _bare(record, core, design, task)
    return out


def _lost(y: Array, design: Design, task: Task) -> str:
    """Return why an ordinal response has no finite thresholds; "" if it has."""
    if not task.family.entry.ordinal or len(np.unique(y)) == len(design.categories):
        return ""
    return "a category without rows, whose thresholds have no finite estimate"


def _own_rows(design: Design, responses: Array, task: Task) -> dict[str, Any]:
    """Return the components that categories code, and where the search for each response starts."""
    if not task.family.entry.ordinal:
        return {}
    starts = [threshold_start(replace(design, y=np.ascontiguousarray(y)), task.family).tolist() for y in responses.T]
    first = len(named(design, task.family))
    coded = [first, first + 1] if task.family.entry.name == "cumulative" else []
    return {"coded": coded, "beta": starts}


def together(design: Design, task: Task) -> bool:
    """Whether many responses have one model and rows; an ordinal one without a response knows no categories."""
    known = not task.family.entry.ordinal or len(design.categories) > 0
    return known and not design.sampling and not task.family.counts


def _bare(record: Any, core: Any, design: Design, task: Task) -> LaplaceEstimate:
    """Turn the record of one of many fits into an estimate: the core is not at its point."""
    spread = record.get("vcov")
    unknown = np.full((core.p + len(record["theta"]),) * 2, np.nan) if spread is None else spread
    return from_core(record, core, design, task, unknown)


def _first_core(design: Design, responses: Array, task: Task) -> Any:
    """Return a core made with the first response that is legal, or why none is."""
    why = ""
    for y in responses.T:
        try:
            return make_core(replace(design, y=np.ascontiguousarray(y)), task)
        except ValueError as error:
            why = str(error)
    return why


def search_with(core: Any, design: Design, task: Task) -> Any:
    """Return the core's record of the point that another optimiser finds over (beta, theta), for comparison."""
    from ranef.engines.optimizers import minimise_joint

    control = task.control
    first = core.fit(start_of(task, design), task.quadrature, {"max_evaluations": 1}, task.method)
    plain = [t for t in design.terms if t.structure not in PATTERNED]
    own = theta_lower(plain)
    lower = np.concatenate([own, np.full(core.ntheta - len(own), -np.inf)])
    found = minimise_joint(core, first, lower, control, (task.quadrature, task.method))
    theta = np.concatenate([canonical(found.theta[: len(own)], plain), found.theta[len(own) :]])
    record = core.stand(found.beta.tolist(), theta.tolist(), task.quadrature, task.method)
    gradient, spread = np.asarray(record["gradient"]), np.nan_to_num(core.vcov())
    # A Newton step with the Hessian of the deviance, 2 V^-1, promises g'Vg / 4.
    decrease = float(gradient @ spread @ gradient) / 4
    outcome = "converged" if decrease < LOOSE else found.outcome
    work = {"evaluations": found.evaluations, "iterations": found.iterations}
    return {**record, **work, "outcome": outcome, "decrease": decrease}


def prepared(design: Design) -> Design:
    """Return the design as the core takes it: single outcomes instead of counts, weights absorbed."""
    return absorbed(by_outcome(design))


def absorbed(design: Design) -> Design:
    """Return the design with a gaussian's precision weights w where they belong: sigma_i^2 = sigma^2 / w_i.

    They become an offset of the dispersion's predictor, -log(w) / 2, which needs its log link.
    """
    if design.weights is None:
        return design
    dispersion = design.others[0]
    shift = -0.5 * np.log(design.weights)
    offset = shift if dispersion.offset is None else dispersion.offset + shift
    others = (replace(dispersion, offset=offset), *design.others[1:])
    return replace(design, others=others, weights=None)


def start_of(task: Task, design: Design) -> dict[str, Any] | None:
    """Start values, as the core takes them; ordinal thresholds start at the observed proportions."""
    thresholds = {"beta": threshold_start(design, task.family)} if task.family.entry.ordinal else None
    given = task.control.start
    if given is None:
        return thresholds
    needed = len(theta_lower(design.terms))
    if len(given) != needed and not any(t.structure in PATTERNED for t in design.terms):
        raise DataError(f"control: start has {len(given)} values, the model has {needed} theta parameters")
    return {"theta": np.array(given), **(thresholds or {})}


def threshold_start(design: Design, family: Distribution) -> Array:
    """Return all coefficients: 0, and the thresholds of a model without predictors."""
    count = len(design.categories)
    cuts = _cuts_without_predictors(design, family)
    if family.threshold == "flexible":  # each cut is a coefficient
        alpha = cuts
    else:
        alpha = np.asarray(np.linalg.lstsq(threshold_matrix(count, family.threshold), cuts, rcond=None)[0], np.float64)
    before = sum(len(c.names) for c in named(design, family))
    return np.concatenate([np.zeros(before), alpha, np.zeros(len(alpha) * len(nominal_names(design)))])


def _cuts_without_predictors(design: Design, family: Distribution) -> Array:
    if family.entry.name != "cumulative":
        data = {"y": np.ascontiguousarray(design.y)}
        return np.array(_core.family_start(replace(family, scaled=False).spec, data)[1:])
    count = len(design.categories)
    shares = np.cumsum(np.bincount(np.asarray(design.y, dtype=np.int64), minlength=count))[:-1] / design.n
    return np.asarray(link_of(family.link).forward(shares))


def from_core(
    record: Any,
    core: Any,
    design: Design,
    task: Task,
    vcov: Any = None,
    pole: float | None = None,
    spread: Callable[[], Array] | None = None,
    separated: Separated | None = None,
) -> LaplaceEstimate:
    """Turn the core's record of a fit into an estimate.

    `vcov` is that of (beta, theta), where it is known already, `spread` computes it where the core does not.
    """
    beta = frozen(record["beta"])
    known = None if vcov is None else frozen(vcov)
    joint = Deferred(None if known is not None else spread or _spread(core, design, task, record["natural"]), known)
    return LaplaceEstimate(
        theta=frozen(record["theta"]),
        loglik=float(record["loglik"]) + design.constant,
        reml=task.method == "reml",
        beta=beta,
        joint=joint,
        told=told(joint, beta, design, task),
        sigma=sigma_of(beta, design, task.family),
        rank=core.p - len(core.dropped),
        inner=int(record["inner"]),
        natural=tuple(record["natural"]),
        optimizer=task.control.optimizer,
        pole=None if pole is None else pole + design.constant,
        unbounded=bool(record.get("unbounded", False)),
        reach=tuple(record.get("reach", ())),
        separated=separated,
        **of_search(record, core),
    )


def told(joint: Deferred, beta: Array, design: Design, task: Task) -> Deferred:
    """Return what makes the covariance matrix of the coefficients as it is reported."""
    return Deferred(lambda: reported(joint(), beta, named(design, task.family), design.n, task.family))


def _spread(core: Any, design: Design, task: Task, natural: Sequence[Any]) -> Callable[[], Array]:
    """Return what computes the covariance matrix of (beta, theta)."""
    if design.sampling:
        return partial(survey.sandwich, core, design)
    if task.family.is_gaussian_identity and natural and task.wishes is None:
        held = [(i, float(value)) for i, (_, name, _, value) in enumerate(natural) if name == "sd"]
        return partial(_of_means, core, held, sum(len(b.names) for b in design.fixed))
    return core.vcov


def _of_means(core: Any, held: list[tuple[int, float]], p: int) -> Array:
    """Return the covariance of (beta, theta); where variances cannot be told apart, that of the mean's coefficients.

    A structure beside a residual may have a parameter more than the covariance of the rows, whose Hessian is then
    singular: with the structure's standard deviations held it is not. The mean's coefficients are orthogonal to those
    of a gaussian's covariance, and have theirs all the same.
    """
    with core.turn:
        out = np.asarray(core.vcov())
        if np.isfinite(out.diagonal()[:p]).any():
            return out
        try:
            core.constrain(held, [])
            again = np.asarray(core.vcov())
        except ValueError:
            return out
        finally:
            core.constrain([], [])
    out = np.full_like(out, np.nan)
    out[:p, :p] = again[:p, :p]
    return out


def sigma_of(beta: Array, design: Design, family: Distribution) -> float:
    """Return the dispersion where it is one number: glmmTMB's `sigma()`; 1 without one, NaN where rows differ."""
    if "dispersion" not in family.parameters:
        return 1.0
    at = family.position("dispersion")
    component = design.components[at]
    first = sum(len(c.names) for c in design.components[:at])
    inverse = link_of(family.links[at]).inverse
    if not component.names and component.offset is not None and len(set(component.offset.tolist())) == 1:
        value = float(inverse(component.offset[0]))
    else:
        value = float(inverse(beta[first])) if component.names == ("(Intercept)",) else float("nan")
    return value**-0.5 if family.entry.name == "gamma" else value  # a gamma's dispersion predictor is its shape


# ---- what a design must satisfy --------------------------------------------------------------------------------------


def check_method(design: Design, task: Task) -> None:
    """Refuse criteria that the engine does not have, and units of the response in which it finds nothing."""
    if task.family.custom is None:
        check_units(design, task.family.entry.support)
    if task.quadrature > 1 and any(t.relation is not None for t in design.terms):
        raise OptionError(
            f"quadrature={task.quadrature} needs independent levels; with a relationship between them leave it out for "
            f"Laplace's approximation"
        )
    what = "sampling_weights=" if design.sampling else f"quadrature={task.quadrature}" if task.quadrature > 1 else ""
    if what and any(t.structure == "rr" for t in design.terms):
        raise NotAvailableError(f"{what} does not go with terms of reduced rank, rr(…)")
    if design.sampling and (related := next((t.label for t in design.terms if t.relation is not None), None)):
        raise NotAvailableError(
            f"sampling_weights= weigh the log-likelihoods of independent groups, and cov= or precision= relates the "
            f"levels of {related!r}"
        )
    if task.quadrature > 1:
        check_quadrature(task.quadrature, design)
    if design.sampling:
        survey.check(design, task.quadrature)


def check(design: Design, informed: bool = False) -> None:
    """Raise what would otherwise surface as a numerical failure; microseconds; `informed` beside the response."""
    for term in design.terms:
        if term.structure not in STRUCTURES:
            raise structure_error(term)
        if term.structure not in PATTERNED or len(term.names) == 1:  # one process over many columns is replicated
            check_levels(design, term)
        check_covariances(design, term)
    if not informed:
        check_response(design)
    p = sum(len(c.names) for c in design.components)
    if p > design.n:
        raise DataError(f"{p} coefficients, {design.n} observations: simplify the model")


# ---- afterwards ------------------------------------------------------------------------------------------------------


def variance(core: Any, point: Point, which: Sequence[bool]) -> Array:
    """Variance of a linear predictor from the joint covariance of coefficients and random effects."""
    parts = ((point.fixed, point.first), *point.added)
    blocks = [block for fixed, first in parts for block in _numbered(fixed, first)[0]]
    terms = [
        (t.codes, sources(only(t, (point.component, *point.others), point.n))) if on else None
        for t, on in zip(point.terms, which, strict=True)
    ]
    return np.asarray(core.predict_var(point.component, blocks, terms, point.n))


def only(term: GroupTerm, components: Sequence[int], n: int) -> Sequence[Block]:
    """Return the blocks of a term with zeros for those that enter other linear predictors."""
    if not term.owners:
        return term.blocks
    zero = np.zeros(n)
    out: list[Block] = []
    for block, owner in zip(term.blocks, term.owners, strict=True):
        out += [block] if owner in components else [Block((name,), x=zero) for name in block.names]
    return out


@dataclass(frozen=True, slots=True)
class Remains:
    """What is left of a core without its rows: the conditional covariances."""

    conditional: tuple[Array, ...]

    def cond_cov(self, term: int) -> Array:
        """Conditional covariance of the modes of a term."""
        return self.conditional[term]

    def predict_var(self, *_: Any) -> Array:
        """Refuse: it takes the factorisation."""
        raise NotAvailableError(
            "standard errors of predictions with random effects need the rows: ask the fit before slim(), or re='none'"
        )


def rebuilt(design: Design, task: Task, found: LaplaceEstimate) -> Any:
    """Return a core of all coefficients and entries of theta, where the fit stands."""
    core = make_core(prepared(design), task)
    core.adopt(np.nan_to_num(np.array(found.beta)).tolist(), list(found.theta), task.quadrature, task.method)
    return core


def save(core: Any, found: LaplaceEstimate) -> Remains:
    """Return what a fit without rows keeps of its core."""
    return Remains(tuple(frozen(core.cond_cov(t)) for t in range(len(found.modes))))


def restore(saved: Remains, found: LaplaceEstimate, design: Any, task: Task) -> Any:
    """Return a core that answers as the fit's did."""
    return saved if design is None else Rebuilt(partial(rebuilt, design, task, found))


ENGINE = Engine("laplace", estimate, again, many, variance, save, restore)
