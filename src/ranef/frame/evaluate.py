"""From a `Factor` and a table to its value: numbers, columns, or categories. Walks the checked tree; no `eval`."""

from __future__ import annotations

import ast
import inspect
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from ranef.errors import DataError, FormulaError, InfiniteError, NotAvailableError
from ranef.formula import Factor
from ranef.formula.expression import arguments, tree
from ranef.formula.functions import CODINGS, CONSTANTS, FOREIGN
from ranef.frame.coding import Coding, contrast, level_name, read_coding
from ranef.frame.coding import Matrix as GivenContrasts
from ranef.frame.design import Array, Levels
from ranef.frame.levels import number_order
from ranef.frame.table import Column, Table, as_factor, is_number, rows_of, shorten, written_numbers
from ranef.frame.transforms import ELEMENTWISE, MAX_COLUMNS, STATEFUL, Matrix, State


@dataclass(frozen=True)
class Categories:
    """A factor's value before rows are dropped: codes (-1 missing) and levels; `coding` if the formula gave one.

    `listed` levels are numbers or were written out in the formula: they have an order, which contrasts do not look at.
    """

    codes: Array
    levels: Levels
    ordered: bool = False
    coding: Coding | None = None
    text: bool = False
    listed: bool = False

    @classmethod
    def of(cls, column: Column) -> Categories:
        """Take over a column of codes."""
        if column.codes is None or column.levels is None:
            raise DataError(f"column {column.name!r} holds no categories")
        return cls(column.codes, column.levels, column.ordered, text=column.text)


@dataclass(frozen=True)
class Censored:
    """A response known in part: status 0 (y observed), -1 (below y), 1 (above y) or 2 (in (y, upper]) of every row."""

    y: Array
    status: Array
    upper: Array | None = None


@dataclass(frozen=True)
class Measured:
    """A response whose sampling error is known: its standard deviation in every row."""

    y: Array
    sd: Array


@dataclass(frozen=True)
class Truncated:
    """A response of rows that are there because it lies within bounds, both included: infinite ones are none."""

    y: Any
    least: Array
    most: Array


MAX_LIST = 1_000  # numbers that a range may have

Value = Any  # Column, Array, Matrix, Categories, or a constant

PLACEHOLDER = re.compile(r"\b_([vf])(\d+)\b")  # of a column or a function in the code of a factor
BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow, ast.Mod: operator.mod, ast.FloorDiv: operator.floordiv,
}  # fmt: skip
COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}  # fmt: skip


@dataclass
class Evaluator:
    """Evaluates factors over one table, every column read once.

    Parameters
    ----------
    table : Table
    states : dict
        (label, position of the call) -> what a stateful transform remembers; filled on the fitted data.
    env : mapping
        The caller's further functions and constants.
    known : frozenset of str
        Names that were columns of the fitted data: they mean nothing else in new data that lack them.
    """

    table: Table
    states: dict[tuple[str, int], State]
    env: Mapping[str, Any] = field(default_factory=dict)
    known: frozenset[str] = frozenset()
    columns: dict[str, Column] = field(default_factory=dict)
    lengths: tuple[str, ...] = ()

    def column(self, name: str) -> Column:
        """Return a column, read once."""
        found = self.columns.get(name)
        if found is None:
            found = self.columns[name] = self.table.column(name)
        return found

    def __call__(self, factor: Factor) -> Column | Array | Matrix | Categories:
        """Return the value of a factor on every row of the table.

        Raises
        ------
        UnknownColumnError, DataError, FormulaError
        """
        name = factor.column
        if name is None:
            return _Walk(self, factor).run()
        if name in self.env and self.is_constant(name):
            return _Walk(self, factor).finish(self.env[name])
        return self.column(name)

    def needs(self, factor: Factor) -> list[Column]:
        """Return the columns that a factor reads and needs in every row: not so the upper ends of intervals."""
        apart = _ends(factor)
        return [self.column(name) for name in factor.names if name not in apart and not self.is_constant(name)]

    def is_constant(self, name: str) -> bool:
        """Tell whether a name is a constant of the caller or of the language, not a column."""
        return name not in {*self.table.names, *self.known} and (name in self.env or name in CONSTANTS)


def _ends(factor: Factor) -> set[str]:
    """Return the columns that occur only as upper ends: in `cens(y, status, upper)` or `Surv(time, upper, event)`."""
    if not {"cens", "Surv"} & set(factor.functions) or len(factor.names) < 2:
        return set()
    root = tree(factor.code)
    if not isinstance(root, ast.Call):
        return set()
    at = slice(2, None) if "cens" in factor.functions else slice(1, 2 if len(root.args) > 2 else 1)
    ends = [*root.args[at], *(k.value for k in root.keywords if k.arg == "upper")]
    others = [a for a in root.args if a not in ends] + [k.value for k in root.keywords if k.arg != "upper"]
    return _names_in(ends, factor) - _names_in(others, factor)


