"""Plans as values: what each expression becomes."""

import pytest

from gpueinsum import einsum_plan
from gpueinsum.language.check import check_plan

SIZES = dict(zip("abcdefghijklmnop", (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53), strict=True))

LOWERED = [
    ("ij,jk->ik", ["ij,jk->ik"]),
    ("ij,jk->ki", ["ij,jk->ki"]),  # the product is written the way it is wanted
    ("bij,bjk->bik", ["bij,bjk->bik"]),
    ("ij->ij", []),
    ("ij->ji", ["ij->ji"]),
    ("ii->i", ["ii->i"]),
    ("ii->", ["ii->"]),
    ("iij->j", ["iij->j"]),
    ("i->ii", ["i->ii"]),
    ("ij->jji", ["ij->jji"]),
    ("iij->jji", ["iij->ij", "ij->jji"]),
    ("ij,j->jji", ["ij,j->ji", "ji->jji"]),
    ("ii,ij->j", ["ii->i", "i,ij->j"]),  # diagonals first
    ("ab,b->", ["ab->b", "b,b->"]),  # and lonely labels summed first
    ("ij,ij,ij->", ["ij,ij->ij", "ij,ij->"]),  # a hyperedge is summed when its last holder is reached
    (",ij->ij", [",ij->ij"]),
    ("a,b->", ["a->", "b->", ",->"]),
    ("ij,jk,kl->il", ["ij,jk->ik", "ik,kl->il"]),
]


@pytest.mark.parametrize(("expression", "steps"), LOWERED)
def test_an_expression_becomes_these_steps(expression, steps):
    terms = expression.split("->")[0].split(",")
    path = [(0, 1), (1, 0)][: len(terms) - 1] or [(0,)]
    plan = einsum_plan(expression, *[tuple(SIZES[x] for x in term) for term in terms], optimize=path)
    check_plan(plan)
    assert [step.equation for step in plan.steps] == steps


def test_a_broadcast_axis_is_dropped_before_any_product():
    plan = einsum_plan("ij,jk->ik", (2, 1), (3, 5))
    assert [step.equation for step in plan.steps] == ["iA->i", "jk->k", "i,k->ik"]


def test_plans_need_arrays_or_shapes_and_agree():
    import numpy as np

    a, b = np.ones((2, 3), np.float32), np.ones((3, 5), np.float32)
    assert einsum_plan("ij,jk", a, b) == einsum_plan("ij,jk", (2, 3), (3, 5), dtype="float32")


def test_a_large_network_is_planned():
    n = 300
    terms = [(i, i + 1) for i in range(n)]
    arguments = [x for term in terms for x in ((2, 2), term)]
    plan = einsum_plan(*arguments, (0, n), optimize="greedy")
    assert len(plan.steps) == n - 1
    check_plan(plan)
