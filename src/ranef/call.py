"""What `fit` was asked for: the arguments, checked, as one frozen `Call`, and what floors below are told of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any

import numpy as np

from ranef.engines import Control, Task, is_linear, make_control
from ranef.errors import ArgumentError, FormulaError, NotAvailableError, OptionError, nearest
from ranef.families import ZERO, Distribution, link_of, read_family
from ranef.families.distribution import with_threshold
from ranef.families.links import predictor_of
from ranef.formula import Formula, parse
from ranef.frame import Design, Outcome, Part, Spec, build

METHODS = ("reml", "ml")
ARGUMENTS = (
    "formula", "data", "family", "link", "dispersion", "zero_inflation", "method", "quadrature", "offset",
    "precision_weights", "frequency_weights", "sampling_weights", "trials", "contrasts", "missing", "control",
    "threads", "seed", "progress", "env", "cov", "precision",
)  # fmt: skip
WEIGHTS = (
    "weights= is ambiguous: say which kind you mean. "
    "precision_weights=: residual variance sigma^2 / w (lme4's weights); "
    "frequency_weights=: a row stands for w equal rows (glmmTMB's weights); "
    "sampling_weights=: inverse probabilities of a survey; "
    "trials=: denominator of a binomial proportion"
)

Value = str | Formula | float | None

#: The residual standard deviation that stands for none, eps^(1/4), as glmmTMB's dispformula = ~ 0: small beside any
#: response in sensible units, and the likelihood can still be computed.
NEARLY_ZERO = float(np.finfo(np.float64).eps) ** 0.25


@dataclass(frozen=True, slots=True)
class Call:
    """What `fit` was asked for, after checking; everything that `update` needs to ask again.

    Attributes
    ----------
    formula : Formula
        Of the mean.
    family : Distribution
        With its links; without zero inflation, which is in `zero_inflation`.
    dispersion, zero_inflation : str, Formula, number or None
        As given.
    parameters : mapping
        Other parameters of the family by name, as given.
    linear : bool
        Whether the linear engine has the likelihood.
    """

    formula: Formula
    method: str
    offset: Any
    precision_weights: Any
    contrasts: Any
    missing: str
    control: Control
    env: Any
    family: Distribution
    dispersion: Value = None
    zero_inflation: Value = None
    parameters: Mapping[str, Value] = field(default_factory=dict)
    trials: Any = None
    frequency_weights: Any = None
    quadrature: int = 1
    asked_method: str | None = None
    linear: bool = False
    cov: Any = None
    precision: Any = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of `fit` that ask for this again, without formula and data."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        apart = ("formula", "parameters", "asked_method", "linear")
        kept = {name: value for name, value in given.items() if name not in apart}
        return {**kept, "method": self.asked_method, **self.parameters}

    @property
    def distribution(self) -> Distribution:
        """The family with its zero inflation."""
        return self.family if self.zero_inflation is None else replace(self.family, zero_inflation=True)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The linear predictors beside the mean's, thresholds apart."""
        given = {"dispersion": self.dispersion, ZERO: self.zero_inflation, **self.parameters}
        family = self.distribution
        names = family.parameters[1:]
        return tuple(_part(name, given.get(name), family, self.env) for name in names)

    def is_linear(self) -> bool:
        """Tell whether the linear engine has the likelihood."""
        if self.zero_inflation is not None or not self.family.is_gaussian_identity or self.formula.censored:
            return False
        if self.is_related():
            return False
        said = self.dispersion is not None or bool(self.parameters)
        return is_linear(self.family, self.formula, self.parts if said else (), self.frequency_weights)

    def is_related(self) -> bool:
        """Tell whether levels of a grouping of the mean are related to each other."""
        given = [value for value in (self.cov, self.precision) if isinstance(value, Mapping)]
        return any(bar.label in value for value in given for bar in self.formula.bars)

    def is_gaussian(self) -> bool:
        """Tell whether the response is gaussian with one residual variance, whatever the covariance structures."""
        if not self.family.is_gaussian_identity or self.zero_inflation is not None:
            return False
        if self.frequency_weights is not None or self.formula.censored:
            return False
        return all(part.formula is None or part.formula.is_constant for part in self.parts)

    @property
    def outcome(self) -> Outcome:
        """Which responses are legal."""
        zeros = False if self.family.truncated else None
        return Outcome(
            self.distribution.name, self.family.entry.support, True if self.zero_inflation is not None else zeros
        )

    def task(self, design: Design) -> Task:
        """Return the question to the engine, the number of categories known."""
        family = self.distribution
        if family.entry.ordinal:
            family = replace(family, categories=len(design.categories))
        return Task(family, self.method, self.quadrature, self.control, self.linear)


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
        parts=() if call.linear else call.parts,
        outcome=call.outcome,
        trials=call.trials,
        frequencies=call.frequency_weights,
        cov=call.cov,
        precision=call.precision,
    )


