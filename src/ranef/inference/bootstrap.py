"""Bootstrap distributions of anything that can be computed from a fit, and the intervals that follow."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines import laplace, linear
from ranef.engines.estimate import Array
from ranef.errors import DataError, OptionError, RanefError
from ranef.frame.checks import check_response
from ranef.frame.design import Design
from ranef.inference import resampling
from ranef.inference.bootstrap_limits import limits
from ranef.inference.frames import to_frame
from ranef.inference.noted import Note
from ranef.inference.parameters import Parameter, of_estimates, parameters, select, table
from ranef.inference.wald import quantile
from ranef.model import check_fit, design_of
from ranef.progress import Progress

if TYPE_CHECKING:
    from ranef.model import Fit

KINDS = ("parametric", "residual", "cases", "wild")
METHODS = ("percentile", "basic", "normal", "bca")
CELLS = 2_000_000  # numbers of one batch of responses
BATCH = 250  # replicates of one batch

Outcome = Array | str
Statistic = Callable[["Fit"], Any]


@dataclass(frozen=True, eq=False, repr=False)
class Bootstrap:
    """Replicates of a statistic.

    Attributes
    ----------
    names : tuple of str
        Names of the statistic's components.
    estimate : (q,) array
        The statistic of the fit itself.
    values : (r, q) array
        Replicates that succeeded, in the order of their streams; NaN where undefined (a correlation beside a standard
        deviation of 0).
    failures : dict
        Number of the replicate -> why it failed.
    n : int
        Replicates asked for.
    kind : str
        "parametric", "residual", "cases" or "wild".
    seed : int
        Same seed, same replicates, whatever the number of threads.
    max_failures : float
        Share of failures above which intervals are refused.
    notes : tuple of Note
        What the replicates do not tell.
    twins : Bootstrap or None
        The same with the dispersion's coefficient too, where that is log(sigma), which is left out here.
    """

    names: tuple[str, ...]
    estimate: Array
    values: Array
    failures: Mapping[int, str]
    n: int
    kind: str
    seed: int
    max_failures: float
    fit: Fit
    statistic: Statistic | None
    known: tuple[Parameter, ...]
    notes: tuple[Note, ...] = ()
    twins: Bootstrap | None = None

    @property
    def all(self) -> Bootstrap:
        """With every parameter of the fit, in the order of `parameters`."""
        return self.twins or self

    @property
    def replicates(self) -> Any:
        """Replicates as a frame: `replicate`, and a column for each component."""
        good = [i for i in range(self.n) if i not in self.failures]
        columns = dict(zip(self.names, self.values.T.copy(), strict=True))
        return to_frame({"replicate": good, **columns}, self.fit.layout.kind)

    @property
    def bias(self) -> Array:
        """Mean of the replicates minus the estimate."""
        return self._over(np.mean) - self.estimate

    @property
    def std_error(self) -> Array:
        """Standard deviation of the replicates."""
        return self._over(lambda v: np.std(v, ddof=1) if len(v) > 1 else np.nan)

    def _over(self, of: Callable[[Array], Any]) -> Array:
        columns = [v[~np.isnan(v)] for v in self.values.T]
        return np.array([of(v) if len(v) else np.nan for v in columns], dtype=float)

    def confint(self, level: float = 0.95, method: str = "percentile") -> Any:
        """Intervals as a frame: `parameter`, (`effect`, `component`, `group`, `term`,) `estimate, conf_low, conf_high`.

        Parameters
        ----------
        level : float
        method : "percentile" | "basic" | "normal" | "bca"
            Quantiles of the replicates; those mirrored at the estimate; estimate minus bias -+ z standard errors;
            quantiles corrected for bias and acceleration, the latter by leaving out one group at a time (Davison &
            Hinkley 1997, ch. 5). Ends are cut to the range of the parameter.

        Raises
        ------
        DataError
            If more than `max_failures` of the replicates failed.

        Examples
        --------
        >>> import ranef as rf
        >>> m = rf.fit("Reaction ~ Days + (1 | Subject)", rf.datasets.load("sleepstudy"))
        >>> rf.bootstrap(m, n=200, seed=1).confint(method="bca")[["parameter", "conf_low", "conf_high"]].round(1)
                           parameter  conf_low  conf_high
        0                (Intercept)     231.6      272.4
        1                       Days       8.6       12.1
        2  sd((Intercept) | Subject)      26.8       55.8
        3                      sigma      28.3       35.1
        """
        low, high = self.ends(level, method)
        columns: dict[str, Any] = {"parameter": list(self.names)}
        if self.known:
            columns |= {
                name: [getattr(p, name) for p in self.known] for name in ("effect", "component", "group", "term")
            }
        columns |= {"estimate": self.estimate.copy(), "conf_low": low, "conf_high": high}
        return to_frame(columns, self.fit.layout.kind)

    def ends(self, level: float, method: str) -> tuple[Array, Array]:
        """Return lower and upper ends of the intervals as arrays (q,).

        Parameters
        ----------
        level, method : float, str
            As of `confint`.

        Examples
        --------
        >>> import ranef as rf
        >>> m = rf.fit("Reaction ~ Days + (1 | Subject)", rf.datasets.load("sleepstudy"))
        >>> low, high = rf.bootstrap(m, n=200, seed=1).ends(0.9, "percentile")
        >>> low.round(1)
        array([234.5,   9.1,  26.1,  28.4])
        """
        if method not in METHODS:
            raise OptionError(f"bootstrap: method={method!r} is unknown; known: {', '.join(map(repr, METHODS))}")
        z = float(quantile(level))
        self.check()
        if method == "normal":
            middle, half = self.estimate - self.bias, z * self.std_error
            low, high = middle - half, middle + half
        else:
            tails = np.tile([[(1 - level) / 2], [(1 + level) / 2]], len(self.names))
            tails = self._corrected(z) if method == "bca" else tails
            low, high = np.array([_quantiles(v, p) for v, p in zip(self.values.T, tails.T, strict=True)]).T
            if method == "basic":
                low, high = 2 * self.estimate - high, 2 * self.estimate - low
        bounds = np.array([p.bounds for p in self.known]).reshape(-1, 2)
        return (low, high) if not len(bounds) else (np.maximum(low, bounds[:, 0]), np.minimum(high, bounds[:, 1]))

    def _corrected(self, z: float) -> Array:
        """Probabilities of the quantiles of BCa intervals, (2, q) (Davison & Hinkley 1997, eq. 5.21)."""
        from scipy.special import ndtr, ndtri

        with np.errstate(invalid="ignore", divide="ignore"):
            w = ndtri(self.below) + np.array([[-z], [z]])
            return ndtr(ndtri(self.below) + w / (1 - self.acceleration * w))

    @property
    def below(self) -> Array:
        """Share of the replicates below the estimate; ties count half."""
        pairs = zip(self.values.T, self.estimate, strict=True)
        counts = np.array([np.sum(v < t) + 0.5 * np.sum(v == t) for v, t in pairs], dtype=float)
        return counts / self._over(len)

    @cached_property
    def acceleration(self) -> Array:
        """Acceleration of each component, from the statistic without one group (or row) at a time."""
        design = design_of(self.fit, "bootstrap")
        codes, _ = resampling.outermost(design)
        groups = np.unique(codes)
        work = Work(self.fit, self.statistic, lambda i: resampling.without(design, codes != groups[i]), 0)
        found = [v for v in pooled(work.by_design, range(len(groups))) if not isinstance(v, str)]
        left = np.array(found) if found else np.full((1, len(self.all.names)), np.nan)
        left = left[:, [self.all.names.index(name) for name in self.names]]
        known = np.isfinite(left)
        with np.errstate(invalid="ignore", divide="ignore"):
            change = np.where(known, left, 0.0).sum(axis=0) / known.sum(axis=0) - left
            return np.nan_to_num(np.nansum(change**3, axis=0) / (6 * np.nansum(change**2, axis=0) ** 1.5))

    def check(self) -> None:
        """Raise where more replicates failed than `max_failures` allows; what is left is no sample of the distribution.

        Raises
        ------
        DataError

        Examples
        --------
        >>> import ranef as rf
        >>> m = rf.fit("Reaction ~ Days + (1 | Subject)", rf.datasets.load("sleepstudy"))
        >>> rf.bootstrap(m, n=50, seed=1).check()
        """
        share = len(self.failures) / self.n
        if share > self.max_failures:
            why = Counter(self.failures.values()).most_common(1)[0][0]
            raise DataError(
                f"bootstrap: {len(self.failures)} of {self.n} replicates failed, more than max_failures="
                f"{self.max_failures:g} allows; what is left is not a sample of the distribution. Most often: {why}"
            )

    def summary(self) -> Any:
        """Return one row a component: `parameter, estimate, mean, bias, std_error, replicates`.

        Examples
        --------
        >>> import ranef as rf
        >>> m = rf.fit("Reaction ~ Days + (1 | Subject)", rf.datasets.load("sleepstudy"))
        >>> rf.bootstrap(m, n=200, seed=1).summary()[["parameter", "bias", "std_error"]].round(2)
                           parameter  bias  std_error
        0                (Intercept)  0.04      10.03
        1                       Days  0.07       0.86
        2  sd((Intercept) | Subject) -0.60       7.22
        3                      sigma  0.01       1.63
        """
        self.check()
        columns = {
            "parameter": list(self.names),
            "estimate": self.estimate.copy(),
            "mean": self.bias + self.estimate,
            "bias": self.bias,
            "std_error": self.std_error,
            "replicates": np.isfinite(self.values).sum(axis=0),
        }
        return to_frame(columns, self.fit.layout.kind)

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        width = max((len(n) for n in self.names), default=9)
        head = f"{self.kind} bootstrap, {self.n} replicates, {len(self.failures)} failed, seed {self.seed}"
        rows = [
            f"{name:<{width}}  {e:>12.6g}{b:>12.4g}{s:>12.4g}"
            for name, e, b, s in zip(self.names, self.estimate, self.bias, self.std_error, strict=True)
        ]
        why = [f"{count} failed: {text}" for text, count in Counter(self.failures.values()).most_common(3)]
        said = [f"* {note.text}" for note in self.notes]
        return "\n".join([head, f"{'':<{width}}  {'estimate':>12}{'bias':>12}{'std_error':>12}", *rows, *why, *said])


def _quantiles(values: Array, p: Array) -> Array:
    """Quantiles at (r + 1) p, as Davison & Hinkley's."""
    values = values[np.isfinite(values)]
    if not len(values) or not np.isfinite(p).all():
        return np.full(2, np.nan)
    return np.asarray(np.quantile(values, np.clip(p, 0, 1), method="weibull"))


