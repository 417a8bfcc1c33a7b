"""Seconds of calls on a device, of parts of some work and of a schedule's steps: by events on the current stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from gpueinsum.backends.cuda.lower import assemble
from gpueinsum.schedule.schedule import Schedule

if TYPE_CHECKING:
    from gpueinsum.backends.cuda.runtime import CupyRuntime

# How many copies are launched ahead of what is timed: some hundreds at the most, for a queue holds about a thousand
# launches.
_FEWEST_COPIES, _MOST_COPIES = 4, 512


def step_seconds(schedule: Schedule, runtime: CupyRuntime, operands: Sequence[Any]) -> list[float]:
    """`Backend.step_seconds`."""
    program = assemble(schedule, runtime.processors)
    launches = [runtime.prepare(work) for work in program.work]
    memories = [runtime.allocate(nbytes) for nbytes in (*program.results, program.workspace)]
    places = [*map(runtime.pointer, operands), *[memory.ptr for memory in memories]]

    def launch(start: int, end: int) -> None:
        for each in launches[start:end]:
            each(places)

    parts = zip(schedule.steps, pairwise([0, *program.ends]), strict=True)
    return runtime.parts_seconds([(str(step.step), partial(launch, *ends)) for step, ends in parts])


def call_seconds(cuda: Any, call: Callable[[], object], count: int) -> float:
    """Of so many calls on an idle stream, for which it waits: a wait for the device would break others' captures."""
    start, stop = cuda.Event(), cuda.Event()
    cuda.get_current_stream().synchronize()
    start.record()
    for _ in range(count):
        call()
    stop.record()
    stop.synchronize()
    return float(cuda.get_elapsed_time(start, stop)) / 1e3


def parts_seconds(
    cuda: Any, copy: Callable[[], None], parts: Sequence[tuple[str, Callable[[], object]]]
) -> list[float]:
    """The device's part of each call, with the event after it; NVTX shows each as a range of its name.

    The calls wait behind copies that outlast the host's part of them: a `copy` takes the device longer than the host
    takes to launch it.
    """
    stream = cuda.get_current_stream()
    start, *ends = [cuda.Event() for _ in range(len(parts) + 1)]
    copies = _FEWEST_COPIES
    while True:
        stream.synchronize()
        for _ in range(copies):
            copy()
        start.record()
        for (name, call), end in zip(parts, ends, strict=True):
            cuda.nvtx.RangePush(name)
            try:
                call()
            finally:
                cuda.nvtx.RangePop()
            end.record()
        has_begun = start.done  # before the host was ready
        stream.synchronize()
        if not has_begun or copies >= _MOST_COPIES:
            return [float(cuda.get_elapsed_time(*events)) / 1e3 for events in pairwise([start, *ends])]
        copies *= 2
