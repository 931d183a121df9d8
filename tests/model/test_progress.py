"""`seed=` and `progress=` of a fit: the one is checked and changes nothing, the other shows one line on stderr."""

from __future__ import annotations

import sys
from typing import Any

import pytest

import ranef as rf
from ranef.errors import OptionError
from ranef.progress import Line, Progress, Searching, onlooker

SLEEP = rf.datasets.load("sleepstudy")
CALL = ("Reaction ~ Days + (Days | Subject)", SLEEP)
SLOW = {"optimizer": "scipy:Nelder-Mead"}  # Python evaluates, so that every evaluation is told


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting before a line, nor between two."""
    monkeypatch.setattr("ranef.progress.PATIENCE", 0.0)
    monkeypatch.setattr("ranef.progress.PAUSE", 0.0)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("more", [{}, {"family": "gamma", "link": "log"}], ids=["linear", "generalised"])
def test_a_fit_shows_where_it_is(capsys: pytest.CaptureFixture[str], more: dict[str, Any]):
    m = rf.fit(*CALL, control=SLOW, progress=True, **more)
    *lines, gone = capsys.readouterr().err.split("\r")[1:]
    assert lines[0].startswith("fit: 1 evaluation, criterion ")
    assert f"criterion {m.criterion:.5g}" in lines[-2]
    assert gone == ""
    assert not lines[-1].strip()  # the line is taken away


@pytest.mark.usefixtures("hasty")
def test_progress_changes_no_digit():
    shown, silent = (rf.fit(*CALL, progress=show) for show in (True, False))
    assert shown.criterion == silent.criterion
    assert shown.params.tolist() == silent.params.tolist()


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("show", [None, False])
def test_nothing_is_shown_unless_somebody_looks(capsys: pytest.CaptureFixture[str], show: bool | None):
    rf.fit(*CALL, control=SLOW, progress=show)
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("hasty")
def test_a_terminal_is_looked_at(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    rf.fit(*CALL, control=SLOW)
    assert "fit: " in capsys.readouterr().err


@pytest.mark.usefixtures("hasty")
def test_work_within_work_is_silent(capsys: pytest.CaptureFixture[str]):
    with Progress("refits", 2, True) as outer, Progress("profile", 9, True) as inner:
        inner.advance()
        rf.fit(*CALL, control=SLOW, progress=True)
        outer.advance()
    told = capsys.readouterr().err
    assert "refits: 1 of 2" in told
    assert "profile" not in told
    assert "fit:" not in told


def test_an_error_takes_the_line_away():
    with pytest.raises(ZeroDivisionError), Searching("fit", True):
        _ = 1 / (onlooker() is None)
    assert onlooker() is None
    line = Line(True)
    assert line.shown
    line.close()


def test_no_stderr_is_no_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stderr", None)  # as under pythonw
    assert rf.fit(*CALL, progress=True).converged


@pytest.mark.parametrize("seed", [0, 7, None])
def test_no_seed_changes_a_fit(seed: int | None):
    assert rf.fit(*CALL, seed=seed).criterion == rf.fit(*CALL).criterion


@pytest.mark.parametrize("seed", [-1, 1.5, "one", True])
def test_seeds_are_whole_numbers(seed: Any):
    with pytest.raises(OptionError, match="whole number"):
        rf.fit(*CALL, seed=seed)


def test_progress_is_a_truth_value():
    with pytest.raises(OptionError, match="progress='yes'"):
        rf.fit(*CALL, progress="yes")  # pyright: ignore[reportArgumentType]
