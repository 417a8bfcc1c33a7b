"""What the launches of all kernels share: arrays as loops, packs of neighbours, blocks of threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gpueinsum.backends.cuda.source import THREADS
from gpueinsum.costs.counts import item_bytes
from gpueinsum.language.strides import Axis
from gpueinsum.language.subscripts import Label, Term
from gpueinsum.schedule.cuda import RESIDENT
from gpueinsum.schedule.gemm import PACK_BYTES

Sizes = tuple[tuple[Label, int], ...]

NO_PACKS = 0, -1
_ROUNDS = 4  # times what a device holds at once, in blocks; from there on they take turns by themselves


class Source(NamedTuple):
    """An array as a kernel reads it: its term, its strides in elements, whether it enters as its conjugate."""

    term: Term
    strides: tuple[int, ...]
    conjugated: bool = False


def pack_width(dtype: str) -> int:
    """How many elements a pack has."""
    return max(1, PACK_BYTES // item_bytes(dtype))


def in_packs(loops: list[Axis], others: list[Axis], dtype: str) -> tuple[list[Axis], int] | None:
    """The loops with packs as the steps of the last of them, and by a bit per array which have neighbours along it.

    None if it cannot be read in packs: it must be of whole packs, each array contiguous along it or without it, and
    every pack aligned if the array's first one is. What the arrays' addresses are is seen to when the kernel runs.
    """
    width = pack_width(dtype)
    if not loops or loops[-1].size % width:
        return None
    *outer, last = loops
    for number, stride in enumerate(last.strides):
        if stride not in (0, 1):
            return None
        if stride == 1 and any(loop.strides[number] % width for loop in (*outer, *others)):
            return None
    along = sum(stride << number for number, stride in enumerate(last.strides))
    steps = Axis(last.size // width, tuple(stride * width for stride in last.strides))
    return [*outer, steps], along


def blocks_for(threads: int, processors: int) -> int:
    """As many blocks as there is work for, up to what the device holds at once several times over."""
    return min(-(-threads // THREADS), processors * (RESIDENT // THREADS) * _ROUNDS)


def nest_columns(loops: Sequence[Axis], arrays: int) -> tuple[list[int], list[list[int]]]:
    """Loops as `nest` takes them: their sizes, and one list of strides per array."""
    return [loop.size for loop in loops], [[loop.strides[array] for loop in loops] for array in range(arrays)]


def conjugated_bits(sources: Sequence[Source]) -> int:
    return sum(source.conjugated << number for number, source in enumerate(sources))
