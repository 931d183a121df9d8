"""`anova(m)`: a table of tests of the terms of a model; `anova(m0, m1, …)`: of models against each other."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ranef.errors import ArgumentError
from ranef.inference.ddf import Joint, Method
from ranef.inference.frames import to_frame
from ranef.inference.hypotheses import Hypothesis, hypotheses, read_type
from ranef.inference.terms import is_linear_model
from ranef.inference.testing import wald_method
from ranef.inference.varcorr import has_residual
from ranef.inference.wald import f_p_value
from ranef.inference.whole_factor import is_whole, left_out
from ranef.model import Fit, check_fit


def anova(m: Fit, *others: Fit, **options: Any) -> Any:
    """Test the terms of a model, or models against each other.

    Parameters
    ----------
    m : Fit
        A fitted model.
    *others : Fit
        Further models: then the table is of likelihood-ratio tests.
    type : 1, 2, 3, "I", "II" or "III"
        One model only. What is asked of each term: what it adds to the terms before it; to all terms that do not
        contain it; or (the default) whether its unweighted comparisons are zero beside all other terms. Type III
        does not depend on how factors are coded (Goodnight 1978). In linear models a term is contained in one with the
        same continuous variables and more factors, as in SAS and lmerTest, and types I and II refer to the model
        matrix; in others in one with more variables, as in car, and they refer to the covariance of the coefficients.
    ddf : str, optional
        Denominator degrees of freedom: "satterthwaite" (the default of linear models; for several degrees of freedom
        Fai & Cornelius'), "kenward-roger", "inner-outer", "between-within", "residual", or "inf" (the default of
        others: Wald chi-square tests).
    component : str
        Part of the model: "mean", "zero_inflation", "dispersion" …
    vcov, cluster : str; str, array or list of str, optional
        Covariance of the coefficients: "model" (the default), "kenward-roger", or the robust "CR0" … "CR3" with the
        clusters, as in `Fit.vcov`. With CR0 … CR3 a row has Satterthwaite's degrees of freedom and several have
        Hotelling's T^2 (Pustejovsky & Tipton 2018); `ddf="inf"` gives normal and chi-square tests.
    refit : bool
        Several models: fit REML fits again by maximum likelihood where their fixed effects differ (the default), rather
        than refuse.
    nested : bool
        Several models: you know that every model is a special case of the next larger one, where that cannot be seen.
    **options
        The above, by name.

    Returns
    -------
    data frame, or NotedTable of several models
        Of several models one row each, by number of parameters: `model, npar, aic, bic, loglik, deviance`, and of the
        test against the row before `chisq, df, p_value`, `p_mixture` and `mixture` (the law that holds where variances
        are 0 under the null); `notes` say what was refitted and where p-values are doubtful.
        Of one model, of the kind of the data: one row per term. F tests have `term`, `sumsq`, `meansq` (linear models
        only: the unscaled F times sigma^2, as lmerTest; not with a robust covariance, which has none), `numdf`,
        `dendf`, `statistic`, `p_value`; chi-square tests `term`, `statistic`, `df`, `p_value`. Where clusters are too
        few for a joint test `p_value` is NaN. A fixed factor of more than 500 levels, beside all other terms, has Fai
        and Cornelius' degrees of freedom from a few hundred combinations of its levels, within 0.5 % of those of all;
        of more than 7,000 its row is NaN, with a warning, for Kenward and Roger's and robust tests.

    Raises
    ------
    OptionError, NotAvailableError

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("score ~ Machine + (1 | Worker)", rf.datasets.load("Machines"))
    >>> rf.anova(m, type=3, ddf="kenward-roger")["dendf"][0].round(1)
    np.float64(46.0)
    >>> m0 = m.update(". ~ . - Machine")
    >>> round(float(rf.anova(m0, m)["chisq"][1]), 3)  # by maximum likelihood
    75.466
    """
    if not isinstance(m, Fit) and isinstance(m, (list, tuple)) and not others:
        raise ArgumentError("anova takes the fits one by one, anova(m0, m1), not a list; rf.compare takes a list")
    check_fit(m, "anova")
    if others:
        known = ("refit", "nested", "test")
        wrong = next((name for name in options if name not in known), None)
        if wrong is not None:
            raise ArgumentError(
                f"anova of several models is by likelihood ratios and takes {', '.join(known)}, not {wrong!r}; type, "
                f"ddf, component, vcov and cluster go with the tests of one model, anova(m, {wrong}=…)"
            )
        from ranef.inference.likelihood_tests import compare_models

        return compare_models(m, *others, **options)
    return anova_of_one(m, **options)


def anova_of_one(
    m: Fit,
    type: Any = 3,  # noqa: A002
    ddf: Any = None,
    component: str = "mean",
    vcov: Any = None,
    cluster: Any = None,
    **unknown: Any,
) -> Any:
    """Return the table of one model, see `anova`."""
    if unknown:
        raise ArgumentError(
            f"anova of one model takes type, ddf, component, vcov and cluster, not {', '.join(map(repr, unknown))}"
        )
    kind, method = read_type(type), wald_method(m, ddf, vcov, cluster)
    found = hypotheses(m, kind, component, partial(is_whole, m, method))
    return to_frame(_columns(m, found, [_test(m, method, h) for h in found], method), m.layout.kind)


def _test(m: Fit, method: Method, h: Hypothesis) -> Joint:
    if h.rows is None:
        return left_out(m, method, h.term, h.about, h.behind)
    return method.joint(m, h.rows, np.zeros(len(h.rows)), h.about)


def _columns(m: Fit, found: list[Hypothesis], tests: list[Joint], method: Method) -> dict[str, Any]:
    table: dict[str, Any] = {"term": [h.label for h in found]}
    q = np.array([t.numdf for t in tests], dtype=np.int64)
    f, dendf = (np.array([getattr(t, name) for t in tests], dtype=np.float64) for name in ("statistic", "dendf"))
    if method.letter == "z" and not is_linear_model(m):
        return {**table, "statistic": f * q, "df": q, "p_value": f_p_value(f, q, dendf)}
    if is_linear_model(m) and has_residual(m.varcorr()) and not method.errors:
        meansq = np.array([t.unscaled for t in tests], dtype=np.float64) * m.sigma**2
        table |= {"sumsq": meansq * q, "meansq": meansq}
    return {**table, "numdf": q, "dendf": dendf, "statistic": f, "p_value": f_p_value(f, q, dendf)}
