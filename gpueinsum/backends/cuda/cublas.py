"""cuBLAS: a product as the arguments of its functions; through CuPy's binding, and past it where that does not do.

It has no products by pointers, and refuses a stream that captures.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from gpueinsum.backends.cuda.program import Product
from gpueinsum.errors import DeviceError

# cudaDataType_t, cublasOperation_t, cublasComputeType_t, cublasMath_t and cublasGemmAlgo_t, from library_types.h and
# cublas_api.h.
_DATA_TYPES = {"float16": 2, "bfloat16": 14, "float32": 0, "float64": 1, "complex64": 4, "complex128": 5}
_OP_N, _OP_T, _OP_C = 0, 1, 2
_COMPUTE_32F, _COMPUTE_64F = 68, 70
_DEFAULT_MATH, _NO_REDUCED_PRECISION_REDUCTION = 0, 16
_DEFAULT_ALGORITHM = -1

_SINGLE, _DOUBLE = {"float32", "complex64"}, {"float64", "complex128"}


class _Precision(NamedTuple):
    """How products of some dtypes are computed, and the first version of cuBLAS that can."""

    dtypes: set[str]
    compute: int
    version: int


# By the names that `precision=` takes; products of any other dtype are those of full precision.
_PRECISIONS = {
    "tf32": [_Precision(_SINGLE, 77, 0)],  # CUBLAS_COMPUTE_32F_FAST_TF32
    "bf16": [_Precision(_SINGLE, 75, 0)],  # CUBLAS_COMPUTE_32F_FAST_16BF
    "emulated": [
        _Precision(_SINGLE, 78, 120900),  # CUBLAS_COMPUTE_32F_EMULATED_16BFX9
        _Precision(_DOUBLE, 79, 130100),  # CUBLAS_COMPUTE_64F_EMULATED_FIXEDPOINT
    ],
}


class GemmTypes(NamedTuple):
    """cuBLAS' data type, compute type and math mode, the dtype of its scalars, the version of cuBLAS that it takes."""

    data: int
    compute: int
    mode: int
    scalar: str
    version: int


@cache
def gemm_types(dtype: str, precision: str | None) -> GemmTypes:
    half = dtype in ("float16", "bfloat16")
    compute, version = _COMPUTE_64F if dtype in _DOUBLE else _COMPUTE_32F, 0
    for way in _PRECISIONS.get(precision or "", []):
        if dtype in way.dtypes:
            _, compute, version = way
    mode = _NO_REDUCED_PRECISION_REDUCTION if half else _DEFAULT_MATH
    return GemmTypes(_DATA_TYPES[dtype], compute, mode, "float32" if half else dtype, version)


Launch = Callable[[Sequence[int]], None]  # a product as a function of the addresses of a program's memories


