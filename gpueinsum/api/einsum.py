"""What users call: `einsum` and its plan, and numpy's `tensordot` and `transpose`."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from functools import lru_cache
from os import PathLike
from typing import Any

import numpy as np
from numpy.exceptions import AxisError

from gpueinsum.api.arguments import (
    DEFAULT,
    Array,
    Options,
    array_dtype,
    array_shape,
    hashable_form,
    is_shape,
    read_shape,
)
from gpueinsum.api.dispatch import array_kinds, cached_call, cached_plan_call, evaluate, evaluate_plan, plan_options
from gpueinsum.api.libraries import library_of
from gpueinsum.api.limits import room_for
from gpueinsum.api.plans import expression_within, plan_for, resolve
from gpueinsum.backends.operands import on_device
from gpueinsum.backends.select import HOST, backend_for
from gpueinsum.costs.machine import profile_for
from gpueinsum.costs.profile import Profile, device_profile
from gpueinsum.language.plan import Plan, check_is_plan
from gpueinsum.language.subscripts import Shape, alphabet
from gpueinsum.planning.path import Optimize
from gpueinsum.planning.search import MANY_RUNS
from gpueinsum.progress import Progress, asking

_AUTO = "auto"


def einsum(
    subscripts: Any = "",
    *operands: Any,
    out: Array | None = None,
    dtype: Any = None,
    order: str | None = "K",
    casting: Any = "safe",
    optimize: Optimize = _AUTO,
    backend: str | None = None,
    precision: str | None = None,
    deterministic: bool = False,
    autotune: bool = False,
    memory_limit: int | str | None = None,
    optimize_seconds: float | None = None,
) -> Array:
    """Einstein summation of numpy or CuPy arrays, in numpy's notation and with numpy's semantics.

    out[o...] = sum over every label that is not in the output of the product of the operands' elements.

    Args:
        subscripts: Text such as `"bij,bjk->bik"`, or the first operand of the interleaved form
            `einsum(a, [0, 1], b, [1, 2], [0, 2])`, whose labels may be any hashable values. A label repeated in an
            operand is its diagonal; one repeated in the output embeds on the diagonal, with zeros off it.
        operands: Arrays (numpy, CuPy, anything with `__cuda_array_interface__` or DLPack), nested lists or numbers.
        out: Array for the result; may be one of the operands.
        dtype: The dtype to compute in; by default numpy's `result_type` of the operands and `out`.
        order: "C", "F", "A" (F if every operand is) or "K" (whatever needs no copy) for the result's layout.
        casting: numpy's rule for the casts that `dtype` and `out` ask for.
        optimize: An opt_einsum optimizer's name, a path, a `PathOptimizer`. A step over more than two operands, such as
            False makes of all, is run in pairs.
        backend: None computes where the operands live; "cpu"; "cuda" takes numpy arrays to the GPU and back.
        precision: None or "highest" for the true precision of the dtype. On CUDA "tf32" rounds factors of float32 to 10
            bits of mantissa, "bf16" to 7, and "emulated" makes products of float32 and float64 of many of lower
            precision, on devices of compute capability 10.0 and newer.
        deterministic: True for the same bits from the same operands on the same device, at any time; on CUDA products
            then share nothing with other streams. On the CPU, and of kernels, that always holds.
        autotune: True to time the few ways there are to run each product of large arrays, once on this device with
            these libraries, and to remember the fastest on disk; by default the one predicted to be is taken.
        memory_limit: Bytes, as a number, as "4GiB", as "80%" of the device's, or "auto", for casts of operands,
            intermediates and the result together. What does not fit is computed in slices (`Plan.sliced`), in the least
            predicted time. "auto" is 80 % of the device's memory less the operands', but at least 40 %. A
            `ContractionTree` keeps its own slices.
        optimize_seconds: Seconds that `optimize="auto"` may search for an order of contraction when it plans, which it
            does once for an expression and its shapes; 0 for no search. By default a search takes no longer than it is
            predicted to save.

    Returns the result, a view of the operand if it is only a transposition or a diagonal of it.

    Raises SubscriptsError, OutError and PlanError (ValueErrors), DtypeError (a TypeError), OperandError (both),
    DeviceError (a RuntimeError); nothing is written then.

    Source: numpy.einsum, whose results these are, but for `i->ii` and the other outputs that repeat a label.

    >>> einsum("ij,jk->ki", [[1, 2], [3, 4]], [[1, 0], [1, 1]])
    array([[3, 7],
           [2, 4]])
    """
    has_defaults = out is dtype is backend is precision is memory_limit is None and optimize is _AUTO and order == "K"
    has_defaults = has_defaults and casting == "safe" and optimize_seconds is None
    if has_defaults and not (deterministic or autotune) and type(subscripts) is str:
        kinds = array_kinds(operands)
        if kinds:
            return cached_call(subscripts, *kinds)(*operands)
        if operands:
            return evaluate(subscripts, operands, None, DEFAULT)
    expression, arrays = hashable_form(subscripts, operands)
    modes = precision, deterministic, autotune, memory_limit
    options = Options(dtype, order, casting, optimize, backend, *modes, optimize_seconds=optimize_seconds)
    return evaluate(expression, arrays, out, options.check())


def einsum_plan(
    subscripts: Any,
    *operands: Any,
    dtype: Any = None,
    optimize: Optimize = "auto",
    memory_limit: int | str | None = None,
    largest_intermediate: int | str | None = None,
    device: str | Profile | None = None,
    optimize_seconds: float | None = None,
) -> Plan:
    """The plan of an expression, from arrays or from shapes (tuples); needs no GPU and touches no data.

    Args are `einsum`'s; `dtype` is by default that of the arrays, float64 for shapes; `largest_intermediate` is
    `contract`'s. The plan is made for a `device` ("h200", "a100", "cpu", the file of a profile, or a profile), by
    default for where the operands are, shapes for this machine's CPU. The plan can be printed, costed by `explain`,
    kept as JSON (`plan.to_json()`, `Plan.from_json(text)`) and run by `run_plan`.

    >>> print(einsum_plan("ij,jk,kl->il", (40, 30), (30, 20), (20, 10)))
    ij,jk,kl->il  float64  i=40 j=30 k=20 l=10
      %3 = jk,kl->jl  of %1, %2  left j=30, right l=10, summed k=20
      %4 = ij,jl->il  of %0, %3  left i=40, right l=10, summed j=30
    """
    expression, operands_or_shapes = hashable_form(subscripts, operands)
    shapes = tuple(read_shape(x) if is_shape(x) else array_shape(x) for x in operands_or_shapes)
    if dtype is None:
        dtypes = [array_dtype(operand) for operand in operands_or_shapes if not is_shape(operand)]
        dtype = np.result_type(*dtypes) if dtypes else np.dtype(np.float64)
    modes: dict[str, Any] = {"memory_limit": memory_limit, "runs": MANY_RUNS, "optimize_seconds": optimize_seconds}
    options = Options(dtype, optimize=optimize, largest_intermediate=largest_intermediate, **modes).check()
    is_there = any(map(on_device, operands_or_shapes))
    if device is None:
        profile = profile_for("cuda" if is_there else "cpu")
    else:
        profile = device if isinstance(device, Profile) else device_profile(device)
    plan = plan_for(expression, shapes, options.dtype, options, profile)
    if memory_limit is None:
        return plan
    memory = profile.memory_bytes if device is not None or is_there else HOST.memory_bytes()
    room = room_for(memory_limit, memory, profile, [(shape, options.dtype) for shape in shapes])
    return expression_within(resolve(expression, shapes), plan, room, options)


def run_plan(
    plan: Plan,
    *operands: Any,
    backend: str | None = None,
    precision: str | None = None,
    deterministic: bool = False,
    autotune: bool = False,
    memory_limit: int | str | None = None,
    executor: Executor | None = None,
    devices: str | Sequence[int] | None = None,
    checkpoint: str | PathLike[str] | None = None,
    progress: Progress = None,
) -> Any:
    """The result of a plan for operands of its shapes, which are cast to its dtype; a tuple if it has several outputs.

    Args are `einsum`'s; within a `memory_limit` a plan without slices is run in slices if it must be. With one of
    `executor`, `devices` and `checkpoint` the slices of a plan are run in batches, of operands on the host, and give
    the same bits on any number of workers:
        executor: Any `concurrent.futures.Executor`: Python's, Dask's `client.get_executor()`, mpi4py's
            `MPIPoolExecutor`.
        devices: "all" or a list of numbers: the GPUs of this machine, each with a thread. The CPU where "all" are none.
        checkpoint: A folder for what is done. The same call after a crash goes on from there.
        progress: A function that is called with how many slices are done, and how many there are. None for a bar on
            the terminal, if tqdm is there and the slices take longer than two seconds; False for none.

    >>> run_plan(Plan.from_json(einsum_plan("ij,jk->ik", (2, 3), (3, 5)).to_json()), np.ones((2, 3)), np.ones((3, 5)))
    array([[3., 3., 3., 3., 3.],
           [3., 3., 3., 3., 3.]])

    Raises PlanError if the operands are not those of the plan or of the checkpoint, DtypeError for a cast of another
    kind, RuntimeError for an executor that fails, OSError for a checkpoint that cannot be written.
    """
    check_is_plan(plan)
    is_plain = backend is precision is memory_limit is None and not (deterministic or autotune)
    is_here = executor is None and devices is None and checkpoint is None
    if is_plain and is_here and progress is None:
        kinds = array_kinds(operands)
        if kinds:
            return cached_plan_call(plan, *kinds)(*operands)
    options = plan_options(plan, backend, precision, deterministic, autotune, memory_limit)
    if not is_here:
        from gpueinsum.distributed.run import run_in_batches  # which is made of calls

        return run_in_batches(plan, operands, options, executor, devices, checkpoint, progress)
    if progress is None:  # torch.compile follows no context
        return evaluate_plan(plan, operands, options)
    with asking(progress):
        return evaluate_plan(plan, operands, options)


def tensordot(x: Any, y: Any, axes: Any = 2, *, backend: str | None = None) -> Array:
    """numpy's `tensordot`: sum over the last `axes` axes of x and the first of y, or over the axes listed for each.

    >>> tensordot(np.ones((2, 3)), np.ones((3, 5)), axes=1).shape
    (2, 5)
    """
    equation = _tensordot_equation(array_shape(x), array_shape(y), *_summed_axes(axes))
    result = einsum(equation, x, y, backend=backend)
    return np.asarray(result) if isinstance(result, np.generic) else result


def _summed_axes(axes: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes of x and those of y that tensordot sums together."""
    with contextlib.suppress(TypeError):
        number = operator.index(axes)
        return tuple(range(-number, 0)), tuple(range(number))
    try:
        x_axes, y_axes = (tuple(map(operator.index, side if isinstance(side, Iterable) else [side])) for side in axes)
    except (TypeError, ValueError) as error:
        raise ValueError(f"axes={axes!r} is neither a number of axes nor the axes of x and those of y") from error
    return x_axes, y_axes


