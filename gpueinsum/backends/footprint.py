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
from gpueinsum.schedule.problem import Strides
from gpueinsum.schedule.schedule import Schedule, schedule
from gpueinsum.schedule.slices import SlicesSchedule, read_strides, schedule_slices


def peak_bytes(plan: Plan, device: str | Profile | None = None) -> int:
    """`Plan.peak_bytes`. Raises ProfileError for what is no device."""
    return _peak_bytes(plan, device, frozenset(), None)


def _peak_bytes(
    plan: Plan, device: str | Profile | None, packed: frozenset[int], strides: tuple[Strides, ...] | None
) -> int:
    """Steps read copies of the operands that are `packed`, slices copies of parts of them."""
    if device is None:
        return counts.peak_bytes(plan)
    profile = device if isinstance(device, Profile) else device_profile(device)
    if not plan.sliced:
        read = None if strides is None else read_strides(plan, packed, strides)
        return schedule_bytes(schedule(plan, profile, read))
    return _bytes_in_slices(plan, schedule_slices(plan, profile, packed, strides))


def _bytes_in_slices(plan: Plan, made: SlicesSchedule) -> int:
    once, each, profile = schedule_bytes(made.once), made.each, made.once.profile
    nbytes = schedule_bytes(each) if isinstance(each, Schedule) else _bytes_in_slices(made.slices.each, each)
    return counts.peak_in_slices(plan, once, nbytes, lambda part: peak_bytes(part, profile))


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
    plan: Plan,
    device: str | Profile | None,
    dtypes: Sequence[np.dtype[Any]],
    streamed: frozenset[int] = frozenset(),
    strides: tuple[Strides, ...] | None = None,
) -> int:
    """Of a run for operands of these dtypes, some `streamed` from the host: `peak_bytes` and `copied_bytes`.

    `strides` are the operands' in elements, those of C order by default.
    """
    packed = streamed | cast_operands(plan, dtypes)
    return _peak_bytes(plan, device, packed, strides) + copied_bytes(plan, dtypes, streamed)


def cast_operands(plan: Plan, dtypes: Sequence[np.dtype[Any]]) -> frozenset[int]:
    """The operands of these dtypes that a run casts to the plan's."""
    return frozenset([k for k, dtype in enumerate(dtypes) if dtype.name != plan.dtype or not dtype.isnative])


def copied_bytes(plan: Plan, dtypes: Sequence[np.dtype[Any]], streamed: Collection[int] = ()) -> int:
    """Of what a run keeps of operands of these dtypes beside them, on top of `peak_bytes`.

    That is their casts to the plan's dtype, one part at a time of what slices take parts of; and two buffers for parts
    of each operand that is `streamed` from the host.
    """
    item, parts = item_bytes(plan.dtype), cut(plan).part_shapes()
    copies = dict.fromkeys(cast_operands(plan, dtypes), 1) | dict.fromkeys(streamed, 2)
    return sum(math.prod(parts.get(k, plan.shape(k))) * item * number for k, number in copies.items())
