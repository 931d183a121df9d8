"""Profiles: beside exact roots of the profile deviance, closed forms, invariances, boundaries, bad input."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

import ranef as rf
from engines import zoo
from golden import reference
from ranef.errors import NotAvailableError, OptionError, UnknownColumnError

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep():
    return rf.fit(SLEEP, rf.datasets.load("sleepstudy"))


@pytest.fixture(scope="module")
def profiled(sleep):
    return rf.profile(sleep)


@pytest.fixture(scope="module")
def salamanders():
    return rf.fit(
        "count ~ mined + (1 | site)", rf.datasets.load("Salamanders"), family="nbinom2", zero_inflation="~mined"
    )


def golden_rows(name, section):
    return {row["term"]: row for row in reference.load(name).raw[section]["exact"]}


CASES = {
    "sleepstudy": (
        "post_sleepstudy_intervals",
        SLEEP,
        {
            "sd_(Intercept)|Subject": "sd((Intercept) | Subject)",
            "sd_Days|Subject": "sd(Days | Subject)",
            "cor_Days.(Intercept)|Subject": "cor((Intercept), Days | Subject)",
        },
        {"profile_ml": 0.95, "profile_ml_90": 0.9},
    ),
    "dyestuff": (
        "post_dyestuff_profile",
        "Yield ~ 1 + (1 | Batch)",
        {"sd_(Intercept)|Batch": "sd((Intercept) | Batch)"},
        {"profile_ml": 0.95, "profile_99": 0.99},
    ),
    "penicillin": (
        "post_penicillin_intervals",
        "diameter ~ 1 + (1 | plate) + (1 | sample)",
        {"sd_(Intercept)|plate": "sd((Intercept) | plate)", "sd_(Intercept)|sample": "sd((Intercept) | sample)"},
        {"profile_ml": 0.95},
    ),
}


@pytest.mark.parametrize(("name", "formula", "labels", "sections"), CASES.values(), ids=CASES)
def test_intervals_are_the_roots_of_the_profile_deviance(name, formula, labels, sections):
    found = rf.profile(rf.fit(formula, rf.datasets.load(reference.load(name).raw["data"])))
    for section, level in sections.items():
        rows = golden_rows(name, section)
        assert len(rows) == len(found)
        for term, row in rows.items():
            curve = found[labels.get(term, term)]
            low, high = curve.interval(level)
            # The reference roots were found to 1e-9, in a criterion that lme4 evaluates to about 1e-10.
            assert curve.estimate == pytest.approx(row["estimate"], rel=1e-6)
            assert high == pytest.approx(row["upper"], rel=1e-7)
            if row["lower"] is None:  # the bound is reached first
                assert low == 0
                assert curve.ends[0] == "bound"
            else:
                assert low == pytest.approx(row["lower"], rel=1e-7)


def test_zeta_between_the_nodes():
    theirs = pd.DataFrame(reference.load("post_dyestuff_profile").raw["zeta"])
    found = rf.profile(rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.load("Dyestuff"), method="ml"), points=16)
    for name, rows in theirs.groupby(".par"):
        curve = found["sd((Intercept) | Batch)" if str(name).startswith("sd") else str(name)]
        inside = rows[rows[".zeta"].abs() < 3]
        # Cubic interpolation between nodes about 0.2 apart in zeta, of a curve that bends near 0.
        np.testing.assert_allclose(curve.zeta_at(inside[".focal"]), inside[".zeta"], atol=5e-5)


def test_zero_inflated_negative_binomial_beside_glmmtmb(salamanders):
    labels = {"zi~(Intercept)": "zero_inflation.(Intercept)", "zi~minedno": "zero_inflation.minedno"}
    found = rf.profile(salamanders, ["(Intercept)", "minedno", *labels.values()])
    for row in reference.load("tmbpost_sal_intervals").raw["uniroot_beta"]:
        low, high = found[labels.get(row["term"], row["term"])].interval(0.95)
        # TMB's tmbroot stops at the fourth root of the machine's precision: 1e-4.
        assert high == pytest.approx(row["upper"], abs=1e-4)
        assert low == (-np.inf if row["lower"] is None else pytest.approx(row["lower"], abs=1e-4))
    assert any("levels off" in text for text in found.messages)


# ---- closed forms ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [2, 3])
def test_few_groups_have_a_finite_upper_end(groups):
    # Balanced one-way: -2 loglik = g (k - 1) log s + g log t + within / s + between / t, t = s + k v; mu is the mean.
    size = 8
    noise = np.random.default_rng(0)
    at = np.repeat(np.arange(groups), size)
    y = noise.normal(size=groups)[at] + noise.normal(size=groups * size)
    means = np.bincount(at, y) / size
    within, between = ((y - means[at]) ** 2).sum(), size * ((means - means.mean()) ** 2).sum()

    def deviance(v, log_s):
        s = np.exp(log_s)
        t = s + size * v
        return groups * (size - 1) * log_s + groups * np.log(t) + within / s + between / t

    def profiled(sd):
        return optimize.minimize_scalar(lambda a: deviance(sd**2, a), bracket=(-2, 0, 2), tol=1e-12).fun

    sd = optimize.minimize_scalar(lambda u: profiled(np.exp(u)), bounds=(-5, 3), method="bounded").x
    cut = stats.chi2.ppf(0.99, 1)
    lowest = min(profiled(np.exp(sd)), profiled(0.0))
    expected = optimize.brentq(lambda u: profiled(np.exp(u)) - lowest - cut, sd, 10)
    curve = rf.profile(rf.fit("y ~ 1 + (1 | g)", pd.DataFrame({"g": at.astype(str), "y": y})), "random").curves[0]
    assert curve.ends[1] == "reached"
    # The deviance rises as a logarithm of the SD; errors of its two minima, 1e-7, move the root by about as much.
    assert curve.interval(0.99)[1] == pytest.approx(np.exp(expected), rel=1e-6)


def test_a_model_without_random_effects_has_a_closed_form():
    data = rf.datasets.load("sleepstudy")
    m = rf.fit("Reaction ~ Days", data, method="ml")
    found = rf.profile(m)
    n, sse = m.nobs, m.sigma**2 * m.nobs
    cut = stats.chi2.ppf(0.95, 1)
    # n log(1 + d^2 / (c sse)) = cut with c = [(X'X)^-1]_jj.
    c = m.vcov().to_numpy()[1, 1] / m.sigma**2
    half = np.sqrt(np.expm1(cut / n) * sse * c)
    np.testing.assert_allclose(
        found["Days"].interval(0.95), [m.params["Days"] - half, m.params["Days"] + half], rtol=1e-9
    )
    low, _ = found["sigma"].interval(0.95)
    ratio = m.sigma**2 / low**2
    assert n * (ratio - 1 - np.log(ratio)) == pytest.approx(cut, rel=1e-8)


def test_each_point_is_a_constrained_optimum(sleep, profiled):
    # A fit in which the deviance is minimised with a held sigma: the criterion at (theta, sigma) of each point.
    assert max(c.decrease.max() for c in profiled.curves) < 1e-9
    assert {c.ends for c in profiled.curves} == {("reached", "reached")}
    curve = profiled["Days"]
    ml = sleep.update(method="ml")
    for i in (0, 5, -1):
        data = rf.datasets.load("sleepstudy")
        held = rf.fit("Reaction ~ 1 + offset(o) + (Days | Subject)",
                      data.assign(o=curve.value[i] * data["Days"]), method="ml")  # fmt: skip
        assert held.criterion - ml.criterion == pytest.approx(curve.zeta[i] ** 2, abs=1e-7)
        assert curve.along["sigma"][i] == pytest.approx(held.sigma, rel=1e-4)
        assert curve.along["(Intercept)"][i] == pytest.approx(held.params["(Intercept)"], rel=1e-5)


def test_slopes_are_derivatives_of_zeta(profiled):
    for curve in profiled.curves:
        t = curve.raw[:-1] + 0.5 * np.diff(curve.raw)
        quotient = (curve._hermite(t + 1e-6) - curve._hermite(t - 1e-6)) / 2e-6
        straight = np.diff(curve.zeta) / np.diff(curve.raw)
        np.testing.assert_allclose(
            quotient, straight, rtol=0.1
        )  # what the interpolant does between nodes is near to both
        assert (np.diff(curve.zeta) > 0).all()


# ---- scales and invariances ------------------------------------------------------------------------------------------


def test_scales_are_transformations(sleep, profiled):
    for scale, map_ in {"variance": np.square, "log": np.log}.items():
        found = rf.profile(sleep, "sd__Days", scale=scale)["sd(Days | Subject)"]
        expected = map_(profiled["sd(Days | Subject)"].interval(0.95))
        np.testing.assert_allclose(found.interval(0.95), expected, rtol=1e-9)
        assert found.estimate == pytest.approx(map_(profiled["sd(Days | Subject)"].estimate))
        assert found.at(found.zeta_at(found.value[3])) == pytest.approx(found.value[3])


def test_a_change_of_units_changes_units_only(profiled):
    data = rf.datasets.load("sleepstudy")
    data["Reaction"] *= 1e-3
    data["Days"] *= 24.0
    found = rf.profile(rf.fit(SLEEP, data))
    factors = {"Days": 1e-3 / 24, "sd(Days | Subject)": 1e-3 / 24, "cor((Intercept), Days | Subject)": 1.0}
    for label, curve in found.items():
        expected = np.array(profiled[label].interval(0.95)) * factors.get(label, 1e-3)
        np.testing.assert_allclose(curve.interval(0.95), expected, rtol=1e-7)


def test_years_far_from_zero(profiled):
    data = rf.datasets.load("sleepstudy")
    data["Days"] += 2000.0
    found = rf.profile(rf.fit(SLEEP, data), ["Days", "sd__Days", "sigma"])
    for label, curve in found.items():  # rounding grows with the square of the shift
        np.testing.assert_allclose(curve.interval(0.95), profiled[label].interval(0.95), rtol=1e-6)


def test_weights_offsets_dropped_columns_and_missing_rows():
    data = rf.datasets.load("sleepstudy")
    data["w"], data["twice"], data["o"] = np.linspace(0.5, 2, len(data)), 2 * data["Days"], np.arange(len(data)) % 7
    data.loc[[3, 50], "Reaction"] = np.nan
    m = rf.fit("Reaction ~ Days + twice + offset(o) + (Days || Subject)", data, precision_weights="w")
    found = rf.profile(m)
    assert "linearly dependent" in found.failed["twice"]
    plain = rf.fit("r ~ Days + (Days || Subject)", data.assign(r=data["Reaction"] - data["o"]), precision_weights="w")
    for label, curve in rf.profile(plain).items():
        np.testing.assert_allclose(found[label].interval(0.95), curve.interval(0.95), rtol=1e-7)


def test_structures_are_profiled_on_their_own_scale(profiled):
    m = rf.fit("Reaction ~ Days + cs(Days | Subject)", rf.datasets.load("sleepstudy"))
    found = rf.profile(m, "random")
    for mine, other in {
        "cor(Subject)": "cor((Intercept), Days | Subject)",
        "sd(Days | Subject)": "sd(Days | Subject)",
        "sigma": "sigma",
    }.items():  # two columns: compound symmetry is unstructured
        np.testing.assert_allclose(found[mine].interval(0.95), profiled[other].interval(0.95), rtol=1e-5)


# ---- boundaries ------------------------------------------------------------------------------------------------------


def test_an_estimate_of_zero_has_one_side():
    m = rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.load("Dyestuff2"))
    found = rf.profile(m)
    curve = found["sd((Intercept) | Batch)"]
    low, high = curve.interval(0.95)
    assert (curve.estimate, low, curve.zeta[0], curve.ends[0]) == (0, 0, 0, "bound")
    ml = m.update(method="ml")

    def deviance(sigma):
        at = ml.core.evaluate(np.array([high / sigma]), False)
        return at["logdet_z"] + m.nobs * np.log(2 * np.pi * sigma**2) + at["pwrss"] / sigma**2

    found = optimize.minimize_scalar(deviance, bounds=(1, 10), method="bounded", options={"xatol": 1e-8})
    assert found.fun - ml.criterion == pytest.approx(stats.chi2.ppf(0.95, 1), abs=1e-7)


@pytest.mark.parametrize("beyond", [2e-3, 6e-3, -8e-4])
def test_ends_beside_zero(beyond):
    """Where zeta at an SD of 0 is just short of the cut-off the interval ends at 0, and just before it otherwise."""
    groups, size = 8, 5
    g, rng = np.repeat(np.arange(groups), size), np.random.default_rng(1)
    within, between = rng.normal(size=(groups, size)), rng.normal(size=groups)
    within -= within.mean(axis=1, keepdims=True)
    between -= between.mean()
    residual = (within**2).sum()

    def deviance(total, sigma2, ssb):  # total: sigma^2 + size sd^2
        rest = groups * (size - 1)
        return groups * np.log(total) + ssb / total + rest * np.log(sigma2) + residual / sigma2

    def at_zero(ssb):
        pooled = (ssb + residual) / len(g)
        own = deviance(ssb / groups, residual / (groups * (size - 1)), ssb)
        return np.sqrt(max(deviance(pooled, pooled, ssb) - own, 0))

    cut = stats.norm.ppf(0.975)
    ssb = optimize.brentq(lambda v: at_zero(v) - cut - beyond, 0.4 * residual, 10 * residual, xtol=1e-12)
    between *= np.sqrt(ssb / (size * (between**2).sum()))
    m = rf.fit("y ~ 1 + (1 | g)", {"g": g, "y": (between[:, None] + within).ravel()}, method="ml")
    low = rf.confint(m, method="profile", which="sd((Intercept) | g)")["conf_low"][0]
    if beyond < 0:
        assert low == 0
        return
    held = optimize.minimize_scalar(
        lambda s2: deviance(s2 + size * low**2, s2, ssb), bounds=(0.1, 5), method="bounded", options={"xatol": 1e-9}
    )
    # The core takes ends whose zeta is within 1e-6 there.
    assert np.sqrt(held.fun - deviance(ssb / groups, residual / (groups * (size - 1)), ssb)) == pytest.approx(
        cut, abs=1.1e-6
    )


def test_a_correlation_of_nearly_zero_does_not_stop_the_search():
    """There the deviance hardly depends on one of the coordinates that hold a standard deviation."""
    g, x = np.repeat(np.arange(18), 10), np.tile(np.arange(10.0), 18)
    for seed in (44, 51):
        rng = np.random.default_rng(seed)
        b = rng.normal(size=(18, 2)) * [24, 6]
        y = 250 + b[g, 0] + b[g, 1] * x + 25 * rng.normal(size=180)
        m = rf.fit("y ~ x + (x | g)", {"g": g, "x": x, "y": y}, method="ml")
        few, many = (rf.confint(m, method="profile", which="sd(x | g)", points=n) for n in (4, 12))
        for end in ("conf_low", "conf_high"):
            # Roots of zeta found to 1e-9 by whatever way: slopes are of the order of 1.
            assert few[end][0] == pytest.approx(many[end][0], rel=1e-7)


def test_correlations_reach_their_bounds():
    data = rf.datasets.load("sleepstudy")
    few = data[data["Subject"].isin(data["Subject"].unique()[:4])]
    curve = rf.profile(rf.fit(SLEEP, few))["cor((Intercept), Days | Subject)"]
    low, high = curve.interval(0.95)
    assert -1 < low < high == 1
    singular = rf.fit("cog ~ age * trt + (age | id)", rf.datasets.load("Early"))
    curve = rf.profile(singular)["cor((Intercept), age | id)"]
    assert (curve.estimate, curve.ends[0]) == (pytest.approx(-1), "bound")
    # Far from -1 a zero variance is as good as any correlation: the deviance is flat there, never lower than before.
    assert (np.diff(curve.zeta) > -1e-5).all()


def test_undefined_correlations_are_refused():
    data = rf.datasets.load("Dyestuff2")
    data["x"] = np.tile(np.arange(5.0) - 2, 6)
    m = rf.fit("Yield ~ 1 + (x | Batch)", data)
    if np.isnan(m.varcorr()["Batch"].corr[1, 0]):
        assert "undefined" in rf.profile(m).failed["cor((Intercept), x | Batch)"]


# ---- the object ------------------------------------------------------------------------------------------------------


def test_profile_object(sleep, profiled):
    assert list(profiled) == [
        "(Intercept)",
        "Days",
        "sd((Intercept) | Subject)",
        "sd(Days | Subject)",
        "cor((Intercept), Days | Subject)",
        "sigma",
    ]
    assert "ML" in profiled.messages[0]
    table = profiled.confint(0.9)
    assert list(table.columns[:2]) == ["parameter", "effect"]
    frame = profiled.frame()
    assert set(profiled) <= set(frame.columns)
    rows = frame[frame["parameter"] == "sigma"]
    np.testing.assert_allclose(rows["value"], rows["sigma"])
    text = repr(profiled)
    assert "37.71" in text
    assert "97.5%" in text
    with pytest.raises(OptionError, match="higher level"):
        profiled["Days"].interval(0.9999)
    again = pickle.loads(pickle.dumps(sleep.slim()))
    np.testing.assert_allclose(
        rf.profile(again, "Days")["Days"].interval(0.95), profiled["Days"].interval(0.95), rtol=1e-9
    )


def test_frames_are_of_the_kind_that_came_in():
    m = rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.load("Dyestuff", "polars"))
    assert type(rf.profile(m, "sigma").confint()).__module__.startswith("polars")


def test_the_fit_stays_where_it_was(sleep, salamanders):
    before = [m.ranef(std_error=True) for m in (sleep, salamanders)]
    rf.profile(sleep)
    rf.profile(salamanders, "random")
    for was, m in zip(before, (sleep, salamanders), strict=True):
        for group, table in m.ranef(std_error=True).items():
            pd.testing.assert_frame_equal(table, was[group], rtol=1e-7)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"which": "Day"}, OptionError, "Days"),
        ({"scale": "precision"}, OptionError, "variance"),
        ({"level": 95}, OptionError, "0.95"),
        ({"points": 1}, OptionError, "at least 2"),
    ],
)
def test_bad_options(sleep, options, error, text):
    with pytest.raises(error, match=text):
        rf.profile(sleep, **options)


def test_what_has_no_profile_is_refused(profiled):
    with pytest.raises(UnknownColumnError, match="sigma"):
        profiled["sigm"]
    cbpp = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    joint = rf.fit(cbpp, rf.datasets.load("cbpp"), family="binomial", quadrature=0)
    with pytest.raises(NotAvailableError, match="quadrature=1"):
        rf.profile(joint)
    with pytest.raises(NotAvailableError, match="slim"):
        rf.profile(rf.fit(cbpp, rf.datasets.load("cbpp"), family="binomial").slim())


# ---- parameters held or tied, priors ---------------------------------------------------------------------------------

CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
GAMMA = "gamma(2.5, 0.1)"


def by_refits(m, p, name):
    """Deviances (with priors penalised ones) beyond the optimum's at the ends of the interval, by fits held there."""
    ml = m.update(method="ml") if m.method == "reml" else m
    held = dict(m.call.fixed or {})
    ends = p[name].interval(0.95)
    lost = "fixed" in (m.call.prior or {}) and name in m.layout.fixed  # a coefficient that is held has no prior
    own = [-2 * stats.norm.logpdf(end, 0, 2) if lost else 0.0 for end in ends]
    return [
        ml.update(fixed={**held, name: float(end)}).criterion + more - ml.criterion
        for end, more in zip(ends, own, strict=True)
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"fixed": {"period2": -1.0}},
        {"equal": [("period2", "period3")]},
        {"prior": {"fixed": "normal(0, 2)"}},
        {"prior": {"sd(herd)": GAMMA}},
        {"fixed": {"sd(herd)": 0.5}},
        {"prior": {"sd(herd)": GAMMA}, "fixed": {"period4": -1.5}, "quadrature": 5},
    ],
    ids=str,
)
def test_constrained_and_penalised_curves_beside_refits(options):
    m = rf.fit(CBPP, rf.datasets.load("cbpp"), family="binomial", **options)
    p = rf.profile(m)
    held = set(options.get("fixed", {}))
    assert all("is held at" in why for why in p.failed.values())
    assert {*p.failed} == ({"sd((Intercept) | herd)"} if "sd(herd)" in held else held)
    for name in ("(Intercept)", "period3", "sd((Intercept) | herd)"):
        if name in p.names:
            # 3.8415 to the tolerance of a fit's optimum, 1e-8 of a deviance.
            np.testing.assert_allclose(by_refits(m, p, name), stats.chi2.ppf(0.95, 1), rtol=1e-6)
    if "equal" in options:
        assert p["period2"].interval(0.95) == pytest.approx(p["period3"].interval(0.95))
        np.testing.assert_allclose(p["(Intercept)"].along["period2"], p["(Intercept)"].along["period3"], rtol=1e-12)
    for label in p.failed:  # constant along every curve
        assert np.ptp(p["(Intercept)"].along[label]) < 1e-12


