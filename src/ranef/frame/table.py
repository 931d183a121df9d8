"""The door for data: any frame becomes a `Table` whose columns are read as they lie, each once, as numbers or as codes.

pandas, polars, pyarrow and dicts are read by their own calls (no copy where the dtype allows it); every other frame
goes through narwhals to pyarrow or numpy first. One `Column` type comes out whatever came in.
"""

from __future__ import annotations

import datetime
import difflib
import re
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Number
from typing import Any

import numpy as np

from ranef.errors import DataError, InfiniteError, UnknownColumnError
from ranef.frame.design import Array, Levels
from ranef.frame.kernels import any_nonfinite, code_use, factorize, small_int

NUMERIC = {"f8": "f8", "f4": "f4", "i8": "i8", "i4": "i4", "i2": "i4", "i1": "i4", "u1": "i4", "u2": "i4", "u4": "i8"}
FLOAT, WHOLE = np.dtype(np.float64), np.dtype(np.int64)
EXACT = 2**53  # whole numbers up to here are float64's own
FEW_NUMBERS = 10  # fewer numbers may be codes, with a text among them
TIMES = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64)
CODES = (np.dtype(np.int8), np.dtype(np.int16), np.dtype(np.int32))


@dataclass(frozen=True, slots=True)
class Column:
    """One column: numbers (`x`), truth values (`x` of bool), or categories (`codes` and `levels`).

    `missing` marks missing rows (None: none); there `x` is NaN (False for bool) and `codes` -1. `time` columns are
    dates or times: usable as categories only, with their text as labels. `listed` categories (a polars Enum) have an
    order that somebody chose, and may be a response of ordered categories although they are coded as unordered ones.
    `text`: the labels are what rows hold, no levels that somebody declared. `complete`: every level is known to occur.
    `exact` are the whole numbers themselves where float64 does not tell them apart (64 bits that label people or
    messages): as categories the column goes by these.
    """

    name: str
    x: Array | None = None
    codes: Array | None = None
    levels: Levels | None = None
    ordered: bool = False
    missing: Array | None = None
    time: bool = False
    listed: bool = False
    text: bool = False
    complete: bool = False
    exact: Array | None = None

    def __len__(self) -> int:
        values = self.codes if self.x is None else self.x
        return 0 if values is None else len(values)


@dataclass(frozen=True)
class Table:
    """Data as named columns of equal length; `index` are the labels of the rows of a pandas frame."""

    kind: str
    n: int
    names: tuple[str, ...]
    read: Callable[[str], Column]
    index: Any = None

    def column(self, name: str) -> Column:
        """Read a column; an unknown name is an error with the nearest ones."""
        if name not in self.names:
            raise unknown_column(name, self.names)
        return self.read(name)


def check_order(what: str, value: Any, index: Any) -> None:
    """Refuse a pandas Series or frame whose labels are those of the rows in another order.

    Arrays are read row by row. So are these, and where their labels say otherwise somebody would be surprised.

    Raises
    ------
    DataError
        If place and label contradict each other.
    """
    own: Any = getattr(value, "index", None)
    if not hasattr(index, "is_unique") or not hasattr(own, "isin") or len(own) != len(index) or own.equals(index):
        return
    if own.is_unique and index.is_unique and bool(own.isin(index).all()):
        raise DataError(
            f"{what}: its row labels are those of the data in another order; make it a column of the data, "
            f"or give .reindex(data.index) to go by label and .to_numpy() to go by place"
        )


def unknown_column(name: str, names: Sequence[str], what: str = "column") -> UnknownColumnError:
    """Return the error for a name that the data do not have, with the nearest ones."""
    near = difflib.get_close_matches(name, names, 3, 0.6)
    folded = [n for n in names if n.lower() == name.lower() and n not in near]
    near = [*folded, *near]
    hint = f"; did you mean {', '.join(map(repr, near))}?" if near else f"; the data have {shorten(names)}"
    return UnknownColumnError(f"there is no {what} {name!r} in the data{hint}")


