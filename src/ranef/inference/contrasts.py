"""`contrast(m, L)`: estimates and tests of linear combinations of the fixed effects, one by one or jointly."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.errors import ArgumentError, DataError, FormulaError, RanefWarning, nearest
from ranef.frame.design import Array
from ranef.inference.ddf import Method
from ranef.inference.ddf.method import form, kept, relevant
from ranef.inference.frames import to_frame
from ranef.inference.named import names_of, position
from ranef.inference.robust.method import check_covered
from ranef.inference.terms import fixed_terms, plans_of
from ranef.inference.testing import wald_method
from ranef.inference.wald import f_p_value, p_value, quantile
from ranef.model import check_fit

if TYPE_CHECKING:
    from ranef.model import Fit

NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def contrast(
    m: Fit,
    L: Any,
    rhs: Any = 0,
    ddf: Any = None,
    joint: bool = False,
    conf_level: float = 0.95,
    component: str = "mean",
    vcov: Any = None,
    cluster: Any = None,
    method: str = "wald",
    **options: Any,
) -> Any:
    """Estimate and test linear combinations of the fixed effects.

    Parameters
    ----------
    m : Fit
        A fitted model.
    L : matrix, dict, str, or list of dicts or strings
        (r, p) weights of the coefficients, in the order of `m.params`; name -> weight; or an expression such as
        "recipeB - recipeC", "2*days - 10" or "days = 10": constants go to the other side. A dict of such values names
        the rows.
    rhs : number or r numbers
        What the combinations are tested against.
    ddf : str, optional
        Degrees of freedom as in `anova`.
    joint : bool
        One F test (chi-square without degrees of freedom) that all hold, instead of a row each.
    conf_level : float
        Of the intervals.
    component : str
        Whose coefficients; "all" for those of all components, named "dispersion.(Intercept)".
    vcov, cluster : str; str, array or list of str, optional
        Covariance of the coefficients: "model" (the default), "kenward-roger", or the robust "CR0" … "CR3" with the
        clusters, as in `Fit.vcov`. With CR0 … CR3 a row has Satterthwaite's degrees of freedom and several have
        Hotelling's T^2 (Pustejovsky & Tipton 2018); `ddf="inf"` gives normal and chi-square tests.
    method : "wald" | "profile" | "boot"
        "profile": likelihood ratios by maximum likelihood, against the model in which the combination has the value of
        `rhs` (`statistic` is the signed root of the ratio), and profile intervals. "boot": p-values that invert the
        bootstrap interval; jointly, the share of replicates farther from the estimate than `rhs` is, in the metric of
        their covariance. Both are about the fit's own model: they go without `ddf`, `vcov`, `cluster`.
    **options
        Of `rf.confint`: `n`, `seed`, `interval` … of the bootstrap, `points` of profiles.

    Returns
    -------
    data frame
        Of the kind of the data: `contrast`, `estimate`, `rhs`, `std_error`, `statistic`, `df`, `p_value`, `conf_low`,
        `conf_high`; with `joint` one row of `numdf`, `dendf`, `statistic`, `p_value`. Another method than Wald's adds
        `p_method` and `conf_method`, which say where p-values and intervals come from (estimates and standard errors
        stay the fit's). No adjustment for multiplicity is made.

    Raises
    ------
    FormulaError, UnknownColumnError, ArgumentError, DataError
        If an expression cannot be read, a coefficient does not exist, the shape is wrong, or a coefficient was dropped.

    Warns
    -----
    RanefWarning
        If levels of a factor are compared one by one more often than it has degrees of freedom. Consider a random
        effect of it, whose partial pooling takes care of many comparisons (Gelman, Hill & Yajima 2012).

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
    >>> float(rf.contrast(m, "Days - 10")["p_value"][0].round(3))
    0.766
    >>> float(rf.contrast(m, "Days - 10", vcov="CR2")["df"][0].round(1))
    17.0
    """
    check_fit(m, "contrast")
    from ranef.inference.by_method import check_alone, tested_combinations, tested_jointly

    names, at = names_of(m, component)
    wanted = _read(L, names)
    offsets = _right_sides(rhs, len(wanted)) + [w.value for w in wanted]
    rows = np.zeros((len(wanted), len(m.estimate.beta)))
    rows[:, at] = [w.weights for w in wanted]
    _check_kept(m, rows)
    check_alone(method, "contrast", ddf=ddf, vcov=vcov, cluster=cluster)
    if options and method == "wald":
        raise ArgumentError(f"contrast has no argument {next(iter(options))!r} (but for method='profile' or 'boot')")
    way = wald_method(m, ddf, vcov, cluster)
    if way.errors:
        check_covered(m, way.vcov(m), rows)
    if joint:
        by_wald = method == "wald"
        found = _joint(m, way, rows, offsets) if by_wald else tested_jointly(m, rows, offsets, method, options)
        return to_frame(found, m.layout.kind)
    _caution(m, rows, component)
    table: dict[str, Any] = tested_rows(m, way, rows, offsets, conf_level)
    if method != "wald":
        table |= tested_combinations(m, rows, offsets, conf_level, method, options)
    return to_frame({"contrast": [w.label for w in wanted], **table}, m.layout.kind)


def _right_sides(rhs: Any, count: int) -> Array:
    """Return what each combination is tested against.

    Raises
    ------
    ArgumentError
        Unless it is one number, or one for each.
    """
    try:
        found = np.broadcast_to(np.asarray(rhs, dtype=np.float64), (count,))
    except (TypeError, ValueError):
        raise ArgumentError(f"contrast: rhs={rhs!r} must be a number, or {count} of them, one a combination") from None
    if not np.isfinite(found).all():
        raise ArgumentError(f"contrast: rhs={rhs!r} must be finite")
    return found


def _caution(m: Fit, rows: Array, component: str) -> None:
    """Say that many comparisons of one factor's levels are made, without an adjustment."""
    nominal = m.distribution.entry.nominal
    parts = [c.name for c in m.layout.components if c.name != "threshold"] if component == "all" else [component]
    named = rows != 0
    for term in (t for part in parts if plans_of(m, part) and not nominal for t in fixed_terms(m, part)):
        own = named[:, term.columns].sum(axis=1)
        count, width = int(np.sum((own > 0) & (own == named.sum(axis=1)))), term.columns.stop - term.columns.start
        if len(term.factors) == 1 and term.label in m.spec.factors and 1 < width < count:
            warnings.warn(
                f"contrast: {count} comparisons of the levels of {term.label!r}, which has {width} degrees of freedom: "
                f"p-values and intervals are not adjusted for their number. Consider partial pooling, (1 | "
                f"{term.label}) in the place of {term.label}, or one test of all, joint=True",
                RanefWarning,
                stacklevel=3,
            )


def tested_rows(m: Fit, method: Method, rows: Array, rhs: Array, level: float) -> dict[str, Array]:
    """Return the columns of the table of rows over all coefficients; entries at dropped ones are not looked at."""
    here = relevant(m, rows)
    inner = rows[:, here]
    estimate = inner @ m.estimate.beta[here]
    variance = np.diag(form(m, rows, method.vcov(m)))
    std_error, df = np.sqrt(np.maximum(variance, 0)), method.rows(m, rows)
    std_error = np.where(std_error > 0, std_error, np.nan)  # coefficients that are held are not tested
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = (estimate - rhs) / std_error
    half = quantile(level, df) * std_error
    return {
        "estimate": estimate,
        "rhs": np.array(rhs, dtype=np.float64),
        "std_error": std_error,
        "statistic": statistic,
        "df": df,
        "p_value": p_value(statistic, df),
        "conf_low": estimate - half,
        "conf_high": estimate + half,
    }


def _joint(m: Fit, method: Method, rows: Array, rhs: Array) -> dict[str, list[Any]]:
    found = method.joint(m, rows, rhs, rows)
    p = float(f_p_value(found.statistic, found.numdf, found.dendf))
    return {"numdf": [found.numdf], "dendf": [found.dendf], "statistic": [found.statistic], "p_value": [p]}


def _check_kept(m: Fit, rows: Array) -> None:
    lost = np.flatnonzero((rows != 0).any(axis=0) & ~kept(m))
    if len(lost):
        name = names_of(m, "all")[0][lost[0]]
        raise DataError(
            f"contrast: {name!r} was dropped because it depends linearly on other columns; what it stands for cannot "
            f"be told apart from them"
        )


# ---- what was asked for ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """A combination: its label, weights of the coefficients, and the value that constants amount to."""

    label: str
    weights: Array
    value: float = 0.0


def _read(wanted: Any, names: tuple[str, ...]) -> list[Wanted]:
    """Return the combinations that a user gave in any of the legal ways."""
    if isinstance(wanted, str):
        return [parse(wanted, names)]
    if isinstance(wanted, Mapping):
        if wanted and not all(_is_number(v) for v in wanted.values()):
            return [_labelled(str(key), value, names) for key, value in wanted.items()]
        return [_weighted(wanted, names)]
    if isinstance(wanted, Sequence) and wanted and all(isinstance(w, str | Mapping) for w in wanted):
        return [found for w in wanted for found in _read(w, names)]
    return _matrix(wanted, names)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating)


