"""The device as `cuda.py` sees it: a small protocol, and CuPy behind it. Nothing else in the package reaches a GPU."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from functools import cache
from typing import Any, Protocol

import numpy as np

from gpueinsum.backends import on_device
from gpueinsum.backends.launch import Kernel, kernel_text
from gpueinsum.errors import DeviceError, OperandError
from gpueinsum.gemm import Gemm
from gpueinsum.subscripts import Shape

Array = Any


class Runtime(Protocol):
    """All that is ever asked of a device."""

    @property
    def processors(self) -> int:
        """How many multiprocessors the current device has."""

    def memory(self) -> int:
        """Bytes of memory that the current device has."""

    def to_device(self, operand: object) -> Array:
        """The operand as an array on the current device."""

    def to_host(self, array: Array) -> np.ndarray[Any, Any]: ...

    def context(self) -> Hashable:
        """What an array that is kept can be used with only: the current device and stream."""

    def empty(self, shape: Shape, dtype: np.dtype[Any]) -> Array:
        """A C-ordered array, not initialised."""

    def strided(self, array: Array, shape: Shape, strides: Sequence[int]) -> Array:
        """The array's memory, from its first element on, seen with other strides (in bytes)."""

    def pointer(self, array: Array) -> int:
        """The address of the first element."""

    def arrange(self, array: Array, order: str) -> Array:
        """The array in C or F order, copied only if it is not."""

    def store(self, array: Array, out: Array) -> None:
        """Write the array's elements into `out`, which may be on the host."""

    def launch(self, kernel: Kernel, blocks: int, threads: int, *arguments: Any) -> None: ...

    def gemm(self, gemm: Gemm, dtype: str, a: int, b: int, c: int, precision: str | None) -> None:
        """One cuBLAS call on these addresses."""


class CupyRuntime:
    """CuPy's current device and current stream, its memory pool, its cuBLAS handle; nothing here synchronises.

    Raises DeviceError, saying which of CuPy, driver, device and cuBLAS is missing.
    """

    def __init__(self) -> None:
        try:
            import cupy
        except ImportError as error:
            raise DeviceError(
                f"CUDA needs CuPy, which cannot be imported: pip install 'cupy-cuda13x[ctk]' ({error})"
            ) from error
        try:
            devices = cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            what = "an NVIDIA device" if "NoDevice" in str(error) else "an NVIDIA driver that fits CuPy's CUDA version"
            raise DeviceError(f"CUDA needs {what}, and there is none: {error}") from error
        if devices == 0:
            raise DeviceError("CUDA needs an NVIDIA device, and there is none")
        try:
            from cupy_backends.cuda.libs import cublas
        except ImportError as error:
            raise DeviceError(f"CUDA needs the cuBLAS library: pip install 'cupy-cuda13x[ctk]' ({error})") from error
        if _headers_are_missing():
            raise DeviceError("CUDA needs its headers, with which CuPy compiles: pip install 'cupy-cuda13x[ctk]'")
        self._cupy = cupy
        self._blas = cublas

    @property
    def processors(self) -> int:
        return _processors(self._cupy.cuda.runtime.getDevice())

    def memory(self) -> int:
        return int(self._cupy.cuda.runtime.memGetInfo()[1])

    def to_device(self, operand: object) -> Array:
        cupy = self._cupy
        array = self._adopted(operand) if on_device(operand) else self._uploaded(operand)
        current = cupy.cuda.runtime.getDevice()
        if array.device.id != current:
            raise OperandError(
                f"an array is on device {array.device.id} but device {current} is current: "
                f"copy it over, or call inside `with cupy.cuda.Device({array.device.id})`"
            )
        return array

    def _uploaded(self, operand: Any) -> Array:
        """An array of the host's; one without axes as if it had one, since CuPy makes 0 of a -0 there."""
        return self._cupy.asarray(operand) if operand.ndim else self._cupy.asarray(operand.reshape(1)).reshape(())

    def _adopted(self, operand: Any) -> Array:
        """An array on a GPU as CuPy's, where it is: `cupy.asarray` would copy it to the current device."""
        cupy = self._cupy
        if isinstance(operand, cupy.ndarray):
            return operand
        if not hasattr(operand, "__dlpack__"):
            address = operand.__cuda_array_interface__["data"][0]
            current = cupy.cuda.runtime.getDevice()
            home = cupy.cuda.runtime.pointerGetAttributes(address).device if address else current
            with cupy.cuda.Device(home):
                return cupy.asarray(operand)
        try:
            return cupy.from_dlpack(operand)  # CuPy's stream waits for the producer's, which the other way does not ask
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise OperandError(
                f"an array of type {type(operand).__name__} cannot be shared by DLPack: {error}"
            ) from error

    def context(self) -> Hashable:
        stream = self._cupy.cuda.get_current_stream()
        thread = threading.get_ident() if stream.ptr == _PER_THREAD_STREAM else None  # another stream in every thread
        return self._cupy.cuda.runtime.getDevice(), stream, thread

    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        return self._cupy.asnumpy(array, order="A")  # type: ignore[no-any-return]  # CuPy has no types

    def empty(self, shape: Shape, dtype: np.dtype[Any]) -> Array:
        return self._cupy.empty(shape, dtype)

    def strided(self, array: Array, shape: Shape, strides: Sequence[int]) -> Array:
        return self._cupy.lib.stride_tricks.as_strided(array, shape, strides)

    def pointer(self, array: Array) -> int:
        return array.data.ptr  # type: ignore[no-any-return]  # CuPy has no types

    def arrange(self, array: Array, order: str) -> Array:
        return self._cupy.asarray(array, order=order)

    def store(self, array: Array, out: Array) -> None:
        if isinstance(out, np.ndarray):
            np.copyto(out, self.to_host(array), casting="unsafe")
        else:
            self.to_device(out)[...] = array

    def launch(self, kernel: Kernel, blocks: int, threads: int, *arguments: Any) -> None:
        _raw_kernel(kernel)((blocks,), (threads,), arguments)

    def gemm(self, gemm: Gemm, dtype: str, a: int, b: int, c: int, precision: str | None) -> None:
        blas = self._blas
        kind, compute, scale, mode = _gemm_types(dtype, precision)
        one, zero = _scalar(scale, 1), _scalar(scale, int(gemm.accumulate))
        op_a, op_b = _operation(gemm.transpose_a, gemm.conjugate_a), _operation(gemm.transpose_b, gemm.conjugate_b)
        handle = self._cupy.cuda.device.get_cublas_handle()
        caller_mode = blas.getMathMode(handle)
        blas.setMathMode(handle, mode)  # CuPy's handle may have been set to TF32
        try:
            blas.gemmStridedBatchedEx(
                *(handle, op_a, op_b, gemm.m, gemm.n, gemm.k, one.ctypes.data),
                *(a, kind, gemm.lda, gemm.stride_a, b, kind, gemm.ldb, gemm.stride_b, zero.ctypes.data),
                *(c, kind, gemm.ldc, gemm.stride_c, gemm.batch, compute, _DEFAULT_ALGORITHM),
            )
        finally:
            blas.setMathMode(handle, caller_mode)