def shorten(labels: Sequence[Any], most: int = 8) -> str:
    """Return the first few labels as text."""
    shown = ", ".join(repr(label) for label in list(labels)[:most])
    return f"{shown}, … ({len(labels)} in all)" if len(labels) > most else shown


def rows_of(mask: Array, most: int = 5) -> str:
    """Return the first few true positions as text: 'row 3' or 'rows 3, 7, … (12 in all)'; counted from 0."""
    rows = np.flatnonzero(mask)
    shown = ", ".join(map(str, rows[:most].tolist()))
    more = f", … ({len(rows)} in all)" if len(rows) > most else ""
    return f"row{'s' if len(rows) > 1 else ''} {shown}{more} (counted from 0)"


# ---------------------------------------------------------------- which kind


def read_table(data: Any) -> Table:
    """Open any kind of data.

    Raises
    ------
    DataError
        If `data` is no frame, has two columns of one name where one is read, or columns of different lengths.
    """
    pandas, polars, pyarrow = (sys.modules.get(m) for m in ("pandas", "polars", "pyarrow"))
    if pandas is not None and isinstance(data, pandas.DataFrame):
        return _pandas_table(data)
    if polars is not None and isinstance(data, polars.DataFrame):
        return Table(
            "polars", data.height, tuple(data.columns), lambda name: polars_column(name, data.get_column(name))
        )
    if pyarrow is not None and isinstance(data, pyarrow.Table):
        return _arrow_table(data)
    if isinstance(data, Mapping):
        return _dict_table(data)
    return _other_table(data)


def collected(data: Any) -> Any:
    """Return the rows of a lazy frame, asked for once, as the eager frame of its kind; other data as they are."""
    if hasattr(type(data), "iloc") or isinstance(data, Mapping) or hasattr(data, "to_pylist"):
        return data
    import narwhals as nw

    frame = nw.from_native(data, pass_through=True)
    return frame.collect().to_native() if isinstance(frame, nw.LazyFrame) else data


def kept(data: Any) -> Any:
    """Return what a fit keeps of data: columns that the caller puts, or rows that pandas writes, do not reach it.

    Nothing is copied: pandas (from version 3 on) copies when either frame is written to. Arrays of a dict are shared.
    """
    if hasattr(type(data), "iloc"):  # of the class: an instance would make an indexer
        return data.copy(deep=False)
    return dict(data) if isinstance(data, Mapping) else data


def narwhals_frame(data: Any) -> Any:
    """Return data other than a dict as narwhals' eager frame.

    Raises
    ------
    DataError
        If two columns have one name.
    """
    import narwhals.stable.v2 as nw
    from narwhals.exceptions import DuplicateError

    try:
        return nw.from_native(collected(data), eager_only=True)
    except DuplicateError as error:
        raise DataError(f"columns of the data have one name, rename them: {error}") from None


def _pandas_table(data: Any) -> Table:
    names = _pandas_names(data.columns)

    def read(name: str) -> Column:
        if names.count(name) > 1:
            raise DataError(f"the data have {names.count(name)} columns named {name!r}; rename them")
        return _pandas_values(name, data, names.index(name))

    return Table("pandas", len(data), names, read, data.index)


def _pandas_names(columns: Any) -> tuple[str, ...]:
    """Column names as text."""
    return _entries(columns, _texts)


def _texts(index: Any) -> tuple[str, ...]:
    return tuple(map(str, index))


Read = Callable[[Any], Sequence[Any]]
_LAST: dict[tuple[int, Read], tuple[Any, tuple[Any, ...]]] = {}
MOST_KEPT, MOST_ENTRIES = 64, 10_000


def _entries(index: Any, read: Read) -> tuple[Any, ...]:
    """Return what is read of a pandas Index; it never changes, and the last ones' is kept (reading is slow)."""
    key = id(index), read
    of, found = _LAST.get(key, (None, ()))
    if of is not None and of() is index:
        return found
    found = tuple(read(index))
    if len(_LAST) >= MOST_KEPT:
        _LAST.clear()
    if len(found) <= MOST_ENTRIES:
        _LAST[key] = weakref.ref(index), found
    return found


