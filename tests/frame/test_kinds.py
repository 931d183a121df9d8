"""Whatever kind of frame comes in, the arrays are the same."""

from __future__ import annotations

import datetime as dt
import uuid

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from frame.frames import KINDS, assert_same, columns, dense, frame
from ranef.errors import DataError, UnknownColumnError
from ranef.frame import build, matrix
from ranef.frame.table import as_factor, read_table

FORMULA = "y ~ x*f + k + b + poly(z, 2) + x:h + offset(pos) + (x | g) + (1 | f:i) + (0 + h || i)"


def holes(data):
    data = {name: list(values) for name, values in data.items()}
    for at, name in enumerate(["y", "x", "k", "b", "f", "g", "i", "pos"]):
        data[name][3 * at] = None
    data["x"][0] = None
    return data


@pytest.mark.parametrize("kind", KINDS)
def test_same_arrays(kind):
    data = columns()
    _, expected = build(FORMULA, data, weights="pos")
    _, design = build(FORMULA, frame(kind, data), weights="pos")
    assert_same(dense(design), dense(expected))
    assert design.rows is None
    assert design.kind == kind.partition("-")[0]


@pytest.mark.parametrize("kind", KINDS)
def test_same_arrays_with_missing_values(kind):
    data = holes(columns())
    _, design = build(FORMULA, frame(kind, data))
    kept = {name: [v for j, v in enumerate(values) if j not in range(0, 24, 3)] for name, values in data.items()}
    _, expected = build(FORMULA.replace("poly(z, 2)", "z"), kept)
    _, again = build(FORMULA.replace("poly(z, 2)", "z"), frame(kind, data))
    left, right = dense(again), dense(expected)
    for key in ("n", "names", "X", "y", "terms", "offset"):
        np.testing.assert_equal(left[key], right[key])
    assert design.dropped == {"y": 1, "x": 2, "f": 1, "k": 1, "b": 1, "pos": 1, "g": 1, "i": 1}
    assert list(design.dropped) == ["y", "x", "f", "k", "b", "pos", "g", "i"]
    assert (design.n_input, design.n, design.n_dropped) == (60, 52, 8)
    np.testing.assert_array_equal(design.rows, [j for j in range(60) if j not in range(0, 24, 3)])


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT, float("nan")])
def test_every_way_to_be_missing(missing):
    data = columns()
    for name in ("y", "x", "f", "g", "k"):
        data[name][5] = missing
    for given in (data, pd.DataFrame(data)):
        _, design = build("y ~ x + f + k + (1 | g)", given)
        assert design.n == 59
        assert set(design.dropped.values()) == {1}


CATEGORICALS = [
    lambda v: pd.Categorical(v, ["mid", "lo", "hi", "never"]),
    lambda v: pd.Series(pd.Categorical(v, ["mid", "lo", "hi", "never"]), index=range(5, 5 + len(v))),
    lambda v: pl.Series(v, dtype=pl.Enum(["mid", "lo", "hi", "never"])),
    lambda v: pa.DictionaryArray.from_arrays(
        pa.array([["mid", "lo", "hi"].index(x) for x in v]), ["mid", "lo", "hi", "never"]
    ),
]


@pytest.mark.parametrize("make", CATEGORICALS)
def test_categoricals_keep_their_order_and_lose_unused_levels(make):
    data = columns()
    spec, design = build("y ~ f + (1 | f)", {**data, "f": make(data["f"])})
    assert design.fixed_names == ("(Intercept)", "flo", "fhi")
    assert list(design.terms[0].levels) == ["mid", "lo", "hi"]
    assert spec.factors["f"].unused == ("never",)
    assert design.terms[0].codes.max() == 2


