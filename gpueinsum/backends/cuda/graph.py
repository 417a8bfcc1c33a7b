"""A program captured once as a CUDA graph and replayed, so that many short kernels cost one launch.

A graph's addresses are fixed when it is captured. Operands that come to the same addresses again are used in place;
others are copied into memory of the graph's own, where that takes fewer calls than the launches it saves. Results are
the caller's own: they are copied out of the graph's memory, which the next replay overwrites.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import assert_never
from weakref import WeakSet

from gpueinsum.backends.cuda.program import Launch, Product, Program, Work
from gpueinsum.backends.cuda.runtime import CupyRuntime, Memory
from gpueinsum.errors import DeviceError

Launches = Callable[[Sequence[int]], Sequence[Memory]]

# A launch takes 4 us of the host (costs/profiles/h200.json), and a replay as much as two or three, copies out apart.
_MANY_LAUNCHES = 8
# What an H200 computes (float32: 53e12 per second) or moves (4.3e12 bytes per second) in the 4 us that a launch takes:
# the host is behind only where a launch has less to do than that.
_SHORT_FLOPS, _SHORT_BYTES = 2e8, 17e6
# Graphs of a program, by the stream and the operands' addresses that they were captured for; each takes the program's
# memory.
_KEPT = 4
_MOST_GAPS = 2  # an operand is copied with what lies between its elements, up to so many times their bytes


def is_worth_a_graph(program: Program) -> bool:
    """Whether the host would be behind the device: many launches, and short ones."""
    launches = len(program.work)
    flops = sum(map(_flops, program.work))
    moved = program.bytes + sum(span.bytes for span in program.operands)
    return launches >= _MANY_LAUNCHES and flops < launches * _SHORT_FLOPS and moved < launches * _SHORT_BYTES


def _flops(work: Work) -> float:
    match work:
        case Product():
            return 2.0 * work.gemm.m * work.gemm.n * work.gemm.k * work.gemm.batch
        case Launch():
            return 0.0  # bound by what it moves
        case _:
            assert_never(work)


def launch_or_replay(program: Program, runtime: CupyRuntime, launch: Launches, warns: bool) -> Launches:
    """`launch`, or a replay of the program: both take the operands' addresses and give the results' memories.

    What is captured for a stream serves that stream only, where one replay waits for the one before it. If capturing
    fails, or there is no memory for it, everything is launched as before; the first reason is a RuntimeWarning if it
    `warns`.
    """
    copies_pay = 2 * len(program.operands) <= len(program.work) and all(
        span.bytes <= _MOST_GAPS * span.elements_bytes for span in program.operands
    )
    in_place = lru_cache(maxsize=_KEPT)(lambda context, addresses: _Repeated(program, runtime, addresses))
    elsewhere = lru_cache(maxsize=_KEPT)(lambda context: _Repeated(program, runtime, None))
    warned = not warns

    def run(addresses: Sequence[int]) -> Sequence[Memory]:
        nonlocal warned
        if runtime.is_capturing():
            return launch(addresses)
        context = runtime.context()
        try:
            replay = in_place(context, tuple(addresses)).replay()
            if replay is None and copies_pay:
                replay = elsewhere(context).replay()
        except (DeviceError, MemoryError) as error:
            if not warned:
                warned = True
                warnings.warn(f"no CUDA graph, but launch by launch: {error}", RuntimeWarning, stacklevel=2)
            return launch(addresses)
        return launch(addresses) if replay is None else replay(addresses)

    return run


class _Repeated:
    """What may become a graph: it is captured the second time that it is asked for, when all kernels are loaded.

    A capture that fails is tried again, each time after twice as many calls.
    """

    def __init__(self, program: Program, runtime: CupyRuntime, addresses: tuple[int, ...] | None) -> None:
        self._capture = partial(_Graph, program, runtime, addresses)
        self._graph: _Graph | None = None
        self._asked, self._due = 0, 2
        self._lock = threading.Lock()
        with _LOCK:
            _KNOWN.add(self)

    def replay(self) -> Launches | None:
        with self._lock:
            self._asked += 1
            if self._graph is None:
                if self._asked < self._due:
                    return None
                self._due = 2 * self._asked
                self._graph = self._capture()
            return self._graph.replay

    def forget(self) -> int:
        """Give up the graph, until it is asked for twice more; how many bytes it holds."""
        with self._lock:
            graph, self._graph = self._graph, None
            self._asked, self._due = 0, 2
        return graph.bytes if graph else 0


_KNOWN: WeakSet[_Repeated] = WeakSet()
_LOCK = threading.Lock()  # of these


def forget_graphs() -> int:
    """Give up all graphs and the memory that they work in; how many bytes that is."""
    with _LOCK:
        known = [*_KNOWN]
    return sum(repeated.forget() for repeated in known)


class _Graph:
    """A captured program with the memory that it works in; `addresses` are the operands', None to copy them in."""

    def __init__(self, program: Program, runtime: CupyRuntime, addresses: tuple[int, ...] | None) -> None:
        self._program, self._runtime = program, runtime
        self._inputs = [] if addresses else [runtime.allocate(span.bytes) for span in program.operands]
        if addresses is None:
            addresses = tuple(
                memory.ptr + span.before for memory, span in zip(self._inputs, program.operands, strict=True)
            )
        self._results = [runtime.allocate(nbytes) for nbytes in program.results]
        self._workspace = [runtime.allocate(program.workspace)] if program.workspace else []
        own = [memory.ptr for memory in (*self._results, *self._workspace)]
        self._launch = runtime.capture(program, [*addresses, *own])
        self._lock = threading.Lock()  # threads of one stream: copies in, launch and copies out belong together

    @property
    def bytes(self) -> int:
        """What it holds."""
        copied = sum(span.bytes for span in self._program.operands) if self._inputs else 0
        return copied + self._program.bytes

    def replay(self, addresses: Sequence[int]) -> Sequence[Memory]:
        runtime, program = self._runtime, self._program
        results = [runtime.allocate(nbytes) for nbytes in program.results]
        with self._lock:
            if self._inputs:
                for memory, address, span in zip(self._inputs, addresses, program.operands, strict=True):
                    if span.bytes:
                        runtime.copy(memory.ptr, address - span.before, span.bytes)
            self._launch()
            for result, memory, nbytes in zip(results, self._results, program.results, strict=True):
                if nbytes:
                    runtime.copy(result.ptr, memory.ptr, nbytes)
        return results