def _pandas_values(name: str, data: Any, at: int) -> Column:
    """Read a column as pandas keeps it: to make a Series of it takes longer than all else that is done with it."""
    get = getattr(data, "_get_column_array", None)
    values = None if get is None else get(at)
    if isinstance(values, np.ndarray):
        values = values.view()
        values.flags.writeable = False
        return array_column(name, values)
    if _is_categorical(values):
        return _pandas_codes(name, values)
    if _is_text(getattr(values, "dtype", None)):
        return _pandas_text(name, values)
    return pandas_column(name, data.iloc[:, at])


def _is_text(dtype: Any) -> bool:
    return getattr(dtype, "name", "") in ("str", "string") and not hasattr(dtype, "pyarrow_dtype")


def _pandas_text(name: str, values: Any) -> Column:
    codes, labels = values.factorize()
    return _sorted_text(factor_column(name, codes, Levels.of(_plain(labels)), False))


def _is_categorical(values: Any) -> bool:
    kind = type(values)  # to ask the class makes no arrays of codes
    return hasattr(kind, "codes") and hasattr(kind, "categories")


def _pandas_codes(name: str, values: Any) -> Column:
    dtype = values.dtype
    categories = dtype.categories
    levels = Levels(len(categories), lambda: list(_entries(categories, _plain)))
    return factor_column(name, values.codes, levels, bool(dtype.ordered))


def _arrow_table(data: Any) -> Table:
    def read(name: str) -> Column:
        if data.column_names.count(name) > 1:
            raise DataError(f"the data have {data.column_names.count(name)} columns named {name!r}; rename them")
        return arrow_column(name, data.column(name))

    return Table("pyarrow", data.num_rows, tuple(data.column_names), read)


def _dict_table(data: Mapping[str, Any]) -> Table:
    sizes = {str(k): _length(k, v) for k, v in data.items()}
    n = next((size for size in sizes.values() if size is not None), 1 if sizes else 0)
    for name, size in sizes.items():
        if size is not None and size != n:
            first = next(k for k, v in sizes.items() if v is not None)
            raise DataError(f"the columns differ in length: {first!r} has {n} rows, {name!r} has {size}")
    values = {str(k): v for k, v in data.items()}

    def read(name: str) -> Column:
        value = values[name]
        return any_column(name, [value] * n if sizes[name] is None else value)

    return Table("dict", n, tuple(values), read)


def _length(name: object, value: Any) -> int | None:
    """Rows of a dict's entry; None for a single value, which stands for all rows."""
    if isinstance(value, (set, frozenset, Mapping)):
        raise DataError(f"column {name!r} is a {type(value).__name__}; give a list or an array")
    if value is None or isinstance(value, (str, bytes)) or not hasattr(value, "__len__"):
        if hasattr(value, "__iter__") and not isinstance(value, (str, bytes)) and not hasattr(value, "shape"):
            raise DataError(f"column {name!r} is a {type(value).__name__}; give a list or an array")
        return None
    if getattr(value, "ndim", 1) == 0:
        return None
    if getattr(value, "ndim", 1) != 1:
        raise DataError(f"column {name!r} has {value.ndim} dimensions; a column has one")
    return len(value)


def _way_to_a_frame(data: Any) -> str:
    """Return how to make a frame of what was given, where that is plain."""
    if isinstance(data, str):
        return "; a formula comes first" if "~" in data else "; read the file first, as with pandas.read_csv"
    if isinstance(data, (list, tuple)) and data and isinstance(data[0], Mapping):
        return "; pandas.DataFrame(…) makes one of such rows"
    if isinstance(data, np.ndarray) and data.dtype.names:
        return "; pandas.DataFrame(…) makes one of its fields"
    if hasattr(data, "to_struct_array"):
        return "; pyarrow.Table.from_batches([…]) makes one of such rows"
    if isinstance(data, np.ndarray):
        return "; name its columns: pandas.DataFrame(…, columns=[…])"
    return ""