def error_factor(factor: Factor) -> Factor:
    """Return the standard errors in a response `se(y, sd)`."""
    root = tree(factor.code)
    assert isinstance(root, ast.Call)
    node = next((k.value for k in root.keywords if k.arg == "sd"), None) or root.args[1]
    return replace(factor, label=f"the standard errors in {factor.label}", code=ast.unparse(node))


def errors_of(factor: Factor, table: Table, env: Mapping[str, Any]) -> Array | None:
    """Return the standard errors in a response `se(y, sd)` of new rows; None where these do not have the columns.

    Raises
    ------
    DataError
        If one is not positive.
    """
    wanted = error_factor(factor)
    if not _names_in([tree(wanted.code)], wanted) <= {*table.names, *env, *CONSTANTS}:
        return None
    walk = _Walk(Evaluator(table, {}, env), wanted)
    sd = np.broadcast_to(np.asarray(walk.number(walk.run()), np.float64), (table.n,))
    if (sd <= 0).any():
        raise DataError(f"{wanted.label}: a standard error is positive")
    return sd


def bounds_of(factor: Factor, table: Table, env: Mapping[str, Any]) -> Array | None:
    """Return the bounds of new rows in a response `trunc(y, lb, ub)`, (n, 2); None without their columns."""
    root = tree(factor.code)
    assert isinstance(root, ast.Call)
    named = {str(k.arg): k.value for k in root.keywords}
    given = dict(zip(("lb", "ub"), root.args[1:3], strict=False)) | named
    out = np.tile([-np.inf, np.inf], (table.n, 1))
    for column, words in enumerate((("lb", "lower"), ("ub", "upper"))):
        for node in (given[word] for word in words if word in given):
            if not _names_in([node], factor) <= {*table.names, *env, *CONSTANTS}:
                return None
            walk = _Walk(Evaluator(table, {}, env), replace(factor, code=ast.unparse(node)))
            out[:, column] = walk.number(walk.walk(node))
    return out


def _names_in(nodes: list[ast.expr], factor: Factor) -> set[str]:
    found = [node.id for top in nodes for node in ast.walk(top) if isinstance(node, ast.Name)]
    return {factor.names[int(name[2:])] for name in found if name.startswith("_v")}


