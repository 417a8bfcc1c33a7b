"""What a plan takes on a device: predicted seconds, step by step, for arrays that lie in the order of their terms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

from gpueinsum.costs.counts import item_bytes, product_flops, step_cost
from gpueinsum.costs.profile import Profile
from gpueinsum.costs.seconds import pass_seconds, product_seconds
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Contract, Reduce, Step, distinct, sides, without
from gpueinsum.language.strides import contiguous, label_strides, points
from gpueinsum.language.subscripts import Label, Term
from gpueinsum.schedule.mapping import Case, Route, SizesKey, Strides, cheapest

# Arrays of fewer elements count as if every product took them as they lie: to find out would take longer than to copy.
# On a GPU whatever is done with them takes a launch.
_SMALL = 1 << 15
_LINE = {"cpu": 64, "cuda": 32}  # bytes that memory gives at once: a line of a cache, a sector of one
# A tiny product sums no more elements, for no more rows or columns, and its arithmetic takes a pass no more times as
# long as its bytes: gates on one and two qubits, batches of 4 x 4. By reasoning; not measured yet.
_TINY, _BUSY = 8, 2.0


def plan_seconds(plan: Plan, profile: Profile) -> float:
    """Predicted seconds of all steps, one after the other."""
    size = dict(plan.sizes)
    return sum(step_seconds(step, size, plan.dtype, profile) for step in plan.steps)


def step_seconds(step: Step, size: Mapping[Label, int], dtype: str, profile: Profile) -> float:
    """Predicted seconds of one step whose sources lie in the order of their terms, and whose result is to do so."""
    try:
        return _step_seconds(step, size, dtype, profile)
    except OverflowError:  # more elements than a float can tell
        return math.inf


def _step_seconds(step: Step, size: Mapping[Label, int], dtype: str, profile: Profile) -> float:
    if step.is_view(size):
        return 0.0
    if isinstance(step, Contract) and step.summed and not is_tiny(step, size, dtype, profile):
        has_ways = is_routed(step, size, dtype, profile)
        return way_of(step, size, dtype, profile).seconds if has_ways else ideal_seconds(step, size, dtype, profile)
    cost, item = step_cost(step, size, dtype), item_bytes(dtype)
    loses = profile.kind == "cuda" and cost.bytes_moved > profile.cache_bytes
    again = _read_again(step, size, profile.cache_bytes // item) if loses else 0
    beside = _read_beside(step, size, _LINE[profile.kind] // item) if isinstance(step, Reduce) else 0
    permuted = _permuted(step, size) * item
    return pass_seconds(profile, cost.bytes_moved + (again + beside) * item, cost.flops, permuted, len(step.sources))


def _read_again(step: Step, size: Mapping[Label, int], cached: int) -> int:
    """Elements that a pass on CUDA reads again from memory, since more than are `cached` were read in between.

    It goes along the result in C order: `ij,jb->ib` reads `jb` once for each i, `ij,ajb->aib` only once for all.
    """
    total = 0
    for _, term in sides(step):
        times = 1
        for place, label in enumerate(step.out):
            if label not in term and points(without(distinct(term), step.out[:place]), size) > cached:
                times *= size[label]
        total += (times - 1) * points(distinct(term), size)
    return total


def _read_beside(step: Reduce, size: Mapping[Label, int], line: int) -> int:
    """Elements that come from memory with those of a diagonal, which has no neighbours in a line of so many.

    `ijki->jk` of 64 each, float64, took 0.61 ms on 2 cores of an AMD EPYC: predicted 0.07 without, 0.18 with these.
    """
    term, once = step.term, distinct(step.term)
    if len(once) == len(term):
        return 0
    strides = [math.prod([size[label] for label in term[place + 1 :]]) for place in range(len(term))]
    apart = min(label_strides(term, strides).values())
    return (min(apart, max(line, 1)) - 1) * points(once, size)


def _permuted(step: Step, size: Mapping[Label, int]) -> int:
    """Elements that a pass moves across: it goes along the last axis of what it reads or of what it writes.

    3000 x 3000, float32: `ij,ji->ij` took 11.5 ms and is predicted 11.7 (2 cores of an AMD EPYC), `ij,ij->ij` 3.4 and
    3.7, `ij->i`, which writes nothing along what it reads, 1.2 and 2.3.
    """
    last = step.out[-1:]
    if not last:
        return 0
    across = [term for _, term in sides(step) if last in term and term[-1] != last and term[-1] in step.out]
    return min(sum(points(term, size) for term in across), points(step.out, size))


def ideal_seconds(step: Contract, size: Mapping[Label, int], dtype: str, profile: Profile) -> float:
    """Predicted seconds of a pair whose sides lie as it wants them."""
    return pair_seconds(profile, dtype, *_sizes(step, size))


def pair_seconds(profile: Profile, dtype: str, batch: int, rows: int, columns: int, summed: int) -> float:
    """Predicted seconds of a pair by its numbers alone: a product, or a pass over memory if that is faster.

    What has a single row, column or element to sum may be either, what is tiny or has no library on the device is a
    pass.
    """
    moved = item_bytes(dtype) * batch * (rows * summed + summed * columns + rows * columns)
    results = batch * rows * columns
    by_pass = pass_seconds(profile, moved, product_flops(dtype, results * summed, results), arrays=2)
    if summed == 1 or profile.rate(dtype) is None or _is_tiny(profile, dtype, batch, rows, columns, summed):
        return by_pass
    by_product = product_seconds(profile, dtype, batch, rows, columns, summed, moved)
    return by_product if min(rows, columns) > 1 else min(by_product, by_pass)


def _is_tiny(profile: Profile, dtype: str, batch: int, rows: int, columns: int, summed: int) -> bool:
    """Whether many elements are in matrices so small that on a GPU a pass over them waits for memory.

    A product of cuBLAS' computes whole tiles of rows, columns and sums, for each of a batch anew, and of tall and
    skinny matrices reaches a part of memory's rate (Ernst et al., "Performance engineering for real and complex tall &
    skinny matrix multiplication kernels on GPUs", 2020, on a V100).
    """
    if profile.kind == "cpu" or max(summed, min(rows, columns)) > _TINY:
        return False
    elements, results = batch * (rows * summed + summed * columns + rows * columns), batch * rows * columns
    moved = elements * item_bytes(dtype)
    if elements < _SMALL or moved > profile.memory_bytes:  # which may be more than a float can tell
        return False
    moving = moved / profile.bytes_per_second
    computing = product_flops(dtype, results * summed, results) / profile.loop_flops_per_second
    return computing <= _BUSY * moving


def is_routed(step: Contract, size: Mapping[Label, int], dtype: str, profile: Profile) -> bool:
    """Whether a pair is a product of matrices that are large enough to ask which way to run it is the cheapest."""
    elements = points(step.lhs_term, size) + points(step.rhs_term, size) + points(step.out, size)
    return elements >= _SMALL and is_product(step, size, dtype, profile)


def is_product(step: Contract, size: Mapping[Label, int], dtype: str, profile: Profile) -> bool:
    """Whether a pair is a product of matrices, and not a pass over memory."""
    batch, *sizes = _sizes(step, size)
    return min(sizes) > 1 and profile.rate(dtype) is not None and not _is_tiny(profile, dtype, batch, *sizes)


def is_tiny(step: Contract, size: Mapping[Label, int], dtype: str, profile: Profile) -> bool:
    """Whether a pair of matrices is a pass over memory for being so small."""
    if profile.kind == "cpu":  # where this is asked most often
        return False
    batch, *sizes = _sizes(step, size)
    return min(sizes) > 1 and _is_tiny(profile, dtype, batch, *sizes) and profile.rate(dtype) is not None


def _sizes(step: Contract, size: Mapping[Label, int]) -> tuple[int, int, int, int]:
    """How many matrices, rows, columns and elements to sum."""
    batch, rows, columns, summed = (points(x, size) for x in (step.batch, step.left, step.right, step.summed))
    return batch, rows, columns, summed


def way_of(step: Contract, size: Mapping[Label, int], dtype: str, profile: Profile, as_planned: bool = True) -> Route:
    """The cheapest way to run a pair of sides that lie in the order of their terms."""
    return cheapest(case_of(step, size, dtype, profile), as_planned)


def case_of(
    step: Contract,
    size: Mapping[Label, int],
    dtype: str,
    profile: Profile,
    precision: str | None = None,
    aligned: bool = True,
) -> Case:
    """A pair of sides that lie in the order of their terms; equal for equal pairs."""
    sizes = tuple((label, size[label]) for label in dict.fromkeys(step.lhs_term + step.rhs_term))
    strides = _strides(step.lhs_term, sizes), _strides(step.rhs_term, sizes)
    return Case(step.reading(0, 1), sizes, *strides, dtype, profile, precision, aligned)


@lru_cache(maxsize=4096)
def _strides(term: Term, sizes: SizesKey) -> Strides:
    strides = contiguous(term, dict(sizes))
    return tuple(strides[label] for label in term)
