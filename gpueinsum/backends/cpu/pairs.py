"""A pair on the CPU: which of numpy's tools runs it, by what its labels and sizes say.

| pair | tool | where |
|---|---|---|
| matrix product | `np.matmul` of views (`matmul.py`) | floats with several rows and columns |
| | the same of floats that hold every sum (`numbers.py`) | integers and bools |
| matrix times vector | `np.matmul` of views | each side fuses to a matrix, or is small |
| | copies of patches, block by block (`loops.py`) | overlapping patches of an image |
| dots | `np.vecdot`; columns; crosswise tiles (`loops.py`) | long; of up to 4 elements; `ij,ji->i` |
| nothing summed, of two arrays or more | one product in blocks (`loops.py`) | large, unless the rows are short |
| everything else | numpy's C loop, that of `np.einsum` | |
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import Any

import numpy as np

from gpueinsum.backends.cpu import exact as numbers
from gpueinsum.backends.cpu import loops
from gpueinsum.backends.cpu import pool as memory
from gpueinsum.backends.cpu.matmul import CACHED, axes_of, fuses, matmul
from gpueinsum.costs.profile import profile_for
from gpueinsum.language.steps import Contract, Fused
from gpueinsum.language.strides import points
from gpueinsum.language.subscripts import Label, Term
from gpueinsum.schedule.layouts import Chooser, route_for

try:  # `np.einsum` without its dispatch in Python, which takes 0.6 us of the 1.5 us of a small call
    from numpy._core.multiarray import c_einsum as _c_einsum
except ImportError:
    _c_einsum = np.einsum
c_loop = _c_einsum

Array = np.ndarray[Any, Any]
Sizes = Mapping[Label, int]
_Pair = Callable[[Array, Array], Array]

_BLAS_DTYPES = {"float32", "float64", "complex64", "complex128"}
_REAL_BLAS_DTYPES = {"float32", "float64"}
# Where one tool of numpy's overtakes another: numpy 2.4, 2 cores, medians.
# A smaller matrix times a vector runs faster as a loop than as a call of BLAS: batches of 4 x 4 took 0.54 ms against
# 0.83 ms, of 8 x 8 0.31 ms against 0.27 ms (float32, 400,000 elements).
_SMALL_MATRIX = 64
# Dots of fewer elements, too: 50,000 of 16 took 267 us against 634 us, 4096 of 128 76 us against 52 us (float32).
_LONG_DOT = 64
# A batch of matrices of these sizes that is past the caches is read in one stream by a loop, which BLAS does not: of 64
# x 64, 128 x 128, 64 x 256, 256 x 64 and 200 x 300, 4 and 12 MB that were not read just before, a loop took 0.49 to
# 0.84 of BLAS' time (float32 and float64); of 1000 x 1000 0.8 to 1.3, of 100 x 2000 up to 1.7.
_SHORTEST_STREAMED, _LONGEST_STREAMED = 64, 600
# A product of fewer elements is too small for the choice of a layout and of a buffer to pay.
_LARGE_PRODUCT = 1 << 15
# Dots of up to so many elements are sums of columns: of 2 they took 0.10 of the C loop's time, of 3 0.28, of 4 0.74, of
# 6 1.14 (float32, 786,432 elements).
_SHORT_DOT = 4
# Dots whose sides are read crosswise run in tiles past so many elements, where neither fits a cache.
_LARGE_CROSSED = 1 << 18
# Products of matrices of integers and bools by BLAS, from so many products and no narrower sides on: 32 x 32 times 32 x
# 32 took 9 us in a loop and 11 so (int32), 19 and 11 (int64), 3.8 and 3.6 (bool); 64 x 64 46 and 23, 115 and 24, 12.5
# and 8.4 (one thread of BLAS).
_WIDE, _MANY_PRODUCTS = 8, 1 << 16


def contract(step: Contract, sizes: Sizes, dtype: str, choose: Chooser = route_for) -> _Pair:
    """A pair as a function of its sides; the ways of large matrix products are chosen when they are seen."""
    call = _contract(step, sizes, dtype, choose)
    return _conjugated(step, sizes, call) if dtype.startswith("complex") or dtype == "object" else call


def _contract(step: Contract, sizes: Sizes, dtype: str, choose: Chooser) -> _Pair:
    equation = in_letters(step.equation)
    loop = None if equation is None else partial(c_loop, equation)
    if not step.summed:
        return _elementwise(step, sizes, dtype, loop)
    product = partial(matmul, step, sizes, profile=profile_for("cpu"), choose=choose)
    rows, columns = points(step.left, sizes), points(step.right, sizes)
    if loop is None or (dtype in _BLAS_DTYPES and min(rows, columns) > 1):
        return product(dtype)
    if np.dtype(dtype).kind in "biu" and min(rows, columns) > 1:
        return _exact_product(step, sizes, dtype, product, loop)
    if dtype == "bool":
        return product(dtype)
    if rows == columns == 1:
        return _dots(step, sizes, dtype, loop) if step.batch else _crossed(step, sizes, dtype, product(dtype))
    return _matrix_vector(step, sizes, dtype, product(dtype), loop) if dtype in _BLAS_DTYPES else loop


def _elementwise(step: Contract, sizes: Sizes, dtype: str, loop: _Pair | None) -> _Pair:
    rows, columns = points(step.left, sizes), points(step.right, sizes)
    row = columns if step.out.endswith(step.right) else rows
    is_outer = not step.batch and not rows == columns == 1 and dtype in _REAL_BLAS_DTYPES
    is_short = row * np.dtype(dtype).itemsize < loops.LONG_ROW
    if loop is not None and is_outer and is_short:
        return loop
    return _multiply((step.lhs_term, step.rhs_term), step.out, sizes, dtype)


def _exact_product(step: Contract, sizes: Sizes, dtype: str, product: Callable[[str], _Pair], loop: _Pair) -> _Pair:
    """Matrices of integers and bools, by BLAS where they are large enough."""
    lengths = [points(labels, sizes) for labels in (step.left, step.right, step.summed)]
    exact = product(dtype) if dtype == "bool" else loop
    if min(lengths) < _WIDE or math.prod(lengths) < _MANY_PRODUCTS:
        return exact
    return numbers.by_floats(product, exact, np.dtype(dtype), lengths[-1])


def _matrix_vector(step: Contract, sizes: Sizes, dtype: str, product: _Pair, loop: _Pair) -> _Pair:
    """Matrices times vectors: BLAS where they lie as it takes them, a loop where they are tiny or would be copied."""
    lengths = points(step.left + step.right, sizes), points(step.summed, sizes)
    if step.batch and math.prod(lengths) < _SMALL_MATRIX:
        return loop
    size = points(step.batch, sizes) * math.prod(lengths) * np.dtype(dtype).itemsize
    if size <= CACHED:
        return product
    is_streamed = min(lengths) >= _SHORTEST_STREAMED and max(lengths) <= _LONGEST_STREAMED
    if step.batch and is_streamed and dtype in _REAL_BLAS_DTYPES:
        return loop
    x_fuses = fuses(step.lhs_term, (step.left, step.summed), sizes)
    y_fuses = fuses(step.rhs_term, (step.summed, step.right), sizes)
    strided = loop if step.batch or (step.left and step.right) else _of_patches(step, sizes, loop)
    return lambda x, y: (product if x_fuses(x) and y_fuses(y) else strided)(x, y)


def _conjugated(step: Contract, sizes: Sizes, contract: _Pair) -> _Pair:
    """`contract` of the conjugates that the step asks for, by the fewest: conj(x) y is also conj(x conj(y))."""
    if not (step.conj_lhs or step.conj_rhs):
        return contract

    def elements(result: bool) -> int:
        sides = (step.conj_lhs != result, step.lhs_term), (step.conj_rhs != result, step.rhs_term), (result, step.out)
        return sum(points(term, sizes) for conjugated, term in sides if conjugated)

    result = elements(True) < elements(False)
    lhs, rhs = step.conj_lhs != result, step.conj_rhs != result

    def conjugated(x: Array, y: Array) -> Array:
        product = np.asarray(contract(_conjugate(x) if lhs else x, _conjugate(y) if rhs else y), x.dtype)
        return np.conjugate(product, out=product) if result else product

    return conjugated


def _conjugate(x: Array) -> Array:
    return np.conjugate(x, out=np.empty_like(x))  # an array, also of no axes


def _dots(step: Contract, sizes: Sizes, dtype: str, loop: _Pair) -> _Pair:
    """A batch of dots: BLAS's where they are long and contiguous, columns where short; other labels are of size 1."""
    batch = "".join(label for label in step.out if label in step.batch)
    x_axes = axes_of(step.lhs_term, step.left + batch + step.summed)
    y_axes = axes_of(step.rhs_term, step.right + batch + step.summed)
    x_index, y_index = (0,) * len(step.left), (0,) * len(step.right)
    shape, middle = tuple(sizes[label] for label in step.out), points(step.summed, sizes)
    is_long = middle >= _LONG_DOT and len(step.summed) == 1
    is_short = 1 < middle <= _SHORT_DOT and math.prod(shape) >= _LARGE_PRODUCT
    tiled = _crossed(step, sizes, dtype, loop)
    if dtype not in _REAL_BLAS_DTYPES or not (is_long or is_short):
        return tiled

    def dots(x: Array, y: Array) -> Array:
        u, v = x.transpose(x_axes)[x_index], y.transpose(y_axes)[y_index]
        if is_long and u.strides[-1] == v.strides[-1] == x.itemsize:
            return np.asarray(np.vecdot(u, v)).reshape(shape)
        if is_short and u.flags.c_contiguous and v.flags.c_contiguous:
            out = memory.empty(shape, x.dtype)
            loops.short_dots(u.reshape(-1, middle), v.reshape(-1, middle), out.reshape(-1))
            return out
        return tiled(x, y)

    return dots


