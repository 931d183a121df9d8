"""Intervals for a new observation where the response is not normal: quantiles of responses drawn from the model.

A row's predictors are drawn from N(eta_hat, C), with C their joint covariance (of coefficients and conditional modes,
and of the effects of groups that are new or left out), and a response from its law given each draw. The variance
parameters are taken as known, as in the normal case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines.estimate import Array
from ranef.errors import NotAvailableError, OptionError, UnknownColumnError
from ranef.families import Data
from ranef.families.law import check_bounds
from ranef.frame.table import read_table
from ranef.frame.values import side_column
from ranef.predict.joint import before_data, components_of, covariance
from ranef.predict.rows import Rows, generator, law, predictors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ranef.frame.design import GroupTerm
    from ranef.model import Fit

DRAWS = 1_000  # either end of a 95 % interval is off by 0.5 % of coverage (standard error)
NO_IDEA = 10.0  # a standard deviation of a log or logit above this belongs to a parameter at the end of its range
CELLS = 2_000_000  # drawn at a time


def check_observation(m: Fit, kind: str) -> None:
    """Refuse intervals for observations that are not drawn from a distribution, or have no order.

    Raises
    ------
    OptionError, NotAvailableError
    """
    if kind != "response":
        raise OptionError(
            f"predict: interval='prediction' is for a new observation, type='response'; for type={kind!r} "
            f"interval='confidence'"
        )
    if m.distribution.counts:
        raise NotAvailableError("predict: counts of categories have no one interval a row; use type='probs'")
    if m.distribution.entry.nominal:
        raise NotAvailableError("predict: categories without order have no interval; use type='probs'")
    if m.method == "pql":
        raise NotAvailableError(
            "predict: quasi-likelihood says nothing of the distribution of new observations; fit by method='ml'"
        )


def observed_interval(
    m: Fit, rows: Rows, terms: Sequence[GroupTerm], which: Sequence[bool], level: float, seed: int | None
) -> tuple[Array, Array]:
    """Return the quantiles (1 - level) / 2 and (1 + level) / 2 of a new observation of each row, (n,) and (n,).

    Parameters
    ----------
    m : Fit
    rows : Rows
        With the columns of all terms.
    terms : sequence of GroupTerm
        One for each term of the fit.
    which : sequence of bool
        Terms whose conditional modes are included; the effects of others are drawn anew.
    level : float
        Coverage.
    seed : int or None
        Same seed, same draws; None is 0.
    """
    eta, root = predictors(m, rows, which), _root(m, rows, terms, which)
    rng = generator(0 if seed is None else seed, "predict")
    ends, step = np.full((2, rows.n), np.nan), max(1, CELLS // DRAWS)
    tails = [(1 - level) / 2, (1 + level) / 2]
    good = np.flatnonzero(np.isfinite(eta).all(axis=1))
    for at in (good[i : i + step] for i in range(0, len(good), step)):
        drawn = _drawn(m, eta[at], root[at], (_taken(rows.trials, at), _taken(rows.bounds, at)), rng)
        ends[:, at] = np.quantile(drawn, tails, axis=1, method="inverted_cdf")
    return ends[0], ends[1]


def _root(m: Fit, rows: Rows, terms: Sequence[GroupTerm], which: Sequence[bool]) -> Array:
    """Return R with R R' the covariance of a row's predictors, (n, K, K)."""
    spread, count = covariance(m, rows, terms, which), len(rows.components)
    for t, included in enumerate(which):
        if not included:
            spread[:, :count, :count] += before_data(m, rows, t)
            for k in components_of(m, t) if t in rows.left else ():
                spread[:, k, k] += rows.left[t]
    for k, part in enumerate(m.layout.components[1:count], 1):  # what went to the end of its range stays there
        if part.name in m.distribution.parameters and m.distribution.link_of(part.name).name != "identity":
            lost = spread[:, k, k] > NO_IDEA**2
            spread[lost, k, :] = spread[lost, :, k] = 0.0
    values, vectors = np.linalg.eigh(np.nan_to_num(spread))
    return vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]


def _taken(values: Array | None, at: Any) -> Array | None:
    return None if values is None else values[at]


def _drawn(m: Fit, eta: Array, root: Array, known: tuple[Array | None, ...], rng: np.random.Generator) -> Array:
    """Return draws of the responses of some rows, (rows, DRAWS); `known` are their trials and bounds."""
    width = root.shape[1]
    z = rng.standard_normal((len(eta), DRAWS, width))
    at = np.repeat(eta[:, None, :], DRAWS, axis=1)
    at[:, :, :width] += z @ np.swapaxes(root, 1, 2)
    lead = 1 + m.distribution.scaled
    if m.distribution.entry.name == "cumulative" and at.shape[2] > lead + 1:
        # Thresholds that are badly known may cross in a draw: there they stay as they were estimated.
        crossed = np.any(np.diff(at[:, :, lead:], axis=2) <= 0, axis=2, keepdims=True)
        at[:, :, lead:] = np.where(crossed, eta[:, None, lead:], at[:, :, lead:])
    flat = at.reshape(-1, at.shape[2])
    trials, bounds = (None if x is None else np.repeat(x, DRAWS, axis=0) for x in known)
    data = Data(np.zeros(len(flat)), trials, bounds=bounds)
    check_bounds(m.distribution, data)
    return law(m).draw(flat, data, rng).reshape(len(eta), DRAWS)


def new_trials(m: Fit, newdata: Any) -> Array | None:
    """Return the trials of new rows; None where every response is a single one.

    Raises
    ------
    NotAvailableError
        If the new rows do not tell them.
    """
    spec, lhs = m.spec, m.formula.lhs
    if m.distribution.entry.support != "binomial" or lhs is None:
        return None
    table = read_table(newdata)
    told, counted = spec.trials, "cbind" in str(lhs)
    side, known = None, not counted or set(lhs.names) <= set(table.names)
    try:
        side = side_column("trials", told, table) if told else None
    except UnknownColumnError:
        known = False
    if told == "" or not known:
        raise NotAvailableError(
            "predict: interval='prediction' is for a proportion among so many trials, and the new rows do not tell how "
            "many: add the column of trials, or the columns of the response"
        )
    if counted:
        return m.spec.new(newdata, response=True, groups="none", parts=()).trials
    return None if side is None else np.asarray(side.x, dtype=np.float64)
