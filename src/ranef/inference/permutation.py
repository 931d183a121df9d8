"""Permutation tests that respect groups, and cluster-based ones for time series.

Fixed effects (Freedman & Lane 1983; blocks as Winkler et al. 2014, 2015): residuals of the model without the term are
rearranged in a way the null hypothesis leaves their distribution unchanged, added to its fitted values, and the full
model is fitted again. Which rearrangement that is depends on where the term varies:

    "within"      rows change places within their group: a term that varies within the innermost groups, residuals
                  exchangeable there (random intercepts)
    "flip"        all residuals of a group change sign together: a term with a random slope of its own, symmetric
    residuals
    "between"     groups of equal size change places as wholes, inside the next grouping factor outwards: a term that is
                  constant within them
    "covariate"   the term's columns change places in that way and the response stays (Draper & Stoneman 1966): groups
                  of unequal size or crossed with others, and models other than linear ones

Random effects (Samuh, Grilli, Rampichini, Salmaso & Lunardon 2012; Lee & Braun 2012): the likelihood ratio of the
models with and without the term, for residuals of the model without it in random order.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef import _core
from ranef.engines import linear
from ranef.errors import DataError, NotAvailableError, OptionError, RanefError, nearest
from ranef.formula.groups import group_named
from ranef.frame.design import Array, Block, Design, matrix
from ranef.inference.dummies import written_out
from ranef.inference.resampling import (
    Streams,
    hierarchy,
    is_nested,
    noise_scale,
    outermost,
    repeated,
    seed_of,
    whole_counts,
)
from ranef.inference.varcorr import unique
from ranef.model import check_fit, design_of
from ranef.progress import Progress

if TYPE_CHECKING:
    from ranef.model import Fit

SCHEMES = ("within", "between", "flip", "covariate")
ALIASED = 1e-6  # relative distance from a space above which a column lies outside of it
ROUNDING = 1e-12  # variation of a column below this share of its size is none
TIE = 1e-8  # statistics closer than this (relative) are equal
BATCH = 200


@dataclass(frozen=True, eq=False, repr=False)
class PermutationTest:
    """A permutation test.

    Attributes
    ----------
    term : str
        What was tested.
    statistic : str
        "|t|", "F" or "LRT".
    observed : float
        The statistic of the data.
    null : (n,) array
        Statistics under permutation; of an exact test all there are, the data's own included.
    p_value : float
        Exact: share of `null` at least as large; else (1 + how many) / (1 + n), which is never 0 (Phipson & Smyth
        2010).
    exact : bool
        Whether all rearrangements were enumerated.
    scheme : str
        How data were rearranged.
    failures : int
        Refits that failed; they count as at least as large.
    seed : int or None
        None for exact tests.
    """

    term: str
    statistic: str
    observed: float
    null: Array
    p_value: float
    exact: bool
    scheme: str
    failures: int
    seed: int | None

    def __repr__(self) -> str:
        how = (
            f"all {len(self.null)} rearrangements" if self.exact else f"{len(self.null)} permutations, seed {self.seed}"
        )
        failed = f", {self.failures} failed" if self.failures else ""
        return (
            f"permutation test of {self.term}: {self.statistic} = {self.observed:.5g}, p = {self.p_value:.4g}\n"
            f"{self.scheme}; {how}{failed}"
        )


# ---- rearrangements --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Rearrangement:
    """A group of rearrangements of rows: order and sign of each row.

    Attributes
    ----------
    codes : (n,) array
        Groups: rows ("within") or units ("between") change places inside a group only; "flip" changes a group's sign.
    scheme : str
    units : (n,) array, optional
        What moves as a whole ("between").
    """

    codes: Array
    scheme: str
    units: Array | None = None

    @cached_property
    def rows(self) -> list[Array]:
        """Rows of each group."""
        return _groups(self.codes)

    @cached_property
    def places(self) -> list[list[Array]]:
        """What changes places inside each group: rows, or the rows of each unit."""
        if self.units is None:
            return [[np.array([r]) for r in rows] for rows in self.rows]
        return [[rows[inner] for inner in _groups(self.units[rows])] for rows in self.rows]

    @property
    def log_count(self) -> float:
        """Logarithm of how many there are."""
        if self.scheme == "flip":
            return len(self.rows) * math.log(2)
        return sum(math.lgamma(len(p) + 1) for p in self.places)

    def draw(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """One at random: (order, sign)."""
        if self.scheme == "flip":
            return self._flipped(rng.integers(2, size=len(self.rows)) * 2.0 - 1.0)
        if self.units is None:
            order = np.empty(len(self.codes), dtype=np.int64)
            for rows in self.rows:
                order[rows] = rng.permutation(rows)
            return order, np.ones(len(order))
        return self._moved([rng.permutation(len(p)) for p in self.places])

    def all(self) -> Iterator[tuple[Array, Array]]:
        """All of them, the identity first."""
        if self.scheme == "flip":
            for signs in itertools.product((1.0, -1.0), repeat=len(self.rows)):
                yield self._flipped(np.array(signs))
        else:
            for orders in itertools.product(*(itertools.permutations(range(len(p))) for p in self.places)):
                yield self._moved([np.array(o) for o in orders])

    def _flipped(self, signs: Array) -> tuple[Array, Array]:
        return np.arange(len(self.codes)), signs[self.codes]

    def _moved(self, orders: Sequence[Array]) -> tuple[Array, Array]:
        order = np.empty(len(self.codes), dtype=np.int64)
        for places, inner in zip(self.places, orders, strict=True):
            for to, of in zip(places, inner, strict=True):
                # Units of unequal size (covariates): the first row stands for all of its unit.
                order[to] = places[of] if len(places[of]) == len(to) else places[of][0]
        return order, np.ones(len(order))


def _groups(codes: Array) -> list[Array]:
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)


@dataclass(frozen=True, eq=False)
class Placement:
    """Where a term varies: groups inside which something changes places, and the units that do (None: rows)."""

    codes: Array
    label: str
    units: Array | None
    unit: str


def placement(design: Design, x: Array, within: Any) -> Placement:
    """Return what is exchangeable where the columns `x` have no effect.

    The units are the levels of the finest grouping factor in which the term is constant; they change places inside
    the next grouping factor outwards. A term that varies inside the innermost factor is tested by rows inside its
    levels.

    Raises
    ------
    OptionError, DataError
        If `within` is neither a grouping factor of the model nor one value a row.
    """
    nobody = np.zeros(design.n, dtype=np.int64)
    if within is not None:
        codes, label = groups_given(design, within)
        return Placement(nobody, "", codes, label) if is_constant(x, codes) else Placement(codes, label, None, "rows")
    if not design.terms:
        return Placement(nobody, "", None, "rows")
    chain, crossed = hierarchy(design)
    steady = [t for t in (*chain, *crossed) if is_constant(x, np.asarray(t.codes))]
    if not steady:
        inner = chain[-1]
        return Placement(np.asarray(inner.codes, dtype=np.int64), inner.label, None, "rows")
    unit = max(steady, key=lambda t: len(t.levels))
    at = next((i for i, t in enumerate(chain) if t is unit), 0)
    units = np.asarray(unit.codes, dtype=np.int64)
    if at == 0:
        return Placement(nobody, "", units, unit.label)
    outer = chain[at - 1]
    return Placement(np.asarray(outer.codes, dtype=np.int64), outer.label, units, unit.label)


def groups_given(design: Design, within: Any) -> tuple[Array, str]:
    """Codes and name of the groups that the caller names or hands over."""
    if isinstance(within, str):
        found = {t.label: t for t in design.terms}
        own = group_named(within, found)
        if own is None:
            raise OptionError(f"within={within!r} is not a grouping factor of the model; {nearest(within, found)}")
        return np.asarray(found[own].codes, dtype=np.int64), own
    return np.unique(_of_rows(design, within), return_inverse=True)[1].ravel(), "the groups given"


def _of_rows(design: Design, within: Any) -> Array:
    """Return the groups that the caller hands over, of the rows used."""
    values = np.asarray(within)
    if values.shape != (design.n,) and design.rows is not None and values.shape == (design.n_input,):
        values = values[design.rows]
    if values.shape != (design.n,):
        raise DataError(f"within has shape {values.shape}, the model {design.n} rows")
    return values


# ---- terms -----------------------------------------------------------------------------------------------------------


def columns_of(m: Fit, term: str) -> list[int]:
    """Positions of the mean's coefficients that belong to a term of the formula, or of the one with that name.

    Raises
    ------
    OptionError
        If there is neither; the nearest is named.
    """
    names = m.layout.fixed
    if term in names:
        return [names.index(term)]
    terms = [t for t in m.formula.fixed if t.factors]
    owner = [_owner(name, terms) for name in names]
    wanted = frozenset(_bare(term).split(":"))
    known = [t for t in terms if _bare(t.label) == _bare(term) or frozenset(map(_bare, t.key)) == wanted]
    found = [j for j, t in enumerate(owner) if t in known]
    if not found:
        known = [*(t.label for t in terms), *names, *_random_names(m)]
        raise OptionError(f"there is no term {term!r}; {nearest(term, known)}")
    return found


def _bare(text: str) -> str:
    """Return a label without spaces and quotes."""
    return re.sub(r"[\s`]+", "", text)


def _owner(name: str, terms: Sequence[Any]) -> Any:
    """Return the term whose factors' labels a coefficient's name is made of: most factors first, then most letters."""
    fits = [t for t in terms if re.fullmatch(":".join(f"{re.escape(f.label)}.*" for f in t.factors), name, re.DOTALL)]
    return max(fits, key=lambda t: (len(t.factors), len(t.label)), default=None)


def _random_names(m: Fit) -> tuple[str, ...]:
    return unique([t.key for t in m.layout.terms])


def random_term(m: Fit, term: str) -> int | None:
    """Position of the random-effects term called `term` ("Subject", "(1 | Subject)"), None if there is none."""
    names = _random_names(m)
    if term in names:
        return names.index(term)
    plain = _bare(term)
    bars = [_bare(str(b.bar)) for b in m.spec.bars]
    return next((i for i, bar in enumerate(bars) if plain in (bar, f"({bar})", bar.strip("()"))), None)


def leave_out(blocks: Sequence[Block], gone: Sequence[int]) -> tuple[Block, ...]:
    """Blocks without some columns."""
    out: list[Block] = []
    first = 0
    for block in blocks:
        keep = [c for c in range(len(block.names)) if first + c not in gone]
        first += len(block.names)
        if len(keep) == len(block.names):
            out.append(block)
        elif keep and block.contrast is not None:
            part = np.ascontiguousarray(block.contrast[:, keep])
            out.append(replace(block, names=tuple(block.names[c] for c in keep), contrast=part))
    return tuple(out)


# ---- the test --------------------------------------------------------------------------------------------------------


def permutation_test(
    m: Fit,
    term: str,
    n: int = 999,
    *,
    within: Any = None,
    scheme: str | None = None,
    seed: int | None = None,
    progress: bool | None = None,
) -> PermutationTest:
    """Test a term by permutation, respecting groups.

    Parameters
    ----------
    m : Fit
        A fit with its rows.
    term : str
        A fixed term ("Days", "a:b") or coefficient, or a random-effects term ("Subject", "(1 | Subject)").
    n : int
        Permutations; where there are no more than `n` + 1 rearrangements in all, they are enumerated.
    within : str or array, optional
        The groups: a grouping factor of the model, or one value a row. Default: by where the term varies, see
        `placement` (random terms: all rows change places).
    scheme : "within" | "between" | "flip" | "covariate", optional
        How data are rearranged, see the notes; default by where the term varies.
    seed : int, optional
        Same seed, same permutations.
    progress : bool, optional
        Show how far permutations of more than a second have come; default: where stderr is a terminal.

    Returns
    -------
    PermutationTest

    Raises
    ------
    OptionError
        Unknown term or scheme.
    NotAvailableError
        A random term of a model that is not linear.

    Notes
    -----
    "within": rows change places within groups (terms that vary there; exact under random intercepts). "flip": groups
    change sign (terms with a random slope; symmetric errors). "between": groups of equal size change places (terms
    constant within groups). "covariate": the term's columns change places instead of residuals. With nuisance
    covariates the first three are Freedman & Lane's (1983): asymptotically exact. Random terms: residuals of the
    smaller model change places (Samuh et al. 2012); other random effects stay at their modes, which makes the test
    approximate.

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.load("Dyestuff"))
    >>> rf.permutation_test(m, "Batch", n=199, seed=1).p_value < 0.05
    True
    """
    check_fit(m, "permutation_test")
    if not isinstance(term, str):
        raise OptionError(f"permutation_test: term={term!r} must be the label of a term")
    if not isinstance(n, (int, np.integer)) or n < 1:
        raise OptionError(f"permutation_test: n={n!r} must be a positive whole number")
    if scheme is not None and scheme not in SCHEMES:
        raise OptionError(f"permutation_test: scheme={scheme!r} is unknown; known: {', '.join(map(repr, SCHEMES))}")
    if (counts := whole_counts(m, "permutation_test")) is not None:
        within = (
            within
            if within is None or isinstance(within, str)
            else np.repeat(_of_rows(design_of(m, "permutation_test"), within), counts)
        )
        m = repeated(m, "permutation_test")
    at = None if term in m.layout.fixed else random_term(m, term)
    plan = _random_plan(m, at, within) if at is not None else _fixed_plan(m, term, within, scheme)
    return _run(plan, term, n, seed, progress)


@dataclass(frozen=True, eq=False)
class Plan:
    """A test before it is run: rearrangements, and the statistics of several of them ((order, sign) each)."""

    moves: Rearrangement
    statistic: str
    observed: float
    of: Callable[[list[tuple[Array, Array]]], Array]
    scheme: str


def _run(plan: Plan, term: str, n: int, seed: Any, progress: bool | None) -> PermutationTest:
    exact = plan.moves.log_count <= math.log(n + 1) + 1e-9
    number = None if exact else seed_of(seed, "permutation_test")
    if exact:
        moves: Iterator[tuple[Array, Array]] = plan.moves.all()
    else:
        streams = Streams(int(number or 0))
        moves = (plan.moves.draw(streams(i)) for i in range(n))
    null: list[Array] = []
    with Progress("permutation test", n, progress) as shown:
        while batch := list(itertools.islice(moves, BATCH)):
            null.append(plan.of(batch))
            shown.advance(len(batch))
    found = np.concatenate(null)
    failures = int(np.isnan(found).sum())
    extreme = int((np.isnan(found) | (found >= plan.observed - TIE * (1 + abs(plan.observed)))).sum())
    p = extreme / len(found) if exact else (1 + extreme) / (1 + len(found))
    return PermutationTest(term, plan.statistic, plan.observed, found, p, exact, plan.scheme, failures, number)


# ---- fixed terms -----------------------------------------------------------------------------------------------------


def _fixed_plan(m: Fit, term: str, within: Any, scheme: str | None) -> Plan:
    m = written_out(m)
    design, at = design_of(m, "permutation_test"), columns_of(m, term)
    kept = [j for j in at if not np.isnan(m.estimate.beta[j])]
    if not kept:
        raise DataError(f"permutation_test: the columns of {term!r} were dropped as linearly dependent")
    if (np.diag(m.estimate.vcov)[kept] == 0).any():
        raise NotAvailableError(f"permutation_test: a coefficient of {term!r} is held by fixed=, so there is no test")
    x = matrix(design.fixed, design.n)
    _check_apart(m, x, at, term)
    place = placement(design, x[:, kept], within)
    how = _scheme(m, design, kept, place, scheme)
    observed = abs(wald(m.estimate.beta, m.estimate.vcov, kept))
    name = "|t|" if len(kept) == 1 else "F"
    moves = rearrangement(design, place, how)
    text = f"{f'values of {term}' if how == 'covariate' else 'residuals'} {described(design, place, how)}"
    if how == "covariate":
        # Columns that were dropped would not stay so beside columns in another order: they leave the model.
        gone = np.flatnonzero(np.isnan(m.estimate.beta[: len(m.layout.fixed)]))
        slim = replace(design, fixed=leave_out(design.fixed, gone.tolist()))
        mine = [j - int((gone < j).sum()) for j in kept]
        return Plan(moves, name, observed, lambda batch: _by_covariate(m, slim, mine, mine, batch), text)
    fitted, left = reduced(design, at, np.asarray(design.y)[:, None], m.method == "reml", place)
    spread = noise_scale(design)

    def of(batch: list[tuple[Array, Array]]) -> Array:
        y = np.array([fitted[:, 0] + sign * left[order, 0] * spread for order, sign in batch])
        return np.array([_abs_wald(r, kept) for r in refits(m.core, design, y.T, m.method == "reml")])

    return Plan(moves, name, observed, of, text)


def _check_apart(m: Fit, x: Array, at: Sequence[int], term: str) -> None:
    """Raise if columns that stay, dropped so far, would take the place of the term's."""
    names = m.layout.fixed
    stays = np.array([j not in at for j in range(len(names))])
    lost = np.isnan(m.estimate.beta[: len(names)])
    basis, others = x[:, stays & ~lost], x[:, stays & lost]
    if not others.shape[1]:
        return
    q = np.linalg.qr(basis / np.linalg.norm(basis, axis=0))[0]
    left = others - q @ (q.T @ others)
    left = left - q @ (q.T @ left)
    size = np.maximum(np.linalg.norm(others - others.mean(axis=0), axis=0), ROUNDING * np.linalg.norm(others, axis=0))
    apart = np.linalg.norm(left, axis=0) > ALIASED * size
    if apart.any():
        alias = [name for name, gone in zip(names, stays & lost, strict=True) if gone]
        listed = ", ".join(repr(a) for a, new in zip(alias, apart, strict=True) if new)
        raise DataError(
            f"permutation_test: without {term!r} the model still has what it stands for: {listed} depends linearly on "
            f"it, was dropped, and would take its place; take that term out of the formula to test {term!r}"
        )


