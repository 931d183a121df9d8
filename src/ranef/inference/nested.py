"""How a model extends another: whether it contains it, and which of the added parameters are null on a boundary.

A model contains another if every linear predictor's columns span those of the other, every covariance structure of
the other is a special case of its own, and so is the other's family. The parameters that it adds are of three sorts:
free ones (coefficients, correlations of effects that are in both), variances whose null value 0 lies on the boundary
of the parameter space (they form a cone: Self & Liang 1987; Stram & Lee 1994; Baey, Cournede & Kuhn 2019), and
irregular ones (a correlation that has no meaning where its variance is 0), for which no limit law is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ranef.engines.estimate import Array
from ranef.engines.thresholds import NOMINAL
from ranef.frame.design import Block, Component, Indicators
from ranef.inference.comparable import bound, same, same_block
from ranef.inference.resampling import is_nested
from ranef.inference.sweeping import Sweep, chunks, rows_of, wide_of
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.frame import GroupTerm
    from ranef.frame.relations import Relation
    from ranef.model import Fit

CHUNK = 20_000  # rows at a time where columns are compared
SPANNED = 1e-8  # squared relative distance of a column from a space below which it lies in it

#: Structure -> those that are special cases of it, for the same columns.
INSIDE: dict[str, tuple[str, ...]] = {
    "us": ("diag", "homdiag", "cs", "homcs", "ar1", "hetar1", "toep", "homtoep", "ou", "exp", "gau", "propto"),
    "diag": ("homdiag",),
    "cs": ("homcs", "diag", "homdiag"),
    "homcs": ("homdiag",),
    "toep": ("hetar1", "ar1", "cs", "homcs", "homtoep", "diag", "homdiag"),
    "homtoep": ("ar1", "homcs", "homdiag"),
    "hetar1": ("ar1", "diag", "homdiag"),
    "ar1": ("homdiag",),
}
OVERDISPERSION = "an overdispersion"
SAME_SIZE = "the models have the same number of parameters"
#: (family, family that contains it) -> what is added and 0 on a boundary under the null; "" where it lies inside.
FAMILIES = {
    ("poisson", "nbinom1"): OVERDISPERSION,
    ("poisson", "nbinom2"): OVERDISPERSION,
    ("truncated_poisson", "truncated_nbinom1"): OVERDISPERSION,
    ("truncated_poisson", "truncated_nbinom2"): OVERDISPERSION,
    ("poisson", "genpois"): "",
    ("poisson", "compois"): "",
    ("binomial", "betabinomial"): OVERDISPERSION,
    ("gaussian", "student_t"): "an inverse of the degrees of freedom",
    ("exponential", "gamma"): "",
    ("exponential", "weibull"): "",
}
#: Arrangement of thresholds -> those that are special cases of it.
ARRANGED = {"flexible": ("symmetric", "symmetric2", "equidistant"), "symmetric": ("symmetric2", "equidistant")}
IRREGULAR = ("cs", "homcs", "ar1", "hetar1", "toep", "homtoep", "ou", "exp", "gau")


@dataclass(frozen=True, slots=True)
class Cone:
    """Variances that are 0 under the null: columns `at` of a random-effects term, with ("psd") their covariances.

    `aligned` is False where the null's effects are combinations of the term's columns, not some of them.
    """

    term: int
    at: tuple[int, ...]
    kind: str
    aligned: bool = True

    @property
    def size(self) -> int:
        """How many parameters it has."""
        r = len(self.at)
        return r * (r + 1) // 2 if self.kind == "psd" else r


@dataclass(frozen=True, slots=True)
class Extension:
    """How a larger model extends a smaller one.

    Attributes
    ----------
    obstacles : tuple of str
        Why it does not contain it; empty where it does.
    df : int
        Parameters added.
    cones : tuple of Cone
        Variances added, null on the boundary.
    scalars : tuple of str
        Other parameters null on the boundary: "a zero inflation", "an overdispersion" ….
    irregular : tuple of str
        What has no known limit law.
    coefficients : bool
        Whether coefficients of the mean are among what is tested.
    """

    obstacles: tuple[str, ...]
    df: int
    cones: tuple[Cone, ...] = ()
    scalars: tuple[str, ...] = ()
    irregular: tuple[str, ...] = ()
    coefficients: bool = False

    @property
    def on_boundary(self) -> int:
        """How many parameters are null on the boundary."""
        return sum(c.size for c in self.cones) + len(self.scalars)

    @property
    def free(self) -> int:
        """How many added parameters are unrestricted."""
        return self.df - self.on_boundary


@dataclass(slots=True)
class _Found:
    """What the parts of the comparison found."""

    obstacles: list[str] = field(default_factory=list)
    cones: list[Cone] = field(default_factory=list)
    scalars: list[str] = field(default_factory=list)
    irregular: list[str] = field(default_factory=list)
    coefficients: bool = False


def extension(small: Fit, large: Fit) -> Extension:
    """Return how `large` extends `small`; both are fits to the same data."""
    found = _Found()
    _families(small, large, found)
    _components(small, large, found)
    _random(small, large, found)
    _constraints(small, large, found)
    if not same(design_of(small, "comparison").weights, design_of(large, "comparison").weights):
        found.obstacles.append("the precision weights differ")
    df = large.npar - small.npar
    if df <= 0 and not found.obstacles:
        found.obstacles.append(SAME_SIZE)
    return Extension(
        tuple(found.obstacles), df, tuple(found.cones), tuple(found.scalars), tuple(found.irregular), found.coefficients
    )


def _constraints(small: Fit, large: Fit, found: _Found) -> None:
    """Note what the larger model holds or ties and the smaller one does not."""
    for what in sorted(_constrained(large) - _constrained(small)):
        found.obstacles.append(f"the smaller one does not have {what}, as the larger has")
    found.coefficients |= bound(small) != bound(large)


def _constrained(m: Fit) -> set[str]:
    held = {f"{''.join(name.split())} = {value:g}" for name, value in m.call.wanted.items()}
    return held | {" = ".join(sorted("".join(name.split()) for name in group)) for group in m.call.equal or ()}


# ---- families --------------------------------------------------------------------------------------------------------


def _families(small: Fit, large: Fit, found: _Found) -> None:
    a, b = small.distribution, large.distribution
    if a.link != b.link:
        found.obstacles.append(f"the links differ: {a.link} and {b.link}")
    if a.entry.ordinal and a.threshold != b.threshold and a.threshold not in ARRANGED.get(b.threshold, ()):
        found.obstacles.append(f"the thresholds differ: {a.threshold} and {b.threshold}")
    if a.zero_inflation and not b.zero_inflation:
        found.obstacles.append("the larger one has no zero inflation")
    if a.name == b.name:
        return
    if (a.name, b.name) not in FAMILIES:
        found.obstacles.append(f"the families differ: {a.name} and {b.name}")
    elif FAMILIES[a.name, b.name]:
        found.scalars.append(FAMILIES[a.name, b.name])


# ---- linear predictors -----------------------------------------------------------------------------------------------


def _components(small: Fit, large: Fit, found: _Found) -> None:
    ours, theirs = _parts(small), _parts(large)
    for name, part in ours.items():
        if name not in theirs:
            if small.family == large.family and name != "zero_inflation":
                found.obstacles.append(f"the larger one has no {name}")
            continue
        other = theirs[name]
        if name == "mean" and NOMINAL in theirs:  # one effect at all thresholds is a case of one at each
            other = replace(other, fixed=(*other.fixed, *theirs[NOMINAL].fixed))
        if not spans(other, part, small.nobs):
            found.obstacles.append(f"the columns of the {name} of the smaller one are not among those of the larger")
        found.coefficients |= name == "mean" and len(part.names) < len(other.names)
    if "zero_inflation" in theirs and "zero_inflation" not in ours:
        _zeros(large, theirs["zero_inflation"], found)


def _parts(m: Fit) -> dict[str, Component]:
    """Return every linear predictor by name; a linear model's residual variance as the component that it is."""
    design = design_of(m, "comparison")
    constant = (Component("dispersion", (Block(("(Intercept)",)),)),) if m.task.linear else ()
    return {c.name: c for c in (*design.components, *constant)}


