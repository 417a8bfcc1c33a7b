"""Operands of other libraries (torch, JAX, whatever has array-API names): which library answers a call with its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from gpueinsum.api.arguments import Array, Expression, Options
from gpueinsum.errors import OperandError
from gpueinsum.language.plan import Plan

Asked = Expression | Plan
_PLAIN = (np.ndarray, np.generic, int, float, complex, list, tuple)


class Library(Protocol):
    """What answers calls with arrays of one other library. Results are arrays of that library."""

    @property
    def name(self) -> str: ...

    def unwrap(self, operand: Any) -> Any:
        """An array of numpy's or CuPy's in the memory of one of the library's; anything else as it is."""

    def is_followed(self, operands: Sequence[Any]) -> bool:
        """Whether the library follows what becomes of these operands: their gradients, a program."""

    def call(self, function: Callable[..., Any], *operands: Any) -> Any:
        """A function of numpy's or CuPy's arrays, called with what these operands hold."""

    def evaluate(self, expression: Expression, operands: Sequence[Any], out: Array | None, options: Options) -> Any:
        """`dispatch.evaluate`."""

    def evaluate_plan(self, plan: Plan, operands: Sequence[Any], options: Options) -> Any:
        """`dispatch.evaluate_plan`."""

    def vjp(self, asked: Asked, operands: Sequence[Any], wrt: Any, options: Options, memory_limit: Any) -> Any:
        """`derivatives.evaluate_vjp`."""

    def jvp(self, asked: Asked, operands: Sequence[Any], tangents: Sequence[Any], options: Options) -> Any:
        """`derivatives.evaluate_jvp`."""


def library_of(operands: Sequence[Any]) -> Library | None:
    """The library, neither numpy nor CuPy, whose arrays are among the operands. Raises OperandError for two of them.

    Its module is imported here, upward: those who have not the library never need it.
    """
    tensor, cupys = _class("torch", "Tensor"), _class("cupy", "ndarray")
    found: dict[Any, int] = {}  # torch by None, others by their array-API names; the first operand of each
    for number, operand in enumerate(operands):
        if isinstance(operand, tensor):
            found.setdefault(None, number)
        elif hasattr(operand, "__array_namespace__") and not isinstance(operand, (*_PLAIN, cupys)):
            found.setdefault(operand.__array_namespace__(), number)
    if not found:
        return None
    if len(found) > 1:
        whose = [f"operand {k} of {'torch' if kind is None else kind.__name__}" for kind, k in found.items()]
        raise OperandError(f"{' and '.join(whose)}: convert some to the library of the others (by from_dlpack)")
    if None in found:
        from gpueinsum.interop.torch import TORCH

        return TORCH
    from gpueinsum.interop.arrays import array_library

    return array_library(*found)


def _class(module: str, name: str) -> type | tuple[()]:
    """What `isinstance` asks for: a class of a library if that is there, else nothing."""
    return getattr(sys.modules.get(module), name, ())
