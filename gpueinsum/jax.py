"""`jnp.einsum`'s drop-in: its arguments, forms and results, under `jit`, `grad`, `vmap` and JAX's other transforms."""

from __future__ import annotations

from typing import Any

from jax import Array

from gpueinsum.api.arguments import Options, hashable_form
from gpueinsum.interop.jax import JAX
from gpueinsum.planning.path import Optimize


def einsum(
    subscripts: Any,
    /,
    *operands: Any,
    optimize: Optimize = "auto",
    precision: Any = None,
    preferred_element_type: Any = None,
    memory_limit: int | str | None = None,
) -> Array:
    """`jnp.einsum(subscripts, *operands)`, or `jnp.einsum(x, [0, 1], y, [1, 2], [0, 2])`.

    `gpueinsum.einsum` gives the same of JAX's arrays. This one takes other operands as JAX's, too. Gradients by
    `jax.grad` are JAX's, the conjugates of those by `gpueinsum.vjp`.

    In a compiled program the call is a call back to Python on the host, once for each einsum and for each of its
    derivatives: XLA neither fuses it with what is around it nor runs two of them at once, results are copied into the
    program, and on a GPU operands are copied to the host and results back. That pays for contractions of several
    operands and for large ones. Foreign functions of XLA's, which would stay on the GPU, are not made.

    Args:
        optimize: As in `gpueinsum.einsum`; gradients are planned anew, by the same name.
        precision: Accepted as in `jnp.einsum`, and ignored: products are of the dtype's full precision.
        preferred_element_type: The dtype to compute in and of the result, as `dtype` of `gpueinsum.einsum`.
        memory_limit: As in `gpueinsum.einsum`, of the host where the program is compiled.

    Raises what `gpueinsum.einsum` raises, in a function that is compiled when it is traced.
    """
    expression, arrays = hashable_form(subscripts, operands)
    options = Options(preferred_element_type, optimize=optimize, memory_limit=memory_limit)
    if preferred_element_type is not None:
        options = options._replace(casting="same_kind")
    result: Array = JAX.evaluate(expression, arrays, None, options.check())
    return result
