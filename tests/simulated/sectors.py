"""How well kernels use memory: the 32-byte sectors that their warps' loads and stores touch on the simulated device.

A warp's access is what the 32 threads of a warp do with the n-th execution of one instruction. The instructions are
those of the very kernels, compiled for the host once more with a hook before each access to memory (`sectors.h`).
"""

import contextlib
import ctypes
from functools import cache
from typing import NamedTuple

import numpy as np

from gpueinsum.backends.cuda.source import Kernel, program_text

from . import host

SECTOR = 32  # bytes: the least that memory gives
CACHE = 32 << 10  # bytes: a block's part of the first cache, where 8 of 256 threads are resident
# g++ would link the runtime, too: what it needs is named instead.
_HOOKED = "-fsanitize=thread", "-fno-threadsafe-statics", "-nodefaultlibs", "-lstdc++", "-lm", "-lc"
_RECORD = np.dtype(
    [("instruction", "u8"), ("address", "u8"), ("block", "u4"), ("thread", "u4"), ("bytes", "u4"), ("is_store", "u4")]
)


class Traffic(NamedTuple):
    """The loads or the stores of a launch, in sectors.

    `needed` is how many sectors would hold the bytes of each access of a warp, `touched` how many it touches, and
    `fetched` how many of these a cache of so many bytes a block does not hold any more; `distinct` ones hold the bytes
    of each block.
    """

    needed: int
    touched: int
    distinct: int
    fetched: int

    @property
    def efficiency(self):
        """Of the warps' accesses by themselves: 1 if none touches more sectors than its bytes fill."""
        return self.needed / self.touched if self.touched else 1.0

    @property
    def efficiency_behind_cache(self):
        """Of what is fetched: 1 if each block fetches no more sectors than its bytes fill."""
        return self.distinct / self.fetched if self.fetched else 1.0


class Counted(NamedTuple):
    """One launch of a kernel."""

    kernel: Kernel
    loads: Traffic
    stores: Traffic


@contextlib.contextmanager
def count(runtime):
    """Inside the context each launch on the simulated device joins the list that this gives."""
    launches, plain = [], runtime.entry

    def entry(kernel):
        library = _library(kernel)
        run, parameters = host.bind(library, kernel.entry)
        pointers = [place for place, (kind, _) in enumerate(parameters) if kind == "pointer"]

        def run_and_count(blocks, threads, args, last_thread_first):
            extents = np.array([runtime.extent(args[place]) for place in pointers], np.uint64)
            library.record_accesses(ctypes.c_void_p(host.address(extents)), len(extents))
            try:
                run(blocks, threads, args, last_thread_first)
            finally:
                records = _recorded(library)
            stores = records["is_store"] == 1
            launches.append(Counted(kernel, traffic(records[~stores]), traffic(records[stores])))

        return run_and_count, parameters

    runtime.entry = entry
    try:
        yield launches
    finally:
        runtime.entry = plain


@cache
def _library(kernel):
    text, exports = program_text((kernel,)), {f"specialised_{kernel.entry}": kernel.entry}
    return host.compile_kernels(text, exports, ("shim.h", "sectors.h"), _HOOKED)


def _recorded(library):
    number = ctypes.c_size_t()
    library.recorded_accesses.restype = ctypes.c_void_p
    start = library.recorded_accesses(ctypes.byref(number))
    return np.frombuffer(ctypes.string_at(start, number.value * _RECORD.itemsize) if start else b"", _RECORD)


def traffic(records):
    """The traffic of accesses of threads, each thread's in order."""
    if not records.size:
        return Traffic(0, 0, 0, 0)
    block, warp = records["block"], _number(records["block"], records["thread"] // 32)
    turn = _rank(_number(block, records["thread"], records["instruction"]))
    access = _number(warp, records["instruction"], turn)
    # What each record takes of each sector that it touches, as a bit per byte.
    first, last = records["address"] // SECTOR, (records["address"] + records["bytes"] - 1) // SECTOR
    record = np.repeat(np.arange(records.size), (last - first + 1).astype(np.int64))
    sector = first[record] + _rank(record).astype(np.uint64)
    begin = records["address"][record].astype(np.int64) - (sector * SECTOR).astype(np.int64)
    end = np.minimum(begin + records["bytes"][record], SECTOR)
    bytes_used = (1 << end) - (1 << np.maximum(begin, 0))
    touched, used = _union(_number(access[record], sector), bytes_used)
    held, used_by_block = _union(_number(block[record], sector), bytes_used)
    return Traffic(
        _filled(access[record[touched]], used),
        touched.size,
        _filled(_number(block[record[held]]), used_by_block),
        _fetched(block, warp, access, record[touched], sector[touched]),
    )


def _filled(group, used):
    """How many sectors the bytes of each group fill, together."""
    return int(-(-np.bincount(group, np.bitwise_count(used)) // SECTOR).sum())


def _fetched(block, warp, access, record, sector):
    """How many of these touches find that their block touched too many others since it touched that sector.

    Warps go on in step: the first access of each, then the second.
    """
    begins = np.unique(access, return_index=True)[1]
    order = np.argsort(begins)
    step = np.empty_like(begins)
    step[order] = _rank(warp[begins[order]])
    order = np.lexsort((warp[record], step[access[record]], block[record]))
    key = _number(block[record], sector)[order]
    by_sector = np.argsort(key, kind="stable")
    again = (np.diff(key[by_sector]) == 0) & (np.diff(by_sector) <= CACHE // SECTOR)
    return int(record.size - again.sum())


def _number(*columns):
    """For each row of these columns the place of its like among all different rows, in ascending order."""
    rows = np.zeros(columns[0].size, np.int64)
    for column in columns:
        values, place = np.unique(column, return_inverse=True)
        rows = np.unique(rows * values.size + place, return_inverse=True)[1]
    return rows


def _rank(key):
    """How many equal keys stand before each."""
    order = np.argsort(key, kind="stable")
    _, begins, counts = np.unique(key[order], return_index=True, return_counts=True)
    ranks = np.empty(key.size, np.int64)
    ranks[order] = np.arange(key.size) - np.repeat(begins, counts)
    return ranks


def _union(key, used):
    """A place of each different key, and the bits of all places of it."""
    order = np.argsort(key, kind="stable")
    begins = np.unique(key[order], return_index=True)[1]
    return order[begins], np.bitwise_or.reduceat(used[order], begins)