def _crossed(step: Contract, sizes: Sizes, dtype: str, dots: _Pair) -> _Pair:
    """`ij,ji->i` and `ij,ji->`: in tiles if large and if the sides' fastest axes are not the same, else `dots`."""
    is_pair = len(step.lhs_term) == 2 and set(step.lhs_term) == set(step.rhs_term)
    if not is_pair or dtype not in _BLAS_DTYPES or points(step.lhs_term, sizes) < _LARGE_CROSSED:
        return dots
    order = step.out + step.summed
    axes = axes_of(step.lhs_term, order), axes_of(step.rhs_term, order)

    def crossed(x: Array, y: Array) -> Array:
        u, v = (side.transpose(order) for side, order in zip((x, y), axes, strict=True))
        if abs(u.strides[0]) < abs(u.strides[1]):
            u, v = v, u
        if abs(u.strides[0]) <= abs(u.strides[1]) or abs(v.strides[0]) >= abs(v.strides[1]):
            return dots(x, y)
        out = np.empty(len(u), x.dtype)
        loops.crossed_dots(u, v, out)
        return out if step.out else np.asarray(np.add.reduce(out))

    return crossed


def _of_patches(step: Contract, sizes: Sizes, loop: _Pair) -> _Pair:
    """Patches that overlap in memory, times a vector; anything else by the loop."""
    is_left = bool(step.left)
    x_term, y_term = (step.lhs_term, step.rhs_term) if is_left else (step.rhs_term, step.lhs_term)
    x_axes, y_axes = axes_of(x_term, step.summed + step.left + step.right), axes_of(y_term, step.summed)
    kept = step.left + step.right
    shape, out_axes = tuple(sizes[label] for label in kept), axes_of(kept, step.out)

    def times_vector(x: Array, y: Array) -> Array:
        patches, vector = (x, y) if is_left else (y, x)
        first, end = np.lib.array_utils.byte_bounds(patches)
        if patches.nbytes < 2 * (end - first):
            return loop(x, y)
        out = memory.empty(shape, x.dtype)
        loops.patches_times_vector(patches.transpose(x_axes), vector.transpose(y_axes), out)
        return out.transpose(out_axes)

    return times_vector


