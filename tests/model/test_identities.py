"""Identities that the likelihood of every family satisfies, under every link of its mean and with extra zeros.

Nothing is fitted: the engine is asked at a point near where a search begins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

import ranef as rf
from model.test_family_zoo import TRUTH
from ranef import _core
from ranef.call import build_call, make_call
from ranef.engines import laplace
from ranef.families import Data, law_of, link_of, names, read_family
from ranef.families.table import entries

GROUPS, SIZE = 8, 6
N = GROUPS * SIZE
#: Links under which the mean leaves its range where the predictor moves far; "log" does for proportions.
BOUNDED = ("identity", "inverse", "1/mu^2", "sqrt")


def cases():
    for name in names():
        entry = entries()[name]
        for link in entry.parameters[0].links if entry.parameters else ():
            yield name, link, {}
        if entry.inflatable:
            yield name, entry.parameters[0].link, {"zero_inflation": "~ x"}
        if entry.truncated:
            yield f"truncated_{name}", entry.parameters[0].link, {}
            yield f"truncated_{name}", entry.parameters[0].link, {"zero_inflation": "~ x"}


CASES = [pytest.param(c, id="-".join([c[0], c[1], *c[2]])) for c in cases() if c[0] != "multinomial"]


def response(name, rng, x, g):
    """Return responses drawn from the family under its usual link, with trials if it has any."""
    family = read_family(name)
    others = [-1.0, 0.5] if family.entry.ordinal else TRUTH.get(name, [1.0] * (len(family.parameters) - 1))
    effect = rng.normal(scale=0.3, size=GROUPS)[g]
    eta = np.column_stack([0.4 + 0.2 * x + effect, *(np.full(N, v) for v in others)])
    trials = rng.integers(1, 9, N).astype(float) if family.entry.support == "binomial" else None
    return law_of(family).draw(eta, Data(np.zeros(N), trials), rng), trials


@dataclass(frozen=True)
class Ready:
    """A model's core, and a point (beta, theta)."""

    core: Any
    plain: Any
    family: Any
    design: Any
    beta: Any
    sd: float

    def at(self, beta, theta):
        return self.core.evaluate(list(beta), list(theta))


@pytest.fixture(scope="module", params=CASES)
def ready(request):
    name, link, more = request.param
    rng = np.random.default_rng(11)
    g, x = np.repeat(np.arange(GROUPS), SIZE), rng.uniform(-1, 1, N)
    y, trials = response(name.removeprefix("truncated_"), rng, x, g)
    if name.startswith("truncated_") and not more:
        y = np.maximum(y, 1.0)
    data = {"y": y, "x": x, "g": g, **({} if trials is None else {"n": trials})}
    options = {"family": name, "link": link, "method": "ml", "trials": None if trials is None else "n", **more}
    if name == "gaussian":
        options["frequency_weights"] = np.ones(N)  # this engine, not the linear one
    made = []
    for formula in ("y ~ x + (1 | g)", "y ~ x"):
        call = make_call(formula, **options)
        design = laplace.absorbed(build_call(call, data)[1])
        made.append((laplace.make_core(design, call.task(design)), design, call.task(design)))
    (core, design, task), (plain, *_) = made
    return Ready(core, plain, task.family, design, beta := start(design, task), spread(task.family, beta))


def spread(family, beta):
    """Return a standard deviation that keeps means in their range within eight of it."""
    unit = family.entry.support in ("binomial", "unit", "closed_unit") and family.link == "log"
    return 0.03 * abs(float(beta[0])) if unit or family.link in BOUNDED else 0.5


def start(design, task):
    """Return coefficients: the family's start values, and a small slope of the mean."""
    if task.family.entry.ordinal:
        beta = laplace.threshold_start(design, task.family)
        beta[0] = 0.1  # there is no intercept beside the thresholds
        return beta
    given = {"y": np.ascontiguousarray(design.y)} | ({} if design.trials is None else {"trials": design.trials})
    begin = _core.family_start(task.family.spec, given)
    parts = [np.r_[begin[k], np.full(len(c.names) - 1, 0.02)] for k, c in enumerate(design.components)]
    return np.concatenate(parts)


def log_density(ready, eta):
    data = Data(np.ascontiguousarray(ready.design.y), ready.design.trials)
    return np.asarray(_core.family_eval(ready.family.spec, data.arguments, np.ascontiguousarray(eta), 0))[:, 0]


def predictors(ready):
    """Return the predictors without random effects."""
    ready.core.adopt(ready.beta.tolist(), [0.0])
    return np.array(ready.core.eta())


def test_gradient_is_a_difference_quotient(ready):
    point = np.r_[ready.beta, ready.sd]
    exact = np.asarray(ready.at(ready.beta, [ready.sd])["gradient"])

    def value(j, step):
        moved = point + step * (np.arange(len(point)) == j)
        return ready.at(moved[:-1], moved[-1:])["loglik"]

    h = 2e-4 if ready.sd > 0.1 else 2e-5
    quotient = [
        (8 * (value(j, h) - value(j, -h)) - value(j, 2 * h) + value(j, -2 * h)) / (12 * h) for j in range(len(point))
    ]
    # Differences of fourth order; the log-likelihood has an error of 1e-12 or so, which the step magnifies.
    scale = np.maximum(np.abs(exact), 1.0)
    assert (np.abs(exact - quotient) / scale).max() < (1e-6 if ready.sd > 0.1 else 1e-5)


def test_one_node_is_laplaces_approximation(ready):
    ready.core.adopt(ready.beta.tolist(), [ready.sd])
    found = ready.core.with_nodes(1)
    # The same modes, found once: sums in another order.
    assert found["loglik"] == pytest.approx(ready.at(ready.beta, [ready.sd])["loglik"], abs=1e-8)
    assert sum(found["groups"]) == pytest.approx(found["loglik"], abs=1e-9)


