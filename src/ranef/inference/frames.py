"""Tables of the kind of frame that came in."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import narwhals.stable.v2 as nw

BACKENDS = ("pandas", "polars", "pyarrow")


def to_frame(columns: Mapping[str, Any], kind: str) -> Any:
    """Columns as a frame of that kind; for kind "dict" as the first kind installed, or a dict."""
    backend = kind if kind in BACKENDS else _installed()
    return dict(columns) if backend is None else nw.from_dict(dict(columns), backend=backend).to_native()


def _installed() -> Any:
    return next((name for name in BACKENDS if find_spec(name)), None)
