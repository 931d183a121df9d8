"""Coefficients of population averages, where those of a generalised mixed model hold given the random effects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ranef.engines.estimate import Array
from ranef.errors import NotAvailableError
from ranef.families import link_of
from ranef.frame.design import matrix
from ranef.inference.dummies import written_out
from ranef.inference.noted import Note, NotedTable
from ranef.model import check_fit, design_of
from ranef.predict.rows import fitted_design

if TYPE_CHECKING:
    from ranef.model import Fit

CLOSE = 1e-6


def marginal_coefficients(m: Fit) -> NotedTable:
    """Return coefficients of the population average beside those given the random effects.

    Parameters
    ----------
    m : Fit
        Generalised, with random effects and its rows.

    Returns
    -------
    NotedTable
        `term, conditional, marginal`. The latter are those of the least-squares regression of g(E(y)) on the columns
        of the mean, E(y) being the expected response averaged over the distribution of the random effects; where that
        fits exactly (a saturated mean) they are the coefficients of the averages, else the nearest ones, and a note
        says how near.

    Raises
    ------
    NotAvailableError
        Where the response has more than one predictor (extra zeros, truncation, categories).

    Notes
    -----
    Hedeker, du Toit, Demirtas & Gibbons (2018), Biometrics 74, 354-361. Under a log link a random intercept of variance
    v moves the intercept by v / 2 and nothing else; under a logit link all coefficients shrink.

    Examples
    --------
    >>> import ranef as rf
    >>> formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    >>> m = rf.fit(formula, rf.datasets.load("cbpp"), family="binomial", quadrature=11)
    >>> rf.marginal_coefficients(m)["marginal"].round(3)
    array([-1.288, -0.94 , -1.072, -1.51 ])
    """
    check_fit(m, "marginal_coefficients")
    if not m.distribution.plain_mean or m.distribution.categorical:
        raise NotAvailableError(
            "marginal_coefficients: the expected response has several predictors; average it by predict(re='integrate')"
        )
    m = written_out(m)
    rows = fitted_design(m, "marginal_coefficients")
    part = m.layout.components[0]
    conditional = np.asarray(m.estimate.beta[part.at])
    average = np.asarray(m.predict(re="integrate"))
    eta = np.asarray(link_of(m.link).forward(average)) - (0.0 if rows.offset is None else rows.offset)
    kept = np.flatnonzero(~np.isnan(conditional))
    x = matrix(rows.fixed, rows.n)[:, kept]
    marginal = np.full(len(conditional), np.nan)
    counts = design_of(m, "marginal_coefficients").frequencies
    root = np.ones(rows.n) if counts is None else np.sqrt(np.asarray(counts, dtype=np.float64))
    marginal[kept] = np.linalg.lstsq(x * root[:, None], eta * root, rcond=None)[0]
    columns = {"term": list(part.names), "conditional": conditional, "marginal": marginal}
    return NotedTable("Marginal coefficients", columns, _nearness(eta, x @ marginal[kept]), m.layout.kind)


def _nearness(eta: Array, fitted: Array) -> tuple[Note, ...]:
    largest = float(np.abs(eta - fitted).max(initial=0.0))
    if largest <= CLOSE * max(1.0, float(np.ptp(eta))):
        return ()
    return (Note("nearest", f"the averages are not linear on the link scale: they differ by up to {largest:.2g}"),)
