"""Means that a link does not keep in their range."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import ranef as rf
from ranef.errors import RanefWarning


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(2)
    x = rng.normal(size=100)
    return {"y": rng.gamma(3, np.exp(0.3 + 0.8 * x) / 3), "x": x, "g": (np.arange(100) % 10).astype(str)}


@pytest.mark.filterwarnings("ignore::ranef.errors.ConvergenceWarning")
@pytest.mark.parametrize("link", ["1/mu^2", "inverse", "identity"])
def test_rows_without_a_legal_mean_are_named(data, link):
    m = rf.fit("y ~ x + (1 | g)", data, family="gamma", link=link)
    far = {"x": [9.0, -9.0, 0.0], "g": ["0", "1", "2"]}
    with pytest.warns(RanefWarning, match=rf"predict: row {int(link == 'identity')} .*link='log' keeps"):
        found = m.predict(far)
    assert (found > 0).tolist() == [link == "identity", link != "identity", True]
    with pytest.warns(RanefWarning, match="simulate: .* of the draws are NaN"):
        assert np.isnan(m.simulate(50, seed=1)).any()


@pytest.mark.parametrize("link", ["log", "softplus"])
def test_links_that_keep_means_in_their_range_say_nothing(data, link):
    m = rf.fit("y ~ x + (1 | g)", data, family="gamma", link=link)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (m.predict({"x": [9.0, -9.0], "g": ["0", "1"]}) > 0).all()
        assert not np.isnan(m.simulate(50, seed=1)).any()