# ---- making one ------------------------------------------------------------------------------------------------------


def bootstrap(
    m: Fit,
    statistic: Statistic | None = None,
    n: int = 1000,
    kind: str = "parametric",
    *,
    seed: int | None = None,
    threads: int | None = None,
    progress: bool | None = None,
    re: str = "new",
    levels: str | Sequence[str] | None = None,
    hccme: str = "hc2",
    auxiliary: str = "mammen",
    max_failures: float = 0.25,
) -> Bootstrap:
    """Bootstrap a fit.

    Parameters
    ----------
    m : Fit
        A fit with its rows.
    statistic : callable, optional
        Function of a `Fit` that returns a number, a sequence or a dict of numbers; default all coefficients, standard
        deviations, correlations and sigma (which stands for the dispersion's coefficient where that is its logarithm).
    n : int
        Replicates.
    kind : "parametric" | "residual" | "cases" | "wild"
        Responses drawn from the model; rescaled modes and residuals drawn with replacement (Carpenter, Goldstein &
        Rasbash 2003); groups of rows drawn with replacement (van der Leeden, Meijer & Busing 2008); residuals of each
        group times a random sign (Modugno & Giannerini 2015). "residual" and "wild" are for gaussian models with the
        identity link, covariance structures and a dispersion formula included. Of levels with a known relationship
        K = CC' the independent C^-1 b are drawn ("wild": and their factors), and made related again.
    seed : int, optional
        Same seed, same replicates, whatever the number of threads.
    threads : int, optional
        Default: those of the fit.
    progress : bool, optional
        Show how far work of more than a second has come; default: where stderr is a terminal.
    re : "new" | "conditional"
        Parametric: draw new random effects, or keep the conditional modes.
    levels : str or sequence of str, optional
        Cases: what is resampled, of the nested grouping factors and "rows"; default the outermost grouping factor.
    hccme, auxiliary : str
        Wild: "hc2" or "hc3"; "mammen" or "rademacher". Signs (Rademacher) leave the products of residuals within a
        group as they are: replicates of standard deviations then hardly vary, and only the fixed effects' are of use.
    max_failures : float
        Share of failed replicates above which intervals are refused.

    Returns
    -------
    Bootstrap

    Raises
    ------
    OptionError
        If an argument has a value that it does not take, or one that the kind of bootstrap does not use.
    NotAvailableError
        If the model cannot be simulated from, or has no residuals or groups to draw.

    Notes
    -----
    Refits use the criterion of the fit (REML stays REML). Of the three ways to make intervals the parametric bootstrap
    assumes least about the shape of the likelihood and costs most (Bolker's GLMM FAQ: Wald < profile < bootstrap).
    With `frequency_weights=` a response is drawn, and where cases are rows a case, for each of the rows that are
    counted.

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
    >>> b = rf.bootstrap(m, n=200, seed=1)
    >>> len(b), len(b.failures)
    (200, 0)
    """
    check_fit(m, "bootstrap")
    _check_options(n, kind, re, max_failures)
    m = resampling.with_cases(m, levels) if kind == "cases" else resampling.drawable(m, "bootstrap")
    number, threads = resampling.seed_of(seed, "bootstrap"), resampling.threads_of(threads, "bootstrap")
    if statistic is not None and not callable(statistic):
        raise OptionError(f"bootstrap: statistic={statistic!r} must be a function of a fit that returns numbers")
    _check_used(kind, {"re": (re, "new"), "levels": (levels, None), "hccme": (hccme, "hc2"),
                       "auxiliary": (auxiliary, "mammen")})  # fmt: skip
    work = Work(m, statistic, *_source(m, kind, number, re, levels, hccme, auxiliary), threads)
    names, estimate = _components(m, statistic)
    found: list[Outcome] = []
    with Progress(f"{kind} bootstrap", n, progress) as shown:
        for first in range(0, n, work.batch):
            some = range(first, min(first + work.batch, n))
            found += work.batch_of(some, len(names))
            shown.advance(len(some))
    good = [v for v in found if not isinstance(v, str)]
    failures = {i: v for i, v in enumerate(found) if isinstance(v, str)}
    values = np.array(good).reshape(len(good), len(names))
    known = () if statistic else parameters(m)
    notes = tuple(limits(m, kind, levels))
    made = Bootstrap(names, estimate, values, failures, n, kind, number, max_failures, m, statistic, known, notes)
    return without_twins(made)


