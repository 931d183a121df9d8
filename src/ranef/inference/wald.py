"""Wald tests and intervals: t with the given degrees of freedom, normal where they are infinite."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ranef.engines.estimate import Array
from ranef.errors import OptionError

#: How intervals are made, see `confint`.
METHODS = ("wald", "profile", "boot")


def p_value(statistic: Array, df: Array) -> Array:
    """Two-sided p-value."""
    from scipy.special import ndtr, stdtr

    below = -np.abs(statistic)
    return 2 * np.where(np.isinf(df), ndtr(below), stdtr(np.where(np.isinf(df), 1.0, df), below))


def quantile(level: float, df: Array | float = np.inf) -> Array:
    """Half-width of a two-sided interval, in standard errors.

    Raises
    ------
    OptionError
        If the level is not between 0 and 1.
    """
    from scipy.special import ndtri, stdtrit

    if not isinstance(level, (int, float, np.number)) or not 0 < level < 1:
        raise OptionError(f"confidence level {level!r} must lie between 0 and 1, for example 0.95")
    above, d = (1 + level) / 2, np.asarray(df, dtype=float)
    return np.where(np.isinf(d), ndtri(above), stdtrit(np.where(np.isinf(d), 1.0, d), above))


def f_p_value(statistic: ArrayLike, numdf: ArrayLike, dendf: ArrayLike) -> Array:
    """Upper tail of F; of chi-square / numdf where the denominator's degrees of freedom are infinite; NaN without any.

    A statistic that is negative (a scale that a method could not determine) has no p-value.
    """
    from scipy.special import chdtrc, fdtrc

    f, q, d = np.broadcast_arrays(
        np.asarray(statistic, dtype=float), np.asarray(numdf, dtype=float), np.asarray(dendf, dtype=float)
    )
    legal = (f >= 0) & (q > 0) & (d > 0)
    f, q = np.where(legal, f, 0.0), np.where(legal, q, 1.0)
    endless = np.isinf(d)
    finite = fdtrc(q, np.where(legal & ~endless, d, 1.0), f)
    return np.where(legal, np.where(endless, chdtrc(q, q * f), finite), np.nan)
