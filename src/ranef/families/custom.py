"""A user's own family: a log density in NumPy, differentiated by the Taylor arithmetic of `ranef.families.taylor`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranef.errors import ArgumentError, DataError, NotAvailableError, OptionError, nearest
from ranef.families.distribution import Distribution
from ranef.families.links import LEGAL, LINKS, link_of
from ranef.families.table import ZERO, Entry, Parameter
from ranef.families.taylor import Taylor, variables

Array = NDArray[np.float64]
Function = Callable[..., Any]

SUPPORTS = ("real", "positive", "nonnegative", "count", "unit", "closed_unit", "binomial")
DISCRETE = ("count", "binomial")
INFLATABLE = ("positive", "unit", *DISCRETE)
MOST = 4  # parameters, zero inflation counted
TAKEN = ("data", "formula", "family", "link", "method", "trials", "offset", "mean", ZERO)  # mean other things in fit()
MOMENTS = ("mean", "variance")
HINTS = {  # part of an exception -> what to do
    "truth value of": "is given arrays, one value a row: write np.where for cases",
    "element with a sequence": "may not fill an array: write np.where for cases",
    "read-only": "may not write into its arguments: write y = y - 1 for y -= 1",
}
TYPICAL = {"any": 0.0, "positive": 1.0, "unit": 0.5}  # where parameters begin


@dataclass(frozen=True, slots=True)
class Custom:
    """What the user wrote; functions take the parameters in order, on their own scale, one value a row."""

    log_density: Function
    simulate: Function | None = None
    mean: Function | None = None
    variance: Function | None = None
    cdf: Function | None = None
    survival: Function | None = None
    start: Mapping[str, float] = field(default_factory=dict[str, float], hash=False)


def custom_family(
    log_density: Function,
    parameters: Sequence[str],
    links: Sequence[str] | Mapping[str, str] | None = None,
    *,
    simulate: Function | None = None,
    mean: Function | None = None,
    variance: Function | None = None,
    cdf: Function | None = None,
    survival: Function | None = None,
    support: str = "real",
    start: Mapping[str, float] | None = None,
    name: str = "custom",
) -> Distribution:
    """Return a family with a density of your own, for `fit(..., family=...)`.

    Parameters
    ----------
    log_density : callable
        `log_density(y, mu, phi, ...)`: log f(y), constants included, of arrays with one value a row. `y` is a plain
        array, the parameters are numbers with derivatives, on which +, -, *, /, **, NumPy's elementwise functions
        (`np.logaddexp(a, b)` for mixtures), and `scipy.special`'s gammaln, betaln, digamma, zeta, erf, erfcx, ndtr,
        log_ndtr, ndtri, expit, logit, xlogy, owens_t, wrightomega, exprel … work; Bessel functions (iv, ive, kv, …),
        gammainc, betainc, stdtr and hypergeometric functions in their last argument. Any other function is refused by
        name. Cases are written with `np.where` or `np.select`. NaN or -inf where parameters are impossible.
    parameters : sequence of str
        One to four names. The first is the mean's (or location's): the formula's predictor. The others are one number
        each unless `fit` is given a formula by that name, `phi="~ x"`.
    links : sequence or dict, optional
        A link for each parameter: "identity" (the default), "log", "logit", "probit", "cloglog", "sqrt" ….
    simulate : callable, optional
        `simulate(rng, mu, phi, ...)`: one draw a row, with a NumPy Generator.
    mean, variance, cdf : callable, optional
        `mean(mu, phi, ...)` of the response (default: the first parameter), its variance (for Pearson and scaled
        residuals), and P(Y <= y), `cdf(y, mu, phi, ...)` (for quantile residuals, and for censored responses: then it
        is differentiated as the density is, so that the same functions may be used).
    survival : callable, optional
        P(Y > y), `survival(y, mu, phi, ...)`, for censored responses far out in the upper tail, where 1 - cdf loses
        its digits; default 1 - cdf.
    support : str
        Which responses are legal: "real", "positive", "nonnegative", "count" (0, 1, 2 …), "unit" (between 0 and 1),
        "closed_unit", or "binomial": successes among trials, given as in `fit(..., family="binomial")`. There all
        functions speak of the number of successes and take the trials by name, `log_density(y, p, ..., trials=n)`,
        `cdf(y, p, ..., trials=n)`, `simulate(rng, p, ..., trials=n)`; the first parameter, or `mean` / trials, is the
        expected proportion. Counts and successes are discrete. Zero inflation composes with both, "positive" and
        "unit".
    start : dict, optional
        Parameter -> value to begin the search at. Default: the average response for the first, 1, 0.5 or 0 for others.
    name : str
        What summaries call it.

    Returns
    -------
    Distribution

    Raises
    ------
    ArgumentError, OptionError
        If names, links or the support make no sense. A density that uses a function whose derivatives are not known
        raises `NotAvailableError` when it is fitted; other exceptions of the function surface as they are.

    Notes
    -----
    The derivatives are exact to rounding: the same Laplace approximation and gradients are used as for the families
    that come with the package. A fit pickles if its functions do (those of a module do, lambdas do not).

    Examples
    --------
    >>> import numpy as np
    >>> import ranef as rf
    >>> from scipy.special import gammaln
    >>> def log_density(y, mu, k):
    ...     return gammaln(y + k) - gammaln(k) - gammaln(y + 1) + k * np.log(k / (mu + k)) + y * np.log(mu / (mu + k))
    >>> family = rf.custom_family(log_density, ["mu", "k"], ["log", "log"], support="count")
    >>> m = rf.fit("count ~ mined + (1 | site)", rf.datasets.load("Salamanders"), family=family)
    >>> round(m.loglik, 3)  # that of family="nbinom2"
    -869.166
    """
    names = _names(parameters)
    found = _links(names, links)
    if support not in SUPPORTS:
        raise OptionError(f"custom_family: support={support!r} is unknown; {nearest(support, SUPPORTS)}")
    functions = {
        "log_density": log_density, "simulate": simulate, "mean": mean, "variance": variance, "cdf": cdf,
        "survival": survival,
    }  # fmt: skip
    for what, function in functions.items():
        if not callable(function) and (function is not None or what == "log_density"):
            raise ArgumentError(f"custom_family: {what} is a function of arrays, not {type(function).__name__}")
    own = ("mean", *names[1:])
    rows = tuple(Parameter(o, link, tuple(LINKS), "", n) for o, link, n in zip(own, found, names, strict=True))
    nicknames = () if names[0] == "mean" else ((names[0], "mean"),)
    entry = Entry(
        name, (), rows, support, support in DISCRETE, False, support in INFLATABLE, "a density given by hand", nicknames
    )
    own_functions = Custom(
        log_density, simulate, mean, variance, cdf, survival, _start(names, {} if start is None else start)
    )
    return Distribution(entry, found, custom=own_functions)


def _names(parameters: Any) -> tuple[str, ...]:
    if isinstance(parameters, str) or not all(isinstance(p, str) and p.isidentifier() for p in parameters):
        raise ArgumentError("custom_family: parameters is a list of names such as ['mu', 'phi']")
    names = tuple(parameters)
    if not 1 <= len(names) <= MOST or len(set(names)) < len(names):
        raise OptionError(f"custom_family: parameters are one to {MOST} different names, not {list(names)}")
    taken = [name for name in names[1:] if name in TAKEN]
    if taken:
        raise OptionError(f"custom_family: a parameter cannot be called {taken[0]!r}: fit() means something else by it")
    return names


def _links(names: Sequence[str], links: Any) -> tuple[str, ...]:
    if links is None:
        return ("identity",) * len(names)
    if isinstance(links, str):
        raise ArgumentError(f"custom_family: links is a list or a dict, one link for each of {', '.join(names)}")
    if isinstance(links, Mapping):
        for name in links:
            if name not in names:
                raise OptionError(f"custom_family: links names {name!r}; {nearest(str(name), names)}")
        links = [links.get(name, "identity") for name in names]
    if len(links) != len(names):
        raise OptionError(f"custom_family: {len(links)} links for {len(names)} parameters")
    return tuple(link_of(link).name for link in links)


def _start(names: Sequence[str], start: Any) -> dict[str, float]:
    if not isinstance(start, Mapping):
        raise ArgumentError("custom_family: start is a dict of numbers, {'mu': 1.0}, not " + type(start).__name__)
    for name, value in start.items():
        if name not in names:
            raise OptionError(f"custom_family: start names {name!r}; {nearest(str(name), names)}")
        if not isinstance(value, Real) or isinstance(value, bool):
            raise ArgumentError(f"custom_family: start of {name!r} is a number, not {value!r}")
    return {"mean" if name == names[0] else name: float(value) for name, value in start.items()}


# ---- for the engine --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of some rows: the response as the engine has it, its trials, how it is censored."""

    y: Array
    trials: Array | None = None
    censor: NDArray[np.int8] | None = None
    upper: Array | None = None

    def at(self, rows: NDArray[np.bool_]) -> Seen:
        """Return some of the rows, as if they were not censored."""
        return Seen(self.y[rows], None if self.trials is None else self.trials[rows])


