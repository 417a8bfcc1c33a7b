"""Where tests run: the CPU, the simulated device, and a real GPU when there is one (`-m gpu`).

With `tests/simulated/site` on PYTHONPATH a stand-in for CuPy makes the GPU tests run on the simulated device, too.
"""

import ctypes
import functools
import gc
import os

import numpy as np
import pytest
from simulated import SimulatedRuntime

import gpueinsum
import gpueinsum.backends.select
from gpueinsum.backends.cuda.backend import CudaBackend
from gpueinsum.backends.cuda.runtime import CupyRuntime
from gpueinsum.errors import DeviceError

# Prices, and so plans, are those of the package, whatever this machine's user has measured.
os.environ["GPUEINSUM_CACHE"] = os.path.join(os.path.dirname(__file__), "no-cache")


@functools.cache
def missing_gpu():
    """Why there is no GPU to test on, or None."""
    try:
        CupyRuntime()
    except DeviceError as error:
        return str(error)
    return None


def pytest_report_header():
    """So that what ran on the stand-in is never taken for a GPU's."""
    if missing_gpu():
        return None
    import cupy

    name = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())["name"].decode()
    return f"GPU: {name}, CuPy {cupy.__version__}"


def pytest_collection_modifyitems(config, items):
    """Without a GPU its tests are left out, and the summary says so; asked for by `-m`, they are skipped one by one."""
    if missing_gpu() and not config.option.markexpr:
        needing = [item for item in items if item.get_closest_marker("gpu")]
        items[:] = [item for item in items if not item.get_closest_marker("gpu")]
        config.hook.pytest_deselected(items=needing)


def pytest_terminal_summary(terminalreporter, config):
    if missing_gpu() and not config.option.markexpr:
        terminalreporter.write_line(f"The GPU tests were not run (python -m pytest -m gpu): {missing_gpu()}")


@pytest.fixture(scope="module", autouse=True)
def _frozen():
    """What lives when a file's tests begin lives on: the collections of garbage they ask for need not look at it.

    The tests of footprints took 444 s of a core and take 14 s without pytest's items and the caches of other files.
    """
    gc.collect()
    gc.freeze()


REAL = pytest.param("gpu", marks=pytest.mark.gpu)


@functools.cache
def simulated_backend():
    return CudaBackend(SimulatedRuntime())


def real_runtime():
    """That of the package: one for all tests, since its cuBLAS handle is never given back."""
    if missing_gpu():
        pytest.skip(f"not run on a GPU: {missing_gpu()}")
    return gpueinsum.backends.select.cuda_backend().runtime


@pytest.fixture(params=["simulated", REAL])
def runtime(request):
    """A device's runtime: its arrays come from `to_device` and go to `to_host`."""
    return SimulatedRuntime() if request.param == "simulated" else real_runtime()


@pytest.fixture(params=["cpu", "simulated", REAL, pytest.param("gpu arrays", marks=pytest.mark.gpu)])
def einsum_on(request, monkeypatch):
    """`gpueinsum.einsum` on numpy arrays, computed on one of the backends.

    On "gpu" numpy arrays go there and back; with "gpu arrays" they are laid out there first, strides and all.
    """
    if request.param == "cpu":
        return gpueinsum.einsum
    if request.param == "simulated":
        backend = simulated_backend()
        backend.runtime.calls.clear()
        monkeypatch.setattr(gpueinsum.backends.select, "cuda_backend", simulated_backend)
    else:
        real_runtime()
    if request.param == "gpu arrays":
        return einsum_of_gpu_arrays
    return functools.partial(gpueinsum.einsum, backend="cuda")


def einsum_of_gpu_arrays(*args, out=None, **options):
    """einsum on CuPy arrays with the strides of these numpy arrays; its result, and what `out` receives, as numpy's."""
    options.setdefault("backend", "cuda")
    labels = (
        ()
        if not args or isinstance(args[0], str)
        else (*range(1, len(args), 2), *([len(args) - 1] if len(args) % 2 else []))
    )
    args = [arg if position in labels else on_the_gpu(arg) for position, arg in enumerate(args)]
    stays = not any(map(gpueinsum.backends.select.on_device, args))
    if stays or not isinstance(out, np.ndarray) or not out.flags.writeable:
        result = gpueinsum.einsum(*args, out=out, **options)
        host = result.get(order="A") if hasattr(result, "get") else result
        return host[()] if out is None and np.ndim(host) == 0 else host
    there = on_the_gpu(out)
    assert gpueinsum.einsum(*args, out=there, **options) is there
    out[...] = there.get()
    return out


def on_the_gpu(operand):
    """A numpy array as CuPy's with the same strides and the same bytes between its elements; anything else as it is."""
    import cupy

    if not isinstance(operand, np.ndarray) or not (operand.dtype.kind in "biufc" or operand.dtype.name == "bfloat16"):
        return operand
    if not operand.dtype.isnative or operand.dtype.char in "gG":
        return operand
    if operand.size == 0:
        return cupy.empty(operand.shape, operand.dtype)
    low, high = np.lib.array_utils.byte_bounds(operand)
    memory = cupy.asarray(np.frombuffer(ctypes.string_at(low, high - low), np.uint8))
    first = operand.__array_interface__["data"][0] - low
    return cupy.ndarray(operand.shape, operand.dtype, memory.data + first, operand.strides)


@pytest.fixture
def rng():
    return np.random.default_rng(20261122)
