"""The ways to run a step: which there are on a device, and which one is taken."""

import pytest

import gpueinsum as ge
from gpueinsum.costs.profile import profile
from gpueinsum.schedule.candidate import Blocks, Matmul
from gpueinsum.schedule.mapping import Gemm
from gpueinsum.schedule.schedule import schedule
from gpueinsum.schedule.tiled import Tiled

CPU, H200 = profile("cpu"), profile("h200")


# ---------------------------------------------------------------- skinny products


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("bij,bjk->bik", [(4096, 4, 4), (4096, 4, 4)]),
        ("ij,ajb->aib", [(2, 2), (64, 2, 4096)]),  # written where the gate's qubit was
        ("ij,jb->ib", [(2, 2), (2, 262144)]),
        ("ijkl,akblc->aibjc", [(2, 2, 2, 2), (16, 2, 64, 2, 256)]),
        ("ab,ac->bc", [(2**24, 2), (2**24, 3)]),
    ],
)
def test_skinny_products_are_one_by_tiles_on_a_gpu(equation, shapes):
    plan = ge.einsum_plan(equation, *shapes, dtype="complex64")
    [step] = [step for step in schedule(plan, H200).steps if not step.is_view]
    assert isinstance(step.taken.way, Tiled)
    for taken in schedule(plan, CPU).steps:
        assert isinstance(taken.taken.way, Gemm | Matmul | Blocks) or taken.is_view
