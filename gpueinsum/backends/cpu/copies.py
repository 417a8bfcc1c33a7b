"""Copies of strided arrays on the CPU, tiled where the fastest axis of one is a slow one of the other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from gpueinsum.backends.cpu import pool, threads
from gpueinsum.costs.seconds import lines_conflict

Array = np.ndarray[Any, Any]

# What follows was measured on 2 cores with 1 MiB of L2 each and 32 MiB of L3 together, numpy 2.4, float32, medians.
_LINE = 64
# A copy that reads lines of memory in pieces is tiled if more bytes than this are read before a line is needed again:
# 72^4 as `bdac`, 332 KB, took 46 ms at once and 66 ms tiled; 24 x 20 x 24 x 20 x 24 as `ebcad` 18 ms against 7, 60^4
# as `dcba` 126 ms against 23, 16^6 as `fedcba` 368 ms against 32.
_NEAR = 384 << 10
_PLANE = 4096  # elements of a tile, so that its call does not show: of 16^6 1024 took 32 ms, 4096 32, 16384 92
# Where rows fall into the same few sets of a cache, tiles of 128 x 128 are copied side by side first: 2048 x 2048
# transposed took 50 ms at once, 32 ms in tiles, 16 ms in tiles that were copied.
_TILE = 128
# Bytes of a copy that are worth a thread: two threads halve 7.6 ms to 4.4 for 2000 x 2000 transposed (float64).
_SHARE = 1 << 20


def copy(x: Array) -> Array:
    """A copy in C order."""
    out = pool.empty(x.shape, x.dtype)
    copy_to(out, x)
    return out


def copy_to(out: Array, x: Array) -> None:
    """`out[...] = x`, tiled where the fastest axis of one is a slow one of the other."""
    if out.nbytes < _NEAR:
        np.copyto(out, x)
        return
    axes = [axis for axis in range(out.ndim) if out.shape[axis] > 1]
    by_out = _fastest_first(out, axes)
    by_x = _fastest_first(x, [axis for axis in by_out if x.strides[axis]])  # of equally fast ones, as in windows, out's
    if not by_x or by_x[0] == by_out[0]:
        np.copyto(out, x)
        return
    before = by_out[: by_out.index(by_x[0])]
    is_near = math.prod(out.shape[axis] for axis in before) * _LINE <= _NEAR
    write, read = by_out[0], by_x[0]
    is_wide = min(out.shape[write], out.shape[read]) >= _TILE // 8
    in_conflict = is_wide and lines_conflict(abs(x.strides[write]), out.shape[write])

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


def _in_parts(work: Callable[..., object], axis: int, *arrays: Array) -> None:
    """`work` on parts of these arrays along an axis, at the same time if they are large."""

    def work_on(part: slice) -> None:
        index = (*[slice(None)] * axis, part)
        work(*[array[index] for array in arrays])

    threads.in_turn(work_on, arrays[0].shape[axis], threads.parts(arrays[0].nbytes, _SHARE))


def _fastest_first(x: Array, axes: Sequence[int]) -> list[int]:
    return sorted(axes, key=lambda axis: abs(x.strides[axis]))
