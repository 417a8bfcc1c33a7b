"""Operands that stay on the host while a plan runs in slices: which of them, and their parts on the device in turn.

The host packs a part into pinned memory and launches its copy on a stream of its own. Launches that were there before
go on meanwhile, so the part of the next slice is packed and copied while the slice before it is computed. There are two
buffers for each operand: one is filled while the other is read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np

from gpueinsum.backends.base import Load
from gpueinsum.backends.cuda.runtime import CupyRuntime, Memory
from gpueinsum.backends.cuda.streams import CopyStream
from gpueinsum.backends.footprint import run_bytes
from gpueinsum.costs.profile import Profile
from gpueinsum.errors import DeviceError
from gpueinsum.language.plan import Plan
from gpueinsum.language.slices import cut

Array = Any  # numpy's, CuPy's, or the simulated device's

_CAPTURING = (
    "this stream is being captured, and operands on the host are copied part by part: move them (cupy.asarray(x))"
)


_run_bytes = lru_cache(maxsize=1024)(run_bytes)


def choose_streamed(
    plan: Plan, profile: Profile, operands: Sequence[Array], on_host: Collection[int], room: int
) -> frozenset[int]:
    """Which of the operands on the host stay there: the largest, until a run and all others have so many bytes of room.

    Only what slices take parts of can stay, and only what takes more memory than the buffers for its parts.
    """
    dtypes = tuple([operand.dtype for operand in operands])

    def needed(streamed: frozenset[int]) -> int:
        moved: int = sum(operands[number].nbytes for number in on_host if number not in streamed)
        return moved + _run_bytes(plan, profile, dtypes, streamed)

    streamed = frozenset[int]()
    for number in sorted({*on_host} & {*cut(plan).late}, key=lambda number: -operands[number].nbytes):
        if needed(streamed) <= room:
            break
        streamed = min(streamed, streamed | {number}, key=needed)
    return streamed


@contextmanager
def part_loader(runtime: CupyRuntime, dtype: np.dtype[Any], nbytes: Sequence[int]) -> Iterator[Load]:
    """`Backend.loader`. No copy is under way when the context ends. Raises DeviceError while a stream is captured."""
    copies = cache(runtime.copy_stream)
    buffers = cache(lambda operand: _Buffers(runtime, copies(), dtype, nbytes[operand]))

    def load(operand: int, view: Array) -> Array:
        return buffers(operand).load(view) if runtime.on_host(view) else view.astype(dtype, copy=False)

    try:
        yield load
    finally:
        if copies.cache_info().currsize:
            copies().synchronize()


@dataclass(slots=True)
class _Buffer:
    host: np.ndarray[Any, Any]  # bytes
    device: Memory
    read: Any  # an event: launches that read it are done
    copied: Any = None  # an event: the host's bytes are on the device


class _Buffers:
    """The two buffers for parts of one operand."""

    def __init__(self, runtime: CupyRuntime, copies: CopyStream, dtype: np.dtype[Any], nbytes: int) -> None:
        if runtime.is_capturing():
            raise DeviceError(_CAPTURING)
        self._runtime, self._copies, self._dtype = runtime, copies, dtype
        memories = [(runtime.pinned(nbytes), runtime.allocate(nbytes)) for _ in range(2)]
        mark = copies.mark()  # earlier launches may still use what the memory pool gave
        self._latest, self._other = [_Buffer(host, device, mark) for host, device in memories]

    def load(self, view: Array) -> Array:
        """A part on the device; the one before it is not read by later launches."""
        self._latest.read = self._copies.mark()
        self._latest, self._other = self._other, self._latest
        buffer = self._latest
        if buffer.copied is not None:
            buffer.copied.synchronize()  # its bytes on the host are written next
        packed = _pack(view, self._dtype, buffer.host)
        buffer.copied = self._copies.upload(buffer.device.ptr, buffer.host[: packed.nbytes], buffer.read)
        return self._runtime.array(view.shape, self._dtype, buffer.device, packed.strides)


def _pack(view: Array, dtype: np.dtype[Any], memory: np.ndarray[Any, Any]) -> Array:
    """The view's elements in the dtype at the beginning of the memory: in their order, without gaps."""
    axes = sorted(range(view.ndim), key=lambda axis: -abs(view.strides[axis]))
    flat = memory[: view.size * dtype.itemsize].view(dtype)
    packed = flat.reshape([view.shape[axis] for axis in axes]).transpose(
        [axes.index(axis) for axis in range(view.ndim)]
    )
    with np.errstate(all="ignore"):  # as of casts on a device
        np.copyto(packed, view, casting="unsafe")
    return packed
