"""Quiet notes on what the data cannot tell: parameters without information, values that pile up, empty cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ranef.diagnose.messages import Message, row_effect
from ranef.engines.runaways import LIMIT, may_run
from ranef.families import legal_link
from ranef.frame.checks import absorbed_residual, too_few_inside
from ranef.frame.table import rows_of, shorten
from ranef.predict.rows import fitted_design, linear_predictor

if TYPE_CHECKING:
    from ranef.engines.estimate import Array
    from ranef.model import Fit
    from ranef.predict.rows import Rows

PILE = 0.03  # share of the rows at one end of a continuous response that is no accident …
ALONE = 5  # … if no other value is repeated a fifth as often
WIDE = 3.0  # standard deviations of a truncated normal in units of the distance of its bounds: as good as none
EDGED = 500.0  # a shape beyond which a skew normal has an edge: all but 0.1 % of its standard deviation
LEAST_POWER = 1e-6  # beside 1: nearer, the core takes a Tweedie power for this
EDGE = 1e-4  # of the median distance to the edge
NEARLY_NOTHING = 1e-2  # a residual standard deviation held at less than this share of the response's
NOTHING = 1e-3  # an estimated one of less than this share is none: a search stops at 1e-4
CUT_OFF = {"lower": 0.0, "upper": 1.0}  # cut points of an ordered beta, and the responses beyond them
HELD = 20.0  # a logit where a cut point cuts nothing off: 2e-9 of a row
CONTINUOUS = ("gaussian", "student_t", "skew_normal", "lognormal", "gamma", "inverse_gaussian", "weibull")


def single_trials(m: Fit) -> Iterator[Message]:
    """P30, P34: single trials show no effect of a row's own, no extra dispersion, and hardly an extra zero."""
    design = m.design
    if design is None or m.distribution.entry.support != "binomial" or design.trials is not None:
        return
    if row_effect(m):
        text = "single trials (0 or 1) cannot show a random effect of every row: its variance is not identified"
        yield Message("row_effect_of_single_trials", text, {})
    if "dispersion" in m.distribution.parameters:
        text = (
            f"single trials (0 or 1) cannot show a dispersion: {m.family} needs trials= or cbind(); "
            f"use family='binomial'"
        )
        yield Message("dispersion_of_single_trials", text, {})
    if m.distribution.zero_inflation:
        text = (
            "single trials (0 or 1) cannot tell an extra zero from a failure: zero inflation and the mean are told "
            "apart by the curve of the link alone, and with random effects hardly; use trials= or cbind(), or leave "
            "zero_inflation out"
        )
        yield Message("zero_inflation_of_single_trials", text, {})


def above_one(m: Fit) -> Iterator[Message]:
    """Tell probabilities above one: a likelihood of discrete responses that is none."""
    if m.distribution.entry.discrete and m.method != "reml" and m.loglik > 0 and m.task.wishes is None:
        text = (
            f"the log-likelihood, {m.loglik:.3g}, would be that of probabilities above 1: Laplace's approximation has "
            f"broken down, for want of identified random effects; do not use these estimates"
        )
        yield Message("above_one", text, {"loglik": m.loglik})


def piled_up(m: Fit) -> Iterator[Message]:
    """P47: many equal values at one end of a continuous response look like a detection limit; extra zeros do not."""
    design = m.design
    if design is None or m.formula.censored or m.distribution.entry.name not in CONTINUOUS:
        return
    y = np.asarray(design.y)
    values, counts = np.unique(y[y != 0] if m.distribution.zero_inflation else y, return_counts=True)
    if len(values) < 2 * ALONE:
        return
    for at, what, status in ((0, "smallest", -1), (-1, "largest", 1)):
        others = int(np.delete(counts, at).max())
        count = int(counts[at])
        if count > PILE * design.n and count >= ALONE * max(others, 2):
            text = (
                f"{count} of {design.n} responses are {values[at]:.6g}, the {what}: if that is a detection limit, "
                f"cens(y, status) with status {status} there models it"
            )
            yield Message("piled_up", text, {"value": float(values[at]), "rows": count})


def residual_held(m: Fit) -> Iterator[Message]:
    """P50: a residual standard deviation held near zero."""
    asked = isinstance(m.call.dispersion, (int, float)) or "dispersion" in m.call.values
    if not asked or m.distribution.entry.name != "gaussian" or m.design is None or m.formula.measured:
        return
    if m.sigma < NEARLY_NOTHING * float(np.std(np.asarray(m.design.y))):
        text = (
            f"the residual standard deviation is held at {m.sigma:.3g}: see whether the estimates stay when it is "
            f"{m.sigma / 10:.3g} or {10 * m.sigma:.3g}"
        )
        yield Message("residual_held", text, {"sigma": m.sigma})


