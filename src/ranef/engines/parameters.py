"""Names of every parameter of a model, for arguments and tables: "x", "zero_inflation.x", "sd(x | g)".

A standard deviation is "sd(x | g)", a correlation "cor(x, y | g)"; structures have "rate(g)", "range(g)",
"cor(lag2 | g)". Where a term has one of a kind, "sd(g)" and "cor(g)" are understood, too, and so is 1 for
"(Intercept)". Terms of other components are "zero_inflation:g", a second term of a group "g.1", as in `varcorr()`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ranef import _core
from ranef.engines.laplace import layout, named
from ranef.errors import NotAvailableError, UnknownParameterError, nearest
from ranef.families import Distribution
from ranef.formula.groups import group_named

if TYPE_CHECKING:
    from ranef.frame import Design, GroupTerm

COEFFICIENT = "coefficient"
GROUPED = re.compile(r"(\s*\w+\((?:.*\|)?)(.*)\)\s*")  # "sd(x | g)" or "sd(g)"
#: Terms that the optimiser holds on the variance scale, and their form with a parameter for each sd and correlation.
EXPLICIT = {"us": "unstructured", "diag": "diagonal"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a parameter is: position among the coefficients, or (term, name, index) as the core lists parameters."""

    name: str
    kind: str
    at: int
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Names:
    """The parameters of a model: `places` by their names, `spellings` of each (without spaces), names of the terms.

    `owners` are the components of the coefficients, in their order.
    """

    places: dict[str, Place]
    spellings: dict[str, str]
    keys: tuple[str, ...]
    owners: tuple[str, ...]

    def of_component(self, name: str) -> list[Place]:
        """Return the coefficients of a component; of the mean ("mean", "fixed") those of all categories without order.

        A multinomial model has a linear predictor for each category and none that is called the mean's.
        """
        wanted = "mean" if name == "fixed" else name
        everywhere = wanted == "mean" and wanted not in self.owners
        return [p for p in self.of_kind(COEFFICIENT) if everywhere or self.owners[p.at] == wanted]

    def find(self, text: str, argument: str) -> Place:
        """Return the parameter of that name.

        Raises
        ------
        UnknownParameterError
            If there is none; names that exist are listed.
        NotAvailableError
            If it is a loading.
        """
        place = self.get(text)
        if place is None and _bare(text).startswith("loading("):
            raise NotAvailableError(
                f"{argument}: {text!r} is no parameter of its own: loadings of several factors turn together and leave "
                f"the model as it is; cs(), homcs(), (x | g) have parameters that can be named"
            )
        if place is None:
            raise UnknownParameterError(
                f"{argument}: there is no parameter {text!r}; {self.known(text)}", argument, text
            )
        return place

    def get(self, text: str) -> Place | None:
        """Return the parameter of that name, if there is one."""
        name = self.spellings.get(_bare(text)) or self.spellings.get(_bare(self._with_own_group(text)))
        return None if name is None else self.places[name]

    def _with_own_group(self, text: str) -> str:
        """Return the name of a parameter with its group as we have it: "sd(1 | mom:comm)" is "sd(1 | comm:mom)"."""
        parts = GROUPED.fullmatch(text)
        own = None if parts is None else group_named(parts[2].strip(), self.keys)
        return text if parts is None or own is None else f"{parts[1]}{own})"

    def known(self, text: str) -> str:
        """Return a sentence on what there is."""
        listed = ", ".join(self.places)
        close = nearest(text, self.places)
        return f"the model has {listed}" if close.startswith("known") else f"{close} The model has {listed}"

    def of_kind(self, kind: str, term: int | None = None) -> list[Place]:
        """Return all parameters of a kind ("sd", "cor", …), of one term or of all."""
        return [p for p in self.places.values() if p.kind == kind and term in (None, p.at)]

    def term(self, key: str) -> int | None:
        """Return the term of that name."""
        own = group_named(_bare(key), self.keys)
        return None if own is None else self.keys.index(own)


def _bare(text: str) -> str:
    return re.sub(r"\s+", "", text)


