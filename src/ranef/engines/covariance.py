"""Covariances of coefficients that are formed when somebody asks: of many levels in parts, of other fits later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ranef.errors import NotAvailableError
from ranef.frame.blocks import MOST_WHOLE

Array = NDArray[np.float64]
MOST_ENTRIES = 100_000_000  # of the solves that a part of a covariance takes


def most_written() -> int:
    """Return how many coefficients have a covariance matrix that is written out although it is made of parts."""
    return int(MOST_WHOLE**0.5)


class PartialCovariance:
    """The covariance of coefficients most of which are levels of wide factors: a matrix that is never formed.

    It answers for what is small, as an array would: the diagonal, the block of all other coefficients, blocks of a few
    coefficients of any kind and combinations of them, which take a triangular solve each. Up to `MOST_WHOLE` entries
    the whole matrix is written out where somebody asks for it; beyond, that is refused.

    Parameters
    ----------
    dense : (d, d) array
        The block of the coefficients at `columns`; NaN where dropped.
    columns : (d,) array of int
    wide : sequence of (int, int)
        First coefficient and number of coefficients of every wide factor.
    core : object, optional
        Answers `level_variances()`, `covariance_of(columns)` and `covariance_of_rows(rows)` at the fit's theta.
    """

    __slots__ = ("_core", "_diagonal", "columns", "dense", "size", "wide")

    def __init__(self, dense: Array, columns: Any, wide: Any, core: Any = None) -> None:
        self.dense, self.columns, self.wide = dense, np.asarray(columns, dtype=np.int64), tuple(wide)
        self.size = len(self.columns) + sum(count for _, count in self.wide)
        self._core, self._diagonal = core, None

    @property
    def shape(self) -> tuple[int, int]:
        """That of the whole matrix."""
        return self.size, self.size

    @property
    def fits(self) -> bool:
        """Whether the whole matrix can be written out."""
        return self.size <= most_written()

    @property
    def levels(self) -> NDArray[np.bool_]:
        """Which coefficients are levels of wide factors, (size,)."""
        out = np.ones(self.size, dtype=bool)
        out[self.columns] = False
        return out

    def between(self, rows: Array) -> Array:
        """Return L V L' of (r, size) rows; weights on dropped coefficients are not looked at."""
        rows = np.ascontiguousarray(rows, dtype=np.float64)
        if not rows[:, self.levels].any():
            inner = rows[:, self.columns]
            return inner @ np.nan_to_num(self.dense) @ inner.T
        return np.asarray(self._solver().covariance_of_rows(rows))

    def attach(self, core: Any) -> None:
        """Take a core that was restored."""
        self._core = core

    def diagonal(self) -> Array:
        """Return the variances of all coefficients; NaN where dropped."""
        if self._diagonal is None:
            out, levels = np.empty(self.size), np.asarray(self._solver().level_variances())
            out[self.columns] = self.dense.diagonal()
            for first, count in self.wide:
                out[first : first + count], levels = levels[:count], levels[count:]
            self._diagonal = frozen(out)
        return self._diagonal

    def __getitem__(self, at: tuple[Any, Any]) -> Any:
        rows, cols = (np.arange(self.size)[i] for i in at)
        wanted, back = np.unique(np.concatenate([np.ravel(rows), np.ravel(cols)]), return_inverse=True)
        block = self._block(wanted)
        i, j = back[: np.size(rows)].reshape(np.shape(rows)), back[np.size(rows) :].reshape(np.shape(cols))
        return block[np.ix_(i, j)] if i.ndim == 1 and j.ndim == 1 and isinstance(at[0], slice) else block[i, j]

    def _block(self, wanted: Any) -> Array:
        place = np.searchsorted(self.columns, wanted)
        place = np.minimum(place, len(self.columns) - 1)
        if len(self.columns) and (self.columns[place] == wanted).all():
            return self.dense[np.ix_(place, place)]
        if len(wanted) * self.size > MOST_ENTRIES:
            self.refuse()
        return np.asarray(self._solver().covariance_of(wanted.tolist()))

    def _solver(self) -> Any:
        if self._core is None:
            raise NotAvailableError("standard errors of a fixed factor of many levels went with the core of this fit")
        return self._core

    def refuse(self) -> Any:
        """Raise: the whole matrix does not exist."""
        raise NotAvailableError(
            f"this needs the covariance matrix of all {self.size:,} coefficients ({8 * self.size**2 / 1e9:,.0f} GB), "
            f"which is written out up to {most_written():,}: tidy() has all standard errors, rf.contrast(m, …) "
            f"tests a few coefficients or their differences, rf.anova(m) and rf.drop1(m) whole terms"
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        whole = self[:, :] if self.fits else self.refuse()
        return whole if dtype is None else whole.astype(dtype)

    def __getstate__(self) -> Any:
        return None, {
            "columns": self.columns,
            "dense": self.dense,
            "size": self.size,
            "wide": self.wide,
            "_core": None,
            "_diagonal": self.diagonal(),
        }


class AtTheta:
    """A core that several fits share: it moves to the theta of one of them when it is asked for covariances.

    Parameters
    ----------
    core : the linear engine's core
    theta : (m,) array
    reml : bool
    sigma : float
        The fit's; the core's own belongs to another response.
    """

    __slots__ = ("_core", "_reml", "_sigma", "_theta")

    def __init__(self, core: Any, theta: Array, reml: bool, sigma: float) -> None:
        self._core, self._theta, self._reml, self._sigma = core, np.array(theta), reml, sigma

    def _scale(self) -> float:
        return float((self._sigma / self._core.evaluate(self._theta, self._reml)["sigma"]) ** 2)

    def level_variances(self) -> Array:
        """Variances of the levels of wide factors."""
        with self._core.turn:
            return self._scale() * np.asarray(self._core.level_variances())

    def covariance_of(self, columns: list[int]) -> Array:
        """Covariances of some coefficients."""
        with self._core.turn:
            return self._scale() * np.asarray(self._core.covariance_of(columns))

    def covariance_of_rows(self, rows: Array) -> Array:
        """Covariances of combinations of them."""
        with self._core.turn:
            return self._scale() * np.asarray(self._core.covariance_of_rows(rows))


class Deferred:
    """A matrix that is computed when somebody looks; it pickles as what it holds."""

    __slots__ = ("_make", "_value")

    def __init__(self, make: Callable[[], Any] | None, value: Any = None) -> None:
        self._make, self._value = make, value

    def __call__(self) -> Any:
        """Return the matrix."""
        make = self._make  # another thread may have it made meanwhile
        if self._value is None and make is not None:
            self._value = frozen(make())
            self._make = None
        return self._value

    def __reduce__(self) -> tuple[Any, ...]:
        return Deferred, (None, self())


def frozen(array: Any) -> Array:
    """Return the array, read-only."""
    out = np.asarray(array, dtype=np.float64)
    out.flags.writeable = False
    return out


def coefficient_covariance(found: Mapping[str, Any], core: Any, reml: bool, at_optimum: bool) -> Array:
    """Return the covariance of the coefficients; where it is partial, it stands in for an array."""
    dense, wide = frozen(found["vcov"]), core.wide
    if not wide:
        return dense
    solver = core if at_optimum else AtTheta(core, found["theta"], reml, float(found["sigma"]))
    return cast("Array", PartialCovariance(dense, core.columns, wide, solver))
