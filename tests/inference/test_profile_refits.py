"""Profiles where parts of a model run away to a limit: ends within the range, in bounded time."""

import time
import warnings

import numpy as np
import pytest
from scipy import stats

import ranef as rf
from ranef.inference.profile import targets
from ranef.inference.profile_refits import curves_by_refits

SERIES = 14


def series(groups=SERIES, k=6, seed=2):
    r = np.random.default_rng(seed)
    shared = 0.7 ** np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
    e = r.multivariate_normal(np.zeros(k), shared, size=groups).ravel()
    x = r.normal(size=groups * k)
    y = 0.5 * x + e + 0.5 * r.normal(size=groups * k)
    when = np.tile(np.arange(k), groups)
    names = np.array([f"t{t}" for t in range(k)])
    return {"g": np.repeat(np.arange(groups), k), "t": when.astype(float), "ft": names[when], "x": x, "y": y}


def ends(m, which=None):
    p = rf.profile(m, which, points=3)
    table = p.confint()
    return {name: (low, high) for name, low, high in zip(table["parameter"], table["conf_low"], table["conf_high"],
                                                         strict=True)}, p  # fmt: skip


@pytest.fixture(scope="module")
def ar1():
    return rf.fit("y ~ x + ar1(0 + ft | g)", series(20), method="ml")


def test_intervals_of_a_structure_beside_a_residual_stay_in_the_range(ar1):
    found, p = ends(ar1)
    assert all(np.isfinite(found[name]).all() for name in ("(Intercept)", "x", "sd(g)", "cor(g)"))
    assert found["sigma"][0] == 0
    assert 0 < found["sigma"][1] < 1.5
    assert "dispersion.(Intercept)" not in found  # which is log(sigma)
    assert ends(ar1, "dispersion.(Intercept)")[0]["dispersion.(Intercept)"][0] == -np.inf
    assert -1 <= found["cor(g)"][0] < found["cor(g)"][1] <= 1
    assert not p.failed
    assert not any("failed" in text for text in p.messages)


def test_an_end_is_where_a_constrained_fit_has_the_deviance_of_the_level(ar1):
    found, _ = ends(ar1, ["x", "sd(g)"])
    cut = 1.959963984540054**2  # the normal quantile
    for name, pair in found.items():
        for end in pair:
            rise = ar1.update(fixed={name: end}).criterion - ar1.criterion
            assert rise == pytest.approx(cut, abs=2e-3)  # 1e-5 in zeta, and the optima's own 1e-6


@pytest.mark.parametrize("name", ["x", "sd(g)", "sigma"])
def test_slopes_of_walked_curves_are_those_of_the_deviance(ar1, name):
    curve = rf.profile(ar1, name, points=3)[name]
    raw = curve.raw  # the coefficient, or the logarithm of a standard deviation
    for i in (2, len(raw) - 2):
        h = 1e-4 * (raw[-1] - raw[0])
        held = [raw[i] + s * h if name == "x" else np.exp(raw[i] + s * h) for s in (-1, 1)]
        low, high = (ar1.update(fixed={name: float(v)}).criterion for v in held)
        # A difference quotient of optima that are exact to 1e-7 or so.
        assert curve.slope[i] == pytest.approx((high - low) / (2 * h) / (2 * curve.zeta[i]), rel=5e-3)
    middle = int(np.flatnonzero(curve.zeta == 0)[0])
    assert curve.slope[middle] > 0


@pytest.mark.parametrize("structure", ["homcs", "ou", "exp"])
def test_other_structures(structure):
    column = "0 + t" if structure in ("ou", "exp") else "0 + ft"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rf.RanefWarning)
        m = rf.fit(f"y ~ x + {structure}({column} | g)", series())
    found, _ = ends(m, ["x", "sigma", "sd(g)"])
    assert found["sigma"][0] == 0
    assert np.isfinite(found["x"]).all()
    assert 0 <= found["sd(g)"][0] < found["sd(g)"][1] < np.inf


