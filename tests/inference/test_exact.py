"""Exact tests: their null distributions against fits to simulated responses."""

from __future__ import annotations

import numpy as np
import pytest

import ranef as rf
from engines import zoo
from ranef.errors import DataError, NotAvailableError, OptionError
from ranef.inference.exact import balanced, grouped, restricted_draws, spectrum, supremum
from ranef.inference.pb_test import drawn_ratios


@pytest.fixture(scope="module")
def unbalanced():
    return rf.fit("y ~ x + f + (0 + z | g)", zoo.data(), precision_weights="w")


def quantiles(draws) -> np.ndarray:
    return np.quantile(draws, [0.8, 0.9, 0.95])


def test_restricted_law_is_that_of_refits(unbalanced):
    null = rf.fit("y ~ x + f", zoo.data(), precision_weights="w")
    ratios, _ = drawn_ratios(null, unbalanced, 4_000, np.random.default_rng(1))
    test = rf.exact_rlrt(unbalanced, n=20_000, seed=2)
    assert test.at_zero == pytest.approx(float((ratios < 1e-8).mean()), abs=0.03)  # four standard errors
    # Quantiles of 4,000 draws: the density at 0.95 is about 0.03, so four standard errors are 0.45.
    np.testing.assert_allclose(quantiles(test.draws), quantiles(ratios), atol=0.45)


def test_plain_law_is_that_of_refits(unbalanced):
    full = unbalanced.update(method="ml")
    null = rf.fit("y ~ x", zoo.data(), precision_weights="w", method="ml")
    ratios, _ = drawn_ratios(null, full, 4_000, np.random.default_rng(1))
    test = rf.exact_lrt(full, null, n=20_000, seed=2)
    assert test.statistic == pytest.approx(null.criterion - full.criterion, abs=1e-6)
    np.testing.assert_allclose(quantiles(test.draws), quantiles(ratios), atol=0.5)  # as above, with a longer tail


def test_eigenvalues_are_those_of_the_dense_matrix(unbalanced):
    mu, xi, rank = spectrum(unbalanced)
    design = unbalanced.design
    root = np.sqrt(design.weights)[:, None]
    z = root * np.eye(8)[design.terms[0].codes] * zoo.data()["z"].to_numpy()[:, None]
    x = root * rf.frame.matrix(design.fixed, 60)
    p0 = np.eye(60) - x @ np.linalg.pinv(x)
    np.testing.assert_allclose(np.sort(mu), np.linalg.eigvalsh(z.T @ p0 @ z)[-len(mu) :], rtol=1e-8)
    np.testing.assert_allclose(np.sort(xi), np.linalg.eigvalsh(z.T @ z), rtol=1e-8)
    assert rank == 4


def test_equal_eigenvalues_are_one():
    values, counts = grouped(np.array([3.0, 3.0, 2.0]))
    np.testing.assert_allclose(values, [3, 2])
    np.testing.assert_allclose(counts, [2, 1])
    many = np.linspace(1.0, 1.05, 500)[::-1]
    values, counts = grouped(many)
    assert counts.sum() == 500


def test_many_eigenvalues_grouped_change_nothing_that_shows():
    mu = np.linspace(50, 10, 300)
    close = restricted_draws(mu, 500, 4_000, np.random.default_rng(1))
    exact = restricted_draws(mu[:200], 500, 4_000, np.random.default_rng(1))
    assert np.isfinite(close).all()
    assert abs((close == 0).mean() - (exact == 0).mean()) < 0.05


def test_a_named_term_makes_the_three_models():
    fit = rf.fit("y ~ x + (1 | g) + (0 + x | g)", zoo.data())
    test = rf.exact_rlrt(fit, seed=3, term="(0 + x | g)")
    by_hand = rf.exact_rlrt(
        rf.fit("y ~ x + (0 + x | g)", zoo.data()), fit, rf.fit("y ~ x + (1 | g)", zoo.data()), seed=3
    )
    assert test.statistic == pytest.approx(by_hand.statistic, abs=1e-6)
    np.testing.assert_array_equal(test.draws, by_hand.draws)
    assert not test.exact
    assert "an approximation" in repr(test)
    frame = test.to_frame()
    assert list(frame.columns) == ["test", "statistic", "p_value", "draws", "at_zero"]


def test_reml_and_ml_fits_give_the_same():
    reml, ml = (rf.fit("y ~ x + (1 | g)", zoo.data(), method=m) for m in ("reml", "ml"))
    a, b = rf.exact_rlrt(reml, seed=1), rf.exact_rlrt(ml, seed=1)
    assert a.statistic == pytest.approx(b.statistic)
    assert a.p_value == b.p_value


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda m: rf.exact_rlrt(m("y ~ x + (x | g)")), NotAvailableError, "one variance component"),
        (lambda m: rf.exact_rlrt(m("y ~ x")), NotAvailableError, "this has 0 terms"),
        (lambda m: rf.exact_rlrt(m("y ~ x + (1 | g)"), m("y ~ x + (1 | g)")), OptionError, "together"),
        (lambda m: rf.exact_rlrt(m("y ~ x + (1 | g) + (1 | h)"), term="k"), OptionError, r"\(1 \| g\), \(1 \| h\)"),
        (lambda m: rf.exact_rlrt(m("y ~ x + (1 | g)"), n=0), OptionError, "positive whole number"),
        (lambda m: rf.exact_lrt(m("y ~ x + (1 | g)"), m("y ~ z")), DataError, "not among those"),
        (lambda m: rf.exact_lrt(m("y ~ x + (1 | g)"), m("y ~ x + (1 | h)")), NotAvailableError, "without random"),
    ],
)
def test_refusals(call, error, says):
    with pytest.raises(error, match=says):
        call(lambda formula: rf.fit(formula, zoo.data()))


def test_balanced_draws_in_closed_form():
    rng = np.random.default_rng(1)
    square, rest = rng.chisquare(9, 2000), rng.chisquare(50, 2000)
    closed = balanced(square, rest, 9.0, 59)
    mu = np.array([4.0])
    searched = supremum(square[:, None], rest, mu, mu, np.array([9.0]), 59)
    # The search has a grid and one parabola: it stops short of the maximum by at most a thousandth.
    assert (closed >= searched - 1e-12).all()
    np.testing.assert_allclose(closed, searched, atol=1e-3)
    assert (closed >= 0).all()
