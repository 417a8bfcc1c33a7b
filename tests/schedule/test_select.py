"""The ways to run a step: which there are on a device, and which one is taken."""

import pytest

import gpueinsum as ge
from gpueinsum.costs.profile import profile
from gpueinsum.language.steps import Contract
from gpueinsum.schedule.candidate import Matmul, Pass
from gpueinsum.schedule.mapping import Gemm
from gpueinsum.schedule.predict import problem_of
from gpueinsum.schedule.schedule import schedule
from gpueinsum.schedule.select import cheapest

CPU, H200 = profile("cpu"), profile("h200")


# ---------------------------------------------------------------- tiny products


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("bij,bjk->bik", [(4096, 4, 4), (4096, 4, 4)]),
        ("ij,ajb->aib", [(2, 2), (64, 2, 512)]),  # written where the gate's qubit was
        ("ij,jb->ib", [(2, 2), (2, 65536)]),
        ("ijkl,akblc->aibjc", [(2, 2, 2, 2), (16, 2, 32, 2, 64)]),
    ],
)
def test_many_tiny_products_are_one_pass_on_a_gpu(equation, shapes):
    plan = ge.einsum_plan(equation, *shapes, dtype="complex64")
    [step] = schedule(plan, H200).steps
    assert isinstance(step.taken.way, Pass)
    assert step.out == equation.split("->")[1]
    for taken in schedule(plan, CPU).steps:
        assert isinstance(taken.taken.way, Gemm | Matmul) or taken.is_view


def test_a_tiny_product_stays_where_a_pass_would_read_too_much_again():
    def taken(columns):
        step, size = Contract(0, 1, "ij", "jb", "ib"), {"i": 8, "j": 8, "b": columns}
        return cheapest(problem_of(step, size, "float64", H200, is_ordered=True))[1].way

    assert isinstance(taken(10**5), Pass)  # all in the cache
    assert isinstance(taken(10**8), Gemm)
