"""Copies in tiles: what they are copies of, for every layout, on either side of every threshold."""

import itertools

import numpy as np
import pytest
from layouts import strided

from gpueinsum.backends.cpu import copies, threads


@pytest.fixture(params=[1, 3])
def tiled(request, monkeypatch):
    """Copies that tile and share what is small, too, on one thread and on three."""
    monkeypatch.setattr(threads, "_threads", request.param)
    threads._executor.cache_clear()
    for name, value in {"_NEAR": 64, "_PLANE": 8, "_TILE": 8, "_SHARE": 1}.items():
        monkeypatch.setattr(copies, name, value)
    monkeypatch.setattr(copies, "lines_conflict", lambda stride, number: stride % 64 == 0)


@pytest.mark.parametrize(
    "shape", [(), (7,), (17, 19), (16, 32), (5, 1, 7), (2, 3, 5, 7), (4, 4, 4, 4), (3, 2, 2, 3, 2), (0, 3)]
)
def test_a_copy_holds_what_it_is_a_copy_of_in_every_order_of_axes(shape, tiled, rng):
    for axes in itertools.permutations(range(len(shape))):
        for x in strided(rng.random(shape)) if shape else [rng.random(shape)]:
            source = x.transpose(axes)
            out = np.full(source.shape, np.nan)
            copies.copy_to(out, source)
            np.testing.assert_array_equal(out, source)


@pytest.mark.parametrize("dtype", ["bool", "int8", "float16", "complex128", "object"])
def test_a_copy_is_made_of_any_dtype(dtype, tiled, rng):
    x = rng.integers(0, 100, (5, 7, 11)).astype(dtype).transpose(2, 1, 0)
    out = np.zeros(x.shape, dtype)
    copies.copy_to(out, x)
    np.testing.assert_array_equal(out, x)


def test_a_copy_of_a_broadcast_array_fills_every_axis(tiled, rng):
    for shape, kept in [((5, 7, 11), (5, 1, 11)), ((5, 7, 11), (1, 7, 1)), ((5, 7), (1, 1))]:
        x = np.broadcast_to(rng.random(kept), shape).transpose()
        out = np.zeros(x.shape)
        copies.copy_to(out, x)
        np.testing.assert_array_equal(out, x)


def test_patches_that_overlap_are_copied_along_the_axis_that_out_has_innermost(monkeypatch, rng):
    monkeypatch.setattr(copies, "_copy_by_planes", None)  # nothing is tiled
    monkeypatch.setattr(copies, "_copy_by_buffer", None)
    patches = np.lib.stride_tricks.sliding_window_view(rng.random((262, 244)), (7, 5)).transpose(2, 3, 0, 1)
    np.testing.assert_array_equal(copies.copy(patches), patches)


def test_a_copy_goes_where_out_lies(tiled, rng):
    x = rng.random((5, 7, 11))
    for axes in itertools.permutations(range(3)):
        out = np.zeros([x.shape[axis] for axis in axes]).transpose(np.argsort(axes))
        copies.copy_to(out, x)
        np.testing.assert_array_equal(out, x)
    wide = np.zeros((5, 7, 22))
    copies.copy_to(wide[..., ::2], x)
    np.testing.assert_array_equal(wide[..., ::2], x)
    assert not wide[..., 1::2].any()


@pytest.mark.parametrize(
    ("shape", "axes"), [((600, 610), (1, 0)), ((512, 512), (1, 0)), ((29, 31, 23, 37), (3, 2, 1, 0))]
)
def test_large_copies_are_right_as_they_are_tiled(shape, axes, rng):
    x = rng.random(shape).transpose(axes)
    out = np.empty(x.shape)
    copies.copy_to(out, x)
    np.testing.assert_array_equal(out, x)


@pytest.mark.parametrize("axes", [3, 8, 11, 14])
@pytest.mark.parametrize("kept", [0, 2, 4, 5])  # fastest axes that stay where they are: runs of 1 to 32 elements
def test_a_copy_of_any_axes_is_in_c_order(axes, kept, rng):
    moved = max(axes - kept, 0)
    x = rng.standard_normal((2,) * axes).transpose([*rng.permutation(moved), *range(moved, axes)])
    copy = copies.copy(x)
    np.testing.assert_array_equal(copy, x)
    assert copy.flags.c_contiguous
    assert not np.shares_memory(copy, x)