def without_twins(b: Bootstrap) -> Bootstrap:
    """Return the replicates without the dispersion's coefficient where sigma, its exponential, stands for it."""
    kept = select(b.known, None, "bootstrap")
    if len(kept) == len(b.known):
        return b
    at = [b.known.index(p) for p in kept]
    names = tuple(b.names[j] for j in at)
    return replace(b, names=names, estimate=b.estimate[at], values=b.values[:, at], known=tuple(kept), twins=b)


def _check_options(n: int, kind: str, re: str, max_failures: float) -> None:
    if kind not in KINDS:
        raise OptionError(f"bootstrap: kind={kind!r} is unknown; known: {', '.join(map(repr, KINDS))}")
    if not isinstance(n, (int, np.integer)) or n < 1:
        raise OptionError(f"bootstrap: n={n!r} must be a positive whole number")
    if re not in ("new", "conditional"):
        raise OptionError(f"bootstrap: re={re!r} is unknown; use 'new' or 'conditional'")
    if not isinstance(max_failures, (int, float)) or not 0 <= max_failures <= 1:
        raise OptionError(f"bootstrap: max_failures={max_failures!r} must lie between 0 and 1")


USED = {"parametric": ("re",), "residual": (), "cases": ("levels",), "wild": ("hccme", "auxiliary")}


