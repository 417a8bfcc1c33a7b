"""The memory that a run of a plan takes beside its operands, known before it runs: bytes, on any device or on one."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from gpueinsum.costs import counts
from gpueinsum.costs.counts import item_bytes
from gpueinsum.costs.profile import Profile, device_profile
from gpueinsum.language.plan import Plan
from gpueinsum.language.slices import cut
from gpueinsum.schedule.schedule import Schedule, schedule
from gpueinsum.schedule.slices import schedule_slices


def peak_bytes(plan: Plan, device: str | Profile | None = None) -> int:
    """`Plan.peak_bytes`. Raises ProfileError for what is no device."""
    return _peak_bytes(plan, device, frozenset())


def _peak_bytes(plan: Plan, device: str | Profile | None, packed: frozenset[int]) -> int:
    """Slices read copies of the parts of operands that are `packed`."""
    if device is None:
        return counts.peak_bytes(plan)
    profile = device if isinstance(device, Profile) else device_profile(device)
    if not plan.sliced:
        return schedule_bytes(schedule(plan, profile))
    made = schedule_slices(plan, profile, packed)
    once, each = schedule_bytes(made.once), schedule_bytes(made.each)
    return counts.peak_in_slices(plan, once, each, lambda part: peak_bytes(part, profile))


def schedule_bytes(made: Schedule) -> int:
    """Of a run of a schedule.

    Exact on CUDA, where all of it is allocated at once; but what is more than the device has is counted without the
    scratch of kernels.
    """
    from gpueinsum.backends.cuda.lower import assemble

    foreseen = made.peak_bytes
    if made.profile.kind == "cpu" or foreseen > made.profile.memory_bytes:
        return foreseen
    return assemble(made).bytes


def run_bytes(
    plan: Plan, device: str | Profile | None, dtypes: Sequence[np.dtype[Any]], streamed: frozenset[int] = frozenset()
) -> int:
    """Of a run for operands of these dtypes, some `streamed` from the host: `peak_bytes` and `copied_bytes`."""
    cast = [number for number, dtype in enumerate(dtypes) if _is_cast(plan, dtype)]
    return _peak_bytes(plan, device, streamed.union(cast)) + copied_bytes(plan, dtypes, streamed)


def copied_bytes(plan: Plan, dtypes: Sequence[np.dtype[Any]], streamed: Collection[int] = ()) -> int:
    """Of what a run keeps of operands of these dtypes beside them, on top of `peak_bytes`.

    That is their casts to the plan's dtype, one part at a time of what slices take parts of; and two buffers for parts
    of each operand that is `streamed` from the host.
    """
    item, parts = item_bytes(plan.dtype), cut(plan).part_shapes()
    taken = 0
    for k, dtype in enumerate(dtypes):
        copies = 2 if k in streamed else int(_is_cast(plan, dtype))
        taken += math.prod(parts.get(k, plan.shape(k))) * item * copies
    return taken


def _is_cast(plan: Plan, dtype: np.dtype[Any]) -> bool:
    return dtype.name != plan.dtype or not dtype.isnative
