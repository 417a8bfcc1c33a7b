"""`torch.einsum`'s drop-in: its arguments, forms and results, with gradients within a limit of memory."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gpueinsum.api.arguments import Options, hashable_form
from gpueinsum.interop.torch import TORCH


def einsum(equation: Any, *operands: Any, memory_limit: int | str | None = None, **options: Any) -> Tensor:
    """`torch.einsum(equation, *operands)`, or `torch.einsum(x, [0, 1], y, [1, 2], [0, 2])`.

    `gpueinsum.einsum` gives the same of tensors. This one takes the operands in a list, too, as torch does, and

    Args:
        memory_limit: Bytes, as a number, as "4GiB", or as "80%" of the device's, for the intermediates, value and
            gradients of both passes together. What of the forward pass does not fit is computed again in the backward
            pass.
        options: Those of `gpueinsum.einsum` but for `out`.

    Raises what `gpueinsum.einsum` raises, and PlanError if no plan keeps to the limit.
    """
    if len(operands) == 1 and isinstance(operands[0], list | tuple) and isinstance(equation, str):
        [operands] = operands
    expression, tensors = hashable_form(equation, operands)
    return TORCH.evaluate_within(memory_limit, expression, tensors, None, Options(**options).check())