@dataclass(frozen=True, slots=True)
class Evaluator:
    """What the core calls for log f and its derivatives, (n, 1 + K + K (K + 1) / 2 …)."""

    family: Distribution

    def __call__(self, y: Array, trials: Any, eta: Array, order: int, censor: Any = None, upper: Any = None) -> Array:
        """Return log f, its gradient, packed second and, where asked for, third and fourth derivatives."""
        seen = Seen(y, trials, censor, upper)
        with np.errstate(all="ignore"):
            if censor is None or not censor.any():
                return _table(log_density_of(self.family, seen, _columns(eta, order)))
            out: Array | None = None
            for code in np.unique(censor).tolist():
                rows = censor == code
                part = _table(_log_part(self.family, seen, rows, code, _columns(eta[rows], order)))
                out = np.empty((len(y), part.shape[1])) if out is None else out
                out[rows] = part
        assert out is not None
        return out


def _columns(eta: Array, order: int) -> list[Any]:
    return list(_untouchable(eta).T) if order < 2 else list(variables(eta, order))


def _table(value: Any) -> Array:
    if not isinstance(value, Taylor):
        return np.ascontiguousarray(np.asarray(value, np.float64)[:, None])
    return np.ascontiguousarray(np.vstack([value.v[None, :], *value.derivatives]).T)


