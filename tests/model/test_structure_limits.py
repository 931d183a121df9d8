"""Covariance structures at the limits of their correlation: found, certified, named, and never below what they hold."""

from __future__ import annotations

import pickle
import re
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

import ranef as rf

SERIAL = ("cs", "homcs", "ar1", "hetar1", "toep", "homtoep")
PLACED = ("ou", "exp", "gau", "mat")
#: (structure, a structure inside it)
HELD = [
    ("cs", "homcs"),
    ("hetar1", "ar1"),
    ("toep", "homtoep"),
    ("homtoep", "homcs"),
    ("homtoep", "ar1"),
    ("mat", "exp"),
]
SLACK = 1e-6  # two searches end within their tolerance of the same maximum, and of a limit within the edge before it


def shared(seed: int, times: int = 5, groups: int = 40, sd: float = 1.0) -> pd.DataFrame:
    """Groups with one effect at all times, and noise: every structure's maximum lies at its limit, or close to it."""
    rng = np.random.default_rng(seed)
    y = sd * np.repeat(rng.normal(size=groups), times) + 1.1 * rng.normal(size=groups * times)
    t = np.tile(np.arange(float(times)), groups)
    ids = np.repeat(np.arange(groups), times)
    return pd.DataFrame({"y": y, "t": t.astype(int).astype(str), "x": t, "id": [f"g{i}" for i in ids]})


def fitted(structure: str, data: pd.DataFrame, **kwargs):
    columns = "numFactor(x) + 0" if structure in PLACED else "t + 0"
    return rf.fit(f"y ~ 1 + {structure}({columns} | id)", data, **{"family": "gaussian", "method": "ml", **kwargs})


def smallest(data: pd.DataFrame, **kwargs):
    return rf.fit("y ~ 1 + (1 | id)", data, **{"family": "gaussian", "method": "ml", **kwargs})


@pytest.mark.parametrize("seed", [1, 11, 17])
def test_no_structure_ends_below_what_it_holds(seed):
    data = shared(seed)
    found = {structure: fitted(structure, data) for structure in (*SERIAL, *PLACED)}
    base = smallest(data).loglik
    for structure, m in found.items():
        assert m.converged, structure
        assert m.loglik >= base - SLACK, structure
    for large, small in HELD:
        assert found[large].loglik >= found[small].loglik - SLACK, (large, small)


@pytest.mark.parametrize(
    ("structure", "says", "natural"),
    [
        ("ar1", r"correlation of ar1\(t0, …, t4 \| id\) estimated 1: all times share one effect; \(1 \| id\) is", 1),
        ("ou", r"rate of ou\(.* estimated 0: all times share one effect; \(1 \| id\) is the same model", 0),
        ("exp", r"range of exp\(.* estimated infinite: all places share one effect", np.inf),
        ("gau", r"range of gau\(.* estimated infinite", np.inf),
    ],
)
def test_limits_are_certified_and_named(structure, says, natural):
    """Data whose effects are more alike than chance leaves them: the maximum is at the limit, which is (1 | id)."""
    data = alike()
    m, base = fitted(structure, data), smallest(data)
    assert m.converged
    assert m.certificate.holds
    assert m.loglik == pytest.approx(base.loglik, abs=SLACK)
    (found,) = m.boundary
    assert (found.kind, found.rank) == ("correlation", 1)
    assert re.search(says, found.text)
    assert any(note.code == "boundary" for note in m.messages)
    (term,) = m.varcorr().values()
    assert term.parameters[1].value == natural
    np.testing.assert_allclose(term.corr, 1.0, atol=1e-12)
    # The rest is that of the smaller model: a limit is no place where errors end.
    np.testing.assert_allclose(m.vcov(), base.vcov(), rtol=1e-3)
    assert "Boundary" in str(m.summary())
    assert pickle.loads(pickle.dumps(m)).boundary == m.boundary


def alike() -> pd.DataFrame:
    """Groups with one effect at all times, in which chance has left nothing else that is correlated."""
    return shared(22, groups=30)


