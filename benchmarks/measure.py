"""Measure one workload: everybody's result checked, then everybody timed in turn, round after round, in one process."""

from __future__ import annotations

import gc
import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import opt_einsum

import gpueinsum as ge
from benchmarks.workloads import Workload

Array = Any  # numpy's or CuPy's
Call = Callable[[], Array]
# Seconds that so many calls take, one after the other.
Clock = Callable[[Call, int], float]

OURS = "gpueinsum"
# The library's own einsum, as its users may call it; the fastest of these is what we compare with.
EINSUMS = ("einsum", "einsum greedy", "einsum optimal")
PEERS = (OURS, *EINSUMS, "opt_einsum", "plain")

# A loop over all labels forms about 10^9 products a second at best: past this it is left out, for it takes a second.
_MOST_PRODUCTS = 3 * 10**8
# The search for the optimal path takes seconds past this many operands; up to two there is nothing to search.
_OPTIMAL_OPERANDS = range(3, 7)
# The error that we accept, as a part of the largest element of the result: rounding, with long sums allowed for.
_TOLERANCE = {"float32": 1e-5, "complex64": 1e-5, "float64": 1e-13, "complex128": 1e-13}
# How far the upper quartile of the ratios has to be below 1 before a row counts as slower: a call timed against itself
# gave medians from 0.977 to 1.017, and no upper quartile below 1.000, over all rows (numpy 2.4, 2 shared cores).
_NOISE = 0.03
# A sample repeats its call for this many seconds, so that neither the clock nor the loop around it shows.
_SAMPLE = 5e-3
_FEWEST_ROUNDS, _MOST_ROUNDS = 5, 101


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one workload: seconds per call for each peer and round, or why a peer has none."""

    workload: Workload
    rounds: Mapping[str, tuple[float, ...]]
    faults: Mapping[str, str] = field(default_factory=dict)

    def median(self, peer: str) -> float:
        return statistics.median(self.rounds[peer])

    @property
    def best(self) -> str | None:
        """The fastest einsum of the library itself."""
        return min((peer for peer in EINSUMS if peer in self.rounds), key=self.median, default=None)

    @property
    def ratios(self) -> tuple[float, ...]:
        """The library's best time over ours in each round: above 1 where we are faster."""
        if self.best is None or OURS not in self.rounds:
            return ()
        return tuple(theirs / ours for theirs, ours in zip(self.rounds[self.best], self.rounds[OURS], strict=True))

    @property
    def quartiles(self) -> tuple[float, float, float] | None:
        """The lower quartile, median and upper quartile of the ratios."""
        if len(self.ratios) < 2:
            return None
        low, middle, high = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return low, middle, high

    @property
    def slower(self) -> bool:
        """Whether the library's best is faster than ours by more than noise."""
        return self.quartiles is not None and self.quartiles[2] < 1 - _NOISE


def calls(workload: Workload, xp: Any, operands: list[Array]) -> dict[str, Call]:
    """Each peer that is worth timing on this workload, as a call without arguments."""
    equation = workload.equation
    peers: dict[str, Call] = {OURS: partial(ge.einsum, equation, *operands)}
    if workload.products <= _MOST_PRODUCTS:
        peers["einsum"] = partial(xp.einsum, equation, *operands, optimize=False)
    peers["einsum greedy"] = partial(xp.einsum, equation, *operands, optimize="greedy")
    if len(operands) in _OPTIMAL_OPERANDS:
        peers["einsum optimal"] = partial(xp.einsum, equation, *operands, optimize="optimal")
    peers["opt_einsum"] = partial(opt_einsum.contract, equation, *operands)
    if workload.plain is not None:
        peers["plain"] = partial(workload.plain, xp, *operands)
    return peers


def measure(workload: Workload, peers: Mapping[str, Call], reference: Array, clock: Clock, seconds: float) -> Result:
    """Check each peer's result against the reference, then time those that are right, for about so many seconds.

    Every round times every peer once, and the next round begins with the next peer, so that whatever else the machine
    does falls on all of them alike.
    """
    faults = {peer: fault for peer, call in peers.items() if (fault := _fault(workload, call, reference))}
    right = [peer for peer in peers if peer not in faults]
    rounds: dict[str, list[float]] = {peer: [] for peer in right}
    if not right:
        return Result(workload, {}, faults)
    with _no_garbage_collection():
        loops = {peer: math.ceil(_SAMPLE / min(clock(peers[peer], 1) for _ in range(3))) for peer in right}
        end = perf_counter() + seconds
        for number in range(_MOST_ROUNDS):
            if number >= _FEWEST_ROUNDS and perf_counter() > end:
                break
            turn = number % len(right)
            for peer in right[turn:] + right[:turn]:
                rounds[peer].append(clock(peers[peer], loops[peer]) / loops[peer])
    return Result(workload, {peer: tuple(times) for peer, times in rounds.items()}, faults)


def _fault(workload: Workload, call: Call, reference: Array) -> str | None:
    """Call once; what is wrong with the result, or None."""
    try:
        result = call()
    except Exception as error:  # a peer that cannot do it is a finding, not the end of the run
        return f"FAILED: {type(error).__name__}: {error}"
    result = np.asarray(result.get() if hasattr(result, "get") else result)
    if result.shape != reference.shape or result.dtype != workload.dtype:
        return f"WRONG: {result.dtype} {result.shape}, not {workload.dtype} {reference.shape}"
    off = float(np.max(np.abs(result - reference), initial=0))
    allowed = _TOLERANCE.get(workload.dtype, 0) * float(np.max(np.abs(reference), initial=0))
    return None if off <= allowed else f"WRONG: off by {off:.1e} where {allowed:.1e} is allowed"


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


def geometric_mean(values: list[float]) -> float:
    """exp of the mean of the logarithms."""
    return math.exp(statistics.fmean(map(math.log, values)))
