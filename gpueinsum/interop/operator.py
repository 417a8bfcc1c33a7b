"""The operator as which torch.compile, torch.export and others that write programs down know a function of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd.function import _SingleLevelFunction

from gpueinsum.interop.functions import Function, Jvp, Vjp, from_text, to_text
from gpueinsum.interop.tensors import batched, device_of, run

_NAME = "gpueinsum::run"
torch.library.define(_NAME, "(str function, Tensor[] tensors) -> Tensor[]", tags=torch.Tag.pt2_compliant_tag)


def run_operator(function: Function, *tensors: Tensor) -> Sequence[Tensor]:
    """The function of tensors as one operator of torch's, with derivatives and batches that are such operators."""
    return torch.ops.gpueinsum.run(to_text(function), list(tensors))  # type: ignore[no-any-return]  # torch's


@torch.library.impl(_NAME, ("cpu", "cuda"))
def _run(function: str, tensors: list[Tensor]) -> list[Tensor]:
    return [result.contiguous() for result in run(from_text(function), *tensors)]  # as was promised without values


@torch.library.register_fake(_NAME)
def _without_values(function: str, tensors: list[Tensor]) -> list[Tensor]:
    device_of(tensors)  # refuses several
    shapes = from_text(function).shapes([tuple(tensor.shape) for tensor in tensors])
    return [tensors[0].new_empty(shape) for shape in shapes]


class _Node(_SingleLevelFunction):
    """The operator as torch derives it, also forward: torch.library.register_autograd would drop the tangents.

    Of a class for one layer of torch.func's, since an operator meets each layer by itself.
    """

    @staticmethod
    def forward(function: str, *tensors: Tensor) -> tuple[Tensor, ...]:
        with torch._C._AutoDispatchBelowAutograd():
            return tuple(torch.ops.gpueinsum.run(function, list(tensors)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.function, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        _, *needed = ctx.needs_input_grad
        wrt = tuple([position for position, is_needed in enumerate(needed) if is_needed])
        gradients = run_operator(Vjp(from_text(ctx.function), wrt), *ctx.saved_tensors, *cotangents)
        found = dict(zip(wrt, gradients, strict=True))
        return (None, *[found.get(position) for position in range(len(needed))])

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        moved = {position: tangent for position, tangent in enumerate(tangents) if tangent is not None}
        jvp = Jvp(from_text(ctx.function), tuple(moved))
        return tuple(run_operator(jvp, *ctx.saved_tensors, *moved.values()))


@torch.library.impl(_NAME, "Autograd")
def _derived(function: str, tensors: list[Tensor]) -> list[Tensor]:
    with enable_single_level_autograd_function():
        return list(_Node.apply(function, *tensors))


@torch.library.register_vmap(_NAME)
def _batch(info: Any, in_dims: tuple[Any, ...], function: str, tensors: list[Tensor]) -> tuple[list[Tensor], list[int]]:
    many, *moved = batched(from_text(function), tensors, in_dims[1])
    results = list(run_operator(many, *moved))
    return results, [0] * len(results)
