"""What a method of degrees of freedom is: a record of functions; and the Wald F statistic that they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ranef.engines.covariance import PartialCovariance
from ranef.errors import NotAvailableError
from ranef.frame.design import Array

if TYPE_CHECKING:
    from ranef.model import Fit

LARGE = 200  # combinations from which on a spectral decomposition is worth avoiding
SINGULAR = 1e-9  # eigenvalues of the unit-diagonal L Phi L' below this share of the largest: rows that say nothing new


@dataclass(frozen=True, slots=True)
class Joint:
    """A test that several linear combinations have given values.

    Attributes
    ----------
    statistic : float
        F, scaled if the method scales it.
    numdf, dendf : float
        Independent combinations; denominator degrees of freedom.
    unscaled : float
        F = d'(L Phi L')^-1 d / numdf.
    """

    statistic: float
    numdf: int
    dendf: float
    unscaled: float


@dataclass(frozen=True, slots=True)
class Method:
    """A method of degrees of freedom. To add one: a module that makes such a record, and its row in `ddf.METHODS`.

    Rows of hypotheses are over all coefficients of all components; entries at dropped ones are not looked at.

    Attributes
    ----------
    name : str
        As `ddf=` takes it.
    title : str
        As a table says it: "Satterthwaite's degrees of freedom"; "" where the test is normal.
    check : fit -> None
        Raises where the method does not apply.
    rows : (fit, (r, p) hypotheses) -> (r,) degrees of freedom
    joint : (fit, hypotheses, (r,) values, rows that say what they are about) -> Joint
        Rules that count take the degrees of freedom from the last; a test of a term is about its own coefficients,
        although its hypotheses may involve those of terms that contain it.
    vcov : fit -> (p, p) array
        The covariance that standard errors come from.
    title_of : fit -> str, optional
        The title where it depends on the fit.
    errors : str
        What is said of it where it is not the model's own: "CR2 standard errors, 18 clusters of Subject".
    """

    name: str
    title: str
    check: Callable[[Fit], None]
    rows: Callable[[Fit, Array], Array]
    joint: Callable[[Fit, Array, Array, Array], Joint]
    vcov: Callable[[Fit], Array]
    errors: str = ""
    title_of: Callable[[Fit], str] | None = None

    def of(self, m: Fit) -> Method:
        """Return the method as tables of a fit speak of it."""
        title = self.title if self.title_of is None else self.title_of(m)
        return self if title == self.title else replace(self, title=title)

    @property
    def letter(self) -> str:
        """The statistic's letter: "t", or "z" without degrees of freedom."""
        return "t" if self.title else "z"


@dataclass(frozen=True, slots=True)
class Basis:
    """Independent combinations that say the same as the hypotheses, uncorrelated in the model's covariance.

    Attributes
    ----------
    rows : (q, k) array
        Over the coefficients kept.
    values : (q,) array
        Estimates less the values tested.
    variances : (q,) array
    at : (k,) array of int
        Which coefficients `rows` are over.
    """

    rows: Array
    values: Array
    variances: Array
    at: Array

    @property
    def statistic(self) -> float:
        """F = sum of squared t / q."""
        return float(np.mean(self.values**2 / self.variances)) if len(self.values) else float("nan")


def kept(m: Fit) -> Array:
    """Which coefficients were estimated."""
    return ~np.isnan(m.estimate.beta)


def rows_counted(m: Fit) -> float:
    """Return how many rows the rows of a fit stand for: the sum of their frequency weights."""
    return m.layout.counted


def partial_of(m: Fit) -> PartialCovariance | None:
    """Return the covariance of the coefficients where it is not a whole matrix: fixed factors of many levels."""
    found: object = m.estimate.vcov
    return found if isinstance(found, PartialCovariance) else None


def relevant(m: Fit, rows: Array) -> Array:
    """Return the positions of the coefficients that rows need: those estimated; of a partial covariance those named."""
    named = np.ones(1, dtype=bool) if partial_of(m) is None else (rows != 0).any(axis=0)
    return np.flatnonzero(kept(m) & named)


def units(m: Fit) -> Array:
    """Return the hypotheses that single coefficients are 0, one a row.

    Raises
    ------
    NotAvailableError
        If a fixed factor has so many levels that there is no such matrix.
    """
    partial = partial_of(m)
    return np.eye(len(m.estimate.beta)) if partial is None or partial.fits else partial.refuse()


def unit_rows(m: Fit, columns: slice) -> Array:
    """Return the rows of `units` that belong to some neighbouring coefficients."""
    at = np.arange(len(m.estimate.beta))[columns]
    out = np.zeros((len(at), len(m.estimate.beta)))
    out[np.arange(len(at)), at] = 1
    return out


