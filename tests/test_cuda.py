"""The CUDA backend end to end: which route each expression takes, and that its result is right."""

import numpy as np
import pytest
from simulated import SimulatedRuntime

import gpueinsum as ge
import gpueinsum.backends
from gpueinsum.backends import gemm
from gpueinsum.backends.cuda import CudaBackend

ROUTES = [  # expression, shapes, what is launched for float32, and for int32
    ("ij,jk->ik", [(2, 3), (3, 5)], ["gemm"], ["integer_gemm"]),
    ("ji,kj->ki", [(3, 2), (5, 3)], ["gemm"], ["integer_gemm"]),
    ("bij,bjk->bik", [(7, 2, 3), (7, 3, 5)], ["gemm"], ["integer_gemm"]),
    ("bqhd,bkhd->bhqk", [(2, 3, 5, 7), (2, 11, 5, 7)], ["gemm"] * 2, ["integer_gemm"] * 2),
    ("ij,j->i", [(2, 3), (3,)], ["gemm"], ["integer_gemm"]),
    ("xyij,ij->xy", [(5, 7, 2, 3), (2, 3)], ["gemm"], ["integer_gemm"]),
    ("bc,bc->b", [(2, 3), (2, 3)], ["multiply_reduce"], ["multiply_reduce"]),
    ("i,i->", [(3,), (3,)], ["multiply_reduce"], ["multiply_reduce"]),
    ("i,j->ij", [(2,), (3,)], ["multiply_reduce"], ["multiply_reduce"]),
    ("ij,ij->ij", [(2, 3), (2, 3)], ["multiply_reduce"], ["multiply_reduce"]),
    ("ii->", [(3, 3)], ["reduce"], ["reduce"]),
    ("iij->j", [(3, 3, 5)], ["reduce"], ["reduce"]),
    ("i->ii", [(3,)], ["expand"], ["expand"]),
    ("ij->ji", [(2, 3)], [], []),
    ("ii->i", [(3, 3)], [], []),
    ("ijk,kjl->il", [(2, 3, 5), (5, 3, 7)], ["reduce", "gemm"], ["reduce", "integer_gemm"]),
    ("ij,jk->ik", [(2, 0), (0, 5)], ["reduce", "expand"], ["reduce", "expand"]),
    ("ij,jk->ik", [(0, 3), (3, 5)], [], []),
]


@pytest.fixture
def device(monkeypatch):
    """A simulated device that `backend="cuda"` finds; arrays stay where and as they are."""
    runtime = SimulatedRuntime()
    backend = CudaBackend(runtime)
    monkeypatch.setattr(gpueinsum.backends, "cuda_backend", lambda: backend)
    return runtime


def launched(runtime):
    return [kind if kind == "gemm" else call[0].name for kind, *call in runtime.calls]


@pytest.mark.parametrize(("expression", "shapes", "floats", "integers"), ROUTES)
def test_each_pair_takes_its_route(device, rng, expression, shapes, floats, integers):
    for dtype, route in ((np.float32, floats), (np.int32, integers)):
        operands = [rng.integers(-9, 9, shape).astype(dtype) for shape in shapes]
        device.calls.clear()
        result = ge.einsum(expression, *operands, backend="cuda")
        assert launched(device) == route
        if expression != "i->ii":
            np.testing.assert_array_equal(result, np.einsum(expression, *operands))


@pytest.mark.parametrize("precision", [None, "highest", "tf32"])
def test_precision_reaches_the_product(device, precision, monkeypatch):
    seen = []
    monkeypatch.setattr(device, "gemm", lambda *call: seen.append(call[-1]))
    ge.einsum("ij,jk->ik", np.ones((2, 3), "f4"), np.ones((3, 5), "f4"), backend="cuda", precision=precision)
    assert seen == [precision]


def test_overlapping_patches_are_never_copied(device, rng):
    image, kernel = rng.random((13, 11)), rng.random((3, 3))
    patches = np.lib.stride_tricks.sliding_window_view(image, (3, 3))
    result = ge.einsum("xyij,ij->xy", patches, kernel, backend="cuda")
    assert launched(device) == ["multiply_reduce"]
    np.testing.assert_allclose(result, np.einsum("xyij,ij->xy", patches, kernel))


def test_a_long_sum_is_cut_into_parts_that_are_added_up(device):
    x = np.ones(200_003, np.float16)
    result = ge.einsum("i->", x / 4, backend="cuda")
    assert launched(device) == ["reduce", "reduce"]
    assert result == np.float16(200_003 / 4)


def test_large_batches_are_split(device, rng, monkeypatch):
    monkeypatch.setattr(gemm, "MAX_BATCH", 3)
    gemm.route.cache_clear()
    a, b = rng.random((7, 2, 3)), rng.random((7, 3, 5))
    np.testing.assert_allclose(ge.einsum("bij,bjk->bik", a, b, backend="cuda"), a @ b)
    assert launched(device) == ["gemm"] * 3


@pytest.mark.parametrize("dtype", [np.longdouble, object])
def test_dtypes_that_cuda_lacks_are_refused(device, dtype):
    with pytest.raises(ge.DtypeError, match="cannot be computed with on CUDA"):
        ge.einsum("i->", np.ones(3, dtype), backend="cuda")


def test_strides_that_are_no_multiple_of_the_element_are_refused(device, monkeypatch):
    monkeypatch.setattr(device, "to_device", lambda array: array)  # it lies on the device already
    odd = np.zeros(3, [("pad", "i1"), ("x", "f4")])["x"]
    with pytest.raises(ge.OperandError, match="float32 elements lie at addresses that are no multiples of 4"):
        ge.einsum("i->", odd, backend="cuda")


def test_the_same_device_gives_the_same_bits(device, rng):
    x = rng.random((3, 70_001)).astype(np.float32)
    results = {ge.einsum("ij->i", x, backend="cuda").tobytes() for _ in range(3)}
    device.last_thread_first = True  # threads take turns in another order
    results.add(ge.einsum("ij->i", x, backend="cuda").tobytes())
    assert len(results) == 1


HOPPER = [  # results whose batches interleave in memory, and sides that every member of a batch shares
    ("ibj,jbk->kbi", "k=64 b=3 i=128 j=64"),
    ("ibj,jbk->kbi", "k=37 b=3 i=67 j=29"),
    ("bij,jk->ibk", "b=5 i=64 j=128 k=64"),
    ("ij,bjk->bki", "b=5 i=61 j=31 k=17"),
    ("bij,bjk->bik", "b=64513 i=2 j=3 k=2"),  # one more than a call takes
]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize(("expression", "sizes"), HOPPER)
def test_products_that_choose_other_kernels_of_cublas_are_exact(einsum_on, rng, expression, sizes, dtype):
    size = {label: int(number) for label, number in (item.split("=") for item in sizes.split())}
    shapes = [[size[label] for label in term] for term in expression.split("->")[0].split(",")]
    exact = [rng.integers(-2, 3, shape).astype(float) for shape in shapes]
    result = einsum_on(expression, *(x.astype(ge.door.dtype_of(dtype)) for x in exact))
    np.testing.assert_array_equal(result.astype(complex), np.einsum(expression, *exact, optimize=True))
