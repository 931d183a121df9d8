"""Confidence intervals by one switch: Wald, profile likelihood or bootstrap, for every parameter of a fit.

How far to trust them (Bolker's GLMM FAQ, "Testing hypotheses"; each costs more and assumes less than the one before):

    "wald"      estimate -+ quantile x standard error. Assumes a quadratic log-likelihood; fixed effects of linear
                models use t quantiles with the fit's degrees of freedom. Standard deviations are taken on the log
                scale and correlations on Fisher's z scale; on the boundary there is none.
    "profile"   where the profile deviance exceeds its minimum by the chi-square quantile. Follows the shape of the
                likelihood; ends reach 0 and +-1; still asymptotic.
    "boot"      quantiles of refits to simulated responses (`bootstrap`). Follows the sampling distribution itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines.estimate import Array
from ranef.errors import ArgumentError, NotAvailableError, OptionError, RanefWarning, nearest
from ranef.inference.bootstrap import bootstrap
from ranef.inference.deltas import std_errors
from ranef.inference.frames import to_frame
from ranef.inference.parameters import IDENTITY, Parameter, parameters, select, values
from ranef.inference.profile import targets, traced, with_levels
from ranef.inference.tables import fixed
from ranef.inference.testing import wald_method
from ranef.inference.wald import METHODS, quantile
from ranef.model import check_fit

if TYPE_CHECKING:
    from ranef.inference.ddf import Method
    from ranef.model import Fit

POINTS = 4  # of each side of a curve of which only the ends are wanted
OPTIONS = {
    "wald": ("ddf", "vcov", "cluster"),
    "profile": ("points", "progress"),
    "boot": (
        "n",
        "seed",
        "kind",
        "threads",
        "progress",
        "re",
        "levels",
        "hccme",
        "auxiliary",
        "max_failures",
        "interval",
    ),
}
#: What the arguments of `confint` are called in other functions here and in R.
ELSEWHERE = {
    "conf_level": "level",
    "parm": "which",
    "nsim": "n",
    "n_boot": "n",
    "type": "interval",
    "boot_type": "interval",
}


def confint(
    m: Fit,
    level: float = 0.95,
    method: str = "wald",
    which: str | Sequence[str] | None = None,
    **options: Any,
) -> Any:
    """Confidence intervals of the parameters of a fit.

    Parameters
    ----------
    m : Fit
    level : float
    method : "wald" | "profile" | "boot"
        In the order of cost and of trust (Bolker's GLMM FAQ): Wald intervals assume a quadratic likelihood, which is
        poor for variances and small samples; profiles follow the likelihood; the parametric bootstrap follows the
        sampling distribution. The last two agree with likelihood ratio tests where Wald does not.
    which : None, "fixed", "random", or names
        Labels ("sd(Days | Subject)") or terms as in `tidy` ("sd__Days"); default all parameters.
    **options
        "wald": `ddf`, `vcov`, `cluster`, as in `tidy`. "profile": `points`, `progress`. "boot": `n`, `seed` and the
        other arguments of `bootstrap`, and `interval` ("percentile", "basic", "normal", "bca").

    Returns
    -------
    data frame
        `parameter, effect, component, group, term, estimate, conf_low, conf_high`. The estimates are the fit's;
        profiles of a REML fit are those of its maximum likelihood fit, as lme4's.

    Raises
    ------
    OptionError, ArgumentError
        Unknown method, parameter or option.
    NotAvailableError
        For conditional modes: they are predictions, not parameters.

    Warns
    -----
    RanefWarning
        Where an interval asked for does not exist: Wald on the boundary, a profile that failed.

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
    >>> table = rf.confint(m, method="profile", which="random")
    >>> [round(v, 3) for v in table["conf_low"]]
    [14.381, 3.801, -0.481, 22.898]
    """
    check_fit(m, "confint")
    refuse_modes(which, "confint")
    asked = select(parameters(m), which, "confint")
    m, asked = with_levels(m, asked, which) if method == "profile" else (m, asked)
    known = parameters(m)
    low, high, why = intervals(m, asked, level, method, options)
    if why:
        warnings.warn("; ".join(why), RanefWarning, stacklevel=2)
    own = dict(zip([p.label for p in known], values(m), strict=True))
    columns = {
        "parameter": [p.label for p in asked],
        "effect": [p.effect for p in asked],
        "component": [p.component for p in asked],
        "group": [p.group for p in asked],
        "term": [p.term for p in asked],
        "estimate": np.array([own[p.label] for p in asked]),
        "conf_low": low,
        "conf_high": high,
    }
    return to_frame(columns, m.layout.kind)


def refuse_modes(which: Any, what: str) -> None:
    """Conditional modes have no p-values and no other intervals than conditional ones.

    Raises
    ------
    NotAvailableError
        If they were asked for.
    """
    if which == "ran_vals":
        raise NotAvailableError(
            f"{what}: conditional modes are predictions of random variables, not parameters: there is no null "
            f"hypothesis to test and no p-value, profile or bootstrap interval of them; m.ranef(std_error=True) and "
            f"tidy('ran_vals', conf_int=True) give conditional standard deviations and normal intervals"
        )


def check_method(method: Any, options: Mapping[str, Any], what: str) -> None:
    """Raise unless the method is known and has the options.

    Raises
    ------
    OptionError, ArgumentError
    """
    if method not in METHODS:
        raise OptionError(f"{what}: method={method!r} is unknown; known: {', '.join(map(repr, METHODS))}")
    for name in options:
        if name in ELSEWHERE and what == "confint":
            raise ArgumentError(f"confint has no argument {name!r}: write {ELSEWHERE[name]}=")
        if name not in OPTIONS[method]:
            raise ArgumentError(f"{what}: method={method!r} has no option {name!r}; {nearest(name, OPTIONS[method])}")


def intervals(
    m: Fit, asked: Sequence[Parameter], level: float, method: str, options: dict[str, Any]
) -> tuple[Array, Array, list[str]]:
    """Lower ends, upper ends (NaN where there is none), and why there is none."""
    check_method(method, options, "confint")
    quantile(level)
    by = {"wald": _wald, "profile": _profile, "boot": _boot}[method]
    return by(m, asked, level, options)


def _profile(
    m: Fit, asked: Sequence[Parameter], level: float, options: dict[str, Any]
) -> tuple[Array, Array, list[str]]:
    cut = float(quantile(level))
    visits = targets(cut, {cut}, options.get("points", POINTS))
    found = traced(m, list(asked), visits, level, "sd", options.get("progress"))
    ends = {c.parameter.label: c.interval(level) for c in found.curves}
    pairs = np.array([ends.get(p.label, (np.nan, np.nan)) for p in asked]).reshape(-1, 2)
    why = [f"{name}: {text}" for name, text in found.failed.items()]
    return pairs[:, 0], pairs[:, 1], why + [text for text in found.messages if "failed" in text or "below" in text]


def _boot(m: Fit, asked: Sequence[Parameter], level: float, options: dict[str, Any]) -> tuple[Array, Array, list[str]]:
    found = bootstrap(m, **{name: value for name, value in options.items() if name != "interval"}).all
    low, high = found.ends(level, options.get("interval", "percentile"))
    at = [found.names.index(p.label) for p in asked]
    why = [f"{len(found.failures)} of {found.n} bootstrap replicates failed"] if found.failures else []
    return low[at], high[at], why + [note.text for note in found.notes]


def _wald(m: Fit, asked: Sequence[Parameter], level: float, options: dict[str, Any]) -> tuple[Array, Array, list[str]]:
    known = parameters(m)
    low, high = wald_ends(m, level, wald_method(m, **options))
    at = [[p.label for p in known].index(p.label) for p in asked]
    gone = [known[i].label for i in at if np.isnan(low[i]) and known[i].effect == "ran_pars"]
    return low[at], high[at], [f"{', '.join(gone)}: no Wald interval ({_no_error(m)})"] if gone else []


def _no_error(m: Fit) -> str:
    """Say why a standard deviation or correlation has no standard error."""
    if m.method == "pql":
        return "quasi-likelihood gives it no standard error"
    if m.task.wishes is not None:
        return "it is held, or the estimate is on the boundary"
    if m.boundary:
        return "the estimate is on the boundary; see method='profile'"
    return "the likelihood has no quadratic top in it; see method='profile'"


def wald_ends(m: Fit, level: float, way: Method | None = None) -> tuple[Array, Array]:
    """Wald intervals of all parameters, in the order of `parameters`."""
    table = fixed(m, level, way)
    low, high = wald_random(m, level)
    return np.append(table["conf_low"], low), np.append(table["conf_high"], high)


def wald_random(m: Fit, level: float) -> tuple[Array, Array]:
    """Wald intervals of `ran_pars`: standard deviations, rates and ranges on the log scale, correlations on Fisher's z.

    Loadings have theirs on their own scale. NaN where there is no standard error (see `deltas.std_errors`).
    """
    known = [p for p in parameters(m) if p.effect == "ran_pars"]
    estimate, error = values(m)[len(m.estimate.beta) :], std_errors(m)
    cor = np.array([p.kind == "cor" for p in known], dtype=bool)
    plain = np.array([p.transform is IDENTITY and p.kind == "other" for p in known], dtype=bool)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        half = float(quantile(level)) * error / np.where(cor, 1 - estimate**2, estimate)
        low = np.where(cor, np.tanh(np.arctanh(estimate) - half), estimate * np.exp(-half))
        high = np.where(cor, np.tanh(np.arctanh(estimate) + half), estimate * np.exp(half))
    beside = float(quantile(level)) * error
    low, high = np.where(plain, estimate - beside, low), np.where(plain, estimate + beside, high)
    if known and not m.task.linear and known[-1].residual and not known[-1].refused:
        at = known[-1].hold[1][0]
        half = float(quantile(level)) * np.sqrt(m.estimate.vcov[at, at])
        low[-1], high[-1] = estimate[-1] * np.exp(-half), estimate[-1] * np.exp(half)
    return low, high