def test_alternating_effects():
    """A first-order autocorrelation of -1 is a limit as well."""
    rng = np.random.default_rng(3)
    sign = np.array([1.0, -1, 1, -1, 1])
    y = np.outer(rng.normal(size=30), sign) + 0.8 * alternating_noise(rng, 30)
    data = pd.DataFrame(
        {"y": y.ravel(), "t": [f"{i}" for i in range(5)] * 30, "id": np.repeat(np.arange(30), 5).astype(str)}
    )
    m = fitted("ar1", data)
    assert m.converged
    assert "changes its sign" in m.boundary[0].text
    z = np.tile(sign, 30)
    other = rf.fit("y ~ 1 + (0 + z | id)", data.assign(z=z), family="gaussian", method="ml")
    assert m.loglik == pytest.approx(other.loglik, abs=SLACK)


def test_common_effects_under_toeplitz_correlations():
    """A residual held above the noise leaves the effects no variance of their own: all times share one."""
    m, base = (f(*a, fixed={"sigma": 1.3}) for f, a in ((fitted, ("homtoep", alike())), (smallest, (alike(),))))
    assert m.converged
    (found,) = m.boundary
    assert (found.kind, found.rank, found.size) == ("correlation", 1, 5)
    assert "correlation of homtoep(t0, …, t4 | id) estimated 1" in found.text
    assert "(1 | id) is the same model" in found.text
    assert m.loglik == pytest.approx(base.loglik, abs=SLACK)


def test_edge_of_toeplitz_correlations():
    """A common and an alternating effect are Toeplitz correlations of rank 2: the partial one of lag 2 is 1."""
    rng = np.random.default_rng(0)
    sign = np.array([1.0, -1, 1, -1, 1])
    y = rng.normal(size=(40, 1)) + 0.7 * rng.normal(size=(40, 1)) * sign + 0.6 * rng.normal(size=(40, 5))
    data = pd.DataFrame(
        {"y": y.ravel(), "t": [f"{i}" for i in range(5)] * 40, "id": np.repeat(np.arange(40), 5).astype(str)}
    )
    held = {"sigma": 0.75}  # above the noise, so that nothing is left to the diagonal
    m = fitted("homtoep", data, fixed=held)
    assert m.converged
    assert m.certificate.holds
    (found,) = m.boundary
    assert (found.kind, found.rank, found.size) == ("correlation", 2, 5)
    assert "correlations of homtoep(t0, …, t4 | id) are on the edge" in found.text
    assert "rank 2 of 5" in found.text
    (term,) = m.varcorr().values()
    np.testing.assert_allclose(term.corr[0, [2, 4]], 1.0, atol=1e-12)
    same = rf.fit(
        "y ~ 1 + (1 | id) + (0 + z | id)",
        data.assign(z=np.tile(sign, 40)),
        family="gaussian",
        method="ml",
        fixed=held,
    )
    assert m.loglik == pytest.approx(same.loglik, abs=SLACK)


def test_ridges_are_walked_in_few_steps():
    """A structure and a residual trade what only the diagonal says: exact curvature sees where that leads."""
    data = shares(70, 3, 40)
    for structure in ("ar1", "homcs"):
        m = rf.fit(f"y ~ 1 + {structure}(t + 0 | id)", data, method="ml")
        assert m.converged
        assert m.certificate.evaluations <= 90, structure  # other starts included


def alternating_noise(rng, groups):
    noise = rng.normal(size=(groups, 5))
    return noise + 0.7 * np.roll(noise, 1, axis=1)


def test_least_correlation_of_compound_symmetry():
    """Counts with the same sum in every group vary less between groups than independent ones: the least correlation."""
    rng = np.random.default_rng(0)
    share = np.exp(0.8 * rng.normal(size=(60, 4)))
    y = np.array([rng.multinomial(24, p / p.sum()) for p in share])
    t = [f"{i}" for i in range(4)] * 60
    m = fitted(
        "homcs", pd.DataFrame({"y": y.ravel(), "t": t, "id": np.repeat(np.arange(60), 4).astype(str)}), family="poisson"
    )
    assert m.converged
    assert "estimated -0.3333, the least it can be" in m.boundary[0].text
    assert (m.boundary[0].rank, m.boundary[0].size) == (3, 4)


@pytest.mark.parametrize("structure", ["ar1", "gau", "homtoep"])
def test_limits_with_counts(structure):
    data = shared(2, times=4, groups=30)
    data = data.assign(
        y=np.random.default_rng(1).poisson(np.exp(0.5 + 0.6 * data["y"].groupby(data["id"]).transform("mean")))
    )
    m, base = (f(*a, family="poisson", method="ml") for f, a in ((fitted, (structure, data)), (smallest, (data,))))
    assert m.converged
    assert m.loglik >= base.loglik - SLACK


