"""Einsums as functions that can be derived and batched before any array is there; each becomes a plan for shapes.

A framework that traces what is computed (torch, JAX) asks for the shapes of a result, for the derivative of a function
as such a function again, and for the function of a whole batch. In the end all of them are plans.
"""

from __future__ import annotations

import json
from ast import literal_eval
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

from gpueinsum.api.arguments import Dtype, Expression, Options, Signature
from gpueinsum.api.derivative_dispatch import BothPasses, backward_plan, both_passes, tangent_plan
from gpueinsum.api.derivatives import batch_of, check_list
from gpueinsum.api.dispatch import Call, bind_with_own_outputs, needed_casts
from gpueinsum.api.limits import room_on
from gpueinsum.api.plans import check_dimensions, plan_for, plan_within, resolve
from gpueinsum.backends.base import Backend
from gpueinsum.costs.profile import Profile
from gpueinsum.errors import OptimizerError
from gpueinsum.language.plan import Plan, check_takes
from gpueinsum.language.subscripts import Shape, as_text
from gpueinsum.planning.batch import batch
from gpueinsum.planning.path import SlicedPath
from gpueinsum.planning.search import MANY_RUNS

Fit = Callable[[Any, str, Shape], Any]  # of an array, its name and the shape of its value


class Function(Protocol):
    """From so many `inputs` to so many `outputs`, all of one dtype."""

    def __hash__(self) -> int: ...

    @property
    def inputs(self) -> int: ...
    @property
    def outputs(self) -> int: ...
    @property
    def options(self) -> Options:
        """How it and its derivatives are run; a `memory_limit` is for each run of one of them."""

    def shapes(self, inputs: Sequence[Shape]) -> list[Shape]:
        """Those of the outputs."""

    def plan(self, shapes: tuple[Shape, ...], dtype: Dtype, profile: Profile) -> Plan:
        """The function for inputs of these shapes, computed in this dtype, within no limit."""


