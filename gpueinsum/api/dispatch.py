"""Second stage of a call: hashable arguments and arrays in, results out; what shapes and dtypes decide is kept."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from gpueinsum.api.arguments import (
    DEFAULT,
    Array,
    Dtype,
    Expression,
    Options,
    Signature,
    array_shape,
    call_dtypes,
    check_out,
)
from gpueinsum.api.libraries import library_of
from gpueinsum.api.limits import room_on, strides_within
from gpueinsum.api.plans import check_dimensions, is_view, plan_and_dtypes, plan_within, stays_view
from gpueinsum.backends.base import Backend, Mode
from gpueinsum.backends.operands import on_device
from gpueinsum.backends.select import HOST, backend_and_arrays, kinds_on_device
from gpueinsum.language.plan import Plan, check_takes
from gpueinsum.language.subscripts import Shape


@dataclass(frozen=True, slots=True)
class Call:
    """An expression ready for operands of certain shapes and dtypes on one backend."""

    run: Callable[..., Any]
    compute: Dtype | None  # the dtype to cast operands to first; None if none needs it
    result: Dtype | None  # the dtype to cast the result to; None if it has it
    is_scalar: bool  # whether the result has no axes: numpy's functions return it as a scalar
    in_slices: bool = False  # whether `run` itself moves and casts operands, part by part

    def load(self, backend: Backend, arrays: Sequence[Array]) -> Sequence[Array]:
        """What `Backend.check` gave as `run` takes it."""
        if backend is HOST or self.in_slices:
            return self.cast(arrays)
        return self.cast([backend.asarray(array) if isinstance(array, np.ndarray) else array for array in arrays])

    def cast(self, arrays: Sequence[Array]) -> Sequence[Array]:
        compute = self.compute
        if compute is None or self.in_slices:
            return arrays
        return [array.astype(compute, copy=False) for array in arrays]


def evaluate(expression: Expression, operands: Sequence[Any], out: Array | None, options: Options) -> Array:
    """`einsum`, for an expression in its hashable form."""
    library = library_of(operands)
    if library is not None:
        return library.evaluate(expression, operands, out, options)
    return evaluate_arrays(expression, operands, out, options)


def evaluate_arrays(expression: Expression, operands: Sequence[Any], out: Array | None, options: Options) -> Array:
    """`evaluate` for arrays of numpy's or CuPy's, and whatever becomes such."""
    backend, arrays = backend_and_arrays(options.backend, operands)
    if out is not None:
        check_out(out, operands, backend)
    call = _call(expression, signature(arrays), out_kind(out), options, backend, strides_within(options, arrays))
    return finish_call(call, backend, call.run(*call.load(backend, arrays)), operands, out, options)


def array_kinds(operands: Sequence[Any]) -> list[Any]:
    """What a cache knows plain arrays by: the shape and the dtype of each in turn; of CuPy's also where they lie.

    Nothing unless all are plain ones of numpy's, or of CuPy's that `CudaBackend.asarray` takes as they are.
    """
    kinds: list[Any] = []
    for operand in operands:
        if type(operand) is not np.ndarray:
            return kinds_on_device(operands)
        kinds.append(operand.shape)
        kinds.append(operand.dtype)
    return kinds


def read_kinds(kinds: Sequence[Any]) -> tuple[Signature, Backend, Sequence[tuple[int, ...]] | None]:
    """The signature of `array_kinds`, the backend, and the strides (in bytes) if they are part of it."""
    if len(kinds) % 2 == 0:
        return tuple(zip(kinds[::2], kinds[1::2], strict=True)), HOST, None
    *kinds, (backend, _, *strides) = kinds
    return tuple(zip(kinds[::2], kinds[1::2], strict=True)), backend, strides


def call_on_arrays(options: Options, expression: Expression, *kinds: Any) -> Callable[..., Array]:
    """`evaluate` for arrays of these `array_kinds`, as a function of them."""
    operands, backend, strides = read_kinds(kinds)
    return as_function(_new_call(expression, operands, None, options, backend, strides, strides), backend, options)


def as_function(call: Call, backend: Backend, options: Options) -> Callable[..., Array]:
    """A call as a function of plain arrays: nothing but its `run` where that gives what the caller gets."""
    run = call.run
    if call.compute is call.result is None and options.order in ("K", "k", None):
        return (lambda *arrays: run(*arrays)[()]) if call.is_scalar and backend is HOST else run
    return lambda *arrays: finish_call(call, backend, run(*call.cast(arrays)), arrays, None, options)


# `call_on_arrays` without options, as most calls are: 2 x 3 times 3 x 4 takes 1.0 us, np.einsum 1.4 us; 512 x 512 times
# 512 x 512 on CuPy's arrays 6.2 us of the host, 13.0 without (medians; CuPy 14.2, CUDA stubbed).
cached_call = lru_cache(maxsize=4096)(partial(call_on_arrays, DEFAULT))


def evaluate_plan(plan: Plan, operands: Sequence[Any], options: Options) -> Any:
    """The output of a plan for operands of its shapes, or a tuple of them if it has several."""
    library = library_of(operands)
    if library is not None:
        return library.evaluate_plan(plan, operands, options)
    return evaluate_plan_arrays(plan, operands, options)


def evaluate_plan_arrays(plan: Plan, operands: Sequence[Any], options: Options) -> Any:
    """`evaluate_plan` for arrays of numpy's or CuPy's, and whatever becomes such."""
    backend, arrays = backend_and_arrays(options.backend, operands)
    call = _plan_call(plan, signature(arrays), options, backend, strides_within(options, arrays))
    return _plan_results(call, backend, arrays, stays_on_device(backend, operands))


def _plan_results(call: Call, backend: Backend, arrays: Sequence[Array], stays: bool) -> Any:
    results = call.run(*call.load(backend, arrays))
    return one_or_all([finish_result(result, call.result, "K", backend, stays) for result in results])


@lru_cache(maxsize=256)
def cached_plan_call(plan: Plan, *kinds: Any) -> Callable[..., Any]:
    """`evaluate_plan` without options for arrays of these `array_kinds`, as a function of them."""
    operands, backend, _ = read_kinds(kinds)
    call = _plan_call(plan, operands, plan_options(plan), backend)
    return lambda *arrays: _plan_results(call, backend, arrays, stays=backend is not HOST)


def plan_options(plan: Plan, *modes: Any) -> Options:
    """The options of a call of a plan; `modes` are those from `backend` on. Raises as `Options.check`."""
    return Options(plan.dtype, "K", "same_kind", "auto", *modes).check()


def signature(arrays: Sequence[Array]) -> Signature:
    return tuple([(array.shape, array.dtype) for array in arrays])


def out_kind(out: Array | None) -> tuple[Shape, Dtype] | None:
    return None if out is None else (out.shape, out.dtype)


def finish_call(
    call: Call, backend: Backend, result: Array, operands: Sequence[Any], out: Array | None, options: Options
) -> Array:
    """The result in the dtype and layout that the call asks for; on a GPU if one of the operands is there."""
    if out is not None:
        backend.store(result, out)
        return out
    order, stays = layout(options.order, operands), stays_on_device(backend, operands)
    return finish_result(result, call.result, order, backend, stays)


def finish_result(result: Array, dtype: Dtype | None, order: str, backend: Backend, stays: bool) -> Array:
    """A result as the caller gets it: of this dtype if one is given, in the order "C", "F" or "K" (as it is)."""
    if dtype is not None and dtype != result.dtype:
        with np.errstate(over="ignore"):  # halves become inf in silence, as in np.einsum
            if result.dtype.kind == "c" and dtype.kind != "c":  # the gradient of a real operand
                result = result.real.astype(dtype)  # no view of it
            result = result.astype(dtype, copy=False)
    return backend.hand_back(result if order == "K" else backend.arrange(result, order), stays)


def stays_on_device(backend: Backend, operands: Sequence[Any]) -> bool:
    """Whether results stay where they were computed, on a GPU, since an operand came from there."""
    return backend is not HOST and any(map(on_device, operands))


def one_or_all(results: Sequence[Array]) -> Any:
    """The only result, or a tuple of several."""
    return results[0] if len(results) == 1 else tuple(results)


def layout(order: str | None, operands: Sequence[Any]) -> str:
    """The order that numpy's `order=` means for these operands: "C", "F" or "K"."""
    order = (order or "K").upper()
    if order == "A":
        return "F" if all(map(_is_fortran, operands)) else "C"
    return order


