"""`fit(...)` and `Fit`, the object a user holds: it answers what every fit answers and hands the rest on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines import Certificate, Control, Estimate, linear, make_control
from ranef.engines.estimate import Array, certificate
from ranef.errors import (
    ArgumentError,
    ConvergenceWarning,
    FormulaError,
    NotAvailableError,
    OptionError,
    nearest,
)
from ranef.formula import Formula, parse
from ranef.frame import Design, Spec, build

if TYPE_CHECKING:
    from ranef.diagnose.boundary import Boundary
    from ranef.diagnose.messages import Message
    from ranef.inference.varcorr import VarCorr

METHODS = ("reml", "ml")
NOT_YET = ("dispersion", "zero_inflation", "frequency_weights", "sampling_weights", "trials")
UNUSED = ("seed", "progress")  # gaussian fits draw no random numbers and end before a bar could be drawn
GAUSSIAN = ("gaussian", "normal")
WEIGHTS = (
    "weights= is ambiguous: say which kind you mean. "
    "precision_weights=: residual variance sigma^2 / w (lme4's weights); "
    "frequency_weights=: a row stands for w equal rows; "
    "sampling_weights=: inverse probabilities of a survey; "
    "trials=: denominator of a binomial proportion"
)


@dataclass(frozen=True, slots=True)
class Call:
    """What `fit` was asked for, after checking; everything that `update` needs to ask again."""

    formula: Formula
    method: str
    offset: Any
    precision_weights: Any
    contrasts: Any
    missing: str
    control: Control
    env: Any
    family: str = "gaussian"
    link: str = "identity"

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of `fit` that ask for this again, without formula and data."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "formula"}


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """A random-effects term without its rows: (names | label), its levels and structure."""

    label: str
    names: tuple[str, ...]
    structure: str
    levels: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Layout:
    """Names and sizes of a design, without its rows: what is left to print when the rows are gone."""

    n: int
    n_input: int
    dropped: Mapping[str, int]
    response: str
    fixed: tuple[str, ...]
    terms: tuple[GroupInfo, ...]
    kind: str


def layout_of(design: Design) -> Layout:
    """Return the layout of a design."""
    return Layout(
        n=design.n,
        n_input=design.n_input,
        dropped=design.dropped,
        response=design.response_name or "",
        fixed=tuple(name for block in design.fixed for name in block.names),
        terms=tuple(GroupInfo(t.label, t.names, t.structure, t.levels) for t in design.terms),
        kind=design.kind,
    )


@dataclass(frozen=True, slots=True)
class Digest:
    """What `slim()` computes before the rows go."""

    messages: tuple[Message, ...]
    residual_quantiles: Array


def fit(
    formula: str | Formula,
    data: Any,
    *,
    family: str = "gaussian",
    link: str | None = None,
    dispersion: str | None = None,
    zero_inflation: str | None = None,
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
    seed: int | None = None,  # noqa: ARG001 (for methods that draw random numbers)
    progress: Any = None,  # noqa: ARG001 (for methods that take long)
    env: Any = None,
    **unknown: Any,
) -> Fit:
    """Fit a mixed-effects model.

    Parameters
    ----------
    formula : str or Formula
        As in lme4: `"reaction ~ days + (days | subject)"`.
    data : data frame or dict of arrays
        pandas, polars, pyarrow or anything narwhals reads. Tables that the fit returns are of the same kind.
    family, link : str
        Only "gaussian" with "identity" in this version.
    method : "reml" | "ml", optional
        Default for gaussian: "reml".
    offset, precision_weights : str or array, optional
        Column name or values. `precision_weights` w: residual variance sigma^2 / w.
    contrasts : dict, optional
        Column -> "treatment" | "sum" | "helmert" | "poly" | matrix.
    missing : "drop" | "raise"
        What to do with rows that miss a value in any variable used.
    control : dict or Control, optional
        How to optimise, see `ranef.Control`.
    threads : int, optional
        Threads of the core; the answer does not depend on it.
    seed : int, optional
        For methods that draw random numbers; this version's do not.
    progress : optional
        For methods that take long; this version's do not.
    env : mapping, optional
        Names, other than columns and the listed transforms, that the formula may use.

    Returns
    -------
    Fit

    Raises
    ------
    FormulaError, UnknownColumnError, DataError, ArgumentError, OptionError, NotAvailableError

    Notes
    -----
    A `ConvergenceWarning` is raised only where the optimum's certificate fails. A variance of 0 or a correlation of
    +-1 is a valid estimate, reported as data in `Fit.boundary`.
    """
    call = make_call(
        formula,
        family=family,
        link=link,
        dispersion=dispersion,
        zero_inflation=zero_inflation,
        method=method,
        quadrature=quadrature,
        offset=offset,
        precision_weights=precision_weights,
        frequency_weights=frequency_weights,
        sampling_weights=sampling_weights,
        trials=trials,
        contrasts=contrasts,
        missing=missing,
        control=control,
        threads=threads,
        env=env,
        **unknown,
    )
    return fit_call(call, data)


def make_call(
    formula: Any,
    *,
    family: Any = "gaussian",
    link: Any = None,
    method: Any = None,
    quadrature: int = 1,
    offset: Any = None,
    precision_weights: Any = None,
    contrasts: Any = None,
    missing: str = "drop",
    control: Any = None,
    threads: int | None = None,
    env: Any = None,
    **others: Any,
) -> Call:
    """Check the arguments of `fit`; those in `others` are refused unless they are None."""
    _refuse(others)
    _only_gaussian(family, link)
    if quadrature != 1:
        raise OptionError(f"quadrature={quadrature!r}: the gaussian likelihood is exact, leave quadrature out")
    return Call(
        formula=_read(formula, env),
        method=_method(method),
        offset=offset,
        precision_weights=precision_weights,
        contrasts=contrasts,
        missing=missing,
        control=make_control(control, threads),
        env=env,
    )


def fit_call(call: Call, data: Any) -> Fit:
    """Fit what `call` asks for."""
    if call.formula.lhs is None:
        raise FormulaError("the formula has no response: write 'y ~ …'", call.formula.text or str(call.formula), 0)
    spec, design = build_call(call, data)
    core, estimate = linear.estimate(design, call.method == "reml", call.control)
    return _finished(Fit(call, spec, layout_of(design), estimate, core, design, data))


def build_call(call: Call, data: Any) -> tuple[Spec, Design]:
    """Spec and design of a call."""
    return build(
        call.formula,
        data,
        weights=call.precision_weights,
        offset=call.offset,
        contrasts=call.contrasts,
        missing=call.missing,
        env=call.env,
    )


def design_of(m: Fit, what: str) -> Design:
    """Return the rows of a fit as arrays.

    Raises
    ------
    NotAvailableError
        If the fit is slim; `what` is named.
    """
    if m.design is None:
        raise NotAvailableError(f"{what}: a slim fit keeps no rows; give newdata= or use the fit before slim()")
    return m.design


def _finished(m: Fit) -> Fit:
    if not m.converged:
        warnings.warn(_convergence_text(m), ConvergenceWarning, stacklevel=4)
    return m


def _convergence_text(m: Fit) -> str:
    c = m.certificate
    return (
        f"{c.outcome.value}: one more Newton step would change the deviance by about {c.decrease:.2g} after "
        f"{c.evaluations} evaluations; see m.certificate, compare rf.all_fit(m), "
        f"or raise control={{'max_evaluations': …}}"
    )


# ---- checks of the arguments -----------------------------------------------------------------------------------------


def _refuse(others: Mapping[str, Any]) -> None:
    for name, value in others.items():
        if name in UNUSED:
            continue
        if name not in NOT_YET:
            raise _unknown(name)
        if value is not None:
            raise NotAvailableError(f"{name}= is not available for gaussian models in this version; leave it out")


def _unknown(name: str) -> ArgumentError:
    if name == "weights":
        return ArgumentError(WEIGHTS)
    if name.upper() == "REML":
        return ArgumentError(f"fit() has no argument {name!r}: write method='reml' or method='ml'")
    known = [p for p in signature(fit).parameters if p != "unknown"]
    return ArgumentError(f"fit() has no argument {name!r}; {nearest(name, known)}")


def _read(formula: Any, env: Any) -> Formula:
    return formula if isinstance(formula, Formula) else parse(formula, env or ())


def _only_gaussian(family: Any, link: Any) -> None:
    if not isinstance(family, str):
        raise ArgumentError(f"family= takes a name such as 'gaussian', not {type(family).__name__}")
    if family.lower() not in GAUSSIAN:
        raise NotAvailableError(f"family={family!r} is not available in this version; it fits 'gaussian'")
    if link not in (None, "identity"):
        raise NotAvailableError(f"link={link!r} is not available for gaussian in this version; it fits 'identity'")


def _method(method: Any) -> str:
    if method is None:
        return "reml"
    name = method.lower() if isinstance(method, str) else method
    if name not in METHODS:
        raise OptionError(f"method={method!r} is unknown for gaussian models; {nearest(method, METHODS)}")
    return name


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
    estimate : Estimate
        The numbers the engine returned.
    design : Design or None
        The rows as arrays; None after `slim()`.
    data : data frame or None
        The data as given; None after `slim()`.
    """

    call: Call
    spec: Spec
    layout: Layout
    estimate: Estimate
    core: Any
    design: Design | None
    data: Any
    digest: Digest | None = None

    # ---- figures -----------------------------------------------------------------------------------------------------

    @property
    def formula(self) -> Formula:
        """The model formula; `str(m.formula)` is its text."""
        return self.spec.formula

    @property
    def method(self) -> str:
        """The criterion: reml or ml."""
        return self.call.method

    @property
    def family(self) -> str:
        """Name of the family."""
        return self.call.family

    @property
    def nobs(self) -> int:
        """Rows used."""
        return self.layout.n

    @property
    def npar(self) -> int:
        """Parameters estimated: independent fixed effects, covariance parameters and sigma."""
        return self.estimate.npar

    @property
    def df_residual(self) -> int:
        """`nobs - npar` (as lme4); `nobs` minus the fixed effects where there are no random effects (as lm)."""
        return self.nobs - (self.npar if self.layout.terms else self.estimate.rank)

    @property
    def sigma(self) -> float:
        """Residual standard deviation (of an observation of weight 1)."""
        return self.estimate.sigma

    @property
    def criterion(self) -> float:
        """REML criterion, or -2 log-likelihood for method "ml"."""
        return self.estimate.criterion

    @property
    def loglik(self) -> float:
        """Log-likelihood; for method "reml" the restricted one, as lme4's `logLik`."""
        return -self.estimate.criterion / 2

    @property
    def aic(self) -> float:
        """-2 loglik + 2 npar."""
        return self.estimate.criterion + 2 * self.npar

    @property
    def bic(self) -> float:
        """-2 loglik + log(nobs) npar."""
        return self.estimate.criterion + float(np.log(self.nobs)) * self.npar

    @property
    def aicc(self) -> float:
        """AIC with the small-sample correction of Hurvich & Tsai (1989); inf where nobs <= npar + 1."""
        left = self.nobs - self.npar - 1
        return self.aic + 2 * self.npar * (self.npar + 1) / left if left > 0 else float("inf")

    @property
    def theta(self) -> Array:
        """Entries of the relative factors Lambda; the covariance of a term is sigma^2 Lambda Lambda'."""
        return self.estimate.theta

    @property
    def converged(self) -> bool:
        """Whether the certificate holds."""
        return self.certificate.holds

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
    def messages(self) -> tuple[Message, ...]:
        """What is worth knowing about data and model: rows and columns dropped, boundary, common pitfalls."""
        from ranef.diagnose.messages import messages

        return messages(self)

    @cached_property
    def residual_quantiles(self) -> Array:
        """Minimum, quartiles and maximum of the scaled residuals, sqrt(w) (y - fitted) / sigma."""
        from ranef.diagnose.residuals import residual_quantiles

        return residual_quantiles(self)

    @cached_property
    def ddf(self) -> Array:
        """Satterthwaite's degrees of freedom of each fixed effect; residual ones without random effects."""
        from ranef.inference.satterthwaite import coefficient_df

        return coefficient_df(self)

    # ---- coefficients ------------------------------------------------------------------------------------------------

    @property
    def params(self) -> Any:
        """Fixed effects by name; NaN where the column was dropped as linearly dependent."""
        from ranef.inference.named import named_vector

        return named_vector(self.layout.fixed, self.estimate.beta, self.layout.kind)

    def vcov(self, component: str = "mean", kind: str = "model") -> Any:
        """Covariance matrix of the fixed effects, named.

        Parameters
        ----------
        component : "mean"
            Which part of the model.
        kind : "model"
            Model-based, sigma^2 (X'V^-1X)^-1 at the estimated theta.
        """
        from ranef.inference.named import vcov

        return vcov(self, component, kind)

    def varcorr(self) -> VarCorr:
        """Return standard deviations, correlations and covariances of the random effects, by term, and sigma."""
        from ranef.inference.varcorr import varcorr

        return varcorr(self)

    def ranef(self, std_error: bool = False, covariance: bool = False) -> dict[str, Any]:
        """Conditional modes of the random effects: one frame per grouping factor, one row per level.

        Parameters
        ----------
        std_error : bool
            Add `std_error__<name>` columns: conditional standard deviations given theta and sigma (lme4's condVar).
        covariance : bool
            Add `cov__<name>.<name>` columns: the full conditional covariance.
        """
        from ranef.inference.modes import ranef

        return ranef(self, std_error, covariance)

    def coef(self) -> dict[str, Any]:
        """Return fixed effect plus conditional mode: one frame per grouping factor, one row per level."""
        from ranef.inference.modes import coef

        return coef(self)

    # ---- tables ------------------------------------------------------------------------------------------------------

    def tidy(
        self,
        effects: str | Sequence[str] = "fixed",
        conf_int: bool = False,
        conf_level: float = 0.95,
        method: str = "wald",
    ) -> Any:
        """Estimates as a frame with broom.mixed's columns.

        Parameters
        ----------
        effects : "fixed" | "ran_pars" | "ran_vals", or several of them
            Fixed effects (t tests with Satterthwaite's df), standard deviations and correlations (standard
            errors by the delta method; NaN for a term whose covariance is singular: on the boundary the likelihood has
            no quadratic top), conditional modes.
        conf_int, conf_level : bool, float
            Add `conf_low`, `conf_high`.
        method : "wald"
            How the intervals are made.
        """
        from ranef.inference.tables import tidy

        return tidy(self, effects, conf_int, conf_level, method)

    def glance(self) -> Any:
        """One row of figures about the whole fit."""
        from ranef.inference.tables import glance

        return glance(self)

    def augment(self, newdata: Any = None) -> Any:
        """Return the data with `fitted`, `std_error`, `population` and (where the response is known) `residual`."""
        from ranef.predict.augment import augment

        return augment(self, newdata)

    def summary(self) -> str:
        """Return what a reader of lme4's or glmmTMB's summary expects, as text."""
        from ranef.report.summary import summary_text

        return summary_text(self)

    def __repr__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        from ranef.report.summary import summary_html

        return summary_html(self)

    # ---- rows --------------------------------------------------------------------------------------------------------

    def predict(
        self,
        newdata: Any = None,
        re: str | Sequence[str] = "all",
        type: str = "response",  # noqa: A002
        new_levels: str = "error",
        interval: str | None = None,
        level: float = 0.95,
        std_error: bool = False,
        seed: int | None = None,
    ) -> Any:
        """Predict; see `ranef.predict.predict`."""
        from ranef.predict import Question, predict

        return predict(self, newdata, Question(re, type, new_levels, interval, level, std_error, seed))

    def fitted(self, align: str = "rows") -> Array:
        """Fitted values, random effects included; `align="input"` gives NaN where rows were dropped."""
        from ranef.predict import fitted

        return fitted(self, align)

    def residuals(self, type: str = "response", align: str = "rows") -> Array:  # noqa: A002
        """Residuals.

        Parameters
        ----------
        type : "response" | "pearson" | "deviance" | "scaled" | "quantile"
            y - fitted; times sqrt(w); the same for gaussian; also divided by sigma; the same for gaussian.
        align : "rows" | "input"
            One value per row used, or per row given (NaN where dropped).
        """
        from ranef.diagnose.residuals import residuals

        return residuals(self, type, align)

    def simulate(self, n: int = 1, re: str = "new", seed: Any = None) -> Array:
        """Draw responses from the fitted model, (nobs, n).

        Parameters
        ----------
        n : int
            Number of draws.
        re : "new" | "conditional"
            Draw new random effects, or keep the conditional modes.
        seed : int or numpy Generator, optional
            Same seed, same draws.
        """
        from ranef.predict.simulate import simulate

        return simulate(self, n, re, seed)

    # ---- other fits --------------------------------------------------------------------------------------------------

    def refit(self, y: Any) -> Fit:
        """Fit the same model to another response (one value per row used, or per row given)."""
        from ranef.inference.many import refit

        return refit(self, y)

    def update(self, formula: str | None = None, data: Any = None, **arguments: Any) -> Fit:
        """Fit again with a changed formula (`". ~ . - x"`), other data, or other arguments of `fit`."""
        from ranef.inference.many import update

        return update(self, formula, data, arguments)

    def slim(self) -> Fit:
        """Return a copy without rows, of a size that does not depend on n; summary and predict still work."""
        digest = Digest(self.messages, self.residual_quantiles)
        core = linear.restored(self.core.moments_state(), self.estimate)
        return replace(self, core=core, design=None, data=None, digest=digest)

    def __getstate__(self) -> dict[str, Any]:
        state = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**state, "core": self.core.moments_state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, core=linear.restored(state["core"], state["estimate"]))

    def __copy__(self) -> Fit:
        return replace(self)
