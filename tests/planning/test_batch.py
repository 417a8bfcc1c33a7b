"""Plans for a batch of some inputs: the steps they become, and that they compute what a loop over the batch does."""

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from random import Random

import numpy as np
import pytest
from call_checks import assert_passes
from gradient_checkers import as_tuple, quarters
from long_runs import shorten
from random_gradients import Call, random_plain_call

import gpueinsum as ge
from gpueinsum import Plan
from gpueinsum.language.check import check_plan
from gpueinsum.language.steps import Add
from gpueinsum.planning.batch import batch

BATCHES, BATCH = 6, 60
SIZES = dict(zip("ijklmn", (2, 3, 5, 7, 11, 13), strict=True))
Batch = Callable[[Plan, Collection[int], int], Plan]


def plan_of(expression: str) -> Plan:
    terms = expression.split("->")[0].split(",")
    return ge.einsum_plan(expression, *[tuple(SIZES[x] for x in term) for term in terms])


BATCHED = [
    ("ij->ij", [0], []),
    ("ij->ji", [0], ["Aij->Aji"]),
    ("ii->", [0], ["Aii->A"]),
    ("i->ii", [0], ["Ai->Aii"]),
    ("ij,jk->ik", [0], ["Aij,jk->Aik"]),
    ("ij,jk->ik", [1], ["ij,Ajk->Aik"]),
    ("ij,jk->ik", [0, 1], ["Aij,Ajk->Aik"]),
    ("i,i->", [1], ["i,Ai->A"]),
    ("ii,ij->j", [0], ["Aii->Ai", "Ai,ij->Aj"]),
    ("ii,ij->j", [1], ["ii->i", "i,Aij->Aj"]),  # the diagonal that all share is taken once
]


@pytest.mark.parametrize(("expression", "positions", "steps"), BATCHED)
def test_a_step_keeps_the_new_label_of_its_sources(expression: str, positions: list[int], steps: list[str]) -> None:
    plan = batch(plan_of(expression), positions, 17)
    check_plan(plan)
    assert [step.equation for step in plan.steps] == steps
    assert plan.sizes[0] == ("A", 17)


def test_the_roles_of_the_new_label_follow_from_the_sides_that_have_it() -> None:
    for positions, role in (([0], "left"), ([1], "right"), ([0, 1], "batch")):
        [step] = batch(plan_of("ij,jk->ik"), positions, 17).steps
        assert "A" in getattr(step, role)


def test_the_new_label_is_none_of_the_plan() -> None:
    plan = batch(ge.einsum_plan("Aa,ab->Ab", (2, 3), (3, 5)), [0], 7)
    assert [size for _, size in plan.sizes] == [7, 2, 3, 5]
    assert len(dict(plan.sizes)) == 4
    assert plan.shape(plan.outputs[0]) == (7, 2, 5)


def test_an_output_that_no_batch_reaches_is_spread_along_it() -> None:
    plan = plan_of("ij,jk->ik").vjp()  # of which one gradient needs the one operand, the other the other
    many = batch(plan, [0], 17)
    check_plan(many)
    assert many.equation == "Aij,jk,ik->Aij,Ajk"
    assert [many.shape(output) for output in many.outputs] == [(17, 2, 3), (17, 3, 5)]
    assert [step.equation for step in many.steps] == ["ik,jk->ij", "ik,Aij->Ajk", "ij->Aij"]


def test_terms_of_a_sum_are_spread_where_others_have_a_batch() -> None:
    tangents = plan_of("ij,jk->ik").jvp()
    many = batch(tangents, [2], 17)
    check_plan(many)
    assert [step.equation for step in many.steps] == ["Aij,jk->Aik", "ij,jk->ik", "ik->Aik", "Aik+Aik->Aik"]
    repeated = Plan(("ii", "ij"), (Add((0, 1), "ij"),), (2,), (("i", 3), ("j", 3)), "float64")
    many = batch(repeated, [1], 17)  # an expansion's source repeats no label: the spread one has others
    check_plan(many)
    x, y = np.arange(9.0).reshape(3, 3), np.arange(153.0).reshape(17, 3, 3)
    np.testing.assert_array_equal(ge.run_plan(many, x, y), x + y)


def test_zeros_are_spread() -> None:
    plan = plan_of("ij->i").jvp(wrt=[])
    assert plan.steps == (Add((), "i"),)
    many = batch(plan, [0], 17)
    check_plan(many)
    np.testing.assert_array_equal(ge.run_plan(many, np.ones((17, 2, 3))), np.zeros((17, 2)))


@pytest.mark.parametrize("round_", shorten(range(BATCHES)))
def test_random_plans_and_their_derivatives_are_those_of_a_loop(round_: int) -> None:
    seeds = range(round_ * BATCH, (round_ + 1) * BATCH)
    assert_passes(partial(check_batch, batch), seeds, random_plain_call)


def check_batch(batch: Batch, call: Call) -> None:
    """The batch of the expression's plan, of its derivatives, and of a batch, for random inputs of each."""
    plan = ge.einsum_plan(*call.args, optimize=call.options.get("optimize", "auto"))
    backward = plan.vjp(call.wrt)
    rng = Random(len(plan.sizes))
    for derived in (plan, backward, plan.jvp(call.wrt), backward.vjp(), batch(plan, [0], 2)):
        check_one(batch, derived, rng)


def check_one(batch: Batch, plan: Plan, rng: Random) -> None:
    count = len(plan.inputs)
    positions = rng.sample(range(count), rng.randint(1, count))
    size = rng.choice((0, 1, 2, 3, 3))
    many = batch(plan, positions, size)
    check_plan(many)
    numbers = np.random.default_rng(count)
    shapes = [((size,) if k in positions else ()) + plan.shape(k) for k in range(count)]
    inputs = [quarters(numbers, shape, plan.dtype == "complex128") for shape in shapes]
    got = as_tuple(ge.run_plan(many, *inputs))
    assert [x.shape for x in got] == [(size, *plan.shape(output)) for output in plan.outputs]
    for place in range(size):
        single = [x[place] if k in positions else x for k, x in enumerate(inputs)]
        for ours, right in zip(got, as_tuple(ge.run_plan(plan, *single)), strict=True):
            assert np.array_equal(ours[place], right), f"{many}\nis {ours[place]} at {place}, not {right}"


def test_the_checker_catches_outputs_in_another_order() -> None:
    def reversed_batch(plan: Plan, positions: Collection[int], size: int) -> Plan:
        made = batch(plan, positions, size)
        return replace(made, outputs=made.outputs[::-1])

    with pytest.raises(AssertionError):
        assert_passes(partial(check_batch, reversed_batch), range(20), random_plain_call)
