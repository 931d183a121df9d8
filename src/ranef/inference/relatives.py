"""Levels that K of `cov=` relates to those of the data, and that have no data: their effects given the others'.

With o the levels of the data and n others, b_n given b_o has the mean K_no K_oo^-1 b_o whatever Sigma is, as
b ~ N(0, K (x) Sigma), and so goes the mode given the data: levels without data leave the likelihood alone (Henderson
1977). A fit that knows them is the same fit with longer terms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ranef.engines.estimate import Array
from ranef.frame.coding import level_name
from ranef.frame.design import Levels
from ranef.frame.kernels import small_int
from ranef.frame.relations import read_relation, related

if TYPE_CHECKING:
    from ranef.model import Fit


def lacking(m: Fit) -> dict[int, list[str]]:
    """Return for every term with a covariance between its levels the names of those without data, in the order of K."""
    out: dict[int, list[str]] = {}
    for t in relations(m):
        known = set(map(level_name, m.layout.terms[t].levels))
        out[t] = [name for name in _matrix(m, t)[1] if name not in known]
    return out


def relations(m: Fit) -> list[int]:
    """Return the terms whose levels a covariance relates; none of a slim fit, whose rows are needed."""
    if m.design is None or not m.call.between_levels:
        return []
    known = m.call.between_levels
    related = [t for t, term in enumerate(m.design.terms) if term.relation is not None and term.label in known]
    return [t for t in related if m.spec.bars[t].keys is None]


def _matrix(m: Fit, t: int) -> tuple[Any, tuple[str, ...]]:
    label = m.layout.terms[t].label
    return read_relation(f"cov={{{label!r}: K}}", m.call.between_levels[label])


def knowing(m: Fit, wanted: Mapping[int, Sequence[str]]) -> Fit:
    """Return the fit with further levels of some terms, which K relates to theirs.

    Raises
    ------
    DataError
        If K is singular with them: a level may be the copy of another one.
    """
    wanted = {t: more for t, more in wanted.items() if len(more)}
    if not wanted or m.design is None:
        return m
    terms, bars, infos = list(m.design.terms), list(m.spec.bars), list(m.layout.terms)
    modes = list(m.estimate.modes)
    for t, more in wanted.items():
        label, term = infos[t].label, terms[t]
        own = term.levels.tolist()
        levels = Levels.of([*own, *(_like(own[0], name) for name in more)])
        found = related(label, levels, m.call.between_levels, {}, grows=True)
        assert found is not None
        modes[t] = np.vstack([modes[t], expected(m, t, more)])
        codes = np.asarray(term.codes).astype(small_int(len(levels)))
        terms[t] = replace(term, levels=levels, codes=codes, relation=found[0])
        bars[t] = replace(bars[t], levels=levels, parts=(levels,))
        infos[t] = replace(infos[t], levels=levels)
    design, estimate = replace(m.design, terms=tuple(terms)), replace(cast("Any", m.estimate), modes=tuple(modes))
    core = m.engine.restore(m.engine.save(m.core, m.estimate), estimate, design, m.task)
    return replace(
        m, spec=replace(m.spec, bars=tuple(bars)), layout=replace(m.layout, terms=tuple(infos)),
        estimate=estimate, core=core, design=design,
    )  # fmt: skip


def _like(label: Any, name: str) -> Any:
    """Return a name as a label of the kind that the data have."""
    return type(label)(name) if isinstance(label, int | float) and not isinstance(label, bool) else name


def expected(m: Fit, t: int, more: Sequence[str]) -> Array:
    """Return K_no K_oo^-1 b_o, the effects of further levels given those of the fit, (levels, k)."""
    assert m.design is not None
    term = m.design.terms[t]
    assert term.relation is not None
    matrix, names = _matrix(m, t)
    at = {name: i for i, name in enumerate(names)}
    new, old = [at[name] for name in more], [at[level_name(label)] for label in term.levels.tolist()]
    return np.asarray(matrix[new][:, old] @ (term.relation.precision() @ m.estimate.modes[t]))
