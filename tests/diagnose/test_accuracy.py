"""The check of Laplace's approximation: what it measures, what it predicts, and where it says that it cannot."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose

import ranef as rf
from ranef.diagnose.sampling import pareto
from ranef.engines.nesting import check_quadrature
from ranef.errors import NotAvailableError, OptionError


def binary(size, groups, sd, seed=2):
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), size)
    x = rng.normal(size=size * groups)
    eta = 0.5 * x + sd * rng.normal(size=groups)[g]
    return {"y": (rng.uniform(size=len(g)) < 1 / (1 + np.exp(-eta))).astype(float), "x": x, "g": g, "h": g // 5}


SMALL = binary(3, 150, 2.0)
LARGE = binary(120, 8, 0.6)


def test_it_measures_and_predicts_what_quadrature_finds():
    m = rf.fit("y ~ x + (1 | g)", SMALL, family="binomial")
    check = rf.laplace_check(m)
    fine = rf.fit("y ~ x + (1 | g)", SMALL, family="binomial", quadrature=7)
    assert check.nodes == 7
    assert check.loglik == m.loglik
    # At Laplace's estimate quadrature's log-likelihood lies below its own maximum, by half a Newton step's promise.
    assert m.loglik < check.integral_loglik <= fine.loglik + 1e-8
    moved = np.r_[fine.estimate.beta, fine.theta] - np.r_[m.estimate.beta, m.theta]
    # One Newton step with Laplace's curvature: the right sign and size, not digits.
    assert_allclose(check.shift[-1], moved[-1], rtol=0.5)
    assert check.matters
    assert "quadrature=7" in check.text
    assert check.names == ("(Intercept)", "x", "theta (Intercept) | g")
    assert [abs(gap) for *_, gap in check.worst] == sorted((abs(gap) for *_, gap in check.worst), reverse=True)
    named = "'g' these change it most: " + ", ".join(f"{level} ({gap:.2g})" for _, level, gap in check.worst[:3])
    assert named in repr(check)
    assert named in next(n.text for n in m.messages if n.code == "small_clusters")


def test_parameters_of_structures_are_named_as_in_the_summary():
    rng = np.random.default_rng(1)
    rows = {
        "g": np.arange(120) % 12,
        "t": np.arange(120) // 12 % 4,
        "x": rng.normal(size=120),
        "y": rng.poisson(2, 120),
    }
    m = rf.fit("y ~ x + ar1(0 + factor(t) | g)", rows, family="poisson")
    assert rf.laplace_check(m).names == ("(Intercept)", "x", "theta sd | g", "theta cor | g")


def test_it_is_quiet_where_groups_are_large():
    m = rf.fit("y ~ x + (1 | g)", LARGE, family="binomial")
    check = rf.laplace_check(m)
    assert not check.matters
    assert abs(check.gap) < 0.05
    assert "good enough" in repr(check)
    assert list(np.asarray(check.tidy()["relative"])) == list(check.relative)


def test_nested_groups_and_the_fit_stays_as_it_was():
    m = rf.fit("y ~ x + (1 | h/g)", SMALL, family="binomial")
    before = (m.loglik, m.vcov(), m.predict(std_error=True)["std_error"])
    check = rf.laplace_check(m, nodes=5)
    assert check.worst[0][0] == "h"
    assert m.loglik == before[0]
    assert_allclose(m.predict(std_error=True)["std_error"], before[2], rtol=1e-10)


def test_a_variance_at_zero():
    d = {**LARGE, "y": np.arange(960) % 2.0}
    m = rf.fit("y ~ x + (1 | g)", d, family="binomial")
    assert m.theta[0] == 0
    assert np.isfinite(rf.laplace_check(m).shift).all()


@pytest.mark.parametrize(
    ("formula", "arguments", "words"),
    [
        ("y ~ x + (1 | g)", {"quadrature": 3}, "quadrature=1"),
        ("y ~ x", {}, "no random effects"),
    ],
)
def test_it_says_where_it_cannot(formula, arguments, words):
    m = rf.fit(formula, LARGE, family="binomial", **arguments)
    with pytest.raises(NotAvailableError, match=words):
        rf.laplace_check(m)


def test_legal_nodes():
    m = rf.fit("y ~ x + (1 | g)", LARGE, family="binomial")
    with pytest.raises(OptionError, match="nodes"):
        rf.laplace_check(m, nodes=1)
    with pytest.raises(OptionError, match="draws"):
        rf.laplace_check(m, draws=0)
    with pytest.raises(OptionError, match="draws= takes its place"):
        rf.laplace_check(m, nodes=3, draws=100)


# ---- sampled ---------------------------------------------------------------------------------------------------------


def crossed_data(sd, trials=1, seed=1):
    rng = np.random.default_rng(seed)
    a, b, _ = (v.ravel() for v in np.meshgrid(np.arange(3), np.arange(4), np.arange(3)))
    x = rng.normal(size=len(a))
    eta = 0.3 + 0.5 * x + sd * rng.normal(size=3)[a] + sd * rng.normal(size=4)[b]
    return {"y": rng.binomial(trials, 1 / (1 + np.exp(-eta))) / trials, "x": x, "a": a, "b": b, "n": trials + 0 * x}


def brute_force(d, beta, sd_a, sd_b, points=16):
    """Sum over a grid of the effects of a of products over b of one-dimensional integrals."""
    z, w = np.polynomial.hermite_e.hermegauss(points)
    w = w / w.sum()
    grid = np.stack(np.meshgrid(z, z, z, indexing="ij"), axis=-1).reshape(-1, 3)
    weight = np.prod(np.stack(np.meshgrid(w, w, w, indexing="ij"), axis=-1).reshape(-1, 3), axis=1)
    total = np.zeros(len(grid))
    for level in range(4):
        rows = np.flatnonzero(d["b"] == level)
        eta = beta[0] + beta[1] * d["x"][rows] + sd_a * grid[:, d["a"][rows]]
        eta = eta[:, None, :] + sd_b * z[:, None]
        k = d["y"][rows] * d["n"][rows]
        each = (k * eta - d["n"][rows] * np.logaddexp(0, eta)).sum(axis=-1)
        total += np.log(np.exp(each) @ w)
    choose = sum(
        math.lgamma(n + 1) - math.lgamma(y * n + 1) - math.lgamma(n - y * n + 1)
        for y, n in zip(d["y"], d["n"], strict=True)
    )
    return float(np.log(weight @ np.exp(total))) + choose


@pytest.mark.parametrize(("trials", "sd"), [(1, 1.5), (5, 1.0)])
def test_crossed_factors_as_by_brute_force(trials, sd):
    d = crossed_data(sd, trials)
    m = rf.fit("y ~ x + (1 | a) + (1 | b)", d, family="binomial", trials="n")
    check = rf.laplace_check(m, draws=6_000)
    assert check.how == "importance sampling"
    at = np.r_[m.estimate.beta, m.theta]
    assert brute_force(d, at[:2], *at[2:], points=20) == pytest.approx(brute_force(d, at[:2], *at[2:]), abs=1e-4)
    # Four standard errors of the draws, which are fixed by the seed.
    assert check.gap == pytest.approx(brute_force(d, at[:2], *at[2:]) - m.loglik, abs=4 * check.gap_noise)
    assert check.gap_noise < 0.05

    def gap(point):
        return brute_force(d, point[:2], *point[2:]) - m.core.evaluate(point[:2].tolist(), point[2:].tolist())["loglik"]

    steps = np.diag(0.25 * check.std_error)
    slope = [(gap(at + h) - gap(at - h)) / (2 * h.sum()) if h.any() else 0.0 for h in steps]
    expected = np.nan_to_num(m.estimate.joint()) @ slope
    assert (np.abs(check.shift - expected) < 4 * check.shift_noise + 1e-12).all()
    assert (check.shift_noise < 0.1 * check.std_error + 1e-12).all()
    assert check.worst == ()


def test_the_expansion_is_close_to_quadrature_where_ratios_are_wild():
    m = rf.fit("y ~ x + (1 | g)", SMALL, family="binomial")
    check, fine = rf.laplace_check(m, draws=2000), rf.laplace_check(m, nodes=15)
    assert check.how == "second-order expansion"
    # 150 groups of three binary rows: what is left out, third cumulants, is a tenth of what is found.
    assert check.gap == pytest.approx(fine.gap, rel=0.15)
    assert_allclose(check.relative, fine.relative, atol=0.15)
    assert check.matters
    assert "rf.bootstrap" in check.text


def test_draws_are_reproducible_and_leave_the_fit_alone():
    d = crossed_data(1.5)
    m = rf.fit("y ~ x + (1 | a) + (1 | b)", d, family="binomial", threads=2)
    before = m.predict(std_error=True)["std_error"]
    one, same, other = (rf.laplace_check(m, draws=400, seed=s) for s in (3, 3, 4))
    # The search for the modes begins where it ended before: they agree to rounding.
    assert_allclose(one.shift, same.shift, rtol=1e-9)
    assert one.gap == pytest.approx(same.gap, rel=1e-9)
    assert one.gap != pytest.approx(other.gap, rel=1e-6)
    # Sums of threads differ by rounding; streams are the pairs' own.
    alone = rf.fit("y ~ x + (1 | a) + (1 | b)", d, family="binomial", threads=1)
    assert rf.laplace_check(alone, draws=400, seed=3).gap == pytest.approx(one.gap, abs=1e-9)
    assert_allclose(m.predict(std_error=True)["std_error"], before, rtol=1e-12)
    with pytest.raises(OptionError, match="crossed"):
        rf.laplace_check(m, nodes=3)


def test_a_gaussian_likelihood_has_no_gap():
    d = crossed_data(1.0)
    rng = np.random.default_rng(1)
    d["y"] = rng.normal(size=3)[d["a"]] + rng.normal(size=4)[d["b"]] + np.exp(0.3 * d["x"]) * rng.normal(size=36)
    m = rf.fit("y ~ x + (1 | a) + (1 | b)", d, dispersion="~ x", method="ml")
    check = rf.laplace_check(m)
    assert abs(check.gap) < 1e-9  # every ratio is 1, to rounding
    assert np.abs(check.relative).max() < 1e-6
    assert not check.matters


def test_related_levels():
    d = crossed_data(1.5, seed=5)
    k = 0.6 * np.eye(4) + 0.4
    m = rf.fit("y ~ x + (1 | b)", d, family="binomial", cov={"b": (k, [0, 1, 2, 3])})
    check = rf.laplace_check(m)
    assert m.theta[0] > 0.5
    # Related levels are independent ones with a factor in front: the same integral on other axes.
    z, w = np.polynomial.hermite_e.hermegauss(18)
    w = w / w.sum()
    axes = np.stack(np.meshgrid(*[z] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    weight = np.prod(np.stack(np.meshgrid(*[w] * 4, indexing="ij"), axis=-1).reshape(-1, 4), axis=1)
    b = m.theta[0] * axes @ np.linalg.cholesky(k).T
    eta = m.estimate.beta[0] + m.estimate.beta[1] * d["x"] + b[:, d["b"]]
    k = d["y"] * d["n"]
    truth = np.log(weight @ np.exp((k * eta - d["n"] * np.logaddexp(0, eta)).sum(axis=1)))
    assert check.gap == pytest.approx(truth - m.loglik, abs=4 * check.gap_noise + 1e-5)


def test_the_shape_of_a_pareto_tail():
    x = np.sort(np.random.default_rng(5).pareto(2.0, 4000))  # 1 + x has the tail x^-2: shape 1 / 2
    k, scale = pareto(x)
    assert k == pytest.approx(0.5, abs=0.06)  # a standard error of 0.024
    assert scale == pytest.approx(0.5, abs=0.05)


def test_nodes_are_added_until_the_integral_settles():
    rng = np.random.default_rng(8)
    g = np.repeat(np.arange(80), 5)
    x = rng.normal(size=len(g))
    y = (rng.logistic(size=len(g)) < x - 2 + 4 * rng.normal(size=80)[g]).astype(float)
    m = rf.fit("y ~ x + (1 | g)", {"y": y, "x": x, "g": g}, family="binomial")
    check = rf.laplace_check(m)
    many = rf.laplace_check(m, nodes=101).integral_loglik
    assert check.settled
    assert check.matters
    # Steps of less than 0.05 shrink by about a half each.
    assert abs(check.integral_loglik - many) < 0.1
    assert abs(rf.laplace_check(m, nodes=3).integral_loglik - many) > 1
    note = next(n for n in m.messages if n.code == "small_clusters")
    assert f"use quadrature={check.nodes}" in note.text


STRUCTURES = {
    "(1 | g)": True, "(x | g)": True, "(x + x1 + x2 | g)": True, "ar1(0 + factor(t) | g)": True,
    "diag(0 + f | g)": True, "(1 | h/g)": True, "(x + x1 | h/g)": True, "(x + x1 + x2 | h/g)": True,
    "diag(0 + factor(t):f | g)": False, "(1 | g) + (1 | c)": False, "rr(0 + f | g, d = 1)": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def binary_rows():
    rng = np.random.default_rng(12)
    n, groups = 320, 80
    g = np.arange(n) % groups
    data = {"g": g, "h": g // 5, "c": rng.integers(0, 6, n), "t": np.arange(n) // groups}
    data |= {"f": rng.choice(list("abcd"), n)}
    data |= {name: rng.normal(size=n) for name in ("x", "x1", "x2")}
    eta = 2 * rng.normal(size=groups)[g] + rng.normal(size=groups)[g] * data["x"]
    return data | {"y": (rng.uniform(size=n) < 1 / (1 + np.exp(-eta))).astype(float)}


@pytest.mark.parametrize(("term", "integrable"), STRUCTURES.items(), ids=STRUCTURES)
def test_advised_nodes_are_accepted(term, integrable, binary_rows):
    """What the note proposes is accepted; where quadrature cannot be, it is not named."""
    m = rf.fit(f"y ~ x + {term}", binary_rows, family="binomial")
    note = next((n.text for n in m.messages if n.code == "small_clusters"), "")
    assert note
    asked = re.findall(r"quadrature=(\d+)", note)
    assert bool(asked) == integrable, note
    for nodes in asked:
        check_quadrature(int(nodes), m.design)
    for most in re.findall(r"up to (\d+)", note):
        check_quadrature(int(most), m.design)


def test_too_many_columns_for_three_nodes_are_sampled(binary_rows):
    m = rf.fit("y ~ x + diag(0 + factor(t):f | g)", binary_rows, family="binomial")
    assert rf.laplace_check(m, draws=200).how == rf.laplace_check(m).how != "quadrature"
    with pytest.raises(OptionError, match=r"3\^16"):
        rf.laplace_check(m, nodes=3)
