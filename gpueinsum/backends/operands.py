"""Operands as callers pass them: whether they live on a GPU, and numpy's view of those that do not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from gpueinsum.errors import OperandError


def on_device(operand: object) -> bool:
    """Whether an operand lives on a GPU, whichever library made it."""
    if type(operand) is np.ndarray or isinstance(operand, np.generic | int | float | complex | list | tuple):
        return False
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(operand, cupy.ndarray):
        return True
    where: Callable[[], tuple[int, int]] | None = getattr(operand, "__dlpack_device__", None)
    if where is not None:
        try:
            return where()[0] in (2, 13)  # DLPack's kDLCUDA and kDLCUDAManaged
        except BufferError:  # an array of JAX's on several devices, which the host gathers
            return False
    return hasattr(operand, "__cuda_array_interface__")


def host_array(operand: object) -> np.ndarray[Any, Any]:
    """numpy's view of an operand: an array, a number, nested lists, or whatever offers DLPack."""
    if type(operand) is np.ndarray:
        return operand
    if hasattr(operand, "__dlpack__") and not hasattr(operand, "__array__"):
        return np.from_dlpack(operand)
    array = np.asarray(operand)
    is_wrapped = array.dtype == object and array.ndim == 0 and not isinstance(operand, np.ndarray)
    if is_wrapped and (hasattr(operand, "shape") or not hasattr(operand, "__mul__")):  # a sparse matrix; None
        convert = ": convert it first (x.toarray())" if hasattr(operand, "toarray") else ""
        raise OperandError(f"a {type(operand).__name__} is no array of numbers{convert}")
    return array
