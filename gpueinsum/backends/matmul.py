"""A pair as `np.matmul` of views: which labels go where, and what must be copied first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from gpueinsum.axes import points
from gpueinsum.steps import Contract
from gpueinsum.subscripts import Label, Term

Array = np.ndarray[Any, Any]
Sizes = Mapping[Label, int]

# Past this many bytes a matrix is not copied for a product with a vector: in a loop against a copy and BLAS,
# `prqs,rs->pq` of 80^4 took 24 ms against 137 ms, of 30^4 (6 MB) 0.35 ms against 0.84 ms, `abc,b->ac` of 300^3 7.6 ms
# against 52 ms (float64); but patches of 7 x 5 of 128 x 120 pixels (2 MB) 0.71 ms against 0.11 ms (float32).
CACHED = 3 << 20


def matmul(step: Contract, sizes: Sizes) -> Callable[[Array, Array], Array]:
    """The pair as `...ls,...sr->...lr`; its sides trade places when the result wants `right` before `left`."""
    x_term, y_term, left, right = step.lhs_term, step.rhs_term, step.left, step.right
    swapped = step.out[len(step.batch) :].startswith(right) and bool(right)
    if swapped:
        x_term, y_term, left, right = y_term, x_term, right, left
    batch, summed = step.batch, step.summed
    x_view = _grouped(x_term, [*batch, left, summed], sizes)
    y_view = _grouped(y_term, [*batch, summed, right], sizes)
    natural = batch + left + right
    shape = tuple(sizes[label] for label in natural) if len(left) != 1 or len(right) != 1 else None
    out_axes = axes_of(natural, step.out) if natural != step.out else None

    def contract(x: Array, y: Array) -> Array:
        if swapped:
            x, y = y, x
        product: Array = np.matmul(x_view(x) if x_view else x, y_view(y) if y_view else y)
        if shape is not None:
            product = product.reshape(shape)
        return product if out_axes is None else product.transpose(out_axes)

    return contract


def _grouped(term: Term, groups: list[Term], sizes: Sizes) -> Callable[[Array], Array] | None:
    """How to see an array with one axis per group of labels, copied only if a group does not fuse; None if it is so."""
    order = "".join(groups)
    axes = axes_of(term, order)
    if all(len(group) == 1 for group in groups):
        return None if order == term else lambda x: x.transpose(axes)
    *batch, rows, columns = groups
    shape = tuple(points(group, sizes) for group in groups)
    turned_axes = axes_of(term, "".join([*batch, columns, rows]))
    turned_shape = (*shape[:-2], shape[-1], shape[-2])

    def inner(x: Array, group: Term) -> tuple[int, int]:
        """How near in memory the group's neighbours are, and how many there are of them, most wanted first."""
        axis = term.index(group[-1]) if group else 0
        return abs(x.strides[axis]), -x.shape[axis]

    def grouped(x: Array) -> Array:
        if x.flags.c_contiguous and order == term:
            return x.reshape(shape)
        if inner(x, rows) < inner(x, columns):  # a copy, if there is one, goes along the rows
            return x.transpose(turned_axes).reshape(turned_shape).swapaxes(-1, -2)
        return x.transpose(axes).reshape(shape)

    return grouped


def fuses(term: Term, groups: tuple[Term, ...], sizes: Sizes) -> Callable[[Array], bool]:
    """Whether an array is seen with one axis per group of labels without a copy, or is small enough for one."""
    longer = ["".join(label for label in group if sizes[label] != 1) for group in groups]
    neighbours = [
        (term.index(outer), term.index(inner), sizes[inner]) for group in longer for outer, inner in pairwise(group)
    ]

    def fuses(x: Array) -> bool:
        fused = all(x.strides[outer] == size * x.strides[inner] for outer, inner, size in neighbours)
        return fused or x.nbytes <= CACHED

    return fuses


def axes_of(term: Term, order: Term | list[Label]) -> tuple[int, ...]:
    return tuple(term.index(label) for label in order)
