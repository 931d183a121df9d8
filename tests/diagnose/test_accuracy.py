"""The check of Laplace's approximation: what it measures, what it predicts, and where it says that it cannot."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import ranef as rf
from ranef.errors import NotAvailableError, OptionError


def binary(size, groups, sd, seed=2):
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), size)
    x = rng.normal(size=size * groups)
    eta = 0.5 * x + sd * rng.normal(size=groups)[g]
    return {"y": (rng.uniform(size=len(g)) < 1 / (1 + np.exp(-eta))).astype(float), "x": x, "g": g, "h": g // 5}


SMALL = binary(3, 150, 2.0)
LARGE = binary(120, 8, 0.6)


def test_it_measures_and_predicts_what_quadrature_finds():
    m = rf.fit("y ~ x + (1 | g)", SMALL, family="binomial")
    check = rf.laplace_check(m)
    fine = rf.fit("y ~ x + (1 | g)", SMALL, family="binomial", quadrature=7)
    assert check.nodes == 7
    assert check.loglik == m.loglik
    # At Laplace's estimate quadrature's log-likelihood lies below its own maximum, by half a Newton step's promise.
    assert m.loglik < check.quadrature_loglik <= fine.loglik + 1e-8
    moved = np.r_[fine.estimate.beta, fine.theta] - np.r_[m.estimate.beta, m.theta]
    # One Newton step with Laplace's curvature: the right sign and size, not digits.
    assert_allclose(check.shift[-1], moved[-1], rtol=0.5)
    assert check.matters
    assert "quadrature=7" in check.text
    assert check.names == ("(Intercept)", "x", "theta (Intercept) | g")
    assert [abs(gap) for *_, gap in check.worst] == sorted((abs(gap) for *_, gap in check.worst), reverse=True)
    assert "small_clusters" in [n.code for n in m.messages]


def test_it_is_quiet_where_groups_are_large():
    m = rf.fit("y ~ x + (1 | g)", LARGE, family="binomial")
    check = rf.laplace_check(m)
    assert not check.matters
    assert abs(check.gap) < 0.05
    assert "good enough" in repr(check)
    assert list(np.asarray(check.tidy()["relative"])) == list(check.relative)


def test_nested_groups_and_the_fit_stays_as_it_was():
    m = rf.fit("y ~ x + (1 | h/g)", SMALL, family="binomial")
    before = (m.loglik, m.vcov(), m.predict(std_error=True)["std_error"])
    check = rf.laplace_check(m, nodes=5)
    assert check.worst[0][0] == "h"
    assert m.loglik == before[0]
    assert_allclose(m.predict(std_error=True)["std_error"], before[2], rtol=1e-10)


def test_a_variance_at_zero():
    d = {**LARGE, "y": np.arange(960) % 2.0}
    m = rf.fit("y ~ x + (1 | g)", d, family="binomial")
    assert m.theta[0] == 0
    assert np.isfinite(rf.laplace_check(m).shift).all()


@pytest.mark.parametrize(
    ("formula", "arguments", "words"),
    [
        ("y ~ x + (1 | g)", {"quadrature": 3}, "quadrature=1"),
        ("y ~ x", {}, "no random effects"),
        ("y ~ x + (1 | g) + (1 | day)", {}, "crossed"),
    ],
)
def test_it_says_where_it_cannot(formula, arguments, words):
    d = {**LARGE, "day": np.arange(960) % 7}
    m = rf.fit(formula, d, family="binomial", **arguments)
    with pytest.raises(NotAvailableError, match=words):
        rf.laplace_check(m)


def test_legal_nodes():
    m = rf.fit("y ~ x + (1 | g)", LARGE, family="binomial")
    with pytest.raises(OptionError, match="nodes"):
        rf.laplace_check(m, nodes=1)
