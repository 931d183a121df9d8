"""What an engine returns: an estimate and the certificate that it is an optimum.

`Estimate` is a linear mixed model's, `LaplaceEstimate` that of every other likelihood. Both answer the same questions
(`Result`), on the same scales, so that nobody above asks which engine it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import numpy as np

from ranef.engines.covariance import Array, Deferred, coefficient_covariance, frozen
from ranef.engines.overlap import Separated


class Outcome(Enum):
    """How the optimisation ended; the value is the sentence a user reads."""

    converged = "converged: the certificate holds"
    max_evaluations = "stopped at the allowed number of evaluations before the certificate held"
    stalled = "stopped because no step lowered the criterion, although the certificate does not hold"
    unbounded = "stopped where the likelihood has no bound: it rises for ever"
    flat_mode = (
        "stopped where Laplace's approximation breaks down: the criterion falls towards parameters at which the "
        "conditional mode of some random effects is flat"
    )


class Result(Protocol):
    """What floors above may ask of any estimate."""

    @property
    def theta(self) -> Array:
        """Covariance parameters."""
        ...

    @property
    def beta(self) -> Array:
        """Coefficients of all components; NaN where dropped."""
        ...

    @property
    def vcov(self) -> Array:
        """Covariance matrix of `beta`."""
        ...

    @property
    def loglik(self) -> float:
        """Log-likelihood."""
        ...

    @property
    def criterion(self) -> float:
        """-2 log-likelihood or REML criterion, with -2 log prior where there are priors."""
        ...

    @property
    def sigma(self) -> float:
        """The dispersion as glmmTMB's `sigma()`: 1 where the family has none, NaN where it varies between rows."""
        ...

    @property
    def roots(self) -> tuple[Array, ...]:
        """Roots R of the covariance matrices of the random effects, absolute: Sigma = R R'."""
        ...

    @property
    def covariances(self) -> tuple[Array, ...]:
        """Covariance matrices of the random effects of each term, absolute."""
        ...

    @property
    def modes(self) -> tuple[Array, ...]:
        """Conditional modes b of each term, (L, k)."""
        ...

    @property
    def natural(self) -> tuple[tuple[int, str, int | None, float], ...]:
        """Parameters of covariance structures as (term, name, column or lag, value)."""
        ...

    @property
    def tests(self) -> str:
        """Return "t" where coefficients have degrees of freedom, "z" where only large samples are known."""
        ...

    @property
    def reach(self) -> tuple[tuple[float, float], ...]:
        """Return the smallest and largest value of each predictor without the random effects, where they are known."""
        ...

    @property
    def n(self) -> int:
        """Rows used."""
        ...

    @property
    def npar(self) -> int:
        """Parameters estimated."""
        ...

    @property
    def rank(self) -> int:
        """Coefficients estimated."""
        ...

    @property
    def dropped(self) -> tuple[int, ...]:
        """Coefficients dropped as linearly dependent."""
        ...

    @property
    def held(self) -> tuple[int, ...]:
        """Coefficients held at a value."""
        ...

    @property
    def outcome(self) -> str:
        """Name of an `Outcome`."""
        ...

    @property
    def evaluations(self) -> int:
        """Evaluations of the criterion."""
        ...

    @property
    def iterations(self) -> int:
        """Iterations of the optimiser."""
        ...

    @property
    def gradient(self) -> Array:
        """Gradient at the optimum."""
        ...

    @property
    def decrease(self) -> float:
        """Predicted change by one more Newton step."""
        ...

    @property
    def curvature(self) -> float:
        """Smallest relative eigenvalue of the information."""
        ...

    @property
    def multipliers(self) -> tuple[Any, ...]:
        """Slopes in the variances held at 0."""
        ...

    @property
    def boundary(self) -> tuple[tuple[int, str, int], ...]:
        """(term, kind, rank) of every singular covariance."""
        ...

    @property
    def optimizer(self) -> str:
        """Which optimiser found it."""
        ...

    @property
    def separated(self) -> Separated | None:
        """What was found before the search of columns whose estimates are infinite; None where nobody looked."""
        ...


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
    vcov : (p, p) array, or PartialCovariance
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
    known_sigma : bool
        Whether sigma was given, not estimated.
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
    known_sigma: bool = False

    @property
    def npar(self) -> int:
        """Parameters estimated: fixed effects, theta and, unless it is known, sigma."""
        return self.rank + len(self.theta) + (not self.known_sigma)

    @property
    def held(self) -> tuple[int, ...]:
        """Nothing is held here."""
        return ()

    @property
    def natural(self) -> tuple[tuple[int, str, int | None, float], ...]:
        """Linear models have no structures with parameters of their own."""
        return ()

    @property
    def tests(self) -> str:
        """Coefficients have t tests."""
        return "t"

    @property
    def reach(self) -> tuple[tuple[float, float], ...]:
        """Not known, as in `LaplaceEstimate`."""
        return ()

    @property
    def separated(self) -> Separated | None:
        """Linear models are not separated."""
        return None

    @property
    def loglik(self) -> float:
        """Log-likelihood; the restricted one for REML."""
        return -self.criterion / 2

    @property
    def roots(self) -> tuple[Array, ...]:
        """Sigma Lambda of each term: a root of the covariance of its random effects."""
        return tuple(self.sigma * factor for factor in self.factors)

    @property
    def covariances(self) -> tuple[Array, ...]:
        """Covariance matrix of the random effects of each term, sigma^2 Lambda Lambda'."""
        return tuple(self.sigma**2 * (factor @ factor.T) for factor in self.factors)


