"""Plan to plans: the part of a plan that some outputs need, and a plan cut in two, to be run one after the other."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import lru_cache

from gpueinsum.language.dependence import whole_registers
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import renumber


def deduplicate(plan: Plan) -> Plan:
    """The plan without steps that its outputs do not need, and without those that compute anew what is there."""
    first = plan.duplicates()
    number = {register: first.get(register, register) for register in range(len(plan.inputs) + len(plan.steps))}
    steps = tuple(renumber(step, number) for step in plan.steps)
    return prune(replace(plan, steps=steps), [number[output] for output in plan.outputs])


def prune(plan: Plan, outputs: Sequence[int]) -> Plan:
    """The plan with these registers for its outputs, and no step that none of them needs; its inputs stay."""
    operands = len(plan.inputs)
    return _part(plan, [*range(operands), *written_registers(plan, outputs)], operands, outputs)


def written_registers(plan: Plan, outputs: Sequence[int]) -> list[int]:
    """The registers that steps write and these need, and these themselves."""
    operands = len(plan.inputs)
    wanted = set(outputs)
    for register in range(operands + len(plan.steps) - 1, operands - 1, -1):
        if register in wanted:
            wanted |= set(plan.steps[register - operands].sources)
    return sorted(register for register in wanted if register >= operands)


def split(plan: Plan, early: Sequence[int], kept: Sequence[int] = ()) -> tuple[Plan, Plan]:
    """Cut a plan in two: the `early` registers, operands first, which need none but early ones, and all others.

    The first plan takes the early operands; its outputs are all that the second needs, and then the `kept` registers.
    The second takes the other operands, and then what the first has for it; its outputs are the plan's.
    """
    operands = len(plan.inputs)
    begun = set(early)
    late = [register for register in range(operands + len(plan.steps)) if register not in begun]
    variables = [register for register in late if register < operands]
    steps = [register for register in late if register >= operands]
    used = {source for register in steps for source in plan.steps[register - operands].sources}
    frontier = sorted((used | set(plan.outputs)) & begun)
    first = _part(plan, early, sum(register < operands for register in early), [*frontier, *kept])
    inputs = [*variables, *frontier]
    return first, _part(plan, [*inputs, *steps], len(inputs), plan.outputs)


@lru_cache(maxsize=1024)
def fold_constants(plan: Plan, constants: Collection[int]) -> tuple[Plan, Plan]:
    """Split a plan at its constant operands: what depends on them alone, to be run once, and the rest.

    The first plan takes the constant operands, in ascending order; its outputs are all that the second needs of them.
    The second takes the other operands, in order, and then the first's outputs. What depends on a sliced label stays in
    the second, since to keep it for all slices takes the memory that they save.
    """
    early, whole = sorted(constants), whole_registers(plan)
    for register, step in enumerate(plan.steps, len(plan.inputs)):
        if register in whole and all(source in early for source in step.sources):
            early.append(register)
    return split(plan, early)


def _part(plan: Plan, registers: Sequence[int], inputs: int, outputs: Sequence[int]) -> Plan:
    """The part of a plan that writes these registers, the first `inputs` of them being its operands."""
    number = {register: position for position, register in enumerate(registers)}
    written = (plan.steps[register - len(plan.inputs)] for register in registers[inputs:])
    return replace(
        plan,
        inputs=tuple(plan.term(register) for register in registers[:inputs]),
        steps=tuple(renumber(step, number) for step in written),
        outputs=tuple(number[register] for register in outputs),
    )
