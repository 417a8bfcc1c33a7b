"""Plan to plans: a plan with sliced labels as the plans, without such labels, that it is run by."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple, assert_never

from gpueinsum.language.dependence import Dependence, dependences, labels_in_slices, whole_registers
from gpueinsum.language.plan import HALVES, Plan
from gpueinsum.language.rewrite import split
from gpueinsum.language.steps import Add, Contract, Expand, Reduce, Step, without
from gpueinsum.language.subscripts import Label, Shape, Term


class SlicedLabel(NamedTuple):
    """A label whose values are run through in blocks of `block`, the last of which may be smaller."""

    label: Label
    size: int
    block: int

    @property
    def blocks(self) -> int:
        return -(-self.size // self.block)

    def part(self, number: int) -> slice:
        """The values in this block."""
        return slice(number * self.block, min((number + 1) * self.block, self.size))

    def lengths(self) -> dict[int, int]:
        """How many blocks there are of each length."""
        whole, rest = divmod(self.size, self.block)
        return {self.block: whole} | ({rest: 1} if rest else {})


@dataclass(frozen=True, slots=True)
class Slices:
    """A plan in slices: `zeros` makes the results, `once` is run, then `each` for all blocks of the sliced labels.

    `once` takes the `early` operands. `each` takes the parts of the `late` ones in the blocks, and then the first
    outputs of `once`; its own outputs are the terms of the results that are `summed`, and parts of the others. Those
    that do not depend on all sliced labels are the same in all blocks of the labels in `repeated`, and count in the
    first. The plan's `outputs` are among its operands, the results and the outputs of `once`, numbered in this order.

    Of a label in blocks of one value `each` has nothing left; it has others in the size of a whole block. It is a plan
    in slices itself if the plan has an inner loop.
    """

    labels: tuple[SlicedLabel, ...]
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
        return math.prod(label.blocks for label in self.labels) if self.zeros.outputs else 0

    @property
    def frontier(self) -> int:
        """How many outputs of `once` are for `each`: those behind are outputs of the plan."""
        return len(self.each.inputs) - len(self.late)

    def blocks_of(self, number: int) -> list[int]:
        """The block of each label in the slice of this number: those of the last label follow each other."""
        found = []
        for label in reversed(self.labels):
            number, block = divmod(number, label.blocks)
            found.append(block)
        return found[::-1]

    def values_of(self, numbers: range) -> dict[Label, slice]:
        """A range of values of each label that holds those in these slices, and few others."""
        first, last = self.blocks_of(numbers[0]), self.blocks_of(numbers[-1])
        found, is_same = {}, True
        for label, low, high in zip(self.labels, first, last, strict=True):
            low, high = (low, high) if is_same else (0, label.blocks - 1)  # behind a label that moves on
            found[label.label] = slice(label.part(low).start, label.part(high).stop)
            is_same = is_same and low == high
        return found

    def of_lengths(self, *lengths: int) -> Plan:
        """`each` for blocks of these lengths."""
        length = dict(zip([label for label, _, _ in self.labels], lengths, strict=True))
        return replace(self.each, sizes=tuple([(label, length.get(label, size)) for label, size in self.each.sizes]))

    def part_shapes(self) -> dict[int, Shape]:
        """The shape of the largest part of each late operand, by its number."""
        return {operand: self.each.shape(k) for k, operand in enumerate(self.late)}

    def kinds(self) -> Iterator[tuple[Plan, int]]:
        """`each` in all its sizes, and how often it is run in each."""
        if self.count:
            for lengths in itertools.product(*[label.lengths().items() for label in self.labels]):
                yield self.of_lengths(*[length for length, _ in lengths]), math.prod(count for _, count in lengths)


@lru_cache(maxsize=1024)
def cut(plan: Plan) -> Slices:
    """The plans that a plan is run by in slices. Raises PlanError if a step needs a sum over them before it is made."""
    size, block, operands = dict(plan.sizes), dict(plan.sliced), range(len(plan.inputs))
    labels = labels_in_slices(plan, plan.inner)
    found = {label: dependences(plan, label) for label in labels}
    whole = whole_registers(plan)
    written = [register for register in dict.fromkeys(plan.outputs) if register not in operands]
    results = [register for register in written if register not in whole]
    kept = [register for register in written if register in whole]
    inner = plan.sliced[len(plan.sliced) - plan.inner :]
    part = replace(_largest_slice(plan, labels), sliced=inner, inner=0, outputs=tuple(results))
    once, each = split(part, sorted(whole), kept)
    frontier = [-1] * (len(once.outputs) - len(kept))
    arrays = [*operands, *results, *frontier, *kept]
    zeros = tuple([Add((), plan.term(register)) for register in results])
    return Slices(
        tuple([SlicedLabel(label, size[label], block[label]) for label in labels]),
        Plan((), zeros, tuple(range(len(zeros))), plan.sizes, "float32" if plan.dtype in HALVES else plan.dtype),
        once.unsliced(),
        each,
        tuple([operand for operand in operands if operand in whole]),
        tuple([operand for operand in operands if operand not in whole]),
        tuple([any(found[label][register] is Dependence.SUMMED for label in labels) for register in results]),
        tuple(["".join(x for x in labels if found[x][register] is Dependence.NONE) for register in results]),
        tuple([arrays.index(register) for register in plan.outputs]),
    )


def one_slice(plan: Plan) -> Plan:
    """What is run for the largest slice, and what is run once, as one plan without sliced labels."""
    return _largest_slice(plan, labels_in_slices(plan)).unsliced() if plan.sliced else plan


def _largest_slice(plan: Plan, labels: Term) -> Plan:
    """The plan for a whole block of each of these labels; those of blocks of one value are gone."""
    block = {label: block for label, block in plan.sliced if label in labels}
    single = "".join([label for label, length in block.items() if length == 1])
    return replace(
        plan,
        inputs=tuple([without(term, single) for term in plan.inputs]),
        steps=tuple([_step_without(step, single) for step in plan.steps]),
        sizes=tuple([(label, block.get(label, size)) for label, size in plan.sizes if label not in single]),
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
