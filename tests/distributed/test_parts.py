"""The parts that batches give, and the tree that adds them up."""

from itertools import pairwise
from random import Random

import numpy as np
import pytest
from sliced_plans import in_slices

import gpueinsum as ge
from gpueinsum.distributed.parts import Part, Sums, add, batch_of, boxes, count_slices
from gpueinsum.language.slices import cut

PLANS = [
    in_slices(ge.einsum_plan("ij,jk,kl->il", (size, 7), (7, 5), (5, 11), optimize=[(1, 2), (0, 1)]))
    for size in range(2, 30)
]


@pytest.mark.parametrize("batches", [1, 2, 3, 7, 8, 23])
@pytest.mark.parametrize("seed", range(3))
def test_batches_in_any_order_are_each_added_once(batches, seed):
    rng, sums = Random(seed), Sums(batches)
    waiting = rng.sample(range(batches), batches)
    for number in waiting:
        assert number in sums.missing()
        sums.insert((0, number), (Part((), np.array(2.0**number)),))
        assert number not in sums.missing()
        nodes = [sums.batches_of(node) for node in sums.nodes]
        assert all(first.stop <= second.start for first, second in pairwise(sorted(nodes, key=lambda own: own.start)))
    [part] = sums.total()
    assert part.values == 2**batches - 1
    assert sums.missing() == []


def test_sums_of_batches_in_their_order_are_few():
    sums = Sums(1000)
    for number in range(1000):
        sums.insert((0, number), (None,))
        assert len(sums.nodes) <= 10


def test_the_tree_decides_the_bits():
    terms, found = np.random.default_rng(0).standard_normal((37, 5)), set()
    for seed in range(5):
        sums = Sums(37)
        for number in Random(seed).sample(range(37), 37):
            sums.insert((0, number), (Part((0,), terms[number]),))
        found.add(sums.total()[0].values.tobytes())
    assert len(found) == 1
    assert found != {sum(terms).tobytes()}  # in another order


def test_a_sum_holds_both_parts():
    left, right = Part((1, 0), np.ones((2, 3))), Part((2, 1), np.full((2, 1), 5.0))
    [total] = add((left,), (right,))
    np.testing.assert_array_equal(total.whole((4, 3)), left.whole((4, 3)) + right.whole((4, 3)))
    assert total.corner == (1, 0)
    assert add((None, left, None), (right, None, None)) == (right, left, None)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: " ".join(f"{x}{n}" for x, n in plan.sliced) or "-")
def test_boxes_hold_all_that_slices_add_to(plan):
    """And of labels that no label before changes nothing else."""
    slices = cut(plan)
    for batches in {1, 2, 5, max(1, slices.count)}:
        for number in range(batches):
            numbers = batch_of(slices, number, batches)
            for box, register in zip(boxes(slices, numbers), slices.zeros.outputs, strict=True):
                touched = np.zeros(slices.zeros.shape(register), bool)
                for each in numbers:
                    [own] = boxes(slices, range(each, each + 1))
                    touched[own] = True
                if box is None:
                    assert not touched.any()
                else:
                    assert touched[box].sum() == touched.sum()
                    assert batches < slices.count or touched[box].all()


def test_slices_are_counted():
    plan = next(plan for plan in PLANS if cut(plan).count > 20)
    sums = Sums(7)
    for number in (6, 2, 3):
        sums.insert((0, number), (None,))
    assert count_slices(cut(plan), sums) == sum(len(batch_of(cut(plan), number, 7)) for number in (6, 2, 3))
