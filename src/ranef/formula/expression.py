"""From one R (or Python) expression, `poly(x, 2)` or `I(x^2)`, to a `Factor`: rewritten, labelled as in R, checked.

R's spellings are rewritten piece by piece into a Python expression over placeholders (`^` -> `**`, `TRUE` -> `True`,
names with dots and back-quoted names -> `_v0`, functions -> `_f0`). Python's own parser then reads it, and every node
must be on the list below. Nothing is ever evaluated as text.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from math import isfinite
from typing import Any

from ranef.errors import FormulaError
from ranef.formula.functions import CODINGS, FOREIGN, FUNCTIONS
from ranef.formula.terms import Factor

TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?L?)
    |(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<quoted>`[^`]+`)
    |(?P<name>[^\W0-9][\w.]*|\.[^\W0-9][\w.]*)
    |(?P<op>%[^%\s]*%|\*\*|<=|>=|==|!=|&&|\|\||[-+*/^<>=!&|(),:\[\]])""",
    re.VERBOSE,
)
# R operator -> (Python, as R prints it between its operands)
BINARY = {
    "^": ("**", "^"), "**": ("**", "^"), "*": ("*", " * "), "/": ("/", "/"), "+": ("+", " + "), "-": ("-", " - "),
    "<": ("<", " < "), ">": (">", " > "), "<=": ("<=", " <= "), ">=": (">=", " >= "), "==": ("==", " == "),
    "!=": ("!=", " != "), "&": ("and", " & "), "&&": ("and", " & "), "|": ("or", " | "), "||": ("or", " | "),
    ":": ("@", ":"), "%%": ("%", "%%"), "%/%": ("//", "%/%"), "%in%": ("in", " %in% "),
}  # fmt: skip
UNARY = {"-": ("-", "-"), "+": ("+", "+"), "!": ("not", "!")}
WORDS = {"TRUE": "True", "FALSE": "False", "NULL": "None", "True": "True", "False": "False", "None": "None"}
PYTHON_WORDS = {"and": "&", "or": "|", "in": "%in%"}
RESERVED = {*WORDS, *PYTHON_WORDS, "not"}
OUTSIDE = {
    ")": "this `)` closes nothing",
    "]": "this `]` closes nothing",
    ",": "a comma has no meaning here",
    "=": "`=` does not belong in a formula; write `~` between the response and its terms",
}
NODES = (
    ast.Expression, ast.Call, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Constant, ast.Name, ast.List,
    ast.keyword, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context,
)  # fmt: skip
MAX_TOKENS = 200
MAX_EXPONENT = 64


@dataclass
class _Reader:
    """The state of one left-to-right pass over the tokens of an expression."""

    text: str  # the whole formula, for messages
    start: int  # where the expression starts in it
    functions: frozenset[str]  # what may be called
    code: list[str] = field(default_factory=list)
    where: list[int] = field(default_factory=list)  # position in `text` of every entry of `code`
    label: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    called: list[str] = field(default_factory=list)
    operand_next: bool = True
    following: str = ""  # the next token
    calls: list[list[Any]] = field(default_factory=list)  # [function or "", arguments so far] of every open parenthesis

    def fail(self, message: str, offset: int) -> FormulaError:
        return FormulaError(message, self.text, self.start + offset)

    def put(self, code: str, label: str, offset: int, operand_next: bool) -> None:
        self.code.append(code)
        self.where.append(self.start + offset)
        self.label.append(label)
        self.operand_next = operand_next

    def placeholder(self, name: str, kind: str) -> str:
        pool = self.names if kind == "_v" else self.called
        if name not in pool:
            pool.append(name)
        return f"{kind}{pool.index(name)}"

    @property
    def in_coding(self) -> bool:
        """Whether this is the second argument of C(), where a name means a coding and not a column."""
        return bool(self.calls) and self.calls[-1][0] == "C" and self.calls[-1][1] > 0


def read_expression(source: str, text: str, start: int, extra: frozenset[str] = frozenset()) -> Factor:
    """Read `source`, which stands at `start` in `text`, into a checked `Factor`.

    Raises
    ------
    FormulaError
        If it is not an expression of the allowed kind; marks the offending character.
    """
    reader = _Reader(text, start, FUNCTIONS | extra)
    tokens = list(_scan(source, reader))
    if not tokens:
        raise reader.fail("an expression is missing here", 0)
    for i, (kind, piece, offset) in enumerate(tokens):
        reader.following = tokens[i + 1][1] if i + 1 < len(tokens) else ""
        _READ[kind](reader, piece, offset)
    code = " ".join(reader.code)
    _check(code, reader)
    return Factor("".join(reader.label), code, tuple(reader.names), tuple(reader.called), start)


