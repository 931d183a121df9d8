"""Where bootstrap responses and designs come from: model, residuals, signs of residuals, or groups of rows.

Every scheme is a function of a random stream; stream i of a seed does not depend on any other (Philox counters, Salmon
et al. 2011), so that replicates can be made in any order on any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef import _core
from ranef.engines import engine_of
from ranef.engines.laplace import absorbed
from ranef.engines.linear import sources
from ranef.errors import DataError, NotAvailableError, OptionError
from ranef.frame.design import Array, Block, Component, Design, GroupTerm, Levels, Sampling, matrix
from ranef.inference.dummies import dummies_of
from ranef.inference.memory import remembered
from ranef.layout import layout_of
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.frame.relations import Relation
    from ranef.model import Fit

Draw = Callable[[np.random.Generator], Array]
DISPERSION = "dispersion"
HCCME = ("hc2", "hc3")
AUXILIARY = ("rademacher", "mammen")
MOST_REPEATED = 50_000_000  # rows
TOO_MANY = 0.1  # share of failed refits above which there is no result
MOST_OBSERVED = 5_000  # levels between which a covariance is dense


class Streams:
    """Independent random streams of one seed: `streams(i)` is a generator that stands at the start of stream i."""

    def __init__(self, seed: int) -> None:
        key = np.random.SeedSequence(seed).generate_state(2, np.uint64)
        self._bits = np.random.Philox(key=key)
        self._state = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def __call__(self, i: int) -> np.random.Generator:
        """Return the generator; it is the same object for every i."""
        state: Any = self._state
        state["state"]["counter"] = np.array([0, 0, 0, i], dtype=np.uint64)
        state["buffer_pos"], state["has_uint32"], state["uinteger"] = 4, 0, 0
        self._bits.state = state
        return self._generator


def seed_of(seed: Any, what: str) -> int:
    """Return the seed as a whole number; one drawn from the system where none was given.

    Raises
    ------
    OptionError
        If it is not a non-negative whole number.
    """
    if seed is None:
        return int(np.random.SeedSequence().generate_state(1, np.uint64)[0] >> np.uint64(1))
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise OptionError(f"{what}: seed={seed!r} must be a whole number that is not negative")
    return int(seed)


def generator_of(seed: Any, what: str) -> tuple[np.random.Generator, int | None]:
    """Return what draws, and the seed to have it again: drawn from the system where none was given.

    A generator that was given draws on, and has no seed to tell.

    Raises
    ------
    OptionError
        If it is neither a generator nor a non-negative whole number.
    """
    if isinstance(seed, np.random.Generator):
        return seed, None
    number = seed_of(seed, what)
    return np.random.default_rng(number), number


def count_of(n: Any, what: str, name: str = "n") -> int:
    """Return a number of draws.

    Raises
    ------
    OptionError
        If it is not a positive whole number.
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise OptionError(f"{what}: {name}={n!r} must be a positive whole number")
    return int(n)


def threads_of(threads: Any, what: str) -> int | None:
    """Return a number of threads; None: the fit's.

    Raises
    ------
    OptionError
        If it is neither None nor a positive whole number.
    """
    return None if threads is None else count_of(threads, what, "threads")


# ---- what responses can be drawn for ---------------------------------------------------------------------------------


def drawable(m: Fit, what: str) -> Fit:
    """Return the fit for rows to each of which a response can be drawn.

    A row of frequency w stands for w equal rows, but responses drawn for these are not equal: the fit is that of
    `repeated`.

    Raises
    ------
    NotAvailableError
        If the response is censored, or frequencies are not whole numbers.
    """
    if m.formula.censored:
        other = "; use kind='cases'" if what == "bootstrap" else ""
        raise NotAvailableError(f"{what}: a drawn response does not say which rows are censored{other}")
    return repeated(m, what)


def repeated(m: Fit, what: str) -> Fit:
    """Return the fit to the rows that frequency weights count, each by itself; the fit where they count nothing.

    It has the same likelihood. Gaussian ones with one residual variance are linear mixed models, which have their own
    engine.

    Raises
    ------
    NotAvailableError
        If frequencies are not whole numbers, or count more than `MOST_REPEATED` rows.
    """
    return m if whole_counts(m, what) is None else _to_repeated(m)


