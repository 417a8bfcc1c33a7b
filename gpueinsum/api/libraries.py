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

    def promote(self, operands: Sequence[Any], options: Options) -> Options:
        """The options, with a dtype if the operands must be cast: by the library's rules. Raises DtypeError."""

    def call(self, function: Callable[..., Any], *operands: Any) -> Any:
        """A function of numpy's or CuPy's arrays, called with what these operands hold."""

    def evaluate(self, expression: Expression, operands: Sequence[Any], out: Array | None, options: Options) -> Any:
        """`dispatch.evaluate`."""

    def evaluate_plan(self, plan: Plan, operands: Sequence[Any], options: Options) -> Any:
        """`dispatch.evaluate_plan`."""

    def vjp(self, asked: Asked, operands: Sequence[Any], wrt: Any, options: Options) -> Any:
        """`derivatives.evaluate_vjp`."""

    def jvp(self, asked: Asked, operands: Sequence[Any], tangents: Sequence[Any], options: Options) -> Any:
        """`derivatives.evaluate_jvp`."""


def library_of(operands: Sequence[Any], wanted: str | None = None) -> Library | None:
    """The library, neither numpy nor CuPy, whose arrays are among the operands. Raises OperandError for two of them.

    `wanted` is opt_einsum's `backend`: with "numpy" it is none, and for "torch" or "jax" another one is refused.
    """
    if wanted in ("numpy", "object") or set(map(type, operands)) == {np.ndarray}:
        return None
    tensor, cupys = _class("torch", "Tensor"), _class("cupy", "ndarray")
    found: dict[str, tuple[int, Any]] = {}  # by name the first operand of each, and its array-API names
    for number, operand in enumerate(operands):
        if isinstance(operand, tensor):
            found.setdefault("torch", (number, None))
        elif hasattr(operand, "__array_namespace__") and not isinstance(operand, (*_PLAIN, cupys)):
            namespace = operand.__array_namespace__()
            found.setdefault(_NAMES.get(namespace.__name__, namespace.__name__), (number, namespace))
    if not found:
        return None
    if len(found) > 1:
        whose = " and ".join([f"operand {number} of {name}" for name, (number, _) in found.items()])
        raise OperandError(f"{whose}: convert some to the library of the others (by from_dlpack)")
    [(name, (number, namespace))] = found.items()
    if wanted in ("torch", "jax") and name != wanted:
        message = f"backend={wanted!r} does not take operand {number} of {name}"
        raise OperandError(f"{message}: leave it out, or convert (by from_dlpack)")
    return library_named(name, namespace)


def library_named(name: str, namespace: Any = None) -> Library:
    """The library of this name, or with these array-API names.

    Its module is imported here, upward: those who have not the library never need it.
    """
    match name:
        case "torch":
            from gpueinsum.interop.torch import TORCH

            return TORCH
        case "jax":
            from gpueinsum.interop.jax import JAX

            return JAX
    from gpueinsum.interop.arrays import array_library

    return array_library(namespace)


_NAMES = {"jax.numpy": "jax"}  # where the array-API names are elsewhere


def _class(module: str, name: str) -> type | tuple[()]:
    """What `isinstance` asks for: a class of a library if that is there, else nothing."""
    return getattr(sys.modules.get(module), name, ())
