"""What the stand-in for CuPy borrows from other libraries: arrays by DLPack, and memory that others own."""

import contextlib
import sys
import threading

import numpy as np

from .arrays import FakeArray, Pointer
from .dlpack import CUDA, NULL_STREAM


def from_dlpack(array, *, device=None, copy=None):
    """CuPy's: it tells the other library its current stream, which is to wait for that library's."""
    kind, number = array.__dlpack_device__()
    assert kind == CUDA, "CPU arrays cannot be directly imported to CuPy."
    cuda = sys.modules["cupy"].cuda
    with cuda.Device(number) as home:
        current = cuda.get_current_stream().ptr or NULL_STREAM
        return FakeArray.seeing(array.__dlpack__(stream=current, max_version=(1, 0), copy=copy).memory, home)


class _Owned(np.ndarray):
    """Memory with its owner."""


class UnownedMemory:
    """CuPy's memory of another library's: who lies in it keeps its owner."""

    def __init__(self, ptr, size, owner, device_id=-1):
        simulated = FakeArray.simulated
        [memory] = simulated.owners(ptr) if size else [simulated.allocate(0)]
        assert not size or memory.first <= ptr <= ptr + size <= memory.end
        self.memory = memory.view(_Owned)
        self.memory.owner = owner
        self.ptr, self.size, self.device_id = ptr, size, device_id


def memory_pointer(mem, offset):
    """CuPy's MemoryPointer."""
    return Pointer(mem.memory, mem.ptr + offset, mem.device_id)


class _Allocators(threading.local):
    """Those that a thread has entered."""

    def __init__(self):
        self.entered = []


_ALLOCATORS = _Allocators()


@contextlib.contextmanager
def using_allocator(allocator=None):
    """CuPy's: the thread's memory comes from there."""
    _ALLOCATORS.entered.append(allocator)
    try:
        yield
    finally:
        _ALLOCATORS.entered.pop()


def allocator(default):
    """The current one of the thread."""
    return _ALLOCATORS.entered[-1] if _ALLOCATORS.entered else default
