"""Notes on groups that say little each: told where quadrature moves an estimate, and only there."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

import ranef as rf

GROUPS = 150


def expit(eta):
    return 1 / (1 + np.exp(-eta))


DRAWN = {
    "cumulative": (2.0, lambda rng, e: pd.Categorical(np.digitize(e + rng.logistic(size=len(e)), [-1, 0, 1])), {}),
    "multinomial": (2.0, lambda rng, e: np.argmax(rng.gumbel(size=(3, len(e))) + np.outer([1, 0, 0], e), axis=0), {}),
    "poisson": (0.7, lambda rng, e: rng.poisson(np.exp(e - 1)), {}),
    "truncated_poisson": (1.0, lambda rng, e: 1 + rng.poisson(np.exp(e - 2)), {}),
    "zero-inflated": (1.5, lambda rng, e: rng.poisson(np.exp(e - 1)) * rng.integers(0, 2, len(e)),
                      {"family": "poisson", "zero_inflation": "~ 1"}),
    "trials": (2.5, lambda rng, e: rng.binomial(3, expit(e - 2)) / 3, {"family": "binomial", "trials": "three"}),
    "prior": (2.0, lambda rng, e: (rng.random(len(e)) < expit(e)).astype(int),
              {"family": "binomial", "prior": {"sd": "gamma(2.5, 1)"}}),
}  # fmt: skip


def fitted(name, rows, **options):
    sd, draw, given = DRAWN[name]
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(GROUPS), rows)
    x = rng.normal(size=len(g))
    y = draw(rng, 0.3 * x + sd * rng.normal(size=GROUPS)[g])
    y = y.as_ordered() if name == "cumulative" else np.asarray(list("abc"))[y] if name == "multinomial" else y
    frame = pd.DataFrame({"y": y, "x": x, "g": g, "three": 3})
    return rf.fit("y ~ x + (1 | g)", frame, **({"family": name} | given | options))


def told(m):
    return next((n for n in m.messages if n.code == "small_clusters"), None)


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_told_moves_by_quadrature(name):
    """Somewhere by a tenth of a standard error: what a Newton step predicts to a third."""
    m = fitted(name, 3)
    note = told(m)
    assert note is not None
    nodes = int(re.findall(r"quadrature=(\d+)", note.text)[0])
    fine = fitted(name, 3, quadrature=nodes)
    check = rf.laplace_check(m)
    moved = np.r_[fine.estimate.beta, fine.theta] - np.r_[m.estimate.beta, m.theta]
    relative = np.abs(moved / check.std_error)
    assert relative.max() > 0.07
    j = int(np.argmax(np.abs(check.relative)))
    assert check.shift[j] == pytest.approx(moved[j], rel=0.35)


@pytest.mark.parametrize("name", DRAWN)
def test_large_groups_are_quiet(name):
    assert told(fitted(name, 60)) is None


WISHES = (
    {"fixed": {"x": 0.5}}, {"fixed": {"sd(g)": 1.0}}, {"equal": [("x", "z")]}, {"prior": {"sd": "gamma(2.5, 4)"}},
    {"prior": "blme"}, {"penalty": "firth"},
)  # fmt: skip


@pytest.mark.parametrize("wish", WISHES, ids=str)
@pytest.mark.parametrize("draws", [None, 1000])
def test_what_is_held_tied_or_known_stays_so(wish, draws):
    """The predicted shift is that of the same fit by quadrature, to the square of its size."""
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(200), 6)
    frame = {"g": g, "x": rng.normal(size=len(g)), "z": rng.normal(size=len(g))}
    eta = 0.3 * frame["x"] + 0.3 * frame["z"] + 1.2 * rng.normal(size=200)[g]
    frame["y"] = (rng.random(len(g)) < expit(eta)).astype(float)
    m, fine = (rf.fit("y ~ x + z + (1 | g)", frame, family="binomial", quadrature=k, **wish) for k in (1, 9))
    check = rf.laplace_check(m, nodes=None if draws else 9, draws=draws)
    moved = np.r_[fine.estimate.beta, fine.theta] - np.r_[m.estimate.beta, m.theta]
    # a second-order expansion misses a tenth of the shift here
    assert check.shift == pytest.approx(moved, rel=0.15 if draws else 0.1, abs=0.001)
    assert ((check.shift == 0) == (check.std_error == 0)).all()
