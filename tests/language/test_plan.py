import dataclasses
import json

import pytest

from gpueinsum import PlanError, einsum_plan
from gpueinsum.language.check import check_plan
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Contract, Expand, Reduce

CHAIN = einsum_plan("ij,jk,kl->il", (40, 30), (30, 20), (20, 10))


def test_a_plan_prints_a_line_per_step_with_its_einsum_and_roles():
    assert str(CHAIN).splitlines() == [
        "ij,jk,kl->il  float64  i=40 j=30 k=20 l=10",
        "  %3 = jk,kl->jl  of %1, %2  left j=30, right l=10, summed k=20",
        "  %4 = ij,jl->il  of %0, %3  left i=40, right l=10, summed j=30",
    ]


def test_a_label_of_a_pair_has_one_of_four_roles():
    step = Contract(0, 1, "bisj", "tsbkj", "ibk")  # j, s are summed; t would be on one side only
    assert (step.batch, step.left, step.summed) == ("b", "i", "sj")


@pytest.mark.parametrize(
    "expression", ["ij,jk,kl->il", "ii->i", "iij,jk->kik", "a,b,c->abc", "...i,...i->...", "i->ii"]
)
def test_a_plan_survives_json(expression):
    shapes = {2: (3, 3), 3: (3, 3, 5)}
    terms = expression.split("->")[0].split(",")
    operands = [(5,) if "." in t else shapes.get(len(t), (3,)) if t != "jk" else (5, 7) for t in terms]
    if expression.startswith("ij,"):
        operands = [(3, 5), (5, 7), (7, 3)]
    plan = einsum_plan(expression, *operands)
    assert Plan.from_json(plan.to_json()) == plan
    assert hash(Plan.from_json(plan.to_json())) == hash(plan)


def test_registers_are_freed_after_their_last_use():
    assert CHAIN.last_uses() == ((1, 2), (0, 3))


def test_a_result_that_is_only_seen_through_strides_knows_its_operand():
    assert einsum_plan("ij->ji", (3, 5)).borrowed_outputs() == (0,)
    assert einsum_plan("iij->ji", (3, 3, 5)).borrowed_outputs() == (0,)
    assert einsum_plan("ij->i", (3, 1)).borrowed_outputs() == (0,)  # a sum over one element
    assert einsum_plan("ij->i", (3, 5)).borrowed_outputs() == ()
    assert einsum_plan("ij->i", (3, 0)).borrowed_outputs() == ()
    assert einsum_plan("i->ii", (3,)).borrowed_outputs() == ()
    assert CHAIN.borrowed_outputs() == ()


GOOD = Plan(("ij", "jk"), (Contract(0, 1, "ij", "jk", "ik"),), (2,), (("i", 2), ("j", 3), ("k", 5)), "float64")
BROKEN = [
    ({"steps": (Contract(0, 7, "ij", "jk", "ik"),)}, "step 0, ij,jk->ik: register 7 is not there yet"),
    ({"steps": (Contract(0, 2, "ij", "jk", "ik"),)}, "register 2 is not there yet"),
    ({"steps": (Contract(0, 1, "ik", "jk", "ik"),)}, "'ik' does not fit register 0, which is 'ij'"),
    ({"steps": (Contract(0, 1, "ij", "jk", "i"),)}, "summed that is on one side only"),
    ({"steps": (Contract(0, 1, "ij", "jk", "ikk"),)}, "'ikk' repeats a label"),
    ({"steps": (Reduce(0, "ij", "k"),)}, "a reduction cannot gain labels"),
    ({"steps": (Reduce(0, "ij", "ii"),)}, "a reduction's output cannot repeat a label"),
    ({"steps": (Expand(0, "ij", "i"),)}, "an expansion cannot lose labels"),
    ({"steps": (Reduce(0, "ij", "z"),)}, "output labels without a size"),
    ({"outputs": (3,)}, "output register 3 is not there"),
    ({"outputs": ()}, "a plan needs an output"),
    ({"sizes": (("i", -2), ("j", 3), ("k", 5))}, "label 'i' has size -2"),
    ({"sizes": (("i", 2), ("j", 3))}, "labels without a size"),
    ({"sizes": (("i", 2), ("j", 3), ("k", 5), ("k", 7))}, "a label has two sizes"),
    ({"sizes": (("i", 2), ("j", 3), ("k", 5), (",", 7))}, "label ',' has size 7"),
    ({"dtype": "f4; import os"}, "is no name of a dtype"),
    ({"dtype": "nonsense"}, "is no name of a dtype"),
    ({"dtype": 5}, "is no name of a dtype"),
    *(({"dtype": name}, "is no name of a dtype") for name in ("str", "datetime64", "float8_e5m2", ",", "\ud800", "a")),
    ({"steps": (Contract(False, True, "ij", "jk", "ik"),)}, "register False is not there yet"),
]


@pytest.mark.parametrize(("change", "complaint"), BROKEN)
def test_a_plan_that_cannot_run_is_refused_on_load(change, complaint):
    check_plan(GOOD)
    broken = dataclasses.replace(GOOD, **change)
    with pytest.raises(PlanError) as caught:
        Plan.from_json(broken.to_json())
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "3",
        "[" * 100_000,
        json.dumps({"steps": [{"step": "Eval"}]}),
        GOOD.to_json().replace("Contract", "os.system"),
        einsum_plan("i,j->ij", (2,), (3,)).to_json().replace('["i", "j"]', '"ij"'),
    ],
)
def test_text_that_is_no_plan_is_refused(text):
    with pytest.raises(PlanError):
        Plan.from_json(text)
