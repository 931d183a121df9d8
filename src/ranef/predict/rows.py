"""Rows to predict for: the fitted ones or new ones, in one form; O(n) numbers about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ranef import _core
from ranef.engines.estimate import Array, LaplaceEstimate
from ranef.engines.laplace import absorbed
from ranef.engines.linear import sources, term_sources
from ranef.engines.pql import dispersion_predictor
from ranef.engines.thresholds import NOMINAL, threshold_matrix
from ranef.errors import DataError, OptionError, UnknownColumnError
from ranef.families import Data, Law, law_of
from ranef.frame.design import Component, matrix, part_of
from ranef.frame.evaluate import bounds_of, errors_of
from ranef.frame.response import legal_bounds, no_room
from ranef.frame.table import read_table, rows_of
from ranef.frame.values import side_column
from ranef.model import design_of
from ranef.predict.kriging import placed

if TYPE_CHECKING:
    from ranef.frame.design import Block, GroupTerm, Unseen
    from ranef.model import Fit


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows to predict for.

    Attributes
    ----------
    n : int
        How many.
    fixed : tuple of Block
        Columns of X.
    terms : dict of int -> GroupTerm
        Random-effects terms at hand, by their position in the fit; code -1: level new or missing.
    offset, weights : (n,) array or None
        Sum of offsets of the mean; precision weights.
    unseen : dict of int -> Unseen
        For each term that has any, the rows whose level was not among the fitted ones.
    missing : (n,) array of bool, or None
        Rows with a missing value among fixed effects, slopes or offset.
    others : tuple of Component
        The linear predictors beside the mean's.
    y, trials : (n,) array or None
        Response and trials, where they are known.
    randomised : pair of (n,) arrays or None
        c and d of randomised responses.
    bounds : (n, 2) array or None
        Bounds of a truncated response, where they are known.
    left : dict of int -> (n,) array
        For terms at new positions, the variance that the effects at the fitted positions leave.
    """

    n: int
    fixed: tuple[Block, ...]
    terms: Mapping[int, GroupTerm]
    offset: Array | None = None
    weights: Array | None = None
    unseen: Mapping[int, Unseen] = field(default_factory=dict)
    missing: NDArray[np.bool_] | None = None
    others: tuple[Component, ...] = ()
    y: Array | None = None
    trials: Array | None = None
    randomised: tuple[Array, Array] | None = None
    bounds: Array | None = None
    left: Mapping[int, Array] = field(default_factory=dict)

    @property
    def components(self) -> tuple[Component, ...]:
        """Every linear predictor, the mean's first."""
        return (Component("mean", self.fixed, self.offset), *(c for c in self.others if c.name != NOMINAL))

    @property
    def nominal(self) -> Array:
        """Columns whose effects differ from threshold to threshold, (n, columns)."""
        return matrix(next((c.fixed for c in self.others if c.name == NOMINAL), ()), self.n)

    @property
    def data(self) -> Data:
        """What laws are told about the rows."""
        return Data(np.zeros(self.n) if self.y is None else self.y, self.trials, self.randomised, self.bounds)


def fitted_design(m: Fit, what: str) -> Rows:
    """Return the fitted rows, as `Rows`."""
    d = design_of(m, what)
    d = d if m.task.linear else absorbed(d)
    return Rows(
        d.n, d.fixed, dict(enumerate(d.terms)), d.offset, d.weights,
        others=d.others, y=d.y, trials=d.trials, randomised=d.randomised, bounds=d.bounds,
    )  # fmt: skip


def new_design(m: Fit, newdata: Any, groups: Any, parts: Any = None) -> Rows:
    """Return new rows, as `Rows`; only the grouping factors in `groups` and the components in `parts` need columns."""
    d = m.spec.new(newdata, groups=groups, parts=parts)
    found = {t: placed(m, t, term) for t, term in zip(d.which, d.terms, strict=True)}
    known = [t.relation for t in m.design.terms] if m.design is not None else m.digest.relations if m.digest else ()
    terms = {t: replace(term, relation=known[t]) if known else term for t, (term, _) in found.items()}
    left = {t: rest for t, (_, rest) in found.items() if rest is not None}
    unseen = {t: u for t, u in zip(d.which, d.unseen, strict=True) if u is not None}
    others, weights = d.others, new_weights(m, newdata)
    if weights is not None and others:  # as those of the fitted rows, see `absorbed`
        offset = -0.5 * np.log(weights) + (0.0 if others[0].offset is None else others[0].offset)
        others = (replace(others[0], offset=offset), *others[1:])
    bounds = new_bounds(m, newdata)
    return Rows(d.n, d.fixed, terms, d.offset, weights, unseen, d.missing, others, left=left, bounds=bounds)


