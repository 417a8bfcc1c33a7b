"""Calls that JAX traces: its transforms of them, programs compiled from them, and what is refused while it traces."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from call_checks import assert_passes
from conftest import simulated_backend
from long_runs import shorten
from oracle import TOLERANCES
from random_gradients import Call, multilinear, random_plain_call, wide

import gpueinsum as ge

jax = pytest.importorskip("jax", reason="JAX is not installed: it traces no calls")

import jax.numpy as jnp  # noqa: E402  # which is there now
from jax_checks import CHAIN, agree, run_program  # noqa: E402


def loss(einsum, a, b, c):
    """Of a contraction, and of others of what it depends on."""
    value = einsum(CHAIN, jnp.sin(a), b, c)
    return jnp.abs(value * jnp.tanh(einsum("ij,jk,kl,il->", a, b, c, value))).sum()


TRANSFORMS: dict[str, Callable[..., Any]] = {
    "jit": jax.jit,
    "grad": lambda f: jax.grad(f, (0, 1, 2)),
    "jit of value_and_grad": lambda f: jax.jit(jax.value_and_grad(f, (0, 2))),
    "grad of jit": lambda f: jax.grad(jax.jit(f)),
    "jacfwd": lambda f: jax.jacfwd(f, (0, 1)),
    "hessian": lambda f: jax.jit(jax.hessian(f)),
    "jacrev of jacrev": lambda f: jax.jit(jax.jacrev(jax.jacrev(f))),
    "jvp": lambda f: lambda a, b, c: jax.jvp(f, (a, b, c), (a, b * 2, c * c)),
    "linearize": lambda f: lambda a, b, c: jax.linearize(f, a, b, c)[1](c[:2, :3], b, c),
    "checkpoint": lambda f: jax.jit(jax.grad(jax.checkpoint(f))),
    "vmap": lambda f: lambda a, b, c: jax.vmap(f, (0, None, 2))(jnp.stack([a, b[:2, :3]]), b, jnp.stack([c, -c], 2)),
    "vmap of grad": lambda f: lambda a, b, c: jax.jit(jax.vmap(jax.grad(f), (None, 1, None)))(
        a, b[:, None] + a.T[..., None], c
    ),
    "grad of vmap": lambda f: lambda a, b, c: jax.grad(lambda x: jax.vmap(f, (0, None, None))(x, b, c).sum())(a[None]),
    "vmap of vmap": lambda f: lambda a, b, c: jax.vmap(jax.vmap(f, (0, None, None)), (None, 0, None))(
        jnp.stack([a, 2 * a]), jnp.stack([b, b + 1, b - 1]), c
    ),
    "third derivative": lambda f: jax.jit(jax.grad(lambda a, b, c: jnp.sum(jax.hessian(f)(a, b, c) ** 2))),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_of_a_call_are_those_of_jaxs_einsum(name, chain):
    ours, theirs = (TRANSFORMS[name](partial(loss, einsum)) for einsum in (ge.einsum, jnp.einsum))
    agree(ours(*chain), jax.jit(theirs)(*chain), 1e-4)


@pytest.mark.parametrize("name", ["grad", "grad of jit", "jit of value_and_grad", "vmap of grad", "checkpoint"])
def test_gradients_of_complex_operands_are_jaxs(name, chain):
    a, b, c = chain
    operands = a + 1j * a[::-1], b, c * (2 - 1j)  # one of them real
    ours, theirs = (TRANSFORMS[name](partial(loss, einsum)) for einsum in (ge.einsum, jnp.einsum))
    agree(ours(*operands), jax.jit(theirs)(*operands), 1e-4)


def test_calls_in_loops_and_branches(rng):
    x = jnp.asarray(rng.random((3, 3)), jnp.float32)

    def walk(einsum, x):
        def step(state, scale):
            state = jax.lax.cond(scale > 1, lambda s: einsum("ij,j->i", x, s), lambda s: s * scale, state)
            return state, einsum("i,i->", state, state)

        last, norms = jax.lax.scan(step, jnp.ones(3), jnp.arange(4.0))
        return last.sum() + norms.sum()

    for transform in (jax.jit, lambda f: jax.jit(jax.hessian(f))):
        agree(transform(partial(walk, ge.einsum))(x), transform(partial(walk, jnp.einsum))(x), 1e-4)


@pytest.mark.parametrize("position", range(3))
def test_a_linear_call_is_transposed(position, chain):
    def transposed(einsum):
        def linear(x):
            return einsum(CHAIN, *chain[:position], x, *chain[position + 1 :])

        return jax.linear_transpose(linear, chain[position])(jnp.ones((2, 7)))

    agree(transposed(ge.einsum), transposed(jnp.einsum))


def test_the_batch_of_a_call_is_one_plan(chain):
    def batch(a, b, c):
        return jax.vmap(jax.grad(lambda *x: ge.einsum(CHAIN, *x).sum()), (0, None, None))(a, b, c)

    a, b, c = chain
    jaxpr = jax.make_jaxpr(batch)(jnp.stack([a] * 11), b, c).jaxpr
    ours = [equation.params["function"] for equation in jaxpr.eqns if equation.primitive.name == "gpueinsum"]
    assert [type(function).__name__ for function in ours] == ["Batch", "Batch"]  # the value, which nobody uses, too
    assert not {"scan", "while"} & {equation.primitive.name for equation in jaxpr.eqns}


def test_integers_have_no_gradients():
    x, n = jnp.ones(3), jnp.arange(3)
    agree(jax.grad(lambda x: ge.einsum("i,i->", x, n))(x), n.astype(x.dtype))
    assert jax.grad(lambda n: ge.einsum("i,i->", x, n), allow_int=True)(n).dtype == jax.dtypes.float0


@pytest.mark.parametrize("transform", [jax.jit, jax.grad, jax.vmap, jax.make_jaxpr])
def test_a_wrong_label_is_pointed_at_while_jax_traces(transform):
    x = jnp.ones((7, 2, 3) if transform is jax.vmap else (2, 3))
    with pytest.raises(ge.SubscriptsError) as caught:
        transform(partial(ge.einsum, "ij,jk->"))(x, x)
    assert str(caught.value) == "label 'j' is 3 in operand 0 but 2 in operand 1\n    ij,jk->\n     ^ ^"


def test_tracing_for_shapes_plans_nothing(monkeypatch, chain):
    monkeypatch.setattr("gpueinsum.interop.functions.plan_for", None)
    assert jax.eval_shape(partial(ge.einsum, CHAIN), *chain).shape == (2, 7)
    with pytest.raises(TypeError, match="not callable"):
        jax.jit(partial(ge.einsum, "ij,kj,kl->li"))(chain[0], chain[1].T, chain[2])


@pytest.mark.parametrize("transform", [jax.jit, jax.value_and_grad, lambda f: f], ids=["jit", "grad", "eager"])
def test_the_host_may_compute_on_cuda(transform, monkeypatch, chain):
    backend = simulated_backend()
    backend.runtime.calls.clear()
    monkeypatch.setattr("gpueinsum.backends.select.cuda_backend", simulated_backend)
    ours, theirs = (
        transform(lambda a, b, einsum=einsum: einsum("ij,jk,ij->", a, b, a))(*chain[:2])
        for einsum in (partial(ge.einsum, backend="cuda"), jnp.einsum)
    )
    assert backend.runtime.calls
    agree(ours, theirs)


def test_derivatives_inside_of_a_program_are_those_outside(chain):
    def both(a, b, c, cotangent):
        value, pullback = ge.vjp(CHAIN, a, b, c, wrt=(2, 0), memory_limit="1MB")
        batch = jnp.stack([cotangent, value])
        return value, pullback(cotangent), pullback(batch), ge.jvp(CHAIN, (a, b, c), (a, None, c)), pullback.nbytes

    operands = [x + 1j * x[::-1] for x in chain[:2]], chain[2]
    arguments = (*operands[0], operands[1], jnp.ones((2, 7)) * (1 + 2j))
    *eager, _ = both(*arguments)
    *traced, nbytes = jax.jit(both)(*arguments)
    agree(traced, eager)
    assert nbytes == sum(x.size * 8 for x in chain)
    with jax.checking_leaks():
        plans = []
        jax.jit(lambda *x: plans.append(ge.vjp(CHAIN, *x)[1].plan) or x[0])(*chain)
    assert plans == [ge.vjp(CHAIN, *chain)[1].plan]


def test_a_plan_of_several_outputs_is_traced(rng):
    plan = ge.einsum_plan("ij,jk->ik", jnp.ones((2, 3)), jnp.ones((3, 5))).vjp()
    operands = [jnp.asarray(rng.random(shape), jnp.float32) for shape in ((2, 3), (3, 5), (2, 5))]
    agree(jax.jit(partial(ge.run_plan, plan))(*operands), ge.run_plan(plan, *operands))

    def pull(x, *operands):
        return ge.vjp(plan, *operands)[1]((x, None))

    agree(jax.jit(pull)(operands[0], *operands), pull(operands[0], *operands))

    def pull_batches(*operands):
        return ge.vjp(plan, *operands)[1]((jnp.stack([operands[0]] * 4), operands[1]))

    for function in (pull_batches, jax.jit(pull_batches)):
        with pytest.raises(ge.OperandError, match=r"their first axes are \{0: \(4,\), 1: \(\)\}"):
            function(*operands)


def test_what_does_not_fit_is_refused_while_jax_traces(chain):
    a, b, _ = chain

    def refused(error, message, function):
        with pytest.raises(error, match=message):
            jax.jit(function)(a, b)

    pull = partial(ge.vjp, "ij,jk->ik")
    shapes = r"the cotangent has shape \(2, 3\), but the value has \(2, 5\)"
    refused(ge.OperandError, shapes, lambda a, b: pull(a, b)[1](a))
    refused(ge.DtypeError, "the cotangent is complex64, but the value is", lambda a, b: pull(a, b)[1](1j * a @ b))
    refused(ge.DtypeError, "operand 1 is int32, which has no derivative", lambda a, b: pull(a, b.astype(int)))
    refused(ge.OperandError, "tangent 0 has shape", lambda a, b: ge.jvp("ij,jk->ik", (a, b), (b, None)))
    refused(ge.DtypeError, "casting='safe' does not cast to float16", lambda a, b: ge.einsum("ij->", a, dtype="f2"))
    refused(ge.OperandError, "operand 1 is no array", lambda a, b: ge.einsum("ij,j->i", a, None))
    with pytest.raises(ge.OperandError, match=r"the cotangent is no array: The numpy\.ndarray conversion"):
        jax.jit(lambda cotangent: pull(a, b)[1](cotangent))(a @ b)


# JAX's own callbacks hang here: they wait for a thread of XLA's, and callbacks have them all.
MANY_AT_ONCE = """
import threading, jax, jax.numpy as jnp, gpueinsum.jax

