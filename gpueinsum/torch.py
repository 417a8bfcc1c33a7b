"""`torch.einsum`'s drop-in: its forms and results, with gradients within a limit of memory."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gpueinsum.api.arguments import Options, hashable_form
from gpueinsum.interop.torch import TORCH
from gpueinsum.planning.path import Optimize


def einsum(
    equation: Any,
    *operands: Any,
    optimize: Optimize = "auto",
    precision: str | None = None,
    deterministic: bool = False,
    memory_limit: int | str | None = None,
) -> Tensor:
    """`torch.einsum(equation, *operands)`, or `torch.einsum(x, [0, 1], y, [1, 2], [0, 2])`.

    The operands may also come in one list. `gpueinsum.einsum` gives the same of tensors but for that and for

    Args:
        memory_limit: As in `gpueinsum.vjp`: for each pass, and all that is kept for the other.
        optimize, precision, deterministic: As in `gpueinsum.einsum`.

    Raises what `gpueinsum.einsum` raises, and PlanError if no plan keeps to the limit.

    >>> import torch
    >>> einsum("ij,jk->ik", torch.ones(2, 3), torch.ones(3, 2))
    tensor([[3., 3.],
            [3., 3.]])
    """
    if isinstance(equation, str) and len(operands) == 1 and isinstance(operands[0], list | tuple):
        [operands] = operands
    expression, tensors = hashable_form(equation, operands)
    options = Options(optimize=optimize, precision=precision, deterministic=deterministic, memory_limit=memory_limit)
    result: Tensor = TORCH.evaluate(expression, tensors, None, options.check())
    return result