def _zeros(large: Fit, part: Component, found: _Found) -> None:
    random = any(t.component == "zero_inflation" for t in large.layout.terms)
    if part.names == ("(Intercept)",) and not random:
        found.scalars.append("a zero inflation")
    elif large.distribution.truncated:
        found.obstacles.append("a hurdle model does not contain the model of its counts")
    else:
        found.irregular.append("without zero inflation its coefficients have no meaning")


def spans(large: Component, small: Component, n: int) -> bool:
    """Whether the columns of `large` span those of `small` and the difference of their offsets."""
    shift = None if same(large.offset, small.offset) else _offset(large, n) - _offset(small, n)
    left = tuple(b for b in small.fixed if not any(same_block(b, other) for other in large.fixed))
    return within(large.fixed, left, shift, n)


def _offset(part: Component, n: int) -> Array:
    return np.zeros(n) if part.offset is None else np.asarray(part.offset)


def within(basis: Sequence[Block], blocks: Sequence[Block], extra: Array | None, n: int) -> bool:
    """Whether some columns lie in the space of others, from cross-products made in chunks of rows.

    Factors of many levels among the others are swept out of all columns.
    """
    blocks = tuple(b for b in blocks if not any(same_block(b, other) for other in basis))
    if not blocks and extra is None:
        return True
    wide = [wide_of(b) for b in basis if isinstance(b.contrast, Indicators)]
    rest = [b for b in basis if not isinstance(b.contrast, Indicators)]

    def columns(at: slice) -> Array:
        parts = [rows_of(rest, at), rows_of(blocks, at)]
        return np.column_stack(parts if extra is None else [*parts, extra[at]])

    rows, norms = Sweep(wide, whole=False).out_of(columns, n)
    unit = np.maximum(norms, np.sqrt(np.finfo(float).tiny))
    gram = sum((z.T @ z for z in (rows(at) / unit for at in chunks(n))), np.zeros((len(unit), len(unit))))
    p = sum(len(b.names) for b in rest)
    inside = gram[p:, :p] @ np.linalg.pinv(gram[:p, :p], rcond=1e-12, hermitian=True) @ gram[:p, p:]
    return bool((np.diag(gram[p:, p:] - inside) < SPANNED).all())


