"""Floor 3: arrays in, an estimate out. One module per engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ranef.engines import constrained, laplace, linear, pql
from ranef.engines.control import Control, make_control
from ranef.engines.estimate import Certificate, Estimate, LaplaceEstimate, Outcome, Result
from ranef.engines.task import Engine, Point, Task, Wishes
from ranef.families import Distribution
from ranef.formula.functions import PLAIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ranef.formula import Formula
    from ranef.frame import Design, Part

__all__ = [
    "Certificate",
    "Control",
    "Engine",
    "Estimate",
    "LaplaceEstimate",
    "Outcome",
    "Point",
    "Result",
    "Task",
    "Wishes",
    "coefficients_of",
    "engine_of",
    "is_linear",
    "make_control",
]


def is_linear(family: Distribution, formula: Formula, parts: Sequence[Part], frequencies: object = None) -> bool:
    """Whether the linear engine has the likelihood: gaussian, identity link, one residual variance, us and diag terms.

    A structure that no engine knows is left to the linear one, which says so.
    """
    if not family.is_gaussian_identity or frequencies is not None:
        return False
    structures = {bar.structure for bar in formula.bars}
    patterned = not structures <= set(PLAIN) and structures <= set(laplace.STRUCTURES)
    return not patterned and all(part.formula is not None and part.formula.is_constant for part in parts)


def engine_of(task: Task) -> Engine:
    """Return the engine that a task is for."""
    if task.method == "pql":
        return pql.ENGINE
    if task.linear:
        return linear.ENGINE
    return laplace.ENGINE if task.wishes is None else constrained.ENGINE


def coefficients_of(design: Design, task: Task) -> list[tuple[str, tuple[str, ...]]]:
    """Return (component, names of its coefficients) in the order of the coefficients."""
    return laplace.layout(design, task.family)
