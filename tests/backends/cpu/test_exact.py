"""Integers, bools and halves by floats: the same bits as numpy's own, at every edge of what floats hold."""

import itertools

import numpy as np
import pytest

import gpueinsum as ge
from gpueinsum.backends.cpu import exact as numbers
from gpueinsum.backends.cpu import threads

HALF, SINGLE = np.dtype(np.float16), np.dtype(np.float32)
HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16)  # all there are


@pytest.fixture(autouse=True, params=[1, 3])
def parts(request, monkeypatch):
    """Casts in blocks so small that those of one kind only are among them, on one thread and on three."""
    for name, value in {"_FEWEST": 64, "_BLOCK": 100, "_SHARE": 1}.items():
        monkeypatch.setattr(numbers, name, value)
    monkeypatch.setattr(threads, "_threads", request.param)
    monkeypatch.setattr(threads, "_queue", None)


def bits(x):
    return x.view(f"u{x.itemsize}")


def test_every_half_becomes_the_single_that_numpy_makes_of_it():
    np.testing.assert_array_equal(bits(numbers.cast(HALVES, SINGLE)), bits(HALVES.astype(SINGLE)))
    finite = HALVES[np.isfinite(HALVES)]  # a block that is not handed to numpy
    np.testing.assert_array_equal(bits(numbers.cast(finite, SINGLE)), bits(finite.astype(SINGLE)))


@pytest.mark.parametrize("away", [-0x1001, -0x1000, -0xFFF, -1, 0, 1, 0xFFF, 0x1000, 0x1001])
def test_every_single_near_a_half_or_between_two_is_rounded_as_numpy_rounds_it(away):
    finite = HALVES[np.isfinite(HALVES)].astype(SINGLE)
    for near in (finite, (bits(finite) + np.uint32(away & 0xFFFFFFFF)).view(SINGLE)):
        near = near[np.abs(near) < 65536]
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(bits(numbers.cast(near, HALF)), bits(near.astype(HALF)))


def test_singles_of_every_kind_become_what_numpy_makes_of_them(rng):
    patterns = rng.integers(0, 1 << 32, 1 << 18, dtype=np.uint32).view(SINGLE)
    small = rng.standard_normal(1 << 16).astype(SINGLE) * SINGLE.type(1e-6)
    special = np.tile(np.array([0, -0.0, np.inf, -np.inf, np.nan, 65519, 65520, -65520, 1e-8], SINGLE), 1 << 12)
    ordinary = rng.standard_normal(1 << 16).astype(SINGLE)
    with np.errstate(over="ignore", invalid="ignore"):
        for values in (patterns, small, special, ordinary, np.zeros(1 << 13, SINGLE)):
            np.testing.assert_array_equal(bits(numbers.cast(values, HALF)), bits(values.astype(HALF)))


def test_a_cast_keeps_the_layout_where_it_has_one(rng):
    x = rng.random((67, 97)).astype(HALF)
    for array in (x, x.T, x[::2], x[:, ::-1], np.broadcast_to(x[0], x.shape), x[:0], x[0, 0, ...]):
        result = numbers.cast(array, SINGLE)
        assert result.dtype == SINGLE
        np.testing.assert_array_equal(result, array.astype(SINGLE))
    assert numbers.cast(x.T, SINGLE).flags.f_contiguous
    single = x.astype(SINGLE)
    assert numbers.cast(single, SINGLE) is single


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


def test_sums_past_what_doubles_hold_go_to_the_loop(rng):
    chosen = []

    def product(dtype):
        return lambda x, y: chosen.append(dtype) or x @ y

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
        multiply = numbers.by_floats(product, loop, np.dtype(dtype), 8)
        x, y = np.full((3, 8), x, dtype), np.full((8, 5), y, dtype)
        np.testing.assert_array_equal(multiply(x, y), x @ y)
        assert chosen.pop() == tool
