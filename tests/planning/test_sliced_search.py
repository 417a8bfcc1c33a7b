"""Orders and slices are searched together: what is found keeps to the limit, and is no worse than what was there."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest

import gpueinsum as ge
from benchmarks.instances import circuit, lattice
from gpueinsum.api.limits import Room
from gpueinsum.costs.counts import total_flops
from gpueinsum.costs.profile import profile
from gpueinsum.language.subscripts import parse
from gpueinsum.planning.lower import lower
from gpueinsum.planning.sliced_search import cheapest_in_slices
from gpueinsum.planning.slicing import slice_plan
from gpueinsum.planning.starts import linear_path
from gpueinsum.schedule.slices import predicted_seconds

CPU = profile("cpu")
LIMIT = 4096
ROOM = Room(LIMIT, CPU, ())


@pytest.fixture(scope="module")
def spins():
    """A lattice, and the plan of one spin after the other, whose arrays have little in common."""
    instance = lattice(7, 7)
    subscripts = parse(instance.equation, instance.shapes)
    size = dict(subscripts.sizes)
    plan = lower(subscripts, lambda inputs, output: linear_path(inputs, output, size, Random(0)), "float64")
    return instance, subscripts, plan


def test_an_order_that_slices_badly_is_left(spins):
    instance, subscripts, plan = spins
    found = cheapest_in_slices(subscripts, plan, ROOM, 1, search_seconds=2.0)
    alone = slice_plan(plan, ROOM, runs=100)
    assert ROOM.peak(found) <= LIMIT
    assert ROOM.seconds(found) < ROOM.seconds(alone) / 3
    expected = ge.einsum(instance.equation, *instance.operands)
    np.testing.assert_allclose(ge.run_plan(found, *instance.operands), expected)


@pytest.mark.parametrize("device", [CPU, profile("h200")], ids=lambda device: device.name)
def test_what_few_slices_need_is_computed_less_often(device):
    """Of the amplitude of a circuit."""
    instance, room = circuit(4, 4, 10), Room(16_000, device, ())
    plan = ge.einsum_plan(instance.equation, *instance.operands, optimize="greedy")
    nested = slice_plan(plan, room, runs=0)
    flat = replace(nested, inner=0)
    assert 0 < nested.inner < len(nested.sliced)
    assert room.peak(nested) <= 16_000
    assert total_flops(nested) < 0.8 * total_flops(flat)
    assert predicted_seconds(nested, device) < 0.8 * predicted_seconds(flat, device)
    np.testing.assert_allclose(ge.run_plan(nested, *instance.operands), ge.run_plan(plan, *instance.operands))


def test_without_time_the_order_stays(spins):
    _, subscripts, plan = spins
    found = cheapest_in_slices(subscripts, plan, ROOM, 1, search_seconds=0.0)
    assert found.steps == plan.steps
    assert ROOM.peak(found) <= LIMIT
    assert cheapest_in_slices(subscripts, plan, Room(ROOM.peak(plan), CPU, ()), 1, search_seconds=9.0) is plan