def _log_part(family: Distribution, seen: Seen, rows: NDArray[np.bool_], code: int, columns: Sequence[Any]) -> Any:
    """Return log f of rows that are all censored in one way: -1 below y, 1 above, 2 in (y, upper], 0 not at all."""
    part = seen.at(rows)
    if code == 0:
        return log_density_of(family, part, columns)
    if code < 0:
        return np.log(tails_of(family, part, columns)[0])
    if code == 1:
        return np.log(tails_of(family, part, columns)[1])
    assert seen.upper is not None
    below, above = tails_of(family, part, columns)
    below_end, above_end = tails_of(family, replace(part, y=seen.upper[rows]), columns)
    low = below.v if isinstance(below, Taylor) else below
    return np.log(np.where(low > 0.5, above - above_end, below_end - below))  # the difference of the smaller tails


def core_spec(family: Distribution, y: Array) -> dict[str, Any]:
    """Return what the core is told of a custom family."""
    return {"external": Evaluator(family), "begin": begin_of(family, y)}


def parameters_of(family: Distribution, columns: Sequence[Any]) -> list[Any]:
    """Return the parameters on their own scale from the predictors."""
    return [link_of(link).inverse(eta) for link, eta in zip(family.links, columns, strict=False)]


def log_density_of(family: Distribution, seen: Seen, columns: Sequence[Any]) -> Any:
    """Return log f of plain or Taylor predictors, extra zeros counted."""
    if not family.zero_inflation:
        return _given(family, "log_density", seen, columns)
    y, (zero, rest) = seen.y, log_zeros(family, columns[-1])
    if family.entry.discrete:
        own = _given(family, "log_density", seen, columns)
        return np.where(y == 0, np.logaddexp(zero, rest + own), rest + own)
    # A continuous response has no zeros of its own; where y is 0 any legal response stands in, and is not used.
    legal = replace(seen, y=np.where(y == 0, float(y[y > 0][0]) if (y > 0).any() else 0.5, y))
    return np.where(y == 0, zero, rest + _given(family, "log_density", legal, columns))


def tails_of(family: Distribution, seen: Seen, columns: Sequence[Any]) -> tuple[Any, Any]:
    """Return P(Y <= y) and P(Y > y) of plain or Taylor predictors, extra zeros counted; y is not below 0 with those."""
    assert family.custom is not None
    below = _given(family, "cdf", seen, columns)
    above = 1 - below if family.custom.survival is None else _given(family, "survival", seen, columns)
    if not family.zero_inflation:
        return below, above
    zero, rest = (np.exp(part) for part in log_zeros(family, columns[-1]))
    return zero + rest * below, rest * above


