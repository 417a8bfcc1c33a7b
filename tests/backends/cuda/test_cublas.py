"""`CupyRuntime`'s calls of cuBLAS, on a stand-in for CuPy: precisions, handles and workspaces, pointers, conjugates."""

import functools

import numpy as np
import pytest
from simulated.cublas_library import OPERATION_C, OPERATION_N, OPERATION_T, Foreign
from simulated.cupy import FakeDevice, stand_in
from simulated.streams import Stream
from single_steps import bound

import gpueinsum as ge
from gpueinsum.backends.base import Mode
from gpueinsum.backends.cuda.backend import CudaBackend
from gpueinsum.backends.cuda.cublas import WORKSPACE, Cublas
from gpueinsum.backends.cuda.runtime import CupyRuntime
from gpueinsum.errors import DeviceError
from gpueinsum.language.steps import Contract


@pytest.fixture
def cupy(monkeypatch):
    with stand_in(monkeypatch) as fake:
        yield fake


COMPUTE_32F, COMPUTE_64F, COMPUTE_TF32 = 68, 70, 77
TO_THE_END = 16  # the math mode in which halves are added in float32; it says nothing about other types


@pytest.mark.parametrize(
    ("dtype", "precision", "compute"),
    [
        ("float32", None, COMPUTE_32F),
        ("float32", "highest", COMPUTE_32F),
        ("float32", "tf32", COMPUTE_TF32),
        ("complex64", None, COMPUTE_32F),
        ("complex64", "tf32", COMPUTE_TF32),
        ("float64", "tf32", COMPUTE_64F),
        ("float16", None, COMPUTE_32F),
        ("float16", "tf32", COMPUTE_32F),
    ],
)
def test_float32_is_float32_unless_asked_otherwise(cupy, dtype, precision, compute):
    x = np.ones((3, 5), dtype)
    ge.einsum("ij,kj->ik", x, x, backend="cuda", precision=precision)
    assert cupy.cublas.calls == [(dtype, compute, TO_THE_END)]


@pytest.fixture
def blackwell(monkeypatch):
    monkeypatch.setattr(FakeDevice, "compute_capability", "100")


COMPUTE_BF16, COMPUTE_BF16X9, COMPUTE_FIXED_POINT = 75, 78, 79


@pytest.mark.parametrize(
    ("dtype", "precision", "compute"),
    [
        ("float32", "bf16", COMPUTE_BF16),
        ("complex64", "bf16", COMPUTE_BF16),
        ("float64", "bf16", COMPUTE_64F),
        ("float16", "bf16", COMPUTE_32F),
        ("float32", "emulated", COMPUTE_BF16X9),
        ("complex64", "emulated", COMPUTE_BF16X9),
        ("float64", "emulated", COMPUTE_FIXED_POINT),
        ("complex128", "emulated", COMPUTE_FIXED_POINT),
        ("float16", "emulated", COMPUTE_32F),
    ],
)
def test_other_precisions_are_compute_types_of_cublas(cupy, blackwell, dtype, precision, compute):
    x = cupy.asarray(np.ones((3, 5), dtype))
    plan = ge.einsum_plan("ij,kj->ik", x, x)
    CudaBackend(CupyRuntime()).bind(plan, Mode(precision))(x, x)
    assert [call[:2] for call in cupy.cublas.calls] == [(dtype, compute)]


@pytest.mark.parametrize(
    ("dtype", "version", "message"),
    [
        ("float32", 120800, r"precision='emulated' of float32 needs cuBLAS 12\.9\.0, and this is 12\.8\.0"),
        ("float64", 130002, r"precision='emulated' of float64 needs cuBLAS 13\.1\.0, and this is 13\.0\.2"),
    ],
)
def test_what_this_cublas_cannot_emulate_is_refused(cupy, dtype, version, message):
    cupy.cublas.version = version
    x = cupy.asarray(np.ones((3, 5), dtype))
    product = CudaBackend(CupyRuntime()).bind(ge.einsum_plan("ij,kj->ik", x, x), Mode("emulated"))
    with pytest.raises(DeviceError, match=message):
        product(x, x)
    CudaBackend(CupyRuntime()).bind(ge.einsum_plan("ij,kj->ik", x, x), Mode("bf16"))(x, x)


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_what_this_device_cannot_emulate_is_refused(cupy, dtype):
    """cuBLAS would compute in full precision, and not say so."""
    x = cupy.asarray(np.ones((3, 5), dtype))
    with pytest.raises(DeviceError, match=r"needs a device of compute capability 10\.0, and this has 9\.0"):
        ge.einsum("ij,kj->ik", x, x, precision="emulated")


