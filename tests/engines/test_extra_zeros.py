"""A search that ends where extra zeros are none, or gain little, looks again from where those of a few rows are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ranef as rf
from ranef.engines import extra_zeros, laplace


def zeros_at_small(seed: int) -> dict[str, Any]:
    """Geometric counts, with extra zeros where z is next to 0."""
    r = np.random.default_rng(seed)
    z = r.negative_binomial(1, 0.1, 250)
    r.integers(0, 15, 250)  # of other responses
    count = r.negative_binomial(1, 1 / (1 + np.exp(0.2 + 0.03 * z)))
    return {"y": count * (r.random(250) > 1 / (1 + np.exp(1.0 + 1.0 * z))), "z": z}


CALL: dict[str, Any] = {"family": "nbinom2", "dispersion": 1, "zero_inflation": "~ z"}


def test_zeros_of_a_few_rows_are_found() -> None:
    m = rf.fit("y ~ z", zeros_at_small(106), **CALL)
    assert m.converged
    # pscl 1.5.5, zeroinfl(dist = "geometric"), and glmmTMB 1.1.5; without extra zeros -445.949754
    assert m.loglik == pytest.approx(-445.781396436, abs=1e-6)
    assert m.messages == ()
    assert m.refit(np.asarray(zeros_at_small(106)["y"], float)).loglik == pytest.approx(m.loglik, abs=1e-7)


def test_no_extra_zeros_stay_none() -> None:
    """To be certain of the rows at one end that happen to be 0 always gains a bit: that is no optimum inside."""
    r = np.random.default_rng(37)
    z = r.negative_binomial(1, 0.1, 250)
    m = rf.fit("y ~ z", {"y": r.poisson(np.exp(0.3 + 0.02 * z)), "z": z}, family="poisson", zero_inflation="~ z")
    assert m.converged
    assert [note.code for note in m.messages] == ["at_a_limit"]


def test_searches_that_were_told_where_to_begin_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extra_zeros, "starts", lambda *_: pytest.fail("a second search"))
    assert laplace.extra_zeros is extra_zeros
    m = rf.fit("y ~ z", zeros_at_small(106), control={"max_evaluations": 200}, **CALL)
    assert m.loglik == pytest.approx(-445.949754, abs=1e-5)


def few_zeros(seed: int, size: float | None) -> dict[str, Any]:
    """Counts of 15 groups with extra zeros that do not depend on x."""
    r = np.random.default_rng(seed)
    x, g = r.normal(size=150).round(3), np.repeat(np.arange(15), 10)
    mean = np.exp(0.3 + 0.3 * x + 0.4 * r.normal(size=15)[g])
    y = r.poisson(mean) if size is None else r.negative_binomial(size, size / (size + mean))
    return {"y": y * (r.random(150) > 0.2), "x": x, "g": g}


def rare_zeros(seed: int) -> dict[str, Any]:
    """Small counts of 20 groups, with extra zeros at large x."""
    r = np.random.default_rng(seed)
    x, g = r.normal(size=200).round(3), np.repeat(np.arange(20), 10)
    y = r.poisson(np.exp(-0.4 + 0.2 * x + 0.4 * r.normal(size=20)[g]))
    return {"y": y * (r.random(200) > 1 / (1 + np.exp(1.2 + 0.6 * x))), "x": x, "g": g}


def many_zeros(seed: int) -> dict[str, Any]:
    """Negative binomial counts of 20 groups, half of them extra zeros: without groups a dispersion explains these."""
    r = np.random.default_rng(seed)
    x, g = r.normal(size=200).round(3), np.repeat(np.arange(20), 10)
    mu = np.exp(0.1 - 0.8 * x + 0.8 * r.normal(size=20)[g])
    y = r.negative_binomial(2.0, 2.0 / (2.0 + mu))
    return {"y": y * (r.random(200) > 1 / (1 + np.exp(0.3 - 0.4 * x))), "x": x, "g": g}


# glmmTMB 1.1.5 (rel.tol 1e-14, x.tol 1e-10), from its own start and from one at the better optimum: log-likelihoods
# and the slope of the extra zeros at the better one. In the third case and the last three it finds that by itself,
# and the lower optimum, of few digits, is where the search once ended.
STEPS = [
    ("y ~ x", "nbinom2", few_zeros(27, 2.0), -211.597511320, -210.912148092, -3.9013),
    ("y ~ x + (1 | g)", "nbinom2", few_zeros(37, 2.0), -229.435145988, -228.874450863, -7.5527),
    ("y ~ x + (1 | g)", "nbinom1", few_zeros(41, 2.0), -231.44638, -230.527805453, -0.7184),
    ("y ~ x + (1 | g)", "nbinom1", few_zeros(172, 2.0), -246.808089787, -246.392539163, 2.6931),
    ("y ~ x + (1 | g)", "nbinom2", many_zeros(220), -255.683316, -254.289682685, 0.5997),
    ("y ~ x + (1 | g)", "nbinom2", many_zeros(284), -262.694232, -260.154455416, 0.2082),
    ("y ~ x + (1 | g)", "poisson", rare_zeros(532), -204.83185, -203.352970810, 1.7483),
]


@pytest.mark.parametrize(("formula", "family", "data", "first", "best", "slope"), STEPS)
def test_steps_of_a_covariate_are_found(
    formula: str, family: str, data: dict[str, Any], first: float, best: float, slope: float
) -> None:
    m = rf.fit(formula, data, family=family, zero_inflation="~ x")
    assert m.converged
    assert m.loglik == pytest.approx(best, abs=1e-6)  # both stop at gradients that promise less
    assert m.loglik > first + 0.1
    # The likelihood is flat along such slopes: their standard errors are 1 to 10.
    assert np.asarray(m.estimate.beta)[-1] == pytest.approx(slope, abs=0.02)


def test_much_that_extra_zeros_gain_leaves_the_first_search_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extra_zeros, "starts", lambda *_: pytest.fail("a second search"))
    r = np.random.default_rng(1)
    x = r.normal(size=400)
    y = r.poisson(np.exp(1.5 + 0.3 * x)) * (r.random(400) > 0.3)
    assert rf.fit("y ~ x", {"y": y, "x": x}, family="poisson", zero_inflation="~ x").converged


def test_hurdles_and_factors_are_not_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros of a hurdle are a model of their own, and no other optimum was seen where a factor alone has them."""
    monkeypatch.setattr(extra_zeros, "starts", lambda *_: pytest.fail("a second search"))
    data = few_zeros(27, 2.0)
    assert rf.fit("y ~ x", data, family="truncated_poisson", zero_inflation="~ x").converged
    data["f"] = np.asarray(list("abc"))[data["g"] % 3]
    assert rf.fit("y ~ x", data, family="nbinom2", zero_inflation="~ f").converged
