"""Measure one row: everybody's result checked, then everybody timed in turn, round after round, in one process."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from random import Random
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.check import Expected
from benchmarks.devices import Call, Device
from benchmarks.workloads import numpy_dtype

# A sample repeats its call for this many seconds, so that neither the clock nor the loop around it shows.
_SAMPLE = 5e-3
# Before a sample of calls shorter than this come as many that are not timed: the threads of the library that was timed
# before spin for some milliseconds, on cores that this one needs (PyTorch took twice its time after OpenBLAS).
_SETTLING = 50e-3
_FEWEST_ROUNDS, _MOST_ROUNDS = 3, 101
# A peer whose checked call took this many seconds, and so many times as long as the fastest, is timed no further.
_SLOW, _TIMES_AS_SLOW = 0.3, 20
# Rows on which everybody's calls together take more seconds than this have two rounds; the first may be that whose
# results were checked, if none of its calls was short.
_LONG_ROUND, _LONG_CALL = 5.0, 0.5


def nothing(anything: Any) -> None:
    """Nothing is done with it."""


@dataclass(frozen=True, slots=True)
class Peer:
    """What is timed: for each set of operands a call that returns an array or a tuple; and what these have to be."""

    calls: Sequence[Call]
    expected: Sequence[Expected] = ()  # empty: not checked
    wait: Callable[[Any], Any] = nothing  # until a result is there, for a library that the device's clock does not see
    compiles: bool = False  # so that its first call is no measure of the others


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds per call in each round; what was wrong with those who have none, or how slow they were."""

    seconds: Mapping[str, Sequence[float]]
    faults: Mapping[str, str]
    slow: Mapping[str, str] = field(default_factory=dict)


def measure(peers: Mapping[str, Peer], place: Device, seconds: float, always: Sequence[str] = ()) -> Times:
    """Check each peer's result against what it has to be, then time those that are right, for about so many seconds.

    One that is hopelessly slow would take the time of the others, and is left at its first call; but not those `always`
    to be timed.

    Every round times every peer once, in another order each, so that whatever else the machine does, and what a
    library's threads still do after its calls, falls on all of them alike.
    """
    turns = {name: _Turn(peer, place) for name, peer in peers.items()}
    faults = {name: fault for name, turn in turns.items() if (fault := turn.check())}
    slow = _slow({name: turn for name, turn in turns.items() if name not in faults}, always)
    names = [name for name in turns if name not in faults and name not in slow]
    if not names:
        return Times({}, faults, slow)
    with _no_garbage_collection():
        end = perf_counter() + seconds
        rounds = [{name: turns[name].calibrate() for name in names}]
        if any(turns[name].first < _LONG_CALL for name in names):
            rounds.clear()  # where all calls take long, those that were checked are a round
        order = Random(len(names))  # the same in every run
        fewest = _FEWEST_ROUNDS if not rounds or sum(rounds[0].values()) < _LONG_ROUND else 2
        while len(rounds) < fewest or (len(rounds) < _MOST_ROUNDS and perf_counter() < end):
            taken = {name: turns[name].sample() for name in order.sample(names, len(names))}
            rounds.append({name: taken[name] for name in names})
    return Times({name: tuple(times[name] for times in rounds) for name in names}, faults, slow)


def _slow(turns: Mapping[str, _Turn], always: Sequence[str]) -> dict[str, str]:
    """Whose calls take far longer than the fastest one's, and how long; a second one, for the first may prepare."""
    fastest = min((turn.first for turn in turns.values()), default=0)
    limit = max(_SLOW, _TIMES_AS_SLOW * fastest)
    found = {}
    for name, turn in turns.items():
        if name not in always and turn.first > limit and (seconds := turn.sample()) > limit:
            found[name] = f"too slow: a call took {seconds:.2g} s, the fastest {fastest:.2g} s"
    return found


class _Turn:
    """One peer's samples: its calls, from one set of operands to the next, as often as a sample needs."""

    def __init__(self, peer: Peer, place: Device) -> None:
        self._peer = peer
        self._place = place
        self._calls = cycle(peer.calls)
        self.first = 0.0
        self.loops = 1
        self._settles = False

    def check(self) -> str | None:
        """Call once, and time it; what is wrong with the result, or None."""
        try:
            if self._peer.compiles:
                self._peer.wait(self._peer.calls[0]())
            kept: list[Any] = []

            def keep(result: Any) -> None:
                self._peer.wait(result)
                kept.append(result)

            self.first = self._place.time(self._calls, 1, keep)
            return _fault(kept[0], self._peer.expected)
        except Exception as error:  # a peer that cannot do it is a finding, not the end of the run
            return failure(error)

    def calibrate(self) -> float:
        """Seconds of one call; settles how many make a sample."""
        taken = self.first
        if taken < 10 * _SAMPLE:  # the first one may have found something to prepare
            taken = min(self.sample() for _ in range(3))
        self.loops = math.ceil(_SAMPLE / max(taken, 1e-9))
        self._settles = taken < _SETTLING
        return taken

    def sample(self) -> float:
        """Seconds per call."""
        if self._settles:
            self._place.time(self._calls, self.loops, self._peer.wait)
        return self._place.time(self._calls, self.loops, self._peer.wait) / self.loops


def _fault(result: Any, wanted: Sequence[Expected]) -> str | None:
    """What is wrong with a result, or None."""
    if not wanted:
        return None
    arrays = [_on_host(array) for array in (result if isinstance(result, tuple) else (result,))]
    if len(arrays) != len(wanted):
        return f"WRONG: {len(arrays)} arrays, not {len(wanted)}"
    for number, ((array, dtype), expected) in enumerate(zip(arrays, wanted, strict=True)):
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
