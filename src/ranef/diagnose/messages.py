"""Quiet notes on a fit, as data: what was dropped, what lies on the boundary, common pitfalls of such models.

A pitfall is one function `fit -> messages` and one entry of `CHECKS`. It must be sure of what it says: a note that is
often wrong teaches users not to read notes. Nothing here warns or prints.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.diagnose.boundary import advice
from ranef.engines.nesting import BEYOND, most_nodes
from ranef.formula import INTERCEPT
from ranef.formula.functions import PLAIN
from ranef.frame import Indicators, matrix
from ranef.frame.checks import too_few_inside
from ranef.frame.design import why_dropped
from ranef.frame.table import AS_MISSING, FEW_NUMBERS, is_number, read_table, shorten, strays, where_found
from ranef.inference.ddf.strata import constant_within, is_constant
from ranef.inference.named import names_of

if TYPE_CHECKING:
    from ranef.frame import Block, GroupTerm
    from ranef.model import Fit

CONSTANT = "(Intercept)"  # what the column of ones is called
FEW_LEVELS = 5
MOST_NAMES = 20
MOST_WORK = 100_000_000  # operations that a note may cost
RAN_OFF = 9.0  # a standard deviation of log odds, or of logarithms, that makes everything certain
ROUNDING = 1e-9  # what least squares leave of a vector that lies in the columns' span


@dataclass(frozen=True, slots=True)
class Message:
    """One note.

    Attributes
    ----------
    code : str
        Stable name to select by: "rows_dropped", "few_levels", …
    text : str
        The sentence.
    evidence : dict
        The figures behind it.
    """

    code: str
    text: str
    evidence: dict[str, Any]

    def __str__(self) -> str:
        return self.text


def messages(m: Fit) -> tuple[Message, ...]:
    """All notes on a fit; of a slim fit those taken before its rows went."""
    if m.digest:
        return m.digest.messages
    from ranef.diagnose import alike, clusters, flat, generalised, identified, offsets

    rooms = (generalised, offsets, clusters, alike, identified, flat)
    checks = (*CHECKS, *(check for room in rooms for check in room.CHECKS))
    return tuple(note for check in checks for note in check(m))


def held(m: Fit) -> tuple[str, ...]:
    """Return the components of a generalised model that have no coefficients: held at a value, or known by row."""
    return () if m.task.linear else tuple(c.name for c in m.layout.components if not c.names)


def row_effect(m: Fit) -> bool:
    """Whether the mean has a random effect of every row."""
    first = m.layout.components[0].name if m.distribution.counts else "mean"
    return any(len(t.levels) >= m.nobs and t.component == first for t in m.layout.terms)


def rows_dropped(m: Fit) -> Iterator[Message]:
    """Rows removed for missing values, or as their frequency weight is 0."""
    gone = m.layout.n_input - m.layout.n
    if gone:
        columns = dict(m.layout.dropped)
        listed = ", ".join(f"{name}: {count}" for name, count in columns.items())
        text = f"{gone} of {m.layout.n_input} rows dropped for {why_dropped(columns)} ({listed})"
        yield Message("rows_dropped", text, {"rows": gone, "columns": columns})


def categories_absent(m: Fit) -> Iterator[Message]:
    """Categories that the response declares and no row has: they have no threshold, and the others are neighbours."""
    absent = [] if m.design is None else list(m.design.absent)
    if absent:
        what, verb = ("category", "is") if len(absent) == 1 else ("categories", "are")
        text = (
            f"response {m.layout.response!r}: no row has the {what} {shorten(absent, 8)}, which {verb} no part of the "
            f"model; it has {shorten(list(m.spec.categories), 12)}"
        )
        yield Message("categories_absent", text, {"absent": absent, "categories": list(m.spec.categories)})


def columns_dropped(m: Fit) -> Iterator[Message]:
    """Return fixed columns removed as linearly dependent."""
    everything = names_of(m, "all")[0]
    names = [everything[j] for j in m.estimate.dropped]
    if names:
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        others = "others" if any(plan.wide for plan in m.spec.fixed) else "earlier ones"
        others += " or on the thresholds, which are constants" if m.distribution.entry.ordinal else ""
        listed = ", ".join(names[:MOST_NAMES])
        text = f"fixed effects dropped because they depend linearly on {others}: {listed}{more}"
        yield Message("columns_dropped", text, {"columns": names})


def on_boundary(m: Fit) -> Iterator[Message]:
    """Singular covariances."""
    for b in m.boundary:
        yield Message(
            "boundary", f"boundary: {b.text}{advice(m, b)}", {"group": b.group, "rank": b.rank, "size": b.size}
        )


def not_converged(m: Fit) -> Iterator[Message]:
    """Return that the certificate fails."""
    if not m.converged:
        c = m.certificate
        text = f"{c.outcome.value}{_way_out(m)}"
        yield Message("not_converged", text, {"decrease": c.decrease, "curvature": c.curvature})


def _way_out(m: Fit) -> str:
    """Return what to do where the criterion has no optimum."""
    outcome = m.certificate.outcome.name
    if outcome == "unbounded":
        if m.design is not None and too_few_inside(m.design, m.distribution.entry.name):
            return " as the precision grows: the mean can fit all responses inside (0, 1) exactly; hold the dispersion"
        return (
            " towards a singular covariance, as the random effects can fit some groups exactly; take a structure of "
            "fewer parameters, or hold the residual variance"
        )
    if outcome == "flat_mode":
        laplace = m.task.quadrature == 1 and m.method == "ml"
        nodes = most_nodes(m.design, BEYOND) if laplace and m.design is not None else 1
        wider = f"quadrature={nodes} integrates beyond the mode; else " if nodes > 1 else ""
        about = "".join(f": {text}" for text in _outside_the_mean(m, 0.0)[:1])
        return f"; {wider}leave out what the data say too little about{about}"
    return "".join(f", as {text} ran off: leave them out" for text in _outside_the_mean(m, RAN_OFF)[:1])


def _outside_the_mean(m: Fit, least: float) -> list[str]:
    """Return the random effects of components other than the mean, whose modes may become flat, the largest first."""
    found: list[tuple[float, str]] = []
    for t, factor in zip(m.layout.terms, m.estimate.roots, strict=True):
        outside = {component: i for i, component in enumerate(t.components) if component != "mean"}
        sd = max((float(np.linalg.norm(factor[i])) for i in outside.values()), default=0.0)
        if outside and sd > least:
            found.append((sd, f"the effects of {t.label!r} in {', '.join(outside)} (standard deviation {sd:.3g})"))
    return [] if m.distribution.entry.nominal else [text for _, text in sorted(found, reverse=True)]


def without_bound(m: Fit) -> Iterator[Message]:
    """Return that the likelihood rises for ever elsewhere."""
    if m.converged and getattr(m.estimate, "unbounded", False):
        text = (
            "the likelihood has no bound: it rises for ever towards a singular covariance that fits the rows of some "
            "groups exactly, without a residual; reported is the best optimum found inside. Take a structure of fewer "
            "parameters, or hold the residual"
        )
        yield Message("unbounded", text, {"loglik": m.loglik})


def left_a_pole(m: Fit) -> Iterator[Message]:
    """Return that the likelihood has no optimum where the first search went."""
    pole = getattr(m.estimate, "pole", None)
    if pole is None:
        return
    beside = f" (log-likelihood {pole:.2f} beside it)" if np.isfinite(pole) else ""
    place = f"the Laplace approximation has a pole{beside}, where random effects have a nearly flat mode"
    if m.converged:
        text = f"{place}; reported is the regular optimum that another search found"
    else:
        outside = [(t.label, c) for t in m.layout.terms for c in t.components if c != "mean"]
        where = list(dict.fromkeys(f"{label} in {component}" for label, component in outside))
        text = (
            f"{place}, and rises to it from any variance of the effects of {', '.join(where)}, which therefore has no "
            f"estimate: reported are the other parameters without these effects, and their standard errors there"
        )
    yield Message("pole", text, {"loglik": pole})


def few_levels(m: Fit) -> Iterator[Message]:
    """P1: a grouping factor with fewer than 5 levels; a structure over many columns has its replicates in them."""
    counted = [t for t in m.layout.terms if t.structure in PLAIN or len(t.names) < FEW_LEVELS]
    for label, levels in {t.label: len(t.levels) for t in counted}.items():
        if levels < FEW_LEVELS:
            text = (
                f"{label!r} has {levels} levels: its variance is barely estimable (biased downwards); consider a fixed "
                f"effect or a weak prior"
            )
            yield Message("few_levels", text, {"group": label, "levels": levels})


#: Structures without correlations.
INDEPENDENT = ("diag", "homdiag", "id")


def constant_slope(m: Fit) -> Iterator[Message]:
    """P15: a varying predictor that is constant within every group."""
    for term in m.design.terms if m.design else ():
        for block in term.blocks:
            if block.x is not None and block.codes is None and constant_within(term, np.asarray(block.x)):
                name, values = block.names[0], len(np.unique(np.abs(np.asarray(block.x))))
                told = "is known only from how far apart groups of different values are, not from slopes"
                why = "is not identifiable" if values < _needed(term, m.design.terms if m.design else ()) else told
                text = f"{name!r} does not vary within {term.label!r}: its slope variance {why}"
                yield Message("constant_slope", text, {"group": term.label, "column": name})


def _needed(term: GroupTerm, terms: Sequence[GroupTerm]) -> int:
    """Return how many values of a predictor tell a variance along it from that of a constant."""
    if CONSTANT in term.names:
        return 3 if term.structure == "us" else 2
    return 2 if any(t.label == term.label and CONSTANT in t.names for t in terms if t is not term) else 1


def constant_factor(m: Fit) -> Iterator[Message]:
    """P15: a factor that is constant within every group: a variance for each of its levels is all that can be told."""
    terms = m.design.terms if m.design else ()
    for term in terms:
        factors = [b for b in term.blocks if b.x is None and b.codes is not None and is_constant(b, term)]
        names = [name for block in factors for name in block.names]
        constants = len(names) + (CONSTANT in term.names)
        if names and constants > 1 and term.structure not in INDEPENDENT and term.structure != "us":
            text = (
                f"{shorten(names, 4)} do not vary within {term.label!r}: correlations of these effects are not "
                f"identified, only variances; (0 + factor || {term.label}) alone has one for each level"
            )
            yield Message("constant_slope", text, {"group": term.label, "columns": names})
            continue
        if not names or not (constants > 1 if term.structure == "us" else _constant_beside(term, terms)):
            continue
        text = (
            f"{shorten(names, 4)} {'does' if len(names) == 1 else 'do'} not vary within {term.label!r}: variances and "
            f"covariances of these effects are not identified, only one variance for each level of the factor; "
            f"(0 + factor || {term.label}) alone has these, (1 | {term.label}) one for all"
        )
        yield Message("constant_slope", text, {"group": term.label, "columns": names})


def _constant_beside(term: GroupTerm, terms: Sequence[GroupTerm]) -> bool:
    """Whether another term adds a constant to the groups whose independent effects of all levels a term has."""
    where = (term.label, term.component)
    others = [t for t in terms if t is not term and (t.label, t.component) == where and t.structure in PLAIN]
    return term.structure == "diag" and CONSTANT not in term.names and any(CONSTANT in t.names for t in others)


def reused_labels(m: Fit) -> Iterator[Message]:
    """P17: a factor whose labels start anew within another one, given as crossed.

    Sure only where the numbers of labels differ between groups and every group uses the first ones: chance or a crossed
    design would not do that.
    """
    terms = {t.label: t for t in (m.design.terms if m.design else ()) if ":" not in t.label}
    for outer, inner in permutations(terms.values(), 2):
        if _starts_anew(outer, inner):
            text = (
                f"labels of {inner.label!r} start anew within every {outer.label!r}: if it is nested, write "
                f"(1 | {outer.label}/{inner.label}) or make its labels unique"
            )
            yield Message("reused_labels", text, {"outer": outer.label, "inner": inner.label})


def _starts_anew(outer: GroupTerm, inner: GroupTerm) -> bool:
    cells = len(outer.levels) * len(inner.levels)
    if len(outer.levels) < 3 or len(inner.levels) < 3 or cells > 1_000_000:
        return False
    used = np.zeros((len(outer.levels), len(inner.levels)), dtype=bool)
    used[outer.codes, inner.codes] = True
    used = used[:, np.argsort(_natural(inner.levels), kind="stable")]
    counts = used.sum(axis=1)
    prefix = used == (np.arange(used.shape[1]) < counts[:, None])
    return bool(prefix.all()) and len(set(counts.tolist())) > 1 and int(counts.min()) >= 2


def _natural(levels: Any) -> Any:
    """Positions that sort labels as numbers where they are numbers."""
    text = [str(v) for v in levels]
    order = sorted(range(len(text)), key=lambda i: (len(text[i]), text[i]) if text[i].isdigit() else (0, text[i]))
    rank = np.empty(len(text), dtype=int)
    rank[order] = np.arange(len(text))
    return rank


def cell_confounded(m: Fit) -> Iterator[Message]:
    """P19: an interaction group with (nearly) one observation per cell, beside a variance that is not known."""
    known = "dispersion" in held(m)
    for term in m.layout.terms:
        levels = len(term.levels)
        if ":" in term.label and levels > 0.9 * m.nobs and not known:
            text = f"{term.label!r} has {levels} cells for {m.nobs} observations: nearly confounded with the residual"
            yield Message("cell_confounded", text, {"group": term.label, "levels": levels, "nobs": m.nobs})


def numeric_group(m: Fit) -> Iterator[Message]:
    """P20: a grouping column that holds measurements rather than labels."""
    for label, levels in {t.label: t.levels for t in m.layout.terms}.items():
        if len(levels) and _measured(levels):
            text = f"{label!r} is numeric with {len(levels)} unique values; treated as categorical"
            yield Message("numeric_group", text, {"group": label, "levels": len(levels)})


def _measured(levels: Any) -> bool:
    values = np.asarray(levels)
    return bool(values.dtype.kind == "f" and (values != np.floor(values)).any())


def text_numbers(m: Fit) -> Iterator[Message]:
    """Return that measurements written as text, or numbers that some text spoils, are taken as a factor."""
    for label, state in m.spec.factors.items():
        text = [v for v in state.levels if isinstance(v, str)]
        odd = strays(text)
        points = sum("." in v for v in text)
        measured = len(text) >= FEW_NUMBERS and all(map(is_number, text)) and points > len(text) / 2
        if odd or measured:
            taken = f"it is taken as a factor of {len(text)} levels"
            but = f", and {_where_found(m, label, odd)}: {taken}; if it is none, convert the column{AS_MISSING}"
            says = f"{label!r} is text that holds numbers{but if odd else f': {taken}'}"
            yield Message("text_numbers", says, {"column": label, "levels": len(state.levels), "strays": odd})


def _where_found(m: Fit, label: str, odd: list[str]) -> str:
    """Return texts and the rows of the data that have them, where the fit has the column."""
    table = None if m.data is None else read_table(m.data)
    return shorten(odd, 3) if table is None or label not in table.names else where_found(table.column(label), odd)


def fixed_and_grouping(m: Fit) -> Iterator[Message]:
    """P71: a grouping factor whose levels the fixed effects tell apart, and its own random intercept."""
    fixed = {t.factors[0].bare for t in m.formula.fixed if t.degree == 1}
    design = m.design
    grouped = {bar.label for bar in m.formula.bars if INTERCEPT in bar.terms}
    if design is None:
        return
    for term in design.terms:
        label = term.label
        if label not in grouped or term.structure not in PLAIN:
            continue
        if label in fixed and _is_factor(label, design.fixed, m):
            why = f"{label!r} appears fixed and as grouping"
        elif _told_apart(term, design.fixed, design.n):
            why = f"the fixed effects tell the levels of {label!r} apart"
        else:
            continue
        grouped.remove(label)
        text = f"{why}: the variance of its intercept is not identifiable"
        yield Message("fixed_and_grouping", text, {"group": label})


def _told_apart(term: GroupTerm, fixed: tuple[Block, ...], n: int) -> bool:
    """Whether effects of the levels are sums of fixed columns: random ones are, with certainty, if all are."""
    p = sum(len(b.names) for b in fixed)
    if len(term.levels) > p or n * p * p > MOST_WORK or any(isinstance(b.contrast, Indicators) for b in fixed):
        return False
    x = matrix(fixed, n)
    x = x / np.maximum(np.linalg.norm(x, axis=0), np.finfo(float).tiny)
    effects = np.random.default_rng(0).standard_normal(len(term.levels))[term.codes]
    left = effects - x @ np.linalg.lstsq(x, effects)[0]
    return bool(np.linalg.norm(left) < ROUNDING * np.linalg.norm(effects))


def _is_factor(label: str, blocks: tuple[Block, ...], m: Fit) -> bool:
    levels = next((len(t.levels) for t in m.layout.terms if t.label == label), 0)
    return any(b.codes is not None and b.x is None and len(b.names) >= levels - 1 for b in blocks)


def two_intercepts(m: Fit) -> Iterator[Message]:
    """P72: (1 | g) + (x | g)."""
    with_intercept = [bar.label for bar in m.formula.bars if INTERCEPT in bar.terms]
    for label in dict.fromkeys(g for g in with_intercept if with_intercept.count(g) > 1):
        text = f"two random intercepts for {label!r}: write (x || {label}) or (0 + x | {label}) for the slope"
        yield Message("two_intercepts", text, {"group": label})


def lone_double_bar(m: Fit) -> Iterator[Message]:
    """P73: (1 || g)."""
    for bar in m.formula.bars:
        if bar.structure == "diag" and bar.terms == (INTERCEPT,):
            text = f"(1 || {bar.label}) equals (1 | {bar.label})"
            yield Message("lone_double_bar", text, {"group": bar.label})


def lone_power(m: Fit) -> Iterator[Message]:
    """Return that x^2 outside I() is x: powers cross terms, and a term crossed with itself is itself."""
    text = re.sub(r"`[^`]*`", ")", m.formula.text).partition("~")[2]
    while (outside := re.sub(r"[\w.]+\([^()|]*\)", ")", text)) != text:  # inside calls arithmetic is arithmetic
        text = outside
    for power in dict.fromkeys(re.findall(r"(?<![\w.)^*])[^\W\d][\w.]*\s*(?:\^|\*\*)\s*\d+", text)):
        name = re.split(r"[\s^*]", power)[0]
        note = f"{power} is {name} in a formula, where powers cross terms: I({name}^…) is arithmetic"
        yield Message("lone_power", note, {"term": power})


CHECKS: tuple[Callable[[Fit], Iterator[Message]], ...] = (
    rows_dropped,
    categories_absent,
    columns_dropped,
    on_boundary,
    not_converged,
    left_a_pole,
    without_bound,
    few_levels,
    constant_slope,
    constant_factor,
    reused_labels,
    cell_confounded,
    numeric_group,
    text_numbers,
    fixed_and_grouping,
    two_intercepts,
    lone_double_bar,
    lone_power,
)
