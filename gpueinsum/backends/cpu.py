"""numpy: the readable reference for every step, and the fallback where there is no GPU.

`np.matmul` on views where the pair is a matrix product and BLAS knows the type; `np.einsum`'s C loop where arithmetic
is scarce, for diagonals and sums, and for integers; a plain product where nothing is summed.
"""

from __future__ import annotations

import math
import os
import string
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from gpueinsum import execute
from gpueinsum.axes import label_strides, points
from gpueinsum.backends.matmul import CACHED, axes_of, fuses, matmul
from gpueinsum.errors import OperandError
from gpueinsum.plan import Plan
from gpueinsum.steps import Add, Contract, Expand, Fused, Reduce, Step, distinct
from gpueinsum.subscripts import Label, Term

try:  # `np.einsum` without its dispatch in Python, which takes 0.6 us of the 1.5 us of a small call
    from numpy._core.multiarray import c_einsum as _c_loop
except ImportError:
    _c_loop = np.einsum

Array = np.ndarray[Any, Any]
Sizes = Mapping[Label, int]

_BLAS_DTYPES = {"float32", "float64", "complex64", "complex128"}
_REAL_BLAS_DTYPES = {"float32", "float64"}
# Where one tool of numpy's overtakes another: numpy 2.4, 2 cores, medians.
# A smaller matrix times a vector runs faster as a loop than as a call of BLAS: batches of 4 x 4 took 0.54 ms against
# 0.83 ms, of 8 x 8 0.31 ms against 0.27 ms (float32, 400,000 elements).
_SMALL_MATRIX = 64
# Dots of fewer elements, too: 50,000 of 16 took 267 us against 634 us, 4096 of 128 76 us against 52 us (float32).
_LONG_DOT = 64
# A batch of matrices of these sizes, past so many bytes, is read in one stream by a loop, which BLAS does not. With an
# L3 of 32 MB, one thread and two: 100 of 300 x 200 (48 MB) took 1.9 ms against 3.5 ms, of 64 x 64 0.55 of BLAS' time,
# of 1000 x 1000 0.8 to 1.3; but 20 of 300 x 200 (10 MB) 0.35 ms against 0.17 ms, of 100 x 2000 up to 1.7 (float64).
_STREAMED, _SHORTEST_STREAMED, _LONGEST_STREAMED = 24 << 20, 64, 600
# An outer product with shorter rows is faster as a loop, since `np.multiply` then buffers its sides, 8192 elements at a
# time: 300 x 2400 took 243 us against 597 us, 300 x 3000 341 us against 181 us (float64).
_LONG_ROW = 8192 // 3


class CpuBackend:
    """Runs steps with numpy, half precision in float32."""

    name = "cpu"

    def asarray(self, operand: object) -> Array:
        """numpy's view of an operand: an array, a number, nested lists, or whatever offers DLPack."""
        if type(operand) is np.ndarray:
            return operand
        if hasattr(operand, "__dlpack__") and not hasattr(operand, "__array__"):
            return np.from_dlpack(operand)
        array = np.asarray(operand)
        is_wrapped = array.dtype == object and array.ndim == 0 and not isinstance(operand, np.ndarray)
        if is_wrapped and (hasattr(operand, "shape") or not hasattr(operand, "__mul__")):  # a sparse matrix; None
            convert = ": convert it first (x.toarray())" if hasattr(operand, "toarray") else ""
            raise OperandError(f"a {type(operand).__name__} is no array of numbers{convert}")
        return array

    def compute_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """The dtype to run a plan in when the result is to have this one."""
        return _compute_dtype(dtype)

    def bind(self, plan: Plan, precision: str | None = None) -> Callable[..., tuple[Array, ...]]:
        """A plan as a function of its operands."""
        return execute.bind(plan, self, precision)

    def bind_single(self, plan: Plan, precision: str | None = None) -> Callable[..., Array]:
        """A plan of one output as a function of its operands."""
        return execute.bind_single(plan, self, precision)

    def prepare(self, step: Step, sizes: Sizes, dtype: str, precision: str | None = None) -> Callable[..., Array]:
        """One step as a function of its sources. Every product here is of full precision, whatever is asked."""
        if 0 in (points(step.summed, sizes), points(step.out, sizes)) and not step.is_view(sizes):
            # numpy's C loop reads an empty operand if its stride is 0 (`ij,j->i` is 0 times what lies there), and
            # writes behind an empty result of long doubles.
            shape = tuple(sizes[label] for label in step.out)
            return lambda *sources: np.zeros(shape, np.dtype(dtype))
        match step:
            case Contract():
                call: Callable[..., Array] = _contract(step, sizes, dtype)
                if dtype.startswith("complex") or dtype == "object":
                    call = _conjugated(step, sizes, call)
            case Reduce():
                call = _reduce(step, sizes, dtype)
            case Expand():
                call = _expand(step, sizes)
            case Add():
                call = _add(step, sizes, dtype)
            case Fused():
                call = partial(_c_loop, step.equation)
        return call if dtype != "object" else lambda *sources: _boxed(call(*sources), len(step.out))

    def context(self) -> None:
        """What an array that is kept can be used with only: nothing in particular."""

    def arrange(self, result: Array, order: str) -> Array:
        """`result` in C or F order, copied only if it is not."""
        return np.asarray(result, order=order)  # type: ignore[call-overload,no-any-return]  # order is 'C' or 'F' by now

    def store(self, result: Array, out: Array) -> None:
        """Write `result` into `out`; the cast was checked at the door."""
        np.copyto(out, result, casting="unsafe")

    def memory_bytes(self) -> int:
        """Bytes of memory of this machine, or those that its control group may take if they are fewer."""
        limit = Path("/sys/fs/cgroup/memory.max")
        text = limit.read_text().strip() if limit.exists() else "max"
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return min(memory, int(text)) if text.isdecimal() else memory

    def hand_back(self, result: Array, stays: bool) -> Any:
        """The result as the caller gets it: numpy's functions return a 0-d result as a scalar."""
        return result[()] if result.ndim == 0 else result