def no_residual(m: Fit) -> Iterator[Message]:
    """P41: a residual variance of 0 beside random effects that make up the response."""
    if _leaves_no_residual(m):
        text = (
            f"the residual variance is estimated 0 (a standard deviation of {m.sigma:.2g} is none): the random effects "
            f"make up all of it; dispersion=0 leaves it out"
        )
        yield Message("no_residual", text, {"sigma": m.sigma})


def _leaves_no_residual(m: Fit) -> bool:
    if m.task.linear or not m.distribution.is_gaussian_identity or m.design is None or np.isnan(m.sigma):
        return False
    part = next(c for c in m.layout.components if c.name == "dispersion")
    estimated = part.names == ("(Intercept)",) and bool(np.isnan(m.estimate.vcov[part.first, part.first]))
    return estimated and m.sigma < NOTHING * float(np.std(np.asarray(m.design.y)))


def edge_of_means(m: Fit) -> Iterator[Message]:
    """P44: a search that ended where means stop being legal, as an identity link lets it."""
    if count := _at_the_edge(m):
        text = (
            f"{count} of {m.layout.n} fitted means lie at the edge of what {m.family} allows under link={m.link!r}: "
            f"the likelihood would rise beyond, where means are illegal, so that there is neither a certificate nor "
            f"standard errors; link={_legal(m)!r} keeps means legal"
        )
        yield Message("edge_of_means", text, {"rows": count, "link": m.link})


def _legal(m: Fit) -> str | None:
    return legal_link(m.distribution.entry.parameters[0].range, m.link)


def _at_the_edge(m: Fit) -> int:
    """Return how many fitted means lie where their predictor may not go further; 0 for fits that are certified."""
    if m.converged or m.design is None or _legal(m) is None:
        return 0
    rows = fitted_design(m, "edge_of_means")
    eta = linear_predictor(m, rows, [True] * len(rows.terms))
    left = (
        np.minimum(eta, 1 - eta) if m.link == "identity" and _legal(m) == "logit" else -eta if m.link == "log" else eta
    )
    return int(np.count_nonzero(left < EDGE * float(np.median(left))))


def edge_of_support(m: Fit) -> Iterator[Message]:
    """P44: a search that ended where a response of an underdispersed generalised Poisson model stops being possible."""
    if (at := _at_the_last_count(m)).any():
        text = (
            f"{rows_of(at)}: at its mean and dispersion a response of 1 is the last count that genpois allows, and "
            f"its density ends abruptly: the likelihood would rise beyond, so that there is neither a certificate nor "
            f"standard errors, and estimates along that edge need not be the best ones; family='compois' has none"
        )
        yield Message("edge_of_support", text, {"rows": np.flatnonzero(at).tolist()})


def _at_the_last_count(m: Fit) -> Array:
    """Return which responses of 1 a generalised Poisson density nearly leaves out; none for fits that are certified.

    Its factor (theta + lambda y)^(y - 1) keeps larger counts away from theta + lambda y = 0, but not those of 1.
    """
    if m.converged or m.design is None or m.distribution.entry.name != "genpois":
        return np.zeros(1, dtype=bool)
    mu, root = np.ravel(m.predict(type="mean")), np.sqrt(np.ravel(m.predict(type="dispersion")))
    left = 1 + (root - 1) / mu  # (theta + lambda) / theta, with theta = mu / root and lambda = 1 - 1 / root
    return (np.asarray(m.design.y) == 1) & (left < EDGE)


def folded(m: Fit) -> Iterator[Message]:
    """P44: predictors below 0 under a sqrt link, where a higher one is a lower mean."""
    if m.task.linear or m.link != "sqrt" or m.design is None:
        return
    count = int(np.count_nonzero(_fixed_part(m, fitted_design(m, "folded"), 0) < 0))
    if count:
        text = (
            f"{count} of {m.layout.n} rows have a predictor below 0 under link='sqrt', whose square is the mean: there "
            f"coefficients act with the other sign; link='log' or 'softplus' has no such fold"
        )
        yield Message("folded", text, {"rows": count})


def _ended(component: str, lost: Sequence[tuple[str, str, float]]) -> str:
    """Say where the coefficients of one component came to."""
    ends = ", ".join(f"{name}: {value:.3g}" for owner, name, value in lost if owner == component)
    return f"{component} ({ends} on the link scale)"


