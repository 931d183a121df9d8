"""Every parameter of every kind of fit has a profile whose ends lie around the estimate, or a reason for none."""

import warnings
from functools import cache

import numpy as np
import pytest

import ranef as rf
from ranef.inference.parameters import parameters, select

GROUPS, TIMES = 14, 4
#: Reasons that a parameter has no profile.
REASONS = (
    "is held", "dropped as linearly dependent", "correlation is undefined", "not estimated as one number",
    "rotations", "its estimate is 0, and beside parameters held",
)  # fmt: skip


@cache
def data():
    """Groups of four times twice; effects that no structure finds singular."""
    r = np.random.default_rng(11)
    g, t = np.repeat(np.arange(GROUPS), 2 * TIMES), np.tile(np.arange(TIMES), 2 * GROUPS)
    n = len(g)
    x, shared = r.normal(size=n), 0.6 ** np.abs(np.subtract.outer(np.arange(TIMES), np.arange(TIMES)))
    b, slope = r.multivariate_normal(np.zeros(TIMES), shared, size=GROUPS), 0.7 * r.normal(size=GROUPS)
    eta = 0.4 * x + b[g, t] + slope[g] * x
    y = 1 + eta + 0.6 * r.normal(size=n)
    count = r.negative_binomial(3, 3 / (3 + np.exp(0.5 + 0.5 * eta))) * (r.random(n) > 0.2)
    cuts = np.digitize(eta + r.logistic(size=n), [-1.0, 1.0])
    frame = {
        "y": y, "x": x, "t": t.astype(float), "ft": t, "g": g, "h": r.integers(0, 8, n), "count": count,
        "kind": cuts, "k": (eta + r.logistic(size=n) > 0).astype(int), "share": 1 / (1 + np.exp(-0.5 * y)),
        "px": t % 2 + 0.0, "size": np.exp(0.3 * y), "off": 0.1 * r.normal(size=n),
        "w": r.uniform(0.5, 2, n),
    }  # fmt: skip
    names = {"ft": "t", "g": "g", "h": "h", "kind": "c"}
    return {k: np.array([f"{names[k]}{v}" for v in col]) if k in names else col for k, col in frame.items()}


CROSSED = "y ~ x + (1 | g) + (1 | h)"
ALONE = {"dispersion": 0, "method": "ml"}
KIND = "ordered(kind, levels=c('c0', 'c1', 'c2')) ~ x + (1 | g)"
ORDERED = {"family": "cumulative"}
FITS = {
    "reml": ("y ~ x + (x | g)", {}),
    "ml, crossed": (CROSSED, {"method": "ml"}),
    "no random effects": ("y ~ x", {}),
    "independent": ("y ~ x + (x || g)", {"precision_weights": "w"}),
    "a dependent column": ("y ~ x + I(2 * x) + offset(off) + (1 | g)", {}),
    "dispersion formula": ("y ~ x + (1 | g)", {"dispersion": "~ x"}),
    "random dispersion": ("y ~ x + (1 | g)", {"dispersion": "~ 1 + (1 | h)"}),
    "held dispersion": ("y ~ x + (1 | g)", {"dispersion": 0.5}),
    **{f"{s}, beside a residual": (f"y ~ x + {s}(0 + ft | g)", {}) for s in ("homdiag", "cs", "ar1", "homtoep")},
    **{f"{s}, alone": (f"y ~ x + {s}(0 + ft | g)", ALONE) for s in ("homcs", "hetar1", "toep", "homtoep", "diag")},
    "ou": ("y ~ x + ou(0 + t | g)", {"method": "ml"}),
    "exp": ("y ~ x + exp(0 + t + px | g)", {"dispersion": 0}),
    "gau": ("y ~ x + gau(0 + t + px | g)", {}),
    "mat": ("y ~ x + mat(0 + t | g, nu = 1.5)", {}),
    "rr": ("y ~ x + rr(0 + ft | g, d = 1)", {}),
    "poisson": ("count ~ x + (1 | g)", {"family": "poisson"}),
    "quadrature": ("k ~ x + (1 | g)", {"family": "binomial", "quadrature": 5}),
    "zero inflation": ("count ~ x + (1 | g)", {"family": "nbinom2", "zero_inflation": "~ 1"}),
    "random zero inflation": ("count ~ x", {"family": "poisson", "zero_inflation": "~ 1 + (1 | h)"}),
    "beta": ("share ~ x + (1 | g)", {"family": "beta", "dispersion": "~ x"}),
    "gamma by reml": ("size ~ x + (1 | g)", {"family": "gamma", "method": "reml"}),
    "tweedie": ("size ~ x + (1 | g)", {"family": "tweedie"}),
    "student": ("y ~ x + (1 | g)", {"family": "student_t"}),
    "thresholds": (KIND, ORDERED),
    "nominal": (KIND.replace("x +", ""), {**ORDERED, "nominal": "~ x"}),
    "scale": (KIND, {**ORDERED, "scale": "~ x"}),
    "equidistant": (KIND, {**ORDERED, "threshold": "equidistant"}),
    "multinomial": ("kind ~ x", {"family": "multinomial"}),
    "held coefficient": ("y ~ x + (x | g)", {"fixed": {"x": 0.4}}),
    "held correlation": ("y ~ x + (x | g)", {"fixed": {"cor(g)": 0.1}, "method": "ml"}),
    "held sigma": ("y ~ x + (1 | g)", {"fixed": {"sigma": 0.6}}),
    "tied": (CROSSED, {"equal": [("sd(g)", "sd(h)")]}),
    "tied structure": ("y ~ x + toep(0 + ft | g)", {**ALONE, "equal": [("sd(ftt0 | g)", "sd(ftt1 | g)")]}),
    "held lag": ("y ~ x + homtoep(0 + ft | g)", {**ALONE, "fixed": {"cor(lag1 | g)": 0.5}}),
    "priors": ("y ~ x + (x | g)", {"prior": "blme"}),
    "priors of a structure": ("y ~ x + toep(0 + ft | g)", {**ALONE, "prior": {"sd(g)": "gamma(2.5, 0.1)"}}),
    "firth": ("k ~ x", {"family": "binomial", "penalty": "firth"}),
}


