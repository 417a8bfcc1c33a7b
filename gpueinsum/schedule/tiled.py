"""Products by tiles: how many elements of each axis a block of a GPU takes at once."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from gpueinsum.language.strides import Axis, fuse
from gpueinsum.language.subscripts import Term
from gpueinsum.schedule.orders import Lies, Order, best_order, pack_parts
from gpueinsum.schedule.units import THREADS, WARP, Share, Unit, least_lengths, least_pitches, share

ROLES = BATCH, ROWS, COLUMNS, SUMMED = range(4)
_MAX_LOOPS = 64  # as in kernels/loops.cuh
_TRIED = 8  # pitches
INT_MAX = 2**31 - 1  # by which the kernels count tiles, and elements within a tile


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


@dataclass(frozen=True)
class Tiled:
    """A product by tiles, whose result's labels are written in the order `out`.

    The axes of each role (batch, rows, columns, summed) come outermost first; at most one of the sum is ragged. The
    rows are the right side's own labels if `swapped`. The sum is cut into so many `chunks`, and a second pass adds
    them up. Arrays that are `aligned` begin at multiples of 16 bytes.
    """

    out: Term
    axes: tuple[tuple[Cut, ...], ...]
    unit: Unit
    swapped: bool = False
    chunks: int = 1
    aligned: bool = True
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
            step = 1 if array == 1 and own.columns < unit.width else unit.width
            if own.lanes > 1 and array < 2 and step > 1:
                step *= 2  # so that threads along the sum read from different banks
            tried = range(pitches[array], (unit.capacity - others) // many + 1, step)[:_TRIED]
            pitches[array] = min(tried, key=lambda pitch: self._wait(array, pitch))
        return pitches[0], pitches[1], pitches[2]

    def _wait(self, array: int, pitch: int) -> tuple[bool, float, int]:
        order = self._order(array, pitch)
        return not self._holds(array, order), order.cycles(self.unit), pitch

    @property
    def _many(self) -> tuple[int, int, int]:
        """Of each array, how many times its pitch a tile takes."""
        batch, depth = self.tile[BATCH], self.tile[SUMMED]
        return batch * depth, batch * depth, batch * self.share.across * self.share.columns

    @cached_property
    def lengths(self) -> tuple[int, int, int]:
        """Elements of shared memory that each array's tile takes, the last with the sums of lanes."""
        x, y, z = (many * pitch for many, pitch in zip(self._many, self.pitches, strict=True))
        own, y = self.share, -(-y // self.unit.width) * self.unit.width
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
        found = list[tuple[Lies, int]]()
        for role, place in ((BATCH, many * pitch), (lines, pitch), (neighbours, 1)):
            for cut in reversed(self.axes[role]):
                found.append((Lies(cut.size, cut.extent, cut.strides[array], role == SUMMED), place))
                place *= cut.extent
        found.sort(key=lambda one: abs(one[0].stride))
        begins_at_packs = self.aligned and (array < 2 or self.chunks == 1 or self._outputs % self.unit.width == 0)
        parts = pack_parts([lies for lies, _ in found], self.unit.width) if begins_at_packs else None
        loops, pack = list[Axis](), list[Axis]()
        for (lies, place), part in zip(reversed(found), reversed(parts or [1] * len(found)), strict=True):
            strides = lies.stride, place, int(lies.is_summed and lies.size % lies.extent > 0)
            loops.append(Axis(lies.extent // part, tuple([part * stride for stride in strides])))
            pack.append(Axis(part, strides))
        return best_order(fuse(loops), fuse(pack), self.unit)

    @property
    def _outputs(self) -> int:
        return math.prod([cut.size for role in (BATCH, ROWS, COLUMNS) for cut in self.axes[role]])

    @property
    def reads_packs(self) -> bool:
        """Whether it counts on arrays beginning at multiples of 16 bytes."""
        return any(order.pack for order in self.orders)

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
        if spans([(cut.extent, cut.strides) for cut in every]) > INT_MAX or math.prod(self.tiles) > INT_MAX:
            return False
        around, inside = sum(cut.tiles > 1 for cut in every), sum(cut.extent > 1 for cut in every)
        return around <= WARP and around + 3 * (inside + 1) <= _MAX_LOOPS

    def _holds(self, array: int, order: Order) -> bool:
        """Whether a thread's loads, and the list of all lines, have room for a tile."""
        most = self.unit.loads[array] if array < 2 else THREADS
        return order.each * len(order.beside) <= most and order.listed <= self.unit.listed


def spans(loops: Iterable[tuple[int, tuple[int, ...]]]) -> int:
    """From the first to the last element of loops of these extents and strides, in the array where that is the most."""
    moves = [[(extent - 1) * abs(stride) for stride in strides] for extent, strides in loops]
    return max(map(sum, zip(*moves, strict=True)), default=0)
