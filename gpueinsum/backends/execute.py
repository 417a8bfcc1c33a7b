"""Fourth stage: a plan bound to a backend, a function of its operands that frees each register after its last use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from gpueinsum.costs.profile import Profile
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Step
from gpueinsum.language.subscripts import Label
from gpueinsum.schedule.fusion import fused
from gpueinsum.schedule.layouts import arranged

Array = Any  # numpy's or CuPy's
_Registers = tuple[int, ...]


class Mode(NamedTuple):
    """How a plan is to be run, where a device leaves a choice; on the CPU `autotune` alone.

    `precision` of products, as in `einsum`. With `graph` the plan is replayed as a CUDA graph, with None where that is
    worth it. `deterministic` refuses whatever may give other bits when it is done again. With `autotune` ways to run a
    step are chosen by the clock.
    """

    precision: str | None = None
    graph: bool | None = False
    deterministic: bool = False
    autotune: bool = False


PLAIN = Mode()


class Binds(Protocol):
    """What runs whole plans: a backend."""

    def bind(self, plan: Plan, mode: Mode = PLAIN) -> Callable[..., tuple[Array, ...]]:
        """A function of operands of the plan's shapes and dtype, which gives the plan's outputs."""

    def bind_single(self, plan: Plan, mode: Mode = PLAIN) -> Callable[..., Array]:
        """`bind` for a plan of one output: that output itself."""


class Prepares(Protocol):
    """What makes one step into a function of its source arrays, and says by which rates steps are fused."""

    @property
    def profile(self) -> Profile: ...
    def prepare(self, step: Step, sizes: Mapping[Label, int], dtype: str) -> Callable[..., Array]: ...


def scheduled(plan: Plan, profile: Profile) -> Plan:
    """The plan as it is run on a device: layouts chosen, steps fused."""
    return fused(arranged(plan, profile), profile)


def bind(plan: Plan, backend: Prepares) -> Callable[..., tuple[Array, ...]]:
    """Prepare every step once; the function returned runs them on operands of the plan's shapes and dtype."""
    plan = scheduled(plan, backend.profile)
    return _wired(plan, plan.outputs)(*_prepared(plan, backend))


def bind_single(plan: Plan, backend: Prepares) -> Callable[..., Array]:
    """`bind` for a plan of one output: that output itself, by nothing but its step if there is only one."""
    plan = scheduled(plan, backend.profile)
    [output] = plan.outputs
    calls = _prepared(plan, backend)
    operands = len(plan.inputs)
    if len(calls) == 1 and output == operands and plan.steps[0].sources == tuple(range(operands)):
        return calls[0]
    return _wired(plan, output)(*calls)


def _prepared(plan: Plan, backend: Prepares) -> list[Callable[..., Array]]:
    sizes = dict(plan.sizes)
    return [backend.prepare(step, sizes, plan.dtype) for step in plan.steps]


def _wired(plan: Plan, result: _Registers | int) -> Callable[..., Callable[..., Any]]:
    return _wire(len(plan.inputs), tuple([step.sources for step in plan.steps]), plan.last_uses(), result)


@lru_cache(maxsize=256)
def _wire(
    operands: int, sources: tuple[_Registers, ...], last_uses: tuple[_Registers, ...], result: _Registers | int
) -> Callable[..., Callable[..., Any]]:
    """From prepared steps to a function of the operands, straight-line code made of numbers of registers alone.

    Plans that read the same registers share it. The function returns one register, or a tuple of several.

    A loop over the steps costs more than small steps do: 19 products of 3 x 3 took 14.1 us in a loop, 6.1 us in
    straight-line code and 6.3 us written by hand (numpy 2.4, medians). Made at 20 us a step, once per wiring.

    For `ij,jk,kl->il`:

        def program(step3, step4):
            def run(r0, r1, r2):
                r3 = step3(r1, r2)
                r3 = step4(r0, r3)
                return r3
            return run

    A result takes the name of an intermediate that ends with its step, whose memory goes thereby; others that end
    there become None. Operands stay the caller's.
    """
    name = {register: f"r{register}" for register in range(operands)}
    lines = []
    for register, (read, done) in enumerate(zip(sources, last_uses, strict=True), operands):
        arguments = ", ".join([name[source] for source in read])
        ending = [name[end] for end in done if operands <= end < register]
        name[register] = ending.pop() if ending else f"r{register}"
        lines.append(f"{name[register]} = step{register}({arguments})")
        if register in done:  # a result that nothing needs
            ending.append(name[register])
        lines += [f"{end} = None" for end in ending]
    if isinstance(result, int):
        lines.append(f"return {name[result]}")
    else:
        lines.append(f"return ({''.join([f'{name[register]}, ' for register in result])})")
    body = "\n        ".join(lines)
    steps = ", ".join([f"step{register}" for register in range(operands, operands + len(sources))])
    arguments = ", ".join([name[register] for register in range(operands)])
    namespace: dict[str, Any] = {}
    exec(f"def program({steps}):\n    def run({arguments}):\n        {body}\n    return run", namespace)
    program: Callable[..., Callable[..., Any]] = namespace["program"]
    return program
