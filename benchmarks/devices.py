"""What the suite runs on: the host with numpy, or a GPU with CuPy; each with its clock, its facts and its limits."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import platform
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np

import gpueinsum as ge
from benchmarks.workloads import Workload, numpy_dtype, numpy_strided, random_array
from gpueinsum.backends import select as backends
from gpueinsum.backends.cuda.program import Address, Product
from gpueinsum.schedule.gemm import GemmArguments
from gpueinsum.tools.calibrate import last_cache_bytes

Array = Any
Call = Callable[[], Any]

THREADS = "OPENBLAS_NUM_THREADS"
_DEFAULT_CACHE = 32 << 20


class Device(Protocol):
    """A place where arrays live and calls are timed."""

    kind: str  # "cpu" or "cuda"
    xp: Any
    cache_bytes: int
    backend: backends.Backend  # what runs plans there

    def put(self, array: np.ndarray[Any, Any]) -> Array:
        """A new array on the device."""

    def as_strided(self, array: Array, shape: Sequence[int], strides: Sequence[int]) -> Array:
        """A view with other strides, counted in elements."""

    def time(self, calls: Iterator[Call], count: int, wait: Callable[[Any], Any]) -> float:
        """Seconds that so many calls take, one after the other, until `wait` has the last one's result."""

    def gemm(self, dtype: str, precision: str | None, batch: int, m: int, n: int, k: int) -> Call:
        """A plain product of row-major matrices into memory that is there already."""

    def copy(self, nbytes: int) -> Call:
        """A copy of so many bytes into memory that is there already."""

    def peak_bytes(self, call: Call) -> int:
        """Bytes that a call takes at the most at once, its result among them."""

    def tidy(self) -> None:
        """Give back memory that no array holds any more."""

    def facts(self) -> dict[str, Any]: ...
    def versions(self) -> dict[str, str]: ...


