"""What the frame hands to the engine: `Design`, made of `Block`s of columns and `GroupTerm`s; no data frame in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.errors import NotAvailableError

if TYPE_CHECKING:
    from ranef.frame.relations import Relation

Array = np.ndarray[Any, Any]


class Levels(Sequence[Any]):
    """The labels of a factor in code order; a list that is made only when somebody looks."""

    __slots__ = ("_index", "_labels", "_make", "_size")

    def __init__(self, size: int, make: Callable[[], list[Any]]) -> None:
        self._size, self._make = size, make
        self._labels: list[Any] | None = None
        self._index: dict[Any, int] | None = None

    @classmethod
    def of(cls, labels: Sequence[Any]) -> Levels:
        """Make levels from a list of labels."""
        return labels if isinstance(labels, Levels) else cls(len(labels), lambda: list(labels))

    def tolist(self) -> list[Any]:
        """Return the labels as a list."""
        if self._labels is None:
            self._labels = self._make()
        return self._labels

    def index_of(self) -> dict[Any, int]:
        """Label -> code."""
        if self._index is None:
            self._index = {label: code for code, label in enumerate(self.tolist())}
        return self._index

    def take(self, keep: Array) -> Levels:
        """Return the levels at some positions."""
        return Levels(len(keep), lambda: [self.tolist()[i] for i in keep])

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, i: Any) -> Any:
        return self.tolist()[i]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self.tolist() == list(other)

    def __hash__(self) -> int:
        return hash(tuple(self.tolist()))

    def __repr__(self) -> str:
        return f"Levels({self.tolist()!r})" if self._size <= 12 else f"Levels({self.tolist()[:10]!r}…, {self._size})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Levels.of, (self.tolist(),)


#: What is written behind a weight's name where rows go because it is 0.
NO_WEIGHT = " of 0"


def why_dropped(names: Iterable[str]) -> str:
    """Return for what rows were left out: the columns in which something is missing, and weights of 0."""
    given = list(names)
    zero = sum(name.endswith(NO_WEIGHT) for name in given)
    parts = ["missing values"] * (zero < len(given)) + ["weights of 0"] * (zero > 0)
    return " or ".join(parts)


@dataclass(frozen=True, slots=True)
class Indicators:
    """The contrast matrix (levels, columns) of a factor of so many levels that it is never written out.

    Its columns are indicators of the last levels: of all, or of all but the first (treatment contrasts). Whoever asks
    for its entries gets a `NotAvailableError`.

    Parameters
    ----------
    levels, columns : int
    """

    levels: int
    columns: int

    @property
    def shape(self) -> tuple[int, int]:
        """Levels and columns."""
        return self.levels, self.columns

    def __len__(self) -> int:
        return self.levels

    def _refuse(self) -> Any:
        raise NotAvailableError(
            f"this needs the dummy variables of a fixed factor of {self.levels:,} levels, which are not formed; make "
            f"it a random effect, or leave it out"
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return self._refuse()

    def __getitem__(self, at: Any) -> Any:
        return self._refuse()

    @property
    def T(self) -> Any:  # noqa: N802
        """Refused, as every entry is."""
        return self._refuse()

    def __matmul__(self, other: Any) -> Any:
        return self._refuse()


@dataclass(frozen=True, slots=True)
class Block:
    """Columns of X, or of Z inside a group, from one source: row i is ``x[i] * contrast[codes[i], :]``.

    Parameters
    ----------
    names : tuple of str
        The m column names, as R gives them.
    codes : ndarray of int8, int16 or int32, shape (n,), or None
        0..L-1; None: no factor takes part.
    contrast : ndarray of float64, shape (L, m), C order, or Indicators, or None
        None where `codes` is; then m = 1.
    x : ndarray of float64, float32, int64 or int32, shape (n,), contiguous, or None
        None means ones.
    """

    names: tuple[str, ...]
    codes: Array | None = None
    contrast: Array | Indicators | None = None
    x: Array | None = None


@dataclass(frozen=True, slots=True)
class GroupTerm:
    """One random-effects term.

    Parameters
    ----------
    label : str
        The grouping as tables print it: ``"batch:cask"``.
    names : tuple of str
        Names of the k columns.
    structure : str
        ``"us"``, ``"diag"`` or the wrapper's name.
    codes : ndarray of int8, int16 or int32, shape (n,)
        In a `Design` every level 0..L-1 occurs; in a `NewDesign` -1 marks a level that is new or missing.
    levels : sequence
        The L labels in code order: str, int, float or bool.
    blocks : tuple of Block
        The k columns.
    args : tuple of str
        Further arguments of the wrapper, as text.
    component : int
        Which of the design's components it belongs to; 0 is the mean.
    points : ndarray of float64, shape (k, d), or None
        Where the columns lie, for structures over time and space.
    matrix : ndarray of float64, shape (k, k), or None
        What is known of their covariance, for structures that take a matrix.
    rank : int or None
        Of a covariance of reduced rank.
    nu : float or None
        Smoothness of a Matern correlation, where it is not estimated.
    owners : tuple of int
        The component of every block where they differ, `(1 |id| g)`; empty: all belong to `component`.
    relation : Relation or None
        What relates the levels to each other; None: they are independent.
    fresh : tuple
        In a `NewDesign`: new positions of a process, the last rows of the contrast of its only block.
    """

    label: str
    names: tuple[str, ...]
    structure: str
    codes: Array
    levels: Levels
    blocks: tuple[Block, ...]
    args: tuple[str, ...] = ()
    component: int = 0
    points: Array | None = None
    matrix: Array | None = None
    rank: int | None = None
    nu: float | None = None
    owners: tuple[int, ...] = ()
    relation: Relation | None = None
    fresh: tuple[Any, ...] = ()

    @property
    def components(self) -> tuple[int, ...]:
        """The component of every block."""
        return self.owners or (self.component,) * len(self.blocks)

    @property
    def owner_of(self) -> tuple[int, ...]:
        """The component of every column."""
        pairs = zip(self.blocks, self.components, strict=True)
        return tuple(owner for block, owner in pairs for _ in block.names)


def part_of(term: GroupTerm, component: int) -> tuple[GroupTerm, list[int]]:
    """Return the part of a term that enters one linear predictor, and the positions of its columns."""
    if not term.owners:
        return term, list(range(len(term.names)))
    blocks = tuple(b for b, c in zip(term.blocks, term.owners, strict=True) if c == component)
    at = [j for j, c in enumerate(term.owner_of) if c == component]
    names = tuple(term.names[j] for j in at)
    return replace(term, names=names, blocks=blocks, component=component, owners=()), at


@dataclass(frozen=True)
class Component:
    """The fixed part of one linear predictor: that of the mean, of the dispersion, of the zero inflation.

    Parameters
    ----------
    name : str
        The parameter of the distribution.
    fixed : tuple of Block
    offset : ndarray of float64, shape (n,), or None
    """

    name: str
    fixed: tuple[Block, ...]
    offset: Array | None = None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple([name for block in self.fixed for name in block.names])


@dataclass(frozen=True, slots=True)
class Sampling:
    """Inverse probabilities of selection in a survey, as they were given.

    Parameters
    ----------
    rows : ndarray of float64, shape (n,), or None
        Of the rows, given that their groups were selected.
    groups : dict
        Grouping factor -> (n,) array, constant within its levels.
    scaling : str or None
        How weights below the top are scaled: "size", "effective" or None.
    """

    rows: Array | None
    groups: dict[str, Array]
    scaling: str | None


@dataclass(frozen=True)
class Design:
    """Arrays of a model, all of the same n rows.

    Parameters
    ----------
    n : int
        Rows used.
    response_name : str or None
    y : ndarray of float64, shape (n,), contiguous, or None
        With `trials` the proportion of successes; for ordinal families the category, from 0. Counts of categories are
        (n, J).
    weights, offset : ndarray of float64, shape (n,), or None
        Precision weights (positive) and the sum of all offsets of the mean.
    fixed : tuple of Block
        Of the mean.
    terms : tuple of GroupTerm
    rows : ndarray of int64 or None
        Positions (from 0) of the rows used; None: all.
    n_input : int
        Rows that came in.
    dropped : dict
        Column -> rows missing there (a row may be missing in several columns).
    kind : str
        What came in: ``"pandas"``, ``"polars"``, ``"pyarrow"``, ``"dict"``.
    others : tuple of Component
        The linear predictors beside the mean's.
    trials : ndarray of float64 or None
        Number of trials of each row, for binomial families.
    categories : tuple
        Labels of a response that came as categories, in the order of its codes.
    absent : tuple
        Categories that such a response declares, without rows.
    frequencies : ndarray of float64 or None
        Frequency weights: how many equal rows a row stands for.
    censor : ndarray of int8 or None
        0: y was observed, -1: the response lies below y, 1: above, 2: in (y, upper].
    upper : ndarray of float64 or None
        Upper ends of intervals.
    sampling : Sampling or None
        Weights of a survey.
    randomised : pair of ndarrays of float64 or None
        c and d of randomised responses, which are 1 with probability c + d mu.
    bounds : ndarray of float64, shape (n, 2), or None
        Least and greatest response that each row can have, of a truncated one.
    offset_name : str
        The columns of the offsets of the mean, where they are columns.
    constant : float
        What the log-likelihood has beside that of the rows: of counts of categories, see `ranef.frame.outcomes`.
    """

    n: int
    response_name: str | None
    y: Array | None
    weights: Array | None
    offset: Array | None
    fixed: tuple[Block, ...]
    terms: tuple[GroupTerm, ...]
    rows: Array | None
    n_input: int
    dropped: dict[str, int] = field(default_factory=dict)
    kind: str = "dict"
    others: tuple[Component, ...] = ()
    trials: Array | None = None
    categories: tuple[Any, ...] = ()
    frequencies: Array | None = None
    censor: Array | None = None
    upper: Array | None = None
    sampling: Sampling | None = None
    randomised: tuple[Array, Array] | None = None
    bounds: Array | None = None
    offset_name: str = ""
    absent: tuple[Any, ...] = ()
    constant: float = 0.0

    @cached_property
    def components(self) -> tuple[Component, ...]:
        """Every linear predictor, the mean's first."""
        return (Component("mean", self.fixed, self.offset), *self.others)

    @property
    def fixed_names(self) -> tuple[str, ...]:
        """The names of the fixed effects, in order."""
        return tuple(name for block in self.fixed for name in block.names)

    @property
    def p(self) -> int:
        """How many columns the fixed part has."""
        return sum(len(block.names) for block in self.fixed)

    @property
    def n_dropped(self) -> int:
        """How many rows were left out."""
        return self.n_input - self.n


