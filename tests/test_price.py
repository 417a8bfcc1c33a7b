"""Predicted times: the model's formulas by hand, and what a price must say of steps."""

from dataclasses import replace

import pytest

import gpueinsum as ge
from gpueinsum.price import plan_seconds, step_seconds
from gpueinsum.profile import Profile, Rate, profile
from gpueinsum.steps import Add, Contract, Expand, Fused, Reduce
from gpueinsum.timing import pass_seconds, product_seconds

ROUND = Profile(
    **{"name": "round", "kind": "cuda", "device": "round numbers", "rates": (("float32", Rate(1e9, 1, 1, 1)),)},
    **{"bytes_per_second": 1e6, "permuted": 0.5, "fresh": 0.0, "cache_bytes": 1000, "cached": 10.0},
    **{"loop_flops_per_second": 1e6, "launch": 1.0, "each": 0.25, "memory_bytes": 10**9},
)  # fmt: skip
SIZES = {"i": 100, "j": 300, "k": 200, "b": 2}


def test_a_pass_takes_as_long_as_its_bytes_or_its_operations():
    assert pass_seconds(ROUND, 4e6) == 1 + 4
    assert pass_seconds(ROUND, 4e6, permuted=True) == 1 + 8
    assert pass_seconds(ROUND, 4e6, flops=9e6) == 1 + 9
    assert pass_seconds(ROUND, 1000) == 1 + 1e-4  # in the cache


def test_a_product_runs_at_half_its_rate_at_the_half_size():
    assert product_seconds(ROUND, "float32", 1, 1, 10**9, 10**9, 0) == pytest.approx(1 + 2e18 / 1e9 * 2)
    assert product_seconds(ROUND, "float32", 1, 1, 1, 10**9, 0) == pytest.approx(1 + 2e9 / 1e9 * 4)


def test_a_batch_takes_its_time_for_each_product():
    assert product_seconds(ROUND, "float32", 8, 1, 1, 1, 0) == pytest.approx(1 + 8 * 0.25)
    assert product_seconds(ROUND, "float32", 1, 1, 1, 1, 7e6) == pytest.approx(1 + 7)


def test_a_complex_product_is_four_real_ones():
    complex_too = replace(ROUND, rates=(*ROUND.rates, ("complex64", Rate(1e9, 1, 1, 1))), launch=0.0, each=0.0)
    real, whole = (product_seconds(complex_too, dtype, 1, 99, 99, 99, 0) for dtype in ("float32", "complex64"))
    assert whole == pytest.approx(4 * real)


def test_a_product_without_a_library_is_a_loop():
    assert product_seconds(ROUND, "int64", 1, 10, 10, 10, 0) == pytest.approx(1 + 2000 / 1e6)


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
    fast = replace(ROUND, loop_flops_per_second=1e30)
    assert step_seconds(step, SIZES, "float32", fast) == pytest.approx(1 + 4 * elements / 1e6)


def test_a_reduction_that_turns_an_array_is_priced_as_one():
    along, across = (step_seconds(Reduce(0, "bij", out), SIZES, "float32", ROUND) for out in ("ij", "ji"))
    assert across > along


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
