"""Heritability on the scale of the response: closed forms of de Villemereuil et al. (2016)."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import ranef as rf
from ranef.errors import NotAvailableError, OptionError


def litters(seed=1):
    """Traits of half sibs, the expression of which depends on x."""
    rng = np.random.default_rng(seed)
    sire, nest = np.repeat(np.arange(60), 10), np.repeat(np.arange(120), 5)
    x = rng.normal(size=600)
    latent = 0.3 + 0.5 * x + 0.6 * rng.normal(size=60)[sire] + 0.4 * rng.normal(size=120)[nest]
    return {
        "count": rng.poisson(np.exp(latent)), "yes": (latent + rng.normal(size=600) > 0).astype(int),
        "size": latent + rng.normal(size=600), "x": x, "sire": sire, "nest": nest, "half": np.arange(600) % 2,
    }  # fmt: skip


FORMULA = "~ x + (1 | sire) + (1 | nest)"


def parts(m):
    eta = m.predict(re="none", type="link")
    return eta, m.varcorr()["sire"].cov[0, 0], m.varcorr()["sire"].cov[0, 0] + m.varcorr()["nest"].cov[0, 0]


@pytest.mark.parametrize("kind", ["adjusted", "conditional"])
def test_counts_in_closed_form(kind):
    m = rf.fit(f"count {FORMULA}", litters(), family="poisson")
    eta, additive, v = parts(m)
    eta = eta if kind == "conditional" else eta.mean()
    each = np.exp(eta + v / 2)  # also the slopes
    mean = np.mean(each)
    total = np.mean(each**2) * np.exp(v) - mean**2 + mean
    table = rf.heritability(m, "sire", kind)
    assert table["scale"] == ["latent", "response"]
    np.testing.assert_allclose(table["mean"], [np.mean(eta), mean], rtol=1e-9)
    np.testing.assert_allclose(table["additive"], [additive, mean**2 * additive], rtol=1e-9)
    np.testing.assert_allclose(table["phenotypic"], [v + np.var(eta), total], rtol=1e-9)
    np.testing.assert_allclose(table["h2"], table["additive"] / table["phenotypic"])


@pytest.mark.parametrize("kind", ["adjusted", "conditional"])
def test_a_threshold_trait_in_closed_form(kind):
    m = rf.fit(f"yes {FORMULA}", litters(), family="binomial", link="probit")
    eta, additive, v = parts(m)
    eta = eta if kind == "conditional" else eta.mean()
    p = np.mean(stats.norm.cdf(eta / np.sqrt(1 + v)))
    slope = np.mean(stats.norm.pdf(eta / np.sqrt(1 + v))) / np.sqrt(1 + v)
    table = rf.heritability(m, "sire", kind)
    assert table["scale"] == ["latent", "liability", "response"]
    assert table["h2"][2] == pytest.approx(slope**2 * additive / (p * (1 - p)), rel=1e-8)
    assert table["h2"][1] == pytest.approx(additive / (v + np.var(eta) + 1), rel=1e-10)
    if kind == "adjusted":  # Dempster & Lerner (1950): h2 of the liability times density^2 / (p (1 - p))
        density = stats.norm.pdf(stats.norm.ppf(p))
        assert table["h2"][2] == pytest.approx(table["h2"][1] * density**2 / (p * (1 - p)), rel=1e-8)


def test_a_normal_trait_has_one_scale():
    m = rf.fit(f"size {FORMULA}", litters())
    _, additive, v = parts(m)
    table = rf.heritability(m, "sire")
    assert table["scale"] == ["response"]
    assert table["h2"][0] == pytest.approx(additive / (v + m.sigma**2), rel=1e-9)
    assert rf.heritability(m, "sire", "conditional")["h2"][0] < table["h2"][0]


def test_proportions_are_of_one_trial_and_related_levels_are_additive():
    data = rf.datasets.load("cbpp")
    herds = sorted(set(data["herd"]), key=str)
    near = 0.5 ** np.abs(np.subtract.outer(np.arange(15), np.arange(15)))
    whole = "cbind(incidence, size - incidence) ~ 1 + (1 | herd)"
    m = rf.fit(whole, data, family="binomial", cov={"herd": (2 * near, herds)})
    ones = data.loc[data.index.repeat(data["size"])].reset_index(drop=True)
    ones["sick"] = (ones.groupby(["herd", "period"], observed=True).cumcount() < ones["incidence"]).astype(int)
    single = rf.fit("sick ~ 1 + (1 | herd)", ones, family="binomial", cov={"herd": (2 * near, herds)})
    np.testing.assert_allclose(rf.heritability(m)["h2"], rf.heritability(single)["h2"], rtol=1e-3)  # two searches
    assert rf.heritability(m)["additive"][0] == pytest.approx(m.varcorr()["herd"].cov[0, 0])  # of the base population


def test_no_additive_variance_is_no_heritability():
    rng = np.random.default_rng(0)
    y = 5 + (np.arange(40) % 2) - 0.5 + np.zeros(40)
    m = rf.fit("y ~ 1 + (1 | g)", {"y": y + 1e-3 * rng.normal(size=40), "g": np.arange(40) // 2})
    assert rf.heritability(m, "g")["h2"][0] == 0


def test_refusals():
    data = litters()
    m = rf.fit(f"count {FORMULA}", data, family="poisson")
    with pytest.raises(OptionError, match=r"say whose effects.*'sire', 'nest'"):
        rf.heritability(m)
    with pytest.raises(OptionError, match="did you mean 'sire'"):
        rf.heritability(m, "sires")
    with pytest.raises(OptionError, match="adjusted"):
        rf.heritability(m, "sire", "adjustd")
    with pytest.raises(NotAvailableError, match="one random intercept"):
        rf.heritability(rf.fit("size ~ x + (x | sire)", data), "sire")
    with pytest.raises(NotAvailableError, match="outside the mean"):
        rf.heritability(m.update("count ~ x + (1 | sire)", zero_inflation="~ (1 | nest)"), "sire")
    wine = rf.fit("rating ~ temp + (1 | judge)", rf.datasets.load("wine"), family="cumulative")
    with pytest.raises(NotAvailableError, match="categories"):
        rf.heritability(wine, "judge")
    with pytest.raises(NotAvailableError, match="slim"):
        rf.heritability(m.slim(), "sire")
