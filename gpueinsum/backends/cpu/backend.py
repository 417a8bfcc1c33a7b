"""numpy: the readable reference for every step, and the fallback where there is no GPU.

Pairs and passes have a room of their own (`pairs.py`). Large results lie in memory that others left (`memory.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from gpueinsum.backends import execute
from gpueinsum.backends.autotune import Tuner, choices_for
from gpueinsum.backends.cpu import loops, pairs
from gpueinsum.backends.cpu import pool as memory
from gpueinsum.backends.cpu.matmul import HostWays, axes_of
from gpueinsum.backends.cpu.pairs import c_loop, in_letters
from gpueinsum.backends.execute import PLAIN, Mode
from gpueinsum.costs.profile import Profile, profile_for
from gpueinsum.errors import OperandError
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Add, Contract, Expand, Fused, Reduce, Step, distinct
from gpueinsum.language.strides import label_strides, points
from gpueinsum.language.subscripts import Label, Term
from gpueinsum.schedule.layouts import Chooser, route_for

Array = np.ndarray[Any, Any]
Sizes = Mapping[Label, int]

# Diagonals of so many elements are read by all threads: `aibi->ab` of 64^4 took 1.27 ms on one and 0.82 ms on two, but
# `bii->i` of half as many 0.22 and 0.32 ms (float64).
_LARGE_DIAGONAL = 1 << 18


class CpuBackend:
    """Runs steps with numpy, half precision in float32."""

    name = "cpu"

    @property
    def profile(self) -> Profile:
        """The rates by which neighbouring steps are fused, and pairs are routed."""
        return profile_for("cpu")

    def asarray(self, operand: object) -> Array:
        """numpy's view of an operand: an array, a number, nested lists, or whatever offers DLPack."""
        if type(operand) is np.ndarray:
            return operand
        if hasattr(operand, "__dlpack__") and not hasattr(operand, "__array__"):
            return np.from_dlpack(operand)
        array = np.asarray(operand)
        is_wrapped = array.dtype == object and array.ndim == 0 and not isinstance(operand, np.ndarray)
        if is_wrapped and (hasattr(operand, "shape") or not hasattr(operand, "__mul__")):  # a sparse matrix; None
            convert = ": convert it first (x.toarray())" if hasattr(operand, "toarray") else ""
            raise OperandError(f"a {type(operand).__name__} is no array of numbers{convert}")
        return array

    def compute_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """The dtype to run a plan in when the result is to have this one."""
        return _compute_dtype(dtype)

    def bind(self, plan: Plan, mode: Mode = PLAIN) -> Callable[..., tuple[Array, ...]]:
        """A plan as a function of its operands. Products are of full precision in every mode."""
        return execute.bind(plan, _Tuning() if mode.autotune else self)

    def bind_single(self, plan: Plan, mode: Mode = PLAIN) -> Callable[..., Array]:
        """A plan of one output as a function of its operands."""
        return execute.bind_single(plan, _Tuning() if mode.autotune else self)

    def prepare(self, step: Step, sizes: Sizes, dtype: str) -> Callable[..., Array]:
        """One step as a function of its sources."""
        return _prepared(step, sizes, dtype, route_for)

    def context(self) -> None:
        """What an array that is kept can be used with only: nothing in particular."""

    def arrange(self, result: Array, order: str) -> Array:
        """`result` in C or F order, copied only if it is not."""
        source = result if order == "C" else result.T
        if source.flags.c_contiguous:
            return result
        copy = memory.empty(source.shape, source.dtype)
        loops.copy_to(copy, source)
        return copy if order == "C" else copy.T

    def store(self, result: Array, out: Array) -> None:
        """Write `result` into `out`; the cast was checked at the door."""
        np.copyto(out, result, casting="unsafe")

    def memory_bytes(self) -> int:
        """Bytes of memory of this machine, or those that its control group may take if they are fewer."""
        limit = Path("/sys/fs/cgroup/memory.max")
        text = limit.read_text().strip() if limit.exists() else "max"
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return min(memory, int(text)) if text.isdecimal() else memory

    def hand_back(self, result: Array, stays: bool) -> Any:
        """The result as the caller gets it: numpy's functions return a 0-d result as a scalar."""
        return result[()] if result.ndim == 0 else result


class _Tuning:
    """The backend as plans are bound to it that are to be tuned."""

    @property
    def profile(self) -> Profile:
        return profile_for("cpu")

    def prepare(self, step: Step, sizes: Sizes, dtype: str) -> Callable[..., Array]:
        return _prepared(step, sizes, dtype, Tuner(HostWays(), choices_for("cpu")).route_for)


