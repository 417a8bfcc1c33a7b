"""What the kernels of products by tiles have room for in each type, and how a block's threads share a tile."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import NamedTuple

from gpueinsum.costs.counts import item_bytes
from gpueinsum.language.plan import HALVES

THREADS, WARP = 256, 32  # of a block, as in kernels/gather.cuh; of a warp


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
    few = 8 if item_bytes(dtype) == 1 else 16  # of bytes more loads would not leave enough registers

    def unit(kernel: str, most: tuple[int, int], loads: tuple[int, int], kib: int, lines: int, blocks: int) -> Unit:
        left, right = (load // words for load in loads)
        shares, capacity = _shares(*most, width), (kib << 8) // words
        return Unit(kernel, dtype, item, width, shares, (left, right), capacity, lines // 3, blocks)

    return (
        unit("contract", (4, 2) if words == 4 else (2, 4), (16, 8), 32, 1024, 2),
        unit(
            "contract_small", (1, 4 if words == 1 else 2) if words < 4 else (2, 2), (few, 4), 20, 768, 2 + (words < 4)
        ),
    )


def _shares(down: int, across: int, width: int) -> tuple[tuple[int, int], ...]:
    """What a thread may make, as `with_results` of kernels/contract.cuh: the most; half of the packs, fewer columns."""
    fewer = max(1, down // 2)
    shares = {(down, across), *[(fewer, columns) for columns in {across, 2, 1}]}
    return tuple(sorted([(packs * width, columns) for packs, columns in shares]))


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
        packs = own_rows // unit.width + (2 * own_columns if own_columns < unit.width else own_columns // unit.width)
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
    of_columns = own.across * own.columns if own.columns < unit.width else (columns | odd) * unit.width
    return (rows | odd) * unit.width, of_columns, rows * unit.width


def least_lengths(unit: Unit, own: Share, batch: int, depth: int) -> tuple[int, int, int]:
    """`Tiled.lengths`, at the least."""
    x, y, z = least_pitches(unit, own)
    results = batch * own.across * own.columns * z
    if own.lanes > 1:
        results = max(results, own.rows * own.columns * THREADS // 2)
    return batch * depth * x, -(-batch * depth * y // unit.width) * unit.width, results
