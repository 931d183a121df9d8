"""Structures with several optima: a column without variance, a dispersion that trades with effects of a row each.

Digits are those of glmmTMB 1.1.5 at the better optimum: from its own start it ends there for the Salamanders, the zeros
and the binary responses, for the others from other starts only (log dispersion 3, -8 for nbinom1, sd 0.14 for ar1).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
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


@pytest.mark.parametrize("seed", [27, 57])
def test_correlations_of_the_other_sign_are_looked_at_from_an_optimum_inside(seed: int) -> None:
    """Binary responses whose autocorrelation has an optimum on either side of 0: no start leads to a better one."""
    rng = np.random.default_rng(seed)
    g, t = np.repeat(np.arange(30), 4), np.tile(np.arange(4), 30)
    x = rng.normal(size=120).round(3)
    y = rng.random(120) < 1 / (1 + np.exp(0.4 - 0.3 * x - 0.5 * rng.normal(size=30)[g] * (t != 1)))
    labels = {"t": np.char.add("t", t.astype(str)), "g": np.char.add("g", g.astype(str))}
    data, formula = {"y": y.astype(int), "x": x, **labels}, "y ~ x + ar1(t + 0 | g)"
    starts = [[np.log(sd), r / np.sqrt(1 - r * r)] for sd in (0.5, 1.5) for r in (-0.9, -0.5, 0.5, 0.9)]
    ends = [rf.fit(formula, data, family="binomial", control={"start": start}).loglik for start in starts]
    m = rf.fit(formula, data, family="binomial")
    assert m.converged
    assert max(ends) - min(ends) > 0.02  # two optima
    assert m.loglik > max(ends) - 1e-7  # what searches that end within their tolerance differ by


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


def zeros_or_dispersion(seed: int) -> dict[str, Any]:
    """Thirty groups with four rows: counts with a quarter of extra zeros, and binary responses."""
    rng = np.random.default_rng(seed)
    g, t = np.repeat(np.arange(GROUPS), TIMES), np.tile(np.arange(TIMES), GROUPS)
    x = rng.normal(size=GROUPS * TIMES).round(3)
    b = rng.normal(size=(GROUPS, 1)).repeat(TIMES, 1).ravel() * 0.7 * (t != 1)
    mu = np.exp(0.5 + 0.3 * x + b)
    count = rng.poisson(mu) * (rng.random(GROUPS * TIMES) > 0.25)
    rng.normal(size=GROUPS * TIMES), rng.gamma(2, mu)  # of other responses
    binary = (rng.random(GROUPS * TIMES) < 1 / (1 + np.exp(-0.3 * x - b))).astype(int)
    labels = {"t": np.char.add("t", t.astype(str)), "g": np.char.add("g", g.astype(str))}
    return {"count": count, "binary": binary, "x": x, **labels}


def test_zeros_and_a_dispersion_explain_the_same_rows() -> None:
    """Without a dispersion or without extra zeros there is an optimum each; the better one has both."""
    m = rf.fit("count ~ x + (1 | g)", zeros_or_dispersion(1), family="nbinom1", zero_inflation="~ 1")
    assert m.converged
    assert m.loglik == pytest.approx(-198.20694358, abs=1e-6)  # 0.2 below: no extra zeros


def test_correlations_of_effects_without_variance_are_looked_at() -> None:
    """From a correlation of -1 the slope keeps the variance at zero, from one of -0.56 it does not."""
    groups, times, rows = 14, 4, 3
    rng = np.random.default_rng(27)
    g, t = np.repeat(np.arange(groups), times * rows), np.tile(np.repeat(np.arange(times), rows), groups)
    x = rng.normal(size=len(g)).round(3)
    y = rng.gamma(2, np.exp(0.5 + 0.3 * x) / 2).round(4) + 0.001
    data = {"y": y, "x": x, "t": np.char.add("t", t.astype(str)), "g": np.char.add("g", g.astype(str))}
    m = rf.fit("y ~ x + ar1(t + 0 | g)", data, family="gamma")
    assert m.converged
    assert m.loglik == pytest.approx(-231.92704409, abs=1e-7)  # -231.92707721 at zero


def test_the_floor_beside_a_large_deviation_is_zero() -> None:
    """With a correlation of 1 the covariance with a large deviation counts, however small the other one is."""
    m = rf.fit("binary ~ x + cs(t + 0 | g)", zeros_or_dispersion(16), family="binomial")
    assert m.converged
    assert m.loglik == pytest.approx(-71.73458906, abs=1e-7)  # 1.3e-6 below at the usual floor


@pytest.mark.parametrize("terms", ["exp(0 + numFactor(age) | Subject) + (1 | Subject)",
                                   "(1 | Subject) + exp(0 + numFactor(age) | Subject)"])  # fmt: skip
def test_the_order_of_the_terms_decides_nothing(terms: str) -> None:
    """The digits are those of nlme 3.1-162's gls with corExp, by ML: the common effect has no variance."""
    boys = rf.datasets.load("Oxboys")
    m = rf.fit(f"height ~ age + {terms}", boys, dispersion=0, method="ml")
    assert m.converged
    # A residual of 1e-4 beside heights of 150 leaves 1e-7 of a correlation.
    assert m.loglik == pytest.approx(-340.964048, abs=1e-5)


