"""The Laplace engine beside the dense oracle, and the identities that its likelihood must satisfy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import ranef as rf
from engines import zoo
from oracle_glmm import DenseGlmm
from ranef.engines import laplace
from ranef.errors import DataError


def data(seed=7, n=90, groups=9):
    rng = np.random.default_rng(seed)
    g, x = rng.integers(0, groups, n), rng.normal(size=n)
    eta = 0.4 + 0.5 * x + rng.normal(scale=0.6, size=groups)[g]
    size = rng.integers(1, 8, n).astype(float)
    p = 1 / (1 + np.exp(-eta))
    return {
        "g": g.astype(str), "h": (np.arange(n) % 5).astype(str), "x": x, "z": rng.normal(size=n), "size": size,
        "over": rng.poisson(np.exp(eta) * rng.gamma(1.0, size=n)).astype(float),
        "count": rng.poisson(np.exp(eta)).astype(float),
        "share": rng.binomial(size.astype(int), p) / size,
        "one": (rng.uniform(size=n) < p).astype(float),
        "time": rng.gamma(3.0, np.exp(eta) / 3.0),
        "unit": rng.beta(4 * p, 4 * (1 - p)),
        "real": eta + rng.normal(scale=np.exp(0.3 * x)),
        "grade": np.digitize(eta + rng.logistic(size=n), [-0.5, 0.5, 1.5]).astype(float),
        "zeros": np.where(rng.uniform(size=n) < 0.3, 0.0, rng.poisson(2.0 * np.exp(eta))),
    }  # fmt: skip


DATA = data()
CASES = {
    "poisson": ("count ~ x + (1 | g)", {"family": "poisson"}),
    "poisson slopes, crossed": ("count ~ x + (x | g) + (1 | h)", {"family": "poisson"}),
    "binomial trials": ("share ~ x + (1 | g)", {"family": "binomial", "trials": "size"}),
    "bernoulli probit": ("one ~ x + (1 | g)", {"family": "binomial", "link": "probit"}),
    "nbinom2, dispersion by x": ("over ~ x + (1 | g)", {"family": "nbinom2", "dispersion": "~ x"}),
    "zero-inflated": ("zeros ~ x + (1 | g)", {"family": "poisson", "zero_inflation": "~ z + (1 | h)"}),
    "hurdle": ("zeros ~ x + (1 | g)", {"family": "truncated_poisson", "zero_inflation": "~ z"}),
    "gamma": ("time ~ x + (1 | g)", {"family": "gamma", "link": "log"}),
    "beta": ("unit ~ x + (1 | g)", {"family": "beta"}),
    "student, nu held": ("real ~ x + (1 | g)", {"family": "t", "nu": 5}),
    "gaussian, dispersion by x": ("real ~ x + (1 | g)", {"dispersion": "~ x"}),
    "gaussian log link": ("time ~ x + (1 | g)", {"link": "log"}),
    "frequency weights": ("count ~ x + (1 | g)", {"family": "poisson", "frequency_weights": "size"}),
    "offset": ("count ~ x + offset(log(size)) + (1 | g)", {"family": "poisson"}),
    "cumulative": ("grade ~ x + (1 | g)", {"family": "cumulative"}),
}


def dense(m):
    parts, p = laplace.core_components(m.design, m.distribution)
    rows = {"y": m.design.y} if m.design.trials is None else {"y": m.design.y, "trials": m.design.trials}
    return DenseGlmm(m.distribution.spec, parts, p, laplace.term_sources(m.design.terms), rows, m.design.frequencies)


@pytest.fixture(scope="module", params=CASES, ids=list(CASES))
def pair(request):
    formula, arguments = CASES[request.param]
    m = rf.fit(formula, DATA, **arguments)
    return m, dense(m)


def test_likelihood_and_stationarity(pair):
    m, oracle = pair
    at = oracle.evaluate(np.array(m.estimate.beta), np.array(m.theta))
    # Difference quotients leave 1e-9 in log|H|.
    assert_allclose(m.loglik, at["loglik"], atol=1e-7)
    on_boundary = np.concatenate([np.zeros(len(m.estimate.beta), bool), np.array(m.theta) == 0])
    assert np.abs(at["gradient"][~on_boundary]).max() < 2e-3
    assert m.converged


def test_uncertainty(pair):
    m, oracle = pair
    oracle.evaluate(np.array(m.estimate.beta), np.array(m.theta))
    # m.vcov() of a gaussian model is (X'V^-1X)^-1, as of the linear engine. A variance on the boundary is taken as 0.
    assert_allclose(
        m.estimate.vcov, oracle.vcov()[: len(m.estimate.beta), : len(m.estimate.beta)], rtol=2e-3, atol=1e-6
    )
    for t in range(len(m.layout.terms)):
        assert_allclose(m.core.cond_cov(t), oracle.cond_cov(t), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("name", "weighted"), zoo.CASES)
def test_gaussian_through_this_engine_is_the_linear_engine(name, weighted):
    call = {"formula": zoo.FORMULAS[name], "data": zoo.data(), "precision_weights": "w" if weighted else None}
    linear = rf.fit(**call, method="ml")
    ours = rf.fit(**call, frequency_weights=np.ones(60))
    assert linear.task.linear
    assert not ours.task.linear
    # Both searches end within 1e-8 of the top: a standard error's 1e-4.
    assert_allclose(ours.loglik, linear.loglik, atol=1e-7)
    error = np.sqrt(np.diag(linear.vcov()))
    assert_allclose(ours.params / error, linear.params / error, atol=1e-3)
    assert_allclose(np.sqrt(np.diag(ours.vcov())), error, rtol=1e-3)
    assert_allclose(ours.sigma, linear.sigma, rtol=1e-4)
    assert ours.npar == linear.npar


def test_precision_weights_are_those_of_the_linear_engine():
    linear = rf.fit("real ~ x + (1 | g)", DATA, method="ml", precision_weights="size")
    ours = rf.fit("real ~ x + (1 | g)", DATA, precision_weights="size", frequency_weights=np.ones(90))
    assert_allclose(ours.loglik, linear.loglik, atol=1e-7)
    assert_allclose(ours.fitted(), linear.fitted(), atol=1e-5)


def test_trials_are_rows():
    rows = {k: np.repeat(v, DATA["size"].astype(int)) for k, v in DATA.items() if k in ("g", "x")}
    hits = np.rint(DATA["share"] * DATA["size"]).astype(int)
    rows["one"] = np.concatenate(
        [np.r_[np.ones(h), np.zeros(int(s) - h)] for h, s in zip(hits, DATA["size"], strict=True)]
    )
    a = rf.fit("share ~ x + (1 | g)", DATA, family="binomial", trials="size")
    b = rf.fit("one ~ x + (1 | g)", rows, family="binomial")
    assert_allclose(a.params, b.params, atol=1e-5)
    assert_allclose(np.sqrt(np.diag(a.vcov())), np.sqrt(np.diag(b.vcov())), rtol=1e-4)


def test_frequency_weights_are_rows():
    twice = {k: np.concatenate([v, v]) for k, v in DATA.items()}
    a = rf.fit("count ~ x + (1 | g)", DATA, family="poisson", frequency_weights=np.full(90, 2.0))
    b = rf.fit("count ~ x + (1 | g)", twice, family="poisson")
    assert_allclose(a.loglik, b.loglik, atol=1e-7)


def test_the_oracle_integrates():
    """Quadrature with one node is Laplace's approximation, and with many it converges."""
    m = rf.fit("one ~ x + (1 | g)", DATA, family="binomial")
    oracle, beta, theta = dense(m), np.array(m.estimate.beta), np.array([0.8])
    values = [oracle.quadrature(beta, theta, k) for k in (1, 15, 25)]
    assert_allclose(values[0], oracle.laplace(beta, theta), atol=1e-8)
    assert_allclose(values[1], values[2], atol=1e-6)
    assert abs(values[0] - values[2]) > 1e-4


