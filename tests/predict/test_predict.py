"""Predictions: in sample, for new rows, for levels never seen, with intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import oracle
import ranef as rf
from engines import zoo
from ranef.engines.linear import sources, term_sources
from ranef.errors import DataError, OptionError, UnknownColumnError, UnseenLevelError


@pytest.fixture(scope="module", params=list(zoo.FORMULAS))
def fits(request):
    return rf.fit(zoo.FORMULAS[request.param], zoo.data()), zoo.data()


@pytest.fixture(scope="module")
def m():
    return rf.fit("y ~ x + (x | g) + (1 | h)", zoo.data())


@pytest.fixture(scope="module")
def new():
    """Known; g new; h new; both new, same g; g missing; x missing."""
    return pd.DataFrame({"x": [1, -1, 0.5, 2, 1, np.nan], "g": ["g0", "N1", "g2", "N1", None, "g1"],
                         "h": ["h0", "h1", "Q", "Q", "h2", "h1"]})  # fmt: skip


def test_in_sample_prediction_is_fitted(fits):
    m, data = fits
    assert_array_equal(m.predict(), m.fitted())
    assert_array_equal(m.predict(data), m.fitted())


def test_one_row_of_new_data_is_the_row_in_sample(fits):
    m, data = fits
    for i in (0, 17, 59):
        assert m.predict(data.iloc[[i]])[0] == m.fitted()[i]


def test_fitted_is_x_beta_plus_z_b(fits):
    m, _ = fits
    d = m.design
    dense = oracle.linear_predictor(
        sources(d.fixed), m.estimate.beta, term_sources(d.terms), list(m.estimate.modes), d.offset, d.n
    )
    assert_allclose(m.fitted(), dense, rtol=1e-10, atol=1e-12)


def test_transforms_remember_their_state():
    data = rf.datasets.load("sleepstudy")
    m = rf.fit("Reaction ~ poly(Days, 2) + scale(Days) + (poly(Days, 1) | Subject)", data)
    for i in (0, 7, 100):
        assert m.predict(data.iloc[[i]])[0] == m.fitted()[i]


def test_random_effects_included(m):
    data = zoo.data()
    population = m.predict(data, re="none")
    assert_allclose(population, m.params["(Intercept)"] + m.params["x"] * data["x"])
    assert_array_equal(m.predict(data, re="integrate"), population)
    assert_array_equal(m.predict(data, re=["g", "h"]), m.predict(data))
    assert_array_equal(m.predict(data, re="g"), m.predict(data, re=["g"]))
    only_h = m.ranef()["h"].set_index("level")["(Intercept)"]
    assert_allclose(m.predict(data, re=["h"]) - population, only_h.loc[data["h"]], atol=1e-12)


def test_group_columns_are_optional_where_they_play_no_part(m):
    data = zoo.data()
    assert_array_equal(m.predict(data[["x"]], re="none"), m.predict(data, re="none"))
    assert_array_equal(m.predict(data[["x", "h"]], re=["h"]), m.predict(data, re=["h"]))
    with pytest.raises(UnknownColumnError, match="'g'"):
        m.predict(data[["x", "h"]])


def test_new_levels_are_an_error_that_names_them(m, new):
    with pytest.raises(UnseenLevelError, match=r"'g' has levels .* 'N1' \(first rows \[1, 3\]\); known: 'g0'"):
        m.predict(new)
    assert np.isfinite(m.predict(new.drop(columns="g").head(2), re=["h"])).all()


def test_new_levels_of_the_population(m, new):
    out = m.predict(new, new_levels="population")
    none, only_h = m.predict(new, re="none"), m.predict(new.assign(h="h1"), re=["h"])
    h1 = only_h - none
    assert out[1] == pytest.approx(none[1] + h1[1])
    assert out[3] == none[3]
    assert np.isnan(out[5])
    assert np.isfinite(out[:5]).all()


def test_a_missing_group_is_missing_unless_the_population_will_do(m, new):
    rows = new.iloc[[0, 4]]
    assert np.isnan(m.predict(rows)).tolist() == [False, True]
    assert np.isfinite(m.predict(rows, new_levels="population")).all()
    assert np.isfinite(m.predict(rows, re=["h"])).all()


def test_sampled_effects(m, new):
    draw = m.predict(new, new_levels="sample", seed=1)
    assert_array_equal(draw, m.predict(new, new_levels="sample", seed=1))
    assert draw[1] != m.predict(new, new_levels="sample", seed=2)[1]
    assert draw[0] == m.predict(new.head(1))[0]
    twice = pd.DataFrame({"x": [1.0, 1.0, 1.0], "g": ["N", "N", "M"], "h": "h0"})
    drawn = m.predict(twice, new_levels="sample", seed=3)
    assert drawn[0] == drawn[1] != drawn[2]
    many = pd.DataFrame({"x": 1.0, "g": [f"n{i}" for i in range(20_000)], "h": "h0"})
    drawn = m.predict(many, new_levels="sample", seed=4)
    z = np.array([1.0, 1.0])
    variance = z @ m.varcorr()["g"].cov @ z
    assert drawn.var() == pytest.approx(variance, rel=5 * np.sqrt(2 / 20_000))
    assert drawn.mean() == pytest.approx(m.predict(many.head(1), re=["h"])[0], abs=5 * np.sqrt(variance / 20_000))


def test_standard_errors_are_those_of_the_joint_covariance(fits):
    m, data = fits
    d = m.design
    dense = oracle.DenseLmm(*zoo.arguments(d))
    dense.fit(True, m.theta, {"max_evaluations": 1})
    arguments = (sources(d.fixed), term_sources(d.terms), d.n)
    for re, which in (("all", [True] * len(d.terms)), ("none", [False] * len(d.terms))):
        table = m.predict(data, re=re, std_error=True)
        # Where Sigma is singular the engine evaluates a hair inside the boundary.
        assert_allclose(table["std_error"] ** 2, dense.predict_var(*arguments, which), rtol=1e-5, atol=1e-8)


def test_standard_error_of_a_new_level_adds_its_variance(m, new):
    rows = new.iloc[[1]]
    with_g = m.predict(rows, new_levels="population", std_error=True)["std_error"].iloc[0]
    without = m.predict(rows, re=["h"], std_error=True)["std_error"].iloc[0]
    z = np.array([1.0, -1.0])
    assert with_g**2 == pytest.approx(without**2 + z @ m.varcorr()["g"].cov @ z)


def test_confidence_and_prediction_intervals(m):
    data = zoo.data().head(4)
    confidence, prediction = (m.predict(data, interval=i, level=0.9) for i in ("confidence", "prediction"))
    z = stats.norm.ppf(0.95)
    assert list(confidence.columns) == ["estimate", "std_error", "conf_low", "conf_high"]
    assert_array_equal(confidence["estimate"], m.predict(data))
    assert_allclose(confidence["conf_high"] - confidence["estimate"], z * confidence["std_error"])
    spread = np.sqrt(confidence["std_error"] ** 2 + m.sigma**2)
    assert_allclose(prediction["conf_high"] - prediction["estimate"], z * spread)


@pytest.mark.filterwarnings("ignore:predict. interval")  # eight groups tell little of their variance
def test_prediction_interval_of_the_population_is_for_new_groups(m):
    data = zoo.data().head(3)
    table = m.predict(data, re="none", interval="prediction")
    z = np.column_stack([np.ones(3), data["x"]])
    v = m.varcorr()
    total = table["std_error"] ** 2 + m.sigma**2 + np.einsum("ij,jk,ik->i", z, v["g"].cov, z) + v["h"].cov[0, 0]
    assert_allclose(table["conf_high"] - table["estimate"], stats.norm.ppf(0.975) * np.sqrt(total))


@pytest.mark.filterwarnings("ignore:predict. interval")  # eight groups tell little of their variance
@pytest.mark.parametrize(
    "kind", [lambda d: d, pl.from_pandas, pa.Table.from_pandas, lambda d: {"x": d["x"].to_numpy()}]
)
def test_population_prediction_interval_needs_no_group_columns(m, kind):
    full = m.predict(zoo.data(), re="none", interval="prediction")
    bare = m.predict(kind(zoo.data()[["x"]]), re="none", interval="prediction")
    pd.testing.assert_frame_equal(full, bare)


def test_prediction_intervals_cover():
    rng = np.random.default_rng(11)
    g, x = np.repeat(np.arange(40), 10), rng.normal(size=400)
    truth = 1 + x + 1.5 * rng.normal(size=40)[g]
    data = pd.DataFrame({"g": g, "x": x, "y": truth + rng.normal(size=400)})
    table = rf.fit("y ~ x + (1 | g)", data).predict(data, interval="prediction", level=0.8)
    fresh = truth + rng.normal(size=400)
    inside = ((table["conf_low"] < fresh) & (fresh < table["conf_high"])).mean()
    assert inside == pytest.approx(0.8, abs=4 * np.sqrt(0.16 / 400))


def test_intervals_of_a_plain_linear_model_are_those_of_lm():
    data = zoo.data()
    m = rf.fit("y ~ x", data)
    table = m.predict(data.head(2), interval="prediction")
    half = stats.t.ppf(0.975, 58) * np.sqrt(table["std_error"] ** 2 + m.sigma**2)
    assert_allclose(table["conf_high"] - table["estimate"], half)


@pytest.mark.parametrize(
    ("formula", "arguments"),
    [
        ("y ~ x + (1 | g)", {"precision_weights": "w"}),
        ("y ~ x + (1 | g)", {"precision_weights": "w / 2", "dispersion": "~ x"}),
        ("cens(y, y > 1e9) ~ x", {"precision_weights": "w"}),
    ],
)
def test_precision_weights_of_new_rows_are_read(formula, arguments):
    data = zoo.data()
    m = rf.fit(formula, data, **arguments)
    rows = [7, 3]
    assert_allclose(m.predict(data.iloc[rows], type="dispersion"), m.predict(type="dispersion")[rows], rtol=1e-12)
    without = m.predict(data.drop(columns="w").iloc[rows], type="dispersion")
    ratio = m.predict(type="dispersion")[rows] / without
    share = 0.5 if "/" in arguments["precision_weights"] else 1.0
    assert_allclose(ratio, (share * data["w"].iloc[rows]) ** -0.5, rtol=1e-12)
    if m.task.linear:
        inside, new = m.predict(interval="prediction"), m.predict(data.iloc[rows], interval="prediction")
        assert_allclose(new, inside.iloc[rows], rtol=1e-10)
    with pytest.raises(DataError, match=r"must be positive.*rows 0, 1"):
        m.predict(data.iloc[rows].assign(w=0.0))


def test_weights_widen_in_sample_prediction_intervals():
    m = rf.fit("y ~ x + (1 | g)", zoo.data(), precision_weights="w")
    table = m.predict(interval="prediction")
    spread = (table["conf_high"] - table["estimate"]) / stats.norm.ppf(0.975)
    assert_allclose(spread**2, table["std_error"] ** 2 + m.sigma**2 / zoo.data()["w"])


@pytest.mark.parametrize("name", ["offset_column", "offset_term"])
def test_offsets_are_part_of_predictions(name):
    formula = "y ~ x + (1 | g)" + (" + offset(z)" if name == "offset_term" else "")
    m = rf.fit(formula, zoo.data(), offset="z" if name == "offset_column" else None)
    assert_array_equal(m.predict(zoo.data().iloc[[8]]), m.fitted()[[8]])
    moved = zoo.data().assign(z=lambda d: d["z"] + 3)
    assert_allclose(m.predict(moved), m.fitted() + 3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"re": "some"}, "grouping factor"),
        ({"re": ["G"]}, "did you mean 'g'"),
        ({"type": "probs"}, "response"),
        ({"new_levels": "ignore"}, "population"),
        ({"interval": "credible"}, "prediction"),
        ({"interval": "confidence", "level": 2}, "between 0 and 1"),
        ({"interval": "confidence", "new_levels": "sample"}, "population"),
    ],
)
def test_refuses(m, arguments, says):
    with pytest.raises(OptionError, match=says):
        m.predict(zoo.data(), **arguments)


def test_aligned_with_the_input():
    data = zoo.data().copy()
    data.loc[[2, 9], "x"] = np.nan
    m = rf.fit("y ~ x + (1 | g)", data)
    assert len(m.fitted()) == len(m.residuals()) == 58
    for values in (m.fitted(align="input"), m.residuals(align="input")):
        assert np.flatnonzero(np.isnan(values)).tolist() == [2, 9]
    assert_allclose(m.predict(data), m.fitted(align="input"))
    with pytest.raises(OptionError, match="align"):
        m.fitted(align="index")


def test_standard_errors_do_not_depend_on_how_many_rows_are_asked():
    # Many rows are solved with the inverse of the dense part of the factor, few rows one by one.
    rng = np.random.default_rng(5)
    n, levels = 1500, 60
    data = pd.DataFrame({"g": rng.integers(0, levels, n), "h": rng.integers(0, levels, n), "x": rng.normal(size=n)})
    data["y"] = data["x"] + rng.normal(size=levels)[data["g"]] + rng.normal(size=levels)[data["h"]] + rng.normal(size=n)
    m = rf.fit("y ~ x + (1 | g) + (x | h)", data)
    together = m.predict(data, std_error=True)["std_error"]
    apart = [m.predict(data.iloc[i : i + 10], std_error=True)["std_error"] for i in range(0, n, 10)]
    assert_allclose(together, np.concatenate(apart), rtol=1e-10)  # two ways to solve the same triangle


def test_names_of_another_package():
    """glmmTMB's names of types are understood."""
    frame = rf.datasets.load("Salamanders")
    m = rf.fit("count ~ mined + (1 | site)", frame, family="nbinom2", zero_inflation="~ mined", dispersion="~ mined")
    pairs = (("conditional", "mean"), ("zprob", "zero_inflation"), ("disp", "dispersion"), ("zlink", "link(zi)"))
    for theirs, ours in pairs:
        assert_array_equal(m.predict(type=theirs), m.predict(type=ours))
    without = rf.fit("count ~ mined + (1 | site)", frame, family="nbinom2")
    for kind in ("zprob", "zlink"):
        with pytest.raises(OptionError, match="no zero inflation"):
            without.predict(type=kind)
    for kind, hint in (("epred", "type='response'"), ("marginal", "re='integrate'"), ("lonk", "'link'"), (3, "known:")):
        with pytest.raises(OptionError, match=hint):
            without.predict(type=kind)