def counts():
    r = np.random.default_rng(3)
    g, x = np.repeat(np.arange(10), 8), r.normal(size=80)
    y = r.poisson(np.exp(0.3 + 0.3 * x + 0.4 * r.normal(size=10)[g]))
    return {"g": g, "x": x, "y": y}


@pytest.mark.parametrize(("family", "side"), [("nbinom2", 1), ("nbinom1", 0)])
def test_a_dispersion_at_its_limit_leaves_the_others_finite(family, side):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rf.RanefWarning)
        m = rf.fit("y ~ x + (1 | g)", counts(), family=family)
    poisson = rf.fit("y ~ x + (1 | g)", counts(), family="poisson")
    start = time.process_time()
    found, _ = ends(m)
    assert time.process_time() - start < 10  # 0.2 s on a quiet machine; it was 39 s
    assert found["x"] == pytest.approx(ends(poisson)[0]["x"], abs=0.02)  # the limit, but for a little overdispersion
    dispersion = found["dispersion.(Intercept)"]
    assert np.isinf(dispersion[side])
    assert np.isfinite(dispersion[1 - side])


def test_separated_outcomes_have_a_finite_and_an_infinite_end():
    r = np.random.default_rng(3)
    x, treated = r.normal(size=80), np.tile([0, 1], 40)
    y = np.where(treated == 1, 1, (x + r.normal(size=80) > 0).astype(int))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rf.RanefWarning)
        m = rf.fit("y ~ x + treated + (1 | g)", {"y": y, "x": x, "treated": treated, "g": np.repeat(np.arange(10), 8)},
                   family="binomial")  # fmt: skip
    found, _ = ends(m)
    assert found["treated"][1] == np.inf
    assert 0 < found["treated"][0] < 20
    assert np.isfinite(found["x"]).all()


def test_correlations_reach_one():
    # One effect of every column: the correlation of compound symmetry is estimated 1.
    r = np.random.default_rng(5)
    data = series(10)
    data["y"] = data["x"] + r.normal(size=10)[data["g"]] + 0.5 * r.normal(size=60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rf.RanefWarning)
        m = rf.fit("y ~ x + ar1(0 + ft | g)", data)
    low, high = ends(m, "cor(g)")[0]["cor(g)"]
    assert 0 < low < high <= 1
    assert high == pytest.approx(1, abs=1e-9)  # the end of the range itself


@pytest.mark.parametrize("structure", ["homtoep", "toep"])
def test_toeplitz_correlations_have_errors_and_replicates(structure):
    m = rf.fit(f"y ~ x + {structure}(0 + ft | g)", series(40), dispersion=0, method="ml")
    table = m.tidy("ran_pars", conf_int=True)
    lags = np.array([str(term).startswith("cor__lag") for term in table["term"]])
    error = np.asarray(table["std_error"])[lags]
    assert np.isfinite(error).all()
    assert (np.diff(error) > 0).all()  # correlations of longer lags rest on fewer pairs
    # The first lag's standard error by the first coordinate alone, d rho / dx = (1 - rho^2)^1.5.
    at = len(m.estimate.beta) + int(np.flatnonzero(lags)[0])
    rho = np.asarray(table["estimate"])[lags][0]
    assert error[0] == pytest.approx(np.sqrt(np.asarray(m.estimate.joint())[at, at]) * (1 - rho**2) ** 1.5, rel=1e-10)
    b = rf.bootstrap(m, n=8, seed=1)
    assert np.isfinite(b.values).all()
    found = np.asarray(b.estimate)[len(m.estimate.beta) :][: len(lags)]
    np.testing.assert_allclose(found[lags], np.asarray(table["estimate"])[lags], rtol=1e-12)  # the same formula


