"""Degrees of freedom with covariance structures: dense formulae with numerical derivatives of V, exact cases."""

from __future__ import annotations

import numpy as np
import pytest

import ranef as rf
from engines import zoo
from oracle import dense, incidence
from ranef.engines.linear import sources, term_sources

TIMES = np.arange(5)
LAGS = np.abs(np.subtract.outer(TIMES, TIMES))


@pytest.fixture(scope="module")
def visits():
    """Subjects seen five times, measured twice each time, some rows missing, with autocorrelated effects and noise."""
    rng = np.random.default_rng(4)
    subjects = 16
    root = np.linalg.cholesky(0.6**LAGS * np.outer(1 + 0.2 * TIMES, 1 + 0.2 * TIMES))
    effects = 1 + 0.2 * TIMES + rng.normal(size=(subjects, 5)) @ root.T
    y = effects[:, :, None] + 0.7 * rng.normal(size=(subjects, 5, 2))
    keep = rng.random(y.shape) > 0.25
    i, t, _ = np.nonzero(keep)
    return {"y": y[keep], "id": [f"s{v:02}" for v in i], "time": t, "arm": [f"a{v % 2}" for v in i]}


# Sigma as a function of the natural parameters in the order that the fit reports them.
SHAPES = {
    "ar1": lambda p: p[0] ** 2 * p[1] ** LAGS,
    "hetar1": lambda p: np.outer(p[:5], p[:5]) * p[5] ** LAGS,
    "homcs": lambda p: p[0] ** 2 * np.where(LAGS == 0, 1, p[1]),
    "cs": lambda p: np.outer(p[:5], p[:5]) * np.where(LAGS == 0, 1, p[5]),
    "exp": lambda p: p[0] ** 2 * np.exp(-p[1] * LAGS),
    "gau": lambda p: p[0] ** 2 * np.exp(-p[1] * LAGS**2),
}


