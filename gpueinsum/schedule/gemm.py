"""From matrix products of strided arrays to cuBLAS calls: column-major, by strides or by arrays of pointers.

No array is touched here, so all of it is tested without a GPU. Strides are in elements throughout.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from gpueinsum.language.plan import HALVES
from gpueinsum.language.strides import Axis, fuse

LHS, RHS, OUT = range(3)  # the arrays of a pair, as an axis' strides list them
ONE = Axis(1, (0, 0, 0))

# cuBLAS takes sizes and leading dimensions as 32-bit integers. A longer axis is cut into parts of a power of two, so
# that all parts begin where packs do if the first one does.
INT_MAX = 2**31 - 1
_PART = 1 << 30
# Batched kernels put the batch in a grid dimension of 65,535 at most, and some versions of cuBLAS failed past it; a
# round number below it keeps the parts aligned (pytorch/pytorch#46001).
MAX_BATCH = 63 * 1024
# Of the widest load, and so what an address must be a multiple of where cuBLAS reads packs. A stride tells it whether
# it may; an array of pointers does not, and an access that is not aligned is an error on the device (the documentation
# of cublasGemmBatchedEx).
PACK_BYTES, POINTER_BYTES = 16, 8
FULL_PRECISION = {None, "highest"}
# What a device may refuse, beside precisions and kernels, as `Profile.lacks` names it: products through arrays of
# pointers, the conjugate of a transpose as an operation, products that are no batches.
POINTERS, CONJUGATES, SINGLE = "pointers", "conjugate transposes", "single products"


@dataclass(frozen=True, slots=True)
class GemmArguments:
    """One strided-batched product as cuBLAS takes it, column-major, in elements.

    C[b] = op(A[b]) op(B[b]) (+ C[b] if `accumulate`), for b < batch, where op(A) is m x k, op(B) is k x n, C is m x n.
    Element (row, col) of A[b] lies at `b * stride_a + col * lda + row`; with `transpose_a` A is stored k x m. With
    `conjugate_a` op(A) is the conjugate of that transpose: cuBLAS has none without.
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
    conjugate_a: bool = False
    conjugate_b: bool = False