def rearrangement(design: Design, place: Placement, how: str) -> Rearrangement:
    """Return the rearrangements of a scheme."""
    if how == "flip":
        return Rearrangement(outermost(design)[0], "flip")
    return Rearrangement(place.codes, how, place.units)


def described(design: Design, place: Placement, how: str) -> str:
    """Say what is rearranged, after the words "residuals" or "values of x"."""
    if how == "flip":
        return f"of each level of {hierarchy(design)[0][0].label} multiplied by a common random sign"
    what = "permuted" if place.units is None else f"of whole levels of {place.unit} permuted"
    return f"{what} within levels of {place.label}" if place.label else what


def _scheme(m: Fit, design: Design, kept: Sequence[int], place: Placement, asked: str | None) -> str:
    default = default_scheme(design, {m.layout.fixed[j] for j in kept}, place) if m.task.linear else "covariate"
    if asked is None:
        return default
    if not m.task.linear and asked != "covariate":
        raise NotAvailableError(f"permutation_test: scheme={asked!r} permutes residuals, which needs a linear model")
    if asked == "flip" and not design.terms:
        raise OptionError("permutation_test: scheme='flip' needs groups, the model has none")
    if asked in ("within", "between") and (asked == "within") != (place.units is None):
        is_within = place.units is None
        raise OptionError(
            f"permutation_test: the term {'varies' if is_within else 'is constant'} within "
            f"{place.label or place.unit}, so scheme={asked!r} does not test it; use "
            f"{'within' if is_within else 'between'!r}"
        )
    if asked == "between" and default == "covariate":
        raise OptionError("permutation_test: scheme='between' needs groups of equal size; use 'covariate'")
    return asked


