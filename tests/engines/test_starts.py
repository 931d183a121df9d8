"""Perturbed starts and data sets reach one optimum: no saddle, no false boundary, and few factorisations on the way.

Few levels of three correlated columns can have two minima that are both genuine (`factor_slope` has, in two of its
data sets); then each must be one by the criterion's own word, and that must stay rare.
"""

from __future__ import annotations

import numpy as np
import pytest

import ranef as rf
from engines import zoo
from ranef import _core
from ranef.engines import linear
from ranef.errors import ConvergenceWarning
from ranef.frame import build

RANDOM = [name for name in zoo.FORMULAS if name != "no_random"]
DATA_SETS = range(8)
STARTS = 3
# Fits stop where one more step promises 1e-9; the starts of one data set may differ by some of that, not by 1e-6.
SAME = 1e-6


def data_set(seed, noise):
    """Bootstrapped rows of the zoo; or its rows under a response that no factor had a part in, full of boundaries."""
    frame = zoo.data().sample(frac=1, replace=True, random_state=seed, ignore_index=True)
    if not noise:
        return frame
    return frame.assign(y=np.random.default_rng(seed).normal(size=len(frame)))


def random_start(lower, rng):
    """Theta of any size between negligible and huge, with some entries exactly zero."""
    free = np.where(np.isfinite(lower), rng.uniform(0, 2, len(lower)), rng.normal(size=len(lower)))
    return free * 10 ** rng.uniform(-3, 2) * (rng.random(len(lower)) < 0.8)


def fits(design, reml, rng):
    """The fit from the engine's own start, then those from random ones, on a fresh core each."""
    lower = linear.theta_lower(design.terms)
    starts = [None, *(random_start(lower, rng) for _ in range(STARTS))]
    return [_core.Lmm(*zoo.arguments(design)).fit(reml, start, {}) for start in starts]


def lowest_nearby(core, found, reml, rng, draws):
    """Lowest criterion around an optimum, evaluated and not derived, less the optimum's own."""
    theta = found["theta"]
    near = [
        core.evaluate(theta + size * rng.normal(size=len(theta)), reml)["criterion"]
        for size in (1e-4, 1e-3, 1e-2, 3e-2)
        for _ in range(draws)
    ]
    # Theta and its mirror images are one model, so a diagonal below zero is legal here.
    return min(near) - found["criterion"]


@pytest.mark.parametrize("noise", [False, True], ids=["effects", "noise"])
@pytest.mark.parametrize("name", RANDOM)
def test_one_optimum_from_anywhere(name, noise):
    rng = np.random.default_rng(sum(map(ord, name)))
    other_minima = 0
    for seed in DATA_SETS:
        design, reml = build(zoo.FORMULAS[name], data_set(seed, noise))[1], bool(seed % 2)
        found = fits(design, reml, rng)
        assert {f["outcome"] for f in found} == {"converged"}
        # Designs of fewer rows per parameter are searched from several sides.
        assert found[0]["evaluations"] <= (15 if design.n >= 20 * len(found[0]["theta"]) else 200)
        best = min(found, key=lambda f: f["criterion"])
        same = [f for f in found if f["criterion"] < best["criterion"] + SAME]
        assert len({tuple(rank for *_, rank in f["boundary"]) for f in same}) == 1
        other_minima += len(same) < len(found)
        for f in found:
            if all(f is not other for other in same):
                core = _core.Lmm(*zoo.arguments(design))
                assert lowest_nearby(core, f, reml, rng, 500) > -1e-9
    assert other_minima <= 2


@pytest.mark.parametrize("name", RANDOM)
def test_no_small_move_lowers_the_criterion(name):
    rng = np.random.default_rng(7)
    for seed, reml in ((1, True), (2, False)):
        core = _core.Lmm(*zoo.arguments(build(zoo.FORMULAS[name], data_set(seed, noise=not reml))[1]))
        assert lowest_nearby(core, core.fit(reml, None, {}), reml, rng, 20) > -1e-9


def test_balanced_designs_start_at_their_reml_estimate():
    """Henderson's equations are those of REML where the design is balanced: one factorisation confirms it."""
    import ranef as rf

    sleep = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
    assert sleep.certificate.evaluations == 1
    crossed = rf.fit("diameter ~ 1 + (1 | plate) + (1 | sample)", rf.datasets.load("Penicillin"))
    assert crossed.certificate.evaluations == 1


@pytest.mark.parametrize("name", ["slope", "crossed_slopes", "nested", "three_columns"])
def test_work_does_not_depend_on_units(name):
    """Scaled responses and predictors take the same path: starts and steps are free of units."""
    frame = zoo.data()
    scaled = frame.assign(y=1e4 * frame["y"] - 7e3, x=1e-3 * frame["x"] + 5, z=1e3 * frame["z"])
    one, two = (linear.make_core(build(zoo.FORMULAS[name], f)[1]).fit(True, None, {}) for f in (frame, scaled))
    assert one["evaluations"] == two["evaluations"]
    assert two["sigma"] == pytest.approx(1e4 * one["sigma"], rel=1e-6)


def test_a_start_at_the_edge_of_the_means_is_left():
    """The plain model's optimum has a mean of nothing, where no random effect is legal: begun elsewhere."""
    rng = np.random.default_rng(4)
    g, x, u = rng.integers(0, 8, 60), rng.normal(size=60), rng.normal(size=8)
    data = {"y": rng.poisson(np.maximum(0.5 + 0.6 * x + 0.4 * u[g], 0.05)), "x": x, "g": g}
    with pytest.warns(ConvergenceWarning, match="mean"):
        m = rf.fit("y ~ x + (1 | g)", data, family="poisson", link="identity")
    assert np.isfinite(m.loglik)
    assert (m.fitted() > 0).all()


@pytest.mark.parametrize(("family", "least"), [("poisson", -1046.33), ("nbinom1", -829.153), ("nbinom2", -844.511)])
def test_rows_do_not_begin_on_the_wrong_side_of_a_sqrt_link(family, least):
    """A predictor and its negative have one mean; fits begun beyond 0 ended 25 below glmmTMB's maximum (1.1.5)."""
    import ranef as rf

    effects = "" if family == "poisson" else " + (1 | site)"
    m = rf.fit(f"count ~ mined + spp{effects}", rf.datasets.load("Salamanders"), family=family, link="sqrt")
    assert m.converged
    assert m.loglik > least - 1e-3
    below = (m.predict(re="none", type="link") < 0).sum()
    assert [n.evidence["rows"] for n in m.messages if n.code == "folded"] == ([below] if below else [])