def _check_used(kind: str, given: Mapping[str, tuple[Any, Any]]) -> None:
    """Raise where an option of another kind of bootstrap was set."""
    for name, (value, default) in given.items():
        if name not in USED[kind] and value != default:
            owner = next(k for k, names in USED.items() if name in names)
            raise OptionError(f"bootstrap: {name}={value!r} goes with kind={owner!r}; kind={kind!r} makes no use of it")


def _components(m: Fit, statistic: Statistic | None) -> tuple[tuple[str, ...], Array]:
    """Names and values of the statistic of the fit itself."""
    if statistic is None:
        return tuple(p.label for p in parameters(m)), of_estimates(m, [m.estimate])[0]
    names, values = named(statistic(m))
    return names, values


def named(value: Any) -> tuple[tuple[str, ...], Array]:
    """Names and numbers of what a statistic returned.

    Raises
    ------
    DataError
        If it is not a number, a sequence or a dict of numbers.
    """
    names: Sequence[Any] | None = None
    if isinstance(value, Mapping):
        names, value = list(value), list(value.values())
    elif hasattr(value, "index") and hasattr(value, "to_numpy"):
        names, value = list(value.index), value.to_numpy()
    try:
        numbers = np.atleast_1d(np.asarray(value, dtype=np.float64)).ravel()
    except (TypeError, ValueError) as error:
        raise DataError("bootstrap: the statistic must return a number, a sequence or a dict of numbers") from error
    if names is None:
        names = ["statistic"] if len(numbers) == 1 else [f"statistic{i + 1}" for i in range(len(numbers))]
    return tuple(map(str, names)), numbers


