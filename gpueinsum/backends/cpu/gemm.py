"""A pair as one matrix product of numpy's: of views as a GEMM mapping says, or of arrays of any strides by labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from gpueinsum.backends.cpu import pool
from gpueinsum.backends.cpu.copies import copy, copy_to
from gpueinsum.language.steps import roles
from gpueinsum.language.strides import Axis, points
from gpueinsum.language.subscripts import Label, Term
from gpueinsum.schedule.gemm import LHS, OUT, RHS
from gpueinsum.schedule.mapping import Gemm, Sizes

Array = np.ndarray[Any, Any]
Pair = Callable[[Array, Array], Array]


def lower_gemm(terms: Sequence[Term], out: Term, way: Gemm, sizes: Sizes) -> Pair:
    """Copies first, then one `np.matmul` of rows, columns and sum as they lie, of a batch of all other axes."""
    product = way.product
    batch = [axis for axis in (*product.loops, product.batch) if axis.size > 1]
    batch.sort(key=lambda axis: -axis.strides[OUT])
    rows, columns, summed = product.rows, product.columns, product.summed
    x_copy, y_copy = (_copy(term, layout) for term, layout in zip(terms, way.copies, strict=True))
    x_view, y_view = _seen(LHS, [*batch, rows, summed]), _seen(RHS, [*batch, summed, columns])
    out_view = _seen(OUT, [*batch, rows, columns])
    shape = tuple(sizes[label] for label in way.out)
    axes = axes_of(way.out, out)

    def contract(x: Array, y: Array) -> Array:
        x, y = x_copy(x) if x_copy else x, y_copy(y) if y_copy else y
        result = pool.empty(shape, x.dtype)
        np.matmul(x_view(x), y_view(y), out=out_view(result))
        return result.transpose(axes)

    return contract


def _copy(term: Term, layout: Term | None) -> Callable[[Array], Array] | None:
    """How to copy an array to another order of its labels; None where it stays as it is."""
    if layout is None:
        return None
    axes = axes_of(term, layout)
    return lambda x: copy(x.transpose(axes))


def _seen(array: int, loops: Sequence[Axis]) -> Callable[[Array], Array]:
    """The memory of one array of a product along these axes."""
    shape = tuple(axis.size for axis in loops)
    strides = tuple(axis.strides[array] for axis in loops)

    def seen(x: Array) -> Array:
        own = [stride * x.itemsize for stride in strides]
        if x.flags.c_contiguous:  # for which numpy's constructor will do, in 0.6 us of the 3.5 that `as_strided` takes
            return np.ndarray(shape, x.dtype, x, 0, own)
        return as_strided(x, shape, own)

    return seen


# ---------------------------------------------------------------- arrays of any strides


# `np.dot`, by whether it reads the left side and the right one transposed. It starts sooner than `np.matmul`: 3 x 3
# took 0.55 us against 1.42 us, 64 x 64 10.5 us against 12.2 us (float64, medians).
_DOTS: dict[tuple[bool, bool], Pair] = {
    (False, False): np.ndarray.dot,
    (True, False): lambda x, y: x.T.dot(y),
    (False, True): lambda x, y: x.dot(y.T),
    (True, True): lambda x, y: x.T.dot(y.T),
}


def lower_matmul(terms: Sequence[Term], natural: Term, out: Term, sizes: Sizes) -> Pair:
    """The pair as `...ls,...sr->...lr`, whose result has the order `natural`, seen in the order `out`."""
    lhs, rhs = terms
    batch, left, right, summed = roles(lhs, rhs, out)
    if natural != batch + left + right or (not left and natural == batch + right):  # the sides trade places
        swapped = _lower_matmul(rhs, lhs, batch, right, left, summed, natural, out, sizes)
        return lambda x, y: swapped(y, x)
    return _lower_matmul(lhs, rhs, batch, left, right, summed, natural, out, sizes)


def _lower_matmul(
    lhs: Term, rhs: Term, batch: Term, left: Term, right: Term, summed: Term, natural: Term, out: Term, sizes: Sizes
) -> Pair:
    if not batch and len(summed) == 1 and max(len(left), len(right)) <= 1 and natural == out:
        if not out:
            return lambda x, y: np.asarray(x.dot(y))
        return _DOTS[lhs != left + summed, rhs != summed + right]
    x_view = _matrices(lhs, [*batch, left, summed], sizes)
    y_view = _matrices(rhs, [*batch, summed, right], sizes)
    shape = tuple(sizes[label] for label in natural) if len(left) != 1 or len(right) != 1 else None
    axes = axes_of(natural, out) if natural != out else None

    def contract(x: Array, y: Array) -> Array:
        x, y = x_view(x) if x_view else x, y_view(y) if y_view else y
        product: Array = np.matmul(x, y, order="C") if batch else x.dot(y)
        if shape is not None:
            product = product.reshape(shape)
        return product if axes is None else product.transpose(axes)

    return contract


def _matrices(term: Term, groups: Sequence[Term], sizes: Sizes) -> Callable[[Array], Array] | None:
    """How to see an array with one axis per group of labels, copied only if a group does not fuse; None if it is so."""
    order = "".join(groups)
    axes = axes_of(term, order)
    if all(len(group) == 1 for group in groups):
        return None if order == term else lambda x: x.transpose(axes)
    *batch, rows, columns = groups
    shape = tuple(points(group, sizes) for group in groups)
    turned_axes = axes_of(term, "".join([*batch, columns, rows]))
    turned_shape = (*shape[:-2], shape[-1], shape[-2])

    def matrices(x: Array) -> Array:
        if x.flags.c_contiguous and order == term:
            return x.reshape(shape)
        if _inner(x, term, rows) < _inner(x, term, columns):  # a copy, if there is one, goes along the rows
            return x.transpose(turned_axes).reshape(turned_shape).swapaxes(-1, -2)
        return x.transpose(axes).reshape(shape)

    return matrices


def matrices_of(term: Term, batch: Term, rows: Term, columns: Term) -> Callable[[Array, np.dtype[Any]], Array]:
    """How to copy an array to matrices of another dtype that BLAS takes as they lie, turned if it goes along rows."""
    plain, turned = batch + rows + columns, batch + columns + rows
    axes = {order: (axes_of(term, order), axes_of(order, term)) for order in (plain, turned)}

    def matrices(x: Array, dtype: np.dtype[Any]) -> Array:
        to, back = axes[turned if _inner(x, term, rows) < _inner(x, term, columns) else plain]
        source = x.transpose(to)
        out = pool.empty(source.shape, dtype)
        copy_to(out, source)
        return out.transpose(back)

    return matrices


def _inner(x: Array, term: Term, group: Term) -> tuple[int, int]:
    """How near in memory the group's neighbours are, and how many there are of them, most wanted first."""
    axis = term.index(group[-1]) if group else 0
    return abs(x.strides[axis]), -x.shape[axis]


def axes_of(term: Term, order: Term | list[Label]) -> tuple[int, ...]:
    """The axis of each label of `order` in an array of this term."""
    return tuple([term.index(label) for label in order])
