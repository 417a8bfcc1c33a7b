"""Predicted times: the model's formulas by hand, and what a price must say of steps."""

import math
from dataclasses import replace

import pytest

import gpueinsum as ge
from gpueinsum.costs.counts import item_bytes, product_flops
from gpueinsum.costs.profile import Profile, Rate, profile
from gpueinsum.costs.seconds import pass_seconds, product_seconds
from gpueinsum.language.steps import Add, Contract, Expand, Fused, Reduce
from gpueinsum.schedule.predict import ideal_seconds, is_tiny, plan_seconds, step_seconds

ROUND = Profile(
    **{"name": "round", "kind": "cuda", "device": "round numbers", "rates": (("float32", Rate(1e9, 1, 1, 1)),)},
    **{"bytes_per_second": 1e6, "permuted": 0.5, "cache_bytes": 1000, "cached": 10.0},
    **{"loop_flops_per_second": 1e6, "launch": 1.0, "each": 0.25, "memory_bytes": 10**9, "processors": 9},
)  # fmt: skip
SIZES = {"i": 100, "j": 300, "k": 200, "b": 2}


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
    assert product_seconds(cpu, "float32", 1, 1, 1, 1, 0) == pytest.approx(0.4)
    assert product_seconds(cpu, "float32", 2, 1, 1, 1, 0) == pytest.approx(1)
    assert [pass_seconds(cpu, 0, arrays=arrays) for arrays in (1, 2, 3, 4)] == [1, 1, 1.5, 1.5]
    assert pass_seconds(ROUND, 0, arrays=4) == 1


def test_a_view_takes_no_time():
    assert step_seconds(Reduce(0, "ij", "ji"), SIZES, "float32", ROUND) == 0


@pytest.mark.parametrize(
    ("step", "elements"),
    [
        (Reduce(0, "iij", "j"), 30_000 + 300),  # of an array the diagonal alone is read
        (Expand(0, "j", "jj"), 300 + 90_000),
        (Add((0, 1, 2), "ij"), 4 * 30_000),
        (Fused((0, 1, 2), ("i", "ij", "j"), "ij", (False,) * 3), 100 + 30_000 + 300 + 30_000),
        (Contract(0, 1, "i", "j", "ij"), 100 + 300 + 30_000),
        (Contract(0, 1, "ij", "ij", "i"), 60_000 + 100),
    ],
)
def test_what_is_no_product_is_a_pass_over_what_it_reads_and_writes(step, elements):
    fast = replace(ROUND, loop_flops_per_second=1e30, cache_bytes=10**9, cached=1.0)
    assert step_seconds(step, SIZES, "float32", fast) == pytest.approx(1 + 4 * elements / 1e6)


@pytest.mark.parametrize(
    ("terms", "again"),
    [
        ("ij,jb->ib", 99 * 600),  # all of jb for each i
        ("ij,jb->bi", 30_000),  # all of ij for each b, while every i reads a column of jb that is kept
        ("ij,kj->ik", 99 * 60_000),
        ("ij,kb->ikb", 0),  # the cache keeps 500
        ("ij,k->ijk", 0),
        ("ij,j->ij", 0),
        ("ij,i->ij", 0),
    ],
)
def test_a_pass_on_a_gpu_reads_again_what_its_cache_has_lost(terms, again):
    inputs, out = terms.split("->")
    step = Fused((0, 1), tuple(inputs.split(",")), out, (False, False))
    fast = replace(ROUND, loop_flops_per_second=1e30, cache_bytes=2000, cached=1.0, permuted=1.0)
    once = step_seconds(step, SIZES, "float32", replace(fast, cache_bytes=10**9))
    assert step_seconds(step, SIZES, "float32", fast) - once == pytest.approx(4 * again / 1e6)
    assert step_seconds(step, SIZES, "float32", replace(fast, kind="cpu")) == once  # whose loops go another way


@pytest.mark.parametrize(
    ("step", "elements"),
    [
        (Reduce(0, "ii", ""), 100 * 8 + 1),  # of each sector of 32 bytes one float
        (Reduce(0, "iki", "k"), 100 * 200 * 8 + 200),
        (Reduce(0, "ibb", "i"), 200 * 3 + 100),  # neighbours are three elements apart
        (Reduce(0, "iik", "k"), 100 * 200 + 200),
        (Expand(0, "i", "ii"), 100 + 100 * 100),  # which writes all of it
    ],
)
def test_of_a_diagonal_memory_gives_what_lies_beside_it_too(step, elements):
    steady = replace(ROUND, loop_flops_per_second=1e30, cached=1.0, permuted=1.0)
    assert step_seconds(step, SIZES, "float32", steady) == pytest.approx(1 + 4 * elements / 1e6)
    assert step_seconds(step, SIZES, "float64", replace(steady, kind="cpu")) == pytest.approx(1 + 8 * elements / 1e6)


def test_many_tiny_products_are_a_pass_on_a_gpu():
    h200, cpu = profile("h200"), profile("cpu")

    def is_pass(device, dtype, batch, rows, columns, summed):
        sizes = {"b": batch, "i": rows, "k": columns, "j": summed}
        step = Contract(0, 1, "bij", "bjk", "bik")
        passes = is_tiny(step, sizes, dtype, device)
        if passes:
            moved = item_bytes(dtype) * batch * (rows * summed + summed * columns + rows * columns)
            flops = product_flops(dtype, batch * rows * columns * summed, batch * rows * columns)
            assert ideal_seconds(step, sizes, dtype, device) == pass_seconds(device, moved, flops)
        return passes

    assert is_pass(h200, "float32", 10**6, 4, 4, 4)
    assert is_pass(h200, "complex64", 1, 2, 10**7, 2)  # a gate on a qubit
    assert is_pass(h200, "complex64", 1, 10**7, 4, 4)  # and on two
    assert not is_pass(h200, "float32", 10**6, 16, 16, 16)  # more arithmetic than a pass has time for
    assert not is_pass(h200, "float16", 10**6, 8, 8, 8)
    assert not is_pass(h200, "float32", 1, 4, 4, 10**7)  # every result would read all of it
    assert not is_pass(h200, "float32", 100, 4, 4, 4)  # a launch, whatever is done
    assert not is_pass(h200, "float32", 10**6, 4, 1, 4)  # of matrices and vectors
    assert not is_pass(cpu, "float32", 10**6, 4, 4, 4)
    assert not is_pass(h200, "float32", 10**310, 4, 4, 4)  # more than a float, or any memory, holds


