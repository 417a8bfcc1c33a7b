"""Operands on their way to workers: known by a digest of what they hold, and by a file where a worker can map it."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Sent = Mapping[str, Array]  # operands by their digests

_CHUNK = 1 << 26  # bytes that are made C-contiguous at a time


def digest(array: Array) -> str:
    """Equal for arrays of the same dtype, shape and elements, however they lie in memory. About 1 GB/s."""
    found = hashlib.blake2b(f"{array.dtype.name} {array.dtype.byteorder} {array.shape}".encode(), digest_size=16)
    for chunk in _chunks(array):
        found.update(chunk.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _chunks(array: Array) -> Iterator[Array]:
    """The elements in C order, in arrays that are C-contiguous."""
    if array.flags.c_contiguous:
        yield array
        return
    rows = max(1, _CHUNK * len(array) // max(1, array.nbytes))
    for first in range(0, len(array), rows):
        part = array[first : first + rows]
        if len(part) == 1 and part.nbytes > _CHUNK:
            yield from _chunks(part[0])
        else:
            yield np.ascontiguousarray(part)


class MappedFile(NamedTuple):
    """An operand that is a read-only memory map, as a worker finds it: in a file of this size and time of change."""

    path: str
    size: int
    changed: int  # in ns
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...]

    def open(self) -> Array | None:
        """The operand; None if the file is not here, or is another one."""
        try:
            if _state(self.path) != (self.size, self.changed):
                return None
            memory = np.memmap(self.path, np.uint8, mode="r")
        except OSError:
            return None
        return np.ndarray(self.shape, self.dtype, memory, self.offset, self.strides)


def mapped_file(array: Array) -> MappedFile | None:
    """The file that an array maps; None for any other array, and for a map that may be written to."""
    owner: Any = array
    while isinstance(owner, np.ndarray) and not (isinstance(owner, np.memmap) and isinstance(owner.base, mmap.mmap)):
        owner = owner.base
    if not isinstance(owner, np.memmap) or owner.mode != "r" or not owner.filename or min(array.strides, default=0) < 0:
        return None
    path = os.path.abspath(owner.filename)
    # An array's own `offset` is that of the map it is a view of.
    offset = owner.offset + array.__array_interface__["data"][0] - owner.__array_interface__["data"][0]
    return MappedFile(path, *_state(path), array.dtype, array.shape, offset, array.strides)


def _state(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns
