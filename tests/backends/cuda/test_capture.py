"""Captures of CUDA graphs that fail, their memory, and captures of the caller's own; through a stand-in CuPy."""

import numpy as np
import pytest
from programs import chain, matrices
from simulated.cublas_library import Foreign
from simulated.cupy import stand_in

import gpueinsum as ge
from gpueinsum.backends.base import Mode
from gpueinsum.backends.cuda.backend import CudaBackend
from gpueinsum.backends.cuda.runtime import CupyRuntime
from gpueinsum.errors import DeviceError


@pytest.fixture
def cupy(monkeypatch):
    with stand_in(monkeypatch) as fake:
        yield fake


@pytest.mark.parametrize("function", ["cublasSetStream_v2", "cublasSetWorkspace_v2", "cublasGemmEx"])
def test_a_capture_that_fails_ends_and_says_why(cupy, rng, monkeypatch, function):
    run = CudaBackend(CupyRuntime()).bind_single(chain(3), Mode(graph=True))
    hosts = matrices(rng, 3)
    arrays = [cupy.asarray(host) for host in hosts]
    run(*arrays)
    works, statuses = getattr(cupy.cublas, function).function, iter([14])
    monkeypatch.setattr(cupy.cublas, function, Foreign(lambda *given: next(statuses, 0) or works(*given)))
    with pytest.warns(RuntimeWarning, match=f"captured as a CUDA graph: {function} failed with status 14"):
        result = run(*arrays)
    np.testing.assert_allclose(result.get(), np.linalg.multi_dot(hosts))
    assert not cupy.capturing
    np.testing.assert_allclose(run(*arrays).get(), np.linalg.multi_dot(hosts))


def test_a_capture_that_failed_is_tried_again(cupy, rng, monkeypatch):
    """Memory that is short once is no reason to launch one by one for good."""
    run = CudaBackend(CupyRuntime()).bind_single(chain(3), Mode(graph=True))
    hosts = matrices(rng, 3)
    arrays = [cupy.asarray(host) for host in hosts]
    run(*arrays)
    begin = cupy.cuda.Stream.begin_capture

    def fail(stream, mode=None):
        raise MemoryError("none left")

    monkeypatch.setattr(cupy.cuda.Stream, "begin_capture", fail)
    with pytest.warns(RuntimeWarning, match="none left"):
        run(*arrays)
    monkeypatch.setattr(cupy.cuda.Stream, "begin_capture", begin)
    run(*arrays)
    before = len(cupy.cublas.used)
    for _ in range(3):
        np.testing.assert_allclose(run(*arrays).get(), np.linalg.multi_dot(hosts))
    assert len(cupy.cublas.used) == before + 2  # captured at the fourth call, twice as late, and replayed since


def test_graphs_give_their_memory_back(cupy, rng):
    backend = ge.backends.select.cuda_backend()
    run = backend.bind_single(chain(3), Mode(graph=True))
    hosts = matrices(rng, 3)
    arrays = [cupy.asarray(host) for host in hosts]
    pool = cupy.get_default_memory_pool()
    for _ in range(2):
        run(*arrays)
    held = pool.used_bytes()
    assert ge.free_memory() > 0
    assert pool.used_bytes() < held
    for _ in range(3):
        np.testing.assert_allclose(run(*arrays).get(), np.linalg.multi_dot(hosts))


@pytest.mark.parametrize("graph", [False, True])
def test_inside_a_capture_of_the_callers_own_products_are_refused(cupy, rng, graph):
    """The graph would be launched when the memory of intermediates, and the workspace, are somebody else's."""
    run = CudaBackend(CupyRuntime()).bind_single(chain(3), Mode(graph=graph))
    arrays = [cupy.asarray(host) for host in matrices(rng, 3)]
    for _ in range(3):
        run(*arrays)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(DeviceError, match=r"being captured.*graph=True"):
            run(*arrays)
        stream.end_capture()


def test_inside_a_capture_of_the_callers_own_single_kernels_may_run(cupy, rng):
    run = CudaBackend(CupyRuntime()).bind_single(ge.einsum_plan("i,j->ij", (3,), (5,)))
    x, y = (cupy.asarray(rng.random(size)) for size in (3, 5))
    run(x, y)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        result = run(x, y)
        graph = stream.end_capture()
    x[...] = 2.0
    graph.launch(stream)
    stream.synchronize()
    np.testing.assert_allclose(result.get(), np.multiply.outer(x.get(), y.get()))
