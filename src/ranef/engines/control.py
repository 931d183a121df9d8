"""The options of an engine: one frozen object that travels as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import isfinite
from numbers import Integral, Real
from typing import Any

from ranef.errors import ArgumentError, OptionError, nearest
from ranef.progress import onlooker


@dataclass(frozen=True, slots=True)
class Control:
    """How the criterion is optimised.

    Parameters
    ----------
    optimizer : str
        `"newton"` (the engine's own trust-region Newton), or, for comparison, `"scipy:<method>"` with one of
        `scipy.optimize.minimize`'s methods (`"scipy:L-BFGS-B"`), or `"nlopt:<algorithm>"` (`"nlopt:LN_BOBYQA"`; needs
        the package nlopt).
    tolerance : float
        Largest predicted change of the deviance, g'H^-1 g, at which Newton stops. Free of the data's units.
    max_evaluations : int, optional
        Evaluations of the criterion allowed to a search; None: the optimiser's own default. Differences that measure a
        curvature are not counted, up to ten times as many.
    start : tuple of float, optional
        Start values of `theta`, the entries of the factors Lambda: relative to sigma in linear models, else absolute.
        Without them linear models of fewer than 20 rows for each entry, which may have several optima, are searched
        from several sides, and the best end is kept.
    threads : int
        Threads of the core; 0: as many as the machine gives. The answer does not depend on it.

    Examples
    --------
    >>> import ranef as rf
    >>> sleep = rf.datasets.load("sleepstudy")
    >>> m = rf.fit("Reaction ~ Days + (1 | Subject)", sleep, control=rf.Control(optimizer="scipy:L-BFGS-B"))
    >>> round(m.criterion, 3)
    1786.465
    """

    optimizer: str = "newton"
    tolerance: float = 1e-9
    max_evaluations: int | None = None
    start: tuple[float, ...] | None = None
    threads: int = 0

    def __post_init__(self) -> None:
        source = self.optimizer.split(":", 1)[0] if isinstance(self.optimizer, str) else ""
        if source not in ("newton", "scipy", "nlopt") or (source != "newton") == (self.optimizer == source):
            raise OptionError(
                f"control: optimizer={self.optimizer!r} is unknown; "
                f"use 'newton', 'scipy:<method>' or 'nlopt:<algorithm>'"
            )
        if not isinstance(self.tolerance, Real) or not self.tolerance > 0:
            raise OptionError(f"control: tolerance={self.tolerance!r} must be a positive number")
        if self.max_evaluations is not None and not _whole(self.max_evaluations, 1):
            raise OptionError(f"control: max_evaluations={self.max_evaluations!r} must be a whole number, at least 1")
        if not _whole(self.threads, 0):
            raise OptionError(f"threads={self.threads!r} must be 0 (all) or a positive whole number")
        if self.start is not None and not all(isinstance(v, Real) and isfinite(v) for v in self.start):
            raise OptionError(f"control: start={self.start!r} must hold finite numbers")

    @property
    def options(self) -> dict[str, Any]:
        """What the core's own optimiser is told, and whom it tells how it goes."""
        limit = {} if self.max_evaluations is None else {"max_evaluations": self.max_evaluations}
        told = onlooker()
        return {"tolerance": self.tolerance, **limit, **({} if told is None else {"onlooker": told})}


def _whole(value: object, least: int) -> bool:
    return isinstance(value, Integral) and int(value) >= least


DEFAULT = Control()
NAMES = tuple(f.name for f in fields(Control))


def make_control(value: Control | Mapping[str, Any] | None = None, threads: int | None = None) -> Control:
    """Build a `Control` from what a user wrote as `control=` and `threads=`."""
    control = DEFAULT if value is None else value if isinstance(value, Control) else _from_mapping(value)
    return control if threads is None else replace(control, threads=threads)


def _from_mapping(value: Any) -> Control:
    if not isinstance(value, Mapping):
        raise ArgumentError(f"control= takes a dict or rf.Control, not {type(value).__name__}")
    given = dict(value)
    for name in given:
        if name not in NAMES:
            raise ArgumentError(f"control: unknown option {name!r}; {nearest(name, NAMES)}")
    if given.get("start") is not None:
        given["start"] = _start(given["start"])
    return Control(**given)


def _start(values: Any) -> tuple[float, ...]:
    try:
        return tuple(float(v) for v in values)
    except (TypeError, ValueError) as error:
        raise OptionError(f"control: start={values!r} must hold finite numbers") from error
