"""Responses in the forms that families take them, and what is illegal, with the rows that are.

A form is one function `(Given) -> Response` and one row of `FORMS`; a legal range is one row of `RANGES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ranef.errors import DataError, OptionError
from ranef.frame.design import Array, Levels
from ranef.frame.evaluate import Categories, Censored, Measured, Truncated
from ranef.frame.kernels import is_count
from ranef.frame.levels import drop_unused, translate
from ranef.frame.spec import Outcome
from ranef.frame.table import Column, rows_of, shorten
from ranef.frame.transforms import Matrix
from ranef.frame.values import categories_of, response_of

NEAR = 1e-6  # a proportion times its trials may miss a whole number by this much, relative to the trials
FEW = 5  # so many labels are written out in a message
OPEN = ("positive", "unit")  # responses above 0
MOST = 50  # so many distinct whole numbers may be the categories of an ordinal response


@dataclass(frozen=True, slots=True)
class Given:
    """A response as it came, and what it is to become."""

    value: Any
    name: str
    outcome: Outcome
    keep: Callable[[Array], Array]
    rows: Array | None
    trials: Array | None = None
    categories: tuple[Any, ...] = ()

    def where(self, bad: Array) -> str:
        """Say which rows of the data are bad."""
        if self.rows is None:
            return rows_of(bad)
        mask = np.zeros(int(self.rows[-1]) + 1, bool)
        mask[self.rows[bad]] = True
        return rows_of(mask)


@dataclass(frozen=True, slots=True)
class Response:
    """A response as the core takes it."""

    y: Array
    trials: Array | None = None
    categories: tuple[Any, ...] = ()
    censor: Array | None = None
    upper: Array | None = None
    precision: Array | None = None
    bounds: Array | None = None
    absent: tuple[Any, ...] = ()


def read_response(given: Given) -> Response:
    """Return the response in the form that its family takes.

    Raises
    ------
    DataError
        If it holds values that the family cannot produce; names rows, and what to do.
    """
    if given.trials is not None and given.outcome.support != "binomial":
        raise OptionError(f"trials= belongs to binomial families; family={given.outcome.family!r} has none")
    if isinstance(given.value, Truncated):
        return _truncated(given, given.value)
    if isinstance(given.value, Censored):
        return _censored(given, given.value)
    if isinstance(given.value, Measured):
        return _measured(given, given.value)
    return FORMS.get(given.outcome.support, _numbers)(given)


def _truncated(given: Given, value: Truncated) -> Response:
    found = read_response(replace(given, value=value.y))
    ends = np.column_stack([given.keep(value.least), given.keep(value.most)])
    bad = ~(ends[:, 0] < ends[:, 1])
    if bad.any():
        raise DataError(f"response {given.name!r}: lb lies below ub; not so in {given.where(bad)}")
    bounds = legal_bounds(ends, given.outcome.support)
    _check_room(given, bounds)
    _check_within(given, found, bounds)
    return replace(found, bounds=bounds)


def legal_bounds(bounds: Array, support: str) -> Array:
    """Return bounds as legal responses: of counts the whole numbers within."""
    if support == "count":
        bounds = np.column_stack([np.ceil(bounds[:, 0]), np.floor(bounds[:, 1])])
    return np.ascontiguousarray(bounds, np.float64)


def no_room(bounds: Array, support: str) -> Array:
    """Tell between which legal bounds no response of a family lies."""
    least, most = bounds.T
    bad = least > most  # no whole number between
    if support != "real":
        bad |= (most <= 0) if support in OPEN else (most < 0)
    return bad | (least >= 1) if support in ("unit", "closed_unit") else bad


def _check_room(given: Given, bounds: Array) -> None:
    bad = no_room(bounds, given.outcome.support)
    if bad.any():
        raise DataError(
            f"response {given.name!r}: under family={given.outcome.family!r} nothing lies between the bounds in "
            f"{given.where(bad)}. Check lb and ub"
        )


def _check_within(given: Given, found: Response, bounds: Array) -> None:
    """Refuse responses that their bounds exclude; of censored ones those that lie outside whatever they are."""
    low, high = found.y, found.y
    if found.censor is not None:
        upper = found.y if found.upper is None else found.upper
        low = np.where(found.censor == -1, -np.inf, low)
        high = np.select([found.censor == 1, found.censor == 2], [np.inf, upper], high)
    bad = (high < bounds[:, 0]) | (low > bounds[:, 1])
    if bad.any():
        count = int(bad.sum())
        raise DataError(
            f"response {given.name!r}: {count} value{' lies' if count == 1 else 's lie'} outside the bounds of the "
            f"row; {given.where(bad)}. Rows that would not have been recorded are not in truncated data: leave them "
            f"out, or correct lb and ub (both are possible values)"
        )


def _censored(given: Given, value: Censored) -> Response:
    if given.outcome.support in FORMS:
        raise OptionError(f"cens() has no meaning under family={given.outcome.family!r}")
    value = _one_sided(given, value)
    _check_ends(given, value)
    found = _numbers(replace(given, value=value.y))
    upper = None if value.upper is None else np.ascontiguousarray(given.keep(value.upper))
    return replace(found, censor=np.ascontiguousarray(given.keep(value.status)), upper=upper)


def _one_sided(given: Given, value: Censored) -> Censored:
    """Return intervals with nothing below them as left-censored, those with nothing above as right-censored.

    Ends are no responses: of counts, the whole number below one says the same.
    """
    support, status = given.outcome.support, value.status
    y = np.where(status != 0, np.floor(value.y), value.y) if support == "count" else value.y
    if value.upper is None or support == "real":
        return replace(value, y=y)
    inside = status == 2
    low = inside & ((y <= 0) if _without_zero(given) else (y < 0))
    high = inside & ~low & (value.upper >= 1) & (support in ("unit", "closed_unit"))
    ends = np.where(low, -1, np.where(high, 1, status)).astype(status.dtype)
    return replace(value, y=np.where(low, value.upper, y), status=ends)


def _without_zero(given: Given) -> bool:
    """Tell whether a response cannot be 0."""
    zeros = given.outcome.zeros
    return zeros is False if given.outcome.support == "count" else given.outcome.support in OPEN and not zeros


def _check_ends(given: Given, value: Censored) -> None:
    """Refuse rows that say a response lies where none can."""
    y, status, support = given.keep(value.y), given.keep(value.status), given.outcome.support
    _refuse(
        given,
        (status == -1) & (y <= 0) & _without_zero(given),
        "left-censored at 0 or below",
        "Nothing lies there: leave such rows out",
    )
    high = support in ("unit", "closed_unit")
    _refuse(given, (status == 1) & (y >= 1) & high, "right-censored at 1 or above", "Nothing lies above: status 'none'")


def _measured(given: Given, value: Measured) -> Response:
    sd = np.asarray(given.keep(value.sd), np.float64)
    bad = ~(sd > 0)
    if bad.any():
        raise DataError(
            f"response {given.name!r}: a standard error is positive; not so in {given.where(bad)}. Leave such rows out"
        )
    return replace(_numbers(replace(given, value=value.y)), precision=np.ascontiguousarray(sd**-2.0))


# ---- numbers ---------------------------------------------------------------------------------------------------------


def _numbers(given: Given) -> Response:
    value = _truth_as_number(given.value) if given.outcome.support == "count" else given.value
    y = response_of(value, given.name, given.keep)
    if given.outcome.support in RANGES:
        RANGES[given.outcome.support](given, y)
    return Response(y)


def _truth_as_number(value: Any) -> Any:
    if isinstance(value, Column) and value.x is not None and value.x.dtype.kind == "b":
        return value.x.astype(np.float64)
    return value.astype(np.float64) if isinstance(value, np.ndarray) and value.dtype.kind == "b" else value


def _refuse(given: Given, bad: Array, what: str, remedy: str) -> None:
    if bad.any():
        count = int(bad.sum())
        verb = "value is" if count == 1 else "values are"
        raise DataError(
            f"response {given.name!r}: {count} {verb} {what}, impossible under family={given.outcome.family!r}; "
            f"{given.where(bad)}. {remedy}"
        )


def _count(given: Given, y: Array) -> None:
    if not is_count(y):
        _refuse(given, y < 0, "negative", "A count is a whole number, 0 or above")
        _refuse(
            given, y > np.floor(y), "not whole", "For non-negative numbers that are no counts: 'gamma' or 'tweedie'"
        )
    if given.outcome.zeros is False:
        _refuse(given, y == 0, "0", "For a hurdle model add zero_inflation='~ 1'")


def _positive(given: Given, y: Array) -> None:
    _refuse(given, y < 0, "negative", "Only numbers above 0 are possible")
    if not given.outcome.zeros:
        _refuse(
            given, y == 0, "0",
            "Use family='tweedie', or a model of the zeros (zero_inflation='~ 1'), or treat them as censored",
        )  # fmt: skip


def _nonnegative(given: Given, y: Array) -> None:
    _refuse(given, y < 0, "negative", "Only numbers of 0 and above are possible")


def _unit(given: Given, y: Array) -> None:
    _closed(given, y)
    zeros = (y == 0) if not given.outcome.zeros else np.zeros(len(y), bool)
    _refuse(
        given, zeros | (y == 1), "exactly 0 or 1",
        f"Use family='ordered_beta', model the zeros with zero_inflation=, or write squeeze({given.name}), which is "
        f"(y (n - 1) + 0.5) / n",
    )  # fmt: skip


def _closed(given: Given, y: Array) -> None:
    _refuse(given, (y < 0) | (y > 1), "outside 0 to 1", "A proportion lies between 0 and 1")


RANGES: dict[str, Callable[[Given, Array], None]] = {
    "count": _count,
    "positive": _positive,
    "nonnegative": _nonnegative,
    "unit": _unit,
    "closed_unit": _closed,
}


# ---- successes among trials ------------------------------------------------------------------------------------------


def _binomial(given: Given) -> Response:
    if isinstance(given.value, Matrix):
        return _pairs(given)
    value = given.value
    truth = value.x if isinstance(value, Column) else value
    if isinstance(truth, np.ndarray) and truth.dtype.kind == "b":
        return _with_one_trial(given, given.keep(truth).astype(np.float64))
    if isinstance(value, Categories) or (isinstance(value, Column) and value.codes is not None):
        return _two_levels(given)
    y = response_of(value, given.name, given.keep)
    return _zero_one(given, y) if given.trials is None else _proportion(given, y)


def _pairs(given: Given) -> Response:
    if len(given.value.columns) != 2:
        raise DataError(
            f"response {given.name!r} has {len(given.value.columns)} columns; write cbind(success, failure), or "
            "family='multinomial' for counts of more categories"
        )
    if given.trials is not None:
        raise OptionError(f"response {given.name!r} already tells the trials: leave trials= out")
    success, failure = (np.asarray(given.keep(x), np.float64) for x in given.value.columns)
    both = "In cbind(success, failure) both are counts"
    for name, x in (("success", success), ("failure", failure)):
        if not is_count(x):
            _refuse(given, x < 0, f"negative ({name})", f"{both}; failure = size - success")
            _refuse(given, x > np.floor(x), f"not whole ({name})", both)
    return _of_trials(success, success + failure)


def _of_trials(success: Array, trials: Array) -> Response:
    """Return the proportion of successes; a row without trials says nothing, whatever its response."""
    return Response(success / np.maximum(trials, 1.0), np.ascontiguousarray(trials))


def _with_one_trial(given: Given, y: Array, levels: tuple[Any, ...] = ()) -> Response:
    if given.trials is not None:
        raise OptionError(f"response {given.name!r} is binary: trials= belongs to a proportion; leave it out")
    return Response(np.ascontiguousarray(y), None, levels)


def _two_levels(given: Given) -> Response:
    found = categories_of(given.value, given.name)
    if given.categories:
        return _with_one_trial(given, _by_the_fit(given, found), given.categories)
    codes, levels = given.keep(found.codes), found.levels
    if len(levels) != 2:
        codes, levels, _ = drop_unused(codes, levels)
    if len(levels) != 2:
        raise DataError(
            f"response {given.name!r} has {len(levels)} level{'s' * (len(levels) != 1)} ({shorten(levels, 4)}); a "
            f"binomial one has two, the first meaning failure: write I({given.name} == {levels[-1]!r}) for one against "
            f"the others"
        )
    return _with_one_trial(given, codes.astype(np.float64), tuple(levels))


def _zero_one(given: Given, y: Array) -> Response:
    if is_count(y) and y.max(initial=0.0) <= 1:
        return Response(y)
    _refuse(given, y < 0, "negative", "A binomial response is 0 or 1")
    if (y > 1).any():
        _refuse(
            given, y > 1, "above 1",
            "For counts of successes write cbind(success, failure), for proportions give trials=",
        )  # fmt: skip
    _refuse(
        given, (y > 0) & (y < 1), "a proportion without its denominator",
        "Give trials= (a column), write cbind(success, failure), or use family='beta'",
    )  # fmt: skip
    return Response(y)


def _proportion(given: Given, y: Array) -> Response:
    trials = np.ascontiguousarray(given.trials, np.float64)
    _refuse(
        given, (trials < 0) | (trials > np.floor(trials)), "given a number of trials that is no count", "Check trials="
    )
    _refuse(
        given, (y < 0) | (y > 1), "outside 0 to 1",
        "With trials= the response is a proportion; for counts write cbind(success, trials - success)",
    )  # fmt: skip
    success = np.rint(y * trials)
    _refuse(
        given, np.abs(y * trials - success) > NEAR * np.maximum(trials, 1.0), "no whole number of successes",
        "Check that trials= is the denominator",
    )  # fmt: skip
    return _of_trials(success, trials)


# ---- categories ----------------------------------------------------------------------------------------------


def _ordinal(given: Given) -> Response:
    if isinstance(given.value, Matrix):
        return _counted(given, given.value)
    return _coded(given, categories_of(given.value, given.name) if given.categories else _ordered(given))


def _by_the_fit(given: Given, found: Categories) -> Array:
    """Return the codes of new responses in the order of the fit, whatever their own; NaN where missing."""
    codes = given.keep(found.codes)
    y = translate(codes, found.levels, Levels.of(given.categories)).astype(np.float64)
    new = (y < 0) & (codes >= 0)
    if new.any():
        labels = list(dict.fromkeys(found.levels[int(code)] for code in codes[new].tolist()))
        what = "is no category" if len(labels) == 1 else "are no categories"
        raise DataError(
            f"response {given.name!r}: {shorten(labels, 4)} {what} of the fit, which has "
            f"{shorten(list(given.categories), 8)}; {given.where(new)}. Leave such rows out, or correct the labels"
        )
    return np.where(codes < 0, np.nan, y)


def _nominal(given: Given) -> Response:
    if isinstance(given.value, Matrix):
        return _counted(given, given.value)
    found = categories_of(given.value, given.name)
    if len(found.levels) > MOST:
        raise DataError(
            f"response {given.name!r} has {len(found.levels)} values, too many for categories (at most {MOST})"
        )
    return _coded(given, found)


def _counted(given: Given, value: Matrix) -> Response:
    """Return counts of categories, a column each; a row of zeros says nothing."""
    names = value.labels or tuple(str(k + 1) for k in range(len(value.columns)))
    if not 2 <= len(names) <= MOST or len(set(names)) < len(names):
        raise DataError(
            f"response {given.name!r}: the columns of cbind() are counts of two or more categories, {MOST} at most, "
            f"each with a name of its own; there are {shorten(list(names), 8)}"
        )
    counts = np.column_stack([np.asarray(given.keep(x), np.float64) for x in value.columns])
    for name, x in zip(names, counts.T, strict=True):
        check_counts(given, name, x)
    return Response(np.ascontiguousarray(counts), None, names)


def check_counts(given: Given, name: str, x: Array) -> None:
    """Refuse what is no count of a category."""
    _refuse(given, x < 0, f"negative ({name})", "A column of cbind() counts the outcomes of its category")
    _refuse(
        given, x > np.floor(x), f"not whole ({name})",
        "A column of cbind() counts the outcomes of its category; shares of a whole are counts where they are "
        "multiplied by the number of outcomes",
    )  # fmt: skip


def _coded(given: Given, found: Categories) -> Response:
    if given.categories:
        return Response(_by_the_fit(given, found), None, given.categories)
    codes, levels, absent = drop_unused(given.keep(found.codes), found.levels)
    if len(levels) < 2:
        raise DataError(f"response {given.name!r} has one category in the rows used; two or more are needed")
    return Response(codes.astype(np.float64), None, tuple(map(_label, levels)), absent=tuple(map(_label, absent)))


def _label(level: Any) -> Any:
    """Return a category as it was meant: whole numbers are floats only where some rows had none."""
    return int(level) if isinstance(level, float) and level.is_integer() else level


def _ordered(given: Given) -> Categories:
    value = given.value
    found = categories_of(given.value, given.name)
    numbers = isinstance(value, np.ndarray) or (isinstance(value, Column) and value.x is not None)
    if numbers:
        whole = all(float(v) == round(float(v)) for v in found.levels) and len(found.levels) <= MOST
        if not whole:
            raise DataError(
                f"response {given.name!r} holds numbers that are no categories; use ordered(cut({given.name}, …))"
            )
    elif not (found.ordered or (getattr(value, "listed", False) and len(found.levels) <= MOST)):
        levels = ", ".join(map(repr, found.levels)) if len(found.levels) <= FEW else "'lowest', 'next', …"
        raise DataError(
            f"response {given.name!r} is a factor without an order ({shorten(found.levels, FEW)}); say the order, as "
            f"in ordered({given.name}, levels=c({levels})), or give an ordered column"
        )
    return found


FORMS: dict[str, Callable[[Given], Response]] = {"binomial": _binomial, "ordinal": _ordinal, "nominal": _nominal}
