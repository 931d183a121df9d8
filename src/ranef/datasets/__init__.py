"""The classic data sets of the mixed-model literature, ready to fit.

`load("sleepstudy")`, or `sleepstudy()`, returns a data frame of the kind asked for (pandas by default); `names()` lists
what there is and `describe("sleepstudy")` says what was measured, by whom, and under which licence the source
distributes it. Factors come as categoricals with their levels in the order of the source: a pandas `Categorical` (with
its ordered flag), a polars `Enum` (which is always ordered), a pyarrow dictionary column.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from typing import Any

from ranef.datasets._index import Column, Dataset, find, table, unknown
from ranef.datasets._readers import read

__all__ = ["Column", "Dataset", "describe", "load", "names"]


def names() -> list[str]:
    """Return the names of all data sets, in alphabetical order without regard to case.

    Examples
    --------
    >>> import ranef as rf
    >>> "sleepstudy" in rf.datasets.names()
    True
    """
    return list(table())


def describe(name: str) -> Dataset:
    """Return the description of a data set; print it to read it.

    Parameters
    ----------
    name : str
        One of `names()`.

    Returns
    -------
    Dataset
        Title, rows, columns with their meaning, source, licence, reference.

    Raises
    ------
    OptionError
        `name` does not exist; the message names the nearest.

    Examples
    --------
    >>> import ranef as rf
    >>> rf.datasets.describe("sleepstudy").rows
    180
    """
    return find(name)


def load(name: str, kind: str = "pandas") -> Any:
    """Return a data set as a new data frame.

    Parameters
    ----------
    name : str
        One of `names()`; upper and lower case differ (`Milk` and `milk` are two data sets).
    kind : {"pandas", "polars", "pyarrow"}
        Which frame to return.

    Returns
    -------
    pandas.DataFrame, polars.DataFrame or pyarrow.Table
        The rows in the order of the source.

    Raises
    ------
    OptionError
        `name` or `kind` does not exist.
    NotAvailableError
        The package for `kind` is not installed.

    Examples
    --------
    >>> import ranef as rf
    >>> rf.datasets.load("sleepstudy").shape
    (180, 3)
    """
    data = find(name)
    packed = files("ranef.datasets").joinpath("data", data.file).read_bytes()
    return read(gzip.decompress(packed), data, kind)


def __getattr__(name: str) -> Callable[..., Any]:
    if name.startswith("_") or name not in table():
        private = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(private if name.startswith("_") else unknown(name))
    loader = partial(load, name)
    loader.__doc__ = f"{describe(name)}\n\nTakes `kind`: 'pandas' (default), 'polars' or 'pyarrow'."
    return loader


def __dir__() -> list[str]:
    return [*__all__, *table()]
