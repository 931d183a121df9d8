"""Weights of a survey: pseudo-maximum likelihood with standard errors by the sandwich of cluster scores.

A group j selected with probability 1 / w_j, whose rows were selected with probabilities 1 / w_i|j, stands for w_j
groups, and each of its rows for w_i|j rows (Pfeffermann et al. 1998; Rabe-Hesketh & Skrondal 2006, equation 4):

    log pl = sum_j w_j log ∫ exp{ sum_i w_i|j log f(y_ij | u_j) } phi(u_j) du_j

and so on for further levels. Var = H^-1 (sum_j s_j s_j') H^-1 J / (J - 1), s_j the score of a top-level group, weight
included, and H the Hessian of -log pl (equation 9 there).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines.nesting import Grouping, crossed, groupings, most_nodes, parents
from ranef.errors import ArgumentError, DataError, NotAvailableError, OptionError, nearest

if TYPE_CHECKING:
    from ranef.frame import Design

Array = np.ndarray[Any, Any]
SCALINGS = ("size", "effective")
ROW = "row"


@dataclass(frozen=True, slots=True)
class Weights:
    """What `sampling_weights=` says.

    Attributes
    ----------
    values : dict
        "row" or grouping factor -> column or array.
    scaling : str or None
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    scaling: str | None = "size"


@dataclass(frozen=True, slots=True)
class Scaled:
    """Weights as the core takes them: of the rows, and by term of the levels of its grouping factor."""

    rows: Array | None
    levels: Mapping[int, Array]


def read_weights(value: Any) -> Weights:
    """Read `sampling_weights=`: a column or array of row weights, or a dict.

    Raises
    ------
    ArgumentError, OptionError
    """
    if value is None:
        return Weights()
    if not isinstance(value, Mapping):
        return Weights({ROW: value})
    given: dict[str, Any] = dict(value)
    scaling = given.pop("scaling", "size")
    if scaling is not None and scaling not in SCALINGS:
        raise OptionError(f"sampling_weights: scaling={scaling!r} is unknown; {nearest(scaling, SCALINGS)}, or None")
    if not given or any(not isinstance(key, str) for key in given):
        raise ArgumentError("sampling_weights= is a column, or a dict such as {'row': 'w', 'school': 'w2'}")
    return Weights(given, scaling)


def check(design: Design, quadrature: int) -> None:
    """Refuse weights that the pseudo-likelihood has no place for.

    Raises
    ------
    OptionError, NotAvailableError
    """
    assert design.sampling is not None
    found = groupings(design.terms)
    labels = [g.label for g in found]
    for label in design.sampling.groups:
        if label not in labels:
            raise OptionError(f"sampling_weights: {label!r} is no grouping factor; {nearest(label, [ROW, *labels])}")
    if pair := crossed(design.terms):
        raise NotAvailableError(
            f"sampling_weights: {pair[0]!r} and {pair[1]!r} are crossed, so that the log-likelihood is no sum over "
            f"independent groups that could be weighted; it takes nested grouping factors"
        )
    inner = [label for label in labels[:-1] if label in design.sampling.groups]
    if inner and quadrature == 1:
        nodes = most_nodes(design, 7)
        cure = f": use quadrature={nodes}" if nodes > 1 else "; give weights of the outer levels only"
        raise NotAvailableError(
            f"sampling_weights: a weight of {inner[0]!r}, which lies within {labels[-1]!r}, is a power of an inner "
            f"integral, which Laplace's approximation does not carry{cure}"
        )


def scaled(design: Design) -> Scaled:
    """Return the weights, each scaled within the group above it; those of the top have the mean 1."""
    given = design.sampling
    assert given is not None
    found = groupings(design.terms)
    if not found:
        return Scaled(None if given.rows is None else given.rows / given.rows.mean(), {})
    levels: dict[int, Array] = {}
    for g, above in zip(found, [*found[1:], None], strict=True):
        if g.label in given.groups:
            term = next(t for t, term in enumerate(design.terms) if term.label == g.label)
            levels[term] = _within(_by_level(given.groups[g.label], g), g, above, given.scaling)
    rows = given.rows
    if rows is not None and given.scaling is not None:
        rows = rows * _factors(rows, found[0].codes, found[0].levels, given.scaling)
    return Scaled(rows, levels)


def _by_level(weights: Array, g: Grouping) -> Array:
    """Return one weight for every level.

    Raises
    ------
    DataError
        If the rows of a level have different ones.
    """
    out = np.empty(g.levels)
    out[g.codes] = weights
    bad = np.flatnonzero(~np.isclose(out[g.codes], weights, rtol=1e-12, atol=0.0))
    if len(bad):
        raise DataError(
            f"sampling_weights: the weight of {g.label!r} is not constant within its levels; first rows "
            f"{bad[:5].tolist()}"
        )
    return out


def _within(weights: Array, g: Grouping, above: Grouping | None, scaling: str | None) -> Array:
    if above is None:
        return weights / weights.mean()
    up = parents(g, above)
    return weights if scaling is None or up is None else weights * _factors(weights, up, above.levels, scaling)


def _factors(weights: Array, group: Array, count: int, scaling: str) -> Array:
    """Return what each weight is multiplied by: n / sum w ("size"), sum w / sum w^2 ("effective") of its group."""
    total = np.bincount(group, weights, minlength=count)
    if scaling == "size":
        return (np.bincount(group, minlength=count) / total)[group]
    return (total / np.bincount(group, weights**2, minlength=count))[group]


def clusters(design: Design) -> tuple[Array, int]:
    """Return the independent unit of every row and how many there are: the top-level group, or the row itself."""
    found = groupings(design.terms)
    if not found:
        return np.arange(design.n, dtype=np.uint32), design.n
    return np.ascontiguousarray(found[-1].codes, dtype=np.uint32), found[-1].levels


def sandwich(core: Any, design: Design) -> Array:
    """Return the robust covariance matrix of (beta, theta); NaN where the Hessian identifies nothing."""
    cluster, count = clusters(design)
    bread, scores = np.asarray(core.vcov()), np.asarray(core.scores(cluster, count))
    if count < 2:
        return np.full_like(bread, np.nan)
    known = np.isfinite(np.diag(bread))
    half = scores[:, known] @ bread[np.ix_(known, known)]
    out = np.full_like(bread, np.nan)
    out[np.ix_(known, known)] = half.T @ half * (count / (count - 1))
    return out
