"""Fits whose fixed factors of many levels are written out as dummies, for what needs all coefficients at once.

The fit itself keeps such a factor as a block of the sparse system. Its twin here is the same model at the same
estimate, nothing searched for: the design has the dummies, the core was evaluated at theta, and the covariance of the
coefficients is a whole matrix, so that everything made for such fits holds for it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ranef.engines.covariance import PartialCovariance, frozen, most_written
from ranef.engines.estimate import Estimate
from ranef.engines.linear import evaluated, with_dummies
from ranef.errors import NotAvailableError
from ranef.frame import Indicators
from ranef.inference.memory import remembered
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.frame import Design
    from ranef.model import Fit


def written_out(m: Fit) -> Fit:
    """Return the fit with dummies in the place of fixed factors of many levels; itself where it has none.

    Raises
    ------
    NotAvailableError
        If it has more than `most_written()` coefficients, or is slim.
    """
    partial: object = m.estimate.vcov
    return _twin(m) if isinstance(partial, PartialCovariance) else m


def objection(m: Fit) -> str:
    """Return what keeps a fit from being written out; "" if nothing."""
    partial: object = m.estimate.vcov
    if not isinstance(partial, PartialCovariance):
        return ""
    factors = " and ".join(repr(plan.factors[0].label) for plan in m.spec.fixed if plan.wide)
    if not partial.fits:
        return (
            f"it takes the dummies of the fixed factor {factors} and matrices of all {partial.size:,} coefficients "
            f"({8e-9 * partial.size**2:.1f} GB each), which go up to {most_written():,}: take the means within its "
            f"levels off response and columns and leave it out, merge levels, or make it a random effect"
        )
    if m.design is None:
        return f"it takes the dummies of the fixed factor {factors}, and a slim fit keeps no rows"
    return ""


def dummies_of(design: Design) -> Design:
    """Return a design with the dummies of all its factors.

    Raises
    ------
    NotAvailableError
        If a matrix of all coefficients would have more than `most_written()` columns.
    """
    if not any(isinstance(block.contrast, Indicators) for block in design.fixed):
        return design
    if design.p > most_written():
        raise NotAvailableError(
            f"this takes the dummies of a fixed factor of many levels, and {design.p:,} columns are more than "
            f"{most_written():,}: take the means within its levels off response and columns and leave it out, merge "
            f"levels, or make it a random effect"
        )
    return with_dummies(design)


@remembered
def _twin(m: Fit) -> Fit:
    if reason := objection(m):
        raise NotAvailableError(f"not available for this fit: {reason}")
    assert isinstance(m.estimate, Estimate)
    design = with_dummies(design_of(m, "dummies"))
    core, vcov = evaluated(design, m.estimate, m.estimate.reml, m.task.control.threads)
    if tuple(core.dropped) != m.estimate.dropped:
        raise NotAvailableError(
            "this needs all coefficients at once, and some columns depend so nearly on others that it is not certain "
            "which: leave such columns out"
        )
    spec = replace(m.spec, fixed=tuple(replace(plan, wide=False) for plan in m.spec.fixed))
    return replace(m, spec=spec, estimate=replace(m.estimate, vcov=frozen(vcov)), core=core, design=design)
