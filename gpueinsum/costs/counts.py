"""What a plan takes: floating-point operations and bytes, counted from its terms and sizes alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Add, Expand, Step, distinct, sides
from gpueinsum.language.strides import points
from gpueinsum.language.subscripts import Label


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one step: operations on real numbers, bytes read and written, bytes of its result."""

    flops: int
    bytes_moved: int
    result_bytes: int


def step_costs(plan: Plan) -> list[Cost]:
    """Of every step."""
    size = dict(plan.sizes)
    return [step_cost(step, size, plan.dtype) for step in plan.steps]


def step_cost(step: Step, size: Mapping[Label, int], dtype: str) -> Cost:
    """Its operands read once, its result written once; a view moves nothing."""
    if step.is_view(size):
        return Cost(0, 0, 0)
    results = points(step.out, size)
    match step:
        case Add():
            read = len(step.sources) * results
            flops = product_flops(dtype, read, results, arrays=1)
        case Expand():
            read, flops = points(step.term, size), 0
        case _:
            terms = [distinct(term) for _, term in sides(step)]
            read = sum(points(term, size) for term in terms)
            flops = product_flops(dtype, results * points(step.summed, size), results, len(terms))
    item = item_bytes(dtype)
    return Cost(flops, (read + results) * item, results * item)


def product_flops(dtype: str, products: int, results: int, arrays: int = 2) -> int:
    """Of so many products of one element of each array, added up to so many results.

    A product and a sum are one operation each for real types, 6 and 2 for complex ones: a pair with n index points and
    m results takes n products and n - m sums.
    """
    product, addition = (6, 2) if dtype.startswith("complex") else (1, 1)
    return products * product * (arrays - 1) + max(products - results, 0) * addition


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


def item_bytes(dtype: str) -> int:
    """Bytes of one element of a dtype given by name."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize  # numpy knows it only where ml_dtypes is imported
