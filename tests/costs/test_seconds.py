"""The model of passes and products, by hand; and where a product is one by tiles."""

from dataclasses import replace

import pytest
from round_numbers import ROUND

from gpueinsum.costs.profile import Rate, profile
from gpueinsum.costs.seconds import pair_seconds, pass_seconds, product_seconds, tiled_seconds


def test_a_pass_takes_as_long_as_its_bytes_or_its_operations():
    assert pass_seconds(ROUND, 4e6) == 1 + 4
    assert pass_seconds(ROUND, 4e6, permuted=4e6) == 1 + 8
    assert pass_seconds(ROUND, 4e6, permuted=1e6) == 1 + 3 + 2
    assert pass_seconds(ROUND, 4e6, flops=9e6) == 1 + 9
    assert pass_seconds(ROUND, 1000) == 1 + 1e-4  # in the cache


def test_a_product_runs_at_half_its_rate_at_the_half_size():
    assert product_seconds(ROUND, "float32", 1, 1, 10**9, 10**9, 0) == pytest.approx(1 + 2e18 / 1e9 * 2)
    assert product_seconds(ROUND, "float32", 1, 1, 1, 10**9, 0) == pytest.approx(1 + 2e9 / 1e9 * 4)


def test_a_batch_takes_its_time_for_each_product():
    assert product_seconds(ROUND, "float32", 8, 1, 1, 1, 0) == pytest.approx(1 + 8 * 0.25)
    assert product_seconds(ROUND, "float32", 1, 1, 1, 1, 7e6) == pytest.approx(1 + 7)


def test_few_results_take_as_long_as_a_tile_of_them_on_one_of_a_gpus_multiprocessors():
    rate = Rate(9e9, 1, 1, 0)
    gpu, cpu = (replace(ROUND, kind=kind, rates=(("float32", rate),), launch=0.0, each=0.0) for kind in ("cuda", "cpu"))
    tile = 2 * 64 * 64 * 1000 / (rate.flops_per_second / 9)
    for rows in (2, 64, 128):
        assert product_seconds(gpu, "float32", 1, rows, 64, 1000, 0) == pytest.approx(tile)
        assert product_seconds(cpu, "float32", 1, rows, 64, 1000, 0) < tile / 3
    assert product_seconds(gpu, "complex64", 1, 64, 64, 1000, 0) == 1000 * 64 * 64 * 8 / 1e6  # which has no rate here
    assert product_seconds(gpu, "float32", 1, 64, 64, 10**6, 0) < 1000 * tile / 4  # many share a long sum
    full = product_seconds(gpu, "float32", 90, 64, 64, 1000, 0)
    assert full == pytest.approx(10 * tile * (65 / 64) ** 2)


def test_a_matrix_times_a_vector_waits_for_memory_on_a_cpu():
    seconds = product_seconds(profile("cpu"), "float64", 1, 1000, 1, 1000, 8 * 1002 * 1000)
    assert 84e-6 / 1.5 < seconds < 84e-6 * 1.5  # as measured, on a core of an AMD EPYC


def test_a_complex_product_is_four_real_ones():
    complex_too = replace(ROUND, rates=(*ROUND.rates, ("complex64", Rate(1e9, 1, 1, 1))), launch=0.0, each=0.0)
    real, whole = (product_seconds(complex_too, dtype, 1, 99, 99, 99, 0) for dtype in ("float32", "complex64"))
    assert whole == pytest.approx(4 * real)


def test_a_product_without_a_library_is_a_loop():
    assert product_seconds(ROUND, "int64", 1, 10, 10, 10, 0) == pytest.approx(1 + 2000 / 1e6)


def test_a_product_of_no_elements_takes_its_launch():
    even = replace(ROUND, rates=(("float32", Rate(1e9, 0, 0, 0)),))  # at the full rate, however small
    for empty in range(4):
        sizes = [0 if number == empty else 3 for number in range(4)]
        assert product_seconds(even, "float32", *sizes, 0) == 1


def test_numpy_has_a_short_way_for_one_product_and_a_long_one_for_many_arrays():
    cpu = replace(ROUND, kind="cpu", each=0.0)
    assert product_seconds(cpu, "float32", 1, 1, 1, 1, 0) == pytest.approx(0.4, abs=1e-5)
    assert product_seconds(cpu, "float32", 2, 1, 1, 1, 0) == pytest.approx(1)
    assert [pass_seconds(cpu, 0, arrays=arrays) for arrays in (1, 2, 3, 4)] == [1, 1, 1.5, 1.5]
    assert pass_seconds(ROUND, 0, arrays=4) == 1


def test_a_skinny_product_of_large_arrays_is_one_by_tiles_on_a_gpu():
    h200, cpu = profile("h200"), profile("cpu")

    def is_tiled(device, dtype, *shape):
        return pair_seconds(device, dtype, *shape) == tiled_seconds(device, dtype, *shape)

    assert is_tiled(h200, "float32", 10**6, 4, 4, 4)
    assert is_tiled(h200, "complex64", 1, 2, 10**7, 2)  # a gate on a qubit
    assert is_tiled(h200, "complex64", 1, 10**7, 4, 4)  # and on two
    assert is_tiled(h200, "float32", 1, 4, 4, 10**7)
    assert not is_tiled(h200, "float32", 1, 4096, 4096, 4096)
    assert not is_tiled(h200, "float16", 1, 4096, 4096, 4096)
    assert not is_tiled(h200, "float32", 10**6, 4, 1, 4)  # of matrices and vectors
    assert not is_tiled(cpu, "float32", 10**6, 4, 4, 4)


def test_a_product_by_tiles_is_bound_by_memory_or_by_instructions():
    round_numbers = replace(ROUND, kind="cuda", rates=(("float32", Rate(2e12, 0, 0, 0)),), bytes_per_second=1e9)
    launch = tiled_seconds(round_numbers, "float32", 0, 1, 1, 1)
    few = tiled_seconds(round_numbers, "float32", 1, 2, 10**4, 2) - launch
    assert few == pytest.approx(4 * (4 + 4 * 10**4) / 1e9)
    many = tiled_seconds(replace(round_numbers, bytes_per_second=1e300), "float32", 1, 10**4, 10**4, 10**4) - launch
    assert many == pytest.approx(2.5, rel=0.01)  # 1e12 products by 1e12 a second


@pytest.mark.parametrize(("device", "processors", "clock"), [("h200", 132, 1.785e9), ("a100", 108, 1.41e9)])
def test_a_loop_on_a_gpu_is_no_faster_than_its_first_caches_feed_it(device, processors, clock):
    """Two products and a sum of three arrays load 12 bytes, of the 128 that a multiprocessor loads in a cycle."""
    assert profile(device).loop_flops_per_second < 3 * processors * 128 * clock / 12
