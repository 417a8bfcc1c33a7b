"""Autotuning: of the few ways to run a product the fastest by the clock, timed once and remembered on disk."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gpueinsum.backends.base import RefusedError
from gpueinsum.backends.stopwatch import Call, fastest
from gpueinsum.costs.machine import machine, tuned_path
from gpueinsum.costs.seconds import SMALL
from gpueinsum.errors import DeviceError
from gpueinsum.files import write_text
from gpueinsum.language.subscripts import Shape
from gpueinsum.schedule.candidate import Candidate
from gpueinsum.schedule.mapping import Gemm
from gpueinsum.schedule.problem import Problem, Strides, canonical
from gpueinsum.schedule.schedule import Schedule, alone
from gpueinsum.schedule.select import candidates, cheapest

# Ways that are predicted to take so many times as long as the best one are not timed: no profile is that wrong.
_HOPELESS = 4.0
_SECONDS = 0.02  # for each way, or five rounds


class Timed(Protocol):
    """A device on which schedules are timed."""

    def load(self, schedule: Schedule) -> Callable[..., tuple[Any, ...]]:
        """A function of operands that lie as the schedule says."""

    def random(self, shape: Shape, strides: Strides, dtype: str) -> Any:
        """An array of random numbers with these strides, in elements. Raises MemoryError."""

    def seconds(self, call: Call, count: int) -> float:
        """What so many calls take, one after the other."""


class Tuner:
    """Chooses ways to run products on a device, as `select.cheapest` does by price."""

    def __init__(self, device: Timed, choices: Choices) -> None:
        self._device, self._choices = device, choices

    def choose(self, problem: Problem) -> tuple[tuple[int, ...], Candidate]:
        """The way that was fastest, now or when it was timed before; the cheapest if memory is short for timing."""
        if not problem.is_pair or sum(problem.elements) < SMALL:
            return cheapest(problem)
        order, found = candidates(problem)
        near = {way.way.name: way for way in found if way.seconds < _HOPELESS * found[0].seconds}
        if len(near) == 1 or not any(isinstance(way.way, Gemm) for way in found):
            return order, found[0]
        key = _key(canonical(problem)[0])
        with self._choices.lock:
            chosen = self._choices.get(key)
            if chosen not in near:
                try:
                    arrays = [
                        self._device.random(tuple([problem.size[label] for label in term]), strides, problem.dtype)
                        for term, strides in zip(problem.terms, problem.strides, strict=True)
                    ]
                    calls: dict[str, Call] = {
                        name: partial(self._device.load(alone(problem, order, way)), *arrays)
                        for name, way in near.items()
                    }
                    calls = {name: call for name, call in calls.items() if runs(call)}
                    seconds = fastest(self._device.seconds, calls, _SECONDS * len(calls))
                except (MemoryError, DeviceError):  # memory is short, or a stream is captured
                    seconds = {}
                if not seconds:
                    return order, found[0]
                chosen = min(seconds, key=seconds.__getitem__)
                self._choices.put(key, chosen)
        return order, near[chosen]


def runs(call: Call) -> bool:
    """Whether the device does not refuse it."""
    try:
        call()
    except RefusedError:
        return False
    return True


def _key(problem: Problem) -> str:
    """What a way is chosen for: `AB,BC->AC A=2 B=3 C=4, 3 1 and 4 1, float32`."""
    sizes = " ".join(f"{label}={size}" for label, size in problem.sizes)
    strides = " and ".join(" ".join(map(str, side)) for side in problem.strides)
    precision = problem.precision if problem.precision not in (None, "highest") else ""
    marks = precision, "" if problem.aligned else "not aligned", "in order" if problem.is_ordered else ""
    return ", ".join([f"{problem} {sizes}", strides, problem.dtype, *filter(None, marks)])


class Choices:
    """Names of the ways that were fastest, by what they were chosen for: in memory, and in a file of JSON.

    A file that holds something else is warned of and written anew; where it cannot be written, that is warned of once.
    Whoever reads or writes them has the lock.
    """

    def __init__(self, path: Path) -> None:
        self.lock = threading.Lock()  # what is timed runs alone
        self._path = path
        self._known = self._read()
        self._is_writable = True

    def get(self, key: str) -> str | None:
        return self._known.get(key)

    def put(self, key: str, name: str) -> None:
        """Remember a choice, beside those that other processes wrote meanwhile."""
        self._known[key] = name
        if not self._is_writable:
            return
        self._known = self._read() | self._known
        try:
            write_text(self._path, json.dumps(self._known, indent=0, sort_keys=True) + "\n")
        except OSError as error:
            self._is_writable = False
            warnings.warn(f"what was tuned is forgotten with this process: {error}", RuntimeWarning, stacklevel=2)

    def _read(self) -> dict[str, str]:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
                raise ValueError("it holds no names by what they were chosen for")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            warnings.warn(f"{self._path}: {error}; what was tuned before is not used", RuntimeWarning, stacklevel=2)
            return {}
        return found


def random_numbers(dtype: str) -> np.ndarray[Any, Any]:
    """A few, for operands to repeat: of all zeros or ones a GPU's products run at a higher clock."""
    return np.random.default_rng(0).standard_normal(4096, np.float32).astype(np.dtype(dtype))


@cache
def _choices(path: Path) -> Choices:
    return Choices(path)


def choices_for(kind: str) -> Choices:
    """What was chosen on this machine's processor ("cpu") or current GPU ("cuda"), with these libraries."""
    return _choices(tuned_path(machine(kind)))