def _other_table(data: Any) -> Table:
    """Frames that only narwhals knows (modin, cudf, duckdb, ibis, lazy polars …)."""
    import narwhals as nw

    try:
        frame = nw.from_native(data)
    except TypeError:
        message = f"data are a pandas, polars or pyarrow frame, or a dict of arrays, not {type(data).__name__}"
        raise DataError(f"{message}{_way_to_a_frame(data)}") from None
    if isinstance(frame, nw.LazyFrame):
        frame = frame.collect()
    native = frame.to_native()
    if type(native) is not type(data) and not isinstance(data, nw.DataFrame):
        return read_table(native)
    if isinstance(data, nw.DataFrame):
        return read_table(native)
    return _arrow_table(frame.to_arrow())


# ---------------------------------------------------------------- columns of each kind


def any_column(name: str, values: Any) -> Column:
    """Read a column from a Series, an arrow array, a numpy array, or a sequence of Python values."""
    pandas, polars, pyarrow = (sys.modules.get(m) for m in ("pandas", "polars", "pyarrow"))
    if pandas is not None and isinstance(values, (pandas.Series, pandas.Index, pandas.api.extensions.ExtensionArray)):
        return pandas_column(name, pandas.Series(values, copy=False))
    if polars is not None and isinstance(values, polars.Series):
        return polars_column(name, values)
    if pyarrow is not None and isinstance(values, (pyarrow.Array, pyarrow.ChunkedArray)):
        return arrow_column(
            name, values if isinstance(values, pyarrow.ChunkedArray) else pyarrow.chunked_array([values])
        )
    if isinstance(values, np.ma.MaskedArray):
        return array_column(name, values.data, np.ma.getmaskarray(values))
    if not isinstance(values, np.ndarray):
        values = _array(values)
    return array_column(name, values)


def _array(values: Any) -> Array:
    """Read a list as an array, without turning numbers into text."""
    try:
        values = list(values)
        array = np.asarray(values)
    except (TypeError, ValueError):
        array = None
    if array is None or array.ndim != 1 or array.dtype.kind in "USO":
        array = np.empty(len(values), object)
        array[:] = values
    return array


def pandas_column(name: str, series: Any) -> Column:
    """Read a pandas Series."""
    dtype = series.dtype
    if isinstance(dtype, np.dtype):
        return array_column(name, series.to_numpy())
    array = series.array
    if _is_categorical(array):
        return _pandas_codes(name, array)
    kind = getattr(dtype, "kind", "O")
    if kind in "iufb":
        missing = np.asarray(series.isna().to_numpy(), bool)
        if not missing.any():
            return array_column(name, series.to_numpy(dtype=getattr(dtype, "numpy_dtype", None)))
        if kind in "iu":
            return array_column(name, series.fillna(0).to_numpy(dtype=getattr(dtype, "numpy_dtype", None)), missing)
        return array_column(name, series.to_numpy(dtype=np.float64, na_value=np.nan), missing, kind == "b")
    if kind in "mM":
        return time_column(name, series.astype(str).to_numpy(dtype=object), series.isna().to_numpy())
    if _is_text(dtype):
        return _pandas_text(name, array)
    if hasattr(dtype, "pyarrow_dtype"):
        import pyarrow as pa

        return arrow_column(name, pa.chunked_array([pa.array(array)]))
    return objects_column(name, series.to_numpy(dtype=object), np.asarray(series.isna().to_numpy(), bool))


