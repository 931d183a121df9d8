"""Repeatability: the share of the variance that lies between the levels of each grouping factor, with its uncertainty.

On the scale of the link it is the intraclass correlation. On the scale of the response, with u ~ N(0, s_g^2) the effect
of the group and r ~ N(0, s_r^2) all others, around the average c of the fixed part,

    R = Var_u(E_r mu(c + u + r)) / (Var_ur(mu(c + u + r)) + E_ur V(c + u + r))

with mu and V the mean and variance of the response (Nakagawa & Schielzeth 2010; de Villemereuil et al. 2016); the
integrals by Gauss-Hermite quadrature. For Poisson models it is their closed form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.criteria.icc import denominator
from ranef.criteria.shares import checked, uncertain
from ranef.criteria.variances import Variances, variances
from ranef.engines.estimate import Array, Result
from ranef.errors import DataError, NotAvailableError, OptionError
from ranef.families import Data
from ranef.inference.noted import Note, NotedTable
from ranef.inference.pb_test import PART, estimates
from ranef.inference.resampling import TOO_MANY, drawable, generator_of
from ranef.inference.wald import quantile
from ranef.model import check_fit
from ranef.predict.rows import fitted_design, law_before_bounds, linear_predictor, predictors
from ranef.progress import Progress

if TYPE_CHECKING:
    from ranef.model import Fit

NODES = 30
REFITS = 1000  # of a bootstrap that does not say how many


def repeatability(
    m: Fit,
    n_boot: int = 0,
    seed: Any = None,
    *,
    kind: str = "adjusted",
    method: str = "auto",
    conf_int: str | bool | None = None,
    conf_level: float = 0.95,
    progress: bool | None = None,
) -> NotedTable:
    """Return the repeatability of each grouping factor.

    Parameters
    ----------
    m : Fit
        With its rows and random effects of the mean.
    n_boot : int
        Refits to responses drawn from the fit, for standard errors and percentile intervals; 0: none.
    seed : int or numpy Generator, optional
        Same seed, same intervals.
    kind : "adjusted" | "conditional"
        Without or with the variance of the fixed effects among the total (on the scale of the link).
    method : str
        For the residual variance of other than gaussian models, see `ranef.criteria.variances`.
    conf_int : "wald" | "boot", optional
        "wald" (also True): standard errors by the delta method on the joint covariance of all parameters, intervals on
        the logit scale. "boot": what `n_boot=1000` does, or as many as `n_boot` says.
    conf_level : float
    progress : bool, optional
        Show how far refits of more than a second have come; default: where stderr is a terminal.

    Returns
    -------
    NotedTable
        `group, scale` ("link", "response"; one row where they are the same), `repeatability`, and with `n_boot` or
        `conf_int` `std_error, conf_low, conf_high`.

    Raises
    ------
    OptionError
        If an argument has a value that it does not take.
    NotAvailableError
        If the model has no repeatability of that kind, or cannot be simulated from.
    DataError
        If more than a tenth of the refits fail.

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.load("Dyestuff"))
    >>> round(float(rf.repeatability(m)["repeatability"][0]), 3)
    0.418
    """
    check_fit(m, "repeatability")
    _check(n_boot, conf_level)
    rows = figures(m, kind, method)
    columns: dict[str, Any] = {
        "group": [group for group, _, _ in rows],
        "scale": [scale for _, scale, _ in rows],
        "repeatability": np.array([value for _, _, value in rows]),
    }
    notes: list[Note] = []
    how = checked(conf_int, "repeatability")
    if how == "wald" and n_boot:
        raise OptionError("repeatability: n_boot= goes with conf_int='boot'")
    n_boot = n_boot or REFITS * (how == "boot")
    if how == "wald":
        wald = uncertain(m, lambda fit: np.array([r[-1] for r in figures(fit, kind, method)]), how, conf_level, 0, None)
        columns |= wald.columns()
        notes += wald.notes
    if n_boot:
        rng, number = generator_of(seed, "repeatability")
        draws, failed = bootstrap(m, n_boot, rng, kind, method, progress)
        tail = (1 - conf_level) / 2
        low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
        columns |= {"std_error": draws.std(axis=0, ddof=1), "conf_low": low, "conf_high": high}
        text = f"{n_boot} parametric bootstrap refits, {failed} failed; percentile intervals"
        notes.append(Note("bootstrap", text if number is None else f"{text}; seed {number}"))
    return NotedTable(f"Repeatability ({kind})", columns, tuple(notes), m.layout.kind)


def _check(n_boot: Any, conf_level: float) -> None:
    if not isinstance(n_boot, (int, np.integer)) or n_boot < 0 or n_boot == 1:
        raise OptionError(f"repeatability: n_boot={n_boot!r}: give 0, or at least 2 refits")
    quantile(conf_level)  # says what is wrong with the level


def figures(m: Fit, kind: str, method: str) -> list[tuple[str, str, float]]:
    """Return (group, scale, repeatability) of every group on every scale."""
    v = variances(m, method)
    groups = list(dict.fromkeys(p.group for p in v.parts if not p.by_row))
    if not groups:
        raise NotAvailableError("repeatability: the mean of the model has no random effects of groups")
    total = denominator(v, kind)
    linked = [(g, "link", v.of_group(g) / total) for g in groups]
    if m.distribution.is_gaussian_identity or m.distribution.entry.ordinal:
        return [(g, "response" if m.distribution.is_gaussian_identity else "link", value) for g, _, value in linked]
    return [row for g, scale, value in linked for row in ((g, scale, value), (g, "response", on_response(m, v, g)))]


def on_response(m: Fit, v: Variances, group: str) -> float:
    """Return the repeatability of a group on the scale of the response, by quadrature."""
    own = v.of_group(group)
    rest = sum(p.variance for p in v.parts) - own
    x, w = np.polynomial.hermite_e.hermegauss(NODES)
    w = w / w.sum()
    rows = fitted_design(m, "repeatability")
    off = [False] * len(rows.terms)
    center = float(np.mean(linear_predictor(m, rows, off)))
    grid = center + np.sqrt(own) * x[:, None] + np.sqrt(rest) * x[None, :]
    eta = np.repeat(predictors(m, rows, off).mean(axis=0, keepdims=True), grid.size, axis=0)
    eta[:, 0] = grid.ravel()
    data = Data(np.zeros(grid.size), None if rows.trials is None else np.ones(grid.size))
    answers, eta = law_before_bounds(m), np.asfortranarray(eta)
    mu = np.asarray(answers.mean(eta, data)).reshape(grid.shape)
    spread = np.asarray(answers.variance(eta, data)).reshape(grid.shape)
    given = mu @ w
    overall = float(w @ given)
    between = float(w @ (given - overall) ** 2)
    total = float(w @ ((mu - overall) ** 2 + spread) @ w)
    return between / total if total > 0 else 0.0


def bootstrap(m: Fit, n: int, seed: Any, kind: str, method: str, progress: bool | None = None) -> tuple[Array, int]:
    """Return the figures of refits to drawn responses, (used, rows), and how many failed.

    Raises
    ------
    DataError
        If more than a tenth failed.
    """
    m = drawable(m, "repeatability(n_boot=)")
    rng, found = np.random.default_rng(seed), list[Result | str]()
    with Progress("repeatability", n, progress) as shown:
        for first in range(0, n, PART):
            found += estimates(m, m.simulate(min(PART, n - first), seed=rng))
            shown.advance(min(PART, n - first))
    good = [x for x in found if not isinstance(x, str)]
    if len(good) < (1 - TOO_MANY) * n:
        why = next(x for x in found if isinstance(x, str))
        raise DataError(f"repeatability: {n - len(good)} of {n} refits failed, the first: {why}")
    return np.array([_values(m, x, kind, method) for x in good]), n - len(good)


def _values(m: Fit, estimate: Result, kind: str, method: str) -> Sequence[float]:
    return [value for _, _, value in figures(replace(m, estimate=estimate), kind, method)]
