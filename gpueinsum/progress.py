"""A bar on stderr for what takes long."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

_DELAY = 2.0  # seconds before a bar is shown


def bar(total: float, unit: str) -> AbstractContextManager[Any]:
    """A bar as a context whose value has `update(number)`, shown in a terminal if tqdm is there."""
    try:
        from tqdm import tqdm
    except ImportError:
        return nullcontext(SimpleNamespace(update=lambda number: None))
    shown: AbstractContextManager[Any] = tqdm(total=total, unit=unit, disable=None, delay=_DELAY, leave=False)
    return shown
