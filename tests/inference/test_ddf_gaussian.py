"""Gaussian models of the Laplace engine: dense formulae with numerical derivatives of V, exact cases, refusals."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pytest

import ranef as rf
from engines import zoo
from oracle import dense, incidence
from oracle_gaussian import small
from ranef.engines.linear import sources, term_sources
from ranef.inference.ddf import default_method
from ranef.inference.ddf.directions import derivatives
from ranef.inference.ddf.forms import Entries
from ranef.inference.ddf.gaussian import gaussian, objection, space_of
from ranef.inference.ddf.units import Units

TIMES = np.arange(5)
LAGS = np.abs(np.subtract.outer(TIMES, TIMES))
# The oracle's V is differentiated numerically: 1e-6 of second derivatives, which weigh little in W. Ours are exact.
CLOSE = 1e-5
# The observed information in other parameters differs by the gradient that is left times the curvature of the map
# between them: 1e-5 of degrees of freedom where the search stops at a decrease of 1e-9. Searched on, both are the same.
CONTROL = {"tolerance": 1e-13}


@pytest.fixture(scope="module")
def visits():
    """Subjects seen five times, measured twice each time, some rows missing, with autocorrelated effects and noise."""
    rng = np.random.default_rng(4)
    subjects = 11
    root = np.linalg.cholesky(0.6**LAGS * np.outer(1 + 0.2 * TIMES, 1 + 0.2 * TIMES))
    effects = 1 + 0.2 * TIMES + rng.normal(size=(subjects, 5)) @ root.T
    y = effects[:, :, None] + 0.7 * rng.normal(size=(subjects, 5, 2))
    keep = rng.random(y.shape) > 0.25
    i, t, _ = np.nonzero(keep)
    return {"y": y[keep], "id": [f"s{v:02}" for v in i], "time": t, "arm": [f"a{v % 2}" for v in i]}


@pytest.fixture(scope="module")
def plots():
    """Crossed groups of two kinds, a noisier level of f, weights, an offset, counts."""
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(12), 6)
    n, h, f = len(g), rng.integers(0, 5, len(g)), rng.integers(0, 3, len(g))
    x = rng.normal(size=n)
    y = 1 + 0.5 * x + rng.normal(size=12)[g] + 1.2 * rng.normal(size=5)[h] + np.exp(0.3 * (f == 1)) * rng.normal(size=n)
    names = {"g": [f"g{v}" for v in g], "h": [f"h{v}" for v in h], "f": [f"f{v}" for v in f]}
    given = {"w": rng.uniform(0.5, 2, n), "off": rng.normal(size=n), "count": rng.integers(1, 4, n)}
    return {"y": y, "x": x, "time": np.tile(np.arange(6), 12), **names, **given}


# Sigma as a function of the natural parameters in the order that the fit reports them.
SHAPES = {
    "ar1": lambda p: p[0] ** 2 * p[1] ** LAGS,
    "hetar1": lambda p: np.outer(p[:5], p[:5]) * p[5] ** LAGS,
    "homcs": lambda p: p[0] ** 2 * np.where(LAGS == 0, 1, p[1]),
    "cs": lambda p: np.outer(p[:5], p[:5]) * np.where(LAGS == 0, 1, p[5]),
    "toep": lambda p: np.outer(p[:5], p[:5]) * np.concatenate([[1], p[5:]])[LAGS],
    "exp": lambda p: p[0] ** 2 * np.exp(-LAGS / p[1]),
    "gau": lambda p: p[0] ** 2 * np.exp(-((LAGS / p[1]) ** 2)),
}


def structured(data, structure, **more):
    inside = "numFactor(time)" if structure in ("exp", "gau") else "factor(time)"
    return rf.fit(f"y ~ time * arm + {structure}(0 + {inside} | id)", data, control=CONTROL, **more)


def natural(m, group="id"):
    return [p.value for p in m.varcorr()[group].parameters]


def design_matrix(m):
    return dense(sources(m.design.fixed), m.nobs)


def agree(m, found, kr=True, at=slice(None), close=CLOSE):
    """Compare a fit's tests with the oracle's."""
    size = len(m.layout.fixed)
    table = m.tidy(ddf="satterthwaite").head(size).iloc[at]
    np.testing.assert_allclose(table["std_error"], np.sqrt(np.diag(found.phi)), rtol=1e-7)
    np.testing.assert_allclose(table["df"], found.df, rtol=close)
    if kr:
        table = m.tidy(ddf="KR").head(size).iloc[at]
        np.testing.assert_allclose(table["std_error"], np.sqrt(np.diag(found.adjusted)), rtol=close)
        np.testing.assert_allclose(table["df"], found.matched(found.w), rtol=close)


@pytest.mark.parametrize(
    ("structure", "method"), [*((structure, "reml") for structure in SHAPES), ("ar1", "ml"), ("cs", "ml")]
)
def test_structures_as_the_articles_write(visits, structure, method):
    m = structured(visits, structure, method=method)
    shape, psi = SHAPES[structure], natural(m)
    np.testing.assert_allclose(shape(np.array(psi)), m.estimate.covariances[0], rtol=1e-8)
    z = incidence(term_sources(m.design.terms)[0], m.nobs)

    def v(p):
        return p[-1] ** 2 * np.eye(m.nobs) + z @ np.kron(np.eye(11), shape(p[:-1])) @ z.T

    agree(m, small(design_matrix(m), m.design.y, v, [*psi, m.sigma], method == "reml"), kr=method == "reml")
    if structure == "ar1" and method == "reml":  # in other parameters the adjustment is the same

        def moved(p):
            return v(np.array([np.exp(p[0]), np.tanh(p[1]), p[2] ** 3]))

        other = small(design_matrix(m), m.design.y, moved, [np.log(psi[0]), np.arctanh(psi[1]), m.sigma ** (1 / 3)])
        table = m.tidy(ddf="KR").head(4)
        np.testing.assert_allclose(table["std_error"], np.sqrt(np.diag(other.adjusted)), rtol=CLOSE)


def test_both_ways_give_the_same_forms(visits):
    m = structured(visits, "hetar1")
    assert isinstance(space_of(m), Entries)
    dense_way = Units(m, m.design, np.eye(4)).forms(derivatives(m).first)
    for name in ("slopes", "bends", "expected", "average"):
        ours = getattr(gaussian(m).forms, name)
        np.testing.assert_allclose(getattr(dense_way, name), ours, atol=1e-11 * np.abs(ours).max())  # rounding
    np.testing.assert_allclose(dense_way.gradient, gaussian(m).forms.gradient, atol=1e-9 * np.abs(m.criterion))


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_residual_variances_by_a_formula(plots, method):
    m = rf.fit("y ~ x + (x | g)", {**plots, "y": slopes_added(plots)}, dispersion="~ f", method=method)
    columns = np.column_stack([np.ones(72), *(np.array(plots["f"]) == level for level in ("f1", "f2"))])
    z = incidence(term_sources(m.design.terms)[0], m.nobs)
    root = m.estimate.roots[0]

    def v(p):
        own = np.array([[p[0], 0], [p[1], p[2]]])
        return z @ np.kron(np.eye(12), own @ own.T) @ z.T + np.diag(np.exp(2 * columns @ p[3:]))

    psi = [root[0, 0], root[1, 0], root[1, 1], *m.estimate.beta[2:]]
    agree(m, small(design_matrix(m), m.design.y, v, psi, method == "reml"), kr=method == "reml")


def slopes_added(data):
    codes = np.unique(data["g"], return_inverse=True)[1]
    return data["y"] + 1.5 * np.random.default_rng(9).normal(size=12)[codes] * data["x"]


def squares(labels):
    z = (np.array(labels)[:, None] == np.unique(labels)).astype(float)
    return z @ z.T


def decay(data):
    """A relationship of the levels of g, and Z A Z'."""
    levels = [f"g{v}" for v in range(12)]
    a = np.exp(-0.3 * np.abs(np.subtract.outer(np.arange(12), np.arange(12))))
    z = (np.array(data["g"])[:, None] == levels).astype(float)
    return {"g": (a, levels)}, z @ a @ z.T


