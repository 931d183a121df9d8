"""Derivatives of NumPy's and SciPy's functions: the value and four derivatives at arrays of numbers, one row each.

The fourth is a function without arguments, called where fourth derivatives are wanted: it costs nothing elsewhere.
`UNIVARIATE` holds functions of one argument, `LAST` those of several that are differentiated in the last one. Equations
are those of the NIST Digital Library of Mathematical Functions (DLMF, https://dlmf.nist.gov). Where a derivative would
be a difference of large numbers far out, the asymptotic series is differentiated instead.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

Derivatives = tuple[Any, Any, Any, Any, Callable[[], Any]]
FAR = 20.0  # from where twelve terms of the series of the normal tails have all digits
FAR_FOURTH = 8.0  # of erfcx; fourth derivatives as differences lose eight digits here, and their series ten
TERMS = 16  # of the series of Bessel functions from FAR_BESSEL + v^2 on
FAR_BESSEL = 30.0
NEAR = 1.5  # where quotients with a removable singularity are summed
POWERS = 30  # terms of those sums


def softplus(x: Any) -> Derivatives:
    """Return log(1 + exp x)."""
    from scipy.special import expit

    p, q = expit(x), expit(-x)
    return np.logaddexp(0.0, x), p, p * q, p * q * (q - p), lambda: p * q * (1 - 6 * p * q)


def _exp(x: Any) -> Derivatives:
    e = np.exp(x)
    return e, e, e, e, lambda: e


def _log(x: Any) -> Derivatives:
    r = 1 / x
    return np.log(x), r, -(r**2), 2 * r**3, lambda: -6 * r**4


def _log1p(x: Any) -> Derivatives:
    r = 1 / (1 + x)
    return np.log1p(x), r, -(r**2), 2 * r**3, lambda: -6 * r**4


def _based(log: Any, base: float) -> Callable[[Any], Derivatives]:
    def of(x: Any) -> Derivatives:
        return _times(1 / np.log(base), log(x), *_log(x)[1:])

    return of


def _times(factor: Any, value: Any, a: Any, b: Any, c: Any, fourth: Callable[[], Any]) -> Derivatives:
    """Return a value, and derivatives times a number."""
    return value, factor * a, factor * b, factor * c, lambda: factor * fourth()


def _exp2(x: Any) -> Derivatives:
    e, c = np.exp2(x), np.log(2.0)
    return e, c * e, c**2 * e, c**3 * e, lambda: c**4 * e


def _expm1(x: Any) -> Derivatives:
    e = np.exp(x)
    return np.expm1(x), e, e, e, lambda: e


def _sqrt(x: Any) -> Derivatives:
    s, r = np.sqrt(x), 1 / x
    return s, s * r / 2, -s * r**2 / 4, 3 * s * r**3 / 8, lambda: -15 * s * r**4 / 16


def _cbrt(x: Any) -> Derivatives:
    s, r = np.cbrt(x), 1 / x
    return s, s * r / 3, -2 * s * r**2 / 9, 10 * s * r**3 / 27, lambda: -80 * s * r**4 / 81


def _reciprocal(x: Any) -> Derivatives:
    r = 1 / x
    return r, -(r**2), 2 * r**3, -6 * r**4, lambda: 24 * r**5


def _absolute(x: Any) -> Derivatives:
    return np.abs(x), np.sign(x), 0.0 * x, 0.0 * x, lambda: 0.0 * x


def _sin(x: Any) -> Derivatives:
    s, c = np.sin(x), np.cos(x)
    return s, c, -s, -c, lambda: s


def _cos(x: Any) -> Derivatives:
    s, c = np.sin(x), np.cos(x)
    return c, -s, -c, s, lambda: c


def _tan(x: Any) -> Derivatives:
    t = np.tan(x)
    d = 1 + t**2
    return t, d, 2 * t * d, d * (2 + 6 * t**2), lambda: t * d * (16 + 24 * t**2)


def _tanh(x: Any) -> Derivatives:
    t = np.tanh(x)
    d = 1 / np.cosh(x) ** 2  # 1 - t^2 has no digits where t is near 1
    return t, d, -2 * t * d, d * (6 * t**2 - 2), lambda: t * d * (16 - 24 * t**2)


def _sinh(x: Any) -> Derivatives:
    s, c = np.sinh(x), np.cosh(x)
    return s, c, s, c, lambda: s


def _cosh(x: Any) -> Derivatives:
    s, c = np.sinh(x), np.cosh(x)
    return c, s, c, s, lambda: c


def _arctan(x: Any) -> Derivatives:
    r = 1 / (1 + x**2)
    return np.arctan(x), r, -2 * x * r**2, (6 * x**2 - 2) * r**3, lambda: 24 * x * (1 - x**2) * r**4


def _arcsinh(x: Any) -> Derivatives:
    r = 1 / (1 + x**2)
    d = np.sqrt(r)
    return np.arcsinh(x), d, -x * d * r, (2 * x**2 - 1) * d * r**2, lambda: x * (9 - 6 * x**2) * d * r**3


def _expit(x: Any) -> Derivatives:
    from scipy.special import expit

    p, q = expit(x), expit(-x)
    d = p * q
    return p, d, d * (q - p), d * (1 - 6 * d), lambda: d * (q - p) * (1 - 12 * d)


def _log_expit(x: Any) -> Derivatives:
    from scipy.special import expit, log_expit

    p, q = expit(x), expit(-x)
    return log_expit(x), q, -p * q, -p * q * (q - p), lambda: -p * q * (1 - 6 * p * q)


def _logit(x: Any) -> Derivatives:
    from scipy.special import logit

    a, b = 1 / x, 1 / (1 - x)
    return logit(x), a + b, b**2 - a**2, 2 * (a**3 + b**3), lambda: 6 * (b**4 - a**4)


def _gammaln(x: Any) -> Derivatives:
    from scipy.special import digamma, gammaln, polygamma

    return gammaln(x), digamma(x), polygamma(1, x), polygamma(2, x), lambda: polygamma(3, x)


def _psi(x: Any) -> Derivatives:
    from scipy.special import digamma, polygamma

    return digamma(x), polygamma(1, x), polygamma(2, x), polygamma(3, x), lambda: polygamma(4, x)


def _erf(x: Any) -> Derivatives:
    from scipy.special import erf

    d = 2 / np.sqrt(np.pi) * np.exp(-(x**2))
    return erf(x), d, -2 * x * d, (4 * x**2 - 2) * d, lambda: x * (12 - 8 * x**2) * d


def _erfc(x: Any) -> Derivatives:
    from scipy.special import erfc

    return _times(-1.0, erfc(x), *_erf(x)[1:])


def _ndtr(x: Any) -> Derivatives:
    from scipy.special import ndtr

    d = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    return ndtr(x), d, -x * d, (x**2 - 1) * d, lambda: x * (3 - x**2) * d


def _log_ndtr(x: Any) -> Derivatives:
    """Return it; phi / Phi is the inverse Mills ratio r(-x) = -x + 1 / -x - 2 / (-x)^3 + ... (DLMF 7.12.1 inverted)."""
    from scipy.special import erfcx, log_ndtr

    r = np.sqrt(2 / np.pi) / erfcx(-x / np.sqrt(2))
    first, u, w = -r * (x + r), x + r, x + 2 * r
    over, slope, bend, _, _ = _descending(MILLS, 1.0, 2.0, np.maximum(-x, FAR))
    near, far = (r, first, r * (u * w - 1)), (over - x, -1 - slope, bend)

    def fourth() -> Any:
        start = FAR_FOURTH * np.sqrt(2)
        out = first * (u * w - 1) + r * ((1 + first) * w + u * (1 + 2 * first))
        return np.where(x > -start, out, -_descending(MILLS, 1.0, 2.0, np.maximum(-x, start))[3])

    return log_ndtr(x), *_pick(x > -FAR, near, far), fourth


def _erfcx(x: Any) -> Derivatives:
    """Return it: f' = 2 x f - 2 / sqrt(pi); the series is DLMF 7.12.1."""
    from scipy.special import erfcx

    f = erfcx(x)
    *near, last = _of_slope(f, 2.0, -2 / np.sqrt(np.pi), x)
    far = _descending(ERFC, 1.0, 2.0, np.maximum(x, FAR))[1:4]

    def fourth() -> Any:
        return np.where(x < FAR_FOURTH, last(), _descending(ERFC, 1.0, 2.0, np.maximum(x, FAR_FOURTH))[4]())

    return f, *_pick(x < FAR, near, far), fourth


