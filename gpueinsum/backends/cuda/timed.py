"""Autotuning on CUDA: a pair as programs that differ in what they copy first, on operands of random numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from gpueinsum.backends.autotune import random_numbers
from gpueinsum.backends.cuda.graph import Launches
from gpueinsum.backends.cuda.lower import assemble
from gpueinsum.backends.cuda.program import Program, Span
from gpueinsum.backends.cuda.runtime import Memory, Runtime
from gpueinsum.backends.stopwatch import Call
from gpueinsum.costs.counts import item_bytes
from gpueinsum.costs.profile import profile_for
from gpueinsum.language.plan import Plan
from gpueinsum.schedule.layouts import Chooser
from gpueinsum.schedule.mapping import Case, Route


class CudaBench:
    """Programs are timed by the current GPU's events; `load` makes a program's launches."""

    def __init__(self, runtime: Runtime, precision: str | None, load: Callable[[Program], Launches]) -> None:
        self._runtime, self._precision, self._load = runtime, precision, load

    def calls(self, case: Case, routes: Mapping[str, Route]) -> dict[str, Call]:
        terms, dtype = (case.step.lhs_term, case.step.rhs_term), case.dtype
        plan = Plan(terms, (case.step,), (2,), case.sizes, dtype)
        item, processors, profile = item_bytes(dtype), self._runtime.processors, profile_for("cuda")
        strides = [tuple(stride * item for stride in own) for own in (case.lhs, case.rhs)]
        programs = {
            name: assemble(plan, strides, self._precision, processors, profile, _taking(route))
            for name, route in routes.items()
        }
        spans = next(iter(programs.values())).operands
        sides = [self._random(span, dtype) for span in spans]

        def call(launch: Launches) -> None:
            launch([side.ptr + span.before for side, span in zip(sides, spans, strict=True)])

        return {name: partial(call, self._load(program)) for name, program in programs.items()}

    def seconds(self, call: Call, count: int) -> float:
        return self._runtime.seconds(call, count)

    def _random(self, span: Span, dtype: str) -> Memory:
        """An operand's memory: what is uploaded is copied behind itself until it is full."""
        memory, runtime = self._runtime.allocate(span.bytes), self._runtime
        some = random_numbers(dtype)
        full = min(some.nbytes, span.bytes)
        uploaded = runtime.to_device(some)
        runtime.copy(memory.ptr, runtime.pointer(uploaded), full)
        while full < span.bytes:
            more = min(full, span.bytes - full)
            runtime.copy(memory.ptr + full, memory.ptr, more)
            full += more
        return memory


def _taking(route: Route) -> Chooser:
    return lambda *_: route
