"""The linear mixed model: a `Design` goes to the core, an `Estimate` comes back.

Model (Bates et al. 2015): y = X beta + Z b + offset + e, b_t ~ N(0, I (x) sigma^2 Lambda_t Lambda_t'),
e_i ~ N(0, sigma^2 / w_i). A model without random effects takes the same path with no terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef import _core
from ranef.engines.control import Control
from ranef.engines.covariance import PartialCovariance
from ranef.engines.estimate import Array, Estimate, Result, from_core
from ranef.engines.task import Engine, Look, Point, Task
from ranef.engines.turns import in_turn
from ranef.errors import DataError, NotAvailableError, RanefError
from ranef.formula.functions import PLAIN
from ranef.frame import Indicators, check_linear

if TYPE_CHECKING:
    from ranef.frame import Block, Design, GroupTerm

EXACT = 1e-5  # a residual standard deviation below this share of the response's is none
LARGEST = 1e75  # of standard deviations and standard errors: degrees of freedom take fourth powers of them
LOOSE = 1e-6  # predicted change of the deviance at which another optimiser's answer counts as an optimum


def source(block: Block) -> tuple[Any, Any, Any]:
    """Return a block of columns as the core takes it."""
    contrast = block.contrast.shape if isinstance(block.contrast, Indicators) else block.contrast
    return block.codes, contrast, block.x


def sources(blocks: Sequence[Block]) -> list[tuple[Any, Any, Any]]:
    """Several blocks as the core takes them."""
    return [source(block) for block in blocks]


def term_sources(terms: Sequence[GroupTerm]) -> list[tuple[Any, int, str, list[tuple[Any, Any, Any]]]]:
    """Random-effects terms as the core takes them."""
    return [(t.codes, len(t.levels), t.structure, sources(t.blocks)) for t in terms]


def make_core(design: Design, y: Array | None = None, threads: int = 0) -> Any:
    """Hand the arrays of a design to the core, which accumulates its cross-products in one pass."""
    response = design.y if y is None else y
    rows = sources(design.fixed), term_sources(design.terms), response, design.weights, design.offset
    return in_turn(_core.Lmm(*rows, threads))


def with_dummies(design: Design) -> Design:
    """Return the design with the contrast matrices of its wide factors written out."""
    return replace(design, fixed=tuple(_dummies(block) for block in design.fixed))


def _dummies(block: Block) -> Block:
    c = block.contrast
    return replace(block, contrast=np.eye(c.levels)[:, c.levels - c.columns :]) if isinstance(c, Indicators) else block


def evaluated(design: Design, estimate: Result, reml: bool, threads: int = 0) -> tuple[Any, Array]:
    """Return the core of a design at the theta of an estimate of the same model, and the covariance of coefficients.

    Columns that the estimate lacks are made of zeros, so that they are those that are dropped here.
    """
    core = make_core(without_columns(design, estimate.dropped), threads=threads)
    theta, reml = np.array(estimate.theta), bool(reml)
    found = core.fit(reml, theta, {"max_evaluations": 1})
    core.evaluate(theta, reml)
    return core, np.asarray(found["vcov"]) * (estimate.sigma / found["sigma"]) ** 2


def without_columns(design: Design, columns: Sequence[int]) -> Design:
    """Return the design with zeros in the place of some columns of the fixed part."""
    gone, first, out = set(columns), 0, []
    for block in design.fixed:
        mine = [j for j in range(len(block.names)) if first + j in gone]
        first += len(block.names)
        out.append(_emptied(block, mine, design.n) if mine else block)
    return replace(design, fixed=tuple(out))


def _emptied(block: Block, columns: list[int], n: int) -> Block:
    if block.codes is None:
        return replace(block, x=np.zeros(n))
    contrast = np.array(block.contrast)
    contrast[:, columns] = 0.0
    return replace(block, contrast=contrast)


def restored(state: bytes, estimate: Estimate) -> Any:
    """Return the core of a fit from its saved cross-products, at the fit's optimum."""
    core = in_turn(_core.Lmm.from_state(state))
    core.evaluate(np.array(estimate.theta), estimate.reml)
    if isinstance(estimate.vcov, PartialCovariance):
        estimate.vcov.attach(core)
    return core


def solve(core: Any, design: Design, reml: bool, control: Control) -> Estimate:
    """Optimise the profiled criterion."""
    if control.optimizer == "newton" or not design.terms:
        start = None if control.start is None else np.array(control.start)
        return from_core(core.fit(reml, start, control.options), core, reml)
    from ranef.engines.optimizers import minimise

    found = minimise(core, reml, control, theta_lower(design.terms))
    at = core.fit(reml, canonical(found.theta, design.terms), {"max_evaluations": 1})
    estimate = from_core(at, core, reml, control.optimizer)
    outcome = "converged" if abs(estimate.decrease) < LOOSE else found.outcome
    return replace(estimate, evaluations=found.evaluations, iterations=found.iterations, outcome=outcome)


def estimate(design: Design, reml: bool, control: Control) -> tuple[Any, Estimate]:
    """Return the core and the estimate of one design.

    Raises
    ------
    DataError
        If the data cannot carry the model: no rows, constant response, more random coefficients than rows.
    NotAvailableError
        If a term has a covariance structure that this engine does not know.
    """
    check(design, control)
    try:
        core = make_core(design, threads=control.threads)
        check_rank(core, design)
        found = solve(core, design, reml, control)
    except ValueError as error:
        check_sizes(design)
        raise error if isinstance(error, RanefError) else DataError(str(error)) from error
    if out_of_range(found):
        check_sizes(design)
    if found.outcome != "converged":
        check_residual(found, design)
    return core, found


