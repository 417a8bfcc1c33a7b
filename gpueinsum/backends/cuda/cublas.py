"""cuBLAS: matrix products as calls of its C functions, on one handle of our own for each device.

All calls go past CuPy's binding, to the library that it has loaded: the binding has no products by pointers, and it
refuses a stream that captures.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpueinsum.backends.cuda.program import Product
from gpueinsum.backends.cuda.source import accumulator
from gpueinsum.errors import DeviceError

if TYPE_CHECKING:
    from gpueinsum.backends.cuda.runtime import Memory

WORKSPACE = 32 << 20  # bytes: what cuBLAS' documentation recommends from Hopper on

# cudaDataType_t, cublasOperation_t, cublasComputeType_t, cublasMath_t and cublasGemmAlgo_t, from library_types.h and
# cublas_api.h.
_DATA_TYPES = {"float16": 2, "bfloat16": 14, "float32": 0, "float64": 1, "complex64": 4, "complex128": 5}
_OP_N, _OP_T, _OP_C = 0, 1, 2
_COMPUTE_32F, _COMPUTE_64F = 68, 70
_DEFAULT_MATH, _NO_REDUCED_PRECISION_REDUCTION = 0, 16
_DEFAULT_ALGORITHM = -1

_INT, _LONG, _SIZE, _POINTER = ctypes.c_int, ctypes.c_longlong, ctypes.c_size_t, ctypes.c_void_p
_MATRIX, _MATRICES = [_POINTER, _INT, _INT], [_POINTER, _INT, _INT, _LONG]  # type, leading dimension, stride
# After the handle. A product takes op A, op B, m, n, k, alpha; A and B; beta, C; batch, compute type and algorithm.
_ARGUMENTS: dict[str, list[Any]] = {
    "cublasGetVersion_v2": [_POINTER],
    "cublasSetStream_v2": [_POINTER],
    "cublasSetWorkspace_v2": [_POINTER, _SIZE],
    "cublasSetMathMode": [_INT],
    "cublasGemmBatchedEx": [*[_INT] * 5, _POINTER, *_MATRIX * 2, _POINTER, *_MATRIX, *[_INT] * 3],
    "cublasGemmStridedBatchedEx": [*[_INT] * 5, _POINTER, *_MATRICES * 2, _POINTER, *_MATRICES, *[_INT] * 3],
}

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
    """A product's data type, compute type, math mode and dtype of scalars, and the first version of cuBLAS for it."""

    data: int
    compute: int
    mode: int
    scalar: str
    version: int


@cache
def gemm_types(dtype: str, precision: str | None) -> GemmTypes:
    scalar = accumulator(dtype)
    compute, version = _COMPUTE_64F if dtype in _DOUBLE else _COMPUTE_32F, 0
    for lower in _PRECISIONS.get(precision or "", []):
        if dtype in lower.dtypes:
            _, compute, version = lower
    mode = _DEFAULT_MATH if scalar == dtype else _NO_REDUCED_PRECISION_REDUCTION  # halves are added in float32
    return GemmTypes(_DATA_TYPES[dtype], compute, mode, scalar, version)


Multiply = Callable[[Sequence[int]], None]  # a product as a function of the addresses of a program's memories


class Cublas:
    """A handle for the device that is current when it is made. A call that fails raises RuntimeError with its status.

    All threads share the handle: whoever attaches it or multiplies holds its `lock`. It is never destroyed: that would
    wait for the device, which breaks a capture.
    """

    def __init__(self, library: Any) -> None:
        self.lock = threading.RLock()
        self.context: Hashable = None  # the runtime's context of the stream that is attached
        self._workspace: Memory | None = None
        self._mode = _DEFAULT_MATH
        self._library, self._handle = library, ctypes.c_void_p()
        _check("cublasCreate_v2", library.cublasCreate_v2(ctypes.byref(self._handle)))

    def attach(self, context: Hashable, stream: int, workspace: Memory) -> None:
        """Later products run on this stream, in a workspace of WORKSPACE bytes; both live as long as they are attached.

        cuBLAS gives the same bits from run to run where each stream has a workspace of its own. Without a workspace,
        each product that is captured would allocate some memory.
        """
        self.context = None
        self._call("cublasSetStream_v2")(stream)  # which detaches the workspace
        self._call("cublasSetWorkspace_v2")(workspace.ptr, WORKSPACE)
        self.context, self._workspace = context, workspace

    def prepare(self, work: Product) -> Multiply:
        """Raises DeviceError if this version of cuBLAS lacks the precision."""
        types, gemm = gemm_types(work.dtype, work.precision), work.gemm
        if types.version:
            self._check_version(work, types.version)
        multiply = self._call("cublasGemmBatchedEx" if work.by_pointers else "cublasGemmStridedBatchedEx")
        set_mode, mode = self._call("cublasSetMathMode"), types.mode
        op_a, op_b = _operation(gemm.transpose_a, gemm.conjugate_a), _operation(gemm.transpose_b, gemm.conjugate_b)
        alpha, beta = (_scalar(types.scalar, number).ctypes.data for number in (1, int(gemm.accumulate)))
        operations = op_a, op_b, gemm.m, gemm.n, gemm.k, alpha
        leading_and_stride = (gemm.lda, gemm.stride_a), (gemm.ldb, gemm.stride_b), (gemm.ldc, gemm.stride_c)
        a, b, c = ([types.data, *numbers[: 1 if work.by_pointers else 2]] for numbers in leading_and_stride)
        batch = gemm.batch, types.compute, _DEFAULT_ALGORITHM
        (in_a, at_a), (in_b, at_b), (in_c, at_c) = work.addresses[:3]

        def launch(addresses: Sequence[int]) -> None:
            if self._mode != mode:
                set_mode(mode)
                self._mode = mode
            multiply(
                *(*operations, addresses[in_a] + at_a, *a, addresses[in_b] + at_b, *b),
                *(beta, addresses[in_c] + at_c, *c, *batch),
            )

        return launch

    def _check_version(self, work: Product, needed: int) -> None:
        version = ctypes.c_int()
        self._call("cublasGetVersion_v2")(ctypes.byref(version))
        if version.value < needed:
            raise DeviceError(
                f"precision={work.precision!r} of {work.dtype} needs cuBLAS {_version_text(needed)}, "
                f"and this is {_version_text(version.value)}"
            )

    def _call(self, name: str) -> Callable[..., None]:
        """A function of the library on this handle, which raises RuntimeError if it fails."""
        function, handle = getattr(self._library, name), self._handle
        function.argtypes = [_POINTER, *_ARGUMENTS[name]]

        def call(*arguments: Any) -> None:
            _check(name, function(handle, *arguments))

        return call


def load(major: int) -> Any:
    """The cuBLAS library that CuPy has loaded, of this major version of CUDA. Raises OSError if it is not found."""
    return ctypes.CDLL(f"cublas64_{major}.dll" if sys.platform == "win32" else f"libcublas.so.{major}")


def _check(name: str, status: int) -> None:
    if status:
        raise RuntimeError(f"{name} failed with status {status}")


def _version_text(number: int) -> str:
    """cuBLAS writes 12.9.1 as 120901.

    >>> _version_text(120901)
    '12.9.1'
    """
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def _operation(transpose: bool, conjugate: bool) -> int:
    assert transpose or not conjugate  # cuBLAS has no conjugate alone
    return (_OP_C if conjugate else _OP_T) if transpose else _OP_N


@cache
def _scalar(dtype: str, value: int) -> np.ndarray[Any, Any]:
    """alpha or beta, where cuBLAS can read it for ever."""
    return np.array(value, dtype)
