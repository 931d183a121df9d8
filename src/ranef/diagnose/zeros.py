"""Zeros: how many there are, and how many the model expects."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ranef.errors import NotAvailableError
from ranef.inference.noted import Note, NotedTable
from ranef.inference.wald import p_value
from ranef.model import check_fit, design_of
from ranef.predict.rows import fitted_predictors, law

if TYPE_CHECKING:
    from ranef.model import Fit

SURE = 0.05
MANY = 0.3  # a share of zeros that makes people think of zero inflation


def zeros(m: Fit) -> NotedTable:
    """Compare the number of zeros with what the model expects, given its random effects.

    Parameters
    ----------
    m : Fit
        Of counts or of a non-negative response that can be 0, with its rows.

    Returns
    -------
    NotedTable
        One row: `observed`, `expected` (the sum of P(Y = 0)), `std_dev` of their number (independent rows of different
        probabilities: sum p (1 - p)), `statistic` and `p_value` (two-sided, normal; conservative, because the
        parameters were estimated from the same zeros). A note says what it means.

    Raises
    ------
    NotAvailableError
        Where no zero is possible, or the family tells no probability of one.

    Notes
    -----
    Many zeros alone are no zero inflation: small means have many (Warton 2005, Environmetrics 16, 275-289).

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("count ~ mined + (1 | site)", rf.datasets.load("Salamanders"), family="poisson")
    >>> table = rf.zeros(m)
    >>> int(table["observed"][0]), round(float(table["expected"][0]))
    (387, 279)
    """
    check_fit(m, "zeros")
    if (why := _impossible(m)) is not None:
        raise NotAvailableError(f"zeros: {why}")
    design = design_of(m, "zeros")
    rows, eta = fitted_predictors(m, "zeros")
    nothing = replace(rows.data, y=np.zeros(rows.n))
    p = np.clip(law(m).cdf(eta, nothing)[1], 0.0, 1.0)
    counts = np.ones(rows.n) if design.frequencies is None else np.asarray(design.frequencies)
    observed, expected = float(counts @ (np.asarray(design.y) == 0)), float(counts @ p)
    sd = float(np.sqrt(counts @ (p * (1 - p))))
    z = np.array([(observed - expected) / sd if sd > 0 else np.nan])
    columns = {
        "observed": np.array([observed]),
        "expected": np.array([expected]),
        "std_dev": np.array([sd]),
        "statistic": z,
        "p_value": p_value(z, np.array([np.inf])),
    }
    return NotedTable("Zeros", columns, (_meaning(m, columns, float(counts.sum())),), m.layout.kind)


def _meaning(m: Fit, columns: dict[str, np.ndarray], n: float) -> Note:
    observed, expected = float(columns["observed"][0]), float(columns["expected"][0])
    found = f"{observed:g} zeros in {n:g} rows, {expected:.4g} expected"
    if not columns["p_value"][0] < SURE:
        many = (
            "many zeros are not zero inflation: " if observed > MANY * n and not m.distribution.zero_inflation else ""
        )
        return Note("as_expected", f"{many}{found}")
    if observed < expected:
        return Note("too_few", f"{found}: fewer than the model expects")
    more = "" if m.distribution.zero_inflation else "; see whether another dispersion or zero_inflation= fits better"
    return Note("too_many", f"{found}: more than the model expects{more}")


def _impossible(m: Fit) -> str | None:
    """Return why there is nothing to compare, or None."""
    family = m.distribution
    if family.entry.support not in ("count", "nonnegative") and not family.zero_inflation:
        return f"family={family.name!r} has no zeros to count"
    if family.truncated and not family.zero_inflation:
        return f"family={family.name!r} has no zeros"
    if family.bounded and m.design is not None and m.design.bounds is not None and m.design.bounds[:, 0].min() > 0:
        return "the bounds of the response leave out zeros"
    if family.custom is not None:
        return "a custom family tells no probability of a zero"
    if m.method == "pql":
        return "penalised quasi-likelihood has no probabilities"
    return "the zeros of censored responses are not known" if m.formula.censored else None