@dataclass(frozen=True, slots=True)
class Lost:
    """Stands for the estimate of a search that failed, or was not made: every coefficient may have run off.

    Attributes
    ----------
    size : int
        How many coefficients there are.
    dropped : tuple of int
        Those that are linearly dependent.
    """

    size: int
    dropped: tuple[int, ...] = ()
    outcome: str = "failed"
    separated: Separated | None = None
    reach: tuple[tuple[float, float], ...] = ()

    @property
    def beta(self) -> Array:
        """Infinite coefficients."""
        return np.full(self.size, np.inf)

    @property
    def vcov(self) -> Array:
        """Their infinite variances."""
        return np.full((self.size, self.size), np.inf)


@dataclass(frozen=True, slots=True, eq=False)
class SmallSample:
    """What a fit without rows keeps of its degrees of freedom.

    Attributes
    ----------
    reason : str
        Why there are none; empty where there are.
    vcov : (p, p) array
        (X'V^-1X)^-1.
    slopes : (m, p, p) array
        d vcov / d (variance parameter).
    spread : (m, m) array
        Asymptotic covariance of the variance parameters.
    """

    reason: str
    vcov: Array
    slopes: Array
    spread: Array


@dataclass(frozen=True, slots=True, eq=False)
class LaplaceEstimate:
    """A generalised or distributional mixed model at the optimum of its likelihood. Arrays are read-only.

    Attributes
    ----------
    theta : (m,) array
        Entries of the ABSOLUTE factors Lambda (Sigma = Lambda Lambda'), per term as in `Estimate.theta`.
    loglik : float
        Log-likelihood with all constants; of the Laplace approximation unless `method` says otherwise.
    reml : bool
        Whether the coefficients of the mean were integrated out.
    beta : (p,) array
        Coefficients of all components, the mean's first; NaN where dropped.
    joint : Deferred
        Covariance matrix of (beta, theta), the inverse of the exact Hessian of -loglik; NaN where not identified.
    told : Deferred
        The part of it of `beta`, NaN also for coefficients that ran to the end of a parameter's range.
    sigma : float
        The dispersion as glmmTMB's `sigma()`.
    factors, modes : tuples of (k, k) and (L, k) arrays
        Lambda and the conditional modes b of each term.
    n, rank : int
        Rows used; coefficients estimated.
    inner : int
        Newton iterations for the modes, all evaluations together.
    natural : tuple of (int, str, int or None, float)
        Parameters of covariance structures as a reader expects them (sd, cor, rate, range): term, name, which column
        (of "cor": which lag), value.
    dropped, outcome, evaluations, iterations, gradient, decrease, curvature, multipliers, boundary, optimizer
        As in `Estimate`; the gradient is that over (beta, theta).
    penalty : float
        -2 log density of the priors.
    parameters : int or None
        Parameters estimated, where some are held or tied.
    held : tuple of int
        Coefficients held at a value.
    held_spread : tuple of (int, str, int or None)
        Covariance parameters held at a value: term, "sd", "cor" …, which one (of "cor": row + k column).
    small_sample : SmallSample or None
        Of a fit without rows.
    pole : float or None
        Log-likelihood at the pole of Laplace's approximation where a first search ended; None: there was none.
    unbounded : bool
        Whether the likelihood was seen to rise for ever, towards a singular covariance without a residual.
    reach : tuple of (float, float)
        Smallest and largest value of each of the core's predictors without the random effects; empty where the core did
        not say.
    separated : Separated or None
        What was found before the search of columns whose estimates are infinite; None where nobody looked.
    """

    theta: Array
    loglik: float
    reml: bool
    beta: Array
    joint: Deferred
    told: Deferred
    sigma: float
    factors: tuple[Array, ...]
    modes: tuple[Array, ...]
    n: int
    rank: int
    dropped: tuple[int, ...]
    outcome: str
    evaluations: int
    inner: int
    iterations: int
    gradient: Array
    decrease: float
    curvature: float
    multipliers: tuple[Any, ...]
    boundary: tuple[tuple[int, str, int], ...]
    optimizer: str = "newton"
    natural: tuple[tuple[int, str, int | None, float], ...] = ()
    penalty: float = 0.0
    parameters: int | None = None
    held: tuple[int, ...] = ()
    held_spread: tuple[tuple[int, str, int | None], ...] = ()
    small_sample: SmallSample | None = None
    pole: float | None = None
    unbounded: bool = False
    reach: tuple[tuple[float, float], ...] = ()
    separated: Separated | None = None

    @property
    def tests(self) -> str:
        """Coefficients have z tests."""
        return "z"

    @property
    def criterion(self) -> float:
        """-2 log-likelihood, with the penalty."""
        return -2 * self.loglik + self.penalty

    @property
    def npar(self) -> int:
        """Parameters estimated: coefficients of all components and theta."""
        return self.rank + len(self.theta) if self.parameters is None else self.parameters

    @property
    def vcov(self) -> Array:
        """Covariance matrix of `beta`; NaN in rows and columns dropped, not identified or at the end of a range."""
        return self.told()

    @property
    def roots(self) -> tuple[Array, ...]:
        """Lambda of each term."""
        return self.factors

    @property
    def covariances(self) -> tuple[Array, ...]:
        """Covariance matrix of the random effects of each term."""
        return tuple(factor @ factor.T for factor in self.factors)


