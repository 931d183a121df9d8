"""Separation beyond binary outcomes: ordered categories, extra zeros, and coefficients that are kept from infinity."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ranef as rf


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(6)
    n = 150
    x = rng.normal(size=n)
    cell = np.array(list("abc"))[rng.integers(0, 3, n)]
    level = np.digitize(x + rng.logistic(size=n), [-0.5, 1.0])
    top = np.where(cell == "c", 2, level)
    count = rng.poisson(np.exp(0.8 + 0.3 * x)).astype(float)
    names = np.array(["low", "mid", "top"])
    return pd.DataFrame({
        "x": x, "cell": cell, "g": np.arange(n) % 10,
        "level": pd.Categorical(names[level], names, ordered=True),
        "apart": pd.Categorical(names[top], names, ordered=True),
        "zero": np.where((cell == "b") | (rng.random(n) < 0.3), 0.0, count),
    })  # fmt: skip


@pytest.mark.parametrize("threshold", ["flexible", "equidistant"])
def test_ordered_categories(data, threshold):
    with pytest.warns(rf.SeparationWarning, match="separated by cellc"):
        m = rf.fit("apart ~ x + cell", data, family="cumulative", threshold=threshold)
    assert m.separation == ("cellc",)
    assert rf.fit("level ~ x + cell", data, family="cumulative", threshold=threshold).separation == ()


def test_ordered_categories_along_a_number(data):
    frame = data.assign(level=pd.cut(data["x"], [-9, -0.5, 1, 9], labels=["low", "mid", "top"]))
    with pytest.warns(rf.SeparationWarning, match="separated by x"):
        m = rf.fit("level ~ x", frame, family="cumulative")
    assert m.separation == ("x",)


def test_a_middle_category_alone_is_no_separation(data):
    frame = data.assign(level=pd.Categorical(np.where(data["cell"] == "c", "mid", data["level"].astype(str)),
                                             ["low", "mid", "top"], ordered=True))  # fmt: skip
    assert rf.fit("level ~ x + cell", frame, family="cumulative").separation == ()


def test_cells_of_the_extra_zeros(data):
    with pytest.warns(rf.SeparationWarning, match=r"zero_inflation\.cellb"):
        m = rf.fit("zero ~ x", data, family="poisson", zero_inflation="~ cell")
    assert m.separation == ("zero_inflation.cellb",)


def test_a_prior_or_a_value_keeps_estimates_finite(data):
    prior = {"cellc": rf.prior.normal(0, 2.5)}
    m = rf.fit("apart ~ x + cell", data, family="cumulative", prior=prior)
    assert m.separation == ()
    assert -9 < m.params["cellc"] < 9
    held = rf.fit("apart ~ x + cell", data, family="cumulative", fixed={"cellc": 12.0})
    assert held.separation == ()
    with pytest.warns(rf.SeparationWarning, match="separated by cellc"):  # the prior of another column does not help
        rf.fit("apart ~ x + cell", data, family="cumulative", prior={"x": rf.prior.normal(0, 1)})
