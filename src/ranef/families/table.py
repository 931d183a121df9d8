"""The table of families, as the core gives it: names, aliases, parameters with their links, legal responses.

The core's record of a family is a dict: `name`, `aliases`, `parameters` (dicts of `name, range, link, links, meaning`;
the mean first, the dispersion second), `support` (a sentence), `discrete`, `trials`, `truncation`, `zero_inflation`,
`note` (the variance function). All that Python says about a family comes from it; `ALIASES` and `NICKNAMES` add what
other packages call families and parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from ranef import _core

ZERO = "zero_inflation"
SUPPORTS = {
    "a number": "real",
    "a number above 0": "positive",
    "a number of at least 0": "nonnegative",
    "a whole number of at least 0": "count",
    "a proportion (0 and 1 without trials)": "binomial",
    "a number strictly between 0 and 1": "unit",
    "a number from 0 to 1": "closed_unit",
    "a category code": "ordinal",
    "a category without order": "nominal",
}
ALIASES = {
    "gaussian": ("Gaussian", "norm", "NO"), "nbinom2": ("negative.binomial", "nb2", "negbin", "nb"),
    "nbinom1": ("nb1", "NBII"),
    "student_t": ("t_family", "students.t", "scat", "TF"), "cumulative": ("clmm", "clmm2", "polr", "propodds", "ocat"),
    "sratio": ("stopping",), "gamma": ("gamma.fam", "zigamma"), "tweedie": ("tw",),
    "cratio": ("continuation", "cr"), "multinomial": ("mclogit", "nominal"), "genpois": ("generalized.poisson",),
    "beta": ("beta_regression", "beta.fam", "betar"), "betabinomial": ("beta.binomial",), "lognormal": ("lnorm",),
    "poisson": ("PO",), "binomial": ("BI",), "inverse_gaussian": ("IG",), "weibull": ("WEI3",), "exponential": ("EXP",),
}  # fmt: skip
CUTS = ("upper", "lower")  # the thresholds that a cumulative model's row needs, in the core's list
#: Names that stand for something else here, and what to write.
INSTEAD = {
    "quasipoisson": "a quasi-likelihood is none: 'nbinom1' has a variance proportional to the mean",
    "quasibinomial": "a quasi-likelihood is none: 'betabinomial' has the larger variance",
    "quasi": "a quasi-likelihood is none: choose a family with a dispersion",
    "loglogistic": "this law is not here: 'lognormal' has a hazard that rises and falls too",
    "extreme": "write family='weibull' and the exponential of the response",
    "geometric": "write family='nbinom2' with dispersion=1",
    "zip": "write family='poisson' with zero_inflation='~ 1'",
    "zinb": "write family='nbinom2' with zero_inflation='~ 1'",
    # those of gamlss whose parameters are others, and two of GLMMadaptive
    "nbi": "write family='nbinom2'; its dispersion is 1 / sigma",
    "zinbi": "write family='nbinom2' with zero_inflation='~ 1'; its dispersion is 1 / sigma",
    "zanbi": "write family='hurdle_nbinom2'; its dispersion is 1 / sigma",
    "zap": "write family='hurdle_poisson'",
    "zip2": "its mu is the mean of all rows; family='poisson' with zero_inflation='~ 1' has that without extra zeros",
    "geom": "write family='nbinom2' with dispersion=1",
    "no2": "write family='gaussian'; its dispersion is the standard deviation, the root of this sigma",
    "ga": "write family='gamma'; its dispersion is the shape 1 / sigma^2",
    "zaga": "write family='gamma' with zero_inflation='~ 1'; its dispersion is the shape 1 / sigma^2",
    "be": "write family='beta'; its dispersion is the precision 1 / sigma^2 - 1",
    "beo": "write family='beta'; its mean is mu / (mu + sigma) and its dispersion mu + sigma",
    "bezi": "write family='beta' with zero_inflation='~ 1'",
    "beinf": "write family='zero_one_inflated_beta'; rf.families.describe says what its parameters are",
    "bb": "write family='betabinomial'; its dispersion is the precision 1 / sigma",
    "logno": "write family='gaussian' with the response log(y); 'lognormal' has mean and SD of y itself",
    "wei": "write family='weibull', by its mean mu Gamma(1 + 1 / sigma); its dispersion is the shape, this sigma",
    "wei2": "write family='weibull', by its mean mu^(-1 / sigma) Gamma(1 + 1 / sigma); its dispersion is the shape",
    "tf2": "write family='student_t'; its dispersion is the scale, sigma sqrt(1 - 2 / nu) of this standard deviation",
    "pig": "this law is not here: 'nbinom2', or 'poisson' with a random effect for every row",
    "unit.lindley": "this law is not here: 'beta' is for proportions too, rf.custom_family takes a density of your own",
    "censored.normal": "write family='gaussian' and the response cens(y, status)",
}
NICKNAMES = {
    "student_t": {"nu": "shape", "df": "shape"}, "tweedie": {"p": "power"}, "skew_normal": {"alpha": "shape"},
    "nbinom12": {"psi": "shape"},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a family: its name, default link, allowed links, range and meaning."""

    name: str
    link: str
    links: tuple[str, ...]
    range: str
    meaning: str


