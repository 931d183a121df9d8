"""`vcov(kind="CR2", cluster=...)`: sandwich covariances that hold where the model's V does not.

V_CR = M [sum_i s_i s_i'] M over independent clusters, s_i their scores (Liang & Zeger 1986), adjusted for small numbers
of clusters (`adjustments`). Gaussian models take their own V as working covariance, whatever its structure and however
it was estimated; where there is none (`working.objection`), M is the inverse Hessian of (beta, theta) and the s_i are
the exact scores of the marginal log-likelihood, of which CR2 and CR3 adjust those of the mean's coefficients by the
working linear model at the optimum (`linearised`): s_i + X_i'V_i^-1 (A_i - I) e_i. With the gaussian distribution and
the identity link that model is the model itself and A_i that of a linear mixed model; without random effects and with
the canonical link the sandwich is clubSandwich's of a generalised linear model. Where E(e_i e_j') is that of the
linearised model, the sum of the adjusted s_i s_i' has the expectation M^-1: CR2 is unbiased to first order.

That is as far as the literature goes. Bell & McCaffrey (2002) and Pustejovsky & Tipton (2018) define CR2 of linear
models, McCaffrey & Bell (2006, Statistics in Medicine 25, 4081) that of generalised estimating equations: the working
linear model of the mean at the estimate, the roots of its V_i, and Satterthwaite's df from it, as here, with the
variance parameters held, which do not enter an estimating equation's sandwich (Liang & Zeger 1986). Kauermann & Carroll
(2001) have the same to first order for quasi-likelihoods, Mancl & DeRouen (2001) what is CR3 here. The scores of
theta, which only a likelihood has, have no bias-reduced version in any of them: they are those of CR0, and what the
estimation of theta adds to the variance of the mean's coefficients is CR0's too. The generalised models of clubSandwich
have no random effects.

Several ways of clustering add up with signs (Cameron, Gelbach & Miller 2011). Where random effects reach from one
cluster into another the scores are (V^-1 X)_i'e_i, whose residuals e_i stay on their side of V^-1; of generalised
models those of the working linear model at the estimated theta, M its (X'V^-1X)^-1: there the marginal likelihood is no
sum over clusters and has no scores of theta by cluster, theta is held, as estimating equations hold it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ranef.engines.estimate import Array
from ranef.errors import NotAvailableError, OptionError, RanefWarning, nearest
from ranef.inference.ddf.method import kept, rows_counted
from ranef.inference.resampling import is_nested
from ranef.inference.robust.adjustments import ADJUSTMENTS, Adjusted, degrees, factor, hotelling
from ranef.inference.robust.blocks import blocks
from ranef.inference.robust.clusters import Clusters, check_nested, clusters_of, intersections
from ranef.inference.robust.generalised import ADJUSTED, adjusted_scores, check_generalised, marginal_scores
from ranef.inference.robust.linearised import linearised, unlinearised
from ranef.inference.robust.working import Working, by_cluster, objection, working
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
    kind : str
    vcov : (p, p) array
        NaN in rows and columns dropped; of gaussian models with a dispersion formula, in those of the dispersion.
    clusters : tuple of Clusters
    adjusted : Adjusted or None
        None where no degrees of freedom but a number of clusters less one are known.
    working : Working or None
        The linear model, the fit's own or that of `linearised`, by which tests have degrees of freedom; None: normal.
    """

    kind: str
    vcov: Array
    clusters: tuple[Clusters, ...]
    adjusted: Adjusted | None
    working: Working | None


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
    reason = objection(m)
    if reason:
        check_generalised(m, name, reason)
    if not kept(m).any():
        raise NotAvailableError(f"kind={name!r}: the model has no fixed effects")
    ways = clusters_of(m, design, cluster)
    by, *more = ways
    if more and name not in TWO_WAY:
        raise _one_way(name)
    check_nested(design, ways, f"kind={name!r}")
    if more:
        return _of_scores(m, name, ways) if reason else _of_working(m, name, ways)
    if reason:
        return _marginal(m, name, by)
    w = working(m)
    adjusted = ADJUSTMENTS[name](w, by, blocks(m, w, by))
    half = adjusted.scores @ w.bread
    scale = factor(name, by.count, rows_counted(m), int(w.here.sum()))
    return Sandwich(name, _expanded(scale * half.T @ half, w.here), ways, adjusted, w)


def _one_way(name: str) -> NotAvailableError:
    """Return the refusal of several ways of clustering where there is no theory of them."""
    return NotAvailableError(
        f"kind={name!r}: with several ways of clustering there are {', '.join(TWO_WAY)} (Cameron, Gelbach & Miller "
        f"2011). The adjustment of {name} is defined by what E(sum of s_i s_i') is for independent clusters; a "
        f"difference of such sums has none, and no degrees of freedom: give one cluster=, or kind='CR1'"
    )


def _expanded(a: Array, here: NDArray[np.bool_]) -> Array:
    """Put NaN at the coefficients that it is not about."""
    out = np.full((len(here), len(here)), np.nan)
    out[np.ix_(here, here)] = a
    return out


# ---- several ways of clustering --------------------------------------------------------------------------------------


def _of_working(m: Fit, name: str, ways: Sequence[Clusters]) -> Sandwich:
    w = working(m)
    total = added(_by_rows(w), ways, lambda count: factor(name, count, rows_counted(m), int(w.here.sum())))
    return Sandwich(name, _expanded(_repaired(total, name, ways), w.here), tuple(ways), None, w)