def test_a_pole_is_left_for_the_regular_optimum():
    """Random effects of extra zeros with a flat mode: the fit is that without them, and says where it came from."""
    data = rf.datasets.load("Salamanders")
    call = {"family": "nbinom2", "data": data}
    m = rf.fit("count ~ spp * mined + (1 | site)", **call, zero_inflation="~ 1 + (1 | site)")
    without = rf.fit("count ~ spp * mined + (1 | site)", **call, zero_inflation="~ 1")
    assert m.converged
    assert m.estimate.pole > m.loglik
    # A variance of zero: the criteria agree to the tolerance of the search.
    assert_allclose(m.loglik, without.loglik, atol=1e-7)
    assert any(n.code == "pole" for n in m.messages)
    assert without.estimate.pole is None


def test_a_search_that_ends_at_a_pole_goes_on_from_quadrature():
    """A random effect for every row of a density with a dispersion: searches from other starts end at a flat mode."""
    data = {
        "y": [1.445, 1.295, 0.2394, 1.5, 1.667, 0.8186, 1.505, 2.228, 0.9021, 2.33, 1.096, 7.648, 4.757, 4.318,
        6.197, 2.027, 2.211, 1.319, 2.411, 1.98, 1.416, 2.503, 3.143, 0.801, 1.452, 0.1481, 0.737, 1.122, 2.174,
        2.612, 2.006, 1.856, 1.373, 3.557, 3.998, 4.965, 2.424, 3.212, 1.519, 2.066, 2.05, 2.608, 2.513],
        "x": [0.0635, 0.0329, -1.239, 1.382, 1.092, 0.7394, -1.099, -0.2784, -1.153, 0.6758, -0.1124, 1.157,
        -0.4314, -0.8149, 0.2734, -2.618, 0.2476, -2.239, 0.5921, -0.0563, -0.8145, -1.059, 0.4646, 0.9773,
        -1.299, -0.8242, 1.363, 1.898, 0.5362, 1.886, 0.3924, 0.8799, 0.654, 0.4899, 0.7581, 0.6841, -0.6862,
        1.46, 0.3936, 0.2907, 0.4049, 0.9507, 0.3525],
    }  # fmt: skip
    m = rf.fit("y ~ x + (1 | g)", {**data, "g": np.arange(43)}, family="lognormal")
    assert m.converged
    assert m.estimate.pole > m.loglik
    assert "another search found" in next(n.text for n in m.messages if n.code == "pole")
    assert np.isfinite(m.tidy()["std_error"]).all()
    # An optimum: whatever is tried near it lies lower.
    for start in (0.5, 0.6, 0.65, 0.7):
        near = rf.fit("y ~ x + (1 | g)", {**data, "g": np.arange(43)}, family="lognormal", fixed={"sd(g)": start})
        assert near.loglik < m.loglik


