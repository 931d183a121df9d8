"""Floor 1: families of distributions. `rf.families.nbinom2(link="log")` is what `family="nbinom2"` stands for.

Every name of the table, and every alias, is a function of this module that takes links by parameter: `Gamma("log")`,
`student_t(dispersion="log")`. `names()` lists the families.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ranef.errors import RanefError
from ranef.families.custom import custom_family
from ranef.families.distribution import Distribution, read_family, with_links, with_threshold
from ranef.families.law import Data, Law, law_of
from ranef.families.links import LINKS, Link, link_of
from ranef.families.table import ZERO, Entry, entries

__all__ = [
    "LINKS",
    "ZERO",
    "Data",
    "Distribution",
    "Entry",
    "Law",
    "Link",
    "custom_family",
    "law_of",
    "link_of",
    "names",
    "read_family",
]


def names() -> list[str]:
    """Return the names of all families."""
    return list(entries())


def _make(name: str, link: Any = None, /, **links: str) -> Distribution:
    threshold = links.pop("threshold", None)
    family = read_family(name, links.pop("link", link))
    family = family if threshold is None else with_threshold(family, threshold)
    return with_links(family, links) if links else family


def __getattr__(name: str) -> Callable[..., Distribution]:
    if name.startswith("_"):
        raise AttributeError(name)
    try:
        read_family(name)
    except RanefError as error:
        raise AttributeError(f"module 'ranef.families' has no family {name!r}: {error}") from None
    return partial(_make, name)
