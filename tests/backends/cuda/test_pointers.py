"""From plans to programs of products by pointers: where pointers lie and how long, and when there are none."""

import math

import numpy as np
import pytest
from cublas_calls import make_pointers_free
from programs import operands_of, run_on
from simulated import SimulatedRuntime

import gpueinsum as ge
from gpueinsum.backends.base import Mode
from gpueinsum.backends.cuda.backend import CudaBackend
from gpueinsum.backends.cuda.program import Product
from gpueinsum.language.plan import Plan
from gpueinsum.language.steps import Contract, Reduce
from gpueinsum.schedule import gemm
from gpueinsum.schedule import select as candidates


def products_by_pointers(program):
    return [work for work in program.work if isinstance(work, Product) and work.by_pointers]


def test_a_program_by_pointers_prints_where_they_lie():
    plan = ge.einsum_plan("bqhd,bkhd->bhqk", (3, 2, 5, 7), (3, 11, 5, 7))
    program = CudaBackend(SimulatedRuntime()).program(plan, [np.empty(plan.shape(number)).strides for number in (0, 1)])
    assert str(program).split("\n") == [
        "float64, 2 launches, 512 bytes of workspace, 2640 of results",
        "  w+0 = pointers, 1 x 256 threads  of %1, %0, r0",
        "  r0 = gemm TN, 15 of 11 x 2 x 7, by pointers  of w+0, w+128, w+256, %1, %0",
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


@pytest.mark.parametrize("most", [2, gemm.MAX_BATCH])
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
    pointers, intermediate = 3 * 22 * 8, 3 * 7 * 61 * 67 * 8  # of 21 products: whole packs
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
