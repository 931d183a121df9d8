"""Counts of categories as a response, cbind(a, b, c), under families of categories without order and with one."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose
from scipy.special import gammaln, logsumexp
from scipy.stats import chi2_contingency, multinomial

import ranef as rf
from ranef.errors import DataError, NotAvailableError, SeparationWarning

ROWS, GROUPS = 48, 8
FORMULA = "cbind(a, b, c) ~ x + (1 | g)"
NAMES = ["a", "b", "c"]
EXACT = {"rtol": 0, "atol": 1e-9}  # the same arithmetic in another order
# Two searches that stop where the deviance changes by less than 1e-9: sqrt(1e-9) standard errors, here of .4 at most.
SEARCH = {"rtol": 0, "atol": 2e-5}


def made(seed=1, sd=0.8):
    rng = np.random.default_rng(seed)
    d = pd.DataFrame({"x": rng.normal(size=ROWS), "g": np.repeat([f"g{k}" for k in range(GROUPS)], ROWS // GROUPS)})
    u = rng.normal(scale=sd, size=(GROUPS, 2)).repeat(ROWS // GROUPS, axis=0)
    z = np.column_stack([np.zeros(ROWS), 0.3 + 0.6 * d["x"] + u[:, 0], -0.5 * d["x"] + u[:, 1]])
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    d[NAMES] = [rng.multinomial(n, row) for n, row in zip(rng.integers(1, 12, ROWS), p, strict=True)]
    return d


@pytest.fixture(scope="module")
def data():
    return made()


@pytest.fixture(scope="module")
def m(data):
    return rf.fit(FORMULA, data, family="multinomial")


def log_orders(y):
    return gammaln(y.sum(axis=1) + 1) - gammaln(y + 1).sum(axis=1)


def single(d):
    """One outcome a row."""
    rows = [d.loc[[i]].assign(kind=k) for k in NAMES for i in d.index.repeat(d[k])]
    return pd.concat(rows).drop(columns=NAMES)


# ---- the likelihood --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"quadrature": 5}, {"method": "reml"}, {"b": "~ 1 + (1 | g)"}])
def test_counts_are_as_many_single_outcomes(data, options):
    counts = rf.fit(FORMULA, data, family="multinomial", **options)
    one = rf.fit("kind ~ x + (1 | g)", single(data), family="multinomial", **options)
    constant = log_orders(data[NAMES].to_numpy()).sum()
    assert counts.loglik == pytest.approx(one.loglik + constant, abs=1e-7)
    assert list(counts.coefficients().index) == list(one.coefficients().index)
    assert_allclose(counts.coefficients(), one.coefficients(), **SEARCH)
    assert_allclose(counts.theta, one.theta, **SEARCH)
    assert_allclose(counts.vcov("all"), one.vcov("all"), rtol=1e-3)  # differences of gradients at two ends of searches
    assert counts.nobs == ROWS
    assert counts.npar == one.npar


def test_likelihood_is_the_integral_over_the_effects_of_every_group(data):
    m = rf.fit(FORMULA, data, family="multinomial", quadrature=15)

    def loglik(beta, sd):
        # 80 nodes of a plain product rule: adding ten changes the 9th digit.
        t, w = np.polynomial.hermite_e.hermegauss(80)
        u = np.stack(np.meshgrid(t * sd[0], t * sd[1], indexing="ij"), axis=-1).reshape(-1, 2)
        log_w = np.log(np.outer(w, w).ravel() / (2 * np.pi))
        total = 0.0
        for _, rows in data.groupby("g"):
            x, y = rows["x"].to_numpy(), rows[NAMES].to_numpy()
            z = np.zeros((len(u), len(x), 3))
            z[..., 1] = beta[0] + beta[1] * x + u[:, :1]
            z[..., 2] = beta[2] + beta[3] * x + u[:, 1:]
            log_p = z - logsumexp(z, axis=2, keepdims=True)
            total += log_orders(y).sum() + logsumexp((log_p * y).sum(axis=(1, 2)) + log_w)
        return total

    beta, sd = np.asarray(m.coefficients()), np.array([part.sd[0] for part in m.varcorr().values()])
    at = loglik(beta, sd)
    assert m.loglik == pytest.approx(at, abs=1e-6)  # 15 adaptive nodes
    for j in range(6):  # and the estimate is its maximum
        step = np.zeros(6)
        step[j] = 0.02
        assert loglik(beta + step[:4], sd + step[4:]) < at
        assert loglik(beta - step[:4], sd - step[4:]) < at


def test_two_categories_are_a_binomial_model(data):
    m = rf.fit("cbind(a, b) ~ x + (1 | g)", data, family="multinomial")
    b = rf.fit("cbind(b, a) ~ x + (1 | g)", data, family="binomial")
    assert m.loglik == pytest.approx(b.loglik, abs=1e-8)
    assert_allclose(m.coefficients(), b.params, **SEARCH)
    assert (m.aic, m.bic, m.aicc, m.df_residual) == pytest.approx((b.aic, b.bic, b.aicc, b.df_residual), abs=1e-7)
    assert m.varcorr()["b:g"].sd[0] == pytest.approx(b.varcorr()["g"].sd[0], abs=2e-5)
    assert_allclose(m.fitted()[:, 1], b.fitted(), **SEARCH)
    some = data[["a", "b"]].sum(axis=1) > 0
    for kind in ("response", "pearson"):
        assert_allclose(m.residuals(kind)[some, 1], b.residuals(kind)[some], atol=1e-4)  # of residuals up to 3
    assert m.deviance == pytest.approx(b.deviance, abs=1e-4)
    squares = (m.residuals("deviance") ** 2).sum(axis=1)
    assert_allclose(squares, b.residuals("deviance") ** 2, atol=1e-4)


def test_density_without_effects_is_that_of_the_multinomial_distribution(data):
    m = rf.fit("cbind(a, b, c) ~ x", data, family="multinomial")
    y = data[NAMES].to_numpy()
    assert m.loglik == pytest.approx(multinomial.logpmf(y, y.sum(axis=1), m.fitted()).sum(), abs=1e-9)
    mean = rf.fit("cbind(a, b, c) ~ 1", data, family="multinomial").fitted()
    assert_allclose(mean, np.tile(y.sum(axis=0) / y.sum(), (ROWS, 1)), atol=1e-8)  # the gradient is below 1e-6


def test_order_of_columns_is_a_choice_of_the_reference(data, m):
    other = rf.fit("cbind(c, a, b) ~ x", data, family="multinomial")
    plain = rf.fit("cbind(a, b, c) ~ x", data, family="multinomial")
    assert other.loglik == pytest.approx(plain.loglik, abs=1e-9)
    assert_allclose(other.fitted()[:, [1, 2, 0]], plain.fitted(), atol=1e-7)
    assert other.coefficients()["a.x"] == pytest.approx(-plain.coefficients()["c.x"], abs=1e-6)
    assert m.spec.categories == ("a", "b", "c")


def test_frequency_weights_repeat_rows_of_counts(data):
    often = data.assign(w=np.arange(ROWS) % 3)
    m = rf.fit(FORMULA, often, family="multinomial", frequency_weights="w")
    r = rf.fit(FORMULA, often.loc[often.index.repeat(often["w"])], family="multinomial")
    assert m.loglik == pytest.approx(r.loglik, abs=1e-8)
    assert m.bic == pytest.approx(r.bic, abs=1e-8)
    assert_allclose(m.coefficients(), r.coefficients(), **SEARCH)


def test_offsets_belong_to_the_log_odds(data):
    shifted = data.assign(o=0.7 * data["x"])
    m = rf.fit("cbind(a, b, c) ~ x + offset(o)", shifted, family="multinomial")
    plain = rf.fit("cbind(a, b, c) ~ x", data, family="multinomial")
    assert m.coefficients()["b.x"] == pytest.approx(plain.coefficients()["b.x"] - 0.7, abs=1e-6)
    assert m.loglik == pytest.approx(plain.loglik, abs=1e-9)


# ---- rows ------------------------------------------------------------------------------------------------------------


def test_rows_without_outcomes_say_nothing(data, m):
    empty = pd.DataFrame({"x": [0.5, -1.0], "g": ["g0", "new"], "a": 0, "b": 0, "c": 0})
    more = rf.fit(FORMULA, pd.concat([data, empty], ignore_index=True), family="multinomial")
    assert more.loglik == pytest.approx(m.loglik, abs=1e-9)
    assert more.nobs == ROWS + 2
    assert_allclose(more.coefficients(), m.coefficients(), **SEARCH)
    assert_allclose(more.ranef()["b:g"].set_index("level").loc["new"], 0.0, atol=1e-12)
    assert_allclose(more.fitted()[-2:].sum(axis=1), 1.0)
    assert np.isnan(more.residuals("pearson")[-2:]).all()
    assert (more.residuals("deviance")[-2:] == 0).all()
    assert (more.simulate(3, seed=1)[-2:] == 0).all()


def test_rows_with_a_missing_count_are_dropped_and_named(data):
    holes = data.astype({"b": "Int64"})
    holes.loc[[2, 5], "b"] = pd.NA
    m = rf.fit(FORMULA, holes, family="multinomial")
    assert dict(m.layout.dropped) == {"b": 2}
    r = rf.fit(FORMULA, data.drop([2, 5]), family="multinomial")
    assert m.loglik == pytest.approx(r.loglik, abs=1e-9)
    wide = m.fitted(align="input")
    assert wide.shape == (ROWS, 3)
    assert np.isnan(wide[[2, 5]]).all()
    assert np.isfinite(np.delete(wide, [2, 5], axis=0)).all()
    assert m.residuals(align="input").shape == (ROWS, 3)
    with pytest.raises(DataError, match=r"'b' \(2 rows\)"):
        rf.fit(FORMULA, holes, family="multinomial", missing="raise")


@pytest.mark.parametrize("kind", ["int8", "float64", "Int64", "polars", "dict"])
def test_columns_of_any_type(data, m, kind):
    if kind == "polars":
        given = pl.DataFrame({name: data[name].to_numpy() for name in data})
    elif kind == "dict":
        given = {name: data[name].to_numpy() for name in data}
    else:
        given = data.astype(dict.fromkeys(NAMES, kind))
    found = rf.fit(FORMULA, given, family="categorical")
    assert found.loglik == pytest.approx(m.loglik, abs=1e-12)
    assert list(found.predict(given, type="probs").columns if kind != "dict" else NAMES) == NAMES


def test_columns_are_expressions_and_may_have_names(data):
    m = rf.fit("cbind(no = a, yes = b + c) ~ x", data, family="multinomial")
    assert m.spec.categories == ("no", "yes")
    assert rf.fit("cbind(a, b + c) ~ x", data, family="multinomial").spec.categories == ("a", "b + c")
    b = rf.fit("cbind(b + c, a) ~ x", data, family="binomial")
    assert m.loglik == pytest.approx(b.loglik, abs=1e-9)


# ---- after the fit ---------------------------------------------------------------------------------------------------


def test_predictions_have_a_row_for_every_row(data, m):
    p = m.predict(type="probs")
    assert list(p.columns) == NAMES
    assert_allclose(p, m.fitted(), **EXACT)
    assert_allclose(m.predict(data), p, **EXACT)
    assert_allclose(m.predict(data.drop(columns=NAMES)), p, **EXACT)
    new = m.predict(pd.DataFrame({"x": [0.0, 1.0]}), re="none", interval="confidence")
    odds = np.log(new[["b", "c"]].to_numpy() / new[["a"]].to_numpy())
    beta = m.coefficients()
    at_zero, slope = (np.array([beta[f"{k}.{name}"] for k in ("b", "c")]) for name in ("(Intercept)", "x"))
    assert_allclose(odds, [at_zero, at_zero + slope], **EXACT)
    assert set(m.predict(type="class")) <= set(NAMES)


def test_predictions_and_their_errors_are_those_of_single_outcomes(data, m):
    one = rf.fit("kind ~ x + (1 | g)", single(data), family="multinomial")
    a, b = (fit.predict(data, interval="confidence") for fit in (m, one))
    assert list(a.columns) == list(b.columns)
    assert_allclose(a, b, atol=2e-5)  # as the coefficients of two searches


def test_residuals(data, m):
    y, p = data[NAMES].to_numpy(), m.fitted()
    n = y.sum(axis=1, keepdims=True)
    assert_allclose(m.residuals(), y / n - p, **EXACT)
    assert_allclose(m.residuals("pearson"), (y - n * p) / np.sqrt(n * p * (1 - p)), **EXACT)
    saturated = multinomial.logpmf(y, n[:, 0], y / n) - multinomial.logpmf(y, n[:, 0], p)
    assert_allclose((m.residuals("deviance") ** 2).sum(axis=1), 2 * saturated, atol=1e-8)  # differences of logarithms
    assert_allclose(np.sign(m.residuals("deviance")), np.sign(y - n * p))
    for kind in ("quantile", "working"):
        with pytest.raises(NotAvailableError, match=f"no {kind} ones"):
            m.residuals(kind)


def test_simulated_counts_have_the_totals_and_means_of_the_fit(data, m):
    y = m.simulate(4000, re="conditional", seed=2)
    assert y.shape == (ROWS, 4000, 3)
    n = data[NAMES].sum(axis=1).to_numpy()
    assert (y.sum(axis=2) == n[:, None]).all()
    p = m.fitted()
    error = np.sqrt(n[:, None] * p * (1 - p) / 4000)
    assert np.abs((y.mean(axis=1) - n[:, None] * p) / error).max() < 4.5  # the largest of 144 normal ones, 1 in 1,000
    assert_allclose(y, m.simulate(4000, re="conditional", seed=2))


def test_refit_and_what_is_refused(data, m):
    y = m.simulate(1, seed=4)[:, 0]
    again = m.refit(y)
    direct = rf.fit(FORMULA, data.assign(**dict(zip(NAMES, y.T, strict=True))), family="multinomial")
    assert again.loglik == pytest.approx(direct.loglik, abs=1e-9)
    assert m.refit(data[["c", "b", "a"]]).loglik == pytest.approx(m.loglik, abs=1e-9)  # columns by their names
    assert m.refit({name: data[name].tolist() for name in NAMES}).loglik == pytest.approx(m.loglik, abs=1e-9)
    for bad, why in (
        (y[:, :2], "counts of a, b, c"),
        (y[:5], "shape"),
        (-y, r"negative \(a\)"),
        (y + 0.5, r"not whole \(a\)"),
        (np.where(y > 3, np.nan, y), "missing"),
        (["a"] * ROWS, "a column for each"),
    ):
        with pytest.raises(DataError, match=why):
            m.refit(bad)
    without = m.refit(y * [1, 1, 0])  # as what is simulated may be: its probability is 0
    assert np.asarray(without.predict(type="probs"))[:, 2].max() < 1e-3
    assert {"c.(Intercept)"} <= set(without.separation)


def test_bootstrap_update_pickle_slim_and_comparison(m):
    boot = rf.bootstrap(m, n=6, seed=1)
    assert not boot.failures
    assert np.isfinite(boot.values).all()
    assert not rf.bootstrap(m, n=4, seed=1, kind="cases").failures
    small = m.update(". ~ . - x")
    test = rf.anova(m, small)
    assert test["chisq"][1] == pytest.approx(2 * (m.loglik - small.loglik))
    assert not rf.pb_test(m, small, n=5, seed=1).failures
    back = pickle.loads(pickle.dumps(m))
    assert_allclose(back.predict(interval="confidence"), m.predict(interval="confidence"))
    assert m.slim().summary() == m.summary()
    columns = [c for c in m.augment() if c.startswith(("fitted", "residual"))]
    assert columns == [f"{what}__{name}" for what in ("fitted", "residual") for name in NAMES]


def test_figures_of_the_likelihood_are_those_of_single_outcomes(data, m):
    one = rf.fit("kind ~ x + (1 | g)", single(data), family="multinomial")
    for of in (lambda f: rf.laplace_check(f).gap, lambda f: rf.robust(f, cluster="g")["std_error"].to_numpy(),
               lambda f: rf.confint(f, method="profile")[["conf_low", "conf_high"]].to_numpy()):  # fmt: skip
        assert_allclose(of(m), of(one), atol=2e-4)  # ends of profiles are found to 1e-4
    held = {"fixed": {"b.x": 0.5}, "prior": {"fixed": "normal(0, 2)"}}
    for name, value in held.items():
        a = rf.fit(FORMULA, data, family="multinomial", **{name: value})
        b = rf.fit("kind ~ x + (1 | g)", single(data), family="multinomial", **{name: value})
        constant = log_orders(data[NAMES].to_numpy()).sum()
        assert a.loglik == pytest.approx(b.loglik + constant, abs=1e-6)
        assert a.criterion == pytest.approx(b.criterion - 2 * constant, abs=1e-6)


def test_contributions_add_up(data, m):
    from ranef.criteria.contributions import contributions

    assert contributions(m, data["g"].str[1:].to_numpy(int)).sum() == pytest.approx(m.loglik, abs=1e-7)
    plain = rf.fit("cbind(a, b, c) ~ x", data, family="multinomial")
    assert contributions(plain, np.arange(ROWS)).sum() == pytest.approx(plain.loglik, abs=1e-7)


def test_summary_says_what_is_counted(data, m):
    total = data[NAMES].to_numpy().sum()
    assert f"log odds of b and c against a; counts of 3 categories, {total} in all" in m.summary()
    assert f"Number of obs: {ROWS}" in m.summary()


def test_separated_counts_are_told(data):
    apart = data.assign(f=np.where(data["x"] > 0, "high", "low"), c=data["c"].where(data["x"] > 0, 0))
    with pytest.warns(SeparationWarning, match=r"c\.flow"):
        m = rf.fit("cbind(a, b, c) ~ f", apart, family="multinomial")
    assert "c.flow" in m.separation


# ---- ordered categories ----------------------------------------------------------------------------------------------


ORDERED = [
    ("cumulative", {}),
    ("cumulative", {"link": "probit", "nominal": "~ f", "scale": "~ x"}),
    ("cumulative", {"threshold": "equidistant", "quadrature": 5}),
    ("sratio", {}),
    ("cratio", {"link": "cloglog"}),
    ("acat", {}),
]


@pytest.mark.parametrize(("family", "options"), ORDERED)
def test_ordered_counts_are_as_many_single_outcomes(data, family, options):
    data = data.assign(f=np.arange(ROWS) % 2)
    m = rf.fit(FORMULA, data, family=family, **options)
    one = single(data).assign(kind=lambda d: pd.Categorical(d["kind"], NAMES, ordered=True))
    o = rf.fit("kind ~ x + (1 | g)", one, family=family, **options)
    assert m.loglik == pytest.approx(o.loglik + log_orders(data[NAMES].to_numpy()).sum(), abs=1e-7)
    assert list(m.coefficients().index) == list(o.coefficients().index)
    assert_allclose(
        m.coefficients(), o.coefficients(), atol=1e-4
    )  # as above, with errors of 1 beside scale and nominal
    assert_allclose(m.theta, o.theta, **SEARCH)
    assert_allclose(m.fitted(), o.predict(data, type="probs"), **SEARCH)
    assert_allclose(m.predict(), o.predict(data), **SEARCH)  # the mean number of the category
    errors = (fit.predict(data, type="probs", std_error=True) for fit in (m, o))
    assert_allclose(*errors, atol=1e-4)


def test_ordered_counts_after_the_fit(data):
    from ranef.criteria.contributions import contributions

    m = rf.fit(FORMULA, data, family="cumulative")
    assert m.simulate(2, seed=1).shape == (ROWS, 2, 3)
    assert m.residuals("pearson").shape == (ROWS, 3)
    assert not rf.bootstrap(m, n=4, seed=1).failures
    small = m.update(". ~ . - x")
    assert not rf.pb_test(m, small, n=4, seed=1).failures
    assert rf.drop1(m)["chisq"][1] == pytest.approx(2 * (m.loglik - small.loglik), abs=1e-6)
    assert m.refit(data[NAMES]).loglik == pytest.approx(m.loglik, abs=1e-12)
    assert_allclose(pickle.loads(pickle.dumps(m)).predict(interval="confidence"), m.predict(interval="confidence"))
    assert contributions(m, data["g"].str[1:].to_numpy(int)).sum() == pytest.approx(m.loglik, abs=1e-7)
    assert "a < b < c; counts of 3 categories" in m.summary()
    assert rf.overdispersion(m)["df"][0] == 2 * ROWS - m.npar
    for ask in (lambda: m.predict(interval="prediction"), lambda: m.residuals("quantile")):
        with pytest.raises(NotAvailableError, match="counts of categories"):
            ask()


# ---- dispersion ------------------------------------------------------------------------------------------------------


def test_dispersion_of_one_mean_is_that_of_a_contingency_table(data):
    m = rf.fit("cbind(a, b, c) ~ 1", data, family="multinomial")
    found = rf.overdispersion(m)
    table = data[NAMES].to_numpy()
    for k, law in enumerate((None, "log-likelihood")):
        ref = chi2_contingency(table, correction=False, lambda_=law)
        assert found["df"][k] == ref.dof == m.df_residual
        assert found["statistic"][k] == pytest.approx(ref.statistic, rel=1e-6)  # a search that ends at 1e-9
        assert found["p_value"][k] == pytest.approx(ref.pvalue, rel=1e-4)
    wide = rf.quasi_table(m, ratio=4.0)
    assert_allclose(wide["std_error"], 2 * np.sqrt(np.diag(m.vcov("all"))), rtol=1e-12)
    assert list(wide["term"]) == ["b.(Intercept)", "c.(Intercept)"]


def test_dispersion_is_noted_where_rows_vary_and_not_where_they_have_effects():
    d = made(seed=3, sd=0.0)
    rng = np.random.default_rng(3)
    p = rng.dirichlet([1.0, 2.0, 2.0], ROWS)
    d[NAMES] = [rng.multinomial(30, row) for row in p]
    d["row"] = np.arange(ROWS)
    plain = rf.fit("cbind(a, b, c) ~ x", d, family="multinomial")
    assert "overdispersion" in [note.code for note in plain.messages]
    rows = rf.fit("cbind(a, b, c) ~ x + (1 | row)", d, family="multinomial")
    assert "overdispersion" not in [note.code for note in rows.messages]
    assert rows.loglik > plain.loglik + 50


def test_single_outcomes_show_no_dispersion(data):
    one = data.assign(a=1, b=0, c=0)
    one.loc[10:30, NAMES] = [0, 1, 0]
    one.loc[31:, NAMES] = [0, 0, 1]
    m = rf.fit("cbind(a, b, c) ~ 1", one, family="multinomial")
    with pytest.raises(NotAvailableError, match="two or more"):
        rf.overdispersion(m)


def test_saturated_models_have_no_dispersion_and_a_summary(data):
    d = data.groupby("g", as_index=False)[NAMES].sum()
    m = rf.fit("cbind(a, b, c) ~ g", d, family="multinomial")
    assert m.df_residual == 0
    assert m.deviance == pytest.approx(0, abs=1e-6)
    assert "df.resid" in m.summary()
    with pytest.raises(NotAvailableError, match="parameter for every response"):
        rf.overdispersion(m)


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "change", "why"),
    [
        (FORMULA, {"b": lambda d: d["b"] - 1}, r"negative \(b\).*row"),
        (FORMULA, {"c": lambda d: d["c"] + 0.5}, r"not whole \(c\).*rows 0, 1"),
        (FORMULA, {"b": 0}, "no counts of 'b'"),
        ("cbind(a) ~ x", {}, "two or more categories"),
        ("cbind(a, a) ~ x", {}, "a name of its own"),
    ],
)
def test_illegal_counts(data, formula, change, why):
    with pytest.raises(DataError, match=why):
        rf.fit(formula, data.assign(**change), family="multinomial")


def test_weights_of_a_survey_need_single_outcomes(data):
    with pytest.raises(NotAvailableError, match="one outcome a row"):
        rf.fit(FORMULA, data.assign(w=1.0), family="multinomial", sampling_weights="w")