@jax.jit
def program(x, y):
    total = sum(gpueinsum.jax.einsum("ij,jk->ik", x + i, y) for i in range(6))
    return gpueinsum.jax.einsum("ij,jk,ki->", total, jnp.sin(y), y)

def work():
    for i in range(3):
        results = program(x + i, y), gradient(x + i, y), batch(jnp.stack([x, x]), y)
    jax.block_until_ready(results)

gradient, batch = jax.jit(jax.grad(program)), jax.jit(jax.vmap(program, (0, None)))
x, y = jnp.ones((300, 300)), jnp.ones((300, 300))
threads = [threading.Thread(target=work) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_many_programs_at_once_do_not_wait_for_each_other():
    run_program(MANY_AT_ONCE, OPENBLAS_NUM_THREADS="1")


# ---------------------------------------------------------------- random calls

EQUATIONS = [
    ("ij,jk,kl->il", (2, 3), (3, 5), (5, 7)), ("ij,ij,ij->j", (2, 3), (2, 3), (2, 3)), ("ii,ij->j", (3, 3), (3, 5)),
    ("...ij,...jk->...ik", (5, 2, 3), (3, 7)), ("i,j,k->kji", (2,), (3,), (5,)), ("iij,jkk->ik", (2, 2, 3), (3, 5, 5)),
    ("ab,bc,ca->", (2, 3), (3, 5), (5, 2)), ("bhqd,bhkd->bhqk", (2, 3, 5, 7), (2, 3, 4, 7)), ("ij->", (2, 3)),
    ("abc,bad,dc->c", (2, 3, 5), (3, 2, 7), (7, 5)), ("i,,i->", (3,), (), (3,)), ("ijk->kj", (2, 3, 5)),
]  # fmt: skip


@pytest.mark.parametrize("equation", EQUATIONS, ids=lambda equation: equation[0])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64])
def test_values_and_gradients_are_those_of_jaxs_einsum(equation, dtype, rng):
    text, *shapes = equation
    numbers = [rng.standard_normal(shape) + 1j * rng.standard_normal(shape) for shape in shapes]
    operands = [jnp.asarray(x if dtype is jnp.complex64 else x.real, dtype) for x in numbers]

    def value_and_gradients(einsum, *operands):
        value, pull = jax.vjp(partial(einsum, text), *operands)
        return value, pull(value)

    ours, theirs = (partial(value_and_gradients, einsum) for einsum in (ge.einsum, jnp.einsum))
    expected = jax.jit(theirs)(*operands)
    agree(ours(*operands), expected)
    agree(jax.jit(ours)(*operands), expected)


