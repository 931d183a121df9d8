"""broom.mixed's three tables: `tidy` and `glance` (`augment` is in its own module)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines.estimate import Array
from ranef.errors import ArgumentError, OptionError, RanefWarning, nearest
from ranef.inference.ddf import Method
from ranef.inference.ddf.method import coefficient_rows
from ranef.inference.deltas import std_errors
from ranef.inference.frames import to_frame
from ranef.inference.testing import wald_method
from ranef.inference.varcorr import Covariance, has_residual, residual_name
from ranef.inference.wald import p_value, quantile

if TYPE_CHECKING:
    from ranef.model import Fit

HALF = 0.5  # a standard error of this share of a standard deviation makes normal intervals reach 0
TEXT = ("effect", "component", "group", "level", "term")
NUMBERS = ("estimate", "std_error", "statistic", "df", "p_value", "conf_low", "conf_high")
SOURCES = ("p_method", "conf_method")
WORDS = (*TEXT, *SOURCES)
Columns = dict[str, Any]


def tidy(
    m: Fit,
    effects: str | Sequence[str],
    conf_int: bool,
    conf_level: float,
    method: str,
    ddf: Any = None,
    options: Columns | None = None,
    vcov: Any = None,
    cluster: Any = None,
) -> Any:
    """Estimates as a frame, see `Fit.tidy`."""
    from ranef.inference.by_method import check_alone, tested_parameters

    check_alone(method, "tidy", ddf=ddf, vcov=vcov, cluster=cluster)
    if options and method == "wald":
        raise ArgumentError(f"tidy has no argument {next(iter(options))!r} (but for method='profile' or 'boot')")
    asked = [effects] if isinstance(effects, str) else list(effects) if isinstance(effects, Sequence) else []
    if not asked:
        raise OptionError(f"tidy: effects={effects!r}: name one or several of {', '.join(map(repr, BUILDERS))}")
    for effect in asked:
        if effect not in BUILDERS:
            raise OptionError(f"tidy: effects={effect!r} is unknown; {nearest(effect, BUILDERS)}")
    level = conf_level if conf_int else None
    if (vcov is not None or cluster is not None) and "fixed" not in asked:
        raise ArgumentError(
            "tidy: vcov= and cluster= are about Wald tests of the fixed effects: ask for effects='fixed'"
        )
    way = wald_method(m, ddf, vcov, cluster) if "fixed" in asked else None
    parts = [fixed(m, level, way) if effect == "fixed" else BUILDERS[effect](m, level) for effect in asked]
    if conf_int and "ran_pars" in asked and method == "wald":
        _caution(parts[asked.index("ran_pars")])
    if method != "wald":
        tested = tested_parameters(m, asked, level, method, options or {})
        parts = [{**part, **more} for part, more in zip(parts, tested, strict=True)]
    names = (*TEXT, *NUMBERS) if conf_int else (*TEXT, *NUMBERS[:-2])
    names += () if method == "wald" else SOURCES if conf_int else SOURCES[:1]
    columns = {name: _stacked([_column(part, name) for part in parts], name in WORDS) for name in names}
    return to_frame(columns, m.layout.kind)


def _caution(part: Columns) -> None:
    """Say (P57) where the standard error of a standard deviation is no measure of an interval around it."""
    estimate, error = part["estimate"], part["std_error"]
    wide = [i for i, name in enumerate(part["term"]) if name.startswith("sd__") and error[i] > HALF * estimate[i]]
    if wide:
        named = ", ".join(f"{part['term'][i]} of {part['group'][i]}" for i in wide)
        warnings.warn(
            f"tidy: the standard error of {named} is more than half of the estimate, whose law is skewed then: "
            f"estimate -+ 2 std_error is no interval; prefer profiles, method='profile'",
            RanefWarning,
            stacklevel=4,
        )


def _column(part: Columns, name: str) -> Any:
    rows = len(part["term"])
    value = part.get(name, None if name in WORDS else np.nan)
    if isinstance(value, str) or value is None:
        return [value] * rows
    return value if name in WORDS else np.broadcast_to(np.asarray(value, dtype=float), (rows,))


def _stacked(parts: list[Any], text: bool) -> Any:
    return [v for part in parts for v in part] if text else np.concatenate(parts)


def _interval(estimate: Array, std_error: Array, df: Array | float, level: float | None) -> Columns:
    if level is None:
        return {}
    half = quantile(level, df) * std_error
    return {"conf_low": estimate - half, "conf_high": estimate + half}


def fixed(m: Fit, level: float | None = None, method: Method | None = None) -> Columns:
    """Return the coefficients of all components with t or z tests, by default those of the model."""
    beta, usual = m.estimate.beta, wald_method(m)
    method = method or usual
    variances = method.vcov(m).diagonal()
    df = m.ddf if method is usual else np.where(np.isnan(variances), np.nan, coefficient_rows(m, method))
    std_error = np.sqrt(variances)
    std_error[list(m.estimate.held)] = np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = beta / std_error
    for part in m.layout.components:  # a dispersion of 1 is no hypothesis, whatever its link
        if part.name == "dispersion" and part.names == ("(Intercept)",):
            statistic = np.where(np.arange(len(beta)) == part.first, np.nan, statistic)
    return {
        "effect": "fixed",
        "component": [c.name for c in m.layout.components for _ in c.names],
        "term": [name for c in m.layout.components for name in c.names],
        "estimate": beta,
        "std_error": std_error,
        "statistic": statistic,
        "df": df,
        "p_value": p_value(statistic, df),
        **_interval(beta, std_error, df, level),
    }


def ran_pars(m: Fit, level: float | None = None) -> Columns:
    """Return standard deviations `sd__x` and correlations `cor__x.y` of each term, and `sd__Observation`.

    A covariance structure has a row for each of its own parameters: `sd`, `cor`, `rate`, `range`.
    Their standard errors are those of `inference.deltas`: NaN for a term whose covariance is singular. Wald intervals
    are made on the log and Fisher's z scales, see `inference.confint`.
    """
    from ranef.inference.confint import wald_random

    found = m.varcorr()
    rows = [row for key, term in found.items() for row in _ran_par_rows(key, term)]
    if has_residual(found):
        rows.append((residual_name(found), "sd__Observation", found.sigma, "mean"))
    return {
        "effect": "ran_pars",
        "component": [r[3] for r in rows],
        "group": [r[0] for r in rows],
        "term": [r[1] for r in rows],
        "estimate": np.array([r[2] for r in rows]),
        "std_error": std_errors(m),
        **({} if level is None else dict(zip(("conf_low", "conf_high"), wald_random(m, level), strict=True))),
    }


def _ran_par_rows(key: str, term: Covariance) -> list[tuple[str, str, float, str]]:
    of, key = term.component, key.removeprefix(f"{term.component}:")
    if term.structured:
        return [(key, p.label, p.value, of) for p in term.parameters]
    sds = [(key, f"sd__{name}", float(sd), of) for name, sd in zip(term.names, term.sd, strict=True)]
    return sds + [(key, f"cor__{term.names[j]}.{term.names[i]}", float(term.corr[i, j]), of) for i, j in term.pairs]


def ran_vals(m: Fit, level: float | None = None) -> Columns:
    """Conditional modes with conditional standard deviations; normal intervals."""
    parts = [_ran_vals(m, i, level) for i in range(len(m.layout.terms))]
    names = ("component", "group", "level", "term", "estimate", "std_error", "conf_low", "conf_high")
    stacked = {n: [v for part in parts for v in part[n]] for n in names if parts and n in parts[0]}
    return {"effect": "ran_vals", "component": "mean", "term": [], **stacked}


def _ran_vals(m: Fit, i: int, level: float | None) -> Columns:
    info, modes = m.layout.terms[i], m.estimate.modes[i]
    sd = np.sqrt(np.einsum("ljj->lj", np.asarray(m.core.cond_cov(i))))
    q, k = modes.shape
    return {
        "component": [info.component] * (q * k),
        "group": [info.label] * (q * k),
        "level": [str(v) for _ in range(k) for v in info.levels],
        "term": [name for name in info.names for _ in range(q)],
        "estimate": modes.T.ravel(),
        "std_error": sd.T.ravel(),
        **_interval(modes.T.ravel(), sd.T.ravel(), np.inf, level),
    }


BUILDERS: dict[str, Callable[[Fit, float | None], Columns]] = {
    "fixed": fixed,
    "ran_pars": ran_pars,
    "ran_vals": ran_vals,
}


def glance(m: Fit) -> Any:
    """One row of figures about the whole fit."""
    names = (
        "nobs", "npar", "df_residual", "sigma", "loglik", "criterion", "aic", "bic", "method", "family", "converged",
    )  # fmt: skip
    row = {name: [getattr(m, name)] for name in names}
    return to_frame({**row, "boundary": [bool(m.boundary)]}, m.layout.kind)
