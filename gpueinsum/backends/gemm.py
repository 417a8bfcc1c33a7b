"""From strides to cuBLAS calls: which axes are rows, columns, sum and batch, and which operand must be copied first.

No array is touched here, so all of it is tested without a GPU. Strides are in elements throughout.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from gpueinsum.backends.axes import Axis, axes, contiguous, fuse, label_strides, points
from gpueinsum.plan import Contract
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
    Element (row, col) of A[b] lies at `b * stride_a + col * lda + row`; with `transpose_a` A is stored k x m.
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


@dataclass(frozen=True, slots=True)
class Product:
    """A pair fitted to a batched matrix product: one axis per role, of strides (lhs, rhs, out), and loops around it."""

    rows: Axis
    columns: Axis
    summed: Axis
    batch: Axis
    loops: tuple[Axis, ...]

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
    """How a pair becomes a product: what is copied first (to which term), the order the result is written in."""

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
    orders = dict.fromkeys((step.out, batch + left + right, batch + right + left))
    copies = [(False, False), (True, False), (False, True), (True, True)]
    if points(step.rhs_term, size) < points(step.lhs_term, size):
        copies[1:3] = reversed(copies[1:3])
    for copy_lhs, copy_rhs in copies:
        middle = summed if copy_rhs else "".join(label for label in step.rhs_term if label in summed)
        lhs_copy = batch + left + middle if copy_lhs else None
        rhs_copy = batch + right + summed if copy_rhs else None
        lhs_strides = contiguous(lhs_copy, size) if lhs_copy is not None else label_strides(step.lhs_term, lhs)
        rhs_strides = contiguous(rhs_copy, size) if rhs_copy is not None else label_strides(step.rhs_term, rhs)
        for out in orders:
            strides = (lhs_strides, rhs_strides, contiguous(out, size))
            product = fit(step, size, strides, blas, last_resort=copy_lhs and copy_rhs)
            if product is not None:
                return Route(lhs_copy, rhs_copy, out, product)
    raise AssertionError(f"{step.equation} fits no product even when both sides are copied")


def fit(
    step: Contract, sizes: Sizes, strides: tuple[Sizes, Sizes, Sizes], blas: bool, last_resort: bool = False
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
        if blas and not _is_blas(rows, columns, middle):
            continue
        around = [axis for axis in (*batch, *left, *right) if axis is not rows and axis is not columns]
        around.sort(key=lambda axis: axis.size)
        widest = around.pop() if around else ONE
        product = Product(rows, columns, middle, widest, tuple(around))
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
            swapped, ldc = _layout(rows, columns, OUT)
            a, b_ = (RHS, LHS) if swapped else (LHS, RHS)
            m, n = (columns, rows) if swapped else (rows, columns)
            transpose_a, lda = _layout(m, middle, a)
            transpose_b, ldb = _layout(middle, n, b_)
            strides = batch.strides
            gemm = Gemm(
                *(transpose_a, transpose_b, m.size, n.size, middle.size, lda, ldb, ldc),
                *(batch.size, strides[a], strides[b_], strides[OUT]),
                accumulate=any(k),
            )
            yield Call(gemm, swapped, *starts)


def _is_blas(rows: Axis, columns: Axis, middle: Axis) -> bool:
    sides = ((rows, middle, LHS), (middle, columns, RHS), (rows, columns, OUT))
    return all(_matrix(*side) is not None for side in sides)


def _layout(rows: Axis, columns: Axis, array: int) -> tuple[bool, int]:
    layout = _matrix(rows, columns, array)
    assert layout is not None  # `fit` saw to it
    return layout


def _matrix(rows: Axis, columns: Axis, array: int) -> tuple[bool, int] | None:
    """How cuBLAS reads an array as this matrix: whether transposed, and its leading dimension; None if it cannot."""
    for transposed, down, across in ((False, rows, columns), (True, columns, rows)):
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


def _fused(labels: Term, sizes: Sizes, strides: tuple[Sizes, ...], by: int) -> list[Axis]:
    return fuse(sorted(axes(labels, sizes, *strides), key=lambda axis: -axis.strides[by]))


def _rank(product: Product) -> tuple[int, int]:
    return -product.calls, product.rows.size * product.columns.size
