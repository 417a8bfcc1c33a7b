"""JAX's arrays in and out of calls that nobody traces; jnp.einsum's drop-in; opt_einsum's names of backends."""

from collections.abc import Callable
from functools import partial
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pytest
from matrix_products import PRODUCTS

import gpueinsum as ge

jax = pytest.importorskip("jax", reason="JAX is not installed: its arrays are not computed with")

import jax.numpy as jnp  # noqa: E402  # which is there now
from jax_checks import CHAIN, SHAPES, agree, run_program  # noqa: E402

import gpueinsum.jax  # noqa: E402
from gpueinsum.interop.primitive import EAGER  # noqa: E402

CALLS: dict[str, Callable[..., Any]] = {
    **PRODUCTS,
    "constants": lambda a, b: ge.contract_expression("ij,jk->ik", a, b, constants=[0, 1])(),
    "drop-in": lambda a, b: gpueinsum.jax.einsum("ij,jk->ik", a, b),
}


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_results_are_jaxs_arrays(name, transform, dtype, rng):
    a, b = (jnp.asarray(rng.integers(-3, 4, shape), dtype) for shape in SHAPES[:2])
    agree(transform(CALLS[name])(a, b), jnp.asarray(np.asarray(a, "f4") @ np.asarray(b, "f4"), dtype), 0)


@pytest.mark.parametrize("expression", ["ij->", "ij->ji", "ij->i", "ij,ij->", "ij,ij->ji"])
@pytest.mark.parametrize("shape", [(2, 3), (0, 3)])
def test_scalars_and_empty_results_are_arrays(expression, shape, rng):
    operands = [jnp.asarray(rng.random(shape))] * (expression.count(",") + 1)
    for einsum in (ge.einsum, jax.jit(ge.einsum, static_argnums=0)):
        agree(einsum(expression, *operands), jnp.einsum(expression, *operands))


def test_pullbacks_take_and_give_jaxs_arrays(chain):
    value, pullback = ge.vjp(CHAIN, *chain)
    theirs, pull = jax.vjp(partial(jnp.einsum, CHAIN), *chain)
    agree(value, theirs)
    agree(pullback(value), pull(value))
    cotangents = jnp.stack([value, 2 * value, value - 1])
    agree(pullback(cotangents), jax.vmap(pull)(cotangents))
    agree(pullback(np.asarray(value)), pull(value))  # an array of numpy's is a cotangent, too


def test_gradients_of_complex_operands_are_the_conjugates_of_jaxs(chain):
    operands = [x + 1j * x[::-1] for x in chain]
    value, pullback = ge.vjp(CHAIN, *operands)
    theirs = jax.vjp(partial(jnp.einsum, CHAIN), *operands)[1](value.conj())
    agree(pullback(value), tuple(x.conj() for x in theirs))
    ours = jax.vjp(partial(ge.einsum, CHAIN), *operands)[1](value)
    agree(ours, jax.vjp(partial(jnp.einsum, CHAIN), *operands)[1](value))


NAMES = ("bool", "uint8", "int8", "int32", "float16", "bfloat16", "float32", "complex64")


@pytest.mark.parametrize("pair", [*combinations_with_replacement(NAMES, 2)], ids="-".join)
def test_dtypes_are_promoted_as_jax_does(pair):
    x, y = (jnp.ones((2, 2), dtype) for dtype in pair)
    expected = jnp.result_type(x, y)
    assert ge.einsum("ij,jk->ik", x, y).dtype == expected
    assert jax.eval_shape(partial(ge.einsum, "ij,jk->ik"), x, y).dtype == expected


@pytest.mark.parametrize("dtype", NAMES[1:])
@pytest.mark.parametrize("other", [2, 2.5, 1j, jnp.asarray(2.5), [1.5, 2.5], np.ones(2), np.float64(3)], ids=repr)
def test_numbers_and_numpys_arrays_are_taken_as_jax_takes_them(dtype, other):
    x, expression = jnp.ones(2, dtype), f"i,{'i'[: np.ndim(other)]}->i"
    expected = x * jnp.asarray(other)
    agree(ge.einsum(expression, x, other), expected, 1e-2)
    agree(jax.jit(lambda x: ge.einsum(expression, x, other))(x), expected, 1e-2)
    if dtype == "float32" and np.asarray(other).dtype == "float64":
        [gradient] = ge.vjp(expression, x, other, wrt=1)[1](expected)
        assert gradient.dtype == "float32"  # as JAX would hold the operand


@pytest.mark.parametrize("call", [lambda x, f: f(x), lambda x, f: jax.jit(f)(x)], ids=["eager", "jit"])
def test_float64_is_refused_where_jax_would_quietly_make_float32_of_it(call):
    x, plan = jnp.ones((2, 3)), ge.einsum_plan("ij->i", (2, 3))
    message = r"JAX has no arrays of float64 while jax_enable_x64 is off: ask for dtype='float32', or call jax.config"
    for function in (
        lambda x: ge.einsum("ij->i", x, dtype="float64"),
        lambda x: ge.vjp("ij->i", x, dtype=float)[0],
        lambda x: ge.jvp("ij->i", (x,), (x,), dtype=float)[0],
        lambda x: ge.run_plan(plan, x),
    ):
        with pytest.raises(ge.DtypeError, match=message):
            call(x, function)


def test_float64_is_computed_where_jax_has_it(x64, rng):
    x, y = rng.random((2, 3)), rng.random((3, 5))
    for einsum in (ge.einsum, jax.jit(ge.einsum, static_argnums=0)):
        agree(einsum("ij,jk->ik", jnp.asarray(x), jnp.asarray(y)), jnp.asarray(x @ y), 1e-14)
    assert ge.einsum("i,i->", jnp.ones(3, "float32"), np.ones(3)).dtype == "float64"


