"""A bar on stderr for what takes long."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from types import SimpleNamespace
from typing import Any

_DELAY = 2.0  # seconds before a bar is shown


def bar(total: float, unit: str) -> AbstractContextManager[Any]:
    """A bar as a context whose value has `update(number)`, shown in a terminal if tqdm is there."""
    if sys.stderr is not None and sys.stderr.isatty():
        with suppress(ImportError):
            from tqdm import tqdm

            shown: AbstractContextManager[Any] = tqdm(total=total, unit=unit, delay=_DELAY, leave=False)
            return shown
    return nullcontext(SimpleNamespace(update=lambda number: None))
