"""Every kind of fit meets every question: it answers with sensible numbers, or says in a typed error why not."""

from __future__ import annotations

import pickle
import warnings
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special

import ranef as rf
from ranef.errors import NotAvailableError, RanefError, RanefWarning
from ranef.inference import resampling
from ranef.model import design_of

GROUPS, EACH = 10, 6
N = GROUPS * EACH


def data():
    rng = np.random.default_rng(7)
    g = np.repeat(np.arange(GROUPS), EACH)
    x, b, slope = rng.normal(size=N), 0.7 * rng.normal(size=GROUPS), 0.4 * rng.normal(size=GROUPS)
    eta = 0.3 + 0.5 * x + b[g]
    d = pd.DataFrame(
        {
            "g": [f"g{i}" for i in g],
            "h": [f"h{i}" for i in rng.integers(0, 5, N)],
            "k": [f"k{i}" for i in np.tile(np.arange(EACH) // 2, GROUPS)],
            "t": np.tile(np.arange(EACH), GROUPS),
            "x": x,
            "z": rng.normal(size=N),
            "f": np.array(list("abc"))[rng.integers(0, 3, N)],
            "w": rng.uniform(0.5, 2, N),
            "px": rng.uniform(0, 3, GROUPS)[g],
            "py": rng.uniform(0, 3, GROUPS)[g],
            "one": "a",
        }
    )
    d["y"] = eta + slope[g] * x + 0.6 * rng.normal(size=N)
    d["count"] = rng.poisson(np.exp(eta))
    d["nb"] = rng.negative_binomial(2, 2 / (2 + np.exp(eta + 0.6))) * (rng.uniform(size=N) > 0.25)
    d["bin"] = (rng.uniform(size=N) < special.expit(eta)).astype(int)
    latent = eta + rng.logistic(size=N)
    d["rating"] = pd.Categorical(np.digitize(latent, [-0.6, 1.0]), ordered=True)
    d["choice"] = np.array(list("ABC"))[np.digitize(latent + 0.3 * rng.normal(size=N), [-0.3, 1])]
    d["answer"] = np.where(rng.uniform(size=N) < 0.8, d["bin"], 1)
    return d


DATA = data()
LEVELS = sorted(set(DATA["g"]))
KINSHIP = pd.DataFrame(0.4 + 0.6 * np.eye(GROUPS), index=LEVELS, columns=LEVELS)
FORCED = {"design": "forced", "p1": 0.8, "p2": 1.0}


def nbinom(y, mu, k):
    log = special.gammaln(y + k) - special.gammaln(k) - special.gammaln(y + 1)
    return log + k * np.log(k / (mu + k)) + special.xlogy(y, mu / (mu + k))


def draw(rng, mu, k):
    return rng.negative_binomial(k, k / (k + mu))


OWN = rf.custom_family(nbinom, ["mu", "k"], ["log", "log"], support="count", simulate=draw, name="own")
M = "x + f + (1 | g)"
ROWS = {
    "linear": (f"y ~ {M}", {}),
    "slopes": ("y ~ x + f + (x | g)", {"method": "ml"}),
    "prior": ("y ~ x + f + (x | g)", {"prior": "blme"}),
    "prior_mean": ("y ~ x + f + (x | g)", {"prior": {"fixed": "normal(0, 2.5)"}}),
    "fixed_sd": (f"y ~ {M} + (1 | h)", {"fixed": {"sd(g)": 0.7}}),
    "fixed_x": (f"y ~ {M}", {"fixed": {"x": 0.5}}),
    "equal": (f"y ~ {M} + (1 | h)", {"equal": [("sd(g)", "sd(h)")]}),
    "firth": (f"bin ~ {M}", {"family": "binomial", "penalty": "firth"}),
    "pql": (f"count ~ {M}", {"family": "poisson", "method": "pql"}),
    "survey": (f"count ~ {M}", {"family": "poisson", "sampling_weights": "w"}),
    "nominal": (f"rating ~ {M}", {"family": "cumulative", "nominal": "~ z"}),
    "scale": (f"rating ~ {M}", {"family": "cumulative", "scale": "~ z"}),
    "sratio": (f"rating ~ {M}", {"family": "sratio"}),
    "multinomial": (f"choice ~ {M}", {"family": "multinomial"}),
    "custom": (f"nb ~ {M}", {"family": OWN}),
    "randomised": (f"answer ~ {M}", {"family": "binomial", "randomised_response": FORCED}),
    "rr": ("y ~ x + f + rr(0 + k | g, 1)", {}),
    "mat": ("y ~ x + f + mat(numFactor(px, py) + 0 | one)", {}),
    "related": (f"y ~ {M}", {"cov": {"g": KINSHIP}}),
    "joint": ("y ~ x + f + (1 |i| g)", {"dispersion": "~ 1 + (1 |i| g)"}),
    "inflated": (f"nb ~ {M}", {"family": "nbinom2", "zero_inflation": "~ x"}),
    "nested": ("bin ~ x + f + (1 | g/k)", {"family": "binomial", "quadrature": 3}),
    "ar1": ("y ~ x + f + ar1(0 + factor(t) | g)", {}),
    "plain": ("y ~ x + f", {}),
    "binary": (f"bin ~ {M}", {"family": "binomial"}),
    "polars": (f"count ~ {M}", {"family": "poisson"}),
}
DERIVED = ("slim", "slim_binary", "unpickled")


@cache
def fitted(row):
    if row in DERIVED:
        m = fitted({"slim": "linear", "slim_binary": "binary", "unpickled": "binary"}[row])
        return pickle.loads(pickle.dumps(m)) if row == "unpickled" else m.slim()
    formula, options = ROWS[row]
    return quietly(lambda: rf.fit(formula, pl.from_pandas(DATA) if row == "polars" else DATA, **options))


@cache
def smaller(row):
    return quietly(lambda: fitted(row).update(". ~ . - f"))


def quietly(ask):
    """Our own warnings are answers too; any other is a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RanefWarning)
        return ask()


NEW = DATA.iloc[:7].assign(f=list("abcabca"))
STRANGERS = DATA.iloc[:3].assign(g="new")
PLOTS = ("caterpillar", "shrinkage", "qq", "residuals_fitted", "trajectories")


def drawn(name, m):
    try:
        getattr(rf.plot, name)(m)
        plt.gcf().canvas.draw()
    finally:
        plt.close("all")


# What is asked, and whether all numbers of the answer must be finite.
EXACT = {
    "predict": lambda m, _: m.predict(),
    "link": lambda m, _: m.predict(NEW, type="link"),
    "new": lambda m, _: m.predict(NEW),
    "population": lambda m, _: m.predict(NEW, re="none"),
    "integrate": lambda m, _: m.predict(NEW, re="integrate"),
    "strangers": lambda m, _: m.predict(STRANGERS, new_levels="population"),
    "drawn_strangers": lambda m, _: m.predict(STRANGERS, new_levels="sample", seed=1),
    "std_error": lambda m, _: m.predict(NEW, type="link", std_error=True),
    "std_error_strangers": lambda m, _: m.predict(STRANGERS, new_levels="population", std_error=True),
    "confidence": lambda m, _: m.predict(NEW, interval="confidence"),
    "prediction": lambda m, _: m.predict(NEW, interval="prediction"),
    "residuals": lambda m, _: m.residuals(),
    "pearson": lambda m, _: m.residuals("pearson"),
    "deviance": lambda m, _: m.residuals("deviance"),
    "scaled": lambda m, _: m.residuals("scaled"),
    "quantile": lambda m, _: m.residuals("quantile"),
    "simulate": lambda m, _: m.simulate(2, seed=1),
    "conditional": lambda m, _: m.simulate(2, re="conditional", seed=1),
    "vcov": lambda m, _: np.asarray(m.vcov()),
    "vcov_all": lambda m, _: np.asarray(m.vcov("all")),
    "vcov_kr": lambda m, _: np.asarray(m.vcov(kind="kenward-roger")),
    "coefficients": lambda m, _: np.asarray(m.coefficients()),
    "ranef": lambda m, _: [numbers(f) for f in m.ranef(std_error=True).values()],
    "coef": lambda m, _: [numbers(f) for f in m.coef().values()],
}
ANY = {
    "print": lambda m, _: [m.summary(), m._repr_html_(), str(m.varcorr())],
    "fixed": lambda m, _: m.tidy("fixed", conf_int=True),
    "ran_pars": lambda m, _: m.tidy("ran_pars", conf_int=True),
    "ran_vals": lambda m, _: m.tidy("ran_vals", conf_int=True),
    "tidy_boot": lambda m, _: m.tidy("fixed", conf_int=True, method="boot", n=3, seed=1),
    "glance": lambda m, _: m.glance(),
    "augment": lambda m, _: [m.augment(), m.augment(NEW)],
    "refit": lambda m, _: m.refit(m.simulate(1, seed=2)[:, 0]),
    "anova": lambda m, _: rf.anova(m),
    "anova_1": lambda m, _: rf.anova(m, type=1, ddf="inf"),
    "anova_2": lambda m, _: rf.anova(m, type=2),
    "satterthwaite": lambda m, _: rf.anova(m, ddf="satterthwaite"),
    "kenward_roger": lambda m, _: rf.anova(m, ddf="kenward-roger"),
    "inner_outer": lambda m, _: rf.anova(m, ddf="inner-outer"),
    "between_within": lambda m, _: rf.anova(m, ddf="between-within"),
    "two": lambda m, row: rf.anova(smaller(row), m),
    "contrast": lambda m, _: rf.contrast(m, {"x": 1}),
    "drop1": lambda m, _: rf.drop1(m),
    "drop1_f": lambda m, _: rf.drop1(m, test="F"),
    "add1": lambda m, _: rf.add1(m, "w"),
    "ranova": lambda m, _: rf.ranova(m),
    "pb_test": lambda m, row: rf.pb_test(m, smaller(row), n=3, seed=1),
    "exact_rlrt": lambda m, _: rf.exact_rlrt(m, n=50, seed=1),
    "exact_lrt": lambda m, _: rf.exact_lrt(m, n=50, seed=1),
    "vuong": lambda m, row: rf.vuong(m, smaller(row)),
    "compare": lambda m, row: rf.compare(m, smaller(row)),
    "average": lambda m, row: rf.average(m, smaller(row)),
    "r2": lambda m, _: rf.r2(m),
    "icc": lambda m, _: rf.icc(m),
    "caic": lambda m, _: rf.caic(m),
    "laplace_check": lambda m, _: rf.laplace_check(m),
    "profile": lambda m, _: rf.profile(m, which="x", points=2),
    "confint": lambda m, _: rf.confint(m),
    "boot": lambda m, _: rf.bootstrap(m, n=3, seed=1),
    "cases": lambda m, _: rf.bootstrap(m, n=3, seed=1, kind="cases"),
    "permutation": lambda m, _: rf.permutation_test(m, "x", n=3, seed=1),
    "loadings": lambda m, _: [rf.loadings(m), rf.scores(m)],
}
PICTURES = {name: lambda m, _, name=name: drawn(name, m) for name in PLOTS}
ALL = EXACT | ANY | PICTURES
CELLS = [
    *((row, column) for row in (*ROWS, *DERIVED) for column in (*EXACT, *ANY)),
    *((row, column) for row in ("multinomial", "rr", "joint", "plain", "slim") for column in PICTURES),
]


def numbers(frame):
    if hasattr(frame, "select_dtypes"):
        return frame.select_dtypes("number").to_numpy()
    return frame.select(pl.selectors.numeric()).to_numpy() if hasattr(frame, "select") else np.asarray(frame)


@pytest.mark.parametrize(("row", "column"), CELLS)
def test_an_answer_or_a_reason(row, column):
    m = fitted(row)
    try:
        found, why = quietly(lambda: ALL[column](m, row)), "none: it was answered, not refused"
    except RanefError as error:
        found, why = [], str(error)
    assert len(why) > 30
    if column in EXACT:
        for part in found if isinstance(found, list) else [found]:
            assert np.isfinite(np.asarray(numbers(part), dtype=float)).all()


@pytest.mark.parametrize("row", ["linear", "prior", "pql", "nominal", "multinomial", "rr", "related", "joint", "mat"])
def test_round_trip_and_update_say_the_same(row):
    m = fitted(row)
    again = pickle.loads(pickle.dumps(m))
    assert str(again) == str(m)
    assert_array_equal(again.predict(NEW), m.predict(NEW))
    assert str(m.slim()) == str(m)
    same = quietly(lambda: m.update(data=DATA))
    assert_allclose(same.estimate.beta, m.estimate.beta, atol=1e-10)  # the same search from the same start


# ---- what has no answer ----------------------------------------------------------------------------------------------

WITHOUT_LIKELIHOOD = ("two", "drop1", "add1", "ranova", "pb_test", "vuong", "compare", "average")
REFUSED = [
    *(("pql", column, "no likelihood") for column in WITHOUT_LIKELIHOOD),
    *(("survey", column, "pseudo-likelihood") for column in WITHOUT_LIKELIHOOD),
    *(("prior", column, "does not maximise") for column in ("two", "drop1", "add1", "ranova")),
    *((row, column, "held, tied") for row in ("fixed_sd", "equal", "prior") for column in ("kenward_roger", "vcov_kr")),
    ("prior_mean", "satterthwaite", "coefficients with priors"),
    ("joint", "satterthwaite", "random effects of their own"),
    ("joint", "kenward_roger", "random effects of their own"),
    ("related", "cases", "levels of 'g' are related"),
    ("fixed_x", "anova_1", "held or tied"),
    ("fixed_x", "permutation", "held by fixed="),
    ("pql", "boot", "quasi-likelihood"),
]


@pytest.mark.parametrize(("row", "column", "why"), REFUSED)
def test_refused_with_the_reason(row, column, why):
    with pytest.raises(NotAvailableError, match=why):
        quietly(lambda: ALL[column](fitted(row), row))


@pytest.mark.parametrize(
    ("formula", "options", "why"),
    [
        ("count ~ x + (1 | g)", {"family": "poisson", "method": "pql", "cov": {"g": KINSHIP}}, "relates those of 'g'"),
        ("answer ~ x + (1 | g)", {"family": "binomial", "method": "pql", "randomised_response": FORCED}, "randomised"),
        ("count ~ x + (1 | g)", {"family": "poisson", "sampling_weights": "w", "cov": {"g": KINSHIP}}, "independent"),
        ("y ~ x + rr(0 + k | g, 1)", {"sampling_weights": "w"}, "sampling_weights= does not go .* rr"),
        ("count ~ x + rr(0 + k | g, 1)", {"family": "poisson", "quadrature": 3}, "quadrature=3 does not go .* rr"),
    ],
)
def test_fits_that_would_ignore_something(formula, options, why):
    with pytest.raises(NotAvailableError, match=why):
        rf.fit(formula, DATA, **options)


def test_many_responses_have_no_common_categories():
    with pytest.raises(NotAvailableError, match="categories of its response"):
        rf.fit_many("~ x + (1 | g)", DATA, DATA[["choice", "f"]], family="multinomial")


# ---- right numbers where features meet -------------------------------------------------------------------------------


def test_resampled_rows_keep_weights_and_probabilities():
    """A survey's weights and a randomised response's probabilities move with their rows."""
    d = DATA.assign(p=np.linspace(0.6, 0.9, N))
    survey = design_of(rf.fit("count ~ x + (1 | g)", d, family="poisson", sampling_weights="w"), "test")
    answers = rf.fit("answer ~ x + (1 | g)", d, family="binomial", randomised_response={"p1": "p", "p2": 1.0})
    rows = np.array([5, 3, 40, 40])
    assert_array_equal(resampling.subset(survey, rows, {}).sampling.rows, DATA["w"].to_numpy()[rows])
    assert_array_equal(resampling.subset(design_of(answers, "test"), rows, {}).randomised[1], d["p"].to_numpy()[rows])


def test_leaving_a_group_out_keeps_the_relationship():
    design = design_of(fitted("related"), "test")
    left = resampling.without(design, np.asarray(design.terms[0].codes) != 3).terms[0]
    assert len(left.levels) == GROUPS
    assert left.relation is design.terms[0].relation


def test_ranova_drops_the_relationship_with_its_term():
    table = rf.ranova(fitted("related"))
    alone = rf.fit("y ~ x + f", DATA)
    assert_allclose(table["loglik"][1], alone.loglik, rtol=1e-8)  # the same closed form by two engines


def test_quasi_likelihood_reports_its_dispersion():
    m = fitted("pql")
    table = quietly(lambda: rf.confint(m)).set_index("parameter")
    assert table.loc["sigma", "estimate"] == m.sigma


def test_array_arguments_follow_the_rows():
    """Rows that miss a value go from arrays of weights and probabilities too when submodels are fitted."""
    d = DATA.assign(z=np.where(np.arange(N) < 4, np.nan, DATA["z"]), p=np.linspace(0.6, 0.9, N))
    options = {"family": "binomial", "randomised_response": {"p1": d["p"].to_numpy(), "p2": 1.0}}
    table = rf.drop1(rf.fit("answer ~ x + z + (1 | g)", d, **options))
    named = {"family": "binomial", "randomised_response": {"p1": "p", "p2": 1.0}}
    smaller = rf.fit("answer ~ x + (1 | g)", d.iloc[4:], **named)
    assert_allclose(table["loglik"][2], smaller.loglik, rtol=1e-10)  # the same fit


@pytest.mark.filterwarnings("ignore:tidy. the standard error of sd__:ranef.errors.RanefWarning")
@pytest.mark.parametrize("row", ROWS)
def test_tables_agree_on_the_parameters(row):
    """`confint` and `tidy` have the same estimates, and Wald intervals lie about them."""
    m = fitted(row)
    table = quietly(lambda: rf.confint(m, which="random"))
    tidy = m.tidy("ran_pars", conf_int=True)
    estimate = numbers(table[["estimate"]]).ravel()
    assert_allclose(estimate, numbers(tidy[["estimate"]]).ravel(), rtol=1e-10)  # the same numbers by two routes
    low, high = (numbers(table[[name]]).ravel() for name in ("conf_low", "conf_high"))
    assert all((low < estimate) & (estimate < high) | np.isnan(low))


def test_what_is_held_is_not_tested():
    m = fitted("fixed_x")
    table = rf.anova(m).set_index("term")
    assert np.isnan(table.loc["x", "p_value"])
    assert 0 < table.loc["f", "p_value"] < 1
    assert rf.contrast(m, {"x": 1})[["statistic", "p_value"]].isna().all(axis=None)


def test_terms_of_categories_are_tested_by_category():
    m = fitted("multinomial")
    with pytest.raises(RanefError, match="once for each category: give component=, one of 'B', 'C'"):
        rf.anova(m)
    assert list(rf.anova(m, component="C")["term"]) == ["x", "f"]


def test_terms_of_categories_bear_their_names():
    tie = [("B.x", "C.x"), ("sd(B:g)", "sd(C:g)")]
    m = quietly(lambda: rf.fit("choice ~ x + (1 | g)", DATA, family="multinomial", equal=tie))
    beta = m.coefficients()
    assert beta["B.x"] == beta["C.x"]
    assert m.varcorr()["B:g"].sd == m.varcorr()["C:g"].sd


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("sd(x | g)", "sd(x | g)"),
        ("sd(x|g)", "sd(x | g)"),
        ("sd(1 | g)", "sd((Intercept) | g)"),
        ("cor(g)", "cor((Intercept), x | g)"),
        ("cor(x, (Intercept) | g)", "cor((Intercept), x | g)"),
    ],
)
def test_which_takes_the_names_of_fixed(name, label):
    m = fitted("slopes")
    assert list(rf.confint(m, which=name)["parameter"]) == [label]
    again = rf.fit("y ~ x + f + (x | g)", DATA, method="ml", fixed={name: 0.3})
    assert again.npar == m.npar - 1
