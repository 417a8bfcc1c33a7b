"""What a plan takes: floating-point operations and bytes, counted from its terms and sizes alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from gpueinsum.language.plan import Plan, SliceCount
from gpueinsum.language.slices import cut
from gpueinsum.language.steps import Add, Expand, Step, distinct, sides, without
from gpueinsum.language.strides import points
from gpueinsum.language.subscripts import Label, Term


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
    results, item = points(step.out, size), item_bytes(dtype)
    match step:
        case Add():
            read, flops = len(step.sources) * results, product_flops(dtype, len(step.sources) * results, results, 1)
        case Expand():
            read, flops = points(step.term, size), 0
        case _:
            return einsum_cost([term for _, term in sides(step)], step.out, size, dtype)
    return Cost(flops, (read + results) * item, results * item)


def einsum_cost(terms: Sequence[Term], out: Term, size: Mapping[Label, int], dtype: str) -> Cost:
    """Of the sum of the products of arrays, whose diagonals are read alone."""
    once, results, item = [distinct(term) for term in terms], points(out, size), item_bytes(dtype)
    products = results * points(without(distinct("".join(once)), out), size)
    read = sum(points(term, size) for term in once)
    return Cost(product_flops(dtype, products, results, len(terms)), (read + results) * item, results * item)


def product_flops(dtype: str, products: int, results: int, arrays: int = 2) -> int:
    """Of so many products of one element of each array, added up to so many results.

    A product and a sum are one operation each for real types, 6 and 2 for complex ones: a pair with n index points and
    m results takes n products and n - m sums.
    """
    product, addition = _REAL_OPERATIONS[dtype.startswith("complex")]
    return products * product * (arrays - 1) + max(products - results, 0) * addition


_REAL_OPERATIONS = (1, 1), (6, 2)  # of a product and of a sum, of real numbers and of complex ones


def multiply_add_flops(dtype: str) -> int:
    """Of a product that is added to a sum: 2, or 8 of complex numbers."""
    return sum(_REAL_OPERATIONS[dtype.startswith("complex")])


def total_flops(plan: Plan) -> int:
    """Operations on real numbers of all steps, in all slices; the sums over these are not counted."""
    if plan.sliced:
        slices = cut(plan)
        return total_flops(slices.once) + sum(count * total_flops(each) for each, count in slices.kinds())
    return sum(cost.flops for cost in step_costs(plan))


def slice_count(plan: Plan) -> SliceCount:
    """`Plan.slices`."""
    whole, slices = total_flops(plan.unsliced()), cut(plan)
    number = slices.count * (slice_count(slices.each).number if plan.inner else 1)
    return SliceCount(max(1, number), dict(plan.sliced), total_flops(plan) / whole if whole else 1.0)


def peak_bytes(plan: Plan) -> int:
    """Bytes of intermediates and results alive at once, at the most; operands and scratch memory are not counted."""
    if plan.sliced:
        slices = cut(plan)
        return peak_in_slices(plan, peak_bytes(slices.once), peak_bytes(slices.each), peak_bytes)
    nbytes = [cost.result_bytes for cost in step_costs(plan)]
    return most_alive(plan.owners(), len(plan.inputs), nbytes, [0] * len(nbytes), plan.last_uses())


def peak_in_slices(plan: Plan, first: int, each: int, peak: Callable[[Plan], int]) -> int:
    """The peak of a plan with sliced labels, whose results stay from the start on.

    It is `first` of what is computed once, `each` of a slice, and `peak` of other plans without sliced labels.
    """
    slices = cut(plan)
    once, owners, item = slices.once, slices.once.owners(), item_bytes(plan.dtype)
    kept = {owners[register] for register in once.outputs if owners[register] >= len(once.inputs)}
    kept_bytes = sum(math.prod(once.shape(register)) for register in kept) * item
    cast = peak(replace(slices.zeros, dtype=plan.dtype)) if slices.zeros.dtype != plan.dtype else 0
    return peak(slices.zeros) + max(first, kept_bytes + max(each, cast))


def most_alive(
    owners: Sequence[int],
    operands: int,
    result_bytes: Sequence[int],
    scratch: Sequence[int],
    last_uses: Sequence[Sequence[int]],
) -> int:
    """The most bytes alive at once while steps run: their results, until their last use, and their own scratch.

    `owners` are the registers in whose memory registers lie: a view keeps its source's memory alive.
    """
    holders = Counter(range(operands))  # how many living registers lie in a register's memory
    alive = peak = 0
    for register, (nbytes, own, done) in enumerate(zip(result_bytes, scratch, last_uses, strict=True), operands):
        alive += nbytes
        peak = max(peak, alive + own)
        holders[owners[register]] += 1
        for gone in map(owners.__getitem__, done):
            holders[gone] -= 1
            if holders[gone] == 0 and gone >= operands:
                alive -= result_bytes[gone - operands]
    return peak


@cache
def item_bytes(dtype: str) -> int:
    """Bytes of one element of a dtype given by name."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize  # numpy knows it only where ml_dtypes is imported
