"""Degrees of freedom of tests of fixed effects: one table of methods, one file a method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.errors import OptionError, nearest
from ranef.inference.ddf import (
    asymptotic,
    between_within,
    inner_outer,
    kenward_roger,
    residual,
    satterthwaite,
)
from ranef.inference.ddf.method import Joint, Method

if TYPE_CHECKING:
    from ranef.model import Fit

__all__ = ["METHODS", "Joint", "Method", "default_method", "method_of"]

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        satterthwaite.METHOD,
        kenward_roger.METHOD,
        inner_outer.METHOD,
        inner_outer.SLOPES,
        between_within.METHOD,
        residual.METHOD,
        asymptotic.METHOD,
    )
}
ALIASES = {
    "sat": "satterthwaite",
    "satterth": "satterthwaite",
    "fai-cornelius": "satterthwaite",
    "kr": "kenward-roger",
    "kenward": "kenward-roger",
    "kenwardroger": "kenward-roger",
    "innerouter": "inner-outer",
    "lme": "inner-outer",
    "nlme": "inner-outer",
    "betwithin": "between-within",
    "bw": "between-within",
    "lm": "residual",
    "n-p": "residual",
    "z": "inf",
    "infinite": "inf",
    "infinity": "inf",
    "normal": "inf",
    "wald": "inf",
    "asymptotic": "inf",
    "none": "inf",
}


def default_method(m: Fit) -> Method:
    """Satterthwaite's for linear mixed models, whatever engine fitted them; normal tests for others."""
    return METHODS["inf" if satterthwaite.reason_against(m) else "satterthwaite"]


def method_of(m: Fit, ddf: Any = None) -> Method:
    """Return the method that `ddf=` names, checked against the model; None is the default.

    Raises
    ------
    OptionError
        If there is no such method; the nearest is named.
    NotAvailableError
        If it does not apply to this model; the reason is given.
    """
    if ddf is None:
        return default_method(m)
    if isinstance(ddf, float) and np.isinf(ddf):
        ddf = "inf"
    if not isinstance(ddf, str):
        raise OptionError(f"ddf={ddf!r} is not the name of a method; known: {', '.join(METHODS)}")
    name = ddf.strip().lower().replace("_", "-").replace(" ", "-").replace("'s", "")
    name = ALIASES.get(name, name)
    if name not in METHODS:
        raise OptionError(f"ddf={ddf!r} is unknown; {nearest(name, METHODS)}")
    METHODS[name].check(m)
    return METHODS[name].of(m)
