"""From strides to one cuBLAS call: which labels are rows, columns, sums and batch, and what must be copied first."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gemm:
    """One strided-batched product as cuBLAS takes it, column-major, in elements.

    C[b] = op(A[b]) op(B[b]) (+ C[b] if `accumulate`), for b < batch, where op(A) is m x k, op(B) is k x n, C is m x n.
    Without `transpose_a` element (row, col) of A[b] lies at `b * stride_a + col * lda + row`; with it, A is stored k x m.
    """

    transpose_a: bool
    transpose_b: bool
    m: int
    n: int
    k: int
    lda: int
    ldb: int
    ldc: int
    batch: int = 1
    stride_a: int = 0
    stride_b: int = 0
    stride_c: int = 0
    accumulate: bool = False
