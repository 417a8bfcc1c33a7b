"""Calls with JAX's arrays: results are such arrays on the same device; traced ones become part of JAX's program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from gpueinsum.api.arguments import (
    Array,
    Dtype,
    Expression,
    Options,
    call_dtypes,
    check_differentiable,
    positions_of,
)
from gpueinsum.api.derivatives import fit
from gpueinsum.api.dispatch import one_or_all, signature
from gpueinsum.api.libraries import Asked
from gpueinsum.backends.select import HOST, as_array
from gpueinsum.interop.functions import Function, Jvp, function_of, function_of_cotangents, passes_of
from gpueinsum.interop.primitive import EAGER, apply
from gpueinsum.language.plan import Plan
from gpueinsum.language.subscripts import Shape


class JaxLibrary:
    """JAX as a `Library`."""

    name = EAGER.name

    def unwrap(self, operand: Any) -> Any:
        return operand

    def is_followed(self, operands: Sequence[Any]) -> bool:
        return any(isinstance(operand, jax.core.Tracer) for operand in operands)

    def promote(self, operands: Sequence[Any], options: Options) -> Options:
        return EAGER.promote(operands, options)

    def call(self, function: Callable[..., Any], *operands: Any) -> Any:
        return EAGER.call(function, *operands)

    def evaluate(self, expression: Expression, operands: Sequence[Any], out: Array | None, options: Options) -> Any:
        if out is not None or not self.is_followed(operands):
            return EAGER.evaluate(expression, operands, out, options)
        function, arrays = _traced(expression, operands, options)
        return apply(function, *arrays)[0]

    def evaluate_plan(self, plan: Plan, operands: Sequence[Any], options: Options) -> Any:
        if not self.is_followed(operands):
            return EAGER.evaluate_plan(plan, operands, options)
        function, arrays = _traced(plan, operands, options)
        return one_or_all(apply(function, *arrays))

    def vjp(self, asked: Asked, operands: Sequence[Any], wrt: Any, options: Options) -> Any:
        if not self.is_followed(operands):
            return EAGER.vjp(asked, operands, wrt, options)
        positions = positions_of(wrt, len(operands))
        dtypes = _differentiable(operands, positions)
        function, arrays = _traced(asked, operands, options)
        return one_or_all(apply(function, *arrays)), TracedPullback(function, arrays, positions, dtypes)

    def jvp(self, asked: Asked, operands: Sequence[Any], tangents: Sequence[Any], options: Options) -> Any:
        if not self.is_followed([*operands, *tangents]):
            return EAGER.jvp(asked, operands, tangents, options)
        moved = tuple([k for k, tangent in enumerate(tangents) if tangent is not None])
        _differentiable(operands, moved)
        function, arrays = _traced(asked, operands, options)
        along = []
        for k in moved:
            tangent = fit(tangents[k], f"tangent {k}", "its operand", arrays[k].shape, arrays[k].dtype, jnp, False)
            along.append(_cast(tangent, arrays[k].dtype))
        return one_or_all(apply(function, *arrays)), one_or_all(apply(Jvp(function, moved), *arrays, *along))


JAX = JaxLibrary()


@dataclass(repr=False, eq=False, slots=True)
class TracedPullback:
    """`gpueinsum.Pullback` of traced arrays: so are the gradients, by operands and cotangents."""

    _function: Function
    _arrays: Sequence[Any]
    _wrt: tuple[int, ...]
    _dtypes: Sequence[Dtype]

    @property
    def plan(self) -> Plan:
        """Both passes as one plan: from operands and cotangents to values and gradients."""
        return passes_of(self._function, signature(self._arrays), self._wrt, HOST).plan

    @property
    def nbytes(self) -> int:
        """Bytes of the operands, which are kept."""
        return sum(array.nbytes for array in self._arrays)

    def __call__(self, cotangent: Any) -> tuple[Any, ...]:
        """The gradients, as those of `gpueinsum.Pullback`."""
        arrays, dtype = self._arrays, self._arrays[0].dtype

        def fitted(given: Any, name: str, shape: Shape) -> Any:
            return _cast(fit(given, name, "the value", shape, dtype, jnp, False, can_be_batch=True), dtype)

        inputs, zeros = [array.shape for array in arrays], partial(jnp.zeros, dtype=dtype)
        pull = function_of_cotangents(self._function, self._wrt, inputs, cotangent, fitted, zeros)
        gradients = apply(pull[0], *arrays, *pull[1])
        return tuple(map(_cast, gradients, self._dtypes))


def _traced(asked: Asked, operands: Sequence[Any], options: Options) -> tuple[Function, list[Any]]:
    """What is asked as a function of JAX's arrays, and the operands as such in the dtype of the computation."""
    options = EAGER.promote(operands, options)
    arrays = [as_array(jnp, f"operand {number}", operand) for number, operand in enumerate(operands)]
    dtype, _ = call_dtypes([array.dtype for array in arrays], None, options, HOST)
    return function_of(asked, len(arrays), options), [_cast(array, dtype) for array in arrays]


def _differentiable(operands: Sequence[Any], positions: Sequence[int]) -> list[Dtype]:
    """The dtypes of the operands at these positions. Raises DtypeError for one that has no derivatives."""
    dtypes = []
    for position in positions:
        dtypes.append(jnp.asarray(operands[position]).dtype)
        check_differentiable(dtypes[-1], f"operand {position}")
    return dtypes


def _cast(array: Any, dtype: Dtype) -> Any:
    """The array in a dtype; the real part for a real one, as the gradient of a real operand is."""
    return (array.real if array.dtype.kind == "c" and dtype.kind != "c" else array).astype(dtype)
