"""Plans with sliced labels, run slice by slice, on any backend: by its own binding of plans that have none."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import numpy as np

from gpueinsum.backends.base import Array, Backend, Mode
from gpueinsum.language.plan import Plan
from gpueinsum.language.slices import cut
from gpueinsum.language.subscripts import Label, Term


def bind_slices(plan: Plan, backend: Backend, mode: Mode) -> Callable[..., tuple[Array, ...]]:
    """`Backend.bind` for a plan with sliced labels. Sums of halves are made in float32."""
    slices = cut(plan)
    zeros, once = (backend.bind(part, mode._replace(graph=False)) for part in (slices.zeros, slices.once))
    each, results = backend.bind(slices.each, mode), slices.zeros
    written = [*zip(map(results.term, results.outputs), slices.summed, slices.repeated, strict=True)]
    labels, ranges = [label for label, _ in slices.labels], [range(size) for _, size in slices.labels]
    dtype, needed = np.dtype(plan.dtype), len(slices.each.inputs) - len(slices.late)

    def run(*operands: Array) -> tuple[Array, ...]:
        made, kept = zeros(), once(*[operands[k] for k in slices.early])
        parts = [(operands[k], plan.inputs[k]) for k in slices.late]
        for values in itertools.product(*ranges) if made else ():
            at = dict(zip(labels, values, strict=True))
            outputs = each(*[operand[_place(term, at)] for operand, term in parts], *kept[:needed])
            for result, (term, is_summed, repeated), output in zip(made, written, outputs, strict=True):
                if not any(at[label] for label in repeated):
                    (backend.add if is_summed else backend.store)(output, result[_place(term, at)])
            del outputs, output  # before the next slice needs their memory
        arrays = [*operands, *[result.astype(dtype, copy=False) for result in made], *kept]
        return tuple([arrays[number] for number in slices.outputs])

    return run


def _place(term: Term, at: Mapping[Label, int]) -> tuple[object, ...]:
    """The index of the part of an array that lies at these values of sliced labels: always a view."""
    return (*[at.get(label, slice(None)) for label in term], ...)
