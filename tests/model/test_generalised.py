"""The whole contract of a `Fit` for other than linear models."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import ranef as rf
from ranef.errors import NotAvailableError, OptionError, SeparationWarning

SALAMANDERS = "count ~ spp + mined + (1 | site)"


@pytest.fixture(scope="module")
def salamanders():
    return rf.datasets.load("Salamanders")


@pytest.fixture(scope="module")
def zinb(salamanders):
    return rf.fit(SALAMANDERS, salamanders, family="nbinom2", zero_inflation="~ mined")


@pytest.fixture(scope="module")
def cbpp():
    return rf.fit(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)", rf.datasets.load("cbpp"), family="binomial"
    )


@pytest.fixture(scope="module")
def wine():
    return rf.fit("rating ~ temp + contact + (1 | judge)", rf.datasets.load("wine"), family="cumulative")


def test_defaults(zinb):
    assert (zinb.family, zinb.link, zinb.method) == ("nbinom2", "log", "ml")
    assert str(zinb.spec.parts[0].formula) == "~ 1"


def test_components(zinb):
    assert [c.name for c in zinb.layout.components] == ["mean", "dispersion", "zero_inflation"]
    assert len(zinb.params) == len(zinb.vcov()) == 8
    assert list(zinb.coefficients("zero_inflation").index) == ["(Intercept)", "minedno"]
    assert list(zinb.coefficients().index)[-3:] == [
        "dispersion.(Intercept)", "zero_inflation.(Intercept)", "zero_inflation.minedno",
    ]  # fmt: skip
    assert zinb.vcov("all").shape == (11, 11)
    assert zinb.tidy()["component"].value_counts().to_dict() == {"mean": 8, "zero_inflation": 2, "dispersion": 1}
    with pytest.raises(OptionError, match="zero_inflation"):
        zinb.vcov("zeros")


def test_summary_says_it_by_component(zinb):
    text = zinb.summary()
    for words in (
        "Generalised linear mixed model fit by maximum likelihood (Laplace approximation)", "nbinom2, zero-inflated",
        "Fixed effects (mean, log link)", "Fixed effects (zero inflation, logit link)", "z value", "dispersion (size k",
        "Zero inflation: ~ mined",
    ):  # fmt: skip
        assert words in text
    assert "Residual" not in text
    assert "zero inflation" in zinb._repr_html_()


def test_predictions_belong_together(zinb):
    mu, zero = zinb.predict(type="mean"), zinb.predict(type="zero_inflation")
    assert_allclose(zinb.predict(), (1 - zero) * mu)
    assert_allclose(np.exp(zinb.predict(type="link")), mu)
    assert_allclose(zinb.predict(type="dispersion"), zinb.sigma)
    assert_allclose(zinb.predict(), zinb.fitted())
    with pytest.raises(OptionError, match="nbinom2"):
        zinb.predict(type="nu")


def test_one_new_row_is_the_same_row(zinb, wine, salamanders):
    for kind in ("response", "link", "zero_inflation"):
        assert_allclose(zinb.predict(salamanders.iloc[[5]], type=kind), zinb.predict(type=kind)[5])
    row = rf.datasets.load("wine").iloc[[3]]
    assert_allclose(wine.predict(row, type="probs"), wine.predict(type="probs").iloc[[3]])


def test_intervals_are_made_on_the_link_scale(zinb, cbpp):
    table, link = (cbpp.predict(type=t, interval="confidence") for t in ("response", "link"))
    for end in ("estimate", "conf_low", "conf_high"):
        assert_allclose(table[end], 1 / (1 + np.exp(-link[end])))
    averages = zinb.predict(re="integrate", interval="confidence")
    assert (averages["conf_low"] > 0).all()
    assert (zinb.predict(type="zero_inflation", interval="confidence")["conf_high"] < 1).all()


def test_components_that_play_no_part_need_no_columns(salamanders):
    m = rf.fit("count ~ spp + (1 | site)", salamanders, family="poisson", zero_inflation="~ mined")
    rows = salamanders[["spp", "site"]].head(3)
    assert_allclose(m.predict(rows, type="mean"), m.predict(type="mean")[:3])


def test_averages_over_the_random_effects(cbpp):
    at = pd.DataFrame({"period": ["1", "2"]})
    eta, sd = np.asarray(cbpp.predict(at, re="none", type="link")), cbpp.varcorr()["herd"].sd[0]
    draws = np.random.default_rng(1).normal(scale=sd, size=400_000)
    expected = (1 / (1 + np.exp(-(eta[:, None] + draws)))).mean(axis=1)
    assert_allclose(cbpp.predict(at, re="integrate"), expected, atol=1e-3)  # 4e5 draws of an SD of 0.1


def test_new_levels(cbpp):
    row = pd.DataFrame({"period": ["1"], "herd": ["new"]})
    with pytest.raises(rf.errors.UnseenLevelError):
        cbpp.predict(row)
    population = cbpp.predict(row, new_levels="population", std_error=True)
    assert_allclose(population["estimate"], cbpp.predict(row, re="none"))
    assert cbpp.predict(row, new_levels="sample", seed=1) != cbpp.predict(row, re="none")


def test_residuals(zinb, cbpp, wine):
    assert_allclose(cbpp.residuals(), np.asarray(cbpp.design.y) - cbpp.fitted())
    assert_allclose(np.sum(cbpp.residuals("deviance") ** 2), cbpp.deviance)
    for m in (zinb, cbpp, wine):
        quantile = m.residuals("quantile", seed=3)
        assert_allclose(quantile, m.residuals("quantile", seed=3))
        assert abs(quantile.mean()) < 0.5
        assert 0.5 < quantile.std() < 1.5
    with pytest.raises(NotAvailableError, match="quantile"):
        zinb.residuals("deviance")


def test_simulate_and_refit(zinb, cbpp, wine):
    for m in (zinb, cbpp, wine):
        y = m.simulate(2, seed=4)
        assert_allclose(y, m.simulate(2, seed=4))
        again = m.refit(y[:, 0])
        assert again.converged
        assert again.loglik != m.loglik
    assert set(np.unique(wine.simulate(5, seed=1))) <= {0.0, 1.0, 2.0, 3.0, 4.0}
    assert_allclose(zinb.simulate(40, re="conditional", seed=1).mean(), zinb.fitted().mean(), rtol=0.1)


def test_update(zinb):
    smaller = zinb.update(". ~ . - spp", zero_inflation=None, family="poisson")
    assert smaller.npar == 3
    assert zinb.update(dispersion="~ mined").npar == zinb.npar + 1


@pytest.mark.parametrize("name", ["zinb", "cbpp", "wine"])
def test_pickle_and_slim(name, request):
    m = request.getfixturevalue(name)
    copy = pickle.loads(pickle.dumps(m))
    assert_allclose(copy.vcov("all"), m.vcov("all"))
    # The core is made again and takes one more Newton step from the optimum: 1e-6 of a standard error.
    ours, theirs = (f.predict(type="link", std_error=True)["std_error"] for f in (copy, m))
    assert_allclose(ours, theirs, rtol=1e-5)
    small = pickle.loads(pickle.dumps(m.slim()))
    assert small.summary() == m.summary()
    assert len(pickle.dumps(small)) < 20_000
    group = m.layout.terms[0].label
    assert_allclose(small.ranef(std_error=True)[group].iloc[:, 1:], m.ranef(std_error=True)[group].iloc[:, 1:])
    assert_allclose(small.predict(m.data.head(4)), m.predict()[:4])
    with pytest.raises(NotAvailableError, match="slim"):
        small.predict(m.data.head(4), type="link", std_error=True)


def test_augment(zinb, cbpp, salamanders):
    assert {"fitted", "residual", "population", "std_error"} <= set(cbpp.augment().columns)
    assert "std_error" not in zinb.augment().columns
    new = zinb.augment(salamanders.head(3))
    assert_allclose(new["residual"], zinb.residuals()[:3])


def test_modes_by_component(salamanders):
    m = rf.fit("count ~ mined + (1 | site)", salamanders, family="poisson", zero_inflation="~ 1 + (1 | site)")
    assert list(m.ranef()) == ["site", "zero_inflation:site"] == list(m.coef())
    assert list(m.varcorr()) == ["site", "zero_inflation:site"]
    assert m.tidy("ran_pars")["component"].tolist() == ["mean", "zero_inflation"]
    assert "Random effects (zero inflation)" in m.summary()


def test_a_parameter_held_at_a_value(salamanders):
    m = rf.fit("count ~ mined + (1 | site)", salamanders, family="nbinom2", dispersion=2.0)
    assert m.sigma == pytest.approx(2.0)
    assert m.npar == 3
    assert "held at 2.0" in m.summary()


def test_z_tests(cbpp):
    assert np.isinf(cbpp.ddf).all()
    assert cbpp.tidy(conf_int=True)["p_value"].between(0, 1).all()


def frame(seed=1, n=200):
    rng = np.random.default_rng(seed)
    f = np.array(list("abc"))[rng.integers(0, 3, n)]
    y = np.where(f == "c", 1, rng.integers(0, 2, n))
    wild = rng.binomial(10, rng.beta(0.5, 0.5, n))
    return pd.DataFrame(
        {"y": y, "f": f, "g": rng.integers(0, 10, n), "e": rng.uniform(0, 50, n), "k": rng.poisson(3, n), "b": wild}
    )


def codes(m):
    return {note.code for note in m.messages}


def test_separation_names_the_columns():
    with pytest.warns(SeparationWarning, match="fc"):
        m = rf.fit("y ~ f + (1 | g)", frame(), family="binomial")
    assert m.separation == ("fc",)
    assert "separation" in codes(m)


def test_an_ordinary_fit_is_not_separated(cbpp):
    assert cbpp.separation == ()
    assert "separation" not in codes(cbpp)


def test_an_offset_that_is_no_logarithm_is_noted():
    assert "unlogged_offset" in codes(rf.fit("k ~ f + offset(e) + (1 | g)", frame(), family="poisson"))
    assert "unlogged_offset" not in codes(rf.fit("k ~ f + offset(log(e)) + (1 | g)", frame(), family="poisson"))


def test_overdispersion_is_noted_where_counts_can_tell():
    assert "overdispersion" in codes(rf.fit("cbind(b, 10 - b) ~ f + (1 | g)", frame(), family="binomial"))
    assert "overdispersion" not in codes(rf.fit("k ~ f + (1 | g)", frame(), family="poisson"))


def test_few_binary_rows_a_group_are_noted():
    data = frame().assign(g=np.arange(200) // 3, y=(np.arange(200) // 3) * 7 % 11 > 4 + np.arange(200) % 3)
    assert "small_clusters" in codes(rf.fit("y ~ 1 + (1 | g)", data, family="binomial"))


@pytest.mark.parametrize("kind", ["polars", "pyarrow"])
def test_other_frames(kind):
    m = rf.fit("rating ~ temp + contact + (1 | judge)", rf.datasets.load("wine", kind), family="cumulative")
    assert m.loglik == pytest.approx(-81.5654127767721, abs=1e-6)
    assert type(m.tidy()).__module__.startswith(kind)
