"""`Spec`: what a fit remembers of its data (levels, codings, knots …), so that new data give the same columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ranef.families.links import Link
from ranef.formula import Bar, Formula
from ranef.frame.blocks import TermPlan
from ranef.frame.coding import Coding
from ranef.frame.design import Array, Levels, NewDesign
from ranef.frame.transforms import State


@dataclass(frozen=True)
class FactorState:
    """A fixed factor of the fitted data: its levels in use, its declared levels without rows, its coding."""

    levels: Levels
    unused: tuple[Any, ...]
    coding: Coding


@dataclass(frozen=True)
class BarPlan:
    """A random-effects term of the fitted data.

    Parameters
    ----------
    bar : Bar
    names : tuple of str
        Names of the k columns.
    columns : tuple of TermPlan
    levels : Levels
        Of the grouping, in code order.
    parts : tuple of Levels
        Of its factors one by one.
    keys : ndarray of int64 or None
        For two or more factors: the mixed-radix number of every level's parts, ascending.
    component : int
        The linear predictor it belongs to; 0 is the mean's.
    owners : tuple of int
        That of every one of `columns` where they differ; empty: all belong to `component`.
    points : ndarray of float64, shape (k, d), or None
        Positions of the columns, where new positions can be predicted from them.
    nu : float or None
        Known smoothness of a Matern correlation.
    """

    bar: Bar
    names: tuple[str, ...]
    columns: tuple[TermPlan, ...]
    levels: Levels
    parts: tuple[Levels, ...]
    keys: Array | None
    component: int = 0
    owners: tuple[int, ...] = ()
    points: Array | None = None
    nu: float | None = None


@dataclass(frozen=True)
class Part:
    """A linear predictor beside the mean's: its formula, or the constant it is held at.

    Parameters
    ----------
    name : str
        The parameter of the distribution.
    formula : Formula or None
        One-sided.
    constant : float or None
        On the scale of the linear predictor.
    nothing : Link or None
        Of a standard deviation held at nothing, whose constant depends on the response: `build` fills it in.
    fixed : tuple of TermPlan
        Filled by `build`.
    intercept : bool
        Whether the constant of the formula is a coefficient; without, factors stay coded as beside one.
    """

    name: str
    formula: Formula | None = None
    constant: float | None = None
    fixed: tuple[TermPlan, ...] = ()
    intercept: bool = True
    nothing: Link | None = None


@dataclass(frozen=True)
class Outcome:
    """What kind of response is legal, and how it comes.

    Parameters
    ----------
    family : str
        Name of the family, for messages.
    support : str
        As the table of families calls it: "real", "count", "binomial" …
    zeros : bool
        Whether zeros are legal although the support has none (zero inflation), or illegal although it has (None).
    """

    family: str = "gaussian"
    support: str = "real"
    zeros: bool | None = None


@dataclass(frozen=True)
class Spec:
    """The frame's memory of a fit: picklable, its size independent of the number of rows. Made by `build`.

    Parameters
    ----------
    formula : Formula
        With `.` resolved.
    fixed : tuple of TermPlan
    bars : tuple of BarPlan
    factors : dict
        Label -> FactorState of every categorical factor of the fixed part and of the columns inside bars.
    states : dict
        What stateful transforms remember.
    fixed_names : tuple of str
        The p names of the fixed effects.
    offset : str or None
        The column of the `offset=` argument; ``""`` if an array was given.
    kind : str
        The kind of frame that came in.
    env : dict
        The caller's functions.
    parts : tuple of Part
        The linear predictors beside the mean's.
    outcome : Outcome
        What responses are legal.
    trials : str or None
        The column of the `trials=` argument; "" if an array was given.
    categories : tuple
        Labels of a response that came as categories.
    columns : frozenset of str
        The columns that formulas read: new data must have them, whatever else their names mean (`pi`, `T`, `env=`).
    """

    formula: Formula
    fixed: tuple[TermPlan, ...]
    bars: tuple[BarPlan, ...]
    factors: dict[str, FactorState]
    states: dict[tuple[str, int], State]
    fixed_names: tuple[str, ...]
    offset: str | None
    kind: str
    env: dict[str, Any] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    outcome: Outcome = field(default_factory=Outcome)
    trials: str | None = None
    categories: tuple[Any, ...] = ()
    columns: frozenset[str] = frozenset()

    @property
    def formulas(self) -> tuple[Formula, ...]:
        """Every formula, the mean's first."""
        return (self.formula, *(part.formula for part in self.parts if part.formula is not None))

    def new(
        self,
        data: Any,
        *,
        response: bool = False,
        groups: str | Iterable[str] = "all",
        offset: Any = None,
        parts: Iterable[str] | None = None,
    ) -> NewDesign:
        """Return the same columns for new data; every row is kept.

        Parameters
        ----------
        data : frame or dict of arrays
            Single values in a dict stand for every row.
        response : bool
            Whether the response is evaluated too.
        groups : "all", "none" or labels
            The random-effects terms wanted, by the label of their grouping; the columns of the others need not exist.
        offset : str or array, optional
            In place of the fit's `offset=` argument; needed if that was an array.
        parts : iterable of str, optional
            The linear predictors beside the mean's that are wanted; None: all. The others come without columns.

        Raises
        ------
        UnseenLevelError
            A factor of the fixed effects or of the columns inside a bar has a level that the fitted data lack.
        UnknownColumnError, DataError, OptionError
        """
        from ranef.frame.newdata import new_design
        from ranef.frame.table import read_table

        wanted = None if parts is None else frozenset(parts)
        return new_design(self, read_table(data), response, groups, offset, wanted)
