"""Penalised quasi-likelihood: a linear mixed model of the working response, until it reproduces its own predictor.

With mu = g^-1(eta), the response z = eta + (y - mu) g'(mu) and weights w = prior weight / (g'(mu)^2 V(mu)), the model
z = X beta + Z b + offset + e, Var(e_i) = sigma^2 / w_i, is fitted by maximum likelihood with sigma^2 free, as
MASS::glmmPQL does, or held at a number (Breslow & Clayton 1993, section 2.3, where it is 1). A row of frequency f has
weight f w_i and counts as f rows. The criterion of the last working model is no likelihood of the data and is not
reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef import _core
from ranef.engines import linear
from ranef.engines.control import Control
from ranef.engines.estimate import Array, Estimate
from ranef.engines.task import Engine, Look, Task, one_by_one
from ranef.errors import DataError, NotAvailableError, OptionError, RanefError
from ranef.families import Distribution, legal_link, link_of
from ranef.formula.functions import PLAIN
from ranef.frame.checks import check_levels, check_response, unlogged_offset

if TYPE_CHECKING:
    from ranef.frame import Design

#: Variance functions V(mu): Var(y) = sigma^2 V(mu) / prior weight.
VARIANCES: dict[str, Callable[[Array], Array]] = {
    "binomial": lambda mu: mu * (1 - mu),
    "poisson": lambda mu: mu,
    "gamma": lambda mu: mu**2,
    "inverse_gaussian": lambda mu: mu**3,
    "gaussian": np.ones_like,
}
ITERATIONS = 200
CLOSE = 1e-14  # squared relative change of the linear predictor at which the iteration ends
GLM_CLOSE = 1e-8  # the same for the model without random effects, where it starts
LIGHTEST = 1e-10  # smallest working weight, relative to the largest


def estimate(design: Design, task: Task, _look: Look | None = None) -> tuple[Any, Estimate]:
    """Return the core of the last working model and its estimate, without a criterion.

    Raises
    ------
    DataError
        If the data cannot carry the model, or the means leave their range.
    NotAvailableError
        If a term has a covariance structure that linear models do not have.
    """
    check(design, task)
    try:
        return _iterate(design, task)
    except ValueError as error:
        if isinstance(error, RanefError) and not isinstance(error, DataError):
            raise
        text = str(error).removeprefix("method='pql': ")
        more = unlogged_offset(design, task.family.link)
        raise DataError(f"method='pql': {text}{'' if more is None else f': {more}'}") from error


def check(design: Design, task: Task) -> None:
    """Raise what would otherwise surface as a numerical failure."""
    if not design.terms:
        raise OptionError("method='pql' is about random effects and the model has none: leave method out")
    for term in design.terms:
        if term.structure not in PLAIN:
            raise NotAvailableError(
                f"method='pql' takes terms (x | g) and (x || g), not {term.structure}(… | {term.label}): leave method "
                f"out for Laplace's approximation. (corAR1 and others of MASS::glmmPQL correlate residuals of the "
                f"working model, which is no structure of random effects)"
            )
        if term.relation is not None:
            raise NotAvailableError(
                f"method='pql' takes independent levels, and cov= or precision= relates those of {term.label!r}: leave "
                f"method out for Laplace's approximation"
            )
        check_levels(design, term)
    if design.randomised is not None:
        raise NotAvailableError(
            "method='pql' has no randomised_response=: leave method out for Laplace's approximation"
        )
    check_response(design)
    if task.control.optimizer != "newton":
        raise NotAvailableError("method='pql' fits its working models by 'newton'; leave optimizer out")


def _iterate(design: Design, task: Task) -> tuple[Any, Estimate]:
    control, eta = task.control, start(design, task)
    evaluations, iteration = 0, 0
    while True:
        core, found = _working_fit(design, task, eta, control)
        evaluations, iteration = evaluations + found.evaluations, iteration + 1
        control, before, eta = replace(control, start=tuple(found.theta.tolist())), eta, predictor(design, found)
        close = float(np.sum((eta - before) ** 2)) <= CLOSE * float(np.sum(eta**2))
        if close or iteration == ITERATIONS:
            break
    outcome = found.outcome if close else "max_evaluations"
    return core, replace(found, criterion=float("nan"), outcome=outcome, iterations=iteration, evaluations=evaluations)


def _working_fit(design: Design, task: Task, eta: Array, control: Control) -> tuple[Any, Estimate]:
    z, w = working(design, task.family, eta)
    weighted = replace(design, weights=w)
    core = linear.make_core(weighted, z, control.threads)
    linear.check_rank(core, weighted)
    core.assume(None if design.frequencies is None else float(np.sum(design.frequencies)), task.variance)
    found = linear.solve(core, weighted, False, control)
    return core, replace(found, known_sigma=task.variance is not None)


def working(design: Design, family: Distribution, eta: Array) -> tuple[Array, Array]:
    """Return the working response and its weights at a linear predictor.

    Raises
    ------
    DataError
        If a mean leaves its range, as an identity link lets it, or comes to its end.
    """
    link = link_of(family.link)
    with np.errstate(all="ignore"):
        mu, slope = np.asarray(link.inverse(eta)), np.asarray(link.slope(eta))
        w = prior(design) * slope**2 / VARIANCES[family.entry.name](mu)
        z = eta + (np.asarray(design.y) - mu) / slope
    floor = LIGHTEST * float(np.max(w[np.isfinite(w)], initial=0.0))
    certain = ~(w > floor) & np.isfinite(mu)
    w, z = np.where(certain, floor, w), np.where(certain & ~np.isfinite(z), eta, z)
    if not (np.isfinite(w).all() and np.isfinite(z).all() and floor > 0):
        safe = legal_link(family.entry.parameters[0].range, family.link)
        why = (
            f"the means leave their range under link={family.link!r}; try {safe!r}"
            if safe
            else "the linear predictor runs off, to means at the end of their range"
        )
        raise DataError(f"method='pql': {why}")
    return np.ascontiguousarray(z), np.ascontiguousarray(w)


def prior(design: Design) -> Array:
    """Return prior weights: precision weights, trials, frequencies."""
    given = [v for v in (design.weights, design.trials, design.frequencies) if v is not None]
    return np.prod(given, axis=0) if given else np.ones(design.n)


def start(design: Design, task: Task) -> Array:
    """Return the linear predictor of the model without random effects, by iterated weighted least squares."""
    y, family = np.asarray(design.y, dtype=float), task.family
    trials = np.ones(design.n) if design.trials is None else design.trials
    mu = {
        "binomial": (trials * y + 0.5) / (trials + 1),
        "poisson": y + 0.1,
        "gaussian": y if family.link == "identity" else np.maximum(y, 0.1 * float(np.mean(np.abs(y)))),
    }.get(family.entry.name, y)
    eta = np.asarray(link_of(family.link).forward(mu), dtype=float)
    bare, control = replace(design, terms=()), replace(task.control, start=None)
    for _ in range(25):
        before, eta = eta, predictor(bare, _working_fit(bare, task, eta, control)[1])
        if float(np.sum((eta - before) ** 2)) <= GLM_CLOSE * float(np.sum(eta**2)):
            break
    return eta


def predictor(design: Design, found: Estimate) -> Array:
    """Return X beta + Z b + offset of the rows."""
    beta = np.ascontiguousarray(found.beta)
    terms, modes = linear.term_sources(design.terms), list(found.modes)
    return np.asarray(_core.linear_predictor(linear.sources(design.fixed), beta, terms, modes, design.offset, design.n))


def dispersion_predictor(family: Distribution, sigma: float) -> float:
    """Return the predictor of the family's dispersion parameter at Var(y) = sigma^2 V(mu)."""
    value = 1 / sigma**2 if family.entry.name == "gamma" else sigma
    return float(link_of(family.links[1]).forward(value))


def quasi_variance(family: Distribution, dispersion: float) -> float:
    """Return sigma^2 of Var(y) = sigma^2 V(mu) at a value of the family's dispersion, or itself where it has none."""
    if family.entry.name in ("binomial", "poisson"):
        return dispersion
    return 1 / dispersion if family.entry.name == "gamma" else dispersion**2


ENGINE = Engine("pql", estimate, estimate, one_by_one(estimate), linear.variance, linear.save, linear.restore)
