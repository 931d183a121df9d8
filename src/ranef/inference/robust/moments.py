"""Z'V^-1 X and Z'V^-1 residuals by level, and the list of variances and covariances of a linear model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ranef.engines.estimate import Array
from ranef.engines.linear import cells
from ranef.engines.parameters import of_column, of_pair, spelled
from ranef.frame.design import matrix
from ranef.inference.crossproducts import against
from ranef.inference.robust.working import working
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.model import Fit

RESIDUAL = "sigma2"


@dataclass(frozen=True, slots=True)
class Entry:
    """The entry (i, j), i >= j, of the covariance matrix of a term."""

    term: int
    i: int
    j: int
    label: str


def entries(m: Fit) -> list[Entry]:
    """Return variances and covariances of the terms in the order of theta: "var(Days | Subject)", "cov(…)"."""
    return [
        Entry(t, i, j, spelled("var", of_column(term.names[i]), term.key, False)[0] if i == j else
              spelled("cov", of_pair(term.names[j], term.names[i]), term.key, False)[0])
        for t, term in enumerate(m.layout.terms)
        for i, j in cells(len(term.names), term.structure)
    ]  # fmt: skip


def levels_times(m: Fit) -> list[tuple[Array, Array]]:
    """Return Z_l'V^-1 X, (L, k, r), and Z_l'V^-1 e, (L, k), of every term."""
    design, w = design_of(m, "scores"), working(m)
    right = np.column_stack([w.solved, w.white])
    found = (against(t, matrix(t.blocks, design.n), right) for t in design.terms)
    return [(a[..., :-1], a[..., -1]) for a in found]


def precision(m: Fit) -> Array | float:
    """Return the weights of the rows, 1 without."""
    design = design_of(m, "scores")
    return 1.0 if design.weights is None else np.asarray(design.weights, dtype=np.float64)
