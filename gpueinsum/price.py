"""What a plan takes on a device: predicted seconds, step by step, for arrays that lie in the order of their terms."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from gpueinsum.axes import contiguous, points
from gpueinsum.cost import item_bytes
from gpueinsum.gemm import Pair, Route, SizesKey, Strides, cheapest
from gpueinsum.plan import Plan
from gpueinsum.profile import Profile
from gpueinsum.steps import Contract, Expand, Fused, Reduce, Step, distinct, sides
from gpueinsum.subscripts import Label, Term
from gpueinsum.timing import pass_seconds

# Arrays of fewer elements count as if every product took them as they lie: to find out would take longer than to copy.
SMALL = 1 << 15


def plan_seconds(plan: Plan, profile: Profile) -> float:
    """Predicted seconds of all steps, one after the other."""
    size = dict(plan.sizes)
    return sum(step_seconds(step, size, plan.dtype, profile) for step in plan.steps)


def step_seconds(step: Step, size: Mapping[Label, int], dtype: str, profile: Profile) -> float:
    """Predicted seconds of one step whose sources lie in the order of their terms, and whose result is to do so."""
    if step.is_view(size):
        return 0.0
    if isinstance(step, Contract) and is_product(step, size, dtype, profile):
        is_small = sum(points(term, size) for term in (step.lhs_term, step.rhs_term, step.out)) < SMALL
        if is_small:
            return ideal_seconds(step, size, dtype, profile)
        return way_of(step, size, dtype, profile).seconds
    read = sum(points(distinct(term), size) for _, term in sides(step))
    flops = points(step.out + step.summed, size) * (2 if isinstance(step, Contract | Fused) else 1)
    is_permuted = isinstance(step, Reduce | Expand) and bool(step.out) and step.out[-1:] != step.term[-1:]
    return pass_seconds(profile, (read + points(step.out, size)) * item_bytes(dtype), flops, is_permuted)


def ideal_seconds(step: Contract, size: Mapping[Label, int], dtype: str, profile: Profile) -> float:
    """Predicted seconds of a product whose sides lie as it wants them."""
    return Pair(step, size, dtype, profile).ideal_seconds()


def is_product(step: Contract, size: Mapping[Label, int], dtype: str, profile: Profile) -> bool:
    """Whether a pair is a product of matrices, and not a pass over memory."""
    rows, columns, summed = (points(x, size) for x in (step.left, step.right, step.summed))
    return min(rows, columns, summed) > 1 and profile.rate(dtype) is not None


def way_of(step: Contract, size: Mapping[Label, int], dtype: str, profile: Profile, as_planned: bool = True) -> Route:
    """The cheapest way to run a pair of sides that lie in the order of their terms."""
    precision, aligned = None, True  # said as `route_for` says it, which finds this in the cache
    return cheapest(*way_arguments(step, size), dtype, profile, as_planned, precision, aligned)


def way_arguments(step: Contract, size: Mapping[Label, int]) -> tuple[Contract, SizesKey, Strides, Strides]:
    """Step, sizes and strides as `gemm.cheapest` and `gemm.routes` take them; equal for equal pairs."""
    sizes = tuple((label, size[label]) for label in dict.fromkeys(step.lhs_term + step.rhs_term))
    return step.reading(0, 1), sizes, _strides(step.lhs_term, sizes), _strides(step.rhs_term, sizes)


@lru_cache(maxsize=4096)
def _strides(term: Term, sizes: SizesKey) -> Strides:
    strides = contiguous(term, dict(sizes))
    return tuple(strides[label] for label in term)