@dataclass(frozen=True, slots=True)
class Product:
    """A pair fitted to batched matrix products: one axis per role, of strides (lhs, rhs, out), and loops around them.

    `loops` write each their own part of the result, `sums` add to it. `conjugated` says of lhs and rhs whether the
    products are of their conjugates. Loops are turns of the host unless the products of batch and loops are one call,
    on arrays of `pointers` to their matrices.
    """

    rows: Axis
    columns: Axis
    summed: Axis
    batch: Axis
    loops: tuple[Axis, ...]
    sums: tuple[Axis, ...] = ()
    conjugated: tuple[bool, bool] = (False, False)
    pointers: bool = False

    @property
    def calls(self) -> int:
        """Turns of the host, each a cuBLAS call if it holds all sizes."""
        turns = self.sums if self.pointers else (*self.loops, *self.sums)
        return math.prod(axis.size for axis in turns)

    @property
    def number(self) -> int:
        """How many matrix products it is."""
        return math.prod(axis.size for axis in (self.batch, *self.loops, *self.sums))

    @property
    def each(self) -> int:
        """How many matrix products a turn makes."""
        return self.number // self.calls

    @property
    def slots(self) -> int:
        """How many pointers an array has for each turn: one more than it uses where that makes them whole packs."""
        return self.each + self.each % (PACK_BYTES // POINTER_BYTES)

    @property
    def numbered(self) -> tuple[Axis, ...]:
        """The axes along which its matrix products are numbered, the outermost first."""
        return tuple(fuse([*self.sums, *self.loops, self.batch]))

    def starts(self) -> Iterator[tuple[tuple[int, int, int], bool]]:
        """Where lhs, rhs and out begin for each turn of the loops, and whether it adds to what an earlier one wrote."""
        around, first_sum = (*self.loops, *self.sums), len(self.loops)
        for index in itertools.product(*(range(loop.size) for loop in around)):
            lhs, rhs, out = (
                sum(i * loop.strides[side] for i, loop in zip(index, around, strict=True)) for side in range(3)
            )
            yield (lhs, rhs, out), any(index[first_sum:])

    def offsets(self) -> Iterator[tuple[int, int, int]]:
        """`starts` of a product that sums in one go."""
        return (start for start, _ in self.starts())


@dataclass(frozen=True, slots=True)
class Call:
    """One cuBLAS call: A is the right side if `swapped`; where each array begins, in elements.

    By pointers, each is a part of an array of pointers to the matrices, and begins at so many pointers.
    """

    gemm: GemmArguments
    swapped: bool
    lhs: int
    rhs: int
    out: int

    @property
    def starts(self) -> tuple[int, int, int]:
        return self.lhs, self.rhs, self.out


def reads_packs(dtype: str, precision: str | None) -> bool:
    """Whether cuBLAS reads matrices of a dtype in one of its fast modes, 16 bytes at once."""
    return dtype in HALVES or precision not in FULL_PRECISION


def holds(*sizes: int) -> bool:
    """Whether cuBLAS' arguments hold such sizes and leading dimensions."""
    return max(sizes) <= INT_MAX


def blas_calls(product: Product) -> Iterator[Call]:
    """The product as batched calls, one unless it loops or a size is past what the arguments of one hold.

    cuBLAS is column-major: a result that is row-major is computed as its transpose, sides swapped.
    """
    return _pointer_calls(product) if product.pointers else _strided_calls(product)


def _strided_calls(product: Product) -> Iterator[Call]:
    for offsets, adds in product.starts():
        for (rows, r), (columns, c), (middle, k), (batch, b) in itertools.product(
            _split(product.rows, _PART),
            _split(product.columns, _PART),
            _split(product.summed, _PART),
            _split(product.batch, MAX_BATCH),
        ):
            starts = [sum(parts) for parts in zip(offsets, r, c, k, b, strict=True)]
            swapped, gemm = _gemm(rows, columns, middle, batch, product.conjugated, adds or any(k))
            yield Call(gemm, swapped, *starts)


def _pointer_calls(product: Product) -> Iterator[Call]:
    """A call for each turn of the sums, unless that is of more products than one call holds."""
    for turn, start in itertools.product(range(product.calls), range(0, product.each, MAX_BATCH)):
        batch = Axis(min(MAX_BATCH, product.each - start), (0, 0, 0))
        swapped, gemm = _gemm(product.rows, product.columns, product.summed, batch, product.conjugated, turn > 0)
        yield Call(gemm, swapped, *[turn * product.slots + start] * 3)


def _gemm(
    rows: Axis, columns: Axis, middle: Axis, batch: Axis, conjugated: tuple[bool, bool], accumulate: bool
) -> tuple[bool, GemmArguments]:
    """Whether A is the right side, and the arguments of one call."""
    how = find_ops(rows, columns, middle, conjugated)
    assert how is not None  # whoever made the product has asked `find_ops`
    a, b = (RHS, LHS) if how.swapped else (LHS, RHS)
    m, n = (columns, rows) if how.swapped else (rows, columns)
    gemm = GemmArguments(
        *(how.transpose_a, how.transpose_b, m.size, n.size, middle.size, *how.leading),
        *(batch.size, batch.strides[a], batch.strides[b], batch.strides[OUT]),
        accumulate=accumulate,
        conjugate_a=conjugated[a],
        conjugate_b=conjugated[b],
    )
    return how.swapped, gemm


class _Ops(NamedTuple):
    """How cuBLAS reads the arrays of one product: which are A and B, their ops, all leading dimensions."""

    swapped: bool
    transpose_a: bool
    transpose_b: bool
    leading: tuple[int, int, int]


_EITHER, _PLAIN, _TRANSPOSED = (False, True), (False,), (True,)


def find_ops(rows: Axis, columns: Axis, middle: Axis, conjugated: tuple[bool, bool]) -> _Ops | None:
    """None if it cannot. A side that is conjugated must be transposed, too: where it is not, swapped sides may do."""
    ops = [_TRANSPOSED if conjugate else _EITHER for conjugate in conjugated]
    for swapped, m, n, a, b in ((False, rows, columns, LHS, RHS), (True, columns, rows, RHS, LHS)):
        if (
            (out := _matrix(m, n, OUT, _PLAIN))
            and (first := _matrix(m, middle, a, ops[a]))
            and (second := _matrix(middle, n, b, ops[b]))
        ):
            (_, ldc), (transpose_a, lda), (transpose_b, ldb) = out, first, second
            return _Ops(swapped, transpose_a, transpose_b, (lda, ldb, ldc))
    return None


def _matrix(rows: Axis, columns: Axis, array: int, ops: tuple[bool, ...]) -> tuple[bool, int] | None:
    """The first op, transposed or not, by which cuBLAS reads an array as this matrix, and its leading dimension."""
    for transposed in ops:
        down, across = (columns, rows) if transposed else (rows, columns)
        if down.size == 1 or down.strides[array] == 1:
            stored = min(down.size, _PART)  # a larger one is split
            leading = across.strides[array] if across.size > 1 else stored
            if stored <= leading <= INT_MAX:
                return transposed, leading
    return None


def _split(axis: Axis, limit: int) -> list[tuple[Axis, tuple[int, ...]]]:
    """The axis in parts of at most `limit`, each with the offset where it begins in each array."""
    return [
        (Axis(min(limit, axis.size - start), axis.strides), tuple(start * stride for stride in axis.strides))
        for start in range(0, axis.size, limit)
    ]
