"""Plans with sliced labels as values: what they may be, what they are run by, and that nothing drops the labels."""

import json
import math
from dataclasses import replace

import pytest
from call_checks import assert_passes
from random_gradients import random_plain_call

from gpueinsum import Plan, PlanError, einsum_plan, explain
from gpueinsum.costs.counts import total_flops
from gpueinsum.costs.profile import profile
from gpueinsum.costs.seconds import pass_seconds
from gpueinsum.language.check import check_plan
from gpueinsum.language.dependence import dependences, sliceable_labels
from gpueinsum.language.rewrite import deduplicate, fold_constants, prune, split
from gpueinsum.language.slices import cut, one_slice
from gpueinsum.language.steps import Add, Contract, Expand, Reduce
from gpueinsum.planning.batch import batch
from gpueinsum.schedule.schedule import schedule
from gpueinsum.schedule.slices import copied_terms, predicted_seconds, schedule_slices

CHAIN = einsum_plan("ij,jk,kl->il", (2, 3), (3, 5), (5, 7), optimize=[(1, 2), (0, 1)])
SLICED = replace(CHAIN, sliced=(("j", 1),))
NESTED = replace(CHAIN, sliced=(("l", 2), ("i", 1)), inner=1)
SIZES = (("i", 2), ("j", 3), ("k", 3))


def of_steps(inputs, steps, *outputs, sliced="j"):
    return Plan(inputs, steps, outputs, SIZES, "float64", tuple((label, 1) for label in sliced))


def test_a_plan_shows_its_slices():
    assert str(SLICED).splitlines()[0] == "ij,jk,kl->il  float64  i=2 j=3 k=5 l=7  in slices of j=1/3"
    assert SLICED.equation == CHAIN.equation
    assert str(NESTED).splitlines()[0].endswith("  in slices of l=2/7, each in slices of i=1/2")


def test_slices_survive_json_and_older_plans_have_none():
    for plan in (SLICED, NESTED):
        assert Plan.from_json(plan.to_json()) == plan
    older = json.loads(CHAIN.to_json())
    del older["sliced"], older["inner"]
    assert Plan.from_json(json.dumps(older)) == CHAIN


NO_SLICES = {
    "a label without a size": (replace(CHAIN, sliced=(("z", 1),)), "sliced label 'z' has no size"),
    "a label listed twice": (
        replace(CHAIN, sliced=(("j", 1), ("j", 1))),
        "sliced label 'j' has no size, or is listed twice",
    ),
    "no value": (replace(CHAIN, sliced=(("j", 0),)), "slices have 0 values of label 'j', not at least one"),
    "no label": (replace(CHAIN, sliced=((3, 1),)), "sliced label 3 has no size"),
    "no outer loop": (replace(NESTED, inner=2), "2 of 2 sliced labels are no inner loop"),
    "half a loop": (replace(NESTED, inner=0.5), "0.5 of 2 sliced labels are no inner loop"),
    "a product of two sums": (
        of_steps(("j", "j"), (Reduce(0, "j", ""), Reduce(1, "j", ""), Contract(2, 3, "", "", "")), 4),
        "step 2, ,->, cannot be run in slices of 'j': it needs a whole sum over the slices",
    ),
    "a sum times a part": (
        of_steps(("ij", "ij"), (Reduce(0, "ij", "i"), Contract(2, 1, "i", "ij", "ij")), 3),
        "step 1, i,ij->ij, cannot be run in slices of 'j': it needs a whole sum over the slices",
    ),
    "a sum spread along the label": (
        of_steps(("ij",), (Reduce(0, "ij", "i"), Expand(1, "i", "ij")), 2),
        "step 1, i->ij, cannot be run in slices of 'j': it needs a whole sum over the slices",
    ),
    "a sum and an array that is no term of it": (
        of_steps(("ij", "i"), (Reduce(0, "ij", "i"), Add((1, 2), "i")), 3),
        "step 1, i+i->i, cannot be run in slices of 'j': it needs a whole sum over the slices",
    ),
    "the label by another name": (
        of_steps(("ij",), (Reduce(0, "ik", "i"),), 1),
        "step 0, ik->i, cannot be run in slices of 'j': it reads 'ik' of register 0, which is 'ij'",
    ),
    "another label by its name": (
        of_steps(("ik",), (Reduce(0, "ij", "i"),), 1),
        "step 0, ij->i, cannot be run in slices of 'j': it reads 'ij' of register 0, which is 'ik'",
    ),
}


@pytest.mark.parametrize(("plan", "complaint"), NO_SLICES.values(), ids=NO_SLICES)
def test_a_plan_that_is_no_sum_over_slices_is_refused(plan, complaint):
    check_plan(plan.unsliced())
    with pytest.raises(PlanError) as caught:
        Plan.from_json(plan.to_json())
    assert complaint in str(caught.value)


