"""Boundary and messages: facts about a fit as data, and silence where there is nothing to say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.engines import laplace
from ranef.errors import NotAvailableError


def codes(m):
    return [note.code for note in m.messages]


@pytest.fixture(scope="module")
def sleepstudy():
    return rf.datasets.load("sleepstudy")


def test_silence(sleepstudy):
    m = rf.fit("Reaction ~ Days + (Days | Subject)", sleepstudy)
    assert m.messages == ()
    assert m.boundary == ()


def test_zero_variance_is_data_not_a_warning():
    m = rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.load("Dyestuff2"))
    (b,) = m.boundary
    assert b.text == str(b) == "variance of (Intercept) | Batch estimated 0"
    assert (b.group, b.kind, b.names, b.rank, b.size) == ("Batch", "variance", ("(Intercept)",), 0, 1)
    assert m.converged
    assert m.theta[0] == 0
    assert codes(m) == ["boundary"]
    assert bool(m.glance()["boundary"].iloc[0])
    np.testing.assert_array_equal(m.ranef()["Batch"]["(Intercept)"], 0)
    assert all(m.certificate.multipliers[0][0] > 0 for _ in m.boundary)


def test_correlation_of_one():
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(10), 6)
    x, b = np.tile(np.arange(6.0), 10), rng.normal(size=10)
    m = rf.fit("y ~ x + (x | g)", {"g": g, "x": x, "y": 3 * b[g] + 1.5 * b[g] * x + rng.normal(size=60)})
    (note,) = m.boundary
    assert note.kind == "correlation"
    assert note.text == "correlation of (Intercept) and x | g estimated +1"
    assert m.varcorr()["g"].corr[1, 0] == pytest.approx(1)


def test_zero_slope_variance_beside_a_positive_intercept_variance():
    rng = np.random.default_rng(5)
    g, x = np.repeat(np.arange(12), 8), rng.normal(size=96)
    m = rf.fit("y ~ x + (x || g)", {"g": g, "x": x, "y": 2 * rng.normal(size=12)[g] + rng.normal(size=96)})
    if m.boundary:  # by chance of the seed the slope variance is estimated 0
        assert m.boundary[0].text == "variance of x | g estimated 0"
    assert m.boundary, "choose a seed whose slope variance is 0"


def test_rows_and_columns_dropped(sleepstudy):
    data = sleepstudy.astype({"Days": float}).assign(Twice=2.0 * sleepstudy["Days"])
    data.loc[[1, 2], "Days"] = np.nan
    data.loc[[2, 9], "Reaction"] = np.nan
    m = rf.fit("Reaction ~ Days + Twice + (1 | Subject)", data)
    rows, columns = m.messages
    assert rows.text == "3 of 180 rows dropped for missing values (Reaction: 2, Days: 2)"
    assert rows.evidence == {"rows": 3, "columns": {"Reaction": 2, "Days": 2}}
    assert columns.evidence == {"columns": ["Twice"]}


def grouped(seed=1, n=240):
    rng = np.random.default_rng(seed)
    out = pd.DataFrame({"x": rng.normal(size=n), "g": rng.integers(0, 12, n), "h": rng.integers(0, 10, n)})
    effect = rng.normal(size=12)[out["g"]] + rng.normal(size=10)[out["h"]]
    return out.assign(y=effect + out["x"] + rng.normal(size=n), g=out["g"].map("g{}".format), level=out["g"] * 1.0)


def arm(d):
    return np.where(d["level"] % 2 == 0, "a", "b")


@pytest.mark.parametrize(
    ("formula", "change", "code", "says"),
    [
        ("y ~ x + (1 | few)", {"few": lambda d: d["h"] % 3}, "few_levels", "'few' has 3 levels"),
        ("y ~ 1 + (level | g)", {}, "constant_slope", "'level' does not vary within 'g'"),
        ("y ~ arm + (arm | g)", {"arm": arm}, "constant_slope", "'armb' does not vary within"),
        ("y ~ 1 + (0 + arm | g)", {"arm": arm}, "constant_slope", "'arma', 'armb' do not"),
        ("y ~ (1 | g) + (0 + arm || g)", {"arm": arm}, "constant_slope", r"\(0 \+ factor \|\| g\) alone"),
        (
            "y ~ x + (1 | f)",
            {"f": lambda d: d["level"] + 0.25},
            "numeric_group",
            "'f' is numeric with 12 unique values",
        ),
        (
            "y ~ t + (1 | g)",
            {"t": lambda d: (d["h"] / 4 + 0.1).map("{:.2f}".format).where(d["h"] > 0, "?").mask(d["h"] == 1, "9.5")},
            "text_numbers",
            "'t' is text that holds numbers, and '\\?' in rows 22, .* it is taken as a factor of 10 levels",
        ),
        ("y ~ g + (1 | g)", {}, "fixed_and_grouping", "'g' appears fixed and as grouping"),
        ("y ~ x + (1 | g) + (x | g)", {}, "two_intercepts", "two random intercepts for 'g'"),
        ("y ~ x + (1 || g)", {}, "lone_double_bar", r"\(1 \|\| g\) equals \(1 \| g\)"),
        ("y ~ x^2 + (1 | g)", {}, "lone_power", r"x\^2 is x in a formula"),
        ("y ~ level + (1 + x**2 | g)", {}, "lone_power", r"x\*\*2 is x in a formula"),
    ],
)
def test_pitfalls(formula, change, code, says):
    m = rf.fit(formula, grouped().assign(**change))
    found = {note.code: note.text for note in m.messages}
    assert code in found
    assert pd.Series([found[code]]).str.contains(says).all()


@pytest.mark.parametrize("formula", ["y^2 ~ I(x^2) + poly(x^2, 2) + (1 | g)", "y ~ (x + level)^2 + (1 | g) + `a^2`"])
def test_powers_that_mean_something_are_not_noted(formula):
    m = rf.fit(formula, grouped().assign(**{"a^2": lambda d: d["x"] ** 2}))
    assert "lone_power" not in {note.code for note in m.messages}


@pytest.mark.parametrize(
    ("fixed", "group"), [("factor(h)", "h"), ("x * factor(h)", "h"), ("few * k", "few:k"), ("few:k", "few")]
)
def test_levels_that_the_fixed_effects_tell_apart(fixed, group):
    data = grouped().assign(few=lambda d: d["g"].str[-1], k=lambda d: d["h"] % 2 == 0)
    m = rf.fit(f"y ~ {fixed} + (1 | {group})", data, method="ml")
    assert "tell the levels of" in {n.code: n.text for n in m.messages}["fixed_and_grouping"]
    others = rf.fit(f"y ~ x + factor(h):x + (1 | {group}) + (1 | g)", data, method="ml")
    assert "fixed_and_grouping" not in codes(others)


def test_labels_that_start_anew():
    rng = np.random.default_rng(2)
    school, klass, rows = [], [], []
    for s, classes in enumerate([3, 5, 2, 4, 3, 6]):
        for c in range(classes):
            effect = rng.normal()
            for _ in range(4):
                school.append(f"s{s}")
                klass.append(c + 1)
                rows.append(effect + rng.normal())
    data = {"y": rows, "school": school, "klass": klass}
    m = rf.fit("y ~ 1 + (1 | school) + (1 | klass)", data)
    (note,) = [n for n in m.messages if n.code == "reused_labels"]
    assert "(1 | school/klass)" in note.text
    assert "reused_labels" not in codes(rf.fit("y ~ 1 + (1 | school/klass)", data))


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)"),
        ("Pastes", "strength ~ 1 + (1 | batch/cask)"),
        ("Machines", "score ~ Machine + (Machine | Worker)"),
        ("Oats", "yield ~ factor(nitro) * Variety + (1 | Block/Variety)"),
    ],
)
def test_sound_models_are_not_nagged(name, formula):
    assert not [c for c in codes(rf.fit(formula, rf.datasets.load(name))) if c != "boundary"]


def test_messages_are_made_only_when_asked_for(sleepstudy):
    m = rf.fit("Reaction ~ Days + (Days | Subject)", sleepstudy)
    assert "messages" not in m.__dict__
    assert "ddf" not in m.__dict__


def test_a_search_lost_where_effects_have_no_mode_says_which_effects_and_what_to_do(monkeypatch):
    """Which data bring it about depends on rounding, so it is made to happen; the core speaks of a pivot."""
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"y": rng.poisson(2, 120) * rng.integers(0, 2, 120), "g": np.arange(120) % 12})

    def lost(*_):
        raise ValueError("pivot of a level is -1e-3")

    monkeypatch.setattr("ranef.engines.laplace.searched", lost)
    monkeypatch.setattr("ranef.engines.laplace.regular", lambda *_: laplace.Found({"outcome": laplace.FAILED}))
    monkeypatch.setattr("ranef.engines.laplace.integrated", lambda core, design, task, at: at)
    with pytest.raises(rf.errors.DataError, match=r"no mode \(g of zero_inflation\): .*nbinom12.*\(1 \|id\| g\)"):
        rf.fit("y ~ 1 + (1 |id| g)", frame, family="nbinom12", zero_inflation="~ 1 + (1 |id| g)")
    with pytest.raises(rf.errors.DataError, match=r"no mode: the log density of nbinom12 need not be concave"):
        rf.fit("y ~ 1 + (1 | g)", frame, family="nbinom12")


def test_an_unlogged_offset_is_named_when_the_search_fails():
    """An exposure of hundreds, not logged: means of e^500; the fit ends in an error, which says why."""
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"y": rng.poisson(2, 120), "g": np.arange(120) % 12, "e": rng.uniform(1, 500, 120)})
    says = r"offset e spans .* offset\(log\(e\)\)"
    with pytest.raises(rf.errors.DataError, match=says):
        rf.fit("y ~ 1 + offset(e) + (1 | g)", frame, family="poisson")
    with pytest.raises(rf.errors.DataError, match=says):
        rf.fit("y ~ 1 + offset(e) + (1 | g)", frame, family="poisson", prior={"sd(g)": "half_normal(1)"})
    with pytest.raises(rf.errors.DataError, match=says):
        rf.fit("y ~ 1 + (1 | g)", frame, family="poisson", offset="e")
    with pytest.raises(rf.errors.DataError, match="the offset spans"):
        rf.fit("y ~ 1 + (1 | g)", frame, family="poisson", offset=frame["e"].to_numpy())
    with pytest.warns(rf.ConvergenceWarning, match="offset e spans"):
        rf.fit("y ~ 1 + offset(e)", frame, family="poisson")
    assert "unlogged_offset" not in codes(rf.fit("y ~ 1 + offset(log(e)) + (1 | g)", frame, family="poisson"))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_small_residuals_beside_many_random_effects_are_no_underdispersion(seed):
    """Pairs: a correct Poisson model, whose residuals given the effects are half of those of the model."""
    rng = np.random.default_rng(seed)
    pair = np.repeat(np.arange(40), 2)
    y = rng.poisson(np.exp(1.5 + 0.8 * rng.normal(size=40)[pair]))
    m = rf.fit("y ~ 1 + (1 | pair)", {"y": y, "pair": pair}, family="poisson")
    assert "underdispersion" not in codes(m)
    assert "underdispersed" not in [n.code for n in rf.overdispersion(m).notes]
    plain = rf.fit("y ~ 1", {"y": rng.binomial(40, 0.5, 200)}, family="poisson")  # variance half of the mean
    assert "underdispersion" in codes(plain)


def test_a_constant_dispersion_is_not_tested_against_one():
    rng = np.random.default_rng(1)
    frame = {"y": rng.normal(size=60), "x": rng.normal(size=60), "g": np.arange(60) % 6}
    t = rf.fit("y ~ x", frame, dispersion="~ 1", prior={"x": "normal(0, 1)"}).tidy("fixed")
    mine = np.array(t["component"]) == "dispersion"
    assert np.isnan(np.asarray(t["p_value"])[mine]).all()
    assert np.isfinite(np.asarray(t["std_error"])).all()
    assert np.isfinite(np.asarray(t["p_value"])[~mine]).all()


@pytest.mark.parametrize(("formula", "family"), [("cbind(a, b) ~ g", "binomial"), ("a ~ g", "poisson")])
def test_saturated_models_have_no_dispersion_and_a_summary(formula, family):
    d = pd.DataFrame({"g": list("abcdef"), "a": [5, 7, 9, 4, 6, 8], "b": [6, 5, 9, 9, 3, 5]})
    m = rf.fit(formula, d, family=family)
    assert m.df_residual == 0
    assert not {"overdispersion", "underdispersion"} & set(codes(m))
    assert "df.resid" in m.summary()
    with pytest.raises(NotAvailableError, match="parameter for every response"):
        rf.overdispersion(m)


@pytest.mark.parametrize("term", ["(0 + arm || g)", "(arm || g)", "(1 | g)", "(f | g)", "(1 | g) + (0 + f || g)"])
def test_variances_of_a_factor_that_are_identified_are_not_noted(term):
    data = grouped().assign(arm=arm, f=lambda d: np.where(d["x"] > 0, "a", "b"))
    assert "constant_slope" not in codes(rf.fit(f"y ~ x + {term}", data))


@pytest.mark.parametrize("structure", ["cs", "toep", "hetar1"])
def test_correlations_of_a_factor_that_is_constant_within_groups(structure):
    rng, g = np.random.default_rng(0), np.repeat(np.arange(60), 5)
    t = np.where(np.arange(60) < 30, "a", "b")
    u = np.where(t == "a", 3.0, 1.0) * rng.normal(size=60)
    data = {"y": u[g] + rng.normal(size=300), "t": t[g], "g": g}
    told = [n.text for n in rf.fit(f"y ~ t + {structure}(0 + t | g)", data).messages if n.code == "constant_slope"]
    assert len(told) == 1
    assert "correlations" in told[0]
    apart = rf.fit("y ~ t + (1 | g) + (0 + dummy(t, 'a') | g)", data)
    assert all("not identifiable" not in n.text for n in apart.messages)