def polars_column(name: str, series: Any) -> Column:
    """Read a polars Series."""
    dtype = str(series.dtype.base_type())
    if series.dtype.is_numeric() and dtype not in ("Decimal", "Int128", "UInt128"):
        if not series.null_count():
            return array_column(name, series.to_numpy())
        return array_column(name, series.fill_null(0).to_numpy(), series.is_null().to_numpy())
    if dtype == "Boolean":
        missing = series.is_null().to_numpy() if series.null_count() else None
        return array_column(name, series.fill_null(False).to_numpy(), missing)
    if dtype == "Enum":
        return replace(_polars_codes(name, series, series.dtype.categories.to_list()), listed=True)
    if dtype in ("Categorical", "String"):
        import polars as pl

        return _polars_text(name, series if dtype == "Categorical" else series.cast(pl.Categorical))
    if dtype in ("Date", "Datetime", "Time"):
        import polars as pl

        return time_column(name, series.cast(pl.String).to_numpy(), series.is_null().to_numpy())
    if dtype in ("Decimal", "Int128", "UInt128"):
        import polars as pl

        return polars_column(name, series.cast(pl.Float64))
    return objects_column(name, np.array([*series.to_list(), None], object)[:-1])


def _polars_text(name: str, series: Any) -> Column:
    """Read a Categorical: its codes depend on what else the process has seen, so the levels are sorted."""
    import polars as pl

    physical = series.to_physical()
    missing = series.is_null().to_numpy() if series.null_count() else None
    codes = (physical if missing is None else physical.fill_null(0)).to_numpy()
    rows = np.arange(len(codes)) if missing is None else np.flatnonzero(~missing)
    first = np.full(int(codes.max()) + 1 if len(codes) else 0, -1)
    first[codes if missing is None else codes[rows]] = rows
    used = np.flatnonzero(first >= 0)
    labels = series.gather(first[used]).cast(pl.String).to_list()
    order = sorted(range(len(labels)), key=labels.__getitem__)
    rank = np.full(len(first) + 1, -1, small_int(len(labels)))
    rank[used[order]] = np.arange(len(labels))
    out = rank[codes]
    if missing is not None:
        out[missing] = -1
    return replace(factor_column(name, out, Levels.of([labels[i] for i in order]), False), text=True)


def _polars_codes(name: str, series: Any, levels: list[str]) -> Column:
    physical = series.to_physical()
    if not series.null_count():
        return factor_column(name, _signed(physical.to_numpy(), len(levels)), Levels.of(levels), False)
    missing = series.is_null().to_numpy()
    codes = physical.fill_null(0).to_numpy().astype(small_int(len(levels)))
    codes[missing] = -1
    return factor_column(name, codes, Levels.of(levels), False)


def _signed(codes: Array, levels: int) -> Array:
    """Unsigned codes as signed ones, without a copy where the width allows it."""
    width = codes.dtype.itemsize
    if width <= 4 and levels <= (1 << (8 * width - 1)) - 1:
        return codes.view(f"i{width}")
    return codes.astype(np.int32)


def arrow_column(name: str, chunked: Any) -> Column:
    """Read a pyarrow ChunkedArray."""
    import pyarrow as pa

    if pa.types.is_dictionary(chunked.type):
        return _arrow_codes(name, chunked)
    kind = chunked.type
    missing = chunked.is_null().to_numpy() if chunked.null_count else None
    missing = None if missing is None else np.asarray(missing, bool)
    if pa.types.is_integer(kind):
        return array_column(name, (chunked if missing is None else chunked.fill_null(0)).to_numpy(), missing)
    if pa.types.is_floating(kind):
        return array_column(name, chunked.to_numpy(), missing)
    if pa.types.is_boolean(kind):
        return array_column(name, np.asarray(chunked.fill_null(False).to_numpy(), bool), missing)
    if pa.types.is_decimal(kind):
        return array_column(name, chunked.cast(pa.float64()).to_numpy(), missing)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or str(kind) == "string_view":
        return _sorted_text(_arrow_codes(name, chunked.cast(pa.large_string()).dictionary_encode()))
    if pa.types.is_temporal(kind) and not pa.types.is_duration(kind):
        return time_column(name, np.array(chunked.cast(pa.string()).to_pylist(), object), missing)
    if pa.types.is_null(kind):
        return array_column(name, np.full(len(chunked), np.nan))
    return objects_column(name, np.array([*chunked.to_pylist(), None], object)[:-1])


