"""From plans to programs: what a program takes is known to the byte, is taken at once, and nothing else is."""

import itertools
import math

import numpy as np
import pytest
from cublas_calls import make_pointers_free
from simulated import SimulatedRuntime

import gpueinsum as ge
from gpueinsum.backends.base import Mode
from gpueinsum.backends.cuda import backend as cuda
from gpueinsum.backends.cuda.backend import CudaBackend
from gpueinsum.backends.cuda.program import Launch, Product
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Contract, Reduce
from gpueinsum.schedule import gemm
from gpueinsum.schedule import select as candidates
from gpueinsum.schedule.fusion import Fused

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


def run_on(device, plan, *hosts):
    """The outputs of a plan of host arrays, and its program."""
    arrays = [device.to_device(host) for host in hosts]
    backend = CudaBackend(device)
    return backend.bind(plan)(*arrays), backend.program(plan, [array.strides for array in arrays])


def products_by_pointers(program):
    return [work for work in program.work if isinstance(work, Product) and work.by_pointers]


def operands_of(rng, plan):
    return [rng.integers(-3, 4, plan.shape(number)).astype(plan.dtype) for number in range(len(plan.inputs))]


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
        "  w+0 = reduce, 48 x 256 threads  of %0",
        "  r0 = gemm NN, 3 of 71 x 61 x 67  of %1, w+0",
    ]
    plan = ge.einsum_plan("ij,jk->ik", (61, 67), (67, 71))
    turned = CudaBackend(SimulatedRuntime()).program(plan, [(8, 61 * 8), (8, 67 * 8)])
    assert str(turned).split("\n")[1] == "  r0 = gemm TT, 71 x 61 x 67  of %1, %0"


# ---- Products by pointers


def test_a_program_by_pointers_prints_where_they_lie():
    plan = ge.einsum_plan("bqhd,bkhd->bhqk", (3, 2, 5, 7), (3, 11, 5, 7))
    program = CudaBackend(SimulatedRuntime()).program(plan, [np.empty(plan.shape(number)).strides for number in (0, 1)])
    assert str(program).split("\n") == [
        "float64, 2 launches, 512 bytes of workspace, 2640 of results",
        "  w+0 = pointers, 1 x 256 threads  of %1, %0, r0",
        "  r0 = gemm TN, 15 of 11 x 2 x 7, by pointers  of w+0, w+120, w+240, %1, %0",
    ]


@pytest.fixture
def free_pointers(monkeypatch):
    make_pointers_free(monkeypatch)
    yield monkeypatch
    candidates._cheapest.cache_clear()


def random_pair(seed, dtype):
    """A plan of one pair with up to three labels in each role, in any order, and its operands."""
    rng = np.random.default_rng(seed)
    labels = iter("abcdefghijkl")
    batch, left, right, summed = ("".join(next(labels) for _ in range(rng.integers(1, 4))) for _ in range(4))
    size = {label: int(rng.choice([2, 3, 4])) for label in batch + left + right + summed}
    kind = ge.api.arguments.dtype_of(dtype)
    terms = [batch + left + summed, batch + right + summed, batch + left + right]
    # The innermost labels are shared, so that most pairs are products as they lie, with halves in whole packs.
    inner = [summed[:1], summed[:1], right[:1]]
    size |= dict.fromkeys(inner, 8) if kind.itemsize == 2 else {}
    lhs, rhs, out = (
        "".join(rng.permutation(sorted(set(term) - set(last)))) + last for term, last in zip(terms, inner, strict=True)
    )
    step = Contract(0, 1, lhs, rhs, out, *map(bool, rng.integers(0, 2, 2)))
    plan = Plan((lhs, rhs), (step,), (2,), tuple(size.items()), dtype)
    hosts = [rng.integers(-2, 3, (2, *plan.shape(number))) for number in (0, 1)]
    return plan, [(real + 1j * imag if kind.kind == "c" else real).astype(kind) for real, imag in hosts]


PAIRS = range(80)


@pytest.mark.parametrize("most", [3, gemm.MAX_BATCH])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"])
def test_random_pairs_by_pointers_agree_with_numpy(free_pointers, dtype, most):
    free_pointers.setattr(gemm, "MAX_BATCH", most)
    by_pointers = adding = 0
    for seed in PAIRS:
        plan, hosts = random_pair(seed, dtype)
        device = SimulatedRuntime()
        [result], program = run_on(device, plan, *hosts)
        [step] = plan.steps
        wide = [host.astype(complex) for host in hosts]
        is_complex = dtype.startswith("complex")
        marks = step.conj_lhs and is_complex, step.conj_rhs and is_complex
        factors = [host.conj() if mark else host for host, mark in zip(wide, marks, strict=True)]
        expected = np.einsum(step.equation, *factors)
        np.testing.assert_array_equal(result.astype(complex), expected, err_msg=f"seed {seed}: {plan}")
        assert device.peak == program.bytes
        products = products_by_pointers(program)
        assert all(work.gemm.batch <= most for work in products)
        by_pointers += bool(products)
        adding += any(work.gemm.accumulate for work in products)
    assert by_pointers > len(PAIRS) // 2
    assert adding > len(PAIRS) // 8


