"""Vectors and matrices with names: pandas objects where pandas came in, small read-only types otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines.estimate import Array
from ranef.errors import NotAvailableError, OptionError, UnknownColumnError, nearest

if TYPE_CHECKING:
    from ranef.model import Fit


@dataclass(frozen=True, eq=False, repr=False)
class NamedVector(Mapping[str, float]):
    """A read-only mapping from name to number that numpy reads as a vector."""

    names: tuple[str, ...]
    values_: Array

    def __getitem__(self, name: str) -> float:
        return float(self.values_[position(name, self.names)])

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.array(self.values_, dtype=dtype) if copy or dtype is not None else self.values_

    def __repr__(self) -> str:
        width = max(map(len, self.names), default=0)
        return "\n".join(f"{name:<{width}}  {value:.6g}" for name, value in self.items())


@dataclass(frozen=True, eq=False, repr=False)
class NamedMatrix(Mapping[str, NamedVector]):
    """A read-only symmetric matrix: `m["a"]["b"]` and `m["a", "b"]` are entries, numpy reads it as a matrix."""

    names: tuple[str, ...]
    values_: Array

    def __getitem__(self, name: Any) -> Any:
        if isinstance(name, tuple):
            return self[name[0]][name[1]]
        return NamedVector(self.names, self.values_[position(name, self.names)])

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.array(self.values_, dtype=dtype) if copy or dtype is not None else self.values_

    def __repr__(self) -> str:
        width = max(map(len, self.names), default=0)
        cells = [[f"{v:.6g}" for v in row] for row in self.values_]
        wide = [max(len(n), *(len(r[j]) for r in cells)) for j, n in enumerate(self.names)]
        head = " " * width + "".join(f"  {n:>{w}}" for n, w in zip(self.names, wide, strict=True))
        rows = (
            f"{n:<{width}}" + "".join(f"  {c:>{w}}" for c, w in zip(row, wide, strict=True))
            for n, row in zip(self.names, cells, strict=True)
        )
        return "\n".join([head, *rows])


def position(name: Any, names: tuple[str, ...]) -> int:
    """Where `name` stands among `names`.

    Raises
    ------
    UnknownColumnError
        If it is not there; the nearest is named.
    """
    if name not in names:
        raise UnknownColumnError(f"there is no {name!r}; {nearest(name, names)}")
    return names.index(name)


def named_vector(names: tuple[str, ...], values: Array, kind: str) -> Any:
    """Return a pandas Series where pandas came in, else a `NamedVector`."""
    if kind != "pandas":
        return NamedVector(names, values)
    import pandas as pd

    return pd.Series(values, index=list(names), copy=True)


def named_matrix(names: tuple[str, ...], values: Array, kind: str) -> Any:
    """Return a pandas DataFrame where pandas came in, else a `NamedMatrix`."""
    if kind != "pandas":
        return NamedMatrix(names, values)
    import pandas as pd

    return pd.DataFrame(values, index=list(names), columns=list(names), copy=True)


def coefficients(m: Fit, component: str) -> Any:
    """Coefficients of a component by name, or of all of them."""
    names, at = names_of(m, component)
    return named_vector(names, m.estimate.beta[at], m.layout.kind)


def names_of(m: Fit, component: str) -> tuple[tuple[str, ...], slice]:
    """Names of the coefficients of a component, or of all ("dispersion.(Intercept)"), and where they stand.

    Raises
    ------
    OptionError
        If the model has no such component.
    """
    if component != "all":
        found = m.layout.component(component)
        return found.names, found.at
    parts = m.layout.components
    names = (name if c.name == "mean" else f"{c.name}.{name}" for c in parts for name in c.names)
    return tuple(names), slice(None)


def vcov(m: Fit, component: str, kind: str, cluster: Any = None, full: bool = False) -> Any:
    """Covariance matrix of the coefficients of a component, or `full`, of all parameters.

    Raises
    ------
    OptionError, NotAvailableError
    """
    if full:
        _check_full(component, kind, cluster)
        from ranef.inference.deltas import full_covariance

        return named_matrix(*full_covariance(m), m.layout.kind)
    names, at = names_of(m, component)
    return named_matrix(names, _vcov(m, kind, cluster)[at, at], m.layout.kind)


def _check_full(component: str, kind: str, cluster: Any) -> None:
    """Refuse what does not go with all parameters."""
    if component not in ("mean", "all"):
        raise OptionError(f"vcov: full=True is of all parameters; leave component={component!r} out")
    if str(kind).lower() != "model" or cluster is not None:
        raise NotAvailableError(
            f"vcov: kind={kind!r} is a covariance of coefficients; full=True, which adds variance parameters, is that "
            f"of the model, kind='model' without cluster="
        )


def _vcov(m: Fit, kind: str, cluster: Any) -> Array:
    """Covariance of all coefficients, by the method that `kind` names."""
    name = str(kind).lower()
    if name not in ("model", "kenward-roger", "kr"):
        from ranef.inference.robust.sandwich import sandwich

        return sandwich(m, kind, cluster).vcov
    if cluster is not None:
        raise OptionError(f"vcov: kind={kind!r} knows no clusters; cluster= goes with kind='CR0' … 'CR3'")
    from ranef.inference.ddf import METHODS, default_method, method_of

    if name == "model":
        return np.asarray(default_method(m).vcov(m))
    return np.asarray(method_of(m, METHODS["kenward-roger"].name).vcov(m))
