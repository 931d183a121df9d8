"""Random effects that correlate across linear predictors: `(1 |id| g)` in two formulas."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy import stats

import ranef as rf
from ranef.errors import FormulaError


def location_scale(groups: int, each: int, seed: int):
    """y_ij ~ N(2 + x + b0, exp(-0.5 + b1)), (b0, b1) with SDs 0.8, 0.5 and correlation 0.6."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), each)
    b = rng.standard_normal((groups, 2)) @ np.linalg.cholesky([[0.64, 0.24], [0.24, 0.25]]).T
    x = rng.standard_normal(len(g))
    y = 2 + x + b[g, 0] + np.exp(-0.5 + b[g, 1]) * rng.standard_normal(len(g))
    return {"y": y, "x": x, "g": np.char.add("g", g.astype(str)), "z": np.tile([0.0, 1.0], len(g) // 2)}


@pytest.fixture(scope="module")
def data():
    return location_scale(150, 12, 3)


@pytest.fixture(scope="module")
def fitted(data):
    return rf.fit("y ~ x + (1 |p| g)", data, dispersion="~ 1 + (1 |p| g)")


def test_recovers_what_was_simulated(fitted):
    term = fitted.varcorr()["g"]
    assert term.names == ("(Intercept)", "dispersion.(Intercept)")
    # 150 groups: relative standard errors of about 6 and 8 per cent, 0.08 for the correlation; three of them.
    np.testing.assert_allclose(term.sd, [0.8, 0.5], rtol=0.24)
    assert abs(term.corr[1, 0] - 0.6) < 0.25
    assert fitted.npar == 6
    assert fitted.converged


def test_better_than_without_the_correlation(fitted, data):
    apart = rf.fit("y ~ x + (1 | g)", data, dispersion="~ 1 + (1 | g)")
    assert apart.npar == 5
    assert fitted.loglik > apart.loglik + 5
    plain = rf.fit("y ~ x + (1 |p| g)", data, dispersion="~ 1 + (1 | g)")
    assert plain.loglik == pytest.approx(apart.loglik, abs=1e-8)  # a label that only one bar has says nothing


def test_quadrature_is_the_integral():
    """Many nodes give the two-dimensional integral over (b0, b1) of every group."""
    data = location_scale(4, 6, 8)
    m = rf.fit("y ~ x + (1 |p| g)", data, dispersion="~ 1 + (1 |p| g)", quadrature=41)
    lam, beta = np.asarray(m.estimate.factors[0]), np.asarray(m.estimate.beta)
    # The trapezoidal rule on a grid of step 0.05 is exact to double precision for such integrands.
    axis = np.arange(-7, 7, 0.05)
    u, v = np.meshgrid(axis, axis, indexing="ij")
    b = np.tensordot(lam, np.stack([u, v]), 1)
    total = 0.0
    for label in sorted(set(data["g"])):
        on = data["g"] == label
        logs = stats.norm.logpdf(u) + stats.norm.logpdf(v)
        for y, eta in zip(data["y"][on], beta[0] + beta[1] * data["x"][on], strict=True):
            logs = logs + stats.norm.logpdf(y, eta + b[0], np.exp(beta[2] + b[1]))
        total += np.log(np.exp(logs).sum() * 0.05**2)
    # What is left is the error of 41 nodes, which falls from 1e-4 with 25 nodes; the correlation is 1 here.
    assert m.loglik == pytest.approx(total, abs=5e-5)


def test_predictions_and_draws(fitted, data):
    rows = {k: v[:5] for k, v in data.items()}
    modes = fitted.ranef()["g"]
    assert list(modes)[1:] == ["(Intercept)", "dispersion.(Intercept)"] or list(modes.columns)[1:] == [
        "(Intercept)",
        "dispersion.(Intercept)",
    ]
    beta = fitted.estimate.beta
    first = fitted.estimate.modes[0][0]
    np.testing.assert_allclose(fitted.predict(rows), beta[0] + beta[1] * rows["x"] + first[0], rtol=1e-10)
    np.testing.assert_allclose(fitted.predict(rows, type="dispersion"), np.exp(beta[2] + first[1]), rtol=1e-10)
    errors = [np.asarray(fitted.predict(rows, type=t, std_error=True)["std_error"]) for t in ("link", "dispersion")]
    assert all(np.isfinite(e).all() and (e > 0).all() for e in errors)
    new = {**rows, "g": np.array(["new"] * 5)}
    sd = np.asarray(fitted.predict(new, new_levels="population", std_error=True)["std_error"])
    assert (sd > fitted.varcorr()["g"].sd[0]).all()
    drawn = fitted.simulate(2, seed=1)
    assert drawn.shape == (1800, 2)
    assert fitted.refit(drawn[:, 0]).converged
    copy = pickle.loads(pickle.dumps(fitted))
    ours, theirs = (f.predict(rows, type="dispersion") for f in (copy, fitted))
    np.testing.assert_allclose(ours, theirs, rtol=1e-8)


def test_averages_use_the_correlation(data):
    """E[mu (1 - p)] over correlated effects of the count and of its extra zeros, by simulation."""
    rng = np.random.default_rng(2)
    b = rng.standard_normal((60, 2)) @ np.linalg.cholesky([[0.5, 0.5], [0.5, 1.0]]).T
    g = np.repeat(np.arange(60), 20)
    y = rng.poisson(np.exp(1 + b[g, 0])) * (rng.random(1200) > 1 / (1 + np.exp(1 - b[g, 1])))
    m = rf.fit("y ~ 1 + (1 |i| g)", {"y": y, "g": g.astype(str)}, family="poisson", zero_inflation="~ 1 + (1 |i| g)")
    term = m.varcorr()["g"]
    assert term.corr[1, 0] > 0.2
    draws = np.random.default_rng(0).multivariate_normal([0, 0], term.cov, size=400_000)
    mu, p = np.exp(m.estimate.beta[0] + draws[:, 0]), 1 / (1 + np.exp(-m.estimate.beta[1] - draws[:, 1]))
    value = mu * (1 - p)
    ours = m.predict({"g": np.array(["new"])}, re="integrate")[0]
    assert ours == pytest.approx(value.mean(), abs=5 * value.std() / np.sqrt(400_000))


def test_slopes_in_several_predictors(data):
    """Slopes far from their origin: nothing may be booked on the intercept of another predictor."""
    far = {**data, "x": data["x"] + 50}
    m = rf.fit("y ~ x + (1 + x |p| g)", data, dispersion="~ z + (z |p| g)")
    assert m.varcorr()["g"].names == ("(Intercept)", "x", "dispersion.(Intercept)", "dispersion.z")
    moved = rf.fit("y ~ x + (1 + x |p| g)", far, dispersion="~ z + (z |p| g)")
    assert moved.loglik == pytest.approx(m.loglik, abs=5e-5)


def test_summary_and_tables(fitted):
    text = fitted.summary()
    assert "dispersion.(Intercept)" in text
    assert "|p|" in text
    rows = fitted.tidy("ran_pars")
    assert list(rows["term"])[:3] == [
        "sd__(Intercept)",
        "sd__dispersion.(Intercept)",
        "cor__(Intercept).dispersion.(Intercept)",
    ]
    assert np.all(np.asarray(rows["std_error"], float)[:3] > 0)
    assert len(fitted.tidy("ran_vals")["level"]) == 300


def test_what_a_label_cannot_join(data):
    with pytest.raises(FormulaError, match="one grouping factor"):
        rf.fit("y ~ x + (1 |p| g)", data, dispersion="~ 1 + (1 |p| z)")
    with pytest.raises(FormulaError, match="twice"):
        rf.fit("y ~ x + (1 |p| g) + (1 + x |p| g)", data)
    with pytest.raises(FormulaError, match="in each formula"):
        rf.fit("y ~ x + diag(1 |p| g)", data)
    with pytest.raises(FormulaError):
        rf.parse("y ~ (1 |p g)")


def test_the_label_reads_and_prints():
    f = rf.parse("y ~ x + (1 + x | id |g)")
    assert str(f) == "y ~ x + (x |id| g)"
    assert rf.parse(str(f)) == f
    assert f != rf.parse("y ~ x + (1 + x | g)")


def test_printed_covariances_and_limits_name_the_component():
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(15), 12)
    y = rng.poisson(np.exp(1 + 0.5 * rng.normal(size=15))[g]) * (np.arange(180) % 3 > 0)  # a third in every group
    m = rf.fit("y ~ 1 + (1 | g)", {"y": y, "g": g}, family="poisson", zero_inflation="~ 1 + (1 | g)")
    lines = str(m.varcorr()).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["g", "zero_inflation:g"]
    assert lines[1].index("(Intercept)") == lines[2].index("(Intercept)") == lines[0].index("term")
    held = m.boundary
    assert [b.text for b in held] == ["variance of (Intercept) | zero_inflation:g estimated 0"]
