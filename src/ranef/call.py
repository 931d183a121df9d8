"""What `fit` was asked for: the arguments, checked, as one frozen `Call`, and what floors below are told of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache
from numbers import Integral, Real
from typing import Any

from ranef.engines import Control, Task, Wishes, is_linear, make_control
from ranef.engines.pql import VARIANCES, quasi_variance
from ranef.engines.survey import Weights, read_weights
from ranef.engines.thresholds import NOMINAL
from ranef.errors import ArgumentError, FormulaError, NotAvailableError, OptionError, nearest
from ranef.families import ZERO, Distribution, read_family
from ranef.families.distribution import THRESHOLDS, check_once, with_threshold
from ranef.families.links import predictor_of
from ranef.formula import Formula, parse
from ranef.formula.groups import group_named
from ranef.frame import Design, Outcome, Part, Spec, build
from ranef.frame.outcomes import has_counts
from ranef.frame.randomised import read_design
from ranef.frame.structures import between_levels
from ranef.priors import Prior, read_priors

METHODS = ("reml", "ml", "map", "pql")
MOST_NODES = 500
ARGUMENTS = (
    "formula", "data", "family", "link", "dispersion", "zero_inflation", "method", "quadrature", "offset",
    "precision_weights", "frequency_weights", "sampling_weights", "trials", "contrasts", "missing", "control",
    "threads", "seed", "progress", "env", "cov", "precision", "fixed", "equal", "prior", "penalty",
    "randomised_response",
)  # fmt: skip
PLAIN = frozenset((str, int, float, bool, type(None)))
MOST_PARAMETERS = 4
WEIGHTS = (
    "weights= is ambiguous: say which kind you mean. "
    "precision_weights=: residual variance sigma^2 / w (lme4's weights); "
    "frequency_weights=: a row stands for w equal rows (glmmTMB's weights); "
    "sampling_weights=: inverse probabilities of a survey; "
    "trials=: denominator of a binomial proportion"
)
IN_FORMULA = "random effects stand in the formula, y ~ x + (x | g)"
SETTINGS = "write control={…}, see rf.Control"
#: What other packages call an argument of `fit`, in small letters, and what to write here.
ELSEWHERE = {
    "reml": "write method='reml' or method='ml'",
    **dict.fromkeys(("nagq", "n_agq", "n_quad", "nodes", "laplace"), "write quadrature=, 1 for Laplace"),
    **dict.fromkeys(("weight", "wts", "wt"), WEIGHTS.removeprefix("weights= is ambiguous: ")),
    **dict.fromkeys(("ddf", "df"), "m.summary(ddf=…) and m.tidy(ddf=…) take it, nothing is fitted again"),
    "k": "m.aic is -2 m.loglik + 2 df; other multiples of the degrees of freedom are computed from these",
    **dict.fromkeys(("cov_ranef", "vcv_ranef", "vcv", "data2"), "write cov={'g': K} for levels of g that are related"),
    "pedigree": "write precision={'animal': Q} with the Q of rf.pedigree",
    **dict.fromkeys(("n_jobs", "ncores", "nthreads", "parallel"), "write threads="),
    **dict.fromkeys(("ziformula", "zi", "hu", "zi_formula"), "write zero_inflation='~ …'"),
    **dict.fromkeys(("dispformula", "disp_formula", "disp", "sigma_formula"), "write dispersion='~ …'"),
    **dict.fromkeys(("sigma", "phi", "shape", "theta"), "this family's is its dispersion, write dispersion='~ …'"),
    "disc": "write scale='~ …', whose logarithm has the opposite sign",
    "map": "write fixed={name: value} or equal=[(name, name)]",
    **dict.fromkeys(("se", "hess"), "standard errors are always there, m.tidy()"),
    "sparsex": "designs are as sparse as their columns",
    **dict.fromkeys(("chains", "iter", "warmup", "cores"), "fits are by likelihood, nothing is drawn"),
    **dict.fromkeys(("fixef_prior", "cov_prior", "resid_prior"), "write prior={'fixed': …, 'cov': …, 'sigma': …}"),
    "dist": "write family=",
    **dict.fromkeys(("vi", "v", "sei"), "write se(y, standard_error) ~ … for known sampling errors"),
    "mods": "write moderators in the formula",
    "random": IN_FORMULA,
    "re_formula": IN_FORMULA,
    "vc_formula": IN_FORMULA,
    "groups": IN_FORMULA,
    "group": IN_FORMULA,
    "subset": "select rows of the data before the fit",
    "na_action": "write missing='drop' or missing='raise'",
    "start": SETTINGS,
    "optimizer": SETTINGS,
    **dict.fromkeys(("maxiter", "maxit", "max_iter", "max_iterations", "tol", "tolerance", "optcontrol"), SETTINGS),
    "verbose": "m.certificate says how the search went",
    "size": "write trials=",
    "exposure": "write offset(log(exposure)) in the formula",
    "priors": "write prior={name: density}",
    **dict.fromkeys(
        ("correlation", "cov_struct", "autocor"), "write a structure such as ar1(t + 0 | g) in the formula"
    ),
}

Value = str | Formula | float | None


@dataclass(frozen=True)
class Call:
    """What `fit` was asked for, after checking; everything that `update` needs to ask again.

    What follows from it is found once: the same call may be asked of many data.

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
    fixed: Mapping[str, float] | None = None
    equal: Any = None
    prior: Any = None
    penalty: str | None = None
    sampling_weights: Any = None
    randomised_response: Any = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of `fit` that ask for this again, without formula and data."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        apart = ("formula", "parameters", "asked_method", "linear")
        kept = {name: value for name, value in given.items() if name not in apart}
        return {**kept, "method": self.asked_method, **self.parameters}

    @cached_property
    def distribution(self) -> Distribution:
        """The family with its zero inflation."""
        return self.family if self.zero_inflation is None else replace(self.family, zero_inflation=True)

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The linear predictors beside the mean's, thresholds apart."""
        given = {"dispersion": self.dispersion, ZERO: self.zero_inflation, **self.parameters, **self.values}
        given |= {"dispersion": 1.0} if self.formula.measured else {}  # times the known variances, which are weights
        family = self.distribution
        if family.entry.nominal:
            return tuple(Part(name, _one_sided(name, value, self.env)) for name, value in self.parameters.items())
        found = [_part(name, given.get(name), family, self.env) for name in family.parameters[1:]]
        if NOMINAL in self.parameters:
            found.append(_threshold_effects(given[NOMINAL], self.env))
        return tuple(found)

    @cached_property
    def priors(self) -> dict[str, Prior]:
        """Parameter -> prior."""
        return read_priors(self.prior, self.family.is_gaussian_identity)

    @property
    def has_priors(self) -> bool:
        """Whether any parameter has a prior; a value at a point is none."""
        return any(p.of != "any" for p in self.priors.values())

    @cached_property
    def wanted(self) -> dict[str, float]:
        """Parameter -> value at which it is held, points among the priors included."""
        points = {n: float(p.parameters[0]) for n, p in self.priors.items() if p.name == "point"}  # pyright: ignore[reportArgumentType]
        return {**points, **(self.fixed or {})}

    @cached_property
    def values(self) -> dict[str, float]:
        """Parameters of the family that are held at a number, on their own scale."""
        if not self.fixed and self.prior is None:
            return {}
        own = self.distribution.parameters[1:]
        nicknames = self.nicknames
        gamma = self.family.entry.name == "gamma"  # its dispersion predictor is that of the shape, 1 / sigma^2
        named = (
            (n if n in own else nicknames.get(n, n), v**-2.0 if gamma and n == "sigma" and v > 0 else v)
            for n, v in self.wanted.items()
        )
        return {n: float(v) for n, v in named if n in own}

    @property
    def nicknames(self) -> Mapping[str, str]:
        """Other names of parameters that are held at a number."""
        return {"sigma": "dispersion", **self.family.entry.nicknames}

    @cached_property
    def wishes(self) -> Wishes | None:
        """What is asked of parameters beside the data."""
        if not (self.fixed or self.equal or self.prior is not None or self.penalty):
            return None
        mine = {**self.values, **({"sigma": 0.0} if "dispersion" in self.values else {})}
        nicknames = self.family.entry.nicknames
        held = tuple((n, float(v)) for n, v in (self.fixed or {}).items() if nicknames.get(n, n) not in mine)
        priors = tuple((n, p) for n, p in self.priors.items() if p.name != "point" or nicknames.get(n, n) not in mine)
        return Wishes(held, tuple(tuple(group) for group in self.equal or ()), priors, self.penalty == "firth")

    @cached_property
    def survey(self) -> Weights:
        """The weights of a survey by what they belong to, and how they are scaled."""
        return read_weights(self.sampling_weights)

    def is_linear(self) -> bool:
        """Tell whether the linear engine has the likelihood."""
        if self.wishes is not None:
            return False
        if (
            self.sampling_weights is not None
            or self.zero_inflation is not None
            or not self.family.is_gaussian_identity
            or self.formula.censored
            or self.formula.measured
        ):
            return False
        if self.is_related():
            return False
        said = self.dispersion is not None or bool(self.parameters)
        return is_linear(self.family, self.formula, self.parts if said else (), self.frequency_weights)

    def is_related(self) -> bool:
        """Tell whether levels of a grouping of the mean are related to each other."""
        labels = [bar.label for bar in self.formula.bars]
        precision = self.precision if isinstance(self.precision, Mapping) else {}
        return any(group_named(name, labels) is not None for name in (*self.between_levels, *precision))

    @cached_property
    def between_levels(self) -> Mapping[str, Any]:
        """What `cov=` gives for the levels of groups: all but the matrices that propto() and equalto() take."""
        if not isinstance(self.cov, Mapping):
            return {}
        formulas = [self.formula, *(part.formula for part in self.parts if part.formula is not None)]
        return between_levels(self.cov, self.env, [bar for formula in formulas for bar in formula.bars])

    def is_gaussian(self) -> bool:
        """Tell whether the response is gaussian with one residual variance, whatever the covariance structures."""
        if not self.family.is_gaussian_identity or self.zero_inflation is not None:
            return False
        if self.frequency_weights is not None or self.formula.censored:
            return False
        return all(part.formula is None or part.formula.is_constant for part in self.parts)

    @cached_property
    def outcome(self) -> Outcome:
        """Which responses are legal."""
        zeros = False if self.family.truncated else None
        return Outcome(
            self.distribution.name, self.family.entry.support, True if self.zero_inflation is not None else zeros
        )

    def task(self, design: Design) -> Task:
        """Return the question to the engine, the number of categories known."""
        family = self.distribution
        if family.categorical:
            family = replace(family, categories=len(design.categories), counts=has_counts(design))
        if family.entry.nominal:
            family = replace(family, levels=tuple(map(str, design.categories[1:])))
        known = self.dispersion if self.method == "pql" else None
        variance = None if known is None else quasi_variance(family, float(known))  # pyright: ignore[reportArgumentType]
        return Task(family, self.method, self.quadrature, self.control, self.linear, self.wishes, variance)


