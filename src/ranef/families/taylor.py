"""Truncated Taylor arithmetic over arrays: numbers of n rows with their derivatives in a few variables.

A `Taylor` holds the value of every row, its first, second and (at order 3) third derivatives in K variables. NumPy's
and SciPy's elementwise functions act on it by the chain rule (Griewank & Walther 2008, chapter 13), so that a function
written for arrays gives its derivatives without differences. Packing is lexicographic: (a, b) with a <= b, (a, b, c)
with a <= b <= c. To teach it a function of one variable, add a row to `UNIVARIATE` (value and three derivatives).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranef.errors import NotAvailableError

Array = NDArray[np.float64]
Derivatives = tuple[Any, Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Places:
    """Which variables packed derivatives belong to: (a, b) of pairs, (a, b, c) and their pairs of triples."""

    pair: tuple[Any, Any]
    triple: tuple[Any, Any, Any]
    inner: tuple[Any, Any, Any]


@cache
def places(k: int) -> Places:
    """Return the packing of K variables."""
    pairs = list(combinations_with_replacement(range(k), 2))
    triples = list(combinations_with_replacement(range(k), 3))
    index = {p: i for i, p in enumerate(pairs)}
    inner = [[index[b, c], index[a, c], index[a, b]] for a, b, c in triples]
    return Places(_columns(pairs, 2), _columns(triples, 3), _columns(inner, 3))


def _columns(rows: Sequence[Sequence[int]], width: int) -> Any:
    return tuple(np.array(rows, dtype=np.intp).reshape(-1, width).T)


class Taylor(np.lib.mixins.NDArrayOperatorsMixin):
    """Rows of numbers with derivatives.

    Attributes
    ----------
    v : (n,) array
        Values.
    g, h, t : (K, n), (K (K + 1) / 2, n), (K (K + 1) (K + 2) / 6, n) arrays
        First, second and third derivatives; `t` has no rows at order 2.
    """

    __slots__ = ("g", "h", "t", "v")

    def __init__(self, v: Array, g: Array, h: Array, t: Array) -> None:
        self.v, self.g, self.h, self.t = v, g, h, t

    # ---- what arrays have --------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the values."""
        return self.v.shape

    @property
    def ndim(self) -> int:
        """One."""
        return self.v.ndim

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.v.size

    @property
    def dtype(self) -> Any:
        """That of the values."""
        return self.v.dtype

    def __len__(self) -> int:
        return len(self.v)

    def __repr__(self) -> str:
        return f"Taylor({self.v!r}, {len(self.g)} variables)"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise _unknown(name)

    def __getitem__(self, at: Any) -> Taylor:
        return Taylor(self.v[at], self.g[:, at], self.h[:, at], self.t[:, at])

    def clip(self, low: Any = None, high: Any = None) -> Taylor:
        """Return values between bounds; derivatives are 0 beyond."""
        return _clip(self, low, high)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise NotAvailableError(
            "numbers with derivatives cannot become a plain array (np.asarray, filling an array, math functions): "
            "write the density (with cens() also cdf= and survival=) with NumPy's and SciPy's functions of whole "
            "arrays, and np.where for cases"
        )

    def __float__(self) -> float:
        return float(self.__array__())

    # ---- functions ---------------------------------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__" or options:
            raise _unknown(f"{ufunc.__name__}.{method}" if method != "__call__" else f"{ufunc.__name__} with options")
        name = ufunc.__name__
        if name in BY_VALUE:
            return ufunc(*(x.v if isinstance(x, Taylor) else x for x in inputs))
        if name in UNIVARIATE:
            with np.errstate(all="ignore"):
                return inputs[0].compose(UNIVARIATE[name](inputs[0].v))
        if name in COMPOSED:
            with np.errstate(all="ignore"):
                return COMPOSED[name](*inputs)
        raise _unknown(name)

    def __array_function__(self, function: Any, _types: Any, args: Any, options: Any) -> Any:
        if function.__name__ not in FUNCTIONS:
            raise _unknown(function.__name__)
        return FUNCTIONS[function.__name__](*args, **options)

    def compose(self, f: Derivatives) -> Taylor:
        """Return f(self) from the value and the derivatives of f at the values."""
        f0, f1, f2, f3 = f
        g, h, at = self.g, self.h, places(len(self.g))
        (a, b), third = at.pair, self.t
        if len(third):
            (i, j, k), (jk, ik, ij) = at.triple, at.inner
            cross = g[i] * h[jk] + g[j] * h[ik] + g[k] * h[ij]
            third = f1 * third + f2 * cross + f3 * g[i] * g[j] * g[k]
        return Taylor(np.asarray(f0, np.float64), f1 * g, f1 * h + f2 * g[a] * g[b], third)

    def times(self, other: Taylor) -> Taylor:
        """Return the product."""
        x, y, at = self, other, places(len(self.g))
        (a, b), third = at.pair, self.t
        if len(third):
            (i, j, k), (jk, ik, ij) = at.triple, at.inner
            cross = x.g[i] * y.h[jk] + x.g[j] * y.h[ik] + x.g[k] * y.h[ij]
            cross = cross + y.g[i] * x.h[jk] + y.g[j] * x.h[ik] + y.g[k] * x.h[ij]
            third = x.v * y.t + y.v * x.t + cross
        second = x.v * y.h + y.v * x.h + x.g[a] * y.g[b] + y.g[a] * x.g[b]
        return Taylor(x.v * y.v, x.v * y.g + y.v * x.g, second, third)


