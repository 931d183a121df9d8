"""Chi-bar-square weights against closed forms, and p-values against simulated ratios."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

import ranef as rf
from ranef.inference import chibar
from ranef.inference.information import cone_information
from ranef.inference.nested import extension
from ranef.inference.pb_test import drawn_ratios

# Weights are shares of 20,000 draws (10,000 where the cone is curved): four standard errors are 0.014 and 0.02.
FLAT, CURVED = 0.014, 0.02


@pytest.mark.parametrize("d", [3, 4])
def test_independent_variances_are_binomial(d):
    found = chibar.mixture(np.eye(d) * 7.0, [(d, "orthant")], 0)
    expected = [comb(d, j) / 2**d for j in range(d + 1)]
    np.testing.assert_allclose(found.weights, expected, atol=FLAT)


@pytest.mark.parametrize("rho", [-0.6, 0.0, 0.5])
def test_two_variances_in_closed_form(rho):
    """The weight of both positive is the orthant probability; simulation agrees."""
    spread = np.array([[1.0, rho * 2], [rho * 2, 4.0]])
    metric = np.linalg.inv(spread)
    found = chibar.mixture(metric, [(2, "orthant")], 0)
    assert found.weights[2] == pytest.approx(0.25 + np.arcsin(rho) / (2 * np.pi))
    assert found.weights[1] == 0.5
    simulated = chibar.simulated(chibar.scaled(metric, [(2, "orthant")]), [(2, "orthant")])
    np.testing.assert_allclose(simulated, found.weights, atol=FLAT)


def test_semidefinite_cone_of_two_by_two():
    """With the trace metric it is a circular cone of half angle 45 degrees: (2 - sqrt 2) / 4, sqrt 2 / 4, twice."""
    found = chibar.mixture(np.diag([1.0, 2.0, 1.0]), [(2, "psd")], 0)
    outer, inner = (2 - np.sqrt(2)) / 4, np.sqrt(2) / 4
    np.testing.assert_allclose(found.weights, [outer, inner, inner, outer], atol=CURVED)


def test_weights_do_not_depend_on_the_units_of_a_slope():
    """The cone is the same after a change of units and of the origin of the slope."""
    a = np.array([[1.0, 3.0], [0.0, 0.2]])  # G -> A G A'
    cells = chibar.triangle(2)
    change = np.zeros((3, 3))
    for c, (i, j) in enumerate(cells):
        unit = np.zeros((2, 2))
        unit[i, j] = unit[j, i] = 1.0
        moved = a @ unit @ a.T
        change[:, c] = [moved[k, m] for k, m in cells]
    metric = np.diag([1.0, 2.0, 1.0])
    found = chibar.mixture(change.T @ metric @ change, [(2, "psd")], 0)
    np.testing.assert_allclose(found.weights, chibar.mixture(metric, [(2, "psd")], 0).weights, atol=CURVED)


def test_projection_of_two_by_two_matrices():
    """The closed form is that from eigenvectors, whatever the signs of the eigenvalues."""
    z = np.random.default_rng(1).normal(size=(200, 3))
    z[:2] = [[1.0, 0.0, 1.0], [-1.0, 0.0, -1.0]]  # equal eigenvalues
    np.testing.assert_allclose(chibar._two_by_two(z, 2), chibar._semidefinite(z, 2), atol=1e-12)


def test_bound_is_above_every_mixture():
    for rho in (-0.9, 0.0, 0.9):
        law = chibar.mixture(np.linalg.inv(np.array([[1, rho], [rho, 1]])), [(2, "orthant")], 1)
        for t in (0.5, 3.0, 20.0):
            assert law.p_value(t) <= chibar.bound(1, 2).p_value(t) + 1e-12
    assert str(chibar.bound(1, 2)) == "at most 0.5 chi2(2) + 0.5 chi2(3)"


def test_p_values():
    from scipy.stats import chi2

    assert chibar.half_and_half(0).p_value(0.0) == 1.0
    assert chibar.half_and_half(0).p_value(2.0) == pytest.approx(chi2.sf(2, 1) / 2)
    assert chibar.half_and_half(1).p_value(2.0) == pytest.approx((chi2.sf(2, 1) + chi2.sf(2, 2)) / 2)
    assert np.isnan(chibar.half_and_half(0).p_value(np.nan))


@pytest.fixture(scope="module")
def many_groups():
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(120), 6)
    x = rng.normal(size=720) + 1.0
    return {"y": rng.normal(size=720) + x, "x": x, "g": g}


@pytest.mark.parametrize("formula", ["y ~ x + (x || g)", "y ~ x + (x | g)"])
def test_the_mixture_is_the_law_of_the_ratio(many_groups, formula):
    """With 120 groups the simulated (restricted) ratios follow the mixture; the plain chi-square is far off."""
    null, full = rf.fit("y ~ x", many_groups), rf.fit(formula, many_groups)
    step = extension(null, full)
    law = chibar.mixture(cone_information(null, full, step.cones), [(2, step.cones[0].kind)], step.free)
    ratios, failures = drawn_ratios(null, full, 2_000, np.random.default_rng(8))
    assert not failures
    for share in (0.25, 0.1, 0.05):
        at = np.quantile(ratios, 1 - share)
        # The share has a standard error of at most 0.01; 120 groups are not yet infinitely many.
        assert law.p_value(at) == pytest.approx(share, abs=0.04)
    assert chibar.tail(float(np.quantile(ratios, 0.75)), step.df) > 0.35


def test_information_of_one_grouping_is_that_of_dense_matrices(many_groups):
    small = rf.fit("y ~ x + (1 | g)", many_groups, method="ml")
    large = rf.fit("y ~ x + (x | g)", many_groups, method="ml")
    step = extension(small, large)
    found = cone_information(small, large, step.cones)
    z = np.zeros((720, 120, 2))
    z[np.arange(720), many_groups["g"]] = np.column_stack([np.ones(720), many_groups["x"]])
    one, slope = z[:, :, 0], z[:, :, 1]
    v = small.sigma**2 * np.eye(720) + small.varcorr()["g"].cov[0, 0] * one @ one.T
    slopes = [one @ one.T, one @ slope.T + slope @ one.T, np.eye(720), slope @ slope.T]
    half = [np.linalg.solve(v, s) for s in slopes]
    full = np.array([[np.sum(a * b.T) / 2 for b in half] for a in half])
    expected = full[3, 3] - full[3, :3] @ np.linalg.solve(full[:3, :3], full[:3, 3])
    np.testing.assert_allclose(found, [[expected]], rtol=1e-8)  # the same algebra in another order


def test_information_of_several_groupings_is_that_of_dense_matrices():
    rng = np.random.default_rng(5)
    data = {
        "y": rng.normal(size=80),
        "g": rng.integers(0, 8, 80),
        "h": rng.integers(0, 6, 80),
        "w": rng.uniform(1, 3, 80),
    }
    small = rf.fit("y ~ 1 + (1 | g)", data, precision_weights="w")
    large = rf.fit("y ~ 1 + (1 | g) + (1 | h)", data, precision_weights="w")
    found = cone_information(small, large, extension(small, large).cones)
    zs = [np.eye(k)[data[name]] for name, k in (("g", 8), ("h", 6))]
    v = small.sigma**2 * np.diag(1 / data["w"]) + small.varcorr()["g"].cov[0, 0] * zs[0] @ zs[0].T
    slopes = [zs[0] @ zs[0].T, np.diag(1 / data["w"]), zs[1] @ zs[1].T]
    half = [np.linalg.solve(v, s) for s in slopes]
    full = np.array([[np.sum(a * b.T) / 2 for b in half] for a in half])
    expected = full[2, 2] - full[2, :2] @ np.linalg.solve(full[:2, :2], full[:2, 2])
    np.testing.assert_allclose(found, [[expected]], rtol=1e-8)
