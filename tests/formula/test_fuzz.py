"""Whatever text comes in, `parse` gives a formula or a FormulaError, and what it gives can be read back."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ranef.errors import FormulaError
from ranef.formula import parse
from ranef.formula.functions import FUNCTIONS, STRUCTURES

PIECES = [
    "y",
    "x",
    "z",
    "g",
    "a.b",
    "`a b`",
    "1",
    "0",
    "2",
    "-1",
    ".",
    "~",
    "+",
    "-",
    "*",
    "/",
    ":",
    "^",
    "**",
    "%in%",
    "%%",
    "|",
    "||",
    "(",
    ")",
    "(1|g)",
    "(x||g)",
    "offset(",
    "I(",
    "poly(x, 2)",
    "log(",
    ",",
    "=",
    "<-",
    "'",
    '"',
    "`",
    "TRUE",
    "[",
    "]",
    "{",
    "}",
    "!",
    "&",
    "<",
    ">=",
    "==",
    "lambda",
    "not",
    "in",
    "and",
    "\n",
    "\t",
    "\\",
    "\0",
    "é",
    "²",
    "٣",
    "🎈",
    "#",
    ";",
    "@",
    *sorted(FUNCTIONS)[::4],
    *(f"{s}(" for s in sorted(STRUCTURES)),
]
soup = st.lists(st.sampled_from(PIECES), max_size=25).map(" ".join) | st.lists(
    st.sampled_from(PIECES), max_size=25
).map("".join)

names = st.sampled_from(["x", "z", "w.1", "`a b`", "log(x)", "I(x^2)", "factor(k)", "poly(z, 2)"])
sums = st.recursive(
    names,
    lambda inner: st.builds(
        lambda a, op, b: f"({a} {op} {b})", inner, st.sampled_from(["+", "*", ":", "/", "-", "%in%"]), inner
    ),
    max_leaves=5,
)
group = st.sampled_from(["g", "h", "g/h", "g:h", "g*h", "factor(k)", "a/b/c"])
bar = st.builds("({}{} {} {})".format, st.sampled_from(["", "0 + ", "1 + "]), sums, st.sampled_from(["|", "||"]), group)
legal = st.builds(
    lambda lhs, ones, terms: f"{lhs} ~ {ones}{' + '.join(terms)}",
    st.sampled_from(["y", "log(y)", "", "y/n"]),
    st.sampled_from(["", "0 + ", "1 + "]),
    st.lists(sums | bar | st.just("offset(w)"), min_size=1, max_size=4),
)


def outcome(text):
    found = None
    try:
        return parse(text)
    except FormulaError as error:
        found = error.position
    assert found is None or 0 <= found <= max(len(text), 1)
    return None


@pytest.mark.parametrize("prefix", ["", "y ~ ", "y ~ x + (1 | g) + ", "y ~ I(", "y ~ (x | "])
@given(text=soup | st.text(max_size=60))
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_only_formula_errors_escape(prefix, text):
    formula = outcome(prefix + text)
    if formula is not None and not formula.dot:
        assert parse(str(formula)) == formula


@given(text=legal)
@settings(max_examples=400, deadline=None)
def test_legal_formulas_round_trip(text):
    formula = outcome(text)
    if formula is not None:  # a bar may lose all its columns: (x - x | g)
        assert parse(str(formula)) == formula
        assert formula.update(". ~ .") == formula if formula.lhs else True


@given(text=legal, change=soup)
@settings(max_examples=200, deadline=None)
def test_update_raises_formula_errors_only(text, change):
    formula = outcome(text)
    if formula is None:
        return
    with suppress(FormulaError):
        formula.update(change)


@pytest.mark.parametrize(
    ("text", "instead"),
    [("y ∼ x", "write ~"), ("y ~ x + (1 ∣ g)", r"write \|"), ("y ~ x − 1", "write -"), ("y ~ “x”", "write `")],
)
def test_characters_of_copied_text_are_named(text, instead):
    with pytest.raises(FormulaError, match=instead):
        parse(text)


@pytest.mark.parametrize("text", ["y ~ []", "y ~ [x]", "y ~ x + [(1 | g)]"])
def test_brackets_have_no_meaning(text):
    with pytest.raises(FormulaError, match="has no meaning here"):
        parse(text)