def build_call(call: Call, data: Any, also: Any = None) -> tuple[Spec, Design]:
    """Spec and design of a call; of the rows in which a response that it does not name, `also`, is there."""
    parts = () if call.linear or call.method == "pql" else call.parts
    if not call.family.entry.nominal:
        return _built(call, data, call.formula, parts, also)
    spec, design = _built(call, data, call.formula, parts)
    head, *others = _by_category(spec, design)
    return _built(call, data, replace(head, lhs=spec.formula.lhs), [Part(n, f) for n, f in others])


def _built(call: Call, data: Any, formula: Formula, parts: Sequence[Part], also: Any = None) -> tuple[Spec, Design]:
    return build(
        formula,
        data,
        weights=call.precision_weights,
        offset=call.offset,
        contrasts=call.contrasts,
        missing=call.missing,
        env=call.env,
        parts=parts,
        outcome=call.outcome,
        trials=call.trials,
        frequencies=call.frequency_weights,
        cov=call.cov,
        precision=call.precision,
        sampling=call.survey.values,
        scaling=call.survey.scaling,
        randomised=call.randomised_response,
        wide=call.linear,
        also=also,
    )


def _by_category(spec: Spec, design: Design) -> list[Any]:
    """Return the formula of the first predictor of a multinomial model, and (category, formula) of the others."""
    own = {part.name: part.formula for part in spec.parts}
    names = [str(c) for c in design.categories[1:]]
    for name in own:
        if name not in names:
            raise ArgumentError(
                f"fit() has no argument {name!r}, and {spec.formula.response!r} no such category beside the first, "
                f"{str(design.categories[0])!r}, to which others are compared; {nearest(name, (*names, *ARGUMENTS))}"
            )
    formulas = [own.get(name) or replace(spec.formula, lhs=None) for name in names]
    return [formulas[0], *zip(names[1:], formulas[1:], strict=True)]


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
    seed: Any = None,
    progress: Any = None,
    env: Any = None,
    cov: Any = None,
    precision: Any = None,
    fixed: Any = None,
    equal: Any = None,
    prior: Any = None,
    penalty: Any = None,
    randomised_response: Any = None,
    **others: Any,
) -> Call:
    """Check the arguments of `fit`; a linear model, the common case, is in and out of here in microseconds."""
    _check_manner(seed, progress)
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
        fixed=fixed,
        equal=equal,
        prior=prior,
        penalty=penalty,
        sampling_weights=sampling_weights,
        randomised_response=None if randomised_response is None else read_design(randomised_response),
    )
    return _checked(call, method)


