"""What a response is like, given its linear predictors: mean, variance, distribution function, draws, density.

A law answers for rows with predictors `eta` (n, K) and their `Data`, on the scale of the response as `Fit.residuals`
has it: with trials the proportion of successes, for categories their number, from 0; of counts of categories the
share of each, (n, J), although these are drawn, and given, as counts. `Core` asks the core's formulas;
`Gaussian` is written here because linear models use it without further ado, `Ordinal` and `Nominal` because they answer
for all categories of a row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ranef import _core
from ranef.errors import DataError, NotAvailableError
from ranef.families.custom import CustomLaw
from ranef.families.distribution import Distribution
from ranef.families.links import link_of

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Data:
    """What is known of the rows beside their predictors: the response as the core takes it, trials, a design.

    `randomised` are c and d of randomised responses, which are 1 with probability c + d mu; `bounds` the least and the
    greatest response that a row can have, (n, 2).
    """

    y: Array
    trials: Array | None = None
    randomised: tuple[Array, Array] | None = None
    bounds: Array | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """As the core takes it."""
        y = np.ascontiguousarray(self.y)
        found: dict[str, Any] = {"y": y}
        if self.trials is not None:
            found["trials"] = np.ascontiguousarray(self.trials)
        if self.bounds is not None:
            found["bounds"] = np.ascontiguousarray(self.bounds)
        return found if self.randomised is None else {**found, "randomised": self.randomised}


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


def law_of(family: Distribution) -> Law:
    """Return the law of a family."""
    if family.custom is not None:
        return CustomLaw(family)
    if family.categorical:
        one = Ordinal(family) if family.entry.ordinal else Nominal(family)
        return Counts(one) if family.counts else one
    return Gaussian(family) if family.entry.name == "gaussian" and not family.bounded else Core(family)


def check_bounds(family: Distribution, data: Data) -> None:
    """Refuse rows whose bounds are not known where the response is truncated."""
    if family.bounded and data.bounds is None:
        raise DataError(
            "the expected response lies within bounds that are columns, which the new data lack: add them to the data, "
            "or ask for type='mean', the mean without truncation"
        )


@dataclass(frozen=True, slots=True)
class Core:
    """The core's formulas."""

    family: Distribution

    def mean(self, eta: Array, data: Data) -> Array:
        """Return the expected response, extra zeros and truncation counted."""
        if self.family.plain_mean and data.randomised is None:
            return np.asarray(link_of(self.family.link).inverse(eta[:, 0]), dtype=np.float64)
        check_bounds(self.family, data)
        return np.asarray(_core.family_mean(self.family.spec, data.arguments, np.ascontiguousarray(eta)))

    def variance(self, eta: Array, data: Data) -> Array:
        """Return the variance of the response."""
        check_bounds(self.family, data)
        return np.asarray(_core.family_variance(self.family.spec, data.arguments, np.ascontiguousarray(eta)))

    def cdf(self, eta: Array, data: Data) -> tuple[Array, Array]:
        """Return P(Y < y) and P(Y <= y); a continuous response may have lumps at 0 and 1."""
        y = data.y
        if self.family.entry.discrete:
            before = y - 1.0 if data.trials is None else y - 1.0 / np.maximum(data.trials, 1.0)
        else:
            before = np.where((y == 1.0) & (self.family.entry.support == "closed_unit"), np.nextafter(1.0, 0.0), y)
        low = np.where(y <= 0, 0.0, self._cdf(eta, replace(data, y=np.maximum(before, 0.0))))
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
class Ordinal:
    """Ordered categories 0 .. J-1; eta holds the location, the log scale if there is one, and every threshold."""

    family: Distribution

    def probabilities(self, eta: Array) -> Array:
        """Return P(Y = j), (n, J)."""
        lead = 1 + self.family.scaled
        count = eta.shape[1] - lead
        spec = replace(self.family, categories=count + 1).spec
        p = np.column_stack([np.exp(_log_mass(spec, eta, lead, j)) for j in range(count + 1)])
        p[np.isnan(p).any(axis=1)] = np.nan  # thresholds that cross leave no distribution
        return p

    def mean(self, eta: Array, data: Data) -> Array:  # noqa: ARG002
        """Return the expected number of the category."""
        p = self.probabilities(eta)
        return p @ np.arange(float(p.shape[1]))

    def variance(self, eta: Array, data: Data) -> Array:  # noqa: ARG002
        """Return the variance of the number of the category."""
        p = self.probabilities(eta)
        j = np.arange(float(p.shape[1]))
        return p @ j**2 - (p @ j) ** 2

    def cdf(self, eta: Array, data: Data) -> tuple[Array, Array]:
        """Return P(Y < y) and P(Y <= y)."""
        p = np.hstack([np.zeros((len(eta), 1)), np.cumsum(self.probabilities(eta), axis=1)])
        at, rows = data.y.astype(np.int64), np.arange(len(eta))
        return p[rows, at], p[rows, at + 1]

    def draw(self, eta: Array, data: Data, rng: np.random.Generator) -> Array:  # noqa: ARG002
        """Return the number of a category for each row."""
        return drawn(self.probabilities(eta), rng)

    def density(self, eta: Array, data: Data) -> Array:
        """Return log P(Y = y)."""
        return np.log(self.probabilities(eta)[np.arange(len(eta)), data.y.astype(np.int64)])


