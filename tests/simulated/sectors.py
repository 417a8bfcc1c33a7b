"""How well kernels use memory: the 32-byte sectors that their warps' loads and stores touch on the simulated device.

A warp's access is what the 32 threads of a warp do with the n-th execution of one instruction. The instructions are
those of the very kernels, compiled for the host once more with a hook before each access to memory (`sectors.h`).
"""

import contextlib
import ctypes
import mmap
from functools import cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from gpueinsum.backends.cuda.program import Launch
from gpueinsum.backends.cuda.source import program_text

from . import host

SECTOR = 32  # bytes: the least that memory gives
CACHE = 32 << 10  # bytes: a block's part of the first cache, where 8 of 256 threads are resident
# g++ would link the runtime, too: what it needs is named instead.
_HOOKED = "-fsanitize=thread", "-fno-tree-sra", "-fno-threadsafe-statics", "-nodefaultlibs", "-lstdc++", "-lm", "-lc"
_RECORD = np.dtype(
    [("instruction", "u8"), ("address", "u8"), ("block", "u4"), ("thread", "u4"), ("bytes", "u4"), ("kind", "u4")]
)
_LOAD, _STORE = 0, 1  # kinds; the next is a barrier


class Traffic(NamedTuple):
    """The loads or the stores of a launch, in sectors.

    `needed` is how many sectors would hold the bytes of each access of a warp, `touched` how many it touches, and
    `fetched` how many of these a cache of so many bytes a block does not hold any more; `distinct` ones hold the bytes
    of each block. `widest` is the most bytes that a thread takes at once.
    """

    needed: int
    touched: int
    distinct: int
    fetched: int
    widest: int

    @property
    def efficiency(self):
        """Of the warps' accesses by themselves: 1 if none touches more sectors than its bytes fill."""
        return self.needed / self.touched if self.touched else 1.0

    @property
    def efficiency_behind_cache(self):
        """Of what is fetched: 1 if each block fetches no more sectors than its bytes fill."""
        return self.distinct / self.fetched if self.fetched else 1.0


class Counted(NamedTuple):
    """One launch of the kernel of this name; a thread loads `stretch` bytes (the mean) before it comes to a barrier."""

    entry: str
    loads: Traffic
    stores: Traffic
    stretch: float


@contextlib.contextmanager
def count(runtime):
    """Inside the context each launch on the simulated device joins the list that this gives."""
    launches, plain = [], runtime.entry

    def entry(kernel):
        library = _library(kernel)
        _, parameters = host.bind(library, kernel.entry)
        pointers = [place for place, (kind, _) in enumerate(parameters) if kind == "pointer"]

        def run(blocks, threads, args, _):
            extents = [runtime.extent(args[place]) for place in pointers]
            launches.append(counted(library, kernel.entry, blocks, threads, args, extents))

        return run, parameters

    runtime.entry = entry
    try:
        yield launches
    finally:
        runtime.entry = plain


def count_program(program, blocks):
    """Each launch of a program's kernels with what so many of its blocks do, on memory that holds zeros.

    Memory is taken only where it is written. So the launches are those of large arrays on a large device.
    """
    sizes = [*(span.bytes for span in program.operands), *program.results, program.workspace]
    starts = [*accumulate((-(-size // 256) + 1) * 256 for size in (0, *sizes))]  # bytes, where CUDA's may begin
    memory = mmap.mmap(-1, starts[-1], mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    begin = host.address(np.frombuffer(memory, np.uint8))
    extents = [(begin + start, begin + start + size) for start, size in zip(starts, sizes, strict=False)]
    first = [begin + start for start in starts]
    for number, span in enumerate(program.operands):
        first[number] += span.before
    found = []
    for work in program.work:
        if isinstance(work, Launch):
            args = work.job, *[first[memory] + offset for memory, offset in work.addresses]
            every = max(1, work.blocks // blocks)
            library, entry = _library(work.kernel), work.kernel.entry
            found.append((work, counted(library, entry, work.blocks, work.threads, args, extents, every)))
    return found


def counted(library, entry, blocks, threads, args, extents, every=1):
    """One launch, of which one block of `every` so many runs; its arrays lie in the `extents`."""
    run, _ = host.bind(library, entry)
    extents, number = np.array(extents, np.uint64), ctypes.c_size_t()
    library.record_accesses(ctypes.c_void_p(host.address(extents)), len(extents), every)
    try:
        run(blocks, threads, args)
    finally:
        library.recorded_accesses.restype = ctypes.c_void_p
        start = library.recorded_accesses(ctypes.byref(number))
    records = np.frombuffer(ctypes.string_at(start, number.value * _RECORD.itemsize) if start else b"", _RECORD)
    loads, stores = (traffic(records[records["kind"] == kind]) for kind in (_LOAD, _STORE))
    return Counted(entry, loads, stores, _stretch(records[records["kind"] != _STORE]))


def _stretch(records):
    thread = _number(records["block"], records["thread"])
    order = np.argsort(thread, kind="stable")
    thread, loads = thread[order], records["kind"][order] == _LOAD
    goes_on = np.zeros(records.size, bool)
    goes_on[1:] = loads[:-1] & (np.diff(thread) == 0)
    return float(records["bytes"].sum() / max(1, (loads & ~goes_on).sum()))


@cache
def _library(kernel):
    return compile_hooked(program_text((kernel,)), {f"specialised_{kernel.entry}": kernel.entry})


def compile_hooked(text, exports):
    """The library that `counted` takes, as `host.compile_kernels` makes it."""
    return host.compile_kernels(text, exports, ("shim.h", "sectors.h"), _HOOKED)


def traffic(records):
    """The traffic of accesses of threads, each thread's in order."""
    if not records.size:
        return Traffic(0, 0, 0, 0, 0)
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
        int(records["bytes"].max()),
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
