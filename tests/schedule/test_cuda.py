"""What a GPU is offered for a sum: in which order of its labels it writes, and when one pass beats many products."""

import numpy as np
import pytest
from programs import run_on
from simulated import SimulatedRuntime

import gpueinsum as ge
from gpueinsum.costs.profile import profile
from gpueinsum.schedule.candidate import Pass
from gpueinsum.schedule.schedule import schedule


@pytest.mark.parametrize(
    ("equation", "shapes", "loops"),
    [
        ("ijkl->lj", [(16, 24, 16, 24)], "jlik"),  # which is read along l
        ("ijkl->jl", [(16, 24, 16, 24)], "jlik"),
        ("ijkl->ji", [(16, 24, 16, 24)], "jikl"),  # read along what is summed, the result lies as it is asked for
        ("aij->ja", [(16, 24, 32)], "aji"),
        ("ij->j", [(24, 16)], "ji"),
    ],
)
def test_a_sum_is_written_in_the_order_that_is_read_in_whole_sectors(rng, equation, shapes, loops):
    plan = ge.einsum_plan(equation, *shapes, dtype="float32")
    [step] = schedule(plan, profile("h200")).steps
    assert isinstance(step.taken.way, Pass)
    assert step.taken.way.loops == loops
    hosts = [rng.integers(-9, 10, shape).astype(np.float32) for shape in shapes]
    [result], _ = run_on(SimulatedRuntime(), plan, *hosts)
    np.testing.assert_array_equal(result, np.einsum(equation, *hosts))
    assert tuple(stride // 4 for stride in result.strides) == step.taken.strides


@pytest.mark.parametrize("equation", ["ij,ji->", "ij,ji->i", "ij,ji->ij"])
def test_what_lies_across_is_copied_first_where_that_takes_less_time(equation):
    """Else a sector is read for each of its elements, 32 bytes for 4."""
    for size, copied in ((64, 0), (8192, 1)):
        [step] = schedule(ge.einsum_plan(equation, *[(size, size)] * 2, dtype="float32"), profile("h200")).steps
        assert isinstance(step.taken.way, Pass)
        assert step.taken.copies == copied
        assert step.taken.scratch == copied * 4 * size**2


@pytest.mark.parametrize("device", ["h200", "a100"])
@pytest.mark.parametrize("size", [24, 56, 112])
def test_one_pass_over_a_tensor_beats_a_product_for_each_row(device, size):
    """`rs` are apart in `prqs`, so that cuBLAS would multiply for each r and add up."""
    plan = ge.einsum_plan("prqs,rs->pq", (size,) * 4, (size,) * 2)
    [step] = schedule(plan, profile(device), alternatives=True).steps
    one_pass, products = step.candidates
    assert isinstance(one_pass.way, Pass)
    assert products.way.product.calls == size
