"""Pitfalls P5 to P14 and P37 to P50 of the acceptance list, and bad input: each is told, with what to do about it."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from acceptance.figures import fitted
from ranef.errors import ArgumentError, ConvergenceWarning, DataError, OptionError, SeparationWarning
from ranef.families import entries, read_family

N = 300


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    g, x = rng.integers(0, 15, N), rng.uniform(0, 1, N)
    return pd.DataFrame({
        "x": x, "g": g, "h": rng.integers(0, 12, N), "f": rng.choice([*"abcdefgh"], N), "row": np.arange(N),
        "count": rng.poisson(np.exp(0.7 + 0.3 * rng.normal(size=15)[g])).astype(float),
        "b": (rng.random(N) < 0.5).astype(float), "share": rng.random(N), "y": rng.normal(size=N),
        "effort": rng.uniform(1, 40, N), "one": "a",
    })  # fmt: skip


def notes(m):
    return {note.code: note.text for note in m.messages}


# ---- P5 to P8: offsets, separation -----------------------------------------------------------------------------------


def test_p05_an_offset_without_logarithm(frame):
    wrong = rf.fit("count ~ x + offset(effort) + (1 | g)", frame, family="poisson")
    assert "offset(log(effort))" in notes(wrong)["unlogged_offset"]
    asked = {"family": "binomial", "link": "cloglog"}
    wrong = rf.fit("b ~ x + offset(effort / 10) + (1 | g)", frame.assign(effort=10 * frame["effort"]), **asked)
    assert "the hazard, -log(1 - mean), is proportional to exp" in notes(wrong)["unlogged_offset"]
    assert "unlogged_offset" not in notes(rf.fit("b ~ x + offset(log(effort)) + (1 | g)", frame, **asked))
    right = rf.fit("count ~ x + offset(log(effort)) + (1 | g)", frame, family="poisson")
    assert "unlogged_offset" not in notes(right)


def test_p06_p08_separation(frame):
    data = frame.assign(b=np.where(frame["f"] == "c", 1.0, frame["b"]))
    with pytest.warns(SeparationWarning, match="separated by fc"):
        m = rf.fit("b ~ f + (1 | g)", data, family="binomial")
    told = notes(m)
    assert "rf.prior.normal" in told["separation"]
    assert "firth" in told["separation"]
    assert "'c' of 'f': 1 in all" in told["separation"]
    assert np.isfinite(m.loglik)


def hauck_donner(scale=1.0):
    """Two rows that overlap by a thousandth among many that do not: finite, and nothing like normal."""
    x = np.r_[-np.arange(1.0, 11), -0.001, 0.001, np.arange(1.0, 11)]
    return {"x": scale * x, "y": np.r_[np.zeros(10), 1.0, 0.0, np.ones(10)]}


def test_p07_huge_coefficients_with_huge_errors():
    m = rf.fit("y ~ x", hauck_donner(), family="binomial")
    assert m.separation == ()
    assert "Wald" in notes(m)["hauck_donner"]
    # in other units of x it is the same coefficient
    assert "hauck_donner" in notes(rf.fit("y ~ x", hauck_donner(1000.0), family="binomial"))


def test_p07_small_units_are_no_huge_coefficients():
    rng = np.random.default_rng(1)
    data = {"x": 0.01 * rng.normal(size=60), "y": (rng.random(60) < 0.5).astype(float)}
    m = rf.fit("y ~ x", data, family="binomial")
    assert abs(m.params["x"]) > 8
    assert "hauck_donner" not in notes(m)


# ---- P9 to P14: the boundary -----------------------------------------------------------------------------------------


def test_p09_p11_a_variance_of_zero(frame):
    rng = np.random.default_rng(5)
    data = frame.assign(count=rng.poisson(4, N).astype(float))
    m = next(
        m for m in (rf.fit("count ~ x + (1 | g)", data.assign(count=rng.permutation(data["count"])), family="poisson")
                    for _ in range(20)) if m.boundary
    )  # fmt: skip
    assert notes(m)["boundary"] == (
        "boundary: variance of (Intercept) | g estimated 0; a valid optimum. Without it no estimate changes, only AIC: "
        "drop it, accept it or give it a prior (prior='blme')"
    )
    assert not rf.fit("count ~ x + (1 | g)", m.data, family="poisson", prior="blme").boundary
    assert m.converged
    without = rf.fit("count ~ x", m.data, family="poisson")
    assert m.loglik == pytest.approx(without.loglik, abs=1e-7)  # dropping it changes no estimate …
    np.testing.assert_allclose(m.params, without.params, atol=1e-5)
    np.testing.assert_allclose(m.vcov(), without.vcov(), rtol=1e-4)
    assert m.aic == pytest.approx(without.aic + 2, abs=1e-6)  # … only AIC


def test_p10_a_correlation_of_one():
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(12), 8)
    x, b = np.tile(np.arange(8.0) - 3.5, 12), rng.normal(size=12)
    y = rng.poisson(np.exp(1.5 + 0.5 * b[g] + 0.15 * b[g] * x)).astype(float)
    m = rf.fit("y ~ x + (x | g)", {"y": y, "x": x, "g": g}, family="poisson")
    assert notes(m)["boundary"] == (
        "boundary: correlation of (Intercept) and x | g estimated +1; a valid optimum, whose covariance is not of full "
        "rank: simplify it, accept it or give it a prior (prior='blme')"
    )
    assert not rf.fit("y ~ x + (x | g)", m.data, family="poisson", prior="blme").boundary


def test_p10_an_autocorrelation_of_one(frame):
    """A random intercept and nothing else: the maximum lies where the correlation of neighbours is 1."""
    m = rf.fit("count ~ x + ar1(factor(h) + 0 | g)", frame, family="poisson")
    assert "(1 | g) is the same model" in notes(m)["boundary"]
    assert m.loglik == pytest.approx(rf.fit("count ~ x + (1 | g)", frame, family="poisson").loglik, abs=1e-5)


def test_p12_no_standard_deviation_stops_short_of_zero(frame):
    """A logarithm of an SD could not reach 0; ours does, and says so, under structures too."""
    m = rf.fit("y ~ x + ar1(factor(h) + 0 | g)", frame, method="ml")
    sd = m.varcorr()["g"].parameters[0].value
    assert sd == 0 or sd > 1e-3
    assert bool(m.boundary) == (sd == 0)


def test_p13_p14_more_covariances_than_groups(frame):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 36 covariances of 15 groups: it may stop early
        m = rf.fit("count ~ x + (f | g)", frame, family="poisson")
    assert "36 covariance parameters and 15 levels" in notes(m)["covariance_heavy"]
    assert "covariance_heavy" not in notes(rf.fit("count ~ x + (x | g)", frame, family="poisson"))


# ---- P34: two dispersions --------------------------------------------------------------------------------------------


def test_p34_a_row_effect_beside_a_dispersion(frame):
    both = rf.fit("count ~ x + (1 | row)", frame, family="nbinom2")
    assert "drop one" in notes(both)["two_dispersions"]


@pytest.mark.parametrize("options", [{"dispersion": 0.5}, {"fixed": {"sigma": 0.5}}, {"dispersion": "~ 0 + offset(x)"}])
def test_p34_a_known_dispersion_is_no_second_one(frame, options):
    m = rf.fit("y ~ x + (1 | row)", frame, **options)
    assert not {"two_dispersions", "cell_confounded"} & {*notes(m)}


# ---- P37 to P42: approximation, scales, convergence ------------------------------------------------------------------


def test_p37_few_binary_rows_a_group():
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(100), 2)
    y = (rng.random(200) < 1 / (1 + np.exp(-2.5 * rng.normal(size=100)[g]))).astype(float)
    m = rf.fit("y ~ 1 + (1 | g)", {"y": y, "g": g}, family="binomial")
    assert "2 binary rows a level" in notes(m)["small_clusters"]
    assert "quadrature=" in notes(m)["small_clusters"]


def test_p38_quadrature_where_it_cannot_be(frame):
    """Refused with the reason, rather than another method in silence."""
    with pytest.raises(OptionError, match=r"'g' and 'h' are crossed.*leave quadrature out"):
        rf.fit("b ~ x + (1 | g) + (1 | h)", frame, family="binomial", quadrature=9)
    with pytest.raises(OptionError, match=r"9\^8 .*use quadrature=3"):
        rf.fit("count ~ x + (0 + f | g)", frame, family="poisson", quadrature=9)


@pytest.mark.parametrize(("shift", "scale"), [(0, 1e6), (0, 1e-6), (2000, 1)])
@pytest.mark.parametrize("family", ["poisson", "nbinom2"])
def test_p39_scales_of_predictors_do_not_matter(frame, family, shift, scale):
    """They are centred and scaled inside: nothing to warn about."""
    base = rf.fit("count ~ x + (1 | g)", frame, family=family)
    m = rf.fit("count ~ x + (1 | g)", frame.assign(x=frame["x"] * scale + shift), family=family)
    assert m.loglik == pytest.approx(base.loglik, abs=1e-6)
    # flat to 1e-9 of the deviance: 5e-5 standard errors
    error = np.sqrt(base.vcov().loc["x", "x"]) if hasattr(base.vcov(), "loc") else 1.0
    assert m.params["x"] * scale == pytest.approx(base.params["x"], abs=1e-3 * error)
    assert m.converged


def test_p40_p42_a_search_that_ends_early_says_what_to_do(frame):
    with pytest.warns(ConvergenceWarning, match=r"rf\.all_fit\(m\)"):
        m = rf.fit("count ~ x + (x | g)", frame, family="nbinom2", control={"max_evaluations": 1})
    assert not m.converged
    assert "not_converged" in notes(m)
    again = rf.fit("count ~ x + (x | g)", frame, family="nbinom2")
    assert again.converged
    assert again.certificate.decrease < 1e-8


def test_p41_directions_that_the_data_cannot_tell_are_named(frame):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the flat direction may end the search early
        m = rf.fit("b ~ x + (1 | g)", frame, family="betabinomial")
    assert "dispersion" in " ".join(notes(m).values())
    assert np.isfinite([m.loglik, m.aic]).all()


# ---- P43 to P48: responses and links ---------------------------------------------------------------------------------


def test_p43_gamma_with_the_inverse_link(frame):
    data = frame.assign(time=np.random.default_rng(3).gamma(3, 1 + frame["x"]))
    m = rf.fit("time ~ x + (1 | g)", data, family="gamma", link="inverse")
    assert "try 'log'" in notes(m)["unstable_link"]


EDGES = [("poisson", "identity"), ("binomial", "log"), ("binomial", "identity")]


@pytest.mark.parametrize(("family", "link"), EDGES)
def test_p44_means_at_the_edge_of_what_is_legal(family, link):
    """The maximum lies where a mean would leave its range: the search stays inside, the message says where."""
    rng = np.random.default_rng(0)
    x, g = rng.uniform(0, 1, N), rng.integers(0, 15, N)
    if family == "poisson":
        y = rng.poisson(np.maximum(0.3 * x + 0.1 * rng.normal(size=15)[g], 0.01))
    else:
        y = rng.random(N) < np.minimum(1, 0.3 + 0.75 * x)
    data = {"y": np.asarray(y, float), "x": x, "g": g}
    with pytest.warns(ConvergenceWarning, match="edge of what"):
        m = rf.fit("y ~ x + (1 | g)", data, family=family, link=link)
    assert f"under link={link!r}" in notes(m)["edge_of_means"]
    assert "without_information" not in notes(m)
    assert np.isfinite(m.loglik)
    assert m.fitted().min() >= 0
    assert family == "poisson" or m.fitted().max() <= 1
    legal = rf.fit("y ~ x + (1 | g)", data, family=family)
    assert "edge_of_means" not in notes(legal)


def test_p44_the_edge_of_a_support():
    """A generalised Poisson mean so small beside its dispersion that a response of 1 is the last count there is."""
    rng = np.random.default_rng(0)
    x, g = np.sort(rng.normal(size=22).round(2)), np.repeat(np.arange(4), 6)[:22]
    y = np.sort(rng.poisson(np.exp(0.6 + 0.6 * x)))
    with pytest.warns(ConvergenceWarning, match="the last count that genpois allows"):
        m = rf.fit("y ~ x + (1 | g)", {"y": y, "x": x, "g": g}, family="genpois")
    assert "without_information" not in notes(m)
    named = next(n.evidence["rows"] for n in m.messages if n.code == "edge_of_support")
    assert (y[named] == 1).all()
    assert "edge_of_support" not in notes(rf.fit("y ~ x + (1 | g)", {"y": y, "x": x, "g": g}, family="compois"))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("family", "link"), EDGES)
def test_p44_illegal_means_end_in_a_fit_or_in_words(family, link, seed):
    """Whatever the data, there is a certified fit, or a message that names the link."""
    rng = np.random.default_rng(seed + 4)
    x, g = rng.uniform(0, 1, 120), rng.integers(0, 10, 120)
    mu = np.maximum(0.5 - 0.5 * x + 0.15 * rng.normal(size=10)[g], 0.01)
    y = rng.poisson(3 * mu) if family == "poisson" else rng.random(120) < np.minimum(1, 2 * mu)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = fit_or_words({"y": np.asarray(y, float), "x": x, "g": g}, family, link)
    if isinstance(found, str):
        assert f"under link={link!r} means may leave their range" in found
    else:
        assert found.converged or "edge_of_means" in notes(found)


def fit_or_words(frame, family, link):
    try:
        return rf.fit("y ~ x + (1 | g)", frame, family=family, link=link)
    except DataError as error:
        return str(error)


def test_p44_an_identity_link_inside_its_range():
    rng = np.random.default_rng(7)
    g, x = rng.integers(0, 15, N), rng.uniform(0, 1, N)
    mu = np.maximum(1 - 0.95 * x + 0.05 * rng.normal(size=15)[g], 0.01)
    data = {"y": rng.gamma(3, mu / 3), "x": x, "g": g}
    m = rf.fit("y ~ x + (1 | g)", data, family="gamma", link="identity")
    assert m.converged
    assert "edge_of_means" not in notes(m)
    assert (m.fitted() > 0).all()
    assert m.params["x"] == pytest.approx(-0.95, abs=0.2)  # one draw: four standard errors


@pytest.mark.parametrize(
    ("family", "response", "says"),
    [
        ("gamma", "count", "values are 0, impossible.*tweedie.*zero_inflation.*censored"),
        ("lognormal", "count", "values are 0, impossible.*tweedie"),
        ("beta", "b", r"exactly 0 or 1, impossible.*ordered_beta.*squeeze\(b\)"),
        ("binomial", "share", "a proportion without its denominator.*trials=.*beta"),
        ("nbinom2", "y", "negative.*whole number"),
        ("truncated_nbinom2", "count", r"values are 0.*rows.*zero_inflation="),
        ("poisson", "share", "not whole.*gamma.*tweedie"),
    ],
)
def test_p45_p48_impossible_responses(frame, family, response, says):
    with pytest.raises(DataError, match=says):
        rf.fit(f"{response} ~ x + (1 | g)", frame, family=family)


def test_p46_squeeze_stays_inside():
    """(y (n - 1) + 1/2) / n; (y + a) / 2a would leave [0, 1]."""
    y = np.array([0.0, 0.25, 1.0, 0.5])
    m = rf.fit("squeeze(y) ~ 1", {"y": y}, family="beta")
    np.testing.assert_allclose(m.design.y, [0.125, 0.3125, 0.875, 0.5])
    with pytest.raises(DataError, match="from 0 to 1"):
        rf.fit("squeeze(y) ~ 1", {"y": 2 * y}, family="beta")


def test_p47_a_pile_at_one_end(frame):
    m = rf.fit("z ~ x + (1 | g)", frame.assign(z=np.maximum(frame["y"], -0.5)))
    assert "detection limit" in notes(m)["piled_up"]
    assert "cens(y, status)" in notes(m)["piled_up"]


def test_p49_correlation_of_other_than_gaussian_responses_is_of_the_predictor(frame):
    """There is no residual to correlate: the structure is a latent one, and the summary calls it a random effect."""
    m = rf.fit("count ~ x + homdiag(factor(h) + 0 | g)", frame, family="poisson")
    assert "Random effects" in m.summary()
    assert "Residual" not in m.summary()


def test_p50_a_residual_variance_near_zero():
    m = fitted("Reaction ~ Days + (Days | Subject)", "sleepstudy", dispersion=1e-3)
    assert "0.0001 or 0.01" in notes(m)["residual_held"]
    with pytest.raises(DataError, match="held at 1e-06"):
        rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"), dispersion=1e-6)


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["poisson", "binomial", "nbinom2", "gamma", "beta"])
def test_a_constant_response(frame, family):
    value = {"beta": 0.5, "binomial": 1.0}.get(family, 3.0)
    with pytest.raises(DataError, match="response 'c' is constant"):
        rf.fit("c ~ x + (1 | g)", frame.assign(c=value), family=family)


@pytest.mark.parametrize(
    ("formula", "options", "error", "says"),
    [
        ("count ~ x + (1 | one)", {}, DataError, "'one' has one level, 'a', in the 300 rows used"),
        ("count ~ x", {"groups": ["g"]}, ArgumentError, "no argument 'groups'"),
        ("count ~ x + (1 | g)", {"weights": "x"}, ArgumentError, "precision_weights=.*trials="),
        ("count ~ x + (1 | g)", {"dispersionn": "~ x"}, ArgumentError, "did you mean 'dispersion'"),
        ("count ~ x + (1 | g)", {"link": "logit"}, OptionError, "not available for the mean of poisson"),
        ("count ~ x + ar1(x + 0 | g)", {}, DataError, "not equally spaced.*ou"),
    ],
)
def test_bad_calls(frame, formula, options, error, says):
    with pytest.raises(error, match=says):
        rf.fit(formula, frame, family="poisson", **options)


def test_a_covariance_matrix_of_more_parameters_than_rows():
    """MixedModels.jl#252: nine rows, 27 columns; out of memory there, a search of minutes without the check."""
    rng = np.random.default_rng(1)
    labels = {name: [f"{name}{i % 3}" for i in rng.permutation(9)] for name in "abc"}
    data = pd.DataFrame({"y": rng.poisson(3, 9).astype(float), "g": [*"pqr"] * 3, **labels})
    with pytest.raises(DataError, match=r"\| g\): 378 covariance parameters, 9 observations; write \|\|"):
        rf.fit("y ~ 1 + (a * b * c | g)", data, family="poisson")


