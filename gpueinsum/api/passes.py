"""The two passes of a gradient as plans, forward and backward, where need be within a limit of memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np

from gpueinsum.api.arguments import Options
from gpueinsum.api.limits import Room
from gpueinsum.api.plans import plan_within
from gpueinsum.costs.counts import item_bytes
from gpueinsum.errors import LimitError
from gpueinsum.language.plan import Plan
from gpueinsum.language.rewrite import prune, split
from gpueinsum.planning import derivatives as grad
from gpueinsum.planning.checkpoint import find, too_small
from gpueinsum.planning.path import Optimize
from gpueinsum.schedule.problem import c_strides
from gpueinsum.schedule.schedule import schedule
from gpueinsum.schedule.slices import read_strides, strides_of

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
    left: Room | None = None  # within a limit: the room for `rest`, with the values and what it is given in memory

    def seconds(self, room: Room) -> float:
        """Predicted."""
        return room.seconds(self.first) + room.seconds(self.rest)


def plan_passes(plan: Plan, wrt: tuple[int, ...], options: Options, room: Room | None) -> Passes:
    """Both passes of a plan; within a room in the faster of two ways. Raises LimitError.

    Either the backward pass takes intermediates from the forward pass, and some are computed again; or each pass keeps
    to the limit by itself, and the backward pass begins with the operands, perhaps in slices.
    """
    both = grad.vjp(plan, wrt, search_of(options.optimize))
    whole = _apart(plan, both, plan) if plan.sliced else _kept(plan, both, len(plan.steps))
    if room is None:
        return whole
    if not plan.sliced:
        found = _kept_in(plan, whole, _copied_bytes(plan, both, room), room)
        if found is not None:
            return found
    try:
        return _within(plan, wrt, options, room)
    except LimitError as refused:
        least = refused.least
    while True:  # since each pass may need more than the one that was refused
        try:
            _within(plan, wrt, options, replace(room, bytes=least))
        except LimitError as again:
            least = max(again.least, least + least // 20 + 1)
        else:
            raise too_small(plan, room.bytes, least, " and its gradients")


def _within(plan: Plan, wrt: tuple[int, ...], options: Options, room: Room) -> Passes:
    search = search_of(options.optimize)
    ways: list[Callable[[], Passes | None]] = [
        partial(_apart_within, plan, wrt, optimize, options.runs, room) for optimize in (search, None)
    ]
    if not plan.sliced:
        ways += [partial(_kept_within, plan, wrt, optimize, room) for optimize in (search, None)]
    return fastest(ways, lambda passes: passes.seconds(room))


def search_of(optimize: Optimize) -> Optimize:
    """How gradients are planned anew: neither a path nor an optimizer that remembers serves another expression."""
    return optimize if isinstance(optimize, str | bool) else "auto"


def fastest(ways: Iterable[Callable[[], _T | None]], seconds: Callable[[_T], float]) -> _T:
    """Of what several ways give the one of the fewest seconds. Raises LimitError, that of the least bytes."""
    found, refused = list[_T](), list[LimitError]()
    for way in ways:
        try:
            made = way()
        except LimitError as error:
            refused.append(error)
        else:
            found += [made] if made is not None and made not in found else []
    if not found:
        raise min(refused, key=lambda error: error.least)
    return min(found, key=seconds) if len(found) > 1 else found[0]


# ---------------------------------------------------------------- intermediates are kept


def _kept(plan: Plan, both: Plan, forward: int) -> Passes:
    """The first `forward` steps of both are the forward pass."""
    values, inputs = len(plan.outputs), len(both.inputs)
    early = [*range(len(plan.inputs)), *range(inputs, inputs + forward)]
    return Passes(both, *split(replace(both, outputs=both.outputs[values:]), early, both.outputs[:values]))


def _kept_within(plan: Plan, wrt: tuple[int, ...], optimize: Optimize, room: Room) -> Passes | None:
    both = grad.vjp(plan, wrt, optimize)
    taken = _copied_bytes(plan, both, room)
    for share in _SHARES:
        found = find(both, int(share * room.bytes) - taken, len(plan.steps))
        if found is None:
            return None
        passes = _kept_in(plan, _kept(plan, *found), taken, room)
        if passes is not None:
            return passes
    return None


def _kept_in(plan: Plan, passes: Passes, taken: int, room: Room) -> Passes | None:
    """The passes, if each fits beside what is there while it runs, for cotangents in C order."""
    first, rest, owner = passes.first, passes.rest, passes.first.owners()
    stays = _bytes(first, {owner[register] for register in first.outputs if owner[register] >= len(plan.inputs)})
    size, kept = dict(plan.sizes), len(first.outputs) - len(plan.outputs)
    given = room.strides or tuple([c_strides(term, size) for term in plan.inputs])
    made = schedule(first, room.profile, read_strides(plan, room.cast(plan), given))
    cotangents = [c_strides(term, dict(rest.sizes)) for term in rest.inputs[: len(rest.inputs) - kept]]
    later = (*cotangents, *[strides_of(made, register) for register in made.outputs[:kept]])
    room = room.less(taken)
    forward = replace(room, dtypes=(np.dtype(plan.dtype),) * len(plan.inputs), strides=made.strides)
    backward = replace(room.less(stays), dtypes=(np.dtype(plan.dtype),) * len(rest.inputs), strides=later)
    fits = max(forward.peak(first), backward.peak(rest)) <= room.bytes
    return passes._replace(left=backward) if fits else None


def _copied_bytes(plan: Plan, both: Plan, room: Room) -> int:
    """Bytes of casts of operands, and of copies of outputs that would be others' memory, or what a pullback keeps."""
    owner = both.owners()
    kept = {owner[source] for step in both.steps[len(plan.steps) :] for source in step.sources}
    values = [position for position in range(len(plan.outputs)) if owner[both.outputs[position]] in kept]
    copied = {*both.borrowed_outputs(), *values}
    return _bytes(both, [*room.cast(plan), *(both.outputs[position] for position in copied)])


