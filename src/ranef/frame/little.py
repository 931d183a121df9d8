"""The residual standard deviation that stands for none: little beside the response, and enough for the arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ranef.frame.design import Block, Indicators, matrix
from ranef.frame.spec import Part

if TYPE_CHECKING:
    from ranef.frame.design import Design

#: Share r of the response's standard deviation. The likelihood is off by about r^2 for every row and computed to
#: eps / r^2, each times what structures make of it: at this share both are about 1e-7 on the models of
#: `benchmarks/structured.py` and on sleepstudy. A number in the units of the response cannot stand
#: for none, whatever they are.
NEARLY_ZERO = 5e-5
#: glmmTMB's, eps^(1/4): where it is such a share of the response both say the same to the last digit.
USUAL = float(np.finfo(np.float64).eps ** 0.25)
LEAST, MOST = 2e-6, 2e-4
NARROW = 50  # columns of a fixed factor that take part in saying how much of the response is left


def with_little(parts: Sequence[Part], design: Design) -> list[Part]:
    """Return the parts with standard deviations of nothing held at little."""
    sd = little(design)
    return [
        part if part.nothing is None else replace(part, constant=float(part.nothing.forward(sd)), nothing=None)
        for part in parts
    ]


def little(design: Design) -> float:
    """Return the residual standard deviation that stands for none."""
    spread = _spread(design)
    return USUAL if LEAST * spread <= USUAL <= MOST * spread else NEARLY_ZERO * spread


def _spread(design: Design) -> float:
    """Return the standard deviation of what fixed effects leave of a response; 1 where nothing is left."""
    if design.y is None:
        return 1.0
    y = np.asarray(design.y, np.float64)
    y = y if design.offset is None else y - design.offset
    known = np.isfinite(y)  # a censored response may be infinite
    if not known.any():
        return 1.0
    y, x = y[known], matrix([block for block in design.fixed if _is_narrow(block)], design.n)[known]
    left, x = y - y.mean(), x - x.mean(0)
    size = np.sqrt((x**2).sum(0))
    x = x[:, size > 0] / size[size > 0]
    left = left - x @ np.linalg.lstsq(x, left, rcond=None)[0]
    sd = float(np.sqrt(np.mean(left**2)))
    # A response that is fitted exactly leaves rounding errors.
    least = float(np.finfo(np.float64).eps) * float(np.max(np.abs(y), initial=0.0))
    return sd if sd > least else 1.0


def _is_narrow(block: Block) -> bool:
    return block.contrast is None or (not isinstance(block.contrast, Indicators) and block.contrast.shape[1] <= NARROW)