def test_one_level_after_rows_went(frame):
    data = frame.assign(two=np.where(frame["row"] < 290, "a", "b"), x=frame["x"].where(frame["row"] < 290))
    with pytest.raises(DataError, match=r"'two' has one level, 'a'.*after 10 of 300 rows were dropped.*'x': 10"):
        rf.fit("count ~ x + (1 | two)", data, family="poisson")


def test_new_data_need_what_plays_a_part(frame):
    m = rf.fit("count ~ f + (1 | g)", frame, family="poisson")
    np.testing.assert_allclose(m.predict(frame[["f"]].head(3), re="none"), m.predict(re="none")[:3])
    with pytest.raises(rf.errors.UnseenLevelError, match=r"level 'z'.*known"):
        m.predict(pd.DataFrame({"f": ["z"], "g": [1]}))


def test_a_separated_dummy_has_a_finite_alternative(frame):
    """lme4#124: an error about step-halvings there; here estimates, a warning with the column's name, and remedies."""
    data = frame.assign(z=((frame["x"] > 0.8) & (frame["b"] > 0)).astype(float))
    with pytest.warns(SeparationWarning, match="separated by z"):
        m = rf.fit("b ~ x + z + (1 | g)", data, family="binomial")
    assert np.isfinite(m.params["x"])
    for remedy in ({"penalty": "firth"}, {"prior": {"z": rf.prior.normal(0, 2.5)}}):
        finite = rf.fit("b ~ x + z + (1 | g)", data, family="binomial", **remedy)
        assert finite.separation == ()
        assert 0 < finite.params["z"] < 10


