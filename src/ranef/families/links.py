"""Links: from a parameter of a distribution to its linear predictor and back. One row of `LINKS` each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranef.errors import OptionError, nearest

Array = NDArray[np.float64]
Function = Callable[[Any], Any]
MODERATE = 700.0  # exp(x) does not overflow below


@dataclass(frozen=True, slots=True)
class Link:
    """A link.

    Attributes
    ----------
    name : str
    forward, inverse, slope : callable
        Parameter -> predictor, predictor -> parameter, and d parameter / d predictor at a predictor.
    legal : str
        "any", "positive" or "unit": which parameter values have a predictor.
    zero : int
        Sign of the infinite predictor that takes the parameter to 0; 0 if a finite one does, or none.
    """

    name: str
    forward: Function
    inverse: Function
    slope: Function
    legal: str
    zero: int = 0

    @property
    def one(self) -> int:
        """Sign of the infinite predictor that takes the parameter to 1; 0 if a finite one does."""
        return -self.zero if self.legal == "unit" else 0


def _exp(x: Any) -> Any:
    """Return exp(x), infinite where it overflows: a parameter that ran to its limit is no accident of arithmetic."""
    if isinstance(x, float) and x < MODERATE:
        return np.exp(x)
    with np.errstate(over="ignore"):
        return np.exp(x)


def _expit(x: Any) -> Any:
    from scipy.special import expit

    return expit(x)


def _logit(p: Any) -> Any:
    return np.log(p) - np.log1p(-np.asarray(p))


def _ndtr(x: Any) -> Any:
    from scipy.special import ndtr

    return ndtr(x)


def _ndtri(p: Any) -> Any:
    from scipy.special import ndtri

    return ndtri(p)


def _density(x: Any) -> Any:
    return np.exp(-0.5 * np.square(x)) / np.sqrt(2 * np.pi)


def _one(x: Any) -> Any:
    return np.ones_like(np.asarray(x, dtype=float))


def _from_0(x: Any) -> Any:
    """Return x where it is positive, else NaN: no mean has such a predictor."""
    return np.where(np.greater(x, 0), x, np.nan)


def _softplus(x: Any) -> Any:
    return np.logaddexp(0.0, x)


LINKS: dict[str, Link] = {
    link.name: link
    for link in (
        Link("identity", np.asarray, np.positive, _one, "any"),
        Link("log", np.log, _exp, _exp, "positive", -1),
        Link("logit", _logit, _expit, lambda x: _expit(x) * _expit(-np.asarray(x)), "unit", -1),
        Link("probit", _ndtri, _ndtr, _density, "unit", -1),
        Link(
            "cloglog",
            lambda p: np.log(-np.log1p(-np.asarray(p))),
            lambda x: -np.expm1(-_exp(x)),
            lambda x: _exp(x - _exp(x)),
            "unit",
            -1,
        ),
        Link(
            "loglog",
            lambda p: -np.log(-np.log(p)),
            lambda x: _exp(-_exp(np.negative(x))),
            lambda x: _exp(-np.asarray(x) - _exp(-np.asarray(x))),
            "unit",
            -1,
        ),
        Link(
            "cauchit",
            lambda p: np.tan(np.pi * (np.asarray(p) - 0.5)),
            lambda x: np.arctan(x) / np.pi + 0.5,
            lambda x: 1 / (np.pi * (1 + np.square(x))),
            "unit",
            -1,
        ),
        Link(
            "inverse",
            lambda m: 1 / np.asarray(m),
            lambda x: np.divide(1.0, x),
            lambda x: -1 / np.square(x),
            "positive",
            1,
        ),
        Link(
            "1/mu^2",
            lambda m: 1 / np.square(m),
            lambda x: 1 / np.sqrt(_from_0(x)),
            lambda x: -0.5 * _from_0(x) ** -1.5,
            "positive",
            1,
        ),
        Link("sqrt", np.sqrt, np.square, lambda x: 2 * np.asarray(x), "positive"),
        Link("softplus", lambda m: np.log(np.expm1(m)), _softplus, _expit, "positive", -1),
    )
}  # fmt: skip
ALIASES = {
    "inverse_squared": "1/mu^2", "1/mu2": "1/mu^2", "reciprocal": "inverse", "complementary_log_log": "cloglog",
    "cauchy": "cauchit", "ln": "log", "logistic": "logit", "normal": "probit", "none": "identity",
}  # fmt: skip
LEGAL = {"positive": (0.0, np.inf), "unit": (0.0, 1.0), "unit + 1": (1.0, 2.0), "any": (-np.inf, np.inf)}


def link_of(name: str) -> Link:
    """Return the link of that name.

    Raises
    ------
    OptionError
        If there is none; the nearest is named.
    """
    found = LINKS.get(ALIASES.get(name, name))
    if found is None:
        raise OptionError(f"link={name!r} is unknown; {nearest(name, LINKS)}")
    return found


def shifted(link: Link) -> Link:
    """Return the link of a parameter between 1 and 2 (a Tweedie power): that of the parameter minus 1."""
    return Link(
        link.name,
        lambda p: link.forward(np.asarray(p) - 1),
        lambda x: 1 + link.inverse(x),
        link.slope,
        f"{link.legal} + 1",
    )


def predictor_of(value: float, link: Link, name: str) -> float:
    """Return the linear predictor of a parameter that is given as a number.

    Raises
    ------
    OptionError
        If the parameter cannot have that value.
    """
    low, high = LEGAL[link.legal]
    if not low < value < high:
        raise OptionError(f"{name}={value!r} is not possible: it must lie between {low:g} and {high:g}, both excluded")
    return float(link.forward(value))


@dataclass(frozen=True, slots=True)
class Loose:
    """Of means that have a range: its ends, the links whose predictor may lead outside, and one whose cannot."""

    ends: tuple[float, float]
    links: tuple[str, ...]
    safe: str


#: By the range as the core's table of families has it.
LOOSE = {
    "(0, 1)": Loose(LEGAL["unit"], ("identity", "log"), "logit"),
    "positive": Loose(LEGAL["positive"], ("identity", "inverse", "1/mu^2"), "log"),
}


def loose(range_: str, link: str) -> Loose | None:
    """Return the ends of a mean's range and a link that keeps it inside, if `link` does not; None if it does."""
    found = LOOSE.get(range_)
    return found if found is not None and link in found.links else None


def legal_link(range_: str, link: str) -> str | None:
    """Return the link that keeps a mean in its range, if `link` does not; None if it does."""
    found = loose(range_, link)
    return None if found is None else found.safe
