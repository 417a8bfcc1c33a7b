"""Tiles through shared memory: which ranges of which axes they are of, and how few sectors their launches touch."""

import numpy as np
import pytest
from kernel_launches import empty, launch
from simulated import SimulatedRuntime, sectors

from gpueinsum.backends.cuda.copies import product
from gpueinsum.backends.cuda.geometry import Source
from gpueinsum.backends.cuda.tiles import choose_tile
from gpueinsum.language.strides import axes, contiguous, fuse


def tile_of(equation, item=4, **size):
    term, out = equation.split("->")
    return choose_tile(fuse(axes(out, size, contiguous(term, size), contiguous(out, size))), item)


def sizes_of(order):
    return [loop.size for loop in order.loops]


@pytest.mark.parametrize(
    ("equation", "size", "read", "written"),
    [
        ("ij->ji", {"i": 1000, "j": 2000}, [64, 64], [64, 64]),
        ("ij->ji", {"i": 67, "j": 2000}, [64, 34], [34, 64]),  # 67 in two equal parts
        (
            "ij->ji",
            {"i": 10, "j": 2000},
            [250, 10],
            [10, 250],
        ),  # many of the long axis
        ("abcdef->fedcba", dict.fromkeys("abcdef", 6), [6, 6, 3, 6, 6], [6, 6, 3, 6, 6]),
        ("abcd->dbca", dict.fromkeys("abcd", 8), [8, 32, 8], [8, 32, 8]),
        ("abcdefghijkl->lkjihgfedcba", dict.fromkeys("abcdefghijkl", 2), [2] * 12, [2] * 12),
    ],
)
def test_a_tile_is_of_the_innermost_axes_in_both_orders(equation, size, read, written):
    tile = tile_of(equation, **size)
    assert (sizes_of(tile.read), sizes_of(tile.written)) == (read, written)


def test_tiles_of_larger_elements_are_smaller():
    assert [sizes_of(tile_of("ij->ji", item, i=1000, j=2000).read) for item in (1, 4, 8, 16)] == [
        *[[64, 64]] * 2,
        *[[32, 32]] * 2,
    ]


def test_places_in_shared_memory_are_apart_and_columns_lie_in_all_banks():
    for equation, size in ("ij->ji", {"i": 99, "j": 99}), ("abcdef->fedcba", dict.fromkeys("abcdef", 6)):
        tile, places = tile_of(equation, **size), [0]
        for loop in tile.read.loops:
            places = [place + step * loop.strides[1] for step in range(loop.size) for place in places]
        assert len(set(places)) == len(places)
        line = tile.read.loops[tile.read.columns].strides[1]
        assert line % 2 == 1


@pytest.mark.parametrize(
    ("equation", "size", "kernel"),
    [
        ("ij->ji", {"i": 256, "j": 320}, "transpose"),
        ("abcdefgh->hgfedcba", dict.fromkeys("abcdefgh", 4), "permute"),
        ("abcdefghijklmn->nmlkjihgfedcba", dict.fromkeys("abcdefghijklmn", 2), "permute"),
        ("abcdef->fbdcea", dict.fromkeys("abcdef", 6), "permute"),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_lies_across_wastes_no_sectors(equation, size, kernel, dtype):
    device, (term, out) = SimulatedRuntime(), equation.split("->")
    array, result = (empty(device, [size[label] for label in labels], np.dtype(dtype)) for labels in (term, out))
    strides = [contiguous(term, size)[label] for label in term]
    made = product((Source(term, tuple(strides)),), out, size, dtype, 2)
    with sectors.count(device) as counted:
        launch(device, made.kernel, made.blocks, made.threads, made.job, array, result)
    [found] = counted
    assert made.kernel.name == kernel
    assert found.loads.efficiency >= 0.8
    assert found.stores.efficiency >= 0.8
