"""ranef: mixed-effects models for Python. `rf.fit("reaction ~ days + (days | subject)", data)` returns a `Fit`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ranef import errors, families
from ranef.engines import Certificate, Control, Estimate, LaplaceEstimate
from ranef.errors import ConvergenceWarning, RanefError, RanefWarning, SeparationWarning
from ranef.formula import Formula, parse
from ranef.model import Fit, fit

if TYPE_CHECKING:
    from ranef import datasets, plot
    from ranef.frame.pedigree import pedigree
    from ranef.inference.loadings import loadings, scores
    from ranef.inference.many import ManyFits, fit_many
    from ranef.inference.optimizers import all_fit

    __version__: str

LAZY = {
    "all_fit": "ranef.inference.optimizers",
    "fit_many": "ranef.inference.many",
    "ManyFits": "ranef.inference.many",
    "loadings": "ranef.inference.loadings",
    "scores": "ranef.inference.loadings",
    "pedigree": "ranef.frame.pedigree",
    "plot": "",
    "datasets": "",
}

__all__ = [
    "Certificate",
    "Control",
    "ConvergenceWarning",
    "Estimate",
    "Fit",
    "Formula",
    "LaplaceEstimate",
    "ManyFits",
    "RanefError",
    "RanefWarning",
    "SeparationWarning",
    "__version__",
    "all_fit",
    "datasets",
    "errors",
    "families",
    "fit",
    "fit_many",
    "loadings",
    "parse",
    "pedigree",
    "plot",
    "scores",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("ranef")
    if name not in LAZY:
        raise AttributeError(f"module 'ranef' has no attribute {name!r}")
    module = import_module(LAZY[name] or f"ranef.{name}")
    return getattr(module, name) if LAZY[name] else module


def __dir__() -> list[str]:
    return sorted(__all__)
