"""Randomised responses: designs in which a person's answer is 1 with probability c + d mu, mu the prevalence.

A design is one row of `DESIGNS`, a function of the probabilities that it knows (Warner 1965; Fox 2016, chapter 5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ranef.errors import ArgumentError, DataError, OptionError, nearest
from ranef.frame.design import Array
from ranef.frame.table import rows_of

Chances = tuple[Any, Any]
PROBABILITIES = ("p1", "p2", "c", "d")
DEFAULT = "forced"

#: name -> (probabilities needed, function of them that gives c and d)
DESIGNS: dict[str, tuple[tuple[str, ...], Callable[..., Chances]]] = {
    # The sensitive question with probability p1, its negation otherwise.
    "warner": (("p1",), lambda p1: (1 - p1, 2 * p1 - 1)),
    # "Are both answers alike?" beside a harmless question that is yes with probability p1.
    "crosswise": (("p1",), lambda p1: (1 - p1, 2 * p1 - 1)),
    # The sensitive question with probability p1, else an unrelated one that is yes with probability p2.
    "unrelated": (("p1", "p2"), lambda p1, p2: ((1 - p1) * p2, p1)),
    # The truth with probability p1, else a forced answer, which is yes with probability p2.
    "forced": (("p1", "p2"), lambda p1, p2: ((1 - p1) * p2, p1)),
    # A card from one of two decks: red ones have shares p1 (those concerned) and p2 (the others).
    "kuk": (("p1", "p2"), lambda p1, p2: (p2, p1 - p2)),
    # Yes where the sensitive or a harmless statement (true with probability p1) holds.
    "triangular": (("p1",), lambda p1: (p1, 1 - p1)),
    # P(1) = c + d mu itself.
    "direct": (("c", "d"), lambda c, d: (c, d)),
}
ALIASES = {"uqm": "unrelated", "unrelated_question": "unrelated", "forced_response": "forced"}


def read_design(given: Any) -> dict[str, Any]:
    """Return a checked copy of `randomised_response=`; a design that differs between rows is checked with the data.

    Raises
    ------
    ArgumentError, OptionError
        If it is no dict, or probabilities are missing or superfluous.
    """
    if not isinstance(given, Mapping):
        raise ArgumentError(
            "randomised_response= is a dict such as {'design': 'warner', 'p1': 0.8}, of numbers or columns"
        )
    design = given.get("design", "direct" if "c" in given else DEFAULT)
    name = design_named(design) if isinstance(design, str) else None
    if name is None:
        _check_names(given, PROBABILITIES, (), "")
        return {**given, "design": design}
    _check_names(given, DESIGNS[name][0], DESIGNS[name][0], name)
    return {**given, "design": name}


def design_named(text: str) -> str | None:
    """Return the design of that name, if there is one."""
    name = text.lower()
    name = ALIASES.get(name, name)
    return name if name in DESIGNS else None


def unknown_design(text: str) -> OptionError:
    """Return the error for a design that there is not."""
    return OptionError(
        f"randomised_response: design={text!r} is unknown, and no column of designs; {nearest(text.lower(), DESIGNS)}"
    )


def _check_names(given: Mapping[str, Any], legal: Sequence[str], needed: Sequence[str], design: str) -> None:
    extra, missing = set(given) - {"design", *legal}, [p for p in needed if p not in given]
    if extra or missing:
        said = f"{', '.join(missing)} is missing" if missing else f"{', '.join(map(str, sorted(extra)))} has no meaning"
        what = f"design {design!r} needs {' and '.join(needed)}" if design else f"probabilities are {', '.join(legal)}"
        raise OptionError(f"randomised_response: {what}; {said}")


def chances_of(design: str, given: Mapping[str, Array], where: Any = True) -> tuple[Array, Array]:
    """Return c and d of every row; only rows `where` it is this design are looked at.

    Raises
    ------
    DataError
        If a probability lies outside 0 to 1, or d is 0: then answers tell nothing of the prevalence.
    """
    for name, p in given.items():
        if name != "d" and (bad := where & ~((p >= 0) & (p <= 1))).any():
            raise DataError(f"randomised_response: {name} is no probability in {rows_of(bad)}")
    c, d = (np.ascontiguousarray(v, np.float64) for v in DESIGNS[design][1](**given))
    total = c + d
    if (bad := where & ((total < 0) | (total > 1 + 1e-12))).any():
        raise DataError(f"randomised_response: c + d is no probability in {rows_of(bad)}")
    if (bad := where & (d == 0)).any():
        raise DataError(f"randomised_response: answers do not depend on the truth (d = 0) in {rows_of(bad)}")
    return c, d


def chances_by_row(designs: Sequence[str | None], given: Mapping[str, Array]) -> tuple[Array, Array]:
    """Return c and d where every row has a design of its own; NaN where it, or a probability it needs, is missing.

    Raises
    ------
    OptionError
        If a design is unknown, or a probability that it needs was not given.
    DataError
        As `chances_of`.
    """
    n = len(designs)
    c, d = np.full(n, np.nan), np.full(n, np.nan)
    labels = sorted({label for label in designs if label is not None})
    found = {label: design_named(label) for label in labels}
    used = {p for name in found.values() if name is not None for p in DESIGNS[name][0]}
    for label, name in found.items():
        if name is None:
            raise unknown_design(label)
        needed = DESIGNS[name][0]
        _check_names(given, tuple(used), needed, name)
        own = {p: given[p] for p in needed}
        where = np.array([x == label for x in designs]) & np.all([np.isfinite(p) for p in own.values()], axis=0)
        mine = chances_of(name, own, where)
        c[where], d[where] = mine[0][where], mine[1][where]
    return c, d