def test_disp_of_a_gamma_is_sigma():
    frame = rf.datasets.load("sleepstudy")
    m = rf.fit("Reaction ~ poly(Days, 2) + (1 | Subject)", frame, family="gamma")
    found = m.predict(frame.head(2), type="disp", std_error=True)
    assert_allclose(found["estimate"], 0.0965076750381949, rtol=1e-5)  # glmmTMB 1.1.5
    assert_allclose(found["std_error"], 0.00535260735126061, rtol=1e-4)
    assert_allclose(found["estimate"], m.sigma, rtol=1e-12)
    varying = m.update(dispersion="~ Days")
    assert_allclose(varying.predict(type="disp"), varying.predict(type="dispersion") ** -0.5, rtol=1e-12)


def test_unseen_levels_have_the_errors_of_the_coefficients():
    """glmmTMB 1.1.5; its gradient was 2e-3, where standard errors move by a few 1e-5 of themselves."""
    frame = rf.datasets.load("Salamanders")
    m = rf.fit("count ~ mined + (1 | site)", frame, family="poisson", zero_inflation="~ spp + (1 | site)")
    new = {"mined": ["yes", "no"], "spp": ["GP", "PR"], "site": ["zz", "zz"]}
    theirs = {
        "link": [0.306210305713243, 0.241253837452843],
        "zlink": [1.51629600433497, 1.52372527571983],
        "response": [0.442676261917009, 0.483069643934938],
    }
    for kind, expected in theirs.items():
        found = m.predict(new, type=kind, new_levels="population", std_error=True)
        assert_allclose(found["std_error"], expected, rtol=3e-4)


