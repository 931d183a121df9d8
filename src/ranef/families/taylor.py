"""Truncated Taylor arithmetic over arrays: numbers of n rows with their derivatives in a few variables.

A `Taylor` holds the value of every row, its first, second and (from order 3, or 4) third and fourth derivatives in K
variables. NumPy's and SciPy's elementwise functions act on it by the chain rule (Griewank & Walther 2008, chapter 13),
so that a function written for arrays gives its derivatives without differences. Packing is lexicographic: (a, b) with
a <= b, (a, b, c) with a <= b <= c, and so on. To teach it a function, add a row: to `UNIVARIATE` or `LAST` of
`families/derivatives.py` (value and four derivatives), or to `COMPOSED` where it is made of others or has slopes that
are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, combinations_with_replacement
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranef.errors import NotAvailableError
from ranef.families.derivatives import LAST, UNIVARIATE, Derivatives, sinc, softplus

Array = NDArray[np.float64]

#: What to write instead of what has no derivatives here.
REMEDIES = {
    **dict.fromkeys(("logsumexp", "logaddexp.reduce"), "write np.logaddexp(a, b), one inside another for more"),
    **dict.fromkeys(("softmax", "log_softmax"), "write a - np.logaddexp(a, b), and np.exp of it"),
    "polygamma": "write (-1) ** (n + 1) * gamma(n + 1) * zeta(n + 1, x), or digamma(x) for n = 0",
    "multigammaln": "write the sum of gammaln(a - j / 2) with its constant d (d - 1) / 4 * log(pi)",
    **dict.fromkeys(("factorial", "comb", "perm"), "write gammaln(n + 1), or binom(n, k)"),
    "lambertw": "write wrightomega(np.log(x)), which is lambertw(x) of positive x",
    "_lambertw": "write wrightomega(np.log(x)), which is lambertw(x) of positive x",
    **dict.fromkeys(("stack", "concatenate", "vstack", "hstack", "column_stack", "array"),
                    "add terms one by one, a + b or np.logaddexp(a, b): every number keeps its row"),
    **dict.fromkeys(("sum", "prod", "mean", "cumsum", "cumprod", "diff", "sort", "flip", "roll", "max", "min", "amax",
                     "amin", "std", "var", "take", "dot", "matmul", "cumulative_sum"),
                    "rows may not be mixed: the log density is one number a row, from the parameters of that row"),
    "interp": "write the pieces with np.where, or a polynomial or spline of x by +, * and **",
    "piecewise": "write np.where or np.select",
    "choose": "write np.where or np.select",
    "nan_to_num": "write np.where(np.isnan(x), 0, x)",
    "polyval": "write the polynomial out, (c2 * x + c1) * x + c0",
    **dict.fromkeys(("pdf", "logpdf", "pmf", "logpmf", "cdf", "logcdf", "sf", "logsf"),
                    "scipy.stats checks its arguments as plain arrays: write the formula out"),
    "_riemann_zeta": "that of zeta(s, x) in x is known, not that in s",
}  # fmt: skip
WRAPPERS = ("wrapper", "wrapped", "inner", "_wrapper", "__call__", "func", "f", "_call_as_normal", "_vectorize_call")


#: The ways to split four indices into one and three; into two and two; into two and twice one.
ONE_AND_THREE = ((0, (1, 2, 3)), (1, (0, 2, 3)), (2, (0, 1, 3)), (3, (0, 1, 2)))
TWO_AND_TWO = (((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2)))
TWO_AND_ONES = tuple((p, q) for some, others in TWO_AND_TWO for p, q in ((some, others), (others, some)))


@dataclass(frozen=True, slots=True)
class Places:
    """Which variables packed derivatives belong to: (a, b) of pairs, (a, b, c) and their pairs of triples.

    `four` has a, b, c and d of quadruples, `part` where their pairs and triples are stored, by positions.
    """

    pair: tuple[Any, Any]
    triple: tuple[Any, Any, Any]
    inner: tuple[Any, Any, Any]
    four: tuple[Any, Any, Any, Any]
    part: dict[tuple[int, ...], Any]


@cache
def places(k: int) -> Places:
    """Return the packing of K variables."""
    pairs, triples, fours = (list(combinations_with_replacement(range(k), width)) for width in (2, 3, 4))
    index = {p: i for packed in (pairs, triples) for i, p in enumerate(packed)}
    inner = [[index[b, c], index[a, c], index[a, b]] for a, b, c in triples]
    positions = [p for width in (2, 3) for p in combinations(range(4), width)]
    part = {p: np.array([index[tuple(four[i] for i in p)] for four in fours], np.intp) for p in positions}
    return Places(_columns(pairs, 2), _columns(triples, 3), _columns(inner, 3), _columns(fours, 4), part)


def _columns(rows: Sequence[Sequence[int]], width: int) -> Any:
    return tuple(np.array(rows, dtype=np.intp).reshape(-1, width).T)


class Taylor(np.lib.mixins.NDArrayOperatorsMixin):
    """Rows of numbers with derivatives.

    Attributes
    ----------
    v : (n,) array
        Values.
    g, h, t, q : (K, n), (K (K + 1) / 2, n), (K (K + 1) (K + 2) / 6, n), (K (K + 1) (K + 2) (K + 3) / 24, n) arrays
        First to fourth derivatives; `t` has no rows at order 2, `q` none below order 4.
    """

    __slots__ = ("g", "h", "q", "t", "v")

    def __init__(self, v: Array, g: Array, h: Array, t: Array, q: Array) -> None:
        self.v, self.g, self.h, self.t, self.q = v, g, h, t, q

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

    @property
    def derivatives(self) -> tuple[Array, Array, Array, Array]:
        """First to fourth."""
        return self.g, self.h, self.t, self.q

    def __len__(self) -> int:
        return len(self.v)

    def __repr__(self) -> str:
        return f"Taylor({self.v!r}, {len(self.g)} variables)"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise _unknown(name)

    def __getitem__(self, at: Any) -> Taylor:
        if at is Ellipsis or (isinstance(at, slice) and at == slice(None)):
            return self
        if not (isinstance(at, np.ndarray) and np.issubdtype(at.dtype, np.bool_)):
            raise NotAvailableError(
                f"x[{'…' if isinstance(at, np.ndarray | list) else at}] of numbers with derivatives: rows may not be "
                f"moved, every row has parameters of its own; write np.where(condition, a, b) for cases"
            )
        return Taylor(self.v[at], *(d[:, at] for d in self.derivatives))

    def __setitem__(self, at: Any, value: Any) -> None:
        raise NotAvailableError(
            "x[…] = … of numbers with derivatives: write x = np.where(condition, value, x), or np.select for more cases"
        )

    def __iter__(self) -> Any:
        raise NotAvailableError("numbers with derivatives are not taken one by one: write functions of whole arrays")

    def __bool__(self) -> bool:
        raise ValueError("The truth value of numbers with derivatives is not known")

    @property
    def real(self) -> Taylor:
        """Itself."""
        return self

    def copy(self) -> Taylor:
        """Return itself, which nothing changes."""
        return self

    def clip(self, low: Any = None, high: Any = None) -> Taylor:
        """Return values between bounds; derivatives are 0 beyond."""
        return _clip(self, low, high)

    def __array__(self, *_: Any, **__: Any) -> Any:
        if name := _asked_by(sys._getframe(1)):
            raise _unknown(name)
        raise NotAvailableError(
            "numbers with derivatives cannot become a plain array (np.asarray, np.array of several, x[…] = … into one, "
            "functions of the module math): write the density (with cens() also cdf= and survival=) with NumPy's and "
            "SciPy's functions of whole arrays, sums and np.logaddexp of terms one by one, and np.where for cases"
        )

    def __float__(self) -> float:
        return float(self.__array__())

    # ---- functions ---------------------------------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        name = ufunc.__name__
        if "out" in options:
            raise NotAvailableError(f"{name} into an array that is there (out=, or x += y): write x = x + y")
        if method != "__call__" or options:
            raise _unknown(f"{name}.{method}" if method != "__call__" else f"{name} with options")
        if name in BY_VALUE:
            return ufunc(*(x.v if isinstance(x, Taylor) else x for x in inputs))
        with np.errstate(all="ignore"):
            if name in UNIVARIATE:
                return inputs[0].compose(UNIVARIATE[name](inputs[0].v))
            if name in LAST:
                return _of_last(name, inputs)
            if name in COMPOSED:
                return COMPOSED[name](*inputs)
        raise _unknown(name)

    def __array_function__(self, function: Any, _types: Any, args: Any, options: Any) -> Any:
        if function.__name__ not in FUNCTIONS:
            raise _unknown(function.__name__)
        return FUNCTIONS[function.__name__](*args, **options)

    def compose(self, f: Derivatives) -> Taylor:
        """Return f(self) from the value and the derivatives of f at the values."""
        f0, f1, f2, f3, last = f
        g, h, at = self.g, self.h, places(len(self.g))
        (a, b), third, fourth = at.pair, self.t, self.q
        if len(third):
            (i, j, k), (jk, ik, ij) = at.triple, at.inner
            cross = g[i] * h[jk] + g[j] * h[ik] + g[k] * h[ij]
            third = f1 * third + f2 * cross + f3 * g[i] * g[j] * g[k]
        if len(fourth):
            i, j, k, m = at.four
            fourth = f1 * fourth + f2 * (_one_and_three(self, self) + _two_and_two(self, self))
            fourth = fourth + f3 * _two_and_ones(self, self, self) + last() * g[i] * g[j] * g[k] * g[m]
        return Taylor(np.asarray(f0, np.float64), f1 * g, f1 * h + f2 * g[a] * g[b], third, fourth)

    def times(self, other: Taylor) -> Taylor:
        """Return the product."""
        x, y, at = self, other, places(len(self.g))
        (a, b), third, fourth = at.pair, self.t, self.q
        if len(third):
            (i, j, k), (jk, ik, ij) = at.triple, at.inner
            cross = x.g[i] * y.h[jk] + x.g[j] * y.h[ik] + x.g[k] * y.h[ij]
            cross = cross + y.g[i] * x.h[jk] + y.g[j] * x.h[ik] + y.g[k] * x.h[ij]
            third = x.v * y.t + y.v * x.t + cross
        if len(fourth):
            fourth = x.v * y.q + y.v * x.q + _one_and_three(x, y) + _one_and_three(y, x)
            fourth = fourth + _two_and_two(x, y) + _two_and_two(y, x)
        second = x.v * y.h + y.v * x.h + x.g[a] * y.g[b] + y.g[a] * x.g[b]
        return Taylor(x.v * y.v, x.v * y.g + y.v * x.g, second, third, fourth)


def _one_and_three(x: Taylor, y: Taylor) -> Any:
    """Return the sum of x_i y_jkl over the splits of four indices."""
    at = places(len(x.g))
    return sum(x.g[at.four[one]] * y.t[at.part[three]] for one, three in ONE_AND_THREE)


def _two_and_two(x: Taylor, y: Taylor) -> Any:
    """Return the sum of x_ij y_kl over the splits of four indices, the first of which is in the part of x."""
    at = places(len(x.g))
    return sum(x.h[at.part[p]] * y.h[at.part[q]] for p, q in TWO_AND_TWO)


def _two_and_ones(x: Taylor, y: Taylor, z: Taylor) -> Any:
    """Return the sum of x_ij y_k z_l over the splits of four indices, k before l."""
    at = places(len(x.g))
    return sum(x.h[at.part[p]] * y.g[at.four[i]] * z.g[at.four[j]] for p, (i, j) in TWO_AND_ONES)


def variables(values: Array, order: int) -> list[Taylor]:
    """Return the columns of `values` (n, K) as independent variables, with derivatives up to `order` (2, 3 or 4)."""
    n, k = values.shape
    sizes = [comb(k + least - 1, least) if least <= order else 0 for least in (2, 3, 4)]
    out: list[Taylor] = []
    for j in range(k):
        g = np.zeros((k, n))
        g[j] = 1.0
        h, t, q = (np.zeros((size, n)) for size in sizes)
        out.append(Taylor(np.array(values[:, j]), g, h, t, q))
    return out


def _unknown(name: str) -> NotAvailableError:
    remedy = REMEDIES.get(name.rpartition(".")[2]) or REMEDIES.get(name, "")
    if remedy:
        return NotAvailableError(f"derivatives of {name.lstrip('_')} are not known: {remedy}")
    names = sorted({n.strip("_") for n in (*UNIVARIATE, *LAST, *COMPOSED, *FUNCTIONS)} - {"positive", "negative"})
    return NotAvailableError(f"derivatives of {name} are not known; known are +, -, *, /, **, {', '.join(names)}")


def _asked_by(frame: Any) -> str:
    """Return the function of NumPy or SciPy that wants a plain array; "" where a user's line does."""
    found = ""
    while frame is not None and (module := str(frame.f_globals.get("__name__"))).split(".")[0] in ("numpy", "scipy"):
        called = frame.f_code.co_name
        if called not in WRAPPERS and found.rpartition(".")[2] not in REMEDIES:
            found = f"{module.split('._', maxsplit=1)[0]}.{called}"
        frame = frame.f_back
    return found