def _dawsn(x: Any) -> Derivatives:
    """Return it: f' = 1 - 2 x f (DLMF 7.5.2 and 7.12); it is odd."""
    from scipy.special import dawsn

    size, sign, terms = np.abs(x), np.sign(x), np.sqrt(np.pi) / 2 * np.abs(ERFC)
    f, (_, a, b, c, _) = dawsn(x), _descending(terms, 1.0, 2.0, np.maximum(size, FAR))
    *near, last = _of_slope(f, -2.0, 1.0, x)

    def fourth() -> Any:
        far = _descending(terms, 1.0, 2.0, np.maximum(size, FAR_FOURTH))[4]
        return np.where(size < FAR_FOURTH, last(), sign * far())

    return f, *_pick(size < FAR, near, (a, sign * b, c)), fourth


def _of_slope(f: Any, a: float, b: float, x: Any) -> tuple[Any, Any, Any, Callable[[], Any]]:
    """Return the derivatives where f' = a x f + b."""
    first = a * x * f + b
    second = a * (f + x * first)
    third = a * (2 * first + x * second)
    return first, second, third, lambda: a * (3 * second + x * third)


def _pick(where: Any, some: Any, others: Any) -> tuple[Any, ...]:
    return tuple(np.where(where, a, b) for a, b in zip(some, others, strict=True))


