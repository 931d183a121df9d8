"""A fit is a value: it pickles, copies, slims, refits and updates without looking anything up."""

from __future__ import annotations

import copy
import io
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.errors import DataError, NotAvailableError, UnknownColumnError

FORMULA = "Reaction ~ poly(Days, 2) + (Days | Subject)"


def through_joblib(m):
    buffer = io.BytesIO()
    joblib.dump(m, buffer)
    buffer.seek(0)
    return joblib.load(buffer)


ROUND_TRIPS = {
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "joblib": through_joblib,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "slim": lambda m: m.slim(),
    "slim_pickle": lambda m: pickle.loads(pickle.dumps(m.slim())),
}


@pytest.fixture(scope="module")
def sleepstudy():
    return rf.datasets.load("sleepstudy")


@pytest.fixture(scope="module")
def m(sleepstudy):
    return rf.fit(FORMULA, sleepstudy)


@pytest.mark.parametrize("trip", ROUND_TRIPS.values(), ids=ROUND_TRIPS)
def test_round_trips_answer_alike(m, sleepstudy, trip):
    other = trip(m)
    new = sleepstudy.iloc[[3, 77]].assign(Subject=["308", "new"])
    assert str(other.summary()) == str(m.summary())
    options = {"new_levels": "population", "interval": "prediction"}
    pd.testing.assert_frame_equal(other.predict(new, **options), m.predict(new, **options), rtol=1e-9)
    effects = ["fixed", "ran_pars", "ran_vals"]
    pd.testing.assert_frame_equal(other.tidy(effects, conf_int=True), m.tidy(effects, conf_int=True), rtol=1e-8)
    assert other.messages == m.messages


@pytest.mark.parametrize("name", ["pickle", "joblib", "copy", "deepcopy"])
def test_full_round_trips_keep_the_rows(m, name):
    other = ROUND_TRIPS[name](m)
    np.testing.assert_allclose(other.fitted(), m.fitted())
    np.testing.assert_allclose(other.simulate(1, seed=4), m.simulate(1, seed=4))
    assert other.refit(m.design.y + 1).criterion == pytest.approx(m.criterion, abs=1e-6)
    assert other.update(". ~ . - poly(Days, 2)").nobs == 180


def many_rows(n):
    rng = np.random.default_rng(1)
    g, x = rng.integers(0, 20, n), rng.normal(size=n)
    return {"y": x + rng.normal(size=20)[g] + rng.normal(size=n), "x": x, "g": g}


def test_slim_size_does_not_depend_on_the_rows():
    sizes = [len(pickle.dumps(rf.fit("y ~ x + (x | g)", many_rows(n)).slim())) for n in (2_000, 40_000)]
    assert abs(sizes[1] - sizes[0]) < 600  # one of them has a note on its boundary; a byte a row would be 38,000
    assert sizes[1] < 30_000


@pytest.mark.parametrize(
    "ask",
    [
        lambda m: m.fitted(),
        lambda m: m.residuals(),
        lambda m: m.simulate(),
        lambda m: m.predict(),
        lambda m: m.augment(),
        lambda m: m.refit(np.zeros(180)),
        lambda m: m.update(". ~ ."),
        rf.all_fit,
    ],
)
def test_slim_says_what_it_cannot_do(m, ask):
    with pytest.raises(NotAvailableError, match="slim"):
        ask(m.slim())


def test_slim_twice_and_update_with_data(m, sleepstudy):
    assert m.slim().slim().messages == m.messages
    assert m.slim().update(". ~ .", data=sleepstudy).criterion == pytest.approx(m.criterion)


def test_refit(m, sleepstudy):
    y = m.simulate(1, re="new", seed=2)[:, 0]
    again = m.refit(y)
    fresh = rf.fit(FORMULA, sleepstudy.assign(Reaction=y))
    assert again.criterion == pytest.approx(fresh.criterion, abs=1e-7)
    np.testing.assert_allclose(again.predict(sleepstudy), fresh.predict(sleepstudy), rtol=1e-5)
    assert m.criterion == pytest.approx(rf.fit(FORMULA, sleepstudy).criterion)  # m itself did not change


def test_refit_takes_rows_used_or_rows_given(sleepstudy):
    holes = sleepstudy.astype({"Reaction": float}).copy()
    holes.loc[[3, 50], "Reaction"] = np.nan
    m = rf.fit("Reaction ~ Days + (1 | Subject)", holes)
    given = sleepstudy["Reaction"].to_numpy()
    used = np.delete(given, [3, 50])
    assert m.refit(given).criterion == pytest.approx(m.criterion, abs=1e-8)
    assert m.refit(used).criterion == pytest.approx(m.criterion, abs=1e-8)


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (np.zeros(7), "shape"),
        (np.zeros((180, 2)), "shape"),
        (np.full(180, np.nan), "missing"),
        (np.ones(180), "constant"),
    ],
)
def test_refit_refuses(m, y, says):
    with pytest.raises(DataError, match=says):
        m.refit(y)


def test_update(m, sleepstudy):
    smaller = m.update(". ~ . - (Days | Subject) + (1 | Subject)", method="ml")
    assert str(smaller.formula) == "Reaction ~ poly(Days, 2) + (1 | Subject)"
    assert smaller.method == "ml"
    half = m.update(data=sleepstudy.head(90))
    assert (half.nobs, half.method) == (90, "reml")


def test_update_keeps_arguments():
    data = many_rows(400)
    m = rf.fit("y ~ x + (1 | g)", data, precision_weights=np.linspace(1, 2, 400), method="ml", control={"threads": 1})
    assert m.update(". ~ .").criterion == pytest.approx(m.criterion, abs=1e-9)
    assert m.update(method="reml").call.control.threads == 1


def test_update_forgets_what_belongs_to_terms_that_left():
    data = many_rows(400)
    data["f"] = np.where(np.asarray(data["x"]) > 0, "a", "b")
    sums = {"f": "sum"}
    m = rf.fit("y ~ x + f + (x | g)", data, contrasts=sums, control={"start": [1.0, 0.0, 1.0]})
    assert m.update(". ~ . - f").criterion == rf.fit("y ~ x + (x | g)", data).criterion
    assert m.update(". ~ . - (x | g) + (1 | g)").call.contrasts == sums
    assert m.update(method="ml").call.control.start == (1.0, 0.0, 1.0)
    with pytest.raises(UnknownColumnError, match="factor 'f'"):
        m.update(". ~ . - f", contrasts=sums)


def test_refits_without_a_column_say_so(m):
    scaled = m.update("scale(.) ~ .")
    again = scaled.refit(np.asarray(scaled.fitted()) + np.linspace(0, 1, scaled.nobs))
    with pytest.raises(NotAvailableError, match="no column of the data"):
        again.augment()


def test_a_fit_owns_its_names():
    def fit_inside():
        local = rf.datasets.load("sleepstudy")
        return rf.fit("Reaction ~ Days + twice(Days) + (1 | Subject)", local, env={"twice": lambda v: v**2})

    m = fit_inside()
    assert m.update(". ~ . - Days").nobs == 180
    assert m.predict(m.data.head(1))[0] == m.fitted()[0]


def test_user_data_are_left_alone(sleepstudy):
    before = sleepstudy.copy()
    m = rf.fit(FORMULA, sleepstudy)
    m.augment()
    m.simulate(2)
    m.refit(m.simulate(1)[:, 0])
    pd.testing.assert_frame_equal(sleepstudy, before)
