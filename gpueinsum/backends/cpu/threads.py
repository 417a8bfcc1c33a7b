"""numpy's loops on all cores: a step in parts, each on its own part of the result, one of them on the caller's thread.

numpy's loops run on one thread, and let others run meanwhile. What a part computes never depends on timing, and the
number of parts depends on the shape alone: the same call gives the same bits.
"""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise

from gpueinsum.costs.machine import usable_threads

_threads = usable_threads()
_is_part: contextvars.ContextVar[bool] = contextvars.ContextVar("gpueinsum_is_part", default=False)


def threads() -> int:
    """How many threads steps run on."""
    return _threads


def parts(amount: int, least: int) -> int:
    """In how many parts so much work is shared if none is to have less than `least` of it."""
    return max(1, min(threads(), amount // least))


def in_turn(work: Callable[[slice], object], size: int, parts: int) -> None:
    """`work` on each of so many slices of an axis of this size, at the same time; the first exception is raised.

    Each part runs in the context of the caller: numpy's error state belongs to it. Within `work` all is one part.
    """
    parts = min(parts, size)
    if parts < 2 or _is_part.get():
        work(slice(0, size))
        return
    bounds = [size * part // parts for part in range(parts + 1)]
    first, *others = [slice(start, stop) for start, stop in pairwise(bounds)]
    token = _is_part.set(True)
    handed = [_hand(work, part) for part in others]
    try:
        work(first)
    finally:  # also where the first is interrupted: nobody may write into a result that is gone
        wait(handed)
        _is_part.reset(token)
    for future in handed:
        future.result()


def _hand(work: Callable[[slice], object], part: slice) -> Future[object]:
    """The part on another thread; while the interpreter exits there is none, and the part is done at once."""
    try:
        return _executor().submit(contextvars.copy_context().run, work, part)
    except RuntimeError:
        work(part)
        done: Future[object] = Future()
        done.set_result(None)
        return done


@cache
def _executor() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, threads() - 1), "gpueinsum")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_executor.cache_clear)  # a forked process has none of the threads