def _scan(source: str, reader: _Reader) -> Iterator[tuple[str, str, int]]:
    """Yield (kind, piece, offset) of every piece that is not blank."""
    offset = count = 0
    while offset < len(source):
        match = TOKEN.match(source, offset)
        count += 1
        if match is None:
            raise reader.fail(_refusal(source[offset]), offset)
        if count > MAX_TOKENS:
            raise reader.fail("this expression is too long; compute it as a column of the data", offset)
        if match.lastgroup != "space":
            yield str(match.lastgroup), match.group(), offset
        offset = match.end()


def _refusal(char: str) -> str:
    if char in "\"'`":
        return "this quote is not closed"
    if char in "{}@$;\\?~":
        return f"`{char}` has no meaning inside a call of a formula"
    return f"the character {char!r} has no meaning here"


def _operand(reader: _Reader, offset: int) -> None:
    if not reader.operand_next:
        raise reader.fail("an operator or a comma is missing before this", offset)


def _read_number(reader: _Reader, piece: str, offset: int) -> None:
    _operand(reader, offset)
    if len(piece) > 30:
        raise reader.fail("this number is too long", offset)
    digits = piece.rstrip("L")
    if digits.isdigit():  # 007 is 7
        digits = digits.lstrip("0") or "0"
    reader.put(digits, number_label(digits), offset, False)


def number_label(digits: str) -> str:
    """Return a number as R writes it in names: 15 digits, and the shorter of 100 and 1e+02 (fixed where they tie)."""
    value = float(digits)
    if not isfinite(value):
        return digits
    mantissa, power = f"{value:.14e}".split("e")
    mantissa, exponent = mantissa.rstrip("0").rstrip("."), int(power)
    fixed = f"{value:.{max(len(mantissa.partition('.')[2]) - exponent, 0)}f}"
    scientific = f"{mantissa}e{exponent:+03d}"
    return fixed if len(fixed) <= len(scientific) else scientific


def _read_string(reader: _Reader, piece: str, offset: int) -> None:
    _operand(reader, offset)
    value = re.sub(r"\\(.)", r"\1", piece[1:-1], flags=re.DOTALL)
    shown = value.replace("\\", "\\\\").replace('"', '\\"')
    reader.put(ascii(value), f'"{shown}"', offset, False)


def _read_quoted(reader: _Reader, piece: str, offset: int) -> None:
    _operand(reader, offset)
    name = piece[1:-1]
    reader.put(reader.placeholder(name, "_v"), quote(name), offset, False)


def _read_name(reader: _Reader, piece: str, offset: int) -> None:
    if piece in PYTHON_WORDS and not reader.operand_next:
        _read_operator(reader, PYTHON_WORDS[piece], offset)
    elif piece == "not" and reader.operand_next and reader.following != "(":
        _read_operator(reader, "!", offset)
    else:
        _operand(reader, offset)
        _read_operand(reader, piece, offset)


def _read_operand(reader: _Reader, piece: str, offset: int) -> None:
    if reader.following == "(":
        _read_function(reader, piece, offset)
    elif reader.following == "=":
        _read_keyword(reader, piece, offset)
    elif piece in WORDS:
        reader.put(WORDS[piece], piece, offset, False)
    elif piece in CODINGS and reader.in_coding:
        reader.put(repr(CODINGS[piece]), piece, offset, False)
    else:
        reader.put(reader.placeholder(piece, "_v"), piece, offset, False)


def _read_function(reader: _Reader, piece: str, offset: int) -> None:
    head, _, tail = piece.partition(".")
    name = tail if head in ("np", "numpy") and tail in FUNCTIONS else piece
    if name not in reader.functions:
        raise reader.fail(unknown_function(piece), offset)
    reader.calls.append([name, 0])
    reader.put(reader.placeholder(name, "_f"), piece, offset, True)


def _read_keyword(reader: _Reader, piece: str, offset: int) -> None:
    word = piece.replace(".", "_")
    if not (word.isidentifier() and word.isascii()) or word.startswith("_"):
        raise reader.fail(f"`{piece}` cannot name an argument", offset)
    reader.put(word, piece, offset, True)


def _read_operator(reader: _Reader, piece: str, offset: int) -> None:
    if piece in "([":
        _open(reader, piece, offset)
    elif piece in ")],=":
        _within_call(reader, piece, offset)
    elif reader.operand_next and piece in UNARY:
        reader.put(*UNARY[piece], offset, True)
    elif piece in BINARY:
        reader.put(*BINARY[piece], offset, True)
    else:
        raise reader.fail(f"the operator `{piece}` has no meaning in an expression", offset)