def test_errors_of_a_structured_normal_model_whose_variances_are_held():
    """Henderson's variance of x'beta_hat + z'(b_hat - b), with dense matrices; two residual variances."""
    rats = rf.datasets.load("BodyWeight")
    free = rf.fit("weight ~ Time + ou(Time + 0 | Rat)", rats, method="ml", dispersion="~ Diet")
    structure = free.varcorr()["Rat"]
    rate = next(p.value for p in structure.parameters if p.name == "rate")
    names = ("dispersion.(Intercept)", "dispersion.Diet2", "dispersion.Diet3")
    dispersion = dict(zip(names, free.estimate.beta[2:].tolist(), strict=True))
    m = free.update(fixed={"sd(Rat)": structure.sd[0], "rate(Rat)": rate, **dispersion})
    time, rat = rats["Time"].to_numpy(float), rats["Rat"].astype(str).to_numpy()
    same = rat[:, None] == rat
    field = structure.sd[0] ** 2 * np.exp(-rate * np.abs(time[:, None] - time)) * same
    inverse = np.linalg.inv(field + np.diag(m.predict(type="dispersion") ** 2))
    x = np.column_stack([np.ones_like(time), time])
    left = x - field @ inverse @ x
    exact = field - field @ inverse @ field + left @ np.linalg.inv(x.T @ inverse @ x) @ left.T
    assert_allclose(m.predict(std_error=True)["std_error"], np.sqrt(np.diag(exact)), rtol=1e-5)
    # Dense inverses lose digits: the field has 30,000 times the smallest residual variance.
    assert (free.predict(std_error=True)["std_error"] >= np.sqrt(np.diag(exact)) * (1 - 1e-5)).all()


