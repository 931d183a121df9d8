"""Conditional modes of the random effects, their covariances, and their sum with the fixed effects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines.estimate import Array
from ranef.engines.parameters import unique
from ranef.errors import OptionError, nearest
from ranef.formula.groups import ByGroup
from ranef.inference.frames import to_frame
from ranef.inference.relatives import knowing, lacking

if TYPE_CHECKING:
    from ranef.model import Fit


def grouped(m: Fit) -> dict[str, list[int]]:
    """Return grouping factor -> its terms, in order; terms of other components as "zero_inflation:site"."""
    out: dict[str, list[int]] = {}
    for i, term in enumerate(m.layout.terms):
        out.setdefault(term.key, []).append(i)
    return out


def ranef(m: Fit, std_error: bool, covariance: bool, which: str = "model") -> dict[str, Any]:
    """One frame per grouping factor: `level`, the modes (of a column "level": `level_`), and their uncertainty."""
    if which not in ("model", "related"):
        raise OptionError(f"ranef: levels={which!r} is unknown; {nearest(which, ('model', 'related'))}")
    m = knowing(m, lacking(m)) if which == "related" else m
    kind = m.layout.kind
    return ByGroup({g: to_frame(_frame(m, terms, std_error, covariance), kind) for g, terms in grouped(m).items()})


def _frame(m: Fit, terms: list[int], std_error: bool, covariance: bool) -> dict[str, Any]:
    names = unique([n for i in terms for n in m.layout.terms[i].names])
    modes = np.column_stack([m.estimate.modes[i] for i in terms])
    out = {"level": labels(m, terms[0]), **_beside_level(dict(zip(names, modes.T.copy(), strict=True)))}
    if std_error or covariance:
        first = 0
        for i in terms:
            k = len(m.layout.terms[i].names)
            cov = np.asarray(m.core.cond_cov(i))
            out |= _uncertainty(names[first : first + k], cov, std_error, covariance)
            first += k
    return out


def _uncertainty(names: tuple[str, ...], cov: Array, std_error: bool, covariance: bool) -> dict[str, Array]:
    k = len(names)
    sd = {f"std_error__{names[j]}": np.sqrt(cov[:, j, j]) for j in range(k)} if std_error else {}
    cells = [(i, j) for j in range(k) for i in range(j, k)] if covariance else []
    return sd | {f"cov__{names[j]}.{names[i]}": cov[:, i, j].copy() for i, j in cells}


def labels(m: Fit, term: int) -> list[Any]:
    """Return the levels of a term."""
    return list(m.layout.terms[term].levels)


def coef(m: Fit) -> dict[str, Any]:
    """One frame per grouping factor: `level`, and every coefficient of that level (fixed + random)."""
    return ByGroup({g: to_frame(_coef_frame(m, terms), m.layout.kind) for g, terms in grouped(m).items()})


def _coef_frame(m: Fit, terms: list[int]) -> dict[str, Any]:
    levels = len(m.layout.terms[terms[0]].levels)
    part = m.layout.component(m.layout.terms[terms[0]].component)
    out = {name: np.full(levels, beta) for name, beta in zip(part.names, m.estimate.beta[part.at], strict=True)}
    for i in terms:
        for name, mode in zip(m.layout.terms[i].names, m.estimate.modes[i].T, strict=True):
            out[name] = out.get(name, np.zeros(levels)) + mode
    return {"level": labels(m, terms[0]), **_beside_level(out)}


def _beside_level(columns: dict[str, Array]) -> dict[str, Array]:
    """Return the columns; one named as that of the labels gets a trailing underscore."""
    return {"level_" if name == "level" else name: values for name, values in columns.items()}
