"""Every family under every link of every predictor: small data, and a core of the engine near where a search begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ranef import _core
from ranef.call import build_call, make_call
from ranef.engines import laplace
from ranef.families import Data, law_of, names, read_family
from ranef.families.distribution import zero_links
from ranef.families.table import entries
from ranef.frame.design import matrix

GROUPS, SIZE = 8, 6
N = GROUPS * SIZE
#: Predictors of the dispersion and the shapes under the links of the table; those not named are 1.
TRUTH = {
    "student_t": [np.log(0.8), np.log(5.0)],
    "skew_normal": [0.0, 2.0],
    "tweedie": [0.2, 0.0],
    "nbinom12": [0.0, 1.0],
    "ordered_beta": [1.5, -1.5, 1.5],
    "zero_one_inflated_beta": [1.5, -1.0, 0.0],
}
#: Links under which a parameter leaves its range where the predictor moves far; "log" does for proportions.
BOUNDED = ("identity", "inverse", "1/mu^2", "sqrt")
INTERCEPT, SLOPES, JOINT = "(1 | g)", "(x | g)", "(1 |p| g)"
CENSORED = "cens(y, status, end)"


@dataclass(frozen=True)
class Case:
    """A family with links of its parameters, and random effects in some of its predictors.

    `effects` are predictor -> terms, "mean" for that of the formula; `more` are predictors with a slope of x alone.
    """

    family: str
    links: dict[str, str] = field(default_factory=dict)
    effects: dict[str, str] = field(default_factory=lambda: {"mean": INTERCEPT})
    more: tuple[str, ...] = ()
    response: str = "y"
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        said = [self.family, *(f"{p}_{link}" for p, link in self.links.items()), *self.more]
        own = [f"{p}:{term}".replace(" ", "") for p, term in self.effects.items()]
        return "-".join([*said, *own, *(() if self.response == "y" else ("cens",)), *self.options])

    def call(self, effects: bool = True) -> tuple[str, dict[str, Any]]:
        """Return the formula and the arguments of `fit`, with the random effects or without them."""
        terms = {p: f" + {t}" if effects else "" for p, t in self.effects.items()}
        others = {p: f"~ x{terms.get(p, '')}" for p in (*self.more, *terms) if p != "mean"}
        options = {"family": self.family, "link": self.links or None, **others, **self.options}
        if self.family in ("binomial", "betabinomial") and "randomised_response" not in options:
            options["trials"] = "n"
        if self.family == "gaussian":
            options["frequency_weights"] = np.ones(N)  # this engine, not the linear one
        return f"{self.response} ~ x{terms.get('mean', '')}", options


# ---- which cases there are -------------------------------------------------------------------------------------------


def of_means() -> Iterator[Case]:
    """Yield a random intercept of the mean: every link, extra zeros, hurdles."""
    for name in names():
        entry = entries()[name]
        for link in entry.parameters[0].links:
            yield Case(name, {"mean": link}, {"mean": JOINT if entry.nominal else INTERCEPT})
        for link in entry.parameters[0].links if entry.inflatable else ():
            yield Case(name, {"mean": link}, more=("zero_inflation",))
        for link in entry.parameters[0].links if entry.truncated else ():
            yield Case(f"truncated_{name}", {"mean": link})
            yield Case(f"truncated_{name}", {"mean": link}, more=("zero_inflation",))


def of_other_predictors() -> Iterator[Case]:
    """Yield a random intercept of any predictor but the mean: every link of it, extra zeros, hurdles."""
    for name in names():
        entry = entries()[name]
        for parameter in entry.parameters[1:]:
            for link in parameter.links:
                yield Case(name, {parameter.name: link}, {parameter.name: INTERCEPT})
        for kind in (("", "truncated_") if entry.truncated else ("",)) if entry.inflatable else ():
            for link in entry.parameters[0].links:
                yield Case(f"{kind}{name}", {"mean": link}, {"zero_inflation": INTERCEPT})
            for link in zero_links():
                yield Case(f"{kind}{name}", {"zero_inflation": link}, {"zero_inflation": INTERCEPT})


def of_several_effects() -> Iterator[Case]:
    """Yield slopes of the mean, and effects of two predictors that correlate; the first other predictor stands here."""
    for name in names():
        entry = entries()[name]
        if entry.nominal:
            continue
        yield Case(name, effects={"mean": SLOPES})
        others = [p.name for p in entry.parameters[1:2]] + ["zero_inflation"] * entry.inflatable
        for other in others:
            yield Case(name, effects={"mean": JOINT, other: JOINT})


def of_modifiers() -> Iterator[Case]:
    """Yield censored responses, and answers that are randomised."""
    for name in names():
        entry = entries()[name]
        if entry.support in ("real", "positive", "count", "nonnegative", "unit"):
            yield Case(name, response=CENSORED)
            for parameter in entry.parameters[1:2]:
                yield Case(name, effects={parameter.name: INTERCEPT}, response=CENSORED)
    design = {"design": "forced", "p1": 0.8, "p2": 1.0}
    for link in entries()["binomial"].parameters[0].links:
        yield Case("binomial", {"mean": link}, options={"randomised_response": design})


# ---- data ------------------------------------------------------------------------------------------------------------


def response(name: str, rng: np.random.Generator, x: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, Any]:
    """Return responses drawn from the family under its usual links, with trials if it has any."""
    family = read_family(name)
    n = len(x)
    if family.entry.nominal:
        return rng.integers(0, 3, n).astype(float), None
    others = [-1.0, 0.5] if family.entry.ordinal else TRUTH.get(name, [1.0] * (len(family.parameters) - 1))
    effect = rng.normal(scale=0.3, size=g.max() + 1)[g]
    eta = np.column_stack([0.4 + 0.2 * x + effect, *(np.full(n, v) for v in others)])
    trials = rng.integers(1, 9, n).astype(float) if family.entry.support == "binomial" else None
    return law_of(family).draw(eta, Data(np.zeros(n), trials), rng), trials


def rows(case: Case) -> dict[str, np.ndarray]:
    """Return the data of a case."""
    rng = np.random.default_rng(11)
    g, x = np.repeat(np.arange(GROUPS), SIZE), rng.uniform(-1, 1, N)
    y, trials = response(case.family.removeprefix("truncated_"), rng, x, g)
    if "randomised_response" in case.options:
        y = (y > 0.5).astype(float)
    if case.family.startswith("truncated_") and "zero_inflation" not in case.more + tuple(case.effects):
        y = np.maximum(y, 1.0)
    status = np.array([-1.0, 0.0, 1.0, 2.0, 0.0])[np.arange(N) % 5]
    end = y + 0.3 * (1 - y) if case.family == "beta" else y + 1.0
    return {"y": y, "x": x, "g": g, "status": status, "end": end, **({} if trials is None else {"n": trials})}


# ---- cores -----------------------------------------------------------------------------------------------------------


def core_of(formula: str, data: Any, **options: Any) -> tuple[Any, Any, Any]:
    """Return the core, the design and the task of a model, as `fit` makes them."""
    call = make_call(formula, method="ml", **options)
    design = laplace.absorbed(build_call(call, data)[1])
    task = call.task(design)
    return laplace.make_core(design, task), design, task


@dataclass(frozen=True)
class Ready:
    """A model's core, and a point (beta, theta)."""

    core: Any
    plain: Any
    family: Any
    design: Any
    beta: np.ndarray
    theta: np.ndarray

    @property
    def wide(self) -> bool:
        """Whether the effects may be as large as they like."""
        return bool(self.theta[0] > 0.1)

    def at(self, beta: Any, theta: Any) -> dict[str, Any]:
        """Evaluate the criterion."""
        return self.core.evaluate(list(beta), list(theta))

    def density(self, eta: np.ndarray) -> np.ndarray:
        """Return the log density of the rows at predictors (..., n, K), (..., n)."""
        times = eta.size // (N * eta.shape[-1])
        given = laplace.response_data(self.design)
        data = {
            k: tuple(np.tile(a, times) for a in v) if isinstance(v, tuple) else np.tile(np.asarray(v), times)
            for k, v in given.items()
        }
        flat = np.ascontiguousarray(eta.reshape(-1, eta.shape[-1]))
        return np.asarray(_core.family_eval(self.family.spec, data, flat, 0))[:, 0].reshape(eta.shape[:-1])

    def predictors(self) -> np.ndarray:
        """Return the predictors without random effects."""
        self.core.adopt(self.beta.tolist(), [0.0] * len(self.theta))
        return np.array(self.core.eta())

    def loadings(self) -> np.ndarray:
        """Return what one spherical effect adds to the predictors of its group's rows, (effects, n, K)."""
        out, theta = [], list(self.theta)
        k = self.predictors().shape[1]
        for term in self.design.terms:
            z = matrix(term.blocks, N)
            q = z.shape[1]
            factor = np.zeros((q, q))
            for j in range(q):
                for i in range(j, q):
                    factor[i, j] = theta.pop(0)
            where = component_of_columns(term, q)
            for j in range(q):
                own = np.zeros((N, k))
                for i in range(q):
                    own[:, where[i]] += z[:, i] * factor[i, j]
                out.append(own)
        return np.array(out)