def test_large_arrays_are_not_copied():
    memory = np.zeros(1000 * 4 + 64, np.uint8)
    aligned = memory[-memory.ctypes.data % 64 :][:4000].view(np.float32)
    assert EAGER.wrap(aligned, None).unsafe_buffer_pointer() == aligned.ctypes.data


def test_out_is_refused(chain):
    for out in (jnp.ones((2, 7)), np.ones((2, 7), "f4")):
        with pytest.raises(ge.OutError, match=r"out= is for numpy's, CuPy's and torch's arrays, not for .* of jax"):
            ge.einsum(CHAIN, *chain, out=out)


ON_DEVICES = """
import jax, jax.numpy as jnp, numpy as np, gpueinsum as ge
first, second = jax.devices()
x, y = jax.device_put(jnp.ones((2, 3)), second), jnp.ones((3, 5))
assert ge.einsum("ij,jk->ik", x, y).device == second
value, pullback = ge.vjp("ij,jk->ik", x, y)
assert {gradient.device for gradient in pullback(np.ones((2, 5), "f4"))} == {second}
assert not ge.einsum("ij,jk->ik", jnp.ones((2, 3)), y).committed
try:
    ge.einsum("ij,jk->ik", x, jax.device_put(y, first))
except ge.OperandError as error:
    assert "operand 0 is on cpu:1, but operand 1 is on cpu:0: move them to one device" in str(error), error
else:
    raise AssertionError("accepted")
spread = jax.device_put(jnp.arange(6.0).reshape(2, 3), jax.NamedSharding(jax.make_mesh((2,), "p"), jax.P("p")))
for einsum in (ge.einsum, jax.jit(ge.einsum, static_argnums=0)):
    np.testing.assert_array_equal(einsum("ij,jk->ik", spread, y), np.asarray(spread) @ np.asarray(y))
assert ge.einsum_plan("ij->i", spread).dtype == "float32"
"""


def test_results_are_on_the_device_of_the_operands():
    run_program(ON_DEVICES, XLA_FLAGS="--xla_force_host_platform_device_count=2")


# ---------------------------------------------------------------- the drop-in


def test_the_drop_in_takes_what_jaxs_einsum_takes(chain):
    a, b, _ = chain
    halves = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    for einsum in (gpueinsum.jax.einsum, jax.jit(gpueinsum.jax.einsum, static_argnums=0)):
        agree(einsum("...j,jk", a, b), a @ b)
        agree(einsum("ij,jk", np.asarray(a), b), a @ b)
    agree(gpueinsum.jax.einsum("ij,jk", a, b.tolist()), a @ b)
    agree(gpueinsum.jax.einsum(a, [0, 1], b, [1, 2], [0, 2], optimize="optimal", precision="highest"), a @ b)
    wider = partial(gpueinsum.jax.einsum, "ij,jk->ik", preferred_element_type=jnp.float32)
    agree(jax.jit(wider)(*halves), wider(*halves))
    agree(wider(*halves), halves[0].astype("f4") @ halves[1].astype("f4"))
    assert isinstance(gpueinsum.jax.einsum("i->", np.ones(3)), jax.Array)  # though no operand is JAX's
    assert gpueinsum.jax.einsum("i->", np.ones(3)).dtype == jnp.einsum("i->", np.ones(3)).dtype == "float32"


@pytest.mark.parametrize("backend", ["auto", "torch", "jax", "numpy", "object", "cpu", None])
def test_opt_einsums_names_of_backends_do_what_they_do_there(backend, chain):
    a, b, _ = chain
    expression = ge.contract_expression("ij,jk->ik", a.shape, b.shape)
    with_constant = ge.contract_expression("ij,jk->ik", a, b.shape, constants=[0])
    is_numpys = backend in ("numpy", "object")
    for call, operands in (partial(ge.contract, "ij,jk->ik"), (a, b)), (expression, (a, b)), (with_constant, (b,)):
        if backend == "torch":
            with pytest.raises(ge.OperandError, match="backend='torch' does not take operand 0 of jax: leave it out"):
                call(*operands, backend=backend)
        else:
            assert isinstance(call(*operands, backend=backend), np.ndarray if is_numpys else jax.Array)
    result = expression(np.asarray(a), np.asarray(b), backend=backend)  # numpy's arrays come back
    assert type(result) is np.ndarray
    np.testing.assert_allclose(result, a @ b, atol=1e-5)
    if backend == "torch":
        with pytest.raises(ge.OperandError, match="is for tensors, and the operands are none"):
            ge.contract("ij,jk->ik", np.asarray(a), np.asarray(b), backend=backend)
    else:  # opt_einsum's contract converts nothing
        kind = jax.Array if backend == "jax" else np.ndarray
        assert isinstance(ge.contract("ij,jk->ik", np.asarray(a), np.asarray(b), backend=backend), kind)


def test_constants_of_an_expression_are_computed_once_and_followed(chain):
    a, b, c = chain
    expression = ge.contract_expression(CHAIN, np.asarray(a, float), b, c.shape, constants=[0, 1])
    agree(expression(c), a @ b @ c)
    agree(jax.jit(expression)(c), a @ b @ c)
    agree(jax.grad(lambda c: expression(c).sum())(c), jax.grad(lambda c: (a @ b @ c).sum())(c))
    expression(c)
    assert expression._folded.cache_info().hits == 1