def coefficient_rows(m: Fit, method: Method) -> Array:
    """Degrees of freedom of every coefficient.

    Of a fixed factor whose levels are too many for a matrix of all coefficients, rules that count give the levels those
    of the first, and other methods residual ones.
    """
    partial = partial_of(m)
    if partial is None or partial.fits:
        return np.where(kept(m), method.rows(m, units(m)), np.nan)
    rows = np.zeros((len(partial.columns), partial.size))
    rows[np.arange(len(rows)), partial.columns] = 1
    out = np.full(partial.size, float(m.nobs - m.estimate.rank))
    out[partial.columns] = method.rows(m, rows)
    for first, count in partial.wide if method.vcov is model_vcov else ():
        out[first : first + count] = method.rows(m, unit_rows(m, slice(first, first + 1)))[0]
    return np.where(kept(m), out, np.nan)


def model_vcov(m: Fit) -> Array:
    """Return the model's covariance of the coefficients, that of `Fit.vcov`, whatever degrees of freedom they have."""
    from ranef.inference.ddf import default_method

    own = default_method(m).vcov
    return m.estimate.vcov if own is model_vcov else own(m)


def anything(m: Fit) -> None:
    """Raise nothing: the method applies everywhere."""


def quadratic(rows: Array, vcov: Array) -> Array:
    """Return l'Vl of every row; NaN where a row has weight on a coefficient whose variance is not known."""
    lost = np.isnan(np.diag(vcov))
    out = np.einsum("ri,ij,rj->r", rows, np.nan_to_num(vcov), rows, optimize=True)
    out[(rows[:, lost] != 0).any(axis=1)] = np.nan
    return out


def form(m: Fit, rows: Array, vcov: Array) -> Array:
    """Return L V L' of (r, p) rows; entries at dropped coefficients are not looked at.

    The diagonal is NaN where a row has weight on a coefficient whose variance is not known.
    """
    partial: object = vcov
    if isinstance(partial, PartialCovariance):
        return partial.between(np.where(kept(m), rows, 0.0))
    here = np.flatnonzero(kept(m))
    inner, own = rows[:, here], vcov[np.ix_(here, here)]
    out = inner @ np.nan_to_num(own) @ inner.T
    out[np.diag_indices_from(out)] = quadratic(inner, own)
    return out


def basis_of(m: Fit, hypotheses: Array, values: Array, vcov: Array) -> Basis:
    """Return the spectral decomposition of the hypotheses (Fai & Cornelius 1996, eq. 7), without redundant ones."""
    here = relevant(m, np.atleast_2d(hypotheses))
    rows = np.atleast_2d(hypotheses)[:, here]
    off = rows @ m.estimate.beta[here] - values
    v, variances = form(m, np.atleast_2d(hypotheses), vcov), vcov.diagonal()[here]
    if np.isnan(np.diag(v)).any():
        raise NotAvailableError("a test of several combinations: one of them has no standard error; see m.messages")
    variances = np.nan_to_num(variances)
    # What a row is made of is its measure, never another row: each has units of its own.
    known = np.diag(v) <= SINGULAR**2 * (np.abs(rows) @ np.sqrt(np.maximum(variances, 0))) ** 2
    v[known] = v[:, known] = 0.0  # combinations of held coefficients have no variance but rounding
    size = np.sqrt(np.maximum(np.diag(v), 0))
    size = np.where(size > 0, size, 1.0)
    scaled, alike = v / np.outer(size, size), (size > SINGULAR**0.5 * size.max(initial=0.0)).all()
    found, vectors = (np.ones(len(rows)), v) if alike and _is_regular(scaled) else _spectrum(scaled)
    if len(found) == len(rows) and alike:  # nothing is redundant: units as they are given, as lmerTest
        found, vectors = np.linalg.eigh(v)
        size = np.ones(len(rows))
    mix = (vectors / size[:, None]).T
    return Basis(mix @ rows, mix @ off, found, here)


def _is_regular(v: Array) -> bool:
    """Whether a large matrix certainly has no eigenvalue that `_spectrum` would leave out, from norms."""
    if len(v) < LARGE:
        return False
    try:
        inverse = np.linalg.inv(np.linalg.cholesky(v))
    except np.linalg.LinAlgError:
        return False
    return bool(np.sum(inverse**2) * np.linalg.norm(v) * SINGULAR < 1)


def _spectrum(v: Array) -> tuple[Array, Array]:
    """Eigenvalues that are not zero, and their vectors."""
    found, vectors = np.linalg.eigh(v)
    solid = found > SINGULAR * found.max(initial=0.0)
    return found[solid], vectors[:, solid]


def spread(basis: Basis, m: Fit) -> Array:
    """Return the basis over all coefficients, zeros where dropped."""
    out = np.zeros((len(basis.rows), len(m.estimate.beta)))
    out[:, basis.at] = basis.rows
    return out


def least(rows: Callable[[Fit, Array], Array]) -> Callable[[Fit, Array, Array, Array], Joint]:
    """Return the joint test whose denominator is the least of the degrees of freedom."""

    def joint(m: Fit, hypotheses: Array, values: Array, about: Array) -> Joint:
        basis = basis_of(m, hypotheses, values, m.estimate.vcov)
        df = rows(m, np.atleast_2d(about)).min(initial=np.inf)
        return Joint(basis.statistic, len(basis.values), float(df), basis.statistic)

    return joint
