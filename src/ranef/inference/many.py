"""Refits: another response, another formula or data, and thousands of responses at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import narwhals.stable.v2 as nw
import numpy as np

from ranef.call import Call, build_call, make_call
from ranef.engines import Result, engine_of, linear
from ranef.engines.estimate import Array
from ranef.engines.overlap import Separated
from ranef.engines.parameters import spelled, unique
from ranef.errors import DataError, NotAvailableError, RanefError
from ranef.frame.checks import check_response
from ranef.frame.response import MOST, Given, check_counts, read_response
from ranef.frame.table import any_column, check_order, narwhals_frame, shorten
from ranef.inference.ddf.satterthwaite import with_small_sample
from ranef.inference.frames import to_frame
from ranef.inference.submodels import check_matrices, used_contrasts
from ranef.layout import Layout, layout_of
from ranef.model import Digest, design_of, fit, index_of

if TYPE_CHECKING:
    from ranef.frame import Design
    from ranef.model import Fit


def refit(m: Fit, y: Any) -> Fit:
    """Return the same model for another response, see `Fit.refit`."""
    if m.formula.censored:
        raise NotAvailableError("refit: y alone does not say which rows are censored; use update(data=…)")
    design = replace(design_of(m, "refit"), y=_response(m, y))
    check_response(design)
    core, estimate = m.engine.again(design, m.task)
    return replace(m, estimate=estimate, core=core, design=design, data=_with_response(m, design))


def _with_response(m: Fit, design: Design) -> Any:
    """Return the data with the new response, for what fits again from them; None where it is not a plain column."""
    name = m.formula.response
    if m.data is None or m.distribution.categorical or name is None:
        return None
    at = slice(None) if design.rows is None else design.rows
    if isinstance(m.data, Mapping):
        found = m.data.get(name)
        return None if found is None else {**m.data, name: _placed(np.asarray(found), at, design.y)}
    frame = narwhals_frame(m.data)
    if name not in frame.columns or not frame[name].dtype.is_numeric():
        return None
    column = _placed(frame[name].to_numpy(), at, design.y)
    return frame.with_columns(nw.new_series(name, column, backend=frame.implementation)).to_native()


def _placed(old: Array, at: Any, new: Any) -> Array:
    out = np.array(old, dtype=np.float64)
    out[at] = new
    return out


def _response(m: Fit, y: Any) -> Array:
    check_order("refit", y, index_of(m))
    if m.distribution.counts:
        return _counts(m, y)
    values = _by_label(m, y)
    try:
        values = _real(y) if values is None else values
    except (TypeError, ValueError):
        raise DataError(f"refit: y is an array of numbers, one a row, not {shorten([y], 1):.60}") from None
    if values.ndim != 1:
        raise _misshapen(m, values, "")
    return _of_used_rows(m, values)


def _misshapen(m: Fit, values: Array, more: str) -> DataError:
    rows = f"{m.layout.n} rows used of {m.layout.n_input}"
    return DataError(f"refit: y has shape {values.shape}; the fit has {rows}{more}")


def _counts(m: Fit, y: Any) -> Array:
    """Return counts of categories, (n, J): those of a frame are found by the names of its columns."""
    labels = [*map(str, m.spec.categories)]
    named = (hasattr(y, "columns") or isinstance(y, Mapping)) and set(labels) <= set(getattr(y, "columns", y))
    try:
        values = np.column_stack([_real(y[label]) for label in labels]) if named else _real(y)
    except (TypeError, ValueError):
        raise DataError(f"refit: y holds counts, a column for each of {', '.join(labels)}") from None
    if values.ndim != 2 or values.shape[1] != len(labels):
        raise _misshapen(m, values, f", and counts of {', '.join(labels)}")
    values = _of_used_rows(m, values)
    given = Given(None, m.formula.response or "y", m.call.outcome, lambda x: x, None)
    for label, x in zip(labels, values.T, strict=True):
        check_counts(given, label, x)
    return np.ascontiguousarray(values)


def _of_used_rows(m: Fit, values: Array) -> Array:
    if len(values) not in (m.layout.n, m.layout.n_input):
        raise _misshapen(m, values, "")
    if m.design is not None and m.design.rows is not None and len(values) != m.layout.n:
        values = values[m.design.rows]
    if not np.isfinite(values).all():
        raise DataError(f"refit: y is missing or infinite in rows {np.flatnonzero(~_complete(values))[:5].tolist()}")
    return values


def _complete(values: Array) -> Any:
    """Return which rows have all their values."""
    return np.isfinite(values if values.ndim == 1 else values.sum(axis=1))


def _by_label(m: Fit, y: Any) -> Array | None:
    """Return the codes of a response given by its labels; None where y holds numbers as `simulate` gives them.

    Whole numbers are labels where the categories are numbers, else numbers of categories.
    """
    known = design_of(m, "refit").categories
    if not known or np.ndim(y) != 1:
        return None
    column = any_column("refit", y)
    whole = column.x is not None and column.x.dtype.kind in "iub" and all(_is_number(label) for label in known)
    if column.codes is None and not whole:
        return None
    outcome = m.call.outcome
    return read_response(Given(column, m.formula.response or "y", outcome, lambda x: x, None, None, known)).y


def _is_number(label: Any) -> bool:
    try:
        return float(label).is_integer()
    except (TypeError, ValueError):
        return False


def update(m: Fit, formula: str | None, data: Any, arguments: Mapping[str, Any]) -> Fit:
    """Fit again with a changed formula, other data or other arguments, see `Fit.update`."""
    if data is None and m.data is None:
        raise NotAvailableError(
            "update: this fit has no data (it is slim, or was refitted to a response that is no column); give data="
        )
    called = m.call.family.entry.nicknames
    again = {called.get(name, name) for name in arguments}
    given = {name: value for name, value in m.call.arguments.items() if name not in again}
    changed = m.formula
    if formula is not None:  # what belongs to terms that may be gone: contrasts of their factors, start values
        changed = m.formula.update(formula)
        given |= {"contrasts": used_contrasts(m, changed), "control": replace(m.call.control, start=None)}
        if "cov" not in arguments:
            check_matrices(m, changed)
    return fit(changed, m.data if data is None else data, **{**given, **arguments})


def with_separation(estimate: Any, m: Fit) -> Any:
    """Return an estimate that knows what separates the response, which a fit without rows cannot find."""
    if m.task.linear or m.design is None or m.task.method == "pql":
        return estimate
    return replace(
        estimate, separated=Separated(m.separation, estimate.separated.unsearched if estimate.separated else ())
    )


def slim(m: Fit) -> Fit:
    """Return a copy without rows, which still knows what a summary asks."""
    relations = () if m.design is None else tuple(t.relation for t in m.design.terms)
    digest = m.digest or Digest(m.messages, m.residual_quantiles, relations)
    _ = m.estimate.vcov  # before the core that makes it goes
    estimate = with_separation(with_small_sample(m), m)
    core = m.engine.restore(m.engine.save(m.core, m.estimate), m.estimate, None, m.task)
    return replace(m, core=core, design=None, data=None, digest=digest, estimate=estimate)


# ---- many responses --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ManyFits:
    """Fits of one model to many responses.

    Attributes
    ----------
    responses : tuple of str
        Names, in the order given.
    estimates : tuple of Estimate, LaplaceEstimate or None
        None where the fit failed.
    failures : dict
        Response -> why it failed (missing values, constant, not converged).
    """

    responses: tuple[str, ...]
    estimates: tuple[Result | None, ...]
    failures: Mapping[str, str]
    fixed: tuple[str, ...]
    random: tuple[str, ...]
    kind: str

    @property
    def failed(self) -> int:
        """How many responses failed."""
        return len(self.failures)

    def __len__(self) -> int:
        return len(self.responses)

    def __repr__(self) -> str:
        return f"ManyFits: {len(self)} responses, {self.failed} failed"

    def glance(self) -> Any:
        """Return one row per response: `response, nobs, criterion, sigma, converged, boundary, evaluations, failure`.

        Examples
        --------
        >>> import ranef as rf
        >>> sleep = rf.datasets.load("sleepstudy")
        >>> both = {"ms": sleep["Reaction"], "s": sleep["Reaction"] / 1000}
        >>> fits = rf.fit_many("~ Days + (1 | Subject)", sleep, both)
        >>> fits.glance()[["response", "criterion", "converged"]].round(2)
          response  criterion  converged
        0       ms    1786.47       True
        1        s    -672.70       True
        """
        return to_frame(_glance_columns(self), self.kind)

    def tidy(self) -> Any:
        """Return one row per response and coefficient: `response, term, estimate, std_error, statistic`.

        Examples
        --------
        >>> import ranef as rf
        >>> sleep = rf.datasets.load("sleepstudy")
        >>> both = {"ms": sleep["Reaction"], "s": sleep["Reaction"] / 1000}
        >>> fits = rf.fit_many("~ Days + (1 | Subject)", sleep, both)
        >>> fits.tidy()[["response", "term", "estimate"]].round(4)
          response         term  estimate
        0       ms  (Intercept)  251.4051
        1       ms         Days   10.4673
        2        s  (Intercept)    0.2514
        3        s         Days    0.0105
        """
        return to_frame(_tidy_columns(self), self.kind)

    def ran_pars(self) -> Any:
        """Return one row per response: `response`, a column per standard deviation (`sd(x | g)`), and `sigma`.

        Examples
        --------
        >>> import ranef as rf
        >>> sleep = rf.datasets.load("sleepstudy")
        >>> both = {"ms": sleep["Reaction"], "s": sleep["Reaction"] / 1000}
        >>> fits = rf.fit_many("~ Days + (1 | Subject)", sleep, both)
        >>> fits.ran_pars().round(4)
          response  sd((Intercept) | Subject)    sigma
        0       ms                    37.1238  30.9912
        1        s                     0.0371   0.0310
        """
        return to_frame(_sd_columns(self), self.kind)


def fit_many(formula: str, data: Any, Y: Any, **arguments: Any) -> ManyFits:
    """Fit one model to many responses; design, ordering and symbolic work are shared, the fits run in parallel.

    Parameters
    ----------
    formula : str
        The model; its left side, if any, is not looked at.
    data : data frame or dict
        The predictors and groups.
    Y : (n, m) array, data frame or dict of columns
        One column per response, one row per row of `data`: numbers as `simulate` gives them (proportions where there
        are trials; of ordinal families numbers of categories, which are the same for all responses). Rows in which a
        response is missing are left out of its own fit only, `nobs` says how many remain; with `missing="raise"` it
        fails.
    **arguments
        As for `fit`.

    Returns
    -------
    ManyFits
        Tables per response; a response that cannot be fitted is counted and named in `failures`.

    Raises
    ------
    NotAvailableError
        For families of categories without order.
    DataError
        If Y has not a row for every row of `data`.

    Examples
    --------
    >>> import numpy as np
    >>> import ranef as rf
    >>> sleep = rf.datasets.load("sleepstudy")
    >>> Y = np.column_stack([sleep["Reaction"], np.log(sleep["Reaction"])])
    >>> rf.fit_many("~ Days + (1 | Subject)", sleep, Y).tidy().round(4)
      response         term  estimate  std_error  statistic
    0       y1  (Intercept)  251.4051     9.7467    25.7938
    1       y1         Days   10.4673     0.8042    13.0154
    2       y2  (Intercept)    5.5301     0.0331   167.2730
    3       y2         Days    0.0337     0.0025    13.3568
    """
    call = make_call(one_sided(formula, arguments.get("env")), **arguments)
    if call.family.entry.nominal:
        raise NotAvailableError(
            f"fit_many: a model of family={call.family.name!r} depends on the categories of its response; fit each"
        )
    _, design = build_call(call, data)
    check_order("fit_many: Y", Y, getattr(data, "index", None))
    names, responses = columns_of(Y, design.n_input)
    used = responses if design.rows is None else responses[design.rows]
    failures = unusable(names, used, dropping=call.missing == "drop")
    good = [j for j, name in enumerate(names) if name not in failures]
    if call.family.entry.ordinal:
        design, responses = _ordered(design, responses, used[:, good])
    many = _Many(call, data, design, layout_of(design, call.task(design)), responses)
    found = {names[j]: e for rows in _by_missing(used, good) for j, e in many.solved(rows).items()}
    failures |= {name: why for name, e in found.items() if (why := _why_failed(e))}
    estimates = tuple(None if isinstance(e := found.get(name), str) else e for name in names)
    return ManyFits(names, estimates, failures, *many.named, many.layout.kind)


@dataclass(frozen=True, slots=True)
class _Many:
    """What the fits of many responses share."""

    call: Call
    data: Any
    design: Design  # of the rows in which nothing but responses is missing
    layout: Layout
    responses: Array

    @property
    def named(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of coefficients and standard deviations."""
        return _fixed_names(self.layout), _sd_names(self.layout.terms)

    def solved(self, at: Sequence[int]) -> dict[int, Result | str]:
        """Return the estimates, or why there are none, of responses that are missing in the same rows."""
        used = slice(None) if self.design.rows is None else self.design.rows
        missing = np.isnan(self.responses[used, at[0]])
        if not missing.any():
            return self.by(self.design, at)
        try:
            _, design = build_call(self.call, self.data, self.responses[:, at[0]])
            return self.by(replace(design, categories=self.design.categories), at)
        except RanefError as error:
            return dict.fromkeys(at, str(error))

    def by(self, design: Design, at: Sequence[int]) -> dict[int, Result | str]:
        """Return the estimates of responses by a design of the rows in which they are there."""
        task = self.call.task(design)
        layout = layout_of(design, task)
        if (_fixed_names(layout), _sd_names(layout.terms)) != self.named:
            return dict.fromkeys(at, "levels of its factors have no rows left, its model has other coefficients")
        engine = engine_of(task)
        if task.linear:
            linear.check(design, self.call.control)
        rows = slice(None) if design.rows is None else design.rows
        return dict(zip(at, engine.many(design, np.ascontiguousarray(self.responses[rows][:, at]), task), strict=True))