@dataclass(frozen=True)
class _Walk:
    """One pass over the tree of one factor."""

    outer: Evaluator
    factor: Factor

    def fail(self, message: str) -> DataError:
        return DataError(f"{self.factor.label}: {message}")

    def state(self, at: int) -> State:
        """Return what the call at a position of the expression remembers."""
        return self.outer.states.setdefault((self.factor.label, at), {})

    def run(self) -> Any:
        with np.errstate(all="ignore"):
            value = self.walk(tree(self.factor.code))
        return self.finish(value)

    def finish(self, value: Any) -> Any:
        n = self.outer.table.n
        if isinstance(value, (Matrix, Categories)):  # a function of constants alone gives a single one
            parts = value.columns if isinstance(value, Matrix) else (value.codes,)
            if any(np.shape(part) != (n,) for part in parts):
                raise self.fail(f"this does not give one value for each of the {n} rows")
        if isinstance(value, (Column, Matrix, Categories, Censored, Measured, Truncated)):
            return value
        array: Array = np.empty(0)
        with suppress(ValueError):  # of a list of columns and numbers
            array = np.asarray(value)
        if array.ndim == 2 and len(array) == n and 0 < array.shape[1] <= MAX_COLUMNS:
            return Matrix(tuple(np.ascontiguousarray(array[:, j], np.float64) for j in range(array.shape[1])))
        if array.ndim != 1 or len(array) != n or array.dtype.kind not in "iufb":
            raise self.fail(f"this does not give one number for each of the {n} rows")
        return array if array.dtype.kind == "b" else np.ascontiguousarray(array, np.float64)

    def walk(self, node: ast.AST) -> Value:
        return _VISIT[type(node)](self, node)

    def on_constant(self, node: ast.Constant) -> Value:
        return node.value

    def on_list(self, node: ast.List) -> Value:
        return [self.walk(item) for item in node.elts]

    def on_name(self, node: ast.Name) -> Value:
        name = self.factor.names[int(node.id[2:])]
        if not self.outer.is_constant(name):
            return self.outer.column(name)
        return self.outer.env[name] if name in self.outer.env else CONSTANTS[name]

    def texts(self, at: int) -> tuple[str, ...]:
        """Return the positional arguments of the call at a place of the code as text, of columns their names."""
        return tuple(PLACEHOLDER.sub(self.named, argument) for argument in arguments(self.factor.code, at))

    def named(self, found: re.Match[str]) -> str:
        """Return the column or function that a placeholder stands for."""
        return (self.factor.names if found[1] == "v" else self.factor.functions)[int(found[2])]

    def on_binop(self, node: ast.BinOp) -> Value:
        if isinstance(node.op, ast.MatMult):  # R's 1:3
            ends = self.number(self.walk(node.left)), self.number(self.walk(node.right))
            return _seq(self, node.col_offset, *ends, by=1 if ends[0] <= ends[1] else -1)
        left, right = self.number(self.walk(node.left)), self.number(self.walk(node.right))
        return BINARY[type(node.op)](left, right)

    def on_unaryop(self, node: ast.UnaryOp) -> Value:
        value = self.walk(node.operand)
        if isinstance(node.op, ast.Not):
            return ~self.truth(value)
        value = self.number(value)
        return -value if isinstance(node.op, ast.USub) else value

    def on_boolop(self, node: ast.BoolOp) -> Value:
        join = operator.and_ if isinstance(node.op, ast.And) else operator.or_
        value = self.truth(self.walk(node.values[0]))
        for other in node.values[1:]:
            value = join(value, self.truth(self.walk(other)))
        return value

    def on_compare(self, node: ast.Compare) -> Value:
        left, right = self.walk(node.left), self.walk(node.comparators[0])
        if isinstance(node.ops[0], ast.In):
            items = right if isinstance(right, list) else [right]
            return self.any_of([self.equal(left, item) for item in items])
        compare = COMPARE[type(node.ops[0])]
        if isinstance(left, str) or isinstance(right, str) or self.is_text(left) or self.is_text(right):
            if compare not in (operator.eq, operator.ne):
                raise self.fail("text can be compared by == and != only")
            equal = self.equal(left, right)
            return equal if compare is operator.eq else ~equal
        return compare(self.number(left), self.number(right))

    def any_of(self, tests: list[Array]) -> Array:
        if not tests:
            raise self.fail("%in% needs values: x %in% c('a', 'b')")
        return np.logical_or.reduce(tests)

    def is_text(self, value: Value) -> bool:
        return isinstance(value, Categories) or (isinstance(value, Column) and value.codes is not None)

    def equal(self, left: Value, right: Value) -> Array:
        """`factor == label`, or numbers; a number is the label that R writes for it, as in R's `f == 1`."""
        if self.is_text(right) and not self.is_text(left):
            left, right = right, left
        if not self.is_text(left):
            if isinstance(left, str) or isinstance(right, str):
                raise self.fail("numbers are compared with text")
            return self.number(left) == self.number(right)
        if self.is_text(right):
            raise self.fail("two factors cannot be compared; use interaction(a, b)")
        if not isinstance(right, (str, bool, int, float, np.bool_, np.number)):
            raise self.fail("a factor is compared with a label: f == 'a'")
        names = (right, level_name(right))
        hit = np.array([label == right or level_name(label) in names for label in left.levels] + [False], bool)
        return hit[left.codes]

    def number(self, value: Value) -> Any:
        """Return a value as float64, arrays or a scalar."""
        if isinstance(value, Column):
            if value.codes is not None and not len(value.levels or ()):
                return np.full(len(value.codes), np.nan)
            if value.x is None:
                what = "a date or time" if value.time else "a factor"
                hint = written_numbers(value)
                raise self.fail(f"column {value.name!r} is {what}, not numbers{hint and '; '}{hint}")
            x = np.asarray(value.x, np.float64)
            return np.where(value.missing, np.nan, x) if value.x.dtype.kind == "b" and value.missing is not None else x
        if isinstance(value, Matrix) and len(value.columns) == 1:
            return value.columns[0]
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return np.float64(value)
        array = (
            np.asarray(value) if not isinstance(value, (str, Categories, Matrix, list)) and value is not None else None
        )
        if array is None or array.dtype.kind not in "iufb" or array.ndim > 1:
            raise self.fail("numbers are needed here")
        return array.astype(np.float64)

    def truth(self, value: Value) -> Any:
        if isinstance(value, Column) and value.x is not None and value.x.dtype.kind == "b":
            return value.x
        if isinstance(value, (bool, np.bool_)) or (isinstance(value, np.ndarray) and value.dtype.kind == "b"):
            return np.asarray(value)
        raise self.fail("a comparison or a truth value is needed on both sides of & and |, and after !")

    # ------------------------------------------------------------ calls

    def on_call(self, node: ast.Call) -> Value:
        callee = node.func.id if isinstance(node.func, ast.Name) else ""  # _f0, _f1 …: checked by the formula
        name = self.factor.functions[int(callee[2:])]
        try:
            args = [self.walk(arg) for arg in node.args]
            options = {str(k.arg): self.walk(k.value) for k in node.keywords}
        except InfiniteError as error:
            raise InfiniteError(f"{error}{INFINITE.get(name, '')}") from error
        try:
            if name in self.outer.env:
                return self.call_env(self.outer.env[name], args, options)
            if name in ("ifelse", "where") and any(isinstance(a, str) or self.is_text(a) for a in args[1:]):
                return self.chosen(*args)
            if name in ELEMENTWISE and not (name in CALLS and (options or len(args) > 1)):
                function = ELEMENTWISE[name]
                return function(*self.elementwise(name, args), **{k: self.number(v) for k, v in options.items()})
            if name in STATEFUL:
                return self.call_stateful(name, node.col_offset, args, options)
            return CALLS[name](self, node.col_offset, *args, **options)
        except (DataError, FormulaError, NotAvailableError):
            raise
        except KeyError as error:
            raise self.fail(f"{name}() is not available here") from error
        except (TypeError, ValueError, IndexError, OverflowError, np.linalg.LinAlgError) as error:
            raise self.fail(misused(name, args, options, error)) from error

    def elementwise(self, name: str, args: list[Value]) -> list[Any]:
        if name in ("ifelse", "where") and args:
            return [self.truth(args[0]), *(self.number(a) for a in args[1:])]
        return [self.number(a) for a in args]

    def chosen(self, test: Value, yes: Value, no: Value) -> Categories:
        """R's `ifelse` of text: a factor whose levels are in the order of text."""
        if any(self.is_text(side) and not side.text for side in (yes, no)):
            raise self.fail("ifelse() takes text, not factors (of which R would take the numbers); as.character(f)")
        pick = np.broadcast_to(self.truth(test), (self.outer.table.n,))
        sides = [self.plain(side) if self.is_text(side) else side for side in (yes, no)]
        rows = np.where(pick, *(np.broadcast_to(np.asarray(side, object), pick.shape) for side in sides))
        labels = [None if label is None else level_name(label) for label in rows.tolist()]
        wanted = sorted({label for label in labels if label is not None})
        index = {label: code for code, label in enumerate(wanted)} | {None: -1}
        return Categories(np.array([index[label] for label in labels], np.int32), Levels.of(wanted), text=True)

    def call_env(self, function: Any, args: list[Value], options: dict[str, Value]) -> Value:
        """Call the caller's function with float arrays, text as arrays of labels; it remembers nothing for new data."""
        given = [self.plain(a) for a in args]
        return function(*given, **{k: self.plain(v) for k, v in options.items()})

    def plain(self, value: Value) -> Any:
        if isinstance(value, Column) and value.codes is not None:
            value = Categories.of(value)
        if isinstance(value, Categories):
            return np.array([*value.levels, None], object)[value.codes]
        return self.number(value) if isinstance(value, (Column, Matrix)) else value

    def call_stateful(self, name: str, at: int, args: list[Value], options: dict[str, Value]) -> Value:
        if not args:
            raise TypeError("the column is missing")
        state = self.state(at)
        x = self.number(args[0])
        if np.ndim(x) != 1:
            raise TypeError("the first argument is a column")
        return STATEFUL[name](np.ascontiguousarray(x), state, *args[1:], **options)

    # ------------------------------------------------------------ factors

    def categories(self, value: Value) -> Categories:
        if isinstance(value, Categories):
            return value
        if not isinstance(value, Column):
            array = np.asarray(value)
            if array.ndim != 1 or array.dtype.kind not in "iufb" or len(array) != self.outer.table.n:
                raise self.fail("a factor is made from a column")
            missing = np.isnan(array) if array.dtype.kind == "f" else None
            value = Column(self.factor.label, array, missing=missing if missing is not None and missing.any() else None)
        return Categories.of(as_factor(value))


