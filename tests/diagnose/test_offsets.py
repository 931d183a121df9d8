"""Notes on offsets without logarithm: small ones, and those of other parameters."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ranef as rf


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(2)
    n = 240
    g, visits, lnpop = np.arange(n) % 12, rng.integers(1, 8, n), rng.uniform(5, 12, n)
    b, x = 0.3 * rng.normal(size=12)[g], rng.normal(size=n)
    counts = {
        "in_proportion": rng.poisson(visits * np.exp(0.2 * x + b)),
        "as_power": rng.poisson(np.exp(0.5 * lnpop - 3 + b)),
        "as_exponent": rng.poisson(np.exp(visits - 3 + b)),
        "unrelated": rng.poisson(np.exp(1 + b)),
    }
    return pd.DataFrame({"g": g, "visits": visits, "pop": lnpop, "x": x, **counts})


def notes(m):
    return [n.text for n in m.messages if n.code == "unlogged_offset"]


@pytest.mark.parametrize("family", ["poisson", "nbinom2"])
def test_a_small_exposure_without_logarithm(data, family):
    m = rf.fit("in_proportion ~ x + offset(visits) + (1 | g)", data, family=family)
    (text,) = notes(m)
    assert "offset(log(visits))" in text
    right = rf.fit("in_proportion ~ x + offset(log(visits)) + (1 | g)", data, family=family)
    assert f"is {right.loglik - m.loglik:.3g} higher" in text
    assert notes(right) == []
    given = rf.fit("in_proportion ~ x + (1 | g)", data, family=family, offset=data["visits"].to_numpy(float))
    assert len(notes(given)) == 1


@pytest.mark.parametrize(
    "formula",
    ["as_power ~ offset(pop) + (1 | g)", "as_exponent ~ offset(visits) + (1 | g)", "unrelated ~ offset(pop) + (1 | g)",
     "unrelated ~ offset(visits / 10) + (1 | g)"],
)  # fmt: skip
def test_offsets_that_are_logarithms_or_meant_so(data, formula):
    """Also where they do not act in proportion, as a logarithm called otherwise, to the power of a half."""
    assert notes(rf.fit(formula, data, family="poisson")) == []


def test_offsets_of_other_parameters(data):
    frame = data.assign(effort=np.linspace(0, 12, len(data)), y=data["unrelated"] * (data["x"] > -1))
    wide = rf.fit("y ~ 1", frame, family="nbinom2", dispersion="~ offset(effort)")
    assert "the offset of dispersion spans 0 to 12" in notes(wide)[0]
    odds = rf.fit("y ~ 1", frame, family="poisson", zero_inflation="~ offset(effort)")
    assert "the odds of zero_inflation" in notes(odds)[0]
    assert notes(rf.fit("y ~ 1", frame, family="nbinom2", dispersion="~ offset(log1p(effort))")) == []
    assert notes(rf.fit("y ~ 1", frame, family="nbinom2", dispersion=30.0)) == []


def hauck_donner():
    """Few rows decide, next to a jump."""
    x = np.r_[-np.arange(1.0, 11), -0.001, 0.001, np.arange(1.0, 11)]
    return {"x": x, "low": np.r_[np.zeros(10), 1.0, 0.0, np.ones(10)]}


def test_huge_coefficients_of_other_models():
    """P7 of ordered categories and of counts, as of binary outcomes."""
    frame = hauck_donner()
    frame["o"] = pd.Categorical(frame["low"].astype(int) + (frame["x"] > 6), ordered=True)
    for formula, family in (("o ~ x", "cumulative"), ("low ~ x", "binomial")):
        m = rf.fit(formula, frame, family=family)
        assert [n.evidence["column"] for n in m.messages if n.code == "hauck_donner"] == ["x"]


def test_counts_of_nearly_none_along_a_number():
    """One count beside the others decides how steeply means fall to 0."""
    frame = {"x": np.r_[np.zeros(8), 0.001, np.arange(1.0, 9)], "y": np.r_[np.full(8, 3.0), 1.0, np.zeros(8)]}
    m = rf.fit("y ~ x", frame, family="poisson")
    assert [n.evidence["column"] for n in m.messages if n.code == "hauck_donner"] == ["x"]