def test_many_nodes_are_the_integral(ready):
    u = np.linspace(-8, 8, 801)  # the trapezoidal rule converges geometrically for analytic functions that vanish
    eta = np.tile(predictors(ready), (len(u), 1))
    eta[:, 0] += ready.sd * np.repeat(u, N)
    y, trials = ready.design.y, ready.design.trials
    data = Data(np.tile(y, len(u)), None if trials is None else np.tile(trials, len(u)))
    rows = np.asarray(_core.family_eval(ready.family.spec, data.arguments, eta, 0))[:, 0]
    rows = np.clip(np.nan_to_num(rows, nan=-np.inf), -1e6, None)  # impossible, whatever the number
    values = rows.reshape(len(u), GROUPS, SIZE).sum(axis=2) - 0.5 * u[:, None] ** 2
    top = values.max(axis=0)
    brute = float(np.sum(top + np.log(np.exp(values - top).sum(axis=0) * (u[1] - u[0]) / np.sqrt(2 * np.pi))))
    ready.core.adopt(ready.beta.tolist(), [ready.sd])
    gaps = [abs(ready.core.with_nodes(k)["loglik"] - brute) for k in (1, 5, 41)]
    # 41 adaptive nodes: heavy tails converge slowly; the trapezoidal rule errs by less.
    assert gaps[2] < 3e-6
    assert gaps[2] <= gaps[1] + 1e-9
    assert gaps[1] <= gaps[0] + 1e-6


def test_no_variance_is_the_model_without_random_effects(ready):
    found = ready.at(ready.beta, [0.0])
    assert found["loglik"] == pytest.approx(log_density(ready, predictors(ready)).sum(), abs=1e-8)
    plain = ready.plain.evaluate(ready.beta.tolist(), [])
    p = len(ready.beta)
    assert found["loglik"] == pytest.approx(plain["loglik"], abs=1e-8)
    assert_allclose(
        np.asarray(found["gradient"])[:p], plain["gradient"], rtol=1e-6, atol=1e-6
    )  # derivatives are taken at a floor


def test_standard_errors_without_variance_are_those_of_the_plain_model(ready):
    ready.core.adopt(ready.beta.tolist(), [0.0])
    ready.plain.adopt(ready.beta.tolist(), [])
    p = len(ready.beta)
    ours, plain = np.asarray(ready.core.vcov())[:p, :p], np.asarray(ready.plain.vcov())
    assert (np.isnan(ours) == np.isnan(plain)).all()
    # Both are central differences of exact gradients; in the former the variance is a parameter of its own.
    assert_allclose(ours, plain, rtol=1e-4, atol=1e-6 * np.nanmax(np.abs(plain), initial=1.0))


def test_every_family_and_every_link_of_its_mean_is_here():
    links = sum(len(entries()[n].parameters[0].links) for n in names() if n != "multinomial")
    assert len(CASES) >= links >= 60
    assert rf.families.names()


def core_of(formula, data, **options):
    call = make_call(formula, method="ml", **options)
    design = laplace.absorbed(build_call(call, data)[1])
    return laplace.make_core(design, call.task(design))


@pytest.mark.parametrize("link", entries()["binomial"].parameters[0].links)
def test_trials_are_rows_of_their_own(link):
    """A proportion of n trials is n rows of 0 and 1 but for the number of orders; gradients are the same."""
    rng = np.random.default_rng(4)
    n, g, x = rng.integers(1, 7, 40), np.arange(40) % 8, rng.uniform(-1, 1, 40)
    hits = rng.binomial(n, 0.5)
    one = np.concatenate([np.r_[np.ones(h), np.zeros(m - h)] for h, m in zip(hits, n, strict=True)])
    rows = {"y": one, "x": np.repeat(x, n), "g": np.repeat(g, n)}
    whole = core_of(
        "y ~ x + (1 | g)", {"y": hits / n, "x": x, "g": g, "n": n}, family="binomial", link=link, trials="n"
    )
    split = core_of("y ~ x + (1 | g)", rows, family="binomial", link=link)
    beta = [float(link_of(link).forward(0.45)), 0.05]
    a, b = (core.evaluate(beta, [0.05]) for core in (whole, split))
    orders = sum(math.log(math.comb(m, h)) for m, h in zip(n.tolist(), hits.tolist(), strict=True))
    # Sums of 40 rows and of their 140 trials.
    assert a["loglik"] == pytest.approx(b["loglik"] + orders, abs=1e-8)
    assert_allclose(a["gradient"], b["gradient"], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("structure", [s for s in laplace.STRUCTURES if s not in ("rr", "propto", "equalto")])
def test_one_node_is_laplaces_approximation_under_every_structure(structure):
    rng = np.random.default_rng(6)
    g, t = np.repeat(np.arange(12), 3), np.tile(np.arange(3), 12)
    time = "numFactor(t)" if structure in ("ou", "exp", "gau", "mat") else "factor(t)"
    data = {"y": rng.poisson(2.0, 36).astype(float), "g": g, "t": t.astype(float)}
    core = core_of(f"y ~ 1 + {structure}(0 + {time} | g)", data, family="poisson")
    theta = [0.4 - 0.07 * i for i in range(core.ntheta)]
    core.adopt([0.6], theta)
    exact = core.evaluate([0.6], theta)
    found = core.with_nodes(1)
    # The same modes, found once: sums in another order.
    assert found["loglik"] == pytest.approx(exact["loglik"], abs=1e-8)
    assert_allclose(found["gradient"], exact["gradient"], rtol=1e-6, atol=1e-7)
