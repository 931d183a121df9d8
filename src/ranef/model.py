"""`fit(...)` and `Fit`, the object a user holds: it answers what every fit answers and hands the rest on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef import families
from ranef.call import Call, asked, build_call
from ranef.engines import Certificate, Control, Engine, Result, Task, engine_of
from ranef.engines.estimate import Array, Lost, certificate
from ranef.errors import (
    ArgumentError,
    ConvergenceWarning,
    DataError,
    FormulaError,
    NotAvailableError,
    RanefError,
    RanefWarning,
    SeparationWarning,
)
from ranef.formula import Formula
from ranef.frame import Design, Spec
from ranef.frame.table import collected, kept
from ranef.layout import Layout, layout_of
from ranef.progress import Searching

if TYPE_CHECKING:
    from ranef.diagnose.boundary import Boundary
    from ranef.diagnose.messages import Message
    from ranef.frame.relations import Relation
    from ranef.inference.varcorr import VarCorr

__all__ = ["Digest", "Fit", "check_fit", "design_of", "fit", "fit_call"]


#: Messages that say that the numbers are not what they are called, raised as warnings.
WRONG = frozenset({"improper_density", "illegal_means"})
APART = 2.0  # a standard deviation below which no link's effects are so far apart that outcomes are certain
#: Messages that say why there is no optimum to converge to.
CAUSES = frozenset(
    {"edge_of_means", "edge_of_support", "unlogged_offset", "few_inside", "half_normal", "wide_within_bounds"}
)
#: What other packages call things of a fit, and where they are here.
ELSEWHERE = {
    **dict.fromkeys(("pvalues", "bse", "tvalues", "zvalues", "fe_pvalues", "coefs", "std_errors"), "m.tidy()"),
    **dict.fromkeys(("fe_params", "fixef", "fixed_effects", "beta", "coef_"), "m.params"),
    **dict.fromkeys(("random_effects", "ranefs"), "m.ranef()"),
    **dict.fromkeys(("anova", "confint", "profile", "bootstrap", "contrast", "drop1", "icc", "r2"), "rf.NAME(m)"),
    **dict.fromkeys(("resid", "wresid"), "m.residuals()"),
    **dict.fromkeys(("logLik", "llf"), "m.loglik"),
    **dict.fromkeys(("df_resid", "rdf"), "m.df_residual"),
    **dict.fromkeys(("hessian", "hess"), "rf.information(m)"),
    "phi": "m.sigma",
    "AIC": "m.aic",
    "BIC": "m.bic",
    "AICc": "m.aicc",
    "getME": "m.theta, m.design, …",
    "conf_int": "rf.confint(m)",
    "cov_params": "m.vcov()",
    "cov_re": "m.varcorr()",
    "VarCorr": "m.varcorr()",
    "fittedvalues": "m.fitted()",
    "rsquared": "rf.r2(m)",
    "plot": "rf.plot.caterpillar(m), rf.plot.residuals_fitted(m), …",
    "isSingular": "m.boundary",
    "get_prediction": "m.predict(interval='confidence')",
}


@dataclass(frozen=True, slots=True)
class Digest:
    """What `slim()` computes before the rows go, and what it keeps of the design: relationships between levels."""

    messages: tuple[Message, ...]
    residual_quantiles: Array
    relations: tuple[Relation | None, ...] = ()


def fit(
    formula: str | Formula,
    data: Any,
    *,
    family: Any = "gaussian",
    link: str | Mapping[str, str] | None = None,
    dispersion: str | Formula | float | None = None,
    zero_inflation: str | Formula | float | None = None,
    method: str | None = None,
    quadrature: int = 1,
    offset: Any = None,
    precision_weights: Any = None,
    frequency_weights: Any = None,
    sampling_weights: Any = None,
    trials: Any = None,
    contrasts: Any = None,
    missing: str = "drop",
    control: Control | Mapping[str, Any] | None = None,
    threads: int | None = None,
    seed: int | None = None,
    progress: bool | None = None,
    env: Any = None,
    cov: Mapping[str, Any] | None = None,
    precision: Mapping[str, Any] | None = None,
    fixed: Mapping[str, float] | None = None,
    equal: Sequence[Sequence[str]] | None = None,
    prior: Any = None,
    penalty: str | None = None,
    randomised_response: Mapping[str, Any] | None = None,
    **parameters: Any,
) -> Fit:
    """Fit a mixed-effects model.

    Parameters
    ----------
    formula : str or Formula
        As in lme4: `"reaction ~ days + (days | subject)"`.
    data : data frame or dict of arrays
        pandas, polars, pyarrow or anything narwhals reads. Tables that the fit returns are of the same kind. Arrays are
        not copied: do not write into those of a dict while a fit is in use (frames may change, the fit does not).
        The response is a column or an expression; for binomial families also a truth value, a factor of two levels
        (the first is failure) or `cbind(success, failure)`, for ordinal ones an ordered factor, for "multinomial" a
        factor; for both counts of the categories, `cbind(a, b, c)`, too (without order the first is the reference).
        `cens(y, status)` is a censored response (or `Surv(time, event)`, as R writes it): status "none", "left" (it
        lies below y), "right" (above; so does a truth value) or "interval" (in (y, upper] of
        `cens(y, status, upper)`), or 0, -1, 1, 2.
        `trunc(y, lb, ub)` is a truncated one, of rows that would not be in the data if y lay outside its bounds: one or
        both, numbers or columns, themselves possible values (`trunc(cens(...), lb)` is censored, too).
        `se(y, sd)` is a gaussian response with known standard errors, as in a meta-analysis: no residual variance is
        estimated; `(1 | row)` adds one.
    family : str or one of `rf.families`
        "gaussian", "poisson", "nbinom2", "binomial", … (`rf.families.names()`); the names of lme4, glmmTMB and brms are
        understood, with a link as R writes it too: "Gamma(link='log')". "truncated_<count family>" has no zeros, and is
        a hurdle model with `zero_inflation`.
    link : str or dict, optional
        Link of the mean, or parameter -> link, extra zeros included; the family's default otherwise.
    dispersion : str or number, optional
        One-sided formula of the dispersion, "~ x + (1 | g)"; default "~ 1". A number holds it there; for a gaussian 0
        (or "~ 0") leaves no residual variance beside a covariance structure, as glmmTMB's `dispformula = ~ 0` (its SD
        of 1.2e-4; 5e-5 times that of what the fixed effects leave where 1.2e-4 is no small share of it, or too small a
        one), and "~ 0 + offset(log(se))" takes known standard deviations.
        What it means is the family's (glmmTMB's `sigma()`); summary says it.
    zero_inflation : str or number, optional
        One-sided formula of the probability (logit) of a zero beside the family's own; none by default.
    method : "reml" | "ml" | "map" | "pql", optional
        Default: "reml" where the response is gaussian (identity link, one residual variance, any covariance structure)
        and has no frequency weights, else "ml". For other families "reml" integrates the coefficients of the mean out
        by Laplace's approximation, as glmmTMB's `REML = TRUE` does. With priors the mode of likelihood x prior is
        found, whatever the method: "map" is "ml" with priors. "pql" is penalised quasi-likelihood with a free
        dispersion, as MASS::glmmPQL, or with one that is held, `dispersion=1`: a linear mixed model of the working
        response, iterated (Breslow & Clayton 1993). It is no likelihood: loglik, aic and bic are NaN, and estimates
        are biased where outcomes are binary or counts small.
    quadrature : int
        For other than linear models: 1 is Laplace's approximation, k > 1 adaptive Gauss-Hermite with k nodes a
        dimension (one grouping factor, or several of which each is nested in the next: (x | a) + (1 | a:b); the nodes
        of inner levels follow those of the outer ones, Pinheiro & Chao 2006), 0 the joint modes of coefficients and
        random effects (lme4's nAGQ = 0).
    offset : str or array, optional
        Column name or values added to the mean's linear predictor; `offset(x)` in any formula does the same there.
    precision_weights : str or array, optional
        w: residual variance sigma^2 / w; gaussian only.
    frequency_weights : str or array, optional
        A row counts as so many equal rows: its log-likelihood is multiplied (glmmTMB's `weights`); rows of weight 0 are
        left out. BIC, AICc and residual degrees of freedom count them as that many (glmmTMB's as one each); `nobs` is
        the number of rows given.
    sampling_weights : str, array or dict, optional
        Inverse probabilities of selection in a survey: of the rows (given their group), or a dict such as
        `{"row": "w", "school": "w2", "scaling": "size"}` with those of grouping factors as well. The estimates maximise
        the pseudo-likelihood; standard errors are robust (sandwich of the scores of the top-level groups), and
        log-likelihoods of such fits cannot be compared by chi-square tests. Scaling of weights below the top, for each
        group of n weights w: "size" (default) makes them sum to n, "effective" to (sum w)^2 / sum w^2 (methods 2 and 1
        of Rabe-Hesketh & Skrondal 2006; A and B of Carle 2009), None leaves them, which inflates variances between
        small groups. Those of the top have the mean 1. Grouping factors must be nested.
    trials : str or array, optional
        Denominator of a binomial proportion: a column, an expression of columns ("dead + alive") or values.
    contrasts : dict, optional
        Column -> "treatment" | "sum" | "helmert" | "poly" | "SAS" | "sdif" (R's names too, "contr.sum") | (name, base
        level) | matrix of a row for every level, in their order (a pandas frame: by the labels of its index).
    missing : "drop" | "raise"
        What to do with rows that miss a value in any variable used.
    control : dict or Control, optional
        How to optimise, see `ranef.Control`.
    threads : int, optional
        Threads of the core; the answer does not depend on it.
    seed : int, optional
        Changes nothing: no method of this version draws random numbers, and the same call gives the same fit. It is
        checked, and kept for methods that will draw. What draws afterwards has a seed of its own (`rf.bootstrap`).
    progress : bool, optional
        Whether a fit of more than a second says on stderr how far it is: evaluations of the criterion, the least one,
        seconds. Default: where stderr is a terminal (a notebook's is none). Ctrl-C ends a fit either way.
    env : mapping, optional
        Names, other than columns and the listed transforms, that the formula may use.
    cov : dict, optional
        Factor f -> known matrix K of `propto(0 + f | g)` (covariance proportional to K) and `equalto(0 + f | g)` (equal
        to it), as a pandas frame with labels or a pair (matrix, labels); levels are matched by name, and K may have
        more. `propto(0 + f | g, K)` with `env={"K": …}` is the same. What these take is no other term's: the levels of
        a `(1 | f)` beside them are independent. Grouping factor g -> covariance K between its levels (kinship,
        phylogeny) for `(x | g)`: b ~ N(0, K (x) Sigma); levels of K without data integrate out, and are predicted given
        the others. A sparse K is given as (scipy sparse matrix, labels).
    precision : dict, optional
        Grouping factor g -> inverse of such a covariance, dense or sparse (`rf.pedigree`, a Markov random field), with
        labels. Levels without data are part of the model and have conditional modes. Levels of new data that the
        relationship lacks count as unrelated, with relationship 1 to themselves.
    fixed : dict, optional
        Parameter -> value at which it is held: coefficients ("x", "zero_inflation.x"), standard deviations ("sd(g)",
        "sd(x | g)"), correlations ("cor(g)", "cor(x, y | g)"), parameters of structures ("range(g)") and of the family
        ("dispersion", for gaussian models "sigma"). They are not counted in `npar` and have no standard errors.
    equal : list of tuples of str, optional
        Parameters that share one value: `[("sd(a)", "sd(b)"), ("x1", "x2")]`.
    prior : dict or "blme", optional
        Parameter, or class of parameters, -> prior: a function of `rf.prior` or its text, "normal(0, 2.5)". Classes are
        "fixed" (all coefficients of the mean that have none of their own), other components, "sd", "var", "cov", "cor"
        and those of one term, "cov(g)"; "sigma". A prior is a density of the parameter as named, in the units of the
        data; no Jacobian is added. "blme": a Wishart prior that keeps covariances off their boundary, blme's default.
    penalty : "firth", optional
        Jeffreys' prior of the fixed effects, |X'WX|^(1/2), which keeps separated estimates finite (Firth 1993; Heinze &
        Schemper 2002); with random effects that of the model without them (Sterzinger & Kosmidis 2023). Standard errors
        are those of the information at the estimate. Binomial (logit) and Poisson (log).
    randomised_response : dict, optional
        For family "binomial": the design in which answers were given, so that they are 1 with probability c + d mu;
        coefficients and predictions are those of the prevalence mu. `{"design": "warner", "p1": 0.8}`; others are
        "forced" (p1 the chance of a true answer, p2 that of a forced yes; the default), "unrelated" (p1, p2),
        "crosswise" (p1), "triangular" (p1), "kuk" (p1, p2) and "direct" (c, d). Probabilities are numbers, columns or
        arrays; the design too may be a column or array of these names, one a row.
    **parameters
        Further parameters of the family by name, as `dispersion`: `nu="~ x"`, `nu=4`. For ordinal families
        `threshold="symmetric"`, "symmetric2" (symmetric about 0) or "equidistant", `scale="~ x"` (log scale without a
        constant) and `nominal="~ x"` (effects that differ from threshold to threshold and add to it, as in
        ordinal::clm: brms' `cs(x)` with the opposite sign). For "multinomial" the name of a category, `B="~ x"`, gives
        its log odds against the first category a formula of their own; without, the model's formula holds for each,
        coefficients and random effects apart.

    Returns
    -------
    Fit

    Raises
    ------
    FormulaError, UnknownColumnError, DataError, ArgumentError, OptionError, NotAvailableError

    Notes
    -----
    All formulas share the data and one mask for missing values. A `ConvergenceWarning` is raised only where the
    optimum's certificate fails, a `SeparationWarning` where an outcome is separated, by columns or as every level of a
    grouping factor has one outcome only, so that estimates are infinite. A variance of 0 or a correlation of +-1 is a
    valid estimate, reported as data in `Fit.boundary`.

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
    >>> m.params.round(3)
    (Intercept)    251.405
    Days            10.467
    dtype: float64
    >>> cbpp = rf.datasets.load("cbpp")
    >>> round(rf.fit("cbind(incidence, size - incidence) ~ period + (1 | herd)", cbpp, family="binomial").loglik, 3)
    -92.026
    """
    given = {name: value for name, value in locals().items() if name not in ("data", "parameters")}
    with Searching("fit", progress):
        return fit_call(asked(**given, **parameters), data)


def fit_call(call: Call, data: Any) -> Fit:
    """Fit what `call` asks for."""
    if call.formula.lhs is None:
        raise FormulaError("the formula has no response: write 'y ~ …'", call.formula.text or str(call.formula), 0)
    data = collected(data)
    spec, design = build_call(call, data)
    task = call.task(design)
    try:
        core, estimate = engine_of(task).estimate(design, task, partial(_separated, call, spec, design, task))
    except DataError as error:
        if error.__cause__ is not None and (why := _why_lost(call, spec, design, task)) is not None:
            raise DataError(f"{error}: {why}") from error  # what was checked before the search says why itself
        raise
    return _finished(Fit(call, spec, layout_of(design, task), task, estimate, core, design, kept(data)))


def _why_lost(call: Call, spec: Spec, design: Design, task: Task) -> str | None:
    """Return what separates the outcome of a search that failed; None if nothing does."""
    if task.linear or design.y is None:
        return None
    with suppress(RanefError):
        return _why_infinite(_nowhere(call, spec, design, task))
    return None


def _separated(call: Call, spec: Spec, design: Design, task: Task, dropped: Sequence[int]) -> Any:
    from ranef.diagnose.separation import before

    return before(_nowhere(call, spec, design, task, tuple(dropped)))


def _nowhere(call: Call, spec: Spec, design: Design, task: Task, dropped: tuple[int, ...] = ()) -> Fit:
    """Return a fit without an estimate, for what is asked of its data."""
    layout = layout_of(design, task)
    nowhere: Any = Lost(sum(len(part.names) for part in layout.components), dropped)
    return Fit(call, spec, layout, task, nowhere, None, design, None)


def _why_infinite(m: Fit) -> str | None:
    from ranef.diagnose.generalised import why_infinite

    return why_infinite(m)


def _separated_by(m: Fit) -> str:
    from ranef.diagnose.generalised import separated_by

    return separated_by(m)


def _one_outcome_each(m: Fit) -> Iterator[Message]:
    from ranef.diagnose.alike import one_outcome_each

    return one_outcome_each(m)


def check_fit(m: Any, what: str) -> None:
    """Raise unless it is a fit.

    Raises
    ------
    ArgumentError
        Otherwise; `what` is named.
    """
    if not isinstance(m, Fit):
        raise ArgumentError(f"{what}: its first argument is a fit, what rf.fit(...) returns, not a {type(m).__name__}")


def index_of(m: Fit) -> Any:
    """Return the labels of the rows of a pandas frame; None for other data and slim fits."""
    return m.data.index if m.layout.kind == "pandas" and m.data is not None else None


def design_of(m: Fit, what: str) -> Design:
    """Return the rows of a fit as arrays.

    Raises
    ------
    NotAvailableError
        If the fit is slim; `what` is named.
    """
    if m.design is None:
        raise NotAvailableError(f"{what}: a slim fit keeps no rows; use the fit before slim() (predict takes newdata=)")
    return m.design


def _finished(m: Fit) -> Fit:
    if not m.converged:
        warnings.warn(_convergence_text(m), ConvergenceWarning, stacklevel=4)
    if not m.task.linear and m.separation:
        warnings.warn(next(n.text for n in m.messages if n.code == "separation"), SeparationWarning, stacklevel=4)
    if not m.task.linear and any(abs(t) > APART for t in m.theta.tolist()):
        for note in _one_outcome_each(m):
            warnings.warn(note.text, SeparationWarning, stacklevel=4)
    wrong = m.messages if m.distribution.custom is not None or m.method == "pql" else ()
    for text in (n.text for n in wrong if n.code in WRONG):
        warnings.warn(text, RanefWarning, stacklevel=4)
    return m


def _convergence_text(m: Fit) -> str:
    c = m.certificate
    if m.separation:
        return f"{c.outcome.value}: there is no optimum to come to, as {_separated_by(m)}"
    if m.method == "pql":
        return (
            f"penalised quasi-likelihood did not settle in {c.iterations} iterations (it need not: Breslow & Clayton "
            f"1993): use method='ml'"
        )
    if (why := next((n.text for n in m.messages if n.code in CAUSES), None)) is not None:
        return f"{c.outcome.value}: {why}"
    if c.outcome.name in ("unbounded", "flat_mode"):
        return next(n.text for n in m.messages if n.code == "not_converged")
    ended = next((n.text for n in m.messages if n.code == "not_converged"), c.outcome.value)
    return (
        f"{ended}: one more Newton step would change the deviance by about {c.decrease:.2g} after "
        f"{c.evaluations} evaluations; see m.certificate, compare rf.all_fit(m), "
        f"or raise control={{'max_evaluations': …}}"
    )


# ---- the fit ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Fit:
    """A fitted model. A value: nothing in it changes after it was made.

    Attributes
    ----------
    call : Call
        What was asked for.
    spec : Spec
        How data become arrays: levels, contrasts, state of transforms.
    layout : Layout
        Names and sizes.
    task : Task
        What the engine was asked: distribution, criterion, options.
    estimate : Estimate or LaplaceEstimate
        The numbers the engine returned.
    design : Design or None
        The rows as arrays; None after `slim()`.
    data : data frame or None
        The data as given; None after `slim()`.
    """

    call: Call
    spec: Spec
    layout: Layout
    task: Task
    estimate: Result
    core: Any
    design: Design | None
    data: Any
    digest: Digest | None = None

    # ---- figures -----------------------------------------------------------------------------------------------------

    @property
    def formula(self) -> Formula:
        """The model formula; `str(m.formula)` is its text."""
        # The first category of a multinomial model may have a formula of its own, which stands in the spec.
        return self.call.formula if self.distribution.levels else self.spec.formula

    @property
    def method(self) -> str:
        """The criterion: reml or ml."""
        return self.task.method

    @property
    def distribution(self) -> families.Distribution:
        """The family with its links and modifiers."""
        return self.task.family

    @property
    def family(self) -> str:
        """Name of the family."""
        return self.task.family.name

    @property
    def link(self) -> str:
        """Link of the mean."""
        return self.task.family.link

    @property
    def engine(self) -> Engine:
        """The engine that fitted it."""
        return engine_of(self.task)

    @property
    def nobs(self) -> int:
        """Rows used."""
        return self.layout.n

    @property
    def npar(self) -> int:
        """Parameters estimated: independent coefficients of all components, theta, and sigma in linear models."""
        return self.estimate.npar

    @property
    def df_residual(self) -> int:
        """`nobs - npar` (as lme4); `nobs` minus the fixed effects where there are no random effects (as lm).

        Here and in BIC and AICc a row of frequency w is w observations. Here a row of counts of J categories is J - 1.
        """
        each = self.distribution.categories - 1 if self.distribution.counts else 1
        return int(self.layout.counted) * each - (self.npar if self.layout.terms else self.estimate.rank)

    @property
    def sigma(self) -> float:
        """Dispersion as glmmTMB's `sigma()`: a gaussian's residual SD (of weight 1); 1 without, NaN if it varies."""
        return self.estimate.sigma

    @property
    def criterion(self) -> float:
        """REML criterion, or -2 log-likelihood for method "ml"; with priors, -2 log prior is added."""
        return self.estimate.criterion

    @property
    def loglik(self) -> float:
        """Log-likelihood, without priors; for method "reml" the restricted one, as lme4's `logLik`."""
        return self.estimate.loglik

    @property
    def aic(self) -> float:
        """-2 loglik + 2 npar."""
        return -2 * self.loglik + 2 * self.npar

    @property
    def bic(self) -> float:
        """-2 loglik + log(nobs) npar."""
        return -2 * self.loglik + float(np.log(self.layout.counted)) * self.npar

    @property
    def aicc(self) -> float:
        """AIC with the small-sample correction of Hurvich & Tsai (1989); inf where nobs <= npar + 1."""
        left = self.layout.counted - self.npar - 1
        return self.aic + 2 * self.npar * (self.npar + 1) / left if left > 0 else float("inf")

    @property
    def theta(self) -> Array:
        """Entries of the factors Lambda, relative to sigma in linear models (Sigma = sigma^2 Lambda Lambda')."""
        return self.estimate.theta

    @property
    def converged(self) -> bool:
        """Whether the certificate holds."""
        return self.estimate.outcome == "converged"

    @property
    def certificate(self) -> Certificate:
        """Evidence that this is an optimum."""
        return certificate(self.estimate)

    @property
    def boundary(self) -> tuple[Boundary, ...]:
        """Variances estimated 0 and singular covariances, as data; empty for most fits."""
        from ranef.diagnose.boundary import boundary

        return boundary(self.layout.terms, self.estimate)

    @cached_property
    def separation(self) -> tuple[str, ...]:
        """Columns that separate the outcome, so that their estimates are infinite; empty for most fits."""
        from ranef.diagnose.separation import separated

        return separated(self).names

    @cached_property
    def messages(self) -> tuple[Message, ...]:
        """What is worth knowing about data and model: rows and columns dropped, boundary, common pitfalls."""
        from ranef.diagnose.messages import messages

        return messages(self)

    @cached_property
    def residual_quantiles(self) -> Array:
        """Minimum, quartiles and maximum of the scaled residuals, (y - fitted) / SD(y)."""
        from ranef.diagnose.residuals import residual_quantiles

        return residual_quantiles(self)

    @cached_property
    def ddf(self) -> Array:
        """Degrees of freedom of each coefficient: Satterthwaite's or residual ones in linear models, else infinite."""
        from ranef.inference.ddf.satterthwaite import coefficient_df

        return coefficient_df(self)

    # ---- coefficients ------------------------------------------------------------------------------------------------

    @property
    def params(self) -> Any:
        """Fixed effects of the mean by name; NaN where dropped. `coefficients()` has other components."""
        from ranef.inference.named import coefficients

        return coefficients(self, "mean")

    def coefficients(self, component: str = "all") -> Any:
        """Return the coefficients by name.

        Parameters
        ----------
        component : str
            "mean", "dispersion", "zero_inflation" …, or "all": the names of components other than the mean go before
            theirs, "dispersion.(Intercept)".

        Returns
        -------
        Series or NamedVector
            Estimates on the scale of the component's link: a pandas Series where the data were a pandas frame, else a
            mapping from name to number that numpy reads as a vector. NaN for columns that were dropped.

        Raises
        ------
        OptionError
            If the model has no such component.

        Examples
        --------
        >>> import ranef as rf
        >>> m = rf.fit("count ~ mined + (1 | site)", rf.datasets.load("Salamanders"), family="nbinom2")
        >>> m.coefficients("dispersion").round(3)
        (Intercept)   -0.448
        dtype: float64
        """
        from ranef.inference.named import coefficients

        return coefficients(self, component)

    @cached_property
    def deviance(self) -> float:
        """Sum of the squared deviance residuals, given the conditional modes (lme4's `deviance` of a GLMM).

        Of categories it is -2 times the sum of log P(Y = y); of counts of categories that against the shares observed.
        """
        from ranef.diagnose.residuals import deviance

        return deviance(self)

    def vcov(self, component: str = "mean", kind: str = "model", cluster: Any = None, full: bool = False) -> Any:
        """Covariance matrix of the fixed effects, named.

        Parameters
        ----------
        component : str
            Which part of the model: "mean", "dispersion", "zero_inflation" …, or "all".
        kind : "model" | "kenward-roger" | "CR0" | "CR1" | "CR1S" | "CR2" | "CR3"
            Model-based, sigma^2 (X'V^-1X)^-1 at the estimated theta; adjusted for theta having been estimated (Kenward
            & Roger 1997; REML fits of linear models); or cluster-robust sandwiches, which hold where the model's V does
            not: CR0 plain (Liang & Zeger 1986), CR1 times m / (m - 1) for m clusters, CR1S Stata's factor, CR2
            unbiased under the model (Bell & McCaffrey 2002; Pustejovsky & Tipton 2018), CR3 the jackknife. Those of
            generalised models are of the scores of the marginal likelihood, of which CR2 and CR3 adjust those of the
            mean's coefficients, not those of theta or of other components, by the linear model that approximates it at
            the optimum (CR2 is unbiased to first order; without random effects it is clubSandwich's of a glm).
            `rf.robust` makes the tests.
        cluster : str, array, or list of str, optional
            Column, grouping factor or values of which rows belong together, in which random effects are nested; default
            the outermost grouping factor. Several names: multi-way clustering (Cameron, Gelbach & Miller 2011; CR0,
            CR1, CR1S), where each random effect is nested in one of them; in generalised models that are not nested in
            all, the scores are those of the linear model that approximates it, at the estimated theta.
        full : bool
            Of all parameters instead: coefficients of all components, standard deviations and correlations of random
            effects ("sd(Days | Subject)", "cor((Intercept), Days | Subject)") or the parameters of their structures, a
            residual standard deviation ("sigma"), by the delta method; for functions of them (a ratio of variances).
            Coefficients of the mean are independent of the rest where the response is normal. NaN for what is held and
            for singular covariances. Estimates of variances are skewed: for intervals of one parameter `rf.profile` is
            better (Bolker's GLMM FAQ).

        Returns
        -------
        DataFrame or NamedMatrix
            (p, p): a pandas frame with names at both sides where the data were a pandas frame, else a mapping,
            `v["x", "z"]`, that numpy reads as a matrix. NaN for coefficients that were dropped.

        Raises
        ------
        OptionError, NotAvailableError

        Examples
        --------
        >>> import ranef as rf
        >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
        >>> m.vcov(kind="CR2").round(3)
                     (Intercept)   Days
        (Intercept)       46.575 -1.451
        Days              -1.451  2.389
        """
        from ranef.inference.named import vcov

        return vcov(self, component, kind, cluster, full)

    def varcorr(self) -> VarCorr:
        """Return standard deviations, correlations and covariances of the random effects, by term, and sigma.

        Returns
        -------
        VarCorr
            A mapping: `m.varcorr()["g"]` has `sd` (k,), `corr` and `cov` (k, k), absolute, on the scale of the linear
            predictor, and `names`; `sigma` is the residual standard deviation, `to_frame()` all of it as a table. Terms
            of components other than the mean have keys such as "zero_inflation:g".

        Examples
        --------
        >>> import ranef as rf
        >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
        >>> m.varcorr()["Subject"].sd.round(3)
        array([24.74 ,  5.922])
        """
        from ranef.inference.varcorr import varcorr

        return varcorr(self)

    def ranef(self, std_error: bool = False, covariance: bool = False, levels: str = "model") -> dict[str, Any]:
        """Conditional modes of the random effects: one frame per grouping factor, one row per level.

        Labels are in the column `level`; the modes of a variable of that name are in `level_`.

        Parameters
        ----------
        std_error : bool
            Add `std_error__<name>` columns: conditional standard deviations given theta and sigma (lme4's condVar).
        covariance : bool
            Add `cov__<name>.<name>` columns: the full conditional covariance.
        levels : "model" | "related"
            "related" adds the levels of `cov=` without data, given those that have data (those of `precision=` are
            always there).

        Returns
        -------
        dict
            Grouping factor -> frame of the kind of the data; modes on the scale of the linear predictor.

        Examples
        --------
        >>> import ranef as rf
        >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
        >>> m.ranef()["Subject"].head(2).round(2)
          level  (Intercept)  Days
        0   308         2.26  9.20
        1   309       -40.40 -8.62
        """
        from ranef.inference.modes import ranef

        return ranef(self, std_error, covariance, levels)

    def coef(self) -> dict[str, Any]:
        """Return fixed effect plus conditional mode: one frame per grouping factor, one row per level.

        Returns
        -------
        dict
            Grouping factor -> frame of the kind of the data: `level`, and every coefficient of that level.

        Examples
        --------
        >>> import ranef as rf
        >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
        >>> m.coef()["Subject"].head(2).round(2)
          level  (Intercept)   Days
        0   308       253.66  19.67
        1   309       211.01   1.85
        """
        from ranef.inference.modes import coef

        return coef(self)

    # ---- tables ------------------------------------------------------------------------------------------------------

    def tidy(
        self,
        effects: str | Sequence[str] = "fixed",
        conf_int: bool = False,
        conf_level: float = 0.95,
        method: str = "wald",
        ddf: str | None = None,
        vcov: str | None = None,
        cluster: Any = None,
        **options: Any,
    ) -> Any:
        """Estimates as a frame with broom.mixed's columns.

        Parameters
        ----------
        effects : "fixed" | "ran_pars" | "ran_vals", or several of them
            Fixed effects (t tests with degrees of freedom by `ddf`), standard deviations and correlations (standard
            errors by the delta method; NaN for a term whose covariance is singular: on the boundary the likelihood has
            no quadratic top), conditional modes (without p-values: they are predictions of random quantities, of which
            no value is a hypothesis).
        conf_int, conf_level : bool, float
            Add `conf_low`, `conf_high`.
        method : "wald" | "profile" | "boot"
            How p-values and intervals are made; each costs more and assumes less than the one before, see
            `ranef.confint`. "profile": `statistic` is the signed root of the likelihood ratio against 0, by maximum
            likelihood. "boot": p-values invert the interval (twice the smaller tail of the replicates, one count
            added). Correlations have p-values too; standard deviations have none, 0 being the end of their range
            (`rf.ranova`). Columns `p_method` and, with `conf_int`, `conf_method` say where each comes from; estimates
            and standard errors stay the fit's.
        ddf : str, optional
            Degrees of freedom of the fixed effects: "satterthwaite" (the default of linear models), "kenward-roger"
            (with its adjusted standard errors), "inner-outer", "between-within", "residual", "inf" (the default of
            others).
        vcov : "model" | "kenward-roger" | "CR0" | "CR1" | "CR1S" | "CR2" | "CR3", optional
            Covariance of the fixed effects, as in `vcov()`; with the robust ones tests have Satterthwaite's degrees of
            freedom (Pustejovsky & Tipton 2018); in generalised models those by CR0, CR1 and CR1S are normal.
        cluster : str, array or list of str, optional
            Of a robust covariance, as in `vcov()`.
        **options
            Of `ranef.confint`: `n`, `seed`, `interval` … of the bootstrap.

        Returns
        -------
        frame
            Of the kind of the data: `effect, component, group, term, estimate, std_error`, of fixed effects `df,
            statistic, p_value`.

        Raises
        ------
        ArgumentError, OptionError, NotAvailableError

        Examples
        --------
        >>> import ranef as rf
        >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
        >>> m.tidy(conf_int=True)[["term", "estimate", "conf_low", "conf_high"]].round(2)
                  term  estimate  conf_low  conf_high
        0  (Intercept)    251.41    237.01     265.80
        1         Days     10.47      7.21      13.73
        """
        from ranef.inference.tables import tidy

        return tidy(self, effects, conf_int, conf_level, method, ddf, options, vcov, cluster)

    def glance(self) -> Any:
        """Return one row of figures about the whole fit, as broom.mixed's `glance`.

        Returns
        -------
        frame
            Of the kind of the data: `nobs, npar, df_residual, sigma, loglik, criterion, aic, bic, method, family,
            converged, boundary`.

        Examples
        --------
        >>> import ranef as rf
        >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
        >>> m.glance()[["nobs", "npar", "loglik", "converged"]].round(3)
           nobs  npar   loglik  converged
        0   180     6 -871.814       True
        """
        from ranef.inference.tables import glance

        return glance(self)

    def augment(self, newdata: Any = None) -> Any:
        """Return the data with what the fit says about each row, as broom.mixed's `augment`.

        Parameters
        ----------
        newdata : data frame or dict, optional
            Rows to describe; default: those that were used. Levels that the fit has not seen get population values.

        Returns
        -------
        frame
            Of the kind that was given, with columns added: `fitted` (random effects included), `std_error` (of it, from
            the joint covariance of fixed and random effects; left out where several linear predictors decide the
            response), `population` (random effects left out), and `residual` where the response is known. A column of
            that name in the data is kept: the new one gets a trailing underscore. Of a multinomial model `fitted` is
            the probability of the category observed, and stands alone; of counts of categories there are
            `fitted__<category>` and `residual__<category>`.

        Raises
        ------
        NotAvailableError
            If the fit keeps no data (`slim`, or a refit) and none are given.

        Examples
        --------
        >>> import ranef as rf
        >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
        >>> m.augment().head(2).round(1)
           Reaction  Days Subject  fitted  std_error  population  residual
        0     249.6   0.0     308   253.7       12.3       251.4      -4.1
        1     258.7   1.0     308   273.3       10.5       261.9     -14.6
        """
        from ranef.predict.augment import augment

        return augment(self, newdata)

    def summary(
        self,
        ddf: str | None = None,
        vcov: str | None = None,
        cluster: Any = None,
        method: str = "wald",
        correlation: bool = False,
        **options: Any,
    ) -> str:
        """Return what a reader of lme4's or glmmTMB's summary expects, as text; `print(m)` prints it.

        Parameters
        ----------
        ddf, vcov, cluster, method : optional
            How the fixed effects are tested, as in `tidy`.
        correlation : bool
            Whether to add the correlations of the fixed effects.
        **options
            Of `ranef.confint`: `n`, `seed` … of the bootstrap.

        Returns
        -------
        str
            Formula, data with the rows dropped, criterion, quantiles of the scaled residuals, variances, standard
            deviations and correlations of the random effects, fixed effects with tests, the certificate of the optimum,
            and `messages`.

        Examples
        --------
        >>> import ranef as rf
        >>> m = rf.fit("Reaction ~ Days + (1 | Subject)", rf.datasets.load("sleepstudy"))
        >>> print(m.summary(ddf="kenward-roger").splitlines()[0])
        Linear mixed model fit by REML
        """
        from ranef.report.summary import summary_text

        return summary_text(
            self, ddf=ddf, vcov=vcov, cluster=cluster, method=method, correlation=correlation, **options
        )

    def __repr__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        from ranef.report.summary import summary_html

        return summary_html(self)

    # ---- rows --------------------------------------------------------------------------------------------------------

    def predict(
        self,
        newdata: Any = None,
        re: str | Sequence[str] | None = "all",
        type: str = "response",  # noqa: A002
        new_levels: str = "error",
        interval: str | None = None,
        level: float = 0.95,
        std_error: bool = False,
        seed: int | None = None,
    ) -> Any:
        """Predict for the rows used, or for new ones.

        Parameters
        ----------
        newdata : data frame or dict, optional
            Rows with the columns of the formula (those of grouping factors only where `re` includes them); default: the
            rows used. Precision weights that the fit has by name are read where there is such a column, else they are
            1.
        re : "all" | "none" | None | list of grouping factors | "integrate"
            Random effects to include: the conditional modes of all terms, of none (population; None says so too, unlike
            lme4's `re.form = NULL`, which is "all"), of the named groups.
            "integrate" averages the response, or the parameter asked for, over the random effects' distribution; of
            what is linear in them that is "none".
        type : "response" | "conditional" | "link" | "probs" | "class" | a parameter's name | "link(parameter)"
            The expected response (extra zeros and truncation counted: (1 - p) mu for a zero-inflated model; the
            prevalence for randomised responses; of ordered categories the mean of their numbers, from 0 on); the same
            without the extra zeros; the mean's linear predictor; the probability of every category, one column each
            (multinomial families have no other response); the likeliest category (its label); a parameter on its own
            scale: "mean" (before extra zeros and truncation), "dispersion", "zero_inflation" …; or its linear
            predictor, "link(zero_inflation)". glmmTMB's "disp" (of `gamma` 1 / sqrt(shape), as `sigma`), "zprob" and
            "zlink" are understood. The "link" of a multinomial model is a column of log odds for every category but
            the first.
        new_levels : "error" | "population" | "sample"
            For a level that was not in the data: raise, effect 0, or an effect drawn from N(0, Sigma) (one per level).
            A missing group counts as an unknown level: NaN under "error".
        interval : "confidence" | "prediction", optional
            For what is predicted given the included random effects (made on the link scale and transformed; where
            several predictors join, and for averages, by the delta method on the scale of the mean's link; for
            probabilities on the logit scale), or for a new observation, in which random effects that are not included
            vary too: in closed form where the response is normal (it adds sigma^2 / w), else quantiles of 1,000 draws
            of coefficients, random effects and responses (proportions have the row's trials, ordered categories are
            their numbers from 0 on). Linear models take the variance parameters as known, all others count
            what is not known of them by the delta method; refits to simulated responses (`rf.bootstrap`) go further.
        level : float
            Coverage.
        std_error : bool
            Return standard errors also where no interval is asked for: given the variances in linear models (lme4),
            by the delta method over all parameters in others (glmmTMB).
        seed : int, optional
            For new_levels="sample", and intervals of new observations that are drawn: same seed, same draws.

        Returns
        -------
        (n,) array or frame
            With `interval` or `std_error` a frame `estimate, std_error[, conf_low, conf_high]` (a pandas frame has the
            index of the rows). Categories have a column each, with `std_error__<category>`, `conf_low__<category>` and
            `conf_high__<category>`. Rows of `newdata` with missing values give NaN.

        Raises
        ------
        UnseenLevelError
            For a new level under new_levels="error".
        UnknownColumnError, OptionError

        Warns
        -----
        RanefWarning
            If a prediction interval is for new groups of a factor with fewer than 10 levels.

        Examples
        --------
        >>> import ranef as rf
        >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
        >>> new = {"Days": [10, 10], "Subject": ["308", "new"]}
        >>> m.predict(new, new_levels="population", interval="confidence").round(1)
           estimate  std_error  conf_low  conf_high
        0     450.3       15.9     419.3      481.4
        1     356.1       67.6     223.6      488.5
        """
        from ranef.predict import Question, predict

        return predict(self, newdata, Question(re, type, new_levels, interval, level, std_error, seed))

    def fitted(self, align: str = "rows") -> Array:
        """Return fitted values, random effects included, on the scale of the response.

        Parameters
        ----------
        align : "rows" | "input"
            One value per row used, or per row given (NaN where dropped).

        Returns
        -------
        (n,) array
            Of counts of J categories the probability of each, (n, J).

        Examples
        --------
        >>> import ranef as rf
        >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
        >>> m.fitted()[:3].round(1)
        array([253.7, 273.3, 293. ])
        """
        from ranef.predict import fitted

        return fitted(self, align)

    def residuals(self, type: str = "response", align: str = "rows", seed: int = 0) -> Array:  # noqa: A002
        """Residuals.

        Parameters
        ----------
        type : "response" | "pearson" | "deviance" | "scaled" | "quantile" | "working"
            y - fitted; divided by the root of the variance function (as lme4 and glmmTMB: one sigma of gaussian, gamma
            and inverse Gaussian families is left in); signed roots of the unit deviances; (y - fitted) / SD(y); normal
            quantiles of F(y), drawn between F(y-) and F(y) where responses are discrete, and over where a censored one
            may lie (Dunn & Smyth 1996); y - fitted on the scale of the predictor, divided by the slope of the inverse
            link.
        align : "rows" | "input"
            One value per row used, or per row given (NaN where dropped).
        seed : int
            For "quantile" of discrete or censored responses: same seed, same residuals.

        Returns
        -------
        (n,) array
            Of counts of J categories, (n, J): those of the shares y / n, NaN in rows without outcomes; of "deviance"
            the squares of a row add up to its multinomial deviance. There are no "quantile" and "working" ones.

        Examples
        --------
        >>> import ranef as rf
        >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
        >>> m.residuals("scaled")[:3].round(3)
        array([-0.16 , -0.571, -1.649])
        """
        from ranef.diagnose.residuals import residuals

        return residuals(self, type, align, seed)

    def simulate(self, n: int = 1, re: str = "new", seed: Any = None) -> Array:
        """Draw responses from the fitted model, (nobs, n): proportions of a binomial, category numbers of an ordinal.

        One a row, of whatever frequency weight: to draw for each of the rows that are counted repeat them in the data.

        Parameters
        ----------
        n : int
            Number of draws.
        re : "new" | "conditional"
            Draw new random effects, or keep the conditional modes.
        seed : int or numpy Generator, optional
            Same seed, same draws.

        Returns
        -------
        (nobs, n) array
            Counts of J categories are (nobs, n, J), with the totals of the rows.

        Examples
        --------
        >>> import ranef as rf
        >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
        >>> m.simulate(2, seed=1).shape
        (180, 2)
        """
        from ranef.predict.simulate import simulate

        return simulate(self, n, re, seed)

    # ---- other fits --------------------------------------------------------------------------------------------------

    def refit(self, y: Any) -> Fit:
        """Fit the same model to another response; what does not depend on it is kept.

        Parameters
        ----------
        y : array
            One value per row used, or per row given (values at dropped rows are not looked at), in the form in which
            `simulate` gives them: with trials proportions of successes, of categories their numbers 0, 1, …; or
            categories by their labels, as texts, a factor, or whole numbers (an integer column) where labels are these.
            Counts of categories are an array with a column for each, or a frame with columns of their names.

        Returns
        -------
        Fit

        Raises
        ------
        DataError
            If y has another length, or is not finite.
        NotAvailableError
            If the fit is slim or its response censored.

        Examples
        --------
        >>> import ranef as rf
        >>> m = rf.fit("Reaction ~ Days + (1 | Subject)", rf.datasets.load("sleepstudy"))
        >>> m.refit(m.fitted() / 1000).params.round(4)
        (Intercept)    0.2517
        Days           0.0105
        dtype: float64
        """
        from ranef.inference.many import refit

        return refit(self, y)

    def update(self, formula: str | None = None, data: Any = None, **arguments: Any) -> Fit:
        """Fit again with a changed formula, other data, or other arguments of `fit`.

        Parameters
        ----------
        formula : str, optional
            As R's `update`: `.` stands for what was there, ". ~ . - x + (1 | h)".
        data : data frame or dict, optional
            Other data; default those of this fit.
        **arguments
            Arguments of `fit` that change; None takes one back (`prior=None`).

        Returns
        -------
        Fit

        Raises
        ------
        NotAvailableError
            If the fit keeps no data (`slim`, or a refit) and none are given.

        Examples
        --------
        >>> import ranef as rf
        >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
        >>> round(m.update(". ~ . - Days", method="ml").loglik, 3)
        -887.738
        """
        from ranef.inference.many import update

        return update(self, formula, data, arguments)

    def slim(self) -> Fit:
        """Return a copy without rows, of a size that does not depend on n.

        Summary, tables of estimates and predictions for new data still work; what needs the rows raises
        NotAvailableError.

        Returns
        -------
        Fit

        Examples
        --------
        >>> import ranef as rf
        >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
        >>> m.slim().predict({"Days": [10], "Subject": ["308"]}).round(1)
        array([450.3])
        """
        from ranef.inference.many import slim

        return slim(self)

    def __getattr__(self, name: str) -> Any:
        hint = f": write {ELSEWHERE[name].replace('NAME', name)}" if name in ELSEWHERE else ""
        raise AttributeError(f"a Fit has no attribute {name!r}{hint}", name=name, obj=self)

    def __getstate__(self) -> dict[str, Any]:
        state = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**state, "core": self.engine.save(self.core, self.estimate)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        core = engine_of(state["task"]).restore(state["core"], state["estimate"], state["design"], state["task"])
        self.__dict__.update(state, core=core)

    def __copy__(self) -> Fit:
        return replace(self)
