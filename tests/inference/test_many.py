"""Many responses at once."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest

import ranef as rf
from engines import zoo
from ranef.errors import ArgumentError, DataError, NotAvailableError

FORMULA = "~ x + (x | g)"


@pytest.fixture(scope="module")
def responses():
    y = zoo.data()["y"].to_numpy()
    rng = np.random.default_rng(6)
    return np.column_stack([y, y + rng.normal(size=len(y)), 2 * y, rng.normal(size=len(y))])


def test_equal_to_single_fits(responses):
    many = rf.fit_many(FORMULA, zoo.data(), responses, method="ml")
    assert (len(many), many.failed, repr(many)) == (4, 0, "ManyFits: 4 responses, 0 failed")
    tidy, sds, glance = many.tidy(), many.ran_pars(), many.glance()
    assert list(tidy["term"]) == ["(Intercept)", "x"] * 4
    for j, name in enumerate(many.responses):
        one = rf.fit("y ~ x + (x | g)", zoo.data().assign(y=responses[:, j]), method="ml")
        mine = tidy[tidy["response"] == name]
        # Both stop within 1e-9 of the optimum's criterion, that is about 1e-5 in theta.
        assert glance["criterion"][j] == pytest.approx(one.criterion, abs=1e-6)
        np.testing.assert_allclose(mine["estimate"], one.params, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(mine["std_error"], np.sqrt(np.diag(one.vcov())), rtol=1e-3)
        np.testing.assert_allclose(sds.loc[j, ["sd((Intercept) | g)", "sd(x | g)"]], one.varcorr()["g"].sd, atol=2e-3)
        assert sds["sigma"][j] == pytest.approx(one.sigma, rel=1e-4)


def test_failures_are_counted_and_named(responses):
    broken = responses.copy()
    broken[3, 1], broken[:, 2] = np.inf, 7.0
    many = rf.fit_many(FORMULA, zoo.data(), pd.DataFrame(broken, columns=list("abcd")))
    assert many.failures == {"b": "infinite values", "c": "constant response"}
    assert many.failed == 2
    glance = many.glance()
    assert list(glance["converged"]) == [True, False, False, True]
    assert glance["criterion"].isna().tolist() == [False, True, True, False]
    assert many.tidy()["estimate"].isna().sum() == 4
    assert glance["failure"].isna().tolist() == [True, False, False, True]


def test_each_response_leaves_out_its_own_missing_rows(responses):
    gaps = responses.copy()
    gaps[[3, 17], 1] = gaps[5, 2] = gaps[5, 3] = np.nan
    formula, data = "~ poly(x, 2) + (x | g)", zoo.data().assign(x=zoo.data()["x"].where(np.arange(60) != 9))
    many = rf.fit_many(formula, data, gaps)
    assert many.glance()["nobs"].tolist() == [59, 57, 58, 58]
    for j, name in enumerate(many.responses):
        one = rf.fit("y ~ poly(x, 2) + (x | g)", data.assign(y=gaps[:, j]))
        mine = many.tidy()[many.tidy()["response"] == name]
        # Both stop within 1e-9 of the optimum's criterion, that is about 1e-5 in theta.
        assert many.glance()["criterion"][j] == pytest.approx(one.criterion, abs=1e-6)
        np.testing.assert_allclose(mine["estimate"], one.params, rtol=1e-4, atol=1e-5)
    raised = rf.fit_many(formula, data.drop(index=9), np.delete(gaps, 9, axis=0), missing="raise")
    assert raised.failures == dict.fromkeys(("y2", "y3", "y4"), "missing or infinite values")


def test_a_response_without_rows_for_a_level_is_named(responses):
    data, gaps = zoo.data(), responses[:, :2].copy()
    gaps[(data["g"] == data["g"].iloc[0]).to_numpy(), 1] = np.nan
    many = rf.fit_many("~ x + g", data, gaps)
    assert "levels" in many.failures["y2"]
    assert not rf.fit_many("~ x + (1 | g)", data, gaps).failures  # one level less of a grouping factor is no matter


def test_all_fail():
    many = rf.fit_many(FORMULA, zoo.data(), np.full((60, 2), np.nan))
    assert many.failures == dict.fromkeys(("y1", "y2"), "missing in all rows")
    assert many.ran_pars()["sigma"].isna().all()


def test_frames_in_and_out(responses):
    data, y = pl.from_pandas(zoo.data()), pl.DataFrame(responses, schema=list("abcd"))
    many = rf.fit_many(FORMULA, data, y)
    assert many.responses == ("a", "b", "c", "d")
    assert {type(many.tidy()), type(many.glance()), type(many.ran_pars())} == {pl.DataFrame}
    as_dict = rf.fit_many(FORMULA, data, {name: y[name].to_numpy() for name in y.columns})
    np.testing.assert_allclose(as_dict.tidy()["estimate"], many.tidy()["estimate"])


def test_the_left_side_is_not_looked_at_and_rows_are_dropped(responses):
    data = zoo.data().drop(columns="y").copy()
    data.loc[4, "x"] = np.nan
    many = rf.fit_many("y ~ x + (1 | g)", data, responses)
    one = rf.fit("y ~ x + (1 | g)", data.assign(y=responses[:, 0]))
    assert many.estimates[0].n == one.nobs == 59
    assert many.glance()["criterion"][0] == pytest.approx(one.criterion, abs=1e-7)


def test_weights_and_offset(responses):
    arguments = {"precision_weights": "w", "offset": "z"}
    many = rf.fit_many("~ x + (1 | g)", zoo.data(), responses, **arguments)
    one = rf.fit("y ~ x + (1 | g)", zoo.data(), **arguments)
    assert many.glance()["criterion"][0] == pytest.approx(one.criterion, abs=1e-7)


@pytest.mark.parametrize(
    ("y", "arguments", "error", "says"),
    [
        (np.zeros((7, 2)), {}, DataError, r"\(7, 2\); the data have 60 rows"),
        (np.zeros((60, 2)), {"weights": "w"}, ArgumentError, "precision_weights"),
        (np.zeros((60, 2)), {"metod": "ml"}, ArgumentError, "did you mean 'method'"),
    ],
)
def test_refuses(y, arguments, error, says):
    with pytest.raises(error, match=says):
        rf.fit_many(FORMULA, zoo.data(), y, **arguments)


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow", "dict"])
def test_what_fits_again_after_a_refit_sees_the_new_response(kind):
    sleepstudy = rf.datasets.load("sleepstudy")
    data = rf.datasets.load("sleepstudy", "pandas" if kind == "dict" else kind)
    if kind == "dict":
        data = {name: data[name].to_numpy() for name in data.columns}
    m = rf.fit("Reaction ~ Days + (1 | Subject)", data)
    y = m.simulate(1, seed=1)[:, 0]
    fresh = rf.fit("Reaction ~ Days + (1 | Subject)", sleepstudy.assign(Reaction=y))
    again = m.refit(y)
    assert np.allclose(again.update(method="ml").estimate.beta, fresh.update(method="ml").estimate.beta, rtol=1e-10)
    small = rf.fit("Reaction ~ 1 + (1 | Subject)", data).refit(y)
    tested = rf.anova(small, again)
    expected = rf.anova(fresh.update(". ~ . - Days"), fresh)
    assert str(tested).split("\n")[2:4] == str(expected).split("\n")[2:4]


@pytest.mark.parametrize("family", ["cumulative", "multinomial"])
def test_a_refit_takes_labels_of_categories(family):
    arthritis = rf.datasets.load("arthritis").dropna()
    m = rf.fit("y ~ age", arthritis, family=family)
    numbers = m.simulate(1, seed=4)[:, 0]
    labels = np.array(m.design.categories)[numbers.astype(int)]
    expected = m.refit(numbers).loglik
    assert labels.dtype.kind in "iu"  # whole numbers are labels where labels are
    for y in (labels, labels.astype(str), pd.Categorical(labels), pl.Series(labels)):
        assert m.refit(y).loglik == expected
    texts = rf.fit("y ~ age", arthritis.assign(y="c" + arthritis["y"].astype(str)), family="multinomial")
    assert texts.refit(numbers.astype(int)).loglik == texts.refit(np.char.add("c", labels.astype(str))).loglik
    with pytest.raises(DataError, match="'9' is no category"):
        m.refit(np.where(labels == labels[0], "9", labels.astype(str)))
    with pytest.raises(DataError, match="missing"):
        m.refit(np.where(labels == labels[0], None, labels.astype(str)))


def test_a_refit_takes_a_factor_of_two_levels():
    contraception = rf.datasets.load("Contraception")
    m = rf.fit("use ~ age", contraception, family="binomial")
    assert m.refit(contraception["use"]).loglik == m.loglik
    assert m.refit(contraception["use"] == "Y").loglik == m.loglik


def test_a_refit_to_a_response_that_is_no_column_keeps_no_data():
    sleepstudy = rf.datasets.load("sleepstudy")
    m = rf.fit("log(Reaction) ~ Days + (1 | Subject)", sleepstudy)
    again = m.refit(m.simulate(1, seed=1)[:, 0])
    with pytest.raises(NotAvailableError, match="no column"):
        again.update(method="ml")


@pytest.mark.parametrize("bad", ["y", ["a", "b"], object(), np.ones(180) + 1j])
def test_responses_that_are_no_numbers_are_told(bad):
    data = rf.datasets.load("sleepstudy")
    m = rf.fit("Reaction ~ Days + (1 | Subject)", data)
    with pytest.raises(DataError, match="refit: y is an array of numbers"):
        m.refit(bad)
    with pytest.raises(DataError, match="fit_many"):
        rf.fit_many("~ Days + (1 | Subject)", data, bad)