def whole_counts(m: Fit, what: str) -> Array | None:
    """Return how many rows each row stands for; None where that is one throughout.

    Raises
    ------
    NotAvailableError
        See `repeated`.
    """
    found = design_of(m, what).frequencies
    if found is None or (np.asarray(found) == 1).all():
        return None
    counts = np.asarray(found)
    if (counts != np.floor(counts)).any():
        at = int(np.flatnonzero(counts != np.floor(counts))[0])
        raise NotAvailableError(
            f"{what}: it looks at each of the rows that frequency_weights= counts, which must be whole numbers; one is "
            f"{counts[at]:g}. Weights that are no counts: precision_weights= or sampling_weights="
        )
    if counts.sum() > MOST_REPEATED:
        raise NotAvailableError(
            f"{what}: it looks at each of the rows that frequency_weights= counts, {counts.sum():,.0f} in all, and up "
            f"to {MOST_REPEATED:,} are written out: coarsen the counts, or take a sample of the rows"
        )
    return counts.astype(np.int64)


@remembered
def _to_repeated(m: Fit) -> Fit:
    design, call = design_of(m, "frequency weights"), replace(m.call, frequency_weights=None)
    counts = np.asarray(design.frequencies, dtype=np.int64)
    larger = subset(design, np.repeat(np.arange(design.n), counts), {})
    terms = [replace(new, levels=old.levels) for new, old in zip(larger.terms, design.terms, strict=True)]
    larger = replace(larger, frequencies=None, terms=tuple(terms))
    call = replace(call, linear=call.is_linear() and m.task.quadrature == 1)
    if call.linear:
        larger = replace(larger, others=())
    task = call.task(larger)
    core, estimate = engine_of(task).estimate(larger, task)
    layout = layout_of(larger, task)
    return replace(m, call=call, task=task, layout=layout, estimate=estimate, core=core, design=larger, data=None)


# ---- linear models ---------------------------------------------------------------------------------------------------


def fixed_part(m: Fit, design: Design) -> Array:
    """X beta + offset."""
    beta = np.ascontiguousarray(m.estimate.beta[m.layout.components[0].at])
    return np.asarray(_core.linear_predictor(sources(design.fixed), beta, [], [], design.offset, design.n))


def random_part(design: Design, effects: Sequence[Array]) -> Callable[[Sequence[Array]], Array]:
    """Return the map from the effects of all terms, (L, k) each, to Z b."""
    parts = [(t.codes, matrix(t.blocks, design.n)) for t in design.terms[: len(effects)]]
    return lambda b: sum(
        ((z * values[codes]).sum(axis=1) for (codes, z), values in zip(parts, b, strict=True)), np.zeros(design.n)
    )


def noise_scale(design: Design) -> Array | float:
    """1 / sqrt(w)."""
    return 1.0 if design.weights is None else 1 / np.sqrt(design.weights)


def parametric(m: Fit, re: str) -> Draw:
    """Draw new random effects (or keep the modes) and new residuals, all normal."""
    if not m.task.linear:
        _ = m.simulate(1, re=re, seed=0)  # says why there is none, once
        return lambda rng: m.simulate(1, re=re, seed=rng)[:, 0]
    design = design_of(m, "bootstrap")
    mean, spread, modes, roots = fixed_part(m, design), noise_scale(design), m.estimate.modes, m.estimate.roots
    effects, sigma = random_part(design, modes), m.sigma
    kept = mean + effects(modes) if re == "conditional" else mean

    def draw(rng: np.random.Generator) -> Array:
        if re == "conditional":
            return kept + sigma * rng.standard_normal(design.n) * spread
        b = [rng.standard_normal(u.shape) @ root.T for u, root in zip(modes, roots, strict=True)]
        return mean + effects(b) + sigma * rng.standard_normal(design.n) * spread

    return draw


@dataclass(frozen=True, eq=False)
class Additive:
    """A model whose response is its mean, random effects and independent residuals.

    Attributes
    ----------
    design : Design
    mean : (n,) array
        X beta + offset.
    spread : (n,) array
        Standard deviations of the residuals.
    effects : callable
        Effects of all terms, (L, k) each, to Z b.
    """

    design: Design
    mean: Array
    spread: Array
    effects: Callable[[Sequence[Array]], Array]


