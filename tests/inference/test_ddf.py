"""The table of methods: names, defaults, what each counts, refusals and warnings, where they show."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats

import ranef as rf
from engines import zoo
from oracle import dense, incidence
from oracle_gaussian import small
from ranef.engines import pql
from ranef.engines.linear import sources, term_sources
from ranef.inference.ddf import ALIASES, METHODS, method_of


@pytest.fixture(scope="module")
def oats():
    data = rf.datasets.load("Oats")
    return rf.fit("yield ~ factor(nitro) * Variety + (1 | Block/Variety)", data)


@pytest.fixture(scope="module")
def cbpp():
    data = rf.datasets.load("cbpp")
    return rf.fit("incidence / size ~ period + (1 | herd)", data, family="binomial", trials="size")


def quietly(m, ddf, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rf.RanefWarning)
        return m.tidy(ddf=ddf, **more)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("KR", "kenward-roger"),
        ("Kenward-Roger", "kenward-roger"),
        ("kenward_roger", "kenward-roger"),
        (" Satterthwaite ", "satterthwaite"),
        ("Satterthwaite's", "satterthwaite"),
        ("z", "inf"),
        ("asymptotic", "inf"),
        (np.inf, "inf"),
        ("between within", "between-within"),
        ("Inner_Outer", "inner-outer"),
        (None, "satterthwaite"),
    ],
)
def test_names(oats, given, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rf.RanefWarning)
        assert method_of(oats, given) is METHODS[name]


def test_every_alias_leads_to_a_method():
    assert set(ALIASES.values()) <= set(METHODS)
    assert not set(ALIASES) & set(METHODS)


@pytest.mark.parametrize(
    ("given", "message"), [("kenwood", "kenward-roger"), ("t", "known: "), (7, "name of a method")]
)
def test_unknown_names(oats, given, message):
    with pytest.raises(rf.errors.OptionError, match=message):
        oats.tidy(ddf=given)


def test_defaults(oats, cbpp):
    np.testing.assert_array_equal(oats.tidy()["df"], oats.tidy(ddf="satterthwaite")["df"])
    np.testing.assert_array_equal(oats.ddf, oats.tidy()["df"])
    assert np.isinf(cbpp.tidy()["df"]).all()
    assert cbpp.tidy()["p_value"][1] == pytest.approx(2 * stats.norm.sf(abs(cbpp.tidy()["statistic"][1])))


def test_split_plot_counts(oats):
    """Whole plots: 18 - 6 - 2 = 10; rows: 72 - 18 - 9 = 45 (Pinheiro & Bates 2000, sec. 1.6)."""
    df = oats.tidy(ddf="inner-outer").set_index("term")["df"]
    assert df["(Intercept)"] == df["factor(nitro)0.2"] == df["factor(nitro)0.2:VarietyVictory"] == 45
    assert df["VarietyVictory"] == 10
    table = rf.anova(oats, ddf="inner-outer")
    assert list(table["dendf"]) == [45, 10, 45]
    assert set(oats.tidy(ddf="residual")["df"]) == {60}  # 72 - 12


def test_least_df_of_a_combination(oats):
    assert rf.contrast(oats, "VarietyVictory + factor(nitro)0.2", ddf="inner-outer")["df"][0] == 10
    assert rf.contrast(oats, ["VarietyVictory", "factor(nitro)0.2"], ddf="inner-outer", joint=True)["dendf"][0] == 10


def test_between_and_within():
    """Schluchter & Elashoff: 27 children less 2 between; (108 - 4) - 25 within."""
    m = rf.fit("distance ~ age * Sex + (1 | Subject)", rf.datasets.load("Orthodont"))
    assert list(m.tidy(ddf="between-within")["df"]) == [25, 79, 25, 79]
    inner = m.tidy(ddf="inner-outer")["df"]
    assert list(inner) == [79, 79, 25, 79]  # they differ in the intercept


def test_factor_that_varies_in_some_groups_only():
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(6), 4)
    outer = g % 2
    inner = np.where(g == 0, np.arange(24) % 2, outer)
    data = {"y": rng.normal(size=24), "g": g.astype(str), "outer": outer, "inner": inner.astype(str)}
    m = rf.fit("y ~ outer + inner + (1 | g)", data)
    assert list(m.tidy(ddf="inner-outer")["df"]) == [17, 4, 17]  # 6 - (1 + 1); 24 - (6 + 1)


def test_crossed_groups_are_refused_where_strata_are_counted():
    m = rf.fit("diameter ~ 1 + (1 | plate) + (1 | sample)", rf.datasets.load("Penicillin"))
    for ddf in ("inner-outer", "between-within", "inner-outer-slopes"):
        with pytest.raises(rf.errors.NotAvailableError, match="crossed"):
            m.tidy(ddf=ddf)
    assert np.isfinite(m.tidy(ddf="KR")["df"]).all()


def test_two_terms_of_one_group_are_one_level():
    m = rf.fit("y ~ x + (1 | g) + (0 + z | g)", zoo.data())
    assert list(m.tidy(ddf="inner-outer")["df"]) == [60 - 9, 60 - 9]


def test_without_random_effects_all_are_residual():
    m = rf.fit("y ~ x + f", zoo.data())
    for ddf in ("satterthwaite", "kenward-roger", "inner-outer", "between-within", "residual"):
        np.testing.assert_allclose(m.tidy(ddf=ddf)["df"], 56)


def test_warnings(oats):
    m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
    with pytest.warns(rf.RanefWarning, match="wrong for coefficients that vary between groups.*Days"):
        assert list(m.tidy(ddf="inner-outer")["df"]) == [161, 161]
    with pytest.warns(rf.RanefWarning, match="too small with 18 groups"):
        m.tidy(ddf="inf")
    assert list(m.tidy(ddf="inner-outer-slopes")["df"]) == [162, 16]


def test_generalised_models(cbpp):
    assert set(cbpp.tidy(ddf="residual")["df"]) == {52}
    assert list(cbpp.tidy(ddf="between-within")["df"]) == [14, 38, 38, 38]
    assert list(cbpp.tidy(ddf="inner-outer")["df"]) == [38, 38, 38, 38]
    with pytest.raises(rf.errors.NotAvailableError, match="not gaussian"):
        cbpp.tidy(ddf="satterthwaite")
    with pytest.raises(rf.errors.NotAvailableError, match=r"pseudo-data.*method='pql'"):
        cbpp.summary(ddf="KR")
    for ddf in ("residual", "between-within", "inner-outer"):
        assert set(rf.anova(cbpp, ddf=ddf)["dendf"]) == {52 if ddf == "residual" else 38}


def test_quasi_likelihood_has_those_of_its_working_model(cbpp):
    """Schall's and GLIMMIX's reading: the last working response, its weights, V at the estimates."""
    m = cbpp.update(method="pql")
    z, w = pql.working(m.design, m.distribution, pql.predictor(m.design, m.estimate))
    x, herds = dense(sources(m.design.fixed), m.nobs), incidence(term_sources(m.design.terms)[0], m.nobs)

    def v(p):
        return p[0] ** 2 * herds @ herds.T + p[1] ** 2 * np.diag(1 / w)

    psi = [m.estimate.covariances[0][0, 0] ** 0.5, m.sigma]
    found, table = small(x, z, v, psi), m.tidy(ddf="KR")
    np.testing.assert_allclose(table["std_error"], np.sqrt(np.diag(found.adjusted)), rtol=1e-7)
    np.testing.assert_allclose(table["df"], found.matched(found.w), rtol=1e-7)
    np.testing.assert_allclose(m.tidy()["df"], small(x, z, v, psi, reml=False).df, rtol=1e-5)  # ML's Hessian
    assert "degrees of freedom of the working linear model" in m.summary(ddf="KR")
    assert rf.anova(m, ddf="KR")["dendf"][0] < rf.anova(m)["dendf"][0]


def test_conditional_modes_have_no_p_values(oats):
    """A mode is a prediction of a random quantity, not a parameter that a hypothesis fixes."""
    modes = oats.tidy("ran_vals", ddf="KR")
    assert np.isnan(modes["p_value"].astype(float)).all()
    assert np.isnan(modes["statistic"].astype(float)).all()


def test_intervals_use_the_degrees_of_freedom(oats):
    found = oats.tidy(ddf="KR", conf_int=True)
    half = stats.t.ppf(0.975, found["df"]) * found["std_error"]
    np.testing.assert_allclose(found["conf_high"], found["estimate"] + half, rtol=1e-12)


def test_summaries_say_which(oats, cbpp):
    assert "Satterthwaite's degrees of freedom" in oats.summary()
    assert "Kenward-Roger's standard errors" in oats.summary(ddf="KR")
    assert "inner-outer rule" in oats.summary(ddf="inner-outer")
    with pytest.warns(rf.RanefWarning):
        assert "z tests" in oats.summary(ddf="inf")
    assert "approximate" in cbpp.summary(ddf="between-within")
    assert "t value" in cbpp.summary(ddf="between-within")
    assert "z value" in cbpp.summary()


def test_columns_that_were_dropped():
    m = rf.fit(zoo.FORMULAS["rank_deficient"], zoo.data())
    for ddf in METHODS:
        found = quietly(m, ddf)
        assert np.isnan(found["df"][list(m.estimate.dropped)]).all()
        assert not np.isnan(np.delete(np.asarray(found["df"]), list(m.estimate.dropped))).any()


def test_missing_rows_weights_offsets_and_polars():
    pl = pytest.importorskip("polars")
    data = zoo.data().assign(x=lambda d: d["x"].where(d.index != 5))
    m = rf.fit("y ~ x + offset(z) + (x | g)", pl.from_pandas(data), precision_weights="w")
    for ddf in METHODS:
        assert isinstance(quietly(m, ddf), pl.DataFrame)
    assert quietly(m, "residual")["df"][0] == 57


@pytest.mark.parametrize(
    ("formula", "noted"),
    [
        ("period + (1 | herd)", []),  # compared within herds
        ("1 + (1 | herd)", []),
        ("period + treated + (1 | herd)", ["treated"]),
        ("period + x + (x || herd)", ["x"]),
        ("period + x * treated + (x | herd)", ["x", "treated", "x:treated"]),
        ("x + period:treated + (1 | herd)", []),
        ("treated + (1 | many)", []),
    ],
)
def test_z_tests_that_rest_on_few_groups_are_noted(formula, noted):
    data = rf.datasets.load("cbpp")
    herd = data["herd"].astype(int)
    rng = np.random.default_rng(1)
    data = data.assign(treated=herd % 2, x=rng.normal(size=56), many=np.arange(56) // 2)
    m = rf.fit(f"cbind(incidence, size - incidence) ~ {formula}", data, family="binomial")
    found = [n.evidence["terms"] for n in m.messages if n.code == "few_groups"]
    assert found == ([noted] if noted else [])
