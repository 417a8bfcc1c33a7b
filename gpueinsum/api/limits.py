"""A limit of memory as a caller writes it, and what plans take of it on a device: bytes beside the operands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpueinsum.api.arguments import Dtype, Signature, bytes_limit
from gpueinsum.backends.base import Backend
from gpueinsum.backends.footprint import run_bytes
from gpueinsum.costs.profile import Profile
from gpueinsum.errors import PlanError
from gpueinsum.language.plan import Plan
from gpueinsum.schedule.slices import predicted_seconds
from gpueinsum.text import bytes_text


@dataclass(frozen=True, slots=True)
class Room:
    """So many `bytes` on a device for whatever a plan takes beside operands of these dtypes."""

    bytes: int
    profile: Profile
    dtypes: tuple[Dtype, ...]
    counts_steps: bool = True  # with what the device takes for steps, their scratch

    def peak(self, plan: Plan) -> int:
        """What a run takes: intermediates, outputs, casts of operands, what steps take for themselves."""
        own = np.dtype(plan.dtype)
        dtypes = [*self.dtypes, *[own] * (len(plan.inputs) - len(self.dtypes))]
        return run_bytes(plan, self.profile if self.counts_steps else None, dtypes)

    def seconds(self, plan: Plan) -> float:
        """Predicted."""
        return predicted_seconds(plan, self.profile)

    def less(self, taken: int) -> Room:
        """What is left when so many bytes are taken. Raises PlanError if those are more than there are."""
        if taken > self.bytes:
            needed = f"casts, copies and results take {bytes_text(taken)} ({taken} bytes) by themselves"
            raise PlanError(f"a memory_limit of {bytes_text(self.bytes)} is too small: {needed}")
        return replace(self, bytes=self.bytes - taken)

    def check(self, plan: Plan, how: str) -> Plan:
        """The plan. Raises PlanError, saying `how` it came to be, if it takes more."""
        if (taken := self.peak(plan)) > self.bytes:
            limit = f"the memory_limit of {bytes_text(self.bytes)}"
            raise PlanError(f"{how} {plan.equation:.60} takes {bytes_text(taken)} ({taken} bytes), more than {limit}")
        return plan


def room_on(backend: Backend, limit: Any, operands: Signature) -> Room | None:
    """The room that a limit leaves for operands of these shapes and dtypes on a backend; None if there is none."""
    return None if limit is None else room_for(limit, backend.memory_bytes(), backend.profile, operands)


def room_for(limit: Any, memory: int, profile: Profile, operands: Sequence[tuple[tuple[int, ...], Dtype]]) -> Room:
    """The room on a device of so much memory; the limit is one."""
    given = bytes_limit(limit, memory, sum(math.prod(shape) * dtype.itemsize for shape, dtype in operands))
    assert given is not None
    return Room(given, profile, tuple([dtype for _, dtype in operands]))


def result_bytes(shapes: Sequence[tuple[int, ...]], dtype: Dtype) -> int:
    """Of arrays of these shapes."""
    return sum(math.prod(shape) for shape in shapes) * dtype.itemsize
