"""Parameters held and tied: models that can be written in two ways, and everything a fit does afterwards."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose

import ranef as rf
from ranef.errors import ArgumentError, NotAvailableError, OptionError

# Log-likelihoods of one model in two forms: the searches end with a decrease of the deviance below 1e-9.
SAME = 1e-7


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(8)
    n = 240
    g, h = np.arange(n) % 12, (np.arange(n) // 12) % 5
    x, z = rng.normal(2, 3, n), rng.normal(size=n)
    f = np.array(list("abc"))[rng.integers(0, 3, n)]
    effect = rng.normal(0, 0.7, 12)[g] + rng.normal(0, 0.4, 12)[g] * z + rng.normal(0, 0.6, 5)[h]
    eta = 0.3 + 0.2 * x - 0.3 * z + effect
    return {
        "g": g, "h": h, "x": x, "z": z, "f": f, "off": rng.normal(size=n), "w": rng.uniform(0.5, 2, n),
        "y": eta + rng.normal(0, 1.3, n), "count": rng.poisson(np.exp(0.4 * eta)).astype(float),
        "zero": np.where(rng.random(n) < 0.25, 0.0, rng.poisson(np.exp(0.4 * eta))),
        "level": np.array(["low", "mid", "top"])[np.digitize(eta + rng.logistic(size=n), [0, 1.5])],
    }  # fmt: skip


@pytest.fixture(scope="module")
def rich():
    """Three correlated random effects of 40 groups, and four visits of each that resemble their neighbours."""
    rng = np.random.default_rng(4)
    n = 480
    g, x, z = np.arange(n) % 40, rng.normal(size=n), rng.normal(size=n)
    root = np.array([[0.9, 0, 0], [0.3, 0.7, 0], [-0.3, 0.2, 0.6]])
    b = rng.normal(size=(40, 3)) @ root.T
    visit = (np.arange(n) // 40) % 4
    noise = rng.normal(size=(40, 4))
    for j in range(1, 4):
        noise[:, j] = 0.5 * noise[:, j - 1] + 0.8 * noise[:, j]
    y = 1 + 0.5 * x + b[g, 0] + b[g, 1] * x + b[g, 2] * z + rng.normal(0, 0.5, n)
    return {"y": y, "v": 0.3 * x + noise[g, visit] + rng.normal(0, 0.5, n), "x": x, "z": z, "g": g,
            "t": np.array(list("abcd"))[visit]}  # fmt: skip


def ordered(data):
    import pandas as pd

    frame = pd.DataFrame(data)
    return frame.assign(level=pd.Categorical(frame["level"], ["low", "mid", "top"], ordered=True))


def test_a_held_coefficient_is_an_offset(data):
    m = rf.fit("count ~ x + f + z + offset(off) + (z | g)", data, family="poisson", fixed={"x": 0.05, "fb": 0.1})
    shifted = {**data, "off": data["off"] + 0.05 * data["x"] + 0.1 * (data["f"] == "b"), "c": 1.0 * (data["f"] == "c")}
    other = rf.fit("count ~ c + z + offset(off) + (z | g)", shifted, family="poisson")
    assert m.loglik == pytest.approx(other.loglik, abs=SAME)
    assert m.npar == other.npar
    assert m.params["x"] == 0.05
    assert m.params["fc"] == pytest.approx(other.params["c"], abs=1e-4)
    table = m.tidy()
    error = dict(zip(table["term"], table["std_error"], strict=True))
    assert np.isnan([error["x"], error["fb"]]).all()
    assert error["fc"] == pytest.approx(other.tidy()["std_error"][1], rel=1e-4)
    np.testing.assert_allclose(m.fitted(), other.fitted(), rtol=1e-4)
    ours, theirs = m.predict(std_error=True, type="link"), other.predict(std_error=True, type="link")
    np.testing.assert_allclose(ours["std_error"], theirs["std_error"], rtol=1e-4)
    assert "Held: x = 0.05, fb = 0.1" in m.summary()


def test_tied_coefficients_are_one_column(data):
    m = rf.fit("count ~ x + z + (1 | g)", data, family="poisson", equal=[("x", "z")])
    other = rf.fit("count ~ s + (1 | g)", {**data, "s": data["x"] + data["z"]}, family="poisson")
    assert m.loglik == pytest.approx(other.loglik, abs=SAME)
    assert m.npar == other.npar
    assert m.params["x"] == m.params["z"] == pytest.approx(other.params["s"], abs=1e-5)
    new = {"x": np.array([1.0, 2.0]), "z": np.array([0.5, -1.0]), "g": np.array([0, 3])}
    theirs = other.predict({**new, "s": new["x"] + new["z"]}, std_error=True, type="link")
    np.testing.assert_allclose(m.predict(new, std_error=True, type="link")["std_error"], theirs["std_error"], rtol=1e-4)


def test_coefficients_of_two_components_are_tied(data):
    m = rf.fit("count ~ x", data, family="nbinom2", dispersion="~ x", equal=[("x", "dispersion.x")])
    at = m.coefficients()
    assert at["x"] == at["dispersion.x"]

    def other(b):
        return rf.fit("count ~ x", data, family="nbinom2", dispersion="~ x", fixed={"x": b, "dispersion.x": b}).loglik

    b = at["x"]
    assert m.loglik == pytest.approx(other(b), abs=SAME)
    assert m.loglik > max(other(b - 0.01), other(b + 0.01))
    assert m.npar == 3


def test_a_held_residual_deviation(data):
    m = rf.fit("y ~ x + (z | g)", data, fixed={"sigma": 1.0}, method="ml")
    other = rf.fit("y ~ x + (z | g)", data, dispersion=1.0, method="ml")
    assert m.sigma == pytest.approx(1.0, rel=1e-14)
    assert m.loglik == pytest.approx(other.loglik, abs=SAME)
    free = rf.fit("y ~ x + (z | g)", data, method="ml")
    assert rf.fit("y ~ x + (z | g)", data, fixed={"sigma": free.sigma}, method="ml").loglik == pytest.approx(
        free.loglik, abs=SAME
    )
    assert m.npar == free.npar - 1


@pytest.mark.parametrize("method", ["ml", "reml"])
@pytest.mark.parametrize("name", ["sd(1 | g)", "sd(z | g)", "cor(g)", "sd((Intercept)|g)", "cor(z, 1 | g)"])
def test_holding_a_parameter_where_it_is_changes_nothing(data, method, name):
    free = rf.fit("y ~ x + (z | g) + (1 | h)", data, method=method)
    sd, r = free.varcorr()["g"].sd, free.varcorr()["g"].corr[0, 1]
    value = r if name.startswith("cor") else sd[int("z" in name)]
    m = rf.fit("y ~ x + (z | g) + (1 | h)", data, method=method, fixed={name: float(value)})
    assert m.loglik == pytest.approx(free.loglik, abs=SAME)
    assert m.npar == free.npar - 1
    assert m.theta == pytest.approx(free.theta * free.sigma, abs=1e-3)
    errors = np.asarray(m.tidy("ran_pars")["std_error"])
    assert np.isnan(errors[:3]).sum() == 1


def test_a_correlation_of_zero_is_a_diagonal_term(data):
    m = rf.fit("count ~ x + (z | g)", data, family="poisson", fixed={"cor(g)": 0})
    other = rf.fit("count ~ x + (z || g)", data, family="poisson")
    assert m.loglik == pytest.approx(other.loglik, abs=SAME)
    assert m.npar == other.npar


def test_any_correlation_of_three_columns_can_be_held_or_tied(rich):
    formula = "y ~ x + (x + z | g)"
    free = rf.fit(formula, rich, method="ml")
    r = free.varcorr()["g"].corr
    held = rf.fit(formula, rich, method="ml", fixed={"cor(z, x | g)": float(r[2, 1])})
    assert held.loglik == pytest.approx(free.loglik, abs=SAME)
    other = rf.fit(formula, rich, method="ml", fixed={"cor(x, z | g)": -0.2})
    assert other.varcorr()["g"].corr[1, 2] == pytest.approx(-0.2, abs=1e-12)
    tied = rf.fit(formula, rich, method="ml", equal=[("cor((Intercept), x | g)", "cor((Intercept), z | g)")])
    r = tied.varcorr()["g"].corr
    assert r[0, 1] == pytest.approx(r[0, 2], abs=1e-10)
    assert free.loglik > max(other.loglik, tied.loglik)


def test_a_singular_covariance_with_a_held_deviation(data):
    singular = {**data, "y": data["x"] + np.sin(data["g"]) * (1 + data["z"]) + np.cos(np.arange(240.0)) / 9}
    m = rf.fit("y ~ x + (z | g)", singular, method="ml", fixed={"sd(z | g)": 0.7})
    assert m.varcorr()["g"].corr[0, 1] == pytest.approx(1, abs=1e-6)
    assert m.boundary[0].kind == "correlation"
    assert m.converged
    assert m.certificate.evaluations < 100


def test_tied_deviations_of_a_diagonal_term_are_homogeneous(data):
    m = rf.fit("y ~ x + (0 + f || g)", data, method="ml", equal=[("sd(fa | g)", "sd(fb | g)", "sd(fc | g)")])
    other = rf.fit("y ~ x + homdiag(0 + f | g)", data, method="ml")
    assert m.loglik == pytest.approx(other.loglik, abs=SAME)
    assert m.npar == other.npar
    assert np.ptp(m.varcorr()["g"].sd) < 1e-12


@pytest.mark.parametrize(
    ("structure", "name", "value"),
    [("ar1", "cor(g)", 0.4), ("cs", "cor(g)", 0.3), ("homcs", "sd(g)", 0.8), ("hetar1", "sd(tb | g)", 0.9)],
)
def test_parameters_of_structures(rich, structure, name, value):
    formula = f"v ~ x + {structure}(0 + t | g)"
    m = rf.fit(formula, rich, method="ml", fixed={name: value})
    assert any(p.value == pytest.approx(value, rel=1e-12) for p in m.varcorr()["g"].parameters)
    free = rf.fit(formula, rich, method="ml")
    assert m.npar == free.npar - 1
    assert m.loglik < free.loglik + SAME
    errors = np.asarray(m.tidy("ran_pars")["std_error"])[:-1]
    assert np.isnan(errors).sum() == 1


def test_thresholds_can_be_held(data):
    frame = ordered(data)
    free = rf.fit("level ~ x + (1 | g)", frame, family="cumulative")
    at = free.coefficients("threshold")["low|mid"]
    m = rf.fit("level ~ x + (1 | g)", frame, family="cumulative", fixed={"low|mid": at})
    assert m.loglik == pytest.approx(free.loglik, abs=SAME)
    assert m.npar == free.npar - 1
    assert m.coefficients("threshold")["low|mid"] == at
    moved = rf.fit("level ~ x + (1 | g)", frame, family="cumulative", fixed={"low|mid": at + 0.5})
    assert moved.loglik < free.loglik


def test_everything_in_a_model_held_is_an_evaluation(data):
    values = {"(Intercept)": 0.1, "x": 0.05, "sd(g)": 0.5, "dispersion": 2.0}
    m = rf.fit("count ~ x + (1 | g)", data, family="nbinom2", fixed=values)
    assert m.npar == 0
    assert m.loglik == pytest.approx(m.update(quadrature=15).loglik, abs=0.05)
    assert m.converged


def test_what_comes_after_keeps_it(data):
    m = rf.fit("zero ~ x + z + (z | g)", pl.DataFrame(data), family="poisson", zero_inflation="~ z",
               fixed={"sd(z | g)": 0.2, "zero_inflation.z": 0.0}, equal=[("x", "z")])  # fmt: skip
    again = m.refit(m.simulate(1, seed=1)[:, 0])
    for other in (again, m.update(), pickle.loads(pickle.dumps(m)), m.slim()):
        assert other.varcorr()["g"].sd[1] == pytest.approx(0.2, rel=1e-12)
        assert other.coefficients()["zero_inflation.z"] == 0
        assert other.params["x"] == other.params["z"]
        assert other.npar == m.npar == 5
    assert m.update(fixed=None, equal=None).npar == 8
    back = pickle.loads(pickle.dumps(m))
    np.testing.assert_allclose(
        back.predict(std_error=True, type="link")["std_error"], m.predict(std_error=True, type="link")["std_error"]
    )
    np.testing.assert_allclose(
        back.ranef(std_error=True)["g"]["std_error__z"], m.ranef(std_error=True)["g"]["std_error__z"]
    )


def test_missing_values_and_dependent_columns(data):
    x = data["x"].copy()
    x[3] = np.nan
    table = {**data, "x": x, "twice": 2 * data["z"]}
    m = rf.fit("count ~ x + z + twice + (1 | g)", table, family="poisson", fixed={"x": 0.1})
    assert m.nobs == 239
    assert np.isnan(m.params["twice"])
    assert m.npar == 3


def test_correlations_that_are_no_parameters_are_not_tied(rich):
    """Lags of several terms; within a term they can be."""
    two = "v ~ x + homtoep(0 + t | g) + homtoep(0 + t | h)"
    with pytest.raises(NotAvailableError, match="lags of several terms"):
        rf.fit(two, {**rich, "h": rich["g"] % 7}, equal=[("cor(lag2 | g)", "cor(lag2 | h)")])
    with pytest.raises(NotAvailableError, match="turn together"):
        rf.fit("v ~ x + rr(0 + t | g, d = 1)", rich, fixed={"loading(t1.1 | g)": 0.0})


def lagged(n=50, k=4, rows=3):
    """Balanced rows of n groups, `rows` at each of k times, with correlations .5, .3, .2."""
    from scipy.linalg import toeplitz

    rng = np.random.default_rng(52)
    b = 1.1 * rng.normal(size=(n, k)) @ np.linalg.cholesky(toeplitz([1, 0.5, 0.3, 0.2])).T
    g, t = np.repeat(np.arange(n), k * rows), np.tile(np.repeat(np.arange(k), rows), n)
    return {"g": g, "f": np.array([f"c{i}" for i in t]), "y": 0.4 + b[g, t] + 0.7 * rng.normal(size=n * k * rows)}


def minus_loglik(y, lags, sd, sigma, k=4, rows=3):
    """-log-likelihood of the groups of `lagged`, the mean profiled out."""
    from scipy.linalg import toeplitz

    z, y = np.kron(np.eye(k), np.ones((rows, 1))), y.reshape(-1, k * rows)
    v = sd**2 * z @ toeplitz(np.r_[1, lags]) @ z.T + sigma**2 * np.eye(k * rows)
    inverse, one = np.linalg.inv(v), np.ones(k * rows)
    e = y - (y @ inverse @ one).sum() / (len(y) * one @ inverse @ one)
    return 0.5 * (len(y) * np.linalg.slogdet(v)[1] + np.einsum("ij,jk,ik", e, inverse, e) + y.size * np.log(2 * np.pi))


LAGS = {
    "held": ({"fixed": {"cor(lag2 | g)": 0.45}}, lambda p: [p[0], 0.45, p[1]], [1, 3]),
    "two held": ({"fixed": {"cor(lag1 | g)": 0.5, "cor(lag3 | g)": 0.1}}, lambda p: [0.5, p[0], 0.1], [2]),
    "tied": ({"equal": [("cor(lag2 | g)", "cor(lag3 | g)")]}, lambda p: [p[0], p[1], p[1]], [1, 2]),
    "tied to the first": ({"equal": [("cor(lag3 | g)", "cor(lag1 | g)")]}, lambda p: [p[0], p[1], p[0]], [1, 2]),
}


@pytest.mark.parametrize("case", LAGS)
def test_correlations_at_later_lags(case):
    """Against the dense likelihood: its optimum, and its curvature there."""
    from scipy.optimize import minimize

    arguments, lags, places = LAGS[case]
    data = lagged()
    m = rf.fit("y ~ 1 + homtoep(0 + f | g)", data, method="ml", **arguments)
    at = np.array([m.varcorr()["g"].parameters[i].value for i in [*places, 0]] + [m.sigma])

    def objective(p):
        return minus_loglik(data["y"], lags(p), p[-2], p[-1])

    found = minimize(objective, at, method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10})
    assert_allclose(m.loglik, -found.fun, atol=1e-7)  # the simplex ends at 1e-10
    assert m.npar == 1 + len(at)
    step = 1e-4 * np.eye(len(at))

    def bend(a, b):
        return objective(at + a + b) - objective(at + a - b) - objective(at - a + b) + objective(at - a - b)

    rows = [[bend(a, b) for b in step] for a in step]
    errors = np.sqrt(np.diag(np.linalg.inv(np.array(rows) / 4e-8)))
    own = np.asarray(m.tidy("ran_pars")["std_error"])[[*places, 0, -1]]
    assert_allclose(own, errors, rtol=1e-4)  # second differences with steps of 1e-4
    held = np.isnan(np.asarray(m.tidy("ran_pars")["std_error"])).sum()
    assert held == len(arguments.get("fixed", {}))


def test_all_lags_tied_are_compound_symmetry():
    data = lagged()
    tied = rf.fit("y ~ 1 + homtoep(0 + f | g)", data, equal=[[f"cor(lag{i} | g)" for i in (1, 2, 3)]])
    same = rf.fit("y ~ 1 + homcs(0 + f | g)", data)
    assert_allclose(tied.loglik, same.loglik, atol=1e-8)
    assert tied.npar == same.npar


def test_every_parameter_at_its_estimate_is_the_same_fit():
    data = lagged()
    m = rf.fit("y ~ 1 + toep(0 + f | g)", data, method="ml")
    table = m.tidy("ran_pars").iloc[:-1]
    names = [f"sd({t[4:]} | g)" if t.startswith("sd__") else f"cor({t[5:]} | g)" for t in table["term"]]
    held = rf.fit("y ~ 1 + toep(0 + f | g)", data, method="ml", fixed=dict(zip(names, table["estimate"], strict=True)))
    assert_allclose(held.loglik, m.loglik, atol=1e-8)
    assert held.npar == m.npar - 7


def test_a_later_lag_is_profiled_beside_one_that_is_held():
    from scipy.optimize import brentq, minimize
    from scipy.stats import chi2

    data = lagged()
    m = rf.fit("y ~ 1 + homtoep(0 + f | g)", data, method="ml", fixed={"cor(lag2 | g)": 0.45})

    def rise(value):
        def objective(p):
            return minus_loglik(data["y"], [p[0], 0.45, value], p[1], p[2])

        found = minimize(objective, [0.45, 1.0, 0.7], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9})
        return 2 * (found.fun + m.loglik) - chi2.ppf(0.95, 1)

    found = rf.confint(m, method="profile", which=["cor(lag3 | g)"])
    low, high = float(found["conf_low"].iloc[0]), float(found["conf_high"].iloc[0])
    assert_allclose([low, high], [brentq(rise, -0.2, 0.2), brentq(rise, 0.25, 0.6)], atol=1e-3)  # an interpolated curve


def test_names_that_do_not_exist_are_told(data):
    def fit(**arguments):
        return rf.fit("y ~ x + (z | g)", data, **arguments)

    with pytest.raises(ArgumentError, match=r"'sd\(h\)'.*sd\(z \| g\)"):
        fit(fixed={"sd(h)": 1})
    with pytest.raises(ArgumentError, match="did you mean 'x'"):
        fit(fixed={"xx": 1})
    with pytest.raises(ArgumentError, match="given twice"):
        fit(fixed={"sd(z | g)": 1, "sd(z|g)": 1})
    with pytest.raises(ArgumentError, match="one kind"):
        fit(equal=[("x", "sd(z | g)")])
    with pytest.raises(ArgumentError, match="two parameters"):
        fit(equal=[("x",)])
    with pytest.raises(ArgumentError, match="list of ties"):
        fit(equal=["x", "z"])
    with pytest.raises(ArgumentError, match="held at a number"):
        fit(fixed={"x": "1"})
    with pytest.raises(ArgumentError, match="takes a dict"):
        fit(fixed="x")
    with pytest.raises(ArgumentError, match="give one of them"):
        fit(fixed={"sigma": 1}, dispersion="~ x")


def test_values_that_are_not_legal_are_told(data):
    def fit(**fixed):
        return rf.fit("y ~ x + (z | g)", data, fixed=fixed)

    with pytest.raises(OptionError, match="above 0"):
        fit(**{"sd(z | g)": 0})
    with pytest.raises(OptionError, match="between -1 and 1"):
        fit(**{"cor(g)": 1})
    with pytest.raises(OptionError, match="nan"):
        fit(x=float("nan"))
    with pytest.raises(OptionError, match=r"no covariance has cor\(lag1 \| h\) = 0.9, cor\(lag2 \| h\) = -0.5"):
        rf.fit("y ~ x + homtoep(0 + f | h)", data, fixed={"cor(lag1 | h)": 0.9, "cor(lag2 | h)": -0.5})
    with pytest.raises(NotAvailableError, match="start"):
        rf.fit("y ~ x + (1 | g)", data, fixed={"sd(g)": 1}, control={"start": [1.0]})


def test_sigma_is_a_name_in_ties_but_has_no_common_scale_with_a_deviation():
    d = rf.datasets.load("sleepstudy")
    with pytest.raises(ArgumentError, match="no common scale"):
        rf.fit("Reaction ~ Days + (1 | Subject)", d, equal=[("sigma", "sd(Subject)")])
    m = rf.fit("Reaction ~ Days + (1 | Subject)", d, dispersion="~ Days", equal=[("sigma", "dispersion.Days")])
    n = rf.fit("Reaction ~ Days + (1 | Subject)", d, dispersion="~ 0 + I(1 + Days)", method="ml")
    assert m.update(method="ml").loglik == pytest.approx(n.loglik, abs=1e-7)


def test_a_tie_with_a_held_member_is_held(data):
    sds = ("sd((Intercept) | g)", "sd(z | g)")
    both = rf.fit("y ~ x + (z | g)", data, method="ml", fixed=dict.fromkeys(sds, 0.7))
    m = rf.fit("y ~ x + (z | g)", data, method="ml", fixed={sds[0]: 0.7}, equal=[sds])
    assert m.loglik == pytest.approx(both.loglik, abs=1e-8)
    assert m.npar == both.npar
    np.testing.assert_allclose(m.varcorr()["g"].sd, 0.7)
    with pytest.raises(ArgumentError, match="different values"):
        rf.fit("y ~ x + (z | g)", data, fixed={sds[0]: 0.7, sds[1]: 0.6}, equal=[sds])
    with pytest.raises(ArgumentError, match="different values"):
        rf.fit("y ~ x + z + (1 | g)", data, fixed={"x": 0.7, "z": 0.6}, equal=[("x", "z")])


def test_slim_fits_are_pickled(data):
    for given in ({"prior": "blme"}, {"fixed": {"x": 0.2}}, {"equal": [("x", "z")]}):
        slim = rf.fit("count ~ x + z + (1 | g)", data, family="poisson", **given).slim()
        again = pickle.loads(pickle.dumps(slim))
        np.testing.assert_array_equal(again.params, slim.params)
        np.testing.assert_array_equal(again.core.cond_cov(0), slim.core.cond_cov(0))


def test_a_family_parameter_is_held_by_any_of_its_names(data):
    held = rf.fit("zero ~ x", data, family="poisson", zero_inflation=0.3)
    asked = rf.fit("zero ~ x", data, family="poisson", zero_inflation="~ 1", fixed={"zero_inflation": 0.3})
    assert (asked.loglik, asked.npar) == (held.loglik, held.npar)
    with pytest.raises(ArgumentError, match="give one of them"):
        rf.fit("zero ~ x", data, family="poisson", zero_inflation="~ x", fixed={"zero_inflation": 0.3})
    size = {**data, "size": np.exp(0.2 * data["y"])}
    gamma = rf.fit("size ~ x", size, family="gamma", fixed={"sigma": 0.5})
    assert gamma.sigma == pytest.approx(0.5)
    assert gamma.loglik == rf.fit("size ~ x", size, family="gamma", dispersion=4.0).loglik  # its shape, 1 / sigma^2


def test_a_small_residual_held_is_told_however_it_is_held(data):
    for given in ({"dispersion": 5e-3}, {"fixed": {"sigma": 5e-3}}, {"prior": {"sigma": "point(5e-3)"}}):
        m = rf.fit("y ~ x + (1 | g)", data, **given)
        assert "residual_held" in [n.code for n in m.messages]
    assert "residual_held" not in [n.code for n in rf.fit("y ~ x + (1 | g)", data, fixed={"sigma": 1}).messages]


@pytest.mark.parametrize(
    "formula", ["count ~ x + mat(numFactor(t) + 0 | h)", "count ~ x + mat(numFactor(t) + 0 | h, nu=1.5)"]
)
def test_a_matern_range_is_held(formula):
    data = placed()
    free = rf.fit(formula, data, family="poisson")
    (name, value), *_ = [(n, v) for n, v in ranges(free).items() if n.startswith("range")]
    held = rf.fit(formula, data, family="poisson", fixed={name: value})
    assert held.loglik == pytest.approx(free.loglik, abs=1e-6)  # the optimum is flat to second order
    assert held.npar == free.npar - 1
    other = rf.fit(formula, data, family="poisson", fixed={name: 3 * value})
    assert other.converged
    assert other.loglik < free.loglik


def test_a_matern_smoothness_is_held():
    asked = rf.fit("count ~ x + mat(numFactor(t) + 0 | h)", placed(), family="poisson", fixed={"nu(h)": 1.5})
    given = rf.fit("count ~ x + mat(numFactor(t) + 0 | h, nu=1.5)", placed(), family="poisson")
    assert asked.loglik == pytest.approx(given.loglik, abs=1e-6)
    assert asked.npar == given.npar


def ranges(m: rf.Fit) -> dict[str, float]:
    """Return the natural parameters of a fit's structures by name."""
    return {f"{kind}(h)": value for _, kind, _, value in m.estimate.natural}