@pytest.mark.parametrize("name", FITS)
def test_every_parameter_has_a_profile_or_a_reason(name):
    formula, options = FITS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rf.RanefWarning)
        m = rf.fit(formula, data(), **options)
        p = rf.profile(m, points=2, level=0.95)
    assert {*p.names, *p.failed} == {q.label for q in select(parameters(m), None, "")}
    assert all(any(known in why for known in REASONS) for why in p.failed.values()), p.failed
    lost = [c for c in p.curves if "failed" in c.ends]  # later lags where other correlations are at their limits
    assert all(c.parameter.hold[0] == "lag" and m.boundary for c in lost), p.messages
    for curve in (c for c in p.curves if c not in lost):
        low, high = curve.interval(0.95)
        least, most = curve.parameter.bounds
        assert least <= low <= curve.estimate <= high <= most, (curve.parameter.label, low, curve.estimate, high)
        assert low < high


def test_structures_without_a_residual_take_few_evaluations():
    """The deviance has a thousand times the rounding error there, which searches must not try to go below."""
    formula, options = FITS["toep, alone"]
    p = rf.profile(rf.fit(formula, data(), **options), points=2, level=0.95)
    assert sum(c.evaluations for c in p.curves) < 100 * len(p)  # about 40 a curve


def test_later_lags_beside_held_and_tied_parameters():
    """Curves of the third lag: values held stay, ties stay tied, and slopes are those of the deviance."""
    formula, options = FITS["tied structure"]
    m = rf.fit(formula, data(), **options)
    p = rf.profile(m, ["cor(lag3 | g)"], points=6)
    curve = p["cor(lag3 | g)"]
    np.testing.assert_allclose(curve.along["sd(ftt0 | g)"], curve.along["sd(ftt1 | g)"], rtol=1e-9)
    np.testing.assert_allclose(curve.along["cor(lag3 | g)"], curve.value, atol=1e-9)
    middle = 0.5 * (curve.raw[1:] + curve.raw[:-1])
    with_slopes = curve._hermite(middle)  # cubics through values and slopes, beside those through values alone
    from scipy.interpolate import CubicSpline

    np.testing.assert_allclose(with_slopes, CubicSpline(curve.raw, curve.zeta)(middle), atol=0.02)
    formula, options = FITS["held lag"]
    curve = rf.profile(rf.fit(formula, data(), **options), ["cor(lag2 | g)"], points=3)["cor(lag2 | g)"]
    np.testing.assert_allclose(curve.along["cor(lag1 | g)"], 0.5, rtol=1e-9)