Make = Callable[[int], "Array | Design"]


def _source(m: Fit, kind: str, seed: int, re: str, levels: Any, hccme: str, auxiliary: str) -> tuple[Make]:
    """Return the function from the number of a replicate to its response, or to its design for cases."""
    streams = resampling.Streams(seed)
    draw: Callable[[np.random.Generator], Any]
    if kind == "cases":
        draw = resampling.cases(m, levels)
    elif kind == "residual":
        draw = resampling.residual(m)
    elif kind == "wild":
        draw = resampling.wild(m, hccme, auxiliary)
    else:
        draw = resampling.parametric(m, re)
    return (lambda i: draw(streams(i)),)


@dataclass(frozen=True, eq=False)
class Work:
    """Refits: from the number of a replicate to the statistic, or why there is none."""

    m: Fit
    statistic: Statistic | None
    make: Make
    threads: int | None

    @property
    def batch(self) -> int:
        """Replicates that are handed over together."""
        return int(np.clip(CELLS // max(self.m.nobs, 1), 1, BATCH))

    def batch_of(self, some: range, width: int) -> list[Outcome]:
        """Return the outcomes of several replicates, in order."""
        made = [self._made(i) for i in some]
        if self.m.task.linear and self.statistic is None and not any(isinstance(v, Design) for v in made):
            return self._in_core(made)
        if self.statistic is None and not any(isinstance(v, Design) for v in made) and self._together():
            return self._in_batch(made)
        jobs = [(lambda v=v: v) if isinstance(v, str) else (lambda v=v: self._one(v)) for v in made]
        out = pooled(lambda i: jobs[i](), range(len(jobs)), self._workers())
        return [v if isinstance(v, str) or len(v) == width else "the statistic has another length" for v in out]

    def _made(self, i: int) -> Array | Design | str:
        try:
            made = self.make(i)
        except RanefError as error:
            return _reason(error)
        family, y = self.m.distribution, made.y if isinstance(made, Design) else made
        lost = family.entry.ordinal and not family.counts and len(np.unique(np.asarray(y))) < family.categories
        return "a category without rows, whose thresholds have no finite estimate" if lost else made

    def by_design(self, i: int) -> Outcome:
        """Return the outcome of one replicate."""
        made = self._made(i)
        return made if isinstance(made, str) else self._one(made)

    def _workers(self) -> int:
        return self.threads or self.m.task.control.threads or os.cpu_count() or 1

    def _one(self, made: Array | Design) -> Outcome:
        m = self.m
        try:
            again = made if isinstance(made, Design) else replace(design_of(m, "bootstrap"), y=made)
            check_response(again)
            run = m.engine.estimate if isinstance(made, Design) else m.engine.again
            core, estimate = run(again, m.task)
            if why := _failure(estimate.outcome, np.isnan(estimate.beta).sum() > np.isnan(m.estimate.beta).sum()):
                return why
            if self.statistic is None:
                return of_estimates(m, [estimate])[0]
            return named(self.statistic(replace(m, estimate=estimate, core=core, design=again)))[1]
        except (RanefError, ArithmeticError, ValueError) as error:
            return _reason(error)

    def _together(self) -> bool:
        """Whether the Laplace engine fits many responses at once, as this fit was found."""
        m = self.m
        plain = m.engine is laplace.ENGINE and m.task.control.optimizer == "newton"
        return plain and laplace.together(design_of(m, "bootstrap"), m.task)

    def _in_batch(self, made: Sequence[Any]) -> list[Outcome]:
        """All responses at once, in the threads of the Laplace engine's core."""
        m, design = self.m, design_of(self.m, "bootstrap")
        checked = [y if isinstance(y, str) else _illegal(design, y) or y for y in made]
        good = [j for j, y in enumerate(checked) if not isinstance(y, str)]
        threads = self.threads or m.task.control.threads
        task = replace(m.task, control=replace(m.task.control, threads=threads))
        found = m.engine.many(design, np.array([checked[j] for j in good]).T, task, False) if good else []
        gone = np.isnan(m.estimate.beta).sum()
        for j, e in zip(good, found, strict=True):
            checked[j] = e if isinstance(e, str) else _failure(e.outcome, np.isnan(e.beta).sum() > gone) or e
        fine = [j for j, e in enumerate(checked) if not isinstance(e, str)]
        rows = of_estimates(m, [checked[j] for j in fine]) if fine else np.empty((0, 0))
        for j, row in zip(fine, rows, strict=True):
            checked[j] = row
        return checked

    def _in_core(self, made: Sequence[Any]) -> list[Outcome]:
        """All responses at once, in the core's threads."""
        m = self.m
        design = design_of(m, "bootstrap")
        good = [j for j, y in enumerate(made) if not isinstance(y, str)]
        core = m.core if self.threads is None else linear.make_core(design, threads=self.threads)
        responses = np.array([made[j] for j in good]).T
        blocks = (linear.sources(design.fixed), linear.term_sources(design.terms), design.weights, design.offset)
        records = core.refit(responses, *blocks, m.method == "reml", m.task.control.options) if good else []
        out: list[Outcome] = [y if isinstance(y, str) else "" for y in made]
        fine = []
        for j, record in zip(good, records, strict=True):
            why = record if isinstance(record, str) else _failure(record["outcome"], False)
            if why:
                out[j] = why
            else:
                fine.append((j, record))
        if fine:
            for (j, _), row in zip(fine, _tabled(m, [r for _, r in fine]), strict=True):
                out[j] = row
        return out


def _tabled(m: Fit, records: list[Any]) -> Iterator[Array]:
    beta, sigma = np.array([r["beta"] for r in records]), np.array([r["sigma"] for r in records])
    theta = np.array([r["theta"] for r in records]) * sigma[:, None]
    return iter(table(m, beta, theta, sigma))


def _failure(outcome: str, dropped: bool) -> str:
    if outcome != "converged":
        return f"not converged: {outcome}"
    return "a coefficient cannot be estimated from the rows drawn" if dropped else ""


def _illegal(design: Design, y: Array) -> str:
    """Return why a response cannot be fitted; "" if it can."""
    try:
        check_response(replace(design, y=y))
    except RanefError as error:
        return _reason(error)
    return ""


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def pooled(job: Callable[[int], Outcome], some: range, workers: int | None = None) -> list[Outcome]:
    """Run jobs on threads (the core releases the interpreter lock), results in order."""
    if workers == 1 or len(some) == 1:
        return [job(i) for i in some]
    pool = ThreadPoolExecutor(workers)
    try:
        return list(pool.map(job, some))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
