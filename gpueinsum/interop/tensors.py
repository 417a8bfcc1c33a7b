"""torch's tensors as numpy's or CuPy's arrays and back, in the same memory; on a GPU on torch's device and stream."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from gpueinsum.api.arguments import Array, Dtype, dtype_of
from gpueinsum.api.dispatch import signature
from gpueinsum.backends.base import Backend
from gpueinsum.backends.select import HOST, cuda_backend
from gpueinsum.errors import DtypeError, OperandError
from gpueinsum.interop.functions import Batch, Function, call_of

_Decision = TypeVar("_Decision", bound=Callable[..., Any])
_here = contextlib.nullcontext()
_owners: WeakValueDictionary[int, Tensor] = WeakValueDictionary()  # what torch allocated for CuPy, by its address


def array_of(tensor: Tensor) -> Array:
    """What a tensor holds, as an array in its memory; a copy of what is to be conjugated or negated when it is read."""
    if tensor.layout is not torch.strided:
        raise OperandError(f"a tensor of layout {tensor.layout} is no dense array: convert it first (x.to_dense())")
    if tensor.dtype is torch.bfloat16:
        return array_of(tensor.detach().view(torch.int16)).view(dtype_of("bfloat16"))
    if not tensor.is_cpu:
        return cuda_backend().asarray(tensor.detach().resolve_conj().resolve_neg())
    try:
        return tensor.numpy(force=True)  # detached and resolved
    except TypeError as error:
        raise DtypeError(f"tensors of dtype {tensor.dtype} cannot be computed with: convert it first") from error


def tensor_of(array: Array) -> Tensor:
    """What an array of numpy's or CuPy's holds, or a scalar, as a tensor; in torch's own storage if it lies there."""
    if type(array) is np.ndarray and array.dtype.kind != "V":
        return torch.from_numpy(array)
    owner = None if isinstance(array, np.ndarray | np.generic) else _owners.get(array.data.mem.ptr)
    if owner is not None:
        item, offset = array.itemsize, array.data.ptr - array.data.mem.ptr
        strides = [stride // item for stride in array.strides]
        empty = torch.empty(0, dtype=getattr(torch, array.dtype.name), device=owner.device)
        return empty.set_(owner.untyped_storage(), offset // item, array.shape, strides)
    if array.dtype.kind == "V":  # ml_dtypes' bfloat16
        return tensor_of(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.asarray(array)) if isinstance(array, np.generic) else torch.from_dlpack(array)


def as_tensor(operand: Any, name: str, device: torch.device, beside: Tensor | None = None) -> Tensor:
    """An operand, of whatever kind, as a tensor, on this device if it is none; a number as it counts beside a tensor.

    numpy's arrays are copied: nobody would know that they were changed while autograd keeps them. Raises OperandError.
    """
    if isinstance(operand, Tensor):
        return operand
    if torch.compiler.is_compiling():  # which knows numpy's arrays as its own
        return _number_or_list(operand, device, beside)
    try:
        if isinstance(operand, np.ndarray | np.generic):
            return tensor_of(np.array(operand, operand.dtype.newbyteorder("="), order="C")).to(device)
        if hasattr(operand, "__dlpack__"):
            return torch.from_dlpack(operand).to(device)
        return _number_or_list(operand, device, beside)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise OperandError(f"{name} is no array: {error}") from error


def _number_or_list(operand: Any, device: torch.device, beside: Tensor | None) -> Tensor:
    dtype = None
    if beside is not None and isinstance(operand, int | float | complex):
        dtype = _dtype_beside(beside.dtype, operand)
    return torch.as_tensor(operand, dtype=dtype, device=device)


def decided_once(function: _Decision) -> _Decision:
    """A function of constants, which a program that is written down need not call again.

    It is torch.compiler.assume_constant_result without the import of torch.compile's modules, which take 2 s.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]  # torch's
    return function


@decided_once
def can_cast(source: torch.dtype, target: torch.dtype, casting: Any) -> bool:
    """By numpy's rules."""
    return np.can_cast(dtype_of(source), dtype_of(target), casting)


@decided_once
def _dtype_beside(dtype: torch.dtype, number: complex) -> torch.dtype:
    """A number's dtype in an operation with a tensor."""
    return torch.result_type(torch.empty(0, dtype=dtype), number)


@decided_once
def numpy_dtype(dtype: torch.dtype) -> Dtype:
    return dtype_of(dtype)


def unwrap(operand: Any) -> Any:
    """An operand, an array in the place of a tensor."""
    return array_of(operand) if isinstance(operand, Tensor) else operand


def wrap(results: Any) -> Any:
    """Results, a tensor in the place of each array."""
    if isinstance(results, tuple):
        return tuple(map(wrap, results))
    return tensor_of(results) if hasattr(results, "dtype") else results


def device_of(tensors: Sequence[Tensor]) -> torch.device:
    """The device of all tensors. Raises OperandError if there are several."""
    device = tensors[0].device
    for number, tensor in enumerate(tensors):
        if tensor.device != device:
            raise OperandError(
                f"operand {number} is on {tensor.device}, but operand 0 is on {device}: move one of them (x.to(device))"
            )
    return device


def backend_on(device: torch.device) -> Backend:
    return HOST if _is_host(device) else cuda_backend()


@cache
def _is_host(device: torch.device) -> bool:
    """Whether it is a CPU, or CUDA's. Raises OperandError for others."""
    if device.type not in ("cpu", "cuda"):
        raise OperandError(f"tensors on {device} cannot be computed with: move them to a CPU or to CUDA (x.to(device))")
    return bool(device.type == "cpu")


def on(device: torch.device) -> AbstractContextManager[None]:
    """CUDA's work goes to torch's current stream, and its memory comes from torch's allocator, as tensors' does."""
    if _is_host(device):
        return _here
    stream = torch.cuda.current_stream(device)
    return cuda_backend().runtime.borrowing(stream.device_index, stream.cuda_stream, _allocate)


def _allocate(nbytes: int) -> tuple[int, Tensor]:
    """So many bytes of the current device from torch: their address, and what owns them."""
    owner = torch.empty(nbytes, dtype=torch.uint8, device="cuda")
    address = owner.data_ptr()
    if nbytes:
        _owners[address] = owner
    return address, owner


def run(function: Function, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The function of tensors, followed by nobody."""
    device = device_of(tensors)
    backend = backend_on(device)
    with on(device):
        arrays = list(map(array_of, tensors))
        call = call_of(function, signature(arrays), backend)
        return tuple([result_of(result, call.result) for result in call.run(*call.cast(arrays))])


def result_of(array: Array, dtype: Dtype | None) -> Tensor:
    """An output as a tensor, of this dtype if one is given."""
    return tensor_of(array if dtype is None or dtype == array.dtype else array.astype(dtype))


def ordered(result: Tensor, order: str | None, tensors: Sequence[Tensor]) -> Tensor:
    """The result as it is, in C or F order, or in that of these tensors."""
    if order in ("K", "k", None):
        return result
    is_fortran = (
        all(_reversed(tensor).is_contiguous() for tensor in tensors) if order in ("A", "a") else order in ("F", "f")
    )
    return _reversed(_reversed(result).contiguous()) if is_fortran else result.contiguous()


def _reversed(tensor: Tensor) -> Tensor:
    return tensor.permute([*range(tensor.ndim)][::-1])


def batched(function: Function, tensors: Sequence[Tensor], dims: Sequence[int | None]) -> tuple[Any, ...]:
    """A function of tensors of which some have an axis for a batch: that of a whole batch, and its tensors."""
    positions = tuple([position for position, dim in enumerate(dims) if dim is not None])
    moved = [tensor if dim is None else tensor.movedim(dim, 0) for tensor, dim in zip(tensors, dims, strict=True)]
    return Batch(function, positions), *moved