def component_of_columns(term: Any, q: int) -> list[int]:
    """Return the predictor of every column of a term."""
    found = list(term.components)
    return found if len(found) == q else found * (q // len(found))


def ready(case: Case) -> Ready:
    """Return the case at a point: start values, small slopes, effects that keep parameters in their range."""
    data = rows(case)
    made = []
    for effects in (True, False):
        formula, options = case.call(effects)
        made.append(core_of(formula, data, **options))
    (core, design, task), (plain, *_) = made
    beta = start(design, task)
    return Ready(core, plain, task.family, design, beta, theta_of(design, task, beta))


def start(design: Any, task: Any) -> np.ndarray:
    """Return coefficients: the family's start values, and a small slope of each predictor."""
    if task.family.entry.ordinal:
        beta = laplace.threshold_start(design, task.family)
        beta[0] = 0.1  # there is no intercept beside the thresholds
        return beta
    begin = _core.family_start(task.family.spec, laplace.response_data(design))
    parts = [np.r_[begin[k], np.full(len(c.names) - 1, 0.02)] for k, c in enumerate(design.components)]
    return np.concatenate(parts)


def theta_of(design: Any, task: Any, beta: np.ndarray) -> np.ndarray:
    """Return Cholesky factors with a correlation, in the units of the predictors."""
    out: list[float] = []
    for term in design.terms:
        q = matrix(term.blocks, N).shape[1]
        share = 1.0 if q == 1 else 0.5  # two effects: smaller, for fewer nodes
        sizes = [share * spread(design, task.family, beta, c) for c in component_of_columns(term, q)]
        out += [sizes[i] * (1.0 if i == j else 0.4) for j in range(q) for i in range(j, q)]
    return np.array(out)


def spread(design: Any, family: Any, beta: np.ndarray, component: int) -> float:
    """Return a standard deviation that keeps a parameter in its range within eight of it."""
    if component >= len(family.entry.parameters) or family.entry.ordinal:
        return 0.5
    first = sum(len(c.names) for c in design.components[:component])
    row, link = family.entry.parameters[component], family.links[component]
    if row.range == "real" and link == "identity":
        return 0.5
    inside = link in BOUNDED or (link == "log" and row.range == "(0, 1)")
    return 0.03 * abs(float(beta[first])) if inside else 0.5