def test_both_engines_have_the_same_errors_where_variances_are_held():
    frame = rf.datasets.load("sleepstudy")
    linear = rf.fit("Reaction ~ Days + (Days | Subject)", frame, method="ml")
    structure = linear.varcorr()["Subject"]
    held = {
        "sd((Intercept) | Subject)": structure.sd[0],
        "sd(Days | Subject)": structure.sd[1],
        "cor((Intercept), Days | Subject)": structure.corr[0, 1],
        "dispersion.(Intercept)": np.log(linear.sigma),
    }
    general, free = linear.update(fixed=held), linear.update(prior={"fixed": rf.prior.flat()})
    new = {"Days": [3.0, 12.0, 5.0], "Subject": ["308", "335", "new"]}

    def errors(m):
        return m.predict(new, std_error=True, new_levels="population")["std_error"]

    assert_allclose(errors(general), errors(linear), rtol=1e-5)  # both stop at a gradient of about 1e-5
    assert (errors(free)[:2] > 1.01 * errors(linear)[:2]).all()  # what is not known of the variances adds to them
    assert_allclose(errors(free)[2], errors(linear)[2], rtol=1e-5)  # coefficients are independent of them


GLMMTMB: list[tuple[str, str, dict[str, object], list[int], dict[str, list[float]]]] = [
    (
        "count ~ mined + (1 | site)",
        "Salamanders",
        {"family": "nbinom2", "zero_inflation": "~ mined", "dispersion": "~ mined"},
        [1, 100, 333],
        {
            "link": [1.109774931, 0.231020473, 1.163962883],
            "zlink": [2.5321162340, 0.8565286085, 2.5321162340],
            "response": [0.08394990341, 0.52202269790, 0.08344083876],
            "conditional": [0.4751549160, 0.6614314345, 0.4564704771],
            "disp": [0.9953142743, 0.2995957212, 0.9953142743],
        },
    ),
    (
        "cbind(incidence, size - incidence) ~ period + (1 | herd)",
        "cbpp",
        {"family": "binomial", "method": "reml"},
        [1, 20, 56],
        {
            "link": [0.3796418161, 0.4243231457, 0.5648448802],
            "response": [0.08155782775, 0.05112909951, 0.01605564224],
        },
    ),
    (
        "TICKS ~ YEAR + (1 | BROOD) + (1 | LOCATION)",
        "grouseticks",
        {"family": "poisson"},
        [1, 200, 403],
        {"link": [0.8628319958, 0.2998090963, 0.5414476438], "response": [0.3362307025, 0.9845410857, 0.6486879956]},
    ),
]