def additive(m: Fit, kind: str) -> Additive:
    """Return the parts of a gaussian model, with covariance structures and a dispersion formula too.

    Raises
    ------
    NotAvailableError
        If residuals are not all there is beside the mean and its random effects.
    """
    what = f"bootstrap: kind={kind!r}"
    if not m.distribution.is_gaussian_identity or m.method == "pql":
        raise NotAvailableError(
            f"{what} needs residuals that can be exchanged, which a {m.family} model with the link "
            f"{m.distribution.link!r} does not have; use 'parametric' or 'cases'"
        )
    if m.call.sampling_weights is not None:
        raise NotAvailableError(f"{what}: rows of unequal sampling_weights= cannot be exchanged; use 'cases'")
    noisy = [t.label for t in m.layout.terms if any(name != "mean" for name in t.components)]
    if noisy:
        raise NotAvailableError(
            f"{what}: the residuals' variance has random effects of its own ({', '.join(noisy)}); use 'parametric'"
        )
    design = design_of(m, "bootstrap")
    return Additive(design, fixed_part(m, design), _spread(m, design), random_part(design, m.estimate.modes))


def _spread(m: Fit, design: Design) -> Array:
    """Return the standard deviations of the residuals of a gaussian model without random effects in its dispersion."""
    family = m.distribution
    part = next((c for c in m.layout.components if c.name == DISPERSION), None)
    if m.task.linear or part is None:
        return np.full(design.n, m.sigma) * noise_scale(design)
    own = next(c for c in absorbed(design).others if c.name == DISPERSION)
    beta = np.ascontiguousarray(m.estimate.beta[part.at])
    eta = _core.linear_predictor(sources(own.fixed), beta, [], [], own.offset, design.n)
    return np.asarray(family.link_of(DISPERSION).inverse(np.asarray(eta)), dtype=np.float64)


def residual(m: Fit) -> Draw:
    """Draw rows of conditional modes and residuals, rescaled to the estimated (co)variances, with replacement.

    Carpenter, Goldstein & Rasbash (2003): modes are shrunken, so they are centred and multiplied by A such that their
    empirical covariance is the estimated one, that of a structure where the term has one; residuals likewise, in units
    of each row's standard deviation. Modes of levels with a known relationship K are those of C^-1 b, K = CC': what is
    drawn of these is made related again by C.

    Raises
    ------
    NotAvailableError
        If levels are too few for the covariance of their effects.
    """
    parts = additive(m, "residual")
    related = relationships(parts.design, len(m.estimate.modes))
    left, scaled = pools(m, parts, related)

    def draw(rng: np.random.Generator) -> Array:
        b = [coloured(k, u[rng.integers(len(u), size=len(u))]) for k, u in zip(related, scaled, strict=True)]
        return parts.mean + parts.effects(b) + left[rng.integers(len(left), size=len(left))] * parts.spread

    return draw


def pools(m: Fit, parts: Additive, related: Sequence[Relation | Observed | None]) -> tuple[Array, list[Array]]:
    """Return residuals of variance 1, and independent effects with the estimated covariance of each term."""
    modes, covariances = m.estimate.modes, m.estimate.covariances
    left = (np.asarray(parts.design.y) - parts.mean - parts.effects(modes)) / parts.spread
    left = left - left.mean()
    left = left / np.sqrt(max(float(np.mean(left**2)), np.finfo(float).tiny))
    whitened = [u if k is None else k.whiten(u) for k, u in zip(related, modes, strict=True)]
    for term, u, cov in zip(parts.design.terms, whitened, covariances, strict=True):
        _check_enough(term, u, cov)
    return left, [rescaled(u, cov) for u, cov in zip(whitened, covariances, strict=True)]


def relationships(design: Design, count: int) -> list[Relation | None]:
    """Return the known relationship between the levels of each term."""
    return [term.relation for term in design.terms[:count]]


@dataclass(frozen=True, eq=False)
class Observed:
    """The relationship between those levels that have rows, others integrated out: K_oo = C C'.

    Attributes
    ----------
    at : (o,) array
        Which levels have rows.
    root : (o, o) array
        C, lower triangular.
    levels : int
        How many there are in all.
    """

    at: Array
    root: Array
    levels: int

    def whiten(self, b: Array) -> Array:
        """Return C^-1 b of the levels with rows, (o, k)."""
        from scipy.linalg import solve_triangular

        return np.asarray(solve_triangular(self.root, b[self.at], lower=True))

    def correlate(self, z: Array) -> Array:
        """Return C z, (levels, k), 0 at levels without rows."""
        out = np.zeros((self.levels, z.shape[1]))
        out[self.at] = self.root @ z
        return out


