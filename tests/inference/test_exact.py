"""Exact tests: their null distributions against fits to simulated responses."""

from __future__ import annotations

import numpy as np
import pytest

import ranef as rf
from engines import zoo
from ranef.errors import DataError, NotAvailableError, OptionError
from ranef.inference import exact_draws
from ranef.inference.exact import lowered, spectrum
from ranef.inference.exact_draws import LAW, plain_draws, restricted_draws, rule
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


def test_eigenvalues_with_ties():
    rng = np.random.default_rng(1)
    own, shared = rng.integers(1, 6, 60).astype(float), rng.normal(size=(60, 3)) / 30
    expected = np.linalg.eigvalsh(np.diag(own) - shared @ shared.T)
    np.testing.assert_allclose(lowered(own, shared), expected, atol=1e-13)
    np.testing.assert_allclose(lowered(own, shared[:, :0]), np.sort(own))  # no fixed effects
    np.testing.assert_allclose(
        lowered(own[:2], shared[:2]), np.linalg.eigvalsh(np.diag(own[:2]) - shared[:2] @ shared[:2].T)
    )


# ---- laws ------------------------------------------------------------------------------------------------------------


def by_hand(mu, xi, df: int, power: int, n: int, rng, left_out: int = 0) -> np.ndarray:
    """Draw from the law as it is written: a normal variable for every eigenvalue, suprema over 1,000 points."""
    squares = rng.chisquare(1.0, (n, len(mu)))
    rest = rng.chisquare(df - len(mu), n) if df > len(mu) else np.zeros(n)
    grid = np.r_[0.0, np.exp(np.linspace(-12, 14, 1_000)) / mu.mean()]
    penalty = np.log1p(grid[:, None] * xi).sum(axis=1)
    total = squares.sum(axis=1) + rest
    left = squares @ (1 / (1 + np.outer(mu, grid))) + rest[:, None]
    found = (power * np.log(total[:, None] / left) - penalty).max(axis=1)
    return found + (power * np.log1p(rng.chisquare(left_out, n) / total) if left_out else 0.0)


LAWS = {
    "balanced": (np.full(17, 10.0), 178),
    "unbalanced": (np.geomspace(9.0, 4.0, 17), 124),
    "many": (np.geomspace(34.0, 1.0, 60), 400),
    "wide": (np.geomspace(500.0, 0.5, 9), 40),
    "no residual": (np.geomspace(5.0, 2.0, 8), 8),
}


@pytest.mark.parametrize("name", LAWS)
def test_draws_have_the_law_as_it_is_written(name):
    mu, df = LAWS[name]
    expected = by_hand(mu, mu, df, df, 4_000, np.random.default_rng(1))
    found = restricted_draws(mu, df, 200_000, np.random.default_rng(2))
    # Four standard errors of a share of 4,000: the whole distribution, its atom at 0 included.
    at = np.r_[1e-9, np.quantile(expected, [0.7, 0.8, 0.9, 0.95, 0.99])]
    share = (found[:, None] >= at).mean(axis=0)
    np.testing.assert_array_less(np.abs(share - (expected[:, None] >= at).mean(axis=0)), 4 * np.sqrt(0.25 / 4_000))
    assert (found >= 0).all()


def test_plain_draws_have_the_law_as_it_is_written():
    mu, xi = np.geomspace(9.0, 4.0, 17), np.geomspace(10.0, 4.5, 18)
    expected = by_hand(mu, xi, 122, 124, 4_000, np.random.default_rng(3), left_out=1)
    found = plain_draws(mu, xi, 124, 2, 1, 200_000, np.random.default_rng(4))
    at = np.quantile(expected, [0.2, 0.5, 0.8, 0.9, 0.95, 0.99])
    share = (found[:, None] >= at).mean(axis=0)
    np.testing.assert_array_less(np.abs(share - (expected[:, None] >= at).mean(axis=0)), 4 * np.sqrt(0.25 / 4_000))


def test_balanced_draws_in_closed_form():
    # One eigenvalue: the share of zeros is that of an F variable below 1 (Crainiceanu & Ruppert 2004, section 3).
    from scipy.special import fdtr

    draws = restricted_draws(np.full(9, 4.0), 59, 200_000, np.random.default_rng(1))
    assert (draws == 0).mean() == pytest.approx(fdtr(9, 50, 1.0), abs=4 * np.sqrt(0.25 / 200_000))


def test_same_seed_same_draws():
    mu = np.geomspace(9.0, 4.0, 17)
    once, again, other = (restricted_draws(mu, 60, 500, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()


def test_draws_do_not_depend_on_how_many_are_made_at_once(monkeypatch: pytest.MonkeyPatch):
    mu = np.geomspace(9.0, 4.0, 17)
    once = restricted_draws(mu, 60, 20_000, np.random.default_rng(1))
    monkeypatch.setattr(exact_draws, "AT_ONCE", 2 * 4096)
    np.testing.assert_array_equal(restricted_draws(mu, 60, 20_000, np.random.default_rng(1)), once)


def test_long_draws_show_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exact_draws, "AT_ONCE", 4096)
    monkeypatch.setattr("ranef.progress.PATIENCE", 0.0)
    monkeypatch.setattr("ranef.progress.PAUSE", 0.0)
    m = rf.fit("y ~ x + (1 | g)", zoo.data())
    rf.exact_rlrt(m, n=10_000, seed=1, progress=True)
    assert "draws of the null distribution: 4096 of 10000" in capsys.readouterr().err


@pytest.mark.parametrize("name", LAWS)
def test_cumulants_of_the_rule_are_those_of_the_eigenvalues(name):
    mu, _ = LAWS[name]
    nodes, counts = rule(mu, LAW / len(mu))
    assert counts.sum() == pytest.approx(len(mu))
    size = np.exp(np.linspace(-8, 8, 50))[:, None] / mu.mean()
    for power in (1, 2, 4):  # of cumulants of D and N, relative to the number of eigenvalues
        for of in (lambda m, k=power: (1 + size * m) ** -k, lambda m, k=power: (size * m / (1 + size * m)) ** k):
            np.testing.assert_allclose(of(nodes) @ counts, of(mu).sum(axis=1), atol=LAW / 10)


def test_rules_are_short_or_exact():
    values, counts = rule(np.array([3.0, 3.0, 2.0]), 1e-9)
    np.testing.assert_allclose(values, [3, 2])
    np.testing.assert_allclose(counts, [2, 1])
    assert len(rule(np.linspace(20.0, 10.0, 500), 1e-6)[0]) < 8
    two = np.r_[np.full(300, 10.0) + np.linspace(0, 1e-7, 300), np.full(300, 5.0)][::-1]
    values, counts = rule(np.sort(two)[::-1], 1e-9)  # clusters that a few nodes exhaust
    assert counts.sum() == pytest.approx(600)
    assert all(len(x) == 0 for x in rule(np.array([]), 1e-6))


def test_the_null_is_the_model_without_random_effects():
    data = zoo.data().copy()
    data.loc[3, "x"] = np.nan
    m = rf.fit("y ~ x + f + (1 | g) + offset(z)", data, precision_weights="w")
    null = rf.fit("y ~ x + f + offset(z)", data, precision_weights="w")
    assert rf.exact_rlrt(m, n=10).statistic == pytest.approx(max(null.criterion - m.criterion, 0.0), abs=1e-8)
    m, null = m.update(method="ml"), null.update(method="ml")
    assert rf.exact_lrt(m, n=10).statistic == pytest.approx(max(null.criterion - m.criterion, 0.0), abs=1e-8)


# ---- models ----------------------------------------------------------------------------------------------------------


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
