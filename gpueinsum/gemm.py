"""From strides to cuBLAS calls: which axes are rows, columns, sum and batch, and which operand must be copied first.

No array is touched here, so all of it is tested without a GPU. Strides are in elements throughout.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from gpueinsum.axes import Axis, axes, contiguous, fuse, label_strides, points
from gpueinsum.steps import Contract
from gpueinsum.subscripts import Label, Term

Sizes = Mapping[Label, int]

LHS, RHS, OUT = range(3)  # the arrays of a pair, as an axis' strides list them
ONE = Axis(1, (0, 0, 0))

# cuBLAS takes sizes and leading dimensions as 32-bit integers.
INT_MAX = 2**31 - 1
# Batched kernels put the batch in a grid dimension of 65,535 at most, and some versions of cuBLAS failed past it; a
# round number below it keeps the parts aligned (pytorch/pytorch#46001).
MAX_BATCH = 63 * 1024
# Batch axes that do not fuse into one are looped over on the host; with more calls than this a copy is made instead.
MAX_CALLS = 16


@dataclass(frozen=True, slots=True)
class Gemm:
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
    """A pair fitted to a batched matrix product: one axis per role, of strides (lhs, rhs, out), and loops around it.

    `conjugated` says of lhs and rhs whether the product is of their conjugates.
    """

    rows: Axis
    columns: Axis
    summed: Axis
    batch: Axis
    loops: tuple[Axis, ...]
    conjugated: tuple[bool, bool] = (False, False)

    @property
    def calls(self) -> int:
        return math.prod(loop.size for loop in self.loops)

    def offsets(self) -> Iterator[tuple[int, int, int]]:
        """Where lhs, rhs and out begin for each call that the loops make."""
        for index in itertools.product(*(range(loop.size) for loop in self.loops)):
            lhs, rhs, out = (
                sum(i * loop.strides[side] for i, loop in zip(index, self.loops, strict=True)) for side in range(3)
            )
            yield lhs, rhs, out


@dataclass(frozen=True, slots=True)
class Route:
    """How a pair becomes a product: what is copied first (to which term), the order the result is written in.

    A copy is that of the conjugate where the step conjugates the side: the product then takes it as it is.
    """

    copy_lhs: Term | None
    copy_rhs: Term | None
    out: Term
    product: Product


@dataclass(frozen=True, slots=True)
class Call:
    """One cuBLAS call: A is the right side if `swapped`; where each array begins."""

    gemm: Gemm
    swapped: bool
    lhs: int
    rhs: int
    out: int


@lru_cache(maxsize=4096)
def route(
    step: Contract,
    sizes: tuple[tuple[Label, int], ...],
    lhs: tuple[int, ...],
    rhs: tuple[int, ...],
    blas: bool,
) -> Route:
    """The first way to run this pair: as it lies, the result in another order, the smaller side copied, both copied.

    `lhs` and `rhs` are the strides of the sides. With `blas` the product must obey cuBLAS' layout; without, any stride
    will do (a kernel of ours).
    """
    size = dict(sizes)
    left, right, summed = step.left, step.right, step.summed
    batch = "".join(label for label in step.out if label in step.batch)
    copies = [(False, False), (True, False), (False, True), (True, True)]
    if points(step.rhs_term, size) < points(step.lhs_term, size):
        copies[1:3] = reversed(copies[1:3])
    for copy_lhs, copy_rhs in copies:
        middle = summed if copy_rhs else "".join(label for label in step.rhs_term if label in summed)
        lhs_copy = batch + left + middle if copy_lhs else None
        rhs_copy = batch + right + summed if copy_rhs else None
        lhs_strides = contiguous(lhs_copy, size) if lhs_copy is not None else label_strides(step.lhs_term, lhs)
        rhs_strides = contiguous(rhs_copy, size) if rhs_copy is not None else label_strides(step.rhs_term, rhs)
        conjugated = step.conj_lhs and not copy_lhs, step.conj_rhs and not copy_rhs
        orders = [step.out, batch + left + right, batch + right + left]
        # The sides' own orders, too, so that either side's unit stride can be the result's.
        own_left, own_right = _by_stride(left, lhs_strides), _by_stride(right, rhs_strides)
        orders += [batch + own_left + own_right, batch + own_right + own_left]
        for out in dict.fromkeys(orders):
            strides = (lhs_strides, rhs_strides, contiguous(out, size))
            product = fit(step, size, strides, blas, conjugated, last_resort=copy_lhs and copy_rhs)
            if product is not None:
                return Route(lhs_copy, rhs_copy, out, product)
    raise AssertionError(f"{step.equation} fits no product even when both sides are copied")


def fit(
    step: Contract,
    sizes: Sizes,
    strides: tuple[Sizes, Sizes, Sizes],
    blas: bool,
    conjugated: tuple[bool, bool] = (False, False),
    last_resort: bool = False,
) -> Product | None:
    """The pair as matrix products, MAX_CALLS at the most, given each label's stride in (lhs, rhs, out); None if not.

    Each role's axes are fused as far as the strides of all arrays allow. One axis of `left` and one of `right` become
    rows and columns; any others join the batch, with stride 0 in the side that lacks them. As a `last_resort`, for what
    is too large for 32-bit leading dimensions, rows or columns may join it too, and any number of calls will do.
    """
    batch, left, right = (_fused(labels, sizes, strides, OUT) for labels in (step.batch, step.left, step.right))
    summed = _fused(step.summed, sizes, strides, LHS)
    if len(summed) > 1 or (blas and any(min(axis.strides) < 0 for axis in (*batch, *left, *right, *summed))):
        return None
    middle = summed[0] if summed else ONE
    spare = [ONE] if last_resort else []
    best: Product | None = None
    for rows, columns in itertools.product([*left, *spare] or [ONE], [*right, *spare] or [ONE]):
        if blas and _reading(rows, columns, middle, conjugated) is None:
            continue
        around = [axis for axis in (*batch, *left, *right) if axis is not rows and axis is not columns]
        around.sort(key=lambda axis: axis.size)
        widest = around.pop() if around else ONE
        product = Product(rows, columns, middle, widest, tuple(around), conjugated)
        if (product.calls <= MAX_CALLS or last_resort) and (best is None or _rank(product) > _rank(best)):
            best = product
    return best


def blas_calls(product: Product) -> Iterator[Call]:
    """The product as cuBLAS calls, one unless it loops or a size is past what the arguments of one call hold.

    cuBLAS is column-major: a result that is row-major is computed as its transpose, sides swapped.
    """
    for offsets in product.offsets():
        for (rows, r), (columns, c), (middle, k), (batch, b) in itertools.product(
            _split(product.rows, INT_MAX),
            _split(product.columns, INT_MAX),
            _split(product.summed, INT_MAX),
            _split(product.batch, MAX_BATCH),
        ):
            starts = [sum(parts) for parts in zip(offsets, r, c, k, b, strict=True)]
            reading = _reading(rows, columns, middle, product.conjugated)
            assert reading is not None  # `fit` saw to it
            a, b_ = (RHS, LHS) if reading.swapped else (LHS, RHS)
            m, n = (columns, rows) if reading.swapped else (rows, columns)
            gemm = Gemm(
                *(reading.transpose_a, reading.transpose_b, m.size, n.size, middle.size, *reading.leading),
                *(batch.size, batch.strides[a], batch.strides[b_], batch.strides[OUT]),
                accumulate=any(k),
                conjugate_a=product.conjugated[a],
                conjugate_b=product.conjugated[b_],
            )
            yield Call(gemm, reading.swapped, *starts)


class _Reading(NamedTuple):
    """How cuBLAS reads the arrays of one product: which are A and B, their ops, all leading dimensions."""

    swapped: bool
    transpose_a: bool
    transpose_b: bool
    leading: tuple[int, int, int]


_EITHER, _PLAIN, _TRANSPOSED = (False, True), (False,), (True,)


def _reading(rows: Axis, columns: Axis, middle: Axis, conjugated: tuple[bool, bool]) -> _Reading | None:
    """None if it cannot. A side that is conjugated must be transposed, too: where it is not, swapped sides may do."""
    ops = [_TRANSPOSED if conjugate else _EITHER for conjugate in conjugated]
    for swapped, m, n, a, b in ((False, rows, columns, LHS, RHS), (True, columns, rows, RHS, LHS)):
        if (
            (out := _matrix(m, n, OUT, _PLAIN))
            and (first := _matrix(m, middle, a, ops[a]))
            and (second := _matrix(middle, n, b, ops[b]))
        ):
            (_, ldc), (transpose_a, lda), (transpose_b, ldb) = out, first, second
            return _Reading(swapped, transpose_a, transpose_b, (lda, ldb, ldc))
    return None


def _matrix(rows: Axis, columns: Axis, array: int, ops: tuple[bool, ...]) -> tuple[bool, int] | None:
    """The first op, transposed or not, by which cuBLAS reads an array as this matrix, and its leading dimension."""
    for transposed in ops:
        down, across = (columns, rows) if transposed else (rows, columns)
        if down.size == 1 or down.strides[array] == 1:
            stored = min(down.size, INT_MAX)  # a larger one is split
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


def _by_stride(labels: Term, strides: Sizes) -> Term:
    return "".join(sorted(labels, key=lambda label: -strides[label]))


def _fused(labels: Term, sizes: Sizes, strides: tuple[Sizes, ...], by: int) -> list[Axis]:
    return fuse(sorted(axes(labels, sizes, *strides), key=lambda axis: -axis.strides[by]))


def _rank(product: Product) -> tuple[int, int]:
    return -product.calls, product.rows.size * product.columns.size
