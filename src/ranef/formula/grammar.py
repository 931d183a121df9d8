"""From text to `Formula`: formulaic's tokenizer, shunting yard and syntax tree with lme4's operators in its table.

The passes, in order: tokens (formulaic) -> marks: operators split, calls read, intercepts made explicit, every
misplaced mark reported with its position -> tree (formulaic) -> terms, bars and offsets (the operators' functions
below) -> `Formula`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from ranef.errors import FormulaError
from ranef.formula._formulaic import (
    ASTNode,
    FormulaicError,
    Operator,
    OperatorResolver,
    Token,
    tokenize,
    tokens_to_ast,
)
from ranef.formula.expression import quote, read_expression
from ranef.formula.functions import FOREIGN, FUNCTIONS, STRUCTURE_ALIASES, STRUCTURES
from ranef.formula.terms import INTERCEPT, Bar, Factor, Formula, Term, factors_of, retext, sort_terms

MAX_LENGTH = 100_000
MAX_DEPTH = 40
MAX_TERMS = 20_000
#: What typesetters and word processors make of the characters of a formula.
LOOKALIKES = {
    "∼": "~",
    "˜": "~",
    "∣": "|",
    "ǀ": "|",
    "│": "|",
    "×": "* or :",
    "−": "-",
    "–": "-",
    "ˆ": "^",
} | dict.fromkeys("“”„‘’´", '` or "')
KNOWN = FUNCTIONS | STRUCTURES | {"offset"}
DOT = re.compile(r"(?<![\w.])\.(?![\w.])")

Kind = Token.Kind


@dataclass(frozen=True)
class Offset:
    """`offset(factor)` among the terms."""

    factor: Factor


@dataclass(frozen=True)
class NoIntercept:
    """What a bare `-1` inside parentheses leaves behind: the sum it joins loses its intercept."""


Item = Term | Bar | Offset | NoIntercept
Items = dict[Item, None]  # an ordered set


@dataclass(frozen=True)
class _Context:
    """What the passes need to know beside the tokens."""

    text: str
    functions: frozenset[str]
    dot: tuple[Item, ...] | None  # what `.` stands for; None leaves it to the frame
    order: dict[str, int]  # label of a factor -> rank of its first appearance outside bars
    strict: bool = False  # whether what `-` takes away must be there

    def fail(self, message: str, position: int | None) -> FormulaError:
        return FormulaError(message, self.text, position)


# ---------------------------------------------------------------- tokens -> marks


class Leaf(Token):
    """An operand: the items it stands for, or a number (an exponent)."""

    __slots__ = ("items",)

    def __init__(self, items: Items | int, text: str, position: int) -> None:
        super().__init__(text, kind=Kind.NAME, source_start=position)
        self.items = items

    def to_terms(self, **_: Any) -> Any:
        """Return what the operand stands for."""
        return self.items


def _operator(symbol: str, position: int) -> Token:
    return Token(symbol, kind=Kind.OPERATOR, source_start=position)


def _context(symbol: str, position: int) -> Token:
    return Token(symbol, kind=Kind.CONTEXT, source_start=position)


def _is(token: Token, *symbols: str) -> bool:
    """Tell whether a token is one of some marks (and no name or text that looks like it)."""
    return token.kind in (Kind.OPERATOR, Kind.CONTEXT) and token.token in symbols


SYMBOLS = re.compile(r"\*\*|\|\||[~|+\-*/:^.]")


def _split(token: Token, text: str) -> Iterator[Token]:
    """Split a run of operator characters into operators with their positions."""
    start, symbols = token.source_start or 0, token.token
    if text[start] == "%":
        yield _operator(f"%{symbols}%", start)
        return
    for symbol in SYMBOLS.findall(symbols) if not SYMBOLS.sub("", symbols) else symbols:
        start = text.index(symbol[0], start)
        yield _operator(symbol, start)
        start += len(symbol) if text.startswith(symbol, start) else 1


def _marks(context: _Context, start: int, end: int) -> list[Token]:
    """Formulaic's tokens of text[start:end] with operators split and positions in the whole text."""
    part = context.text[start:end]
    out: list[Token] = []
    for token in tokenize(part):
        if token.kind is Kind.OPERATOR:
            out.extend(_split(token, part))
        else:
            out.append(token)
    for token in out:
        token.source_start = (token.source_start or 0) + start
    return _labelled(out)