def misused(name: str, args: Sequence[Value], options: Mapping[str, Value], error: Exception) -> str:
    """Say how a function was called, how it is called, and what its name means elsewhere."""
    function = _implementation(name)
    why = str(error)
    if function is not None:
        with suppress(ValueError):  # a function that tells no signature
            try:
                own = inspect.signature(function)
                own.replace(parameters=_given(own)).bind(*args, **options)
            except TypeError as wrong:
                why = str(wrong)
    elsewhere = f". In other packages' formulas: {FOREIGN[name]}" if name in FOREIGN else ""
    return f"{name}() does not take these arguments ({why}); it is {signature(name)}{elsewhere}"


def _implementation(name: str) -> Callable[..., Any] | None:
    return CALLS.get(name) or ELEMENTWISE.get(name) or STATEFUL.get(name)


def _given(own: inspect.Signature) -> list[inspect.Parameter]:
    """Return the arguments that a user writes."""
    return [p for p in own.parameters.values() if p.name.lstrip("_") not in ("walk", "at", "state")]


def signature(name: str) -> str:
    """Return the call of a function as a user writes it."""
    function = _implementation(name)
    try:
        shown = _given(inspect.signature(function)) if function else []
    except (TypeError, ValueError):
        return f"{name}(x)"
    words = [f"*{p.name}" if p.kind == p.VAR_POSITIONAL else p.name for p in shown]
    return f"{name}({', '.join(words)})"


def _identity(_walk: _Walk, _at: int, x: Value) -> Value:
    return x