def observed_relation(term: GroupTerm) -> Relation | Observed | None:
    """Return the relationship between levels of a term that have rows.

    Raises
    ------
    NotAvailableError
        If some have none, and those that have are too many for a dense matrix.
    """
    at = np.unique(term.codes)
    if term.relation is None or len(at) == len(term.levels):
        return term.relation
    if len(at) > MOST_OBSERVED:
        raise NotAvailableError(
            f"bootstrap: kind='wild' needs the covariance between the {len(at):,} levels of {term.label!r} that have "
            f"rows, which is formed up to {MOST_OBSERVED:,}, as {len(term.levels) - len(at):,} others have none; use "
            f"'parametric' or 'residual'"
        )
    return Observed(at, np.linalg.cholesky(term.relation.covariance_of(at)), len(term.levels))


def coloured(relation: Relation | Observed | None, effects: Array) -> Array:
    """Return effects of independent levels as those of levels with a known relationship."""
    return effects if relation is None else relation.correlate(effects)


def _check_enough(term: GroupTerm, modes: Array, cov: Array) -> None:
    """Raise unless the modes have as many dimensions as their covariance."""
    values = np.linalg.eigvalsh(cov)
    rank = int((values > 1e-12 * max(values[-1], np.finfo(float).tiny)).sum())
    if len(modes) <= rank:
        raise NotAvailableError(
            f"bootstrap: kind='residual' needs more levels of {term.label!r} than the rank of the covariance of their "
            f"effects, {rank}; there are {len(modes)}. Use 'parametric'"
        )


def rescaled(modes: Array, cov: Array) -> Array:
    """Centred modes times A, so that their empirical covariance is `cov` (Carpenter et al. 2003, sec. 3.2).

    Symmetric roots take the place of Cholesky factors: they exist for singular covariances too.
    """
    centred = modes - modes.mean(axis=0)
    return centred @ symmetric_root(centred.T @ centred / len(centred), -0.5) @ symmetric_root(cov, 0.5)


def symmetric_root(a: Array, power: float) -> Array:
    """Return a^power of a positive semidefinite matrix, generalised inverse where the power is negative."""
    values, vectors = np.linalg.eigh(a)
    up = values > 1e-12 * max(values[-1], np.finfo(float).tiny)
    return (vectors[:, up] * values[up] ** power) @ vectors[:, up].T


def wild(m: Fit, hccme: str, auxiliary: str) -> Draw:
    """Residuals of the population mean keep their place; each group's get one random sign or factor.

    Modugno & Giannerini (2015): y*_j = X_j beta + v_j w_j with v_j the residuals y - X beta divided by (1 - h)^(1/2)
    (hc2) or 1 - h (hc3), h the leverages of X, and w_j of mean 0 and variance 1: +-1 (Rademacher) or Mammen's two
    points. Levels with a known relationship are no independent groups: see `wild_related`.
    """
    if hccme not in HCCME or auxiliary not in AUXILIARY:
        raise OptionError(f"bootstrap: hccme={hccme!r}, auxiliary={auxiliary!r}; known: {HCCME} and {AUXILIARY}")
    design = design_of(m, "bootstrap")
    if any(term.relation is not None for term in design.terms):
        return wild_related(m, hccme, auxiliary)
    codes, others = outermost(design)
    if others:
        raise NotAvailableError(
            f"bootstrap: kind='wild' needs independent groups, but {', '.join(map(repr, others))} is crossed with "
            f"{hierarchy(design)[0][0].label!r}; use 'parametric' or 'residual'"
        )
    parts = additive(m, "wild")
    v = (np.asarray(design.y) - parts.mean) / shrinkage(parts, hccme)
    groups = int(codes.max()) + 1
    return lambda rng: parts.mean + v * factors(rng, groups, auxiliary)[codes]


def wild_related(m: Fit, hccme: str, auxiliary: str) -> Draw:
    """Rescaled modes and residuals keep their place, and each gets a random factor of mean 0 and variance 1.

    With relationships no set of rows is independent of the others, so what gets the factors is what the model says is
    independent: the levels of C^-1 b (see `residual`), which C makes related again, and the residuals, divided by
    (1 - h)^(1/2) or 1 - h first.

    Levels without rows (ancestors in a pedigree) tell nothing of the size of effects, and no row depends on theirs:
    they are integrated out.
    """
    parts = additive(m, "wild")
    related = [observed_relation(term) for term in parts.design.terms[: len(m.estimate.modes)]]
    left, scaled = pools(m, parts, related)
    left = left / shrinkage(parts, hccme)
    left = left / np.sqrt(np.mean(left**2)) if np.any(left) else left

    def draw(rng: np.random.Generator) -> Array:
        b = [coloured(k, u * factors(rng, len(u), auxiliary)[:, None]) for k, u in zip(related, scaled, strict=True)]
        return parts.mean + parts.effects(b) + left * factors(rng, len(left), auxiliary) * parts.spread

    return draw


