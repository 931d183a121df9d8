"""Floor 1: families of distributions. `rf.families.nbinom2(link="log")` is what `family="nbinom2"` stands for.

Every name of the table, and every alias, is a function of this module that takes links by parameter: `Gamma("log")`,
`student_t(dispersion="log")`. `names()` lists the families, `describe()` says what their parameters mean, and
`custom_family` makes one of a density of your own.
"""

from __future__ import annotations

from collections.abc import Callable

from ranef.errors import RanefError
from ranef.families.custom import custom_family
from ranef.families.distribution import Distribution, made, read_family
from ranef.families.law import Data, Law, law_of
from ranef.families.links import LINKS, Link, legal_link, link_of
from ranef.families.table import SUPPORTS, ZERO, Entry, entries

__all__ = [
    "LINKS",
    "ZERO",
    "Data",
    "Distribution",
    "Entry",
    "Law",
    "Link",
    "custom_family",
    "describe",
    "law_of",
    "legal_link",
    "link_of",
    "names",
    "read_family",
]


def names() -> list[str]:
    """Return the names of all families.

    Examples
    --------
    >>> import ranef as rf
    >>> rf.families.names()[:3]
    ['gaussian', 'lognormal', 'skew_normal']
    """
    return list(entries())


def describe(name: str | None = None) -> str:
    """Return what is said about one family, or about all: other names, legal responses, parameters with their links.

    Parameters
    ----------
    name : str, optional
        A name of ours or of lme4, glmmTMB or brms; default: all of them.

    Raises
    ------
    OptionError
        If there is no such family; the nearest is named.

    Examples
    --------
    >>> import ranef as rf
    >>> print(rf.families.describe("poisson"))
    poisson (PO)
      response: a whole number of at least 0
      mean: mean; link log (or identity, inverse, 1/mu^2, sqrt, softplus)
      variance mu; no dispersion
    """
    found = [read_family(name).entry] if name is not None else list(entries().values())
    return "\n\n".join(_described(entry) for entry in found)


def _described(entry: Entry) -> str:
    said = {code: words for words, code in SUPPORTS.items()}
    head = f"{entry.name} ({', '.join(entry.aliases)})" if entry.aliases else entry.name
    lines = [head, f"  response: {said[entry.support]}"]
    for p in entry.parameters:
        others = [link for link in p.links if link != p.link]
        lines.append(f"  {p.name}: {p.meaning}; link {p.link}" + (f" (or {', '.join(others)})" if others else ""))
    return "\n".join([*lines, f"  {entry.note}"])


def __getattr__(name: str) -> Callable[..., Distribution]:
    if name.startswith("_"):
        raise AttributeError(name)
    try:
        read_family(name)
    except RanefError as error:
        raise AttributeError(f"module 'ranef.families' has no family {name!r}: {error}") from None
    return lambda link=None, /, **links: made(name, link, links)
