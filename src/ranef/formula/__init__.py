"""Floor 1: formula text to description. `parse("y ~ x + (x | g)")` gives a `Formula` of `Term`s and `Bar`s; no data.

Grammar: Wilkinson's and lme4's, as in R: ``+ - : * / ^ %in% 0 1 .``, ``(x | g)``, ``(x || g)``, ``(1 | a/b)``, ``(1 |
a:b)``, ``(1 | f*g)``, ``offset(x)``, structure wrappers ``cs(1 + x | g)``, calls of the functions in
`ranef.formula.functions`.
"""

from __future__ import annotations

from collections.abc import Iterable

from ranef.formula.terms import INTERCEPT, Bar, Factor, Formula, Term

__all__ = ["INTERCEPT", "Bar", "Factor", "Formula", "Term", "parse"]


def parse(text: str, functions: Iterable[str] = ()) -> Formula:
    """Read a formula, as lme4 would.

    Parameters
    ----------
    text : str
        For example ``"reaction ~ days + (days | subject)"``.
    functions : iterable of str
        Names of functions that the text may call beside the listed ones (the keys of the caller's `env=`).

    Returns
    -------
    Formula
        Cached by text.

    Raises
    ------
    FormulaError
        If the text is no formula; shows it with the spot marked. Nothing else is ever raised, whatever the text.

    Examples
    --------
    >>> import ranef as rf
    >>> f = rf.parse("y ~ x + (1 | a/b)")
    >>> [bar.label for bar in f.bars]
    ['a', 'a:b']
    """
    from ranef.formula.grammar import _parse, read

    try:
        return _parse(text, frozenset(functions))
    except TypeError:  # not hashable, so not text: `read` says so
        return read(text)
