"""The README's tour is run, and prints what the README says."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def tour() -> str:
    """Return the sessions of the README, with the blank lines of their output as doctest wants them."""
    sessions = re.findall(r"^```pycon\n(.*?)^```$", README.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^$", "<BLANKLINE>", "".join(sessions).rstrip("\n"), flags=re.MULTILINE) + "\n"


def test_tour():
    test = doctest.DocTestParser().get_doctest(tour(), {}, "README", str(README), 0)
    found = doctest.DocTestRunner(optionflags=OPTIONS).run(test)
    assert found.attempted > 5
    assert found.failed == 0