def _by_missing(used: Array, good: Sequence[int]) -> list[list[int]]:
    """Return responses in groups that are missing in the same rows."""
    groups: dict[bytes, list[int]] = {}
    for j in good:
        groups.setdefault(np.packbits(np.isnan(used[:, j])).tobytes(), []).append(j)
    return list(groups.values())


def _ordered(design: Design, responses: Array, usable: Array) -> tuple[Design, Array]:
    """Return the design with the categories of all responses, and their codes.

    Categories are the distinct numbers of all responses in their order: one model has one set of thresholds.
    """
    known = np.unique(usable[np.isfinite(usable)])
    if not 2 <= len(known) <= MOST:
        raise DataError(
            f"fit_many: the responses have {len(known)} distinct values; as categories, 2 to {MOST} of them"
        )
    codes = np.searchsorted(known, responses).astype(np.float64)
    codes[np.isnan(responses)] = np.nan
    return replace(design, categories=tuple(known.tolist())), codes


def _fixed_names(layout: Layout) -> tuple[str, ...]:
    return tuple(n if c.name == "mean" else f"{c.name}.{n}" for c in layout.components for n in c.names)


def one_sided(formula: Any, env: Any = None) -> Any:
    """Return the formula without its response."""
    from ranef.formula import Formula, parse

    read = formula if isinstance(formula, Formula) else parse(formula, env or ())
    return replace(read, lhs=None)


