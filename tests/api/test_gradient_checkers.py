"""The checkers of gradients, tangents and second derivatives can fail: each planted fault is caught."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import wraps
from itertools import combinations
from random import Random
from typing import Any

import numpy as np
import pytest
from call_checks import oracle_einsum
from gradient_checkers import assert_adjoint, check_jvp, check_second, check_vjp, quarters, same_bits
from random_gradients import Call, arguments_of, multilinear, random_call, random_plain_call, replaced
from wrong_gradients import VJP_FAULTS, oracle_vjp

import gpueinsum as ge
from gpueinsum.language.steps import Add, Contract


def oracle_jvp(
    subscripts: Any, operands: Sequence[Any], tangents: Sequence[Any], optimize: Any = None, **options: Any
) -> tuple[Any, Any]:
    """A jvp that is right by definition."""
    args = arguments_of(subscripts, operands)
    value = oracle_einsum(*args, **options)
    tangent = multilinear(args).derivative(operands, tangents).value
    return value, tangent.astype(np.asarray(value).dtype)


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
