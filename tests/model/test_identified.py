"""Notes on what the data cannot tell."""

import warnings

import numpy as np
import pandas as pd
import pytest

import ranef as rf


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    n = 300
    frame = pd.DataFrame({"g": rng.integers(0, 20, n), "x": rng.normal(size=n), "f": rng.choice(list("abc"), n)})
    effect = 0.5 * rng.normal(size=20)[frame["g"]]
    latent = frame["x"] + effect + rng.normal(size=n)
    half = (rng.random(n) < 0.5).astype(float)
    return frame.assign(
        row=np.arange(n), half=half, b=half * (frame["f"] != "a"), y=latent, limited=np.maximum(latent, -0.5)
    )


def note(m, code):
    found = [n.text for n in m.messages if n.code == code]
    return found[0] if found else ""


def test_a_level_with_one_outcome_is_named(data):
    with pytest.warns(rf.SeparationWarning):
        m = rf.fit("b ~ f + (1 | g)", data, family="binomial")
    assert "('a' of 'f': 0 in all" in note(m, "separation")


def test_a_level_without_a_count_is_named(data):
    counts = data.assign(k=np.where(data["f"] == "a", 0, np.random.default_rng(2).poisson(3, len(data))))
    with pytest.warns(rf.SeparationWarning):
        m = rf.fit("k ~ f + (1 | g)", counts, family="poisson")
    assert "('a' of 'f': 0 in all" in note(m, "separation")


def test_single_trials_show_neither_row_effects_nor_dispersion(data):
    assert note(rf.fit("half ~ x + (1 | row)", data, family="binomial"), "row_effect_of_single_trials")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the flat direction may end the search early
        m = rf.fit("half ~ x + (1 | g)", data, family="betabinomial")
    assert note(m, "dispersion_of_single_trials")
    assert "dispersion: (Intercept)" in note(m, "without_information")


@pytest.mark.parametrize("sign", [1, -1])
def test_values_that_pile_up_look_like_a_detection_limit(data, sign):
    m = rf.fit("limited ~ x + (1 | g)", data.assign(limited=sign * data["limited"]))
    assert ("the smallest" if sign > 0 else "the largest") in note(m, "piled_up")
    assert not note(rf.fit("y ~ x + (1 | g)", data), "piled_up")
    whole = data.assign(y=np.clip(np.round(data["y"]), -2, 2))  # whole numbers repeat everywhere
    assert not note(rf.fit("y ~ x + (1 | g)", whole), "piled_up")


def test_a_residual_variance_held_near_zero_asks_for_a_second_look(data):
    assert note(rf.fit("y ~ x + (1 | g)", data, dispersion=0.0), "residual_held")
    assert not note(rf.fit("y ~ x + (1 | g)", data, dispersion=1.0), "residual_held")


def test_a_dispersion_at_its_limit_leaves_the_other_standard_errors(data):
    rng = np.random.default_rng(4)
    counts = data.assign(count=rng.poisson(np.exp(0.5 + 0.4 * data["x"])))  # not overdispersed: Poisson is the limit
    wide = rf.fit("count ~ x + (1 | g)", counts, family="nbinom2")
    limit = rf.fit("count ~ x + (1 | g)", counts, family="poisson")
    assert np.sqrt(np.diag(wide.vcov())) == pytest.approx(np.sqrt(np.diag(limit.vcov())), rel=1e-4)
    assert wide.loglik == pytest.approx(limit.loglik, abs=1e-5)
    assert "dispersion" in note(wide, "at_a_limit")


def test_standard_errors_do_not_depend_on_where_x_is_zero(data):
    """The factor of the covariance is rotated when x is shifted; a density with several modes must keep its mode."""
    rng = np.random.default_rng(8)
    frame = data.iloc[:60].assign(y=lambda d: np.exp(0.3 * d["x"] + 0.6 * rng.normal(size=60)))
    here = rf.fit("y ~ x + (1 + x | g)", frame, family="lognormal")
    there = rf.fit("y ~ x + (1 + x | g)", frame.assign(x=frame["x"] + 2000), family="lognormal")
    slope = [np.sqrt(np.diag(m.vcov()))[1] for m in (here, there)]
    assert there.loglik == pytest.approx(here.loglik, abs=1e-7)
    assert slope[1] == pytest.approx(slope[0], rel=1e-4)  # differences of the gradient at another rounding


