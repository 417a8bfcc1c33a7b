"""numpy's loops where memory is what they wait for, in blocks that stay in cache.

No `out` may share memory with what is read.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from gpueinsum.backends.cpu import pool as memory
from gpueinsum.backends.cpu import threads
from gpueinsum.language.strides import Axis, fuse

Array = np.ndarray[Any, Any]

# What follows was measured on 2 cores with 1 MiB of L2 each and 32 MiB of L3 together, numpy 2.4, float32, medians.
_LINE = 64
# A copy that reads lines of memory in pieces is tiled if more bytes than this are read before a line is needed again:
# 72^4 as `bdac`, 332 KB, took 46 ms at once and 66 ms tiled; 24 x 20 x 24 x 20 x 24 as `ebcad` 18 ms against 7, 60^4
# as `dcba` 126 ms against 23, 16^6 as `fedcba` 368 ms against 32.
_NEAR = 384 << 10
_PLANE = 4096  # elements of a tile, so that its call does not show: of 16^6 1024 took 32 ms, 4096 32, 16384 92
# Rows that begin so many bytes apart fall into the same few sets of a cache. Tiles of 128 x 128 are copied side by side
# first: 2048 x 2048 transposed took 50 ms at once, 32 ms in tiles, 16 ms in tiles that were copied.
_CONFLICT, _TILE = 4096, 128
# Crossing copies and dots wait for memory one line at a time, and two threads halve them: 7.6 ms to 4.4 for 2000 x 2000
# (float64). What streams gains little by a second thread, and from 64 MiB on only (9.0 ms to 7.1 for a product). A
# thread is handed its work in 17 us, and begins in 30. What a thread has to do at the least, in bytes of the result;
# products of small matrices (`matmul_to`); elements of a diagonal (`reduce_to`):
_SHARE, _SHARE_OF_PRODUCTS, _SHARE_OF_DIAGONAL = 1 << 20, 1 << 19, 1 << 16
_BLOCK = 128 << 10  # bytes of a product's part that stay in cache until all of its factors are in
_PART = 2 << 20  # bytes of a product that are worth a thread
_MANY_AXES, _FEWEST_GATHERED, _MOST_GATHERED = 6, 1 << 10, 1 << 17  # of arrays that are copied by an index
# Runs of so many elements are copied as fast as they are gathered: of 14 qubits 23 us in runs of 4 and 11 us by an
# index, of 8 13 and 11, of 16 8 and 11 (complex64; alike in float32 and complex128).
_LONG_RUN = 16
_PATCHES = 512 << 10  # bytes of patches that are copied at a time
_NARROW, _SMALL_PRODUCT = 8, 4096  # of a batch of small matrices: see `matmul_to`
# `np.multiply` copies short rows to a buffer of 8192 elements, if no smaller one is asked for. That costs more than it
# spares where rows have so many bytes: `i,j->ij` with rows of 2048 took 136 us and 41 us (float32), of 1024 266 and 80
# (float64), of 256 689 and 239 (complex128); of 128 184 and 172 (float32), of 8 0.9 ms and 2.7 ms.
LONG_ROW, _SMALLEST_BUFFER = 1024, 16
_WIDE_ROW = 8 << 10  # bytes of rows made longer


def copy_to(out: Array, x: Array) -> None:
    """`out[...] = x`, tiled where the fastest axis of one is a slow one of the other."""
    if out.nbytes < _NEAR:
        np.copyto(out, x)
        return
    axes = [axis for axis in range(out.ndim) if out.shape[axis] > 1]
    by_out, by_x = _fastest_first(out, axes), _fastest_first(x, [axis for axis in axes if x.strides[axis]])
    if not by_x or by_x[0] == by_out[0]:
        np.copyto(out, x)
        return
    before = by_out[: by_out.index(by_x[0])]
    is_near = math.prod(out.shape[axis] for axis in before) * _LINE <= _NEAR
    write, read = by_out[0], by_x[0]
    in_conflict = x.strides[write] % _CONFLICT == 0 and min(out.shape[write], out.shape[read]) >= _TILE // 2

    def copy_part(out: Array, x: Array) -> None:
        if in_conflict:
            _copy_by_buffer(out, x, [write, read])
        elif is_near:
            np.copyto(out, x)
        else:
            _copy_by_planes(out, x, by_out, by_x)

    _in_parts(copy_part, by_out[-1], out, x)


def _copy_by_planes(out: Array, x: Array, by_out: list[int], by_x: list[int]) -> None:
    """One call for each plane of the fastest axes of both; slower ones of `out` stay in the call."""
    write, read = by_out[:1], by_x[:1]

    def span(axes: Sequence[int]) -> int:
        return math.prod(out.shape[axis] for axis in axes)

    while span(write) * span(read) < _PLANE and len(write) + len(read) < len(by_x):
        side, order = (read, by_x) if span(read) <= span(write) else (write, by_out)
        side.append(next(axis for axis in order if axis not in write + read))
    last = max(by_out.index(axis) for axis in read)
    loops = [axis for axis in reversed(by_out[:last]) if axis not in write + read]
    for target, source in _subarrays(loops, out, x):
        np.copyto(target, source)


def _copy_by_buffer(out: Array, x: Array, plane: Sequence[int]) -> None:
    """Tile by tile, each read along `x` into a buffer whose rows do not begin in conflict, and written along `out`."""
    buffer = np.empty((_TILE, _TILE + _LINE), x.dtype)
    loops = [axis for axis in range(out.ndim) if axis not in plane]
    for target, source in _subarrays([*loops, *plane], out, x, depth=len(loops)):
        rows, columns = target.shape
        for row, column in itertools.product(range(0, rows, _TILE), range(0, columns, _TILE)):
            part = slice(row, row + _TILE), slice(column, column + _TILE)
            tile = source[part]
            held = buffer[: tile.shape[0], : tile.shape[1]]
            np.copyto(held, tile)
            np.copyto(target[part], held)


def _subarrays(axes: Sequence[int], *arrays: Array, depth: int | None = None) -> Iterator[list[Array]]:
    """These arrays at each index of the first `depth` of these axes, which are turned to the front."""
    depth = len(axes) if depth is None else depth
    order = [*axes, *(axis for axis in range(arrays[0].ndim) if axis not in axes)]
    turned = [array.transpose(order) for array in arrays]
    for index in itertools.product(*(range(size) for size in turned[0].shape[:depth])):
        yield [array[index] for array in turned]


def reshaped(x: Array, shape: Sequence[int]) -> Array:
    """`x.reshape(shape)`."""
    elements = None if x.flags.c_contiguous else _gathered(x, len(shape))
    return (x if elements is None else elements).reshape(shape)


def copied(x: Array) -> Array:
    """A copy in C order."""
    elements = _gathered(x, 1)
    if elements is not None:
        return elements.reshape(x.shape)
    out = memory.empty(x.shape, x.dtype)
    copy_to(out, x)
    return out


def _gathered(x: Array, wanted: int) -> Array | None:
    """The elements of an array of many short axes, by an index that is made once; None for any other.

    numpy's copy turns back at every few elements: qubits permuted took 7.6 us in a copy and 2.7 us so for 11 of them,
    53 and 16 us for 14, 206 and 72 us for 16 (complex64). None, too, if so many axes as are `wanted` may hold it.
    """
    if x.ndim < _MANY_AXES or not _FEWEST_GATHERED <= x.size <= _MOST_GATHERED:
        return None
    index = _index(x.shape, x.strides, x.itemsize, wanted)
    if index is None:
        return None
    return as_strided(x, (int(index[-1]) + 1,), (x.itemsize,)).take(index, mode="clip")  # the last index is the largest


@lru_cache(maxsize=32)
def _index(shape: tuple[int, ...], strides: tuple[int, ...], item: int, wanted: int) -> Array | None:
    """Where the elements of such an array lie in memory, in C order; None if they are no longer in pieces."""
    axes = fuse([Axis(size, (stride,)) for size, stride in zip(shape, strides, strict=True)])
    is_long = axes[-1].strides[0] == item and axes[-1].size >= _LONG_RUN
    if is_long or len(axes) < max(_MANY_AXES, wanted + 1):
        return None
    if any(axis.strides[0] < 0 or axis.strides[0] % item for axis in axes):
        return None
    index = np.zeros((1,), np.intp)
    for axis in axes:
        index = np.add.outer(index, np.arange(axis.size) * (axis.strides[0] // item))
    return index.reshape(-1)


def product(factors: Sequence[Array], shape: Sequence[int]) -> Array:
    """The product of two arrays or more, each of these axes, of size 1 where it has none; laid out as they are.

    Block by block, so that the result is in cache until all factors are in: `i,ij,j->ij` of 1500 x 1600 took 1.96 ms in
    numpy's C loop, 1.13 ms so.
    """
    order = _common_order(tuple([(factor.shape, factor.strides) for factor in factors]))
    out = memory.empty([shape[axis] for axis in order], factors[0].dtype)
    parts = [out, *[factor.transpose(order) for factor in factors]]
    if _row(*parts) * out.itemsize < LONG_ROW:
        parts = _widened(*parts)
    if _row(*parts) * out.itemsize < LONG_ROW:
        _multiply_parts(*parts)
    else:
        buffer = np.setbufsize(_SMALLEST_BUFFER)
        try:
            _multiply_parts(*parts)
        finally:
            np.setbufsize(buffer)
    return out.transpose(np.argsort(order))


def _multiply_parts(out: Array, *factors: Array) -> None:
    def multiply(part: slice) -> None:
        _multiply_blocks(out[part], *[factor[part] if len(factor) > 1 else factor for factor in factors])

    threads.in_turn(multiply, len(out), threads.parts(out.nbytes, _PART))


def _multiply_blocks(out: Array, *factors: Array) -> None:
    rows = len(out) if len(factors) == 2 else len(out) * _BLOCK // out.nbytes
    if not rows and out.ndim > 1:
        for row in range(len(out)):
            _multiply_blocks(out[row], *[factor[row if len(factor) > 1 else 0] for factor in factors])
        return
    for start in range(0, len(out), max(rows, 1)):
        block = slice(start, start + max(rows, 1))
        part = out[block]
        first, second, *others = [factor[block] if len(factor) > 1 else factor for factor in factors]
        np.multiply(first, second, out=part)
        for factor in others:
            np.multiply(part, factor, out=part)


@lru_cache(maxsize=1024)
def _common_order(factors: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]) -> list[int]:
    """The axes of a product, slowest first: as they lie in the largest factor that has two of them, else as given.

    Factors by shape and strides.
    """
    largest = sorted(factors, key=lambda factor: -math.prod(factor[0]))

    def is_slower(axis: int, other: int) -> bool | None:
        for shape, strides in largest:
            if shape[axis] > 1 and shape[other] > 1 and strides[axis] and strides[other]:
                return abs(strides[axis]) > abs(strides[other])
        return None

    order: list[int] = []
    for axis in range(len(largest[0][0])):
        place = len(order)
        for before in reversed(range(len(order))):
            slower = is_slower(axis, order[before])
            if slower:
                place = before
            elif slower is False:
                break
        order.insert(place, axis)
    return order


def _row(out: Array, *factors: Array) -> int:
    """How many elements in a row no loop over several arrays has to turn back in."""

    def follows(x: Array, axis: int, size: int) -> bool:
        """Whether a factor goes on along this axis as it did before, from element to element or with one for all."""
        is_broadcast = x.shape[axis] == 1
        return is_broadcast if x.shape[-1] == 1 else not is_broadcast and x.strides[axis] == size * x.itemsize

    size = 1
    for axis in reversed(range(out.ndim)):
        if size > 1 and out.shape[axis] > 1 and not all(follows(x, axis, size) for x in factors):
            break
        size *= out.shape[axis]
    return size


def _widened(out: Array, *factors: Array) -> list[Array]:
    """The same product with several rows as one, if those factors that they share are small enough to be repeated.

    `ir,jr->ijr` of i=256, j=192, r=32 (float64) took 1.54 ms in numpy's C loop, 0.56 ms with 32 rows as one.
    """
    if out.ndim < 2:
        return [out, *factors]
    number, row = out.shape[-2:]
    is_shared = [x.shape[-2] == 1 for x in factors]
    repeated = sum(x.size for x, shared in zip(factors, is_shared, strict=True) if shared)
    fewest, most = -(-_WIDE_ROW // (row * out.itemsize)), min(number, out.size // (4 * max(repeated, 1)))
    joined = next((rows for rows in range(fewest, most + 1) if number % rows == 0), 1)
    lies = (row * out.itemsize, out.itemsize)
    if joined == 1 or not all(shared or x.strides[-2:] == lies for x, shared in zip(factors, is_shared, strict=True)):
        return [out, *factors]

    def widened(x: Array, shared: bool) -> Array:
        if shared and x.shape[-1] > 1:
            x = np.broadcast_to(x, (*x.shape[:-2], joined, row))
        elif shared:
            return x
        return x.reshape(*x.shape[:-2], x.shape[-2] // joined, joined * row)

    return [widened(x, shared) for x, shared in zip((out, *factors), (False, *is_shared), strict=True)]


def short_dots(u: Array, v: Array, out: Array) -> None:
    """`bc,bc->b` of contiguous rows of a few elements, which any loop over c alone spends its time entering.

    262,144 of 3: 1.24 ms by numpy's C loop, 0.34 ms so, in blocks of 4096 rows (of 1024 0.48, of 16,384 0.41).
    """
    block = np.empty((_PLANE, u.shape[1]), u.dtype)
    for start in range(0, len(out), _PLANE):
        rows = slice(start, start + _PLANE)
        total = out[rows]
        products = np.multiply(u[rows], v[rows], out=block[: len(total)])
        np.add(products[:, 0], products[:, 1], out=total)
        for column in range(2, u.shape[1]):
            np.add(total, products[:, column], out=total)


def crossed_dots(x: Array, y: Array, out: Array) -> None:
    """`ij,ij->i`, where i is the fastest axis of y and j that of x.

    y's tiles are copied side by side first: `ij,ji->i` of 2048 x 1792 took 27 ms in one loop, 9.5 ms so.
    """

    def dots_of_part(x: Array, y: Array, out: Array) -> None:
        buffer = np.empty((_TILE, _TILE + _LINE), y.dtype)
        out.fill(0)
        for row, column in itertools.product(range(0, x.shape[0], _TILE), range(0, x.shape[1], _TILE)):
            index = slice(row, row + _TILE), slice(column, column + _TILE)
            tile = y[index].T
            held = buffer[: tile.shape[0], : tile.shape[1]]
            np.copyto(held, tile)
            out[index[0]] += np.einsum("ij,ji->i", x[index], held)

    _in_parts(dots_of_part, 0, x, y, out)


def patches_times_vector(x: Array, y: Array, out: Array) -> None:
    """`ijxy,ij->xy` for patches that overlap in memory, where x and y are the slow axes of the image.

    They are copied in blocks that stay in cache, pixels side by side: 256 x 240 patches of 7 x 5 took 2.6 ms in numpy's
    C loop, 4.0 ms as rows of a matrix times a vector and 0.46 ms so, in blocks of 16 rows (of 4 0.58, of 64 0.83).
    """
    vector, kept = y.reshape(-1), y.ndim
    rows = max(1, out.shape[0] * _PATCHES // x.nbytes)
    buffer = np.empty((*y.shape, min(rows, out.shape[0]), *out.shape[1:]), x.dtype)
    for start in range(0, out.shape[0], rows):
        part = out[start : start + rows]
        block = buffer if len(part) == buffer.shape[kept] else np.empty((*y.shape, *part.shape), x.dtype)
        np.copyto(block, x[(*[slice(None)] * kept, slice(start, start + rows))])
        part[...] = (vector @ block.reshape(vector.size, -1)).reshape(part.shape)


def matmul_to(out: Array, x: Array, y: Array) -> None:
    """`np.matmul(x, y, out=out)`; batches of small matrices, which BLAS takes one by one on one thread, in parts.

    32,768 of 4 x 4 took 1.70 ms on one thread and 0.92 on two, 2 x 2 times 512 of 2 x 1024 (complex64) 2.13 and 1.22,
    8192 of 8 x 8 0.56 and 0.41, 2048 of 16 x 16 0.32 and 0.28.
    """
    rows, summed, columns = x.shape[-2], x.shape[-1], y.shape[-1]
    is_small = 1 < min(rows, summed, columns) <= _NARROW and rows * summed * columns <= _SMALL_PRODUCT
    parts = threads.parts(out.size * summed, _SHARE_OF_PRODUCTS) if is_small and out.ndim > 2 else 1
    if parts == 1:
        np.matmul(x, y, out=out)
        return

    def part_of(array: Array, part: slice) -> Array:
        return array[part] if array.ndim == out.ndim and len(array) > 1 else array

    def multiply(part: slice) -> None:
        np.matmul(part_of(x, part), part_of(y, part), out=out[part])

    threads.in_turn(multiply, len(out), parts)


def reduce_to(out: Array, x: Array, equation: str) -> None:
    """`np.einsum(equation, x, out=out)`, in parts along out's first label.

    A diagonal is on a line of memory of its own with each element: `aibi->ab` of 64^4 (float64) took 1.27 ms on one
    thread and 0.82 ms on two.
    """
    term, label = equation.split("->")[0], equation.split("->")[1][0]

    def reduce(part: slice) -> None:
        np.einsum(equation, x[tuple(part if axis == label else slice(None) for axis in term)], out=out[part])

    elements = math.prod(dict(zip(term, x.shape, strict=True)).values())
    threads.in_turn(reduce, len(out), threads.parts(elements, _SHARE_OF_DIAGONAL))


def _in_parts(work: Callable[..., object], axis: int, *arrays: Array) -> None:
    """`work` on parts of these arrays along an axis, at the same time if they are large."""

    def work_on(part: slice) -> None:
        index = (*[slice(None)] * axis, part)
        work(*[array[index] for array in arrays])

    threads.in_turn(work_on, arrays[0].shape[axis], threads.parts(arrays[0].nbytes, _SHARE))


def _fastest_first(x: Array, axes: Sequence[int]) -> list[int]:
    return sorted(axes, key=lambda axis: abs(x.strides[axis]))
