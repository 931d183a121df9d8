"""What the functions of a formula compute. The names are in `ranef.formula.functions`; a test compares the two tables.

An elementwise function takes float arrays. A stateful one, `f(x, state, **options)`, puts into the empty dict `state`
what it needs from the fitted data (knots, means …) and finds it there for new data; row i of its result then depends
on x[i] and `state` only, computed by the same elementwise operations, so that one row of new data gives the in-sample
row to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ranef.errors import DataError
from ranef.frame.design import Array

MAX_COLUMNS = 100


@dataclass(frozen=True)
class Matrix:
    """Several numeric columns from one call, with the endings of their names (numbers, unless they are given).

    `labels` are what the call itself says of its columns: the texts or names of the arguments of cbind().
    """

    columns: tuple[Array, ...]
    names: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    @property
    def endings(self) -> tuple[str, ...]:
        """What follows the label of the call in the names of the columns."""
        if self.names and len(self.columns) > 1:
            return self.names
        return tuple(str(i + 1) for i in range(len(self.columns))) if len(self.columns) > 1 else ("",)


State = dict[str, Any]


# ---------------------------------------------------------------- elementwise


def log(x: Array, base: Any = None) -> Array:
    """R's `log(x, base)`."""
    return np.log(x) if base is None else np.log(x) / np.log(base)


def round_(x: Array, digits: Any = 0) -> Array:
    """R's `round(x, digits)`."""
    return np.round(x, int(digits))


def maximum(*xs: Array) -> Array:
    """Return the largest of several values, row by row."""
    out = xs[0]
    for x in xs[1:]:
        out = np.maximum(out, x)
    return out


def minimum(*xs: Array) -> Array:
    """Return the smallest of several values, row by row."""
    return -maximum(*(-np.asarray(x) for x in xs))


def where(test: Array, yes: Array, no: Array) -> Array:
    """R's `ifelse`."""
    return np.where(test, yes, no)


def plogis(x: Array) -> Array:
    """R's `plogis`: the inverse of the logit."""
    from scipy.special import expit

    return np.asarray(expit(x))


def qlogis(p: Array) -> Array:
    """R's `qlogis`: the logit."""
    from scipy.special import logit

    return np.asarray(logit(p))


def pnorm(x: Array) -> Array:
    """R's `pnorm`: the standard normal distribution function."""
    from scipy.special import ndtr

    return np.asarray(ndtr(x))


def qnorm(p: Array) -> Array:
    """R's `qnorm`: the standard normal quantile."""
    from scipy.special import ndtri

    return np.asarray(ndtri(p))


def sinpi(x: Array) -> Array:
    """Return sin(pi x), exact at whole and half numbers."""
    return cospi(np.asarray(x) - 0.5)


def cospi(x: Array) -> Array:
    """Return cos(pi x), exact at whole and half numbers."""
    turn = np.abs(np.remainder(np.asarray(x, np.float64) + 1, 2) - 1)  # in [0, 1]
    return np.where(turn == 0.5, 0.0, np.cos(np.pi * turn))


_SAME = [
    "abs",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "cbrt",
    "ceil",
    "cos",
    "cosh",
    "exp",
    "exp2",
    "expm1",
    "floor",
    "log10",
    "log1p",
    "log2",
    "power",
    "rint",
    "sign",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "tan",
    "tanh",
    "trunc",
]


def _of_columns(function: np.ufunc) -> Callable[..., Any]:
    """Return a function of NumPy that takes its columns and nothing else: not where to write the result."""

    def one(x: Any) -> Any:
        return function(x)

    def two(x: Any, y: Any) -> Any:
        return function(x, y)

    return one if function.nin == 1 else two