def test_infinite_coefficients_of_other_components_are_named():
    rng = np.random.default_rng(3)
    n, f = 400, np.tile(["a", "b"], 200)
    mu = np.exp(1.5 + 0.4 * rng.normal(size=20))[np.arange(n) % 20]
    # Zeros are added where f is b; where it is a, they are fewer than the counts have of themselves.
    y, some = rng.poisson(mu), rng.random(n) < 0.6
    y = np.where(f == "b", np.where(some, y, 0), np.where(some, np.maximum(y, 1), y))
    data = pd.DataFrame({"y": y, "f": f, "g": np.arange(n) % 20})
    m = rf.fit("y ~ f + (1 | g)", data, family="poisson", zero_inflation="~ f")
    text = note(m, "at_a_limit")
    assert "zero_inflation ((Intercept)" in text
    assert ", fb: " in text  # the component is named once
    assert not note(rf.fit("y ~ f + (1 | g)", data, family="poisson", zero_inflation="~ 1"), "at_a_limit")


def test_a_coefficient_that_is_known_is_no_runaway():
    """Far rows of a predictor of zero inflation have none, whatever its slope; that is known all the same."""
    rng = np.random.default_rng(12)
    n = 900
    w = np.round(rng.exponential(9.0, n))
    y = np.where(rng.random(n) < 1 / (1 + np.exp(0.4 + 0.7 * (w - 4))), 0, rng.negative_binomial(3, 0.5, n))
    m = rf.fit("y ~ w", {"y": y, "w": w}, family="nbinom2", zero_inflation="~ w")
    slope = m.tidy().query("component == 'zero_inflation' and term == 'w'").iloc[0]
    assert slope["std_error"] < abs(slope["estimate"]) / 2
    assert not m.messages


def test_a_component_that_went_away_is_at_its_limit():
    """Its slope is small where every probability is nothing: that is no matter of two that cannot be told apart."""
    rng = np.random.default_rng(4)
    g, x = np.arange(300) % 12, rng.normal(size=300)
    y = rng.binomial(8, 1 / (1 + np.exp(-0.5 * x - 0.5 * rng.normal(size=12)[g]))) / 8
    data = {"y": y, "x": x, "g": g, "n": np.full(300, 8)}
    m = rf.fit("y ~ x + (1 | g)", data, family="binomial", trials="n", zero_inflation="~ x")
    assert "x: " in note(m, "at_a_limit")
    assert not note(m, "without_information")


@pytest.mark.parametrize("family", ["nbinom2", "nbinom1"])
@pytest.mark.parametrize("dispersion", [None, "~ x", "~ f", "~ x + f"])
def test_a_dispersion_at_the_limit_has_no_standard_error(family, dispersion):
    """One way for every formula; what is known of combinations stays in predictions."""
    rng = np.random.default_rng(11)
    x, g, f = rng.normal(size=300), np.arange(300) % 15, rng.choice(list("abc"), 300)
    mean = np.exp(0.8 + 0.3 * x + 0.3 * rng.normal(size=15)[g])
    y = rng.binomial(12, np.minimum(mean / 12, 0.9))  # less than Poisson variation: the limit is best
    split = dispersion is not None and "f" in dispersion
    if split:
        y = np.where(f == "c", rng.poisson(mean * rng.gamma(1.0, 1.0, size=300)), y)
    data = {"x": x, "g": g, "f": f, "y": y.astype(float)}
    m = rf.fit("y ~ x + (1 | g)", data, family=family, dispersion=dispersion)
    own = m.tidy().query("component == 'dispersion'").set_index("term")
    lost = own.index[own["std_error"].isna()]
    assert set(own.index) - set(lost) <= {"x"}
    assert not (own["std_error"] > 10).any()
    assert np.isnan(np.asarray(m.vcov(component="dispersion"))[own.index.isin(lost)]).all()
    named = next(n for n in m.messages if n.code == "at_a_limit").evidence["parameters"]
    assert named == [f"dispersion.{term}" for term in lost]
    errors = m.tidy().query("component == 'mean'")["std_error"]
    np.testing.assert_array_less(errors, 0.5)
    if split:  # level c: an intercept that ran away plus a contrast that ran back
        told = m.predict({"x": [0.0], "f": ["c"]}, re="none", type="dispersion", std_error=True)
        assert 0.05 < told["std_error"][0] / told["estimate"][0] < 1


def test_a_mean_of_truncated_counts_at_its_limit():
    """Counts above 0 whose law is the logarithmic one: that of `truncated_nbinom1` for a mean of nothing."""
    rng = np.random.default_rng(5)
    f = np.tile(["a", "b"], 200)
    y = np.where(f == "a", rng.logseries(0.6, 400), 1 + rng.negative_binomial(2, 0.3, 400))
    m = rf.fit("y ~ f", {"y": y, "f": f}, family="truncated_nbinom1")
    assert m.params["(Intercept)"] < -6
    assert "mean ((Intercept)" in note(m, "at_a_limit")