def columns_of(Y: Any, n: int) -> tuple[tuple[str, ...], Array]:
    """Names and (n, m) values of the responses."""
    try:
        names, values = _named_columns(Y)
    except (TypeError, ValueError) as error:
        raise (
            error if isinstance(error, DataError) else DataError(f"fit_many: Y holds numbers only ({error})")
        ) from None
    if values.ndim != 2 or len(values) != n:
        raise DataError(f"fit_many: Y has shape {values.shape}; the data have {n} rows, so Y must be ({n}, m)")
    return names, values


def _named_columns(Y: Any) -> tuple[tuple[str, ...], Array]:
    if isinstance(Y, Mapping):
        return tuple(map(str, Y)), np.column_stack([_real(v) for v in Y.values()])
    if hasattr(Y, "columns") or hasattr(Y, "column_names"):
        frame = narwhals_frame(Y)
        return tuple(map(str, frame.columns)), _real(frame.to_numpy())
    values = _real(Y)
    values = values[:, None] if values.ndim == 1 else values
    return tuple(f"y{j + 1}" for j in range(values.shape[-1] if values.ndim else 0)), values


def _real(values: Any) -> Array:
    """Return numbers as float64; of complex ones numpy would drop the imaginary part."""
    array = np.asarray(values)
    if array.dtype.kind == "c":
        raise TypeError("complex numbers")
    return np.asarray(array, dtype=np.float64, order="C")