def _labelled(marks: list[Token]) -> list[Token]:
    """Turn `|name|` into one bar that carries the name."""
    out: list[Token] = []
    i = 0
    while i < len(marks):
        three = marks[i : i + 3]
        if len(three) == 3 and _is(three[0], "|") and three[1].kind is Kind.NAME and _is(three[2], "|"):
            bar = _operator("|", three[0].source_start or 0)
            bar.source = three[1].token  # the label travels with the operator
            out.append(bar)
            i += 3
        else:
            out.append(marks[i])
            i += 1
    return out


def _rewrite(marks: list[Token], context: _Context) -> list[Token]:
    """Turn names, numbers and calls into leaves, zeros into `- 1`, and wrapped bars into prefix operators."""
    out: list[Token] = []
    for i, token in enumerate(marks):
        position = token.source_start or 0
        blank_call = token.kind is Kind.NAME and i + 1 < len(marks) and _is(marks[i + 1], "(")
        if blank_call and context.text[position] != "`":
            raise context.fail(
                "write the parenthesis right after the function's name, or put an operator between", position
            )
        if token.kind is Kind.VALUE:
            out.extend(_number(token, out, context))
            if i + 1 < len(marks) and _is(marks[i + 1], "/") and not _is(marks[i - 1], "^", "**"):
                raise context.fail("`/` nests terms; a reciprocal is arithmetic, which goes inside I(...)", position)
        elif token.kind is Kind.NAME:
            out.append(_name(token, context))
        elif token.kind is Kind.PYTHON:
            out.extend(_call(token, context))
        elif token.kind is Kind.CONTEXT and not _is(token, "(", ")"):
            raise context.fail(f"`{token.token}` has no meaning here; group terms with parentheses", position)
        else:
            out.append(token)
    return out


def _number(token: Token, before: list[Token], context: _Context) -> list[Token]:
    position, value = token.source_start or 0, token.token
    if value == ".":
        return [_dot(position, context)]
    if before and _is(before[-1], "^", "**") and value.isdecimal():
        return [Leaf(int(value[:4]), value, position)]
    if value == "0":
        return [_operator("-", position), Leaf({INTERCEPT: None}, "1", position)]
    if value == "1":
        return [Leaf({INTERCEPT: None}, "1", position)]
    if before and before[-1].kind is Kind.OPERATOR and before[-1].token[0] in "<>=!":
        raise _refused(before[-1], context)
    if value[0] in "\"'":
        raise context.fail("text in quotes is not a term; back-quote a column name: `a name`", position)
    raise context.fail("a number other than 0 and 1 is not a term; arithmetic goes inside I(...)", position)


def _dot(position: int, context: _Context) -> Leaf:
    if context.dot is None:
        raise context.fail("`.` (all other columns) has no meaning here", position)
    for factor in factors_of(item for item in context.dot if isinstance(item, Term)):
        context.order.setdefault(factor.label, len(context.order))
    return Leaf(dict.fromkeys(context.dot), ".", position)


def _name(token: Token, context: _Context) -> Leaf:
    name, position = token.token, token.source_start or 0
    if context.text[position] != "`" and (name[0].isdigit() or (name[:1] == "." and name[1:2].isdigit())):
        raise context.fail("a name cannot begin with a digit; back-quote it: `1st`", position)
    label = quote(name)
    context.order.setdefault(label, len(context.order))
    return Leaf({Term((Factor(label, "_v0", (name,), (), position),)): None}, name, position)


