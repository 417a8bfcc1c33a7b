"""A stand-in for CuPy on a simulated device: what the package, the benchmarks and their peers call, and no more.

`stand_in` puts it in the place of CuPy for a test, `simulated/site` on PYTHONPATH for a process and all that it starts.
"""

import contextlib
import ctypes
import functools
import importlib.util
import itertools
import sys
import time
import types
import weakref
from pathlib import Path

import numpy as np

import gpueinsum.backends.select
from gpueinsum.backends.cuda import installation
from gpueinsum.backends.cuda import runtime as runtime_module
from gpueinsum.backends.cuda.source import KERNELS, kernel_text

from . import Allocation, SimulatedRuntime, arrays, borrowed, bounds, host, streams
from .arrays import FakeArray, Served
from .cublas_library import FakeCublas
from .streams import Capture, Event, Stream

TEXTS = {(kernel_text(kernel), kernel.entry): kernel for kernel in KERNELS}


class CupyStream(Stream):
    """A stream that CuPy makes."""

    pointers = itertools.count(77)

    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
        assert null or non_blocking  # or it would wait for the null stream, and break a capture
        super().__init__(0 if null else next(self.pointers), is_late=not null)

    @classmethod
    def from_external(cls, obj):
        version, ptr = obj.__cuda_stream__()
        assert version == 0
        stream = cls.__new__(cls)
        vars(stream).update(vars(streams.at(ptr)), foreign=obj)  # the same queue
        return stream

    def __enter__(self):
        streams.CURRENT.entered.append(self)
        self.use()
        return self

    def __exit__(self, *error):
        streams.CURRENT.entered.pop()
        streams.CURRENT.entered[-1].use()  # and not what was current, if that was made so by `use`: as CuPy does

    def record(self, event=None):
        event = FakeEvent() if event is None else event
        event.record(self)
        return event

    def begin_capture(self, mode=None):
        assert not self.queue
        self.capture = Capture(self)
        self.fake.capturing.append(self.capture)

    def end_capture(self):
        self.fake.capturing.remove(self.capture)
        launch = self.capture.end()
        return types.SimpleNamespace(launch=lambda stream=None: (stream or streams.current()).do(launch))


class FakeEvent(Event):
    """CuPy's: also a reading of the clock, when what was queued before it is done."""

    def __init__(self, block=False, disable_timing=False, interprocess=False):
        super().__init__()
        self.is_timed = not disable_timing

    def record(self, stream=None):
        stream = sys.modules["cupy"].cuda.get_current_stream() if stream is None else stream
        super().record(stream)
        if self.is_timed:
            stream.do(self.read_clock)

    @property
    def done(self):
        return False  # as of a device that is behind its host

    def read_clock(self):
        self.time = time.perf_counter()


PROPERTIES = {
    **{"name": b"Simulated", "multiProcessorCount": 4, "major": 9, "minor": 0, "totalGlobalMem": 5 << 30},
    "l2CacheSize": 1 << 10,  # so that few sets of tiny operands are past it
}


VERSION = "0.0"  # no CuPy has it
MEMORY = 3 << 30, 5 << 30  # free, total bytes


class CNumpyArray:
    """An array's memory as a kernel's argument, by value."""

    def __init__(self, v):
        assert v.__array_interface__["strides"] is None  # contiguous
        self.value = v


class CIntptr:
    """An address as a kernel's argument."""

    def __init__(self, v):
        if not isinstance(v, int):
            raise TypeError("an integer is required")  # and numpy's are none
        self.value = v
        if ctypes.c_ssize_t(v).value != v:
            raise OverflowError("Python int too large to convert to C long")


def _argument(given):
    """What a kernel gets for an argument of its launch."""
    if isinstance(given, CNumpyArray | CIntptr):
        return given.value
    if isinstance(given, np.ndarray) and given.size != 1:
        raise TypeError("You are trying to pass a numpy.ndarray as a kernel parameter.")  # the first of CuPy's words
    return given