def _prepared(step: Step, sizes: Sizes, dtype: str, choose: Chooser) -> Callable[..., Array]:
    if 0 in (points(step.summed, sizes), points(step.out, sizes)) and not step.is_view(sizes):
        # numpy's C loop reads an empty operand if its stride is 0 (`ij,j->i` is 0 times what lies there), and
        # writes behind an empty result of long doubles.
        shape = tuple(sizes[label] for label in step.out)
        return lambda *sources: np.zeros(shape, np.dtype(dtype))
    match step:
        case Contract():
            call: Callable[..., Array] = pairs.contract(step, sizes, dtype, choose)
        case Reduce():
            call = _reduce(step, sizes, dtype)
        case Expand():
            call = _expand(step, sizes)
        case Add():
            call = _add(step, sizes, dtype)
        case Fused():
            call = pairs.fused(step, sizes, dtype)
    return call if dtype != "object" else lambda *sources: _boxed(call(*sources), len(step.out))


@cache
def _compute_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float32) if dtype.name in ("float16", "bfloat16") else dtype


def _boxed(result: Any, dimensions: int) -> Array:
    """An array of objects; where it has no axes, numpy hands out the bare object."""
    if dimensions or (isinstance(result, np.ndarray) and result.ndim == 0):
        return result  # type: ignore[no-any-return]  # an array, as it has axes
    box = np.empty(1, object)
    box[0] = result
    return box.reshape(())


def _reduce(step: Reduce, sizes: Sizes, dtype: str) -> Callable[[Array], Array]:
    """A view if nothing is summed, or only labels of size 1; else one sum over the diagonal view."""
    summed, out = step.summed, step.out
    if points(summed, sizes) == 1:
        first = (0,) * len(summed)
        view = in_letters(f"{step.term}->{summed}{out}")
        if view is None:
            return lambda x: diagonal_view(x, step.term, summed + out)[first]
        return (lambda x: c_loop(view, x)[first]) if first else partial(c_loop, view)
    if dtype != "bool" and not out and len(step.term) == 2 and len(summed) == 1:  # a trace: 13 us against 19 us
        kept = np.dtype(dtype)  # (float32, 4000 x 4000)
        return lambda x: np.add.reduce(x.diagonal(), 0, kept)
    equation = in_letters(step.equation)
    if equation is not None and len(distinct(step.term)) < len(step.term) and out and dtype != "object":
        shape, is_large = tuple(sizes[label] for label in out), points(distinct(step.term), sizes) >= _LARGE_DIAGONAL
        return partial(_reduce_diagonal, equation, shape) if is_large else partial(c_loop, equation)
    if equation is not None:
        return partial(c_loop, equation)
    add = np.logical_or if dtype == "bool" else np.add
    axes = tuple(range(len(summed)))
    return lambda x: add.reduce(diagonal_view(x, step.term, summed + out), axis=axes, dtype=x.dtype)


def _reduce_diagonal(equation: str, shape: tuple[int, ...], x: Array) -> Array:
    out = np.empty(shape, x.dtype)
    loops.reduce_to(out, x, equation)
    return out


def _expand(step: Expand, sizes: Sizes) -> Callable[[Array], Array]:
    """A view if only labels of size 1 are gained; else zeros, and the source written through the diagonal view."""
    if step.is_view(sizes):
        order = axes_of(step.term, [label for label in step.out if label in step.term])
        places = tuple(slice(None) if label in step.term else None for label in step.out)
        return lambda x: x.transpose(order)[(*places, ...)]
    shape = tuple(sizes[label] for label in step.out)
    diagonal = distinct(step.out)
    axes = axes_of(step.term, [label for label in diagonal if label in step.term])
    index = tuple(slice(None) if label in step.term else None for label in diagonal)

    def expand(x: Array) -> Array:
        out = np.zeros(shape, x.dtype)
        diagonal_view(out, step.out, diagonal)[...] = x.transpose(axes)[index]
        return out

    return expand


def _add(step: Add, sizes: Sizes, dtype: str) -> Callable[..., Array]:
    shape, kind = tuple(sizes[label] for label in step.out), np.dtype(dtype)

    def add(*arrays: Array) -> Array:
        if len(arrays) < 2:
            return arrays[0].copy() if arrays else np.zeros(shape, kind)
        total: Array = np.add(arrays[0], arrays[1], out=memory.empty_like(arrays[0]))
        for array in arrays[2:]:
            total += array
        return total

    return add


def diagonal_view(x: Array, term: Term, out: Term) -> Array:
    """`x` seen along `out`, which names each label of `term` once: a repeated label walks the diagonal."""
    strides = label_strides(term, x.strides)
    size = dict(zip(term, x.shape, strict=True))
    return as_strided(x, [size[label] for label in out], [strides[label] for label in out])
