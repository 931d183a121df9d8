"""Residuals of a fit. A type is one function of `Observed` and one row of `TYPES`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ranef.engines.estimate import Array
from ranef.errors import OptionError, nearest
from ranef.model import design_of
from ranef.predict.rows import aligned, fitted_rows

if TYPE_CHECKING:
    from ranef.model import Fit


@dataclass(frozen=True, slots=True)
class Observed:
    """What residuals are made of: response, fitted values, roots of the precision weights, sigma."""

    y: Array
    mu: Array
    root_w: Array | float
    sigma: float


def response(o: Observed) -> Array:
    """Return y - mu."""
    return o.y - o.mu


def pearson(o: Observed) -> Array:
    """Return sqrt(w) (y - mu), not divided by sigma, as lme4."""
    return o.root_w * (o.y - o.mu)


def scaled(o: Observed) -> Array:
    """Return sqrt(w) (y - mu) / sigma."""
    return pearson(o) / o.sigma


TYPES: dict[str, Callable[[Observed], Array]] = {
    "response": response,
    "pearson": pearson,
    "deviance": pearson,  # the signed root of the gaussian's unit deviance w (y - mu)^2
    "scaled": scaled,
    "quantile": scaled,  # Dunn & Smyth (1996): the normal quantile of F(y), for gaussian exactly this
}


def residuals(m: Fit, type: str = "response", align: str = "rows") -> Array:  # noqa: A002
    """Residuals given the conditional modes.

    Raises
    ------
    OptionError
        If the type or the alignment is unknown.
    NotAvailableError
        If the fit keeps no rows (after `slim()`).
    """
    if type not in TYPES:
        raise OptionError(f"residuals: type={type!r} is unknown; {nearest(type, TYPES)}")
    design = design_of(m, "residuals")
    root_w = 1.0 if design.weights is None else np.sqrt(design.weights)
    observed = Observed(np.asarray(design.y), fitted_rows(m), root_w, m.sigma)
    return aligned(m, TYPES[type](observed), align)


def residual_quantiles(m: Fit) -> Array:
    """Minimum, quartiles and maximum of the scaled residuals."""
    return m.digest.residual_quantiles if m.digest else np.quantile(residuals(m, "scaled"), [0, 0.25, 0.5, 0.75, 1])
