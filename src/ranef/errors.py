"""The typed errors and warnings of ranef: each says what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class RanefError(Exception):
    """Base class of every error that ranef raises on purpose."""


class FormulaError(RanefError, ValueError):
    """A formula that cannot be read; the message shows the formula with the spot marked.

    Parameters
    ----------
    message : str
        What is wrong and what to do.
    text : str, optional
        The formula.
    position : int, optional
        Index of the offending character in `text`.
    """

    def __init__(self, message: str, text: str | None = None, position: int | None = None) -> None:
        self.text, self.position = text, position
        super().__init__(message if text is None else f"{message}\n{mark(text, position)}")


class DataError(RanefError, ValueError):
    """Data that do not fit the model: wrong type, missing, constant, out of range, too few."""


class InfiniteError(DataError):
    """A column has infinite values where numbers are needed."""


class UnknownColumnError(DataError, KeyError):
    """A formula or argument names a column that the data do not have."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class UnseenLevelError(DataError):
    """New data hold a level of a factor that the fitted data did not have."""


class ArgumentError(RanefError, TypeError):
    """An argument that does not exist or has the wrong type; the nearest valid one is named."""


class UnknownParameterError(ArgumentError):
    """`fixed=`, `equal=` or `prior=` names a parameter that the model does not have.

    Parameters
    ----------
    message : str
    argument, name : str
        Which argument, and the parameter that it names.
    """

    def __init__(self, message: str, argument: str, name: str) -> None:
        self.argument, self.name = argument, name
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.argument, self.name)


class OptionError(RanefError, ValueError):
    """An argument whose value is not one of the legal ones."""


class NotAvailableError(RanefError, NotImplementedError):
    """Something legal that this version does not compute; says what to use instead."""


class RanefWarning(UserWarning):
    """Base class of every warning that ranef raises."""


class ConvergenceWarning(RanefWarning):
    """The optimiser stopped before its certificate held."""


class SeparationWarning(RanefWarning):
    """The outcome is separated by some columns: their estimates are infinite."""


def mark(text: str, position: int | None) -> str:
    """Return `text` with a caret under the character at `position`."""
    return f"    {text}" if position is None else f"    {text}\n    {' ' * position}^"


def nearest(name: object, known: Iterable[str]) -> str:
    """Return a sentence that names the `known` option nearest to `name`, or all of them where none is near."""
    options = list(known)
    close = get_close_matches(str(name).lower(), options, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(options)}"