class FakeDevice:
    """One of CuPy's; there is a single one, unless tests say that there are more."""

    attributes = {"MultiProcessorCount": 4, "L2CacheSize": PROPERTIES["l2CacheSize"]}  # noqa: RUF012  # as CuPy's
    mem_info = MEMORY
    compute_capability = "90"
    entered = [0]  # noqa: RUF012  # the current one is the last

    def __init__(self, device=None):
        self.id = self.entered[-1] if device is None else device

    def __enter__(self):
        self.entered.append(self.id)
        return self

    def __exit__(self, *error):
        self.entered.pop()

    def use(self):
        self.entered[-1] = self.id

    def synchronize(self):
        streams.synchronize_all()


def modules():
    """CuPy's modules by their names, on a simulated device of their own; the first is CuPy itself."""
    simulated = FakeArray.simulated = SimulatedRuntime()
    streams.forget()
    fake = _module("cupy", Served("cupy"))
    fake.ndarray, fake.__version__ = FakeArray, VERSION
    fake.array, fake.asarray, fake.asnumpy = arrays.array, arrays.asarray, arrays.asnumpy
    fake.empty = lambda shape, dtype=float, order="C": FakeArray(shape, dtype, order=order)
    fake.get_default_memory_pool = lambda: pool
    fake.capturing = []
    fake.cublas = FakeCublas(simulated)
    pool = arrays.Pool(simulated)

    def copy(out, source, nbytes, kind, stream):
        if kind == 1:
            upload(out, source, nbytes, streams.at(stream))
            return
        current = fake.cuda.get_current_stream()
        assert (kind, stream) == (3, current.ptr)
        current.do(lambda: simulated.copy(out, source, nbytes), *simulated.owners(out, source))

    def upload(out, source, nbytes, stream):
        """From the host: late out of pinned memory, which the caller keeps; out of other memory at once."""
        assert nbytes <= simulated.extent(out)[1] - out
        is_pinned = lies_in_pinned_memory(source, nbytes)
        simulated.calls.append(("upload" if is_pinned else "pageable upload", nbytes))

        def copy():
            assert lies_in_pinned_memory(source, nbytes) == is_pinned, "what was to be copied is gone"
            ctypes.memmove(out, source, nbytes)

        stream.do(copy, *simulated.owners(out))
        if not is_pinned:
            stream.synchronize()

    def lies_in_pinned_memory(address, nbytes):
        return any(first <= address <= address + nbytes <= end for first, end in map(bounds, pinned.values()))

    def alloc_pinned_memory(size):
        memory = Allocation.of(size)
        pinned[memory.first] = memory
        return memory[memory.first - host.address(memory) :]

    pinned = weakref.WeakValueDictionary()  # as CuPy's, kept by who uses it, and not by copies that wait

    fake.cuda = _module("cupy.cuda")
    fake.cuda.runtime = _module(
        "cupy.cuda.runtime",
        getDeviceCount=lambda: 1,
        getDevice=lambda: FakeDevice.entered[-1],
        memGetInfo=lambda: MEMORY,
        driverGetVersion=lambda: 13010,
        runtimeGetVersion=lambda: 13000,
        getDeviceProperties=lambda device: dict(PROPERTIES),
        CUDARuntimeError=type("CUDARuntimeError", (RuntimeError,), {}),
        memcpyAsync=copy,
    )
    fake.cuda.function = _module("cupy.cuda.function", CNumpyArray=CNumpyArray, CIntptr=CIntptr)
    fake.cuda.Stream = type("Stream", (CupyStream,), {"fake": fake})
    fake.cuda.Stream.null = fake.cuda.Stream(null=True)
    fake.cuda.get_current_stream = streams.current
    fake.cuda.Event, fake.cuda.get_elapsed_time = FakeEvent, lambda start, stop: (stop.time - start.time) * 1e3
    fake.cuda.nvtx = _module("cupy.cuda.nvtx", RangePush=lambda message: None, RangePop=lambda: None)
    fake.cuda.Device, fake.cuda.device = FakeDevice, _module("cupy.cuda.device", get_cublas_handle=lambda: None)
    fake.cuda.MemoryHook = arrays.MemoryHook
    fake.cuda.alloc_pinned_memory = alloc_pinned_memory
    fake.cuda.alloc = lambda size: borrowed.allocator(pool.malloc)(size)
    fake.cuda.using_allocator, fake.cuda.UnownedMemory = borrowed.using_allocator, borrowed.UnownedMemory
    fake.cuda.MemoryPointer, fake.from_dlpack = borrowed.memory_pointer, borrowed.from_dlpack
    fake.cuda.set_allocator = lambda allocator=None: None  # every allocation stands alone here

    class RawKernel:
        def __init__(self, code, name, options=()):
            self.kernel = None if name == "nothing" else TEXTS[code, name]
            assert self.kernel is None or options == ("-std=c++17",)

        def compile(self):
            host.entry(self.kernel)

        def __call__(self, grid, block, args):
            if self.kernel:
                job, *addresses = [_argument(each) for each in args]
                call = functools.partial(simulated.launch, self.kernel, *grid, *block, job, *addresses)
                fake.cuda.get_current_stream().do(call, *simulated.owners(*addresses))

    fake.RawKernel = RawKernel
    fake.linalg = _module("cupy.linalg", Served("cupy.linalg"))
    stride_tricks = _module("cupy.lib.stride_tricks", as_strided=arrays.as_strided)
    fake.lib = _module("cupy.lib", stride_tricks=stride_tricks)
    fake.testing = _module(
        "cupy.testing",
        assert_allclose=_asserted(np.testing.assert_allclose),
        assert_array_equal=_asserted(np.testing.assert_array_equal),
    )
    binding = _module("cupy_backends.cuda.libs.cublas", getVersion=lambda handle: fake.cublas.version)
    libs = _module("cupy_backends.cuda.libs", cublas=binding)
    backends = _module("cupy_backends.cuda", libs=libs)
    parts = fake, fake.cuda, fake.cuda.runtime, fake.linalg, fake.lib, stride_tricks, fake.testing
    headers = _module("cuda.pathfinder", find_nvidia_header_directory={"cudart": "include"}.get)
    every = *parts, _module("cupy_backends", cuda=backends), backends, libs, headers
    return {module.__name__: module for module in every}