def placed(groups: int = 30, times: int = 6) -> pd.DataFrame:
    """Counts with effects that decay over time."""
    rng = np.random.default_rng(3)
    t = np.arange(float(times))
    root = np.linalg.cholesky(np.exp(-np.abs(np.subtract.outer(t, t)) / 2))
    eta = (rng.normal(size=(groups, times)) @ root.T).ravel()
    x = rng.normal(size=groups * times)
    return pd.DataFrame(
        {
            "count": rng.poisson(np.exp(0.5 + 0.3 * x + eta)),
            "x": x,
            "t": np.tile(t, groups),
            "h": np.repeat(np.arange(groups), times).astype(str),
        }
    )


def leveled(seed: int = 8) -> pd.DataFrame:
    """Three levels within twenty groups, whose effects are one."""
    rng = np.random.default_rng(seed)
    g, x = np.repeat(np.arange(20), 10), rng.normal(size=200)
    eta = 0.4 + 0.5 * x + 0.6 * rng.normal(size=20)[g]
    f = np.array(list("abc"))[rng.integers(0, 3, 200)]
    y = eta + 0.7 * rng.normal(size=200)
    return pd.DataFrame({"g": g.astype(str), "x": x, "f": f, "y": y, "n": rng.poisson(np.exp(eta))})