def _numeric(walk: _Walk, at: int, x: Value) -> Value:
    """R's `as.numeric`: of a factor the numbers of its levels, of text the numbers that are written there."""
    if not walk.is_text(x) or getattr(x, "time", False):
        return walk.number(x)
    value, state = walk.categories(x), walk.state(at)
    if state.setdefault("text", value.text):  # what the column fitted was, whatever holds the new data
        return _written(walk, value)
    codes = _reorder(value, state.setdefault("levels", value.levels.tolist()))
    if (new := (codes < 0) & (value.codes >= 0)).any():
        raise walk.fail(
            f"level {value.levels[value.codes[new][0]]!r} has no number: it was not among the levels fitted"
        )
    return np.where(codes < 0, np.nan, codes + 1.0)


def _written(walk: _Walk, value: Categories) -> Array:
    """Return the numbers that labels write."""
    odd = [label for label in value.levels if not is_number(str(label))]
    if odd:
        hint = written_numbers(value) or "as.numeric(factor(x)) numbers the levels"
        raise walk.fail(f"{shorten(odd, 4)} {'are no numbers' if len(odd) > 1 else 'is no number'}; {hint}")
    return np.array([*map(float, value.levels), np.nan])[value.codes]


def _integer(walk: _Walk, at: int, x: Value) -> Value:
    return np.trunc(_numeric(walk, at, x))


def _character(walk: _Walk, _at: int, x: Value) -> Value:
    """R's `as.character`: the labels as text, in the order of text."""
    value = walk.categories(x)
    names = [level_name(label) for label in value.levels]
    wanted = sorted(set(names))
    index = {name: code for code, name in enumerate(wanted)}
    lut = np.array([*(index[name] for name in names), -1], np.int32)
    return Categories(lut[value.codes], Levels.of(wanted), text=True)


def _logical(walk: _Walk, _at: int, x: Value) -> Value:
    """R's `as.logical` of numbers and truth values."""
    if isinstance(x, Column) and x.x is not None and x.x.dtype.kind == "b":
        return x.x
    return walk.number(x) != 0


def _dummy(walk: _Walk, at: int, x: Value, levels: Value = None) -> Value:
    """lme4's `dummy`: a column of 0 and 1 for each of some levels; default: all but the first."""
    value = walk.categories(x)
    known = walk.state(at).setdefault("levels", value.levels.tolist())
    wanted = known[1:] if levels is None else levels if isinstance(levels, list) else [levels]
    labels = {level_name(label) for label in known}
    if unknown := [label for label in wanted if level_name(label) not in labels]:
        raise walk.fail(f"{shorten(unknown)} is no level; the levels are {shorten(known)}")
    if not 0 < len(wanted) <= MAX_COLUMNS:
        raise walk.fail(f"dummy() makes 1 to {MAX_COLUMNS} columns, not {len(wanted)}")
    if new := [label for label in _used(value) if level_name(label) not in labels]:
        raise walk.fail(f"{shorten(new)} is a level that was not among those fitted")
    missing = value.codes < 0
    columns = [np.where(missing, np.nan, walk.equal(value, label)) for label in wanted]
    return Matrix(tuple(columns), tuple(map(level_name, wanted)))


def _used(value: Categories) -> list[Any]:
    return [value.levels[code] for code in np.unique(value.codes) if code >= 0]


def _seq(walk: _Walk, _at: int, start: Value, end: Value, by: Value = 1) -> Value:
    """R's `seq(from, to, by)`."""
    first, last, step = (float(walk.number(v)) for v in (start, end, by))
    if step == 0 or not 0 <= (count := (last - first) / step) <= MAX_LIST:
        raise walk.fail(f"seq() makes up to {MAX_LIST} numbers, from the first towards the last")
    return [first + step * i for i in range(int(count + 1e-10) + 1)]


def _list(_walk: _Walk, _at: int, *items: Value) -> Value:
    return [one for item in items for one in (item if isinstance(item, list) else [item])]


def _on_rows(value: Any, n: int) -> Array:
    """Return a column as it is, a single number for every row."""
    x = np.asarray(value, np.float64)
    return x if x.shape == (n,) else np.broadcast_to(x, (n,))


def _cbind(walk: _Walk, at: int, /, *items: Value, **named: Value) -> Value:
    n = walk.outer.table.n
    columns = [_on_rows(walk.number(item), n) for item in (*items, *named.values())]
    return Matrix(tuple(np.ascontiguousarray(column) for column in columns), labels=(*walk.texts(at), *named))


def _factor(walk: _Walk, at: int, x: Value, levels: Value = None, labels: Value = None, ordered: Value = None) -> Value:
    value = walk.categories(x)
    if levels is None and labels is not None:  # one row of new data has fewer levels than labels
        levels = walk.state(at).setdefault("levels", value.levels.tolist())
    codes, known = value.codes, value.levels
    numbers = isinstance(x, np.ndarray) or (isinstance(x, Column) and x.x is not None)
    listed = isinstance(levels, list) or (numbers and levels is None)
    if levels is not None:
        wanted = list(levels) if isinstance(levels, list) else [levels]
        codes, known = _reorder(value, wanted), Levels.of(wanted)
    if labels is not None:
        if not isinstance(labels, list) or len(labels) != len(known):
            raise walk.fail(f"labels are {len(known)} texts, one a level")
        known = Levels.of(labels)
    meant = value.ordered if ordered is None else bool(ordered)
    return Categories(codes, known, meant, value.coding, listed=listed)