def unusable(names: Sequence[str], responses: Array, dropping: bool = False) -> dict[str, str]:
    """Responses that cannot be fitted, and why; where rows are dropped, missing values are no reason."""
    low, high = np.fmin.reduce(responses, axis=0), np.fmax.reduce(responses, axis=0)  # of those that are there
    bad = np.isinf(responses).any(axis=0) if dropping else ~np.isfinite(responses).all(axis=0)
    reasons = {
        "missing in all rows": np.isnan(low),
        ("" if dropping else "missing or ") + "infinite values": bad,
        "constant response": low == high,
    }
    found = {names[j]: why for why, which in reversed(reasons.items()) for j in np.flatnonzero(which).tolist()}
    return {name: found[name] for name in names if name in found}


def _why_failed(found: Result | str) -> str | None:
    if isinstance(found, str):
        return found
    return None if found.outcome == "converged" else f"not converged: {found.outcome}"


def _sd_names(terms: Any) -> tuple[str, ...]:
    labels = unique([t.key for t in terms])
    return tuple(spelled("sd", [name], g, False)[0] for g, t in zip(labels, terms, strict=True) for name in t.names)


def _figure(fits: ManyFits, of: Any) -> Array:
    return np.array([np.nan if e is None else of(e) for e in fits.estimates], dtype=float)


