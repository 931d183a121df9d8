"""Tables of the kind of frame that came in."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import narwhals.stable.v2 as nw

BACKENDS = ("pandas", "polars", "pyarrow")


def to_frame(columns: Mapping[str, Any], kind: str, index: Any = None) -> Any:
    """Columns as a frame of that kind; for kind "dict" as the first kind installed, or a dict.

    `index` becomes the index where the frame is pandas'.
    """
    backend = kind if kind in BACKENDS else _installed()
    if backend is None:
        return dict(columns)
    frame = nw.from_dict(dict(columns), backend=backend).to_native()
    return frame.set_axis(index, axis=0) if index is not None and backend == "pandas" else frame


def _installed() -> Any:
    return next((name for name in BACKENDS if find_spec(name)), None)
