"""Models with priors: exact gradient, equivariance, limits, and priors of every kind of parameter."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import ranef as rf
from ranef.engines import constrained, laplace
from ranef.engines.plan import make_plan
from ranef.errors import ArgumentError, NotAvailableError, OptionError

p = rf.prior
SAME = 1e-7  # penalised deviances of one model in two forms; searches end below 1e-9


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(12)
    n = 200
    g, h = np.arange(n) % 10, (np.arange(n) // 10) % 4
    x, z = rng.normal(5, 4, n), rng.normal(size=n)
    eta = 0.5 + 0.1 * x + rng.normal(0, 0.6, 10)[g] + rng.normal(0, 0.3, 10)[g] * z + rng.normal(0, 0.3, 4)[h]
    return {
        "g": g, "h": h, "x": x, "z": z, "f": np.array(list("abc"))[rng.integers(0, 3, n)],
        "y": eta + rng.normal(0, 0.8, n), "count": rng.poisson(np.exp(0.5 * eta)).astype(float),
        "zero": np.where(rng.random(n) < 0.3, 0.0, rng.poisson(np.exp(0.5 * eta))),
        "yes": (rng.random(n) < 1 / (1 + np.exp(-eta + 1))).astype(float),
    }  # fmt: skip


EVERYTHING = {
    "fixed": p.t(4, 2),
    "(Intercept)": p.normal(1, 3),
    "sd(1 | g)": p.gamma(2.5, 1.2),
    "var(z | g)": p.inverse_gamma(2, 0.3),
    "cor(g)": p.lkj(1.7),
    "cov(h)": p.wishart(4, 0.5),
    "dispersion": p.half_t(3, 2),
}


@pytest.mark.parametrize(
    "prior",
    [EVERYTHING, {"fixed": p.multivariate_t(5, [3, 2])}, {"cov": p.inverse_wishart(5, 0.7), "sd(h)": None}],
    ids=["everything", "vector", "matrices"],
)
@pytest.mark.parametrize("family", ["gaussian", "nbinom2"])
def test_the_gradient_of_the_penalised_likelihood(data, prior, family):
    formula = "count ~ x + f + (z | g) + (1 | h)"
    call = rf.fit(formula, data, family=family, prior=prior, method="ml")
    design = laplace.absorbed(call.design)
    core = constrained.build(design, call.task, make_plan(design, call.task))
    rng = np.random.default_rng(1)
    beta = rng.normal(0, 0.2, core.p)
    theta = rng.normal(0, 0.3, core.ntheta)

    def at(step):
        found = core.evaluate((beta + step[: core.p]).tolist(), (theta + step[core.p :]).tolist())
        return found["penalised"], found["gradient"]

    exact, h = at(np.zeros(core.p + core.ntheta))[1], 1e-4
    for j in range(len(exact)):
        unit = np.eye(len(exact))[j] * h
        near, far = at(unit)[0] - at(-unit)[0], at(2 * unit)[0] - at(-2 * unit)[0]
        # Differences of fourth order with a step of 1e-4: rounding of a value of 10^3 leaves 1e-9 / 1e-4.
        assert exact[j] == pytest.approx((8 * near - far) / (12 * h), rel=1e-5, abs=1e-5)


def test_common_scales_are_differentiated(data):
    prior = {"cov": p.wishart(common_scale=True), "fixed": p.normal(0, 2, common_scale=True)}
    m = rf.fit("y ~ x + (z | g)", data, prior=prior, method="ml")
    sigma, beta = m.sigma, np.asarray(m.params)
    log = 2 * p.wishart().sized(2).log_density(m.varcorr()["g"].cov / sigma**2) / 2
    log += stats.norm(0, 2).logpdf(beta / sigma).sum()
    assert m.criterion == pytest.approx(-2 * (m.loglik + log), abs=1e-9)
    # At the mode no shift of log sigma, with beta and Sigma where they are, lowers the criterion.
    design = laplace.absorbed(m.design)
    core = constrained.build(design, m.task, make_plan(design, m.task))
    assert np.abs(core.evaluate(*m.core.at)["gradient"]).max() < 1e-3


def test_the_penalty_is_the_log_density_of_the_estimates(data):
    m = rf.fit("count ~ x + f + (z | g) + (1 | h)", data, family="nbinom2", prior=EVERYTHING)
    vc, beta = m.varcorr(), m.params
    log = EVERYTHING["(Intercept)"].log_density(beta["(Intercept)"])
    log += sum(EVERYTHING["fixed"].log_density(beta[c]) for c in ("x", "fb", "fc"))
    log += EVERYTHING["sd(1 | g)"].log_density(vc["g"].sd[0]) + EVERYTHING["var(z | g)"].log_density(vc["g"].sd[1] ** 2)
    log += EVERYTHING["cor(g)"].log_density(vc["g"].corr) + EVERYTHING["cov(h)"].log_density(vc["h"].cov)
    log += EVERYTHING["dispersion"].log_density(m.sigma)
    assert m.criterion == pytest.approx(-2 * (m.loglik + log), abs=1e-8)
    assert m.aic == pytest.approx(-2 * m.loglik + 2 * m.npar, rel=1e-12)


def test_units_of_a_column_with_a_matching_prior(data):
    m = rf.fit("yes ~ x + z + (1 | g)", data, family="binomial", prior={"x": p.normal(0.2, 0.05)})
    far = {**data, "x": 1000 * data["x"] + 7}
    other = rf.fit("yes ~ x + z + (1 | g)", far, family="binomial", prior={"x": p.normal(2e-4, 5e-5)})
    assert other.loglik == pytest.approx(m.loglik, abs=SAME)
    assert 1000 * other.params["x"] == pytest.approx(m.params["x"], rel=1e-5)
    assert 1000 * np.sqrt(other.vcov()["x"]["x"]) == pytest.approx(np.sqrt(m.vcov()["x"]["x"]), rel=1e-4)


def test_flat_priors_are_none(data):
    plain = rf.fit("yes ~ x + z + (1 | g)", data, family="binomial")
    wide = rf.fit("yes ~ x + z + (1 | g)", data, family="binomial", prior={"fixed": p.normal(0, 1e6)})
    assert wide.loglik == pytest.approx(plain.loglik, abs=SAME)
    assert np.asarray(wide.vcov()) == pytest.approx(np.asarray(plain.vcov()), rel=1e-3)
    assert plain.update(prior={"fixed": None}).loglik == pytest.approx(plain.loglik, abs=SAME)
    assert wide.update(prior=None).loglik == plain.loglik


def test_narrow_priors_and_points_hold(data):
    held = rf.fit("yes ~ x + z + (1 | g)", data, family="binomial", fixed={"x": 0.3, "sd(g)": 0.4})
    point = rf.fit("yes ~ x + z + (1 | g)", data, family="binomial", prior={"x": p.point(0.3), "sd(g)": "point(0.4)"})
    assert point.loglik == pytest.approx(held.loglik, abs=SAME)
    assert point.npar == held.npar == 2
    narrow = rf.fit("yes ~ x + z + (1 | g)", data, family="binomial", fixed={"sd(g)": 0.4},
                    prior={"x": p.normal(0.3, 1e-5)})  # fmt: skip
    assert narrow.loglik == pytest.approx(held.loglik, abs=1e-4)


def test_normal_prior_of_a_linear_model_is_ridge_regression(data):
    m = rf.fit("y ~ x + z", data, prior={"x": p.normal(0, 0.1), "z": p.normal(0.5, 0.2)}, fixed={"sigma": 0.9})
    x = np.column_stack([np.ones(200), data["x"], data["z"]])
    precision = np.diag([0, 100, 25.0])
    a = x.T @ x / 0.81 + precision
    beta = np.linalg.solve(a, x.T @ data["y"] / 0.81 + precision @ [0, 0, 0.5])
    assert np.asarray(m.params) == pytest.approx(beta, abs=1e-5)
    assert np.asarray(m.vcov()) == pytest.approx(np.linalg.inv(a), rel=1e-5)


def test_covariances_stay_off_their_boundary(data):
    still = {**data, "y": data["x"] + np.cos(np.arange(200.0) * 1.7)}
    plain = rf.fit("y ~ x + (z | g)", still)
    assert plain.boundary
    m = rf.fit("y ~ x + (z | g)", still, prior="blme")
    assert not m.boundary
    assert m.method == "reml"
    assert np.linalg.eigvalsh(m.varcorr()["g"].cov).min() > 1e-4
    assert np.isfinite(m.tidy("ran_pars")["std_error"][:3]).all()
    flat = rf.fit("y ~ x + (1 | g)", still, prior={"sd(g)": p.half_normal(1)})
    assert [b.kind for b in flat.boundary] == ["variance"]
    assert flat.converged


def test_priors_go_with_quadrature(data):
    prior = {"fixed": p.normal(0, 1), "cov(g)": p.wishart(4, 0.3)}
    laplace_, many = (rf.fit("yes ~ x + (z | g)", data, family="binomial", prior=prior, quadrature=k) for k in (1, 9))
    assert many.converged
    assert many.criterion != laplace_.criterion
    assert many.loglik == pytest.approx(laplace_.loglik, abs=0.5)
    fixed = {f"sd({c} | g)": s for c, s in zip(["1", "z"], many.varcorr()["g"].sd.tolist(), strict=True)}
    r = float(many.varcorr()["g"].corr[0, 1])
    held = rf.fit("yes ~ x + (z | g)", data, family="binomial", prior={"fixed": p.normal(0, 1)}, quadrature=9,
                  fixed={**fixed, "cor(g)": r})  # fmt: skip
    assert held.loglik == pytest.approx(many.loglik, abs=1e-5)


def test_priors_of_other_components(data):
    prior = {"zero_inflation": p.normal(0, 1), "x": "normal(0, 1)"}
    m = rf.fit("zero ~ x + (1 | g)", data, family="poisson", zero_inflation="~ z", prior=prior)
    at = m.coefficients()
    log = stats.norm.logpdf([at["x"], at["zero_inflation.(Intercept)"], at["zero_inflation.z"]]).sum()
    assert m.criterion == pytest.approx(-2 * (m.loglik + log), abs=1e-9)


def test_priors_keep_separated_estimates_finite(data):
    y = np.where(data["f"] == "a", 1.0, data["yes"])
    apart = {**data, "apart": y}
    with pytest.warns(rf.SeparationWarning, match=r"prior=\{'fixed'"):
        rf.fit("apart ~ x + f", apart, family="binomial")
    m = rf.fit("apart ~ x + f", apart, family="binomial", prior={"fixed": p.normal(0, 2.5), "(Intercept)": None})
    assert not m.separation
    assert np.abs(np.asarray(m.params)).max() < 10


def test_the_criterion(data):
    call = {"formula": "y ~ x + (1 | g)", "data": data}
    assert rf.fit(**call, prior={"fixed": "normal(0, 1)"}).method == "ml"
    assert rf.fit(**call, prior={"sd(g)": "gamma(2.5, 0)"}).method == "reml"
    assert rf.fit(**call, prior={"sd(g)": "gamma(2.5, 0)"}, method="map").method == "ml"
    with pytest.raises(OptionError, match="integrates the coefficients"):
        rf.fit(**call, prior={"fixed": "normal(0, 1)"}, method="reml")
    with pytest.raises(OptionError, match="needs prior="):
        rf.fit(**call, method="map")
    with pytest.raises(OptionError, match="quadrature=0"):
        rf.fit("yes ~ x + (1 | g)", data, family="binomial", prior={"fixed": "normal(0, 1)"}, quadrature=0)


@pytest.mark.parametrize(
    ("prior", "error", "text"),
    [
        ({"q": "normal(0, 1)"}, ArgumentError, r"no parameter 'q'.*sd\(\(Intercept\) \| g\)"),
        ({"cov(q)": "wishart()"}, ArgumentError, r"no parameter 'cov\(q\)'"),
        ({"sd(q)": "gamma()"}, ArgumentError, r"no parameter 'sd\(q\)'"),
        ({"sd(g)": "normal(0, 1)"}, OptionError, "takes half_normal"),
        ({"x": "gamma(2, 1)"}, OptionError, "takes normal"),
        ({"cov(g)": "lkj(2)"}, OptionError, "takes wishart"),
        ({"cor": "lkj(2)"}, ArgumentError, "no parameter 'cor'"),
        ({"dispersion": "gamma(2, 1)"}, ArgumentError, "the family has none"),
    ],
)
def test_priors_of_what_is_not_there(data, prior, error, text):
    with pytest.raises(error, match=text):
        rf.fit("yes ~ x + (1 | g)", data, family="binomial", prior=prior)


def test_the_summary_tells_the_priors(data):
    m = rf.fit(
        "yes ~ x + (1 | g)", data, family="binomial", prior={"fixed": "normal(0, 2.5)", "sd(g)": "gamma(2.5, 0)"}
    )
    text = m.summary()
    assert "maximum a posteriori" in text
    assert "fixed ~ normal(mean=0, sd=2.5); sd(g) ~ gamma(shape=2.5, rate=0)" in " ".join(text.split())
    assert "penalised" in text


def test_priors_of_shapes_are_of_the_shapes_themselves(data):
    """A gamma prior of nu, whose estimate is exp(coefficient); a normal one is of the coefficient."""
    d = {**data, "y": data["x"] + np.random.default_rng(1).standard_t(4, len(data["x"]))}
    for name in ("shape", "nu", "df"):
        m = rf.fit("y ~ x", d, family="student_t", prior={name: p.gamma(200, 50)})
        nu = float(np.exp(m.params["shape.(Intercept)"])) if "shape.(Intercept)" in m.params else np.nan
        assert np.isnan(nu) or 3.5 < nu < 4.5  # the prior's mode is 3.98, its standard deviation 0.28
        expected = -2 * p.gamma(200, 50).log_density(float(m.predict(type="shape")[0]))
        assert m.estimate.penalty == pytest.approx(expected, abs=1e-6)
    own = rf.fit("y ~ x", d, family="student_t", prior={"nu": p.normal(1.5, 1e-4)})
    assert float(own.predict(type="shape")[0]) == pytest.approx(np.exp(1.5), rel=1e-3)


@pytest.mark.parametrize(("term", "prior", "error", "text"), [
    ("(0 + f | g)", "wishart(2)", OptionError, "df is above 2"),
    ("ar1(0 + f | g)", "wishart(1.5)", OptionError, "df is above 2"),
    ("rr(0 + f | g, 1)", "wishart()", NotAvailableError, "singular by construction"),
])  # fmt: skip
def test_priors_of_matrices_that_are_no_priors(data, term, prior, error, text):
    with pytest.raises(error, match=text):
        rf.fit(f"n ~ x + {term}", {**data, "n": np.arange(len(data["g"])) % 5}, family="poisson", prior={"cov": prior})


def test_remedies_that_messages_name(data):
    d = {**data, "n": np.arange(len(data["g"])) % 5, "s": np.linspace(0.4, 0.6, len(data["g"]))}
    with pytest.raises(OptionError, match="the scale goes before the mean"):
        rf.fit("n ~ x", d, family="poisson", prior={"fixed": "cauchy(0, 2.5)"})
    with pytest.raises(OptionError, match=r"prior=\{'cov': rf.prior.wishart\(\)\}"):
        rf.fit("se(x, s) ~ 1 + (1 | g)", d, prior="blme")
    assert rf.fit("se(x, s) ~ 1 + (1 | g)", d, prior={"cov": p.wishart()}).converged
    with pytest.raises(NotAvailableError, match=r"mat\(…, nu = 100\)"):
        rf.fit("n ~ 1 + mat(0 + x + z | h)", d, family="poisson", fixed={"nu(h)": 100})
    with pytest.raises(NotAvailableError, match=r"not ar1\(… \| g\)"):
        rf.fit("n ~ 1 + ar1(0 + f | g)", d, family="poisson", method="pql")
    with pytest.raises(NotAvailableError, match="not that of family='nbinom2'"):
        rf.fit("n ~ 1 + (1 | g)", d, family="nbinom2", method="pql")


@pytest.mark.parametrize("prior", [{"cor(g)": "lkj(2)"}, {"cor(g)": "lkj(2)", "sd(x | g)": "half_normal(0.5)"}])
def test_a_prior_of_correlations_where_a_variance_is_zero(prior):
    """The prior does not see the standard deviation, which may be zero: its correlation is then the prior's mode, 0."""
    rng = np.random.default_rng(11)
    g, x = np.repeat(np.arange(20), 10), rng.normal(size=200)
    eta = 0.4 + 0.5 * x + 0.6 * rng.normal(size=20)[g]
    d = pd.DataFrame({"g": g.astype(str), "x": x, "n": rng.poisson(np.exp(eta))})
    m = rf.fit("n ~ x + (x | g)", d, family="poisson", prior=prior)
    assert m.converged
    assert m.certificate.evaluations < 30  # about 6
    independent = rf.fit("n ~ x + (x || g)", d, family="poisson", prior={k: v for k, v in prior.items() if k[0] == "s"})
    if m.varcorr()["g"].sd[1] == 0:
        # The constant of the density of a correlation of 0: log of 3/4 for eta = 2.
        assert m.loglik == pytest.approx(independent.loglik, abs=1e-4)


@pytest.mark.parametrize("prior", ["blme", {"cov": "wishart(70)"}, {"cor": "lkj(2)"}])
def test_densities_of_matrices_that_grow_with_the_positions_are_refused(prior):
    rng = np.random.default_rng(4)
    d = {"g": np.repeat(np.arange(10), 6), "t": rng.uniform(0, 5, 60), "y": rng.poisson(2.0, 60)}
    with pytest.raises(NotAvailableError, match=r"a row for every position.*'sd\(g\)'"):
        rf.fit("y ~ 1 + ou(t + 0 | g)", d, family="poisson", prior=prior)
    assert rf.fit("y ~ 1 + ou(t + 0 | g)", d, family="poisson", prior={"sd(g)": "gamma(2.5, 0)"}).converged
