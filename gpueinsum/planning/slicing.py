"""Plan to plan: labels sliced until the plan keeps to a number of bytes, at the least extra time by its price."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from gpueinsum.costs import counts
from gpueinsum.costs.profile import Profile
from gpueinsum.errors import PlanError
from gpueinsum.language.plan import Plan
from gpueinsum.language.subscripts import Label
from gpueinsum.planning.blocks import BlockModel
from gpueinsum.planning.checkpoint import find
from gpueinsum.text import bytes_text

# A device may need less than all arrays of a plan take, as steps are fused; that is laid out for smaller plans only.
_FUSED = 4
# Of the limit what arrays alone may take; the rest is for what steps take for themselves.
_SHARES = (1.0, 0.9, 0.75, 0.5, 0.25)
_FACTORS = (1, 2, 4, 1 << 60)  # of the limit, to which slices alone are to keep where parts are computed again


def slice_plan(plan: Plan, limit: int, profile: Profile, peak: Callable[[Plan], int], runs: int) -> Plan:
    """The plan with such sliced labels that its `peak` keeps to `limit` bytes. Raises PlanError, saying what would do.

    `peak` is a plan's in bytes on the device, with what steps take for themselves. The search takes no longer, as it is
    predicted, than so many `runs` of the plan.
    """
    if counts.peak_bytes(plan) <= _FUSED * limit and peak(plan) <= limit:
        return plan
    model = BlockModel(replace(plan, sliced=()), profile)
    for share in _SHARES:
        for blocks in model.choose(int(share * limit), runs):
            found = sliced(plan, blocks)
            if peak(found) <= limit:
                return found
    least = peak(sliced(plan, model.smallest()))
    message = f"a memory_limit of {bytes_text(limit)} is too small for {plan.equation:.60} in any slices"
    raise PlanError(f"{message}: {bytes_text(least)} ({least} bytes) would do")


def fit_plan(
    plan: Plan,
    limit: int,
    profile: Profile,
    peak: Callable[[Plan], int],
    seconds: Callable[[Plan], float],
    runs: int,
) -> Plan:
    """The plan within `limit` bytes: in slices, with parts computed again, or both, by the least predicted `seconds`.

    That is for plans that read registers again much later, as derivatives do; the rest is as in `slice_plan`.
    """
    found, refused = list[Plan](), None
    for factor in _FACTORS:
        try:
            trial = slice_plan(plan, factor * limit, profile, peak, runs)
        except PlanError as error:
            refused = refused or error
            continue
        fitting = trial if peak(trial) <= limit else _again(trial, limit, peak)
        found += [fitting] if fitting is not None else []
        if not trial.sliced:
            break
    if not found:
        assert refused is not None
        raise refused
    return min(found, key=seconds) if len(found) > 1 else found[0]


def _again(plan: Plan, limit: int, peak: Callable[[Plan], int]) -> Plan | None:
    """The plan with parts computed again, within so many bytes."""
    for share in _SHARES:
        found = find(plan, int(share * limit))
        if found is None:
            return None
        if peak(found[0]) <= limit:
            return found[0]
    return None


def sliced(plan: Plan, blocks: Mapping[Label, int]) -> Plan:
    """The plan with these sliced labels; those of the fewest blocks are the outermost loops."""
    size = dict(plan.sizes)
    order = sorted(blocks, key=lambda label: size[label] / blocks[label])
    return replace(plan, sliced=tuple([(label, blocks[label]) for label in order]))
