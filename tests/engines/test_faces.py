"""Structures with several optima: a column without variance, a dispersion that trades with effects of a row each.

Digits are those of glmmTMB 1.1.5 at the better optimum: from its own start it ends there for the Salamanders, for the
others from smaller dispersions only (log dispersion 3, and -8 for nbinom1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ranef as rf

GROUPS, TIMES = 30, 4


def one_row_each(seed: int) -> dict[str, Any]:
    """Thirty groups, autocorrelated effects of four times, one row a time."""
    rng = np.random.default_rng(seed)
    g, t = np.repeat(np.arange(GROUPS), TIMES), np.tile(np.arange(TIMES), GROUPS)
    x = rng.normal(size=GROUPS * TIMES).round(3)
    lags = np.abs(np.subtract.outer(np.arange(TIMES), np.arange(TIMES)))
    b = rng.multivariate_normal(np.zeros(TIMES), 1.2 * 0.5**lags, GROUPS).ravel()
    p = 1 / (1 + np.exp(0.3 - 0.3 * x - b))
    share = np.clip(rng.beta(6 * p, 6 * (1 - p)).round(4), 0.0005, 0.9995)
    positive = rng.gamma(2, np.exp(0.3 + 0.3 * x + b) / 2).round(4) + 0.001
    count = rng.poisson(np.exp(0.3 + 0.3 * x + b))
    labels = {"t": np.char.add("t", t.astype(str)), "g": np.char.add("g", g.astype(str))}
    return {"share": share, "positive": positive, "count": count, "x": x, **labels}


@pytest.mark.parametrize(
    ("seed", "formula", "family", "theirs", "local"),
    [
        (8, "share ~ x + ar1(t + 0 | g)", "beta", 10.88084933, 8.84801707),
        (6, "share ~ x + (t + 0 | g)", "beta", 29.52279826, 25.46270233),
        (4, "positive ~ x + ar1(t + 0 | g)", "gamma", -162.31446420, -163.10358677),
        (4, "count ~ x + cs(t + 0 | g)", "nbinom1", -230.40560628, -234.07773636),
    ],
)
def test_a_dispersion_that_trades_with_the_effects(
    seed: int, formula: str, family: str, theirs: float, local: float
) -> None:
    m = rf.fit(formula, one_row_each(seed), family=family)
    assert m.converged
    assert m.loglik > local + 0.5  # the optimum of a usual dispersion
    # Precisions of 1e8 leave the log gamma functions in its densities, and in ours, 1e-7 a row.
    assert m.loglik == pytest.approx(theirs, abs=5e-5)


def test_a_column_that_contradicts_the_correlation_of_the_others() -> None:
    """From its moments the correlation is .13; without variance of one species it is .81, and the likelihood higher."""
    salamanders = rf.datasets.load("Salamanders")
    m = rf.fit("count ~ mined + cs(0 + spp | site)", salamanders, family="nbinom1")
    assert m.converged
    assert m.loglik == pytest.approx(-820.3607, abs=5e-5)  # the digits there are
    assert [b.names for b in m.boundary] == [("sppPR",)]


def test_standard_deviations_beside_a_limit_are_zero() -> None:
    """At a correlation of 1 the deviance falls straight in a standard deviation that vanishes: the floor is not 0."""
    rng = np.random.default_rng(9)
    g, t = np.repeat(np.arange(25), 8), np.tile(np.repeat(np.arange(4), 2), 25)
    b = rng.normal(size=25)
    y = rng.binomial(1, 1 / (1 + np.exp(-np.array([1.0, -0.4, 0.8, 0.6])[t] * b[g])))
    m = rf.fit("y ~ 1 + cs(t + 0 | g)", {"y": y, "t": np.char.add("t", t.astype(str)), "g": g}, family="binomial")
    assert m.converged
    assert m.tidy("ran_pars")["estimate"].min() == 0
    assert m.boundary[0].text == "variance of tt1 | g estimated 0, and the covariance of the others has rank 1"
    assert m.loglik == pytest.approx(-136.20433372, abs=1e-6)  # glmmTMB's; 8e-4 lower on the floor