def threads() -> int:
    """How many threads each library may use: as many as OpenBLAS, which is told at its start, or all cores."""
    return int(os.environ.get(THREADS) or cores())


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Host:
    """The processor, by numpy."""

    kind = "cpu"
    xp = np
    backend = backends.HOST

    def __init__(self) -> None:
        self.cache_bytes = last_cache_bytes()

    def put(self, array: np.ndarray[Any, Any]) -> Array:
        return array.copy()

    as_strided = staticmethod(numpy_strided)

    def time(self, calls: Iterator[Call], count: int, wait: Callable[[Any], Any]) -> float:
        batch = list(islice(calls, count))
        start = perf_counter()
        for call in batch:
            result = call()
        wait(result)
        return perf_counter() - start

    def gemm(self, dtype: str, precision: str | None, batch: int, m: int, n: int, k: int) -> Call:
        """Halves and integers have no GEMM in BLAS: they are measured against float32's and float64's."""
        kind = np.dtype({"float16": "float32", "bfloat16": "float32"}.get(dtype, dtype))
        kind = kind if kind.kind in "fc" else np.dtype(np.float64)
        stack = (batch,) if batch > 1 else ()
        a, b, c = (_filled(np.empty(stack + shape, kind), np.asarray) for shape in ((m, k), (k, n), (m, n)))
        return lambda: np.matmul(a, b, out=c)

    def copy(self, nbytes: int) -> Call:
        source, target = (_filled(np.empty(max(nbytes // 8, 1)), np.asarray) for _ in range(2))
        return lambda: np.copyto(target, source)

    def peak_bytes(self, call: Call) -> int:
        """By Python's own count, of numpy's arrays, too; no scratch of BLAS' is in it."""
        return counted_bytes(call)

    def tidy(self) -> None:
        pass

    def facts(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": _cpu_model(),
            "cores": cores(),
            "threads": threads(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "cache_bytes": self.cache_bytes,
        }

    def versions(self) -> dict[str, str]:
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return {"numpy": np.__version__, "blas": f"{blas['name']} {blas['version']}"}


class Cuda:
    """The current GPU, by CuPy; plain GEMMs by cuBLAS itself, so that no library's copies stand in the way."""

    kind = "cuda"

    def __init__(self, cupy: Any) -> None:
        self.xp = cupy
        self.backend = backends.cuda_backend()
        self._runtime = self.backend.runtime
        self._properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
        self.cache_bytes = int(self._properties["l2CacheSize"]) or _DEFAULT_CACHE

    def put(self, array: np.ndarray[Any, Any]) -> Array:
        return self.xp.asarray(array)

    def as_strided(self, array: Array, shape: Sequence[int], strides: Sequence[int]) -> Array:
        in_bytes = [stride * array.itemsize for stride in strides]
        return self.xp.lib.stride_tricks.as_strided(array, shape, in_bytes)

    def time(self, calls: Iterator[Call], count: int, wait: Callable[[Any], Any]) -> float:
        """By events, from an idle device to the end of the last call's work: the host counts where the device waits."""
        batch = list(islice(calls, count))
        stream = self.xp.cuda.get_current_stream()
        start, stop = self.xp.cuda.Event(), self.xp.cuda.Event()
        self.xp.cuda.Device().synchronize()
        start.record(stream)
        for call in batch:
            result = call()
        wait(result)
        stop.record(stream)
        stop.synchronize()
        return float(self.xp.cuda.get_elapsed_time(start, stop)) / 1e3

    def gemm(self, dtype: str, precision: str | None, batch: int, m: int, n: int, k: int) -> Call:
        """Row-major, so that cuBLAS, which is column-major, multiplies the second by the first. Integers as float64."""
        kind = numpy_dtype(dtype)
        kind = kind if kind.kind not in "iub" else np.dtype(np.float64)
        runtime = self._runtime
        shapes = ((batch * m, k), (batch * k, n), (batch * m, n))
        a, b, c = (_filled(self.xp.empty(shape, kind), self.put) for shape in shapes)
        gemm = GemmArguments(False, False, n, m, k, n, k, n, batch, k * n, m * k, m * n)
        work = Product(gemm, kind.name, precision, (Address(0, 0), Address(1, 0), Address(2, 0)))
        launch = runtime.prepare(work)
        return lambda: launch([runtime.pointer(array) for array in (b, a, c)])

    def copy(self, nbytes: int) -> Call:
        empty = partial(self.xp.empty, (max(nbytes // 8, 1),), np.dtype(np.float64))
        source, target = (_filled(empty(), self.put) for _ in range(2))
        return lambda: self.xp.copyto(target, source)

    def peak_bytes(self, call: Call) -> int:
        """By CuPy's pool, at every allocation; it counts in blocks of 512 bytes."""
        call()  # handles and workspaces are made once
        pool, peak = self.xp.get_default_memory_pool(), 0
        before = pool.used_bytes()

        class Watch(self.xp.cuda.MemoryHook):  # type: ignore[misc]  # CuPy has no types
            name = "peak"

            def malloc_postprocess(self, **_: Any) -> None:
                nonlocal peak
                peak = max(peak, pool.used_bytes() - before)

        with Watch():
            call()
        return peak

    def tidy(self) -> None:
        gc.collect()
        self.xp.get_default_memory_pool().free_all_blocks()
        if torch := sys.modules.get("torch"):
            torch.cuda.empty_cache()

    def facts(self) -> dict[str, Any]:
        runtime, properties = self.xp.cuda.runtime, self._properties
        return {
            "kind": self.kind,
            "name": properties["name"].decode(),
            "multiprocessors": int(properties["multiProcessorCount"]),
            "compute_capability": f"{properties['major']}.{properties['minor']}",
            "memory_bytes": int(properties["totalGlobalMem"]),
            "cache_bytes": self.cache_bytes,
            "driver_cuda": _cuda_version(runtime.driverGetVersion()),
            "host": _cpu_model(),
            "cores": cores(),
            "threads": threads(),
        }

    def versions(self) -> dict[str, str]:
        runtime = _cuda_version(self.xp.cuda.runtime.runtimeGetVersion())
        return Host().versions() | {"cupy": self.xp.__version__, "cuda": runtime}


def device(kind: str | None = None) -> Device:
    """The one asked for, else a GPU where one can be used. Raises DeviceError where the GPU asked for is missing."""
    if kind == "cuda":
        backends.cuda_backend()  # says what is missing
    xp = np if kind == "cpu" else ge.array_module()
    return Host() if xp is np else Cuda(xp)


def counted_bytes(call: Call) -> int:
    """The most bytes that Python counts during a second call, beside what is kept of the first."""
    call()  # what is made once
    ge.free_memory()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def input_sets(workload: Workload, place: Device) -> int:
    """How many copies of its operands a row rotates through, so that none is in the cache when its turn comes again.

    A result is written to the cache, too: with a large one the operands have gone from it by the next call.
    """
    elements = sum(map(math.prod, (*workload.stored_shapes, workload.result_shape)))
    nbytes = elements * numpy_dtype(workload.dtype).itemsize
    return min(max(1, -(-_TIMES_THE_CACHE * place.cache_bytes // max(nbytes, 1))), _MOST_SETS)


_TIMES_THE_CACHE = 2
_MOST_SETS = 64  # so rows of a hundredth of the cache and less stay in it; they are a matter of overhead


def _filled(array: Array, put: Callable[[np.ndarray[Any, Any]], Array]) -> Array:
    """The same array with random numbers, the same ones over and over: on all zeros or ones a GPU's clock is higher."""
    draws = random_array(np.random.default_rng(0), (min(array.size, _DRAWS),), array.dtype.name)
    pattern, flat = put(draws.view(np.uint8)), array.reshape(-1).view(np.uint8)
    for start in range(0, flat.size, pattern.size):
        flat[start : start + pattern.size] = pattern[: flat.size - start]
    return array


_DRAWS = 1 << 20


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        if models:
            return models[0]
    return platform.processor() or platform.machine()
