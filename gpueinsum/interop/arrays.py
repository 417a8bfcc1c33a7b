"""Arrays of other libraries that are computed with as numpy's or CuPy's: any that have array-API names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from gpueinsum.api.arguments import Array, Expression, Options
from gpueinsum.api.derivatives import evaluate_jvp, evaluate_vjp
from gpueinsum.api.dispatch import evaluate, evaluate_plan
from gpueinsum.api.libraries import Asked
from gpueinsum.language.plan import Plan


@dataclass(frozen=True)
class ArrayLibrary:
    """A library whose arrays go in by DLPack, and come out through `wrap`."""

    name: str
    wrap: Callable[[Array], Any]

    def unwrap(self, operand: Any) -> Any:
        return operand

    def is_followed(self, operands: Sequence[Any]) -> bool:
        return False

    def call(self, function: Callable[..., Any], *operands: Any) -> Any:
        return self._wrap(function(*operands))

    def evaluate(self, expression: Expression, operands: Sequence[Any], out: Array | None, options: Options) -> Any:
        result = evaluate(expression, operands, out, options)
        return self.wrap(result) if out is None else out

    def evaluate_plan(self, plan: Plan, operands: Sequence[Any], options: Options) -> Any:
        return self._wrap(evaluate_plan(plan, operands, options))

    def vjp(self, asked: Asked, operands: Sequence[Any], wrt: Any, options: Options, memory_limit: Any) -> Any:
        value, pullback = evaluate_vjp(asked, operands, wrt, options, memory_limit)
        return self._wrap(value), replace(pullback, library=self)

    def jvp(self, asked: Asked, operands: Sequence[Any], tangents: Sequence[Any], options: Options) -> Any:
        return self._wrap(evaluate_jvp(asked, operands, tangents, options))

    def _wrap(self, results: Any) -> Any:
        return tuple(map(self._wrap, results)) if isinstance(results, tuple) else self.wrap(results)


@cache
def array_library(namespace: ModuleType) -> ArrayLibrary:
    """The library with these array-API names."""

    def wrap(array: Array) -> Any:
        if isinstance(array, np.ndarray | np.generic):  # which numpy hands out by DLPack only if it may be written
            return namespace.asarray(np.require(array, requirements="W"))
        return namespace.from_dlpack(array)

    return ArrayLibrary(namespace.__name__, wrap)