def log_zeros(family: Distribution, eta: Any) -> tuple[Any, Any]:
    """Return the logarithms of the probability of an extra zero and of none, both with their digits far out."""
    from scipy.special import log_expit, log_ndtr

    parts: dict[str, Callable[[Any], tuple[Any, Any]]] = {
        "logit": lambda x: (log_expit(x), log_expit(-x)),
        "probit": lambda x: (log_ndtr(x), log_ndtr(-x)),
        "cloglog": lambda x: (np.log(-np.expm1(-np.exp(x))), -np.exp(x)),
        "loglog": lambda x: (-np.exp(-x), np.log(-np.expm1(-np.exp(-x)))),
        "cauchit": lambda x: (np.log(np.arctan2(1.0, -x) / np.pi), np.log(np.arctan2(1.0, x) / np.pi)),
    }
    return parts[family.zero_link](eta)


def called(family: Distribution, what: str, before: Sequence[Any], columns: Sequence[Any], trials: Any) -> Any:
    """Return what one of the user's functions says; those of successes are told the trials.

    Raises
    ------
    NotAvailableError
        If the function was not given.
    """
    function = getattr(family.custom, what)
    if function is None:
        raise NotAvailableError(f"family {family.name!r} was made without {what}=: custom_family(..., {what}=…)")
    named = {"trials": trials} if family.entry.support == "binomial" else {}
    try:
        return function(*before, *parameters_of(family, columns), **named)
    except NotAvailableError as error:
        raise NotAvailableError(f"{what} of family {family.name!r}: {error}") from error
    except ValueError as error:
        for hint in (text for part, text in HINTS.items() if part in str(error)):
            error.add_note(f"{what} of family {family.name!r} {hint}")
        raise


def _trials(family: Distribution, seen: Seen) -> Array:
    """Return the trials of each row; 1 for responses that have none."""
    plain = seen.trials is None or family.entry.support != "binomial"
    return np.ones(len(seen.y)) if plain else np.asarray(seen.trials, np.float64)


def _given(family: Distribution, what: str, seen: Seen, columns: Sequence[Any]) -> Any:
    """Return what a function of the response says, its shape checked."""
    trials = _trials(family, seen)
    y = np.rint(seen.y * trials) if family.entry.support == "binomial" else seen.y
    found = called(family, what, (_untouchable(y),), columns, _untouchable(trials))
    if isinstance(columns[0], Taylor) and not isinstance(found, Taylor):
        raise DataError(f"{what} of family {family.name!r} does not depend on its parameters")
    values = found.v if isinstance(found, Taylor) else found
    if np.shape(values) != y.shape:
        raise DataError(_of_shape(family, what, np.shape(values), y.shape))
    if np.iscomplexobj(values):
        raise DataError(f"{what} of family {family.name!r} returned complex numbers")
    return found


def _of_shape(family: Distribution, what: str, shape: tuple[int, ...], needed: tuple[int, ...]) -> str:
    return f"{what} of family {family.name!r} returned an array of shape {shape}; it needs one number a row, {needed}"


def _untouchable(values: Array) -> Array:
    """Return a view that cannot be written to: the density is asked again and again, and the data are the user's."""
    view = values.view()
    view.flags.writeable = False
    return view


def begin_of(family: Distribution, y: Array) -> list[float]:
    """Return where the predictors begin."""
    assert family.custom is not None
    used = y[y != 0] if family.zero_inflation and (y != 0).any() else y
    out: list[float] = []
    for parameter, name in zip(family.entry.parameters, family.links, strict=True):
        link = link_of(name)
        low, high = LEGAL[link.legal]
        value = float(np.mean(used)) if parameter.name == "mean" else TYPICAL[link.legal]
        value = family.custom.start.get(parameter.name, value if low < value < high else TYPICAL[link.legal])
        with np.errstate(all="ignore"):
            eta = float(link.forward(value))
        if not np.isfinite(eta):
            raise OptionError(f"custom_family: start {parameter.meaning}={value!r} is impossible under a {name} link")
        out.append(eta)
    if family.zero_inflation:
        out.append(float(link_of(family.zero_link).forward(np.clip(np.mean(y == 0) / 2, 0.02, 0.98))))
    return out


def check_begin(family: Distribution, seen: Seen) -> None:
    """Refuse a density that has no value where the search begins, and one that raises.

    Raises
    ------
    DataError
        If log f or a derivative is not finite in more than half of the rows: a search may begin with fewer.
    """
    if text := without_value(family, seen, 0.5):
        raise DataError(text)