_remembered = lru_cache(maxsize=256, typed=True)(make_call)


def asked(**given: Any) -> Call:
    """Return `make_call(**given)`, remembered where every argument is a text, a number, a truth value or None."""
    return (_remembered if PLAIN.issuperset(map(type, given.values())) else make_call)(**given)


def _check_manner(seed: Any, progress: Any) -> None:
    """Say what is wrong with arguments that no estimate depends on."""
    if seed is not None and (not isinstance(seed, Integral) or isinstance(seed, bool) or seed < 0):
        raise OptionError(f"seed={seed!r} must be a whole number that is not negative; fits draw no random numbers")
    if progress is not None and not isinstance(progress, bool):
        raise OptionError(f"progress={progress!r} is True, False, or None: where stderr is a terminal")


def _checked(call: Call, method: Any) -> Call:
    """Return the call with its engine and criterion, after all checks that need no data."""
    call = _without_dots(call)
    if call.formula.truncated != call.family.bounded:
        call = replace(call, family=replace(call.family, bounded=call.formula.truncated))
    if call.family.bounded:
        _check_truncated(call, method)
    _check_wishes(call)
    if isinstance(method, str) and method.lower() == "pql":
        _check_quasi_dispersion(call)
    elif not call.family.is_gaussian_identity or call.dispersion is not None or call.zero_inflation is not None:
        _check_components(call)
    linear = call.is_linear()
    restricted = linear or (call.is_gaussian() and not _penalises_mean(call) and call.sampling_weights is None)
    call = replace(call, linear=linear, method=_method(method, restricted), asked_method=method)
    if call.method == "pql":
        call = replace(call, linear=False)
        _check_pql(call)
    _check_penalised(call)
    _check_weights(call)
    _check_quadrature(call)
    if call.sampling_weights is not None:
        _check_sampling(call)
    _check_randomised(call)
    _check_custom(call)
    return call


