"""Memory for large arrays on the CPU: what a result leaves behind serves the next one, since fresh pages cost as much
as the work that fills them.

numpy's allocator keeps what is small; what is large it takes from the operating system and gives back at once.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from gpueinsum.text import read_bytes

Array = np.ndarray[Any, Any]
Result = TypeVar("Result")

# Fewer bytes are numpy's own to allocate. A product with a scalar into a fresh array against one that was used before
# (float32, 2 cores, glibc): 4 MiB 0.14 ms against 0.18, 8 MiB 0.88 against 0.61, 64 MiB 13.1 against 6.0, 150 MiB
# 28.8 against 15.1.
SMALLEST = 4 << 20
# A block serves an array if no more than this share of it is left over.
_LEFT_OVER = 1 / 4
_ALIGNMENT = 64  # a cache line; also the width of the widest vectors


class _Block:
    """Memory that is nobody's array just now."""

    __slots__ = ("interface", "memory", "nbytes")

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.memory = np.empty(nbytes + _ALIGNMENT, np.uint8)
        address = self.memory.ctypes.data + -self.memory.ctypes.data % _ALIGNMENT
        self.interface = {"version": 3, "typestr": "|u1", "shape": (nbytes,), "data": (address, False)}


class _Pool:
    """Blocks that wait for their next array, the oldest first, in no more than so many bytes.

    There is no lock, since the garbage collector may give a block back in the middle of anything: every change is one
    operation of a list, and whoever comes second finds the block gone.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.blocks: list[_Block] = []

    def take(self, nbytes: int) -> _Block:
        fitting = [block for block in self.blocks if nbytes <= block.nbytes <= nbytes / (1 - _LEFT_OVER)]
        for block in sorted(fitting, key=lambda block: block.nbytes):
            try:
                self.blocks.remove(block)
            except ValueError:
                continue  # another thread has it
            return block
        try:
            return _Block(nbytes)
        except MemoryError:
            self.blocks.clear()
            return _Block(nbytes)

    def give_back(self, block: _Block) -> None:
        self.blocks.append(block)
        while sum(block.nbytes for block in [*self.blocks]) > self.limit:
            try:
                self.blocks.pop(0)
            except IndexError:
                return


class _Lease:
    """What an array and its views keep alive between them; with the last of them the block returns to the pool.

    No array itself, so that `x.base` offers nothing to slice that would return the block once more.
    """

    __slots__ = ("__array_interface__", "_block", "_pool")

    def __init__(self, pool: _Pool, block: _Block) -> None:
        self._pool = pool
        self._block = block
        self.__array_interface__ = block.interface

    def __del__(self) -> None:
        self._pool.give_back(self._block)


def machine_bytes() -> int:
    """Bytes of memory of this machine, or those that its control group may take if they are fewer."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")] if hasattr(os, "sysconf") else []
    with contextlib.suppress(OSError, ValueError):  # "max" is no limit
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(sizes, default=_USUAL_MEMORY)


_USUAL_MEMORY = 8 << 30  # of a machine that does not say


def _limit() -> int:
    """How many bytes the pool may keep: GPUEINSUM_POOL, or an eighth of the memory and at most 256 MiB."""
    text = os.environ.get("GPUEINSUM_POOL")
    if text is None:
        return min(machine_bytes() // 8, 256 << 20)
    nbytes = read_bytes(text)
    if nbytes is None:
        raise ValueError(f"GPUEINSUM_POOL={text!r} is no number of bytes, such as 500MB, 2GiB or 0")
    return nbytes


_pool = _Pool(_limit())


def empty(shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """`np.empty`, from the pool if it is large."""
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < SMALLEST or dtype.hasobject or not _pool.limit:
        return np.empty(shape, dtype)
    return np.ndarray(shape, dtype, np.asarray(_Lease(_pool, _pool.take(nbytes))))


def empty_like(x: Array) -> Array:
    """`empty` whose axes lie in memory in the order in which those of `x` do, as `problem.dense_strides` has it."""
    if x.flags.c_contiguous:
        return empty(x.shape, x.dtype)
    order = sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))
    return empty([x.shape[axis] for axis in order], x.dtype).transpose(np.argsort(order))


def with_retry(run: Callable[..., Result]) -> Callable[..., Result]:
    """`run`, once more without what the pool keeps if memory runs out, which numpy allocates in many places."""

    def run_again(*arrays: Array) -> Result:
        try:
            return run(*arrays)
        except MemoryError:
            if not free_memory():
                raise
        free_memory()  # of what the first try left, too
        return run(*arrays)

    return run_again


def free_memory() -> int:
    """Give back what the pool keeps for later results; how many bytes that was."""
    freed = 0
    while _pool.blocks:
        try:
            freed += _pool.blocks.pop().nbytes
        except IndexError:
            break
    return freed
