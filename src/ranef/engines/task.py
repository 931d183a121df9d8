"""What an engine is asked: the distribution, the criterion, how to optimise; and what every engine can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ranef.engines.control import Control
from ranef.engines.estimate import Array, Result
from ranef.families import Distribution

if TYPE_CHECKING:
    from ranef.frame import Block, Design, GroupTerm


@dataclass(frozen=True, slots=True)
class Task:
    """A question to an engine.

    Attributes
    ----------
    family : Distribution
    method : str
        "reml", "ml" or "pql".
    quadrature : int
        1: Laplace; 0: modes of coefficients and random effects jointly (lme4's nAGQ = 0); k: adaptive Gauss-Hermite.
    control : Control
    linear : bool
        Whether the linear engine has the likelihood.
    """

    family: Distribution
    method: str
    quadrature: int
    control: Control
    linear: bool


@dataclass(frozen=True, slots=True)
class Point:
    """Rows at which a linear predictor's variance is wanted: columns, random-effects terms (all of the fit's).

    `first` is the position of the component's first coefficient; `added` are the columns and first coefficients of
    further components, whose predictors are added to it.
    """

    fixed: Sequence[Block]
    terms: Sequence[GroupTerm]
    n: int
    component: int
    first: int
    added: tuple[tuple[Sequence[Block], int], ...] = ()


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine, as functions. To add one: a module that makes such a record, and its row in `ranef.engines`.

    Attributes
    ----------
    estimate : (design, task) -> (core, result)
        Fit. The core answers `cond_cov(term)` later.
    again : (design, task) -> (core, result)
        Fit the same design with another response.
    many : (design, (n, m) responses, task) -> m results or texts
        Fit the same design with many responses; a text says why one failed.
    variance : (core, point, which) -> (n,) array
        Variance of x'beta_hat + z'(b_hat - b) from the joint covariance; which: terms whose effects are included.
    save : (core, result) -> anything that pickles
        What is left of the core without the rows.
    restore : (saved, result, design or None, task) -> core
    """

    name: str
    estimate: Callable[[Design, Task], tuple[Any, Result]]
    again: Callable[[Design, Task], tuple[Any, Result]]
    many: Callable[[Design, Array, Task], list[Result | str]]
    variance: Callable[[Any, Point, Sequence[bool]], Array]
    save: Callable[[Any, Any], Any]
    restore: Callable[[Any, Any, Any, Task], Any]