def _without_dots(call: Call) -> Call:
    """Return the call with what `.` stands for in other predictors: the mean's terms but its offset, as in glmmTMB.

    Beside a mean that has a `.` itself it stands for all other columns, as there.
    """
    given = {"dispersion": call.dispersion, ZERO: call.zero_inflation, **call.parameters}
    texts = {name: value.text if isinstance(value, Formula) else value for name, value in given.items()}
    dotted = [n for n, text in texts.items() if isinstance(text, str) and "." in text and _has_dot(n, given[n], call)]
    if not dotted or call.formula.dot:
        return call
    mean = replace(call.formula, lhs=None, offset_factors=())
    said = {**given, **{name: str(mean.update(str(texts[name]))) for name in dotted}}
    own = {name: said[name] for name in call.parameters}
    return replace(call, dispersion=said["dispersion"], zero_inflation=said[ZERO], parameters=own)


def _has_dot(name: str, value: Value, call: Call) -> bool:
    return _one_sided(name, value, call.env).dot


# ---- the components --------------------------------------------------------------------------------------------------


def _part(name: str, value: Value, family: Distribution, env: Any) -> Part:
    """Return a linear predictor: a formula, "~ 1" where nothing is said, or a constant."""
    if isinstance(value, Real) and not isinstance(value, bool):
        return _held(name, float(value), family)
    formula = _one_sided(name, "~ 1" if value is None else value, env)
    if name == "scale" and family.entry.ordinal:
        if not (formula.bars or formula.offset_factors or any(term.factors for term in formula.fixed)):
            raise FormulaError("scale= of an ordinal family needs a column: its constant is 1", formula.text, 0)
        return Part(name, formula, intercept=False)
    if formula.fixed or formula.bars or formula.offset_factors:
        return Part(name, formula)
    if not _may_vanish(name, family):
        raise FormulaError(f"{name}='~ 0' holds nothing to estimate; give a number to hold it there", formula.text, 0)
    return _held(name, 0.0, family)