@lru_cache(maxsize=4096)
def _tensordot_equation(x_shape: Shape, y_shape: Shape, x_axes: tuple[int, ...], y_axes: tuple[int, ...]) -> str:
    """The einsum that a tensordot is. Kept: a pair of 8 and 16 elements took 7.9 us, and takes 4.1 us (np's 4.3 us)."""
    if len(x_axes) != len(y_axes):
        raise ValueError(f"axes names {len(x_axes)} axes of x but {len(y_axes)} of y")
    for shape, listed in ((x_shape, x_axes), (y_shape, y_axes)):
        if not all(-len(shape) <= axis < len(shape) for axis in listed):
            raise AxisError(f"axes {list(listed)} are out of range for shape {shape}")
        if len({axis % len(shape) for axis in listed}) != len(listed):
            raise ValueError(f"axes {list(listed)} name an axis twice")
    letters = alphabet()
    x_term, y_term = ([next(letters) for _ in shape] for shape in (x_shape, y_shape))
    for i, j in zip(x_axes, y_axes, strict=True):
        if x_shape[i] != y_shape[j]:
            raise ValueError(f"axis {i} of x is {x_shape[i]} but axis {j} of y is {y_shape[j]}")
        y_term[j] = x_term[i]
    kept = [label for label in x_term + y_term if not (label in x_term and label in y_term)]
    return f"{''.join(x_term)},{''.join(y_term)}->{''.join(kept)}"


def transpose(x: Any, axes: Sequence[int] | None = None) -> Array:
    """numpy's `transpose`: a view of x with its axes permuted, reversed by default."""
    if library_of([x]) is not None:  # whose own view it is
        labels = tuple(range(len(array_shape(x))))
        return einsum(x, labels, np.empty(labels).transpose(axes).shape)  # permuted as an array of such a shape is
    return backend_for(None, [x]).asarray(x).transpose(axes)