def _descending(terms: Any, power: float, step: float, x: Any) -> Derivatives:
    """Return sum_k c_k x^-(power + k step) and its derivatives; terms are numbers, or arrays like x."""
    out, last = [0.0, 0.0, 0.0, 0.0], list[Any]()
    for k, c in enumerate(terms):
        p, term = power + k * step, c * x ** -(power + k * step)
        for order in range(4):
            out[order] = out[order] + term
            term = term if order == 3 else term * -(p + order) / x
        last.append(term)
    return *out, lambda: sum(term * -(power + k * step + 3) / x for k, term in enumerate(last))  # pyright: ignore[reportReturnType]


#: r(z) - z in 1 / z, 1 / z^3 ...: with s = r - z, s' + 1 = r s, so that c_k = -(2k - 1) c_(k-1) - sum c_i c_(k-1-i).
MILLS = [1.0]
for _k in range(1, 13):
    MILLS.append(-(2 * _k - 1) * MILLS[-1] - sum(MILLS[i] * MILLS[_k - 1 - i] for i in range(_k)))
ERFC = np.cumprod([1 / np.sqrt(np.pi), *(-(2 * k - 1) / 2 for k in range(1, 13))])


def _slope(value: Any, d: Any, a: Any, b: Any, c: Callable[[], Any]) -> Derivatives:
    """Return the derivatives from the first, d, and the first three of log d."""
    return value, d, d * a, d * (a**2 + b), lambda: d * (a**3 + 3 * a * b + c())


def _over(c: Any, x: Any) -> Any:
    return np.where(np.equal(c, 0), 0.0, np.divide(c, x))


def _gamma(x: Any) -> Derivatives:
    from scipy.special import gamma

    f, (_, a, b, c, last) = gamma(x), _gammaln(x)
    return f, f * a, f * (a**2 + b), f * (a**3 + 3 * a * b + c), lambda: f * _bell(a, b, c, last())


def _rgamma(x: Any) -> Derivatives:
    """Return 1 / gamma, which has no poles: at 0, -1, -2 ... its derivatives here are not finite."""
    from scipy.special import rgamma

    f, (_, a, b, c, last) = rgamma(x), _gammaln(x)
    return f, -f * a, f * (a**2 - b), -f * (a**3 - 3 * a * b + c), lambda: f * _bell(-a, -b, -c, -last())


def _bell(a: Any, b: Any, c: Any, d: Any) -> Any:
    """Return the fourth derivative of exp g over exp g, from those of g."""
    return a**4 + 6 * a**2 * b + 4 * a * c + 3 * b**2 + d


def _ndtri(p: Any) -> Derivatives:
    from scipy.special import ndtri

    x = ndtri(p)
    d = np.sqrt(2 * np.pi) * np.exp(x**2 / 2)
    return x, d, x * d**2, (1 + 2 * x**2) * d**3, lambda: x * (7 + 6 * x**2) * d**4


def _ndtri_exp(y: Any) -> Derivatives:
    """Return the inverse of log_ndtr."""
    from scipy.special import ndtri_exp

    x = ndtri_exp(y)
    _, a, b, c, last = _log_ndtr(x)
    b, c = b / a, c / a
    return x, 1 / a, -b / a**2, (3 * b**2 - c) / a**3, lambda: (10 * b * c - 15 * b**3 - last() / a) / a**4