@pytest.mark.parametrize("batch", shorten(range(3)))
def test_random_calls_have_jaxs_gradients(batch, x64):
    assert_passes(check_gradients, range(30 * batch, 30 * (batch + 1)), random_plain_call)


def check_gradients(call: Call) -> None:
    """Values and gradients by `jax.vjp`, which are conjugates of ours, against sums over index points."""
    operands = [jnp.asarray(np.array(operand)) for operand in call.operands]
    labels = call.args[1::2] if not isinstance(call.args[0], str) else ()

    def einsum(*operands: Any) -> Any:
        if isinstance(call.args[0], str):
            return ge.einsum(call.args[0], *operands, **call.options)
        pairs = [argument for pair in zip(operands, labels, strict=False) for argument in pair]
        return ge.einsum(*pairs, *call.args[len(operands) * 2 :], **call.options)

    expression = multilinear(call.args)
    factors = [np.asarray(operand) for operand in operands]
    cotangent = jnp.asarray(wide(call.directions[0].cotangent)).astype(call.dtype)
    value, pull = jax.vjp(einsum, *operands)
    assert_near(value, expression(factors), call.dtype)
    for position, gradient in enumerate(pull(cotangent)):
        expected = expression.gradient(factors, position, np.asarray(cotangent).conj())
        assert_near(gradient.conj(), expected, operands[position].dtype)


def assert_near(got: Any, expected: Any, dtype: Any) -> None:
    value = expected.value if np.dtype(dtype).kind == "c" else expected.value.real
    assert (got.shape, got.dtype) == (value.shape, dtype)
    excess = np.abs(np.asarray(got) - value) - TOLERANCES[np.dtype(dtype)] * expected.magnitude
    assert np.all(excess <= 0), f"off by up to {excess.max():.3g}"