def unique(labels: list[str]) -> tuple[str, ...]:
    """Labels made unique: a label seen k times before gets ".k"."""
    return tuple(f"{g}.{n}" if (n := labels[:i].count(g)) else g for i, g in enumerate(labels))


def term_keys(design: Design, family: Distribution) -> tuple[str, ...]:
    """Return the names of the random-effects terms, as `varcorr()` has them."""
    owners = [c.name for c in named(design, family)]
    labels = [t.label if owners[t.component] == "mean" else f"{owners[t.component]}:{t.label}" for t in design.terms]
    return unique(labels)


def names_of(design: Design, family: Distribution) -> Names:
    """Return the names of all parameters of a design."""
    places: dict[str, Place] = {}
    spellings: dict[str, str] = {}
    owners: list[str] = []
    for component, columns in layout(design, family):
        for column in columns:
            short = column if component in ("mean", "threshold") and column not in places else f"{component}.{column}"
            places[short] = Place(short, COEFFICIENT, len(owners))
            spellings |= {_bare(short): short, _bare(f"{component}.{column}"): short}
            owners.append(component)
    keys = term_keys(design, family)
    for t, (term, key) in enumerate(zip(design.terms, keys, strict=True)):
        for place, others in _of_term(t, term, key):
            places[place.name] = place
            spellings |= {_bare(s): place.name for s in (place.name, *others)}
    return Names(places, spellings, keys, tuple(owners))


def _of_term(t: int, term: GroupTerm, key: str) -> list[tuple[Place, list[str]]]:
    structure = EXPLICIT.get(term.structure, term.structure)
    found = _core.structure_parameters(structure, len(term.names))
    count = {kind: sum(name == kind for name, _ in found) for kind, _ in found}
    out: list[tuple[Place, list[str]]] = []
    for kind, index in found:
        if kind == "loading":  # which loadings there are depends on the rank, and rotations: none can be held
            continue
        ways = _of_what(kind, index, term, structure)
        alone = count[kind] == 1
        name, *others = spelled(kind, ways, key, alone)
        out.append((Place(name, kind, t, index), others))
    return out


def spelled(kind: str, ways: Sequence[str], key: str, alone: bool) -> tuple[str, ...]:
    """Return the name of a parameter and then other spellings of it.

    Parameters
    ----------
    kind : str
        "sd", "cor", "var", "cov", "rate" …
    ways : sequence of str
        What it is of, in the ways that one may write it; none where a term has one of the kind.
    key : str
        The term, as in `varcorr()`.
    alone : bool
        Whether the term has no other of the kind.
    """
    names = tuple(f"{kind}({way} | {key})" for way in ways)
    return (*names, f"{kind}({key})") if alone or not names else names


def of_column(name: str) -> list[str]:
    """Return how a column may be written."""
    return [name, "1"] if name == "(Intercept)" else [name]


def of_pair(a: str, b: str) -> list[str]:
    """Return how a pair of columns may be written."""
    pairs = [(x, y) for x in of_column(a) for y in of_column(b)]
    return [text for x, y in pairs for text in (f"{x}, {y}", f"{y}, {x}")]


def _of_what(kind: str, index: int | None, term: GroupTerm, structure: str) -> list[str]:
    """Return what may stand before the bar."""
    names, k = term.names, len(term.names)
    if kind == "sd" and index is not None:
        return of_column(names[index])
    if kind == "cor" and structure in ("unstructured", "correlated") and index is not None:
        return of_pair(names[index // k], names[index % k])
    if kind == "cor" and index is not None:
        return [f"lag{index}"]
    return of_column(names[0]) if kind == "sd" and k == 1 else []


def groups_named(texts: Sequence[str]) -> list[str]:
    """Return what stands in brackets, behind the bar if there is one: "sd(x | g)" names g."""
    found = [re.fullmatch(r"\s*\w+\((.*)\)\s*", t) for t in texts]
    return [m.group(1).rpartition("|")[2].strip() for m in found if m]
