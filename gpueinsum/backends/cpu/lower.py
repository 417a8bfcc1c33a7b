"""From a scheduled step to a function of numpy arrays that runs it in the way that was chosen."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, assert_never

import numpy as np
from numpy.lib.stride_tricks import as_strided

from gpueinsum.backends.cpu import exact, loops, pool, threads
from gpueinsum.backends.cpu.gemm import axes_of, lower_gemm, lower_matmul, matrices_of
from gpueinsum.language.steps import distinct, roles
from gpueinsum.language.strides import label_strides, points
from gpueinsum.language.subscripts import Label, Term
from gpueinsum.schedule.candidate import Blocks, Matmul, Pass, Scatter, Sum, View, Way, Zeros
from gpueinsum.schedule.cpu import SHARED_POINTS, conjugates
from gpueinsum.schedule.mapping import Gemm
from gpueinsum.schedule.schedule import ScheduledStep
from gpueinsum.schedule.tiled import Tiled

Array = np.ndarray[Any, Any]
Call = Callable[..., Array]
Sizes = Mapping[Label, int]


def lower_step(step: ScheduledStep, sizes: Sizes, dtype: str) -> Call:
    """The step as a function of its sources' arrays."""
    shape = tuple([sizes[label] for label in step.out])
    match way := step.taken.way:
        case View():
            return _view(step.terms[0], step.out)
        case Zeros():
            return lambda *arrays: np.zeros(shape, np.dtype(dtype))
        case Scatter():
            return _scatter(step.terms[0], step.out, shape)
        case Blocks():
            return _blocks(step, way, sizes, dtype)
        case Sum():
            return _sum(shape, step.taken.strides, dtype)
        case Pass():
            call = _pass(step, way, sizes, dtype)
        case Matmul(out):
            is_exact = np.dtype(dtype).kind in "biu"
            call = _exact(step, out, sizes, dtype) if is_exact else lower_matmul(step.terms, out, step.out, sizes)
        case Gemm():
            call = lower_gemm(step.terms, step.out, way, sizes)
        case Tiled():
            raise AssertionError("only a GPU is offered such a way")
        case _:
            assert_never(way)
    return _with_conjugates(step, call, sizes)


def _box(result: Any, dimensions: int) -> Array:
    """An array of objects; where it has no axes, numpy hands out the bare object."""
    if dimensions or (isinstance(result, np.ndarray) and result.ndim == 0):
        return result  # type: ignore[no-any-return]  # an array, as it has axes
    box = np.empty(1, object)
    box[0] = result
    return box.reshape(())


# ---------------------------------------------------------------- of one array


def _view(term: Term, out: Term) -> Call:
    """Labels that are lost or gained are of size 1."""
    if term == out:  # of one slice, whose labels may all be sliced: numpy would hand out the bare object
        return lambda x: x
    letters = {ord(label): letter for label, letter in zip(distinct(term), string.ascii_letters, strict=False)}
    if set(term) == set(out) and len(letters) == len(set(term)):
        return partial(loops.c_einsum, f"{term}->{out}".translate(letters))
    own = distinct(term)
    order = "".join([label for label in own if label not in out] + [label for label in out if label in own])
    first: tuple[Any, ...] = (*(0,) * sum(label not in out for label in own), ...)
    places = tuple(slice(None) if label in own else None for label in out)
    return lambda x: diagonal_view(x, term, order)[first][(*places, ...)]


def _scatter(term: Term, out: Term, shape: tuple[int, ...]) -> Call:
    """Zeros, and the source written through the diagonal view."""
    diagonal = distinct(out)
    axes = axes_of(term, [label for label in diagonal if label in term])
    index = tuple(slice(None) if label in term else None for label in diagonal)

    def scatter(x: Array) -> Array:
        result = np.zeros(shape, x.dtype)
        diagonal_view(result, out, diagonal)[...] = x.transpose(axes)[index]
        return result

    return scatter


def diagonal_view(x: Array, term: Term, out: Term) -> Array:
    """`x` seen along `out`, which names each label of `term` once: a repeated label walks the diagonal."""
    strides = label_strides(term, x.strides)
    size = dict(zip(term, x.shape, strict=True))
    return as_strided(x, [size[label] for label in out], [strides[label] for label in out])


def _sum(shape: tuple[int, ...], strides: Sequence[int], dtype: str) -> Call:
    order = sorted(range(len(shape)), key=lambda axis: -strides[axis])
    own, axes = [shape[axis] for axis in order], tuple(np.argsort(order).tolist())

    def add(*arrays: Array) -> Array:
        if not arrays:
            return np.zeros(shape, np.dtype(dtype))
        total = pool.empty(own, arrays[0].dtype).transpose(axes)
        if len(arrays) == 1:
            np.copyto(total, arrays[0])
            return total
        np.add(arrays[0], arrays[1], out=total)
        for array in arrays[2:]:
            np.add(total, array, out=total)
        return total

    return add


# ---------------------------------------------------------------- loops


def _pass(step: ScheduledStep, way: Pass, sizes: Sizes, dtype: str) -> Call:
    """numpy's C loop for sums, whose labels are named as they are to be nested; else its multiplication."""
    labels = way.loops
    layout, axes = labels[: len(step.out)], axes_of(labels[: len(step.out)], step.out)
    if len(labels) == len(step.out):
        return _product(step, layout, axes, sizes, dtype)
    if len(labels) > len(string.ascii_letters):
        return _reduce(step, labels, axes)
    letters = {ord(label): letter for label, letter in zip(labels, string.ascii_letters, strict=False)}
    equation = f"{','.join(step.terms)}->{layout}".translate(letters)
    shared = way.shared.translate(letters), way.threads
    loop = loops.einsum_loop(equation, [sizes[label] for label in layout], points(labels, sizes), *shared)
    if dtype == "object":
        return lambda *arrays: _box(loop(*arrays), len(axes)).transpose(axes)
    return loop if layout == step.out else lambda *arrays: loop(*arrays).transpose(axes)