def _is_fortran(operand: Any) -> bool:
    """Whether the caller's own array is in Fortran order; its copy on a device may be laid out otherwise."""
    if not (hasattr(operand, "flags") or on_device(operand)):
        operand = HOST.asarray(operand)
    flags = getattr(operand, "flags", None)
    return len(array_shape(operand)) < 2 if flags is None else bool(flags.f_contiguous)


def _new_call(
    expression: Expression,
    operands: Signature,
    out: tuple[Shape, Dtype] | None,
    options: Options,
    backend: Backend,
    within: Sequence[tuple[int, ...]] | None = None,
    strides: Sequence[tuple[int, ...]] | None = None,
) -> Call:
    """The call for operands of any strides, or of these (in bytes) on the current device.

    A limit of memory is for those of the strides `within`.
    """
    plan, compute, target = plan_and_dtypes(expression, operands, out, options, backend, within)
    casts = needed_casts(operands, compute, target)
    output, is_borrowed = plan.term(plan.outputs[0]), is_view(plan)
    if is_borrowed:
        plan = plan.unsliced()  # a view takes no memory
    run = backend.bind_single(plan, options.mode, strides if casts[0] is None else None)
    if is_borrowed and stays_view(plan, operands, out, options):
        return Call(run if plan.steps else operator.methodcaller("view"), None, None, not output)
    own = (lambda *arrays: run(*arrays).copy()) if is_borrowed else run
    return Call(own, *casts, not output, bool(plan.sliced))


