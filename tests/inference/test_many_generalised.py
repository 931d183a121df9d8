"""Many responses of other than linear models at once, and other optimisers on their likelihoods."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import ranef as rf
from ranef.errors import DataError, NotAvailableError

N = 160
CASES = {
    "poisson": ({"family": "poisson"}, "counts"),
    "zero-inflated": ({"family": "poisson", "zero_inflation": "~ 1"}, "zeros"),
    "trials": ({"family": "binomial", "trials": "size"}, "shares"),
    "quadrature": ({"family": "poisson", "quadrature": 3}, "counts"),
    "reml": ({"family": "poisson", "method": "reml"}, "counts"),
    "quasi": ({"family": "poisson", "method": "pql"}, "counts"),
    "weights": ({"family": "poisson", "frequency_weights": "size", "offset": "z"}, "counts"),
}


def frame():
    rng = np.random.default_rng(2)
    return pd.DataFrame(
        {
            "x": rng.normal(size=N), "z": 0.1 * rng.normal(size=N), "g": np.arange(N) % 16,
            "size": rng.integers(2, 9, N).astype(float),
        }
    )  # fmt: skip


DATA = frame()


def responses(kind, m=4):
    rng = np.random.default_rng(3)
    eta = 0.6 + 0.4 * DATA["x"].to_numpy()[:, None] + 0.6 * rng.normal(size=(16, m))[DATA["g"]]
    if kind == "shares":
        size = DATA["size"].to_numpy()[:, None]
        return rng.binomial(size.astype(int), 1 / (1 + np.exp(-eta))) / size
    return rng.poisson(np.exp(eta)) * (1.0 if kind == "counts" else rng.uniform(size=eta.shape) > 0.3)


@pytest.mark.parametrize("case", CASES)
def test_equal_to_single_fits(case):
    arguments, kind = CASES[case]
    y = responses(kind)
    many = rf.fit_many("~ x + (1 | g)", DATA, y, **arguments)
    assert many.failed == 0
    tidy, glance = many.tidy(), many.glance()
    for j, name in enumerate(many.responses):
        one = rf.fit("y ~ x + (1 | g)", DATA.assign(y=y[:, j]), **arguments)
        mine = tidy[tidy["response"] == name]
        # The same search from the same start.
        assert_allclose(mine["estimate"], one.estimate.beta, rtol=1e-8, atol=1e-10)
        assert_allclose(mine["std_error"], np.sqrt(np.diag(one.estimate.vcov)), rtol=1e-6)
        assert_allclose(glance["criterion"][j], one.criterion, rtol=1e-12)
        assert_allclose(many.ran_pars()["sd((Intercept) | g)"][j], one.varcorr()["g"].sd[0], rtol=1e-8)
    if case == "zero-inflated":
        assert list(mine["term"]) == ["(Intercept)", "x", "zero_inflation.(Intercept)"]


def test_illegal_and_constant_responses_are_named():
    y = responses("counts", 5)
    y[3, 0], y[7, 2], y[:, 3] = -1.0, np.nan, 2.0
    many = rf.fit_many("~ x + (1 | g)", DATA, y, family="poisson")
    assert sorted(many.failures) == ["y1", "y4"]
    assert "whole" in many.failures["y1"]
    assert many.glance()["converged"].tolist() == [False, True, True, False, True]
    all_bad = rf.fit_many("~ x + (1 | g)", DATA, -y[:, 1:2] - 1, family="poisson")
    assert all_bad.failed == 1


def test_rows_that_a_response_lacks_are_left_out_of_its_fit():
    y = responses("counts", 3)
    y[7, 1] = y[30, 1] = np.nan
    arguments = {"family": "poisson", "offset": np.linspace(0, 1, len(DATA)), "zero_inflation": "~ x"}
    many = rf.fit_many("~ x + (1 | g)", DATA, y, **arguments)
    one = rf.fit("y ~ x + (1 | g)", DATA.assign(y=y[:, 1]), **arguments)
    assert many.glance()["nobs"].tolist() == [len(DATA), one.nobs, len(DATA)]
    assert_allclose(many.glance()["criterion"][1], one.criterion, rtol=1e-12)  # the same search
    codes = np.digitize(responses("counts", 2), [0.5, 1.5, 2.5]).astype(float)
    codes[3, 1] = np.nan
    ordered = rf.fit_many("~ x + (1 | g)", DATA, codes, family="cumulative")
    one = rf.fit("y ~ x + (1 | g)", DATA.assign(y=codes[:, 1]), family="cumulative")
    assert_allclose(ordered.glance()["criterion"][1], one.criterion, rtol=1e-12)


@pytest.mark.parametrize("kind", ["int64", "int8", "float64", "Int64"])
def test_trials_of_any_kind_of_number(kind):
    trials = pd.Series(np.resize([4, 7, 9, 12], len(DATA)), index=DATA.index).astype(kind)
    y = np.random.default_rng(2).binomial(trials.astype(int), 0.4) / trials.astype(float)
    many = rf.fit_many("~ x + (1 | g)", DATA, {"y": y}, family="binomial", trials=trials)
    one = rf.fit("y ~ x + (1 | g)", DATA.assign(y=y), family="binomial", trials=trials)
    assert_allclose(many.glance()["criterion"][0], one.criterion, rtol=1e-12)  # the same search


def test_threads_and_order_do_not_matter():
    y = responses("counts", 6)
    one = rf.fit_many("~ x + (x | g)", DATA, y, family="poisson", threads=1)
    two = rf.fit_many("~ x + (x | g)", DATA, y[:, ::-1], family="poisson", threads=2)
    assert_allclose(one.glance()["criterion"], two.glance()["criterion"][::-1], rtol=1e-14)


@pytest.mark.parametrize("arguments", [{"family": "multinomial"}, {"family": "poisson", "sampling_weights": "size"}])
def test_refusals(arguments):
    with pytest.raises(NotAvailableError, match="fit_many"):
        rf.fit_many("~ x + (1 | g)", DATA, responses("counts"), **arguments)


@pytest.mark.parametrize("family", ["cumulative", "sratio"])
def test_ordered_categories(family):
    rng, n = np.random.default_rng(8), len(DATA)
    eta = 0.5 * DATA["x"].to_numpy()[:, None] + rng.logistic(size=(n, 4))
    y = 1 + np.digitize(eta, [-1.0, 0.5]).astype(float)
    y[y[:, 3] == 2, 3] = 1
    found = rf.fit_many("~ x + (1 | g)", DATA, y, family=family)
    assert found.failed == 1
    assert "a category without rows" in found.failures["y4"]
    for j in range(3):
        m = rf.fit("y ~ x + (1 | g)", DATA.assign(y=y[:, j]), family=family)
        assert found.estimates[j].criterion == pytest.approx(m.criterion, abs=1e-6)  # both searches' tolerance
        assert_allclose(found.estimates[j].beta, m.estimate.beta, atol=1e-4)
    terms = list(found.tidy()["term"])[:3]
    assert terms[0] == "x"
    assert terms[1].startswith("threshold.")
    with pytest.raises(DataError, match="distinct values"):
        rf.fit_many("~ x + (1 | g)", DATA, rng.normal(size=(n, 2)), family=family)


@pytest.mark.parametrize(
    ("formula", "arguments"),
    [
        ("y ~ x + (1 | g)", {"family": "poisson"}),
        ("y ~ I(1000 * x) + I(2 * x) + (x | g)", {"family": "poisson"}),
        ("y ~ x + (1 | g)", {"family": "nbinom2", "zero_inflation": "~ 1"}),
        ("y ~ x + (1 | g)", {"family": "poisson", "quadrature": 5}),
        ("y ~ x + (1 | g)", {"family": "poisson", "method": "reml"}),
    ],
    ids=["plain", "badly scaled, rank deficient", "mixture", "quadrature", "reml"],
)
def test_other_optimisers_agree(formula, arguments):
    y = responses("zeros" if "zero_inflation" in arguments else "counts")[:, 1]
    m = rf.fit(formula, DATA.assign(y=y), **arguments)
    table = rf.all_fit(m, ["newton", "scipy:L-BFGS-B", "scipy:BFGS"])
    assert table["excess"].min() == 0
    # Quasi-Newton methods stop at 1e-7 to 1e-5 of the deviance.
    assert table["excess"].max() < 1e-4
    assert_allclose(table["x" if "x" in table else "I(1000 * x)"], np.asarray(m.estimate.beta)[1], rtol=1e-2)


def test_an_optimiser_of_choice():
    d = DATA.assign(y=responses("counts")[:, 0])
    m = rf.fit("y ~ x + (1 | g)", d, family="poisson", control={"optimizer": "scipy:L-BFGS-B"})
    assert m.certificate.optimizer == "scipy:L-BFGS-B"
    assert_allclose(m.loglik, rf.fit("y ~ x + (1 | g)", d, family="poisson").loglik, atol=1e-5)
    assert np.isfinite(m.vcov()).all(axis=None)


def test_quasi_likelihood_has_no_criterion_to_share():
    m = rf.fit("y ~ x + (1 | g)", DATA.assign(y=responses("counts")[:, 0]), family="poisson", method="pql")
    with pytest.raises(NotAvailableError, match="all_fit"):
        rf.all_fit(m)
