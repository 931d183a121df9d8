"""The F test of a fixed factor of so many levels that its hypotheses are no matrix.

At the estimated theta, V* = V / sigma^2, the Wald statistic of all its coefficients is what generalised least squares
loses without it:

    q F sigma^2 = r(model without the factor) - r(model),      r = min (y - X beta)' V*^-1 (y - X beta),

two evaluations of penalised residual sums of squares.

Fai and Cornelius' (1996) degrees of freedom follow from E = sum 2 / (nu - 2) over the q eigenvectors p of L Phi L',
nu those of p'L beta. So many eigenvectors are not looked for. Lanczos' method from a random start z finds Ritz vectors
y_i, whose squared products with z are the weights of Gauss' quadrature over the spectrum (Golub & Meurant 2010, chapter
7; Ubaru, Chen & Saad 2017): each stands for a window of the spectrum in the proportion weight_i,

    E ~ sum over converged ones of 2 / (nu_i - 2) + (those left) x mean of 2 / (nu_i - 2) by weight over the others,

the weights adjusted a little so that the trace of L Phi L' is what it is. What differs most converges first:
combinations that few groups tell about have the largest variances. In designs of 400 to 1,000 levels df were within
0.3 % of those of all eigenvectors. L are the factor's coefficients, one level each beside the first, as of type III
where no other column depends on the factor.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ranef.engines.estimate import Estimate
from ranef.engines.linear import make_core
from ranef.errors import RanefWarning
from ranef.frame.blocks import WIDE
from ranef.frame.design import Array
from ranef.inference.ddf.method import Joint, Method, kept, model_vcov, partial_of
from ranef.inference.ddf.satterthwaite import contrast_df
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.inference.terms import FixedTerm
    from ranef.model import Fit

Integers = NDArray[np.int64]
UNKNOWN = Joint(float("nan"), 0, float("nan"), float("nan"))
STARTS = 8
STEPS = 20
SEED = 1
CONVERGED = 1e-4  # residual of a Ritz vector beside its value, below which it is an eigenvector
ALIKE = 1e-12  # variance of eigenvalues beside the largest one's square, below which they are one
ROUNDING = 1e-10  # of a product with the matrix


def by_comparison(method: Method) -> bool:
    """Whether a method tests a whole factor by comparing two models, without the covariance of its coefficients."""
    return method.name != "kenward-roger" and not method.errors


def is_whole(m: Fit, method: Method, term: FixedTerm) -> bool:
    """Whether a term is a fixed factor of too many levels to look at each, or of more than are needed.

    Beside columns that depend on its levels, which were dropped, types of hypotheses differ in what is its own.
    """
    partial = partial_of(m)
    if partial is None or not partial.levels[term.columns.start]:
        return False
    many = term.columns.stop - term.columns.start > WIDE and not np.isin(m.estimate.dropped, partial.columns).any()
    return not partial.fits or (many and by_comparison(method))


def left_out(m: Fit, method: Method, term: FixedTerm, about: Array, behind: tuple[FixedTerm, ...] = ()) -> Joint:
    """Test a whole factor beside all other terms; NaN, with a warning, where that takes a matrix.

    Parameters
    ----------
    m : Fit
        With a fixed factor of many levels.
    method : Method
    term : FixedTerm
        The factor.
    about : (1, p) array
        Its first coefficient, for rules that count.
    behind : tuple of FixedTerm
        Terms that it is not adjusted for (type I).
    """
    count = term.columns.stop - term.columns.start
    if behind or not by_comparison(method):
        what = f"before {', '.join(t.label for t in behind)} (type 1)" if behind else method.errors or method.title
        warnings.warn(
            f"{term.label}: a test of {count:,} coefficients, {what}, takes matrices of their order: write the factor "
            f"last or use type=3, with ddf='satterthwaite'; or test it by likelihood ratio, rf.drop1(m)",
            RanefWarning,
            stacklevel=6,
        )
        return UNKNOWN
    e, design = m.estimate, design_of(m, "anova")
    assert isinstance(e, Estimate)
    rest = replace(design, fixed=(*design.fixed[: term.blocks.start], *design.fixed[term.blocks.stop :]))
    core = make_core(rest, threads=m.task.control.threads)
    found = core.fit(e.reml, np.array(m.theta), {"max_evaluations": 1})
    q = e.rank - core.rank
    f = float((found["pwrss"] - e.pwrss) / (q * m.sigma**2)) if q else float("nan")
    if method.vcov is model_vcov:  # a rule that counts
        df = float(method.rows(m, about).min())
    elif not design.terms or not q:
        df = float(m.nobs - e.rank)
    else:
        df = fai_cornelius(m, term)[0]
    return Joint(f, q, df, f)


# ---- eigenvectors of a matrix that is not formed ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Combinations:
    """What is tested of a factor: all of its coefficients.

    Attributes
    ----------
    m : Fit
    columns : (c,) array
        Coefficients of its levels that were estimated.
    """

    m: Fit
    columns: Integers

    def rows(self, y: Array) -> Array:
        """Return combinations of the factor's coefficients as combinations of all, (k, p)."""
        out = np.zeros((len(y), len(self.m.estimate.beta)))
        out[:, self.columns] = y
        return out

    def times(self, y: Array) -> Array:
        """Return L Phi L'y of every row, (k, c)."""
        return np.asarray(self.m.core.covariance_with_rows(self.rows(y)))[:, self.columns]

    @property
    def trace(self) -> float:
        """Sum of the eigenvalues of L Phi L'."""
        return float(self.m.estimate.vcov.diagonal()[self.columns].sum())


