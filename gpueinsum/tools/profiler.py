"""Run a plan and time it: predicted beside measured seconds of each step, and the whole call beside its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from gpueinsum.api.arguments import dtype_of, is_shape
from gpueinsum.api.einsum import run_plan
from gpueinsum.backends.select import backend_and_arrays
from gpueinsum.errors import PlanError, visible
from gpueinsum.language.plan import Plan, check_is_plan
from gpueinsum.schedule.problem import c_strides
from gpueinsum.schedule.schedule import schedule
from gpueinsum.text import bytes_text, count_text, seconds_text
from gpueinsum.tools.explain import table
from gpueinsum.tools.picture import page
from gpueinsum.tools.rows import Row, Rows, schedule_rows

_HEADINGS = ("step", "flops", "moved", "predicted", "measured", "ratio", "share", "flop/s", "moved/s", "einsum")


class Measured(NamedTuple):
    """A plan's steps as a device runs them, the fastest seconds of each, and lines on all of it; printed, a table."""

    plan: Plan
    rows: Rows
    seconds: Sequence[float]
    lines: Sequence[str]

    def __str__(self) -> str:
        head = f"{visible(self.plan.equation)}  {self.plan.dtype}"
        if not self.seconds:
            return "\n".join([head, "", *self.lines])
        total = sum(self.seconds)
        cells = [_cells(row, seconds, total) for row, seconds in zip(self.rows.steps, self.seconds, strict=True)]
        return "\n".join([head, "", *table(_HEADINGS, cells), "", *self.lines])

    def page(self) -> str:
        """The picture of the plan with both seconds of each step, as HTML."""
        return page(self.plan, self.rows._replace(totals=[*self.rows.totals, *self.lines]), self.seconds)


def measure(plan: Plan, operands: Sequence[Any], backend: str | None = None, runs: int = 10) -> Measured:
    """The plan run so many times as a whole, and as many times step by step.

    Operands are arrays, which are cast to the plan's dtype, or shapes (tuples) for random numbers. On a GPU the seconds
    of a step are the device's own, those of a whole call the longer of the device's and the host's. Raises as
    `run_plan` does, and MemoryError.
    """
    check_is_plan(plan)
    if plan.sliced:
        raise PlanError(f"the plan {plan.equation:.60} is run in slices, whose steps are not timed")
    device, _ = backend_and_arrays(backend, [operand for operand in operands if not is_shape(operand)])
    dtype, sizes = device.compute_dtype(dtype_of(plan.dtype)), dict(plan.sizes)
    plan = replace(plan, dtype=dtype.name)
    arrays = [
        device.random(operand, c_strides(term, sizes), dtype.name)
        if is_shape(operand)
        else device.asarray(operand).astype(dtype, copy=False)
        for operand, term in zip(operands, plan.inputs, strict=True)
    ]

    def call() -> object:
        return run_plan(plan, *arrays, backend=device.name)

    with np.errstate(all="ignore"):  # long products of random numbers overflow
        call()  # prepares, on CUDA compiles, and finds what the device refuses
        strides = [tuple([stride // dtype.itemsize for stride in array.strides]) for array in arrays]
        made = schedule(plan, device.profile, strides)
        whole, steps = [], []
        for _ in range(runs):
            whole.append(device.seconds(call, 1))
            steps.append(device.step_seconds(made, arrays))
    seconds = [min(each) for each in zip(*steps, strict=True)]
    return Measured(plan, schedule_rows(made), seconds, _lines(made.seconds, sum(seconds), min(whole), runs))


def _lines(predicted: float, steps: float, whole: float, runs: int) -> list[str]:
    besides = f"{seconds_text(whole - steps)} besides its steps" if whole >= steps else "less than its steps one by one"
    return [
        f"all steps: predicted {seconds_text(predicted)}, measured {seconds_text(steps)}{_times(steps, predicted)}",
        f"whole call: {seconds_text(whole)}, {besides}",
        f"each is the fastest of {runs} runs" if runs > 1 else "each of one run",
    ]


def _times(measured: float, predicted: float) -> str:
    return f", {measured / predicted:.2f} times as long" if predicted else ""


def _cells(row: Row, seconds: float, total: float) -> tuple[str, ...]:
    register, *_, flops, moved, _ = row.cells
    is_known = bool(row.seconds and seconds)
    return (
        *(register, flops, moved),
        seconds_text(row.seconds) if row.seconds else "-",
        seconds_text(seconds),
        f"{seconds / row.seconds:.2f}" if row.seconds else "-",
        f"{seconds / total:.1%}" if total else "-",
        count_text(row.cost.flops / seconds) if is_known else "-",
        bytes_text(row.cost.bytes_moved / seconds) if is_known else "-",
        f"{row.einsum}  {'; '.join(filter(None, [row.note, row.how]))}",
    )
