"""CuPy: every step as cuBLAS calls, one of our kernels, or a view; asynchronous on the current device and stream.

The GPU is reached through one small object, `Runtime`, and through nothing else, so that the tests can put a simulated
device in its place and run this whole module on a machine without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from gpueinsum import execute
from gpueinsum.axes import Axis, axes, fuse, label_strides, points
from gpueinsum.backends import HOST, on_device
from gpueinsum.backends.launch import KERNELS, Kernel, accumulator, expand_nest, nest
from gpueinsum.backends.runtime import Runtime
from gpueinsum.errors import DtypeError, OperandError
from gpueinsum.gemm import LHS, OUT, RHS, Route, blas_calls, route
from gpueinsum.plan import Plan
from gpueinsum.steps import Add, Contract, Expand, Fused, Reduce, Step
from gpueinsum.subscripts import Label, Term, alphabet

Array = Any  # CuPy's, or the simulated device's
Sizes = Mapping[Label, int]

_DTYPES = {kernel.source for kernel in KERNELS}
_COMPLEX_DTYPES = {"complex64", "complex128"}
_BLAS_DTYPES = {"float16", "bfloat16", "float32", "float64"} | _COMPLEX_DTYPES

_THREADS = 256  # of a block
_RESIDENT = 2048  # threads that one multiprocessor holds at the most
_TILE = 64  # rows and columns of a block's part of an integer product, as in kernels/integer_gemm.cu
_MANY_TERMS = 32  # from here on, threads share an output: a warp reads 32 neighbours at once


class CudaBackend:
    """Runs steps on a CUDA device."""

    name = "cuda"

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    def asarray(self, operand: object) -> Array:
        """The operand on the current device; what CUDA cannot hold is refused before it goes there."""
        if not on_device(operand):
            operand = HOST.asarray(operand)
            self.compute_dtype(operand.dtype)
            operand = operand.astype(operand.dtype.newbyteorder("="), copy=False)
        array = self.runtime.to_device(operand)
        item, address = array.dtype.itemsize, self.runtime.pointer(array)
        if address % item or any(stride % item for stride in array.strides):  # complex ones are read whole, too
            raise OperandError(f"{array.dtype} elements lie at addresses that are no multiples of {item}")
        return array

    def compute_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """The dtype itself; half precision accumulates in float32 inside each step. Raises DtypeError."""
        if dtype.name not in _DTYPES:
            raise DtypeError(f"{dtype} cannot be computed with on CUDA: convert it first, or compute on the CPU")
        return dtype

    def context(self) -> Hashable:
        return self.runtime.context()

    def memory_bytes(self) -> int:
        """What the current device has."""
        return self.runtime.memory()

    def arrange(self, result: Array, order: str) -> Array:
        return self.runtime.arrange(result, order)

    def store(self, result: Array, out: Array) -> None:
        self.runtime.store(result, out)

    def hand_back(self, result: Array, stays: bool) -> Any:
        """The result as the caller gets it: on the host again unless it `stays` on the device."""
        if stays:
            return result
        host = self.runtime.to_host(result)
        return host[()] if host.ndim == 0 else host

    def bind(self, plan: Plan, precision: str | None = None) -> Callable[..., tuple[Array, ...]]:
        """A plan as a function of its operands."""
        return execute.bind(plan, self, precision)

    def bind_single(self, plan: Plan, precision: str | None = None) -> Callable[..., Array]:
        """A plan of one output as a function of its operands."""
        return execute.bind_single(plan, self, precision)

    def prepare(self, step: Step, sizes: Sizes, dtype: str, precision: str | None = None) -> Callable[..., Array]:
        """One step as a function of its sources."""
        match step:
            case Contract():
                return self._contract(step, sizes, dtype, precision)
            case Reduce():
                return self._reduce(step, sizes, dtype)
            case Expand():
                return self._expand(step, sizes, dtype)
            case Add():
                return self._add(step, sizes, dtype)
            case Fused():
                raise AssertionError("nothing fuses yet")

    # ------------------------------------------------------------ steps

    def _contract(
        self, step: Contract, sizes: Sizes, dtype: str, precision: str | None
    ) -> Callable[[Array, Array], Array]:
        if dtype not in _COMPLEX_DTYPES:
            step = replace(step, conj_lhs=False, conj_rhs=False)
        rows, columns, middle = (points(labels, sizes) for labels in (step.left, step.right, step.summed))
        if middle <= 1 or rows * columns <= 1 or points(step.out, sizes) == 0:
            return lambda x, y: self._sum_products(step, sizes, dtype, x, y)
        blas = dtype in _BLAS_DTYPES
        is_matrix = rows > 1 and columns > 1
        step_sizes = tuple((label, sizes[label]) for label in dict.fromkeys(step.lhs_term + step.rhs_term))

        def contract(x: Array, y: Array) -> Array:
            way = route(step, step_sizes, _strides(x), _strides(y), blas)
            if not is_matrix and (way.copy_lhs is not None or way.copy_rhs is not None):
                return self._sum_products(step, sizes, dtype, x, y)  # reads once what a copy would read and write
            if way.copy_lhs is not None:
                x = self._sum(x, step.lhs_term, way.copy_lhs, sizes, dtype, step.conj_lhs)
            if way.copy_rhs is not None:
                y = self._sum(y, step.rhs_term, way.copy_rhs, sizes, dtype, step.conj_rhs)
            return self._product(step, way, sizes, dtype, precision, x, y)

        return contract

    def _reduce(self, step: Reduce, sizes: Sizes, dtype: str) -> Callable[[Array], Array]:
        if step.is_view(sizes):
            return self._view(step, sizes)
        return lambda x: self._sum(x, step.term, step.out, sizes, dtype)

    def _expand(self, step: Expand, sizes: Sizes, dtype: str) -> Callable[[Array], Array]:
        if step.is_view(sizes):
            return self._view(step, sizes)
        shape = [sizes[label] for label in step.out]
        first = [step.out.index(label) for label in step.out]

        def expand(x: Array) -> Array:
            strides = label_strides(step.term, _strides(x))
            walked = [strides.get(label, 0) if first[d] == d else 0 for d, label in enumerate(step.out)]
            out = self._empty(shape, dtype)
            if out.size:
                pointers = (self.runtime.pointer(x), self.runtime.pointer(out))
                loops = expand_nest(shape, walked, first)
                self._launch(Kernel("expand", dtype, dtype), out.size, loops, *pointers, out.size)
            return out

        return expand

    def _view(self, step: Reduce | Expand, sizes: Sizes) -> Callable[[Array], Array]:
        """The source's memory along the labels of the result; those that it gains are of size 1."""
        shape = tuple(sizes[label] for label in step.out)

        def view(x: Array) -> Array:
            strides = label_strides(step.term, x.strides)
            return self.runtime.strided(x, shape, [strides.get(label, 0) for label in step.out])

        return view

    def _add(self, step: Add, sizes: Sizes, dtype: str) -> Callable[..., Array]:
        """The result lies in memory as its sources do, so that neighbours are read and written together."""
        if not step.sources:
            return lambda: self._zeros([sizes[label] for label in step.out], dtype)
        term = "".join(islice(alphabet(), len(step.out)))  # a label that repeats is two axes here
        sizes = {axis: sizes[label] for axis, label in zip(term, step.out, strict=True)}

        def add(*arrays: Array) -> Array:
            layout = _by_strides(term, arrays)
            order = [layout.index(label) for label in term]
            first, *others = arrays
            if not others:
                return self._sum(first, term, layout, sizes, dtype).transpose(order)
            total = self._empty([sizes[label] for label in layout], dtype).transpose(order)
            for other in others:
                self._write_sum(first, other, total, term, layout, sizes, dtype)
                first = total
            return total

        return add

    # ------------------------------------------------------------ cuBLAS and the kernel that stands in for it

    def _product(
        self, step: Contract, way: Route, sizes: Sizes, dtype: str, precision: str | None, x: Array, y: Array
    ) -> Array:
        out = self._empty([sizes[label] for label in way.out], dtype)
        item = out.dtype.itemsize
        pointers = [self.runtime.pointer(array) for array in (x, y, out)]
        if dtype in _BLAS_DTYPES:
            for call in blas_calls(way.product):
                starts = (call.lhs, call.rhs, call.out)
                a, b, c = (base + start * item for base, start in zip(pointers, starts, strict=True))
                if call.swapped:
                    a, b = b, a
                self.runtime.gemm(call.gemm, dtype, a, b, c, precision)
        else:
            for starts in way.product.offsets():
                addresses = [base + start * item for base, start in zip(pointers, starts, strict=True)]
                self._integer_gemm(way, dtype, addresses)
        return out.transpose([way.out.index(label) for label in step.out])

    def _integer_gemm(self, way: Route, dtype: str, addresses: list[int]) -> None:
        batch, rows, columns, middle = (getattr(way.product, role) for role in ("batch", "rows", "columns", "summed"))
        strides = (
            *(axis.strides[LHS] for axis in (batch, rows, middle)),
            *(axis.strides[RHS] for axis in (batch, middle, columns)),
            *(axis.strides[OUT] for axis in (batch, rows, columns)),
        )
        tiles = batch.size * -(-rows.size // _TILE) * -(-columns.size // _TILE)
        arguments = (*addresses, batch.size, rows.size, columns.size, middle.size, *strides)
        self._launch(Kernel("integer_gemm", dtype, dtype), tiles * _THREADS, *arguments)

    # ------------------------------------------------------------ sums

    def _sum(self, x: Array, term: Term, out: Term, sizes: Sizes, dtype: str, conjugated: bool = False) -> Array:
        """`term->out`: diagonal, sum and permutation in one pass, of the conjugate if asked."""
        return self._sum_nest("reduce", ((x, term),), out, sizes, dtype, int(conjugated))

    def _sum_products(self, step: Contract, sizes: Sizes, dtype: str, x: Array, y: Array) -> Array:
        """A pair in one pass over its index points, without a matrix product."""
        operands = (x, step.lhs_term), (y, step.rhs_term)
        conjugated = step.conj_lhs | step.conj_rhs << 1
        return self._sum_nest("multiply_reduce", operands, step.out, sizes, dtype, conjugated)

    def _sum_nest(
        self,
        name: str,
        operands: tuple[tuple[Array, Term], ...],
        out: Term,
        sizes: Sizes,
        dtype: str,
        conjugated: int,
    ) -> Array:
        """The sum of the product of the operands, of which those are conjugated whose bits say so."""
        result = self._empty([sizes[label] for label in out], dtype)
        if result.size == 0:
            return result
        labels = dict.fromkeys("".join(term for _, term in operands))
        nested = sum_nest(
            tuple(term for _, term in operands),
            tuple(_strides(array) for array, _ in operands),
            out,
            tuple((label, sizes[label]) for label in labels),
            self.runtime.processors,
        )
        pointers = [self.runtime.pointer(array) for array, _ in operands]
        lanes, chunks = nested.lanes, nested.chunks
        arguments = (result.size, nested.terms, lanes, chunks, conjugated)
        if chunks == 1:
            pointers.append(self.runtime.pointer(result))
            self._launch(Kernel(name, dtype, dtype), result.size * lanes, nested.loops, *pointers, *arguments)
            return result
        wide = accumulator(dtype)
        partial = self._empty([result.size, chunks], wide)
        pointers.append(self.runtime.pointer(partial))
        self._launch(Kernel(name, dtype, wide), result.size * chunks * lanes, nested.loops, *pointers, *arguments)
        rest = nest([result.size], [[chunks]], [chunks], [[1]])
        lanes = min(_THREADS, _power_of_two(chunks))
        pointers = [self.runtime.pointer(array) for array in (partial, result)]
        arguments = (result.size, chunks, lanes, 1, 0)
        self._launch(Kernel("reduce", wide, dtype), result.size * lanes, rest, *pointers, *arguments)
        return result

    def _write_sum(self, x: Array, y: Array, out: Array, term: Term, layout: Term, sizes: Sizes, dtype: str) -> None:
        """`x + y` into `out`, which may be either of them; the memory of `out` is that of a C-ordered `layout`."""
        if out.size:
            along = tuple((label, sizes[label]) for label in layout)
            loops = sum_nest((term, term), (_strides(x), _strides(y)), layout, along, self.runtime.processors).loops
            pointers = [self.runtime.pointer(array) for array in (x, y, out)]
            self._launch(Kernel("add", dtype, dtype), out.size, loops, *pointers, out.size)

    def _zeros(self, shape: Sequence[int], dtype: str) -> Array:
        """A sum of no terms, which is never read."""
        out = self._empty(shape, dtype)
        if out.size:
            pointer = self.runtime.pointer(out)
            loops = nest([], [[]], [], [[]])
            self._launch(Kernel("reduce", dtype, dtype), out.size, loops, pointer, pointer, out.size, 0, 1, 1, 0)
        return out

    # ------------------------------------------------------------ the runtime

    def _empty(self, shape: Sequence[int], dtype: str) -> Array:
        return self.runtime.empty(tuple(shape), np.dtype(dtype))

    def _launch(self, kernel: Kernel, threads: int, *arguments: Any) -> None:
        """As many blocks as there is work for, up to what the device holds at once several times over."""
        blocks = min(-(-threads // _THREADS), self.runtime.processors * (_RESIDENT // _THREADS) * 4)
        self.runtime.launch(kernel, blocks, _THREADS, *arguments)


class SumNest(NamedTuple):
    """A sum as a kernel takes it: its loops, the terms of each output, the threads and the parts that share them."""

    loops: Any
    terms: int
    lanes: int
    chunks: int


@lru_cache(maxsize=4096)
def sum_nest(
    terms: tuple[Term, ...],
    strides: tuple[tuple[int, ...], ...],
    out: Term,
    sizes: tuple[tuple[Label, int], ...],
    processors: int,
) -> SumNest:
    """The loops of a sum of products of arrays with these terms and element strides, on so many multiprocessors."""
    size = dict(sizes)
    walked = [label_strides(term, steps) for term, steps in zip(terms, strides, strict=True)]
    # The first array's neighbours lie along the innermost loop; a sum does not mind the order.
    summed = sorted((label for label in size if label not in out), key=lambda label: -abs(walked[0].get(label, 0)))
    kept, inner = fuse(axes(out, size, *walked)), fuse(axes(summed, size, *walked))
    lanes, chunks = _sharing(points(out, size), points(summed, size), kept, inner, processors * _RESIDENT)
    loops = nest(*_columns(kept, len(terms)), *_columns(inner, len(terms)))
    return SumNest(loops, points(summed, size), lanes, chunks)


def _sharing(outputs: int, terms: int, kept: list[Axis], inner: list[Axis], capacity: int) -> tuple[int, int]:
    """How many threads share an output, and into how many parts its sum is cut, to fill `capacity` threads.

    Threads share an output when neighbours lie along the sum rather than along the result, so that a warp reads
    neighbours either way; sums are cut when there are too few results to fill the device.
    """
    if terms < _MANY_TERMS:
        return 1, 1
    along_sum = abs(inner[-1].strides[0]) == 1 or not kept or abs(kept[-1].strides[0]) != 1
    lanes = min(_THREADS, _power_of_two(terms)) if along_sum else 1
    idle = capacity // (outputs * lanes)
    return lanes, max(1, min(idle, terms // (lanes * _MANY_TERMS)))


def _strides(array: Array) -> tuple[int, ...]:
    """Strides in elements."""
    item = array.dtype.itemsize
    return tuple([stride // item for stride in array.strides])


def _by_strides(term: Term, arrays: Sequence[Array]) -> Term:
    """The labels of arrays of one term by their strides, outermost first; a stride of 0 leaves it to the others."""
    total = {label: sum(abs(array.strides[axis]) for array in arrays) for axis, label in enumerate(term)}
    return "".join(sorted(term, key=lambda label: -total[label]))


def _columns(loops: Sequence[Axis], arrays: int) -> tuple[list[int], list[list[int]]]:
    """Loops as `nest` takes them: their sizes, and one list of strides per array."""
    return [loop.size for loop in loops], [[loop.strides[array] for loop in loops] for array in range(arrays)]


def _power_of_two(number: int) -> int:
    """The largest power of two that is not more."""
    return 1 << (number.bit_length() - 1)
