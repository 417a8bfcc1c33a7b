"""Gradients of random calls against their definition, second ones too; and proofs that the checkers can fail."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial, wraps
from itertools import combinations
from math import prod
from random import Random
from typing import Any

import numpy as np
import pytest
from call_checks import assert_layout, assert_passes, oracle_einsum
from conftest import REAL, real_runtime, simulated_backend
from long_runs import shorten
from oracle import TOLERANCES, assert_agrees, label_sizes, name_the_ellipsis, parse, reference
from random_expressions import Case
from random_gradients import (
    Call,
    Direction,
    Sum,
    arguments_of,
    multilinear,
    operands_of,
    random_call,
    random_plain_call,
    replaced,
    wide,
    wrt_positions,
)

import gpueinsum as ge
from gpueinsum.language.steps import Add, Contract

BATCHES, BATCH = 20, 250


@pytest.mark.parametrize("batch", shorten(range(BATCHES)))
def test_random_gradients_are_the_adjoint_of_the_derivative(batch: int) -> None:
    seeds = range(batch * BATCH, (batch + 1) * BATCH)
    assert_passes(lambda call: check_vjp(ge.vjp, call), seeds, random_call)


@pytest.mark.parametrize("batch", shorten(range(BATCHES)))
def test_random_tangents_are_sums_of_the_expression(batch: int) -> None:
    seeds = range(batch * BATCH, (batch + 1) * BATCH)
    assert_passes(lambda call: check_jvp(ge.jvp, call), seeds, random_call)


@pytest.mark.parametrize("batch", shorten(range(2)))
def test_random_derivatives_of_plans(batch: int) -> None:
    """`vjp` and `jvp` of what einsum_plan makes of the same call."""
    seeds = range(batch * BATCH, (batch + 1) * BATCH)
    assert_passes(lambda call: check_vjp(vjp_of_plan, call), seeds, random_call)
    assert_passes(lambda call: check_jvp(jvp_of_plan, call), seeds, random_call)


@pytest.mark.parametrize("batch", shorten(range(5)))
def test_random_second_derivatives(batch: int) -> None:
    """The derivatives of the gradients, as a function of operands and cotangent."""
    assert_passes(
        lambda call: check_second(ge.Plan.vjp, call), range(batch * 100, (batch + 1) * 100), random_plain_call
    )


@pytest.mark.parametrize("device", ["simulated", REAL])
@pytest.mark.parametrize("batch", shorten(range(6)))
def test_random_gradients_on_a_device(device: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On numpy arrays that go there and back, value, gradients and tangents."""
    use(device, monkeypatch)

    def check(call: Call) -> None:
        if not call.cpu_only:
            check_vjp(partial(ge.vjp, backend="cuda"), call)
            check_jvp(partial(ge.jvp, backend="cuda"), call)

    assert_passes(check, range(batch * 50, (batch + 1) * 50), random_call)


