"""Values and derivatives of special functions by mpmath, for tests/families/derivatives.json.

pip install mpmath; python derivatives.py > ../../families/derivatives.json
"""

import json

import mpmath as mp

mp.mp.dps = 60  # its difference quotients of fourth order keep 15 digits


def ndtr(x):
    return mp.erfc(-x / mp.sqrt(2)) / 2


def log_ndtr(x):
    return mp.log(ndtr(x))


def t_density(n, u):
    return mp.gamma((n + 1) / 2) / mp.gamma(n / 2) / mp.sqrt(n * mp.pi) * (1 + u * u / n) ** (-(n + 1) / 2)


ONE = {
    "log_ndtr": (log_ndtr, [-1e5, -300.0, -25.0, -19.0, -11.4, -11.2, 9.0]),
    "erfcx": (lambda x: mp.exp(x * x) * mp.erfc(x), [-3.0, 5.0, 7.9, 8.1, 19.0, 25.0, 1e4]),
    "dawsn": (lambda x: mp.sqrt(mp.pi) / 2 * mp.exp(-x * x) * mp.erfi(x), [-25.0, 0.0, 3.0, 7.9, 8.1, 19.0, 1e3]),
    "tanh": (mp.tanh, [12.0, -17.0]),
    "exprel": (lambda x: (mp.exp(x) - 1) / x, [-40.0, -1.51, -1.49, 1e-6, 1.6, 30.0]),
    "i0e": (lambda x: mp.besseli(0, x) * mp.exp(-x), [0.1, 10.0, 29.0, 31.0, 1e4, 1e8]),
    "i1e": (lambda x: mp.besseli(1, x) * mp.exp(-x), [0.1, 30.0, 32.0, 1e6]),
    "k0e": (lambda x: mp.besselk(0, x) * mp.exp(x), [0.1, 29.0, 31.0, 1e6]),
    "k1e": (lambda x: mp.besselk(1, x) * mp.exp(x), [0.01, 32.0, 1e5]),
    "wrightomega": (lambda x: mp.lambertw(mp.exp(x)), [-20.0, 0.0, 1.0, 50.0]),
    "ndtri": (lambda p: mp.findroot(lambda x: log_ndtr(x) - mp.log(p), -3 if p < 0.5 else 2), [1e-12, 0.3, 0.999]),
    "ndtri_exp": (lambda y: mp.findroot(lambda x: log_ndtr(x) - y, -mp.sqrt(-2 * y) + 0.1), [-500.0, -3.0]),
    "gamma": (mp.gamma, [-1.5, 0.01, 30.0]),
    "rgamma": (mp.rgamma, [-1.5, 0.01, 30.0]),
    "expi": (mp.ei, [0.5, 20.0]),
    "exp1": (mp.e1, [0.5, 20.0]),
    "erfinv": (mp.erfinv, [0.0, 0.99]),
    "arctanh": (mp.atanh, [0.999]),
}
LAST = {
    "ive": (lambda v, x: mp.besseli(v, x) * mp.exp(-x), [(2.5, 0.3), (2.5, 36.0), (2.5, 37.0), (10.0, 131.0)]),
    "kve": (lambda v, x: mp.besselk(v, x) * mp.exp(x), [(2.5, 0.3), (2.5, 36.0), (2.5, 37.0), (0.5, 1e6)]),
    "iv": (mp.besseli, [(0.7, 2.0), (3.0, 20.0)]),
    "kv": (mp.besselk, [(0.7, 2.0), (3.0, 20.0)]),
    "jv": (mp.besselj, [(0.7, 2.0)]),
    "yv": (mp.bessely, [(0.7, 2.0)]),
    "gammainc": (
        lambda a, x: mp.gammainc(a, 0, x, regularized=True),
        [(0.5, 1e-3), (1.0, 2.0), (2.5, 30.0), (40.0, 35.0)],
    ),
    "gammaincc": (
        lambda a, x: mp.gammainc(a, x, mp.inf, regularized=True),
        [(0.5, 1e-3), (1.0, 2.0), (2.5, 30.0), (40.0, 60.0)],
    ),
    "betainc": (
        lambda a, b, x: mp.betainc(a, b, 0, x, regularized=True),
        [(0.5, 2.0, 1e-3), (1.0, 1.0, 0.3), (20.0, 3.0, 0.8)],
    ),
    "stdtr": (lambda n, t: mp.quad(lambda u: t_density(n, u), [-mp.inf, -10, 0, t]), [(3.5, -2.0), (1.0, 8.0)]),
    "hyp1f1": (mp.hyp1f1, [(0.5, 1.5, -3.0), (2.0, 3.0, 4.0)]),
    "hyp0f1": (mp.hyp0f1, [(1.5, 3.0)]),
    "hyp2f1": (mp.hyp2f1, [(0.5, 2.0, 1.5, 0.3)]),
    "hyperu": (mp.hyperu, [(1.5, 0.5, 2.0)]),
    "zeta": (mp.zeta, [(3.0, 0.7), (1.5, 1e4)]),
    "owens_t": (
        lambda h, a: mp.quad(lambda x: mp.exp(-h * h * (1 + x * x) / 2) / (1 + x * x), [0, a]) / (2 * mp.pi),
        [(1.2, 0.7), (3.0, -2.0)],
    ),
    "arctan2": (mp.atan2, [(1.0, -2.0), (1e-8, 3.0)]),
    "hypot": (mp.hypot, [(3.0, 4.0), (1e-3, 2.0)]),
}


def derivatives(f, x):
    found = [mp.diff(f, mp.mpf(x), k) if k else f(mp.mpf(x)) for k in range(5)]
    return [float(mp.nstr(mp.chop(v, 1e-100), 17)) for v in found]  # what is below is 0, and rounding


def rows():
    for name, (f, points) in ONE.items():
        yield name, [[[x], derivatives(f, x)] for x in points]
    for name, (f, points) in LAST.items():
        found = [[list(at), derivatives(lambda x, f=f, at=at: f(*map(mp.mpf, at[:-1]), x), at[-1])] for at in points]
        yield name, found


print(json.dumps({"_": f"mpmath {mp.__version__}: tests/golden/scripts/derivatives.py", **dict(rows())}, indent=1))
