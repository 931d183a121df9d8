"""Weights of a survey: weights of one, whole weights as copies, scaling, the sandwich, refusals."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import ranef as rf
from ranef.engines.survey import clusters, scaled
from ranef.errors import ArgumentError, DataError, NotAvailableError, OptionError

SCHOOLS, PUPILS = 40, 10


def data(seed=1):
    rng = np.random.default_rng(seed)
    n = SCHOOLS * PUPILS
    g, x = np.repeat(np.arange(SCHOOLS), PUPILS), rng.normal(size=n)
    eta = 0.3 + 0.5 * x + 0.7 * rng.normal(size=SCHOOLS)[g] + 0.5 * rng.normal(size=2 * SCHOOLS)[np.arange(n) // 5]
    copies = rng.integers(1, 4, SCHOOLS)[g].astype(float)
    return {
        "count": rng.poisson(np.exp(eta)).astype(float), "real": eta + rng.normal(size=n),
        "binary": (rng.uniform(size=n) < 1 / (1 + np.exp(-eta))).astype(float),
        "x": x, "g": g, "room": np.arange(n) // 5, "copies": copies, "w": rng.uniform(0.5, 3, n),
        "rooms": rng.integers(1, 4, 2 * SCHOOLS)[np.arange(n) // 5].astype(float),
        "whole": rng.integers(1, 4, n).astype(float), "one": np.ones(n), "day": np.arange(n) % 7,
    }  # fmt: skip


DATA = data()


def copied(by, times):
    """The rows of DATA with every level of `by` standing there `times` times under labels of its own."""
    index, label = [], []
    for level in np.unique(DATA[by]):
        at = np.flatnonzero(DATA[by] == level)
        for k in range(int(DATA[times][at[0]])):
            index.append(at)
            label.append(np.full(len(at), 1000 * level + k))
    rows = np.concatenate(index)
    return {**{k: v[rows] for k, v in DATA.items()}, by: np.concatenate(label)}


@pytest.mark.parametrize(("y", "family"), [("count", "poisson"), ("real", "gaussian"), ("binary", "binomial")])
def test_weights_of_one_change_nothing(y, family):
    plain = rf.fit(f"{y} ~ x + (x | g)", DATA, family=family, method="ml")
    for weights in ("one", {"row": "one", "g": "one"}, {"g": 2.5 * DATA["one"], "scaling": None}):
        m = rf.fit(f"{y} ~ x + (x | g)", DATA, family=family, sampling_weights=weights)
        # The certificate leaves 1e-9 in the deviance, which is 3e-5 standard errors.
        assert_allclose(m.loglik, plain.loglik, atol=1e-7)
        assert_allclose(m.params, plain.params, atol=1e-5)
        assert_allclose(m.sigma, plain.sigma, rtol=1e-5)


@pytest.mark.parametrize(("y", "family"), [("count", "poisson"), ("real", "gaussian"), ("binary", "binomial")])
@pytest.mark.parametrize("nodes", [1, 5])
def test_whole_weights_of_groups_are_copies_of_groups(y, family, nodes):
    m = rf.fit(f"{y} ~ x + (1 | g)", DATA, family=family, sampling_weights={"g": "copies"}, quadrature=nodes)
    arguments = {"quadrature": nodes} if family != "gaussian" else {}
    whole = rf.fit(f"{y} ~ x + (1 | g)", copied("g", "copies"), family=family, method="ml", **arguments)
    assert_allclose(m.loglik * DATA["copies"].mean(), whole.loglik, atol=1e-7)
    assert_allclose(m.params, whole.params, atol=1e-5)
    if family == "gaussian":
        assert_allclose(m.sigma, whole.sigma, rtol=1e-5)


def test_weights_of_rows_are_copies_of_rows():
    m = rf.fit("count ~ x + (1 | g)", DATA, family="poisson", sampling_weights={"row": "whole", "scaling": None})
    whole = rf.fit("count ~ x + (1 | g)", DATA, family="poisson", frequency_weights="whole")
    assert_allclose(m.loglik, whole.loglik, atol=1e-7)
    assert_allclose(m.params, whole.params, atol=1e-6)


def test_weights_of_inner_groups_are_copies_of_them():
    weights = {"room": "rooms", "scaling": None}
    m = rf.fit("count ~ x + (1 | g) + (1 | room)", DATA, family="poisson", sampling_weights=weights, quadrature=11)
    whole = rf.fit("count ~ x + (1 | g) + (1 | room)", copied("room", "rooms"), family="poisson", quadrature=11)
    # The nodes of the two lie elsewhere: both err, by less than this with 11 nodes.
    assert_allclose(m.loglik, whole.loglik, atol=1e-3)
    assert_allclose(m.params, whole.params, atol=1e-4)
    assert_allclose(m.theta, whole.theta, atol=1e-3)


def test_scalings():
    for scaling, total in (("size", len), ("effective", lambda w: w.sum() ** 2 / (w**2).sum())):
        m = rf.fit(
            "count ~ x + (1 | g)", DATA, family="poisson",
            sampling_weights={"row": "w", "g": "copies", "scaling": scaling},
        )  # fmt: skip
        found = scaled(m.design)
        for level in (0, 17):
            at = DATA["g"] == level
            assert_allclose(found.rows[at].sum(), total(DATA["w"][at]), rtol=1e-12)
        assert_allclose(found.levels[0].mean(), 1, rtol=1e-12)


def test_the_sandwich():
    m = rf.fit("count ~ x + (1 | g)", DATA, family="poisson", sampling_weights={"row": "w", "g": "copies"})
    scores = m.core.scores(DATA["g"].astype(np.uint32), SCHOOLS)
    # The scores of all groups add up to the gradient, which is 0 at the maximum.
    assert np.abs(scores.sum(axis=0)).max() < 1e-3
    bread = m.core.vcov()
    expected = SCHOOLS / (SCHOOLS - 1) * bread @ scores.T @ scores @ bread
    assert_allclose(m.vcov(), expected[:2, :2], rtol=1e-10)
    # Each group's score is the difference quotient of its own log-likelihood.
    beta, theta, h = np.array(m.params), np.array(m.theta), 1e-4
    at = lambda b: np.array(_groups(m, b, theta))  # noqa: E731
    for j in range(2):
        e = h * (np.arange(2) == j)
        assert_allclose((at(beta + e) - at(beta - e)) / (2 * h), scores[:, j], rtol=1e-5, atol=1e-5)


def test_scores_as_glmmtmb():
    ref = json.loads((Path(__file__).parents[1] / "golden" / "models" / "tmbpost_cbpp_sandwich.json").read_text())
    m = rf.fit("cbind(incidence, size - incidence) ~ period + (1 | herd)", rf.datasets.load("cbpp"), family="binomial")
    cluster, count = clusters(m.design)
    order = [list(map(str, m.layout.terms[0].levels)).index(row["cluster"]) for row in ref["estfun"]]
    ours = m.core.scores(cluster, count)[order]
    theirs = np.array([[v for k, v in row.items() if k != "cluster"] for row in ref["estfun"]])
    # R's optimum is good to 1e-5 standard errors, its scores come from exact gradients.
    assert_allclose(ours[:, :4], theirs, rtol=1e-3, atol=1e-3)


def _groups(m, beta, theta):
    from ranef.engines.laplace import make_core

    core = make_core(m.design, m.task)
    core.adopt(list(beta), list(theta), 1, "ml")
    return core.with_nodes(1)["groups"]


def test_robust_standard_errors_are_those_of_the_model_where_it_is_right():
    rng = np.random.default_rng(8)
    g, x = np.repeat(np.arange(400), 5), rng.normal(size=2000)
    y = rng.poisson(np.exp(0.2 + 0.4 * x + 0.6 * rng.normal(size=400)[g])).astype(float)
    d = {"y": y, "x": x, "g": g, "one": np.ones(2000)}
    plain = rf.fit("y ~ x + (1 | g)", d, family="poisson")
    robust = rf.fit("y ~ x + (1 | g)", d, family="poisson", sampling_weights="one")
    # 400 scores: a standard error of a variance is known to about 7 percent, of its root to half of that.
    assert_allclose(np.sqrt(np.diag(robust.vcov())), np.sqrt(np.diag(plain.vcov())), rtol=0.12)


def test_a_model_without_random_effects_is_a_weighted_regression():
    m = rf.fit("real ~ x", DATA, sampling_weights="w")
    w = DATA["w"]
    x = np.column_stack([np.ones_like(w), DATA["x"]])
    beta = np.linalg.solve(x.T @ (w[:, None] * x), x.T @ (w * DATA["real"]))
    assert_allclose(m.params, beta, atol=1e-6)
    bread = np.linalg.inv(x.T @ (w[:, None] * x))
    score = (w * (DATA["real"] - x @ beta))[:, None] * x
    n = len(w)
    assert_allclose(m.vcov(), bread @ score.T @ score @ bread * n / (n - 1), rtol=1e-4)


def test_it_is_said_and_kept():
    m = rf.fit("count ~ x + (1 | g)", DATA, family="poisson", sampling_weights={"row": "w", "g": "copies"})
    assert "pseudo-maximum likelihood" in str(m.summary())
    assert "robust" in str(m.summary())
    assert "pseudo_likelihood" in [n.code for n in m.messages]
    again = pickle.loads(pickle.dumps(m))
    assert_allclose(again.vcov(), m.vcov(), rtol=1e-6)
    assert_allclose(again.core.with_nodes(1)["loglik"], m.loglik, atol=1e-8)
    assert_allclose(m.update(". ~ . - x").npar, m.npar - 1)
    missing = {**DATA, "w": np.where(np.arange(400) == 3, np.nan, DATA["w"])}
    assert rf.fit("count ~ x + (1 | g)", missing, family="poisson", sampling_weights="w").nobs == 399


@pytest.mark.parametrize(
    ("formula", "arguments", "error", "words"),
    [
        ("count ~ x + (1 | g) + (1 | day)", {"sampling_weights": "w"}, NotAvailableError, "crossed"),
        ("count ~ x + (1 | g)", {"sampling_weights": {"school": "w"}}, OptionError, "'school' is no grouping"),
        ("count ~ x + (1 | g)", {"sampling_weights": {"g": "w"}}, DataError, "not constant"),
        ("count ~ x + (1 | g)", {"sampling_weights": {"scaling": "size"}}, ArgumentError, "row"),
        ("count ~ x + (1 | g)", {"sampling_weights": {"row": "w", "scaling": "b"}}, OptionError, "scaling='b'"),
        ("count ~ x + (1 | g)", {"sampling_weights": "w", "method": "reml"}, OptionError, "method='ml'"),
        ("count ~ x + (1 | g)", {"sampling_weights": "w", "frequency_weights": "w"}, OptionError, "exclude"),
        ("count ~ x + (1 | g) + (1 | room)", {"sampling_weights": {"room": "rooms"}}, NotAvailableError, "quadrature"),
        ("count ~ x + (1 | g)", {"sampling_weights": "x"}, DataError, "positive"),
    ],
)
def test_refusals(formula, arguments, error, words):
    with pytest.raises(error, match=words):
        rf.fit(formula, DATA, family="poisson", **arguments)
