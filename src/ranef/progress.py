"""How far work has come: one line on stderr, only where somebody looks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Any, ClassVar

PATIENCE = 1.0  # seconds before anything is shown
PAUSE = 0.2  # seconds between two updates

#: Is told `(evaluations, criterion)` while the core searches.
Told = Callable[[int, float], None]
_onlooker: ContextVar[Told | None] = ContextVar("onlooker", default=None)


def onlooker() -> Told | None:
    """Return who is told how a search goes; None if nobody looks."""
    return _onlooker.get()


class Line:
    """One line that is written over: nothing in the first second, and gone at the end.

    There is one at a time: within work that has its own (the fits of a bootstrap) and beside it others are silent.

    Parameters
    ----------
    show : bool or None
        None: only where stderr is a terminal.
    """

    _held: ClassVar[Line | None] = None

    def __init__(self, show: bool | None = None) -> None:
        looked = sys.stderr is not None and (sys.stderr.isatty() if show is None else bool(show))
        self.shown = looked and Line._held is None
        self.start = time.monotonic()
        self._last, self._width = self.start + PATIENCE - PAUSE, 0
        if self.shown:
            Line._held = self

    def close(self) -> None:
        """Take the line away."""
        if self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()
        if Line._held is self:
            Line._held = None

    def say(self, text: Callable[[float], str]) -> None:
        """Write what `text` makes of the seconds since the start, if it is time to."""
        now = time.monotonic()
        if not self.shown or now - self._last < PAUSE:
            return
        self._last, words = now, text(now - self.start)
        sys.stderr.write("\r" + words.ljust(self._width))
        sys.stderr.flush()
        self._width = max(self._width, len(words))


class Progress:
    """Counts units of work; shows `what: 120 of 1000, 8 s left` once work takes longer than a second.

    Parameters
    ----------
    what : str
        Name of the work.
    total : int
        Units of work.
    show : bool or None
        None: only where stderr is a terminal.
    """

    def __init__(self, what: str, total: int, show: bool | None = None) -> None:
        self.what, self.total, self.done, self._line = what, total, 0, Line(show)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        self._line.close()

    def advance(self, units: int = 1) -> None:
        """Count units that are done."""
        self.done += units
        self._line.say(self._text)

    def _text(self, seconds: float) -> str:
        left = seconds / max(self.done, 1) * max(self.total - self.done, 0)
        return f"{self.what}: {self.done} of {self.total}, {_duration(left)} left"


class Searching:
    """Shows `fit: 12 evaluations, criterion 1743.63, 8 s` while a search takes longer than a second.

    The evaluations are those of the search under way: a fit may make several, and the criterion is the least of it.

    Parameters
    ----------
    what : str
        Name of the work.
    show : bool or None
        None: only where stderr is a terminal.
    """

    def __init__(self, what: str, show: bool | None = None) -> None:
        self.what, self._line = what, Line(show)
        self._before: Token[Told | None] | None = None

    def __enter__(self) -> Searching:
        if self._line.shown:
            self._before = _onlooker.set(self.told)
        return self

    def __exit__(self, *_: Any) -> None:
        if self._before is not None:
            _onlooker.reset(self._before)
        self._line.close()

    def told(self, evaluations: int, criterion: float) -> None:
        """Take note of where the search is."""
        count = f"{evaluations} evaluation{'s' * (evaluations != 1)}"
        found = f" {count}, criterion {criterion:.8g}," if evaluations else ""
        self._line.say(lambda seconds: f"{self.what}:{found} {_duration(seconds)}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
