"""What a bootstrap of a fit does not tell, as notes on its replicates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ranef.inference.noted import Note
from ranef.inference.resampling import drawn_levels, hierarchy
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.model import Fit

FEW_GROUPS = 10  # fewer independent groups drawn with replacement: too few different samples for quantiles


def limits(m: Fit, kind: str, levels: Any = None) -> Iterator[Note]:
    """Yield the notes on a bootstrap of some kind; `levels` are those of cases.

    Resampling rows alone ignores that those of a group depend on each other (P58 of Bolker's GLMM FAQ).
    """
    if kind == "cases":
        yield from _of_cases(m, levels)
    if kind == "parametric" and m.separation:
        text = (
            f"the outcome is separated by {', '.join(m.separation)}: the fit gives probabilities of 0 and 1, responses "
            f"drawn from it do not vary, and standard errors and intervals say nothing; see penalty='firth' or prior="
        )
        yield Note("separated", text)
    if kind == "parametric" and m.call.sampling_weights is not None:
        text = (
            "responses are drawn from the model for the rows as they are: that rows were selected with unequal "
            "probabilities is not in the replicates; the standard errors of the fit are robust to it"
        )
        yield Note("survey", text)
    if m.call.has_priors or m.call.penalty:
        text = (
            "replicates are fitted with the same priors: their spread is that of the estimator, shrunken and biased "
            "towards the priors, not a posterior"
        )
        yield Note("prior", text)


def _of_cases(m: Fit, levels: Any) -> Iterator[Note]:
    design = design_of(m, "bootstrap")
    chain, crossed = hierarchy(design)
    asked = drawn_levels(design, levels)
    if chain and asked == ["rows"]:
        text = (
            f"rows are drawn as if they were independent, but those of a {chain[0].label} are not: standard errors are "
            f"wrong; draw groups, levels={chain[0].label!r}"
        )
        yield Note("rows", text)
    outer = next((t for t in chain if t.label in asked), None)
    if outer is not None and len(outer.levels) < FEW_GROUPS:
        text = (
            f"only {len(outer.levels)} levels of {outer.label!r} to draw from: intervals are too short with so few; "
            f"prefer kind='parametric'"
        )
        yield Note("few_groups", text)
    if crossed and asked != ["rows"]:
        names = ", ".join(repr(t.label) for t in crossed)
        text = (
            f"{names}, crossed with {chain[0].label!r}, keep their levels: what varies between them is not in the "
            f"replicates; prefer kind='parametric'"
        )
        yield Note("crossed", text)
