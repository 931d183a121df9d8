"""Standard errors of intraclass correlations, repeatabilities and heritabilities: the delta method in closed form."""

from __future__ import annotations

import numpy as np
import pytest

import ranef as rf
from ranef.errors import NotAvailableError, OptionError


def by_delta(m, figure):
    """Standard error of figure(values by name) by hand: central differences of a closed form, and the full vcov."""
    names, cov = rf_full(m)
    at = dict(zip(names, known(m, names), strict=True))
    slope = []
    for name in names:
        h = 1e-5 * max(abs(at[name]), 1e-3)
        up, down = (figure({**at, name: at[name] + s * h}) for s in (1, -1))
        slope.append((up - down) / (2 * h))
    slope = np.array(slope)
    return float(np.sqrt(slope @ cov @ slope))


def rf_full(m):
    from ranef.inference.deltas import full_covariance

    return full_covariance(m)


def known(m, names):
    from ranef.inference.parameters import parameters, values

    found = dict(zip([p.label for p in parameters(m)], values(m), strict=True))
    return [found[name] for name in names]


@pytest.fixture(scope="module")
def sleep():
    return rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))


def slopes(v, x):
    """Share of the groups at x."""
    a, b, r = v["sd((Intercept) | Subject)"], v["sd(Days | Subject)"], v["cor((Intercept), Days | Subject)"]
    around = a**2 + 2 * x * r * a * b + x**2 * b**2
    return around / (around + v["sigma"] ** 2)


def test_one_way_layout():
    m = rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.load("Dyestuff"))
    table = rf.icc(m, conf_int="wald", conf_level=0.9)

    def share(v):
        return v["sd((Intercept) | Batch)"] ** 2 / (v["sd((Intercept) | Batch)"] ** 2 + v["sigma"] ** 2)

    error = by_delta(m, share)
    assert table["icc"][0] == pytest.approx(rf.icc(m))
    assert table["std_error"][0] == pytest.approx(error, rel=1e-6)  # the differences by hand
    logit, half = np.log(table["icc"][0] / (1 - table["icc"][0])), 1.6448536 * error / rf.icc(m) / (1 - rf.icc(m))
    assert table["conf_low"][0] == pytest.approx(1 / (1 + np.exp(half - logit)), rel=1e-5)
    again = rf.repeatability(m, conf_int=True, conf_level=0.9)
    assert again["std_error"][0] == pytest.approx(table["std_error"][0], rel=1e-12)
    # Fisher (1925): 2 (1 - r)^2 (1 + (k - 1) r)^2 / (k (k - 1) (n - 1)) of n groups of k; REML's own variance has
    # 6 - 1 and 30 - 6 degrees of freedom, its second term Fisher's formula leaves out.
    r, k, n = rf.icc(m), 5, 6
    fisher = np.sqrt(2 * (1 - r) ** 2 * (1 + (k - 1) * r) ** 2 / (k * (k - 1) * (n - 1)))
    assert table["std_error"][0] == pytest.approx(fisher, rel=0.05)


def test_random_slopes_at_given_values(sleep):
    days = np.array([0.0, 4.0, 9.0])
    table = rf.icc(sleep, at={"Days": days}, conf_int="wald")
    wanted = [by_delta(sleep, lambda v, x=x: slopes(v, x)) for x in days]
    np.testing.assert_allclose(table["std_error"], wanted, rtol=1e-6)
    assert ((table["conf_low"] < table["icc"]) & (table["icc"] < table["conf_high"])).all()
    boot = rf.icc(sleep, at={"Days": days}, conf_int="boot", n=100, seed=1)
    np.testing.assert_allclose(boot["std_error"], table["std_error"], rtol=0.3)  # 100 refits: 7 % each, and bias
    assert "seed 1" in boot.notes[0].text


def test_structures():
    r = np.random.default_rng(3)
    shared = np.linalg.cholesky(0.6 ** np.abs(np.subtract.outer(np.arange(4), np.arange(4))))
    g, t = np.repeat(np.arange(30), 8), np.tile(np.arange(4), 60)
    y = (r.normal(size=(30, 4)) @ shared.T)[g, t] + 0.7 * r.normal(size=240)
    m = rf.fit("y ~ 1 + ar1(0 + t | g)", {"y": y, "t": np.array([f"t{i}" for i in t]), "g": g}, method="ml")
    error = by_delta(m, lambda v: v["sd(g)"] ** 2 / (v["sd(g)"] ** 2 + v["sigma"] ** 2))
    assert rf.icc(m, conf_int=True)["std_error"][0] == pytest.approx(error, rel=1e-6)