def test_a_parameter_more_never_lowers_the_likelihood(frame):
    formulas = ["count ~ x", "count ~ x + (1 | g)", "count ~ x + (x | g)"]
    for family in ("poisson", "nbinom1", "nbinom2"):
        values = [rf.fit(formula, frame, family=family).loglik for formula in formulas]
        assert np.diff(values).min() > -1e-7
    inflated = rf.fit(formulas[1], frame, family="poisson", zero_inflation="~ 1").loglik
    assert inflated > rf.fit(formulas[1], frame, family="poisson").loglik - 1e-7


# ---- families --------------------------------------------------------------------------------------------------------

#: family -> its names in lme4 (and MASS, ordinal), glmmTMB and brms; "" where the package has none.
WORDS = {
    "gaussian": ("gaussian", "gaussian", "gaussian"),
    "lognormal": ("", "lognormal", "lognormal"),
    "skew_normal": ("", "skewnormal", "skew_normal"),
    "binomial": ("binomial", "binomial", "bernoulli"),
    "betabinomial": ("", "betabinomial", "beta_binomial"),
    "poisson": ("poisson", "poisson", "poisson"),
    "nbinom1": ("", "nbinom1", ""),
    "nbinom2": ("negative.binomial", "nbinom2", "negbinomial"),
    "nbinom12": ("", "nbinom12", ""),
    "gamma": ("Gamma", "Gamma", "Gamma"),
    "exponential": ("", "", "exponential"),
    "inverse_gaussian": ("inverse.gaussian", "", "inverse.gaussian"),
    "weibull": ("", "", "weibull"),
    "student_t": ("", "t_family", "student"),
    "beta": ("", "beta_family", "Beta"),
    "ordered_beta": ("", "ordbeta", ""),
    "zero_one_inflated_beta": ("", "", "zero_one_inflated_beta"),
    "bell": ("", "bell", ""),
    "genpois": ("", "genpois", ""),
    "compois": ("", "compois", "com_poisson"),
    "tweedie": ("", "tweedie", ""),
    "cumulative": ("clmm", "", "cumulative"),
    "sratio": ("", "", "sratio"),
    "cratio": ("", "", "cratio"),
    "acat": ("", "", "acat"),
    "multinomial": ("", "", "categorical"),
}
#: What other names mean: the family, and whether extra zeros come with it.
COMPOSED = {
    "truncated_poisson": ("truncated_poisson", ""), "truncated_nbinom1": ("truncated_nbinom1", ""),
    "truncated_nbinom2": ("truncated_nbinom2", ""), "truncated_genpois": ("truncated_genpois", ""),
    "truncated_compois": ("truncated_compois", ""), "hurdle_poisson": ("truncated_poisson", "~ 1"),
    "hurdle_negbinomial": ("truncated_nbinom2", "~ 1"), "hurdle_gamma": ("gamma", "~ 1"),
    "hurdle_lognormal": ("lognormal", "~ 1"), "zero_inflated_poisson": ("poisson", "~ 1"),
    "zero_inflated_negbinomial": ("nbinom2", "~ 1"), "zero_inflated_binomial": ("binomial", "~ 1"),
    "zero_inflated_beta_binomial": ("betabinomial", "~ 1"), "zero_inflated_beta": ("beta", "~ 1"),
}  # fmt: skip


