"""Standard errors of averages over the random effects and of probabilities, beside difference quotients and draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import ranef as rf
from ranef.engines.covariance import frozen
from ranef.errors import NotAvailableError
from ranef.predict.joint import mean_slopes, probability_slopes
from ranef.predict.rows import fitted_predictors, law

N, GROUPS = 400, 25
CASES = {
    "binomial": ("hit ~ x + (x | g)", {"family": "binomial", "offset": "z"}, "response"),
    "diagonal": ("count ~ x + (x || g)", {"family": "poisson"}, "response"),
    "process": ("count ~ x + ar1(0 + t | g)", {"family": "poisson"}, "response"),
    "extra zeros": ("count ~ x + (1 | g)", {"family": "poisson", "zero_inflation": "~ z + (1 | g)"}, "response"),
    "one effect in two": (
        "count ~ x + (1 |p| g)",
        {"family": "poisson", "zero_inflation": "~ z + (1 |p| g)"},
        "response",
    ),
    "cumulative": ("grade ~ x + (1 | g)", {"family": "cumulative", "nominal": "~ z", "scale": "~ z"}, "probs"),
    "expected grade": ("grade ~ x + (1 | g)", {"family": "cumulative"}, "response"),
    "acat": ("grade ~ x + (1 | g)", {"family": "acat", "threshold": "equidistant"}, "probs"),
    "multinomial": ("kind ~ x + (1 | g)", {"family": "multinomial"}, "probs"),
}


def data():
    rng = np.random.default_rng(12)
    g, x, z = np.arange(N) % GROUPS, rng.normal(size=N), 0.5 * rng.normal(size=N)
    u = rng.normal(scale=0.8, size=(GROUPS, 2))[g]
    latent = 0.7 * x + u[:, 0] + rng.logistic(size=N)
    kind = np.array(["a", "b", "c"])[np.argmax(rng.gumbel(size=(N, 3)) + np.c_[0 * x, u[:, 0] + x, u[:, 1]], axis=1)]
    return pd.DataFrame({
        "g": g, "x": x, "z": z, "t": (np.arange(N) // GROUPS) % 4, "kind": kind, "hit": (latent > 0).astype(float),
        "count": rng.poisson(np.exp(0.8 + 0.4 * x + 0.5 * u[:, 0])) * (rng.uniform(size=N) > 0.25).astype(float),
        "grade": pd.Categorical.from_codes(np.digitize(latent, [-1.0, 0.6]), ["lo", "mid", "hi"], ordered=True),
    }).astype({"t": "category"})  # fmt: skip


DATA = data()


@pytest.fixture(scope="module", params=CASES)
def case(request):
    formula, arguments, kind = CASES[request.param]
    return rf.fit(formula, DATA, **arguments), kind


def values(found):
    """Return estimates and errors as matrices."""
    frame = pd.DataFrame(found)
    parts = [[c for c in frame if c.startswith(w)] for w in ("std_error", "conf_low", "conf_high")]
    rest = [c for c in frame if not any(c in p for p in parts)]
    return tuple(frame[p].to_numpy() for p in (rest, *parts))


def moved(m, at, step):
    """Return the fit with one of (beta, theta) moved."""
    e, p = m.estimate, len(m.estimate.beta)
    beta, theta = np.array(e.beta), np.array(e.theta)
    (beta if at < p else theta)[at if at < p else at - p] += step
    factors = tuple(map(frozen, m.core.stand(beta.tolist(), theta.tolist(), 1, "ml")["lambda"]))
    return replace(m, estimate=replace(e, beta=frozen(beta), theta=frozen(theta), factors=factors))


def test_errors_of_averages_are_the_delta_method(case):
    m, kind = case
    new = DATA[:4]
    _, error, low, high = values(m.predict(new, re="integrate", type=kind, interval="confidence"))

    def average(fit):
        found = fit.predict(new, re="integrate", type=kind)
        return (np.asarray(found) if kind == "probs" else found[:, None]).ravel()

    joint = np.asarray(m.estimate.joint())
    h = 1e-4
    quotient = np.column_stack(
        [(average(moved(m, j, h)) - average(moved(m, j, -h))) / (2 * h) for j in range(len(joint))]
    )
    moved(m, 0, 0.0)  # the core stands where it stood
    # Central differences of step h err by h^2, and quadrature of a derivative by as little as that of the function.
    assert_allclose(error.ravel(), np.sqrt(np.einsum("ij,jk,ik->i", quotient, joint, quotient)), rtol=1e-5)
    assert (low > 0).all()
    assert (low < high).all()
    assert kind != "probs" or (high < 1).all()


def test_slopes_are_difference_quotients(case):
    m, kind = case
    rows, eta = fitted_predictors(m)
    rows, eta, h = replace(rows, y=rows.y[:9], n=9), eta[:9], 1e-5
    for k in range(eta.shape[1]):
        step = h * (np.arange(eta.shape[1]) == k)
        if kind == "probs":
            exact = probability_slopes(m.distribution, eta)[:, :, k]
            up, down = law(m).probabilities(eta + step), law(m).probabilities(eta - step)
        else:
            exact = mean_slopes(m.distribution, eta, rows.data)[:, k]
            up, down = law(m).mean(eta + step, rows.data), law(m).mean(eta - step, rows.data)
        assert_allclose(exact, (up - down) / (2 * h), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("re", ["all", "none", "integrate"])
def test_probabilities_of_two_categories_are_a_binomial(re):
    d = DATA.assign(two=np.where(DATA["hit"] > 0, "b", "a"))
    wide = rf.fit("two ~ x + (1 | g)", d, family="multinomial")
    steps = rf.fit("two ~ x + (1 | g)", d.assign(two=pd.Categorical(d["two"], ordered=True)), family="cumulative")
    plain = rf.fit("hit ~ x + (1 | g)", d, family="binomial").predict(re=re, interval="confidence")
    for m in (wide, steps):
        found = m.predict(re=re, type="probs", interval="confidence")
        for name in ("std_error", "conf_low", "conf_high"):
            # Three searches that stop where the deviance would change by less than 1e-9.
            assert_allclose(found[f"{name}__b"], plain[name], rtol=1e-5)
        assert_allclose(found["std_error__a"], found["std_error__b"], rtol=1e-8)


def test_expected_number_of_two_categories_is_a_probability():
    d = DATA.assign(two=pd.Categorical(np.where(DATA["hit"] > 0, "b", "a"), ordered=True))
    m = rf.fit("two ~ x + (1 | g)", d, family="cumulative")
    found, share = m.predict(interval="confidence"), m.predict(type="probs", interval="confidence")
    for name in ("std_error", "conf_low", "conf_high"):
        assert_allclose(found[name], share[f"{name}__b"], rtol=1e-9)


def test_new_levels_add_their_variance():
    for formula, arguments, kind in (CASES["multinomial"], CASES["cumulative"], CASES["one effect in two"]):
        m = rf.fit(formula, DATA, **arguments)
        new = DATA[:2].assign(g=[900, 901])
        known = values(m.predict(new, re="none", type=kind, std_error=True))[1]
        found = values(m.predict(new, new_levels="population", type=kind, std_error=True))[1]
        assert (found > known).all()


def test_errors_do_not_depend_on_the_rows_asked_or_the_kind_of_frame():
    formula, arguments, kind = CASES["cumulative"]
    m = rf.fit(formula, DATA, **arguments)
    whole = m.predict(re="integrate", type=kind, interval="confidence")
    part = m.predict(DATA[7:9], re="integrate", type=kind, interval="confidence")
    assert_allclose(np.asarray(part), np.asarray(whole)[7:9], rtol=1e-10)
    slim = m.slim().predict(DATA[7:9], re="integrate", type=kind, interval="confidence")
    assert_allclose(np.asarray(slim), np.asarray(part), rtol=1e-12)
    blank = DATA[:2].assign(x=[np.nan, 0.0])
    assert m.predict(blank, re="integrate", type=kind, std_error=True).isna().to_numpy().all(axis=1).tolist() == [
        True, False,
    ]  # fmt: skip


def test_a_variance_of_zero_leaves_the_population():
    rng = np.random.default_rng(1)
    d = {"y": rng.poisson(2.0, 60).astype(float), "g": np.arange(60) % 6}
    m = rf.fit("y ~ 1 + (1 | g)", d, family="poisson")
    assert m.boundary
    a, b = (m.predict(re=re, interval="confidence") for re in ("integrate", "none"))
    for name in a:
        assert_allclose(a[name], b[name], rtol=1e-10)


def test_coverage_of_an_average():
    """Of 200 intervals of 95 percent between 180 and 200 hold the truth (a binomial's 99.9 percent and more)."""
    rng, held = np.random.default_rng(3), 0
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    truth = float(weights @ (1 / (1 + np.exp(-(0.5 + nodes)))) / weights.sum())
    g = np.arange(400) % 40
    for _ in range(200):
        eta = 0.5 + rng.normal(size=40)[g]
        d = {"y": (rng.uniform(size=400) < 1 / (1 + np.exp(-eta))).astype(float), "g": g}
        found = rf.fit("y ~ 1 + (1 | g)", d, family="binomial").predict(
            {"g": [0]}, re="integrate", interval="confidence"
        )
        held += bool(found["conf_low"][0] < truth < found["conf_high"][0])
    assert 180 <= held <= 200


def test_what_has_none():
    m = rf.fit("hit ~ x + (1 | g)", DATA, family="binomial", method="pql")
    with pytest.raises(NotAvailableError, match="method='pql'"):
        m.predict(re="integrate", std_error=True)
    structured = rf.fit("count ~ x + ar1(0 + t | g)", DATA, family="poisson")
    with pytest.raises(NotAvailableError, match="slim"):
        structured.slim().predict(DATA[:2], re="integrate", std_error=True)


@pytest.mark.parametrize("name", ["binomial", "extra zeros"])
def test_rows_that_miss_a_value_are_left_blank(name):
    formula, how, kind = CASES[name]
    m = rf.fit(formula, DATA, **how)
    new = DATA[:4].assign(x=[np.nan, *DATA["x"][1:4]])
    found = m.predict(new, re="integrate", type=kind, std_error=True)
    whole = m.predict(DATA[1:4], re="integrate", type=kind, std_error=True)
    assert np.isnan(found.iloc[0]).all()
    assert_allclose(found.iloc[1:], whole, rtol=1e-12)