def sds(m):
    return [*(np.sqrt(c[0, 0]) for c in m.estimate.covariances), m.sigma]


def test_related_levels(plots):
    known, zaz = decay(plots)
    m = rf.fit("y ~ x + (1 | g) + (1 | h)", plots, cov=known)

    def v(p):
        return p[0] ** 2 * zaz + p[1] ** 2 * squares(plots["h"]) + p[2] ** 2 * np.eye(72)

    agree(m, small(design_matrix(m), m.design.y, v, sds(m)))


def test_related_levels_with_weights_and_an_offset(plots):
    known, zaz = decay(plots)
    m = rf.fit("y ~ x + offset(off) + (1 | g)", plots, cov=known, precision_weights="w")

    def v(p):
        return p[0] ** 2 * zaz + p[1] ** 2 * np.diag(1 / plots["w"])

    agree(m, small(design_matrix(m), plots["y"] - plots["off"], v, sds(m)))


def test_counted_rows_are_as_many_rows(plots):
    m = rf.fit("y ~ x + (1 | g)", plots, frequency_weights="count", method="reml")
    at = np.repeat(np.arange(72), plots["count"])

    def v(p):
        return p[0] ** 2 * squares(plots["g"])[np.ix_(at, at)] + p[1] ** 2 * np.eye(len(at))

    agree(m, small(design_matrix(m)[at], plots["y"][at], v, sds(m)))
    plain = rf.fit("y ~ x + (1 | g)", {k: np.asarray(c)[at] for k, c in plots.items()})
    np.testing.assert_allclose(m.tidy()["df"][:2], plain.tidy()["df"], rtol=1e-4)  # both optima to 1e-8