def test_correlations_tied_at_1_are_a_boundary():
    names = ("cor(fa, fb | g)", "cor(fa, fc | g)", "cor(fb, fc | g)")
    m = rf.fit("y ~ x + (0 + f | g)", leveled(), equal=[names])
    same = rf.fit("y ~ x + cs(0 + f | g)", leveled())
    assert m.converged
    assert [b.rank for b in m.boundary] == [1]
    assert m.loglik == pytest.approx(same.loglik, abs=1e-5)  # one model; correlations end 1e-8 before 1


@pytest.mark.parametrize("seed", [8, 10, 14])
def test_a_held_correlation_at_the_edge_of_definiteness_leaves_the_errors_of_the_rest(seed):
    m = rf.fit("n ~ x + (f | g)", leveled(seed), family="poisson", fixed={"cor((Intercept), fb | g)": 0.2})
    assert m.converged
    assert m.varcorr()["g"].corr[0, 1] == pytest.approx(0.2, abs=1e-8)
    assert [b.rank for b in m.boundary] == [2]
    free = rf.fit("n ~ x + (f | g)", leveled(seed), family="poisson")
    ratio = np.sqrt(np.diag(m.vcov()) / np.diag(free.vcov()))
    assert ((ratio > 0.8) & (ratio < 1.25)).all()  # errors of about the model without the hold


