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

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines.estimate import Array
from ranef.errors import DataError, NotAvailableError, OptionError
from ranef.frame.design import matrix
from ranef.inference.comparable import by_ml, check_fits, check_same_data, same_columns
from ranef.inference.crossproducts import against, columns, sizes
from ranef.inference.dummies import dummies_of
from ranef.inference.exact_draws import plain_draws, restricted_draws
from ranef.inference.frames import to_frame
from ranef.inference.nested import within
from ranef.inference.resampling import generator_of
from ranef.inference.submodels import on_own_rows, on_repeated_rows, with_formula
from ranef.model import Fit, check_fit, design_of

if TYPE_CHECKING:
    from ranef.formula import Bar

LARGEST = 4_000  # random effects: the eigenvalues of a dense matrix of this size take a minute
SAME = 1e-13  # relative difference of diagonal entries that rounding alone makes
FEW = 40  # random effects whose matrix is decomposed as it is
NONE = 1e-9  # eigenvalues below this share of the largest are 0


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
    seed : int or None
        With which the draws come again; None where a generator drew them.
    """

    name: str
    statistic: float
    p_value: float
    draws: Array
    exact: bool
    kind: str
    seed: int | None = None

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
    progress: bool | None = None,
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
    progress : bool, optional
        Show how far draws of more than a second have come; default: where stderr is a terminal.

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
    >>> test = rf.exact_rlrt(m, seed=1)
    >>> round(test.statistic, 5), test.p_value < 0.01
    (6.36896, True)
    """
    check_fit(m, "exact_rlrt")
    m, mA, m0 = _by_rows(m, "exact_rlrt"), _by_rows(mA, "exact_rlrt"), _by_rows(m0, "exact_rlrt")
    if term is not None:
        if mA is not None or m0 is not None:
            raise OptionError("exact_rlrt: term= makes the models from m; leave mA= and m0= out")
        m, mA, m0 = _three(m, term)
    if (mA is None) != (m0 is None):
        raise OptionError("exact_rlrt: give mA= (the full model) and m0= (without the tested term) together")
    _check(m, "exact_rlrt")
    m = m if m.method == "reml" else m.update(method="reml")
    if mA is None or m0 is None:
        return _restricted(m, _null(m) - m.criterion, True, n, seed, progress)
    check_fits([mA, m0], "exact_rlrt")
    full, null = _reml(mA), _reml(m0)
    check_same_data([m, full, null], "exact_rlrt")
    if not (same_columns(m, full) and same_columns(full, null)):
        raise DataError("exact_rlrt: the models differ in their fixed effects; restricted likelihoods need the same")
    _check_three(m, full, null)
    return _restricted(m, null.criterion - full.criterion, full is m, n, seed, progress)


def _check_three(m: Fit, full: Fit, null: Fit) -> None:
    """Raise unless the full model has the terms of the null and the tested one, and nothing else.

    Raises
    ------
    DataError
    """
    own, whole, rest = (
        sorted((t.label, t.names, t.structure, np.asarray(t.codes).tobytes()) for t in design_of(f, "exact_rlrt").terms)
        for f in (m, full, null)
    )
    if sorted([*own, *rest]) != whole:
        raise DataError(
            f"exact_rlrt: the three models do not belong together: the full model mA has the terms "
            f"{_terms(full)}, which are not those of m ({_terms(m)}: the tested one alone) and of m0 ({_terms(null)}: "
            f"the others); the order is exact_rlrt(m, mA, m0), or give the full model and term="
        )


def _terms(m: Fit) -> str:
    return " + ".join(map(str, m.formula.bars)) or "none"


def _restricted(m: Fit, difference: float, exact: bool, n: int, seed: Any, progress: bool | None) -> ExactTest:
    rng, number = generator_of(seed, "exact_rlrt")
    mu, _, rank = spectrum(m)
    draws = restricted_draws(mu, m.nobs - rank, _count(n), rng, progress)
    return replace(_test("RLRT", difference, draws, exact, m), seed=number)