def test_loadings(plots):
    rng = np.random.default_rng(3)
    y = plots["y"] + np.outer(rng.normal(size=12), [1.5, 2, 2, 1, 2, 0.5]).ravel()
    m = rf.fit("y ~ x + rr(0 + factor(time) | g, 1)", {**plots, "y": y})
    z = incidence(term_sources(m.design.terms)[0], m.nobs)

    def v(p):
        return z @ np.kron(np.eye(12), np.outer(p[:6], p[:6])) @ z.T + p[6] ** 2 * np.eye(72)

    agree(m, small(design_matrix(m), m.design.y, v, [*m.estimate.roots[0][:, 0], m.sigma]))


def test_structures_over_many_columns():
    """More entries than the linear engine is asked for: the same by dense cross-products."""
    rng, k = np.random.default_rng(2), 23
    n = 6 * k
    data = {"y": rng.normal(size=n).cumsum() + rng.normal(size=n), "t": np.tile(np.arange(k), 6)}
    m = rf.fit("y ~ t + ar1(0 + factor(t) | id)", {**data, "id": [f"s{v}" for v in np.repeat(np.arange(6), k)]})
    assert isinstance(space_of(m), Units)
    lags = np.abs(np.subtract.outer(np.arange(k), np.arange(k)))

    def v(p):
        return np.kron(np.eye(6), p[0] ** 2 * p[1] ** lags) + p[2] ** 2 * np.eye(n)

    agree(m, small(design_matrix(m), m.design.y, v, [*natural(m), m.sigma]), close=1e-4)  # correlations near 1


# ---- parameters held, tied, with priors ------------------------------------------------------------------------------


def two_groups(data):
    return lambda p: p[0] ** 2 * squares(data["g"]) + p[1] ** 2 * np.eye(72)


def test_held_coefficients_are_offsets(plots):
    m = rf.fit("y ~ x + f + (1 | g)", plots, fixed={"x": 0.4})
    x = design_matrix(m)
    agree(m, small(x[:, [0, 2, 3]], plots["y"] - 0.4 * plots["x"], two_groups(plots), sds(m)), kr=False, at=[0, 2, 3])
    assert np.isnan(m.tidy()["p_value"][1])


def test_tied_coefficients_are_sums_of_columns(plots):
    m = rf.fit("y ~ x + f + (1 | g)", plots, equal=[("ff1", "ff2")])
    x = design_matrix(m)
    reduced = np.column_stack([x[:, :2], x[:, 2] + x[:, 3]])
    agree(m, small(reduced, plots["y"], two_groups(plots), sds(m)), kr=False, at=[0, 1, 2])
    table = m.tidy()
    assert table["df"][2] == table["df"][3]


