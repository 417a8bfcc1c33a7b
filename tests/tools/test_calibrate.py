"""What calibration makes of a device's times: a device whose rates are known, disturbed, and the processor at hand."""

import dataclasses
import itertools
import math
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from gpueinsum.costs import machine as machines
from gpueinsum.costs.counts import item_bytes
from gpueinsum.costs.machine import Machine
from gpueinsum.costs.profile import Profile, Rate, profile
from gpueinsum.schedule.candidate import Matmul
from gpueinsum.schedule.mapping import Gemm
from gpueinsum.tools import calibrate as calibration
from gpueinsum.tools.calibrate import Bench, calibrate, fit_rate, last_cache_bytes


class KnownBench:
    """A device that keeps to a profile exactly, but for disturbances of every third sample or so.

    Calls are the seconds of their work. On a GPU the host launches while the device works on what was launched before.
    """

    def __init__(self, known: Profile, disturbed: float = 10.0) -> None:
        self.known = known
        self.machine = Machine(known.kind, "a device", ("numbers 1.0",))
        self.memory_bytes, self.cache_bytes = known.memory_bytes, known.cache_bytes
        self.processors = known.processors
        self.dtypes = tuple(dtype for dtype, _ in known.rates)
        self._delays = np.random.default_rng(8).choice([1.0, 1.0, 1.0, 1.0, 1.5, disturbed], 100_000).tolist()

    def product(self, dtype, batch, m, n, k):
        rate = self.known.rate(dtype)
        flops = (8 if dtype.startswith("complex") else 2) * batch * m * n * k
        share = m / (m + rate.rows) * n / (n + rate.columns) * k / (k + rate.summed)
        moved = batch * (m * k + k * n + m * n) * item_bytes("float32" if dtype == "tf32" else dtype)
        bandwidth = self.known.bytes_per_second * self.known.cached
        if m * n == 4:  # nothing but calls
            return (batch - 2) * self.known.each
        return max(flops / (rate.flops_per_second * share), moved / bandwidth)

    def copy(self, nbytes):
        rate = self.known.bytes_per_second * (self.known.cached if 2 * nbytes <= self.cache_bytes else 1)
        return 2 * nbytes / rate

    def permuted_copy(self, nbytes):
        return 2 * nbytes / (self.known.bytes_per_second * self.known.permuted)

    def loop(self, size):
        points, results = size**4, size**2
        return (2 * points + points - results) / self.known.loop_flops_per_second

    def time(self, call, count):
        launch = self.known.launch
        return (launch + call if self.known.kind == "cpu" else max(launch, call)) * count * self._delays.pop()

    def work(self, call, count):
        return self.time(call, count) if self.known.kind == "cpu" else call * count * self._delays.pop()


def known_profile(name):
    """A profile of the package with other half sizes, which differ from each other."""
    rate = Rate(3e11, 19.0, 64.0, 7.0)
    return dataclasses.replace(profile(name), rates=tuple((dtype, rate) for dtype, _ in profile(name).rates))


@pytest.mark.parametrize("name", ["cpu", "h200"])
def test_the_rates_of_a_device_are_recovered_from_disturbed_times(name):
    known = known_profile(name)
    found = calibrate(KnownBench(known), seconds=0.0)
    for field in dataclasses.fields(Profile):
        wanted = getattr(known, field.name)
        if isinstance(wanted, float | int):
            assert getattr(found, field.name) == pytest.approx(wanted, rel=0.02, abs=1e-15), field.name
    assert [dtype for dtype, _ in found.rates] == [dtype for dtype, _ in known.rates]
    for dtype, rate in found.rates:
        wanted = known.rate(dtype)
        assert rate.flops_per_second == pytest.approx(wanted.flops_per_second, rel=0.1), dtype
        for half in ("rows", "columns", "summed"):
            assert getattr(rate, half) == pytest.approx(getattr(wanted, half), rel=0.25), (dtype, half)
    assert (found.name, found.kind) == ("a device", known.kind)
    assert re.fullmatch(
        r"calibrated: a device; numbers 1\.0; every product that was timed within 1\.[01]\d times its prediction",
        found.device,
    )


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_what_is_measured_as_products_is_run_as_such(kind, monkeypatch):
    loaded = []  # schedules

    def load(schedule):
        loaded.append(schedule)
        return list

    rates = profile("h200" if kind == "cuda" else "cpu")
    backend = SimpleNamespace(profile=rates, memory_bytes=lambda: 1 << 40, load=load)
    monkeypatch.setattr("gpueinsum.backends.select.HOST", backend)
    bench = Bench("cpu")
    monkeypatch.setattr(bench, "_array", lambda shape, dtype: None)
    monkeypatch.setattr(calibration, "runs", lambda call: True)
    size = calibration._SIZES[kind]
    for shape in (*calibration._shapes(size), size.batch, (2, 2, 2, 2)):
        bench.product("float32", *shape)
        [step] = loaded.pop().steps
        assert isinstance(step.taken.way, Gemm | Matmul), shape


def test_the_mean_of_disturbed_times_would_not_do():
    known = known_profile("cpu")
    bench = KnownBench(known)
    call = bench.copy(1 << 20)
    mean = np.mean([bench.time(call, 1) for _ in range(99)])
    assert mean > 2 * (known.launch + call)