def _arrow_codes(name: str, chunked: Any) -> Column:
    array = chunked.unify_dictionaries().combine_chunks()
    if hasattr(array, "num_chunks"):  # no chunk at all
        array = array.chunk(0) if array.num_chunks else chunked.type.value_type and _empty(chunked.type)
    levels = array.dictionary
    indices = array.indices
    codes = indices.fill_null(0).to_numpy(zero_copy_only=False)
    codes = codes if codes.dtype in (np.int8, np.int16, np.int32) else codes.astype(np.int32)
    if indices.null_count:
        codes = codes.copy()
        codes[np.asarray(indices.is_null().to_numpy(zero_copy_only=False), bool)] = -1
    return factor_column(name, codes, Levels(len(levels), levels.to_pylist), bool(chunked.type.ordered))


def _empty(kind: Any) -> Any:
    import pyarrow as pa

    return pa.array([], kind)


def _sorted_text(column: Column) -> Column:
    """Return the same column with its levels sorted by code point."""
    labels = column.levels.tolist() if column.levels is not None else []
    order = sorted(range(len(labels)), key=labels.__getitem__)
    rank = np.empty(len(labels) + 1, small_int(len(labels)))
    rank[order] = np.arange(len(labels))
    rank[-1] = -1  # where codes are -1
    codes = rank[column.codes]
    return replace(factor_column(column.name, codes, Levels.of([labels[i] for i in order]), False), text=True)


def array_column(name: str, values: Array, missing: Array | None = None, truth: bool = False) -> Column:
    """Read a column from a numpy array; `truth`: numbers that stand for truth values."""
    if values.ndim != 1:
        raise DataError(f"column {name!r} has {values.ndim} dimensions; a column has one")
    usual = missing is None and not truth and values.flags.c_contiguous
    if usual and (values.dtype is WHOLE or (values.dtype is FLOAT and not any_nonfinite(values))):
        return Column(name, values)
    kind = values.dtype.kind
    if kind == "b" or truth:
        x = np.ascontiguousarray(values == 1 if truth else values)
        return Column(name, x, missing=missing if missing is not None and missing.any() else None)
    if kind in "iuf":
        return _number_column(name, values, missing)
    if kind in "mM":
        text = values.astype("m8[us]").astype(object) if kind == "m" else values  # numpy's text counts microseconds
        return time_column(name, np.array([str(v) for v in text], object), np.isnat(values))
    if kind in "UT":
        return objects_column(name, values.astype(object))
    if kind == "O":
        return objects_column(name, values, missing)
    raise DataError(f"column {name!r} holds {values.dtype}, which is neither numbers nor text")


def _number_column(name: str, values: Array, missing: Array | None) -> Column:
    code = NUMERIC.get(values.dtype.str[1:], "f8")
    x = np.ascontiguousarray(values, code) if values.dtype.str[0] != ">" else values.astype(code)
    if missing is not None and missing.any() and x.dtype.kind == "i":
        x = x.astype(np.float64)
    exact = values if values.dtype.kind in "iu" and x.dtype.kind == "f" and not _is_exact(x) else None
    if missing is not None and missing.any() and not np.isnan(x[missing]).all():
        x = x.copy()
        x[missing] = np.nan
    if not any_nonfinite(x):
        return Column(name, x, exact=exact)
    check_infinite(name, x)
    return Column(name, x, missing=np.isnan(x), exact=exact)


def _is_exact(x: Array) -> bool:
    """Tell whether whole numbers, here as float64, are all among those that float64 tells apart."""
    return not x.size or float(np.abs(x).max()) <= EXACT


def check_infinite(name: str, x: Array) -> None:
    """Raise an error that names the first infinite rows, if there are any."""
    infinite = np.isinf(x)
    if infinite.any():
        raise InfiniteError(f"{name!r} is infinite in {rows_of(infinite)}; remove these rows or mark them as missing")


