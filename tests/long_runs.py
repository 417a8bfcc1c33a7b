"""How much the tests repeat: all of it with GPUEINSUM_LONG=1 in the environment, otherwise what takes minutes."""

import os
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

Item = TypeVar("Item")

LONG = os.environ.get("GPUEINSUM_LONG") == "1"


def shorten(repetitions: Sequence[Item]) -> Sequence[Item]:
    """The first third of them, at least one; all of them in a long run."""
    return repetitions if LONG else repetitions[: -(-len(repetitions) // 3)]


def one_of_each(kind: Callable[[Item], Hashable], items: Sequence[Item]) -> Sequence[Item]:
    """The first of each kind; all of them in a long run."""
    first = {kind(item): item for item in reversed(items)}
    return items if LONG else [item for item in items if first[kind(item)] is item]