def _glance_columns(fits: ManyFits) -> dict[str, Any]:
    return {
        "response": list(fits.responses),
        "nobs": [0 if e is None else e.n for e in fits.estimates],
        "criterion": _figure(fits, lambda e: e.criterion),
        "sigma": _figure(fits, lambda e: e.sigma),
        "converged": [name not in fits.failures for name in fits.responses],
        "boundary": [e is not None and bool(e.boundary) for e in fits.estimates],
        "evaluations": [0 if e is None else e.evaluations for e in fits.estimates],
        "failure": [fits.failures.get(name) for name in fits.responses],
    }


def _tidy_columns(fits: ManyFits) -> dict[str, Any]:
    p = len(fits.fixed)
    blank = np.full(p, np.nan)
    beta = np.concatenate([np.empty(0), *(blank if e is None else e.beta for e in fits.estimates)])
    errors = [blank if e is None else np.sqrt(e.vcov.diagonal()) for e in fits.estimates]
    std_error = np.concatenate([np.empty(0), *errors])
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = beta / std_error
    return {
        "response": [name for name in fits.responses for _ in range(p)],
        "term": list(fits.fixed) * len(fits),
        "estimate": beta,
        "std_error": std_error,
        "statistic": statistic,
    }


def _sd_columns(fits: ManyFits) -> dict[str, Any]:
    blank = np.full(len(fits.random), np.nan)
    sds = np.array([blank if e is None else _sds(e) for e in fits.estimates]).reshape(len(fits), len(fits.random))
    named = dict(zip(fits.random, sds.T.copy(), strict=True))
    return {"response": list(fits.responses), **named, "sigma": _figure(fits, lambda e: e.sigma)}


def _sds(estimate: Result) -> Array:
    return np.concatenate([np.empty(0), *(np.sqrt(np.diag(c)) for c in estimate.covariances)])
