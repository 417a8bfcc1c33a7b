"""From strided arrays to launches without addresses: which kernel, how threads share its work, when it reads packs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from gpueinsum.backends.cuda.program import Launch
from gpueinsum.backends.cuda.source import THREADS, Kernel, job, nest
from gpueinsum.costs.counts import item_bytes
from gpueinsum.language.strides import Axis, axes, contiguous, fuse, label_strides, points
from gpueinsum.language.subscripts import Label, Term

Sizes = tuple[tuple[Label, int], ...]

_RESIDENT = 2048  # threads that one multiprocessor holds at the most
_ROUNDS = 4  # times what a device holds at once, in blocks; from there on they take turns by themselves
_PACK_BYTES = 16  # of the widest load
_TILE = 64  # rows and columns of a block's part of an integer product, as in kernels/integer_gemm.cu
# Of an axis that a permuting copy reads or writes along. Below, a tile of 32 or 64 would be mostly empty, and either
# side's neighbours lie in one or two sectors of 32 bytes as it is. By reasoning; not measured yet.
_TILED = 16


class Source(NamedTuple):
    """An array as a kernel reads it: its term, its strides in elements, whether it enters as its conjugate."""

    term: Term
    strides: tuple[int, ...]
    conjugated: bool = False


@lru_cache(maxsize=4096)
def add(sources: tuple[Source, ...], out: Term, sizes: Sizes, dtype: str, processors: int) -> Launch:
    """`out[...] = the sum of the sources`, C-ordered; all are of the term."""
    return _map("add", sources, out, dict(sizes), dtype, processors)


_NO_PACKS = 0, -1


def expand(
    term: Term, out: Term, strides: tuple[int, ...], size: Mapping[Label, int], dtype: str, processors: int
) -> Launch:
    """`term->out` where the result repeats or gains labels, C-ordered."""
    source, apart = label_strides(term, strides), _apart(out, size)
    walked = [source.pop(label, 0) for label in out]  # along the first of each label's loops
    strided = zip(out, zip(walked, apart, strict=True), strict=True)
    loops = fuse([Axis(size[label], both) for label, both in strided])
    last = loops.pop() if loops else Axis(1, (0, 0))
    is_packed = last.size % _width(dtype) == 0
    width = _width(dtype) if is_packed else 1
    packs = Axis(last.size // width, tuple([stride * width for stride in last.strides]))
    nested, outputs = nest(*_columns([*loops, packs], 2), [], [[], []]), points(out, size) // width
    numbers = outputs, 0, int(is_packed), -1, *last.strides
    return Launch(Kernel("expand", dtype, dtype), _blocks(outputs, processors), job(nested, *numbers))


def _apart(term: Term, size: Mapping[Label, int]) -> list[int]:
    """Strides of a number that is 0 only where all loops of each label stand at the same place.

    It has a digit for every loop that repeats a label: how far that loop stands from the label's first, which is less
    than the label's size either way. So no other digits make up for one, and it is less than the points of the term.
    """
    strides, weight = [0] * len(term), 1
    for place, label in enumerate(term):
        first = term.index(label)
        if first < place:
            strides[first] -= weight
            strides[place] += weight
            weight *= size[label]
    return strides


def integer_gemm(batch: Axis, rows: Axis, columns: Axis, summed: Axis, dtype: str, processors: int) -> Launch:
    """A batched matrix product of types that cuBLAS lacks; the axes' strides are those of lhs, rhs and out."""
    strides = (
        *(axis.strides[0] for axis in (batch, rows, summed)),
        *(axis.strides[1] for axis in (batch, summed, columns)),
        *(axis.strides[2] for axis in (batch, rows, columns)),
    )
    tiles = batch.size * -(-rows.size // _TILE) * -(-columns.size // _TILE)
    numbers = job(batch.size, rows.size, columns.size, summed.size, *strides)
    return Launch(Kernel("integer_gemm", dtype, dtype, 2), _blocks(tiles * THREADS, processors), numbers)


def pointers(matrices: Sequence[Axis], item: int, processors: int) -> Launch:
    """Three arrays of pointers, one behind the other: to the matrices of lhs, of rhs and of out, along these axes."""
    loops = [Axis(axis.size, tuple([stride * item for stride in axis.strides])) for axis in matrices]
    number = math.prod(axis.size for axis in matrices)
    numbers = job(nest(*_columns(loops, 3), [], [[]] * 3), number)
    return Launch(Kernel("pointers", "uint8", "uint64", 3), _blocks(number, processors), numbers)


# ---------------------------------------------------------------- element by element


def _product(sources: tuple[Source, ...], out: Term, size: Mapping[Label, int], dtype: str, processors: int) -> Launch:
    """A product with nothing to sum; of one array that is written along another axis than it is read, by tiles."""
    if len(sources) == 1:
        [source] = sources
        tiled = _permute(source, out, size, dtype, processors)
        if tiled is not None:
            return tiled
    return _map("multiply", sources, out, size, dtype, processors)


def _map(
    name: str, sources: tuple[Source, ...], out: Term, size: Mapping[Label, int], dtype: str, processors: int
) -> Launch:
    """A kernel that makes each element of the result from one element of each source."""
    walked = [label_strides(source.term, source.strides) for source in sources]
    kept, outputs = fuse(axes(out, size, *walked)), points(out, size)
    packed, packs = _in_packs(kept, [], dtype), _NO_PACKS
    if packed is not None:
        kept, packs, outputs = packed[0], (1, packed[1]), outputs // _width(dtype)
    loops = nest(*_columns(kept, len(sources)), [], [[] for _ in sources])
    numbers = outputs, _bits(sources), *packs
    return Launch(Kernel(name, dtype, dtype, len(sources)), _blocks(outputs, processors), job(loops, *numbers))


def _permute(source: Source, out: Term, size: Mapping[Label, int], dtype: str, processors: int) -> Launch | None:
    """A copy by tiles if the source is contiguous along another axis than the result, and both are long."""
    loops = fuse(axes(out, size, label_strides(source.term, source.strides), contiguous(out, size)))
    rows = next((loop for loop in loops if loop.strides[0] == 1), None)
    if rows is None or loops[-1].strides[0] in (0, 1) or min(rows.size, loops[-1].size) < _TILED:
        return None
    columns = loops.pop()
    around = [loop for loop in loops if loop is not rows]
    turns = 1
    for loop in around:
        turns *= loop.size
    nested = nest(*_columns(around, 2), [], [[], []])
    numbers = turns, rows.size, columns.size, columns.strides[0], rows.strides[1], int(source.conjugated)
    edge = 32 if item_bytes(dtype) > 4 else 64  # of a tile, as in kernels/permute.cu
    tiles = turns * -(-rows.size // edge) * -(-columns.size // edge)
    return Launch(Kernel("permute", dtype, dtype), _blocks(tiles * THREADS, processors), job(nested, *numbers))


# ---------------------------------------------------------------- packs


def _width(dtype: str) -> int:
    """How many elements a pack has."""
    return max(1, _PACK_BYTES // item_bytes(dtype))


def _in_packs(loops: list[Axis], others: list[Axis], dtype: str) -> tuple[list[Axis], int] | None:
    """The loops with packs as the steps of the last of them, and by a bit per array which have neighbours along it.

    None if it cannot be read in packs: it must be of whole packs, each array contiguous along it or without it, and
    every pack aligned if the array's first one is. What the arrays' addresses are is seen to when the kernel runs.
    """
    width = _width(dtype)
    if not loops or loops[-1].size % width:
        return None
    *outer, last = loops
    for number, stride in enumerate(last.strides):
        if stride not in (0, 1):
            return None
        if stride == 1 and any(loop.strides[number] % width for loop in (*outer, *others)):
            return None
    along = sum(stride << number for number, stride in enumerate(last.strides))
    steps = Axis(last.size // width, tuple(stride * width for stride in last.strides))
    return [*outer, steps], along


# ---------------------------------------------------------------- threads


def _blocks(threads: int, processors: int) -> int:
    """As many blocks as there is work for, up to what the device holds at once several times over."""
    return min(-(-threads // THREADS), processors * (_RESIDENT // THREADS) * _ROUNDS)


def _columns(loops: Sequence[Axis], arrays: int) -> tuple[list[int], list[list[int]]]:
    """Loops as `nest` takes them: their sizes, and one list of strides per array."""
    return [loop.size for loop in loops], [[loop.strides[array] for loop in loops] for array in range(arrays)]


def _bits(sources: Sequence[Source]) -> int:
    return sum(source.conjugated << number for number, source in enumerate(sources))
