"""cuBLAS' batched GEMMs, strided and by pointers, from their documented definition: column-major, on addresses."""

import ctypes
import struct

import ml_dtypes
import numpy as np

DTYPES = {
    **{name: np.dtype(name) for name in ("float16", "float32", "float64", "complex64", "complex128")},
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}

KEPT_BITS = {"tf32": 0xFFFFE000, "bf16": 0xFFFF0000}  # of a float32


def gemm(call, dtype, a, b, c, precision):
    """C[i] = op(A[i]) op(B[i]) (+ C[i]); `a`, `b` and `c` are (address, first byte, byte after the last of its memory).

    op conjugates only what it transposes. float16 and bfloat16 are multiplied and added in float32 and rounded once.
    "tf32" drops 13 bits of the factors, "bf16" 16; what is "emulated" is of full precision.
    """
    _check_arguments(call, dtype)
    (rows_a, cols_a), (rows_b, cols_b) = _stored(call)
    matrices_a = _matrices("A", a, DTYPES[dtype], call.batch, rows_a, cols_a, call.lda, call.stride_a)
    matrices_b = _matrices("B", b, DTYPES[dtype], call.batch, rows_b, cols_b, call.ldb, call.stride_b)
    matrices_c = _matrices("C", c, DTYPES[dtype], call.batch, call.m, call.n, call.ldc, call.stride_c)
    _check_disjoint(call, np.arange(call.batch) * call.stride_c)
    _multiply(call, dtype, matrices_a, matrices_b, matrices_c, precision)


def pointer_gemm(call, dtype, a, b, c, precision):
    """The same of lists of matrices, each given as `a`, `b` and `c` are above."""
    _check_arguments(call, dtype)
    assert call.stride_a == call.stride_b == call.stride_c == 0, "pointers have no strides"
    assert len(a) == len(b) == len(c) == call.batch
    item, (rows_a, cols_a), (rows_b, cols_b) = DTYPES[dtype].itemsize, *_stored(call)
    if item == 2 or precision in KEPT_BITS:  # a fast mode: misaligned accesses, by the documentation's rule
        packs = [(1, 1), (2, 4), (8, 16)] if item == 2 else [(1, 1), (4, 16)]
        needed = max(nbytes for count, nbytes in packs if call.k % count == 0)
        for name, matrices in zip("ABC", (a, b, c), strict=True):
            for address, _, _ in matrices:
                assert address % needed == 0, f"a fast mode wants a pointer to {name} aligned to {needed} bytes"
    _check_disjoint(call, np.array([address // item for address, _, _ in c], np.int64))
    for left, right, out in zip(a, b, c, strict=True):
        matrix_a = _matrices("A", left, DTYPES[dtype], 1, rows_a, cols_a, call.lda, 0)
        matrix_b = _matrices("B", right, DTYPES[dtype], 1, rows_b, cols_b, call.ldb, 0)
        matrix_c = _matrices("C", out, DTYPES[dtype], 1, call.m, call.n, call.ldc, 0)
        _multiply(call, dtype, matrix_a, matrix_b, matrix_c, precision)


def pointers(name, memory, batch):
    """What an array of pointers holds; `memory` is given as above."""
    address, first, end = memory
    assert address % 16 == 0, f"the pointers to {name} at {address:#x} are not aligned to 16 bytes"  # to be safe
    assert first <= address <= address + 8 * batch <= end, f"{batch} pointers to {name} leave their memory"
    return list(struct.unpack(f"{batch}Q", ctypes.string_at(address, 8 * batch)))


def _check_arguments(call, dtype):
    assert dtype in DTYPES, f"cuBLAS has no GEMM for {dtype}"
    for name in ("m", "n", "k", "batch", "lda", "ldb", "ldc"):
        value = getattr(call, name)
        assert 0 <= value < 2**31, f"{name} = {value} is no size that cuBLAS takes"
    for name, transpose, conjugate in (
        ("A", call.transpose_a, call.conjugate_a),
        ("B", call.transpose_b, call.conjugate_b),
    ):
        assert transpose or not conjugate, f"cuBLAS has no op that conjugates {name} without transposing it"


def _stored(call):
    """Rows and columns of A and of B as they are stored."""
    shape_a = (call.k, call.m) if call.transpose_a else (call.m, call.k)
    shape_b = (call.n, call.k) if call.transpose_b else (call.k, call.n)
    return shape_a, shape_b


def _multiply(call, dtype, matrices_a, matrices_b, matrices_c, precision):
    left, right = _factor(matrices_a, precision), _factor(matrices_b, precision)
    left = _operated(left, call.transpose_a, call.conjugate_a)
    right = _operated(right, call.transpose_b, call.conjugate_b)
    with np.errstate(all="ignore"):  # a GPU overflows in silence
        product = left @ right
        if call.accumulate:
            product = product + matrices_c
        matrices_c[...] = product.astype(DTYPES[dtype])


def _matrices(name, memory, dtype, batch, rows, cols, ld, stride):
    """The array [batch, row, col] whose elements lie at address + itemsize * (batch * stride + col * ld + row)."""
    address, first, end = memory
    assert ld >= max(1, rows), f"ld{name.lower()} = {ld} is less than the {rows} rows of {name}"
    assert address % dtype.itemsize == 0, f"{name} at {address:#x} is not aligned to {dtype.itemsize} bytes"
    if batch * rows * cols == 0:
        return np.empty((batch, rows, cols), dtype)
    ends = 0, (batch - 1) * stride
    lowest, highest = min(ends), max(ends) + (cols - 1) * ld + rows - 1
    low, high = address + lowest * dtype.itemsize, address + (highest + 1) * dtype.itemsize
    assert first <= low <= high <= end, (
        f"{name} touches elements {lowest}..{highest}, but its memory holds "
        f"{(first - address) // dtype.itemsize}..{(end - address) // dtype.itemsize - 1}"
    )
    raw = (ctypes.c_char * (high - low)).from_address(low)
    strides = [dtype.itemsize * step for step in (stride, 1, ld)]
    return np.ndarray((batch, rows, cols), dtype, raw, address - low, strides)


def _check_disjoint(call, matrices):
    """No two columns of all matrices of C, which begin at these elements, may share one."""
    starts = np.add.outer(matrices, np.arange(call.n) * call.ldc).ravel()
    gaps = np.diff(np.sort(starts))
    assert call.m == 0 or (gaps >= call.m).all(), f"the batches of C overlap: {call}"


def _operated(matrices, transpose, conjugate):
    matrices = matrices.swapaxes(1, 2) if transpose else matrices
    return matrices.conj() if conjugate else matrices


def _factor(matrices, precision):
    if matrices.dtype.itemsize == 2:
        return matrices.astype(np.float32)
    if precision in KEPT_BITS and matrices.dtype in (np.float32, np.complex64):
        return (np.ascontiguousarray(matrices).view(np.uint32) & KEPT_BITS[precision]).view(matrices.dtype)
    return matrices