def _held(name: str, value: float, family: Distribution) -> Part:
    """Return a parameter held at a value on its own scale; what stands for no residual the response decides."""
    if value == 0 and _may_vanish(name, family):
        return Part(name, nothing=family.link_of(name))
    return Part(name, None, predictor_of(value, family.link_of(name), name))


def _threshold_effects(value: Value, env: Any) -> Part:
    """Return the columns whose effects differ from threshold to threshold."""
    formula = _one_sided(NOMINAL, value, env)
    if formula.bars or formula.offset_factors:
        raise FormulaError(
            f"{NOMINAL}= takes fixed effects only: random effects belong to the formula", formula.text, 0
        )
    if not any(term.factors for term in formula.fixed):
        raise FormulaError(f"{NOMINAL}= names no column: leave it out", formula.text, 0)
    return Part(NOMINAL, formula, intercept=False)


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
    if family.entry.nominal:
        return family, {name: value for name, value in others.items() if value is not None}  # categories, by name
    said = [name for name, value in others.items() if value is not None]
    check_once([(name, f"{name}=") for name in said], family.entry.nicknames, family)
    ordered = sorted(others, key=lambda name: others[name] is not None)  # nothing said under one name gives way
    given = {family.entry.nicknames.get(name, name): others[name] for name in ordered}
    if family.entry.ordinal:
        if "threshold" in given:
            family = with_threshold(family, given.pop("threshold") or THRESHOLDS[0])
        family = replace(family, scaled=given.get("scale") is not None) if "scale" in given else family
        known = [*known, NOMINAL]
    for name in given:
        if name not in known:
            raise _unknown(name, known)
    return family, {name: value for name, value in given.items() if value is not None}


def _unknown(name: str, parameters: Sequence[str]) -> ArgumentError:
    if name == "weights":
        return ArgumentError(WEIGHTS)
    foreign = name.lower().replace(".", "_")
    if foreign in ELSEWHERE:
        return ArgumentError(f"fit() has no argument {name!r}: {ELSEWHERE[foreign]}")
    return ArgumentError(f"fit() has no argument {name!r}; {nearest(name, (*ARGUMENTS, *parameters))}")


def _check_components(call: Call) -> None:
    family = call.family
    if call.dispersion is not None and family.entry.ordinal:
        raise OptionError("dispersion=: an ordinal family has a scale instead; write scale='~ x'")
    if call.dispersion is not None and "dispersion" not in family.parameters:
        others = "'nbinom2' or 'nbinom1'" if family.entry.support == "count" else "'betabinomial'"
        hint = f"; {others} has one" if family.entry.support in ("count", "binomial") else ""
        raise OptionError(f"dispersion=: family={family.name!r} has no dispersion parameter{hint}")
    if call.zero_inflation is not None and not family.entry.inflatable:
        raise OptionError(f"zero_inflation=: family={family.name!r} has no zeros to inflate; leave it out")
    if call.zero_inflation is None and family.zero_link != "logit":
        raise OptionError(f"link={{{ZERO!r}: {family.zero_link!r}}} is of extra zeros: write zero_inflation='~ 1'")
    if family.custom is not None and len(call.distribution.parameters) > MOST_PARAMETERS:
        raise OptionError(
            f"zero_inflation=: a custom family has at most {MOST_PARAMETERS} parameters, that of the zeros counted"
        )
    for part in call.parts:  # reads every formula, which says what is wrong with it
        if (
            part.constant is not None
            and part.name == ZERO
            and not 0 < float(call.distribution.link_of(ZERO).inverse(part.constant)) < 1
        ):
            raise OptionError("zero_inflation= is a probability between 0 and 1, both excluded")


def _check_custom(call: Call) -> None:
    custom = call.family.custom
    if custom is not None and custom.cdf is None and call.formula.censored:
        raise NotAvailableError(
            f"cens(): a censored row needs the distribution function, and family={call.family.name!r} was made without "
            f"cdf=: custom_family(..., cdf=…)"
        )


