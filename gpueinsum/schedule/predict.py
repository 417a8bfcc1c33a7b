"""Predicted seconds of steps and plans on a device, for arrays that lie in the order of their terms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from gpueinsum.costs.counts import step_cost
from gpueinsum.costs.profile import Profile
from gpueinsum.costs.seconds import pair_seconds, pass_seconds
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Add, Contract, Expand, Reduce, Step
from gpueinsum.language.strides import points
from gpueinsum.language.subscripts import Label, Term
from gpueinsum.schedule.cpu import small_pair
from gpueinsum.schedule.fusion import Fused
from gpueinsum.schedule.problem import Problem, Strides, c_strides
from gpueinsum.schedule.select import cheapest


def problem_of(
    step: Contract | Reduce | Expand | Fused,
    size: Mapping[Label, int],
    dtype: str,
    profile: Profile,
    strides: Sequence[Strides] | None = None,
    precision: str | None = None,
    aligned: bool = True,
    is_ordered: bool = False,
) -> Problem:
    """A step of sources with these strides in elements; in the order of their terms by default."""
    terms: tuple[Term, ...]
    marks: tuple[bool, ...]
    match step:
        case Contract():
            terms, marks = (step.lhs_term, step.rhs_term), (step.conj_lhs, step.conj_rhs)
        case Fused():
            terms, marks = step.terms, step.conjugated
        case Reduce() | Expand():
            terms, marks = (step.term,), (False,)
    if any(marks) and not (dtype.startswith("complex") or dtype == "object"):
        marks = (False,) * len(terms)
    sizes = tuple([(label, size[label]) for label in dict.fromkeys("".join(terms) + step.out)])
    if strides is None:
        strides = [c_strides(term, size) for term in terms]
    return Problem(
        terms, step.out, marks, tuple(strides), sizes, dtype, profile, precision, aligned, is_ordered=is_ordered
    )


def step_seconds(
    step: Step | Fused,
    size: Mapping[Label, int],
    dtype: str,
    profile: Profile,
    strides: Sequence[Strides] | None = None,
) -> float:
    """Of one step whose result is to lie in the order of its term; `strides` are the sources', as in `problem_of`."""
    if isinstance(step, Add):
        return add_seconds(step, size, dtype, profile)
    if isinstance(step, Contract) and not (step.conj_lhs or step.conj_rhs):
        small = small_pair(step.lhs_term, step.rhs_term, step.out, size, dtype, profile)
        if small is not None:
            return small.seconds
    return cheapest(problem_of(step, size, dtype, profile, strides, is_ordered=True))[1].seconds


def add_seconds(step: Add, size: Mapping[Label, int], dtype: str, profile: Profile) -> float:
    """Of a sum of arrays."""
    try:
        cost = step_cost(step, size, dtype)
        return pass_seconds(profile, cost.bytes_moved, cost.flops, arrays=len(step.sources))
    except OverflowError:  # more elements than a float can tell
        return math.inf


def plan_seconds(plan: Plan, profile: Profile, strides: Sequence[Strides] | None = None) -> float:
    """Of all steps, one after the other, for operands with these strides."""
    size = dict(plan.sizes)
    return sum(step_seconds(step, size, plan.dtype, profile, read(plan, size, step, strides)) for step in plan.steps)


def read(
    plan: Plan, size: Mapping[Label, int], step: Step | Fused, strides: Sequence[Strides] | None
) -> list[Strides] | None:
    """The strides of what a step reads: of operands these, of intermediates those of their terms' order.

    None stands for that order throughout.
    """
    if strides is None or not any(source < len(plan.inputs) for source in step.sources):
        return None
    return [
        strides[source] if source < len(plan.inputs) else c_strides(plan.term(source), size) for source in step.sources
    ]


def ideal_seconds(step: Contract, size: Mapping[Label, int], dtype: str, profile: Profile) -> float:
    """Of a pair whose sides lie as it wants them."""
    batch, rows, columns, summed = (points(x, size) for x in (step.batch, step.left, step.right, step.summed))
    return pair_seconds(profile, dtype, batch, rows, columns, summed)
