"""`python -m benchmarks.compiled`: every kernel compiled ahead, in parallel, into CuPy's cache, for later stages."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from time import perf_counter

from gpueinsum.backends.cuda.runtime import _raw_kernel
from gpueinsum.backends.cuda.source import KERNELS, Kernel

_PROCESSES = 16


def main() -> int:
    """0; 1 if a kernel does not compile. What does not is shown when it is found, the seconds at the end."""
    # Those of many operands take the longest, and begin first.
    kernels = sorted({kernel.entry: kernel for kernel in KERNELS}.values(), key=lambda kernel: -kernel.operands)
    start, taken, faults = perf_counter(), {}, 0
    processes = min(_PROCESSES, os.cpu_count() or 1)
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for kernel, (seconds, fault) in zip(kernels, pool.map(_compile, kernels), strict=True):
            taken[kernel.entry] = seconds
            if fault:
                faults += 1
                print(f"{kernel.entry} does not compile: {fault}", flush=True)
    slowest = max(taken, key=taken.__getitem__)
    print(
        f"{len(kernels) - faults} of {len(kernels)} kernels compiled by {processes} processes in "
        f"{perf_counter() - start:.1f} s; one after the other {sum(taken.values()):.1f} s, "
        f"the slowest, {slowest}, {taken[slowest]:.2f} s"
    )
    return int(faults > 0)


def _compile(kernel: Kernel) -> tuple[float, str]:
    """The seconds that it took, and what was wrong."""
    start, fault = perf_counter(), ""
    try:
        _raw_kernel(kernel).compile()
    except Exception as error:  # of NVRTC, CuPy, CUDA: a finding
        fault = f"{type(error).__name__}: {error}"
    return perf_counter() - start, fault


if __name__ == "__main__":
    sys.exit(main())
