"""The loops over rows: Rust's where the compiled core has them, numpy's otherwise. Same answers, other speed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

try:
    from ranef import _core as _rust
except ImportError:  # not built yet
    _rust = None


def _compiled(name: str, fallback: Callable[..., Any]) -> Callable[..., Any]:
    return getattr(_rust, name, fallback)


def small_int(levels: int) -> Any:
    """Return the narrowest integer type that the core reads and that holds codes below `levels`."""
    return np.int8 if levels <= 127 else np.int16 if levels <= 32767 else np.int32


def _any_nonfinite(x: Array) -> bool:
    return not bool(np.isfinite(x).all())


def any_nonfinite(x: Array) -> bool:
    """Tell whether x has NaN or an infinity; integers never have any."""
    if x.dtype.kind != "f" or not x.size:
        return False
    return bool(_any_nonfinite_impl(x) if x.dtype == np.float64 and x.flags.c_contiguous else _any_nonfinite(x))


def _is_count(x: Array) -> bool:
    return bool(((x >= 0) & (x == np.floor(x))).all())


def is_count(x: Array) -> bool:
    """Tell whether all of a float64 column are whole numbers of at least 0; NaN is none."""
    return bool(_is_count_impl(x) if x.flags.c_contiguous else _is_count(x))


def _is_constant(x: Array) -> bool:
    return bool((x == x[:1]).all())


def is_constant(x: Array) -> bool:
    """Tell whether all of a float64 column are one number; of none they are, NaN is none."""
    return bool(_is_constant_impl(x) if x.flags.c_contiguous else _is_constant(x))


def _level_counts(codes: Array, levels: int) -> Array:
    return np.bincount(codes, minlength=levels)


def level_counts(codes: Array, levels: int) -> Array:
    """Rows per level; every code lies in 0..levels-1."""
    return np.asarray(_level_counts_impl(codes, levels))


def code_use(codes: Array, levels: int) -> tuple[bool, bool]:
    """Whether a code is negative (a missing value), and whether every level 0..levels-1 occurs."""
    return _code_use_impl(codes, levels)


def _code_use(codes: Array, levels: int) -> tuple[bool, bool]:
    known = codes[(codes >= 0) & (codes < levels)]
    return bool((codes < 0).any()), bool(np.bincount(known, minlength=levels).all())


def _factorize_int(x: Array) -> tuple[Array, Array]:
    low, high = int(x.min()), int(x.max())
    if high - low > 4 * x.size + 1000:
        uniques, codes = np.unique(x, return_inverse=True)
        return codes.astype(np.int32), uniques
    used = np.zeros(high - low + 1, bool)
    shifted = x - low
    used[shifted] = True
    rank = np.cumsum(used, dtype=np.int32) - np.int32(1)
    return rank[shifted], np.flatnonzero(used) + low


def factorize(x: Array) -> tuple[Array, Array]:
    """Codes by sorted distinct values, and those values."""
    if not x.size:
        return np.zeros(0, np.int32), x
    if x.dtype.kind in "iu" and x.dtype.itemsize <= 8 and x.dtype != np.uint64:
        return _factorize_int_impl(np.ascontiguousarray(x, np.int64))
    uniques, codes = np.unique(x, return_inverse=True)
    return codes.astype(np.int32), uniques


def _combine_codes(a: Array, _levels_a: int, b: Array, levels_b: int) -> tuple[Array, Array]:
    key = a.astype(np.int64) * levels_b + b
    codes, keys = _factorize_int(key)
    return codes, np.column_stack(np.divmod(keys, levels_b))


def combine_codes(a: Array, levels_a: int, b: Array, levels_b: int) -> tuple[Array, Array]:
    """Codes of the pairs that occur, and the pairs sorted by (a, b)."""
    return _combine_codes_impl(a, levels_a, b, levels_b)


_any_nonfinite_impl = _compiled("any_not_finite", _any_nonfinite)
_is_count_impl = _compiled("is_count", _is_count)
_is_constant_impl = _compiled("is_constant", _is_constant)
_code_use_impl = _compiled("code_use", _code_use)
_level_counts_impl = _compiled("level_counts", _level_counts)
_factorize_int_impl = _compiled("factorize_int", _factorize_int)
_combine_codes_impl = _compiled("combine_codes", _combine_codes)
