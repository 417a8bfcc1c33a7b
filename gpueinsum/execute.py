"""Fourth stage: a plan bound to a backend, a function of its operands that frees each register after its last use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from gpueinsum.plan import Plan
from gpueinsum.steps import Step
from gpueinsum.subscripts import Label

Array = Any  # numpy's or CuPy's


class Binds(Protocol):
    """What runs whole plans: a backend."""

    def bind(self, plan: Plan, precision: str | None = None) -> Callable[..., tuple[Array, ...]]:
        """A function of operands of the plan's shapes and dtype, which gives the plan's outputs."""

    def bind_single(self, plan: Plan, precision: str | None = None) -> Callable[..., Array]:
        """`bind` for a plan of one output: that output itself."""


class Prepares(Protocol):
    """What makes one step into a function of its source arrays."""

    def prepare(
        self, step: Step, sizes: Mapping[Label, int], dtype: str, precision: str | None
    ) -> Callable[..., Array]: ...


def bind(plan: Plan, backend: Prepares, precision: str | None = None) -> Callable[..., tuple[Array, ...]]:
    """Prepare every step once; the function returned runs them on operands of the plan's shapes and dtype."""
    prepared = [
        (call, step.sources, done)
        for call, step, done in zip(_prepared(plan, backend, precision), plan.steps, plan.last_uses(), strict=True)
    ]
    outputs = plan.outputs

    def run(*operands: Array) -> tuple[Array, ...]:
        registers = list(operands)
        for call, sources, done in prepared:
            registers.append(call(*[registers[source] for source in sources]))
            for register in done:
                registers[register] = None
        return tuple([registers[register] for register in outputs])

    return run


def bind_single(plan: Plan, backend: Prepares, precision: str | None = None) -> Callable[..., Array]:
    """`bind` for a plan of one output: that output itself, by nothing but its step if there is only one."""
    operands = len(plan.inputs)
    if len(plan.steps) == 1 and plan.outputs == (operands,) and plan.steps[0].sources == tuple(range(operands)):
        return _prepared(plan, backend, precision)[0]
    run = bind(plan, backend, precision)
    return lambda *operands: run(*operands)[0]


def _prepared(plan: Plan, backend: Prepares, precision: str | None) -> list[Callable[..., Array]]:
    sizes = dict(plan.sizes)
    return [backend.prepare(step, sizes, plan.dtype, precision) for step in plan.steps]
