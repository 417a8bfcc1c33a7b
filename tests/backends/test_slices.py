"""Plans run slice by slice, on both backends, against the same plans run at once and against the oracle."""

import gc
import tracemalloc
from dataclasses import replace
from functools import partial

import ml_dtypes
import numpy as np
import pytest
from call_checks import assert_passes
from conftest import REAL
from gradient_checkers import check_jvp, check_second, check_vjp, use
from long_runs import shorten
from oracle import assert_agrees, reference
from random_expressions import random_case
from random_gradients import operands_of, random_call, random_plain_call
from simulated import SimulatedRuntime
from sliced_plans import in_slices

import gpueinsum as ge
from gpueinsum import Plan
from gpueinsum.backends.base import Mode
from gpueinsum.backends.cpu import pool
from gpueinsum.backends.cuda.backend import CudaBackend
from gpueinsum.backends.select import HOST
from gpueinsum.costs.profile import profile
from gpueinsum.language.slices import cut
from gpueinsum.language.steps import Contract, Reduce

BATCHES, BATCH = 6, 500
H200 = profile("h200")
CHAIN = ge.einsum_plan("ij,jk,kl->il", (4, 3), (3, 5), (5, 7), optimize=[(1, 2), (0, 1)])
IN_SLICES = replace(CHAIN, sliced=(("j", 1), ("i", 1)))
CUTS = ["j", "k", "i", "l", "ij", "kj", "li", "lkji"]


@pytest.fixture(params=["cpu", "simulated", REAL])
def backend(request, monkeypatch):
    """The name of a backend, for `backend=`."""
    if request.param == "cpu":
        return "cpu"
    use(request.param, monkeypatch)
    return "cuda"


def planned(*args, dtype=None, optimize="auto"):
    return in_slices(ge.einsum_plan(*args, dtype=dtype, optimize=optimize))


@pytest.mark.parametrize("batch", shorten(range(BATCHES)))
def test_random_expressions_in_random_slices_agree_with_the_oracle(batch, backend):
    in_some, seeds = [], range(batch * BATCH, (batch + 1) * BATCH)

    def check(case):
        is_plain = case.kwargs.keys() <= {"dtype", "optimize"} and not (case.cpu_only and backend == "cuda")
        if case.valid and is_plain:
            plan = planned(*case.args, **case.kwargs)
            result = ge.run_plan(plan, *operands_of(case.args), backend=backend)
            assert_agrees(result, reference(*case.args, **case.kwargs))
            in_some.append(cut(plan).count > 1)

    assert_passes(check, seeds if backend == "cpu" else seeds[::2], random_case)
    assert sum(in_some) > len(in_some) / 3 > 10


@pytest.mark.parametrize("batch", shorten(range(BATCHES)))
def test_random_gradients_in_random_slices_are_those_by_definition(batch, backend):
    def vjp(*args, dtype=None, casting=None, optimize="auto", **options):
        return ge.vjp(planned(*args, dtype=dtype, optimize=optimize), *operands_of(args), backend=backend, **options)

    def jvp(subscripts, operands, tangents, *, dtype=None, casting=None, optimize="auto", **options):
        is_text = isinstance(subscripts, str)
        pairs = [each for pair in zip(operands, subscripts, strict=False) for each in pair]
        args = (subscripts, *operands) if is_text else (*pairs, *subscripts[len(operands) :])
        return ge.jvp(planned(*args, dtype=dtype, optimize=optimize), operands, tangents, backend=backend, **options)

    def check(call):
        if call.memory_limit is None and not (call.cpu_only and backend == "cuda"):
            check_vjp(vjp, call)
            check_jvp(jvp, call)

    seeds = range(batch * BATCH, (batch + 1) * BATCH)
    assert_passes(check, seeds[::2] if backend == "cpu" else seeds[::10], random_call)


def test_random_second_derivatives_in_slices():
    assert_passes(
        partial(check_second, lambda plan, *given: in_slices(plan).vjp(*given)), range(100), random_plain_call
    )


@pytest.mark.parametrize("labels", CUTS)
def test_gradients_are_those_without_slices(labels, backend, rng):
    sliced, arrays = (
        replace(CHAIN, sliced=tuple((label, 1) for label in labels)),
        [rng.standard_normal(CHAIN.shape(k)) for k in range(3)],
    )
    cotangents = rng.standard_normal((2, 4, 7))
    value, pullback = ge.vjp(sliced, *arrays, backend=backend)
    expected, whole = ge.vjp(CHAIN, *arrays, backend=backend)
    np.testing.assert_allclose(value, expected, atol=1e-10)
    for cotangent in (cotangents[0], cotangents):
        for gradient, other in zip(pullback(cotangent), whole(cotangent), strict=True):
            np.testing.assert_allclose(gradient, other, atol=1e-10)
    assert pullback.nbytes == sum(array.nbytes for array in arrays)  # and no intermediate of any slice


def test_a_sum_that_is_the_same_in_some_slices_counts_once(backend):
    """Of two outputs each is a sum over the slices of one label, and the same in those of the other."""
    steps = Reduce(0, "i", ""), Reduce(1, "j", ""), Contract(2, 3, "", "", "")
    plan = Plan(("i", "j"), steps, (2, 3, 4, 3, 0), (("i", 3), ("j", 5)), "int64", (("i", 1), ("j", 2)))
    found = ge.run_plan(plan, np.arange(3), np.arange(5), backend=backend)
    assert [int(each) for each in found[:4]] == [3, 10, 30, 10]
    assert found[4].tolist() == [0, 1, 2]


