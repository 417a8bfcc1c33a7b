"""Arrays of other libraries that are computed with as numpy's or CuPy's: any that have array-API names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from gpueinsum.api.arguments import Array, Dtype, Expression, Options
from gpueinsum.api.derivatives import evaluate_jvp, evaluate_vjp
from gpueinsum.api.dispatch import evaluate_arrays, evaluate_plan_arrays
from gpueinsum.api.libraries import Asked
from gpueinsum.backends.operands import host_array
from gpueinsum.errors import DtypeError, OperandError, OutError
from gpueinsum.language.plan import Plan


@dataclass(frozen=True)
class ArrayLibrary:
    """A library whose arrays backends take as they are. Results are its arrays, on the device of the operands."""

    name: str
    is_own: Callable[[Any], bool]
    wrap: Callable[[Array, Any], Any]  # numpy's or CuPy's array on a device, None for the default one
    device_of: Callable[[Any], Any]  # of an array of its own; None where the device does not count
    result_type: Callable[[Sequence[Any]], Dtype]  # of operands of several dtypes
    check_dtype: Callable[[Dtype], None]  # raises DtypeError for one that the library's arrays cannot have
    device: Any = None  # of the results if no operand has one

    def unwrap(self, operand: Any) -> Any:
        return operand

    def is_followed(self, operands: Sequence[Any]) -> bool:
        return False

    def promote(self, operands: Sequence[Any], options: Options) -> Options:
        if options.dtype is not None:
            self.check_dtype(options.dtype)
            return options
        if all(map(self.is_own, operands)) and len({operand.dtype for operand in operands}) == 1:
            return options
        return options._replace(dtype=self.result_type(operands), casting="unsafe")  # as its rules are

    def call(self, function: Callable[..., Any], *operands: Any) -> Any:
        return self._on_device_of(operands)._wrap(function(*operands))

    def evaluate(self, expression: Expression, operands: Sequence[Any], out: Array | None, options: Options) -> Any:
        if out is not None:
            raise OutError(f"out= is for numpy's, CuPy's and torch's arrays, not for operands of {self.name}")
        options = self.promote(operands, options)
        return self.call(lambda *arrays: evaluate_arrays(expression, arrays, None, options), *operands)

    def evaluate_plan(self, plan: Plan, operands: Sequence[Any], options: Options) -> Any:
        options = self.promote(operands, options)
        return self.call(lambda *arrays: evaluate_plan_arrays(plan, arrays, options), *operands)

    def vjp(self, asked: Asked, operands: Sequence[Any], wrt: Any, options: Options) -> Any:
        placed = self._on_device_of(operands)
        value, pullback = evaluate_vjp(asked, operands, wrt, self.promote(operands, options))
        return placed._wrap(value), replace(pullback, library=placed)

    def jvp(self, asked: Asked, operands: Sequence[Any], tangents: Sequence[Any], options: Options) -> Any:
        options = self.promote(operands, options)
        return self._on_device_of(operands)._wrap(evaluate_jvp(asked, operands, tangents, options))

    def _on_device_of(self, operands: Sequence[Any]) -> ArrayLibrary:
        """The library, whose results go where these operands are. Raises OperandError if they are on two devices."""
        found: dict[Any, int] = {}  # the first operand on each
        for number, operand in enumerate(operands):
            if self.is_own(operand) and (device := self.device_of(operand)) is not None:
                found.setdefault(device, number)
        if len(found) > 1:
            where = [f"operand {number} is on {device}" for device, number in found.items()]
            raise OperandError(f"{', but '.join(where)}: move them to one device")
        return replace(self, device=next(iter(found))) if found else self

    def _wrap(self, results: Any) -> Any:
        return tuple(map(self._wrap, results)) if isinstance(results, tuple) else self.wrap(results, self.device)


@cache
def array_library(namespace: ModuleType) -> ArrayLibrary:
    """The library with these array-API names."""

    def is_own(operand: Any) -> bool:
        return hasattr(operand, "__array_namespace__") and operand.__array_namespace__() is namespace

    def wrap(array: Array, device: Any) -> Any:
        if isinstance(array, np.ndarray | np.generic):  # which libraries copy if it must not be written
            return namespace.asarray(np.require(array, requirements="W"), device=device)
        return namespace.from_dlpack(array)

    def result_type(operands: Sequence[Any]) -> Dtype:
        known = [x if is_own(x) or isinstance(x, int | float | complex) else namespace.asarray(x) for x in operands]
        try:
            dtype = namespace.result_type(*known)
        except TypeError as error:
            raise DtypeError(f"{namespace.__name__} has no dtype for all operands: {error}") from error
        found: Dtype = host_array(namespace.empty(0, dtype=dtype)).dtype
        return found

    def check_dtype(dtype: Dtype) -> None:
        try:
            namespace.asarray(np.empty(0, dtype))
        except (TypeError, ValueError) as error:
            raise DtypeError(f"{namespace.__name__} has no arrays of {dtype}: {error}") from error

    return ArrayLibrary(namespace.__name__, is_own, wrap, lambda x: x.device, result_type, check_dtype)
