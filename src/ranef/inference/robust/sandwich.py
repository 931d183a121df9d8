"""`vcov(kind="CR2", cluster=...)`: sandwich covariances that hold where the model's V does not.

V_CR = M [sum_i s_i s_i'] M over independent clusters, s_i their scores (Liang & Zeger 1986), adjusted for small numbers
of clusters (`adjustments`). For generalised models M is the inverse Hessian of (beta, theta) and the s_i are the exact
scores of the marginal log-likelihood.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines.estimate import Array
from ranef.errors import NotAvailableError, OptionError, RanefWarning, nearest
from ranef.inference.ddf.method import kept
from ranef.inference.robust.adjustments import ADJUSTMENTS, Adjusted, degrees, factor
from ranef.inference.robust.blocks import blocks
from ranef.inference.robust.clusters import Clusters, check_nested, clusters_of, intersections
from ranef.inference.robust.generalised import check_generalised, marginal_scores
from ranef.inference.robust.working import by_cluster, working
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.model import Fit

TWO_WAY = ("CR0", "CR1", "CR1S")
NEGATIVE = -1e-12  # relative eigenvalues below this are no rounding


@dataclass(frozen=True, slots=True)
class Sandwich:
    """A robust covariance of all coefficients and what tests need.

    Attributes
    ----------
    vcov : (p, p) array
        NaN in rows and columns dropped.
    clusters : tuple of Clusters
    adjusted : Adjusted or None
        None where no degrees of freedom but a number of clusters less one are known.
    """

    vcov: Array
    clusters: tuple[Clusters, ...]
    adjusted: Adjusted | None


def kind_of(kind: Any) -> str:
    """Return the name of a kind as it is written here.

    Raises
    ------
    OptionError
        If there is no such kind; the nearest is named.
    """
    name = str(kind).upper()
    if name not in ADJUSTMENTS:
        known = ("model", "kenward-roger", *ADJUSTMENTS)
        raise OptionError(f"vcov: kind={kind!r} is unknown; {nearest(kind, known)}")
    return name


def sandwich(m: Fit, kind: Any, cluster: Any = None) -> Sandwich:
    """Return the robust covariance of a fit.

    Raises
    ------
    OptionError, NotAvailableError, DataError
    """
    name = kind_of(kind)
    design = design_of(m, f"kind={name!r}")
    if not m.task.linear:
        check_generalised(m, name)
    if not kept(m).any():
        raise NotAvailableError(f"kind={name!r}: the model has no fixed effects")
    ways = clusters_of(m, design, cluster)
    by, *more = ways
    if more and (name not in TWO_WAY or not m.task.linear):
        raise NotAvailableError(
            f"kind={name!r}: several ways of clustering are there for linear models and kinds {', '.join(TWO_WAY)} "
            f"(Cameron, Gelbach & Miller 2011); give one cluster="
        )
    check_nested(design, ways, f"kind={name!r}")
    if more:
        return Sandwich(_expanded(m, _several(m, name, ways)), ways, None)
    if not m.task.linear:
        return Sandwich(_marginal(m, name, by), ways, None)
    w = working(m)
    adjusted = ADJUSTMENTS[name](w, by, blocks(m, w, by))
    half = adjusted.scores @ w.bread
    scale = factor(name, by.count, m.nobs, m.estimate.rank)
    return Sandwich(_expanded(m, scale * half.T @ half), ways, adjusted)


def _expanded(m: Fit, a: Array) -> Array:
    """Put NaN at the coefficients dropped."""
    here = kept(m)
    out = np.full((len(here), len(here)), np.nan)
    out[np.ix_(here, here)] = a
    return out


def _several(m: Fit, name: str, ways: Sequence[Clusters]) -> Array:
    """Add the ways and take off what was counted twice (Cameron, Gelbach & Miller 2011).

    Residuals stay on their side of V^-1, s_i = (V^-1 X)_i' e_i: V may reach from one cluster into another.

    Warns
    -----
    RanefWarning
        If the sum is no covariance matrix; its negative eigenvalues are then set to 0, as the article does.
    """
    w = working(m)
    rows, total = w.solved * w.residual[:, None] @ w.bread, np.zeros_like(w.bread)
    for sign, way in intersections(ways):
        half = by_cluster(rows, way.codes, way.count)
        total += sign * factor(name, way.count, m.nobs, m.estimate.rank) * half.T @ half
    values, vectors = np.linalg.eigh(total)
    if values[0] < NEGATIVE * values[-1]:
        warnings.warn(
            f"kind={name!r}: with {' and '.join(c.name for c in ways)} the sum over clusterings is no covariance "
            f"matrix (few clusters); its negative eigenvalues were set to 0",
            RanefWarning,
            stacklevel=5,
        )
        total = (vectors * np.maximum(values, 0)) @ vectors.T
    return total


def _marginal(m: Fit, name: str, by: Clusters) -> Array:
    """Sandwich of (beta, theta) jointly; the block of beta."""
    bread, scores = marginal_scores(m, by)
    known = np.isfinite(np.diag(bread))
    half = scores[:, known] @ bread[np.ix_(known, known)]
    out = np.full_like(bread, np.nan)
    out[np.ix_(known, known)] = factor(name, by.count, m.nobs, m.estimate.rank) * half.T @ half
    p = len(m.estimate.beta)
    return out[:p, :p]


def contrast_df(m: Fit, found: Sandwich, rows: Array) -> Array:
    """Degrees of freedom of rows over all coefficients: Satterthwaite's; clusters less one for several ways.

    Infinite for generalised models.
    """
    if not m.task.linear:
        return np.full(len(rows), np.inf)
    if found.adjusted is None:
        return np.full(len(rows), float(min(c.count for c in found.clusters) - 1))
    return degrees(found.adjusted, working(m).bread, rows[:, kept(m)])