def _call(token: Token, context: _Context) -> list[Token]:
    """Read a call: a wrapped bar, an offset, or a factor."""
    position, source = token.source_start or 0, token.token
    if context.text[position] == "{":
        raise context.fail("braces have no meaning in a formula; use I(...)", position)
    name = source[: source.index("(")] if "(" in source else source
    pieces = _arguments(source[len(name) + 1 : -1]) if source.endswith(")") else []
    if name == "offset":
        return [_offset(pieces, source, position, context)]
    if pieces and _has_bar(pieces[0][0]) and (name in STRUCTURES or name not in FUNCTIONS | context.functions):
        return _wrapper(STRUCTURE_ALIASES.get(name, name), pieces, position, position + len(name), context)
    factor = read_expression(source, context.text, position, context.functions)
    context.order.setdefault(factor.label, len(context.order))
    return [Leaf({Term((factor,)): None}, source, position)]


def _offset(pieces: list[tuple[str, int]], source: str, position: int, context: _Context) -> Leaf:
    if len(pieces) != 1:
        raise context.fail("offset() takes one expression", position)
    factor = read_expression(pieces[0][0], context.text, position + len("offset("), context.functions)
    return Leaf({Offset(factor): None}, source, position)


def _wrapper(name: str, pieces: list[tuple[str, int]], position: int, opening: int, context: _Context) -> list[Token]:
    """`cs(1 + x | g, …)` becomes the prefix operator `cs` on `(1 + x | g)`."""
    if name not in STRUCTURES:
        known = ", ".join(sorted({*STRUCTURES, *STRUCTURE_ALIASES}))
        raise context.fail(f"unknown covariance structure `{name}`; known are {known}", position)
    start = opening + 1
    inside = _rewrite(_marks(context, start, start + len(pieces[0][0])), context)
    head = _operator(name, position)
    head.source = "\0".join(
        re.sub(r"\s*=\s*", " = ", piece.strip()) for piece, _ in pieces[1:]
    )  # the other arguments travel with the operator
    return [head, _context("(", start - 1), *inside, _context(")", start + len(pieces[0][0]))]


def _arguments(inside: str) -> list[tuple[str, int]]:
    """Split the inside of a call at its top-level commas: (text, offset)."""
    pieces, depth, start, quoted = [], 0, 0, ""
    for i, char in enumerate(inside):
        if quoted:
            quoted = "" if char == quoted else quoted
        elif char in "\"'`":
            quoted = char
        elif char in "([":
            depth += 1
        elif char in ")]":
            depth -= 1
        elif char == "," and depth == 0:
            pieces.append((inside[start:i], start))
            start = i + 1
    pieces.append((inside[start:], start))
    return pieces


def _has_bar(piece: str) -> bool:
    """Whether `|` stands in the piece outside parentheses, quotes and comparisons (a bar, not a logical or)."""
    plain = re.sub(r"`[^`]*`|\"[^\"]*\"|'[^']*'", "", piece)
    while (shorter := re.sub(r"\([^()]*\)", "", plain)) != plain:
        plain = shorter
    return "|" in plain and not re.search(r"[<>=!]", plain)


# ---------------------------------------------------------------- a mark in the wrong place


def _check(marks: list[Token], context: _Context, end: int) -> list[Token]:
    """Check that operands and operators alternate, merge runs of signs, and say where they do not."""
    out: list[Token] = []
    for token in marks:
        operand_next = not out or out[-1].kind is Kind.OPERATOR or _is(out[-1], "(")
        if token.kind is Kind.OPERATOR:
            _check_operator(token, out, operand_next, context)
        elif _is(token, ")"):
            if operand_next:
                raise context.fail("something is missing before this parenthesis", token.source_start)
            out.append(token)
        elif not operand_next:
            raise context.fail("an operator (+, :, * …) is missing before this", token.source_start)
        else:
            out.append(token)
    if out and out[-1].kind is Kind.OPERATOR:
        raise context.fail(f"something is missing after `{out[-1].token}`", min(end, len(context.text)))
    return out


def _check_operator(token: Token, out: list[Token], operand_next: bool, context: _Context) -> None:
    symbol = token.token
    if symbol not in OPERATORS and symbol not in STRUCTURES:
        raise _refused(token, context)
    if symbol in STRUCTURES and not operand_next:
        raise context.fail("an operator (+ …) is missing before this", token.source_start)
    if symbol in "+-" and out and _is(out[-1], *"+-"):
        minus = (symbol == "-") != _is(out[-1], "-")
        out[-1] = _operator("-" if minus else "+", token.source_start or 0)
    elif operand_next and symbol in "+-" and (not out or _is(out[-1], "(")):
        out.append(_operator(f"unary{symbol}", token.source_start or 0))
    elif operand_next and symbol not in STRUCTURES:
        raise context.fail(f"something is missing before `{symbol}`", token.source_start)
    else:
        out.append(token)


