"""Plan to plans: what depends on constant operands alone, to be run once, and the rest, to be run at every call."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import lru_cache

from gpueinsum.plan import Contract, Plan, Step


@lru_cache(maxsize=1024)
def fold_constants(plan: Plan, constants: Collection[int]) -> tuple[Plan, Plan]:
    """Split a plan at its constant operands.

    The first plan takes the constant operands, in ascending order; its outputs are all that the second needs of them.
    The second takes the other operands, in order, and then the first's outputs.
    """
    operands = len(plan.inputs)
    early: list[int] = sorted(constants)  # registers known before any call, in the order of the first plan
    late = [register for register in range(operands) if register not in constants]
    for register, step in enumerate(plan.steps, operands):
        (early if all(source in early for source in step.sources) else late).append(register)

    needed = {register for register in plan.outputs if register in early}
    for register in late:
        if register >= operands:
            needed |= {source for source in plan.steps[register - operands].sources if source in early}
    frontier = sorted(needed)
    variables = [register for register in late if register < operands]
    steps = [register for register in late if register >= operands]
    first = _renumbered(plan, early, len(constants), frontier)
    second = _renumbered(plan, [*variables, *frontier, *steps], len(variables) + len(frontier), list(plan.outputs))
    return first, second


def _renumbered(plan: Plan, registers: list[int], inputs: int, outputs: list[int]) -> Plan:
    """The part of a plan that writes these registers, the first `inputs` of them being its operands."""
    number = {register: position for position, register in enumerate(registers)}
    steps = tuple(_moved(plan.steps[register - len(plan.inputs)], number) for register in registers[inputs:])
    terms = tuple(plan.term(register) for register in registers[:inputs])
    return Plan(terms, steps, tuple(number[register] for register in outputs), plan.sizes, plan.dtype)


def _moved(step: Step, number: dict[int, int]) -> Step:
    if isinstance(step, Contract):
        return replace(step, lhs=number[step.lhs], rhs=number[step.rhs])
    return replace(step, source=number[step.source])