def test_held_variances_are_known(plots):
    m = rf.fit("y ~ x + (1 | g) + (1 | h)", plots, fixed={"sd(h)": 0.5})
    known = 0.25 * squares(plots["h"])
    found = small(design_matrix(m), plots["y"], lambda p: two_groups(plots)(p) + known, [sds(m)[0], m.sigma])
    agree(m, found, kr=False)
    m = rf.fit("y ~ x + (1 | g)", plots, fixed={"sigma": 1.1})
    found = small(design_matrix(m), plots["y"], lambda p: two_groups(plots)([p[0], 1.1]), sds(m)[:1])
    agree(m, found, kr=False)


def test_priors_of_variances_add_their_curvature(plots):
    """-2 log density of gamma(2, 4) has the second derivative 2 / sd^2."""
    m = rf.fit("y ~ x + (1 | g)", plots, prior={"sd(g)": rf.prior.gamma(2, 4)})
    found = small(design_matrix(m), plots["y"], two_groups(plots), sds(m))
    spread = 2 * np.linalg.inv(found.hessian + np.diag([2 / sds(m)[0] ** 2, 0]))
    np.testing.assert_allclose(m.tidy()["df"][:2], found.matched(spread), rtol=1e-4)  # the engine's differences
    assert "t tests, Satterthwaite" in m.summary()


# ---- exact, and the same as in the linear engine ---------------------------------------------------------------------


def test_same_model_in_both_engines():
    data = zoo.data()
    plain = rf.fit("y ~ x + f + (1 | g)", data, precision_weights="w")
    other = rf.fit("y ~ x + f + homdiag(1 | g)", data, precision_weights="w")
    assert not other.task.linear
    for ddf in ("KR", "satterthwaite", None):
        a, b = plain.tidy(ddf=ddf), other.tidy(ddf=ddf)
        np.testing.assert_allclose(b["df"][:4], a["df"], rtol=1e-4)  # both optima are good to 1e-8 of the criterion
        np.testing.assert_allclose(b["std_error"][:4], a["std_error"], rtol=1e-4)
        assert np.isinf(b["df"][4])  # the dispersion's coefficient
        for kind in (1, 2, 3):
            a, b = (rf.anova(m, type=kind, ddf=ddf) for m in (plain, other))
            assert list(a.columns) == list(b.columns)
            np.testing.assert_allclose(b["statistic"], a["statistic"], rtol=1e-4)
            np.testing.assert_allclose(b["dendf"], a["dendf"], rtol=1e-4)
            np.testing.assert_allclose(b["sumsq"], a["sumsq"], rtol=1e-4)
    rows = np.eye(5)[[1, 2]]
    a, b = rf.contrast(plain, rows[:, :4], joint=True), rf.contrast(other, rows[:, :4], joint=True)
    np.testing.assert_allclose(b["dendf"], a["dendf"], rtol=1e-4)


def test_singular_fits_in_both_engines():
    data = rf.datasets.load("Dyestuff2")
    plain, other = (rf.fit(f"Yield ~ 1 + {term}", data) for term in ("(1 | Batch)", "homdiag(1 | Batch)"))
    for ddf in ("KR", "satterthwaite"):
        np.testing.assert_allclose(other.tidy(ddf=ddf)["std_error"][0], plain.tidy(ddf=ddf)["std_error"][0], rtol=1e-4)
    assert other.tidy(ddf="KR")["df"][0] == pytest.approx(5, rel=1e-3)
    assert other.tidy()["df"][0] == pytest.approx(plain.tidy()["df"][0], rel=1e-3)  # 29: a variance of 0 is known


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


def test_a_residual_variance_of_nothing_is_no_obstacle():
    """One row a visit, all of its variance in the process: the residual's has no standard error, the others have."""
    rng = np.random.default_rng(7)  # its residual variance is estimated 0
    root = np.linalg.cholesky(0.7**LAGS)
    data = {"y": (rng.normal(size=(12, 5)) @ root.T).ravel(), "time": np.tile(TIMES, 12)}
    labels = {"id": np.repeat([f"s{v}" for v in range(12)], 5), "arm": np.repeat(list("uv") * 6, 5)}
    m = structured({**data, **labels}, "ar1")
    assert m.sigma < 1e-3
    for ddf in ("satterthwaite", "KR"):
        table = m.tidy(ddf=ddf)
        assert np.isfinite(table["p_value"][:4]).all()
        assert np.isfinite(rf.anova(m, type=3, ddf=ddf)["p_value"]).all()
        assert rf.contrast(m, "armv", ddf=ddf)["df"][0] == pytest.approx(table["df"][2])
    plain = structured({**data, **labels}, "ar1", dispersion=0)
    np.testing.assert_allclose(m.tidy()["df"][:4], plain.tidy()["df"][:4], rtol=1e-3)  # a residual SD of 1e-4


