"""What a response is like, given its linear predictors: mean, variance, distribution function, draws, density.

A law answers for rows with predictors `eta` (n, K) and their `Data`, on the scale of the response as `Fit.residuals`
has it: with trials the proportion of successes, for an ordinal family the number of the category, from 0. `Core` asks
the core's formulas; `Gaussian` and `Ordered` are written here, the first because linear models use it without further
ado, the second because its thresholds are shared by the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ranef import _core
from ranef.families.distribution import Distribution
from ranef.families.links import link_of

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Data:
    """What is known of the rows beside their predictors: the response as the core takes it, and trials."""

    y: Array
    trials: Array | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """As the core takes it."""
        y = np.ascontiguousarray(self.y)
        return {"y": y} if self.trials is None else {"y": y, "trials": np.ascontiguousarray(self.trials)}


class Law(Protocol):
    """The questions."""

    def mean(self, eta: Array, data: Data) -> Array:
        """Return the expected response."""
        ...

    def variance(self, eta: Array, data: Data) -> Array:
        """Return the variance of the response."""
        ...

    def cdf(self, eta: Array, data: Data) -> tuple[Array, Array]:
        """Return P(Y < y) and P(Y <= y); equal where the response is continuous."""
        ...

    def draw(self, eta: Array, data: Data, rng: np.random.Generator) -> Array:
        """Return one response for each row."""
        ...

    def density(self, eta: Array, data: Data) -> Array:
        """Return log f(y | eta)."""
        ...


def law_of(family: Distribution, thresholds: Array) -> Law:
    """Return the law of a family; `thresholds` are an ordinal family's, (categories - 1,)."""
    if family.entry.ordinal:
        return Ordered(family, thresholds)
    return Gaussian(family) if family.entry.name == "gaussian" else Core(family)


@dataclass(frozen=True, slots=True)
class Core:
    """The core's formulas."""

    family: Distribution

    def mean(self, eta: Array, data: Data) -> Array:
        """Return the expected response, extra zeros and truncation counted."""
        if self.family.plain_mean:
            return np.asarray(link_of(self.family.link).inverse(eta[:, 0]), dtype=np.float64)
        return np.asarray(_core.family_mean(self.family.spec, data.arguments, np.ascontiguousarray(eta)))

    def variance(self, eta: Array, data: Data) -> Array:
        """Return the variance of the response."""
        return np.asarray(_core.family_variance(self.family.spec, data.arguments, np.ascontiguousarray(eta)))

    def cdf(self, eta: Array, data: Data) -> tuple[Array, Array]:
        """Return P(Y < y) and P(Y <= y); a continuous response may have lumps at 0 and 1."""
        y = data.y
        if self.family.entry.discrete:
            before = y - 1.0 if data.trials is None else y - 1.0 / np.maximum(data.trials, 1.0)
        else:
            before = np.where((y == 1.0) & (self.family.entry.support == "closed_unit"), np.nextafter(1.0, 0.0), y)
        low = np.where(y <= 0, 0.0, self._cdf(eta, Data(np.maximum(before, 0.0), data.trials)))
        high = self._cdf(eta, data)
        return (low, high) if self.family.entry.support != "real" else (high, high)

    def _cdf(self, eta: Array, data: Data) -> Array:
        return np.asarray(_core.family_cdf(self.family.spec, data.arguments, np.ascontiguousarray(eta)))

    def draw(self, eta: Array, data: Data, rng: np.random.Generator) -> Array:
        """Return one response for each row."""
        seed = int(rng.integers(1 << 62))
        return np.asarray(_core.family_draw(self.family.spec, data.arguments, np.ascontiguousarray(eta), seed))

    def density(self, eta: Array, data: Data) -> Array:
        """Return log f(y | eta)."""
        return np.asarray(_core.family_eval(self.family.spec, data.arguments, np.ascontiguousarray(eta), 0))[:, 0]


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Normal responses: eta holds the mean's and the standard deviation's predictors."""

    family: Distribution

    def mean(self, eta: Array, data: Data) -> Array:  # noqa: ARG002
        """Return the mean."""
        return np.asarray(link_of(self.family.link).inverse(eta[:, 0]), dtype=np.float64)

    def sd(self, eta: Array) -> Array:
        """Return the standard deviation."""
        return np.asarray(link_of(self.family.links[1]).inverse(eta[:, 1]), dtype=np.float64)

    def variance(self, eta: Array, data: Data) -> Array:  # noqa: ARG002
        """Return the variance."""
        return self.sd(eta) ** 2

    def cdf(self, eta: Array, data: Data) -> tuple[Array, Array]:
        """Return P(Y <= y) twice."""
        from scipy.special import ndtr

        p = np.asarray(ndtr((data.y - self.mean(eta, data)) / self.sd(eta)))
        return p, p

    def draw(self, eta: Array, data: Data, rng: np.random.Generator) -> Array:
        """Return one response for each row."""
        return self.mean(eta, data) + self.sd(eta) * rng.standard_normal(len(eta))

    def density(self, eta: Array, data: Data) -> Array:
        """Return log f(y | eta)."""
        sd = self.sd(eta)
        return -0.5 * ((data.y - self.mean(eta, data)) / sd) ** 2 - np.log(sd) - 0.5 * np.log(2 * np.pi)


@dataclass(frozen=True, slots=True)
class Ordered:
    """Ordered categories 0 .. J-1 with P(Y <= j) = F(alpha_j - eta); the response is the number j."""

    family: Distribution
    thresholds: Array

    def probabilities(self, eta: Array) -> Array:
        """Return P(Y = j), (n, J)."""
        below = link_of(self.family.link).inverse(self.thresholds[None, :] - eta[:, :1])
        edge = np.ones((len(eta), 1))
        return np.diff(np.hstack([0 * edge, np.asarray(below, dtype=np.float64), edge]), axis=1)

    def mean(self, eta: Array, data: Data) -> Array:  # noqa: ARG002
        """Return the expected number of the category."""
        return self.probabilities(eta) @ np.arange(len(self.thresholds) + 1.0)

    def variance(self, eta: Array, data: Data) -> Array:
        """Return the variance of the number of the category."""
        squares = np.arange(len(self.thresholds) + 1.0) ** 2
        return self.probabilities(eta) @ squares - self.mean(eta, data) ** 2

    def cdf(self, eta: Array, data: Data) -> tuple[Array, Array]:
        """Return P(Y < y) and P(Y <= y)."""
        p = np.hstack([np.zeros((len(eta), 1)), np.cumsum(self.probabilities(eta), axis=1)])
        at, rows = data.y.astype(np.int64), np.arange(len(eta))
        return p[rows, at], p[rows, at + 1]

    def draw(self, eta: Array, data: Data, rng: np.random.Generator) -> Array:  # noqa: ARG002
        """Return the number of a category for each row."""
        p = np.cumsum(self.probabilities(eta), axis=1)[:, :-1]
        return (rng.uniform(size=len(eta))[:, None] > p).sum(axis=1).astype(np.float64)

    def density(self, eta: Array, data: Data) -> Array:
        """Return log P(Y = y)."""
        return np.log(self.probabilities(eta)[np.arange(len(eta)), data.y.astype(np.int64)])
