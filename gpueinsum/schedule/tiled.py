"""Products by tiles: how many elements of each axis a block of a GPU takes at once, and how its threads share them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import NamedTuple

from gpueinsum.costs.counts import item_bytes
from gpueinsum.language.plan import HALVES
from gpueinsum.language.strides import Axis, fuse
from gpueinsum.language.subscripts import Term

ROLES = BATCH, ROWS, COLUMNS, SUMMED = range(4)
# As in kernels/gather.cuh.
THREADS, WARP, GROUP, _MAX_LOOPS = 256, 32, 4, 64
_TRIED = 8  # pitches, in packs
_INT_MAX = 2**31 - 1  # by which the kernels count tiles, and elements within a tile


class Unit(NamedTuple):
    """What a kernel makes of a type, as kernels/contract.cu and kernels/contract_small.cu say."""

    kernel: str
    dtype: str
    item: int  # bytes in which it is summed
    width: int  # elements that one access brings from shared memory
    results: tuple[tuple[int, int], ...]  # rows and columns that a thread may make
    loads: tuple[int, int]  # of a thread, under way, of either side
    capacity: int  # elements of shared memory
    listed: int  # places of lines that it holds of each array
    blocks: int  # that a multiprocessor holds at once


@cache
def units(dtype: str) -> tuple[Unit, Unit]:
    """Of `contract`, which makes many results in a thread, and of `contract_small`, which makes few in more threads."""
    narrow = dtype in HALVES or dtype in ("int8", "uint8", "int16", "uint16")
    item = 4 if narrow else item_bytes(dtype)
    width, words = (4, 1) if item <= 4 else (16 // item, item // 4)

    def unit(kernel: str, most: tuple[int, int], loads: tuple[int, int], kib: int, lines: int, blocks: int) -> Unit:
        left, right = (load // words for load in loads)
        shares, capacity = _shares(*most, width), (kib << 8) // words
        return Unit(kernel, dtype, item, width, shares, (left, right), capacity, lines // 3, blocks)

    return (
        unit("contract", (4, 2) if words == 4 else (2, 4), (12, 8), 32, 1024, 2),
        unit("contract_small", (1, 4 if words == 1 else 2) if words < 4 else (2, 2), (8, 4), 16, 768, 2 + (words < 4)),
    )


def _shares(down: int, across: int, width: int) -> tuple[tuple[int, int], ...]:
    """What a thread may make, as `with_results` of kernels/contract.cuh: the most; half of the packs, fewer columns."""
    fewer = max(1, down // 2)
    shares = {(down, across), *[(fewer, columns) for columns in {across, 2, 1}]}
    return tuple(sorted([(packs * width, columns) for packs, columns in shares]))


class Cut(NamedTuple):
    """An axis of a pair: its size, its elements in a tile, its strides in (rows' array, columns' array, result)."""

    size: int
    extent: int
    strides: tuple[int, ...]

    @property
    def tiles(self) -> int:
        return -(-self.size // self.extent)

    @property
    def is_ragged(self) -> bool:
        """Whether the last tile is shorter than the others, or overlaps with the one before."""
        return self.size % self.extent != 0


class Order(NamedTuple):
    """The loops over a tile as one array has it, outermost first; the `inner` last ones run over columns.

    A thread has one column and `each` lines. Strides are those in the array, in shared memory, and along the ragged
    axis of the sum.
    """

    loops: list[Axis]
    inner: int

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


@dataclass(frozen=True)
class Tiled:
    """A product by tiles, whose result's labels are written in the order `out`.

    The axes of each role (batch, rows, columns, summed) come outermost first; at most one of the sum is ragged. The
    rows are the right side's own labels if `swapped`. The sum is cut into so many `chunks`, and a second pass adds
    them up.
    """

    out: Term
    axes: tuple[tuple[Cut, ...], ...]
    unit: Unit
    swapped: bool = False
    chunks: int = 1
    name = "one tiled product"

    @cached_property
    def tile(self) -> tuple[int, ...]:
        """Elements of a tile along each role."""
        return tuple([math.prod([cut.extent for cut in cuts]) for cuts in self.axes])

    @cached_property
    def tiles(self) -> tuple[int, ...]:
        return tuple([math.prod([cut.tiles for cut in cuts]) for cuts in self.axes])

    @cached_property
    def share(self) -> Share:
        """How threads share a tile."""
        found = share(self.unit, *self.tile)
        assert found is not None
        return found

    @cached_property
    def pitches(self) -> tuple[int, int, int]:
        """Elements of shared memory from one summed element to the next, of either side; from one column of results."""
        own, unit = self.share, self.unit
        pitches, sizes = list(least_pitches(unit, own)), self._many
        for array, many in enumerate(sizes):
            others = (sizes[1 - array] * pitches[1 - array]) if array < 2 else 0
            step = 2 if own.lanes > 1 and array < 2 else 1  # threads along the sum read from different banks
            tried = range(pitches[array], (unit.capacity - others) // many + 1, step * unit.width)[: _TRIED // step]
            pitches[array] = min(tried, key=lambda pitch: self._wait(array, pitch))
        return pitches[0], pitches[1], pitches[2]

    def _wait(self, array: int, pitch: int) -> tuple[bool, int, int]:
        order = self._order(array, pitch)
        return not self._holds(array, order), _conflicts(order, self.unit.item), pitch

    @property
    def _many(self) -> tuple[int, int, int]:
        """Of each array, how many times its pitch a tile takes."""
        batch, depth = self.tile[BATCH], self.tile[SUMMED]
        return batch * depth, batch * depth, batch * self.share.across * self.share.columns

    @cached_property
    def lengths(self) -> tuple[int, int, int]:
        """Elements of shared memory that each array's tile takes, the last with the sums of lanes."""
        x, y, z = (many * pitch for many, pitch in zip(self._many, self.pitches, strict=True))
        own = self.share
        return x, y, max(z, own.rows * own.columns * THREADS // 2) if own.lanes > 1 else z

    @cached_property
    def keeps(self) -> bool:
        """Whether the second array's tile stays in shared memory, since all blocks need the same one."""
        x, y, z = self.lengths
        return self.tiles[BATCH] * self.tiles[COLUMNS] * self.tiles[SUMMED] == 1 and y + max(x, z) <= self.unit.capacity

    @property
    def begins(self) -> tuple[int, int, int]:
        """Where each array's tile begins in shared memory, in elements."""
        x, y, _ = self.lengths
        return (y, 0, y) if self.keeps else (0, x, 0)

    @cached_property
    def orders(self) -> tuple[Order, Order, Order]:
        """Of the loops over a tile, as each array has it."""
        x, y, z = (self._order(array, pitch) for array, pitch in enumerate(self.pitches))
        return x, y, z

    def _order(self, array: int, pitch: int) -> Order:
        """Where elements of the array's tile lie so far apart in shared memory, as in `pitches`."""
        lines, neighbours = ((SUMMED, ROWS), (SUMMED, COLUMNS), (COLUMNS, ROWS))[array]
        many = self.share.across * self.share.columns if array == 2 else self.tile[SUMMED]
        loops = []
        for role, place in ((BATCH, many * pitch), (lines, pitch), (neighbours, 1)):
            for cut in reversed(self.axes[role]):
                if cut.extent > 1:
                    along = int(role == SUMMED and cut.is_ragged)
                    loops.append(Axis(cut.extent, (cut.strides[array], place, along)))
                place *= cut.extent
        return _divide(fuse(sorted(loops, key=lambda loop: -abs(loop.strides[0]))), self.unit.listed)

    def fits(self) -> bool:
        """Whether the kernel holds such tiles."""
        own = share(self.unit, *self.tile)
        if own is None:
            return False
        x, y, z = least_lengths(self.unit, own, self.tile[BATCH], self.tile[SUMMED])
        if max(x + y, z) > self.unit.capacity:
            return False
        if not all(
            self._holds(array, self._order(array, pitch)) for array, pitch in enumerate(least_pitches(self.unit, own))
        ):
            return False
        every = [cut for cuts in self.axes for cut in cuts]
        spans = [sum((cut.extent - 1) * abs(cut.strides[array]) for cut in every) for array in range(3)]
        if max(*spans, math.prod(self.tiles)) > _INT_MAX:
            return False
        around, inside = sum(cut.tiles > 1 for cut in every), sum(cut.extent > 1 for cut in every)
        return around <= WARP and around + 3 * (inside + 1) <= _MAX_LOOPS

    def _holds(self, array: int, order: Order) -> bool:
        """Whether a thread's loads, and the list of all lines, have room for a tile."""
        most = self.unit.loads[array] if array < 2 else THREADS
        return order.each <= most and order.listed <= self.unit.listed


# Instructions of a warp for a product that is added to a sum, at the rate of those of float32: by the units that a
# multiprocessor of an H200 has for each type. Numbers of 64 bits are multiplied in parts of 32.
_MULTIPLY = dict.fromkeys(["float32", "float16", "bfloat16"], 1) | {
    "complex64": 4,
    "complex128": 8,
    "int64": 8,
    "uint64": 8,
}


class Share(NamedTuple):
    """How a block's threads share a tile: results of each, threads along rows, columns and the sum; the work of it.

    That is so many instructions of warps for each tile of both sides, and for each of results.
    """

    rows: int
    columns: int
    down: int
    across: int
    lanes: int
    multiply: float
    add: float


@lru_cache(maxsize=4096)
def share(unit: Unit, batch: int, rows: int, columns: int, depth: int) -> Share | None:
    """The way that takes the fewest instructions; None if a tile has more results than threads can have."""
    fma = _MULTIPLY.get(unit.dtype, 2)
    best = None
    for own_rows, own_columns in unit.results:
        down, across = -(-rows // own_rows), -(-columns // own_columns)
        team = down * across * batch
        if team > THREADS:
            continue
        packs = own_rows // unit.width + (own_columns if own_columns < unit.width else own_columns // unit.width)
        lanes = max(1, min(THREADS // team, depth // 4))
        warps, turns, each = -(-team * lanes // 32), -(-depth // lanes), own_rows * own_columns * fma + packs + 5
        multiply = max(warps * turns * each, 2.0 * turns * (each + 30))
        results = own_rows * own_columns // unit.width
        add = 8 * 2.0 * results + (lanes.bit_length() * (60 + 8 * 3 * results) if lanes > 1 else 0)
        if best is None or multiply + add < best.multiply + best.add:
            best = Share(own_rows, own_columns, down, across, lanes, multiply, add)
    return best


def least_pitches(unit: Unit, own: Share) -> tuple[int, int, int]:
    """Those of tiles that take the least memory: whole packs, an odd number of them where threads go along the sum."""
    odd = int(own.lanes > 1)
    rows, columns = -(-own.down * own.rows // unit.width), -(-own.across * own.columns // unit.width)
    return (rows | odd) * unit.width, (columns | odd) * unit.width, rows * unit.width


def least_lengths(unit: Unit, own: Share, batch: int, depth: int) -> tuple[int, int, int]:
    """`Tiled.lengths`, at the least."""
    x, y, z = least_pitches(unit, own)
    results = batch * own.across * own.columns * z
    if own.lanes > 1:
        results = max(results, own.rows * own.columns * THREADS // 2)
    return batch * depth * x, batch * depth * y, results


def _conflicts(order: Order, item: int) -> int:
    """How many threads of a warp come to the same bank of shared memory, at the most."""
    places = [0]
    for loop in reversed(order.loops):
        places = [place + n * loop.strides[1] for n in range(min(loop.size, WARP)) for place in places][:WARP]
    banks = max(4, item)
    at_once = WARP * 4 // banks
    return max(Counter(place % at_once for place in places[:at_once]).values())


def _divide(loops: list[Axis], listed: int) -> Order:
    """The loops, one of them cut in two if need be, so that threads have the fewest lines.

    The list of all lines holds `listed` of them; where that does not matter, fewer are better.
    """
    best, columns = Order(loops, 0), 1
    for inner in range(1, len(loops) + 1):
        at = len(loops) - inner
        size, strides = loops[at]
        for part in range(2, min(size, THREADS // columns) + 1):
            if size % part == 0:
                halves = [Axis(size // part, tuple([x * part for x in strides])), Axis(part, strides)]
                own = halves if part < size else [loops[at]]
                best = min(best, Order([*loops[:at], *own, *loops[at + 1 :]], inner), key=lambda one: one.rank(listed))
        columns *= size
        if columns > THREADS:
            break
    return best