@dataclass(frozen=True)
class Entry:
    """One row of the table.

    Attributes
    ----------
    name : str
    aliases : tuple of str
        What other packages call it.
    parameters : tuple of Parameter
        The mean first, the dispersion (where there is one) second; an ordinal family's thresholds are no parameters
        here, its scale is one only of fits that ask for it.
    support : str
        Which responses are legal: a value of `SUPPORTS`.
    discrete, truncated, inflatable : bool
        Whether responses are counts or categories, a zero-truncated form exists, extra zeros can be had.
    note : str
        The variance function and what the dispersion is.
    own_nicknames : tuple of (str, str)
        Further names of parameters, of a family that is not in the table.
    """

    name: str
    aliases: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    support: str
    discrete: bool
    truncated: bool
    inflatable: bool
    note: str
    own_nicknames: tuple[tuple[str, str], ...] = ()

    @cached_property
    def ordinal(self) -> bool:
        """Whether responses are ordered categories."""
        return self.support == "ordinal"

    @cached_property
    def nominal(self) -> bool:
        """Whether responses are categories without order."""
        return self.support == "nominal"

    @property
    def dispersion(self) -> str:
        """What the dispersion parameter means; "" where there is none."""
        return next((p.meaning for p in self.parameters if p.name == "dispersion"), "")

    @cached_property
    def nicknames(self) -> Mapping[str, str]:
        """Other packages' names of its parameters."""
        return dict(self.own_nicknames) or NICKNAMES.get(self.name, {})


@cache
def entries() -> Mapping[str, Entry]:
    """Return every family by its name, in the table's order."""
    return {row["name"]: _entry(row) for row in _core.families()}


def _entry(row: Mapping[str, Any]) -> Entry:
    support = SUPPORTS[row["support"]]
    parameters = tuple(
        Parameter(p["name"], p["link"], tuple(p["links"]), p["range"], p["meaning"]) for p in row["parameters"]
    )
    return Entry(
        row["name"],
        (*row["aliases"], *ALIASES.get(row["name"], ())),
        tuple(p for p in parameters if p.name not in CUTS) if support == "ordinal" else parameters,
        support,
        bool(row["discrete"]),
        bool(row["truncation"]),
        bool(row["zero_inflation"]),
        row["note"],
    )


@cache
def names() -> Mapping[str, str]:
    """Return every name and alias, lower case, with the family's own name."""
    found = {alias.lower(): entry.name for entry in entries().values() for alias in entry.aliases}
    return {**found, **{name.lower(): name for name in entries()}}