def _of_last(name: str, inputs: Any) -> Taylor:
    """Return a function that is differentiated in its last argument only."""
    *own, x = inputs
    if any(isinstance(p, Taylor) for p in own):
        raise NotAvailableError(
            f"derivatives of {name.strip('_')} are known in its last argument only: the others must be numbers or "
            f"data, not parameters of the family"
        )
    return x.compose(LAST[name](*(np.asarray(p, np.float64) for p in own), x.v))


def _of_slopes(value: Array, slopes: Sequence[tuple[Taylor, Taylor]]) -> Taylor:
    """Return f(x, y, ...) from its values and, for each argument, its slope there as a function of the arguments."""
    first = slopes[0][1]
    out, at = _constant(value, first), places(len(first.g))
    (a, b), (i, j, k), (jk, ik, ij) = at.pair, at.triple, at.inner
    g, h, t, q = out.derivatives
    for p, x in slopes:
        g = g + p.v * x.g
        h = h + p.v * x.h + p.g[a] * x.g[b]
        if len(t):
            t = t + p.v * x.t + p.h[ij] * x.g[k] + p.g[i] * x.h[jk] + p.g[j] * x.h[ik]
        if len(q):
            q = q + p.v * x.q + _but_last(p, x)
    return Taylor(out.v, g, h, t, q)


