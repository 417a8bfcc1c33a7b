"""Where the memories of a program lie: from work on memories by number to offsets in one workspace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

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
    placed: list[tuple[int, int, Lifetime]] = []  # start, end
    for number in sorted(range(len(lifetimes)), key=lambda number: -lifetimes[number].bytes):
        life = lifetimes[number]
        size = -(-life.bytes // ALIGNMENT) * ALIGNMENT
        taken = [(start, end) for start, end, other in placed if other.first <= life.last and life.first <= other.last]
        starts[number] = _tightest_gap(sorted(taken), size)
        placed.append((starts[number], starts[number] + size, life))
    return starts, max((end for _, end, _ in placed), default=0)


def _tightest_gap(taken: Sequence[tuple[int, int]], size: int) -> int:
    """Where the smallest gap of at least `size` bytes begins between these, or where they end."""
    best, smallest, free = None, 0, 0
    for start, end in taken:
        if start - free >= size and (best is None or start - free < smallest):
            best, smallest = free, start - free
        free = max(free, end)
    return free if best is None else best
