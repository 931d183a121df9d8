"""What an engine is asked: the distribution, the criterion, how to optimise; and what every engine can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines.control import Control
from ranef.engines.estimate import Array, Result
from ranef.errors import DataError
from ranef.families import Distribution
from ranef.priors import Prior

if TYPE_CHECKING:
    from ranef.frame import Block, Design, GroupTerm


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked of parameters beside the data: values, ties, priors; names are resolved by the engine.

    Attributes
    ----------
    fixed : tuple of (str, float)
        Parameter and value.
    equal : tuple of tuples of str
    priors : tuple of (str, Prior)
    firth : bool
        Whether the fixed effects have Jeffreys' prior.
    """

    fixed: tuple[tuple[str, float], ...] = ()
    equal: tuple[tuple[str, ...], ...] = ()
    priors: tuple[tuple[str, Prior], ...] = ()
    firth: bool = False


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
    wishes : Wishes or None
        Parameters held, tied, or with priors.
    variance : float or None
        The sigma^2 of quasi-likelihood, where it is held.
    """

    family: Distribution
    method: str
    quadrature: int
    control: Control
    linear: bool
    wishes: Wishes | None = None
    variance: float | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """Rows at which a linear predictor's variance is wanted: columns, random-effects terms (all of the fit's).

    `first` is the position of the component's first coefficient; `added` are the columns and first coefficients of
    further components, whose predictors are added to it, and `others` are those components.
    """

    fixed: Sequence[Block]
    terms: Sequence[GroupTerm]
    n: int
    component: int
    first: int
    added: tuple[tuple[Sequence[Block], int], ...] = ()
    others: tuple[int, ...] = ()


#: From the coefficients that were dropped to what separates a response, or None if that cannot be known.
Look = Callable[[Sequence[int]], Any]


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine, as functions. To add one: a module that makes such a record, and its row in `ranef.engines`.

    Attributes
    ----------
    estimate : (design, task, look=None) -> (core, result)
        Fit. The core answers `cond_cov(term)` later. `look` is asked before the search what separates the response,
        where the engine does not know that nothing does.
    again : (design, task) -> (core, result)
        Fit the same design with another response.
    many : (design, (n, m) responses, task, covariance=True) -> m results or texts
        Fit the same design with many responses; a text says why one failed. Without `covariance` results may have none.
    variance : (core, point, which) -> (n,) array
        Variance of x'beta_hat + z'(b_hat - b) from the joint covariance; which: terms whose effects are included.
    save : (core, result) -> anything that pickles
        What is left of the core without the rows.
    restore : (saved, result, design or None, task) -> core
    """

    name: str
    estimate: Callable[..., tuple[Any, Result]]
    again: Callable[[Design, Task], tuple[Any, Result]]
    many: Callable[..., list[Result | str]]
    variance: Callable[[Any, Point, Sequence[bool]], Array]
    save: Callable[[Any, Any], Any]
    restore: Callable[[Any, Any, Any, Task], Any]


def one_by_one(estimate: Callable[[Design, Task], tuple[Any, Result]]) -> Callable[..., list[Result | str]]:
    """Return an engine's `many` that fits the columns of `responses` (n, m) one after another."""

    def many(design: Design, responses: Array, task: Task, covariance: bool = True) -> list[Result | str]:  # noqa: ARG001
        out: list[Result | str] = []
        for y in responses.T:
            try:
                out.append(estimate(replace(design, y=np.ascontiguousarray(y)), task)[1])
            except DataError as error:
                out.append(str(error).splitlines()[0])
        return out

    return many
