"""Files as the `gpueinsum` command reads and writes them: arrays and plans."""

from __future__ import annotations

import tokenize
from pathlib import Path
from typing import Any

import numpy as np

from gpueinsum.files import replacement
from gpueinsum.language.plan import Plan


class UsageError(ValueError):
    """A file or an argument that the command cannot use."""


def check_file(option: str, path: Path) -> None:
    """Say before the work rather than after it that a file cannot be written."""
    if not path.parent.is_dir():
        raise UsageError(f"{option} {path}: there is no folder {path.parent}")
    if path.exists() and not path.is_file():
        raise UsageError(f"{option} {path} is {'a folder' if path.is_dir() else 'no file that can be replaced'}")


def load_array(path: Path) -> np.ndarray[Any, Any]:
    """The array in a file: a memory map of the file, or read where numpy cannot map it, as without elements."""
    try:
        try:
            return np.asarray(np.lib.format.open_memmap(path, mode="r"))
        except ValueError:
            with path.open("rb") as file:
                return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
    except (ValueError, EOFError, SyntaxError, tokenize.TokenError) as error:  # a header is parsed as a literal
        raise UsageError(f"{path} is no .npy file that can be read: {error}") from error


def load_plan(path: Path) -> Plan:
    """The plan that a file holds as JSON."""
    try:
        return Plan.from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:  # PlanError, or no UTF-8
        raise UsageError(f"{path}: {error}") from error


def store_array(result: np.ndarray[Any, Any], out: Path) -> None:
    """Write an .npy file whole or not at all."""
    try:  # what a link points to is replaced, not the link
        with replacement(out.resolve()) as beside, beside.open("xb") as file:
            np.save(file, result, allow_pickle=False)
    except ValueError as error:
        raise UsageError(f"an .npy file cannot hold {result.dtype}: {error}") from error