def variables(values: Array, order: int) -> list[Taylor]:
    """Return the columns of `values` (n, K) as independent variables, with derivatives up to `order` (2 or 3)."""
    n, k = values.shape
    h, t = k * (k + 1) // 2, k * (k + 1) * (k + 2) // 6 if order > 2 else 0
    out: list[Taylor] = []
    for j in range(k):
        g = np.zeros((k, n))
        g[j] = 1.0
        out.append(Taylor(np.array(values[:, j]), g, np.zeros((h, n)), np.zeros((t, n))))
    return out


def _unknown(name: str) -> NotAvailableError:
    known = ", ".join(sorted({*UNIVARIATE, *COMPOSED, *FUNCTIONS} - {"positive", "negative"}))
    return NotAvailableError(f"derivatives of {name} are not known in log_density; known are +, -, *, /, **, {known}")


def _constant(value: Any, like: Taylor) -> Taylor:
    v = np.broadcast_to(np.asarray(value, np.float64), like.v.shape)
    return Taylor(v, np.zeros_like(like.g), np.zeros_like(like.h), np.zeros_like(like.t))


def _both(x: Any, y: Any) -> tuple[Taylor, Taylor]:
    if not isinstance(x, Taylor):
        return _constant(x, y), y
    return (x, y) if isinstance(y, Taylor) else (x, _constant(y, x))


def _where(condition: Any, x: Any, y: Any) -> Any:
    if isinstance(condition, Taylor):
        condition = condition.v != 0
    if not isinstance(x, Taylor) and not isinstance(y, Taylor):
        return np.where(condition, x, y)
    x, y = _both(x, y)
    pick = lambda a, b: np.where(condition, a, b)  # noqa: E731
    return Taylor(pick(x.v, y.v), pick(x.g, y.g), pick(x.h, y.h), pick(x.t, y.t))


def _clip(x: Any, low: Any = None, high: Any = None, **names: Any) -> Any:
    low, high = names.get("a_min", names.get("min", low)), names.get("a_max", names.get("max", high))
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def _plain_like(make: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, *rest, **_: make(x.v, *rest)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "where": _where,
    "clip": _clip,
    "zeros_like": _plain_like(np.zeros_like),
    "ones_like": _plain_like(np.ones_like),
    "full_like": _plain_like(np.full_like),
    "shape": lambda x: x.shape,
    "size": lambda x: x.size,
    "ndim": lambda x: x.ndim,
}

#: Functions that are constant between jumps: only the values matter.
BY_VALUE = frozenset((
    "less", "less_equal", "greater", "greater_equal", "equal", "not_equal", "isnan", "isfinite", "isinf", "sign",
    "floor", "ceil", "rint", "trunc", "signbit", "heaviside",
))  # fmt: skip


# ---- made of others --------------------------------------------------------------------------------------------------


def _add(x: Any, y: Any) -> Taylor:
    if not isinstance(y, Taylor):
        return Taylor(x.v + y, x.g, x.h, x.t)
    if not isinstance(x, Taylor):
        return Taylor(x + y.v, y.g, y.h, y.t)
    return Taylor(x.v + y.v, x.g + y.g, x.h + y.h, x.t + y.t)


def _multiply(x: Any, y: Any) -> Taylor:
    if isinstance(x, Taylor) and isinstance(y, Taylor):
        return x.times(y)
    x, c = (x, y) if isinstance(x, Taylor) else (y, x)
    return Taylor(x.v * c, x.g * c, x.h * c, x.t * c)


