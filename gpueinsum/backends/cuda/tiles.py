"""From a copy or a product that reads across its result to the tiles in which kernels/permute.cu makes it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gpueinsum.backends.cuda.geometry import Source, blocks_for, nest_columns
from gpueinsum.backends.cuda.program import Launch
from gpueinsum.backends.cuda.source import MAX_LOOPS, THREADS, Kernel, job, nest
from gpueinsum.costs.counts import item_bytes
from gpueinsum.language.strides import Axis, axes, contiguous, fuse, label_strides, points
from gpueinsum.language.subscripts import Label, Term

_SECTOR = 32  # bytes that memory gives at once
_WARP = 32  # threads that read at once
# How many times fewer sectors tiles must touch to outweigh their barriers. By reasoning; not measured yet.
_GAIN = 1.5
_FEW = 1024  # results: the caches hold so few, whatever their order


def permute(
    sources: Sequence[Source], out: Term, size: Mapping[Label, int], dtype: str, processors: int
) -> Launch | None:
    """A copy, or a product of two arrays, by tiles if the neighbours of one array are no neighbours in the result."""
    if len(sources) > 2 or points(out, size) < _FEW:
        return None
    walked, item = [label_strides(source.term, source.strides) for source in sources], item_bytes(dtype)
    loops = fuse(axes(out, size, *walked, contiguous(out, size)))
    shares = [coalescing(loops[::-1], number, item) for number in range(len(sources))]
    across = shares.index(min(shares))
    if across:  # what lies across is the first of the loops' arrays
        loops = [Axis(loop.size, (loop.strides[1], loop.strides[0], loop.strides[2])) for loop in loops]
    tile = choose_tile(loops, item)
    if tile is None or coalescing(tile.read.loops, 0, item) < _GAIN * shares[across]:
        return None
    arrays, inside = len(sources) + 2, [*tile.read.loops[::-1], *tile.written.loops[::-1]]
    nested = nest(*nest_columns(tile.around, arrays), *nest_columns(inside, arrays))
    tiles, begin = math.prod([loop.size for loop in tile.around]), len(tile.around)
    conjugated = sum(source.conjugated << (number ^ across) for number, source in enumerate(sources))
    written = begin + len(tile.read.loops)
    numbers = (
        tiles,
        tile.last,
        tile.pitch,
        across,
        conjugated,
        *tile.read.numbers(begin),
        *tile.written.numbers(written),
    )
    return Launch(
        Kernel("permute", dtype, dtype, len(sources)), blocks_for(tiles * THREADS, processors), job(nested, *numbers)
    )


class Order(NamedTuple):
    """The loops over a tile, innermost first: so many of them run over the columns of a line, the others over lines."""

    loops: list[Axis]
    columns: int

    def numbers(self, begin: int) -> tuple[int, int, int, int, int]:
        """`struct OrderOf`, where the loops are those of a nest from `begin` on."""
        sizes, end = [loop.size for loop in self.loops], begin + len(self.loops)
        columns, lines = math.prod(sizes[: self.columns]), math.prod(sizes[self.columns :])
        return columns, lines, begin, end - self.columns, end


class Tile(NamedTuple):
    """The loops over all tiles, and over one tile as it is read and as it is written.

    Up to two axes are cut: `last` is the last place along one, and 2**32 times that along the other. In shared memory
    the lines that are read begin so many elements, their `pitch`, from each other.
    """

    around: list[Axis]
    read: Order
    written: Order
    last: int
    pitch: int


def coalescing(loops: Sequence[Axis], array: int, item: int) -> float:
    """The sectors that a warp's elements would fill, as a share of those that they touch; innermost loops first.

    >>> coalescing([Axis(100, (1, 100)), Axis(100, (100, 1))], 0, 4)
    1.0
    >>> coalescing([Axis(100, (1, 100)), Axis(100, (100, 1))], 1, 4)
    0.125
    """
    offsets = [0]
    for size, strides in loops:
        offsets = [offset + step * strides[array] for step in range(min(size, _WARP)) for offset in offsets][:_WARP]
        if len(offsets) == _WARP:
            break
    touched = {offset * item // _SECTOR for offset in offsets}
    return math.ceil(len({*offsets}) * item / _SECTOR) / len(touched)


def choose_tile(loops: Sequence[Axis], item: int) -> Tile | None:
    """A range of the axes along which the first array has its neighbours, and of those along which the result has.

    The loops are those over the result, outermost first; the strides are those in the arrays and last in the result.
    """
    largest = 1024 if item > 4 else 4096  # elements, as in kernels/permute.cu
    edge = math.isqrt(largest)
    by_source = sorted((n for n, loop in enumerate(loops) if loop.strides[0]), key=lambda n: abs(loops[n].strides[0]))
    by_result = range(len(loops))[::-1]
    near, tile, most = _cover(loops, by_source, edge), None, edge
    while most <= largest:
        far = _cover(loops, by_result, most)
        sizes = {axis: max(near.get(axis, 1), far.get(axis, 1)) for axis in {**near, **far}}
        larger = _tile(loops, sizes, by_source, len(near), largest, item)
        if larger is None:
            break
        tile, most = larger, 2 * most
        if math.prod(sizes.values()) >= largest // 4:
            break
    return tile


def _cover(loops: Sequence[Axis], order: Sequence[int], most: int) -> dict[int, int]:
    """How many elements of each of the first axes make more than half of so many, and no more; only the last is cut."""
    covered: dict[int, int] = {}
    total = 1
    for axis in order:
        size, part = loops[axis].size, min(most // total, THREADS)
        if covered or size < 2 * part:
            part = -(-size // -(-size // part))  # as long as the others; along many, whole warps read whole sectors
        covered[axis] = min(part, size)
        total *= covered[axis]
        if part < size or 2 * total > most:
            break
    return covered


def _tile(
    loops: Sequence[Axis], sizes: Mapping[int, int], by_source: Sequence[int], near: int, largest: int, item: int
) -> Tile | None:
    """The tile of these sizes along some axes; None if it is too large.

    Threads read its axes in the order `by_source`, if possible lines of so many of them that are `near`.
    """
    read, written = ([axis for axis in order if axis in sizes] for order in (by_source, range(len(loops))[::-1]))
    cut = [axis for axis in sizes if sizes[axis] < loops[axis].size]
    along = {axis: 1 << 32 * number for number, axis in enumerate(cut)}
    around = []
    for axis, (size, strides) in enumerate(loops):
        step = sizes.get(axis, 1)
        if step < size:
            around.append(Axis(-(-size // step), tuple([step * stride for stride in (*strides, along.get(axis, 0))])))
    columns, others = (_columns([sizes[axis] for axis in order], near, largest) for order in (read, written))
    if not columns or not others or len(around) + len(read) + len(written) > MAX_LOOPS:
        return None
    place, pitch, end = {}, 0, 1
    for number, axis in enumerate(read):
        if number == columns:
            end = pitch = _padded(end, item)
        place[axis], end = end, end * sizes[axis]
    if end > largest + largest // 8 or any(loops[axis].size >> 31 for axis in cut):
        return None
    read_loops = [Axis(sizes[axis], (*loops[axis].strides, along.get(axis, 0))) for axis in read]
    written_loops = [Axis(sizes[n], (place.get(n, 0), *loops[n].strides[1:], along.get(n, 0))) for n in written]
    last = sum((loops[axis].size - 1) * along[axis] for axis in cut)
    return Tile(around, Order(read_loops, columns), Order(written_loops, others), last, pitch)


def _columns(sizes: Sequence[int], near: int, largest: int) -> int:
    """How many of the innermost loops are columns, so that the most threads are busy; 0 if none fits a kernel.

    Of several that do, the loops that are `near`.
    """
    best, columns, total = (0, False, 0), 1, math.prod(sizes)
    for number, size in enumerate(sizes, 1):
        columns *= size
        step, lines = THREADS // columns, total // columns
        if lines <= min(THREADS, largest // THREADS * step):
            best = max(best, (columns * step, number == near, number))
    return best[-1]


def _padded(line: int, item: int) -> int:
    """A line's elements and as many as make it an odd number of 4-byte banks: so a column lies in all of them."""
    bank = max(4 // item, 1)
    return (-(-line // bank) | 1) * bank
