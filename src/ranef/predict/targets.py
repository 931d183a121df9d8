"""What a prediction can be of: each `type=` of `Fit.predict` as a function of linear predictors, with its derivatives.

A type is a row of `TYPES`: which families have it, and the `Target` that it stands for. Every parameter of a family is
a type by its name, on its own scale, and "link(…)" around the name is its linear predictor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ranef.engines.estimate import Array
from ranef.errors import OptionError, nearest
from ranef.families import ZERO, Data, Link, law_of, link_of
from ranef.families.law import Counts, Nominal, Ordinal
from ranef.predict.joint import has_slopes, mean_slopes, probability_slopes
from ranef.predict.rows import law, terms_of

if TYPE_CHECKING:
    from ranef.families import Distribution
    from ranef.model import Fit

LINEAR = re.compile(r"link\(\s*(.+?)\s*\)")
#: What others call a type that we have under another name.
SYNONYMS = {"zlink": f"link({ZERO})", "link(mean)": "link"}
#: What others ask for by type and we by another argument, or not.
INSTEAD = {
    "prob": "type='probs' has the probability of every category",
    "cum.prob": "cumulative probabilities are the running sums of type='probs'",
    "linear.predictor": "type='link' is the linear predictor",
    "linpred": "type='link' is the linear predictor",
    "epred": "type='response' is the expected response",
    "expected": "type='response' is the expected response",
    "marginal": "re='integrate' averages over the random effects",
    "mean_subject": "re='none' predicts for random effects of 0",
    "subject_specific": "re='all', the default, includes the random effects",
}


@dataclass(frozen=True, slots=True)
class Question:
    """What to predict: the arguments of `Fit.predict`."""

    re: str | Sequence[str] | None = "all"
    type: str = "response"
    new_levels: str = "error"
    interval: str | None = None
    level: float = 0.95
    std_error: bool = False
    seed: int | None = None

    @property
    def parameter(self) -> str:
        """Return the parameter that the type names, by itself or as "link(…)"."""
        linear = LINEAR.fullmatch(self.type)
        return linear[1] if linear else self.type


@dataclass(frozen=True, slots=True)
class Target:
    """What is predicted: a function of one linear predictor, or of all of them.

    Attributes
    ----------
    component : int or None
        The linear predictor that alone decides it; None: `of` takes them all.
    value, slope : callable
        The function of that linear predictor and its derivative.
    of : callable
        The function of (eta, data).
    slopes : callable or None
        Its derivatives in every linear predictor, (n, K) or, of several values, (n, J, K); None where not known.
    scale : Link or None
        Where intervals of what joins several predictors are made; None: on the scale of the mean's link.
    """

    component: int | None
    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    of: Callable[[Array, Data], Array]
    slopes: Callable[[Array, Data], Array] | None = None
    scale: Link | None = None


@dataclass(frozen=True, slots=True)
class Type:
    """One row of the table: of which families a prediction can be of this type, and what it is."""

    known: Callable[[Distribution], bool]
    target: Callable[[Fit, Question], Target]


def target_of(m: Fit, q: Question) -> Target:
    """Return what a question asks for."""
    if q.type in TYPES:
        return TYPES[q.type].target(m, q)
    linear = q.type != q.parameter
    return _parameter(m, q, link_of("identity") if linear else m.distribution.link_of(q.parameter))


def own_type(family: Distribution, asked: object) -> str:
    """Return what a type is called here.

    Raises
    ------
    OptionError
        If the family has none of that name.
    """
    given = str(asked)
    name = SYNONYMS.get(given, given)
    if name not in types_of(family):
        linear = LINEAR.fullmatch(name)
        name = f"link({family.own_name(linear[1])})" if linear else family.own_name(name)
        name = SYNONYMS.get(name, name)
    known = types_of(family)
    if name in known:
        return name
    if name in (ZERO, f"link({ZERO})"):
        why = "the model has no zero inflation; zero_inflation= gives it one"
    else:
        why = f"it is unknown for {family.name}; {INSTEAD.get(given) or nearest(given, known)}"
    raise OptionError(f"predict: type={asked!r}: {why}")


def types_of(family: Distribution) -> list[str]:
    """Return the types that predictions of a family may have."""
    own = family.parameters[1 : 1 + family.scaled] if family.categorical else family.parameters
    linear = (f"link({name})" for name in own if name != "mean")
    return [*(name for name, row in TYPES.items() if row.known(family)), *own, *linear]


def _link(m: Fit, _: Question) -> Target:
    if m.distribution.entry.nominal:
        each = partial(_everywhere, np.eye(len(m.distribution.levels)))
        return Target(None, np.asarray, np.ones_like, lambda eta, _: eta, each, link_of("identity"))
    return Target(0, np.asarray, np.ones_like, _first)


def _response(m: Fit, q: Question) -> Target:
    """Return the expected response; categories without order have only probabilities."""
    family = m.distribution
    if family.entry.nominal:
        return _probabilities(m, q)
    if family.plain_mean and family.link == "identity":
        return _link(m, q)
    link, one = family.link_of("mean"), law_of(replace(family, counts=False))
    alone = family.plain_mean and q.re != "integrate"
    slopes = (lambda eta, data: mean_slopes(family, eta, data)) if has_slopes(family) else None
    scale = stretched(link_of("logit"), family.categories - 1) if family.entry.ordinal else None
    return Target(0 if alone else None, link.inverse, link.slope, one.mean, slopes, scale)


def _conditional(m: Fit, q: Question) -> Target:
    """Return the expected response where it is no extra zero: truncated where the family is."""
    if not m.distribution.zero_inflation:
        return _response(m, q)
    family = replace(m.distribution, zero_inflation=False)
    if family.plain_mean:
        return target_of(m, replace(q, type="mean"))
    link, count = family.link_of("mean"), len(family.parameters)

    def slopes(eta: Array, data: Data) -> Array:
        return np.column_stack([mean_slopes(family, eta[:, :count], data), np.zeros(len(eta))])

    answers = law_of(family)
    return Target(
        None,
        link.inverse,
        link.slope,
        lambda eta, data: answers.mean(eta[:, :count], data),
        slopes if has_slopes(family) else None,
    )


def _probabilities(m: Fit, _: Question) -> Target:
    family, answers = m.distribution, law(m)
    assert isinstance(answers, Ordinal | Nominal | Counts)
    probabilities = answers.probabilities
    return Target(
        None,
        np.asarray,
        np.ones_like,
        lambda eta, _: probabilities(eta),
        lambda eta, _: probability_slopes(family, eta),
        link_of("logit"),
    )


def _parameter(m: Fit, q: Question, link: Link) -> Target:
    """Return a parameter as a function of its predictor; with re="integrate" its average, where that is not linear."""
    family = m.distribution
    if q.parameter == "dispersion" and (m.task.linear or m.method == "pql"):
        return Target(None, link.inverse, link.slope, lambda eta, _: link.inverse(eta[:, 1]))
    k = family.parameters.index(q.parameter)
    alone = q.re != "integrate" or link.name == "identity" or not terms_of(m, k)

    def slopes(eta: Array, _data: Data) -> Array:
        out = np.zeros_like(eta)
        out[:, k] = link.slope(eta[:, k])
        return out

    return Target(k if alone else None, link.inverse, link.slope, lambda eta, _: link.inverse(eta[:, k]), slopes, link)


def _variation(m: Fit, q: Question) -> Target:
    """Return sigma of a gamma, 1 / sqrt(shape): what glmmTMB means by its dispersion."""
    shape = target_of(m, replace(q, type="dispersion"))

    def slope(eta: Array) -> Array:
        return -0.5 * shape.value(eta) ** -1.5 * shape.slope(eta)

    def slopes(eta: Array, data: Data) -> Array:
        assert shape.slopes is not None
        return -0.5 * shape.of(eta, data)[:, None] ** -1.5 * shape.slopes(eta, data)

    return Target(
        shape.component,
        lambda eta: shape.value(eta) ** -0.5,
        slope,
        lambda eta, data: shape.of(eta, data) ** -0.5,
        None if shape.slopes is None else slopes,
        link_of("log"),
    )


def _everywhere(values: Array, eta: Array, _data: Data) -> Array:
    return np.broadcast_to(values, (len(eta), *values.shape))


def stretched(link: Link, width: float) -> Link:
    """Return the link of a parameter between 0 and `width`: that of its share of it."""
    return Link(
        link.name,
        lambda p: link.forward(np.asarray(p) / width),
        lambda x: width * link.inverse(x),
        lambda x: width * link.slope(x),
        link.legal,
    )


def _first(eta: Array, _data: Data) -> Array:
    return eta[:, 0]


TYPES = {
    "response": Type(lambda _: True, _response),
    "link": Type(lambda _: True, _link),
    "conditional": Type(lambda family: not family.categorical, _conditional),
    "probs": Type(lambda family: family.categorical, _probabilities),
    "class": Type(lambda family: family.categorical, _probabilities),
    "disp": Type(lambda family: family.entry.name == "gamma", _variation),
}