def test_every_family_is_in_the_table_of_names():
    assert set(WORDS) == set(entries())


@pytest.mark.parametrize("family", WORDS)
def test_names_of_other_packages(family):
    for word in filter(None, WORDS[family]):
        assert read_family(word).name == family


@pytest.mark.parametrize("word", COMPOSED)
def test_names_that_compose(word):
    found = read_family(word)
    assert (found.name, found.inflated_by) == COMPOSED[word]


@pytest.mark.parametrize("word", ["quasipoisson", "quasibinomial", "quasi", "geometric", "zinb", "zip"])
def test_names_that_stand_for_something_else_say_what_to_write(word):
    with pytest.raises(OptionError, match=r"nbinom|betabinomial|dispersion|zero_inflation"):
        read_family(word)


@pytest.mark.parametrize(("word", "says"), [("loglogistic", "'lognormal'"), ("extreme", "'weibull'")])
def test_laws_of_survreg_that_are_not_here_say_what_is(word, says):
    with pytest.raises(OptionError, match=says):
        read_family(word)


ILLEGAL = {
    "real": np.inf, "positive": -1.0, "nonnegative": -1.0, "count": 0.5, "binomial": 2.0, "unit": 1.5,
    "closed_unit": -0.5,
}  # fmt: skip


@pytest.mark.parametrize("name", [n for n, e in entries().items() if e.support in ILLEGAL])
def test_illegal_responses_of_every_family_are_named(name):
    support = entries()[name].support
    y = np.tile([0.0, 1.0] if support in ("count", "binomial") else [0.25, 0.5], 10)
    y[7] = ILLEGAL[support]
    with pytest.raises(DataError, match=r"row 7\b"):
        rf.fit("y ~ 1", {"y": y}, family=name)