def test_profiles_with_firths_penalty_in_closed_form():
    """-2 log L - log|X'WX|, of all columns wherever the slope is held (Heinze & Schemper 2002)."""
    x = np.array([-2.0, -1.5, -1, -0.5, 0.5, 1, 1.5, 2])
    y = (x > 0).astype(float)  # separated
    m = rf.fit("y ~ x", {"x": x, "y": y}, family="binomial", penalty="firth")

    def deviance(a, b):
        mu = 1 / (1 + np.exp(-a - b * x))
        design = np.column_stack([np.ones(8), x]) * np.sqrt(mu * (1 - mu))[:, None]
        return -2 * np.sum(stats.bernoulli.logpmf(y, mu)) - np.linalg.slogdet(design.T @ design)[1]

    def held(b):
        return optimize.minimize_scalar(lambda a: deviance(a, b), bracket=(-1, 1), tol=1e-12).fun

    best = optimize.minimize_scalar(held, bracket=(0.5, 3), tol=1e-10)
    p = rf.profile(m, "x", level=0.95)
    assert "Jeffreys" in repr(p)
    assert p["x"].estimate == pytest.approx(best.x, abs=1e-4)  # a minimum is flat: the root of 1e-10
    for end in p["x"].interval(0.95):
        assert held(end) - best.fun == pytest.approx(stats.chi2.ppf(0.95, 1), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"fixed": {"cor(Subject)": 0.2}}, "sd(Days | Subject)"),
        ({"prior": "blme"}, "cor((Intercept), Days | Subject)"),
        ({"prior": {"sd(Days | Subject)": GAMMA}}, "sigma"),
        ({"equal": [("sd((Intercept) | Subject)", "sd(Days | Subject)")]}, "sd(Days | Subject)"),
        ({"fixed": {"sigma": 25.0}}, "cor((Intercept), Days | Subject)"),
    ],
    ids=str,
)
def test_constrained_linear_models_beside_refits(options, name):
    m = rf.fit(SLEEP, rf.datasets.load("sleepstudy"), **options)
    p = rf.profile(m, [name, "Days"])
    assert "the fit itself is by REML" in repr(p)
    assert ("likelihood x prior" in repr(p)) == ("prior" in options)
    for label in (name, "Days"):
        np.testing.assert_allclose(by_refits(m, p, label), stats.chi2.ppf(0.95, 1), rtol=1e-5)


