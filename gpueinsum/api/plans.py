"""First half of a call's second stage: the plan of an expression, or a given one, for shapes, dtypes and a limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np

from gpueinsum.api.arguments import Dtype, Expression, Options, Signature, call_dtypes
from gpueinsum.api.limits import Room, finished_bytes, result_bytes, room_on
from gpueinsum.backends.base import Backend
from gpueinsum.costs import counts
from gpueinsum.costs.profile import Profile
from gpueinsum.errors import OutError, SubscriptsError
from gpueinsum.language.plan import Plan
from gpueinsum.language.subscripts import Label, Shape, Subscripts, Term, parse, parse_interleaved
from gpueinsum.planning.lower import lower
from gpueinsum.planning.path import Optimize, Path, SlicedPath, find_order
from gpueinsum.planning.search import cheapest_plan
from gpueinsum.planning.sliced_search import cheapest_in_slices, reorder
from gpueinsum.planning.slicing import fit_plan, slice_plan
from gpueinsum.schedule.slices import predicted_seconds

_MAX_DIMENSIONS = 64  # numpy's


def plan_and_dtypes(
    expression: Expression,
    operands: Signature,
    out: tuple[Shape, Dtype] | None,
    options: Options,
    backend: Backend,
    within: Sequence[tuple[int, ...]] | None = None,
) -> tuple[Plan, Dtype, Dtype]:
    """The plan of an expression for these operands, and the dtypes of its computation and of its result."""
    target, compute = call_dtypes([dtype for _, dtype in operands], out, options, backend)
    plan = plan_for(expression, tuple([shape for shape, _ in operands]), compute, options, backend.profile)
    room = room_of_call(plan, operands, target, out, options, backend, within)
    if room is not None:
        if is_view(plan):
            is_copied = not stays_view(plan, operands, out, options)
            own = result_bytes([plan.shape(plan.outputs[0])], compute) if is_copied else 0
            plan = room.less(own).check(plan.unsliced())
        else:
            subscripts = resolve(expression, tuple([shape for shape, _ in operands]))
            plan = expression_within(subscripts, plan, room, options)
    check_dimensions(plan)
    if out is not None and out[0] != (shape := plan.shape(plan.outputs[0])):
        raise OutError(f"out has shape {out[0]}, but the result has {shape}")
    return plan, compute, target


def room_of_call(
    plan: Plan,
    operands: Signature,
    target: Dtype,
    out: tuple[Shape, Dtype] | None,
    options: Options,
    backend: Backend,
    within: Sequence[tuple[int, ...]] | None = None,
) -> Room | None:
    """The room for the plan of an expression, if there is a limit, beside a copy in the caller's dtype or order."""
    room = room_on(backend, options.memory_limit, operands, within)
    if room is None or out is not None:
        return room
    result = plan.shape(plan.outputs[0]), target
    return room.less(finished_bytes([result], np.dtype(plan.dtype), options.order))


def is_view(plan: Plan) -> bool:
    """Whether the result of an expression is a view of its only operand."""
    return len(plan.inputs) == 1 and bool(plan.borrowed_outputs())


def stays_view(plan: Plan, operands: Signature, out: tuple[Shape, Dtype] | None, options: Options) -> bool:
    """Whether such a view is what the caller gets, as from numpy."""
    as_it_is = out is None and (options.dtype is None or options.dtype == operands[0][1])
    return as_it_is and set(plan.inputs[0]) == set(plan.term(plan.outputs[0]))


def plan_for(
    expression: Expression, shapes: tuple[Shape, ...], dtype: Dtype, options: Options, profile: Profile
) -> Plan:
    """The plan of an expression in its hashable form, for such a device, from the cache if it is there."""
    how = options.optimize, options.largest_intermediate, profile, options.runs, options.optimize_seconds
    return _plan(expression, shapes, dtype, *how)


@lru_cache(maxsize=4096)
def _plan(
    expression: Expression,
    shapes: tuple[Shape, ...],
    dtype: Dtype,
    optimize: Optimize,
    largest: int | str | None,
    profile: Profile,
    runs: int,
    search_seconds: float | None,
) -> Plan:
    subscripts = resolve(expression, shapes)
    if optimize in ("auto", True, None) and largest in (None, -1):
        price = dtype.name, profile, partial(predicted_seconds, profile=profile)
        return cheapest_plan(subscripts, *price, runs, search_seconds)
    sizes, sliced = dict(subscripts.sizes), tuple[Label, ...]()
    if isinstance(optimize, SlicedPath):
        optimize, sliced = optimize.path, optimize.labels(subscripts.inputs)

    def order(inputs: tuple[Term, ...], output: Term) -> Path:
        nonlocal sliced
        path, found = find_order(inputs, output, sizes, optimize() if callable(optimize) else optimize, largest)
        sliced += found
        return path

    return replace(lower(subscripts, order, dtype.name), sliced=tuple([(label, 1) for label in sliced]))


def expression_within(subscripts: Subscripts, plan: Plan, room: Room, options: Options) -> Plan:
    """The plan of an expression in slices, where it must be, that keeps to the room. Raises LimitError.

    A plan that has slices, those of a contraction tree, keeps them, and a plan its path that the caller gave.
    """
    if plan.sliced:
        return room.check(plan, " in the slices of its contraction tree")
    if counts.peak_bytes(plan) > room.bytes and isinstance(options.optimize, str | bool | None):
        plan = reorder(subscripts, plan)
    if options.optimize not in ("auto", True, None) or options.largest_intermediate not in (None, -1):
        return slice_plan(plan, room, options.runs)
    return cheapest_in_slices(subscripts, plan, room, options.runs, options.optimize_seconds)


def plan_within(plan: Plan, room: Room, runs: int) -> Plan:
    """Any plan in slices, or with parts computed again, that keeps to the room. One that has slices keeps them."""
    copies = [plan.shape(plan.outputs[position]) for position in plan.borrowed_outputs()]  # memory of their own
    room = room.less(result_bytes(copies, np.dtype(plan.dtype)))
    if plan.sliced:
        return room.check(plan, " in its own slices")
    return fit_plan(plan, room, runs)


def resolve(expression: Expression, shapes: tuple[Shape, ...]) -> Subscripts:
    """The subscripts of an expression in its hashable form."""
    if isinstance(expression, str):
        return parse(expression, shapes)
    return parse_interleaved(*expression, shapes)


def check_dimensions(plan: Plan) -> None:
    """Refuse arrays of more dimensions than numpy's and CuPy's have."""
    widest = max((len(step.out) for step in plan.steps), default=0)
    if widest > _MAX_DIMENSIONS:
        raise SubscriptsError(
            f"{plan.equation} needs an array of {widest} dimensions, and {_MAX_DIMENSIONS} is the limit"
        )
