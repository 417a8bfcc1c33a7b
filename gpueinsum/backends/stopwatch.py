"""From calls to their seconds, on a machine that does other things, too: the fastest of samples taken in turn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import TypeVar

Call = Callable[[], object]
Name = TypeVar("Name")

# A sample repeats its call for so many seconds, and the fastest of all samples counts, since whatever else the machine
# does only adds: with two other processes on two cores, a product of 512 x 512 by 512 took 20 ms in the best of five
# samples of 10 ms, 2.3 ms in the best of 80 single calls (float32).
_SAMPLE = 5e-4
_FEWEST_ROUNDS = 5


def fastest(time: Callable[[Call, int], float], calls: Mapping[Name, Call], seconds: float) -> dict[Name, float]:
    """Seconds of each call: the fastest of its samples, which are taken in turn, round after round.

    `time(call, count)` are the seconds of so many calls on a device. All together takes about so many `seconds`, or
    five rounds if they take longer.
    """
    end = perf_counter() + seconds
    counts: dict[Name, int] = {}
    best: dict[Name, float] = {}
    for name, call in calls.items():
        time(call, 1)  # prepares, and on CUDA compiles
        best[name] = time(call, 1)
        counts[name] = math.ceil(_SAMPLE / max(best[name], 1e-9))
    rounds = 0
    while rounds < _FEWEST_ROUNDS or perf_counter() < end:
        for name, call in calls.items():
            best[name] = min(best[name], time(call, counts[name]) / counts[name])
        rounds += 1
    return best


def host_seconds(call: Call, count: int) -> float:
    """Seconds that so many calls take on the processor, one after the other."""
    start = perf_counter()
    for _ in range(count):
        call()
    return perf_counter() - start