def test_torch_differentiates_a_plan_in_slices():
    torch = pytest.importorskip("torch", reason="torch is not installed: it derives no plan in slices")
    run = partial(ge.run_plan, IN_SLICES)
    tensors = [torch.randn(CHAIN.shape(k), dtype=torch.float64, requires_grad=True) for k in range(3)]
    assert torch.autograd.gradcheck(run, tensors)
    assert torch.autograd.gradgradcheck(run, tensors)


def test_jax_differentiates_a_plan_in_slices(rng):
    jax = pytest.importorskip("jax", reason="jax is not installed: it derives no plan in slices")
    arrays = [jax.numpy.asarray(rng.integers(-3, 4, CHAIN.shape(k)), "float32") for k in range(3)]
    whole, sliced = ([jax.jit(jax.grad(total_of(plan), k))(*arrays) for k in range(3)] for plan in (CHAIN, IN_SLICES))
    for gradient, other in zip(sliced, whole, strict=True):
        np.testing.assert_array_equal(gradient, other)


def total_of(plan):
    return lambda *arrays: ge.run_plan(replace(plan, dtype="float32"), *arrays).sum()


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16])
def test_halves_are_added_up_in_float32(dtype, backend):
    plan = replace(ge.einsum_plan("ij,j->i", (2, 4096), (4096,), dtype=dtype), sliced=(("j", 1),))
    ones = np.ones((2, 4096), dtype), np.ones(4096, dtype)
    assert ge.run_plan(plan, *ones, backend=backend).astype(int).tolist() == [4096, 4096]  # halves stop at 2048, or 256


def test_results_on_a_diagonal_are_zero_off_it(backend):
    plan = replace(ge.einsum_plan("i,ij->jii", (3,), (3, 5)), sliced=(("i", 1), ("j", 1)))
    x, y = np.arange(1.0, 4), np.arange(1.0, 16).reshape(3, 5)
    np.testing.assert_array_equal(ge.run_plan(plan, x, y, backend=backend), np.einsum("i,ij,ik->jik", x, y, np.eye(3)))


def test_an_operand_that_is_an_output_is_not_copied():
    plan = Plan(("ij",), (Reduce(0, "ij", ""),), (0, 1), (("i", 3), ("j", 5)), "float64", (("i", 2),))
    x = np.ones((3, 5))
    same, total = HOST.bind(plan)(x)
    assert (same is x, float(total)) == (True, 15)


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize(("labels", "inner"), [(labels, inner) for labels in CUTS for inner in range(len(labels))])
def test_a_device_takes_what_was_foreseen(labels, inner):
    for plan in (CHAIN, CHAIN.vjp()):
        runtime = SimulatedRuntime(H200.processors)
        sliced = replace(plan, sliced=tuple((label, 1) for label in labels), inner=inner)
        run = CudaBackend(runtime).bind(sliced)
        results = run(*[np.zeros(plan.shape(number)) for number in range(len(plan.inputs))])
        assert runtime.peak == sliced.peak_bytes(H200)
        del results
        gc.collect()
        assert runtime.used == 0


def test_the_cpu_takes_far_less_than_without_slices(rng, monkeypatch):
    monkeypatch.setattr(pool._pool, "limit", 0)  # or what it holds would be left out
    plan = ge.einsum_plan("abc,ade,bdf,cef->", *[(20, 20, 20)] * 4)
    arrays = [rng.standard_normal((20, 20, 20)) for _ in range(4)]
    peaks, values = [], []
    for each in (plan, replace(plan, sliced=(("b", 1),)), replace(plan, sliced=(("b", 1), ("e", 1)))):
        run = HOST.bind(each)
        run(*arrays)  # what is made once
        tracemalloc.start()
        [value] = run(*arrays)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert peaks[-1] <= each.peak_bytes("cpu") + (96 << 10)
        values.append(value)
    np.testing.assert_allclose(values, values[0])
    assert peaks[1] < peaks[0] / 10
    assert peaks[2] < peaks[1] / 2


# ---------------------------------------------------------------- modes


def test_slices_are_replayed_as_a_graph(rng, monkeypatch):
    """Each slice's operands lie elsewhere, and at the same addresses in the next call."""
    runtime, sliced = SimulatedRuntime(), replace(CHAIN, sliced=(("j", 1),))
    arrays = [rng.standard_normal(CHAIN.shape(k)) for k in range(3)]
    there = list(map(runtime.to_device, arrays))
    monkeypatch.setattr(runtime, "to_device", lambda array: array)  # where they are already
    run = CudaBackend(runtime).bind(sliced, Mode(graph=True))
    for _ in range(2):
        np.testing.assert_allclose(runtime.to_host(run(*there)[0]), np.linalg.multi_dot(arrays))
    assert "replay" in {kind for kind, *_ in runtime.calls}


def test_the_seed_decides_which_labels_are_sliced():
    assert in_slices(CHAIN) == in_slices(CHAIN)
    some = {len(planned("ij,jk->ik", (2, size), (size, 5)).sliced) for size in range(30)}
    assert some == {0, 1, 2, 3}
