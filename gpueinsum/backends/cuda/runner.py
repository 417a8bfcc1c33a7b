"""A program as functions on a device: from operands' addresses to results' memories, and from operands to results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpueinsum.backends.cuda.graph import Launches
from gpueinsum.backends.cuda.program import Product, Program
from gpueinsum.backends.cuda.runtime import CupyRuntime, Memory
from gpueinsum.errors import DeviceError

Array = Any  # CuPy's, or the simulated device's
_CAPTURING = (
    "this stream is being captured, and the memory for intermediates would not live until the graph is launched: "
    "contract_expression(..., graph=True) captures a graph of its own"
)
Run = Callable[[Sequence[Array]], tuple[Array, ...]]


def runner(program: Program, runtime: CupyRuntime, launched: Launches) -> Run:
    """The program as a function of its operands: their addresses, the launches, and arrays in the results' memories."""
    pointer, array, strided = runtime.pointer, runtime.array, runtime.strided
    dtype, outputs, results = np.dtype(program.dtype), program.outputs, len(program.operands)

    def run(operands: Sequence[Array]) -> tuple[Array, ...]:
        memories = launched([*map(pointer, operands)])
        return tuple(
            [
                array(shape, dtype, memories[memory - results], strides)
                if memory >= results
                else strided(operands[memory], shape, strides)
                for memory, shape, strides in outputs
            ]
        )

    return run


def launcher(program: Program, runtime: CupyRuntime) -> Launches:
    """From the operands' addresses to the results' memories, everything launched in turn.

    Raises DeviceError while the caller captures the stream, if it needs memory that would not live until the replay.
    """
    launches = [runtime.prepare(work) for work in program.work]
    allocate, sizes = runtime.allocate, program.results
    if program.workspace:
        sizes = (*sizes, program.workspace)

    borrows = bool(program.workspace) or any(isinstance(work, Product) for work in program.work)

    def launch_all(addresses: Sequence[int]) -> Sequence[Memory]:
        if borrows and runtime.is_capturing():
            raise DeviceError(_CAPTURING)
        memories = [allocate(size) for size in sizes]
        places = [*addresses, *[memory.ptr for memory in memories]]
        for launch in launches:
            launch(places)
        return memories

    return launch_all