def test_long_ranges_are_continuous():
    """The Gaussian correlation is singular to rounding long before its limit; its likelihood runs on into that."""
    data = shared(11)
    base = smallest(data).loglik
    m = fitted("gau", data)
    held = [
        rf.fit(
            "y ~ 1 + gau(numFactor(x) + 0 | id)", data, family="gaussian", method="ml", fixed={"range(id)": r}
        ).loglik
        for r in (1e2, 1e3, 1e4)
    ]
    assert np.all(np.abs(np.diff(held)) < 1e-2)
    assert held[-1] == pytest.approx(base, abs=1e-5)  # 1 - correlation is (4 / 1e4)^2 at most
    assert m.loglik >= max(held) - SLACK


def test_structures_that_leave_no_residual():
    """Autoregressive data without noise: the residual SD is 0, and the model that of `dispersion=0`."""
    rng = np.random.default_rng(4)
    y = np.zeros((40, 6))
    y[:, 0] = rng.normal(size=40)
    for j in range(1, 6):
        y[:, j] = 0.5 * y[:, j - 1] + np.sqrt(0.75) * rng.normal(size=40)
    data = pd.DataFrame(
        {"y": y.ravel(), "t": [f"{i}" for i in range(6)] * 40, "id": np.repeat(np.arange(40), 6).astype(str)}
    )
    m, none = fitted("ar1", data), fitted("ar1", data, dispersion=0)
    assert m.converged
    assert m.loglik >= none.loglik - SLACK
    assert np.isfinite(np.asarray(m.vcov())).all()


def test_errors_of_what_is_not_at_the_limit():
    m = fitted("ar1", alike())
    joint = np.sqrt(np.diag(m.estimate.joint()))
    assert np.isfinite(joint[:-1]).all()  # intercept, dispersion, standard deviation
    assert np.isnan(joint[-1])


def shares(seed: int, times: int, groups: int) -> pd.DataFrame:
    """Groups with one effect at all times beside independent noise, one observation of each."""
    rng = np.random.default_rng(seed)
    id_, t = np.repeat(np.arange(groups), times), np.tile(np.arange(times), groups)
    return pd.DataFrame(
        {"y": rng.normal(size=groups)[id_] + rng.normal(size=groups * times), "id": id_, "t": t}
    ).astype({"id": str, "t": str})


def test_a_limit_is_not_the_end_where_the_inside_is_better():
    """A correlation of 1 is an optimum of its own; the residual variance, held lower, shows a better one inside."""
    data = shares(2, 5, 40)
    m = rf.fit("y ~ 1 + homtoep(0 + t | id)", data)
    inside = rf.fit("y ~ 1 + homtoep(0 + t | id)", data, fixed={"sigma": 0.5}, method="reml")
    assert m.converged
    assert not m.boundary
    assert m.loglik >= inside.loglik - SLACK
    # homtoep with a smaller residual is the same model: what one gives, the diagonal of the other takes.
    assert m.loglik == pytest.approx(inside.loglik, abs=1e-3)
    # The limit is an optimum even where chance has left little inside.
    assert fitted("homtoep", alike()).loglik > smallest(alike()).loglik + 1


def test_autocorrelation_beside_a_residual():
    """R 4.5, nlme 3.1: gls(Reaction ~ Days, sleepstudy, corExp(form = ~ Days | Subject, nugget = TRUE)), REML."""
    data = rf.datasets.load("sleepstudy")
    for columns in ("Days", "numFactor(Days)"):
        m = rf.fit(f"Reaction ~ Days + ou(0 + {columns} | Subject)", data)
        assert m.converged
        assert m.loglik == pytest.approx(-867.093, abs=1e-3)
        assert m.sigma > 10


