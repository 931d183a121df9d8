"""What is asked of parameters, resolved: which are held, which tied, which have priors, and how the core takes those.

A held coefficient becomes an offset and tied ones add their columns; what is asked of standard deviations and
correlations decides which structure their term has in the core (`engines.constrained` says why).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ranef.engines.covariance import Array
from ranef.engines.parameters import COEFFICIENT, EXPLICIT, Names, Place, groups_named, names_of
from ranef.engines.task import Task
from ranef.errors import ArgumentError, NotAvailableError, OptionError
from ranef.frame.structures import POSITIONED
from ranef.priors import Prior

if TYPE_CHECKING:
    from ranef.frame import Design, GroupTerm

DISPERSION = "dispersion.(Intercept)"
PROBE = 0.125  # a correlation that every structure allows
#: A prior as the core takes it: name, parameters, target, positions, power, (coefficient or None, log scale).
Row = tuple[str, list[float], str, list[int], float, tuple[int | None, float]]


@dataclass(frozen=True, slots=True)
class Columns:
    """Which coefficient of the reduced model each coefficient is (-1: held), and the values of held ones."""

    to: NDArray[np.int64]
    values: Array

    @property
    def size(self) -> int:
        """How many coefficients the reduced model has."""
        return int(self.to.max(initial=-1)) + 1

    @property
    def trivial(self) -> bool:
        """Whether nothing is held or tied."""
        return bool((self.to == np.arange(len(self.to))).all())

    def expand(self, beta: Array) -> Array:
        """Return all coefficients from those of the reduced model."""
        return np.where(self.to < 0, self.values, np.append(beta, 0.0)[self.to])

    def matrix(self) -> Array:
        """Return d all / d reduced, 0 and 1."""
        return (self.to[:, None] == np.arange(self.size)).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of a model, resolved: columns, structures as the core is told them, constraints, priors.

    `held` and `tied` are of covariance parameters, as places; `priors` are (prior, target) pairs, where the target is
    the places that it is of.
    """

    names: Names
    columns: Columns
    structures: tuple[str, ...]
    held: tuple[tuple[Place, float], ...]
    tied: tuple[tuple[Place, ...], ...]
    priors: tuple[tuple[Prior, tuple[Place, ...], float], ...]
    converted: tuple[bool, ...]


# ---- what was asked --------------------------------------------------------------------------------------------------


def make_plan(design: Design, task: Task) -> Plan:
    """Resolve the names of what was asked.

    Raises
    ------
    ArgumentError
        If a name is not that of a parameter; those that exist are listed.
    """
    wishes = task.wishes
    assert wishes is not None
    names = names_of(design, task.family)
    points = [(name, prior) for name, prior in wishes.priors if prior.name == "point"]
    asked = [*wishes.fixed, *((name, float(prior.parameters[0])) for name, prior in points)]  # pyright: ignore[reportArgumentType]
    held = _held(names, asked)
    tied = [_tie(names, group) for group in wishes.equal]
    held, tied = _joined(held, tied)
    columns = _columns(names, held, tied)
    called = {other: name for other, name in task.family.entry.nicknames.items() if names.get(other) is None}
    densities = [(called.get(name, name), prior) for name, prior in wishes.priors if prior.name != "point"]
    priors = tuple(
        p
        for name, prior in densities
        if prior.name != "flat"
        for p in _targets(names, name, prior, densities, columns, design)
    )
    touched = {p.at for p, _ in held if p.kind != COEFFICIENT} | {
        p.at for g in tied for p in g if p.kind != COEFFICIENT
    }
    touched |= {p.at for _, places, _ in priors for p in places if p.kind != COEFFICIENT}
    pairs = [p for p in [*(p for p, _ in held), *(p for g in tied for p in g)] if p.kind == "cor"]
    structures = tuple(
        _structure(term, [p.index for p in pairs if p.at == t and p.index is not None], touched=t in touched)
        for t, term in enumerate(design.terms)
    )
    converted = tuple(s != term.structure for s, term in zip(structures, design.terms, strict=True))
    return Plan(
        names,
        columns,
        structures,
        tuple((p, v) for p, v in held if p.kind != COEFFICIENT),
        tuple(g for g in tied if g[0].kind != COEFFICIENT),
        priors,
        converted,
    )