@dataclass(frozen=True, slots=True)
class Einsum:
    """An expression of so many operands."""

    expression: Expression
    inputs: int
    options: Options

    @property
    def outputs(self) -> int:
        return 1

    def shapes(self, inputs: Sequence[Shape]) -> list[Shape]:
        """That of the output; sizes may be symbols that stand for more than 1, which are not compared."""
        known = tuple(inputs)
        if not all(isinstance(size, int) for shape in inputs for size in shape):
            known = tuple([tuple([min(size, 2) if isinstance(size, int) else 2 for size in shape]) for shape in inputs])
        core = resolve(self.expression, known)
        size: dict[str, int] = {}
        for term, shape in zip(core.inputs, inputs, strict=True):
            size |= zip(term, shape, strict=True)
        return [tuple([size[label] for label in core.output])]

    def plan(self, shapes: tuple[Shape, ...], dtype: Dtype, profile: Profile) -> Plan:
        return plan_for(self.expression, shapes, dtype, self.options, profile)


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, whatever the dtype that it was made for."""

    made: Plan
    options: Options

    @property
    def inputs(self) -> int:
        return len(self.made.inputs)

    @property
    def outputs(self) -> int:
        return len(self.made.outputs)

    def shapes(self, inputs: Sequence[Shape]) -> list[Shape]:
        check_takes(self.made, tuple(inputs))
        return [self.made.shape(output) for output in self.made.outputs]

    def plan(self, shapes: tuple[Shape, ...], dtype: Dtype, profile: Profile) -> Plan:
        check_takes(self.made, shapes)
        return replace(self.made, dtype=dtype.name)


@dataclass(frozen=True, slots=True)
class _Derived:
    of: Function

    @property
    def options(self) -> Options:
        return self.of.options


@dataclass(frozen=True, slots=True)
class Vjp(_Derived):
    """From the inputs of a function and a cotangent of each output to the gradients of the inputs in `wrt`."""

    wrt: tuple[int, ...]

    @property
    def inputs(self) -> int:
        return self.of.inputs + self.of.outputs

    @property
    def outputs(self) -> int:
        return len(self.wrt)

    def shapes(self, inputs: Sequence[Shape]) -> list[Shape]:
        return [inputs[position] for position in self.wrt]

    def plan(self, shapes: tuple[Shape, ...], dtype: Dtype, profile: Profile) -> Plan:
        plan = self.of.plan(shapes[: self.of.inputs], dtype, profile)
        return backward_plan(plan, self.wrt, self.options.optimize)


@dataclass(frozen=True, slots=True)
class Jvp(_Derived):
    """From the inputs of a function and a tangent of each input in `wrt` to the tangents of the outputs."""

    wrt: tuple[int, ...]

    @property
    def inputs(self) -> int:
        return self.of.inputs + len(self.wrt)

    @property
    def outputs(self) -> int:
        return self.of.outputs

    def shapes(self, inputs: Sequence[Shape]) -> list[Shape]:
        return self.of.shapes(inputs[: self.of.inputs])

    def plan(self, shapes: tuple[Shape, ...], dtype: Dtype, profile: Profile) -> Plan:
        return tangent_plan(self.of.plan(shapes[: self.of.inputs], dtype, profile), self.wrt)


@dataclass(frozen=True, slots=True)
class Batch(_Derived):
    """A function of inputs of which those at `positions`, at least one, have a new first axis, as all outputs do."""

    positions: tuple[int, ...]

    @property
    def inputs(self) -> int:
        return self.of.inputs

    @property
    def outputs(self) -> int:
        return self.of.outputs

    def shapes(self, inputs: Sequence[Shape]) -> list[Shape]:
        size = inputs[self.positions[0]][0]
        return [(size, *shape) for shape in self.of.shapes(self._single(inputs))]

    def plan(self, shapes: tuple[Shape, ...], dtype: Dtype, profile: Profile) -> Plan:
        size = shapes[self.positions[0]][0]
        return batch(self.of.plan(self._single(shapes), dtype, profile), self.positions, size)

    def _single(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        return tuple([shape[1:] if k in self.positions else shape for k, shape in enumerate(shapes)])


def function_of(asked: Expression | Plan, operands: int, options: Options) -> Function:
    """What is asked as a function of so many operands that may be derived many times, as in training."""
    options = options._replace(dtype=None, order="K", casting="safe", runs=0 if options.deterministic else MANY_RUNS)
    return Planned(asked, options) if isinstance(asked, Plan) else Einsum(asked, operands, options)


def function_of_cotangents(
    function: Function,
    wrt: tuple[int, ...],
    inputs: Sequence[Shape],
    given: Any,
    fit: Fit,
    zeros: Callable[[Shape], Any],
) -> tuple[Function, list[Any]]:
    """From the inputs and cotangents of a function to gradients, and the cotangents that a caller gives, or batches.

    `fit` makes what is given, under its name, an array of an output's shape or a batch of such; None stands for zeros.
    """
    shapes, count = function.shapes(inputs), function.outputs
    listed = [given] if count == 1 else check_list(given, count, "cotangents")
    cotangents: list[Any] = []
    batches: dict[int, Shape] = {}
    for k, (one, shape) in enumerate(zip(listed, shapes, strict=True)):
        if one is None and count > 1:
            cotangents.append(zeros(shape))
            continue
        cotangents.append(fit(one, "the cotangent" if count == 1 else f"cotangent {k}", shape))
        batches[k] = tuple(cotangents[k].shape[: cotangents[k].ndim - len(shape)])
    gradients = Vjp(function, wrt)
    many = tuple([len(inputs) + k for k in batches]) if batch_of(batches) else ()
    return Batch(gradients, many) if many else gradients, cotangents


# ---------------------------------------------------------------- functions of arrays


@lru_cache(maxsize=1024)
def call_of(function: Function, operands: Signature, backend: Backend) -> Call:
    """The function for arrays of these shapes, which have one dtype, as a call that gives a tuple of arrays."""
    dtype = operands[0][1]
    compute = backend.compute_dtype(dtype)
    plan = function.plan(tuple([shape for shape, _ in operands]), compute, backend.profile)
    room = room_on(backend, function.options.memory_limit, operands)
    if room is not None:
        plan = plan_within(plan, room, function.options.runs)
    check_dimensions(plan)
    run = bind_with_own_outputs(plan, backend, function.options.mode)
    return Call(run, *needed_casts(operands, compute, dtype), False, bool(plan.sliced))


@lru_cache(maxsize=1024)
def passes_of(function: Function, operands: Signature, wrt: tuple[int, ...], backend: Backend) -> BothPasses:
    """The function and its gradients for arrays of these shapes, which have one dtype."""
    compute = backend.compute_dtype(operands[0][1])
    plan = function.plan(tuple([shape for shape, _ in operands]), compute, backend.profile)
    return both_passes(plan, operands, wrt, function.options, backend)


# ---------------------------------------------------------------- as text, for a framework that keeps no objects

_DERIVED = {kind.__name__: kind for kind in (Vjp, Jvp, Batch)}


def to_text(function: Function) -> str:
    """The function as a literal of Python. Raises OptimizerError for an optimizer that is an object."""
    options = function.options
    optimize = options.optimize
    if callable(optimize):
        raise OptimizerError("optimize= is an object, which a compiled program cannot hold: give a name or a path")
    if isinstance(optimize, SlicedPath):
        options = options._replace(optimize=[*optimize])
    return repr([_to_list(function), tuple(options)])


def _to_list(function: Function) -> list[Any]:
    match function:
        case Einsum():
            expression = function.expression
            text = expression if isinstance(expression, str) else as_text(*expression)
            return ["Einsum", text, function.inputs]
        case Planned():
            return ["Planned", function.made.to_dict()]
        case Vjp() | Jvp():
            return [type(function).__name__, _to_list(function.of), function.wrt]
        case Batch():
            return ["Batch", _to_list(function.of), function.positions]
        case _:
            raise TypeError(f"{function!r:.60} is no function of an einsum")


@lru_cache(maxsize=1024)
def from_text(text: str) -> Function:
    """The function that `to_text` wrote."""
    function, values = literal_eval(text)
    options = Options(*values)
    if isinstance(options.optimize, list):
        options = options._replace(optimize=SlicedPath(*options.optimize))
    return _from_list(function, options)


def _from_list(written: list[Any], options: Options) -> Function:
    match written:
        case ["Einsum", text, operands]:
            return Einsum(text, operands, options)
        case ["Planned", plan]:
            return Planned(Plan.from_json(json.dumps(plan)), options)
        case [kind, of, positions]:
            made: Function = _DERIVED[kind](_from_list(of, options), positions)
            return made
        case _:
            raise ValueError(f"{written!r:.60} is no function of an einsum")