def autoregressive(seed: int) -> pd.DataFrame:
    """Sixteen subjects on eight days, a quarter of the days lost: the residual beside ar1 is often estimated zero."""
    rng = np.random.default_rng([7, seed])
    g, t = np.repeat(np.arange(16), 8), np.tile(np.arange(8), 16)
    kept = np.sort(np.random.default_rng(0).choice(128, 96, replace=False))
    lags = np.abs(np.subtract.outer(np.arange(8), np.arange(8)))
    b = rng.normal(size=(16, 8)) @ np.linalg.cholesky(0.7**lags).T
    y = 5 + b[g, t][kept] + 0.5 * rng.normal(size=96)
    return pd.DataFrame({"y": y, "a": (g % 2).astype(str)[kept], "t": t.astype(str)[kept], "g": g.astype(str)[kept]})


@pytest.mark.parametrize("seed", [4, 28, 37, 43, 113])
def test_restricted_likelihoods_of_next_to_no_residual_are_found(seed):
    """The residual is nothing: without the coefficients' part in the curvature these took 650 to 1,200 evaluations."""
    m = rf.fit("y ~ a + ar1(0 + t | g)", autoregressive(seed), method="reml")
    assert m.converged
    assert m.certificate.evaluations < 200  # about 90 to 160
    assert np.isfinite(np.asarray(m.vcov())).all()
    assert m.sigma < 1e-3


def crowded(seed: int, groups: int = 5, times: int = 6) -> pd.DataFrame:
    """Fewer groups than times."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(groups, times)) + rng.normal(size=(groups, 1))
    t, g = np.tile(np.arange(times), groups), np.repeat(np.arange(groups), times)
    return pd.DataFrame({"y": y.ravel(), "t": t.astype(str), "id": g.astype(str)})


@pytest.mark.parametrize("seed", [2, 3])
def test_a_likelihood_without_bound_is_said(seed):
    """A singular Toeplitz covariance fits fewer groups than times exactly: no residual is needed."""
    data = crowded(seed, groups=3)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        m = fitted("toep", data)
    if m.converged:
        assert "unbounded" in {note.code for note in m.messages}
        assert not told
        # An optimum inside: no variance of 1e-8 makes its likelihood.
        assert m.sigma > 1e-3
    else:
        assert m.certificate.outcome.name == "unbounded"
        assert "no bound" in str(told[0].message)


def test_a_bounded_likelihood_has_no_such_note():
    m = fitted("toep", crowded(1, groups=60, times=4))
    assert m.converged
    assert "unbounded" not in {note.code for note in m.messages}


@pytest.mark.parametrize("seed", [3, 4])
def test_a_matern_correlation_is_as_good_as_the_gaussian_one(seed):
    """Smooth effects: the Gaussian correlation is the limit of a smoothness of no end; the search's end is at 60."""
    rng = np.random.default_rng(seed)
    times, groups = 5, 60
    x = np.arange(float(times))
    root = np.linalg.cholesky(np.exp(-(np.subtract.outer(x, x) ** 2) / 6.0) + 1e-9 * np.eye(times))
    eta = 1.0 + rng.normal(size=(groups, times)) @ root.T
    data = pd.DataFrame({"y": rng.poisson(np.exp(eta)).ravel(), "x": np.tile(x, groups)})
    data["id"] = np.repeat(np.arange(groups), times).astype(str)
    gau, mat = (rf.fit(f"y ~ 1 + {s}(numFactor(x) + 0 | id)", data, family="poisson") for s in ("gau", "mat"))
    assert gau.converged
    assert mat.converged
    # What a smoothness of 60 misses of the limit is far below a tenth of a log-likelihood.
    assert mat.loglik > gau.loglik - 0.1


def noise(seed: int, times: int = 3, groups: int = 40) -> pd.DataFrame:
    """Nothing but noise: an AR1 variance without correlation and the residual's trade along a ridge."""
    rng = np.random.default_rng(seed)
    t = np.tile(np.arange(times), groups)
    y = rng.normal(scale=0.7, size=times * groups)
    return pd.DataFrame({"y": y, "t": t.astype(str), "id": np.repeat(np.arange(groups), times).astype(str)})


@pytest.mark.parametrize("method", ["ml", "reml"])
def test_traded_variances_cost_no_walk(method):
    """Every start, nested model and place far away counted: a walk along the ridge took 60 to 440 each."""
    spent = [fitted("ar1", noise(seed), method=method).certificate.evaluations for seed in range(6)]
    assert sum(spent) < 6 * 120


