"""Intraclass correlations: the share of the variance that lies between groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.criteria.variances import Variances, variances
from ranef.errors import NotAvailableError, OptionError, nearest
from ranef.inference.noted import NotedTable
from ranef.model import check_fit

if TYPE_CHECKING:
    from ranef.model import Fit

KINDS = ("adjusted", "conditional")


def icc(m: Fit, kind: str = "adjusted", by_group: bool = False, method: str = "auto") -> Any:
    """Return the intraclass correlation of a fit, or of each of its grouping factors.

    Parameters
    ----------
    m : Fit
        With its rows and random effects of the mean.
    kind : "adjusted" | "conditional"
        r / (r + e), or r / (f + r + e) with the variance of the fixed effects in it too (f, r, e those of fixed
        effects, random effects, residuals; random slopes by Johnson 2014, their mean variance over the rows).
    by_group : bool
        Return a table `group, variance, icc` instead; its rows sum to the whole. Of nested factors, two rows that share
        the outer level only are correlated by the outer factor's; rows that share both by the sum.
    method : str
        For the residual variance of other than gaussian models, see `ranef.criteria.variances`.

    Returns
    -------
    float or NotedTable

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
    >>> round(icc(m), 4)
    0.7217
    """
    check_fit(m, "icc")
    v = variances(m, method)
    if not v.parts:
        raise NotAvailableError("icc: the mean of the model has no random effects")
    total = denominator(v, kind)
    if not by_group:
        return v.random / total if total > 0 else 0.0
    groups = list(dict.fromkeys(p.group for p in v.parts if not p.by_row))
    values = np.array([v.of_group(g) for g in groups])
    columns = {"group": groups, "variance": values, "icc": values / total}
    return NotedTable(f"Intraclass correlations ({kind})", columns, (), m.layout.kind)


def denominator(v: Variances, kind: str) -> float:
    """Return the variance that an intraclass correlation is a share of."""
    if kind not in KINDS:
        raise OptionError(f"icc: kind={kind!r} is unknown; {nearest(kind, KINDS)}")
    return v.random + v.residual + (v.fixed if kind == "conditional" else 0.0)
