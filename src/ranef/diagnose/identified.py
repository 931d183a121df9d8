"""Quiet notes on what the data cannot tell: parameters without information, values that pile up, empty cells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ranef.diagnose.messages import Message

if TYPE_CHECKING:
    from ranef.frame import Block
    from ranef.model import Fit

PILE = 0.03  # share of the rows at one end of a continuous response that is no accident …
ALONE = 5  # … if no other value is repeated a fifth as often
NEARLY_HELD = 1e-3  # a residual standard deviation held at less than this share of the response's
CONTINUOUS = ("gaussian", "student_t", "skew_normal", "lognormal", "gamma", "inverse_gaussian", "weibull")


def one_outcome(m: Fit) -> Iterator[Message]:
    """P8: a level of a fixed factor in which every trial failed, or every one succeeded."""
    design = m.design
    if not m.separation or design is None or m.distribution.entry.support != "binomial":
        return
    y = np.asarray(design.y)
    for block in design.fixed:
        if block.codes is None or block.contrast is None or block.x is not None:
            continue
        for code, level in enumerate(_levels(m, block)):
            found = np.unique(y[np.asarray(block.codes) == code])
            if len(found) == 1 and found[0] in (0, 1):
                text = f"all responses at {level} are {found[0]:g}: the estimate of that level has no bound"
                yield Message("one_outcome", text, {"level": level, "columns": list(block.names)})


def _levels(m: Fit, block: Block) -> list[str]:
    """Return "factor = level" for the levels of a main effect; nothing for interactions."""
    assert block.contrast is not None
    for label, factor in m.spec.factors.items():
        if len(factor.levels) == len(block.contrast) and all(name.startswith(label) for name in block.names):
            return [f"{label} = {level}" for level in factor.levels]
    return []


def single_trials(m: Fit) -> Iterator[Message]:
    """P30, P34: neither a row's own effect nor an extra dispersion can be told from single trials."""
    design = m.design
    if design is None or m.distribution.entry.support != "binomial" or design.trials is not None:
        return
    if any(len(t.levels) >= m.nobs and t.component == "mean" for t in m.layout.terms):
        text = "single trials (0 or 1) cannot show a random effect of every row: its variance is not identified"
        yield Message("row_effect_of_single_trials", text, {})
    if "dispersion" in m.distribution.parameters:
        text = (
            f"single trials (0 or 1) cannot show a dispersion: {m.family} needs trials= or cbind(); "
            f"use family='binomial'"
        )
        yield Message("dispersion_of_single_trials", text, {})


def piled_up(m: Fit) -> Iterator[Message]:
    """P47: many equal values at one end of a continuous response look like a detection limit."""
    design = m.design
    if design is None or m.formula.censored or m.distribution.entry.name not in CONTINUOUS:
        return
    values, counts = np.unique(np.asarray(design.y), return_counts=True)
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
    held = isinstance(m.call.dispersion, (int, float)) and m.distribution.entry.name == "gaussian"
    if not held or m.design is None:
        return
    if m.sigma < NEARLY_HELD * float(np.std(np.asarray(m.design.y))):
        text = (
            f"the residual standard deviation is held at {m.sigma:.3g}: see whether the estimates stay when it is "
            f"{m.sigma / 10:.3g} or {10 * m.sigma:.3g}"
        )
        yield Message("residual_held", text, {"sigma": m.sigma})


def without_information(m: Fit) -> Iterator[Message]:
    """P41: parameters that the likelihood says nothing about; their standard errors are not numbers."""
    if m.task.linear or m.separation:
        return
    lost = [
        f"{part.name}: {name}" if part.name != "mean" else name
        for part in m.layout.components
        for j, name in enumerate(part.names)
        if np.isnan(m.estimate.vcov[part.first + j, part.first + j]) and not np.isnan(m.estimate.beta[part.first + j])
    ]
    if lost:
        text = (
            f"the likelihood is flat along {', '.join(lost)}: the data cannot tell these apart from other parameters, "
            f"and their standard errors are not given; simplify the model or hold them at a value"
        )
        yield Message("without_information", text, {"parameters": lost})


CHECKS = (one_outcome, single_trials, piled_up, residual_held, without_information)
