"""The words of a description: `Formula` (terms and bars), `Term` (a product of factors), `Bar` (terms | group)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

from ranef.formula.functions import PLAIN

Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Factor:
    """One column or one call of a formula; two factors are equal if R would print them alike.

    Parameters
    ----------
    label : str
        As R prints it: ``days``, ```a b```, ``poly(x, 2)``, ``I(x^2)``.
    code : str
        A Python expression over the placeholders ``_v0, _v1, …`` (columns) and ``_f0, …`` (functions); never evaluated
        as text.
    names, functions : tuple of str
        What the placeholders stand for.
    position : int
        Where it stands in the text.
    """

    label: str
    code: str = field(compare=False, repr=False)
    names: Names = field(compare=False, repr=False)
    functions: Names = field(default=(), compare=False, repr=False)
    position: int = field(default=0, compare=False, repr=False)

    @property
    def column(self) -> str | None:
        """The column's name if the factor is a plain column."""
        return self.names[0] if self.code == "_v0" else None

    @property
    def bare(self) -> str:
        """The label without back-quotes when the factor is a plain column (R's `deparse` of a symbol)."""
        return self.column or self.label

    def __str__(self) -> str:
        return self.label


@dataclass(frozen=True, eq=False)
class Term:
    """A product of factors; the empty product is the intercept. `a:b` equals `b:a`."""

    factors: tuple[Factor, ...] = ()
    labels: Names = field(init=False, repr=False)
    key: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple([f.label for f in self.factors]))
        object.__setattr__(self, "key", frozenset(self.labels))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Term) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def degree(self) -> int:
        """How many factors; 0 for the intercept."""
        return len(self.factors)

    @property
    def label(self) -> str:
        """As R prints it: ``a:b``; ``1`` for the intercept."""
        return ":".join(f.label for f in self.factors) if self.factors else "1"

    def __mul__(self, other: Term) -> Term:
        new = tuple(f for f in other.factors if f.label not in self.key)
        return self if not new else other if not self.factors else Term(self.factors + new)

    def __str__(self) -> str:
        return self.label


INTERCEPT = Term()

PLACE = re.compile(r"_v(\d+)")  # of a column in the code of a factor
KNOWING = ("trunc", "cens", "Surv", "se")


def _around(lhs: Factor) -> Iterable[str]:
    """Return the functions of `KNOWING` around a response, from the outside in."""
    if lhs.functions and lhs.label.startswith(tuple(f"{name}(" for name in KNOWING)):
        node = ast.parse(lhs.code, mode="eval").body
        while isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            name = lhs.functions[int(node.func.id[2:])]
            if name in KNOWING and len(node.args) + len(node.keywords) > 1:
                yield name
            node = node.args[0]


@dataclass(frozen=True, eq=False)
class Bar:
    """One random-effects term after expansion: the columns `terms` vary over the levels of `factors`.

    Parameters
    ----------
    terms : tuple of Term
        The columns, the intercept explicit (`INTERCEPT`) or absent, sorted as R sorts them.
    factors : tuple of Factor
        The grouping factors; two or more mean their interaction.
    structure : str
        ``"us"`` (`|`), ``"diag"`` (`||`: every column independent of every other, the columns of a factor too), or the
        name of the wrapper as written.
    args : tuple of str
        What followed the group inside a wrapper, as text: ``rr(0 + f | g, d = 2)`` has ``("d = 2",)``.
    name : str
        The label in ``(x |name| g)``: bars of one label, of several linear predictors too, are one term whose columns
        all correlate.
    """

    terms: tuple[Term, ...]
    factors: tuple[Factor, ...]
    structure: str = "us"
    args: Names = ()
    position: int = field(default=0, repr=False)
    name: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        """What two equal bars have in common: the order of columns and of grouping factors does not count."""
        return frozenset(self.terms), frozenset(f.label for f in self.factors), self.structure, self.args, self.name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bar) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def group(self) -> Names:
        """The labels of the grouping factors: ``("batch", "cask")`` for ``batch:cask``."""
        return tuple(f.label for f in self.factors)

    @property
    def label(self) -> str:
        """The name of the grouping as tables print it: ``batch:cask``."""
        return self.factors[0].bare if len(self.factors) == 1 else ":".join(self.group)

    def __str__(self) -> str:
        bar = "||" if self.structure == "diag" else f"|{self.name}|" if self.name else "|"
        inside = f"{sum_of(self.terms)} {bar} {':'.join(self.group)}"
        if self.structure in PLAIN:
            return f"({inside})"
        return f"{self.structure}({', '.join((inside, *self.args))})"


def _interval(lhs: Factor) -> str:
    """Return the bounds in `trunc(y, lb, ub)` as an interval."""
    call = ast.parse(lhs.code, mode="eval").body
    assert isinstance(call, ast.Call)
    given = dict(zip(("lower", "upper"), call.args[1:3], strict=False))
    given |= {{"lb": "lower", "ub": "upper"}.get(str(k.arg), str(k.arg)): k.value for k in call.keywords}
    found = {side: PLACE.sub(lambda place: lhs.names[int(place[1])], ast.unparse(node)) for side, node in given.items()}
    low, high = found.get("lower", "-Inf"), found.get("upper", "Inf")
    return f"{'(' if low == '-Inf' else '['}{low}, {high}{')' if high == 'Inf' else ']'}"