def shrinkage(parts: Additive, hccme: str) -> Array:
    """Return what residuals are divided by: (1 - h)^(1/2) or 1 - h."""
    return (1 - leverages(dummies_of(parts.design), parts.spread)) ** (0.5 if hccme == "hc2" else 1.0)


def leverages(design: Design, spread: Array) -> Array:
    """Diagonal of X (X'WX)^-1 X'W, W the inverse squares of the residuals' standard deviations."""
    x = matrix(design.fixed, design.n) / spread[:, None]
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    h = (u[:, s > 1e-10 * s[0]] ** 2).sum(axis=1) if len(s) else np.zeros(design.n)
    return np.minimum(h, 1 - 1e-8)


def factors(rng: np.random.Generator, groups: int, auxiliary: str) -> Array:
    """Draw numbers of mean 0 and variance 1."""
    if auxiliary == "rademacher":
        return rng.integers(2, size=groups) * 2.0 - 1.0
    root = np.sqrt(5.0)  # Mammen (1993)
    return np.where(rng.random(groups) < (root + 1) / (2 * root), (1 - root) / 2, (1 + root) / 2)


# ---- cases -----------------------------------------------------------------------------------------------------------


def hierarchy(design: Design) -> tuple[list[GroupTerm], list[GroupTerm]]:
    """Return grouping factors from the outermost inwards, each nested in the last, and those crossed with them."""
    unique = list({t.label: t for t in design.terms}.values())
    chain: list[GroupTerm] = []
    crossed: list[GroupTerm] = []
    for term in sorted(unique, key=lambda t: len(t.levels)):
        if not chain or is_nested(term.codes, chain[-1].codes):
            chain.append(term)
        else:
            crossed.append(term)
    return chain, crossed


def is_nested(inner: Array, outer: Array) -> bool:
    """Whether every level of `inner` lies in one level of `outer`."""
    first = np.zeros(int(inner.max()) + 1, dtype=np.int64)
    first[inner] = outer
    return bool((first[inner] == outer).all())


def outermost(design: Design) -> tuple[Array, list[str]]:
    """Codes of the outermost grouping factor (of rows, without random effects), and factors crossed with it."""
    chain, crossed = hierarchy(design)
    if not chain:
        return np.arange(design.n), []
    outer = chain[0]
    return np.asarray(outer.codes, dtype=np.int64), [t.label for t in crossed if not is_nested(t.codes, outer.codes)]


def cases(m: Fit, levels: Sequence[str] | str | None) -> Callable[[np.random.Generator], Design]:
    """Draw groups, and what is in them, with replacement; a group drawn twice counts as two groups.

    van der Leeden, Meijer & Busing (2008, sec. 11.4.3): `levels` names what is resampled, from the grouping factors and
    "rows"; default the outermost grouping factor alone.
    """
    design = design_of(m, "bootstrap")
    if (related := next((t.label for t in design.terms if t.relation is not None), None)) is not None:
        raise NotAvailableError(
            f"bootstrap: kind='cases' draws independent groups, and levels of {related!r} are related; use 'parametric'"
        )
    chain, crossed = hierarchy(design)
    names = [t.label for t in chain]
    asked = drawn_levels(design, levels)
    for name in asked:
        if name not in (*names, "rows"):
            stay = f"; crossed with them, and not drawn: {', '.join(repr(t.label) for t in crossed)}" if crossed else ""
            raise OptionError(
                f"bootstrap: levels={name!r} cannot be resampled; known: {', '.join(map(repr, (*names, 'rows')))}{stay}"
            )
    if "rows" not in asked and all(len(t.levels) == 1 for t in chain if t.label in asked):
        raise DataError(
            f"bootstrap: kind='cases' draws groups, and {asked[0]!r} has one: every replicate would be the data; use "
            f"kind='parametric'"
        )
    codes = [np.asarray(t.codes, dtype=np.int64) for t in chain]

    def draw(rng: np.random.Generator) -> Design:
        rows, made = np.arange(design.n), []
        unit = np.zeros(design.n, dtype=np.int64)
        for name, code in zip(names, codes, strict=True):
            rows, unit, made = drawn(rng, rows, unit, code[rows], made, name in asked)
            made.append(unit)
        if "rows" in asked:
            rows, _, made = drawn(rng, rows, unit, np.arange(len(rows)), made, True)
        return subset(design, rows, dict(zip(names, made, strict=True)))

    return draw