def gemm_arguments(
    work: Product,
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """What cublasGemmStridedBatchedEx takes behind the handle: up to the address of A, up to B's, up to C's, after.

    cublasGemmBatchedEx takes the same without the strides, and the addresses of arrays of pointers.
    """
    gemm, types = work.gemm, gemm_types(work.dtype, work.precision)
    strides = [(stride,) for stride in (gemm.stride_a, gemm.stride_b, gemm.stride_c)]
    stride_a, stride_b, stride_c = [()] * 3 if work.by_pointers else strides
    op_a, op_b = _operation(gemm.transpose_a, gemm.conjugate_a), _operation(gemm.transpose_b, gemm.conjugate_b)
    alpha, beta = (_scalar(types.scalar, number).ctypes.data for number in (1, int(gemm.accumulate)))
    return (
        (op_a, op_b, gemm.m, gemm.n, gemm.k, alpha),
        (types.data, gemm.lda, *stride_a),
        (types.data, gemm.ldb, *stride_b, beta),
        (types.data, gemm.ldc, *stride_c, gemm.batch, types.compute, _DEFAULT_ALGORITHM),
    )


def _operation(transpose: bool, conjugate: bool) -> int:
    assert transpose or not conjugate  # cuBLAS has no conjugate alone
    return (_OP_C if conjugate else _OP_T) if transpose else _OP_N


@cache
def _scalar(dtype: str, value: int) -> np.ndarray[Any, Any]:
    """alpha or beta, where cuBLAS can read it for ever."""
    return np.array(value, dtype)


class CupyBlas:
    """CuPy's binding, which works on the current stream, on a handle that `handle_of` gives at each call.

    It has no products by pointers: those go past it, on the stream that `stream_of` gives, to the library of this major
    version of CUDA.
    """

    def __init__(self, cublas: Any, handle_of: Callable[[], int], stream_of: Callable[[], int], major: int) -> None:
        self._cublas, self._handle_of, self._stream_of, self._major = cublas, handle_of, stream_of, major

    def prepare(self, work: Product) -> Launch:
        """Raises DeviceError if this version of cuBLAS lacks the precision, or the library cannot be found."""
        types = gemm_types(work.dtype, work.precision)
        if types.version:
            self._check_version(work, types.version)
        multiply = self._by_pointers() if work.by_pointers else self._cublas.gemmStridedBatchedEx
        mode_of, set_mode = self._cublas.getMathMode, self._cublas.setMathMode
        before, between, behind, end = gemm_arguments(work)
        handle_of, mode = self._handle_of, types.mode
        (a, a_start), (b, b_start), (c, c_start) = work.addresses[:3]

        def launch(addresses: Sequence[int]) -> None:
            handle = handle_of()
            callers_mode = mode_of(handle)
            if callers_mode != mode:  # somebody has set CuPy's handle to TF32, or halves are to be added in float32
                set_mode(handle, mode)
            try:
                multiply(
                    *(handle, *before, addresses[a] + a_start, *between, addresses[b] + b_start),
                    *(*behind, addresses[c] + c_start, *end),
                )
            finally:
                if callers_mode != mode:
                    set_mode(handle, callers_mode)

        return launch

    def _by_pointers(self) -> Callable[..., None]:
        """cublasGemmBatchedEx as the binding would have it."""
        try:
            library = _library(self._major)
        except OSError as error:
            raise DeviceError(f"products by pointers need the cuBLAS library that CuPy has loaded: {error}") from error
        function = library.cublasGemmBatchedEx
        function.argtypes = [_POINTER, *_POINTER_GEMM_TYPES]
        set_stream, stream_of = self._cublas.setStream, self._stream_of

        def multiply(handle: int, *arguments: int) -> None:
            set_stream(handle, stream_of())
            _check("cublasGemmBatchedEx", function(handle, *arguments))

        return multiply

    def _check_version(self, work: Product, needed: int) -> None:
        version = self._cublas.getVersion(self._handle_of())
        if version < needed:
            raise DeviceError(
                f"precision={work.precision!r} of {work.dtype} needs cuBLAS {_version_text(needed)}, "
                f"and this is {_version_text(version)}"
            )


class Handle(int):
    """A cuBLAS handle of our own, and the workspace that comes with it; whoever calls cuBLAS with it keeps it alive."""

    _destroy: Callable[[int], None]

    def __new__(cls, cublas: Any) -> Handle:
        handle = super().__new__(cls, cublas.create())
        handle._destroy = cublas.destroy
        return handle

    def __del__(self) -> None:
        """To destroy a handle waits for the device, which would break a capture: those that go meanwhile come later."""
        _WAITING.append((self._destroy, int(self)))
        if CAPTURING.acquire(blocking=False):  # nobody waits here, since the garbage collector may run anywhere
            try:
                while _WAITING:
                    destroy, number = _WAITING.pop()
                    with contextlib.suppress(RuntimeError):  # at exit CUDA may be gone
                        destroy(number)
            finally:
                CAPTURING.release()


CAPTURING = threading.Lock()  # one graph at a time is captured
_WAITING: list[tuple[Callable[[int], None], int]] = []


def _version_text(number: int) -> str:
    """cuBLAS writes 12.9.1 as 120901.

    >>> _version_text(120901)
    '12.9.1'
    """
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


class CapturableBlas:
    """The cuBLAS library that CuPy has loaded, on a handle of our own, for the current device and one stream at a time.

    Raises OSError if the library cannot be found, RuntimeError with cuBLAS' status if a call fails.
    """

    def __init__(self, major: int) -> None:
        self._library = _library(major)
        self._handle = ctypes.c_void_p()
        self._call("cublasCreate_v2", ctypes.byref(self._handle))

    def attach(self, stream: int, workspace: int, nbytes: int) -> None:
        """Work on this stream, and in this memory: without it, every captured call would allocate some of its own."""
        self._call("cublasSetStream_v2", self._handle, ctypes.c_void_p(stream))
        self._call("cublasSetWorkspace_v2", self._handle, ctypes.c_void_p(workspace), ctypes.c_size_t(nbytes))

    def prepare(self, work: Product) -> Launch:
        before, between, behind, end = gemm_arguments(work)
        mode = gemm_types(work.dtype, work.precision).mode
        (a, a_start), (b, b_start), (c, c_start) = work.addresses[:3]
        function, types = "cublasGemmStridedBatchedEx", _GEMM_TYPES
        if work.by_pointers:
            function, types = "cublasGemmBatchedEx", _POINTER_GEMM_TYPES

        def launch(addresses: Sequence[int]) -> None:
            self._call("cublasSetMathMode", self._handle, mode)
            arguments = (
                *(*before, addresses[a] + a_start, *between, addresses[b] + b_start),
                *(*behind, addresses[c] + c_start, *end),
            )
            typed = [kind(argument) for kind, argument in zip(types, arguments, strict=True)]
            self._call(function, self._handle, *typed)

        return launch

    def _call(self, function: str, *arguments: Any) -> None:
        _check(function, getattr(self._library, function)(*arguments))


def _check(function: str, status: int) -> None:
    if status:
        raise RuntimeError(f"{function} failed with status {status}")


_INT, _LONG, _POINTER = ctypes.c_int, ctypes.c_longlong, ctypes.c_void_p
# op A, op B, m, n, k, alpha; A and its type, leading dimension and stride; B likewise, then beta; C likewise; batch,
# compute type, algorithm.
_ARRAY = [_POINTER, _INT, _INT, _LONG]
_GEMM_TYPES = [*[_INT] * 5, _POINTER, *_ARRAY, *_ARRAY, _POINTER, *_ARRAY, *[_INT] * 3]
_POINTER_GEMM_TYPES = [kind for kind in _GEMM_TYPES if kind is not _LONG]  # without the strides


def _library(major: int) -> Any:
    """Found by its name alone, since it is loaded."""
    return ctypes.CDLL(f"cublas64_{major}.dll" if sys.platform == "win32" else f"libcublas.so.{major}")
