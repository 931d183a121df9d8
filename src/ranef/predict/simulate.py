"""Responses drawn from a fitted model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ranef import _core
from ranef.engines.estimate import Array
from ranef.engines.linear import term_sources
from ranef.errors import NotAvailableError, OptionError
from ranef.frame.design import part_of
from ranef.predict.illegal import tell_illegal_draws
from ranef.predict.rows import Rows, fitted_design, generator, law, predictors, terms_of

if TYPE_CHECKING:
    from ranef.frame.design import GroupTerm
    from ranef.model import Fit


def simulate(m: Fit, n: int = 1, re: str = "new", seed: Any = None) -> Array:
    """Draw `n` responses for the rows used, (nobs, n); counts of J categories are (nobs, n, J).

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
    if m.method == "pql" and "dispersion" not in m.distribution.parameters and m.sigma != 1:
        raise NotAvailableError(
            f"simulate: quasi-likelihood has a dispersion (sigma = {m.sigma:.3g}) that no {m.family} distribution has; "
            f"fit by method='ml', or with a family that has a dispersion"
        )
    rows, rng, answers = fitted_design(m, "simulate"), generator(seed, "simulate"), law(m)
    fixed = predictors(m, rows, [re == "conditional"] * len(rows.terms))
    each = (m.distribution.categories,) if m.distribution.counts else ()
    out = np.empty((rows.n, n, *each), order="C" if each else "F")
    for j in range(n):
        eta = fixed + new_effects(m, rows, rng, fixed.shape[1]) if re == "new" else fixed
        out[:, j] = answers.draw(eta, rows.data, rng)
    tell_illegal_draws(m, out)
    return out


def _standard(term: GroupTerm, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Draw spherical effects; those of related levels correlate as the levels do."""
    z = rng.standard_normal(shape)
    return z if term.relation is None else term.relation.correlate(z)


def new_effects(m: Fit, rows: Rows, rng: np.random.Generator, predictors: int) -> Array | float:
    """Z b of every predictor, (n, K), with b drawn from N(0, Sigma)."""
    if not rows.terms:
        return 0.0
    out = np.zeros((rows.n, predictors))
    drawn = [
        _standard(rows.terms[t], modes.shape, rng) @ root.T
        for t, (modes, root) in enumerate(zip(m.estimate.modes, m.estimate.roots, strict=True))
    ]
    for k in range(len(rows.components)):
        on = terms_of(m, k)
        if on:
            parts = [part_of(rows.terms[t], k) for t in on]
            b = [np.ascontiguousarray(drawn[t][:, at]) for t, (_, at) in zip(on, parts, strict=True)]
            terms = term_sources([part for part, _ in parts])
            out[:, k] = _core.linear_predictor([], np.empty(0), terms, b, None, rows.n)
    return out
