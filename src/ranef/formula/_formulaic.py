"""Formulaic's parser without the rest of formulaic.

`import formulaic` loads scipy, narwhals and its own model matrices: 25 MiB and a quarter of a second before the first
fit. Its parser needs none of them. While the parser is being imported, the package is stood in for by a module that
only knows where the parser lies; whoever imports formulaic later gets all of it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from threading import RLock
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # at run time the names come from `_load_alone`
    from formulaic.errors import FormulaicError  # noqa: TC004
    from formulaic.parser.algos.tokenize import tokenize  # noqa: TC004
    from formulaic.parser.algos.tokens_to_ast import tokens_to_ast  # noqa: TC004
    from formulaic.parser.types import ASTNode, Operator, OperatorResolver, Token  # noqa: TC004

__all__ = ["ASTNode", "FormulaicError", "Operator", "OperatorResolver", "Token", "tokenize", "tokens_to_ast"]

PARTS = {
    "formulaic.errors": ("FormulaicError",),
    "formulaic.parser.algos.tokenize": ("tokenize",),
    "formulaic.parser.algos.tokens_to_ast": ("tokens_to_ast",),
    "formulaic.parser.types": ("ASTNode", "Operator", "OperatorResolver", "Token"),
}
_lock = RLock()


def _load() -> dict[str, Any]:
    """Return the names of `PARTS`."""
    return {name: getattr(import_module(module), name) for module, names in PARTS.items() for name in names}


def _load_alone() -> dict[str, Any]:
    """Return the same with a stand-in for the package; all of it is imported where that does not work."""
    found = None if "formulaic" in sys.modules else find_spec("formulaic")
    if found is None or not found.submodule_search_locations:
        return _load()
    with _lock:
        stand_in = ModuleType("formulaic")
        stand_in.__path__ = list(found.submodule_search_locations)
        sys.modules["formulaic"] = stand_in
        try:
            return _load()
        except (ImportError, AttributeError):
            pass
        finally:
            for name in [n for n in sys.modules if n.partition(".")[0] == "formulaic"]:
                del sys.modules[name]
    return _load()


globals().update(_load_alone())
