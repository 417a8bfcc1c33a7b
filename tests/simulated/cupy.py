"""A stand-in for CuPy on a simulated device: what the package, the benchmarks and their peers call, and no more."""

import contextlib
import ctypes
import functools
import itertools
import sys
import time
import types

import numpy as np

import gpueinsum.backends
from gpueinsum.backends import blas as blas_module
from gpueinsum.backends import runtime as runtime_module
from gpueinsum.backends.launch import KERNELS, kernel_text
from gpueinsum.gemm import Gemm

from . import SimulatedRuntime
from .streams import Capture, Event, Stream

TEXTS = {(kernel_text(kernel), kernel.entry): kernel for kernel in KERNELS}
OPERATION_N, OPERATION_T, OPERATION_C = 0, 1, 2  # cublasOperation_t
TYPES = {2: "float16", 14: "bfloat16", 0: "float32", 1: "float64", 4: "complex64", 5: "complex128"}


class FakeArray(np.ndarray):
    """CuPy's array as far as the runtime and the other libraries look at it."""

    def __new__(cls, shape, dtype, memory, strides):
        """CuPy's constructor, of memory that was allocated."""
        array = cls.simulated.array(shape, dtype, memory, strides).view(cls)
        array.device = types.SimpleNamespace(id=sys.modules["cupy"].cuda.runtime.getDevice())
        return array

    __module__ = "cupy"  # by which opt_einsum and autoray know whose functions to call
    device = types.SimpleNamespace(id=0)

    def __array_finalize__(self, source):
        self.device = getattr(source, "device", FakeArray.device)

    simulated = None  # the device that holds it

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self.simulated.pointer(self), device_id=self.device.id)

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
        self.version = 130100
        self.handles = []  # of ours
        self.used = []  # the handle of every product
        self.streams = {}  # of each handle, the one set last
        self.calls = []
        self.operations = []

    def getMathMode(self, handle):  # noqa: N802  # CuPy's name
        return self.mode

    def setMathMode(self, handle, mode):  # noqa: N802  # CuPy's name
        self.mode = mode

    def setStream(self, handle, stream):  # noqa: N802  # CuPy's name
        if sys.modules["cupy"].cuda.get_current_stream().capture is not None:
            raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
        if handle in self.handles:
            assert self.streams.get(handle, stream) == stream, "streams share a handle of ours, and its workspace"
        self.streams[int(handle)] = stream

    def create(self):  # CuPy's handle is 7
        self.handles.append(max(self.handles, default=7) + 1)
        return self.handles[-1]

    def destroy(self, handle):
        self.handles.remove(handle)
        self.streams.pop(handle, None)

    def getVersion(self, handle):  # noqa: N802  # CuPy's name
        return self.version

    def gemmStridedBatchedEx(self, handle, *arguments):  # noqa: N802  # CuPy's name
        stream = sys.modules["cupy"].cuda.get_current_stream()
        self.setStream(handle, stream.ptr)  # as all of the binding does
        self.used.append(int(handle))  # which keeps none of ours alive
        a, b, c = arguments[6], arguments[10], arguments[15]
        mode = self.mode
        stream.do(lambda: self.multiply(mode, *arguments), *self.simulated.owners(a, b, c))

    def multiply(
        self, mode, transa, transb, m, n, k, alpha, a, a_type, lda, stride_a, b, b_type, ldb, stride_b,
        beta, c, c_type, ldc, stride_c, batch, compute_type, algo,
    ):  # fmt: skip
        adds = self.checked(mode, a_type, b_type, c_type, alpha, beta, compute_type, algo, transa, transb)
        gemm = Gemm(
            *(transa != OPERATION_N, transb != OPERATION_N, m, n, k, lda, ldb, ldc),
            *(batch, stride_a, stride_b, stride_c, adds),
            *(transa == OPERATION_C, transb == OPERATION_C),
        )
        self.simulated.gemm(gemm, TYPES[a_type], a, b, c, None)

    def multiply_by_pointers(
        self, mode, transa, transb, m, n, k, alpha, a, a_type, lda, b, b_type, ldb,
        beta, c, c_type, ldc, batch, compute_type, algo,
    ):  # fmt: skip
        adds = self.checked(mode, a_type, b_type, c_type, alpha, beta, compute_type, algo, transa, transb)
        gemm = Gemm(
            *(transa != OPERATION_N, transb != OPERATION_N, m, n, k, lda, ldb, ldc, batch),
            accumulate=adds,
            conjugate_a=transa == OPERATION_C,
            conjugate_b=transb == OPERATION_C,
        )
        self.simulated.pointer_gemm(gemm, TYPES[a_type], a, b, c, None)

    def checked(self, mode, a_type, b_type, c_type, alpha, beta, compute_type, algo, transa, transb):
        """What all products have in common; whether they add to C."""
        assert a_type == b_type == c_type
        assert algo == -1
        scalar = {"float16": "float32", "bfloat16": "float32"}.get(TYPES[a_type], TYPES[a_type])
        one, beta = (np.frombuffer(_memory(x, scalar), scalar)[0] for x in (alpha, beta))
        assert one == 1
        self.calls.append((TYPES[a_type], compute_type, mode))
        self.operations.append((transa, transb))
        return bool(beta)


class CupyStream(Stream):
    """A stream that CuPy makes."""

    def __init__(self, fake, ptr):
        super().__init__(ptr, is_late=True)
        self.fake = fake

    def __enter__(self):
        self.fake.entered.append(self)
        self.use()
        return self

    def __exit__(self, *error):
        self.fake.entered.pop()
        self.fake.entered[-1].use()  # and not what was current, if that was made so by `use`: as CuPy does

    def begin_capture(self):
        assert not self.queue
        self.capture = Capture(self)
        self.fake.capturing.append(self.capture)

    def end_capture(self):
        self.fake.capturing.remove(self.capture)
        launch = self.capture.end()
        return types.SimpleNamespace(launch=lambda: self.fake.cuda.get_current_stream().do(launch))


