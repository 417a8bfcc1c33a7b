"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacement(path: Path) -> Iterator[Path]:
    """A new path beside `path`, to be written to; it becomes `path` at the end, or goes if anything fails."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text, in a folder that is made if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacement(path) as beside:
        beside.write_text(text, encoding="utf-8")
