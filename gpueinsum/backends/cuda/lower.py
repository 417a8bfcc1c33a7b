"""From a plan and its operands' strides to a draft: every step as products, kernels and views, without any array."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from gpueinsum.backends.cuda import kernels as tasks
from gpueinsum.backends.cuda.draft import Draft
from gpueinsum.backends.cuda.kernels import THREADS, Source, Task
from gpueinsum.backends.cuda.program import Address, Launch, Output, PointerProduct, Product, Span, Work
from gpueinsum.backends.cuda.source import MAX_OPERANDS
from gpueinsum.costs.counts import item_bytes
from gpueinsum.costs.profile import Profile
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Add, Contract, Expand, Fused, Reduce, Step, distinct
from gpueinsum.language.strides import contiguous, label_strides, points
from gpueinsum.language.subscripts import Label, Shape, Term, alphabet
from gpueinsum.schedule.gemm import LHS, OUT, RHS, blas_calls, pointer_calls
from gpueinsum.schedule.layouts import Chooser, route_for
from gpueinsum.schedule.mapping import Route
from gpueinsum.schedule.predict import case_of

_COMPLEX_DTYPES = {"complex64", "complex128"}
_POINTER_BYTES = 8


class _Strided(NamedTuple):
    """An array to be: the memory it begins, and its strides in elements."""

    memory: int
    strides: tuple[int, ...]


def assemble(
    plan: Plan,
    strides: Sequence[tuple[int, ...]],
    precision: str | None,
    processors: int,
    profile: Profile,
    choose: Chooser = route_for,
    aligned: bool = True,
) -> Draft:
    """The plan for operands of these strides (in bytes), on a device of so many multiprocessors with these rates.

    The ways to run its products are chosen by price, or as it is said. If `aligned`, it may count on
    `Program.packed_operands` beginning at multiples of 16 bytes.
    """
    item, owners = item_bytes(plan.dtype), plan.owners()
    results = {owners[register] for register in plan.outputs}
    assembly = _Assembly(plan, precision, processors, profile, choose, aligned)
    registers = [_Strided(number, tuple([stride // item for stride in own])) for number, own in enumerate(strides)]
    for register, step in enumerate(plan.steps, len(plan.inputs)):
        registers.append(assembly.step(step, [registers[source] for source in step.sources], register in results))
    spans = tuple([_span(plan.shape(number), own, item) for number, own in enumerate(strides)])
    return assembly.draft(spans, [registers[register] for register in plan.outputs])


def _span(shape: Shape, strides: tuple[int, ...], item: int) -> Span:
    if 0 in shape:
        return Span(0, 0, 0)
    ends = [(size - 1) * stride for size, stride in zip(shape, strides, strict=True)]
    before = -sum(end for end in ends if end < 0)
    return Span(before, before + sum(end for end in ends if end > 0) + item, math.prod(shape) * item)


class _Assembly:
    """The work so far. Memories are numbered as they come, operands first, and have their places later (`draft.py`)."""

    def __init__(
        self,
        plan: Plan,
        precision: str | None,
        processors: int,
        profile: Profile,
        choose: Chooser,
        aligned: bool,
    ) -> None:
        self._plan, self._precision, self._processors, self._profile = plan, precision, processors, profile
        self._choose, self._aligned = choose, aligned
        self._is_blas = profile.rate(plan.dtype) is not None
        self._size, self._dtype = dict(plan.sizes), plan.dtype
        self._work: list[Work] = []
        self._bytes = [0] * len(plan.inputs)
        self._results: list[int] = []  # memories that become outputs

    def step(self, step: Step, sources: Sequence[_Strided], is_result: bool) -> _Strided:
        """Add the step's work; its result has memory that outlives the program if it `is_result`, unless a view."""
        if isinstance(step, Reduce | Expand) and step.is_view(self._size):
            return self._view(step, *sources)
        before = len(self._bytes)
        match step:
            case Contract():
                made = self._contract(step, *sources)
            case Reduce():
                made = self._sum([(Source(step.term, sources[0].strides), sources[0])], step.out)
            case Expand():
                made = self._expand(step, *sources)
            case Add():
                made = self._add(step, sources)
            case Fused():
                made = self._fused(step, sources)
        assert made.memory >= before  # its own
        if is_result:
            self._results.append(made.memory)
        return made

    def draft(self, spans: tuple[Span, ...], outputs: Sequence[_Strided]) -> Draft:
        """The work, and the memories that it needs."""
        item = item_bytes(self._dtype)
        arrays = [
            Output(made.memory, self._plan.shape(register), tuple([stride * item for stride in made.strides]))
            for register, made in zip(self._plan.outputs, outputs, strict=True)
        ]
        kept = tuple(dict.fromkeys(self._results))
        return Draft(tuple(self._work), spans, tuple(self._bytes), kept, tuple(arrays), self._dtype)

    # ------------------------------------------------------------ steps

    def _view(self, step: Reduce | Expand, source: _Strided) -> _Strided:
        """The source's memory along the labels of the result; those that it gains are of size 1."""
        strides = label_strides(step.term, source.strides)
        return _Strided(source.memory, tuple([strides.get(label, 0) for label in step.out]))

    def _contract(self, step: Contract, x: _Strided, y: _Strided) -> _Strided:
        size = self._size
        if self._dtype not in _COMPLEX_DTYPES:
            step = replace(step, conj_lhs=False, conj_rhs=False)
        rows, columns, middle = (points(labels, size) for labels in (step.left, step.right, step.summed))
        lhs, rhs = Source(step.lhs_term, x.strides, step.conj_lhs), Source(step.rhs_term, y.strides, step.conj_rhs)
        sides = (lhs, x), (rhs, y)
        if middle <= 1 or rows * columns <= 1 or points(step.out, size) == 0:
            return self._sum(sides, step.out)
        aligned = self._aligned or min(x.memory, y.memory) >= len(self._plan.inputs)
        case = case_of(step, size, self._dtype, self._profile, self._precision, aligned)
        way = self._choose(case._replace(lhs=x.strides, rhs=y.strides))
        is_matrix = rows > 1 and columns > 1
        if not is_matrix and (way.copy_lhs is not None or way.copy_rhs is not None):
            return self._sum(sides, step.out)  # reads once what a copy would read and write
        if way.copy_lhs is not None:
            x = self._sum(sides[:1], way.copy_lhs)
        if way.copy_rhs is not None:
            y = self._sum(sides[1:], way.copy_rhs)
        return self._product(step, way, x, y)

    def _expand(self, step: Expand, source: _Strided) -> _Strided:
        if len(set(step.out)) == len(step.out):  # a copy that lacks some of the loops
            return self._sum([(Source(step.term, source.strides), source)], step.out)
        made = self._new(step.out)
        if self._bytes[made.memory]:
            task = tasks.expand(step, source.strides, self._size, self._dtype, self._processors)
            self._launch(task, source.memory, made.memory)
        return made

    def _add(self, step: Add, arrays: Sequence[_Strided]) -> _Strided:
        """The result lies in memory as its sources do, so that neighbours are read and written together."""
        if not arrays:
            made = self._new(step.out)
            if self._bytes[made.memory]:
                outputs = points(step.out, self._size)
                self._launch(tasks.zeros(outputs, self._dtype, self._processors), made.memory, made.memory)
            return made
        term = "".join(islice(alphabet(), len(step.out)))  # a label that repeats is two axes here
        size = {axis: self._size[label] for axis, label in zip(term, step.out, strict=True)}
        layout = _by_strides(term, arrays)
        strides = contiguous(layout, size)
        total = self._new(step.out)._replace(strides=tuple([strides[axis] for axis in term]))
        sizes = tuple((axis, size[axis]) for axis in layout)
        if not self._bytes[total.memory]:
            return total
        if len(arrays) == 1:
            source = (Source(term, arrays[0].strides),)
            copy = tasks.sum_products(source, layout, sizes, self._dtype, self._processors).first
            self._launch(copy, arrays[0].memory, total.memory)
            return total
        waiting = list(arrays)
        while waiting:
            first, waiting = waiting[:MAX_OPERANDS], waiting[MAX_OPERANDS:]
            sources = tuple([Source(term, array.strides) for array in first])
            task = tasks.add(sources, layout, sizes, self._dtype, self._processors)
            self._launch(task, *[array.memory for array in first], total.memory)
            if waiting:
                waiting.insert(0, total)
        return total

    def _fused(self, step: Fused, arrays: Sequence[_Strided]) -> _Strided:
        """In one pass, or in several where there are more arrays than a kernel takes: each leaves one array."""
        is_complex = self._dtype in _COMPLEX_DTYPES
        waiting = [
            (Source(term, array.strides, mark and is_complex), array)
            for term, array, mark in zip(step.terms, arrays, step.conjugated, strict=True)
        ]
        while len(waiting) > MAX_OPERANDS:
            first, waiting = waiting[:MAX_OPERANDS], waiting[MAX_OPERANDS:]
            needed = step.out + "".join(source.term for source, _ in waiting)
            out = "".join(label for label in distinct("".join(source.term for source, _ in first)) if label in needed)
            made = self._sum(first, out)
            waiting.insert(0, (Source(out, made.strides), made))
        return self._sum(waiting, step.out)

    # ------------------------------------------------------------ products and sums

    def _product(self, step: Contract, way: Route, x: _Strided, y: _Strided) -> _Strided:
        made = self._new(way.out)
        item = item_bytes(self._dtype)
        memories = x.memory, y.memory, made.memory

        def at(starts: Sequence[int]) -> tuple[Address, Address, Address]:
            lhs, rhs, out = (Address(m, start * item) for m, start in zip(memories, starts, strict=True))
            return lhs, rhs, out

        if way.product.pointers:
            self._by_pointers(way, memories)
        elif self._is_blas:
            for call in blas_calls(way.product):
                lhs, rhs, out = at((call.lhs, call.rhs, call.out))
                addresses = (rhs, lhs, out) if call.swapped else (lhs, rhs, out)
                self._work.append(Product(call.gemm, self._dtype, self._precision, addresses))
        else:
            roles = (way.product.batch, way.product.rows, way.product.columns, way.product.summed)
            task = tasks.integer_gemm(*roles, self._dtype, self._processors)
            for starts in way.product.offsets():
                self._work.append(Launch(task.kernel, task.blocks, THREADS, task.job, at(starts)))
        strides = dict(zip(way.out, made.strides, strict=True))
        return _Strided(made.memory, tuple([strides[label] for label in step.out]))

    def _by_pointers(self, way: Route, memories: tuple[int, int, int]) -> None:
        """Arrays of pointers to each A, B and C, one behind the other, and the calls that read a part of each."""
        axes, swapped, calls = pointer_calls(way.product)
        sides = (RHS, LHS, OUT) if swapped else (LHS, RHS, OUT)
        matrices = [memories[side] for side in sides]
        each = way.product.number * _POINTER_BYTES
        pointers = self._memory(len(sides) * each)
        task = tasks.pointers(axes, sides, item_bytes(self._dtype), self._processors)
        self._launch(task, *matrices, pointers)
        for first, gemm in calls:
            arrays = [Address(pointers, array * each + first * _POINTER_BYTES) for array in range(len(sides))]
            addresses = (*arrays, *[Address(memory, 0) for memory in matrices])
            self._work.append(PointerProduct(gemm, self._dtype, self._precision, addresses))

    def _sum(self, factors: Sequence[tuple[Source, _Strided]], out: Term) -> _Strided:
        """`terms->out` in one pass: diagonals, products, sum and permutation, of the conjugates where asked."""
        sources = tuple([source for source, _ in factors])
        made = self._new(out)
        if not self._bytes[made.memory]:
            return made
        task = tasks.sum_products(sources, out, self._sizes(*sources, out=out), self._dtype, self._processors)
        read = [array.memory for _, array in factors]
        if task.second is None:
            self._launch(task.first, *read, made.memory)
        else:
            parts = self._memory(points(out, self._size) * task.parts * item_bytes(task.wide))
            self._launch(task.first, *read, parts)
            self._launch(task.second, parts, made.memory)
        return made

    def _launch(self, task: Task, *memories: int) -> None:
        addresses = tuple([Address(memory, 0) for memory in memories])
        self._work.append(Launch(task.kernel, task.blocks, THREADS, task.job, addresses))

    # ------------------------------------------------------------ memory

    def _new(self, term: Term) -> _Strided:
        """A C-ordered array."""
        strides, step = [], 1
        for label in reversed(term):
            strides.append(step)
            step *= self._size[label]
        return _Strided(self._memory(step * item_bytes(self._dtype)), tuple(reversed(strides)))

    def _memory(self, nbytes: int) -> int:
        self._bytes.append(nbytes)
        return len(self._bytes) - 1

    def _sizes(self, *sources: Source, out: Term = "") -> tuple[tuple[Label, int], ...]:
        labels = dict.fromkeys("".join(source.term for source in sources) + out)
        return tuple([(label, self._size[label]) for label in labels])


def _by_strides(term: Term, arrays: Sequence[_Strided]) -> Term:
    """The labels of arrays of one term by their strides, outermost first; a stride of 0 leaves it to the others."""
    total = {label: sum(abs(array.strides[axis]) for array in arrays) for axis, label in enumerate(term)}
    return "".join(sorted(term, key=lambda label: -total[label]))
