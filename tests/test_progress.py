"""A bar where somebody looks at it, and nothing elsewhere."""

import io
import sys

import pytest

from gpueinsum import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stderr", "is_shown"), [(Terminal(), True), (io.StringIO(), False), (None, False)])
def test_a_bar_is_shown_in_a_terminal_only(stderr, is_shown, monkeypatch):
    pytest.importorskip("tqdm", reason="bars are tqdm's")
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(progress, "_DELAY", 0.0)
    with progress.bar(3, "slices") as bar:
        bar.update(2)
        bar.update(1)
    assert ("/3 [" in stderr.getvalue() if stderr else False) == is_shown


def test_no_bar_is_shown_without_tqdm(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with progress.bar(3, "slices") as bar:
        bar.update(3)
    assert sys.stderr.getvalue() == ""