def smooth_counts(seed: int) -> pd.DataFrame:
    rng, n = np.random.default_rng(seed), 60
    t = np.sort(rng.uniform(0, 10, n)).round(3)
    near = np.exp(-((np.subtract.outer(t, t) / 2.0) ** 2)) + 1e-8 * np.eye(n)
    effect = np.linalg.cholesky(near) @ rng.normal(size=n)
    return pd.DataFrame({"t": t, "one": "a", "n": rng.poisson(np.exp(1.2 + 0.8 * effect))})


@pytest.mark.parametrize("seed", [0, 3])
def test_the_largest_smoothness_is_an_end(seed):
    """Smooth counts: the likelihood rises slowly in nu, up to the end of its range, which is certified and named."""
    data = smooth_counts(seed)
    m = rf.fit("n ~ 1 + mat(numFactor(t) + 0 | one)", data, family="poisson")
    assert m.converged
    note = next(n for n in m.messages if n.code == "smoothest")
    assert note.evidence["nu"] == pytest.approx(60)
    gau = rf.fit("n ~ 1 + gau(numFactor(t) + 0 | one)", data, family="poisson")
    assert m.loglik == pytest.approx(gau.loglik, abs=0.02)  # of order 1 / nu


def spread_of(m) -> dict[str, float]:
    table = m.tidy("ran_pars")
    return dict(zip(table["term"], table["std_error"], strict=True))


def test_a_range_in_which_nothing_is_related_has_no_standard_error():
    """The others have those of the model without it, up to the error of differences and correlations of 1e-5."""
    rng = np.random.default_rng(0)
    counts, x = rng.poisson(np.exp(1 + 0.8 * rng.normal(size=80))), np.tile(np.arange(4.0), 20)
    data = pd.DataFrame({"y": counts, "x": x, "id": np.repeat(np.arange(20), 4)})
    m = rf.fit("y ~ 1 + exp(numFactor(x) + 0 | id)", data, family="poisson")
    assert "flat direction: the range" in next(n.text for n in m.messages if n.code == "unrelated")
    plain = rf.fit("y ~ 1 + homdiag(factor(x) + 0 | id)", data, family="poisson")
    assert m.loglik == pytest.approx(plain.loglik, abs=1e-5)
    assert np.isnan(spread_of(m)["range"])
    assert spread_of(m)["sd"] == pytest.approx(spread_of(plain)["sd"], rel=1e-3)
    assert m.estimate.vcov[0, 0] == pytest.approx(plain.estimate.vcov[0, 0], rel=1e-3)


def test_the_least_smoothness_is_an_end():
    """Noise and one effect a group: the smoothness goes to its end, and the others are as if it were held there."""
    data = shared(20, times=4, groups=20)
    m = fitted("mat", data)
    said = {n.code: n.text for n in m.messages}
    assert "flat direction: the smoothness" in said["roughest"]
    assert "may be anything" in said["vague"]
    assert np.isnan(spread_of(m)["range"])
    held = rf.fit("y ~ 1 + mat(numFactor(x) + 0 | id, nu = 0.02)", data, method="ml", family="gaussian")
    assert m.loglik == pytest.approx(held.loglik, abs=SLACK)
    assert np.isnan(spread_of(m)["nu"])
    assert spread_of(m)["sd"] == pytest.approx(spread_of(held)["sd"], rel=1e-3)


def dense_normal(m, y, x, groups, beta, sigma):
    """-log-likelihood and X'V^-1X of y ~ N(X beta, V), group by group; without beta the restricted one."""
    sizes, half, info, cross, squares = len(y), 0.0, 0.0, 0.0, 0.0
    for g in np.unique(groups):
        i = groups == g
        v = sigma[: i.sum(), : i.sum()] + m.sigma**2 * np.eye(i.sum())
        low = np.linalg.cholesky(v)
        a, b = np.linalg.solve(low, x[i]), np.linalg.solve(low, y[i])
        half += np.log(np.diag(low)).sum()
        info, cross, squares = info + a.T @ a, cross + a.T @ b, squares + b @ b
    if beta is not None:
        rest = squares - 2 * beta @ cross + beta @ info @ beta
        return half + 0.5 * rest + 0.5 * sizes * np.log(2 * np.pi), info
    rest = squares - cross @ np.linalg.solve(info, cross)
    free = sizes - x.shape[1]
    return half + 0.5 * rest + 0.5 * np.linalg.slogdet(info)[1] + 0.5 * free * np.log(2 * np.pi), info


