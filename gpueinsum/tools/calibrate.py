"""Measure a device: times of products, copies and loops in, the `Profile` that predicts these times best out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpueinsum.api.arguments import dtype_of
from gpueinsum.backends import select as backends
from gpueinsum.backends.autotune import runs
from gpueinsum.backends.base import Backend
from gpueinsum.backends.cpu.copies import copy_to
from gpueinsum.backends.cpu.threads import threads
from gpueinsum.backends.stopwatch import Call, fastest, host_seconds
from gpueinsum.costs.counts import einsum_cost, item_bytes, multiply_add_flops
from gpueinsum.costs.machine import machine
from gpueinsum.costs.profile import Profile, Rate
from gpueinsum.errors import DeviceError
from gpueinsum.language.steps import Contract
from gpueinsum.schedule.candidate import Matmul
from gpueinsum.schedule.fusion import Fused
from gpueinsum.schedule.mapping import Gemm
from gpueinsum.schedule.predict import problem_of
from gpueinsum.schedule.schedule import alone
from gpueinsum.schedule.select import candidates, cheapest
from gpueinsum.text import seconds_text

Shape = tuple[int, int, int, int]  # of a batch of products: how many, rows, columns, summed

_DRAWS = 1 << 20  # random numbers of an array: more would take longer than all that is measured
# Half sizes that are tried: 0, and from 1 to 1024 in steps of a quarter octave, finer than products follow any law.
_HALF_SIZES = np.array([0.0, *2.0 ** np.arange(0, 10.1, 0.25)])


class Sizes(NamedTuple):
    """What is measured on a kind of device."""

    large: int  # rows, columns and summed of a product that runs at the full rate
    cubes: tuple[tuple[int, int], ...]  # batches of smaller products: how many, and of which size; a GPU is to be full
    thin: tuple[tuple[int, int], ...]  # batches of products that are large along two sides, and of which size along one
    copy: int  # bytes, many times those of the last cache
    cached: int  # bytes of which source and target stay in it
    batch: Shape  # so many products that each takes its time, however small; on a GPU none that a pass stands for
    loop: int  # the size of each label of a loop over four


_CPU_CUBES, _CPU_THIN = ((1, 256), (1, 96), (1, 48), (1, 24)), ((1, 12), (1, 48))
_CUDA_CUBES, _CUDA_THIN = ((4, 2048), (16, 1024), (64, 512), (256, 256), (4096, 64)), ((4, 64), (1, 256))
_SIZES = {
    "cpu": Sizes(640, _CPU_CUBES, _CPU_THIN, 128 << 20, 1 << 20, (4096, 2, 2, 2), 32),
    "cuda": Sizes(4096, _CUDA_CUBES, _CUDA_THIN, 512 << 20, 16 << 20, (65536, 2, 2, 16), 128),
}
TINY = Sizes(64, ((1, 48), (2, 24)), ((1, 12),), 1 << 20, 1 << 14, (16, 2, 2, 2), 4)  # shows only that everything runs


def calibrate(
    bench: Bench, seconds: float = 30.0, sizes: Sizes | None = None, show: Callable[[str], object] = lambda line: None
) -> Profile:
    """The profile of a device, from measurements that take about so many seconds, 5 rounds at the least.

    What was measured is `show`n as it comes.
    """
    size = sizes or _SIZES[bench.machine.kind]
    launch = fastest(bench.time, {"step": bench.product("float32", 2, 2, 2, 2)}, seconds / 30)["step"]
    show(f"a step {seconds_text(launch)}")
    # A call on the host launches and works by turns; a GPU works while the host launches, and its work is timed alone.
    apart = launch if bench.machine.kind == "cpu" else 0.0
    calls = {
        "copy": bench.copy(size.copy),
        "cached copy": bench.copy(size.cached),
        "permuted copy": bench.permuted_copy(size.copy),
        "loop": bench.loop(size.loop),
        "batch": bench.product("float32", *size.batch),
    }
    taken = fastest(bench.work, calls, seconds / 6)
    show(", ".join(f"{name} {seconds_text(time)}" for name, time in taken.items()))
    work = {name: _besides(apart, time) for name, time in taken.items()}
    bandwidth = 2 * size.copy / work["copy"]
    cached = max(2 * size.cached / work["cached copy"] / bandwidth, 1.0)

    fits = {}
    for dtype in bench.dtypes:
        try:
            products = {shape: bench.product(dtype, *shape) for shape in _shapes(size)}
        except DeviceError as error:
            show(f"{dtype} is left out: {error}")
            continue
        times = fastest(bench.work, products, seconds * 0.8 / len(bench.dtypes))
        show(f"{dtype} " + ", ".join(f"{' x '.join(map(str, s))} {seconds_text(time)}" for s, time in times.items()))
        long = {shape: time for shape, time in times.items() if time > 2 * apart} or times
        worked = {shape: _besides(apart, time) for shape, time in long.items()}
        fits[dtype] = fit_rate(worked, dtype, bandwidth * cached)
    loop = einsum_cost(_LOOP.terms, _LOOP.out, dict.fromkeys("ijkl", size.loop), "float32")
    worst = max(found.factor for found in fits.values())
    return Profile(
        name=bench.machine.name,
        kind=bench.machine.kind,
        device=f"calibrated: {bench.machine}; every product that was timed within {worst:.2f} times its prediction",
        rates=tuple((dtype, found.rate) for dtype, found in fits.items()),
        bytes_per_second=bandwidth,
        permuted=min(work["copy"] / work["permuted copy"], 1.0),
        cache_bytes=bench.cache_bytes,
        cached=cached,
        loop_flops_per_second=loop.flops / work["loop"],
        launch=launch,
        each=work["batch"] / size.batch[0],
        memory_bytes=bench.memory_bytes,
        processors=bench.processors,
    )


def _shapes(size: Sizes) -> list[Shape]:
    """Cubes, and products that are thin along each side."""
    x = size.large
    cubes = [(batch, side, side, side) for batch, side in ((1, x), *size.cubes)]
    return cubes + [(batch, *sides) for batch, t in size.thin for sides in ((t, x, x), (x, t, x), (x, x, t))]


def _besides(launch: float, seconds: float) -> float:
    """The work in a call of so many seconds, with that of its launch; an eighth at the least, since times err."""
    return max(seconds - launch, seconds / 8)


# ---------------------------------------------------------------- the fit


class Fit(NamedTuple):
    """A rate, and the factor by which the product that it explains worst is off."""

    rate: Rate
    factor: float


def fit_rate(times: Mapping[Shape, float], dtype: str, bytes_per_second: float) -> Fit:
    """The rate that explains the seconds of batches of products, by least squares of the logarithms.

    Products that memory may have bound say nothing about arithmetic, and are left out.
    """
    item = item_bytes("float32" if dtype == "tf32" else dtype)

    def is_bound_by_memory(batch: int, m: int, n: int, k: int) -> bool:
        return 2 * item * batch * (m * k + k * n + m * n) / bytes_per_second > times[batch, m, n, k]

    shapes = [shape for shape in times if not is_bound_by_memory(*shape)] or list(times)
    sizes = np.array(shapes, float).T
    seconds = np.array([times[shape] for shape in shapes])
    flops = multiply_add_flops(dtype) * sizes.prod(axis=0)
    halves = np.meshgrid(_HALF_SIZES, _HALF_SIZES, _HALF_SIZES, indexing="ij")
    slowdown = sum(np.log1p(half[..., None] / size) for half, size in zip(halves, sizes[1:], strict=True))
    difference = np.log(flops / seconds) + slowdown  # of the logarithm of the large product's rate, by each product
    best = np.unravel_index(difference.var(axis=-1).argmin(), halves[0].shape)
    rows, columns, summed = (float(_HALF_SIZES[index]) for index in best)
    mean = difference[best].mean()
    return Fit(Rate(float(np.exp(mean)), rows, columns, summed), float(np.exp(abs(difference[best] - mean).max())))


# ---------------------------------------------------------------- devices


class Bench:
    """The processor ("cpu") or the current GPU ("cuda"): its calls are prepared here.

    `time(call, count)` are the seconds of so many calls, of host or device, whichever takes the longer; `work` those of
    the device alone, which on a processor are the same. Calls are single steps as the backend runs them, on arrays that
    it made. `dtypes` are those whose products are measured; "tf32" is float32 at that precision. Raises DeviceError
    where there is no such device.
    """

    def __init__(self, kind: str) -> None:
        self._backend: Backend = backends.HOST if kind == "cpu" else backends.cuda_backend()
        self.machine = machine(kind)
        self.memory_bytes = self._backend.memory_bytes()
        self.dtypes: Sequence[str] = ("float32", "float64", "complex64", "complex128")
        if kind == "cpu":
            self.processors, self.cache_bytes = threads(), last_cache_bytes()
            self.time = self.work = host_seconds
            self._copy: Callable[[Any, Any], object] = copy_to
        else:
            import cupy

            runtime = backends.cuda_backend().runtime
            self.dtypes = ("float16", "bfloat16", "tf32", *self.dtypes)
            self.time, self.work = runtime.seconds, runtime.work_seconds
            self.processors, self._copy = runtime.processors, cupy.copyto
            self.cache_bytes = int(cupy.cuda.Device().attributes["L2CacheSize"])

    def product(self, dtype: str, batch: int, m: int, n: int, k: int) -> Call:
        """A batch of products, m x k times k x n, even if a pass is faster. Raises DeviceError if it cannot be run."""
        precision, dtype = ("tf32", "float32") if dtype == "tf32" else (None, dtype)
        size = {"b": batch, "i": m, "j": k, "k": n}
        pair = Contract(0, 1, "ij", "jk", "ik") if batch == 1 else Contract(0, 1, "bij", "bjk", "bik")
        problem = problem_of(pair, size, dtype, self._backend.profile, precision=precision)
        order, found = candidates(problem)
        arrays = [self._array([size[label] for label in term], dtype) for term in problem.terms]
        for way in found:
            if isinstance(way.way, Gemm | Matmul):
                call = partial(self._backend.load(alone(problem, order, way)), *arrays)
                if runs(call):
                    return call
        raise DeviceError(f"{self.machine} computes no products of {dtype}")

    def loop(self, size: int) -> Call:
        """`ij,jk,kl->il` in one pass over all four labels, each of this size."""
        problem = problem_of(_LOOP, dict.fromkeys("ijkl", size), "float32", self._backend.profile)
        arrays = [self._array((size, size), "float32") for _ in _LOOP.terms]
        return partial(self._backend.load(alone(problem, *cheapest(problem))), *arrays)

    def copy(self, nbytes: int) -> Call:
        """A copy of so many bytes into memory that was written before."""
        target, source = (self._array((nbytes // 4,), "float32") for _ in range(2))
        return partial(self._copy, target, source)

    def permuted_copy(self, nbytes: int) -> Call:
        """A copy of a transposed matrix of so many bytes."""
        side = math.isqrt(nbytes // 4)
        target, source = (self._array((side, side), "float32") for _ in range(2))
        if self.machine.kind == "cuda":
            return partial(self._backend.arrange, source.T, "C")
        return partial(self._copy, target, source.T)

    def _array(self, shape: Sequence[int], dtype: str) -> Any:
        """Random numbers: of all zeros or ones a GPU's clock is higher. A large array repeats them."""
        draws = np.random.default_rng(0).standard_normal(min(math.prod(shape), _DRAWS), np.float32)
        return self._backend.asarray(np.resize(draws.astype(dtype_of(dtype)), shape))


_LOOP = Fused((0, 1, 2), ("ij", "jk", "kl"), "il", (False, False, False))


def last_cache_bytes() -> int:
    """Bytes of the largest cache that Linux reports; 16 MiB where it reports none."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        if text[:-1].isdecimal() and text[-1] in "KM":
            sizes.append(int(text[:-1]) << {"K": 10, "M": 20}[text[-1]])
    return max(sizes, default=_DEFAULT_CACHE)


_DEFAULT_CACHE = 16 << 20