_call = lru_cache(maxsize=4096)(_new_call)


@lru_cache(maxsize=256)
def _plan_call(
    plan: Plan,
    operands: Signature,
    options: Options,
    backend: Backend,
    within: tuple[tuple[int, ...], ...] | None = None,
) -> Call:
    check_takes(plan, tuple(shape for shape, _ in operands))
    target, compute = call_dtypes([dtype for _, dtype in operands], None, options, backend)
    plan = replace(plan, dtype=compute.name)
    room = room_on(backend, options.memory_limit, operands, within)
    if room is not None:
        plan = plan_within(plan, room, options.runs)
    check_dimensions(plan)
    run = bind_with_own_outputs(plan, backend, options.mode)
    return Call(run, *needed_casts(operands, compute, target), False, bool(plan.sliced))


def bind_with_own_outputs(
    plan: Plan, backend: Backend, mode: Mode, borrowing: int = 0
) -> Callable[..., tuple[Array, ...]]:
    """`bind` with outputs that are memory of their own, each, but for the first `borrowing`.

    Of those an output in slices that is an operand is the operand itself, wherever it is and of whatever dtype.
    """
    run = backend.bind(plan, mode)
    copied = [position for position in plan.borrowed_outputs() if position >= borrowing]
    if not copied:
        return run

    def run_and_copy(*arrays: Array) -> tuple[Array, ...]:
        results = list(run(*arrays))
        for position in copied:
            result = results[position]
            if plan.sliced:
                result = backend.asarray(result).astype(plan.dtype, copy=False)
            results[position] = result.copy()
        return tuple(results)

    return run_and_copy


def needed_casts(operands: Signature, compute: Dtype, target: Dtype) -> tuple[Dtype | None, Dtype | None]:
    """What these operands must be cast to, and what the result must be; None for what is so already."""
    is_cast = any(dtype != compute for _, dtype in operands)
    return compute if is_cast else None, None if compute == target else target