def test_held_at_the_estimate_the_other_curves_are_sections(sleep):
    """Correlations of three columns, a structure beside them, weights, an offset and missing rows."""
    rng = np.random.default_rng(8)
    n = 480
    g = np.repeat(np.arange(40), 12)
    x, z, t = rng.normal(size=n), rng.normal(size=n), np.tile(np.arange(6), 80)
    b = rng.normal(size=(40, 3)) @ np.array([[0.6, 0.2, 0.1], [0, 0.5, 0.2], [0, 0, 0.4]])
    eta = 0.5 + 0.3 * x + b[g, 0] + b[g, 1] * x + b[g, 2] * z
    data = pd.DataFrame(
        {"y": rng.poisson(np.exp(eta)), "x": x, "z": z, "g": g, "h": np.repeat(np.arange(80), 6), "t": t}
    )
    data.loc[[3, 77], "x"] = np.nan
    data["e"], data["w"] = 0.1 * (data["t"] % 2), 1.0 + (data["t"] > 3)
    formula = "y ~ x + z + offset(e) + (x + z | g) + ar1(0 + factor(t) | h)"
    m = rf.fit(formula, data, family="poisson", frequency_weights="w", prior={"sd(z | g)": "gamma(2, 2)"})
    name = "cor(x, z | g)"  # the core has it as an angle of a partial correlation, a profile has it itself
    p = rf.profile(m, [name, "sd(z | g)", "sd(h)"], level=0.9)
    for label in (name, "sd(z | g)"):
        np.testing.assert_allclose(
            [m.update(fixed={label: float(v)}).criterion - m.criterion for v in p[label].interval(0.9)],
            stats.chi2.ppf(0.9, 1),
            rtol=1e-5,
        )
    curve = p[name]
    assert np.all(np.diff(curve.zeta) > 0)
    np.testing.assert_allclose(curve.along[name], curve.value, atol=1e-7)
    middle = int(np.flatnonzero(curve.zeta == 0)[0])
    np.testing.assert_allclose([curve.along[q][middle] for q in curve.along],
                               rf.inference.parameters.values(m), atol=1e-4)  # fmt: skip
    # The lower end is 0 where the deviance levels off as the standard deviation vanishes.
    assert p["sd(h)"].interval(0.9)[0] >= 0


