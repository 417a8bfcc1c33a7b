"""The kernels that sum, on a device, against numpy: every element type, odd strides, any sharing of the work."""

from itertools import product

import numpy as np
import pytest
from kernel_launches import (
    BFLOAT16,
    DTYPES,
    SHARINGS,
    as_dtype,
    assert_same_floats,
    expand_on_device,
    numpy_einsum,
    operands,
    sum_on_device,
    values,
)

from gpueinsum.backends.cuda.source import KERNELS, Kernel

REDUCTIONS = [
    "ij->ji",
    "ii->i",
    "iij->j",
    "iii->",
    "ijk->j",
    "ijk->k",
    "jikj->ik",
    "iijj->ij",
    "ijkl->li",
    "i->i",
    "->",
]
PRODUCTS = [
    "i,j->ij",
    "ij,ij->ij",
    "kij,kij->k",
    "ij,j->i",
    "iij,jk->ki",
    "i,i->",
    "ij,kl->jl",
    ",i->i",
    ",->",
    "ii,jj->ij",
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("subscripts", REDUCTIONS + PRODUCTS)
def test_sums_agree_with_numpy_however_the_work_is_shared(runtime, rng, subscripts, dtype):
    arrays = operands(rng, subscripts, dtype)
    expected = numpy_einsum(subscripts, *arrays, dtype=dtype)
    on_device = [runtime.to_device(array) for array in arrays]
    for sharing in SHARINGS:
        result = sum_on_device(runtime, subscripts, *on_device, sharing=sharing)
        np.testing.assert_array_equal(result, expected, err_msg=f"lanes, chunks, blocks, threads = {sharing}")


COLUMNS = [(1, 1, 2, 37), (1, 3, 1, 64), (4, 1, 2, 30, 5), (5, 2, 3, 64, 2), (7, 1, 2, 96, 3), (32, 1, 1, 64, 1)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "subscripts", ["ijk->j", "ijk->ik", "jikj->ik", "ijkl->li", "i->", "kij,kij->j", "kij,k,j->ij"]
)
def test_columns_are_summed_by_threads_that_stand_apart(runtime, rng, subscripts, dtype):
    arrays = operands(rng, subscripts, dtype)
    expected = numpy_einsum(subscripts, *arrays, dtype=dtype)
    on_device = [runtime.to_device(array) for array in arrays]
    for sharing in COLUMNS:
        result = sum_on_device(runtime, subscripts, *on_device, sharing=sharing, kernel="reduce_columns")
        np.testing.assert_array_equal(result, expected, err_msg=f"lanes, chunks, blocks, threads, beside = {sharing}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [127, 128, 256])
@pytest.mark.parametrize("terms", [2, 3, 23, 127])
def test_short_rows_are_summed_in_shared_memory(runtime, rng, dtype, terms, threads):
    x, y = values(rng, (2, 11, 61, terms), dtype)
    on_device = runtime.to_device(x), runtime.to_device(y)
    for subscripts, arrays, given in (
        ("ijk->ij", (x,), on_device[:1]),
        ("ijk,jk->ji", (x, y[0]), (on_device[0], on_device[1][0])),
    ):
        expected = numpy_einsum(subscripts, *arrays, dtype=dtype)
        for blocks in (1, 3):
            sharing = 1, 1, blocks, threads
            result = sum_on_device(runtime, subscripts, *given, sharing=sharing, kernel="reduce_rows")
            np.testing.assert_array_equal(result, expected, err_msg=f"{subscripts}, {blocks} blocks")


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 3, 5, 7), (2, 3, 2, 2), (1, 40, 3), (2, 3, 100)], ids=str)
@pytest.mark.parametrize("kernel", ["reduce", "reduce_columns"])
def test_sums_carry_from_loop_to_loop(runtime, rng, dtype, shape, kernel):
    """Whichever of lanes and rows is the longer; the loops lie apart, so that none are fused."""
    x = values(rng, tuple(2 * size for size in (5, *shape)), dtype)[tuple([slice(None, None, 2)] * (len(shape) + 1))]
    term = "zabcd"[: x.ndim]
    array = runtime.to_device(x)
    expected = numpy_einsum(f"{term}->z", x, dtype=dtype)
    for lanes, chunks in product((1, 2, 4, 16, 64), (1, 3)):
        result = sum_on_device(runtime, f"{term}->z", array, sharing=(lanes, chunks, 2, 64), kernel=kernel)
        np.testing.assert_array_equal(result, expected, err_msg=f"{lanes} lanes, {chunks} chunks")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("subscripts", ["ij->ji", "iij->j", "i->", "->", "i,j->ij", "kij,kij->k", "ij,j->i", "i,i->"])