_PER_THREAD_STREAM = 2  # cudaStreamPerThread


def _headers_are_missing() -> bool:
    """Whether CuPy's search for them, which comes before its first kernel, will fail."""
    try:
        from cuda.pathfinder import find_nvidia_header_directory
    except ImportError:
        return False
    return find_nvidia_header_directory("cudart") is None


# cudaDataType_t, cublasOperation_t, cublasComputeType_t, cublasMath_t and cublasGemmAlgo_t, from library_types.h and
# cublas_api.h.
_DATA_TYPES = {"float16": 2, "bfloat16": 14, "float32": 0, "float64": 1, "complex64": 4, "complex128": 5}
_OP_N, _OP_T, _OP_C = 0, 1, 2
_COMPUTE_32F, _COMPUTE_64F, _COMPUTE_32F_FAST_TF32 = 68, 70, 77
_DEFAULT_MATH, _NO_REDUCED_PRECISION_REDUCTION = 0, 16
_DEFAULT_ALGORITHM = -1


def _operation(transpose: bool, conjugate: bool) -> int:
    assert transpose or not conjugate  # cuBLAS has no conjugate alone
    return (_OP_C if conjugate else _OP_T) if transpose else _OP_N


@cache
def _gemm_types(dtype: str, precision: str | None) -> tuple[int, int, str, int]:
    """cuBLAS' data type, compute type, the dtype of its scalars, its math mode."""
    half = dtype in ("float16", "bfloat16")
    compute = _COMPUTE_64F if dtype in ("float64", "complex128") else _COMPUTE_32F
    if precision == "tf32" and compute == _COMPUTE_32F and not half:
        compute = _COMPUTE_32F_FAST_TF32
    mode = _NO_REDUCED_PRECISION_REDUCTION if half else _DEFAULT_MATH
    return _DATA_TYPES[dtype], compute, "float32" if half else dtype, mode


@cache
def _scalar(dtype: str, value: int) -> np.ndarray[Any, Any]:
    return np.array(value, dtype)


@cache
def _processors(device: int) -> int:
    import cupy

    return int(cupy.cuda.Device(device).attributes["MultiProcessorCount"])


@cache
def _raw_kernel(kernel: Kernel) -> Any:
    """The kernel, compiled at its first launch on each device and kept on disk by CuPy."""
    import cupy

    return cupy.RawKernel(kernel_text(kernel), kernel.entry, options=("-std=c++17",))