def _log_mass(spec: dict[str, Any], eta: Array, lead: int, j: int) -> Array:
    """Return log P(Y = j); a cumulative model asks for the thresholds around j only."""
    if spec["name"] == "cumulative":
        cuts = eta[:, lead:]
        high, low = cuts[:, min(j, cuts.shape[1] - 1)], cuts[:, max(j - 1, 0)]
        eta = np.column_stack([eta[:, :lead], high, low])
    y = np.full(len(eta), float(j))
    return np.asarray(_core.family_eval(spec, {"y": y}, np.ascontiguousarray(eta), 0))[:, 0]


def drawn(probabilities: Array, rng: np.random.Generator) -> Array:
    """Return the number of a category for each row of probabilities."""
    p = np.cumsum(probabilities, axis=1)[:, :-1]
    return (rng.uniform(size=len(p))[:, None] > p).sum(axis=1).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Nominal:
    """Categories 0 .. J-1 without order; eta holds the log odds of 1 .. J-1 against 0."""

    family: Distribution

    def probabilities(self, eta: Array) -> Array:
        """Return P(Y = j), (n, J)."""
        z = np.column_stack([np.zeros(len(eta)), eta])
        p = np.exp(z - z.max(axis=1, keepdims=True))
        return p / p.sum(axis=1, keepdims=True)

    def mean(self, eta: Array, data: Data) -> Array:
        """Return the probability of the category observed: numbers of categories have no average."""
        return np.exp(self.density(eta, data))

    def variance(self, eta: Array, data: Data) -> Array:  # noqa: ARG002
        """Refuse."""
        raise _without_order("variances")

    def cdf(self, eta: Array, data: Data) -> tuple[Array, Array]:  # noqa: ARG002
        """Refuse."""
        raise _without_order("distribution functions")

    def draw(self, eta: Array, data: Data, rng: np.random.Generator) -> Array:  # noqa: ARG002
        """Return the number of a category for each row."""
        return drawn(self.probabilities(eta), rng)

    def density(self, eta: Array, data: Data) -> Array:
        """Return log P(Y = y)."""
        return np.log(self.probabilities(eta)[np.arange(len(eta)), data.y.astype(np.int64)])


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of categories, (n, J): n outcomes of one law in every row."""

    outcome: Nominal | Ordinal

    def probabilities(self, eta: Array) -> Array:
        """Return P(Y = j) of one outcome, (n, J)."""
        return self.outcome.probabilities(eta)

    def mean(self, eta: Array, data: Data) -> Array:  # noqa: ARG002
        """Return the expected share of every category, (n, J)."""
        return self.probabilities(eta)

    def variance(self, eta: Array, data: Data) -> Array:  # noqa: ARG002
        """Refuse: the shares of a row have a covariance matrix."""
        raise NotAvailableError("counts of categories have no one variance a row; use predict(type='probs')")

    def cdf(self, eta: Array, data: Data) -> tuple[Array, Array]:  # noqa: ARG002
        """Refuse."""
        raise NotAvailableError("counts of categories have no distribution function; use predict(type='probs')")

    def draw(self, eta: Array, data: Data, rng: np.random.Generator) -> Array:
        """Return counts of as many outcomes as each row has, (n, J)."""
        sizes = data.y.sum(axis=1).astype(np.int64)
        return rng.multinomial(sizes, self.probabilities(eta)).astype(np.float64)

    def density(self, eta: Array, data: Data) -> Array:
        """Return the logarithm of the multinomial probability of the counts."""
        from scipy.special import xlogy

        return log_orders(data.y) + np.asarray(xlogy(data.y, self.probabilities(eta))).sum(axis=1)


def log_orders(counts: Array) -> Array:
    """Return log(n! / (y_1! .. y_J!)) of every row of counts, in how many orders its n outcomes may come."""
    from scipy.special import gammaln

    return np.asarray(gammaln(counts.sum(axis=1) + 1) - gammaln(counts + 1).sum(axis=1), dtype=np.float64)


def _without_order(what: str) -> NotAvailableError:
    return NotAvailableError(f"categories without order have no {what}; use predict(type='probs')")
