"""What follows from a fit and is dear is computed once a fit and forgotten with it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from ranef.model import Fit

T = TypeVar("T")


def remembered(function: Callable[[Fit], T]) -> Callable[[Fit], T]:
    """Return the function with a memory by fit; a fit does not change, so neither does the answer."""
    known: WeakKeyDictionary[Fit, T] = WeakKeyDictionary()

    @wraps(function)
    def answer(m: Fit) -> T:
        if m not in known:
            known[m] = function(m)
        return known[m]

    return answer
