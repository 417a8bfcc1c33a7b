"""Functions of tensors as nodes of torch's graph; the gradients of a node are a node again, where they are followed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from gpueinsum.api.derivative_dispatch import BothPasses
from gpueinsum.api.dispatch import signature
from gpueinsum.interop.functions import Function, Jvp, Vjp, passes_of
from gpueinsum.interop.operator import run_operator
from gpueinsum.interop.tensors import array_of, backend_on, batched, device_of, on, result_of, run, tensor_of

_PLAIN = {Tensor, torch.nn.Parameter}
# What torch itself asks before it applies a function; True, the slower way, if a release has no such names.
_is_transforming = getattr(torch._C, "_are_functorch_transforms_active", lambda: True)
_modes = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 0)
_is_tracing = getattr(torch._C, "_is_tracing", lambda: False)
_is_batched = getattr(torch._C._functorch, "is_legacy_batchedtensor", lambda tensor: False)
_LEVEL = 1  # of the batches that torch.autograd makes, which it does not nest


def follower(tensors: Sequence[Tensor]) -> Callable[..., Sequence[Tensor]] | None:
    """Who follows what becomes of these tensors: applies a function to them. None if their values are all.

    torch.func and forward-mode differentiation look at tensors through others, but in a program of torch.compile's.
    """
    if torch.compiler.is_compiling():
        return run_operator
    if _is_transforming() or getattr(forward_ad, "_current_level", 0) >= 0:
        return _apply_transformed
    if _is_written_down(tensors):
        return run_operator
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor.requires_grad:
                return _apply
    return None


def _is_written_down(tensors: Sequence[Tensor]) -> bool:
    """Whether what is computed is a program, to be run later or elsewhere, in which only operators of torch are.

    So it is under modes and torch.jit.trace, and for tensors without values and for subclasses.
    """
    return bool(_modes()) or _is_tracing() or tensors[0].is_meta or not _PLAIN.issuperset(map(type, tensors))


def apply(function: Function, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The function of tensors, followed by whoever follows them."""
    if not torch.compiler.is_compiling() and any(map(_is_batched, tensors)):
        return _apply_batched(function, tensors)
    return tuple((follower(tensors) or run)(function, *tensors))


def _apply_batched(function: Function, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The function where torch.autograd passes batches: `is_grads_batched=True`, `jacobian(..., vectorize=True)`."""
    dims = [0 if _is_batched(tensor) else None for tensor in tensors]
    whole = [
        tensor if dim is None else torch._remove_batch_dim(tensor, _LEVEL, 1, dim)
        for tensor, dim in zip(tensors, dims, strict=True)
    ]
    return tuple([torch._add_batch_dim(result, 0, _LEVEL) for result in apply(*batched(function, whole, dims))])


def _apply(function: Function, *tensors: Tensor) -> tuple[Tensor, ...]:
    wrt = tuple([k for k, tensor in enumerate(tensors) if tensor.requires_grad])
    return _Node.apply(function, wrt, *tensors)  # type: ignore[no-any-return]  # torch's


def _apply_transformed(function: Function, *tensors: Tensor) -> tuple[Tensor, ...]:
    return _TransformedNode.apply(function, *tensors)  # type: ignore[no-any-return]  # torch's


class _Node(torch.autograd.Function):
    """A call whose backward pass uses what the forward pass kept; computed anew where the gradients are followed."""

    @staticmethod
    def forward(ctx: Any, function: Function, wrt: tuple[int, ...], *tensors: Tensor) -> tuple[Tensor, ...]:
        device = device_of(tensors)
        backend = backend_on(device)
        with on(device):
            arrays = list(map(array_of, tensors))
            passes = passes_of(function, signature(arrays), wrt, backend)
            outputs = passes.forward.run(*passes.forward.cast(arrays))
            kept = len(passes.kept)
            intermediates = [
                tensor_of(array) for position, array in zip(passes.kept, outputs, strict=False) if position is None
            ]
            values = tuple([result_of(value, passes.forward.result) for value in outputs[kept:]])
        ctx.function, ctx.wrt, ctx.passes = function, wrt, passes
        ctx.unread = {k: (x.shape, x.dtype, device) for k, x in enumerate(tensors) if k not in passes.reads}
        ctx.save_for_backward(*[tensors[position] for position in passes.reads], *intermediates)
        return values

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        passes, wrt = ctx.passes, ctx.wrt
        reads, saved = len(passes.reads), ctx.saved_tensors  # once: who unpacks them may allow no second time
        given, intermediates = saved[:reads], saved[reads:]
        operands = dict(zip(passes.reads, given, strict=True))
        if torch.is_grad_enabled() or any(map(_is_batched, cotangents)):  # the gradients are followed
            operands |= {position: _any(*like) for position, like in ctx.unread.items()}
            tensors = [operands[position] for position in range(len(operands))]
            gradients = apply(Vjp(ctx.function, wrt), *tensors, *cotangents)
        else:
            gradients = _pull(passes, operands, intermediates, cotangents)
        found = dict(zip(wrt, gradients, strict=True))
        return (None, None, *[found.get(position) for position in range(reads + len(ctx.unread))])


def _any(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    """In the place of a tensor whose values nothing reads."""
    return torch.zeros((), dtype=dtype, device=device).expand(shape)


def _pull(
    passes: BothPasses, operands: Mapping[int, Tensor], intermediates: Sequence[Tensor], cotangents: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    device = device_of(cotangents)
    with on(device):
        left = iter(map(array_of, intermediates))
        kept = [next(left) if position is None else array_of(operands[position]) for position in passes.kept]
        arrays = [*map(array_of, cotangents)]
        backward = passes.pull(arrays)
        gradients = backward.run(*backward.cast([*arrays, *kept]))
        return tuple([result_of(gradient, dtype) for gradient, dtype in zip(gradients, passes.dtypes, strict=True)])


class _TransformedNode(torch.autograd.Function):
    """A call under torch.func or forward-mode differentiation: each derivative and each batch is a function, too."""

    @staticmethod
    def forward(function: Function, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple((run_operator if _is_written_down(tensors) else run)(function, *tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.function, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)  # what has no tangent costs nothing

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        _, *needed = ctx.needs_input_grad
        if all(cotangent is None for cotangent in cotangents):
            return (None,) * len(ctx.needs_input_grad)
        tensors = ctx.saved_tensors
        shapes = ctx.function.shapes([tensor.shape for tensor in tensors])
        given = [
            tensors[0].new_zeros(shape) if cotangent is None else cotangent
            for cotangent, shape in zip(cotangents, shapes, strict=True)
        ]
        wrt = tuple([position for position, is_needed in enumerate(needed) if is_needed])
        gradients = apply(Vjp(ctx.function, wrt), *tensors, *given)
        found = dict(zip(wrt, gradients, strict=True))
        return (None, *[found.get(position) for position in range(len(needed))])

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Sequence[Tensor]:
        moved = {position: tangent for position, tangent in enumerate(tangents) if tangent is not None}
        return apply(Jvp(ctx.function, tuple(moved)), *ctx.saved_tensors, *moved.values())

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], function: Function, *tensors: Tensor
    ) -> tuple[Sequence[Tensor], tuple[int, ...]]:
        results = apply(*batched(function, tensors, in_dims[1:]))
        return results, (0,) * len(results)