def slopes(size):
    rng = np.random.default_rng(3)
    g, x = np.repeat(np.arange(12), 10), np.tile(np.linspace(-1, 1, 10), 12)
    y = 0.5 * rng.normal(size=12)[g] + size * rng.normal(size=12)[g] * x + rng.normal(size=120)
    return rf.fit("y ~ x + (x || g)", {"y": y, "x": x, "g": g}, method="ml", fixed={"sd((Intercept) | g)": 0.5})


def test_ends_of_deviations_that_level_off():
    """A small variance in a term with another one held: its coordinate is the logarithm, and its interval reaches 0."""
    m = slopes(0.8)
    assert m.varcorr()["g"].sd[1] > 0
    assert rf.profile(m, "sd(x | g)", level=0.95)["sd(x | g)"].interval(0.95)[0] == 0
    assert rf.profile(m, "sd(x | g)", level=0.95, scale="log")["sd(x | g)"].interval(0.95)[0] == -np.inf
    none = slopes(0.0)
    assert none.varcorr()["g"].sd[1] == 0
    assert "its estimate is 0" in rf.profile(none).failed["sd(x | g)"]


def test_curves_of_other_components_are_tied():
    data = rf.datasets.load("Salamanders")
    m = rf.fit(
        "count ~ mined + (1 | site)", data, family="poisson", zero_inflation="~ mined",
        equal=[("minedno", "zero_inflation.minedno")],
    )  # fmt: skip
    again = pickle.loads(pickle.dumps(m))
    for fit in (m, again):
        p = rf.profile(fit, "minedno", level=0.95)
        np.testing.assert_allclose(by_refits(m, p, "minedno"), stats.chi2.ppf(0.95, 1), rtol=1e-6)
    with pytest.raises(NotAvailableError, match="slim"):
        rf.profile(m.slim())
    table = rf.confint(m, method="profile", which="fixed")
    assert np.isfinite(table["conf_low"]).all()