def with_cases(m: Fit, levels: Sequence[str] | str | None) -> Fit:
    """Return the fit whose cases are drawn: where these are rows, that to the rows which frequency weights count."""
    by_rows = "rows" in drawn_levels(design_of(m, "bootstrap"), levels)
    return repeated(m, "bootstrap") if by_rows else m


def drawn_levels(design: Design, levels: Sequence[str] | str | None) -> list[str]:
    """Return the names of what is drawn of the cases: as asked, or the outermost grouping factor."""
    chain, _ = hierarchy(design)
    return [levels] if isinstance(levels, str) else list(levels or [t.label for t in chain[:1]] or ["rows"])


def drawn(
    rng: np.random.Generator, rows: Array, unit: Array, code: Array, made: list[Array], again: bool
) -> tuple[Array, Array, list[Array]]:
    """Within each unit draw its groups (`code`) with replacement, or keep them.

    Returns
    -------
    rows, unit, made
        Rows drawn, the group each belongs to (a group drawn twice is two), and the outer groups of these rows.
    """
    _, group = np.unique(np.column_stack([unit, code]), axis=0, return_inverse=True)
    group = group.ravel()
    if not again:
        return rows, group, made
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max() + 2))
    owner = unit[order[starts[:-1]]]
    picked = np.concatenate([rng.choice(g, size=len(g)) for g in _split(owner)])
    parts = [order[starts[g] : starts[g + 1]] for g in picked]
    take = np.concatenate(parts)
    return rows[take], np.repeat(np.arange(len(picked)), [len(p) for p in parts]), [c[take] for c in made]


def _split(owner: Array) -> list[Array]:
    """Positions of equal neighbours, in order."""
    return np.split(np.arange(len(owner)), np.flatnonzero(np.diff(owner)) + 1)


def subset(design: Design, rows: Array, made: Mapping[str, Array]) -> Design:
    """Return the design of some rows, with new codes of the grouping factors in `made`.

    Factors nested in one of these follow its new groups; factors crossed with them keep their levels.
    """

    def codes(term: GroupTerm) -> Array:
        own = np.asarray(term.codes, dtype=np.int64)[rows]
        if term.label in made:
            own = made[term.label]
        else:
            for label in reversed(list(made)):
                outer = next(t for t in design.terms if t.label == label)
                if is_nested(term.codes, outer.codes):
                    own = made[label] * (int(own.max()) + 1) + own
                    break
        return np.unique(own, return_inverse=True)[1].ravel().astype(np.int32)

    def term(t: GroupTerm) -> GroupTerm:
        if t.relation is not None:  # levels without rows stay: others are related to them
            return replace(t, codes=np.ascontiguousarray(t.codes[rows]), blocks=_blocks(t.blocks, rows))
        new = codes(t)
        return replace(t, codes=new, levels=Levels.of(list(range(int(new.max()) + 1))), blocks=_blocks(t.blocks, rows))

    return replace(
        design,
        n=len(rows),
        rows=None,
        n_input=len(rows),
        fixed=_blocks(design.fixed, rows),
        terms=tuple(term(t) for t in design.terms),
        others=tuple(Component(c.name, _blocks(c.fixed, rows), _take(c.offset, rows)) for c in design.others),
        sampling=_sampling(design.sampling, rows),
        randomised=None if design.randomised is None else (design.randomised[0][rows], design.randomised[1][rows]),
        **{name: _take(getattr(design, name), rows) for name in PER_ROW},
    )


def _sampling(sampling: Sampling | None, rows: Array) -> Sampling | None:
    if sampling is None:
        return None
    groups = {name: values[rows] for name, values in sampling.groups.items()}
    return replace(sampling, rows=_take(sampling.rows, rows), groups=groups)


PER_ROW = ("y", "weights", "offset", "trials", "frequencies", "censor", "upper", "bounds")


def _take(values: Array | None, rows: Array) -> Array | None:
    return None if values is None else np.ascontiguousarray(values[rows])


def _blocks(blocks: Sequence[Block], rows: Array) -> tuple[Block, ...]:
    return tuple(replace(b, codes=_take(b.codes, rows), x=_take(b.x, rows)) for b in blocks)


def without(design: Design, keep: Array) -> Design:
    """Return the design of the rows in `keep`, levels that lost all rows left out.

    Raises
    ------
    DataError
        If no row is left.
    """
    rows = np.flatnonzero(keep)
    if not len(rows):
        raise DataError("no row is left")
    return subset(design, rows, {})
