"""From a plan and its operands' strides to a program: every step as products, kernels and views, without any array."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple, assert_never

from gpueinsum.backends.cuda import kernels
from gpueinsum.backends.cuda.kernels import Source
from gpueinsum.backends.cuda.program import Address, Launch, Output, Product, Program, Span, Work
from gpueinsum.backends.cuda.source import MAX_OPERANDS
from gpueinsum.backends.cuda.workspace import places
from gpueinsum.costs.counts import item_bytes
from gpueinsum.costs.profile import Profile
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Add, Contract, Expand, Fused, Reduce, Step, distinct
from gpueinsum.language.strides import Axis, contiguous, label_strides, points
from gpueinsum.language.subscripts import Shape, Term, alphabet
from gpueinsum.schedule.gemm import LHS, OUT, RHS, Call, blas_calls
from gpueinsum.schedule.layouts import Chooser, route_for
from gpueinsum.schedule.mapping import Route
from gpueinsum.schedule.predict import case_of

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
) -> Program:
    """The plan for operands of these strides (in bytes), on a device of so many multiprocessors with these rates.

    `choose` says what each product copies first: by default what the price says. If `aligned`, the program counts on
    `Program.packed_operands` beginning at multiples of 16 bytes.
    """
    item, owners = item_bytes(plan.dtype), plan.owners()
    results = {owners[register] for register in plan.outputs}
    assembly = _Assembly(plan, precision, processors, profile, choose, aligned)
    registers = [_Strided(number, tuple([stride // item for stride in own])) for number, own in enumerate(strides)]
    for register, step in enumerate(plan.steps, len(plan.inputs)):
        registers.append(assembly.step(step, [registers[source] for source in step.sources], register in results))
    spans = tuple([_span(plan.shape(number), own, item) for number, own in enumerate(strides)])
    return assembly.program(spans, [registers[register] for register in plan.outputs])


def _span(shape: Shape, strides: tuple[int, ...], item: int) -> Span:
    if 0 in shape:
        return Span(0, 0, 0)
    ends = [(size - 1) * stride for size, stride in zip(shape, strides, strict=True)]
    before = -sum(end for end in ends if end < 0)
    return Span(before, before + sum(end for end in ends if end > 0) + item, math.prod(shape) * item)


class _Assembly:
    """The work so far, on memories by number: operands first, then others as they come."""

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
        self._is_blas, self._is_complex = profile.rate(plan.dtype) is not None, plan.dtype.startswith("complex")
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
            case _:
                assert_never(step)
        assert made.memory >= before  # its own
        if is_result:
            self._results.append(made.memory)
        return made

    def program(self, operands: tuple[Span, ...], outputs: Sequence[_Strided]) -> Program:
        """The work with each memory at its place."""
        item, results = item_bytes(self._dtype), [*dict.fromkeys(self._results)]
        place, workspace = places(self._work, len(operands), results, self._bytes)

        def placed(address: Address) -> Address:
            memory, start = place[address.memory]
            return Address(memory, start + address.offset)

        work = tuple([replace(each, addresses=tuple(map(placed, each.addresses))) for each in self._work])
        arrays = [
            Output(place[made.memory].memory, self._plan.shape(register), tuple([step * item for step in made.strides]))
            for register, made in zip(self._plan.outputs, outputs, strict=True)
        ]
        kept = tuple([self._bytes[memory] for memory in results])
        return Program(work, operands, kept, workspace, tuple(arrays), self._dtype)

    # ------------------------------------------------------------ steps

    def _view(self, step: Reduce | Expand, source: _Strided) -> _Strided:
        """The source's memory along the labels of the result; those that it gains are of size 1."""
        strides = label_strides(step.term, source.strides)
        return _Strided(source.memory, tuple([strides.get(label, 0) for label in step.out]))

    def _contract(self, step: Contract, x: _Strided, y: _Strided) -> _Strided:
        size = self._size
        if not self._is_complex:
            step = replace(step, conj_lhs=False, conj_rhs=False)
        rows, columns, middle = (points(labels, size) for labels in (step.left, step.right, step.summed))
        lhs, rhs = Source(step.lhs_term, x.strides, step.conj_lhs), Source(step.rhs_term, y.strides, step.conj_rhs)
        sides = (lhs, x), (rhs, y)
        if middle <= 1 or rows * columns <= 1 or points(step.out, size) == 0:
            return self._sum(sides, step.out)
        aligned = self._aligned or min(x.memory, y.memory) >= len(self._plan.inputs)
        case = case_of(step, size, self._dtype, self._profile, self._precision, aligned)
        route = self._choose(case._replace(lhs=x.strides, rhs=y.strides))
        is_matrix = rows > 1 and columns > 1
        if not is_matrix and (route.copy_lhs is not None or route.copy_rhs is not None):
            return self._sum(sides, step.out)  # reads once what a copy would read and write
        if route.copy_lhs is not None:
            x = self._sum(sides[:1], route.copy_lhs)
        if route.copy_rhs is not None:
            y = self._sum(sides[1:], route.copy_rhs)
        return self._product(step, route, x, y)

    def _expand(self, step: Expand, source: _Strided) -> _Strided:
        if len(set(step.out)) == len(step.out):  # a copy that lacks some of the loops
            return self._sum([(Source(step.term, source.strides), source)], step.out)
        made = self._new(step.out)
        if self._bytes[made.memory]:
            launch = kernels.expand(step, source.strides, self._size, self._dtype, self._processors)
            self._launch(launch, source.memory, made.memory)
        return made

    def _add(self, step: Add, arrays: Sequence[_Strided]) -> _Strided:
        """The result lies in memory as its sources do, so that neighbours are read and written together."""
        if not arrays:
            made = self._new(step.out)
            if self._bytes[made.memory]:
                zeros = kernels.zeros(points(step.out, self._size), self._dtype, self._processors)
                self._launch(zeros, made.memory, made.memory)
            return made
        term, shape = _axes(len(step.out)), self._shape(step.out)
        size, layout = dict(zip(term, shape, strict=True)), _by_strides(term, arrays)
        strides = contiguous(layout, size)
        total = self._new(step.out)._replace(strides=tuple([strides[axis] for axis in term]))
        sizes = tuple((axis, size[axis]) for axis in layout)
        if not self._bytes[total.memory]:
            return total
        if len(arrays) == 1:
            source = (Source(term, arrays[0].strides),)
            copy = kernels.sum_products(source, layout, sizes, self._dtype, self._processors).first
            self._launch(copy, arrays[0].memory, total.memory)
            return total
        waiting = list(arrays)
        while waiting:
            first, waiting = waiting[:MAX_OPERANDS], waiting[MAX_OPERANDS:]
            sources = tuple([Source(term, array.strides) for array in first])
            launch = kernels.add(sources, layout, sizes, self._dtype, self._processors)
            self._launch(launch, *[array.memory for array in first], total.memory)
            if waiting:
                waiting.insert(0, total)
        return total

    def _fused(self, step: Fused, arrays: Sequence[_Strided]) -> _Strided:
        """In one pass, or in several where there are more arrays than a kernel takes: each leaves one array."""
        waiting = [
            (Source(term, array.strides, mark and self._is_complex), array)
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

    def _product(self, step: Contract, route: Route, x: _Strided, y: _Strided) -> _Strided:
        """The matrix products of a pair whose sides are copied already."""
        made, product, item = self._new(route.out), route.product, item_bytes(self._dtype)
        arrays = [Address(memory, 0) for memory in (x.memory, y.memory, made.memory)]
        if not self._is_blas:
            axes = product.batch, product.rows, product.columns, product.summed
            launch = kernels.integer_gemm(*axes, self._dtype, self._processors)
            for starts in product.offsets():
                self._work.append(launch.at(*_move(arrays, starts, item)))
        elif product.pointers:
            self._products(blas_calls(product), self._pointers(product.numbered, arrays), _POINTER_BYTES, arrays)
        else:
            self._products(blas_calls(product), arrays, item)
        strides = dict(zip(route.out, made.strides, strict=True))
        return _Strided(made.memory, tuple([strides[label] for label in step.out]))

    def _products(
        self, calls: Iterable[Call], arrays: Sequence[Address], item: int, matrices: Sequence[Address] = ()
    ) -> None:
        """cuBLAS calls on lhs, rhs and out, of elements of so many bytes; or on arrays of pointers to `matrices`."""
        for call in calls:
            sides = (RHS, LHS, OUT) if call.swapped else (LHS, RHS, OUT)
            begins = _move(arrays, call.starts, item)
            addresses = [array[side] for array in (begins, matrices) if array for side in sides]
            work = Product(call.gemm, self._dtype, self._precision, tuple(addresses), by_pointers=bool(matrices))
            self._work.append(work)

    def _pointers(self, axes: Sequence[Axis], arrays: Sequence[Address]) -> list[Address]:
        """Three arrays of pointers: to the matrices of lhs, of rhs and of out, which are numbered along these axes."""
        each = math.prod([axis.size for axis in axes]) * _POINTER_BYTES
        pointers = Address(self._memory(len(arrays) * each), 0)
        launch = kernels.pointers(axes, item_bytes(self._dtype), self._processors)
        self._work.append(launch.at(*arrays, pointers))
        return _move([pointers] * len(arrays), range(len(arrays)), each)

    def _sum(self, factors: Sequence[tuple[Source, _Strided]], out: Term) -> _Strided:
        """`terms->out` in one pass: diagonals, products, sum and permutation, of the conjugates where asked."""
        sources = tuple([source for source, _ in factors])
        made = self._new(out)
        if not self._bytes[made.memory]:
            return made
        labels = dict.fromkeys("".join([source.term for source in sources]) + out)
        sizes = tuple([(label, self._size[label]) for label in labels])
        launches = kernels.sum_products(sources, out, sizes, self._dtype, self._processors)
        read = [array.memory for _, array in factors]
        if launches.second is None:
            self._launch(launches.first, *read, made.memory)
        else:
            parts = self._memory(launches.scratch)
            self._launch(launches.first, *read, parts)
            self._launch(launches.second, parts, made.memory)
        return made

    def _launch(self, launch: Launch, *memories: int) -> None:
        """The launch on whole memories."""
        self._work.append(launch.at(*[Address(memory, 0) for memory in memories]))

    # ------------------------------------------------------------ memory

    def _new(self, term: Term) -> _Strided:
        """A C-ordered array."""
        memory = self._memory(points(term, self._size) * item_bytes(self._dtype))
        return _Strided(memory, c_ordered(self._shape(term)))

    def _shape(self, term: Term) -> Shape:
        return tuple([self._size[label] for label in term])

    def _memory(self, nbytes: int) -> int:
        self._bytes.append(nbytes)
        return len(self._bytes) - 1


def c_ordered(shape: Shape) -> tuple[int, ...]:
    """The strides of a C-ordered array, in elements."""
    axes = _axes(len(shape))
    strides = contiguous(axes, dict(zip(axes, shape, strict=True)))
    return tuple([strides[axis] for axis in axes])


def _axes(number: int) -> Term:
    """A label for each of so many axes: a label that repeats in a term is two axes."""
    return "".join(islice(alphabet(), number))


def _move(addresses: Sequence[Address], by: Sequence[int], item: int) -> list[Address]:
    """Each address that many elements further on, of so many bytes."""
    return [Address(at.memory, at.offset + number * item) for at, number in zip(addresses, by, strict=True)]


def _by_strides(term: Term, arrays: Sequence[_Strided]) -> Term:
    """The labels of arrays of one term by their strides, outermost first; a stride of 0 leaves it to the others."""
    total = {label: sum(abs(array.strides[axis]) for array in arrays) for axis, label in enumerate(term)}
    return "".join(sorted(term, key=lambda label: -total[label]))
