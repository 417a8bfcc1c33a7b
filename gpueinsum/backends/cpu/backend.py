"""numpy runs plans: the fallback where there is no GPU, and what the CUDA backend is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from gpueinsum.backends.autotune import Tuner, choices_for, random_numbers
from gpueinsum.backends.base import PLAIN, Load, Mode
from gpueinsum.backends.cpu import copies, pool
from gpueinsum.backends.cpu.program import program, step_seconds
from gpueinsum.backends.operands import host_array
from gpueinsum.backends.slices import bind_slices
from gpueinsum.backends.stopwatch import Call, host_seconds
from gpueinsum.costs.machine import profile_for
from gpueinsum.costs.profile import Profile
from gpueinsum.costs.seconds import SMALL
from gpueinsum.language.plan import HALVES, Plan
from gpueinsum.language.strides import points
from gpueinsum.language.subscripts import Shape
from gpueinsum.schedule.problem import Strides, c_strides
from gpueinsum.schedule.schedule import Schedule, schedule
from gpueinsum.schedule.select import cheapest

Array = np.ndarray[Any, Any]
_KEPT = 16  # programs of a bound plan, for the strides that it was called with last


class CpuBackend:
    """Runs schedules with numpy, half precision in float32."""

    name = "cpu"

    @property
    def profile(self) -> Profile:
        return profile_for("cpu")

    def check(self, operand: object) -> Array:
        return host_array(operand)

    asarray = check

    def compute_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        return _compute_dtype(dtype)

    def context(self) -> None:
        """Nothing in particular: arrays can be used anywhere."""

    def bind(self, plan: Plan, mode: Mode = PLAIN) -> Callable[..., tuple[Array, ...]]:
        """Products are of full precision in every mode."""
        return self._bound(plan, mode, is_single=False)

    def bind_single(
        self, plan: Plan, mode: Mode = PLAIN, strides: Sequence[tuple[int, ...]] | None = None
    ) -> Callable[..., Array]:
        return self._bound(plan, mode, is_single=True)

    def _bound(self, plan: Plan, mode: Mode, is_single: bool) -> Callable[..., Any]:
        """A schedule of small steps serves operands of all strides, any other the strides that it was made for."""
        if plan.sliced:
            run = bind_slices(plan, self, mode)
            return (lambda *arrays: run(*arrays)[0]) if is_single else run
        profile = self.profile
        choose = Tuner(self, choices_for("cpu")).choose if mode.autotune else cheapest
        if _is_small(plan):
            return program(schedule(plan, profile), is_single)
        item, size = np.dtype(plan.dtype).itemsize, dict(plan.sizes)
        c_order = [tuple([stride * item for stride in c_strides(term, size)]) for term in plan.inputs]

        def make_program(*strides: tuple[int, ...]) -> Callable[..., Any]:
            odd = [any(stride % item for stride in own) for own in strides]  # fields of records
            if any(odd):
                aligned = make_program(
                    *[each if is_odd else own for own, each, is_odd in zip(strides, c_order, odd, strict=True)]
                )
                copy = [copies.copy if is_odd else _same for is_odd in odd]
                return lambda *arrays: aligned(*[own(x) for own, x in zip(copy, arrays, strict=True)])
            elements = [tuple([stride // item for stride in own]) for own in strides]
            return program(schedule(plan, profile, elements, choose=choose), is_single)

        known = lru_cache(maxsize=_KEPT)(make_program)
        return pool.with_retry(lambda *arrays: known(*[array.strides for array in arrays])(*arrays))

    def load(self, schedule: Schedule) -> Callable[..., tuple[Array, ...]]:
        """A schedule as a function of operands that lie as it says."""
        run: Callable[..., tuple[Array, ...]] = program(schedule, is_single=False)
        return run

    def step_seconds(self, schedule: Schedule, operands: Sequence[Array]) -> list[float]:
        return step_seconds(schedule, operands)

    def random(self, shape: Shape, strides: Strides, dtype: str) -> Array:
        """An array of random numbers with these strides, in elements."""
        ends = [(size - 1) * stride for size, stride in zip(shape, strides, strict=True)]
        before = -sum(end for end in ends if end < 0)
        memory = np.resize(random_numbers(dtype), before + sum(end for end in ends if end > 0) + 1)
        return as_strided(memory[before:], shape, [stride * memory.itemsize for stride in strides])

    def seconds(self, call: Call, count: int) -> float:
        """Seconds of so many calls, one after the other."""
        return host_seconds(call, count)

    def streamed(self, plan: Plan, operands: Sequence[Array], memory: int | None) -> tuple[int, ...]:
        """None: all operands are where they are used."""
        return ()

    def loader(self, dtype: np.dtype[Any], nbytes: Sequence[int]) -> AbstractContextManager[Load]:
        return nullcontext(lambda _, view: view.astype(dtype, copy=False))

    def arrange(self, result: Array, order: str) -> Array:
        source = result if order == "C" else result.T
        if source.flags.c_contiguous:
            return result
        copy = copies.copy(source)
        return copy if order == "C" else copy.T

    def store(self, result: Array, out: Array) -> None:
        np.copyto(out, result, casting="unsafe")

    def add(self, part: Array, out: Array) -> None:
        np.add(out, part, out=out)

    def memory_bytes(self) -> int:
        """Bytes of memory of this machine, or those that its control group may take if they are fewer."""
        return pool.machine_bytes()

    def hand_back(self, result: Array, stays: bool) -> Any:
        """numpy's functions return a 0-d result as a scalar."""
        return result[()] if result.ndim == 0 else result


def _same(x: Array) -> Array:
    return x


def _is_small(plan: Plan) -> bool:
    """Whether every step is run in a way that takes arrays of any strides."""
    size, operands = dict(plan.sizes), len(plan.inputs)
    elements = [points(term, size) for term in plan.inputs]
    for step in plan.steps:
        elements.append(points(step.out, size))
    return all(
        elements[register] + sum(elements[source] for source in step.sources) < SMALL
        for register, step in enumerate(plan.steps, operands)
    )


@cache
def _compute_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float32) if dtype.name in HALVES else dtype