def test_every_stream_has_a_workspace_of_its_own(cupy, monkeypatch):
    x = cupy.asarray(np.ones((3, 5)))
    run = CudaBackend(CupyRuntime()).bind(ge.einsum_plan("ij,kj->ik", x, x))
    for stream in (0, 1, 1, 0):
        monkeypatch.setattr(cupy.cuda, "get_current_stream", lambda stream=stream: Stream(stream))
        run(x, x)
    handles, used, workspaces = zip(*cupy.cublas.used, strict=True)
    assert used == (0, 1, 1, 0)
    first, second, third, last = workspaces
    assert (first, second) == (last, third)
    assert first != second
    assert len(set(handles)) == 1


def test_a_handle_is_set_only_where_something_changes(cupy, monkeypatch):
    half, full = (cupy.asarray(np.ones((3, 5), dtype)) for dtype in ("float16", "float32"))
    backend, settings = CudaBackend(CupyRuntime()), []

    def counted(name, function, *given):
        settings.append(name)
        return function(*given)

    for name in ("cublasSetStream_v2", "cublasSetWorkspace_v2", "cublasSetMathMode"):
        foreign = Foreign(functools.partial(counted, name, getattr(cupy.cublas, name).function))
        monkeypatch.setattr(cupy.cublas, name, foreign)
    for x in (full, full, half, half, full):
        backend.bind(ge.einsum_plan("ij,kj->ik", x, x))(x, x)
    assert settings == ["cublasSetMathMode", "cublasSetStream_v2", "cublasSetWorkspace_v2"]


def test_a_product_on_a_stream_that_is_not_attached_is_found(cupy, monkeypatch):
    monkeypatch.setattr(Cublas, "attach", lambda *arguments: None)
    x = cupy.asarray(np.ones((3, 5)))
    with (
        pytest.warns(RuntimeWarning),
        pytest.raises(DeviceError, match="cublasGemmStridedBatchedEx failed with status 7"),
    ):
        CudaBackend(CupyRuntime()).bind(ge.einsum_plan("ij,kj->ik", x, x))(x, x)


HEADS = [(3, 2, 5, 7), (3, 11, 5, 7)]  # of attention, which are one call by pointers


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_products_by_pointers_run_on_the_current_stream(cupy, rng, dtype):
    x, y = (rng.integers(-3, 4, shape).astype(dtype) for shape in HEADS)
    run = CudaBackend(CupyRuntime()).bind_single(ge.einsum_plan("bqhd,bkhd->bhqk", x, y))
    for stream in (cupy.cuda.Stream.null, cupy.cuda.Stream(non_blocking=True)):
        there = cupy.asarray(x), cupy.asarray(y)
        with stream:
            result = run(*there)
        stream.synchronize()
        np.testing.assert_array_equal(result.get(), np.einsum("bqhd,bkhd->bhqk", x, y))
        assert [used for _, used, _ in cupy.cublas.used] == [stream.ptr]
        assert cupy.cublas.calls == [(dtype, COMPUTE_32F if dtype == "float32" else COMPUTE_64F, TO_THE_END)]
        cupy.cublas.used.clear()
        cupy.cublas.calls.clear()