@cache
def _compute_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float32) if dtype.name in ("float16", "bfloat16") else dtype


def _boxed(result: Any, dimensions: int) -> Array:
    """An array of objects; where it has no axes, numpy hands out the bare object."""
    if dimensions or (isinstance(result, np.ndarray) and result.ndim == 0):
        return result  # type: ignore[no-any-return]  # an array, as it has axes
    box = np.empty(1, object)
    box[0] = result
    return box.reshape(())


def _contract(step: Contract, sizes: Sizes, dtype: str) -> Callable[[Array, Array], Array]:
    equation = _in_letters(step.equation)
    if equation is None:
        return matmul(step, sizes) if step.summed else _multiply(step)
    rows, columns, middle = (points(labels, sizes) for labels in (step.left, step.right, step.summed))
    is_dot = rows == columns == 1
    loop = partial(_c_loop, equation)
    if not step.summed:
        row = columns if step.out.endswith(step.right) else rows
        is_outer = not step.batch and not is_dot and dtype in _REAL_BLAS_DTYPES
        return loop if is_outer and row < _LONG_ROW else _multiply(step)
    if dtype == "bool" or (dtype in _BLAS_DTYPES and min(rows, columns) > 1) or (is_dot and not step.batch):
        return matmul(step, sizes)
    if dtype not in _BLAS_DTYPES:
        return loop
    if is_dot:
        return _dots(step, sizes, loop) if dtype in _REAL_BLAS_DTYPES and middle >= _LONG_DOT else loop
    lengths = rows * columns, middle  # of a matrix times a vector, since rows or columns are one
    if math.prod(lengths) < _SMALL_MATRIX:
        return loop
    product = matmul(step, sizes)
    size = points(step.batch, sizes) * math.prod(lengths) * np.dtype(dtype).itemsize
    if size <= CACHED:
        return product
    is_streamed = min(lengths) >= _SHORTEST_STREAMED and max(lengths) <= _LONGEST_STREAMED and size > _STREAMED
    if step.batch and is_streamed and dtype in _REAL_BLAS_DTYPES:
        return loop
    x_fuses = fuses(step.lhs_term, (step.left, step.summed), sizes)
    y_fuses = fuses(step.rhs_term, (step.summed, step.right), sizes)
    return lambda x, y: (product if x_fuses(x) and y_fuses(y) else loop)(x, y)


def _conjugated(
    step: Contract, sizes: Sizes, contract: Callable[[Array, Array], Array]
) -> Callable[[Array, Array], Array]:
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