_NUMPY = {name: _of_columns(getattr(np, name)) for name in _SAME}
ELEMENTWISE: dict[str, Callable[..., Any]] = {
    **_NUMPY,
    "acos": _NUMPY["arccos"], "acosh": _NUMPY["arccosh"], "asin": _NUMPY["arcsin"], "asinh": _NUMPY["arcsinh"],
    "atan": _NUMPY["arctan"], "atan2": _NUMPY["arctan2"], "atanh": _NUMPY["arctanh"], "ceiling": _NUMPY["ceil"],
    "cospi": cospi, "ifelse": where, "log": log,
    "maximum": maximum, "minimum": minimum, "plogis": plogis, "pmax": maximum, "pmin": minimum, "pnorm": pnorm,
    "qlogis": qlogis, "qnorm": qnorm, "round": round_, "sinpi": sinpi, "where": where,
}  # fmt: skip


# ---------------------------------------------------------------- stateful


def _present(x: Array, name: str) -> Array:
    x = x[np.isfinite(x)]
    if not x.size:
        raise DataError(f"{name}() has no value to work with: every row is missing")
    return x


def _count(value: Any, name: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise DataError(f"{name} is a whole number, not {value!r}")
    if not least <= value <= MAX_COLUMNS:
        raise DataError(f"{name} lies between {least} and {MAX_COLUMNS}, not at {value}")
    return int(value)


def center(x: Array, state: State) -> Array:
    """Subtract the mean."""
    return scale(x, state, scale=False)


def scale(x: Array, state: State, center: Any = True, scale: Any = True) -> Array:
    """R's `scale`: minus the mean, over the standard deviation (n - 1); without centring, over the root mean square."""
    if not state:
        kept = _present(x, "scale")
        shift = float(kept.mean()) if center is True else float(center or 0.0)
        spread = (
            float(np.sqrt(((kept - shift) ** 2).sum() / max(len(kept) - 1, 1)))
            if scale is True
            else float(scale or 1.0)
        )
        if spread == 0.0:
            raise DataError("scale() of a constant column: its standard deviation is 0")
        state.update(center=shift, scale=spread)
    return (x - state["center"]) / state["scale"]


def squeeze(x: Array, state: State) -> Array:
    """Move shares from [0, 1] into its inside: (x (n - 1) + 1/2) / n, n rows (Smithson & Verkuilen 2006, p. 55)."""
    if ((x < 0) | (x > 1)).any():
        raise DataError("squeeze() takes numbers from 0 to 1")
    if not state:
        state["n"] = float(_present(x, "squeeze").size)
    return (x * (state["n"] - 1) + 0.5) / state["n"]


def poly(x: Array, state: State, degree: Any = 1, raw: Any = False) -> Matrix:
    """R's `poly`: polynomials orthonormal over the fitted data, by their three-term recurrence."""
    degree = _count(degree, "the degree of poly()", 1)
    if raw:
        return Matrix(tuple(x**k for k in range(1, degree + 1)))
    if not state:
        kept = _present(x, "poly")
        if degree >= len(np.unique(kept)):
            raise DataError(
                f"poly() of degree {degree} needs more than {degree} distinct values; there are {len(np.unique(kept))}"
            )
        alpha, norm2 = _recurrence(kept, degree)
        state.update(alpha=alpha, norm2=norm2)
    alpha, norm2 = state["alpha"], state["norm2"]
    before, now, columns = np.zeros(len(x)), np.ones(len(x)), []
    for k in range(degree):
        before, now = now, (x - alpha[k]) * now - (norm2[k] / norm2[k - 1] if k else 0.0) * before
        columns.append(now / np.sqrt(norm2[k + 1]))
    return Matrix(tuple(columns))


def _recurrence(x: Array, degree: int) -> tuple[list[float], list[float]]:
    """alpha_k and the squared norms of the monic orthogonal polynomials."""
    alpha, norm2 = [], [float(len(x))]
    before, now = np.zeros(len(x)), np.ones(len(x))
    for k in range(degree):
        alpha.append(float((x * now**2).sum() / (now**2).sum()))
        before, now = now, (x - alpha[k]) * now - (norm2[k] / norm2[k - 1] if k else 0.0) * before
        norm2.append(float((now**2).sum()))
    return alpha, norm2


def bs(
    x: Array,
    state: State,
    df: Any = None,
    knots: Any = None,
    degree: Any = 3,
    intercept: Any = False,
    Boundary_knots: Any = None,
    include_intercept: Any = None,
) -> Matrix:
    """R's `bs`: B-splines with knots at quantiles; beyond the boundary the outermost polynomials go on."""
    degree = _count(degree, "the degree of bs()", 1)
    intercept = bool(intercept if include_intercept is None else include_intercept)
    if not state:
        inner = _count(df, "df of bs()", degree + intercept) - degree - intercept if df is not None else 0
        _knots(state, x, knots, inner, Boundary_knots, degree, "bs")
    basis = _splines(x, state["knots"], degree)
    return Matrix(tuple(basis[0 if intercept else 1 :]))


def ns(
    x: Array,
    state: State,
    df: Any = None,
    knots: Any = None,
    intercept: Any = False,
    Boundary_knots: Any = None,
) -> Matrix:
    """R's `ns`: cubic splines that are linear beyond the boundary knots."""
    intercept = bool(intercept)
    if not state:
        inner = _count(df, "df of ns()", 1 + intercept) - 1 - intercept if df is not None else 0
        _knots(state, x, knots, inner, Boundary_knots, 3, "ns")
        state["map"] = _natural(np.array(state["knots"]), intercept)
    low, high = state["knots"][0], state["knots"][-1]
    inside = np.clip(x, low, high)
    drop = 0 if intercept else 1
    basis = _splines(inside, state["knots"], 3)[drop:]
    columns = _mix(basis, state["map"])
    slopes = _mix(_splines(inside, state["knots"], 3, 1)[drop:], state["map"])
    return Matrix(tuple(c + (x - inside) * s for c, s in zip(columns, slopes, strict=True)))


def _mix(basis: list[Array], weights: Array) -> list[Array]:
    """Linear combinations of columns, term by term: the same bits for one row as for many."""
    out = []
    for j in range(weights.shape[1]):
        total = basis[0] * weights[0, j]
        for i in range(1, len(basis)):
            total = total + basis[i] * weights[i, j]
        out.append(total)
    return out


def _knots(state: State, x: Array, knots: Any, inner: int, boundary: Any, degree: int, name: str) -> None:
    """Boundary knots at the range, inner ones at equally spaced quantiles (R's type 7)."""
    kept = _present(x, name)
    low, high = (float(kept.min()), float(kept.max())) if boundary is None else (float(b) for b in sorted(boundary))
    if not low < high:
        raise DataError(f"{name}() of a constant column")
    if knots is None:
        within = kept[(kept >= low) & (kept <= high)]
        knots = np.quantile(within, np.linspace(0, 1, inner + 2)[1:-1]) if inner > 0 else []
    knots = sorted(float(k) for k in np.atleast_1d(np.asarray(knots, np.float64)))
    if len(knots) > MAX_COLUMNS or any(not low < k < high for k in knots):
        raise DataError(f"the knots of {name}() lie strictly between {low:g} and {high:g}; they are {knots[:8]}")
    state["knots"] = [low] * (degree + 1) + knots + [high] * (degree + 1)


def _splines(x: Array, knots: list[float], degree: int, derivative: int = 0) -> list[Array]:
    """Return the B-splines (or their derivative) at x, each a column; outside the range the end polynomials."""
    from scipy.interpolate import BSpline

    size = len(knots) - degree - 1
    known = np.isfinite(x)
    values = BSpline(np.array(knots), np.eye(size), degree, extrapolate=True)(np.where(known, x, knots[0]), derivative)
    values[~known] = np.nan
    return [np.ascontiguousarray(values[:, j]) for j in range(size)]


def _natural(knots: Array, intercept: bool) -> Array:
    """Return the (K, K - 2) map from B-splines to those whose second derivative is 0 at both ends (R's `ns`)."""
    ends = np.array([knots[0], knots[-1]])
    second = np.column_stack(_splines(ends, knots.tolist(), 3, 2))[:, 0 if intercept else 1 :]
    q, _ = np.linalg.qr(second.T, mode="complete")
    return np.ascontiguousarray(q[:, 2:])


def cr(x: Array, state: State, df: Any = None, knots: Any = None) -> Matrix:
    """Natural cubic regression spline: the columns are the weights of the values at the knots (Wood 2017, 5.3.1)."""
    return _cardinal(x, state, df, knots, False)


def cc(x: Array, state: State, df: Any = None, knots: Any = None) -> Matrix:
    """Cyclic cubic regression spline: value, slope and curvature agree at both ends of the range (Wood 2017, 5.3.2)."""
    return _cardinal(x, state, df, knots, True)


def _cardinal(x: Array, state: State, df: Any, knots: Any, cyclic: bool) -> Matrix:
    name = "cc" if cyclic else "cr"
    if not state:
        if (df is None) == (knots is None):
            raise DataError(f"{name}() takes df or knots: {name}(x, df = 4)")
        inner = 0 if df is None else _count(df, f"df of {name}()", 2) - 2 + cyclic
        kept = np.unique(_present(x, name))
        _knots(state, kept, knots, inner, None, 0, name)
        state["curvature"] = _curvature(np.array(state["knots"]), cyclic)
    k, curvature = np.array(state["knots"]), state["curvature"]
    if cyclic:
        x = k[0] + np.mod(x - k[0], k[-1] - k[0]) if ((x < k[0]) | (x > k[-1])).any() else x
    inside = np.clip(x, k[0], k[-1])
    j = np.clip(np.searchsorted(k, np.where(np.isfinite(inside), inside, k[0])) - 1, 0, len(k) - 2)
    h, up, down = k[j + 1] - k[j], k[j + 1] - inside, inside - k[j]
    value = [up / h, down / h, (up**3 / h - h * up) / 6, (down**3 / h - h * down) / 6]
    slope = [-1 / h, 1 / h, (-3 * up**2 / h + h) / 6, (3 * down**2 / h - h) / 6]
    weights = [v + (x - inside) * s for v, s in zip(value, slope, strict=True)]  # linear beyond the ends
    size = len(k) - cyclic
    lower, upper = j, (j + 1) % size
    return Matrix(tuple(_cardinal_column(i, lower, upper, weights, curvature) for i in range(size)))


def _cardinal_column(i: int, lower: Array, upper: Array, weights: list[Array], curvature: Array) -> Array:
    ends = np.where(lower == i, weights[0], 0.0) + np.where(upper == i, weights[1], 0.0)
    return ends + weights[2] * curvature[lower, i] + weights[3] * curvature[upper, i]


def _curvature(k: Array, cyclic: bool) -> Array:
    """Return the map from values at the knots to second derivatives there."""
    h = np.diff(k)
    m = len(k)
    b, d = np.zeros((m, m)), np.zeros((m, m))
    for i in range(m - 1):  # add each interval's share
        b[i : i + 2, i : i + 2] += h[i] / 6 * np.array([[2, 1], [1, 2]])
        d[i : i + 2, i : i + 2] += np.array([[-1, 1], [1, -1]]) / h[i]
    if cyclic:
        for a in (b, d):
            a[0] += a[-1]
            a[:, 0] += a[:, -1]
        return np.linalg.solve(b[:-1, :-1], d[:-1, :-1])
    curvature = np.zeros((m, m))
    curvature[1:-1] = np.linalg.solve(b[1:-1, 1:-1], d[1:-1]) if m > 2 else 0.0
    return curvature


def _of_all(name: str, figure: Callable[[Array], Any]) -> Callable[..., float]:
    """Return a function that makes one number of a column, as in I(x - mean(x)); that of the fitted data stays."""

    def of(x: Array, state: State, na_rm: Any = True) -> float:
        if not state:
            kept = _present(x, name) if na_rm else x
            state["value"] = float(figure(kept))
        return state["value"]

    return of


STATEFUL: dict[str, Callable[..., Any]] = {
    "bs": bs, "cc": cc, "center": center, "cr": cr, "ns": ns, "poly": poly, "scale": scale, "squeeze": squeeze,
    "standardize": scale,
    **{name: _of_all(name, getattr(np, name)) for name in ("max", "mean", "median", "min", "sum")},
    "sd": _of_all("sd", lambda x: np.std(x, ddof=1) if len(x) > 1 else np.nan),
}  # fmt: skip