def without_information(m: Fit) -> Iterator[Message]:
    """P41: parameters that the likelihood says nothing about; their standard errors are not numbers."""
    if m.task.linear or m.certificate.outcome.name == "flat_mode" or _has_an_edge(m):
        return
    beta, variance = m.estimate.beta, np.diag(m.estimate.vcov)
    lost = [
        (part.name, name, float(beta[j]))
        for part in m.layout.components
        for j, name in enumerate(part.names, part.first)
        if np.isnan(variance[j]) and not np.isnan(beta[j])
    ]
    if _leaves_no_residual(m):
        lost = [one for one in lost if one[0] != "dispersion"]
    if _is_lattice(m):
        lost = [one for one in lost if one[0] != "power"]
    beyond = _beyond(m, {component for component, *_ in lost})
    if m.separation:  # which explains its own components, and what is flat in others but not at a limit
        apart = _components_of(m, m.separation)
        lost = [one for one in lost if one[0] in beyond and one[0] not in apart]
    if lost and all(component in beyond for component, *_ in lost):
        listed = ", ".join(_ended(component, lost) for component in dict.fromkeys(one[0] for one in lost))
        ends = "the limit of its range" if len(lost) == 1 else "the limits of their ranges"
        text = (
            f"{listed} went to {ends}: a simpler family or component fits as well, and the other standard errors are "
            f"those at the limit"
        )
        yield Message("at_a_limit", text, {"parameters": [f"{c}.{n}" for c, n, _ in lost]})
    elif lost:
        listed = ", ".join(name if component == "mean" else f"{component}: {name}" for component, name, _ in lost)
        why = (
            f"the likelihood has no curvature along {listed}: the data cannot tell these apart, and their"
            if m.converged
            else f"the search ended where the likelihood is not curved as at an optimum along {listed}: their"
        )
        text = f"{why} standard errors are not given; simplify the model, or hold some at a value"
        yield Message("without_information", text, {"parameters": [f"{c}.{n}" for c, n, _ in lost]})


def _components_of(m: Fit, names: Sequence[str]) -> set[str]:
    """Return the components that columns named as by `Fit.separation` belong to; all where those are of categories."""
    parts = [part.name for part in m.layout.components]
    if m.distribution.categorical:
        return set(parts)
    return {next((part for part in parts[1:] if name.startswith(f"{part}.")), parts[0]) for name in names}


def _has_an_edge(m: Fit) -> bool:
    """Whether the fit lies at an edge that another message names."""
    return _at_the_edge(m) > 0 or _edged(m) != 0 or bool(_at_the_last_count(m).any())


def lattice(m: Fit) -> Iterator[Message]:
    """P41: a Tweedie response that is a Poisson count times a number, whose likelihood has no bound."""
    if _is_lattice(m):
        unit = float(m.predict(type="dispersion")[0])
        text = (
            f"the power went to 1, where a Tweedie response is its dispersion times a Poisson count: the responses are "
            f"multiples of {unit:.4g}. The likelihood has no bound there; the log-likelihood is that of a power of "
            f"1 + {LEAST_POWER:g}, the other standard errors are those of the Poisson count. Fit the response / "
            f"{unit:.4g} with family='poisson'"
        )
        yield Message("power_at_1", text, {"unit": unit})


def _is_lattice(m: Fit) -> bool:
    """Tell whether the power of a Tweedie response is one number that went to 1."""
    if m.task.linear or m.distribution.entry.name != "tweedie" or m.design is None:
        return False
    part = next((c for c in m.layout.components if c.name == "power"), None)
    if part is None or part.names != ("(Intercept)",):
        return False
    power = m.distribution.link_of("power").inverse(np.asarray(m.estimate.beta[part.first]))
    return float(power) - 1 <= LEAST_POWER


def _beyond(m: Fit, names: set[str]) -> set[str]:
    """Return which of these components have rows at the end of their range: the mean of truncated counts too."""
    if not names or m.design is None:
        return set()
    rows = fitted_design(m, "limits")
    return {
        part.name
        for k, part in enumerate(m.layout.components[: len(rows.components)])
        if part.name in names
        and may_run(k, part.name, m.distribution)
        and (np.abs(_fixed_part(m, rows, k)) > LIMIT).any()
    }


def _fixed_part(m: Fit, rows: Rows, component: int) -> Array:
    return linear_predictor(m, rows, [False] * len(rows.terms), component)


def half_normal(m: Fit) -> Iterator[Message]:
    """P41: a skew normal response all on one side of an edge, whose shape has no finite estimate."""
    if shape := _edged(m):
        text = (
            f"the shape went to {shape:.3g}, where a skew normal is half of a normal that ends at an edge: the "
            f"likelihood rises on towards infinity, by next to nothing, and standard errors beside an edge mean "
            f"nothing; hold it (shape={np.sign(shape) * 20:.0f}) or give it a prior"
        )
        yield Message("half_normal", text, {"shape": shape})


