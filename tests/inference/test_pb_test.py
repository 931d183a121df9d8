"""The parametric-bootstrap likelihood-ratio test."""

from __future__ import annotations

import numpy as np
import pytest

import ranef as rf
from engines import zoo
from ranef.errors import DataError, NotAvailableError, OptionError


def test_counts_and_formula():
    small, large = (rf.fit(f, zoo.data(), method="ml") for f in ("y ~ 1 + (x | g)", "y ~ x + (x | g)"))
    test = rf.pb_test(large, small, n=300, seed=5)
    assert (test.requested, test.used, len(test.draws)) == (300, 300, 300)
    assert test.extreme == int((test.draws >= test.statistic).sum())
    assert test.p_value == (1 + test.extreme) / 301
    assert (test.draws >= 0).all()
    table = dict(zip(test.table["test"], test.table["p_value"], strict=True))
    assert table["PBtest"] == test.p_value
    mean = test.draws.mean()
    from scipy.stats import chi2, f, gamma

    assert table["Bartlett"] == pytest.approx(chi2.sf(test.statistic / mean, 1))
    var = test.draws.var(ddof=1)
    assert table["Gamma"] == pytest.approx(gamma.sf(test.statistic, mean**2 / var, scale=var / mean))
    assert table["F"] == pytest.approx(f.sf(test.statistic, 1, 2 * mean / (mean - 1)))


def test_same_seed_same_draws_whatever_the_threads():
    fits = [rf.fit(f, zoo.data(), threads=t) for f, t in (("y ~ x", 1), ("y ~ x + (1 | g)", 1))]
    more = [rf.fit(f, zoo.data(), threads=t) for f, t in (("y ~ x", 2), ("y ~ x + (1 | g)", 2))]
    a, b = rf.pb_test(*fits, n=50, seed=9), rf.pb_test(*more, n=50, seed=9)
    np.testing.assert_allclose(a.draws, b.draws, atol=1e-7)  # sums in another order


def test_boundary_ratios_of_zero_count():
    small, large = rf.fit("y ~ x", zoo.data()), rf.fit("y ~ x + (1 | g)", zoo.data())
    test = rf.pb_test(large, small, n=200, seed=1)
    exact = rf.exact_rlrt(large, n=20_000, seed=1)
    assert test.at_zero / test.used == pytest.approx(exact.at_zero, abs=0.15)  # four standard errors of 200 draws
    assert "on the boundary" in repr(test)
    assert np.isnan(test.table["p_value"][2:]).all()


def test_generalised_models_are_refitted():
    data = rf.datasets.load("cbpp")
    form = "cbind(incidence, size - incidence) ~ {} + (1 | herd)"
    fits = [rf.fit(form.format(x), data, family="binomial") for x in ("1", "period")]
    test = rf.pb_test(*fits, n=30, seed=1)
    assert test.used == 30
    assert test.p_value == pytest.approx(1 / 31)


def test_failures_are_counted(monkeypatch):
    from ranef.inference import pb_test as module

    small, large = rf.fit("y ~ x", zoo.data()), rf.fit("y ~ x + (1 | g)", zoo.data())
    true = module.criteria
    broken = lambda m, y: ["no optimum" if j == 3 else v for j, v in enumerate(true(m, y))]  # noqa: E731
    monkeypatch.setattr(module, "criteria", broken)
    test = rf.pb_test(large, small, n=20, seed=1)
    assert test.failures == {"no optimum": 1}
    assert test.used == 19
    with pytest.raises(DataError, match="1 of 4 draws could not be fitted: no optimum: 1"):
        rf.pb_test(large, small, n=4, seed=1)


def test_a_drawn_response_without_a_category_is_a_failure():
    rng = np.random.default_rng(1)
    data = {"y": np.array(["a", "b", "c"])[np.r_[rng.integers(0, 2, 38), 2, 0]], "x": rng.normal(size=40)}
    import pandas as pd

    frame = pd.DataFrame(data).assign(y=pd.Categorical(data["y"], ordered=True))
    fits = [rf.fit(f, frame, family="cumulative") for f in ("y ~ 1", "y ~ x")]
    with pytest.raises(DataError, match="a category without rows"):
        rf.pb_test(*fits, n=40, seed=1)  # one row in forty: a third of the draws lack it


def test_nesting_that_the_caller_knows():
    data = rf.datasets.load("Machines")
    small = rf.fit("score ~ Machine + (1 | Worker) + (1 | Worker:Machine)", data)
    large = rf.fit("score ~ Machine + (Machine | Worker)", data)
    with pytest.raises(DataError, match="not nested"):
        rf.pb_test(large, small, n=10)
    assert rf.pb_test(large, small, n=10, seed=1, nested=True).used == 10


def test_refusals():
    a, b = rf.fit("y ~ x + (1 | g)", zoo.data()), rf.fit("y ~ z + f + (1 | g)", zoo.data())
    with pytest.raises(DataError, match="not nested"):
        rf.pb_test(b, a, n=10)
    with pytest.raises(OptionError, match="n=0 must be a positive"):
        rf.pb_test(a, rf.fit("y ~ x", zoo.data()), n=0)
    with pytest.raises(NotAvailableError, match="slim"):
        rf.pb_test(a.slim(), rf.fit("y ~ x", zoo.data()), n=10)
