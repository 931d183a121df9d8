"""How far work has come and how long it will take: one line on stderr, only where somebody looks."""

from __future__ import annotations

import sys
import time
from typing import Any

PATIENCE = 1.0  # seconds before anything is shown
PAUSE = 0.2  # seconds between two updates


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
        self.what, self.total, self.done = what, total, 0
        self.shown = bool(sys.stderr.isatty()) if show is None else bool(show)
        self._start = time.monotonic()
        self._last, self._width = self._start + PATIENCE - PAUSE, 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()

    def advance(self, units: int = 1) -> None:
        """Count units that are done."""
        self.done += units
        now = time.monotonic()
        if not self.shown or now - self._last < PAUSE:
            return
        self._last = now
        text = f"{self.what}: {self.done} of {self.total}, {_duration(self.remaining(now))} left"
        sys.stderr.write("\r" + text.ljust(self._width))
        sys.stderr.flush()
        self._width = max(self._width, len(text))

    def remaining(self, now: float) -> float:
        """Seconds that the rest will take at the speed so far."""
        return (now - self._start) / max(self.done, 1) * max(self.total - self.done, 0)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