def _but_last(p: Taylor, x: Taylor) -> Any:
    """Return the first three derivatives of p x_l, less p x_ijkl."""
    at = places(len(x.g))
    one = sum(p.g[at.four[i]] * x.t[at.part[three]] for i, three in ONE_AND_THREE if i < 3)
    two = sum(p.h[at.part[two]] * x.h[at.part[others]] for two, others in TWO_AND_ONES if 3 in others)
    return p.t[at.part[0, 1, 2]] * x.g[at.four[3]] + one + two


def _constant(value: Any, like: Taylor) -> Taylor:
    v = np.broadcast_to(np.asarray(value, np.float64), like.v.shape)
    return Taylor(v, *(np.zeros_like(d) for d in like.derivatives))


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
    picked = (np.where(condition, a, b) if len(a) else a for a, b in zip(x.derivatives, y.derivatives, strict=True))
    return Taylor(np.where(condition, x.v, y.v), *picked)


def _clip(x: Any, low: Any = None, high: Any = None, **names: Any) -> Any:
    if unknown := set(names) - {"a_min", "a_max", "min", "max"}:
        raise _unknown(f"clip with {unknown.pop()}")
    low, high = names.get("a_min", names.get("min", low)), names.get("a_max", names.get("max", high))
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def _select(conditions: Sequence[Any], choices: Sequence[Any], default: Any = 0) -> Any:
    for condition, choice in zip(reversed(conditions), reversed(choices), strict=True):
        default = _where(condition, choice, default)
    return default