def _open(reader: _Reader, piece: str, offset: int) -> None:
    if piece == "[" and not reader.operand_next:
        raise reader.fail("square brackets have no meaning here; compute it as a column of the data", offset)
    if piece == "[" or not reader.code or not reader.code[-1].startswith("_f"):
        reader.calls.append(["", 0])
    reader.put(piece, piece, offset, True)


def _within_call(reader: _Reader, piece: str, offset: int) -> None:
    """Read what has a meaning inside parentheses only."""
    if not reader.calls:
        raise reader.fail(OUTSIDE[piece], offset)
    if piece == ",":
        reader.calls[-1][1] += 1
    elif piece != "=":
        reader.calls.pop()
    reader.put(piece, {",": ", ", "=": " = "}.get(piece, piece), offset, piece in ",=")


_READ = {
    "number": _read_number,
    "string": _read_string,
    "quoted": _read_quoted,
    "name": _read_name,
    "op": _read_operator,
}


def quote(name: str) -> str:
    """Return the name as R prints it in a formula: back-quoted unless it is an R name."""
    plain = re.fullmatch(r"(?:[^\W0-9]|\.[^\W0-9])[\w.]*", name) and name not in RESERVED
    return name if plain else f"`{name}`"


def unknown_function(name: str) -> str:
    """Say that a function is unknown, with the nearest known one and what to do."""
    import difflib

    if name in FOREIGN:
        return f"unknown function `{name}`: {FOREIGN[name]}"
    near = difflib.get_close_matches(name, sorted(FUNCTIONS), 1)
    hint = f" (did you mean `{near[0]}`?)" if near else ""
    return (
        f"unknown function `{name}`{hint}. Formulas may call the functions listed in ranef.formula.functions only; "
        f"to allow another one, pass it in env={{{name!r}: ...}}, or compute the column beforehand"
    )


@lru_cache(maxsize=1024)
def tree(code: str) -> ast.expr:
    """Return the syntax tree of a `Factor.code`."""
    return ast.parse(code, mode="eval").body


@lru_cache(maxsize=1024)
def arguments(code: str, at: int) -> tuple[str, ...]:
    """Return the positional arguments of the call that begins at a place of a `Factor.code`, as code."""
    calls = (node for node in ast.walk(tree(code)) if isinstance(node, ast.Call))
    return tuple(map(ast.unparse, next(node for node in calls if node.col_offset == at).args))


def _check(code: str, reader: _Reader) -> None:
    try:
        root = tree(code)
    except SyntaxError as error:
        raise FormulaError("this is not a complete expression", reader.text, _position(reader, error.offset)) from None
    except (ValueError, RecursionError, MemoryError):
        raise reader.fail("this expression is nested too deeply", 0) from None
    for node in ast.walk(root):
        _check_node(node, reader)


def _check_node(node: ast.AST, reader: _Reader) -> None:
    offset = getattr(node, "col_offset", -1) + 1
    if not isinstance(node, NODES) or (isinstance(node, ast.keyword) and node.arg is None):
        raise FormulaError("this is not allowed in a formula", reader.text, _position(reader, offset))
    if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id.startswith("_f")):
        raise FormulaError("only a function can be called", reader.text, _position(reader, offset))
    if isinstance(node, ast.Compare) and len(node.ops) > 1:
        raise FormulaError("write a chain of comparisons as (a < b) & (b < c)", reader.text, _position(reader, offset))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult) and any(map(_is_name, ast.walk(node))):
        message = "a range such as 1:3 has numbers at its ends; interactions stand outside of calls"
        raise FormulaError(message, reader.text, _position(reader, offset))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        _check_exponent(node.right, reader)


def _is_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Name)


def _check_exponent(node: ast.expr, reader: _Reader) -> None:
    """Exponents are numbers of ordinary size or columns: no towers of powers."""
    size = getattr(node.operand if isinstance(node, ast.UnaryOp) else node, "value", 0)
    tower = any(isinstance(n, ast.BinOp) and isinstance(n.op, ast.Pow) for n in ast.walk(node))
    if tower or not isinstance(size, (int, float)) or size > MAX_EXPONENT:
        where = _position(reader, node.col_offset + 1)
        raise FormulaError(f"exponents are numbers up to {MAX_EXPONENT}, or columns", reader.text, where)


def _position(reader: _Reader, offset: int | None) -> int:
    """Map a 1-based column of the rewritten code to a position in the formula."""
    if not reader.where:
        return reader.start
    column = 0
    for entry, where in zip(reader.code, reader.where, strict=True):
        column += len(entry) + 1
        if offset is not None and offset <= column:
            return where
    return reader.where[-1]