def by_differences(m, sigma_of, psi):
    """(Phi, dPhi, W) with V differentiated numerically in (psi, sigma^2)."""
    x = dense(sources(m.design.fixed), m.nobs)
    z = incidence(term_sources(m.design.terms)[0], m.nobs)

    def v(par):
        return par[-1] * np.eye(m.nobs) + z @ np.kron(np.eye(z.shape[1] // 5), sigma_of(par[:-1])) @ z.T

    par = np.array([*psi, m.sigma**2])
    steps = 1e-5 * np.eye(len(par)) * np.maximum(np.abs(par), 0.1)
    slopes = [(v(par + h) - v(par - h)) / (2 * h.sum()) for h in steps]
    inverse = np.linalg.inv(v(par))
    phi = np.linalg.inv(x.T @ inverse @ x)
    projection = inverse - inverse @ x @ phi @ x.T @ inverse
    information = np.array([[np.trace(projection @ a @ projection @ b) / 2 for a in slopes] for b in slopes])
    return phi, [phi @ x.T @ inverse @ a @ inverse @ x @ phi for a in slopes], np.linalg.inv(information)


@pytest.mark.parametrize("structure", list(SHAPES))
def test_satterthwaite_by_dense_differences(visits, structure):
    inside = "numFactor(time)" if structure in ("exp", "gau") else "factor(time)"
    m = rf.fit(f"y ~ time * arm + {structure}(0 + {inside} | id)", visits)
    psi = np.array([p.value for p in m.varcorr()["id"].parameters])
    cov = m.estimate.covariances[0]
    shape = SHAPES[structure]
    if structure in ("exp", "gau"):  # a rate or a range, whichever is reported
        psi[1] = -np.log(cov[0, 1] / cov[0, 0])
    np.testing.assert_allclose(shape(psi), cov, rtol=1e-8)
    phi, slopes, w = by_differences(m, shape, psi)
    g = np.array([np.diag(s) for s in slopes])
    expected = 2 * np.diag(phi) ** 2 / np.einsum("ir,ij,jr->r", g, w, g)
    found = m.tidy(ddf="satterthwaite").head(4)
    np.testing.assert_allclose(found["std_error"], np.sqrt(np.diag(phi)), rtol=1e-7)
    np.testing.assert_allclose(found["df"], expected, rtol=1e-4)  # differences of V: 1e-9 of it, over flat directions


def test_same_model_in_both_engines():
    data = zoo.data()
    plain = rf.fit("y ~ x + f + (1 | g)", data, precision_weights="w")
    other = rf.fit("y ~ x + f + homdiag(1 | g)", data, precision_weights="w")
    assert not other.task.linear
    a, b = plain.tidy(ddf="KR"), other.tidy(ddf="KR")
    np.testing.assert_allclose(b["df"][:4], a["df"], rtol=1e-4)  # both optima are good to 1e-8 of the criterion
    np.testing.assert_allclose(b["std_error"][:4], a["std_error"], rtol=1e-4)
    assert np.isinf(b["df"][4])  # the dispersion's coefficient
    np.testing.assert_allclose(other.tidy(ddf="satterthwaite")["df"], b["df"], rtol=1e-9)  # both from the expected
    a, b = (rf.anova(m, ddf="KR") for m in (plain, other))
    np.testing.assert_allclose(b["statistic"], a["statistic"], rtol=1e-4)
    np.testing.assert_allclose(b["dendf"], a["dendf"], rtol=1e-4)


def test_shifted_columns_and_diagonal_terms():
    """The core takes means off numeric columns; structures are in the user's."""
    data = zoo.data().assign(x=lambda d: d["x"] + 20)
    plain = rf.fit("y ~ x + (x || g)", data)
    nothing = {"f": (1e-9 * np.eye(3), ["f0", "f1", "f2"])}
    other = rf.fit("y ~ x + (x || g) + equalto(0 + f | one)", data.assign(one="1"), cov=nothing)
    found, expected = other.tidy(ddf="KR")["df"][:2], plain.tidy(ddf="KR")["df"]
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_unstructured_repeated_measures_are_exact():
    """Complete data, saturated means: comparisons within subjects have subjects - arms df, and T^2 is exact."""
    rng = np.random.default_rng(8)
    y = rng.normal(size=(20, 3)) @ rng.normal(size=(3, 3)) + 0.3 * np.arange(3)
    labels = {"id": np.repeat(np.arange(20), 3), "visit": list("abc") * 20, "arm": np.repeat(list("uv"), 30)}
    data = {"y": y.ravel(), **labels}
    m = rf.fit("y ~ visit * arm + us(0 + visit | id)", data, dispersion=0)
    found = m.tidy(ddf="KR")
    np.testing.assert_allclose(found["df"][:6], 18, rtol=1e-4)  # beside a residual SD of 1e-4 that stands for none
    table = rf.anova(m, type=3, ddf="KR").set_index("term")
    differences = np.stack([y[:10, 1:] - y[:10, :1], y[10:, 1:] - y[10:, :1]])
    gap = differences[0].mean(axis=0) - differences[1].mean(axis=0)
    pooled = (np.cov(differences[0].T) + np.cov(differences[1].T)) / 2
    t2 = 5 * gap @ np.linalg.solve(pooled, gap)
    assert table.loc["visit:arm", "dendf"] == pytest.approx(17, rel=1e-4)
    assert table.loc["visit:arm", "statistic"] == pytest.approx(17 * t2 / (18 * 2), rel=1e-4)


def test_objections(visits):
    cases = {
        "maximum likelihood": {"method": "ml"},
        "differs between rows": {"dispersion": "~ arm", "method": "reml"},
    }
    for message, arguments in cases.items():
        m = rf.fit("y ~ time + ar1(0 + factor(time) | id)", visits, **arguments)
        with pytest.raises(rf.errors.NotAvailableError, match=message):
            m.tidy(ddf="satterthwaite")
    m = rf.fit("y ~ time + ar1(0 + factor(time) | id)", visits)
    with pytest.raises(rf.errors.NotAvailableError, match="slim"):
        m.slim().tidy(ddf="satterthwaite")
    with pytest.raises(rf.errors.NotAvailableError, match="linear in its parameters"):
        m.tidy(ddf="KR")
    assert np.isinf(m.tidy()["df"]).all()  # the default of structures stays normal