def _plain_like(make: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, *rest, **_: make(x.v, *rest)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "where": _where,
    "select": _select,
    "sinc": lambda x: x.compose(sinc(x.v)),
    "i0": lambda x: x.compose(UNIVARIATE["i0"](x.v)),
    "real": lambda x: x,
    "copy": lambda x: x,
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
    "floor", "ceil", "rint", "trunc", "signbit", "floor_divide", "logical_and", "logical_or", "logical_not",
    "logical_xor",
))  # fmt: skip


# ---- made of others --------------------------------------------------------------------------------------------------


def _add(x: Any, y: Any) -> Taylor:
    if not isinstance(y, Taylor):
        return Taylor(x.v + y, *x.derivatives)
    if not isinstance(x, Taylor):
        return Taylor(x + y.v, *y.derivatives)
    return Taylor(x.v + y.v, *(a + b if len(a) else a for a, b in zip(x.derivatives, y.derivatives, strict=True)))


def _multiply(x: Any, y: Any) -> Taylor:
    if isinstance(x, Taylor) and isinstance(y, Taylor):
        return x.times(y)
    x, c = (x, y) if isinstance(x, Taylor) else (y, x)
    return Taylor(x.v * c, *(d * c if len(d) else d for d in x.derivatives))


def _divide(x: Any, y: Any) -> Taylor:
    if isinstance(y, Taylor):
        return _multiply(x, np.reciprocal(y))
    return Taylor(x.v / y, *(d / y if len(d) else d for d in x.derivatives))