@pytest.mark.parametrize("launch", [3e-6, 5e-6, 9e-6])
def test_a_launch_that_the_work_hides_is_not_taken_from_it(launch):
    known = dataclasses.replace(known_profile("h200"), cached=1.2, launch=launch)
    bench = KnownBench(known)
    assert 5e-6 < bench.copy(16 << 20) < 7e-6  # so long does the device take for what stays in its cache
    found = calibrate(bench, seconds=0.0)
    assert found.cached == pytest.approx(1.2, rel=0.02)
    assert found.launch == pytest.approx(launch)


def test_what_was_measured_is_shown_as_it_comes():
    bench, shown = KnownBench(known_profile("h200")), []
    calibrate(bench, seconds=0.0, show=shown.append)
    assert [line.split()[0] for line in shown] == ["a", "copy", *bench.dtypes]
    assert shown[0] == "a step 4.00 µs"
    assert "1 x 4096 x 4096 x 4096 " in shown[-1]


def test_what_comes_out_can_be_kept():
    found = calibrate(KnownBench(known_profile("cpu")), seconds=0.0)
    assert Profile.from_json(found.to_json()) == found


def test_products_that_memory_bounds_say_nothing_about_arithmetic():
    rate, bandwidth = Rate(1e11, 16.0, 16.0, 16.0), 1e9

    def seconds(batch, m, n, k):
        busy = 2 * batch * m * n * k / 1e11 * (1 + 16 / m) * (1 + 16 / n) * (1 + 16 / k)
        return max(busy, 4 * batch * (m * k + k * n + m * n) / bandwidth)

    cubes = [(batch, side, side, side) for batch, side in ((1, 4096), (3, 2048), (5, 1024))]
    thin = [(1, *sides) for t in (300, 1024) for sides in ((t, 4096, 4096), (4096, t, 4096), (4096, 4096, t))]
    bound = [(1, 1, 4096, 4096), (1, 4096, 1, 4096), (1, 4096, 4096, 1)]
    times = {shape: seconds(*shape) for shape in cubes + thin + bound}
    assert fit_rate(times, "float32", bandwidth) == fit_rate(
        {shape: times[shape] for shape in cubes + thin}, "float32", bandwidth
    )
    fit = fit_rate(times, "float32", bandwidth)
    assert fit.rate.flops_per_second == pytest.approx(rate.flops_per_second, rel=0.1)
    assert 1 <= fit.factor < 1.1


def test_a_product_that_was_disturbed_shows_in_the_fit():
    shapes = [(1, m, n, k) for m, n, k in itertools.product((64, 256, 1024), repeat=3)]
    times = {shape: 2 * math.prod(shape) / 1e11 for shape in shapes}
    assert fit_rate(times, "float32", 1e15).factor == pytest.approx(1)
    assert fit_rate(times | {shapes[13]: 3 * times[shapes[13]]}, "float32", 1e15).factor == pytest.approx(3, rel=0.2)


def test_the_processor_can_be_measured():
    bench = Bench("cpu")
    found = calibrate(bench, seconds=0.0, sizes=calibration.TINY)
    assert Profile.from_json(found.to_json()) == found
    assert found.kind == "cpu"
    assert [dtype for dtype, _ in found.rates] == list(bench.dtypes)
    assert found.memory_bytes > 1 << 30
    assert found.cache_bytes == last_cache_bytes() >= 1 << 19


def test_the_calls_that_are_timed_compute_what_they_say():
    bench = Bench("cpu")
    assert [result.shape for result in bench.product("complex64", 3, 4, 5, 6)()] == [(3, 4, 5)]
    assert [result.dtype for result in bench.product("float64", 1, 4, 5, 6)()] == [np.float64]
    copy = bench.permuted_copy(4 * 7 * 7)
    copy()
    target, source = copy.args
    np.testing.assert_array_equal(target, source)
    assert target.strides == source.strides[::-1] == (28, 4)
    assert [result.shape for result in bench.loop(3)()] == [(3, 3)]
    assert bench.time(lambda: None, 3) >= 0


def test_a_gpu_is_measured_as_its_backend_runs_it(monkeypatch):
    from conftest import simulated_backend

    device = SimpleNamespace(attributes={"L2CacheSize": 5 << 20})
    cupy = SimpleNamespace(cuda=SimpleNamespace(Device=lambda: device), empty_like=np.empty_like, copyto=np.copyto)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr("gpueinsum.backends.select.cuda_backend", simulated_backend)
    for module in (calibration, machines):
        monkeypatch.setattr(module, "machine", lambda kind: Machine(kind, "NVIDIA S1", ("cupy 1",)))
    bench = Bench("cuda")
    assert (bench.machine.name, bench.cache_bytes) == ("NVIDIA S1", 5 << 20)
    backend = simulated_backend()
    assert bench.time(bench.loop(3), 5) == pytest.approx(5e-3)  # a millisecond for each launch
    for dtype in ("bfloat16", "tf32", "complex64"):
        product = bench.product(dtype, 2, 3, 4, 5)
        backend.runtime.calls.clear()
        assert [result.shape for result in product()] == [(2, 3, 4)]
        assert [call[0] for call in backend.runtime.calls] == ["gemm"]
    monkeypatch.setattr(backend.runtime, "refuses", ("single products",))
    assert [result.shape for result in bench.product("float64", 1, 3, 4, 5)()] == [(3, 4)]
    monkeypatch.setattr(backend.runtime, "refuses", ())
    assert [result.shape for result in bench.loop(3)()] == [(3, 3)]
    bench.copy(4 * 49)()
    backend.runtime.calls.clear()
    bench.permuted_copy(4 * 64 * 64)()
    [(_, kernel, *_)] = backend.runtime.calls
    assert kernel.name == "transpose"
