"""What a call within a limit of memory must do: keep to it, or name a limit under which it does; and large calls."""

import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from random import Random
from typing import Any

import numpy as np
from random_expressions import VALUES, call_arguments, random_cast, random_dtypes, random_skeleton

import gpueinsum as ge
from gpueinsum.costs.counts import total_flops

PARTS = 2, 10, 100  # of what a call takes without a limit, as limits


def run_within(run: Callable[[int], Any], limit: int) -> int:
    """Run within the limit, or within the one that the refusal names: that limit."""
    try:
        run(limit)
    except ge.LimitError as error:
        refused = error
    else:
        return limit
    enough = refused.least
    assert enough > limit, f"{limit} bytes are refused, and {enough} would do"
    assert f"({enough} bytes) would do" in str(refused)
    run(enough)
    return enough


def taken(run: Callable[[], Any]) -> tuple[Any, int]:
    """What a call gives, and the most bytes of the host that it takes at once."""
    tracemalloc.start()
    try:
        result = run()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@dataclass(frozen=True)
class LargeCall:
    """A call with arrays of some 1e5 elements, in any layouts, so that numpy's buffers are small beside them."""

    args: tuple[Any, ...]
    options: dict[str, Any]
    operands: list[np.ndarray]
    description: str


def large_call(rng: Random) -> LargeCall | None:
    """The next one; None where every array is small."""
    skeleton = random_skeleton(rng)
    skeleton.dtypes = random_dtypes(rng, len(skeleton.terms))
    sizes = [size for shape in skeleton.shapes for size in shape]
    if max(sizes, default=0) < 2 or 0 in sizes or max(map(len, skeleton.shapes)) > 8 or object in skeleton.dtypes:
        return None
    options = random_cast(rng, skeleton.dtypes)
    shapes = skeleton.shapes
    for factor in 1.25 ** np.arange(1, 60):
        larger = [
            tuple([max(2, round(size * factor)) if size > 1 else size for size in own]) for own in skeleton.shapes
        ]
        plan = ge.einsum_plan(*call_arguments(Random(0), skeleton, [np.broadcast_to(0.0, own) for own in larger]))
        if total_flops(plan) > 1e7 or max(plan.peak_bytes() / 32, *map(prod, larger)) > 2e5:
            break
        shapes = larger
    numbers = np.random.default_rng(rng.randrange(1 << 30))
    operands = []
    for shape, dtype in zip(shapes, skeleton.dtypes, strict=True):
        axes = rng.sample(range(len(shape)), len(shape)) if rng.random() < 0.5 else [*range(len(shape))]
        values = VALUES[dtype, False]
        made = values[numbers.integers(0, len(values), [shape[axis] for axis in axes])]
        operands.append(made.transpose(np.argsort(axes)))
    args = call_arguments(rng, skeleton, operands)
    arrays = ", ".join(f"{operand.dtype}{operand.shape} {operand.strides}" for operand in operands)
    return LargeCall(args, options, operands, f"{skeleton.terms} -> {skeleton.output}: {arrays}, {options}")