def test_pointers_live_no_longer_than_their_product(rng):
    shapes = (3, 61, 7, 31), (3, 67, 7, 31), (3, 67, 7, 37)
    plan = ge.einsum_plan("bqhd,bkhd,bkhe->bqhe", *shapes, optimize=[(0, 1), (0, 1)])
    hosts = operands_of(rng, plan)
    [result], program = run_on(SimulatedRuntime(), plan, *hosts)
    np.testing.assert_array_equal(result, np.einsum("bqhd,bkhd,bkhe->bqhe", *hosts, optimize=True))
    first, second = (min(work.addresses[:3]) for work in products_by_pointers(program))
    assert first == second
    pointers, intermediate = 3 * 3 * 7 * 8, 3 * 7 * 61 * 67 * 8
    assert program.workspace == sum(-(-nbytes // 256) * 256 for nbytes in (pointers, intermediate))


@pytest.mark.parametrize(("dtype", "precision"), [("float16", None), ("bfloat16", None), ("float32", "tf32")])
def test_operands_that_begin_within_a_pack_are_read_in_turns(rng, dtype, precision):
    """Which an array of pointers would not tell cuBLAS; what lies elsewhere is seen at each call."""
    device, kind = SimulatedRuntime(), ge.api.arguments.dtype_of(dtype)
    shapes = (3, 2, 5, 8), (3, 16, 5, 8)
    plan = ge.einsum_plan("bqhd,bkhd->bhqk", *[np.empty(shape, kind) for shape in shapes])
    run = CudaBackend(device).bind_single(plan, Mode(precision))
    for shifts, expected in (
        ((0, 0), ["launch", "pointer gemm"]),
        ((1, 0), ["gemm"] * 3),
        ((0, 1), ["gemm"] * 3),
        ((0, 0), ["launch", "pointer gemm"]),
    ):
        arrays = []
        for shape, shift in zip(shapes, shifts, strict=True):
            memory = device.to_device(rng.integers(-2, 3, math.prod(shape) + 8).astype(kind))
            aligned = -device.pointer(memory) // kind.itemsize % (16 // kind.itemsize)
            arrays.append(memory[aligned + shift :][: math.prod(shape)].reshape(shape))
        device.calls.clear()
        result = run(*arrays)
        assert [name for name, *_ in device.calls] == expected
        np.testing.assert_array_equal(result, np.einsum("bqhd,bkhd->bhqk", *[array.astype(float) for array in arrays]))


def test_intermediates_begin_at_a_pack_wherever_the_operands_do():
    size = {"b": 3, "q": 128, "h": 5, "k": 64, "d": 64, "x": 7}
    sums = Reduce(0, "xbqhd", "bqhd"), Reduce(1, "xbkhd", "bkhd")
    for first, packed in (((), (0, 1)), (sums, ())):
        inputs = tuple("x" * len(first[:1]) + term for term in ("bqhd", "bkhd"))
        step = Contract(len(first), len(first) + 1, "bqhd", "bkhd", "bhqk")
        plan = Plan(inputs, (*first, step), (2 + len(first),), tuple(size.items()), "float16")
        strides = [np.empty(plan.shape(number), np.float16).strides for number in (0, 1)]
        for aligned in (True, False):
            program = CudaBackend(SimulatedRuntime()).program(plan, strides, aligned=aligned)
            assert program.packed_operands == (packed if aligned else ())
            assert bool(products_by_pointers(program)) == (aligned or not packed)


@pytest.mark.parametrize(("back", "kind"), [(0, "pointer gemm"), (2, "gemm")])
def test_an_operand_that_a_graph_would_copy_to_within_a_pack_is_read_in_turns(back, kind):
    """A diagonal that runs forward, along an axis that runs backward by so many bytes: its memory begins before it."""
    size = {"b": 3, "q": 128, "h": 5, "k": 64, "d": 64, "z": 2}
    steps = Reduce(0, "zzbqhd", "zbqhd"), Contract(2, 1, "zbqhd", "bkhd", "zbhqk")
    plan, device = Plan(("zzbqhd", "bkhd"), steps, (3,), tuple(size.items()), "float16"), SimulatedRuntime()
    x, y = (device.to_device(np.ones(shape, np.float16)) for shape in ((3, 3, 128, 5, 64), (3, 64, 5, 64)))
    diagonals = device.strided(x[1], (2, 2, *x.shape[1:]), (-back, x.strides[0] + back, *x.strides[1:]))
    run = CudaBackend(device).bind_single(plan, Mode(graph=True))
    for _ in range(3):
        assert (run(diagonals, y) == 64).all()
    assert {name for name, *_ in device.calls} >= {kind, "replay"}
    assert ("pointer gemm" in {name for name, *_ in device.calls}) == (kind == "pointer gemm")


def test_without_elements_there_are_no_pointers():
    for empty in "bqkd":
        size = {"b": 3, "q": 2, "h": 5, "k": 11, "d": 7, empty: 0}
        plan = ge.einsum_plan("bqhd,bkhd->bhqk", *[tuple(size[label] for label in term) for term in ("bqhd", "bkhd")])
        hosts = [np.empty(plan.shape(number)) for number in (0, 1)]
        [result], program = run_on(SimulatedRuntime(), plan, *hosts)
        assert not result.any()
        assert not products_by_pointers(program)


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


SEEDS = range(60)


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
        taken |= {(work.kernel.name, work.kernel.name == "permute" or bool(work.job[0][-2])) for work in program.work}
    both = {(name, wide) for name in ("reduce", "multiply") for wide in (False, True)}
    assert taken == both | {("reduce_columns", True), ("permute", True)}
