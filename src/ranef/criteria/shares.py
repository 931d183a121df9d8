"""Standard errors and intervals of figures that are functions of all parameters: shares of variances.

With psi = (beta, theta, sigma) and C its joint covariance, a figure f(psi) has the variance g'C g, g = df/dpsi (the
delta method). Figures are found again at displaced parameters, without a refit: differences of fourth order over a
thousandth of a standard error, whose error is 1e-9 or so of a standard error. Roots of the covariances are entries of
theta themselves; those of structures move along their exact derivatives. Intervals are symmetric on the logit scale,
so that they stay between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ranef.engines.estimate import Array, Estimate, LaplaceEstimate
from ranef.engines.laplace import sigma_of
from ranef.engines.linear import cells
from ranef.errors import NotAvailableError, OptionError, nearest
from ranef.formula.functions import PLAIN
from ranef.inference.bootstrap import bootstrap
from ranef.inference.ddf.directions import structure_derivatives
from ranef.inference.deltas import base_covariance
from ranef.inference.dummies import written_out
from ranef.inference.noted import Note
from ranef.inference.resampling import symmetric_root
from ranef.inference.wald import quantile
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.model import Fit

METHODS = ("wald", "boot")
KINDS = ("adjusted", "conditional")  # of the variance without that of the fixed effects, or of all
STEP = 1e-3  # of a standard error
NONE = 1e-9  # a standard error of a share below this is rounding: the share is constant
STENCIL = ((1, 2 / 3), (-1, -2 / 3), (2, -1 / 12), (-2, 1 / 12))  # steps, weights: exact for quartics
Figures = Callable[["Fit"], Array]


@dataclass(frozen=True)
class Uncertain:
    """Standard errors and ends of intervals of several figures, and what a reader should know."""

    std_error: Array
    low: Array
    high: Array
    notes: tuple[Note, ...]

    def columns(self) -> dict[str, Array]:
        """Return the columns of a table."""
        return {"std_error": self.std_error, "conf_low": self.low, "conf_high": self.high}


def check_kind(kind: Any, what: str) -> None:
    """Raise OptionError unless it says what a share is of."""
    if kind not in KINDS:
        raise OptionError(f"{what}: kind={kind!r} is unknown; {nearest(kind, KINDS)}")


def checked(conf_int: Any, what: str) -> str | None:
    """Return "wald", "boot" or None of what was asked for.

    Raises
    ------
    OptionError
        If it is something else.
    NotAvailableError
        For "profile".
    """
    if conf_int is None or conf_int is False:
        return None
    if conf_int is True:
        return "wald"
    if conf_int == "profile":
        raise NotAvailableError(
            f"{what}: a share of variances is a function of several parameters, and curves hold one; use 'wald' or "
            f"'boot'"
        )
    if conf_int not in METHODS:
        raise OptionError(f"{what}: conf_int={conf_int!r} is unknown; known: {', '.join(map(repr, METHODS))}")
    return conf_int


def uncertain(m: Fit, figures: Figures, how: str, level: float, n: int, seed: int | None) -> Uncertain:
    """Return standard errors and intervals of figures of a fit.

    Parameters
    ----------
    m : Fit
    figures : Fit -> (k,) array
        Between 0 and 1.
    how : "wald" | "boot"
    level : float
    n, seed
        Of the parametric bootstrap: refits, and what draws them.
    """
    if how == "boot":
        found = bootstrap(m, figures, n, seed=seed)
        low, high = found.ends(level, "percentile")
        failed = f", {len(found.failures)} failed" if found.failures else ""
        text = f"{n} parametric bootstrap refits{failed}; percentile intervals; seed {found.seed}"
        return Uncertain(found.std_error, low, high, (Note("bootstrap", text),))
    z, value, error = float(quantile(level)), figures(m), std_errors(m, figures)
    with np.errstate(divide="ignore", invalid="ignore"):
        center, half = np.log(value / (1 - value)), z * error / (value * (1 - value))
        low, high = 1 / (1 + np.exp(half - center)), 1 / (1 + np.exp(-half - center))
    low, high = (np.where(error == 0, value, end) for end in (low, high))
    notes = [Note("wald", "delta method; intervals on the logit scale. With few groups conf_int='boot' is better")]
    if np.isnan(error).any():
        notes.append(
            Note("boundary", "no standard error: a variance is estimated on the boundary; use conf_int='boot'")
        )
    return Uncertain(error, low, high, tuple(notes))


def std_errors(m: Fit, figures: Figures) -> Array:
    """Return standard errors by the delta method; NaN where a parameter that matters has none."""
    m = written_out(m)
    cov = base_covariance(m)
    free = np.isfinite(np.diag(cov))
    free[_on_boundary(m, len(cov))] = False
    errors = np.sqrt(np.where(free, np.diag(cov), 0.0))
    structured = structure_derivatives(m) if _structured(m) else {}
    slopes = np.zeros((len(cov), len(figures(m))))
    for j in np.flatnonzero(errors).tolist():
        step = STEP * errors[j]
        slopes[j] = sum(w * figures(moved(m, j, k * step, structured)) for k, w in STENCIL) / step
    inner = np.where(np.outer(free, free), cov, 0.0)
    found = np.sqrt(np.maximum(np.einsum("jk,ji,ik->k", slopes, inner, slopes), 0.0))
    found = np.where(found < NONE, 0.0, found)
    found[_matters(m, figures, np.flatnonzero(~free).tolist(), structured)] = np.nan
    return found


def _matters(
    m: Fit, figures: Figures, some: Sequence[int], structured: dict[int, tuple[Array, Array]]
) -> NDArray[np.bool_]:
    """Tell which figures any of some parameters changes; at a standard deviation of 0 their slope alone would not."""
    value, e = figures(m), m.estimate
    unit = max(1.0 if isinstance(e, Estimate) else np.abs(e.theta).max(initial=0.0), NONE)
    out = np.zeros(len(value), dtype=bool)
    for j in some:
        if j < len(e.beta) and np.isnan(e.beta[j]):
            continue  # dropped
        out |= np.abs(figures(moved(m, j, 0.1 * unit, structured)) - value) > NONE
    return out


def _structured(m: Fit) -> list[int]:
    return [t for t, term in enumerate(m.layout.terms) if term.structure not in PLAIN]


def _on_boundary(m: Fit, size: int) -> list[int]:
    """Return coordinates of terms whose covariance is singular: the likelihood has no quadratic top in them."""
    singular = {t for t, *_ in m.estimate.boundary}
    return [j for j in range(len(m.estimate.beta), size) if (at := _place(m, j)) is not None and at[0] in singular]


def _place(m: Fit, j: int) -> tuple[int, tuple[int, int] | int] | None:
    """Return the term and the entry of its root, or the parameter of its structure, that a coordinate is."""
    first = len(m.estimate.beta)
    plain = [t for t in range(len(m.layout.terms)) if t not in _structured(m)]
    for t in plain:
        entries = cells(len(m.layout.terms[t].names), m.layout.terms[t].structure)
        if j < first + len(entries):
            return t, entries[j - first]
        first += len(entries)
    owners = [t for t, *_ in m.estimate.natural]
    counts: list[tuple[int, int]] = [(t, owners[:i].count(t)) for i, t in enumerate(owners) if t not in plain]
    return counts[j - first] if j - first < len(counts) else None


def moved(m: Fit, j: int, by: float, structured: dict[int, tuple[Array, Array]]) -> Fit:
    """Return the fit with one of (beta, theta, sigma) displaced, all else as it is."""
    e = m.estimate
    assert isinstance(e, Estimate | LaplaceEstimate)
    if j < len(e.beta):
        beta = np.array(e.beta)
        beta[j] += by
        if isinstance(e, Estimate):
            return replace(m, estimate=replace(e, beta=beta))
        return replace(
            m, estimate=replace(e, beta=beta, sigma=sigma_of(beta, design_of(m, "std_error"), m.distribution))
        )
    at = _place(m, j)
    if at is None:
        return replace(m, estimate=replace(e, sigma=e.sigma + by))
    t, where = at
    if isinstance(where, tuple):
        factor = np.array(e.factors[t])
        factor[where] += by
    else:
        factor = symmetric_root(e.covariances[t] + by * structured[t][0][where], 0.5)
    return replace(m, estimate=replace(e, factors=_with(e.factors, t, factor)))


def _with(factors: Sequence[Array], t: int, factor: Array) -> tuple[Array, ...]:
    return tuple(factor if i == t else f for i, f in enumerate(factors))
