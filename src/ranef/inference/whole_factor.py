"""The F test of a fixed factor of so many levels that its hypotheses are no matrix.

At the estimated theta, V* = V / sigma^2, the Wald statistic of all its coefficients is what generalised least squares
loses without it:

    q F sigma^2 = r(model without the factor) - r(model),      r = min (y - X beta)' V*^-1 (y - X beta),

two evaluations of penalised residual sums of squares. Satterthwaite's degrees of freedom of that many combinations
would take a solve each; residual ones stand in for them, as for the levels in tables.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ranef.engines.estimate import Estimate
from ranef.engines.linear import make_core
from ranef.errors import RanefWarning
from ranef.frame.design import Array
from ranef.inference.ddf.method import Joint, Method, model_vcov
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.inference.terms import FixedTerm
    from ranef.model import Fit

UNKNOWN = Joint(float("nan"), 0, float("nan"), float("nan"))


def left_out(m: Fit, method: Method, term: FixedTerm, about: Array, behind: tuple[FixedTerm, ...] = ()) -> Joint:
    """Test a whole factor beside all other terms; NaN, with a warning, where that takes a matrix.

    Parameters
    ----------
    m : Fit
        With a fixed factor of many levels.
    method : Method
    term : FixedTerm
        The factor.
    about : (1, p) array
        Its first coefficient, for rules that count.
    behind : tuple of FixedTerm
        Terms that it is not adjusted for (type I).
    """
    count = term.columns.stop - term.columns.start
    if behind or method.name == "kenward-roger" or method.errors:
        what = f"before {', '.join(t.label for t in behind)} (type 1)" if behind else method.errors or method.title
        warnings.warn(
            f"{term.label}: a test of {count:,} coefficients, {what}, takes matrices of their order: write the factor "
            f"last or use type=3, with ddf='satterthwaite'; or test it by likelihood ratio, rf.drop1(m)",
            RanefWarning,
            stacklevel=6,
        )
        return UNKNOWN
    assert isinstance(m.estimate, Estimate)
    design = design_of(m, "anova")
    rest = replace(design, fixed=(*design.fixed[: term.blocks.start], *design.fixed[term.blocks.stop :]))
    core = make_core(rest, threads=m.task.control.threads)
    lost = core.evaluate(np.array(m.theta), m.estimate.reml)["pwrss"] - m.estimate.pwrss
    q = m.estimate.rank - core.rank
    f = float(lost / (q * m.sigma**2)) if q else float("nan")
    by_rule = method.vcov is model_vcov
    df = float(method.rows(m, about).min()) if by_rule else float(m.nobs - m.estimate.rank)
    return Joint(f, q, df, f)