def without_value(family: Distribution, seen: Seen, share: float = 0.0) -> str:
    """Return which rows have no log f or derivative where the search begins; "" for not more than a share of them."""
    y, begin = seen.y, begin_of(family, seen.y)
    found = Evaluator(family)(y, seen.trials, np.tile(begin, (len(y), 1)), 3, seen.censor, seen.upper)
    bad = ~np.isfinite(found).all(axis=1)
    if bad.mean() <= share:
        return ""
    values = zip(family.entry.parameters, parameters_of(family, begin), strict=False)
    said = ", ".join(f"{p.meaning} = {float(v):.4g}" for p, v in values)
    first = int(np.flatnonzero(bad)[0])
    what = "log_density" if not np.isfinite(found[first, 0]) else "a derivative of log_density"
    return (
        f"{what} of family {family.name!r} is not finite in {int(bad.sum())} of {len(y)} rows at {said} (first: "
        f"y = {y[first]:.6g}); check it there, or begin elsewhere: custom_family(start={{…}})"
    )


# ---- its law ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CustomLaw:
    """What a custom family says of responses; questions for which no function was given are refused."""

    family: Distribution

    def _ask(self, what: str, eta: Array, trials: Array, *before: Any) -> Array:
        found = called(self.family, what, before, list(eta.T), trials)
        try:
            values = np.asarray(found, np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"{what} of family {self.family.name!r} returned no numbers: {error}") from error
        shared = () if what in MOMENTS else (len(eta),)  # one number may be the moment of every row, but no draw of all
        if values.shape not in (shared, (len(eta),)):
            raise DataError(_of_shape(self.family, what, values.shape, (len(eta),)))
        return np.array(np.broadcast_to(values, (len(eta),)))

    def _zero(self, eta: Array) -> Array:
        if not self.family.zero_inflation:
            return np.zeros(len(eta))
        return np.asarray(link_of(self.family.zero_link).inverse(eta[:, -1]), np.float64)

    def _trials(self, data: Any) -> Array:
        return _trials(self.family, Seen(np.asarray(data.y), data.trials))

    def _own_mean(self, eta: Array, trials: Array) -> Array:
        if self.family.custom is not None and self.family.custom.mean is not None:
            return self._ask("mean", eta, trials) / np.maximum(trials, 1.0)
        return np.asarray(link_of(self.family.link).inverse(eta[:, 0]), np.float64)

    def mean(self, eta: Array, data: Any) -> Array:
        """Return the expected response; of successes, their proportion."""
        return (1 - self._zero(eta)) * self._own_mean(eta, self._trials(data))

    def variance(self, eta: Array, data: Any) -> Array:
        """Return the variance of the response."""
        trials, zero = self._trials(data), self._zero(eta)
        own, mu = self._ask("variance", eta, trials) / np.maximum(trials, 1.0) ** 2, self._own_mean(eta, trials)
        return (1 - zero) * (own + zero * mu**2)

    def cdf(self, eta: Array, data: Any) -> tuple[Array, Array]:
        """Return P(Y < y) and P(Y <= y)."""
        trials, zero, discrete = self._trials(data), self._zero(eta), self.family.entry.discrete
        y = np.asarray(data.y, np.float64)
        y = np.rint(y * trials) if self.family.entry.support == "binomial" else y
        if not discrete and not self.family.zero_inflation:
            p = self._ask("cdf", eta, trials, y)
            return p, p
        inside = np.where(y > 0, y, 1.0)  # a continuous response has nothing at 0
        own = (
            self._ask("cdf", eta, trials, y) if discrete else np.where(y > 0, self._ask("cdf", eta, trials, inside), 0)
        )
        below = self._ask("cdf", eta, trials, np.maximum(y - 1, 0)) if discrete else own
        high = zero + (1 - zero) * own
        return np.where(y > 0, zero + (1 - zero) * below, 0.0), high

    def draw(self, eta: Array, data: Any, rng: np.random.Generator) -> Array:
        """Return one response for each row; of successes, their proportion."""
        trials = self._trials(data)
        found = self._ask("simulate", eta, trials, rng) / np.maximum(trials, 1.0)
        return np.where(rng.uniform(size=len(eta)) < self._zero(eta), 0.0, found)

    def density(self, eta: Array, data: Any) -> Array:
        """Return log f(y | eta)."""
        return Evaluator(self.family)(data.y, data.trials, np.asarray(eta, np.float64), 0)[:, 0]