def test_zeros_that_are_modelled_are_no_detection_limit(data):
    y = np.where(data["x"] > 0.5, 0.0, np.exp(data["y"]))
    m = rf.fit("y ~ 1 + (1 | g)", data.assign(y=y), family="gamma", zero_inflation="~ 1")
    assert not note(m, "piled_up")


@pytest.mark.parametrize("unit", [1.0, 2.5])
def test_a_tweedie_of_counts_is_their_poisson_at_its_limit(unit):
    """The density of multiples of the dispersion grows for ever as the power tends to 1."""
    rng = np.random.default_rng(2)
    g, x = np.repeat(np.arange(14), 8), rng.normal(size=112)
    counts = rng.poisson(np.exp(0.5 + 0.3 * x + 0.5 * rng.normal(size=14)[g]))
    data = {"g": g, "x": x, "c": counts, "y": unit * counts}
    m = rf.fit("y ~ x + (1 | g)", data, family="tweedie")
    p = rf.fit("c ~ x + (1 | g)", data, family="poisson")
    assert m.converged
    text = next(n.text for n in m.messages if n.code == "power_at_1")
    assert f"multiples of {unit:.4g}" in text
    assert not any(n.code in ("without_information", "at_a_limit") for n in m.messages)
    # A power of 1 + 1e-6: gammas a thousandth wide about the multiples.
    np.testing.assert_allclose(m.tidy()["std_error"][1], p.tidy()["std_error"][1], rtol=1e-2)
    assert m.params["x"] == pytest.approx(p.params["x"], rel=2e-2)


def test_a_dispersion_with_a_predictor_went_to_its_limit_as_a_whole(data):
    rng = np.random.default_rng(4)
    counts = data.assign(count=rng.poisson(np.exp(0.5 + 0.4 * data["x"])))
    m = rf.fit("count ~ x + (1 | g)", counts, family="nbinom1", dispersion="~ x")
    assert ", x: " in note(m, "at_a_limit")


def test_a_skew_normal_beside_an_edge_is_half_of_a_normal():
    rng = np.random.default_rng(1)
    data = {"y": 2 + np.abs(rng.normal(size=40)), "g": np.arange(40) % 5}
    m = rf.fit("y ~ 1 + (1 | g)", data, family="skew_normal")
    assert m.converged
    assert m.certificate.evaluations < 150  # 61; measured curvature took over 300 and did not end
    assert "half of a normal" in note(m, "half_normal")
    # The likelihood of half of a normal at the smallest response, which is gone towards like log(shape) / shape.
    rest = data["y"] - data["y"].min()
    limit = 40 * (0.5 * np.log(2 / np.pi) - 0.5 * np.log(np.mean(rest**2)) - 0.5)
    shape = abs(m.estimate.beta[-1])
    assert limit - 400 * np.log(shape) / shape < m.loglik < limit
    assert not note(m, "without_information")
    held = rf.fit("y ~ 1 + (1 | g)", data, family="skew_normal", shape=20)
    assert held.converged
    assert not note(held, "half_normal")


@pytest.mark.parametrize(("inside", "words"), [(0, "cut points"), (2, "no bound")])
def test_proportions_of_which_too_few_lie_inside(inside, words):
    rng = np.random.default_rng(6)
    y = (rng.random(40) < 0.6).astype(float)
    y[:inside] = [0.3, 0.8][:inside]
    data = {"y": y, "x": rng.normal(size=40), "g": np.arange(40) % 8}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        m = rf.fit("y ~ x + (1 | g)", data, family="ordered_beta")
    assert words in note(m, "few_inside")
    assert m.converged == (inside > 0)  # an optimum inside, beside a likelihood without bound


def test_as_many_proportions_inside_as_coefficients_that_these_cannot_fit():
    """Both rows have the same x: the mean is one value for two different responses, and the precision is finite."""
    rng = np.random.default_rng(7)
    y = (rng.random(60) < 0.6).astype(float)
    x = rng.integers(0, 2, 60)
    x[:2], y[:2] = 1, (0.3, 0.6)
    m = rf.fit("y ~ x + (1 | g)", {"y": y, "x": x, "g": np.arange(60) % 8}, family="ordered_beta")
    assert m.converged
    assert not note(m, "few_inside")


