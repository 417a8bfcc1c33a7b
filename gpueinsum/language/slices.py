"""Plan to plans: a plan with sliced labels as the plans, without such labels, that it is run by."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import assert_never

from gpueinsum.language.dependence import Dependence, dependences, labels_in_slices, whole_registers
from gpueinsum.language.plan import HALVES, Plan
from gpueinsum.language.rewrite import split
from gpueinsum.language.steps import Add, Contract, Expand, Reduce, Step, without
from gpueinsum.language.subscripts import Label, Term


@dataclass(frozen=True, slots=True)
class Slices:
    """A plan in slices: `zeros` makes the results, `once` is run, then `each` for all values of the sliced labels.

    `once` takes the `early` operands. `each` takes the parts of the `late` ones at the values, and then the first
    outputs of `once`; its own outputs are the terms of the results that are `summed`, and parts of the others. Those
    that do not depend on all sliced labels are the same at all values of the labels in `repeated`, and count at the
    first. The plan's `outputs` are among its operands, the results and the outputs of `once`, numbered in this order.
    """

    labels: tuple[tuple[Label, int], ...]
    zeros: Plan
    once: Plan
    each: Plan
    early: tuple[int, ...]
    late: tuple[int, ...]
    summed: tuple[bool, ...]
    repeated: tuple[Term, ...]
    outputs: tuple[int, ...]

    @property
    def count(self) -> int:
        """How often `each` is run."""
        return math.prod(size for _, size in self.labels) if self.zeros.outputs else 0


@lru_cache(maxsize=1024)
def cut(plan: Plan) -> Slices:
    """The plans that a plan is run by in slices. Raises PlanError if a step needs a sum over them before it is made."""
    size, operands = dict(plan.sizes), range(len(plan.inputs))
    labels = labels_in_slices(plan)
    found = {label: dependences(plan, label) for label in labels}
    whole = whole_registers(plan)
    written = [register for register in dict.fromkeys(plan.outputs) if register not in operands]
    results = [register for register in written if register not in whole]
    kept = [register for register in written if register in whole]
    once, each = split(replace(one_slice(plan), outputs=tuple(results)), sorted(whole), kept)
    frontier = [-1] * (len(once.outputs) - len(kept))
    arrays = [*operands, *results, *frontier, *kept]
    zeros = tuple([Add((), plan.term(register)) for register in results])
    return Slices(
        tuple([(label, size[label]) for label in labels]),
        Plan((), zeros, tuple(range(len(zeros))), plan.sizes, "float32" if plan.dtype in HALVES else plan.dtype),
        once,
        each,
        tuple([operand for operand in operands if operand in whole]),
        tuple([operand for operand in operands if operand not in whole]),
        tuple([any(found[label][register] is Dependence.SUMMED for label in labels) for register in results]),
        tuple(["".join(x for x in labels if found[x][register] is Dependence.NONE) for register in results]),
        tuple([arrays.index(register) for register in plan.outputs]),
    )


def one_slice(plan: Plan) -> Plan:
    """What is run for one slice, and what is run once, as one plan without sliced labels."""
    if not plan.sliced:
        return plan
    labels = labels_in_slices(plan)
    return replace(
        plan,
        inputs=tuple([without(term, labels) for term in plan.inputs]),
        steps=tuple([_step_without(step, labels) for step in plan.steps]),
        sizes=tuple([(label, number) for label, number in plan.sizes if label not in labels]),
        sliced=(),
    )


def _step_without(step: Step, labels: Term) -> Step:
    out = without(step.out, labels)
    match step:
        case Contract():
            lhs_term, rhs_term = without(step.lhs_term, labels), without(step.rhs_term, labels)
            return replace(step, lhs_term=lhs_term, rhs_term=rhs_term, out=out)
        case Reduce() | Expand():
            return replace(step, term=without(step.term, labels), out=out)
        case Add():
            return replace(step, out=out)
        case _:
            assert_never(step)
