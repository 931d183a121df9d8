"""The joint covariance of all parameters: other packages' numbers, difference quotients, and what is refused."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import ranef as rf
from engines import zoo
from golden import reference
from ranef.errors import NotAvailableError, OptionError
from ranef.inference.parameters import parameters, table

SLEEP = "Reaction ~ Days + (Days | Subject)"


def visits():
    """Subjects seen four times, twice each time, with slopes in x, at sites where zeros are more or less frequent."""
    rng = np.random.default_rng(4)
    lags = np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
    effects = rng.normal(size=(25, 4)) @ np.linalg.cholesky(0.6**lags).T
    i, t, _ = (v.ravel() for v in np.indices((25, 4, 2)))
    x, site = rng.normal(size=200), rng.integers(0, 10, 200)
    eta = effects[i, t] + (0.5 + 0.6 * rng.normal(size=25))[i] * x + 0.5 * rng.normal(size=10)[site]
    here = rng.random(200) > np.linspace(0.05, 0.7, 10)[site]
    data = {"id": i, "time": t, "x": x, "site": site}
    return {"y": eta + 0.7 * rng.normal(size=200), "c": here * rng.poisson(np.exp(1 + eta / 2)), **data}


@pytest.mark.parametrize(("method", "key"), [("ml", "vcov_full_observed"), ("reml", "vcov_full_reml")])
def test_a_linear_model_as_merderiv(method, key):
    """Theirs is of variances and covariances."""
    theirs = np.array(reference.load("post_sleepstudy_vcov_theta").raw[key]["matrix"])
    m = rf.fit(SLEEP, rf.datasets.load("sleepstudy"), method=method)
    (a, b), r, s = m.varcorr()["Subject"].sd, m.varcorr()["Subject"].corr[0, 1], m.sigma
    slopes = np.eye(6)
    slopes[2:, 2:] = [[2 * a, 0, 0, 0], [r * b, r * a, a * b, 0], [0, 2 * b, 0, 0], [0, 0, 0, 2 * s]]
    ours = slopes @ np.asarray(m.vcov(full=True)) @ slopes.T
    unit = np.sqrt(np.diag(theirs))
    # Their optimum is lme4's, found to 1e-5 of a parameter or so; after REML their Hessian is too.
    np.testing.assert_allclose(ours / np.outer(unit, unit), theirs / np.outer(unit, unit), atol=2e-4)


def test_a_generalised_model_as_glmmtmb():
    """Theirs is of log standard deviations."""
    theirs = np.array(reference.load("tmbpost_cbpp_sandwich").raw["vcov_full"]["matrix"])
    data = rf.datasets.load("cbpp")
    m = rf.fit("cbind(incidence, size - incidence) ~ period + (1 | herd)", data, family="binomial")
    slopes = np.diag([1, 1, 1, 1, 1 / m.varcorr()["herd"].sd[0]])
    ours = slopes @ m.vcov(full=True).to_numpy() @ slopes
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)  # theirs differentiates numerically, at an optimum of its own


STRUCTURED = [
    ("y ~ x + ar1(0 + factor(time) | id)", {}),
    ("y ~ x + hetar1(0 + factor(time) | id)", {"method": "ml"}),
    ("y ~ x + toep(0 + factor(time) | id)", {}),
    ("y ~ x + cs(0 + factor(time) | id) + (1 | site)", {}),
    ("y ~ x + (x | id)", {"dispersion": "~ x"}),
    ("c ~ x + (1 | site)", {"family": "nbinom2"}),
    ("c ~ x + ar1(0 + factor(time) | id)", {"family": "poisson"}),
    ("c ~ x + (1 | id)", {"family": "poisson", "zero_inflation": "~ (1 | site)"}),
]


@pytest.mark.parametrize(("formula", "more"), STRUCTURED)
def test_delta_method_by_difference_quotients(formula, more):
    m = rf.fit(formula, visits(), **more)
    found = m.vcov(full=True)
    joint, p = np.array(m.estimate.joint()), len(m.estimate.beta)
    if m.distribution.is_gaussian_identity:
        mean = len(m.layout.fixed)
        joint[:mean] = joint[:, :mean] = 0.0
        joint[:mean, :mean] = m.vcov()
    at, known = np.append(m.estimate.beta, m.theta), parameters(m)
    names = list(found)
    chosen = [i for i, q in enumerate(known) if q.label in names]

    def values(at):
        return table(m, at[None, :p], at[None, p:], np.array([m.sigma]))[0, chosen]

    h = 1e-6
    slopes = np.array([(values(at + e) - values(at - e)) / (2 * h) for e in h * np.eye(len(at))]).T
    expected = slopes @ joint @ slopes.T
    lost = np.isnan(expected).any(axis=0) & np.isnan(np.diag(found))  # lags of toep have no profile, so no value there
    assert [known[i].label for i in chosen] == names
    assert lost.sum() <= 2
    inside = np.ix_(~np.isnan(np.diag(expected)), ~np.isnan(np.diag(expected)))
    unit = np.sqrt(np.diag(expected)[inside[0].ravel()])
    ours = np.asarray(found)[inside] / np.outer(unit, unit)
    np.testing.assert_allclose(ours, expected[inside] / np.outer(unit, unit), atol=1e-6)


@pytest.mark.parametrize(
    "formula", ["slope", "crossed", "nested", "rank_deficient", "no_random", "two_terms_one_group"]
)
def test_errors_are_those_of_the_tables(formula):
    m = rf.fit(zoo.FORMULAS.get(formula, "y ~ x + (1 | g) + (0 + x | g)"), zoo.data())
    found = m.vcov(full=True)
    errors = np.sqrt(np.diag(found))
    np.testing.assert_allclose(errors, m.tidy(["fixed", "ran_pars"])["std_error"], rtol=1e-10)
    assert list(found.columns) == [p.label for p in parameters(m)]
    here = np.isfinite(errors)
    assert (
        np.linalg.eigvalsh(found.to_numpy()[np.ix_(here, here)] / np.outer(errors, errors)[np.ix_(here, here)])[0] > 0
    )
    size = len(m.estimate.beta)
    np.testing.assert_allclose(found.iloc[:size, :size], m.vcov("all"), rtol=1e-12)


def test_the_ratio_of_variances_by_the_delta_method():
    """Of an ICC it is what the observed information of (log sd, log sigma) says, in whatever parameters."""
    m = rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.load("Dyestuff"), method="ml")
    sd, sigma = m.varcorr()["Batch"].sd[0], m.sigma
    slope = np.array([2 * sd * sigma**2, -2 * sigma * sd**2]) / (sd**2 + sigma**2) ** 2
    error = np.sqrt(slope @ m.vcov(full=True).to_numpy()[1:, 1:] @ slope)
    # Balanced: ICC = (F - 1) / (F + 4) with a chi-square each for between (5/6 of them) and within.
    between, within, a, n = 5 * sd**2 + sigma**2, sigma**2, 6, 30
    ratio = between / within
    spread = ratio * np.sqrt(2 / a + 2 / (n - a))
    assert error == pytest.approx(5 / (ratio + 4) ** 2 * spread, rel=1e-4)


def test_held_and_singular_parameters_have_none():
    held = rf.fit("Reaction ~ Days + (1 | Subject)", rf.datasets.load("sleepstudy"), fixed={"sd(Subject)": 30.0})
    found = held.vcov(full=True)
    assert found.columns[np.isnan(np.diag(found))].tolist() == ["sd((Intercept) | Subject)"]
    flat = rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.load("Dyestuff2"))
    found = flat.vcov(full=True)
    assert np.isnan(np.diag(found)).tolist() == [False, True, False]
    assert np.isfinite(found.iloc[[0, 2], [0, 2]]).all(axis=None)


def test_kinds_of_frames_and_refusals():
    data = rf.datasets.load("sleepstudy")
    m = rf.fit(SLEEP, pl.from_pandas(data))
    found = m.vcov(full=True)
    assert found["sigma", "sigma"] == pytest.approx(found["sigma"]["sigma"])
    np.testing.assert_allclose(rf.fit(SLEEP, data).vcov(full=True), found)
    for kind, cluster in (("CR2", None), ("kenward-roger", None), ("model", "Subject")):
        with pytest.raises(NotAvailableError, match="covariance of coefficients"):
            m.vcov(kind=kind, cluster=cluster, full=True)
    with pytest.raises(OptionError, match="all parameters"):
        m.vcov("dispersion", full=True)