def _check_truncated(call: Call, method: Any) -> None:
    """Say what truncation to bounds does not go with."""
    family = call.family
    if family.custom is not None or family.categorical or family.entry.support == "binomial":
        raise NotAvailableError(f"trunc(): bounds go with families of numbers and counts, not with {family.name!r}")
    if family.truncated:
        raise OptionError(f"trunc(): counts without 0 have the bound lb=1: write family={family.entry.name!r}")
    if call.zero_inflation is not None:
        raise NotAvailableError("trunc(): truncation of a response with extra zeros is not available")
    if call.formula.measured:
        raise NotAvailableError("trunc(): truncation of a response with known standard errors, se(), is not available")
    if isinstance(method, str) and method.lower() == "pql":
        raise NotAvailableError("method='pql': quasi-likelihood has no place for a truncated response")


def _check_weights(call: Call) -> None:
    if call.trials is not None and call.family.entry.support != "binomial":
        raise OptionError(f"trials= belongs to binomial families; family={call.family.name!r} has none")
    if call.formula.measured:
        _check_measured(call)
    if call.precision_weights is None or call.linear:
        return
    if call.family.entry.name != "gaussian" or call.family.links[1] != "log":
        raise OptionError(
            f"precision_weights= (residual variance sigma^2 / w) has no meaning under family={call.family.name!r}: use "
            f"frequency_weights= (a row stands for w rows), trials= (denominator of a proportion), or dispersion='~ w'"
        )


def _check_measured(call: Call) -> None:
    """Known sampling variances take the place of an estimated residual one."""
    if call.family.entry.name != "gaussian" or call.family.links[1] != "log":
        raise OptionError(f"se(): known standard errors go with family='gaussian', not {call.family.name!r}")
    if call.precision_weights is not None:
        raise OptionError("se(): the standard errors are the weights: leave precision_weights= out")
    if call.dispersion is not None or "dispersion" in call.values:
        raise OptionError(
            "se(): the residual variances are known: leave dispersion= out; for variance beyond them add a random "
            "effect of every row, (1 | row)"
        )


def _check_wishes(call: Call) -> None:
    """Say what is wrong with `fixed`, `equal`, `prior` and `penalty`, names of parameters apart."""
    if call.fixed is not None and not isinstance(call.fixed, Mapping):
        raise ArgumentError("fixed= takes a dict from parameters to values, such as {'sd(g)': 1, 'x': 0}")
    for name, value in (call.fixed or {}).items():
        if not isinstance(value, Real) or isinstance(value, bool):
            raise ArgumentError(f"fixed: {name!r} is held at a number, not {value!r}")
    ties = call.equal if call.equal is not None else ()
    if isinstance(ties, str) or not isinstance(ties, Sequence) or any(isinstance(group, str) for group in ties):
        raise ArgumentError("equal= takes a list of ties, such as [('sd(a)', 'sd(b)'), ('x1', 'x2')]")
    if call.penalty not in (None, "firth"):
        raise OptionError(f"penalty={call.penalty!r} is unknown; use 'firth'")
    given = {"dispersion": call.dispersion, ZERO: call.zero_inflation, **call.parameters}
    for name in call.values:
        if given.get(name) is not None and not (name == ZERO and _is_constant(given[name], call.env)):
            raise ArgumentError(f"fixed: {name!r} has a value there and {name}={given[name]!r}: give one of them")
    points = [n for n, p in call.priors.items() if p.name == "point"]  # reads them, which says what is wrong with them
    held = [*((n, f"fixed={{{n!r}: …}}") for n in call.fixed or {}), *((n, f"prior={{{n!r}: point}}") for n in points)]
    check_once(held, call.nicknames, call.family)
    check_once([(n, f"prior={{{n!r}: …}}") for n in call.priors], call.family.entry.nicknames, call.family)


def _is_constant(value: Value, env: Any) -> bool:
    """Whether a component was asked for as one number to estimate, "~ 1"."""
    return isinstance(value, (str, Formula)) and _one_sided(ZERO, value, env).is_constant


def _penalises_mean(call: Call) -> bool:
    """Whether coefficients of the mean have priors."""
    others = ("sigma", *call.distribution.parameters[1:])
    names = [n for n, p in call.priors.items() if p.of != "any"] if call.prior is not None else []
    return call.penalty is not None or any(
        not re.match(r"(sd|var|cov|cor|rate|range)(\(|__|$)", n) and n.partition(".")[0] not in others for n in names
    )