def test_polars_categorical_and_text_are_sorted():
    data = columns()
    _, expected = build("y ~ f + (1 | g)", data)
    series = {**data, "f": pl.Series(data["f"], dtype=pl.Categorical), "g": pl.Series(data["g"], dtype=pl.Categorical)}
    _, design = build("y ~ f + (1 | g)", pl.DataFrame(series))
    assert_same(dense(design), dense(expected))
    assert design.fixed_names == ("(Intercept)", "flo", "fmid")


def test_plain_columns_are_not_copied():
    x = np.random.default_rng(1).normal(size=50)
    f32, i32 = x.astype(np.float32), np.arange(50, dtype=np.int32)
    codes = pd.Categorical(["a", "b"] * 25)
    table = {"y": x, "x": f32, "k": i32, "g": codes}
    _, design = build("y ~ x + k + g + (k | g)", table)
    assert np.shares_memory(design.y, x)
    assert np.shares_memory(design.fixed[1].x, f32)
    assert np.shares_memory(design.fixed[2].x, i32)
    assert np.shares_memory(design.terms[0].codes, codes.codes)
    assert design.fixed[3].codes is design.terms[0].codes
    _, design = build("y ~ x + (1 | g)", pd.DataFrame(table))
    assert (
        np.shares_memory(design.fixed[1].x, pd.DataFrame(table)["x"].to_numpy())
        or design.fixed[1].x.dtype == np.float32
    )
    polars = pl.DataFrame({"y": x, "x": x})
    _, design = build("y ~ x", polars)
    assert np.shares_memory(design.y, polars["y"].to_numpy())


def test_array_types_are_those_of_the_core():
    data = columns()
    for kind in ("f2", "f4", "f8", ">f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i4"):
        x = np.arange(60).astype(kind)
        _, design = build("y ~ x + (1 | x)", {**data, "x": np.tile(x[:20], 3)})
        column = design.fixed[1].x
        assert column.dtype in (np.float64, np.float32, np.int64, np.int32)
        assert column.dtype.isnative
        assert column.flags.c_contiguous
        np.testing.assert_array_equal(column, np.tile(np.arange(20), 3))
        assert list(design.terms[0].levels) == list(range(20))


def test_strided_columns():
    block = np.asfortranarray(np.random.default_rng(2).normal(size=(40, 3)))
    wide = pd.DataFrame(np.ascontiguousarray(block), columns=["y", "x", "z"])
    for given in (wide, wide[::-1], {"y": block[::-1, 0], "x": block[::-1, 1]}):
        _, design = build("y ~ x", given)
        assert design.y.flags.c_contiguous
        assert design.fixed[1].x.flags.c_contiguous
        np.testing.assert_array_equal(design.y, np.asarray(given["y"]))


@pytest.mark.parametrize("levels", [2, 127, 128, 300, 40_000])
def test_codes_are_as_narrow_as_the_levels_allow(levels):
    labels = [f"{i:05d}" for i in range(levels)] * 2
    expected = np.int8 if levels <= 127 else np.int16 if levels <= 32767 else np.int32
    for g in (pd.Categorical(labels), pl.Series(labels, dtype=pl.Enum(labels[:levels])), labels):
        _, design = build("y ~ 1 + (1 | g)", {"y": np.arange(2.0 * levels), "g": g})
        assert design.terms[0].codes.dtype in (np.int8, np.int16, np.int32)
        assert design.terms[0].codes.dtype == expected or not isinstance(g, list)
        np.testing.assert_array_equal(design.terms[0].codes, list(range(levels)) * 2)


def test_numeric_groups_are_categories():
    _, design = build(
        "y ~ 1 + (1 | g) + (1 | h)", {"y": [1.0, 2, 3, 4], "g": [10, 2, 10, 7], "h": [0.5, -1.0, 0.5, 2.0]}
    )
    assert list(design.terms[0].levels) == [2, 7, 10]
    assert all(type(v) is int for v in design.terms[0].levels)
    assert list(design.terms[1].levels) == [-1.0, 0.5, 2.0]
    np.testing.assert_array_equal(design.terms[0].codes, [2, 0, 2, 1])