def make_call(
    formula: Any,
    *,
    family: Any = "gaussian",
    link: Any = None,
    dispersion: Value = None,
    zero_inflation: Value = None,
    method: Any = None,
    quadrature: Any = 1,
    offset: Any = None,
    precision_weights: Any = None,
    frequency_weights: Any = None,
    sampling_weights: Any = None,
    trials: Any = None,
    contrasts: Any = None,
    missing: str = "drop",
    control: Any = None,
    threads: int | None = None,
    seed: Any = None,  # noqa: ARG001 (fits draw no random numbers)
    progress: Any = None,  # noqa: ARG001
    env: Any = None,
    cov: Any = None,
    precision: Any = None,
    **others: Any,
) -> Call:
    """Check the arguments of `fit`; a linear model, the common case, is in and out of here in microseconds."""
    if sampling_weights is not None:
        raise NotAvailableError("sampling_weights= is not available in this version; leave it out")
    distribution, parameters = _others(read_family(family, link), others)
    if zero_inflation is None and distribution.inflated_by:
        zero_inflation = distribution.inflated_by
    call = Call(
        formula=formula if isinstance(formula, Formula) else parse(formula, env or ()),
        method="",
        offset=offset,
        precision_weights=precision_weights,
        contrasts=contrasts,
        missing=missing,
        control=make_control(control, threads),
        env=env,
        family=replace(distribution, inflated_by="") if distribution.inflated_by else distribution,
        dispersion=dispersion,
        zero_inflation=zero_inflation,
        parameters=parameters,
        trials=trials,
        frequency_weights=frequency_weights,
        quadrature=quadrature,
        cov=cov,
        precision=precision,
    )
    if not call.family.is_gaussian_identity or dispersion is not None or zero_inflation is not None:
        _check_components(call)
    linear = call.is_linear()
    restricted = linear or call.is_gaussian()
    call = replace(call, linear=linear, method=_method(method, restricted), asked_method=method)
    _check_weights(call)
    _check_quadrature(call)
    return call


# ---- the components --------------------------------------------------------------------------------------------------


def _part(name: str, value: Value, family: Distribution, env: Any) -> Part:
    """Return a linear predictor: a formula, "~ 1" where nothing is said, or a constant."""
    if isinstance(value, Real) and not isinstance(value, bool):
        return _held(name, float(value), family)
    formula = _one_sided(name, "~ 1" if value is None else value, env)
    if formula.fixed or formula.bars or formula.offset_factors:
        return Part(name, formula)
    if not _may_vanish(name, family):
        raise FormulaError(f"{name}='~ 0' holds nothing to estimate; give a number to hold it there", formula.text, 0)
    return _held(name, 0.0, family)


def _held(name: str, value: float, family: Distribution) -> Part:
    """Return a parameter held at a value on its own scale; a residual standard deviation of 0 is nearly that."""
    if value == 0 and _may_vanish(name, family):
        value = NEARLY_ZERO
    return Part(name, None, predictor_of(value, family.link_of(name), name))


def _may_vanish(name: str, family: Distribution) -> bool:
    return name == "dispersion" and family.entry.name == "gaussian"