def test_the_mean_may_follow_either_rows() -> None:
    """Of two kinds of rows with means of their own the one that the mean follows has small residuals: two optima."""
    co2 = rf.datasets.load("CO2")
    m = rf.fit("uptake ~ log(conc) + (1 | Treatment)", co2, dispersion="~ Type", method="ml")
    assert m.converged
    assert m.loglik == pytest.approx(-289.577498, abs=1e-6)  # glmmTMB's; the other one is 3.7 lower


@pytest.mark.parametrize(("seed", "kind"), [(55, "gau"), (49, "exp")])
def test_effects_of_no_variance_have_it_without_correlation(seed: int, kind: str) -> None:
    """With large correlations no variance is best; without them some is: effects of single rows."""
    rng = np.random.default_rng(seed)
    x, noise = rng.normal(size=72), rng.normal(size=72)
    time = np.tile([0.9, 1.9, 3.3], 24)
    y = (rng.random(72) < 1 / (1 + np.exp(0.4 - 0.7 * x - 0.6 * noise))).astype(float)
    data = {"y": y, "x": x, "time": time, "id": np.repeat(np.arange(24), 3), "row": np.arange(72)}
    m = rf.fit(f"y ~ x + {kind}(numFactor(time) + 0 | id)", data, family="binomial")
    inside = rf.fit("y ~ x + (1 | row)", data, family="binomial")
    assert m.converged
    assert m.loglik > inside.loglik - 1e-7  # its limit of no range


#: Generated data on which a search ended at a lower optimum, each with the reason, and what it must reach: glmmTMB's
#: log-likelihood (of the limit, where it has none of the model itself), that of a model inside, or where it has neither
#: family nor structure, the best that other starts lead to.
SECOND = json.loads((Path(__file__).parent / "second_optima.json").read_text())


@pytest.mark.parametrize("name", SECOND)
def test_the_better_of_two_optima(name: str) -> None:
    model = SECOND[name]
    options = dict(model["options"])
    if "cov" in options:
        known = np.array(options["cov"]["t"])
        labels = [f"t{i}" for i in range(len(known))]
        options["cov"] = {"t": pd.DataFrame(known, labels, labels)}
    m = rf.fit(model["formula"], model["data"], family=model["family"], **options)
    assert m.converged
    inside = model.get("inside")
    least = rf.fit(inside, model["data"], family=model["family"]).loglik if inside else model["loglik"]
    assert m.loglik > least - 1e-6  # what another program's optimum may be better by
