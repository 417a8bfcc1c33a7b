"""Integers and bools by floats: the same bits as numpy's own, at every edge of what floats hold."""

import itertools

import numpy as np
import pytest

import gpueinsum as ge
from gpueinsum.backends.cpu import exact

HALF, SINGLE = np.dtype(np.float16), np.dtype(np.float32)


def test_einsum_of_halves_is_that_of_singles_rounded(rng):
    x, y = rng.standard_normal((67, 89)).astype(HALF), rng.standard_normal((89, 71)).astype(HALF)
    expected = (x.astype(SINGLE) @ y.astype(SINGLE)).astype(HALF)
    np.testing.assert_array_equal(ge.einsum("ij,jk->ik", x, y), expected)


INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("largest", [3, 1 << 20, 1 << 23, 1 << 24, 1 << 40, None])
def test_products_of_integers_wrap_as_numpys_do(dtype, largest, rng):
    info = np.iinfo(dtype)
    low, high = info.min, info.max
    if largest is not None and largest < high:
        low, high = max(low, -largest), largest
    for shapes in itertools.permutations((67, 71, 61)):
        i, j, k = shapes
        x, y = (rng.integers(low, high, shape, dtype, endpoint=True) for shape in ((i, j), (j, k)))
        x[0], y[:, 0] = high, low
        result = ge.einsum("ij,jk->ik", x, y)
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, x @ y)


def test_the_lowest_integers_are_no_exception():
    x, y = np.full((67, 97), -128, np.int8), np.full((97, 71), -128, np.int8)
    np.testing.assert_array_equal(ge.einsum("ij,jk->ik", x, y), x @ y)
    x, y = (np.full(shape, np.iinfo(np.int64).min) for shape in ((67, 97), (97, 71)))
    np.testing.assert_array_equal(ge.einsum("ij,jk->ik", x, y), x @ y)


@pytest.mark.parametrize("dtype", [*INTEGERS, "bool"])
def test_batches_and_groups_of_labels_and_odd_layouts_are_exact_too(dtype, rng):
    x, y = (rng.integers(0, 100, shape).astype(dtype) for shape in ((3, 11, 7, 37), (7, 37, 3, 59)))
    for left, right in ((x, y), (x[:, ::-1], y[..., ::-1]), (np.asfortranarray(x), np.broadcast_to(y[:1], y.shape))):
        np.testing.assert_array_equal(
            ge.einsum("bijk,jkbl->bil", left, right), np.einsum("bijk,jkbl->bil", left, right)
        )


def test_bools_are_or_of_ands(rng):
    x, y = rng.random((131, 127)) < 0.02, rng.random((127, 113)) < 0.02
    result = ge.einsum("ij,jk->ik", x, y)
    assert result.dtype == bool
    assert 0 < result.sum() < result.size
    np.testing.assert_array_equal(result, x @ y)


def test_sums_past_what_doubles_hold_go_to_the_loop():
    chosen = []

    def product(x, y, floats):
        chosen.append(floats.name)
        return x.astype(floats) @ y.astype(floats)

    def loop(x, y):
        chosen.append("loop")
        return x @ y

    for dtype, x, y, tool in [
        ("int8", -128, -128, "float32"),
        ("int16", -(1 << 15), 1, "float64"),
        ("int64", 1 << 25, 1 << 25, "float64"),
        ("int64", 1 << 25, (1 << 25) + 1, "loop"),
        ("int64", -(1 << 63), 0, "float64"),
    ]:
        multiply = exact.by_floats(product, loop, np.dtype(dtype), 8)
        x, y = np.full((3, 8), x, dtype), np.full((8, 5), y, dtype)
        np.testing.assert_array_equal(multiply(x, y), x @ y)
        assert chosen.pop() == tool
