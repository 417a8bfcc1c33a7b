"""The two passes of a gradient as plans, forward and backward, where need be within a limit of memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np

from gpueinsum.api.arguments import Options
from gpueinsum.api.dispatch import plan_within
from gpueinsum.api.limits import Room
from gpueinsum.costs.counts import item_bytes
from gpueinsum.errors import PlanError
from gpueinsum.language.plan import Plan
from gpueinsum.language.rewrite import prune, split
from gpueinsum.planning import derivatives as grad
from gpueinsum.planning.checkpoint import checkpoint
from gpueinsum.planning.path import Optimize

_T = TypeVar("_T")
_SHARES = (1.0, 0.9, 0.75, 0.5, 0.25)  # of a limit for arrays; what remains is for what steps take for themselves


class Passes(NamedTuple):
    """`both` passes as one plan, `first` and `rest` as they are run.

    The forward pass ends with the values; its first outputs are operands and intermediates that the backward pass
    takes after the cotangents.
    """

    both: Plan
    first: Plan
    rest: Plan

    def seconds(self, room: Room) -> float:
        """Predicted."""
        return room.seconds(self.first) + room.seconds(self.rest)


def plan_passes(plan: Plan, wrt: tuple[int, ...], options: Options, room: Room | None) -> Passes:
    """Both passes of a plan; within a room in the faster of two ways. Raises PlanError.

    Either the backward pass takes intermediates from the forward pass, and some are computed again; or each pass keeps
    to the limit by itself, and the backward pass begins with the operands, perhaps in slices.
    """
    search = search_of(options.optimize)
    if room is None:
        both = grad.vjp(plan, wrt, search)
        return _apart(plan, both, plan) if plan.sliced else _kept(plan, both, len(plan.steps))
    within, runs = room, options.runs
    ways = [partial(_apart_within, plan, wrt, optimize, runs, within) for optimize in (search, None)]
    if not plan.sliced:
        ways += [partial(_kept_within, plan, wrt, optimize, within) for optimize in (search, None)]
    return fastest(ways, lambda passes: passes.seconds(within))


def search_of(optimize: Optimize) -> Optimize:
    """How gradients are planned anew: neither a path nor an optimizer that remembers serves another expression."""
    return optimize if isinstance(optimize, str | bool) else "auto"


def fastest(ways: Iterable[Callable[[], _T]], seconds: Callable[[_T], float]) -> _T:
    """Of what several ways give the one of the fewest seconds. Raises the last one's PlanError if all do."""
    found, refused = list[_T](), None
    for way in ways:
        try:
            made = way()
        except PlanError as error:
            refused = error
        else:
            found += [made] if made not in found else []
    if not found:
        assert refused is not None
        raise refused
    return min(found, key=seconds) if len(found) > 1 else found[0]


# ---------------------------------------------------------------- intermediates are kept


def _kept(plan: Plan, both: Plan, forward: int) -> Passes:
    """The first `forward` steps of both are the forward pass."""
    values, inputs = len(plan.outputs), len(both.inputs)
    early = [*range(len(plan.inputs)), *range(inputs, inputs + forward)]
    return Passes(both, *split(replace(both, outputs=both.outputs[values:]), early, both.outputs[:values]))


def _kept_within(plan: Plan, wrt: tuple[int, ...], optimize: Optimize, room: Room) -> Passes:
    both = grad.vjp(plan, wrt, optimize)
    values, arrays = len(plan.outputs), replace(room, dtypes=())
    taken = _copied_bytes(both, values, len(plan.steps), room)
    for share in _SHARES:
        fitting, forward = checkpoint(both, int(share * room.bytes), len(plan.steps), taken)
        passes = _kept(plan, fitting, forward)
        first, owner = passes.first, passes.first.owners()
        stays = _bytes(first, {owner[register] for register in first.outputs if owner[register] >= len(plan.inputs)})
        peak = taken + max(arrays.peak(first), stays + arrays.peak(passes.rest))
        if peak <= room.bytes:
            return passes
    raise PlanError(f"the passes of {plan.equation:.60} take {peak} bytes, with what steps take for themselves")


def _copied_bytes(plan: Plan, values: int, forward: int, room: Room) -> int:
    """Bytes of casts of operands, and of copies of outputs that would be others' memory, or what a pullback keeps."""
    owner = plan.owners()
    cast = [k for k, dtype in enumerate(room.dtypes) if dtype != np.dtype(plan.dtype)]
    kept = {owner[source] for step in plan.steps[forward:] for source in step.sources}
    copied = {*plan.borrowed_outputs(), *(k for k in range(values) if owner[plan.outputs[k]] in kept)}
    return _bytes(plan, [*cast, *(plan.outputs[position] for position in copied)])


# ---------------------------------------------------------------- the backward pass begins with the operands


def _apart(plan: Plan, both: Plan, forward: Plan) -> Passes:
    """Nothing is kept but operands; `forward` computes the plan's values."""
    operands = range(len(plan.inputs))
    first, rest = split(prune(both, both.outputs[len(plan.outputs) :]), operands)
    return Passes(both, replace(forward, outputs=(*first.outputs, *forward.outputs)), rest)


def _apart_within(plan: Plan, wrt: tuple[int, ...], optimize: Optimize, runs: int, room: Room) -> Passes:
    """The values are there when the backward pass runs, and so are casts of operands if the forward pass made them."""
    forward = plan_within(plan, room, runs)
    casts = 0 if forward.sliced else room.peak(plan) - replace(room, dtypes=()).peak(plan)
    both = plan_within(grad.vjp(plan, wrt, optimize), room.less(casts), runs)
    return _apart(plan, both, forward)


def _bytes(plan: Plan, registers: Iterable[int]) -> int:
    return sum(math.prod(plan.shape(register)) for register in registers) * item_bytes(plan.dtype)
