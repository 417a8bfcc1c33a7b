"""Plans with sliced labels, run slice by slice, on any backend: by its own binding of plans that have none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from gpueinsum.backends.base import PLAIN, Array, Backend, Mode
from gpueinsum.language.plan import Plan
from gpueinsum.language.slices import cut
from gpueinsum.language.subscripts import Label, Term
from gpueinsum.progress import track

Place = Mapping[Label, int | slice]  # the values of sliced labels in one slice


class BoundSlices:
    """A plan with sliced labels on a backend: what is computed before the slices, what each adds, what comes out.

    Sums of halves are made in float32.
    """

    def __init__(self, plan: Plan, backend: Backend, mode: Mode = PLAIN) -> None:
        self.plan, self.slices = plan, cut(plan)
        self._backend, self._memory, self._dtype = backend, mode.memory, np.dtype(plan.dtype)
        self.zeros = backend.bind(self.slices.zeros, mode._replace(graph=False))
        self._once = backend.bind(self.slices.once, mode._replace(graph=False))
        self._mode, self._each = mode, lru_cache(maxsize=None)(self._bind)

    def _bind(self, *lengths: int) -> Callable[..., tuple[Array, ...]]:
        """What runs a slice whose blocks have these lengths."""
        plan = self.slices.of_lengths(*lengths)
        return BoundSlices(plan, self._backend, self._mode).run if plan.sliced else self._backend.bind(plan, self._mode)

    def run(self, *given: Array) -> tuple[Array, ...]:
        """The plan's outputs."""
        return self.run_slices(range(self.slices.count), *given)

    def run_slices(self, numbers: Iterable[int], *given: Array) -> tuple[Array, ...]:
        """The plan's outputs as the sum of the slices of these numbers."""
        operands = self.place(given)
        made, kept = self.zeros(), self.once(operands)
        self.add(numbers, operands, kept, made)
        return self.outputs(operands, kept, made)

    def place(self, operands: Sequence[Array]) -> list[Array]:
        """Operands of any dtype, each on the host or the device, as the other methods take them.

        What slices take parts of is cast part by part, and stays on the host if the device has no room for it.
        """
        backend, late = self._backend, self.slices.late
        streamed = backend.streamed(self.plan, operands, self._memory)
        moved = [operand if k in streamed else backend.asarray(operand) for k, operand in enumerate(operands)]
        return [operand if k in late else operand.astype(self._dtype, copy=False) for k, operand in enumerate(moved)]

    def once(self, operands: Sequence[Array]) -> tuple[Array, ...]:
        """What is the same in every slice."""
        return self._once(*[operands[k] for k in self.slices.early])

    def add(
        self, numbers: Iterable[int], operands: Sequence[Array], kept: Sequence[Array], made: Sequence[Array]
    ) -> None:
        """Run the slices of these numbers, and add or store what they give to the results that `zeros` made.

        `kept` is what `once` gave for the operands.
        """
        slices, backend, results = self.slices, self._backend, self.slices.zeros
        written = [*zip(map(results.term, results.outputs), slices.summed, slices.repeated, strict=True)]
        late, needed = slices.late, len(slices.each.inputs) - len(slices.late)
        nbytes = [math.prod(shape) * self._dtype.itemsize for shape in slices.part_shapes().values()]
        places: list[tuple[object, ...] | None] = [None] * len(late)
        loaded: list[Array] = [None] * len(late)
        with backend.loader(self._dtype, nbytes) as load:
            for number in numbers:
                at, lengths, first = self._slice(number)
                for position, operand in enumerate(late):
                    here = place(self.plan.inputs[operand], at)
                    if here != places[position]:
                        loaded[position] = None  # before the next part needs its memory
                        places[position], loaded[position] = here, load(position, operands[operand][here])
                outputs = self._each(*lengths)(*loaded, *kept[:needed])
                for result, (term, is_summed, repeated), output in zip(made, written, outputs, strict=True):
                    if set(repeated) <= set(first):
                        (backend.add if is_summed else backend.store)(output, result[place(term, at)])
                del outputs, output  # before the next slice needs their memory

    def _slice(self, number: int) -> tuple[Place, list[int], Term]:
        """Where a slice is, how long its blocks are, and the labels of which it has the first block."""
        labels, blocks = self.slices.labels, self.slices.blocks_of(number)
        parts = [label.part(block) for label, block in zip(labels, blocks, strict=True)]
        at: Place = {
            label.label: part.start if label.block == 1 else part for label, part in zip(labels, parts, strict=True)
        }
        first = "".join([label.label for label, block in zip(labels, blocks, strict=True) if not block])
        return at, [part.stop - part.start for part in parts], first

    def outputs(self, operands: Sequence[Array], kept: Sequence[Array], made: Sequence[Array]) -> tuple[Array, ...]:
        """The plan's outputs, of results to which all slices are added."""
        arrays = [*operands, *[result.astype(self._dtype, copy=False) for result in made], *kept]
        return tuple([arrays[number] for number in self.slices.outputs])


def bind_slices(plan: Plan, backend: Backend, mode: Mode) -> Callable[..., tuple[Array, ...]]:
    """`Backend.bind` for a plan with sliced labels."""
    bound = BoundSlices(plan, backend, mode)

    return lambda *given: bound.run_slices(track(range(bound.slices.count), "slices"), *given)


def place(term: Term, at: Place) -> tuple[object, ...]:
    """The index of the part of an array that lies at these values of sliced labels: always a view."""
    return (*[at.get(label, slice(None)) for label in term], ...)