class Foreign:
    """A function as ctypes calls it: numbers become the types that it was told of, or 32-bit integers."""

    def __init__(self, function):
        self.function, self.argtypes = function, []

    def __call__(self, *arguments):
        assert not self.argtypes or len(arguments) == len(self.argtypes)
        types = [*self.argtypes, *[ctypes.c_int] * (len(arguments) - len(self.argtypes))]
        return self.function(*[kind(x) if isinstance(x, int) else x for kind, x in zip(types, arguments, strict=True)])


class FakeLibrary:
    """cuBLAS itself, as ctypes reaches it; its functions give a status."""

    WORKSPACE = 32 << 20

    def __init__(self, fake):
        self.fake, self.mode = fake, {}
        self.attached = {}  # handle -> stream, workspace
        self.cublasGemmBatchedEx = Foreign(self.multiply_by_pointers)

    def cublasCreate_v2(self, handle):  # noqa: N802  # cuBLAS' name
        assert not self.fake.capturing, "a handle is made before the stream captures"
        handle._obj.value = 13 + len(self.mode)
        self.mode[handle._obj.value] = 0
        return 0

    def cublasSetStream_v2(self, handle, stream):  # noqa: N802  # cuBLAS' name
        assert not self.fake.capturing, "a stream is set before it captures"
        self.attached[handle.value] = (stream.value, None)  # the workspace is the library's own again
        return 0

    def cublasSetWorkspace_v2(self, handle, workspace, nbytes):  # noqa: N802  # cuBLAS' name
        first, end = self.fake.cublas.simulated.extent(workspace.value)
        assert (first, end - first) == (workspace.value, nbytes.value) == (first, self.WORKSPACE)
        stream, _ = self.attached[handle.value]
        self.attached[handle.value] = stream, workspace.value
        return 0

    def cublasSetMathMode(self, handle, mode):  # noqa: N802  # cuBLAS' name
        self.mode[handle.value] = mode
        return 0

    def cublasGemmStridedBatchedEx(self, handle, *arguments):  # noqa: N802  # cuBLAS' name
        return self.captured(self.fake.cublas.multiply, handle, arguments)

    def captured(self, multiply, handle, arguments):
        pointer, workspace = self.attached.get(handle.value, (None, None))
        [capture] = self.fake.capturing
        streams = [stream for stream in capture.streams if stream.ptr == pointer]
        if not streams or workspace is None:
            return 1  # CUBLAS_STATUS_NOT_INITIALIZED
        others = [self.attached[other] for other in self.attached if other != handle.value]
        assert all(workspace != theirs or pointer == stream for stream, theirs in others), "streams share a workspace"
        numbers, mode = [argument.value for argument in arguments], self.mode[handle.value]
        streams[0].do(lambda: multiply(mode, *numbers))
        return 0

    def multiply_by_pointers(self, handle, *arguments):
        """On a handle that captures, and, since CuPy's binding lacks it, on any of that one's."""
        cublas, stream = self.fake.cublas, self.fake.cuda.get_current_stream()
        if self.fake.capturing:
            return self.captured(cublas.multiply_by_pointers, handle, arguments)
        if cublas.streams.get(handle.value) != stream.ptr:
            return 7  # CUBLAS_STATUS_INVALID_VALUE: it would run on another stream
        cublas.used.append(handle.value)
        numbers, mode = [argument.value for argument in arguments], cublas.mode
        pointers = [numbers[place] for place in (6, 9, 13)]
        stream.do(lambda: cublas.multiply_by_pointers(mode, *numbers), *cublas.simulated.owners(*pointers))
        return 0


class FakeEvent(Event):
    """CuPy's: also a reading of the clock, since all work on the null stream is done when a call returns."""

    def __init__(self, disable_timing=False):
        super().__init__()
        self.is_timed = not disable_timing

    def record(self, stream=None):
        super().record(sys.modules["cupy"].cuda.get_current_stream() if stream is None else stream)
        if self.is_timed:
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
    fake.capturing = []
    pointers = itertools.count(77)
    fake.library = FakeLibrary(fake)
    monkeypatch.setattr(blas_module, "_library", {13: fake.library}.get)

    def copy(out, source, nbytes, kind, stream):
        current = fake.cuda.get_current_stream()
        assert (kind, stream) == (3, current.ptr)
        current.do(lambda: simulated.copy(out, source, nbytes), *simulated.owners(out, source))

    def new_stream(non_blocking):
        assert non_blocking  # or it would wait for the null stream, and break a capture
        return CupyStream(fake, next(pointers))

    fake.cuda = types.SimpleNamespace(
        runtime=types.SimpleNamespace(
            getDeviceCount=lambda: 1,
            getDevice=lambda: 0,
            memGetInfo=lambda: (3 << 30, 5 << 30),  # free, total
            driverGetVersion=lambda: 13010,
            runtimeGetVersion=lambda: 13000,
            getDeviceProperties=lambda device: dict(PROPERTIES),
            CUDARuntimeError=error,
            memcpyAsync=copy,
        ),
        Stream=new_stream,
        device=types.SimpleNamespace(get_cublas_handle=lambda: 7),
        alloc=simulated.allocate,
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
                owners = simulated.owners(*[argument for argument in arguments if isinstance(argument, int)])
                call = functools.partial(simulated.launch, self.kernel, *grid, *block, *arguments)
                fake.cuda.get_current_stream().do(call, *owners)

    fake.RawKernel = RawKernel
    fake.cuda.get_current_stream = lambda: Stream(0)
    fake.entered = [Stream(0)]
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
