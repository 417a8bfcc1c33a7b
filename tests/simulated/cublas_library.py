"""The library of cuBLAS for the stand-in for CuPy: functions as ctypes calls them, and what they demand."""

import ctypes
import functools
import sys

import numpy as np

from gpueinsum.schedule.gemm import GemmArguments

OPERATION_N, OPERATION_T, OPERATION_C = 0, 1, 2  # cublasOperation_t
TYPES = {2: "float16", 14: "bfloat16", 0: "float32", 1: "float64", 4: "complex64", 5: "complex128"}


class FakeCublas:
    """cuBLAS as ctypes reaches it: its functions give a status, and the simulated device computes the products."""

    WORKSPACE = 32 << 20

    def __init__(self, simulated):
        self.simulated = simulated
        self.version = 130100
        self.statuses = []  # that the next calls of products return, instead of computing
        self.modes, self.attached = {}, {}  # of each handle; its stream and workspace
        self.calls = []  # of every product: dtype, compute type, math mode
        self.operations = []
        self.used = []  # handle, stream and workspace of every product that was queued
        for name, function in (
            ("cublasCreate_v2", self.create),
            ("cublasGetVersion_v2", self.get_version),
            ("cublasSetStream_v2", self.set_stream),
            ("cublasSetWorkspace_v2", self.set_workspace),
            ("cublasSetMathMode", self.set_mode),
            ("cublasSetEmulationStrategy", self.set_strategy),
            ("cublasGemmEx", functools.partial(self.queue, self.multiply_single, (6, 9, 13))),
            ("cublasGemmStridedBatchedEx", functools.partial(self.queue, self.multiply, (6, 10, 15))),
            ("cublasGemmBatchedEx", functools.partial(self.queue, self.multiply_by_pointers, (6, 9, 13))),
        ):
            setattr(self, name, Foreign(function))

    @property
    def stream(self):
        return sys.modules["cupy"].cuda.get_current_stream()

    def create(self, handle):
        assert self.stream.capture is None, "a handle is made while a stream captures"
        handle.value = 7 + len(self.modes)
        self.modes[handle.value] = 0
        return 0

    def get_version(self, handle, version):
        version.value = self.version
        return 0

    def set_stream(self, handle, stream):
        assert self.stream.capture is None, "a stream is set before it captures"
        self.attached[handle] = (stream, None)  # the workspace is the library's own again
        return 0

    def set_workspace(self, handle, workspace, nbytes):
        first, end = self.simulated.extent(workspace)
        assert (first, end - first) == (workspace, nbytes) == (first, self.WORKSPACE)
        self.attached[handle] = self.attached[handle][0], workspace
        return 0

    def set_mode(self, handle, mode):
        self.modes[handle] = mode
        return 0

    def set_strategy(self, handle, strategy):
        assert strategy == 2  # CUBLAS_EMULATION_STRATEGY_EAGER
        return 0

    def queue(self, multiply, places, handle, *numbers):
        stream, mode = self.stream, self.modes[handle]
        pointer, workspace = self.attached.get(handle, (None, None))
        if pointer != stream.ptr or workspace is None:
            return 7  # CUBLAS_STATUS_INVALID_VALUE: it would run on another stream, or in memory that others use
        if self.statuses:
            return self.statuses.pop(0)
        self.used.append((handle, pointer, workspace))
        needed = [workspace, *[numbers[place] for place in places]]
        owners = self.simulated.owners(*needed)  # which live, and which a graph does not keep alive
        stream.do(lambda: multiply(mode, *numbers), *owners)
        return 0

    def multiply(
        self, mode, transa, transb, m, n, k, alpha, a, a_type, lda, stride_a, b, b_type, ldb, stride_b,
        beta, c, c_type, ldc, stride_c, batch, compute_type, algo,
    ):  # fmt: skip
        adds = self.checked(mode, a_type, b_type, c_type, alpha, beta, compute_type, algo, transa, transb)
        gemm = GemmArguments(
            *(transa != OPERATION_N, transb != OPERATION_N, m, n, k, lda, ldb, ldc),
            *(batch, stride_a, stride_b, stride_c, adds),
            *(transa == OPERATION_C, transb == OPERATION_C),
        )
        self.simulated.gemm(gemm, TYPES[a_type], a, b, c, None)

    def multiply_single(
        self, mode, transa, transb, m, n, k, alpha, a, a_type, lda, b, b_type, ldb,
        beta, c, c_type, ldc, compute_type, algo,
    ):  # fmt: skip
        matrices = a, a_type, lda, 0, b, b_type, ldb, 0, beta, c, c_type, ldc, 0
        self.multiply(mode, transa, transb, m, n, k, alpha, *matrices, 1, compute_type, algo)

    def multiply_by_pointers(
        self, mode, transa, transb, m, n, k, alpha, a, a_type, lda, b, b_type, ldb,
        beta, c, c_type, ldc, batch, compute_type, algo,
    ):  # fmt: skip
        adds = self.checked(mode, a_type, b_type, c_type, alpha, beta, compute_type, algo, transa, transb)
        gemm = GemmArguments(
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


class Foreign:
    """A function as ctypes calls it: numbers become the types that it was told of, or 32-bit integers."""

    def __init__(self, function):
        self.function, self.argtypes = function, []

    def __call__(self, *arguments):
        assert not self.argtypes or len(arguments) == len(self.argtypes)
        types = self.argtypes or [ctypes.c_int] * len(arguments)
        return self.function(*[self.passed(*each) for each in zip(types, arguments, strict=True)])

    @staticmethod
    def passed(kind, argument):
        if isinstance(argument, int):
            argument = kind(argument)
        return argument._obj if hasattr(argument, "_obj") else argument.value or 0


def _memory(address, dtype):
    return ctypes.string_at(address, np.dtype(dtype).itemsize)
