"""Heritability: the share of the variance that additive genetic effects have, on the scales of a generalised model.

With the latent l = eta + a + … normal around the fixed part, mu(l) and V(l) mean and variance of the response,

    mean = E mu(l),   Psi = E d mu / d l,   additive = Psi^2 V_A,   phenotypic = Var mu(l) + E V(l),

h2 = additive / phenotypic on the scale of the response (de Villemereuil, Schielzeth, Nakagawa & Morrissey 2016,
equations 5-14). Expectations over the random effects are Gauss-Hermite sums; Psi comes from them by Stein's lemma,
E d mu / d l = E mu(l) (l - eta) / Var(l).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.criteria.shares import check_kind, checked, uncertain
from ranef.criteria.variances import LATENT, answers_of, counts_of
from ranef.engines.estimate import Array
from ranef.errors import NotAvailableError, OptionError, nearest
from ranef.formula.groups import group_named
from ranef.inference.noted import NotedTable
from ranef.model import check_fit
from ranef.predict.rows import fitted_design, predictors, prior_variance, terms_of

if TYPE_CHECKING:
    from ranef.model import Fit
    from ranef.predict.rows import Rows

NODES = 41


def heritability(
    m: Fit,
    group: str | None = None,
    kind: str = "adjusted",
    *,
    conf_int: str | bool | None = None,
    conf_level: float = 0.95,
    n: int = 1000,
    seed: int | None = None,
) -> NotedTable:
    """Return the heritability of a trait on the latent scale and on that of the response.

    Parameters
    ----------
    m : Fit
        With its rows and a random intercept of the additive effects.
    group : str, optional
        Its grouping factor; default the one whose levels are related, `cov={"animal": …}` or `precision=` of `fit`.
    kind : "adjusted" | "conditional"
        At the average of the fixed part; or over all rows, so that what fixed effects make of the response is part of
        the phenotypic variance, and the average slope that of the population at hand, as the article prefers.
    conf_int : "wald" | "boot", optional
        Add `std_error, conf_low, conf_high` of `h2`: by the delta method on the joint covariance of all parameters
        with intervals on the logit scale (also True), or by the parametric bootstrap with percentile intervals.
    conf_level : float
    n, seed : int
        Of the bootstrap: refits, and what draws them.

    Returns
    -------
    NotedTable
        `scale, mean, additive, phenotypic, h2`: "latent" (that of the linear predictor, without the variance of the
        distribution), "liability" (binomial models: with that of the link, 1 for a probit), and "response", one trial
        of a binomial; gaussian models have the last only.

    Raises
    ------
    OptionError
        If there is no such group or kind.
    NotAvailableError
        If the additive effects are no random intercept of the mean, other linear predictors have random effects, or
        responses are categories.

    Examples
    --------
    >>> import ranef as rf
    >>> d = rf.datasets.load("cbpp")
    >>> m = rf.fit("cbind(incidence, size - incidence) ~ period + (1 | herd)", d, family="binomial")
    >>> rf.heritability(m, "herd")["h2"].round(3)
    array([1.   , 0.111, 0.036])
    """
    check_fit(m, "heritability")
    check_kind(kind, "heritability")
    if m.distribution.categorical:
        raise NotAvailableError("heritability: responses that are categories have no mean; rf.icc has their latent one")
    how = checked(conf_int, "heritability")
    at = _additive(m, group)
    columns, notes = _columns(m, at, kind), ()
    if how is not None:
        more = uncertain(m, lambda fit: _columns(fit, at, kind)["h2"], how, conf_level, n, seed)
        columns, notes = columns | more.columns(), more.notes
    title = f"Heritability ({kind}), additive effects of {m.layout.terms[at].label}"
    return NotedTable(title, columns, notes, m.layout.kind)


def _columns(m: Fit, at: int, kind: str) -> dict[str, Any]:
    """Return `scale, mean, additive, phenotypic, h2` of the additive effects of a term."""
    additive = float(m.estimate.covariances[at][0, 0])
    rows = fitted_design(m, "heritability")
    eta, spread, counts = _latent(m, rows, kind)
    latent = float(counts @ spread) + _variance(eta[:, 0], counts)
    center = float(counts @ eta[:, 0])
    if m.distribution.is_gaussian_identity:
        scales = []
    else:
        scales = [("latent", center, additive, latent)]
        if m.family == "binomial" and m.link in LATENT:
            scales.append(("liability", center, additive, latent + float(LATENT[m.link])))
    mean, slope, total = _on_response(m, eta, spread, counts)
    scales.append(("response", mean, slope**2 * additive, total))
    values = np.array([row[1:] for row in scales])
    columns: dict[str, Any] = {"scale": [row[0] for row in scales]}
    columns |= dict(zip(("mean", "additive", "phenotypic"), values.T, strict=True))
    columns["h2"] = np.divide(values[:, 1], values[:, 2], out=np.zeros(len(values)), where=values[:, 2] > 0)
    return columns


def _additive(m: Fit, group: str | None) -> int:
    """Return the position of the term of the additive effects."""
    infos = m.layout.terms
    if any(t.component != "mean" or t.owners for t in infos):
        raise NotAvailableError("heritability: random effects outside the mean's linear predictor have no place in it")
    if not infos:
        raise NotAvailableError("heritability: the model has no random effects")
    if group is None:
        related = [] if m.design is None else [t for t, term in enumerate(m.design.terms) if term.relation is not None]
        if len(related) != 1:
            labels = ", ".join(repr(t.label) for t in infos) or "none"
            raise OptionError(f"heritability: say whose effects are additive, group=…; the model has {labels}")
        found = related[0]
    else:
        own = group_named(group, dict.fromkeys(info.label for info in infos))
        mine = [t for t, info in enumerate(infos) if info.label == own]
        if not mine:
            raise OptionError(f"heritability: there is no group {group!r}; {nearest(group, [t.label for t in infos])}")
        found = mine[0] if len(mine) == 1 else -1
    if found < 0 or infos[found].names != ("(Intercept)",):
        raise NotAvailableError(
            f"heritability: additive effects that differ with a covariate have no one variance; {group!r} must be one "
            f"random intercept, (1 | {group})"
        )
    return found


def _latent(m: Fit, rows: Rows, kind: str) -> tuple[Array, Array, Array]:
    """Return predictors, variances of the random effects around them and weights that sum to 1, of rows or their mean.

    The variances are those of the base population, without inbreeding (K_ii = 1).
    """
    eta = predictors(m, rows, [False] * len(rows.terms))
    counts = counts_of(m) / counts_of(m).sum()
    spread = np.zeros(rows.n)
    for t in terms_of(m, 0):
        spread += prior_variance(replace(rows.terms[t], relation=None), m.estimate.covariances[t], rows.n)
    if kind == "conditional":
        return eta, spread, counts
    return (counts @ eta)[None, :], np.array([counts @ spread]), np.ones(1)


def _variance(x: Array, weights: Array) -> float:
    """Return the variance of some numbers with weights that sum to 1."""
    return float(weights @ (x - weights @ x) ** 2)


def _on_response(m: Fit, eta: Array, spread: Array, counts: Array) -> tuple[float, float, float]:
    """Return mean, average slope and variance of the response."""
    x, w = np.polynomial.hermite_e.hermegauss(NODES)
    w = w / w.sum()
    root = np.sqrt(spread)
    mean = slope = square = noise = 0.0
    for z, weight in zip(x, w, strict=True):
        at = eta.copy()
        at[:, 0] += root * z
        mu, variance = answers_of(m, at)
        mean += weight * float(counts @ mu)
        square += weight * float(counts @ mu**2)
        noise += weight * float(counts @ variance)
        slope += weight * z * float(counts @ np.divide(mu, root, out=np.zeros_like(mu), where=root > 0))
    return mean, slope, square - mean**2 + noise