def _divide(x: Any, y: Any) -> Taylor:
    return _multiply(x, 1 / np.asarray(y, np.float64)) if not isinstance(y, Taylor) else _multiply(x, np.reciprocal(y))


def _power(x: Any, p: Any) -> Any:
    if isinstance(p, Taylor):
        return np.exp(p * np.log(x))
    p = np.asarray(p, np.float64)

    def term(falling: Any, exponent: Any) -> Any:
        # 0 times a power of 0 is 0: whole exponents have derivatives at 0.
        return np.where(falling == 0, 0.0, falling * np.power(x.v, np.where(falling == 0, 1.0, exponent)))

    first, second, third = p, p * (p - 1), p * (p - 1) * (p - 2)
    return x.compose((np.power(x.v, p), term(first, p - 1), term(second, p - 2), term(third, p - 3)))


def _maximum(x: Any, y: Any) -> Any:
    x, y = _both(x, y)
    return _where((x.v >= y.v) | np.isnan(x.v), x, y)


def _minimum(x: Any, y: Any) -> Any:
    x, y = _both(x, y)
    return _where((x.v <= y.v) | np.isnan(x.v), x, y)


def _logaddexp(x: Any, y: Any) -> Any:
    """Return log(exp x + exp y); either may be minus infinity, and adds nothing then."""
    x, y = _both(x, y)
    least, most = _minimum(x, y), _maximum(x, y)
    gap = _where(np.isneginf(least.v), _constant(-1.0, least), least - most)
    soft = gap.compose(_softplus(gap.v))
    return _where(np.isneginf(least.v), most, most + soft)


def _softplus(x: Any) -> Derivatives:
    from scipy.special import expit

    p, q = expit(x), expit(-x)
    return np.logaddexp(0.0, x), p, p * q, p * q * (q - p)


def _xlogy(x: Any, y: Any, log: Any = np.log, neutral: float = 1.0) -> Any:
    if isinstance(x, Taylor):
        return x * log(y)
    x = np.asarray(x, np.float64)
    return _where(x == 0, 0.0, x * log(_where(x == 0, neutral, y)))


def _betaln(x: Any, y: Any) -> Any:
    from scipy.special import gammaln

    return gammaln(x) + gammaln(y) - gammaln(x + y)


#: Functions that are linear, or made of others.
COMPOSED: dict[str, Callable[..., Any]] = {
    "positive": lambda x: x,
    "negative": lambda x: _multiply(x, -1.0),
    "add": _add,
    "subtract": lambda x, y: _add(x, np.negative(y)),
    "multiply": _multiply,
    "divide": _divide,
    "power": _power,
    "float_power": _power,
    "maximum": _maximum,
    "minimum": _minimum,
    "fmax": _maximum,
    "fmin": _minimum,
    "logaddexp": _logaddexp,
    "xlogy": _xlogy,
    "xlog1py": lambda x, y: _xlogy(x, y, np.log1p, 0.0),
    "betaln": _betaln,
    "beta": lambda x, y: np.exp(_betaln(x, y)),
}


# ---- one argument ----------------------------------------------------------------------------------------------------


def _exp(x: Any) -> Derivatives:
    e = np.exp(x)
    return e, e, e, e


def _log(x: Any) -> Derivatives:
    r = 1 / x
    return np.log(x), r, -(r**2), 2 * r**3


def _log1p(x: Any) -> Derivatives:
    r = 1 / (1 + x)
    return np.log1p(x), r, -(r**2), 2 * r**3


def _based(log: Any, base: float) -> Callable[[Any], Derivatives]:
    def of(x: Any) -> Derivatives:
        _, *rest = _log(x)
        return log(x), *(d / np.log(base) for d in rest)  # pyright: ignore[reportReturnType]

    return of


def _exp2(x: Any) -> Derivatives:
    e, c = np.exp2(x), np.log(2.0)
    return e, c * e, c**2 * e, c**3 * e


def _expm1(x: Any) -> Derivatives:
    e = np.exp(x)
    return np.expm1(x), e, e, e


def _sqrt(x: Any) -> Derivatives:
    s, r = np.sqrt(x), 1 / x
    return s, s * r / 2, -s * r**2 / 4, 3 * s * r**3 / 8


def _cbrt(x: Any) -> Derivatives:
    s, r = np.cbrt(x), 1 / x
    return s, s * r / 3, -2 * s * r**2 / 9, 10 * s * r**3 / 27


def _reciprocal(x: Any) -> Derivatives:
    r = 1 / x
    return r, -(r**2), 2 * r**3, -6 * r**4


