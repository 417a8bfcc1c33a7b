"""Derivatives decided once: what is computed forward and what backward, as plans, and bound for arrays of a kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

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
from gpueinsum.api.dispatch import Call, bind_with_own_outputs, check_dimensions, plan_for
from gpueinsum.backends.base import Backend
from gpueinsum.errors import OperandError, PlanError
from gpueinsum.language.plan import Plan, check_takes
from gpueinsum.language.rewrite import deduplicate, prune, split
from gpueinsum.planning import derivatives as grad
from gpueinsum.planning.batch import batch
from gpueinsum.planning.checkpoint import checkpoint
from gpueinsum.planning.path import Optimize

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class BothPasses:
    """Both passes of a gradient, bound for operands of certain shapes and dtypes on one backend."""

    forward: Call  # its first outputs are for the backward pass, the others the values
    backward: Call
    batched: Callable[[tuple[int, ...], int], Callable[..., tuple[Array, ...]]]  # `backward.run` of `batch`'s arguments
    kept: tuple[int | None, ...]  # of each output that is for the backward pass the operand that it is
    reads: tuple[int, ...]  # the operands on which the gradients depend
    kept_bytes: int
    plan: Plan  # of both
    values: Signature
    dtypes: tuple[Dtype, ...]  # of the gradients


@lru_cache(maxsize=1024)
def both_passes(
    asked: Expression | Plan,
    operands: Signature,
    wrt: tuple[int, ...],
    options: Options,
    limit: int | None,
    backend: Backend,
) -> BothPasses:
    """Plan both passes and bind them: the forward pass ends with the plan's own steps."""
    plan, compute, target = _plan_to_derive(asked, operands, wrt, options, backend)
    values = len(plan.outputs)

    def joint(search: Optimize) -> tuple[Plan, int]:
        both = grad.vjp(plan, wrt, search)
        if limit is None:
            return both, len(plan.steps)
        taken = _copied_bytes(both, values, len(plan.steps), [dtype for _, dtype in operands], compute)
        return checkpoint(both, limit, len(plan.steps), taken)

    both, forward = _first_that_fits(joint, _search(options.optimize))
    inputs = len(both.inputs)
    early = [*range(len(plan.inputs)), *range(inputs, inputs + forward)]
    if plan.sliced:  # the forward pass of each slice is computed again: to keep it takes the memory that slices save
        first, rest = split(prune(both, both.outputs[values:]), early[: len(plan.inputs)])
        first = replace(plan, outputs=(*first.outputs, *plan.outputs))
    else:
        first, rest = split(replace(both, outputs=both.outputs[values:]), early, both.outputs[:values])
    in_slices, kept, owner = bool(plan.sliced), first.outputs[: len(first.outputs) - values], first.owners()
    check_dimensions(both)

    def batched(positions: tuple[int, ...], size: int) -> Callable[..., tuple[Array, ...]]:
        many = batch(rest, positions, size)
        check_dimensions(many)
        return bind_with_own_outputs(many, backend, options.mode)

    return BothPasses(
        Call(bind_with_own_outputs(first, backend, options.mode, len(kept)), compute, target, False, in_slices),
        Call(bind_with_own_outputs(rest, backend, options.mode), compute, None, False, in_slices),
        lru_cache(maxsize=4)(batched),
        tuple([register if register < len(plan.inputs) else None for register in kept]),
        _read_by(prune(both, both.outputs[values:]), len(plan.inputs)),
        _bytes(first, {owner[register] for register in kept}, compute),
        both,
        tuple((plan.shape(output), target) for output in plan.outputs),
        tuple(operands[position][1] for position in wrt),
    )


@lru_cache(maxsize=1024)
def tangent_pass(
    asked: Expression | Plan, operands: Signature, wrt: tuple[int, ...], options: Options, backend: Backend
) -> Call:
    """Plan values and tangents together and bind them: one pass over operands and tangents."""
    plan, compute, target = _plan_to_derive(asked, operands, wrt, options, backend)
    both = grad.jvp(plan, wrt)
    check_dimensions(both)
    return Call(bind_with_own_outputs(both, backend, options.mode), compute, target, False, bool(both.sliced))


def backward_plan(
    plan: Plan, wrt: int | Sequence[int] | None, optimize: Optimize, memory_limit: int | str | None
) -> Plan:
    """`Plan.vjp`."""
    check_differentiable(dtype_of(plan.dtype), "the plan's dtype")
    listed = positions_of(wrt, len(plan.inputs))
    if not listed:
        raise OperandError(f"wrt={wrt!r} lists no operand, and a plan needs an output")
    Options(optimize=optimize).check()  # refuses what is no way to optimize
    limit, plan = bytes_limit(memory_limit), deduplicate(plan)

    def fit(search: Optimize) -> Plan:
        backward = grad.vjp(plan, listed, search, values=False)
        return backward if limit is None else checkpoint(backward, limit)[0]

    return _first_that_fits(fit, _search(optimize))


def tangent_plan(plan: Plan, wrt: int | Sequence[int] | None) -> Plan:
    """`Plan.jvp`."""
    check_differentiable(dtype_of(plan.dtype), "the plan's dtype")
    return grad.jvp(deduplicate(plan), positions_of(wrt, len(plan.inputs)), values=False)


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


def _search(optimize: Optimize) -> Optimize:
    """How gradients are planned anew: neither a path nor an optimizer that remembers serves another expression."""
    return optimize if isinstance(optimize, str | bool) else "auto"


def _first_that_fits(plan: Callable[[Optimize], _T], search: Optimize) -> _T:
    """A plan that fits: with gradients planned anew, which may need more memory, or with none."""
    try:
        return plan(search)
    except PlanError:
        return plan(None)


def _read_by(plan: Plan, operands: int) -> tuple[int, ...]:
    """Which of its first inputs a plan reads."""
    read = {source for step in plan.steps for source in step.sources}
    return tuple([number for number in range(operands) if number in read])


def _copied_bytes(plan: Plan, values: int, forward: int, dtypes: Sequence[Dtype], compute: Dtype) -> int:
    """Bytes of casts of operands, and of copies of outputs that would be others' memory, or what a pullback keeps."""
    owner = plan.owners()
    cast = [k for k, dtype in enumerate(dtypes) if dtype != compute]
    kept = {owner[source] for step in plan.steps[forward:] for source in step.sources}
    copied = {*plan.borrowed_outputs(), *(k for k in range(values) if owner[plan.outputs[k]] in kept)}
    return _bytes(plan, [*cast, *(plan.outputs[position] for position in copied)], compute)


def _bytes(plan: Plan, registers: Iterable[int], compute: Dtype) -> int:
    return sum(math.prod(plan.shape(register)) for register in registers) * compute.itemsize
