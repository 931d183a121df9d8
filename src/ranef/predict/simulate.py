"""Responses drawn from a fitted model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ranef import _core
from ranef.engines.estimate import Array
from ranef.engines.linear import term_sources
from ranef.errors import OptionError
from ranef.predict.rows import Rows, fitted_design, linear_predictor

if TYPE_CHECKING:
    from ranef.model import Fit


def simulate(m: Fit, n: int = 1, re: str = "new", seed: Any = None) -> Array:
    """Draw `n` responses for the rows used, (nobs, n).

    Parameters
    ----------
    m : Fit
        The fitted model; theta, beta and sigma are taken as known.
    n : int
        Number of draws.
    re : "new" | "conditional"
        Random effects drawn anew from N(0, Sigma), or the conditional modes kept.
    seed : int or numpy Generator, optional
        Same seed, same draws; the stream does not depend on threads.
    """
    if re not in ("new", "conditional"):
        raise OptionError(f"simulate: re={re!r} is unknown; use 'new' or 'conditional'")
    if not isinstance(n, (int, np.integer)) or n < 1:
        raise OptionError(f"simulate: n={n!r} must be a positive whole number")
    rows, rng = fitted_design(m, "simulate"), np.random.default_rng(seed)
    mean = linear_predictor(m, rows, [re == "conditional"] * len(rows.terms))
    scale = m.sigma if rows.weights is None else m.sigma / np.sqrt(rows.weights)
    out = np.empty((rows.n, n), order="F")
    for j in range(n):
        effects = new_effects(m, rows, rng) if re == "new" else 0.0
        out[:, j] = mean + effects + scale * rng.standard_normal(rows.n)
    return out


def new_effects(m: Fit, rows: Rows, rng: np.random.Generator) -> Array | float:
    """Z b, with b drawn from N(0, sigma^2 Lambda Lambda')."""
    if not rows.terms:
        return 0.0
    drawn = [
        m.sigma * rng.standard_normal(modes.shape) @ factor.T
        for modes, factor in zip(m.estimate.modes, m.estimate.factors, strict=True)
    ]
    terms = term_sources(list(rows.terms.values()))
    return np.asarray(_core.linear_predictor([], np.empty(0), terms, drawn, None, rows.n))
