"""Notes on offsets that look like an exposure, not like its logarithm."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ranef.diagnose.messages import Message
from ranef.errors import RanefError
from ranef.frame import Block, checks

if TYPE_CHECKING:
    from ranef.frame import Design
    from ranef.model import Fit

FEW_ROWS = 5_000  # of models that a note may fit again
VARIED = 2.0  # times the smallest exposure, from which on its logarithm is another offset
BETTER, NO_WORSE = 5.0, 2.0  # differences of log-likelihoods
LOGGED = re.compile(r"log|\bln|^l_|ln_")


def unlogged_offset(m: Fit) -> Iterator[Message]:
    """P5: an offset of the mean under a log or a cloglog."""
    design = m.design
    if m.task.linear or design is None or design.offset is None:
        return
    text = checks.unlogged_offset(design, m.link) or _better_logged(m, design)
    if text is not None:
        low, high = float(design.offset.min()), float(design.offset.max())
        yield Message("unlogged_offset", text, {"columns": design.offset_name, "low": low, "high": high})


def _better_logged(m: Fit, design: Design) -> str | None:
    """Return that the logarithm fits clearly better, and as well as any multiple of the offset does; None if not.

    A logarithm that is called something else, and does not act in proportion, may be beaten by its own logarithm, but
    not as well as by a coefficient.
    """
    offset, name = design.offset, design.offset_name
    assert offset is not None
    told = (
        m.link in checks.PROPORTIONAL
        and m.converged
        and m.task.wishes is None
        and m.method != "pql"
        and design.n <= FEW_ROWS
    )
    if not told or LOGGED.search(name.lower()) or not 0 < offset.min() * VARIED < offset.max():
        return None
    logged = _loglik(m, replace(design, offset=np.log(offset)))
    if not logged > m.loglik + BETTER:
        return None
    free = _loglik(m, replace(design, fixed=(*design.fixed, Block(("offset",), x=np.ascontiguousarray(offset)))))
    if not logged > free - NO_WORSE:
        return None
    of, it = (f"offset {name}", name) if name else ("the offset", "offset")
    return (
        f"{of} acts by exp({it}) under a {m.link} link; with offset(log({it})), in proportion to {it}, the "
        f"log-likelihood is {logged - m.loglik:.3g} higher"
    )


def _loglik(m: Fit, design: Design) -> float:
    task = replace(m.task, control=replace(m.task.control, start=None))
    with suppress(RanefError):
        return float(m.engine.estimate(design, task)[1].loglik)
    return float("nan")


def unlogged_offset_beside(m: Fit) -> Iterator[Message]:
    """P5: an offset of another parameter under a log, a logit or a cloglog."""
    if m.task.linear or m.design is None or m.distribution.categorical:
        return
    for part in m.design.others:
        link = m.distribution.link_of(part.name).name
        what = {"log": "{}", "logit": "the odds of {}", "cloglog": "-log(1 - {})"}.get(link, "")
        scale = what.format(part.name)
        if not scale or part.offset is None or not checks.is_wide(part.offset):
            continue
        low, high = float(part.offset.min()), float(part.offset.max())
        text = (
            f"the offset of {part.name} spans {low:.4g} to {high:.4g}: with a {link} link {scale} is proportional to "
            f"exp(offset); offset(log(…)) makes it proportional to what was given"
        )
        yield Message("unlogged_offset", text, {"columns": part.name, "low": low, "high": high})


CHECKS = (unlogged_offset, unlogged_offset_beside)
