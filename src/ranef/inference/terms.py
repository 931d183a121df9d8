"""The terms of a linear predictor as columns of the model matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ranef.errors import OptionError
from ranef.formula import Factor, Term

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ranef.frame import Block
    from ranef.frame.blocks import TermPlan
    from ranef.model import Fit


def is_linear_model(m: Fit) -> bool:
    """Whether the model is a linear (mixed) one, whatever engine fitted it: a normal response, an identity link."""
    if m.task.linear:
        return True
    plain = m.distribution.is_gaussian_identity and not m.formula.censored
    return plain and m.method != "pql" and all(t.component == "mean" for t in m.layout.terms)


@dataclass(frozen=True, slots=True)
class FixedTerm:
    """A term of the fixed part.

    Attributes
    ----------
    label : str
        As tables name it: "recipe:temperature"; "(Intercept)".
    factors : tuple of Factor
        Its variables; none for the intercept.
    columns : slice
        Where its coefficients stand among those of all components.
    blocks : slice
        Where its blocks stand in its component.
    """

    label: str
    factors: tuple[Factor, ...]
    columns: slice
    blocks: slice

    @property
    def key(self) -> frozenset[str]:
        """The labels of its variables."""
        return frozenset(f.label for f in self.factors)

    def pick(self, blocks: Sequence[Block]) -> list[Block]:
        """Return its blocks among those of the component."""
        return list(blocks[self.blocks])


def plans_of(m: Fit, component: str) -> tuple[TermPlan, ...]:
    """Return the plans of the terms of a component."""
    if component == "mean":
        return m.spec.fixed
    return next((part.fixed for part in m.spec.parts if part.name == component), ())


def fixed_terms(m: Fit, component: str) -> tuple[FixedTerm, ...]:
    """Return the terms of a component in the order of its coefficients."""
    if component == "mean" and m.distribution.entry.nominal:
        known = ", ".join(repr(level) for level in m.distribution.levels)
        raise OptionError(
            f"a model of family={m.family!r} has the terms once for each category: give component=, one of {known}; or "
            f"rf.drop1(m) for likelihood-ratio tests over all of them"
        )
    out: list[FixedTerm] = []
    column, block = m.layout.component(component).first, 0
    for plan in plans_of(m, component):
        label = Term(plan.factors).label if plan.factors else "(Intercept)"
        columns, blocks = slice(column, column + plan.columns), slice(block, block + plan.blocks)
        out.append(FixedTerm(label, plan.factors, columns, blocks))
        column, block = columns.stop, blocks.stop
    return tuple(out)
