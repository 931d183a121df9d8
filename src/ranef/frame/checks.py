"""What a design must satisfy before a model can be fitted; the engines' floor calls it."""

from __future__ import annotations

import numpy as np

from ranef.errors import DataError
from ranef.frame.design import Array, Design, GroupTerm, matrix, why_dropped
from ranef.frame.kernels import is_constant
from ranef.frame.outcomes import has_counts

INSIDE = ("ordered_beta", "zero_one_inflated_beta")  # families that tell 0 and 1 from the proportions between them
WIDE = 10.0  # an offset that spans this on the log scale would mean exposures that differ 22,000-fold
#: Link -> what is proportional to exp(offset) under it.
PROPORTIONAL = {"log": "the response", "cloglog": "the hazard, -log(1 - mean),"}


def unlogged_offset(design: Design, link: str) -> str | None:
    """Return what is said of an offset of `PROPORTIONAL` that looks like an exposure, not like its logarithm."""
    offset, name = design.offset, design.offset_name
    if link not in PROPORTIONAL or offset is None or not is_wide(offset):
        return None
    of, it = (f"offset {name}", name) if name else ("the offset", "offset")
    return (
        f"{of} spans {offset.min():.4g} to {offset.max():.4g}: with a {link} link {PROPORTIONAL[link]} is proportional "
        f"to exp({it}); offset(log({it})) makes it proportional to {it}"
    )


def is_wide(offset: Array) -> bool:
    """Whether an offset can hardly be a logarithm: none of its values is negative, and they span too much."""
    return bool(offset.min() >= 0 and np.ptp(offset) > WIDE)


def too_few_inside(design: Design, family: str) -> int | None:
    """Return how many proportions lie strictly between 0 and 1 if a dispersion cannot be estimated from them.

    There are none, or the mean can fit all of them exactly, as their rows of X are linearly independent: the likelihood
    rises for ever as the precision grows.
    """
    estimated = any(c.name == "dispersion" and c.names for c in design.components)
    if family not in INSIDE or not estimated or design.y is None:
        return None
    y, mean = np.asarray(design.y), design.components[0]
    at = np.flatnonzero((y > 0) & (y < 1))
    if len(at) > len(mean.names):
        return None
    rank = int(np.linalg.matrix_rank(matrix(mean.fixed, design.n)[at])) if len(at) else 0
    return len(at) if rank == len(at) else None


def check_linear(design: Design) -> None:
    """Check a design for a gaussian model with a residual variance.

    Raises
    ------
    DataError
        If the response is constant, a grouping has one level, a term has as many levels or coefficients as there are
        observations (its variance and the residual one cannot be told apart), or fewer rows than fixed effects remain.
    """
    check_response(design)
    for term in design.terms:
        check_levels(design, term)
        check_coefficients(design, term)


def check_response(design: Design) -> None:
    """Refuse a constant response: it has nothing to explain. Counts of categories are looked at as outcomes."""
    if design.y is not None and design.n and not has_counts(design) and is_constant(design.y):
        raise DataError(f"response {design.response_name!r} is constant{_after(design)}")


#: Sizes of a response within which searches on the scale of a parameter are exact, and what is meant by size.
SIZES = {"real": (3e-9, 3e9, "standard deviation"), "positive": (1e-15, 1e15, "median")}


def check_units(design: Design, support: str) -> None:
    """Refuse the units of a continuous response in which a search would end anywhere."""
    if design.y is None or support not in SIZES:
        return
    low, high, what = SIZES[support]
    y = np.asarray(design.y, float)
    size = float(np.std(y) if support == "real" else np.median(y))
    if size > 0 and not low < size < high:
        raise DataError(
            f"response {design.response_name!r} has a {what} of {size:.3g}; below {low:g} and above {high:g} searches "
            f"are not exact: give it in other units, multiplied by a power of ten"
        )


