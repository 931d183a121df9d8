"""Unit deviances 2 (log f(y; mean y) - log f(y; mean mu)), the other parameters held; one function a family.

McCullagh & Nelder (1989), section 2.3; with trials n times that of one trial.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ranef.engines.estimate import Array
from ranef.families import Data, Distribution

Unit = Callable[[Array, Array, Array, Data, Distribution], Array]


def _xlogy(x: Array, y: Array) -> Array:
    from scipy.special import xlogy

    return np.asarray(xlogy(x, y), dtype=np.float64)


def _dispersion(eta: Array, family: Distribution) -> Array:
    return np.asarray(family.link_of("dispersion").inverse(eta[:, 1]))


def gaussian(y: Array, mu: Array, eta: Array, data: Data, family: Distribution) -> Array:  # noqa: ARG001
    """Return (y - mu)^2."""
    return (y - mu) ** 2


def poisson(y: Array, mu: Array, eta: Array, data: Data, family: Distribution) -> Array:  # noqa: ARG001
    """Return 2 (y log(y / mu) - (y - mu))."""
    return 2 * (_xlogy(y, y / mu) - (y - mu))


def binomial(y: Array, mu: Array, eta: Array, data: Data, family: Distribution) -> Array:  # noqa: ARG001
    """Return 2 n (y log(y / mu) + (1 - y) log((1 - y) / (1 - mu)))."""
    n = 1.0 if data.trials is None else data.trials
    return 2 * n * (_xlogy(y, y / mu) + _xlogy(1 - y, (1 - y) / (1 - mu)))


def gamma(y: Array, mu: Array, eta: Array, data: Data, family: Distribution) -> Array:  # noqa: ARG001
    """Return 2 ((y - mu) / mu - log(y / mu))."""
    return 2 * ((y - mu) / mu - np.log(y / mu))


def inverse_gaussian(y: Array, mu: Array, eta: Array, data: Data, family: Distribution) -> Array:  # noqa: ARG001
    """Return (y - mu)^2 / (mu^2 y)."""
    return (y - mu) ** 2 / (mu**2 * y)


def nbinom2(y: Array, mu: Array, eta: Array, data: Data, family: Distribution) -> Array:  # noqa: ARG001
    """Return 2 (y log(y / mu) - (y + k) log((y + k) / (mu + k)))."""
    k = _dispersion(eta, family)
    return 2 * (_xlogy(y, y / mu) - (y + k) * np.log((y + k) / (mu + k)))


UNIT_DEVIANCES: dict[str, Unit] = {
    "gaussian": gaussian,
    "poisson": poisson,
    "binomial": binomial,
    "bernoulli": binomial,
    "gamma": gamma,
    "inverse_gaussian": inverse_gaussian,
    "nbinom2": nbinom2,
}
