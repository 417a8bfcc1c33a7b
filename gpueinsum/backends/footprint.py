"""The memory that a run of a plan takes beside its operands, known before it runs: bytes, on any device or on one."""

from __future__ import annotations

from gpueinsum.backends.cuda.lower import assemble, c_ordered
from gpueinsum.backends.execute import scheduled
from gpueinsum.costs import counts as cost
from gpueinsum.costs.counts import item_bytes
from gpueinsum.costs.profile import Profile, device_profile
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Contract, Step
from gpueinsum.language.strides import points
from gpueinsum.schedule.predict import is_routed, way_of


def peak_bytes(plan: Plan, device: str | Profile | None = None) -> int:
    """`Plan.peak_bytes`. Raises ProfileError for what is no device."""
    if device is None:
        return cost.peak_bytes(plan)
    profile = device if isinstance(device, Profile) else device_profile(device)
    return bytes_on(scheduled(plan, profile), profile)


def bytes_on(plan: Plan, profile: Profile) -> int:
    """Of a run of a plan that is scheduled for the device, on operands in C order.

    Exact on CUDA, where all of it is allocated at once; but what is more than the device has is counted without the
    device's own scratch.
    """
    if profile.kind == "cpu":
        return cost.peak_bytes(plan, [_copies_bytes(step, plan, profile) for step in plan.steps])
    least = cost.peak_bytes(plan)
    if least > profile.memory_bytes:
        return least
    item = item_bytes(plan.dtype)
    strides = [tuple([item * step for step in c_ordered(plan.shape(number))]) for number in range(len(plan.inputs))]
    return assemble(plan, strides, None, profile.processors, profile).bytes


def _copies_bytes(step: Step, plan: Plan, profile: Profile) -> int:
    """Of the sides that the step's product copies first."""
    size = dict(plan.sizes)
    if not (isinstance(step, Contract) and is_routed(step, size, plan.dtype, profile)):
        return 0
    way = way_of(step, size, plan.dtype, profile)
    copied = [term for term in (way.copy_lhs, way.copy_rhs) if term is not None]
    return sum(points(term, size) for term in copied) * item_bytes(plan.dtype)
