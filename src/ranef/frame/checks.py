"""What a design must satisfy before a model can be fitted; the engines' floor calls it."""

from __future__ import annotations

import numpy as np

from ranef.errors import DataError
from ranef.frame.design import Design, GroupTerm


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
    """Refuse a constant response: it has nothing to explain."""
    if design.y is not None and design.n and design.y[0] == design.y[-1] and np.all(design.y == design.y[0]):
        raise DataError(f"response {design.response_name!r} is constant{_after(design)}")


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
    if levels * k >= design.n:
        message = (
            f"term ({' + '.join(term.names)} | {term.label}): {levels * k} random coefficients, {design.n} observations"
        )
        raise DataError(f"{message}{_after(design)}; drop columns from the term")


def check_covariances(design: Design, term: GroupTerm) -> None:
    """Refuse an unstructured covariance of more parameters than there are observations."""
    k = len(term.names)
    if term.structure == "us" and k * (k + 1) // 2 > design.n:
        shown = " + ".join(term.names[:3]) + (" + …" if k > 3 else "")
        message = f"term ({shown} | {term.label}): {k * (k + 1) // 2} covariance parameters, {design.n} observations"
        raise DataError(f"{message}{_after(design)}; write || or drop columns from the term")


def _after(design: Design) -> str:
    """Say what removal of missing values had to do with it."""
    if not design.dropped:
        return ""
    counts = ", ".join(f"{name!r}: {count}" for name, count in design.dropped.items())
    return f" (after {design.n_dropped} of {design.n_input} rows were dropped for missing values; {counts})"