def _structure(term: GroupTerm, pairs: Sequence[int], *, touched: bool) -> str:
    """Return how the core takes a term of which some correlations, i + j k each, are held or tied.

    Pairs of columns that form no circle may have any correlations, whatever the others are: the edges of the set of all
    matrices with these are then ordinary places of the core's "unstructured".
    """
    if term.structure != "us" or not touched:
        return EXPLICIT.get(term.structure, term.structure) if touched else term.structure
    k = len(term.names)
    leader = list(range(k))
    for at in dict.fromkeys(pairs):
        i, j = _root(leader, at % k), _root(leader, at // k)
        if i == j:
            return "correlated"
        leader[max(i, j)] = min(i, j)
    return EXPLICIT["us"]


def _held(names: Names, asked: Sequence[tuple[str, float]]) -> list[tuple[Place, float]]:
    out: dict[Place, float] = {}
    for name, value in asked:
        place = names.find(name, "fixed")
        if place in out:
            raise ArgumentError(f"fixed: {place.name!r} is given twice")
        _check_value(place, value)
        out[place] = value
    return list(out.items())


def _check_value(place: Place, value: float) -> None:
    if not np.isfinite(value):
        raise OptionError(f"fixed: {place.name!r} cannot be held at {value}")
    if place.kind in ("sd", "rate", "range") and value <= 0:
        raise OptionError(f"fixed: {place.name!r} is above 0; leave the term out of the formula instead of {value:g}")
    if place.kind == "cor" and not -1 < value < 1:
        raise OptionError(f"fixed: {place.name!r} is a correlation, strictly between -1 and 1, not {value:g}")


def _tie(names: Names, group: Sequence[str]) -> tuple[Place, ...]:
    places = tuple(dict.fromkeys(names.find(_residual(names, name), "equal") for name in group))
    if len(places) < 2:
        raise ArgumentError(f"equal: a tie needs two parameters or more, not {', '.join(group)}")
    if len({p.kind for p in places}) > 1:
        kinds = ", ".join(f"{p.name!r} ({p.kind})" for p in places)
        raise ArgumentError(
            f"equal: only parameters of one kind can be tied, not {kinds}; coefficients (those of the dispersion are "
            f"on the scale of its link) and covariance parameters have no common scale: hold one with fixed="
        )
    return places


def _joined(
    held: list[tuple[Place, float]], tied: list[tuple[Place, ...]]
) -> tuple[list[tuple[Place, float]], list[tuple[Place, ...]]]:
    """Return what is held and tied where ties with a held member are held as a whole.

    Raises
    ------
    ArgumentError
        If two members are held at different values.
    """
    values, groups = dict(held), _overlapping(tied)
    while found := next((g for g in groups if any(p in values for p in g)), None):
        known = {p: values[p] for p in found if p in values}
        if len(set(known.values())) > 1:
            given = ", ".join(f"{p.name!r} at {v:g}" for p, v in known.items())
            raise ArgumentError(f"equal: {given} are held at different values with fixed=; leave one out")
        values |= dict.fromkeys(found, next(iter(known.values())))
        groups.remove(found)
    return list(values.items()), groups


def _overlapping(tied: Sequence[tuple[Place, ...]]) -> list[tuple[Place, ...]]:
    """Return ties where those that share a parameter are one."""
    out: list[tuple[Place, ...]] = []
    for group in tied:
        shared = [other for other in out if set(other) & set(group)]
        out = [other for other in out if other not in shared]
        out.append(tuple(dict.fromkeys(p for other in (*shared, group) for p in other)))
    return out


def _residual(names: Names, name: str) -> str:
    """Return the coefficient that "sigma" or "dispersion" stand for, where the dispersion is one number."""
    known = name in ("sigma", "dispersion") and names.get(name) is None
    return DISPERSION if known and names.get(DISPERSION) is not None else name


def _columns(names: Names, held: Sequence[tuple[Place, float]], tied: Sequence[tuple[Place, ...]]) -> Columns:
    count = len(names.of_kind(COEFFICIENT))
    values, leader = np.full(count, np.nan), list(range(count))
    for place, value in held:
        if place.kind == COEFFICIENT:
            values[place.at] = value
    for group in tied:
        if group[0].kind == COEFFICIENT:
            roots = {_root(leader, p.at) for p in group}
            for r in roots:
                leader[r] = min(roots)
    roots = [_root(leader, j) for j in range(count)]
    fixed = {roots[j]: values[j] for j in range(count) if not np.isnan(values[j])}
    values = np.array([fixed.get(r, np.nan) for r in roots])
    free = sorted({r for r in roots if r not in fixed})
    position = {r: i for i, r in enumerate(free)}
    return Columns(np.array([position.get(r, -1) for r in roots], dtype=np.int64), values)


def _root(leader: list[int], j: int) -> int:
    while leader[j] != j:
        j = leader[j]
    return j


# ---- priors ----------------------------------------------------------------------------------------------------------

Target = tuple[Prior, tuple[Place, ...], float]


def anchored(design: Design, task: Task) -> set[int]:
    """Return the positions of coefficients that are held or have a prior, which therefore stay finite."""
    if task.wishes is None:
        return set()
    plan = make_plan(design, task)
    with_prior = {p.at for _, places, _ in plan.priors for p in places if p.kind == COEFFICIENT}
    to = plan.columns.to
    return {j for j, r in enumerate(to.tolist()) if r < 0 or any(to[k] == r for k in with_prior)}


def anchored_terms(design: Design, task: Task) -> set[int]:
    """Return the positions of terms of whose covariance something is held or has a prior."""
    if task.wishes is None:
        return set()
    plan = make_plan(design, task)
    with_prior = {p.at for _, places, _ in plan.priors for p in places if p.kind != COEFFICIENT}
    return with_prior | {p.at for p, _ in plan.held}


def _targets(
    names: Names, name: str, prior: Prior, everything: Sequence[tuple[str, Prior]], columns: Columns, design: Design
) -> list[Target]:
    """Return what a prior is of: (prior, places, power), one for each independent use."""
    place = names.get(name)
    if place is not None and place.kind != COEFFICIENT and place.kind not in ("sd", "cor"):
        return [(_matching(prior, name, "positive"), (place,), 1.0)]
    if place is not None and place.kind == COEFFICIENT:
        return [(_matching(prior, name, "real").at(0), (place,), 1.0)]
    kind, term = _class(names, name)
    if kind in ("sd", "var"):
        one = names.get("sd" + name.strip().removeprefix(kind)) if "(" in name else None
        found = [one] if one is not None else names.of_kind("sd", term)
        checked = _matching(prior, name, "positive")
        return [(checked, (p,), 2.0 if kind == "var" else 1.0) for p in _some(found, names, name)]
    if kind in ("cov", "cor"):
        checked = _matching(prior, name, "covariance" if kind == "cov" else "correlation")
        terms = range(len(design.terms)) if term is None else [term]
        sized = [
            (checked.sized(len(design.terms[t].names)), t) for t in terms if kind == "cov" or _has_pairs(design, t)
        ]
        for p, t in sized:
            _check_matrix(p, design, t)
        return [(p, (Place(name, kind, t),), 1.0) for p, t in _some(sized, names, name)]
    if name in ("sigma", "dispersion") or (prior.of == "positive" and name in names.owners and name != "mean"):
        return [(_matching(prior, name, "positive"), (_one_number(names, name),), 1.0)]
    return _of_coefficients(names, name, prior, everything, columns, design)


def _check_matrix(prior: Prior, design: Design, t: int) -> None:
    """Refuse priors whose density says nothing of the covariance: of too few degrees of freedom, of a singular one."""
    term = design.terms[t]
    k = len(term.names)
    if term.structure in POSITIONED:
        raise NotAvailableError(
            f"prior {prior}: the covariance of {term.structure}(… | {term.label}) is {k} x {k}, a row for every "
            f"position, and has few parameters, which such a density rules the more the more positions there are; name "
            f"them, as in {{'sd({term.label})': rf.prior.gamma(2.5, 0)}}, blme's default of one standard deviation"
        )
    if prior.name == "wishart" and prior.numbers[0] <= k - 1:
        raise OptionError(
            f"prior {prior} of the {k} x {k} covariance of {term.label!r}: df is above {k - 1}; its density "
            f"is bounded from {k + 1}, its mode not singular above that (the default is {k + 2.5:g})"
        )
    if term.structure == "rr" and term.rank is not None and term.rank < k:
        raise NotAvailableError(
            f"prior {prior}: the covariance of rr(… | {term.label}, d = {term.rank}) is singular by construction, "
            f"where such a density is 0 or infinite; name the other terms, as in {{'cov(g)': …}}"
        )


def _some(found: list[Any], names: Names, name: str) -> list[Any]:
    if not found:
        raise ArgumentError(f"prior: there is no parameter {name!r}; {names.known(name)}")
    return found


def _has_pairs(design: Design, t: int) -> bool:
    return len(design.terms[t].names) > 1 and design.terms[t].structure not in ("diag", "homdiag")


def _class(names: Names, name: str) -> tuple[str, int | None]:
    """Return the kind of a class of parameters and its term: "sd", "cov(g)"; "" for others."""
    kind = name.partition("(")[0].strip()
    if kind not in ("sd", "var", "cov", "cor"):
        return "", None
    if kind == name.strip():
        return kind, None
    as_sd = names.get("sd" + name.strip()[len(kind) :]) if kind == "var" else names.get(name)
    if as_sd is not None:
        return kind, as_sd.at
    groups = groups_named([name])
    term = names.term(groups[0]) if groups and "|" not in name else None
    if term is None:
        raise ArgumentError(f"prior: there is no parameter {name!r}; {names.known(name)}")
    return kind, term


def _matching(prior: Prior, name: str, wanted: str) -> Prior:
    if prior.of == wanted or (wanted == "real" and prior.of == "vector"):
        return prior
    hints = {
        "positive": "half_normal, half_t, gamma, inverse_gamma, lognormal or exponential",
        "real": "normal, t or cauchy",
        "covariance": "wishart or inverse_wishart",
        "correlation": "lkj",
    }
    raise OptionError(f"prior: {name!r} takes {hints[wanted]}, not {prior}")


def _one_number(names: Names, name: str) -> Place:
    """Return the coefficient that is the logarithm of a parameter of the family, for priors of numbers above 0."""
    component = "dispersion" if name == "sigma" else name
    place = names.get(f"{component}.(Intercept)")
    others = [p for p in names.places if p.startswith(f"{component}.")]
    if place is None or len(others) > 1:
        why = (
            f"it depends on {', '.join(others)}: give these priors" if others else "it is held, or the family has none"
        )
        raise ArgumentError(f"prior: {name!r} is not one estimated number: {why}")
    return Place(name, "dispersion", place.at)


def _of_coefficients(
    names: Names, name: str, prior: Prior, everything: Sequence[tuple[str, Prior]], columns: Columns, design: Design
) -> list[Target]:
    """Return the prior of all coefficients of a component that have none of their own, each free one once."""
    if name not in ("fixed", "mean", "threshold", *names.owners, *(c.name for c in design.components)):
        raise ArgumentError(f"prior: there is no parameter {name!r}; {names.known(name)}")
    own = {p.at for key, _ in everything if (p := names.get(key)) is not None and p.kind == COEFFICIENT}
    if name in ("fixed", "mean"):  # a category's own class goes before that of all of them
        own |= {p.at for key, _ in everything if key in names.owners and key != "mean" for p in names.of_component(key)}
    mine = names.of_component(name)
    checked = _matching(prior, name, "real")
    free = {columns.to[p.at]: p for p in reversed(mine) if p.at not in own and columns.to[p.at] >= 0}
    places = sorted(free.values(), key=lambda p: p.at)
    if checked.of == "vector":
        return [(checked, tuple(places), 1.0)] if places else []
    position = {p: sum(names.owners[q.at] == names.owners[p.at] for q in mine[:i]) for i, p in enumerate(mine)}
    return [(checked.at(position[p]), (p,), 1.0) for p in places]


def rows_of(plan: Plan, core: Any, design: Design, task: Task) -> list[Row]:
    """Return the priors as the core takes them."""
    at = {key: i for i, key in enumerate(core.parameters)}
    gone = set(core.dropped)
    out: list[Row] = []
    for prior, places, power in plan.priors:
        over = _over(plan, design, task) if prior.common_scale else (None, 0.0)
        kind, target = places[0].kind, _reduced_positions(plan, places)
        if kind in ("cov", "cor"):
            name, target = "term", [places[0].at]
        elif kind == "dispersion":
            _check_log(task, places[0])
            name = "log_coefficient"
        elif kind == COEFFICIENT:
            name = "coefficients"
            prior, target = _without(prior, target, gone)
        else:
            name, target = "log_parameter", [at[places[0].at, kind, places[0].index]]
        if target and target[0] >= 0:
            out.append((prior.name, prior.numbers, name, target, power, over))
    return out


def _reduced_positions(plan: Plan, places: Sequence[Place]) -> list[int]:
    """Return the coefficients of the reduced model that places are; of other parameters nothing."""
    mine = (COEFFICIENT, "dispersion")
    return [int(plan.columns.to[p.at]) for p in places if p.kind in mine]


def _without(prior: Prior, at: list[int], gone: set[int]) -> tuple[Prior, list[int]]:
    """Leave out coefficients that were dropped, with their scales."""
    kept = [i for i, j in enumerate(at) if j not in gone]
    if prior.of == "vector":
        prior = replace(prior, scale=tuple(prior.scale[min(i, len(prior.scale) - 1)] for i in kept))
    return prior, [at[i] for i in kept]


def _check_log(task: Task, place: Place) -> None:
    name = "dispersion" if place.name == "sigma" else place.name
    if task.family.link_of(name).name != "log":
        raise NotAvailableError(
            f"prior of {place.name!r}: it needs the log link; give '{name}.(Intercept)' a prior, on the link's scale"
        )


def _over(plan: Plan, design: Design, task: Task) -> tuple[int | None, float]:
    """Return the coefficient that is log sigma, or log sigma itself."""
    if task.family.entry.name != "gaussian":
        return None, 0.0  # there is no residual variance: the scale is 1
    part = next(c for c in design.others if c.name == "dispersion")
    if part.names == ("(Intercept)",) and task.family.link_of("dispersion").name == "log":
        at = plan.names.places["dispersion.(Intercept)"].at
        to = int(plan.columns.to[at])
        return (to, 0.0) if to >= 0 else (None, float(plan.columns.values[at]))
    if not part.names and part.offset is not None and np.ptp(part.offset) == 0:
        return None, float(part.offset[0])
    raise OptionError(
        "prior: a common scale needs one residual standard deviation; give densities with common_scale=False, in place "
        "of 'blme' prior={'cov': rf.prior.wishart()}"
    )
