"""Intraclass correlations: the share of the variance that lies between groups."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.criteria.shares import check_kind, checked, uncertain
from ranef.criteria.variances import Variances, is_by_row, residual_by_row, variances
from ranef.engines.estimate import Array
from ranef.errors import DataError, NotAvailableError, OptionError
from ranef.frame.table import collected, read_table, rows_of
from ranef.inference.noted import NotedTable
from ranef.model import check_fit, design_of
from ranef.predict.predict import with_blank_groups
from ranef.predict.rows import new_design, prior_variance, terms_of

if TYPE_CHECKING:
    from ranef.model import Fit


def icc(
    m: Fit,
    kind: str = "adjusted",
    by_group: bool = False,
    method: str = "auto",
    at: Any = None,
    *,
    conf_int: str | bool | None = None,
    conf_level: float = 0.95,
    n: int = 1000,
    seed: int | None = None,
) -> Any:
    """Return the intraclass correlation of a fit, or of each of its grouping factors.

    Parameters
    ----------
    m : Fit
        With its rows and random effects of the mean.
    kind : "adjusted" | "conditional"
        r / (r + e), or r / (f + r + e) with the variance of the fixed effects in it too (f, r, e those of fixed
        effects, random effects, residuals). With random slopes r depends on their covariates: here it is the mean of
        z' Sigma z over the rows (Johnson 2014); `at` has it at given values.
    by_group : bool
        Return a table `group, variance, icc` instead; its rows sum to the whole. Of nested factors, two rows that share
        the outer level only are correlated by the outer factor's; rows that share both by the sum.
    method : str
        For the residual variance of other than gaussian models, see `ranef.criteria.variances`.
    at : data frame or dict of arrays, optional
        Values of the covariates, as new data of `predict` (no grouping factors are needed): the variance partition
        coefficient at each of these rows, z' Sigma z / (z' Sigma z + e) with the residual variance e there.
    conf_int : "wald" | "boot", optional
        Add `std_error, conf_low, conf_high` to the table (without `by_group` or `at` one of a row): by the delta method
        on the joint covariance of all parameters with intervals on the logit scale (also True), or by the parametric
        bootstrap with percentile intervals.
    conf_level : float
    n, seed : int
        Of the bootstrap: refits, and what draws them.

    Returns
    -------
    float or NotedTable
        With `at` a table: its columns, then `variance` (z' Sigma z) and `icc`; by group, a row for each.

    Raises
    ------
    OptionError, NotAvailableError, DataError

    References
    ----------
    Goldstein, Browne & Rasbash (2002), Understanding Statistics 1, 223-231; Johnson (2014), Methods in Ecology and
    Evolution 5, 944-946.

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
    >>> round(rf.icc(m), 4)
    0.7217
    >>> rf.icc(m, at={"Days": [0, 4, 9]})["icc"].round(3)
    array([0.483, 0.656, 0.847])
    """
    check_fit(m, "icc")
    if (how := checked(conf_int, "icc")) is None:
        return _found(m, kind, by_group, method, at)
    whole = at is None and not by_group
    found = _found(m, kind, by_group or whole, method, at)
    if whole:
        columns = {"variance": [variances(m, method).random], "icc": [_found(m, kind, False, method)]}
        found = replace(found, columns={name: np.array(value) for name, value in columns.items()})

    def values(fit: Fit) -> Array:
        if whole:
            return np.array([_found(fit, kind, False, method)])
        return np.asarray(_found(fit, kind, by_group, method, at).columns["icc"])

    more = uncertain(m, values, how, conf_level, n, seed)
    return replace(found, columns={**found.columns, **more.columns()}, notes=more.notes)


def _found(m: Fit, kind: str, by_group: bool, method: str, at: Any = None) -> Any:
    """Return what `icc` does, without intervals."""
    if at is not None:
        return _partition(m, at, kind, by_group, method)
    v = variances(m, method)
    if not v.parts:
        raise NotAvailableError("icc: the mean of the model has no random effects")
    total = denominator(v, kind)
    if not by_group:
        return v.random / total if total > 0 else 0.0
    groups = list(dict.fromkeys(p.group for p in v.parts if not p.by_row))
    values = np.array([v.of_group(g) for g in groups])
    columns = {"group": groups, "variance": values, "icc": values / total}
    return NotedTable(f"Intraclass correlations ({kind})", columns, (), m.layout.kind)


def denominator(v: Variances, kind: str) -> float:
    """Return the variance that an intraclass correlation is a share of."""
    check_kind(kind, "icc")
    return v.random + v.residual + (v.fixed if kind == "conditional" else 0.0)


# ---- at given values of the covariates -------------------------------------------------------------------------------


def _partition(m: Fit, at: Any, kind: str, by_group: bool, method: str) -> NotedTable:
    """Return the variance partition coefficients of some rows."""
    at = collected(at)
    columns = _columns_of(at)
    if kind != "adjusted":
        raise OptionError(f"icc: at given values the fixed effects do not vary; leave kind={kind!r} out")
    terms = terms_of(m, 0)
    if not terms:
        raise NotAvailableError("icc: the mean of the model has no random effects")
    design_of(m, "icc")
    rows = new_design(m, with_blank_groups(m, at, [False] * len(m.layout.terms)), "all")
    if rows.missing is not None and rows.missing.any():
        raise DataError(f"icc: at= misses a value in {rows_of(rows.missing)}")
    residual, own = residual_by_row(m, rows, method), dict[str, Array]()
    for t in terms:
        value = prior_variance(rows.terms[t], m.estimate.covariances[t], rows.n) + rows.left.get(t, 0.0)
        label = m.layout.terms[t].label
        if is_by_row(m, t):
            residual = residual + value
        else:
            own[label] = own.get(label, 0.0) + value
    total = residual + sum(own.values())
    parts = own if by_group else {"": np.asarray(sum(own.values()) + np.zeros(rows.n))}
    groups = [name for name in parts for _ in range(rows.n)]
    table: dict[str, Any] = {name: np.tile(values, len(parts)) for name, values in columns.items()}
    table |= {"group": groups} if by_group else {}
    found = np.concatenate(list(parts.values()))
    table |= {"variance": found, "icc": found / np.tile(total, len(parts))}
    return NotedTable("Variance partition at given values", table, (), m.layout.kind)


def _columns_of(at: Any) -> dict[str, Any]:
    """Return the columns of new data as arrays."""
    table, out = read_table(at), {}
    for name in table.names:
        column = table.column(name)
        levels = None if column.levels is None else np.array(list(column.levels))
        out[name] = np.asarray(column.x if levels is None or column.codes is None else levels[column.codes])
    return out
