"""Single models of spaMM, betareg and metafor that the other packages' tables do not hold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from scipy.special import expit, gamma, kv

import ranef as rf
from golden import glmm

# spaMM is at the optimum: our estimates agree to 3e-8 at a tolerance of 1e-12, and to 1.2e-6, 1e-5 of a standard error,
# at its usual one. Standard errors of spaMM take the variances as known. Inner searches end some 1e-7 below the modes.
LOGLIK = 2e-7
ESTIMATE = 1e-6
POLISHED = 1e-7


def estimates(ref):
    return {row["term"]: row["estimate"] for row in ref["fixef"]}


def params_of(m, ref):
    return {name: m.params[name] for name in estimates(ref) if name in m.params}


@pytest.mark.parametrize(("name", "data", "family"), [
    ("spamm_nb", "sim_counts", "nbinom2"), ("spamm_gamma_glmm", "sim_cont", "gamma"),
])  # fmt: skip
def test_spamm(name, data, family):
    ref = glmm.load(name)
    m = rf.fit(ref["formula"], rf.datasets.load(data), family=family, link="log", control={"tolerance": 1e-12})
    assert m.loglik == pytest.approx(ref["logLik"], abs=LOGLIK)
    assert_allclose(list(params_of(m, ref).values()), [*estimates(ref).values()], atol=POLISHED)
    assert m.varcorr()["g"].sd[0] ** 2 == pytest.approx(ref["lambda"][0], rel=1e-5)
    assert_allclose(m.fitted()[:6], ref["fitted"], rtol=1e-5)
    assert_allclose(m.estimate.modes[0][:6, 0], ref["ranef_head"]["( 1 | g )"], atol=1e-5)
    if family == "gamma":
        assert m.sigma**2 == pytest.approx(ref["phi"][0], rel=1e-5)


def laplace(m, k):
    """Laplace's approximation of a binomial model with an effect of every row, of covariance k: dense Newton steps."""
    n, eta, inverse = np.asarray(m.design.trials), m.predict(re="none", type="link"), np.linalg.inv(k)
    y, b = np.rint(np.asarray(m.design.y) * n), np.zeros(len(eta))
    for _ in range(50):
        p = expit(eta + b)
        bend = np.diag(n * p * (1 - p)) + inverse
        b += np.linalg.solve(bend, y - n * p - inverse @ b)
    return stats.binom.logpmf(y, n, expit(eta + b)).sum() - 0.5 * (b @ inverse @ b + np.linalg.slogdet(bend @ k)[1])


def test_spamm_spatial():
    """PQL/L is no maximum of the likelihood: at its estimates, Laplace's approximation and the modes are compared."""
    ref, data = glmm.load("spamm_loaloa_matern"), rf.datasets.load("Loaloa")
    places = [f"site{i:03d}" for i in range(len(data))]
    points, smooth = data[["longitude", "latitude"]].to_numpy(), ref["corrPars"]["1"]["nu"]
    x = ref["corrPars"]["1"]["rho"] * np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1)) + np.eye(len(data))
    matern = x**smooth * kv(smooth, x) / (2 ** (smooth - 1) * gamma(smooth))
    np.fill_diagonal(matern, 1.0)
    formula = ref["formula"].partition("Matern")[0] + "equalto(0 + site | one, K)"
    m = rf.fit(
        formula, data.assign(site=places, one="all"), family="binomial", fixed=estimates(ref),
        env={"K": (matern * ref["lambda"][0], places)},
    )  # fmt: skip
    assert m.npar == 0
    assert m.loglik == pytest.approx(laplace(m, matern * ref["lambda"][0]), abs=LOGLIK)
    assert m.loglik == pytest.approx(ref["logLik"], abs=1e-5)  # spaMM's inner iteration stops 5e-6 above
    assert_allclose(m.fitted()[:6], ref["fitted"], rtol=5e-6)
    assert_allclose(m.estimate.modes[0][0, :6], next(iter(ref["ranef_head"].values())), atol=5e-6)


def test_betareg():
    """Standard errors of betareg are of the expected information, ours of the observed one: not compared."""
    ref = glmm.load("misc_betareg")
    m = rf.fit(ref["formula"], rf.datasets.load("FoodExpenditure"), family="beta")
    assert m.loglik == pytest.approx(ref["logLik"], abs=1e-9)
    assert m.aic == pytest.approx(ref["AIC"], abs=1e-8)
    theirs = estimates(ref)
    assert m.sigma == pytest.approx(theirs.pop("(phi)"), rel=1e-6)
    assert_allclose([m.params[name] for name in theirs], [*theirs.values()], atol=ESTIMATE)
    assert_allclose(m.fitted()[:6], ref["fitted"], rtol=1e-6)


#: Model of metafor -> formula, nodes; effect, its standard error and the variances at the optimum, which metafor's
#: search misses by up to 1e-4 (scripts/62_exact.R: Newton steps from lme4's and glmmTMB's end).
TABLES = {
    "UM_FS": (
        "cbind(yes, no) ~ 0 + trial + treated + (0 + side | trial)", 7,
        (-0.7450033822, 0.1755622200), [0.2948860124],
    ),
    "UM_RS": (
        "cbind(yes, no) ~ treated + (1 | trial) + (0 + side | trial)", 1,
        (-0.7616489583, 0.1821413512), [1.8616004226, 0.3198597437],
    ),
}  # fmt: skip


@pytest.mark.parametrize("model", TABLES)
def test_meta_analysis_of_tables(model):
    """Two arms of each trial, the effect of treatment random."""
    formula, nodes, treated, variances = TABLES[model]
    ref, trials = glmm.load("meta_glmm")[model], rf.datasets.load("dat_bcg")
    arms = pd.concat([
        pd.DataFrame({"trial": trials["trial"].astype(str), "yes": trials[yes], "no": trials[no], "treated": treated})
        for yes, no, treated in (("tpos", "tneg", 1.0), ("cpos", "cneg", 0.0))
    ])  # fmt: skip
    m = rf.fit(formula, arms.assign(side=arms["treated"] - 0.5), family="binomial", quadrature=nodes)
    row = m.tidy("fixed").set_index("term").loc["treated"]
    # a log-likelihood good to 1e-9 leaves 4e-5 standard errors; those of UM_FS in R are second differences
    assert_allclose(row[["estimate", "std_error"]].astype(float), treated, atol=1e-6)
    found = [t.sd[0] ** 2 for t in m.varcorr().values()]
    assert_allclose(found, variances, rtol=5e-6)
    assert row["estimate"] == pytest.approx(ref["beta"], abs=1e-4)
    assert_allclose(found, [ref["sigma2"], ref["tau2"]] if "sigma2" in ref else [ref["tau2"]], rtol=1e-3)
