"""What users call is documented in full, and the examples of all docstrings are run and print what they say."""

from __future__ import annotations

import doctest
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from importlib import import_module

import pytest

import ranef as rf
from ranef.priors.densities import TABLE

OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
DOORS = {  # what users call in the rooms of the package that are opened as a whole
    "datasets": ["describe", "load", "names"],
    "families": ["describe", "names"],
    "plot": rf.plot.__all__,
    "prior": ["blme", *TABLE],
}


def called() -> dict[str, Callable]:
    """Return everything that users call: functions of `rf`, of its rooms, and methods of what they return."""
    found = {name: getattr(rf, name) for name in rf.__all__ if name != "__version__"}
    functions = {name: f for name, f in found.items() if inspect.isfunction(f)}
    functions |= {f"{room}.{name}": getattr(getattr(rf, room), name) for room, names in DOORS.items() for name in names}
    for kind in (c for c in found.values() if inspect.isclass(c)):
        methods = {name: f for name, f in vars(kind).items() if inspect.isfunction(f) and not name.startswith("_")}
        functions |= {f"{kind.__name__}.{name}": f for name, f in methods.items()}
    return functions


def sessions() -> Iterator[doctest.DocTest]:
    for module in pkgutil.walk_packages(rf.__path__, "ranef."):
        if not module.name.endswith(("_core", "__main__")):
            found = doctest.DocTestFinder().find(import_module(module.name))
            yield from (test for test in found if test.examples)


@pytest.mark.parametrize("session", list(sessions()), ids=lambda test: test.name.removeprefix("ranef."))
def test_examples_print_what_they_say(session, monkeypatch):
    """Examples import what they use: they are run as a reader would, without the names of their module."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    session.globs = {"__name__": "example"}
    assert doctest.DocTestRunner(optionflags=OPTIONS).run(session).failed == 0


@pytest.mark.parametrize("name", list(called()))
def test_parameters_are_documented_and_there_is_an_example(name):
    function = called()[name]
    text = inspect.getdoc(function) or ""
    parameters = [p for p in inspect.signature(function).parameters if p != "self"]
    listed = re.search(r"^Parameters\n-+\n(.*?)(?=^\w+\n-+\n|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^(\S.*)$", listed[1] if listed else "", flags=re.MULTILINE)
    names = {n.strip(" *") for heading in headings for n in heading.split(" : ")[0].split(",")}
    assert not [p for p in parameters if p not in names]
    assert ">>> " in text