def test_without_random_effects_variances_of_two_groups_are_welchs():
    """Two samples, each with its own variance: Satterthwaite's degrees of freedom are Welch's."""
    rng = np.random.default_rng(6)
    data = {"y": np.concatenate([rng.normal(size=7), 3 * rng.normal(size=11)]), "g": ["a"] * 7 + ["b"] * 11}
    m = rf.fit("y ~ g", data, dispersion="~ g", method="reml")
    share = np.array([np.var(data["y"][:7], ddof=1) / 7, np.var(data["y"][7:], ddof=1) / 11])
    welch = share.sum() ** 2 / (share**2 / [6, 10]).sum()
    table = m.tidy()
    np.testing.assert_allclose(table["std_error"][1], np.sqrt(share.sum()), rtol=1e-5)  # the optimum
    np.testing.assert_allclose(table["df"][:2], [6, welch], rtol=1e-4)


# ---- defaults and refusals -------------------------------------------------------------------------------------------


def test_linear_mixed_models_have_t_tests_by_default(visits):
    m = structured(visits, "ar1")
    assert default_method(m).name == "satterthwaite"
    np.testing.assert_array_equal(m.tidy()["df"], m.tidy(ddf="satterthwaite")["df"])
    np.testing.assert_array_equal(m.ddf, m.tidy()["df"])
    np.testing.assert_allclose(np.sqrt(np.diag(m.vcov())), m.tidy()["std_error"][:4], rtol=1e-12)
    text = m.summary()
    assert text.startswith("Linear mixed model fit by REML\n")
    assert "Fixed effects (t tests, Satterthwaite's degrees of freedom)" in text
    assert "Parameters of the family" not in text
    assert "Kenward-Roger's standard errors" in m.summary(ddf="KR")
    with pytest.warns(rf.RanefWarning, match="11 groups"):
        assert "z tests" in m.summary(ddf="inf")


def test_slim_fits_say_the_same(visits):
    m = structured(visits, "ar1")
    slim = pickle.loads(pickle.dumps(m.slim())).slim()
    assert str(slim) == str(m)
    np.testing.assert_allclose(slim.tidy()["df"], m.tidy()["df"], rtol=1e-12)
    both = (rf.contrast(fit, "time - arma1")["df"] for fit in (slim, m))
    np.testing.assert_allclose(*both, rtol=1e-12)
    with pytest.raises(rf.errors.NotAvailableError, match="a slim fit keeps no rows"):
        slim.tidy(ddf="KR")


def reasons(plots):
    """(what a summary says, the fit)."""
    yield "coefficients with priors", rf.fit("y ~ x + (1 | g)", plots, prior={"fixed": rf.prior.normal(0, 2)})
    yield "residual variances with random effects", rf.fit("y ~ x + (1 | g)", plots, dispersion="~ 1 + (1 | h)")
    yield "rf.robust", rf.fit("y ~ x + (1 | g)", plots, sampling_weights="w")


def test_what_cannot_be_is_said(plots):
    for reason, m in reasons(plots):
        assert reason in objection(m)
        assert np.isinf(m.tidy()["df"]).all()
        with pytest.raises(rf.errors.NotAvailableError, match=reason):
            m.tidy(ddf="satterthwaite")
        if "random effects" not in reason:  # no linear mixed model: z tests are what it has
            assert reason in " ".join(m.summary().split())


def test_kenward_roger_is_of_reml(visits, plots):
    with pytest.warns(rf.RanefWarning, match="REML estimates of the variances"):
        ours = structured(visits, "ar1", method="ml").tidy(ddf="KR")
    theirs = structured(visits, "ar1").tidy(ddf="KR")
    np.testing.assert_allclose(ours["df"], theirs["df"], rtol=1e-4)  # two searches end at one optimum
    with pytest.raises(rf.errors.NotAvailableError, match="held, tied or have priors"):
        rf.fit("y ~ x + (1 | g)", plots, prior={"sd(g)": rf.prior.gamma(2, 4)}).tidy(ddf="KR")


