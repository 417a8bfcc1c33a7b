"""A limit of memory as a caller writes it, and what plans take of it on a device: bytes beside the operands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpueinsum.api.arguments import Array, Dtype, Options, Signature, bytes_limit
from gpueinsum.backends.base import Backend
from gpueinsum.backends.footprint import cast_operands, run_bytes
from gpueinsum.costs.profile import Profile
from gpueinsum.language.plan import Plan
from gpueinsum.language.subscripts import Shape, Term
from gpueinsum.planning.checkpoint import too_small
from gpueinsum.schedule.problem import Strides, c_strides
from gpueinsum.schedule.slices import copied_terms, predicted_seconds


@dataclass(frozen=True, slots=True)
class Room:
    """So many `bytes` on a device for whatever a plan takes beside operands of these dtypes."""

    bytes: int
    profile: Profile
    dtypes: tuple[Dtype, ...]
    counts_steps: bool = True  # with what the device takes for steps, their scratch
    taken: int = 0  # of the bytes, by something else
    strides: tuple[Strides, ...] | None = None  # of the operands, in elements; None for C order

    def peak(self, plan: Plan) -> int:
        """What is taken, and what a run takes: intermediates, outputs, casts, what steps take for themselves."""
        dtypes = [*self.dtypes, *[np.dtype(plan.dtype)] * (len(plan.inputs) - len(self.dtypes))]
        device = self.profile if self.counts_steps else None
        return self.taken + run_bytes(plan, device, dtypes, strides=self._strides_for(plan))

    def _strides_for(self, plan: Plan) -> tuple[Strides, ...] | None:
        """Of all its operands: those that are not known are in C order."""
        size, known = dict(plan.sizes), self.strides
        return known and (*known, *[c_strides(term, size) for term in plan.inputs[len(known) :]])

    def copies(self, plan: Plan) -> list[tuple[int, Term]]:
        """What steps of a plan in slices copy for themselves, and the numbers of these steps."""
        cast, strides = self.cast(plan), self._strides_for(plan)
        return copied_terms(plan, self.profile, cast, strides) if self.counts_steps else []

    def cast(self, plan: Plan) -> frozenset[int]:
        """The operands that are cast to the plan's dtype."""
        return cast_operands(plan, self.dtypes)

    def seconds(self, plan: Plan) -> float:
        """Predicted."""
        return predicted_seconds(plan, self.profile)

    def widened(self, factor: int) -> Room:
        """So many times the limit."""
        return replace(self, bytes=factor * self.bytes)

    def roughly(self, factor: int) -> Room:
        """So many times the limit, in which what steps take for themselves is not counted."""
        return replace(self, bytes=factor * self.bytes, counts_steps=False)

    def less(self, taken: int) -> Room:
        """What is left when something else takes so many bytes."""
        return replace(self, taken=self.taken + taken)

    def given(self, first: Sequence[tuple[Dtype, Strides]], taken: int) -> Room:
        """With so many bytes taken, and the first operands of these dtypes and strides in bytes."""
        assert self.strides is not None
        dtypes = (*[dtype for dtype, _ in first], *self.dtypes[len(first) :])
        strides = (*[_in_elements(strides, dtype) for dtype, strides in first], *self.strides[len(first) :])
        return replace(self.less(taken), dtypes=dtypes, strides=strides)

    def check(self, plan: Plan, how: str = "") -> Plan:
        """The plan. Raises LimitError, saying `how` it came to be, if it takes more."""
        if (least := self.peak(plan)) > self.bytes:
            raise too_small(plan, self.bytes, least, how)
        return plan


def room_on(
    backend: Backend, limit: Any, operands: Signature, strides: Sequence[tuple[int, ...]] | None = None
) -> Room | None:
    """The room that a limit leaves on a backend for operands of these shapes, dtypes and strides (in bytes), if any."""
    if limit is None:
        return None
    room = room_for(limit, backend.memory_bytes(), backend.profile, operands)
    if strides is None:
        return room
    return replace(room, strides=tuple(map(_in_elements, strides, room.dtypes)))


def _in_elements(strides: Sequence[int], dtype: Dtype) -> Strides:
    return tuple([stride // dtype.itemsize for stride in strides])


def strides_within(options: Options, arrays: Sequence[Array]) -> tuple[tuple[int, ...], ...] | None:
    """The strides of operands (in bytes) where there is a limit, since what is copied depends on them."""
    return None if options.memory_limit is None else tuple([array.strides for array in arrays])


def room_for(limit: Any, memory: int, profile: Profile, operands: Sequence[tuple[tuple[int, ...], Dtype]]) -> Room:
    """The room on a device of so much memory; the limit is one."""
    given = bytes_limit(limit, memory, sum(math.prod(shape) * dtype.itemsize for shape, dtype in operands))
    assert given is not None
    return Room(given, profile, tuple([dtype for _, dtype in operands]))


def finished_bytes(results: Sequence[tuple[Shape, Dtype]], computed: Dtype, order: str | None) -> int:
    """Bytes of the copies of results of one dtype in the caller's dtypes and order, which are made beside all of them.

    One in a dtype and an order is copied twice, the first copy for a while.
    """
    is_ordered = order not in ("K", "k", None)
    return sum((is_ordered + (dtype != computed)) * result_bytes([shape], dtype) for shape, dtype in results)


def result_bytes(shapes: Sequence[tuple[int, ...]], dtype: Dtype) -> int:
    """Of arrays of these shapes."""
    return sum(math.prod(shape) for shape in shapes) * dtype.itemsize