def _erf_inverse(name: str, sign: float) -> Callable[[Any], Derivatives]:
    def of(p: Any) -> Derivatives:
        from scipy import special

        x = getattr(special, name)(p)
        d = sign * np.sqrt(np.pi) / 2 * np.exp(x**2)
        return x, d, 2 * x * d**2, (2 + 8 * x**2) * d**3, lambda: x * (28 + 48 * x**2) * d**4

    return of


def _erfi(x: Any) -> Derivatives:
    from scipy.special import erfi

    return _slope(erfi(x), 2 / np.sqrt(np.pi) * np.exp(x**2), 2 * x, 2.0, lambda: 0.0)


def _exp1(x: Any) -> Derivatives:
    from scipy.special import exp1

    return _slope(exp1(x), -np.exp(-x) / x, -1 - 1 / x, 1 / x**2, lambda: -2 / x**3)


def _expi(x: Any) -> Derivatives:
    from scipy.special import expi

    return _slope(expi(x), np.exp(x) / x, 1 - 1 / x, 1 / x**2, lambda: -2 / x**3)


def _wrightomega(x: Any) -> Derivatives:
    """Return the w of w + log w = x (Corless & Jeffrey 2002)."""
    from scipy.special import wrightomega

    w = wrightomega(x)
    r = 1 / (1 + w)
    return w, w * r, w * r**3, w * (1 - 2 * w) * r**5, lambda: w * (1 - 8 * w + 6 * w**2) * r**7


def _arcsin(x: Any) -> Derivatives:
    r = 1 / ((1 - x) * (1 + x))
    d = np.sqrt(r)
    return np.arcsin(x), d, x * d * r, (1 + 2 * x**2) * d * r**2, lambda: x * (9 + 6 * x**2) * d * r**3


def _arccos(x: Any) -> Derivatives:
    return _times(-1.0, np.arccos(x), *_arcsin(x)[1:])


def _arccosh(x: Any) -> Derivatives:
    r = 1 / ((x - 1) * (x + 1))
    d = np.sqrt(r)
    return np.arccosh(x), d, -x * d * r, (1 + 2 * x**2) * d * r**2, lambda: -x * (9 + 6 * x**2) * d * r**3


def _arctanh(x: Any) -> Derivatives:
    r = 1 / ((1 - x) * (1 + x))
    return np.arctanh(x), r, 2 * x * r**2, (2 + 6 * x**2) * r**3, lambda: 24 * x * (1 + x**2) * r**4


def _cosm1(x: Any) -> Derivatives:
    from scipy.special import cosm1

    s, c = np.sin(x), np.cos(x)
    return cosm1(x), -s, -c, s, lambda: c


def _exp10(x: Any) -> Derivatives:
    e, c = np.power(10.0, x), np.log(10.0)
    return e, c * e, c**2 * e, c**3 * e, lambda: c**4 * e


def _linear(name: str, slope: float) -> Callable[[Any], Derivatives]:
    return lambda x: (getattr(np, name)(x), slope + 0.0 * x, 0.0 * x, 0.0 * x, lambda: 0.0 * x)


def _quotient(of: Derivatives, terms: Any, x: Any) -> Derivatives:
    """Return g(x) / x where g(0) = 0: x f^(m) + m f^(m-1) = g^(m); near 0 a polynomial that has these terms."""
    inside = np.abs(x) < NEAR
    f0 = of[0] / x
    f1 = (of[1] - f0) / x
    f2 = (of[2] - 2 * f1) / x
    f3 = (of[3] - 3 * f2) / x
    *near, last = _ascending(terms, np.where(inside, x, 0.0))
    return *_pick(inside, near, (f0, f1, f2, f3)), lambda: np.where(inside, last(), (of[4]() - 4 * f3) / x)  # pyright: ignore[reportReturnType]


def _exprel(x: Any) -> Derivatives:
    return _quotient(_expm1(x), EXPREL, x)


def sinc(x: Any) -> Derivatives:
    """Return NumPy's sinc, sin(pi x) / (pi x)."""
    pi = np.pi
    a, b, c, d, last = _quotient(_sin(pi * x), SINC, pi * x)
    return a, pi * b, pi**2 * c, pi**3 * d, lambda: pi**4 * last()


