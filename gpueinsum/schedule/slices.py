"""What one device runs for a plan in slices: what is computed once, and a slice, whose operands are parts of others."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

from gpueinsum.costs.counts import item_bytes
from gpueinsum.costs.profile import Profile
from gpueinsum.costs.seconds import pass_seconds
from gpueinsum.language.dependence import whole_registers
from gpueinsum.language.plan import Plan
from gpueinsum.language.slices import Slices, cut
from gpueinsum.language.subscripts import Term
from gpueinsum.schedule.candidate import Pass
from gpueinsum.schedule.mapping import Gemm
from gpueinsum.schedule.problem import Strides, c_strides, dense_strides
from gpueinsum.schedule.schedule import Schedule, schedule


@dataclass(frozen=True, slots=True)
class SlicesSchedule:
    """The schedules of a plan in slices; `each` is that of the largest slice, which may have an inner loop."""

    slices: Slices
    once: Schedule
    each: Schedule | SlicesSchedule

    @property
    def seconds(self) -> float:
        """Predicted, of all slices, of what is computed once, and of putting the results together."""
        count = math.prod(label.size / label.block for label in self.slices.labels) if self.slices.count else 0.0
        return self.once.seconds + count * (self.each.seconds + self._adding())

    def _adding(self) -> float:
        """Each part of a result is read, and written to the result or added to it."""
        each, item = self.slices.each, item_bytes(self.slices.each.dtype)
        pairs = zip(each.outputs, self.slices.summed, strict=True)
        parts = [(2 + is_summed) * math.prod(each.shape(output)) * item for output, is_summed in pairs]
        return sum(pass_seconds(self.once.profile, part) for part in parts)


@lru_cache(maxsize=256)
def schedule_slices(
    plan: Plan,
    profile: Profile,
    packed: frozenset[int] = frozenset(),
    strides: tuple[Strides, ...] | None = None,
) -> SlicesSchedule:
    """The schedules of a plan in slices, which read copies of the parts of `packed` operands.

    Operands have these strides in elements, by default those of C order.
    """
    slices = cut(plan)
    size = dict(plan.sizes)
    given = strides or tuple([c_strides(term, size) for term in plan.inputs])
    early = read_strides(plan, packed, given)
    once = schedule(slices.once, profile, [early[number] for number in slices.early])
    single = {label.label for label in slices.labels if label.block == 1}
    parts: list[Strides] = []
    for number in slices.late:
        own = zip(plan.inputs[number], given[number], strict=True)
        parts.append(tuple([stride for label, stride in own if label not in single]))
    copied = frozenset([position for position, number in enumerate(slices.late) if number in packed])
    needed = len(slices.each.inputs) - len(slices.late)
    each = [*parts, *[strides_of(once, output) for output in once.outputs[:needed]]]
    each = read_strides(slices.each, copied, each)
    if plan.inner:
        return SlicesSchedule(slices, once, schedule_slices(slices.each, profile, strides=tuple(each)))
    return SlicesSchedule(slices, once, schedule(slices.each, profile, each))


def copied_terms(
    plan: Plan, profile: Profile, packed: frozenset[int] = frozenset(), strides: tuple[Strides, ...] | None = None
) -> list[tuple[int, Term]]:
    """What the products of a slice copy: the number of the step in the plan, and the labels of what it copies.

    Those of the whole plan if it is in no slices. Steps that are run as one with others count as one of these.
    """
    if plan.sliced:
        made = schedule_slices(plan, profile, packed, strides)
        slices, each, whole = made.slices, made.each, whole_registers(plan)
        assert isinstance(each, Schedule), "an inner loop has slices of its own"
        terms = [*[plan.inputs[operand] for operand in slices.late], *slices.each.inputs[len(slices.late) :]]
        written = iter(slices.each.steps)
        late = iter([number for number in range(len(plan.steps)) if len(plan.inputs) + number not in whole])
    else:
        each = schedule(plan, profile, None if strides is None else read_strides(plan, packed, strides))
        terms, written, late = [*plan.inputs], iter(plan.steps), iter(range(len(plan.steps)))
    found: list[tuple[int, Term]] = []
    for step in each.steps:
        same = (number for number, one in zip(late, written, strict=False) if {*one.out} == {*step.out})
        number = next(same, None)
        if number is None:
            break
        copies = step.taken.way.copies if isinstance(step.taken.way, Gemm | Pass) else ()
        found += [(number, terms[source]) for source, copy in zip(step.sources, copies, strict=False) if copy]
        terms.append(plan.steps[number].out)
    return found


def read_strides(plan: Plan, packed: Collection[int], strides: Sequence[Strides]) -> list[Strides]:
    """The strides of what steps read: of operands that have these, or of copies without gaps of the `packed` ones."""
    size = dict(plan.sizes)
    pairs = enumerate(zip(plan.inputs, strides, strict=True))
    return [dense_strides(term, own, size) if number in packed else own for number, (term, own) in pairs]


def predicted_seconds(plan: Plan, profile: Profile) -> float:
    """Of a run of the plan, in slices if it has any."""
    return schedule_slices(plan, profile).seconds if plan.sliced else schedule(plan, profile).seconds


def strides_of(made: Schedule, register: int) -> Strides:
    """Those of a register, in elements."""
    operands = len(made.inputs)
    return made.strides[register] if register < operands else made.steps[register - operands].taken.strides
