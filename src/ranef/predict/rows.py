"""Rows to predict for: the fitted ones or new ones, in one form; O(n) numbers about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ranef import _core
from ranef.engines.estimate import Array
from ranef.engines.linear import sources, term_sources
from ranef.errors import OptionError
from ranef.frame.design import matrix
from ranef.model import design_of

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
        Sum of offsets; precision weights.
    unseen : dict of int -> Unseen
        For each term that has any, the rows whose level was not among the fitted ones.
    missing : (n,) array of bool, or None
        Rows with a missing value among fixed effects, slopes or offset.
    """

    n: int
    fixed: tuple[Block, ...]
    terms: Mapping[int, GroupTerm]
    offset: Array | None = None
    weights: Array | None = None
    unseen: Mapping[int, Unseen] = field(default_factory=dict)
    missing: NDArray[np.bool_] | None = None


def fitted_design(m: Fit, what: str) -> Rows:
    """Return the fitted rows, as `Rows`."""
    d = design_of(m, what)
    return Rows(d.n, d.fixed, dict(enumerate(d.terms)), d.offset, d.weights)


def new_design(m: Fit, newdata: Any, groups: Any) -> Rows:
    """Return new rows, as `Rows`; only the grouping factors in `groups` need columns."""
    d = m.spec.new(newdata, groups=groups)
    terms = dict(zip(d.which, d.terms, strict=True))
    unseen = {t: u for t, u in zip(d.which, d.unseen, strict=True) if u is not None}
    return Rows(d.n, d.fixed, terms, d.offset, None, unseen, d.missing)


def linear_predictor(m: Fit, rows: Rows, which: Sequence[bool]) -> Array:
    """X beta + offset + Z b of the terms in `which`; dropped columns count 0, so do levels with code -1."""
    on = [t for t, flag in enumerate(which) if flag]
    terms, modes = [rows.terms[t] for t in on], [m.estimate.modes[t] for t in on]
    return np.asarray(
        _core.linear_predictor(sources(rows.fixed), m.estimate.beta, term_sources(terms), modes, rows.offset, rows.n)
    )


def fitted_rows(m: Fit) -> Array:
    """Fitted values of the rows used."""
    rows = fitted_design(m, "fitted")
    return linear_predictor(m, rows, [True] * len(rows.terms))


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
    out = np.full(m.layout.n_input, np.nan)
    out[rows] = values
    return out


def prior_variance(term: GroupTerm, covariance: Array, n: int) -> Array:
    """Z' Sigma z of each row: the variance of the effect of a level that was not seen."""
    z = matrix(term.blocks, n)
    return np.einsum("ij,jk,ik->i", z, covariance, z)
