"""A fit to counts of categories as one to single outcomes, which what looks at categories row by row takes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ranef.frame.outcomes import by_outcome
from ranef.inference.memory import remembered

if TYPE_CHECKING:
    from ranef.model import Fit


def of_outcomes(m: Fit) -> Fit:
    """Return the same fit with a row for every category that a row has counts of, its frequency the count.

    Its density lacks the numbers of orders of the outcomes. Fits to single outcomes are returned as they are.
    """
    return _of_outcomes(m) if m.design is not None and m.distribution.counts else m


@remembered
def _of_outcomes(m: Fit) -> Fit:
    assert m.design is not None
    design = by_outcome(m.design)
    task = replace(m.task, family=replace(m.distribution, counts=False))
    return replace(m, design=design, task=task, layout=replace(m.layout, n=design.n, n_input=design.n_input))