@dataclass(frozen=True, slots=True)
class Unseen:
    """The rows of new data whose level of a grouping is not among the fitted ones.

    Parameters
    ----------
    codes : ndarray of int32, shape (n,)
        0.. for a new level, -1 where the level is known or missing.
    levels : tuple
        The new labels.
    missing : ndarray of bool, shape (n,), or None
        Rows whose level is missing.
    """

    codes: Array
    levels: tuple[Any, ...]
    missing: Array | None


@dataclass(frozen=True)
class NewDesign:
    """Arrays for new data, every row kept.

    Parameters
    ----------
    n : int
    fixed : tuple of Block
    terms : tuple of GroupTerm
        Those asked for, in the order of the fit; codes are -1 where the level is new or missing.
    which : tuple of int
        Positions of `terms` among the fit's terms.
    unseen : tuple of (Unseen or None)
        One per term; None: every level is known.
    missing : ndarray of bool, shape (n,), or None
        Rows with a missing value among the fixed effects, random slopes or offset: their prediction is NaN.
    y, offset : ndarray of float64 or None
    kind : str
    others : tuple of Component
        The linear predictors beside the mean's.
    trials : ndarray of float64 or None
        With the response of a binomial family.
    """

    n: int
    fixed: tuple[Block, ...]
    terms: tuple[GroupTerm, ...]
    which: tuple[int, ...]
    unseen: tuple[Unseen | None, ...]
    missing: Array | None
    y: Array | None
    offset: Array | None
    kind: str
    others: tuple[Component, ...] = ()
    trials: Array | None = None


def matrix(blocks: Sequence[Block], n: int) -> Array:
    """Return the dense (n, m) matrix of some blocks: for tests, diagnostics and small data."""
    columns = [_dense(block, n) for block in blocks]
    return np.concatenate(columns, axis=1) if columns else np.zeros((n, 0))


def _dense(block: Block, n: int) -> Array:
    if block.codes is None or block.contrast is None:
        return np.ones((n, 1)) if block.x is None else np.asarray(block.x, np.float64)[:, None]
    inner = block.contrast[block.codes]
    return inner if block.x is None else np.asarray(block.x, np.float64)[:, None] * inner