# ---- as an engine ----------------------------------------------------------------------------------------------------


def fit_task(design: Design, task: Task, _look: Look | None = None) -> tuple[Any, Estimate]:
    """`estimate`, as the record of engines has it."""
    return estimate(design, task.method == "reml", task.control)


def fit_again(design: Design, task: Task) -> tuple[Any, Estimate]:
    """Fit another response to a design that was checked before."""
    core = make_core(design, threads=task.control.threads)
    return core, solve(core, design, task.method == "reml", task.control)


def many(design: Design, responses: Array, task: Task, covariance: bool = True) -> list[Result | str]:  # noqa: ARG001
    """Fit the columns of `responses` (n, m) in parallel; cross-products and symbolic work are shared."""
    reml, control = task.method == "reml", task.control
    core = make_core(design, np.ascontiguousarray(responses[:, 0]), control.threads)
    check_rank(core, design)
    found = core.refit(
        np.asfortranarray(responses),
        sources(design.fixed),
        term_sources(design.terms),
        design.weights,
        design.offset,
        reml,
        control.options,
    )
    return [record if isinstance(record, str) else from_core(record, core, reml, at_optimum=False) for record in found]


def variance(core: Any, point: Point, which: Sequence[bool]) -> Array:
    """Variance of a linear predictor from the joint covariance of fixed and random effects."""
    return np.asarray(core.predict_var(sources(point.fixed), term_sources(point.terms), point.n, list(which)))


def save(core: Any, _found: Estimate) -> bytes:
    """Return the cross-products."""
    return core.moments_state()


def restore(saved: bytes, found: Estimate, _design: Any, _task: Task) -> Any:
    """`restored`, as the record of engines has it."""
    return restored(saved, found)


ENGINE = Engine("linear", fit_task, fit_again, many, variance, save, restore)


# ---- theta -----------------------------------------------------------------------------------------------------------


def cells(k: int, structure: str) -> list[tuple[int, int]]:
    """Positions (row, column) in Lambda of the entries of theta of one term, in order."""
    return [(i, j) for j in range(k) for i in range(j, k) if structure == "us" or i == j]


def theta_lower(terms: Sequence[GroupTerm]) -> Array:
    """Lower bounds: 0 for diagonal entries of Lambda, -inf for the others."""
    return np.array([0.0 if i == j else -np.inf for t in terms for i, j in cells(len(t.names), t.structure)])


def canonical(theta: Array, terms: Sequence[GroupTerm]) -> Array:
    """Flip the signs of columns of Lambda so that its diagonal is not negative: Lambda Lambda' stays the same."""
    out, first = np.array(theta, dtype=float), 0
    for term in terms:
        places = cells(len(term.names), term.structure)
        part = out[first : first + len(places)]
        sign = {j: np.sign(v) or 1.0 for v, (i, j) in zip(part, places, strict=True) if i == j}
        part *= [sign[j] for _, j in places]
        first += len(places)
    return out


# ---- what a design must satisfy --------------------------------------------------------------------------------------


def check(design: Design, control: Control) -> None:
    """Raise what would otherwise surface as a numerical failure; microseconds."""
    for term in design.terms:
        if term.structure not in PLAIN:
            raise structure_error(term)
    check_linear(design)
    if control.start is not None:
        check_start(control.start, design)


def structure_error(term: GroupTerm) -> NotAvailableError:
    """Say that the engine lacks a covariance structure."""
    inside = f"{' + '.join(term.names)} | {term.label}"
    return NotAvailableError(
        f"covariance structure {term.structure!r} of ({inside}) is not available yet; "
        f"use an unstructured (x | g) or a diagonal (x || g) one"
    )


def check_start(start: tuple[float, ...], design: Design) -> None:
    """Start values are one per theta."""
    needed = len(theta_lower(design.terms))
    if len(start) != needed:
        raise DataError(f"control: start has {len(start)} values, the model has {needed} theta parameters")


def check_residual(found: Estimate, design: Design) -> None:
    """Where the random effects explain every row, the criterion has no minimum."""
    if found.sigma <= EXACT * float(np.std(np.asarray(design.y))):
        raise DataError("the model fits the response exactly: no residual variance is left")


def out_of_range(found: Estimate) -> bool:
    """Whether squares of variances may have left the range of doubles, or a column counts as 0 since its own have."""
    vcov = found.vcov.dense if isinstance(found.vcov, PartialCovariance) else found.vcov
    variances = [found.sigma**2, *vcov.diagonal().tolist()]
    return bool(found.dropped) or min(variances) < LARGEST**-2 or max(variances) > LARGEST**2


def check_sizes(design: Design) -> None:
    """Refuse the units of a response or a column that lead there."""
    columns = [(f"column {b.names[0]!r}", b.x) for b in design.fixed if b.x is not None and b.codes is None]
    for what, x in ((f"response {design.response_name!r}", design.y), *columns):
        largest = float(np.abs(np.asarray(x)).max())
        if 0 < largest < 1 / LARGEST or largest > LARGEST:
            raise DataError(
                f"{what} has values of {largest:.3g} at most; beyond {1 / LARGEST:g} and {LARGEST:g} squares of "
                f"variances are 0 or infinite to a computer: give it in other units, multiplied by a power of ten"
            )


def check_rank(core: Any, design: Design) -> None:
    """There must be more rows than independent fixed effects."""
    if core.rank >= design.n:
        raise DataError(
            f"{core.rank} independent fixed effects, {design.n} observations: nothing is left to estimate the residual "
            f"variance; simplify the fixed part"
        )