def _droplevels(walk: _Walk, at: int, x: Value) -> Value:
    """Return the factor: levels without rows are dropped from every factor."""
    return _factor(walk, at, x)


def _reorder(value: Categories, wanted: list[Any]) -> Array:
    """Codes for another list of levels; what is not listed becomes missing."""
    index = {label: code for code, label in enumerate(wanted)}
    names = {level_name(label): code for label, code in index.items()}
    lut = [index.get(label, names.get(level_name(label), -1)) for label in value.levels]
    return np.array([*lut, -1], np.int32)[value.codes]


def _ordered(walk: _Walk, at: int, x: Value, levels: Value = None, labels: Value = None) -> Value:
    return _factor(walk, at, x, levels, labels, True)


def _relevel(walk: _Walk, at: int, x: Value, ref: Value) -> Value:
    value = walk.categories(x)
    first = [label for label in value.levels if label == ref or level_name(label) == ref]
    if not first and not walk.state(at):
        raise walk.fail(f"{ref!r} is not a level; the levels are {shorten(value.levels)}")
    walk.state(at)["ref"] = ref
    return Categories(
        _reorder(value, wanted := [*first, *(v for v in value.levels if v not in first)]), Levels.of(wanted)
    )


def _interaction(walk: _Walk, _at: int, *parts: Value, sep: Value = ".", drop: Value = True) -> Value:  # noqa: ARG001
    """R's `interaction`; levels without rows vanish anyhow, dropped or not."""
    values = [walk.categories(part) for part in parts]
    codes, labels = values[0].codes.astype(np.int64), [level_name(v) for v in values[0].levels]
    for value in values[1:]:
        size = len(value.levels)
        if len(labels) * size > 1_000_000:
            raise walk.fail("interaction() of these columns has more than a million combinations; use a:b")
        codes = np.where((codes < 0) | (value.codes < 0), -1, codes + len(labels) * value.codes)
        labels = [f"{a}{sep}{level_name(b)}" for b in value.levels for a in labels]
    return Categories(codes.astype(np.int32), Levels.of(labels))


def _cens(walk: _Walk, _at: int, y: Value, status: Value, upper: Value = None) -> Value:
    """Return a censored response; `status` is text, numbers, or truth values (true: y is a lower bound)."""
    n = walk.outer.table.n
    ends = None if upper is None else np.broadcast_to(np.asarray(walk.number(upper), np.float64), (n,))
    if walk.is_text(status):
        found = walk.categories(status)
        unknown = [label for label in found.levels if str(label) not in STATUS]
        if unknown:
            raise walk.fail(f"status {shorten(unknown)} is unknown; it is 'none', 'left', 'right' or 'interval'")
        codes = np.array([*(STATUS[str(label)] for label in found.levels), 0], np.float64)[found.codes]
    else:
        codes = np.broadcast_to(np.asarray(walk.number(status), np.float64), (n,))
        bad = ~np.isin(codes, [*STATUS.values()]) & ~np.isnan(codes)
        if bad.any():
            raise walk.fail(f"a status is -1 (left), 0 (observed), 1 (right) or 2 (interval); not so in {rows_of(bad)}")
    y = np.broadcast_to(np.asarray(walk.number(y), np.float64), (n,))
    if (codes == 2).any():
        if ends is None:
            raise walk.fail("an interval needs its upper end: cens(y, status, upper)")
        bad = ~(ends > y) & (codes == 2) & ~np.isnan(y) & ~np.isnan(ends)
        if bad.any():
            raise walk.fail(f"the upper end of an interval lies above y; not so in {rows_of(bad)}")
    if ends is not None:  # other rows need no end, and may miss it
        ends = np.where(codes == 2, ends, y)
    return Censored(y, np.where(np.isnan(codes), 0, codes).astype(np.int8), ends)


def _surv(walk: _Walk, at: int, time: Value, event: Value, third: Value = None, type: Value = None) -> Value:  # noqa: A002
    """Return a censored response as R's survival writes it, whose event of 1 is an observed time.

    `Surv(time, event)` with type "right" or "left", the event 0 or 1, 1 or 2, or a truth value; `Surv(time, upper,
    event, type="interval")` with 0 right-censored, 1 observed, 2 left-censored, 3 an interval.
    """
    kind = type or ("right" if third is None else "counting")
    if kind == "interval" and third is not None:
        codes = _events(walk, third)
        if not np.isin(codes, [0, 1, 2, 3]).all():
            raise walk.fail("an event is 0 (right-censored), 1 (observed), 2 (left-censored) or 3 (an interval)")
        return _cens(walk, at, time, np.array([1.0, 0.0, -1.0, 2.0])[codes.astype(int)], event)
    if kind not in ("right", "left") or third is not None:
        raise walk.fail(
            f"Surv() of type {kind!r} is not here: 'right', 'left' and 'interval' are, and cens(y, status); a time of "
            f"entry is a bound, trunc(Surv(time, event), lb = entry)"
        )
    codes = _events(walk, event)
    codes = codes - (codes.max(initial=0.0) == 2)
    if not np.isin(codes, [0, 1]).all():
        raise walk.fail("an event is 0 or 1, 1 or 2, or a truth value; 1 (2, true) says that the time was observed")
    return _cens(walk, at, time, (1.0 - codes) * (1 if kind == "right" else -1))


