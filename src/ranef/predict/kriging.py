"""Processes at new positions: the law of b(s*) given the effects b at the fitted positions s of the same group.

With Sigma = Var b, c = Cov(b, b(s*)) and w = Sigma^-1 c, b(s*) given b has the mean w'b and the variance
Var b(s*) - c'w, so that a new position is a row of Z with the weights w, and something left over (Cressie 1993, section
3.2). Over the conditional law of b this is the conditional mean and variance given the data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ranef.engines.estimate import Array
from ranef.errors import NotAvailableError
from ranef.frame.structures import point_of

if TYPE_CHECKING:
    from ranef.frame.design import GroupTerm
    from ranef.model import Fit

FLAT = 1e-12  # an eigenvalue of Sigma below this share of the largest carries no information


def placed(m: Fit, t: int, term: GroupTerm) -> tuple[GroupTerm, Array | None]:
    """Return a term of new rows with the weights of its new positions, and the variance left over in each row."""
    if not term.fresh:
        return term, None
    (block,) = term.blocks
    assert block.codes is not None
    assert block.contrast is not None
    weights, left = _weights(m, t, np.array([point_of(label) for label in term.fresh], np.float64))
    known = len(block.contrast) - len(term.fresh)
    contrast = np.vstack([block.contrast[:known], weights])
    rest = np.concatenate([np.zeros(known), left])[block.codes]
    return replace(term, blocks=(replace(block, contrast=np.ascontiguousarray(contrast)),)), rest


def _weights(m: Fit, t: int, new: Array) -> tuple[Array, Array]:
    """Return w (new, k) and what is left over (new,)."""
    found = list(m.varcorr().values())[t]
    numbers = {p.name: p.value for p in found.parameters}
    points = m.spec.bars[t].points
    assert points is not None
    distance = np.linalg.norm(new[:, None] - points[None], axis=2)
    c = numbers["sd"] ** 2 * correlation(m, t, numbers)(distance)
    values, vectors = np.linalg.eigh(found.cov)
    keep = values > FLAT * max(values[-1], 0.0)
    half = (c @ vectors[:, keep]) / np.sqrt(values[keep])
    left = np.maximum(numbers["sd"] ** 2 - (half**2).sum(axis=1), 0.0)
    return (half / np.sqrt(values[keep])) @ vectors[:, keep].T, left


def correlation(m: Fit, t: int, numbers: dict[str, float]) -> Callable[[Array], Array]:
    """Return the correlation of a term's process as a function of distance."""
    info = m.layout.terms[t]
    if info.structure == "ar1":
        return _serial(m, t, numbers.get("cor", 0.0))
    if info.structure == "ou":
        return lambda d: np.exp(-numbers["rate"] * d)
    scale = numbers["range"]
    if info.structure == "exp":
        return lambda d: np.exp(-d / scale)
    if info.structure == "gau":
        return lambda d: np.exp(-((d / scale) ** 2))
    nu = numbers.get("nu", m.spec.bars[t].nu)
    assert nu is not None
    return lambda d: _matern(d / scale, nu)


def _matern(x: Array, nu: float) -> Array:
    from scipy import special

    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        log = (1 - nu) * np.log(2) - special.gammaln(nu) + nu * np.log(x) + np.log(special.kve(nu, x)) - x
    return np.where(np.isfinite(log), np.exp(np.minimum(log, 0.0)), np.where(x < 1, 1.0, 0.0))


def _serial(m: Fit, t: int, rho: float) -> Callable[[Array], Array]:
    """Return rho^lag; between the steps it exists where rho is not negative."""
    points = m.spec.bars[t].points
    assert points is not None
    step = float(points[1, 0] - points[0, 0]) if len(points) > 1 else 1.0

    def at(distance: Array) -> Array:
        lag = distance / step
        whole = np.rint(lag)
        near = np.abs(lag - whole) < 1e-8 * np.maximum(lag, 1.0)
        if rho < 0 and not near.all():
            raise NotAvailableError(
                f"{m.layout.terms[t].label!r}: between its steps a process with the autocorrelation {rho:.3g} < 0 does "
                f"not exist; predict at whole steps of {step:g}"
            )
        return np.where(near, np.power(rho, whole), np.power(abs(rho), lag))

    return at
