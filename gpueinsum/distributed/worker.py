"""What runs in a worker: a batch of slices in, the parts of the results that they add to out."""

from __future__ import annotations

import os
import platform
import threading
import traceback
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from gpueinsum.api.dispatch import plan_options
from gpueinsum.backends.base import Array, Backend
from gpueinsum.backends.select import backend_for
from gpueinsum.backends.slices import BoundSlices
from gpueinsum.distributed.operands import MappedFile, Sent
from gpueinsum.distributed.parts import Part, Parts, boxes
from gpueinsum.language.plan import Plan


class Work(NamedTuple):
    """A run as workers are told of it: the plan, digests of the operands, files of some, and `run_plan`'s options."""

    plan: Plan
    operands: tuple[str, ...]
    files: tuple[MappedFile | None, ...]
    modes: tuple[Any, ...]  # backend, precision, deterministic, autotune


class Answer(NamedTuple):
    """Of one of `parts`, `missing` (the digests of operands that the worker has not) and `error`."""

    worker: Hashable
    parts: Parts = ()
    missing: tuple[str, ...] = ()
    error: Exception | None = None


def run_batch(work: Work, numbers: range, is_first: bool, submitted: int, sent: Sent | None) -> Answer:
    """The slices of these numbers, with operands that are sent or that the worker has.

    The first batch also gives the outputs that are the same in all slices. An error of ours is handed back as a value,
    so that what an executor raises is an error of its own. Each submission has a number of its own, or Dask would take
    one for the other.
    """
    name = platform.node(), os.getpid()
    try:
        run = _find_run(work, sent or {})
        return run.answer(name, numbers, is_first) if isinstance(run, _Run) else Answer(name, missing=run)
    except Exception as error:
        error.add_note(f"in worker {name}:\n{traceback.format_exc()}")
        return Answer(name, error=error)


class _Run:
    """What a worker keeps between the batches of a run: the operands, and on each device what is computed once."""

    def __init__(self, work: Work, operands: Sequence[Any]) -> None:
        self.work, self.operands = work, operands
        self._bound: dict[Hashable, tuple[BoundSlices, Sequence[Array], Sequence[Array]]] = {}
        self._locks: dict[Hashable, threading.Lock] = {}

    def answer(self, name: Hashable, numbers: range, is_first: bool) -> Answer:
        backend = backend_for(self.work.modes[0], self.operands)
        context = backend.context()
        with self._locks.setdefault(context, threading.Lock()):
            if context not in self._bound:
                self._bound[context] = self._bind(backend)
        bound, operands, once = self._bound[context]
        slices, made = bound.slices, bound.zeros()
        bound.add(numbers, operands, once, made)
        dtype = np.dtype(slices.zeros.dtype)
        parts = [
            None if box is None else Part(tuple([own.start for own in box]), _on_host(backend, result[box], dtype))
            for box, result in zip(boxes(slices, numbers), made, strict=True)
        ]
        for same in once[slices.frontier :]:
            parts.append(Part((0,) * same.ndim, _on_host(backend, same, dtype)) if is_first else None)
        return Answer(name, tuple(parts))

    def _bind(self, backend: Backend) -> tuple[BoundSlices, Sequence[Array], Sequence[Array]]:
        plan = replace(self.work.plan, dtype=backend.compute_dtype(np.dtype(self.work.plan.dtype)).name)
        bound = BoundSlices(plan, backend, plan_options(plan, *self.work.modes).mode)
        operands = bound.place([*map(backend.check, self.operands)])
        return bound, operands, bound.once(operands)


def _on_host(backend: Backend, result: Array, dtype: np.dtype[Any]) -> Array:
    """A copy: of a part of the whole result, whose memory can go."""
    return np.array(backend.hand_back(result, stays=False), dtype)


_lock = threading.Lock()
_last: list[_Run] = []  # that a batch was run of; at most one, since its operands may be large


def _find_run(work: Work, sent: Sent) -> _Run | tuple[str, ...]:
    """What is kept of a run, now made if all operands are here; else the digests of those that are not."""
    with _lock:
        if _last and _last[0].work == work:
            return _last[0]
        here = {known: operand for run in _last for known, operand in zip(run.work.operands, run.operands, strict=True)}
        here.update(sent)
        for wanted, file in zip(work.operands, work.files, strict=True):
            if wanted not in here and file is not None and (operand := file.open()) is not None:
                here[wanted] = operand
        missing = tuple([wanted for wanted in dict.fromkeys(work.operands) if wanted not in here])
        if missing:
            return missing
        _last[:] = [_Run(work, [here[wanted] for wanted in work.operands])]
        return _last[0]


def forget(work: Work) -> None:
    """Let go in this process of what is kept of a run."""
    with _lock:
        _last[:] = [run for run in _last if run.work != work]
