"""Vuong's test of two models that are not nested, from the likelihood contributions of independent units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.criteria.contributions import contributions, units
from ranef.engines.estimate import Array
from ranef.errors import DataError, NotAvailableError
from ranef.inference.comparable import (
    by_ml,
    check_maximised,
    check_quadrature,
    check_same_data,
    fits_of,
    names_of_models,
)
from ranef.inference.nested import FAMILIES, extension
from ranef.inference.noted import Note, NotedTable, numbers
from ranef.inference.resampling import whole_counts

if TYPE_CHECKING:
    from ranef.model import Fit

FEW_UNITS = 20


@dataclass(frozen=True, eq=False, repr=False)
class VuongTest:
    """Vuong's test.

    Attributes
    ----------
    table : NotedTable
        `correction` ("none", "aic", "bic"), `statistic` (positive: the first model is nearer to the truth), `p_value`
        (two-sided), `favoured` (1, 2, or 0 where the test does not tell at 5 %).
    differences : (U,) array
        Log-likelihood contributions of the first minus those of the second model, one an independent unit.
    units : int
        How many there are.
    """

    table: NotedTable
    differences: Array
    units: int

    def to_frame(self) -> Any:
        """Return `table` as a frame."""
        return self.table.to_frame()

    def __repr__(self) -> str:
        return repr(self.table)


def vuong(m1: Fit, m2: Fit) -> VuongTest:
    """Test which of two models that are not nested is nearer to the truth in Kullback-Leibler divergence.

    Parameters
    ----------
    m1, m2 : Fit
        Fits of the same rows of the same response; REML fits are fitted again by maximum likelihood.

    Returns
    -------
    VuongTest
        sqrt(U) mean / SD of the differences of the log-likelihoods of U independent units (groups that share no random
        effect in either model; rows where there are none), plain and less the penalties of AIC and BIC.

    Raises
    ------
    DataError
        If one model contains the other: then the likelihood ratio is the test.
    NotAvailableError
        If the random effects are crossed, so that no units are independent; or if a model has zero inflation and the
        other is its family, or a case of it, without: that is null on the boundary, where the test has no standard
        normal limit (Wilson 2015).

    References
    ----------
    Vuong (1989), Econometrica 57, 307-333; Wilson (2015), Economics Letters 127, 51-53.

    Examples
    --------
    >>> import ranef as rf
    >>> salamanders = rf.datasets.load("Salamanders")
    >>> m1, m2 = (rf.fit("count ~ mined + (1 | site)", salamanders, family=f) for f in ("nbinom1", "nbinom2"))
    >>> rf.vuong(m1, m2).table["statistic"].round(3)
    array([1.134, 1.134, 1.134])
    """
    fits = fits_of((m1, m2), "vuong")
    check_same_data(fits, "vuong")
    check_maximised(fits, "vuong")
    check_quadrature(fits, "vuong")
    m1, m2 = (by_ml(m) for m in fits)
    _check_apart(m1, m2)
    unit = units([m1, m2])
    count = int(unit.max()) + 1
    if count < 2:
        raise NotAvailableError(
            "vuong: the random effects connect all rows (crossed groups), so there are no independent units to "
            "compare; use information criteria, or rf.pb_test of a model that contains both"
        )
    differences = contributions(m1, unit) - contributions(m2, unit)
    if np.ptp(differences) < 1e-9 * max(1.0, abs(m1.loglik) / count):
        raise DataError("vuong: the models have the same likelihood in every unit: they cannot be told apart")
    if not (m1.layout.terms or m2.layout.terms) and (stands := whole_counts(m1, "vuong")) is not None:
        differences = np.repeat(differences / stands, stands)  # units are the rows that a row stands for
    return VuongTest(_table(m1, m2, differences, [m.method for m in fits]), differences, len(differences))


def _check_apart(m1: Fit, m2: Fit) -> None:
    plain, inflated = sorted((m.distribution for m in (m1, m2)), key=lambda d: d.zero_inflation)
    contained = plain.name == inflated.name or (plain.name, inflated.name) in FAMILIES
    if plain.zero_inflation != inflated.zero_inflation and contained:
        raise NotAvailableError(
            "vuong: the test is invalid for zero inflation: the models share a boundary, where its limit is not normal "
            "(Wilson 2015); use rf.anova with its boundary mixture, rf.pb_test, or compare simulated numbers of zeros"
        )
    small, large = sorted((m1, m2), key=lambda m: m.npar)
    if not extension(small, large).obstacles:
        names = names_of_models([small, large])
        raise DataError(f"vuong: {names[0]} is nested in {names[1]}: compare them by rf.anova")


def _table(m1: Fit, m2: Fit, differences: Array, methods: list[str]) -> NotedTable:
    from scipy.special import ndtr

    count = len(differences)
    spread = np.sqrt(count) * float(differences.std())
    extra = m1.npar - m2.npar
    penalty = np.array([0.0, extra, extra * np.log(count) / 2])
    z = (float(differences.sum()) - penalty) / spread
    p = 2 * ndtr(-np.abs(z))
    columns = {
        "correction": ["none", "aic", "bic"],
        "statistic": numbers(z),
        "p_value": numbers(p),
        "favoured": np.where(p < 0.05, np.where(z > 0, 1, 2), 0),
    }
    title = "Vuong's test: 1 = {}, 2 = {}".format(*names_of_models([m1, m2]))
    return NotedTable(title, columns, tuple(_notes(m1, count, methods)), m1.layout.kind)


def _notes(m: Fit, count: int, methods: list[str]) -> list[Note]:
    what = "independent groups" if count < m.layout.counted else "rows"
    notes = [Note("units", f"{count} {what}; a positive statistic favours model 1")]
    if "reml" in methods:
        notes.append(Note("refitted", "refitted by maximum likelihood"))
    if count < FEW_UNITS:
        notes.append(Note("few_units", f"the normal limit is that of many independent units; here are {count}"))
    text = "normal only if the models can be told apart: where their contributions hardly vary the test says little"
    return [*notes, Note("overlapping", text)]
