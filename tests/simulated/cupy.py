"""A stand-in for CuPy on a simulated device: what the package, the benchmarks and their peers call, and no more."""

import collections
import contextlib
import ctypes
import functools
import sys
import time
import types

import numpy as np

import gpueinsum.backends
from gpueinsum.backends import runtime as runtime_module
from gpueinsum.backends.launch import KERNELS, kernel_text
from gpueinsum.gemm import Gemm

from . import SimulatedRuntime

TEXTS = {(kernel_text(kernel), kernel.entry): kernel for kernel in KERNELS}
OPERATION_N, OPERATION_T, OPERATION_C = 0, 1, 2  # cublasOperation_t
TYPES = {2: "float16", 14: "bfloat16", 0: "float32", 1: "float64", 4: "complex64", 5: "complex128"}


class FakeArray(np.ndarray):
    """CuPy's array as far as the runtime and the other libraries look at it."""

    __module__ = "cupy"  # by which opt_einsum and autoray know whose functions to call
    device = types.SimpleNamespace(id=0)

    def __array_finalize__(self, source):
        self.device = getattr(source, "device", FakeArray.device)

    simulated = None  # the device that holds it

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self.simulated.pointer(self))

    @property
    def __cuda_array_interface__(self):
        return self.__array_interface__

    def get(self):
        """A copy on the host."""
        return np.array(self)


class FakeCublas:
    """CuPy's binding: the names and the order of its arguments, the product by the simulated device."""

    def __init__(self, simulated):
        self.simulated = simulated
        self.mode = 3  # somebody has set CuPy's handle to TF32
        self.calls = []
        self.operations = []

    def getMathMode(self, handle):  # noqa: N802  # CuPy's name
        return self.mode

    def setMathMode(self, handle, mode):  # noqa: N802  # CuPy's name
        self.mode = mode

    def gemmStridedBatchedEx(  # noqa: N802  # CuPy's name
        self, handle, transa, transb, m, n, k, alpha, a, a_type, lda, stride_a, b, b_type, ldb, stride_b,
        beta, c, c_type, ldc, stride_c, batch, compute_type, algo,
    ):  # fmt: skip
        assert a_type == b_type == c_type
        assert algo == -1
        scalar = {"float16": "float32", "bfloat16": "float32"}.get(TYPES[a_type], TYPES[a_type])
        one, beta = (np.frombuffer(_memory(x, scalar), scalar)[0] for x in (alpha, beta))
        assert one == 1
        self.calls.append((TYPES[a_type], compute_type, self.mode))
        self.operations.append((transa, transb))
        gemm = Gemm(
            *(transa != OPERATION_N, transb != OPERATION_N, m, n, k, lda, ldb, ldc),
            *(batch, stride_a, stride_b, stride_c, bool(beta)),
            *(transa == OPERATION_C, transb == OPERATION_C),
        )
        self.simulated.gemm(gemm, TYPES[a_type], a, b, c, None)


class Stream(collections.namedtuple("Stream", "ptr")):  # as CuPy's: equal by its pointer alone
    def synchronize(self):
        pass


class FakeEvent:
    """All work is done when a call returns, so an event is a reading of the clock."""

    def record(self, stream):
        self.time = time.perf_counter()

    def synchronize(self):
        pass


PROPERTIES = {
    **{"name": b"Simulated", "multiProcessorCount": 4, "major": 9, "minor": 0, "totalGlobalMem": 5 << 30},
    "l2CacheSize": 1 << 10,  # so that few sets of tiny operands are past it
}


def _computed_by_numpy(simulated, name):
    """CuPy's other functions: numpy's, of arrays on the device, with results there."""
    function = getattr(np, name)
    if not callable(function) or isinstance(function, type):
        return function

    def call(*arguments, **options):
        result = function(*arguments, **options)
        if not isinstance(result, (np.ndarray, np.generic)) or result is options.get("out"):
            return result
        return result if isinstance(result, FakeArray) else simulated.to_device(np.asarray(result)).view(FakeArray)

    return call


