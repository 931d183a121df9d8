"""The table of families, as the core gives it: names, aliases, parameters with their links, legal responses.

The core's record of a family is a dict: `name`, `aliases`, `parameters` (a list of (name, default link, allowed links),
the mean first, the dispersion second), `support`, `discrete`, `ordinal`, `truncated` (whether a zero-truncated form
exists), `dispersion` (one sentence: what its dispersion means). All that Python says about a family comes from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from ranef import _core

ZERO = "zero_inflation"
SUPPORTS = {
    "real": "any number",
    "positive": "a number above 0",
    "nonnegative": "a number, 0 or above",
    "unit": "a number between 0 and 1, both excluded",
    "closed_unit": "a number between 0 and 1, both included",
    "count": "a whole number, 0 or above",
    "binomial": "0 or 1, a truth value, a factor of two levels, cbind(success, failure), or a proportion with trials=",
    "ordinal": "an ordered factor",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a family: its name, default link and allowed links."""

    name: str
    link: str
    links: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the table.

    Attributes
    ----------
    name : str
    aliases : tuple of str
        What other packages call it.
    parameters : tuple of Parameter
        The mean first, the dispersion (where there is one) second.
    support : str
        Which responses are legal: a key of `SUPPORTS`.
    discrete, ordinal, truncated : bool
        Whether responses are counts or categories; ordered categories; whether a zero-truncated form exists.
    dispersion : str
        What the dispersion parameter means; "" where there is none.
    """

    name: str
    aliases: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    support: str
    discrete: bool
    ordinal: bool
    truncated: bool
    dispersion: str


@cache
def entries() -> Mapping[str, Entry]:
    """Return every family by its name, in the table's order."""
    rows = _core.families() if hasattr(_core, "families") else _standin()
    return {row["name"]: _entry(row) for row in rows}


def _entry(row: Mapping[str, Any]) -> Entry:
    parameters = tuple(Parameter(name, link, tuple(links)) for name, link, links in row["parameters"])
    return Entry(
        row["name"],
        tuple(row["aliases"]),
        parameters,
        row["support"],
        bool(row["discrete"]),
        bool(row["ordinal"]),
        bool(row.get("truncated", False)),
        row.get("dispersion", ""),
    )


@cache
def names() -> Mapping[str, str]:
    """Return every name and alias, lower case, with the family's own name."""
    found = {alias.lower(): entry.name for entry in entries().values() for alias in entry.aliases}
    return {**found, **{name.lower(): name for name in entries()}}


def _standin() -> list[dict[str, Any]]:
    from ranef.families._standin import rows

    return rows()