def deviance(parameters, y, x, lags):
    """-2 log-likelihood of groups of three with one standard deviation and autocorrelations, as it is written."""
    beta, sd, rho = parameters[:2], np.exp(parameters[2]), np.r_[1.0, parameters[3:]]
    values, vectors = np.linalg.eigh(sd**2 * rho[lags])
    if values[0] <= 0:
        return 1e10
    left = (y - beta[0] - beta[1] * x).reshape(-1, 3) @ vectors
    return float((left**2 / values).sum() + len(left) * (np.log(values).sum() + 3 * np.log(2 * np.pi)))


@pytest.mark.parametrize(
    "options",
    [{}, {"fixed": {"cor(lag1 | g)": 0.5}}, {"fixed": {"sd(g)": 1.0}}, {"prior": {"sd(g)": "gamma(2.5, 0.1)"}}],
    ids=["free", "lag 1 held", "sd held", "prior"],
)  # fmt: skip
def test_correlations_at_later_lags_are_profiled(options):
    from scipy.optimize import minimize

    data = series(30, 3)
    m = rf.fit("y ~ x + homtoep(0 + ft | g)", data, dispersion=0, method="ml", **options)
    label = next(name for name in rf.profile(m, "random", points=2).names if "lag2" in name)
    curve = rf.profile(m, label, points=3)[label]
    assert curve.ends == ("reached", "reached")
    lags, cut = np.abs(np.subtract.outer(np.arange(3), np.arange(3))), 1.959963984540054
    start = [*m.estimate.beta[:2], np.log(0.9), 0.3]

    def penalised(p, end):
        """The deviance with what is held put in its place, and the prior's -2 log density."""
        sd = 0.0 if "sd(g)" in options.get("fixed", {}) else p[2]
        first = 0.5 if "cor(lag1 | g)" in options.get("fixed", {}) else p[3]
        density = -2 * stats.gamma.logpdf(np.exp(sd), 2.5, scale=10) if "prior" in options else 0.0
        return deviance([*p[:2], sd, first, end], data["y"], data["x"], lags) + density

    for end, sign in zip(curve.interval(0.95), (-1, 1), strict=True):
        held = minimize(penalised, start, end, method="Nelder-Mead",
                        options={"xatol": 1e-8, "fatol": 1e-10, "maxiter": 5000})  # fmt: skip
        # Nelder and Mead stop 1e-9 above the optimum.
        assert sign * np.sqrt(held.fun - m.criterion) == pytest.approx(sign * cut, abs=1e-4)


def test_dispersions_on_their_own_scale():
    m = rf.fit("count ~ mined + (1 | site)", rf.datasets.load("Salamanders"), family="nbinom2")
    name = "dispersion.(Intercept)"
    link, natural = (rf.profile(m, name, scale=scale, points=3)[name] for scale in ("sd", "natural"))
    np.testing.assert_allclose(natural.interval(0.95), np.exp(link.interval(0.95)), rtol=1e-9)
    assert natural.estimate == pytest.approx(m.sigma)
    np.testing.assert_allclose(natural.along[name], natural.value, rtol=1e-8)
    with pytest.raises(rf.errors.OptionError, match="one number under a link"):
        rf.profile(m, "minedno", scale="natural")


# ---- priors and penalties --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", [{"sd(g)": "gamma(2, 2)"}, {"x": "normal(0, 1)"}])
def test_posteriors_are_walked_too(prior):
    # By the core the search failed for cor(g), sd(g) and sigma of these, after a minute.
    m = rf.fit("y ~ x + ar1(0 + ft | g)", series(), method="ml", prior=prior)
    found, p = ends(m)
    assert not any("failed" in text for text in p.messages)
    assert all(np.isfinite(pair).all() for pair in found.values())
    assert found["sigma"][0] == 0
    named = found if "x" not in prior else {k: v for k, v in found.items() if k != "x"}  # a held one has no prior
    for name in ("x", "sd(g)"):
        for end in named.get(name, ()):
            rise = m.update(fixed={name: end}).criterion - m.criterion
            assert rise == pytest.approx(3.841458820694124, abs=2e-3)  # 1e-5 in zeta, and the optima's own 1e-6


