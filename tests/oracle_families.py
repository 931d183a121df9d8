"""Families of distributions by scipy and by hand: what the core must agree with.

Every function takes a spec (a dict as `Distribution.spec`), data (a dict with `y` and perhaps `trials`: then y is the
proportion of successes) and predictors `eta` (n, K).
"""

from __future__ import annotations

import numpy as np
from scipy import special, stats


def inverse_link(name, x):
    """Parameter from predictor."""
    return {
        "identity": lambda v: v, "log": np.exp, "logit": special.expit, "probit": special.ndtr,
        "cloglog": lambda v: -np.expm1(-np.exp(v)), "loglog": lambda v: np.exp(-np.exp(-v)),
        "cauchit": lambda v: np.arctan(v) / np.pi + 0.5, "inverse": lambda v: 1 / v, "sqrt": np.square,
        "1/mu^2": lambda v: 1 / np.sqrt(v), "softplus": lambda v: np.logaddexp(0, v),
    }[name](x)  # fmt: skip


def _nb2(mu, k):
    return stats.nbinom(k, k / (k + mu))


def _lognormal(mu, sd):
    s2 = np.log1p((sd / mu) ** 2)
    return stats.lognorm(np.sqrt(s2), scale=mu * np.exp(-s2 / 2))


# name -> frozen scipy distribution of (parameters, trials)
FROZEN = {
    "gaussian": lambda p, n: stats.norm(p[0], p[1]),
    "poisson": lambda p, n: stats.poisson(p[0]),
    "binomial": lambda p, n: stats.binom(n, p[0]),
    "nbinom1": lambda p, n: _nb2(p[0], p[0] / p[1]),
    "nbinom2": lambda p, n: _nb2(p[0], p[1]),
    "gamma": lambda p, n: stats.gamma(p[1], scale=p[0] / p[1]),
    "beta": lambda p, n: stats.beta(p[0] * p[1], (1 - p[0]) * p[1]),
    "betabinomial": lambda p, n: stats.betabinom(n, p[0] * p[1], (1 - p[0]) * p[1]),
    "student_t": lambda p, n: stats.t(p[2], p[0], p[1]),
    "lognormal": lambda p, n: _lognormal(p[0], p[1]),
}


def _choose(n, k):
    return special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)


def _ln_nb2(y, mu, k):
    log = special.gammaln(y + k) - special.gammaln(k) - special.gammaln(y + 1)
    return log + k * np.log(k / (k + mu)) + special.xlogy(y, mu / (k + mu))


def _ln_gamma(y, mu, a):
    return special.xlogy(a - 1, y) - y * a / mu + a * np.log(a / mu) - special.gammaln(a)


def _ln_lognormal(y, mu, sd):
    s2 = np.log1p((sd / mu) ** 2)
    return -0.5 * (np.log(y) - np.log(mu) + s2 / 2) ** 2 / s2 - np.log(y) - 0.5 * np.log(2 * np.pi * s2)


# name -> log density or mass of (y, parameters, trials), written out: scipy's objects are slow
LOG = {
    "gaussian": lambda y, p, n: -0.5 * ((y - p[0]) / p[1]) ** 2 - np.log(p[1]) - 0.5 * np.log(2 * np.pi),
    "poisson": lambda y, p, n: special.xlogy(y, p[0]) - p[0] - special.gammaln(y + 1),
    "binomial": lambda y, p, n: _choose(n, y) + special.xlogy(y, p[0]) + special.xlog1py(n - y, -p[0]),
    "nbinom1": lambda y, p, n: _ln_nb2(y, p[0], p[0] / p[1]),
    "nbinom2": lambda y, p, n: _ln_nb2(y, p[0], p[1]),
    "gamma": lambda y, p, n: _ln_gamma(y, p[0], p[1]),
    "beta": lambda y, p, n: special.xlogy(p[0] * p[1] - 1, y) + special.xlog1py((1 - p[0]) * p[1] - 1, -y)
    - special.betaln(p[0] * p[1], (1 - p[0]) * p[1]),
    "betabinomial": lambda y, p, n: _choose(n, y) + special.betaln(y + p[0] * p[1], n - y + (1 - p[0]) * p[1])
    - special.betaln(p[0] * p[1], (1 - p[0]) * p[1]),
    "student_t": lambda y, p, n: special.gammaln((p[2] + 1) / 2) - special.gammaln(p[2] / 2)
    - 0.5 * np.log(np.pi * p[2]) - np.log(p[1]) - (p[2] + 1) / 2 * np.log1p(((y - p[0]) / p[1]) ** 2 / p[2]),
    "lognormal": lambda y, p, n: _ln_lognormal(y, p[0], p[1]),
}  # fmt: skip
COUNTS = ("poisson", "binomial", "nbinom1", "nbinom2", "betabinomial")


