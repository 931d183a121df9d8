"""One question at a time: threads that share a fit take turns at its core.

A core moves while it answers (derivatives, profiles, other nodes) and comes back when it is done. Two threads that ask
one fit must not meet there, neither within a question nor within several that belong together.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from threading import RLock
from types import GetSetDescriptorType, MethodDescriptorType
from typing import Any


class InTurn:
    """A core of the extension whose every question waits until no other thread asks.

    `turn` is a lock that its owner may take again: questions that belong together go inside `with core.turn:`, and
    others wait until the core is back where it was. Who waits holds no lock of the interpreter.

    Parameters
    ----------
    core : object
        Whose methods and attributes this one has.
    """

    def __init__(self, core: Any) -> None:
        self._core, self.turn = core, RLock()


def in_turn(core: Any) -> Any:
    """Return the core as one that is asked in turn."""
    return _kind(type(core))(core)


@cache
def _kind(core: type) -> type[InTurn]:
    """Return the class whose methods and attributes are those of a class of the extension, in turn."""
    own: dict[str, Any] = {}
    for name, value in vars(core).items():
        if isinstance(value, MethodDescriptorType):
            own[name] = _asked(value)
        elif isinstance(value, GetSetDescriptorType):
            own[name] = property(_asked(value.__get__))
    return type(f"{core.__name__}InTurn", (InTurn,), own)


def _asked(question: Callable[..., Any]) -> Callable[..., Any]:
    def ask(self: InTurn, *args: Any, **kwargs: Any) -> Any:
        with self.turn:
            return question(self._core, *args, **kwargs)

    return ask


class Rebuilt:
    """The core of a fit that was pickled with its rows: made again when somebody asks it something.

    Parameters
    ----------
    make : () -> core
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._made, self._turn = make, None, RLock()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        with self._turn:
            if self._made is None:
                self._made = self._make()
        return getattr(self._made, name)
