"""From a schedule to a program: every step as cuBLAS calls, kernels and views, on memories that are known by number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, assert_never

from gpueinsum.backends.cuda import contraction, copies, sums
from gpueinsum.backends.cuda.geometry import Source, conjugated_bits
from gpueinsum.backends.cuda.program import Address, Launch, Output, Product, Program, Span, Work
from gpueinsum.backends.cuda.source import MAX_OPERANDS
from gpueinsum.backends.cuda.workspace import places
from gpueinsum.costs.counts import item_bytes
from gpueinsum.language.steps import within
from gpueinsum.language.strides import points
from gpueinsum.language.subscripts import Term
from gpueinsum.schedule.candidate import Blocks, Matmul, Pass, Scatter, Sum, View, Zeros
from gpueinsum.schedule.gemm import LHS, OUT, POINTER_BYTES, RHS, SINGLE, blas_calls
from gpueinsum.schedule.gemm import Product as Products
from gpueinsum.schedule.mapping import Gemm
from gpueinsum.schedule.problem import Strides, axis_labels, c_strides
from gpueinsum.schedule.schedule import Schedule, ScheduledStep
from gpueinsum.schedule.tiled import Tiled


class _Strided(NamedTuple):
    """An array to be: the memory it begins, and its strides in elements."""

    memory: int
    strides: Strides


def assemble(schedule: Schedule, processors: int | None = None) -> Program:
    """The program of a schedule on a device of so many multiprocessors, by default those of the schedule's profile.

    It counts on `Program.packed_operands` beginning at multiples of 16 bytes.
    """
    item, operands = item_bytes(schedule.dtype), len(schedule.inputs)
    owners = schedule.owners()
    results = {owners[register] for register in schedule.outputs}
    assembly = _Assembly(schedule, processors or schedule.profile.processors)
    registers, ends = [_Strided(number, own) for number, own in enumerate(schedule.strides)], list[int]()
    for register, step in enumerate(schedule.steps, operands):
        registers.append(assembly.step(step, [registers[source] for source in step.sources], register in results))
        ends.append(assembly.launches)
    size = dict(schedule.sizes)
    inputs = zip(schedule.inputs, schedule.strides, strict=True)
    spans = tuple([_span([size[label] for label in term], own, item) for term, own in inputs])
    return assembly.program(spans, [registers[register] for register in schedule.outputs], tuple(ends))


def _span(shape: Sequence[int], strides: Strides, item: int) -> Span:
    if 0 in shape:
        return Span(0, 0, 0)
    ends = [(size - 1) * stride for size, stride in zip(shape, strides, strict=True)]
    before = -sum(end for end in ends if end < 0)
    reach = before + sum(end for end in ends if end > 0) + 1
    return Span(before * item, reach * item, math.prod(shape) * item)


class _Assembly:
    """The work so far, on memories by number: operands first, then others as they come."""

    def __init__(self, schedule: Schedule, processors: int) -> None:
        self._schedule, self._precision, self._processors = schedule, schedule.precision, processors
        self._size, self._dtype = dict(schedule.sizes), schedule.dtype
        self._has_single, self._lacks = schedule.profile.has(SINGLE, schedule.dtype), schedule.profile.lacks
        self._work: list[Work] = []
        self._bytes = [0] * len(schedule.inputs)
        self._results: list[int] = []  # memories that become outputs

    def step(self, step: ScheduledStep, sources: Sequence[_Strided], is_result: bool) -> _Strided:
        """Add the step's work; its result has memory that outlives the program if it `is_result`, unless a view."""
        way = step.taken.way
        if isinstance(way, View):
            return _Strided(sources[0].memory, step.taken.strides)
        made = _Strided(self._memory(points(step.out, self._size) * item_bytes(self._dtype)), step.taken.strides)
        if is_result:
            self._results.append(made.memory)
        if not self._bytes[made.memory]:
            return made
        read = [
            (Source(term, array.strides, mark), array)
            for term, array, mark in zip(step.terms, sources, step.conjugated, strict=True)
        ]
        match way:
            case Zeros():
                self._zeros(made)
            case Pass():
                factors = [
                    pair if term is None else self._copy(*pair, term)
                    for pair, term in zip(read, way.copies or [None] * len(read), strict=True)
                ]
                self._sum(factors, within(way.loops, step.out), made)
            case Gemm():
                self._gemm(way, read, made)
            case Tiled():
                self._tiled(way, read, made)
            case Scatter():
                [term], [source] = step.terms, sources
                launch = copies.expand(term, step.out, source.strides, self._size, self._dtype, self._processors)
                self._launch(launch, source.memory, made.memory)
            case Sum():
                self._add(step.out, sources, made)
            case Matmul() | Blocks():
                raise AssertionError("only the CPU is offered such a way")
            case _:
                assert_never(way)
        return made

    @property
    def launches(self) -> int:
        """How many there are so far."""
        return len(self._work)

    def program(self, operands: tuple[Span, ...], outputs: Sequence[_Strided], ends: tuple[int, ...]) -> Program:
        """The work with each memory at its place."""
        item, results = item_bytes(self._dtype), [*dict.fromkeys(self._results)]
        place, workspace = places(self._work, len(operands), results, self._bytes)

        def placed(address: Address) -> Address:
            memory, start = place[address.memory]
            return Address(memory, start + address.offset)

        work = tuple([replace(each, addresses=tuple(map(placed, each.addresses))) for each in self._work])
        shapes = [
            tuple([self._size[label] for label in self._schedule.term(register)]) for register in self._schedule.outputs
        ]
        arrays = [
            Output(place[made.memory].memory, shape, tuple([x * item for x in made.strides]))
            for shape, made in zip(shapes, outputs, strict=True)
        ]
        kept = tuple([self._bytes[memory] for memory in results])
        return Program(work, operands, kept, workspace, tuple(arrays), self._dtype, ends)

    # ------------------------------------------------------------ ways

    def _zeros(self, made: _Strided) -> None:
        zeros = sums.zeros(self._bytes[made.memory] // item_bytes(self._dtype), self._dtype, self._processors)
        self._launch(zeros, made.memory, made.memory)

    def _add(self, out: Term, arrays: Sequence[_Strided], total: _Strided) -> None:
        """As many arrays at once as a kernel takes."""
        if not arrays:
            self._zeros(total)
            return
        term, size = axis_labels(out, self._size)
        layout = "".join(sorted(term, key=lambda axis: -total.strides[term.index(axis)]))
        sizes = tuple((axis, size[axis]) for axis in layout)
        if len(arrays) == 1:
            source = (Source(term, arrays[0].strides),)
            copy = sums.sum_products(source, layout, sizes, self._dtype, self._processors, self._lacks).first
            self._launch(copy, arrays[0].memory, total.memory)
            return
        waiting = list(arrays)
        while waiting:
            first, waiting = waiting[:MAX_OPERANDS], waiting[MAX_OPERANDS:]
            sources = tuple([Source(term, array.strides) for array in first])
            launch = copies.add(sources, layout, sizes, self._dtype, self._processors)
            self._launch(launch, *[array.memory for array in first], total.memory)
            if waiting:
                waiting.insert(0, total)

    def _gemm(self, way: Gemm, read: Sequence[tuple[Source, _Strided]], made: _Strided) -> None:
        """Copies first, of the conjugates where a side is conjugated, and then the products."""
        sides = [
            array if term is None else self._copy(source, array, term)[1]
            for (source, array), term in zip(read, way.copies, strict=True)
        ]
        item, product = item_bytes(self._dtype), way.product
        arrays = [Address(memory, 0) for memory in (*[side.memory for side in sides], made.memory)]
        if product.pointers:
            self._products(way, self._pointers(product, arrays), POINTER_BYTES, arrays)
        else:
            self._products(way, arrays, item)

    def _tiled(self, way: Tiled, read: Sequence[tuple[Source, _Strided]], made: _Strided) -> None:
        sources = read[::-1] if way.swapped else read
        marks = conjugated_bits([source for source, _ in sources])
        outputs = self._bytes[made.memory] // item_bytes(self._dtype)
        launches = contraction.multiply(way, marks, outputs, self._processors, self._lacks)
        self._launch_both(launches, [array.memory for _, array in sources], made)

    def _copy(self, source: Source, array: _Strided, term: Term) -> tuple[Source, _Strided]:
        """A copy of an array, of its conjugate where that is asked, in C order of the term."""
        copy = _Strided(self._memory(points(term, self._size) * item_bytes(self._dtype)), c_strides(term, self._size))
        self._sum([(source, array)], term, copy)
        return Source(term, copy.strides), copy

    def _products(self, way: Gemm, arrays: Sequence[Address], item: int, matrices: Sequence[Address] = ()) -> None:
        """cuBLAS calls on lhs, rhs and out, of elements of so many bytes; or on arrays of pointers to `matrices`."""
        for call in blas_calls(way.product):
            sides = (RHS, LHS, OUT) if call.swapped else (LHS, RHS, OUT)
            begins = _move(arrays, call.starts, item)
            addresses = tuple([array[side] for array in (begins, matrices) if array for side in sides])
            is_single = call.gemm.batch == 1 and not (matrices or way.as_batch) and self._has_single
            self._work.append(Product(call.gemm, self._dtype, self._precision, addresses, bool(matrices), is_single))

    def _pointers(self, product: Products, arrays: Sequence[Address]) -> list[Address]:
        """Three arrays of pointers: to the matrices of lhs, of rhs and of out."""
        nbytes = product.calls * product.slots * POINTER_BYTES
        pointers = Address(self._memory(len(arrays) * nbytes), 0)
        launch = copies.pointers(product, item_bytes(self._dtype), self._processors)
        self._work.append(launch.at(*arrays, pointers))
        return _move([pointers] * len(arrays), range(len(arrays)), nbytes)

    def _sum(self, factors: Sequence[tuple[Source, _Strided]], out: Term, made: _Strided) -> None:
        """`terms->out` in one pass, C-ordered: diagonals, products, sum and permutation, of conjugates where asked."""
        sources = tuple([source for source, _ in factors])
        labels = dict.fromkeys("".join([source.term for source in sources]) + out)
        sizes = tuple([(label, self._size[label]) for label in labels])
        launches = sums.sum_products(sources, out, sizes, self._dtype, self._processors, self._lacks)
        self._launch_both(launches, [array.memory for _, array in factors], made)

    def _launch_both(self, launches: sums.Sum, read: Sequence[int], made: _Strided) -> None:
        """The launch that reads these memories, and the one that adds up the parts that it made, if it did."""
        if launches.second is None:
            self._launch(launches.first, *read, made.memory)
        else:
            parts = self._memory(launches.scratch)
            self._launch(launches.first, *read, parts)
            self._launch(launches.second, parts, made.memory)

    def _launch(self, launch: Launch, *memories: int) -> None:
        """The launch on whole memories."""
        self._work.append(launch.at(*[Address(memory, 0) for memory in memories]))

    def _memory(self, nbytes: int) -> int:
        self._bytes.append(nbytes)
        return len(self._bytes) - 1


def _move(addresses: Sequence[Address], by: Sequence[int], item: int) -> list[Address]:
    """Each address that many elements further on, of so many bytes."""
    return [Address(at.memory, at.offset + number * item) for at, number in zip(addresses, by, strict=True)]
