"""Reports of long work: a bar on a terminal, or a function of the caller's."""

import io
import sys

import pytest

from gpueinsum import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def to_terminal(monkeypatch):
    """In a test, since pytest puts an own one in place when its fixtures are made."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    return sys.stderr


def test_a_bar_is_shown_on_a_terminal(monkeypatch):
    pytest.importorskip("tqdm", reason="tqdm is not installed: no bars")
    terminal = to_terminal(monkeypatch)
    monkeypatch.setattr(progress, "_BAR_AFTER", 0.0)
    assert list(progress.track(range(50), "slices")) == list(range(50))
    with progress.reports(8000, "slices", None, done=2000) as report:
        report(5000)
    bars = terminal.getvalue().split("\r")
    assert "50.0/50.0" in terminal.getvalue()
    assert "2.00k/8.00k" in terminal.getvalue()
    assert any("5.00k/8.00k" in bar and "slices/s" in bar for bar in bars)


def test_no_bar_is_shown_of_short_work_or_without_a_terminal_or_tqdm(monkeypatch):
    terminal = to_terminal(monkeypatch)
    assert list(progress.track(range(50), "slices")) == list(range(50))
    with progress.asking(False):
        assert progress.track(range(50), "slices") == range(50)
    assert terminal.getvalue() == ""
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert progress.track(range(50), "slices") == range(50)
    for stream in (io.StringIO(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        assert progress.track(range(50), "slices") == range(50)


def test_a_function_is_told_what_is_done_after_each(monkeypatch):
    terminal, told = to_terminal(monkeypatch), []
    with progress.asking(lambda done, total: told.append((done, total))):
        for number in progress.track(range(3), "slices"):
            assert len(told) == number
    assert told == [(1, 3), (2, 3), (3, 3)]
    with progress.reports(8, "slices", lambda *given: told.append(given), done=4) as report:
        report(6)
    assert told[3:] == [(6, 8)]
    assert progress.track(range(3), "slices") is not None
    assert terminal.getvalue() == ""