def test_bootstraps_keep_constraints_and_priors():
    data = rf.datasets.load("sleepstudy")
    for options in ({"fixed": {"Days": 10.0}}, {"equal": [("sd((Intercept) | Subject)", "sd(Days | Subject)")]},
                    {"prior": {"Days": "normal(0, 0.001)"}}):  # fmt: skip
        m = rf.fit(SLEEP, data, **options)
        found = rf.bootstrap(m, n=6, seed=1)
        assert not found.failures
        values = dict(zip(found.names, found.values.T, strict=True))
        if "fixed" in options:
            assert (values["Days"] == 10.0).all()
        elif "equal" in options:
            np.testing.assert_allclose(values["sd((Intercept) | Subject)"], values["sd(Days | Subject)"], rtol=1e-12)
        else:
            assert np.abs(values["Days"]).max() < 0.01
        one = m.refit(m.simulate(1, seed=4)[:, 0])
        assert one.task.wishes == m.task.wishes


# ---- curves that fail ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("linear", [True, False])
def test_one_failing_curve_leaves_the_others(sleep, monkeypatch, linear):
    m = sleep
    if not linear:
        m = rf.fit(
            "cbind(incidence, size - incidence) ~ period + (1 | herd)", rf.datasets.load("cbpp"), family="binomial"
        )
    whole = rf.profile(m)
    bad = m.layout.fixed[1]

    class Core:
        """The core, which cannot follow one curve."""

        def __getattr__(self, name):
            return getattr(m.core, name)

        def profile(self, *arguments):
            asked = arguments[3 if linear else 4]
            if any(a[0] == "beta" and a[1] == [1] for a in asked):
                raise ValueError("the deviance is not finite")
            return m.core.profile(*arguments)

    broken = copy.copy(m)
    object.__setattr__(broken, "core", Core())
    found = rf.profile(broken)
    if not linear:  # the curve is walked by fits with the parameter held instead
        assert not found.failed
        # zeta of an end is found to 1e-5 by refits
        np.testing.assert_allclose(found[bad].interval(0.95), whole[bad].interval(0.95), rtol=1e-4)
        return
    assert found.failed == {bad: "the deviance is not finite somewhere on the curve; use method='boot'"}
    assert found.names == tuple(n for n in whole.names if n != bad)
    for name in found.names:
        # Curves start from the estimate, whichever others were followed before: the optimiser's rounding.
        np.testing.assert_allclose(found[name].interval(0.95), whole[name].interval(0.95), rtol=1e-6)
    assert f"{bad}: the deviance is not finite" in repr(found)
    with pytest.raises(NotAvailableError, match="not finite"):
        found[bad]
    with pytest.warns(rf.RanefWarning, match=bad):
        table = rf.confint(broken, method="profile")
    assert np.isnan(table["conf_low"][1])
    assert np.isfinite(table["conf_low"][0])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"quadrature": 0}, "jointly"),
        ({"method": "pql"}, "no likelihood"),
    ],
)
def test_refusals_give_their_reason(options, says):
    data = zoo.data().assign(k=lambda d: (d["y"] > d["y"].median()).astype(int))
    m = rf.fit("k ~ x + (1 | g)", data, family="binomial", **options)
    with pytest.raises(NotAvailableError, match=says):
        rf.profile(m)
