"""Measure one workload: everybody's result checked, then everybody timed in turn, round after round, in one process."""

from __future__ import annotations

import gc
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.workloads import Workload

Array = Any  # numpy's, CuPy's, PyTorch's or JAX'
Call = Callable[[], Any]
# Seconds that so many calls take, one after the other.
Clock = Callable[[Call, int], float]
Quartiles = tuple[float, float, float]

THREADS = "OPENBLAS_NUM_THREADS"

# The error that we accept, as a part of the largest element of the result: rounding, with long sums allowed for.
_TOLERANCE = {"float32": 1e-5, "complex64": 1e-5, "float64": 1e-13, "complex128": 1e-13}
# A sample repeats its call for this many seconds, so that neither the clock nor the loop around it shows.
_SAMPLE = 5e-3
_FEWEST_ROUNDS, _MOST_ROUNDS = 5, 101


@dataclass(frozen=True, slots=True)
class Peer:
    """What is timed, a call that returns one array or a tuple, and what they have to be, in double precision."""

    call: Call
    expected: Sequence[np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one workload: seconds per call for each peer and round, or why a peer has none."""

    workload: Workload
    rounds: Mapping[str, tuple[float, ...]]
    faults: Mapping[str, str] = field(default_factory=dict)

    def median(self, peer: str) -> float:
        return statistics.median(self.rounds[peer])

    def ratios(self, above: str, below: str) -> tuple[float, ...]:
        """One peer's time over another's in each round; none if either has no time."""
        if above not in self.rounds or below not in self.rounds:
            return ()
        return tuple(x / y for x, y in zip(self.rounds[above], self.rounds[below], strict=True))

    def quartiles(self, above: str, below: str) -> Quartiles | None:
        """The lower quartile, median and upper quartile of the ratios."""
        ratios = self.ratios(above, below)
        if len(ratios) < 2:
            return None
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return low, middle, high

    def cell(self, peer: str) -> str:
        """What a table shows of a peer: its median, `-` if it was left out, WRONG or FAILED if it was not timed."""
        if peer in self.faults:
            return self.faults[peer].partition(":")[0]
        if peer not in self.rounds:
            return "-"
        seconds = self.median(peer)
        return f"{seconds * 1e6:.1f} us" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


@dataclass(frozen=True, slots=True)
class Table:
    """One of the tables: its rows, who is measured on them, and how the results are shown."""

    key: str  # of its results in JSON
    workloads: tuple[Workload, ...]
    ours: frozenset[str]  # the peers that are gpueinsum
    peers: Callable[[Workload, Any], Mapping[str, Peer]]  # for a workload and an array library
    header: Callable[[Any], str]  # for an array library
    row: Callable[[Result], str]
    summary: Callable[[Sequence[Result], Any], str]
    facts: Callable[[Result], dict[str, Any]]  # what JSON has of a result, beside its times


def measure(workload: Workload, peers: Mapping[str, Peer], clock: Clock, seconds: float) -> Result:
    """Check each peer's result against what it has to be, then time those that are right, for about so many seconds.

    Every round times every peer once, and the next round begins with the next peer, so that whatever else the machine
    does falls on all of them alike.
    """
    faults = {name: fault for name, peer in peers.items() if (fault := _fault(peer, workload.dtype))}
    calls = {name: peer.call for name, peer in peers.items() if name not in faults}
    right = list(calls)
    rounds: dict[str, list[float]] = {name: [] for name in right}
    if not right:
        return Result(workload, {}, faults)
    with _no_garbage_collection():
        loops = {name: math.ceil(_SAMPLE / min(clock(calls[name], 1) for _ in range(3))) for name in right}
        end = perf_counter() + seconds
        for number in range(_MOST_ROUNDS):
            if number >= _FEWEST_ROUNDS and perf_counter() > end:
                break
            turn = number % len(right)
            for name in right[turn:] + right[:turn]:
                rounds[name].append(clock(calls[name], loops[name]) / loops[name])
    return Result(workload, {name: tuple(times) for name, times in rounds.items()}, faults)


def _fault(peer: Peer, dtype: str) -> str | None:
    """Call once; what is wrong with the result, or None."""
    try:
        result = peer.call()
        arrays = [_on_host(array) for array in (result if isinstance(result, tuple) else (result,))]
    except Exception as error:  # a peer that cannot do it is a finding, not the end of the run
        return f"FAILED: {type(error).__name__}: {error}"
    if len(arrays) != len(peer.expected):
        return f"WRONG: {len(arrays)} arrays, not {len(peer.expected)}"
    for number, (array, expected) in enumerate(zip(arrays, peer.expected, strict=True)):
        which = f" in array {number} of {len(arrays)}" if len(arrays) > 1 else ""
        if array.shape != expected.shape or array.dtype != dtype:
            return f"WRONG: {array.dtype} {array.shape}, not {dtype} {expected.shape}{which}"
        off = float(np.max(np.abs(array - expected), initial=0))
        allowed = _TOLERANCE.get(dtype, 0) * float(np.max(np.abs(expected), initial=0))
        if not off <= allowed:  # which NaN is not
            return f"WRONG: off by {off:.1e} where {allowed:.1e} is allowed{which}"
    return None


def _on_host(array: Array) -> np.ndarray[Any, Any]:
    if hasattr(array, "resolve_conj"):  # PyTorch's
        array = array.detach().cpu().resolve_conj()
    return np.asarray(array.get() if hasattr(array, "get") else array)


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


# ---------------------------------------------------------------- clocks


def clock_for(xp: Any) -> Clock:
    """The host's clock for numpy; the device's own, by events on its current stream, for CuPy."""
    return _host_clock if xp is np else partial(_device_clock, xp)


def _host_clock(call: Call, loops: int) -> float:
    start = perf_counter()
    for _ in range(loops):
        call()
    return perf_counter() - start


def _device_clock(xp: Any, call: Call, loops: int) -> float:
    """From an idle device to the end of the last call's work: the host's share counts where the device waits for it."""
    stream = xp.cuda.get_current_stream()
    start, stop = xp.cuda.Event(), xp.cuda.Event()
    stream.synchronize()
    start.record(stream)
    for _ in range(loops):
        call()
    stop.record(stream)
    stop.synchronize()
    milliseconds: float = xp.cuda.get_elapsed_time(start, stop)
    return milliseconds / 1e3
