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

# cudaDataType_t, cublasOperation_t, cublasComputeType_t, cublasMath_t, cublasGemmAlgo_t, cublasEmulationStrategy_t and
# cublasStatus_t, from library_types.h and cublas_api.h.
_DATA_TYPES = {"float16": 2, "bfloat16": 14, "float32": 0, "float64": 1, "complex64": 4, "complex128": 5}
_OP_N, _OP_T, _OP_C = 0, 1, 2
_COMPUTE_32F, _COMPUTE_64F = 68, 70
_NO_REDUCED_PRECISION_REDUCTION = 16  # halves are added in float32
_DEFAULT_ALGORITHM = -1
_EMULATE_WHEREVER_POSSIBLE = 2
_NO_MEMORY = {1, 3, 14}  # NOT_INITIALIZED, ALLOC_FAILED, INTERNAL_ERROR: which of them depends on the call
_NOT_SUPPORTED = {7, 8, 15}  # INVALID_VALUE, ARCH_MISMATCH, NOT_SUPPORTED

_INT, _LONG, _SIZE, _POINTER = ctypes.c_int, ctypes.c_longlong, ctypes.c_size_t, ctypes.c_void_p
_MATRIX, _MATRICES = [_POINTER, _INT, _INT], [_POINTER, _INT, _INT, _LONG]  # type, leading dimension, stride
# After the handle. A product takes op A, op B, m, n, k, alpha; A and B; beta, C; batch, compute type and algorithm.
_ARGUMENTS: dict[str, list[Any]] = {
    "cublasGetVersion_v2": [_POINTER],
    "cublasSetStream_v2": [_POINTER],
    "cublasSetWorkspace_v2": [_POINTER, _SIZE],
    "cublasSetMathMode": [_INT],
    "cublasSetEmulationStrategy": [_INT],
    "cublasGemmEx": [*[_INT] * 5, _POINTER, *_MATRIX * 2, _POINTER, *_MATRIX, *[_INT] * 2],
    "cublasGemmBatchedEx": [*[_INT] * 5, _POINTER, *_MATRIX * 2, _POINTER, *_MATRIX, *[_INT] * 3],
    "cublasGemmStridedBatchedEx": [*[_INT] * 5, _POINTER, *_MATRICES * 2, _POINTER, *_MATRICES, *[_INT] * 3],
}

_SINGLE, _DOUBLE = {"float32", "complex64"}, {"float64", "complex128"}


class _Precision(NamedTuple):
    """How products of some dtypes are computed; the first version of cuBLAS and the least compute capability for it."""

    dtypes: set[str]
    compute: int
    version: int = 0
    capability: int = 0


# By the names that `precision=` takes; products of any other dtype are those of full precision. cuBLAS emulates on
# Blackwell; on what came before it would compute in full precision, and not say so.
_PRECISIONS = {
    "tf32": [_Precision(_SINGLE, 77)],  # CUBLAS_COMPUTE_32F_FAST_TF32
    "bf16": [_Precision(_SINGLE, 75)],  # CUBLAS_COMPUTE_32F_FAST_16BF
    "emulated": [
        _Precision(_SINGLE, 78, 120900, 100),  # CUBLAS_COMPUTE_32F_EMULATED_16BFX9
        _Precision(_DOUBLE, 79, 130100, 100),  # CUBLAS_COMPUTE_64F_EMULATED_FIXEDPOINT
    ],
}


def _precision(dtype: str, precision: str | None) -> _Precision:
    for lower in _PRECISIONS.get(precision or "", []):
        if dtype in lower.dtypes:
            return lower
    return _Precision({dtype}, _COMPUTE_64F if dtype in _DOUBLE else _COMPUTE_32F)


class CublasError(RuntimeError):
    """A function of cuBLAS that failed."""

    def __init__(self, name: str, status: int) -> None:
        super().__init__(f"{name} failed with status {status}")
        self.is_short_of_memory, self.is_not_supported = status in _NO_MEMORY, status in _NOT_SUPPORTED


Multiply = Callable[[Sequence[int]], None]  # a product as a function of the addresses of a program's memories


