"""Predicted times of steps and plans: what the model says of each, and what a price must say."""

import math
from dataclasses import replace

import numpy as np
import pytest
from round_numbers import ROUND

import gpueinsum as ge
from gpueinsum.costs.profile import Rate, profile
from gpueinsum.language.steps import Add, Contract, Expand, Reduce
from gpueinsum.schedule import numpy_loop
from gpueinsum.schedule.fusion import Fused
from gpueinsum.schedule.predict import ideal_seconds, plan_seconds, step_seconds

SIZES = {"i": 100, "j": 300, "k": 200, "b": 2}


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
    step = Fused((0, 1, 2), (*inputs.split(","), ""), out, (False,) * 3)  # of two it may be a product
    fast = replace(ROUND, loop_flops_per_second=1e30, cache_bytes=2000, cached=1.0, permuted=1.0)
    for device, expected in ((fast, 4 * again / 1e6), (replace(fast, kind="cpu"), 0)):  # whose loops go another way
        once = step_seconds(step, SIZES, "float32", replace(device, cache_bytes=10**9))
        assert step_seconds(step, SIZES, "float32", device) - once == pytest.approx(expected)


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
def test_of_a_diagonal_memory_gives_what_lies_beside_it_too(step, elements, monkeypatch):
    monkeypatch.setattr(numpy_loop, "_ONE_THREAD", 1.0)
    steady = replace(ROUND, loop_flops_per_second=1e30, cached=1.0, permuted=1.0, launch=0.0)
    assert step_seconds(step, SIZES, "float32", steady) == pytest.approx(4 * elements / 1e6)
    assert step_seconds(step, SIZES, "float64", replace(steady, kind="cpu")) == pytest.approx(8 * elements / 1e6)


def test_a_reduction_that_turns_an_array_is_priced_as_one():
    along, across = (step_seconds(Reduce(0, "bij", out), SIZES, "float32", ROUND) for out in ("ij", "ji"))
    assert across > along


@pytest.mark.parametrize(
    ("step", "elements", "dtype"),
    [
        (Reduce(0, "bij", "ij"), 60_000 + 30_000, "float32"),
        (Reduce(0, "bij", "b"), 60_000 + 2, "float32"),
        (Reduce(0, "bij", "ji"), 8 * 60_000 + 30_000, "float32"),  # threads go along b: of a sector they use 4 bytes
        (Reduce(0, "bij", "ji"), 2 * 60_000 + 30_000, "complex128"),
        (Contract(0, 1, "ij", "i", "ij"), 30_000 + 100 + 30_000, "float32"),  # which has no j to read along
        (Contract(0, 1, "ji", "i", "ij"), 8 * 30_000 + 100 + 30_000, "float32"),
        (Fused((0, 1, 2), ("ij", "ij", "ji"), "ij", (False,) * 3), (2 + 8 + 1) * 30_000, "float32"),
    ],
)
def test_threads_that_read_elements_which_lie_apart_read_whole_sectors(step, elements, dtype):
    """Where a copy takes longer."""
    steady = replace(ROUND, loop_flops_per_second=1e30, cached=1.0, permuted=1e-3)
    nbytes = elements * np.dtype(dtype).itemsize
    assert step_seconds(step, SIZES, dtype, steady) - steady.launch == pytest.approx(nbytes / 1e6)


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
    slow_product = replace(
        ROUND, rates=(("float32", Rate(1.0, 1, 1, 1)),), loop_flops_per_second=1e30, cache_bytes=2000
    )
    assert step_seconds(step, SIZES, "float32", slow_product) == pytest.approx(1 + bytes_moved / 1e6)
    assert step_seconds(step, SIZES, "int64", slow_loop) == pytest.approx(1 + 2 * 30_000 - 100)  # no library for it


@pytest.mark.parametrize("device", ["h200", "a100", "cpu"])
@pytest.mark.parametrize("terms", ["bij,bjk,bik", "ibj,kbj,kib", "jib,bkj,bki", "bij,j,bi"])
def test_no_order_of_the_labels_is_priced_below_the_ideal(device, terms):
    for size in (1, 3, 50, 400):
        sizes = {"b": 7, "i": size, "j": 60, "k": 2 * size}
        step = Contract(0, 1, *terms.split(","))
        ideal, seconds = (price(step, sizes, "float64", profile(device)) for price in (ideal_seconds, step_seconds))
        small = profile(device).launch / 2 if device == "cpu" else 0  # numpy's loop has more speeds than the ideal
        assert ideal <= (1 + 1e-9) * seconds + small


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
