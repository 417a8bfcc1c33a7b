"""How much the tests repeat: all of it with GPUEINSUM_LONG=1 in the environment, otherwise what takes minutes."""

import os
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")

LONG = os.environ.get("GPUEINSUM_LONG") == "1"


def shorten(repetitions: Sequence[Item]) -> Sequence[Item]:
    """The first third of them, at least one; all of them in a long run."""
    return repetitions if LONG else repetitions[: -(-len(repetitions) // 3)]
