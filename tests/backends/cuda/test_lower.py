"""From plans to programs: what a program takes is known to the byte, is taken at once, and nothing else is."""

import itertools
import math

import numpy as np
import pytest
from programs import operands_of, run_on
from simulated import SimulatedRuntime

import gpueinsum as ge
from gpueinsum.backends.base import Mode
from gpueinsum.backends.cuda import backend as cuda
from gpueinsum.backends.cuda.backend import CudaBackend
from gpueinsum.backends.cuda.program import Launch, Product
from gpueinsum.backends.cuda.source import SUMS
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Contract, Reduce
from gpueinsum.schedule.fusion import Fused
from gpueinsum.schedule.schedule import schedule

DTYPES = ["bool", "int16", "float16", "bfloat16", "float32", "float64", "complex64", "complex128"]
SHAPES = [*itertools.pairwise([29, 31, 37, 41, 43, 47, 53, 59, 61])]
TREE = ge.einsum_plan("ab,bc,cd,de,ef,fg,gh,hi->ai", *SHAPES, optimize=[(0, 1)] * 7)
PLANS = {
    "a chain": ge.einsum_plan("ij,jk,kl,lm->im", (7, 11), (11, 13), (13, 17), (17, 19)),
    "its gradients": ge.einsum_plan("ij,jk,kl->il", (7, 11), (11, 13), (13, 17)).vjp(),
    "its gradients' gradients": ge.einsum_plan("ij,jk->ik", (7, 11), (11, 13)).vjp().vjp(),
    "its tangents": ge.einsum_plan("ij,jk,kl->il", (7, 11), (11, 13), (13, 17)).jvp(),
    "copies for a product": ge.einsum_plan("ijk,kjl->il", (7, 11, 13), (13, 11, 17)),
    "a long sum": ge.einsum_plan("i,i->", (70_001,), (70_001,)),
    "diagonals": ge.einsum_plan("iij,jkk->ik", (7, 7, 11), (11, 13, 13)),
    "a broadcast": ge.einsum_plan("ij->ij", (7, 11)).vjp().vjp(),
    "a gradient of sums": ge.einsum_plan("ijk->j", (7, 12, 16)).vjp(),
    "repeated output": ge.einsum_plan("ij,j->iji", (7, 11), (11,)),
    "products by pointers": ge.einsum_plan("bqhd,bkhd->bhqk", (3, 2, 5, 7), (3, 11, 5, 7)),
    "a tree": TREE,
    "a tree's gradients": TREE.vjp(),
    "sums of tensors": ge.einsum_plan("abc,cde,efa->", (31, 7, 41), (41, 11, 47), (47, 5, 31)).vjp(),
    "nothing to sum over": ge.einsum_plan("ij,jk->ik", (7, 0), (0, 11)),
    "an empty result": ge.einsum_plan("ij,jk->ik", (0, 7), (7, 11)),
    "nothing at all": ge.einsum_plan("ij,jk,kl->il", (0, 0), (0, 0), (0, 7)),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_run_takes_as_much_as_the_program_says_and_no_more(rng, name):
    plan, device = PLANS[name], SimulatedRuntime()
    results, program = run_on(device, plan, *operands_of(rng, plan))
    assert device.peak == program.bytes
    assert device.allocations == len(program.results) + bool(program.workspace)
    assert device.used == sum(program.results)
    owners = dict.fromkeys(plan.owners()[output] for output in plan.outputs)
    made = [owner for owner in owners if owner >= len(plan.inputs)]  # and no view of an operand
    assert sum(program.results) == sum(math.prod(plan.shape(owner)) * 8 for owner in made)
    del results
    assert device.used == 0


@pytest.mark.parametrize("name", PLANS)
def test_a_run_that_is_timed_step_by_step_launches_what_another_does(rng, name):
    plan, device = PLANS[name], SimulatedRuntime()
    arrays = [device.to_device(host) for host in operands_of(rng, plan)]
    backend = CudaBackend(device)
    backend.bind(plan)(*arrays)
    calls = [*device.calls]
    device.calls.clear()
    elements = [tuple([stride // 8 for stride in array.strides]) for array in arrays]
    made = schedule(plan, backend.profile, elements)
    seconds = backend.step_seconds(made, arrays)  # a millisecond for each launch
    assert device.calls == calls
    assert sum(seconds) == pytest.approx(1e-3 * len(calls))
    assert not any(each for each, step in zip(seconds, made.steps, strict=True) if step.is_view)
    device.check_guards()


def test_the_count_sees_another_allocation(rng):
    device = SimulatedRuntime()
    _, program = run_on(device, PLANS["a chain"], *operands_of(rng, PLANS["a chain"]))
    kept = device.allocate(1 << 20)
    assert device.peak > program.bytes
    del kept


@pytest.mark.parametrize("mode", [Mode(), Mode(graph=True), Mode(deterministic=True)], ids=str)
@pytest.mark.parametrize("name", PLANS)
def test_a_program_gives_what_the_cpu_gives(rng, name, mode):
    plan, device = PLANS[name], SimulatedRuntime()
    hosts = operands_of(rng, plan)
    arrays, run = [device.to_device(host) for host in hosts], CudaBackend(device).bind(plan, mode)
    for _ in range(3):
        for result, expected in zip(run(*arrays), ge.backends.select.HOST.bind(plan)(*hosts), strict=True):
            np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-9)


def test_intermediates_take_turns_in_the_workspace():
    path = [(0, 1), *[(0, 7 - done) for done in range(1, 7)]]
    plan = ge.einsum_plan("ab,bc,cd,de,ef,fg,gh,hi->ai", *[(64, 64)] * 8, optimize=path)
    program = CudaBackend(SimulatedRuntime()).program(plan, [(64 * 8, 8)] * 8)
    assert program.workspace == 2 * 64 * 64 * 8
    assert program.results == (64 * 64 * 8,)


def test_a_view_keeps_its_owner_and_outputs_of_one_memory_share_it(rng):
    steps = (Contract(0, 1, "ij", "jk", "ik"), Reduce(2, "ik", "ki"), Contract(3, 0, "ki", "ij", "kj"))
    plan = Plan(("ij", "jk"), steps, (3, 2, 4), (("i", 5), ("j", 7), ("k", 3)), "float64")
    x, y = rng.random((5, 7)), rng.random((7, 3))
    (turned, product, last), program = run_on(SimulatedRuntime(), plan, x, y)
    np.testing.assert_allclose(turned, (x @ y).T)
    np.testing.assert_allclose(last, (x @ y).T @ x)
    assert np.shares_memory(turned, product)
    assert program.results == (5 * 3 * 8, 3 * 7 * 8)


def test_a_program_is_assembled_once_for_operands_of_the_same_strides(rng, monkeypatch):
    assembled, device = [], SimulatedRuntime()
    assemble = cuda.assemble
    monkeypatch.setattr(cuda, "assemble", lambda made, *given: assembled.append(made.strides) or assemble(made, *given))
    run = CudaBackend(device).bind_single(PLANS["a chain"])
    for turned in (False, False, True, False, True):
        hosts = [rng.random(PLANS["a chain"].shape(number)) for number in range(4)]
        arrays = [device.to_device(np.asfortranarray(host) if turned else host) for host in hosts]
        np.testing.assert_allclose(run(*arrays), np.linalg.multi_dot(hosts))
    assert assembled == [((11, 1), (13, 1), (17, 1), (19, 1)), ((1, 7), (1, 11), (1, 13), (1, 17))]


def test_every_address_lies_in_its_memory():
    for plan in PLANS.values():
        strides = [np.empty(plan.shape(number)).strides for number in range(len(plan.inputs))]
        program = CudaBackend(SimulatedRuntime()).program(plan, strides)
        sizes = [*(span.bytes for span in program.operands), *program.results, program.workspace]
        for work in program.work:
            assert isinstance(work, Launch | Product)
            for memory, offset in work.addresses:
                assert 0 <= offset <= sizes[memory]


def test_a_program_prints_a_line_for_each_launch():
    plan = ge.einsum_plan("bijl,bjk->bik", (3, 61, 67, 31), (3, 67, 71))
    program = CudaBackend(SimulatedRuntime()).program(plan, [np.empty(plan.shape(n)).strides for n in (0, 1)])
    assert str(program).split("\n") == [
        "float64, 2 launches, 98304 bytes of workspace, 103944 of results",
        "  w+0 = reduce_rows, 128 x 256 threads  of %0",
        "  r0 = gemm NN, 3 of 71 x 61 x 67  of %1, w+0",
    ]
    plan = ge.einsum_plan("ij,jk->ik", (61, 67), (67, 71))
    turned = CudaBackend(SimulatedRuntime()).program(plan, [(8, 61 * 8), (8, 67 * 8)])
    assert str(turned).split("\n")[1] == "  r0 = gemm TT, 71 x 61 x 67  of %1, %0"


# ---- Products of several arrays


FUSED = ["ij,ij,j->ij", "ij,i,j->i", "i,i,i,i->", "ij,jk,k,i->ik"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("equation", FUSED)
def test_several_arrays_are_multiplied_and_summed_in_one_pass(rng, equation, dtype):
    terms, out = equation.split("->")
    terms = tuple(terms.split(","))
    size = {"i": 5, "j": 16, "k": 3}
    kind = ge.api.arguments.dtype_of(dtype)
    hosts = [rng.integers(-2, 3, [size[label] for label in term]) for term in terms]
    if kind.kind == "c":
        hosts = [host + 1j * rng.integers(-2, 3, host.shape) for host in hosts]
    hosts = [host.astype(kind) for host in hosts]
    conjugated = tuple(number % 2 == 0 for number in range(len(terms)))
    step = Fused(tuple(range(len(terms))), terms, out, conjugated)
    plan = Plan(terms, (step,), (len(terms),), tuple(size.items()), dtype)
    device = SimulatedRuntime()
    [result], program = run_on(device, plan, *hosts)
    wide = [host.astype(complex if kind.kind == "c" else bool if kind.kind == "b" else np.int64) for host in hosts]
    factors = [host.conj() if mark and kind.kind == "c" else host for host, mark in zip(wide, conjugated, strict=True)]
    np.testing.assert_array_equal(result, np.asarray(np.einsum(equation, *factors)).astype(kind))
    assert len(program.work) == 1
    assert device.peak == program.bytes


def laid_out(device, rng, host):
    """An array on the device: as it is, or with its axes in any order in memory, gaps between elements, backwards."""
    if host.ndim == 0 or rng.random() < 0.6:
        return device.to_device(host)
    axes = rng.permutation(host.ndim)
    turned = np.ascontiguousarray(host.transpose(axes))
    array = device.to_device(turned)
    if rng.random() < 0.4:
        array = device.to_device(np.repeat(turned, 2, axis=-1))[..., :: 2 if rng.random() < 0.5 else -2]
        array[...] = turned
    return array.transpose(np.argsort(axes))


def random_pass(seed, dtype):
    """A plan of one pass over up to four arrays of up to three labels, all conjugated, and the arrays, of real numbers.

    So a permutation is one, too, where numbers are complex, and no view.
    """
    rng = np.random.default_rng(seed)
    sizes = dict(zip("abcd", map(int, rng.choice([1, 3, 16, 32, 48], 4)), strict=True))
    terms = tuple("".join(rng.permutation(list("abcd"))[: rng.integers(0, 4)]) for _ in range(rng.integers(1, 5)))
    labels = sorted(set("".join(terms)))
    out = "".join(rng.permutation(labels)[: rng.integers(0, len(labels) + 1)]) if labels else ""
    hosts = [
        rng.integers(0, 2, [sizes[label] for label in term]).astype(ge.api.arguments.dtype_of(dtype)) for term in terms
    ]
    step = Fused(tuple(range(len(terms))), terms, out, (True,) * len(terms))
    return Plan(terms, (step,), (len(terms),), tuple(sizes.items()), dtype), hosts, rng


SEEDS = *range(60), 63, 128  # of which two sum many short rows


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", SEEDS)
def test_passes_of_any_layout_agree_with_numpy(dtype, seed):
    (plan, hosts, rng), device = random_pass(seed, dtype), SimulatedRuntime()
    result = CudaBackend(device).bind_single(plan)(*[laid_out(device, rng, host) for host in hosts])
    wide = [host.real.astype(bool if dtype == "bool" else np.int64) for host in hosts]
    expected = np.asarray(np.einsum(plan.equation, *wide))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(result, expected.astype(result.dtype))


def test_those_passes_take_every_kernel_with_packs_and_without():
    taken = set()
    for seed in SEEDS:
        (plan, hosts, rng), device = random_pass(seed, "complex64"), SimulatedRuntime()
        program = CudaBackend(device).program(plan, [laid_out(device, rng, host).strides for host in hosts])
        taken |= {(work.kernel.name, bool(work.job[0][-2])) for work in program.work}
    assert taken == {(name, wide) for name in (*SUMS, "multiply") for wide in (False, True)}