def _read(spec, data, eta):
    """Parameters, response (successes), probability of an extra zero, trials."""
    eta = np.asarray(eta, float)
    k = eta.shape[1] - bool(spec["zero_inflation"])
    p = [inverse_link(link, eta[:, j]) for j, link in enumerate(spec["links"][:k])]
    zero = special.expit(eta[:, k]) if spec["zero_inflation"] else np.zeros(len(eta))
    y, trials = np.asarray(data["y"], float), data.get("trials")
    return (p, y, zero, 1) if trials is None else (p, np.rint(y * trials), zero, np.asarray(trials).astype(int))


def _setup(spec, data, eta):
    p, y, zero, n = _read(spec, data, eta)
    return FROZEN[spec["name"]](p, n), y, zero, np.maximum(n, 1)


def _mass(spec, p, n, y):
    """Log density of the count or continuous part, zeros cut off where the family is truncated."""
    value = LOG[spec["name"]](y, p, n)
    return value - np.log1p(-np.exp(LOG[spec["name"]](0.0 * y, p, n))) if spec["truncated"] else value


def _ordered(spec, data, eta):
    y, top = np.asarray(data["y"]), spec["categories"] - 1
    F = lambda v: inverse_link(spec["links"][0], v)  # noqa: E731
    high = np.where(y == top, 1.0, F(eta[:, 1] - eta[:, 0]))
    return np.log(high - np.where(y == 0, 0.0, F(eta[:, 2] - eta[:, 0])))


def density(spec, data, eta):
    """Log density of each row."""
    with np.errstate(all="ignore"):
        if spec["name"] == "cumulative":
            return _ordered(spec, data, np.asarray(eta))
        p, y, zero, n = _read(spec, data, eta)
        if not spec["zero_inflation"]:
            return _mass(spec, p, n, y)
        own = -np.inf if spec["truncated"] or spec["name"] not in COUNTS else _mass(spec, p, n, 0.0 * y)
        positive = np.log1p(-zero) + _mass(spec, p, n, np.where(y == 0, 1.0, y))
        return np.where(y == 0, np.logaddexp(np.log(zero), np.log1p(-zero) + own), positive)


def _moments(spec, data, eta):
    frozen, _, zero, n = _setup(spec, data, eta)
    m, v = frozen.mean() / n, frozen.var() / n**2
    if spec["truncated"]:
        cut = 1 - frozen.pmf(0)
        m, second = m / cut, (v + m**2) / cut
        v = second - m**2
    return (1 - zero) * m, (1 - zero) * (v + m**2) - ((1 - zero) * m) ** 2


def mean(spec, data, eta):
    """Mean of the response."""
    return _moments(spec, data, eta)[0]


def variance(spec, data, eta):
    """Variance of the response."""
    return _moments(spec, data, eta)[1]


def cdf(spec, data, eta):
    """P(Y <= y)."""
    frozen, y, zero, _ = _setup(spec, data, eta)
    value = frozen.cdf(y)
    if spec["truncated"]:
        value = np.maximum(value - frozen.pmf(0), 0) / (1 - frozen.pmf(0))
    return np.where(y >= 0, zero + (1 - zero) * value, (1 - zero) * value)


def draw(spec, data, eta, seed):
    """Random responses."""
    frozen, y, zero, n = _setup(spec, data, eta)
    rng = np.random.default_rng(seed)
    out = np.asarray(frozen.rvs(size=len(y), random_state=rng), float)
    while spec["truncated"] and (out == 0).any():
        out = np.where(out == 0, frozen.rvs(size=len(y), random_state=rng), out)
    return np.where(rng.uniform(size=len(y)) < zero, 0.0, out) / n