@pytest.mark.parametrize(("formula", "data", "options", "rows", "expected"), GLMMTMB, ids=[g[1] for g in GLMMTMB])
def test_errors_are_those_of_glmmtmb(formula, data, options, rows, expected):
    """Its predict(se.fit = TRUE), version 1.1.5: what is not known of variances and dispersions counts."""
    m = rf.fit(formula, rf.datasets.load(data), **options)
    for kind, theirs in expected.items():
        found = m.predict(type=kind, std_error=True)["std_error"].to_numpy()
        # Its gradients were 4e-5 to 6e-4, which moves standard errors by some 1e-5 of themselves.
        assert_allclose(found[np.array(rows) - 1], theirs, rtol=1e-4)


def test_errors_with_a_variance_of_zero_count_the_others():
    """A term without variance changes nothing of what another one adds."""
    rng = np.random.default_rng(4)
    g, h = np.repeat(np.arange(30), 8), np.tile(np.arange(8), 30)
    frame = pd.DataFrame({"g": g, "h": h, "y": rng.poisson(np.exp(0.5 + 0.6 * rng.normal(size=30)[g]))})
    whole = rf.fit("y ~ 1 + (1 | g) + (1 | h)", frame, family="poisson")
    assert whole.boundary
    smaller = rf.fit("y ~ 1 + (1 | g)", frame, family="poisson")
    errors = [m.predict(std_error=True)["std_error"].to_numpy() for m in (whole, smaller)]
    assert_allclose(*errors, rtol=1e-5)  # two searches