def wide_within_bounds(m: Fit) -> Iterator[Message]:
    """P41: truncated normal responses that are no rarer towards their bounds, whose spread has no finite estimate."""
    if m.distribution.entry.name != "gaussian" or m.design is None or m.design.bounds is None or m.converged:
        return
    width = float(np.median(np.ptp(m.design.bounds, axis=1)))
    if np.isfinite(width) and m.sigma > WIDE * width:
        text = (
            f"the residual standard deviation went to {m.sigma:.3g} between bounds that are {width:.3g} apart: within "
            f"them responses are no rarer at the ends than in the middle, so that the likelihood of a truncated normal "
            f"rises with it for ever; hold it (dispersion=), give it a prior, or take the response as it is"
        )
        yield Message("wide_within_bounds", text, {"sigma": m.sigma})


def _edged(m: Fit) -> float:
    """Return the shape of a skew normal, nearest to 0 among the rows, that makes it half of a normal; 0 for others."""
    if m.task.linear or m.distribution.entry.name != "skew_normal" or m.design is None:
        return 0.0
    rows = fitted_design(m, "shape")
    parts = enumerate(m.layout.components[: len(rows.components)])
    shapes = [_fixed_part(m, rows, k) for k, part in parts if part.name == "shape" and part.names]
    least = min((float(v) for shape in shapes for v in shape), key=abs, default=0.0)
    return least if abs(least) > EDGED else 0.0


def few_inside(m: Fit) -> Iterator[Message]:
    """P41: proportions of which too few lie inside (0, 1) for what is estimated from those."""
    inside = None if m.design is None else too_few_inside(m.design, m.distribution.entry.name)
    if inside is not None:
        needed = len(m.layout.components[0].names)
        why = (
            "nothing tells the dispersion, nor the cut points apart"
            if inside == 0
            else "the mean can fit them exactly, and the likelihood has no bound"
        )
        text = (
            f"{inside} of {m.layout.n} responses lie strictly between 0 and 1, and the mean has {needed} coefficients: "
            f"{why}; simplify the mean, hold the dispersion, or fit 0 and 1 alone (family='binomial')"
        )
        yield Message("few_inside", text, {"rows": inside})


def no_ends(m: Fit) -> Iterator[Message]:
    """P41: cut points of an ordered beta beyond which no response lies."""
    if m.task.linear or m.distribution.entry.name != "ordered_beta" or m.design is None:
        return
    rows, y = fitted_design(m, "no_ends"), np.asarray(m.design.y)
    ran = {
        part.name: float(at[np.argmax(np.abs(at))])
        for k, part in enumerate(m.layout.components[: len(rows.components)])
        if part.names and part.name in CUT_OFF and not (y == CUT_OFF[part.name]).any()
        and np.abs(at := _fixed_part(m, rows, k)).min() > LIMIT
    }  # fmt: skip
    if not ran:
        return
    listed = " and ".join(f"{name!r} ({value:.3g})" for name, value in ran.items())
    name, value = next(iter(ran.items()))
    if len(ran) == 1:
        went, do = "the limit of its range", f"hold it, {name}={np.copysign(HELD, value):g}"
    else:
        went, do = "the limits of their ranges", "family='beta' is the same model without them"
    text = (
        f"no response is {' or '.join(f'{CUT_OFF[name]:g}' for name in ran)}: {listed} went to {went}, where a "
        f"standard error means nothing; {do}"
    )
    yield Message("no_ends", text, {"parameters": list(ran)})


def residual_absorbed(m: Fit) -> Iterator[Message]:
    """P41: a residual variance beside a structure that contains it."""
    gaussian = m.distribution.is_gaussian_identity and not m.task.linear
    held = m.task.wishes is not None and bool(m.task.wishes.fixed or m.task.wishes.equal or m.task.wishes.priors)
    if m.design is None or not gaussian or held or m.design.sampling is not None:
        return
    if (found := absorbed_residual(m.design)) is not None:
        term, text = found
        yield Message("residual_absorbed", text, {"group": term.label, "structure": term.structure})


def times_by_number(m: Fit) -> Iterator[Message]:
    """Text times of a process in time that stand in the order of their numbers, not in that of the alphabet."""
    for plan in m.spec.bars:
        found = [f for term in plan.columns for f in term.factors if "byNumber" in f.functions]
        for factor in found:
            if factor.label.startswith("byNumber(") and factor.label not in str(plan.bar):
                levels = m.spec.factors[factor.label].levels
                text = (
                    f"{plan.bar}: the labels are text and stand in the order of the number in them, {shorten(levels)}, "
                    f"each one step after the one before; give an ordered factor for another order"
                )
                yield Message("times_by_number", text, {"levels": levels.tolist()})


CHECKS = (
    residual_absorbed, single_trials, above_one, piled_up, residual_held, no_residual,
    edge_of_means, edge_of_support, folded, without_information, lattice, half_normal, wide_within_bounds, few_inside,
    no_ends, times_by_number,
)  # fmt: skip
