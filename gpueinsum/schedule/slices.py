"""What one device runs for a plan in slices: what is computed once, and a slice, whose operands are parts of others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from gpueinsum.costs.counts import item_bytes
from gpueinsum.costs.profile import Profile
from gpueinsum.costs.seconds import pass_seconds
from gpueinsum.language.plan import Plan
from gpueinsum.language.slices import Slices, cut
from gpueinsum.schedule.problem import Strides, c_strides
from gpueinsum.schedule.schedule import Schedule, schedule


@dataclass(frozen=True, slots=True)
class SlicesSchedule:
    """The schedules of a plan in slices whose operands are in C order; `each` is that of the largest slice."""

    slices: Slices
    once: Schedule
    each: Schedule

    @property
    def seconds(self) -> float:
        """Predicted, of all slices, of what is computed once, and of putting the results together."""
        count = math.prod(label.size / label.block for label in self.slices.labels) if self.slices.count else 0.0
        return self.once.seconds + count * (self.each.seconds + self._adding())

    def _adding(self) -> float:
        """Each part of a result is read, and written to the result or added to it."""
        each, item = self.each, item_bytes(self.each.dtype)
        pairs = zip(each.outputs, self.slices.summed, strict=True)
        parts = [(2 + is_summed) * math.prod(each.shape(output)) * item for output, is_summed in pairs]
        return sum(pass_seconds(each.profile, part) for part in parts)


@lru_cache(maxsize=256)
def schedule_slices(plan: Plan, profile: Profile, packed: frozenset[int] = frozenset()) -> SlicesSchedule:
    """The schedules of a plan in slices, for parts of operands in C order, and copies of the parts of `packed` ones."""
    slices = cut(plan)
    once = schedule(slices.once, profile)
    size, block = dict(plan.sizes), dict(slices.each.sizes)
    single = {label.label for label in slices.labels if label.block == 1}
    parts: list[Strides] = []
    for position, number in enumerate(slices.late):
        term = plan.inputs[number]
        own = zip(term, c_strides(term, size), strict=True)
        part = tuple([stride for label, stride in own if label not in single])
        parts.append(c_strides(slices.each.inputs[position], block) if number in packed else part)
    needed = len(slices.each.inputs) - len(slices.late)
    strides = [*parts, *[_strides(once, output) for output in once.outputs[:needed]]]
    return SlicesSchedule(slices, once, schedule(slices.each, profile, strides))


def predicted_seconds(plan: Plan, profile: Profile) -> float:
    """Of a run of the plan, in slices if it has any."""
    return schedule_slices(plan, profile).seconds if plan.sliced else schedule(plan, profile).seconds


def _strides(made: Schedule, register: int) -> Strides:
    operands = len(made.inputs)
    return made.strides[register] if register < operands else made.steps[register - operands].taken.strides
