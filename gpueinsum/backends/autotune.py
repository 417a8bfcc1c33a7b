"""Autotuning: of the few ways to run a pair the fastest by the clock, timed once and remembered on disk."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gpueinsum.backends.stopwatch import Call, fastest
from gpueinsum.costs.profile import machine, tuned_path, write_text
from gpueinsum.language.subscripts import alphabet
from gpueinsum.schedule.layouts import route_for, routes_for
from gpueinsum.schedule.mapping import Case, Route
from gpueinsum.schedule.predict import is_routed

# Ways that are predicted to take so many times as long as the best one are not timed: no profile is that wrong.
_HOPELESS = 4.0
_SECONDS = 0.02  # for each way, or five rounds


class Bench(Protocol):
    """A device on which ways to run a pair are timed, on arrays of its own."""

    def calls(self, case: Case, ways: Mapping[str, Route]) -> dict[str, Call]:
        """The pair run in each of these ways. Raises MemoryError."""

    def seconds(self, call: Call, count: int) -> float:
        """What so many calls take, one after the other."""


class Tuner:
    """Chooses the ways by which pairs are run on a device, as `layouts.route_for` does by price."""

    def __init__(self, bench: Bench, choices: Choices) -> None:
        self._bench, self._choices = bench, choices

    def route_for(self, case: Case) -> Route:
        """The way that was fastest, now or when it was timed before; the cheapest if memory is short for timing."""
        if not is_routed(case.step, dict(case.sizes), case.dtype, case.profile):
            return route_for(case)
        ways = routes_for(case)
        near = {way.name: way for way in ways if way.seconds < _HOPELESS * ways[0].seconds}
        if len(near) == 1:
            return ways[0]
        key = _key(case)
        with self._choices.lock:
            chosen = self._choices.get(key)
            if chosen not in near:
                try:
                    calls = self._bench.calls(case, near)
                    seconds = fastest(self._bench.seconds, calls, _SECONDS * len(calls))
                except MemoryError:
                    return route_for(case)
                chosen = min(seconds, key=seconds.__getitem__)
                self._choices.put(key, chosen)
        return near[chosen]


def _key(case: Case) -> str:
    """What a way is chosen for, whatever its labels are called: `AB,BC->AC A=2 B=3 C=4, 3 1 and 4 1, float32`."""
    letters = dict(zip([label for label, _ in case.sizes], alphabet(), strict=False))
    equation = "".join(letters.get(character, character) for character in str(case.step))  # with marks of conjugates
    sizes = " ".join(f"{letters[label]}={size}" for label, size in case.sizes)
    strides = " and ".join(" ".join(map(str, side)) for side in (case.lhs, case.rhs))
    precision = case.precision if case.precision not in (None, "highest") else ""
    marks = precision, "" if case.aligned else "not aligned"
    return ", ".join([f"{equation} {sizes}", strides, case.dtype, *filter(None, marks)])


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
