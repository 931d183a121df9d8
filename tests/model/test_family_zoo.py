"""Every family of the table: drawn from its law, fitted, and asked everything that a fit answers."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose

import ranef as rf
from model.zoo import TRUTH
from ranef.errors import OptionError, UnseenLevelError
from ranef.families import Data, law_of, names, read_family

N, GROUPS = 400, 20


def drawn(name, seed=3):
    rng = np.random.default_rng(seed)
    family, g, x = read_family(name), rng.integers(0, GROUPS, N), rng.normal(size=N)
    others = [-1.0, 0.5] if family.entry.ordinal else TRUTH.get(name, [1.0] * (len(family.parameters) - 1))
    eta = np.column_stack([0.3 + 0.4 * x + rng.normal(scale=0.4, size=GROUPS)[g], *(np.full(N, v) for v in others)])
    trials = rng.integers(1, 9, N).astype(float) if family.entry.support == "binomial" else None
    y = law_of(family).draw(eta, Data(np.zeros(N), trials), rng)
    data = {"y": y, "x": x, "g": g.astype(str)}
    return data if trials is None else {**data, "n": trials}


@pytest.fixture(scope="module", params=[n for n in names() if n != "multinomial"])  # which has no mean: test_categories
def m(request):
    data = drawn(request.param)
    return rf.fit("y ~ x + (1 | g)", data, family=request.param, method="ml", trials="n" if "n" in data else None)


def test_the_truth_is_recovered(m):
    assert m.converged
    table = m.tidy().query("term == 'x' and component == 'mean'")
    # One draw: the truth lies within four standard errors but for one in 16,000.
    assert abs(table["estimate"].iloc[0] - 0.4) < 4 * table["std_error"].iloc[0]


def test_quantile_residuals_are_normal(m):
    q = m.residuals("quantile", seed=1)
    assert abs(q.mean()) < 0.2
    assert 0.85 < q.std() < 1.15


def test_pearson_residuals_have_unit_variance(m):
    scaled = m.residuals("scaled")
    assert 0.6 < scaled.std() < 1.4


def test_expected_responses_are_averages_of_draws(m):
    drawn = m.simulate(400, re="conditional", seed=5)
    error = drawn.std(axis=1).mean() / np.sqrt(400 * len(drawn))  # of the average of all draws
    assert abs(drawn.mean() - m.fitted().mean()) < 5 * error


def test_everything_is_finite(m):
    for values in (m.predict(), m.predict(re="none"), m.predict(re="integrate"), m.simulate(1, seed=1), m.residuals()):
        assert np.isfinite(values).all()
    assert np.isfinite(m.vcov("all")).all().all()
    assert m.family in m.summary() or m.task.linear
    again = m.refit(m.simulate(1, seed=2)[:, 0])
    assert again.converged


def _new(kind, rows):
    frame = {"x": [0.5, None, -1.0][:rows], "g": ["1", "2", "nobody"][:rows], "n": [3.0, 4.0, 5.0][:rows]}
    if kind == "polars":
        return pl.DataFrame(frame, schema={"x": pl.Float64, "g": pl.String, "n": pl.Float64})
    return pd.DataFrame(frame).astype({"x": float, "g": object, "n": float})


@pytest.mark.parametrize("kind", ["pandas", "polars"])
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_new_rows_have_an_answer_each(m, kind, rows):
    """None, one, and one of each sort: a value missing, a level that the fit has not seen."""
    new, ordered = _new(kind, rows), m.distribution.categorical
    own = ("probs",) if ordered else tuple(p for p in m.distribution.parameters if p != "mean")
    for asked in ("response", "link", *own):
        for how in ({}, {"re": "none"}, {"re": "integrate"}, {"new_levels": "sample", "seed": 1}):
            found = np.asarray(m.predict(new, type=asked, **{"new_levels": "population", **how}), dtype=float)
            assert len(found) == rows
            lost = np.isnan(found.reshape(rows, -1)).any(axis=1) if rows else np.empty(0)
            # A component that is one number is known where x is missing.
            assert lost.tolist() in ([False, True, False][:rows], [False] * rows if asked in own else None)
    for interval in ("confidence", "prediction"):
        table = np.asarray(m.predict(new, interval=interval, new_levels="population", seed=2), dtype=float)
        low, high = table[:, -2], table[:, -1]
        assert (np.isnan(low) == np.isnan(high)).all()
        assert (low[~np.isnan(low)] <= high[~np.isnan(high)]).all()
        assert np.isnan(low).sum() == (rows > 1)
    with pytest.raises(UnseenLevelError) if rows == 3 else nullcontext():
        m.predict(new)


def test_the_average_lies_between_the_smallest_and_the_largest_response(m):
    y = np.asarray(m.design.y)
    assert y.min() < m.predict(re="integrate").mean() < y.max()


def test_the_summary_says_what_the_dispersion_means(m):
    meaning = m.distribution.entry.dispersion
    if m.task.linear:
        assert "Residual" in m.summary()
    elif meaning:
        assert f"dispersion ({meaning}" in m.summary()


@pytest.mark.parametrize("link", ["probit", "cloglog", "loglog", "cauchit"])
def test_extra_zeros_of_two_groups_are_the_same_under_every_link(link):
    """A probability for each group is the same model however it is written: its fit, predictions and their errors."""
    data = rf.datasets.load("Salamanders")

    def fit(which):
        options = {"family": "poisson", "zero_inflation": "~ 1 + mined", "link": {"zi": which}}
        return rf.fit("count ~ spp + (1 | site)", data, **options)

    plain, other = fit("logit"), fit(link)
    assert other.loglik == pytest.approx(
        plain.loglik, abs=1e-6
    )  # one probability is nearly 0, which links come to at different paces
    for kind in ("response", "zero_inflation", "conditional"):
        a, b = (m.predict(type=kind, std_error=True) for m in (plain, other))
        assert_allclose(a["estimate"], b["estimate"], rtol=1e-4)
        assert_allclose(a["std_error"], b["std_error"], rtol=1e-3)
    assert_allclose(plain.residuals("pearson"), other.residuals("pearson"), rtol=1e-3, atol=1e-5)
    assert f"zero inflation, {link} link" in str(other)


def test_links_of_extra_zeros_that_are_none():
    data = rf.datasets.load("Salamanders")
    for options, says in (
        ({"zero_inflation": "~ 1", "link": {"zero_inflation": "log"}}, "not available for zero_inflation"),
        ({"link": {"zero_inflation": "probit"}}, "write zero_inflation="),
        ({"family": "gaussian", "link": {"zi": "probit"}}, "no zeros to inflate"),
    ):
        with pytest.raises(OptionError, match=says):
            rf.fit("count ~ mined + (1 | site)", data, **{"family": "poisson", **options})