def _power(x: Any, p: Any) -> Any:
    if isinstance(p, Taylor):
        zero = np.equal(x, 0) & (p.v > 0)  # 0 to any positive power is 0, whatever the power
        return _where(zero, 0.0, np.exp(p * np.log(_where(zero, 1.0, x))))
    p = np.asarray(p, np.float64)

    def term(falling: Any, exponent: Any) -> Any:
        # 0 times a power of 0 is 0: whole exponents have derivatives at 0.
        return np.where(falling == 0, 0.0, falling * np.power(x.v, np.where(falling == 0, 1.0, exponent)))

    second, third = p * (p - 1), p * (p - 1) * (p - 2)
    first_three = term(p, p - 1), term(second, p - 2), term(third, p - 3)
    return x.compose((np.power(x.v, p), *first_three, lambda: term(third * (p - 3), p - 4)))


def _maximum(x: Any, y: Any) -> Any:
    x, y = _both(x, y)
    return _where((x.v >= y.v) | np.isnan(x.v), x, y)


def _minimum(x: Any, y: Any) -> Any:
    x, y = _both(x, y)
    return _where((x.v <= y.v) | np.isnan(x.v), x, y)


def _logaddexp(x: Any, y: Any) -> Any:
    """Return log(exp x + exp y); either may be minus infinity, and adds nothing then."""
    x, y = _both(x, y)
    less = x.v < y.v  # at a tie both take part: their minimum and maximum would be one of them twice
    least, most = _where(less, x, y), _where(less, y, x)
    gap = _where(np.isneginf(least.v), _constant(-1.0, least), least - most)
    soft = gap.compose(softplus(gap.v))
    return _where(np.isneginf(least.v), most, most + soft)


def _xlogy(x: Any, y: Any, log: Any = np.log, neutral: float = 1.0) -> Any:
    if isinstance(x, Taylor):
        return x * log(y)
    x = np.asarray(x, np.float64)
    return _where(x == 0, 0.0, x * log(_where(x == 0, neutral, y)))


def _betaln(x: Any, y: Any) -> Any:
    from scipy.special import betaln, gammaln

    out = gammaln(x) + gammaln(y) - gammaln(x + y)
    return Taylor(betaln(*(a.v if isinstance(a, Taylor) else a for a in (x, y))), *out.derivatives)


def _hypot(x: Any, y: Any) -> Any:
    x, y = _both(x, y)
    unit = np.maximum(np.maximum(np.abs(x.v), np.abs(y.v)), np.finfo(float).tiny)  # squares must not overflow
    return np.sqrt((x / unit) ** 2 + (y / unit) ** 2) * unit


def _arctan2(y: Any, x: Any) -> Any:
    x, y = _both(x, y)
    r = np.hypot(x, y)
    return _of_slopes(np.arctan2(y.v, x.v), [(x / r / r, y), (-y / r / r, x)])