def check_levels(design: Design, term: GroupTerm) -> None:
    """Refuse a grouping of one level: a variance between groups needs two groups."""
    if len(term.levels) < 2:
        only = f"one level, {term.levels[0]!r}," if len(term.levels) else "no level"
        message = f"grouping {term.label!r} has {only} in the {design.n} rows used{_after(design)}"
        raise DataError(f"{message}; a variance between groups needs two or more")


def check_coefficients(design: Design, term: GroupTerm) -> None:
    """With as many coefficients as observations, the term explains every row by itself."""
    levels, k = len(term.levels), len(term.names)
    if levels >= design.n:
        message = f"grouping {term.label!r} has {levels} levels for {design.n} observations{_after(design)}"
        raise DataError(f"{message}: its variance cannot be told from the residual one")
    if term.structure == "diag":  # every column has a variance of its own, as if it were a term of its own
        if k > 1 and _single_cells(term):
            message = f"term ({_shown(term)} || {term.label}) has no two rows of one level and column"
            raise DataError(f"{message}{_after(design)}: its variances cannot be told from the residual one")
    elif levels * k >= design.n:
        message = f"term ({_shown(term)} | {term.label}): {levels * k} random coefficients, {design.n} observations"
        raise DataError(f"{message}{_after(design)}; drop columns from the term, or write ||")


def _shown(term: GroupTerm) -> str:
    return " + ".join(term.names[:3]) + (" + …" if len(term.names) > 3 else "")


def check_covariances(design: Design, term: GroupTerm) -> None:
    """Refuse an unstructured covariance of more parameters than there are observations."""
    k = len(term.names)
    if term.structure == "us" and k * (k + 1) // 2 > design.n:
        message = (
            f"term ({_shown(term)} | {term.label}): {k * (k + 1) // 2} covariance parameters, {design.n} observations"
        )
        raise DataError(f"{message}{_after(design)}; write || or drop columns from the term")


#: What a structure's covariance and a residual variance tell together, where no cell has two rows: Sigma + sigma^2 I is
#: a covariance of the same structure, so that only these functions of the parameters are in the likelihood.
ABSORBING = {
    "homcs": "sd^2 cor and sd^2 + sigma^2",
    "homdiag": "sd^2 + sigma^2",
    "homtoep": "sd^2 times each correlation and sd^2 + sigma^2",
    "us": "the covariances and sd^2 + sigma^2 of each column",
    "diag": "sd^2 + sigma^2 of each column",
}


def absorbed_residual(design: Design) -> tuple[GroupTerm, str] | None:
    """Return a term of a gaussian model that a residual variance cannot be told from, and why; None if there is none.

    Such a term is made of indicators of columns, of which no level has two rows.
    """
    dispersion = next((c for c in design.others if c.name == "dispersion"), None)
    if dispersion is None or dispersion.names != ("(Intercept)",) or dispersion.offset is not None:
        return None
    for term in design.terms:
        if term.structure in ABSORBING and term.component == 0 and not term.owners and _single_cells(term):
            bar = f"{term.structure}(… | {term.label})"
            return term, (
                f"{bar} has no two rows of one level and column, so that its variance and the residual one cannot be "
                f"told apart: the data tell {ABSORBING[term.structure]} only; write dispersion='~ 0', or hold one of "
                f"them, fixed={{'sigma': …}}"
            )
    return None


def _single_cells(term: GroupTerm) -> bool:
    if len(term.blocks) != 1 or term.relation is not None:
        return False
    block, k = term.blocks[0], len(term.names)
    if block.codes is None or block.contrast is None or block.x is not None or k < 2:
        return False
    if block.contrast.shape != (k, k) or not np.array_equal(block.contrast, np.eye(k)):
        return False
    cells = np.asarray(term.codes, np.int64) * k + np.asarray(block.codes)
    return bool(np.bincount(cells).max(initial=0) <= 1)


def _after(design: Design) -> str:
    """Say what removal of missing values had to do with it."""
    if not design.dropped:
        return ""
    counts = ", ".join(f"{name!r}: {count}" for name, count in design.dropped.items())
    return (
        f" (after {design.n_dropped} of {design.n_input} rows were dropped for {why_dropped(design.dropped)}; {counts})"
    )