def new_weights(m: Fit, newdata: Any) -> Array | None:
    """Return the precision weights of new rows, 1 / se^2 where errors are known; None where they have no such column.

    Raises
    ------
    DataError
        If weights are not positive; missing ones are NaN.
    """
    sd, name = known_errors(m, newdata), m.call.precision_weights
    if sd is not None or not isinstance(name, str):
        return None if sd is None else sd**-2.0
    try:
        column = side_column("precision_weights", name, read_table(newdata))
    except UnknownColumnError:
        return None
    weights = np.asarray(None if column is None else column.x, np.float64)
    if (bad := weights <= 0).any():
        raise DataError(f"precision_weights: {name!r} must be positive; it is not in {rows_of(bad)} of the new data")
    return weights


def known_errors(m: Fit, newdata: Any) -> Array | None:
    """Return the standard errors of new rows; None where the model or the rows have none."""
    if not m.formula.measured or m.formula.lhs is None:
        return None
    return errors_of(m.formula.lhs, read_table(newdata), m.spec.env)


def new_bounds(m: Fit, newdata: Any) -> Array | None:
    """Return the bounds of a truncated response in new rows; None where the model or the rows have none.

    Raises
    ------
    DataError
        If nothing lies between them; missing ones are NaN.
    """
    if not m.formula.truncated or m.formula.lhs is None:
        return None
    found = bounds_of(m.formula.lhs, read_table(newdata), m.spec.env)
    if found is None:
        return None
    support = m.distribution.entry.support
    bounds = legal_bounds(found, support)
    if (bad := (found[:, 0] >= found[:, 1]) | no_room(bounds, support)).any():
        raise DataError(
            f"predict: nothing that {m.formula.response} can be lies between the bounds of new {rows_of(bad)}"
        )
    return bounds


def linear_predictor(m: Fit, rows: Rows, which: Sequence[bool], component: int = 0) -> Array:
    """X beta + offset + Z b of the terms in `which`; dropped columns count 0, so do levels with code -1."""
    on = [t for t in terms_of(m, component) if which[t]]
    parts = [part_of(rows.terms[t], component) for t in on]
    terms = [part for part, _ in parts]
    modes = [np.ascontiguousarray(m.estimate.modes[t][:, at]) for t, (_, at) in zip(on, parts, strict=True)]
    part = rows.components[component]
    beta = m.estimate.beta if len(m.layout.components) == 1 else m.estimate.beta[m.layout.components[component].at]
    return np.asarray(
        _core.linear_predictor(
            sources(part.fixed), np.ascontiguousarray(beta), term_sources(terms), modes, part.offset, rows.n
        )
    )


def coefficient_spread(m: Fit) -> Array:
    """Return the covariance of the coefficients, 0 for those that have none.

    Coefficients that ran to the end of a range have theirs: combinations of them are known where they alone are not.
    Those of the mean of a normal response are independent of the others.
    """
    e = m.estimate
    if not isinstance(e, LaplaceEstimate):
        return np.nan_to_num(e.vcov)
    found = np.nan_to_num(e.joint()[: len(e.beta), : len(e.beta)])
    if m.distribution.is_gaussian_identity:
        from ranef.inference.ddf import default_method

        at = m.layout.components[0].at
        mean = np.asarray(default_method(m).vcov(m))[at, at]
        found[at, :] = found[:, at] = 0.0
        found[at, at] = np.nan_to_num(mean)
    return found


def terms_of(m: Fit, component: int) -> list[int]:
    """Return the positions of the random-effects terms of a component."""
    name = m.layout.components[component].name
    return [t for t, info in enumerate(m.layout.terms) if name in info.components]


