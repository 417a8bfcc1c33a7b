"""Pullbacks of tensors that torch follows, and what they and tangents must be like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gpueinsum.api.arguments import dtype_of
from gpueinsum.errors import DtypeError, OperandError
from gpueinsum.interop.functions import Function, function_of_cotangents, passes_of
from gpueinsum.interop.nodes import apply
from gpueinsum.interop.tensors import as_tensor, backend_on, can_cast, device_of, ordered
from gpueinsum.language.plan import Plan
from gpueinsum.language.subscripts import Shape


@dataclass(repr=False, eq=False, slots=True)
class FollowedPullback:
    """`gpueinsum.Pullback` of tensors that are followed: so are the gradients, by operands and cotangents."""

    _function: Function
    _tensors: Sequence[Tensor]
    _wrt: tuple[int, ...]
    _dtypes: Sequence[torch.dtype]
    _order: str | None

    @property
    def plan(self) -> Plan:
        """Both passes as one plan: from operands and cotangents to values and gradients."""
        device = device_of(self._tensors)
        operands = tuple([(tuple(tensor.shape), dtype_of(tensor.dtype)) for tensor in self._tensors])
        return passes_of(self._function, operands, self._wrt, backend_on(device)).plan

    @property
    def nbytes(self) -> int:
        """Bytes of the operands, which are kept."""
        return sum(tensor.nbytes for tensor in self._tensors)

    def __call__(self, cotangent: Any) -> tuple[Tensor, ...]:
        """The gradients, as those of `gpueinsum.Pullback`."""
        like, inputs = self._tensors[0], [tuple(tensor.shape) for tensor in self._tensors]

        def fitted(given: Any, name: str, shape: Shape) -> Tensor:
            return fit(given, name, "the value", shape, like, can_be_batch=True).to(like.dtype)

        pull = function_of_cotangents(self._function, self._wrt, inputs, cotangent, fitted, like.new_zeros)
        gradients = apply(pull[0], *self._tensors, *pull[1])
        cast = [_cast(x, self._dtypes[k]) for x, k in zip(gradients, self._wrt, strict=True)]
        return tuple([ordered(gradient, self._order, self._tensors) for gradient in cast])


def _cast(gradient: Tensor, dtype: torch.dtype) -> Tensor:
    """The gradient in its operand's dtype: for a real operand of a complex expression its real part."""
    return (gradient.real if gradient.is_complex() and not dtype.is_complex else gradient).to(dtype)


def fit(given: Any, name: str, owner: str, shape: Shape, like: Tensor, can_be_batch: bool = False) -> Tensor:
    """A tangent or cotangent as a tensor, of the shape that it must be, of a dtype that becomes that of `like`."""
    tensor = as_tensor(given, name, like.device, like)
    if tuple(tensor.shape) != shape and not (can_be_batch and tensor.ndim and tuple(tensor.shape[1:]) == shape):
        raise OperandError(f"{name} has shape {tuple(tensor.shape)}, but {owner} has {tuple(shape)}")
    if not can_cast(tensor.dtype, like.dtype, "same_kind"):
        raise DtypeError(f"{name} is {dtype_of(tensor.dtype)}, but {owner} is {dtype_of(like.dtype)}")
    return tensor
