"""Functions of einsums as a primitive of JAX's: how it is run, compiled, derived, transposed and batched.

Compiled, it is a call back to Python on the host. Derivatives and batches are functions again, each with a plan of its
own, so that the primitive is closed under whatever JAX does with it, to any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from gpueinsum.api.arguments import Array, Dtype
from gpueinsum.api.dispatch import Call, finish_result, signature, stays_on_device
from gpueinsum.backends.base import Backend
from gpueinsum.backends.select import backend_and_arrays, backend_for
from gpueinsum.errors import DtypeError
from gpueinsum.interop.arrays import ArrayLibrary
from gpueinsum.interop.functions import Batch, Function, Jvp, Vjp, call_of


def apply(function: Function, *arrays: Any) -> list[Any]:
    """The function of JAX's arrays, which have one dtype, traced or not."""
    return _primitive.bind(*arrays, function=function)  # type: ignore[no-any-return]  # JAX's


_primitive = Primitive("gpueinsum")
_primitive.multiple_results = True


# ---------------------------------------------------------------- values


def _wrap(array: Array, device: Any) -> Any:
    """numpy's array as JAX's, in the same memory if it lies at a multiple of 64 bytes."""
    return jax.device_put(array, device) if isinstance(array, np.ndarray | np.generic) else jnp.from_dlpack(array)


def _device_of(array: Any) -> Any:
    """Where results must be: nowhere in particular if the array may be moved, or is spread over several devices."""
    return array.device if array.committed and isinstance(array.device, jax.Device) else None


def _check_dtype(dtype: Dtype) -> None:
    held = jax.dtypes.canonicalize_dtype(dtype)
    if held != dtype:
        advice = f"ask for dtype={held.name!r}, or call jax.config.update('jax_enable_x64', True)"
        raise DtypeError(f"JAX has no arrays of {dtype} while jax_enable_x64 is off: {advice}")


def _result_type(operands: Sequence[Any]) -> Dtype:
    known = [np.asarray(operand) if isinstance(operand, list | tuple) else operand for operand in operands]
    dtype: Dtype = np.dtype(jnp.result_type(*known))
    return dtype


def _is_own(operand: Any) -> bool:
    return isinstance(operand, jax.Array) and not isinstance(operand, jax.core.Tracer)


EAGER = ArrayLibrary("jax", _is_own, _wrap, _device_of, _result_type, _check_dtype)


@_primitive.def_impl
def _evaluate(*arrays: Any, function: Function) -> Sequence[Any]:
    def compute(*operands: Any) -> tuple[Array, ...]:
        backend, inputs = backend_and_arrays(function.options.backend, operands)
        call = call_of(function, signature(inputs), backend)
        return _results(call, backend, stays_on_device(backend, operands), *inputs)

    results: tuple[Any, ...] = EAGER.call(compute, *arrays)
    return results


def _results(call: Call, backend: Backend, stays: bool, *arrays: Array) -> tuple[Array, ...]:
    results = call.run(*call.load(backend, list(map(backend.check, arrays))))
    return tuple([finish_result(result, call.result, "K", backend, stays) for result in results])


# ---------------------------------------------------------------- programs


@_primitive.def_abstract_eval
def _abstract(*operands: ShapedArray, function: Function) -> list[ShapedArray]:
    return [ShapedArray(shape, operands[0].dtype) for shape in function.shapes([x.shape for x in operands])]


def _lower(context: mlir.LoweringRuleContext, *operands: Any, function: Function) -> Any:
    """A call back with numpy's arrays in the program's memory.

    jax.pure_callback hands over arrays of JAX's instead. Their values wait for a thread of XLA's, and callbacks may
    hold all of those: six threads that ran programs of such calls, 300 x 300, hung at once (JAX 0.10.2, 2 cores).
    """
    backend = backend_for(function.options.backend, ())
    call = call_of(function, tuple([(x.shape, x.dtype) for x in context.avals_in]), backend)
    results, _, _ = mlir.emit_python_callback(
        context,
        partial(_results, call, backend, False),
        None,
        list(operands),
        context.avals_in,
        context.avals_out,
        has_side_effect=False,
    )
    return results


mlir.register_lowering(_primitive, _lower)


# ---------------------------------------------------------------- derivatives and batches


def _push(primals: Sequence[Any], tangents: Sequence[Any], *, function: Function) -> tuple[list[Any], list[Any]]:
    moved = {k: tangent for k, tangent in enumerate(tangents) if not isinstance(tangent, ad.Zero)}
    return apply(function, *primals), apply(Jvp(function, tuple(moved)), *primals, *moved.values())


def _transpose(cotangents: Sequence[Any], *operands: Any, function: Function) -> list[Any]:
    """JAX's cotangents are the conjugates of ours: with x' = J^T y' for y = J x, conj(x') = J^H conj(y')."""
    linear = [k for k, operand in enumerate(operands) if ad.is_undefined_primal(operand)]
    given = [jnp.conj(ad.instantiate_zeros(cotangent)) for cotangent in cotangents]
    if isinstance(function, Jvp) and linear[0] >= function.of.inputs:  # so that tangents are no inputs any more
        inputs = list(operands[: function.of.inputs])
        vjp = Vjp(function.of, tuple([function.wrt[k - len(inputs)] for k in linear]))
    else:
        inputs = [jnp.zeros(x.aval.shape, x.aval.dtype) if k in linear else x for k, x in enumerate(operands)]
        vjp = Vjp(function, tuple(linear))
    found = dict(zip(linear, map(jnp.conj, apply(vjp, *inputs, *given)), strict=True))
    return [found.get(k) for k in range(len(operands))]


def _batch(operands: Sequence[Any], dims: Sequence[int | None], *, function: Function) -> tuple[list[Any], list[int]]:
    positions = tuple([k for k, dim in enumerate(dims) if dim is not None])
    moved = [x if dim is None else jnp.moveaxis(x, dim, 0) for x, dim in zip(operands, dims, strict=True)]
    results = apply(Batch(function, positions), *moved)
    return results, [0] * len(results)


ad.primitive_jvps[_primitive] = _push
ad.primitive_transposes[_primitive] = _transpose
batching.primitive_batchers[_primitive] = _batch