def fai_cornelius(m: Fit, term: FixedTerm) -> tuple[float, float]:
    """Return Fai and Cornelius' degrees of freedom of a fixed factor of many levels, and their standard error.

    The error is that of the mean over the starts, which are the same at every call.
    """
    of = Combinations(m, np.flatnonzero(kept(m)[term.columns]) + term.columns.start)
    values, weights, vectors, known = _ritz(of)
    nu = contrast_df(m, of.rows(vectors))
    if (nu <= 2).any():
        return 2.0, 0.0
    q, each, rest = len(of.columns), 2 / (nu - 2), ~known
    left = q - int(known.sum()), of.trace - float(values[known].sum())
    excess = each[known].sum() + np.array([
        _counts(w[rest], values[rest], *left) @ each[rest] for w in (*weights, weights.mean(axis=0))
    ])  # fmt: skip
    df = 2 * (excess + q) / excess
    return float(df[-1]), float(df[:-1].std(ddof=1) / np.sqrt(len(df) - 1))


def _counts(weights: Array, values: Array, number: int, total: float) -> Array:
    """Return how many eigenvectors each Ritz vector stands for: near its weight, `number` in all, their sum `total`.

    Two linear constraints with the least sum of squared changes, each beside its weight (Deville & Sarndal 1992).
    """
    if not len(weights):
        return weights
    first = weights * (number / weights.sum())
    unit = values / values.max()
    off = total / values.max() - first @ unit
    middle = first @ unit / number
    spread = float(first @ (unit - middle) ** 2)
    out = first * (1 + off * (unit - middle) / spread) if spread > ALIKE * number else first
    return out if (out >= 0).all() else first


def _ritz(of: Combinations) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
    """Return Ritz values, their weights by start, (starts, k), their vectors, (k, levels), and which are eigenvectors.

    Block Lanczos, orthogonal to all vectors before. An eigenvalue that a block finds as often as it has vectors may be
    there more often: its vectors do not count as known.
    """
    size = len(of.columns)
    block = _orthonormal(np.random.default_rng(SEED).standard_normal((STARTS, size)), 0.0)
    starts, basis, images = len(block), np.zeros((0, size)), np.zeros((0, size))
    while len(block) and len(basis) < STEPS * STARTS:
        basis, image = np.vstack([basis, block]), of.times(block)
        images = np.vstack([images, image])
        scale = float(np.linalg.norm(image, axis=1).max())
        for _ in range(2):
            image = image - (image @ basis.T) @ basis
        block = _orthonormal(image, ROUNDING * scale)
    inner = basis @ images.T
    values, vectors = np.linalg.eigh((inner + inner.T) / 2)
    ritz = vectors.T @ basis
    residual = np.linalg.norm(vectors.T @ images - values[:, None] * ritz, axis=1)
    found = residual < CONVERGED * values
    alike = np.abs(values[:, None] - values) < CONVERGED * values
    known = found & ((alike & found).sum(axis=1) < starts)
    return values, vectors[:starts] ** 2, ritz, known


def _orthonormal(a: Array, least: float) -> Array:
    """Return orthonormal rows that span those of a, without directions shorter than `least`."""
    _, found, right = np.linalg.svd(a, full_matrices=False)
    return right[found > least]
