"""Where in the data an outcome is separated: levels of factors, cells of interactions, sides of a number.

What is said is true of the rows, whichever direction of the coefficients the linear program found: every row of the
level, or beyond the number, pushes the predictor the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ranef.diagnose.separation import SCALE, signs
from ranef.engines.estimate import Array
from ranef.engines.overlap import COUNTED, of_bounds
from ranef.families import ZERO as INFLATION
from ranef.families.links import link_of
from ranef.frame.coding import level_name
from ranef.inference.outcomes import of_outcomes

if TYPE_CHECKING:
    from ranef.frame import Block
    from ranef.frame.blocks import TermPlan
    from ranef.model import Fit

MOST = 4  # places that are listed

Side = tuple[NDArray[np.bool_], str]  # which rows lie there, and what is said where all do


def places(m: Fit, names: Sequence[str]) -> list[str]:
    """Return where the outcome is the same in all rows, for the terms of the columns that separate it."""
    if m.design is None or m.distribution.custom is not None:
        return []
    m = of_outcomes(m)
    found = list(
        dict.fromkeys(place for component in range(len(m.layout.components)) for place in _of(m, component, names))
    )
    more = [f"and {len(found) - MOST} more"] if len(found) > MOST else []
    return found[:MOST] + more


def _of(m: Fit, component: int, names: Sequence[str]) -> Iterator[str]:
    """Yield the places of one component."""
    part, design = m.layout.components[component], m.design
    assert design is not None
    prefix = f"{part.name}." if component or m.distribution.entry.nominal else ""
    mine = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    if not mine or part.name == "threshold" or component >= len(design.components):
        return
    plans = m.spec.fixed if not component else next((p.fixed for p in m.spec.parts if p.name == part.name), ())
    blocks, at = design.components[component].fixed, 0
    sides = _sides(m, component)
    for plan in plans:
        own, at = blocks[at : at + plan.blocks], at + plan.blocks
        if mine & {name for block in own for name in block.names}:
            yield from _of_term(m, plan, own, sides)


def _sides(m: Fit, component: int) -> Sequence[Side]:
    """Return the sides to which a predictor may be pushed."""
    y = np.asarray(m.design.y) if m.design is not None else np.empty(0)
    labels, name = m.spec.categories, m.layout.components[component].name
    if m.distribution.categorical:
        every = m.distribution.entry.nominal or name == SCALE
        return [(y == k, repr(labels[k])) for k in (range(len(labels)) if every else (0, len(labels) - 1))]
    sign = signs(m, component)
    if name == INFLATION:
        return [(sign == 1, "0"), (sign == -1, "no 0")]
    if name != "mean":
        return [(sign == 1, f"{name} always"), (sign == -1, f"{name} never")]
    assert m.design is not None
    beyond = (
        []
        if m.design.censor is None
        else [
            (m.design.censor == at, f"{says} censored")
            for at, says, to in zip((-1, 1), ("left", "right"), of_bounds(m.distribution, name, component), strict=True)
            if to
        ]
    )
    if m.distribution.entry.support in COUNTED:
        least = "the least possible" if m.distribution.bounded else "1" if m.distribution.truncated else "0"
        return [*beyond, (sign == link_of(m.link).zero, least)]
    if beyond:
        return beyond
    if m.distribution.entry.support == "binomial" and m.design.trials is not None:
        return [(sign == 1, "only successes"), (sign == -1, "no success")]
    zero, one = (repr(label) for label in labels) if len(labels) == 2 else ("0", "1")
    return [(sign == 1, one), (sign == -1, zero)]


def _of_term(m: Fit, plan: TermPlan, blocks: Sequence[Block], sides: Sequence[Side]) -> Iterator[str]:
    labels = [f.label for f in plan.factors]
    if len(labels) == 1 and labels[0] not in m.spec.factors:
        if len(blocks) == 1 and blocks[0].x is not None:
            yield from _along(labels[0], np.asarray(blocks[0].x), sides)
    elif labels and all(label in m.spec.factors for label in labels) and blocks[0].codes is not None:
        yield from _within(m, labels, np.asarray(blocks[0].codes), sides)


def _within(m: Fit, labels: Sequence[str], codes: Array, sides: Sequence[Side]) -> Iterator[str]:
    """Yield the levels of a factor, or cells of several, whose rows lie on one side."""
    levels = [m.spec.factors[label].levels for label in labels]
    counts = np.bincount(codes)
    for rows, says in sides:
        inside = np.bincount(codes[rows], minlength=len(counts))
        for cell in np.flatnonzero((counts > 0) & (inside == counts)).tolist():
            at = np.unravel_index(cell, [len(part) for part in reversed(levels)])[::-1]  # the first varies fastest
            names = [level_name(part[int(k)]) for part, k in zip(levels, at, strict=True)]
            place = " with ".join(f"{name!r} of {label!r}" for name, label in zip(names, labels, strict=True))
            yield f"{place}: {says} in {_rows(counts[cell])}"


def _along(label: str, x: Array, sides: Sequence[Side]) -> Iterator[str]:
    """Yield what lies above and below a number, where the sides meet at one value."""
    for towards, beyond, before in ((1.0, "above", "below"), (-1.0, "below", "above")):
        for rows, says in sides:
            z = towards * x
            cut = np.max(z[~rows], initial=-np.inf)
            outer, inner = z > cut, z < cut
            opposite = next((words for other, words in sides if other is not rows and other[inner].all()), None)
            if not np.isfinite(cut) or not outer.any() or (inner.any() and opposite is None):
                continue
            rest = f", {opposite} in {_rows(inner.sum())} {before}" if inner.any() else ""
            yield f"{label!r}: {says} in {_rows(outer.sum())} {beyond} {towards * cut:g}{rest}"
            return


def _rows(count: int) -> str:
    return f"all {count} rows" if count > 1 else "its one row"
