"""Memory that is foreseen, beside memory that is taken: on the simulated device byte by byte."""

import functools
import gc
import math
import tracemalloc

import numpy as np
import pytest
from expressions import EXPRESSIONS, arguments, random_operand
from simulated import SimulatedRuntime

import gpueinsum as ge
from gpueinsum.backends.cpu import pool
from gpueinsum.backends.cuda.backend import CudaBackend
from gpueinsum.backends.select import HOST
from gpueinsum.costs.counts import total_flops
from gpueinsum.costs.profile import profile
from gpueinsum.schedule.schedule import schedule

H200 = profile("h200")


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_a_device_takes_what_was_foreseen(name):
    check(ge.einsum_plan(*arguments(*EXPRESSIONS[name]), dtype="c8"))


@pytest.mark.parametrize("equation", ["ij,jk,kl,lm->im", "bqhd,bkhd->bhqk", "ijk,jl,km->ilm", "ij,jk,ki->"])
def test_gradients_take_what_was_foreseen(equation, rng):
    size = dict.fromkeys("ijklmbqhd", 5)
    shapes = [tuple(size[label] for label in term) for term in equation.split("->")[0].split(",")]
    check(ge.einsum_plan(equation, *shapes, dtype="f4").vjp())


def check(plan):
    runtime = SimulatedRuntime(H200.processors)
    run = CudaBackend(runtime).bind(plan)
    results = run(*(np.zeros(plan.shape(number), plan.dtype) for number in range(len(plan.inputs))))
    assert runtime.peak == plan.peak_bytes(H200)
    del results, run
    gc.collect()
    assert runtime.used == 0


LARGE = [
    name
    for name, (_, shapes) in EXPRESSIONS.items()
    if 0 not in [*map(math.prod, shapes)] and max(map(len, shapes)) < 9 and max(map(math.prod, shapes)) > 1
]


@functools.cache
def grown(name):
    """The shapes of an expression with arrays of some 1e5 elements."""
    (subscripts, shapes), found = EXPRESSIONS[name], None
    for factor in 1.25 ** np.arange(60):
        larger = [tuple([max(2, round(size * factor)) if size > 1 else 1 for size in shape]) for shape in shapes]
        plan = ge.einsum_plan(*arguments(subscripts, larger))
        largest = max(plan.peak_bytes() // 8, *map(math.prod, larger), 0)
        if found is not None and (largest > 2e5 or total_flops(plan) > 5e7):
            break
        found = larger
    return found


def taken(run, *operands):
    """The most bytes that a call takes at once."""
    run(*operands)  # what is made once
    gc.collect()
    tracemalloc.start()
    try:
        results = run(*operands)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        del results


def small(shape, dtype):
    """Numbers whose sums floats hold, so that products of integers are made of them."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 9, shape).astype(dtype) if dtype.kind == "i" else random_operand(rng, shape, dtype)


@pytest.mark.parametrize("dtype", ["float32", "int32", "int64", "bool", "complex64", "complex128"])
@pytest.mark.parametrize("name", LARGE)
def test_the_cpu_takes_what_was_foreseen(name, dtype, monkeypatch):
    monkeypatch.setattr(pool._pool, "limit", 0)  # or what it holds would be left out
    plan = ge.einsum_plan(*arguments(EXPRESSIONS[name][0], grown(name)), dtype=dtype)
    kind = np.dtype(dtype)
    for each in (plan, plan.vjp()) if kind.kind in "fc" else (plan,):
        operands = [small(each.shape(number), kind) for number in range(len(each.inputs))]
        foreseen, peak = each.peak_bytes("cpu"), taken(HOST.bind(each), *operands)
        buffers = 3 * np.getbufsize() * kind.itemsize  # numpy's, of each array of a loop
        assert peak <= foreseen + (64 << 10) + buffers
        assert peak >= 0.8 * foreseen or foreseen < 1e6  # numpy 2.5 copies less than numpy 2.4


def test_without_a_device_it_is_the_plans_own():
    plan = ge.einsum_plan("ij,jk,kl->il", (2, 3), (3, 5), (5, 11), optimize=[(1, 2), (0, 1)])
    assert plan.peak_bytes() == 8 * (3 * 11 + 2 * 11)
    assert plan.peak_bytes("cpu") == plan.peak_bytes()


def test_on_the_cpu_the_sides_that_are_copied_count():
    plan = ge.einsum_plan("abcd,ceb->ade", (30, 40, 50, 60), (50, 70, 40), dtype="f4")
    step, *_ = schedule(plan, profile("cpu")).steps  # and a view
    copied = {"copy the right side": 50 * 70 * 40, "copy both sides": 50 * 70 * 40 + 30 * 40 * 50 * 60}
    assert plan.peak_bytes("cpu") - plan.peak_bytes() == 4 * copied[step.taken.way.name]


def test_what_no_device_holds_is_said_without_being_laid_out():
    plan = ge.einsum_plan("ij,jk->ik", (1 << 20, 1 << 20), (1 << 20, 1 << 20))
    assert plan.peak_bytes("h200") == 8 << 40
    assert ge.einsum_plan("bij,bjk->bik", (10**310, 2, 2), (10**310, 2, 2)).peak_bytes("h200") == 32 * 10**310
    assert "allocated on h200: 8 TiB\n  (more than its 131 GiB)" in ge.explain(plan, "h200")


def test_a_device_that_is_none_is_refused():
    with pytest.raises(ge.ProfileError, match="there is no device profile 'h2oo'"):
        ge.einsum_plan("ij->ji", (2, 3)).peak_bytes("h2oo")


def test_plans_of_types_that_cuda_lacks_are_counted_all_the_same():
    for dtype in ("object", "longdouble", "clongdouble", "int64"):
        plan = ge.einsum_plan("ij,jk,kl->il", (20, 30), (30, 50), (50, 110), dtype=dtype)
        assert plan.peak_bytes("h200") >= plan.peak_bytes()