# ---------------------------------------------------------------- the backward pass begins with the operands


def _apart(plan: Plan, both: Plan, forward: Plan) -> Passes:
    """Nothing is kept but operands; `forward` computes the plan's values."""
    operands = range(len(plan.inputs))
    first, rest = split(prune(both, both.outputs[len(plan.outputs) :]), operands)
    return Passes(both, replace(forward, outputs=(*first.outputs, *forward.outputs)), rest)


def _apart_within(plan: Plan, wrt: tuple[int, ...], optimize: Optimize, runs: int, room: Room) -> Passes:
    """The values are there when the backward pass runs, and so are casts of operands if the forward pass made them."""
    forward = plan_within(plan, room, runs)
    cast = frozenset() if forward.sliced else room.cast(plan)
    room = room.less(_bytes(plan, cast))
    passes = _apart(plan, plan_within(grad.vjp(plan, wrt, optimize), room, runs), forward)
    size, own = dict(plan.sizes), np.dtype(plan.dtype)
    given = read_strides(plan, cast, room.strides or [c_strides(term, size) for term in plan.inputs])
    kept = passes.first.outputs[: -len(plan.outputs)]
    cotangents = [c_strides(term, size) for term in passes.rest.inputs[: -len(kept) or None]]
    dtypes = [*[own] * len(cotangents), *[own if k in cast else room.dtypes[k] for k in kept]]
    left = replace(room, dtypes=tuple(dtypes), strides=(*cotangents, *[given[k] for k in kept]))
    return passes._replace(left=left.less(_bytes(plan, plan.outputs)))


def _bytes(plan: Plan, registers: Iterable[int]) -> int:
    return sum(math.prod(plan.shape(register)) for register in registers) * item_bytes(plan.dtype)
