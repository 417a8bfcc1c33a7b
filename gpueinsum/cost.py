"""What a plan takes: floating-point operations and bytes, counted from its terms and sizes alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gpueinsum.plan import Contract, Plan, Reduce, Step
from gpueinsum.subscripts import Label, Term


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one step: operations on real numbers, bytes read and written, bytes of its result."""

    flops: int
    bytes_moved: int
    result_bytes: int


def step_cost(plan: Plan, step: Step) -> Cost:
    """Count one step: each operand read once, the result written once; a view moves nothing.

    A product and a sum are one operation each for real types, 6 and 2 for complex ones. A pair with n index points,
    m results and a summed label takes n products and n - m sums.
    """
    size = dict(plan.sizes)
    item = item_bytes(plan.dtype)
    product, addition = (6, 2) if plan.dtype.startswith("complex") else (1, 1)
    results = elements(step.out, size)
    match step:
        case Contract():
            points = results * elements(step.summed, size)
            flops = points * product + max(points - results, 0) * addition
            read = elements(step.lhs_term, size) + elements(step.rhs_term, size)
        case Reduce():
            points = results * elements(step.summed, size)
            flops = max(points - results, 0) * addition
            read = points
            if points == results:
                return Cost(0, 0, 0)
        case _:
            flops, read = 0, elements(step.term, size)
    return Cost(flops, (read + results) * item, results * item)


def peak_bytes(plan: Plan) -> int:
    """Bytes of intermediates and result alive at once, at the most; operands and a backend's scratch not counted."""
    owner = {register: register for register in range(len(plan.inputs))}  # whose memory a register lies in
    taken = dict.fromkeys(owner, 0)
    live = set(owner)
    peak = 0
    for register, (step, done) in enumerate(zip(plan.steps, plan.last_uses(), strict=True), len(plan.inputs)):
        taken[register] = step_cost(plan, step).result_bytes
        owner[register] = register if taken[register] else owner[step.sources[0]]  # a view keeps its source's alive
        live.add(register)
        peak = max(peak, sum(taken[held] for held in {owner[alive] for alive in live}))
        live -= set(done)
    return peak


def elements(labels: Term, size: Mapping[Label, int]) -> int:
    """How many elements an array of this term has, or how many index points these labels span."""
    return math.prod(size[label] for label in labels)


def item_bytes(dtype: str) -> int:
    """Bytes of one element of a dtype given by name."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize  # numpy knows it only where ml_dtypes is imported
