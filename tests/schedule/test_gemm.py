"""Products that are too large for the arguments of one cuBLAS call are several."""

import numpy as np
import pytest
from cublas_calls import H200, LEFT, RIGHT, array, cheapest_gemm, compute, conjugate_einsum, pair

from gpueinsum.schedule import gemm
from gpueinsum.schedule.gemm import blas_calls
from gpueinsum.schedule.predict import problem_of


@pytest.fixture
def small_arguments(monkeypatch):
    """cuBLAS with 3-bit integers, so that the splits for its 32-bit ones are taken."""
    monkeypatch.setattr(gemm, "MAX_BATCH", 2)
    return monkeypatch


def test_a_batch_past_the_limit_is_split(small_arguments):
    step = pair("bij,bjk->bik")
    result, calls, _ = compute(step, x := array("bij"), y := array("bjk"))
    assert calls == 2
    np.testing.assert_array_equal(result, x @ y)


@pytest.mark.parametrize("equation", ["ij,jk->ik", "ij,jk->ki", "bij,bjk->bik", "ij,kj->ik", "ijk,kl->ijl"])
def test_sizes_past_32_bits_are_split(small_arguments, equation):
    small_arguments.setattr(gemm, "INT_MAX", 3)
    small_arguments.setattr(gemm, "_PART", 2)
    step = pair(equation)
    x, y = array(step.lhs_term), array(step.rhs_term)
    result, calls, _ = compute(step, x, y)
    assert calls > 1
    np.testing.assert_array_equal(result, np.einsum(equation, x, y))


@pytest.mark.parametrize("sides", [LEFT, RIGHT])
def test_conjugates_past_32_bits_are_split(small_arguments, sides):
    small_arguments.setattr(gemm, "INT_MAX", 3)
    small_arguments.setattr(gemm, "_PART", 2)
    step = pair("bij,bjk->bik", sides)
    result, calls, _ = compute(step, x := array("bij", dtype=complex), y := array("bjk", dtype=complex))
    assert calls > 1
    np.testing.assert_array_equal(result, conjugate_einsum("bij,bjk->bik", sides, x, y))


def test_parts_of_halves_begin_at_packs():
    """As whole arrays do: cuBLAS reads the others one element at a time."""
    way = cheapest_gemm(problem_of(pair("ij,j->i"), {"i": 2, "j": 2**31 + 3}, "float16", H200))
    starts = [call.starts for call in blas_calls(way.product)]
    assert len(starts) == 3
    assert not any(start * 2 % 16 for start, _, _ in starts)


def test_a_long_vector_product_adds_up_its_parts(small_arguments):
    small_arguments.setattr(gemm, "INT_MAX", 4)
    small_arguments.setattr(gemm, "_PART", 2)
    way = cheapest_gemm(problem_of(pair("ij,j->i"), {"i": 2, "j": 10}, "float32", H200))
    assert [call.gemm.accumulate for call in blas_calls(way.product)][-1]
