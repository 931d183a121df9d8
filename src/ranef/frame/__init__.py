"""Floor 2: description and data to arrays: `build(formula, data)` gives a `Spec` (memory) and a `Design` (arrays)."""

from ranef.frame.build import build
from ranef.frame.checks import check_linear
from ranef.frame.design import Block, Component, Design, GroupTerm, Indicators, Levels, NewDesign, Unseen, matrix
from ranef.frame.spec import Outcome, Part, Spec

__all__ = [
    "Block",
    "Component",
    "Design",
    "GroupTerm",
    "Indicators",
    "Levels",
    "NewDesign",
    "Outcome",
    "Part",
    "Spec",
    "Unseen",
    "build",
    "check_linear",
    "matrix",
]