class Cublas:
    """A handle for the device that is current when it is made, of this compute capability (90 for 9.0).

    All threads share the handle: whoever attaches it or multiplies holds its `lock`. It is never destroyed: that would
    wait for the device, which breaks a capture. A call that fails raises CublasError.
    """

    def __init__(self, library: Any, capability: int) -> None:
        self.lock = threading.RLock()
        self.context: Hashable = None  # the runtime's context of the stream that is attached
        self._workspace: Memory | None = None
        self._capability = capability
        self._library, self._handle = library, ctypes.c_void_p()
        _check("cublasCreate_v2", library.cublasCreate_v2(ctypes.byref(self._handle)))
        self._call("cublasSetMathMode")(_NO_REDUCED_PRECISION_REDUCTION)

    def attach(self, context: Hashable, stream: int, workspace: Memory) -> None:
        """Later products run on this stream, in a workspace of WORKSPACE bytes; both live as long as they are attached.

        cuBLAS gives the same bits from run to run where each stream has a workspace of its own. Without a workspace,
        each product that is captured would allocate some memory.
        """
        self.context = None
        self._call("cublasSetStream_v2")(stream)  # which detaches the workspace
        self._call("cublasSetWorkspace_v2")(workspace.ptr, WORKSPACE)
        self.context, self._workspace = context, workspace

    def detach(self) -> None:
        """Forget the stream and the workspace: whoever multiplies next attaches their own."""
        self.context = self._workspace = None

    def prepare(self, work: Product) -> Multiply:
        """Raises DeviceError if this version of cuBLAS, or the device, lacks the precision."""
        precision, gemm = _precision(work.dtype, work.precision), work.gemm
        if precision.capability:
            self._allow_emulation(work, precision)
        is_strided = not (work.by_pointers or work.single)
        name = "GemmStridedBatchedEx" if is_strided else "GemmBatchedEx" if work.by_pointers else "GemmEx"
        name = f"cublas{name}"
        op_a, op_b = _operation(gemm.transpose_a, gemm.conjugate_a), _operation(gemm.transpose_b, gemm.conjugate_b)
        alpha, beta = (_scalar(accumulator(work.dtype), number).ctypes.data for number in (1, int(gemm.accumulate)))
        leading_and_stride = (gemm.lda, gemm.stride_a), (gemm.ldb, gemm.stride_b), (gemm.ldc, gemm.stride_c)
        each = 3 if is_strided else 2  # numbers of a matrix
        a, b, c = ([_DATA_TYPES[work.dtype], *numbers][:each] for numbers in leading_and_stride)
        last = *([] if work.single else [gemm.batch]), precision.compute, _DEFAULT_ALGORITHM
        numbers = op_a, op_b, gemm.m, gemm.n, gemm.k, alpha, 0, *a, 0, *b, beta, 0, *c, *last
        # As C's once and for all: a call takes 0.8 us, and 1.65 where ctypes converts 20 Python numbers.
        arguments = [kind(number) for kind, number in zip(_ARGUMENTS[name], numbers, strict=True)]
        first, after_a = [self._handle, *arguments[:6]], arguments[7:][:each]
        after_b, after_c = arguments[8 + each :][: each + 1], arguments[10 + 2 * each :]
        (in_a, at_a), (in_b, at_b), (in_c, at_c) = work.addresses[:3]
        function = getattr(self._library, name)

        def launch(addresses: Sequence[int]) -> None:
            a, b, c = (
                _POINTER(addresses[in_a] + at_a),
                _POINTER(addresses[in_b] + at_b),
                _POINTER(addresses[in_c] + at_c),
            )
            _check(name, function(*first, a, *after_a, b, *after_b, c, *after_c))

        return launch

    def _allow_emulation(self, work: Product, precision: _Precision) -> None:
        """Refuse it where cuBLAS has none for the device."""
        version = ctypes.c_int()
        self._call("cublasGetVersion_v2")(ctypes.byref(version))
        wanted = f"precision={work.precision!r} of {work.dtype} needs"
        if version.value < precision.version:
            found = f"and this is {_version_text(version.value)}"
            raise DeviceError(f"{wanted} cuBLAS {_version_text(precision.version)}, {found}")
        if self._capability < precision.capability:
            needed, here = (f"{each // 10}.{each % 10}" for each in (precision.capability, self._capability))
            raise DeviceError(f"{wanted} a device of compute capability {needed}, and this has {here}")
        self._call("cublasSetEmulationStrategy")(_EMULATE_WHEREVER_POSSIBLE)

    def _call(self, name: str) -> Callable[..., None]:
        """A function of the library on this handle."""
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
        raise CublasError(name, status)


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
