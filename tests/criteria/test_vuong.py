"""Likelihood contributions of independent groups, and Vuong's test."""

from __future__ import annotations

import numpy as np
import pytest

import ranef as rf
from engines import zoo
from ranef.criteria.contributions import contributions, units
from ranef.errors import DataError, NotAvailableError

MODELS = [
    ("Reaction ~ Days + (Days | Subject)", "sleepstudy", {"method": "ml"}, 18),
    ("strength ~ 1 + (1 | batch/cask)", "Pastes", {"method": "ml"}, 10),
    ("Reaction ~ Days", "sleepstudy", {"method": "ml"}, 180),
    ("cbind(incidence, size - incidence) ~ period + (1 | herd)", "cbpp", {"family": "binomial"}, 15),
    ("cbind(incidence, size - incidence) ~ period + (1 | herd)", "cbpp", {"family": "binomial", "quadrature": 9}, 15),
    ("count ~ mined + (1 | site)", "Salamanders", {"family": "nbinom2", "zero_inflation": "~ mined"}, 23),
    ("rating ~ temp + contact + (1 | judge)", "wine", {"family": "cumulative"}, 9),
    ("count ~ mined", "Salamanders", {"family": "poisson"}, 644),
    ("Reaction ~ Days + (Days | Subject)", "sleepstudy", {"method": "ml", "dispersion": "~ Days"}, 18),
]


@pytest.mark.parametrize(("formula", "data", "arguments", "count"), MODELS)
def test_contributions_sum_to_the_log_likelihood(formula, data, arguments, count):
    fit = rf.fit(formula, rf.datasets.load(data), **arguments)
    found = contributions(fit, units([fit]))
    assert len(found) == count
    assert found.sum() == pytest.approx(fit.loglik, abs=1e-7)


def test_a_contribution_is_the_density_of_its_rows():
    """Dense multivariate normal density of a group, weights and offset included."""
    from scipy.stats import multivariate_normal

    fit = rf.fit("y ~ x + (x | g)", zoo.data(), method="ml", precision_weights="w", offset="z")
    found = contributions(fit, units([fit]))
    design = fit.design
    x = np.column_stack([np.ones(60), zoo.data()["x"]])
    mean = x @ fit.estimate.beta + design.offset
    level = int(design.terms[0].codes[0])
    rows = design.terms[0].codes == level
    v = fit.sigma**2 * np.diag(1 / design.weights[rows]) + x[rows] @ fit.varcorr()["g"].cov @ x[rows].T
    unit = units([fit])[rows][0]
    assert found[unit] == pytest.approx(multivariate_normal(mean[rows], v).logpdf(design.y[rows]), abs=1e-8)


def test_vuong_is_antisymmetric_and_penalises():
    data = rf.datasets.load("Salamanders")
    a = rf.fit("count ~ spp + mined + (1 | site)", data, family="nbinom2")
    b = rf.fit("count ~ DOY + (1 | site)", data, family="poisson")
    one, two = rf.vuong(a, b), rf.vuong(b, a)
    np.testing.assert_allclose(one.table["statistic"], -two.table["statistic"])
    np.testing.assert_array_equal(one.table["favoured"], [1, 1, 1])
    assert one.units == 23
    spread = np.sqrt(23) * one.differences.std()
    expected = np.array([0, a.npar - b.npar, (a.npar - b.npar) * np.log(23) / 2])
    np.testing.assert_allclose(one.table["statistic"], (one.differences.sum() - expected) / spread)


def test_p_values_are_uniform_where_the_models_are_equally_wrong():
    """Two predictors of equal weight, one in each model: neither is favoured."""
    rng = np.random.default_rng(3)
    p = []
    for _ in range(150):
        x, z = rng.normal(size=(2, 200))
        y = 0.5 * x + 0.5 * z + rng.normal(size=200)
        data = {"y": y, "x": x, "z": z}
        p.append(rf.vuong(rf.fit("y ~ x", data), rf.fit("y ~ z", data)).table["p_value"][0])
    assert 0.005 < np.mean(np.array(p) < 0.05) < 0.11  # three standard errors of 150
    assert abs(np.mean(p) - 0.5) < 0.09


def test_refusals():
    data = zoo.data()
    fits = {f: rf.fit(f, data) for f in ("y ~ x + (1 | g)", "y ~ x", "y ~ x + (1 | g) + (1 | h)", "y ~ z + (1 | g)")}
    with pytest.raises(DataError, match="is nested in"):
        rf.vuong(fits["y ~ x + (1 | g)"], fits["y ~ x"])
    with pytest.raises(NotAvailableError, match="crossed groups"):
        rf.vuong(fits["y ~ x + (1 | g) + (1 | h)"], fits["y ~ z + (1 | g)"])
    owls = rf.datasets.load("Salamanders")
    plain = rf.fit("count ~ mined", owls, family="poisson")
    with pytest.raises(NotAvailableError, match="Wilson 2015"):
        rf.vuong(plain, rf.fit("count ~ mined", owls, family="poisson", zero_inflation="~ 1"))
    with pytest.raises(DataError, match="same likelihood in every unit"):
        rf.vuong(fits["y ~ z + (1 | g)"], rf.fit("y ~ I(2 * z) + (1 | g)", data))


def test_zero_inflation_against_another_family():
    """Neither of ZIP and NB2 contains the other, and where they meet, Poisson, is a boundary of both."""
    data = rf.datasets.load("Salamanders")
    zip_, nb, poisson = (
        rf.fit("count ~ mined", data, family=f, zero_inflation=z)
        for f, z in (("poisson", "~ 1"), ("nbinom2", None), ("poisson", None))
    )
    assert np.isfinite(rf.vuong(zip_, nb).table["statistic"]).all()
    with pytest.raises(NotAvailableError, match="Wilson 2015"):
        rf.vuong(nb.update(zero_inflation="~ 1"), poisson)