@pytest.mark.parametrize("method", ["ml", "reml"])
def test_next_to_no_residual_costs_no_digits(method):
    """dispersion="~0": V without cancellation beside an engine whose weights are 1e8 times what V^-1 keeps."""
    rng = np.random.default_rng(4)
    n, k = 25, 4
    x = rng.normal(size=n * k)
    y = 1 + 0.5 * x + np.repeat(rng.normal(size=n), k) + 0.5 * rng.normal(size=n * k)
    data = {"y": y, "x": x, "t": np.tile(np.arange(k), n).astype(str), "id": np.repeat(np.arange(n), k)}
    m = rf.fit("y ~ x + ar1(t + 0 | id)", data, dispersion="~0", method=method)
    design, beta = np.column_stack([np.ones(n * k), x]), m.estimate.beta[:2]
    sigma = m.estimate.covariances[0]
    value, info = dense_normal(m, y, design, data["id"], beta if method == "ml" else None, sigma)
    # Rounding of the sums of n weighted squares, each 1e8 times what is left: 1e-16 * 1e8 * 100.
    assert m.loglik == pytest.approx(-value, abs=1e-6)
    if method == "ml":
        # The information in beta given theta is the corner of the inverse of the joint covariance.
        joint = np.linalg.inv(m.estimate.joint())
        assert joint[:2, :2] == pytest.approx(info, rel=1e-6)


def grown(seed: int, groups: int = 50, times: int = 12) -> pd.DataFrame:
    """Growth whose increments go on: smoother than any process below, so that no residual is left beside it."""
    rng = np.random.default_rng(seed)
    t = np.arange(times) * 2.0
    increments = rng.normal(size=(groups, times)) @ np.linalg.cholesky(np.exp(-0.35 * abs(t[:, None] - t))).T
    y = 3.5 + 0.075 * t + 0.08 * np.cumsum(increments, 1)
    return pd.DataFrame({"y": y.ravel(), "x": np.tile(t, groups), "id": np.repeat(np.arange(groups), times)})


def without_residual(data: pd.DataFrame) -> float:
    """Return the largest log-likelihood of an exponential correlation without residual, from dense matrices."""
    groups = data["id"].nunique()
    y, t = data["y"].to_numpy().reshape(groups, -1), data["x"].to_numpy()[: len(data) // groups]

    def deviance(par):
        factor = np.linalg.cholesky(np.exp(2 * par[0] - np.exp(par[1]) * abs(t[:, None] - t)))
        x, z = np.linalg.solve(factor, np.c_[np.ones(len(t)), t]), np.linalg.solve(factor, y.T)
        beta = np.linalg.lstsq(x, z.mean(1), rcond=None)[0]
        squares = ((z - (x @ beta)[:, None]) ** 2).sum()
        return squares + 2 * groups * np.log(np.diag(factor)).sum() + y.size * np.log(2 * np.pi)

    search = {"xatol": 1e-10, "fatol": 1e-11}
    return -0.5 * minimize(deviance, [-1.4, -3.5], method="Nelder-Mead", options=search).fun


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("term", ["ou(x + 0 | id)", "exp(numFactor(x) + 0 | id)", "ar1(factor(x) + 0 | id)"])
def test_a_process_without_residual_is_found(seed, term):
    data = grown(seed)
    m = rf.fit(f"y ~ x + {term}", data, method="ml")
    assert m.converged
    # What is left of the residual is a thirtieth of 1e-4 of the response: 1e-7 of log-likelihood.
    assert abs(m.loglik - without_residual(data)) < 1e-6
    assert "no_residual" in {note.code for note in m.messages}
    assert m.certificate.evaluations < 150  # a search that misses it goes on to 1,213


@pytest.mark.parametrize("method", ["ml", "reml"])
def test_a_residual_that_vanishes_in_some_groups_leaves_a_fit(method):
    """Rounding hides the mode where a diet's residuals are nothing: a search that stalls there says so."""
    data = rf.datasets.load("BodyWeight")
    data["t"] = data["Time"].rank(method="dense").astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whether the search converged is asked below
        m = rf.fit("weight ~ Time * Diet + (1 | Rat) + ar1(t + 0 | Rat)", data, dispersion="~ Diet", method=method)
    assert np.isfinite(m.loglik)
    assert m.converged or m.certificate.outcome.name == "stalled"