def test_labels_that_can_be_sliced_are_found_at_once():
    """Those along which a plan is cut without an error."""

    def check(call):
        plan = einsum_plan(*call.args)
        for derived in (plan, plan.vjp(call.wrt), plan.vjp(call.wrt).vjp(), batch(plan.vjp(call.wrt), [0], 3)):
            found = sliceable_labels(derived)
            for label, _ in derived.sizes:
                try:
                    dependences(derived, label)
                except PlanError:
                    assert label not in found, f"{label!r} of {derived}"
                else:
                    assert label in found, f"{label!r} of {derived}"

    assert_passes(check, range(150), random_plain_call)
    for plan, complaint in NO_SLICES.values():
        if "cannot be run" in complaint:
            assert "j" not in sliceable_labels(plan)


def test_a_plan_in_slices_is_three_plans_without():
    slices = cut(replace(CHAIN, sliced=(("k", 1), ("i", 1))))
    assert (slices.labels, slices.count) == ((("k", 5, 1), ("i", 2, 1)), 10)
    assert [step.equation for step in slices.zeros.steps] == ["0->il"]
    assert [step.equation for step in slices.each.steps] == ["j,l->jl", "j,jl->l"]
    assert (slices.once.steps, slices.summed, slices.repeated) == ((), (True,), ("",))


def test_what_is_the_same_in_every_slice_is_computed_once():
    slices = cut(replace(CHAIN, sliced=(("i", 1),)))
    assert [step.equation for step in slices.once.steps] == ["jk,kl->jl"]
    assert [step.equation for step in slices.each.steps] == ["j,jl->l"]
    assert slices.summed == (False,)


def test_what_an_inner_loop_does_not_change_is_computed_once_for_all_of_it():
    slices = cut(NESTED)
    inner = cut(slices.each)
    assert (slices.labels, slices.once.steps, inner.labels) == ((("l", 7, 2),), (), (("i", 2, 1),))
    assert [step.equation for step in inner.once.steps] == ["jk,kl->jl"]
    assert [step.equation for step in inner.each.steps] == ["j,jl->l"]
    assert NESTED.slices == (8, {"l": 2, "i": 1}, 1.0)
    assert replace(NESTED, inner=0).slices.overhead > 1.5


@pytest.mark.parametrize("size", [0, 1])
def test_labels_of_one_value_or_none_are_not_cut_along(size):
    plan = einsum_plan("ij,jk->ik", (2, size), (size, 5))
    slices = cut(replace(plan, sliced=(("j", 1),)))
    assert (slices.count, slices.once, slices.each.steps) == (0, plan, ())


def test_one_slice_is_a_plan_without_its_labels():
    plan = one_slice(replace(einsum_plan("iij,jk->kki", (2, 2, 3), (3, 5)), sliced=(("i", 1),)))
    check_plan(plan)
    assert (plan.equation, plan.sliced) == ("j,jk->kk", ())
    assert one_slice(CHAIN) == CHAIN


# ---------------------------------------------------------------- what it takes


def test_the_flops_are_those_of_all_slices_and_of_what_is_computed_once():
    whole, once = total_flops(CHAIN), 3 * 7 * (2 * 5 - 1)
    assert total_flops(replace(CHAIN, sliced=(("i", 1),))) == whole
    assert total_flops(SLICED) == whole - 2 * 7 * 2  # sums over the slices are not counted
    assert (
        total_flops(replace(CHAIN, sliced=(("i", 1), ("l", 1)))) == whole + once
    )  # its right side for each value of `i`


def test_the_peak_is_one_slice_and_the_results():
    assert CHAIN.peak_bytes() == 8 * (3 * 7 + 2 * 7)
    assert SLICED.peak_bytes() == 8 * (2 * 7 + 7 + 2 * 7)
    assert replace(CHAIN, sliced=(("i", 1),)).peak_bytes() == 8 * (2 * 7 + 3 * 7 + 7)  # the right side stays
    assert replace(CHAIN, sliced=(("l", 1),)).peak_bytes() == 8 * (2 * 7 + 3 + 2)
    assert NESTED.peak_bytes() == 8 * (2 * 7 + 2 * 2 + 3 * 2 + 2)  # the results of the inner loop, the right side


def test_explain_shows_the_steps_of_one_slice():
    text = explain(SLICED)
    together = "together 231 flops, 0.89 times those without slices"
    assert text.splitlines()[-1] == f"the steps are those of the first of 3 slices (j=1/3), {together}"
    assert " k,kl->l\n" in text
    assert f"intermediates and result: {SLICED.peak_bytes()} B" in text
    assert "slice" not in explain(CHAIN)
    assert "of the first of 8 slices (l=2/7, inner loop i=1/2), together 259 flops" in explain(NESTED)


def test_the_predicted_time_is_that_of_all_slices_and_of_adding_them_up():
    device, slices = profile("h200"), cut(SLICED)
    each = schedule(slices.each, device).seconds + pass_seconds(device, 3 * 8 * 2 * 7)
    assert schedule(slices.once, device).seconds == 0
    assert predicted_seconds(SLICED, device) == 3 * each
    assert explain(SLICED, "h200").splitlines()[-1].endswith(f"without slices, predicted {3 * each * 1e6:.1f} µs")
    loop = predicted_seconds(cut(NESTED).each, device)
    assert predicted_seconds(NESTED, device) == 3.5 * (loop + pass_seconds(device, 2 * 8 * 2 * 2))


