"""numpy: the readable reference for every step, and the fallback where there is no GPU.

`np.matmul` on views where the pair is a matrix product and BLAS knows the type; `np.einsum`'s C loop where arithmetic
is scarce, for diagonals and sums, and for integers; a plain product where nothing is summed.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from gpueinsum.plan import Contract, Expand, Reduce, Step
from gpueinsum.subscripts import Label, Term

Array = np.ndarray[Any, Any]
Sizes = Mapping[Label, int]

_MATMUL_DTYPES = {"bool", "float32", "float64", "complex64", "complex128"}
# A smaller matrix times a vector runs faster as a loop than as a call of BLAS: batches of 4 x 4 took 0.54 ms against
# 0.83 ms, of 8 x 8 0.31 ms against 0.27 ms (float32, 400,000 elements, numpy 2.4, 2 cores).
_SMALL_MATRIX = 64


class CpuBackend:
    """Runs steps with numpy, half precision in float32."""

    name = "cpu"

    def asarray(self, operand: object) -> Array:
        """numpy's view of an operand: an array, a number, nested lists, or whatever offers DLPack."""
        if type(operand) is np.ndarray:
            return operand
        if hasattr(operand, "__dlpack__") and not hasattr(operand, "__array__"):
            return np.from_dlpack(operand)
        return np.asarray(operand)

    def compute_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """The dtype to run a plan in when the result is to have this one."""
        return _compute_dtype(dtype)

    def prepare(self, step: Step, sizes: Sizes, dtype: str, precision: str | None = None) -> Callable[..., Array]:
        """One step as a function of its sources. Every product here is of full precision, whatever is asked."""
        match step:
            case Contract():
                call: Callable[..., Array] = _contract(step, sizes, dtype)
            case Reduce():
                call = _reduce(step, sizes, dtype)
            case Expand():
                call = _expand(step, sizes)
        if dtype == "object":  # numpy hands out the bare object for a 0-d result
            return lambda *sources: np.asarray(call(*sources), dtype=object)
        return call

    def arrange(self, result: Array, order: str) -> Array:
        """`result` in C or F order, copied only if it is not."""
        return np.asarray(result, order=order)  # type: ignore[call-overload,no-any-return]  # order is 'C' or 'F' by now

    def store(self, result: Array, out: Array) -> None:
        """Write `result` into `out`; the cast was checked at the door."""
        np.copyto(out, result, casting="unsafe")

    def hand_back(self, result: Array, operands: Sequence[object]) -> Any:
        """The result as the caller gets it: numpy's functions return a 0-d result as a scalar."""
        return result[()] if result.ndim == 0 else result


@cache
def _compute_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float32) if dtype.name in ("float16", "bfloat16") else dtype


def _contract(step: Contract, sizes: Sizes, dtype: str) -> Callable[[Array, Array], Array]:
    if not step.summed:
        return _multiply(step)
    equation = _in_letters(step.equation)
    if equation is None or (dtype in _MATMUL_DTYPES and _is_matrix_product(step, sizes)):
        return _matmul(step, sizes)
    return lambda x, y: np.einsum(equation, x, y)


def _is_matrix_product(step: Contract, sizes: Sizes) -> bool:
    rows, columns = _size(step.left, sizes), _size(step.right, sizes)
    if rows == columns == 1:
        return not step.batch  # one dot is BLAS's; a batch of them is a loop
    return min(rows, columns) > 1 or rows * columns * _size(step.summed, sizes) >= _SMALL_MATRIX


def _matmul(step: Contract, sizes: Sizes) -> Callable[[Array, Array], Array]:
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
    out_axes = _axes(natural, step.out) if natural != step.out else None

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
    axes = _axes(term, order)
    shape = tuple(_size(group, sizes) for group in groups)
    if all(len(group) == 1 for group in groups):
        return None if order == term else lambda x: x.transpose(axes)
    return (lambda x: x.reshape(shape)) if order == term else (lambda x: x.transpose(axes).reshape(shape))


def _multiply(step: Contract) -> Callable[[Array, Array], Array]:
    """A product with nothing to sum: each side is viewed with the result's axes, of size 1 where it lacks them."""
    x_axes = _axes(step.lhs_term, [label for label in step.out if label in step.lhs_term])
    y_axes = _axes(step.rhs_term, [label for label in step.out if label in step.rhs_term])
    x_index = tuple(slice(None) if label in step.lhs_term else None for label in step.out)
    y_index = tuple(slice(None) if label in step.rhs_term else None for label in step.out)
    return lambda x, y: np.multiply(x.transpose(x_axes)[x_index], y.transpose(y_axes)[y_index])


def _reduce(step: Reduce, sizes: Sizes, dtype: str) -> Callable[[Array], Array]:
    """A view if nothing is summed, or only labels of size 1; else one sum over the diagonal view."""
    summed, out = step.summed, step.out
    if _size(summed, sizes) == 1:
        first = (0,) * len(summed)
        view = _in_letters(f"{step.term}->{summed}{out}")
        if view is None:
            return lambda x: diagonal_view(x, step.term, summed + out)[first]
        return lambda x: np.einsum(view, x)[first] if first else np.einsum(view, x)
    equation = _in_letters(step.equation)
    if equation is not None:
        return lambda x: np.einsum(equation, x)
    add = np.logical_or if dtype == "bool" else np.add
    axes = tuple(range(len(summed)))
    return lambda x: add.reduce(diagonal_view(x, step.term, summed + out), axis=axes, dtype=x.dtype)


def _expand(step: Expand, sizes: Sizes) -> Callable[[Array], Array]:
    """Zeros, and the source written through the diagonal view of them."""
    shape = tuple(sizes[label] for label in step.out)
    distinct = "".join(dict.fromkeys(step.out))
    axes = _axes(step.term, [label for label in distinct if label in step.term])
    index = tuple(slice(None) if label in step.term else None for label in distinct)

    def expand(x: Array) -> Array:
        out = np.zeros(shape, x.dtype)
        diagonal_view(out, step.out, distinct)[...] = x.transpose(axes)[index]
        return out

    return expand


def diagonal_view(x: Array, term: Term, out: Term) -> Array:
    """`x` seen along `out`, which names each label of `term` once: a repeated label walks the diagonal."""
    strides = dict.fromkeys(term, 0)
    for label, stride in zip(term, x.strides, strict=True):
        strides[label] += stride
    size = dict(zip(term, x.shape, strict=True))
    return as_strided(x, [size[label] for label in out], [strides[label] for label in out])


def _in_letters(equation: str) -> str | None:
    """The equation in the 52 letters that `np.einsum` knows, or None if it needs more."""
    labels = dict.fromkeys(c for c in equation if c not in ",->")
    if len(labels) > len(string.ascii_letters):
        return None
    return equation.translate({ord(x): y for x, y in zip(labels, string.ascii_letters, strict=False)})


def _axes(term: Term, order: Term | list[Label]) -> tuple[int, ...]:
    return tuple(term.index(label) for label in order)


def _size(labels: Term, sizes: Sizes) -> int:
    return math.prod(sizes[label] for label in labels)