def _refused(token: Token, context: _Context) -> FormulaError:
    """Refuse an operator; of `==` each sign is a token."""
    at = token.source_start or 0
    first = next((i for i in (at - 1, at) if context.text.startswith("==", i)), None)
    return context.fail(_refuse(token.token), at) if first is None else context.fail(_refuse("=="), first)


def _refuse(symbol: str) -> str:
    if symbol == "~":
        return "a formula has one `~`"
    if symbol in ("=", "<-"):
        return f"`{symbol}` has no meaning here: a formula is `response ~ terms`, without assignment"
    if symbol.startswith("%"):
        return f"unknown operator `{symbol}`; only %in% has a meaning here, arithmetic goes inside I(...)"
    if symbol == ",":
        return "a comma has a meaning only inside a call"
    if symbol in LOOKALIKES:
        return f"`{symbol}` is not the character of the keyboard, as happens in copied text: write {LOOKALIKES[symbol]}"
    return f"`{symbol}` has no meaning here; arithmetic and comparisons go inside I(...)"


def _check_parentheses(text: str) -> None:
    """Every parenthesis has its partner, every quote its end, and nothing nests too deeply."""
    opened: list[int] = []
    quoted: tuple[str, int] | None = None
    for i, char in enumerate(text):
        if quoted:
            quoted = None if char == quoted[0] and text[i - 1] != "\\" else quoted
        elif char in "\"'`":
            quoted = (char, i)
        elif char in "([{":
            opened.append(i)
        elif char in ")]}" and (not opened or "([{".index(text[opened.pop()]) != ")]}".index(char)):
            raise FormulaError(f"this `{char}` closes nothing", text, i)
        if len(opened) > MAX_DEPTH:
            raise FormulaError("parentheses are nested too deeply", text, i)
    if quoted:
        raise FormulaError("this quote is not closed", text, quoted[1])
    if opened:
        raise FormulaError("this parenthesis is not closed", text, opened[-1])


# ---------------------------------------------------------------- intercepts and bars


def _explicit(marks: list[Token], context: _Context, intercept: bool) -> list[Token]:
    """Put `1 +` at the start of the right-hand side and of every bar, where R has it without saying so."""
    opened: list[int] = []
    starts: dict[int, int] = {}
    for i, token in enumerate(marks):
        if token.kind is Kind.CONTEXT:
            _ = opened.append(i) if _is(token, "(") else opened.pop()
        elif _is(token, "|", "||"):
            if not opened:
                raise context.fail(
                    "random effects stand in parentheses: (x | g); extra zeros have their formula in zero_inflation=",
                    token.source_start,
                )
            if opened[-1] in starts:
                raise context.fail("one bar inside a pair of parentheses: (x | g)", token.source_start)
            starts[opened[-1]] = token.source_start or 0
    out = _one(0) if intercept else []
    for i, token in enumerate(marks):
        out.append(token)
        if i in starts:
            out.extend(_one(token.source_start or 0))
            if i + 1 < len(marks) and marks[i + 1].source_start == starts[i]:
                raise context.fail("nothing stands before the bar; write (1 | g) for a random intercept", starts[i])
    return out


def _one(position: int) -> list[Token]:
    return [Leaf({INTERCEPT: None}, "1", position), _operator("+", position)]


# ---------------------------------------------------------------- operators: items -> items


def _plus(_context: _Context, _at: int, left: Items, right: Items) -> Items:
    items = {**left, **right}
    if NoIntercept() in right:
        items.pop(INTERCEPT, None)
        items.pop(NoIntercept(), None)
    return items


