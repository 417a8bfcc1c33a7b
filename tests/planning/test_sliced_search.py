"""Orders and slices are searched together: what is found keeps to the limit, and is no worse than what was there."""

from random import Random

import numpy as np
import pytest

import gpueinsum as ge
from benchmarks.instances import lattice
from gpueinsum.api.limits import Room
from gpueinsum.costs.profile import profile
from gpueinsum.language.subscripts import parse
from gpueinsum.planning.lower import lower
from gpueinsum.planning.sliced_search import cheapest_in_slices
from gpueinsum.planning.slicing import slice_plan
from gpueinsum.planning.starts import linear_path

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


def test_without_time_the_order_stays(spins):
    _, subscripts, plan = spins
    found = cheapest_in_slices(subscripts, plan, ROOM, 1, search_seconds=0.0)
    assert found.steps == plan.steps
    assert ROOM.peak(found) <= LIMIT
    assert cheapest_in_slices(subscripts, plan, Room(ROOM.peak(plan), CPU, ()), 1, search_seconds=9.0) is plan
