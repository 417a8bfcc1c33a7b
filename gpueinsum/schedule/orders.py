"""In which order a block's threads go over a tile as an array has it: along neighbours, by packs, apart from banks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from gpueinsum.costs.counts import item_bytes
from gpueinsum.language.strides import Axis
from gpueinsum.schedule.units import THREADS, WARP, Unit

GROUP = 4  # lines, as in kernels/gather.cuh
SECTOR, _LINE = 32, 128  # bytes
_SECTORS = 1, 2
# Cycles of a multiprocessor for the instructions of a warp's line: of packs that are stored whole, of all else.
_WHOLE, _APART = 8, 10


class Order(NamedTuple):
    """The loops over a tile as one array has it, outermost first; the `inner` last ones run over columns.

    A column is an element, or those of `pack`, the loops over neighbours that one access brings. A thread has one
    column and `each` lines. Strides are those in the array, in shared memory, and along the ragged axis of the sum.
    """

    loops: list[Axis]
    inner: int
    pack: list[Axis]

    @property
    def beside(self) -> list[int]:
        """Where the elements of a pack lie in shared memory, from its first one on; of no packs, 0."""
        places = [0]
        for loop in reversed(self.pack):
            places = [place + n * loop.strides[1] for n in range(loop.size) for place in places]
        return places

    @property
    def is_whole(self) -> bool:
        """Whether one access stores a pack in shared memory."""
        beside = self.beside
        aligned = not any(loop.strides[1] % len(beside) for loop in self.loops)
        return bool(self.pack) and aligned and beside == [*range(len(beside))]

    @property
    def columns(self) -> int:
        return math.prod([loop.size for loop in self.loops[len(self.loops) - self.inner :]])

    @property
    def lines(self) -> int:
        return math.prod([loop.size for loop in self.loops[: len(self.loops) - self.inner]])

    @property
    def step(self) -> int:
        """Lines that a block's threads go over at once."""
        return min(THREADS // self.columns, self.lines)

    @property
    def each(self) -> int:
        return -(-self.lines // self.step)

    @property
    def listed(self) -> int:
        """Places of lines in the block's list, at the most: a thread's are whole groups, and one more lies between."""
        return self.step * (self.each + GROUP)

    def rank(self, listed: int) -> tuple[bool, int, int]:
        """The least is the best where the list has so many places."""
        return self.listed > listed, self.each, self.lines

    def cycles(self, unit: Unit) -> float:
        """Cycles of a multiprocessor for a warp's lines: of the instructions, of the banks and lines that they meet.

        Threads of a warp that come to the same bank of shared memory, or to several lines of global memory, wait for
        each other.
        """
        width, item, is_whole = len(self.beside), item_bytes(unit.dtype), self.is_whole
        elements = width if is_whole else 1  # that an access stores
        at_once = WARP * 4 // max(4, unit.item * elements)
        banks = max(Counter(place // elements % at_once for place in self._neighbours(1)[:at_once]).values())
        banks *= (width // elements) * WARP // at_once
        lines = len({offset * item // _LINE for offset in self._neighbours(0)})
        return self.each * (max(banks, lines) + (_WHOLE if is_whole else _APART))

    def _neighbours(self, number: int) -> list[int]:
        """The places of a warp's threads in the array, or in shared memory."""
        places = [0]
        for loop in reversed(self.loops):
            places = [place + n * loop.strides[number] for n in range(min(loop.size, WARP)) for place in places][:WARP]
        return places


class Lies(NamedTuple):
    """An axis as an array has it: its size, its elements in a tile, its stride; whether it is summed."""

    size: int
    extent: int
    stride: int
    is_summed: bool


def pack_parts(axes: Sequence[Lies], width: int) -> list[int] | None:
    """How many elements of each axis lie in a pack of so many neighbours; None if tiles do not consist of packs.

    The axes come as they lie in memory, the nearest first. Every pack must begin at a multiple of its width.
    """
    if width == 1:
        return None
    parts, run = [], 1
    for size, extent, stride, is_summed in axes:
        part = 1
        if extent > 1 and run < width and stride == run:
            part = math.gcd(extent, width // run)
            run *= part
        if extent > part and part * stride % width:
            return None
        if extent < size and extent * stride % width:
            return None
        rest = size % extent
        if rest and (rest % part if is_summed else (size - extent) * stride % width):
            return None
        parts.append(part)
    return parts if run == width else None


def best_order(loops: list[Axis], pack: list[Axis], unit: Unit) -> Order:
    """The loops, outermost first, as they lie in the array; or so that neighbouring threads meet different banks.

    These go over a few sectors of the array, then along shared memory.
    """
    best = _divide(loops, pack, unit.listed)
    if not loops or best.cycles(unit) <= best.each * 2 * _WHOLE:  # good enough, and sooner found
        return best
    width = math.prod([loop.size for loop in pack])
    for sectors in _SECTORS:
        size, strides = loops[-1]
        part = max(1, sectors * SECTOR // (item_bytes(unit.dtype) * width))
        if size > part and size % part == 0:
            outer = Axis(size // part, tuple([part * stride for stride in strides]))
            others = sorted([*loops[:-1], outer], key=lambda loop: -abs(loop.strides[1]))
            other = _divide([*others, Axis(part, strides)], pack, unit.listed)
            holds = other.each <= best.each and other.listed <= max(best.listed, unit.listed)
            if holds and other.cycles(unit) < best.cycles(unit):
                best = other
    return best


def _divide(loops: list[Axis], pack: list[Axis], listed: int) -> Order:
    """The loops, one of them cut in two if need be, so that threads have the fewest lines.

    The list of all lines holds `listed` of them; where that does not matter, fewer are better.
    """
    best, columns = Order(loops, 0, pack), 1
    for inner in range(1, len(loops) + 1):
        at = len(loops) - inner
        size, strides = loops[at]
        for part in range(2, min(size, THREADS // columns) + 1):
            if size % part == 0:
                halves = [Axis(size // part, tuple([x * part for x in strides])), Axis(part, strides)]
                own = halves if part < size else [loops[at]]
                order = Order([*loops[:at], *own, *loops[at + 1 :]], inner, pack)
                best = min(best, order, key=lambda one: one.rank(listed))
        columns *= size
        if columns > THREADS:
            break
    return best