def _check_penalised(call: Call) -> None:
    if call.asked_method == "map" and call.prior is None and call.penalty is None:
        raise OptionError("method='map' needs prior= or penalty=; without them it is 'ml'")
    if call.prior is None and call.penalty is None:
        return
    if call.method == "reml" and _penalises_mean(call):
        raise OptionError(
            "method='reml' integrates the coefficients of the mean out; with priors on them use method='map'"
        )
    if call.quadrature == 0:
        raise OptionError("quadrature=0 (joint modes) takes no prior= and no penalty=; leave it out for Laplace's")
    if call.penalty is not None and not _is_canonical(call):
        raise NotAvailableError(
            "penalty='firth' is available for family='binomial' (logit) and 'poisson' (log), where observed and "
            "expected information agree; elsewhere give prior={'fixed': rf.prior.normal(0, 2.5)}"
        )


def _is_canonical(call: Call) -> bool:
    family = call.family
    plain = call.zero_inflation is None and not family.truncated and not call.formula.censored
    plain = plain and call.randomised_response is None and not family.bounded
    return plain and (family.entry.name, family.link) in (("binomial", "logit"), ("poisson", "log"))


def _check_quasi_dispersion(call: Call) -> None:
    """Quasi-likelihood has one dispersion, Var(y) = sigma^2 V(mu): estimated, or a number."""
    value = call.dispersion
    number = isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < float("inf")
    if call.parameters or not (value is None or number):
        raise OptionError(
            "method='pql' has one dispersion, that of Var(y) = sigma^2 V(mu): it is estimated, as MASS::glmmPQL does, "
            "or held at a positive number, dispersion=1 (Breslow & Clayton); it takes no formula, no other parameters"
        )


def _check_pql(call: Call) -> None:
    """Quasi-likelihood knows a mean and its variance function, nothing else."""
    family = call.family
    if family.entry.name not in VARIANCES or not family.plain_mean or call.zero_inflation is not None:
        raise NotAvailableError(
            f"method='pql' knows the variances of {', '.join(map(repr, VARIANCES))}, functions of the mean times one "
            f"dispersion, not that of family={call.distribution.name!r}: leave method out for Laplace's approximation"
        )
    if call.wishes is not None:
        raise NotAvailableError("method='pql' takes no fixed=, equal=, prior= or penalty=")
    if call.formula.censored:
        raise NotAvailableError("method='pql': quasi-likelihood has no place for a censored response")
    if family.is_gaussian_identity:
        raise OptionError("method='pql': a linear model has its likelihood; use method='ml' or 'reml'")
    if call.quadrature != 1:
        raise OptionError(f"quadrature={call.quadrature!r}: method='pql' approximates no integral, leave it out")


def _check_sampling(call: Call) -> None:
    if call.wishes is not None:
        raise NotAvailableError("sampling_weights= together with fixed=, equal=, prior= or penalty= is not available")
    _ = call.survey  # reads it, which says what is wrong with it
    if call.method != "ml" or call.quadrature == 0:
        raise OptionError(
            "sampling_weights= go with method='ml' and quadrature=1 or more: the pseudo-likelihood is a weighted sum "
            "of the log-likelihoods of the groups"
        )
    if call.frequency_weights is not None:
        raise OptionError("sampling_weights= and frequency_weights= exclude each other: multiply them")


def _check_randomised(call: Call) -> None:
    if call.randomised_response is not None and call.family.entry.name != "binomial":
        raise OptionError(f"randomised_response= goes with family='binomial'; family={call.family.name!r} has none")
    if call.randomised_response is not None and call.zero_inflation is not None:
        raise OptionError("randomised_response= and zero_inflation= cannot be told apart: leave one out")
    if call.family.entry.nominal and call.offset is not None:
        raise OptionError("offset=: write offset(x) in the formula, or in that of the category that it belongs to")


def _check_quadrature(call: Call) -> None:
    q = call.quadrature
    if not isinstance(q, Integral) or isinstance(q, bool) or q < 0:
        raise OptionError(f"quadrature={q!r} is the number of nodes: 1 (Laplace), more, or 0 (joint modes)")
    if q > MOST_NODES:
        raise OptionError(
            f"quadrature={q!r}: at most {MOST_NODES} nodes a dimension, as weights of more underflow; 25 are as exact"
        )
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
    return "ml" if name == "map" else name
