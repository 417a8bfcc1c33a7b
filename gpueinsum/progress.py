"""Long work, reported as it goes on: by a bar on a terminal, or to a function of the caller's."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any

Report = Callable[[float], object]  # how much is done
Progress = Callable[[Any, Any], object] | bool | None  # of what is done and what there is; False for no report

_BAR_AFTER = 2.0  # seconds: shorter work needs no bar
_asked: ContextVar[Progress] = ContextVar("gpueinsum_progress", default=None)


@contextlib.contextmanager
def asking(progress: Progress) -> Iterator[None]:
    """What is tracked inside is reported in this way."""
    token = _asked.set(progress)
    try:
        yield
    finally:
        _asked.reset(token)


def track(numbers: range, unit: str) -> Iterable[int]:
    """The numbers, with a report when the work on each is done."""
    progress = _asked.get()
    return _tracked(numbers, unit, progress) if callable(progress) or _has_bar(progress) else numbers


def _tracked(numbers: range, unit: str, progress: Progress) -> Iterator[int]:
    with reports(len(numbers), unit, progress) as report:
        for done, number in enumerate(numbers, 1):
            yield number
            report(done)


@contextlib.contextmanager
def reports(total: float, unit: str, progress: Progress, done: float = 0) -> Iterator[Report]:
    """A function to call with how much is done. By default it moves a bar on standard error, where there is one.

    A bar needs a terminal and tqdm, and is shown when the work has taken two seconds.
    """
    if callable(progress):
        function = progress
        yield lambda done: function(done, total)
    elif _has_bar(progress):
        with bar(total, unit, done) as shown:
            yield lambda done: shown.update(done - shown.n)
    else:
        yield lambda done: None


def bar(total: float, unit: str, done: float = 0) -> Any:
    """tqdm's bar on standard error."""
    from tqdm import tqdm

    return tqdm(total=total, initial=done, unit=f" {unit}", unit_scale=True, delay=_BAR_AFTER, dynamic_ncols=True)


def _has_bar(progress: Progress) -> bool:
    if progress is False or sys.stderr is None or not sys.stderr.isatty():
        return False
    try:
        import tqdm  # noqa: F401  # it may be missing
    except ImportError:
        return False
    return True
