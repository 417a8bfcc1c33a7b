"""CuPy's current stream, device and allocator, others for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any


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