def test_sums_conjugate_either_side_and_real_ones_ignore_it(runtime, rng, subscripts, dtype):
    arrays = operands(rng, subscripts, dtype)
    on_device = [runtime.to_device(array) for array in arrays]
    for bits in range(1 << len(arrays)):
        factors = [
            array.conj() if bits >> side & 1 and array.dtype.kind == "c" else array for side, array in enumerate(arrays)
        ]
        expected = numpy_einsum(subscripts, *factors, dtype=dtype)
        for sharing in SHARINGS[:1] + SHARINGS[4:5]:
            result = sum_on_device(runtime, subscripts, *on_device, sharing=sharing, conjugated=bits)
            np.testing.assert_array_equal(result, expected, err_msg=f"conjugated = {bits}, {sharing}")


@pytest.mark.parametrize(
    ("source", "result"),
    [(k.source, k.result) for k in KERNELS if k.name == "reduce" and k.operands == 1 and k.source != k.result],
)
@pytest.mark.parametrize("subscripts", ["ijk->j", "i,j->ij", "kij,kij->k"])
def test_sums_convert_between_halves_and_float32(runtime, rng, subscripts, source, result):
    arrays = operands(rng, subscripts, source)
    if Kernel("reduce", source, result, len(arrays)) not in KERNELS:
        return  # of products, sums are only made wider
    on_device = [runtime.to_device(array) for array in arrays]
    expected = numpy_einsum(subscripts, *arrays, dtype=result)
    for sharing in SHARINGS[:2] + SHARINGS[3:4]:
        np.testing.assert_array_equal(
            sum_on_device(runtime, subscripts, *on_device, result=result, sharing=sharing), expected
        )


