"""A pair as one `np.matmul` of views: small ones as their labels say, large ones by the cheapest route."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from gpueinsum.backends.autotune import random_numbers
from gpueinsum.backends.cpu import loops
from gpueinsum.backends.cpu import pool as memory
from gpueinsum.backends.stopwatch import Call, host_seconds
from gpueinsum.costs.profile import Profile
from gpueinsum.language.steps import Contract
from gpueinsum.language.strides import Axis, points
from gpueinsum.language.subscripts import Label, Term
from gpueinsum.schedule.gemm import LHS, OUT, RHS
from gpueinsum.schedule.layouts import Chooser, route_for
from gpueinsum.schedule.mapping import Case, Route, Strides
from gpueinsum.schedule.predict import case_of

Array = np.ndarray[Any, Any]
Sizes = Mapping[Label, int]

# Past this many bytes a matrix is not copied for a product with a vector: in a loop against a copy and BLAS,
# `prqs,rs->pq` of 80^4 took 24 ms against 137 ms, of 30^4 (6 MB) 0.35 ms against 0.84 ms, `abc,b->ac` of 300^3 7.6 ms
# against 52 ms (float64); but patches of 7 x 5 of 128 x 120 pixels (2 MB) 0.71 ms against 0.11 ms (float32).
CACHED = 3 << 20


# Below so many elements in all arrays a route takes longer to follow than a copy to make.
_ROUTED = 1 << 15
_KEPT = 64  # routes of one step, for as many layouts of its sides


def matmul(
    step: Contract, sizes: Sizes, dtype: str, profile: Profile, choose: Chooser = route_for
) -> Callable[[Array, Array], Array]:
    """A pair with a matrix product in it as one call of `np.matmul`, in the way that is chosen where it is large."""
    grouped = _dot(step) or _by_labels(step, sizes)
    if profile.rate(dtype) is None or sum(points(t, sizes) for t in (step.lhs_term, step.rhs_term, step.out)) < _ROUTED:
        return grouped
    plain = replace(step, conj_lhs=False, conj_rhs=False)  # conjugates are made around this
    known: dict[tuple[tuple[int, ...], tuple[int, ...]], Callable[[Array, Array], Array]] = {}

    def contract(x: Array, y: Array) -> Array:
        layouts = x.strides, y.strides
        run = known.get(layouts)
        if run is None:
            if len(known) == _KEPT:
                known.clear()
            if any(stride % x.itemsize for stride in (*x.strides, *y.strides)):  # fields of records
                run = grouped
            else:
                lhs, rhs = (tuple(stride // x.itemsize for stride in array.strides) for array in (x, y))
                case = case_of(plain, sizes, dtype, profile)._replace(lhs=lhs, rhs=rhs)
                run = _routed(plain, sizes, choose(case))
            known[layouts] = run
        return run(x, y)

    return contract


def _routed(step: Contract, sizes: Sizes, way: Route) -> Callable[[Array, Array], Array]:
    """`np.matmul` as the route says: copies first, then rows, columns and sum as they lie, and the rest a batch."""
    product = way.product
    batch = [axis for axis in (*product.loops, product.batch) if axis.size > 1]
    batch.sort(key=lambda axis: -axis.strides[OUT])
    rows, columns, summed = product.rows, product.columns, product.summed
    x_copy, y_copy = _copied(step.lhs_term, way.copy_lhs), _copied(step.rhs_term, way.copy_rhs)
    x_view, y_view = _seen(LHS, [*batch, rows, summed]), _seen(RHS, [*batch, summed, columns])
    out_view = _seen(OUT, [*batch, rows, columns])
    shape = tuple(sizes[label] for label in way.out)
    axes = axes_of(way.out, step.out)

    def contract(x: Array, y: Array) -> Array:
        x, y = x_copy(x) if x_copy else x, y_copy(y) if y_copy else y
        out = memory.empty(shape, x.dtype)
        loops.matmul_to(out_view(out), x_view(x), y_view(y))
        return out.transpose(axes)

    return contract


def _copied(term: Term, layout: Term | None) -> Callable[[Array], Array] | None:
    """How to copy an array to another order of its labels; None where it stays as it is."""
    if layout is None:
        return None
    axes = axes_of(term, layout)
    return lambda x: loops.copied(x.transpose(axes))


def _seen(array: int, loops: Sequence[Axis]) -> Callable[[Array], Array]:
    """The memory of one array of a product along these loops."""
    shape = tuple(axis.size for axis in loops)
    strides = tuple(axis.strides[array] for axis in loops)

    def seen(x: Array) -> Array:
        own = [stride * x.itemsize for stride in strides]
        if x.flags.c_contiguous:  # for which numpy's constructor will do, in 0.6 us of the 3.5 that `as_strided` takes
            return np.ndarray(shape, x.dtype, x, 0, own)
        return as_strided(x, shape, own)

    return seen


class HostWays:
    """Routes as calls on arrays of random numbers, for `tune.py` to time."""

    def calls(self, case: Case, ways: Mapping[str, Route]) -> dict[str, Call]:
        step, sizes = case.step, dict(case.sizes)
        sides = (step.lhs_term, case.lhs), (step.rhs_term, case.rhs)
        x, y = (_random([sizes[label] for label in term], strides, case.dtype) for term, strides in sides)
        return {name: partial(_routed(step, sizes, way), x, y) for name, way in ways.items()}

    def seconds(self, call: Call, count: int) -> float:
        return host_seconds(call, count)


def _random(shape: Sequence[int], strides: Strides, dtype: str) -> Array:
    """An array with these strides, in elements."""
    ends = [(size - 1) * stride for size, stride in zip(shape, strides, strict=True)]
    before = -sum(end for end in ends if end < 0)
    memory = np.resize(random_numbers(dtype), before + sum(end for end in ends if end > 0) + 1)
    return as_strided(memory[before:], shape, [stride * memory.itemsize for stride in strides])


# `np.dot`, by whether it reads the left side and the right one transposed. It starts sooner than `np.matmul`: 3 x 3
# took 0.55 us against 1.42 us, 64 x 64 10.5 us against 12.2 us (float64, medians).
_DOTS: dict[tuple[bool, bool], Callable[[Array, Array], Array]] = {
    (False, False): np.ndarray.dot,
    (True, False): lambda x, y: x.T.dot(y),
    (False, True): lambda x, y: x.dot(y.T),
    (True, True): lambda x, y: x.T.dot(y.T),
}


def _dot(step: Contract) -> Callable[[Array, Array], Array] | None:
    """A pair of matrices or vectors as `np.dot`; None if it is of arrays with more axes than those."""
    left, right, summed = step.left, step.right, step.summed
    if step.batch or len(summed) != 1 or max(len(left), len(right)) > 1:
        return None
    if not step.out:
        return lambda x, y: np.asarray(x.dot(y))
    if step.out == left + right:
        return _DOTS[step.lhs_term != left + summed, step.rhs_term != summed + right]
    dot = _DOTS[step.rhs_term != right + summed, step.lhs_term != summed + left]
    return lambda x, y: dot(y, x)


def _by_labels(step: Contract, sizes: Sizes) -> Callable[[Array, Array], Array]:
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
    multiply = np.matmul if batch else np.ndarray.dot  # as above

    def contract(x: Array, y: Array) -> Array:
        if swapped:
            x, y = y, x
        product: Array = multiply(x_view(x) if x_view else x, y_view(y) if y_view else y)
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
            return loops.reshaped(x.transpose(turned_axes), turned_shape).swapaxes(-1, -2)
        return loops.reshaped(x.transpose(axes), shape)

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
