"""What a plan takes: floating-point operations and bytes, counted from its terms and sizes alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gpueinsum.plan import Plan
from gpueinsum.steps import Add, Contract, Expand, Fused, Reduce, Step
from gpueinsum.subscripts import Label, Term


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one step: operations on real numbers, bytes read and written, bytes of its result."""

    flops: int
    bytes_moved: int
    result_bytes: int


def step_costs(plan: Plan) -> list[Cost]:
    """Count each step: its operands read once, its result written once; a view moves nothing.

    A product and a sum are one operation each for real types, 6 and 2 for complex ones. A pair with n index points,
    m results and a summed label takes n products and n - m sums.
    """
    size, item = dict(plan.sizes), item_bytes(plan.dtype)
    product, addition = (6, 2) if plan.dtype.startswith("complex") else (1, 1)
    return [_cost(step, size, item, product, addition) for step in plan.steps]


def _cost(step: Step, size: Mapping[Label, int], item: int, product: int, addition: int) -> Cost:
    if step.is_view(size):
        return Cost(0, 0, 0)
    results = elements(step.out, size)
    match step:
        case Contract():
            points = results * elements(step.summed, size)
            flops = points * product + max(points - results, 0) * addition
            read = elements(step.lhs_term, size) + elements(step.rhs_term, size)
        case Fused():
            points = results * elements(step.summed, size)
            flops = points * product * (len(step.terms) - 1) + max(points - results, 0) * addition
            read = sum(elements(term, size) for term in step.terms)
        case Reduce():
            read = results * elements(step.summed, size)
            flops = max(read - results, 0) * addition
        case Expand():
            flops, read = 0, elements(step.term, size)
        case Add():
            flops, read = max(len(step.sources) - 1, 0) * results * addition, len(step.sources) * results
    return Cost(flops, (read + results) * item, results * item)


def total_flops(plan: Plan) -> int:
    """Operations on real numbers of all steps."""
    return sum(cost.flops for cost in step_costs(plan))


def peak_bytes(plan: Plan, scratch: Sequence[int] | None = None) -> int:
    """Bytes of intermediates and results alive at once, at the most, with those that each step takes for itself.

    Operands are not counted, nor is `scratch` if it is not known.
    """
    operands, owner, costs = len(plan.inputs), plan.owners(), step_costs(plan)
    holders = Counter(range(operands))  # how many living registers lie in a register's memory
    alive = peak = 0
    own = scratch or [0] * len(costs)
    for register, (cost, done) in enumerate(zip(costs, plan.last_uses(), strict=True), operands):
        alive += cost.result_bytes
        peak = max(peak, alive + own[register - operands])
        holders[owner[register]] += 1
        for gone in map(owner.__getitem__, done):  # a view keeps its source's memory alive
            holders[gone] -= 1
            if holders[gone] == 0 and gone >= operands:
                alive -= costs[gone - operands].result_bytes
    return peak


def elements(labels: Term, size: Mapping[Label, int]) -> int:
    """How many elements an array of this term has, or how many index points these labels span."""
    return math.prod(size[label] for label in labels)


def item_bytes(dtype: str) -> int:
    """Bytes of one element of a dtype given by name."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize  # numpy knows it only where ml_dtypes is imported