def _one_sided(name: str, value: Any, env: Any) -> Formula:
    if isinstance(value, str) and "~" not in value:
        raise FormulaError(f"{name}= is a one-sided formula such as '~ x', or a number", value, 0)
    if not isinstance(value, (str, Formula)):
        raise ArgumentError(f"{name}= takes a formula such as '~ x', or a number, not {type(value).__name__}")
    formula = value if isinstance(value, Formula) else parse(value, env or ())
    if formula.lhs is not None:
        raise FormulaError(f"{name}= is a one-sided formula: write '~ x' without {formula.response}", formula.text, 0)
    return formula


def _others(family: Distribution, others: Mapping[str, Any]) -> tuple[Distribution, dict[str, Value]]:
    """Separate what else was given into the family's own options and parameters."""
    known = [p.name for p in family.entry.parameters[1:] if p.name != "dispersion"]
    given = {family.entry.nicknames.get(name, name): value for name, value in others.items()}
    if family.entry.ordinal and given.get("threshold") is not None:
        family = with_threshold(family, given.pop("threshold"))
        known = []
    for name in given:
        if name not in known:
            raise _unknown(name, known)
    return family, {name: value for name, value in given.items() if value is not None}


def _unknown(name: str, parameters: Sequence[str]) -> ArgumentError:
    if name == "weights":
        return ArgumentError(WEIGHTS)
    if name.upper() == "REML":
        return ArgumentError(f"fit() has no argument {name!r}: write method='reml' or method='ml'")
    if name == "nAGQ":
        return ArgumentError("fit() has no argument 'nAGQ': write quadrature=")
    if name in ("ziformula", "dispformula"):
        ours = "zero_inflation" if name == "ziformula" else "dispersion"
        return ArgumentError(f"fit() has no argument {name!r}: write {ours}='~ …'")
    return ArgumentError(f"fit() has no argument {name!r}; {nearest(name, (*ARGUMENTS, *parameters))}")


def _check_components(call: Call) -> None:
    family = call.family
    if call.dispersion is not None and "dispersion" not in family.parameters:
        others = "'nbinom2' or 'nbinom1'" if family.entry.support == "count" else "'betabinomial'"
        hint = f"; {others} has one" if family.entry.support in ("count", "binomial") else ""
        raise OptionError(f"dispersion=: family={family.name!r} has no dispersion parameter{hint}")
    if call.zero_inflation is not None and not family.entry.inflatable:
        raise OptionError(f"zero_inflation=: family={family.name!r} has no zeros to inflate; leave it out")
    for part in call.parts:  # reads every formula, which says what is wrong with it
        if (
            part.constant is not None
            and part.name == ZERO
            and not 0 < float(link_of("logit").inverse(part.constant)) < 1
        ):
            raise OptionError("zero_inflation= is a probability between 0 and 1, both excluded")


def _check_weights(call: Call) -> None:
    if call.trials is not None and call.family.entry.support != "binomial":
        raise OptionError(f"trials= belongs to binomial families; family={call.family.name!r} has none")
    if call.precision_weights is None or call.linear:
        return
    if call.family.entry.name != "gaussian" or call.family.links[1] != "log":
        raise OptionError(
            f"precision_weights= (residual variance sigma^2 / w) has no meaning under family={call.family.name!r}: use "
            f"frequency_weights= (a row stands for w rows), trials= (denominator of a proportion), or dispersion='~ w'"
        )


def _check_quadrature(call: Call) -> None:
    q = call.quadrature
    if not isinstance(q, Integral) or isinstance(q, bool) or q < 0:
        raise OptionError(f"quadrature={q!r} is the number of nodes: 1 (Laplace), more, or 0 (joint modes)")
    if q != 1 and not call.linear and call.method == "reml":
        raise OptionError(f"quadrature={q!r} goes with method='ml'; REML integrates by Laplace's approximation")
    if call.linear and q != 1:
        raise OptionError(f"quadrature={q!r}: the gaussian likelihood is exact, leave quadrature out")


def _method(method: Any, restricted: bool) -> str:
    if method is None:
        return "reml" if restricted else "ml"
    name = method.lower() if isinstance(method, str) else method
    if name not in METHODS:
        raise OptionError(f"method={method!r} is unknown; {nearest(method, METHODS)}")
    return name