@pytest.mark.parametrize("lanes", [1, 8])
def test_strides_may_be_negative_zero_or_overlapping(runtime, rng, lanes):
    host = values(rng, (11, 13), "int64")
    device = runtime.to_device(host)
    views = {
        "backwards": (device[::-1, ::-2], host[::-1, ::-2]),
        "columns first": (device.T[3:], host.T[3:]),
        "broadcast": (runtime.strided(device, (11, 5), (0, 16)), np.broadcast_to(host[0, 0:10:2], (11, 5))),
        "sliding": (
            runtime.strided(device[0], (5, 7), (8, 8)),
            np.lib.stride_tricks.sliding_window_view(host[0, :11], 7),
        ),
    }
    for name, (on_device, array) in views.items():
        for subscripts in ("ij->ji", "ij->j", "ij->i", "ij->"):
            result = sum_on_device(runtime, subscripts, on_device, sharing=(lanes, 1, 2, 32))
            np.testing.assert_array_equal(result, np.einsum(subscripts, array), err_msg=f"{subscripts}, {name}")
        result = sum_on_device(runtime, "ij,ij->i", on_device, on_device, sharing=(lanes, 3, 2, 32))
        np.testing.assert_array_equal(result, np.einsum("ij,ij->i", array, array), err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sharing", SHARINGS)
def test_a_sum_over_nothing_is_zero(runtime, dtype, sharing):
    nothing = runtime.to_device(np.empty((3, 0), as_dtype(dtype)))
    np.testing.assert_array_equal(
        sum_on_device(runtime, "ij->i", nothing, sharing=sharing), np.zeros(3, as_dtype(dtype))
    )
    assert sum_on_device(runtime, "ij->j", nothing, sharing=sharing).shape == (0,)


def test_any_grid_gives_the_same_bits(runtime, rng):
    device = runtime.to_device(rng.standard_normal((7, 1009), np.float32))
    columns = runtime.to_device(rng.standard_normal((1009, 7), np.float32))
    for lanes, chunks in product((1, 16, 64), (1, 3)):
        grids = (1, 64), (5, 128), (3, 192)
        for kernel, subscripts, array in (("reduce", "ij->i", device), ("reduce_columns", "ij->j", columns)):
            results = [
                sum_on_device(runtime, subscripts, array, sharing=(lanes, chunks, *grid), kernel=kernel).tobytes()
                for grid in grids
            ]
            assert len(set(results)) == 1


def test_any_grid_gives_the_same_bits_of_short_rows(runtime, rng):
    device = runtime.to_device(rng.standard_normal((1009, 23), np.float32))
    grids = (1, 64), (5, 128), (3, 192)
    results = {
        sum_on_device(runtime, "ij->i", device, sharing=(1, 1, *grid), kernel="reduce_rows").tobytes() for grid in grids
    }
    assert len(results) == 1


def test_halves_are_multiplied_and_added_in_float32(runtime):
    ones = np.ones(4099, np.float16)  # counting by ones, float16 stops at 2048
    tiny = np.full(4099, 2.0**-14, np.float16)  # whose squares vanish in float16
    on_device = runtime.to_device(ones), runtime.to_device(tiny)
    assert sum_on_device(runtime, "i->", on_device[0]) == np.float16(4099)
    assert sum_on_device(runtime, "i,i->", on_device[1], on_device[1]) == np.float16(4099 * 2.0**-28)


@pytest.mark.parametrize("half", [np.dtype(np.float16), BFLOAT16], ids=lambda dtype: dtype.name)
def test_every_half_becomes_its_float32_and_back(runtime, half):
    patterns = np.arange(2**16, dtype=np.uint16).view(half)
    wide = sum_on_device(runtime, "i->i", runtime.to_device(patterns), result="float32")
    assert_same_floats(wide, patterns.astype(np.float32))
    assert_same_floats(sum_on_device(runtime, "i->i", runtime.to_device(wide), result=half.name), patterns)


@pytest.mark.parametrize("half", [np.dtype(np.float16), BFLOAT16], ids=lambda dtype: dtype.name)
def test_float32_rounds_to_the_nearest_half_ties_to_even(runtime, rng, half):
    halves = np.arange(2**16, dtype=np.uint16).view(half).astype(np.float32)
    finite = np.sort(halves[np.isfinite(halves)]).astype(np.float64)
    middles = ((finite[:-1] + finite[1:]) / 2).astype(np.float32)
    beside = [np.nextafter(middles, np.float32(side)) for side in (-np.inf, np.inf)]
    anything = rng.integers(0, 2**32, 100_003, np.uint32).view(np.float32)
    for floats in (middles, *beside, anything):
        with np.errstate(over="ignore", invalid="ignore"):
            expected = floats.astype(half)
        assert_same_floats(sum_on_device(runtime, "i->i", runtime.to_device(floats), result=half.name), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_copy_keeps_every_bit(runtime, dtype):
    bits = {"float32": np.uint32, "float64": np.uint64}[dtype]
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, np.finfo(dtype).smallest_subnormal], dtype)
    special[4:5].view(bits)[:] |= 77  # a payload
    device = runtime.to_device(special.reshape(2, 3))
    for result in (
        sum_on_device(runtime, "ij->ji", device).T,
        expand_on_device(runtime, "ij->jiji", device)[[0, 1, 2], :, [0, 1, 2], :][:, [0, 1], [0, 1]].T,
    ):
        np.testing.assert_array_equal(np.ascontiguousarray(result).view(bits).ravel(), special.view(bits))


def test_a_conjugate_differs_in_a_sign_and_nothing_else(runtime):
    parts = np.array([0.0, -0.0, np.inf, -np.inf, np.finfo(float).smallest_subnormal])
    numbers = np.empty((5, 5), complex)
    numbers.real, numbers.imag = parts[:, None], parts
    result = sum_on_device(runtime, "ij->ij", runtime.to_device(numbers), conjugated=1)
    np.testing.assert_array_equal(result.view(np.uint64), numbers.conj().view(np.uint64))