@pytest.mark.parametrize("kind", ["adjusted", "conditional"])
def test_heritability_of_counts(kind):
    r = np.random.default_rng(1)
    sire, x = np.repeat(np.arange(60), 10), r.normal(size=600)
    y = r.poisson(np.exp(0.3 + 0.5 * x + 0.6 * r.normal(size=60)[sire]))
    m = rf.fit("y ~ x + (1 | sire)", {"y": y, "x": x, "sire": sire}, family="poisson")

    def figures(v):
        """Latent and on the response: de Villemereuil et al. (2016), of Poisson models in closed form."""
        eta, s = v["(Intercept)"] + v["x"] * x, v["sd((Intercept) | sire)"] ** 2
        eta = eta if kind == "conditional" else np.array([eta.mean()])
        each = np.exp(eta + s / 2)
        total = np.mean(each**2) * np.exp(s) - each.mean() ** 2 + each.mean()
        return s / (s + eta.var()), each.mean() ** 2 * s / total

    table = rf.heritability(m, "sire", kind, conf_int="wald")
    np.testing.assert_allclose(table["h2"], figures(dict(zip(rf_full(m)[0], known(m, rf_full(m)[0]), strict=True))))
    wanted = [by_delta(m, lambda v, i=i: figures(v)[i]) for i in (0, 1)]
    # Differences of the closed form by hand; latent and adjusted it is 1, whatever the parameters.
    np.testing.assert_allclose(table["std_error"], wanted, rtol=1e-5, atol=1e-9)
    if kind == "adjusted":
        assert (table["conf_low"][0], table["conf_high"][0]) == (table["h2"][0],) * 2


def test_a_share_of_a_boundary_estimate_has_none():
    data = rf.datasets.load("Dyestuff2")
    m = rf.fit("Yield ~ 1 + (1 | Batch)", data)
    table = rf.icc(m, conf_int="wald")
    assert table["icc"][0] == 0
    assert np.isnan(table["std_error"][0])
    assert any("boundary" in note.text for note in table.notes)
    boot = rf.icc(m, conf_int="boot", n=60, seed=1)
    assert boot["conf_low"][0] == 0 < boot["conf_high"][0] < 1


def test_shares_have_no_units_and_frames_of_the_kind_given(sleep):
    data = rf.datasets.load("sleepstudy")
    other = rf.fit("Reaction ~ Days + (Days | Subject)", data.assign(Reaction=data["Reaction"] / 1000))
    a, b = (rf.icc(m, conf_int=True, kind="conditional") for m in (sleep, other))
    for name in ("icc", "std_error", "conf_low", "conf_high"):
        np.testing.assert_allclose(a[name], b[name], rtol=1e-5)  # both optima
    assert list(a.to_frame().columns) == ["variance", "icc", "std_error", "conf_low", "conf_high"]


def test_held_variances_do_not_vary():
    m = rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.load("Dyestuff"), fixed={"sd(Batch)": 40.0})

    def share(v):
        return 40.0**2 / (40.0**2 + v["sigma"] ** 2)

    assert rf.icc(m, conf_int=True)["std_error"][0] == pytest.approx(by_delta_free(m, share), rel=1e-5)


def by_delta_free(m, figure):
    """As `by_delta`, of sigma alone."""
    names, cov = rf_full(m)
    at = names.index("sigma")
    h = 1e-4
    slope = (figure({"sigma": m.sigma + h}) - figure({"sigma": m.sigma - h})) / (2 * h)
    return abs(slope) * np.sqrt(cov[at, at])


def test_bad_options(sleep):
    with pytest.raises(OptionError, match="known: 'wald', 'boot'"):
        rf.icc(sleep, conf_int="bootstrap")
    with pytest.raises(NotAvailableError, match="several parameters"):
        rf.heritability(sleep, "Subject", conf_int="profile")
    with pytest.raises(OptionError, match="conf_int='boot'"):
        rf.repeatability(sleep, n_boot=100, conf_int="wald")