def _product(step: ScheduledStep, layout: Term, axes: tuple[int, ...], sizes: Sizes, dtype: str) -> Call:
    """Each array is viewed with the result's axes, of size 1 where it lacks them."""
    shape = [sizes[label] for label in layout]
    orders = [axes_of(term, [label for label in layout if label in term]) for term in step.terms]
    index = [(*(slice(None) if label in term else None for label in layout), ...) for term in step.terms]
    if len(step.terms) == 2 and points(layout, sizes) < _SMALL_PRODUCT and dtype != "object":
        (first, second), (at, other) = orders, index

        def multiply(x: Array, y: Array) -> Array:
            result: Array = np.multiply(x.transpose(first)[at], y.transpose(second)[other], order="C")
            return result.transpose(axes)

        return multiply

    def product(*arrays: Array) -> Array:
        factors = [x.transpose(order)[at] for x, order, at in zip(arrays, orders, index, strict=True)]
        out = pool.empty(shape, arrays[0].dtype)
        loops.product(out, factors)
        return out.transpose(axes)

    return product


_SMALL_PRODUCT = 1 << 15  # elements of one that numpy allocates itself


def _exact(step: ScheduledStep, out: Term, sizes: Sizes, dtype: str) -> Call:
    """A product of integers by that of floats; by numpy's loop where these do not hold every sum."""
    product = lower_matmul(step.terms, out, step.out, sizes)
    batch, left, right, inner = roles(*step.terms, step.out)
    x_cast = matrices_of(step.terms[0], batch, left, inner)
    y_cast = matrices_of(step.terms[1], batch, inner, right)
    letters = {ord(x): y for x, y in zip(distinct("".join(step.terms)), string.ascii_letters, strict=False)}
    equation = f"{','.join(step.terms)}->{out}".translate(letters)
    axes = axes_of(out, step.out)
    has_letters = len(letters) == len({*"".join(step.terms)})

    def in_floats(x: Array, y: Array, floats: np.dtype[Any]) -> Array:
        return product(x_cast(x, floats), y_cast(y, floats))

    def loop(x: Array, y: Array) -> Array:
        return loops.c_einsum(equation, x, y, order="C").transpose(axes) if has_letters else product(x, y)

    return exact.by_floats(in_floats, loop, np.dtype(dtype), points(inner, sizes))


def _reduce(step: ScheduledStep, labels: Term, axes: tuple[int, ...]) -> Call:
    """A sum of one array of more labels than there are letters."""
    summed = tuple(range(len(step.out), len(labels)))

    def reduce(x: Array) -> Array:
        add = np.logical_or if x.dtype == bool else np.add
        result = add.reduce(diagonal_view(x, step.terms[0], labels), axis=summed, dtype=x.dtype)
        return np.asarray(result, order="C").transpose(axes)

    return reduce


# ---------------------------------------------------------------- blocks


def _blocks(step: ScheduledStep, way: Blocks, sizes: Sizes, dtype: str) -> Call:
    """The step on one block after the other; loops, which run on one thread, on several threads."""
    whole, shape = sizes[way.label], [sizes[label] for label in step.out]

    def lower_block(way: Way, size: int) -> Call:
        taken = step.taken._replace(way=way)
        return lower_step(replace(step, candidates=(taken,)), {**sizes, label: size}, dtype)

    label, starts = way.label, range(0, whole, way.step)
    block = lower_block(way.block, way.step)
    rest = block if way.rest is None else lower_block(way.rest, whole % way.step)
    *places, place = [loops.places_of(label, term) for term in (*step.terms, step.out)]
    total = points("".join({*step.out, *"".join(step.terms)}), sizes)
    parts = threads.parts(total, SHARED_POINTS) if isinstance(way.block, Pass) and place else 1

    def run(*arrays: Array) -> Array:
        out = pool.empty(shape, arrays[0].dtype)
        if not place:
            out[...] = 0

        def run_blocks(part: slice) -> None:
            for start in starts[part]:
                index = slice(start, start + way.step)
                call = block if start + way.step <= whole else rest
                made = call(*[loops.part_of(x, axis, index) for x, axis in zip(arrays, places, strict=True)])
                if not place:
                    np.add(out, made, out=out)
                else:
                    np.copyto(loops.part_of(out, place, index), made)

        threads.in_turn(run_blocks, len(starts), parts)
        return out

    return run


# ---------------------------------------------------------------- conjugates


def _with_conjugates(step: ScheduledStep, call: Call, sizes: Sizes) -> Call:
    """`call` of the conjugates of sides, and its result's."""
    if not any(step.conjugated):
        return call
    elements = [points(term, sizes) for term in (*step.terms, step.out)]
    *sides, result = conjugates(step.conjugated, elements)

    def conjugated(*arrays: Array) -> Array:
        made = np.asarray(call(*[_conjugate(x) if mark else x for x, mark in zip(arrays, sides, strict=True)]))
        return np.conjugate(made, out=made) if result else made

    return conjugated


def _conjugate(x: Array) -> Array:
    return np.conjugate(x, out=pool.empty_like(x))  # an array, also of no axes