def use(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets `backend="cuda"` mean the simulated device, or sees that there is a real one."""
    if device == "simulated":
        simulated_backend().runtime.calls.clear()
        monkeypatch.setattr(ge.backends.select, "cuda_backend", simulated_backend)
    else:
        real_runtime()


def vjp_of_plan(
    *args: Any, dtype: Any = None, casting: str = "safe", optimize: Any = "auto", **options: Any
) -> tuple[Any, Any]:
    plan = ge.einsum_plan(*args, dtype=dtype, optimize=optimize)
    return ge.vjp(plan, *operands_of(args), **options)


def jvp_of_plan(
    subscripts: Any,
    operands: Sequence[Any],
    tangents: Sequence[Any],
    *,
    dtype: Any = None,
    casting: str = "safe",
    optimize: Any = "auto",
    **options: Any,
) -> tuple[Any, Any]:
    plan = ge.einsum_plan(*arguments_of(subscripts, operands), dtype=dtype, optimize=optimize)
    return ge.jvp(plan, operands, tangents, **options)


# --- the checkers


def check_vjp(vjp: Callable[..., Any], call: Call) -> None:
    """AssertionError unless value and pullback are right, own what they return, and repeat themselves."""
    given = [*call.operands, *(direction.cotangent for direction in call.directions)]
    copies = [np.array(array) for array in given]
    try:
        value, pullback = vjp(*call.args, **call.of_vjp)
    except ge.PlanError as error:
        if call.may_not_fit:
            return
        raise AssertionError(f"raises PlanError: {error}") from error
    assert_value(value, call)
    rounds: list[tuple[Sequence[Any], list[np.ndarray]]] = []  # the first cotangent comes again after the second
    for direction in (*call.directions, call.directions[0]):
        gradients = pullback(direction.cotangent)
        assert_gradients(gradients, direction, call)
        for earlier, copy in rounds:
            assert all(map(same_bits, earlier, copy)), "a later call changed an earlier one's gradients"
        rounds.append((gradients, [np.array(gradient) for gradient in gradients]))
    assert all(map(same_bits, rounds[2][1], rounds[0][1])), "the same cotangent gives other gradients"
    assert all(map(same_bits, given, copies)), "an operand or cotangent was changed"
    assert_own_memory([value, *(gradient for gradients, _ in rounds for gradient in gradients)], given)


def check_jvp(jvp: Callable[..., Any], call: Call) -> None:
    """AssertionError unless value and tangent are the oracle's, some tangents left out the second time."""
    expression = multilinear(call.args)
    factors = [wide(operand) for operand in call.operands]
    for direction, still in zip(call.directions, (frozenset(), call.still), strict=True):
        tangents = tuple(None if k in still else tangent for k, tangent in enumerate(direction.tangents))
        given = [*call.operands, *(tangent for tangent in tangents if tangent is not None)]
        copies = [np.array(array) for array in given]
        value, tangent = jvp(call.subscripts, call.operands, tangents, **call.options)
        assert_value(value, call)
        assert np.asarray(tangent).dtype == call.dtype, f"the tangent's dtype is {np.asarray(tangent).dtype}"
        assert_close("the tangent", tangent, expression.derivative(factors, tangents), call.tolerance())
        assert all(map(same_bits, given, copies)), "an operand or tangent was changed"
        assert_own_memory([value, tangent], given)


def assert_value(value: Any, call: Call) -> None:
    assert_agrees(value, reference(*call.args, **call.of_einsum))
    assert_layout(value, Case(call.args, call.of_einsum, True, ""))


def assert_gradients(gradients: Any, direction: Direction, call: Call) -> None:
    """Shapes and dtypes, and <g, J t> = <gradients, t>: of the real parts, or wholly where J is complex linear."""
    assert type(gradients) is tuple, f"gradients are a {type(gradients).__name__}"
    operands = [np.asarray(call.operands[position]) for position in call.positions]
    assert len(gradients) == len(operands), f"{len(gradients)} gradients"
    for gradient, operand in zip(gradients, operands, strict=True):
        kind, expected = (np.shape(gradient), np.asarray(gradient).dtype), (operand.shape, operand.dtype)
        assert kind == expected, f"a gradient is {kind}, its operand {expected}"

    factors = [wide(operand) for operand in call.operands]
    tangents = [direction.tangents[position] for position in call.positions]
    pushed = multilinear(call.args).derivative(factors, direction.tangents)
    cotangent = wide(direction.cotangent)
    forward = np.vdot(cotangent, pushed.value)
    backward = sum(
        np.vdot(wide(gradient), wide(tangent)) for gradient, tangent in zip(gradients, tangents, strict=True)
    )
    off = backward - forward
    if not all(operand.dtype.kind == "c" for operand in operands):
        off = np.real(off)
    tolerance = call.tolerance(*(operand.dtype for operand in operands))
    error = tolerance * np.sum(np.abs(cotangent) * pushed.magnitude)
    assert abs(off) <= error, f"<gradients, t> = {backward}, not <g, J t> = {forward}, within {error:.3g}"


def assert_close(name: str, got: Any, expected: Sum, tolerance: float) -> None:
    assert np.shape(got) == expected.value.shape, f"{name} has shape {np.shape(got)}, not {expected.value.shape}"
    excess = np.abs(wide(got) - expected.value) - tolerance * expected.magnitude
    assert np.all(excess <= 0), f"{name} is off by up to {excess.max():.3g}:\n{got}\nnot\n{expected.value}"


def assert_own_memory(results: Sequence[Any], given: Sequence[Any]) -> None:
    """No result lies in memory that was given, or in another's, and each can be written into."""
    arrays = [result for result in results if isinstance(result, np.ndarray)]
    for result in arrays:
        assert result.flags.writeable, "a result is read-only"
        shared = [x for x in given if isinstance(x, np.ndarray) and np.may_share_memory(result, x)]
        assert not shared, "a result shares memory with an operand, cotangent or tangent"
    assert not any(np.may_share_memory(x, y) for x, y in combinations(arrays, 2)), "two results share memory"


def same_bits(x: Any, y: Any) -> bool:
    x, y = np.asarray(x), np.asarray(y)
    padded = x.dtype.char in "gG"  # whose elements end in bytes that mean nothing
    return (x.shape, x.dtype) == (y.shape, y.dtype) and (np.array_equal(x, y) if padded else x.tobytes() == y.tobytes())


def check_second(vjp: Callable[..., ge.Plan], call: Call) -> None:
    """The gradients of gradients that the expression's multilinearity leaves no choice of.

    Let G_i(x, g) be the gradients of E(x), for i in wrt. With cotangents u_i, L = Re sum <u_i, G_i> = Re <g, E_u> for
    E_u = sum_i E(x with u_i for x_i), since G_i is the adjoint of E in x_i. So L's gradient of x_k is the sum over the
    i other than k of the gradient of E(x with u_i for x_i), and that of g is E_u.
    """
    plan = ge.einsum_plan(*call.args, optimize=call.options.get("optimize", "auto"))
    gradients = vjp(plan, call.wrt)
    second = vjp(gradients)
    is_complex = call.dtype.kind == "c"
    factors = [wide(operand) for operand in call.operands]
    cotangent = wide(call.directions[0].cotangent)
    rng = np.random.default_rng(prod(cotangent.shape))
    cotangents = [quarters(rng, np.shape(call.operands[position]), is_complex) for position in call.positions]

    expression = multilinear(call.args)
    swapped = [
        (position, replaced(factors, position, u)) for position, u in zip(call.positions, cotangents, strict=True)
    ]
    nothing = [Sum(np.zeros(shape), np.zeros(shape)) for shape in (*expression.shapes, expression.result_shape)]
    expected = [
        sum((expression.gradient(changed, k, cotangent) for i, changed in swapped if i != k), start=nothing[k])
        for k in range(len(factors))
    ]
    expected.append(sum((expression(changed) for _, changed in swapped), start=nothing[-1]))
    got = as_tuple(ge.run_plan(second, *factors, cotangent, *cotangents))
    assert len(got) == len(expected), f"{len(got)} gradients of gradients, not {len(expected)}"
    for number, (ours, right) in enumerate(zip(got, expected, strict=True)):
        assert_close(f"second derivative {number}", ours, right, 2 * TOLERANCES[call.dtype])
    for derivative, inputs in ((gradients, [*factors, cotangent]), (second, [*factors, cotangent, *cotangents])):
        assert_adjoint(derivative, vjp, inputs, is_complex)


def assert_adjoint(plan: ge.Plan, vjp: Callable[..., ge.Plan], inputs: Sequence[np.ndarray], is_complex: bool) -> None:
    """Re <u, J t> = Re <J^H u, t> for the plan's jvp and vjp at these inputs: exactly, as few bits are multiplied."""
    rng = np.random.default_rng(len(inputs))
    tangents = [quarters(rng, array.shape, is_complex) for array in inputs]
    outputs = as_tuple(ge.run_plan(plan, *inputs))
    cotangents = [quarters(rng, np.shape(output), is_complex) for output in outputs]

    pushed = as_tuple(ge.run_plan(plan.jvp(), *inputs, *tangents))
    pulled = as_tuple(ge.run_plan(vjp(plan), *inputs, *cotangents))
    forward = sum(np.vdot(u, y).real for u, y in zip(cotangents, pushed, strict=True))
    backward = sum(np.vdot(x, t).real for x, t in zip(pulled, tangents, strict=True))
    assert forward == backward, f"Re <u, J t> = {forward}, but Re <J^H u, t> = {backward}"


def as_tuple(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def quarters(rng: np.random.Generator, shape: tuple[int, ...], is_complex: bool) -> np.ndarray:
    """Random multiples of a quarter, whose products and sums are exact."""
    real, imaginary = rng.integers(-6, 7, (2, *shape)) / 4
    return real + 1j * imaginary if is_complex else real


# --- cases whose gradients can be written down

ZERO_TO_17 = np.arange(18.0).reshape(3, 3, 2)
SPREAD = np.array([[1.0, 9, 2, 9], [9, 9, 9, 9], [3, 9, 4, 9]])
X = np.array([2.0, 3.0])

# name: (arguments, cotangent, gradients)
NAMED: dict[str, tuple[tuple[Any, ...], Any, tuple[Any, ...]]] = {
    "trace": (("ii->", [[1.0, 2], [3, 4]]), 10.0, ([[10, 0], [0, 10]],)),
    "diagonal": (("ii->i", [[1.0, 2], [3, 4]]), [5.0, 7.0], ([[5, 0], [0, 7]],)),
    "diagonal times matrix": (
        ("ii,ij->j", [[2.0, 7], [9, 3]], [[1.0, 2, 3], [4, 5, 6]]),
        [1.0, 10.0, 100.0],
        ([[321, 0], [0, 654]], [[2, 20, 200], [3, 30, 300]]),
    ),
    "one against many, summed": (("i,i->", [3.0], [1.0, 2, 3, 4, 5, 6, 7]), 2.0, ([56], [6] * 7)),
    "one against many, kept": (
        ("ij,ij->ij", [[1.0, 2]], [[3.0], [4], [5]]),
        [[1.0, 10], [100, 1000], [10000, 100000]],
        ([[50403, 504030]], [[21], [2100], [210000]]),
    ),
    "a singleton mode": (("ij,j->i", [[1.0], [2]], [3.0]), [1.0, 10.0], ([[3], [30]], [21])),
    "a singleton mode, and a lonely one": (
        ("aib,jb->ij", [[[2.0]]], [[3.0], [5]]),
        [[1.0, 10]],
        ([[[53]]], [[2], [20]]),
    ),
    "one against none": (
        ("ij,jk->ik", np.ones((3, 1)), np.ones((0, 5))), np.ones((3, 5)), ([[0]] * 3, np.ones((0, 5))),
    ),
    "embedding": (("i->ii", [5.0, 6.0]), [[1.0, 2], [3, 4]], ([1, 4],)),
    "embedding of a transpose": (("ij->jji", np.ones((2, 3))), ZERO_TO_17, ([[0, 8, 16], [1, 9, 17]],)),
    "embedding of a product": (("i,i->ii", [5.0, 6.0], [7.0, 8.0]), [[1.0, 2], [3, 4]], ([7, 32], [5, 24])),
    "strided, reversed and transposed": (
        ("ij,jk->ik", SPREAD[::2, ::2], np.array([[5.0, 7], [6, 8]]).T),
        np.eye(4)[::-3, ::-3],
        ([[5, 7], [6, 8]], [[1, 3], [2, 4]]),
    ),
    "one number, seen three times": (
        ("i,i->i", np.broadcast_to(2.0, 3), [1.0, 2, 3]),
        np.broadcast_to(10.0, 3),
        ([10, 20, 30], [20, 20, 20]),
    ),
    "sum": (("ij->", np.ones((2, 3))), 3.0, ([[3] * 3] * 2,)),
    "lonely labels": (
        ("ij,k->i", [[1.0, 2], [3, 4]], [5.0, 6, 7]), [1.0, 10.0], ([[18, 18], [180, 180]], [73] * 3),
    ),
    "transpose": (("ij->ji", np.ones((2, 3))), np.arange(6.0).reshape(3, 2), ([[0, 2, 4], [1, 3, 5]],)),
    "identity": (("i->i", [1.0, 2.0]), [3.0, 4.0], ([3, 4],)),
    "an array times itself": (("i,i->", X, X), 5.0, ([10, 15], [10, 15])),
    "a quadratic form of one vector": (
        ("i,ij,j->", X, [[1.0, 2], [3, 4]], X), 1.0, ([8, 18], [[4, 6], [6, 9]], [11, 16]),
    ),
    "hyperedge": (("i,i,i->", [2.0], [3.0], [5.0]), 7.0, ([105], [70], [42])),
    "factors of zero": (
        ("i,i,i->i", [0.0, 2, 0], [0.0, 3, 4], [5.0, 7, 6]), [1.0, 1, 1], ([0, 21, 24], [0, 14, 0], [0, 6, 0]),
    ),
    "scalars": ((",->", 2.0, 3.0), 10.0, (30, 20)),
    "scalar times matrix": ((",ij->ji", 2.0, [[1.0, 2, 3]]), [[1.0], [10], [100]], (321, [[2, 20, 200]])),
    "sum of nothing": (("ij->i", np.ones((2, 0))), [1.0, 1.0], (np.ones((2, 0)),)),
    "product over nothing": (
        ("ij,jk->ik", np.ones((2, 0)), np.ones((0, 3))), np.ones((2, 3)), (np.ones((2, 0)), np.ones((0, 3))),
    ),
    "product with nothing": (("i,j->i", [1.0, 2.0], np.ones(0)), [1.0, 1.0], ([0, 0], np.ones(0))),
    "ellipsis, summed where it was broadcast": (
        ("...i,...->...i", [[1.0, 2]], [3.0, 4]),
        [[1.0, 10], [100, 1000]],
        ([[403, 4030]], [21, 2100]),
    ),
    "labels of any kind": (
        ([[1.0, 2]], [None, "b"], [3.0, 4], ["b"], [None]), [10.0], ([[30, 40]], [10, 20]),
    ),
    "complex": (("i,i->", [1 + 2j], [3 + 4j]), 1j, ([4 + 3j], [2 + 1j])),
    "complex, and only one": (("i->", [1 + 2j]), 3 - 1j, ([3 - 1j],)),
    "complex, three": (("i,i,i->", [1j], [2 + 0j], [1 + 1j]), 1 + 0j, ([2 - 2j], [-1 - 1j], [-2j])),
    "real times complex": (("i,i->", [2.0], [3 + 4j]), 1 + 1j, ([7], [2 + 2j])),
    "real, as complex": (("i->i", [2.0]), [1 + 1j], ([1],)),
}  # fmt: skip


@pytest.mark.parametrize("device", ["cpu", "simulated", REAL])
@pytest.mark.parametrize("name", NAMED)
def test_named_gradients_are_as_written(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if device != "cpu":
        use(device, monkeypatch)
    args, cotangent, expected = NAMED[name]
    dtype = {"dtype": "complex128"} if name == "real, as complex" else {}
    value, pullback = ge.vjp(*args, **dtype, backend="cpu" if device == "cpu" else "cuda")
    assert np.array_equal(value, ge.einsum(*args, **dtype))
    gradients = pullback(cotangent)
    for gradient, right, operand in zip(gradients, expected, operands_of(args), strict=True):
        assert np.asarray(gradient).dtype == np.asarray(operand).dtype
        assert np.shape(gradient) == np.shape(right)
        assert np.array_equal(gradient, right), f"{gradient}, not {right}"


def test_each_gradient_of_one_operand_asked_for_twice_is_its_own() -> None:
    _, pullback = ge.vjp("i->i", np.array([1.0, 2.0]), wrt=(0, 0))
    cotangent = np.array([3.0, 4.0])
    first, second = pullback(cotangent)
    assert first.tolist() == second.tolist() == [3, 4]
    assert_own_memory([first, second], [cotangent])


def test_no_gradient_is_an_empty_tuple() -> None:
    value, pullback = ge.vjp("i->", [1.0, 2.0], wrt=())
    assert value == 3
    assert pullback(1.0) == ()


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "trace of a matrix that is not square": (lambda: ge.vjp("ii->", np.ones((2, 3))), ge.SubscriptsError, "i"),
    "tangent of the same": (
        lambda: ge.jvp("ii->", [np.ones((2, 3))], [np.ones((2, 3))]), ge.SubscriptsError, "i",
    ),
    "gradient of integers": (lambda: ge.vjp("i,i->", [1.0], [1]), ge.DtypeError, "operand 1"),
    "gradient of bools": (lambda: ge.vjp("i,i->", [True], [1.0], wrt=0), ge.DtypeError, "operand 0"),
    "tangent of integers": (lambda: ge.jvp("i,i->", ([1.0], [1]), ([1.0], [1])), ge.DtypeError, "operand 1"),
    "cotangent of another shape": (lambda: ge.vjp("i->", [1.0])[1]([1.0]), ge.OperandError, r"\(1,\)"),
    "cotangent that would broadcast": (lambda: ge.vjp("i->i", [1.0, 2.0])[1](1.0), ge.OperandError, r"\(2,\)"),
    "tangent of another shape": (lambda: ge.jvp("i->", ([1.0],), ([1.0, 2.0],)), ge.OperandError, r"\(2,\)"),
    "too few tangents": (lambda: ge.jvp("i,i->", ([1.0], [1.0]), ([1.0],)), ge.OperandError, "2"),
    "position of no operand": (lambda: ge.vjp("i->", [1.0], wrt=1), ge.OperandError, "1"),
    "complex cotangent of a real value": (lambda: ge.vjp("i->", [1.0])[1](1j), ge.DtypeError, "complex128"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_what_is_wrong(name: str) -> None:
    call, error, words = REFUSED[name]
    with pytest.raises(error, match=words):
        call()


# --- the checkers can fail: each planted fault is caught


def oracle_vjp(*args: Any, wrt: Any = None, optimize: Any = None, memory_limit: Any = None, **options: Any) -> Any:
    """A vjp that is right by definition."""
    operands = operands_of(args)
    arrays = [np.array(operand) for operand in operands]
    expression = multilinear(args)

    def pullback(cotangent: Any) -> tuple[np.ndarray, ...]:
        found = []
        for position in wrt_positions(wrt, len(operands)):
            gradient = expression.gradient(arrays, position, np.asarray(cotangent)).value
            dtype = arrays[position].dtype
            found.append((gradient if dtype.kind == "c" else gradient.real).astype(dtype))
        return tuple(found)

    return oracle_einsum(*args, **options), pullback


def oracle_jvp(
    subscripts: Any, operands: Sequence[Any], tangents: Sequence[Any], optimize: Any = None, **options: Any
) -> tuple[Any, Any]:
    """A jvp that is right by definition."""
    args = arguments_of(subscripts, operands)
    value = oracle_einsum(*args, **options)
    tangent = multilinear(args).derivative(operands, tangents).value
    return value, tangent.astype(np.asarray(value).dtype)


def bent(change: Callable[..., Sequence[Any]]) -> Callable[..., Any]:
    """oracle_vjp with `change(gradients, cotangent, arguments, wrt)` for its gradients."""

    @wraps(change)
    def vjp(*args: Any, wrt: Any = None, **options: Any) -> Any:
        value, pullback = oracle_vjp(*args, wrt=wrt, **options)

        def bent_pullback(cotangent: Any) -> tuple[Any, ...]:
            return tuple(change(list(pullback(cotangent)), cotangent, args, wrt))

        return value, bent_pullback

    return vjp


@bent
def without_the_conjugate(gradients: list[Any], cotangent: Any, args: tuple[Any, ...], wrt: Any) -> list[Any]:
    conjugates = [np.conj(wide(operand)) for operand in operands_of(args)]
    wrongly = [
        multilinear(args).gradient(conjugates, position, np.asarray(cotangent)).value
        for position in wrt_positions(wrt, len(conjugates))
    ]
    pairs = zip(wrongly, gradients, strict=True)
    return [(x if right.dtype.kind == "c" else x.real).astype(right.dtype) for x, right in pairs]


@bent
def conjugated(gradients: list[Any], *_: Any) -> list[Any]:
    """JAX's convention."""
    return [gradient.conj() if gradient.dtype.kind == "c" else gradient for gradient in gradients]


@bent
def twice(gradients: list[Any], *_: Any) -> list[Any]:
    return [gradient * gradient.dtype.type(2) for gradient in gradients]


@bent
def the_last_twice(gradients: list[Any], *_: Any) -> list[Any]:
    return [*gradients[:-1], gradients[-1] * gradients[-1].dtype.type(2)]


@bent
def swapped(gradients: list[Any], *_: Any) -> list[Any]:
    for i, j in combinations(range(len(gradients)), 2):
        if (gradients[i].shape, gradients[i].dtype) == (gradients[j].shape, gradients[j].dtype):
            gradients[i], gradients[j] = gradients[j], gradients[i]
    return gradients


@bent
def transposed(gradients: list[Any], *_: Any) -> list[Any]:
    return [gradient.T for gradient in gradients]


@bent
def not_summed_where_broadcast(gradients: list[Any], cotangent: Any, args: tuple[Any, ...], wrt: Any) -> list[Any]:
    """Of the products that belong to an element the last one wins."""
    expression, operands = multilinear(args), [wide(operand) for operand in operands_of(args)]
    for number, position in enumerate(wrt_positions(wrt, len(operands))):
        if 1 in expression.shapes[position] and 0 not in expression.result_shape:
            ones = replaced(operands, position, np.ones(expression.shapes[position]))
            products = expression.products(ones).conj() * wide(cotangent).reshape(-1)[expression.result]
            flat = np.zeros(gradients[number].size, products.dtype)
            flat[expression.places[position]] = products
            gradient = flat if gradients[number].dtype.kind == "c" else flat.real
            gradients[number] = gradient.reshape(gradients[number].shape).astype(gradients[number].dtype)
    return gradients


@bent
def of_the_broadcast_shape(gradients: list[Any], *_: Any) -> list[Any]:
    return [np.concatenate([x, x], x.shape.index(1)) if 1 in x.shape else x for x in gradients]


@bent
def dense_off_the_diagonal(gradients: list[Any], cotangent: Any, args: tuple[Any, ...], wrt: Any) -> list[Any]:
    for number, position in enumerate(wrt_positions(wrt, len(operands_of(args)))):
        off = np.ones(gradients[number].size, bool)
        off[multilinear(args).places[position]] = False
        gradients[number] = gradients[number] + off.reshape(gradients[number].shape).astype(gradients[number].dtype)
    return gradients


@bent
def zero(gradients: list[Any], *_: Any) -> list[Any]:
    return [np.zeros_like(gradient) for gradient in gradients]


@bent
def complex_for_real(gradients: list[Any], cotangent: Any, *_: Any) -> list[Any]:
    return [gradient + 0 * np.asarray(cotangent).reshape(-1)[:1].sum() for gradient in gradients]


@bent
def the_imaginary_part_for_the_real(gradients: list[Any], cotangent: Any, args: tuple[Any, ...], wrt: Any) -> list[Any]:
    operands = [np.asarray(operand) for operand in operands_of(args)]
    wrongly = [
        multilinear(args).gradient(operands, position, np.asarray(cotangent)).value
        for position in wrt_positions(wrt, len(operands))
    ]
    pairs = zip(wrongly, gradients, strict=True)
    return [
        right if right.dtype.kind == "c" or x.dtype.kind != "c" else x.imag.astype(right.dtype) for x, right in pairs
    ]


@bent
def in_ascending_order(gradients: list[Any], cotangent: Any, args: tuple[Any, ...], wrt: Any) -> list[Any]:
    order = np.argsort(wrt_positions(wrt, len(operands_of(args))))
    return [gradients[number] for number in order]


@bent
def of_every_operand(gradients: list[Any], cotangent: Any, args: tuple[Any, ...], wrt: Any) -> list[Any]:
    return list(oracle_vjp(*args)[1](cotangent)) if wrt is not None else gradients


@bent
def the_cotangent_itself(gradients: list[Any], cotangent: Any, *_: Any) -> list[Any]:
    return [cotangent if same_bits(gradient, cotangent) else gradient for gradient in gradients]


@bent
def one_array_for_two(gradients: list[Any], *_: Any) -> list[Any]:
    alike = [next(x for x in gradients if same_bits(x, gradient)) for gradient in gradients]
    return alike


@bent
def read_only(gradients: list[Any], *_: Any) -> list[Any]:
    return [np.broadcast_to(gradient, gradient.shape) for gradient in gradients]


@bent
def into_the_cotangent(gradients: list[Any], cotangent: Any, *_: Any) -> list[Any]:
    if isinstance(cotangent, np.ndarray) and cotangent.flags.writeable:
        cotangent[...] = 0
    return gradients


@bent
def into_an_operand(gradients: list[Any], cotangent: Any, args: tuple[Any, ...], wrt: Any) -> list[Any]:
    for operand in operands_of(args):
        if isinstance(operand, np.ndarray) and operand.flags.writeable:
            operand[...] = 0
    return gradients


def of_a_stale_cotangent(*args: Any, **options: Any) -> Any:
    value, pullback = oracle_vjp(*args, **options)
    seen: list[Any] = []

    def stale(cotangent: Any) -> Any:
        seen.append(cotangent)
        return pullback(seen[0])

    return value, stale


def in_one_buffer(*args: Any, **options: Any) -> Any:
    value, pullback = oracle_vjp(*args, **options)
    buffers: list[Any] = []

    def again(cotangent: Any) -> Any:
        gradients = pullback(cotangent)
        if not buffers:
            buffers.extend(gradients)
        for buffer, gradient in zip(buffers, gradients, strict=True):
            buffer[...] = gradient
        return tuple(buffers)

    return value, again


def growing(*args: Any, **options: Any) -> Any:
    """What a pullback leaves behind is added to what the next one finds."""
    value, pullback = oracle_vjp(*args, **options)
    calls: list[Any] = []

    def grown(cotangent: Any) -> Any:
        calls.append(cotangent)
        return tuple(np.asarray(x + x.dtype.type(len(calls) // 3)) for x in pullback(cotangent))

    return value, grown


def of_another_value(*args: Any, **options: Any) -> Any:
    value, pullback = oracle_vjp(*args, **options)
    return value + value.dtype.type(1), pullback


def that_never_fits(*args: Any, memory_limit: Any = None, **options: Any) -> Any:
    if memory_limit is not None:
        raise ge.PlanError("no plan keeps to the limit")
    return oracle_vjp(*args, **options)


def tangent_without_the_last(subscripts: Any, operands: Any, tangents: Any, **options: Any) -> Any:
    given = [k for k, tangent in enumerate(tangents) if tangent is not None]
    return oracle_jvp(subscripts, operands, replaced(tangents, given[-1], None) if given else tangents, **options)


def tangent_of_what_stands_still(subscripts: Any, operands: Any, tangents: Any, **options: Any) -> Any:
    moved = [
        np.ones(np.shape(x)) if tangent is None else tangent for x, tangent in zip(operands, tangents, strict=True)
    ]
    value, tangent = oracle_jvp(subscripts, operands, moved, **options)
    return value, tangent


def tangent_twice(*args: Any, **options: Any) -> Any:
    value, tangent = oracle_jvp(*args, **options)
    return value, tangent * tangent.dtype.type(2)


def tangent_conjugated(*args: Any, **options: Any) -> Any:
    value, tangent = oracle_jvp(*args, **options)
    return value, tangent.conj() if tangent.dtype.kind == "c" else tangent


def tangent_too_wide(*args: Any, **options: Any) -> Any:
    value, tangent = oracle_jvp(*args, **options)
    return value, tangent.astype("clongdouble")


def tangent_itself(subscripts: Any, operands: Any, tangents: Any, **options: Any) -> Any:
    value, tangent = oracle_jvp(subscripts, operands, tangents, **options)
    same = [x for x in tangents if x is not None and same_bits(x, tangent)]
    return value, same[0] if same else tangent


def value_for_tangent(*args: Any, **options: Any) -> Any:
    value, _ = oracle_jvp(*args, **options)
    return value, value.copy()


def plan_bent(change: Callable[[ge.Plan], ge.Plan]) -> Callable[..., ge.Plan]:
    """Plan.vjp with `change` of its plan."""

    @wraps(change)
    def vjp(plan: ge.Plan, wrt: Any = None) -> ge.Plan:
        return change(plan.vjp(wrt))

    return vjp


@plan_bent
def without_conjugates(plan: ge.Plan) -> ge.Plan:
    return with_steps(plan, [
        replace(step, conj_lhs=False, conj_rhs=False) if isinstance(step, Contract) else step for step in plan.steps
    ])  # fmt: skip


@plan_bent
def without_the_last_part(plan: ge.Plan) -> ge.Plan:
    return with_steps(plan, [
        replace(step, sources=step.sources[:-1]) if isinstance(step, Add) else step for step in plan.steps
    ])  # fmt: skip


@plan_bent
def with_a_part_twice(plan: ge.Plan) -> ge.Plan:
    return with_steps(plan, [
        replace(step, sources=(step.sources[0], *step.sources)) if isinstance(step, Add) and step.sources else step
        for step in plan.steps
    ])  # fmt: skip


@plan_bent
def with_two_outputs_swapped(plan: ge.Plan) -> ge.Plan:
    outputs = list(plan.outputs)
    for i, j in combinations(range(len(outputs)), 2):
        if plan.shape(outputs[i]) == plan.shape(outputs[j]):
            outputs[i], outputs[j] = outputs[j], outputs[i]
    return replace(plan, outputs=tuple(outputs))


@plan_bent
def with_the_last_twice(plan: ge.Plan) -> ge.Plan:
    last = plan.outputs[-1]
    doubled = replace(plan, steps=(*plan.steps, Add((last, last), plan.term(last))))
    return replace(doubled, outputs=(*plan.outputs[:-1], len(plan.inputs) + len(plan.steps)))


def with_steps(plan: ge.Plan, steps: Sequence[Any]) -> ge.Plan:
    return replace(plan, steps=tuple(steps))


def complaints(
    check: Callable[..., None], derivative: Callable[..., Any], make: Callable[[Random], Call]
) -> Iterator[str]:
    """What the checker says of some hundred calls, as far as it complains."""
    for seed in range(400):
        try:
            check(derivative, make(Random(seed)))
        except AssertionError as error:
            yield f"{error}"


def test_a_right_vjp_and_jvp_pass_the_checkers() -> None:
    assert list(complaints(check_vjp, oracle_vjp, random_call)) == []
    assert list(complaints(check_jvp, oracle_jvp, random_call)) == []


# What is wrong, and the words in which some call must have it noticed.
VJP_FAULTS: dict[Callable[..., Any], str] = {
    without_the_conjugate: "<gradients, t>",
    conjugated: "<gradients, t>",
    twice: "<gradients, t>",
    the_last_twice: "<gradients, t>",
    swapped: "<gradients, t>",
    transposed: "<gradients, t>",
    not_summed_where_broadcast: "<gradients, t>",
    of_the_broadcast_shape: "its operand",
    dense_off_the_diagonal: "<gradients, t>",
    zero: "<gradients, t>",
    complex_for_real: "its operand",
    the_imaginary_part_for_the_real: "<gradients, t>",
    in_ascending_order: "<gradients, t>",
    of_every_operand: "gradients",
    the_cotangent_itself: "a result shares memory",
    one_array_for_two: "two results share memory",
    read_only: "read-only",
    into_the_cotangent: "cotangent was changed",
    into_an_operand: "operand or cotangent was changed",
    of_a_stale_cotangent: "<gradients, t>",
    in_one_buffer: "a later call changed",
    growing: "other gradients",
    of_another_value: "values",
    that_never_fits: "PlanError",
}
JVP_FAULTS: dict[Callable[..., Any], str] = {
    tangent_without_the_last: "the tangent is off",
    tangent_of_what_stands_still: "the tangent is off",
    tangent_twice: "the tangent is off",
    tangent_conjugated: "the tangent is off",
    tangent_too_wide: "the tangent's dtype",
    tangent_itself: "a result shares memory",
    value_for_tangent: "the tangent is off",
}
PLAN_FAULTS: dict[Callable[..., Any], str] = {
    without_conjugates: "second derivative",
    without_the_last_part: "second derivative",
    with_a_part_twice: "second derivative",
    with_two_outputs_swapped: "second derivative",
    with_the_last_twice: "second derivative",
}


@pytest.mark.parametrize("fault", VJP_FAULTS)
def test_the_checker_of_gradients_catches_a_planted_fault(fault: Callable[..., Any]) -> None:
    assert any(VJP_FAULTS[fault] in complaint for complaint in complaints(check_vjp, fault, random_call))


@pytest.mark.parametrize("fault", JVP_FAULTS)
def test_the_checker_of_tangents_catches_a_planted_fault(fault: Callable[..., Any]) -> None:
    assert any(JVP_FAULTS[fault] in complaint for complaint in complaints(check_jvp, fault, random_call))


@pytest.mark.parametrize("fault", PLAN_FAULTS)
def test_the_checker_of_second_derivatives_catches_a_planted_fault(fault: Callable[..., Any]) -> None:
    assert any(PLAN_FAULTS[fault] in complaint for complaint in complaints(check_second, fault, random_plain_call))


@pytest.mark.parametrize("fault", PLAN_FAULTS)
def test_the_exact_inner_product_catches_a_planted_fault(fault: Callable[..., Any]) -> None:
    """Of a vjp against a jvp that is right, for the gradients as a function."""

    def check(vjp: Callable[..., ge.Plan], call: Call) -> None:
        rng = np.random.default_rng(1)
        gradients = ge.einsum_plan(*call.args).vjp()
        shapes = [gradients.shape(register) for register in range(len(gradients.inputs))]
        assert_adjoint(gradients, vjp, [quarters(rng, shape, True) for shape in shapes], call.dtype.kind == "c")

    assert any("Re <u, J t>" in complaint for complaint in complaints(check, fault, random_complex_call))


def random_complex_call(rng: Random) -> Call:
    while True:
        call = random_plain_call(rng)
        if call.dtype.kind == "c":
            return call


# --- the generator, and the oracle


def test_the_index_points_agree_with_the_oracle() -> None:
    for seed in range(500):
        call = random_call(Random(seed))
        found = multilinear(call.args)([wide(operand) for operand in call.operands])
        expected = reference(*call.args, dtype="complex128", casting="unsafe")
        assert np.array_equal(found.value, expected.value)
        assert np.allclose(found.magnitude * TOLERANCES[np.dtype("complex128")], expected.error, rtol=1e-12, atol=0)


def test_the_generator_of_calls_reaches_every_oddity() -> None:
    calls = [random_call(Random(seed)) for seed in range(2_000)]
    text = "\n".join(call.description for call in calls)
    for oddity in ("again", "reversed", "permuted", "strided", "stride 0", "read-only", "list", "scalar", "F"):
        assert f"] {oddity}" in text, oddity
        assert f"cotangent float64 {oddity}" in text or oddity in ("again", "scalar"), oddity
    for oddity in ("float16[", "bfloat16[", "float32[", "complex64[", "longdouble", "int8[", "bool[", "uint64["):
        assert oddity.replace("longdouble", f"{np.dtype('longdouble')}[") in text, oddity
    for oddity in ("wrt=None", "wrt=0,", "wrt=[", "wrt=(", "memory_limit=1GiB", "dtype=", "order="):
        assert oddity in text, oddity
    for oddity in ("optimize=[", "casting=", "Ellipsis", "...", "frozenset", "😀", "α"):
        assert oddity in text, oddity
    number = Counter(kind for call in calls for kind in kinds(call))
    assert min(number[f"{operands} operands"] for operands in range(1, 7)) > 20, number
    for kind in ("repeats in an input", "repeats in the output", "a size of 0", "mixed", "a position twice over",
                 "an integer operand", "broadcast", "many labels", "a label of one operand alone"):  # fmt: skip
        assert number[kind] > 10, (kind, number)


def kinds(call: Call) -> list[str]:
    """What is odd about a call."""
    terms, output, operands = parse(call.args)
    shapes = [operand.shape for operand in operands]
    terms, output = name_the_ellipsis(terms, output, [len(shape) for shape in shapes])
    sizes = label_sizes(terms, shapes)
    pairs = [
        (label, size)
        for term, shape in zip(terms, shapes, strict=True)
        for label, size in zip(term, shape, strict=True)
    ]
    given = [operand for operand in call.operands if isinstance(operand, np.ndarray)]
    dtypes = {operand.dtype.kind for operand in operands}
    oddities = {
        "repeats in an input": any(len(set(term)) < len(term) for term in terms),
        "repeats in the output": len(set(output)) < len(output),
        "a size of 0": 0 in sizes.values(),
        "broadcast": any(size == 1 < sizes[label] for label, size in pairs),
        "mixed": {"f", "c"} <= dtypes,
        "an integer operand": bool(dtypes & {*"biu"}),
        "a position twice over": len({id(operand) for operand in given}) < len(given),
        "many labels": len(sizes) > 52,
        "a label of one operand alone": 1
        in Counter(label for term in (*terms, output) for label in set(term)).values(),
    }
    return [f"{len(operands)} operands", *(name for name, is_so in oddities.items() if is_so)]