def _labelled(label: str, value: Any, names: tuple[str, ...]) -> Wanted:
    found = _read(value, names)
    if len(found) != 1:
        raise ArgumentError(f"contrast {label!r}: one combination a name")
    return Wanted(label, found[0].weights, found[0].value)


def _weighted(weights: Mapping[str, Any], names: tuple[str, ...]) -> Wanted:
    if not weights:
        raise ArgumentError("contrast: L={} has no weights: give coefficient names and their weights")
    out = np.zeros(len(names))
    for name, weight in weights.items():
        out[position(name, names)] += float(weight)
    return Wanted(written(out, names), out)


def _matrix(wanted: Any, names: tuple[str, ...]) -> list[Wanted]:
    try:
        rows = np.atleast_2d(np.asarray(wanted, dtype=np.float64))
    except (TypeError, ValueError):
        rows = np.empty((0, 0))
    if rows.ndim != 2 or rows.shape[1] != len(names) or not len(rows) or not np.isfinite(rows).all():
        raise ArgumentError(
            f"contrast: L is a matrix of {len(names)} columns ({', '.join(names)}), a dict of name -> weight, or an "
            f"expression such as {names[-1]!r}"
        )
    return [Wanted(written(row, names), row) for row in rows]


def written(weights: Array, names: tuple[str, ...]) -> str:
    """Return a combination as text: "recipeB - 0.5*recipeC"."""
    parts = [(w, name) for w, name in zip(weights, names, strict=True) if w]
    text = ""
    for w, name in parts:
        sign = ("-" if w < 0 else "") if not text else (" - " if w < 0 else " + ")
        text += sign + (name if abs(w) == 1 else f"{abs(w):g}*{name}")
    return text or "0"


