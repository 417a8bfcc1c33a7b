"""From a copy whose neighbours in the source are no neighbours in the result to a launch by tiles in shared memory."""

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
from gpueinsum.schedule.candidate import sectors_touched

_LONG = 32  # elements: a tile of one axis a side that is shorter would be mostly empty
# How many times fewer sectors tiles must touch to outweigh their barriers. Simulated bytes a cycle and multiprocessor,
# float32, by tiles and without: `ij->ji` of 10 x 40000 (1.2 times fewer) 6.6, 11.5; of 24 x 16384 (1.4) 7.2, 6.4;
# `abc->bac` of 256 x 256 x 4 (2) 8.9, 8.7; of 256 x 256 x 2 (4) 9.4, 5.2.
_GAIN = 1.3
_FEW = 1024  # results: the caches hold so few, whatever their order
# That a multiprocessor holds at once: a block finds its places in tiles once for all its tiles. `ij->ji` of 512 x 512,
# float32, 64 tiles on 5 multiprocessors: 64 blocks took 46,500 simulated cycles, 15 took 41,600.
_BLOCKS = 4


def transpose(source: Source, out: Term, size: Mapping[Label, int], dtype: str, processors: int) -> Launch | None:
    """A copy by tiles of one axis a side, where the source is contiguous along one, the result along another."""
    loops = _loops(source, out, size)
    rows = next((loop for loop in loops if loop.strides[0] == 1), None)
    if rows is None or loops[-1].strides[0] in (0, 1) or min(rows.size, loops[-1].size) < _LONG:
        return None
    columns = loops.pop()
    around = [loop for loop in loops if loop is not rows]
    turns, edge = math.prod([loop.size for loop in around]), _edge(item_bytes(dtype))
    numbers = turns, rows.size, columns.size, columns.strides[0], rows.strides[1], int(source.conjugated)
    tiles = turns * -(-rows.size // edge) * -(-columns.size // edge)
    nested = nest(*nest_columns(around, 2), [], [[], []])
    return Launch(Kernel("transpose", dtype, dtype), blocks_for(tiles * THREADS, processors), job(nested, *numbers))


def permute(source: Source, out: Term, size: Mapping[Label, int], dtype: str, processors: int) -> Launch | None:
    """A copy by tiles of several axes a side, if fewer sectors are touched so."""
    if points(out, size) < _FEW:
        return None
    loops, item = _loops(source, out, size), item_bytes(dtype)
    tile = choose_tile(loops, item)
    if tile is None or _waste(loops[::-1], item) < _GAIN * _waste(tile.read.loops, item):
        return None
    tiles, begin = math.prod([loop.size for loop in tile.around]), len(tile.around)
    inside = [*tile.read.loops[::-1], *tile.written.loops[::-1]]
    nested = nest(*nest_columns(tile.around, 3), *nest_columns(inside, 3))
    orders = *tile.read.numbers(begin), *tile.written.numbers(begin + len(tile.read.loops))
    numbers = job(nested, tiles, tile.last, int(source.conjugated), *orders)
    return Launch(Kernel("permute", dtype, dtype), min(tiles, processors * _BLOCKS), numbers)


def _loops(source: Source, out: Term, size: Mapping[Label, int]) -> list[Axis]:
    """The loops over the result, outermost first, with strides in the source and in the result."""
    return fuse(axes(out, size, label_strides(source.term, source.strides), contiguous(out, size)))


def _edge(item: int) -> int:
    """Elements on either side of the largest tile, as in kernels/transpose.cu and kernels/permute.cu."""
    return 32 if item > 4 else 64


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
    """The loops over all tiles, and over one tile as it is read and as it is written; strides as in `struct PermuteOf`.

    Up to two axes are cut: `last` is the last place along one, and 2**32 times that along the other.
    """

    around: list[Axis]
    read: Order
    written: Order
    last: int


def _waste(loops: Sequence[Axis], item: int) -> float:
    """The sectors that a block's elements lie in, in the first array, over those that they would fill.

    The innermost loop comes first. What a warp leaves of a sector is still in the cache when another one of the block
    needs it.
    """
    return sectors_touched([(loop.size, loop.strides[0]) for loop in loops], item, THREADS)


def choose_tile(loops: Sequence[Axis], item: int) -> Tile | None:
    """The largest tile of a range of the source's innermost axes, and of a range of the result's.

    The loops are those over the result, outermost first; None if there is no such tile.
    """
    by_source = sorted((n for n, loop in enumerate(loops) if loop.strides[0]), key=lambda n: abs(loops[n].strides[0]))
    by_result = range(len(loops))[::-1]
    edge = _edge(item)
    near, most, tile = _cover(loops, by_source, edge), edge, None
    while most <= edge**2:  # the more axes are near in both orders, the more of the result's does a tile have room for
        far = _cover(loops, by_result, most)
        sizes = {axis: max(near.get(axis, 1), far.get(axis, 1)) for axis in {**near, **far}}
        larger = _make_tile(loops, sizes, by_source, len(near), item)
        if larger is None:
            break
        tile, most = larger, 2 * most
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


def _make_tile(
    loops: Sequence[Axis], sizes: Mapping[int, int], by_source: Sequence[int], near: int, item: int
) -> Tile | None:
    """The tile of these sizes along some axes, so many of which are the source's innermost; None if it is too large."""
    largest = _edge(item) ** 2
    read, written = ([axis for axis in order if axis in sizes] for order in (by_source, range(len(loops))[::-1]))
    cut = [axis for axis in sizes if sizes[axis] < loops[axis].size]
    if any(loops[axis].size >> 31 for axis in cut):
        return None
    along = dict.fromkeys(range(len(loops)), 0) | {axis: 1 << 32 * number for number, axis in enumerate(cut)}
    around = []
    for axis, (size, strides) in enumerate(loops):
        step = sizes.get(axis, 1)
        if step < size:
            around.append(Axis(-(-size // step), tuple([step * stride for stride in (*strides, along[axis])])))
    columns, others = (_columns([sizes[axis] for axis in order], largest // THREADS) for order in (read, written))
    if not columns or not others or len(around) + len(read) + len(written) > MAX_LOOPS:
        return None
    place, end = dict.fromkeys(written, 0), 1
    for number, axis in enumerate(read):
        if number == near:
            end = _padded(end, item)
        place[axis], end = end, end * sizes[axis]
    if end > largest + largest // 8:
        return None
    read_order, written_order = (
        Order([Axis(sizes[n], (loops[n].strides[array], place[n], along[n])) for n in order], number)
        for array, (order, number) in enumerate([(read, columns), (written, others)])
    )
    last = sum((loops[axis].size - 1) * along[axis] for axis in cut)
    return Tile(around, read_order, written_order, last)


def _columns(sizes: Sequence[int], each: int) -> int:
    """How many of the innermost loops are columns, so that the most threads are busy; 0 if none fits the kernel.

    A thread has one column and `each` lines, whose places the block's threads find.
    """
    best, columns, total = (0, 0), 1, math.prod(sizes)
    for number, size in enumerate(sizes, 1):
        columns *= size
        step = min(THREADS // columns, THREADS // each)
        if total // columns <= each * step:
            best = max(best, (columns * step, number))
    return best[-1]


def _padded(line: int, item: int) -> int:
    """A line's elements and as many as make it an odd number of 4-byte banks: so a column lies in all of them."""
    bank = max(4 // item, 1)
    return (-(-line // bank) | 1) * bank
