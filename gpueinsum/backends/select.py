"""What runs a plan: numpy on the CPU, CuPy on CUDA; and which of them a call's operands ask for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from gpueinsum.backends.base import Array, Backend
from gpueinsum.backends.cpu import pool
from gpueinsum.backends.cpu.backend import CpuBackend
from gpueinsum.backends.operands import on_device
from gpueinsum.errors import DeviceError, DtypeError, OperandError

if TYPE_CHECKING:
    from gpueinsum.backends.cuda.backend import CudaBackend

HOST = CpuBackend()
_NUMPY = {np.ndarray}


def backend_and_arrays(requested: str | None, operands: Sequence[object]) -> tuple[Backend, Sequence[Array]]:
    """The backend that `backend_for` chooses for these operands, and the operands as `Backend.check` gives them.

    Raises OperandError and DtypeError, which name the operand.
    """
    if requested is None and set(map(type, operands)) == _NUMPY:
        return HOST, operands  # most calls
    backend = backend_for(requested, operands)
    return backend, [_named(backend.check, f"operand {number}", operand) for number, operand in enumerate(operands)]


def kinds_on_device(operands: Sequence[object]) -> list[Any]:
    """`CudaBackend.kinds` of plain arrays of CuPy's; nothing for any other operands."""
    cupy = sys.modules.get("cupy")
    if cupy is None:  # without it there are no such operands
        return []
    return cuda_backend().kinds(operands) if set(map(type, operands)) == {getattr(cupy, "ndarray", None)} else []


def as_array(backend: Backend, name: str, operand: object) -> Array:
    """An operand of a call as the backend's array. Raises OperandError and DtypeError, which name it."""
    return _named(backend.asarray, name, operand)


def _named(convert: Callable[[object], Array], name: str, operand: object) -> Array:
    try:
        return convert(operand)
    except (DtypeError, OperandError) as error:
        raise type(error)(f"{name}: {error}") from error
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(operand, list | tuple) and any(hasattr(part, "shape") for part in operand):
            kind = type(operand).__name__
            raise OperandError(f"{name} is a {kind} of arrays: operands are passed one by one, *operands") from error
        raise OperandError(f"{name} is no array: {error}") from error


def backend_for(requested: str | None, operands: Sequence[object]) -> Backend:
    """The backend for these operands: where they live, unless the caller requests another.

    Raises OperandError for operands that live on both, DeviceError for CUDA where there is none, ValueError for
    a backend of another name.
    """
    if requested not in (None, "cpu", "cuda"):
        raise ValueError(f"backend={requested!r} is none of None, 'cpu' and 'cuda'")
    device = [number for number, operand in enumerate(operands) if on_device(operand)]
    if requested == "cpu" and device:
        raise OperandError(
            f"operand {device[0]} is on a GPU: bring it back first (x.get() in CuPy), or leave backend out"
        )
    if requested == "cuda":
        return cuda_backend()
    if not device:
        return HOST
    for number, operand in enumerate(operands):
        if isinstance(operand, np.ndarray) and number not in device:
            raise OperandError(
                f"operand {number} is a numpy array but operand {device[0]} is on a GPU: "
                "move one of them (cupy.asarray(x) or x.get()), or pass backend='cuda' to compute on the GPU"
            )
    return cuda_backend()


@lru_cache(maxsize=1)
def cuda_backend() -> CudaBackend:
    """The CUDA backend. Raises DeviceError, saying what is missing, where there is none."""
    from gpueinsum.backends.cuda.backend import CudaBackend
    from gpueinsum.backends.cuda.runtime import CupyRuntime

    return CudaBackend(CupyRuntime())


def free_memory() -> int:
    """Give back the memory that is kept for later calls; how many bytes that was.

    On the CPU results leave an eighth of the memory of the machine or of its control group to later ones, but at most
    256 MiB. The environment variable GPUEINSUM_POOL sets another limit (`500MB`, `2GiB`); 0 turns the pool off. On a
    GPU, CUDA graphs and cuBLAS keep what they work in; it goes back to CuPy's memory pool.

    >>> free_memory() >= 0
    True
    """
    on_device = cuda_backend().free_memory() if cuda_backend.cache_info().currsize else 0
    return pool.free_memory() + on_device


def array_module() -> Any:
    """CuPy where a GPU can be used, else numpy, so that one script runs in both places.

    >>> xp = array_module()
    >>> float(xp.ones(3).sum())
    3.0
    """
    try:
        cuda_backend()
    except DeviceError:
        return np
    import cupy

    return cupy
