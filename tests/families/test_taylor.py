"""Truncated Taylor arithmetic: functions against difference quotients, densities against the core's derivatives."""

from __future__ import annotations

import json
import math
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import special, stats

from ranef import _core
from ranef.errors import NotAvailableError
from ranef.families.derivatives import LAST, UNIVARIATE
from ranef.families.taylor import COMPOSED, Taylor, variables

INSIDE = [0.1, 0.4, 0.8]
POINTS = {
    "log_ndtr": [-6.0, -0.3, 1.7], "gammaln": [0.2, 1.5, 30.0], "arccosh": [1.2, 2.0, 5.0], "j0": [0.3, 1.1, 4.0],
    "ndtri_exp": [-3.0, -0.7, -0.1], **dict.fromkeys(("logit", "ndtri", "erfinv", "erfcinv", "arcsin", "arccos",
    "arctanh"), INSIDE),
}  # fmt: skip
EXACT = {
    n: rows for n, rows in json.loads(Path(__file__).with_name("derivatives.json").read_text()).items() if n != "_"
}
EVERYWHERE = [0.3, 1.1, 2.4]
H = 1e-4  # five-point differences: errors of h^4 and eps / h, 1e-12 at best


def slope(f, x):
    return (8 * (f(x + H) - f(x - H)) - (f(x + 2 * H) - f(x - 2 * H))) / (12 * H)


@pytest.mark.parametrize("name", UNIVARIATE)
def test_functions_of_one_variable(name):
    x, f = np.array(POINTS.get(name, EVERYWHERE)), UNIVARIATE[name]
    for order in range(3):
        assert_allclose(f(x)[order + 1], slope(lambda v, k=order: f(v)[k], x), rtol=1e-7, atol=1e-9)
    assert_allclose(f(x)[4](), slope(lambda v: f(v)[3], x), rtol=1e-7, atol=1e-8)  # the third of Y_1 at .3 is 500
    function = getattr(np, name, None) or getattr(special, name)
    assert_allclose(f(x)[0], function(x), rtol=1e-14)
    assert_allclose(function(variables(x[:, None], 2)[0]).v, function(x), rtol=1e-14)


@pytest.mark.parametrize("name", EXACT)
def test_special_functions_far_out_and_near_to_where_they_vanish(name):
    """Derivatives lose up to 1e-8 where a difference is taken just before a series begins; others 1e-9 of hypot."""
    function = getattr(np, name, None) or getattr(special, name)
    for (*own, x), exact in EXACT[name]:
        out = function(*own, variables(np.array([[x]]), 4)[0])
        assert_allclose([out.v[0], out.g[0, 0]], exact[:2], rtol=1e-12)
        assert_allclose([out.h[0, 0], out.t[0, 0], out.q[0, 0]], exact[2:], rtol=3e-8)


PLAIN = {  # the last argument, behind these
    "gammainc": (2.3,), "gammaincc": (2.3,), "betainc": (2.0, 0.7), "betaincc": (2.0, 0.7), "hyp2f1": (0.5, 1.2, 2.0),
    "hyp1f1": (0.5, 1.2), "pdtr": (2.0,), "pdtrc": (2.0,), "gdtr": (1.5, 2.0), "gdtrc": (1.5, 2.0), "chdtr": (3.0,),
    "chdtrc": (3.0,), "bdtr": (2, 5), "bdtrc": (2, 5), "nbdtr": (2.0, 3.0), "nbdtrc": (2.0, 3.0), "kn": (2,),
    "yn": (2,), "zeta": (2.5,), "hyperu": (1.5, 0.5),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted({n.strip("_") for n in LAST} | set(PLAIN)))
def test_functions_of_their_last_argument(name):
    own, x, function = PLAIN.get(name, (1.3,)), np.array(INSIDE), getattr(special, name)

    def at(x):
        return function(*own, variables(x[:, None], 4)[0])

    out = at(x)
    assert_allclose(out.v, function(*own, x), rtol=1e-12)
    for low, high in (("v", "g"), ("g", "h"), ("h", "t"), ("t", "q")):
        numeric = slope(lambda x, f=low: np.ravel(getattr(at(x), f)), x)
        assert_allclose(np.ravel(getattr(out, high)), numeric, rtol=1e-6, atol=1e-7)
    if name in LAST:
        with pytest.raises(NotAvailableError, match=f"{name} are known in its last argument only"):
            function(variables(x[:, None], 2)[0], *own[1:], x)