def factor_column(name: str, codes: Array, levels: Levels, ordered: bool) -> Column:
    """Make a column of categories; codes below 0 are missing."""
    codes = np.ascontiguousarray(codes)
    if codes.dtype not in CODES:
        codes = codes.astype(np.int32)
    negative, complete = code_use(codes, len(levels))
    missing = codes < 0 if negative else None
    return Column(name, codes=codes, levels=levels, ordered=ordered, missing=missing, complete=complete)


def time_column(name: str, text: Array, missing: Array | None) -> Column:
    """Make a column of dates or times from their text; every kind of frame gets the same labels."""
    column = objects_column(name, np.asarray(text, object), missing)
    levels = None if column.levels is None else Levels.of([_moment(label) for label in column.levels])
    return Column(name, codes=column.codes, levels=levels, missing=column.missing, time=True)


MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d*?)0*)?([+-]\d\d:?\d\d|Z|)")


def _moment(text: str) -> str:
    """Return a date and time as "2020-01-31 12:30:00", the date alone at midnight without a zone; other text as is."""
    match = MOMENT.fullmatch(text)
    if match is None:
        return text
    day, clock, fraction, zone = match.groups()
    if clock == "00:00:00" and not fraction and not zone:
        return day
    return f"{day} {clock}{f'.{fraction}' if fraction else ''}{zone.replace('Z', '+00:00')}"


def objects_column(name: str, values: Array, missing: Array | None = None) -> Column:
    """Read a column of Python objects: all numbers, all truth values, or all text."""
    gone = np.fromiter((_is_missing(v) for v in values), bool, len(values)) if missing is None else missing
    present = values[~gone] if gone.any() else values
    types = {type(v) for v in present}
    if not types or all(issubclass(t, (str, np.str_)) for t in types):
        return _text_column(name, values, gone)
    if all(issubclass(t, (bool, np.bool_)) for t in types):
        return array_column(name, np.where(gone, False, values).astype(bool), gone)
    try:
        if any(issubclass(t, (str, bytes, bool, np.bool_)) for t in types):
            raise TypeError
        numbers = _object_numbers(values, gone, types)
    except OverflowError:
        raise DataError(
            f"column {name!r} holds whole numbers of more than 64 bits, which would not be told apart: make them text, "
            f"or smaller"
        ) from None
    except (TypeError, ValueError, ArithmeticError):
        names = ", ".join(sorted(t.__name__ for t in types))
        if len(types) == 1 and _is_label(only := next(iter(types))):
            text = np.array([None if g else str(v) for v, g in zip(values, gone, strict=True)], object)
            return (
                time_column(name, text, gone) if _is_time(only) else replace(_text_column(name, text, gone), text=False)
            )
        raise DataError(_mixture(name, present, np.flatnonzero(~gone), names)) from None
    return _number_column(name, numbers, gone if gone.any() else None)


def _object_numbers(values: Array, gone: Array, types: set[type]) -> Array:
    """Numbers of Python as an array: whole ones of up to 64 bits stay whole (0 where missing), others are float64."""
    if all(issubclass(t, (int, np.integer)) for t in types):
        whole = np.where(gone, 0, values)
        high = max(whole)
        if min(whole) >= -(2**63) and high < 2**64:
            return whole.astype(np.int64 if high < 2**63 else np.uint64)
        if len(set(map(float, whole))) < len(set(whole)):
            raise OverflowError
    return np.where(gone, np.nan, values).astype(np.float64)


def _mixture(name: str, present: Array, rows: Array, types: str) -> str:
    """Say what a column of several types holds; where numbers are spoilt by text, the first such text and its row."""
    message = f"column {name!r} mixes or holds values that are no numbers, text or truth values ({types})"
    odd = [i for i, value in enumerate(present) if isinstance(value, str)]
    if not odd:
        return message
    return (
        f"{message}: {present[odd[0]]!r} in row {rows[odd[0]]} (counted from 0) is text, as {len(odd)} of "
        f"{len(present)} values are; make them numbers (pandas.to_numeric(…, errors='coerce') leaves the "
        f"others missing), or all text"
    )