def _memory(address, dtype):
    return ctypes.string_at(address, np.dtype(dtype).itemsize)


@contextlib.contextmanager
def stand_in(monkeypatch):
    """A stand-in CuPy in `sys.modules`, and the runtime on it as the backend that `"cuda"` means."""
    simulated = SimulatedRuntime()
    monkeypatch.setattr(FakeArray, "simulated", simulated)
    fake = types.ModuleType("cupy")
    fake.ndarray = FakeArray

    def on_current_device(array):
        array.device = types.SimpleNamespace(id=fake.cuda.runtime.getDevice())
        return array

    def asarray(x, order=None):
        """CuPy's: a copy, unless the array is on the current device, and laid out as it should be, already."""
        if isinstance(x, FakeArray) and order is None and x.device.id == fake.cuda.runtime.getDevice():
            return x
        if np.ndim(x) == 0:
            x = x + np.zeros((), x.dtype)  # the sign of a zero is lost
        return on_current_device(simulated.to_device(np.asarray(x, order=order)).view(FakeArray))

    fake.asarray = asarray
    fake.__version__ = "0.0"
    fake.get_default_memory_pool = lambda: types.SimpleNamespace(free_all_blocks=lambda: None)
    fake.__getattr__ = functools.partial(_computed_by_numpy, simulated)
    fake.asnumpy = lambda x, order: np.array(x.view(np.ndarray), order=order)
    fake.empty = lambda shape, dtype: on_current_device(simulated.empty(shape, dtype).view(FakeArray))
    fake.lib = types.SimpleNamespace(
        stride_tricks=types.SimpleNamespace(as_strided=functools.partial(np.lib.stride_tricks.as_strided, subok=True))
    )
    error = type("CUDARuntimeError", (RuntimeError,), {})
    fake.cuda = types.SimpleNamespace(
        runtime=types.SimpleNamespace(
            getDeviceCount=lambda: 1,
            getDevice=lambda: 0,
            memGetInfo=lambda: (3 << 30, 5 << 30),  # free, total
            driverGetVersion=lambda: 13010,
            runtimeGetVersion=lambda: 13000,
            getDeviceProperties=lambda device: dict(PROPERTIES),
            CUDARuntimeError=error,
        ),
        device=types.SimpleNamespace(get_cublas_handle=lambda: 7),
        Device=lambda device=0: types.SimpleNamespace(attributes={"MultiProcessorCount": 4}, synchronize=lambda: None),
        Event=FakeEvent,
        get_elapsed_time=lambda start, stop: (stop.time - start.time) * 1e3,
    )

    class RawKernel:
        def __init__(self, text, name, options=()):
            self.kernel = None if name == "nothing" else TEXTS[text, name]
            assert self.kernel is None or options == ("-std=c++17",)

        def __call__(self, grid, block, arguments):
            if self.kernel:
                simulated.launch(self.kernel, *grid, *block, *arguments)

    fake.RawKernel = RawKernel
    fake.cuda.get_current_stream = lambda: Stream(0)
    headers = types.ModuleType("cuda.pathfinder")
    headers.find_nvidia_header_directory = {"cudart": "include"}.get
    backends = types.ModuleType("cupy_backends.cuda.libs")
    backends.cublas = fake.cublas = FakeCublas(simulated)
    for name, module in {
        "cupy": fake,
        "cupy_backends": types.ModuleType("cupy_backends"),
        "cupy_backends.cuda": types.ModuleType("cupy_backends.cuda"),
        "cupy_backends.cuda.libs": backends,
        "cuda.pathfinder": headers,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    for cached in (runtime_module._raw_kernel, runtime_module._processors, gpueinsum.backends.cuda_backend):
        cached.cache_clear()
    yield fake
    for cached in (runtime_module._raw_kernel, runtime_module._processors, gpueinsum.backends.cuda_backend):
        cached.cache_clear()
