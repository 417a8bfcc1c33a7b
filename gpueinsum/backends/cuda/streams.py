"""CuPy's current stream, device and allocator, others for a while; and a stream for copies beside the current one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


@contextlib.contextmanager
def current(cuda: Any, stream: Any) -> Iterator[None]:
    """This stream as the current one, and then the one before.

    CuPy's own `with` forgets what `use()` made current: see cupy/cupy#8377.
    """
    before = cuda.get_current_stream()
    stream.use()
    try:
        yield
    finally:
        before.use()


@contextlib.contextmanager
def borrowing(cuda: Any, device: int, stream: int, allocate: Callable[[int], tuple[int, object]]) -> Iterator[None]:
    """`CupyRuntime.borrowing`."""

    def memory(nbytes: int) -> Any:
        address, owner = allocate(nbytes)
        return cuda.MemoryPointer(cuda.UnownedMemory(address, nbytes, owner, device), 0)

    borrowed = cuda.Stream.from_external(_Stream(stream))
    with cuda.Device(device), current(cuda, borrowed), cuda.using_allocator(memory):
        yield


class _Stream:
    """Another library's stream by its address, as CUDA's protocol for streams has it."""

    def __init__(self, address: int) -> None:
        self._address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._address


class CopyStream:
    """A stream for copies from the host, beside the one that is current when this is made, which computes."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._computing, self._copying = cuda.get_current_stream(), cuda.Stream(non_blocking=True)

    def mark(self) -> Any:
        """An event: what was launched so far is done."""
        return self._record(self._computing)

    def upload(self, out: int, source: np.ndarray[Any, Any], after: Any) -> Any:
        """Copy an array without gaps to an address after an event; later launches wait. An event: it is copied."""
        self._copying.wait_event(after)
        address = source.__array_interface__["data"][0]
        self._cuda.runtime.memcpyAsync(out, address, source.nbytes, _HOST_TO_DEVICE, self._copying.ptr)
        copied = self._record(self._copying)
        self._computing.wait_event(copied)
        return copied

    def synchronize(self) -> None:
        """Wait for all copies."""
        self._copying.synchronize()

    def _record(self, stream: Any) -> Any:
        event = self._cuda.Event(disable_timing=True)
        event.record(stream)
        return event


_HOST_TO_DEVICE = 1  # cudaMemcpyKind
