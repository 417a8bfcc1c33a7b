"""The GPU through CuPy: everything that the backend asks of a device. Nothing else in the package uses a GPU."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cache, lru_cache
from typing import Any, Protocol, TypeVar

import numpy as np

from gpueinsum.backends.base import RefusedError
from gpueinsum.backends.cuda import events
from gpueinsum.backends.cuda.cublas import WORKSPACE, Cublas, CublasError
from gpueinsum.backends.cuda.installation import find_cuda
from gpueinsum.backends.cuda.program import Launch, Product, Program, Work
from gpueinsum.backends.cuda.source import Kernel, kernel_text
from gpueinsum.backends.cuda.streams import CopyStream, borrowing, current
from gpueinsum.backends.operands import on_device
from gpueinsum.errors import DeviceError, OperandError
from gpueinsum.language.subscripts import Shape
from gpueinsum.text import bytes_text

Array = Any
Result = TypeVar("Result")


class Memory(Protocol):
    """Bytes on a device, which go when nothing refers to them."""

    @property
    def ptr(self) -> int:
        """The address of the first."""


class CupyRuntime:
    """All that is ever asked of a device: CuPy's current one, its current stream and memory pool.

    Only what is timed synchronises.

    Raises DeviceError, saying which of CuPy, driver, device and cuBLAS is missing.
    """

    def __init__(self) -> None:
        cupy, library = find_cuda()
        self._cupy = cupy
        self.array_type = cupy.ndarray
        self._library = library
        self._handles: dict[int, Cublas] = {}  # by device
        self._workspace = lru_cache(maxsize=_STREAMS)(lambda context: self.allocate(WORKSPACE))

    @property
    def processors(self) -> int:
        """How many multiprocessors the current device has."""
        return _processors(self.device())

    def memory(self) -> int:
        """Bytes of memory that the current device has."""
        return int(self._cupy.cuda.runtime.memGetInfo()[1])

    def free_bytes(self) -> int:
        """Those that are free, or that CuPy's pool keeps unused."""
        return int(self._cupy.cuda.runtime.memGetInfo()[0] + self._cupy.get_default_memory_pool().free_bytes())

    def on_host(self, array: Array) -> bool:
        return isinstance(array, np.ndarray)

    def pinned(self, nbytes: int) -> np.ndarray[Any, Any]:
        """Bytes of the host that a device reads while the host goes on; plain ones if no more can be had of these."""
        try:
            return np.frombuffer(self._cupy.cuda.alloc_pinned_memory(nbytes), np.uint8, nbytes)
        except RuntimeError:  # CUDA's own
            return np.empty(nbytes, np.uint8)

    def copy_stream(self) -> CopyStream:
        return CopyStream(self._cupy.cuda)

    def to_device(self, operand: Any) -> Array:
        """The operand as an array on the current device."""
        current = self.device()
        if type(operand) is self.array_type and operand.data.device_id == current:
            return operand  # as most operands are
        array = self._adopt(operand) if on_device(operand) else self._upload(operand)
        if array.device.id != current:
            raise OperandError(
                f"an array is on device {array.device.id} but device {current} is current: "
                f"copy it over, or call inside `with cupy.cuda.Device({array.device.id})`"
            )
        return array

    def _upload(self, operand: Any) -> Array:
        """An array of the host's; one without axes as if it had one, since CuPy makes 0 of a -0 there."""
        return self._cupy.asarray(operand) if operand.ndim else self._cupy.asarray(operand.reshape(1)).reshape(())

    def _adopt(self, operand: Any) -> Array:
        """An array on a GPU as CuPy's, where it is: `cupy.asarray` would copy it to the current device."""
        cupy = self._cupy
        if isinstance(operand, cupy.ndarray):
            return operand
        if not hasattr(operand, "__dlpack__"):
            address = operand.__cuda_array_interface__["data"][0]
            current = self.device()
            home = cupy.cuda.runtime.pointerGetAttributes(address).device if address else current
            with cupy.cuda.Device(home):
                return cupy.asarray(operand)
        try:
            return cupy.from_dlpack(operand)  # CuPy's stream waits for the producer's, which the other way does not ask
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise OperandError(
                f"an array of type {type(operand).__name__} cannot be shared by DLPack: {error}"
            ) from error

    def context(self) -> tuple[int, Any, int | None]:
        """What an array that is kept can be used with only: the current device and stream."""
        stream = self._cupy.cuda.get_current_stream()
        thread = threading.get_ident() if stream.ptr == _PER_THREAD_STREAM else None  # another stream in every thread
        return self.device(), stream, thread

    def borrowing(
        self, device: int, stream: int, allocate: Callable[[int], tuple[int, object]]
    ) -> AbstractContextManager[None]:
        """Another library's device, stream (its address) and memory: from bytes to an address and what owns them."""
        return borrowing(self._cupy.cuda, device, stream, allocate)

    def is_capturing(self) -> bool:
        """Whether the current stream is being captured: what is launched there runs later, and maybe often."""
        return self._cupy.cuda.get_current_stream().is_capturing()  # type: ignore[no-any-return]  # CuPy has no types

    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        return self._cupy.asnumpy(array, order="A")  # type: ignore[no-any-return]  # CuPy has no types

    def device(self) -> int:
        """The number of the current device."""
        return self._cupy.cuda.runtime.getDevice()  # type: ignore[no-any-return]  # CuPy has no types

    def allocate(self, nbytes: int) -> Memory:
        """So many bytes, not initialised."""
        return self._cupy.cuda.alloc(nbytes)  # type: ignore[no-any-return]  # CuPy has no types

    def array(self, shape: Shape, dtype: np.dtype[Any], memory: Memory, strides: Sequence[int]) -> Array:
        """The memory as an array with these strides (in bytes)."""
        return self._cupy.ndarray(shape, dtype, memory, strides)

    def strided(self, array: Array, shape: Shape, strides: Sequence[int]) -> Array:
        """The array's memory, from its first element on, seen with other strides (in bytes)."""
        return self._cupy.ndarray(shape, array.dtype, array.data, strides)

    def pointer(self, array: Array) -> int:
        """The address of the first element."""
        return array.data.ptr  # type: ignore[no-any-return]  # CuPy has no types

    def store(self, array: Array, out: Array) -> None:
        """Write the array's elements into `out`, which may be on the host."""
        if isinstance(out, np.ndarray):
            np.copyto(out, self.to_host(array), casting="unsafe")
        else:
            self.to_device(out)[...] = array

    def add(self, part: Array, out: Array) -> None:
        out += part.astype(out.dtype, copy=False)

    def prepare(self, work: Work) -> Callable[[Sequence[int]], None]:
        """A kernel or a product as a function of the addresses of a program's memories.

        It runs on the current stream. Raises DeviceError for a precision that the cuBLAS at hand does not have; the
        function raises RefusedError for what this device does in another way only.
        """
        return self._prepare_product(work) if isinstance(work, Product) else self._prepare_launch(work)

    def _prepare_product(self, work: Product) -> Callable[[Sequence[int]], None]:
        cublas = self._cublas(self.device())
        multiply = cublas.prepare(work)

        def launch(addresses: Sequence[int]) -> None:
            context = self.context()
            with cublas.lock:
                if cublas.context != context:
                    cublas.attach(context, context[1].ptr, self._workspace(context))
                try:
                    multiply(addresses)
                except CublasError as error:
                    if error.is_not_supported:
                        raise RefusedError(work, work.ways, error) from error
                    if self.is_capturing():  # when nothing may be freed
                        raise
                    self._with_memory(lambda: multiply(addresses))

        return launch

    def _cublas(self, device: int) -> Cublas:
        """The handle of a device, which is the current one when it is made."""
        if device not in self._handles:
            capability = int(self._cupy.cuda.Device().compute_capability)
            self._handles[device] = self._with_memory(lambda: Cublas(self._library, capability))
        return self._handles[device]

    def _with_memory(self, call: Callable[[], Result]) -> Result:
        """A call of cuBLAS, which allocates outside of CuPy's pool; once more without what the pool keeps unused.

        Raises DeviceError if there is too little memory even then.
        """
        try:
            return call()
        except CublasError as error:
            if not error.is_short_of_memory:
                raise
        pool = self._cupy.get_default_memory_pool()
        pool.free_all_blocks()
        try:
            return call()
        except CublasError as error:
            if not error.is_short_of_memory:
                raise
            free, total = map(bytes_text, self._cupy.cuda.runtime.memGetInfo())
            held = bytes_text(pool.total_bytes())
            raise DeviceError(
                f"cuBLAS needs memory: {free} of {total} are free, arrays hold {held} ({error})"
            ) from error

    def free_memory(self) -> int:
        """Give the workspaces of cuBLAS back to CuPy's pool; how many bytes they have."""
        freed = self._workspace.cache_info().currsize * WORKSPACE
        for cublas in list(self._handles.values()):
            with cublas.lock:
                cublas.detach()
        self._workspace.cache_clear()
        return freed

    def _prepare_launch(self, work: Launch) -> Callable[[Sequence[int]], None]:
        kernel, grid, block, places = _raw_kernel(work.kernel), (work.blocks,), (work.threads,), work.addresses
        # CuPy would convert an array and numbers at each launch: with two addresses that takes 2.2 us of the host, with
        # prepared objects 1.1 (CuPy 14.2, CUDA stubbed, AMD EPYC). Each launch makes its own objects of the addresses,
        # since threads share the function.
        function = self._cupy.cuda.function
        job, pointer = function.CNumpyArray(work.job), function.CIntptr

        def launch(addresses: Sequence[int]) -> None:
            try:
                kernel(grid, block, (job, *[pointer(addresses[memory] + offset) for memory, offset in places]))
            except Exception as error:
                if type(error).__name__ == "CompileException" or getattr(error, "status", None) in _NO_LAUNCH:
                    raise RefusedError(work, work.ways, error) from error
                raise

        return launch

    def copy(self, out: int, source: int, nbytes: int) -> None:
        """So many bytes from address to address."""
        cupy = self._cupy
        stream = cupy.cuda.get_current_stream().ptr
        cupy.cuda.runtime.memcpyAsync(out, source, nbytes, _DEVICE_TO_DEVICE, stream)

    def seconds(self, call: Callable[[], object], count: int) -> float:
        """By events on the current stream."""
        return events.call_seconds(self._cupy.cuda, call, count)

    def work_seconds(self, call: Callable[[], object], count: int) -> float:
        """The device's part alone.

        `seconds` of many short launches are the longer of both parts, from which neither can be subtracted.
        """
        [seconds] = self.parts_seconds([("calls", lambda: [call() for _ in range(count)])])
        return seconds

    def parts_seconds(self, parts: Sequence[tuple[str, Callable[[], object]]]) -> list[float]:
        """`work_seconds` of each part of some work, by its name; of each one the event after it is a part."""
        memory = self.allocate(2 * _COPIED)
        return events.parts_seconds(
            self._cupy.cuda, lambda: self.copy(memory.ptr + _COPIED, memory.ptr, _COPIED), parts
        )

    def capture(self, program: Program, addresses: Sequence[int]) -> Callable[[], None]:
        """All its work at these addresses as one graph, to be launched on the stream that is current now.

        Raises DeviceError, saying why, if it cannot be captured. Everything must have been launched once before.
        """
        try:
            return self._capture(program, addresses)
        except RuntimeError as error:  # CuPy's, CUDA's and cuBLAS' own are RuntimeErrors
            raise DeviceError(f"this cannot be captured as a CUDA graph: {error}") from error

    def _capture(self, program: Program, addresses: Sequence[int]) -> Callable[[], None]:
        """On a stream of its own; its products use the workspace of the stream on which the graph is launched."""
        launches = [self.prepare(work) for work in program.work]
        has_products = any(isinstance(work, Product) for work in program.work)
        stream = self._cupy.cuda.Stream(non_blocking=True)
        workspace = self._workspace(self.context()) if has_products else None
        with current(self._cupy.cuda, stream), self._attach(workspace):
            stream.begin_capture()
            try:
                for launch in launches:
                    launch(addresses)
            except BaseException:
                with contextlib.suppress(RuntimeError):
                    stream.end_capture()
                raise
            graph = stream.end_capture()

        def launch_graph(_: Any = workspace) -> None:  # which lives as long as the graph
            graph.launch()

        return launch_graph

    @contextlib.contextmanager
    def _attach(self, workspace: Memory | None) -> Iterator[None]:
        """cuBLAS serves this thread alone, on the current stream and in this workspace, if one is needed."""
        if workspace is None:
            yield
            return
        cublas, context = self._cublas(self.device()), self.context()
        with cublas.lock:
            cublas.attach(context, context[1].ptr, workspace)
            try:
                yield
            finally:
                cublas.detach()


_STREAMS = 4  # whose workspaces are kept, 128 MiB in all
# CUresult: INVALID_IMAGE, NO_BINARY_FOR_GPU, INVALID_PTX, JIT_COMPILER_NOT_FOUND, UNSUPPORTED_PTX_VERSION,
# LAUNCH_OUT_OF_RESOURCES, NOT_SUPPORTED: what one kernel meets, and another need not.
_NO_LAUNCH = {200, 209, 218, 221, 222, 701, 801}
# Bytes of a copy that takes a device longer than the host takes to launch it: 30 us of an H200 for 3 of the host, by
# reckoning.
_COPIED = 64 << 20
_DEVICE_TO_DEVICE = 3  # cudaMemcpyKind
_PER_THREAD_STREAM = 2  # cudaStreamPerThread


@cache
def _processors(device: int) -> int:
    import cupy

    return int(cupy.cuda.Device(device).attributes["MultiProcessorCount"])


@cache
def _raw_kernel(kernel: Kernel) -> Any:
    """The kernel, compiled at its first launch on each device and kept on disk by CuPy."""
    import cupy

    return cupy.RawKernel(kernel_text(kernel), kernel.entry, options=("-std=c++17",))