def _minus(context: _Context, at: int, left: Items, right: Items) -> Items:
    if context.strict and INTERCEPT not in right and not any(item in left for item in right):
        named = {item: f"offset({item.factor})" if isinstance(item, Offset) else str(item) for item in left}
        there = ", ".join(text for item, text in named.items() if not isinstance(item, NoIntercept)) or "none"
        raise context.fail(f"this takes away a term that is not there; there are {there}", at)
    return {item: None for item in left if item not in right}


def _prefix_minus(_context: _Context, _at: int, right: Items) -> Items:
    return {NoIntercept(): None} if INTERCEPT in right else {}


def _product(context: _Context, at: int, left: Items, right: Items) -> Items:
    a, b = _terms(context, at, left), _terms(context, at, right)
    if len(a) * len(b) > MAX_TERMS:
        raise context.fail(f"this makes more than {MAX_TERMS} terms", at)
    return dict.fromkeys(s * t for s in a for t in b)


def _cross(context: _Context, at: int, left: Items, right: Items) -> Items:
    return {**left, **right, **_product(context, at, left, right)}


def _nest(context: _Context, at: int, left: Items, right: Items) -> Items:
    parent = Term()
    for term in _terms(context, at, left):
        parent = parent * term
    return {**left, **_product(context, at, {parent: None}, right)}


def _within(context: _Context, at: int, left: Items, right: Items) -> Items:
    parent = Term()
    for term in _terms(context, at, right):
        parent = parent * term
    return dict.fromkeys(t * parent for t in _terms(context, at, left))


def _power(context: _Context, at: int, left: Items, right: Items | int) -> Items:
    if not isinstance(right, int) or right < 1:
        raise context.fail("an exponent outside I(...) is a positive whole number: (a + b)^2", at)
    items = left
    for _ in range(right - 1):
        more = {**items, **_product(context, at, items, left)}
        if len(more) == len(items):
            break
        items = more
    return items


def _terms(context: _Context, at: int, items: Items, message: str = "") -> list[Term]:
    """Return the items as terms; bars and offsets cannot be multiplied."""
    terms = [item for item in items if isinstance(item, Term)]
    if len(terms) < len(items):
        raise context.fail(message or "random effects and offsets can only be added, with +", at)
    return terms


def _bar(structure: str, context: _Context, at: int, left: Items, right: Items, name: str = "") -> Items:
    """`(left | right)`: one bar for every term on the right."""
    columns, groups = (
        _terms(context, at, side, "a bar holds terms and grouping factors only") for side in (left, right)
    )
    if not columns:
        raise context.fail("no column is left before the bar; write (1 | g) for a random intercept", at)
    if not groups or not all(t.factors for t in groups):
        raise context.fail("after the bar stands a grouping factor, not a number", at)
    terms = sort_terms(columns, {f.label: i for i, f in enumerate(factors_of(columns))})
    groups.sort(key=lambda t: t.degree)
    if name and len(groups) > 1:
        raise context.fail("a labelled bar has one grouping: (x |id| a:b)", at)
    return dict.fromkeys(Bar(terms, t.factors, structure, position=at, name=name) for t in groups)


def _wrap(structure: str, args: tuple[str, ...], context: _Context, at: int, items: Items) -> Items:
    bars = [item for item in items if isinstance(item, Bar) and item.structure == "us"]
    if len(bars) < len(items):
        raise context.fail(f"{structure}() takes one bar with a single |: {structure}(1 + x | g)", at)
    label = next((b.name for b in bars if b.name), "")
    if label and structure != "us":
        raise context.fail(
            f"{structure}(… |{label}| …): a label lets the effects of several formulas correlate freely; write "
            f"(… |{label}| …) for that, or {structure}(… | …) in each formula, without correlations between them",
            at,
        )
    return dict.fromkeys(Bar(b.terms, b.factors, structure, args, at, name=b.name) for b in bars)


@dataclass(frozen=True)
class _Row:
    """One operator: how it binds and what it makes."""

    precedence: int
    function: Callable[..., Items]
    arity: int = 2


