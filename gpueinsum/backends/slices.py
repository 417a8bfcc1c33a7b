"""Plans with sliced labels, run slice by slice, on any backend: by its own binding of plans that have none."""

from __future__ import annotations

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
        self._backend = backend
        self.zeros = backend.bind(self.slices.zeros, mode._replace(graph=False))
        self._once = backend.bind(self.slices.once, mode._replace(graph=False))
        self._each = lru_cache(maxsize=None)(lambda *lengths: backend.bind(self.slices.of_lengths(*lengths), mode))

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
        for number in numbers:
            blocks = slices.blocks_of(number)
            parts = [label.part(block) for label, block in zip(slices.labels, blocks, strict=True)]
            at: Place = {
                label.label: part.start if label.block == 1 else part
                for label, part in zip(slices.labels, parts, strict=True)
            }
            first = "".join([label.label for label, block in zip(slices.labels, blocks, strict=True) if not block])
            run = self._each(*[part.stop - part.start for part in parts])
            outputs = run(*[operands[k][place(self.plan.inputs[k], at)] for k in late], *kept[:needed])
            for result, (term, is_summed, repeated), output in zip(made, written, outputs, strict=True):
                if set(repeated) <= set(first):
                    (backend.add if is_summed else backend.store)(output, result[place(term, at)])
            del outputs, output  # before the next slice needs their memory

    def outputs(self, operands: Sequence[Array], kept: Sequence[Array], made: Sequence[Array]) -> tuple[Array, ...]:
        """The plan's outputs, of results to which all slices are added."""
        dtype = np.dtype(self.plan.dtype)
        arrays = [*operands, *[result.astype(dtype, copy=False) for result in made], *kept]
        return tuple([arrays[number] for number in self.slices.outputs])


def bind_slices(plan: Plan, backend: Backend, mode: Mode) -> Callable[..., tuple[Array, ...]]:
    """`Backend.bind` for a plan with sliced labels."""
    bound = BoundSlices(plan, backend, mode)

    def run(*operands: Array) -> tuple[Array, ...]:
        made, kept = bound.zeros(), bound.once(operands)
        bound.add(track(range(bound.slices.count), "slices"), operands, kept, made)
        return bound.outputs(operands, kept, made)

    return run


def place(term: Term, at: Place) -> tuple[object, ...]:
    """The index of the part of an array that lies at these values of sliced labels: always a view."""
    return (*[at.get(label, slice(None)) for label in term], ...)
