"""R2 of mixed models: the share of the variance that fixed effects explain, and that all effects explain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ranef.criteria.variances import Variances, variances
from ranef.model import check_fit

if TYPE_CHECKING:
    from ranef.model import Fit


@dataclass(frozen=True, slots=True)
class R2:
    """Shares of the variance explained, in [0, 1].

    Attributes
    ----------
    marginal : float
        By the fixed effects.
    conditional : float
        By fixed and random effects.
    variances : Variances
        What they are made of.
    """

    marginal: float
    conditional: float
    variances: Variances

    def __repr__(self) -> str:
        return f"R2: marginal {self.marginal:.4f}, conditional {self.conditional:.4f}"


def r2(m: Fit, method: str = "auto") -> R2:
    """Return marginal and conditional R2 of a fit.

    Parameters
    ----------
    m : Fit
        With its rows; without random effects the two are equal.
    method : "auto" | "theoretical" | "lognormal" | "trigamma" | "delta"
        How the residual variance of other than gaussian models is found on the scale of the link; see
        `ranef.criteria.variances`.

    Returns
    -------
    R2
        marginal = f / (f + r + e), conditional = (f + r) / (f + r + e), with f, r, e the variances of fixed effects,
        random effects (random slopes by Johnson 2014) and residuals.

    Raises
    ------
    OptionError
        If the method is not known.
    NotAvailableError
        If the family has no residual variance to set beside, or the fit no rows (`slim`).

    References
    ----------
    Nakagawa & Schielzeth (2013), Methods in Ecology and Evolution 4, 133-142; Johnson (2014), ibid. 5, 944-946;
    Nakagawa, Johnson & Schielzeth (2017), J. R. Soc. Interface 14, 20170213.

    Examples
    --------
    >>> import ranef as rf
    >>> rf.r2(rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy")))
    R2: marginal 0.2787, conditional 0.7992
    """
    check_fit(m, "r2")
    v = variances(m, method)
    total = v.total
    if total <= 0:
        return R2(0.0, 0.0, v)
    return R2(v.fixed / total, (v.fixed + v.random) / total, v)
