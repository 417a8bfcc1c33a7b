"""Plan to plan: labels sliced until the plan keeps to a number of bytes, at the least extra time by its price."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Protocol, Self

from gpueinsum.costs import counts
from gpueinsum.costs.profile import Profile
from gpueinsum.errors import LimitError
from gpueinsum.language.plan import HALVES, Plan
from gpueinsum.language.subscripts import Label
from gpueinsum.planning.blocks import BlockModel, Copy, State
from gpueinsum.planning.checkpoint import find, too_small
from gpueinsum.planning.halving import Halving
from gpueinsum.planning.loops import choose_loops

# A device may need less than all arrays of a plan take, as steps are fused; that is laid out for smaller plans only.
_FUSED = 4
# Of the limit what arrays alone may take; the rest is for what steps take for themselves.
_SHARES = (1.0, 1.0, 0.9, 0.75, 0.5, 0.25, 0.1, 0.03, 0.01)
_LOOPS = 3  # tried
_MOST_SECONDS = 3.0  # of trying slices for the same share
_FACTORS = (1, 2, 4, 1 << 60)  # of the limit, to which slices alone are to keep where parts are computed again


class Room(Protocol):
    """A limit of `bytes` on a device, and what plans take of it there."""

    @property
    def bytes(self) -> int: ...

    @property
    def taken(self) -> int:
        """Bytes of the limit that are taken by something else than a plan."""

    @property
    def profile(self) -> Profile: ...

    def cast(self, plan: Plan) -> Collection[int]:
        """The operands of which a run needs a copy in another dtype, in slices one part at a time."""

    def copies(self, plan: Plan) -> Sequence[Copy]:
        """What steps of a plan in slices copy for themselves."""

    def peak(self, plan: Plan) -> int:
        """Bytes, with what steps take for themselves, and with what is taken."""

    def seconds(self, plan: Plan) -> float:
        """Predicted."""

    def widened(self, factor: int) -> Self:
        """So many times the limit."""

    def roughly(self, factor: int) -> Self:
        """So many times the limit, in which what steps take for themselves is not counted."""


def slice_plan(plan: Plan, room: Room, runs: int, in_loops: bool = True) -> Plan:
    """The plan with such sliced labels that it keeps to the room. Raises LimitError, saying what would do.

    The search takes no longer, as it is predicted, than so many `runs` of the plan. The slices are in two loops where
    that is faster, or in one always.
    """
    whole = room.peak(plan) if counts.peak_bytes(plan) <= _FUSED * room.bytes else math.inf
    if whole <= room.bytes:
        return plan
    casts: list[Copy] = [(None, plan.inputs[operand]) for operand in sorted(room.cast(plan))]
    model, left = BlockModel(plan.unsliced(), room.profile, casts), max(0, room.bytes - room.taken)
    search, start = Halving(model), perf_counter()
    fused = model.peak / max(1, whole - room.taken)  # what runs as one step with another keeps no array of its own
    for share in (fused, *_SHARES) if fused > 1 else _SHARES:
        choices = search.choose(int(share * left), runs)
        made = [_sliced(plan, state.blocks) for state in choices]
        fitting = list[Plan]()
        for trial, state in zip(made, choices, strict=True):
            if fitting and (not runs or perf_counter() > start + _MOST_SECONDS):
                break
            if room.peak(trial) <= room.bytes:
                fitting.append(_in_loops(trial, model, state, room) if in_loops else trial)
        if fitting:
            return min(fitting, key=room.seconds)
        if not choices:
            break
        search.learn(room.copies(made[0]))
    found = _sliced(plan, search.smallest().blocks)
    least = room.peak(found)
    if least <= room.bytes:
        return found
    raise too_small(plan, room.bytes, least, " in any slices")


def fit_plan(plan: Plan, room: Room, runs: int) -> Plan:
    """The plan within the room: in slices, with parts computed again, or both, by the least predicted seconds.

    That is for plans that read registers again much later, as derivatives do; the rest is as in `slice_plan`.
    """
    found, refused = list[Plan](), None
    for factor in _FACTORS:
        try:
            trial = slice_plan(plan, room.widened(factor), runs)
        except LimitError as error:
            refused = refused or error
            continue
        fitting = trial if room.peak(trial) <= room.bytes else _again(replace(trial, inner=0), room)
        found += [fitting] if fitting is not None else []
        if not trial.sliced:
            break
    if not found:
        assert refused is not None
        raise refused
    return min(found, key=room.seconds) if len(found) > 1 else found[0]


def _again(plan: Plan, room: Room) -> Plan | None:
    """The plan with parts computed again, within the room."""
    for share in _SHARES:
        found = find(plan, int(share * max(0, room.bytes - room.taken)))
        if found is None:
            return None
        if room.peak(found[0]) <= room.bytes:
            return found[0]
    return None


def _in_loops(plan: Plan, model: BlockModel, state: State, room: Room) -> Plan:
    """The plan with its slices in two loops, where that is faster within the room. Sums of halves have one loop."""
    found = [] if plan.dtype in HALVES else choose_loops(model, state, room.bytes - room.taken)
    for labels, inner in found[:_LOOPS]:
        nested = replace(plan, sliced=tuple([(label, state.blocks[label]) for label in labels]), inner=inner)
        if room.peak(nested) <= room.bytes and room.seconds(nested) < room.seconds(plan):
            return nested
    return plan


def _sliced(plan: Plan, blocks: Mapping[Label, int]) -> Plan:
    """The plan with these sliced labels; those of the fewest blocks are the outermost loops."""
    size = dict(plan.sizes)
    order = sorted(blocks, key=lambda label: size[label] / blocks[label])
    return replace(plan, sliced=tuple([(label, blocks[label]) for label in order]))
