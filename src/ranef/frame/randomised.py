"""Randomised responses: designs in which a person's answer is 1 with probability c + d mu, mu the prevalence.

A design is one row of `DESIGNS`, a function of the probabilities that it knows (Warner 1965; Fox 2016, chapter 5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    """Return a checked copy of `randomised_response=`.

    Raises
    ------
    ArgumentError, OptionError
        If it is no dict, its design is unknown, or probabilities are missing or superfluous.
    """
    if not isinstance(given, Mapping):
        raise ArgumentError(
            "randomised_response= is a dict such as {'design': 'warner', 'p1': 0.8}, of numbers or columns"
        )
    name = str(given.get("design", "direct" if "c" in given else DEFAULT)).lower()
    name = ALIASES.get(name, name)
    if name not in DESIGNS:
        raise OptionError(f"randomised_response: design={name!r} is unknown; {nearest(name, DESIGNS)}")
    needed = DESIGNS[name][0]
    extra, missing = set(given) - {"design", *needed}, [p for p in needed if p not in given]
    if extra or missing:
        said = f"{', '.join(missing)} is missing" if missing else f"{', '.join(map(str, sorted(extra)))} has no meaning"
        raise OptionError(f"randomised_response: design {name!r} needs {' and '.join(needed)}; {said}")
    return {**given, "design": name}


def chances_of(design: str, given: Mapping[str, Array]) -> tuple[Array, Array]:
    """Return c and d of every row.

    Raises
    ------
    DataError
        If a probability lies outside 0 to 1, or d is 0: then answers tell nothing of the prevalence.
    """
    for name, p in given.items():
        if name != "d" and (bad := ~((p >= 0) & (p <= 1))).any():
            raise DataError(f"randomised_response: {name} is no probability in {rows_of(bad)}")
    c, d = (np.ascontiguousarray(v, np.float64) for v in DESIGNS[design][1](**given))
    total = c + d
    if (bad := (total < 0) | (total > 1 + 1e-12)).any():
        raise DataError(f"randomised_response: c + d is no probability in {rows_of(bad)}")
    if (bad := d == 0).any():
        raise DataError(f"randomised_response: answers do not depend on the truth (d = 0) in {rows_of(bad)}")
    return c, d
