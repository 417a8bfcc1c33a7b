"""A plan in slices, run in batches: by an executor, the GPUs of this machine or this thread, with a checkpoint."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np

from gpueinsum.api.arguments import Array, Options, call_dtypes
from gpueinsum.api.dispatch import finish_result, one_or_all, signature
from gpueinsum.api.libraries import library_of
from gpueinsum.api.limits import room_for
from gpueinsum.api.plans import check_dimensions, plan_within
from gpueinsum.backends.operands import on_device
from gpueinsum.backends.select import HOST, as_array
from gpueinsum.costs.counts import item_bytes
from gpueinsum.costs.machine import profile_for
from gpueinsum.costs.profile import Profile
from gpueinsum.distributed.checkpoint import Checkpoint
from gpueinsum.distributed.engines import Here, answers, device_numbers, on_devices
from gpueinsum.distributed.operands import digest, mapped_file
from gpueinsum.distributed.parts import Parts, Sums, batch_of, count_slices, summed_arrays
from gpueinsum.distributed.worker import Work, forget
from gpueinsum.errors import DtypeError, OperandError
from gpueinsum.language.plan import Plan, check_takes
from gpueinsum.language.slices import Slices, cut
from gpueinsum.progress import Progress, reports
from gpueinsum.schedule.slices import predicted_seconds

_SAVE_AFTER = 30.0  # seconds: as much work is lost at most when this process is killed
# A batch takes half a second, longer if its results are large, or if there would be more than one process can add up:
# 16384 are 16 for each of 1,000 GPUs.
_BATCH_SECONDS = 0.5
_MOST_BATCHES = 1 << 14
# What a task takes on its way to a worker and back, and the largest share of a batch's time that it may be. Of Dask's a
# task took 7 to 9 ms, of Python's processes 0.2 ms, of its threads 0.05 ms (`benchmarks.scaling` on two busy cores).
TASK_SECONDS, _BYTES_PER_SECOND, _MOST_OVERHEAD = 8e-3, 1e9, 0.1


def run_in_batches(
    plan: Plan,
    operands: Sequence[Any],
    options: Options,
    executor: Executor | None,
    devices: str | Sequence[int] | None,
    checkpoint: str | os.PathLike[str] | None,
    progress: Progress,
) -> Any:
    """`run_plan` with one of `executor`, `devices` and `checkpoint`."""
    if executor is not None and devices is not None:
        raise ValueError("executor= says where slices are run, and so does devices=: leave one of them out")
    if devices is not None and options.backend == "cpu":
        raise ValueError("devices= are GPUs: leave backend='cpu' out")
    numbers = [] if devices is None else device_numbers(devices)
    arrays = _host_arrays(plan, operands, options)
    profile = profile_for("cuda" if numbers or options.backend == "cuda" else "cpu")
    if options.memory_limit is not None:
        memory = HOST.memory_bytes() if profile.kind == "cpu" else profile.memory_bytes
        plan = plan_within(plan, room_for(options.memory_limit, memory, profile, signature(arrays)), options.runs)
    modes = {
        "backend": "cuda" if numbers else options.backend,
        "precision": options.precision,
        "deterministic": options.deterministic,
        "autotune": options.autotune,
    }
    known = [digest(array) for array in arrays]
    work = Work(plan, tuple(known), tuple(map(mapped_file, arrays)), tuple(modes.values()))
    slices, batches = cut(plan), batch_count(plan, profile)
    saved = None
    if checkpoint is not None:
        run = {"plan": plan.to_dict(), "operands": known, **modes, "batches": batches}
        saved = Checkpoint(checkpoint, run, summed_arrays(slices))
    sums = saved.load() if saved else Sums(batches)
    missing = {number: batch_of(slices, number, sums.batches) for number in sums.missing()}
    with contextlib.ExitStack() as opened:
        opened.callback(forget, work)
        report = opened.enter_context(reports(slices.count, "slices", progress, count_slices(slices, sums)))
        pool = opened.enter_context(on_devices(numbers)) if numbers else executor or Here()
        last = time.monotonic()
        try:
            for number, parts in answers(pool, work, dict(zip(known, arrays, strict=True)), missing):
                sums.insert((0, number), parts)
                if saved and time.monotonic() - last > _SAVE_AFTER:
                    saved.save(sums)
                    last = time.monotonic()
                report(count_slices(slices, sums))
        finally:  # whatever ends the run, Ctrl-C above all
            if saved:
                saved.save(sums)
    dtype = np.dtype(plan.dtype)
    outputs = _outputs(slices, [array.astype(dtype, copy=False) for array in arrays], sums.total())
    return one_or_all([finish_result(result, dtype, "K", HOST, stays=False) for result in outputs])


def _host_arrays(plan: Plan, operands: Sequence[Any], options: Options) -> list[Array]:
    """The operands as numpy's arrays, checked as `run_plan` does. Refuses those that live elsewhere, and objects."""
    library = library_of(operands)
    for number, operand in enumerate(operands):
        if library is not None or on_device(operand):
            where = f"of {library.name}" if library is not None else "on a GPU"
            raise OperandError(f"operand {number} is {where}, and workers take numpy's arrays: convert it")
    arrays = [as_array(HOST, f"operand {number}", operand) for number, operand in enumerate(operands)]
    for number, array in enumerate(arrays):
        if "object" in (array.dtype, plan.dtype):
            raise DtypeError(f"operand {number} is of Python's objects, which workers and checkpoints do not take")
    check_takes(plan, tuple([array.shape for array in arrays]))
    call_dtypes([dtype for _, dtype in signature(arrays)], None, options, HOST)
    check_dimensions(plan)
    return arrays


def batch_count(plan: Plan, profile: Profile) -> int:
    """In how many batches the slices are run. The bits of sums depend on it, so it depends on no number of workers."""
    slices = cut(plan)
    # Of a result that is a sum each batch may give all, of others its own part.
    results = [register for register, is_sum in zip(slices.zeros.outputs, slices.summed, strict=True) if is_sum]
    nbytes = sum(math.prod(slices.zeros.shape(register)) for register in results) * item_bytes(slices.zeros.dtype)
    least = max(_BATCH_SECONDS, (TASK_SECONDS + nbytes / _BYTES_PER_SECOND) / _MOST_OVERHEAD)
    return max(1, min(slices.count, math.floor(min(predicted_seconds(plan, profile) / least, _MOST_BATCHES))))


def _outputs(slices: Slices, operands: Sequence[Array], total: Parts) -> Iterator[Array]:
    """The plan's outputs, each memory of its own."""
    found = [
        np.zeros(shape, dtype) if part is None else part.whole(shape)
        for part, (shape, dtype) in zip(total, summed_arrays(slices), strict=True)
    ]
    results = len(slices.zeros.outputs)
    arrays = [*operands, *found[:results], *[None] * slices.frontier, *found[results:]]
    for position, number in enumerate(slices.outputs):
        is_own = number >= len(operands) and number not in slices.outputs[:position]
        yield arrays[number] if is_own else arrays[number].copy()
