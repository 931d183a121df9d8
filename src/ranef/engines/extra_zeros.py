"""Where to search again once all extra zeros are gone: the likelihood may have another optimum that has some.

It is flat where no row has extra zeros, and what leads away from there may be zeros of a few rows alone (those with
small x), which the usual start, equal for all rows, does not show. Where the zeros of the response lie shows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines.covariance import Array
from ranef.engines.runaways import LIMIT, NO_IDEA
from ranef.frame.design import matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ranef.frame.design import Component, Design

NAME = "zero_inflation"
STEPS = 8  # of Newton's method: a start needs no more digits
LITTLE = 1e-3  # information that keeps coefficients finite where the zeros are separated
STEEPEST = 30.0  # predictor beyond which a probability is 0 or 1


def restart(record: Any, parts: Sequence[Component], design: Design) -> dict[str, Any] | None:
    """Return a start for another search where one ended without extra zeros in any row; None elsewhere.

    A probability that is the same for all rows has no other optimum to show: nothing distinguishes the rows.
    """
    at, own = place(parts)
    if at is None or own.stop - own.start < 2 or record["outcome"] != "converged":
        return None
    if not record["reach"][at][1] < -LIMIT:
        return None
    beta = np.array(record["beta"])
    beta[own] = of_zeros(parts[at], design)
    return {"beta": beta, "theta": np.asarray(record["theta"])}


def place(parts: Sequence[Component]) -> tuple[int | None, slice]:
    """Return which predictor is that of the extra zeros, if any, and where its coefficients are."""
    at = next((k for k, part in enumerate(parts) if part.name == NAME), None)
    first = sum(len(part.names) for part in parts[:at])
    return at, slice(first, first + (0 if at is None else len(parts[at].names)))


def known(vcov: Array, parts: Sequence[Component]) -> bool:
    """Tell whether an optimum is one inside: to be certain of zeros at one end of a covariate always gains a bit."""
    return bool(np.all(np.sqrt(np.diag(vcov)[place(parts)[1]]) < NO_IDEA))


def of_zeros(part: Component, design: Design) -> Array:
    """Return the coefficients of a logistic regression of whether the response is 0."""
    x = matrix(part.fixed, design.n)
    zero = np.asarray(design.y) == 0
    rows = np.ones(design.n) if design.frequencies is None else np.asarray(design.frequencies)
    offset = np.zeros(design.n) if part.offset is None else part.offset
    beta = np.zeros(x.shape[1])
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ beta + offset, -STEEPEST, STEEPEST)))
        information = x.T @ (x * (rows * p * (1 - p))[:, None])
        information[np.diag_indices_from(information)] *= 1 + LITTLE
        beta += np.linalg.lstsq(information, x.T @ (rows * (zero - p)), rcond=None)[0]
    return beta
