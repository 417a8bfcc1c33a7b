"""What a vjp, a jvp and a plan's derivatives must do with a random call; AssertionErrors say what they do instead."""

from collections.abc import Callable, Sequence
from itertools import combinations
from math import prod
from typing import Any

import numpy as np
import pytest
from call_checks import assert_layout
from conftest import real_runtime, simulated_backend
from oracle import TOLERANCES, assert_agrees, reference
from random_expressions import Case
from random_gradients import Call, Direction, Sum, multilinear, replaced, wide

import gpueinsum as ge


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


def use(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets `backend="cuda"` mean the simulated device, or sees that there is a real one."""
    if device == "simulated":
        simulated_backend().runtime.calls.clear()
        monkeypatch.setattr(ge.backends.select, "cuda_backend", simulated_backend)
    else:
        real_runtime()
