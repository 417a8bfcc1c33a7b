"""The machine's limits: plain GEMMs, copies, the cost of a call; and the GEMMs and copies that equal a row's plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

import gpueinsum as ge
from benchmarks.devices import Call, Device
from benchmarks.measure import Peer, Times, failure, measure
from benchmarks.results import Ceilings, CopyCeiling, GemmCeiling, Overhead
from gpueinsum.costs.counts import multiply_add_flops, step_costs
from gpueinsum.language.steps import Contract, Step
from gpueinsum.language.strides import points

_DTYPES = {
    "cpu": ("float32", "float64", "complex64", "complex128"),
    "cuda": ("float32", "tf32", "float64", "complex64", "complex128", "float16", "bfloat16"),
}
# Size class: batch, m, n, k.
_SIZES = {
    "cpu": {
        "small": (1, 64, 64, 64),
        "medium": (1, 384, 384, 384),
        "large": (1, 1536, 1536, 1536),
        "batched": (256, 64, 64, 64),
    },
    "cuda": {
        "small": (1, 256, 256, 256),
        "medium": (1, 2048, 2048, 2048),
        "large": (1, 8192, 8192, 8192),
        "batched": (2048, 128, 128, 128),
    },
}
# Bytes copied, so half of what is moved: within the last cache, and many times past it.
_COPIES = {"cpu": {"cached": 4 << 20, "memory": 256 << 20}, "cuda": {"cached": 8 << 20, "memory": 2 << 30}}

# A product that touches fewer bytes is a matter of the call: its ceiling is a bare product, whatever the rates say.
_TINY = 1 << 16


# ---------------------------------------------------------------- the machine's


def ceilings(place: Device, seconds: float, is_tiny: bool = False) -> Ceilings:
    """Measure them, each for so many seconds; `is_tiny` for sizes that only show that all of it runs."""
    wanted = [*_gemms(place, is_tiny), *_copies(place, is_tiny), *_calls(place)]
    measured: list[Any] = []
    faults = {}
    for name, make, prepare in wanted:
        try:
            times = measure({name: Peer([prepare()], compiles=place.kind == "cuda")}, place, seconds)
        except Exception as error:  # memory that is not there, say
            times = Times({}, {name: failure(error)})
        measured += [make(times.seconds[name])] if name in times.seconds else []
        faults.update(times.faults)
    of = {kind: tuple(item for item in measured if isinstance(item, kind)) for kind in _KINDS}
    return Ceilings(of[GemmCeiling], of[CopyCeiling], of[Overhead], faults)


_KINDS: tuple[Any, ...] = (GemmCeiling, CopyCeiling, Overhead)
Wanted = tuple[str, Callable[[Sequence[float]], Any], Callable[[], Call]]  # its name, from its times to it, its call


def _gemms(place: Device, is_tiny: bool) -> Iterator[Wanted]:
    for dtype in _DTYPES[place.kind]:
        kind, precision = ("float32", "tf32") if dtype == "tf32" else (dtype, None)
        for size, (batch, m, n, k) in _SIZES[place.kind].items():
            if is_tiny:
                batch, m, n, k = min(batch, 2), 7, 5, 3
            flops = multiply_add_flops(kind) * batch * m * n * k
            make = partial(GemmCeiling, dtype, size, batch, m, n, k, flops)
            yield f"{size} GEMM, {dtype}", make, partial(place.gemm, kind, precision, batch, m, n, k)


def _copies(place: Device, is_tiny: bool) -> Iterator[Wanted]:
    for number, (size, nbytes) in enumerate(_COPIES[place.kind].items()):
        nbytes = 64 << number if is_tiny else nbytes
        yield f"copy, {size}", partial(CopyCeiling, size, 2 * nbytes), partial(place.copy, nbytes)


def _calls(place: Device) -> Iterator[Wanted]:
    """Calls with next to nothing to do."""
    xp = place.xp
    a, b, out = (place.put(np.ones((2, 2))) for _ in range(3))
    calls: dict[str, Callable[[], Call]] = {
        f"{xp.__name__}.add": lambda: partial(xp.add, a, b, out),
        f"{xp.__name__}.matmul": lambda: partial(xp.matmul, a, b),
        f"{xp.__name__}.einsum": lambda: partial(xp.einsum, "ij,jk->ik", a, b),
        "gpueinsum.einsum": lambda: partial(ge.einsum, "ij,jk->ik", a, b),
        f"{xp.__name__}.sum": lambda: partial(xp.sum, a, 1),
        "gpueinsum.einsum, a sum": lambda: partial(ge.einsum, "ij->i", a),
        f"{xp.__name__}.empty": lambda: partial(xp.empty, (2, 2)),  # the part of both that makes a result
    }
    if place.kind == "cuda":
        empty = partial(xp.RawKernel, 'extern "C" __global__ void nothing() {}', "nothing")

        def launch_and_wait() -> Call:
            kernel = empty()
            return lambda: (kernel((1,), (1,), ()), xp.cuda.get_current_stream().synchronize())

        calls |= {
            "launch of an empty kernel": lambda: partial(empty(), (1,), (1,), ()),
            "launch and wait": launch_and_wait,
        }
    for name, prepare in calls.items():
        yield name, partial(Overhead, name), prepare


# ---------------------------------------------------------------- a row's


def equal_work(plan: ge.Plan, precision: str | None, found: Ceilings, place: Device) -> Call:
    """A call that does the plan's work as plain GEMMs and copies, each step the one that takes the longer."""
    calls = [
        _product(step, plan, precision, place) if is_product else place.copy(cost.bytes_moved // 2)
        for step, cost, is_product in zip(
            plan.steps, step_costs(plan), _are_products(plan, precision, found), strict=True
        )
        if cost.bytes_moved
    ]
    if len(calls) == 1:
        return calls[0]

    def run() -> None:
        for call in calls:
            call()

    return run


def bound(plan: ge.Plan, precision: str | None, found: Ceilings) -> str:
    """ "gemm" or "copy": which of them takes most of the time of the equal work, by the measured rates."""
    rate, bandwidth = _rates(plan, precision, found)
    gemm = copy = 0.0
    for cost, is_product in zip(step_costs(plan), _are_products(plan, precision, found), strict=True):
        if is_product:
            gemm += cost.flops / rate
        else:
            copy += cost.bytes_moved / bandwidth
    return "gemm" if gemm > copy else "copy"


def _are_products(plan: ge.Plan, precision: str | None, found: Ceilings) -> list[bool]:
    rate, bandwidth = _rates(plan, precision, found)
    return [
        isinstance(step, Contract)
        and (cost.flops / rate > cost.bytes_moved / bandwidth or (cost.bytes_moved < _TINY and _has_all_sides(step)))
        for step, cost in zip(plan.steps, step_costs(plan), strict=True)
    ]


def _has_all_sides(step: Contract) -> bool:
    return bool(step.left and step.right and step.summed)


def _rates(plan: ge.Plan, precision: str | None, found: Ceilings) -> tuple[float, float]:
    """Operations and bytes a second; a dtype without a GEMM of its own has another's; infinite if none was measured."""
    wider: Mapping[str, Sequence[str]] = {"float16": ["float32"], "bfloat16": ["float32"]}
    names = [precision or plan.dtype, *wider.get(plan.dtype, ["float64"])]
    rate = next((rate for name in names if (rate := found.flops_per_second(name))), math.inf)
    return rate, found.bytes_per_second or math.inf


def _product(step: Step, plan: ge.Plan, precision: str | None, place: Device) -> Call:
    assert isinstance(step, Contract)
    size = dict(plan.sizes)
    batch, m, n, k = (points(labels, size) for labels in (step.batch, step.left, step.right, step.summed))
    return place.gemm(plan.dtype, precision, batch, m, n, k)
