"""Small data of every kind for the tests of the frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

KINDS = ["pandas", "pandas-odd", "pandas-nullable", "pandas-arrow", "polars", "pyarrow", "dict", "dict-lists"]


def columns(n: int = 60, seed: int = 1) -> dict[str, Any]:
    """Numbers, whole numbers, truth values, text and groups, as lists of Python values."""
    rng = np.random.default_rng(seed)
    return {
        "y": rng.normal(size=n).tolist(),
        "x": rng.normal(size=n).tolist(),
        "z": (rng.normal(size=n) + 3).tolist(),
        "pos": rng.gamma(2, 2, size=n).tolist(),
        "k": rng.integers(1, 5, size=n).tolist(),
        "b": (rng.random(n) > 0.5).tolist(),
        "f": [["lo", "mid", "hi"][i] for i in rng.integers(0, 3, n)],
        "h": [["p", "q"][i] for i in rng.integers(0, 2, n)],
        "g": [f"g{i:02d}" for i in rng.integers(0, 8, n)],
        "i": rng.integers(100, 106, n).tolist(),
    }


def frame(kind: str, data: dict[str, Any]) -> Any:
    """The same data as a frame of some kind."""
    if kind == "dict-lists":
        return data
    if kind == "dict":
        return {name: np.array(values, object if None in values else None) for name, values in data.items()}
    if kind == "polars":
        return pl.DataFrame(data)
    if kind == "pyarrow":
        return pa.table(data)
    out = pd.DataFrame(data)
    if kind == "pandas-odd":
        out.index = pd.Index(["a", "a", "b"] * (len(out) // 3) + ["z"] * (len(out) % 3))
    if kind == "pandas-nullable":
        out = out.convert_dtypes()
    if kind == "pandas-arrow":
        out = out.convert_dtypes(dtype_backend="pyarrow")
    return out


def dense(design: Any) -> dict[str, Any]:
    """Everything of a design as plain values."""
    from ranef.frame import matrix

    return {
        "n": design.n,
        "names": design.fixed_names,
        "X": matrix(design.fixed, design.n),
        "y": design.y,
        "weights": design.weights,
        "offset": design.offset,
        "rows": design.rows,
        "dropped": design.dropped,
        "terms": [
            (t.label, t.names, t.structure, t.codes, list(t.levels), matrix(t.blocks, design.n)) for t in design.terms
        ],
    }


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    """Compare two results of `dense`."""
    np.testing.assert_equal(a, b)
