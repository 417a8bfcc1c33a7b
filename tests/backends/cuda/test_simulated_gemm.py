"""The simulated device's GEMM, strided and by pointers, against numpy, and each of its checks broken once."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from simulated import SimulatedRuntime

from gpueinsum.schedule.gemm import GemmArguments

PLAIN = GemmArguments(transpose_a=False, transpose_b=False, m=3, n=5, k=7, lda=3, ldb=7, ldc=3)


@pytest.fixture
def device():
    return SimulatedRuntime()


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"])
def test_gemm_follows_the_column_major_definition_on_raw_memory(device, rng, dtype, transpose_a, transpose_b):
    m, n, k, batch = 3, 5, 7, 2
    rows_a, rows_b = (k if transpose_a else m), (n if transpose_b else k)
    lda, ldb, ldc = rows_a + 4, rows_b + 1, m + 2
    call = GemmArguments(transpose_a, transpose_b, m, n, k, lda, ldb, ldc, batch, 53, 0, 31, accumulate=True)
    flat = [rng.integers(-3, 4, 113).astype(np.float64) for _ in "abc"]

    expected = flat[2].copy()
    for i, row, col in np.ndindex(batch, m, n):
        for d in range(k):
            a = flat[0][i * 53 + (row * lda + d if transpose_a else d * lda + row)]
            b = flat[1][d * ldb + col if transpose_b else col * ldb + d]
            expected[i * 31 + col * ldc + row] += a * b

    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    a, b, c = (device.to_device(x.astype(kind)) for x in flat)
    device.gemm(call, dtype, device.pointer(a), device.pointer(b), device.pointer(c), None)
    np.testing.assert_array_equal(c, expected.astype(kind))
    assert device.calls == [("gemm", call)]


@pytest.mark.parametrize("conjugate_a", [False, True])
@pytest.mark.parametrize("conjugate_b", [False, True])
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_gemm_conjugates_what_it_transposes(device, rng, dtype, conjugate_a, conjugate_b):
    m, n, k = 3, 5, 7
    a, b = ((rng.integers(-3, 4, 35) + 1j * rng.integers(-3, 4, 35)).astype(dtype) for _ in "ab")
    left, right = a[:21].reshape(m, k), b.reshape(k, n)  # row-major, so that cuBLAS transposes both
    expected = (left.conj() if conjugate_a else left) @ (right.conj() if conjugate_b else right)
    call = GemmArguments(True, True, m, n, k, k, n, m, conjugate_a=conjugate_a, conjugate_b=conjugate_b)
    on_device, c = [device.to_device(x) for x in (a, b)], device.empty((n, m), dtype)
    device.gemm(call, dtype, *map(device.pointer, on_device), device.pointer(c), None)
    np.testing.assert_array_equal(c.T, expected)


def test_gemm_rounds_halves_once(device):
    ones = device.to_device(np.ones(4099, np.float16))
    c = device.empty((1,), np.float16)
    call = GemmArguments(False, False, 1, 1, 4099, 1, 4099, 1)
    device.gemm(call, "float16", device.pointer(ones), device.pointer(ones), device.pointer(c), None)
    assert c[0] == np.float16(4099)


def test_gemm_does_not_read_what_it_overwrites(device):
    zeros = device.to_device(np.zeros(35, np.float32))
    c = device.empty((15,), np.float32)
    device.gemm(PLAIN, "float32", device.pointer(zeros), device.pointer(zeros), device.pointer(c), None)
    assert not c.any()


def test_lower_precisions_drop_bits_and_true_float32_keeps_them(device):
    a, b = (device.to_device(np.array([x], np.float32)) for x in (1 + 2.0**-9 + 2.0**-20, 1.0))
    c = device.empty((1,), np.float32)
    for precision, expected in (None, a[0]), ("emulated", a[0]), ("tf32", 1 + 2.0**-9), ("bf16", 1.0):
        call = GemmArguments(False, False, 1, 1, 1, 1, 1, 1)
        device.gemm(call, "float32", *map(device.pointer, (a, b, c)), precision)
        assert c[0] == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lda": 2}, "lda = 2 is less than the 3 rows of A"),
        ({"transpose_b": True, "ldb": 4}, "ldb = 4 is less than the 5 rows of B"),
        ({"ldc": 2}, "ldc = 2 is less than the 3 rows of C"),
        ({"conjugate_a": True}, "cuBLAS has no op that conjugates A without transposing it"),
        ({"conjugate_b": True}, "cuBLAS has no op that conjugates B without transposing it"),
        ({"m": -1}, "m = -1 is no size"),
        ({"n": 2**31}, "n = 2147483648 is no size"),
        ({"lda": 4}, r"A touches elements 0\.\.26, but its memory holds 0\.\.20"),
        ({"batch": 2, "stride_c": 16}, r"C touches elements 0\.\.30, but its memory holds 0\.\.29"),
        ({"batch": 2, "stride_c": 15, "stride_a": -1}, r"A touches elements -1\.\.20"),
    ],
)
def test_gemm_refuses_what_cublas_would(device, change, message):
    a, b, c = (device.empty((size,), np.float32) for size in (21, 35, 30))
    with pytest.raises(AssertionError, match=message):
        device.gemm(replace(PLAIN, **change), "float32", *map(device.pointer, (a, b, c)), None)


def test_gemm_refuses_overlapping_results(device):
    a, b, c = (device.empty((70,), np.float32) for _ in range(3))
    interleaved = replace(PLAIN, batch=2, ldc=6, stride_c=3)
    device.gemm(interleaved, "float32", *map(device.pointer, (a, b, c)), None)
    with pytest.raises(AssertionError, match="the batches of C overlap"):
        device.gemm(replace(interleaved, stride_c=2), "float32", *map(device.pointer, (a, b, c)), None)


def test_gemm_refuses_misaligned_arrays_and_foreign_dtypes(device):
    arrays = [device.empty((80,), np.float32) for _ in "abc"]
    a, b, c = map(device.pointer, arrays)
    with pytest.raises(AssertionError, match="is not aligned to 8 bytes"):
        device.gemm(PLAIN, "complex64", a + 4, b, c, None)
    with pytest.raises(AssertionError, match="cuBLAS has no GEMM for int32"):
        device.gemm(PLAIN, "int32", a, b, c, None)


# ---- GEMM by pointers


def pointed(device, call, dtype, a, b, c, places, precision=None):
    """A call on matrices that begin at these elements of each array."""
    arrays = [
        device.to_device(np.array([device.pointer(array) + int(at) * array.itemsize for at in own], np.uint64))
        for array, own in zip((a, b, c), places, strict=True)
    ]
    device.pointer_gemm(call, dtype, *map(device.pointer, arrays), precision)


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"])
def test_gemm_by_pointers_follows_the_definition_on_raw_memory(device, rng, dtype, transpose_a, transpose_b):
    m, n, k = 3, 5, 7  # an odd sum, for which every dtype takes any pointer
    rows_a, rows_b = (k if transpose_a else m), (n if transpose_b else k)
    lda, ldb, ldc = rows_a + 4, rows_b + 1, m + 2
    call = GemmArguments(transpose_a, transpose_b, m, n, k, lda, ldb, ldc, 3, accumulate=True)
    flat = [rng.integers(-3, 4, 160).astype(np.float64) for _ in "abc"]
    places = [5, 0, 41], [2, 2, 13], [90, 31, 0]

    expected = flat[2].copy()
    for i, row, col in np.ndindex(3, m, n):
        for d in range(k):
            a = flat[0][places[0][i] + (row * lda + d if transpose_a else d * lda + row)]
            b = flat[1][places[1][i] + (d * ldb + col if transpose_b else col * ldb + d)]
            expected[places[2][i] + col * ldc + row] += a * b

    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    a, b, c = (device.to_device(x.astype(kind)) for x in flat)
    pointed(device, call, dtype, a, b, c, places)
    np.testing.assert_array_equal(c, expected.astype(kind))
    assert device.calls == [("pointer gemm", call)]


def test_gemm_by_pointers_refuses_what_cublas_would(device):
    a, b, c = (device.empty((size,), np.float32) for size in (42, 70, 30))
    call = replace(PLAIN, batch=2)
    good = [0, 21], [0, 35], [0, 15]
    pointed(device, call, "float32", a, b, c, good)
    for change, places, message in (
        ({"lda": 2}, good, "lda = 2 is less than the 3 rows of A"),
        ({"m": -1}, good, "m = -1 is no size"),
        ({"stride_a": 21}, good, "pointers have no strides"),
        ({}, ([0, 22], *good[1:]), r"A touches elements 0\.\.20, but its memory holds -22\.\.19"),
        ({}, (*good[:2], [0, 14]), "the batches of C overlap"),
        ({}, (*good[:2], [0, 1 << 20]), "no living array"),
        ({"batch": 3}, good, "3 pointers to A leave their memory"),
    ):
        with pytest.raises(AssertionError, match=message):
            pointed(device, replace(call, **change), "float32", a, b, c, places)


@pytest.mark.parametrize(
    ("dtype", "precision", "k", "needed"),
    [
        *[("float16", None, k, needed) for k, needed in ((7, 2), (6, 4), (8, 16))],
        *[("float32", "tf32", k, needed) for k, needed in ((6, 4), (8, 16))],
        *[("float32", None, 8, 4), ("float64", None, 8, 8)],
    ],
)
def test_fast_modes_want_pointers_to_be_aligned(device, dtype, precision, k, needed):
    call = GemmArguments(False, False, 3, 5, k, 3, k, 3)
    a, b, c = (device.to_device(np.zeros(64, dtype)) for _ in "abc")
    step = max(1, needed // a.itemsize)
    pointed(device, call, dtype, a, b, c, ([step], [step], [step]), precision)
    if step > 1:
        for misaligned in range(3):
            places = [[step // 2 if side == misaligned else 0] for side in range(3)]
            with pytest.raises(AssertionError, match=f"a fast mode wants a pointer to {'ABC'[misaligned]} aligned to"):
                pointed(device, call, dtype, a, b, c, places, precision)