def _events(walk: _Walk, event: Value) -> Array:
    """Return the codes of events; rows without one, which are left out, count as observed."""
    codes = np.broadcast_to(np.asarray(walk.number(event), np.float64), (walk.outer.table.n,))
    return np.where(np.isnan(codes), 1.0, codes)


def _se(walk: _Walk, _at: int, y: Value, sd: Value, sigma: Value = False) -> Value:
    """Return a response with known standard errors; brms' `sigma = TRUE` is a term here."""
    if sigma:
        raise walk.fail("a residual variance beside known ones is a random effect of every row: + (1 | row)")
    n = walk.outer.table.n
    return Measured(*(np.broadcast_to(np.asarray(walk.number(x), np.float64), (n,)) for x in (y, sd)))


def _trunc(
    walk: _Walk, _at: int, y: Value, lb: Value = None, ub: Value = None, lower: Value = None, upper: Value = None
) -> Value:
    """Return a truncated response: one that would not be in the data if it lay below `lb` or above `ub`."""
    if (lb is not None and lower is not None) or (ub is not None and upper is not None):
        raise walk.fail("lb and lower, ub and upper are the same: give one of them")
    n = walk.outer.table.n
    given = ((lb, lower, -np.inf), (ub, upper, np.inf))
    ends = (next(x for x in sides if x is not None) for sides in given)
    least, most = (np.broadcast_to(np.asarray(walk.number(x), np.float64), (n,)) for x in ends)
    return Truncated(y if isinstance(y, (Matrix, Categories, Censored, Measured)) else walk.number(y), least, most)


def _by_number(walk: _Walk, _at: int, x: Value) -> Value:
    """Return a factor whose text labels stand in the order of the number in them: t1, t2, t10."""
    value = walk.categories(x)
    order = number_order(value.levels.tolist())
    if order is None:
        return value
    return Categories(_reorder(value, picked := [value.levels[i] for i in order]), Levels.of(picked))


#: What to do about infinite arguments of a call.
INFINITE = {
    "trunc": ". A row without a bound has any number beyond all responses there",
    "cens": ". A response that is only known to lie below a value is that value with status 'left', above one 'right'",
}
STATUS = {"none": 0, "left": -1, "right": 1, "interval": 2}


def _num_factor(walk: _Walk, _at: int, *coordinates: Value) -> Value:
    """Return a factor whose levels are the distinct points, named "(1.5,2)" as glmmTMB names them."""
    columns = [np.broadcast_to(walk.number(x), (walk.outer.table.n,)) for x in coordinates]
    if not columns:
        raise TypeError("a coordinate is missing")
    rows = np.column_stack(columns)
    known = ~np.isnan(rows).any(axis=1)
    codes = np.full(len(rows), -1, np.int32)
    points, codes[known] = np.unique(rows[known], axis=0, return_inverse=True)
    return Categories(codes, Levels.of([f"({','.join(map(level_name, point))})" for point in points.tolist()]))


def _cut(
    walk: _Walk,
    at: int,
    x: Value,
    breaks: Value,
    labels: Value = None,
    right: Value = True,
    include_lowest: Value = False,
) -> Value:
    state = walk.state(at)
    x = walk.number(x)
    if not state:
        state["breaks"] = _breaks(x, breaks)
    cuts = np.array(state["breaks"])
    if labels not in (None, False) and (not isinstance(labels, list) or len(labels) != len(cuts) - 1):
        raise walk.fail(f"labels are {len(cuts) - 1} texts, one an interval")
    codes = np.searchsorted(cuts, x, "left" if right else "right") - 1
    if include_lowest:
        codes = np.where(x == cuts[0 if right else -1], 0 if right else len(cuts) - 2, codes)
    codes = np.where(np.isfinite(x) & (codes >= 0) & (codes < len(cuts) - 1), codes, -1)
    if labels is False:  # R: the numbers of the intervals
        return np.where(codes < 0, np.nan, codes + 1.0)
    return Categories(codes.astype(np.int32), Levels.of(labels or _intervals(cuts, bool(right))))


def _breaks(x: Array, breaks: Value) -> list[float]:
    """R's `cut`: given breaks, or so many intervals of equal width, the range widened by a thousandth."""
    if isinstance(breaks, list):
        cuts = sorted(float(b) for b in breaks)
        if len(cuts) < 2 or len(set(cuts)) < len(cuts):
            raise ValueError("breaks are two or more distinct numbers")
        return cuts
    if not 2 <= breaks <= MAX_COLUMNS:
        raise ValueError(f"the number of intervals lies between 2 and {MAX_COLUMNS}")
    low, high = float(np.nanmin(x)), float(np.nanmax(x))
    width = (high - low) or abs(low) or 1.0
    cuts = np.linspace(low, high if high > low else low + width, int(breaks) + 1)
    cuts[0], cuts[-1] = low - width / 1000, high + width / 1000
    return cuts.tolist()


