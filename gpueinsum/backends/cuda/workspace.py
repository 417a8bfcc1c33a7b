"""Where the memories of a program lie: from work on memories by number to offsets in one workspace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpueinsum.backends.cuda.program import Address, Work

ALIGNMENT = 256  # bytes, as CUDA's own allocations: every vectorised load and cuBLAS' fastest kernels are content


class Lifetime(NamedTuple):
    """So many bytes, from the first launch that touches them to the last, both included."""

    bytes: int
    first: int
    last: int


def places(
    work: Sequence[Work], operands: int, results: Iterable[int], nbytes: Sequence[int]
) -> tuple[dict[int, Address], int]:
    """The address of each memory that the work touches, and how many bytes the workspace has.

    The first memories are the operands'. The `results` outlive a run and have memory of their own; all others are in
    the workspace while they are needed. `nbytes` are those of each memory.
    """
    own = [*range(operands), *results]
    places = {memory: Address(number, 0) for number, memory in enumerate(own)}
    touched: dict[int, list[int]] = {}
    for turn, launch in enumerate(work):
        for address in launch.addresses:
            if address.memory not in places:
                touched.setdefault(address.memory, []).append(turn)
    # A memory of no bytes has an address all the same.
    lifetimes = [Lifetime(max(1, nbytes[memory]), turns[0], turns[-1]) for memory, turns in touched.items()]
    starts, workspace = offsets(lifetimes)
    places |= {memory: Address(len(own), start) for memory, start in zip(touched, starts, strict=True)}
    return places, workspace


def offsets(lifetimes: Sequence[Lifetime]) -> tuple[list[int], int]:
    """Where each lies, in bytes, so that no two that live at once overlap, and how many bytes that takes together.

    The largest goes first; each goes to the tightest gap that its contemporaries leave (best fit). Every size counts in
    whole multiples of ALIGNMENT.

    >>> offsets([Lifetime(1000, 0, 1), Lifetime(300, 1, 2), Lifetime(900, 2, 3)])
    ([0, 1024, 0], 1536)
    """
    starts = [0] * len(lifetimes)
    placed = np.empty((4, 0), np.int64)  # start, end, first, last of each, by their starts
    for number in sorted(range(len(lifetimes)), key=lambda number: -lifetimes[number].bytes):
        nbytes, first, last = lifetimes[number]
        size = -(-nbytes // ALIGNMENT) * ALIGNMENT
        starts[number] = start = _tightest_gap(placed[:2, (placed[2] <= last) & (placed[3] >= first)], size)
        at = np.searchsorted(placed[0], start)
        placed = np.insert(placed, at, (start, start + size, first, last), axis=1)
    return starts, int(placed[1].max(initial=0))


def _tightest_gap(taken: np.ndarray[Any, Any], size: int) -> int:
    """Where the smallest gap of at least `size` bytes begins between these (starts, ends), or where they end."""
    starts, ends = taken
    free = np.concatenate([[0], np.maximum.accumulate(ends)])  # before each, and behind the last
    gaps = starts - free[:-1]
    fitting = np.flatnonzero(gaps >= size)
    return int(free[fitting[gaps[fitting].argmin()]] if fitting.size else free[-1])