def default_scheme(design: Design, names: set[str], place: Placement) -> str:
    """Where the term varies, and whether it has a random slope, says what is exchangeable."""
    if any(names & set(t.names) for t in design.terms):
        return "flip"
    if place.units is None:
        return "within"
    sizes = np.bincount(place.units)
    nested = place.label or not any(_is_crossed(t.codes, place.units) for t in design.terms)
    return "between" if (sizes == sizes[0]).all() and nested else "covariate"


def _is_crossed(a: Array, b: Array) -> bool:
    return not is_nested(a, b) and not is_nested(b, a)


def is_constant(x: Array, codes: Array) -> bool:
    """Whether every column has one value a group."""
    first = np.zeros(int(codes.max()) + 1, dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    return bool((x == x[first[codes]]).all())


def reduced(design: Design, at: Sequence[int], y: Array, reml: bool, place: Placement) -> tuple[Array, Array]:
    """Fitted values of each response, (n, m), without the columns `at`, and residuals times sqrt(w).

    The conditional modes of factors crossed with the groups stay in the fitted values: they cannot change places there.
    """
    smaller = replace(design, fixed=leave_out(design.fixed, at), y=np.ascontiguousarray(y[:, 0]))
    records = refits(linear.make_core(smaller), smaller, y, reml)
    where = place.codes if place.units is None else place.units
    crossed = [_is_crossed(np.asarray(t.codes), where) for t in design.terms]
    fitted = np.column_stack([_mean_of(smaller, r) + _effects(smaller, r["b"], crossed) for r in records])
    spread = noise_scale(design)
    return fitted, (y - fitted) / (spread if np.ndim(spread) == 0 else np.asarray(spread)[:, None])


def _mean_of(design: Design, record: Any) -> Array:
    if isinstance(record, str):
        raise DataError(f"permutation_test: the model without the term cannot be fitted: {record}")
    beta = np.ascontiguousarray(record["beta"])
    return np.asarray(_core.linear_predictor(linear.sources(design.fixed), beta, [], [], design.offset, design.n))


def refits(core: Any, design: Design, y: Array, reml: bool) -> list[Any]:
    """Return the core's records of the fits of several responses (n, m); text where one failed."""
    blocks = (linear.sources(design.fixed), linear.term_sources(design.terms), design.weights, design.offset)
    found = core.refit(np.asfortranarray(y), *blocks, reml, {})
    return [r if isinstance(r, str) or r["outcome"] == "converged" else r["outcome"] for r in found]


def wald(beta: Array, vcov: Array, at: Sequence[int]) -> float:
    """Return t of one coefficient, F of several."""
    b, v = np.asarray(beta)[list(at)], np.asarray(vcov)[np.ix_(list(at), list(at))]
    if len(b) == 1:
        return float(b[0] / np.sqrt(v[0, 0]))
    return float(b @ np.linalg.solve(v, b) / len(b))


def _abs_wald(record: Any, at: Sequence[int]) -> float:
    return math.nan if isinstance(record, str) else abs(wald(record["beta"], record["vcov"], at))


def _by_covariate(
    m: Fit, design: Design, at: Sequence[int], kept: Sequence[int], batch: list[tuple[Array, Array]]
) -> Array:
    """Refit with the term's columns rearranged."""
    return np.array([_moved_columns(m, design, at, kept, order) for order, _ in batch])


def _moved_columns(m: Fit, design: Design, at: Sequence[int], kept: Sequence[int], order: Array) -> float:
    blocks, first = list[Block](), 0
    for block in design.fixed:
        mine = [c for c in range(len(block.names)) if first + c in at]
        first += len(block.names)
        blocks += [_moved(block, order)] if len(mine) == len(block.names) else _split(block, mine, order)
    try:
        _, found = m.engine.estimate(replace(design, fixed=tuple(blocks)), m.task)
    except (RanefError, ValueError):
        return math.nan
    return abs(wald(found.beta, found.vcov, kept)) if found.outcome == "converged" else math.nan


def _moved(block: Block, order: Array) -> Block:
    def take(v: Any) -> Any:
        return None if v is None else np.ascontiguousarray(v[order])

    return replace(block, codes=take(block.codes), x=take(block.x))


def _split(block: Block, mine: list[int], order: Array) -> list[Block]:
    """One block a column, those in `mine` rearranged: the order of columns stays."""
    if not mine or block.contrast is None:
        return [block]
    parts = [
        replace(block, names=(name,), contrast=np.ascontiguousarray(block.contrast[:, c : c + 1]))
        for c, name in enumerate(block.names)
    ]
    return [_moved(p, order) if c in mine else p for c, p in enumerate(parts)]


# ---- random terms ----------------------------------------------------------------------------------------------------


def _random_plan(m: Fit, at: int, within: Any) -> Plan:
    if not m.task.linear:
        raise NotAvailableError(
            "permutation_test: random effects can be tested by permuting residuals in linear models only; use a "
            "parametric bootstrap of the likelihood ratio"
        )
    design, reml = design_of(m, "permutation_test"), m.method == "reml"
    smaller = replace(design, terms=tuple(t for i, t in enumerate(design.terms) if i != at))
    codes, label = (np.zeros(design.n, dtype=np.int64), "") if within is None else groups_given(design, within)
    core = linear.make_core(smaller, threads=m.task.control.threads)
    y = np.asarray(design.y)
    (record,) = refits(core, smaller, y[:, None], reml)
    mean = _mean_of(smaller, record)
    mean = mean + _effects(smaller, record["b"], [True] * len(smaller.terms))
    spread = noise_scale(design)
    left = (y - mean) / spread
    observed = float(record["criterion"]) - m.criterion

    def of(batch: list[tuple[Array, Array]]) -> Array:
        new = np.array([mean + left[order] * spread for order, _ in batch]).T
        pairs = zip(refits(core, smaller, new, reml), refits(m.core, design, new, reml), strict=True)
        failed = [math.nan if isinstance(a, str) or isinstance(b, str) else a["criterion"] - b["criterion"]
                  for a, b in pairs]  # fmt: skip
        return np.array(failed)

    place = f" within levels of {label}" if label else ""
    return Plan(
        Rearrangement(codes, "within"), "LRT", observed, of, f"residuals of the model without it permuted{place}"
    )


def _effects(design: Design, b: Sequence[Array], which: Sequence[bool]) -> Array:
    """Z b of some terms."""
    on = [t for t, use in enumerate(which) if use]
    if not on:
        return np.zeros(design.n)
    terms = linear.term_sources([design.terms[t] for t in on])
    modes = [np.ascontiguousarray(b[t]) for t in on]
    return np.asarray(_core.linear_predictor([], np.empty(0), terms, modes, None, design.n))
