"""Schedules: one decision, which explanations show and runs follow, down to the strides of every array."""

import dataclasses
import math

import numpy as np
import pytest
from expressions import EXPRESSIONS, arguments, random_operands

import gpueinsum as ge
from gpueinsum.backends.cpu.lower import lower_step
from gpueinsum.costs.profile import profile
from gpueinsum.language.steps import Add, Contract
from gpueinsum.schedule.predict import problem_of
from gpueinsum.schedule.problem import c_strides
from gpueinsum.schedule.schedule import schedule
from gpueinsum.schedule.select import candidates
from gpueinsum.text import seconds_text

MOST_POINTS = 1 << 21


def plan_of(name, dtype="float64"):
    """An expression of the table."""
    subscripts, shapes = EXPRESSIONS[name]
    return ge.einsum_plan(*arguments(subscripts, shapes), dtype=dtype)


def enlarged(name, dtype="float64"):
    """An expression of the table, its sizes other than 1 up to eight times as large."""
    subscripts, shapes = EXPRESSIONS[name]
    points = math.prod(size for _, size in plan_of(name).sizes)
    labels = sum(size > 1 for _, size in plan_of(name).sizes)
    factor = max(factor for factor in range(1, 9) if factor == 1 or points * factor**labels <= MOST_POINTS)
    larger = [tuple(size if size == 1 else size * factor for size in shape) for shape in shapes]
    return ge.einsum_plan(*arguments(subscripts, larger), dtype=dtype)


# ---------------------------------------------------------------- one decision


@pytest.mark.parametrize("device", ["cpu", "h200", "a100"])
def test_explanations_and_runs_read_the_same_schedule(device):
    for name in EXPRESSIONS:
        for plan in (plan_of(name), enlarged(name)):
            run, shown = schedule(plan, profile(device)), schedule(plan, profile(device), alternatives=True)
            assert [step.taken for step in run.steps] == [step.taken for step in shown.steps], name
            lines = ge.explain(plan, device).splitlines()
            if not run.steps:
                continue
            assert any(line.endswith(f": {seconds_text(run.seconds)}") and "predicted on" in line for line in lines)
            start = next(number for number, line in enumerate(lines) if line.startswith("step "))
            for line, step in zip(lines[start + 1 :], run.steps, strict=False):
                assert f"  {seconds_text(step.seconds) if step.seconds else '-'}  " in line, name


@pytest.mark.parametrize("device", ["cpu", "h200", "a100"])
def test_the_first_of_the_candidates_is_taken(device):
    for name in EXPRESSIONS:
        for plan in (plan_of(name), enlarged(name)):
            made, strides = schedule(plan, profile(device), alternatives=True), []
            strides += made.strides
            for step in made.steps:
                if not isinstance(step.step, Add):
                    problem = dataclasses.replace(
                        problem_of(step.step, dict(plan.sizes), plan.dtype, profile(device)),
                        strides=tuple(strides[source] for source in step.step.sources),
                    )
                    assert step.taken in (candidates(other)[1][0] for other in either_order(problem, step)), name
                assert step.taken.weight <= min(candidate.weight for candidate in step.candidates)
                strides.append(step.taken.strides)


def either_order(problem, step):
    """A problem as its result may lie in any order, and for what may be a large pair in that of its term alone."""
    return (problem, dataclasses.replace(problem, is_ordered=True)) if isinstance(step.step, Contract) else (problem,)


# ---------------------------------------------------------------- what it says is so


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", "complex128", "int64"])
def test_arrays_have_the_strides_that_the_schedule_says(dtype, order):
    for name in EXPRESSIONS:
        forward = plan_of(name, dtype), enlarged(name, dtype)
        for plan in (*forward, *(each.vjp() for each in forward if dtype != "int64")):
            shapes, size = [plan.shape(number) for number in range(len(plan.inputs))], dict(plan.sizes)
            arrays = [np.array(x, order=order) for x in random_operands(shapes, np.dtype(dtype))]
            strides = [tuple(stride // x.itemsize for stride in x.strides) for x in arrays]
            made = schedule(plan, profile("cpu"), strides)
            for step in made.steps:
                result = np.asarray(lower_step(step, size, dtype)(*[arrays[source] for source in step.sources]))
                assert result.shape == tuple(size[label] for label in step.out), (name, str(step.step))
                wide = [axis for axis, number in enumerate(result.shape) if number > 1 and result.size]
                found = [result.strides[axis] // result.itemsize for axis in wide]
                assert found == [step.taken.strides[axis] for axis in wide], (name, str(step.step), step.taken)
                arrays.append(result)


# ---------------------------------------------------------------- a value


def test_a_schedule_is_a_value_of_text_and_numbers():
    plan = ge.einsum_plan("bij,bjk,kl->bil", (3, 40, 50), (3, 50, 60), (60, 70))
    made = schedule(plan, profile("cpu"))
    assert made == schedule(plan, profile("cpu"))
    assert hash(made) == hash(schedule(plan, profile("cpu")))
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.dtype = "float32"
    assert made.strides == tuple(c_strides(term, dict(plan.sizes)) for term in plan.inputs)


def test_a_printed_schedule_shows_each_step():
    plan = ge.einsum_plan("iij,jk,kl->il", (50, 50, 60), (60, 70), (70, 3))
    made = schedule(plan, profile("h200"))
    head, *lines = str(made).splitlines()
    assert head.startswith("float64 on h200: ")
    assert len(lines) == len(made.steps) > 1
    for register, (line, step) in enumerate(zip(lines, made.steps, strict=True), len(plan.inputs)):
        assert line == f"  %{register} = {step.step}  {step.taken.way.name}, {seconds_text(step.seconds)}"
