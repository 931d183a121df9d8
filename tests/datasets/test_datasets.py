"""The data sets that come with the package: complete, typed as described, the same in every kind of frame."""

import gzip
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from ranef import datasets
from ranef.datasets._index import order, table
from ranef.datasets._readers import READERS
from ranef.errors import NotAvailableError, OptionError

NAMES = datasets.names()
KINDS = list(READERS)


def values(frame, column):
    """The column as strings and None, whatever the kind of frame."""
    series = frame[column]
    found = series.to_pylist() if isinstance(series, pa.ChunkedArray) else list(series)
    return [None if v is None or v is pd.NA or v != v else v for v in found]


def test_the_classics_are_there():
    classics = {"sleepstudy", "Dyestuff", "Penicillin", "Pastes", "cake", "InstEval", "cbpp", "Machines", "Orthodont"}
    assert classics <= set(NAMES)
    assert len(NAMES) == 96


def test_names_are_sorted_without_regard_to_case():
    assert [n.lower() for n in NAMES] == sorted(n.lower() for n in NAMES)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_every_data_set_has_the_described_shape(name, kind):
    about, frame = datasets.describe(name), datasets.load(name, kind)
    assert tuple(frame.shape) == (about.rows, len(about.columns))
    columns = frame.column_names if kind == "pyarrow" else list(frame.columns)
    assert columns == [c.name for c in about.columns]


@pytest.mark.parametrize("name", NAMES)
def test_pandas_types_and_level_order(name):
    about, frame = datasets.describe(name), datasets.load(name)
    for c in about.columns:
        dtype = frame[c.name].dtype
        if c.is_factor:
            assert dtype.ordered == (c.type == "ordered")
            assert len(dtype.categories) == c.n_levels
            assert not frame[c.name].isna().any()
            if isinstance(c.levels, tuple):
                assert list(dtype.categories) == list(c.levels)
        else:
            assert {"number": "f", "integer": "i"}.get(c.type, "OUT") in (dtype.kind, "OUT")


@pytest.mark.parametrize("kind", ["polars", "pyarrow"])
@pytest.mark.parametrize("name", ["sleepstudy", "cake", "arthritis", "dat_bcg", "milk_pedigree", "Meat", "Chem97"])
def test_kinds_hold_the_same_values(name, kind):
    frame, other = datasets.load(name), datasets.load(name, kind)
    for column in frame.columns:
        assert values(frame, column) == values(other, column)


def test_kinds_of_factor():
    assert datasets.load("cake")["temperature"].cat.ordered
    assert not datasets.load("cake")["recipe"].cat.ordered
    assert datasets.load("cake", "polars").schema["recipe"] == pl.Enum(["A", "B", "C"])
    assert datasets.load("cake", "pyarrow").schema.field("temperature").type.ordered
    assert list(datasets.load("Machines")["Worker"].cat.categories) == ["6", "2", "4", "1", "3", "5"]


def test_known_values():
    sleep = datasets.sleepstudy()
    assert sleep["Reaction"].iloc[0] == 249.56
    assert sleep["Reaction"].mean() == pytest.approx(298.5078917)
    assert datasets.load("InstEval").shape == (73421, 7)


def test_missing_values_are_missing():
    assert datasets.load("dietox")["Feed"].isna().sum() == 72
    assert datasets.load("arthritis")["y"].dtype == "Int64"
    assert datasets.load("arthritis", "polars")["y"].null_count() == 18
    assert datasets.load("arthritis", "pyarrow")["y"].null_count == 18


def test_a_load_is_a_new_frame():
    frame = datasets.sleepstudy()
    frame.loc[0, "Reaction"] = -1.0
    assert datasets.sleepstudy()["Reaction"].iloc[0] == 249.56


def test_attribute_access_and_its_documentation():
    assert isinstance(datasets.Dyestuff("polars"), pl.DataFrame)
    assert "dyestuff" in datasets.Dyestuff.__doc__
    assert {"sleepstudy", "load"} <= set(dir(datasets))


def test_unknown_name_names_the_nearest():
    with pytest.raises(OptionError, match="did you mean 'sleepstudy'"):
        datasets.load("sleepstdy")
    with pytest.raises(OptionError, match="did you mean 'sleepstudy'"):
        datasets.describe("SleepStudy")
    with pytest.raises(AttributeError, match="did you mean 'Penicillin'"):
        datasets.Penicilin  # noqa: B018
    with pytest.raises(OptionError, match=r"names\(\) lists them"):
        datasets.load("zzzzzzzz")
    assert not hasattr(datasets, "_no_such_thing")


def test_unknown_kind():
    with pytest.raises(OptionError, match="'pandas', 'polars', 'pyarrow'"):
        datasets.load("cake", "R")


def test_absent_package_is_named(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr("ranef.datasets._readers.import_module", absent)
    with pytest.raises(NotAvailableError, match="pip install polars"):
        datasets.load("cake", "polars")


@pytest.mark.parametrize("name", NAMES)
def test_every_data_set_is_documented(name):
    about = datasets.describe(name)
    assert len(about.title) > 5
    assert about.source
    assert about.licence
    assert all(c.meaning for c in about.columns)
    text = str(about)
    assert text == repr(about)
    assert max(map(len, text.splitlines())) <= 90
    assert about.licence in text


def test_simulated_data_say_so():
    assert all(datasets.describe(n).about.startswith("Simulated.") for n in NAMES if n.startswith("sim_"))


@pytest.mark.parametrize("name", [n for n in NAMES if datasets.describe(n).example])
def test_examples_are_formulas_of_the_columns(name):
    from ranef.formula import parse

    about = datasets.describe(name)
    used = {v for v in parse(about.example).variables if not v.startswith("np.")}
    assert used <= {c.name for c in about.columns}


def test_package_data_are_small_and_safe_on_any_file_system():
    found = [entry for entry in files("ranef.datasets").joinpath("data").iterdir() if entry.name.endswith(".gz")]
    assert {entry.name for entry in found} == {d.file for d in table().values()}
    assert len({entry.name.lower() for entry in found}) == len(found)
    assert sum(len(entry.read_bytes()) for entry in found) < 2_000_000
    assert all(gzip.decompress(entry.read_bytes()) for entry in found[:3])


def test_rules_of_level_order():
    assert order("appearance", ["b", "a"]) == ["b", "a"]
    assert order("sorted", ["b", "a"]) == ["a", "b"]
    assert order("numeric", ["10", "9"]) == ["9", "10"]
    assert order(("x", "y"), ["y"]) == ["x", "y"]


def test_numbers_survive_the_packing():
    column = datasets.load("sim_crossed")["y"].to_numpy()
    assert np.isfinite(column).all()
    assert np.array_equal(column, np.round(column, 8))


def test_the_notice_names_source_and_terms_of_every_data_set():
    notice = (Path(__file__).parents[2] / "NOTICE.md").read_text()
    for name in NAMES:
        about = datasets.describe(name)
        assert f"| {name} | {about.source} | {about.licence.replace('|', 'or')} |" in notice