COPYING = replace(profile("h200"), lacks=("kernel contract", "kernel contract_small"))  # which need no copies


@pytest.mark.parametrize("device", [profile("cpu"), COPYING], ids=lambda device: device.name)
def test_what_steps_copy_is_known_by_its_labels(device):
    """Of each step the copies take what the schedule counts."""
    shapes = [(10, 10, 80, 80), (80, 80, 80, 10), (10, 10, 80, 80), (10, 80, 10, 10)]
    plan = einsum_plan("ijad,bcdk,ilab,lcjk->", *shapes, optimize=[(0, 2), (0, 1), (0, 1)])
    for sliced in (plan, replace(plan, sliced=(("j", 1), ("b", 5)))):
        made = schedule_slices(sliced, device).each if sliced.sliced else schedule(plan, device)
        size, found = dict(plan.sizes) | dict(sliced.sliced), copied_terms(sliced, device)
        counted = [8 * sum(math.prod(size[x] for x in term) for at, term in found if at == step) for step in range(3)]
        assert sorted(counted)[-2:] == sorted(step.taken.scratch for step in made.steps)[-2:]
        assert found[0] == (0, "ijad")


def test_the_last_block_of_a_label_may_be_smaller():
    plan = replace(CHAIN, sliced=(("k", 2), ("i", 1)))
    slices = cut(plan)
    assert [slices.blocks_of(number) for number in range(slices.count)] == [[k, i] for k in range(3) for i in range(2)]
    assert [label.part(label.blocks - 1) for label in slices.labels] == [slice(4, 5), slice(1, 2)]
    assert [(each.equation, dict(each.sizes)["k"], count) for each, count in slices.kinds()] == [
        ("j,jk,kl->l", 2, 4),
        ("j,jk,kl->l", 1, 2),
    ]
    rows = [[step.equation for step in each.steps] for each, _ in slices.kinds()]
    assert rows == [["jk,kl->jl", "j,jl->l"]] * 2
    assert plan.peak_bytes() == 8 * (2 * 7 + 3 * 7 + 7)
    assert Plan.from_json(plan.to_json()) == plan


# ---------------------------------------------------------------- what keeps them


def test_what_rewrites_plans_keeps_the_slices():
    first, rest = split(SLICED, [0, 1, 2, 3])
    for plan in (
        deduplicate(SLICED),
        prune(SLICED, [3]),
        first,
        rest,
        batch(SLICED, [0], 4),
        SLICED.vjp(),
        SLICED.jvp(),
    ):
        check_plan(plan)
        assert plan.sliced == (("j", 1),)
    for plan in (deduplicate(NESTED), batch(NESTED, [0], 4), NESTED.vjp(), NESTED.jvp()):
        check_plan(plan)
        assert (plan.sliced, plan.inner) == (NESTED.sliced, 1)


def test_derivatives_of_derivatives_hold_for_slices_of_all_labels():
    sliced = replace(
        einsum_plan("iij,jk,kl,m->lli", (2, 2, 3), (3, 5), (5, 7), (2,)), sliced=tuple((label, 1) for label in "lijmk")
    )
    for plan in (sliced, sliced.vjp(), sliced.vjp().vjp(), sliced.jvp().vjp(), sliced.vjp().jvp()):
        check_plan(plan)
        assert plan.sliced == sliced.sliced


def test_a_gradient_that_is_no_sum_over_slices_is_refused():
    """Of the sum of an array, the same in every slice, and of its product with parts."""
    plan = of_steps(("k", "jk"), (Reduce(0, "k", ""), Contract(0, 1, "k", "jk", "j"), Reduce(3, "j", "")), 2, 4)
    check_plan(plan)
    check_plan(plan.vjp(1))
    with pytest.raises(
        PlanError, match=r"k\+k->k, cannot be run in slices of 'j': it needs a whole sum over the slices"
    ):
        plan.vjp(0)


def test_of_constant_parts_only_what_is_the_same_in_every_slice_is_kept():
    first, rest = fold_constants(SLICED, (1, 2))
    assert (first.steps, len(rest.steps)) == ((), 2)
    first, rest = fold_constants(replace(CHAIN, sliced=(("i", 1),)), (1, 2))
    assert (len(first.steps), len(rest.steps)) == (1, 1)


def test_a_batch_that_would_lose_the_name_of_a_label_is_refused():
    plan = Plan(("j",), (Expand(0, "j", "jj"),), (1, 0), SIZES, "float64", (("j", 1),))
    check_plan(batch(plan, [0], 4))
    still = of_steps(("jj", "k"), (), 0, 1)
    with pytest.raises(PlanError, match="cannot be run in slices of 'j'"):
        cut(batch(still, [1], 4))