@pytest.mark.parametrize("start", [2**60, 2**63, 2**64 - 4])
@pytest.mark.parametrize("missing", [None, 4])
def test_numbers_of_64_bits_label_groups_exactly(start, missing):
    """float64 holds none of them apart, nor does an array with a missing value in numpy."""
    ids = [start + i % 4 for i in range(12)]
    given = [None if i == missing else v for i, v in enumerate(ids)]
    kind = ("int64", "Int64", pl.Int64, pa.int64()) if start < 2**63 else ("uint64", "UInt64", pl.UInt64, pa.uint64())
    kinds = {
        "nullable": pd.DataFrame({"id": pd.array(given, dtype=kind[1])}),
        "polars": pl.DataFrame({"id": pl.Series(given, dtype=kind[2])}),
        "arrow": pa.table({"id": pa.array(given, kind[3])}),
        "list": {"id": given},
    }
    if missing is None:
        kinds["numpy"] = {"id": np.array(given, kind[0])}
    for name, data in kinds.items():
        factor = as_factor(read_table(data).column("id"))
        assert factor.levels is not None
        assert factor.levels.tolist() == [start, start + 1, start + 2, start + 3], name
        assert factor.codes is not None
        assert factor.codes.tolist() == [-1 if i == missing else i % 4 for i in range(12)], name


def test_whole_numbers_beyond_64_bits_are_not_merged():
    y, step = np.arange(6.0), np.arange(6) // 2
    with pytest.raises(DataError, match="more than 64 bits, which would not be told apart"):
        build("y ~ (1 | g)", {"y": y, "g": [10**30 + int(i) for i in step]})
    _, design = build("y ~ (1 | g)", {"y": y, "g": [10**30 * (1 + int(i)) for i in step]})
    assert len(design.terms[0].levels) == 3


def test_dates_can_group_but_are_no_numbers():
    days = [dt.date(2024, 1, 1 + i % 3) for i in range(9)]
    y = np.arange(9.0)
    for given in (
        {"y": y, "d": days},
        pd.DataFrame({"y": y, "d": pd.to_datetime(days)}),
        pl.DataFrame({"y": y, "d": days}),
        pa.table({"y": y, "d": days}),
    ):
        _, design = build("y ~ 1 + (1 | d)", given)
        assert len(design.terms[0].levels) == 3
        assert design.terms[0].levels[0].startswith("2024-01-01")
        with pytest.raises(DataError, match="dates or times"):
            build("y ~ d", given)


def test_other_frames_through_narwhals():
    import narwhals as nw

    data = columns()
    _, expected = build(FORMULA, data)
    for given in (nw.from_native(pd.DataFrame(data)), pl.DataFrame(data).lazy(), nw.from_native(pl.DataFrame(data))):
        _, design = build(FORMULA, given)
        assert_same(dense(design), dense(expected))


def test_single_values_in_a_dict_stand_for_every_row():
    _, design = build("y ~ x + h", {"y": [1.0, 2.0, 4.0], "x": [1, 2, 3], "h": ["a", "b", "a"]}, offset=None)
    spec, _ = build("y ~ x + h", {"y": [1.0, 2.0, 4.0], "x": [1, 2, 3], "h": ["a", "b", "a"]})
    np.testing.assert_array_equal(matrix(spec.new({"x": [5, 6], "h": "b"}).fixed, 2), [[1, 5, 1], [1, 6, 1]])
    np.testing.assert_array_equal(matrix(spec.new({"x": 5, "h": "b"}).fixed, 1), [[1, 5, 1]])
    assert design.n == 3


@pytest.mark.parametrize("data", [3, "data.csv", [1, 2], np.zeros((3, 2)), None])
def test_not_a_frame(data):
    with pytest.raises(DataError, match="frame"):
        build("y ~ x", data)