def _ascending(terms: Any, x: Any) -> Derivatives:
    """Return a polynomial and its derivatives."""
    p = np.polynomial.Polynomial(terms)
    return p(x), p.deriv(1)(x), p.deriv(2)(x), p.deriv(3)(x), lambda: p.deriv(4)(x)


EXPREL = np.cumprod([1.0, *(1 / (k + 1) for k in range(1, POWERS))])
SINC = [0.0 if k % 2 else (-1.0) ** (k // 2) * EXPREL[k] for k in range(POWERS)]


# ---- Bessel functions ------------------------------------------------------------------------------------------------


def _bessel(name: str, sign: float, outer: float = 1.0, v: float | None = None) -> Callable[..., Derivatives]:
    """Return them: f_v' = outer (f_(v-1) + sign f_(v+1)) / 2, and so on (DLMF 10.6.1, 10.6.7, 10.29.1, 10.29.5)."""

    def of(*arguments: Any) -> Derivatives:
        from scipy import special

        both: tuple[Any, ...] = (v, *arguments)
        order, x = both[-2:]
        f = getattr(special, name)
        at = {k: f(order + k, x) for k in range(-3, 4)}
        first = (at[-1] + sign * at[1]) / 2
        second = (at[-2] + 2 * sign * at[0] + at[2]) / 4
        third = (at[-3] + 3 * sign * at[-1] + 3 * at[1] + sign * at[3]) / 8

        def fourth() -> Any:
            return (f(order - 4, x) + f(order + 4, x) + 4 * sign * (at[-2] + at[2]) + 6 * at[0]) / 16

        return at[0], outer * first, second, outer * third, fourth

    return of


def _scaled(name: str, outer: float, v: float | None = None) -> Callable[..., Derivatives]:
    """Return those times exp(-|x|) (ive) or exp(x) (kve); far out the series DLMF 10.40.1 and 10.40.2."""

    def of(*arguments: Any) -> Derivatives:
        both: tuple[Any, ...] = (v, *arguments)
        order, x = both[-2:]
        f0, a, b, c, last = _bessel(name, 1.0, outer)(order, x)
        s = np.where(x < 0, 1.0, -1.0) if outer > 0 else 1.0
        near = (a + s * f0, b + 2 * s * a + f0, c + 3 * s * b + 3 * a + s * f0)
        start = FAR_BESSEL + np.square(order)
        terms = _hankel(order, outer)
        head = 1 / np.sqrt(2 * np.pi) if outer > 0 else np.sqrt(np.pi / 2)
        far = _descending([head * t for t in terms], 0.5, 1.0, np.maximum(x, start))

        def fourth() -> Any:
            return np.where(x < start, last() + 4 * s * (c + a) + 6 * b + f0, far[4]())

        return f0, *_pick(x < start, near, far[1:4]), fourth

    return of


def _hankel(v: Any, sign: float) -> list[Any]:
    """Return (-1)^k a_k(v) (DLMF 10.17.1), or a_k(v) where sign is -1."""
    terms: list[Any] = [1.0]
    for k in range(1, TERMS):
        terms.append(-sign * terms[-1] * (4 * np.square(v) - (2 * k - 1) ** 2) / (8 * k))
    return terms


# ---- several arguments -----------------------------------------------------------------------------------------------


def _gammainc(name: str, sign: float) -> Callable[[Any, Any], Derivatives]:
    def of(p: Any, x: Any) -> Derivatives:
        from scipy import special

        d = sign * np.exp(special.xlogy(p - 1, x) - x - special.gammaln(p))
        return _slope(
            getattr(special, name)(p, x), d, _over(p - 1, x) - 1, -_over(p - 1, x**2), lambda: _over(2 * p - 2, x**3)
        )

    return of


def _betainc(name: str, sign: float) -> Callable[[Any, Any, Any], Derivatives]:
    def of(p: Any, q: Any, x: Any) -> Derivatives:
        from scipy import special

        y = 1 - x
        d = sign * np.exp(special.xlogy(p - 1, x) + special.xlog1py(q - 1, -x) - special.betaln(p, q))
        bend, third = -_over(p - 1, x**2) - _over(q - 1, y**2), lambda: 2 * (_over(p - 1, x**3) - _over(q - 1, y**3))
        return _slope(getattr(special, name)(p, q, x), d, _over(p - 1, x) - _over(q - 1, y), bend, third)

    return of


def _stdtr(df: Any, x: Any) -> Derivatives:
    from scipy.special import gammaln, stdtr

    head = gammaln((df + 1) / 2) - gammaln(df / 2) - 0.5 * np.log(np.pi * df)
    r = 1 / (df + x**2)
    bend = -(df + 1) * (df - x**2) * r**2
    d = np.exp(head - (df + 1) / 2 * np.log1p(x**2 / df))
    return _slope(stdtr(df, x), d, -(df + 1) * x * r, bend, lambda: 2 * (df + 1) * x * (3 * df - x**2) * r**3)


def _rising(name: str, up: int, down: int, sign: float = 1.0) -> Callable[..., Derivatives]:
    """Return them: f^(k) = (a)_k / (b)_k f(a + k, b + k, x), (DLMF 13.3, 15.5)."""

    def of(*arguments: Any) -> Derivatives:
        from scipy import special

        *own, x = arguments

        def at(k: int) -> Any:
            rise = [prod(a + i for i in range(k)) for a in own]
            return (
                sign**k
                * prod(rise[:up])
                / prod(rise[up : up + down])
                * getattr(special, name)(*(a + k for a in own), x)
            )

        return at(0), at(1), at(2), at(3), lambda: at(4)

    return of


def _hurwitz(s: Any, x: Any) -> Derivatives:
    """Return zeta(s, x), whose slope is -s zeta(s + 1, x) (DLMF 25.11.17)."""
    from scipy.special import zeta

    a, b, c, d = (zeta(s + k, x) for k in range(4))
    two, three = s * (s + 1), s * (s + 1) * (s + 2)
    return a, -s * b, two * c, -three * d, lambda: three * (s + 3) * zeta(s + 4, x)


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
    "square": lambda x: (x**2, 2 * x, 2 * np.ones_like(x), 0.0 * x, lambda: 0.0 * x),
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
    "gamma": _gamma,
    "rgamma": _rgamma,
    "ndtri": _ndtri,
    "ndtri_exp": _ndtri_exp,
    "erfcx": _erfcx,
    "erfi": _erfi,
    "erfinv": _erf_inverse("erfinv", 1.0),
    "erfcinv": _erf_inverse("erfcinv", -1.0),
    "dawsn": _dawsn,
    "exp1": _exp1,
    "expi": _expi,
    "wrightomega": _wrightomega,
    "arcsin": _arcsin,
    "arccos": _arccos,
    "arccosh": _arccosh,
    "arctanh": _arctanh,
    "cosm1": _cosm1,
    "exp10": _exp10,
    "exprel": _exprel,
    "radians": _linear("radians", np.pi / 180),
    "deg2rad": _linear("deg2rad", np.pi / 180),
    "degrees": _linear("degrees", 180 / np.pi),
    "rad2deg": _linear("rad2deg", 180 / np.pi),
    **{f"i{v}": _bessel("iv", 1.0, v=v) for v in (0, 1)},
    **{f"k{v}": _bessel("kv", 1.0, -1.0, v=v) for v in (0, 1)},
    **{f"j{v}": _bessel("jv", -1.0, v=v) for v in (0, 1)},
    **{f"y{v}": _bessel("yv", -1.0, v=v) for v in (0, 1)},
    **{f"i{v}e": _scaled("ive", 1.0, v=v) for v in (0, 1)},
    **{f"k{v}e": _scaled("kve", -1.0, v=v) for v in (0, 1)},
}

#: Functions of several arguments, differentiated in the last.
LAST: dict[str, Callable[..., Derivatives]] = {
    "iv": _bessel("iv", 1.0),
    "kv": _bessel("kv", 1.0, -1.0),
    "kn": _bessel("kv", 1.0, -1.0),
    "jv": _bessel("jv", -1.0),
    "yv": _bessel("yv", -1.0),
    "yn": _bessel("yv", -1.0),
    "ive": _scaled("ive", 1.0),
    "kve": _scaled("kve", -1.0),
    "gammainc": _gammainc("gammainc", 1.0),
    "gammaincc": _gammainc("gammaincc", -1.0),
    "betainc": _betainc("betainc", 1.0),
    "betaincc": _betainc("betaincc", -1.0),
    "stdtr": _stdtr,
    "hyp0f1": _rising("hyp0f1", 0, 1),
    "hyp1f1": _rising("hyp1f1", 1, 1),
    "hyp2f1": _rising("hyp2f1", 2, 1),
    "hyperu": _rising("hyperu", 1, 0, -1.0),
    "_zeta": _hurwitz,
}
