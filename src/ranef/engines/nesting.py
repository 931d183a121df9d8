"""Whether the grouping factors of a model are nested in each other, and what quadrature over them costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.errors import OptionError

if TYPE_CHECKING:
    from ranef.frame import Design, GroupTerm

BEYOND = 9  # nodes a dimension that reach well past a flat mode
MAX_NODES = 20_000  # of one level of one factor
MAX_EVALUATIONS = 2_000_000_000  # of the density for one value of the likelihood, a minute's work
MAX_WEIGHTS = 100_000_000  # posterior weights that are kept, 8 bytes each


@dataclass(frozen=True, slots=True)
class Grouping:
    """A grouping factor with all columns that vary over it, in whichever component.

    Attributes
    ----------
    label : str
    codes : (n,) array
    levels : int
    columns : int
        Dimension of the integral over one level.
    """

    label: str
    codes: Any
    levels: int
    columns: int


def groupings(terms: Sequence[GroupTerm]) -> list[Grouping]:
    """Return the grouping factors from the innermost (most levels) outwards; terms with one label share a factor."""
    found: dict[str, Grouping] = {}
    for t in terms:
        before = found[t.label].columns if t.label in found else 0
        found[t.label] = Grouping(t.label, t.codes, len(t.levels), before + len(t.names))
    return sorted(found.values(), key=lambda g: -g.levels)


def parents(inner: Grouping, outer: Grouping) -> Any:
    """Return the level of `outer` that each level of `inner` lies in, or None where one lies in several."""
    up = np.zeros(inner.levels, dtype=np.int64)
    up[inner.codes] = outer.codes
    return up if bool((up[inner.codes] == outer.codes).all()) else None


def crossed(terms: Sequence[GroupTerm]) -> tuple[str, str] | None:
    """Return two grouping factors of which neither is nested in the other; None where there are none."""
    found = groupings(terms)
    for i, inner in enumerate(found):
        for outer in found[i + 1 :]:
            if parents(inner, outer) is None:
                return inner.label, outer.label
    return None


def hindrance(terms: Sequence[GroupTerm]) -> str | None:
    """Return why the integral over the random effects is not a product of small ones; None if it is."""
    if pair := crossed(terms):
        return f"{pair[0]!r} and {pair[1]!r} are crossed"
    if related := next((t.label for t in terms if t.relation is not None), None):
        return f"the levels of {related!r} are related"
    if reduced := next((t.label for t in terms if t.structure == "rr"), None):
        return f"the covariance of {reduced!r} has reduced rank"
    return None


def most_nodes(design: Design, wanted: int) -> int:
    """Return the largest number of nodes up to `wanted` that quadrature takes here; 1 where it takes none."""
    if not design.terms or hindrance(design.terms) is not None:
        return 1
    found = groupings(design.terms)
    return max((k for k in range(1, wanted + 1) if affordable(k, found, design.n)), default=1)


def check_quadrature(points: int, design: Design) -> None:
    """Refuse quadrature where the integrals are not nested, or cost too much.

    Raises
    ------
    OptionError
        With the factors that are crossed, or the number of nodes and the largest that is accepted.
    """
    found = groupings(design.terms)
    if not found:
        raise OptionError(f"quadrature={points} needs random effects; this model has none: leave it out")
    if pair := crossed(design.terms):
        raise OptionError(
            f"quadrature={points} needs grouping factors of which each is nested in the next; {pair[0]!r} and "
            f"{pair[1]!r} are crossed, so that the integral does not split into small ones: leave quadrature out for "
            f"Laplace's approximation"
        )
    if not affordable(points, found, design.n):
        most = most_nodes(design, points)
        dims = ", ".join(f"{g.columns} for {g.label!r}" for g in found)
        raise OptionError(
            f"quadrature={points}: {figures(points, found)} nodes for each of {design.n} rows (dimensions: {dims}) are "
            f"beyond the limits of {MAX_NODES} nodes a level and {MAX_EVALUATIONS:.0e} evaluations: "
            + (f"use quadrature={most}" if most > 1 else "leave it out for Laplace's approximation")
        )


def figures(points: int, found: Sequence[Grouping]) -> str:
    """Return the number of nodes as text, "7^2 x 7^2 = 2,401"."""
    powers = " x ".join(str(points) if g.columns == 1 else f"{points}^{g.columns}" for g in reversed(found))
    total = points ** sum(g.columns for g in found)
    count = f"{total:,}" if total < 1e6 else f"{total:.3g}"
    return f"{powers} = {count}" if len(found) > 1 or found[0].columns > 1 else powers


def few(points: int, design: Design, most: int) -> bool:
    """Tell whether so many nodes a dimension take at most so many evaluations of the density."""
    return points ** sum(g.columns for g in groupings(design.terms)) * design.n <= most


def affordable(points: int, found: Sequence[Grouping], n: int) -> bool:
    """Tell whether so many nodes a dimension are within the limits."""
    nodes, kept = 1, 0
    for g in reversed(found):
        if points**g.columns > MAX_NODES:
            return False
        nodes *= points**g.columns
        kept += nodes * g.levels
    return nodes * n <= MAX_EVALUATIONS and kept <= MAX_WEIGHTS
