"""Exact likelihood-ratio tests of one variance component, by simulation of their finite-sample null distributions.

Model: y = X beta + Z b + e, b ~ N(0, lambda sigma^2 I), e_i ~ N(0, sigma^2 / w_i); null: lambda = 0. With mu_s the
eigenvalues of Z'P0 Z (P0 the projection off X), xi_s those of Z'Z, and v_s, w_s independent standard normal, the
statistics are distributed as suprema over lambda >= 0 (Crainiceanu & Ruppert 2004):

    RLRT = sup (n - p) log(1 + N / D) - sum log(1 + lambda mu_s),
    LRT  = n log(1 + sum_1^q v_s^2 / sum_1^(n-p) w_s^2) + sup n log(1 + N / D) - sum log(1 + lambda xi_s),
    N = sum lambda mu_s / (1 + lambda mu_s) w_s^2,   D = sum w_s^2 / (1 + lambda mu_s) + sum_(K+1)^(n-p) w_s^2,

q the number of fixed effects that the null leaves out. With other variance components in the model the law is that of
the model without them, an approximation (Greven, Crainiceanu, Kuechenhoff & Peters 2008; Scheipl, Greven &
Kuechenhoff 2008).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines.estimate import Array
from ranef.errors import DataError, NotAvailableError, OptionError
from ranef.frame.design import matrix
from ranef.inference.comparable import by_ml, check_same_data, same_columns
from ranef.inference.crossproducts import against, columns, sizes
from ranef.inference.dummies import dummies_of
from ranef.inference.frames import to_frame
from ranef.inference.nested import within
from ranef.inference.submodels import on_own_rows, with_formula
from ranef.model import Fit, design_of

if TYPE_CHECKING:
    from ranef.formula import Bar

GRID = np.concatenate([[0.0], np.exp(np.linspace(-12, 12, 160))])  # lambda times the mean eigenvalue
BLOCK = 2_000_000  # entries of a block of draws
LARGEST = 4_000  # random effects: the eigenvalues of a dense matrix of this size take a minute
EQUAL = 1e-9  # eigenvalues this close, relative to the largest, are one
MANY, CLOSE = 200, 1e-3


@dataclass(frozen=True, eq=False, repr=False)
class ExactTest:
    """A test of one variance component with its simulated null distribution.

    Attributes
    ----------
    name : str
    statistic : float
        The observed (restricted) likelihood ratio.
    p_value : float
        (1 + draws not below it) / (1 + draws) (Davison & Hinkley 1997, section 4.2).
    draws : (n,) array
        The null distribution.
    exact : bool
        Whether that is the exact law, or that of a model without its other variance components.
    kind : str
    """

    name: str
    statistic: float
    p_value: float
    draws: Array
    exact: bool
    kind: str

    @property
    def at_zero(self) -> float:
        """Probability, under the null, that the estimated variance is 0."""
        return float((self.draws <= 0).mean()) if len(self.draws) else float("nan")

    def to_frame(self) -> Any:
        """Return one row: `test, statistic, p_value, draws, at_zero`."""
        row = {
            "test": [self.name], "statistic": [self.statistic], "p_value": [self.p_value], "draws": [len(self.draws)],
            "at_zero": [self.at_zero],
        }  # fmt: skip
        return to_frame(row, self.kind)

    def __repr__(self) -> str:
        low = 1 / (1 + len(self.draws))
        p = f"< {2 * low:.2g}" if self.p_value <= low else f"= {self.p_value:.4g}"
        tail = "" if self.exact else "; null law of the model without its other variance components, an approximation"
        return f"{self.name} = {self.statistic:.5g}, p {p} ({len(self.draws)} draws of the null distribution{tail})"


def exact_rlrt(
    m: Fit,
    mA: Fit | None = None,
    m0: Fit | None = None,
    n: int = 10_000,
    seed: Any = None,
    *,
    term: str | None = None,
) -> ExactTest:
    """Test that a variance is 0 by the exact restricted likelihood ratio.

    Parameters
    ----------
    m : Fit
        A linear mixed model with one variance component, the tested one; or, with `term`, the full model.
    mA, m0 : Fit, optional
        Of a model with several components: the full model and the one without the tested one; `m` has the tested one
        alone.
    n : int
        Draws of the null distribution.
    seed : int or numpy Generator, optional
        Same seed, same draws.
    term : str, optional
        The tested term, as the formula prints it, "(1 | g)", or its grouping factor where that has one term; the three
        models are then made from `m`.

    Returns
    -------
    ExactTest

    Raises
    ------
    NotAvailableError
        If the model is not linear, has another structure than one variance, or more than 4,000 random effects.
    DataError
        If the models are not comparable.

    Notes
    -----
    ML fits are fitted again by REML. Eigenvalues are those of a q x q matrix, whatever the number of rows.

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.load("Dyestuff"))
    >>> test = exact_rlrt(m, seed=1)
    >>> round(test.statistic, 5), test.p_value < 0.01
    (6.36896, True)
    """
    if term is not None:
        if mA is not None or m0 is not None:
            raise OptionError("exact_rlrt: term= makes the models from m; leave mA= and m0= out")
        m, mA, m0 = _three(m, term)
    if (mA is None) != (m0 is None):
        raise OptionError("exact_rlrt: give mA= (the full model) and m0= (without the tested term) together")
    _check(m, "exact_rlrt")
    m = m if m.method == "reml" else m.update(method="reml")
    full, null = (m, _without_random(m)) if mA is None or m0 is None else (_reml(mA), _reml(m0))
    check_same_data([m, full, null], "exact_rlrt")
    if not (same_columns(m, full) and same_columns(full, null)):
        raise DataError("exact_rlrt: the models differ in their fixed effects; restricted likelihoods need the same")
    statistic = max(null.criterion - full.criterion, 0.0)
    mu, _, rank = spectrum(m)
    draws = restricted_draws(mu, m.nobs - rank, _count(n), np.random.default_rng(seed))
    return _test("RLRT", statistic, draws, full is m, m)


def exact_lrt(m: Fit, m0: Fit | None = None, n: int = 10_000, seed: Any = None) -> ExactTest:
    """Test that a variance, and some fixed effects with it, are 0 by the exact likelihood ratio.

    Parameters
    ----------
    m : Fit
        A linear mixed model with one variance component.
    m0 : Fit, optional
        The null, without random effects; default: with the fixed effects of `m`.
    n : int
        Draws of the null distribution.
    seed : int or numpy Generator, optional
        Same seed, same draws.

    Returns
    -------
    ExactTest

    Notes
    -----
    REML fits are fitted again by maximum likelihood.
    """
    _check(m, "exact_lrt")
    m = by_ml(m)
    null = _without_random(m) if m0 is None else by_ml(m0)
    check_same_data([m, null], "exact_lrt")
    if null.layout.terms or not null.task.linear:
        raise NotAvailableError("exact_lrt: the null is a linear model without random effects; see exact_rlrt")
    if not within(design_of(m, "exact_lrt").fixed, design_of(null, "exact_lrt").fixed, None, m.nobs):
        raise DataError("exact_lrt: the fixed effects of the null are not among those of the model")
    statistic = max(null.criterion - m.criterion, 0.0)
    mu, xi, rank = spectrum(m)
    rng = np.random.default_rng(seed)
    draws = plain_draws(mu, xi, m.nobs, rank, rank - null.estimate.rank, _count(n), rng)
    return _test("LRT", statistic, draws, True, m)


def _test(name: str, statistic: float, draws: Array, exact: bool, m: Fit) -> ExactTest:
    p = (1 + int((draws >= statistic).sum())) / (1 + len(draws))
    return ExactTest(name, statistic, p, draws, exact, m.layout.kind)


def _count(n: Any) -> int:
    if not isinstance(n, (int, np.integer)) or n < 1:
        raise OptionError(f"n={n!r} draws: give a positive whole number")
    return int(n)


# ---- the models ------------------------------------------------------------------------------------------------------


def _check(m: Fit, what: str) -> None:
    if not m.task.linear:
        raise NotAvailableError(f"{what}: the null distribution is known for linear mixed models; use rf.pb_test")
    terms = m.layout.terms
    if len(terms) != 1 or len(terms[0].names) != 1:
        raise NotAvailableError(
            f"{what}: the model must have one variance component, the tested one; this has {len(terms)} terms with "
            f"{sum(len(t.names) for t in terms)} columns: give term=, or mA= and m0= beside it"
        )
    size = sizes(design_of(m, what).terms)
    if size > LARGEST:
        raise NotAvailableError(f"{what}: {size} random effects; eigenvalues are taken up to {LARGEST}: use rf.pb_test")


def _reml(m: Fit) -> Fit:
    return m if m.method == "reml" else m.update(method="reml")


def _without_random(m: Fit) -> Fit:
    base = on_own_rows(m)
    return with_formula(base, "mean", replace(base.formula, bars=()))


def _three(m: Fit, term: str) -> tuple[Fit, Fit, Fit]:
    """Return the model with the tested term alone, with all terms, and without the tested one."""
    base = on_own_rows(_reml(m))
    bar = _bar(base, term)
    others = tuple(b for b in base.formula.bars if b is not bar)
    alone = with_formula(base, "mean", replace(base.formula, bars=(bar,)))
    return alone, base if others else alone, with_formula(base, "mean", replace(base.formula, bars=others))


def _bar(m: Fit, term: str) -> Bar:
    squeezed = term.replace(" ", "")
    bars = m.formula.bars
    found = [b for b in bars if str(b).replace(" ", "") in (squeezed, f"({squeezed})")]
    found = found or [b for b in bars if b.label == term]
    if len(found) != 1:
        raise OptionError(f"term={term!r} is not one of the terms of the model: {', '.join(map(str, bars))}")
    return found[0]


# ---- eigenvalues -----------------------------------------------------------------------------------------------------


def spectrum(m: Fit) -> tuple[Array, Array, int]:
    """Return the positive eigenvalues of Z'P0 Z and those of Z'Z of a model with one column, and the rank of X."""
    design = dummies_of(design_of(m, "eigenvalues"))
    term, n = design.terms[0], design.n
    z = columns(term, design.weights, n)
    x = matrix(design.fixed, n)
    x = x if design.weights is None else x * np.sqrt(design.weights)[:, None]
    own = np.bincount(term.codes, z[:, 0] ** 2, len(term.levels)).astype(np.float64)
    basis = orthogonal(x)
    shared = against(term, z, basis)[:, 0, :]
    mu = np.asarray(np.linalg.eigvalsh(np.diag(own) - shared @ shared.T), dtype=np.float64)
    return positive(mu), positive(np.sort(own)), basis.shape[1]


def orthogonal(x: Array) -> Array:
    """Return an orthonormal basis of the columns of x, (n, rank)."""
    unit = np.maximum(np.sqrt((x**2).sum(axis=0)), np.finfo(float).tiny)
    u, s, _ = np.linalg.svd(x / unit, full_matrices=False)
    return u[:, s > 1e-8 * s.max(initial=1.0)]


def positive(values: Array) -> Array:
    """Return the positive eigenvalues, the largest first."""
    return values[values > EQUAL * values.max(initial=0.0)][::-1]


# ---- draws -----------------------------------------------------------------------------------------------------------


def restricted_draws(mu: Array, df: int, n: int, rng: np.random.Generator) -> Array:
    """Draw the restricted likelihood ratio under the null; df = n - p."""
    values, counts = grouped(mu)
    parts = _parts(values, counts, df, n, rng)
    if len(values) == 1 and df > counts[0]:
        return np.concatenate([balanced(squares[:, 0], rest, counts[0], df) for squares, rest in parts])
    return np.concatenate([supremum(squares, rest, values, values, counts, df) for squares, rest in parts])


def plain_draws(mu: Array, xi: Array, rows: int, rank: int, left_out: int, n: int, rng: np.random.Generator) -> Array:
    """Draw the likelihood ratio under the null."""
    values, counts = grouped(mu)
    out = []
    for squares, rest in _parts(values, counts, rows - rank, n, rng):
        found = supremum(squares, rest, values, xi, np.ones(len(xi)), rows)
        total = squares.sum(axis=1) + rest
        effects = rng.chisquare(left_out, len(rest)) if left_out else np.zeros(len(rest))
        out.append(found + rows * np.log1p(effects / total))
    return np.concatenate(out)


def grouped(mu: Array) -> tuple[Array, Array]:
    """Return distinct eigenvalues and how often each occurs: sums of their squares are chi-squares.

    Of many eigenvalues those within a thousandth of each other count as one, their mean: what that changes is of the
    order of its square.
    """
    gap = -np.diff(mu)
    apart = gap > (EQUAL * mu.max(initial=0.0) if len(mu) <= MANY else CLOSE * mu[1:])
    start = np.flatnonzero(np.r_[True, apart])
    counts = np.diff(np.r_[start, len(mu)]).astype(np.float64)
    return np.add.reduceat(mu, start) / counts, counts


def _parts(values: Array, counts: Array, df: int, n: int, rng: np.random.Generator) -> Iterator[tuple[Array, Array]]:
    """Yield blocks of sums of squares: by eigenvalue (m, K), and of the residual directions (m,)."""
    size = max(1, BLOCK // max(len(values), 1))
    left = df - int(counts.sum())
    for start in range(0, n, size):
        m = min(size, n - start)
        squares = rng.chisquare(counts, (m, len(counts)))
        yield squares, rng.chisquare(left, m) if left else np.zeros(m)


def balanced(square: Array, rest: Array, count: float, df: int) -> Array:
    """Return the maximum where all eigenvalues are equal, as in balanced one-way layouts.

    With s = 1 / (1 + lambda mu) in (0, 1] it is that of -df log(s a + r) + c log(s): s = c r / ((df - c) a), or 1.
    """
    with np.errstate(divide="ignore"):
        s = np.minimum(count * rest / ((df - count) * square), 1.0)
    return df * np.log((square + rest) / (s * square + rest)) + count * np.log(s)


def supremum(squares: Array, rest: Array, mu: Array, xi: Array, counts: Array, df: int) -> Array:
    """Maximise df log(1 + N / D) - sum counts log(1 + lambda xi) over lambda >= 0, for every row of squares.

    Over a grid, then once by the parabola through the best point and its neighbours on the scale of log(lambda).
    """
    grid = GRID / mu.mean()
    penalty = (counts * np.log1p(grid[:, None] * xi)).sum(axis=1)
    shrunk = 1 / (1 + np.outer(mu, grid))
    total = (squares.sum(axis=1) + rest)[:, None]
    left = squares @ shrunk + rest[:, None]  # D; N = total - D
    value = df * np.log(total / left) - penalty
    best = value.argmax(axis=1)
    found = value[np.arange(len(value)), best]
    inner = np.flatnonzero((best > 1) & (best < len(grid) - 1))
    if len(inner):
        at = best[inner]
        low, mid, high = (value[inner, at + k] for k in (-1, 0, 1))
        bend = low - 2 * mid + high
        shift = np.where(bend < 0, 0.5 * (low - high) / np.where(bend < 0, bend, -1.0), 0.0)
        point = grid[at] * np.exp(shift * np.log(grid[2] / grid[1]))
        d = (squares[inner] / (1 + point[:, None] * mu)).sum(axis=1) + rest[inner]
        pen = (counts * np.log1p(point[:, None] * xi)).sum(axis=1)
        found[inner] = np.maximum(found[inner], df * np.log(total[inner, 0] / d) - pen)
    return np.maximum(found, 0.0)
