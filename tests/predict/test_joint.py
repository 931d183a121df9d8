"""Standard errors of what joins several linear predictors, beside glmmTMB's and beside difference quotients."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import ranef as rf
from ranef.families import Data
from ranef.predict.joint import mean_slopes
from ranef.predict.rows import fitted_predictors, law

GOLDEN = Path(__file__).parents[1] / "golden" / "models" / "tmbpost_sal_predict.json"
CASES = {
    "zero-inflated": {"family": "poisson", "zero_inflation": "~ x"},
    "hurdle": {"family": "truncated_poisson", "zero_inflation": "~ x"},
    "truncated": {"family": "truncated_poisson"},
    "hurdle with dispersion": {"family": "truncated_nbinom2", "zero_inflation": "~ 1", "dispersion": "~ x"},
    "random zeros": {"family": "poisson", "zero_inflation": "~ x + (1 | g)"},
    "ordered beta": {"family": "ordered_beta", "lower": "~ x"},
    "lumps at both ends": {"family": "zero_one_inflated_beta", "zoi": "~ x + (1 | g)"},
}
RESPONSES = {"truncated": "positive", "ordered beta": "share", "lumps at both ends": "share"}


def data(n=240):
    rng = np.random.default_rng(6)
    g, x = np.arange(n) % 12, rng.normal(size=n)
    mu = np.exp(1.0 + 0.4 * x + 0.5 * rng.normal(size=12)[g])
    y = rng.poisson(mu * rng.gamma(3.0, 1 / 3.0, size=n)) * (rng.uniform(size=n) > 0.25)
    share = np.clip(rng.beta(mu, 3.0) * 1.2 - 0.1, 0, 1)
    return {"y": y.astype(float), "positive": np.maximum(y, 1).astype(float), "share": share, "x": x, "g": g}


DATA = data()


def fitted(name):
    return rf.fit(f"{RESPONSES.get(name, 'y')} ~ x + (1 | g)", DATA, **CASES[name])


@pytest.fixture(scope="module")
def salamanders():
    return rf.fit(
        "count ~ spp + mined + (1 | site)", rf.datasets.load("Salamanders"), family="nbinom2", zero_inflation="~ mined"
    )


def test_population_as_glmmtmb(salamanders):
    ref = json.loads(GOLDEN.read_text())
    found = salamanders.predict(pd.DataFrame(ref["newdata"]), re="none", std_error=True)
    # Both are delta-method errors from exact Hessians.
    assert_allclose(found["estimate"], ref["response_population"]["fit"], rtol=1e-5)
    assert_allclose(found["std_error"], ref["response_population"]["se"], rtol=1e-4)


def test_given_the_random_effects_as_glmmtmb(salamanders):
    ref = json.loads(GOLDEN.read_text())
    rows = pd.DataFrame(ref["newdata"]).head(3)
    found = salamanders.predict(rows, new_levels="population", std_error=True)
    assert_allclose(found["estimate"], ref["response"]["fit"][:3], rtol=1e-5)
    # glmmTMB's hold the uncertainty of the variance too, ours are given theta: 1 to 2 percent here.
    assert_allclose(found["std_error"], ref["response"]["se"][:3], rtol=0.03)


def test_every_type_of_a_hurdle_model_as_glmmtmb():
    ref = json.loads((GOLDEN.parent / "tmbpost_sal_hurdle.json").read_text())
    m = rf.fit(
        "count ~ spp + mined + (1 | site)", rf.datasets.load("Salamanders"), family="truncated_nbinom2",
        zero_inflation="~ spp + mined", dispersion="~ mined",
    )  # fmt: skip
    rows = pd.DataFrame(ref["newdata"])
    for re, theirs in (("none", ref["population"]), ("all", ref["modes"])):
        for kind, values in theirs.items():
            found = m.predict(rows, re=re, type=kind, new_levels="population", std_error=True)
            assert_allclose(found["estimate"], values["fit"], rtol=1e-4, err_msg=kind)  # two optima
            # Those given the modes hold the uncertainty of the variance too in glmmTMB, ours are given theta.
            assert_allclose(found["std_error"], values["se"], rtol=1e-3 if re == "none" else 0.03, err_msg=kind)


def test_zero_inflation_on_both_scales_as_glmmtmb(salamanders):
    ref = json.loads(GOLDEN.read_text())
    rows = pd.DataFrame(ref["newdata"]).head(3)
    for kind in ("zprob", "zlink"):
        found = salamanders.predict(rows, type=kind, re="none", std_error=True)
        assert_allclose(found["estimate"], ref[kind]["fit"][:3], rtol=1e-4)  # near 0 the likelihood is flat
        assert_allclose(found["std_error"], ref[kind]["se"][:3], rtol=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_conditional_is_the_response_without_extra_zeros(name):
    m = fitted(name)
    found = m.predict(type="conditional", std_error=True)
    zero = m.predict(type="zero_inflation") if m.distribution.zero_inflation else 0.0
    assert_allclose(found["estimate"] * (1 - zero), m.predict(), rtol=1e-12)
    assert (found["std_error"] > 0).all()


@pytest.mark.parametrize("name", CASES)
def test_slopes_are_difference_quotients(name):
    m = fitted(name)
    rows, eta = fitted_predictors(m)
    exact, answers, h = mean_slopes(m.distribution, eta, rows.data), law(m), 1e-5
    for k in range(eta.shape[1]):
        step = h * (np.arange(eta.shape[1]) == k)
        quotient = (answers.mean(eta + step, rows.data) - answers.mean(eta - step, rows.data)) / (2 * h)
        assert_allclose(exact[:, k], quotient, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_errors_come_from_the_joint_covariance(name):
    m = fitted(name)
    new = {k: v[:5] for k, v in DATA.items()}
    found = m.predict(new, re="none", interval="confidence")
    beta, cov = np.array(m.estimate.beta), np.asarray(m.vcov("all"))
    parts = m.layout.components
    x = {c.name: np.column_stack([np.ones(5), new["x"]])[:, : len(c.names)] for c in parts}

    def response(b):
        eta = np.column_stack([x[c.name] @ b[c.at] for c in parts])
        return law(m).mean(eta, Data(np.zeros(5)))

    quotient = np.column_stack(
        [(response(beta + 1e-5 * e) - response(beta - 1e-5 * e)) / 2e-5 for e in np.eye(len(beta))]
    )
    assert_allclose(found["std_error"], np.sqrt(np.einsum("ij,jk,ik->i", quotient, cov, quotient)), rtol=1e-5)
    assert (np.asarray(found["conf_low"]) > 0).all()
    assert (np.asarray(found["conf_low"]) < found["estimate"]).all()
    assert (np.asarray(found["conf_high"]) > found["estimate"]).all()


def test_included_random_effects_add_their_uncertainty():
    m = fitted("random zeros")
    with_effects = m.predict(std_error=True)
    assert np.isfinite(with_effects["std_error"]).all()
    new = m.predict({"x": DATA["x"][:2], "g": np.array([99, 99])}, new_levels="population", std_error=True)
    none = m.predict({"x": DATA["x"][:2]}, re="none", std_error=True)
    assert (np.asarray(new["std_error"]) > none["std_error"]).all()


@pytest.mark.parametrize("name", CASES)
def test_averages_over_the_random_effects(name):
    m = fitted(name)
    new, rng = {k: v[:2] for k, v in DATA.items() if k != "g"}, np.random.default_rng(2)
    found = m.predict(new, re="integrate")
    eta = np.column_stack(
        [[np.r_[1, x][: len(c.names)] @ m.estimate.beta[c.at] for x in new["x"]] for c in m.layout.components]
    )
    draws = []
    for _ in range(4000):
        at = eta.copy()
        for t, info in enumerate(m.layout.terms):
            k = [c.name for c in m.layout.components].index(info.component)
            at[:, k] += m.estimate.roots[t][0, 0] * rng.normal()
        draws.append(law(m).mean(at, Data(np.zeros(2))))
    # 4,000 draws: their mean has a standard error of a sixtieth of their spread.
    assert_allclose(found, np.mean(draws, axis=0), atol=4 * np.std(draws, axis=0).max() / np.sqrt(4000))
