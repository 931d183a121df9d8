"""Overdispersion: Pearson's and the deviance statistic against their degrees of freedom, and standard errors by it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ranef.diagnose.messages import held, row_effect
from ranef.diagnose.residuals import residuals
from ranef.engines.estimate import Array
from ranef.errors import NotAvailableError, OptionError
from ranef.inference.noted import Note, NotedTable
from ranef.inference.wald import p_value
from ranef.model import check_fit, design_of

if TYPE_CHECKING:
    from ranef.model import Fit

#: What has a larger variance.
ALTERNATIVES = {
    "poisson": "'nbinom2', 'nbinom1' or a random effect for every row",
    "binomial": "'betabinomial' or a random effect for every row",
    "multinomial": "a random effect for every row",
}
SMALL = 5.0  # expected counts below which chi-square laws are doubtful
SURE = 0.05


def overdispersion(m: Fit) -> NotedTable:
    """Compare the spread of a response with the variance that its family gives it.

    Parameters
    ----------
    m : Fit
        With its rows, of a family that fixes the variance by the mean; of others the table comes with a note.

    Returns
    -------
    NotedTable
        Rows "pearson", sum (y - mu)^2 / Var(y), and, of families without a dispersion, "deviance", both given the
        random effects; columns `statistic`, `df` (rows less all parameters, of variances too), `ratio` and `p_value`,
        the upper tail of chi-square. Notes say where that law is doubtful and what the ratio suggests. Counts of J
        categories have sum (y - mu)^2 / mu over the categories, and J - 1 degrees of freedom a row with outcomes.

    Raises
    ------
    NotAvailableError
        Where the data cannot tell: single binary trials, categories, censored responses, a variance that is estimated,
        a parameter for every response.

    Notes
    -----
    Venables & Ripley (2002), Modern Applied Statistics with S, section 7.5: the ratio is trustworthy where expected
    counts are above 5.

    Examples
    --------
    >>> import ranef as rf
    >>> seeds = rf.datasets.load("ratings_seeds")
    >>> m = rf.fit("cbind(r, n - r) ~ seed * extract", seeds, family="binomial")
    >>> rf.overdispersion(m)["ratio"].round(4)
    array([1.8618, 1.9575])
    """
    check_fit(m, "overdispersion")
    if (why := _untold(m)) is not None:
        raise NotAvailableError(f"overdispersion: {why}")
    chi2, df = pearson_chisq(m)
    if df <= 0:
        raise NotAvailableError("overdispersion: the model has a parameter for every response: no spread is left")
    statistics = {"pearson": chi2, **_deviance(m)}
    values = np.array([*statistics.values()])
    columns = {
        "test": list(statistics),
        "statistic": values,
        "df": np.full(len(values), df),
        "ratio": values / df,
        "p_value": np.array([upper_tail(v, df) for v in values]),
    }
    return NotedTable("Dispersion", columns, tuple(_notes(m, chi2, df)), m.layout.kind)


def quasi_table(m: Fit, ratio: float | None = None) -> NotedTable:
    """Return the coefficients of the mean with standard errors times the root of a dispersion ratio.

    Parameters
    ----------
    m : Fit
        Of a family without a dispersion.
    ratio : float, optional
        Variance over that of the family; default Pearson's chi-square over its degrees of freedom.

    Returns
    -------
    NotedTable
        `term, estimate, std_error, statistic, p_value`, the last from the normal distribution.

    Raises
    ------
    NotAvailableError
        If the family has a dispersion of its own.
    OptionError
        If `ratio` is no number above 0.

    Notes
    -----
    McCullagh & Nelder (1989), section 9.2. A quasi-likelihood has no log-likelihood: compare models by
    `rf.compare(…, criterion="qaic", chat=ratio)`.

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("count ~ mined + (1 | site)", rf.datasets.load("Salamanders"), family="poisson")
    >>> rf.quasi_table(m)["std_error"].round(3)
    array([0.381, 0.479])
    """
    check_fit(m, "quasi_table")
    if "dispersion" in m.distribution.parameters or m.task.linear:
        raise NotAvailableError(f"quasi_table: family={m.family!r} has a dispersion of its own, which is in the table")
    ratio = float(overdispersion(m)["ratio"][0]) if ratio is None else ratio
    if not (isinstance(ratio, (int, float)) and np.isfinite(ratio) and ratio > 0):
        raise OptionError(f"quasi_table: ratio={ratio!r} must be a number above 0")
    mean = m.layout.component("mean")
    at = mean.at
    estimate = np.asarray(m.estimate.beta[at])
    error = np.sqrt(np.diag(m.estimate.vcov)[at] * ratio)
    statistic = estimate / error
    columns = {
        "term": list(mean.names),
        "estimate": estimate,
        "std_error": error,
        "statistic": statistic,
        "p_value": p_value(statistic, np.full(len(error), np.inf)),
    }
    note = Note("quasi", f"standard errors are those of the {m.family} model times sqrt({ratio:.4g})")
    return NotedTable("Fixed effects, quasi-likelihood", columns, (note,), m.layout.kind)


def pearson_chisq(m: Fit) -> tuple[float, float]:
    """Return sum (y - mu)^2 / Var(y) over the rows, each counted as often as its frequency, and its df."""
    design = design_of(m, "overdispersion")
    squares = residuals(m, "scaled") ** 2
    counts = np.ones(design.n) if design.frequencies is None else np.asarray(design.frequencies)
    if not m.distribution.counts:
        return float(np.nansum(counts * squares)), float(m.df_residual)
    told = counts * (_sizes(m)[:, 0] > 0)
    free = (m.distribution.categories - 1) * told.sum()
    return float(told @ np.nan_to_num(squares * (1 - m.fitted())).sum(axis=1)), float(free - m.npar)


def _sizes(m: Fit) -> Array:
    """Return how many outcomes the rows of counts of categories have, (n, 1)."""
    return np.asarray(design_of(m, "overdispersion").y).sum(axis=1, keepdims=True)


def telling(m: Fit) -> bool:
    """P29, P32: nothing can be told from single trials, little from counts that are expected below one."""
    mu, design = m.fitted(), design_of(m, "overdispersion")
    if m.distribution.counts:
        return float(np.median(_sizes(m) * mu)) >= 1
    if m.family == "poisson":
        return float(np.median(mu)) >= 1
    return design.trials is not None and float(np.median(design.trials * mu * (1 - mu))) >= 1


def underdispersed(m: Fit, chi2: float, df: float, share: float) -> bool:
    """Whether the spread is below `share` of what the family says, beyond what random effects take up.

    Residuals given the random effects are smaller than those of the model itself; how much the effects take up is at
    most their number, which is taken off the degrees of freedom.
    """
    left = df - sum(len(t.levels) * len(t.names) for t in m.layout.terms)
    return left > 0 and chi2 < share * left and 1 - upper_tail(chi2, left) < SURE


def upper_tail(statistic: float, df: float) -> float:
    """Return P(chi-square_df > statistic)."""
    from scipy.special import gammaincc

    return float(gammaincc(df / 2, statistic / 2))


def _deviance(m: Fit) -> dict[str, float]:
    if "dispersion" in m.distribution.parameters:
        return {}
    try:
        return {"deviance": m.deviance}
    except NotAvailableError:
        return {}


def _untold(m: Fit) -> str | None:
    """Return why a fit has no such ratio, or None."""
    family, design = m.distribution, design_of(m, "overdispersion")
    if family.counts and bool((_sizes(m) <= 1).all()):
        return "single outcomes cannot show it: no row counts two or more"
    if family.categorical and not family.counts:
        return "categories have no variance beside their probabilities"
    if m.formula.censored:
        return "the spread of censored responses is not known"
    if m.method == "pql":
        return f"penalised quasi-likelihood estimates it already: sigma^2 = {m.sigma**2:.4g}"
    if family.entry.support == "binomial" and design.trials is None:
        return "single trials (0 or 1) cannot show it: their variance is mu (1 - mu) whatever the model"
    if family.entry.name == "gaussian" and "dispersion" not in held(m):
        return "a gaussian model estimates its residual variance, so that the ratio is 1 by construction"
    return None


def _notes(m: Fit, chi2: float, df: float) -> Iterator[Note]:
    if "dispersion" in m.distribution.parameters and "dispersion" not in held(m):
        text = f"{m.family} estimates a dispersion: the ratio is near 1 whatever the spread, and tells little"
        yield Note("estimated", text)
        return
    if row_effect(m):
        yield Note(
            "row_effect", "the random effect of every row takes up what spread there is: the ratio tells nothing"
        )
        return
    if (share := _small_share(m)) > 0.5:
        text = f"{share:.0%} of the expected counts are below {SMALL:g}: the chi-square law is doubtful, simulate"
        yield Note("small_counts", text)
    p = upper_tail(chi2, df)
    if p < SURE:
        text = "overdispersed: standard errors are too small"
        yield Note("overdispersed", f"{text}; try {ALTERNATIVES[m.family]}" if m.family in ALTERNATIVES else text)
    if underdispersed(m, chi2, df, 1.0):
        text = "underdispersed: standard errors are too large"
        yield Note("underdispersed", text if m.distribution.counts else f"{text}; for counts try 'compois'")


def _small_share(m: Fit) -> float:
    """Return the share of rows with an expected count (of successes or failures) below 5; of categories, of counts."""
    mu, design = m.fitted(), design_of(m, "overdispersion")
    if m.distribution.counts:
        return float(np.mean(_sizes(m) * mu < SMALL))
    if m.distribution.entry.support == "binomial":
        trials: Array | float = 1.0 if design.trials is None else design.trials
        return float(np.mean(trials * np.minimum(mu, 1 - mu) < SMALL))
    return float(np.mean(mu < SMALL)) if m.distribution.entry.support == "count" else 0.0