# ---- random effects --------------------------------------------------------------------------------------------------


def _random(small: Fit, large: Fit, found: _Found) -> None:
    a, b = design_of(small, "comparison"), design_of(large, "comparison")
    names = [[c.name for c in d.components] for d in (a, b)]
    left = [(t, names[0][t.component]) for t in a.terms]
    pairs: list[list[GroupTerm]] = [[] for _ in b.terms]
    for exact in (True, False):
        for t, component in list(left):
            home = _home(t, component, b.terms, names[1], exact, a.n)
            if home is not None:
                pairs[home].append(t)
                left.remove((t, component))
    for t, _ in left:
        found.obstacles.append(_why_not(t, b.terms))
    for i, (term, inside) in enumerate(zip(b.terms, pairs, strict=True)):
        _extended(i, term, inside, found)


def _home(
    term: GroupTerm, component: str, terms: Sequence[GroupTerm], components: Sequence[str], exact: bool, n: int
) -> int | None:
    """Return the term of the larger model that contains a term of the smaller one."""
    for i, other in enumerate(terms):
        if other.label != term.label or components[other.component] != component or not _same_groups(term, other):
            continue
        alike = term.names == other.names and term.structure == other.structure
        if alike and _same_effects(term, other, n) if exact else _fits(term, other, n):
            return i
    return None


def _same_groups(a: GroupTerm, b: GroupTerm) -> bool:
    """Whether two terms put rows into the same groups, whatever these are called, that are related in the same way."""
    if not _same_relation(a.relation, b.relation):
        return False
    if np.array_equal(a.codes, b.codes):
        return True
    return a.relation is None and len(a.levels) == len(b.levels) and is_nested(a.codes, b.codes)


def _same_relation(a: Relation | None, b: Relation | None) -> bool:
    if a is None or b is None:
        return a is b
    return all(np.array_equal(x, y) for x, y in zip(a.arrays, b.arrays, strict=True))


def _same_effects(a: GroupTerm, b: GroupTerm, n: int) -> bool:
    """Whether two terms have the same columns."""
    pairs = zip(a.blocks, b.blocks, strict=False)
    alike = len(a.blocks) == len(b.blocks) and all(same_block(x, y) for x, y in pairs)
    return alike or within(b.blocks, a.blocks, None, n)


def _why_not(term: GroupTerm, terms: Sequence[GroupTerm]) -> str:
    namesakes = [t for t in terms if t.label == term.label]
    if namesakes and not any(_same_groups(term, t) for t in namesakes):
        return f"{term.label!r} groups the rows otherwise in the larger model"
    return f"({' + '.join(term.names[:3])} | {term.label}) is no part of the larger model"


def _fits(term: GroupTerm, other: GroupTerm, n: int) -> bool:
    """Whether a term is a special case of another one."""
    if set(term.names) == set(other.names) and not _same_effects(term, other, n):
        return False
    if set(term.names) == set(other.names):
        return term.structure == other.structure or term.structure in INSIDE.get(other.structure, ())
    if other.structure == "us":
        return within(other.blocks, term.blocks, None, n)
    alone = len(term.names) == 1 or term.structure == "diag"
    fewer = other.structure == "diag" and alone and set(term.names) < set(other.names)
    return fewer and within(other.blocks, term.blocks, None, n)


def _extended(i: int, term: GroupTerm, inside: Sequence[GroupTerm], found: _Found) -> None:
    """Say what a term of the larger model adds to those of the smaller one that it contains."""
    k = len(term.names)
    held = {name for t in inside for name in t.names}
    new = tuple(j for j, name in enumerate(term.names) if name not in held)
    aligned = held <= set(term.names)
    if not aligned:  # columns that are combinations of the larger term's
        new = new[: k - sum(len(t.names) for t in inside)]
    if not new:
        return
    if term.structure == "us" or (k == 1 and term.structure != "equalto"):
        found.cones.append(Cone(i, new, "psd" if len(new) > 1 else "orthant", aligned))
    elif term.structure == "diag":
        found.cones.append(Cone(i, new, "orthant"))
    elif term.structure in ("homdiag", "propto"):
        found.cones.append(Cone(i, (0,), "orthant", False))
    elif term.structure in IRREGULAR:
        found.irregular.append(f"where the variance of ({term.structure} | {term.label}) is 0 its correlation is void")
    else:
        found.obstacles.append(f"({term.structure} | {term.label}) adds no parameter")
