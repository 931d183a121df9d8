"""Which rows belong together: `cluster=` as codes, and whether the random effects are nested in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ranef.errors import ArgumentError, DataError, NotAvailableError, OptionError
from ranef.formula.groups import group_named
from ranef.frame.design import Levels
from ranef.frame.levels import combine
from ranef.frame.table import as_factor, check_order, read_table, rows_of
from ranef.frame.values import side_array
from ranef.inference.resampling import hierarchy, is_nested
from ranef.model import index_of

if TYPE_CHECKING:
    from ranef.frame import Design
    from ranef.model import Fit


@dataclass(frozen=True, slots=True)
class Clusters:
    """A partition of the rows used.

    Attributes
    ----------
    name : str
    codes : (n,) int64 array
        Every code 0..count-1 occurs.
    labels : sequence
        By code.
    """

    name: str
    codes: NDArray[np.int64]
    labels: Sequence[Any]

    @property
    def count(self) -> int:
        """How many clusters there are."""
        return len(self.labels)


def clusters_of(m: Fit, design: Design, cluster: Any) -> tuple[Clusters, ...]:
    """Return the ways of clustering that `cluster=` names: one, or several for a list of names.

    Raises
    ------
    OptionError
        If none is given and the model has no grouping factor.
    UnknownColumnError, DataError, ArgumentError
        If there is no such column, values are missing, the length is wrong, or there is one cluster only.
    """
    if cluster is None:
        found = (_default(design),)
    elif isinstance(cluster, list | tuple) and 1 < len(cluster) < design.n and all(isinstance(c, str) for c in cluster):
        found = tuple(_one(m, design, c) for c in cluster)
    else:
        found = (_one(m, design, cluster),)
    for way in found:
        if way.count < 2:
            raise DataError(f"cluster: {way.name!r} has one level only; a robust covariance needs several clusters")
    return found


def _default(design: Design) -> Clusters:
    chain, _ = hierarchy(design)
    if not chain:
        raise OptionError("cluster: the model has no grouping factor; say which rows belong together: cluster='g'")
    return Clusters(chain[0].label, np.asarray(chain[0].codes, dtype=np.int64), chain[0].levels)


def _one(m: Fit, design: Design, cluster: Any) -> Clusters:
    known = {t.label: t for t in design.terms}
    if isinstance(cluster, str) and (own := group_named(cluster, known)) is not None:
        term = known[own]
        return Clusters(own, np.asarray(term.codes, dtype=np.int64), term.levels)
    if isinstance(cluster, str):
        column = read_table(m.data).column(cluster)
    elif hasattr(cluster, "__len__"):
        column = side_array("cluster", cluster, design.n if len(cluster) == design.n else design.n_input)
        check_order("cluster", cluster, index_of(m))
    else:
        raise ArgumentError(f"cluster= is the name of a column or an array, not {type(cluster).__name__}")
    factor = as_factor(column)
    assert factor.codes is not None
    assert factor.levels is not None
    codes = np.asarray(factor.codes, dtype=np.int64)
    if design.rows is not None and len(codes) == design.n_input:
        codes = codes[design.rows]
    if (codes < 0).any():
        raise DataError(f"cluster: {column.name!r} is missing in {rows_of(codes < 0)} of those used")
    used, codes = np.unique(codes, return_inverse=True)
    return Clusters(column.name, codes.astype(np.int64), [factor.levels[i] for i in used.tolist()])


def check_nested(design: Design, ways: Sequence[Clusters], what: str) -> None:
    """Refuse random effects that reach from one cluster into another.

    Raises
    ------
    NotAvailableError
        With the grouping factor that is nested in none of the ways.
    """
    for term in design.terms:
        if term.relation is not None:
            raise NotAvailableError(
                f"{what}: levels of {term.label!r} are related to each other, so clusters are not independent"
            )
        if not any(is_nested(np.asarray(term.codes), way.codes) for way in ways):
            names = " and ".join(repr(way.name) for way in ways)
            raise NotAvailableError(
                f"{what}: random effects of {term.label!r} are not nested in the clusters {names}, which are then not "
                f"independent: give cluster= such that every level lies in one cluster, or for kinds CR0 and CR1 "
                f"several ways of clustering, cluster=['a', 'b']"
            )


def intersections(ways: Sequence[Clusters]) -> list[tuple[float, Clusters]]:
    """Return every intersection of some ways with its sign (Cameron, Gelbach & Miller 2011, equation 2.11)."""
    return [
        ((-1.0) ** (size + 1), _meet(chosen))
        for size in range(1, len(ways) + 1)
        for chosen in combinations(ways, size)
    ]  # fmt: skip


def _meet(chosen: Sequence[Clusters]) -> Clusters:
    if len(chosen) == 1:
        return chosen[0]
    codes, levels, _ = combine([c.codes.astype(np.int32) for c in chosen], [Levels.of(c.labels) for c in chosen])
    return Clusters(":".join(c.name for c in chosen), np.asarray(codes, dtype=np.int64), levels)
