"""The F test of a fixed factor of so many levels that its hypotheses are no matrix.

At the estimated theta, V* = V / sigma^2, the Wald statistic of all its coefficients is what generalised least squares
loses without it:

    q F sigma^2 = r(model without the factor) - r(model),      r = min (y - X beta)' V*^-1 (y - X beta),

two evaluations of penalised residual sums of squares. Satterthwaite's degrees of freedom of so many combinations L, one
by one, would take a solve each. Their generalised variance g = |L Phi L'|^(1/q) is known as a whole: with X_0 the other
columns, log |L Phi L'| = log |X_0'V^-1X_0| - log |X'V^-1X| + a constant (Harville 1997, theorem 13.3.8), so that

    df = 2 / (d'A d),      d = d log g / d (theta, sigma),

A their asymptotic covariance: Satterthwaite's formula for one variance, v = g. It is an upper bound of what Fai and
Cornelius' (1996) come to for many single combinations, the harmonic mean of their df nu_i, 2 / nu_i = d_i'A d_i:

    mean d_i'A d_i = d'A d + tr(A Cov(d_i)),      d the mean of the d_i.

Where all combinations rest on groups alike the second part is next to nothing: df were within 2 % in the designs
tried. Where a few rest on far fewer groups (the overall mean among all levels of a model without intercept) they were
up to twice Fai and Cornelius'. With 600 coefficients a p-value of 5 % by 2,000 degrees of freedom would be 7.1 % by
1,000, one by 600 would be 9.3 % by 300: `rf.pb_test` needs no degrees of freedom.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef import _core
from ranef.engines.estimate import Estimate
from ranef.engines.linear import cells, make_core, sources, term_sources
from ranef.errors import RanefWarning
from ranef.frame.design import Array, matrix
from ranef.inference.crossproducts import against
from ranef.inference.ddf.method import Joint, Method, model_vcov, partial_of
from ranef.inference.ddf.satterthwaite import LOCK, ingredients
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.frame import Design
    from ranef.inference.terms import FixedTerm
    from ranef.model import Fit

UNKNOWN = Joint(float("nan"), 0, float("nan"), float("nan"))
#: Levels from which on a whole factor is tested without a matrix of its coefficients, where that can be.
MANY = 500


def by_comparison(method: Method) -> bool:
    """Whether a method tests a whole factor by comparing two models, without the covariance of its coefficients."""
    return method.name != "kenward-roger" and not method.errors


def is_whole(m: Fit, method: Method, term: FixedTerm) -> bool:
    """Whether a term is a fixed factor of too many levels to look at each, or of more than are needed.

    Beside columns that depend on its levels, which were dropped, types of hypotheses differ in what is its own.
    """
    partial = partial_of(m)
    if partial is None or not partial.levels[term.columns.start]:
        return False
    many = term.columns.stop - term.columns.start > MANY and not np.isin(m.estimate.dropped, partial.columns).any()
    return not partial.fits or (many and by_comparison(method))


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
    if behind or not by_comparison(method):
        what = f"before {', '.join(t.label for t in behind)} (type 1)" if behind else method.errors or method.title
        warnings.warn(
            f"{term.label}: a test of {count:,} coefficients, {what}, takes matrices of their order: write the factor "
            f"last or use type=3, with ddf='satterthwaite'; or test it by likelihood ratio, rf.drop1(m)",
            RanefWarning,
            stacklevel=6,
        )
        return UNKNOWN
    e, design = m.estimate, design_of(m, "anova")
    assert isinstance(e, Estimate)
    rest = replace(design, fixed=(*design.fixed[: term.blocks.start], *design.fixed[term.blocks.stop :]))
    core = make_core(rest, threads=m.task.control.threads)
    found = core.fit(e.reml, np.array(m.theta), {"max_evaluations": 1})
    q = e.rank - core.rank
    f = float((found["pwrss"] - e.pwrss) / (q * m.sigma**2)) if q else float("nan")
    if method.vcov is model_vcov:  # a rule that counts
        df = float(method.rows(m, about).min())
    elif not design.terms or not q:
        df = float(m.nobs - e.rank)
    else:
        df = _matched(m, rest, core, found, q)
    return Joint(f, q, df, f)


def _matched(m: Fit, rest: Design, core: Any, found: Any, q: int) -> float:
    """Degrees of freedom of the generalised variance of what the factor adds to the other columns."""
    e, design = m.estimate, design_of(m, "anova")
    assert isinstance(e, Estimate)
    with LOCK:
        whole = _slope(design, m.core, e, (e.beta, e.modes), e.pwrss)
    less = _slope(rest, core, e, (np.asarray(found["beta"]), found["b"]), found["pwrss"])
    d = np.append((less - whole) / q, 2 / m.sigma)
    return float(2 / (d @ ingredients(m)[1] @ d))


def _slope(design: Design, core: Any, e: Estimate, at: tuple[Array, Sequence[Array]], pwrss: float) -> Array:
    """Return d log |X'V*^-1X| / d theta of a core at some coefficients and modes, which it is left at.

    The restricted deviance less that of the likelihood is log |X'V*^-1X| - r log sigma^2 with sigma profiled out, and
    d pwrss = -w'dV* w with the rows w = V*^-1 (y - X beta) = W (y - X beta - Z b).
    """
    theta = np.array(e.theta)
    apart = [np.asarray(core.evaluate(theta, reml)["gradient"]) for reml in (not e.reml, e.reml)]
    change = (apart[0] - apart[1]) * (-1 if e.reml else 1)
    beta, modes = np.ascontiguousarray(np.nan_to_num(at[0])), [np.ascontiguousarray(b) for b in at[1]]
    eta = _core.linear_predictor(
        sources(design.fixed), beta, term_sources(design.terms), modes, design.offset, design.n
    )  # fmt: skip
    white = (np.asarray(design.y) - np.asarray(eta)) * (1.0 if design.weights is None else design.weights)
    slopes = []
    for term, factor in zip(design.terms, e.factors, strict=True):
        g = against(term, matrix(term.blocks, design.n), white[:, None])[..., 0]
        turned = g @ factor
        # dSigma* / dLambda_ij = E_ij Lambda' + Lambda E_ji
        slopes += [-2 * float(g[:, i] @ turned[:, j]) for i, j in cells(len(term.names), term.structure)]
    return np.asarray(change + core.rank * np.array(slopes) / pwrss)