def _module(name, serve=None, **members):
    module = types.ModuleType(name)
    vars(module).update(members)
    if serve is not None:
        module.__getattr__ = serve
    return module


def _asserted(function):
    """Of arrays here and there."""
    return lambda actual, desired, *more, **options: function(
        arrays.asnumpy(actual), arrays.asnumpy(desired), *more, **options
    )


def _clear_caches():
    for cached in (runtime_module._raw_kernel, runtime_module._processors, gpueinsum.backends.select.cuda_backend):
        cached.cache_clear()


@contextlib.contextmanager
def stand_in(monkeypatch):
    """A stand-in CuPy in `sys.modules`, and the runtime on it as the backend that `"cuda"` means."""
    monkeypatch.setattr(FakeArray, "simulated", None)
    for name, module in (made := modules()).items():
        monkeypatch.setitem(sys.modules, name, module)
    fake = made["cupy"]
    monkeypatch.setattr(installation, "load", {13: fake.cublas}.get)
    _clear_caches()
    yield fake
    _clear_caches()


def install():
    """The same for the whole process; what of CuPy needs no device (NVRTC) is the installed CuPy's, if there is one."""
    made = modules()
    fake = made["cupy"]
    for name in "cuda.pathfinder", "cupy_backends.cuda.libs":
        with contextlib.suppress(ImportError):
            installed = importlib.import_module(name)
            vars(installed).update({key: each for key, each in vars(made[name]).items() if key[0] != "_"})
            made = {other: module for other, module in made.items() if not f"{name}.".startswith(f"{other}.")}
    if "cupy_backends" not in made:
        fake._environment = _environment(Path(installed.__file__).parents[3])
    sys.modules.update(made)
    installation.load = {13: fake.cublas}.get


def _environment(folder):
    """CuPy's own module that looks for CUDA's libraries."""
    spec = importlib.util.spec_from_file_location("cupy._environment", folder / "cupy" / "_environment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
