"""Products on a real GPU that are no single GEMM: those by pointers, and many tiny ones in one launch."""

import math

import numpy as np
import pytest
from conftest import real_runtime
from cublas_calls import make_pointers_free
from single_steps import plan_of

import gpueinsum as ge
from gpueinsum.backends.base import PLAIN, Mode
from gpueinsum.backends.cuda.backend import CudaBackend
from gpueinsum.backends.cuda.program import Launch, Product
from gpueinsum.language.steps import Contract
from gpueinsum.schedule import cuda
from gpueinsum.schedule import select as candidates

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def cupy():
    real_runtime()
    import cupy

    return cupy


# ---- Products by pointers


@pytest.fixture
def no_tiles(monkeypatch):
    """All that tiles would be faster at is left to cuBLAS."""
    monkeypatch.setattr(cuda, "choose_tiles", lambda *problem: None)
    candidates._cheapest.cache_clear()
    yield
    candidates._cheapest.cache_clear()


HEADS = "bqhd,bkhd->bhqk"


def launches(plan, arrays, mode=PLAIN):
    """How many cuBLAS calls by pointers the program for these arrays makes if they are aligned."""
    program = CudaBackend(real_runtime()).program(plan, [array.strides for array in arrays], mode.precision)
    return sum(isinstance(work, Product) and work.by_pointers for work in program.work)


def heads(cupy, dtype, *shapes, begins=0):
    """Arrays of small whole numbers that begin so many elements behind an allocation."""
    rng, arrays = np.random.default_rng(0), []
    for shape in shapes:
        numbers = rng.integers(-2, 3, (2, math.prod(shape) + begins))
        kind = np.dtype(ge.api.arguments.dtype_of(dtype))
        memory = cupy.asarray((numbers[0] + 1j * numbers[1] if kind.kind == "c" else numbers[0]).astype(kind))
        arrays.append(memory[begins:].reshape(shape))
    return arrays


@pytest.mark.usefixtures("no_tiles")
@pytest.mark.parametrize("mode", [PLAIN, Mode(deterministic=True), Mode(graph=True), Mode("tf32")], ids=str)
@pytest.mark.parametrize("begins", [0, 1])
@pytest.mark.parametrize("d", [16, 15])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"])
def test_products_by_pointers_are_exact_wherever_matrices_begin(cupy, dtype, d, begins, mode):
    arrays = heads(cupy, dtype, (8, 16, 8, d), (8, 16, 8, d), begins=begins)
    plan = ge.einsum_plan(HEADS, *arrays)
    run = CudaBackend(real_runtime()).bind_single(plan, mode)
    reads_packs = dtype in ("float16", "bfloat16") or mode.precision is not None
    assert launches(plan, arrays, mode) == (d * arrays[0].itemsize % 16 == 0 or not reads_packs)
    expected = np.einsum(HEADS, *[array.get().astype(complex) for array in arrays], optimize=True)
    cupy.cuda.Device().synchronize()
    for stream in (cupy.cuda.Stream.null, cupy.cuda.Stream(non_blocking=True)):
        with stream:
            for _ in range(3):
                np.testing.assert_array_equal(run(*arrays).get().astype(complex), expected)


@pytest.mark.usefixtures("no_tiles")
def test_more_products_by_pointers_than_a_call_takes_are_exact(cupy):
    arrays = heads(cupy, "float32", (513, 8, 514, 16), (513, 16, 514, 16))
    plan = ge.einsum_plan(HEADS, *arrays)
    assert launches(plan, arrays) == 5  # of 513 * 514 products
    expected = np.einsum(HEADS, *[array.get() for array in arrays], optimize=True)
    np.testing.assert_array_equal(ge.einsum(HEADS, *arrays).get(), expected)


def test_products_by_pointers_add_up_and_conjugate(cupy, monkeypatch):
    make_pointers_free(monkeypatch)
    step = Contract(0, 1, "fbea", "ecfd", "cdba", conj_rhs=True)
    x, y = heads(cupy, "complex64", (3, 11, 2, 5), (2, 13, 3, 7))
    plan = plan_of(step, dict(zip("fbeacd", (3, 11, 2, 5, 13, 7), strict=True)), "complex64")
    assert launches(plan, [x, y]) == 2
    [result] = CudaBackend(real_runtime()).bind(plan)(x, y)
    candidates._cheapest.cache_clear()
    np.testing.assert_array_equal(result.get(), np.einsum("fbea,ecfd->cdba", x.get(), y.get().conj()))


# ---- Products that are no GEMM


@pytest.mark.parametrize("dtype", ["int32", "float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("bij,bjk->bik", [(20_000, 4, 4), (20_000, 4, 4)]),
        ("ij,ajb->aib", [(2, 2), (256, 2, 4096)]),
        ("ij,aj->ai", [(2, 2), (2**20, 2)]),
        ("ijkl,akblc->aibjc", [(2, 2, 2, 2), (32, 2, 64, 2, 256)]),
        ("ab,ac->bc", [(2**20, 2), (2**20, 3)]),  # and the pass that adds up its parts
    ],
)
def test_many_tiny_products_are_exact(cupy, equation, shapes, dtype):
    arrays = heads(cupy, dtype, *shapes)
    program = CudaBackend(real_runtime()).program(ge.einsum_plan(equation, *arrays), [a.strides for a in arrays])
    assert [type(work) for work in program.work] == [Launch] * (1 + (equation == "ab,ac->bc"))
    expected = np.einsum(equation, *[array.get().astype(complex) for array in arrays])
    np.testing.assert_array_equal(ge.einsum(equation, *arrays).get().astype(complex), expected)
