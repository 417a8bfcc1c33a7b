"""From a pair of strided arrays to the tiles by which a kernel of a GPU multiplies it in the least predicted time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from gpueinsum.costs.counts import item_bytes
from gpueinsum.costs.seconds import TILES_START, pass_seconds
from gpueinsum.language.plan import HALVES
from gpueinsum.language.strides import Axis, axes, contiguous, fuse, label_strides
from gpueinsum.language.subscripts import Term
from gpueinsum.schedule.orders import SECTOR, Lies, pack_parts
from gpueinsum.schedule.problem import Problem
from gpueinsum.schedule.tiled import BATCH, COLUMNS, INT_MAX, ROLES, ROWS, SUMMED, Cut, Tiled, spans
from gpueinsum.schedule.units import THREADS, WARP, Unit, least_lengths, share, units

_ARRAYS = (BATCH, ROWS, SUMMED), (BATCH, SUMMED, COLUMNS), (BATCH, ROWS, COLUMNS)  # the roles of each
_LHS, _RHS, _OUT = range(len(_ARRAYS))
_MOST_AXES = 30  # or there would be too many loops
_STARTS = 1, 32
# Products for each element read or written: up to the first a kernel of many threads is tried, from the second on one
# of many results for each.
_FEW, _MANY = 32, 2
_SKINNY = 16  # rows or columns: of fewer, these are the columns


class Access(NamedTuple):
    """Instructions for an element; for a pack whose elements lie apart in shared memory, and for one that is whole."""

    element: float
    spread: float
    whole: float


# Instructions of each of a block's warps, by the PTX of the kernels: for a turn of the block, for what a thread brings
# in it, for a tile of results, for what a thread writes of it.
_TURN, _BRING, _RESULTS, _WRITE = 57, Access(11, 22, 13), 40, Access(11, 22, 14)
# How fast instructions begin, as a share of those of large products of float32, by the root of the blocks that a
# multiprocessor holds: a cycle-level simulator begins 1.35 in a cycle of two blocks and 1.8 of three, where a copy has
# three quarters of an H200's bytes a cycle.
_BEGUN = 0.34


class Tiling(NamedTuple):
    """Tiles, seconds that they are predicted to take, bytes of scratch memory."""

    tiled: Tiled
    seconds: float
    scratch: int


def choose_tiles(problem: Problem, out: Term) -> Tiling | None:
    """The tiles that take the least time with a result in this order of its labels; None if no kernel holds any."""
    batch, rows, columns, summed = problem.shape
    intensity = batch * rows * columns * summed / sum(problem.elements)
    many, few = units(problem.dtype)
    wanted = [unit for unit, fits in ((many, intensity > _MANY), (few, intensity <= _FEW)) if fits]
    chosen = [unit for unit in wanted if f"kernel {unit.kernel}" not in problem.profile.lacks]
    sides = (False, True) if min(rows, columns) > _SKINNY else (columns > rows,)
    searches = [_Search(problem, out, unit, swapped) for unit in chosen for swapped in sides]
    found = [tiling for search in searches if (tiling := search.best()) is not None]
    return min(found, key=lambda tiling: tiling.seconds, default=None)


class _Search:
    """Tiles grow along one axis at a time, the one that saves the most predicted time.

    `extents` are the elements of a tile along each axis.
    """

    def __init__(self, problem: Problem, out: Term, unit: Unit, swapped: bool) -> None:
        self.profile, self.out, self.swapped, self.unit = problem.profile, out, swapped, unit
        self.item, self.aligned, size = item_bytes(problem.dtype), problem.aligned, problem.size
        sides = [label_strides(term, own) for term, own in zip(problem.terms, problem.strides, strict=True)]
        batch, left, right, summed = problem.roles
        if swapped:
            sides, left, right = sides[::-1], right, left
        arrays = (*sides, contiguous(out, size))
        self.roles, self.axes = list[int](), list[Axis]()
        for role, (labels, by) in enumerate(((batch, 0), (left, 0), (right, 1), (summed, 0))):
            order = sorted(labels, key=lambda label: -abs(arrays[by].get(label, 0)))
            own = fuse(axes(order, size, *arrays))
            self.axes += own
            self.roles += [role] * len(own)
        sizes = [axis.size for axis in self.axes]
        self.points = self._by_role(sizes)
        b, m, n, k = self.points
        self.elements = b * m * k, b * n * k, b * m * n
        self.known = dict[tuple[int, ...], tuple[float, float]]()  # what `_array` found
        self.is_far = self._spans(sizes) > INT_MAX
        self.near = [
            sorted(
                [n for n, role in enumerate(self.roles) if role in roles],
                key=lambda n: abs(self.axes[n].strides[array]),
            )
            for array, roles in enumerate(_ARRAYS)
        ]

    def best(self) -> Tiling | None:
        if len(self.axes) > _MOST_AXES:
            return None
        grown = {tuple(found) for start in self._starts() if (found := self._grow(start)) is not None}
        if not grown:
            return None
        extents = min(grown, key=lambda extents: self._price(extents)[0])
        seconds, chunks = self._price(extents)
        scratch = chunks * self.elements[-1] * self._partial_bytes() if chunks > 1 else 0
        return Tiling(self._tiled(extents, chunks), seconds, scratch)

    def _starts(self) -> Iterator[list[int]]:
        """Tiles of one element but along the sum, which has up to so many: whole axes, the nearest first."""
        seen = []
        for most in _STARTS:
            extents, total = [1] * len(self.axes), 1
            for n in (*self.near[0], *self.near[1]):
                whole = self.axes[n].size
                if self.roles[n] == SUMMED and extents[n] == 1 and total * whole <= most:
                    extents[n] = whole
                    total *= whole
            if extents not in seen and self._may_fit(extents):
                seen.append(extents)
                yield extents

    def _grow(self, extents: list[int]) -> list[int] | None:
        """The last of better and better tiles that the kernel holds; None if it holds none of them.

        Tiles get wider along one axis; where none is better so, along one axis at another's expense.
        """
        grown, seconds = [extents], sum(self._parts(extents))
        while True:
            best = self._best_of(self._widened(extents), seconds) or self._best_of(self._traded(extents), seconds)
            if best is None:
                return next((found for found in reversed(grown) if self._tiled(found).fits()), None)
            seconds, extents = best
            grown.append(extents)

    def _best_of(self, tiles: Iterable[list[int]], seconds: float) -> tuple[float, list[int]] | None:
        """Of tiles that take less time than so much."""
        found = [(own, each) for each in tiles if self._may_fit(each) and (own := sum(self._parts(each))) < seconds]
        return min(found, default=None)

    def _widened(self, extents: Sequence[int]) -> Iterator[list[int]]:
        for n in range(len(self.axes)):
            if wider := self._wider(extents, n):
                yield [*extents[:n], wider, *extents[n + 1 :]]

    def _traded(self, extents: Sequence[int]) -> Iterator[list[int]]:
        for n, extent in enumerate(extents):
            if extent > 1 and (self.roles[n] != SUMMED or self.axes[n].size % (extent // 2) == 0):
                for found in self._widened([*extents[:n], extent // 2, *extents[n + 1 :]]):
                    if found[n] == extent // 2:
                        yield found

    def _wider(self, extents: Sequence[int], n: int) -> int:
        """Twice as many elements along an axis, or all; 0 if there are no more."""
        size, now = self.axes[n].size, extents[n]
        wanted = size if 2 * now >= size else 2 * now
        if self.roles[n] == SUMMED and size % wanted:
            others = [other for other, role in enumerate(self.roles) if role == SUMMED and other != n]
            if any(self.axes[other].size % extents[other] for other in others):
                wanted = size
        return wanted if wanted > now else 0

    def _may_fit(self, extents: Sequence[int]) -> bool:
        """What `Tiled.fits` says, sooner; of few it says otherwise."""
        batch, rows, columns, depth = self._by_role(extents)
        if (
            batch * rows * depth > self.unit.loads[0] * THREADS
            or batch * columns * depth > self.unit.loads[1] * THREADS
        ):
            return False
        own = share(self.unit, batch, rows, columns, depth)
        if own is None or (self.is_far and self._spans(extents) > INT_MAX):
            return False
        x, y, z = least_lengths(self.unit, own, batch, depth)
        return max(x + y, z) <= self.unit.capacity

    def _spans(self, extents: Sequence[int]) -> int:
        return spans((extent, axis.strides) for extent, axis in zip(extents, self.axes, strict=True))

    def _tiled(self, extents: Sequence[int], chunks: int = 1) -> Tiled:
        cuts: tuple[list[Cut], ...] = [], [], [], []
        for extent, role, axis in zip(extents, self.roles, self.axes, strict=True):
            cuts[role].append(Cut(axis.size, extent, axis.strides))
        return Tiled(self.out, tuple(map(tuple, cuts)), self.unit, self.swapped, chunks, self.aligned)

    def _by_role(self, numbers: Sequence[int]) -> list[int]:
        product = [1] * len(ROLES)
        for number, role in zip(numbers, self.roles, strict=True):
            product[role] *= number
        return product

    # ------------------------------------------------------------ price

    def _price(self, extents: Sequence[int]) -> tuple[float, int]:
        """Seconds with the second pass, and into how many chunks the sum is cut."""
        _, _, _, steps = tiles = self._tiles(extents)
        held = self.profile.processors * self.unit.blocks
        slots = math.prod(tiles[:SUMMED])
        chunks = max(1, min(held // slots, steps // 2))
        chunks = -(-steps // -(-steps // chunks))
        blocks = slots * chunks
        # The last turns leave a part of the device idle; fewer blocks than it holds leave memory idle, too.
        whole = -(-blocks // held) * held / blocks
        moving, busy = self._parts(extents)
        seconds = self.profile.launch + TILES_START + max(moving * max(1.0, whole / 2), busy * whole)
        if chunks > 1:
            partial = self.elements[-1] * self._partial_bytes()
            seconds += pass_seconds(self.profile, chunks * partial + partial)
        return seconds, chunks

    def _parts(self, extents: Sequence[int]) -> tuple[float, float]:
        """Seconds of reading and writing, and of all instructions, on a device that is full."""
        unit, profile = self.unit, self.profile
        batch, rows, columns, depth = self._by_role(extents)
        tiles = self._tiles(extents)
        arrays = [self._array(extents, array) for array in (_LHS, _RHS, _OUT)]
        moved = sum(elements * waste for elements, (waste, _) in zip(self.elements, arrays, strict=True))
        again = (tiles[COLUMNS] - 1) * self.elements[0] + (tiles[ROWS] - 1) * self.elements[1]
        keeps = tiles[BATCH] * tiles[COLUMNS] * tiles[SUMMED] == 1  # the one tile of the columns' array
        moving = (moved + (0 if keeps else again / profile.cached)) * self.item / profile.bytes_per_second
        own = share(unit, batch, rows, columns, depth)
        assert own is not None  # the caller has asked
        (_, bring), (_, bring_columns), (_, write) = arrays
        warps = THREADS // WARP
        turn = warps * (_TURN + bring + (0 if keeps else bring_columns)) + own.multiply
        results = warps * (_RESULTS + write) + own.add
        instructions = math.prod(tiles[:SUMMED]) * (tiles[SUMMED] * turn + results)
        rate = profile.rate("float32")
        begun = rate.flops_per_second / (2 * WARP) if rate else profile.loop_flops_per_second / WARP
        return moving, instructions / (begun * _BEGUN * math.sqrt(unit.blocks))

    def _array(self, extents: Sequence[int], array: int) -> tuple[float, float]:
        """How many times its bytes an array's tiles move, and instructions of a thread for a tile of it."""
        key = array, *[extents[n] for n in self.near[array]]
        found = self.known.get(key)
        if found is None:
            access = _WRITE if array == _OUT else _BRING
            found = self.known[key] = self._waste(extents, array), self._instructions(extents, array, access)
        return found

    def _instructions(self, extents: Sequence[int], array: int, access: Access) -> float:
        """Of a thread, for its elements, or packs, of a tile of an array."""
        elements, near = math.prod([extents[n] for n in self.near[array]]), self.near[array]
        lies = [Lies(self.axes[n].size, extents[n], self.axes[n].strides[array], self.roles[n] == SUMMED) for n in near]
        parts = pack_parts(lies, self.unit.width) if self.aligned else None
        if parts is None:
            return access.element * -(-elements // THREADS)
        neighbours = COLUMNS if array == _RHS else ROWS
        is_whole = parts[0] == self.unit.width and self.roles[near[0]] == neighbours
        return (access.whole if is_whole else access.spread) * -(-elements // (self.unit.width * THREADS))

    def _tiles(self, extents: Sequence[int]) -> list[int]:
        return self._by_role([-(-axis.size // extent) for axis, extent in zip(self.axes, extents, strict=True)])

    def _waste(self, extents: Sequence[int], array: int) -> float:
        """Bytes of the sectors that a tile's runs of neighbours lie in, over the bytes of the runs."""
        run = self.item
        for n in self.near[array]:
            stride = self.axes[n].strides[array]
            if stride and abs(stride) * self.item != run:
                break
            run *= extents[n] if stride else 1
            if extents[n] < self.axes[n].size:
                break
        if run % SECTOR == 0:
            return 1.0
        return SECTOR / run if SECTOR % run == 0 else (run + SECTOR - math.gcd(run, SECTOR)) / run

    def _partial_bytes(self) -> int:
        return 4 if self.unit.dtype in HALVES else self.item
