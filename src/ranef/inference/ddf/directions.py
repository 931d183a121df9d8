"""How the covariance V of a gaussian model moves with its parameters: first and second derivatives.

The parameters are those of the Laplace engine: entries of Lambda for "us" and "diag" terms (a variance may be zero),
the unconstrained parameters of structures, the coefficients of log sigma. Nothing of the size of V is formed: a
direction is a change of one term's Sigma, or a relative change of the residual variances.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ranef.engines.laplace import absorbed
from ranef.engines.linear import cells
from ranef.engines.parameters import EXPLICIT
from ranef.frame.design import Array, matrix
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.frame import Design
    from ranef.model import Fit

RESIDUAL = -1
NO_RESIDUAL = 1e-4  # a residual variance below this share of the largest effect's stands for none


@dataclass(frozen=True, slots=True)
class Direction:
    """A change of V.

    Attributes
    ----------
    term : int
        Whose covariance changes; `RESIDUAL`: the residual variances.
    change : (k, k) array, (n,) array or 0-d array
        Of Sigma; of the residual variances relative to what they are, by row or the same for all.
    """

    term: int
    change: Array


@dataclass(frozen=True, slots=True)
class Derivatives:
    """Derivatives of V in its parameters.

    Attributes
    ----------
    first : tuple of m Direction
    second : mapping
        (a, b), a >= b -> Direction; what is not there is zero.
    at : (m,) array
        Where the parameters stand in (beta, theta) of the estimate.
    """

    first: tuple[Direction, ...]
    second: Mapping[tuple[int, int], Direction]
    at: Array

    def bend(self, weights: Array) -> list[Direction]:
        """Return sum_ab weights_ab d2V / d a d b, one direction for each term that it has."""
        sums: dict[int, Array] = {}
        for (a, b), d in self.second.items():
            change = (1 if a == b else 2) * weights[a, b] * d.change
            sums[d.term] = sums[d.term] + change if d.term in sums else change
        return [Direction(term, np.asarray(change)) for term, change in sums.items()]


def derivatives(m: Fit, entries_of: str = "root") -> Derivatives:
    """Return the derivatives of V at the estimate of a fit of the Laplace engine.

    Parameters
    ----------
    m : Fit
    entries_of : "root" | "covariance"
        What the parameters of "us" and "diag" terms are: entries of Lambda, or of Sigma, in which V is linear and which
        have a derivative where a variance is 0.
    """
    design = design_of(m, "degrees of freedom")
    found = structure_derivatives(m)
    plain = [t for t, term in enumerate(design.terms) if term.structure in EXPLICIT]
    patterned = [t for t in range(len(design.terms)) if t not in plain]
    of_plain = _of_root if entries_of == "root" else of_covariance
    parts = [of_plain(t, m.estimate.roots[t], design.terms[t].structure) for t in plain]
    parts += [_of_pattern(t, *found[t]) for t in patterned]
    parts.append(_of_residual(m, design))
    first: list[Direction] = []
    second: dict[tuple[int, int], Direction] = {}
    for own, bends in parts:
        second |= {(a + len(first), b + len(first)): d for (a, b), d in bends.items()}
        first += own
    beta = len(m.estimate.beta)
    theta = beta + np.arange(len(m.theta))
    return Derivatives(tuple(first), second, np.concatenate([theta, dispersion_at(m)[: len(first) - len(theta)]]))


def structure_derivatives(m: Fit) -> dict[int, tuple[Array, Array]]:
    """Term -> first and second derivatives of its Sigma in the parameters of its structure, (m, k, k) the first."""
    core = getattr(m.core, "core", m.core)  # of a reduced model, where parameters are held
    return {t: (np.asarray(a), np.asarray(b)) for t, a, b in core.covariance_derivatives()}


Part = tuple[list[Direction], dict[tuple[int, int], Direction]]


def of_covariance(t: int, root: Array, structure: str) -> Part:
    """Sigma itself, whose entries are as many as those of Lambda."""
    first = []
    for row, column in cells(len(root), structure):
        change = np.zeros(root.shape)
        change[row, column] = change[column, row] = 1.0
        first.append(Direction(t, change))
    return first, {}


def _of_root(t: int, root: Array, structure: str) -> Part:
    """Sigma = Lambda Lambda'."""
    k, entries = len(root), cells(len(root), structure)
    first = []
    for row, column in entries:
        change = np.zeros((k, k))
        change[row] += root[:, column]
        change[:, row] += root[:, column]
        first.append(Direction(t, change))
    second = {}
    for a, (row, column) in enumerate(entries):
        for b, (other, same) in enumerate(entries[: a + 1]):
            if column == same:
                change = np.zeros((k, k))
                change[row, other] += 1.0
                change[other, row] += 1.0
                second[a, b] = Direction(t, change)
    return first, second


def _of_pattern(t: int, first: Array, second: Array) -> Part:
    pairs = [(a, b) for a in range(len(first)) for b in range(a + 1)]
    bends = {pair: Direction(t, d) for pair, d in zip(pairs, second, strict=True) if d.any()}
    return [Direction(t, d) for d in first], bends


def _of_residual(m: Fit, design: Design) -> Part:
    """sigma_i^2 = exp(2 d_i'gamma): derivatives relative to sigma_i^2."""
    columns = list(dispersion_columns(m, design))
    first = [Direction(RESIDUAL, 2 * d) for d in columns]
    pairs = [(a, b) for a in range(len(columns)) for b in range(a + 1)]
    return first, {(a, b): Direction(RESIDUAL, 4 * columns[a] * columns[b]) for a, b in pairs}


def dispersion_columns(m: Fit, design: Design) -> Iterator[Array]:
    """Yield the columns of log sigma whose coefficients were estimated; 1 for a constant.

    One constant that stands for next to nothing is left out: its derivative is lost to rounding, and it is known well.
    """
    part = next((c for c in design.others if c.name == "dispersion"), None)
    at = dispersion_at(m)
    if part is None or not len(at):
        return
    if part.names == ("(Intercept)",):
        if m.sigma**2 > NO_RESIDUAL * largest_variance(m):
            yield np.array(1.0)
        return
    first = m.layout.component("dispersion").first
    yield from matrix(part.fixed, design.n)[:, at - first].T


def largest_variance(m: Fit) -> float:
    """Return the largest variance of a random effect; 0 without any."""
    return max((float(np.diag(c).max()) for c in m.estimate.covariances), default=0.0)


def dispersion_at(m: Fit) -> Array:
    """Return the positions of the coefficients of log sigma that were estimated."""
    component = next((c for c in m.layout.components if c.name == "dispersion"), None)
    if component is None:
        return np.zeros(0, dtype=np.int64)
    at = np.arange(len(m.estimate.beta))[component.at]
    return at[~np.isnan(m.estimate.beta[at])]


def residual_variances(m: Fit, design: Design) -> Array:
    """sigma_i^2 of the rows, precision weights included, (n,)."""
    part = next(c for c in absorbed(design).others if c.name == "dispersion")
    eta = np.zeros(design.n) if part.offset is None else np.asarray(part.offset, dtype=np.float64)
    if part.names:
        beta = np.nan_to_num(m.estimate.beta[m.layout.component("dispersion").at])
        eta = eta + matrix(part.fixed, design.n) @ beta
    return np.exp(2 * eta)