def _dots(step: Contract, sizes: Sizes, loop: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """A batch of long dots: BLAS's where both sides are contiguous along the sum; other labels are of size 1."""
    batch = "".join(label for label in step.out if label in step.batch)
    x_axes = axes_of(step.lhs_term, step.left + batch + step.summed)
    y_axes = axes_of(step.rhs_term, step.right + batch + step.summed)
    x_index, y_index = (0,) * len(step.left), (0,) * len(step.right)
    shape = tuple(sizes[label] for label in step.out)

    def dots(x: Array, y: Array) -> Array:
        u, v = x.transpose(x_axes)[x_index], y.transpose(y_axes)[y_index]
        is_row = len(step.summed) == 1 and u.strides[-1] == v.strides[-1] == x.itemsize
        return np.vecdot(u, v).reshape(shape) if is_row else loop(x, y)

    return dots


def _multiply(step: Contract) -> Callable[[Array, Array], Array]:
    """A product with nothing to sum: each side is viewed with the result's axes, of size 1 where it lacks them."""
    x_axes = axes_of(step.lhs_term, [label for label in step.out if label in step.lhs_term])
    y_axes = axes_of(step.rhs_term, [label for label in step.out if label in step.rhs_term])
    x_index = (*(slice(None) if label in step.lhs_term else None for label in step.out), ...)  # 0-d stays an array
    y_index = (*(slice(None) if label in step.rhs_term else None for label in step.out), ...)
    return lambda x, y: np.multiply(x.transpose(x_axes)[x_index], y.transpose(y_axes)[y_index])


def _reduce(step: Reduce, sizes: Sizes, dtype: str) -> Callable[[Array], Array]:
    """A view if nothing is summed, or only labels of size 1; else one sum over the diagonal view."""
    summed, out = step.summed, step.out
    if points(summed, sizes) == 1:
        first = (0,) * len(summed)
        view = _in_letters(f"{step.term}->{summed}{out}")
        if view is None:
            return lambda x: diagonal_view(x, step.term, summed + out)[first]
        return (lambda x: _c_loop(view, x)[first]) if first else partial(_c_loop, view)
    if dtype != "bool" and not out and len(step.term) == 2 and len(summed) == 1:  # a trace: 13 us against 19 us
        kept = np.dtype(dtype)  # (float32, 4000 x 4000)
        return lambda x: np.add.reduce(x.diagonal(), 0, kept)
    equation = _in_letters(step.equation)
    if equation is not None:
        return partial(_c_loop, equation)
    add = np.logical_or if dtype == "bool" else np.add
    axes = tuple(range(len(summed)))
    return lambda x: add.reduce(diagonal_view(x, step.term, summed + out), axis=axes, dtype=x.dtype)


def _expand(step: Expand, sizes: Sizes) -> Callable[[Array], Array]:
    """A view if only labels of size 1 are gained; else zeros, and the source written through the diagonal view."""
    if step.is_view(sizes):
        order = axes_of(step.term, [label for label in step.out if label in step.term])
        places = tuple(slice(None) if label in step.term else None for label in step.out)
        return lambda x: x.transpose(order)[(*places, ...)]
    shape = tuple(sizes[label] for label in step.out)
    diagonal = distinct(step.out)
    axes = axes_of(step.term, [label for label in diagonal if label in step.term])
    index = tuple(slice(None) if label in step.term else None for label in diagonal)

    def expand(x: Array) -> Array:
        out = np.zeros(shape, x.dtype)
        diagonal_view(out, step.out, diagonal)[...] = x.transpose(axes)[index]
        return out

    return expand


def _add(step: Add, sizes: Sizes, dtype: str) -> Callable[..., Array]:
    shape, kind = tuple(sizes[label] for label in step.out), np.dtype(dtype)

    def add(*arrays: Array) -> Array:
        if len(arrays) < 2:
            return arrays[0].copy() if arrays else np.zeros(shape, kind)
        total: Array = np.add(arrays[0], arrays[1], out=np.empty_like(arrays[0]))
        for array in arrays[2:]:
            total += array
        return total

    return add


def diagonal_view(x: Array, term: Term, out: Term) -> Array:
    """`x` seen along `out`, which names each label of `term` once: a repeated label walks the diagonal."""
    strides = label_strides(term, x.strides)
    size = dict(zip(term, x.shape, strict=True))
    return as_strided(x, [size[label] for label in out], [strides[label] for label in out])


def _in_letters(equation: str) -> str | None:
    """The equation in the 52 letters that `np.einsum` knows, or None if it needs more."""
    labels = dict.fromkeys(c for c in equation if c not in ",->")
    if len(labels) > len(string.ascii_letters):
        return None
    return equation.translate({ord(x): y for x, y in zip(labels, string.ascii_letters, strict=False)})