def predictors(m: Fit, rows: Rows, which: Sequence[bool]) -> Array:
    """Return every linear predictor, (n, K) column by column; an ordinal family's thresholds last."""
    columns = [linear_predictor(m, rows, which, k) for k in range(len(rows.components))]
    if m.task.linear:
        columns.append(residual_predictor(m, rows))
    elif m.method == "pql" and len(m.distribution.parameters) > 1:
        columns.append(np.full(rows.n, dispersion_predictor(m.distribution, m.sigma)))
    elif m.distribution.entry.ordinal:
        columns.append(thresholds(m, rows))
    return np.column_stack(columns)


def residual_predictor(m: Fit, rows: Rows) -> Array:
    """Return log(sigma / sqrt(w)), which a linear model has in place of a dispersion component."""
    shift = 0.0 if rows.weights is None else 0.5 * np.log(rows.weights)
    return np.full(rows.n, np.log(m.sigma)) - shift


def law(m: Fit) -> Law:
    """Return the law of a fit's responses."""
    return law_of(m.distribution)


def law_before_bounds(m: Fit) -> Law:
    """Return the law of a fit's responses, those included that truncation to bounds left out of the data."""
    return law_of(replace(m.distribution, bounded=False))


def thresholds(m: Fit, rows: Rows) -> Array:
    """Return the thresholds of an ordinal fit, (n, categories - 1)."""
    family = m.distribution
    arrangement = threshold_matrix(family.categories, family.threshold)
    beta = np.nan_to_num(m.estimate.beta[m.layout.component("threshold").at])
    effects = beta.reshape(-1, arrangement.shape[1]) @ arrangement.T  # of the constant, then of every nominal column
    return effects[0] + rows.nominal @ effects[1:]


def fitted_predictors(m: Fit, what: str = "fitted") -> tuple[Rows, Array]:
    """Return the rows used and their linear predictors, random effects included."""
    rows = fitted_design(m, what)
    return rows, predictors(m, rows, [True] * len(rows.terms))


def fitted_rows(m: Fit) -> Array:
    """Fitted values of the rows used: expected responses given the conditional modes."""
    if m.task.linear:
        rows = fitted_design(m, "fitted")
        return linear_predictor(m, rows, [True] * len(rows.terms))
    rows, eta = fitted_predictors(m)
    return law(m).mean(eta, replace(rows.data, randomised=None))


def aligned(m: Fit, values: Array, align: str) -> Array:
    """Values of the rows used, or of all rows given with NaN where a row was dropped.

    Raises
    ------
    OptionError
        If `align` is neither "rows" nor "input".
    """
    if align not in ("rows", "input"):
        raise OptionError(f"align={align!r} is unknown; use 'rows' (rows used) or 'input' (rows given)")
    rows = None if m.design is None else m.design.rows
    if align == "rows" or rows is None:
        return values
    out = np.full((m.layout.n_input, *values.shape[1:]), np.nan)
    out[rows] = values
    return out


def prior_variance(term: GroupTerm, covariance: Array, n: int, component: int = 0) -> Array:
    """K_ll z' Sigma z of each row, the variance of the effect on one component before the data are seen.

    K_ll is 1 but for levels with a known relationship, and 1 for levels that the fit does not know.
    """
    part, at = part_of(term, component)
    z = matrix(part.blocks, n)
    return scale_of(term) * np.einsum("ij,jk,ik->i", z, covariance[np.ix_(at, at)], z)


def scale_of(term: GroupTerm) -> Array | float:
    """Return K_ll of the level of each row."""
    if term.relation is None:
        return 1.0
    codes = np.asarray(term.codes)
    return np.where(codes < 0, 1.0, term.relation.variances()[np.maximum(codes, 0)])


def generator(seed: Any, what: str) -> np.random.Generator:
    """Return what draws random numbers: a generator as given, or one from a seed.

    Raises
    ------
    OptionError
        If it is neither.
    """
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError):
        text = f"{what}: seed={seed!r} must be a whole number that is not negative, or a numpy Generator"
        raise OptionError(text) from None
