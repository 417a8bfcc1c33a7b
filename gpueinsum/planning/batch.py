"""Plan to plan: the same steps for many values of some inputs at once, along a new first axis.

A step of which a source has the new label keeps it: a side of a pair that lacks it is shared by all, so that it becomes
a batch label of two such sides, and a left or a right one of a single side. Only a sum needs it in every source.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import assert_never

from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Add, Contract, Expand, Reduce, Step, renumber
from gpueinsum.language.subscripts import alphabet


def batch(plan: Plan, positions: Collection[int], size: int) -> Plan:
    """The plan for inputs of which those at these positions have a new first axis of this size, as all outputs do.

    >>> from gpueinsum import einsum_plan
    >>> print(batch(einsum_plan("ij,jk->ik", (2, 3), (3, 5)), [0], 7))
    Aij,jk->Aik  float64  A=7 i=2 j=3 k=5
      %2 = Aij,jk->Aik  of %0, %1  left A=7 i=2, right k=5, summed j=3
    """
    sizes = dict(plan.sizes)
    fresh = alphabet(sizes)
    label = next(fresh)
    terms = [label + term if position in positions else term for position, term in enumerate(plan.inputs)]
    steps: list[Step] = []
    number = list(range(len(terms)))  # of each register of the plan
    inputs = tuple(terms)

    def write(step: Step) -> int:
        steps.append(step)
        terms.append(step.out)
        return len(terms) - 1

    def spread(register: int) -> int:
        """The register with the new axis, along which it is the same if it had none."""
        if label in terms[register]:
            return register
        term = ""  # an expansion's source repeats no label
        for own in terms[register]:
            term += own if own not in term else next(fresh)
            sizes[term[-1]] = sizes[own]
        return write(Expand(register, term, label + term))

    for step in plan.steps:
        moved = renumber(step, number)
        has_label = [label in terms[source] for source in moved.sources]
        if not any(has_label):
            number.append(write(moved))
            continue
        match moved:
            case Contract():
                left, right = (label if has else "" for has in has_label)
                lhs, rhs, out = left + moved.lhs_term, right + moved.rhs_term, label + moved.out
                number.append(write(replace(moved, lhs_term=lhs, rhs_term=rhs, out=out)))
            case Reduce() | Expand():
                number.append(write(replace(moved, term=label + moved.term, out=label + moved.out)))
            case Add():
                number.append(write(Add(tuple(map(spread, moved.sources)), label + moved.out)))
            case _:
                assert_never(moved)
    outputs = tuple([spread(number[output]) for output in plan.outputs])
    every = ((label, size), *sizes.items())
    return replace(plan, inputs=inputs, steps=tuple(steps), outputs=outputs, sizes=every)
