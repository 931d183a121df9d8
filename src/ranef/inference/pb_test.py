"""The parametric-bootstrap likelihood-ratio test: responses drawn from the smaller model, both models fitted to each.

Halekoh & Hojsgaard (2014). Every draw counts: a ratio that rounding makes negative, or that is 0 because the larger
model's variance is estimated 0, is a 0, so that the p-value is right on the boundary too; fits that fail are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines import laplace
from ranef.engines.estimate import Array, Result
from ranef.errors import DataError, NotAvailableError, RanefError
from ranef.inference.chibar import tail
from ranef.inference.comparable import check_maximised, check_same_data, fits_of, same_criterion
from ranef.inference.nested import extension
from ranef.inference.noted import Note, NotedTable, numbers
from ranef.inference.resampling import TOO_MANY, count_of, drawable, generator_of, threads_of
from ranef.model import design_of
from ranef.progress import Progress

if TYPE_CHECKING:
    from ranef.model import Fit

PART = 100  # draws that are fitted before progress is told
BLOCK = 20_000_000  # numbers of a block of drawn responses
AT_ZERO = 0.1  # share of ratios of 0 above which the null lies on the boundary
NEGATIVE = 1e-4  # a ratio below minus this is no rounding


@dataclass(frozen=True, eq=False, repr=False)
class BootstrapTest:
    """A parametric-bootstrap likelihood-ratio test.

    Attributes
    ----------
    statistic : float
        The observed likelihood ratio.
    df : int
        Parameters that the larger model adds.
    p_value : float
        (1 + extreme) / (1 + used).
    draws : (used,) array
        Ratios of the draws, not negative.
    requested, used, extreme : int
        Draws asked for, draws that both models could be fitted to, those with a ratio not below the observed one.
    at_zero, negative : int
        Draws with a ratio of 0; those whose ratio was below -1e-4 (counted as 0: an optimum was missed).
    failures : dict
        Why draws failed -> how many.
    seed : int or None
        With which the draws come again; None where a generator drew them.
    table : NotedTable
        `test, statistic, df, ddf, p_value` of LRT (chi-square), PBtest, Bartlett, Gamma and F.
    """

    statistic: float
    df: int
    p_value: float
    draws: Array
    requested: int
    used: int
    extreme: int
    at_zero: int
    negative: int
    failures: dict[str, int]
    table: NotedTable
    seed: int | None = None

    def to_frame(self) -> Any:
        """Return `table` as a frame."""
        return self.table.to_frame()

    def __repr__(self) -> str:
        return repr(self.table)


def pb_test(
    m1: Fit,
    m0: Fit,
    n: int = 1_000,
    seed: Any = None,
    *,
    nested: bool = False,
    threads: int | None = None,
    progress: bool | None = None,
) -> BootstrapTest:
    """Test a smaller against a larger model by a parametric bootstrap of the likelihood ratio.

    Parameters
    ----------
    m1, m0 : Fit
        The larger and the smaller model, in either order. REML fits are fitted again by maximum likelihood where the
        fixed effects differ.
    n : int
        Draws from the smaller model; both models are fitted to each (linear ones in the core, in parallel).
    seed : int or numpy Generator, optional
        Same seed, same result, whatever the number of threads.
    nested : bool
        You know that the larger model contains the smaller one, where that cannot be seen.
    threads : int, optional
        Default: those of the fits.
    progress : bool, optional
        Show how far work of more than a second has come; default: where stderr is a terminal.

    Returns
    -------
    BootstrapTest

    Raises
    ------
    DataError
        If the models are not comparable, or more than a tenth of the draws could not be fitted.
    NotAvailableError
        If responses are censored: a drawn one does not say which.

    Notes
    -----
    Bartlett: the ratio times df / mean of the draws is chi-square. Gamma: with the mean and variance of the draws. F:
    the ratio over df, with the denominator degrees of freedom that give the mean of the draws, 2 r / (r - 1) for
    r = mean / df; NaN where r <= 1. On the boundary of a variance (`at_zero` large) only PBtest is to be read.

    Examples
    --------
    >>> import ranef as rf
    >>> sleep = rf.datasets.load("sleepstudy")
    >>> m1 = rf.fit("Reaction ~ Days + (1 | Subject)", sleep)
    >>> m0 = rf.fit("Reaction ~ 1 + (1 | Subject)", sleep)
    >>> rf.pb_test(m1, m0, n=99, seed=1).p_value
    0.01
    """
    fits = fits_of((m1, m0), "pb_test")
    n, (rng, number) = count_of(n, "pb_test"), generator_of(seed, "pb_test")
    threads = threads_of(threads, "pb_test")
    check_same_data(fits, "pb_test")
    check_maximised(fits, "pb_test")
    fits, notes = same_criterion(fits, True, "pb_test")
    fits = [drawable(m, "pb_test") for m in fits]
    small, large = sorted(fits, key=lambda m: m.npar)
    obstacles = extension(small, large).obstacles
    if obstacles and not nested:
        raise DataError(f"pb_test: the models are not nested: {'; '.join(obstacles)}; see rf.vuong")
    pair = (small, large) if threads is None else (on_threads(small, threads), on_threads(large, threads))
    with Progress("parametric bootstrap test", n, progress) as shown:
        ratios, failures = drawn_ratios(*pair, n, rng, shown)
    if len(ratios) < (1 - TOO_MANY) * n:
        raise DataError(f"pb_test: {n - len(ratios)} of {n} draws could not be fitted: {listed(failures)}")
    return replace(result(small, large, n, ratios, failures, notes), seed=number)


def on_threads(m: Fit, threads: int) -> Fit:
    """Return the fit with another number of threads for refits."""
    return replace(m, task=replace(m.task, control=replace(m.task.control, threads=threads)))


def result(
    small: Fit, large: Fit, n: int, ratios: Array, failures: dict[str, int], notes: Sequence[Note]
) -> BootstrapTest:
    """Return the test from the ratios of the draws."""
    observed, df = max(small.criterion - large.criterion, 0.0), large.npar - small.npar
    draws = np.maximum(ratios, 0.0)
    draws = np.where(draws < 1e-8, 0.0, draws)
    extreme, negative = int((draws >= observed).sum()), int((ratios < -NEGATIVE).sum())
    zero = int((draws == 0).sum())
    p = (1 + extreme) / (1 + len(draws))
    columns = {"test": ["LRT", "PBtest", "Bartlett", "Gamma", "F"], **_approximations(observed, df, draws, p)}
    said = _counts(n, draws, extreme, zero, negative, failures)
    table = NotedTable(f"Parametric bootstrap of {large.formula} against {small.formula}", columns, (*notes, *said),
                       small.layout.kind)  # fmt: skip
    return BootstrapTest(observed, df, p, draws, n, len(draws), extreme, zero, negative, failures, table)


def _approximations(observed: float, df: int, draws: Array, p: float) -> dict[str, Any]:
    """Return the columns of the five tests."""
    from scipy.special import fdtrc, gammaincc

    inside = (draws == 0).mean() <= AT_ZERO and len(draws) > 1
    mean, var = (float(draws.mean()), float(draws.var(ddof=1))) if inside else (np.nan, np.nan)
    bartlett = observed * df / mean if mean > 0 else np.nan
    shape, scale = (mean**2 / var, var / mean) if var > 0 else (np.nan, np.nan)
    inflation = mean / df
    ddf = 2 * inflation / (inflation - 1) if inflation > 1 else np.nan
    return {
        "statistic": numbers([observed, observed, bartlett, observed, observed / df]),
        "df": numbers([df, None, df, None, df]),
        "ddf": numbers([None, None, None, None, ddf]),
        "p_value": numbers([
            tail(observed, df), p, tail(bartlett, df), float(gammaincc(shape, observed / scale)),
            float(fdtrc(df, ddf, observed / df)),
        ]),
    }  # fmt: skip


def _counts(n: int, draws: Array, extreme: int, zero: int, negative: int, failures: dict[str, int]) -> list[Note]:
    notes = [Note("draws", f"{n} draws, {len(draws)} used, {extreme} not below the observed ratio, {zero} of 0")]
    if failures:
        notes.append(Note("failures", f"draws that could not be fitted: {listed(failures)}"))
    if negative:
        notes.append(Note("negative", f"{negative} ratios below -{NEGATIVE:g}, counted as 0: an optimum was missed"))
    if zero > AT_ZERO * len(draws):
        text = "the null lies on the boundary: LRT is conservative, Bartlett, Gamma and F do not apply, PBtest holds"
        notes.append(Note("boundary", text))
    return notes


def listed(failures: dict[str, int]) -> str:
    """Return the commonest reasons with their counts."""
    first = sorted(failures.items(), key=lambda item: -item[1])
    return "; ".join(f"{why}: {count}" for why, count in first[:3]) + ("; …" if len(first) > 3 else "")


# ---- draws -----------------------------------------------------------------------------------------------------------


def drawn_ratios(
    small: Fit, large: Fit, n: int, rng: np.random.Generator, shown: Progress | None = None
) -> tuple[Array, dict[str, int]]:
    """Return the likelihood ratios of `n` responses drawn from the smaller model, and why others failed."""
    ratios, failures, size = [], {}, max(1, BLOCK // small.nobs)
    for start in range(0, n, size):
        responses = small.simulate(min(size, n - start), seed=rng)
        for some in np.array_split(responses, range(PART, responses.shape[1], PART), axis=1):
            some = np.ascontiguousarray(some)
            for a, b in zip(criteria(small, some), criteria(large, some), strict=True):
                why = next((x for x in (a, b) if isinstance(x, str)), None)
                if why is not None:
                    failures[why] = failures.get(why, 0) + 1
                else:
                    ratios.append(float(a) - float(b))
            if shown is not None:
                shown.advance(some.shape[1])
    return np.array(ratios), failures


def criteria(m: Fit, responses: Array) -> list[float | str]:
    """Return -2 log-likelihood (or the REML criterion) of the model fitted to each response, or why it failed."""
    return [x if isinstance(x, str) else x.criterion for x in estimates(m, responses)]


def estimates(m: Fit, responses: Array) -> list[Result | str]:
    """Return the estimate of the model for each column of responses, (n, m), or why there is none."""
    ordinal = m.distribution.entry.ordinal
    shared = m.call.sampling_weights is None and (not ordinal or m.engine is laplace.ENGINE)
    each = [] if shared and not m.distribution.counts else np.moveaxis(responses, 1, 0)
    found = [_one(m, y) for y in each] or m.engine.many(design_of(m, "refits"), responses, m.task, False)
    return [f"not converged: {x.outcome}" if not isinstance(x, str) and x.outcome != "converged" else x for x in found]


def _one(m: Fit, y: Array) -> Result | str:
    family = m.distribution
    if family.entry.ordinal and not family.counts and len(np.unique(y)) < family.categories:
        return "a category without rows"
    try:
        return m.refit(y).estimate
    except NotAvailableError:
        raise
    except (RanefError, ValueError) as error:
        return str(error).splitlines()[0]
