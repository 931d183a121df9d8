"""A prior: which density, its parameters, what it is of. No engine, no model: names of parameters are matched later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranef import _core
from ranef.errors import OptionError

Array = NDArray[np.float64]
Number = float | Sequence[float]


@cache
def kinds() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return what every density is of, and the names of its parameters, as the core has them."""
    return {name: (of, tuple(names)) for name, of, names in _core.priors()}


@dataclass(frozen=True, slots=True)
class Prior:
    """A prior density.

    Attributes
    ----------
    name : str
        "normal", "gamma", "wishart" …; "point" holds a parameter at a value, "flat" is none.
    parameters : tuple
        Numbers in the order of the table; one may be a tuple, with a number for each coefficient (the last one is
        repeated), or None where it depends on the size of the covariance.
    scale : tuple of float
        Scale matrix of a Wishart, by columns; scales of a multivariate t. Empty: improper.
    common_scale : bool
        Whether it is a prior of the value divided by the residual standard deviation (covariances: by its square).
    """

    name: str
    parameters: tuple[float | tuple[float, ...] | None, ...]
    scale: tuple[float, ...] = ()
    common_scale: bool = False

    @property
    def of(self) -> str:
        """What it is of: "real", "positive", "vector", "covariance", "correlation"; "any" for a point or none."""
        return "any" if self.name in ("point", "flat") else kinds()[self.name][0]

    @property
    def several(self) -> bool:
        """Whether it has a number for each of several coefficients."""
        return any(isinstance(p, tuple) for p in self.parameters)

    def at(self, position: int) -> Prior:
        """Return the prior of the coefficient at a position: entries of tuples, the last one repeated."""
        picked = (p[min(position, len(p) - 1)] if isinstance(p, tuple) else p for p in self.parameters)
        return replace(self, parameters=tuple(picked))

    def sized(self, k: int) -> Prior:
        """Return the prior of a k x k matrix: degrees of freedom left out become k + 2.5, a scalar scale s s I."""
        parameters = tuple(k + 2.5 if p is None else p for p in self.parameters)
        if len(self.scale) == 1 and k > 1:
            return replace(self, parameters=parameters, scale=tuple((np.eye(k) * self.scale[0]).ravel().tolist()))
        if self.scale and len(self.scale) != k * k:
            raise OptionError(f"prior {self}: its scale is no {k} x {k} matrix")
        return replace(self, parameters=parameters)

    @property
    def numbers(self) -> list[float]:
        """Its parameters as the core takes them."""
        return [*(float(p) for p in self.parameters if p is not None and not isinstance(p, tuple)), *self.scale]

    def log_density(self, x: Any) -> Any:
        """Log density of each number, or of one vector or (k, k) matrix; an improper density has no constant."""
        values = np.asarray(x, dtype=np.float64)
        found = np.asarray(_core.prior_log_density(self.name, self.numbers, np.ascontiguousarray(values.ravel())))
        return float(found[0]) if found.size == 1 else found.reshape(values.shape)

    def __str__(self) -> str:
        shown = [_text(p) for p in self.parameters if p is not None]
        if self.of == "any":
            return f"{self.name}({', '.join(shown)})"
        names = kinds()[self.name][1]
        told = [f"{n}={v}" for n, v in zip(names, shown, strict=False)]
        scale = [f"scale={_text(self.scale)}"] if self.scale else []
        common = ["common scale"] if self.common_scale else []
        return f"{self.name}({', '.join([*told, *scale, *common])})"


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        inner = ", ".join(f"{v:g}" for v in value)
        return inner if len(value) == 1 else f"[{inner}]"
    return f"{value:g}"


def number(value: Any, what: str, positive: bool = False, zero: bool = False) -> float | tuple[float, ...]:
    """Return a parameter as a float or a tuple of floats, checked."""
    values = np.atleast_1d(np.asarray(value, dtype=np.float64))
    legal = np.isfinite(values) & (values > 0 if positive and not zero else values >= 0 if positive else True)
    if values.ndim != 1 or not values.size or not legal.all():
        wanted = "a number of at least 0" if zero else "a number above 0" if positive else "a number"
        raise OptionError(f"prior: {what}={value!r} is not {wanted}")
    return float(values[0]) if np.ndim(value) == 0 else tuple(values.tolist())