@pytest.mark.parametrize(
    "name", sorted(set(COMPOSED) - {"positive", "negative", "entr", "copysign", "heaviside", *PLAIN})
)
@pytest.mark.parametrize("kinds", ["tt", "tc", "ct"])
def test_functions_of_two_variables(name, kinds):
    function = getattr(np, name, None) or getattr(special, name)
    x, y = np.array([0.3, 1.7, 0.6]), np.array([1.2, 0.4, 0.5])

    def at(x, y, order=4):
        a, b = variables(np.column_stack([x, y]), order)
        return function(a if kinds[0] == "t" else x, b if kinds[1] == "t" else y)

    out = at(x, y)
    assert_allclose(out.v, function(x, y), rtol=1e-13)
    for j, kind in enumerate(kinds):
        if kind == "c":
            assert not out.g[j].any()
            continue
        for low, high, pick in (
            ("v", "g", [j]),
            ("g", "h", [[0, 1], [1, 2]][j]),
            ("h", "t", [[0, 1, 2], [1, 2, 3]][j]),
            ("t", "q", [[0, 1, 2, 3], [1, 2, 3, 4]][j]),
        ):
            numeric = slope(lambda e, f=low, j=j: getattr(at(x + e * (j == 0), y + e * (j == 1)), f), 0.0)
            assert_allclose(getattr(out, high)[pick], np.atleast_2d(numeric), rtol=1e-6, atol=1e-7)
    second, third = at(x, y, order=2), at(x, y, order=3)
    assert_allclose([*second.h, *third.t], [*out.h, *out.t], rtol=1e-14)
    assert not len(second.t)
    assert not len(third.q)


def test_edges():
    x = variables(np.array([[0.0], [2.0], [-1.0]]), 3)[0]
    cube = x**3
    assert_allclose([cube.v, cube.g[0], cube.h[0], cube.t[0]], [[0, 8, -1], [0, 12, 3], [0, 12, -6], [6, 6, 6]])
    assert_allclose((x**2).h[0], 2)
    zero = np.array([0.0, 1.0, 0.0])
    kept = special.xlogy(zero, np.maximum(x, 0.0))
    assert_allclose(kept.v, [0.0, np.log(2.0), 0.0])
    assert np.isfinite(kept.g).all()
    far = np.logaddexp(-np.inf, x)
    assert_allclose([far.v, far.g[0]], [x.v, [1, 1, 1]])
    assert_allclose(np.where(x > 0, x, 5.0).g[0], [0, 1, 0])
    assert_allclose(np.clip(x, -0.5, 1.0).v, [0, 1, -0.5])
    assert_allclose(x[np.array([False, True, True])].v, [2, -1])
    assert x[:] is x[...] is x
    assert (np.isfinite(x) == [True, True, True]).all()
    assert (len(x), x.shape, x.size, x.ndim) == (3, (3,), 3, 1)
    assert np.zeros_like(x).shape == (3,)


def test_ties_and_zeros():
    """A tie of log(exp x + exp y) takes half of each; 0 to a power has no slope; ratios of tiny numbers are ratios."""
    x, y = variables(np.array([[0.7, 0.7]]), 3)
    tie = np.logaddexp(x, y)
    assert_allclose(tie.g[:, 0], [0.5, 0.5])
    assert_allclose(tie.h[:, 0], [0.25, -0.25, 0.25])
    assert_allclose([(0.0**x).v, (0.0**x).g[0]], 0)
    assert_allclose((x * 1e-310 / 1e-310).v, 0.7, rtol=1e-12)
    assert_allclose(np.heaviside(np.zeros(1), x).g[0], 1)
    assert_allclose(np.copysign(x, -1.0).g[0], -1)
    assert_allclose(special.entr(x).g[0], -np.log(0.7) - 1)
    chosen = np.select([x > 1, x > 0.5], [x, 2 * x], y)
    assert_allclose([chosen.v, chosen.g[0]], [[1.4], [2.0]])
    assert_allclose(np.sinc(x).g[0], slope(np.sinc, 0.7), rtol=1e-9)
    assert_allclose(np.i0(x).g[0], special.i1(0.7), rtol=1e-14)


def nbinom2(y, mu, k):
    log = special.gammaln(y + k) - special.gammaln(k) - special.gammaln(y + 1)
    return log + k * np.log(k / (mu + k)) + special.xlogy(y, mu / (mu + k))