OPERATORS: dict[str, _Row] = {
    "|": _Row(-50, partial(_bar, "us")),
    "||": _Row(-50, partial(_bar, "diag")),
    "+": _Row(100, _plus),
    "-": _Row(100, _minus),
    "unary+": _Row(100, lambda _context, _at, items: items, 1),
    "unary-": _Row(100, _prefix_minus, 1),
    "*": _Row(200, _cross),
    "/": _Row(200, _nest),
    "%in%": _Row(250, _within),
    ":": _Row(300, _product),
    "^": _Row(500, _power),
    "**": _Row(500, _power),
}


class _Op(Operator):
    """An operator at its place in the text."""

    def __init__(self, symbol: str, row: _Row, context: _Context, position: int) -> None:
        super().__init__(
            symbol,
            arity=row.arity,
            precedence=row.precedence,
            associativity="left",
            fixity="infix" if row.arity == 2 else "prefix",
            structural=True,
        )
        self.row, self.context, self.position = row, context, position

    def to_terms(self, *args: Any, **_: Any) -> Any:
        """Apply the operator to its operands."""
        return self.row.function(self.context, self.position, *args)


class _Resolver(OperatorResolver):
    """formulaic's hook: from an operator's token to what it does."""

    def __init__(self, context: _Context) -> None:
        self.context = context

    @property
    def operators(self) -> list[Operator]:
        return []

    def resolve(self, token: Token) -> Generator[tuple[Token, list[Operator]], None, None]:
        row = OPERATORS.get(token.token)
        if row is not None and _is(token, "|") and token.source:
            row = _Row(row.precedence, partial(_bar, "us", name=token.source))
        if row is None:  # a structure wrapper
            args = tuple((token.source or "").split("\0")) if token.source else ()
            row = _Row(1000, partial(_wrap, token.token, args), 1)
        yield token, [_Op(token.token, row, self.context, token.source_start or 0)]


# ---------------------------------------------------------------- the whole


def _items(context: _Context, start: int, intercept: bool) -> Items:
    """Read the right-hand side, which begins at `start`."""
    marks = _rewrite(_marks(context, start, len(context.text)), context)
    if not marks:
        raise context.fail("nothing stands after `~`; write `~ 1` for the intercept alone", len(context.text))
    marks = _check(_explicit(marks, context, intercept), context, len(context.text))
    tree = tokens_to_ast(marks, _Resolver(context))
    items = tree.to_terms() if isinstance(tree, (ASTNode, Token)) else {}
    if not isinstance(items, dict):
        raise context.fail("a number is not a term", start)
    return items


def _tilde(text: str) -> int:
    """Return the position of the one `~` outside quotes and calls."""
    plain = re.sub(r"`[^`]*`|\"[^\"]*\"|'[^']*'", lambda m: " " * len(m.group()), text)
    at = plain.find("~")
    if at < 0:
        if like := re.search("[∼˜]", plain):
            raise FormulaError(_refuse(like.group()), text, like.start())
        arrow = re.search(r"<-|=", plain)
        hint = "a formula needs a `~` between the response and its terms: y ~ x + (1 | g)"
        raise FormulaError(hint, text, arrow.start() if arrow else len(text.rstrip()))
    if (again := plain.find("~", at + 1)) >= 0:
        raise FormulaError("a formula has one `~`", text, again)
    if "(" in plain[:at] and plain[:at].count("(") != plain[:at].count(")"):
        raise FormulaError("`~` has no meaning inside parentheses", text, at)
    return at


def _left(text: str, end: int, functions: frozenset[str]) -> Factor | None:
    source = text[:end]
    start = len(source) - len(source.lstrip())
    if beside := BESIDE.search(source):  # brms' additions to a response; those that are no functions here are unknown
        name = beside[1]
        said = FOREIGN.get(name, f"what is known of a response stands around it: {name}(y, …)")
        raise FormulaError(said, text, beside.start())
    return read_expression(source.strip(), text, start, functions) if source.strip() else None


def _assemble(lhs: Factor | None, items: Items, context: _Context, dot: bool) -> Formula:
    terms = sort_terms((i for i in items if isinstance(i, Term)), context.order)
    bars = tuple(i for i in items if isinstance(i, Bar))
    offsets = tuple(i.factor for i in items if isinstance(i, Offset))
    return Formula(lhs, terms, bars, offsets, context.text, dot)


