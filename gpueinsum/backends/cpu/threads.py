"""numpy's loops on all cores: a step in parts, each on its own part of the result, one of them on the caller's thread.

numpy's loops run on one thread, and let others run meanwhile. What a part does never depends on timing, and how many
there are only on the shape: the same call gives the same bits.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from queue import SimpleQueue

from gpueinsum.costs.machine import usable_threads

Work = Callable[[], object]


def threads() -> int:
    """How many threads steps run on."""
    return _threads


def parts(amount: int, least: int) -> int:
    """In how many parts so much work is shared if none is to have less than `least` of it."""
    return max(1, min(threads(), amount // least))


def in_turn(work: Callable[[slice], object], size: int, parts: int) -> None:
    """`work` on each of so many slices of an axis of this size, at the same time; an exception of one is raised."""
    parts = min(parts, size)
    if parts < 2:
        work(slice(0, size))
        return
    bounds = [size * part // parts for part in range(parts + 1)]
    run([partial(work, slice(start, stop)) for start, stop in pairwise(bounds)])


def run(works: Sequence[Work]) -> None:
    """Run all of these at the same time, and return when all are done; the first exception, in their order, is raised.

    They must not wait for one another, nor run others: there may be fewer threads than works.
    """
    first, *others = works
    handed = [_Handed(work) for work in others]
    for work in handed:
        _workers().put(work)
    try:
        first()
    finally:  # also where the first is interrupted: nobody may write into a result that is gone
        for work in handed:
            work.wait()
    for work in handed:
        if work.error is not None:
            raise work.error


class _Handed:
    """Work of another thread, in the context of the one that asks for it: numpy's error state is a part of that."""

    __slots__ = ("_context", "_done", "_work", "error")

    def __init__(self, work: Work) -> None:
        self._work = work
        self._context = contextvars.copy_context()
        self._done = threading.Lock()
        self._done.acquire()
        self.error: BaseException | None = None

    def __call__(self) -> None:
        try:
            self._context.run(self._work)
        except BaseException as error:
            self.error = error
        finally:
            self._done.release()

    def wait(self) -> None:
        self._done.acquire()


def _work(queue: SimpleQueue[_Handed]) -> None:
    while True:
        queue.get()()


def _workers() -> SimpleQueue[_Handed]:
    """What the threads take their work from; they are started when it is first asked for."""
    global _queue
    if _queue is None:
        with _starting:
            if _queue is None:
                queue: SimpleQueue[_Handed] = SimpleQueue()
                for number in range(1, _threads):
                    name = f"gpueinsum-{number}"
                    threading.Thread(target=_work, args=(queue,), name=name, daemon=True).start()
                _queue = queue
    return _queue


def _forget() -> None:
    """A forked process has none of the threads."""
    global _queue, _starting
    _queue, _starting = None, threading.Lock()


_threads = usable_threads()
_queue: SimpleQueue[_Handed] | None = None
_starting = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
