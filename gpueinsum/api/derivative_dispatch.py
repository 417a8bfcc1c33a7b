"""Derivatives decided once: what is computed forward and what backward, as plans, and bound for arrays of a kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

from gpueinsum.api.arguments import (
    Array,
    Dtype,
    Expression,
    Options,
    Signature,
    bytes_limit,
    call_dtypes,
    check_differentiable,
    dtype_of,
    positions_of,
)
from gpueinsum.api.dispatch import Call, bind_with_own_outputs
from gpueinsum.api.limits import Room, finished_bytes, room_on
from gpueinsum.api.passes import fastest, plan_passes, search_of
from gpueinsum.api.plans import check_dimensions, plan_for, plan_within
from gpueinsum.backends.base import Backend
from gpueinsum.costs.machine import profile_for
from gpueinsum.costs.profile import Profile, device_profile
from gpueinsum.errors import LimitError, OperandError
from gpueinsum.language.plan import Plan, check_takes
from gpueinsum.language.rewrite import deduplicate, prune
from gpueinsum.language.subscripts import Shape
from gpueinsum.planning import derivatives as grad
from gpueinsum.planning.batch import batch
from gpueinsum.planning.path import Optimize
from gpueinsum.planning.search import MANY_RUNS
from gpueinsum.schedule.problem import Strides


@dataclass(frozen=True, slots=True)
class BothPasses:
    """Both passes of a gradient, bound for operands of certain shapes and dtypes on one backend."""

    forward: Call  # its first outputs are for the backward pass, the others the values
    backward: Call  # for cotangents of the values' dtypes in C order
    other: Callable[..., Call]  # `backward` for others: of these dtypes and strides, and of `batch`'s arguments
    is_limited: bool
    kept: tuple[int | None, ...]  # of each output that is for the backward pass the operand that it is
    reads: tuple[int, ...]  # the operands on which the gradients depend
    kept_bytes: int
    plan: Plan  # of both
    values: Signature
    dtypes: tuple[Dtype, ...]  # of the gradients

    def pull(self, cotangents: Sequence[Array], positions: tuple[int, ...] = (), *size: int) -> Call:
        """The backward pass for these cotangents, of which those at the positions are batches of one size.

        Raises LimitError where it takes more for them than for others.
        """
        if not size and (not self.is_limited or all(map(_is_planned_for, cotangents, self.values))):
            return self.backward
        kinds = tuple([(array.dtype, array.strides) for array in cotangents]) if self.is_limited else ()
        return self.other(kinds, positions, *size)


@lru_cache(maxsize=1024)
def both_passes(
    asked: Expression | Plan,
    operands: Signature,
    wrt: tuple[int, ...],
    options: Options,
    backend: Backend,
    within: tuple[tuple[int, ...], ...] | None = None,
) -> BothPasses:
    """Plan both passes and bind them, with a limit of memory for operands of the strides `within`."""
    plan, compute, target = _plan_to_derive(asked, operands, wrt, options, backend)
    room = room_on(backend, options.memory_limit, operands, within)
    values = finished_bytes([(plan.shape(output), target) for output in plan.outputs], compute, options.order)
    gradients = finished_bytes([operands[position] for position in wrt], compute, options.order)
    if room is not None:
        room = room.less(max(values, gradients))
    both, first, rest, left = plan_passes(plan, wrt, options, room)
    outputs = len(plan.outputs)
    kept, owner = first.outputs[: len(first.outputs) - outputs], first.owners()
    check_dimensions(both)

    def other(kinds: tuple[tuple[Dtype, Strides], ...], positions: tuple[int, ...], *size: int) -> Call:
        plan = batch(rest, positions, *size) if size else rest
        if left is not None:
            room = left.given(kinds, (max([1, *size]) - 1) * gradients)
            if room.peak(plan) > room.bytes:
                try:
                    plan = plan_within(plan.unsliced(), room, options.runs)
                except LimitError as error:
                    instead = "a smaller batch of cotangents" if size else "a cotangent of the value's dtype in C order"
                    raise LimitError(f"{error}, and so would {instead}", error.least) from None
        check_dimensions(plan)
        return Call(bind_with_own_outputs(plan, backend, options.mode), compute, None, False, bool(plan.sliced))

    forward = bind_with_own_outputs(first, backend, options.mode, len(kept))
    backward = bind_with_own_outputs(rest, backend, options.mode)
    return BothPasses(
        Call(forward, compute, target, False, bool(first.sliced)),
        Call(backward, compute, None, False, bool(rest.sliced)),
        lru_cache(maxsize=16)(other),
        left is not None,
        tuple([register if register < len(plan.inputs) else None for register in kept]),
        _read_by(prune(both, both.outputs[outputs:]), len(plan.inputs)),
        _bytes(first, {owner[register] for register in kept}, compute),
        both,
        tuple((plan.shape(output), target) for output in plan.outputs),
        tuple(operands[position][1] for position in wrt),
    )


@lru_cache(maxsize=1024)
def tangent_pass(
    asked: Expression | Plan,
    operands: Signature,
    wrt: tuple[int, ...],
    options: Options,
    backend: Backend,
    tangents: tuple[Dtype, ...],
    within: tuple[tuple[int, ...], ...] | None = None,
) -> Call:
    """Plan values and tangents together and bind them: one pass over operands and tangents of these dtypes.

    A limit of memory is for arrays of the strides `within`.
    """
    plan, compute, target = _plan_to_derive(asked, operands, wrt, options, backend)
    both = grad.jvp(plan, wrt)
    arrays = (*operands, *zip(map(both.shape, range(len(operands), len(both.inputs))), tangents, strict=True))
    room = room_on(backend, options.memory_limit, arrays, within)
    if room is not None:
        results = [(both.shape(output), target) for output in both.outputs]
        both = plan_within(both, room.less(finished_bytes(results, compute, options.order)), options.runs)
    check_dimensions(both)
    return Call(bind_with_own_outputs(both, backend, options.mode), compute, target, False, bool(both.sliced))


def backward_plan(
    plan: Plan,
    wrt: int | Sequence[int] | None,
    optimize: Optimize = "auto",
    memory_limit: int | str | None = None,
    device: str | Profile | None = None,
) -> Plan:
    """`Plan.vjp`."""
    check_differentiable(dtype_of(plan.dtype), "the plan's dtype")
    listed = positions_of(wrt, len(plan.inputs))
    if not listed:
        raise OperandError(f"wrt={wrt!r} lists no operand, and a plan needs an output")
    Options(optimize=optimize).check()  # refuses what is no way to optimize
    plan, search = deduplicate(plan), search_of(optimize)
    backward = grad.vjp(plan, listed, search, values=False)
    if memory_limit is None:
        return backward
    room = _room(memory_limit, device)
    plans = [backward, grad.vjp(plan, listed, None, values=False)]  # gradients planned anew may need more memory
    return fastest([partial(plan_within, each, room, MANY_RUNS) for each in plans], room.seconds)


def tangent_plan(
    plan: Plan,
    wrt: int | Sequence[int] | None,
    memory_limit: int | str | None = None,
    device: str | Profile | None = None,
) -> Plan:
    """`Plan.jvp`."""
    check_differentiable(dtype_of(plan.dtype), "the plan's dtype")
    pushed = grad.jvp(deduplicate(plan), positions_of(wrt, len(plan.inputs)), values=False)
    return pushed if memory_limit is None else plan_within(pushed, _room(memory_limit, device), MANY_RUNS)


def _room(limit: int | str, device: str | Profile | None) -> Room:
    """The room on a device; of a plan for none that for its arrays alone, by the prices of this machine's CPU."""
    if device is not None:
        profile = device if isinstance(device, Profile) else device_profile(device)
        memory: int | None = profile.memory_bytes
    else:
        profile, memory = profile_for("cpu"), None
    given = bytes_limit(limit, memory)
    assert given is not None
    return Room(given, profile, (), counts_steps=device is not None)


