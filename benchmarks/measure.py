"""Measure one row: everybody's result checked, then everybody timed in turn, round after round, in one process."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.check import Expected
from benchmarks.devices import Call, Device
from benchmarks.workloads import numpy_dtype

# A sample repeats its call for this many seconds, so that neither the clock nor the loop around it shows.
_SAMPLE = 5e-3
# A sample of calls shorter than this begins with one that is not timed: threads of the library before it still spin.
_SETTLING = 20e-3
_FEWEST_ROUNDS, _MOST_ROUNDS = 3, 101


def nothing(result: Any) -> None:
    """Waits for nothing: the device's clock does."""


@dataclass(frozen=True, slots=True)
class Peer:
    """What is timed: for each set of operands a call that returns an array or a tuple; and what these have to be."""

    calls: Sequence[Call]
    expected: Sequence[Expected] = ()  # empty: not checked
    wait: Callable[[Any], Any] = nothing  # until a result is there, for a library that the device's clock does not see


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds per call in each round for those who were right, and what was wrong with the others."""

    seconds: Mapping[str, Sequence[float]]
    faults: Mapping[str, str]


def measure(peers: Mapping[str, Peer], place: Device, seconds: float) -> Times:
    """Check each peer's result against what it has to be, then time those that are right, for about so many seconds.

    Every round times every peer once, and the next round begins with the next peer, so that whatever else the machine
    does falls on all of them alike.
    """
    faults = {name: fault for name, peer in peers.items() if (fault := _fault(peer))}
    right = {name: peer for name, peer in peers.items() if name not in faults}
    if not right:
        return Times({}, faults)
    turns = {name: _Turn(peer, place) for name, peer in right.items()}
    names = list(turns)
    with _no_garbage_collection():
        end = perf_counter() + seconds
        rounds = [{name: turns[name].calibrate() for name in names}]
        if any(turn.loops > 1 for turn in turns.values()):
            rounds.clear()  # it was too short for some; where it was not, a call takes long, and this was a round
        while len(rounds) < _FEWEST_ROUNDS or (len(rounds) < _MOST_ROUNDS and perf_counter() < end):
            first = len(rounds) % len(names)
            taken = {name: turns[name].sample() for name in names[first:] + names[:first]}
            rounds.append({name: taken[name] for name in names})
    return Times({name: tuple(times[name] for times in rounds) for name in names}, faults)


class _Turn:
    """One peer's samples: its calls, from one set of operands to the next, as often as a sample needs."""

    def __init__(self, peer: Peer, place: Device) -> None:
        self._calls = cycle(peer.calls)
        self._wait = peer.wait
        self._place = place
        self.loops = 1
        self._settles = False

    def calibrate(self) -> float:
        """Seconds of one call, warm by now; settles how many make a sample."""
        taken = self.sample()
        if taken < _SAMPLE:
            taken = min(taken, self.sample(), self.sample())
        self.loops = math.ceil(_SAMPLE / max(taken, 1e-9))
        self._settles = taken < _SETTLING
        return taken

    def sample(self) -> float:
        """Seconds per call."""
        if self._settles:
            self._place.time(self._calls, 1, self._wait)
        return self._place.time(self._calls, self.loops, self._wait) / self.loops


def _fault(peer: Peer) -> str | None:
    """Call once; what is wrong with the result, or None."""
    try:
        result = peer.calls[0]()
        peer.wait(result)
        if not peer.expected:
            return None
        arrays = [_on_host(array) for array in (result if isinstance(result, tuple) else (result,))]
    except Exception as error:  # a peer that cannot do it is a finding, not the end of the run
        return failure(error)
    if len(arrays) != len(peer.expected):
        return f"WRONG: {len(arrays)} arrays, not {len(peer.expected)}"
    for number, ((array, dtype), expected) in enumerate(zip(arrays, peer.expected, strict=True)):
        if fault := expected.fault(array, dtype):
            return f"WRONG: {fault}{f' in array {number} of {len(arrays)}' if len(arrays) > 1 else ''}"
    return None


def failure(error: Exception) -> str:
    """As a fault, in a line."""
    return f"FAILED: {type(error).__name__}: {' '.join(str(error).split()):.120}"


def _on_host(array: Any) -> tuple[np.ndarray[Any, Any], str]:
    """Any library's array as numpy's, and the name of its dtype."""
    if hasattr(array, "resolve_conj"):  # PyTorch's
        array = array.detach().cpu().resolve_conj()
        name = str(array.dtype).removeprefix("torch.")
        if name == "bfloat16":  # which PyTorch does not give to numpy
            return array.float().numpy().astype(numpy_dtype(name)), name
        return array.numpy(), name
    array = np.asarray(array.get() if hasattr(array, "get") else array)
    return array, array.dtype.name


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