def steep(seed: int, *, counts: bool) -> pd.DataFrame:
    """Three random effects of which one is nearly a combination of the others."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(15), 8)
    x, z, u = rng.standard_normal(120), rng.standard_normal(120), rng.standard_normal((15, 3))
    b = 0.6 * np.column_stack([u[:, 0], 0.95 * u[:, 0] + 0.3 * u[:, 1], 0.3 * u[:, 1] - 0.9 * u[:, 0]])
    eta = 0.5 + 0.3 * x - 0.2 * z + b[g, 0] + b[g, 1] * x + b[g, 2] * z
    y = rng.poisson(np.exp(np.clip(eta, -5, 4))) if counts else eta + 0.8 * rng.standard_normal(120)
    return pd.DataFrame({"y": y, "x": x, "z": z, "one": 1.0, "g": g.astype(str)})


@pytest.mark.parametrize("value", [-0.5, 0.3])
@pytest.mark.parametrize("counts", [False, True])
def test_a_held_correlation_of_later_columns_reaches_the_edge(counts, value):
    data, family = steep(1, counts=counts), "poisson" if counts else "gaussian"
    m = rf.fit("y ~ x + z + (x + z | g)", data, family=family, fixed={"cor(x, z | g)": value})
    # The same model with the held pair first, where its correlation always was a coordinate.
    same = rf.fit("y ~ x + z + (0 + x + z + one | g)", data, family=family, fixed={"cor(x, z | g)": value})
    assert m.converged
    assert same.converged
    assert m.loglik == pytest.approx(same.loglik, abs=1e-6)
    assert m.varcorr()["g"].corr[1, 2] == pytest.approx(value, abs=1e-7)  # exact up to the coordinate's edge
    assert [b.rank for b in m.boundary] == [b.rank for b in same.boundary]
    np.testing.assert_allclose(np.diag(m.vcov()), np.diag(same.vcov()), rtol=1e-3)  # two edges 1e-8 apart from 1


def test_correlations_of_a_chain_of_columns_are_held_and_tied(rich):
    rich = {**rich, "w": np.cos(5 * rich["x"]) + 0.3 * rich["z"]}
    formula = "y ~ x + (x + z + w | g)"
    free = rf.fit(formula, rich, method="ml")
    names = list(free.varcorr()["g"].names)
    chain = [f"cor({a}, {b} | g)" for a, b in itertools.pairwise(names)]
    r = free.varcorr()["g"].corr
    own = {name: float(r[i, i + 1]) for i, name in enumerate(chain)}
    held = rf.fit(formula, rich, method="ml", fixed=own)
    assert held.loglik == pytest.approx(free.loglik, abs=SAME)
    tied = rf.fit(formula, rich, method="ml", equal=[chain])
    assert tied.converged
    found = np.diag(tied.varcorr()["g"].corr, 1)
    np.testing.assert_allclose(found, found[0], atol=1e-10)
    assert tied.npar == free.npar - len(chain) + 1


def test_correlations_of_a_circle_of_columns_are_held(rich):
    formula = "y ~ x + (x + z | g)"
    values = {"cor((Intercept), x | g)": 0.5, "cor(x, z | g)": 0.4, "cor((Intercept), z | g)": 0.3}
    m = rf.fit(formula, rich, method="ml", fixed=values)
    assert m.converged
    r = m.varcorr()["g"].corr
    np.testing.assert_allclose([r[0, 1], r[1, 2], r[0, 2]], [0.5, 0.4, 0.3], atol=1e-10)


def test_ties_that_share_a_parameter_are_one():
    data = rf.datasets.load("Penicillin").assign(op=np.random.default_rng(1).integers(0, 8, 144).astype(str))
    formula = "diameter ~ 1 + (1 | plate) + (1 | sample) + (1 | op)"
    plate, sample, op = "sd(plate)", "sd(sample)", "sd(op)"
    whole = rf.fit(formula, data, equal=[(plate, sample, op)])
    for chain in ([(plate, sample), (plate, op)], [(sample, op), (plate, op)], [(plate, sample), (sample, op)]):
        m = rf.fit(formula, data, equal=chain)
        assert m.loglik == pytest.approx(whole.loglik, abs=1e-9)
        assert m.npar == whole.npar