@dataclass(frozen=True, slots=True)
class Certificate:
    """Evidence that a fit is a local optimum, in metrics free of the data's units but for the gradient.

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
        Largest absolute derivative of the criterion with respect to theta, and to the coefficients where they are
        searched for too, in the units of the columns: large numbers in small units say nothing. `decrease` says the
        same without units.
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


def certificate(estimate: Result) -> Certificate:
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


def from_core(
    found: Mapping[str, Any], core: Any, reml: bool, optimizer: str = "newton", at_optimum: bool = True
) -> Estimate:
    """Turn the core's record of a fit into an `Estimate`; `at_optimum`: the core stands where the fit ended."""
    return Estimate(
        theta=frozen(found["theta"]),
        criterion=float(found["criterion"]),
        reml=reml,
        beta=frozen(found["beta"]),
        vcov=coefficient_covariance(found, core, reml, at_optimum),
        sigma=float(found["sigma"]),
        pwrss=float(found["pwrss"]),
        rank=core.rank,
        optimizer=optimizer,
        **of_search(found, core),
    )


def of_search(found: Mapping[str, Any], core: Any) -> dict[str, Any]:
    """Return what both kinds of estimates say of random effects and search, from the core's record."""
    return {
        "factors": tuple(map(frozen, found["lambda"])),
        "modes": tuple(map(frozen, found["b"])),
        "n": core.n,
        "dropped": tuple(core.dropped),
        "outcome": found["outcome"],
        "evaluations": int(found["evaluations"]),
        "iterations": int(found["iterations"]),
        "gradient": frozen(found["gradient"]),
        "decrease": float(found["decrease"]),
        "curvature": float(found["curvature"]),
        "multipliers": tuple(found["multipliers"]),
        "boundary": tuple(found["boundary"]),
    }
