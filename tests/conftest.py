"""Where tests run: the CPU, the simulated device, and a real GPU when there is one (`-m gpu`)."""

import functools

import numpy as np
import pytest
from simulated import SimulatedRuntime

import gpueinsum
import gpueinsum.backends
from gpueinsum.backends.cuda import CudaBackend
from gpueinsum.backends.runtime import CupyRuntime
from gpueinsum.errors import DeviceError


def missing_gpu():
    """Why there is no GPU to test on, or None."""
    try:
        CupyRuntime()
    except DeviceError as error:
        return str(error)
    return None


def pytest_collection_modifyitems(config, items):
    """Without a GPU its tests are left out, and the summary says so; asked for by `-m`, they are skipped one by one."""
    if missing_gpu() and not config.option.markexpr:
        needing = [item for item in items if item.get_closest_marker("gpu")]
        items[:] = [item for item in items if not item.get_closest_marker("gpu")]
        config.hook.pytest_deselected(items=needing)


def pytest_terminal_summary(terminalreporter, config):
    if missing_gpu() and not config.option.markexpr:
        terminalreporter.write_line(f"The GPU tests were not run (python -m pytest -m gpu): {missing_gpu()}")


REAL = pytest.param("gpu", marks=pytest.mark.gpu)


@functools.cache
def simulated_backend():
    return CudaBackend(SimulatedRuntime())


def real_runtime():
    if missing_gpu():
        pytest.skip(f"not run on a GPU: {missing_gpu()}")
    return CupyRuntime()


@pytest.fixture(params=["simulated", REAL])
def runtime(request):
    """A device's runtime: its arrays come from `to_device` and go to `to_host`."""
    return SimulatedRuntime() if request.param == "simulated" else real_runtime()


@pytest.fixture(params=["cpu", "simulated", REAL])
def einsum_on(request, monkeypatch):
    """`gpueinsum.einsum` on numpy arrays, computed on one of the backends."""
    if request.param == "cpu":
        return gpueinsum.einsum
    if request.param == "simulated":
        backend = simulated_backend()
        backend.runtime.calls.clear()
        monkeypatch.setattr(gpueinsum.backends, "cuda_backend", simulated_backend)
    else:
        real_runtime()
    return functools.partial(gpueinsum.einsum, backend="cuda")


@pytest.fixture
def rng():
    return np.random.default_rng(20261122)
