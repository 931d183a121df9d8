"""Log-likelihood contributions of the independent units of a fit: groups that share no random effect.

A unit is a connected component of the graph of rows and levels; without random effects it is a row. Linear models:
with V_u = sigma^2 (W^-1 + Z Lambda Lambda' Z'), r' V_u^-1 r is the sum of w r (r - Z b) / sigma^2 over its rows and
log|V_u| follows from its q_u x q_u factor. Others: the (Laplace) likelihood of the unit's rows at the estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ranef.engines import laplace
from ranef.engines.estimate import Array, Estimate
from ranef.engines.thresholds import NOMINAL, thresholds, values_of
from ranef.errors import NotAvailableError
from ranef.families.custom import core_spec
from ranef.families.law import log_orders
from ranef.frame.design import Block, Component, Design, GroupTerm
from ranef.inference.crossproducts import cross, one_grouping
from ranef.inference.outcomes import of_outcomes
from ranef.model import design_of
from ranef.predict.rows import fitted_design, law, linear_predictor, predictors

if TYPE_CHECKING:
    from ranef.model import Fit

Integers = NDArray[np.int64]
CLOSE = 1e-6  # of the log-likelihood: how far the sum of the contributions may be from it
LARGEST = 2_000  # random effects of one unit


def units(fits: Sequence[Fit]) -> Integers:
    """Return the independent unit of each row, 0 .. U-1, (n,): units that share no level in any of the fits."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    terms = [t for m in fits for t in design_of(m, "units").terms]
    n = fits[0].nobs
    if not terms:
        return np.arange(n)
    ends = np.cumsum([n, *(len(t.levels) for t in terms)])
    rows = np.concatenate([np.arange(n)] * len(terms))
    nodes = np.concatenate([t.codes.astype(np.int64) + start for t, start in zip(terms, ends, strict=False)])
    graph = coo_array((np.ones(len(rows), dtype=bool), (rows, nodes)), shape=(ends[-1], ends[-1]))
    return np.unique(connected_components(graph, directed=False)[1][:n], return_inverse=True)[1]


def contributions(m: Fit, unit: Integers) -> Array:
    """Log-likelihood of each unit at the estimate, (U,); their sum is the fit's log-likelihood.

    Parameters
    ----------
    m : Fit
        By maximum likelihood.
    unit : (n,) array
        Unit of each row, 0 .. U-1, as `units` numbers them.

    Raises
    ------
    NotAvailableError
        If the sum is not the log-likelihood, as for approximations that do not split by unit.
    """
    if m.task.linear:
        found = _linear(m, unit)
    elif not m.layout.terms:
        found = _by_row(m, unit)
    else:
        found = _laplace(m, unit)
    if not abs(float(found.sum()) - m.loglik) < CLOSE * max(1.0, abs(m.loglik)):
        raise NotAvailableError(
            f"the contributions of the groups sum to {found.sum():.8g}, the log-likelihood is {m.loglik:.8g}: it does "
            f"not split into groups"
        )
    return found


# ---- linear ----------------------------------------------------------------------------------------------------------


def _linear(m: Fit, unit: Integers) -> Array:
    rows, design = fitted_design(m, "contributions"), design_of(m, "contributions")
    count = int(unit.max()) + 1
    off, on = [False] * len(rows.terms), [True] * len(rows.terms)
    w = np.ones(m.nobs) if design.weights is None else np.asarray(design.weights)
    fixed = np.asarray(design.y) - linear_predictor(m, rows, off)
    rest = np.asarray(design.y) - linear_predictor(m, rows, on)
    per_row = np.log(2 * np.pi * m.sigma**2 / w) + w * fixed * rest / m.sigma**2
    out = np.asarray(-0.5 * np.bincount(unit, per_row, count), dtype=np.float64)
    return np.asarray(out - 0.5 * logdets(m, design, unit, count)) if design.terms else out


def logdets(m: Fit, design: Design, unit: Integers, count: int) -> Array:
    """log|I + Lambda' Z'WZ Lambda| of each unit."""
    factors = m.estimate.factors if isinstance(m.estimate, Estimate) else ()
    if one_grouping(design.terms):
        z = cross(design.terms, design.weights, design.n)
        home = np.empty(len(z.gram), dtype=np.int64)
        home[design.terms[0].codes] = unit
        return np.asarray(np.bincount(home, _logdet(z.gram, z.at, factors), count), dtype=np.float64)
    out = np.empty(count)
    for u, rows in enumerate(_split(unit, count)):
        part = [subset(t, rows) for t in design.terms]
        size = sum(len(t.levels) * len(t.names) for t in part)
        if size > LARGEST:
            raise NotAvailableError(f"an independent unit has {size} random effects: more than fit in a dense matrix")
        z = cross(part, None if design.weights is None else design.weights[rows], len(rows))
        out[u] = _logdet(z.gram, z.at, factors)[0]
    return out