def _multiply(terms: Sequence[Term], out: Term, sizes: Sizes, dtype: str) -> Callable[..., Array]:
    """A product with nothing to sum: each array is viewed with the result's axes, of size 1 where it lacks them."""
    axes = [axes_of(term, [label for label in out if label in term]) for term in terms]
    index = [(*(slice(None) if label in term else None for label in out), ...) for term in terms]  # 0-d stays an array
    shape = tuple(sizes[label] for label in out)
    is_large = math.prod(shape) >= _LARGE_PRODUCT and dtype != "object"

    def multiply(*arrays: Array) -> Array:
        factors = [array.transpose(order)[at] for array, order, at in zip(arrays, axes, index, strict=True)]
        if is_large:
            return loops.product(factors, shape)
        result: Array = reduce(np.multiply, factors)
        return result

    return multiply


def fused(step: Fused, sizes: Sizes, dtype: str) -> Callable[..., Array]:
    """Several arrays in one pass, as a function of them."""
    is_sum = step.summed or points(step.out, sizes) < _LARGE_PRODUCT
    equation = in_letters(step.equation)  # there is one, for it has no more labels than letters
    loop = partial(c_loop, equation) if is_sum else _multiply(step.terms, step.out, sizes, dtype)
    if not any(step.conjugated):
        return loop
    return lambda *xs: loop(*[_conjugate(x) if mark else x for x, mark in zip(xs, step.conjugated, strict=True)])


def in_letters(equation: str) -> str | None:
    """The equation in the 52 letters that `np.einsum` knows, or None if it needs more."""
    labels = dict.fromkeys(c for c in equation if c not in ",->")
    if len(labels) > len(string.ascii_letters):
        return None
    return equation.translate({ord(x): y for x, y in zip(labels, string.ascii_letters, strict=False)})
