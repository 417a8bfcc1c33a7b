"""The operator as which torch.compile, torch.export and others that write programs down know a function of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gpueinsum.interop.functions import Function, Vjp, from_text, to_text
from gpueinsum.interop.tensors import batched, device_of, run


def run_operator(function: Function, *tensors: Tensor) -> Sequence[Tensor]:
    """The function of tensors as one operator of torch's, with derivatives and batches that are such operators."""
    return _operator(to_text(function), list(tensors))  # type: ignore[no-any-return]  # torch's


def _run(function: str, tensors: list[Tensor]) -> list[Tensor]:
    return [result.contiguous() for result in run(from_text(function), *tensors)]  # as was promised without values


_operator = torch.library.custom_op(
    "gpueinsum::run", _run, mutates_args=(), schema="(str function, Tensor[] tensors) -> Tensor[]"
)


@_operator.register_fake
def _without_values(function: str, tensors: list[Tensor]) -> list[Tensor]:
    device_of(tensors)  # refuses several
    shapes = from_text(function).shapes([tuple(tensor.shape) for tensor in tensors])
    return [tensors[0].new_empty(shape) for shape in shapes]


def _keep(ctx: Any, inputs: tuple[str, list[Tensor]], output: list[Tensor]) -> None:
    ctx.function, tensors = inputs
    ctx.save_for_backward(*tensors)


def _pull(ctx: Any, cotangents: list[Tensor]) -> tuple[None, list[Tensor | None]]:
    tensors = ctx.saved_tensors
    wrt = tuple([k for k, tensor in enumerate(tensors) if ctx.needs_input_grad[1][k]])
    gradients = run_operator(Vjp(from_text(ctx.function), wrt), *tensors, *cotangents)
    found = dict(zip(wrt, gradients, strict=True))
    return None, [found.get(position) for position in range(len(tensors))]


_operator.register_autograd(_pull, setup_context=_keep)


@_operator.register_vmap
def _batch(info: Any, in_dims: tuple[Any, ...], function: str, tensors: list[Tensor]) -> tuple[list[Tensor], list[int]]:
    many, *moved = batched(from_text(function), tensors, in_dims[1])
    results = list(run_operator(many, *moved))
    return results, [0] * len(results)
