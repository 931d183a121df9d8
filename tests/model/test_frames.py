"""Any frame in; tables of the same kind out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import ranef as rf

FORMULA = "Reaction ~ Days + (Days | Subject)"


def source():
    data = rf.datasets.load("sleepstudy")
    return data.assign(Subject=data["Subject"].astype(str))


def odd_index(data):
    return data.set_axis([5] * len(data))


KINDS = {
    "pandas": (lambda d: d, pd.DataFrame),
    "pandas_odd_index": (odd_index, pd.DataFrame),
    "pandas_categorical": (lambda d: d.astype({"Subject": "category"}), pd.DataFrame),
    "polars": (pl.from_pandas, pl.DataFrame),
    "polars_categorical": (lambda d: pl.from_pandas(d).cast({"Subject": pl.Categorical}), pl.DataFrame),
    "pyarrow": (pa.Table.from_pandas, pa.Table),
    "dict": (lambda d: {k: d[k].to_numpy() for k in d}, pd.DataFrame),
}


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS)
def fitted(request):
    make, kind = request.param
    return rf.fit(FORMULA, make(source())), kind


def column(table, name):
    return np.asarray(table[name], dtype=float)


def test_same_numbers(fitted):
    m, _ = fitted
    assert m.criterion == pytest.approx(1743.62827195849, abs=1e-6)
    np.testing.assert_allclose(np.asarray(m.params, dtype=float), [251.405104848, 10.4672859596], rtol=1e-8)


def test_same_kind_comes_out(fitted):
    m, kind = fitted
    tables = [
        m.tidy(["fixed", "ran_pars", "ran_vals"], conf_int=True),
        m.glance(),
        m.augment(),
        m.augment(m.data),
        m.predict(m.data, interval="confidence"),
        m.ranef(std_error=True, covariance=True)["Subject"],
        m.coef()["Subject"],
        m.varcorr().to_frame(),
    ]
    assert {type(t) for t in tables} == {kind}


def test_tables_hold_the_same(fitted):
    m, _ = fitted
    table = m.tidy("fixed")
    np.testing.assert_allclose(column(table, "std_error"), [6.82455653, 1.5457889], rtol=1e-6)
    augmented = m.augment()
    np.testing.assert_allclose(column(augmented, "fitted"), m.fitted())
    np.testing.assert_allclose(column(augmented, "residual"), m.residuals())
    assert list(augmented["Days"])[:3] == list(m.data["Days"])[:3]


def test_pandas_index_is_kept():
    data = odd_index(source())
    assert list(rf.fit(FORMULA, data).augment().index) == [5] * 180


def test_predictions_are_arrays(fitted):
    m, _ = fitted
    out = m.predict(m.data)
    assert isinstance(out, np.ndarray)
    np.testing.assert_array_equal(out, m.fitted())


def test_augment_with_missing_rows_and_taken_names():
    data = source().assign(fitted=1.0)
    data.loc[[0, 7], "Days"] = np.nan
    m = rf.fit(FORMULA, data)
    table = m.augment()
    assert len(table) == m.nobs == 178
    assert table["fitted"].eq(1).all()
    np.testing.assert_allclose(table["fitted_"], m.fitted())
    assert table["Reaction"].iloc[0] == data["Reaction"].iloc[1]


def test_augment_new_data():
    m = rf.fit(FORMULA, source())
    new = source().iloc[[0, 5]].assign(Subject=["308", "nobody"])
    table = m.augment(new)
    assert table["fitted"].iloc[0] == m.fitted()[0]
    assert table["fitted"].iloc[1] == table["population"].iloc[1]
    np.testing.assert_allclose(table["residual"], new["Reaction"].to_numpy() - table["fitted"])
    assert "residual" not in m.augment(new.drop(columns="Reaction"))


def test_a_lazy_frame_is_collected_once():
    def counted(frame):
        calls.append(1)
        return frame

    calls = []
    lazy = pl.from_pandas(source()).lazy().map_batches(counted)
    m = rf.fit(FORMULA, lazy)
    table = m.augment()
    assert isinstance(table, pl.DataFrame)
    assert table.height == 180
    np.testing.assert_array_equal(m.update(method="ml").fitted().shape, 180)
    assert len(calls) == 1
    new = pl.from_pandas(source()).head(3).lazy()
    np.testing.assert_array_equal(m.predict(new, interval="prediction")["estimate"].to_numpy(), m.fitted()[:3])
    np.testing.assert_array_equal(m.predict(new.drop("Subject"), re="none"), m.predict(re="none")[:3])
    np.testing.assert_array_equal(m.augment(new)["fitted"].to_numpy(), m.fitted()[:3])


def test_predictions_stand_beside_their_rows():
    data = source().set_axis([f"row{i}" for i in range(180)])
    holes = data.assign(Days=data["Days"].astype(float).mask(np.arange(180) == 4))
    m = rf.fit(FORMULA, holes)
    inside, new = m.predict(interval="confidence"), m.predict(data.iloc[[7, 4]], std_error=True)
    assert list(inside.index) == [f"row{i}" for i in range(180) if i != 4]
    assert list(new.index) == ["row7", "row4"]
    assert data.join(inside)["estimate"].isna().sum() == 1
    assert m.predict(data.iloc[[7, 7]], interval="confidence").index.tolist() == ["row7", "row7"]


def test_names_of_columns_that_the_model_does_not_use_may_repeat():
    data = source().assign(other=1.0)
    data = pd.concat([data, data[["other"]]], axis=1)
    m = rf.fit(FORMULA, data)
    assert list(m.augment().columns[-6:]) == ["other", "other", "fitted", "std_error", "population", "residual"]
    np.testing.assert_array_equal(m.predict(data[:5]), m.fitted()[:5])
    with pytest.raises(rf.errors.DataError, match="rename"):
        rf.plot.trajectories(m)


@pytest.mark.parametrize(
    "make", [lambda d: d.copy(), lambda d: {k: d[k].to_numpy() for k in d}], ids=["pandas", "dict"]
)
def test_a_fit_does_not_change_with_the_frame_it_was_made_from(make):
    data = make(source())
    m = rf.fit(FORMULA, data)
    before = m.fitted(), m.update(method="ml").criterion, np.asarray(rf.drop1(m)["aic"])
    data["Days"] = np.asarray(data["Days"]) ** 2
    data["Reaction"] = np.zeros(180)
    if isinstance(data, pd.DataFrame):
        data.loc[:, "Subject"] = "none"
    np.testing.assert_array_equal(m.predict(m.data), before[0])
    np.testing.assert_array_equal(np.asarray(m.augment()["residual"]), m.residuals())
    assert m.update(method="ml").criterion == before[1]
    np.testing.assert_array_equal(np.asarray(rf.drop1(m)["aic"]), before[2])


@pytest.mark.skipif(int(pd.__version__.split(".")[0]) < 3, reason="older frames share their memory")
def test_writing_into_a_frame_does_not_reach_the_fit():
    data = source()
    m = rf.fit(FORMULA, data)
    fitted = m.fitted()
    data.loc[0, "Days"] = 1e6
    data.iloc[1, 0] = 1e6
    np.testing.assert_array_equal(m.fitted(), fitted)
    np.testing.assert_array_equal(m.predict(m.data), fitted)
    assert m.residuals()[1] == m.augment()["residual"].iloc[1]