def _prepare(text: object) -> str:
    if not isinstance(text, str):
        raise FormulaError(
            f"a formula is text such as 'y ~ x + (1 | g)', not {type(text).__name__}; the data come after it"
        )
    if len(text) > MAX_LENGTH:
        raise FormulaError(f"a formula has at most {MAX_LENGTH} characters; this one has {len(text)}")
    text = BLANK_CALL.sub(_close_up, PACKAGE.sub(_without_package, re.sub(r"\s", " ", text)))
    _check_parentheses(text)
    return text


PACKAGE = re.compile(r"`[^`]*`|\"[^\"]*\"|'[^']*'|(?<![\w.])([^\W0-9][\w.]*:::?)(?=[^\W0-9][\w.]* *\(|contr\.)")


def _without_package(match: re.Match[str]) -> str:
    """`splines::ns(x)` as `         ns(x)`: every other character keeps its place."""
    return " " * len(match.group(1)) if match.group(1) else match.group()


BESIDE = re.compile(r"\|\s*(se|cens|trunc)\s*\(")
BLANK_CALL = re.compile(r"`[^`]*`|\"[^\"]*\"|'[^']*'|(?<![\w.])([^\W0-9][\w.]*)( +)(?=\()")


def _close_up(match: re.Match[str]) -> str:
    """`log (x)` as ` log(x)`: R allows the blank; every other character keeps its place."""
    name, blank = match.group(1), match.group(2)
    return blank + name if name in KNOWN else match.group()


def read(text: str, functions: frozenset[str] = frozenset(), columns: tuple[str, ...] | None = None) -> Formula:
    """Read a formula; `columns` is what `.` may stand for (all of them but those used elsewhere in the formula)."""
    text = _prepare(text)
    tilde = _tilde(text)
    lhs = _left(text, tilde, functions)
    dot = _has_dot(text[tilde:])
    context = _Context(text, functions, () if dot else None, {})
    formula = _assemble(lhs, _guarded(context, tilde + 1, True), context, dot)
    if not dot or columns is None:
        return formula
    rest = [Term((Factor(quote(name), "_v0", (name,)),)) for name in columns if name not in formula.variables]
    context = _Context(text, functions, tuple(rest), {})
    return _assemble(lhs, _guarded(context, tilde + 1, True), context, False)


def read_update(old: Formula, change: str) -> Formula:
    """R's `update`: in `change`, `.` is the old response on the left and the old terms on the right."""
    text = _prepare(change)
    tilde = _tilde(text)
    left = text[:tilde].strip()
    functions = frozenset(f for x in old.factors for f in x.functions)
    if left in ("", "."):
        lhs = old.lhs
    else:
        left = DOT.sub(lambda _: old.lhs.label if old.lhs else ".", left)
        lhs = read_expression(left, left, 0, functions)
    was = (*(t for t in old.fixed if t.factors), *(Offset(f) for f in old.offset_factors), *old.bars)
    context = _Context(text, functions, was, {}, strict=True)
    return retext(
        _assemble(lhs, _guarded(context, tilde + 1, old.intercept or not _has_dot(text[tilde:])), context, False)
    )


def _has_dot(text: str) -> bool:
    """Whether `.` stands for itself, outside quotes."""
    return bool(DOT.search(re.sub(r"`[^`]*`|\"[^\"]*\"|'[^']*'", "", text)))


def _guarded(context: _Context, start: int, intercept: bool) -> Items:
    """Read the right-hand side; what formulaic still finds wrong becomes a FormulaError."""
    try:
        return _items(context, start, intercept)
    except FormulaicError as error:
        if found := re.search("%%", context.text[start:]):  # which the tokenizer takes for an open quotation
            raise context.fail(_refuse(found.group()), start + found.start()) from error
        raise context.fail(f"this formula cannot be read: {str(error).splitlines()[0]}", None) from error
    except RecursionError:
        raise context.fail("this formula is nested too deeply", None) from None


@lru_cache(maxsize=1024)
def _parse(text: str, functions: frozenset[str]) -> Formula:
    return read(text, functions)
