"""The sessions of the README and of the pages in docs/ are run, and print what the pages say."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from ranef.families.table import entries

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def sessions(page: Path) -> str:
    """Return the sessions of a page as one, with the blank lines of their output as doctest wants them."""
    found = re.findall(r"^```pycon\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^$", "<BLANKLINE>", "".join(found).rstrip("\n"), flags=re.MULTILINE) + "\n"


@pytest.mark.parametrize("page", [page for page in PAGES if ">>> " in page.read_text()], ids=lambda page: page.stem)
def test_sessions(page, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    test = doctest.DocTestParser().get_doctest(sessions(page), {}, page.name, str(page), 0)
    found = doctest.DocTestRunner(optionflags=OPTIONS).run(test)
    assert found.attempted > 5
    assert found.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_is_in_sessions(page):
    """A block that is not run would go stale."""
    assert not re.search(r"^```py(thon)?$", page.read_text(), flags=re.MULTILINE)


def test_every_family_is_described():
    rows = (ROOT / "docs" / "models.md").read_text().replace(r"\|", "|").splitlines()
    for name, entry in entries().items():
        assert any(row.startswith(f"| `{name}` | ") and f"| {entry.note} |" in row for row in rows), name