def test_a_reduction_that_turns_an_array_is_priced_as_one():
    along, across = (step_seconds(Reduce(0, "bij", out), SIZES, "float32", ROUND) for out in ("ij", "ji"))
    assert across > along


@pytest.mark.parametrize(
    ("step", "across"),
    [
        (Reduce(0, "bij", "ji"), 30_000),  # either the result or what is read, whatever is less
        (Reduce(0, "ij", "i"), 0),  # nothing is written along what is read
        (Expand(0, "i", "ij"), 0),
        (Contract(0, 1, "ij", "ji", "ij"), 30_000),
        (Contract(0, 1, "ij", "i", "ij"), 0),  # which has no j to read along
        (Fused((0, 1, 2), ("ji", "ij", "ji"), "ij", (False,) * 3), 30_000),
    ],
)
def test_a_pass_moves_across_what_lies_along_another_axis_than_its_result(step, across):
    fast = replace(ROUND, loop_flops_per_second=1e30)
    straight = step_seconds(step, SIZES, "float32", replace(fast, permuted=1.0))
    assert step_seconds(step, SIZES, "float32", fast) - straight == pytest.approx(4 * across / 1e6)


def test_a_pass_computes_as_many_operations_as_it_has_operands():
    def flops(step, dtype="float32"):
        return step_seconds(step, SIZES, dtype, replace(ROUND, bytes_per_second=1e30, loop_flops_per_second=1.0)) - 1

    def product(operands, out):
        return Fused(tuple(range(operands)), ("ij",) * operands, out, (False,) * operands)

    assert [flops(product(operands, "ij")) for operands in (2, 3, 4)] == [30_000, 60_000, 90_000]
    assert flops(product(3, "i")) == 60_000 + 30_000 - 100
    assert flops(product(2, "ij"), "complex64") == 6 * 30_000
    assert flops(Reduce(0, "ij", "i")) == 30_000 - 100


def test_a_matrix_times_a_vector_is_a_product_or_a_pass_whichever_is_faster():
    step, bytes_moved = Contract(0, 1, "ij", "j", "i"), 4 * (30_000 + 300 + 100)
    slow_loop = replace(ROUND, loop_flops_per_second=1.0, each=0.0)
    assert step_seconds(step, SIZES, "float32", slow_loop) == pytest.approx(1 + bytes_moved / 1e6)
    slow_product = replace(ROUND, rates=(("float32", Rate(1.0, 1, 1, 1)),), loop_flops_per_second=1e30)
    assert step_seconds(step, SIZES, "float32", slow_product) == pytest.approx(1 + bytes_moved / 1e6)
    assert step_seconds(step, SIZES, "int64", slow_loop) == pytest.approx(1 + 2 * 30_000 - 100)  # no library for it


@pytest.mark.parametrize("device", ["h200", "a100", "cpu"])
@pytest.mark.parametrize("terms", ["bij,bjk,bik", "ibj,kbj,kib", "jib,bkj,bki", "bij,j,bi"])
def test_no_order_of_the_labels_is_priced_below_the_ideal(device, terms):
    for size in (1, 3, 50, 400):
        sizes = {"b": 7, "i": size, "j": 60, "k": 2 * size}
        step = Contract(0, 1, *terms.split(","))
        ideal = ideal_seconds(step, sizes, "float64", profile(device))
        assert ideal <= (1 + 1e-9) * step_seconds(step, sizes, "float64", profile(device))


@pytest.mark.parametrize(("device", "processors", "clock"), [("h200", 132, 1.785e9), ("a100", 108, 1.41e9)])
def test_a_loop_on_a_gpu_is_no_faster_than_its_first_caches_feed_it(device, processors, clock):
    """Two products and a sum of three arrays load 12 bytes, of the 128 that a multiprocessor loads in a cycle."""
    assert profile(device).loop_flops_per_second < 3 * processors * 128 * clock / 12


def test_what_no_float_can_count_takes_forever():
    plan = ge.einsum_plan("abcd,efgh->abcdefgh", *[(10**50,) * 4] * 2)
    assert plan_seconds(plan, ROUND) == math.inf
    assert "predicted on" in ge.explain(plan, "h200")


def test_a_plan_takes_the_sum_of_its_steps():
    plan = ge.einsum_plan("ij,jk,kb->ib", (100, 300), (300, 200), (200, 2), dtype="float32")
    assert plan_seconds(plan, ROUND) == sum(step_seconds(step, SIZES, "float32", ROUND) for step in plan.steps)


@pytest.mark.parametrize("device", ["h200", "a100", "cpu"])
def test_more_work_never_takes_less(device):
    def seconds(**sizes):
        return step_seconds(Contract(0, 1, "bij", "bjk", "bik"), sizes, "float32", profile(device))

    for label in "bijk":
        sizes = dict.fromkeys("bijk", 64)
        times = [seconds(**sizes | {label: size}) for size in (16, 64, 256, 1024, 4096)]
        assert times == sorted(times)