def test_every_parameter_has_its_linear_predictor():
    frame = rf.datasets.load("Salamanders")
    m = rf.fit("count ~ mined + (1 | site)", frame, family="nbinom2", zero_inflation="~ mined", dispersion="~ mined")
    for parameter in m.distribution.parameters:
        own, linear = (m.predict(type=kind, std_error=True) for kind in (parameter, f"link({parameter})"))
        link = m.distribution.link_of(parameter)
        eta = linear["estimate"].to_numpy()
        assert_allclose(link.inverse(eta), own["estimate"], rtol=1e-12)
        assert_allclose(np.abs(link.slope(eta)) * linear["std_error"], own["std_error"], rtol=1e-12)
    linear = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
    assert_allclose(linear.predict(type="link(dispersion)"), np.log(linear.sigma))
    wine = rf.fit("rating ~ temp + (1 | judge)", rf.datasets.load("wine"), family="cumulative", scale="~ contact")
    assert_allclose(np.exp(wine.predict(type="link(scale)")), wine.predict(type="scale"))


def test_averages_of_a_parameter():
    """Under a log link the average over b ~ N(0, v) is that for b = 0 times exp(v / 2)."""
    frame = rf.datasets.load("Salamanders")
    m = rf.fit("count ~ mined + (1 | site)", frame, family="poisson", zero_inflation="~ mined")
    average, zero = (m.predict(type="mean", re=re, std_error=True) for re in ("integrate", "none"))
    assert_allclose(average["estimate"], zero["estimate"] * np.exp(m.varcorr()["site"].sd[0] ** 2 / 2), rtol=1e-9)
    at = [*range(2), -1]  # the mean's coefficients and theta, by which the average moves as average * theta
    spread, x = m.estimate.joint()[np.ix_(at, at)], np.column_stack([np.ones(m.nobs), frame["mined"] == "no"])
    gradient = average["estimate"].to_numpy()[:, None] * np.column_stack([x, np.full(m.nobs, m.estimate.theta[0])])
    assert_allclose(average["std_error"], np.sqrt(np.sum(gradient @ spread * gradient, axis=1)), rtol=1e-6)
    assert_allclose(m.predict(type="conditional", re="integrate"), average["estimate"])
    assert_array_equal(*(m.predict(type="link", re=re) for re in ("integrate", "none")))
    assert_array_equal(*(m.predict(type="zprob", re=re) for re in ("integrate", "none")))