@pytest.mark.parametrize(
    ("equation", "shapes", "function"),
    [("ij,jk->ik", [(3, 5), (5, 7)], "cublasGemmEx"), ("bqhd,bkhd->bhqk", HEADS, "cublasGemmBatchedEx")],
)
def test_a_product_that_fails_says_so(cupy, monkeypatch, equation, shapes, function):
    x, y = (cupy.asarray(np.ones(shape)) for shape in shapes)
    monkeypatch.setattr(cupy.cublas, function, lambda *arguments: 11)
    with pytest.raises(RuntimeError, match=f"{function} failed with status 11"):
        CudaBackend(CupyRuntime()).bind(ge.einsum_plan(equation, x, y))(x, y)


@pytest.mark.parametrize("precision", ["tf32", "bf16", "emulated"])
def test_lower_precisions_take_no_pointers(cupy, blackwell, precision):
    x, y = (cupy.asarray(np.ones(shape, np.float32)) for shape in HEADS)
    CudaBackend(CupyRuntime()).bind(ge.einsum_plan("bqhd,bkhd->bhqk", x, y), Mode(precision))(x, y)
    assert len(cupy.cublas.calls) == 3


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "float32"])
def test_a_conjugate_is_an_operation_of_cublas(cupy, rng, dtype):
    x, y = (rng.integers(-3, 4, shape) for shape in ((2, 3), (3, 5)))
    x, y = (x * (1 + 2j), y * (2 - 1j)) if dtype.startswith("c") else (x, y)
    step = Contract(0, 1, "ij", "jk", "ik", conj_lhs=True)
    product = bound(CupyRuntime(), step, {"i": 2, "j": 3, "k": 5}, dtype)
    result = product(*(cupy.asarray(np.asarray(array, dtype)) for array in (x, y)))
    np.testing.assert_array_equal(result.get(), x.conj() @ y)
    is_complex = dtype.startswith("c")
    assert cupy.cublas.operations == [(OPERATION_C, OPERATION_T) if is_complex else (OPERATION_N, OPERATION_N)]


@pytest.mark.parametrize("status", [1, 3, 14])
def test_without_memory_cublas_gets_what_the_pool_keeps(cupy, monkeypatch, status):
    freed = []
    monkeypatch.setattr(cupy.get_default_memory_pool(), "free_all_blocks", lambda: freed.append(True))
    x = cupy.asarray(np.ones((3, 5)))
    cupy.cublas.statuses = [status]
    np.testing.assert_array_equal(ge.einsum("ij,kj->ik", x, x).get(), np.full((3, 3), 5))
    cupy.cublas.statuses = [status] * 2
    np.testing.assert_array_equal(ge.einsum("ij,kj->ik", x, x).get(), np.full((3, 3), 5))
    assert freed
    cupy.cublas.statuses = [status] * 3
    with pytest.raises(DeviceError, match=rf"cuBLAS needs memory: 3 GiB of 5 GiB are free.*status {status}"):
        ge.einsum("ij,kj->ik", x, x)


def test_without_memory_for_a_handle_the_pool_is_emptied(cupy, monkeypatch):
    statuses, create = [3], cupy.cublas.cublasCreate_v2.function
    foreign = Foreign(lambda handle: statuses.pop() if statuses else create(handle))
    monkeypatch.setattr(cupy.cublas, "cublasCreate_v2", foreign)
    x = cupy.asarray(np.ones((3, 5)))
    np.testing.assert_array_equal(ge.einsum("ij,kj->ik", x, x).get(), np.full((3, 3), 5))
    assert not statuses


def test_workspaces_are_few_and_given_back(cupy):
    x = cupy.asarray(np.ones((3, 5)))
    pool, backend = cupy.get_default_memory_pool(), ge.backends.select.cuda_backend()
    before, streams = pool.used_bytes(), [cupy.cuda.Stream(non_blocking=True) for _ in range(9)]
    for stream in streams:
        with stream:
            result = ge.einsum("ij,kj->ik", x, x)
            stream.synchronize()
            np.testing.assert_array_equal(result.get(), np.full((3, 3), 5))
            del result
    assert backend.runtime._workspace.cache_info().currsize == 4
    assert ge.free_memory() >= 4 * WORKSPACE
    assert pool.used_bytes() - before < WORKSPACE
    np.testing.assert_array_equal(ge.einsum("ij,kj->ik", x, x).get(), np.full((3, 3), 5))