def effects_of_a_dispersion_without_bound(seed: int, link: str) -> tuple[rf.Fit, rf.Fit]:
    """Fit effects of nbinom2's dispersion to Poisson counts, and without them: their modes curve the wrong way."""
    data = {"y": np.random.default_rng(seed).poisson(2.0, 160), "g": np.repeat(np.arange(20), 8)}
    call = {"formula": "y ~ 1", "data": data, "family": "nbinom2", "link": {"dispersion": link}}
    return rf.fit(**call, dispersion="~ 1 + (1 | g)"), rf.fit(**call)


@pytest.mark.filterwarnings("ignore::ranef.errors.ConvergenceWarning")
@pytest.mark.parametrize("seed", [8, 10])
def test_a_search_that_is_lost_at_a_mode_goes_on_without_its_effects(seed):
    m, without = effects_of_a_dispersion_without_bound(seed, "1/mu^2")
    assert m.certificate.outcome.name == "flat_mode"
    # A variance of zero: the same model.
    assert m.loglik == pytest.approx(without.loglik, abs=1e-9)
    assert any(n.code == "pole" for n in m.messages)


def test_a_predictor_outside_the_mean_that_leaves_its_range_is_named():
    with pytest.raises(DataError, match=r"under link=\{'dispersion': 'inverse'\} values may leave .* try 'log'"):
        effects_of_a_dispersion_without_bound(12, "inverse")


def few_extra_zeros() -> dict[str, np.ndarray]:
    """Counts of 14 groups at four times, correlated in time, with hardly an extra zero."""
    rng = np.random.default_rng(3)
    x, f = rng.normal(size=112), np.array(list("abc"))[rng.integers(0, 3, 112)]
    b = np.zeros((14, 8))
    for i in range(14):
        b[i, 0] = 0.7 * rng.normal()
        for t in range(1, 8):
            b[i, t] = 0.6 * b[i, t - 1] + 0.56 * rng.normal()
    n = rng.poisson(np.exp(0.5 + 0.3 * x + b.ravel()))
    early = np.tile(np.arange(8), 14) < 4
    columns = {"n": n, "x": x, "f": f, "t": np.tile(np.arange(8), 14), "g": np.repeat(np.arange(14), 8)}
    return {name: v[early] for name, v in columns.items()}