def _absolute(x: Any) -> Derivatives:
    return np.abs(x), np.sign(x), 0.0 * x, 0.0 * x


def _sin(x: Any) -> Derivatives:
    s, c = np.sin(x), np.cos(x)
    return s, c, -s, -c


def _cos(x: Any) -> Derivatives:
    s, c = np.sin(x), np.cos(x)
    return c, -s, -c, s


def _tan(x: Any) -> Derivatives:
    t = np.tan(x)
    d = 1 + t**2
    return t, d, 2 * t * d, d * (2 + 6 * t**2)


def _tanh(x: Any) -> Derivatives:
    t = np.tanh(x)
    d = 1 - t**2
    return t, d, -2 * t * d, d * (6 * t**2 - 2)


def _sinh(x: Any) -> Derivatives:
    s, c = np.sinh(x), np.cosh(x)
    return s, c, s, c


def _cosh(x: Any) -> Derivatives:
    s, c = np.sinh(x), np.cosh(x)
    return c, s, c, s


def _arctan(x: Any) -> Derivatives:
    r = 1 / (1 + x**2)
    return np.arctan(x), r, -2 * x * r**2, (6 * x**2 - 2) * r**3


def _arcsinh(x: Any) -> Derivatives:
    r = 1 / (1 + x**2)
    d = np.sqrt(r)
    return np.arcsinh(x), d, -x * d * r, (2 * x**2 - 1) * d * r**2


def _expit(x: Any) -> Derivatives:
    from scipy.special import expit

    p, q = expit(x), expit(-x)
    d = p * q
    return p, d, d * (q - p), d * (1 - 6 * d)


def _log_expit(x: Any) -> Derivatives:
    from scipy.special import expit, log_expit

    p, q = expit(x), expit(-x)
    return log_expit(x), q, -p * q, -p * q * (q - p)


def _logit(x: Any) -> Derivatives:
    from scipy.special import logit

    a, b = 1 / x, 1 / (1 - x)
    return logit(x), a + b, b**2 - a**2, 2 * (a**3 + b**3)


def _gammaln(x: Any) -> Derivatives:
    from scipy.special import digamma, gammaln, polygamma

    return gammaln(x), digamma(x), polygamma(1, x), polygamma(2, x)


def _psi(x: Any) -> Derivatives:
    from scipy.special import digamma, polygamma

    return digamma(x), polygamma(1, x), polygamma(2, x), polygamma(3, x)


def _erf(x: Any) -> Derivatives:
    from scipy.special import erf

    d = 2 / np.sqrt(np.pi) * np.exp(-(x**2))
    return erf(x), d, -2 * x * d, (4 * x**2 - 2) * d


def _erfc(x: Any) -> Derivatives:
    from scipy.special import erfc

    _, a, b, c = _erf(x)
    return erfc(x), -a, -b, -c


def _ndtr(x: Any) -> Derivatives:
    from scipy.special import ndtr

    d = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    return ndtr(x), d, -x * d, (x**2 - 1) * d


def _log_ndtr(x: Any) -> Derivatives:
    from scipy.special import log_ndtr

    value = log_ndtr(x)
    r = np.exp(-(x**2) / 2 - 0.5 * np.log(2 * np.pi) - value)
    return value, r, -r * (x + r), r * ((x + r) * (x + 2 * r) - 1)


UNIVARIATE: dict[str, Callable[[Any], Derivatives]] = {
    "exp": _exp,
    "exp2": _exp2,
    "expm1": _expm1,
    "log": _log,
    "log1p": _log1p,
    "log2": _based(np.log2, 2.0),
    "log10": _based(np.log10, 10.0),
    "sqrt": _sqrt,
    "cbrt": _cbrt,
    "square": lambda x: (x**2, 2 * x, 2 * np.ones_like(x), 0.0 * x),
    "reciprocal": _reciprocal,
    "absolute": _absolute,
    "fabs": _absolute,
    "sin": _sin,
    "cos": _cos,
    "tan": _tan,
    "sinh": _sinh,
    "cosh": _cosh,
    "tanh": _tanh,
    "arctan": _arctan,
    "arcsinh": _arcsinh,
    "expit": _expit,
    "log_expit": _log_expit,
    "logit": _logit,
    "gammaln": _gammaln,
    "loggamma": _gammaln,
    "psi": _psi,
    "digamma": _psi,
    "erf": _erf,
    "erfc": _erfc,
    "ndtr": _ndtr,
    "log_ndtr": _log_ndtr,
}