def test_columns_of_different_length_or_shape():
    with pytest.raises(DataError, match="'y' has 2 rows, 'x' has 3"):
        build("y ~ x", {"y": [1, 2], "x": [1, 2, 3]})
    with pytest.raises(DataError, match="dimensions"):
        build("y ~ x", {"y": [1, 2], "x": np.zeros((2, 2))})


def test_two_columns_of_one_name():
    twice = pd.DataFrame(np.arange(12.0).reshape(4, 3), columns=["y", "x", "x"])
    with pytest.raises(DataError, match="2 columns named 'x'"):
        build("y ~ x", twice)
    assert build("y ~ 1", twice)[1].n == 4
    with pytest.raises(DataError, match="2 columns named 'x'"):
        build("y ~ x", pa.table([[1.0], [2.0], [3.0]], names=["y", "x", "x"]))


def test_column_names_that_are_no_text():
    data = pd.DataFrame({0: [1.0, 2.0, 4.0], 1: [3.0, 5.0, 4.0]})
    assert build("`0` ~ `1`", data)[1].fixed_names == ("(Intercept)", "`1`")


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_columns_name_the_nearest(kind):
    given = frame(kind, {"reaction": [1.0, 2.0], "days": [0.0, 1.0], "Subject": ["a", "b"]})
    with pytest.raises(UnknownColumnError, match="'Days' in the data; did you mean 'days'"):
        build("reaction ~ Days", given)
    with pytest.raises(UnknownColumnError, match="'subject' in the data; did you mean 'Subject'"):
        build("reaction ~ days + (1 | subject)", given)
    with pytest.raises(UnknownColumnError, match="weights column 'w'"):
        build("reaction ~ days", given, weights="w")
    with pytest.raises(KeyError):
        build("reaction ~ log(qqq)", given)


def test_rare_column_types():
    n = 6
    y = np.arange(6.0) ** 2
    numbers = [
        pl.Series(range(n)).cast(pl.Int128),
        pl.Series(range(n)).cast(pl.Decimal(10, 2)),
        pd.Series(pd.arrays.SparseArray(range(n))),
        pa.chunked_array([[0.0, 1.0], [2.0, 3.0, 4.0, 5.0]]),
        np.arange(n).astype("g"),
        range(n),
        np.ma.masked_array(np.arange(n), [False] * n),
    ]
    for v in numbers:
        np.testing.assert_array_equal(build("y ~ v", {"y": y, "v": v})[1].fixed[1].x, np.arange(n))
    labels = [
        pl.Series([dt.timedelta(i % 3) for i in range(n)]),
        pl.Series([dt.time(i % 3) for i in range(n)]),
        pd.Series(pd.period_range("2020", periods=3).tolist() * 2),
        pd.Series(pd.to_timedelta([0, 1, 2] * 2, "D")),
        pd.Series(pd.cut([1, 2, 3] * 2, 3)),
        pa.chunked_array(
            [pa.array(["a", "b"]).dictionary_encode(), pa.array(["b", "c", "a", "c"]).dictionary_encode()]
        ),
        pa.chunked_array([pa.array(["a", "b", "c"] * 2).cast(pa.large_string())]),
        np.array(["a", "b", "c"] * 2),
    ]
    for v in labels:
        _, design = build("y ~ (1 | v)", {"y": y, "v": v})
        assert len(design.terms[0].levels) == 3
        assert sorted(np.bincount(design.terms[0].codes)) == [2, 2, 2]


@pytest.mark.parametrize(
    "bad",
    [
        pl.Series([[1]] * 3), pl.Series([{"a": 1}] * 3), pl.Series([b"a"] * 3), pa.chunked_array([[[1]] * 3]),
        {1, 2, 3},
        (i for i in range(3)), np.array([1j] * 3), {"a": 1}, np.zeros((3, 3)),
    ],
)  # fmt: skip
def test_columns_that_cannot_be_read(bad):
    with pytest.raises(DataError, match="'v'"):
        build("y ~ v", {"y": [1.0, 2.0, 4.0], "v": bad})