def test_new_observations_are_of_the_response():
    frame = rf.datasets.load("sleepstudy")
    m = rf.fit("Reaction ~ Days + (1 | Subject)", frame, dispersion="~ Days")
    with pytest.raises(OptionError, match="type='response'"):
        m.predict(type="dispersion", interval="prediction")
    ends = [m.predict(type=kind, interval="prediction")["conf_low"] for kind in ("response", "mean", "link")]
    assert_array_equal(ends[0], ends[1])
    assert_array_equal(ends[0], ends[2])


def test_the_likeliest_category():
    m = rf.fit("rating ~ temp + contact + (1 | judge)", rf.datasets.load("wine"), family="cumulative")
    found, p = m.predict(type="class"), m.predict(type="probs").to_numpy()
    assert found.tolist() == ["12345"[i] for i in p.argmax(axis=1)]
    with pytest.raises(OptionError, match="probs"):
        m.predict(type="class", std_error=True)
    lost = m.predict({"temp": ["warm", None], "contact": ["no", "no"], "judge": ["1", "1"]}, type="class")
    assert lost[1] is None
    rng = np.random.default_rng(3)
    data = {"y": rng.choice(["a", "b", "c"], 90), "x": rng.normal(size=90)}
    free = rf.fit("y ~ x", data, family="multinomial")
    p = free.predict(type="probs")
    assert free.predict(type="class").tolist() == ["abc"[i] for i in np.column_stack([p[c] for c in "abc"]).argmax(1)]


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("Reaction ~ Days + (Days | Subject)", {"prior": {"fixed": rf.prior.normal(0, 1e4)}}),
        ("Reaction ~ Days + (1 | Subject)", {"dispersion": "~ Days"}),
        ("Reaction ~ Days + ar1(factor(Days) + 0 | Subject)", {}),
        ("Reaction ~ Days + (1 | Subject)", {"family": "student_t"}),
    ],
)
def test_intervals_of_new_observations_are_the_same_for_the_same_rows(formula, options):
    """The dispersion of new rows decides as much as their mean."""
    frame = rf.datasets.load("sleepstudy")
    m = rf.fit(formula, frame, **options)
    here, there = (m.predict(new, interval="prediction", seed=1) for new in (None, frame))
    for column in ("estimate", "std_error", "conf_low", "conf_high"):
        assert_allclose(here[column], there[column], rtol=1e-9)


def test_rows_of_a_separated_level_have_no_error():
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"g": np.repeat(range(12), 10), "f": np.tile(list("abcde"), 24)})
    frame["y"] = np.where(frame["f"] == "c", 0, rng.poisson(1.5, 120))
    with pytest.warns(rf.SeparationWarning):
        m = rf.fit("y ~ f + (1 | g)", frame, family="poisson")
    found = m.predict({"f": ["c", "a"], "g": [0, 0]}, re="none", type="link", interval="confidence")
    assert np.isnan(np.asarray(found[["std_error", "conf_low", "conf_high"]])[0]).all()
    assert_allclose(found["std_error"][1], m.tidy()["std_error"][0], rtol=1e-12)  # the intercept's


def test_a_model_in_which_nothing_is_estimated_has_the_errors_of_its_modes():
    frame = rf.datasets.load("Salamanders")
    names = sorted(frame["spp"].unique())
    known = pd.DataFrame(0.3 * np.eye(len(names)), names, names)
    m = rf.fit("count ~ 0 + equalto(0 + spp | site)", frame, family="poisson", cov={"spp": known})
    found = m.predict(std_error=True, type="link")
    rows = (frame["site"] == frame["site"][0]) & (frame["spp"] == frame["spp"][0])
    information = np.exp(found["estimate"][0]) * rows.sum() + 1 / 0.3
    assert_allclose(found["std_error"][0], information**-0.5, rtol=1e-8)  # one effect, independent of all others


def test_errors_without_random_effects_are_those_of_the_coefficients():
    """Also where the Hessian says that coefficients went with the dispersion in the data at hand."""
    frame = rf.datasets.load("CO2")
    m = rf.fit("uptake ~ conc * Treatment + (log(conc) | Plant)", frame, dispersion="~ Type")
    at = {"conc": [0.0], "Treatment": ["nonchilled"], "Type": ["Quebec"]}
    assert_allclose(m.predict(at, re="none", std_error=True)["std_error"], m.tidy()["std_error"][0], rtol=1e-10)