def test_too_many_related_levels_are_refused(plots, monkeypatch):
    known, _ = decay(plots)
    monkeypatch.setattr("ranef.inference.ddf.gaussian.LARGEST", 11)
    m = rf.fit("y ~ x + (1 | g)", plots, cov=known)
    assert "more than 11 random effects" in objection(m)
    assert "z tests: Satterthwaite's degrees of freedom are not available" in m.summary()


@pytest.mark.parametrize("structure", ["homcs", "homtoep"])
def test_coefficients_where_the_variances_cannot_be_told_apart(structure):
    """A structure with a parameter more than the covariance of the rows, beside a residual: V is known all the same."""
    r = np.random.default_rng(1)
    group, when = np.repeat(np.arange(12), 6), np.tile(np.arange(6), 12)
    x = r.normal(size=72)
    y = r.normal(size=72) + r.normal(size=12)[group] + 0.5 * x + 0.3 * when * r.normal(size=12)[group]
    data = {"y": y, "x": x, "g": group, "ft": np.array([f"t{t}" for t in range(6)])[when]}
    m = rf.fit(f"y ~ x + {structure}(0 + ft | g)", data)
    one = m.update(dispersion=0)  # the same covariances of rows without the parameter too many
    assert m.criterion == pytest.approx(one.criterion, abs=1e-4)  # two searches, one of them along a ridge
    found, known = m.tidy(), one.tidy()
    error = np.asarray(found["std_error"])[2]
    assert np.isnan(error) or error > 10  # the dispersion, a logarithm, is not known apart from the structure
    # The observed information of the coefficients, in which one variance is held, against that with all of them free.
    np.testing.assert_allclose(np.asarray(found["std_error"])[:2], known["std_error"], rtol=0.05)
    assert rf.anova(m)["p_value"][0] == pytest.approx(rf.anova(one)["p_value"][0], rel=0.05)


@pytest.mark.parametrize("ddf", ["residual", "between-within", "inf"])
def test_standard_errors_do_not_depend_on_the_degrees_of_freedom(ddf):
    # Those of (X'V^-1X)^-1, which `vcov` and the default have: the joint information gave a dispersion's slope others.
    noise = np.random.default_rng(5)
    g = np.repeat(np.arange(15), 6)
    x = noise.normal(size=90)
    y = x + noise.normal(size=15)[g] + np.exp(0.3 * x) * noise.normal(size=90)
    m = rf.fit("y ~ x + (1 | g)", {"g": g.astype(str), "x": x, "y": y}, dispersion="~x")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # normal tests with few groups are cautioned against
        found = np.asarray(m.tidy(ddf=ddf)["std_error"])[:2]
    np.testing.assert_array_equal(found, np.sqrt(np.diag(np.asarray(m.vcov()))))
    level, slope = m.estimate.beta[m.layout.component("dispersion").at]
    v = np.diag(np.exp(2 * (level + slope * x))) + (g[:, None] == g) * m.estimate.covariances[0][0, 0]
    design = np.column_stack([np.ones(90), x])
    expected = np.linalg.inv(design.T @ np.linalg.solve(v, design))
    np.testing.assert_allclose(found, np.sqrt(np.diag(expected)), rtol=1e-8)


@pytest.mark.parametrize(
    ("formula", "more", "why"),
    [
        ("y ~ x", {"fixed": {"sigma": 1.0}}, "all of its variances are known"),
        ("y ~ 1", {"dispersion": "~ 0"}, "all of its variances are known"),
        ("y ~ x + ar1(0 + h | g)", {}, "fits the response exactly"),
    ],
)
@pytest.mark.filterwarnings("ignore::ranef.errors.ConvergenceWarning")
def test_models_without_an_estimated_variance_have_z_tests(formula: str, more: dict[str, Any], why: str):
    rng = np.random.default_rng(2)
    x = rng.normal(size=60)
    y = x if "exactly" in why else rng.normal(size=60)
    data = {"y": y, "x": x, "g": rng.integers(0, 6, 60).astype(str), "h": rng.choice(list("abc"), 60)}
    text = rf.fit(formula, data, **more).summary()
    assert "z tests" in text
    assert why in " ".join(text.split())
