"""Data frames of any kind as aligned text."""

from __future__ import annotations

from typing import Any

import narwhals as nw

from ranef.report._table import Table, aligned, columns, degrees, p_values
from ranef.report._text import table_lines


def table_text(frame: Any, max_rows: int = 60) -> str:
    """Return a data frame as aligned text, numbers to about five significant digits.

    Parameters
    ----------
    frame : data frame
        pandas, polars, pyarrow or anything narwhals reads, such as what `tidy()` returns.
    max_rows : int
        Rows shown; a last line counts the others.
    """
    data = nw.from_native(frame, eager_only=True)
    shown = data.head(max_rows)
    lines = table_lines(_table(shown))
    left_out = len(data) - len(shown)
    return "\n".join([*lines, f"... {left_out:,} more rows"] if left_out else lines) + "\n"


def _table(data: nw.DataFrame[Any]) -> Table:
    labels = [s.name for s in data.iter_columns() if not s.dtype.is_numeric()]
    order = [*labels, *(c for c in data.columns if c not in labels)]
    return columns(order, [_cells(data[name]) for name in order], left=len(labels))


def _cells(s: nw.Series[Any]) -> list[str]:
    if not s.dtype.is_numeric() or s.dtype.is_integer():
        return ["" if v is None else str(v) for v in s.to_list()]
    values = s.cast(nw.Float64()).to_numpy()
    special = {"p_value": p_values, "df": degrees}.get(s.name)
    return special(values) if special else aligned(values)