@pytest.mark.filterwarnings("error")
def test_the_warning_of_a_fit_without_optimum_says_why():
    y = np.array([0.31, 0.32, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    data = {"y": y, "x": np.linspace(-1, 1, 12), "g": np.arange(12) % 4}
    with pytest.warns(
        rf.errors.ConvergenceWarning, match="no bound: it rises for ever: 2 of 12 responses lie strictly"
    ):
        rf.fit("y ~ x + (1 | g)", data, family="ordered_beta")


@pytest.fixture(scope="module")
def schools():
    """A class in every school, by labels that say nothing of it."""
    rng = np.random.default_rng(0)
    school = np.repeat(np.arange(25), 8)
    frame = pd.DataFrame({"s": school, "c": [f"c{31 * k % 25}" for k in school], "x": rng.normal(size=200)})
    effect = rng.normal(size=25)[school]
    crossed = np.tile(np.arange(25), 8)
    return frame.assign(y=effect + rng.normal(size=200), k=rng.poisson(np.exp(0.5 + 0.8 * effect)), o=crossed)


@pytest.mark.parametrize(
    ("formula", "options", "says"),
    [
        ("y ~ 1 + (1 | s) + (1 | c)", {}, "the sum of the variances of (1 | s) and (1 | c) is identified"),
        ("k ~ 1 + (1 | s) + (1 | c)", {"family": "poisson"}, "every level of 's' is one level of 'c'"),
        ("y ~ 1 + (1 | s / c)", {}, "(1 | s) and (1 | s:c)"),
        ("y ~ x + (x | s) + (x || c)", {}, "the covariances of (1, x | s) and (1, x | c)"),
        ("y ~ x + (x | s) + (0 + x | c)", {}, "the variances of (x | s) and (x | c)"),
    ],
)
def test_two_terms_of_one_partition_are_one_variance(schools, formula, options, says):
    assert says in note(rf.fit(formula, schools, **options), "one_partition")


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("y ~ 1 + (1 | s) + (1 | o)", {}),
        ("y ~ x + (1 | s) + (0 + x | c)", {}),
        ("y ~ 1 + (1 | s) + (1 | c)", {"fixed": {"sd(c)": 0.5}}),
        ("k ~ 1 + (1 | s)", {"family": "nbinom2", "dispersion": "~ 1 + (1 | c)"}),
    ],
)
def test_terms_of_two_variances_are_told_apart(schools, formula, options):
    assert not note(rf.fit(formula, schools, **options), "one_partition")


def test_related_levels_are_one_variance_where_the_relationship_is(schools):
    k = 0.5 * np.eye(25) + 0.1 * np.add.outer(np.arange(25), np.arange(25)) / 24
    own = [str(i) for i in range(25)]
    theirs = [f"c{31 * i % 25}" for i in range(25)]
    back = [24 - i for i in range(25)]
    formula = "y ~ 1 + (1 | s) + (1 | c)"
    one = rf.fit(formula, schools, cov={"s": (k, own), "c": (k[np.ix_(back, back)], [theirs[i] for i in back])})
    assert note(one, "one_partition")  # the same matrix, written in another order
    assert not note(rf.fit(formula, schools, cov={"s": (k, own)}), "one_partition")
    assert not note(rf.fit(formula, schools, cov={"s": (k, own), "c": (k, theirs[::-1])}), "one_partition")


def test_a_limit_that_separation_does_not_explain_is_told(data):
    """Underdispersed counts of which one level has none: the dispersion runs off whatever that level does."""
    k = np.where(data["f"] == "c", 0, np.random.default_rng(3).binomial(6, 0.5, len(data)))
    with pytest.warns(rf.SeparationWarning):
        m = rf.fit("k ~ f", data.assign(k=k), family="nbinom2")
    assert m.separation == ("fc",)
    (limit,) = [n for n in m.messages if n.code == "at_a_limit"]
    assert limit.evidence["parameters"] == ["dispersion.(Intercept)"]


@pytest.mark.parametrize(
    ("end", "says"), [(None, "0 or 1"), (0.0, "no response is 1: 'upper'"), (1.0, "no response is 0")]
)
def test_cut_points_without_responses_beyond_are_told(data, end, says):
    inside = np.random.default_rng(5).beta(2, 3, len(data))
    y = inside if end is None else np.where(np.arange(len(data)) % 9 == 0, end, inside)
    m = rf.fit("y ~ x", data.assign(y=y), family="ordered_beta")
    assert says in note(m, "no_ends")
    if end is None:
        same = rf.fit("y ~ x", data.assign(y=y), family="beta")
    else:
        same = rf.fit("y ~ x", data.assign(y=y), family="ordered_beta", **({"lower": -20} if end else {"upper": 20}))
    assert not note(same, "no_ends")
    assert same.loglik == pytest.approx(
        m.loglik, abs=1e-5
    )  # 300 rows of which 2e-9 is cut off, and more where eta is far
    assert "hold it, upper=20" in note(m, "no_ends") or end != 0
    both = rf.fit(
        "y ~ x", data.assign(y=np.where(np.arange(len(data)) % 7 == 0, 1 - (end or 0), y)), family="ordered_beta"
    )
    assert bool(note(both, "no_ends")) == (end is None)