def test_the_prior_of_a_coefficient_that_is_held_is_counted():
    # Far from what the data say, so that the interval without it would be another.
    m = rf.fit("y ~ x + (1 | g)", counts(), family="nbinom2", prior={"x": "normal(2, 0.1)"})
    found, _ = ends(m, ["x"])
    density = stats.norm(2, 0.1).logpdf
    for end in found["x"]:
        rise = m.update(fixed={"x": end}).criterion - 2 * density(end) - m.criterion
        assert rise == pytest.approx(3.841458820694124, abs=2e-3)


def test_a_penalty_of_all_coefficients_is_left_to_the_core(monkeypatch):
    m = rf.fit("y ~ x + (1 | g)", counts(), family="poisson", penalty="firth")
    known, _ = ends(m)
    monkeypatch.setattr("ranef.inference.profile.runs_away", lambda _: True)
    found, _ = ends(m)  # the variance by refits, coefficients by the core: without them the penalty is another
    for name, pair in known.items():
        assert found[name] == pytest.approx(pair, abs=2e-3)


def test_held_parameters_have_no_curve_where_others_are_walked():
    m = rf.fit("y ~ x + ar1(0 + ft | g)", series(), method="ml", fixed={"x": 0.5})
    found, p = ends(m)
    assert p.failed == {"x": "it is held at 0.5"}
    assert "x" not in found
    assert found["sigma"][0] == 0


# ---- later lags ------------------------------------------------------------------------------------------------------


def cells(groups, k, seed, rows):
    """Effects with autocorrelation 0.6, each seen so often; with an error where that is more than once."""
    r = np.random.default_rng(seed)
    shared = 0.6 ** np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
    b = r.multivariate_normal(np.zeros(k), shared, size=groups)
    g, t = np.repeat(np.arange(groups), k * rows), np.tile(np.repeat(np.arange(k), rows), groups)
    x = r.normal(size=len(g))
    y = 0.5 * x + b[g, t] + (0.7 * r.normal(size=len(g)) if rows > 1 else 0.0)
    return {"g": g, "ft": np.array([f"t{i}" for i in range(k)])[t], "x": x, "y": y}


def test_lags_held_by_an_equation_have_the_curve_of_the_core():
    m = rf.fit("y ~ x + toep(0 + ft | g)", cells(20, 4, 1, 1), method="ml", dispersion=0)
    visits = targets(1.96, {1.96}, 2)
    for lag in ("cor(lag2 | g)", "cor(lag3 | g)"):
        curve = rf.profile(m, lag, points=3)[lag]
        (record,) = curves_by_refits(m, [curve.parameter], visits)
        value = curve.parameter.transform.forward(record["value"])
        low, high = (np.interp(z, record["zeta"], value) for z in (-1.96, 1.96))
        known = [np.interp(z, curve.zeta, curve.value) for z in (-1.959963984540054, 1.959963984540054)]
        np.testing.assert_allclose([low, high], known, atol=1e-4)  # 1e-5 and 4e-5 in zeta, intervals 0.5 wide


@pytest.mark.parametrize("seed", [0, 2])
def test_later_lags_where_other_correlations_reach_their_limit(seed):
    m = rf.fit("y ~ x + toep(0 + ft | g)", cells(10, 4, seed, 2), method="ml")
    found, p = ends(m, ["cor(lag2 | g)", "cor(lag3 | g)"])
    assert not any("failed" in text for text in p.messages)
    for low, high in found.values():
        assert -1 <= low < high <= 1
    held = p["cor(lag3 | g)"]
    others = held.along["cor(lag2 | g)"]  # what the others do on the way
    assert np.isfinite(others).all()
    assert (np.abs(others) <= 1).all()
