"""What an engine returns: the `Estimate` and the certificate that it is an optimum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Outcome(Enum):
    """How the optimisation ended; the value is the sentence a user reads."""

    converged = "converged: the certificate holds"
    max_evaluations = "stopped at the allowed number of evaluations before the certificate held"
    stalled = "stopped because no step lowered the criterion, although the certificate does not hold"


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """A linear mixed model at the optimum of its criterion. Arrays are read-only.

    Attributes
    ----------
    theta : (m,) array
        Entries of the relative factors Lambda (free of sigma), per term the lower triangle by columns (diagonal
        entries only for structure "diag"); diagonal entries are >= 0.
    criterion : float
        -2 log-likelihood (ML) or REML criterion, with all constants.
    reml : bool
        Which of the two.
    beta : (p,) array
        Fixed effects; NaN where the column was dropped as linearly dependent.
    vcov : (p, p) array
        Covariance of `beta`, sigma^2 (X'V^-1X)^-1; NaN in rows and columns dropped.
    sigma, pwrss : float
        Residual standard deviation (of an observation of weight 1); penalised weighted residual sum of squares.
    factors : tuple of (k, k) arrays
        Lambda of each term: the covariance of its random effects is sigma^2 Lambda Lambda'.
    modes : tuple of (L, k) arrays
        Conditional modes b of each term, original scale.
    n, rank : int
        Rows used; rank of X.
    dropped : tuple of int
        Fixed columns dropped.
    outcome : str
        Name of an `Outcome`.
    evaluations, iterations : int
        Evaluations of the criterion (factorisations), iterations of the optimiser.
    gradient : (m,) array
        d criterion / d theta at the optimum.
    decrease : float
        Predicted change of the criterion by one more step: the larger of what the search's own model promises under
        its constraints and g'H^-1 g / 2 on the free subspace (variances that are not held at zero, and the turning of
        zero directions into others).
    curvature : float
        Smallest eigenvalue of the observed relative to the average information on the free subspace, where turning a
        zero direction costs its multiplier.
    multipliers : tuple
        Boundary multipliers: the slope of the criterion in each variance held at 0.
    boundary : tuple of (int, str, int)
        (term, "variance" | "correlation", rank of Sigma) for every term whose covariance is singular.
    optimizer : str
        Which optimiser found it.
    """

    theta: Array
    criterion: float
    reml: bool
    beta: Array
    vcov: Array
    sigma: float
    pwrss: float
    factors: tuple[Array, ...]
    modes: tuple[Array, ...]
    n: int
    rank: int
    dropped: tuple[int, ...]
    outcome: str
    evaluations: int
    iterations: int
    gradient: Array
    decrease: float
    curvature: float
    multipliers: tuple[Any, ...]
    boundary: tuple[tuple[int, str, int], ...]
    optimizer: str = "newton"

    @property
    def npar(self) -> int:
        """Parameters estimated: fixed effects, theta and sigma."""
        return self.rank + len(self.theta) + 1

    @property
    def covariances(self) -> tuple[Array, ...]:
        """Covariance matrix of the random effects of each term, sigma^2 Lambda Lambda'."""
        return tuple(self.sigma**2 * (factor @ factor.T) for factor in self.factors)


@dataclass(frozen=True, slots=True)
class Certificate:
    """Evidence that a fit is a local optimum, in metrics free of the data's units.

    First order: nothing is gained on the free subspace, and variances at zero have slopes that keep them there. Second
    order: the criterion curves upwards, or trial steps both ways along the flattest direction gained nothing. A point
    that fails is not returned as converged: the search leaves it along the direction found.

    Attributes
    ----------
    outcome : Outcome
        How the optimisation ended; `outcome.value` is a sentence.
    holds : bool
        Whether the optimum is certified.
    decrease : float
        Predicted change of the deviance by one more step.
    gradient : float
        Largest absolute derivative of the criterion with respect to theta.
    curvature : float
        Smallest eigenvalue of the observed relative to the average information on the free subspace; positive at a
        minimum.
    multipliers : tuple
        Slopes of the criterion in the variances estimated 0, per unit of dimensionless variance (1: as much signal as
        noise in a mean level); all positive at a minimum.
    evaluations, iterations : int
        Work done.
    optimizer : str
        Which optimiser did it.
    """

    outcome: Outcome
    holds: bool
    decrease: float
    gradient: float
    curvature: float
    multipliers: tuple[Any, ...]
    evaluations: int
    iterations: int
    optimizer: str


def certificate(estimate: Estimate) -> Certificate:
    """Return the certificate of an estimate."""
    return Certificate(
        outcome=Outcome[estimate.outcome],
        holds=estimate.outcome == "converged",
        decrease=estimate.decrease,
        gradient=float(np.abs(estimate.gradient).max(initial=0.0)),
        curvature=estimate.curvature,
        multipliers=estimate.multipliers,
        evaluations=estimate.evaluations,
        iterations=estimate.iterations,
        optimizer=estimate.optimizer,
    )


def frozen(array: Any) -> Array:
    """Return the array, read-only."""
    out = np.asarray(array, dtype=np.float64)
    out.flags.writeable = False
    return out


def from_core(found: Mapping[str, Any], core: Any, reml: bool, optimizer: str = "newton") -> Estimate:
    """Turn the core's record of a fit into an `Estimate`."""
    return Estimate(
        theta=frozen(found["theta"]),
        criterion=float(found["criterion"]),
        reml=reml,
        beta=frozen(found["beta"]),
        vcov=frozen(found["vcov"]),
        sigma=float(found["sigma"]),
        pwrss=float(found["pwrss"]),
        factors=tuple(map(frozen, found["lambda"])),
        modes=tuple(map(frozen, found["b"])),
        n=core.n,
        rank=core.rank,
        dropped=tuple(core.dropped),
        outcome=found["outcome"],
        evaluations=int(found["evaluations"]),
        iterations=int(found["iterations"]),
        gradient=frozen(found["gradient"]),
        decrease=float(found["decrease"]),
        curvature=float(found["curvature"]),
        multipliers=tuple(found["multipliers"]),
        boundary=tuple(found["boundary"]),
        optimizer=optimizer,
    )