# ---- expressions -----------------------------------------------------------------------------------------------------


def parse(text: str, names: tuple[str, ...]) -> Wanted:
    """Read a linear expression in the names of coefficients: sums of `number`, `name`, `number*name`, `name/number`.

    Names are matched as they are printed, the longest first, so "(Intercept)", "x:fB" and "I(x^2)" need no quotes. With
    "=" the right side is subtracted.

    Raises
    ------
    FormulaError
        If something is neither; the place is marked.
    """
    at, weights, constant = _sum(text, 0, names)
    if at < len(text):
        at, more, number = _sum(text, at + 1, names)
        weights, constant = weights - more, constant - number
    if at < len(text):
        raise FormulaError("a contrast has at most one '='", text, at)
    return Wanted(text.strip(), weights, -constant)


def _sum(text: str, at: int, names: tuple[str, ...]) -> tuple[int, Array, float]:
    """Read up to an "=" or the end; return where it ended, the weights and the constant."""
    weights, constant = np.zeros(len(names)), 0.0
    first = True
    while (at := _skip(text, at)) < len(text) and text[at] != "=":
        sign = 1.0
        if text[at] in "+-":
            sign = -1.0 if text[at] == "-" else 1.0
            at += 1
        elif not first:
            raise FormulaError("expected '+' or '-'", text, at)
        at, factor, name = _product(text, at, names)
        if name is None:
            constant += sign * factor
        else:
            weights[name] += sign * factor
        first = False
    if first:
        raise FormulaError("a contrast needs the name of a coefficient", text, at)
    return at, weights, constant


def _product(text: str, at: int, names: tuple[str, ...]) -> tuple[int, float, int | None]:
    """Read factors joined by * and /, at most one of them a name."""
    factor, found, divide = 1.0, None, False
    while True:
        start = _skip(text, at)
        at, number, name = _atom(text, start, names)
        if name is None:
            factor = factor / number if divide else factor * number
        elif found is not None or divide:
            raise FormulaError("not a linear combination of the coefficients", text, start)
        else:
            found = name
        at = _skip(text, at)
        if at >= len(text) or text[at] not in "*/":
            return at, factor, found
        divide, at = text[at] == "/", at + 1


def _atom(text: str, at: int, names: tuple[str, ...]) -> tuple[int, float, int | None]:
    for name in sorted(names, key=len, reverse=True):
        stop = at + len(name)
        if text.startswith(name, at) and not (_in_word(name[-1:]) and _in_word(text[stop : stop + 1])):
            return stop, 1.0, names.index(name)
    number = NUMBER.match(text, at)
    if number:
        return number.end(), float(number.group()), None
    word = re.split(r"[\s+*/=-]", text[at:], maxsplit=1)[0]
    own = [name for name in names if name.startswith(word)] if word else []
    if len(own) > 1 and all(":" not in name for name in own):
        factor = f"{word!r} has a coefficient for each of {', '.join(map(repr, own[:4]))}{' …' if len(own) > 4 else ''}"
        raise FormulaError(f"{factor}: name one of them, or test all with rf.anova", text, at)
    raise FormulaError(f"there is no coefficient {word!r}; {nearest(word, names)}", text, at)


def _in_word(character: str) -> bool:
    return character.isalnum() or character in ("_", ".")


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at