def _is_label(kind: type) -> bool:
    """Dates, intervals and whatever else has a text of its own can label groups; containers and bytes cannot."""
    own = (kind.__str__, kind.__repr__) != (object.__str__, object.__repr__)
    return own and not any("__len__" in vars(base) for base in kind.__mro__) and not issubclass(kind, Number)


def _is_time(kind: type) -> bool:
    """Dates, times, durations; pandas' periods know the time they start at."""
    return issubclass(kind, TIMES) or hasattr(kind, "start_time")


def _is_missing(value: Any) -> bool:
    """None, NaN, NaT and pandas' NA."""
    if value is None:
        return True
    try:
        return bool(value != value)
    except (TypeError, ValueError, ArithmeticError):  # pd.NA has no truth value; a signalling Decimal NaN raises
        return type(value).__name__ in ("NAType", "Decimal")


def _text_column(name: str, values: Array, gone: Array) -> Column:
    levels = sorted({str(v) for v in values[~gone]})
    index = {label: code for code, label in enumerate(levels)}
    if gone.any():
        pairs = zip(values, gone, strict=True)
        codes = np.fromiter((-1 if g else index[v] for v, g in pairs), small_int(len(levels)), len(values))
    else:
        codes = np.fromiter(map(index.__getitem__, values), small_int(len(levels)), len(values))
    return replace(factor_column(name, codes, Levels.of(levels), False), text=True)


def _plain(labels: Any) -> list[Any]:
    """Pandas' categories as str, int, float or bool."""
    return [v if isinstance(v, (str, int, float, bool)) else str(v) for v in labels.tolist()]


def written_numbers(value: Any) -> str:
    """Say that labels are numbers written as text, and what kept them from being read as numbers; "" of others.

    Parameters
    ----------
    value : Column or Categories
        With `codes` and `levels`.
    """
    text = [label for label in value.levels or () if isinstance(label, str)]
    odd = [label for label in text if not is_number(label)]
    if len(odd) > len(text) / 2 and all(is_number(label.replace(",", ".", 1)) for label in text):
        return "they are numbers with decimal commas, written as text: convert the column"
    if not text or len(odd) > len(text) / 2:
        return ""
    reason = f" because of {where_found(value, odd)}" if odd else ""
    return f"they are numbers written as text{reason}: convert the column{AS_MISSING if odd else ''}"


#: How a column of numbers that some texts spoil becomes one of numbers.
AS_MISSING = " (pandas.to_numeric(…, errors='coerce'), or ranef fit --na, makes the others missing)"


def strays(labels: Sequence[Any]) -> list[str]:
    """Return the few texts among labels that are numbers else; none where they are many, or numbers are few."""
    text = [label for label in labels if isinstance(label, str)]
    odd = [label for label in text if not is_number(label)]
    return odd if len(text) >= FEW_NUMBERS and len(odd) <= len(text) / 10 else []


def where_found(value: Any, labels: Sequence[str]) -> str:
    """Return some labels of categories and the first rows that have them."""
    wanted = [i for i, label in enumerate(value.levels) if label in set(labels)]
    return f"{shorten(labels, 3)} in {rows_of(np.isin(value.codes, wanted))}"


def is_number(text: str) -> bool:
    """Whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def as_factor(column: Column) -> Column:
    """Return the column as categories: numbers by sorted value, truth values as False, True."""
    if column.codes is not None or column.x is None:
        return column
    x, missing = column.x if column.exact is None else column.exact, column.missing
    if x.dtype.kind == "b":
        codes = x.astype(np.int8)
        if missing is not None:
            codes[missing] = -1
        return factor_column(column.name, codes, Levels.of([False, True]), False)
    if missing is None:
        codes, uniques = factorize(x)
        return factor_column(column.name, codes, Levels(len(uniques), uniques.tolist), False)
    codes = np.full(len(x), -1, np.int32)
    codes[~missing], uniques = factorize(x[~missing])
    return factor_column(column.name, codes, Levels(len(uniques), uniques.tolist), False)
