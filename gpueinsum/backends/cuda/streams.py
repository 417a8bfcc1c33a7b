"""Launches on several of CuPy's streams at once: forks, waits by events and joins; `cuda` is CuPy's module."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gpueinsum.backends.cuda.cublas import CupyBlas, Launch
from gpueinsum.backends.cuda.lanes import Start


class LaneStreams:
    """The streams beside a caller's stream, each with a cuBLAS handle that no other stream uses.

    They belong to that stream: of two callers neither waits for the other. Threads that share it take turns by `lock`.
    """

    def __init__(self, streams: Sequence[Any], new_blas: Callable[[], CupyBlas]) -> None:
        self.streams, self.lock = streams, threading.Lock()
        self._new_blas = new_blas
        self._blas: dict[int, CupyBlas] = {}

    def blas(self, lane: int) -> CupyBlas:
        """Made when it is first needed: a handle takes memory (32 MiB on an H200, by cuBLAS' documentation)."""
        if lane not in self._blas:
            self._blas[lane] = self._new_blas()
        return self._blas[lane]


def one_by_one(launches: Sequence[Launch]) -> Launch:
    """Launches on the stream that is current then."""

    def launch_all(addresses: Sequence[int]) -> None:
        for launch in launches:
            launch(addresses)

    return launch_all


def forked(
    cuda: Any,
    starts: Sequence[Start],
    launches: Sequence[Launch],
    streams: Sequence[Any],
) -> Launch:
    """Launches on the streams of their lanes, the first of which is current then, and waits for the others."""
    used = sorted({start.lane for start in starts} - {0})
    awaited = {other for start in starts for other in start.after}
    events = {number: cuda.Event(disable_timing=True) for number in awaited}
    fork, ends = cuda.Event(disable_timing=True), [cuda.Event(disable_timing=True) for _ in used]
    caller, others = streams[0], [streams[lane] for lane in used]
    turns = [
        (streams[start.lane], [events[other] for other in start.after], launch, events.get(number))
        for number, (start, launch) in enumerate(zip(starts, launches, strict=True))
    ]

    def launch_all(addresses: Sequence[int]) -> None:
        fork.record(caller)  # operands are ready there, and memory was taken there
        for stream in others:
            stream.wait_event(fork)
        try:
            for stream, before, launch, done in turns:
                for event in before:
                    stream.wait_event(event)
                if stream is caller:
                    launch(addresses)
                else:
                    with current(cuda, stream):
                        launch(addresses)
                if done is not None:
                    done.record(stream)
        finally:  # whatever was launched uses the memory, which goes back on the caller's stream
            for stream, end in zip(others, ends, strict=True):
                end.record(stream)
                caller.wait_event(end)

    return launch_all


@contextlib.contextmanager
def current(cuda: Any, stream: Any) -> Iterator[None]:
    """This stream as the current one, and then the one before: CuPy's own `with` forgets what `use()` made current.

    See cupy/cupy#8377.
    """
    before = cuda.get_current_stream()
    stream.use()
    try:
        yield
    finally:
        before.use()