def _logdet(gram: Array, at: Sequence[Integers], factors: Sequence[Array]) -> Array:
    root = np.zeros(gram.shape[1:])
    for places, factor in zip(at, factors, strict=True):
        for level in places.T:
            root[np.ix_(level, level)] = factor
    return np.linalg.slogdet(np.eye(len(root)) + root.T @ gram @ root)[1]


def _split(unit: Integers, count: int) -> list[Integers]:
    order = np.argsort(unit, kind="stable")
    return np.split(order, np.cumsum(np.bincount(unit, minlength=count))[:-1])


# ---- others ----------------------------------------------------------------------------------------------------------


def _by_row(m: Fit, unit: Integers) -> Array:
    """Without random effects rows are independent: the log density of each."""
    design, rows = design_of(m, "contributions"), fitted_design(m, "contributions")
    if design.censor is not None:
        raise NotAvailableError("contributions of censored responses are not available")
    density = law(m).density(predictors(m, rows, []), rows.data)
    weighted = density if design.frequencies is None else density * design.frequencies
    return np.asarray(np.bincount(unit, weighted, int(unit.max()) + 1), dtype=np.float64)


def _laplace(m: Fit, unit: Integers) -> Array:
    """Evaluate the likelihood of the rows of each unit, their fixed part held as an offset."""
    if m.distribution.counts:
        return _of_counts(m, unit)
    design = laplace.absorbed(design_of(m, "contributions"))
    parts = held(m, design)
    return np.array([_one(m, design, parts, rows) for rows in _split(unit, int(unit.max()) + 1)])


def _of_counts(m: Fit, unit: Integers) -> Array:
    """Evaluate that of their outcomes, and the numbers of their orders."""
    design, one = design_of(m, "contributions"), of_outcomes(m)
    orders = log_orders(np.asarray(design.y))
    orders = orders if design.frequencies is None else orders * design.frequencies
    out = np.bincount(unit, orders, int(unit.max()) + 1)
    told, own = np.unique(unit[design_of(one, "contributions").rows], return_inverse=True)
    out[told] += _laplace(one, own)  # a unit without outcomes adds nothing
    return np.asarray(out, dtype=np.float64)


def held(m: Fit, design: Design) -> list[Array]:
    """Return X beta + offset of every linear predictor, an ordinal family's thresholds included."""
    rows = fitted_design(m, "contributions")
    off = [False] * len(rows.terms)
    found = [linear_predictor(m, rows, off, k) for k in range(len(rows.components))]
    if not m.distribution.entry.ordinal:
        return found
    alpha = m.estimate.beta[m.layout.component("threshold").at]
    return found + [values_of(part, alpha, design.n) for part in thresholds(design, m.distribution)]


def _one(m: Fit, design: Design, parts: Sequence[Array], rows: Integers) -> float:
    part = cut(design, parts, rows)
    core = _core(m, part, [p[rows] for p in parts])
    core.adopt([], list(m.estimate.theta), m.task.quadrature, "ml")
    return float(core.evaluate([], list(m.estimate.theta))["loglik"])


def _core(m: Fit, design: Design, offsets: Sequence[Array]) -> Any:
    from ranef import _core as binding

    given = {
        "trials": design.trials, "censor": design.censor, "upper": design.upper, "randomised": design.randomised,
        "bounds": design.bounds,
    }  # fmt: skip
    y, family = np.ascontiguousarray(design.y), m.distribution
    data = {"y": y, **{k: v for k, v in given.items() if v is not None}}
    spec = family.spec if family.custom is None else core_spec(family, y)
    parts = [([], np.ascontiguousarray(offset)) for offset in offsets]
    terms = laplace.term_sources(design.terms)
    return binding.Glmm(spec, parts, 0, terms, data, design.frequencies, 1)


def cut(design: Design, parts: Sequence[Array], rows: Integers) -> Design:
    """Return some rows of a design without fixed columns, with the levels that occur in them."""
    names = ("y", "weights", "trials", "frequencies", "censor", "upper", "bounds")
    arrays = {name: _taken(getattr(design, name), rows) for name in names}
    named = (c for c in design.others if c.name != NOMINAL)
    others = tuple(Component(c.name, (), parts[k + 1][rows]) for k, c in enumerate(named))
    chances = None if design.randomised is None else (design.randomised[0][rows], design.randomised[1][rows])
    terms = tuple(subset(t, rows) for t in design.terms)
    return replace(
        design, n=len(rows), n_input=len(rows), rows=None, fixed=(), offset=parts[0][rows], terms=terms, others=others,
        randomised=chances, **arrays,
    )  # fmt: skip


def _taken(values: Any, rows: Integers) -> Any:
    return None if values is None else np.ascontiguousarray(np.asarray(values)[rows])


def subset(term: GroupTerm, rows: Integers) -> GroupTerm:
    """Return some rows of a term, its levels those that occur."""
    kept, codes = np.unique(term.codes[rows], return_inverse=True)
    blocks = tuple(Block(b.names, _taken(b.codes, rows), b.contrast, _taken(b.x, rows)) for b in term.blocks)
    return replace(term, codes=codes.astype(np.int32), levels=term.levels.take(kept), blocks=blocks)
