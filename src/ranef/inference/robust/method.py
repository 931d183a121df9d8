"""Tests of coefficients with a cluster-robust covariance, as a `Method` like those of `ddf`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines.estimate import Array
from ranef.errors import NotAvailableError, OptionError
from ranef.inference.ddf import METHODS
from ranef.inference.ddf.asymptotic import infinite
from ranef.inference.ddf.method import Joint, Method, anything, basis_of, kept, spread
from ranef.inference.named import names_of
from ranef.inference.robust.sandwich import Sandwich, contrast_df, joint_df, model_based, sandwich

if TYPE_CHECKING:
    from ranef.model import Fit

DDF = ("satterthwaite", "inf")
SINGULAR = 1e-12  # eigenvalues of the sandwich, in units in which the model's covariance is I


def robust_method(m: Fit, kind: Any, cluster: Any = None, ddf: Any = None) -> Method:
    """Return the tests that go with a robust covariance.

    Parameters
    ----------
    m : Fit
    kind, cluster
        As in `Fit.vcov`.
    ddf : "satterthwaite" | "inf", optional
        Default the first: Satterthwaite's for a row and Hotelling's T^2 for several (Pustejovsky & Tipton 2018) in
        gaussian models and with CR2 and CR3 of others, by their working linear model; clusters less one for several
        ways of clustering. Otherwise tests are normal.

    Raises
    ------
    OptionError, NotAvailableError, DataError
    """
    normal = _is_normal(ddf)
    found = sandwich(m, kind, cluster)
    if normal or found.working is None:
        return Method(found.kind, "", anything, infinite, _normal(found), lambda _: found.vcov, _errors(found))

    def rows(m: Fit, hypotheses: Array) -> Array:
        return contrast_df(m, found, np.atleast_2d(hypotheses))

    title = "clusters less one" if found.adjusted is None else "Satterthwaite's degrees of freedom"
    return Method(found.kind, title, anything, rows, _hotelling(found), lambda _: found.vcov, _errors(found))


def _is_normal(ddf: Any) -> bool:
    """Whether no degrees of freedom were asked for; refuse those that belong to the model's covariance."""
    from ranef.inference.ddf import ALIASES

    name = "inf" if isinstance(ddf, float) and np.isinf(ddf) else str(ddf or DDF[0]).strip().lower()
    name = ALIASES.get(name, name)
    if name not in DDF:
        hint = "is a method of the model's own covariance" if name in METHODS else "is unknown"
        raise OptionError(f"ddf={ddf!r} {hint}; with a robust covariance: {' or '.join(map(repr, DDF))}")
    return name == "inf"


def _errors(found: Sandwich) -> str:
    ways = " and ".join(f"{c.count} clusters of {c.name}" for c in found.clusters)
    return f"{found.kind} standard errors, {ways}"


def _normal(found: Sandwich) -> Any:
    """Wald's chi-square."""

    def joint(m: Fit, hypotheses: Array, values: Array, _about: Array) -> Joint:
        f, q, _ = _wald(m, found, hypotheses, values)
        return Joint(f, q, np.inf, f)

    return joint


def _hotelling(found: Sandwich) -> Any:
    """HTZ: (eta - q + 1) / (eta q) Q is F with q and eta - q + 1 degrees of freedom.

    With fewer clusters than that needs the denominator is not positive, and there is no p-value.
    """

    def joint(m: Fit, hypotheses: Array, values: Array, _about: Array) -> Joint:
        f, q, rows = _wald(m, found, hypotheses, values)
        if not np.isfinite(f):
            return Joint(f, q, float("nan"), f)
        scale, dendf = joint_df(m, found, rows)
        return Joint(f * scale, q, dendf, f)

    return joint


def _wald(m: Fit, found: Sandwich, hypotheses: Array, values: Array) -> tuple[float, int, Array]:
    """Return Q / q, q and rows without redundant ones; NaN where clusters are too few for so many rows.

    Which rows are redundant is read off the working covariance: the sandwich's rank is at most the number of clusters.
    """
    check_covered(m, found.vcov, hypotheses)
    basis = basis_of(m, hypotheses, values, np.nan_to_num(model_based(m)))
    q, rows = len(basis.values), spread(basis, m)
    if not q:
        return float("nan"), 0, rows
    here = np.isfinite(np.diag(found.vcov))
    inner = rows[:, here] / np.sqrt(basis.variances)[:, None]
    v = inner @ found.vcov[np.ix_(here, here)] @ inner.T
    known = np.linalg.eigvalsh(v)
    if known[0] <= SINGULAR * known[-1]:
        return float("nan"), q, rows
    off = basis.values / np.sqrt(basis.variances)
    return float(off @ np.linalg.solve(v, off)) / q, q, rows


def check_covered(m: Fit, vcov: Array, hypotheses: Array) -> None:
    """Refuse combinations of coefficients that a robust covariance says nothing about.

    Raises
    ------
    NotAvailableError
        With the first of them.
    """
    beside = kept(m) & np.isnan(np.diag(vcov))
    lost = np.flatnonzero((np.atleast_2d(hypotheses) != 0).any(axis=0) & beside)
    if len(lost):
        raise NotAvailableError(
            f"there is no robust covariance of {names_of(m, 'all')[0][lost[0]]!r}: that of a gaussian model is about "
            f"the coefficients of the mean; leave vcov= out"
        )
