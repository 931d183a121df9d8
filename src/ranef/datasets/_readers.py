"""CSV text to a data frame, once for each kind of frame.

A reader takes the bytes of a CSV file (missing values written `NA`) and the description of the data set. It returns a
frame whose columns have the described types: float64, int64 (nullable where values are missing), text, and categoricals
whose levels stand in the described order. A new kind of frame is one such function and one line in `READERS`.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib import import_module
from typing import Any

from ranef.datasets._index import Dataset, order
from ranef.errors import NotAvailableError, OptionError


def read(raw: bytes, data: Dataset, kind: str) -> Any:
    """Return the frame of `kind` that the CSV text `raw` holds."""
    if kind not in READERS:
        raise OptionError(f"kind={kind!r} is not one of {', '.join(map(repr, READERS))}.")
    return READERS[kind](raw, data)


def _need(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise NotAvailableError(f"kind={package!r} needs the package {package}: pip install {package}") from None


def _pandas(raw: bytes, data: Dataset) -> Any:
    pd = _need("pandas")
    types = {"number": "float64", "integer": "Int64", "string": str}
    dtype = {c.name: types.get(c.type, str) for c in data.columns}
    frame = pd.read_csv(io.BytesIO(raw), dtype=dtype, na_values=["NA"], keep_default_na=False)
    for c in data.columns:
        if c.levels is not None:
            levels = order(c.levels, list(frame[c.name].unique()))
            frame[c.name] = pd.Categorical(frame[c.name], categories=levels, ordered=c.type == "ordered")
        elif c.type == "integer" and not frame[c.name].hasnans:
            frame[c.name] = frame[c.name].astype("int64")
    return frame


def _polars(raw: bytes, data: Dataset) -> Any:
    pl = _need("polars")
    types = {"number": pl.Float64, "integer": pl.Int64}
    schema = {c.name: types.get(c.type, pl.String) for c in data.columns}
    frame = pl.read_csv(raw, schema=schema, null_values="NA")
    enums = {
        c.name: pl.Enum(order(c.levels, frame[c.name].unique(maintain_order=True).to_list()))
        for c in data.columns
        if c.levels is not None
    }
    return frame.cast(enums)


def _pyarrow(raw: bytes, data: Dataset) -> Any:
    pa, csv = _need("pyarrow"), _need("pyarrow.csv")
    types = {"number": pa.float64(), "integer": pa.int64()}
    schema = {c.name: types.get(c.type, pa.string()) for c in data.columns}
    convert = csv.ConvertOptions(column_types=schema, null_values=["NA"], strings_can_be_null=True)
    table = csv.read_csv(pa.py_buffer(raw), convert_options=convert)
    for i, c in enumerate(data.columns):
        if c.levels is not None:
            text = table.column(i)
            levels = order(c.levels, text.unique().to_pylist())
            table = table.set_column(i, c.name, _dictionary(pa, text, levels, c.type == "ordered"))
    return table


def _dictionary(pa: Any, text: Any, levels: list[str], ordered: bool) -> Any:
    labels = pa.array(levels, pa.string())
    codes = _need("pyarrow.compute").index_in(text, value_set=labels).combine_chunks()
    return pa.DictionaryArray.from_arrays(codes, labels, ordered=ordered)


READERS: dict[str, Callable[[bytes, Dataset], Any]] = {"pandas": _pandas, "polars": _polars, "pyarrow": _pyarrow}