def _owens_t(h: Any, a: Any) -> Any:
    """Return Owen's T, whose slopes are -phi(h) (Phi(a h) - 1/2) and exp(-h^2 (1 + a^2) / 2) / (2 pi (1 + a^2))."""
    from scipy.special import erf, owens_t

    h, a = _both(h, a)
    in_h = np.exp(-0.5 * h**2) * erf(a * h / np.sqrt(2)) * (-0.5 / np.sqrt(2 * np.pi))
    in_a = np.exp(-0.5 * h**2 * (1 + a**2)) / (2 * np.pi * (1 + a**2))
    return _of_slopes(owens_t(h.v, a.v), [(in_h, h), (in_a, a)])


def _rel_entr(x: Any, y: Any) -> Any:
    from scipy.special import xlogy

    return xlogy(x, x) - xlogy(x, y)


def _boxcox(x: Any, power: Any) -> Any:
    from scipy.special import exprel

    log = np.log(x)
    return log * exprel(power * log)


def _huber(delta: Any, r: Any) -> Any:
    size = np.abs(r)
    return np.where(size <= delta, 0.5 * np.square(r), delta * (size - 0.5 * delta))


def _pseudo_huber(delta: Any, r: Any) -> Any:
    z = np.square(r / delta)
    return delta**2 * z / (1 + np.sqrt(1 + z))  # sqrt(1 + z) - 1 without the difference


def _special(name: str, *arguments: Any) -> Any:
    from scipy import special

    return getattr(special, name)(*arguments)


def _gamma_sign(*arguments: Any) -> Any:
    """Return the sign of a product of gamma functions, which their logarithms do not have."""
    from scipy.special import gammasgn

    signs = [gammasgn(x.v if isinstance(x, Taylor) else x) for x in arguments]
    return np.prod(np.broadcast_arrays(*signs), axis=0)


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
    "beta": lambda x, y: _gamma_sign(x, y, x + y) * np.exp(_betaln(x, y)),
    "binom": lambda n, k: _gamma_sign(1 + n - k, 1 + k, 1 + n) * np.exp(-_betaln(1 + n - k, 1 + k) - np.log1p(n)),
    "poch": lambda z, m: _gamma_sign(z + m, z) * np.exp(_special("gammaln", z + m) - _special("gammaln", z)),
    "logaddexp2": lambda x, y: _logaddexp(x * np.log(2.0), y * np.log(2.0)) / np.log(2.0),
    "remainder": lambda x, y: x - y * np.floor_divide(x, y),
    "copysign": lambda x, y: np.abs(x) * np.where(np.signbit(y), -1.0, 1.0),
    "heaviside": lambda x, y: np.where(np.equal(x, 0), y, np.where(np.greater(x, 0), 1.0, 0.0)),
    "hypot": _hypot,
    "arctan2": _arctan2,
    "owens_t": _owens_t,
    "entr": lambda x: -_special("xlogy", x, x),
    "rel_entr": _rel_entr,
    "kl_div": lambda x, y: _rel_entr(x, y) - x + y,
    "boxcox": _boxcox,
    "boxcox1p": lambda x, power: _boxcox(1 + x, power),
    "huber": _huber,
    "pseudo_huber": _pseudo_huber,
    "pdtr": lambda k, m: _special("gammaincc", np.floor(k) + 1, m),
    "pdtrc": lambda k, m: _special("gammainc", np.floor(k) + 1, m),
    "gdtr": lambda a, b, x: _special("gammainc", b, a * x),
    "gdtrc": lambda a, b, x: _special("gammaincc", b, a * x),
    "chdtr": lambda v, x: _special("gammainc", v / 2, x / 2),
    "chdtrc": lambda v, x: _special("gammaincc", v / 2, x / 2),
    "bdtr": lambda k, n, p: _special("betainc", n - np.floor(k), np.floor(k) + 1, 1 - p),
    "bdtrc": lambda k, n, p: _special("betainc", np.floor(k) + 1, n - np.floor(k), p),
    "nbdtr": lambda k, n, p: _special("betainc", n, np.floor(k) + 1, p),
    "nbdtrc": lambda k, n, p: _special("betainc", np.floor(k) + 1, n, 1 - p),
}
