"""Plans in slices, run on this CPU for benchmarks: all slices, or some of them, from whose time that of all follows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from random import Random
from statistics import median
from typing import Any, NamedTuple
from unittest import mock

from benchmarks.devices import counted_bytes
from benchmarks.limited import Array, Case, Place
from gpueinsum.backends.cpu import pool
from gpueinsum.backends.select import HOST
from gpueinsum.backends.slices import BoundSlices
from gpueinsum.language.plan import Plan
from gpueinsum.language.slices import cut
from gpueinsum.schedule.slices import predicted_seconds
from gpueinsum.text import seconds_text

_FEW = 8  # slices whose bytes are counted, and whose sum is checked, where there is no time for all
_SHORT, _REPEATS = 3.0, 3  # seconds of a run; if it takes fewer the median of so many counts


class Measured(NamedTuple):
    """Of a run: the most bytes that numpy allocates at once, the seconds of all slices, the error of the result."""

    bytes: int
    seconds: float
    slices_run: int
    error: float


def measure(plan: Plan, case: Case, seconds: float) -> Measured:
    """All slices of a plan if they should take no more than so many seconds, else some of them, chosen by chance."""
    run, predicted = _SlicedRun(plan, case.operands), predicted_seconds(plan, HOST.profile)
    numbers = sample(run.slices.count, seconds / predicted)
    few = numbers if predicted < _SHORT else sample(run.slices.count, _FEW / max(1, run.slices.count))
    nbytes = peak_bytes(lambda: run(few))
    result, taken = run(numbers)
    if taken < _SHORT:
        taken = median([taken, *(run(numbers)[1] for _ in range(_REPEATS - 1))])
    places: list[Place] = [{}]
    if len(numbers) < run.slices.count:
        (result, _), places = run(few), [run.place(number) for number in few]
    inner = plan.slices.number // max(1, run.slices.count)  # slices of the inner loop, if there is one
    return Measured(nbytes, taken, len(numbers) * inner, case.error(result, places))


def sample(count: int, share: float) -> Sequence[int]:
    """Of the slices of these numbers a share, one at least."""
    return range(count) if share >= 1 else sorted(Random(0).sample(range(count), max(1, int(share * count))))


def peak_bytes(call: Callable[[], Any]) -> int:
    """The most bytes of numpy's arrays at once: nothing is kept for later arrays, which would not be counted."""
    with mock.patch.object(pool._pool, "limit", 0):
        return counted_bytes(call)


def time_text(seconds: float, slices_run: int, slices: int) -> str:
    """The time of all slices, and how many it follows from if these are not all."""
    return seconds_text(seconds) + ("" if slices_run == slices else f", of {slices_run:,} slices")


class _SlicedRun:
    """A plan and its operands."""

    def __init__(self, plan: Plan, operands: Sequence[Array]) -> None:
        self.slices, self._operands, self._bound = cut(plan), operands, BoundSlices(plan, HOST)

    def __call__(self, numbers: Sequence[int]) -> tuple[Array, float]:
        """The sum of the slices of these numbers, and the seconds of all, as these take."""
        bound, start = self._bound, time.perf_counter()
        operands = bound.place(self._operands)
        made, kept = bound.zeros(), bound.once(operands)
        begin = time.perf_counter()
        bound.add(numbers, operands, kept, made)
        each = time.perf_counter() - begin
        if len(numbers) < self.slices.count:
            each *= math.prod(label.size / label.block for label in self.slices.labels) / len(numbers)
        [result] = bound.outputs(operands, kept, made)
        return result, begin - start + each

    def place(self, number: int) -> Place:
        """Where a slice is."""
        pairs = zip(self.slices.labels, self.slices.blocks_of(number), strict=True)
        return {label.label: label.part(block) for label, block in pairs}
