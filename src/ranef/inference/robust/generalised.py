"""Scores and bread of models whose responses have no covariance matrix that variance parameters alone determine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ranef.engines.estimate import Array
from ranef.errors import NotAvailableError
from ranef.inference.ddf.satterthwaite import LOCK
from ranef.inference.robust.clusters import Clusters

if TYPE_CHECKING:
    from ranef.model import Fit

KINDS = ("CR0", "CR1")


def check_generalised(m: Fit, kind: str, reason: str) -> None:
    """Refuse kinds and criteria for which the scores of clusters are no sandwich's.

    Raises
    ------
    NotAvailableError
    """
    if kind not in KINDS:
        raise NotAvailableError(
            f"kind={kind!r} adjusts residuals of a gaussian model, but {reason}; there are "
            f"{' and '.join(map(repr, KINDS))}, which need no covariance matrix"
        )
    check_likelihood(m, f"kind={kind!r}")


def check_likelihood(m: Fit, what: str) -> None:
    """Refuse estimates that are no maximum of a likelihood which is a product over groups.

    Raises
    ------
    NotAvailableError
    """
    wishes = m.task.wishes
    if m.method != "ml" or m.task.quadrature == 0:
        raise NotAvailableError(
            f"{what}: the estimates do not maximise a likelihood: fit with method='ml', quadrature=1"
        )
    if wishes is not None and (wishes.priors or wishes.firth):
        raise NotAvailableError(
            f"{what}: scores of penalised estimates do not sum to zero; fit without prior= or penalty="
        )
    if wishes is not None and (wishes.fixed or wishes.equal):
        raise NotAvailableError(f"{what}: parameters are held or tied; fit without fixed= or equal=")


def marginal_scores(m: Fit, by: Clusters) -> tuple[Array, Array]:
    """Return the inverse Hessian of (beta, theta) and the scores of the clusters, (count, p + m)."""
    with LOCK:
        bread = np.asarray(m.core.vcov())
        scores = np.asarray(m.core.scores(np.ascontiguousarray(by.codes, dtype=np.uint32), by.count))
    return bread, scores