def _intervals(cuts: Array, right: bool) -> list[str]:
    digits = next((d for d in range(3, 16) if len({f"{c:.{d}g}" for c in cuts}) == len(cuts)), 16)
    shown = [f"{c:.{digits}g}".replace("inf", "Inf") for c in cuts]
    pattern = "({},{}]" if right else "[{},{})"
    return [pattern.format(a, b) for a, b in pairwise(shown)]


def _coded(
    walk: _Walk,
    at: int,
    x: Value,
    contr: Value = None,
    levels: Value = None,
    contrasts: Value = None,
    base: Value = None,
    how_many: Value = None,
) -> Value:
    """C(x, sum): a factor with its own contrasts; `C(x, contr, 2)` and `how.many = 2` keep the first two."""
    if levels is not None and not isinstance(levels, list):
        levels, how_many = None, levels
    value, state = _factor(walk, at, x, levels), walk.state(at)
    coding = contr if contr is not None else contrasts
    if coding is not None and "coding" not in state:  # rows of new data have fewer levels
        state["coding"] = _coding_of(walk, coding, value.levels, base, how_many)
    return Categories(value.codes, value.levels, value.ordered, state.get("coding"))


def _coding_of(walk: _Walk, coding: Value, levels: Levels, base: Value, how_many: Value) -> Coding:
    """Return the contrasts that C() was given."""
    if isinstance(coding, str) and base is not None:
        coding = _Counted(coding, None, base)
    if isinstance(coding, _Counted):
        coding = coding.of(walk, levels)
    if isinstance(coding, list):
        coding = np.array(coding, np.float64)
    coding = read_coding(coding, walk.factor.label)
    if how_many is None:
        return coding
    made, names = contrast(coding, levels, walk.factor.label)
    if not isinstance(how_many, int) or not 0 < how_many <= made.shape[1]:
        raise walk.fail(f"of these contrasts there are 1 to {made.shape[1]}, not {how_many}")
    return GivenContrasts(made[:, :how_many], tuple(names[:how_many]))


@dataclass(frozen=True)
class _Counted:
    """R's contr.treatment(n, base): n levels, of which that at place `base`, counted from 1, is the reference."""

    kind: str
    n: Value
    base: Value

    def of(self, walk: _Walk, levels: Levels) -> Coding:
        """Return the contrasts of a factor of these levels."""
        n = len(self.n) if isinstance(self.n, list) else self.n
        if n is not None and n != len(levels):
            raise walk.fail(f"contr.{self.kind}({n}) is for {n} levels; these are {len(levels)}: {shorten(levels)}")
        if self.base is None or isinstance(self.base, str):
            return self.kind if self.base is None else (self.kind, self.base)
        if self.kind != "treatment" or not isinstance(self.base, int) or not 0 < self.base <= len(levels):
            raise walk.fail(f"base= is the place of a reference level, 1 to {len(levels)}, of contr.treatment")
        return (self.kind, levels[self.base - 1])


def _coding_call(kind: str) -> Callable[..., Value]:
    def call(_walk: _Walk, _at: int, n: Value = None, base: Value = None) -> Value:
        return _Counted(kind, n, base)

    return call


def _by_label(_walk: _Walk, _at: int, reference: Value = None) -> Value:
    return "treatment" if reference is None else ("treatment", reference)


CALLS: dict[str, Callable[..., Value]] = {
    "C": _coded, "I": _identity, "as.character": _character, "as.factor": _factor, "as.integer": _integer,
    "as.logical": _logical, "as.numeric": _numeric, "as.ordered": _ordered, "byNumber": _by_number, "c": _list,
    "cbind": _cbind, "cens": _cens, "cut": _cut, "droplevels": _droplevels,
    "dummy": _dummy, "factor": _factor, "interaction": _interaction,
    "Surv": _surv, "numFactor": _num_factor, "ordered": _ordered, "relevel": _relevel, "se": _se, "seq": _seq,
    "Treatment": _by_label, "trunc": _trunc,
    **{name: _coding_call(CODINGS[name]) for name in CODINGS if name.startswith("contr.")},
}  # fmt: skip

_VISIT: dict[type[ast.AST], Callable[[_Walk, Any], Value]] = {
    ast.Constant: _Walk.on_constant, ast.List: _Walk.on_list, ast.Name: _Walk.on_name, ast.BinOp: _Walk.on_binop,
    ast.UnaryOp: _Walk.on_unaryop, ast.BoolOp: _Walk.on_boolop, ast.Compare: _Walk.on_compare, ast.Call: _Walk.on_call,
}  # fmt: skip