def student(y, mu, sigma, nu):
    z = (y - mu) / sigma
    head = special.gammaln((nu + 1) / 2) - special.gammaln(nu / 2) - 0.5 * np.log(np.pi * nu) - np.log(sigma)
    return head - (nu + 1) / 2 * np.log1p(z**2 / nu)


def beta(y, mu, phi):
    a, b = mu * phi, (1 - mu) * phi
    return (a - 1) * np.log(y) + (b - 1) * np.log1p(-y) - special.betaln(a, b)


DENSITIES = {
    "nbinom2": (nbinom2, [np.exp, np.exp], [0.0, 1.0, 7.0]),
    "student_t": (student, [np.positive, np.exp, np.exp], [-2.0, 0.4, 9.0]),
    "beta": (beta, [special.expit, np.exp], [0.02, 0.5, 0.9]),
}


@pytest.mark.parametrize("name", DENSITIES)
def test_densities_have_the_derivatives_of_the_core(name):
    density, inverses, y = DENSITIES[name]
    eta = np.random.default_rng(1).normal(size=(3, len(inverses)))
    out = density(np.array(y), *(f(x) for f, x in zip(inverses, variables(eta, 3), strict=True)))
    exact = np.asarray(_core.family_eval({"name": name}, {"y": np.array(y)}, eta, 3))
    assert_allclose(np.vstack([out.v, out.g, out.h, out.t]).T, exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", DENSITIES)
def test_fourth_derivatives_of_densities_are_the_slopes_of_the_third(name):
    """In every order of the variables: a < b < c < d comes from the third in (a, b, c), (a, b, d) ...."""
    density, inverses, y = DENSITIES[name]
    k, eta = len(inverses), np.random.default_rng(2).normal(size=(3, len(inverses)))

    def at(eta):
        return density(np.array(y), *(f(x) for f, x in zip(inverses, variables(eta, 4), strict=True)))

    triples, fours = (list(combinations_with_replacement(range(k), width)) for width in (3, 4))
    fourth = at(eta).q
    for d in range(k):
        numeric = slope(lambda e, d=d: at(eta + e * (np.arange(k) == d)).t, 0.0)
        rows = [fours.index(tuple(sorted((*abc, d)))) for abc in triples]
        assert_allclose(fourth[rows], numeric, rtol=1e-7, atol=1e-8)


def written(x):
    x[x > 0] = 0.0


def filled(x):
    np.zeros(2)[np.array([True, True])] = x


def grown(x):
    x += 1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x: special.struve(1, x), "struve are not known; known are"),
        (np.add.reduce, "add.reduce"),
        (np.logaddexp.reduce, "write np.logaddexp"),
        (lambda x: special.logsumexp([x, x]), "logsumexp are not known: write np.logaddexp"),
        (np.mean, "mean are not known: rows may not be mixed"),
        (np.cumsum, "rows may not be mixed"),
        (lambda x: x.sum(), "rows may not be mixed"),
        (lambda x: np.stack([x, x]), "terms one by one"),
        (lambda x: np.interp(x, [0, 1], [0, 1]), "np.where"),
        (lambda x: np.clip(x, 0, 1, casting="no"), "clip with casting"),
        (np.asarray, "plain array"),
        (float, "plain array"),
        (math.lgamma, "plain array"),
        (filled, "plain array"),
        (written, "np.where"),
        (grown, r"x = x \+ y"),
        (lambda x: x[0], "rows may not be moved"),
        (lambda x: x[::-1], "rows may not be moved"),
        (lambda x: x[[1, 0]], "rows may not be moved"),
        (list, "one by one"),
        (lambda x: np.exp(x, where=np.array([True, True])), "options"),
        (lambda x: special.polygamma(1, x), r"special.polygamma are not known: write .*zeta\(n \+ 1, x\)"),
        (special.lambertw, "wrightomega"),
        (lambda x: stats.norm.logpdf(1.0, x, 1.0), r"scipy.stats.logpdf are not known: .*write the formula"),
    ],
)
def test_what_is_not_known_is_said(call, says):
    with pytest.raises(NotAvailableError, match=says):
        call(variables(np.ones((2, 1)), 2)[0])


def test_it_looks_like_numbers():
    assert repr(variables(np.ones((1, 2)), 2)[1]).startswith("Taylor(array([1.])")
    with pytest.raises(ValueError, match="truth value of"):
        bool(variables(np.ones((1, 1)), 2)[0])
    assert isinstance(2 - variables(np.ones((1, 1)), 2)[0] / 3, Taylor)