def test_moments_have_the_same_labels_in_every_kind_of_frame():
    text = ["2020-01-03T00:00:00", "2020-01-04T12:30:00", None, "2020-01-04T12:30:00.250000"]
    when = [None if t is None else dt.datetime.fromisoformat(t) for t in text]
    kinds = [
        pd.DataFrame({"t": when}),
        pd.DataFrame({"t": pd.Series(when, dtype="timestamp[us][pyarrow]")}),
        pl.DataFrame({"t": when}),
        pa.table({"t": when}),
        {"t": when},
    ]
    for data in kinds:
        found = read_table(data).column("t")
        assert list(found.levels) == ["2020-01-03", "2020-01-04 12:30:00", "2020-01-04 12:30:00.25"]
        assert found.codes.tolist() == [0, 1, -1, 2]
    zoned = pd.DataFrame({"t": pd.Series(when).dt.tz_localize("UTC")})
    for data in (zoned, pa.table({"t": pa.array(when, pa.timestamp("us", "UTC"))})):
        assert read_table(data).column("t").levels[0] == "2020-01-03 00:00:00+00:00"
    for make in (pd.DataFrame, pl.DataFrame, pa.table, dict):
        found = read_table(make({"t": [dt.timedelta(hours=3), dt.timedelta(2), None]})).column("t")
        assert list(found.levels) == ["2 days, 0:00:00", "3:00:00"]
    _, fitted = build("y ~ 1 + (1 | t)", pd.DataFrame({"t": when, "y": [1.0, 2, 3, 4]}))
    assert fitted.dropped == {"t": 1}


def test_one_index_may_name_columns_and_levels():
    index = pd.Index([1, 2])
    data = pd.DataFrame(np.arange(12.0).reshape(6, 2), columns=index)
    data.columns = index
    group = pd.Categorical.from_codes([0, 1, 0, 1, 0, 1], categories=index)
    assert read_table(data).names == ("1", "2")
    for _ in range(2):
        column = read_table(pd.DataFrame({"g": group})).column("g")
        assert column.levels.tolist() == [1, 2]


class Bare:
    """An object that has no text of its own."""


def test_objects_label_groups_by_their_text_and_are_no_times():
    ids = [uuid.UUID(int=i % 3) for i in range(6)]
    for data in (pd.DataFrame({"g": ids}), pl.DataFrame({"g": pl.Series(ids, dtype=pl.Object)}), {"g": ids}):
        found = read_table(data).column("g")
        assert not found.time
        assert list(found.levels) == [str(i) for i in ids[:3]]
    bare = [Bare() for _ in range(6)]
    for values in (bare, np.array([complex(i) for i in range(6)], object)):
        for data in (pl.DataFrame({"g": pl.Series(values, dtype=pl.Object)}), {"g": values}):
            with pytest.raises(DataError, match=r"column 'g' .*no numbers, text or truth values"):
                read_table(data).column("g")
    fixed = np.array(["b", "a"], np.dtypes.StringDType())
    assert list(read_table({"g": fixed}).column("g").levels) == ["a", "b"]


def test_rows_in_other_shapes_are_told_how_to_become_a_frame():
    with pytest.raises(DataError, match=r"DataFrame.* of its fields"):
        read_table(np.zeros(3, [("y", "f8"), ("x", "f8")]))
    with pytest.raises(DataError, match="from_batches"):
        read_table(pa.table({"y": [1.0]}).to_batches()[0])


@pytest.mark.parametrize("formula", ["y ~ f + fb", "y ~ 1 + (f + fb | g)"])
def test_coefficients_of_one_name_are_refused(formula):
    f = np.array(list("aabbcc") * 2)
    data = {"y": np.arange(12.0), "f": f, "fb": np.arange(12.0) ** 2, "g": np.arange(12) % 3}
    with pytest.raises(DataError, match=r"2 coefficients would be named 'fb'.*rename"):
        build(formula, data)
