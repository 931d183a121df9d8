"""Names and sizes of a design, without its rows: what is left to print when the rows are gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ranef.engines import Task, coefficients_of
from ranef.errors import OptionError
from ranef.families.distribution import ALSO
from ranef.frame import Design, GroupTerm
from ranef.frame.outcomes import has_counts


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """A random-effects term without its rows: (names | label), its levels, structure and component."""

    label: str
    names: tuple[str, ...]
    structure: str
    levels: Sequence[Any]
    component: str = "mean"
    owners: tuple[str, ...] = ()

    @property
    def components(self) -> tuple[str, ...]:
        """The component of every column: `owners`, which is empty where all belong to `component`."""
        return self.owners or (self.component,) * len(self.names)

    @property
    def key(self) -> str:
        """The label, with the component before it if that is not the mean: "zero_inflation:site"."""
        return self.label if self.component == "mean" else f"{self.component}:{self.label}"


@dataclass(frozen=True, slots=True)
class ComponentInfo:
    """A part of the model that has coefficients of its own: those at `first`, `first + 1`, …."""

    name: str
    names: tuple[str, ...]
    first: int

    @property
    def at(self) -> slice:
        """Where its coefficients stand."""
        return slice(self.first, self.first + len(self.names))


@dataclass(frozen=True, slots=True)
class Layout:
    """Names and sizes of a design, without its rows: what is left to print when the rows are gone.

    `components` lists the parts that have coefficients: the mean's, the dispersion's …, in the order of
    `estimate.beta`. `counted` is how many rows the `n` rows stand for, the sum of their frequency weights,
    `outcomes` how many outcomes are counted where rows have counts of categories, else 0.
    """

    n: int
    n_input: int
    counted: float
    dropped: Mapping[str, int]
    response: str
    components: tuple[ComponentInfo, ...]
    terms: tuple[GroupInfo, ...]
    kind: str
    outcomes: float = 0.0

    @property
    def fixed(self) -> tuple[str, ...]:
        """Names of the fixed effects of the mean."""
        return self.components[0].names

    def component(self, name: str) -> ComponentInfo:
        """Return the component of that name.

        Raises
        ------
        OptionError
            If the model has none; the nearest is named.
        """
        found = {c.name: c for c in self.components}
        name = name if name in found else ALSO.get(name, name)
        if name == "mean" and name not in found:  # a multinomial model's means are those of its categories
            names = tuple(f"{c.name}.{column}" for c in self.components for column in c.names)
            return ComponentInfo(name, names, 0)
        if name not in found:
            raise OptionError(f"component={name!r} is not part of this model; it has {', '.join(map(repr, found))}")
        return found[name]


def layout_of(design: Design, task: Task) -> Layout:
    """Return the layout of a design."""
    parts: list[ComponentInfo] = []
    for name, columns in coefficients_of(design, task):
        parts.append(ComponentInfo(name, columns, parts[-1].first + len(parts[-1].names) if parts else 0))
    names = [part.name for part in parts]  # thresholds, which no term belongs to, come last
    return Layout(
        n=design.n,
        n_input=design.n_input,
        counted=float(design.n if design.frequencies is None else np.sum(design.frequencies)),
        dropped=design.dropped,
        response=design.response_name or "",
        components=tuple(parts),
        terms=tuple(group_info(t, names) for t in design.terms),
        kind=design.kind,
        outcomes=_outcomes(design),
    )


def _outcomes(design: Design) -> float:
    if design.y is None or not has_counts(design):
        return 0.0
    sizes = design.y.sum(axis=1)
    return float(sizes.sum() if design.frequencies is None else sizes @ design.frequencies)


def group_info(term: GroupTerm, names: Sequence[str]) -> GroupInfo:
    """Return what is known of a term without its rows; `names` are those of the components."""
    owners = tuple(names[at] for at in term.owner_of) if term.owners else ()
    return GroupInfo(term.label, term.names, term.structure, term.levels, names[term.component], owners)