def _of_scores(m: Fit, name: str, ways: Sequence[Clusters]) -> Sandwich:
    """Add exact scores of (beta, theta) where all clusterings are into independent ones, else linearised ones of rows.

    Raises
    ------
    NotAvailableError
        If there is no working linear model where one is needed.
    """
    terms, p = design_of(m, "robust covariance").terms, len(m.estimate.beta)
    crossed = next((t for t in terms if not all(is_nested(np.asarray(t.codes), w.codes) for w in ways)), None)

    def scale(count: int) -> float:
        return factor(name, count, rows_counted(m), m.estimate.rank)

    if crossed is None:
        bread = marginal_scores(m, ways[0])[0]
        here = np.isfinite(np.diag(bread))
        inner = bread[np.ix_(here, here)]
        total = added(lambda by: marginal_scores(m, by)[1][:, here] @ inner, ways, scale)
        mean = here[:p]
        total = total[: mean.sum(), : mean.sum()]
    elif why := unlinearised(m):
        raise NotAvailableError(
            f"kind={name!r}: random effects of {crossed.label!r} reach across clusters, whose scores are then those of "
            f"a working linear model of the rows, but {why}: give cluster= such that every level lies in one cluster "
            f"of each way"
        )
    else:
        w = linearised(m).working
        mean, total = w.here, added(_by_rows(w), ways, scale)
    return Sandwich(name, _expanded(_repaired(total, name, ways), mean), tuple(ways), None, None)


def _by_rows(w: Working) -> Callable[[Clusters], Array]:
    """Return M s_i of clusters with s_i = (V^-1 X)_i'e_i: residuals stay on their side of V^-1."""
    rows = w.solved * w.residual[:, None] @ w.bread
    return lambda by: by_cluster(rows, by.codes, by.count)


def added(halves: Callable[[Clusters], Array], ways: Sequence[Clusters], scale: Callable[[int], float]) -> Array:
    """Add the sandwiches of the ways and take off what was counted twice (Cameron, Gelbach & Miller 2011).

    Parameters
    ----------
    halves : function from clusters to their (m, c) M s_i
    ways : sequence of Clusters
    scale : function from a number of clusters to the factor of the kind
    """
    total: Any = 0.0
    for sign, by in intersections(ways):
        half = halves(by)
        total = total + sign * scale(by.count) * half.T @ half
    return np.asarray(total)


def _repaired(total: Array, name: str, ways: Sequence[Clusters]) -> Array:
    """Return a sum over clusterings as a covariance matrix.

    Warns
    -----
    RanefWarning
        If the sum is none; its negative eigenvalues are then set to 0, as the article does.
    """
    values, vectors = np.linalg.eigh(total)
    if values[0] >= NEGATIVE * values[-1]:
        return total
    warnings.warn(
        f"kind={name!r}: with {' and '.join(c.name for c in ways)} the sum over clusterings is no covariance "
        f"matrix (few clusters); its negative eigenvalues were set to 0",
        RanefWarning,
        stacklevel=6,
    )
    return np.asarray((vectors * np.maximum(values, 0)) @ vectors.T)


# ---- models without a covariance matrix of the responses -------------------------------------------------------------


def _marginal(m: Fit, name: str, by: Clusters) -> Sandwich:
    """Sandwich of (beta, theta) jointly; the block of beta."""
    bread, scores = marginal_scores(m, by)
    adjusted, w = None, None
    if name in ADJUSTED:
        found = linearised(m)
        w, (scores, adjusted) = found.working, adjusted_scores(found, by, scores, ADJUSTMENTS[name])
    known = np.isfinite(np.diag(bread))
    half = scores[:, known] @ bread[np.ix_(known, known)]
    out = np.full_like(bread, np.nan)
    out[np.ix_(known, known)] = factor(name, by.count, rows_counted(m), m.estimate.rank) * half.T @ half
    p = len(m.estimate.beta)
    return Sandwich(name, out[:p, :p], (by,), adjusted, w)


def model_based(m: Fit) -> Array:
    """Return what the covariance would be if the working model held, (p, p)."""
    return m.estimate.vcov if objection(m) else _expanded(working(m).bread, working(m).here)


def contrast_df(m: Fit, found: Sandwich, rows: Array) -> Array:
    """Degrees of freedom of rows over all coefficients: Satterthwaite's; clusters less one for several ways.

    Infinite where there is no working linear model, and of rows with coefficients that it does not have.
    """
    w = found.working
    if w is None:
        return np.full(len(rows), np.inf)
    if found.adjusted is None:
        return np.full(len(rows), fewest(found))
    out = degrees(found.adjusted, w.bread, rows[:, w.here])
    out[_beside(m, w, rows)] = np.inf
    return out


def _beside(m: Fit, w: Working, rows: Array) -> NDArray[np.bool_]:
    """Which rows have weight on coefficients that were estimated and are not the working model's."""
    return np.asarray((rows[:, kept(m) & ~w.here] != 0).any(axis=1))


def joint_df(m: Fit, found: Sandwich, rows: Array) -> tuple[float, float]:
    """Return what Q / q is multiplied by and the denominator's degrees of freedom of a joint test of (q, p) rows.

    Hotelling's T^2 with eta degrees of freedom (`hotelling`): (eta - q + 1) / eta and eta - q + 1.
    """
    q, w = len(rows), found.working
    if w is None:
        return 1.0, np.inf
    if found.adjusted is None:
        return 1.0, fewest(found)
    if _beside(m, w, rows).any():
        return 1.0, np.inf
    eta = hotelling(found.adjusted, w.bread, rows[:, w.here])
    return (eta - q + 1) / eta, eta - q + 1


def fewest(found: Sandwich) -> float:
    """Return the smallest number of clusters less one (Cameron & Miller 2015, section VI.D)."""
    return float(min(c.count for c in found.clusters) - 1)
