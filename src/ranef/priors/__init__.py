"""Floor 1: prior distributions, `rf.prior.normal(0, 2.5)`, and what `fit(prior=…)` takes.

A prior is a value that knows its density and nothing of models or engines. `prior=` maps names of parameters to
priors; a text such as "normal(0, 2.5)" is read as a call of the function of that name.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from ranef.errors import ArgumentError, OptionError, nearest
from ranef.priors.densities import (
    TABLE,
    cauchy,
    exponential,
    flat,
    gamma,
    half_cauchy,
    half_normal,
    half_t,
    inverse_gamma,
    inverse_wishart,
    lkj,
    lognormal,
    multivariate_t,
    normal,
    point,
    t,
    wishart,
)
from ranef.priors.prior import Prior

__all__ = [
    "TABLE",
    "Prior",
    "blme",
    "cauchy",
    "exponential",
    "flat",
    "gamma",
    "half_cauchy",
    "half_normal",
    "half_t",
    "inverse_gamma",
    "inverse_wishart",
    "lkj",
    "lognormal",
    "multivariate_t",
    "normal",
    "parse_prior",
    "point",
    "read_priors",
    "t",
    "wishart",
]


def blme(common_scale: bool = True) -> dict[str, Prior]:
    """Return blme's defaults: a Wishart of k + 2.5 degrees of freedom and infinite scale on every covariance.

    Parameters
    ----------
    common_scale : bool
        Whether it is of covariances relative to the residual variance, as in blme's linear models.

    Returns
    -------
    dict
        What `prior=` takes.

    Examples
    --------
    >>> import ranef as rf
    >>> sorted(rf.prior.blme())
    ['cov']
    """
    return {"cov": wishart(common_scale=common_scale)}


def read_priors(given: Any, common_scale: bool) -> dict[str, Prior]:
    """Return parameter -> prior from what a user gave: None, "blme", or a mapping of priors or texts.

    Raises
    ------
    ArgumentError, OptionError
        If it is something else, or a text cannot be read.
    """
    if given is None:
        return {}
    if isinstance(given, str) and given == "blme":
        return blme(common_scale)
    if not isinstance(given, Mapping):
        raise ArgumentError(
            "prior= takes a dict such as {'fixed': rf.prior.normal(0, 2.5), 'sd(g)': rf.prior.gamma(2.5, 0)}, or 'blme'"
        )
    return {str(name): _read(name, value) for name, value in given.items()}


def _read(name: Any, value: Any) -> Prior:
    if value is None:
        return flat()
    if isinstance(value, Prior):
        return value
    if isinstance(value, str):
        return parse_prior(value)
    raise ArgumentError(f"prior of {name!r}: {value!r} is no prior; write rf.prior.normal(0, 2.5) or 'normal(0, 2.5)'")


def parse_prior(text: str) -> Prior:
    """Read "normal(0, sd=2.5)": the name of a density and numbers (or lists of numbers) as arguments."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
            raise ValueError
        name = tree.func.id
        positional = [ast.literal_eval(a) for a in tree.args]
        named = {str(k.arg): ast.literal_eval(k.value) for k in tree.keywords}
    except (SyntaxError, ValueError):
        raise OptionError(f"prior {text!r} cannot be read; write it as 'normal(0, 2.5)' or 'wishart()'") from None
    if name not in TABLE:
        raise OptionError(f"prior {text!r}: there is no density {name!r}; {nearest(name, TABLE)}")
    try:
        return TABLE[name](*positional, **named)
    except TypeError as error:
        raise OptionError(f"prior {text!r}: {error}") from None
