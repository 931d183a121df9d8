"""The README's tour is run, and prints what the README says."""

from __future__ import annotations

import doctest
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_tour():
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    found = doctest.testfile(str(README), module_relative=False, optionflags=options)
    assert found.attempted > 5
    assert found.failed == 0