# ---------------------------------------------------------------- planning


def _plan_to_derive(
    asked: Expression | Plan, operands: Signature, wrt: tuple[int, ...], options: Options, backend: Backend
) -> tuple[Plan, Dtype, Dtype]:
    """The plan to differentiate, without steps that nothing needs; the dtypes of its computation and of its values."""
    shapes, dtypes = tuple(shape for shape, _ in operands), [dtype for _, dtype in operands]
    if isinstance(asked, Plan):
        check_takes(asked, shapes)
    target, compute = call_dtypes(dtypes, None, options, backend)
    for position in wrt:
        check_differentiable(dtypes[position], f"operand {position}")
    check_differentiable(target, "the value")
    if isinstance(asked, Plan):
        return replace(deduplicate(asked), dtype=compute.name), compute, target
    plan = plan_for(asked, shapes, compute, options, backend.profile)
    return plan, compute, target  # which computes nothing twice or for nothing


def _is_planned_for(cotangent: Array, value: tuple[Shape, Dtype]) -> bool:
    return bool(cotangent.flags.c_contiguous) and (cotangent.shape, cotangent.dtype) == value


def _read_by(plan: Plan, operands: int) -> tuple[int, ...]:
    """Which of its first inputs a plan reads."""
    read = {source for step in plan.steps for source in step.sources}
    return tuple([number for number in range(operands) if number in read])


def _bytes(plan: Plan, registers: Iterable[int], compute: Dtype) -> int:
    return sum(math.prod(plan.shape(register)) for register in registers) * compute.itemsize
