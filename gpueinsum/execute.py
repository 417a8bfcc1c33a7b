"""Fourth stage: a plan bound to a backend, a function of its operands that frees each register after its last use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from gpueinsum.plan import Plan, Step
from gpueinsum.subscripts import Label

Array = Any  # numpy's or CuPy's


class Runs(Protocol):
    """What `bind` asks of a backend: one step made into a function of its source arrays."""

    def prepare(
        self, step: Step, sizes: Mapping[Label, int], dtype: str, precision: str | None
    ) -> Callable[..., Array]: ...


def bind(plan: Plan, backend: Runs, precision: str | None = None) -> Callable[[Sequence[Array]], tuple[Array, ...]]:
    """Prepare every step once; the function returned runs them on operands of the plan's shapes and dtype."""
    sizes = dict(plan.sizes)
    prepared = [
        (backend.prepare(step, sizes, plan.dtype, precision), step.sources, done)
        for step, done in zip(plan.steps, plan.last_uses(), strict=True)
    ]
    outputs = plan.outputs

    def run(operands: Sequence[Array]) -> tuple[Array, ...]:
        registers = list(operands)
        for call, sources, done in prepared:
            registers.append(call(*[registers[source] for source in sources]))
            for register in done:
                registers[register] = None
        return tuple([registers[register] for register in outputs])

    return run