@dataclass(frozen=True)
class Formula:
    """What a formula says, without data.

    Parameters
    ----------
    lhs : Factor or None
        The response; an expression such as ``log(y)`` is allowed. None for a one-sided formula.
    fixed : tuple of Term
        Sorted as R sorts them: by degree, then as written; factors inside a term in the order of their first
        appearance.
    bars : tuple of Bar
        As written, `/`, `*` and `+` on the right of a bar expanded.
    offset_factors : tuple of Factor
        The insides of ``offset(...)``.
    text : str
        The text it was read from; does not take part in comparisons.
    dot : bool
        Whether ``.`` (all other columns) stands on the right; `ranef.frame.build` resolves it.
    """

    lhs: Factor | None
    fixed: tuple[Term, ...]
    bars: tuple[Bar, ...]
    offset_factors: tuple[Factor, ...] = ()
    text: str = field(default="", compare=False, repr=False)
    dot: bool = False

    @property
    def response(self) -> str | None:
        """The response's name, or its expression as R prints it."""
        return self.lhs.bare if self.lhs else None

    @property
    def offsets(self) -> Names:
        """The insides of the offsets as R prints them."""
        return tuple(f.label for f in self.offset_factors)

    @property
    def intercept(self) -> bool:
        """Whether the fixed part has an intercept."""
        return INTERCEPT in self.fixed

    @cached_property
    def known(self) -> Names:
        """The functions around the response that say what is known of it, the outermost first."""
        return () if self.lhs is None else tuple(_around(self.lhs))

    @property
    def censored(self) -> bool:
        """Whether the response is `cens(y, status)` or `Surv(time, event)`."""
        return not {"cens", "Surv"}.isdisjoint(self.known)

    @property
    def measured(self) -> bool:
        """Whether the response is `se(y, sd)`, with known sampling errors."""
        return "se" in self.known

    @property
    def truncated(self) -> bool:
        """Whether the response is `trunc(y, lb, ub)`; `trunc(y)` is a number without its fraction, as in R."""
        return "trunc" in self.known

    @property
    def bounds(self) -> Names:
        """The interval of a truncated response as text, "[1, 10]", with columns by their names; nothing otherwise."""
        return (_interval(self.lhs),) if self.lhs is not None and self.truncated else ()

    @property
    def is_constant(self) -> bool:
        """Whether the right-hand side is the intercept alone."""
        return self.fixed == (INTERCEPT,) and not (self.bars or self.offset_factors or self.dot)

    @cached_property
    def factors(self) -> tuple[Factor, ...]:
        """Every factor once: response, fixed, offsets, bars."""
        inside = [f for b in self.bars for f in (*factors_of(b.terms), *b.factors)]
        lhs = [self.lhs] if self.lhs else []
        return tuple(dict.fromkeys([*lhs, *factors_of(self.fixed), *self.offset_factors, *inside]))

    @property
    def variables(self) -> Names:
        """The columns that the formula names, in the order of response, fixed, offsets, bars."""
        return tuple(dict.fromkeys(name for f in self.factors for name in f.names))

    def update(self, change: str) -> Formula:
        """Return the formula changed as R's `update` does.

        Parameters
        ----------
        change : str
            Two-sided; `.` stands for what was there on that side.

        Raises
        ------
        FormulaError
            If it cannot be read, or takes away a term that is not there.

        Examples
        --------
        >>> import ranef as rf
        >>> str(rf.parse("y ~ x + (1 | g)").update(". ~ . - (1 | g) + z"))
        'y ~ x + z'
        """
        from ranef.formula.grammar import read_update

        return read_update(self, change)

    def __str__(self) -> str:
        parts = [sum_of(self.fixed), *(f"offset({f})" for f in self.offset_factors), *map(str, self.bars)]
        if self.dot:
            return self.text
        if parts[0] == "1" and len(parts) > 1 and not self.bars:
            parts = parts[1:]
        return f"{self.lhs.label if self.lhs else ''} ~ {' + '.join(parts)}".strip()


def retext(formula: Formula) -> Formula:
    """Return the formula with `text` made anew from what it says."""
    return replace(formula, text=str(formula))


def factors_of(terms: Iterable[Term]) -> list[Factor]:
    """Return every factor of some terms once, in order of appearance."""
    return list(dict.fromkeys(f for t in terms for f in t.factors))


def sum_of(terms: tuple[Term, ...]) -> str:
    """Return the terms as text, the missing intercept said: ``0 + x``; a lone intercept is ``1``."""
    shown = [t.label for t in terms if t.factors]
    if INTERCEPT not in terms:
        return " + ".join(["0", *shown])
    return " + ".join(shown) if shown else "1"


def sort_terms(terms: Iterable[Term], order: dict[str, int]) -> tuple[Term, ...]:
    """Sort as R's `terms`: factors inside a term by first appearance (`order`), terms by degree, then as they came."""
    inside = [Term(tuple(sorted(t.factors, key=lambda f: order.get(f.label, 1 << 30)))) for t in terms]
    return tuple(sorted(inside, key=lambda t: t.degree))
