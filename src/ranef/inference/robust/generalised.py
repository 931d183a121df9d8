"""Scores and bread of models whose responses have no covariance matrix that variance parameters alone determine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ranef.engines.estimate import Array
from ranef.engines.laplace import make_core, prepared
from ranef.errors import NotAvailableError
from ranef.frame.outcomes import by_outcome
from ranef.inference.robust.adjustments import Adjusted, Adjustment
from ranef.inference.robust.blocks import blocks_of
from ranef.inference.robust.clusters import Clusters
from ranef.inference.robust.linearised import Linearised, unlinearised
from ranef.inference.robust.working import by_cluster
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.model import Fit

ADJUSTED = ("CR2", "CR3")


def check_generalised(m: Fit, kind: str, reason: str) -> None:
    """Refuse kinds and criteria for which the scores of clusters are no sandwich's.

    Raises
    ------
    NotAvailableError
    """
    check_likelihood(m, f"kind={kind!r}")
    check_split(m, f"kind={kind!r}")
    why = unlinearised(m) if kind in ADJUSTED else ""
    if why:
        raise NotAvailableError(
            f"kind={kind!r} adjusts residuals of a gaussian model or of a working linear one, but {reason}, and {why}; "
            f"there are 'CR0', 'CR1' and 'CR1S', which need none"
        )


def check_likelihood(m: Fit, what: str, restricted: bool = False) -> None:
    """Refuse estimates that are no maximum of a likelihood; `restricted`: one with coefficients integrated out is one.

    Raises
    ------
    NotAvailableError
    """
    wishes = m.task.wishes
    if wishes is not None and (wishes.priors or wishes.firth):
        raise NotAvailableError(
            f"{what}: scores of penalised estimates do not sum to zero; fit without prior= or penalty="
        )
    if wishes is not None and (wishes.fixed or wishes.equal):
        raise NotAvailableError(f"{what}: parameters are held or tied; fit without fixed= or equal=")
    if m.method not in (("ml", "reml") if restricted else ("ml",)) or m.task.quadrature == 0:
        raise NotAvailableError(
            f"{what}: the estimates do not maximise a likelihood: fit with method='ml', quadrature=1"
        )


def check_split(m: Fit, what: str) -> None:
    """Refuse likelihoods that the core does not take apart by clusters.

    Raises
    ------
    NotAvailableError
    """
    if (term := next((t for t in m.layout.terms if t.structure == "rr"), None)) is not None:
        raise NotAvailableError(
            f"{what}: scores by cluster do not go with terms of reduced rank, rr(… | {term.label}); write us(…) or "
            f"diag(…), or use rf.bootstrap"
        )


def marginal_scores(m: Fit, by: Clusters) -> tuple[Array, Array]:
    """Return the inverse Hessian of (beta, theta) and the scores of the clusters, (count, p + m)."""
    bread = np.asarray(m.core.vcov())
    return bread, likelihood_scores(m, by)


def likelihood_scores(m: Fit, by: Clusters) -> Array:
    """Return the scores of the clusters in (beta, theta), (count, p + m); after REML those of the log-likelihood."""
    core = m.core
    if m.method != "ml":
        core = make_core(prepared(design_of(m, "estfun")), m.task)
        core.adopt(np.nan_to_num(m.estimate.beta).tolist(), m.theta.tolist(), m.task.quadrature, "ml")
    codes = by.codes[by_outcome(design_of(m, "estfun")).rows] if m.distribution.counts else by.codes
    return np.asarray(core.scores(np.ascontiguousarray(codes, dtype=np.uint32), by.count))


def adjusted_scores(found: Linearised, by: Clusters, scores: Array, adjustment: Adjustment) -> tuple[Array, Adjusted]:
    """Return the scores of the clusters with those of the mean's coefficients adjusted, and the adjustment.

    Parameters
    ----------
    found : Linearised
        X_j'g_j, which X_j'V_j^-1 A_j e_j takes the place of; what else is in the scores stays.
    by : Clusters
    scores : (count, p + m) array
    adjustment : function
        Of `adjustments`.
    """
    w = found.working
    adjusted = adjustment(w, by, blocks_of(w, by, found.z, found.noise))
    out, mean = scores.copy(), np.flatnonzero(w.here)
    out[:, mean] += adjusted.scores - by_cluster(w.x * w.white[:, None], by.codes, by.count)
    return out, adjusted