@pytest.mark.filterwarnings("ignore::ranef.errors.ConvergenceWarning")
@pytest.mark.parametrize(
    "term", ["cs(0 + f | g)", "ar1(0 + t | g)", "toep(0 + f | g)", "rr(0 + f | g, d = 2)", "(f | g)"]
)
def test_what_is_identified_beside_structures_that_run_to_a_pole_has_its_errors(term):
    """The Laplace likelihood rises for ever; what the data say of the rest is what they say without the structure."""
    data = few_extra_zeros()
    m = rf.fit("n ~ x + (1 | g)", data, family="poisson", zero_inflation=f"~ {term}")
    without = rf.fit("n ~ x + (1 | g)", data, family="poisson", zero_inflation="~ 1")
    assert m.converged or m.certificate.outcome.name == "flat_mode"
    assert m.loglik == pytest.approx(without.loglik, abs=1e-6)  # a variance of next to nothing
    assert np.isfinite(m.aic)
    # Standard errors by differences of the gradient, at two places 1e-6 apart in log-likelihood.
    assert_allclose(np.diag(m.vcov("all")), np.diag(without.vcov("all")), rtol=1e-3)
    text = next(n.text for n in m.messages if n.code == "pole")
    assert m.converged or "zero_inflation" in text


def test_structures_over_many_positions_touch_one_a_row():
    """The gradient where every row is at one of many positions is the slope of the criterion."""
    rng = np.random.default_rng(5)
    at = np.array([(i, j) for i in range(4) for j in range(4)], float)[rng.integers(0, 16, 120)]
    data = {"u": at[:, 0], "v": at[:, 1], "g": np.repeat(["a", "b"], 60), "y": rng.poisson(2.0, 120)}
    m = rf.fit("y ~ 1 + exp(0 + numFactor(u, v) | g)", data, family="poisson")
    beta, theta = np.asarray(m.estimate.beta) + 0.1, np.asarray(m.theta) + 0.05
    exact = m.core.evaluate(beta.tolist(), theta.tolist())["gradient"]
    for i in range(len(beta) + len(theta)):
        step = 1e-5 * np.eye(len(beta) + len(theta))[i]
        up, down = (
            m.core.evaluate((beta + s[: len(beta)]).tolist(), (theta + s[len(beta) :]).tolist())["loglik"]
            for s in (step, -step)
        )
        # Central differences: error of second order in the step and rounding over it.
        assert_allclose(exact[i], (up - down) / 2e-5, atol=1e-5, rtol=1e-5)


def test_searches_are_short_where_they_used_to_be_long():
    """Coefficients that run to infinity; loadings whose working curvature misleads. Half as much again is allowed."""
    data = rf.datasets.load("Salamanders")
    m = rf.fit("count ~ spp * mined + (1 | site)", data, family="nbinom2", zero_inflation="~ spp * mined")
    assert m.converged
    assert m.certificate.evaluations <= 35  # 23 seen, 85 with Hessians measured along the tails
    rng = np.random.default_rng(4)
    levels, k, d = 40, 10, 3
    loadings = 0.6 * rng.normal(size=(k, d))
    eta = rng.normal(size=(levels, d)) @ loadings.T + 0.5 + 0.3 * rng.normal(size=k)
    counts = {
        "y": rng.poisson(np.exp(eta)).ravel(),
        "g": np.repeat(np.arange(levels), k),
        "s": np.tile([f"s{i}" for i in range(k)], levels),
    }
    m = rf.fit("y ~ s + rr(0 + s | g, 3)", counts, family="poisson")
    assert m.converged
    assert m.certificate.evaluations <= 100  # 64 seen, 175 with a Hessian measured in every late iteration


def test_rows_of_frequency_0_are_left_out():
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(12), 8)
    d = pd.DataFrame({"g": g.astype(str), "x": rng.normal(size=96)})
    d["y"] = rng.poisson(np.exp(0.3 * d.x + 0.5 * rng.normal(size=12)[g]))
    d["w"] = np.where(g == 0, 0, rng.integers(0, 3, 96))
    d.loc[5, "x"] = np.nan
    m = rf.fit("y ~ x + (1 | g)", d, family="poisson", frequency_weights="w")
    kept = rf.fit("y ~ x + (1 | g)", d[d.w > 0], family="poisson", frequency_weights="w")
    assert m.loglik == pytest.approx(kept.loglik, abs=1e-12)
    assert m.nobs == kept.nobs
    assert len(m.layout.terms[0].levels) == 11
    (note,) = (n for n in m.messages if n.code == "rows_dropped")
    assert "missing values or weights of 0" in note.text
    assert note.evidence["columns"] == {"x": 1, "w of 0": int((d.w == 0).sum())}
    complete = d.dropna()
    same = rf.fit("y ~ x + (1 | g)", complete, family="poisson", frequency_weights="w", missing="raise")
    assert same.loglik == pytest.approx(m.loglik, abs=1e-12)
    with pytest.raises(rf.RanefError, match="weights of 0"):
        rf.fit("y ~ x + (1 | g)", d, family="poisson", frequency_weights=np.zeros(96))