def exact_lrt(
    m: Fit, m0: Fit | None = None, n: int = 10_000, seed: Any = None, *, progress: bool | None = None
) -> ExactTest:
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
    progress : bool, optional
        Show how far draws of more than a second have come; default: where stderr is a terminal.

    Returns
    -------
    ExactTest

    Notes
    -----
    REML fits are fitted again by maximum likelihood.

    Raises
    ------
    NotAvailableError
        If the model is not linear or has another structure than one variance, or the null has random effects.
    DataError
        If the fixed effects of the null are not among those of the model.

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Reaction ~ Days + (1 | Subject)", rf.datasets.load("sleepstudy"))
    >>> rf.exact_lrt(m, m.update("Reaction ~ 1"), seed=1)
    LRT = 166.97, p < 0.0002 (10000 draws of the null distribution)
    """
    check_fit(m, "exact_lrt")
    m, m0 = _by_rows(m, "exact_lrt"), _by_rows(m0, "exact_lrt")
    _check(m, "exact_lrt")
    m = by_ml(m)
    if m0 is None:
        return _plain(m, _null(m), 0, n, seed, progress)
    check_fits([m0], "exact_lrt")
    null = by_ml(m0)
    check_same_data([m, null], "exact_lrt")
    if null.layout.terms or not null.task.linear:
        raise NotAvailableError("exact_lrt: the null is a linear model without random effects; see exact_rlrt")
    if not within(design_of(m, "exact_lrt").fixed, design_of(null, "exact_lrt").fixed, None, m.nobs):
        raise DataError("exact_lrt: the fixed effects of the null are not among those of the model")
    return _plain(m, null.criterion, m.estimate.rank - null.estimate.rank, n, seed, progress)


def _plain(m: Fit, null: float, left_out: int, n: int, seed: Any, progress: bool | None) -> ExactTest:
    rng, number = generator_of(seed, "exact_lrt")
    mu, xi, rank = spectrum(m)
    draws = plain_draws(mu, xi, m.nobs, rank, left_out, _count(n), rng, progress)
    return replace(_test("LRT", null - m.criterion, draws, True, m), seed=number)


def _test(name: str, difference: float, draws: Array, exact: bool, m: Fit) -> ExactTest:
    statistic = max(difference, 0.0)
    p = (1 + int((draws >= statistic).sum())) / (1 + len(draws))
    return ExactTest(name, statistic, p, draws, exact, m.layout.kind)


def _count(n: Any) -> int:
    if not isinstance(n, (int, np.integer)) or n < 1:
        raise OptionError(f"n={n!r} draws: give a positive whole number")
    return int(n)


# ---- the models ------------------------------------------------------------------------------------------------------


def _by_rows(m: Fit | None, what: str) -> Any:
    """Return a gaussian model with a row for each that frequency weights count; anything else as it is."""
    counted = isinstance(m, Fit) and m.distribution.is_gaussian_identity and m.call.frequency_weights is not None
    return on_repeated_rows(m, what) if isinstance(m, Fit) and counted else m


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


def _null(m: Fit) -> float:
    """Return the criterion of a model without its random effects, on the same rows."""
    task = replace(m.task, control=replace(m.task.control, start=None))
    return m.engine.estimate(replace(design_of(m, "the null model"), terms=()), task)[1].criterion


def _three(m: Fit, term: str) -> tuple[Fit, Fit, Fit]:
    """Return the model with the tested term alone, with all terms, and without the tested one."""
    base = on_own_rows(_reml(m))
    bar = _bar(base, term)
    others = tuple(b for b in base.formula.bars if b is not bar)
    alone = with_formula(base, "mean", replace(base.formula, bars=(bar,)))
    return alone, base if others else alone, with_formula(base, "mean", replace(base.formula, bars=others))


def _bar(m: Fit, term: str) -> Bar:
    squeezed = str(term).replace(" ", "")
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
    return positive(lowered(own, shared)), positive(np.sort(own)), basis.shape[1]


def lowered(own: Array, shared: Array) -> Array:
    """Return the eigenvalues, increasing, of diag(own) - shared shared', (q,) and (q, p).

    Equal entries of `own`, as levels with equally many rows have, may be rotated among each other until `shared` is 0
    in all but p of their rows: the others are eigenvalues as they are.
    """
    if len(own) <= FEW:
        return np.asarray(np.linalg.eigvalsh(np.diag(own) - shared @ shared.T), dtype=np.float64)
    order = np.argsort(own)
    starts = np.flatnonzero(np.r_[True, np.diff(own[order]) > SAME * own.max(initial=0.0)])
    kept, rows, values = [], [], []
    for run in np.split(order, starts[1:]):
        block = shared[run] if len(run) <= shared.shape[1] else np.asarray(np.linalg.qr(shared[run], mode="r"))
        rows.append(block)
        kept.append(own[run[: len(block)]])
        values.append(own[run[len(block) :]])
    inner = np.vstack(rows)
    values.append(np.linalg.eigvalsh(np.diag(np.concatenate(kept)) - inner @ inner.T))
    return np.sort(np.concatenate(values))


def orthogonal(x: Array) -> Array:
    """Return an orthonormal basis of the columns of x, (n, rank)."""
    unit = np.maximum(np.sqrt((x**2).sum(axis=0)), np.finfo(float).tiny)
    u, s, _ = np.linalg.svd(x / unit, full_matrices=False)
    return u[:, s > 1e-8 * s.max(initial=1.0)]


def positive(values: Array) -> Array:
    """Return the positive eigenvalues, the largest first."""
    return values[values > NONE * values.max(initial=0.0)][::-1]
